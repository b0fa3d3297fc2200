/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clean: what is live in sparse groups is written again, so that the groups come to limbo and, with the next checkpoint, back to the pool.
 *
 *	space short? ─▶ victim (best gain first) ─▶ its stripes, a few at a time ─▶ their live blocks ─▶ batches
 *
 * It begins late, when free space and what limbo will give back fall below `low`, and stops a little above: the longer blocks have had time to die
 * the less is left to move. While somebody waits for room, and no checkpoint would bring any, it goes on whatever the numbers say. Batches are filled
 * across victims: full stripes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/mover/mover_priv.h"

#define CANDIDATES_MAX 8192u
#define LIST_STRIPES   (CANDIDATES_MAX / EC_BLOCKS_MAX)
#define RECENT         16u
#define VICTIMS        (RECENT + 4u)
#define LOW_GROUPS     3u
#define LOW_PART       50u /* of the capacity */
#define MORE_GROUPS    2u /* from `low` to `high` */
#define LOOK_ROUNDS    32u
#define GIVE_UP_NS     (100 * MOVER_MS)
#define FULL_PERCENT   98u

struct candidate {
	uint64_t block;
	uint32_t volume, ref;
};

struct clean {
	struct log_space space;
	uint64_t low, high;
	unsigned int rounds;
	bool wanted, look; /* somebody waits for space; look at it at once */
	bool active, given_up, forced;
	/* the victim */
	struct group_list list;
	bool listing, in_group;
	uint64_t recent[RECENT];
	unsigned int nrecent, recent_at;
	bool moved; /* anything, since recent[] was emptied */
	bool yields; /* the victim, blocks to move */
	unsigned int barren; /* victims in a row that yielded none: where no header can be read */
	struct candidate *candidates;
	uint32_t ncandidates, next;
	struct slot *slot;
};

static void start_slot(struct clean *c)
{
	struct slot *sl = c->slot;

	c->slot = NULL;
	if (move_batch_count(sl->batch))
		slot_start(sl);
	else
		slot_put(sl);
}

/* ---- is there need? ---------------------------------------------------------------------------------------------- */

static void heard(void *arg, enum log_space_event event)
{
	struct mtask *t = arg;
	struct clean *c = t->priv;

	c->look = true;
	if (event == LOG_SPACE_RETURNED)
		c->wanted = false;
	if (event != LOG_SPACE_WANTED)
		return;
	c->wanted = true;
	if (t->pub.state == MOVER_PAUSED && !t->stopping)
		t->pub.state = MOVER_RUNNING; /* nobody may wait for an operator */
}

static uint64_t group_bytes(const struct mtask *t)
{
	struct ec_scheme s = pool_cfg(t->m->pool)->scheme;

	return (uint64_t)pool_segment_bytes(t->m->pool) * (s.k + s.m);
}

static void look(struct mtask *t)
{
	struct clean *c = t->priv;
	struct log_space *sp = &c->space;
	uint64_t group = group_bytes(t), room;

	stripelog_space(t->m->log, sp);
	room = sp->free_bytes + sp->limbo_bytes;
	c->low = MAX(LOW_GROUPS * group, sp->capacity_bytes / LOW_PART);
	c->high = c->low + MORE_GROUPS * group;
	c->look = false;
	c->rounds = 0;
	/* Somebody may wait although there is room: not on the devices that a group of theirs needs. */
	if (room < c->low || c->forced || (c->wanted && !sp->limbo_bytes))
		c->active = true;
	else if (room >= c->high)
		c->active = false;
	t->m->pressure = 0;
	if (c->active && room < c->low)
		t->m->pressure = 1 - (double)room / (double)c->low;
	if (c->wanted && sp->limbo_bytes < 2 * group)
		t->m->pressure = 1;
}

/* Every round, whatever the throttle says. */
void clean_tick(struct mtask *t)
{
	struct clean *c = t->priv;

	if (!c)
		return;
	if (t->pub.state == MOVER_PAUSED && c->slot)
		start_slot(c); /* volumes are kept alive by it */
	if (c->look || c->rounds++ >= LOOK_ROUNDS)
		look(t);
}

/* ---- blocks of a victim --------------------------------------------------------------------------------------------- */

