/* SPDX-License-Identifier: BSD-3-Clause */
/* What is done to a card's flash and pool beside the configuration: fail, return, replace, open, import, checkpoint. */
#include "host-agent/agentd/api.h"
#include "host-agent/agentd/field.h"
#include "host-agent/agentd/sync.h"

#include "common/base/util.h"
#include "common/nvme/address.h"
#include "common/policy/policy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void body_must_be(struct api_request *rq)
{
	if (!rq->body)
		rq->body = json_object();
}

/* ---- one member --------------------------------------------------------------------------------------------- */

/* The member that the body names, known to the store. */
static int member_of(struct api_request *rq, const char **node, const char **name, struct err *e)
{
	json_t *key, *have = NULL;
	int rc;

	body_must_be(rq);
	*name = field_text_or_empty(rq->body, "name");
	rc = policy_check_name(*name, "flash", "name", e);
	if (!rc)
		rc = api_node(rq, node, e);
	if (rc < 0)
		return rc;
	key = json_pack("{s:s, s:s}", "node", *node, "name", *name);
	rc = key ? store_get(rq->s, &noun_flash, key, &have, e) : field_no_memory(e, "flash");
	json_decref(have);
	json_decref(key);
	return rc;
}

/* Sends req, whose answer is a status; no other change meanwhile. */
static int carry_out(struct api_request *rq, const char *node, const char *name,
	Parapet__Request *req, json_t **out, struct err *e)
{
	json_t *card = NULL;
	int rc;

	pthread_mutex_lock(&rq->a->change);
	rc = api_ask(rq, node, req, PARAPET__RESPONSE__RESULT_STATUS, &card, e);
	pthread_mutex_unlock(&rq->a->change);
	if (!rc) {
		*out = json_pack("{s:s, s:s?, s:O?, s:O?}", "node", node, "name", name, "pool",
			json_object_get(card, "pool"), "tasks", json_object_get(card, "tasks"));
		rc = *out ? 0 : field_no_memory(e, "flash");
	}
	json_decref(card);
	return rc;
}

static int flash_fail(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlashFail ff = PARAPET__FLASH_FAIL__INIT;
	const char *node, *name;
	int rc = member_of(rq, &node, &name, e);

	req.op_case = PARAPET__REQUEST__OP_FLASH_FAIL;
	req.flash_fail = &ff;
	ff.name = (char *)name;
	return rc < 0 ? rc : carry_out(rq, node, name, &req, out, e);
}

static int flash_return(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlashReturn fr = PARAPET__FLASH_RETURN__INIT;
	const char *node, *name;
	int rc = member_of(rq, &node, &name, e);

	req.op_case = PARAPET__REQUEST__OP_FLASH_RETURN;
	req.flash_return = &fr;
	fr.name = (char *)name;
	return rc < 0 ? rc : carry_out(rq, node, name, &req, out, e);
}

static int replace(struct change *c, void *arg, struct err *e)
{
	return change_flash_replace(c, arg, e);
}

static int flash_replace(struct api_request *rq, json_t **out, struct err *e)
{
	const char *node;
	int rc;

	body_must_be(rq);
	rc = api_node(rq, &node, e);
	return rc < 0 ? rc : api_change(rq, replace, rq->body, out, e);
}

/* ---- the pool --------------------------------------------------------------------------------------------------- */

static int pool_known(struct api_request *rq, const char **node, struct err *e)
{
	json_t *key, *have = NULL;
	int rc;

	body_must_be(rq);
	rc = api_node(rq, node, e);
	if (rc < 0)
		return rc;
	key = json_pack("{s:s}", "node", *node);
	rc = key ? store_get(rq->s, &noun_pool, key, &have, e) : field_no_memory(e, "pool");
	json_decref(have);
	json_decref(key);
	return rc;
}

static int answer_pool(struct api_request *rq, const char *node, json_t **out, struct err *e)
{
	json_t *live = api_card_status(rq, node);

	*out = json_pack("{s:s, s:O?}", "node", node, "pool", json_object_get(live, "pool"));
	json_decref(live);
	return *out ? 0 : field_no_memory(e, "pool");
}

/* Opens a pool that the card did not open by itself, then brings the card up to date. */
static int pool_open(struct api_request *rq, json_t **out, struct err *e)
{
	struct sync_result res = {.applied = false};
	const char *node;
	int rc = pool_known(rq, &node, e);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&rq->a->change);
	rc = sync_pool_open(rq->a, rq->s, node, json_is_true(json_object_get(rq->body, "force")),
		json_is_true(json_object_get(rq->body, "take_over")), e);
	if (!rc)
		rc = sync_now(rq->a, node, SYNC_PUSH, &res, e);
	pthread_mutex_unlock(&rq->a->change);
	sync_result_clear(&res);
	return rc < 0 ? rc : answer_pool(rq, node, out, e);
}

