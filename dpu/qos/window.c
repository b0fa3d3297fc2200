/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much may be in the stack while several VMs compete. It is measured while they do, and judged every 10 ms, or after four times what a request
 * takes, so that what is seen is what the last step did:
 *
 *	STEADY ── took > target ──▶ SHRUNK (3/4) ── throughput stays ──▶ STEADY, or again
 *	   │                           └─ it falls by 1/8: as before, and ─▶ GROWN (3/2) ── it rises by 1/8 ──▶ GROWN again
 *	   │ took < target / 2 and the window was full: 5/4                    └─ it does not: as before, and stays so for a while ─▶ STEADY
 *
 * So a flash that works one by one gets a window of the target's size, and one that needs many at a time to be busy gets as much as that is.
 */
#include "dpu/qos/qos.h"

#include "common/base/util.h"

#define EPOCH_NS     10000000ull
#define EPOCH_TIMES  4u /* of what a request takes */
#define EPOCH_MIN    16u /* requests that make a judgement */
#define TARGET_NS    2000000ull
#define WEIGHTED     8u /* ... divided by, where shares were asked for */
#define HOLD_NS      1000000000ull
#define HOLD_EPOCHS  32u
#define WINDOW_MIN   (64ull << 10)
#define WINDOW_MAX   (256ull << 20)
#define BEST_DECAYS  64u
#define GAP_NS       500000000ull /* since the last judgement: what was then says nothing */

static void window_set(struct qos *q, uint64_t bytes)
{
	q->window = MIN(MAX(bytes, WINDOW_MIN), WINDOW_MAX);
}

static void hold(struct qos *q, uint64_t now)
{
	q->window = q->before;
	q->hold_until_ns = now + MAX(HOLD_NS, HOLD_EPOCHS * (now - q->epoch_ns));
	q->trend = QOS_STEADY;
}

static void grow(struct qos *q, uint64_t rate)
{
	q->before = q->window;
	q->grown_from = rate;
	window_set(q, q->window + q->window / 2);
	q->trend = QOS_GROWN;
}

static void judge_steady(struct qos *q, uint64_t took, uint64_t now)
{
	uint64_t target = q->nweighted ? TARGET_NS / WEIGHTED : TARGET_NS;

	q->trend = QOS_STEADY;
	if (took > target && now >= q->hold_until_ns) {
		/* Where it was not even full it begins with what was there. */
		q->before = q->window;
		window_set(q, MIN(q->window, q->epoch_peak) / 4 * 3);
		q->trend = q->window < q->before ? QOS_SHRUNK : QOS_STEADY;
	} else if (took < target / 2 && q->was_full) {
		window_set(q, q->window + q->window / 4);
	}
}

static void judge(struct qos *q, uint64_t now)
{
	uint64_t took = q->epoch_took_ns / q->epoch_n;
	uint64_t rate = q->epoch_cost * 1000 / ((now - q->epoch_ns) / 1000 + 1);

	if (now - q->judged_ns > GAP_NS) {
		q->best_rate = 0;
		q->trend = QOS_STEADY;
	}
	q->judged_ns = now;
	q->best_rate = MAX(q->best_rate - q->best_rate / BEST_DECAYS, rate);
	if (q->trend == QOS_SHRUNK && rate < q->best_rate - q->best_rate / 8) {
		q->window = q->before;
		grow(q, q->best_rate);
	} else if (q->trend == QOS_GROWN && rate > q->grown_from + q->grown_from / 8) {
		grow(q, rate);
	} else if (q->trend == QOS_GROWN) {
		hold(q, now);
	} else {
		judge_steady(q, took, now);
	}
}

void qos_contend(struct qos *q, uint64_t now)
{
	q->contended_until_ns = now + QOS_CONTENDED_NS;
	if (q->measuring)
		return;
	q->measuring = true;
	q->was_full = false;
	q->epoch_ns = now;
	q->epoch_cost = q->epoch_took_ns = q->epoch_n = q->epoch_peak = 0;
}

/* Somebody had to wait for the window. */
void qos_full(struct qos *q)
{
	q->full_times++;
	q->was_full = true;
}

void qos_measure(struct qos *q, uint64_t cost, uint64_t took_ns, uint64_t now)
{
	uint64_t length = now - q->epoch_ns;

	q->epoch_cost += cost;
	q->epoch_took_ns += took_ns;
	q->epoch_n++;
	q->epoch_peak = MAX(q->epoch_peak, q->flying + cost); /* it was there until now */
	if (length < EPOCH_NS || q->epoch_n < EPOCH_MIN ||
		length < EPOCH_TIMES * (q->epoch_took_ns / q->epoch_n))
		return;
	judge(q, now);
	q->measuring = false; /* the next request begins anew, if there are still several VMs */
}
