/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests that were in flight together may take effect in any order where one of them waited for room (it lets others pass). Is there an
 * order in which the versions of a block came to be?
 *
 * Each sector shows one request (or the floor). The requests that are shown happened; so did whatever had to happen before one of them.
 * X before S: X was over when S began (where neither waited: X was submitted first), or a sector of X shows S. What is shown is possible if that has no
 * circle, and nothing that happened is missing from a sector that shows the floor.
 */
#include <string.h>

#include "tests/model/ref.h"

#define OPS_AT_BLOCK 64u
#define FLOOR        (-1)

struct order_op {
	struct cand c;
	uint8_t at; /* sectors of the block that it covers */
};

struct order {
	const struct sector *s; /* SEC_PER_4K of them */
	const int64_t *ver;
	struct order_op ops[OPS_AT_BLOCK];
	unsigned int n;
	int shows[SEC_PER_4K]; /* ops[], or FLOOR */
};

static bool holds(const struct cand *c, int64_t ver)
{
	return (int64_t)c->ver == ver || (c->alt && (int64_t)c->alt == ver);
}

static bool collect(struct order *o)
{
	for (unsigned int i = 0; i < SEC_PER_4K; i++)
		for (unsigned int k = 1; k < o->s[i].n; k++) {
			unsigned int j = 0;

			while (j < o->n && o->ops[j].c.id != o->s[i].c[k].id)
				j++;
			if (j == OPS_AT_BLOCK)
				return false;
			if (j == o->n)
				o->ops[o->n++] = (struct order_op){.c = o->s[i].c[k]};
			o->ops[j].at |= (uint8_t)(1u << i);
		}
	return true;
}

bool cand_precedes(const struct cand *x, const struct cand *y)
{
	if (x->waited || y->waited)
		return x->acked_at && x->acked_at <= y->began;
	return x->id < y->id;
}

static bool must_have_happened(const struct order *o, unsigned int x, uint64_t chain)
{
	if (o->ops[x].c.state == CAND_FAILED)
		return false;
	for (unsigned int y = 0; y < o->n; y++)
		if (chain >> y & 1 && y != x && cand_precedes(&o->ops[x].c, &o->ops[y].c))
			return true;
	return false;
}

static uint64_t chain_of(const struct order *o)
{
	uint64_t chain = 0, before;

	for (unsigned int i = 0; i < SEC_PER_4K; i++)
		if (o->shows[i] != FLOOR)
			chain |= 1ull << o->shows[i];
	do {
		before = chain;
		for (unsigned int x = 0; x < o->n; x++)
			if (must_have_happened(o, x, chain))
				chain |= 1ull << x;
	} while (chain != before);
	return chain;
}

/* May x, which covers the sector, have come before the floor that hides it there? Then it lies over no other sector of the same floor. */
static bool hidden_by_floor(const struct order *o, unsigned int x, unsigned int sector)
{
	const struct order_op *op = &o->ops[x];
	const struct cand *floor = &o->s[sector].c[0];

	if (op->c.id > floor->id || !op->c.waited)
		return false;
	for (unsigned int i = 0; i < SEC_PER_4K; i++)
		if (o->shows[i] == (int)x && o->s[i].c[0].id == floor->id)
			return false;
	return true;
}

/* Of the requests that x has to precede in this picture: a bit each. False: it is missing where the floor is shown. */
static bool followers(const struct order *o, unsigned int x, uint64_t chain, uint64_t *after)
{
	const struct order_op *op = &o->ops[x];

	*after = 0;
	for (unsigned int i = 0; i < SEC_PER_4K; i++) {
		if (!(op->at >> i & 1) || o->shows[i] == (int)x)
			continue;
		if (o->shows[i] != FLOOR)
			*after |= 1ull << o->shows[i];
		else if (!hidden_by_floor(o, x, i))
			return false;
	}
	for (unsigned int y = 0; y < o->n; y++)
		if (chain >> y & 1 && y != x && cand_precedes(&op->c, &o->ops[y].c))
			*after |= 1ull << y;
	return true;
}

static bool picture_is_possible(const struct order *o)
{
	uint64_t chain = chain_of(o), after[OPS_AT_BLOCK], left = chain;
	bool any = true;

	for (unsigned int x = 0; x < o->n; x++)
		if (chain >> x & 1 && !followers(o, x, chain, &after[x]))
			return false;
	/* The last ones first. */
	while (left && any) {
		any = false;
		for (unsigned int x = 0; x < o->n; x++)
			if (left >> x & 1 && !(after[x] & left)) {
				left &= ~(1ull << x);
				any = true;
			}
	}
	return !left;
}

/* Zeros may be several requests': all ways to see it are tried. */
static bool seen_some_way(struct order *o, unsigned int sector)
{
	if (sector == SEC_PER_4K)
		return picture_is_possible(o);
	if (holds(&o->s[sector].c[0], o->ver[sector])) {
		o->shows[sector] = FLOOR;
		if (seen_some_way(o, sector + 1))
			return true;
	}
	for (unsigned int x = 0; x < o->n; x++) {
		if (!(o->ops[x].at >> sector & 1) || !holds(&o->ops[x].c, o->ver[sector]))
			continue;
		o->shows[sector] = (int)x;
		if (seen_some_way(o, sector + 1))
			return true;
	}
	return false;
}

bool ref_block_some_order(const struct ref *r, uint64_t block, const int64_t *ver)
{
	struct order o = {.s = &r->s[block * SEC_PER_4K], .ver = ver};
	bool waited = false;

	if (!collect(&o))
		return false;
	for (unsigned int x = 0; x < o.n; x++)
		waited |= o.ops[x].c.waited;
	return waited && seen_some_way(&o, 0);
}
