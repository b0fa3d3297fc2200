/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe/TCP target as a whole: what a VM may send. Byte 0 says how far a well-behaved host has come before; then records: an
 * opcode and its arguments, from raw bytes to commands that are almost right. Whatever comes, the backend must see
 * requests inside the volume only, with buffers that fit, and get back every one it was given.
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "common/base/util.h"
#include "common/nvme/fabrics.h"
#include "common/nvme/tcp.h"
#include "dpu/core/crc32c.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp.h"
#include "tests/fuzz/memstream.h"

#define NQN       "nqn.2024-01.fuzz:vm"
#define HOST      "nqn.2024-01.fuzz:host"
#define VM        7
#define VOL_BYTES (64u << 10)
#define NCONNS    3

struct conn {
	struct memstream *ms;
	struct nvme_tcp_link link;
};

struct world {
	struct shard *sh;
	struct nvme_tcp_target *t;
	struct nvme_tcp_vm *vm;
	struct stream_listener *l;
	struct conn conns[NCONNS];
	int cur;
	uint8_t how;
	uint16_t cntlid;
	uint8_t mem[VOL_BYTES];
	TAILQ_HEAD(, io_req) queued;
	struct task task;
	uint32_t nsubmitted, ndone, refuse;
	bool hold;
	enum io_status fail;
};

/* ---- the backend --------------------------------------------------------------------------------------------- */

static void move(struct world *w, struct io_req *r)
{
	uint64_t at = r->off_bytes, left = r->len_bytes;

	for (int i = 0; i < r->niov; i++) {
		FUZZ_CHECK(r->iov[i].iov_len <= left);
		if (r->op == IO_READ)
			memcpy(r->iov[i].iov_base, w->mem + at, r->iov[i].iov_len);
		else
			memcpy(w->mem + at, r->iov[i].iov_base, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
		left -= r->iov[i].iov_len;
	}
	FUZZ_CHECK(left == 0);
}

static void execute(void *arg)
{
	struct world *w = arg;
	struct io_req *r;

	while (!w->hold && (r = TAILQ_FIRST(&w->queued))) {
		TAILQ_REMOVE(&w->queued, r, link);
		r->status = w->fail;
		if (!w->fail && (r->op == IO_READ || r->op == IO_WRITE))
			move(w, r);
		w->ndone++;
		r->done_fn(r);
	}
}

static int submit(void *arg, struct io_req *r)
{
	struct world *w = arg;

	FUZZ_CHECK(r->vm == VM && r->vol == (struct volume *)w);
	FUZZ_CHECK(r->off_bytes <= VOL_BYTES && r->len_bytes <= VOL_BYTES - r->off_bytes);
	FUZZ_CHECK(r->off_bytes % 512 == 0 && r->len_bytes % 512 == 0);
	FUZZ_CHECK(r->op == IO_FLUSH || r->len_bytes || r->op == IO_TRIM);
	if (w->refuse) {
		w->refuse--;
		return -EAGAIN;
	}
	w->nsubmitted++;
	TAILQ_INSERT_TAIL(&w->queued, r, link);
	shard_defer(w->sh, &w->task, execute, w);
	return 0;
}

static void world_open(struct world *w)
{
	struct nvme_tcp_target_cfg cfg = {
		.submit_fn = submit, .arg = w, .vm_buffer_bytes = 1 << 20, .max_queue_entries = 32};
	struct nvme_tcp_vm_cfg vm = {.vm = VM, .subnqn = NQN, .serial = "FUZZ"};
	struct nvme_tcp_ns_cfg ns = {
		.nsid = 1, .vol = (struct volume *)w, .size_bytes = VOL_BYTES, .block_bytes = 512};

	memset(w, 0, sizeof(*w));
	TAILQ_INIT(&w->queued);
	ns.nguid[0] = 1;
	FUZZ_CHECK(shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &w->sh) == 0);
	FUZZ_CHECK(nvme_tcp_target_open(w->sh, &cfg, &w->t) == 0);
	FUZZ_CHECK(nvme_tcp_vm_add(w->t, &vm, &w->vm, NULL) == 0);
	FUZZ_CHECK(nvme_tcp_ns_add(w->vm, &ns, NULL) == 0);
	FUZZ_CHECK(memstream_listen(w->sh, &w->l) == 0);
	FUZZ_CHECK(nvme_tcp_vm_listen(w->vm, w->l) == 0);
}

/* ---- a host ------------------------------------------------------------------------------------------------------ */

