/* SPDX-License-Identifier: BSD-3-Clause */
/* Counters of all shards under one name, and what a live view shows. */
#include "dpu/control/merge_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- stats -------------------------------------------------------------------------------------------------------- */

struct stat_at {
	Parapet__Stat *stat;
	size_t at; /* where it was: the order is kept */
};

static int by_name(const void *a, const void *b)
{
	const struct stat_at *x = a, *y = b;
	int d = strcmp(x->stat->object, y->stat->object);

	if (!d)
		d = strcmp(x->stat->name, y->stat->name);
	return d ? d : x->at < y->at ? -1 : x->at > y->at;
}

static int by_place(const void *a, const void *b)
{
	const struct stat_at *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static bool same_stat(const Parapet__Stat *a, const Parapet__Stat *b)
{
	return !strcmp(a->object, b->object) && !strcmp(a->name, b->name);
}

/* Sorted by name: those of one name become the first of them. Returns how many are left. */
static size_t stats_fold(struct stat_at *list, size_t n)
{
	size_t kept = 0;

	for (size_t i = 0; i < n; i++) {
		Parapet__Stat *to = kept ? list[kept - 1].stat : NULL;

		if (to && same_stat(to, list[i].stat))
			to->value = merge_value(
				merge_rule_of(to->name), to->value, list[i].stat->value);
		else
			list[kept++] = list[i];
	}
	return kept;
}

int merge_stats(struct call *c, Parapet__Stats *const *parts, size_t n, Parapet__Stats **out)
{
	Parapet__Stats *s = call_message(c, Parapet__Stats, parapet__stats__init);
	struct stat_at *list;
	Parapet__Stat **all;
	size_t room = 0, have = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i]->n_stats;
	list = call_alloc(c, (room + 1) * sizeof(*list));
	if (!s || !list || call_messages(c, room, Parapet__Stat, parapet__stat__init, &all) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < parts[i]->n_stats; j++) {
			*all[have] = *parts[i]->stats[j];
			list[have] = (struct stat_at){all[have], have};
			have++;
		}
	qsort(list, have, sizeof(*list), by_name);
	have = stats_fold(list, have);
	qsort(list, have, sizeof(*list), by_place);
	for (size_t i = 0; i < have; i++)
		all[i] = list[i].stat; /* at most as many as before: no place is read any more */
	s->has_time_ns = parts[0]->has_time_ns;
	s->time_ns = parts[0]->time_ns;
	s->stats = all;
	s->n_stats = have;
	*out = s;
	return 0;
}

/* ---- histograms ----------------------------------------------------------------------------------------------------- */

/* Classes go up in both. */
static Parapet__Histogram *histogram(
	struct call *c, const Parapet__Histogram *a, const Parapet__Histogram *b)
{
	Parapet__Histogram *m = call_message(c, Parapet__Histogram, parapet__histogram__init);
	size_t i = 0, j = 0, room = a->n_classes + b->n_classes + 1;

	if (!m)
		return NULL;
	m->classes = call_alloc(c, room * sizeof(m->classes[0]));
	m->counts = call_alloc(c, room * sizeof(m->counts[0]));
	if (!m->classes || !m->counts)
		return NULL;
	while (i < a->n_classes || j < b->n_classes) {
		uint64_t x = i < a->n_classes ? a->classes[i] : UINT64_MAX;
		uint64_t y = j < b->n_classes ? b->classes[j] : UINT64_MAX;

		m->classes[m->n_classes] = (uint32_t)MIN(x, y);
		m->counts[m->n_classes] = (x <= y ? a->counts[i] : 0) + (y <= x ? b->counts[j] : 0);
		m->n_classes++;
		i += x <= y;
		j += y <= x;
	}
	m->n_counts = m->n_classes;
	MERGE_FIRST(m, a, sum);
	MERGE_SUM(m, b, sum);
	MERGE_FIRST(m, a, max);
	MERGE_MAX(m, b, max);
	return m;
}

static int histogram_add(struct call *c, Parapet__Histogram **to, Parapet__Histogram *from)
{
	if (!from)
		return 0;
	*to = *to ? histogram(c, *to, from) : from;
	return *to ? 0 : -ENOMEM;
}

/* ---- top -------------------------------------------------------------------------------------------------------------- */

static int by_vm(const void *a, const void *b)
{
	uint32_t x = (*(Parapet__TopVm *const *)a)->vm, y = (*(Parapet__TopVm *const *)b)->vm;

	return x < y ? -1 : x > y;
}

