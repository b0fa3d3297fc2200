/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The shards of a card: each a thread with its loop, and with a struct card of its own (dpu/control/card.h): tables, pipeline, frontends, store and mover.
 * They share nothing on the data path. A pool has as many shards as it was created with; each flash of it is cut into as many equal slices, and the
 * i-th slices of all flash are the pool of shard i, with its own log, checkpoints, recovery and mover. A VM belongs to one shard.
 *
 * Shard 0 runs on the caller's loop and is always there; it owns the ports and lwIP. The others run on threads of their own, which come with
 * the pool and go with it. Where there are fewer cores than shards, several take turns on one.
 *
 * Truth: which VM is where is in the state directory ("shards"), as is everything else a shard remembers ("shard1/...").
 * Thread: as said with each call. Errors: 0 or -errno with struct err.
 */
#ifndef DPU_CONTROL_SHARDS_H
#define DPU_CONTROL_SHARDS_H

#include "common/base/err.h"
#include "dpu/control/card.h"

#define SHARDS_MAX 16u

struct shards;

struct shards_cfg {
	struct card_cfg card; /* shard 0's; the others' are made from it (map_bytes is divided) */
	unsigned int count; /* what a new pool gets where nobody says; 0: 1 */
	const char *
		cores; /* CPUs, "2,3": shard i runs on the i-th, modulo; NULL: wherever the system likes */
};

/* Opens the cards of shard 0 and of the shards the remembered pool has; nothing is served yet. -EBUSY, -EINVAL (cores, count). Shard 0's thread. */
int shards_open(const struct shards_cfg *cfg, struct shards **out, struct err *e);
/* card_start() of all of them, side by side. Shard 0's thread (control context). */
int shards_start(struct shards *s, struct err *e);
/* Stops all, ends the threads. Shard 0's thread. */
void shards_close(struct shards *s);

unsigned int shards_count(const struct shards *s); /* now; any thread */
unsigned int shards_default(const struct shards *s); /* of a new pool; any thread */
struct card *shards_card(struct shards *s, unsigned int shard); /* any thread; shard < count */

/*
 * Runs fn(card, arg) on the shard's thread, where it may wait through shard_wait(), and returns what it returned; the caller waits. Not from a
 * shard's thread: for the thread that carries out changes.
 */
int shards_run(
	struct shards *s, unsigned int shard, int (*fn)(struct card *c, void *arg), void *arg);

/* As many as that from now on: threads and cards come (up, without a pool) or go (they have none). For a pool that is about to be created or
 * opened, or whose creation failed. The thread that carries out changes. */
int shards_resize(struct shards *s, unsigned int count, struct err *e);

/* ---- which VM is where ------------------------------------------------------------------------------------------------ */

unsigned int shards_of_vm(
	const struct shards *s, uint32_t vm); /* 0 where nobody said; any thread */
/* Durable on return. The VM is on neither shard meanwhile: the caller takes it down and brings it up (card_vms_again()). */
int shards_put_vm(struct shards *s, uint32_t vm, unsigned int shard, struct err *e);
/* Gives each VM of the tables that is nowhere yet a shard: the one with the fewest VMs; shard 0 where it comes in over a port. Drops those that are gone. */
int shards_place_vms(struct shards *s, const Parapet__Tables *t, struct err *e);

#endif
