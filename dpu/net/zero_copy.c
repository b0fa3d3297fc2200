/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/net/zero_copy.h"

static bool is_done(const struct zc *z, uint32_t id)
{
	return z->done[id % ZC_WINDOW / 64] >> (id % 64) & 1;
}

uint32_t zc_sent(struct zc *z, uint32_t len_bytes)
{
	z->bytes[z->next % ZC_WINDOW] = len_bytes;
	return z->next++;
}

void zc_report(struct zc *z, uint32_t lo, uint32_t hi, bool copied)
{
	if (hi - lo >= zc_outstanding(z) || lo - z->released >= zc_outstanding(z) ||
		hi - z->released >= zc_outstanding(z)) {
		z->nonsense++;
		return;
	}
	for (uint32_t id = lo; id != hi + 1; id++) {
		if (is_done(z, id)) {
			z->nonsense++;
			continue;
		}
		z->done[id % ZC_WINDOW / 64] |= 1ULL << (id % 64);
		*(copied ? &z->copied_bytes : &z->free_bytes) += z->bytes[id % ZC_WINDOW];
	}
	while (z->released != z->next && is_done(z, z->released)) {
		z->done[z->released % ZC_WINDOW / 64] &= ~(1ULL << (z->released % 64));
		z->released++;
	}
}
