/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading, for requests, for read-modify-write and for repairs.
 *
 *	first pass:   nothing -> zeros | data, data+log, intermediate -> the place | log -> noted
 *	second pass:  what was noted, and every data+log block that the data area did not give back with the right CRC -> the log
 */
#include <errno.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/pool/health.h"
#include "dpu/volume/store_priv.h"

#define SREAD_BLOCKS 64u
#define EVENT_GAP_NS 1000000000ull /* at most one media-error event per volume and second */

static void resume(struct op *op)
{
	if (--op->pending == 0)
		op_run(op);
}

/* ---- places ------------------------------------------------------------------------------------------------------- */

static bool area_of(uint8_t state, enum area_kind *kind)
{
	*kind = state == BLOCK_INTERMEDIATE ? AREA_INTERMEDIATE : AREA_DATA;
	return state == BLOCK_DATA || state == BLOCK_DATA_LOG || state == BLOCK_INTERMEDIATE;
}

static void read_failed(struct op *op, uint32_t i)
{
	if (!op->rd_failed || i < op->rd_bad)
		op->rd_bad = i;
	op->rd_failed = true;
}

static void check_block(struct op *op, uint32_t i, bool read_ok)
{
	uint8_t state = map_state(op->vol->map, op->block + i);

	if (state == BLOCK_DATA_LOG) {
		if (!read_ok || crc32c(op->blk[i], IO_BLOCK_BYTES) != op->crc[i])
			bit_set(op->from_log, i);
		else
			op->vol->stats.from_data++;
	} else if (!read_ok) {
		read_failed(op, i);
	} else if (state == BLOCK_INTERMEDIATE) {
		op->vol->stats.from_intermediate++;
	} else {
		op->vol->stats.from_data++;
	}
}

static void place_read(struct vio *v)
{
	struct op *op = v->op;

	for (uint32_t i = v->first; i < (uint32_t)v->first + v->n; i++)
		check_block(op, i, v->io.status == FLASH_OK);
	vio_put(op->s, v);
	resume(op);
}

/* Appends blk[from, from + n) to op->iov, neighbours merged; returns how many entries. */
int op_add_iov(struct op *op, uint32_t from, uint32_t n)
{
	uint32_t start = op->niov;

	for (uint32_t i = from; i < from + n; i++) {
		struct iovec *last = &op->iov[op->niov - (op->niov > start)];

		if (op->niov > start && (uint8_t *)last->iov_base + last->iov_len == op->blk[i])
			last->iov_len += IO_BLOCK_BYTES;
		else
			op->iov[op->niov++] = (struct iovec){op->blk[i], IO_BLOCK_BYTES};
	}
	return (int)(op->niov - start);
}

/* How many blocks from i on lie next to each other in the same piece. */
static uint32_t place_run(struct op *op, uint32_t i, enum area_kind kind)
{
	uint64_t in_piece = op->s->piece_blocks - (op->block + i) % op->s->piece_blocks;
	uint32_t n = 0, max = (uint32_t)MIN(op->rd_end - i, in_piece);

	while (n < max) {
		struct map_entry e = map_get(op->vol->map, op->block + i + n);
		enum area_kind k;

		if (!area_of(e.state, &k) || k != kind)
			break;
		op->crc[i + n] = e.crc;
		n++;
	}
	return n;
}

/* Notes the blocks of a run that the log has as well, up to the first that it has not; 0: all of them. Else how many from i on are only here. */
static uint32_t read_around(struct op *op, uint32_t i, uint32_t n)
{
	uint32_t only_here = 0;

	while (only_here < n &&
		map_state(op->vol->map, op->block + i + only_here) != BLOCK_DATA_LOG)
		only_here++;
	if (only_here)
		return only_here;
	while (op->rd_next < i + n &&
		map_state(op->vol->map, op->block + op->rd_next) == BLOCK_DATA_LOG)
		bit_set(op->from_log, op->rd_next++);
	return 0;
}

/* -EAGAIN: no I/O left. */
static int read_place(struct op *op, uint32_t i, enum area_kind kind)
{
	struct piece *p = area_piece(op->vol, kind, op->block + i);
	uint32_t n = place_run(op, i, kind);
	struct vio *v;
	uint32_t iov;

	/* Hanging: what the log has too comes from there. */
	if (p->state == PIECE_READY && pool_dev_hung(op->s->pool, p->dev))
		n = read_around(op, i, n);
	if (!n)
		return 0;
	if (p->state != PIECE_READY || !pool_dev_usable(op->s->pool, p->dev)) {
		for (uint32_t b = i; b < i + n; b++)
			check_block(op, b, false);
		op->rd_next += n;
		return 0;
	}
	v = vio_get(op->s);
	if (!v)
		return -EAGAIN;
	iov = op->niov;
	v->op = op;
	v->dev = p->dev;
	v->first = (uint16_t)i;
	v->n = (uint16_t)n;
	v->done_fn = place_read;
	v->io = (struct flash_io){.op = FLASH_READ,
		.off = area_off(op->vol, p, op->block + i),
		.len = (uint64_t)n * IO_BLOCK_BYTES,
		.niov = op_add_iov(op, i, n),
		.iov = &op->iov[iov]};
	op->pending++;
	op->rd_next += n;
	vio_submit(op->s, v);
	return 0;
}

