/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables: pushed whole or refused whole, remembered, put in force; the card's own explanation of them. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STATE_TABLES "tables" /* a packed parapet.Tables */

/* ---- settings beside the tables --------------------------------------------------------------------------------- */

struct queue_cfg queue_cfg_of(const struct tables_doc *doc)
{
	const Parapet__Queue *q = doc->pb->queue;
	struct queue_cfg cfg = QUEUE_CFG_DEFAULT;

	if (!q)
		return cfg;
	if (q->has_bytes)
		cfg.max_bytes = q->bytes;
	if (q->has_count)
		cfg.max_count = q->count;
	if (q->has_age_us)
		cfg.max_age_us = q->age_us;
	if (q->has_each)
		cfg.per_request = q->each;
	if (q->has_per_vm)
		cfg.per_vm = q->per_vm;
	if (q->has_group_commit)
		cfg.group_commit = q->group_commit;
	return cfg;
}

static enum shard_mode mode_of(const struct card *c, const struct tables_doc *doc)
{
	if (!doc->pb->has_reception)
		return c->cfg.mode;
	switch (doc->pb->reception) {
	case PARAPET__RECEPTION__RECEPTION_POLLING:
		return SHARD_POLLING;
	case PARAPET__RECEPTION__RECEPTION_INTERRUPT:
		return SHARD_INTERRUPT;
	default:
		return SHARD_ADAPTIVE;
	}
}

static void settings_in_force(struct card *c, const struct tables_doc *doc)
{
	struct queue_cfg q = queue_cfg_of(doc);

	shard_set_mode(c->cfg.shard, mode_of(c, doc));
	if (c->store)
		queue_set(store_queue(c->store), &q);
}

/* ---- checks ------------------------------------------------------------------------------------------------------- */

/* Flash names a document is judged against. */
static size_t flash_names(const struct card *c, const char *names[POOL_DEVS_MAX])
{
	const struct pool *p = c->store ? store_pool(c->store) : NULL;
	size_t n = 0;

	for (unsigned int i = 0; p && i < pool_ndevs(p); i++)
		if (pool_dev(p, i)->state != POOL_DEV_REMOVED)
			names[n++] = pool_dev(p, i)->name;
	return n;
}

static int check_version(const struct card *c, const Parapet__TablesPush *req, struct err *e)
{
	uint64_t have = c->doc->policy->version;
	const Parapet__Tables *t = req->tables;

	if (req->base_version != have)
		return err_set(e, -ESTALE, "tables", "base_version",
			"the card has version %lu, this push was made from %lu; fetch, merge and "
			"push again",
			(unsigned long)have, (unsigned long)req->base_version);
	if (t->version <= have)
		return err_set(e, -ESTALE, "tables", "version",
			"the card has version %lu; a new one must be larger than that, not %lu",
			(unsigned long)have, (unsigned long)t->version);
	if (have && t->node != c->doc->pb->node)
		return err_set(e, -EINVAL, "tables", "node", "this card is node %u, not %u",
			c->doc->pb->node, t->node);
	return 0;
}

/* A VM that has devices stays; its volumes would belong to nobody. */
static int check_vms_that_go(const struct card *c, const struct tables_doc *doc, struct err *e)
{
	for (size_t i = 0; i < c->doc->pb->n_vms; i++) {
		const Parapet__Vm *vm = c->doc->pb->vms[i];
		unsigned int n;
		char object[96];

		if (tables_doc_vm(doc, vm->vm))
			continue;
		n = devices_of_vm(c, vm->vm);
		if (n)
			return err_set(e, -EBUSY,
				object_name(object, sizeof(object), "vm", vm->name), NULL,
				"it has %u devices in the pool; delete them first", n);
	}
	return 0;
}

static int check_queue(const struct tables_doc *doc, struct err *e)
{
	struct queue_cfg q = queue_cfg_of(doc);

	return queue_cfg_check(&q, e);
}

/* ---- data and intermediate flash of volumes ------------------------------------------------------------------------ */

