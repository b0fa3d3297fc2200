/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool's status: what it survives, its checkpoint, the log's room, the last recovery. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "dpu/pool/checkpoint.h"
#include "dpu/pool/health.h"
#include "dpu/pool/survive.h"
#include "dpu/stripelog/stripelog.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_S 1000000000ull
#define SCHEMES  16 /* different codes that are told apart */

/* ---- what can be lost --------------------------------------------------------------------------------------------- */

/* Devices that are back and not checked yet hold nothing that can be counted on. */
static uint64_t in_doubt(const struct card *c)
{
	uint64_t mask = 0;

	for (unsigned int i = 0; c->mover && i < pool_ndevs(store_pool(c->store)); i++)
		mask |= (uint64_t)mover_dev_in_doubt(c->mover, i) << i;
	return mask;
}

/* Where fragments, records, checkpoint and superblocks really lie. Nothing of the scheme yet: where its first stripe would. */
static void survival_of(const struct card *c, struct ec_scheme scheme, struct pool_survival *s)
{
	static const struct ec_scheme records = {0};

	pool_survival_begin(store_pool(c->store), in_doubt(c), s);
	pool_survival_meta(s);
	stripelog_survival(store_log(c->store), records, s);
	if (!stripelog_survival(store_log(c->store), scheme, s))
		pool_survival_ideal(s, scheme);
}

/* Would new stripes survive a node? */
static bool could_be_better(const struct card *c, struct ec_scheme scheme)
{
	struct pool_survival s;

	pool_survival_begin(store_pool(c->store), 0, &s);
	pool_survival_ideal(&s, scheme);
	return s.nodes > 0;
}

struct kinds {
	struct ec_scheme scheme[SCHEMES];
	uint64_t bytes[SCHEMES], plain;
	unsigned int n;
};

static void count_kinds(const struct card *c, struct kinds *k)
{
	struct volume *vol;

	memset(k, 0, sizeof(*k));
	for (vol = volume_first(c->store); vol; vol = volume_next(vol)) {
		struct ec_scheme s = volume_cfg(vol)->scheme;
		struct volume_stats st;
		unsigned int i;

		volume_stats(vol, &st);
		k->plain += (st.blocks[BLOCK_DATA] + st.blocks[BLOCK_INTERMEDIATE]) *
			    IO_BLOCK_BYTES;
		if (!s.k)
			s = pool_cfg(store_pool(c->store))->scheme;
		for (i = 0; i < k->n; i++)
			if (k->scheme[i].k == s.k && k->scheme[i].m == s.m)
				break;
		if (i == SCHEMES)
			i--; /* the last one stands for the rest */
		k->n = MAX(k->n, i + 1);
		k->scheme[i] = s;
		k->bytes[i] += (st.blocks[BLOCK_DATA_LOG] + st.blocks[BLOCK_LOG]) * IO_BLOCK_BYTES;
	}
}

/* Over every scheme that has data; where none has, the pool's. */
static void survival_of_all(const struct card *c, const struct kinds *k, struct pool_survival *all)
{
	struct pool_survival s;
	bool any = false;

	pool_survival_begin(store_pool(c->store), in_doubt(c), all);
	for (unsigned int i = 0; i < k->n; i++) {
		if (!k->bytes[i])
			continue;
		survival_of(c, k->scheme[i], &s);
		pool_survival_merge(all, &s);
		any = true;
	}
	if (any)
		return;
	survival_of(c, pool_cfg(store_pool(c->store))->scheme, &s);
	pool_survival_merge(all, &s);
}

bool survives_nothing(const struct card *c)
{
	const struct pool *p = store_pool(c->store);
	uint64_t missed = in_doubt(c);
	struct pool_survival s;
	struct kinds k;

	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		missed |= (uint64_t)(pool_dev(p, i)->state != POOL_DEV_REMOVED &&
				     !pool_dev_usable(p, i))
			  << i;
	if (!missed)
		return false;
	count_kinds(c, &k);
	for (unsigned int i = 0; i < k.n; i++) {
		if (!k.bytes[i])
			continue;
		survival_of(c, k.scheme[i], &s);
		if (!s.devices)
			return true;
	}
	return false;
}

/* Names of the nodes that must not go. */
static int fill_fatal(const struct card *card, struct call *c, uint64_t fatal, Parapet__Survives *m)
{
	const struct pool *p = store_pool(card->store);

	m->fatal_nodes = call_alloc(c, POOL_DEVS_MAX * sizeof(m->fatal_nodes[0]));
	if (!m->fatal_nodes)
		return -ENOMEM;
	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		if (fatal >> i & 1 && pool_domain_of(p, i) == i)
			m->fatal_nodes[m->n_fatal_nodes++] = call_str(c, pool_dev(p, i)->domain);
	return 0;
}

static int fill_protected(const struct card *card, struct call *c, struct ec_scheme scheme,
	uint64_t bytes, Parapet__Survives *m)
{
	struct pool_survival s;

	survival_of(card, scheme, &s);
	m->what = call_fmt(c, "protected %u+%u", scheme.k, scheme.m);
	m->devices = s.devices;
	m->has_bytes = m->has_nodes = true;
	m->bytes = bytes;
	m->nodes = s.nodes;
	return !s.nodes && could_be_better(card, scheme) ? fill_fatal(card, c, s.fatal, m) : 0;
}

