/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe/RDMA initiator as a whole: what a target may say, private data of the connection manager first, then responses, from raw
 * bytes to almost right ones, with and without keys that they invalidate. Whatever comes, every command ends exactly once, the
 * rules of verbs are kept, no key outlives its command, and no byte outside the commands' buffers changes.
 */
#include "tests/fuzz/fuzz.h"

#include "common/base/util.h"
#include "tests/unit/rdma_twin.h"

#define NIOS   6
#define BYTES  8192u
#define GUARD  4096u
#define STRIDE (GUARD + BYTES)

struct world {
	struct shard *sh;
	struct twin twin;
	struct nvmf *nvmf;
	struct nvmf_io io[NIOS];
	struct iovec iov[NIOS][2];
	uint32_t begun[NIOS], ended[NIOS];
	uint8_t *buf; /* NIOS buffers with guards between */
	uint8_t private_data[256];
};

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
	static const uint32_t lens[] = {4096, BYTES - 512, 512, 1024};
	uint32_t i = what % NIOS, len = lens[what >> 3 & 3];
	uint8_t op = opcodes[what >> 5 & 3], *at = w->buf + i * STRIDE + GUARD;
	struct nvmf_io *io = &w->io[i];

	if (w->begun[i] != w->ended[i])
		return;
	io->done_fn = io_done;
	io->arg = w;
	io->iov = w->iov[i];
	io->niov = op == NVME_CMD_FLUSH ? 0 : 2;
	w->iov[i][0] = (struct iovec){at, 256};
	w->iov[i][1] = (struct iovec){at + 256 + (what & 1), len - 256}; /* odd: gathered */
	if (op == NVME_CMD_FLUSH)
		nvmf_io_flush(io, 1);
	else
		nvmf_io_rw(io, op, 1, i * 64, len / 512, 0);
	w->begun[i]++;
	if (nvmf_submit(nvmf_queue(w->nvmf, 1 + (what >> 7)), io) < 0)
		w->begun[i]--;
}

static void spin(struct world *w, int rounds)
{
	while (rounds--)
		shard_run_once(w->sh);
}

static const struct nvme_sqe *seen(const struct twin *t, uint8_t back)
{
	uint32_t n = ARRAY_LEN(t->recent);

	return &t->recent[(t->ncommands - 1 - back % n) % n];
}

/* A response: 16 bytes that are almost right, or any. */
static void respond(struct world *w, struct eater *e, uint8_t op)
{
	struct twin *t = &w->twin;
	uint8_t bytes[80], how = eat8(e);
	const struct nvme_sqe *sqe = seen(t, eat8(e)), *other = seen(t, eat8(e));
	struct nvme_keyed_sgl k;
	uint32_t len = sizeof(struct nvme_cqe);

	memcpy(&k, how & 4 ? &other->dptr : &sqe->dptr, sizeof(k));
	if (how & 1) {
		len = eat8(e) % sizeof(bytes);
		eat_bytes(e, bytes, len);
	} else {
		struct nvme_cqe cqe;

		nvme_cqe_set(&cqe, from_le16(sqe->cid), eat16(e), eat16(e), 0);
		memcpy(bytes, &cqe, sizeof(cqe));
	}
	(void)twin_send_raw(t, (uint16_t)(op >> 3 & 3), bytes, len, how & 2,
		how & 8 ? eat32(e) : nvme_keyed_key(&k));
}

static void record(struct world *w, struct eater *e)
{
	uint8_t op = eat8(e);

	switch (op % 8) {
	case 0:
	case 1:
		respond(w, e, op);
		break;
	case 2:
	case 3:
		submit_one(w, eat8(e));
		break;
	case 4:
		twin_release(&w->twin);
		break;
	case 5:
		w->twin.hold_responses = op & 8;
		w->twin.hold_sends = op & 16;
		break;
	case 6:
		w->twin.fault = eat8(e) % TWIN_NFAULTS;
		break;
	default:
		(void)nvmf_abort(&w->io[eat8(e) % NIOS]);
		break;
	}
	spin(w, op >> 5);
}

static bool is_settled(void *arg)
{
	struct world *w = arg;

	return nvmf_is_ready(w->nvmf) || nvmf_error(w->nvmf)->code;
}

static void take_how(struct world *w, struct eater *e)
{
	uint8_t how = eat8(e);
	struct twin_cfg *c = &w->twin.cfg;

	c->no_windows = how & 1;
	c->capsule_bytes = how & 2 ? 4096 : 0;
	c->icdoff = how & 4 ? 3 : 0;
	c->max_wr = how & 8 ? 9 : 0;
	if (how & 0x30) {
		c->private_bytes = eat8(e);
		eat_bytes(e, w->private_data, c->private_bytes);
		if (how & 0x10)
			c->accept = w->private_data;
		else
			c->reject = w->private_data;
	}
}

static void check_end(struct world *w)
{
	const struct twin *t = &w->twin;

	if (t->violations)
		fprintf(stderr, "the twin: %s\n", t->violation);
	FUZZ_CHECK(!t->violations && !t->nlinks && !t->nbound);
	FUZZ_CHECK(!t->nmws && !t->nmrs && !t->npds);
	for (uint32_t i = 0; i <= NIOS; i++)
		for (size_t k = 0; k < GUARD; k++)
			FUZZ_CHECK(w->buf[i * STRIDE + k] == 0x3c);
	for (uint32_t i = 0; i < NIOS; i++)
		FUZZ_CHECK(w->begun[i] == w->ended[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct world w;
	struct eater e = {data, size};
	struct nvmf_cfg cfg = {.transport = "rdma",
		.host = "192.0.2.1",
		.subnqn = TWIN_NQN,
		.hostnqn = "nqn.2024-01.fuzz:host",
		.nqueues = 2,
		.depth = 4,
		.rdma_ops = &rd_twin,
		.rdma_arg = &w.twin};

	memset(&w, 0, sizeof(w));
	FUZZ_CHECK(shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1},
			   &w.sh) == 0);
	FUZZ_CHECK(twin_open(w.sh, &w.twin) == 0);
	w.buf = mem_alloc(NIOS * STRIDE + GUARD);
	FUZZ_CHECK(w.buf);
	memset(w.buf, 0x3c, NIOS * STRIDE + GUARD);
	take_how(&w, &e);
	FUZZ_CHECK(nvmf_open(w.sh, &cfg, NULL, NULL, &w.nvmf, NULL) == 0);
	FUZZ_CHECK(shard_wait(w.sh, is_settled, &w, 0) == 0);
	w.twin.hold_responses = true;
	for (uint8_t k = 0; k < 4; k++)
		submit_one(&w, (uint8_t)(k << 5 | k << 3 | k));
	spin(&w, 2);
	for (int i = 0; e.left && i < 64; i++)
		record(&w, &e);
	nvmf_close(w.nvmf);
	check_end(&w);
	mem_free(w.buf, NIOS * STRIDE + GUARD);
	twin_close(&w.twin);
	shard_close(w.sh);
	return 0;
}
