/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/route_priv.h"

#include "common/base/util.h"
#include "dpu/control/merge.h"
#include "dpu/control/shard_move.h"
#include "dpu/control/task_id.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct route_op ops[] = {
	{PARAPET__REQUEST__OP_TABLES_PUSH, ROUTE_ALL, call_tables_push, true, route_tables_push},
	{PARAPET__REQUEST__OP_TABLES_GET, ROUTE_FIRST, call_tables_get, false, NULL},
	{PARAPET__REQUEST__OP_POOL_CREATE, ROUTE_ALL, call_pool_create, true, route_pool_create},
	{PARAPET__REQUEST__OP_POOL_OPEN, ROUTE_ALL, call_pool_open, true, route_pool_open},
	{PARAPET__REQUEST__OP_POOL_SET, ROUTE_ALL, call_pool_set, true, route_pool_set},
	{PARAPET__REQUEST__OP_FLASH_FAIL, ROUTE_ALL, call_flash_fail, true, route_flash_fail},
	{PARAPET__REQUEST__OP_FLASH_ADD, ROUTE_ALL, call_flash_add, true, route_flash_add},
	{PARAPET__REQUEST__OP_FLASH_REMOVE, ROUTE_ALL, call_flash_remove, true, route_flash_remove},
	{PARAPET__REQUEST__OP_FLASH_REPLACE, ROUTE_ALL, call_flash_replace, true,
		route_flash_replace},
	{PARAPET__REQUEST__OP_FLASH_RETURN, ROUTE_ALL, call_flash_return, true, route_flash_return},
	/* It changes nothing, but it waits. */
	{PARAPET__REQUEST__OP_FLASH_DISCOVER, ROUTE_FIRST, call_flash_discover, true, NULL},
	{PARAPET__REQUEST__OP_CHECKPOINT, ROUTE_ALL, call_checkpoint, true, route_checkpoint},
	{PARAPET__REQUEST__OP_DEVICE_ADD, ROUTE_BY_VM, call_device_add, true, NULL},
	{PARAPET__REQUEST__OP_DEVICE_DEL, ROUTE_BY_VM, call_device_del, true, NULL},
	{PARAPET__REQUEST__OP_DEVICE_GROW, ROUTE_BY_VM, call_device_grow, true, NULL},
	{PARAPET__REQUEST__OP_DEVICE_SET, ROUTE_BY_VM, call_device_set, true, NULL},
	{PARAPET__REQUEST__OP_DEVICE_LIST, ROUTE_BY_VM, call_device_list, false, NULL},
	{PARAPET__REQUEST__OP_EXPLAIN, ROUTE_BY_VM, call_explain, false, NULL},
	{PARAPET__REQUEST__OP_FLOW_LIST, ROUTE_FIRST, call_flow_list, false, NULL},
	{PARAPET__REQUEST__OP_TASK_LIST, ROUTE_BY_TASK, call_task_list, false, NULL},
	{PARAPET__REQUEST__OP_TASK_START, ROUTE_BY_VM, call_task_start, true, route_task_start},
	{PARAPET__REQUEST__OP_TASK_CONTROL, ROUTE_BY_TASK, call_task_control, true, NULL},
	{PARAPET__REQUEST__OP_TASK_LIMITS, ROUTE_ALL, call_task_limits, true, route_task_limits},
	{PARAPET__REQUEST__OP_STATUS_GET, ROUTE_ALL, call_status, false, NULL},
	{PARAPET__REQUEST__OP_STATS_GET, ROUTE_ALL, call_stats, false, NULL},
	{PARAPET__REQUEST__OP_TOP_GET, ROUTE_ALL, call_top, false, NULL},
	{PARAPET__REQUEST__OP_SHARD_LIST, ROUTE_ALL, call_shard_list, false, NULL},
	{PARAPET__REQUEST__OP_SHARD_MOVE, ROUTE_ALL, NULL, true, route_shard_move},
};

const struct route_op *route_op(Parapet__Request__OpCase op)
{
	for (size_t i = 0; i < ARRAY_LEN(ops); i++)
		if (ops[i].op == op)
			return &ops[i];
	return NULL;
}

bool route_op_changes(const struct route_op *op)
{
	return op->changes;
}

/* ---- whom it concerns ---------------------------------------------------------------------------------------------- */

