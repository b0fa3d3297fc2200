/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests and volumes of the model test. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/move.h"
#include "tests/model/rig.h"

#define ROOM_BYTES (24ull << 20) /* of the log: enough for whatever is under way */

/* ---- volumes -------------------------------------------------------------------------------------------------------- */

static int pick_dev(struct life *l, int other)
{
	for (unsigned int tries = 0; tries < 200; tries++) {
		int d = (int)rnd(l, l->ndevs);

		if (d != other && pool_dev_usable(store_pool(l->store), (unsigned int)d))
			return d;
	}
	return POOL_DEV_NONE;
}

void vol_create(struct life *l, struct vol *v)
{
	struct volume_cfg c = {0};
	struct err e = {0};
	int rc;

	snprintf(c.name, sizeof(c.name), "vol%u", ++l->salts);
	c.size_bytes = (64 + rnd(l, 600)) * 4096;
	c.layout = one_in(l, 3) ? VOLUME_FRAGMENTS : VOLUME_COPY;
	if (one_in(l, 2)) {
		c.scheme.k = (uint8_t)(1 + rnd(l, l->k));
		c.scheme.m = (uint8_t)(1 + rnd(l, l->m));
	}
	/* 4096-byte blocks are for devices that write them atomically; the default chooses so. */
	if (one_in(l, 4))
		c.block_bytes = 512;
	c.data_dev = pick_dev(l, POOL_DEV_NONE);
	c.intermediate_dev = one_in(l, 5) ? POOL_DEV_NONE : pick_dev(l, c.data_dev);
	if (c.data_dev == POOL_DEV_NONE)
		return;
	rc = volume_create(l->store, &c, &v->v, &e);
	if (rc == -ENOSPC || rc == -EROFS) {
		v->v = NULL;
		l->full |= rc == -ENOSPC;
		return;
	}
	if (rc < 0)
		fail(l, "volume_create: %s", err_text(&e));
	l->n_vols++;
	v->cfg = *volume_cfg(v->v);
	snprintf(v->name, sizeof(v->name), "%s", v->cfg.name);
	v->moved = false;
	v->area_devs = 1ull << v->cfg.data_dev;
	if (v->cfg.intermediate_dev != POOL_DEV_NONE)
		v->area_devs |= 1ull << v->cfg.intermediate_dev;
	if (ref_open(&v->ref, l->salts, v->cfg.size_bytes / SECTOR) < 0)
		fail(l, "no memory");
	/* A volume that promises less than what is gone already has nothing there to lose. */
	v->born = l->clock;
}

void vol_delete(struct life *l, struct vol *v)
{
	struct err e = {0};
	int rc = volume_delete(v->v, &e);

	if (rc == -ENOSPC || rc == -EROFS)
		return;
	if (rc < 0)
		fail(l, "volume_delete: %s", err_text(&e));
	v->v = NULL;
	ref_close(&v->ref);
}

void vol_grow(struct life *l, struct vol *v)
{
	uint64_t size = v->cfg.size_bytes + (1 + rnd(l, 200)) * 4096;
	struct err e = {0};
	int rc = volume_grow(v->v, size, &e);

	if (rc == -ENOSPC || rc == -EROFS)
		return;
	if (rc < 0)
		fail(l, "volume_grow: %s", err_text(&e));
	v->cfg.size_bytes = size;
	if (ref_grow(&v->ref, size / SECTOR) < 0)
		fail(l, "no memory");
}

void vol_move(struct life *l, struct vol *v)
{
	int data = pick_dev(l, POOL_DEV_NONE), inter = pick_dev(l, data);
	struct err e = {0};
	int rc;

	if (data == POOL_DEV_NONE || inter == POOL_DEV_NONE)
		return;
	rc = volume_set_devs(v->v, data, inter, &e);
	if (rc == -ENOSPC || rc == -EROFS)
		return;
	if (rc < 0)
		fail(l, "volume_set_devs: %s", err_text(&e));
	v->cfg.data_dev = data;
	v->cfg.intermediate_dev = inter;
	v->moved = true;
	v->area_devs |= 1ull << data | 1ull << inter;
}

