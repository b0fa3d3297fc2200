/* SPDX-License-Identifier: BSD-3-Clause */
/* What only a card knows: status, statistics, flow rules. */
#include "host-agent/agentd/api.h"
#include "host-agent/agentd/field.h"
#include "host-agent/agentd/pbjson.h"
#include "host-agent/agentd/sync.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int api_ask(struct api_request *rq, const char *node, Parapet__Request *req,
	Parapet__Response__ResultCase want, json_t **out, struct err *e)
{
	const Parapet__Response *r;
	const ProtobufCMessage *m;
	struct rpc_msg reply;
	int rc = node_call(rq->a, node, req, &reply, e);

	if (rc < 0)
		return rc;
	r = reply.frame->response;
	/* the members of the union are all pointers to messages */
	m = r->result_case == want ? (const ProtobufCMessage *)r->status : NULL;
	*out = m ? pbjson_message(m) : NULL;
	rpc_msg_clear(&reply);
	return *out ? 0 : err_set(e, -EPROTO, "card", "", "its answer is not what was asked for");
}

/* VM names beside the card's VM numbers, in every object of list. */
static void name_vms(struct api_request *rq, const char *node, json_t *list)
{
	json_t *filter = json_pack("{s:s}", "node", node), *vms = NULL, *o, *vm;
	size_t i, j;

	if (store_list(rq->s, &noun_vm, filter, &vms, NULL) == 0) {
		json_array_foreach(list, i, o)
		{
			json_array_foreach(vms, j, vm)
			{
				if (json_equal(json_object_get(o, "vm"),
					    json_object_get(vm, "number")))
					json_object_set(o, "vm_name", json_object_get(vm, "name"));
			}
		}
	}
	json_decref(vms);
	json_decref(filter);
}

/* ---- status ---------------------------------------------------------------------------------------------------- */

/* "in-sync", "pending", "problem", "recovering" (the card opens its pool) or "unreachable". */
static const char *node_word(
	const json_t *node, const struct node_state *st, uint64_t newest, json_t *card)
{
	if (!st->connected)
		return "unreachable";
	if (!strcmp(field_text_or_empty(json_object_get(card, "pool"), "state"), "recovering"))
		return "recovering";
	if (json_object_get(node, "problem"))
		return "problem";
	return st->card_version == newest ? "in-sync" : "pending";
}

static json_t *status_of(struct api_request *rq, const json_t *node)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__StatusGet get = PARAPET__STATUS_GET__INIT;
	struct node_state st = {.connected = false};
	const char *name = field_text_or_empty(node, "name");
	json_t *o, *v = NULL, *card = NULL;
	struct err e = {0};
	uint64_t newest = 0;

	if (store_version_get(rq->s, name, 0, &v, NULL) == 0)
		newest = (uint64_t)json_integer_value(json_object_get(v, "version"));
	json_decref(v);
	req.op_case = PARAPET__REQUEST__OP_STATUS_GET;
	req.status_get = &get;
	if (api_ask(rq, name, &req, PARAPET__RESPONSE__RESULT_STATUS, &card, &e) < 0)
		card = NULL;
	node_state_get(rq->a, name, &st);
	o = json_pack("{s:s, s:O, s:b, s:s, s:I, s:I, s:O?, s:o?}", "node", name, "address",
		json_object_get(node, "address"), "connected", st.connected, "state",
		node_word(node, &st, newest, card), "version", (json_int_t)newest, "card_version",
		(json_int_t)st.card_version, "problem", json_object_get(node, "problem"), "card",
		card);
	if (o && !card)
		json_object_set_new(o, "reason", json_string(err_text(&e)));
	return o;
}

static int status(struct api_request *rq, json_t **out, struct err *e)
{
	const char *want = api_query(rq, "node"), *node;
	json_t *nodes = NULL, *list, *o;
	size_t i;
	int rc = want ? api_node(rq, &node, e) : 0;

	if (!rc)
		rc = store_list(rq->s, &noun_node, NULL, &nodes, e);
	if (rc < 0)
		return rc;
	list = json_array();
	json_array_foreach(nodes, i, o)
	{
		if (!want || !strcmp(want, field_text_or_empty(o, "name")))
			json_array_append_new(list, status_of(rq, o));
	}
	json_decref(nodes);
	*out = json_pack("{s:o}", "items", list);
	return *out ? 0 : -ENOMEM;
}

