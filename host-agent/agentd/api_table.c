/* SPDX-License-Identifier: BSD-3-Clause */
/* Tables 203 and 204: show, history, differences, push, fetch, explain. */
#include "host-agent/agentd/api.h"
#include "host-agent/agentd/field.h"
#include "host-agent/agentd/pbjson.h"
#include "host-agent/agentd/sync.h"
#include "host-agent/agentd/tables.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define HISTORY_MAX 1000

static int version_query(struct api_request *rq, const char *name, uint64_t *out, struct err *e)
{
	const char *s = api_query(rq, name);
	char *end;

	*out = 0;
	if (!s)
		return 0;
	errno = 0;
	*out = strtoull(s, &end, 10);
	if (s[0] < '0' || s[0] > '9' || *end || errno || !*out || *out > INT64_MAX)
		return err_set(
			e, -EINVAL, "table", name, "not a version; allowed: a number from 1");
	return 0;
}

/* What the card of a node has: the live number where it is connected, else the last one known. */
static uint64_t card_version(struct api_request *rq, const char *node, bool *connected)
{
	struct node_state st = {.connected = false};
	json_t *key = json_pack("{s:s}", "name", node), *o = NULL;
	uint64_t v = 0;

	node_state_get(rq->a, node, &st);
	*connected = st.connected;
	if (st.connected)
		v = st.card_version;
	else if (store_get(rq->s, &noun_node, key, &o, NULL) == 0)
		v = field_number(o, "card_version");
	json_decref(o);
	json_decref(key);
	return v;
}

static int get_version(
	struct api_request *rq, const char *node, uint64_t version, json_t **out, struct err *e)
{
	int rc = store_version_get(rq->s, node, version, out, e);

	if (rc == -ENOENT && !version) {
		err_set(e, rc, "table", "", "node %s has no tables yet", node);
	}
	return rc;
}

static int show(struct api_request *rq, json_t **out, struct err *e)
{
	struct policy_table *t = NULL;
	const char *node;
	uint64_t version;
	json_t *v = NULL;
	bool connected;
	int rc = api_node(rq, &node, e);

	if (!rc)
		rc = version_query(rq, "version", &version, e);
	if (!rc)
		rc = get_version(rq, node, version, &v, e);
	if (rc < 0)
		return rc;
	json_object_set_new(
		v, "card_version", json_integer((json_int_t)card_version(rq, node, &connected)));
	json_object_set_new(v, "card_connected", json_boolean(connected));
	json_object_set_new(v, "node", json_string(node));
	if (tables_policy(json_object_get(v, "body"), version, NULL, &t, NULL) == 0)
		json_object_set_new(v, "outcomes", tables_outcomes(NULL, t));
	policy_table_close(t);
	*out = v;
	return 0;
}

static int history(struct api_request *rq, json_t **out, struct err *e)
{
	json_t *list, *o;
	const char *node;
	uint64_t card;
	bool connected;
	size_t i;
	int rc = api_node(rq, &node, e);

	if (!rc)
		rc = store_version_list(rq->s, node, HISTORY_MAX, &list, e);
	if (rc < 0)
		return rc;
	card = card_version(rq, node, &connected);
	json_array_foreach(list, i, o)
	{
		json_object_set_new(o, "newest", json_boolean(i == 0));
		json_object_set_new(o, "on_card", json_boolean(field_number(o, "version") == card));
	}
	*out = json_pack("{s:s, s:o}", "node", node, "items", list);
	return *out ? 0 : -ENOMEM;
}

/* Differences and outcomes between two bodies; a body that older rules let pass has no outcomes. */
static json_t *differences(const json_t *from, const json_t *to)
{
	struct policy_table *a = NULL, *b = NULL;
	json_t *outcomes = NULL;

	if (tables_policy(from, 0, NULL, &a, NULL) == 0 &&
		tables_policy(to, 0, NULL, &b, NULL) == 0)
		outcomes = tables_outcomes(a, b);
	policy_table_close(a);
	policy_table_close(b);
	return json_pack("{s:o, s:o}", "differences", tables_compare(from, to), "outcomes",
		outcomes ? outcomes : json_array());
}

