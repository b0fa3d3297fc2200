/* SPDX-License-Identifier: BSD-3-Clause */
/* Tasks: what the mover does, asked for, shown and told of. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "dpu/control/shard_move.h"
#include "dpu/control/task_id.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* The mover and the contract name the same things in the same order. */
static_assert((int)MOVER_RESTORE == (int)PARAPET__TASK_REASON__TASK_REASON_RESTORE, "reasons");
static_assert((int)MOVER_SCRUB == (int)PARAPET__TASK_REASON__TASK_REASON_SCRUB, "reasons");
static_assert((int)MOVER_RUNNING == (int)PARAPET__TASK_STATE__TASK_STATE_RUNNING, "states");
static_assert((int)MOVER_CANCELLED == (int)PARAPET__TASK_STATE__TASK_STATE_CANCELLED, "states");

bool task_has_ended(const struct mover_task *t)
{
	return t->state == MOVER_DONE || t->state == MOVER_FAILED || t->state == MOVER_CANCELLED;
}

static uint32_t outside(const struct card *c, uint32_t id)
{
	return task_id_outside(id, card_index(c), card_count(c));
}

static uint32_t inside(const struct card *c, uint32_t id)
{
	return task_id_inside(id, card_index(c), card_count(c));
}

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static const char *object_of(
	const struct card *card, const struct mover_task *t, char *buf, size_t len)
{
	if (t->reason == MOVER_REBUILD || t->reason == MOVER_EVACUATE)
		return object_name(buf, len, "flash", t->object);
	return user_object(card, t->object, buf, len);
}

void task_fill(
	const struct card *card, struct call *c, const struct mover_task *t, Parapet__Task *m)
{
	char name[128];

	m->id = outside(card, t->id);
	m->has_reason = m->has_state = m->has_done = m->has_total = m->has_bytes =
		m->has_bytes_per_s = m->has_errors = m->has_repaired = m->has_unrecoverable = true;
	m->reason = (Parapet__TaskReason)t->reason;
	m->state = (Parapet__TaskState)t->state;
	m->object = call_str(c, object_of(card, t, name, sizeof(name)));
	m->done = t->done_blocks;
	m->total = t->total_blocks;
	m->bytes = t->moved_bytes;
	m->bytes_per_s = t->rate_bytes_per_s;
	m->has_eta_s = t->eta_s != UINT64_MAX && !task_has_ended(t);
	m->eta_s = m->has_eta_s ? t->eta_s : 0;
	m->errors = t->found;
	m->repaired = t->repaired;
	m->unrecoverable = t->unrecoverable;
	m->text = t->text[0] ? call_str(c, t->text) : NULL;
}

static bool want_open(const struct mover_task *t, uint32_t id)
{
	return !task_has_ended(t);
}

static bool want_id(const struct mover_task *t, uint32_t id)
{
	return t->id == id;
}

static bool want_any(const struct mover_task *t, uint32_t id)
{
	return true;
}

/* Tasks for which want_fn is true. */
static int fill_list(const struct card *card, struct call *c,
	bool (*want_fn)(const struct mover_task *t, uint32_t id), uint32_t id,
	Parapet__Task ***list, size_t *n)
{
	const struct mover_task *t = NULL;
	bool move = want_fn == want_id     ? move_is_task(card, id)
		    : want_fn == want_open ? move_is_open_task(card)
					   : card->move != NULL;
	size_t room = move;

	*n = 0;
	if (!card->mover)
		return 0;
	while ((t = mover_task_next(card->mover, t)))
		room += want_fn(t, id);
	if (call_messages(c, room, Parapet__Task, parapet__task__init, list) < 0)
		return -ENOMEM;
	while ((t = mover_task_next(card->mover, t)))
		if (want_fn(t, id) && *n < room - move)
			task_fill(card, c, t, (*list)[(*n)++]);
	if (move)
		move_fill(card, c, (*list)[(*n)++]);
	return 0;
}

