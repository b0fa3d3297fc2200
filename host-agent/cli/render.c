/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/cli/render.h"

#include "common/base/util.h"
#include "host-agent/cli/out.h"

#include <stdio.h>
#include <string.h>

static const json_t *items_of(const json_t *a)
{
	return json_object_get(a, "items");
}

/* Tasks that have been started because of something. */
static void show_task_hints(const json_t *tasks)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)tasks, i, o)
	{
		out_line("  task %lld (%s of %s): parapet task watch %lld", out_number(o, "id"),
			out_string(o, "reason"), out_string(o, "object"), out_number(o, "id"));
	}
}

/* ---- changes ------------------------------------------------------------------------------------------------ */

static void show_outcomes(const json_t *list, const char *indent)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o)
	{
		const char *before = out_string(o, "before"), *after = out_string(o, "after");

		out_line("%swrites to %s of %s: %s -> %s", indent, out_string(o, "path"),
			out_string(o, "vm"), before[0] ? before : "(no device)",
			after[0] ? after : "(no device)");
	}
}

static void show_remarks(const json_t *list)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o)
	{
		out_line("  remark: %s", json_string_value(o) ? json_string_value(o) : "");
	}
}

static void show_nodes_changed(const json_t *nodes)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)nodes, i, o)
	{
		const char *state = out_string(o, "state");

		show_outcomes(json_object_get(o, "outcomes"), "  ");
		if (!strcmp(state, "applied"))
			out_line("node %s: tables version %lld applied", out_string(o, "node"),
				out_number(o, "version"));
		else if (!strcmp(state, "pending"))
			out_line("node %s: tables version %lld pending: %s", out_string(o, "node"),
				out_number(o, "version"), out_string(o, "reason"));
		show_remarks(json_object_get(o, "remarks"));
		show_task_hints(json_object_get(o, "tasks"));
	}
}

/* What came of taking flash out of the pool. */
static void show_flash_changed(const json_t *f)
{
	const json_t *task = json_object_get(f, "task");
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(f, "lost"), i, o)
	{
		out_line("  lost: %s", json_string_value(o) ? json_string_value(o) : "");
	}
	if (task)
		out_line("  task %lld (%s of %s) moves what it holds; to follow it: parapet task "
			 "watch %lld",
			out_number(task, "id"), out_string(task, "reason"),
			out_string(task, "object"), out_number(task, "id"));
}

void render_change(struct cli *c, const json_t *a)
{
	json_t *o, *v, *changed = json_object_get(a, "changed");
	const char *name;
	char cell[256];
	size_t i;

	if (!json_array_size(changed))
		puts("nothing to do");
	json_array_foreach(changed, i, o)
	{
		out_line("%s %s", out_string(o, "action"), out_string(o, "object"));
		show_flash_changed(json_object_get(o, "fields"));
		if (strcmp(out_string(o, "action"), "changed") != 0)
			continue;
		json_object_foreach(json_object_get(o, "fields"), name, v)
		{
			out_line("  %s: %s", name,
				json_is_null(v) ? "(cleared)"
						: out_text(v, OUT_TEXT, cell, sizeof(cell)));
		}
	}
	if (json_array_size(changed))
		show_nodes_changed(json_object_get(a, "nodes"));
}

/* ---- lists ------------------------------------------------------------------------------------------------------ */

void render_nodes(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"NODE", "name"}, {"NUMBER", "number"},
		{"ADDRESS", "address"}, {"SCHEDULE", "schedule"}, {"UPLINK", "uplink"},
		{"RECEPTION", "reception"}, {"METHODS", "methods"}, {"PROBLEM", "problem"}, {NULL}};

	out_table(columns, items_of(a),
		"no nodes; add one with: parapet node add NAME --address unix:/PATH");
}

