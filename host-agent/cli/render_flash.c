/* SPDX-License-Identifier: BSD-3-Clause */
/* Flash on peers: what can be added, how it is, node by node. */
#include "host-agent/cli/render.h"

#include "common/base/util.h"
#include "host-agent/cli/out.h"

#include <stdio.h>
#include <string.h>

/* ---- discovery -------------------------------------------------------------------------------------------------- */

void render_discovery(struct cli *c, const json_t *a)
{
	static const struct out_column columns[] = {{"SUBSYSTEM", "subnqn"},
		{"TRANSPORT", "transport"}, {"PATH", "address"}, {"NSID", "nsid"},
		{"SIZE", "size_bytes", OUT_BYTES}, {"BLOCK", "block_bytes"}, {"NGUID", "nguid"},
		{"MEMBER", "member"}, {"ADDRESS", "flash_address"}, {NULL}};
	json_t *o;
	size_t i;

	out_table(columns, json_object_get(a, "found"), "no namespaces");
	json_array_foreach(json_object_get(a, "remarks"), i, o)
	{
		out_line("remark: %s", json_string_value(o) ? json_string_value(o) : "");
	}
	if (json_is_true(json_object_get(a, "truncated")))
		puts("there is more than is listed here");
}

/* ---- devices ------------------------------------------------------------------------------------------------------ */

/* "p50/p99/max" of an operation; "-": there was none. */
static json_t *latency_of(const json_t *flash, const char *op)
{
	char text[96] = "-";
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(flash, "latency"), i, o)
	{
		if (!strcmp(out_string(o, "op"), op) && out_number(o, "count"))
			snprintf(text, sizeof(text), "%lld/%lld/%lld", out_number(o, "p50_us"),
				out_number(o, "p99_us"), out_number(o, "max_us"));
	}
	return json_string(text);
}

/* "2 of 2"; "local" */
static json_t *paths_of(const json_t *flash)
{
	json_t *list = json_object_get(flash, "paths"), *o;
	unsigned int usable = 0;
	char text[32];
	size_t i;

	json_array_foreach(list, i, o)
	{
		usable += json_is_true(json_object_get(o, "usable"));
	}
	snprintf(text, sizeof(text), "%u of %zu", usable, json_array_size(list));
	if (!json_array_size(list))
		snprintf(text, sizeof(text), "%s",
			json_is_true(json_object_get(flash, "remote")) ? "none" : "local");
	return json_string(text);
}

static json_t *flash_of(const json_t *pool, const char *name)
{
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(pool, "flashes"), i, o)
	{
		if (!strcmp(out_string(o, "flash.name"), name))
			return o;
	}
	return NULL;
}

static json_t *row_of(const json_t *f)
{
	return json_pack("{s:O?, s:O?, s:o, s:o, s:O?, s:O?, s:o}", "name",
		out_value(f, "flash.name"), "state", json_object_get(f, "state"), "read",
		latency_of(f, "read"), "write", latency_of(f, "write"), "in_flight",
		json_object_get(f, "in_flight"), "errors", json_object_get(f, "errors"), "paths",
		paths_of(f));
}

static void show_paths(const json_t *f, const char *indent)
{
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(f, "paths"), i, o)
	{
		const char *error = out_string(o, "error");

		out_line("%spath %s: %s, %lld in flight, %lld losses, %lld timeouts%s%s", indent,
			out_string(o, "address"), out_string(o, "state"),
			out_number(o, "in_flight"), out_number(o, "losses"),
			out_number(o, "timeouts"), error[0] ? ": " : "", error);
	}
}

/* Only what is not as it should be; --health and --json have all. */
static void show_lost_paths(const json_t *f)
{
	json_t *p;
	size_t i;

	json_array_foreach(json_object_get(f, "paths"), i, p)
	{
		const char *error = out_string(p, "error");

		if (!json_is_true(json_object_get(p, "usable")))
			out_line("  flash %s: path %s is %s%s%s", out_string(f, "flash.name"),
				out_string(p, "address"), out_string(p, "state"),
				error[0] ? ": " : "", error);
	}
}

