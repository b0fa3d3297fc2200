/* SPDX-License-Identifier: BSD-3-Clause */
/* The workload: random, seeded, run once; the journal has what it asked for and what it was told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/move.h"
#include "tests/crash/world.h"

#define FLIGHT        8u
#define OPS_UNFLUSHED (CANDS_MAX - FLIGHT - 3u) /* of a volume; more would not fit the ledger */
#define STREAMS       2u
#define NO_VOLUME     UINT32_MAX
#define STILL_ONE_IN \
	3u /* worlds that have one; all of those where a device writes 512 bytes atomically */
#define STILL_CKPT 10u /* steps there from one checkpoint to the next, besides those of the mix */

const char *const profile_names[PROFILES] = {
	"random", "sequential", "overlapping", "trims", "policy flips", "fill", "devices"};

struct wreq {
	struct io_req req;
	struct iovec iov;
	struct work *wk;
	uint32_t op; /* number in the journal; UINT32_MAX: a read */
	bool busy;
	uint64_t room_waits; /* of the store when it was submitted */
	bool some_waited; /* ... somebody was waiting */
	uint8_t buf[IO_BLOCKS * 4096];
};

struct work {
	struct world *w;
	struct card card;
	struct volume *v[VOLS_EVER];
	uint8_t last[VOLS_EVER]
		    [STILL_BLOCKS]; /* outcome + 1 of the last write to a block; 0: none */
	unsigned int policy[VOLS_EVER]; /* what the table says now */
	unsigned int unflushed[VOLS_EVER];
	uint64_t next[VOLS_EVER][STREAMS]; /* sequential: where it goes on */
	struct wreq rq[FLIGHT];
	unsigned int flying;
	uint32_t still; /* the volume that is left alone; NO_VOLUME: there is none */
	uint32_t vers;
	uint64_t lost, thin, ever_lost; /* devices, as in the ledger */
	uint64_t lost_ns; /* when the last one went */
	bool full;
};

/* Of 100 steps; the rest are reads. */
struct mix {
	uint8_t write, zero, flush, drain, volumes, policy, checkpoint, job, reopen, device;
	uint16_t steps_min, steps_more;
};
static const struct mix mixes[PROFILES] = {
	[WORK_RANDOM] = {54, 12, 10, 6, 4, 4, 2, 2, 1, 0, 40, 160},
	[WORK_SEQUENTIAL] = {68, 6, 8, 4, 2, 2, 2, 2, 1, 0, 60, 120},
	[WORK_OVERLAP] = {72, 10, 4, 0, 1, 4, 2, 2, 0, 0, 60, 140},
	[WORK_TRIM] = {36, 38, 8, 4, 2, 2, 3, 2, 1, 0, 60, 140},
	[WORK_FLIP] = {54, 6, 8, 4, 1, 16, 3, 4, 1, 0, 60, 140},
	[WORK_FILL] = {78, 6, 3, 1, 1, 1, 4, 2, 1, 0, 250, 350},
	[WORK_DEVICES] = {50, 8, 10, 5, 3, 4, 3, 3, 1, 8, 100, 160},
};

static bool is_idle(void *arg)
{
	return ((struct work *)arg)->flying == 0;
}

static void drain(struct work *wk)
{
	if (card_wait(wk->w, &wk->card, is_idle, wk) < 0)
		fail(wk->w, "workload: %u requests do not end", wk->flying);
}

/* With a device gone, what can only be there fails, and a pool may refuse to go on. */
static bool may_fail(const struct work *wk, const struct wreq *q)
{
	uint32_t vol = (uint32_t)(q->req.vm - 1);

	switch (q->req.status) {
	case IO_ERR_NO_SPACE:
		return true;
	case IO_ERR_RETRY:
		return wk->ever_lost != 0;
	case IO_ERR_MEDIA:
		return (wk->ever_lost & card_area_devs(wk->w, vol)) != 0;
	default:
		return false;
	}
}

