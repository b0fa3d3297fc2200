/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O polling (200): takes requests from the frontends and passes them on. What the volume cannot take yet waits with its VM;
 * VMs with waiting requests take turns, one request each.
 *
 * A request on its way:
 *	submit ─┬─▶ volume ─▶ completed()
 *	        ├─▶ waiting (the volume said -EAGAIN) ─▶ turn() ─▶ volume ─▶ completed()
 *	        └─▶ refused (not the VM's, or the volume said no) ─▶ refuse() from the loop
 */
#include "dpu/pipeline/pipeline_priv.h"

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

static void turn(void *arg);

static void finish(struct io_req *req)
{
	struct pipeline_slot *slot = req->arg;
	struct pipeline_vm *v = slot->vm;
	struct pipeline *p = v->p;
	struct pipeline_vm_stats *st = &v->stats;
	uint64_t took = shard_now_ns(p->cfg.shard) - req->start_ns;

	req->done_fn = slot->done_fn;
	req->arg = slot->arg;
	if ((unsigned int)req->status < IO_STATUS_COUNT)
		st->status[req->status]++;
	st->latency_ns[req->op] += took;
	if (took > st->latency_max_ns[req->op])
		st->latency_max_ns[req->op] = took;
	if (slot->vol)
		slot->vol->in_flight--;
	st->in_flight--;
	p->in_flight--;
	SLIST_INSERT_HEAD(&v->free_slots, slot, link);
	if (!TAILQ_EMPTY(&p->ready))
		shard_defer(p->cfg.shard, &p->turn_task, turn, p);
	req->done_fn(req);
}

static void completed(struct io_req *req)
{
	finish(req);
}

/* 0: it is the volume's; -EAGAIN: not now; else refused, with req->status set. */
static int pass_on(struct pipeline *p, struct pipeline_slot *slot, struct io_req *req)
{
	int rc;

	req->status = analyze(p, slot, req);
	if (req->status != IO_OK)
		return -EINVAL;
	rc = volume_submit(req->vol, req);
	if (rc == 0 && req->op == IO_WRITE) {
		slot->vm->stats.outcome[req->outcome]++;
		slot->vm->stats.outcome_bytes[req->outcome] += req->len_bytes;
	} else if (rc < 0 && rc != -EAGAIN) {
		req->status = status_of(rc);
	}
	return rc;
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

static void retry(void *arg)
{
	turn(arg);
}

/* Gives each waiting VM one request's turn until the volumes take no more. */
static void turn(void *arg)
{
	struct pipeline *p = arg;
	struct pipeline_vm *v;

	while ((v = TAILQ_FIRST(&p->ready))) {
		struct io_req *req = TAILQ_FIRST(&v->waiting);
		int rc;

		TAILQ_REMOVE(&p->ready, v, ready_link);
		TAILQ_REMOVE(&v->waiting, req, link);
		v->stats.waiting--;
		rc = pass_on(p, req->arg, req);
		if (rc == -EAGAIN) {
			TAILQ_INSERT_HEAD(&v->waiting, req, link);
			v->stats.waiting++;
			TAILQ_INSERT_HEAD(&p->ready, v, ready_link);
			break;
		}
		if (rc < 0)
			refuse_later(p, req);
		v->ready = !TAILQ_EMPTY(&v->waiting);
		if (v->ready)
			TAILQ_INSERT_TAIL(&p->ready, v, ready_link);
	}
	if (TAILQ_EMPTY(&p->ready))
		timer_disarm(p->cfg.shard, &p->retry_timer);
	else
		timer_arm(p->cfg.shard, &p->retry_timer, shard_now_ns(p->cfg.shard) + RETRY_NS,
			retry, p);
}

static int wait_in_line(struct pipeline *p, struct pipeline_vm *v, struct io_req *req)
{
	if (!v->ready && !p->retry_timer.heap_pos) {
		int rc = timer_arm(p->cfg.shard, &p->retry_timer,
			shard_now_ns(p->cfg.shard) + RETRY_NS, retry, p);
		if (rc < 0)
			return rc;
	}
	v->stats.waited++;
	v->stats.waiting++;
	TAILQ_INSERT_TAIL(&v->waiting, req, link);
	if (!v->ready) {
		v->ready = true;
		TAILQ_INSERT_TAIL(&p->ready, v, ready_link);
	}
	return 0;
}

static struct pipeline_slot *slot_take(
	struct pipeline *p, struct pipeline_vm *v, struct io_req *req)
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
	req->done_fn = completed;
	req->arg = slot;
	req->start_ns = shard_now_ns(p->cfg.shard);
	return slot;
}

int pipeline_submit(struct pipeline *p, struct io_req *req)
{
	struct pipeline_vm *v = vm_find(p, req->vm);
	struct pipeline_slot *slot;
	int rc;

	if (p->draining)
		return -ESHUTDOWN;
	if (!v)
		return -ENOENT;
	if ((unsigned int)req->op >= PIPELINE_OPS)
		return -EINVAL;
	slot = slot_take(p, v, req);
	if (!slot)
		return -EAGAIN;
	/* Behind those of its VM that wait already; they were here first. */
	rc = v->ready ? -EAGAIN : pass_on(p, slot, req);
	if (rc == -EAGAIN)
		rc = wait_in_line(p, v, req);
	else if (rc < 0) {
		refuse_later(p, req);
		rc = 0;
	}
	if (rc < 0) {
		req->done_fn = slot->done_fn;
		req->arg = slot->arg;
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
	return shard_wait(p->cfg.shard, nothing_in_flight, p, timeout_ns);
}

void pipeline_resume(struct pipeline *p)
{
	p->draining = false;
}
