/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing what a batch moves: one stripe with all of it, then the map; or the data area in place, then the map.
 *
 * The stripe says of each run of blocks what a VM's write of them would say. It need not be flushed: until the stripe that it replaces may be
 * reused a checkpoint has flushed everything, and a crash before finds the one or the other, with the same contents.
 */
#include <errno.h>

#include "common/base/util.h"
#include "dpu/volume/move_priv.h"
#include "dpu/volume/track.h"

/* ---- to the log -------------------------------------------------------------------------------------------------- */

/* The stripe's blocks, and extents of neighbours with a fresh sequence each. */
static void gather(struct move_batch *b)
{
	struct stripe_append *a = &b->app;
	struct stripe_extent *x = NULL;

	*a = (struct stripe_append){.scheme = b->scheme,
		.excluded_dev = b->excluded,
		.blocks = b->blocks,
		.extents = b->extents,
		.crc = b->crc};
	for (uint32_t i = 0; i < b->nblk; i++) {
		const struct move_item *it = move_item_of(b, &b->blk[i]);

		if (b->blk[i].done)
			continue;
		b->blocks[a->nblocks] = b->bufs[i];
		b->order[a->nblocks++] = (uint16_t)i;
		if (x && x->volume == it->vol->id && x->block + x->nblocks == it->block) {
			x->nblocks++;
			continue;
		}
		x = &b->extents[a->nextents++];
		*x = (struct stripe_extent){.block = it->block,
			.seq = it->vol->next_seq++,
			.volume = it->vol->id,
			.nblocks = 1};
	}
}

static void appended(struct stripe_append *a, enum io_status status)
{
	struct move_batch *b = a->arg;

	b->status = status;
	b->stage = MS_APPLY;
	move_run(b);
}

static enum io_status status_of(int rc)
{
	return rc == -ENOSPC ? IO_ERR_NO_SPACE : rc == -EROFS ? IO_ERR_RETRY : IO_ERR_INTERNAL;
}

static void fail_all(struct move_batch *b)
{
	for (uint32_t i = 0; i < b->nblk; i++)
		if (!b->blk[i].done)
			move_result_of(b, &b->blk[i], MOVE_FAILED);
	b->stage = MS_END;
}

static enum step append(struct move_batch *b)
{
	struct stripe_append *a = &b->app;
	int rc;

	if (!b->gathered)
		gather(b);
	b->gathered = true;
	if (!a->nblocks) {
		b->stage = MS_END;
		return GO;
	}
	a->mover = true;
	a->cls = b->cfg.reserve ? POOL_FOR_MOVER : POOL_FOR_USER;
	a->done_fn = appended;
	a->arg = b;
	b->era = era_enter(b->s);
	rc = stripelog_append(b->s->log, a);
	if (rc == 0)
		return PARK;
	era_leave(b->s, b->era);
	if (rc == -EAGAIN) {
		b->again = true;
		return PARK;
	}
	b->status = status_of(rc);
	fail_all(b);
	return GO;
}

/* The state a block has once it is in the log. */
static uint8_t state_in_log(const struct move_item *it, uint8_t was)
{
	if (it->vol->cfg.layout == VOLUME_COPY && (was == BLOCK_DATA || was == BLOCK_DATA_LOG))
		return BLOCK_DATA_LOG;
	return BLOCK_LOG;
}

static enum step apply(struct move_batch *b)
{
	if (b->status != IO_OK) {
		era_leave(b->s, b->era);
		fail_all(b);
		return GO;
	}
	for (uint32_t pos = 0; pos < b->app.nblocks; pos++) {
		struct move_blk *k = &b->blk[b->order[pos]];
		const struct move_item *it = move_item_of(b, k);
		struct map_entry e = {.crc = b->crc[pos],
			.ref = b->app.ref,
			.pos = (uint16_t)pos,
			.state = state_in_log(it, k->e.state)};

		map_set(it->vol->map, it->block, &e);
		if (map_in_log(k->e.state))
			stripelog_put(b->s->log, k->e.ref, 1);
		else
			volume_track_mark(it->vol, it->block, 1); /* protected from now on */
		move_result_of(b, k, MOVE_MOVED);
	}
	era_leave(b->s, b->era);
	b->bytes += (uint64_t)b->app.nblocks * IO_BLOCK_BYTES;
	b->stage = MS_END;
	return GO;
}

/* ---- to the data area -------------------------------------------------------------------------------------------------- */

static void filled(struct vio *v)
{
	struct move_batch *b = v->arg;
	bool ok = v->io.status == FLASH_OK;

	for (uint32_t i = v->first; i < (uint32_t)v->first + v->n; i++) {
		struct move_blk *k = &b->blk[i];
		const struct move_item *it = move_item_of(b, k);

		/* No record: recovery takes the data area for what its CRCs say (the log is the authority). */
		k->e.state = ok ? BLOCK_DATA_LOG : BLOCK_LOG;
		map_set(it->vol->map, it->block, &k->e);
		move_result_of(b, k, ok ? MOVE_MOVED : MOVE_FAILED);
	}
	if (ok)
		volume_wrote(move_item_of(b, &b->blk[v->first])->vol, v->dev, false);
	else
		b->status = IO_ERR_MEDIA;
	b->s->stats.data_bytes[v->dev] += v->io.len;
	b->bytes += v->io.len;
	move_part_done(b);
}

static enum step fill(struct move_batch *b)
{
	while (b->next < b->nblk) {
		uint32_t i = b->next, n = 1;
		const struct move_item *it = move_item_of(b, &b->blk[i]);
		struct piece *p = area_piece(it->vol, AREA_DATA, it->block);

		if (b->blk[i].done) {
			b->next++;
			continue;
		}
		while (i + n < b->nblk && !b->blk[i + n].done && move_follows(b, i + n - 1) &&
			(it->block + n) % b->s->piece_blocks)
			n++;
		piece_written(p, it->block, n);
		b->next += n;
		move_submit(b, p, i, n, FLASH_WRITE, filled);
	}
	b->stage = MS_END;
	return b->pending ? PARK : GO;
}

/* Layout fragments: the copies in the data area do not count any more, where the log has been seen to give the same. */
static void forget(struct move_batch *b)
{
	for (uint32_t i = 0; i < b->nblk; i++) {
		const struct move_item *it = move_item_of(b, &b->blk[i]);

		if (!b->blk[i].have) {
			/* The copy is all there is: it stays. */
			if (b->blk[i].passing) {
				move_result_of(b, &b->blk[i], MOVE_FAILED);
				b->status = IO_ERR_RETRY;
			}
			continue;
		}
		b->blk[i].e.state = BLOCK_LOG;
		map_set(it->vol->map, it->block, &b->blk[i].e);
		move_result_of(b, &b->blk[i], MOVE_MOVED);
		area_left(it->vol, it->block, 1);
	}
	b->stage = MS_END;
}

enum step move_write_step(struct move_batch *b)
{
	switch (b->stage) {
	case MS_APPEND:
		return append(b);
	case MS_APPLY:
		return apply(b);
	case MS_FILL:
		return fill(b);
	default:
		forget(b);
		return GO;
	}
}
