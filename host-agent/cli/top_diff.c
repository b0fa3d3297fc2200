/* SPDX-License-Identifier: BSD-3-Clause */
/* Two answers of /v1/top, subtracted. */
#include "host-agent/cli/top.h"

#include "common/base/hist.h"
#include "common/base/util.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- reading answers ------------------------------------------------------------------------------------------ */

static uint64_t number(const json_t *o, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

static const char *text(const json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));

	return s ? s : "";
}

/* What `name` rose by; what went down began anew. */
static uint64_t rise(const json_t *then, const json_t *now, const char *name)
{
	uint64_t a = number(then, name), b = number(now, name);

	return b >= a ? b - a : b;
}

/* The member of list whose `key` is that of o. */
static const json_t *same_in(const json_t *list, const json_t *o, const char *key)
{
	json_t *m;
	size_t i;

	json_array_foreach((json_t *)list, i, m)
	{
		if (json_equal(json_object_get(m, key), json_object_get(o, key)))
			return m;
	}
	return NULL;
}

static void hist_read(const json_t *o, struct hist *h)
{
	const json_t *classes = json_object_get(o, "classes"),
		     *counts = json_object_get(o, "counts");

	memset(h, 0, sizeof(*h));
	for (size_t i = 0; i < json_array_size(classes) && i < json_array_size(counts); i++) {
		json_int_t c = json_integer_value(json_array_get(classes, i));

		if (c < 0 || c >= (json_int_t)HIST_CLASSES)
			continue;
		h->n[c] = (uint64_t)json_integer_value(json_array_get(counts, i));
		h->count += h->n[c];
	}
	h->sum = number(o, "sum");
	h->max = number(o, "max");
}

static void hist_between(const json_t *then, const json_t *now, struct hist *out)
{
	struct hist a, b;

	hist_read(then, &a);
	hist_read(now, &b);
	if (b.count < a.count) /* another VM of that number, another flash of that name */
		memset(&a, 0, sizeof(a));
	hist_since(&b, &a, out);
}

/* ---- results ----------------------------------------------------------------------------------------------------- */

struct span {
	double s; /* by the card's clock */
	uint64_t ns;
};

static void set_real(json_t *o, const char *name, double v)
{
	json_object_set_new(o, name, json_real(v));
}

static void set_us(json_t *o, const char *name, const struct hist *h, unsigned int per_mille)
{
	set_real(o, name, (double)hist_at(h, per_mille) / 1e3);
}

static json_t *op_part(
	const json_t *then, const json_t *now, const struct span *t, struct hist *all)
{
	json_t *o = json_object();
	struct hist h;

	hist_between(json_object_get(then, "latency"), json_object_get(now, "latency"), &h);
	hist_merge(all, &h);
	set_real(o, "iops", (double)rise(then, now, "requests") / t->s);
	set_real(o, "bytes_per_s", (double)rise(then, now, "bytes") / t->s);
	set_us(o, "p50_us", &h, 500);
	set_us(o, "p99_us", &h, 990);
	set_real(o, "max_us", (double)h.max / 1e3);
	return o;
}

static void vm_ops(const json_t *then, const json_t *now, const struct span *t, json_t *o)
{
	double iops = 0, bytes = 0, other = 0;
	struct hist all = {.count = 0};
	json_t *op, *part;
	size_t i;

	json_array_foreach(json_object_get(now, "ops"), i, op)
	{
		const char *name = text(op, "op");
		bool data = !strcmp(name, "read") || !strcmp(name, "write");

		part = op_part(same_in(json_object_get(then, "ops"), op, "op"), op, t, &all);
		iops += json_real_value(json_object_get(part, "iops"));
		if (data)
			bytes += json_real_value(json_object_get(part, "bytes_per_s"));
		else
			other += json_real_value(json_object_get(part, "iops"));
		json_object_set_new(o, name, part);
	}
	set_real(o, "iops", iops);
	set_real(o, "bytes_per_s", bytes);
	set_real(o, "other_iops", other);
	set_us(o, "p99_us", &all, 990);
}

static void copy(json_t *to, const char *as, const json_t *from, const char *name)
{
	if (json_object_get(from, name))
		json_object_set(to, as, json_object_get(from, name));
}

