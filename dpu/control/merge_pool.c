/* SPDX-License-Identifier: BSD-3-Clause */
/* One pool out of the pools of all shards. */
#include "dpu/control/merge_priv.h"

#include <errno.h>
#include <string.h>

/* Later is worse; what is not listed is the worst. */
static size_t rank(const char *const *names, size_t n, const char *state)
{
	for (size_t i = 0; state && i < n; i++)
		if (!strcmp(names[i], state))
			return i;
	return state ? n : 0;
}

static char *worse(const char *const *names, size_t n, char *a, char *b)
{
	return rank(names, n, b) > rank(names, n, a) || !a ? b : a;
}

/* ---- a flash: its slices ---------------------------------------------------------------------------------------- */

static void add_areas(Parapet__Areas *to, const Parapet__Areas *from)
{
	MERGE_SUM(to, from, data);
	MERGE_SUM(to, from, redundancy);
	MERGE_SUM(to, from, intermediate);
	MERGE_SUM(to, from, metadata);
}

static int areas_of(struct call *c, Parapet__Areas **to, const Parapet__Areas *from)
{
	if (!from)
		return 0;
	if (!*to)
		*to = call_message(c, Parapet__Areas, parapet__areas__init);
	if (!*to)
		return -ENOMEM;
	add_areas(*to, from);
	return 0;
}

static int latencies(
	struct call *c, Parapet__FlashStatus *const *parts, size_t n, Parapet__FlashStatus *out)
{
	size_t room = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i]->n_latency;
	if (call_messages(c, room, Parapet__Latency, parapet__latency__init, &out->latency) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < parts[i]->n_latency; j++) {
			Parapet__Latency *from = parts[i]->latency[j];
			size_t k = 0;

			while (k < out->n_latency && strcmp(out->latency[k]->op, from->op))
				k++;
			if (k == out->n_latency)
				out->latency[out->n_latency++]->op = from->op;
			MERGE_MAX(out->latency[k], from, p50_us);
			MERGE_MAX(out->latency[k], from, p99_us);
			MERGE_MAX(out->latency[k], from, max_us);
			MERGE_SUM(out->latency[k], from, count);
		}
	return 0;
}

/* The same way, gone by each shard with a connection of its own: usable where all can use it. */
static void path_add(Parapet__Path *to, const Parapet__Path *from)
{
	if (to->usable && !from->usable) {
		to->state = from->state;
		to->error = from->error;
	}
	MERGE_ALL(to, from, usable);
	MERGE_SUM(to, from, in_flight);
	MERGE_SUM(to, from, commands);
	MERGE_SUM(to, from, losses);
	MERGE_SUM(to, from, timeouts);
	if (!to->error)
		to->error = from->error;
}

static int paths(
	struct call *c, Parapet__FlashStatus *const *parts, size_t n, Parapet__FlashStatus *out)
{
	size_t room = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i]->n_paths;
	if (call_messages(c, room, Parapet__Path, parapet__path__init, &out->paths) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < parts[i]->n_paths; j++) {
			const Parapet__Path *from = parts[i]->paths[j];
			size_t k = 0;

			while (k < out->n_paths && strcmp(out->paths[k]->address, from->address))
				k++;
			if (k < out->n_paths)
				path_add(out->paths[k], from);
			else
				*out->paths[out->n_paths++] = *from;
		}
	return 0;
}

static int health(
	struct call *c, Parapet__FlashStatus *const *parts, size_t n, Parapet__FlashStatus *out)
{
	struct merge_named *lists = call_alloc(c, n * sizeof(*lists)), all;
	int rc = lists ? 0 : -ENOMEM;

	for (size_t i = 0; rc == 0 && i < n; i++)
		lists[i] = (struct merge_named){parts[i]->health, parts[i]->n_health};
	if (rc == 0)
		rc = merge_named(c, lists, n, &all);
	if (rc == 0) {
		out->health = all.items;
		out->n_health = all.n;
	}
	return rc;
}

static void flash_add(Parapet__FlashStatus *to, const Parapet__FlashStatus *from)
{
	static const char *const states[] = {
		"spare", "healthy", "evacuating", "rebuilding", "suspect", "missing", "failed"};

	to->state = worse(states, ARRAY_LEN(states), to->state, from->state);
	MERGE_ALL(to->flash, from->flash, spare);
	MERGE_ANY(to->flash, from->flash, leaving);
	MERGE_SUM(to, from, size_bytes);
	MERGE_FIRST(to, from, block_bytes);
	MERGE_FIRST(to, from, atomic_bytes);
	MERGE_ANY(to, from, volatile_cache);
	MERGE_SUM(to, from, free_bytes);
	MERGE_SUM(to, from, read_bytes);
	MERGE_SUM(to, from, errors);
	MERGE_SUM(to, from, in_flight);
	MERGE_ANY(to, from, remote);
	MERGE_ALL(to, from, claimed);
}

