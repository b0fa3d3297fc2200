/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/model/ref.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int ref_open(struct ref *r, uint32_t salt, uint64_t nsectors)
{
	*r = (struct ref){.salt = salt};
	return ref_grow(r, nsectors);
}

int ref_grow(struct ref *r, uint64_t nsectors)
{
	struct sector *s = realloc(r->s, nsectors * sizeof(*s));

	if (!s)
		return -ENOMEM;
	r->s = s;
	for (uint64_t i = r->nsectors; i < nsectors; i++) {
		s[i].n = 1;
		s[i].unseen = 0;
		s[i].c[0] = (struct cand){.state = CAND_ACKED};
	}
	r->nsectors = nsectors;
	return 0;
}

void ref_close(struct ref *r)
{
	free(r->s);
	*r = (struct ref){0};
}

/* ---- content ------------------------------------------------------------------------------------------------------ */

void sector_fill(uint8_t *p, uint32_t salt, uint64_t sector, uint32_t ver)
{
	uint64_t w[SECTOR / 8];

	if (!ver) {
		memset(p, 0, SECTOR);
		return;
	}
	w[0] = (uint64_t)salt << 32 | ver;
	w[1] = sector;
	for (unsigned int i = 2; i < SECTOR / 8; i++)
		w[i] = w[i - 1] * 6364136223846793005ull + w[0];
	memcpy(p, w, SECTOR);
}

int64_t sector_version(const uint8_t *p, uint32_t salt, uint64_t sector)
{
	uint8_t want[SECTOR];
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	if (w && w >> 32 != salt)
		return -1;
	sector_fill(want, salt, sector, (uint32_t)w);
	return memcmp(p, want, SECTOR) ? -1 : (int64_t)(uint32_t)w;
}

/* ---- what may be there ----------------------------------------------------------------------------------------------- */

bool ref_full(const struct ref *r, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++)
		if (r->s[i].n == CANDS_MAX)
			return true;
	return false;
}

void ref_begin(struct ref *r, uint64_t first, uint64_t n, const struct cand *c)
{
	for (uint64_t i = first; i < first + n; i++)
		r->s[i].c[r->s[i].n++] = *c;
}

void ref_end(struct ref *r, uint64_t first, uint64_t n, uint32_t id, bool acked, uint32_t clock)
{
	for (uint64_t i = first; i < first + n; i++)
		for (unsigned int k = 0; k < r->s[i].n; k++)
			if (r->s[i].c[k].id == id) {
				r->s[i].c[k].state = acked ? CAND_ACKED : CAND_FAILED;
				r->s[i].c[k].acked_at = clock;
				r->s[i].c[k].undecided = false;
			}
}

void ref_waited(struct ref *r, uint64_t first, uint64_t n, uint32_t id)
{
	for (uint64_t i = first; i < first + n; i++)
		for (unsigned int k = 0; k < r->s[i].n; k++)
			r->s[i].c[k].waited |= r->s[i].c[k].id == id;
}

/* The newest that this flush has made certain; 0: none but the floor. What is only kept because it may follow the floor was submitted before it. */
static unsigned int newest_flushed(const struct sector *s, uint32_t clock)
{
	for (unsigned int k = s->n - 1u; k >= 1 && k >= s->unseen; k--)
		if (s->c[k].state == CAND_ACKED && s->c[k].acked_at <= clock &&
			s->c[k].id > s->c[0].id)
			return k;
	return 0;
}

/* Submitted before the new floor, but perhaps later in its effect. */
static bool may_follow(const struct cand *c, const struct cand *floor)
{
	return c->undecided || (c->waited && (!c->acked_at || c->acked_at > floor->began));
}

static void floor_set(struct sector *s, unsigned int k)
{
	struct cand floor = s->c[k];
	unsigned int n = 1;

	for (unsigned int i = 1; i < s->n; i++)
		if (i > k || (i < k && may_follow(&s->c[i], &floor)))
			s->c[n++] = s->c[i];
	s->c[0] = floor;
	s->n = (uint8_t)n;
	s->unseen = 0;
}

void ref_flushed(struct ref *r, uint64_t first, uint64_t n, uint32_t clock)
{
	for (uint64_t i = first; i < first + n; i++) {
		unsigned int k = newest_flushed(&r->s[i], clock);

		if (k)
			floor_set(&r->s[i], k);
	}
}

static unsigned int last_acked(const struct sector *s)
{
	unsigned int k = s->n - 1u;

	while (k > 0 && s->c[k].state != CAND_ACKED)
		k--;
	return k;
}

/* Something acknowledged came after it for certain, and no power was lost since. */
static bool is_superseded(const struct sector *s, unsigned int k)
{
	for (unsigned int j = s->unseen; j < s->n; j++)
		if (j != k && s->c[j].state == CAND_ACKED && cand_precedes(&s->c[k], &s->c[j]))
			return true;
	return false;
}