static void add_run(struct mtask *t, struct volume *v, uint32_t ref, uint64_t block, uint32_t n)
{
	struct clean *c = t->priv;
	struct map_entry e;

	for (uint32_t i = 0; i < n && c->ncandidates < CANDIDATES_MAX; i++) {
		if (!volume_look(v, block + i, 1, &e) || !map_in_log(e.state) || e.ref != ref)
			continue;
		c->candidates[c->ncandidates++] = (struct candidate){
			.block = block + i, .volume = volume_id(v), .ref = ref};
	}
}

static void list_stripe(struct group_list *l, uint32_t ref, const struct stripe_extent *extents,
	uint32_t nextents, uint32_t nblocks)
{
	struct mtask *t = l->arg;
	struct volume *v = NULL;

	for (uint32_t i = 0; i < nextents; i++) {
		if (!v || volume_id(v) != extents[i].volume)
			v = volume_by_id(t->m->s, extents[i].volume);
		if (v)
			add_run(t, v, ref, extents[i].block, extents[i].nblocks);
	}
}

/* Which blocks are in a stripe whose headers are all bad only a look through the maps can tell: that is scrub's. */
static void list_unreadable(struct group_list *l, uint32_t ref)
{
	struct mtask *t = l->arg;

	if (!task_find(t->m, MOVER_SCRUB, POOL_DEV_NONE, 0) && !t->m->closing)
		task_start(t->m, &(struct mover_job){.reason = MOVER_SCRUB, .dev = POOL_DEV_NONE});
}

static void listed(struct group_list *l, enum io_status status)
{
	struct mtask *t = l->arg;
	struct clean *c = t->priv;

	t->in_flight--;
	c->listing = false;
	c->in_group = l->more;
	c->yields |= c->ncandidates > 0;
	if (l->more)
		return;
	c->barren = c->yields ? 0 : c->barren + 1;
	c->yields = false;
}

static bool is_recent(const struct clean *c, uint64_t group)
{
	for (unsigned int i = 0; i < c->nrecent; i++)
		if (c->recent[i] == group)
			return true;
	return false;
}

static void remember(struct clean *c, uint64_t group)
{
	c->recent[c->recent_at] = group;
	c->recent_at = (c->recent_at + 1) % RECENT;
	c->nrecent = MIN(c->nrecent + 1, RECENT);
}

/* The best one that was not looked at just now: its blocks may be on their way still. */
static bool choose(struct mtask *t)
{
	struct log_victim v[VICTIMS];
	struct clean *c = t->priv;
	unsigned int n = c->barren < RECENT ? stripelog_victims(t->m->log, v, VICTIMS) : 0;

	for (unsigned int i = 0; i < n; i++) {
		/* A degraded one that is full is rebuild's. */
		if (is_recent(c, v[i].group) ||
			(uint64_t)v[i].live * 100 >= (uint64_t)v[i].total * FULL_PERCENT)
			continue;
		c->list = (struct group_list){.group = v[i].group,
			.max = LIST_STRIPES,
			.stripe_fn = list_stripe,
			.unreadable_fn = list_unreadable,
			.done_fn = listed,
			.arg = t};
		c->in_group = true;
		remember(c, v[i].group);
		return true;
	}
	return false;
}

static void give_up(struct mtask *t, bool up)
{
	struct clean *c = t->priv;

	if (c->given_up == up)
		return;
	c->given_up = up;
	stripelog_set_cleaning(t->m->log, !up);
}

/* No victim that was not tried just now. */
static enum work no_victim(struct mtask *t)
{
	struct clean *c = t->priv;

	if (t->in_flight)
		return WORK_WAIT;
	c->barren = 0;
	if (c->nrecent && c->moved) {
		c->nrecent = 0;
		c->moved = false;
		return WORK_MORE;
	}
	c->nrecent = 0;
	c->forced = false;
	look(t);
	/* Nothing is to be gained. Where limbo has something a checkpoint brings it; else whoever waits is told that it is in vain. */
	if (!c->space.limbo_bytes)
		give_up(t, true);
	task_sleep(t, GIVE_UP_NS);
	return WORK_WAIT;
}

/* ---- batches ------------------------------------------------------------------------------------------------------------ */

