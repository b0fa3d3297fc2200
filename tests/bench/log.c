/* SPDX-License-Identifier: BSD-3-Clause */
/* What the log costs beside time: bytes written per byte of the user, and memory per block. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/flash/fault.h"
#include "tests/bench/bench.h"
#include "tests/bench/stack.h"

static struct stack stack;

static uint64_t redundancy_bytes(struct stack *s)
{
	struct store_stats *st = calloc(1, sizeof(*st));
	uint64_t sum = 0;

	if (!st)
		bench_die("statistics", ENOMEM);
	store_stats(s->store, st);
	for (unsigned int d = 0; d < STACK_DEVS; d++)
		sum += st->log.dev_bytes[d];
	free(st);
	return sum;
}

/* ---- write amplification ---------------------------------------------------------------------------------- */

static void amplification(
	const char *name, uint32_t depth, uint32_t block, enum volume_layout layout, double target)
{
	enum { WRITES = 16384, VOLUME = 64 << 20 };
	struct stack_cfg cfg = {.dev_bytes = 512u << 20,
		.dev_block = block,
		.volume_bytes = VOLUME,
		.layout = layout,
		.protect = true,
		.depth = depth,
		.io_bytes = 4096,
		.source_bytes = 1u << 20};
	uint64_t before;

	if (!bench_wanted(name))
		return;
	fprintf(stderr, "%s\n", name);
	stack_open(&stack, &cfg);
	before = redundancy_bytes(&stack);
	stack_write(&stack, WRITES);
	bench_result(name, (double)(redundancy_bytes(&stack) - before) / (WRITES * 4096.0), "",
		target > 0 ? BENCH_AT_MOST : BENCH_REPORT, target);
	stack_close(&stack);
}

void bench_amplification(void)
{
#define NAME "log.write_amplification.4k.4+2"
	amplification(NAME, 32, 512, VOLUME_FRAGMENTS, 1.75);
	amplification(NAME ".depth8", 8, 512, VOLUME_FRAGMENTS, 0);
	amplification(NAME ".depth1", 1, 512, VOLUME_FRAGMENTS, 0);
	amplification(NAME ".flash4k", 32, 4096, VOLUME_FRAGMENTS, 0);
	amplification(NAME ".copy", 32, 512, VOLUME_COPY, 0);
#undef NAME
}

/* ---- the index ---------------------------------------------------------------------------------------------- */

/* More flash than the machine has memory: writes succeed and are lost, and nothing reads them. Only the memory that keeps
 * track of them is measured. */
static void lose_writes(struct stack *s)
{
	struct fault_rule lost = {.op = FLASH_WRITE, .per_million = 1000000, .lost = true};

	for (unsigned int d = 0; d < STACK_DEVS; d++)
		if (fault_rule_add(pool_dev(s->pool, d)->flash, &lost) < 0)
			bench_die("fault", EINVAL);
}

static void index_bytes(const char *name, uint64_t nblocks, uint32_t stripe_blocks, double target)
{
	uint64_t bytes = nblocks * 4096;
	struct stack_cfg cfg = {
		.dev_bytes = ROUND_UP(bytes / 5 + bytes / stripe_blocks + (1ull << 30), 1ull << 20),
		.dev_block = 4096,
		.volume_bytes = bytes,
		.layout = VOLUME_FRAGMENTS,
		.protect = true,
		.per_request = true,
		.depth = 16,
		.io_bytes = stripe_blocks * 4096,
		.source_bytes = 1u << 20,
		.faulty = true};
	struct volume_stats vs;
	struct store_stats *st;
	uint64_t memory;

	if (!bench_wanted(name))
		return;
	fprintf(stderr, "%s: %llu blocks\n", name, (unsigned long long)nblocks);
	stack_open(&stack, &cfg);
	lose_writes(&stack);
	stack.in_order = true;
	stack_write(&stack, nblocks / stripe_blocks);
	volume_stats(stack.vol, &vs);
	st = calloc(1, sizeof(*st));
	if (!st)
		bench_die("statistics", ENOMEM);
	store_stats(stack.store, st);
	if (vs.blocks[BLOCK_LOG] != nblocks || st->log.table_entries < nblocks / stripe_blocks)
		bench_die("not every block is in the log", EIO);
	memory = vs.map_bytes + st->log.table_bytes;
	fprintf(stderr, "  map %llu, stripe table %llu bytes\n", (unsigned long long)vs.map_bytes,
		(unsigned long long)st->log.table_bytes);
	bench_result(name, (double)memory / (double)nblocks, "B",
		target > 0 ? BENCH_AT_MOST : BENCH_REPORT, target);
	free(st);
	stack_close(&stack);
}

void bench_index(void)
{
	index_bytes("index.bytes_per_block", 16u << 20, 32, 16);
	index_bytes("index.bytes_per_block.single", 256u << 10, 1, 0);
}
