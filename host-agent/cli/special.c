/* SPDX-License-Identifier: BSD-3-Clause */
/* Commands that are more than one request and one table. */
#include "host-agent/cli/cli.h"

#include "common/base/util.h"
#include "host-agent/cli/attach.h"
#include "host-agent/cli/http.h"
#include "host-agent/cli/out.h"
#include "host-agent/cli/render.h"
#include "host-agent/cli/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static bool flag_of(const struct cli *c, const char *name)
{
	return json_is_true(json_object_get(c->request, name));
}

/* ---- apply ------------------------------------------------------------------------------------------------------ */

int apply_run(struct cli *c, const struct cli_command *cmd)
{
	const char *file = json_string_value(json_object_get(c->request, "file"));
	struct cli_command request = {.method = "POST", .render = render_change};
	json_t *doc = NULL, *saved = c->request;
	struct err e = {0};
	int rc;

	if (!file) {
		err_set(&e, -EINVAL, "apply", "file",
			"is needed; allowed: -f FILE, -f - for standard input");
		return cli_complain(c, &e, EXIT_USAGE);
	}
	if (yaml_load(file, &doc, &e) < 0)
		return cli_complain(c, &e, e.code == -ENOENT ? EXIT_NOT_FOUND : EXIT_REFUSED);
	request.path = flag_of(c, "check") ? "/v1/apply?check=1" : "/v1/apply";
	if (flag_of(c, "check") && !c->json)
		puts("(check: nothing is changed)");
	c->request = doc;
	rc = cli_request(c, &request);
	c->request = saved;
	json_decref(doc);
	return rc;
}

/* ---- events ----------------------------------------------------------------------------------------------------- */

static void show_event(void *arg, const char *line)
{
	struct cli *c = arg;
	json_t *o = json_loads(line, 0, NULL);
	char when[64];

	if (!o)
		return;
	if (c->json)
		puts(line);
	else
		out_line("%s  %-7s  %s: %s: %s",
			out_text(json_object_get(o, "time_ns"), OUT_TIME, when, sizeof(when)),
			json_string_value(json_object_get(o, "severity")),
			json_string_value(json_object_get(o, "object")),
			json_string_value(json_object_get(o, "kind")),
			json_string_value(json_object_get(o, "text")));
	fflush(stdout);
	json_decref(o);
}

int events_run(struct cli *c, const struct cli_command *cmd)
{
	json_t *query = json_object(), *after = json_object_get(c->request, "after");
	struct err e = {0};
	int rc;

	if (after)
		json_object_set(query, "after", after);
	if (flag_of(c, "follow"))
		json_object_set_new(query, "follow", json_string("1"));
	rc = http_stream(c->socket, "/v1/events", query, show_event, c, &e);
	json_decref(query);
	if (!rc)
		return EXIT_OK;
	return cli_complain(c, &e, rc == -ECONNREFUSED ? EXIT_NO_AGENT : EXIT_FAILED);
}

/* ---- explain ---------------------------------------------------------------------------------------------------- */

/* The card's explanation has the contract's names: shown as the agent's own. */
static void render_card_explain(struct cli *c, const json_t *a)
{
	json_t *o = json_deep_copy(a), *rows = json_array(), *r, *flat;
	size_t i;

	json_object_set_new(
		o, "op", json_string(json_is_true(json_object_get(a, "read")) ? "read" : "write"));
	json_object_set(o, "device", json_object_get(a, "path"));
	json_array_foreach(json_object_get(a, "rows"), i, r)
	{
		flat = json_copy(json_object_get(r, "row"));
		json_object_update(flat, r);
		json_object_set(flat, "row", json_object_get(r, "number"));
		json_array_append_new(rows, flat);
	}
	json_object_set_new(o, "rows", rows);
	render_explain(c, o);
	json_decref(o);
}

int explain_run(struct cli *c, const struct cli_command *cmd)
{
	struct cli_command request = {
		.method = "GET", .path = "/v1/explain", .render = render_explain};
	struct err e = {0};

	if (flag_of(c, "read") && flag_of(c, "write")) {
		err_set(&e, -EINVAL, "explain", "", "--read and --write exclude each other");
		return cli_complain(c, &e, EXIT_USAGE);
	}
	json_object_set_new(c->request, "op", json_string(flag_of(c, "read") ? "read" : "write"));
	if (flag_of(c, "card")) {
		request.path = "/v1/card/explain";
		request.render = render_card_explain;
	}
	json_object_del(c->request, "read");
	json_object_del(c->request, "write");
	json_object_del(c->request, "card");
	return cli_request(c, &request);
}

/* ---- flash ------------------------------------------------------------------------------------------------------- */

int flash_show_run(struct cli *c, const struct cli_command *cmd)
{
	struct cli_command request = {.method = "GET", .path = "/v1/flashes"};

	request.render = flag_of(c, "health") ? render_flash_health : render_flashes;
	json_object_del(c->request, "health");
	json_object_set_new(c->request, "live", json_string("1"));
	return cli_request(c, &request);
}

