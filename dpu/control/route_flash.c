/* SPDX-License-Identifier: BSD-3-Clause */
/* The life of a flash: it is in the pool of every shard, each with its slice, or in none. */
#include "dpu/control/route_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- how a flash is now, shard by shard ---------------------------------------------------------------------------- */

enum flash_is { FLASH_NONE, FLASH_THERE, FLASH_AWAY };

static enum flash_is flash_now(
	struct shards *s, struct route_job *job, unsigned int i, const char *name)
{
	const Parapet__PoolStatus *p;

	if (route_part_run(s, job, i, call_status) < 0)
		return FLASH_NONE;
	p = job->parts[i].call.resp.status->pool;
	for (size_t k = 0; k < p->n_flashes; k++) {
		const Parapet__FlashStatus *f = p->flashes[k];

		if (!strcmp(f->flash->name, name))
			return !strcmp(f->state, "failed") || !strcmp(f->state, "missing")
				       ? FLASH_AWAY
				       : FLASH_THERE;
	}
	return FLASH_NONE;
}

static void undo(struct shards *s, struct route_job *job, unsigned int i, call_fn fn,
	const Parapet__Request *req, const char *name)
{
	char object[96];

	snprintf(object, sizeof(object), "flash %.64s", name);
	if (route_part_ask(s, job, i, fn, req) < 0)
		route_undo_failed(s, i, object, &job->parts[i].call.err);
}

/* ---- fail, return ------------------------------------------------------------------------------------------------------ */

/* Those that have it. It may be gone from a shard that was emptied before the others. */
int route_flash_fail(struct shards *s, struct route_job *job)
{
	const char *name = job->call.req->flash_fail->name;
	unsigned int failed = 0;

	for (unsigned int i = 0; i < job->nparts; i++)
		failed += route_part_run(s, job, i, call_flash_fail) == 0;
	for (unsigned int i = 0; failed && i < job->nparts; i++)
		if (job->parts[i].rc == -ENOENT)
			flash_now(s, job, i, name); /* its status is its answer */
	return 0; /* a part that failed is seen when they are merged */
}

static void fail_again(struct shards *s, struct route_job *job, unsigned int i, char *name)
{
	Parapet__FlashFail msg = PARAPET__FLASH_FAIL__INIT;
	Parapet__Request req = PARAPET__REQUEST__INIT;

	req.op_case = PARAPET__REQUEST__OP_FLASH_FAIL;
	req.flash_fail = &msg;
	msg.name = name;
	undo(s, job, i, call_flash_fail, &req, name);
}

/* On the shards it is away from; on one that still has it there is nothing to do. */
int route_flash_return(struct shards *s, struct route_job *job)
{
	char *name = job->call.req->flash_return->name;
	uint32_t away = 0, back = 0;
	int rc = 0;

	for (unsigned int i = 0; i < job->nparts; i++)
		away |= (uint32_t)(flash_now(s, job, i, name) == FLASH_AWAY) << i;
	if (!away)
		return route_part_alone(s, job, 0, call_flash_return); /* it says why not */
	for (unsigned int i = 0; i < job->nparts; i++) {
		if (!(away >> i & 1))
			continue;
		if (route_part_run(s, job, i, call_flash_return) == 0) {
			back |= 1u << i;
			continue;
		}
		rc = route_part_failed(job, i, back != 0);
		for (unsigned int k = 0; k < i; k++)
			if (back >> k & 1)
				fail_again(s, job, k, name);
		return rc;
	}
	return 0;
}

/* ---- add ------------------------------------------------------------------------------------------------------------------ */

struct undo_add {
	const char *name;
	struct err e;
};

static int undo_add(struct card *c, void *arg)
{
	struct undo_add *u = arg;

	return card_flash_undo_add(c, u->name, &u->e);
}

int route_flash_add(struct shards *s, struct route_job *job)
{
	struct undo_add u = {.name = job->call.req->flash_add->flash->name};
	uint32_t added = 0;

	for (unsigned int i = 0; i < job->nparts; i++) {
		bool is_new = flash_now(s, job, i, u.name) == FLASH_NONE;
		int rc = route_part_run(s, job, i, call_flash_add);

		if (rc == 0) {
			added |= (uint32_t)is_new << i;
			continue;
		}
		rc = route_part_failed(job, i, i > 0);
		for (unsigned int k = 0; k < i; k++)
			if (added >> k & 1 && shards_run(s, k, undo_add, &u) < 0)
				route_undo_failed(s, k, "pool", &u.e);
		return rc;
	}
	return 0;
}

/* ---- leave ------------------------------------------------------------------------------------------------------------------ */

/* The member as the card names it; its texts are the request's or p's. */
static const Parapet__Flash *member(const struct route_part *p, const char *name)
{
	const Parapet__PoolStatus *s = p->call.resp.status->pool;

	for (size_t i = 0; i < s->n_flashes; i++)
		if (!strcmp(s->flashes[i]->flash->name, name))
			return s->flashes[i]->flash;
	return NULL;
}

/* A copy of its own of what add needs. */
struct member_was {
	Parapet__Flash flash;
	char name[64], address[512], domain[64];
};

