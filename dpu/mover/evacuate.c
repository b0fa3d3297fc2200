/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Evacuate: drains a device that is still there, before it is removed.
 *
 *	check  another home for what lies on it is chosen: state evacuating, volumes' areas go to other devices
 *	0      pieces of areas, one by one     1 the log's stripes      2 groups, records, metadata: closed, and let go by checkpoints
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/mover/mover_priv.h"

#define SPACE_NS        (500 * MOVER_MS)
#define CHECKPOINT_NS   (20 * MOVER_MS)
#define CHECKPOINTS_MAX 64u /* as many parts as a chain has, and more */

struct evacuate {
	struct walk walk;
	struct piece_move *piece;
	struct piece_at at;
	bool moving, checkpointing;
	unsigned int checkpoints;
	int status;
};

static unsigned int dev_of(const struct mtask *t)
{
	return (unsigned int)t->dev;
}

static bool wants(void *arg, const struct volume *v, uint64_t block, const struct map_entry *e)
{
	const struct mtask *t = arg;

	return map_in_log(e->state) && stripelog_uses_dev(t->m->log, e->ref, dev_of(t));
}

/* ---- before it begins ------------------------------------------------------------------------------------------ */

/* Volumes whose areas come from the device get another one. Control context. */
static int choose_for_volumes(struct mover *m, int dev, struct err *err)
{
	for (struct volume *v = volume_first(m->s); v; v = volume_next(v)) {
		const struct volume_cfg *c = volume_cfg(v);
		int data = c->data_dev, inter = c->intermediate_dev;
		uint64_t not = 1ull << dev;
		int rc;

		if (data != dev && inter != dev)
			continue;
		if (data == dev)
			data = mover_choose_dev(
				m, not | (inter == POOL_DEV_NONE ? 0 : 1ull << inter));
		if (inter == dev)
			inter = mover_choose_dev(m, not | 1ull << data);
		if (data == POOL_DEV_NONE || (inter == POOL_DEV_NONE && c->intermediate_dev == dev))
			return err_set(err, -ENOSPC, c->name, NULL,
				"no other device has room for its areas");
		rc = volume_set_devs(v, data, inter, err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static uint32_t used_segments(const struct mover *m, unsigned int dev)
{
	const struct pool_dev *d = pool_dev(m->pool, dev);

	/* the first one has the superblocks */
	return d->nsegments > d->free_segments ? d->nsegments - 1 - d->free_segments : 0;
}

/* Devices beside dev that take new data. */
static unsigned int others_than(const struct mover *m, unsigned int dev)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < pool_ndevs(m->pool); i++)
		n += i != dev && pool_dev_placeable(m->pool, i);
	return n;
}

/* With fewer of them the stripes of a volume, which keep off its data flash, would have less than their redundancy. */
static unsigned int others_needed(const struct mover *m)
{
	const struct pool_cfg *pc = pool_cfg(m->pool);

	return pc->scheme.m + 1u + !pc->allow_data_device;
}

void evacuate_give_way(struct mover *m)
{
	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++) {
		if (pool_dev(m->pool, d)->state != POOL_DEV_EVACUATING ||
			others_than(m, d) >= others_needed(m))
			continue;
		log_warn("mover: %s is no longer evacuated: without it new data would lack "
			 "redundancy",
			pool_dev(m->pool, d)->name);
		pool_dev_set_state(m->pool, d, POOL_DEV_HEALTHY, NULL);
	}
}