/* New segments of the VMs' volumes come from where doc says. Stops at the first that fails. */
static int devs_in_force(struct card *c, const struct tables_doc *doc, struct err *e)
{
	struct volume *vol = c->store ? volume_first(c->store) : NULL;
	struct pool *pool = c->store ? store_pool(c->store) : NULL;
	struct device_id id;
	int rc = 0;

	for (; vol && rc == 0; vol = volume_next(vol)) {
		const struct policy_vm *v;
		int data, inter;

		if (device_parse(vol, &id) < 0 || !(v = tables_doc_policy_vm(doc, id.vm)))
			continue;
		data = v->data_flash[0] ? pool_dev_find(pool, v->data_flash) : -1;
		inter = v->inter_flash[0] ? pool_dev_find(pool, v->inter_flash) : POOL_DEV_NONE;
		if (data < 0) /* none named: what it has stays */
			data = volume_cfg(vol)->data_dev;
		if (data != volume_cfg(vol)->data_dev || inter != volume_cfg(vol)->intermediate_dev)
			rc = volume_set_devs(vol, data, inter, e);
	}
	return rc;
}

/* ---- putting a document in force ------------------------------------------------------------------------------------- */

/* Shard 0's is the one that a restart finds. */
static int save(struct card *c, const uint8_t *packed, size_t len, struct err *e)
{
	return c->cfg.first ? 0 : state_save(c->state, STATE_TABLES, packed, len, e);
}

static int in_force(struct card *c, struct tables_doc *doc, struct err *e)
{
	struct tables_doc *was = c->doc;
	int rc = devices_publish(c, doc, e);

	c->doc = tables_doc_get(doc);
	atomic_store(&c->tables_version, doc->policy->version);
	tables_doc_put(was);
	settings_in_force(c, doc);
	c->tables_problem[0] = 0;
	return rc;
}

/* All or nothing: what fails puts the former document's ways in and devices back. */
static int apply(
	struct card *c, struct tables_doc *doc, const uint8_t *packed, size_t len, struct err *e)
{
	struct tables_doc *was = c->doc;
	int rc = vms_reconcile(c, doc, true, e);

	if (rc == 0)
		rc = devs_in_force(c, doc, e);
	if (rc == 0)
		rc = save(c, packed, len, e);
	if (rc < 0) {
		struct err undo = {0};

		if (devs_in_force(c, was, &undo) < 0 || vms_reconcile(c, was, false, &undo) < 0)
			event_post(c->events, EVENT_ERROR, "undo-failed", "tables", "%s",
				err_text(&undo));
		return rc;
	}
	/* From here on the new document is what a restart finds: nothing below may refuse it. */
	return in_force(c, doc, e);
}

int card_put_tables(struct card *c, struct tables_doc *doc, struct err *e)
{
	size_t len = parapet__tables__get_packed_size(doc->pb);
	autofree uint8_t *packed = malloc(len + 1);
	int rc = packed ? 0 : err_set(e, -ENOMEM, "tables", NULL, "out of memory");

	if (rc == 0)
		rc = vms_reconcile(c, doc, false, e);
	if (rc == 0)
		rc = devs_in_force(c, doc, e);
	if (rc < 0)
		return rc;
	parapet__tables__pack(doc->pb, packed);
	rc = save(c, packed, len, e);
	return rc < 0 ? rc : in_force(c, doc, e);
}

struct changes {
	struct call *c;
	Parapet__TablesApplied *out;
	size_t room;
};

static void note_change(void *arg, const struct policy_change *ch)
{
	struct changes *cs = arg;
	Parapet__Change *m;

	if (cs->out->n_changes >= cs->room)
		return;
	m = cs->out->changes[cs->out->n_changes++];
	m->vm = call_str(cs->c, ch->vm);
	m->path = call_str(cs->c, ch->path);
	m->has_before = ch->before != NULL;
	if (ch->before)
		m->before = (Parapet__Outcome)policy_decide(ch->before);
	m->has_after = ch->after != NULL;
	if (ch->after)
		m->after = (Parapet__Outcome)policy_decide(ch->after);
}

/* Rows that apply to nothing yet are allowed, and said. */
static int note_remarks(struct call *c, const struct tables_doc *doc, Parapet__TablesApplied *out)
{
	const struct policy_table *t = doc->policy;

	out->remarks = call_alloc(c, (t->nrows + 1) * sizeof(out->remarks[0]));
	if (!out->remarks)
		return -ENOMEM;
	for (size_t i = 0; i < t->nvms; i++)
		for (size_t j = 0; j < t->vms[i].nrows; j++)
			if (policy_row_covers(&t->vms[i], &t->vms[i].rows[j]) == 0)
				out->remarks[out->n_remarks++] = call_fmt(c,
					"table 204 row %u (vm %s): applies to no device yet",
					t->vms[i].rows[j].number, t->vms[i].name);
	return 0;
}