static void member_keep(const struct route_part *p, const char *name, struct member_was *m)
{
	const Parapet__Flash *f = member(p, name);

	m->flash = *f;
	snprintf(m->name, sizeof(m->name), "%s", f->name);
	snprintf(m->address, sizeof(m->address), "%s", f->address);
	snprintf(m->domain, sizeof(m->domain), "%s", f->domain ? f->domain : "local");
	m->flash.name = m->name;
	m->flash.address = m->address;
	m->flash.domain = m->domain;
	m->flash.has_leaving = false;
}

/* It stays on shard i: what empties it is cancelled; where it is out already it comes in again, as empty as it went. */
static void stay(struct shards *s, struct route_job *job, unsigned int i, struct member_was *m)
{
	const Parapet__FlashChanged *done = job->parts[i].call.resp.flash_changed;
	Parapet__TaskControl cancel = PARAPET__TASK_CONTROL__INIT;
	Parapet__FlashAdd add = PARAPET__FLASH_ADD__INIT;
	Parapet__Request req = PARAPET__REQUEST__INIT;

	if (done->removed) {
		req.op_case = PARAPET__REQUEST__OP_FLASH_ADD;
		req.flash_add = &add;
		add.flash = &m->flash;
		add.has_force = add.force = true;
		undo(s, job, i, call_flash_add, &req, m->name);
		return;
	}
	if (done->task) {
		req.op_case = PARAPET__REQUEST__OP_TASK_CONTROL;
		req.task_control = &cancel;
		cancel.id = done->task->id;
		cancel.action = PARAPET__TASK_ACTION__TASK_ACTION_CANCEL;
		undo(s, job, i, call_task_control, &req, m->name);
	}
	route_part_run(s, job, i, call_flash_upkeep); /* it sees that it is to stay */
}

/* Shards that have it, their parts a status. Those that have not answer that it is out of them. */
static uint32_t having(struct shards *s, struct route_job *job, const char *name)
{
	uint32_t has = 0;

	for (unsigned int i = 0; i < job->nparts; i++) {
		struct call *c = &job->parts[i].call;
		Parapet__FlashChanged *m;

		if (flash_now(s, job, i, name) != FLASH_NONE) {
			has |= 1u << i;
			continue;
		}
		if (job->parts[i].rc < 0)
			continue;
		m = call_message(c, Parapet__FlashChanged, parapet__flash_changed__init);
		if (!m) {
			job->parts[i].rc = -ENOMEM;
			continue;
		}
		m->has_removed = m->removed = true;
		m->pool = c->resp.status->pool;
		c->resp.result_case = PARAPET__RESPONSE__RESULT_FLASH_CHANGED;
		c->resp.flash_changed = m;
	}
	return has;
}

/* Shard i as it was: `from` stays, areas that went to `by` come back, and `by` goes where it came for this. */
static void replace_undo(
	struct shards *s, struct route_job *job, unsigned int i, struct member_was *from, bool came)
{
	const Parapet__FlashReplace *req = job->call.req->flash_replace;
	Parapet__FlashReplace back = PARAPET__FLASH_REPLACE__INIT;
	Parapet__Flash to = PARAPET__FLASH__INIT;
	Parapet__Request undo_req = PARAPET__REQUEST__INIT;

	stay(s, job, i, from);
	if (!came) {
		struct err e = {0};

		err_set(&e, -EBUSY, "pool", NULL,
			"new segments of areas that were on flash %.64s come from %.64s until the "
			"tables are pushed again",
			req->name, req->by->name);
		route_undo_failed(s, i, "pool", &e);
		return;
	}
	undo_req.op_case = PARAPET__REQUEST__OP_FLASH_REPLACE;
	undo_req.flash_replace = &back;
	back.name = req->by->name;
	back.by = &to;
	to.name = from->name;
	to.address = (char *)""; /* it is a member */
	undo(s, job, i, call_flash_replace, &undo_req, req->by->name);
}

/* From every shard that has it, or none; by: what takes its place there, NULL: nothing. */
static int leave_all(
	struct shards *s, struct route_job *job, const char *name, const char *by, call_fn fn)
{
	uint32_t has = having(s, job, name), done = 0, came = 0;
	struct member_was was;

	if (!has)
		return route_part_alone(s, job, 0, fn); /* it says so */
	for (unsigned int i = 0; i < job->nparts; i++) {
		int rc;

		if (!(has >> i & 1))
			continue; /* answered */
		member_keep(&job->parts[i], name, &was);
		if (by)
			came |= (uint32_t)!member(&job->parts[i], by) << i;
		rc = route_part_run(s, job, i, fn);
		if (rc == 0) {
			done |= 1u << i;
			continue;
		}
		rc = route_part_failed(job, i, done != 0);
		for (unsigned int k = 0; k < i; k++)
			if (done >> k & 1 && by)
				replace_undo(s, job, k, &was, came >> k & 1);
			else if (done >> k & 1)
				stay(s, job, k, &was);
		return rc;
	}
	return 0;
}

int route_flash_remove(struct shards *s, struct route_job *job)
{
	return leave_all(s, job, job->call.req->flash_remove->name, NULL, call_flash_remove);
}

int route_flash_replace(struct shards *s, struct route_job *job)
{
	const Parapet__FlashReplace *req = job->call.req->flash_replace;

	return leave_all(s, job, req->name, req->by->name, call_flash_replace);
}
