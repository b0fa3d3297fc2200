/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `nvmf.rdma.*`: what a 4+2 stripe costs in work requests, doorbells and completions, and that nothing of it is copied. Six queues, one per device, on
 * the loopback twin of the verbs layer: no adapter, so no rates. Per fragment a header of 1.5 KiB, which goes inside the capsule, and 64 KiB of payload out
 * of registered memory; some stripes per round of the loop, as the stripe log submits them under load.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/core/shard.h"
#include "dpu/nvmf/nvmf.h"
#include "tests/bench/bench.h"
#include "tests/unit/rdma_twin.h"

#define DEVS          6
#define BATCH         4 /* stripes submitted in one round */
#define BATCHES       64
#define HEADER_BYTES  1536u
#define PAYLOAD_BYTES 65536u
#define NIOS          (DEVS * BATCH * 2)

struct bed {
	struct shard *sh;
	struct twin twin;
	struct nvmf *devs[DEVS];
	uint8_t *mem;
	size_t mem_bytes;
	struct nvmf_io ios[NIOS];
	struct iovec iovs[NIOS];
	unsigned int left, failed;
};

static void done(struct nvmf_io *io)
{
	struct bed *b = io->arg;

	b->failed += nvmf_io_result(io) != 0;
	b->left--;
}

static bool all_done(void *arg)
{
	return ((struct bed *)arg)->left == 0;
}

static bool bed_open(struct bed *b)
{
	struct nvmf_cfg cfg = {.transport = "rdma",
		.host = "192.0.2.1",
		.subnqn = TWIN_NQN,
		.nqueues = 1,
		.depth = 64,
		.rdma_ops = &rd_twin,
		.rdma_arg = &b->twin};

	if (shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1}, &b->sh) < 0 ||
		twin_open(b->sh, &b->twin) < 0)
		return false;
	b->twin.cfg.capsule_bytes = 4096;
	b->mem_bytes = (size_t)NIOS * PAYLOAD_BYTES;
	b->mem = mem_alloc(b->mem_bytes);
	if (!b->mem)
		return false;
	for (unsigned int d = 0; d < DEVS; d++)
		if (nvmf_open(b->sh, &cfg, NULL, NULL, &b->devs[d], NULL) < 0 ||
			nvmf_wait_ready(b->devs[d], 60000) < 0)
			return false;
	for (int i = 0; i < 10; i++) /* requests for events go their way */
		shard_run_once(b->sh);
	return true;
}

static void bed_close(struct bed *b)
{
	for (unsigned int d = 0; d < DEVS; d++)
		nvmf_close(b->devs[d]);
	if (b->mem)
		mem_free(b->mem, b->mem_bytes);
	twin_close(&b->twin);
	shard_close(b->sh);
}

static bool put(struct bed *b, unsigned int i, unsigned int dev, uint64_t off, uint32_t bytes)
{
	struct nvmf_io *io = &b->ios[i];

	b->iovs[i] = (struct iovec){b->mem + (size_t)i * PAYLOAD_BYTES, bytes};
	*io = (struct nvmf_io){.iov = &b->iovs[i], .niov = 1, .done_fn = done, .arg = b};
	nvmf_io_rw(io, NVME_CMD_WRITE, 1, off / TWIN_BLOCK, bytes / TWIN_BLOCK, 0);
	b->left++;
	return nvmf_submit(nvmf_queue(b->devs[dev], 1), io) == 0;
}

static bool batch(struct bed *b, unsigned int number)
{
	unsigned int i = 0;
	uint64_t off = (uint64_t)number * BATCH * (HEADER_BYTES + PAYLOAD_BYTES);

	for (unsigned int s = 0; s < BATCH; s++, off += HEADER_BYTES + PAYLOAD_BYTES)
		for (unsigned int d = 0; d < DEVS; d++) {
			uint64_t at = off % (TWIN_BYTES / 2);

			if (!put(b, i++, d, at, HEADER_BYTES) ||
				!put(b, i++, d, at + HEADER_BYTES, PAYLOAD_BYTES))
				return false;
		}
	return shard_wait(b->sh, all_done, b, 0) == 0 && !b->failed;
}

static struct nvmf_stats sum(const struct bed *b)
{
	struct nvmf_stats s = {0};

	for (unsigned int d = 0; d < DEVS; d++) {
		const struct nvmf_stats *x = nvmf_stats(b->devs[d]);

		s.kicks += x->kicks;
		s.posts += x->posts;
		s.completions += x->completions;
		s.copied_bytes += x->copied_bytes;
		s.inline_bytes += x->inline_bytes;
		s.zero_copy_bytes += x->zero_copy_bytes;
	}
	return s;
}

void bench_nvmf_rdma(void)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct nvmf_stats from, to;
	const double stripes = BATCH * BATCHES;
	bool ok = b && bed_open(b);

	if (!ok) {
		fprintf(stderr, "nvmf.rdma: the twin does not start\n");
		exit(1);
	}
	from = sum(b);
	for (unsigned int i = 0; i < BATCHES && ok; i++)
		ok = batch(b, i);
	to = sum(b);
	if (!ok || b->twin.violations || b->twin.denied) {
		fprintf(stderr, "nvmf.rdma: writes failed: %s\n",
			b->twin.violation ? b->twin.violation : "refused");
		exit(1);
	}
	bench_result("nvmf.rdma.doorbells_per_queue_and_batch",
		(double)(to.kicks - from.kicks) / (DEVS * BATCHES), "", BENCH_AT_MOST, 1);
	bench_result("nvmf.rdma.doorbells_per_stripe", (double)(to.kicks - from.kicks) / stripes,
		"", BENCH_REPORT, 0);
	bench_result("nvmf.rdma.posts_per_stripe", (double)(to.posts - from.posts) / stripes, "",
		BENCH_REPORT, 0);
	bench_result("nvmf.rdma.completions_per_stripe",
		(double)(to.completions - from.completions) / stripes, "", BENCH_REPORT, 0);
	bench_result("nvmf.rdma.copied_bytes_per_stripe",
		(double)(to.copied_bytes - from.copied_bytes) / stripes, "B", BENCH_AT_MOST, 0);
	bench_result("nvmf.rdma.inline_bytes_per_stripe",
		(double)(to.inline_bytes - from.inline_bytes) / stripes, "B", BENCH_REPORT, 0);
	bench_result("nvmf.rdma.zero_copy_bytes_per_stripe",
		(double)(to.zero_copy_bytes - from.zero_copy_bytes) / stripes, "B", BENCH_REPORT,
		0);
	bed_close(b);
	free(b);
}