int tasks_fill_open(const struct card *card, struct call *c, Parapet__Status *r)
{
	return fill_list(card, c, want_open, 0, &r->tasks, &r->n_tasks);
}

/* The answer: task `id`, or all. */
static int answer(struct card *card, struct call *c, bool all, uint32_t id)
{
	Parapet__Tasks *r = call_message(c, Parapet__Tasks, parapet__tasks__init);
	struct mover_limits limits;
	int rc = r ? fill_list(card, c, all ? want_any : want_id, id, &r->tasks, &r->n_tasks)
		   : -ENOMEM;

	if (rc < 0)
		return rc;
	if (card->mover) {
		mover_limits(card->mover, &limits);
		r->has_share_percent = r->has_ceiling_bytes_per_s = true;
		r->share_percent = limits.share_percent;
		r->ceiling_bytes_per_s = limits.ceiling_bytes_per_s;
	}
	c->resp.result_case = PARAPET__RESPONSE__RESULT_TASKS;
	c->resp.tasks = r;
	return 0;
}

static int no_such_task(uint32_t id, struct err *e)
{
	char object[32];

	snprintf(object, sizeof(object), "task %u", id);
	return err_set(e, -ENOENT, object, NULL, "there is no such task");
}

int call_task_list(struct card *card, struct call *c)
{
	const Parapet__TaskList *req = c->req->task_list;

	uint32_t id = inside(card, req->id);

	if (req->has_id && !move_is_task(card, id) &&
		(!card->mover || !mover_task_find(card->mover, id)))
		return no_such_task(req->id, &c->err);
	return answer(card, c, !req->has_id, id);
}

/* ---- start -------------------------------------------------------------------------------------------------------- */

/* Which device, which volume: what each reason takes. */
static int job_of(
	struct card *card, const Parapet__TaskStart *req, struct mover_job *job, struct err *e)
{
	bool of_dev = req->reason == PARAPET__TASK_REASON__TASK_REASON_REBUILD ||
		      req->reason == PARAPET__TASK_REASON__TASK_REASON_EVACUATE;
	bool of_vol = req->reason == PARAPET__TASK_REASON__TASK_REASON_PROTECT ||
		      req->reason == PARAPET__TASK_REASON__TASK_REASON_RESTORE;
	char object[96];

	*job = (struct mover_job){.reason = (enum mover_reason)req->reason,
		.dev = POOL_DEV_NONE,
		.plain_too = req->plain_too};
	if (of_dev != (req->flash != NULL))
		return err_set(e, -EINVAL, "task", "flash", "%s",
			of_dev ? "is needed: this reason is about one flash"
			       : "this reason is not about one flash");
	if (of_vol && !req->path)
		return err_set(e, -EINVAL, "task", "path",
			"is needed: this reason is about one device, named by its VM and its path");
	if (of_dev) {
		job->dev = pool_dev_find(store_pool(card->store), req->flash);
		if (job->dev < 0)
			return err_set(e, -ENOENT,
				object_name(object, sizeof(object), "flash", req->flash), NULL,
				"the pool has no such flash");
	}
	if (req->path) {
		if (of_dev)
			return err_set(
				e, -EINVAL, "task", "path", "this reason is not about one device");
		job->volume = device_find(card, req->vm, req->path);
		snprintf(object, sizeof(object), "device %.64s", req->path);
		if (!job->volume)
			return err_set(
				e, -ENOENT, object, NULL, "vm %u has no such device", req->vm);
	}
	return 0;
}

int call_task_start(struct card *card, struct call *c)
{
	const Parapet__TaskStart *req = c->req->task_start;
	struct mover_job job;
	uint32_t id = 0;
	int rc = pool_need(card, &c->err);

	if (rc == 0 && (req->reason <= PARAPET__TASK_REASON__TASK_REASON_CLEAN ||
			       req->reason > PARAPET__TASK_REASON__TASK_REASON_RESTORE))
		rc = err_set(&c->err, -EINVAL, "task", "reason",
			"allowed: rebuild, scrub, protect, evacuate, restore");
	if (rc == 0)
		rc = job_of(card, req, &job, &c->err);
	if (rc == 0)
		rc = mover_start(card->mover, &job, &id, &c->err);
	if (rc == -EEXIST) /* it is under way: that is what was wanted */
		rc = 0;
	return rc < 0 ? rc : answer(card, c, false, id);
}