static int diff(struct api_request *rq, json_t **out, struct err *e)
{
	json_t *a = NULL, *b = NULL;
	uint64_t from, to;
	const char *node;
	int rc = api_node(rq, &node, e);

	if (!rc)
		rc = version_query(rq, "from", &from, e);
	if (!rc)
		rc = version_query(rq, "to", &to, e);
	if (!rc)
		rc = get_version(rq, node, to, &b, e);
	if (!rc) {
		if (!from)
			from = MAX(field_number(b, "version"), 2) - 1;
		rc = get_version(rq, node, from, &a, e);
	}
	if (!rc) {
		*out = differences(json_object_get(a, "body"), json_object_get(b, "body"));
		json_object_set_new(*out, "node", json_string(node));
		json_object_set(*out, "from", json_object_get(a, "version"));
		json_object_set(*out, "to", json_object_get(b, "version"));
	}
	json_decref(a);
	json_decref(b);
	return rc;
}

/* ---- push ---------------------------------------------------------------------------------------------------- */

static int push_locked(
	struct api_request *rq, const char *node, bool force, json_t **out, struct err *e)
{
	struct sync_result res = {.applied = false};
	int rc = sync_now(rq->a, node, force ? SYNC_FORCE : SYNC_PUSH, &res, e);

	if (!rc && !res.applied && res.problem[0])
		rc = err_set(e, -EIO, "node", "", "%s", res.problem);
	else if (!rc && !res.applied)
		rc = err_set(e, -ENOENT, "pool", "",
			"node %s has no pool yet, and tables name its flash; allowed: pool create "
			"first",
			node);
	if (!rc)
		*out = json_pack("{s:s, s:I, s:s, s:O?}", "node", node, "version",
			(json_int_t)res.version, "state", res.pushed ? "applied" : "unchanged",
			"remarks", res.remarks);
	sync_result_clear(&res);
	return rc;
}

static int push(struct api_request *rq, json_t **out, struct err *e)
{
	const char *node;
	int rc;

	if (!rq->body)
		rq->body = json_object();
	rc = api_node(rq, &node, e);
	if (rc < 0)
		return rc;
	pthread_mutex_lock(&rq->a->change);
	rc = push_locked(rq, node, json_is_true(json_object_get(rq->body, "force")), out, e);
	pthread_mutex_unlock(&rq->a->change);
	return rc;
}

/* ---- fetch --------------------------------------------------------------------------------------------------------- */

/* The card's tables as a body. *version: their number. */
static int fetch_body(
	struct api_request *rq, const char *node, json_t **body, uint64_t *version, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TablesGet get = PARAPET__TABLES_GET__INIT;
	struct rpc_msg reply;
	int rc;

	req.op_case = PARAPET__REQUEST__OP_TABLES_GET;
	req.tables_get = &get;
	rc = node_call(rq->a, node, &req, &reply, e);
	if (rc < 0)
		return rc;
	if (reply.frame->response->result_case == PARAPET__RESPONSE__RESULT_TABLES) {
		*version = reply.frame->response->tables->version;
		rc = tables_from_card(reply.frame->response->tables, body, e);
	} else {
		rc = err_set(e, -EPROTO, "card", "", "no tables in its answer");
	}
	rpc_msg_clear(&reply);
	return rc;
}

/* The card's volumes: a table does not tell their sizes. */
static int fetch_devices(struct api_request *rq, const char *node, json_t **list, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__DeviceList dl = PARAPET__DEVICE_LIST__INIT;
	struct rpc_msg reply;
	int rc;

	req.op_case = PARAPET__REQUEST__OP_DEVICE_LIST;
	req.device_list = &dl;
	rc = node_call(rq->a, node, &req, &reply, e);
	if (rc < 0)
		return rc;
	*list = json_array();
	if (reply.frame->response->result_case == PARAPET__RESPONSE__RESULT_DEVICES) {
		const Parapet__Devices *d = reply.frame->response->devices;

		for (size_t i = 0; i < d->n_devices; i++)
			json_array_append_new(*list, pbjson_message(&d->devices[i]->base));
	}
	rpc_msg_clear(&reply);
	return 0;
}

struct adoption {
	const char *node;
	json_t *body, *volumes;
};

