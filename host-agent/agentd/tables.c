/* SPDX-License-Identifier: BSD-3-Clause */
/* Bodies: made from the store, checked as a policy table, compared, explained. */
#include "host-agent/agentd/tables.h"

#include "common/base/util.h"
#include "host-agent/agentd/field.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- from the store -------------------------------------------------------------------------------------- */

/* A copy of o with the named members only. */
static json_t *pick(const json_t *o, const char *const *names)
{
	json_t *out = json_object();

	for (; out && *names; names++) {
		json_t *v = json_object_get(o, *names);

		if (v && json_object_set(out, *names, v))
			return json_decref(out), NULL;
	}
	return out;
}

static int by_name(const void *a, const void *b)
{
	const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
	int c = strcmp(field_text(x, "name") ? field_text(x, "name") : field_text(x, "vm"),
		field_text(y, "name") ? field_text(y, "name") : field_text(y, "vm"));

	if (!c && field_text(x, "path"))
		c = strcmp(field_text(x, "path"), field_text(y, "path"));
	return c;
}

/* A sorted copy of list with the named members of each object. */
static json_t *pick_all(json_t *list, const char *const *names, bool sorted)
{
	size_t n = json_array_size(list);
	autofree json_t **items = calloc(n + 1, sizeof(*items));
	json_t *out = json_array();

	if (!items || !out) {
		json_decref(out);
		return NULL;
	}
	for (size_t i = 0; i < n; i++)
		items[i] = json_array_get(list, i);
	if (sorted)
		qsort(items, n, sizeof(*items), by_name);
	for (size_t i = 0; i < n; i++)
		json_array_append_new(out, pick(items[i], names));
	return out;
}

static const char *const vm_members[] = {"name", "number", "cores", "memory", "host_addr",
	"guest_addr", "method", "mode", "data_flash", "intermediate_flash", "vf", "listen", "vhost",
	"card_ip", "card_mac", "nqn", "hosts", "bandwidth_mbps", "iops", "burst_ms", "weight",
	NULL};
static const char *const device_members[] = {"vm", "path", "method", NULL};
static const char *const row_members[] = {"vm", "method", "path", "ec", "host_addr", NULL};
static const char *const queue_members[] = {
	"bytes", "count", "age_us", "each", "per_vm", "group_commit", NULL};

static int add_objects(struct store *s, const char *node, const struct noun *n, const char *as,
	const char *const *members, json_t *body, struct err *e)
{
	json_t *filter = json_pack("{s:s}", "node", node), *list = NULL, *out;
	int rc = filter ? store_list(s, n, filter, &list, e) : field_no_memory(e, "table");

	if (!rc) {
		out = pick_all(list, members, n != &noun_row);
		if (!out || json_object_set_new(body, as, out))
			rc = field_no_memory(e, "table");
	}
	json_decref(filter);
	json_decref(list);
	return rc;
}

static int add_queue(struct store *s, const char *node, json_t *body, struct err *e)
{
	json_t *key = json_pack("{s:s}", "node", node), *q = NULL, *members;
	int rc = key ? store_get(s, &noun_queue, key, &q, e) : field_no_memory(e, "table");

	json_decref(key);
	if (rc == -ENOENT)
		return 0;
	if (rc < 0)
		return rc;
	members = pick(q, queue_members);
	json_decref(q);
	if (!members || json_object_set_new(body, "queue", members))
		return field_no_memory(e, "table");
	return 0;
}

/* Rows carry "" for an absent method or path (their key); a body leaves them out. */
static void drop_empty(json_t *rows)
{
	json_t *r;
	size_t i;

	json_array_foreach(rows, i, r)
	{
		if (field_text(r, "method") && !field_text(r, "method")[0])
			json_object_del(r, "method");
		if (field_text(r, "path") && !field_text(r, "path")[0])
			json_object_del(r, "path");
	}
}

