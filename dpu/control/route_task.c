/* SPDX-License-Identifier: BSD-3-Clause */
/* Tasks of the pool: each shard's mover does its part, under a number of its own. */
#include "dpu/control/route_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- start ---------------------------------------------------------------------------------------------------------- */

/* Numbers of part i's tasks; the caller frees it. NULL: out of memory. */
static uint32_t *tasks_now(struct shards *s, struct route_job *job, unsigned int i, size_t *n)
{
	Parapet__TaskList list = PARAPET__TASK_LIST__INIT;
	Parapet__Request req = PARAPET__REQUEST__INIT;
	const Parapet__Tasks *t;
	uint32_t *ids;

	*n = 0;
	req.op_case = PARAPET__REQUEST__OP_TASK_LIST;
	req.task_list = &list;
	if (route_part_ask(s, job, i, call_task_list, &req) < 0)
		return NULL;
	t = job->parts[i].call.resp.tasks;
	ids = calloc(t->n_tasks + 1, sizeof(*ids));
	for (size_t k = 0; ids && k < t->n_tasks; k++)
		ids[(*n)++] = t->tasks[k]->id;
	return ids;
}

static bool is_known(const uint32_t *ids, size_t n, uint32_t id)
{
	for (size_t i = 0; i < n; i++)
		if (ids[i] == id)
			return true;
	return false;
}

/* The task of part i, unless it was under way before. */
static void cancel_new(struct shards *s, struct route_job *job, unsigned int i, uint32_t id)
{
	Parapet__TaskControl cancel = PARAPET__TASK_CONTROL__INIT;
	Parapet__Request req = PARAPET__REQUEST__INIT;

	req.op_case = PARAPET__REQUEST__OP_TASK_CONTROL;
	req.task_control = &cancel;
	cancel.id = id;
	cancel.action = PARAPET__TASK_ACTION__TASK_ACTION_CANCEL;
	if (id && route_part_ask(s, job, i, call_task_control, &req) < 0)
		route_undo_failed(s, i, "task", &job->parts[i].call.err);
}

/* Part i's answer: no task, for there is nothing for it to do. */
int route_part_no_task(struct route_job *job, unsigned int i)
{
	struct call *c = &job->parts[i].call;
	Parapet__Tasks *t = call_message(c, Parapet__Tasks, parapet__tasks__init);

	if (!t)
		return -ENOMEM;
	c->resp.result_case = PARAPET__RESPONSE__RESULT_TASKS;
	c->resp.tasks = t;
	job->parts[i].rc = 0;
	return 0;
}

/* On one device: its VM's shard alone. What one shard has nothing to do for is started on the others. */
int route_task_start(struct shards *s, struct route_job *job)
{
	bool rebuild = job->call.req->task_start->reason ==
		       PARAPET__TASK_REASON__TASK_REASON_REBUILD;
	uint32_t started[SHARDS_MAX] = {0};
	unsigned int nok = 0, failed = job->nparts;
	int rc = 0;

	for (unsigned int i = 0; i < job->nparts && failed == job->nparts; i++) {
		size_t n;
		autofree uint32_t *before = tasks_now(s, job, i, &n);
		const Parapet__Tasks *t;

		rc = before ? route_part_run(s, job, i, call_task_start) : -ENOMEM;
		if (rc == 0) {
			t = job->parts[i].call.resp.tasks;
			if (t->n_tasks && !is_known(before, n, t->tasks[0]->id))
				started[i] = t->tasks[0]->id;
			nok++;
		} else if (rc != -ENOENT && !(rebuild && rc == -EINVAL)) {
			failed = i;
		}
	}
	if (failed < job->nparts) {
		rc = route_part_failed(job, failed, nok != 0);
		for (unsigned int i = 0; i < failed; i++)
			cancel_new(s, job, i, started[i]);
		return rc;
	}
	for (unsigned int i = 0; nok && i < job->nparts; i++)
		if (job->parts[i].rc < 0 && route_part_no_task(job, i) < 0)
			return -ENOMEM;
	return 0; /* all of them failed: seen when they are merged */
}

/* ---- limits ------------------------------------------------------------------------------------------------------------ */

/* What they are now, of the whole card. */
static int limits_now(struct shards *s, struct route_job *job, Parapet__TaskLimits *l)
{
	Parapet__TaskList list = PARAPET__TASK_LIST__INIT;
	Parapet__Request req = PARAPET__REQUEST__INIT;
	bool open = false;
	int rc = 0;

	req.op_case = PARAPET__REQUEST__OP_TASK_LIST;
	req.task_list = &list;
	for (unsigned int i = 0; rc == 0 && i < job->nparts; i++) {
		const Parapet__Tasks *t;

		rc = route_part_ask(s, job, i, call_task_list, &req);
		if (rc < 0)
			return route_part_failed(job, i, true);
		t = job->parts[i].call.resp.tasks;
		l->has_share_percent = t->has_share_percent;
		l->share_percent = t->share_percent;
		l->has_ceiling_bytes_per_s = t->has_ceiling_bytes_per_s;
		l->ceiling_bytes_per_s += t->ceiling_bytes_per_s;
		open = open || !t->ceiling_bytes_per_s;
	}
	if (open)
		l->ceiling_bytes_per_s = 0;
	return rc;
}

int route_task_limits(struct shards *s, struct route_job *job)
{
	Parapet__TaskLimits was = PARAPET__TASK_LIMITS__INIT;
	Parapet__Request back = PARAPET__REQUEST__INIT;
	int rc = limits_now(s, job, &was);

	back.op_case = PARAPET__REQUEST__OP_TASK_LIMITS;
	back.task_limits = &was;
	for (unsigned int i = 0; rc == 0 && i < job->nparts; i++) {
		rc = route_part_run(s, job, i, call_task_limits);
		if (rc == 0)
			continue;
		rc = route_part_failed(job, i, i > 0);
		while (i-- > 0)
			if (route_part_ask(s, job, i, call_task_limits, &back) < 0)
				route_undo_failed(s, i, "task", &job->parts[i].call.err);
		return rc;
	}
	return rc;
}
