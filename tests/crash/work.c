/* SPDX-License-Identifier: BSD-3-Clause */
/* The workload: random, seeded, run once; the journal has what it asked for and what it was told. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"
#include "tests/crash/world.h"

#define FLIGHT        6u
#define OPS_UNFLUSHED (CANDS_MAX - 3u) /* more would not fit the ledger */

struct wreq {
	struct io_req req;
	struct iovec iov;
	struct work *wk;
	uint32_t op; /* number in the journal; UINT32_MAX: a read */
	bool busy;
	uint8_t buf[IO_BLOCKS * 4096];
};

struct work {
	struct world *w;
	struct card card;
	struct volume *v[VOLS_EVER];
	uint8_t last[VOLS_EVER][VOL_BLOCKS]; /* outcome + 1 of the last write to a block; 0: none */
	unsigned int policy[VOLS_EVER]; /* what the table says now */
	struct wreq rq[FLIGHT];
	unsigned int flying, unflushed;
	uint32_t vers;
	bool full;
};

static bool is_idle(void *arg)
{
	return ((struct work *)arg)->flying == 0;
}

static void drain(struct work *wk)
{
	if (shard_wait(wk->card.sh, is_idle, wk, 3600ull * 1000000000ull) < 0)
		fail(wk->w, "workload: %u requests do not end", wk->flying);
}

static void op_done(struct io_req *req)
{
	struct wreq *q = container_of(req, struct wreq, req);
	struct work *wk = q->wk;

	q->busy = false;
	wk->flying--;
	if (req->status == IO_ERR_NO_SPACE)
		wk->full = true;
	else if (req->status != IO_OK)
		fail(wk->w, "workload: %s ended with %s", io_op_name(req->op),
			io_status_name(req->status));
	if (q->op != UINT32_MAX)
		journal_user(&wk->w->j, req->status == IO_OK ? USER_ACK : USER_FAIL, q->op);
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
	q->busy = true;
	wk->flying++;
	rc = volume_submit(wk->v[o->vol], &q->req);
	if (rc < 0)
		fail(w, "workload: volume_submit: %d", rc);
}

/* ---- what to do -------------------------------------------------------------------------------------------------- */

static void pick_range(struct work *wk, struct wop *o)
{
	struct world *w = wk->w;
	const struct volume_cfg *c = &w->vols[o->vol].cfg;
	uint64_t unit = c->block_bytes, total = c->size_bytes / unit, per = 4096 / unit;
	uint64_t n = one_in(w, 3)   ? 1 + rnd(w, IO_BLOCKS * per)
		     : one_in(w, 2) ? per
				    : 1 + rnd(w, 3 * per);
	uint64_t from;

	n = MIN(n, total);
	from = rnd(w, one_in(w, 2) ? MIN(total - n + 1, 6 * per) : total - n + 1);

	if (one_in(w, 2))
		from = from / per * per;
	o->off_bytes = from * unit;
	o->len_bytes = n * unit;
	o->first = o->off_bytes / SECTOR;
	o->n = o->len_bytes / SECTOR;
}

static void start_write(struct work *wk, struct wreq *q, struct wop *o)
{
	struct world *w = wk->w;
	const struct lvol *v = &w->vols[o->vol];

	pick_range(wk, o);
	o->outcome = (enum io_outcome)wk->policy[o->vol];
	if (one_in(w, 4))
		o->outcome = (enum io_outcome)rnd(w, 3);
	if (o->outcome == IO_INTERMEDIATE && v->cfg.intermediate_dev == POOL_DEV_NONE)
		o->outcome = IO_PLAIN;
	if (one_in(w, 8))
		o->flags |= IO_FUA;
	o->ver = ++wk->vers;
	for (uint64_t b = o->off_bytes / 4096; b <= (o->off_bytes + o->len_bytes - 1) / 4096; b++) {
		uint8_t *last = &wk->last[o->vol][b];

		o->flip |= *last && *last != o->outcome + 1;
		*last = (uint8_t)(o->outcome + 1);
	}
	for (uint64_t i = 0; i < o->n; i++)
		sector_fill(q->buf + i * SECTOR, v->ref.salt, o->first + i, o->ver);
	submit(wk, q, o, true);
	wk->unflushed++;
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
	submit(wk, q, o, true);
	wk->unflushed++;
}

static void flush_volume(struct work *wk, struct wreq *q, uint32_t vol)
{
	submit(wk, q, &(struct wop){.op = IO_FLUSH, .vol = vol}, true);
}

