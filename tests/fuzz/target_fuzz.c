/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe/TCP target as a whole: up to three connections over streams in memory, a backend that holds, fails and refuses,
 * hosts that send good, bent and random PDUs, go away, or read slowly. Whatever happens: every byte the target sends is a
 * valid PDU, and when the hosts are gone nothing is left of them.
 *
 * Input: one byte says what to do (bit 7: then bend one byte of what is sent), the next ones with what.
 */
#include <errno.h>
#include <sys/queue.h>

#include "common/base/util.h"
#include "common/nvme/fabrics.h"
#include "common/nvme/identify.h"
#include "common/nvme/tcp.h"
#include "dpu/core/crc32c.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp.h"
#include "tests/fuzz/fuzz.h"

#define HOSTS     3
#define IN_BYTES  16384
#define OUT_BYTES (2u << 20)
#define VOL_BYTES (4u << 20)
#define STEPS_MAX 400
#define NQN       "nqn.2026-01.test:fuzz"
#define HOSTNQN   "nqn.2026-01.test:host"

/* ---- a stream in memory ------------------------------------------------------------------------------- */
struct pipe_stream {
	struct stream st;
	struct pipe_host *host; /* NULL: the target has given it up */
	struct task told;
};

struct pipe_host {
	struct pipe_stream *s;
	struct nvme_tcp_link link;
	uint8_t in[IN_BYTES]; /* on its way to the target */
	size_t in_at, in_end;
	bool eof, blocked, lend;
	uint8_t *out; /* what the target sent and is no whole PDU yet */
	size_t nout;
	uint16_t cid;
	struct {
		uint16_t cid, ttag;
		uint32_t len;
	} r2t;
};

static struct {
	struct shard *sh;
	struct poller busy;
	bool idle; /* time may pass */
	struct nvme_tcp_target *t;
	struct nvme_tcp_vm *vm;
	struct stream_listener *l;
	struct pipe_host host[HOSTS];
	uint16_t cntlid;
	uint8_t *vol;
	TAILQ_HEAD(, io_req) queued;
	bool hold;
	uint32_t refuse;
} f;

static struct pipe_stream *pipe_of(struct stream *s)
{
	return container_of(s, struct pipe_stream, st);
}

static void pipe_told(void *arg)
{
	struct pipe_stream *k = arg;

	if (k->host && (k->host->in_at < k->host->in_end || k->host->eof))
		stream_readable(&k->st);
}

static void pipe_tell(struct pipe_stream *k)
{
	if (k->host && !k->st.paused && !k->st.dead)
		shard_defer(f.sh, &k->told, pipe_told, k);
}

static ssize_t pipe_none(const struct pipe_host *h)
{
	return h->eof ? 0 : -EAGAIN;
}

static ssize_t pipe_recv(struct stream *s, const struct iovec *iov, int niov)
{
	struct pipe_host *h = pipe_of(s)->host;
	size_t got = 0;

	for (int i = 0; i < niov; i++) {
		size_t n = MIN(iov[i].iov_len, h->in_end - h->in_at);

		memcpy(iov[i].iov_base, h->in + h->in_at, n);
		h->in_at += n;
		got += n;
	}
	if (!got)
		return pipe_none(h);
	pipe_tell(h->s);
	return (ssize_t)got;
}

static ssize_t pipe_borrow(struct stream *s, const void **p)
{
	struct pipe_host *h = pipe_of(s)->host;

	if (h->in_at == h->in_end)
		return pipe_none(h);
	*p = h->in + h->in_at;
	return (ssize_t)MIN(h->in_end - h->in_at, 100u);
}

static void pipe_consume(struct stream *s, size_t len_bytes)
{
	pipe_of(s)->host->in_at += len_bytes;
	pipe_tell(pipe_of(s));
}

static void pipe_set_reading(struct stream *s, bool on)
{
	if (on)
		pipe_tell(pipe_of(s));
}

