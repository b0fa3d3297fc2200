/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The one file that speaks ISA-L's erasure code interface. Tables are made and used here and nowhere else: their layout
 * differs between versions of the library.
 *
 * The pass works in columns: COLUMN_BYTES of every fragment go through CRC, encode and copy while they are in the L1 cache, so that
 * the source is read from memory once and parity is written to it once. Larger columns fall out of L1, smaller ones are
 * dominated by the calls.
 */
#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include <isa-l/erasure_code.h>

#include "dpu/core/crc32c.h"
#include "dpu/core/mem.h"
#include "dpu/ec/ec_priv.h"

#define COLUMN_BYTES 1024u
#define CACHE_LINE   64u

static int isal_init(struct ec_code *c)
{
	if (c->k == 1)
		memset(c->matrix, 1, (size_t)c->m + 1);
	else
		gf_gen_cauchy1_matrix(c->matrix, c->k + c->m, c->k);
	ec_init_tables(c->k, c->m, c->matrix + c->k * c->k, c->tables);
	return 0;
}

/* ISA-L lacks const on what it only reads. */
static void encode(const uint8_t *tables, unsigned int k, unsigned int rows, size_t len,
	const uint8_t *const *src, uint8_t *const *dst)
{
	assert(len <= INT_MAX);
	ec_encode_data((int)len, (int)k, (int)rows, (unsigned char *)(uintptr_t)tables,
		(unsigned char **)(uintptr_t)src, (unsigned char **)(uintptr_t)dst);
}

static void isal_encode(const struct ec_code *c, size_t len_bytes, const uint8_t *const *data,
	uint8_t *const *parity)
{
	if (c->k == 1)
		for (unsigned int i = 0; i < c->m; i++)
			memcpy(parity[i], data[0], len_bytes);
	else
		encode(c->tables, c->k, c->m, len_bytes, data, parity);
}

static int isal_decode(const struct ec_code *c, size_t len_bytes, const uint8_t *have,
	const uint8_t *const *src, const uint8_t *want, unsigned int nwant, uint8_t *const *dst)
{
	uint8_t rows[EC_N_MAX * EC_K_MAX], inverse[EC_K_MAX * EC_K_MAX];
	uint8_t tables[32 * EC_K_MAX * EC_N_MAX];

	for (unsigned int i = 0; i < c->k; i++)
		memcpy(rows + i * c->k, c->matrix + have[i] * c->k, c->k);
	if (gf_invert_matrix(rows, inverse, c->k) < 0)
		return -EIO;
	for (unsigned int i = 0; i < nwant; i++)
		ec_want_row(c, inverse, want[i], rows + i * c->k, gf_mul);
	ec_init_tables(c->k, (int)nwant, rows, tables);
	encode(tables, c->k, nwant, len_bytes, src, dst);
	return 0;
}

/* ---- the pass ------------------------------------------------------------------------------------ */

/* One row: EC_BLOCK of every data fragment. */
struct row {
	const uint8_t *block[EC_K_MAX]; /* zeros where a short fragment has ended ... */
	int32_t index[EC_K_MAX]; /* ... and -1 */
	uint32_t crc[EC_K_MAX], parity_crc[EC_M_MAX];
};

static void row_begin(const struct ec_code *c, const struct ec_pass *p, uint32_t n, struct row *row)
{
	for (unsigned int d = 0; d < c->k; d++) {
		row->block[d] = ec_pass_block(p, d, n, &row->index[d]);
		row->crc[d] = CRC32C_INIT;
	}
	for (unsigned int i = 0; i < c->m; i++)
		row->parity_crc[i] = CRC32C_INIT;
}

static void row_end(
	const struct ec_code *c, const struct ec_pass *p, uint32_t n, const struct row *row)
{
	for (unsigned int d = 0; d < c->k; d++)
		if (row->index[d] >= 0)
			p->crc[row->index[d]] = crc32c_end(row->crc[d]);
	for (unsigned int i = 0; i < c->m; i++)
		p->parity_crc[i * p->geo.rows + n] = crc32c_end(
			c->k == 1 ? row->crc[0] : row->parity_crc[i]);
}