void render_flashes(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"FLASH", "name"}, {"NODE", "node"},
		{"ADDRESS", "address"}, {"DOMAIN", "domain"}, {"ATOMIC", "atomic_bytes", OUT_BYTES},
		{"STATE", "card.state"}, {"CHANGE", "change"},
		{"SIZE", "card.size_bytes", OUT_BYTES}, {"FREE", "card.free_bytes", OUT_BYTES},
		{"DATA", "card.allocated.data", OUT_BYTES},
		{"REDUNDANCY", "card.allocated.redundancy", OUT_BYTES},
		{"INTERMEDIATE", "card.allocated.intermediate", OUT_BYTES},
		{"WROTE-DATA", "card.written.data", OUT_BYTES},
		{"WROTE-REDUNDANCY", "card.written.redundancy", OUT_BYTES},
		{"WROTE-INTERMEDIATE", "card.written.intermediate", OUT_BYTES},
		{"ERRORS", "card.errors"}, {NULL}};

	out_table(columns, items_of(a),
		"no flash; add some with: parapet flash add NAME --address file:/PATH");
}

void render_flash_fail(struct cli *c, const json_t *a)
{
	out_line("flash %s is out of service; the pool is %s", out_string(a, "name"),
		out_string(a, "pool.state"));
}

void render_flash_return(struct cli *c, const json_t *a)
{
	out_line("flash %s is back; the pool is %s", out_string(a, "name"),
		out_string(a, "pool.state"));
	show_task_hints(json_object_get(a, "tasks"));
}

/* What the pool can lose now. */
static void show_survival(const json_t *p)
{
	char bytes[512];
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(p, "survival"), i, o)
	{
		long long n = out_number(o, "devices"), nodes = out_number(o, "nodes");

		out_line("%s data (%s) survives the loss of %lld more flash device%s, or of %lld "
			 "more node%s",
			out_string(o, "what"),
			out_text(json_object_get(o, "bytes"), OUT_BYTES, bytes, sizeof(bytes)), n,
			n == 1 ? "" : "s", nodes, nodes == 1 ? "" : "s");
		if (json_array_size(json_object_get(o, "fatal_nodes")))
			out_line("  the loss of one of these nodes would be too much now: %s",
				out_text(json_object_get(o, "fatal_nodes"), OUT_LIST, bytes,
					sizeof(bytes)));
	}
}

static void show_checkpoint(const json_t *p)
{
	const json_t *cp = json_object_get(p, "checkpoint"), *log = json_object_get(p, "log");
	char b[4][32];

	if (json_object_get(cp, "id"))
		out_line("checkpoint %lld of %s, %lld parts, %lld s old%s", out_number(cp, "id"),
			out_text(json_object_get(cp, "bytes"), OUT_BYTES, b[0], sizeof(b[0])),
			out_number(cp, "parts"), out_number(cp, "age_s"),
			json_is_true(json_object_get(cp, "running")) ? "; one is being written"
								     : "");
	else if (cp)
		puts("no checkpoint yet");
	if (log)
		out_line("log: %s of %s in use (%lld %%), %s free, %s free after the next "
			 "checkpoint",
			out_text(json_object_get(log, "live_bytes"), OUT_BYTES, b[0], sizeof(b[0])),
			out_text(json_object_get(log, "capacity_bytes"), OUT_BYTES, b[1],
				sizeof(b[1])),
			out_number(log, "used_percent"),
			out_text(json_object_get(log, "free_bytes"), OUT_BYTES, b[2], sizeof(b[2])),
			out_text(json_object_get(log, "limbo_bytes"), OUT_BYTES, b[3],
				sizeof(b[3])));
}

static void show_recovery(const json_t *p)
{
	const json_t *r = json_object_get(p, "recovery");

	if (json_object_get(r, "percent"))
		out_line("recovering: %s, %lld %%", out_string(r, "phase"),
			out_number(r, "percent"));
	else if (json_array_size(json_object_get(r, "figures"))) {
		puts("last recovery:");
		out_named(json_object_get(r, "figures"), "  ");
	}
}

