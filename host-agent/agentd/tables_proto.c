/* SPDX-License-Identifier: BSD-3-Clause */
/* Bodies to and from the protobuf contract. */
#include "host-agent/agentd/tables.h"

#include "common/base/util.h"
#include "host-agent/agentd/field.h"

#include <errno.h>
#include <string.h>
#include <time.h>

static const char *const reception_names[] = {
	[PARAPET__RECEPTION__RECEPTION_ADAPTIVE] = "adaptive",
	[PARAPET__RECEPTION__RECEPTION_POLLING] = "polling",
	[PARAPET__RECEPTION__RECEPTION_INTERRUPT] = "interrupt",
};

static char *text_of(const json_t *o, const char *name)
{
	/* protobuf-c wants char *, and only reads when it packs */
	return (char *)field_text(o, name);
}

/* Memory that lives as long as the message; NULL when there is none (or for no elements). */
static void *chunk(struct tables_message *m, size_t n, size_t size)
{
	void **list = realloc(m->chunks, (m->nchunks + 1) * sizeof(*list));
	void *p;

	if (!list)
		return NULL;
	m->chunks = list;
	p = calloc(n ? n : 1, size);
	if (p)
		m->chunks[m->nchunks++] = p;
	return p;
}

/* An array of n pointers to n zeroed structs of size bytes. */
static void *chunk_list(struct tables_message *m, size_t n, size_t size)
{
	char *items = chunk(m, n, size);
	void **list = chunk(m, n, sizeof(void *));

	for (size_t i = 0; items && list && i < n; i++)
		list[i] = items + i * size;
	return items ? list : NULL;
}

void tables_message_free(struct tables_message *m)
{
	for (size_t i = 0; i < m->nchunks; i++)
		free(m->chunks[i]);
	free(m->chunks);
	*m = (struct tables_message){.nchunks = 0};
}

static char **texts(struct tables_message *m, const json_t *list, size_t *n)
{
	char **out;

	*n = 0;
	out = chunk(m, json_array_size(list), sizeof(*out));
	for (size_t i = 0; out && i < json_array_size(list); i++)
		out[(*n)++] = (char *)json_string_value(json_array_get(list, i));
	return out;
}

#define SET_NUMBER(msg, member, o, name)                            \
	do {                                                        \
		const json_t *value_ = json_object_get(o, name);    \
		if (value_) {                                       \
			(msg)->has_##member = true;                 \
			(msg)->member = json_integer_value(value_); \
		}                                                   \
	} while (0)
#define SET_FLAG(msg, member, o, name)                           \
	do {                                                     \
		const json_t *value_ = json_object_get(o, name); \
		if (value_) {                                    \
			(msg)->has_##member = true;              \
			(msg)->member = json_is_true(value_);    \
		}                                                \
	} while (0)

