/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Passes over the volumes of a transfer, at the source: the first one over everything that is mapped, the others over what has been written since. What is taken of a
 * pass is read, and goes to the destination; a pass ends when all of that is back, so no two parts of one place are under way at once.
 */
#include <errno.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/mover/transfer_priv.h"

#define PARTS_PER_ROUND 64u /* that need no I/O: what is not there is gone over */
#define TAKE_BLOCKS     (1ull << 22) /* 16 GiB at once: much of it may be nothing */
#define FULL_NS         MOVER_MS
#define AGAIN_NS        (500 * MOVER_MS) /* devices are away, or such */

/* ---- parts ------------------------------------------------------------------------------------------------------ */

int parts_open(struct transfer *t)
{
	for (unsigned int i = 0; i < PARTS; i++) {
		t->parts[i].t = t;
		t->parts[i].buf = mem_alloc(PART_BYTES);
		if (!t->parts[i].buf)
			return -ENOMEM;
	}
	return 0;
}

void parts_close(struct transfer *t)
{
	for (unsigned int i = 0; i < PARTS; i++)
		if (t->parts[i].buf)
			mem_free(t->parts[i].buf, PART_BYTES);
}

unsigned int parts_busy(const struct transfer *t)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < PARTS; i++)
		n += t->parts[i].state != PART_FREE;
	return n;
}

static struct part *part_get(struct transfer *t)
{
	for (unsigned int i = 0; i < PARTS; i++)
		if (t->parts[i].state == PART_FREE)
			return &t->parts[i];
	return NULL;
}

static struct volume *part_source(const struct part *p)
{
	return p->t->vols[p->vol].source;
}

/* It is copied in a later pass. */
static void part_put_off(struct part *p, const char *why)
{
	struct transfer *t = p->t;

	p->state = PART_FREE;
	volume_track_mark(part_source(p), p->block, p->n);
	t->not_before_ns = shard_now_ns(t->sh) + AGAIN_NS;
	transfer_say(t, "%s", why);
}

static void part_send(struct part *p)
{
	p->state = PART_AWAY;
	shard_post_msg(p->t->to_sh, &p->msg, land_part, p);
}

static void part_lost(struct part *p, uint64_t block)
{
	p->state = PART_FREE;
	transfer_fail(p->t, "%s: block %llu cannot be read: restore it or write it anew, then move",
		p->t->vols[p->vol].want.cfg.name, (unsigned long long)block);
}

static void part_read(struct part *p);

static void part_was_read(struct io_req *req)
{
	struct part *p = req->arg;
	bool probing = p->probe < PART_BLOCKS;

	if (p->t->closing) {
		p->state = PART_FREE;
		return;
	}
	switch (req->status) {
	case IO_OK:
		if (probing && ++p->probe < p->n)
			part_read(p);
		else
			part_send(p);
		return;
	case IO_ERR_MEDIA:
		if (probing) {
			part_lost(p, p->block + p->probe);
			return;
		}
		p->probe = 0;
		part_read(p);
		return;
	case IO_ERR_RETRY:
	case IO_ERR_NO_SPACE:
		part_put_off(p, "waits for devices of the source");
		return;
	default:
		p->state = PART_FREE;
		transfer_fail(p->t, "%s: cannot be read at block %llu: %s",
			p->t->vols[p->vol].want.cfg.name, (unsigned long long)p->block,
			io_status_name(req->status));
	}
}

