/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe/TCP initiator as a whole: what a target may send. Byte 0 says how far a well-behaved target has taken it; then records
 * are answers, from raw bytes to almost right ones. Whatever comes, every command ends exactly once and no byte outside its
 * buffers changes.
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "common/base/util.h"
#include "common/nvme/identify.h"
#include "common/nvme/tcp.h"
#include "dpu/core/crc32c.h"
#include "dpu/nvmf/nvmf.h"
#include "tests/fuzz/memstream.h"

#define NCONNS 3
#define NIOS   6
#define BYTES  8192u
#define GUARD  256u

struct conn {
	struct memstream *ms;
	struct nvme_tcp_link link;
	struct nvme_sqe last[8]; /* commands seen, newest at (n - 1) % 8 */
	uint32_t n;
};

struct world {
	struct shard *sh;
	struct nvmf *nvmf;
	struct conn conns[NCONNS];
	uint32_t nconns;
	uint8_t how;
	bool automatic; /* answers by itself */
	struct nvmf_io io[NIOS];
	struct iovec iov[NIOS][3];
	uint32_t begun[NIOS], ended[NIOS];
	uint8_t buf[NIOS][GUARD + BYTES + GUARD];
};

/* ---- the target's bytes --------------------------------------------------------------------------------------------- */

static void put(struct conn *c, uint8_t *buf, size_t head, size_t len)
{
	size_t tail = len && c->link.ddgst ? 4 : 0;
	le32 crc = to_le32(crc32c(buf + head, len));

	memcpy(buf + head + len, &crc, tail);
	memstream_put(c->ms, buf, head + len + tail);
}

static void put_resp(struct conn *c, uint16_t cid, uint16_t status, uint64_t result)
{
	uint8_t buf[NVME_TCP_HEAD_MAX + 4];
	struct nvme_cqe cqe;

	nvme_cqe_set(&cqe, cid, status, result, 0);
	put(c, buf, nvme_tcp_put_resp(&c->link, buf, &cqe), 0);
}

static void put_data(
	struct conn *c, uint16_t cid, uint32_t off, uint32_t len, uint8_t flags, const void *data)
{
	static uint8_t buf[NVME_TCP_HEAD_MAX + BYTES + 4];
	size_t head = nvme_tcp_put_c2h_data(&c->link, buf, cid, off, len, flags);

	if (data)
		memcpy(buf + head, data, len);
	else
		memset(buf + head, 0xd7, len);
	put(c, buf, head, len);
}

/* As a good target answers while the initiator connects. */
static void answer(struct world *w, struct conn *c, const struct nvme_sqe *sqe)
{
	static uint8_t page[4096];
	struct nvme_id_ctrl *id = (struct nvme_id_ctrl *)page;
	const struct nvme_property_sqe *p = (const void *)sqe;
	uint16_t cid = from_le16(sqe->cid);

	if (sqe->opcode == NVME_ADMIN_IDENTIFY && c == w->conns) {
		memset(page, 0, sizeof(page));
		id->ioccsz = to_le32(w->how & 4 ? 260 : 4);
		id->acl = 3;
		put_data(c, cid, 0, sizeof(page), NVME_TCP_F_LAST, page);
		put_resp(c, cid, 0, 0);
	} else if (sqe->opcode == NVME_OPC_FABRICS && p->fctype == NVME_FCTYPE_PROPERTY_GET) {
		put_resp(c, cid, 0,
			from_le32(p->ofst) == NVME_PROP_CSTS ? 1 : 63 | NVME_CAP_CSS_NVM);
	} else if (sqe->opcode != NVME_ADMIN_ASYNC_EVENT || c != w->conns) {
		put_resp(c, cid, 0, sqe->opcode == NVME_ADMIN_SET_FEATURES ? 0x00010001 : 1);
	}
}