/* parts: the same device as n shards have it; shard[i] is whose. */
static int flash(struct call *c, Parapet__FlashStatus *const *parts, const size_t *shard, size_t n,
	size_t nshards, Parapet__FlashStatus *out)
{
	char **reasons = call_alloc(c, nshards * sizeof(*reasons));
	int rc = 0;

	out->flash = call_message(c, Parapet__Flash, parapet__flash__init);
	if (!out->flash || !reasons)
		return -ENOMEM;
	*out->flash = *parts[0]->flash;
	for (size_t i = 0; rc == 0 && i < n; i++) {
		flash_add(out, parts[i]);
		reasons[shard[i]] = parts[i]->reason;
		rc = areas_of(c, &out->allocated, parts[i]->allocated);
		if (rc == 0)
			rc = areas_of(c, &out->written, parts[i]->written);
	}
	out->reason = merge_text(c, reasons, nshards);
	if (rc == 0)
		rc = health(c, parts, n, out);
	if (rc == 0)
		rc = latencies(c, parts, n, out);
	return rc == 0 ? paths(c, parts, n, out) : rc;
}

static Parapet__FlashStatus *flash_of(const Parapet__PoolStatus *p, const char *name)
{
	for (size_t i = 0; i < p->n_flashes; i++)
		if (!strcmp(p->flashes[i]->flash->name, name))
			return p->flashes[i];
	return NULL;
}

static bool has_flash(const Parapet__PoolStatus *p, const char *name)
{
	return flash_of(p, name) != NULL;
}

static int flashes(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	Parapet__FlashStatus **same = call_alloc(c, n * sizeof(*same));
	size_t *shard = call_alloc(c, n * sizeof(*shard)), room = 0;
	int rc = 0;

	for (size_t i = 0; i < n; i++)
		room += pools[i]->n_flashes;
	if (!same || !shard ||
		call_messages(c, room, Parapet__FlashStatus, parapet__flash_status__init,
			&out->flashes) < 0)
		return -ENOMEM;
	for (size_t i = 0; rc == 0 && i < n; i++)
		for (size_t j = 0; rc == 0 && j < pools[i]->n_flashes; j++) {
			const char *name = pools[i]->flashes[j]->flash->name;
			size_t k = 0;

			if (has_flash(out, name))
				continue;
			for (size_t s = i; s < n; s++)
				if ((same[k] = flash_of(pools[s], name)))
					shard[k++] = s;
			rc = flash(c, same, shard, k, n, out->flashes[out->n_flashes]);
			out->n_flashes++;
		}
	return rc;
}

/* ---- stripes, what survives, nodes ---------------------------------------------------------------------------------- */

static int stripes(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	size_t room = 0;

	for (size_t i = 0; i < n; i++)
		room += pools[i]->n_stripes;
	if (call_messages(
		    c, room, Parapet__StripeWidth, parapet__stripe_width__init, &out->stripes) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < pools[i]->n_stripes; j++) {
			const Parapet__StripeWidth *from = pools[i]->stripes[j];
			size_t k = 0;

			while (k < out->n_stripes &&
				(out->stripes[k]->k != from->k || out->stripes[k]->m != from->m))
				k++;
			if (k < out->n_stripes)
				out->stripes[k]->stripes += from->stripes;
			else
				*out->stripes[out->n_stripes++] = *from;
		}
	return 0;
}

/* Names of both, each once. */
static int add_names(struct call *c, char ***names, size_t *n, char *const *more, size_t nmore)
{
	char **all = call_alloc(c, (*n + nmore + 1) * sizeof(*all));
	size_t have = *n;

	if (!all)
		return -ENOMEM;
	if (have)
		memcpy(all, *names, have * sizeof(*all));
	for (size_t i = 0; i < nmore; i++) {
		size_t k = 0;

		while (k < have && strcmp(all[k], more[i]))
			k++;
		if (k == have)
			all[have++] = more[i];
	}
	*names = all;
	*n = have;
	return 0;
}

