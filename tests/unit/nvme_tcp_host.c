/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/nvme_tcp_host.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>

#include "common/base/util.h"
#include "dpu/net/sockets.h"
#include "tests/unit/stream_shim.h"

#define ROUNDS_MAX 3000000

/* ---- memory for a volume ----------------------------------------------------------------------------- */
static void mem_run(struct mem_vol *v, struct io_req *r)
{
	uint64_t at = r->off_bytes;

	assert_true(r->off_bytes <= v->size && r->len_bytes <= v->size - r->off_bytes);
	for (int i = 0; i < r->niov && (r->op == IO_READ || r->op == IO_WRITE); i++) {
		if (r->op == IO_READ)
			memcpy(r->iov[i].iov_base, v->bytes + at, r->iov[i].iov_len);
		else
			memcpy(v->bytes + at, r->iov[i].iov_base, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
	}
	if (r->op == IO_READ || r->op == IO_WRITE)
		assert_int_equal(at - r->off_bytes, r->len_bytes);
	if (r->op == IO_TRIM || r->op == IO_WRITE_ZEROES)
		memset(v->bytes + at, 0, r->len_bytes);
}

static int backend_poll(void *arg)
{
	struct bed *b = arg;
	struct io_req *r;
	int n = 0;

	while (!b->hold && (r = TAILQ_FIRST(&b->queued))) {
		TAILQ_REMOVE(&b->queued, r, link);
		b->nqueued--;
		r->status = b->fail;
		if (b->fail == IO_OK)
			mem_run((struct mem_vol *)r->vol, r);
		b->ntrimmed += r->op == IO_TRIM ? r->len_bytes : 0;
		r->done_fn(r);
		n++;
	}
	return n;
}

static int backend_submit(void *arg, struct io_req *r)
{
	struct bed *b = arg;

	if (b->refuse && (!b->refuse_vm || b->refuse_vm == r->vm)) {
		b->refuse--;
		b->nrefused++;
		return -EAGAIN;
	}
	b->nsubmitted++;
	b->nqueued++;
	b->last_flags = r->flags;
	b->last_vm = r->vm;
	TAILQ_INSERT_TAIL(&b->queued, r, link);
	return 0;
}

/* ---- the bed --------------------------------------------------------------------------------------------- */
static uint16_t bed_listen(struct bed *b, struct nvme_tcp_vm *vm)
{
	struct stream_listener *l;
	uint16_t port;

	assert_int_equal(
		sockets_listen(b->sh, &(struct sockets_cfg){.addr = "127.0.0.1", .max_conns = 1000},
			&l, NULL),
		0);
	port = stream_listener_addr(l)->port;
	if (b->borrow)
		assert_int_equal(shim_listen(b->sh, l, &l), 0);
	assert_int_equal(nvme_tcp_vm_listen(vm, l), 0);
	return port;
}

static void bed_volume(
	struct nvme_tcp_vm *vm, struct mem_vol *v, uint32_t nsid, uint32_t block_bytes)
{
	struct nvme_tcp_ns_cfg cfg = {
		.nsid = nsid,
		.vol = (struct volume *)v,
		.size_bytes = BED_BYTES,
		.block_bytes = block_bytes ? block_bytes : 4096,
		.nguid = {0xaa, (uint8_t)nsid},
		.eui64 = {0xbb, (uint8_t)nsid},
	};

	v->size = BED_BYTES;
	v->bytes = calloc(1, BED_BYTES);
	assert_int_equal(nvme_tcp_ns_add(vm, &cfg, NULL), 0);
}

struct bed *bed_open(const struct bed_cfg *cfg)
{
	struct nvme_tcp_target_cfg tc = cfg->target;
	struct nvme_tcp_vm_cfg vc = {.vm = 1,
		.subnqn = BED_NQN,
		.serial = "SER1",
		.hosts = cfg->hosts,
		.nhosts = cfg->nhosts};
	struct bed *b = calloc(1, sizeof(*b));
	struct err err;

	TAILQ_INIT(&b->queued);
	b->borrow = cfg->borrow;
	assert_int_equal(
		shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &b->sh), 0);
	tc.submit_fn = backend_submit;
	tc.arg = b;
	if (!tc.vm_buffer_bytes)
		tc.vm_buffer_bytes = 4u << 20;
	assert_int_equal(nvme_tcp_target_open(b->sh, &tc, &b->t), 0);
	assert_int_equal(nvme_tcp_vm_add(b->t, &vc, &b->vm, &err), 0);
	vc = (struct nvme_tcp_vm_cfg){.vm = 2, .subnqn = BED_NQN2, .serial = "SER2"};
	assert_int_equal(nvme_tcp_vm_add(b->t, &vc, &b->vm2, &err), 0);
	bed_volume(b->vm, &b->vol, 1, cfg->block_bytes);
	bed_volume(b->vm2, &b->vol2, 1, cfg->block_bytes);
	b->port = bed_listen(b, b->vm);
	b->port2 = bed_listen(b, b->vm2);
	poller_add(b->sh, &b->poller, backend_poll, b, POLLER_SLEEPS);
	return b;
}

