/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool of a card and its flash: made, opened, settings, devices that come and go. */
#include "host-agent/agentd/pbjson.h"
#include "host-agent/agentd/sync_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define OPENING_NAPS 60 /* of 50 ms: how long a change waits for a card that opens its pool */

/* ---- the pool --------------------------------------------------------------------------------------- */

struct flash_list {
	Parapet__Flash *items;
	Parapet__Flash **list;
	size_t n;
};

static void flash_list_free(struct flash_list *f)
{
	free(f->items);
	free(f->list);
}

static const char *change_of(const json_t *flash)
{
	return field_text_or_empty(flash, "change");
}

/* Strings stay those of o. */
static void flash_message(Parapet__Flash *p, const json_t *o)
{
	parapet__flash__init(p);
	p->name = (char *)field_text(o, "name");
	p->address = (char *)field_text_or_empty(
		o, "address"); /* "" where it is a member already */
	p->domain = (char *)field_text(o, "domain");
	p->atomic_bytes = (uint32_t)field_number(o, "atomic_bytes");
	p->has_atomic_bytes = json_object_get(o, "atomic_bytes") != NULL;
	p->block_bytes = (uint32_t)field_number(o, "block_bytes");
	p->has_block_bytes = json_object_get(o, "block_bytes") != NULL;
	p->has_spare = p->spare = flag_of(o, "spare");
}

/* Those that are members, or become it with the pool; not those that are still to be added to it. Strings stay those of flashes. */
static int flash_list_make(struct flash_list *f, const json_t *flashes)
{
	json_t *o;
	size_t i, n = json_array_size(flashes);

	*f = (struct flash_list){.n = 0};
	f->items = calloc(n + 1, sizeof(*f->items));
	f->list = calloc(n + 1, sizeof(*f->list));
	if (!f->items || !f->list) {
		flash_list_free(f);
		return -ENOMEM;
	}
	json_array_foreach((json_t *)flashes, i, o)
	{
		if (!strcmp(change_of(o), "add"))
			continue;
		f->list[f->n] = &f->items[f->n];
		flash_message(f->list[f->n++], o);
	}
	return 0;
}

static int pool_create(struct sync *y, const json_t *pool, struct flash_list *f)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__PoolCreate pc = PARAPET__POOL_CREATE__INIT;
	const char *degraded = field_text(pool, "on_degraded");
	struct rpc_msg reply;
	int rc;

	req.op_case = PARAPET__REQUEST__OP_POOL_CREATE;
	req.pool_create = &pc;
	pc.flashes = f->list;
	pc.n_flashes = f->n;
	schema_parse_ec(field_text(pool, "ec"), &pc.k, &pc.m);
	pc.has_on_degraded = degraded != NULL;
	pc.on_degraded = degraded && !strcmp(degraded, "allow")
				 ? PARAPET__ON_DEGRADED__ON_DEGRADED_ALLOW
				 : PARAPET__ON_DEGRADED__ON_DEGRADED_REFUSE;
	pc.has_segment_bytes = json_object_get(pool, "segment_bytes") != NULL;
	pc.segment_bytes = field_number(pool, "segment_bytes");
	pc.has_same_flash = pc.same_flash = flag_of(pool, "same_flash");
	pc.has_force = pc.force = flag_of(pool, "force");
	pc.has_shards = json_object_get(pool, "shards") != NULL;
	pc.shards = (uint32_t)field_number(pool, "shards");
	rc = sync_call(y, &req, &reply);
	if (!rc)
		rpc_msg_clear(&reply);
	return rc;
}

static int pool_open(struct sync *y, struct flash_list *f, bool force, bool take_over)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__PoolOpen po = PARAPET__POOL_OPEN__INIT;
	struct rpc_msg reply;
	int rc;

	req.op_case = PARAPET__REQUEST__OP_POOL_OPEN;
	req.pool_open = &po;
	po.flashes = f->list;
	po.n_flashes = f->n;
	po.has_force = po.force = force;
	po.has_take_over = po.take_over = take_over;
	rc = sync_call(y, &req, &reply);
	if (!rc)
		rpc_msg_clear(&reply);
	return rc;
}

/* 1: it does not open, which is a problem of its own. */
static int pool_reopen(struct sync *y, struct flash_list *f)
{
	int rc = pool_open(y, f, false, false);

	if (rc >= 0 || rc == -EHOSTUNREACH)
		return rc;
	snprintf(y->res->problem, sizeof(y->res->problem), "the card's pool does not open: %.270s",
		y->e ? err_text(y->e) : "");
	return 1;
}

