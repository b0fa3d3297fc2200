/* SPDX-License-Identifier: BSD-3-Clause */
/* Batches of moved blocks: their life, their locks, and the loop over their stages. */
#include "dpu/volume/move.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/move_priv.h"

#define STRIPE_PART 4u /* a fragment takes no more than this part of a segment (store.c) */

/* ---- life ------------------------------------------------------------------------------------------------------ */

static int move_poll(void *arg)
{
	struct move_batch *b = arg;

	if (!b->again)
		return 0;
	b->again = false;
	move_run(b);
	return !b->again;
}

static int arrays_open(struct move_batch *b)
{
	b->items = calloc(b->max, sizeof(*b->items));
	b->spans = calloc(b->max, sizeof(*b->spans));
	b->blk = calloc(b->max, sizeof(*b->blk));
	b->bufs = calloc(b->max, sizeof(*b->bufs));
	b->want = calloc(b->max, sizeof(*b->want));
	b->reads = calloc(b->max, sizeof(*b->reads));
	b->vios = calloc(b->max, sizeof(*b->vios));
	b->iovs = calloc(b->max, sizeof(*b->iovs));
	b->blocks = calloc(b->max, sizeof(*b->blocks));
	b->order = calloc(b->max, sizeof(*b->order));
	b->crc = calloc(b->max, sizeof(*b->crc));
	b->extents = calloc(b->max, sizeof(*b->extents));
	b->mem = mem_alloc((size_t)b->max * IO_BLOCK_BYTES);
	if (!b->items || !b->spans || !b->blk || !b->bufs || !b->want || !b->reads || !b->vios ||
		!b->iovs || !b->blocks || !b->order || !b->crc || !b->extents || !b->mem)
		return -ENOMEM;
	for (uint32_t i = 0; i < b->max; i++)
		b->bufs[i] = b->mem + (size_t)i * IO_BLOCK_BYTES;
	return 0;
}

int move_batch_open(struct store *s, uint32_t max_blocks, struct move_batch **out)
{
	struct move_batch *b = calloc(1, sizeof(*b));

	if (!b)
		return -ENOMEM;
	b->s = s;
	b->max = MIN(MOVE_BLOCKS_MAX, s->piece_blocks / STRIPE_PART);
	if (max_blocks)
		b->max = MIN(b->max, max_blocks);
	if (arrays_open(b) < 0) {
		move_batch_close(b);
		return -ENOMEM;
	}
	poller_add(s->sh, &b->poller, move_poll, b, POLLER_SLEEPS);
	*out = b;
	return 0;
}

void move_batch_close(struct move_batch *b)
{
	if (!b)
		return;
	assert(b->stage == MS_IDLE);
	move_batch_reset(b, &b->cfg);
	poller_del(b->s->sh, &b->poller);
	shard_undefer(b->s->sh, &b->task);
	if (b->mem)
		mem_free(b->mem, (size_t)b->max * IO_BLOCK_BYTES);
	free(b->items);
	free(b->spans);
	free(b->blk);
	free(b->bufs);
	free(b->want);
	free(b->reads);
	free(b->vios);
	free(b->iovs);
	free(b->blocks);
	free(b->order);
	free(b->crc);
	free(b->extents);
	free(b);
}

/* ---- filling ----------------------------------------------------------------------------------------------------- */

/* Volumes of a batch cannot go away: a delete waits for in_flight. */
static void release_volumes(struct move_batch *b)
{
	for (uint32_t i = 0; i < b->n; i++)
		if (b->items[i].vol)
			b->items[i].vol->in_flight--;
}

void move_batch_reset(struct move_batch *b, const struct move_cfg *cfg)
{
	assert(b->stage == MS_IDLE);
	b->cfg = *cfg;
	if (b->done_fn)
		b->done_fn = NULL; /* it has run: volumes were let go then */
	else
		release_volumes(b);
	b->n = b->nspans = b->nblk = 0;
	b->gathered = false;
	b->bytes = b->effort = 0;
	b->status = IO_OK;
}

int volume_excluded_dev(const struct volume *v, uint64_t block)
{
	const struct piece *p = &v->pieces[AREA_DATA][block / v->s->piece_blocks];

	if (v->cfg.layout != VOLUME_COPY || pool_cfg(v->s->pool)->allow_data_device)
		return POOL_DEV_NONE;
	return p->state == PIECE_READY ? p->dev : v->cfg.data_dev;
}

