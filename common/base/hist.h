/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A histogram of durations (or sizes): log-linear classes, 16 to each power of two, so that a percentile is at most 6 % too high. Values
 * below 16 have a class of their own; from 2^40 on all share the last one.
 *
 * Nothing is ever reset: who wants to know about an interval keeps the counts of its beginning and subtracts them (hist_since()),
 * so that any number of readers do not disturb each other.
 *
 * Shared by the card, which counts, and the CLI, which takes differences. Thread: one at a time. Memory: 4.7 KiB each, zeroed is empty. Errors: none.
 *
 *	hist_add(&h, took_ns); ... hist_at(&h, 990) is what 99.0 % of them did not exceed
 */
#ifndef COMMON_BASE_HIST_H
#define COMMON_BASE_HIST_H

#include <stdint.h>

#define HIST_OCTAVE  16u
#define HIST_CLASSES (37u * HIST_OCTAVE)

struct hist {
	uint64_t n[HIST_CLASSES];
	uint64_t count, sum, max;
};

static inline unsigned int hist_class(uint64_t v)
{
	unsigned int octave, c; /* of its highest bit, from 16 on */

	if (v < HIST_OCTAVE)
		return (unsigned int)v;
	octave = 59u - (unsigned int)__builtin_clzll(v);
	c = (octave + 1) * HIST_OCTAVE + (unsigned int)(v >> octave) % HIST_OCTAVE;
	return c < HIST_CLASSES ? c : HIST_CLASSES - 1;
}

static inline void hist_add(struct hist *h, uint64_t v)
{
	h->n[hist_class(v)]++;
	h->count++;
	h->sum += v;
	if (v > h->max)
		h->max = v;
}

/* The largest value that falls into a class. */
uint64_t hist_class_top(unsigned int c);
/* What `per_mille` of 1000 did not exceed; 0 when it is empty. */
uint64_t hist_at(const struct hist *h, unsigned int per_mille);
/* Adds `from` to `to`. */
void hist_merge(struct hist *to, const struct hist *from);
/* What came into `now` after it was `then`; the maximum is the top of the highest class that did (at most now's). */
void hist_since(const struct hist *now, const struct hist *then, struct hist *out);

#endif