/* All of it, or the block that is probed. */
static void part_read(struct part *p)
{
	uint64_t first = p->probe < PART_BLOCKS ? p->probe : 0;
	uint64_t n = p->probe < PART_BLOCKS ? 1 : p->n;
	int rc;

	p->iov = (struct iovec){p->buf + first * IO_BLOCK_BYTES, (size_t)n * IO_BLOCK_BYTES};
	p->req = (struct io_req){.op = IO_READ,
		.flags = IO_BACKGROUND,
		.vm = p->t->cfg.vm,
		.off_bytes = (p->block + first) * IO_BLOCK_BYTES,
		.len_bytes = p->iov.iov_len,
		.iov = &p->iov,
		.niov = 1,
		.stable = true,
		.done_fn = part_was_read,
		.arg = p};
	p->state = PART_READING;
	rc = volume_submit(part_source(p), &p->req);
	if (rc == -EAGAIN)
		p->state = PART_TO_READ;
	else if (rc < 0)
		part_put_off(p, "waits for the source");
}

void part_back(void *arg)
{
	struct part *p = arg;
	struct transfer *t = p->t;
	const char *name = t->vols[p->vol].want.cfg.name;

	p->state = PART_FREE;
	switch (p->status) {
	case IO_OK:
		if (!p->nothing)
			t->pub.copied_bytes += p->n * IO_BLOCK_BYTES;
		t->pub.done_bytes += p->n * IO_BLOCK_BYTES;
		return;
	case IO_ERR_NO_SPACE:
		transfer_fail(t, "%s: shard %u has no room left for block %llu", name,
			t->cfg.to_shard, (unsigned long long)(p->block + p->pos));
		return;
	case IO_ERR_RETRY:
		part_put_off(p, "waits for devices of the destination");
		return;
	default:
		transfer_fail(t, "%s: block %llu could not be written in shard %u: %s", name,
			(unsigned long long)(p->block + p->pos), t->cfg.to_shard,
			io_status_name(p->status));
	}
}

/* ---- what there is to do ------------------------------------------------------------------------------------------- */

static void mapped_next(struct tvol *x)
{
	x->at = volume_next_mapped(x->source, x->cursor);
	x->end = MIN(x->at + PART_BLOCKS, x->nblocks);
	x->cursor = MAX(x->end, x->at);
	if (x->at < x->end)
		volume_track_clear(x->source, x->at, x->end - x->at);
}

/* x->at, x->end: the next run of the pass; false: the volume is through. */
static bool take(struct transfer *t, struct tvol *x)
{
	uint64_t n;

	if (x->at < x->end)
		return true;
	if (x->cursor >= x->nblocks)
		return false;
	if (t->fresh) {
		mapped_next(x);
		return x->at < x->end;
	}
	n = volume_track_take(x->source, &x->cursor, x->nblocks, TAKE_BLOCKS, &x->at);
	x->end = x->at + n;
	return n > 0;
}

/* A part of the run, which begins at x->at, as it is now. */
static void cut(struct tvol *x, struct part *p)
{
	uint64_t mapped = MIN(volume_next_mapped(x->source, x->at), x->end);
	bool all = true;

	p->block = x->at;
	p->n = mapped - x->at;
	p->nothing = p->n >= PART_BLOCKS;
	if (!p->nothing) {
		p->n = volume_kinds(
			x->source, x->at, (uint32_t)MIN(x->end - x->at, PART_BLOCKS), p->kinds);
		for (uint32_t i = 0; i < p->n; i++)
			all &= p->kinds[i] == KIND_NOTHING;
		p->nothing = all;
	}
	x->at += p->n;
}

static int begin_part(struct transfer *t, struct part *p, unsigned int vol)
{
	p->vol = vol;
	p->fresh = t->fresh;
	p->hurry = t->step == STEP_REST;
	p->probe = PART_BLOCKS;
	cut(&t->vols[vol], p);
	t->pass_bytes += p->n * IO_BLOCK_BYTES;
	if (p->nothing && p->fresh) {
		t->pub.done_bytes += p->n * IO_BLOCK_BYTES;
		return 0;
	}
	if (p->nothing) {
		part_send(p);
		return 1;
	}
	for (uint32_t i = 0; i < p->n; i++)
		if (p->kinds[i] == KIND_LOST) {
			part_lost(p, p->block + i);
			return 1;
		}
	throttle_charge(&t->cfg.from->throttle, p->n * IO_BLOCK_BYTES, false);
	part_read(p);
	return 1;
}

