/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stripe table. An entry is 16 bytes and 6 per fragment, in units of 16 bytes; a reference is the number of its first unit. Free
 * entries are kept by size; a size that has none takes from the end of the last slab. Slabs are added as the log fills: one per
 * 5000 stripes or more, never per I/O, up to the bound given at open. At the bound a larger free entry is cut in two; the other way round,
 * small ones are not joined. What a scan finds on flash, dead stripes too, may go past the bound: a pool that could be written can be opened.
 *
 *	4+2, 32 blocks: 52 -> 64 bytes, 2 per block.  1+2, 1 block: 34 -> 48 bytes.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/stripelog/log_priv.h"

#define UNIT_BYTES 16u
#define SLAB_UNITS (1u << 16)
#define SLABS_MAX  (1u << 15) /* 32 GiB of table: what a reference can number */
#define UNITS_MAX  (1u + DIV_ROUND_UP(FRAGS_MAX * 6u, UNIT_BYTES))
#define REF_NONE   UINT32_MAX

static_assert(sizeof(struct table_addr) == 6, "packed address");
static_assert(sizeof(struct table_entry) == UNIT_BYTES, "entry head");

struct table {
	uint8_t **slabs;
	uint32_t nslabs, max_slabs;
	uint32_t next; /* first unit never used of the last slab */
	uint64_t free_units; /* of the lists below */
	uint32_t free[UNITS_MAX + 1]; /* by size: heads of lists through `number` */
	uint64_t entries;
};

int table_open(uint64_t max_bytes, struct table **out)
{
	struct table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	t->slabs = calloc(SLABS_MAX, sizeof(*t->slabs));
	if (!t->slabs) {
		free(t);
		return -ENOMEM;
	}
	t->max_slabs = (uint32_t)MIN(
		MAX(max_bytes / (SLAB_UNITS * UNIT_BYTES), 1u), (uint64_t)SLABS_MAX);
	for (unsigned int i = 0; i <= UNITS_MAX; i++)
		t->free[i] = REF_NONE;
	*out = t;
	return 0;
}

void table_close(struct table *t)
{
	if (!t)
		return;
	for (uint32_t i = 0; i < t->nslabs; i++)
		mem_free(t->slabs[i], (size_t)SLAB_UNITS * UNIT_BYTES);
	free(t->slabs);
	free(t);
}

static uint32_t units_of(unsigned int nfrags)
{
	return 1u + DIV_ROUND_UP(nfrags * 6u, UNIT_BYTES);
}

static struct table_entry *entry_at(const struct table *t, uint32_t ref)
{
	return (struct table_entry *)(t->slabs[ref / SLAB_UNITS] +
				      (size_t)(ref % SLAB_UNITS) * UNIT_BYTES);
}

struct table_entry *table_get(const struct table *t, uint32_t ref)
{
	struct table_entry *e;

	if (ref / SLAB_UNITS >= t->nslabs)
		return NULL;
	e = entry_at(t, ref);
	return e->nblocks ? e : NULL;
}

static void free_push(struct table *t, uint32_t units, uint32_t ref)
{
	struct table_entry *e = entry_at(t, ref);

	e->nblocks = 0;
	e->number = t->free[units];
	t->free[units] = ref;
	t->free_units += units;
}

static uint32_t free_pop(struct table *t, uint32_t units)
{
	uint32_t ref = t->free[units];

	t->free[units] = (uint32_t)entry_at(t, ref)->number;
	t->free_units -= units;
	return ref;
}

/* The front of a larger free entry. The rest stays one, with a k that says its size to table_each(): of 2 units or more, for no k says 1. */
static int units_cut(struct table *t, uint32_t units, uint32_t *ref)
{
	for (uint32_t from = units + 2; from <= UNITS_MAX; from++) {
		struct table_entry *rest;

		if (t->free[from] == REF_NONE)
			continue;
		*ref = free_pop(t, from);
		rest = entry_at(t, *ref + units);
		rest->k = (uint8_t)((from - units - 2) * UNIT_BYTES / 6u + 1);
		rest->m = 0;
		free_push(t, from - units, *ref + units);
		return 0;
	}
	return -ENOSPC;
}

/* A run of units at the end of the last slab, which gets a successor when it is full. */
static int units_new(struct table *t, uint32_t units, uint32_t max_slabs, uint32_t *ref)
{
	uint8_t *slab;

	if (!t->nslabs || t->next + units > SLAB_UNITS) {
		if (t->nslabs >= max_slabs)
			return units_cut(t, units, ref);
		slab = mem_alloc((size_t)SLAB_UNITS * UNIT_BYTES);
		if (!slab)
			return -ENOMEM;
		t->slabs[t->nslabs++] = slab;
		t->next = 0;
	}
	*ref = (t->nslabs - 1) * SLAB_UNITS + t->next;
	t->next += units;
	return 0;
}

