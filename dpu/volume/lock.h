/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The range lock of a volume: intervals of blocks, shared (reads) or exclusive (writes, trims, repairs), first come first
 * served: a request waits for every earlier one that overlaps it and is not shared with it, granted or not.
 *
 *	bucket (region of 256 blocks, hashed)  ─▶ short locks that touch it (at most two regions each)
 *	wide                                   ─▶ locks over more than two regions
 *
 * Thread: the shard's. Ownership: the caller owns the embedded range_lock from range_lock() until it was granted and unlocked; nothing
 * is allocated. granted_fn never runs inside range_lock(); it runs inside range_unlock() of another lock and must not lock or
 * unlock there (it marks its request ready).
 *
 *	if (range_lock(&v->locks, &op->lock, first, n, true))
 *		go on at once;      (else later, from op->lock.granted_fn)
 *	range_unlock(&v->locks, &op->lock);
 */
#ifndef DPU_VOLUME_LOCK_H
#define DPU_VOLUME_LOCK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#define RANGE_BUCKETS       64u
#define RANGE_REGION_BLOCKS 256u

struct range_lock {
	void (*granted_fn)(struct range_lock *l);
	uint64_t first, end; /* [first, end) */
	uint64_t ticket; /* order of arrival */
	uint32_t blockers; /* earlier locks it still waits for */
	bool exclusive, wide;
	TAILQ_ENTRY(range_lock) link[2]; /* in its bucket(s), or [0] in the wide list */
	TAILQ_ENTRY(range_lock) all;
};

TAILQ_HEAD(range_list, range_lock);
struct range_bucket {
	struct range_list half[2]; /* by which link of the lock is used */
};

struct range_locks {
	uint64_t next_ticket;
	uint32_t held; /* granted or waiting */
	struct range_list all, wide;
	struct range_bucket buckets[RANGE_BUCKETS];
};

void range_locks_init(struct range_locks *ls);
/* True: granted at once. nblocks >= 1; granted_fn must be set. */
bool range_lock(struct range_locks *ls, struct range_lock *l, uint64_t first, uint64_t nblocks,
	bool exclusive);
/* Only if it is free at once; false: nothing is held, and nobody waits behind it. granted_fn is never called. */
bool range_trylock(struct range_locks *ls, struct range_lock *l, uint64_t first, uint64_t nblocks,
	bool exclusive);
void range_unlock(struct range_locks *ls, struct range_lock *l);
/* Waits no longer: for one that has not been granted. */
void range_unwait(struct range_locks *ls, struct range_lock *l);

#endif