/* ---- requests ---------------------------------------------------------------------------------------------------------- */

/* Unprotected blocks may be lost with the device of their area. A block is so as a whole: what was last written to a part of it decides. */
static bool media_excused(struct life *l, struct vol *v, uint64_t first, uint64_t n)
{
	if (!(life_area_devs(l, v) & life_gone_devs(l)))
		return false;
	for (uint64_t i = first / SEC_PER_4K * SEC_PER_4K; i < ROUND_UP(first + n, SEC_PER_4K); i++)
		if (ref_unprotected(&v->ref, i))
			return true;
	return false;
}

static void check_read(struct rq *q)
{
	struct life *l = q->l;

	for (uint64_t i = 0; i < q->n; i++) {
		int64_t ver = sector_version(q->buf + i * SECTOR, q->vol->ref.salt, q->first + i);

		if (ver >= 0 && ref_read(&q->vol->ref, q->first + i, (uint32_t)ver))
			continue;
		ref_print(&q->vol->ref, q->first + i);
		fail(l, "%s: read (op %u) of sector %llu returned %s %lld", q->vol->name, q->id,
			(unsigned long long)(q->first + i),
			ver < 0 ? "bytes that were never written there:" : "version",
			(long long)ver);
	}
}

/* Did a device have rules at any time while it was in flight? */
static bool saw_rules(const struct rq *q)
{
	return q->armed || q->l->n_rules != q->n_rules;
}

/* Is this a status that a write may end with, as things are? */
static void check_status(struct rq *q)
{
	struct life *l = q->l;
	enum io_status st = q->req.status;
	bool degraded = life_gone_devs(l) != 0;
	bool area_gone = life_area_devs(l, q->vol) & life_gone_devs(l);
	bool ok = st == IO_OK;

	switch (st) {
	case IO_ERR_NO_SPACE:
		l->n_no_space++;
		l->full = true;
		ok = true;
		break;
	case IO_ERR_RETRY:
		l->n_retry++;
		ok = degraded;
		break;
	case IO_ERR_MEDIA:
		l->n_media++;
		/* In place, or a part of a block whose rest cannot be had. */
		ok = area_gone || (saw_rules(q) && q->req.op != IO_READ);
		break;
	default:
		break;
	}
	if (!ok)
		fail(l, "%s: op %u (%s, %s, sectors %llu+%llu) ended with %s", q->vol->name, q->id,
			io_op_name(q->req.op),
			q->req.outcome == IO_PROTECT ? "protect" : "plain or intermediate",
			(unsigned long long)q->first, (unsigned long long)q->n, io_status_name(st));
}

/* Who waits for room lets others pass: all that were in flight at that time may take effect in another order. */
static void note_waits(struct rq *q)
{
	struct store_stats st;

	store_stats(q->l->store, &st);
	if (q->some_waited || st.room_waits != q->room_waits)
		ref_waited(&q->vol->ref, q->first, q->n, q->id);
}

static void rq_done(struct io_req *req)
{
	struct rq *q = container_of(req, struct rq, req);
	struct life *l = q->l;
	bool ok = req->status == IO_OK;

	q->busy = false;
	l->flying--;
	if (l->done) { /* after the end: nobody heard it */
		ref_end(&q->vol->ref, q->first, q->n, q->id, false, 0);
		return;
	}
	switch (req->op) {
	case IO_READ:
		if (ok)
			check_read(q);
		else if (req->status != IO_ERR_MEDIA || !media_excused(l, q->vol, q->first, q->n))
			fail(l, "%s: read (op %u) of sectors %llu+%llu ended with %s", q->vol->name,
				q->id, (unsigned long long)q->first, (unsigned long long)q->n,
				io_status_name(req->status));
		break;
	case IO_FLUSH:
		check_status(q);
		if (ok)
			ref_flushed(&q->vol->ref, 0, q->vol->ref.nsectors, q->began);
		break;
	default:
		check_status(q);
		note_waits(q);
		ref_end(&q->vol->ref, q->first, q->n, q->id, ok, ++l->clock);
		if (ok && req->flags & IO_FUA)
			ref_flushed(&q->vol->ref, q->first, q->n, l->clock);
		break;
	}
}

