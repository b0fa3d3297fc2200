/* SPDX-License-Identifier: BSD-3-Clause */
/* Encoding: what the codec adds to a bare loop of ISA-L's function. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <isa-l/erasure_code.h>

#include "dpu/core/mem.h"
#include "dpu/ec/ec.h"
#include "tests/bench/bench.h"

#define FRAGMENT (64u << 10)
#define ROUNDS   400
#define SETS \
	8 /* of fragments: what one of them leaves in the caches is not what the next one finds */

struct encode {
	unsigned int k, m;
	const struct ec_code *code;
	uint8_t matrix[32 * 24], tables[32 * 24 * 8];
	uint8_t *mem;
	uint8_t *frag[SETS][32];
	/* the same as scattered blocks with CRC */
	const uint8_t *blocks[SETS][EC_BLOCKS_MAX];
	uint32_t crc[EC_BLOCKS_MAX], parity_crc[8 * EC_BLOCKS_MAX];
	struct ec_geometry geo;
};

static uint64_t run_bare(void *arg)
{
	struct encode *e = arg;

	for (unsigned int i = 0; i < ROUNDS; i++)
		ec_encode_data(FRAGMENT, (int)e->k, (int)e->m, e->tables, e->frag[i % SETS],
			e->frag[i % SETS] + e->k);
	return (uint64_t)ROUNDS * FRAGMENT * e->k;
}

static uint64_t run_codec(void *arg)
{
	struct encode *e = arg;

	for (unsigned int i = 0; i < ROUNDS; i++)
		ec_encode(e->code, FRAGMENT, (const uint8_t *const *)e->frag[i % SETS],
			e->frag[i % SETS] + e->k);
	return (uint64_t)ROUNDS * FRAGMENT * e->k;
}

static uint64_t run_scattered(void *arg)
{
	struct encode *e = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct ec_pass p = {.geo = e->geo,
			.blocks = e->blocks[i % SETS],
			.parity = e->frag[i % SETS] + e->k,
			.stream = true,
			.crc = e->crc,
			.parity_crc = e->parity_crc};

		ec_encode_pass(e->code, &p);
	}
	return (uint64_t)ROUNDS * FRAGMENT * e->k;
}

static void set_up(struct encode *e, struct ec *ec, unsigned int k, unsigned int m)
{
	size_t set_bytes = (size_t)(k + m) * FRAGMENT;
	uint32_t n = k * (FRAGMENT / EC_BLOCK);

	e->k = k;
	e->m = m;
	gf_gen_cauchy1_matrix(e->matrix, (int)(k + m), (int)k);
	ec_init_tables((int)k, (int)m, e->matrix + k * k, e->tables);
	ec_code_get(ec, k, m, &e->code);
	ec_geometry_of((struct ec_scheme){(uint8_t)k, (uint8_t)m}, n, &e->geo);
	e->mem = mem_alloc(SETS * set_bytes);
	if (!e->mem) {
		fprintf(stderr, "no memory\n");
		exit(1);
	}
	memset(e->mem, 0x3c, SETS * set_bytes);
	for (unsigned int s = 0; s < SETS; s++) {
		for (unsigned int i = 0; i < k + m; i++)
			e->frag[s][i] = e->mem + s * set_bytes + (size_t)i * FRAGMENT;
		for (uint32_t b = 0; b < n; b++) /* 7 is prime to every number of blocks here */
			e->blocks[s][b] = e->mem + s * set_bytes + (size_t)(b * 7 % n) * EC_BLOCK;
	}
}

void bench_ec(void)
{
	static const unsigned int schemes[][2] = {{2, 1}, {4, 2}, {8, 3}, {10, 4}};
	static struct encode e;
	struct ec *ec;
	char name[64];

	if (ec_open(EC_ISAL, &ec) < 0)
		return;
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		struct bench_side sides[] = {{"bare ec_encode_data", run_bare, &e},
			{"codec", run_codec, &e}, {"scattered, with CRC", run_scattered, &e}};
		unsigned int k = schemes[i][0], m = schemes[i][1];

		fprintf(stderr, "encode %u+%u\n", k, m);
		set_up(&e, ec, k, m);
		bench_compare(sides, 3, 7);
		snprintf(name, sizeof(name), "ec.encode.%u+%u.ratio", k, m);
		bench_result(name, sides[1].best / sides[0].best, "", BENCH_AT_LEAST, 0.95);
		snprintf(name, sizeof(name), "ec.encode.%u+%u.rate", k, m);
		bench_result(name, sides[1].best / 1e9, "GB/s", BENCH_REPORT, 0);
		snprintf(name, sizeof(name), "ec.encode.%u+%u.scattered_crc", k, m);
		bench_result(name, sides[2].best / 1e9, "GB/s", BENCH_REPORT, 0);
		mem_free(e.mem, (size_t)SETS * (k + m) * FRAGMENT);
	}
	ec_close(ec);
}
