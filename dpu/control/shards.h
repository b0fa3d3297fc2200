/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The shards of a card: each a thread with its loop, and with a struct card of its own (dpu/control/card.h): tables, pipeline, frontends, store and mover.
 * They share nothing on the data path. A pool has as many shards as it was created with; each flash of it is cut into as many equal slices, and the
 * i-th slices of all flash are the pool of shard i, with its own log, checkpoints, recovery and mover. A VM belongs to one shard.
 *
 * Shard 0 runs on the caller's loop and is always there; it owns the ports and lwIP. The others run on threads of their own, which come with
 * the first pool that needs them; those that a later pool does not need sleep. Where there are fewer cores than shards, several take turns on one.
 *
 * Truth: which VM is where is in the state directory ("shards"), as is everything else a shard remembers ("shard1/..."). Shard 0 is asked
 * first: without a pool of its own, what the others remember does not count, and its tables are everybody's. So whoever creates, opens or pushes on all
 * shards does it on shard 0 last: that is when it has happened.
 *
 * A device that one shard's pool declares failed fails in the others too.
 *
 * Thread: as said with each call. Errors: 0 or -errno with struct err.
 *
 *	shards_open(&cfg, &s, &err);
 *	server_start(...); shards_start(s, &err); shard_run(cfg.card.shard); server_stop(...);
 *	shards_close(s);
 */
#ifndef DPU_CONTROL_SHARDS_H
#define DPU_CONTROL_SHARDS_H

#include "common/base/err.h"
#include "dpu/control/card.h"

#include <sched.h>

#define SHARDS_MAX 16u

struct shards;

struct shards_cfg {
	struct card_cfg
		card; /* shard 0's; the others' are made from it; map_bytes is of all together */
	unsigned int count; /* what a new pool gets where nobody says; 0: 1 */
	const char *
		cores; /* CPUs, "2,3" or "2-5": shard i runs on the i-th, modulo; NULL: wherever the system likes */
	const cpu_set_t *
		cpus; /* where threads may run that are on no core of their own; NULL: where the caller may */
	/* At the start and the end of each thread but shard 0's (a library that wants to know them). May be NULL. */
	void (*thread_begin_fn)(void);
	void (*thread_end_fn)(void);
};

/* Opens the cards of shard 0 and of the shards the remembered pool has; nothing is served yet. -EBUSY, -EINVAL (cores, count), -EPROTONOSUPPORT. Shard 0's thread. */
int shards_open(const struct shards_cfg *cfg, struct shards **out, struct err *e);
/* card_start() of all of them, side by side. Shard 0's thread (control context). */
int shards_start(struct shards *s, struct err *e);
bool shards_are_up(const struct shards *s); /* shards_start() has ended; any thread */
/* Stops all, ends the threads. Nobody else calls anything here any more. Shard 0's thread (control context). */
void shards_close(struct shards *s);

unsigned int shards_count(const struct shards *s); /* now; any thread */
unsigned int shards_default(const struct shards *s); /* of a new pool; any thread */
/* Any thread; shard < a count that was seen. It stays until shards_close(). */
struct card *shards_card(const struct shards *s, unsigned int shard);

/* The CPU it is pinned to; -1: none. Any thread. */
int shards_cpu(const struct shards *s, unsigned int shard);
/* CPU time its thread has taken, and how long it has been there; both 0 where it cannot be told. Any thread. */
void shards_time(const struct shards *s, unsigned int shard, uint64_t *cpu_ns, uint64_t *uptime_ns);
/* For threads that are no shard, at their start: leaves the shards' cores to them. */
void shards_leave_cores(const struct shards *s);

/*
 * Runs fn(card, arg) on the shard's thread, where it may wait through shard_wait(), and returns what it returned; the caller waits. Not from a
 * shard's thread: for the thread that carries out changes. -ENOMEM: it did not run.
 */
int shards_run(
	struct shards *s, unsigned int shard, int (*fn)(struct card *c, void *arg), void *arg);
/* The same on all of them, side by side; args[i] is shard i's (NULL: all get NULL). The first error, by shard. Also from shard 0's thread (control context). */
int shards_run_all(struct shards *s, int (*fn)(struct card *c, void *arg), void *const *args);

/*
 * As many as that from now on, for a pool that is about to be created or opened, or whose creation failed: threads and cards come (up, without a pool)
 * or go to sleep. VMs of those that go are placed anew. Durable. -EBUSY: a shard has a pool. The thread that carries out changes.
 */
int shards_resize(struct shards *s, unsigned int count, struct err *e);

/* ---- which VM is where ------------------------------------------------------------------------------------------------ */

unsigned int shards_of_vm(
	const struct shards *s, uint32_t vm); /* 0 where nobody said; any thread */
/* Durable on return. The VM is on neither shard meanwhile: the caller takes it down and brings it up (card_vms_again()). -EINVAL: no such shard. The thread
 * that carries out changes. */
int shards_put_vm(struct shards *s, uint32_t vm, unsigned int shard, struct err *e);
/*
 * Gives each VM that is nowhere yet a shard: one that has devices the shard they are on (also where it was said to be on a shard that has none of them), others the
 * one with the fewest VMs, or shard 0 where they come in over a port. Of VMs of the tables in force and of t (NULL: no others). Those that neither has and
 * that have no devices are forgotten. Durable. The thread that carries out changes, or shard 0's (control context).
 */
int shards_place_vms(struct shards *s, const Parapet__Tables *t, struct err *e);
/* After VMs were placed: those that went to other shards go down where they were, then all are up where they are. Threads: as shards_place_vms(). */
void shards_vms_again(struct shards *s);

#endif
