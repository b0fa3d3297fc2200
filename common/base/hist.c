/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/hist.h"

#include "common/base/util.h"

uint64_t hist_class_top(unsigned int c)
{
	unsigned int octave = c / HIST_OCTAVE;

	if (!octave)
		return c;
	return ((uint64_t)(HIST_OCTAVE + c % HIST_OCTAVE + 1) << (octave - 1)) - 1;
}

uint64_t hist_at(const struct hist *h, unsigned int per_mille)
{
	/* Not count * per_mille: a count of years may be large. */
	uint64_t left = h->count / 1000 * per_mille +
			DIV_ROUND_UP(h->count % 1000 * per_mille, 1000);

	for (unsigned int c = 0; c < HIST_CLASSES - 1 && left; c++) {
		if (h->n[c] >= left)
			return MIN(hist_class_top(c), h->max);
		left -= h->n[c];
	}
	return h->max;
}

void hist_merge(struct hist *to, const struct hist *from)
{
	for (unsigned int c = 0; c < HIST_CLASSES; c++)
		to->n[c] += from->n[c];
	to->count += from->count;
	to->sum += from->sum;
	to->max = MAX(to->max, from->max);
}

void hist_since(const struct hist *now, const struct hist *then, struct hist *out)
{
	out->count = now->count - then->count;
	out->sum = now->sum - then->sum;
	out->max = 0;
	for (unsigned int c = 0; c < HIST_CLASSES; c++) {
		out->n[c] = now->n[c] - then->n[c];
		if (out->n[c])
			out->max = c == HIST_CLASSES - 1 ? now->max
							 : MIN(hist_class_top(c), now->max);
	}
}
