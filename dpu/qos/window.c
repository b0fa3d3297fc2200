/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How much may be in the stack while several VMs compete. It is measured while they do, and judged every 10 ms, or after four times what a request
 * takes, so that what is seen is what the last step did. Machines are noisy: what speaks for a larger window has to be seen twice.
 *
 *	STEADY ── took > target ──▶ SHRUNK (3/4) ── throughput stays ──▶ STEADY, or again
 *	   │                           └─ 1/8 below what it was, twice: as before, and ─▶ GROWN (3/2) ── 1/16 more, twice ──▶ once more
 *	   │ took < target / 2 and the window was full: 5/4                                  └─ it is not: as before, and so for a while
 *
 * So a flash that works one by one gets a window of the target's size, and one that needs many at a time to be busy gets as much as that is.
 */
#include "dpu/qos/qos.h"

#include "common/base/util.h"

#define EPOCH_NS    10000000ull
#define EPOCH_TIMES 4u /* of what a request takes */
#define EPOCH_MIN   8u /* samples that make a judgement */
#define TARGET_NS   1000000ull /* where shares were asked for: as little as throughput allows */
#define HOLD_NS     500000000ull
#define HOLD_EPOCHS 32u
#define GROWS_MAX   2u /* in a row */
#define SURE        2u /* judgements in a row */
#define WINDOW_MIN  (64ull << 10)
#define WINDOW_MAX  (256ull << 20)
#define USUAL_PART  4u /* of the usual rate: what the newest counts */
#define GAP_NS      500000000ull /* since the last judgement: what was then says nothing */

static void window_set(struct qos *q, uint64_t bytes)
{
	q->window = MIN(MAX(bytes, WINDOW_MIN), WINDOW_MAX);
}

static void trend_set(struct qos *q, enum qos_trend trend)
{
	q->trend = trend;
	q->seen = 0;
}

static void hold(struct qos *q, uint64_t window, uint64_t now)
{
	q->window = window;
	q->hold_until_ns = now + MAX(HOLD_NS, HOLD_EPOCHS * (now - q->epoch_ns));
	trend_set(q, QOS_STEADY);
}

static void grow(struct qos *q, uint64_t rate)
{
	q->before = q->window;
	q->compared = rate;
	window_set(q, q->window + q->window / 2);
	trend_set(q, QOS_GROWN);
}

static void judge_steady(struct qos *q, uint64_t took, uint64_t now)
{
	uint64_t target = q->nweighted ? 0 : TARGET_NS;

	trend_set(q, QOS_STEADY);
	if (took > target && now >= q->hold_until_ns) {
		/* Where it was not even full it begins with what was there. */
		q->before = q->window;
		q->compared = q->usual_rate;
		window_set(q, MIN(q->window, q->epoch_peak) / 4 * 3);
		if (q->window < q->before)
			trend_set(q, QOS_SHRUNK);
	} else if (took < target / 2 && q->was_full) {
		window_set(q, q->window + q->window / 4);
	}
}

static void judge_shrunk(struct qos *q, uint64_t rate, uint64_t took, uint64_t now)
{
	if (rate >= q->compared - q->compared / 8)
		judge_steady(q, took, now);
	else if (++q->seen == SURE) {
		q->window = q->before;
		q->grows = 0;
		grow(q, q->compared);
	}
}

static void judge_grown(struct qos *q, uint64_t rate, uint64_t now)
{
	if (rate <= q->compared + q->compared / 16)
		hold(q, q->before, now);
	else if (++q->seen == SURE && ++q->grows < GROWS_MAX)
		grow(q, rate);
	else if (q->seen == SURE)
		hold(q, q->window, now);
}

static void judge(struct qos *q, uint64_t now)
{
	uint64_t took = q->epoch_took_ns / q->epoch_n;
	uint64_t rate = q->epoch_cost * 1000 / ((now - q->epoch_ns) / 1000 + 1);

	if (now - q->judged_ns > GAP_NS) {
		q->usual_rate = rate;
		trend_set(q, QOS_STEADY);
	}
	q->judged_ns = now;
	if (q->trend == QOS_SHRUNK)
		judge_shrunk(q, rate, took, now);
	else if (q->trend == QOS_GROWN)
		judge_grown(q, rate, now);
	else
		judge_steady(q, took, now);
	q->usual_rate = q->usual_rate - q->usual_rate / USUAL_PART + rate / USUAL_PART;
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

void qos_measure(struct qos *q, uint64_t bytes, uint64_t took_ns, uint64_t now)
{
	uint64_t length = now - q->epoch_ns;

	if (!q->measuring)
		return;
	q->epoch_took_ns += took_ns;
	q->epoch_n++;
	q->epoch_peak = MAX(
		q->epoch_peak, q->flying + qos_cost(bytes)); /* it was there until now */
	if (length < EPOCH_NS || q->epoch_n < EPOCH_MIN ||
		length < EPOCH_TIMES * (q->epoch_took_ns / q->epoch_n))
		return;
	judge(q, now);
	q->measuring = false; /* the next request begins anew, if there are still several VMs */
}
