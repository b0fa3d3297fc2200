/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/recorder.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/flash/flash_priv.h"
#include "dpu/pool/ckpt_format.h"
#include "dpu/stripelog/format.h"

#define DELAY_MAX_NS 20000u

uint64_t next_random(uint64_t *rng)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return *rng;
}

static void *must(void *p)
{
	if (p)
		return p;
	fprintf(stderr, "no memory\n");
	exit(1);
}

/* ---- journal --------------------------------------------------------------------------------------------------- */

static uint32_t journal_add(struct journal *j, const struct event *e)
{
	if (j->n == j->cap) {
		j->cap = j->cap ? j->cap * 2 : 1024;
		j->ev = must(realloc(j->ev, j->cap * sizeof(*j->ev)));
	}
	j->ev[j->n] = *e;
	return (uint32_t)j->n++;
}

void journal_user(struct journal *j, uint8_t user, uint32_t id)
{
	journal_add(j, &(struct event){.kind = EV_USER, .user = user, .id = id});
}

void journal_clear(struct journal *j)
{
	for (size_t i = 0; i < j->n; i++)
		free(j->ev[i].data);
	free(j->ev);
	*j = (struct journal){0};
}

/* ---- device ------------------------------------------------------------------------------------------------------ */

struct rec_io {
	struct recorder *r;
	struct flash_io *io;
	struct timer timer;
	uint32_t ev;
	bool late; /* a read of what is there when it completes */
	bool landed; /* or never will */
	LIST_ENTRY(rec_io) link;
};

struct recorder {
	struct flash f;
	struct recorder_cfg cfg;
	bool gone;
	LIST_HEAD(, rec_io) flying;
};

static enum ev_class class_by_magic(const struct event *e, uint64_t seg)
{
	struct frag_disk h;
	le64 magic;

	memcpy(&magic, e->data, sizeof(magic));
	if (from_le64(magic) == SEG_MAGIC && e->off % seg == 0)
		return CLASS_SEGMENT;
	if (from_le64(magic) == CKPT_ROOT_MAGIC && e->off < seg)
		return CLASS_ROOT;
	if (from_le64(magic) == CKPT_CHUNK_MAGIC)
		return CLASS_CHUNK;
	if (from_le64(magic) != FRAG_MAGIC || e->len < sizeof(h))
		return CLASS_AREA;
	memcpy(&h, e->data, sizeof(h));
	return from_le32(h.nblocks) ? CLASS_APPEND : CLASS_RECORD;
}

static enum ev_class classify(const struct recorder *r, const struct event *e)
{
	uint64_t seg = r->cfg.segment_bytes;
	uint64_t *used = &r->cfg.journal->used[r->cfg.dev], bit = 1ull << e->off / seg;
	enum ev_class class;
	bool again = *used & bit;

	*used |= bit;
	if (!e->data)
		return CLASS_ZERO;
	class = class_by_magic(e, seg);
	if (e->off < seg && class != CLASS_ROOT)
		return CLASS_SUPERBLOCK;
	return class == CLASS_SEGMENT && again ? CLASS_REUSE : class;
}

static void enter(struct recorder *r, enum ev_kind kind, uint32_t id)
{
	journal_add(r->cfg.journal,
		&(struct event){.kind = (uint8_t)kind, .dev = (uint8_t)r->cfg.dev, .id = id});
}

static bool is_write(const struct flash_io *io)
{
	return io->op == FLASH_WRITE || io->op == FLASH_WRITE_ZEROES;
}

static void write_lands(struct rec_io *x)
{
	struct recorder *r = x->r;
	const struct event *e = &r->cfg.journal->ev[x->ev];

	image_write(r->cfg.image, r->cfg.dev, e->off, e->data, e->len);
	enter(r, EV_WRITE_DONE, x->ev);
	x->landed = true;
}

static void read_now(struct recorder *r, const struct flash_io *io)
{
	uint64_t off = io->off;

	for (int i = 0; i < io->niov; i++) {
		image_read(r->cfg.image, r->cfg.dev, off, io->iov[i].iov_base, io->iov[i].iov_len);
		off += io->iov[i].iov_len;
	}
}