/* Whether the block goes where the others of the batch go; the first one decides where that is. */
static bool same_way(struct move_batch *b, const struct volume *v, uint64_t block)
{
	int excluded;

	if (b->cfg.kind != MOVE_TO_LOG)
		return true;
	excluded = volume_excluded_dev(v, block);
	if (!b->n) {
		b->scheme = v->cfg.scheme;
		b->excluded = excluded;
	}
	return excluded == b->excluded && v->cfg.scheme.k == b->scheme.k &&
	       v->cfg.scheme.m == b->scheme.m;
}

uint32_t move_add(struct move_batch *b, struct volume *v, uint64_t block, uint32_t n, uint32_t ref)
{
	uint32_t did = 0;

	assert(b->stage == MS_IDLE && !b->done_fn);
	while (did < n && b->n < b->max && block + did < v->nblocks &&
		same_way(b, v, block + did)) {
		b->items[b->n++] = (struct move_item){
			.vol = v, .block = block + did, .ref = ref, .result = MOVE_SKIPPED};
		v->in_flight++;
		did++;
	}
	return did;
}

uint32_t move_batch_count(const struct move_batch *b)
{
	return b->n;
}

const struct move_item *move_batch_items(const struct move_batch *b)
{
	return b->items;
}

enum io_status move_batch_status(const struct move_batch *b)
{
	return b->status;
}

uint64_t move_batch_bytes(const struct move_batch *b)
{
	return b->bytes;
}

uint64_t move_batch_effort(const struct move_batch *b)
{
	return b->bytes + b->effort;
}

/* ---- locks --------------------------------------------------------------------------------------------------------- */

static void never_granted(struct range_lock *l)
{
	assert(false);
}

/* What is free of items [first, +n): halves where the whole is not. */
static void lock_items(struct move_batch *b, uint32_t first, uint32_t n)
{
	struct move_item *it = &b->items[first];
	struct move_span *sp = &b->spans[b->nspans];

	sp->lock.granted_fn = never_granted;
	if (range_trylock(&it->vol->locks, &sp->lock, it->block, n, true)) {
		sp->b = b;
		sp->first = (uint16_t)first;
		sp->n = (uint16_t)n;
		sp->pinned = false;
		b->nspans++;
	} else if (n == 1) {
		it->result = MOVE_BUSY;
	} else {
		lock_items(b, first, n / 2);
		lock_items(b, first + n / 2, n - n / 2);
	}
}

static void lock_all(struct move_batch *b)
{
	uint32_t n;

	for (uint32_t i = 0; i < b->n; i += n) {
		const struct move_item *it = &b->items[i];

		n = 1;
		if (it->vol->deleting || b->s->closing)
			continue;
		while (i + n < b->n && b->items[i + n].vol == it->vol &&
			b->items[i + n].block == it->block + n)
			n++;
		lock_items(b, i, n);
	}
	b->next = 0;
	b->stage = MS_PIN;
}

static void span_failed(struct move_batch *b, struct move_span *sp)
{
	for (uint32_t i = sp->first; i < (uint32_t)sp->first + sp->n; i++)
		b->items[i].result = MOVE_FAILED;
	b->status = IO_ERR_RETRY;
}

static void pinned(struct map_pin *pin, int status)
{
	struct move_span *sp = container_of(pin, struct move_span, pin);

	sp->pinned = status >= 0;
	if (status < 0)
		span_failed(sp->b, sp);
	move_part_done(sp->b);
}

static enum step pin_all(struct move_batch *b)
{
	for (; b->next < b->nspans; b->next++) {
		struct move_span *sp = &b->spans[b->next];
		const struct move_item *it = &b->items[sp->first];
		int rc;

		sp->pin.ready_fn = pinned;
		rc = map_pin(it->vol->map, it->block, sp->n, MAP_WRITE, &sp->pin);
		sp->pinned = rc > 0;
		if (rc == 0)
			b->pending++;
		else if (rc < 0)
			span_failed(b, sp);
	}
	b->stage = MS_LOOK;
	return b->pending ? PARK : GO;
}

/* ---- looking --------------------------------------------------------------------------------------------------------- */

static bool has_place(const struct volume *v, uint64_t block)
{
	const struct piece *p = &v->pieces[AREA_DATA][block / v->s->piece_blocks];

	return v->cfg.layout == VOLUME_COPY && p->state == PIECE_READY &&
	       pool_dev_usable(v->s->pool, p->dev);
}