static void show_pool(const json_t *p)
{
	static const struct out_column facts[] = {{"state", "state"}, {"reason", "reason"},
		{"uuid", "uuid"}, {"epoch", "epoch"}, {"survives (flash devices)", "survives"},
		{"survives (nodes)", "survives_nodes"}, {"size", "size_bytes", OUT_BYTES},
		{"free", "free_bytes", OUT_BYTES}, {"log free", "log_free_bytes", OUT_BYTES},
		{"segment", "segment_bytes", OUT_BYTES}, {"shards", "shards"}, {NULL}};
	json_t *o;
	size_t i;

	out_facts(facts, p);
	json_array_foreach(json_object_get(p, "degraded"), i, o)
	{
		out_line("degraded: %s", json_string_value(o) ? json_string_value(o) : "");
	}
	json_array_foreach(json_object_get(p, "stripes"), i, o)
	{
		out_line("stripes of %lld+%lld: %lld", out_number(o, "k"), out_number(o, "m"),
			out_number(o, "stripes"));
	}
	show_survival(p);
	show_checkpoint(p);
	show_recovery(p);
}

void render_pool_import(struct cli *c, const json_t *a)
{
	render_change(c, a);
	show_pool(json_object_get(a, "pool"));
}

void render_pools(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"NODE", "node"}, {"EC", "ec"},
		{"ON-DEGRADED", "on_degraded"}, {"SAME-FLASH", "same_flash"},
		{"STATE", "card.state"}, {NULL}};
	json_t *o;
	size_t i;

	out_table(columns, items_of(a), "no pool; make one with: parapet pool create --ec K+M");
	json_array_foreach((json_t *)items_of(a), i, o)
	{
		if (json_object_get(o, "card"))
			show_pool(json_object_get(o, "card"));
	}
}

void render_pool_open(struct cli *c, const json_t *a)
{
	out_line("node %s: the pool is %s", out_string(a, "node"), out_string(a, "pool.state"));
}

void render_vms(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"VM", "name"}, {"NUMBER", "number"},
		{"NODE", "node"}, {"SHARD", "shard"}, {"CORES", "cores"},
		{"MEMORY", "memory", OUT_BYTES}, {"METHOD", "method"}, {"MODE", "mode_in_effect"},
		{"DATA", "data_flash"}, {"INTERMEDIATE", "intermediate_flash"}, {"VF", "vf"},
		{"LISTEN", "listen"}, {"VHOST", "vhost"}, {"CARD-IP", "card_ip"},
		{"CARD-MAC", "card_mac"}, {"MBPS", "bandwidth_mbps"}, {"IOPS", "iops"},
		{"BURST-MS", "burst_ms"}, {"WEIGHT", "weight"}, {"HOST-ADDR", "host_addr", OUT_HEX},
		{"GUEST-ADDR", "guest_addr", OUT_HEX}, {"NQN", "nqn"}, {"HOSTS", "hosts", OUT_LIST},
		{NULL}};

	out_table(columns, items_of(a), "no VMs");
}

void render_devices(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"VM", "vm"}, {"DEVICE", "path"},
		{"NODE", "node"}, {"SIZE", "size", OUT_BYTES}, {"METHOD", "method_in_effect"},
		{"LAYOUT", "layout"}, {"EC", "ec"}, {"WRITES", "outcome"}, {"NSID", "card.nsid"},
		{"CONNECTED", "card.connections"}, {NULL}};

	out_table(columns, items_of(a), "no devices");
}

void render_queues(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"NODE", "node"}, {"BYTES", "bytes", OUT_BYTES},
		{"COUNT", "count"}, {"AGE-US", "age_us"}, {"EACH", "each"}, {"PER-VM", "per_vm"},
		{"GROUP-COMMIT", "group_commit"}, {NULL}};

	out_table(columns, items_of(a), "the card's defaults");
}

void render_rows(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"ROW", "row"}, {"VM", "vm"}, {"NODE", "node"},
		{"METHOD", "method"}, {"PATH", "path"}, {"EC", "ec", OUT_EC},
		{"HOST-ADDR", "host_addr", OUT_HEX}, {"COVERS", "covers"}, {NULL}};

	out_table(columns, items_of(a), "table 204 has no rows");
}