/* ---- nodes ---------------------------------------------------------------------------------------------------------- */

static void show_node(const json_t *pool, const json_t *n)
{
	static const struct out_column columns[] = {{"FLASH", "name"}, {"STATE", "state"},
		{"READ-US p50/p99/max", "read"}, {"WRITE-US p50/p99/max", "write"},
		{"OUTSTANDING", "in_flight"}, {"ERRORS", "errors"}, {"PATHS", "paths"}, {NULL}};
	json_t *rows = json_array(), *name, *f;
	size_t i;

	out_line("node %s: %s, %lld of %zu flash devices usable", out_string(n, "name"),
		out_string(n, "state"), out_number(n, "usable"),
		json_array_size(json_object_get(n, "flashes")));
	json_array_foreach(json_object_get(n, "flashes"), i, name)
	{
		f = flash_of(pool, json_string_value(name));
		if (f)
			json_array_append_new(rows, row_of(f));
	}
	out_table(columns, rows, "no flash");
	json_decref(rows);
	json_array_foreach(json_object_get(n, "flashes"), i, name)
	{
		show_lost_paths(flash_of(pool, json_string_value(name)));
	}
}

void out_nodes(const json_t *pool)
{
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(pool, "nodes"), i, o)
	{
		show_node(pool, o);
	}
}

/* ---- health ----------------------------------------------------------------------------------------------------------- */

/* "name=value" of a list of named numbers, one line each, with the units in their names. */
void out_named(const json_t *list, const char *indent)
{
	json_t *o;
	size_t i;

	json_array_foreach((json_t *)list, i, o)
	{
		out_line("%s%-24s %lld", indent, out_string(o, "name"), out_number(o, "value"));
	}
}

static void show_latencies(const json_t *f)
{
	json_t *o;
	size_t i;

	json_array_foreach(json_object_get(f, "latency"), i, o)
	{
		if (out_number(o, "count"))
			out_line("  %s: p50 %lld us, p99 %lld us, max %lld us, of %lld",
				out_string(o, "op"), out_number(o, "p50_us"),
				out_number(o, "p99_us"), out_number(o, "max_us"),
				out_number(o, "count"));
	}
}

static void show_health(const json_t *o)
{
	static const struct out_column facts[] = {{"  address", "address"}, {"  domain", "domain"},
		{"  state", "card.state"}, {"  reason", "card.reason"}, {"  change", "change"},
		{"  size", "card.size_bytes", OUT_BYTES}, {"  free", "card.free_bytes", OUT_BYTES},
		{"  reserved by this card", "card.claimed", OUT_FLAG},
		{"  outstanding", "card.in_flight"}, {"  errors", "card.errors"}, {NULL}};

	out_line("flash %s", out_string(o, "name"));
	out_facts(facts, o);
	show_latencies(json_object_get(o, "card"));
	show_paths(json_object_get(o, "card"), "  ");
	out_named(out_value(o, "card.health"), "  ");
}

static bool same_node(const json_t *a, const json_t *b)
{
	return !strcmp(out_string(a, "node"), out_string(b, "node")) &&
	       !strcmp(out_string(a, "domain"), out_string(b, "domain"));
}

/* By failure domain, each where its first flash stands. */
void render_flash_health(struct cli *c, const json_t *a)
{
	json_t *items = json_object_get(a, "items"), *o, *p;
	size_t i, j;

	if (!json_array_size(items))
		puts("no flash; add some with: parapet flash add NAME --address file:/PATH");
	json_array_foreach(items, i, o)
	{
		bool first = true;

		for (j = 0; first && j < i; j++)
			first = !same_node(json_array_get(items, j), o);
		if (!first)
			continue;
		if (out_string(o, "domain_state")[0])
			out_line("node %s: %s", out_string(o, "domain"),
				out_string(o, "domain_state"));
		for (j = i; j < json_array_size(items); j++) {
			p = json_array_get(items, j);
			if (same_node(p, o))
				show_health(p);
		}
	}
}