static struct rq *rq_get(struct life *l)
{
	for (unsigned int i = 0; i < FLIGHT; i++)
		if (!l->rqs[i].busy)
			return &l->rqs[i];
	return NULL;
}

static struct vol *pick_vol(struct life *l)
{
	for (unsigned int tries = 0; tries < 20; tries++) {
		struct vol *v = &l->vols[rnd(l, VOLS)];

		if (v->v)
			return v;
	}
	return NULL;
}

static void cut_iov(struct life *l, struct rq *q, uint64_t len)
{
	uint64_t at = 0;
	int n = 0;

	if (one_in(l, 3)) { /* as a network delivers it: any pieces */
		while (at < len && n < (int)ARRAY_LEN(q->iov) - 1) {
			uint64_t any = 1 + rnd(l, len / 3 + 1460);
			uint64_t piece = MIN(len - at, any);

			q->iov[n++] = (struct iovec){q->buf + at, piece};
			at += piece;
		}
	}
	if (at < len)
		q->iov[n++] = (struct iovec){q->buf + at, len - at};
	q->req.iov = q->iov;
	q->req.niov = n;
}

static void fill(struct rq *q, uint32_t ver)
{
	for (uint64_t i = 0; i < q->n; i++)
		sector_fill(q->buf + i * SECTOR, q->vol->ref.salt, q->first + i, ver);
}

/* Returns false when the stack is full and nothing has happened. */
static bool send(struct life *l, struct rq *q)
{
	struct store_stats st;
	int rc;

	q->busy = true;
	q->req.vol = q->vol->v;
	q->req.vm = 1 + (uint32_t)(q->vol - l->vols) / 2;
	q->req.done_fn = rq_done;
	store_stats(l->store, &st);
	q->room_waits = st.room_waits;
	q->some_waited = st.room_waiting != 0;
	q->armed = l->armed;
	q->n_rules = l->n_rules;
	rc = volume_submit(q->vol->v, &q->req);
	if (rc == 0) {
		l->flying++;
		return true;
	}
	q->busy = false;
	if (rc != -EAGAIN)
		fail(l, "volume_submit: %d", rc);
	return false;
}

static void pick_range(struct life *l, struct rq *q)
{
	uint64_t unit = q->vol->cfg.block_bytes, total = q->vol->cfg.size_bytes / unit;
	uint64_t max = IO_MAX / unit, n;

	switch (rnd(l, 8)) {
	case 0:
		n = 1 + rnd(l, max);
		break;
	case 1:
	case 2:
		n = 1 + rnd(l, 64 * 1024 / unit);
		break;
	case 3:
	case 4:
		n = 4096 / unit;
		break;
	default:
		n = 1 + rnd(l, 4 * 4096 / unit);
		break;
	}
	n = MIN(n, total);
	/* Half of it in one corner, so that requests meet. */
	q->req.off_bytes = rnd(l, one_in(l, 2) ? MIN(total - n + 1, 200) : total - n + 1) * unit;
	if (one_in(l, 3) && q->req.off_bytes / 4096 * 4096 + n * unit <= q->vol->cfg.size_bytes)
		q->req.off_bytes = q->req.off_bytes / 4096 * 4096;
	q->req.len_bytes = n * unit;
	q->first = q->req.off_bytes / SECTOR;
	q->n = q->req.len_bytes / SECTOR;
}

/* A request that waits for room lets others pass it: where that may be, no two that are under way change the same block. */
static void keep_order(struct life *l, const struct rq *q)
{
	uint64_t first = q->first / SEC_PER_4K, end = DIV_ROUND_UP(q->first + q->n, SEC_PER_4K);
	struct log_space sp;

	stripelog_space(store_log(l->store), &sp);
	if (sp.free_bytes > ROOM_BYTES)
		return;
	for (unsigned int i = 0; i < FLIGHT; i++) {
		const struct rq *o = &l->rqs[i];

		if (o->busy && o->vol == q->vol && o->req.op != IO_READ && o->n &&
			o->first / SEC_PER_4K < end &&
			first < DIV_ROUND_UP(o->first + o->n, SEC_PER_4K)) {
			life_drain(l);
			return;
		}
	}
}