static json_t *volume_of(const struct adoption *ad, const char *vm, const char *path)
{
	json_t *o, *vms = json_object_get(ad->body, "vms");
	uint64_t number = 0;
	size_t i;

	json_array_foreach(vms, i, o)
	{
		if (!strcmp(field_text(o, "name"), vm))
			number = field_number(o, "number");
	}
	json_array_foreach(ad->volumes, i, o)
	{
		if (field_number(o, "vm") == number && field_text(o, "path") &&
			!strcmp(field_text(o, "path"), path))
			return o;
	}
	return NULL;
}

static int adopt_device(
	struct change *c, const struct adoption *ad, const json_t *in, struct err *e)
{
	json_t *o = json_deep_copy(in), *v;
	char ec[16];
	int rc;

	if (!o)
		return err_set(e, -ENOMEM, "store", "", "out of memory");
	v = volume_of(ad, field_text(in, "vm"), field_text(in, "path"));
	json_object_set_new(o, "node", json_string(ad->node));
	json_object_set_new(o, "size", json_integer((json_int_t)field_number(v, "size_bytes")));
	json_object_set_new(o, "created", json_boolean(v != NULL));
	if (field_text(v, "layout"))
		json_object_set(o, "layout", json_object_get(v, "layout"));
	if (json_object_get(v, "block_bytes"))
		json_object_set(o, "block_bytes", json_object_get(v, "block_bytes"));
	if (json_object_get(v, "k") && json_object_get(v, "m")) {
		snprintf(ec, sizeof(ec), "%u+%u", (unsigned int)field_number(v, "k"),
			(unsigned int)field_number(v, "m"));
		json_object_set_new(o, "ec", json_string(ec));
	}
	rc = store_put(c->s, &noun_device, o, e);
	json_decref(o);
	return rc;
}

