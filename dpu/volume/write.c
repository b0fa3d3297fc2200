/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing a chunk. What makes the order safe:
 *
 *	protect       data area and queue side by side, then the map. The log is the authority for these blocks, so the data area
 *	              may be old, new or torn at any moment.
 *	plain,        rewrite of a block that is there already: in place, no record.
 *	intermediate  any other: data, FLUSH of its device, record, map. Until the record is complete the old state, untouched, is what
 *	              recovery finds; once it may be durable the data is. (This holds for data+log -> data as well: until the record, a
 *	              half-written data area is judged by CRC and served from the log. Nothing has to be read or repaired first.)
 *	              Without the flush only where the place is known to hold zeros, so that losing the data but
 *	              not the record shows what an unmapped block shows.
 */
#include <errno.h>

#include "common/base/util.h"
#include "dpu/volume/ckpt.h"

#define ROOM_WAITS 4u /* of a request, for a checkpoint that may free a segment */

_Static_assert((int)STORE_PLAIN == (int)IO_PLAIN && (int)STORE_PROTECT == (int)IO_PROTECT &&
		       (int)STORE_INTERMEDIATE == (int)IO_INTERMEDIATE,
	"a write's class is its outcome");

static enum block_state target_state(const struct op *op)
{
	return op->outcome == IO_PLAIN ? BLOCK_DATA : BLOCK_INTERMEDIATE;
}

static void resume(struct op *op)
{
	if (--op->pending == 0)
		op_run(op);
}

/* ---- before anything is written ------------------------------------------------------------------------------- */

static enum step start_chunk(struct op *op)
{
	op_set_chunk(op, op->zeros ? 1 : op->s->piece_blocks);
	if (!op->seq)
		op->seq = op->vol->next_seq++;
	op->rmw_head = op->rmw_tail = op->whole_head = op->whole_tail = false;
	op->to_data = op->data_failed = op->log_failed = false;
	op->need_record = op->need_flush = op->waited_area = false;
	op->rd_on = false;
	op->excluded = POOL_DEV_NONE;
	op->stage = ST_AREA;
	return op_pin(op, MAP_WRITE);
}

/* Protected writes go on without their data area: the log has them. */
static enum step without_data(struct op *op)
{
	struct volume *v = op->vol;

	if (op->outcome != IO_PROTECT) {
		volume_media_error(v, op->block);
		op_fail(op, IO_ERR_MEDIA);
		return GO;
	}
	op->excluded = v->cfg.data_dev;
	op->stage = ST_RESERVE;
	return GO;
}

static enum step find_area(struct op *op)
{
	struct volume *v = op->vol;
	struct piece *p;
	int rc;

	op->area = op->outcome == IO_INTERMEDIATE ? AREA_INTERMEDIATE : AREA_DATA;
	if (op->outcome == IO_PROTECT && v->cfg.layout == VOLUME_FRAGMENTS) {
		op->stage = ST_RESERVE;
		return GO;
	}
	rc = area_ensure(v, op->area, op->block, op);
	if (rc == 0)
		return PARK;
	if (rc == -ENOSPC && op->room_waits < ROOM_WAITS && checkpoint_may_help(op->s) &&
		room_wait(op)) {
		op->room_waits++;
		return PARK;
	}
	if (rc == -ENOSPC) {
		store_no_space(op->s, v);
		op_fail(op, IO_ERR_NO_SPACE);
		return GO;
	}
	p = area_piece(v, op->area, op->block);
	if (rc < 0 || !pool_dev_usable(op->s->pool, p->dev) ||
		(op->outcome == IO_PROTECT && !store_dev_answers(op->s, p->dev)))
		return without_data(op);
	op->to_data = true;
	if (op->outcome == IO_PROTECT)
		op->excluded = p->dev;
	op->stage = ST_RESERVE;
	return GO;
}

/* Plain and intermediate: which blocks change their state, and whether their place may hold something older. */
static void judge_states(struct op *op)
{
	bool fresh = area_piece(op->vol, op->area, op->block)->fresh;

	for (uint32_t i = 0; i < op->n; i++) {
		uint8_t state = map_state(op->vol->map, op->block + i);

		if (state == target_state(op))
			continue;
		op->need_record = true;
		if (state != BLOCK_UNMAPPED || !fresh)
			op->need_flush = true;
	}
}