int tables_body(struct store *s, const char *node, json_t **body, struct err *e)
{
	static const char *const node_members[] = {"methods", "uplink", "reception", NULL};
	json_t *key = json_pack("{s:s}", "name", node), *o = NULL, *b = NULL;
	int rc = key ? store_get(s, &noun_node, key, &o, e) : field_no_memory(e, "table");

	if (!rc) {
		b = pick(o, node_members);
		if (!b || json_object_set(b, "node", json_object_get(o, "number")))
			rc = field_no_memory(e, "table");
	}
	if (!rc)
		rc = add_objects(s, node, &noun_vm, "vms", vm_members, b, e);
	if (!rc)
		rc = add_objects(s, node, &noun_device, "devices", device_members, b, e);
	if (!rc)
		rc = add_objects(s, node, &noun_row, "rows", row_members, b, e);
	if (!rc)
		rc = add_queue(s, node, b, e);
	json_decref(key);
	json_decref(o);
	if (rc < 0) {
		json_decref(b);
		return rc;
	}
	drop_empty(json_object_get(b, "rows"));
	*body = b;
	return 0;
}

char *tables_text(const json_t *body)
{
	return json_dumps(body, JSON_COMPACT | JSON_SORT_KEYS);
}

json_t *tables_empty(uint32_t node)
{
	return json_pack(
		"{s:I, s:[], s:[], s:[]}", "node", (json_int_t)node, "vms", "devices", "rows");
}

/* ---- as a policy table ---------------------------------------------------------------------------------------- */

struct spec_parts {
	struct policy_spec spec;
	struct policy_flash_spec *flashes;
	const char **methods;
	struct policy_vm_spec *vms;
	struct policy_device_spec *devices;
	struct policy_row_spec *rows;
};

static void parts_free(struct spec_parts *p)
{
	free(p->flashes);
	free(p->methods);
	free(p->vms);
	free(p->devices);
	free(p->rows);
}

static json_t *find_named(json_t *list, const char *name)
{
	json_t *o;
	size_t i;

	json_array_foreach(list, i, o)
	{
		if (field_text(o, "name") && !strcmp(field_text(o, "name"), name))
			return o;
	}
	return NULL;
}

uint32_t tables_vm_number(const json_t *body, const char *name)
{
	json_t *vm = name ? find_named(json_object_get(body, "vms"), name) : NULL;

	return vm ? (uint32_t)field_number(vm, "number") : 0;
}

static int parts_alloc(struct spec_parts *p, const json_t *body, const json_t *flashes)
{
	size_t nvms = json_array_size(json_object_get(body, "vms"));

	p->spec.nvms = nvms;
	p->spec.ndevices = json_array_size(json_object_get(body, "devices"));
	p->spec.nrows = json_array_size(json_object_get(body, "rows"));
	p->spec.nmethods = json_array_size(json_object_get(body, "methods"));
	p->spec.nflashes = flashes ? json_array_size(flashes) : 2 * nvms;
	p->flashes = calloc(p->spec.nflashes + 1, sizeof(*p->flashes));
	p->methods = calloc(p->spec.nmethods + 1, sizeof(*p->methods));
	p->vms = calloc(nvms + 1, sizeof(*p->vms));
	p->devices = calloc(p->spec.ndevices + 1, sizeof(*p->devices));
	p->rows = calloc(p->spec.nrows + 1, sizeof(*p->rows));
	if (!p->flashes || !p->methods || !p->vms || !p->devices || !p->rows)
		return -ENOMEM;
	p->spec.flashes = p->flashes;
	p->spec.methods = p->methods;
	p->spec.vms = p->vms;
	p->spec.devices = p->devices;
	p->spec.rows = p->rows;
	return 0;
}