/* ---- control and limits ---------------------------------------------------------------------------------------------- */

static int control(struct card *card, uint32_t id, Parapet__TaskAction action, struct err *why)
{
	if (move_is_task(card, id))
		return move_control(card, action, why);
	switch (action) {
	case PARAPET__TASK_ACTION__TASK_ACTION_PAUSE:
		return mover_pause(card->mover, id, why);
	case PARAPET__TASK_ACTION__TASK_ACTION_RESUME:
		return mover_resume(card->mover, id, why);
	default:
		return mover_cancel(card->mover, id, why);
	}
}

int call_task_control(struct card *card, struct call *c)
{
	const Parapet__TaskControl *req = c->req->task_control;
	uint32_t id = inside(card, req->id);
	int rc = pool_need(card, &c->err);
	struct err why = {0};
	char object[32];

	if (rc < 0)
		return rc;
	if (req->action > PARAPET__TASK_ACTION__TASK_ACTION_CANCEL)
		return err_set(&c->err, -EINVAL, "task", "action",
			"unknown; allowed: pause, resume, cancel");
	rc = control(card, id, req->action, &why);
	if (rc == -ENOENT)
		return no_such_task(req->id, &c->err);
	snprintf(object, sizeof(object), "task %u", req->id);
	return rc < 0 ? err_set(&c->err, rc, object, why.field, "%s",
				why.reason[0] ? why.reason : strerror(-rc))
		      : answer(card, c, false, id);
}

/* A ceiling is the card's: each shard's mover gets its part. A share is of what the shard's own VMs do. */
static uint64_t part_of(const struct card *c, uint64_t ceiling)
{
	uint64_t part = ceiling / c->count + (c->cfg.index < ceiling % c->count);

	return ceiling ? MAX(part, 1ull) : 0; /* 0 would be none */
}

int call_task_limits(struct card *card, struct call *c)
{
	const Parapet__TaskLimits *req = c->req->task_limits;
	struct mover_limits limits;
	int rc = pool_need(card, &c->err);

	if (rc < 0)
		return rc;
	mover_limits(card->mover, &limits);
	if (req->has_share_percent)
		limits.share_percent = req->share_percent;
	if (req->has_ceiling_bytes_per_s)
		limits.ceiling_bytes_per_s = part_of(card, req->ceiling_bytes_per_s);
	if (req->has_share_percent || req->has_ceiling_bytes_per_s) {
		rc = mover_set_limits(card->mover, &limits, &c->err);
		if (rc < 0)
			return rc;
		event_post(card->events, EVENT_INFO, "task-limits", "pool",
			"share %u %%, ceiling %llu bytes/s", limits.share_percent,
			(unsigned long long)limits.ceiling_bytes_per_s);
	}
	return answer(card, c, false, 0);
}

/* ---- what follows from tables -------------------------------------------------------------------------------------------- */

struct migration {
	struct card *card;
	struct call *c;
	Parapet__TablesApplied *out;
};

