/* SPDX-License-Identifier: BSD-3-Clause */
/* What had been asked for and promised when the power went. */
#include "common/base/util.h"
#include "tests/crash/world.h"

void ledger_begin(struct world *w)
{
	w->clock = 0;
	w->in_flight_flips = w->in_flight_trims = w->in_flight_vols = w->in_flight_flushes = 0;
	for (unsigned int i = 0; i < w->nvols; i++) {
		struct lvol *v = &w->vols[i];

		v->life = VOL_NOT_YET;
		if (ref_open(&v->ref, i + 1, v->cfg.size_bytes / SECTOR) < 0)
			fail(w, "no memory");
	}
}

void ledger_end(struct world *w)
{
	for (unsigned int i = 0; i < w->nvols; i++)
		ref_close(&w->vols[i].ref);
}

static void begin(struct world *w, uint32_t id)
{
	struct wop *o = &w->ops[id];
	struct ref *r = &w->vols[o->vol].ref;
	struct cand c = {.id = id + 1, .ver = o->ver, .state = CAND_FLYING};
	uint64_t end = o->off_bytes + o->len_bytes;

	o->began = w->clock;
	w->in_flight_flips += o->flip;
	w->in_flight_trims += o->op == IO_TRIM || o->op == IO_WRITE_ZEROES;
	w->in_flight_flushes += o->op == IO_FLUSH;
	if (ref_full(r, o->first, o->n))
		fail(w, "the explorer's own ledger is too small");
	for (uint64_t i = o->first; i < o->first + o->n; i++) {
		/* The cut blocks of write zeroes stay where they were. */
		bool cut = i < DIV_ROUND_UP(o->off_bytes, 4096) * SEC_PER_4K ||
			   i >= end / 4096 * SEC_PER_4K;

		if (o->op == IO_WRITE)
			c.kind = o->outcome == IO_PROTECT ? CAND_PROTECTED : CAND_UNPROTECTED;
		else
			c.kind = cut && ref_unprotected(r, i) ? CAND_UNPROTECTED : CAND_ZERO;
		ref_begin(r, i, 1, &c);
	}
}

static void end(struct world *w, uint32_t id, bool ok)
{
	const struct wop *o = &w->ops[id];
	struct ref *r = &w->vols[o->vol].ref;

	w->in_flight_flips -= o->flip;
	w->in_flight_trims -= o->op == IO_TRIM || o->op == IO_WRITE_ZEROES;
	w->in_flight_flushes -= o->op == IO_FLUSH;
	if (o->op == IO_FLUSH) {
		if (ok)
			ref_flushed(r, 0, r->nsectors, o->began);
		return;
	}
	ref_end(r, o->first, o->n, id + 1, ok, ++w->clock);
	if (ok && o->flags & IO_FUA)
		ref_flushed(r, o->first, o->n, w->clock);
}

void ledger_event(struct world *w, const struct event *e)
{
	static const uint8_t lives[] = {[USER_CREATE] = VOL_CREATING,
		[USER_CREATED] = VOL_LIVE,
		[USER_DELETE] = VOL_DELETING,
		[USER_DELETED] = VOL_GONE};

	if (e->kind != EV_USER)
		return;
	switch (e->user) {
	case USER_BEGIN:
		begin(w, e->id);
		break;
	case USER_ACK:
	case USER_FAIL:
		end(w, e->id, e->user == USER_ACK);
		break;
	default:
		w->vols[e->id].life = lives[e->user];
		w->in_flight_vols = e->user == USER_CREATE || e->user == USER_DELETE;
		break;
	}
}