static int fill_survival(const struct card *card, struct call *c, Parapet__PoolStatus *s)
{
	struct pool_survival all;
	struct kinds k;
	int rc = 0;

	count_kinds(card, &k);
	survival_of_all(card, &k, &all);
	s->has_survives = s->has_survives_nodes = true;
	s->survives = all.devices;
	s->survives_nodes = all.nodes;
	if (call_messages(c, k.n + 1, Parapet__Survives, parapet__survives__init, &s->survival) < 0)
		return -ENOMEM;
	for (unsigned int i = 0; rc == 0 && i < k.n; i++)
		rc = fill_protected(card, c, k.scheme[i], k.bytes[i], s->survival[s->n_survival++]);
	if (k.plain) {
		Parapet__Survives *m = s->survival[s->n_survival++];

		m->what = call_str(c, "plain");
		m->devices = 0;
		m->has_bytes = m->has_nodes = true;
		m->bytes = k.plain;
	}
	return rc;
}

/* ---- checkpoint, log, recovery ------------------------------------------------------------------------------------------ */

static int fill_checkpoint(const struct card *card, struct call *c, const struct store_stats *st,
	Parapet__PoolStatus *s)
{
	Parapet__CheckpointStatus *m = call_message(
		c, Parapet__CheckpointStatus, parapet__checkpoint_status__init);
	uint64_t now = shard_now_ns(card->cfg.shard);
	struct ckpt_info info;

	if (!m)
		return -ENOMEM;
	s->checkpoint = m;
	ckpt_info(store_pool(card->store), &info);
	m->has_log_bytes_since = true;
	m->log_bytes_since = st->log_bytes_since;
	if (!info.exists)
		return 0;
	m->has_id = m->has_epoch = m->has_bytes = m->has_base_bytes = m->has_parts = true;
	m->id = info.id;
	m->epoch = info.epoch;
	m->bytes = info.bytes;
	m->base_bytes = info.base_bytes;
	m->parts = info.parts;
	m->has_age_s = info.committed_ns != 0;
	m->age_s = info.committed_ns && now > info.committed_ns
			   ? (now - info.committed_ns) / NS_PER_S
			   : 0;
	return 0;
}

static int fill_log(const struct card *card, struct call *c, Parapet__PoolStatus *s)
{
	Parapet__LogSpace *m = call_message(c, Parapet__LogSpace, parapet__log_space__init);
	struct log_space sp;

	if (!m)
		return -ENOMEM;
	stripelog_space(store_log(card->store), &sp);
	m->has_capacity_bytes = m->has_live_bytes = m->has_free_bytes = m->has_limbo_bytes =
		m->has_reserve_bytes = m->has_used_percent = true;
	m->capacity_bytes = sp.limit_bytes;
	m->live_bytes = sp.live_bytes;
	m->free_bytes = sp.free_bytes;
	m->limbo_bytes = sp.limbo_bytes;
	m->reserve_bytes = sp.reserve_bytes;
	m->used_percent = space_used_percent(card);
	s->log = m;
	return 0;
}

void add_named(struct call *c, Parapet__Named **list, size_t *n, const char *name, uint64_t v)
{
	list[*n]->name = call_str(c, name);
	list[(*n)++]->value = v;
}

static int fill_recovery(struct call *c, const struct store_stats *st, Parapet__PoolStatus *s)
{
	Parapet__Recovery *m = call_message(c, Parapet__Recovery, parapet__recovery__init);

	if (!m || call_messages(c, 8, Parapet__Named, parapet__named__init, &m->figures) < 0)
		return -ENOMEM;
	add_named(c, m->figures, &m->n_figures, "ms", st->recovery_ns / 1000000);
	add_named(
		c, m->figures, &m->n_figures, "checkpoint_load_ms", st->recovery_load_ns / 1000000);
	add_named(c, m->figures, &m->n_figures, "checkpoint_entries", st->recovery_entries);
	add_named(c, m->figures, &m->n_figures, "log_bytes", st->recovery_log_bytes);
	add_named(c, m->figures, &m->n_figures, "stripes", st->recovery_stripes);
	add_named(c, m->figures, &m->n_figures, "stripes_appended_again", st->recovery_reappended);
	add_named(c, m->figures, &m->n_figures, "blocks_lost", st->recovery_lost);
	s->recovery = m;
	return 0;
}

int pool_status_fill(
	struct card *card, struct call *c, const struct store_stats *st, Parapet__PoolStatus *s)
{
	int rc = fill_survival(card, c, s);

	if (rc == 0)
		rc = fill_checkpoint(card, c, st, s);
	if (rc == 0)
		rc = fill_log(card, c, s);
	if (rc == 0)
		rc = fill_recovery(c, st, s);
	if (rc == 0)
		rc = settings_fill(card, c, s);
	if (rc == 0)
		rc = nodes_fill(card, c, s);
	return rc;
}