/* One of PoolSettings' fields. keep: what the store does not name stays as it is, else the card's default. */
#define SETTING(set, pool, have, keep, name)                                        \
	do {                                                                        \
		uint64_t want_ = field_number(pool, #name);                         \
		if ((keep) && !json_object_get(pool, #name))                        \
			break;                                                      \
		(set)->has_##name = want_ != ((have) ? (uint64_t)(have)->name : 0); \
		(set)->name = want_;                                                \
		any |= (set)->has_##name;                                           \
	} while (0)

static bool settings_differ(
	const json_t *pool, const Parapet__PoolSettings *have, Parapet__PoolSettings *set)
{
	bool any = false, restore = flag_of(pool, "auto_restore");
	bool come_back = !json_object_get(pool, "auto_return") || flag_of(pool, "auto_return");

	parapet__pool_settings__init(set);
	SETTING(set, pool, have, false, suspect_ms);
	SETTING(set, pool, have, false, timeout_ms);
	SETTING(set, pool, have, false, error_limit);
	SETTING(set, pool, have, false, space_warning);
	SETTING(set, pool, have, false, space_critical);
	SETTING(set, pool, have, true, scrub_interval_s);
	SETTING(set, pool, have, true, rebuild_delay_s);
	/* Kept by the card; absent: on. */
	if (come_back != (!have || !have->has_auto_return || have->auto_return)) {
		set->has_auto_return = any = true;
		set->auto_return = come_back;
	}
	if (json_object_get(pool, "auto_restore") &&
		(!have || !have->has_auto_restore || have->auto_restore != restore)) {
		set->has_auto_restore = any = true;
		set->auto_restore = restore;
	}
	return any;
}

/* Sends PoolSet where the card's settings differ from the store's. */
static int pool_settings(struct sync *y, const json_t *pool, const Parapet__PoolStatus *have)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__PoolSet ps = PARAPET__POOL_SET__INIT;
	const char *degraded = field_text(pool, "on_degraded");
	Parapet__PoolSettings set;
	struct rpc_msg reply;
	uint32_t k = 0, m = 0;
	int rc;

	schema_parse_ec(field_text(pool, "ec"), &k, &m);
	if (have && have->has_k && have->has_m && (have->k != k || have->m != m)) {
		ps.has_k = ps.has_m = true;
		ps.k = k;
		ps.m = m;
	}
	ps.on_degraded = degraded && !strcmp(degraded, "allow")
				 ? PARAPET__ON_DEGRADED__ON_DEGRADED_ALLOW
				 : PARAPET__ON_DEGRADED__ON_DEGRADED_REFUSE;
	ps.has_on_degraded = have && have->has_on_degraded && have->on_degraded != ps.on_degraded;
	if (settings_differ(pool, have ? have->settings : NULL, &set))
		ps.settings = &set;
	if (!ps.has_k && !ps.has_on_degraded && !ps.settings)
		return 0;
	req.op_case = PARAPET__REQUEST__OP_POOL_SET;
	req.pool_set = &ps;
	rc = sync_call(y, &req, &reply);
	if (!rc)
		rpc_msg_clear(&reply);
	return rc;
}

/* ---- flash that comes and goes ------------------------------------------------------------------------------ */

static const Parapet__Flash *flash_in(const Parapet__PoolStatus *have, const char *name)
{
	for (size_t i = 0; have && i < have->n_flashes; i++)
		if (!strcmp(have->flashes[i]->flash->name, name))
			return have->flashes[i]->flash;
	return NULL;
}

static int flash_add(struct sync *y, const json_t *o)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlashAdd fa = PARAPET__FLASH_ADD__INIT;
	Parapet__Flash f;
	struct rpc_msg reply;
	int rc;

	flash_message(&f, o);
	fa.flash = &f;
	fa.has_force = fa.force = flag_of(o, "force");
	req.op_case = PARAPET__REQUEST__OP_FLASH_ADD;
	req.flash_add = &fa;
	rc = sync_call(y, &req, &reply);
	if (rc < 0)
		return rc;
	rpc_msg_clear(&reply);
	if (!y->res->added)
		y->res->added = json_array();
	json_array_append(y->res->added, json_object_get(o, "name"));
	return 0;
}

/* A member that somebody else has added, or one of a pool that was taken over: the pool is the truth. */
static int flash_adopt(struct sync *y, const Parapet__Flash *f)
{
	json_t *o = json_pack("{s:s, s:s, s:s, s:s?}", "node", y->node, "name", f->name, "address",
		f->address, "domain", f->domain);
	int rc = o ? 0 : field_no_memory(y->e, "flash");

	if (!rc && f->has_atomic_bytes && f->atomic_bytes)
		json_object_set_new(o, "atomic_bytes", json_integer(f->atomic_bytes));
	if (!rc && f->has_block_bytes && f->block_bytes)
		json_object_set_new(o, "block_bytes", json_integer(f->block_bytes));
	if (!rc && f->leaving)
		json_object_set_new(o, "change", json_string("remove"));
	if (!rc)
		rc = store_put(y->s, &noun_flash, o, y->e);
	json_decref(o);
	return rc;
}

static int flash_wish(struct sync *y, const json_t *o, const Parapet__PoolStatus *have)
{
	const char *change = change_of(o), *name = field_text_or_empty(o, "name");
	bool there = flash_in(have, name);
	json_t *done;
	int rc = 0;

	if (!strcmp(change, "remove"))
		return there ? 0 : store_del(y->s, &noun_flash, o, y->e);
	if (strcmp(change, "add") != 0) {
		if (!there && have && !y->res->problem[0])
			snprintf(y->res->problem, sizeof(y->res->problem),
				"flash %.64s is no longer in the card's pool; allowed: 'flash "
				"remove' to forget it",
				name);
		return 0;
	}
	if (!there)
		rc = flash_add(y, o);
	done = json_pack("{s:n}", "change");
	if (!rc)
		rc = done ? store_set(y->s, &noun_flash, o, done, y->e)
			  : field_no_memory(y->e, "flash");
	json_decref(done);
	return rc;
}

/* have: NULL where the pool has just been made of all that are not to be added. */
static int sync_flashes(struct sync *y, const json_t *flashes, const Parapet__PoolStatus *have)
{
	json_t *o;
	size_t i;
	int rc = 0;

	json_array_foreach((json_t *)flashes, i, o)
	{
		if (!rc)
			rc = flash_wish(y, o, have);
	}
	for (i = 0; have && !rc && i < have->n_flashes; i++) {
		const Parapet__Flash *f = have->flashes[i]->flash;
		json_t *known;
		size_t j;
		bool found = false;

		json_array_foreach((json_t *)flashes, j, known)
		{
			found = found || !strcmp(field_text_or_empty(known, "name"), f->name);
		}
		if (!found)
			rc = flash_adopt(y, f);
	}
	return rc;
}

/* ---- the pool as the store wants it ---------------------------------------------------------------------------- */

/* A pool made before this agent knew of it is taken over when it consists of exactly the same devices. */
static bool same_flashes(const Parapet__PoolStatus *have, const struct flash_list *want)
{
	if (have->n_flashes != want->n)
		return false;
	for (size_t i = 0; i < want->n; i++) {
		bool found = false;

		for (size_t j = 0; j < have->n_flashes; j++) {
			const Parapet__Flash *f = have->flashes[j]->flash;

			found = found || (!strcmp(f->name, want->list[i]->name) &&
						 !strcmp(f->address, want->list[i]->address));
		}
		if (!found)
			return false;
	}
	return true;
}

static int sync_pool_with(
	struct sync *y, const json_t *pool, const json_t *flashes, const Parapet__PoolStatus *have)
{
	bool none = pool_is(have, "none");
	struct flash_list f;
	int rc;

	if (pool_is(have, "failed") && flag_of(pool, "created")) {
		y->pool_failed = true;
		snprintf(y->res->problem, sizeof(y->res->problem),
			"the card could not open its pool: %.160s; allowed: bring its flash "
			"devices back "
			"and 'pool open', or 'pool open --force'",
			have->reason ? have->reason : "see its events");
		return 0;
	}
	if (flash_list_make(&f, flashes) < 0)
		return err_set(y->e, -ENOMEM, "pool", "", "out of memory");
	if (none) {
		rc = flag_of(pool, "created") ? pool_reopen(y, &f) : pool_create(y, pool, &f);
		if (!rc && !flag_of(pool, "created")) {
			rc = pool_settings(y, pool, NULL);
			if (!rc)
				rc = sync_flashes(y, flashes, NULL);
		}
	} else if (flag_of(pool, "created") || same_flashes(have, &f)) {
		rc = pool_settings(y, pool, have);
		if (!rc)
			rc = sync_flashes(y, flashes, have);
	} else {
		rc = err_set(y->e, -EEXIST, "pool", "",
			"the card has a pool of other flash devices already (uuid %.40s)",
			have->uuid ? have->uuid : "unknown");
	}
	if (!rc && !flag_of(pool, "created"))
		rc = sync_set_flag(y, &noun_pool, pool, "created");
	flash_list_free(&f);
	return rc;
}

static int ask_status(struct sync *y, struct rpc_msg *reply)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__StatusGet get = PARAPET__STATUS_GET__INIT;
	int rc;

	req.op_case = PARAPET__REQUEST__OP_STATUS_GET;
	req.status_get = &get;
	rc = sync_call(y, &req, reply);
	if (rc < 0 || reply->frame->response->result_case == PARAPET__RESPONSE__RESULT_STATUS)
		return rc;
	rpc_msg_clear(reply);
	return err_set(y->e, -EPROTO, "card", "", "no status in its answer");
}