/* Who waits for room lets others pass: all that were in flight at that time may take effect in another order. */
static void note_waits(struct work *wk, const struct wreq *q)
{
	struct store_stats st;

	store_stats(wk->card.store, &st);
	wk->w->ops[q->op].waited = q->some_waited || st.room_waits != q->room_waits;
}

static void op_done(struct io_req *req)
{
	struct wreq *q = container_of(req, struct wreq, req);
	struct work *wk = q->wk;
	bool ok = req->status == IO_OK;

	q->busy = false;
	wk->flying--;
	if (q->op != UINT32_MAX)
		note_waits(wk, q);
	wk->full |= req->status == IO_ERR_NO_SPACE;
	if (!ok && !may_fail(wk, q))
		fail(wk->w, "workload: %s ended with %s", io_op_name(req->op),
			io_status_name(req->status));
	if (q->op == UINT32_MAX)
		return;
	journal_user(&wk->w->j, ok ? USER_ACK : USER_FAIL, q->op);
	/* Those in flight have room of their own. */
	if (ok && req->op == IO_FLUSH && !(wk->lost & card_area_devs(wk->w, req->vm - 1)))
		wk->unflushed[req->vm - 1] = 0;
}

static struct wreq *req_get(struct work *wk)
{
	for (unsigned int i = 0; i < FLIGHT; i++)
		if (!wk->rq[i].busy)
			return &wk->rq[i];
	return NULL;
}

static void submit(struct work *wk, struct wreq *q, const struct wop *o, bool logged)
{
	struct world *w = wk->w;
	struct store_stats st;
	int rc;

	q->wk = wk;
	q->op = UINT32_MAX;
	q->iov = (struct iovec){q->buf, o->len_bytes};
	q->req = (struct io_req){.op = o->op,
		.flags = o->flags,
		.vm = 1 + o->vol,
		.vol = wk->v[o->vol],
		.off_bytes = o->off_bytes,
		.len_bytes = o->len_bytes,
		.iov = &q->iov,
		.niov = 1,
		.stable = !one_in(w, 3),
		.outcome = o->outcome,
		.done_fn = op_done};
	if (logged) {
		w->ops[w->nops] = *o;
		q->op = w->nops++;
		journal_user(&w->j, USER_BEGIN, q->op);
	}
	store_stats(wk->card.store, &st);
	q->room_waits = st.room_waits;
	q->some_waited = st.room_waiting != 0;
	q->busy = true;
	wk->flying++;
	rc = volume_submit(wk->v[o->vol], &q->req);
	if (rc < 0)
		fail(w, "workload: volume_submit: %d", rc);
}

/* ---- requests ---------------------------------------------------------------------------------------------------- */

static uint64_t pick_len(struct work *wk, uint64_t per)
{
	struct world *w = wk->w;

	switch (w->profile) {
	case WORK_FILL:
		return one_in(w, 8) ? per : (IO_BLOCKS / 2 + rnd(w, IO_BLOCKS / 2 + 1)) * per;
	case WORK_OVERLAP:
		return 1 + rnd(w, 6 * per);
	case WORK_FLIP:
		return one_in(w, 2) ? per : 1 + rnd(w, 4 * per);
	default:
		return one_in(w, 3)   ? 1 + rnd(w, IO_BLOCKS * per)
		       : one_in(w, 2) ? per
				      : 1 + rnd(w, 3 * per);
	}
}