/* Takes the PDUs that are whole off the host's end and holds them against the specification. */
static void host_take(struct pipe_host *h)
{
	struct nvme_tcp_fault fault;
	struct nvme_tcp_pdu pdu;
	size_t at = 0;
	int need;

	while (at < h->nout) {
		need = nvme_tcp_pdu_parse(&h->link, h->out + at, h->nout - at, &pdu, &fault);
		FUZZ_CHECK(need >= 0);
		if (need > 0 || h->nout - at < pdu.plen)
			break;
		if (pdu.ddgst) {
			le32 digest;

			memcpy(&digest, h->out + at + pdu.plen - 4, 4);
			FUZZ_CHECK(crc32c(h->out + at + pdu.head_bytes + pdu.pad_bytes,
					   pdu.data_bytes) == from_le32(digest));
		}
		if (pdu.type == NVME_TCP_ICRESP)
			h->link.ready = true;
		if (pdu.type == NVME_TCP_CAPSULE_RESP && !nvme_cqe_status(&pdu.resp->cqe) &&
			!f.cntlid)
			f.cntlid = (uint16_t)from_le64(pdu.resp->cqe.result);
		if (pdu.type == NVME_TCP_R2T) {
			h->r2t.cid = from_le16(pdu.r2t->cccid);
			h->r2t.ttag = from_le16(pdu.r2t->ttag);
			h->r2t.len = from_le32(pdu.r2t->r2tl);
		}
		at += pdu.plen;
	}
	memmove(h->out, h->out + at, h->nout - at);
	h->nout -= at;
}

static void pipe_push(struct stream *s)
{
	struct pipe_stream *k = pipe_of(s);
	struct iovec iov[16];
	int n;

	while (!s->given_up && k->host && !k->host->blocked &&
		(n = stream_tx_gather(s, NULL, iov, 16)) > 0) {
		struct pipe_host *h = k->host;
		size_t took = 0;

		for (int i = 0; i < n; i++) {
			FUZZ_CHECK(h->nout + iov[i].iov_len <= OUT_BYTES);
			memcpy(h->out + h->nout, iov[i].iov_base, iov[i].iov_len);
			h->nout += iov[i].iov_len;
			took += iov[i].iov_len;
		}
		host_take(h);
		stream_tx_advance(s, took);
	}
}

static void pipe_detach(struct stream *s, bool reset)
{
	struct pipe_stream *k = pipe_of(s);

	shard_undefer(f.sh, &k->told);
	if (k->host)
		k->host->s = NULL;
	k->host = NULL;
}

static void pipe_destroy(struct stream *s)
{
	free(pipe_of(s));
}

static const struct stream_ops pipe_ops = {.name = "pipe",
	.recv = pipe_recv,
	.set_reading = pipe_set_reading,
	.push = pipe_push,
	.detach = pipe_detach,
	.destroy = pipe_destroy};
static const struct stream_ops pipe_lending_ops = {.name = "pipe",
	.recv = pipe_recv,
	.borrow = pipe_borrow,
	.consume = pipe_consume,
	.set_reading = pipe_set_reading,
	.push = pipe_push,
	.detach = pipe_detach,
	.destroy = pipe_destroy};

static int listener_start(struct stream_listener *l)
{
	return 0;
}

static void listener_stop(struct stream_listener *l)
{
}

static void listener_destroy(struct stream_listener *l)
{
	free(l);
}

static const struct stream_listener_ops listener_ops = {
	listener_start, listener_stop, listener_destroy};

/* ---- the backend ------------------------------------------------------------------------------------------ */
static int backend_submit(void *arg, struct io_req *r)
{
	if (f.refuse) {
		f.refuse--;
		return -EAGAIN;
	}
	FUZZ_CHECK(r->off_bytes <= VOL_BYTES && r->len_bytes <= VOL_BYTES - r->off_bytes);
	TAILQ_INSERT_TAIL(&f.queued, r, link);
	return 0;
}

static void backend_run(uint32_t n, enum io_status status)
{
	struct io_req *r;

	while (n-- && (r = TAILQ_FIRST(&f.queued))) {
		uint8_t *at = f.vol + r->off_bytes;

		TAILQ_REMOVE(&f.queued, r, link);
		for (int i = 0; i < r->niov && (r->op == IO_READ || r->op == IO_WRITE);
			at += r->iov[i++].iov_len) {
			FUZZ_CHECK(at + r->iov[i].iov_len <= f.vol + VOL_BYTES);
			if (r->op == IO_READ)
				memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
			else
				memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
		}
		r->status = status;
		r->done_fn(r);
	}
}

