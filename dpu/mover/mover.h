/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mover: everything a card does with data in the background, in one loop. Every reason is "read live blocks, append them
 * again, free the old" (dpu/volume/move.h), or the same for pieces of data areas.
 *
 *	clean      sparse groups of the log, so that there is always room
 *	rebuild    stripes that lost a fragment, after a device failed
 *	scrub      reads everything, checks CRCs and parity, repairs; of a device that is back: every stripe and copy that lies on it
 *	protect    a volume's blocks under its scheme and layout of today (they were changed), or plain data protected
 *	evacuate   drains a device before it is removed
 *	restore    the data area of a volume, after its data device died
 *
 * The foreground goes first: a task moves at most `share_percent` bytes per 100 bytes the VMs read and write (as fast as it can while they are
 * quiet), and never more than `ceiling_bytes_per_s`. The cleaner alone goes past the share as space gets short.
 *
 * Tasks survive a restart: their cursor is a note in the pool, and they go on where they were. Cleaning, rebuild after a failure,
 * restore, the periodic scrub and that of a device that is back start by themselves.
 *
 * Thread: the shard's. mover_open and mover_start may wait through shard_wait() (control context); the rest is immediate.
 * Ownership: the mover is opened after the store and closed before it. Errors: 0 or -errno with struct err.
 *
 *	rc = mover_open(&(struct mover_cfg){.store = s}, &m);
 *	rc = mover_start(m, &(struct mover_job){.reason = MOVER_SCRUB, .dev = POOL_DEV_NONE}, &id, &err);
 *	for (t = mover_task_next(m, NULL); t; t = mover_task_next(m, t))
 *		show(t);
 *	mover_close(m);
 */
#ifndef DPU_MOVER_MOVER_H
#define DPU_MOVER_MOVER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "dpu/volume/volume.h"

struct mover;

enum mover_reason {
	MOVER_CLEAN,
	MOVER_REBUILD,
	MOVER_SCRUB,
	MOVER_PROTECT,
	MOVER_EVACUATE,
	MOVER_RESTORE,
	MOVER_REASONS
};
const char *mover_reason_name(enum mover_reason r); /* "clean", ... */
int mover_reason_parse(const char *name); /* enum mover_reason or -EINVAL */

enum mover_state {
	MOVER_RUNNING,
	MOVER_PAUSED, /* by the operator */
	MOVER_WAITING, /* for its turn, for space, for devices: text says */
	MOVER_DONE,
	MOVER_FAILED, /* text says why */
	MOVER_CANCELLED,
	MOVER_STATES
};
const char *mover_state_name(enum mover_state s);

#define MOVER_SHARE_DEFAULT   10u
#define MOVER_SHARE_MAX       1000u
#define MOVER_SCRUB_DEFAULT_S (7u * 24u * 3600u)
#define MOVER_TASKS_MAX       64u /* those that have ended are forgotten, oldest first */

struct mover_limits {
	uint32_t share_percent; /* bytes moved per 100 bytes of the VMs', 1..MOVER_SHARE_MAX */
	uint64_t ceiling_bytes_per_s; /* 0: none */
};

/* What it does of its own accord. Durable in the pool, as are the limits. */
struct mover_settings {
	uint32_t rebuild_delay_s; /* between a device's failure and its rebuild: it may come back */
	uint32_t
		scrub_interval_s; /* between the end of a scrub and the next; 0: only when asked to */
	bool auto_restore; /* a data area whose device died is restored onto a device with room, unasked */
};

struct mover_cfg {
	struct store *store;
	/* Where the pool has none of its own yet. share_percent 0: the defaults. */
	struct mover_limits limits;
};

/* Takes up the tasks and settings that the pool's notes know. */
int mover_open(const struct mover_cfg *cfg, struct mover **out);
/* Waits for what is in flight; tasks go on at the next open. */
void mover_close(struct mover *m);

struct mover_job {
	enum mover_reason reason;
	int dev; /* rebuild, evacuate: of which device; else POOL_DEV_NONE (the scrub of a device that is back starts by itself) */
	struct volume
		*volume; /* protect, restore: of which volume; scrub: this one alone; else NULL */
	/* protect: blocks without protection (plain, intermediate) get it. restore: they are given up (mover_start() always does; of its own accord the
	 * mover leaves their pieces alone: the device may come back) */
	bool plain_too;
};
/*
 * -EINVAL: the job makes no sense; -EEXIST: such a task is under way (*id is its); -ENOSPC: evacuate: the others have no room for it; -EBUSY:
 * MOVER_TASKS_MAX are under way. The task is durable on return.
 */
int mover_start(struct mover *m, const struct mover_job *job, uint32_t *id, struct err *err);
/* -ENOENT: no such task; -EINVAL: not in that state. The cleaner can be paused, and goes on by itself when space gets short. */
int mover_pause(struct mover *m, uint32_t id, struct err *err);
int mover_resume(struct mover *m, uint32_t id, struct err *err);
int mover_cancel(struct mover *m, uint32_t id, struct err *err);

/* Live and durable. -EINVAL: out of range. */
int mover_set_limits(struct mover *m, const struct mover_limits *limits, struct err *err);
void mover_limits(const struct mover *m, struct mover_limits *out);
int mover_set(struct mover *m, const struct mover_settings *settings, struct err *err);
void mover_settings(const struct mover *m, struct mover_settings *out);

struct mover_task {
	uint32_t id; /* never reused in a pool */
	enum mover_reason reason;
	enum mover_state state;
	char object[64]; /* name of the device or volume, or of the pool */
	uint64_t done_blocks, total_blocks; /* looked at, to look at; total 0: not known (clean) */
	uint64_t moved_blocks, moved_bytes; /* appended or written again */
	uint64_t rate_bytes_per_s; /* of late */
	uint64_t eta_s; /* UINT64_MAX: not known */
	uint64_t found; /* errors: bad fragments, bad copies, unreadable blocks */
	uint64_t repaired;
	uint64_t unrecoverable; /* blocks that could not be had: each a media error to its VM */
	uint64_t started_ns, ended_ns; /* shard time; 0: not yet */
	char text[128]; /* what it waits for, or how it ended */
};
/* Every task, in order of id; NULL starts and ends. Valid until the shard's next round. */
const struct mover_task *mover_task_next(const struct mover *m, const struct mover_task *prev);
const struct mover_task *mover_task_find(const struct mover *m, uint32_t id); /* NULL: none */
/* A number for a task of somebody else's that is shown beside these. */
uint32_t mover_take_id(struct mover *m);

/* The device is back from a failure, and what lies on it has not been checked yet: it may lack what was in its cache when it failed. */
bool mover_dev_in_doubt(const struct mover *m, unsigned int dev);

/* A task has started, stopped, or ended (state and text say how). The cleaner's rounds are not told. */
void mover_on_event(
	struct mover *m, void (*event_fn)(void *arg, const struct mover_task *t), void *arg);

#endif