/* Blocks that are not in the log yet. */
static uint32_t new_blocks(const struct op *op)
{
	return op->n - map_in_log_count(op->vol->map, op->block, op->n);
}

static int reserve_blocks(struct op *op, uint32_t n)
{
	if (op->outcome != IO_PROTECT)
		return stripelog_reserve(op->s->log, op->reserved_scheme, op->excluded, n);
	return stripelog_reserve_new(
		op->s->log, op->reserved_scheme, op->excluded, n, new_blocks(op));
}

static enum step reserve(struct op *op)
{
	struct store *s = op->s;
	uint32_t n = op->n;
	int rc;

	op->reserved_scheme = op->vol->cfg.scheme;
	if (op->outcome == IO_PROTECT) {
		if (pool_cfg(s->pool)->allow_data_device)
			op->excluded = POOL_DEV_NONE;
		if (!stripelog_table_room(s->log, op->reserved_scheme, n)) {
			store_map_full(s, op->vol);
			op_fail(op, IO_ERR_NO_SPACE);
			return GO;
		}
	} else {
		judge_states(op);
		op->reserved_scheme = pool_cfg(s->pool)->scheme;
		n = op->need_record
			    ? 1
			    : 0; /* a record takes less than a block in a stripe of its own */
	}
	rc = n ? reserve_blocks(op, n) : 0;
	/* -EBUSY: somebody is making room. Else all there may be is what a checkpoint gives back. */
	if (rc == -EBUSY && room_wait(op))
		return PARK;
	if (rc == -ENOSPC && op->room_waits < ROOM_WAITS &&
		room_in_limbo(s, op->outcome == IO_PROTECT && new_blocks(op)) && room_wait(op)) {
		op->room_waits++;
		return PARK;
	}
	op->stage = ST_BUFFERS;
	if (rc == 0) {
		op->reserved = n;
		return GO;
	}
	if (rc == -EBUSY)
		rc = -ENOSPC;
	if (rc == -ENOSPC)
		store_no_space(s, op->vol);
	op_fail(op, rc == -ENOSPC  ? IO_ERR_NO_SPACE
		    : rc == -EROFS ? IO_ERR_RETRY
				   : IO_ERR_INTERNAL);
	return GO;
}

/* ---- partly written blocks ------------------------------------------------------------------------------------------ */

/* A part of a block can go straight to its place when the block is simply there and the device can write that little. */
static bool in_place(struct op *op, uint32_t i, uint32_t cut)
{
	struct piece *p = area_piece(op->vol, op->area, op->block);
	const struct flash *f = pool_dev(op->s->pool, p->dev)
					->flash; /* NULL: failed and detached since */

	return f && op->outcome != IO_PROTECT &&
	       map_state(op->vol->map, op->block + i) == target_state(op) &&
	       cut % flash_info(f)->block_bytes == 0;
}

static void judge_parts(struct op *op)
{
	uint32_t tail = (op->head + op->len) % IO_BLOCK_BYTES;

	op->rmw_head = op->head && !in_place(op, 0, op->head);
	op->rmw_tail = tail && !in_place(op, op->n - 1, tail);
	if (op->n == 1) {
		op->rmw_head |= op->rmw_tail;
		op->rmw_tail = false;
		op->whole_tail = op->rmw_head;
	} else {
		op->whole_tail = op->rmw_tail;
	}
	op->whole_head = op->rmw_head;
}

static enum step read_rest(struct op *op)
{
	for (;;) {
		if (!op->rd_on && op->rmw_head)
			read_begin(op, 0, 1);
		else if (!op->rd_on && op->rmw_tail)
			read_begin(op, op->n - 1, op->n);
		else if (!op->rd_on)
			break;
		if (read_go(op) == PARK)
			return PARK;
		if (op->rd_failed) {
			volume_media_error(op->vol, op->block + op->rd_bad);
			op_fail(op, IO_ERR_MEDIA);
			return GO;
		}
		if (op->rmw_head)
			op->rmw_head = false;
		else
			op->rmw_tail = false;
	}
	op->stage = ST_FILL;
	return GO;
}

/* ---- out ------------------------------------------------------------------------------------------------------------------ */