/* ---- statistics, flow rules, devices as the card sees them ---------------------------------------------------- */

/* What the card of the request's node says; the answer names the node, and the VMs of its list `vms_in` (NULL: it has none). */
static int ask_node(struct api_request *rq, Parapet__Request *req,
	Parapet__Response__ResultCase result, const char *vms_in, json_t **out, struct err *e)
{
	const char *node;
	int rc = api_node(rq, &node, e);

	if (!rc)
		rc = api_ask(rq, node, req, result, out, e);
	if (rc)
		return rc;
	if (vms_in)
		name_vms(rq, node, json_object_get(*out, vms_in));
	json_object_set_new(*out, "node", json_string(node));
	return 0;
}

static int stats(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__StatsGet get = PARAPET__STATS_GET__INIT;

	req.op_case = PARAPET__REQUEST__OP_STATS_GET;
	req.stats_get = &get;
	return ask_node(rq, &req, PARAPET__RESPONSE__RESULT_STATS, NULL, out, e);
}

/* One answer of many: the reader takes differences. */
static int top(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TopGet get = PARAPET__TOP_GET__INIT;

	req.op_case = PARAPET__REQUEST__OP_TOP_GET;
	req.top_get = &get;
	return ask_node(rq, &req, PARAPET__RESPONSE__RESULT_TOP, NULL, out, e);
}

static int shards(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__ShardList get = PARAPET__SHARD_LIST__INIT;

	req.op_case = PARAPET__REQUEST__OP_SHARD_LIST;
	req.shard_list = &get;
	return ask_node(rq, &req, PARAPET__RESPONSE__RESULT_SHARDS, NULL, out, e);
}

static int flows(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlowList get = PARAPET__FLOW_LIST__INIT;

	req.op_case = PARAPET__REQUEST__OP_FLOW_LIST;
	req.flow_list = &get;
	return ask_node(rq, &req, PARAPET__RESPONSE__RESULT_FLOW_RULES, "rules", out, e);
}

static int card_devices(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__DeviceList get = PARAPET__DEVICE_LIST__INIT;

	req.op_case = PARAPET__REQUEST__OP_DEVICE_LIST;
	req.device_list = &get;
	return ask_node(rq, &req, PARAPET__RESPONSE__RESULT_DEVICES, "devices", out, e);
}

/* ---- beside the configuration ------------------------------------------------------------------------- */

json_t *api_card_status(struct api_request *rq, const char *node)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__StatusGet get = PARAPET__STATUS_GET__INIT;
	json_t *o = NULL;

	req.op_case = PARAPET__REQUEST__OP_STATUS_GET;
	req.status_get = &get;
	return api_ask(rq, node, &req, PARAPET__RESPONSE__RESULT_STATUS, &o, NULL) < 0 ? NULL : o;
}

static json_t *card_device_list(struct api_request *rq, const char *node)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__DeviceList get = PARAPET__DEVICE_LIST__INIT;
	json_t *o = NULL;

	req.op_case = PARAPET__REQUEST__OP_DEVICE_LIST;
	req.device_list = &get;
	if (api_ask(rq, node, &req, PARAPET__RESPONSE__RESULT_DEVICES, &o, NULL) < 0)
		return NULL;
	name_vms(rq, node, json_object_get(o, "devices"));
	return o;
}

/* What `live` (a status, or a list of devices) says about object o. */
static json_t *live_part(const struct noun *n, const json_t *o, const json_t *live)
{
	json_t *pool = json_object_get(live, "pool"), *part;
	size_t i;

	if (n == &noun_pool)
		return pool;
	if (n == &noun_flash) {
		json_array_foreach(json_object_get(pool, "flashes"), i, part)
		{
			if (!strcmp(field_text_or_empty(json_object_get(part, "flash"), "name"),
				    field_text_or_empty(o, "name")))
				return part;
		}
		return NULL;
	}
	json_array_foreach(json_object_get(live, "devices"), i, part)
	{
		if (!strcmp(field_text_or_empty(part, "vm_name"), field_text_or_empty(o, "vm")) &&
			!strcmp(field_text_or_empty(part, "path"), field_text_or_empty(o, "path")))
			return part;
	}
	return NULL;
}

