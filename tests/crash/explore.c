/* SPDX-License-Identifier: BSD-3-Clause */
/* States: made, recovered, compared; then the recovery itself (and a little life after it) is cut, up to DEPTH_MAX deep. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "tests/crash/world.h"

#define MOVER_WEIGHT 8u
#define ROOT_WEIGHT  8u

/* ---- life after a recovery --------------------------------------------------------------------------------------------------- */

/* Too few devices that take new data, and a pool that refuses then: one that is being emptied may have been lost with the rest. */
static bool may_refuse(const struct explorer *x)
{
	const struct pool *p = store_pool(x->card.store);
	unsigned int n = 0;

	for (unsigned int d = 0; d < pool_ndevs(p); d++)
		n += pool_dev_placeable(p, d);
	return x->w->pool_cfg.on_degraded == POOL_DEGRADED_REFUSE && n < x->w->m + 2;
}

/* Half of the time the one that was looked at last: what that found wrong in its data area is being put right now. */
static uint32_t pick_volume(struct explorer *x)
{
	struct world *w = x->w;
	uint32_t present = x->st[x->depth].present;

	if (present && one_in(w, 2))
		return 31u - (uint32_t)__builtin_clz(present);
	return (uint32_t)rnd(w, w->nvols);
}

/* What was just acknowledged is what is there. */
static void read_back(struct explorer *x, struct volume *v, const struct later *l)
{
	struct one o = {
		.req = {.op = IO_READ, .off_bytes = l->first * SECTOR, .len_bytes = l->n * SECTOR}};
	enum io_status status = run_one(x, v, &o);

	if (status != IO_OK)
		fail(x->w, "after recovery sectors %llu+%llu of vol%u cannot be read back: %s",
			(unsigned long long)l->first, (unsigned long long)l->n, l->vol,
			io_status_name(status));
	for (uint64_t i = 0; i < l->n; i++) {
		int64_t ver = sector_version(
			x->w->buf + i * SECTOR, x->w->vols[l->vol].ref.salt, l->first + i);

		if (ver != (int64_t)l->ver)
			fail(x->w,
				"after recovery sector %llu of vol%u was written: version %u; it "
				"has %lld",
				(unsigned long long)(l->first + i), l->vol, l->ver, (long long)ver);
	}
}

