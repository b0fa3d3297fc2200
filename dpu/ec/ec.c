/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/ec/ec.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/ec/ec_priv.h"

struct ec {
	const struct ec_ops *ops;
	bool pass_is_ours;
	struct ec_code *codes[EC_K_MAX + 1][EC_M_MAX + 1];
};

static const uint8_t zero_block[EC_BLOCK] __attribute__((aligned(64)));

static bool scheme_is_good(unsigned int k, unsigned int m)
{
	return k >= 1 && k <= EC_K_MAX && m >= 1 && m <= EC_M_MAX;
}

int ec_geometry_of(struct ec_scheme scheme, uint32_t nblocks, struct ec_geometry *out)
{
	uint32_t k, rows;

	if (!scheme_is_good(scheme.k, scheme.m) || nblocks < 1 || nblocks > EC_BLOCKS_MAX)
		return -EINVAL;
	k = MIN((uint32_t)scheme.k, nblocks);
	rows = DIV_ROUND_UP(nblocks, k);
	*out = (struct ec_geometry){.nblocks = nblocks,
		.k = (uint8_t)DIV_ROUND_UP(nblocks, rows),
		.m = scheme.m,
		.rows = rows};
	return 0;
}

uint32_t ec_fragment_blocks(const struct ec_geometry *g, unsigned int frag)
{
	uint32_t before = frag * g->rows;

	if (frag >= g->k)
		return g->rows;
	return before >= g->nblocks ? 0 : MIN(g->rows, g->nblocks - before);
}

bool ec_pass_is_ours(void)
{
	return pass_gfni_usable();
}

int ec_open(enum ec_impl impl, struct ec **out)
{
	struct ec *ec = calloc(1, sizeof(*ec));

	if (!ec)
		return -ENOMEM;
	ec->ops = impl == EC_REFERENCE ? &ec_ops_reference : &ec_ops_isal;
	ec->pass_is_ours = impl == EC_ISAL && ec_pass_is_ours();
	*out = ec;
	return 0;
}

void ec_close(struct ec *ec)
{
	if (!ec)
		return;
	for (unsigned int k = 0; k <= EC_K_MAX; k++)
		for (unsigned int m = 0; m <= EC_M_MAX; m++)
			free(ec->codes[k][m]);
	free(ec);
}

int ec_code_get(struct ec *ec, unsigned int k, unsigned int m, const struct ec_code **out)
{
	struct ec_code *c;
	int rc;

	if (!scheme_is_good(k, m))
		return -EINVAL;
	c = ec->codes[k][m];
	if (!c) {
		c = calloc(1, sizeof(*c));
		if (!c)
			return -ENOMEM;
		c->ops = ec->ops;
		c->k = (uint8_t)k;
		c->m = (uint8_t)m;
		rc = c->ops->init(c);
		if (rc < 0) {
			free(c);
			return rc;
		}
		c->pass = c->ops->pass;
		if (ec->pass_is_ours) {
			pass_gfni_init(c);
			c->pass = pass_gfni;
		}
		ec->codes[k][m] = c;
	}
	*out = c;
	return 0;
}

enum ec_matrix ec_code_matrix(const struct ec_code *c)
{
	return c->k == 1 ? EC_MATRIX_COPY : EC_MATRIX_CAUCHY;
}

void ec_encode(const struct ec_code *c, size_t len_bytes, const uint8_t *const *data,
	uint8_t *const *parity)
{
	assert(len_bytes % 64 == 0);
	c->ops->encode(c, len_bytes, data, parity);
}

void ec_encode_pass(const struct ec_code *c, const struct ec_pass *p)
{
	assert(c->k == p->geo.k && c->m == p->geo.m);
	assert(!p->unstable || p->copy);
	c->pass(c, p);
}

int ec_decode(const struct ec_code *c, size_t len_bytes, const uint8_t *have,
	const uint8_t *const *src, const uint8_t *want, unsigned int nwant, uint8_t *const *dst)
{
	unsigned int n = c->k + c->m;
	uint32_t seen = 0;

	if (!len_bytes || len_bytes % 64 || nwant > n)
		return -EINVAL;
	for (unsigned int i = 0; i < c->k; i++) {
		if (have[i] >= n || seen & 1u << have[i])
			return -EINVAL;
		seen |= 1u << have[i];
	}
	for (unsigned int i = 0; i < nwant; i++)
		if (want[i] >= n)
			return -EINVAL;
	return nwant ? c->ops->decode(c, len_bytes, have, src, want, nwant, dst) : 0;
}

const uint8_t *ec_pass_block(
	const struct ec_pass *p, unsigned int frag, uint32_t row, int32_t *index)
{
	uint32_t i = frag * p->geo.rows + row;

	if (i >= p->geo.nblocks) {
		*index = -1;
		return zero_block;
	}
	*index = (int32_t)i;
	return p->blocks[i];
}

void ec_want_row(const struct ec_code *c, const uint8_t *inverse, unsigned int want, uint8_t *row,
	uint8_t (*mul)(uint8_t a, uint8_t b))
{
	const uint8_t *make = c->matrix + want * c->k;

	memset(row, 0, c->k);
	for (unsigned int i = 0; i < c->k; i++)
		for (unsigned int j = 0; j < c->k; j++)
			row[j] ^= mul(make[i], inverse[i * c->k + j]);
}
