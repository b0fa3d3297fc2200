/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/volume/lock.h"

#include <assert.h>

#include "common/base/util.h"

void range_locks_init(struct range_locks *ls)
{
	ls->next_ticket = 1;
	ls->held = 0;
	TAILQ_INIT(&ls->all);
	TAILQ_INIT(&ls->wide);
	for (unsigned int i = 0; i < RANGE_BUCKETS; i++) {
		TAILQ_INIT(&ls->buckets[i].half[0]);
		TAILQ_INIT(&ls->buckets[i].half[1]);
	}
}

static uint64_t region_of(uint64_t block)
{
	return block / RANGE_REGION_BLOCKS;
}

static struct range_bucket *bucket_of(struct range_locks *ls, uint64_t region)
{
	return &ls->buckets[region % RANGE_BUCKETS];
}

static bool conflicts(const struct range_lock *a, const struct range_lock *b)
{
	return (a->exclusive || b->exclusive) && a->first < b->end && b->first < a->end;
}

typedef void visit_fn(struct range_lock *l, struct range_lock *other);

/*
 * Calls fn for every other lock that conflicts with l, once. Two short locks may meet in two buckets: the pair counts in the
 * region where their overlap begins.
 */
static void each_conflict(struct range_locks *ls, struct range_lock *l, visit_fn *fn)
{
	struct range_lock *o;

	if (l->wide) {
		TAILQ_FOREACH (o, &ls->all, all)
			if (o != l && conflicts(l, o))
				fn(l, o);
		return;
	}
	for (uint64_t r = region_of(l->first); r <= region_of(l->end - 1); r++)
		for (unsigned int h = 0; h < 2; h++)
			TAILQ_FOREACH (o, &bucket_of(ls, r)->half[h], link[h])
				if (o != l && conflicts(l, o) &&
					region_of(MAX(l->first, o->first)) == r &&
					region_of(o->first) + h == r)
					fn(l, o);
	TAILQ_FOREACH (o, &ls->wide, link[0])
		if (conflicts(l, o))
			fn(l, o);
}

static void count_blocker(struct range_lock *l, struct range_lock *other)
{
	l->blockers++;
}

static void unblock(struct range_lock *l, struct range_lock *other)
{
	if (other->ticket < l->ticket)
		return;
	assert(other->blockers > 0);
	if (--other->blockers == 0)
		other->granted_fn(other);
}

static void lock_init(struct range_lock *l, uint64_t first, uint64_t nblocks, bool exclusive)
{
	assert(nblocks > 0 && first + nblocks > first);
	l->first = first;
	l->end = first + nblocks;
	l->exclusive = exclusive;
	l->blockers = 0;
	l->wide = region_of(l->end - 1) > region_of(first) + 1;
}

static void lock_link(struct range_locks *ls, struct range_lock *l)
{
	l->ticket = ls->next_ticket++;
	ls->held++;
	TAILQ_INSERT_TAIL(&ls->all, l, all);
	if (l->wide) {
		TAILQ_INSERT_TAIL(&ls->wide, l, link[0]);
		return;
	}
	TAILQ_INSERT_TAIL(&bucket_of(ls, region_of(l->first))->half[0], l, link[0]);
	if (region_of(l->end - 1) != region_of(l->first))
		TAILQ_INSERT_TAIL(&bucket_of(ls, region_of(l->end - 1))->half[1], l, link[1]);
}

bool range_lock(struct range_locks *ls, struct range_lock *l, uint64_t first, uint64_t nblocks,
	bool exclusive)
{
	lock_init(l, first, nblocks, exclusive);
	if (ls->held)
		each_conflict(ls, l, count_blocker);
	lock_link(ls, l);
	return l->blockers == 0;
}

bool range_trylock(struct range_locks *ls, struct range_lock *l, uint64_t first, uint64_t nblocks,
	bool exclusive)
{
	lock_init(l, first, nblocks, exclusive);
	if (ls->held)
		each_conflict(ls, l, count_blocker);
	if (l->blockers)
		return false;
	lock_link(ls, l);
	return true;
}

static void lock_unlink(struct range_locks *ls, struct range_lock *l)
{
	assert(ls->held > 0);
	TAILQ_REMOVE(&ls->all, l, all);
	if (l->wide) {
		TAILQ_REMOVE(&ls->wide, l, link[0]);
	} else {
		TAILQ_REMOVE(&bucket_of(ls, region_of(l->first))->half[0], l, link[0]);
		if (region_of(l->end - 1) != region_of(l->first))
			TAILQ_REMOVE(&bucket_of(ls, region_of(l->end - 1))->half[1], l, link[1]);
	}
	if (--ls->held)
		each_conflict(ls, l, unblock);
}

void range_unlock(struct range_locks *ls, struct range_lock *l)
{
	assert(l->blockers == 0);
	lock_unlink(ls, l);
}

void range_unwait(struct range_locks *ls, struct range_lock *l)
{
	assert(l->blockers > 0);
	lock_unlink(ls, l);
}