static void io_over(void *arg)
{
	struct rec_io *x = arg;
	struct recorder *r = x->r;
	struct flash_io *io = x->io;
	bool gone = r->gone;

	LIST_REMOVE(x, link);
	if (!gone && is_write(io))
		write_lands(x);
	else if (!gone && io->op == FLASH_FLUSH)
		enter(r, EV_FLUSH_DONE, x->ev);
	else if (!gone && x->late)
		read_now(r, io);
	free(x);
	flash_complete(&r->f, io, gone ? FLASH_ERR_GONE : FLASH_OK);
}

static uint32_t write_begins(struct recorder *r, const struct flash_io *io)
{
	struct event e = {
		.kind = EV_WRITE, .dev = (uint8_t)r->cfg.dev, .off = io->off, .len = io->len};

	if (io->op == FLASH_WRITE) {
		e.data = must(malloc(io->len));
		flash_gather(io, e.data);
	}
	e.class = (uint8_t)classify(r, &e);
	return journal_add(r->cfg.journal, &e);
}

static int recorder_submit(struct flash *f, struct flash_io *io)
{
	struct recorder *r = container_of(f, struct recorder, f);
	struct rec_io *x = calloc(1, sizeof(*x));
	uint64_t delay = 1 + shard_random(f->sh) % DELAY_MAX_NS;
	int rc;

	if (!x)
		return -EAGAIN;
	x->r = r;
	x->io = io;
	rc = timer_arm(f->sh, &x->timer, shard_now_ns(f->sh) + delay, io_over, x);
	if (rc < 0) {
		free(x);
		return rc;
	}
	LIST_INSERT_HEAD(&r->flying, x, link);
	if (r->gone)
		return 0;
	if (is_write(io)) {
		x->ev = write_begins(r, io);
	} else if (io->op == FLASH_FLUSH) {
		x->ev = journal_add(r->cfg.journal,
			&(struct event){.kind = EV_FLUSH, .dev = (uint8_t)r->cfg.dev});
	} else if (io->op == FLASH_READ) {
		x->late = delay % 2;
		if (!x->late)
			read_now(r, io);
	} /* discard: a hint */
	return 0;
}

void recorder_lose(struct flash *f)
{
	struct recorder *r = container_of(f, struct recorder, f);
	struct rec_io *x;

	LIST_FOREACH (x, &r->flying, link) {
		if (!is_write(x->io) || x->landed)
			continue;
		if (shard_random(f->sh) % 2)
			write_lands(x);
		else
			enter(r, EV_WRITE_LOST, x->ev);
	}
	r->gone = true;
}

static void recorder_close(struct flash *f)
{
	free(container_of(f, struct recorder, f));
}

static const struct flash_ops recorder_ops = {.close = recorder_close, .submit = recorder_submit};

int recorder_open(const struct recorder_cfg *cfg, struct flash **out)
{
	struct recorder *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->cfg = *cfg;
	LIST_INIT(&r->flying);
	r->f = (struct flash){.ops = &recorder_ops,
		.sh = cfg->sh,
		.info = {.size_bytes = cfg->size_bytes,
			.block_bytes = cfg->block_bytes,
			.atomic_bytes = cfg->atomic_bytes,
			.volatile_cache = cfg->volatile_cache,
			.depth = FLASH_DEPTH_DEFAULT}};
	snprintf(r->f.info.address, sizeof(r->f.info.address), "recorder:%u", cfg->dev);
	*out = &r->f;
	return 0;
}

/* ---- replay -------------------------------------------------------------------------------------------------------- */

void replay_begin(
	struct replay *r, const struct journal *j, struct image *base, bool volatile_cache)
{
	*r = (struct replay){.j = j, .base = base, .volatile_cache = volatile_cache};
}

void replay_end(struct replay *r)
{
	free(r->pend);
	*r = (struct replay){0};
}

/* To the base, in order: a durable write waits for older ones of its device that are not, as they may lie below it. */
static void settle(struct replay *r)
{
	uint64_t blocked = 0;
	size_t kept = 0;

	for (size_t i = 0; i < r->npend; i++) {
		const struct event *e = &r->j->ev[r->pend[i].ev];

		if (r->pend[i].durable && !(blocked >> e->dev & 1)) {
			image_write(r->base, e->dev, e->off, e->data, e->len);
			continue;
		}
		blocked |= 1ull << e->dev;
		r->pend[kept++] = r->pend[i];
	}
	r->npend = kept;
}

