/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A token bucket, kept as a point in time: the moment at which it is full again. Taking moves that moment away by what was taken over the rate;
 * the bucket holds `burst` worth of time at most. Exact: what division leaves over is carried on. Pure logic, time is given in.
 *
 *	full_ns                       now                  now + burst
 *	   |---- full since then ------|------- tokens -------|	full_ns <= now: as much as it holds
 *	                        now <= full_ns < now + burst	some are gone; at now + burst: none is left
 *
 * A taking larger than the whole bucket waits until it is full and leaves a debt, so that a large request is late and not stuck.
 */
#ifndef DPU_QOS_BUCKET_H
#define DPU_QOS_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

struct qos_bucket {
	uint64_t rate; /* 0: no limit */
	uint64_t unit_ns; /* time of one unit at rate 1 */
	uint64_t burst_ns;
	uint64_t full_ns;
	uint64_t rest; /* of the last division */
};

/* When `units` may be taken; what is past is now. units * unit_ns stays below 2^63. */
static inline uint64_t qos_bucket_when(const struct qos_bucket *b, uint64_t units)
{
	uint64_t cost = units * b->unit_ns / b->rate;

	if (cost >= b->burst_ns)
		return b->full_ns;
	return b->full_ns + cost > b->burst_ns ? b->full_ns + cost - b->burst_ns : 0;
}

static inline void qos_bucket_take(struct qos_bucket *b, uint64_t units, uint64_t now)
{
	uint64_t cost = units * b->unit_ns + b->rest;

	if (b->full_ns < now) {
		b->full_ns = now;
		cost -= b->rest;
	}
	b->full_ns += cost / b->rate;
	b->rest = cost % b->rate;
}

/* Another rate or burst from now on: a debt stays as many units as it is. */
void qos_bucket_set(
	struct qos_bucket *b, uint64_t rate, uint64_t unit_ns, uint64_t burst_ns, uint64_t now);

#endif