static int check(struct mover *m, const struct mover_job *job, struct err *err)
{
	unsigned int dev = (unsigned int)job->dev, others = others_than(m, dev);
	const struct pool_dev *d = pool_dev(m->pool, dev);
	const struct pool_cfg *pc = pool_cfg(m->pool);
	enum pool_dev_state was = d->state;
	uint64_t room = 0;
	int rc;

	if (!pool_dev_usable(m->pool, dev))
		return err_set(err, -EINVAL, d->name, "device",
			"is %s: there is nothing to evacuate from it (rebuild does that)",
			pool_dev_state_name(d->state));
	for (unsigned int i = 0; i < pool_ndevs(m->pool); i++) {
		if (i != dev && pool_dev_placeable(m->pool, i))
			room += pool_dev(m->pool, i)->free_segments;
	}
	if (others < (unsigned int)pc->scheme.k + pc->scheme.m)
		return err_set(err, -EINVAL, d->name, "device",
			"%u devices would be left: %u+%u needs %u", others, pc->scheme.k,
			pc->scheme.m, (unsigned int)pc->scheme.k + pc->scheme.m);
	if (others < others_needed(m))
		return err_set(err, -EINVAL, d->name, "device",
			"%u devices would be left: stripes of %u copies beside a data flash need "
			"%u",
			others, pc->scheme.m + 1u, others_needed(m));
	if (room < used_segments(m, dev))
		return err_set(err, -ENOSPC, d->name, "device",
			"the others have %llu free segments: %u are needed",
			(unsigned long long)room, used_segments(m, dev));
	rc = was == POOL_DEV_EVACUATING
		     ? 0
		     : pool_dev_set_state(m->pool, dev, POOL_DEV_EVACUATING, err);
	if (rc < 0)
		return rc;
	rc = choose_for_volumes(m, job->dev, err);
	if (rc < 0)
		pool_dev_set_state(m->pool, dev, was, NULL);
	return rc;
}

static int begin(struct mtask *t)
{
	struct evacuate *e = calloc(1, sizeof(*e));
	int rc;

	if (!e)
		return -ENOMEM;
	rc = piece_move_open(t->m->s, &e->piece);
	if (rc < 0) {
		free(e);
		return rc;
	}
	t->priv = e;
	if (!t->phase) {
		t->pub.done_blocks = 0;
		t->pub.total_blocks = walk_total(t->m, 0) +
				      piece_count(t->m->s, t->dev) * piece_blocks(t->m->s);
	}
	if (t->phase == 1) {
		walk_begin(&e->walk, t, MOVE_TO_LOG);
		e->walk.want_fn = wants;
		e->walk.arg = t;
	}
	return 0;
}

/* ---- pieces ------------------------------------------------------------------------------------------------------- */

static void piece_done(void *arg, int status, uint64_t lost)
{
	struct mtask *t = arg;
	struct evacuate *e = t->priv;
	uint64_t blocks = piece_blocks(t->m->s);

	t->in_flight--;
	e->moving = false;
	t->pub.unrecoverable += lost;
	t->pub.found += lost;
	throttle_charge(&t->m->throttle, blocks * IO_BLOCK_BYTES, false);
	if (status < 0) {
		task_say(t, "waits: a piece cannot be moved: %s", strerror(-status));
		task_sleep(t, SPACE_NS);
		return;
	}
	t->pub.moved_bytes += blocks * IO_BLOCK_BYTES;
	t->pub.moved_blocks += blocks;
	t->pub.done_blocks += blocks;
}

static enum work next_phase(struct mtask *t)
{
	struct evacuate *e = t->priv;

	t->phase++;
	t->cursor = (struct cursor){0};
	if (t->phase == 1) {
		/* Nothing is appended to groups with it from here on: it is not placeable. */
		stripelog_close_groups(t->m->log, t->dev);
		walk_begin(&e->walk, t, MOVE_TO_LOG);
		e->walk.want_fn = wants;
		e->walk.arg = t;
	}
	e->checkpoints = 0;
	task_note(t);
	return WORK_MORE;
}

static enum work pieces(struct mtask *t)
{
	struct evacuate *e = t->priv;
	const struct volume_cfg *c;
	int to, rc;