static void write_on(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	uint32_t vol = pick_volume(x);
	struct volume *v = volume_find(x->card.store, w->vols[vol].cfg.name);
	struct later *l = &s->later[s->nlater];
	uint64_t blocks, block, n;
	struct one o = {.req = {.op = IO_WRITE, .flags = IO_FUA, .outcome = IO_PROTECT}};
	enum io_status status;

	if (!v)
		return;
	blocks = volume_cfg(v)->size_bytes / 4096;
	block = rnd(w, MIN(blocks, 8));
	n = 1 + rnd(w, MIN(blocks - block, 6));
	*l = (struct later){.vol = vol, .first = block * SEC_PER_4K, .n = n * SEC_PER_4K};
	if (one_in(w, 4)) {
		o.req.op = IO_TRIM;
	} else {
		l->ver = ++x->vers;
		/* One that the pool gave up stays so, made whole elsewhere or not, until somebody puts it back. */
		l->unprotected = one_in(w, 3) &&
				 !(card_area_devs(w, vol) & (s->missing | w->lost | w->thin));
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
	if (!l->ok && status != IO_ERR_NO_SPACE && !(status == IO_ERR_RETRY && may_refuse(x))) {
		for (unsigned int d = 0; d < pool_ndevs(store_pool(x->card.store)); d++)
			printf("#  device %u is %s\n", d,
				pool_dev_state_name(pool_dev(store_pool(x->card.store), d)->state));
		fail(w, "after recovery a %s %s of blocks %llu+%llu of vol%u ended with %s",
			l->unprotected ? "plain" : "protected", io_op_name(o.req.op),
			(unsigned long long)block, (unsigned long long)n, vol,
			io_status_name(status));
	}
	if (l->ok && one_in(w, 2))
		read_back(x, v, l);
}

static bool is_at_rest(void *arg)
{
	const struct card *c = arg;

	return !c->checkpointing && card_jobs_rest(c);
}

/* A checkpoint, a job of the mover, or both, to the end or not; what is appended meanwhile is the mover's. */
static void move_on(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	size_t from = s->j.n;

	if (one_in(w, 2))
		card_checkpoint(w, &x->card);
	if (one_in(w, 2))
		card_job(w, &x->card, s->missing);
	shard_wait(x->card.sh, is_at_rest, &x->card, 1 + rnd(w, 3) * 500000000ull);
	for (; from < s->j.n; from++)
		if (s->j.ev[from].class == CLASS_APPEND && s->j.ev[from].kind == EV_WRITE)
			s->j.ev[from].class = CLASS_MOVED;
}

static void live_on(struct explorer *x)
{
	for (uint64_t i = rnd(x->w, 3) ? rnd(x->w, LATER_MAX + 1) : 0; i; i--)
		if (one_in(x->w, 3))
			move_on(x);
		else
			write_on(x);
}

/* ---- states ---------------------------------------------------------------------------------------------------------------------- */

static unsigned int popcount(uint64_t x)
{
	return (unsigned int)__builtin_popcountll(x);
}

/* What the workload has lost already, and was not made whole since, counts as lost whether it is there or not. */
static uint64_t pick_missing(struct world *w)
{
	uint64_t mask = one_in(w, 2) ? w->lost : 0;

	if (one_in(w, 3))
		return mask;
	for (uint64_t i = 0, n = 1 + rnd(w, w->m); i < n; i++) {
		uint64_t more = mask | 1ull << rnd(w, w->ndevs);

		if (popcount(more | w->thin | w->empties) <= w->m)
			mask = more;
	}
	return mask;
}

static unsigned int pending(const struct replay *r, enum ev_class class)
{
	unsigned int n = 0;

	for (size_t i = 0; i < r->npend; i++)
		n += !r->pend[i].durable && r->j->ev[r->pend[i].ev].class == class;
	return n;
}

/* What becomes of what is in flight, and which devices are away for the next opening. Half of the time what is worst for it: roots torn on all devices,
 * records that only those have that are away. back: those of the opening before come back now, more often than not. */
static void pick_cut(struct world *w, struct stage *s, const struct replay *r, bool back)
{
	s->fates = (enum fate_mode)rnd(w, FATE_MODES);
	if (one_in(w, 2) && pending(r, CLASS_ROOT))
		s->fates = FATES_ALL_TORN;
	else if (one_in(w, 2) && pending(r, CLASS_RECORD))
		s->fates = FATES_UNSEEN;
	s->missing = back && one_in(w, 2) ? 0 : pick_missing(w);
	for (unsigned int i = 0; i < 4 && s->fates == FATES_UNSEEN && !s->missing; i++)
		s->missing = pick_missing(w);
	replay_cut(r, &s->cut, s->fates, s->missing, world_unit(w), &w->rng);
}

static void count_pending(struct world *w, const struct replay *r)
{
	static const uint8_t of[CLASSES] = {[CLASS_SUPERBLOCK] = C_SUPERBLOCK,
		[CLASS_ROOT] = C_ROOT,
		[CLASS_CHUNK] = C_CHUNK,
		[CLASS_SEGMENT] = C_SEGMENT,
		[CLASS_REUSE] = C_REUSE,
		[CLASS_APPEND] = C_APPEND,
		[CLASS_MOVED] = C_MOVER,
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
 * as long as that is not more than may be lost. Nothing else is a reason to refuse.
 */
static bool start_card(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	uint64_t back = x->depth ? s[-1].missing & ~s->missing : 0;

	for (;;) {
		journal_clear(&s->j);
		image_reset(&s->view, &s->cut);
		w->depth = x->depth;
		w->missing = s->missing;
		if (card_up(w, &x->card, &s->view, &s->j, s->missing, false, back != 0) == 0)
			return true;
		w->t->refused++;
		s->missing |= back;
		back = 0;
		if (popcount(s->missing | w->thin | w->empties) > w->m)
			return false;
	}
}

static const char *const fate_names[FATE_MODES] = {"all of it there", "nothing there",
	"any of it there", "torn", "torn everywhere", "by device",
	"on devices that are away alone"};

static bool is_quiet(void *arg)
{
	const struct card *c = arg;
	struct store_stats st;

	store_stats(c->store, &st);
	return !c->checkpointing && !st.requests_in_flight;
}

static bool recover(struct explorer *x)
{
	struct stage *s = &x->st[x->depth];
	struct world *w = x->w;
	struct store_stats st;
	struct volume *v;

	w->state++;
	s->nlater = 0;
	snprintf(w->trail[x->depth], sizeof(w->trail[0]),
		"cut at entry %zu of %zu%s, %s, without devices %llx", s->cut_at,
		x->depth ? s[-1].j.n : w->j.n,
		!x->depth                  ? ""
		: s->cut_at < s[-1].opened ? " (in the recovery)"
					   : " (after it)",
		fate_names[s->fates], (unsigned long long)s->missing);
	if (!start_card(x))
		return false;
	w->t->states++;
	w->t->kinds[C_DEV_LOSS] += s->missing != 0;
	s->opened = s->j.n;
	verify_structure(x);
	card_mover_up(w, &x->card);
	verify_all(x);
	live_on(x);
	s->end = s->j.n;
	store_stats(x->card.store, &st);
	w->t->reappended += st.recovery_reappended;
	w->t->loaded += st.recovery_entries != 0;
	for (v = volume_first(x->card.store); v; v = volume_next(v)) {
		struct volume_stats vs;

		volume_stats(v, &vs);
		w->t->decoded += vs.from_decode;
	}
	card_mover_down(&x->card);
	if (one_in(w, 4) && shard_wait(x->card.sh, is_quiet, &x->card, 60000000000ull) == 0)
		verify_structure(x);
	card_down(&x->card);
	return true;
}

static void nested(struct explorer *x)
{
	struct stage *s = &x->st[x->depth], *next = s + 1;
	struct world *w = x->w;
	struct replay r;

	/* What nobody saw is at its worst when this recovery does not get to its verdict. */
	if (s->fates == FATES_UNSEEN ? !one_in(w, 4) : one_in(w, 2))
		next->cut_at = rnd(w, s->opened + 1);
	else
		next->cut_at = s->opened + rnd(w, s->end - s->opened + 1);
	image_reset(&next->cut, &s->cut);
	replay_begin(&r, &s->j, &next->cut, w->volatile_cache);
	while (r.at < next->cut_at)
		replay_step(&r);
	count_pending(w, &r);
	w->t->kinds[next->cut_at < s->opened ? C_RECOVERY : C_AFTER]++;
	pick_cut(w, next, &r, s->fates == FATES_UNSEEN);
	w->t->kinds[C_DEV_RETURN] += (s->missing & ~next->missing) != 0;
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
	w->roams = w->roamed;
	w->empties = w->emptied;
	s->cut_at = x->main.at;
	image_reset(&s->cut, &w->base);
	count_pending(w, &x->main);
	pick_cut(w, s, &x->main, false);
	for (unsigned int c = 0; c < COUNTERS; c++)
		w->t->kinds[c] += w->in_flight[c] != 0;
	w->t->kinds[C_DEGRADED] += w->lost != 0;
	w->t->kinds[C_DEV_RETURN] += (w->lost & ~s->missing) != 0;
	recover(x);
	for (uint64_t n = rnd(w, 3) + (s->fates == FATES_UNSEEN); n; n--)
		nested(x);
}

/* While the mover appends, or no device has a new root for certain: rare, so that these entries are chosen more often. */
static uint64_t weight(const struct world *w, const struct replay *r)
{
	if (pending(r, CLASS_ROOT) >= w->ndevs - w->m)
		return ROOT_WEIGHT;
	return pending(r, CLASS_MOVED) ? MOVER_WEIGHT : 1;
}

void explore(struct world *w, uint64_t states, bool every, uint64_t enough)
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
		if (x->main.at >= w->first_cut &&
			(every || rnd(w, span) < states * weight(w, &x->main)) &&
			w->t->states < enough)
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
