/* SPDX-License-Identifier: BSD-3-Clause */
/* Statistics: every counter under the name of its object; and the list of flow rules. */
#include "dpu/control/card_priv.h"

#include "dpu/flow/flow.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define STATS_MAX 65536u
#define RULES_MAX 4096u

/* A list that grows; the old places stay with the call until it is answered. */
struct list {
	struct call *c;
	Parapet__Stat **items;
	size_t n, room;
};

static void stat_add(void *arg, const char *object, const char *name, uint64_t value)
{
	struct list *l = arg;
	Parapet__Stat *s;

	if (l->n == STATS_MAX)
		return;
	if (l->n == l->room) {
		size_t room = l->room ? l->room * 2 : 256;
		Parapet__Stat **grown = call_alloc(l->c, room * sizeof(*grown));

		if (!grown)
			return;
		if (l->n)
			memcpy(grown, l->items, l->n * sizeof(*grown));
		l->items = grown;
		l->room = room;
	}
	s = call_message(l->c, Parapet__Stat, parapet__stat__init);
	if (!s)
		return;
	s->object = call_str(l->c, object);
	s->name = call_str(l->c, name);
	s->value = value;
	l->items[l->n++] = s;
}

static const char *const outcome_names[] = {"plain", "intermediate", "protect"};

/* Those of operations that there were. */
static void percentiles(struct list *l, const char *object, const struct pipeline *p, uint32_t vm)
{
	char name[64];

	for (int op = 0; op < PIPELINE_OPS; op++) {
		const struct hist *h = pipeline_vm_latency(p, vm, (enum io_op)op);

		if (!h || !h->count)
			continue;
		snprintf(name, sizeof(name), "latency_ns_p50.%s", io_op_name((enum io_op)op));
		stat_add(l, object, name, hist_at(h, 500));
		snprintf(name, sizeof(name), "latency_ns_p99.%s", io_op_name((enum io_op)op));
		stat_add(l, object, name, hist_at(h, 990));
	}
}

static void pipeline_numbers(struct list *l, const char *object, const struct pipeline_vm_stats *st)
{
	char name[64];

	for (int op = 0; op < PIPELINE_OPS; op++) {
		const char *op_name = io_op_name((enum io_op)op);

		snprintf(name, sizeof(name), "requests.%s", op_name);
		stat_add(l, object, name, st->requests[op]);
		snprintf(name, sizeof(name), "bytes.%s", op_name);
		stat_add(l, object, name, st->bytes[op]);
		snprintf(name, sizeof(name), "latency_ns_sum.%s", op_name);
		stat_add(l, object, name, st->latency_ns[op]);
		snprintf(name, sizeof(name), "latency_ns_max.%s", op_name);
		stat_add(l, object, name, st->latency_max_ns[op]);
	}
	for (size_t i = 0; i < ARRAY_LEN(outcome_names); i++) {
		snprintf(name, sizeof(name), "writes.%s", outcome_names[i]);
		stat_add(l, object, name, st->outcome[i]);
		snprintf(name, sizeof(name), "write_bytes.%s", outcome_names[i]);
		stat_add(l, object, name, st->outcome_bytes[i]);
	}
	for (int i = 0; i < IO_STATUS_COUNT; i++) {
		snprintf(name, sizeof(name), "status.%s", io_status_name((enum io_status)i));
		stat_add(l, object, name, st->status[i]);
	}
	stat_add(l, object, "refused", st->refused);
	stat_add(l, object, "waited", st->waited);
	stat_add(l, object, "foreign", st->foreign);
	stat_add(l, object, "in_flight", st->in_flight);
	stat_add(l, object, "waiting", st->waiting);
	stat_add(l, object, "capped_ns", st->capped_ns);
}