static void start_write(struct life *l, struct rq *q)
{
	struct cand c = {
		.state = CAND_FLYING, .kind = CAND_PROTECTED, .began = l->clock, .undecided = true};

	q->req.outcome = IO_PROTECT;
	if (!l->protected_only && one_in(l, 2))
		q->req.outcome = q->vol->cfg.intermediate_dev != POOL_DEV_NONE && one_in(l, 2)
					 ? IO_INTERMEDIATE
					 : IO_PLAIN;
	if (q->req.outcome != IO_PROTECT)
		c.kind = CAND_UNPROTECTED;
	if (one_in(l, 12))
		q->req.flags |= IO_FUA;
	q->req.stable = !one_in(l, 3);
	c.id = q->id;
	c.ver = q->ver = ++l->vers;
	if (!q->req.stable && one_in(l, 2))
		c.alt = q->alt = ++l->vers;
	cut_iov(l, q, q->req.len_bytes);
	fill(q, q->ver);
	ref_begin(&q->vol->ref, q->first, q->n, &c);
	if (!send(l, q)) {
		ref_end(&q->vol->ref, q->first, q->n, q->id, false, 0);
		return;
	}
	l->n_writes[q->req.outcome]++;
	if (q->alt) { /* the VM writes to its memory although it should not */
		if (one_in(l, 2))
			life_rounds(l, (unsigned int)rnd(l, 3));
		if (q->busy)
			fill(q, q->alt);
	}
}

static void start_zero(struct life *l, struct rq *q)
{
	struct cand c = {.state = CAND_FLYING, .began = l->clock, .undecided = true};
	uint64_t end = q->req.off_bytes + q->req.len_bytes;

	q->req.op = one_in(l, 2) ? IO_TRIM : IO_WRITE_ZEROES;
	if (one_in(l, 10)) { /* all of it */
		q->req.off_bytes = 0;
		end = q->req.len_bytes = q->vol->cfg.size_bytes;
		q->first = 0;
		q->n = end / SECTOR;
		keep_order(l, q);
	}
	if (q->req.op == IO_TRIM) { /* whole blocks only */
		q->first = DIV_ROUND_UP(q->req.off_bytes, 4096) * SEC_PER_4K;
		q->n = end / 4096 * SEC_PER_4K > q->first ? end / 4096 * SEC_PER_4K - q->first : 0;
	}
	if (ref_full(&q->vol->ref, q->first, q->n)) {
		rq_flush_all(l);
		return;
	}
	if (one_in(l, 8))
		q->req.flags |= IO_FUA;
	c.id = q->id;
	/* The cut blocks of write zeroes stay where they were. */
	for (uint64_t i = q->first; i < q->first + q->n; i++) {
		bool cut = i < DIV_ROUND_UP(q->req.off_bytes, 4096) * SEC_PER_4K ||
			   i >= end / 4096 * SEC_PER_4K;

		c.kind = cut && ref_unprotected(&q->vol->ref, i) ? CAND_UNPROTECTED : CAND_ZERO;
		ref_begin(&q->vol->ref, i, 1, &c);
	}
	if (send(l, q))
		l->n_trims++;
	else
		ref_end(&q->vol->ref, q->first, q->n, q->id, false, 0);
}

void rq_random(struct life *l)
{
	struct rq *q = rq_get(l);
	struct vol *v = pick_vol(l);
	uint64_t what = rnd(l, 100);

	if (!q || !v) {
		life_rounds(l, 4);
		return;
	}
	q->vol = v;
	q->id = ++l->ids;
	q->alt = 0;
	q->req = (struct io_req){.op = IO_WRITE};
	pick_range(l, q);
	if (what < 58 || (what >= 88 && what < 96))
		keep_order(l, q);
	if (what < 58) {
		if (ref_full(&v->ref, q->first, q->n))
			rq_flush_all(l);
		else
			start_write(l, q);
	} else if (what < 88) {
		q->req.op = IO_READ;
		q->req.stable = true;
		cut_iov(l, q, q->req.len_bytes);
		memset(q->buf, 0xa5, q->req.len_bytes);
		l->n_reads += send(l, q);
	} else if (what < 96) {
		start_zero(l, q);
	} else {
		q->req = (struct io_req){.op = IO_FLUSH};
		q->first = q->n = 0;
		q->began = l->clock;
		l->n_flushes += send(l, q);
	}
}

