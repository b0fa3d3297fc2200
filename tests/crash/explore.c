/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * States: made, recovered, compared; then the recovery itself (and a little life after it) is cut, up to DEPTH_MAX deep.
 *
 *	stage 0: the workload's journal, cut at some entry ─▶ contents ─▶ recovery, reading everything, some writes ─▶ its journal
 *	stage 1: that journal, cut ─▶ ...
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "tests/crash/world.h"

#define LATER_MAX 4u
#define MEDIA     (-1) /* value of a sector that could not be read: its only place is away */

/* A write (FUA) or trim in the life after a recovery. */
struct later {
	uint32_t vol, ver;
	uint64_t first, n;
	size_t began, acked; /* entries of the stage's journal */
	bool unprotected, ok;
};

struct stage {
	struct image cut; /* what the power cut left */
	struct image view; /* and what was written on it since */
	struct journal j;
	size_t cut_at; /* entry of the journal of the stage before (0: of the workload) */
	size_t opened, end;
	uint64_t missing;
	uint32_t present; /* volumes that were there after the recovery */
	int64_t val[VOLS_EVER][VOL_BLOCKS * SEC_PER_4K];
	struct later later[LATER_MAX];
	unsigned int nlater;
};

struct explorer {
	struct world *w;
	struct card card;
	struct replay main;
	unsigned int depth;
	uint32_t vers;
	struct stage st[DEPTH_MAX];
};

/* ---- what may be there ------------------------------------------------------------------------------------------------- */

/* Is the sector decided by what stage d knew (*ok), or by what came before it? */
static bool decided(
	const struct explorer *x, unsigned int d, uint32_t vol, uint64_t sec, int64_t ver, bool *ok)
{
	const struct stage *s = &x->st[d];
	size_t cut = x->st[d + 1].cut_at;
	bool known = s->val[vol][sec] != MEDIA;

	*ok = known && s->val[vol][sec] == ver;
	for (unsigned int i = 0; i < s->nlater; i++) {
		const struct later *l = &s->later[i];

		if (l->vol != vol || sec < l->first || sec >= l->first + l->n || l->began >= cut)
			continue;
		if (l->ok && l->acked < cut) {
			*ok = ver == l->ver;
			known = true;
		} else {
			*ok |= ver == l->ver;
		}
	}
	return known || *ok;
}

static bool may_hold(const struct explorer *x, uint32_t vol, uint64_t sec, int64_t ver)
{
	const struct sector *s = &x->w->vols[vol].ref.s[sec];
	bool ok;

	for (unsigned int d = x->depth; d > 0; d--)
		if (x->st[d].cut_at >= x->st[d - 1].opened && decided(x, d - 1, vol, sec, ver, &ok))
			return ok;
	for (unsigned int k = 0; k < s->n; k++)
		if (s->c[k].ver == ver)
			return true;
	return false;
}

/* A block that was unprotected at any time since it was certain may be lost with the device of its area. */
static bool media_excused(const struct explorer *x, uint32_t vol, uint64_t block)
{
	const struct lvol *v = &x->w->vols[vol];
	bool unprotected = false;

	if (!(v->area_devs & x->st[x->depth].missing))
		return false;
	for (uint64_t i = block * SEC_PER_4K; i < (block + 1) * SEC_PER_4K; i++)
		unprotected |= ref_unprotected(&v->ref, i);
	for (unsigned int d = 0; d < x->depth; d++) {
		const struct stage *s = &x->st[d];
		size_t cut = x->st[d + 1].cut_at;

		for (unsigned int i = 0; i < s->nlater; i++) {
			const struct later *l = &s->later[i];

			if (l->vol != vol || l->first > block * SEC_PER_4K ||
				block * SEC_PER_4K >= l->first + l->n || l->began >= cut)
				continue;
			if (l->unprotected)
				unprotected = true;
			else if (l->ok && l->acked < cut)
				unprotected = false;
		}
	}
	return unprotected;
}

/* ---- looking ------------------------------------------------------------------------------------------------------------- */

