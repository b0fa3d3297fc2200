/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much may be in the stack while several VMs compete. Judged every 10 ms in which the window was full:
 *
 *	               took < target / 2          took > target
 *	  grow by 1/4 ◀──────────────── judge ──────────────────▶ shrink by 1/4
 *	                                  ▲                             │
 *	                 hold for 1 s ────┘ ◀── back to the size before ┘ if throughput fell by more than 1/8
 */
#include "dpu/qos/qos.h"

#include "common/base/util.h"

#define EPOCH_NS    10000000ull
#define EPOCH_MIN   16u /* requests that make a judgement */
#define TARGET_NS   2000000ull
#define WEIGHTED    8u /* ... divided by, where shares were asked for */
#define HOLD_NS     1000000000ull
#define WINDOW_MIN  (256ull << 10)
#define WINDOW_MAX  (64ull << 20)
#define BEST_DECAYS 64u

static void judge(struct qos *q, uint64_t now)
{
	uint64_t took = q->epoch_took_ns / q->epoch_n;
	uint64_t rate = q->epoch_bytes * 1000 / ((now - q->epoch_ns) / 1000 + 1);
	uint64_t target = q->nweighted ? TARGET_NS / WEIGHTED : TARGET_NS;

	q->best_rate = MAX(q->best_rate - q->best_rate / BEST_DECAYS, rate);
	if (q->shrunk && rate < q->best_rate - q->best_rate / 8) {
		q->window = q->before;
		q->hold_until_ns = now + HOLD_NS;
		q->shrunk = false;
	} else if (took > target && now >= q->hold_until_ns) {
		q->before = q->window;
		q->window = MAX(q->window - q->window / 4, WINDOW_MIN);
		q->shrunk = true;
	} else {
		if (took < target / 2)
			q->window = MIN(q->window + q->window / 4, WINDOW_MAX);
		q->shrunk = false;
	}
}

/* Somebody had to wait for the window: from here on it is measured. */
void qos_full(struct qos *q, uint64_t now)
{
	q->full_times++;
	if (q->was_full)
		return;
	q->was_full = true;
	q->epoch_ns = now;
	q->epoch_bytes = q->epoch_took_ns = q->epoch_n = 0;
}

void qos_epoch_end(struct qos *q, uint64_t now)
{
	bool stale = now - q->epoch_ns > 4 * EPOCH_NS; /* the load has gone meanwhile */

	if (now - q->epoch_ns < EPOCH_NS || (q->epoch_n < EPOCH_MIN && !stale))
		return;
	if (stale)
		q->shrunk = false;
	else
		judge(q, now);
	q->was_full = false;
}