static void pend_add(struct replay *r)
{
	if (r->npend == r->cap_pend) {
		r->cap_pend = r->cap_pend ? r->cap_pend * 2 : 64;
		r->pend = must(realloc(r->pend, r->cap_pend * sizeof(*r->pend)));
	}
	r->pend[r->npend++] = (struct pend){.ev = (uint32_t)r->at};
}

static void pend_drop(struct replay *r, uint32_t ev)
{
	size_t kept = 0;

	for (size_t i = 0; i < r->npend; i++)
		if (r->pend[i].ev != ev)
			r->pend[kept++] = r->pend[i];
	r->npend = kept;
}

void replay_step(struct replay *r)
{
	const struct event *e = &r->j->ev[r->at];

	switch (e->kind) {
	case EV_WRITE:
		pend_add(r);
		break;
	case EV_WRITE_DONE:
		for (size_t i = 0; i < r->npend; i++)
			if (r->pend[i].ev == e->id) {
				r->pend[i].done = true;
				r->pend[i].done_at = (uint32_t)r->at;
				r->pend[i].durable = !r->volatile_cache;
			}
		break;
	case EV_WRITE_LOST:
		pend_drop(r, e->id);
		break;
	case EV_FLUSH_DONE:
		for (size_t i = 0; i < r->npend; i++)
			if (r->j->ev[r->pend[i].ev].dev == e->dev && r->pend[i].done &&
				r->pend[i].done_at < e->id)
				r->pend[i].durable = true;
		break;
	default:
		break;
	}
	r->at++;
	if (e->kind == EV_FLUSH_DONE || (e->kind == EV_WRITE_DONE && !r->volatile_cache))
		settle(r);
}

/* Those units of it whose bits are set: of everything that is torn at the same moment. */
static void write_masked(struct image *to, const struct event *e, uint32_t unit, uint64_t mask)
{
	for (uint64_t at = 0, i = 0; at < e->len; i++) {
		uint64_t n = MIN(unit - (e->off + at) % unit, e->len - at);

		if (mask >> i % 64 & 1)
			image_write(to, e->dev, e->off + at, e->data ? e->data + at : NULL, n);
		at += n;
	}
}

static void write_torn(struct image *to, const struct event *e, uint32_t unit, uint64_t *rng)
{
	uint64_t prefix = next_random(rng) % 2 ? next_random(rng) % (e->len / unit + 1) : 0;

	for (uint64_t at = 0, i = 0; at < e->len; i++) {
		uint64_t n = MIN(unit - (e->off + at) % unit, e->len - at);

		if (prefix ? i < prefix : next_random(rng) % 2)
			image_write(to, e->dev, e->off + at, e->data ? e->data + at : NULL, n);
		at += n;
	}
}

static bool is_kept(enum fate_mode mode, bool dev_keeps, uint64_t *rng)
{
	switch (mode) {
	case FATES_ALL:
		return true;
	case FATES_BY_DEV:
	case FATES_UNSEEN:
		return dev_keeps;
	case FATES_RANDOM:
	case FATES_TORN:
		return next_random(rng) % 2;
	default:
		return false;
	}
}

void replay_cut(const struct replay *r, struct image *to, enum fate_mode mode, uint64_t unseen,
	uint32_t unit, uint64_t *rng)
{
	uint64_t devs = next_random(rng); /* or units */

	if (mode == FATES_UNSEEN)
		devs = unseen;
	if (mode == FATES_ALL_TORN) /* of the first two units there is one of each */
		devs = (devs & ~2ull) | (~devs & 1) << 1;
	for (size_t i = 0; i < r->npend; i++) {
		const struct event *e = &r->j->ev[r->pend[i].ev];

		if (r->pend[i].durable || is_kept(mode, devs >> e->dev & 1, rng))
			image_write(to, e->dev, e->off, e->data, e->len);
		else if (mode == FATES_ALL_TORN)
			write_masked(to, e, unit, devs);
		else if (mode == FATES_TORN && next_random(rng) % 2)
			write_torn(to, e, unit, rng);
	}
}