struct one {
	struct io_req req;
	struct iovec iov;
	bool done;
};

static void one_done(struct io_req *req)
{
	container_of(req, struct one, req)->done = true;
}

static bool one_is_done(void *arg)
{
	return ((struct one *)arg)->done;
}

static enum io_status run_one(struct explorer *x, struct volume *v, struct one *o)
{
	int rc;

	o->req.vol = v;
	o->req.vm = 1;
	o->req.iov = &o->iov;
	o->req.niov = 1;
	o->req.stable = true;
	o->req.done_fn = one_done;
	o->iov = (struct iovec){x->w->buf, o->req.len_bytes};
	rc = volume_submit(v, &o->req);
	if (rc == 0)
		rc = shard_wait(x->card.sh, one_is_done, o, 3600ull * 1000000000ull);
	if (rc < 0)
		fail(x->w, "a %s of the recovered store does not end: %d", io_op_name(o->req.op),
			rc);
	return o->req.status;
}

static void check_piece(
	struct explorer *x, struct volume *v, uint32_t vol, uint64_t block, uint64_t n)
{
	struct one o = {.req = {.op = IO_READ, .off_bytes = block * 4096, .len_bytes = n * 4096}};
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	enum io_status status = run_one(x, v, &o);

	w->t->reads++;
	if (status == IO_ERR_MEDIA && n > 1) {
		for (uint64_t i = 0; i < n; i++)
			check_piece(x, v, vol, block + i, 1);
		return;
	}
	if (status == IO_ERR_MEDIA && media_excused(x, vol, block)) {
		for (uint64_t i = 0; i < SEC_PER_4K; i++)
			s->val[vol][block * SEC_PER_4K + i] = MEDIA;
		w->t->excused++;
		return;
	}
	if (status != IO_OK) {
		ref_print(&w->vols[vol].ref, block * SEC_PER_4K);
		fail(w, "vol%u: blocks %llu+%llu cannot be read: %s", vol,
			(unsigned long long)block, (unsigned long long)n, io_status_name(status));
	}
	for (uint64_t i = 0; i < n * SEC_PER_4K; i++) {
		uint64_t sec = block * SEC_PER_4K + i;
		int64_t ver = sector_version(w->buf + i * SECTOR, w->vols[vol].ref.salt, sec);

		s->val[vol][sec] = ver;
		if (ver >= 0 && may_hold(x, vol, sec, ver))
			continue;
		ref_print(&w->vols[vol].ref, sec);
		for (unsigned int d = 0; d < x->depth; d++)
			printf("#   after recovery %u it was %lld\n", d + 1,
				(long long)x->st[d].val[vol][sec]);
		fail(w, "vol%u: sector %llu has %s %lld", vol, (unsigned long long)sec,
			ver < 0 ? "bytes that were never written there:" : "version",
			(long long)ver);
	}
}

static bool may_exist(const struct explorer *x, uint32_t vol, bool is)
{
	for (unsigned int d = x->depth; d > 0; d--)
		if (x->st[d].cut_at >= x->st[d - 1].opened)
			return (x->st[d - 1].present >> vol & 1) == is;
	switch (x->w->vols[vol].life) {
	case VOL_LIVE:
		return is;
	case VOL_CREATING:
	case VOL_DELETING:
		return true;
	default:
		return !is;
	}
}

static void check_all(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	unsigned int found = 0, all = 0;

	s->present = 0;
	for (struct volume *v = volume_first(x->card.store); v; v = volume_next(v))
		all++;
	for (uint32_t i = 0; i < w->nvols; i++) {
		struct volume *v = volume_find(x->card.store, w->vols[i].cfg.name);
		uint64_t blocks = w->vols[i].cfg.size_bytes / 4096;

		if (!may_exist(x, i, v != NULL))
			fail(w, "vol%u %s", i, v ? "is there, but was deleted" : "is gone");
		if (!v)
			continue;
		found++;
		s->present |= 1u << i;
		if (volume_cfg(v)->size_bytes != w->vols[i].cfg.size_bytes)
			fail(w, "vol%u came back with another size", i);
		check_piece(x, v, i, 0, blocks);
	}
	if (all != found)
		fail(w, "%u volumes came back, %u of them are known", all, found);
}