/* The VM the request is about; false: none. */
static bool vm_of(const Parapet__Request *req, uint32_t *vm)
{
	switch (req->op_case) {
	case PARAPET__REQUEST__OP_DEVICE_ADD:
		*vm = req->device_add->vm;
		return true;
	case PARAPET__REQUEST__OP_DEVICE_DEL:
		*vm = req->device_del->vm;
		return true;
	case PARAPET__REQUEST__OP_DEVICE_GROW:
		*vm = req->device_grow->vm;
		return true;
	case PARAPET__REQUEST__OP_DEVICE_SET:
		*vm = req->device_set->vm;
		return true;
	case PARAPET__REQUEST__OP_DEVICE_LIST:
		*vm = req->device_list->vm;
		return req->device_list->has_vm;
	case PARAPET__REQUEST__OP_EXPLAIN:
		*vm = req->explain->vm;
		return true;
	case PARAPET__REQUEST__OP_TASK_START:
		*vm = req->task_start->vm;
		return req->task_start->path != NULL;
	default:
		return false;
	}
}

static bool task_of(const Parapet__Request *req, uint32_t *id)
{
	if (req->op_case == PARAPET__REQUEST__OP_TASK_CONTROL) {
		*id = req->task_control->id;
		return true;
	}
	*id = req->task_list->id;
	return req->task_list->has_id;
}

/* The shard it concerns alone; -1: all of them. */
static int shard_of(struct shards *s, const struct route_job *job, unsigned int count)
{
	unsigned int shard = 0;
	uint32_t n;

	switch (job->op->where) {
	case ROUTE_FIRST:
		return 0;
	case ROUTE_BY_VM:
		if (!vm_of(job->call.req, &n))
			return -1;
		shard = shards_of_vm(s, n);
		break;
	case ROUTE_BY_TASK:
		if (!task_of(job->call.req, &n))
			return -1;
		shard = task_id_shard(n, count);
		break;
	default:
		return -1;
	}
	return shard < count ? (int)shard : 0;
}

/* ---- parts --------------------------------------------------------------------------------------------------------------- */

static void parts_clear(struct route_job *job)
{
	for (unsigned int i = 0; i < job->nparts; i++)
		call_clear(&job->parts[i].call);
	free(job->parts);
	job->parts = NULL;
	job->nparts = 0;
}

void route_job_clear(struct route_job *job)
{
	parts_clear(job);
	call_clear(&job->call);
}

static int parts_make(struct route_job *job, unsigned int first, unsigned int n)
{
	parts_clear(job);
	job->parts = calloc(n, sizeof(job->parts[0]));
	if (!job->parts)
		return -ENOMEM;
	job->nparts = n;
	for (unsigned int i = 0; i < n; i++) {
		job->parts[i].job = job;
		job->parts[i].shard = first + i;
		call_init(&job->parts[i].call, job->call.req);
	}
	return 0;
}

/* On the shard. */
static int part_run(struct card *c, struct route_part *p, call_fn fn)
{
	p->rc = fn(c, &p->call);
	if (p->rc == 0 && p->call.oom)
		p->rc = -ENOMEM;
	return p->rc;
}

/* One of them has failed: it speaks for all. */
static int first_failed(const struct route_job *job)
{
	for (unsigned int i = 0; i < job->nparts; i++)
		if (job->parts[i].rc < 0)
			return (int)i;
	return -1;
}

int route_part_failed(struct route_job *job, unsigned int i, bool among)
{
	const struct route_part *p = &job->parts[i];
	const struct err *e = &p->call.err;

	if (among && job->nparts > 1)
		err_set(&job->call.err, p->rc, e->object, e->field, "shard %u: %s", p->shard,
			e->reason[0] ? e->reason : strerror(-p->rc));
	else
		job->call.err = *e;
	return p->rc;
}

static bool all_failed(const struct route_job *job)
{
	for (unsigned int i = 0; i < job->nparts; i++)
		if (job->parts[i].rc == 0)
			return false;
	return true;
}

/* The answer of all; theirs is the memory it lies in. */
static int parts_merge(struct route_job *job)
{
	Parapet__Response *list[SHARDS_MAX];
	int failed = first_failed(job);

	if (failed >= 0)
		return route_part_failed(job, (unsigned int)failed, !all_failed(job));
	for (unsigned int i = 0; i < job->nparts; i++)
		list[i] = &job->parts[i].call.resp;
	return merge_responses(&job->call, list, job->nparts);
}

void route_answer(struct route_job *job)
{
	job->rc = parts_merge(job);
	/* All it points to is in the parts, which live as long. */
	if (job->rc == 0 && job->call.oom)
		job->rc = -ENOMEM;
}

/* ---- looks ------------------------------------------------------------------------------------------------------------------ */

static void look_ran(struct route_part *p)
{
	struct route_job *job = p->job;

	if (atomic_fetch_sub(&job->left, 1) == 1)
		job->done_fn(job);
}