static void addr_pack(const struct frag_addr *a, struct table_addr *out)
{
	uint32_t off = a->off / FRAG_HDR_UNIT;

	out->dev = a->dev;
	out->segment[0] = (uint8_t)a->segment;
	out->segment[1] = (uint8_t)(a->segment >> 8);
	out->segment[2] = (uint8_t)(a->segment >> 16);
	out->off[0] = (uint8_t)off;
	out->off[1] = (uint8_t)(off >> 8);
}

struct frag_addr table_addr_of(const struct table_entry *e, unsigned int frag)
{
	const struct table_addr *a = &e->addr[frag];

	return (struct frag_addr){.dev = a->dev,
		.segment = (uint32_t)a->segment[0] | (uint32_t)a->segment[1] << 8 |
			   (uint32_t)a->segment[2] << 16,
		.off = ((uint32_t)a->off[0] | (uint32_t)a->off[1] << 8) * FRAG_HDR_UNIT};
}

void table_set(struct table *t, uint32_t ref, const struct frag_hdr *h)
{
	struct table_entry *e = entry_at(t, ref);

	e->number = h->number;
	for (unsigned int i = 0; i < frag_count(h); i++)
		addr_pack(&h->addr[i], &e->addr[i]);
}

int table_add(struct table *t, const struct frag_hdr *h, uint32_t live, bool bounded, uint32_t *ref)
{
	uint32_t units = units_of(frag_count(h));
	struct table_entry *e;
	int rc;

	if (t->free[units] != REF_NONE) {
		*ref = free_pop(t, units);
	} else {
		rc = units_new(t, units, bounded ? t->max_slabs : SLABS_MAX, ref);
		if (rc < 0)
			return rc;
	}
	e = entry_at(t, *ref);
	e->nblocks = (uint16_t)h->geo.nblocks;
	e->live = (uint16_t)live;
	e->k = h->geo.k;
	e->m = h->geo.m;
	e->hdr_units = (uint8_t)(h->len_bytes / FRAG_HDR_UNIT - 1);
	e->flags = 0;
	table_set(t, *ref, h);
	t->entries++;
	return 0;
}

void table_del(struct table *t, uint32_t ref)
{
	struct table_entry *e = entry_at(t, ref);

	free_push(t, units_of((unsigned int)e->k + e->m), ref);
	t->entries--;
}

void table_each(
	struct table *t, void (*fn)(void *arg, uint32_t ref, struct table_entry *e), void *arg)
{
	for (uint32_t s = 0; s < t->nslabs; s++) {
		uint32_t at = 0;

		while (at < (s + 1 == t->nslabs ? t->next : SLAB_UNITS)) {
			uint32_t ref = s * SLAB_UNITS + at;
			struct table_entry *e = entry_at(t, ref);

			if (!e->k)
				break; /* the rest of a slab that was too short for an entry */
			at += units_of((unsigned int)e->k + e->m);
			if (e->nblocks)
				fn(arg, ref, e);
		}
	}
}

uint64_t table_bytes(const struct table *t)
{
	return (uint64_t)t->nslabs * SLAB_UNITS * UNIT_BYTES + SLABS_MAX * sizeof(*t->slabs);
}

uint64_t table_max_bytes(const struct table *t)
{
	return (uint64_t)t->max_slabs * SLAB_UNITS * UNIT_BYTES;
}

static uint64_t rest_units(const struct table *t)
{
	return t->nslabs ? SLAB_UNITS - t->next : 0;
}

uint64_t table_used_bytes(const struct table *t)
{
	return ((uint64_t)t->nslabs * SLAB_UNITS - rest_units(t) - t->free_units) * UNIT_BYTES;
}

uint64_t table_room(const struct table *t)
{
	uint64_t rest = rest_units(t), units = t->free_units;

	/* Up to UNITS_MAX - 1 at the end of each slab may be too short for what comes next. */
	units += rest - MIN(rest, (uint64_t)UNITS_MAX - 1);
	if (t->nslabs < t->max_slabs)
		units += (uint64_t)(t->max_slabs - t->nslabs) * (SLAB_UNITS - UNITS_MAX + 1);
	return units * UNIT_BYTES;
}

uint64_t table_entry_bytes(unsigned int nfrags)
{
	return (uint64_t)units_of(nfrags) * UNIT_BYTES;
}

uint64_t table_entries(const struct table *t)
{
	return t->entries;
}