static int first_pass(struct op *op)
{
	while (op->rd_next < op->rd_end) {
		uint32_t i = op->rd_next;
		uint8_t state = map_state(op->vol->map, op->block + i);
		enum area_kind kind;

		if (area_of(state, &kind)) {
			if (read_place(op, i, kind) < 0)
				return -EAGAIN;
			continue;
		}
		if (state == BLOCK_LOG) {
			bit_set(op->from_log, i);
		} else if (state == MAP_STATE_LOST) {
			read_failed(op, i);
		} else {
			memset(op->blk[i], 0, IO_BLOCK_BYTES);
			op->vol->stats.from_nothing++;
		}
		op->rd_next++;
	}
	return 0;
}

/* ---- the log --------------------------------------------------------------------------------------------------------- */

static void log_read(struct stripe_read *r, enum io_status status)
{
	struct sread *sr = r->arg;
	struct op *op = sr->op;

	if (status != IO_OK)
		read_failed(
			op, sr->first + (r->bad_map ? (uint32_t)__builtin_ctzll(r->bad_map) : 0));
	else if (r->decoded)
		op->vol->stats.from_decode += sr->n;
	else
		op->vol->stats.from_log += sr->n;
	if (r->decoded)
		heal_blocks(op->vol, op->block + sr->first, sr->n, r->ref);
	TAILQ_INSERT_HEAD(&op->s->free_sreads, sr, link);
	resume(op);
}

static uint32_t log_run(struct op *op, uint32_t i, const struct map_entry *first)
{
	uint32_t n = 0;

	while (i + n < op->rd_end && n < SREAD_BLOCKS && bit_get(op->from_log, i + n)) {
		struct map_entry e = map_get(op->vol->map, op->block + i + n);

		if (e.ref != first->ref || e.pos != first->pos + n)
			break;
		op->crc[i + n] = e.crc;
		n++;
	}
	return n;
}

static int read_log(struct op *op, uint32_t i)
{
	struct map_entry e = map_get(op->vol->map, op->block + i);
	struct sread *sr = TAILQ_FIRST(&op->s->free_sreads);
	int rc;

	if (!sr)
		return -EAGAIN;
	sr->op = op;
	sr->first = (uint16_t)i;
	sr->n = (uint16_t)log_run(op, i, &e);
	sr->r = (struct stripe_read){.ref = e.ref,
		.pos = e.pos,
		.nblocks = sr->n,
		.crc = &op->crc[i],
		.bufs = &op->blk[i],
		.done_fn = log_read,
		.arg = sr};
	TAILQ_REMOVE(&op->s->free_sreads, sr, link);
	rc = stripelog_read(op->s->log, &sr->r);
	if (rc < 0) {
		TAILQ_INSERT_HEAD(&op->s->free_sreads, sr, link);
		if (rc == -EAGAIN)
			return rc;
		read_failed(op, i);
	} else {
		op->pending++;
	}
	op->rd_next += sr->n;
	return 0;
}

static int second_pass(struct op *op)
{
	while (op->rd_next < op->rd_end) {
		if (!bit_get(op->from_log, op->rd_next))
			op->rd_next++;
		else if (read_log(op, op->rd_next) < 0)
			return -EAGAIN;
	}
	return 0;
}

/* ---- both ------------------------------------------------------------------------------------------------------------------ */

void read_begin(struct op *op, uint32_t from, uint32_t to)
{
	op->rd_first = op->rd_next = from;
	op->rd_end = to;
	op->rd_on = true;
	op->rd_log = op->rd_failed = false;
	op->niov = 0;
	memset(op->from_log, 0, sizeof(op->from_log));
}

static enum step wait_or_retry(struct op *op)
{
	return op->pending ? PARK : op_retry(op);
}

enum step read_go(struct op *op)
{
	if (!op->rd_log) {
		if (first_pass(op) < 0)
			return wait_or_retry(op);
		if (op->pending)
			return PARK;
		op->rd_log = true;
		op->rd_next = op->rd_first;
	}
	if (second_pass(op) < 0)
		return wait_or_retry(op);
	if (op->pending)
		return PARK;
	op->rd_on = false;
	return GO;
}