/* The card opens its pool: that is mostly a matter of moments, and it says when it is ready (node.c). */
static bool is_opening(struct sync *y, const Parapet__PoolStatus *p)
{
	if (!pool_is(p, "recovering"))
		return false;
	if (p->recovery && p->recovery->has_percent)
		snprintf(y->res->waits, sizeof(y->res->waits),
			"the card is opening its pool (recovering, %u %%)", p->recovery->percent);
	else
		snprintf(y->res->waits, sizeof(y->res->waits), "the card is opening its pool");
	return true;
}

/* *ready: the card has its pool. */
static int sync_pool_state(struct sync *y, const json_t *pool, const json_t *flashes, bool *ready)
{
	const struct timespec nap = {.tv_nsec = 50000000};
	struct rpc_msg reply;
	int rc = ask_status(y, &reply);

	for (int i = 0;
		rc == 0 && i < OPENING_NAPS && is_opening(y, reply.frame->response->status->pool);
		i++) {
		rpc_msg_clear(&reply);
		nanosleep(&nap, NULL);
		y->res->waits[0] = '\0';
		rc = ask_status(y, &reply);
	}
	if (rc < 0)
		return rc;
	if (!is_opening(y, reply.frame->response->status->pool)) {
		const Parapet__Status *st = reply.frame->response->status;

		/* another manager may have pushed since we last asked */
		if (st->has_tables_version)
			node_card_version_set(y->a, y->node, st->tables_version);
		rc = sync_pool_with(y, pool, flashes, st->pool);
		*ready = rc == 0;
	}
	rpc_msg_clear(&reply);
	return rc;
}