static int answer(struct card *card, struct call *c, const struct tables_doc *before,
	const struct tables_doc *after)
{
	Parapet__TablesApplied *r = call_message(
		c, Parapet__TablesApplied, parapet__tables_applied__init);
	struct changes cs = {.c = c, .out = r};

	if (!r)
		return -ENOMEM;
	cs.room = policy_diff(before->policy, after->policy, NULL, NULL);
	if (call_messages(c, cs.room, Parapet__Change, parapet__change__init, &r->changes) < 0)
		return -ENOMEM;
	policy_diff(before->policy, after->policy, note_change, &cs);
	c->resp.result_case = PARAPET__RESPONSE__RESULT_APPLIED;
	c->resp.applied = r;
	return note_remarks(c, after, r);
}

int call_tables_push(struct card *card, struct call *c)
{
	const Parapet__TablesPush *req = c->req->tables_push;
	size_t len = parapet__tables__get_packed_size(req->tables);
	autofree uint8_t *packed = malloc(len + 1);
	const char *names[POOL_DEVS_MAX];
	struct tables_env env = {.flashes = names, .no_pool = !card->store};
	struct tables_doc *doc, *before = card->doc;
	struct rpc_arena *arena;
	Parapet__Tables *pb;
	int rc = packed ? check_version(card, req, &c->err) : -ENOMEM;

	if (rc < 0)
		return rc;
	/* The request's memory goes with the request: the document gets its own. */
	parapet__tables__pack(req->tables, packed);
	rc = rpc_unpack_tables(packed, len, &pb, &arena);
	if (rc < 0)
		return rc;
	env.nflashes = flash_names(card, names);
	rc = tables_doc_build(pb, arena, &env, &doc, &c->err);
	if (rc < 0) {
		rpc_arena_free(arena);
		return rc;
	}
	tables_doc_get(before);
	rc = check_queue(doc, &c->err);
	if (rc == 0)
		rc = check_vms_that_go(card, doc, &c->err);
	if (rc == 0)
		rc = vms_check(card, doc, &c->err);
	if (rc == 0)
		rc = answer(card, c, before, doc);
	if (rc == 0 && !req->check_only)
		rc = apply(card, doc, packed, len, &c->err);
	if (rc == 0 && !req->check_only && !req->no_migrate)
		rc = tasks_migrate(card, c, before, doc, c->resp.applied);
	if (rc == 0) {
		c->resp.applied->version = card->doc->policy->version;
		if (!req->check_only && !card->cfg.first)
			event_post(card->events, EVENT_INFO, "tables-applied", "tables",
				"version %lu%s%s, %zu devices change their outcome",
				(unsigned long)doc->policy->version, pb->author ? " by " : "",
				pb->author ? pb->author : "", c->resp.applied->n_changes);
	}
	tables_doc_put(before);
	tables_doc_put(doc);
	return rc;
}

int call_tables_get(struct card *card, struct call *c)
{
	c->doc = tables_doc_get(card->doc);
	c->resp.result_case = PARAPET__RESPONSE__RESULT_TABLES;
	c->resp.tables = (Parapet__Tables *)card->doc->pb;
	return 0;
}

/* ---- at start ---------------------------------------------------------------------------------------------------------- */

static void take_doc(struct card *c, struct tables_doc *doc)
{
	tables_doc_put(c->doc);
	c->doc = doc;
	atomic_store(&c->tables_version, doc->policy->version);
}

static int recall(struct card *c, struct err *e)
{
	autofree void *body = NULL;
	struct tables_env env = {.no_pool = true};
	struct rpc_arena *arena;
	struct tables_doc *doc;
	Parapet__Tables *pb;
	size_t len;
	int rc = state_load(c->state, STATE_TABLES, &body, &len, e);

	if (rc < 0)
		return rc;
	rc = rpc_unpack_tables(body, len, &pb, &arena);
	if (rc < 0)
		return err_set(e, rc, "state tables", NULL, "they cannot be read");
	rc = tables_doc_build(pb, arena, &env, &doc, e);
	if (rc < 0) {
		rpc_arena_free(arena);
		return rc;
	}
	take_doc(c, doc);
	return 0;
}