static json_t *vm_part(const json_t *then, const json_t *now, const struct span *t)
{
	json_t *o = json_object();

	copy(o, "name", now, "name");
	vm_ops(then, now, t, o);
	copy(o, "in_flight", now, "in_flight");
	copy(o, "waiting", now, "waiting");
	set_real(o, "capped_percent",
		MIN(100.0 * (double)rise(then, now, "capped_ns") / (double)t->ns, 100.0));
	set_real(o, "errors_per_s", (double)rise(then, now, "errors") / t->s);
	copy(o, "mbps_cap", now, "qos_mbps");
	copy(o, "iops_cap", now, "qos_iops");
	copy(o, "weight", now, "qos_weight");
	return o;
}

static json_t *flash_part(const json_t *then, const json_t *now, const struct span *t)
{
	static const char *const rates[][2] = {{"reads", "reads_per_s"}, {"writes", "writes_per_s"},
		{"read_bytes", "read_bytes_per_s"}, {"write_bytes", "write_bytes_per_s"}};
	json_t *o = json_object();
	struct hist h;

	copy(o, "name", now, "name");
	for (size_t i = 0; i < ARRAY_LEN(rates); i++)
		set_real(o, rates[i][1], (double)rise(then, now, rates[i][0]) / t->s);
	set_real(o, "util_percent",
		MIN(100.0 * (double)rise(then, now, "busy_ns") / (double)t->ns, 100.0));
	copy(o, "in_flight", now, "in_flight");
	hist_between(json_object_get(then, "read"), json_object_get(now, "read"), &h);
	set_us(o, "read_p99_us", &h, 990);
	hist_between(json_object_get(then, "write"), json_object_get(now, "write"), &h);
	set_us(o, "write_p99_us", &h, 990);
	return o;
}

/* ---- stages: which part of all the time that requests spent --------------------------------------------------------- */

/* Those that follow each other: the others are parts of "device". */
static bool is_whole(const char *stage)
{
	return !strcmp(stage, "wait") || !strcmp(stage, "admit") || !strcmp(stage, "device") ||
	       !strcmp(stage, "finish");
}

static const json_t *stage_then(const json_t *list, const json_t *o)
{
	json_t *m;
	size_t i;

	json_array_foreach((json_t *)list, i, m)
	{
		if (!strcmp(text(m, "of"), text(o, "of")) &&
			!strcmp(text(m, "stage"), text(o, "stage")))
			return m;
	}
	return NULL;
}

static json_t *stages(const json_t *then, const json_t *now, const struct span *t)
{
	json_t *list = json_array(), *m, *o;
	double total = 0;
	struct hist h;
	size_t i;

	json_array_foreach(json_object_get(now, "stages"), i, m)
	{
		hist_between(
			json_object_get(stage_then(json_object_get(then, "stages"), m), "time"),
			json_object_get(m, "time"), &h);
		if (!h.count)
			continue;
		o = json_object();
		copy(o, "of", m, "of");
		copy(o, "stage", m, "stage");
		set_real(o, "share_percent", (double)h.sum);
		total += is_whole(text(m, "stage")) ? (double)h.sum : 0;
		set_us(o, "p50_us", &h, 500);
		set_us(o, "p99_us", &h, 990);
		set_real(o, "per_s", (double)h.count / t->s);
		json_array_append_new(list, o);
	}
	json_array_foreach(list, i, o)
	{
		double sum = json_real_value(json_object_get(o, "share_percent"));

		set_real(o, "share_percent", total > 0 ? 100 * sum / total : 0);
	}
	return list;
}

/* ---- the card -------------------------------------------------------------------------------------------------------- */

static double sum_of(const json_t *list, const char *name)
{
	double sum = 0;
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o) sum += json_real_value(json_object_get(o, name));
	return sum;
}

static double mean(const struct hist *h)
{
	return h->count ? (double)h->sum / (double)h->count : 0;
}

