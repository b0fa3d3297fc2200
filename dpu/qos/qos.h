/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Quality of service between poll (200) and analyze (201): what a VM may take, and who is next when several want.
 *
 * Caps: two token buckets per VM, bytes (configured in Mbit/s, 10^6 bits) and requests a second, both directions together. A request over a cap waits;
 * nothing is dropped. A flush, trim or write zeroes counts as a request and as QOS_REQUEST_COST bytes.
 *
 * Shares: VMs that wait take turns by deficit round robin, in proportion to their weights, by bytes plus QOS_REQUEST_COST per request (small ones are not
 * free). Turns only matter where somebody waits, so there is a window: bytes that may be inside the storage stack at a time. It counts only
 * while several VMs are active (and a second after), and it adapts:
 *
 *	one VM alone                       no window: nothing is held back
 *	several, the window is not full    straight through
 *	... it is full                     a VM within half its share (by weight) of the window passes; others wait for their turn
 *	every 10 ms                        requests took over 1 ms inside: it shrinks while that costs less than 1/8 of throughput; under 0.5 ms: it grows;
 *	                                   it also grows where the flash needs more at a time to be busy (window.c)
 *
 * (Where an active VM has a weight of its own it shrinks whatever they take: shares were asked for, at the price of smaller batches.) So a light VM
 * finds about 1 ms of others' work before its own, whatever depth they keep, or what the flash needs to be busy where that is more.
 *
 * Pure logic: time is given in, nothing is allocated after qos_open(), no locks. The caller keeps the queues; of a VM that waits this
 * module knows the size of its first request. Thread: the shard's. Ownership: struct qos_vm is embedded in its owner's.
 *
 *	qos_begin(q, v, now);                          a request has come
 *	if (nothing of v waits && qos_may_pass(q, v, bytes, now)) { submit; qos_pass(q, v, bytes, now); }
 *	else if (nothing of v waited) qos_wait(q, v, bytes);
 *	while ((v = qos_pick(q, now))) { submit its first; qos_pass(q, v, bytes, now); qos_wait(q, v, next) or qos_rest(q, v); }
 *	timer at qos_wake_ns(q); qos_end(q, v, bytes, true) when one has ended
 */
#ifndef DPU_QOS_QOS_H
#define DPU_QOS_QOS_H

#include "common/base/err.h"
#include "dpu/qos/bucket.h"

#include <sys/queue.h>

#define QOS_MBPS_STEP    100u
#define QOS_MBPS_MAX     1000000u
#define QOS_IOPS_MAX     100000000u
#define QOS_BURST_MS_DEF 100u
#define QOS_BURST_MS_MAX 10000u
#define QOS_WEIGHT_DEF   100u
#define QOS_WEIGHT_MAX   1000u

#define QOS_REQUEST_COST 4096u /* bytes a request counts for beside its own */

/* 0 anywhere: the default (caps: none). */
struct qos_cfg {
	uint32_t mbps; /* 10^6 bits a second, a multiple of 100 */
	uint32_t iops;
	uint32_t burst_ms; /* so much of the rate at once after a pause */
	uint32_t weight; /* 1 to 1000 */
};
/* -EINVAL with object, field (mbps, iops, burst_ms, weight after `prefix`) and what is allowed. */
int qos_cfg_check(const struct qos_cfg *cfg, const char *object, const char *prefix, struct err *e);

enum qos_place { QOS_RESTS, QOS_IN_RING, QOS_ASLEEP };

struct qos_vm {
	struct qos_cfg cfg; /* with defaults filled in */
	bool capped; /* one of the buckets counts */
	bool its_turn;
	enum qos_place place;
	uint32_t requests; /* here or in the stack */
	uint32_t heap_pos; /* asleep: from 1 */
	uint64_t flying; /* cost of those in the stack */
	uint64_t first_bytes; /* of its first waiting request */
	uint64_t deficit; /* what it may still send in its turn */
	struct qos_bucket bytes, ios;
	uint64_t wake_ns; /* asleep: until then */
	uint64_t slept_ns, slept_since_ns; /* time held back by a cap */
	TAILQ_ENTRY(qos_vm) link; /* in the ring */
};
TAILQ_HEAD(qos_ring, qos_vm);

struct qos {
	struct qos_ring ring; /* VMs that wait, in turn */
	uint32_t nring;
	struct qos_vm **heap; /* VMs without tokens; the one that wakes first at [1] */
	uint32_t nheap, heap_max;
	bool lifted;

	uint32_t nactive, nweighted; /* VMs with requests; of these with a weight of their own */
	uint64_t active_weight;
	uint64_t contended_until_ns;
	uint64_t flying, window;