static int survives_add(struct call *c, Parapet__Survives *to, const Parapet__Survives *from)
{
	to->devices = MIN(to->devices, from->devices);
	MERGE_MIN(to, from, nodes);
	MERGE_SUM(to, from, bytes);
	return add_names(
		c, &to->fatal_nodes, &to->n_fatal_nodes, from->fatal_nodes, from->n_fatal_nodes);
}

static int survival(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	size_t room = 0;
	int rc = 0;

	for (size_t i = 0; i < n; i++)
		room += pools[i]->n_survival;
	if (call_messages(c, room, Parapet__Survives, parapet__survives__init, &out->survival) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; rc == 0 && j < pools[i]->n_survival; j++) {
			const Parapet__Survives *from = pools[i]->survival[j];
			size_t k = 0;

			while (k < out->n_survival && strcmp(out->survival[k]->what, from->what))
				k++;
			if (k < out->n_survival)
				rc = survives_add(c, out->survival[k], from);
			else
				*out->survival[out->n_survival++] = *from;
		}
	return rc;
}

static int node_add(struct call *c, Parapet__NodeStatus *to, const Parapet__NodeStatus *from)
{
	static const char *const states[] = {"up", "degraded", "lost"};

	to->state = worse(states, ARRAY_LEN(states), to->state, from->state);
	MERGE_ALL(to, from, remote);
	MERGE_MIN(to, from, usable);
	MERGE_MAX(to, from, paths);
	MERGE_MIN(to, from, usable_paths);
	return add_names(c, &to->flashes, &to->n_flashes, from->flashes, from->n_flashes);
}

static int nodes(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	size_t room = 0;
	int rc = 0;

	for (size_t i = 0; i < n; i++)
		room += pools[i]->n_nodes;
	if (call_messages(c, room, Parapet__NodeStatus, parapet__node_status__init, &out->nodes) <
		0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; rc == 0 && j < pools[i]->n_nodes; j++) {
			const Parapet__NodeStatus *from = pools[i]->nodes[j];
			size_t k = 0;

			while (k < out->n_nodes && strcmp(out->nodes[k]->name, from->name))
				k++;
			if (k < out->n_nodes)
				rc = node_add(c, out->nodes[k], from);
			else
				*out->nodes[out->n_nodes++] = *from;
		}
	return rc;
}

/* ---- checkpoint, log, recovery ---------------------------------------------------------------------------------------- */

static bool is_older(const Parapet__CheckpointStatus *a, const Parapet__CheckpointStatus *b)
{
	return b->has_id && (!a->has_id || a->age_s > b->age_s);
}

static int checkpoint(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	const Parapet__CheckpointStatus *oldest = NULL;
	Parapet__CheckpointStatus *m = call_message(
		c, Parapet__CheckpointStatus, parapet__checkpoint_status__init);

	if (!m)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const Parapet__CheckpointStatus *from = pools[i]->checkpoint;

		if (!from)
			continue;
		if (!oldest || is_older(from, oldest))
			oldest = from;
		MERGE_SUM(m, from, bytes);
		MERGE_SUM(m, from, base_bytes);
		MERGE_SUM(m, from, parts);
		MERGE_ANY(m, from, running);
		MERGE_SUM(m, from, log_bytes_since);
	}
	if (!oldest)
		return 0;
	MERGE_FIRST(m, oldest, id);
	MERGE_FIRST(m, oldest, epoch);
	MERGE_FIRST(m, oldest, age_s);
	out->checkpoint = m;
	return 0;
}

static int log_space(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	for (size_t i = 0; i < n; i++) {
		const Parapet__LogSpace *from = pools[i]->log;

		if (!from)
			continue;
		if (!out->log)
			out->log = call_message(c, Parapet__LogSpace, parapet__log_space__init);
		if (!out->log)
			return -ENOMEM;
		MERGE_SUM(out->log, from, capacity_bytes);
		MERGE_SUM(out->log, from, live_bytes);
		MERGE_SUM(out->log, from, free_bytes);
		MERGE_SUM(out->log, from, limbo_bytes);
		MERGE_SUM(out->log, from, reserve_bytes);
		MERGE_MAX(out->log, from, used_percent);
	}
	return 0;
}

