/* SPDX-License-Identifier: BSD-3-Clause */
/* What had been asked for and promised when the power went. */
#include <string.h>

#include "common/base/util.h"
#include "dpu/stripelog/format.h"
#include "tests/crash/world.h"

void ledger_begin(struct world *w)
{
	w->clock = 0;
	w->lost = w->thin = w->ever_lost = 0;
	memset(w->in_flight, 0, sizeof(w->in_flight));
	for (unsigned int i = 0; i < w->nops; i++)
		w->ops[i].flying = false;
	for (unsigned int i = 0; i < w->nvols; i++) {
		struct lvol *v = &w->vols[i];

		v->life = VOL_NOT_YET;
		v->size_bytes = v->next_bytes = v->cfg.size_bytes;
		if (ref_open(&v->ref, i + 1, v->cfg.size_bytes / SECTOR) < 0)
			fail(w, "no memory");
	}
}

void ledger_end(struct world *w)
{
	for (unsigned int i = 0; i < w->nvols; i++)
		ref_close(&w->vols[i].ref);
}

static void count(struct world *w, const struct wop *o, uint32_t by)
{
	w->in_flight[C_FLIP] += o->flip ? by : 0;
	w->in_flight[C_TRIM] += o->op == IO_TRIM || o->op == IO_WRITE_ZEROES ? by : 0;
	w->in_flight[C_FLUSH] += o->op == IO_FLUSH ? by : 0;
}

static void begin(struct world *w, uint32_t id)
{
	struct wop *o = &w->ops[id];
	struct ref *r = &w->vols[o->vol].ref;
	struct cand c = {.id = id + 1,
		.ver = o->ver,
		.state = CAND_FLYING,
		.began = w->clock,
		.waited = o->waited};
	uint64_t end = o->off_bytes + o->len_bytes;

	o->began = w->clock;
	o->flying = true;
	count(w, o, 1);
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

/* Unprotected blocks whose device is gone are as it left them, whatever is flushed after a restart without it. */
static void flushed(struct world *w, const struct wop *o)
{
	struct lvol *v = &w->vols[o->vol];

	if (!(card_area_devs(w, o->vol) & w->lost)) {
		ref_flushed(&v->ref, 0, v->ref.nsectors, o->began);
		return;
	}
	for (uint64_t i = 0; i < v->ref.nsectors; i++)
		if (!ref_unprotected(&v->ref, i))
			ref_flushed(&v->ref, i, 1, o->began);
}

static void end(struct world *w, uint32_t id, bool ok)
{
	struct wop *o = &w->ops[id];
	struct ref *r = &w->vols[o->vol].ref;

	o->flying = false;
	count(w, o, (uint32_t)-1);
	if (o->op == IO_FLUSH) {
		if (ok)
			flushed(w, o);
		return;
	}
	ref_end(r, o->first, o->n, id + 1, ok, ++w->clock);
	if (ok && o->flags & IO_FUA)
		ref_flushed(r, o->first, o->n, w->clock);
}

/* The new blocks are zeros whether or not it has happened: nobody can have written there before it did. */
static void grow(struct world *w, const struct new_size *s, bool done)
{
	struct lvol *v = &w->vols[s->vol];

	v->next_bytes = s->bytes;
	if (done)
		v->size_bytes = s->bytes;
	else if (ref_grow(&v->ref, s->bytes / SECTOR) < 0)
		fail(w, "no memory");
}

static bool is_asked_for(const struct world *w, const struct stripe_extent *x)
{
	for (unsigned int i = 0; i < w->nops; i++) {
		const struct wop *o = &w->ops[i];
		uint64_t first = o->off_bytes / 4096,
			 end = DIV_ROUND_UP(o->off_bytes + o->len_bytes, 4096);

		if (o->flying && o->vol + 1 == x->volume && o->op != IO_FLUSH &&
			first < x->block + x->nblocks && x->block < end)
			return true;
	}
	return false;
}

/* An append of blocks that no request in flight is about is the mover's. */
static bool is_moved(const struct world *w, const struct event *e)
{
	struct log_identity id;
	struct frag_hdr h;
	uint32_t need;

	memcpy(id.uuid, e->data + offsetof(struct frag_disk, pool_uuid), sizeof(id.uuid));
	memcpy(id.key, e->data + offsetof(struct frag_disk, key), sizeof(id.key));
	if (frag_hdr_parse(&id, e->data, e->len, &h, &need) < 0)
		return false;
	for (uint32_t i = 0; i < h.nextents; i++) {
		struct stripe_extent x = frag_hdr_extent(&h, i);

		if (is_asked_for(w, &x))
			return false;
	}
	return true;
}

static void user_event(struct world *w, const struct event *e)
{
	static const uint8_t lives[USER_EVENTS] = {[USER_CREATE] = VOL_CREATING,
		[USER_CREATED] = VOL_LIVE,
		[USER_DELETE] = VOL_DELETING,
		[USER_DELETED] = VOL_GONE};

	switch (e->user) {
	case USER_BEGIN:
		begin(w, e->id);
		break;
	case USER_ACK:
	case USER_FAIL:
		end(w, e->id, e->user == USER_ACK);
		break;
	case USER_GROW:
	case USER_GROWN:
		grow(w, &w->sizes[e->id], e->user == USER_GROWN);
		w->in_flight[C_VOLUME] = e->user == USER_GROW;
		break;
	case USER_DEV_LOST:
		w->lost |= 1ull << e->id;
		w->thin |= 1ull << e->id;
		w->ever_lost |= 1ull << e->id;
		break;
	case USER_DEV_BACK:
		w->lost &= ~(1ull << e->id);
		break;
	case USER_DEVS_WHOLE:
		w->thin = 0;
		break;
	default:
		w->vols[e->id].life = lives[e->user];
		w->in_flight[C_VOLUME] = e->user == USER_CREATE || e->user == USER_DELETE;
		break;
	}
}

void ledger_event(struct world *w, struct event *e)
{
	if (e->kind == EV_USER)
		user_event(w, e);
	else if (e->kind == EV_WRITE && e->class == CLASS_APPEND && is_moved(w, e))
		e->class = CLASS_MOVED;
}
