/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool and the tables, on all shards or on none. */
#include "dpu/control/route_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bool any_pool(const struct shards *s)
{
	for (unsigned int i = 0; i < shards_count(s); i++)
		if (card_has_pool(shards_card(s, i)))
			return true;
	return false;
}

/* ---- create, open --------------------------------------------------------------------------------------------------- */

static int undo_create(struct card *c, void *arg)
{
	card_pool_undo(c);
	return 0;
}

static int undo_open(struct card *c, void *arg)
{
	card_pool_close(c);
	return 0;
}

/* From the last to shard 0, which remembers it: before that it has not happened. had: those that have their part already. */
static int pool_each(struct shards *s, struct route_job *job, call_fn fn, uint32_t had,
	int (*undo)(struct card *c, void *arg))
{
	int rc = 0;

	for (unsigned int i = job->nparts; rc == 0 && i-- > 0;) {
		if (had >> i & 1)
			continue;
		rc = route_part_run(s, job, i, fn);
		if (rc == 0)
			continue;
		rc = route_part_failed(job, i, i + 1 < job->nparts);
		for (unsigned int k = i + 1; k < job->nparts; k++)
			if (!(had >> k & 1))
				shards_run(s, k, undo, NULL);
	}
	return rc;
}

/* The answer is how all of them are now. */
static int answer_status(struct shards *s, struct route_job *job)
{
	route_parts_run(s, job, call_status);
	return 0; /* a part that failed is seen when they are merged */
}

/* As many shards, a part of the job for each. */
static int widen(struct shards *s, struct route_job *job, unsigned int count)
{
	int rc = count == shards_count(s) ? 0 : shards_resize(s, count, &job->call.err);

	return rc == 0 ? route_parts_all(s, job) : rc;
}

/* As many as before, where nothing has come of it. */
static int undo_count(struct shards *s, unsigned int had, int rc)
{
	struct err why = {0};

	if (!any_pool(s) && shards_count(s) != had && shards_resize(s, had, &why) < 0)
		route_undo_failed(s, 0, "pool", &why);
	return rc;
}

int route_pool_create(struct shards *s, struct route_job *job)
{
	const Parapet__PoolCreate *req = job->call.req->pool_create;
	unsigned int count = req->has_shards ? req->shards : shards_default(s);
	unsigned int had = shards_count(s);
	int rc;

	for (unsigned int i = 0; i < job->nparts; i++)
		if (card_has_pool(shards_card(s, i))) /* it says so */
			return route_part_alone(s, job, i, call_pool_create);
	if (count < 1 || count > SHARDS_MAX)
		return err_set(&job->call.err, -EINVAL, "pool", "shards", "%u; allowed: 1 to %u",
			count, SHARDS_MAX);
	rc = widen(s, job, count);
	if (rc == 0)
		rc = pool_each(s, job, call_pool_create, 0, undo_create);
	return rc < 0 ? undo_count(s, had, rc) : answer_status(s, job);
}

/* How many shards the pool has that the request would open. */
struct probe {
	const Parapet__PoolOpen *req;
	unsigned int count;
	struct err e;
};

static int probe(struct card *c, void *arg)
{
	struct probe *p = arg;

	return card_pool_shards(c, p->req, &p->count, &p->e);
}

/* Those shards that have their part open already. */
static uint32_t open_parts(const struct shards *s)
{
	uint32_t mask = 0;

	for (unsigned int i = 0; i < shards_count(s); i++)
		mask |= (uint32_t)card_has_pool(shards_card(s, i)) << i;
	return mask;
}

int route_pool_open(struct shards *s, struct route_job *job)
{
	struct probe p = {.req = job->call.req->pool_open, .count = 1};
	unsigned int had = shards_count(s);
	uint32_t open = open_parts(s);
	struct err why = {0};
	int rc = 0;

	if (open == (1u << had) - 1)
		return route_part_alone(s, job, 0, call_pool_open); /* it says that there is one */
	/* Where none of its flash says how many there are, opening it says what is wrong. */
	if (!open)
		rc = widen(s, job, shards_run(s, 0, probe, &p) == 0 ? p.count : had);
	if (rc == 0)
		rc = pool_each(s, job, call_pool_open, open, undo_open);
	if (rc < 0)
		return undo_count(s, had, rc);
	/* Each VM is where its devices are. */
	if (shards_place_vms(s, NULL, &why) < 0)
		event_post(route_events(s), EVENT_ERROR, "shards", "card",
			"VMs are not where their devices are: %s", err_text(&why));
	if (job->nparts > 1)
		shards_vms_again(s);
	return answer_status(s, job);
}

/* ---- settings --------------------------------------------------------------------------------------------------------- */