/* How the node is that the flash belongs to. */
static void add_domain_state(json_t *o, const json_t *part, const json_t *live)
{
	const char *domain = field_text_or_empty(json_object_get(part, "flash"), "domain");
	json_t *node;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(live, "pool"), "nodes"), i, node)
	{
		if (!strcmp(field_text_or_empty(node, "name"), domain))
			json_object_set(o, "domain_state", json_object_get(node, "state"));
	}
}

/* On which shard of its card each VM is, where there are several. */
static void add_shard(json_t *vm, const json_t *live)
{
	json_t *o;
	size_t i;

	if (json_integer_value(json_object_get(json_object_get(live, "pool"), "shards")) < 2)
		return;
	json_array_foreach(json_object_get(live, "vms"), i, o)
	{
		if (json_equal(json_object_get(o, "vm"), json_object_get(vm, "number")))
			json_object_set(vm, "shard", json_object_get(o, "shard"));
	}
}

void api_add_live(struct api_request *rq, const struct noun *n, json_t *list)
{
	json_t *live = NULL, *o, *part;
	const char *node = "";
	size_t i;

	if (n != &noun_flash && n != &noun_pool && n != &noun_device && n != &noun_vm)
		return;
	json_array_foreach(list, i, o)
	{
		if (strcmp(node, field_text_or_empty(o, "node")) != 0) {
			node = field_text_or_empty(o, "node");
			json_decref(live);
			live = n == &noun_device ? card_device_list(rq, node)
						 : api_card_status(rq, node);
		}
		if (n == &noun_vm) {
			add_shard(o, live);
			continue;
		}
		part = live_part(n, o, live);
		if (part)
			json_object_set(o, "card", part);
		if (part && n == &noun_flash)
			add_domain_state(o, part, live);
		/* Nobody named one: the card's choice. */
		if (part && n == &noun_flash && !json_object_get(o, "domain"))
			json_object_set(o, "domain",
				json_object_get(json_object_get(part, "flash"), "domain"));
	}
	json_decref(live);
}

/* The card's own explanation: what is in force there, right now. */
static int card_explain(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__Explain ex = PARAPET__EXPLAIN__INIT;
	const char *vm = api_query(rq, "vm"), *device = api_query(rq, "device");
	const char *op = api_query(rq, "op"), *node;
	json_t *key, *have = NULL;
	int rc = api_node(rq, &node, e);

	if (!rc && (!vm || !device))
		rc = err_set(e, -EINVAL, "request", vm ? "device" : "vm", "is needed");
	if (rc < 0)
		return rc;
	key = json_pack("{s:s, s:s}", "node", node, "name", vm);
	rc = key ? store_get(rq->s, &noun_vm, key, &have, e) : -ENOMEM;
	ex.vm = (uint32_t)json_integer_value(json_object_get(have, "number"));
	ex.path = (char *)device;
	ex.has_read = ex.read = op && !strcmp(op, "read");
	req.op_case = PARAPET__REQUEST__OP_EXPLAIN;
	req.explain = &ex;
	if (!rc)
		rc = api_ask(rq, node, &req, PARAPET__RESPONSE__RESULT_EXPLANATION, out, e);
	json_decref(have);
	json_decref(key);
	return rc;
}

const struct api_route api_card_routes[] = {
	{"GET", "/v1/status", status},
	{"GET", "/v1/stats", stats},
	{"GET", "/v1/top", top},
	{"GET", "/v1/shards", shards},
	{"GET", "/v1/flows", flows},
	{"GET", "/v1/card/devices", card_devices},
	{"GET", "/v1/card/explain", card_explain},
	{NULL},
};
