/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/merge_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts ------------------------------------------------------------------------------------------------------ */

static char *labelled(struct call *c, size_t shard, const char *text)
{
	size_t room = strlen(text) + 32;
	char *s = call_alloc(c, room);

	if (s)
		snprintf(s, room, "shard %zu: %s", shard, text);
	return s;
}

static bool has_text(const struct merge_texts *list, const char *text)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->items[i], text))
			return true;
	return false;
}

static bool all_have(const struct merge_texts *parts, size_t n, const char *text)
{
	for (size_t i = 0; i < n; i++)
		if (!has_text(&parts[i], text))
			return false;
	return true;
}

int merge_texts(struct call *c, const struct merge_texts *parts, size_t n, struct merge_texts *out)
{
	size_t room = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i].n;
	*out = (struct merge_texts){.items = call_alloc(c, (room + 1) * sizeof(out->items[0]))};
	if (!out->items)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < parts[i].n; j++) {
			char *text = parts[i].items[j];
			bool common = all_have(parts, n, text);

			if (common && has_text(out, text))
				continue;
			text = common ? text : labelled(c, i, text);
			if (!text)
				return -ENOMEM;
			out->items[out->n++] = text;
		}
	return 0;
}

char *merge_text(struct call *c, char *const *parts, size_t n)
{
	size_t room = 1, len = 0;
	bool same = true;
	char *s;

	for (size_t i = 0; i < n; i++) {
		room += parts[i] ? strlen(parts[i]) + 32 : 0;
		same = same && parts[0] && parts[i] && !strcmp(parts[0], parts[i]);
	}
	if (same || room == 1)
		return parts[0];
	s = call_alloc(c, room);
	for (size_t i = 0; s && i < n; i++)
		if (parts[i])
			len += (size_t)snprintf(s + len, room - len, "%sshard %zu: %s",
				len ? "; " : "", i, parts[i]);
	return s;
}

/* ---- names and values ---------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

enum merge_rule merge_rule_of(const char *name)
{
	/* Told by the device itself, the same to every shard; and what happens on all shards at once. */
	static const char *const largest[] = {"temperature_celsius", "critical_warning",
		"power_on_hours", "unsafe_shutdowns", "device_media_errors", "device_written_bytes",
		"recovery_ns", "slow_ms_lately", "table_swaps"};

	if (!strcmp(name, "spare_percent"))
		return MERGE_BY_MIN;
	for (size_t i = 0; i < ARRAY_LEN(largest); i++)
		if (!strcmp(name, largest[i]))
			return MERGE_BY_MAX;
	if (strstr(name, "_p50") || strstr(name, "_p99") || strstr(name, "_max") ||
		ends_with(name, "_us") || ends_with(name, "_ms") || !strcmp(name, "ms") ||
		ends_with(name, "_percent"))
		return MERGE_BY_MAX;
	return MERGE_BY_SUM;
}

uint64_t merge_value(enum merge_rule rule, uint64_t a, uint64_t b)
{
	switch (rule) {
	case MERGE_BY_MAX:
		return MAX(a, b);
	case MERGE_BY_MIN:
		return MIN(a, b);
	default:
		return a + b;
	}
}

static Parapet__Named *named(const struct merge_named *list, const char *name)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->items[i]->name, name))
			return list->items[i];
	return NULL;
}

int merge_named(struct call *c, const struct merge_named *parts, size_t n, struct merge_named *out)
{
	size_t room = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i].n;
	*out = (struct merge_named){.n = 0};
	if (call_messages(c, room, Parapet__Named, parapet__named__init, &out->items) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < parts[i].n; j++) {
			const Parapet__Named *from = parts[i].items[j];
			Parapet__Named *to = named(out, from->name);

			if (to)
				to->value = merge_value(
					merge_rule_of(from->name), to->value, from->value);
			else
				*out->items[out->n++] = *from;
		}
	return 0;
}

/* ---- lists ----------------------------------------------------------------------------------------------------------- */

int merge_concat(struct call *c, const struct merge_list *parts, size_t n, struct merge_list *out)
{
	size_t room = 0;

	for (size_t i = 0; i < n; i++)
		room += parts[i].n;
	*out = (struct merge_list){.items = call_alloc(c, (room + 1) * sizeof(out->items[0]))};
	if (!out->items)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		if (parts[i].n)
			memcpy(out->items + out->n, parts[i].items,
				parts[i].n * sizeof(out->items[0]));
		out->n += parts[i].n;
	}
	return 0;
}