static int vms(struct call *c, Parapet__Top *const *parts, size_t n, Parapet__Top *out)
{
	struct merge_list *lists = call_alloc(c, n * sizeof(*lists)), all;

	for (size_t i = 0; lists && i < n; i++)
		lists[i] = (struct merge_list){(void **)parts[i]->vms, parts[i]->n_vms};
	if (!lists || merge_concat(c, lists, n, &all) < 0)
		return -ENOMEM;
	out->vms = (Parapet__TopVm **)all.items;
	out->n_vms = all.n;
	qsort(out->vms, out->n_vms, sizeof(out->vms[0]), by_vm);
	return 0;
}

static int stages(struct call *c, Parapet__Top *const *parts, size_t n, Parapet__Top *out)
{
	size_t room = 0;
	int rc = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i]->n_stages;
	if (call_messages(c, room, Parapet__TopStage, parapet__top_stage__init, &out->stages) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; rc == 0 && j < parts[i]->n_stages; j++) {
			const Parapet__TopStage *from = parts[i]->stages[j];
			size_t k = 0;

			while (k < out->n_stages &&
				(strcmp(out->stages[k]->of, from->of) ||
					strcmp(out->stages[k]->stage, from->stage)))
				k++;
			if (k < out->n_stages)
				rc = histogram_add(c, &out->stages[k]->time, from->time);
			else
				*out->stages[out->n_stages++] = *from;
		}
	return rc;
}

/* A device is busy while one of its slices is: the busiest of them tells how long at least. */
static int flash_add(struct call *c, Parapet__TopFlash *to, const Parapet__TopFlash *from)
{
	MERGE_SUM(to, from, reads);
	MERGE_SUM(to, from, writes);
	MERGE_SUM(to, from, read_bytes);
	MERGE_SUM(to, from, write_bytes);
	MERGE_MAX(to, from, busy_ns);
	MERGE_SUM(to, from, in_flight);
	if (histogram_add(c, &to->read, from->read) < 0)
		return -ENOMEM;
	return histogram_add(c, &to->write, from->write);
}

static int flashes(struct call *c, Parapet__Top *const *parts, size_t n, Parapet__Top *out)
{
	size_t room = 0;
	int rc = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i]->n_flashes;
	if (call_messages(c, room, Parapet__TopFlash, parapet__top_flash__init, &out->flashes) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; rc == 0 && j < parts[i]->n_flashes; j++) {
			const Parapet__TopFlash *from = parts[i]->flashes[j];
			size_t k = 0;

			while (k < out->n_flashes && strcmp(out->flashes[k]->name, from->name))
				k++;
			if (k < out->n_flashes)
				rc = flash_add(c, out->flashes[k], from);
			else
				*out->flashes[out->n_flashes++] = *from;
		}
	return rc;
}

static int batches(struct call *c, Parapet__Top *const *parts, size_t n, Parapet__Top *out)
{
	struct merge_named *lists = call_alloc(c, n * sizeof(*lists)), all;
	int rc = lists ? 0 : -ENOMEM;

	for (size_t i = 0; rc == 0 && i < n; i++) {
		lists[i] = (struct merge_named){parts[i]->closed, parts[i]->n_closed};
		MERGE_MAX(out, parts[i], batch_blocks_max);
		rc = histogram_add(c, &out->batch_requests, parts[i]->batch_requests);
		if (rc == 0)
			rc = histogram_add(c, &out->batch_blocks, parts[i]->batch_blocks);
		if (rc == 0)
			rc = histogram_add(c, &out->stripe_blocks, parts[i]->stripe_blocks);
	}
	if (rc == 0)
		rc = merge_named(c, lists, n, &all);
	if (rc < 0)
		return rc;
	out->closed = all.items;
	out->n_closed = all.n;
	return 0;
}

int merge_top(struct call *c, Parapet__Top *const *parts, size_t n, Parapet__Top **out)
{
	Parapet__Top *t = call_message(c, Parapet__Top, parapet__top__init);
	int rc = t ? 0 : -ENOMEM;

	if (rc < 0)
		return rc;
	t->time_ns = parts[0]->time_ns;
	t->boot_id = parts[0]->boot_id;
	for (size_t i = 0; i < n; i++) {
		MERGE_SUM(t, parts[i], user_bytes);
		MERGE_SUM(t, parts[i], device_bytes);
		MERGE_SUM(t, parts[i], window_bytes);
		MERGE_SUM(t, parts[i], window_full);
	}
	rc = vms(c, parts, n, t);
	if (rc == 0)
		rc = stages(c, parts, n, t);
	if (rc == 0)
		rc = batches(c, parts, n, t);
	if (rc == 0)
		rc = flashes(c, parts, n, t);
	*out = t;
	return rc;
}