	/* the window's adaption: window.c */
	bool measuring, was_full;
	enum qos_trend {
		QOS_STEADY,
		QOS_SHRUNK,
		QOS_GROWN
	} trend; /* what the last judgement did */
	uint64_t epoch_ns, epoch_cost, epoch_took_ns, epoch_n, epoch_peak;
	uint64_t usual_rate; /* cost a second */
	uint64_t before, compared; /* window and rate before the last step */
	uint32_t seen, grows, samples;
	uint64_t hold_until_ns, judged_ns;
	uint64_t full_times; /* how often somebody had to wait for the window */
};

/* For at most max_vms. -ENOMEM. */
int qos_open(struct qos *q, uint32_t max_vms);
void qos_close(struct qos *q); /* no VM waits */

void qos_vm_init(struct qos_vm *v);
/* At any time, also while it waits; checked before. Call qos_pick() after it. */
void qos_vm_set(struct qos *q, struct qos_vm *v, const struct qos_cfg *cfg, uint64_t now);
/* Caps do not count while lifted: what waits is to end now. Call qos_pick() after it. */
void qos_lift(struct qos *q, bool lifted, uint64_t now);

/* The cost in the window and in a turn of a request that counts for so many bytes. */
static inline uint64_t qos_cost(uint64_t bytes)
{
	return bytes + QOS_REQUEST_COST;
}

/* ---- a request's way ------------------------------------------------------------------------------------- */

#define QOS_SAMPLE 4u /* one of so many is measured */
#define QOS_CONTENDED_NS \
	1000000000ull /* the window counts so long after the last sight of two VMs */

void qos_active(
	struct qos *q, struct qos_vm *v, int sign); /* its first has come, its last has gone */
bool qos_may_pass_slow(struct qos *q, struct qos_vm *v, uint64_t bytes, uint64_t now);
void qos_contend(struct qos *q, uint64_t now);
void qos_full(struct qos *q);

void qos_take(struct qos_vm *v, uint64_t bytes, uint64_t now);

static inline void qos_begin(struct qos *q, struct qos_vm *v, uint64_t now)
{
	if (!v->requests++)
		qos_active(q, v, 1);
	if (q->nactive > 1)
		qos_contend(q, now);
}

/* Of a VM of which nothing waits. */
static inline bool qos_may_pass(struct qos *q, struct qos_vm *v, uint64_t bytes, uint64_t now)
{
	if (!v->capped && !q->nring && (q->flying < q->window || now >= q->contended_until_ns))
		return true;
	return qos_may_pass_slow(q, v, bytes, now);
}

static inline void qos_pass(struct qos *q, struct qos_vm *v, uint64_t bytes, uint64_t now)
{
	uint64_t cost = qos_cost(bytes);

	if (v->capped && !q->lifted)
		qos_take(v, bytes, now);
	if (v->place == QOS_IN_RING)
		v->deficit = v->deficit > cost ? v->deficit - cost : 0;
	v->flying += cost;
	q->flying += cost;
}

/* True for some of those that qos_pass() has taken: how long they take is to be told with qos_measure(), by a clock that is finer than the loop's
 * rounds (or what is done in one round took no time, however much it is). */
static inline bool qos_sampled(struct qos *q)
{
	return q->measuring && !(++q->samples % QOS_SAMPLE);
}
void qos_measure(struct qos *q, uint64_t bytes, uint64_t took_ns, uint64_t now);

/* It has ended; or never went into the stack (passed false). */
static inline void qos_end(struct qos *q, struct qos_vm *v, uint64_t bytes, bool passed)
{
	if (passed) {
		v->flying -= qos_cost(bytes);
		q->flying -= qos_cost(bytes);
		if (q->measuring)
			q->epoch_cost += qos_cost(bytes);
	}
	if (!--v->requests)
		qos_active(q, v, -1);
}

/* Its first waiting request counts for so many bytes: joins those that wait, or goes on waiting. */
void qos_wait(struct qos *q, struct qos_vm *v, uint64_t bytes);
/* Nothing of it waits any more. */
void qos_rest(struct qos *q, struct qos_vm *v, uint64_t now);
/* Whose first waiting request goes next; NULL: nobody's may now. */
struct qos_vm *qos_pick(struct qos *q, uint64_t now);
/* When somebody who has no tokens will have them; UINT64_MAX: nobody sleeps. */
static inline uint64_t qos_wake_ns(const struct qos *q)
{
	return q->nheap ? q->heap[1]->wake_ns : UINT64_MAX;
}
/* Time it was held back by a cap, all told. */
uint64_t qos_slept_ns(const struct qos_vm *v, uint64_t now);

#endif