void bed_close(struct bed *b)
{
	b->hold = false;
	assert_int_equal(nvme_tcp_vm_del(b->vm), 0);
	assert_int_equal(nvme_tcp_vm_del(b->vm2), 0);
	assert_int_equal(nvme_tcp_target_close(b->t), 0);
	assert_int_equal(b->nqueued, 0);
	poller_del(b->sh, &b->poller);
	shard_close(b->sh);
	free(b->vol.bytes);
	free(b->vol2.bytes);
	free(b);
}

void bed_rounds(struct bed *b, int n)
{
	while (n--)
		shard_run_once(b->sh);
}

void bed_until(struct bed *b, const uint32_t *v, uint32_t n)
{
	for (int i = 0; i < ROUNDS_MAX && *v < n; i++)
		shard_run_once(b->sh);
	assert_true(*v >= n);
}

struct nvme_tcp_vm_stats bed_stats(struct bed *b)
{
	struct nvme_tcp_vm_stats s;

	nvme_tcp_vm_stats(b->vm, &s);
	return s;
}

/* ---- bytes ------------------------------------------------------------------------------------------------- */
struct host host_open(struct bed *b, uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct host h = {.b = b, .cid = 1};
	int one = 1;

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	h.fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(h.fd >= 0);
	assert_int_equal(connect(h.fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(setsockopt(h.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
	assert_int_equal(fcntl(h.fd, F_SETFL, O_NONBLOCK), 0);
	h.link = (struct nvme_tcp_link){.max_data = UINT32_MAX, .digest = crc32c};
	return h;
}

void host_close(struct host *h)
{
	if (h->fd >= 0)
		close(h->fd);
	h->fd = -1;
}

void host_send(struct host *h, const void *p, size_t n)
{
	size_t done = 0;

	for (int i = 0; i < ROUNDS_MAX && done < n; i++) {
		ssize_t k = send(
			h->fd, (const char *)p + done, n - done, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (k > 0)
			done += (size_t)k;
		else if (errno != EAGAIN)
			return; /* the target has closed: what it sent before is judged by the test */
		shard_run_once(h->b->sh);
	}
	assert_int_equal(done, n);
}

bool host_read(struct host *h, void *p, size_t n)
{
	size_t done = 0;

	for (int i = 0; i < ROUNDS_MAX && done < n; i++) {
		ssize_t k = recv(h->fd, (char *)p + done, n - done, MSG_DONTWAIT);

		if (k > 0)
			done += (size_t)k;
		else if (k == 0 || errno != EAGAIN)
			return false;
		shard_run_once(h->b->sh);
	}
	assert_int_equal(done, n);
	return true;
}

bool host_closed(struct host *h)
{
	char c;

	return !host_read(h, &c, 1);
}

/* ---- PDUs ---------------------------------------------------------------------------------------------------- */
void host_pdu_free(struct host_pdu *p)
{
	free(p->data);
	p->data = NULL;
}

bool host_recv(struct host *h, struct host_pdu *p)
{
	struct nvme_tcp_fault fault;
	uint8_t pad[NVME_TCP_HDR_MAX];
	size_t have = 0;
	int need;
	le32 digest;

	host_pdu_free(p);
	while ((need = nvme_tcp_pdu_parse(&h->link, p->head, have, &p->pdu, &fault)) > 0) {
		if (!host_read(h, p->head + have, (size_t)need - have))
			return false;
		have = (size_t)need;
	}
	if (need < 0)
		fail_msg("the target sent a bad PDU: %s", fault.what);
	assert_true(host_read(h, pad, p->pdu.pad_bytes));
	p->data = malloc(p->pdu.data_bytes + 1);
	assert_true(host_read(h, p->data, p->pdu.data_bytes));
	if (p->pdu.ddgst) {
		assert_true(host_read(h, &digest, sizeof(digest)));
		assert_int_equal(crc32c(p->data, p->pdu.data_bytes), from_le32(digest));
	}
	return true;
}

void host_expect_term(struct host *h, enum nvme_tcp_fes fes, uint32_t fei)
{
	struct host_pdu p = {0};

	while (host_recv(h, &p) && p.pdu.type != NVME_TCP_C2H_TERM)
		;
	assert_int_equal(p.pdu.type, NVME_TCP_C2H_TERM);
	assert_int_equal(from_le16(p.pdu.term->fes), fes);
	assert_int_equal(from_le32(p.pdu.term->fei), fei);
	assert_true(host_closed(h));
	host_pdu_free(&p);
	host_close(h);
}

void host_icreq(struct host *h, uint8_t digests)
{
	uint8_t head[NVME_TCP_HEAD_MAX];
	struct host_pdu p = {0};

	h->link.hdgst = digests & NVME_TCP_DGST_HDR;
	h->link.ddgst = digests & NVME_TCP_DGST_DATA;
	host_send(h, head, nvme_tcp_put_icreq(head, 0, digests, 0));
	assert_true(host_recv(h, &p));
	assert_int_equal(p.pdu.type, NVME_TCP_ICRESP);
	assert_int_equal(p.pdu.icresp->dgst, digests);
	assert_int_equal(p.pdu.icresp->cpda, 0);
	assert_true(from_le32(p.pdu.icresp->maxh2cdata) >= 4096);
	h->link.ready = true;
	host_pdu_free(&p);
}

static void send_with_data(
	struct host *h, const uint8_t *head, size_t n, const void *data, uint32_t len)
{
	le32 digest = to_le32(crc32c(data, len));
	size_t total = n + len + (len && h->link.ddgst ? sizeof(digest) : 0);
	uint8_t *all = malloc(total + 1);

	memcpy(all, head, n);
	if (len)
		memcpy(all + n, data, len);
	if (len && h->link.ddgst)
		memcpy(all + n + len, &digest, sizeof(digest));
	host_send(h, all, total);
	free(all);
}

void host_cmd(struct host *h, struct nvme_sqe *sqe, const void *data, uint32_t len)
{
	uint8_t head[NVME_TCP_HEAD_MAX];

	sqe->cid = to_le16(h->cid++);
	send_with_data(h, head, nvme_tcp_put_cmd(&h->link, head, sqe, len), data, len);
}

void host_h2c(struct host *h, uint16_t cid, uint16_t ttag, uint32_t off, const void *data,
	uint32_t len, uint8_t flags)
{
	uint8_t head[NVME_TCP_HEAD_MAX];

	send_with_data(h, head, nvme_tcp_put_h2c_data(&h->link, head, cid, ttag, off, len, flags),
		data, len);
}

uint16_t host_resp(struct host *h, const struct nvme_sqe *sqe, uint64_t *result)
{
	struct host_pdu p = {0};
	uint16_t status;

	assert_true(host_recv(h, &p));
	assert_int_equal(p.pdu.type, NVME_TCP_CAPSULE_RESP);
	assert_int_equal(from_le16(p.pdu.resp->cqe.cid), from_le16(sqe->cid));
	status = nvme_cqe_status(&p.pdu.resp->cqe);
	if (result)
		*result = from_le64(p.pdu.resp->cqe.result);
	host_pdu_free(&p);
	return status;
}

uint16_t host_resp_data(struct host *h, const struct nvme_sqe *sqe, void *data, uint32_t len)
{
	struct host_pdu p = {0};
	uint32_t got = 0;
	uint16_t status = 0;

	for (bool more = true; more;) {
		assert_true(host_recv(h, &p));
		if (p.pdu.type == NVME_TCP_CAPSULE_RESP) {
			assert_int_equal(from_le16(p.pdu.resp->cqe.cid), from_le16(sqe->cid));
			status = nvme_cqe_status(&p.pdu.resp->cqe);
			break;
		}
		assert_int_equal(p.pdu.type, NVME_TCP_C2H_DATA);
		assert_int_equal(from_le16(p.pdu.data->cccid), from_le16(sqe->cid));
		assert_int_equal(from_le32(p.pdu.data->datao), got);
		assert_true(p.pdu.data_bytes <= len - got);
		memcpy((uint8_t *)data + got, p.data, p.pdu.data_bytes);
		got += p.pdu.data_bytes;
		more = !(p.pdu.flags & NVME_TCP_F_SUCCESS);
	}
	host_pdu_free(&p);
	assert_int_equal(got, status == NVME_SC_SUCCESS ? len : 0);
	return status;
}

uint16_t host_r2t(struct host *h, const struct nvme_sqe *sqe, uint32_t len)
{
	struct host_pdu p = {0};
	uint16_t ttag;

	assert_true(host_recv(h, &p));
	assert_int_equal(p.pdu.type, NVME_TCP_R2T);
	assert_int_equal(from_le16(p.pdu.r2t->cccid), from_le16(sqe->cid));
	assert_int_equal(from_le32(p.pdu.r2t->r2to), 0);
	assert_int_equal(from_le32(p.pdu.r2t->r2tl), len);
	ttag = from_le16(p.pdu.r2t->ttag);
	host_pdu_free(&p);
	return ttag;
}

/* ---- commands ------------------------------------------------------------------------------------------------ */
uint16_t host_connect_full(struct host *h, struct nvme_connect c, uint64_t *result)
{
	static const uint8_t hostid[16] = {1, 2, 3};
	struct nvme_connect_data data;
	struct nvme_sqe sqe;

	if (!c.hostid)
		c.hostid = hostid;
	if (!c.hostnqn)
		c.hostnqn = BED_HOST;
	if (!c.sqsize)
		c.sqsize = 31;
	assert_int_equal(nvme_connect_fill(&sqe, &data, &c), 0);
	host_cmd(h, &sqe, &data, sizeof(data));
	return host_resp(h, &sqe, result);
}

uint16_t host_connect(struct host *h, const char *subnqn, uint16_t qid, uint16_t cntlid)
{
	uint64_t result;
	uint16_t status = host_connect_full(h,
		(struct nvme_connect){
			.subnqn = subnqn, .qid = qid, .cntlid = cntlid, .sqsize = qid ? 127 : 31},
		&result);

	if (status == NVME_SC_SUCCESS)
		h->cntlid = NVME_CONNECT_RESULT_CNTLID(result);
	return status;
}

uint64_t host_property_get(struct host *h, uint32_t off, int size)
{
	struct nvme_sqe sqe;
	uint64_t v;

	nvme_property_get_fill(&sqe, 0, off, size);
	host_cmd(h, &sqe, NULL, 0);
	assert_int_equal(host_resp(h, &sqe, &v), NVME_SC_SUCCESS);
	return v;
}

void host_property_set(struct host *h, uint32_t off, uint32_t v)
{
	struct nvme_sqe sqe;

	nvme_property_set_fill(&sqe, 0, off, 4, v);
	host_cmd(h, &sqe, NULL, 0);
	assert_int_equal(host_resp(h, &sqe, NULL), NVME_SC_SUCCESS);
}

struct host host_admin(struct bed *b, uint8_t digests)
{
	struct host h = host_open(b, b->port);

	host_icreq(&h, digests);
	assert_int_equal(host_connect(&h, BED_NQN, 0, NVME_CNTLID_ANY), NVME_SC_SUCCESS);
	host_property_set(&h, NVME_PROP_CC,
		NVME_CC_EN | 6u << NVME_CC_IOSQES_SHIFT | 4u << NVME_CC_IOCQES_SHIFT);
	assert_int_equal(host_property_get(&h, NVME_PROP_CSTS, 4), NVME_CSTS_RDY);
	return h;
}

struct host host_io(struct bed *b, const struct host *admin, uint16_t qid, uint8_t digests)
{
	struct host h = host_open(b, b->port);

	host_icreq(&h, digests);
	assert_int_equal(host_connect(&h, BED_NQN, qid, admin->cntlid), NVME_SC_SUCCESS);
	return h;
}

void host_rw(struct host *h, struct nvme_sqe *sqe, uint8_t opcode, uint64_t slba, uint32_t nlb,
	uint32_t flags)
{
	nvme_sqe_set_rw(sqe, opcode, 0, 1, slba, nlb, flags);
	sqe->dptr = nvme_sgl_transport(nlb * 4096);
}

uint16_t host_write(struct host *h, uint64_t slba, const void *data, uint32_t len)
{
	struct nvme_sqe sqe;

	host_rw(h, &sqe, NVME_CMD_WRITE, slba, len / 4096, 0);
	host_cmd(h, &sqe, NULL, 0);
	host_h2c(h, from_le16(sqe.cid), host_r2t(h, &sqe, len), 0, data, len, NVME_TCP_F_LAST);
	return host_resp(h, &sqe, NULL);
}

uint16_t host_read_blocks(struct host *h, uint64_t slba, void *data, uint32_t len)
{
	struct nvme_sqe sqe;

	host_rw(h, &sqe, NVME_CMD_READ, slba, len / 4096, 0);
	host_cmd(h, &sqe, NULL, 0);
	return host_resp_data(h, &sqe, data, len);
}

uint16_t host_identify(struct host *h, uint32_t nsid, uint8_t cns, void *page)
{
	struct nvme_sqe sqe;

	nvme_sqe_set_identify(&sqe, 0, nsid, cns);
	host_cmd(h, &sqe, NULL, 0);
	return host_resp_data(h, &sqe, page, NVME_IDENTIFY_SIZE);
}

void pattern(void *p, size_t n, uint32_t seed)
{
	uint8_t *b = p;
	uint32_t x = seed * 2654435761u + 1;

	for (size_t i = 0; i < n; i++) {
		x = x * 1664525u + 1013904223u;
		b[i] = (uint8_t)(x >> 24);
	}
}