static void pick_range(struct work *wk, struct wop *o)
{
	struct world *w = wk->w;
	const struct volume_cfg *c = volume_cfg(wk->v[o->vol]);
	uint64_t unit = c->block_bytes, total = c->size_bytes / unit, per = 4096 / unit;
	uint64_t want = pick_len(wk, per), n = MIN(want, total), corner = total - n + 1, from;

	if (w->profile == WORK_SEQUENTIAL) {
		uint64_t *next = &wk->next[o->vol][rnd(w, STREAMS)];

		from = *next + n > total ? 0 : *next;
		*next = from + n;
	} else {
		if (w->profile == WORK_OVERLAP || w->profile == WORK_FLIP)
			corner = MIN(corner, 5 * per);
		else if (one_in(w, 2))
			corner = MIN(corner, 6 * per);
		from = rnd(w, corner);
		if (one_in(w, 2))
			from = from / per * per;
	}
	o->off_bytes = from * unit;
	o->len_bytes = n * unit;
	o->first = o->off_bytes / SECTOR;
	o->n = o->len_bytes / SECTOR;
}

static void submit_write(struct work *wk, struct wreq *q, struct wop *o)
{
	const struct lvol *v = &wk->w->vols[o->vol];

	o->ver = ++wk->vers;
	for (uint64_t b = o->off_bytes / 4096; b <= (o->off_bytes + o->len_bytes - 1) / 4096; b++) {
		uint8_t *last = &wk->last[o->vol][b];

		o->flip |= *last && *last != o->outcome + 1;
		*last = (uint8_t)(o->outcome + 1);
	}
	for (uint64_t i = 0; i < o->n; i++)
		sector_fill(q->buf + i * SECTOR, v->ref.salt, o->first + i, o->ver);
	wk->unflushed[o->vol]++;
	submit(wk, q, o, true);
}

static void start_write(struct work *wk, struct wreq *q, struct wop *o)
{
	struct world *w = wk->w;
	const struct lvol *v = &w->vols[o->vol];

	pick_range(wk, o);
	o->outcome = (enum io_outcome)wk->policy[o->vol];
	if (w->profile == WORK_FILL)
		o->outcome = one_in(w, 16) ? IO_PLAIN : IO_PROTECT;
	else if (one_in(w, w->profile == WORK_FLIP ? 2 : 4))
		o->outcome = (enum io_outcome)rnd(w, 3);
	if (o->outcome == IO_INTERMEDIATE && v->cfg.intermediate_dev == POOL_DEV_NONE)
		o->outcome = IO_PLAIN;
	if (one_in(w, 8))
		o->flags |= IO_FUA;
	submit_write(wk, q, o);
}

static void start_zero(struct work *wk, struct wreq *q, struct wop *o)
{
	struct world *w = wk->w;

	o->op = one_in(w, 2) ? IO_TRIM : IO_WRITE_ZEROES;
	pick_range(wk, o);
	if (o->op == IO_TRIM) { /* whole blocks only */
		uint64_t end = (o->off_bytes + o->len_bytes) / 4096 * SEC_PER_4K;

		o->first = DIV_ROUND_UP(o->off_bytes, 4096) * SEC_PER_4K;
		o->n = end > o->first ? end - o->first : 0;
	} else if (one_in(w, 2)) {
		o->flags |= IO_DEALLOC;
	}
	if (one_in(w, 8))
		o->flags |= IO_FUA;
	wk->unflushed[o->vol]++;
	submit(wk, q, o, true);
}

static void flush_volume(struct work *wk, struct wreq *q, uint32_t vol)
{
	submit(wk, q, &(struct wop){.op = IO_FLUSH, .vol = vol}, true);
}

/* With everything else at rest. A volume whose unprotected blocks were on a device that is gone cannot be flushed any more. */
static void flush_all(struct work *wk)
{
	drain(wk);
	for (uint32_t i = 0; i < wk->w->nvols; i++)
		if (wk->v[i]) {
			flush_volume(wk, &wk->rq[0], i);
			drain(wk);
		}
}

/* ---- volumes ------------------------------------------------------------------------------------------------------- */

static unsigned int live(const struct work *wk)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < wk->w->nvols; i++)
		n += wk->v[i] != NULL;
	return n;
}

static int pick_dev(struct work *wk, int other)
{
	struct world *w = wk->w;
	int d;

	do
		d = (int)rnd(w, w->ndevs);
	while (d == other || wk->lost >> d & 1);
	return d;
}

