/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of dpu/mover only.
 *
 *	engine.c    the loop: which task may do something now          throttle.c  how much
 *	task.c      tasks: their notes, start, pause, progress         auto.c      what starts by itself
 *	walk.c      the maps from end to end, blocks into batches
 *	clean.c rebuild.c scrub.c protect.c evacuate.c restore.c: one struct reason each
 *
 * Thread: the shard's.
 */
#ifndef DPU_MOVER_MOVER_PRIV_H
#define DPU_MOVER_MOVER_PRIV_H

#include <sys/queue.h>

#include "dpu/core/shard.h"
#include "dpu/mover/mover.h"
#include "dpu/stripelog/stripelog.h"
#include "dpu/volume/move.h"

#define MOVER_SLOTS       4u /* batches in flight, of all tasks but the cleaner */
#define MOVER_CLEAN_SLOTS 2u
#define MOVER_CLEAN_ID    1u /* the cleaner's task: always there, in no note */
#define MOVER_MS          1000000ull
#define MOVER_S           1000000000ull

/* ---- throttle.c --------------------------------------------------------------------------------------------------- */
struct throttle {
	struct mover_limits limits;
	uint64_t now_ns, seen_bytes,
		busy_ns; /* of the foreground: bytes so far, when it last did anything */
	bool active; /* the foreground is at work */
	double share_credit; /* bytes that may be moved beside the foreground; below 0: wait */
	double ceiling_credit;
	double clean_credit; /* the cleaner's own, for what goes past the share */
};
void throttle_tick(struct throttle *t, const struct store *s, uint64_t now_ns, double pressure);
/* Whether a task may move something now. */
bool throttle_ready(const struct throttle *t);
bool throttle_clean_ready(const struct throttle *t, double pressure);
void throttle_charge(struct throttle *t, uint64_t bytes, bool cleaner);

/* ---- tasks ----------------------------------------------------------------------------------------------------------- */
struct mtask;

enum work {
	WORK_MORE, /* did something: ask again */
	WORK_WAIT, /* for a completion, or until task_sleep()'s time */
	WORK_DONE,
	WORK_FAILED, /* t->pub.text says why */
};

/* One reason to move things. */
struct reason {
	/* 0, or -errno with err: the job makes no sense. Control context: may wait. Only for a new task. */
	int (*check)(struct mover *m, const struct mover_job *job, struct err *err);
	/* A task begins, or goes on after a restart: cursor and phase are set. 0 or -errno. */
	int (*begin)(struct mtask *t);
	enum work (*work)(struct mtask *t); /* a little; never waits */
	void (*batch_done)(struct mtask *t, struct move_batch *b); /* one of its batches */
	void (*end)(struct mtask *t); /* nothing of it is in flight; frees t->priv */
	void (*cancelled)(struct mtask *t); /* may be NULL */
	/* All that is in flight of it goes on without the mover (piece_move_close). May be NULL. */
	bool (*can_leave)(const struct mtask *t);
};
extern const struct reason reason_clean, reason_rebuild, reason_scrub, reason_protect,
	reason_evacuate, reason_restore;
/* Devices that are being emptied take new data again where too few others are left for it: their tasks end. From the loop. */
void evacuate_give_way(struct mover *m);

struct slot {
	struct move_batch *batch;
	struct mtask *owner; /* NULL: free */
	uint64_t charged;
};

struct cursor {
	uint32_t volume; /* id */
	uint64_t block; /* or a group's id, or a piece's index */
};

struct mtask {
	struct mover_task pub;
	struct mover *m;
	const struct reason *reason;
	int dev;
	uint32_t volume; /* id; 0: none */
	bool plain_too;
	uint8_t phase; /* the reason's */
	struct cursor cursor; /* of the phase */
	uint32_t in_flight; /* batches, pieces, verifies, checkpoints */
	uint64_t not_before_ns;
	bool begun, stopping; /* stopping: ends in state `then` when nothing is in flight */
	enum mover_state then;
	bool noting, note_again;
	uint64_t noted_ns;
	uint64_t done_before; /* of done_blocks: before the restart */
	uint64_t rate_ns, rate_bytes; /* when and at what the rate was last taken */
	void *priv;
	TAILQ_ENTRY(mtask) link;
};
TAILQ_HEAD(mtask_list, mtask);

