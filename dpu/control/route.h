/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which shards a request concerns, and how their answers become one (merge.h).
 *
 * Requests that only look go to every shard they concern side by side and never wait, also while a change is under way. Changes go one after
 * another on a thread that may wait; what fails on one shard is undone on those that had done it, so that a request is carried out on all or
 * on none. Shard 0 comes last where its word is the truth (tables, the pool's members): until then the change has not happened.
 *
 *	by VM          devices, explain; tasks of one device
 *	all, merged    status, statistics, top, tasks, devices, shards; everything about the pool and its flash; tables
 *	shard 0        the tables as they are, flow rules, flash discovery
 *
 * With one shard nothing is merged, and a request is just its handler on that shard.
 *
 *	job->op = route_op(req->op_case); call_init(&job->call, req);
 *	route_look(s, job, done_fn);	... done_fn(job), on a shard's thread
 *	route_answer(job);		then job->rc, job->call
 *	route_job_clear(job);
 *
 * Thread: route_look(), route_answer(): the server's; route_change(), route_upkeep(): the one that carries out changes.
 */
#ifndef DPU_CONTROL_ROUTE_H
#define DPU_CONTROL_ROUTE_H

#include "dpu/control/call.h"
#include "dpu/control/shards.h"

#include <stdatomic.h>

struct route_op;
struct route_part;

/* A request on its way. */
struct route_job {
	const struct route_op *op;
	struct call call; /* the request, and at last the answer */
	int rc;
	/* route's own */
	struct shards *shards;
	struct route_part *parts; /* one per shard it concerns */
	unsigned int nparts;
	atomic_uint left; /* parts that have not run yet */
	void (*done_fn)(struct route_job *job);
};

const struct route_op *route_op(Parapet__Request__OpCase op); /* NULL: this card does not know it */
bool route_op_changes(const struct route_op *op);

/* 0: done_fn runs once, on a shard's thread, perhaps before this returns; -ENOMEM: never. */
int route_look(struct shards *s, struct route_job *job, void (*done_fn)(struct route_job *job));
/* What a look has found becomes job->rc and job->call. */
void route_answer(struct route_job *job);
/* Carries it out and waits. job->rc and job->call are the answer. */
void route_change(struct shards *s, struct route_job *job);
/* What cards do by themselves, on those that want it: a change. */
bool route_wants_upkeep(const struct shards *s); /* any thread */
void route_upkeep(struct shards *s);
void route_job_clear(struct route_job *job); /* the answer goes with it */

#endif