	if (e->moving)
		return WORK_WAIT;
	e->at = (struct piece_at){0};
	if (!piece_find(t->m->s, t->dev, &e->at))
		return next_phase(t);
	c = volume_cfg(e->at.vol);
	to = e->at.intermediate ? c->intermediate_dev : c->data_dev;
	if (to == POOL_DEV_NONE || to == t->dev) {
		task_say(t, "%s: waits for another %s flash to be chosen", c->name,
			e->at.intermediate ? "intermediate" : "data");
		task_sleep(t, SPACE_NS);
		return WORK_WAIT;
	}
	t->in_flight++;
	e->moving = true;
	rc = piece_move_start(e->piece, PIECE_EVACUATE, &e->at, (unsigned int)to, piece_done, t);
	if (rc < 0) {
		t->in_flight--;
		e->moving = false;
		task_say(t, "%s: waits: %s", c->name, strerror(-rc));
		task_sleep(t, CHECKPOINT_NS);
	}
	return WORK_WAIT;
}

/* ---- what a checkpoint lets go ------------------------------------------------------------------------------------------ */

static void committed(void *arg, int status)
{
	struct mtask *t = arg;
	struct evacuate *e = t->priv;

	t->in_flight--;
	e->checkpointing = false;
	e->checkpoints++;
	e->status = status;
}

static enum work shed(struct mtask *t)
{
	struct evacuate *e = t->priv;

	if (e->checkpointing)
		return WORK_WAIT;
	if (e->checkpoints && (e->status == -ESTALE || e->status == -ECANCELED))
		return WORK_WAIT; /* the store is going down */
	if (e->checkpoints && e->status == 0 && !used_segments(t->m, dev_of(t)))
		return WORK_DONE;
	if (piece_count(t->m->s, t->dev)) {
		t->phase = 0; /* made before its volume had another device */
		return WORK_MORE;
	}
	if (e->checkpoints >= CHECKPOINTS_MAX) {
		/* Blocks that came into a group of it late, or cannot be had. */
		if (t->pub.unrecoverable)
			return WORK_DONE;
		t->phase = 0;
		task_say(t, "waits: %u segments are still in use", used_segments(t->m, dev_of(t)));
		task_sleep(t, SPACE_NS);
		return WORK_WAIT;
	}
	stripelog_close_groups(t->m->log, t->dev);
	t->in_flight++;
	e->checkpointing = true;
	if (store_checkpoint(t->m->s, committed, t) < 0) {
		t->in_flight--;
		e->checkpointing = false;
	}
	if (e->checkpoints)
		task_sleep(t, CHECKPOINT_NS);
	return WORK_WAIT;
}

static enum work work(struct mtask *t)
{
	struct evacuate *e = t->priv;
	enum work w;

	if (!pool_dev_usable(t->m->pool, dev_of(t))) {
		if (t->in_flight)
			return WORK_WAIT;
		task_say(t, "the device has failed: a rebuild takes over");
		return WORK_FAILED;
	}
	if (pool_dev(t->m->pool, dev_of(t))->state != POOL_DEV_EVACUATING) {
		if (t->in_flight)
			return WORK_WAIT;
		task_say(t, "gave way: without the device new data would lack redundancy");
		return WORK_FAILED;
	}
	switch (t->phase) {
	case 0:
		return pieces(t);
	case 1:
		w = walk_work(&e->walk);
		return w == WORK_DONE ? next_phase(t) : w;
	default:
		return shed(t);
	}
}

static void batch_done(struct mtask *t, struct move_batch *b)
{
	struct evacuate *e = t->priv;

	walk_batch_done(&e->walk, b);
}

static bool can_leave(const struct mtask *t)
{
	const struct evacuate *e = t->priv;

	return t->in_flight == 1 && e->moving && piece_move_is_unsettled(e->piece);
}

static void end(struct mtask *t)
{
	struct evacuate *e = t->priv;

	if (!e)
		return;
	walk_end(&e->walk);
	piece_move_close(e->piece);
	free(e);
	t->priv = NULL;
}

/* It is a member like the others again. What was moved stays where it is. */
static void cancelled(struct mtask *t)
{
	if (pool_dev(t->m->pool, dev_of(t))->state == POOL_DEV_EVACUATING)
		pool_dev_set_state(t->m->pool, dev_of(t), POOL_DEV_HEALTHY, NULL);
}

const struct reason reason_evacuate = {.check = check,
	.begin = begin,
	.work = work,
	.batch_done = batch_done,
	.end = end,
	.can_leave = can_leave,
	.cancelled = cancelled};