/* ---- tables ------------------------------------------------------------------------------------------------------- */

void render_table(struct cli *c, const json_t *a)
{
	static const struct out_column vms[] = {{"VM#", "number"}, {"VM", "name"},
		{"HOST-ADDR", "host_addr", OUT_HEX}, {"GUEST-ADDR", "guest_addr", OUT_HEX},
		{"DATA-AREA", "data_flash"}, {"INTERMEDIATE", "intermediate_flash"},
		{"METHOD", "method"}, {"MODE", "mode"}, {NULL}};
	static const struct out_column rows[] = {
		{"VM", "vm"}, {"METHOD", "method"}, {"PATH", "path"}, {"EC", "ec", OUT_EC}, {NULL}};
	static const struct out_column outcomes[] = {
		{"VM", "vm"}, {"DEVICE", "path"}, {"WRITES", "after"}, {NULL}};

	out_line("node %s, version %lld by %s; the card %s %lld", out_string(a, "node"),
		out_number(a, "version"), out_string(a, "author"),
		json_is_true(json_object_get(a, "card_connected")) ? "has" : "had",
		out_number(a, "card_version"));
	puts("\nData management table (203)");
	out_table(vms, out_value(a, "body.vms"), "no rows");
	puts("\nEC usage management table (204)");
	out_table(rows, out_value(a, "body.rows"), "no rows");
	puts("\nOutcomes");
	out_table(outcomes, json_object_get(a, "outcomes"), "no devices");
}

/* "{a=1, b=x}" of a body's entry. */
static void entry_text(const json_t *o, char *buf, size_t size)
{
	const char *name;
	char cell[256];
	size_t len = 0;
	json_t *v;

	buf[0] = '\0';
	json_object_foreach((json_t *)o, name, v)
	{
		if (len < size)
			len += snprintf(buf + len, size - len, "%s%s=%s", len ? ", " : "", name,
				out_text(v, OUT_TEXT, cell, sizeof(cell)));
	}
}

static void show_differences(const json_t *list)
{
	char text[1024];
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o)
	{
		out_line("%s %s", out_string(o, "change"), out_string(o, "object"));
		if (json_is_object(json_object_get(o, "before"))) {
			entry_text(json_object_get(o, "before"), text, sizeof(text));
			out_line("  - %s", text);
		}
		if (json_is_object(json_object_get(o, "after"))) {
			entry_text(json_object_get(o, "after"), text, sizeof(text));
			out_line("  + %s", text);
		}
	}
}

void render_table_diff(struct cli *c, const json_t *a)
{
	out_line("node %s, version %lld -> %lld", out_string(a, "node"), out_number(a, "from"),
		out_number(a, "to"));
	if (!json_array_size(json_object_get(a, "differences")))
		puts("no difference");
	show_differences(json_object_get(a, "differences"));
	show_outcomes(json_object_get(a, "outcomes"), "");
}

void render_table_history(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"VERSION", "version"},
		{"TIME", "time_ns", OUT_TIME}, {"AUTHOR", "author"}, {"ON-CARD", "on_card"},
		{"WHAT", "what"}, {NULL}};

	out_table(columns, items_of(a), "no versions");
}

void render_table_push(struct cli *c, const json_t *a)
{
	out_line("node %s: tables version %lld %s", out_string(a, "node"), out_number(a, "version"),
		!strcmp(out_string(a, "state"), "applied") ? "applied" : "was on the card already");
	show_remarks(json_object_get(a, "remarks"));
}

void render_table_fetch(struct cli *c, const json_t *a)
{
	bool same = !json_array_size(json_object_get(a, "differences"));

	out_line("node %s: the card has version %lld, the store %lld: %s", out_string(a, "node"),
		out_number(a, "card_version"), out_number(a, "version"),
		same ? "the same contents" : "they differ (from store to card)");
	show_differences(json_object_get(a, "differences"));
	if (!same)
		show_outcomes(json_object_get(a, "outcomes"), "");
	if (json_is_true(json_object_get(a, "adopted")))
		puts("the store has taken over the card's tables");
	else if (!same)
		puts("to take the card's tables over: parapet table fetch --adopt");
}