/* Concatenates the repeated field `f` of all parts into out->f. */
#define CONCAT(c, parts, n, out, f)                                                           \
	({                                                                                    \
		struct merge_list *lists_ = call_alloc(c, (n) * sizeof(*lists_)), all_ = {0}; \
		int rc_ = lists_ ? 0 : -ENOMEM;                                               \
		for (size_t i_ = 0; rc_ == 0 && i_ < (n); i_++)                               \
			lists_[i_] = (struct merge_list){                                     \
				(void **)(parts)[i_]->f, (parts)[i_]->n_##f};                 \
		if (rc_ == 0)                                                                 \
			rc_ = merge_concat(c, lists_, n, &all_);                              \
		(out)->f = (void *)all_.items;                                                \
		(out)->n_##f = all_.n;                                                        \
		rc_;                                                                          \
	})

/* ---- status ------------------------------------------------------------------------------------------------------------ */

static int by_vm(const void *a, const void *b)
{
	uint32_t x = (*(Parapet__VmStatus *const *)a)->vm, y = (*(Parapet__VmStatus *const *)b)->vm;

	return x < y ? -1 : x > y;
}

static int merge_warnings(
	struct call *c, Parapet__Status *const *parts, size_t n, Parapet__Status *out)
{
	struct merge_texts *lists = call_alloc(c, n * sizeof(*lists)), all;
	int rc = lists ? 0 : -ENOMEM;

	for (size_t i = 0; rc == 0 && i < n; i++)
		lists[i] = (struct merge_texts){parts[i]->warnings, parts[i]->n_warnings};
	if (rc == 0)
		rc = merge_texts(c, lists, n, &all);
	if (rc == 0) {
		out->warnings = all.items;
		out->n_warnings = all.n;
	}
	return rc;
}

int merge_status(struct call *c, Parapet__Status *const *parts, size_t n, Parapet__Status **out)
{
	Parapet__Status *s = call_message(c, Parapet__Status, parapet__status__init);
	Parapet__PoolStatus **pools = call_alloc(c, n * sizeof(*pools));
	int rc;

	if (!s || !pools)
		return -ENOMEM;
	*s = *parts[0];
	for (size_t i = 0; i < n; i++) {
		pools[i] = parts[i]->pool;
		MERGE_MAX(s, parts[i], last_event);
	}
	rc = merge_pool(c, pools, n, &s->pool);
	if (rc == 0)
		rc = CONCAT(c, parts, n, s, vms);
	if (rc == 0)
		rc = CONCAT(c, parts, n, s, tasks);
	if (rc == 0)
		rc = merge_warnings(c, parts, n, s);
	if (rc < 0)
		return rc;
	qsort(s->vms, s->n_vms, sizeof(s->vms[0]), by_vm);
	*out = s;
	return 0;
}

/* ---- tasks, devices, shards ------------------------------------------------------------------------------------------------ */

/* No ceiling on one shard is none at all. */
static int merge_tasks(struct call *c, Parapet__Tasks *const *parts, size_t n, Parapet__Tasks **out)
{
	Parapet__Tasks *t = call_message(c, Parapet__Tasks, parapet__tasks__init);
	bool open = false;

	if (!t)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		MERGE_FIRST(t, parts[i], share_percent);
		MERGE_SUM(t, parts[i], ceiling_bytes_per_s);
		open = open ||
		       (parts[i]->has_ceiling_bytes_per_s && !parts[i]->ceiling_bytes_per_s);
	}
	if (open)
		t->ceiling_bytes_per_s = 0;
	*out = t;
	return CONCAT(c, parts, n, t, tasks);
}

static int by_device(const void *a, const void *b)
{
	const Parapet__Device *x = *(Parapet__Device *const *)a, *y = *(Parapet__Device *const *)b;

	if (x->vm != y->vm)
		return x->vm < y->vm ? -1 : 1;
	return x->nsid < y->nsid ? -1 : x->nsid > y->nsid;
}

static int merge_devices(
	struct call *c, Parapet__Devices *const *parts, size_t n, Parapet__Devices **out)
{
	Parapet__Devices *d = call_message(c, Parapet__Devices, parapet__devices__init);
	int rc = d ? 0 : -ENOMEM;

	if (rc == 0)
		rc = CONCAT(c, parts, n, d, devices);
	if (rc == 0)
		rc = CONCAT(c, parts, n, d, missing);
	if (rc < 0)
		return rc;
	qsort(d->devices, d->n_devices, sizeof(d->devices[0]), by_device);
	*out = d;
	return 0;
}