static void place_written(struct vio *v)
{
	struct op *op = v->op;
	struct store *s = op->s;

	if (op->outcome == IO_PROTECT)
		hist_add(&s->times[STORE_PROTECT][STORE_AREA], shard_now_ns(s->sh) - op->mark_ns);
	if (v->io.status != FLASH_OK)
		op->data_failed = true;
	else
		volume_wrote(op->vol, v->dev, op->outcome != IO_PROTECT);
	if (op->area == AREA_DATA)
		s->stats.data_bytes[v->dev] += v->io.len;
	else
		s->stats.intermediate_bytes[v->dev] += v->io.len;
	vio_put(s, v);
	resume(op);
}

static void queue_done(struct queue_item *it, enum io_status status)
{
	struct op *op = it->arg;

	op->vol->log_gen++;
	if (status != IO_OK) {
		op->log_failed = true;
		op->log_status = status;
	}
	resume(op);
}

/* The bytes of the chunk that go to the place: those written, or whole blocks where the rest was read. */
static void place_range(const struct op *op, uint32_t *from, uint32_t *to)
{
	*from = op->whole_head ? 0 : op->head;
	*to = op->whole_tail ? op->n * IO_BLOCK_BYTES : op->head + op->len;
}

static void submit_place(struct op *op, struct vio *v)
{
	struct piece *p = area_piece(op->vol, op->area, op->block);
	struct iovec *last;
	uint32_t from, to;

	place_range(op, &from, &to);
	op->niov = 0;
	v->op = op;
	v->dev = p->dev;
	v->first = 0;
	v->n = (uint16_t)op->n;
	v->done_fn = place_written;
	v->io = (struct flash_io){.op = FLASH_WRITE,
		.off = area_off(op->vol, p, op->block) + from,
		.len = to - from,
		.niov = op_add_iov(op, 0, op->n),
		.iov = op->iov,
		.checked = op->outcome == IO_PROTECT}; /* the map has its CRC */
	op->iov[0].iov_base = (uint8_t *)op->iov[0].iov_base + from;
	op->iov[0].iov_len -= from;
	last = &op->iov[op->niov - 1];
	last->iov_len -= op->n * IO_BLOCK_BYTES - to;
	op->pending++;
	piece_written(p, op->block, op->n);
	vio_submit(op->s, v);
}

static int submit_queue(struct op *op)
{
	struct volume *v = op->vol;
	int rc;

	op->qi = (struct queue_item){.vm = op->req->vm,
		.scheme = v->cfg.scheme,
		.excluded_dev = op->excluded,
		.extent = {.block = op->block, .seq = op->seq, .volume = v->id, .nblocks = op->n},
		.blocks = (const uint8_t *const *)op->blk,
		.crc = op->crc,
		.unstable = !op->req->stable && op->nbounce < op->n,
		.fua = op->fua,
		.done_fn = queue_done,
		.arg = op};
	op_era_enter(op);
	rc = queue_submit(op->s->queue, &op->qi);
	if (rc < 0) {
		op_era_leave(op);
		return rc;
	}
	op->reserved = 0; /* the append gives it back */
	op->pending++;
	return 0;
}

static enum step issue(struct op *op)
{
	struct vio *v = op->to_data ? vio_get(op->s) : NULL;
	int rc;

	if (op->to_data && !v)
		return op_retry(op);
	if (op->outcome == IO_PROTECT) {
		rc = submit_queue(op);
		if (rc < 0) {
			if (v)
				vio_put(op->s, v);
			if (rc == -EAGAIN)
				return op_retry(op);
			op_fail(op, IO_ERR_INTERNAL);
			return GO;
		}
	}
	op->stage = ST_WRITTEN;
	op_stage_end(op, (enum store_class)op->outcome, STORE_ADMIT);
	if (v)
		submit_place(op, v);
	return PARK;
}

/* ---- and then ----------------------------------------------------------------------------------------------------------------- */

/* The place may now hold anything. */
static enum step failed(struct op *op, enum io_status status)
{
	area_not_fresh(op->vol, op->block, op->n);
	if (status == IO_ERR_MEDIA)
		volume_media_error(op->vol, op->block);
	op_fail(op, status);
	return GO;
}

static enum step written(struct op *op)
{
	struct volume *v = op->vol;
	unsigned int dev = area_piece(v, op->area, op->block)->dev;

