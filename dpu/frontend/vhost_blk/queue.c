/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Queues: started and stopped by the driver, polled while there is work.
 *
 *	STOPPED ─start─▶ RUNNING ─stop─▶ STOPPING ─nothing in flight─▶ STOPPED
 *
 * A running queue is hot (polled, the driver told not to kick) or sleeping (the driver kicks, the shard watches). A broken disk's queues
 * are neither: nothing is taken from them, what is in flight still ends.
 */
#include "dpu/frontend/vhost_blk/vhost_blk_priv.h"

#include "common/base/util.h"
#include "dpu/core/mem_guard.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define BURST 64u /* requests of one queue in one round */

/* ---- either kind of ring ------------------------------------------------------------------------------------------- */

static int ring_get(struct vb_queue *q, struct vb_chain *c)
{
	return q->packed ? vb_packed_get(&q->ring_packed, &q->disk->mem, c)
			 : vb_split_get(&q->split, &q->disk->mem, c);
}

static enum vb_fault ring_fault(const struct vb_queue *q)
{
	return q->packed ? q->ring_packed.fault : q->split.fault;
}

static void ring_notify(struct vb_queue *q, bool on)
{
	if (q->packed)
		vb_packed_notify(&q->ring_packed, on);
	else
		vb_split_notify(&q->split, on);
}

static bool ring_wants_call(const struct vb_queue *q)
{
	return q->packed ? vb_packed_wants_call(&q->ring_packed) : vb_split_wants_call(&q->split);
}

bool vb_queue_memory_is_gone(const struct vb_queue *q)
{
	return q->state != VB_QUEUE_STOPPED &&
	       mem_guard_is_broken(
		       q->packed ? (void *)q->ring_packed.inflight : (void *)q->split.inflight);
}

/* ---- hot and sleeping ------------------------------------------------------------------------------------------------ */

void vb_queue_hot(struct vb_queue *q)
{
	if (q->hot)
		return;
	q->hot = true;
	TAILQ_INSERT_TAIL(&q->disk->vm->vb->hot, q, hot_link);
}

static void cool(struct vb_queue *q)
{
	if (!q->hot)
		return;
	q->hot = false;
	TAILQ_REMOVE(&q->disk->vm->vb->hot, q, hot_link);
}

static void kicked(void *arg, uint32_t events)
{
	struct vb_queue *q = arg;
	uint64_t n;

	while (read(q->kick_fd, &n, sizeof(n)) < 0 && errno == EINTR)
		;
	if (events & (EPOLLERR | EPOLLHUP)) {
		/* No eventfd: it would wake us for ever. */
		fd_watch_del(q->disk->vm->vb->sh, &q->kick);
		return;
	}
	q->disk->kicks++;
	q->disk->vm->stats.kicks++;
	if (q->state != VB_QUEUE_RUNNING || q->disk->fault)
		return;
	if (q->sleeping)
		ring_notify(q, false);
	q->sleeping = false;
	q->last_work_ns = shard_now_ns(q->disk->vm->vb->sh);
	vb_queue_hot(q);
}

/* ---- faults -------------------------------------------------------------------------------------------------------------- */