/* Keeps the virtual clock where it is, until time may pass. */
static int stay_busy(void *arg)
{
	if (!f.hold)
		backend_run(4, IO_OK);
	return !f.idle;
}

static void rounds(int n)
{
	while (n--)
		shard_run_once(f.sh);
}

/* ---- a world for all inputs --------------------------------------------------------------------------------- */
static void world_open(void)
{
	static const uint8_t nguid[16] = {1};
	struct nvme_tcp_target_cfg tc = {.submit_fn = backend_submit,
		.vm_buffer_bytes = 1,
		.max_conns = 4,
		.max_queue_entries = 32};
	struct nvme_tcp_vm_cfg vc = {.vm = 1, .subnqn = NQN, .serial = "F"};
	struct nvme_tcp_ns_cfg nc = {.nsid = 1, .size_bytes = VOL_BYTES, .block_bytes = 4096};

	if (f.sh)
		return;
	f.vol = calloc(1, VOL_BYTES);
	nc.vol = (struct volume *)f.vol;
	memcpy(nc.nguid, nguid, sizeof(nguid));
	for (int i = 0; i < HOSTS; i++)
		f.host[i].out = malloc(OUT_BYTES);
	TAILQ_INIT(&f.queued);
	f.l = calloc(1, sizeof(*f.l));
	FUZZ_CHECK(shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1},
			   &f.sh) == 0);
	FUZZ_CHECK(nvme_tcp_target_open(f.sh, &tc, &f.t) == 0);
	FUZZ_CHECK(nvme_tcp_vm_add(f.t, &vc, &f.vm, NULL) == 0);
	FUZZ_CHECK(nvme_tcp_ns_add(f.vm, &nc, NULL) == 0);
	stream_listener_init(f.l, &listener_ops, f.sh);
	f.l->addr.port = 4420;
	FUZZ_CHECK(nvme_tcp_vm_listen(f.vm, f.l) == 0);
	poller_add(f.sh, &f.busy, stay_busy, NULL, POLLER_SLEEPS);
}

static void host_open(struct pipe_host *h, uint8_t how)
{
	struct pipe_stream *s = calloc(1, sizeof(*s));

	h->s = s;
	h->link = (struct nvme_tcp_link){.max_data = UINT32_MAX, .digest = crc32c};
	h->link.hdgst = how & 1;
	h->link.ddgst = how & 2;
	h->in_at = h->in_end = h->nout = 0;
	h->eof = h->blocked = false;
	h->r2t.len = 0;
	stream_init(&s->st, how & 4 ? &pipe_lending_ops : &pipe_ops, f.sh);
	s->host = h;
	(void)stream_accepted(f.l, &s->st);
}

static void host_send(struct pipe_host *h, const void *p, size_t n)
{
	if (!h->s || h->eof)
		return;
	if (h->in_at == h->in_end)
		h->in_at = h->in_end = 0;
	n = MIN(n, IN_BYTES - h->in_end);
	memcpy(h->in + h->in_end, p, n);
	h->in_end += n;
	pipe_tell(h->s);
}

static void bend_one(uint8_t *pdu, size_t n, struct eater *e)
{
	size_t at = eat16(e) % n;

	pdu[at] = eat8(e);
}

/* ---- what hosts do ---------------------------------------------------------------------------------------------- */
static void send_bent(
	struct pipe_host *h, struct eater *e, bool bend, uint8_t *pdu, size_t head, uint32_t data)
{
	size_t n = head + data;
	le32 digest;

	memset(pdu + head, eat8(e), data);
	if (data && h->link.ddgst) {
		digest = to_le32(crc32c(pdu + head, data));
		memcpy(pdu + n, &digest, 4);
		n += 4;
	}
	if (bend)
		bend_one(pdu, n, e);
	host_send(h, pdu, n);
}