	op_stage_end(op, (enum store_class)op->outcome, STORE_DEVICE);
	if (op->outcome == IO_PROTECT) {
		if (op->log_failed)
			return failed(op, op->log_status);
		if (op->data_failed)
			store_event(op->s, STORE_EVENT_DATA_AREA_LOST, v->cfg.name,
				"%u blocks at %llu are in the log only: their data area could not "
				"be written",
				op->n, (unsigned long long)op->block);
		op->stage = ST_APPLY;
		return GO;
	}
	if (op->data_failed)
		return failed(op, IO_ERR_MEDIA);
	op->stage = ST_RECORD;
	if ((op->need_flush || op->fua) && store_dev_volatile(op->s, dev)) {
		op->stage = ST_FLUSH;
		return op_flush_dev(op, dev, ST_RECORD);
	}
	return GO;
}

static void recorded(struct rec_item *it, enum io_status status)
{
	struct op *op = it->arg;

	op->vol->log_gen++;
	if (status != IO_OK) {
		op->log_failed = true;
		op->log_status = status;
	}
	op_run(op);
}

static enum step record(struct op *op)
{
	struct volume *v = op->vol;

	if (op->status != IO_OK)
		return failed(op, op->status); /* the flush */
	if (!op->need_record) {
		op->stage = ST_APPLY;
		if (op->fua && v->log_gen != v->log_flushed)
			op->stage = ST_LOGFLUSH;
		return GO;
	}
	rec_state(&op->rec.rec, v->id, target_state(op), op->block, op->n, op->seq);
	op->rec.fua = op->fua;
	op->rec.done_fn = recorded;
	op->rec.arg = op;
	op->stage = ST_APPLY;
	op_era_enter(op);
	rec_submit(op->s, &op->rec);
	return PARK;
}

static enum step apply(struct op *op)
{
	struct map *m = op->vol->map;
	struct map_entry e = {0};
	uint32_t put_ref = 0, put_n = 0;

	op_unreserve(op);
	if (op->outcome != IO_PROTECT && op->log_failed)
		return failed(op, op->log_status);
	if (op->status != IO_OK)
		return failed(op, op->status);
	e.state = target_state(op);
	if (op->outcome == IO_PROTECT) {
		e.state = op->to_data && !op->data_failed ? BLOCK_DATA_LOG : BLOCK_LOG;
		e.ref = op->qi.ref;
	}
	for (uint32_t i = 0; i < op->n; i++) {
		struct map_entry old = map_get(m, op->block + i);

		if (map_in_log(old.state)) {
			if (put_n && put_ref != old.ref) {
				stripelog_put(op->s->log, put_ref, put_n);
				put_n = 0;
			}
			put_ref = old.ref;
			put_n++;
		}
		if (op->outcome == IO_PROTECT) {
			e.crc = op->crc[i];
			e.pos = (uint16_t)(op->qi.pos + i);
		}
		map_set(m, op->block + i, &e);
	}
	if (put_n)
		stripelog_put(op->s->log, put_ref, put_n);
	op_stage_end(op, (enum store_class)op->outcome, STORE_FINISH);
	op_next_chunk(op);
	return GO;
}

static inline enum step one_step(struct op *op)
{
	switch (op->stage) {
	case ST_CHUNK:
		return start_chunk(op);
	case ST_AREA:
		return find_area(op);
	case ST_RESERVE:
		return reserve(op);
	case ST_BUFFERS:
		judge_parts(op);
		op->stage = ST_READ;
		return op_buffers(op) ? GO : PARK;
	case ST_READ:
		return read_rest(op);
	case ST_FILL:
		op_gather(op);
		op->stage = ST_ISSUE;
		return GO;
	case ST_ISSUE:
		return issue(op);
	case ST_WRITTEN:
		return written(op);
	case ST_RECORD:
		return record(op);
	case ST_LOGFLUSH:
		return op_flush_log(op, ST_APPLY);
	case ST_APPLY:
		return apply(op);
	default:
		return GO;
	}
}

/* As far as it gets, in one go: most stages do little, and going through op_run() for each is a tenth of a small write. */
enum step write_step(struct op *op)
{
	enum step s;

	do
		s = one_step(op);
	while (s == GO && op->stage != ST_DONE && op->stage != ST_TRIM);
	return s;
}
