/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an implementation of the code provides. Both have the same matrix: row i of the k + m rows says how fragment
 * i is made of the data fragments; the first k rows are the identity, parity row i of column j is 1 / (i ^ j) in GF(2^8) with
 * x^8 + x^4 + x^3 + x^2 + 1 (as i >= k > j a Cauchy matrix: every square part of it can be inverted); all ones for k = 1.
 * Private to dpu/ec.
 */
#ifndef DPU_EC_EC_PRIV_H
#define DPU_EC_EC_PRIV_H

#include "dpu/ec/ec.h"

#define EC_N_MAX (EC_K_MAX + EC_M_MAX)

typedef void ec_pass_fn(const struct ec_code *c, const struct ec_pass *p);

struct ec_ops {
	/* The matrix, and what else encoding needs. */
	int (*init)(struct ec_code *c);
	void (*encode)(const struct ec_code *c, size_t len_bytes, const uint8_t *const *data,
		uint8_t *const *parity);
	ec_pass_fn *pass;
	/* Numbers and counts are checked. */
	int (*decode)(const struct ec_code *c, size_t len_bytes, const uint8_t *have,
		const uint8_t *const *src, const uint8_t *want, unsigned int nwant,
		uint8_t *const *dst);
};
extern const struct ec_ops ec_ops_isal, ec_ops_reference;

/* The pass by the processor's widest instructions, where it has them; only then the others may be called. */
bool pass_gfni_usable(void);
void pass_gfni_init(struct ec_code *c); /* after ops->init */
ec_pass_fn pass_gfni;

struct ec_code {
	const struct ec_ops *ops;
	ec_pass_fn *pass;
	uint8_t k, m;
	uint8_t matrix[EC_N_MAX * EC_K_MAX]; /* (k + m) rows of k */
	uint8_t tables[32 * EC_K_MAX * EC_M_MAX]; /* ISA-L's, of the parity rows */
	uint64_t affine[EC_K_MAX * EC_M_MAX]; /* pass_gfni's: [k][m] 8x8 bit matrices */
	uint32_t crc_zeros; /* CRC32C of EC_BLOCK zeros */
};

/* Block of data fragment `frag` in row `row`, or EC_BLOCK zeros where a short fragment has ended. *index: its number, or -1. */
const uint8_t *ec_pass_block(
	const struct ec_pass *p, unsigned int frag, uint32_t row, int32_t *index);
/* Row of the matrix that makes fragment `want` out of the fragments whose rows `inverse` inverts. mul: GF(2^8). */
void ec_want_row(const struct ec_code *c, const uint8_t *inverse, unsigned int want, uint8_t *row,
	uint8_t (*mul)(uint8_t a, uint8_t b));

#endif