void volume_media_error(struct volume *v, uint64_t block)
{
	struct store *s = v->s;
	uint64_t now = shard_now_ns(s->sh);

	v->stats.media_errors++;
	if (v->media_event_ns && now - v->media_event_ns < EVENT_GAP_NS)
		return;
	v->media_event_ns = now;
	store_event(s, STORE_EVENT_MEDIA_ERROR, v->cfg.name, "block %llu cannot be had any more",
		(unsigned long long)block);
}

/* ---- repair -------------------------------------------------------------------------------------------------------------------- */

/* Is blk[i] to be put right in the data area? Under the exclusive lock, after reading. */
static bool wants_repair(struct op *op, uint32_t i)
{
	struct piece *p = area_piece(op->vol, AREA_DATA, op->block + i);

	return bit_get(op->from_log, i) &&
	       map_state(op->vol->map, op->block + i) == BLOCK_DATA_LOG &&
	       p->state == PIECE_READY && store_dev_answers(op->s, p->dev);
}

static void repair_written(struct vio *v)
{
	struct op *op = v->op;
	struct volume *vol = op->vol;

	if (v->io.status == FLASH_OK) {
		vol->stats.repaired += v->n;
		volume_wrote(vol, v->dev, false);
		store_event(op->s, STORE_EVENT_REPAIRED, vol->cfg.name,
			"%u blocks at %llu put right in the data area from the log", v->n,
			(unsigned long long)(op->block + v->first));
	} else {
		/* The place is no good: the log alone has it from now on. (No record: recovery judges the data area by CRC.) */
		for (uint32_t i = v->first; i < (uint32_t)v->first + v->n; i++) {
			struct map_entry e = map_get(vol->map, op->block + i);

			e.state = BLOCK_LOG;
			map_set(vol->map, op->block + i, &e);
		}
	}
	vio_put(op->s, v);
	resume(op);
}

static enum step repair_write(struct op *op)
{
	while (op->rd_next < op->n) {
		uint32_t i = op->rd_next, n = 0, iov = op->niov;
		struct piece *p = area_piece(op->vol, AREA_DATA, op->block + i);
		struct vio *v;

		while (i + n < op->n && wants_repair(op, i + n))
			n++;
		if (!n) {
			op->rd_next++;
			continue;
		}
		v = vio_get(op->s);
		if (!v)
			return wait_or_retry(op);
		v->op = op;
		v->dev = p->dev;
		v->first = (uint16_t)i;
		v->n = (uint16_t)n;
		v->done_fn = repair_written;
		v->io = (struct flash_io){.op = FLASH_WRITE,
			.off = area_off(op->vol, p, op->block + i),
			.len = (uint64_t)n * IO_BLOCK_BYTES,
			.niov = op_add_iov(op, i, n),
			.iov = &op->iov[iov],
			.checked = true};
		piece_written(p, op->block + i, n);
		op->pending++;
		op->rd_next += n;
		vio_submit(op->s, v);
	}
	if (op->pending)
		return PARK;
	op->stage = ST_DONE;
	return GO;
}

/* What a read of a VM found wrong with a device that is there. */
static void ask_for_repair(struct op *op)
{
	uint32_t i = 0;

	while (i < op->n && !wants_repair(op, i))
		i++;
	if (i < op->n)
		repair_start(op->vol, op->block + i, op->n - i);
}

/* ---- the stages -------------------------------------------------------------------------------------------------------------------- */

static enum step read_done(struct op *op)
{
	if (op->rd_failed) {
		if (op->kind == OP_READ)
			volume_media_error(op->vol, op->block + op->rd_bad);
		op_fail(op, IO_ERR_MEDIA);
		return GO;
	}
	if (op->kind == OP_REPAIR) {
		op->niov = 0;
		op->rd_next = 0;
		op->stage = ST_ISSUE;
		return GO;
	}
	ask_for_repair(op);
	op_scatter(op);
	op_next_chunk(op);
	return GO;
}

enum step read_step(struct op *op)
{
	switch (op->stage) {
	case ST_CHUNK:
		op_set_chunk(op, op->s->piece_blocks);
		op->stage = ST_BUFFERS;
		return op_pin(op, MAP_READ);
	case ST_BUFFERS:
		op->stage = ST_READ;
		return op_buffers(op) ? GO : PARK;
	case ST_READ:
		if (!op->rd_on) {
			if (op->kind == OP_READ)
				op_stage_end(op, STORE_READ, STORE_ADMIT);
			read_begin(op, 0, op->n);
		}
		if (read_go(op) == PARK)
			return PARK;
		if (op->kind == OP_READ)
			op_stage_end(op, STORE_READ, STORE_DEVICE);
		return read_done(op);
	case ST_ISSUE:
		return repair_write(op);
	default:
		return GO;
	}
}