static json_t *card_part(
	const json_t *then, const json_t *now, const struct span *t, const json_t *vms)
{
	uint64_t user = rise(then, now, "user_bytes"), device = rise(then, now, "device_bytes");
	double most = (double)number(now, "batch_blocks_max");
	json_t *o = json_object();
	struct hist h;

	set_real(o, "iops", sum_of(vms, "iops"));
	set_real(o, "bytes_per_s", sum_of(vms, "bytes_per_s"));
	hist_between(json_object_get(then, "batch_requests"),
		json_object_get(now, "batch_requests"), &h);
	set_real(o, "batches_per_s", (double)h.count / t->s);
	set_real(o, "batch_writes", mean(&h));
	hist_between(
		json_object_get(then, "batch_blocks"), json_object_get(now, "batch_blocks"), &h);
	set_real(o, "batch_blocks", mean(&h));
	hist_between(
		json_object_get(then, "stripe_blocks"), json_object_get(now, "stripe_blocks"), &h);
	set_real(o, "stripe_blocks", mean(&h));
	set_real(o, "stripe_fill_percent", most > 0 ? 100 * mean(&h) / most : 0);
	if (user)
		set_real(o, "write_amplification", (double)device / (double)user);
	copy(o, "window_bytes", now, "window_bytes");
	set_real(o, "window_full_per_s", (double)rise(then, now, "window_full") / t->s);
	return o;
}

static json_t *parts(const json_t *then, const json_t *now, const char *name, const char *key,
	const struct span *t,
	json_t *(*part)(const json_t *then, const json_t *now, const struct span *t))
{
	json_t *list = json_array(), *m;
	size_t i;

	json_array_foreach(json_object_get(now, name), i, m) json_array_append_new(
		list, part(same_in(json_object_get(then, name), m, key), m, t));
	return list;
}

json_t *top_difference(const json_t *then, const json_t *now)
{
	struct span t = {.ns = number(now, "time_ns") - number(then, "time_ns")};
	json_t *o, *vms;

	if (strcmp(text(then, "boot_id"), text(now, "boot_id")) != 0 ||
		number(now, "time_ns") <= number(then, "time_ns"))
		return NULL;
	t.s = (double)t.ns / 1e9;
	vms = parts(then, now, "vms", "vm", &t, vm_part);
	o = json_object();
	copy(o, "node", now, "node");
	copy(o, "time_ns", now, "time_ns");
	set_real(o, "interval_s", t.s);
	json_object_set_new(o, "card", card_part(then, now, &t, vms));
	json_object_set_new(o, "vms", vms);
	json_object_set_new(o, "stages", stages(then, now, &t));
	json_object_set_new(o, "flashes", parts(then, now, "flashes", "name", &t, flash_part));
	return o;
}

/* ---- order ------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *key, *member;
} sorts[] = {{"iops", "iops"}, {"bytes", "bytes_per_s"}, {"p99", "p99_us"}, {"waiting", "waiting"},
	{"capped", "capped_percent"}, {"name", "name"}};

struct sorted {
	json_t *vm;
	double by;
};

static int by_value(const void *a, const void *b)
{
	const struct sorted *x = a, *y = b;

	if (x->by != y->by)
		return x->by > y->by ? -1 : 1;
	return strcmp(text(x->vm, "name"), text(y->vm, "name"));
}

bool top_sort_known(const char *key)
{
	for (size_t i = 0; i < ARRAY_LEN(sorts); i++)
		if (!strcmp(sorts[i].key, key))
			return true;
	return false;
}

void top_sort(json_t *difference, const char *key)
{
	json_t *vms = json_object_get(difference, "vms"), *out = json_array(), *vm;
	struct sorted *list = calloc(json_array_size(vms) + 1, sizeof(*list));
	const char *member = "name";
	size_t i;

	for (i = 0; i < ARRAY_LEN(sorts); i++)
		if (!strcmp(sorts[i].key, key))
			member = sorts[i].member;
	json_array_foreach(vms, i, vm)
	{
		if (list)
			list[i] = (struct sorted){
				vm, json_number_value(json_object_get(vm, member))};
	}
	if (list && out) {
		qsort(list, json_array_size(vms), sizeof(*list), by_value);
		for (i = 0; i < json_array_size(vms); i++)
			json_array_append(out, list[i].vm);
		json_object_set(difference, "vms", out);
	}
	json_decref(out);
	free(list);
}