static void parts_vms(struct spec_parts *p, const json_t *body, uint32_t node)
{
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(body, "vms"), i, o)
	{
		const char *mode = field_text(o, "mode");
		struct policy_vm_spec *v = &p->vms[i];

		*v = (struct policy_vm_spec){
			.node = node,
			.vm = (uint32_t)field_number(o, "number"),
			.name = field_text(o, "name"),
			.host_addr = field_number(o, "host_addr"),
			.guest_addr = field_number(o, "guest_addr"),
			.mem_bytes = field_number(o, "memory"),
			.data_flash = field_text(o, "data_flash"),
			.inter_flash = field_text(o, "intermediate_flash"),
			.method = field_text(o, "method"),
		};
		if (mode && policy_mode_parse(mode, &v->mode) < 0)
			v->mode = POLICY_MODES; /* refused by the check that follows */
	}
}

static void parts_flashes(struct spec_parts *p, const json_t *flashes, uint32_t node)
{
	json_t *o;
	size_t i;

	if (flashes) {
		json_array_foreach((json_t *)flashes, i, o)
		{
			p->flashes[i] = (struct policy_flash_spec){node, json_string_value(o)};
		}
		return;
	}
	for (i = 0; i < p->spec.nvms; i++) {
		p->flashes[2 * i] = (struct policy_flash_spec){node, p->vms[i].data_flash};
		p->flashes[2 * i + 1] = (struct policy_flash_spec){node, p->vms[i].inter_flash};
	}
}

static void parts_rows(struct spec_parts *p, const json_t *body, uint32_t node)
{
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(body, "methods"), i, o)
	{
		p->methods[i] = json_string_value(o);
	}
	json_array_foreach(json_object_get(body, "devices"), i, o)
	{
		p->devices[i] = (struct policy_device_spec){.node = node,
			.vm = tables_vm_number(body, field_text(o, "vm")),
			.path = field_text(o, "path"),
			.method = field_text(o, "method")};
	}
	json_array_foreach(json_object_get(body, "rows"), i, o)
	{
		p->rows[i] = (struct policy_row_spec){.node = node,
			.vm = tables_vm_number(body, field_text(o, "vm")),
			.host_addr = field_number(o, "host_addr"),
			.method = field_text(o, "method"),
			.path = field_text(o, "path"),
			.ec = json_is_true(json_object_get(o, "ec"))};
	}
}

int tables_policy(const json_t *body, uint64_t version, const json_t *flashes,
	struct policy_table **out, struct err *e)
{
	uint32_t node = (uint32_t)field_number(body, "node");
	struct spec_parts p = {.spec = {.version = version}};
	int rc = parts_alloc(&p, body, flashes);

	if (!rc) {
		parts_vms(&p, body, node);
		parts_flashes(&p, flashes, node);
		parts_rows(&p, body, node);
		rc = policy_table_open(&p.spec, out, e);
	} else {
		field_no_memory(e, "table");
	}
	parts_free(&p);
	return rc;
}

/* ---- comparing --------------------------------------------------------------------------------------------------- */

static json_t *outcome_json(const struct policy_device *d)
{
	return d ? json_string(policy_outcome_name(d->outcome)) : json_null();
}

static void add_outcome(void *arg, const struct policy_change *c)
{
	json_array_append_new(
		arg, json_pack("{s:s, s:s, s:o, s:o}", "vm", c->vm, "path", c->path, "before",
			     outcome_json(c->before), "after", outcome_json(c->after)));
}

json_t *tables_outcomes(const struct policy_table *before, const struct policy_table *after)
{
	json_t *list = json_array();

	if (list)
		policy_diff(before, after, add_outcome, list);
	return list;
}

/* What an entry of a body's list is called; the same name means the same thing. */
static void entry_name(const char *list, const json_t *o, char *buf, size_t size)
{
	const char *method = field_text(o, "method"), *path = field_text(o, "path");

	if (!strcmp(list, "vms"))
		snprintf(buf, size, "vm %s", field_text(o, "name"));
	else if (!strcmp(list, "devices"))
		snprintf(buf, size, "device %s %s", field_text(o, "vm"), path);
	else
		snprintf(buf, size, "row %s%s%s%s%s", field_text(o, "vm"), method ? " method " : "",
			method ? method : "", path ? " path " : "", path ? path : "");
}