static int merge_shards(
	struct call *c, Parapet__Shards *const *parts, size_t n, Parapet__Shards **out)
{
	*out = call_message(c, Parapet__Shards, parapet__shards__init);
	return *out ? CONCAT(c, parts, n, *out, shards) : -ENOMEM;
}

/* ---- what changes told ---------------------------------------------------------------------------------------------------- */

static int merge_applied(struct call *c, Parapet__TablesApplied *const *parts, size_t n,
	Parapet__TablesApplied **out)
{
	*out = call_message(c, Parapet__TablesApplied, parapet__tables_applied__init);
	if (!*out)
		return -ENOMEM;
	**out = *parts[0];
	return CONCAT(c, parts, n, *out, tasks);
}

static bool is_behind(const Parapet__Task *a, const Parapet__Task *b)
{
	return !b || a->total - MIN(a->done, a->total) > b->total - MIN(b->done, b->total);
}

/* It is out once it is out of all; the task is the one with the most before it. */
static int merge_flash_changed(
	struct call *c, Parapet__FlashChanged *const *parts, size_t n, Parapet__FlashChanged **out)
{
	Parapet__FlashChanged *f = call_message(
		c, Parapet__FlashChanged, parapet__flash_changed__init);
	Parapet__PoolStatus **pools = call_alloc(c, n * sizeof(*pools));
	struct merge_texts *lost = call_alloc(c, n * sizeof(*lost)), all;
	int rc;

	if (!f || !pools || !lost)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		pools[i] = parts[i]->pool;
		lost[i] = (struct merge_texts){parts[i]->lost, parts[i]->n_lost};
		MERGE_ALL(f, parts[i], removed);
		if (parts[i]->task && is_behind(parts[i]->task, f->task))
			f->task = parts[i]->task;
	}
	rc = merge_pool(c, pools, n, &f->pool);
	if (rc == 0)
		rc = merge_texts(c, lost, n, &all);
	if (rc < 0)
		return rc;
	f->lost = all.items;
	f->n_lost = all.n;
	*out = f;
	return 0;
}

/* ---- responses --------------------------------------------------------------------------------------------------------------- */

/* The field `f` of all responses, as an array. */
#define PARTS(c, type, responses, n, f)                             \
	({                                                          \
		type **list_ = call_alloc(c, (n) * sizeof(*list_)); \
		for (size_t i_ = 0; list_ && i_ < (n); i_++)        \
			list_[i_] = (responses)[i_]->f;             \
		list_;                                              \
	})
#define MERGE(c, type, responses, n, f, merge_fn)                        \
	({                                                               \
		type **parts_ = PARTS(c, type, responses, n, f);         \
		parts_ ? merge_fn(c, parts_, n, &(c)->resp.f) : -ENOMEM; \
	})

int merge_responses(struct call *c, Parapet__Response *const *parts, size_t n)
{
	uint64_t id = c->resp.id;

	for (size_t i = 1; i < n; i++)
		if (parts[i]->result_case != parts[0]->result_case)
			return -EINVAL;
	c->resp = *parts[0];
	c->resp.id = id;
	if (n == 1)
		return 0;
	switch (c->resp.result_case) {
	case PARAPET__RESPONSE__RESULT_STATUS:
		return MERGE(c, Parapet__Status, parts, n, status, merge_status);
	case PARAPET__RESPONSE__RESULT_STATS:
		return MERGE(c, Parapet__Stats, parts, n, stats, merge_stats);
	case PARAPET__RESPONSE__RESULT_TOP:
		return MERGE(c, Parapet__Top, parts, n, top, merge_top);
	case PARAPET__RESPONSE__RESULT_TASKS:
		return MERGE(c, Parapet__Tasks, parts, n, tasks, merge_tasks);
	case PARAPET__RESPONSE__RESULT_DEVICES:
		return MERGE(c, Parapet__Devices, parts, n, devices, merge_devices);
	case PARAPET__RESPONSE__RESULT_SHARDS:
		return MERGE(c, Parapet__Shards, parts, n, shards, merge_shards);
	case PARAPET__RESPONSE__RESULT_APPLIED:
		return MERGE(c, Parapet__TablesApplied, parts, n, applied, merge_applied);
	case PARAPET__RESPONSE__RESULT_FLASH_CHANGED:
		return MERGE(
			c, Parapet__FlashChanged, parts, n, flash_changed, merge_flash_changed);
	default:
		return 0; /* one of them says it all */
	}
}
