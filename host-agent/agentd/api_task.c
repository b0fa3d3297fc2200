/* SPDX-License-Identifier: BSD-3-Clause */
/* Tasks of a card: listed, started, paused, resumed, cancelled, limited. The agent keeps nothing of them. */
#include "host-agent/agentd/api.h"
#include "host-agent/agentd/field.h"

#include "common/base/units.h"
#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define REASONS "rebuild, scrub, protect, evacuate, restore"

static int ask_tasks(struct api_request *rq, const char *node, Parapet__Request *req, json_t **out,
	struct err *e)
{
	int rc = api_ask(rq, node, req, PARAPET__RESPONSE__RESULT_TASKS, out, e);

	if (!rc)
		json_object_set_new(*out, "node", json_string(node));
	return rc;
}

/* A number that may come as text. */
static int number_of(
	const json_t *o, const char *name, const char *object, uint64_t *v, struct err *e)
{
	const json_t *j = json_object_get(o, name);
	const char *s = json_string_value(j);
	char *end;

	if (json_is_integer(j) && json_integer_value(j) >= 0) {
		*v = (uint64_t)json_integer_value(j);
		return 0;
	}
	errno = 0;
	if (s && s[0] >= '0' && s[0] <= '9') {
		*v = strtoull(s, &end, 10);
		if (!*end && !errno)
			return 0;
	}
	return err_set(e, -EINVAL, object, name, "%s; allowed: a number",
		j ? "is not a number" : "is needed");
}

static int list(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TaskList tl = PARAPET__TASK_LIST__INIT;
	const char *node;
	uint64_t id = 0;
	int rc = api_node(rq, &node, e);

	if (!rc && api_query(rq, "id")) {
		rc = number_of(rq->query, "id", "task", &id, e);
		if (!rc && id > UINT32_MAX)
			rc = err_set(e, -ENOENT, "task", "id", "there is no such task");
		tl.has_id = true;
		tl.id = (uint32_t)id;
	}
	req.op_case = PARAPET__REQUEST__OP_TASK_LIST;
	req.task_list = &tl;
	return rc < 0 ? rc : ask_tasks(rq, node, &req, out, e);
}

static int reason_of(const json_t *body, Parapet__TaskReason *out, struct err *e)
{
	static const struct {
		const char *name;
		Parapet__TaskReason reason;
	} names[] = {
		{"rebuild", PARAPET__TASK_REASON__TASK_REASON_REBUILD},
		{"scrub", PARAPET__TASK_REASON__TASK_REASON_SCRUB},
		{"protect", PARAPET__TASK_REASON__TASK_REASON_PROTECT},
		{"evacuate", PARAPET__TASK_REASON__TASK_REASON_EVACUATE},
		{"restore", PARAPET__TASK_REASON__TASK_REASON_RESTORE},
	};
	const char *text = field_text_or_empty(body, "reason");

	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		if (!strcmp(text, names[i].name)) {
			*out = names[i].reason;
			return 0;
		}
	}
	return err_set(
		e, -EINVAL, "task", "reason", "'%.40s' is no reason; allowed: " REASONS, text);
}

/* The number of the VM that the body names. */
static int vm_of(struct api_request *rq, const char *node, uint32_t *vm, struct err *e)
{
	json_t *key = json_pack(
		"{s:s, s:s}", "node", node, "name", field_text_or_empty(rq->body, "vm"));
	json_t *have = NULL;
	int rc = key ? store_get(rq->s, &noun_vm, key, &have, e) : field_no_memory(e, "task");

	*vm = (uint32_t)field_number(have, "number");
	json_decref(have);
	json_decref(key);
	return rc;
}

static int start(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TaskStart ts = PARAPET__TASK_START__INIT;
	const char *node;
	int rc;

	if (!rq->body)
		rq->body = json_object();
	rc = api_node(rq, &node, e);
	if (!rc)
		rc = reason_of(rq->body, &ts.reason, e);
	if (!rc && !field_text(rq->body, "vm") != !field_text(rq->body, "path"))
		rc = err_set(e, -EINVAL, "task", field_text(rq->body, "vm") ? "path" : "vm",
			"is needed; allowed: a device is named by its VM and its path");
	if (!rc && field_text(rq->body, "vm")) {
		rc = vm_of(rq, node, &ts.vm, e);
		ts.has_vm = true;
	}
	if (rc < 0)
		return rc;
	ts.flash = (char *)field_text(rq->body, "flash");
	ts.path = (char *)field_text(rq->body, "path");
	ts.has_plain_too = ts.plain_too = json_is_true(json_object_get(rq->body, "plain_too"));
	req.op_case = PARAPET__REQUEST__OP_TASK_START;
	req.task_start = &ts;
	return ask_tasks(rq, node, &req, out, e);
}

