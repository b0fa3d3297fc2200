/* SPDX-License-Identifier: BSD-3-Clause */
/* Turns and sleepers. A VM that waits is in the ring, or asleep in the heap until it has tokens again. */
#include "dpu/qos/qos.h"

#include "common/base/util.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#define NS_PER_MS   1000000ull
#define QUANTUM     8192u /* of weight 100, in a turn: a request of 4 KiB */
#define BYTE_BIT_NS 8000u /* of one byte at 1 Mbit/s */

int qos_open(struct qos *q, uint32_t max_vms)
{
	*q = (struct qos){.heap_max = max_vms, .window = 8u << 20};
	TAILQ_INIT(&q->ring);
	q->heap = calloc(max_vms + 1, sizeof(q->heap[0]));
	return q->heap ? 0 : -ENOMEM;
}

void qos_close(struct qos *q)
{
	assert(!q->heap || (!q->nring && !q->nheap));
	free(q->heap);
	q->heap = NULL;
}

/* ---- the heap of sleepers ---------------------------------------------------------------------------------- */

static void heap_put(struct qos *q, uint32_t at, struct qos_vm *v)
{
	q->heap[at] = v;
	v->heap_pos = at;
}

static void heap_up(struct qos *q, uint32_t at, struct qos_vm *v)
{
	for (; at > 1 && q->heap[at / 2]->wake_ns > v->wake_ns; at /= 2)
		heap_put(q, at, q->heap[at / 2]);
	heap_put(q, at, v);
}

static void heap_down(struct qos *q, uint32_t at, struct qos_vm *v)
{
	uint32_t child;

	while ((child = 2 * at) <= q->nheap) {
		if (child < q->nheap && q->heap[child + 1]->wake_ns < q->heap[child]->wake_ns)
			child++;
		if (q->heap[child]->wake_ns >= v->wake_ns)
			break;
		heap_put(q, at, q->heap[child]);
		at = child;
	}
	heap_put(q, at, v);
}

static void heap_del(struct qos *q, struct qos_vm *v)
{
	uint32_t at = v->heap_pos;
	struct qos_vm *last = q->heap[q->nheap--];

	v->heap_pos = 0;
	if (last == v)
		return;
	if (at > 1 && q->heap[at / 2]->wake_ns > last->wake_ns)
		heap_up(q, at, last);
	else
		heap_down(q, at, last);
}

/* ---- where a VM is ------------------------------------------------------------------------------------------- */

static void ring_add(struct qos *q, struct qos_vm *v)
{
	v->place = QOS_IN_RING;
	v->its_turn = false;
	v->deficit = 0;
	TAILQ_INSERT_TAIL(&q->ring, v, link);
	q->nring++;
}

static void ring_del(struct qos *q, struct qos_vm *v)
{
	TAILQ_REMOVE(&q->ring, v, link);
	q->nring--;
	v->place = QOS_RESTS;
}

static void fall_asleep(struct qos *q, struct qos_vm *v, uint64_t until_ns, uint64_t now)
{
	ring_del(q, v);
	v->place = QOS_ASLEEP;
	v->wake_ns = until_ns;
	v->slept_since_ns = now;
	assert(q->nheap < q->heap_max);
	heap_up(q, ++q->nheap, v);
}

static void wake(struct qos *q, struct qos_vm *v, uint64_t now)
{
	heap_del(q, v);
	v->slept_ns += now - v->slept_since_ns;
	ring_add(q, v);
}

uint64_t qos_slept_ns(const struct qos_vm *v, uint64_t now)
{
	return v->slept_ns + (v->place == QOS_ASLEEP ? now - v->slept_since_ns : 0);
}

void qos_wait(struct qos *q, struct qos_vm *v, uint64_t bytes)
{
	v->first_bytes = bytes;
	if (v->place == QOS_RESTS)
		ring_add(q, v);
}

void qos_rest(struct qos *q, struct qos_vm *v, uint64_t now)
{
	if (v->place == QOS_ASLEEP)
		wake(q, v, now);
	if (v->place == QOS_IN_RING)
		ring_del(q, v);
}

/* ---- settings ------------------------------------------------------------------------------------------------- */

void qos_vm_init(struct qos_vm *v)
{
	*v = (struct qos_vm){.cfg = {.burst_ms = QOS_BURST_MS_DEF, .weight = QOS_WEIGHT_DEF},
		.place = QOS_RESTS};
}

static int is_weighted(const struct qos_vm *v)
{
	return v->cfg.weight != QOS_WEIGHT_DEF;
}