/* Looks at what the initiator has sent; true when there was something. */
static bool take_pdus(struct world *w, struct conn *c)
{
	bool any = false;
	uint8_t head[NVME_TCP_HEAD_MAX];

	while (c->ms->out_len) {
		struct nvme_tcp_pdu pdu;
		struct nvme_tcp_fault f;
		int rc = nvme_tcp_pdu_parse(&c->link, c->ms->out, c->ms->out_len, &pdu, &f);

		if (rc < 0)
			fprintf(stderr, "the initiator sent: %s\n", f.what);
		FUZZ_CHECK(rc >= 0); /* whatever it is told, what it says is right */
		if (rc > 0 || pdu.plen > c->ms->out_len)
			break;
		any = true;
		if (pdu.type == NVME_TCP_ICREQ) {
			if (w->automatic)
				memstream_put(c->ms, head,
					nvme_tcp_put_icresp(
						head, w->how & 32 ? 3 : 0, pdu.icreq->dgst, 4096));
			else /* an ICResp from the input may have allowed anything */
				c->link.max_data = c->link.max_capsule_data = UINT32_MAX;
			c->link.hdgst = pdu.icreq->dgst & NVME_TCP_DGST_HDR;
			c->link.ddgst = pdu.icreq->dgst & NVME_TCP_DGST_DATA;
			c->link.rx_pda = w->automatic && w->how & 32 ? 3 : 0;
			c->link.ready = true;
		} else if (pdu.type == NVME_TCP_CAPSULE_CMD) {
			c->last[c->n++ % 8] = pdu.cmd->sqe;
			if (w->automatic)
				answer(w, c, &pdu.cmd->sqe);
		}
		memstream_taken(c->ms, pdu.plen);
	}
	return any;
}

static void pump(struct world *w)
{
	bool any = true;

	for (int i = 0; any && i < 32; i++) {
		any = false;
		for (uint32_t k = 0; k < w->nconns; k++) {
			memstream_pump(w->conns[k].ms);
			any |= take_pdus(w, &w->conns[k]);
		}
	}
}

static int connect_queue(void *arg, const struct stream_events *ev, void *ev_arg,
	struct stream **out, struct err *err)
{
	struct world *w = arg;
	struct conn *c = &w->conns[w->nconns];

	if (w->nconns == NCONNS)
		return err_set(err, -ENOBUFS, NULL, NULL, "no more connections");
	c->ms = memstream_open(w->sh, ev, ev_arg);
	FUZZ_CHECK(c->ms);
	c->link = (struct nvme_tcp_link){
		.controller = true, .max_capsule_data = 8192, .max_data = 4096, .digest = crc32c};
	w->nconns++;
	*out = &c->ms->st;
	return 0;
}

/* ---- commands --------------------------------------------------------------------------------------------------------------- */

static void io_done(struct nvmf_io *io)
{
	struct world *w = io->arg;
	size_t i = (size_t)(io - w->io);

	w->ended[i]++;
	FUZZ_CHECK(w->ended[i] == w->begun[i]);
}

static void submit_one(struct world *w, uint8_t what)
{
	static const uint8_t opcodes[] = {
		NVME_CMD_READ, NVME_CMD_WRITE, NVME_CMD_READ, NVME_CMD_FLUSH};
	static const uint32_t lens[] = {4096, BYTES, 512, 1024};
	uint32_t i = what % NIOS, len = lens[what >> 3 & 3];
	struct nvmf_io *io = &w->io[i];
	uint8_t op = opcodes[what >> 5 & 3];

	if (w->begun[i] != w->ended[i])
		return;
	io->done_fn = io_done;
	io->arg = w;
	io->niov = op == NVME_CMD_FLUSH ? 0 : 3;
	io->iov = w->iov[i];
	w->iov[i][0] = (struct iovec){w->buf[i] + GUARD, 100};
	w->iov[i][1] = (struct iovec){w->buf[i] + GUARD + 100, 0};
	w->iov[i][2] = (struct iovec){w->buf[i] + GUARD + 100, len - 100};
	if (op == NVME_CMD_FLUSH)
		nvmf_io_flush(io, 1);
	else
		nvmf_io_rw(io, op, 1, i * 64, len / 512, 0);
	w->begun[i]++;
	if (nvmf_submit(nvmf_queue(w->nvmf, 1 + (what >> 7)), io) < 0)
		w->begun[i]--;
}