static int put_queue(struct tables_message *m, const json_t *o, Parapet__Queue **out)
{
	const json_t *q = json_object_get(o, "queue");
	Parapet__Queue *p;

	if (!q)
		return 0;
	p = chunk(m, 1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	parapet__queue__init(p);
	SET_NUMBER(p, bytes, q, "bytes");
	SET_NUMBER(p, count, q, "count");
	SET_NUMBER(p, age_us, q, "age_us");
	SET_FLAG(p, each, q, "each");
	SET_FLAG(p, per_vm, q, "per_vm");
	SET_FLAG(p, group_commit, q, "group_commit");
	*out = p;
	return 0;
}

static int put_vm(struct tables_message *m, const json_t *o, Parapet__Vm *p)
{
	enum policy_mode mode;

	parapet__vm__init(p);
	p->vm = (uint32_t)json_integer_value(json_object_get(o, "number"));
	p->name = text_of(o, "name");
	SET_NUMBER(p, host_addr, o, "host_addr");
	SET_NUMBER(p, guest_addr, o, "guest_addr");
	SET_NUMBER(p, mem_bytes, o, "memory");
	SET_NUMBER(p, cpu_cores, o, "cores");
	p->data_flash = text_of(o, "data_flash");
	p->inter_flash = text_of(o, "intermediate_flash");
	p->method = text_of(o, "method");
	if (text_of(o, "mode") && policy_mode_parse(text_of(o, "mode"), &mode) == 0) {
		p->has_mode = true;
		p->mode = (Parapet__Mode)mode; /* same order in both, checked below */
	}
	p->listen = text_of(o, "listen");
	p->vhost = text_of(o, "vhost");
	p->port = text_of(o, "vf");
	p->card_ip = text_of(o, "card_ip");
	p->card_mac = text_of(o, "card_mac");
	p->nqn = text_of(o, "nqn");
	SET_NUMBER(p, qos_mbps, o, "bandwidth_mbps");
	SET_NUMBER(p, qos_iops, o, "iops");
	SET_NUMBER(p, qos_burst_ms, o, "burst_ms");
	SET_NUMBER(p, qos_weight, o, "weight");
	p->hosts = texts(m, json_object_get(o, "hosts"), &p->n_hosts);
	return p->hosts ? 0 : -ENOMEM;
}

_Static_assert((int)POLICY_MODE_AUTO == (int)PARAPET__MODE__MODE_AUTO &&
		       (int)POLICY_MODE_FLAG == (int)PARAPET__MODE__MODE_FLAG &&
		       (int)POLICY_MODE_METHOD == (int)PARAPET__MODE__MODE_METHOD &&
		       (int)POLICY_MODE_PATH == (int)PARAPET__MODE__MODE_PATH &&
		       (int)POLICY_MODE_BOTH == (int)PARAPET__MODE__MODE_BOTH,
	"modes have the same numbers in common/policy and in the contract");

static int put_lists(struct tables_message *m, const json_t *body)
{
	Parapet__Tables *t = &m->tables;
	json_t *vms = json_object_get(body, "vms"), *devices = json_object_get(body, "devices");
	json_t *rows = json_object_get(body, "rows"), *o;
	size_t i;

	t->vms = chunk_list(m, json_array_size(vms), sizeof(**t->vms));
	t->devices = chunk_list(m, json_array_size(devices), sizeof(**t->devices));
	t->rows = chunk_list(m, json_array_size(rows), sizeof(**t->rows));
	t->methods = texts(m, json_object_get(body, "methods"), &t->n_methods);
	if (!t->vms || !t->devices || !t->rows || !t->methods)
		return -ENOMEM;
	json_array_foreach(vms, i, o)
	{
		if (put_vm(m, o, t->vms[i]) < 0)
			return -ENOMEM;
		t->n_vms++;
	}
	json_array_foreach(devices, i, o)
	{
		parapet__table_device__init(t->devices[i]);
		t->devices[i]->vm = tables_vm_number(body, text_of(o, "vm"));
		t->devices[i]->path = text_of(o, "path");
		t->devices[i]->method = text_of(o, "method");
		t->n_devices++;
	}
	json_array_foreach(rows, i, o)
	{
		parapet__row__init(t->rows[i]);
		t->rows[i]->vm = tables_vm_number(body, text_of(o, "vm"));
		SET_NUMBER(t->rows[i], host_addr, o, "host_addr");
		t->rows[i]->method = text_of(o, "method");
		t->rows[i]->path = text_of(o, "path");
		t->rows[i]->ec = json_is_true(json_object_get(o, "ec"));
		t->n_rows++;
	}
	return 0;
}

int tables_message(const json_t *body, uint64_t version, const char *author,
	struct tables_message *out, struct err *e)
{
	const char *reception = text_of(body, "reception");
	Parapet__Tables *t = &out->tables;
	struct timespec ts;
	int rc;

	*out = (struct tables_message){.nchunks = 0};
	parapet__tables__init(t);
	t->version = version;
	SET_NUMBER(t, node, body, "node");
	t->uplink = text_of(body, "uplink");
	t->author = (char *)author;
	clock_gettime(CLOCK_REALTIME, &ts);
	t->has_time_ns = true;
	t->time_ns = (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
	for (size_t i = 0; reception && i < ARRAY_LEN(reception_names); i++) {
		if (!strcmp(reception, reception_names[i])) {
			t->has_reception = true;
			t->reception = (Parapet__Reception)i;
		}
	}
	rc = put_queue(out, body, &t->queue);
	if (!rc)
		rc = put_lists(out, body);
	if (rc < 0) {
		tables_message_free(out);
		err_set(e, rc, "table", "", "out of memory");
	}
	return rc;
}

/* ---- back ---------------------------------------------------------------------------------------------------- */

static void set_text(json_t *o, const char *name, const char *s)
{
	if (s && s[0])
		json_object_set_new(o, name, json_string(s));
}

static void set_number(json_t *o, const char *name, bool has, uint64_t v)
{
	if (has)
		json_object_set_new(o, name, json_integer((json_int_t)v));
}

static void set_flag(json_t *o, const char *name, bool has, bool v)
{
	if (has)
		json_object_set_new(o, name, json_boolean(v));
}

static void set_texts(json_t *o, const char *name, char *const *list, size_t n)
{
	json_t *a;

	if (!n)
		return;
	a = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(a, json_string(list[i]));
	json_object_set_new(o, name, a);
}

static void set_queue(json_t *o, const Parapet__Queue *q)
{
	json_t *j;

	if (!q)
		return;
	j = json_object();
	set_number(j, "bytes", q->has_bytes, q->bytes);
	set_number(j, "count", q->has_count, q->count);
	set_number(j, "age_us", q->has_age_us, q->age_us);
	set_flag(j, "each", q->has_each, q->each);
	set_flag(j, "per_vm", q->has_per_vm, q->per_vm);
	set_flag(j, "group_commit", q->has_group_commit, q->group_commit);
	json_object_set_new(o, "queue", j);
}

static json_t *vm_from_card(const Parapet__Vm *v)
{
	json_t *o = json_object();

	set_text(o, "name", v->name);
	set_number(o, "number", true, v->vm);
	set_number(o, "cores", v->has_cpu_cores, v->cpu_cores);
	set_number(o, "memory", v->has_mem_bytes, v->mem_bytes);
	set_number(o, "host_addr", v->has_host_addr, v->host_addr);
	set_number(o, "guest_addr", v->has_guest_addr, v->guest_addr);
	set_text(o, "method", v->method);
	if (v->has_mode)
		set_text(o, "mode", policy_mode_name((enum policy_mode)v->mode));
	set_text(o, "data_flash", v->data_flash);
	set_text(o, "intermediate_flash", v->inter_flash);
	set_text(o, "vf", v->port);
	set_text(o, "listen", v->listen);
	set_text(o, "vhost", v->vhost);
	set_text(o, "card_ip", v->card_ip);
	set_text(o, "card_mac", v->card_mac);
	set_text(o, "nqn", v->nqn);
	set_texts(o, "hosts", v->hosts, v->n_hosts);
	set_number(o, "bandwidth_mbps", v->has_qos_mbps, v->qos_mbps);
	set_number(o, "iops", v->has_qos_iops, v->qos_iops);
	set_number(o, "burst_ms", v->has_qos_burst_ms, v->qos_burst_ms);
	set_number(o, "weight", v->has_qos_weight, v->qos_weight);
	return o;
}

static const char *vm_name(const Parapet__Tables *t, uint32_t vm)
{
	for (size_t i = 0; i < t->n_vms; i++)
		if (t->vms[i]->vm == vm)
			return t->vms[i]->name;
	return NULL;
}

static int lists_from_card(const Parapet__Tables *t, json_t *b, struct err *e)
{
	json_t *vms = json_object_get(b, "vms"), *devices = json_object_get(b, "devices");
	json_t *rows = json_object_get(b, "rows");

	for (size_t i = 0; i < t->n_vms; i++)
		json_array_append_new(vms, vm_from_card(t->vms[i]));
	for (size_t i = 0; i < t->n_devices; i++) {
		const Parapet__TableDevice *d = t->devices[i];
		const char *vm = vm_name(t, d->vm);
		json_t *o = json_object();

		if (!vm || !d->path) {
			json_decref(o);
			return err_set(e, -EPROTO, "card", "devices", "a device of an unknown VM");
		}
		set_text(o, "vm", vm);
		set_text(o, "path", d->path);
		set_text(o, "method", d->method);
		json_array_append_new(devices, o);
	}
	for (size_t i = 0; i < t->n_rows; i++) {
		const Parapet__Row *r = t->rows[i];
		const char *vm = vm_name(t, r->vm);
		json_t *o = json_object();

		if (!vm) {
			json_decref(o);
			return err_set(e, -EPROTO, "card", "rows", "a row of an unknown VM");
		}
		set_text(o, "vm", vm);
		set_text(o, "method", r->method);
		set_text(o, "path", r->path);
		set_flag(o, "ec", true, r->ec);
		set_number(o, "host_addr", r->has_host_addr, r->host_addr);
		json_array_append_new(rows, o);
	}
	return 0;
}

int tables_from_card(const Parapet__Tables *t, json_t **body, struct err *e)
{
	json_t *b = tables_empty(t->has_node ? t->node : 0);
	int rc;

	if (!b)
		return err_set(e, -ENOMEM, "table", "", "out of memory");
	set_texts(b, "methods", t->methods, t->n_methods);
	set_text(b, "uplink", t->uplink);
	if (t->has_reception && (size_t)t->reception < ARRAY_LEN(reception_names))
		set_text(b, "reception", reception_names[t->reception]);
	set_queue(b, t->queue);
	rc = lists_from_card(t, b, e);
	if (rc < 0)
		json_decref(b);
	else
		*body = b;
	return rc;
}
