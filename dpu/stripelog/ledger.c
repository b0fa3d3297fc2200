/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/stripelog/ledger.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/stripelog/space.h"

/* ---- segments ------------------------------------------------------------------------------------------------- */

/* Tables grow with the first segment beyond them: devices are added and grow while the log is open. */
static int seg_room(struct stripelog *log, uint32_t at)
{
	struct ledger_segs *s = &log->segs[AT_DEV(at)];
	uint32_t cap = s->cap ? s->cap : 256;
	struct ledger_group **p;

	if (AT_SEGMENT(at) < s->cap)
		return 0;
	while (cap <= AT_SEGMENT(at))
		cap *= 2;
	p = reallocarray(s->group, cap, sizeof(struct ledger_group *));
	if (!p)
		return -ENOMEM;
	for (uint32_t i = s->cap; i < cap; i++)
		p[i] = NULL;
	s->group = p;
	s->cap = cap;
	return 0;
}

struct ledger_group *ledger_at(const struct stripelog *log, uint32_t at)
{
	const struct ledger_segs *s;

	if (AT_DEV(at) >= POOL_DEVS_MAX)
		return NULL;
	s = &log->segs[AT_DEV(at)];
	return AT_SEGMENT(at) < s->cap ? s->group[AT_SEGMENT(at)] : NULL;
}

static void seg_set(struct stripelog *log, uint32_t at, struct ledger_group *g, bool records)
{
	struct ledger_segs *s = &log->segs[AT_DEV(at)];

	if (g) {
		s->used++;
		s->records += records;
	} else {
		s->used--;
		s->records -= records;
	}
	s->group[AT_SEGMENT(at)] = g;
	log->space_stamp++;
}

/* ---- groups --------------------------------------------------------------------------------------------------- */

int ledger_add(struct stripelog *log, const struct ledger_group *like,
	const struct ledger_member *members, struct ledger_group **out)
{
	struct ledger_group *g;

	if (ledger_find(log, like->generation))
		return -EEXIST;
	for (unsigned int i = 0; i < like->n; i++) {
		if (ledger_at(log, members[i].at))
			return -EEXIST;
		if (seg_room(log, members[i].at) < 0)
			return -ENOMEM;
	}
	g = calloc(1, sizeof(*g) + like->n * sizeof(g->members[0]));
	if (!g)
		return -ENOMEM;
	*g = *like;
	memcpy(g->members, members, like->n * sizeof(g->members[0]));
	g->cost = space_block_cost(log, g->k, g->m, g->n);
	for (unsigned int i = 0; i < g->n; i++)
		seg_set(log, members[i].at, g, !g->k);
	HASH_ADD(hh, log->ledger, generation, sizeof(g->generation), g);
	log->groups_count++;
	if (out)
		*out = g;
	return 0;
}

void ledger_del(struct stripelog *log, struct ledger_group *g, bool give_back)
{
	assert(!g->live);
	for (unsigned int i = 0; i < g->n; i++) {
		uint32_t at = g->members[i].at;

		seg_set(log, at, NULL, !g->k);
		if (give_back)
			pool_segment_free(log->pool, AT_DEV(at), AT_SEGMENT(at));
	}
	log->limbo_segments -= g->limbo ? g->n : 0;
	HASH_DEL(log->ledger, g);
	log->groups_count--;
	log->groups_limbo -= g->limbo != 0;
	free(g->refs);
	free(g);
}

void ledger_close(struct stripelog *log)
{
	struct ledger_group *g, *tmp;

	HASH_ITER(hh, log->ledger, g, tmp)
	{
		g->live = 0;
		ledger_del(log, g, false);
	}
	log->live_bytes = 0;
	memset(log->dev_live, 0, sizeof(log->dev_live));
	for (unsigned int i = 0; i < POOL_DEVS_MAX; i++) {
		free(log->segs[i].group);
		log->segs[i] = (struct ledger_segs){0};
	}
}

struct ledger_group *ledger_find(const struct stripelog *log, uint64_t generation)
{
	struct ledger_group *g;

	HASH_FIND(hh, log->ledger, &generation, sizeof(generation), g);
	return g;
}

void ledger_yield(struct stripelog *log, uint32_t at)
{
	struct ledger_group *g = ledger_at(log, at);

	if (!g)
		return;
	assert(!g->live);
	for (unsigned int i = 0; i < g->n; i++) {
		if (g->members[i].at != at)
			continue;
		g->members[i--] = g->members[--g->n];
		g->lost++;
	}
	seg_set(log, at, NULL, !g->k);
}

static int by_generation(const struct ledger_group *a, const struct ledger_group *b)
{
	return a->generation < b->generation ? -1 : a->generation > b->generation;
}