static void do_connect(struct pipe_host *h, struct eater *e, bool bend, uint16_t qid)
{
	static const uint8_t id[16] = {7};
	uint8_t pdu[2048];
	struct nvme_connect c = {.cid = h->cid++,
		.qid = qid,
		.sqsize = 15,
		.hostid = id,
		.subnqn = NQN,
		.hostnqn = HOSTNQN};
	struct nvme_connect_data data;
	struct nvme_sqe sqe;
	size_t n;

	c.cntlid = qid ? f.cntlid : NVME_CNTLID_ANY;
	c.no_sqflow = eat8(e) & 1;
	c.kato_ms = eat8(e);
	FUZZ_CHECK(nvme_connect_fill(&sqe, &data, &c) == 0);
	n = nvme_tcp_put_cmd(&h->link, pdu, &sqe, sizeof(data));
	memcpy(pdu + n, &data, sizeof(data));
	if (h->link.ddgst) {
		le32 digest = to_le32(crc32c(&data, sizeof(data)));

		memcpy(pdu + n + sizeof(data), &digest, 4);
	}
	if (bend)
		bend_one(pdu, n, e);
	host_send(h, pdu, n + sizeof(data) + (h->link.ddgst ? 4 : 0));
}

static void do_io(struct pipe_host *h, struct eater *e, bool bend)
{
	uint8_t pdu[NVME_TCP_HEAD_MAX + 8192 + 8];
	uint8_t op = eat8(e), how = eat8(e);
	uint32_t nlb = 1 + eat8(e) % 140, nsid = how & 1 ? eat8(e) : 1, slba = eat16(e) % 1100,
		 data = 0;
	struct nvme_sqe sqe;

	nvme_sqe_set_rw(&sqe, op % 16, h->cid++, nsid, slba, nlb, how & 2 ? NVME_RW_FUA : 0);
	sqe.dptr = nvme_sgl_transport(nlb * 4096);
	if (how & 4) {
		data = how & 8 ? 4096 : 1 + eat16(e) % 8192;
		sqe.dptr = nvme_sgl_in_capsule(
			how & 16 ? eat8(e) : 0, how & 32 ? data : nlb * 4096);
	}
	if (op % 16 == NVME_CMD_DSM) {
		sqe.cdw10 = to_le32(eat8(e) % 4);
		sqe.cdw11 = to_le32(NVME_DSM_AD);
	}
	send_bent(h, e, bend, pdu, nvme_tcp_put_cmd(&h->link, pdu, &sqe, data), data);
}

static void do_admin(struct pipe_host *h, struct eater *e, bool bend)
{
	uint8_t pdu[NVME_TCP_HEAD_MAX + 16], opcode;
	struct nvme_sqe sqe;

	opcode = eat8(e) % 32;
	nvme_sqe_init(&sqe, opcode, h->cid++, eat8(e) % 4);
	sqe.cdw10 = to_le32(eat32(e));
	sqe.cdw11 = to_le32(eat16(e));
	sqe.dptr = nvme_sgl_transport(eat8(e) & 1 ? 4096 : eat16(e));
	send_bent(h, e, bend, pdu, nvme_tcp_put_cmd(&h->link, pdu, &sqe, 0), 0);
}

static void do_property(struct pipe_host *h, struct eater *e, bool bend)
{
	uint8_t pdu[NVME_TCP_HEAD_MAX + 16], v = eat8(e);
	struct nvme_sqe sqe;

	nvme_property_set_fill(&sqe, h->cid++, NVME_PROP_CC, 4,
		(v & 1 ? NVME_CC_EN : 0) | (v & 2 ? NVME_CC_SHN_NORMAL : 0) | 6u << 16 | 4u << 20);
	send_bent(h, e, bend, pdu, nvme_tcp_put_cmd(&h->link, pdu, &sqe, 0), 0);
}

/* Answers the last R2T: as asked, or less, or elsewhere. */
static void do_data(struct pipe_host *h, struct eater *e, bool bend)
{
	static uint8_t pdu[NVME_TCP_HEAD_MAX + IN_BYTES];
	uint8_t how = eat8(e);
	uint32_t len = MIN(h->r2t.len, 8192u), off = how & 1 ? eat16(e) * 4u : 0;
	uint16_t cid = how & 4 ? eat16(e) : h->r2t.cid, ttag = how & 8 ? eat8(e) : h->r2t.ttag;
	uint8_t flags;

	if (how & 2)
		len = eat16(e) % 8192;
	if (!len)
		return;
	flags = len == h->r2t.len || (how & 16) ? NVME_TCP_F_LAST : 0;
	send_bent(h, e, bend, pdu, nvme_tcp_put_h2c_data(&h->link, pdu, cid, ttag, off, len, flags),
		len);
}

