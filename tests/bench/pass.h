/* SPDX-License-Identifier: BSD-3-Clause */
/* The yardsticks; see pass.c. Thread: one. */
#ifndef TESTS_BENCH_PASS_H
#define TESTS_BENCH_PASS_H

#include <stdbool.h>
#include <stdint.h>

#include "dpu/ec/ec.h"

#define BARE_BYTES (256ull << 20) /* of each buffer */
#define BARE_SLICE (128ull << 20) /* user data of one slice */

struct bare {
	uint8_t *src, *dst, *parity;
	uint32_t io_bytes;
	bool unstable; /* the source: as a VM's memory is */
	uint64_t next;
	struct ec *ec;
	const struct ec_code *code;
	struct ec_geometry geo;
};

int bare_open(struct bare *b, uint32_t io_bytes, uint32_t stripe_blocks); /* 0 or negative */
void bare_close(struct bare *b);
uint64_t bare_copy(void *arg);
uint64_t bare_protected(void *arg);

#endif