/* The first that may be there when no power is lost. */
static unsigned int oldest(const struct sector *s)
{
	unsigned int k = 0;

	while (k + 1u < s->n && is_superseded(s, k))
		k++;
	return k;
}

void ref_unseen(struct ref *r, uint64_t first, uint64_t n)
{
	for (uint64_t i = first; i < first + n; i++)
		r->s[i].unseen = r->s[i].n;
}

static bool holds(const struct cand *c, uint32_t ver)
{
	return c->ver == ver || (c->alt && c->alt == ver);
}

bool ref_read(struct ref *r, uint64_t sector, uint32_t ver)
{
	struct sector *s = &r->s[sector];

	for (unsigned int k = oldest(s); k < s->n; k++) {
		if (!holds(&s->c[k], ver) || is_superseded(s, k))
			continue;
		if (s->c[k].state == CAND_ACKED) {
			s->c[k].ver = ver;
			s->c[k].alt = 0;
		}
		return true;
	}
	return false;
}

/*
 * What k wrote is there: but how the block is kept may be another's, without redundancy. A later one had the same content, or was the unprotected write
 * of a new block that left its record and not its data. Or k was protected, and one before it not: it goes to the log and to the data area side by
 * side, and as long as it is not certain its bytes may be in the place of the other alone.
 */
static bool kept_unprotected(const struct sector *s, unsigned int from, unsigned int k)
{
	uint32_t ver = s->c[k].ver;

	for (unsigned int j = from; j < s->n; j++) {
		if (s->c[j].kind != CAND_UNPROTECTED)
			continue;
		if (j < k ? s->c[k].kind == CAND_PROTECTED : !ver || holds(&s->c[j], ver))
			return true;
	}
	return false;
}

bool ref_recovered(struct ref *r, uint64_t sector, uint32_t ver, bool power)
{
	struct sector *s = &r->s[sector];
	unsigned int from = power ? 0 : oldest(s);

	for (unsigned int k = from; k < s->n; k++) {
		if (!holds(&s->c[k], ver) || (!power && is_superseded(s, k)))
			continue;
		s->c[k].ver = ver;
		s->c[k].alt = 0;
		if (kept_unprotected(s, from, k))
			s->c[k].kind = CAND_UNPROTECTED;
		s->c[0] = s->c[k];
		s->c[0].state = CAND_ACKED;
		s->n = 1;
		s->unseen = 0;
		return true;
	}
	return false;
}

/* Is this what the sector has when everything up to request `last` has happened, and nothing after it? */
static bool holds_after(const struct sector *s, uint32_t last, int64_t ver)
{
	for (unsigned int k = s->n - 1u; k > 0; k--) {
		if (s->c[k].id > last)
			continue;
		if (holds(&s->c[k], (uint32_t)ver))
			return true;
		if (s->c[k].state != CAND_FAILED)
			return false;
	}
	return holds(&s->c[0], (uint32_t)ver);
}

static bool block_after(const struct ref *r, uint64_t first, const int64_t *ver, uint32_t last)
{
	for (uint64_t i = 0; i < SEC_PER_4K; i++)
		if (ver[i] < 0 || !holds_after(&r->s[first + i], last, ver[i]))
			return false;
	return true;
}

static bool sector_any(const struct sector *s, int64_t ver)
{
	for (unsigned int k = 0; ver >= 0 && k < s->n; k++)
		if (holds(&s->c[k], (uint32_t)ver))
			return true;
	return false;
}

bool ref_block(const struct ref *r, uint64_t block, const int64_t *ver, bool whole)
{
	uint64_t first = block * SEC_PER_4K;

	for (uint64_t i = 0; !whole && i < SEC_PER_4K; i++)
		if (!sector_any(&r->s[first + i], ver[i]))
			return false;
	if (!whole || block_after(r, first, ver, 0))
		return true;
	for (uint64_t i = first; i < first + SEC_PER_4K; i++)
		for (unsigned int k = 1; k < r->s[i].n; k++)
			if (block_after(r, first, ver, r->s[i].c[k].id))
				return true;
	return ref_block_some_order(r, block, ver);
}

bool ref_unprotected(const struct ref *r, uint64_t sector)
{
	const struct sector *s = &r->s[sector];

	for (unsigned int k = 0; k < s->n; k++)
		if (s->c[k].kind == CAND_UNPROTECTED)
			return true;
	return false;
}

enum cand_kind ref_kind(const struct ref *r, uint64_t sector)
{
	return r->s[sector].c[last_acked(&r->s[sector])].kind;
}

void ref_print(const struct ref *r, uint64_t sector)
{
	static const char *const states[] = {"flying", "acked", "failed"};
	static const char *const kinds[] = {"zero", "protected", "unprotected"};
	const struct sector *s = &r->s[sector];

	for (unsigned int k = 0; k < s->n; k++)
		printf("#   %s op %u version %u%s%s acked at %u\n", states[s->c[k].state],
			s->c[k].id, s->c[k].ver, s->c[k].alt ? " or another, " : " ",
			kinds[s->c[k].kind], s->c[k].acked_at);
}