/* ---- explain ---------------------------------------------------------------------------------------------------- */

static void show_explain_rows(const json_t *rows)
{
	static const struct out_column columns[] = {{"ROW", "row"}, {"METHOD", "method"},
		{"PATH", "path"}, {"EC", "ec", OUT_EC}, {"MATCHED", "matched"},
		{"DECIDES", "decisive"}, {"WHY", "why"}, {NULL}};

	if (json_array_size(rows)) {
		puts("\nRows of table 204");
		out_table(columns, rows, "");
	}
}

void render_explain(struct cli *c, const json_t *a)
{
	json_t *o;
	size_t i;

	out_line("%s to %s of vm %s, by tables version %lld", out_string(a, "op"),
		out_string(a, "device"), out_string(a, "vm"), out_number(a, "version"));
	if (json_object_get(a, "card_version") &&
		out_number(a, "card_version") != out_number(a, "version"))
		out_line("(the card has version %lld)", out_number(a, "card_version"));
	out_line("mode    %s (%s)", out_string(a, "mode"), out_string(a, "mode_why"));
	out_line("method  %s (%s)", out_string(a, "method"), out_string(a, "method_why"));
	show_explain_rows(json_object_get(a, "rows"));
	puts("\nSteps");
	json_array_foreach(json_object_get(a, "steps"), i, o)
	{
		if (out_number(o, "figure"))
			out_line("  %zu. [figure %lld] %s", i + 1, out_number(o, "figure"),
				out_string(o, "text"));
		else
			out_line("  %zu. %s", i + 1, out_string(o, "text"));
	}
	puts("");
	out_line("Result: %s", out_string(a, "result"));
}

/* ---- cards ------------------------------------------------------------------------------------------------------- */

void render_flows(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"VM", "vm_name"}, {"PORT", "port"},
		{"MATCH", "match"}, {"ACTION", "action"}, {"ENGINE", "engine"},
		{"PACKETS", "packets"}, {"BYTES", "bytes"}, {"REASON", "reason"}, {NULL}};

	out_table(columns, json_object_get(a, "rules"), "no rules");
}

static void show_lines(const char *what, const json_t *list)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o)
	{
		out_line("%s: %s", what, json_string_value(o) ? json_string_value(o) : "");
	}
}

static long long counter_mib(const json_t *card, const char *name)
{
	json_t *o;
	size_t i;

	json_array_foreach(out_value(card, "pool.counters"), i, o)
	{
		if (!strcmp(out_string(o, "name"), name))
			return out_number(o, "value") >> 20;
	}
	return 0;
}

/* What parapet-dpu --map-memory bounds. */
static void show_memory(const json_t *card)
{
	long long map = counter_mib(card, "map_budget_bytes");

	if (map)
		out_line("maps use %lld of %lld MiB of the card's memory, the stripe table %lld of "
			 "%lld MiB",
			counter_mib(card, "map_bytes"), map,
			counter_mib(card, "stripe_table_used_bytes"),
			counter_mib(card, "stripe_table_budget_bytes"));
}