/* ---- life after a recovery --------------------------------------------------------------------------------------------------- */

static void live_on(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	uint32_t vol = (uint32_t)rnd(w, w->nvols);
	struct volume *v = volume_find(x->card.store, w->vols[vol].cfg.name);
	struct later *l = &s->later[s->nlater];
	uint64_t blocks, block, n;
	struct one o = {.req = {.op = IO_WRITE, .flags = IO_FUA, .outcome = IO_PROTECT}};
	enum io_status status;

	if (!v)
		return;
	blocks = w->vols[vol].cfg.size_bytes / 4096;
	block = rnd(w, MIN(blocks, 8));
	n = 1 + rnd(w, MIN(blocks - block, 6));
	*l = (struct later){.vol = vol, .first = block * SEC_PER_4K, .n = n * SEC_PER_4K};
	if (one_in(w, 4)) {
		o.req.op = IO_TRIM;
	} else {
		l->ver = ++x->vers;
		l->unprotected = one_in(w, 4) && !(w->vols[vol].area_devs & s->missing);
		o.req.outcome = l->unprotected ? IO_PLAIN : IO_PROTECT;
		for (uint64_t i = 0; i < l->n; i++)
			sector_fill(
				w->buf + i * SECTOR, w->vols[vol].ref.salt, l->first + i, l->ver);
	}
	o.req.off_bytes = block * 4096;
	o.req.len_bytes = n * 4096;
	l->began = s->j.n;
	s->nlater++;
	status = run_one(x, v, &o);
	l->acked = s->j.n;
	l->ok = status == IO_OK;
	if (!l->ok && status != IO_ERR_NO_SPACE)
		fail(w, "after recovery a %s ended with %s", io_op_name(o.req.op),
			io_status_name(status));
}

/* ---- states ---------------------------------------------------------------------------------------------------------------------- */

static uint64_t pick_missing(struct world *w)
{
	uint64_t mask = 0;

	if (one_in(w, 3))
		return 0;
	for (uint64_t i = 0, n = 1 + rnd(w, w->m); i < n; i++)
		mask |= 1ull << rnd(w, w->ndevs);
	return mask;
}

static void count_pending(struct world *w, const struct replay *r)
{
	static const uint8_t of[] = {[CLASS_SUPERBLOCK] = C_SUPERBLOCK,
		[CLASS_SEGMENT] = C_SEGMENT,
		[CLASS_APPEND] = C_APPEND,
		[CLASS_RECORD] = C_RECORD,
		[CLASS_AREA] = C_AREA,
		[CLASS_ZERO] = C_ZERO};
	uint32_t seen = 0;

	for (size_t i = 0; i < r->npend; i++)
		seen |= 1u << of[r->j->ev[r->pend[i].ev].class];
	for (unsigned int c = 0; c < COUNTERS; c++)
		w->t->kinds[c] += seen >> c & 1;
}

/*
 * A recovery that was cut while it raised the epoch leaves some devices with an epoch of its own. If they are away for the next recovery,
 * which takes the same number, they come back as if another owner had used them: the pool asks to be opened without them. So it is,
 * as long as that is not more than may be lost.
 */
static bool start_card(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	bool may_refuse = x->depth >= 2;

	for (;;) {
		journal_clear(&s->j);
		image_reset(&s->view, &s->cut);
		w->depth = x->depth;
		w->missing = s->missing;
		if (card_up(w, &x->card, &s->view, &s->j, s->missing, false, may_refuse) == 0)
			return true;
		w->t->refused++;
		s->missing |= x->st[x->depth - 1].missing;
		if ((unsigned int)__builtin_popcountll(s->missing) > w->m)
			return false;
		may_refuse = false;
	}
}

