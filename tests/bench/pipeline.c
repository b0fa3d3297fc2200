/* SPDX-License-Identifier: BSD-3-Clause */
/* The path of a write from the pipeline to the flash, beside the bare loops that do the same passes over memory. */
#include <stdio.h>
#include <string.h>

#include "tests/bench/bench.h"
#include "tests/bench/pass.h"
#include "tests/bench/stack.h"

#define SLICE_BYTES  (128ull << 20)
#define SLICES       5u
#define DEPTH        32u
#define VOLUME_BYTES (256ull << 20)
/* The log is not cleaned: it takes all slices and what is written before them, 1.5 times and headers. */
#define LOG_BYTES ((SLICES * SLICE_BYTES + VOLUME_BYTES) / STACK_DEVS * 7 / 4 + (64u << 20))
#define DEV_BYTES (VOLUME_BYTES + LOG_BYTES)

static struct bare bare;
static struct stack stack;

static uint64_t run_stack(void *arg)
{
	struct stack *s = arg;

	stack_write(s, SLICE_BYTES / s->cfg.io_bytes);
	return SLICE_BYTES;
}

static void open_stack(bool protect, uint32_t io_bytes)
{
	struct stack_cfg cfg = {.dev_bytes = DEV_BYTES,
		.dev_block = 4096,
		.volume_bytes = VOLUME_BYTES,
		.layout = VOLUME_FRAGMENTS,
		.protect = protect,
		.depth = DEPTH,
		.io_bytes = io_bytes,
		.source_bytes = BARE_BYTES,
		.touched_bytes = protect ? LOG_BYTES : DEV_BYTES};

	stack_open(&stack, &cfg);
	/* The first writes of blocks change their state, which takes records; what is measured is the steady state. */
	stack_write(&stack, VOLUME_BYTES / io_bytes);
}

static void compare(const char *name, bool protect, uint32_t io_bytes,
	uint64_t (*bare_fn)(void *arg), double target)
{
	struct bench_side sides[] = {
		{"bare loop", bare_fn, &bare}, {"through the stack", run_stack, &stack}};
	char full[64];

	snprintf(full, sizeof(full), "pipeline.%s_ratio", name);
	if (!bench_wanted(full))
		return;
	fprintf(stderr, "%s\n", full);
	/* The best stripe size for the bare loop: what the queue makes of 32 writes in flight, at most 512 KiB. */
	if (bare_open(&bare, io_bytes, 128) < 0)
		bench_die("bare loop", -1);
	open_stack(protect, io_bytes);
	bench_compare(sides, 2, SLICES);
	bench_result(full, sides[1].best / sides[0].best, "",
		target > 0 ? BENCH_AT_LEAST : BENCH_REPORT, target);
	snprintf(full, sizeof(full), "pipeline.%.*s.rate", (int)(strrchr(name, '.') - name), name);
	bench_result(full, sides[1].best / 1e9, "GB/s", BENCH_REPORT, 0);
	stack_close(&stack);
	bare_close(&bare);
}

void bench_pipeline(void)
{
	compare("plain.64k.copy", false, 64u << 10, bare_copy, 0.7);
	compare("protected.64k.bare", true, 64u << 10, bare_protected, 0.75);
	compare("protected.4k.bare", true, 4096, bare_protected, 0.5);
	compare("plain.4k.copy", false, 4096, bare_copy, 0);
	flash_mem_forget(NULL);
}