/* {name: entry}: lists may be long. Entries are borrowed by reference count. */
static json_t *index_of(json_t *list, const char *kind)
{
	json_t *index = json_object(), *o;
	char name[320];
	size_t i;

	json_array_foreach(list, i, o)
	{
		entry_name(kind, o, name, sizeof(name));
		json_object_set(index, name, o);
	}
	return index;
}

static void add_difference(json_t *out, const char *object, json_t *before, json_t *after)
{
	if (before && after && json_equal(before, after))
		return;
	json_array_append_new(out, json_pack("{s:s, s:s, s:O?, s:O?}", "change",
					   !before  ? "added"
					   : !after ? "removed"
						    : "changed",
					   "object", object, "before", before, "after", after));
}

static void compare_lists(json_t *out, const char *kind, json_t *before, json_t *after)
{
	json_t *old = index_of(before, kind), *new = index_of(after, kind), *o;
	char name[320];
	size_t i;

	json_array_foreach(before, i, o)
	{
		entry_name(kind, o, name, sizeof(name));
		add_difference(out, name, o, json_object_get(new, name));
	}
	json_array_foreach(after, i, o)
	{
		entry_name(kind, o, name, sizeof(name));
		if (!json_object_get(old, name))
			add_difference(out, name, NULL, o);
	}
	json_decref(old);
	json_decref(new);
}

json_t *tables_compare(const json_t *before, const json_t *after)
{
	static const char *const lists[] = {"vms", "devices", "rows"};
	static const char *const settings[] = {"methods", "uplink", "reception", "queue"};
	json_t *out = json_array();

	for (size_t n = 0; out && n < ARRAY_LEN(lists); n++)
		compare_lists(out, lists[n], json_object_get(before, lists[n]),
			json_object_get(after, lists[n]));
	for (size_t n = 0; out && n < ARRAY_LEN(settings); n++) {
		json_t *b = json_object_get(before, settings[n]);
		json_t *a = json_object_get(after, settings[n]);

		if (b || a)
			add_difference(out, settings[n], b, a);
	}
	return out;
}

/* ---- explaining ---------------------------------------------------------------------------------------------------- */

static json_t *text_or_null(const char *s)
{
	return s[0] ? json_string(s) : json_null();
}

json_t *tables_explanation(const struct policy_explanation *x)
{
	json_t *rows = json_array(), *steps = json_array();

	for (size_t i = 0; i < x->nrows; i++) {
		const struct policy_explain_row *r = &x->rows[i];

		json_array_append_new(
			rows, json_pack("{s:i, s:o, s:o, s:b, s:b, s:b, s:s, s:s}", "row",
				      (int)r->row->number, "method", text_or_null(r->row->method),
				      "path", text_or_null(r->row->path), "ec", r->row->ec,
				      "matched", r->matched, "decisive", r->decisive, "match",
				      policy_match_name(r->match), "why", r->why));
	}
	for (size_t i = 0; i < x->nsteps; i++) {
		json_t *figure = x->steps[i].figure ? json_integer(x->steps[i].figure)
						    : json_null();

		json_array_append_new(
			steps, json_pack("{s:o, s:s}", "figure", figure, "text", x->steps[i].text));
	}
	return json_pack("{s:I, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "version",
		(json_int_t)x->version, "vm", x->vm->name, "device", x->device->path, "op",
		x->op == POLICY_OP_READ ? "read" : "write", "mode", policy_mode_name(x->vm->mode),
		"mode_why", x->mode_why, "method", x->device->method, "method_why", x->method_why,
		"outcome", policy_outcome_name(x->outcome), "result", x->result, "rows", rows,
		"steps", steps);
}
