/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `parapet-bench --count plain|protected N`: N writes of 4 KiB and nothing else after the set-up, for counting instructions
 * from outside (tests/bench/part_instructions.sh): the difference of two counts is that of the writes alone.
 */
#include <stdlib.h>
#include <string.h>

#include "tests/bench/bench.h"
#include "tests/bench/stack.h"

#define VOLUME_BYTES (8u << 20)

void bench_count(const char *what, const char *count)
{
	static struct stack stack;
	struct stack_cfg cfg = {.dev_bytes = 256u << 20,
		.dev_block = 4096,
		.volume_bytes = VOLUME_BYTES,
		.layout = VOLUME_FRAGMENTS,
		.protect = strcmp(what, "protected") == 0,
		.depth = 32,
		.io_bytes = 4096,
		.source_bytes = 1u << 20};

	stack_open(&stack, &cfg);
	stack_write(&stack, VOLUME_BYTES / 4096);
	stack_write(&stack, strtoull(count, NULL, 10));
	stack_close(&stack);
}
