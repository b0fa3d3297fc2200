/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O polling (200): takes requests from the frontends and passes them on. What may not go yet waits with its VM; qos says whose is next.
 *
 * A request on its way:
 *	submit ─┬─▶ volume ─▶ completed()
 *	        ├─▶ waiting (over a cap, not its turn, or the volume said -EAGAIN) ─▶ poll_turn() ─▶ volume ─▶ completed()
 *	        └─▶ refused (not the VM's, or the volume said no) ─▶ refuse() from the loop
 */
#include "dpu/pipeline/pipeline_priv.h"

#include "common/base/util.h"

#include <errno.h>

#define RETRY_NS 1000000ull /* when nothing that is in flight would wake the queue */

static enum io_status status_of(int rc)
{
	switch (rc) {
	case -EINVAL:
		return IO_ERR_INVALID;
	case -ERANGE:
		return IO_ERR_RANGE;
	case -ENOSPC:
		return IO_ERR_NO_SPACE;
	case -EROFS:
	case -ESHUTDOWN:
		return IO_ERR_RETRY;
	default:
		return IO_ERR_INTERNAL;
	}
}

/* What it counts for: those that move no data do something as well. */
static uint64_t counted_bytes(const struct io_req *req)
{
	return req->op <= IO_WRITE ? req->len_bytes : QOS_REQUEST_COST;
}

static void finish(struct io_req *req)
{
	struct pipeline_slot *slot = req->arg;
	struct pipeline_vm *v = slot->vm;
	struct pipeline *p = v->p;
	struct pipeline_vm_stats *st = &v->stats;
	uint64_t now = shard_now_ns(p->cfg.shard);

	req->done_fn = slot->done_fn;
	req->arg = slot->arg;
	if ((unsigned int)req->status < IO_STATUS_COUNT)
		st->status[req->status]++;
	hist_add(&v->took[req->op], now - req->start_ns);
	if (slot->vol)
		slot->vol->in_flight--;
	st->in_flight--;
	p->in_flight--;
	qos_end(&p->qos, &v->qos, slot->bytes, slot->passed);
	if (slot->sampled_ns)
		qos_measure(
			&p->qos, slot->bytes, shard_clock_ns(p->cfg.shard) - slot->sampled_ns, now);
	SLIST_INSERT_HEAD(&v->free_slots, slot, link);
	if (p->qos.nring)
		shard_defer(p->cfg.shard, &p->turn_task, poll_turn, p);
	req->done_fn(req);
}

static void completed(struct io_req *req)
{
	finish(req);
}

/* 0: it is the volume's; -EAGAIN: not now; else refused, with req->status set. */
static int pass_on(struct pipeline *p, struct pipeline_slot *slot, struct io_req *req, uint64_t now)
{
	int rc;

	req->status = analyze(p, slot, req);
	if (req->status != IO_OK)
		return -EINVAL;
	slot->sampled_ns = req->op <= IO_WRITE && qos_sampled(&p->qos)
				   ? shard_clock_ns(p->cfg.shard)
				   : 0;
	rc = volume_submit(req->vol, req);
	if (rc < 0) {
		if (rc != -EAGAIN)
			req->status = status_of(rc);
		return rc;
	}
	slot->passed = true;
	qos_pass(&p->qos, &slot->vm->qos, slot->bytes, now);
	if (req->op == IO_WRITE) {
		slot->vm->stats.outcome[req->outcome]++;
		slot->vm->stats.outcome_bytes[req->outcome] += req->len_bytes;
	}
	return 0;
}

static void refuse(void *arg)
{
	struct pipeline *p = arg;
	struct io_req *req;
	TAILQ_HEAD(, io_req) list;

	/* Only what is here now: done_fn may submit and be refused again. */
	TAILQ_INIT(&list);
	TAILQ_CONCAT(&list, &p->refused, link);
	while ((req = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, req, link);
		finish(req);
	}
}

static void refuse_later(struct pipeline *p, struct io_req *req)
{
	TAILQ_INSERT_TAIL(&p->refused, req, link);
	shard_defer(p->cfg.shard, &p->refuse_task, refuse, p);
}

/* blocked: the volume takes no more; a completion will not say so where it is not for want of what requests hold. */
static int wake_arm(struct pipeline *p, bool blocked, uint64_t now)
{
	uint64_t at = MIN(qos_wake_ns(&p->qos), blocked ? now + RETRY_NS : UINT64_MAX);

	if (at != UINT64_MAX)
		return timer_arm(p->cfg.shard, &p->wake_timer, at, poll_turn, p);
	timer_disarm(p->cfg.shard, &p->wake_timer);
	return 0;
}

/* The first that waits has gone. */
static void next_of(struct pipeline *p, struct pipeline_vm *v, uint64_t now)
{
	struct io_req *next = TAILQ_FIRST(&v->waiting);

	if (next)
		qos_wait(&p->qos, &v->qos, ((struct pipeline_slot *)next->arg)->bytes);
	else
		qos_rest(&p->qos, &v->qos, now);
}

/* Passes on what may go, until the volumes take no more. */
void poll_turn(void *arg)
{
	struct pipeline *p = arg;
	uint64_t now = shard_now_ns(p->cfg.shard);
	bool blocked = false;
	struct qos_vm *turn;

	while (!blocked && (turn = qos_pick(&p->qos, now))) {
		struct pipeline_vm *v = container_of(turn, struct pipeline_vm, qos);
		struct io_req *req = TAILQ_FIRST(&v->waiting);
		int rc;

		TAILQ_REMOVE(&v->waiting, req, link);
		rc = pass_on(p, req->arg, req, now);
		if (rc == -EAGAIN) {
			TAILQ_INSERT_HEAD(&v->waiting, req, link);
			blocked = true;
			continue;
		}
		hist_add(&p->waited, now - req->start_ns);
		v->stats.waiting--;
		if (rc < 0)
			refuse_later(p, req);
		next_of(p, v, now);
	}
	wake_arm(p, blocked, now);
}

/* Where no timer is to be had nothing might wake it: refused as a whole. */
static int wait_in_line(struct pipeline *p, struct pipeline_vm *v, struct io_req *req, uint64_t now)
{
	struct pipeline_slot *slot = req->arg;
	bool first = TAILQ_EMPTY(&v->waiting);

	if (!p->wake_timer.heap_pos) {
		/* The turn at the end of this round says what it really waits for. */
		int rc = timer_arm(p->cfg.shard, &p->wake_timer, now + RETRY_NS, poll_turn, p);

		if (rc < 0)
			return rc;
	}
	v->stats.waited++;
	v->stats.waiting++;
	TAILQ_INSERT_TAIL(&v->waiting, req, link);
	if (first) {
		qos_wait(&p->qos, &v->qos, slot->bytes);
		shard_defer(p->cfg.shard, &p->turn_task, poll_turn, p);
	}
	return 0;
}

static struct pipeline_slot *slot_take(
	struct pipeline *p, struct pipeline_vm *v, struct io_req *req, uint64_t now)
{
	struct pipeline_slot *slot = SLIST_FIRST(&v->free_slots);

	if (!slot) {
		v->stats.refused++;
		return NULL;
	}
	SLIST_REMOVE_HEAD(&v->free_slots, link);
	slot->vol = req->vol ? vol_of(v, volume_id(req->vol)) : NULL;
	slot->done_fn = req->done_fn;
	slot->arg = req->arg;
	slot->bytes = counted_bytes(req);
	slot->passed = false;
	slot->sampled_ns = 0;
	req->done_fn = completed;
	req->arg = slot;
	req->start_ns = now;
	qos_begin(&p->qos, &v->qos, now);
	return slot;
}

int pipeline_submit(struct pipeline *p, struct io_req *req)
{
	struct pipeline_vm *v = vm_find(p, req->vm);
	uint64_t now = shard_now_ns(p->cfg.shard);
	struct pipeline_slot *slot;
	int rc = -EAGAIN;

	if (p->draining)
		return -ESHUTDOWN;
	if (!v)
		return -ENOENT;
	if ((unsigned int)req->op >= PIPELINE_OPS)
		return -EINVAL;
	slot = slot_take(p, v, req, now);
	if (!slot)
		return -EAGAIN;
	/* Behind those of its VM that wait already; they were here first. */
	if (TAILQ_EMPTY(&v->waiting) && qos_may_pass(&p->qos, &v->qos, slot->bytes, now))
		rc = pass_on(p, slot, req, now);
	if (rc == -EAGAIN)
		rc = wait_in_line(p, v, req, now);
	else if (rc < 0) {
		refuse_later(p, req);
		rc = 0;
	}
	if (rc < 0) {
		req->done_fn = slot->done_fn;
		req->arg = slot->arg;
		qos_end(&p->qos, &v->qos, slot->bytes, false);
		SLIST_INSERT_HEAD(&v->free_slots, slot, link);
		return rc;
	}
	v->stats.requests[req->op]++;
	v->stats.bytes[req->op] += req->len_bytes;
	v->stats.in_flight++;
	if (slot->vol)
		slot->vol->in_flight++;
	p->in_flight++;
	return 0;
}

static bool nothing_in_flight(void *arg)
{
	return ((struct pipeline *)arg)->in_flight == 0;
}

int pipeline_drain(struct pipeline *p, uint64_t timeout_ns)
{
	p->draining = true;
	qos_lift(&p->qos, true, shard_now_ns(p->cfg.shard));
	shard_defer(p->cfg.shard, &p->turn_task, poll_turn, p);
	return shard_wait(p->cfg.shard, nothing_in_flight, p, timeout_ns);
}

void pipeline_resume(struct pipeline *p)
{
	p->draining = false;
	qos_lift(&p->qos, false, shard_now_ns(p->cfg.shard));
}