/* ---- records ----------------------------------------------------------------------------------------------------------------- */

static void record(struct world *w, struct eater *e)
{
	uint8_t op = eat8(e), raw[256], n;
	struct conn *c = &w->conns[op / 8 % NCONNS];
	uint16_t cid;
	uint32_t off, len;

	if (op / 8 % NCONNS >= w->nconns || memstream_gone(c->ms))
		return;
	cid = c->n ? from_le16(c->last[(c->n - 1 - eat8(e) % 4) % 8].cid) : 0;
	switch (op % 8) {
	case 0:
		n = eat8(e);
		eat_bytes(e, raw, n);
		memstream_put(c->ms, raw, n);
		break;
	case 1:
		put_resp(c, cid, eat16(e), eat16(e));
		break;
	case 2:
		off = eat16(e) * 4u;
		len = eat16(e) * 4u;
		len = MIN(len, BYTES);
		put_data(c, cid, off, len, eat8(e) & 0x0c, NULL);
		break;
	case 3:
		off = eat16(e) * 4u;
		len = eat16(e) * 4u;
		put(c, raw, nvme_tcp_put_r2t(&c->link, raw, cid, eat8(e), off, len), 0);
		break;
	case 4:
		submit_one(w, eat8(e));
		break;
	case 5:
		if (c->n)
			answer(w, c, &c->last[(c->n - 1) % 8]);
		break;
	case 6:
		c->ms->hold = eat8(e) & 1;
		break;
	default:
		n = eat8(e);
		if (n == 0xff)
			c->ms->ended = true;
		else if (n < NIOS)
			(void)nvmf_abort(&w->io[n]);
	}
	pump(w);
}

static void check_guards(struct world *w)
{
	for (int i = 0; i < NIOS; i++) {
		FUZZ_CHECK(w->begun[i] == w->ended[i]);
		for (size_t k = 0; k < GUARD; k++)
			FUZZ_CHECK(w->buf[i][k] == 0x3c && w->buf[i][GUARD + BYTES + k] == 0x3c);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct eater e = {data, size};
	struct nvmf_cfg cfg = {.host = "127.0.0.1",
		.subnqn = "nqn.2024-01.fuzz:vm",
		.hostnqn = "nqn.2024-01.fuzz:host",
		.nqueues = 2,
		.depth = 8,
		.connect_fn = connect_queue,
		.connect_arg = &w};
	int i = 0;

	memset(&w, 0, sizeof(w));
	memset(w.buf, 0x3c, sizeof(w.buf));
	w.how = eat8(&e);
	cfg.hdgst = w.how & 1;
	cfg.ddgst = w.how & 2;
	w.automatic = !(w.how & 16);
	FUZZ_CHECK(shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &w.sh) == 0);
	FUZZ_CHECK(nvmf_open(w.sh, &cfg, NULL, NULL, &w.nvmf, NULL) == 0);
	pump(&w);
	FUZZ_CHECK(!w.automatic || nvmf_is_ready(w.nvmf));
	w.automatic = false;
	for (uint8_t k = 0; k < 4; k++)
		submit_one(&w, (uint8_t)(k << 5 | k << 3 | k));
	pump(&w);
	while (e.left && i++ < 64)
		record(&w, &e);
	nvmf_close(w.nvmf);
	check_guards(&w);
	for (uint32_t k = 0; k < w.nconns; k++)
		memstream_drop(w.conns[k].ms);
	shard_close(w.sh);
	return 0;
}