static void flush_all(struct work *wk)
{
	drain(wk);
	for (uint32_t i = 0; i < wk->w->nvols; i++)
		if (wk->v[i]) {
			flush_volume(wk, &wk->rq[0], i);
			drain(wk);
		}
	wk->unflushed = 0;
}

/* ---- volumes ------------------------------------------------------------------------------------------------------- */

static unsigned int live(const struct work *wk)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < wk->w->nvols; i++)
		n += wk->v[i] != NULL;
	return n;
}

static void create(struct work *wk)
{
	struct world *w = wk->w;
	uint32_t id = w->nvols;
	struct lvol *l = &w->vols[id];
	struct volume_cfg c = {.size_bytes = (16 + rnd(w, VOL_BLOCKS - 24)) * 4096};
	struct err e = {0};
	int rc;

	snprintf(c.name, sizeof(c.name), "vol%u", id);
	c.layout = one_in(w, 3) ? VOLUME_FRAGMENTS : VOLUME_COPY;
	c.block_bytes = w->atomic < 4096 || one_in(w, 3) ? 512 : 4096;
	c.data_dev = (int)rnd(w, w->ndevs);
	c.intermediate_dev = (c.data_dev + 1 + (int)rnd(w, w->ndevs - 1)) % (int)w->ndevs;
	if (one_in(w, 4))
		c.intermediate_dev = POOL_DEV_NONE;
	c.scheme = w->pool_cfg.scheme;
	if (one_in(w, 3))
		c.scheme.k = (uint8_t)(1 + rnd(w, w->k));
	l->cfg = c;
	l->area_devs = 1ull << c.data_dev;
	if (c.intermediate_dev != POOL_DEV_NONE)
		l->area_devs |= 1ull << c.intermediate_dev;
	l->ref.salt = id + 1;
	w->nvols++;
	wk->policy[id] = (unsigned int)rnd(w, 3);
	journal_user(&w->j, USER_CREATE, id);
	rc = volume_create(wk->card.store, &c, &wk->v[id], &e);
	if (rc < 0)
		fail(w, "workload: volume_create: %s", err_text(&e));
	journal_user(&w->j, USER_CREATED, id);
}

static void change_volumes(struct work *wk)
{
	struct world *w = wk->w;
	struct err e = {0};
	uint32_t id = (uint32_t)rnd(w, w->nvols);

	if (live(wk) > 1 && wk->v[id] && one_in(w, 2)) {
		drain(wk);
		journal_user(&w->j, USER_DELETE, id);
		if (volume_delete(wk->v[id], &e) < 0)
			fail(w, "workload: volume_delete: %s", err_text(&e));
		wk->v[id] = NULL;
		journal_user(&w->j, USER_DELETED, id);
	} else if (live(wk) < VOLS_LIVE && w->nvols < VOLS_EVER) {
		create(wk); /* the others' requests go on meanwhile */
	}
}

/* ---- all of it ------------------------------------------------------------------------------------------------------- */

static void step(struct work *wk)
{
	struct world *w = wk->w;
	struct wreq *q = req_get(wk);
	struct wop o = {.op = IO_WRITE, .vol = (uint32_t)rnd(w, w->nvols)};
	uint64_t what = rnd(w, 100);

	if (wk->unflushed >= OPS_UNFLUSHED) {
		flush_all(wk);
		return;
	}
	if (what < 4) {
		change_volumes(wk);
		return;
	}
	if (!q || !wk->v[o.vol])
		return;
	if (what < 10)
		wk->policy[o.vol] = (unsigned int)rnd(w, 3);
	if (what < 66) {
		start_write(wk, q, &o);
	} else if (what < 78) {
		start_zero(wk, q, &o);
	} else if (what < 88) {
		flush_volume(wk, q, o.vol);
	} else if (what < 94) {
		o.op = IO_READ;
		pick_range(wk, &o);
		submit(wk, q, &o, false);
	} else {
		drain(wk);
	}
}

void work_run(struct world *w)
{
	static struct work work; /* large */
	struct work *wk = &work;

	*wk = (struct work){.w = w};
	card_up(w, &wk->card, &w->ran, &w->j, 0, true, false);
	w->first_cut = w->j.n;
	for (uint64_t i = 0, n = 1 + rnd(w, 2); i < n; i++)
		create(wk);
	for (uint64_t i = 0, n = 40 + rnd(w, 160);
		i < n && w->nops < OPS_MAX - 2 * VOLS_EVER && !wk->full; i++) {
		step(wk);
		for (uint64_t r = rnd(w, 8); r; r--)
			shard_run_once(wk->card.sh);
	}
	drain(wk);
	if (one_in(w, 2))
		flush_all(wk);
	card_down(&wk->card);
}