static struct slot *clean_slot(struct mtask *t)
{
	struct clean *c = t->priv;

	if (c->slot)
		return c->slot;
	c->slot = slot_get(t);
	if (c->slot)
		/* What cannot be had stays where it is: to give it up is scrub's. */
		move_batch_reset(
			c->slot->batch, &(struct move_cfg){.kind = MOVE_TO_LOG, .reserve = true});
	return c->slot;
}

static enum work add_candidates(struct mtask *t)
{
	struct clean *c = t->priv;

	while (c->next < c->ncandidates) {
		const struct candidate *x = &c->candidates[c->next];
		struct volume *v = volume_by_id(t->m->s, x->volume);

		if (!v) {
			c->next++;
			continue;
		}
		if (!clean_slot(t))
			return WORK_WAIT;
		if (!move_add(c->slot->batch, v, x->block, 1, x->ref) &&
			move_batch_count(c->slot->batch)) {
			start_slot(c);
			return WORK_MORE;
		}
		c->next++;
	}
	c->ncandidates = c->next = 0;
	return WORK_MORE;
}

static enum work list_more(struct mtask *t)
{
	struct clean *c = t->priv;
	int rc;

	if (!c->in_group && !choose(t)) {
		if (c->slot) {
			start_slot(c);
			return WORK_MORE;
		}
		return no_victim(t);
	}
	give_up(t, false);
	rc = stripelog_group_list(t->m->log, &c->list);
	if (rc < 0) {
		c->in_group = rc == -EAGAIN;
		task_sleep(t, MOVER_MS);
		return WORK_WAIT;
	}
	c->listing = true;
	t->in_flight++;
	return WORK_WAIT;
}

static enum work work(struct mtask *t)
{
	struct clean *c = t->priv;

	if (!c->active && c->next >= c->ncandidates && !c->in_group) {
		if (c->slot)
			start_slot(c);
		t->pub.state = MOVER_WAITING;
		task_say(t, "%llu of %llu MiB of the log are live",
			(unsigned long long)(c->space.live_bytes >> 20),
			(unsigned long long)(c->space.capacity_bytes >> 20));
		return WORK_WAIT;
	}
	t->pub.state = MOVER_RUNNING;
	t->pub.text[0] = 0;
	if (c->listing)
		return WORK_WAIT;
	if (c->next < c->ncandidates)
		return add_candidates(t);
	return list_more(t);
}

static void batch_done(struct mtask *t, struct move_batch *b)
{
	const struct move_item *items = move_batch_items(b);
	struct clean *c = t->priv;

	c->look = true;
	for (uint32_t i = 0; i < move_batch_count(b); i++) {
		if (items[i].result == MOVE_MOVED) {
			t->pub.moved_blocks++;
			c->moved = true;
		}
	}
	if (move_batch_status(b) != IO_OK)
		task_sleep(t, MOVER_MS);
}

/* ---- life ------------------------------------------------------------------------------------------------------------------ */

static int check(struct mover *m, const struct mover_job *job, struct err *err)
{
	struct clean *c = m->cleaner->priv;

	/* Until there is nothing more to gain. */
	if (c)
		c->forced = c->look = true;
	return 0;
}

static int begin(struct mtask *t)
{
	struct clean *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->candidates = calloc(CANDIDATES_MAX, sizeof(*c->candidates));
	if (!c->candidates) {
		free(c);
		return -ENOMEM;
	}
	t->priv = c;
	rc = stripelog_on_space(t->m->log, heard, t);
	if (rc < 0) {
		free(c->candidates);
		free(c);
		t->priv = NULL;
		return rc;
	}
	stripelog_set_cleaning(t->m->log, true);
	c->look = true;
	return 0;
}

static void end(struct mtask *t)
{
	struct clean *c = t->priv;

	if (!c)
		return;
	if (c->slot)
		slot_put(c->slot);
	stripelog_set_cleaning(t->m->log, false);
	stripelog_off_space(t->m->log, t);
	t->m->pressure = 0;
	free(c->candidates);
	free(c);
	t->priv = NULL;
}

const struct reason reason_clean = {
	.check = check, .begin = begin, .work = work, .batch_done = batch_done, .end = end};