int sync_pool(struct sync *y, bool *ready)
{
	json_t *pools = NULL, *flashes = NULL;
	int rc = sync_list_of(y, &noun_pool, &pools);

	*ready = false;
	if (!rc && json_array_size(pools)) {
		rc = sync_list_of(y, &noun_flash, &flashes);
		if (!rc)
			rc = sync_pool_state(y, json_array_get(pools, 0), flashes, ready);
	}
	json_decref(pools);
	json_decref(flashes);
	return rc;
}

int sync_pool_open(struct agent *a, struct store *s, const char *node, bool force, bool take_over,
	struct err *e)
{
	struct sync y = {a, s, node, SYNC_PUSH, NULL, e};
	struct flash_list f;
	json_t *flashes = NULL;
	int rc = sync_list_of(&y, &noun_flash, &flashes);

	if (rc < 0)
		return rc;
	rc = flash_list_make(&f, flashes);
	if (rc < 0)
		err_set(e, rc, "pool", "", "out of memory");
	if (!rc) {
		rc = pool_open(&y, &f, force, take_over);
		flash_list_free(&f);
	}
	json_decref(flashes);
	return rc;
}

/* ---- at once, for people who wait for the answer ------------------------------------------------------------------ */

/* A question or a change whose answer is a FlashChanged. */
static int flash_changed(
	struct agent *a, const char *node, Parapet__Request *req, json_t **out, struct err *e)
{
	struct rpc_msg reply;
	int rc = node_call(a, node, req, &reply, e);

	if (rc < 0)
		return rc;
	if (reply.frame->response->result_case == PARAPET__RESPONSE__RESULT_FLASH_CHANGED)
		*out = pbjson_message(&reply.frame->response->flash_changed->base);
	rpc_msg_clear(&reply);
	if (!*out)
		return err_set(e, -EPROTO, "card", "", "its answer is not what was asked for");
	json_object_del(*out, "pool");
	return 0;
}

int sync_flash_remove(struct agent *a, const char *node, const char *name, bool force, json_t **out,
	struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlashRemove fr = PARAPET__FLASH_REMOVE__INIT;

	req.op_case = PARAPET__REQUEST__OP_FLASH_REMOVE;
	req.flash_remove = &fr;
	fr.name = (char *)name;
	fr.has_force = fr.force = force;
	return flash_changed(a, node, &req, out, e);
}

int sync_flash_replace(struct agent *a, const char *node, const char *name, const json_t *by,
	bool force, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlashReplace fr = PARAPET__FLASH_REPLACE__INIT;
	Parapet__Flash f;

	flash_message(&f, by);
	req.op_case = PARAPET__REQUEST__OP_FLASH_REPLACE;
	req.flash_replace = &fr;
	fr.name = (char *)name;
	fr.by = &f;
	fr.has_force = fr.force = force;
	return flash_changed(a, node, &req, out, e);
}

int sync_pool_import(struct agent *a, struct store *s, const char *node, const json_t *flashes,
	bool force, bool take_over, struct err *e)
{
	struct sync y = {a, s, node, SYNC_PUSH, NULL, e};
	struct flash_list f;
	int rc = flash_list_make(&f, flashes);

	if (rc < 0)
		return err_set(e, rc, "pool", "", "out of memory");
	rc = pool_open(&y, &f, force, take_over);
	flash_list_free(&f);
	return rc;
}