static void do_icreq(struct pipe_host *h, struct eater *e, bool bend)
{
	uint8_t pdu[256], digests = (h->link.hdgst ? NVME_TCP_DGST_HDR : 0) |
				    (h->link.ddgst ? NVME_TCP_DGST_DATA : 0);
	size_t n = nvme_tcp_put_icreq(pdu, 0, digests, 0);

	/* Alignment and digests must be what this end believes, or it could not judge the answers: the rest may be bent. */
	if (bend)
		bend_one(pdu, 10, e);
	host_send(h, pdu, n);
}

static void do_namespace(struct eater *e)
{
	static const uint8_t nguid[16] = {2};
	struct nvme_tcp_ns_cfg nc = {.nsid = 2,
		.vol = (struct volume *)f.vol,
		.size_bytes = 1 << 20,
		.block_bytes = 512};

	memcpy(nc.nguid, nguid, sizeof(nguid));
	if (eat8(e) & 1)
		(void)nvme_tcp_ns_add(f.vm, &nc, NULL);
	else
		(void)nvme_tcp_ns_del(f.vm, 2);
}

static void do_stream(struct pipe_host *h, struct eater *e)
{
	uint8_t how = eat8(e) % 5;

	if (!h->s)
		return;
	if (how == 0) {
		h->eof = true;
		pipe_tell(h->s);
	} else if (how == 1) {
		stream_fail_later(&h->s->st, -ECONNRESET);
	} else if (how == 2) {
		h->blocked = !h->blocked;
		if (!h->blocked)
			stream_fail_later(&h->s->st, -ETIMEDOUT);
	} else if (how == 3) {
		h->blocked = true;
	} else {
		h->blocked = false;
		stream_shutdown(&h->s->st);
	}
}

static void pass_time(void)
{
	f.idle = true;
	rounds(2);
	f.idle = false;
}

static void step(struct eater *e)
{
	uint8_t what = eat8(e), raw[64];
	struct pipe_host *h = &f.host[(what >> 4 & 7) % HOSTS];
	bool bend = what & 0x80;

	if ((what & 15) && !h->s)
		host_open(h, eat8(e));
	switch (what & 15) {
	case 0:
		rounds(1 + eat8(e) % 8);
		break;
	case 1:
		do_icreq(h, e, bend);
		break;
	case 2:
		do_connect(h, e, bend, 0);
		break;
	case 3:
		do_connect(h, e, bend, 1 + eat8(e) % 3);
		break;
	case 4:
		do_property(h, e, bend);
		break;
	case 5:
	case 6:
	case 7:
		do_io(h, e, bend);
		break;
	case 8:
		do_data(h, e, bend);
		break;
	case 9:
		do_admin(h, e, bend);
		break;
	case 10:
		for (size_t i = 0; i < sizeof(raw); i++)
			raw[i] = eat8(e);
		host_send(h, raw, 1 + eat8(e) % sizeof(raw));
		break;
	case 11:
		f.hold = bend;
		raw[0] = eat8(e) % 4;
		backend_run(raw[0], eat8(e) % IO_STATUS_COUNT);
		break;
	case 12:
		f.refuse = eat8(e) % 8;
		break;
	case 13:
		do_stream(h, e);
		break;
	case 14:
		do_namespace(e);
		break;
	default:
		if (bend)
			nvme_tcp_vm_disconnect(f.vm);
		else
			pass_time();
		break;
	}
	rounds(3);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	struct nvme_tcp_vm_stats st;

	world_open();
	f.cntlid = 0;
	f.hold = false;
	f.refuse = 0;
	for (int i = 0; i < STEPS_MAX && e.left; i++)
		step(&e);
	/* Everybody goes; what the backend holds comes back late. */
	f.hold = true;
	nvme_tcp_vm_disconnect(f.vm);
	rounds(4);
	f.hold = false;
	f.refuse = 0;
	for (int i = 0; i < 200; i++) {
		rounds(2);
		nvme_tcp_vm_stats(f.vm, &st);
		if (!st.commands && !st.controllers)
			break;
		pass_time();
	}
	FUZZ_CHECK(st.conns == 0 && st.commands == 0 && st.controllers == 0);
	FUZZ_CHECK(TAILQ_EMPTY(&f.queued) && stream_listener_nconns(f.l) == 0);
	(void)nvme_tcp_ns_del(f.vm, 2);
	return 0;
}