static int adopt_list(struct change *c, const struct adoption *ad, const struct noun *n,
	const char *name, struct err *e)
{
	json_t *o;
	size_t i;
	int rc;

	json_array_foreach(json_object_get(ad->body, name), i, o)
	{
		json_t *copy = json_copy(o);

		if (!copy)
			return err_set(e, -ENOMEM, "store", "", "out of memory");
		json_object_set_new(copy, "node", json_string(ad->node));
		if (n == &noun_row && !field_text(copy, "method"))
			json_object_set_new(copy, "method", json_string(""));
		if (n == &noun_row && !field_text(copy, "path"))
			json_object_set_new(copy, "path", json_string(""));
		rc = n == &noun_device ? adopt_device(c, ad, o, e) : store_put(c->s, n, copy, e);
		json_decref(copy);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* Settings of the node that travel with the tables. */
static int adopt_settings(struct change *c, const struct adoption *ad, struct err *e)
{
	static const char *const names[] = {"methods", "uplink", "reception"};
	json_t *key = json_pack("{s:s}", "name", ad->node), *m = json_object(), *q;
	int rc;

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		json_t *v = json_object_get(ad->body, names[i]);

		if (v)
			json_object_set(m, names[i], v);
		else
			json_object_set_new(m, names[i], json_null());
	}
	rc = store_set(c->s, &noun_node, key, m, e);
	json_decref(key);
	json_decref(m);
	q = json_copy(json_object_get(ad->body, "queue"));
	if (!rc && q) {
		json_object_set_new(q, "node", json_string(ad->node));
		rc = store_put(c->s, &noun_queue, q, e);
	}
	json_decref(q);
	return rc;
}

/* The card's tables become the store's. */
static int adopt(struct change *c, void *arg, struct err *e)
{
	static const struct noun *const parts[] = {&noun_row, &noun_device, &noun_vm, &noun_queue};
	struct adoption *ad = arg;
	json_t *filter = json_pack("{s:s}", "node", ad->node);
	int rc = 0;

	for (size_t i = 0; rc >= 0 && i < ARRAY_LEN(parts); i++)
		rc = store_clear(c->s, parts[i], filter, e);
	json_decref(filter);
	if (rc >= 0)
		rc = adopt_list(c, ad, &noun_vm, "vms", e);
	if (!rc)
		rc = adopt_list(c, ad, &noun_device, "devices", e);
	if (!rc)
		rc = adopt_list(c, ad, &noun_row, "rows", e);
	if (!rc)
		rc = adopt_settings(c, ad, e);
	if (!rc)
		json_array_append_new(
			c->changed, json_pack("{s:s, s:s+, s:s}", "node", ad->node, "object",
					    "tables of node ", ad->node, "action", "changed"));
	return rc;
}

static int fetch(struct api_request *rq, json_t **out, struct err *e)
{
	struct change_options o = {.author = rq->author};
	struct adoption ad = {NULL};
	json_t *mine = NULL, *result = NULL;
	uint64_t version = 0;
	bool take;
	int rc;

	if (!rq->body)
		rq->body = json_object();
	rc = api_node(rq, &ad.node, e);
	take = json_is_true(json_object_get(rq->body, "adopt"));
	if (!rc)
		rc = fetch_body(rq, ad.node, &ad.body, &version, e);
	if (!rc)
		rc = fetch_devices(rq, ad.node, &ad.volumes, e);
	if (!rc && store_version_get(rq->s, ad.node, 0, &mine, NULL) < 0)
		mine = json_pack("{s:i, s:o}", "version", 0, "body", tables_empty(0));
	if (!rc) {
		*out = differences(json_object_get(mine, "body"), ad.body);
		json_object_set_new(*out, "node", json_string(ad.node));
		json_object_set(*out, "version", json_object_get(mine, "version"));
		json_object_set_new(*out, "card_version", json_integer((json_int_t)version));
		json_object_set(*out, "body", ad.body);
		json_object_set_new(*out, "adopted", json_boolean(take));
	}
	if (!rc && take)
		rc = change_run(rq->a, &o, adopt, &ad, &result, e);
	if (!rc && result)
		json_object_set(*out, "nodes", json_object_get(result, "nodes"));
	if (rc < 0) {
		json_decref(*out);
		*out = NULL;
	}
	json_decref(result);
	json_decref(mine);
	json_decref(ad.body);
	json_decref(ad.volumes);
	return rc;
}

/* ---- explain -------------------------------------------------------------------------------------------------------- */

static int explain_in(struct policy_table *t, const char *vm, const char *path, enum policy_op op,
	json_t **out, struct err *e)
{
	struct policy_explanation *x;
	const struct policy_vm *v = NULL;
	const struct policy_device *d;
	char object[96];
	int rc;

	for (size_t i = 0; i < t->nvms; i++)
		if (!strcmp(t->vms[i].name, vm))
			v = &t->vms[i];
	snprintf(object, sizeof(object), "vm %.64s", vm);
	if (!v)
		return err_set(e, -ENOENT, object, "", "does not exist");
	d = policy_vm_device(v, path);
	if (!d)
		return err_set(e, -ENOENT, object, "device",
			"has no such device; it has %zu (device show)", v->ndevices);
	rc = policy_explain(t, d, op, &x);
	if (rc < 0)
		return err_set(e, rc, object, "", "cannot be explained");
	*out = tables_explanation(x);
	free(x);
	return *out ? 0 : -ENOMEM;
}

static int explain(struct api_request *rq, json_t **out, struct err *e)
{
	const char *vm = api_query(rq, "vm"), *device = api_query(rq, "device");
	const char *op = api_query(rq, "op"), *node;
	struct policy_table *t = NULL;
	json_t *v = NULL;
	bool connected;
	int rc = api_node(rq, &node, e);

	if (!rc && (!vm || !device))
		rc = err_set(e, -EINVAL, "request", vm ? "device" : "vm", "is needed");
	if (!rc && op && strcmp(op, "read") != 0 && strcmp(op, "write") != 0)
		rc = err_set(e, -EINVAL, "request", "op", "unknown; allowed: read, write");
	if (!rc)
		rc = get_version(rq, node, 0, &v, e);
	if (!rc)
		rc = tables_policy(
			json_object_get(v, "body"), field_number(v, "version"), NULL, &t, e);
	if (!rc)
		rc = explain_in(t, vm, device,
			op && !strcmp(op, "read") ? POLICY_OP_READ : POLICY_OP_WRITE, out, e);
	if (!rc) {
		json_object_set_new(*out, "node", json_string(node));
		json_object_set_new(*out, "card_version",
			json_integer((json_int_t)card_version(rq, node, &connected)));
	}
	policy_table_close(t);
	json_decref(v);
	return rc;
}

const struct api_route api_table_routes[] = {
	{"GET", "/v1/table", show},
	{"GET", "/v1/table/history", history},
	{"GET", "/v1/table/diff", diff},
	{"POST", "/v1/table/push", push},
	{"POST", "/v1/table/fetch", fetch},
	{"GET", "/v1/explain", explain},
	{NULL},
};