static int read_again(struct transfer *t)
{
	int did = 0;

	for (unsigned int i = 0; i < PARTS; i++) {
		if (t->parts[i].state != PART_TO_READ)
			continue;
		part_read(&t->parts[i]);
		did += t->parts[i].state != PART_TO_READ;
	}
	return did;
}

static bool may_begin(const struct transfer *t)
{
	return !t->stop && !t->too_long && shard_now_ns(t->sh) >= t->not_before_ns &&
	       (t->step == STEP_REST ||
		       (!t->operator_pause && throttle_ready(&t->cfg.from->throttle)));
}

int pass_work(struct transfer *t)
{
	int did = read_again(t);
	unsigned int n = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes; i++) {
		struct part *p;

		while (may_begin(t) && n++ < PARTS_PER_ROUND && (p = part_get(t)) &&
			take(t, &t->vols[i]))
			did += begin_part(t, p, i);
		if (n > PARTS_PER_ROUND)
			return did + 1;
	}
	return did;
}

/* ---- passes ----------------------------------------------------------------------------------------------------------- */

void pass_begin(struct transfer *t)
{
	t->pass_bytes = 0;
	t->pub.done_bytes = 0;
	t->pub.total_bytes = pass_dirty(t);
	if (t->fresh)
		t->pub.total_bytes = 0;
	for (unsigned int i = 0; i < t->cfg.nvolumes; i++) {
		struct tvol *x = &t->vols[i];
		struct volume_stats st;

		x->cursor = x->at = x->end = 0;
		if (!t->fresh)
			continue;
		volume_stats(x->source, &st);
		for (unsigned int k = BLOCK_DATA; k < BLOCK_STATES; k++)
			t->pub.total_bytes += st.blocks[k] * IO_BLOCK_BYTES;
	}
}

bool pass_is_over(struct transfer *t)
{
	if (parts_busy(t))
		return false;
	for (unsigned int i = 0; i < t->cfg.nvolumes; i++)
		if (take(t, &t->vols[i]))
			return false;
	return true;
}

void pass_give_up(struct transfer *t)
{
	for (unsigned int i = 0; i < t->cfg.nvolumes; i++) {
		struct tvol *x = &t->vols[i];

		if (x->at < x->end)
			volume_track_mark(x->source, x->at, x->end - x->at);
		x->at = x->end = 0;
	}
}

uint64_t pass_dirty(struct transfer *t)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes; i++)
		sum += volume_track_bytes(t->vols[i].source);
	return sum;
}

/* ---- volumes that change -------------------------------------------------------------------------------------------------- */

static void dev_name(struct transfer *t, int dev, char name[64])
{
	memset(name, 0, 64);
	if (dev != POOL_DEV_NONE)
		memcpy(name, pool_dev(t->cfg.from->pool, (unsigned int)dev)->name, 63);
}

static bool take_want(struct transfer *t, const struct volume *v, struct tvol_want *w)
{
	struct tvol_want now = {.cfg = *volume_cfg(v)};
	bool same;

	dev_name(t, now.cfg.data_dev, now.data);
	dev_name(t, now.cfg.intermediate_dev, now.intermediate);
	same = w->cfg.size_bytes == now.cfg.size_bytes && w->cfg.layout == now.cfg.layout &&
	       w->cfg.scheme.k == now.cfg.scheme.k && w->cfg.scheme.m == now.cfg.scheme.m &&
	       !strcmp(w->data, now.data) && !strcmp(w->intermediate, now.intermediate);
	*w = now;
	return !same;
}

bool pass_volumes_changed(struct transfer *t)
{
	bool changed = false;

	for (unsigned int i = 0; i < t->cfg.nvolumes; i++)
		changed |= take_want(t, t->vols[i].source, &t->vols[i].want);
	return changed;
}
