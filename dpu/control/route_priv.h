/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of route, shared by its files: the parts of a job, and running them on their shards. */
#ifndef DPU_CONTROL_ROUTE_PRIV_H
#define DPU_CONTROL_ROUTE_PRIV_H

#include "dpu/control/route.h"

static inline struct events *route_events(const struct shards *s)
{
	return card_events(shards_card(s, 0));
}

/* What one shard does of a job. */
struct route_part {
	struct route_job *job;
	unsigned int shard;
	struct call call;
	int rc;
};

enum route_where { ROUTE_FIRST, ROUTE_BY_VM, ROUTE_BY_TASK, ROUTE_ALL };

struct route_op {
	Parapet__Request__OpCase op;
	enum route_where where;
	call_fn fn; /* on each shard it concerns */
	bool changes; /* else it only looks, and never waits */
	/* Of a change that several shards carry out: NULL where it concerns one alone. */
	int (*all_fn)(struct shards *s, struct route_job *job);
};

/* ---- the parts of a change (route.c); all of them are there, part i is shard i's ---------------------------------- */

/* Makes parts for all shards there are now, in place of those there were. -ENOMEM. */
int route_parts_all(struct shards *s, struct route_job *job);
/* Runs fn for part i, anew. What is wrong is in its call. */
int route_part_run(struct shards *s, struct route_job *job, unsigned int i, call_fn fn);
/* The same with another request in the place of the job's; the answer stays until the next of the part. */
int route_part_ask(struct shards *s, struct route_job *job, unsigned int i, call_fn fn,
	const Parapet__Request *req);
/* All parts side by side; the first error, or 0. */
int route_parts_run(struct shards *s, struct route_job *job, call_fn fn);
/* Part i speaks for the job: run, and its error is the job's. */
int route_part_alone(struct shards *s, struct route_job *job, unsigned int i, call_fn fn);
/* Part i's error becomes the job's. among: others think otherwise, so it says whose it is. */
int route_part_failed(struct route_job *job, unsigned int i, bool among);
/* Something that was to be undone could not be: an event. */
void route_undo_failed(
	struct shards *s, unsigned int shard, const char *object, const struct err *why);

/* ---- changes of all shards -------------------------------------------------------------------------------------------- */
/* route_pool.c */
int route_pool_create(struct shards *s, struct route_job *job);
int route_pool_open(struct shards *s, struct route_job *job);
int route_pool_set(struct shards *s, struct route_job *job);
int route_checkpoint(struct shards *s, struct route_job *job);
int route_tables_push(struct shards *s, struct route_job *job);
/* route_flash.c */
int route_flash_fail(struct shards *s, struct route_job *job);
int route_flash_add(struct shards *s, struct route_job *job);
int route_flash_remove(struct shards *s, struct route_job *job);
int route_flash_replace(struct shards *s, struct route_job *job);
int route_flash_return(struct shards *s, struct route_job *job);
/* route_task.c */
int route_task_start(struct shards *s, struct route_job *job);
int route_task_limits(struct shards *s, struct route_job *job);
int route_part_no_task(struct route_job *job, unsigned int i); /* part i answers: no task */
/* route_move.c */
int route_shard_move(struct shards *s, struct route_job *job);
void route_moves(struct shards *s); /* ends those that are so far: waits until their VMs go on */

#endif