/* A VM with its devices to another shard of its card. */
static int shard_move(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__ShardMove sm = PARAPET__SHARD_MOVE__INIT;
	const char *node;
	uint64_t shard = 0;
	int rc;

	if (!rq->body)
		rq->body = json_object();
	rc = api_node(rq, &node, e);
	if (!rc)
		rc = vm_of(rq, node, &sm.vm, e);
	if (!rc)
		rc = number_of(rq->body, "shard", "shard", &shard, e);
	if (!rc && shard > UINT32_MAX)
		rc = err_set(e, -EINVAL, "shard", "shard", "there is no such shard");
	sm.shard = (uint32_t)shard;
	req.op_case = PARAPET__REQUEST__OP_SHARD_MOVE;
	req.shard_move = &sm;
	return rc < 0 ? rc : ask_tasks(rq, node, &req, out, e);
}

static int control(struct api_request *rq, Parapet__TaskAction action, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TaskControl tc = PARAPET__TASK_CONTROL__INIT;
	const char *node;
	uint64_t id = 0;
	int rc;

	if (!rq->body)
		rq->body = json_object();
	rc = api_node(rq, &node, e);
	if (!rc)
		rc = number_of(rq->body, "id", "task", &id, e);
	if (!rc && id > UINT32_MAX)
		rc = err_set(e, -ENOENT, "task", "id", "there is no such task");
	tc.id = (uint32_t)id;
	tc.action = action;
	req.op_case = PARAPET__REQUEST__OP_TASK_CONTROL;
	req.task_control = &tc;
	return rc < 0 ? rc : ask_tasks(rq, node, &req, out, e);
}

static int pause_one(struct api_request *rq, json_t **out, struct err *e)
{
	return control(rq, PARAPET__TASK_ACTION__TASK_ACTION_PAUSE, out, e);
}

static int resume_one(struct api_request *rq, json_t **out, struct err *e)
{
	return control(rq, PARAPET__TASK_ACTION__TASK_ACTION_RESUME, out, e);
}

static int cancel_one(struct api_request *rq, json_t **out, struct err *e)
{
	return control(rq, PARAPET__TASK_ACTION__TASK_ACTION_CANCEL, out, e);
}

/* ---- limits --------------------------------------------------------------------------------------------------- */

/* "30%" or 30. */
static int share_of(const json_t *v, uint32_t *share, struct err *e)
{
	const char *s = json_string_value(v);
	unsigned int n = 0;
	int end = 0;

	if (json_is_integer(v) && json_integer_value(v) >= 1 && json_integer_value(v) <= 1000) {
		*share = (uint32_t)json_integer_value(v);
		return 0;
	}
	if (s && sscanf(s, "%4u%n", &n, &end) == 1 && s[0] >= '0' && s[0] <= '9' &&
		(!s[end] || !strcmp(s + end, "%")) && n >= 1 && n <= 1000) {
		*share = n;
		return 0;
	}
	return err_set(e, -EINVAL, "limits", "share",
		"not a share; allowed: 1%% to 1000%%, of the bytes that VMs read and write");
}

/* "200MB/s", "200M" or a number; 0 and "none": no ceiling. */
static int ceiling_of(const json_t *v, uint64_t *ceiling, struct err *e)
{
	const char *s = json_string_value(v);
	char text[40];
	size_t n;

	*ceiling = 0;
	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*ceiling = (uint64_t)json_integer_value(v);
		return 0;
	}
	if (s && !strcmp(s, "none"))
		return 0;
	n = s ? strlen(s) : 0;
	if (n > 2 && !strcmp(s + n - 2, "/s"))
		n -= 2;
	if (n && n < sizeof(text)) {
		snprintf(text, n + 1, "%s", s);
		if (units_parse_bytes(text, ceiling) == 0 && *ceiling <= INT64_MAX)
			return 0;
	}
	return err_set(e, -EINVAL, "limits", "ceiling",
		"not a rate; allowed: bytes per second such as 200MB/s, or none");
}

static int limits(struct api_request *rq, json_t **out, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TaskLimits tl = PARAPET__TASK_LIMITS__INIT;
	json_t *share, *ceiling;
	const char *node;
	int rc;

	if (!rq->body)
		rq->body = json_object();
	share = json_object_get(rq->body, "share");
	ceiling = json_object_get(rq->body, "ceiling");
	rc = api_node(rq, &node, e);
	if (!rc && share)
		rc = share_of(share, &tl.share_percent, e);
	if (!rc && ceiling)
		rc = ceiling_of(ceiling, &tl.ceiling_bytes_per_s, e);
	tl.has_share_percent = share != NULL;
	tl.has_ceiling_bytes_per_s = ceiling != NULL;
	req.op_case = PARAPET__REQUEST__OP_TASK_LIMITS;
	req.task_limits = &tl;
	return rc < 0 ? rc : ask_tasks(rq, node, &req, out, e);
}

const struct api_route api_task_routes[] = {
	{"GET", "/v1/tasks", list},
	{"POST", "/v1/tasks", start},
	{"POST", "/v1/shards/move", shard_move},
	{"POST", "/v1/tasks/pause", pause_one},
	{"POST", "/v1/tasks/resume", resume_one},
	{"POST", "/v1/tasks/cancel", cancel_one},
	{"PATCH", "/v1/tasks/limits", limits},
	{NULL},
};
