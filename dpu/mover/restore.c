/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Restore: the areas of a volume that lay on a device which is no more.
 *
 *	0 pieces: new homes on the volume's data device of today; protected blocks are in the log, plain ones that were there are lost. Those are given
 *	  up only where the operator asked for the restore: the device may come back.
 *	1 stripes with a fragment on that device go elsewhere in the log        2 blocks that are in the log alone, to the data area (layout copy)
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/mover/mover_priv.h"

#define SPACE_NS (500 * MOVER_MS)

struct restore {
	struct walk walk;
	struct piece_move *piece;
	struct piece_at at;
	bool moving;
};

static struct volume *volume_of(const struct mtask *t)
{
	return volume_by_id(t->m->s, t->volume);
}

static int check(struct mover *m, const struct mover_job *job, struct err *err)
{
	const struct volume_cfg *c = volume_cfg(job->volume);

	if (!pool_dev_usable(m->pool, (unsigned int)c->data_dev))
		return err_set(err, -EINVAL, c->name, "data flash",
			"%s is not usable: choose another one first",
			pool_dev(m->pool, (unsigned int)c->data_dev)->name);
	return 0;
}

static bool wants_log(void *arg, const struct volume *v, uint64_t block, const struct map_entry *e)
{
	struct mtask *t = arg;
	int dev = volume_excluded_dev(v, block);

	return map_in_log(e->state) && dev != POOL_DEV_NONE &&
	       stripelog_uses_dev(t->m->log, e->ref, (unsigned int)dev);
}

static bool wants_place(
	void *arg, const struct volume *v, uint64_t block, const struct map_entry *e)
{
	return e->state == BLOCK_LOG;
}

static void begin_walk(struct mtask *t)
{
	struct restore *r = t->priv;

	walk_begin(&r->walk, t, t->phase == 1 ? MOVE_TO_LOG : MOVE_TO_AREA);
	r->walk.want_fn = t->phase == 1 ? wants_log : wants_place;
	r->walk.arg = t;
	r->walk.only = t->volume;
	r->walk.need_place = t->phase == 2;
}

static int begin(struct mtask *t)
{
	struct restore *r;
	int rc;

	if (!volume_of(t))
		return -ENOENT;
	r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	rc = piece_move_open(t->m->s, &r->piece);
	if (rc < 0) {
		free(r);
		return rc;
	}
	t->priv = r;
	if (!t->phase)
		t->pub.total_blocks = 2 * walk_total(t->m, t->volume);
	else
		begin_walk(t);
	return 0;
}

static void piece_done(void *arg, int status, uint64_t lost)
{
	struct mtask *t = arg;
	struct restore *r = t->priv;

	t->in_flight--;
	r->moving = false;
	t->pub.unrecoverable += lost;
	t->pub.found += lost;
	if (status < 0) {
		task_say(t, "waits for room: %s", strerror(-status));
		task_sleep(t, SPACE_NS);
	}
	throttle_charge(&t->m->throttle, (uint64_t)piece_blocks(t->m->s) * IO_BLOCK_BYTES, false);
}

/* A piece of the volume whose device is not usable. */
static bool find_dead(struct mtask *t, struct piece_at *at)
{
	struct volume *v = volume_of(t);

	for (unsigned int d = 0; d < pool_ndevs(t->m->pool); d++) {
		bool found;

		*at = (struct piece_at){.vol = v};
		if (pool_dev_usable(t->m->pool, d))
			continue;
		found = piece_find(t->m->s, (int)d, at);
		while (found && at->vol == v && !t->plain_too && piece_is_only_copy(at))
			found = piece_next(t->m->s, (int)d, at);
		if (found && at->vol == v)
			return true;
	}
	return false;
}

static enum work pieces(struct mtask *t)
{
	struct restore *r = t->priv;
	const struct volume_cfg *c = volume_cfg(volume_of(t));
	int rc;

	if (r->moving)
		return WORK_WAIT;
	if (!find_dead(t, &r->at)) {
		t->phase = 1;
		t->cursor = (struct cursor){0};
		begin_walk(t);
		task_note(t);
		return WORK_MORE;
	}
	t->in_flight++;
	r->moving = true;
	rc = piece_move_start(
		r->piece, PIECE_REHOME, &r->at, (unsigned int)c->data_dev, piece_done, t);
	if (rc < 0) {
		t->in_flight--;
		r->moving = false;
		task_say(t, "%s: %s", pool_dev(t->m->pool, (unsigned int)c->data_dev)->name,
			rc == -ENODEV ? "is not usable: choose another data flash" : strerror(-rc));
		task_sleep(t, SPACE_NS);
	}
	return WORK_WAIT;
}

static enum work work(struct mtask *t)
{
	struct restore *r = t->priv;
	struct volume *v = volume_of(t);
	enum work w;

	if (!v) {
		task_say(t, "the volume is gone");
		return t->in_flight ? WORK_WAIT : WORK_DONE;
	}
	if (!t->phase)
		return pieces(t);
	w = walk_work(&r->walk);
	if (w != WORK_DONE || t->phase == 2 || volume_cfg(v)->layout != VOLUME_COPY)
		return w;
	t->phase = 2;
	t->cursor = (struct cursor){0};
	begin_walk(t);
	task_note(t);
	return WORK_MORE;
}

static void batch_done(struct mtask *t, struct move_batch *b)
{
	struct restore *r = t->priv;

	walk_batch_done(&r->walk, b);
}

static bool can_leave(const struct mtask *t)
{
	const struct restore *r = t->priv;

	return t->in_flight == 1 && r->moving && piece_move_is_unsettled(r->piece);
}

static void end(struct mtask *t)
{
	struct restore *r = t->priv;

	if (!r)
		return;
	walk_end(&r->walk);
	piece_move_close(r->piece);
	free(r);
	t->priv = NULL;
}

const struct reason reason_restore = {.check = check,
	.begin = begin,
	.work = work,
	.batch_done = batch_done,
	.end = end,
	.can_leave = can_leave};