static bool wanted(struct move_batch *b, const struct move_item *it, const struct map_entry *e)
{
	const struct volume *v = it->vol;
	bool plain = e->state == BLOCK_DATA || e->state == BLOCK_INTERMEDIATE;

	if (it->ref != MOVE_ANY_REF && (!map_in_log(e->state) || e->ref != it->ref))
		return false;
	switch (b->cfg.kind) {
	case MOVE_TO_LOG:
		if (!map_in_log(e->state) && !plain)
			return false;
		break;
	case MOVE_TO_AREA:
		if (!map_in_log(e->state) || !has_place(v, it->block))
			return false;
		break;
	case MOVE_CHECK_AREA:
		if (e->state != BLOCK_DATA_LOG || !has_place(v, it->block))
			return false;
		break;
	case MOVE_FORGET_AREA:
		if (e->state != BLOCK_DATA_LOG || v->cfg.layout != VOLUME_FRAGMENTS)
			return false;
		break;
	}
	return !b->cfg.filter_fn || b->cfg.filter_fn(b->cfg.filter_arg, v, it->block, e);
}

static void look_all(struct move_batch *b)
{
	static const enum move_stage first[] = {[MOVE_TO_LOG] = MS_READ,
		[MOVE_TO_AREA] = MS_READ,
		[MOVE_CHECK_AREA] = MS_CHECK,
		[MOVE_FORGET_AREA] = MS_READ};

	for (uint32_t x = 0; x < b->nspans; x++) {
		const struct move_span *sp = &b->spans[x];

		for (uint32_t i = sp->first; sp->pinned && i < (uint32_t)sp->first + sp->n; i++) {
			struct move_item *it = &b->items[i];
			struct map_entry e = map_get(it->vol->map, it->block);

			if (!wanted(b, it, &e))
				continue;
			/* Layouts and devices may have changed since it was added: another batch takes it. */
			if (b->cfg.kind == MOVE_TO_LOG && !same_way(b, it->vol, it->block)) {
				it->result = MOVE_BUSY;
				continue;
			}
			b->want[b->nblk] = e.crc;
			b->blk[b->nblk++] = (struct move_blk){.e = e, .item = (uint16_t)i};
		}
	}
	b->next = 0;
	b->singly = b->failed_run = false;
	b->stage = b->nblk ? first[b->cfg.kind] : MS_END;
}

/* ---- the loop ---------------------------------------------------------------------------------------------------------- */

static void batch_end(struct move_batch *b)
{
	assert(!b->pending);
	for (uint32_t x = 0; x < b->nspans; x++) {
		struct move_span *sp = &b->spans[x];
		struct volume *v = b->items[sp->first].vol;

		if (sp->pinned)
			map_unpin(v->map, &sp->pin);
		range_unlock(&v->locks, &sp->lock);
	}
	release_volumes(b);
	b->again = false;
	b->stage = MS_IDLE;
	b->done_fn(b->done_arg, b);
}

static enum step batch_step(struct move_batch *b)
{
	switch (b->stage) {
	case MS_LOCK:
		lock_all(b);
		return GO;
	case MS_PIN:
		return pin_all(b);
	case MS_LOOK:
		look_all(b);
		return GO;
	case MS_CHECK:
	case MS_READ:
	case MS_PLACE:
	case MS_LOSE:
		return move_read_step(b);
	case MS_APPEND:
	case MS_APPLY:
	case MS_FILL:
	case MS_FORGET:
		return move_write_step(b);
	case MS_IDLE:
	case MS_END:
		break;
	}
	return GO;
}

void move_run(struct move_batch *b)
{
	while (b->stage != MS_END)
		if (batch_step(b) == PARK)
			return;
	batch_end(b);
}

static void begin(void *arg)
{
	move_run(arg);
}

int move_batch_start(
	struct move_batch *b, void (*done_fn)(void *arg, struct move_batch *b), void *arg)
{
	if (b->stage != MS_IDLE || b->done_fn || !b->n)
		return -EINVAL;
	b->done_fn = done_fn;
	b->done_arg = arg;
	b->stage = MS_LOCK;
	shard_defer(b->s->sh, &b->task, begin, b);
	return 0;
}

/* ---- looking at maps, from outside --------------------------------------------------------------------------------------- */

uint64_t volume_nblocks(const struct volume *v)
{
	return v->nblocks;
}

uint32_t volume_look(const struct volume *v, uint64_t block, uint32_t n, struct map_entry *out)
{
	uint32_t i;

	for (i = 0; i < n && block + i < v->nblocks; i++)
		out[i] = map_get(v->map, block + i);
	return i;
}

uint64_t volume_next_mapped(const struct volume *v, uint64_t block)
{
	return map_next_page(v->map, MIN(block, v->nblocks));
}

struct volume *volume_by_id(struct store *s, uint32_t id)
{
	struct volume *v;

	TAILQ_FOREACH (v, &s->volumes, link)
		if (v->id == id && !v->deleting)
			return v;
	return NULL;
}

void store_foreground(const struct store *s, uint64_t *bytes, uint32_t *in_flight)
{
	*bytes = s->foreground_bytes;
	*in_flight = s->in_flight - s->background;
}