static void target_numbers(struct list *l, const char *object, const struct nvme_tcp_vm_stats *st)
{
	stat_add(l, object, "connections", st->conns);
	stat_add(l, object, "controllers", st->controllers);
	stat_add(l, object, "accepted", st->accepted);
	stat_add(l, object, "refused_connections", st->refused_conns);
	stat_add(l, object, "connects", st->connects);
	stat_add(l, object, "refused_connects", st->refused_connects);
	stat_add(l, object, "admin_commands", st->admin_commands);
	stat_add(l, object, "failed_commands", st->failed_commands);
	stat_add(l, object, "pdu_errors", st->pdu_errors);
	stat_add(l, object, "header_digest_errors", st->hdgst_errors);
	stat_add(l, object, "data_digest_errors", st->ddgst_errors);
	stat_add(l, object, "host_terminations", st->host_terms);
	stat_add(l, object, "handshake_timeouts", st->handshake_timeouts);
	stat_add(l, object, "keep_alive_timeouts", st->keep_alive_timeouts);
	stat_add(l, object, "buffer_waits", st->buffer_waits);
	stat_add(l, object, "backend_waits", st->backend_waits);
	stat_add(l, object, "media_errors", st->media_errors);
}

static void vm_numbers(struct card *card, struct list *l, const struct card_vm *v)
{
	struct pipeline_vm_stats ps;
	struct nvme_tcp_vm_stats ts;
	char object[96];

	object_name(object, sizeof(object), "vm", v->name);
	if (pipeline_vm_stats(card->pipeline, v->vm, &ps) == 0)
		pipeline_numbers(l, object, &ps);
	percentiles(l, object, card->pipeline, v->vm);
	if (v->tvm) {
		nvme_tcp_vm_stats(v->tvm, &ts);
		target_numbers(l, object, &ts);
	}
	vhost_numbers(v, stat_add, l, object);
}

static void latency_numbers(
	struct list *l, const char *object, const char *op, const struct flash_latency *t)
{
	char name[64];

	snprintf(name, sizeof(name), "latency_ns_p50.%s", op);
	stat_add(l, object, name, t->p50_ns);
	snprintf(name, sizeof(name), "latency_ns_p99.%s", op);
	stat_add(l, object, name, t->p99_ns);
	snprintf(name, sizeof(name), "latency_ns_max.%s", op);
	stat_add(l, object, name, t->max_ns);
}

/* What the transport did, over all paths. */
static void wire_numbers(struct list *l, const char *object, const struct flash_health *h)
{
	struct flash_wire w = {.kicks = 0};
	uint64_t commands = 0, losses = 0;

	for (unsigned int i = 0; i < h->npaths; i++) {
		const struct flash_path *p = &h->paths[i];

		commands += p->commands;
		losses += p->losses;
		w.kicks += p->wire.kicks;
		w.posts += p->wire.posts;
		w.completions += p->wire.completions;
		w.copied_bytes += p->wire.copied_bytes;
		w.zero_copy_bytes += p->wire.zero_copy_bytes;
		w.inline_bytes += p->wire.inline_bytes;
		w.binds += p->wire.binds;
		w.remote_invalidates += p->wire.remote_invalidates;
	}
	stat_add(l, object, "wire.commands", commands);
	stat_add(l, object, "wire.losses", losses);
	stat_add(l, object, "wire.kicks", w.kicks);
	stat_add(l, object, "wire.posts", w.posts);
	stat_add(l, object, "wire.completions", w.completions);
	stat_add(l, object, "wire.copied_bytes", w.copied_bytes);
	stat_add(l, object, "wire.zero_copy_bytes", w.zero_copy_bytes);
	stat_add(l, object, "wire.inline_bytes", w.inline_bytes);
	stat_add(l, object, "wire.binds", w.binds);
	stat_add(l, object, "wire.remote_invalidates", w.remote_invalidates);
}

static void flash_latencies(struct list *l, const char *object, struct flash *f)
{
	struct flash_health h;
	unsigned int usable = 0;

	flash_health(f, &h);
	latency_numbers(l, object, "read", &h.read);
	latency_numbers(l, object, "write", &h.write);
	latency_numbers(l, object, "flush", &h.flush);
	stat_add(l, object, "in_flight", h.in_flight);
	if (!h.npaths)
		return;
	for (unsigned int i = 0; i < h.npaths; i++)
		usable += h.paths[i].usable;
	stat_add(l, object, "paths", h.npaths);
	stat_add(l, object, "paths_usable", usable);
	wire_numbers(l, object, &h);
}