struct mover {
	struct store *s;
	struct pool *pool;
	struct stripelog *log;
	struct shard *sh;
	struct poller poller;
	struct timer timer;
	struct throttle throttle;
	struct mover_settings settings;
	struct mtask_list tasks; /* in order of id */
	uint32_t ntasks, next_id;
	struct slot slots[MOVER_SLOTS], clean_slots[MOVER_CLEAN_SLOTS];
	struct mtask *cleaner;
	double pressure; /* on space: 0 none .. 1 there is none left */
	bool closing;
	uint32_t notes_in_flight;
	/* auto.c */
	struct pool_listener listener;
	struct task auto_task;
	uint64_t down, failed_ns[POOL_DEVS_MAX]; /* devices that are not usable, since when */
	uint64_t rebuilt; /* ... and whose rebuild was begun since */
	uint64_t
		spares; /* brought in for a rebuild: every other device that is rebuilding is back, and has to be checked */
	uint64_t scrubbed_s; /* wall clock of the last scrub's end */
	uint64_t auto_ns; /* next look */

	void (*event_fn)(void *arg, const struct mover_task *t);
	void *event_arg;
};

/* engine.c */
const struct reason *mover_reason_ops(enum mover_reason r);
uint64_t mover_wall_s(const struct mover *m);
struct slot *slot_get(struct mtask *t); /* a free one, now t's; NULL: all are busy */
void slot_put(struct slot *sl); /* not started after all */
void slot_start(struct slot *sl); /* its batch goes; t->reason->batch_done() comes */
void task_sleep(struct mtask *t, uint64_t ns);
void task_say(struct mtask *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void mover_event(struct mtask *t);

/* task.c */
struct mtask *task_new(struct mover *m, enum mover_reason reason, uint32_t id);
void task_free(struct mtask *t);
struct mtask *task_find(const struct mover *m, enum mover_reason reason, int dev, uint32_t volume);
void task_note(struct mtask *t); /* where it is, in the background */
void task_note_now_and_then(struct mtask *t);
void task_end(struct mtask *t, enum mover_state state);
void task_name_object(struct mtask *t);
int tasks_load(struct mover *m);
int settings_load(struct mover *m, const struct mover_limits *dflt);
int settings_put(struct mover *m, void (*done_fn)(void *arg, int status), void *arg);
bool task_is_over(const struct mtask *t);
/* Starts one from the loop: it is durable soon. NULL: no memory, or too many. */
struct mtask *task_start(struct mover *m, const struct mover_job *job);

/* rebuild.c: spares that were brought in are members like any other, unless a rebuild other than `ended` is under way. */
void rebuild_spares_are_members(struct mover *m, const struct mtask *ended);

/* clean.c */
void clean_tick(struct mtask *t); /* the cleaner's look at space: sets m->pressure */

/* auto.c */
void auto_open(struct mover *m);
void auto_close(struct mover *m);
void auto_poll(struct mover *m);
uint64_t auto_next_ns(const struct mover *m);
/* A device with room for a volume's area other than `not`, or POOL_DEV_NONE. */
int mover_choose_dev(struct mover *m, uint64_t not_devs);

/* ---- walk.c: all the blocks that a predicate wants ------------------------------------------------------------------------ */
struct walk {
	struct mtask *t;
	enum move_kind kind;
	bool (*want_fn)(
		void *arg, const struct volume *v, uint64_t block, const struct map_entry *e);
	void *arg;
	uint32_t only; /* volume id; 0: all */
	bool need_place; /* MOVE_TO_AREA: makes the pieces first */
	bool lose;
	/* the walk's own */
	struct slot *slot; /* being filled */
	struct cursor redo, redo_end; /* what was busy lies in there */
	bool redo_any, in_redo;
	struct cursor stop; /* of a second pass */
	uint64_t lost_here; /* in this pass */
	bool from_middle, recounted;
	uint32_t place_tries;
	struct map_entry page[MAP_PAGE_BLOCKS];
};
void walk_begin(struct walk *w, struct mtask *t, enum move_kind kind); /* at t->cursor */
enum work walk_work(
	struct walk *w); /* WORK_DONE: all of it has been moved, but for what cannot be had */
void walk_batch_done(struct walk *w, struct move_batch *b);
void walk_end(struct walk *w);
/* Blocks that are something, of one volume or of all. */
uint64_t walk_total(struct mover *m, uint32_t volume);

#endif