static int checkpoint(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__Checkpoint cp = PARAPET__CHECKPOINT__INIT;
	const char *node;
	int rc = pool_known(rq, &node, e);

	req.op_case = PARAPET__REQUEST__OP_CHECKPOINT;
	req.checkpoint = &cp;
	return rc < 0 ? rc : carry_out(rq, node, NULL, &req, out, e);
}

/* ---- import ---------------------------------------------------------------------------------------------------------- */

/* "f0=file:/srv/f0" as an object of noun flash, checked. */
static int member_text(const char *text, const char *node, json_t **out, struct err *e)
{
	const char *eq = strchr(text, '=');
	json_t *in;
	char object[96];
	int rc;

	if (!eq || eq == text)
		return err_set(e, -EINVAL, "pool", "flashes",
			"'%.80s' names no flash; allowed: NAME=ADDRESS, such as f0=file:/srv/f0",
			text);
	in = json_pack("{s:s, s:s%, s:s}", "node", node, "name", text, (size_t)(eq - text),
		"address", eq + 1);
	if (!in)
		return field_no_memory(e, "flash");
	store_object_name(&noun_flash, in, object, sizeof(object));
	rc = schema_check(&noun_flash, in, SCHEMA_CREATE, object, out, e);
	json_decref(in);
	return rc;
}

struct import {
	const char *node;
	json_t *flashes; /* as objects */
	bool force, take_over;
};

/* What the card says of the pool becomes the store's; its flash follows when the card is brought up to date. */
static int adopt_pool(struct change *c, const struct import *im, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__StatusGet get = PARAPET__STATUS_GET__INIT;
	const Parapet__PoolStatus *p;
	struct rpc_msg reply;
	char ec[16];
	json_t *o;
	int rc;

	req.op_case = PARAPET__REQUEST__OP_STATUS_GET;
	req.status_get = &get;
	rc = node_call(c->a, im->node, &req, &reply, e);
	if (rc < 0)
		return rc;
	p = reply.frame->response->result_case == PARAPET__RESPONSE__RESULT_STATUS
		    ? reply.frame->response->status->pool
		    : NULL;
	if (!p || !p->has_k || !p->has_m) {
		rpc_msg_clear(&reply);
		return err_set(e, -EPROTO, "card", "", "its status has no open pool");
	}
	snprintf(ec, sizeof(ec), "%u+%u", p->k, p->m);
	o = json_pack("{s:s, s:s, s:s, s:I, s:b, s:b}", "node", im->node, "ec", ec, "on_degraded",
		p->on_degraded == PARAPET__ON_DEGRADED__ON_DEGRADED_ALLOW ? "allow" : "refuse",
		"segment_bytes", (json_int_t)p->segment_bytes, "same_flash", p->same_flash,
		"created", 1);
	if (o && p->has_shards && p->shards > 1)
		json_object_set_new(o, "shards", json_integer(p->shards));
	rpc_msg_clear(&reply);
	rc = o ? store_put(c->s, &noun_pool, o, e) : field_no_memory(e, "pool");
	if (!rc)
		rc = change_note(c, &noun_pool, o, "imported", o, e);
	json_decref(o);
	return rc;
}

static int import_edit(struct change *c, void *arg, struct err *e)
{
	struct import *im = arg;
	json_t *filter = json_pack("{s:s}", "node", im->node), *have = NULL;
	bool pool;
	int rc = filter ? 0 : field_no_memory(e, "pool");

	pool = !rc && store_get(c->s, &noun_pool, filter, &have, NULL) == 0;
	json_decref(have);
	have = NULL;
	if (pool)
		rc = err_set(e, -EEXIST, "pool", "",
			"node %.64s has one already; allowed: 'pool open'", im->node);
	if (!rc)
		rc = store_list(c->s, &noun_flash, filter, &have, e);
	if (!rc && json_array_size(have))
		rc = err_set(e, -EEXIST, "pool", "flashes",
			"node %.64s has flash %.64s already; allowed: 'flash remove' it first, the "
			"import names all members",
			im->node, field_text_or_empty(json_array_get(have, 0), "name"));
	if (!rc)
		rc = sync_pool_import(
			c->a, c->s, im->node, im->flashes, im->force, im->take_over, e);
	if (!rc)
		rc = adopt_pool(c, im, e);
	json_decref(have);
	json_decref(filter);
	return rc;
}