/* What describes the new flash goes into an object of its own. */
int flash_replace_run(struct cli *c, const struct cli_command *cmd)
{
	static const char *const outer[] = {"node", "name", "force"};
	struct cli_command request = {
		.method = "POST", .path = "/v1/flashes/replace", .render = render_change};
	json_t *by = c->request, *req = json_object();

	for (size_t i = 0; i < ARRAY_LEN(outer); i++) {
		if (json_object_get(by, outer[i]))
			json_object_set(req, outer[i], json_object_get(by, outer[i]));
		json_object_del(by, outer[i]);
	}
	json_object_set(by, "name", json_object_get(by, "by"));
	json_object_del(by, "by");
	json_object_set_new(req, "by", by);
	c->request = req;
	return cli_request(c, &request);
}

/* ---- vm show ---------------------------------------------------------------------------------------------------- */

static void add_parts(struct cli *c, json_t *vm, const char *path, const char *as)
{
	json_t *query = json_pack("{s:O, s:O}", "node", json_object_get(vm, "node"), "vm",
		json_object_get(vm, "name"));
	json_t *answer = NULL;
	struct err e;
	long status = 0;

	if (http_call(c->socket, "GET", path, query, NULL, &status, &answer, &e) == 0 &&
		status == 200)
		json_object_set(vm, as, json_object_get(answer, "items"));
	json_decref(answer);
	json_decref(query);
}

static void render_one_vm(struct cli *c, const json_t *a)
{
	static const struct out_column facts[] = {{"vm", "name"}, {"number", "number"},
		{"node", "node"}, {"cores", "cores"}, {"memory", "memory", OUT_BYTES},
		{"access method", "method"}, {"mode", "mode_in_effect"}, {"mode (as set)", "mode"},
		{"shard", "shard"}, {"data flash", "data_flash"},
		{"intermediate flash", "intermediate_flash"}, {"VF", "vf"}, {"listen", "listen"},
		{"vhost sockets", "vhost"}, {"card IP", "card_ip"}, {"card MAC", "card_mac"},
		{"host address", "host_addr", OUT_HEX}, {"guest address", "guest_addr", OUT_HEX},
		{"NQN", "nqn"}, {"hosts", "hosts", OUT_LIST},
		{"bandwidth cap (Mbit/s)", "bandwidth_mbps"}, {"IOPS cap", "iops"},
		{"burst (ms)", "burst_ms"}, {"weight", "weight"}, {NULL}};
	json_t *vm = json_array_get(json_object_get(a, "items"), 0), *part;

	out_facts(facts, vm);
	part = json_pack("{s:O}", "items", json_object_get(vm, "devices"));
	puts("");
	render_devices(c, part);
	json_decref(part);
	if (json_array_size(json_object_get(vm, "virtio_blk"))) {
		static const struct out_column functions[] = {{"VIRTIO-BLK", "path"},
			{"SOCKET", "socket"}, {"CONNECTED", "connected", OUT_FLAG},
			{"QUEUES", "queues_running"}, {"RING", "queue_size"}, {"FAULT", "fault"},
			{"MEMORY", "mem_bytes", OUT_BYTES}, {"FEATURES", "features"}, {NULL}};

		puts("");
		out_table(functions, json_object_get(vm, "virtio_blk"), "");
	}
	part = json_pack("{s:O}", "items", json_object_get(vm, "rows"));
	puts("");
	render_rows(c, part);
	json_decref(part);
}

int vm_show_run(struct cli *c, const struct cli_command *cmd)
{
	const char *name = json_string_value(json_object_get(c->request, "name"));
	struct cli_command request = {.method = "GET", .path = "/v1/vms", .render = render_vms};
	json_t *answer = NULL, *vms;
	struct err e = {0};
	long status = 0;
	int rc;

	json_object_set_new(c->request, "live", json_string("1"));
	if (!name)
		return cli_request(c, &request);
	rc = http_call(c->socket, "GET", "/v1/vms", c->request, NULL, &status, &answer, &e);
	if (rc < 0 || status != 200) {
		json_decref(answer);
		return cli_request(c, &request); /* which tells what is wrong */
	}
	vms = json_object_get(answer, "items");
	if (!json_array_size(vms)) {
		char object[96];

		snprintf(object, sizeof(object), "vm %.80s", name);
		err_set(&e, -ENOENT, object, "", "does not exist");
		json_decref(answer);
		return cli_complain(c, &e, EXIT_NOT_FOUND);
	}
	add_parts(c, json_array_get(vms, 0), "/v1/devices", "devices");
	add_parts(c, json_array_get(vms, 0), "/v1/rows", "rows");
	json_object_set_new(json_array_get(vms, 0), "virtio_blk",
		attach_functions(c, out_string(json_array_get(vms, 0), "node"), name));
	if (c->json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		puts("");
	} else {
		render_one_vm(c, answer);
	}
	json_decref(answer);
	return EXIT_OK;
}