/* What of the request was different before; settings it does not name stay out. 0 is the default. */
#define BEFORE(to, from, name)                                              \
	do {                                                                \
		if ((to)->has_##name)                                       \
			(to)->name = (from)->has_##name ? (from)->name : 0; \
	} while (0)

static void settings_before(Parapet__PoolSettings *s, const Parapet__PoolSettings *was)
{
	BEFORE(s, was, suspect_ms);
	BEFORE(s, was, timeout_ms);
	BEFORE(s, was, error_limit);
	BEFORE(s, was, space_warning);
	BEFORE(s, was, space_critical);
	BEFORE(s, was, scrub_interval_s);
	BEFORE(s, was, rebuild_delay_s);
	BEFORE(s, was, auto_restore);
	BEFORE(s, was, auto_return);
}

/* A request that makes part i what it is now, to be kept by the caller. */
struct former {
	Parapet__Request req;
	Parapet__PoolSet set;
	Parapet__PoolSettings settings;
};

static int former_get(struct shards *s, struct route_job *job, unsigned int i, struct former *f)
{
	const Parapet__PoolSet *req = job->call.req->pool_set;
	const Parapet__PoolStatus *p;
	int rc = route_part_run(s, job, i, call_status);

	if (rc < 0)
		return rc;
	p = job->parts[i].call.resp.status->pool;
	parapet__request__init(&f->req);
	parapet__pool_set__init(&f->set);
	f->req.op_case = PARAPET__REQUEST__OP_POOL_SET;
	f->req.pool_set = &f->set;
	f->set.has_k = f->set.has_m = req->has_k && p->has_k;
	f->set.k = p->k;
	f->set.m = p->m;
	f->set.has_on_degraded = req->has_on_degraded && p->has_on_degraded;
	f->set.on_degraded = p->on_degraded;
	if (req->settings && p->settings) {
		f->settings = *req->settings;
		settings_before(&f->settings, p->settings);
		f->set.settings = &f->settings;
	}
	return 0;
}

int route_pool_set(struct shards *s, struct route_job *job)
{
	struct former was[SHARDS_MAX];
	int rc = 0;

	for (unsigned int i = 0; rc == 0 && i < job->nparts; i++) {
		rc = former_get(s, job, i, &was[i]);
		if (rc == 0)
			rc = route_part_run(s, job, i, call_pool_set);
		if (rc == 0)
			continue;
		rc = route_part_failed(job, i, i > 0);
		while (i-- > 0)
			if (route_part_ask(s, job, i, call_pool_set, &was[i].req) < 0)
				route_undo_failed(s, i, "pool", &job->parts[i].call.err);
		return rc;
	}
	return rc;
}

int route_checkpoint(struct shards *s, struct route_job *job)
{
	route_parts_run(s, job, call_checkpoint);
	return 0; /* a part that failed is seen when they are merged */
}

/* ---- tables -------------------------------------------------------------------------------------------------------------- */

static int tables_of(struct card *c, void *arg)
{
	*(struct tables_doc **)arg = card_tables(c);
	return 0;
}

/* On all before any of them changes; shard 0 first, so that what is wrong with the tables as such is said by it. */
static int push_check(struct shards *s, struct route_job *job)
{
	Parapet__Request req = *job->call.req;
	Parapet__TablesPush push = *req.tables_push;
	int rc = 0;

	push.has_check_only = push.check_only = true;
	req.tables_push = &push;
	for (unsigned int i = 0; rc == 0 && i < job->nparts; i++) {
		rc = route_part_ask(s, job, i, call_tables_push, &req);
		if (rc < 0)
			route_part_failed(job, i, i > 0);
	}
	return rc;
}

struct put_back {
	struct tables_doc *doc;
	struct err e;
};

static int put_back(struct card *c, void *arg)
{
	struct put_back *p = arg;

	return card_put_tables(c, p->doc, &p->e);
}

/* Tasks that a part's push has started. */
static void tasks_cancel(struct shards *s, struct route_job *job, unsigned int i)
{
	Parapet__TaskControl cancel = PARAPET__TASK_CONTROL__INIT;
	Parapet__Request req = PARAPET__REQUEST__INIT;
	const Parapet__TablesApplied *a = job->parts[i].call.resp.applied;
	size_t n = a ? a->n_tasks : 0;
	uint32_t *ids = calloc(n + 1, sizeof(*ids));

	for (size_t k = 0; ids && k < n; k++)
		ids[k] = a->tasks[k]->id;
	req.op_case = PARAPET__REQUEST__OP_TASK_CONTROL;
	req.task_control = &cancel;
	cancel.action = PARAPET__TASK_ACTION__TASK_ACTION_CANCEL;
	for (size_t k = 0; ids && k < n; k++) {
		cancel.id = ids[k];
		route_part_ask(s, job, i, call_task_control, &req);
	}
	free(ids);
}

static void push_undo(
	struct shards *s, struct route_job *job, unsigned int from, struct tables_doc *const *was)
{
	for (unsigned int i = from; i < job->nparts; i++) {
		struct put_back back = {.doc = was[i]};

		tasks_cancel(s, job, i);
		if (shards_run(s, i, put_back, &back) < 0)
			route_undo_failed(s, i, "tables", &back.e);
	}
}

/* Shard 0 last: what it remembers are the card's tables. */
static int push_apply(struct shards *s, struct route_job *job)
{
	struct tables_doc *was[SHARDS_MAX] = {NULL};
	int rc = 0;

	for (unsigned int i = job->nparts; rc == 0 && i-- > 0;) {
		rc = shards_run(s, i, tables_of, &was[i]);
		if (rc == 0)
			rc = route_part_run(s, job, i, call_tables_push);
		if (rc < 0) {
			rc = route_part_failed(job, i, i + 1 < job->nparts);
			push_undo(s, job, i + 1, was);
		}
	}
	for (unsigned int i = 0; i < job->nparts; i++)
		tables_doc_put(was[i]);
	return rc;
}

int route_tables_push(struct shards *s, struct route_job *job)
{
	const Parapet__TablesPush *req = job->call.req->tables_push;
	struct err e = {0};
	int rc = 0;

	if (job->nparts == 1)
		return route_part_alone(s, job, 0, call_tables_push);
	/* New VMs have to be somewhere before they can come up there; those that go keep their place until they have gone. */
	if (!req->check_only)
		rc = shards_place_vms(s, req->tables, &job->call.err);
	if (rc == 0)
		rc = push_check(s, job);
	if (rc < 0 || req->check_only)
		return rc;
	rc = push_apply(s, job);
	if (rc == 0 && shards_place_vms(s, NULL, &e) < 0)
		event_post(route_events(s), EVENT_WARNING, "shards", "card",
			"VMs that are gone are remembered: %s", err_text(&e));
	return rc;
}