static int pool_import(struct api_request *rq, json_t **out, struct err *e)
{
	struct import im = {.flashes = json_array()};
	json_t *list, *o, *clean;
	size_t i;
	int rc;

	body_must_be(rq);
	list = json_object_get(rq->body, "flashes");
	im.force = json_is_true(json_object_get(rq->body, "force"));
	im.take_over = json_is_true(json_object_get(rq->body, "take_over"));
	rc = api_node(rq, &im.node, e);
	if (!rc && !json_array_size(list))
		rc = err_set(e, -EINVAL, "pool", "flashes",
			"are needed; allowed: NAME=ADDRESS of every member that is there");
	json_array_foreach(list, i, o)
	{
		clean = NULL;
		if (!rc && !json_is_string(o))
			rc = err_set(e, -EINVAL, "pool", "flashes",
				"wrong type of value; allowed: texts NAME=ADDRESS");
		if (!rc)
			rc = member_text(json_string_value(o), im.node, &clean, e);
		if (!rc)
			json_array_append_new(im.flashes, clean);
	}
	if (!rc)
		rc = api_change(rq, import_edit, &im, out, e);
	if (!rc) {
		json_t *live = api_card_status(rq, im.node);

		json_object_set(*out, "pool", json_object_get(live, "pool"));
		json_decref(live);
	}
	json_decref(im.flashes);
	return rc;
}

/* ---- discovery ----------------------------------------------------------------------------------------------------- */

static int port_of(const char *text, uint32_t *port, struct err *e)
{
	char *end = NULL;
	unsigned long v = text[0] >= '0' && text[0] <= '9' ? strtoul(text, &end, 10) : 0;

	if (!end || *end || v < 1 || v > 65535)
		return err_set(e, -EINVAL, "flash", "port",
			"'%.20s' is no port; allowed: 1 to 65535", text);
	*port = (uint32_t)v;
	return 0;
}

/* "HOST", "HOST:PORT", "[V6]:PORT", and port= where it stands alone. */
static int discover_host(
	struct api_request *rq, Parapet__FlashDiscover *fd, char host[64], struct err *e)
{
	const char *text = api_query(rq, "host"), *port = api_query(rq, "port");
	bool bare_v6 = text && text[0] != '[' && strchr(text, ':') != strrchr(text, ':');
	char both[100];
	uint16_t p = 0;

	if (!text)
		return err_set(
			e, -EINVAL, "flash", "host", "is needed; allowed: HOST or HOST:PORT");
	snprintf(both, sizeof(both), bare_v6 ? "[%s]" : "%s", text);
	if (strlen(text) > 90 || nvme_host_parse(both, strlen(both), host, &p) < 0)
		return err_set(e, -EINVAL, "flash", "host",
			"'%.80s' is no host; allowed: IPv4[:PORT] or [IPv6][:PORT], numeric, such "
			"as "
			"10.0.0.2",
			text);
	fd->host = host;
	fd->has_port = p != 0;
	fd->port = p;
	if (!port)
		return 0;
	fd->has_port = true;
	return port_of(port, &fd->port, e);
}

static int flash_discover(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlashDiscover fd = PARAPET__FLASH_DISCOVER__INIT;
	const char *node, *transport = api_query(rq, "transport");
	char host[64];
	int rc = api_node(rq, &node, e);

	if (!rc)
		rc = discover_host(rq, &fd, host, e);
	if (!rc && transport && strcmp(transport, "tcp") != 0 && strcmp(transport, "rdma") != 0)
		rc = err_set(e, -EINVAL, "flash", "transport",
			"'%.20s' is not known; allowed: tcp, rdma", transport);
	fd.transport = (char *)transport;
	req.op_case = PARAPET__REQUEST__OP_FLASH_DISCOVER;
	req.flash_discover = &fd;
	if (!rc)
		rc = api_ask(rq, node, &req, PARAPET__RESPONSE__RESULT_DISCOVERY, out, e);
	/* The card is there: it is the peer that is not. */
	if (rc == -EHOSTUNREACH && e && !strncmp(e->object, "host ", 5))
		rc = -ENOENT;
	if (!rc)
		json_object_set_new(*out, "node", json_string(node));
	return rc;
}

const struct api_route api_flash_routes[] = {
	{"GET", "/v1/flashes/discover", flash_discover},
	{"POST", "/v1/flashes/fail", flash_fail},
	{"POST", "/v1/flashes/return", flash_return},
	{"POST", "/v1/flashes/replace", flash_replace},
	{"POST", "/v1/pools/open", pool_open},
	{"POST", "/v1/pools/import", pool_import},
	{"POST", "/v1/pools/checkpoint", checkpoint},
	{NULL},
};