void qos_active(struct qos *q, struct qos_vm *v, int sign)
{
	q->nactive += (uint32_t)sign;
	q->nweighted += (uint32_t)(sign * is_weighted(v));
	q->active_weight += (uint64_t)(sign * (int)v->cfg.weight);
}

void qos_vm_set(struct qos *q, struct qos_vm *v, const struct qos_cfg *cfg, uint64_t now)
{
	struct qos_cfg c = *cfg;

	if (!c.burst_ms)
		c.burst_ms = QOS_BURST_MS_DEF;
	if (!c.weight)
		c.weight = QOS_WEIGHT_DEF;
	if (v->requests)
		qos_active(q, v, -1);
	qos_bucket_set(&v->bytes, c.mbps, BYTE_BIT_NS, c.burst_ms * NS_PER_MS, now);
	qos_bucket_set(&v->ios, c.iops, 1000 * NS_PER_MS, c.burst_ms * NS_PER_MS, now);
	v->cfg = c;
	v->capped = c.mbps || c.iops;
	if (v->requests)
		qos_active(q, v, 1);
	if (v->place == QOS_ASLEEP) /* its turn shows what holds now */
		wake(q, v, now);
}

void qos_lift(struct qos *q, bool lifted, uint64_t now)
{
	q->lifted = lifted;
	while (lifted && q->nheap)
		wake(q, q->heap[1], now);
}

/* ---- caps -------------------------------------------------------------------------------------------------------- */

/* When its tokens suffice. */
static uint64_t tokens_at(const struct qos_vm *v, uint64_t bytes)
{
	uint64_t a = v->bytes.rate ? qos_bucket_when(&v->bytes, bytes) : 0;
	uint64_t b = v->ios.rate ? qos_bucket_when(&v->ios, 1) : 0;

	return MAX(a, b);
}

void qos_take(struct qos_vm *v, uint64_t bytes, uint64_t now)
{
	if (v->bytes.rate)
		qos_bucket_take(&v->bytes, bytes, now);
	if (v->ios.rate)
		qos_bucket_take(&v->ios, 1, now);
}

bool qos_may_pass_slow(struct qos *q, struct qos_vm *v, uint64_t bytes, uint64_t now)
{
	if (v->capped && !q->lifted && tokens_at(v, bytes) > now)
		return false;
	if (!q->nring && (q->flying < q->window || now >= q->contended_until_ns))
		return true;
	if (v->flying + qos_cost(bytes) <= q->window * v->cfg.weight / (2 * q->active_weight))
		return true;
	qos_full(q);
	return false;
}

/* ---- turns -------------------------------------------------------------------------------------------------------- */

static uint64_t quantum(const struct qos_vm *v)
{
	return (uint64_t)QUANTUM * v->cfg.weight / QOS_WEIGHT_DEF;
}

/* A whole round went by and nobody's deficit was enough: as many rounds more as nobody's will be, at once. */
static void skip_rounds(struct qos *q)
{
	uint64_t rounds = UINT64_MAX;
	struct qos_vm *v;

	TAILQ_FOREACH (v, &q->ring, link)
		rounds = MIN(rounds, (qos_cost(v->first_bytes) - v->deficit) / quantum(v));
	TAILQ_FOREACH (v, &q->ring, link)
		v->deficit += rounds * quantum(v);
}

static bool window_open(struct qos *q, uint64_t now)
{
	if (q->flying < q->window || now >= q->contended_until_ns)
		return true;
	qos_full(q);
	return false;
}

struct qos_vm *qos_pick(struct qos *q, uint64_t now)
{
	struct qos_vm *v;
	uint32_t passed_over = 0;

	while (q->nheap && q->heap[1]->wake_ns <= now)
		wake(q, q->heap[1], now);
	if (!q->nring || !window_open(q, now))
		return NULL;
	while ((v = TAILQ_FIRST(&q->ring))) {
		uint64_t at = v->capped && !q->lifted ? tokens_at(v, v->first_bytes) : 0;

		if (at > now) {
			fall_asleep(q, v, at, now);
			continue;
		}
		if (!v->its_turn)
			v->deficit += quantum(v);
		v->its_turn = true;
		if (v->deficit >= qos_cost(v->first_bytes))
			return v;
		v->its_turn = false;
		TAILQ_REMOVE(&q->ring, v, link);
		TAILQ_INSERT_TAIL(&q->ring, v, link);
		if (++passed_over >= q->nring) {
			skip_rounds(q);
			passed_over = 0;
		}
	}
	return NULL;
}