/* Under way: the one that has most before it. Else the figures of all. */
static int recovery(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	struct merge_named *lists = call_alloc(c, n * sizeof(*lists)), all;
	bool any = false;

	out->recovery = call_message(c, Parapet__Recovery, parapet__recovery__init);
	if (!out->recovery || !lists)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const Parapet__Recovery *from = pools[i]->recovery;

		if (!from)
			continue;
		any = true;
		if (from->phase &&
			(!out->recovery->phase || from->percent < out->recovery->percent)) {
			out->recovery->phase = from->phase;
			out->recovery->has_percent = from->has_percent;
			out->recovery->percent = from->percent;
		}
		lists[i] = (struct merge_named){from->figures, from->n_figures};
	}
	if (!any) {
		out->recovery = NULL;
		return 0;
	}
	if (merge_named(c, lists, n, &all) < 0)
		return -ENOMEM;
	out->recovery->figures = all.items;
	out->recovery->n_figures = all.n;
	return 0;
}

/* ---- together ------------------------------------------------------------------------------------------------------------ */

static void numbers(Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	for (size_t i = 0; i < n; i++) {
		const Parapet__PoolStatus *p = pools[i];

		if (!out->uuid)
			out->uuid = p->uuid;
		if (!out->settings)
			out->settings = p->settings;
		MERGE_MAX(out, p, epoch);
		MERGE_FIRST(out, p, k);
		MERGE_FIRST(out, p, m);
		MERGE_FIRST(out, p, on_degraded);
		MERGE_FIRST(out, p, segment_bytes);
		MERGE_FIRST(out, p, same_flash);
		MERGE_MIN(out, p, survives);
		MERGE_MIN(out, p, survives_nodes);
		MERGE_SUM(out, p, size_bytes);
		MERGE_SUM(out, p, free_bytes);
		MERGE_SUM(out, p, log_free_bytes);
	}
}

/* A shard without a pool beside one that has its part is a failure. */
static void state(Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	static const char *const states[] = {"online", "degraded", "recovering", "failed"};
	size_t none = 0;

	for (size_t i = 0; i < n; i++)
		none += !strcmp(pools[i]->state, "none");
	out->state = NULL;
	for (size_t i = 0; i < n; i++) {
		bool missing = none < n && !strcmp(pools[i]->state, "none");

		out->state = worse(states, ARRAY_LEN(states), out->state,
			missing ? (char *)"failed" : pools[i]->state);
	}
}

static int texts(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	struct merge_texts *lists = call_alloc(c, n * sizeof(*lists)), all;
	char **reasons = call_alloc(c, n * sizeof(*reasons));
	char **fences = call_alloc(c, n * sizeof(*fences));

	if (!lists || !reasons || !fences)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		bool missing = !strcmp(pools[i]->state, "none") && strcmp(out->state, "none");

		lists[i] = (struct merge_texts){pools[i]->degraded, pools[i]->n_degraded};
		reasons[i] = missing && !pools[i]->reason ? (char *)"it has no pool"
							  : pools[i]->reason;
		fences[i] = pools[i]->fenced;
	}
	out->reason = merge_text(c, reasons, n);
	out->fenced = merge_text(c, fences, n);
	if (merge_texts(c, lists, n, &all) < 0)
		return -ENOMEM;
	out->degraded = all.items;
	out->n_degraded = all.n;
	return 0;
}

static int counters(
	struct call *c, Parapet__PoolStatus *const *pools, size_t n, Parapet__PoolStatus *out)
{
	struct merge_named *lists = call_alloc(c, n * sizeof(*lists)), all;

	for (size_t i = 0; lists && i < n; i++)
		lists[i] = (struct merge_named){pools[i]->counters, pools[i]->n_counters};
	if (!lists || merge_named(c, lists, n, &all) < 0)
		return -ENOMEM;
	out->counters = all.items;
	out->n_counters = all.n;
	return 0;
}

int merge_pool(
	struct call *c, Parapet__PoolStatus *const *parts, size_t n, Parapet__PoolStatus **out)
{
	static int (*const steps[])(struct call * c, Parapet__PoolStatus *const *pools, size_t n,
		Parapet__PoolStatus *out) = {texts, flashes, stripes, counters, survival,
		checkpoint, log_space, recovery, nodes};
	Parapet__PoolStatus *p = call_message(c, Parapet__PoolStatus, parapet__pool_status__init);
	int rc = p ? 0 : -ENOMEM;

	if (n == 1) {
		*out = parts[0];
		return rc;
	}
	if (rc == 0) {
		numbers(parts, n, p);
		state(parts, n, p);
		p->has_shards = true;
		p->shards = (uint32_t)n;
	}
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(steps); i++)
		rc = steps[i](c, parts, n, p);
	*out = p;
	return rc;
}