static void put(struct conn *c, size_t head, const void *data, size_t len, uint8_t *buf)
{
	size_t tail = len && c->link.ddgst ? 4 : 0;
	le32 crc;

	if (len)
		memcpy(buf + head, data, len);
	if (tail) {
		crc = to_le32(crc32c(data, len));
		memcpy(buf + head + len, &crc, sizeof(crc));
	}
	memstream_put(c->ms, buf, head + len + tail);
}

static void put_cmd(struct conn *c, const struct nvme_sqe *sqe, const void *data, size_t len)
{
	static uint8_t buf[NVME_TCP_HEAD_MAX + 16384 + 4];

	put(c, nvme_tcp_put_cmd(&c->link, buf, sqe, (uint32_t)len), data, len, buf);
}

static void put_connect(struct world *w, struct conn *c, uint16_t qid)
{
	static const uint8_t hostid[16] = {9};
	struct nvme_connect_data data;
	struct nvme_connect con = {.qid = qid,
		.sqsize = 15,
		.cntlid = qid ? w->cntlid : NVME_CNTLID_ANY,
		.hostid = hostid,
		.subnqn = NQN,
		.hostnqn = HOST};
	struct nvme_sqe sqe;

	FUZZ_CHECK(nvme_connect_fill(&sqe, &data, &con) == 0);
	put_cmd(c, &sqe, &data, sizeof(data));
}

/* The target's answer to our Connect holds the controller's id. */
static void take_cntlid(struct world *w, struct conn *c)
{
	struct nvme_tcp_link host = c->link;
	struct nvme_tcp_pdu pdu;
	struct nvme_tcp_fault f;
	size_t at = 128; /* ICResp */

	host.controller = false;
	if (c->ms->out_len > at &&
		nvme_tcp_pdu_parse(&host, c->ms->out + at, c->ms->out_len - at, &pdu, &f) == 0 &&
		pdu.type == NVME_TCP_CAPSULE_RESP && nvme_cqe_status(&pdu.resp->cqe) == 0)
		w->cntlid = (uint16_t)from_le64(pdu.resp->cqe.result);
}

static void connect_one(struct world *w, int i, int depth)
{
	struct conn *c = &w->conns[i];
	uint8_t head[NVME_TCP_HEAD_MAX];
	struct nvme_sqe sqe;

	w->cur = i;
	if (c->ms)
		return;
	c->ms = memstream_connect(w->l);
	if (!c->ms || !depth)
		return;
	c->link = (struct nvme_tcp_link){.digest = crc32c, .max_data = UINT32_MAX};
	memstream_put(c->ms, head,
		nvme_tcp_put_icreq(head, 0, (w->how >> 3 & 1) | (w->how >> 4 & 1) << 1, 0));
	memstream_pump(c->ms);
	c->link.ready = true;
	c->link.hdgst = w->how & 8;
	c->link.ddgst = w->how & 16;
	if (depth < 2)
		return;
	put_connect(w, c, (uint16_t)i);
	memstream_pump(c->ms);
	if (i)
		return;
	take_cntlid(w, c);
	nvme_property_set_fill(&sqe, 2, NVME_PROP_CC, 4, 0x00460001);
	put_cmd(c, &sqe, NULL, 0);
	memstream_pump(c->ms);
}

/* ---- records --------------------------------------------------------------------------------------------------------- */

static void record_command(struct world *w, struct eater *e)
{
	static const uint8_t opcodes[] = {0, 1, 2, 5, 8, 9, 0x7f, 6, 2, 1, 9, 10, 12, 24, 8, 4};
	static const uint32_t nsids[] = {1, 0, 1, 2, UINT32_MAX, 1, 1, 256};
	static uint8_t data[16384];
	uint8_t what = eat8(e), sgl = eat8(e);
	struct nvme_sqe sqe;
	uint32_t len = eat16(e) * 4u, capsule = eat16(e) * 4u;

	capsule = MIN(capsule, 12288u); /* not in one step: MIN() would eat twice */
	nvme_sqe_init(&sqe, opcodes[what & 15], eat8(e), nsids[what >> 4 & 7]);
	sqe.cdw10 = to_le32(eat32(e));
	sqe.cdw11 = to_le32(sgl & 0x40 ? eat32(e) : 0);
	sqe.cdw12 = to_le32(sgl & 0x80 ? eat32(e) : eat8(e));
	switch (sgl & 7) {
	case 0:
	case 1:
	case 2:
		sqe.dptr = nvme_sgl_in_capsule(sgl & 8 ? eat16(e) : 0, len);
		break;
	case 3:
		eat_bytes(e, &sqe.dptr, sizeof(sqe.dptr));
		break;
	default:
		sqe.dptr = nvme_sgl_transport(len);
		capsule = 0;
	}
	if (sgl & 0x20) /* a fabrics command, or ranges: what matters lies in the rest */
		eat_bytes(e, (uint8_t *)&sqe + 4, 1);
	eat_bytes(e, data, MIN(capsule, 64u));
	put_cmd(&w->conns[w->cur], &sqe, data, capsule);
}