/* In a pool that has run full everything may be refused; what says so has not happened. */
static bool refused(struct work *wk, int rc, const char *what, const struct err *e)
{
	if (rc == 0)
		return false;
	if (rc != -ENOSPC && !(rc == -EROFS && wk->ever_lost))
		fail(wk->w, "workload: %s: %s", what, err_text(e));
	wk->full |= rc == -ENOSPC;
	return true;
}

static void create_as(struct work *wk, struct volume_cfg c)
{
	struct world *w = wk->w;
	uint32_t id = w->nvols;
	struct lvol *l = &w->vols[id];
	struct err e = {0};

	snprintf(c.name, sizeof(c.name), "vol%u", id);
	l->cfg = c;
	l->area_devs = 1ull << c.data_dev;
	if (c.intermediate_dev != POOL_DEV_NONE)
		l->area_devs |= 1ull << c.intermediate_dev;
	l->ref.salt = id + 1;
	w->nvols++;
	wk->policy[id] = (unsigned int)rnd(w, 3);
	journal_user(&w->j, USER_CREATE, id);
	if (refused(wk, volume_create(wk->card.store, &c, &wk->v[id], &e), "volume_create", &e)) {
		wk->v[id] = NULL; /* and may turn up, or not */
		return;
	}
	journal_user(&w->j, USER_CREATED, id);
}

static void create(struct work *wk)
{
	struct world *w = wk->w;
	struct volume_cfg c = {.size_bytes = (16 + rnd(w, VOL_BLOCKS - 36)) * 4096};

	c.layout = one_in(w, 3) ? VOLUME_FRAGMENTS : VOLUME_COPY;
	c.block_bytes = w->atomic < 4096 || one_in(w, 3) ? 512 : 4096;
	c.data_dev = pick_dev(wk, POOL_DEV_NONE);
	c.intermediate_dev = one_in(w, 4) ? POOL_DEV_NONE : pick_dev(wk, c.data_dev);
	c.scheme = w->pool_cfg.scheme;
	if (one_in(w, 3))
		c.scheme.k = (uint8_t)(1 + rnd(w, w->k));
	create_as(wk, c);
}

/*
 * Written once, a stripe for each block, and then the mover's at most. A checkpoint's base has all of it, the parts that follow nothing: chains get
 * long, and their roots longer than what a device writes atomically.
 */
static void create_still(struct work *wk)
{
	struct world *w = wk->w;

	wk->still = w->nvols;
	create_as(wk, (struct volume_cfg){.size_bytes = STILL_BLOCKS * 4096,
			      .layout = VOLUME_FRAGMENTS,
			      .block_bytes = w->atomic < 4096 ? 512 : 4096,
			      .data_dev = pick_dev(wk, POOL_DEV_NONE),
			      .intermediate_dev = POOL_DEV_NONE,
			      .scheme = w->pool_cfg.scheme});
	for (uint64_t b = 0; b < STILL_BLOCKS && wk->v[wk->still]; b++) {
		submit_write(wk, &wk->rq[0],
			&(struct wop){.op = IO_WRITE,
				.vol = wk->still,
				.outcome = IO_PROTECT,
				.off_bytes = b * 4096,
				.len_bytes = 4096,
				.first = b * SEC_PER_4K,
				.n = SEC_PER_4K});
		drain(wk);
	}
	flush_all(wk);
}

static void delete (struct work *wk, uint32_t id)
{
	struct err e = {0};

	drain(wk);
	journal_user(&wk->w->j, USER_DELETE, id);
	if (refused(wk, volume_delete(wk->v[id], &e), "volume_delete", &e)) {
		/* Undecided from here on: nothing more is asked of it. */
		wk->v[id] = NULL;
		return;
	}
	wk->v[id] = NULL;
	journal_user(&wk->w->j, USER_DELETED, id);
}