void ledger_sort(struct stripelog *log)
{
	HASH_SORT(log->ledger, by_generation);
}

/* ---- limbo ---------------------------------------------------------------------------------------------------- */

static void limbo_check(struct stripelog *log, struct ledger_group *g)
{
	if (!log->settled || g->open || g->live || !g->k || g->limbo)
		return;
	g->limbo = log->ckpt_started + 1;
	free(g->refs);
	g->refs = NULL;
	g->nrefs = g->refs_cap = 0;
	log->limbo_segments += g->n;
	log->groups_limbo++;
	space_tell(log, LOG_SPACE_LIMBO);
}

void ledger_done(struct stripelog *log, struct ledger_group *g)
{
	g->open = false;
	limbo_check(log, g);
}

void ledger_settle(struct stripelog *log)
{
	struct ledger_group *g, *tmp;

	log->settled = true;
	ledger_sort(log);
	HASH_ITER(hh, log->ledger, g, tmp)
	{
		g->floor = 0; /* that was the floor of the checkpoint we loaded */
		limbo_check(log, g);
	}
}

/* ---- a group's stripes ------------------------------------------------------------------------------------------ */

static int by_ref(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

uint32_t ledger_refs(struct stripelog *log, struct ledger_group *g)
{
	uint32_t n = 0;

	if (g->nrefs > 1)
		qsort(g->refs, g->nrefs, sizeof(*g->refs), by_ref);
	for (uint32_t i = 0; i < g->nrefs; i++) {
		uint32_t ref = g->refs[i];

		if ((n && g->refs[n - 1] == ref) || !table_is_ref(log->table, ref) ||
			entry_group(log, table_get(log->table, ref)) != g)
			continue;
		g->refs[n++] = ref;
	}
	g->nrefs = n;
	return n;
}

/* Room for one more reference: the dead ones go before it grows. */
static int refs_room(struct stripelog *log, struct ledger_group *g)
{
	uint32_t cap, *p;

	if (g->nrefs < g->refs_cap)
		return 0;
	if (g->nrefs && ledger_refs(log, g) <= g->refs_cap / 2)
		return 0;
	cap = g->refs_cap ? g->refs_cap * 2 : 64;
	p = reallocarray(g->refs, cap, sizeof(*p));
	if (!p)
		return -ENOMEM;
	g->refs = p;
	g->refs_cap = cap;
	return 0;
}

/* ---- entries ------------------------------------------------------------------------------------------------------ */

static uint32_t first_at(const struct table_entry *e)
{
	struct frag_addr a = table_addr_of(e, 0);

	return SEG_AT(a.dev, a.segment);
}

struct ledger_group *entry_group(const struct stripelog *log, const struct table_entry *e)
{
	return ledger_at(log, first_at(e));
}

static void group_live(struct stripelog *log, struct ledger_group *g, int64_t delta)
{
	uint64_t bytes = (uint64_t)(delta * g->cost); /* may be "negative" */

	g->live = (uint32_t)(g->live + delta);
	log->live_bytes += bytes;
	for (unsigned int i = 0; i < g->n; i++)
		log->dev_live[AT_DEV(g->members[i].at)] += bytes;
	if (!g->live)
		limbo_check(log, g);
}

int entry_add(
	struct stripelog *log, const struct frag_hdr *h, uint32_t live, bool bounded, uint32_t *ref)
{
	struct ledger_group *g = ledger_at(log, SEG_AT(h->addr[0].dev, h->addr[0].segment));
	int rc = g ? refs_room(log, g) : -EUCLEAN;

	if (rc == 0)
		rc = table_add(log->table, h, live, bounded, ref);
	if (rc < 0)
		return rc;
	g->refs[g->nrefs++] = *ref;
	group_live(log, g, live);
	return 0;
}

int entry_track(struct stripelog *log, uint32_t ref)
{
	struct ledger_group *g = entry_group(log, table_get(log->table, ref));
	int rc = g ? refs_room(log, g) : -EUCLEAN;

	if (rc == 0)
		g->refs[g->nrefs++] = ref;
	return rc;
}

void entry_del(struct stripelog *log, uint32_t ref)
{
	struct table_entry *e = table_get(log->table, ref);
	struct ledger_group *g = entry_group(log, e);
	uint32_t live = e->live;

	table_del(log->table, ref);
	if (g)
		group_live(log, g, -(int64_t)live);
}

void entry_live(struct stripelog *log, struct table_entry *e, int64_t delta)
{
	struct ledger_group *g = entry_group(log, e);

	e->live = (uint16_t)(e->live + delta);
	if (g)
		group_live(log, g, delta);
}