static void show_card(const json_t *card)
{
	static const struct out_column facts[] = {{"firmware", "program_version"},
		{"up (s)", "uptime_s"}, {"reception", "reception"}, {"pool", "pool.state"},
		{"code k", "pool.k"}, {"code m", "pool.m"},
		{"survives (flash devices)", "pool.survives"},
		{"survives (nodes)", "pool.survives_nodes"},
		{"pool size", "pool.size_bytes", OUT_BYTES},
		{"pool free", "pool.free_bytes", OUT_BYTES},
		{"log free", "pool.log_free_bytes", OUT_BYTES}, {NULL}};
	static const struct out_column vms[] = {{"VM", "name"}, {"ACCESS", "access"},
		{"MODE", "mode"}, {"CONNECTIONS", "connections"}, {"IN-FLIGHT", "in_flight"},
		{"PROBLEM", "problem"}, {NULL}};
	static const struct out_column flashes[] = {{"FLASH", "flash.name"}, {"STATE", "state"},
		{"SIZE", "size_bytes", OUT_BYTES}, {"FREE", "free_bytes", OUT_BYTES},
		{"DATA", "written.data", OUT_BYTES},
		{"REDUNDANCY", "written.redundancy", OUT_BYTES},
		{"INTERMEDIATE", "written.intermediate", OUT_BYTES}, {"ERRORS", "errors"}, {NULL}};

	out_facts(facts, card);
	show_survival(json_object_get(card, "pool"));
	show_checkpoint(json_object_get(card, "pool"));
	if (!strcmp(out_string(card, "pool.state"), "recovering"))
		show_recovery(json_object_get(card, "pool"));
	show_memory(card);
	if (json_array_size(json_object_get(card, "tasks")))
		out_tasks(json_object_get(card, "tasks"));
	show_lines("degraded", out_value(card, "pool.degraded"));
	show_lines("warning", json_object_get(card, "warnings"));
	if (json_array_size(json_object_get(card, "vms")))
		out_table(vms, json_object_get(card, "vms"), "");
	out_nodes(json_object_get(card, "pool"));
	if (json_array_size(out_value(card, "pool.flashes"))) {
		puts("written since start, per flash:");
		out_table(flashes, out_value(card, "pool.flashes"), "");
	}
}

void render_status(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"NODE", "node"}, {"STATE", "state"},
		{"TABLES", "version"}, {"ON-CARD", "card_version"}, {"POOL", "card.pool.state"},
		{"PROBLEM", "problem"}, {"REASON", "reason"}, {NULL}};
	json_t *o;
	size_t i;

	out_table(columns, items_of(a), "no nodes");
	json_array_foreach((json_t *)items_of(a), i, o)
	{
		if (json_is_object(json_object_get(o, "card"))) {
			puts("");
			out_line("node %s", out_string(o, "node"));
			show_card(json_object_get(o, "card"));
		}
	}
}

/* What a person reads of it: names in one place, parts in percent. */
static json_t *shard_row(const json_t *shard)
{
	long long uptime = out_number(shard, "uptime_ns"), size = out_number(shard, "size_bytes");
	json_t *row = json_copy((json_t *)shard), *names = json_array(), *o;
	char load[32];
	size_t i;

	json_array_foreach(json_object_get(shard, "vms"), i, o)
	{
		json_array_append(names, json_object_get(o, "name"));
	}
	json_object_set_new(row, "names", names);
	snprintf(load, sizeof(load), "%.1f %%",
		uptime > 0 ? 100.0 * (double)out_number(shard, "cpu_ns") / (double)uptime : 0.0);
	json_object_set_new(row, "load", json_string(load));
	if (json_object_get(shard, "size_bytes"))
		json_object_set_new(
			row, "used_bytes", json_integer(size - out_number(shard, "free_bytes")));
	return row;
}

void render_shards(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"SHARD", "index"}, {"CPU", "cpu"},
		{"LOAD", "load"}, {"POOL", "state"}, {"USED", "used_bytes", OUT_BYTES},
		{"FREE", "free_bytes", OUT_BYTES}, {"LOG-%", "log_used_percent"},
		{"IN-FLIGHT", "in_flight"}, {"DEVICES", "devices"}, {"VMS", "names", OUT_LIST},
		{NULL}};
	json_t *rows = json_array(), *o;
	size_t i;

	json_array_foreach(json_object_get(a, "shards"), i, o)
	{
		json_array_append_new(rows, shard_row(o));
	}
	out_table(columns, rows, "no shards");
	json_decref(rows);
}

void render_stats(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {
		{"OBJECT", "object"}, {"COUNTER", "name"}, {"VALUE", "value"}, {NULL}};

	out_table(columns, json_object_get(a, "stats"), "no counters");
}