static void grow(struct work *wk, uint32_t id)
{
	struct world *w = wk->w;
	struct new_size *s = &w->sizes[w->nsizes];
	uint64_t blocks = volume_cfg(wk->v[id])->size_bytes / 4096;
	struct err e = {0};

	if (w->nsizes == SIZES_MAX || blocks == VOL_BLOCKS)
		return;
	*s = (struct new_size){id, (blocks + 1 + rnd(w, VOL_BLOCKS - blocks)) * 4096};
	journal_user(&w->j, USER_GROW, w->nsizes);
	if (refused(wk, volume_grow(wk->v[id], s->bytes, &e), "volume_grow", &e))
		fail(w, "workload: volume_grow: %s", err_text(&e));
	journal_user(&w->j, USER_GROWN, w->nsizes++);
}

/* Data and intermediate area somewhere else from now on. */
static void set_devs(struct work *wk, uint32_t id)
{
	struct world *w = wk->w;
	struct lvol *l = &w->vols[id];
	int data = pick_dev(wk, POOL_DEV_NONE), inter = pick_dev(wk, data);
	struct err e = {0};

	if (l->cfg.intermediate_dev == POOL_DEV_NONE)
		inter = POOL_DEV_NONE;
	l->area_devs |= 1ull << data;
	if (inter != POOL_DEV_NONE)
		l->area_devs |= 1ull << inter;
	refused(wk, volume_set_devs(wk->v[id], data, inter, &e), "volume_set_devs", &e);
}

static void change_volumes(struct work *wk)
{
	struct world *w = wk->w;
	uint32_t id = (uint32_t)rnd(w, w->nvols);

	if (id == wk->still)
		return;
	if (wk->v[id] && one_in(w, 3))
		grow(wk, id);
	else if (wk->v[id] && one_in(w, 4))
		set_devs(wk, id);
	else if (live(wk) > 1 && wk->v[id] && one_in(w, 2))
		delete (wk, id);
	else if (live(wk) < VOLS_LIVE && w->nvols < VOLS_EVER)
		create(wk); /* the others' requests go on meanwhile */
}

/* ---- the card ------------------------------------------------------------------------------------------------------ */

/* Closed cleanly and opened again: what is open in the log is closed, and counts as old. */
static void reopen(struct work *wk)
{
	struct world *w = wk->w;

	drain(wk);
	card_down(&wk->card);
	card_up(w, &wk->card, &w->ran, &w->j, wk->lost, false, false);
	card_mover_up(w, &wk->card);
	wk->lost_ns = shard_now_ns(wk->card.sh); /* what was done before says nothing more */
	for (uint32_t i = 0; i < w->nvols; i++) {
		if (!wk->v[i])
			continue;
		wk->v[i] = volume_find(wk->card.store, w->vols[i].cfg.name);
		if (!wk->v[i])
			fail(w, "workload: vol%u is gone after a clean restart", i);
	}
}

static void lose_dev(struct work *wk)
{
	struct world *w = wk->w;
	unsigned int d = (unsigned int)rnd(w, w->ndevs);

	if (wk->thin || w->empties || !wk->card.f[d])
		return;
	journal_user(&w->j, USER_DEV_LOST, d);
	wk->lost |= 1ull << d;
	wk->thin |= 1ull << d;
	wk->lost_ns = shard_now_ns(wk->card.sh);
	wk->ever_lost |= 1ull << d;
	recorder_lose(wk->card.f[d]);
}

/* Pulled out, made whole elsewhere, put back, in any order. */
static void change_devs(struct work *wk)
{
	struct world *w = wk->w;
	unsigned int d = wk->lost ? (unsigned int)__builtin_ctzll(wk->lost) : 0;

	if (!wk->lost) {
		lose_dev(wk);
	} else if (one_in(w, 3) && card_return(w, &wk->card, &w->ran, &w->j, d)) {
		journal_user(&w->j, USER_DEV_BACK, d);
		wk->lost = 0;
	}
}