void tables_bring_up(struct card *c)
{
	struct err e = {0};
	int rc = 0;

	if (c->cfg.first)
		take_doc(c, tables_doc_get(c->cfg.first->doc));
	else
		rc = recall(c, &e);
	if (rc < 0 && rc != -ENOENT) {
		snprintf(c->tables_problem, sizeof(c->tables_problem), "%s", err_text(&e));
		event_post(c->events, EVENT_ERROR, "tables-lost", "tables",
			"%s; no VM has access until the agent pushes them", c->tables_problem);
	}
	settings_in_force(c, c->doc);
}

/* ---- explain ------------------------------------------------------------------------------------------------------------- */

static int explain_rows(
	struct call *c, const struct policy_explanation *x, uint32_t vm, Parapet__Explanation *r)
{
	if (call_messages(c, x->nrows, Parapet__ExplainRow, parapet__explain_row__init, &r->rows) <
		0)
		return -ENOMEM;
	for (size_t i = 0; i < x->nrows; i++) {
		const struct policy_explain_row *xr = &x->rows[i];
		Parapet__ExplainRow *m = r->rows[r->n_rows++];

		m->row = call_message(c, Parapet__Row, parapet__row__init);
		if (!m->row)
			return -ENOMEM;
		m->row->vm = vm;
		m->row->method = xr->row->method[0] ? call_str(c, xr->row->method) : NULL;
		m->row->path = xr->row->path[0] ? call_str(c, xr->row->path) : NULL;
		m->row->ec = xr->row->ec;
		m->has_number = m->has_matched = m->has_decisive = true;
		m->number = xr->row->number;
		m->matched = xr->matched;
		m->decisive = xr->decisive;
		m->match = call_str(c, policy_match_name(xr->match));
		m->why = call_str(c, xr->why);
	}
	return 0;
}

static int explain_fill(struct call *c, const struct policy_explanation *x, Parapet__Explanation *r)
{
	r->version = x->version;
	r->vm = call_str(c, x->vm->name);
	r->path = call_str(c, x->device->path);
	r->has_read = r->has_mode = true;
	r->read = x->op == POLICY_OP_READ;
	r->mode = (Parapet__Mode)x->vm->mode;
	r->mode_why = call_str(c, x->mode_why);
	r->method = call_str(c, x->device->method);
	r->method_why = call_str(c, x->method_why);
	r->outcome = (Parapet__Outcome)x->outcome;
	r->result = call_str(c, x->result);
	if (call_messages(
		    c, x->nsteps, Parapet__ExplainStep, parapet__explain_step__init, &r->steps) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < x->nsteps; i++) {
		r->steps[i]->has_figure = true;
		r->steps[i]->figure = x->steps[i].figure;
		r->steps[i]->text = call_str(c, x->steps[i].text);
	}
	r->n_steps = x->nsteps;
	return explain_rows(c, x, x->vm->vm, r);
}

int call_explain(struct card *card, struct call *c)
{
	const Parapet__Explain *req = c->req->explain;
	const struct policy_device *dev = tables_doc_device(card->doc, req->vm, req->path);
	Parapet__Explanation *r = call_message(c, Parapet__Explanation, parapet__explanation__init);
	struct policy_explanation *x = NULL;
	char object[96];
	int rc;

	snprintf(object, sizeof(object), "device %.64s", req->path);
	if (!dev)
		return err_set(&c->err, -ENOENT, object, NULL,
			"version %lu of the tables has no such device of vm %u",
			(unsigned long)card->doc->policy->version, req->vm);
	rc = r ? policy_explain(
			 card->doc->policy, dev, req->read ? POLICY_OP_READ : POLICY_OP_WRITE, &x)
	       : -ENOMEM;
	if (rc == 0)
		rc = explain_fill(c, x, r);
	free(x);
	c->resp.result_case = PARAPET__RESPONSE__RESULT_EXPLANATION;
	c->resp.explanation = r;
	return rc;
}
