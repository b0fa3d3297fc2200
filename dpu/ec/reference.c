/* SPDX-License-Identifier: BSD-3-Clause */
/* The plain twin: its own field, its own matrix, its own inversion; one byte at a time. Shares no arithmetic with ISA-L. */
#include <errno.h>
#include <string.h>

#include "dpu/core/crc32c.h"
#include "dpu/ec/ec_priv.h"

#define FIELD_POLYNOMIAL 0x11d

/* Carry-less multiplication, reduced at each step. */
static uint8_t gf_times(uint8_t a, uint8_t b)
{
	unsigned int x = a, product = 0;

	for (; b; b >>= 1) {
		if (b & 1)
			product ^= x;
		x <<= 1;
		if (x & 0x100)
			x ^= FIELD_POLYNOMIAL;
	}
	return (uint8_t)product;
}

/* a^254 = 1/a, as a^255 = 1. */
static uint8_t gf_inverse(uint8_t a)
{
	uint8_t r = 1;

	for (int i = 0; i < 254; i++)
		r = gf_times(r, a);
	return r;
}

static int reference_init(struct ec_code *c)
{
	for (unsigned int i = 0; i < c->k; i++)
		c->matrix[i * c->k + i] = 1;
	for (unsigned int i = c->k; i < (unsigned int)c->k + c->m; i++)
		for (unsigned int j = 0; j < c->k; j++)
			c->matrix[i * c->k + j] = c->k == 1 ? 1 : gf_inverse((uint8_t)(i ^ j));
	return 0;
}

/* out = the sum of row[j] * src[j] */
static void combine(
	const uint8_t *row, unsigned int k, size_t len, const uint8_t *const *src, uint8_t *out)
{
	uint8_t times[256];

	memset(out, 0, len);
	for (unsigned int j = 0; j < k; j++) {
		for (unsigned int v = 0; v < 256; v++)
			times[v] = gf_times(row[j], (uint8_t)v);
		for (size_t at = 0; at < len; at++)
			out[at] ^= times[src[j][at]];
	}
}

static void reference_encode(const struct ec_code *c, size_t len_bytes, const uint8_t *const *data,
	uint8_t *const *parity)
{
	for (unsigned int i = 0; i < c->m; i++)
		combine(c->matrix + (c->k + i) * c->k, c->k, len_bytes, data, parity[i]);
}

static void reference_pass(const struct ec_code *c, const struct ec_pass *p)
{
	uint8_t stable[EC_K_MAX][EC_BLOCK];
	const uint8_t *src[EC_K_MAX];
	uint8_t *parity[EC_M_MAX];
	int32_t index;

	for (uint32_t row = 0; row < p->geo.rows; row++) {
		for (unsigned int d = 0; d < c->k; d++) {
			memcpy(stable[d], ec_pass_block(p, d, row, &index), EC_BLOCK);
			src[d] = stable[d];
			if (index < 0)
				continue;
			p->crc[index] = crc32c(stable[d], EC_BLOCK);
			if (p->copy && p->copy[index])
				memcpy(p->copy[index], stable[d], EC_BLOCK);
			if (p->copy2 && p->copy2[index])
				memcpy(p->copy2[index], stable[d], EC_BLOCK);
		}
		for (unsigned int i = 0; i < c->m; i++)
			parity[i] = p->parity[i] + (size_t)row * EC_BLOCK;
		reference_encode(c, EC_BLOCK, src, parity);
		for (unsigned int i = 0; i < c->m; i++)
			p->parity_crc[i * p->geo.rows + row] = crc32c(parity[i], EC_BLOCK);
	}
}

/* Gauss and Jordan: turns a (k x k) into the identity, and the identity into its inverse. */
static int invert(uint8_t *a, uint8_t *inverse, unsigned int k)
{
	memset(inverse, 0, k * k);
	for (unsigned int i = 0; i < k; i++)
		inverse[i * k + i] = 1;
	for (unsigned int col = 0; col < k; col++) {
		unsigned int pivot = col;
		uint8_t scale;

		while (pivot < k && !a[pivot * k + col])
			pivot++;
		if (pivot == k)
			return -EIO;
		for (unsigned int j = 0; j < k && pivot != col; j++) {
			a[col * k + j] ^= a[pivot * k + j]; /* now non-zero at col */
			inverse[col * k + j] ^= inverse[pivot * k + j];
		}
		scale = gf_inverse(a[col * k + col]);
		for (unsigned int j = 0; j < k; j++) {
			a[col * k + j] = gf_times(a[col * k + j], scale);
			inverse[col * k + j] = gf_times(inverse[col * k + j], scale);
		}
		for (unsigned int r = 0; r < k; r++) {
			uint8_t f = a[r * k + col];

			for (unsigned int j = 0; j < k && r != col && f; j++) {
				a[r * k + j] ^= gf_times(f, a[col * k + j]);
				inverse[r * k + j] ^= gf_times(f, inverse[col * k + j]);
			}
		}
	}
	return 0;
}

static int reference_decode(const struct ec_code *c, size_t len_bytes, const uint8_t *have,
	const uint8_t *const *src, const uint8_t *want, unsigned int nwant, uint8_t *const *dst)
{
	uint8_t rows[EC_K_MAX * EC_K_MAX], inverse[EC_K_MAX * EC_K_MAX], row[EC_K_MAX];

	for (unsigned int i = 0; i < c->k; i++)
		memcpy(rows + i * c->k, c->matrix + have[i] * c->k, c->k);
	if (invert(rows, inverse, c->k) < 0)
		return -EIO;
	for (unsigned int i = 0; i < nwant; i++) {
		ec_want_row(c, inverse, want[i], row, gf_times);
		combine(row, c->k, len_bytes, src, dst[i]);
	}
	return 0;
}

const struct ec_ops ec_ops_reference = {
	.init = reference_init,
	.encode = reference_encode,
	.pass = reference_pass,
	.decode = reference_decode,
};