static void flash_numbers(struct list *l, const struct pool_dev *d)
{
	struct flash_stats st;
	char object[96], name[64];

	object_name(object, sizeof(object), "flash", d->name);
	stat_add(l, object, "errors", d->errors);
	if (!d->flash)
		return;
	flash_stats(d->flash, &st);
	flash_latencies(l, object, d->flash);
	stat_add(l, object, "reads", st.reads);
	stat_add(l, object, "writes", st.writes);
	stat_add(l, object, "flushes", st.flushes);
	stat_add(l, object, "read_bytes", st.read_bytes);
	stat_add(l, object, "write_bytes", st.write_bytes);
	stat_add(l, object, "zero_bytes", st.zero_bytes);
	stat_add(l, object, "registered_transfers", st.fixed);
	for (int i = FLASH_OK + 1; i < FLASH_STATUS_COUNT; i++) {
		snprintf(name, sizeof(name), "status.%s", flash_status_name((enum flash_status)i));
		stat_add(l, object, name, st.errors[i]);
	}
}

/* What says where blocks are: used, and the bound that --map-memory sets. */
static void memory_numbers(struct list *l, const struct store *s)
{
	struct store_stats st;

	store_stats(s, &st);
	stat_add(l, "card", "map_bytes", st.map_bytes);
	stat_add(l, "card", "map_budget_bytes", st.map_max_bytes);
	stat_add(l, "card", "stripe_table_used_bytes", st.log.table_used_bytes);
	stat_add(l, "card", "stripe_table_budget_bytes", st.log.table_max_bytes);
}

int call_stats(struct card *card, struct call *c)
{
	Parapet__Stats *r = call_message(c, Parapet__Stats, parapet__stats__init);
	struct list l = {.c = c};
	struct timespec now;
	struct card_vm *v;

	if (!r)
		return -ENOMEM;
	stat_add(&l, "card", "table_swaps", card->tables->swaps);
	TAILQ_FOREACH (v, &card->vms, link)
		vm_numbers(card, &l, v);
	if (card->store) {
		const struct pool *p = store_pool(card->store);

		memory_numbers(&l, card->store);
		for (unsigned int i = 0; i < pool_ndevs(p); i++)
			if (pool_dev(p, i)->state != POOL_DEV_REMOVED)
				flash_numbers(&l, pool_dev(p, i));
	}
	for (int i = 0; i < CARD_ACCESS_MAX && card->cfg.access[i].ops; i++)
		if (card->cfg.access[i].ops->stats)
			card->cfg.access[i].ops->stats(card->cfg.access[i].provider, stat_add, &l);
	clock_gettime(CLOCK_REALTIME, &now);
	r->has_time_ns = true;
	r->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	r->stats = l.items;
	r->n_stats = l.n;
	c->resp.result_case = PARAPET__RESPONSE__RESULT_STATS;
	c->resp.stats = r;
	return 0;
}

/* ---- flow rules ------------------------------------------------------------------------------------------------------ */

static void fill_rule(
	struct call *c, const struct flow_rule_info *i, uint32_t vm, Parapet__FlowRule *m)
{
	m->has_vm = m->has_packets = m->has_bytes = true;
	m->vm = vm;
	m->port = call_str(c, i->port);
	m->match = call_str(c, i->match);
	m->action = call_str(c, i->action);
	m->engine = call_str(c, i->provider);
	m->reason = i->reason[0] ? call_str(c, i->reason) : NULL;
	m->packets = i->hw_counted ? i->hw_packets : i->packets;
	m->bytes = i->hw_counted ? i->hw_bytes : i->bytes;
}

int call_flow_list(struct card *card, struct call *c)
{
	Parapet__FlowRules *r = call_message(c, Parapet__FlowRules, parapet__flow_rules__init);
	struct flow_rule_info info;
	struct card_vm *v;

	if (!r || !(r->rules = call_alloc(c, RULES_MAX * sizeof(r->rules[0]))))
		return -ENOMEM;
	TAILQ_FOREACH (v, &card->vms, link) {
		if (!v->way || !v->access->ops->rule)
			continue;
		for (unsigned int i = 0; r->n_rules < RULES_MAX; i++) {
			Parapet__FlowRule *m;

			if (v->access->ops->rule(v->access->provider, v->way, i, &info) < 0)
				break;
			m = call_message(c, Parapet__FlowRule, parapet__flow_rule__init);
			if (!m)
				return -ENOMEM;
			fill_rule(c, &info, v->vm, m);
			r->rules[r->n_rules++] = m;
		}
	}
	c->resp.result_case = PARAPET__RESPONSE__RESULT_FLOW_RULES;
	c->resp.flow_rules = r;
	return 0;
}