static void record_h2c(struct world *w, struct eater *e)
{
	static uint8_t data[4096], buf[NVME_TCP_HEAD_MAX + 4096 + 4];
	struct conn *c = &w->conns[w->cur];
	uint16_t cid = eat8(e), ttag = eat8(e);
	uint32_t off = eat16(e) * 4u, len = eat16(e), n;

	len = MIN(len, 4096u);
	n = (uint32_t)nvme_tcp_put_h2c_data(
		&c->link, buf, cid, ttag, off, len, eat8(e) & NVME_TCP_F_LAST);
	put(c, n, data, len, buf);
}

static void record_fabrics(struct world *w, struct eater *e)
{
	struct nvme_connect_data data;
	struct nvme_sqe sqe;

	nvme_sqe_init(&sqe, NVME_OPC_FABRICS, eat8(e), eat8(e));
	sqe.dptr = nvme_sgl_in_capsule(0, sizeof(data));
	eat_bytes(e, (uint8_t *)&sqe + 40, 12);
	memset(&data, 0, sizeof(data));
	data.cntlid = to_le16(eat16(e));
	memcpy(data.subnqn, NQN, sizeof(NQN));
	memcpy(data.hostnqn, HOST, sizeof(HOST));
	eat_patches(e, (uint8_t *)&data, sizeof(data));
	put_cmd(&w->conns[w->cur], &sqe, &data, sizeof(data));
}

static void record(struct world *w, struct eater *e)
{
	struct conn *c = &w->conns[w->cur];
	uint8_t op = eat8(e), raw[256], n;

	if (!c->ms && op % 9 != 4)
		return;
	switch (op % 9) {
	case 0:
		n = eat8(e);
		eat_bytes(e, raw, n);
		memstream_put(c->ms, raw, n);
		break;
	case 1:
	case 2:
		record_command(w, e);
		break;
	case 3:
		record_h2c(w, e);
		break;
	case 4:
		connect_one(w, op / 9 % NCONNS, eat8(e) % 3);
		return;
	case 5:
		record_fabrics(w, e);
		break;
	case 6:
		c->ms->ended = true;
		break;
	case 7:
		w->hold = op & 0x10;
		w->refuse = op >> 5;
		c->ms->hold = op & 8;
		if (!w->hold)
			shard_defer(w->sh, &w->task, execute, w);
		break;
	default:
		w->fail = (enum io_status)(op / 9 % IO_STATUS_COUNT);
	}
	if (op < 0xe0) /* else together with what follows */
		memstream_pump(c->ms);
}

static void world_close(struct world *w)
{
	w->hold = false;
	w->refuse = 0;
	shard_defer(w->sh, &w->task, execute, w);
	for (int i = 0; i < NCONNS; i++) {
		struct memstream *ms = w->conns[i].ms;

		if (!ms)
			continue;
		ms->hold = false;
		memstream_pump(ms);
		ms->ended = true;
		memstream_pump(ms);
	}
	FUZZ_CHECK(nvme_tcp_vm_del(w->vm) == 0);
	FUZZ_CHECK(nvme_tcp_target_close(w->t) == 0);
	FUZZ_CHECK(w->ndone == w->nsubmitted && TAILQ_EMPTY(&w->queued));
	for (int i = 0; i < NCONNS; i++)
		if (w->conns[i].ms)
			memstream_drop(w->conns[i].ms);
	shard_undefer(w->sh, &w->task);
	shard_close(w->sh);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct eater e = {data, size};
	int i = 0;

	world_open(&w);
	w.how = eat8(&e);
	connect_one(&w, 0, w.how & 3);
	if ((w.how & 3) == 2 && (w.how & 4))
		connect_one(&w, 1, 2);
	while (e.left && i++ < 64)
		record(&w, &e);
	world_close(&w);
	return 0;
}