/* The next column of every fragment comes while this one is worked on: these are many short streams, which the
 * hardware's own prefetcher does not follow. */
static void prefetch(const struct row *row, unsigned int k, uint32_t at)
{
	for (unsigned int d = 0; d < k; d++)
		for (uint32_t i = 0; i < COLUMN_BYTES; i += CACHE_LINE)
			__builtin_prefetch(row->block[d] + at + i, 0, 3);
}

static void copy_out(uint8_t *const *copy, int32_t index, uint32_t at, const uint8_t *src)
{
	if (copy && copy[index])
		mem_copy_stream(copy[index] + at, src, COLUMN_BYTES);
}

static void replicate(
	const struct ec_code *c, const struct ec_pass *p, size_t dst, const uint8_t *src)
{
	for (unsigned int i = 0; i < c->m; i++) {
		if (p->parity_stream)
			mem_copy_stream(p->parity[i] + dst, src, COLUMN_BYTES);
		else
			memcpy(p->parity[i] + dst, src, COLUMN_BYTES);
	}
}

static void column(
	const struct ec_code *c, const struct ec_pass *p, uint32_t n, uint32_t at, struct row *row)
{
	uint8_t stable[EC_K_MAX * COLUMN_BYTES] __attribute__((aligned(64)));
	uint8_t parity[EC_M_MAX * COLUMN_BYTES] __attribute__((aligned(64)));
	const uint8_t *src[EC_K_MAX];
	uint8_t *out[EC_M_MAX];
	size_t dst = (size_t)n * EC_BLOCK + at;

	for (unsigned int d = 0; d < c->k; d++) {
		src[d] = row->block[d] + at;
		if (row->index[d] < 0)
			continue;
		if (p->unstable)
			src[d] = memcpy(stable + d * COLUMN_BYTES, src[d], COLUMN_BYTES);
		row->crc[d] = crc32c_add(row->crc[d], src[d], COLUMN_BYTES);
		copy_out(p->copy, row->index[d], at, src[d]);
		copy_out(p->copy2, row->index[d], at, src[d]);
	}
	if (c->k == 1) {
		replicate(c, p, dst, src[0]);
		return;
	}
	for (unsigned int i = 0; i < c->m; i++)
		out[i] = p->parity_stream ? parity + i * COLUMN_BYTES : p->parity[i] + dst;
	encode(c->tables, c->k, c->m, COLUMN_BYTES, src, out);
	for (unsigned int i = 0; i < c->m; i++) {
		row->parity_crc[i] = crc32c_add(row->parity_crc[i], out[i], COLUMN_BYTES);
		if (p->parity_stream)
			mem_copy_stream(p->parity[i] + dst, out[i], COLUMN_BYTES);
	}
}

static void isal_pass(const struct ec_code *c, const struct ec_pass *p)
{
	struct row rows[2], *row = &rows[0], *next = &rows[1], *swap;

	row_begin(c, p, 0, row);
	prefetch(row, c->k, 0);
	for (uint32_t n = 0; n < p->geo.rows; n++) {
		if (n + 1 < p->geo.rows)
			row_begin(c, p, n + 1, next);
		for (uint32_t at = 0; at < EC_BLOCK; at += COLUMN_BYTES) {
			if (at + COLUMN_BYTES < EC_BLOCK)
				prefetch(row, c->k, at + COLUMN_BYTES);
			else if (n + 1 < p->geo.rows)
				prefetch(next, c->k, 0);
			column(c, p, n, at, row);
		}
		row_end(c, p, n, row);
		swap = row, row = next, next = swap;
	}
	mem_stream_fence();
}

const struct ec_ops ec_ops_isal = {
	.init = isal_init,
	.encode = isal_encode,
	.pass = isal_pass,
	.decode = isal_decode,
};