/* Once nothing has to be rebuilt any more and that is flushed, no stripe counts on what was lost. */
static bool is_whole(struct work *wk)
{
	const struct mover_task *t;
	bool rebuilt = false;

	for (t = mover_task_next(wk->card.mover, NULL); t; t = mover_task_next(wk->card.mover, t))
		if (t->reason == MOVER_REBUILD && t->started_ns > wk->lost_ns)
			rebuilt = t->state == MOVER_DONE && !t->unrecoverable;
	return rebuilt && card_jobs_rest(&wk->card);
}

static void make_whole(struct work *wk)
{
	struct world *w = wk->w;

	if (!wk->thin || !is_whole(wk))
		return;
	flush_all(wk);
	journal_user(&w->j, USER_DEVS_WHOLE, 0);
	wk->thin = 0;
}

/* ---- all of it ------------------------------------------------------------------------------------------------------- */

static void request(struct work *wk, uint64_t what, const struct mix *mix)
{
	struct world *w = wk->w;
	struct wreq *q = req_get(wk);
	struct wop o = {.op = IO_WRITE, .vol = (uint32_t)rnd(w, w->nvols)};

	if (!q || !wk->v[o.vol] || o.vol == wk->still)
		return;
	if (wk->unflushed[o.vol] >= OPS_UNFLUSHED) {
		drain(wk);
		flush_volume(wk, q, o.vol);
		drain(wk);
		return;
	}
	if (what < mix->write) {
		start_write(wk, q, &o);
	} else if ((what -= mix->write) < mix->zero) {
		start_zero(wk, q, &o);
	} else if ((what -= mix->zero) < mix->flush) {
		flush_volume(wk, q, o.vol);
	} else {
		o.op = IO_READ;
		pick_range(wk, &o);
		submit(wk, q, &o, false);
	}
}

static void step(struct work *wk)
{
	struct world *w = wk->w;
	const struct mix *mix = &mixes[w->profile];
	uint64_t what = rnd(w, 100);

	if (wk->still != NO_VOLUME && one_in(w, STILL_CKPT))
		card_checkpoint(w, &wk->card);
	if (what < mix->volumes) {
		change_volumes(wk);
	} else if ((what -= mix->volumes) < mix->policy) {
		wk->policy[rnd(w, w->nvols)] = (unsigned int)rnd(w, 3);
	} else if ((what -= mix->policy) < mix->drain) {
		drain(wk);
	} else if ((what -= mix->drain) < mix->checkpoint) {
		card_checkpoint(w, &wk->card);
	} else if ((what -= mix->checkpoint) < mix->job) {
		card_job(w, &wk->card, wk->lost);
	} else if ((what -= mix->job) < mix->reopen) {
		reopen(wk);
	} else if ((what -= mix->reopen) < mix->device) {
		change_devs(wk);
	} else {
		request(wk, what - mix->device, mix);
	}
}

void work_run(struct world *w)
{
	static struct work work; /* large */
	const struct mix *mix = &mixes[w->profile];
	struct work *wk = &work;

	*wk = (struct work){.w = w, .still = NO_VOLUME};
	card_up(w, &wk->card, &w->ran, &w->j, 0, true, false);
	card_mover_up(w, &wk->card);
	w->first_cut = w->j.n;
	if (one_in(w, STILL_ONE_IN) || world_unit(w) < 4096)
		create_still(wk);
	for (uint64_t i = 0, n = 1 + rnd(w, 2); i < n; i++)
		create(wk);
	for (uint64_t i = 0, n = mix->steps_min + rnd(w, mix->steps_more);
		i < n && w->nops < OPS_MAX - 2 * VOLS_EVER && !wk->full; i++) {
		step(wk);
		make_whole(wk);
		for (uint64_t r = rnd(w, 8); r; r--)
			shard_run_once(wk->card.sh);
	}
	drain(wk);
	if (one_in(w, 2))
		flush_all(wk);
	card_down(&wk->card);
	w->roamed = w->roams;
	w->emptied = w->empties;
}