/* On the shard. */
static void look_run(void *arg)
{
	struct route_part *p = arg;

	part_run(shards_card(p->job->shards, p->shard), p, p->job->op->fn);
	look_ran(p);
}

int route_look(struct shards *s, struct route_job *job, void (*done_fn)(struct route_job *job))
{
	unsigned int count = shards_count(s), n;
	int shard = shard_of(s, job, count);
	int rc;

	job->shards = s;
	job->done_fn = done_fn;
	n = shard < 0 ? count : 1;
	rc = parts_make(job, shard < 0 ? 0 : (unsigned int)shard, n);
	if (rc < 0)
		return rc;
	atomic_store(&job->left, n);
	/* Whoever runs last may free the job: nothing of it is read after the last was posted. */
	for (unsigned int i = 0; i < n; i++) {
		struct route_part *p = &job->parts[i];

		rc = shard_post(card_shard(shards_card(s, p->shard)), look_run, p);
		if (rc < 0) {
			p->rc = rc;
			look_ran(p);
		}
	}
	return 0;
}

/* ---- changes ------------------------------------------------------------------------------------------------------------------ */

int route_parts_all(struct shards *s, struct route_job *job)
{
	return parts_make(job, 0, shards_count(s));
}

struct run {
	struct route_part *part;
	call_fn fn;
};

static int run_one(struct card *c, void *arg)
{
	struct run *run = arg;

	return part_run(c, run->part, run->fn);
}

int route_part_ask(struct shards *s, struct route_job *job, unsigned int i, call_fn fn,
	const Parapet__Request *req)
{
	struct route_part *p = &job->parts[i];
	struct run run = {p, fn};

	call_clear(&p->call);
	call_init(&p->call, req);
	p->rc = shards_run(s, p->shard, run_one, &run);
	p->call.req = job->call.req; /* the answer may outlive its own */
	return p->rc;
}

int route_part_run(struct shards *s, struct route_job *job, unsigned int i, call_fn fn)
{
	return route_part_ask(s, job, i, fn, job->call.req);
}

int route_part_alone(struct shards *s, struct route_job *job, unsigned int i, call_fn fn)
{
	return route_part_run(s, job, i, fn) < 0 ? route_part_failed(job, i, false) : 0;
}

int route_parts_run(struct shards *s, struct route_job *job, call_fn fn)
{
	struct run runs[SHARDS_MAX];
	void *args[SHARDS_MAX];

	for (unsigned int i = 0; i < job->nparts; i++) {
		struct route_part *p = &job->parts[i];

		call_clear(&p->call);
		call_init(&p->call, job->call.req);
		p->rc = -ENOMEM; /* unless it runs */
		runs[i] = (struct run){p, fn};
		args[i] = &runs[i];
	}
	return shards_run_all(s, run_one, args);
}

void route_undo_failed(
	struct shards *s, unsigned int shard, const char *object, const struct err *why)
{
	event_post(route_events(s), EVENT_ERROR, "undo-failed", object, "shard %u: %s", shard,
		err_text(why));
}

void route_change(struct shards *s, struct route_job *job)
{
	int shard = shard_of(s, job, shards_count(s));
	bool alone = shard >= 0 || !job->op->all_fn;

	job->shards = s;
	if (alone) {
		job->rc = parts_make(job, shard < 0 ? 0 : (unsigned int)shard, 1);
		if (job->rc == 0)
			route_part_run(s, job, 0, job->op->fn);
	} else {
		job->rc = route_parts_all(s, job);
		if (job->rc == 0)
			job->rc = job->op->all_fn(s, job);
	}
	if (job->rc == 0)
		route_answer(job);
}

/* ---- upkeep --------------------------------------------------------------------------------------------------------------------- */

bool route_wants_upkeep(const struct shards *s)
{
	for (unsigned int i = 0; i < shards_count(s); i++)
		if (card_wants_upkeep(shards_card(s, i)) || card_move_wants_stop(shards_card(s, i)))
			return true;
	return false;
}

static int upkeep(struct card *c, void *arg)
{
	return call_flash_upkeep(c, arg);
}

void route_upkeep(struct shards *s)
{
	static const Parapet__Request none = PARAPET__REQUEST__INIT;

	for (unsigned int i = 0; i < shards_count(s); i++) {
		struct call c;

		if (!card_wants_upkeep(shards_card(s, i)))
			continue;
		call_init(&c, &none);
		shards_run(s, i, upkeep, &c);
		call_clear(&c);
	}
	route_moves(s);
}