static void protect_device(void *arg, const struct policy_change *ch)
{
	struct migration *m = arg;
	struct mover_job job = {.reason = MOVER_PROTECT, .dev = POOL_DEV_NONE, .plain_too = true};
	const struct mover_task *t;
	struct err e = {0};
	char object[96];
	uint32_t id = 0;
	int rc;

	if (!ch->after || policy_decide(ch->after) != POLICY_PROTECT ||
		(ch->before && policy_decide(ch->before) == POLICY_PROTECT))
		return;
	job.volume = device_find(m->card, ch->after->vm->vm, ch->path);
	if (!job.volume || !device_has_unprotected(job.volume))
		return;
	rc = mover_start(m->card->mover, &job, &id, &e);
	if (rc < 0 && rc != -EEXIST) {
		snprintf(object, sizeof(object), "device %.64s", ch->path);
		event_post(m->card->events, EVENT_WARNING, "not-protected", object,
			"what lies there stays unprotected: %s", err_text(&e));
		return;
	}
	t = mover_task_find(m->card->mover, id);
	if (t && m->out->n_tasks < m->out->n_changes) {
		Parapet__Task *msg = call_message(m->c, Parapet__Task, parapet__task__init);

		if (msg) {
			task_fill(m->card, m->c, t, msg);
			m->out->tasks[m->out->n_tasks++] = msg;
		}
	}
}

int tasks_migrate(struct card *card, struct call *c, const struct tables_doc *before,
	const struct tables_doc *after, Parapet__TablesApplied *out)
{
	struct migration m = {card, c, out};

	if (!card->mover || !out->n_changes)
		return 0;
	out->tasks = call_alloc(c, out->n_changes * sizeof(out->tasks[0]));
	if (!out->tasks)
		return -ENOMEM;
	policy_diff(before->policy, after->policy, protect_device, &m);
	return 0;
}

int tasks_relay(struct card *card, struct call *c, struct volume *vol, Parapet__Task **out)
{
	struct mover_job job = {.reason = MOVER_PROTECT, .dev = POOL_DEV_NONE, .volume = vol};
	const struct mover_task *t;
	uint32_t id = 0;
	int rc = mover_start(card->mover, &job, &id, &c->err);

	*out = NULL;
	if (rc < 0 && rc != -EEXIST)
		return rc;
	t = mover_task_find(card->mover, id);
	*out = t ? call_message(c, Parapet__Task, parapet__task__init) : NULL;
	if (*out)
		task_fill(card, c, t, *out);
	return 0;
}

/* ---- events ------------------------------------------------------------------------------------------------------------------ */

static void on_task(void *arg, const struct mover_task *t)
{
	static const struct {
		const char *kind;
		enum event_severity severity;
	} kinds[MOVER_STATES] = {
		[MOVER_RUNNING] = {"task-started", EVENT_INFO},
		[MOVER_PAUSED] = {"task-paused", EVENT_INFO},
		[MOVER_WAITING] = {"task-waiting", EVENT_INFO},
		[MOVER_DONE] = {"task-done", EVENT_INFO},
		[MOVER_FAILED] = {"task-failed", EVENT_ERROR},
		[MOVER_CANCELLED] = {"task-cancelled", EVENT_WARNING},
	};
	struct card *c = arg;
	const char *object;
	char buf[128];

	if ((unsigned int)t->state >= MOVER_STATES)
		return;
	object = object_of(c, t, buf, sizeof(buf));
	if (task_has_ended(t))
		event_post(c->events, kinds[t->state].severity, kinds[t->state].kind, object,
			"task %u, %s: %llu errors found, %llu repaired, %llu blocks lost%s%s",
			outside(c, t->id), mover_reason_name(t->reason),
			(unsigned long long)t->found, (unsigned long long)t->repaired,
			(unsigned long long)t->unrecoverable, t->text[0] ? ": " : "", t->text);
	else
		event_post(c->events, kinds[t->state].severity, kinds[t->state].kind, object,
			"task %u, %s%s%s", outside(c, t->id), mover_reason_name(t->reason),
			t->text[0] ? ": " : "", t->text);
}

int tasks_up(struct card *c, struct err *e)
{
	int rc = mover_open(&(struct mover_cfg){.store = c->store}, &c->mover);

	if (rc < 0) {
		c->mover = NULL;
		return err_set(e, rc, "pool", NULL, "its mover does not start: %s", strerror(-rc));
	}
	mover_on_event(c->mover, on_task, c);
	return 0;
}

void tasks_down(struct card *c)
{
	struct mover *m = c->mover;

	c->mover = NULL;
	if (m)
		mover_close(m);
}