/* Every volume flushed, with nothing in flight. */
void rq_flush_all(struct life *l)
{
	life_drain(l);
	for (unsigned int i = 0; i < VOLS; i++) {
		struct rq *q = &l->rqs[0];

		if (!l->vols[i].v)
			continue;
		q->vol = &l->vols[i];
		q->id = ++l->ids;
		q->req = (struct io_req){.op = IO_FLUSH};
		q->first = q->n = 0;
		q->began = l->clock;
		if (!send(l, q))
			fail(l, "an idle store is full");
		l->n_flushes++;
		life_drain(l);
	}
}

/* ---- looking at everything ------------------------------------------------------------------------------------------------- */

static void verify_done(struct io_req *req)
{
	struct rq *q = container_of(req, struct rq, req);

	q->busy = false;
	q->l->flying--;
}

static void verify_read(struct life *l, struct vol *v, uint64_t first, uint64_t n)
{
	struct rq *q = &l->rqs[0];

	q->req = (struct io_req){.op = IO_READ,
		.off_bytes = first * SECTOR,
		.len_bytes = n * SECTOR,
		.iov = q->iov,
		.niov = 1,
		.vol = v->v,
		.done_fn = verify_done};
	q->iov[0] = (struct iovec){q->buf, n * SECTOR};
	q->vol = v;
	q->id = ++l->ids;
	q->busy = true;
	if (volume_submit(v->v, &q->req) < 0)
		fail(l, "an idle store is full");
	l->flying++;
	life_drain(l);
}

static void verify_piece(
	struct life *l, struct vol *v, uint64_t first, uint64_t n, bool reopened, bool power)
{
	struct rq *q = &l->rqs[0];

	verify_read(l, v, first, n);
	if (q->req.status == IO_ERR_MEDIA && n > SEC_PER_4K) {
		for (uint64_t i = 0; i < n; i += SEC_PER_4K)
			verify_piece(l, v, first + i, SEC_PER_4K, reopened, power);
		return;
	}
	if (q->req.status == IO_ERR_MEDIA && media_excused(l, v, first, n)) {
		if (power)
			ref_unseen(&v->ref, first, n);
		return;
	}
	if (q->req.status != IO_OK) {
		ref_print(&v->ref, first);
		fail(l, "%s: sectors %llu+%llu cannot be read%s: %s", v->name,
			(unsigned long long)first, (unsigned long long)n,
			reopened ? " after reopening" : "", io_status_name(q->req.status));
	}
	for (uint64_t i = 0; i < n; i++) {
		int64_t ver = sector_version(q->buf + i * SECTOR, v->ref.salt, first + i);
		bool ok = ver >= 0;

		if (ok)
			ok = reopened ? ref_recovered(&v->ref, first + i, (uint32_t)ver, power)
				      : ref_read(&v->ref, first + i, (uint32_t)ver);
		if (ok)
			continue;
		ref_print(&v->ref, first + i);
		fail(l, "%s: sector %llu has %s %lld%s", v->name, (unsigned long long)(first + i),
			ver < 0 ? "bytes that were never written there:" : "version",
			(long long)ver,
			!reopened ? ""
			: power   ? " after power was lost"
				  : " after reopening");
	}
}

void verify_all(struct life *l, bool reopened, bool power)
{
	const uint64_t step = 128 * SEC_PER_4K;

	life_drain(l);
	for (unsigned int i = 0; i < VOLS; i++) {
		struct vol *v = &l->vols[i];

		for (uint64_t s = 0; v->v && s < v->ref.nsectors; s += step)
			verify_piece(l, v, s, MIN(step, v->ref.nsectors - s), reopened, power);
	}
}
