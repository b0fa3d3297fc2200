/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rebuild: a device has failed or is away; every stripe with a fragment on it is written again onto what is left, a spare first if there is one.
 *
 *	0 walk the maps: blocks whose stripe uses the device     1 groups that still have it are closed, records and metadata come elsewhere by checkpoints
 *
 * Devices of one node that are down together are walked for together: the first of their tasks writes anew what lies on any of them, the others wait
 * for it and look for what is left.
 *
 * What lies in data areas on the device is restore's.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/mover/mover_priv.h"

#define CHECKPOINTS_MAX 4u
#define AGAIN_NS        (1 * MOVER_S)

struct rebuild {
	struct walk walk;
	uint64_t devs; /* the device, and those of its node that are down, too */
	unsigned int checkpoints;
	bool checkpointing;
	int status;
};

static bool is_back(const struct mtask *t)
{
	return pool_dev_usable(t->m->pool, (unsigned int)t->dev);
}

static bool wants(void *arg, const struct volume *v, uint64_t block, const struct map_entry *e)
{
	const struct mtask *t = arg;
	const struct rebuild *r = t->priv;

	if (!map_in_log(e->state))
		return false;
	for (uint64_t devs = r->devs; devs; devs &= devs - 1)
		if (stripelog_uses_dev(t->m->log, e->ref, (unsigned int)__builtin_ctzll(devs)))
			return true;
	return false;
}

static bool same_node(const struct mover *m, int a, int b)
{
	return strcmp(pool_dev(m->pool, (unsigned int)a)->domain,
		       pool_dev(m->pool, (unsigned int)b)->domain) == 0;
}

static uint64_t down_together(const struct mtask *t)
{
	uint64_t devs = 1ull << t->dev;

	for (unsigned int d = 0; d < pool_ndevs(t->m->pool); d++)
		if (t->m->rebuilt >> d & 1 && !pool_dev_usable(t->m->pool, d) &&
			same_node(t->m, (int)d, t->dev))
			devs |= 1ull << d;
	return devs;
}

/* Another device's of the same node, which does this one's work meanwhile. */
static const struct mtask *goes_first(const struct mtask *t)
{
	const struct mtask *o;

	TAILQ_FOREACH (o, &t->m->tasks, link)
		if (o->pub.reason == MOVER_REBUILD && o->pub.id < t->pub.id && !task_is_over(o) &&
			!o->stopping && o->pub.state == MOVER_RUNNING && !o->phase &&
			same_node(t->m, o->dev, t->dev))
			return o;
	return NULL;
}

static int check(struct mover *m, const struct mover_job *job, struct err *err)
{
	const struct pool_dev *d = pool_dev(m->pool, (unsigned int)job->dev);

	if (pool_dev_usable(m->pool, (unsigned int)job->dev))
		return err_set(err, -EINVAL, d->name, "device",
			"is %s: nothing has to be rebuilt (to empty it: flash remove)",
			pool_dev_state_name(d->state));
	return 0;
}

/* A spare takes the place of the device. */
static void activate_spare(struct mtask *t)
{
	struct mover *m = t->m;

	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++) {
		if (pool_dev(m->pool, d)->state != POOL_DEV_SPARE)
			continue;
		m->spares |= 1ull << d;
		if (pool_dev_set_state(m->pool, d, POOL_DEV_REBUILDING, NULL) == 0)
			return;
		m->spares &= ~(1ull << d);
	}
}

/* Those that were brought in for rebuilds are members like any other once none is under way (after a restart they are checked instead, as if they were back). */
void rebuild_spares_are_members(struct mover *m, const struct mtask *ended)
{
	const struct mtask *t;

	TAILQ_FOREACH (t, &m->tasks, link)
		if (t != ended && t->pub.reason == MOVER_REBUILD && !task_is_over(t) &&
			!t->stopping)
			return;
	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++)
		if (m->spares >> d & 1 && pool_dev(m->pool, d)->state == POOL_DEV_REBUILDING)
			pool_dev_set_state(m->pool, d, POOL_DEV_HEALTHY, NULL);
	m->spares = 0;
}

static int begin(struct mtask *t)
{
	struct rebuild *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	t->priv = r;
	if (!t->cursor.volume && !t->phase) {
		activate_spare(t);
		t->pub.total_blocks = walk_total(t->m, 0);
		t->pub.done_blocks = t->pub.unrecoverable = 0;
	}
	r->devs = down_together(t);
	walk_begin(&r->walk, t, MOVE_TO_LOG);
	r->walk.want_fn = wants;
	r->walk.arg = t;
	return 0;
}

static void committed(void *arg, int status)
{
	struct mtask *t = arg;
	struct rebuild *r = t->priv;

	t->in_flight--;
	r->checkpointing = false;
	r->checkpoints++;
	r->status = status;
}

/* Groups in limbo and records come to their end with a checkpoint. */
static enum work shed(struct mtask *t)
{
	struct rebuild *r = t->priv;

	if (r->checkpointing)
		return WORK_WAIT;
	if (r->checkpoints && (r->status == -ESTALE || r->status == -ECANCELED))
		return WORK_WAIT; /* the store is going down */
	if (r->checkpoints >= CHECKPOINTS_MAX ||
		(r->checkpoints && r->status == 0 &&
			!stripelog_dev_segments(t->m->log, (unsigned int)t->dev)))
		return WORK_DONE;
	if (r->checkpoints && r->status < 0)
		task_sleep(t, AGAIN_NS);
	stripelog_close_groups(t->m->log, t->dev);
	t->in_flight++;
	r->checkpointing = true;
	if (store_checkpoint(t->m->s, committed, t) < 0) {
		t->in_flight--;
		r->checkpointing = false;
		task_sleep(t, AGAIN_NS);
	}
	return WORK_WAIT;
}

static enum work work(struct mtask *t)
{
	struct rebuild *r = t->priv;
	const struct mtask *first;
	enum work w;

	if (is_back(t)) {
		if (t->in_flight)
			return WORK_WAIT;
		task_say(t, "the device is back");
		return WORK_DONE;
	}
	if (t->phase)
		return shed(t);
	first = t->in_flight ? NULL : goes_first(t);
	if (first) {
		task_say(t, "the rebuild of %s of the same node goes first", first->pub.object);
		task_sleep(t, AGAIN_NS);
		return WORK_WAIT;
	}
	w = walk_work(&r->walk);
	if (w != WORK_DONE)
		return w;
	t->phase = 1;
	t->cursor = (struct cursor){0};
	t->pub.done_blocks = t->pub.total_blocks;
	task_note(t);
	return WORK_MORE;
}

static void batch_done(struct mtask *t, struct move_batch *b)
{
	struct rebuild *r = t->priv;

	walk_batch_done(&r->walk, b);
}

static void end(struct mtask *t)
{
	struct rebuild *r = t->priv;

	if (r)
		walk_end(&r->walk);
	free(r);
	t->priv = NULL;
	if (!t->m->closing && t->then != MOVER_PAUSED)
		rebuild_spares_are_members(t->m, t);
}

const struct reason reason_rebuild = {
	.check = check, .begin = begin, .work = work, .batch_done = batch_done, .end = end};