static bool recover(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	struct store_stats st;
	struct volume *v;

	w->state++;
	s->nlater = 0;
	if (!start_card(x))
		return false;
	w->t->states++;
	w->t->kinds[C_DEV_LOSS] += s->missing != 0;
	s->opened = s->j.n;
	check_all(x);
	for (uint64_t i = rnd(w, 3) ? rnd(w, LATER_MAX + 1) : 0; i; i--)
		live_on(x);
	s->end = s->j.n;
	store_stats(x->card.store, &st);
	w->t->reappended += st.recovery_reappended;
	for (v = volume_first(x->card.store); v; v = volume_next(v)) {
		struct volume_stats vs;

		volume_stats(v, &vs);
		w->t->decoded += vs.from_decode;
	}
	card_down(&x->card);
	return true;
}

static void nested(struct explorer *x)
{
	struct stage *s = &x->st[x->depth], *next = s + 1;
	struct world *w = x->w;
	struct replay r;

	if (one_in(w, 2))
		next->cut_at = rnd(w, s->opened + 1);
	else
		next->cut_at = s->opened + rnd(w, s->end - s->opened + 1);
	next->missing = pick_missing(w);
	image_reset(&next->cut, &s->cut);
	replay_begin(&r, &s->j, &next->cut, w->volatile_cache);
	while (r.at < next->cut_at)
		replay_step(&r);
	count_pending(w, &r);
	w->t->kinds[next->cut_at < s->opened ? C_RECOVERY : C_AFTER]++;
	w->t->kinds[C_DEV_RETURN] += (s->missing & ~next->missing) != 0;
	replay_cut(&r, &next->cut, (enum fate_mode)rnd(w, FATE_MODES), world_unit(w), &w->rng);
	replay_end(&r);
	x->depth++;
	if (recover(x) && x->depth + 1 < DEPTH_MAX && one_in(w, 2))
		nested(x);
	x->depth--;
}

static void state(struct explorer *x)
{
	struct stage *s = &x->st[0];
	struct world *w = x->w;

	x->depth = 0;
	image_reset(&s->cut, &w->base);
	count_pending(w, &x->main);
	replay_cut(&x->main, &s->cut, (enum fate_mode)rnd(w, FATE_MODES), world_unit(w), &w->rng);
	s->missing = pick_missing(w);
	w->t->kinds[C_FLIP] += w->in_flight_flips != 0;
	w->t->kinds[C_TRIM] += w->in_flight_trims != 0;
	w->t->kinds[C_VOLUME] += w->in_flight_vols != 0;
	w->t->kinds[C_FLUSH] += w->in_flight_flushes != 0;
	recover(x);
	for (uint64_t n = rnd(w, 3); n; n--)
		nested(x);
}

void explore(struct world *w, uint64_t states, uint64_t enough)
{
	struct explorer *x = calloc(1, sizeof(*x));
	uint64_t span = w->j.n - w->first_cut + 1;

	if (!x)
		fail(w, "no memory");
	x->w = w;
	x->vers = 1u << 24; /* apart from the workload's */
	for (unsigned int d = 0; d < DEPTH_MAX; d++)
		if (image_open(&x->st[d].cut, NULL, w->ndevs, w->dev_bytes) < 0 ||
			image_open(&x->st[d].view, NULL, w->ndevs, w->dev_bytes) < 0)
			fail(w, "no memory");
	ledger_begin(w);
	replay_begin(&x->main, &w->j, &w->base, w->volatile_cache);
	for (;;) {
		if (x->main.at >= w->first_cut && rnd(w, span) < states && w->t->states < enough)
			state(x);
		if (x->main.at == w->j.n)
			break;
		ledger_event(w, &w->j.ev[x->main.at]);
		replay_step(&x->main);
	}
	replay_end(&x->main);
	ledger_end(w);
	for (unsigned int d = 0; d < DEPTH_MAX; d++) {
		journal_clear(&x->st[d].j);
		image_close(&x->st[d].cut);
		image_close(&x->st[d].view);
	}
	free(x);
}