void vb_queue_fault(struct vb_queue *q, enum vb_fault f)
{
	struct vb_disk *d = q->disk;
	uint64_t now = shard_now_ns(d->vm->vb->sh);

	if (mem_guard_hits() != d->vm->vb->guard_hits && vb_disk_memory_is_gone(d))
		f = VB_FAULT_MEMORY; /* zeros in the place of its memory are a broken ring too */
	q->fault = true;
	d->faults++;
	d->vm->stats.faults++;
	if (!d->fault && (!d->told_ns || now - d->told_ns >= VB_TELL_AGAIN_NS)) {
		d->told_ns = now;
		if (f == VB_FAULT_MEMORY)
			vb_event(d, VHOST_BLK_RING_BROKEN,
				"the VM's memory is gone: the file behind it was shortened, or has "
				"no room; the disk stops until its driver connects anew");
		else
			vb_event(d, VHOST_BLK_RING_BROKEN,
				"queue %u: its ring is broken (%s); the disk stops until the "
				"driver resets it",
				q->index, vb_fault_name(f));
	}
	if (!d->fault)
		d->fault = f;
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static void call(struct vb_queue *q)
{
	uint64_t one = 1;

	q->call_pending = false;
	if (q->call_fd < 0)
		return;
	if (!ring_wants_call(q)) {
		q->disk->vm->stats.interrupts_saved++;
		return;
	}
	q->disk->interrupts++;
	q->disk->vm->stats.interrupts++;
	while (write(q->call_fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static void stopped(struct vb_queue *q);

static void slot_free(struct vb_slot *s)
{
	struct vb_queue *q = s->q;

	q->busy[s->head] = 0;
	q->nbusy--;
	q->disk->in_flight--;
	TAILQ_INSERT_HEAD(&q->free, s, link);
}

void vb_queue_put(struct vb_slot *s, uint32_t written)
{
	struct vb_queue *q = s->q;

	if (q->packed)
		vb_packed_put(&q->ring_packed, s->head, s->ndesc, s->entry, written);
	else
		vb_split_put(&q->split, s->head, written);
	q->call_pending = true;
	slot_free(s);
	vb_queue_hot(q); /* which gives the interrupt, and ends a stop */
}

/* A buffer that has been taken becomes a request. */
static bool begin(struct vb_queue *q, struct vb_slot *s, const struct vb_chain *c)
{
	enum vb_fault f = q->busy[c->head] ? VB_FAULT_BUSY : VB_FAULT_NONE;

	if (!f) {
		s->head = c->head;
		s->ndesc = c->ndesc;
		s->entry = c->entry;
		TAILQ_REMOVE(&q->free, s, link);
		q->busy[c->head] = 1;
		q->nbusy++;
		q->disk->in_flight++;
		f = vb_request_begin(s, c);
		if (f)
			slot_free(s);
	}
	if (f)
		vb_queue_fault(q, f);
	return !f;
}

static unsigned int take(struct vb_queue *q)
{
	struct vb_chain c;
	struct vb_slot *s;
	unsigned int n = 0;

	while (n < BURST && TAILQ_EMPTY(&q->waiting) && (s = TAILQ_FIRST(&q->free))) {
		int rc;

		c.iov = s->iov;
		rc = ring_get(q, &c);
		if (rc < 0)
			vb_queue_fault(q, ring_fault(q));
		if (rc > 0 && !q->packed)
			vb_split_ahead(&q->split, &q->disk->mem);
		if (rc <= 0 || !begin(q, s, &c))
			break;
		n++;
	}
	return n;
}

static void retry_waiting(struct vb_queue *q)
{
	struct vb_slot *s;

	while ((s = TAILQ_FIRST(&q->waiting))) {
		TAILQ_REMOVE(&q->waiting, s, link);
		if (!vb_request_submit(s)) {
			TAILQ_INSERT_HEAD(&q->waiting, s, link);
			return;
		}
	}
}

/* ---- polling ---------------------------------------------------------------------------------------------------------------- */

static bool is_served(const struct vb_queue *q)
{
	return q->state == VB_QUEUE_RUNNING && !q->disk->fault;
}

/* Asks for kicks; what came in meanwhile is taken now. */
static unsigned int fall_asleep(struct vb_queue *q)
{
	unsigned int n;

	ring_notify(q, true);
	n = take(q);
	if (n)
		ring_notify(q, false);
	else
		q->sleeping = true;
	return n;
}

/* Returns 1 while it must be polled again soon. */
static int queue_poll(struct vb_queue *q, uint64_t now_ns)
{
	struct vhost_blk *vb = q->disk->vm->vb;
	unsigned int n = 0;
	bool served;

	if (!TAILQ_EMPTY(&q->waiting))
		retry_waiting(q);
	if (is_served(q) && !q->sleeping) {
		n = take(q);
		if (n || !TAILQ_EMPTY(&q->waiting))
			q->last_work_ns = now_ns;
		else if (q->kick_fd >= 0 && now_ns - q->last_work_ns >= vb->cfg.poll_ns &&
			 is_served(q))
			n = fall_asleep(q);
		q->disk->vm->stats.rounds += n != 0;
	}
	if (q->call_pending)
		call(q);
	served = is_served(q) && !q->sleeping;
	if (q->state == VB_QUEUE_STOPPING && !q->nbusy) {
		stopped(q);
		return 1;
	}
	if (!served && TAILQ_EMPTY(&q->waiting))
		cool(q);
	/* With nothing but requests the backend does not take: it wakes the shard. */
	return n || (served && TAILQ_EMPTY(&q->waiting));
}

int vb_poll(void *arg)
{
	struct vhost_blk *vb = arg;
	uint64_t now = shard_now_ns(vb->sh);
	struct vb_queue *q, *next;
	int did = 0;

	if (mem_guard_hits() != vb->guard_hits)
		vb_look_at_memory(vb);
	for (q = TAILQ_FIRST(&vb->hot); q; q = next) {
		next = TAILQ_NEXT(q, hot_link);
		did += queue_poll(q, now);
	}
	return did;
}

/* ---- start and stop ------------------------------------------------------------------------------------------------------------ */

static int slots_open(struct vb_queue *q)
{
	q->slots = calloc(q->size, sizeof(q->slots[0]));
	q->busy = calloc(q->size, sizeof(q->busy[0]));
	if (!q->slots || !q->busy)
		return -ENOMEM;
	TAILQ_INIT(&q->free);
	TAILQ_INIT(&q->waiting);
	for (uint16_t i = 0; i < q->size; i++) {
		q->slots[i].q = q;
		TAILQ_INSERT_TAIL(&q->free, &q->slots[i], link);
	}
	return 0;
}

static void close_all(struct vb_queue *q)
{
	fd_watch_del(q->disk->vm->vb->sh, &q->kick);
	if (q->kick_fd >= 0)
		close(q->kick_fd);
	if (q->call_fd >= 0)
		close(q->call_fd);
	q->kick_fd = q->call_fd = -1;
	free(q->slots);
	free(q->busy);
	q->slots = NULL;
	q->busy = NULL;
}

/* What a former process had in flight, in the order it took it. */
static void resume(struct vb_queue *q)
{
	uint16_t list[VB_QUEUE_SIZE_MAX];
	int n = q->packed ? vb_packed_recover(&q->ring_packed, list)
			  : vb_split_recover(&q->split, list);

	for (int i = 0; i < n; i++) {
		struct vb_slot *s = TAILQ_FIRST(&q->free);
		struct vb_chain c = {.iov = s->iov};
		int rc = q->packed ? vb_packed_entry(&q->ring_packed, &q->disk->mem, list[i], &c)
				   : vb_split_chain(&q->split, &q->disk->mem, list[i], &c);

		if (rc < 0) {
			n = rc;
			break;
		}
		if (!begin(q, s, &c))
			return;
		q->disk->resumed++;
		q->disk->vm->stats.resumed++;
	}
	if (n < 0)
		vb_queue_fault(q, ring_fault(q));
	else if (n)
		vb_event(q->disk, VHOST_BLK_RESUMED, "queue %u: %d requests", q->index, n);
}

static void ring_start(struct vb_queue *q, const struct vb_ring_setup *s)
{
	if (s->packed)
		vb_packed_start(&q->ring_packed, s->size, s->desc, s->avail, s->used, s->base,
			s->inflight, s->inflight_fresh);
	else
		vb_split_start(
			&q->split, s->size, s->desc, s->avail, s->used, s->base, s->inflight);
}

static int watch_kick(struct vb_queue *q)
{
	/* Neither may a full counter stop the shard, nor a stranger who reads along. */
	if (q->call_fd >= 0)
		fcntl(q->call_fd, F_SETFL, fcntl(q->call_fd, F_GETFL) | O_NONBLOCK);
	if (q->kick_fd < 0)
		return 0; /* polled for ever */
	fcntl(q->kick_fd, F_SETFL, fcntl(q->kick_fd, F_GETFL) | O_NONBLOCK);
	return fd_watch_add(q->disk->vm->vb->sh, &q->kick, q->kick_fd, EPOLLIN, kicked, q);
}

int vb_queue_start(struct vb_disk *d, uint32_t queue, const struct vb_ring_setup *s)
{
	struct vb_queue *q = queue < d->vm->vb->cfg.queues ? &d->queues[queue] : NULL;
	int rc = -EINVAL;

	if (!q || q->state != VB_QUEUE_STOPPED || d->closing || !s->size ||
		s->size > VB_QUEUE_SIZE_MAX || (!s->packed && (s->size & (s->size - 1)))) {
		if (s->kick_fd >= 0)
			close(s->kick_fd);
		if (s->call_fd >= 0)
			close(s->call_fd);
		return d->closing ? -ESHUTDOWN : -EINVAL;
	}
	q->size = s->size;
	q->packed = s->packed;
	q->base = s->base;
	q->kick_fd = s->kick_fd;
	q->call_fd = s->call_fd;
	q->sleeping = q->call_pending = false;
	rc = slots_open(q);
	if (rc == 0)
		rc = watch_kick(q);
	if (rc < 0) {
		close_all(q);
		return rc;
	}
	ring_start(q, s);
	q->state = VB_QUEUE_RUNNING;
	q->last_work_ns = shard_now_ns(d->vm->vb->sh);
	ring_notify(q, false);
	vb_queue_hot(q);
	/* What a broken disk had in flight stays noted for the next start. */
	if (!d->fault)
		resume(q);
	/* The driver may wait for an interrupt that its former backend owed it. */
	q->call_pending = true;
	return 0;
}

static void stopped(struct vb_queue *q)
{
	struct vb_stop_waiter waiters[ARRAY_LEN(q->waiters)];
	unsigned int n = q->nwaiters;

	q->base = q->packed ? vb_packed_base(&q->ring_packed) : q->split.last_avail;
	q->state = VB_QUEUE_STOPPED;
	cool(q);
	close_all(q);
	for (unsigned int i = 0; i < n; i++)
		waiters[i] = q->waiters[i];
	q->nwaiters = 0;
	for (unsigned int i = 0; i < n; i++)
		waiters[i].stopped_fn(waiters[i].arg, q->base);
}

static void forget_fault(struct vb_queue *q)
{
	struct vb_disk *d = q->disk;

	q->fault = false;
	for (uint32_t i = 0; i < d->vm->vb->cfg.queues; i++)
		if (d->queues[i].fault)
			return;
	d->fault = d->memory_gone ? VB_FAULT_MEMORY : VB_FAULT_NONE;
}

void vb_queue_stop(struct vb_disk *d, uint32_t queue, bool reset,
	void (*stopped_fn)(void *arg, uint16_t base), void *arg)
{
	struct vb_queue *q = queue < d->vm->vb->cfg.queues ? &d->queues[queue] : NULL;

	if (q && q->state != VB_QUEUE_STOPPED) {
		/* The driver's side waits for one stop at a time, and control for another. */
		assert(q->nwaiters < ARRAY_LEN(q->waiters));
		q->waiters[q->nwaiters++] = (struct vb_stop_waiter){stopped_fn, arg};
		q->state = VB_QUEUE_STOPPING;
		if (!q->nbusy)
			stopped(q);
		else
			vb_queue_hot(q);
	} else {
		stopped_fn(arg, q ? q->base : 0);
	}
	if (q && reset)
		forget_fault(q);
}
