/* SPDX-License-Identifier: BSD-3-Clause */
/* Operations: admission, the loop over their stages, buffers, and the end. */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/ckpt.h"

#define REPAIRS 16u

/* ---- life ---------------------------------------------------------------------------------------------------- */

int ops_open(struct store *s, uint32_t count)
{
	uint32_t nvios = 2 * count + REPAIRS + 16, nsreads = count + REPAIRS + 16;

	s->ops = calloc(count, sizeof(*s->ops));
	s->repair_ops = calloc(REPAIRS, sizeof(*s->repair_ops));
	s->vios = calloc(nvios, sizeof(*s->vios));
	s->sreads = calloc(nsreads, sizeof(*s->sreads));
	if (!s->ops || !s->repair_ops || !s->vios || !s->sreads)
		return -ENOMEM; /* ops_close() frees the rest */
	for (uint32_t i = 0; i < count; i++)
		TAILQ_INSERT_TAIL(&s->free_ops, &s->ops[i], link);
	for (uint32_t i = 0; i < REPAIRS; i++)
		TAILQ_INSERT_TAIL(&s->free_repairs, &s->repair_ops[i], link);
	for (uint32_t i = 0; i < nvios; i++)
		vio_put(s, &s->vios[i]);
	for (uint32_t i = 0; i < nsreads; i++)
		TAILQ_INSERT_TAIL(&s->free_sreads, &s->sreads[i], link);
	return 0;
}

void ops_close(struct store *s)
{
	free(s->ops);
	free(s->repair_ops);
	free(s->vios);
	free(s->sreads);
}

static void granted(struct range_lock *l)
{
	op_ready(container_of(l, struct op, lock));
}

/* Everything but the large arrays, which are written before they are read. */
static void op_reset(struct op *op, enum op_kind kind, struct volume *v)
{
	op->kind = kind;
	op->stage = ST_LOCK;
	op->status = IO_OK;
	op->req = NULL;
	op->vol = v;
	op->s = v->s;
	op->outcome = IO_PLAIN;
	op->fua = op->locked = op->in_era = false;
	op->pos = op->end = op->seq = 0;
	op->n = op->head = op->len = 0;
	op->cur = (struct iov_cursor){0};
	memset(op->own, 0, sizeof(op->own));
	memset(op->from_log, 0, sizeof(op->from_log));
	op->nbounce = op->niov = 0;
	op->rd_next = op->rd_end = op->rd_first = 0;
	op->rd_on = op->rd_log = op->rd_failed = false;
	op->zeros = op->rmw_head = op->rmw_tail = false;
	op->to_data = op->data_failed = op->log_failed = false;
	op->need_record = op->need_flush = op->waited_area = false;
	op->room_waits = 0;
	op->reserved = 0;
	op->pending = 0;
	op->pin.nblocks = 0;
	op->lock.granted_fn = granted;
	v->in_flight++;
	v->requests += kind != OP_REPAIR;
	v->s->in_flight++;
}

static void op_end(struct op *op)
{
	struct io_req *req = op->req;
	struct volume *v = op->vol;
	struct store *s = op->s;

	assert(!op->pending && !op->reserved);
	op_era_leave(op);
	op_release_buffers(op);
	op_unpin(op);
	if (__builtin_expect(v->track != NULL, 0))
		track_op(op);
	if (op->locked)
		range_unlock(&v->locks, &op->lock);
	op->stage = ST_FREE;
	v->in_flight--;
	v->requests -= op->kind != OP_REPAIR;
	s->in_flight--;
	if (!req) {
		TAILQ_INSERT_HEAD(&s->free_repairs, op, link);
		return;
	}
	s->background -= !!(req->flags & IO_BACKGROUND);
	req->status = op->status;
	/* Nothing is acknowledged in a pool that is not ours. */
	if (req->status == IO_OK && (s->stats.fenced || pool_is_lost(s->pool, NULL)))
		req->status = IO_ERR_ABORTED;
	TAILQ_INSERT_HEAD(&s->free_ops, op, link);
	if (s->in_submit) {
		TAILQ_INSERT_TAIL(&s->done, req, link);
		shard_defer(s->sh, &s->tick, s->tick.run_fn, s);
	} else {
		req->done_fn(req);
	}
}

static enum step lock_step(struct op *op)
{
	uint64_t first = op->pos / IO_BLOCK_BYTES;
	uint64_t n = DIV_ROUND_UP(op->end, IO_BLOCK_BYTES) - first;
	bool now;

	op->stage = op->kind == OP_ZERO || op->kind == OP_TRIM ? ST_TRIM : ST_CHUNK;
	if (op->kind == OP_FLUSH) {
		op->stage = ST_FLUSH;
		return GO;
	}
	op->locked = true;
	now = range_lock(&op->vol->locks, &op->lock, first, n, op->kind != OP_READ);
	return now ? GO : PARK;
}

static enum step op_step(struct op *op)
{
	if (op->stage == ST_LOCK)
		return lock_step(op);
	switch (op->kind) {
	case OP_READ:
	case OP_REPAIR:
		return read_step(op);
	case OP_WRITE:
		return write_step(op);
	case OP_ZERO:
	case OP_TRIM:
		return trim_step(op);
	case OP_FLUSH:
		return flush_step(op);
	}
	return PARK;
}

void op_run(struct op *op)
{
	while (op->stage != ST_DONE)
		if (op_step(op) == PARK)
			return;
	op_end(op);
}

void op_ready(struct op *op)
{
	TAILQ_INSERT_TAIL(&op->s->ready, op, link);
	shard_defer(op->s->sh, &op->s->tick, op->s->tick.run_fn, op->s);
}

enum step op_retry(struct op *op)
{
	TAILQ_INSERT_TAIL(&op->s->retry, op, link);
	op->s->again = true;
	return PARK;
}

void op_era_enter(struct op *op)
{
	op->era = era_enter(op->s);
	op->in_era = true;
}

void op_era_leave(struct op *op)
{
	if (op->in_era)
		era_leave(op->s, op->era);
	op->in_era = false;
}

/* The first failure is the request's; whatever is already on its way is waited for by the stage that started it. */
void op_fail(struct op *op, enum io_status status)
{
	if (op->status == IO_OK)
		op->status = status;
	op_unreserve(op);
	op->stage = ST_DONE;
}

void volume_refuse_waiting(struct volume *v, uint64_t first, uint64_t nblocks)
{
	for (uint32_t i = 0; i < v->s->cfg.max_requests; i++) {
		struct op *op = &v->s->ops[i];

		if (op->stage == ST_FREE || op->vol != v || !op->locked || !op->lock.blockers ||
			op->lock.end <= first || op->lock.first >= first + nblocks)
			continue;
		range_unwait(&v->locks, &op->lock);
		op->locked = false;
		op_fail(op, IO_ERR_RETRY);
		op_ready(op);
	}
}

void op_unreserve(struct op *op)
{
	if (op->reserved)
		stripelog_unreserve(op->s->log, op->reserved_scheme, op->excluded, op->reserved);
	op->reserved = 0;
}

/* ---- admission -------------------------------------------------------------------------------------------------- */

static enum io_status check(const struct volume *v, const struct io_req *r)
{
	uint64_t sum = 0;

	if (r->op == IO_FLUSH)
		return IO_OK;
	if ((unsigned int)r->op > IO_TRIM || !r->len_bytes ||
		(r->off_bytes | r->len_bytes) % v->cfg.block_bytes)
		return IO_ERR_INVALID;
	if (r->off_bytes > v->cfg.size_bytes || r->len_bytes > v->cfg.size_bytes - r->off_bytes)
		return IO_ERR_RANGE;
	if (r->op == IO_READ || r->op == IO_WRITE) {
		for (int i = 0; i < r->niov; i++)
			if (__builtin_add_overflow(sum, r->iov[i].iov_len, &sum))
				return IO_ERR_INVALID;
		if (sum != r->len_bytes)
			return IO_ERR_INVALID;
	}
	if (r->op == IO_WRITE && (unsigned int)r->outcome > IO_PROTECT)
		return IO_ERR_INVALID;
	if (r->op == IO_WRITE && r->outcome == IO_INTERMEDIATE &&
		v->cfg.intermediate_dev == POOL_DEV_NONE)
		return IO_ERR_INVALID;
	return IO_OK;
}

static void count(struct volume *v, const struct io_req *r)
{
	struct volume_stats *st = &v->stats;

	if (r->flags & IO_BACKGROUND) {
		v->s->background++;
		return;
	}
	if (r->op == IO_READ || r->op == IO_WRITE)
		v->s->foreground_bytes += r->len_bytes;
	switch (r->op) {
	case IO_READ:
		st->reads++;
		st->read_bytes += r->len_bytes;
		break;
	case IO_WRITE:
		st->writes[r->outcome]++;
		st->write_bytes[r->outcome] += r->len_bytes;
		break;
	case IO_FLUSH:
		st->flushes++;
		break;
	case IO_WRITE_ZEROES:
		st->zeroes++;
		break;
	case IO_TRIM:
		st->trims++;
		break;
	}
}

/* Refused for what it is: told later, like everything else. */
static int refuse(struct store *s, struct io_req *req, enum io_status status)
{
	req->status = status;
	s->stats.requests_refused++;
	TAILQ_INSERT_TAIL(&s->done, req, link);
	shard_defer(s->sh, &s->tick, s->tick.run_fn, s);
	return 0;
}

int volume_submit(struct volume *v, struct io_req *req)
{
	static const enum op_kind kinds[] = {[IO_READ] = OP_READ,
		[IO_WRITE] = OP_WRITE,
		[IO_FLUSH] = OP_FLUSH,
		[IO_WRITE_ZEROES] = OP_ZERO,
		[IO_TRIM] = OP_TRIM};
	struct store *s = v->s;
	enum io_status status = check(v, req);
	struct op *op;

	if (status != IO_OK)
		return refuse(s, req, status);
	if (v->deleting || s->closing || s->stats.fenced ||
		(s->cfg.read_only && req->op != IO_READ))
		return refuse(s, req, IO_ERR_ABORTED);
	op = TAILQ_FIRST(&s->free_ops);
	if (!op)
		return -EAGAIN;
	TAILQ_REMOVE(&s->free_ops, op, link);
	op_reset(op, kinds[req->op], v);
	op->req = req;
	op->outcome = req->outcome;
	op->fua = req->flags & IO_FUA;
	op->pos = req->off_bytes;
	op->end = req->off_bytes + req->len_bytes;
	op->mark_ns = shard_now_ns(s->sh);
	count(v, req);
	s->in_submit++;
	op_run(op);
	s->in_submit--;
	return 0;
}

/* Puts right, in the background, what a read found wrong in the data area. False: too many are under way; the next read finds it again. */
bool repair_start(struct volume *v, uint64_t block, uint32_t n)
{
	struct op *op = TAILQ_FIRST(&v->s->free_repairs);

	if (!op || v->deleting || v->s->closing || v->s->cfg.read_only)
		return false;
	TAILQ_REMOVE(&v->s->free_repairs, op, link);
	op_reset(op, OP_REPAIR, v);
	op->pos = block * IO_BLOCK_BYTES;
	op->end = op->pos + (uint64_t)n * IO_BLOCK_BYTES;
	op_ready(op);
	return true;
}

/* ---- buffers ------------------------------------------------------------------------------------------------------ */

/*
 * Visits the request's memory for bytes [0, len) of the chunk: fn(block index, offset in the block, memory, bytes). Updates *c.
 */
static void walk(struct op *op, struct iov_cursor *c,
	void (*fn)(struct op *op, uint32_t i, uint32_t off, uint8_t *p, size_t n))
{
	const struct iovec *iov = op->req->iov;
	uint32_t at = op->head, left = op->len;

	while (left) {
		uint32_t off = at % IO_BLOCK_BYTES;
		size_t n;

		while (c->off == iov[c->i].iov_len) {
			c->i++;
			c->off = 0;
		}
		n = MIN(MIN(iov[c->i].iov_len - c->off, left), IO_BLOCK_BYTES - off);
		fn(op, at / IO_BLOCK_BYTES, off, (uint8_t *)iov[c->i].iov_base + c->off, n);
		c->off += n;
		at += (uint32_t)n;
		left -= (uint32_t)n;
	}
}

/* A block that lies whole in one piece of memory is used where it is. */
static void map_piece(struct op *op, uint32_t i, uint32_t off, uint8_t *p, size_t n)
{
	op->blk[i] = off == 0 && n == IO_BLOCK_BYTES ? p : NULL;
}

/* Of memory that a VM can change all must be one: what is stored, its CRC, its parity. A plain write stores, and that is all; the log
 * makes everything from one reading. What goes to both is copied first. */
static bool needs_copy(struct op *op)
{
	const struct flash *f;

	if (op->kind != OP_WRITE || op->req->stable)
		return false;
	if (op->outcome == IO_PROTECT)
		return op->to_data;
	f = pool_dev(op->s->pool, area_piece(op->vol, op->area, op->block)->dev)->flash;
	return !f || !flash_info(f)->reads_once;
}

static uint32_t buffers_needed(struct op *op)
{
	bool all = !op->req || op->zeros || needs_copy(op);
	struct iov_cursor c = op->cur;
	uint32_t need = 0;

	if (all)
		memset(op->blk, 0, op->n * sizeof(op->blk[0]));
	else
		walk(op, &c, map_piece);
	for (uint32_t i = 0; i < op->n; i++)
		need += !op->blk[i];
	return need;
}

static bool take_buffers(struct op *op)
{
	struct bufpool *bp = op->s->bufs;

	if (bufpool_free_count(bp) < op->nbounce)
		return false;
	for (uint32_t i = 0; i < op->n; i++) {
		if (op->blk[i])
			continue;
		op->blk[i] = bufpool_get(bp);
		bit_set(op->own, i);
	}
	return true;
}

/* All at once or none, in order of arrival: nobody holds some and waits for more. */
bool op_buffers(struct op *op)
{
	op->nbounce = buffers_needed(op);
	if (!op->nbounce)
		return true;
	if (TAILQ_EMPTY(&op->s->buf_wait) && take_buffers(op))
		return true;
	TAILQ_INSERT_TAIL(&op->s->buf_wait, op, link);
	return false;
}

void op_release_buffers(struct op *op)
{
	struct store *s = op->s;
	struct op *w;

	if (!op->nbounce)
		return;
	for (uint32_t i = 0; i < op->n; i++)
		if (bit_get(op->own, i))
			bufpool_put(s->bufs, op->blk[i]);
	memset(op->own, 0, sizeof(op->own));
	op->nbounce = 0;
	while ((w = TAILQ_FIRST(&s->buf_wait)) && take_buffers(w)) {
		TAILQ_REMOVE(&s->buf_wait, w, link);
		op_ready(w);
	}
}

static void gather_piece(struct op *op, uint32_t i, uint32_t off, uint8_t *p, size_t n)
{
	if (bit_get(op->own, i))
		memcpy(op->blk[i] + off, p, n);
}

/* Copies what is not used in place: the one read of memory that a VM can change. */
void op_gather(struct op *op)
{
	struct iov_cursor c = op->cur;

	if (op->zeros)
		memset(op->blk[0] + op->head, 0, op->len);
	else if (op->nbounce)
		walk(op, &c, gather_piece);
}

static void scatter_piece(struct op *op, uint32_t i, uint32_t off, uint8_t *p, size_t n)
{
	if (bit_get(op->own, i))
		memcpy(p, op->blk[i] + off, n);
}

void op_scatter(struct op *op)
{
	struct iov_cursor c = op->cur;

	if (op->nbounce)
		walk(op, &c, scatter_piece);
}

static void skip_piece(struct op *op, uint32_t i, uint32_t off, uint8_t *p, size_t n)
{
}

/* Past this chunk. GO: the next one; the operation is at its end otherwise. */
void op_next_chunk(struct op *op)
{
	op_era_leave(op);
	op_release_buffers(op);
	op_unpin(op);
	if (op->req && !op->zeros)
		walk(op, &op->cur, skip_piece);
	op->pos += op->len;
	op->stage = op->pos < op->end ? ST_CHUNK : ST_DONE;
	if (op->zeros)
		op->stage = ST_TRIM;
	op->zeros = false;
}

static void pinned(struct map_pin *pin, int status)
{
	struct op *op = container_of(pin, struct op, pin);

	if (status < 0) {
		pin->nblocks = 0;
		op_fail(op, IO_ERR_INTERNAL);
	}
	op_ready(op);
}

/* Pins the chunk's part of the map; op->stage is already the next one. */
enum step op_pin(struct op *op, enum map_intent intent)
{
	int rc;

	op->pin.ready_fn = pinned;
	rc = map_pin(op->vol->map, op->block, op->n, intent, &op->pin);
	if (rc > 0)
		return GO;
	if (rc == 0)
		return PARK;
	op->pin.nblocks = 0;
	if (rc == -ENOSPC)
		store_map_full(op->s, op->vol);
	op_fail(op, rc == -ENOSPC ? IO_ERR_NO_SPACE : IO_ERR_RETRY);
	return GO;
}

void op_unpin(struct op *op)
{
	if (op->pin.nblocks)
		map_unpin(op->vol->map, &op->pin);
}

void op_set_chunk(struct op *op, uint64_t limit_blocks)
{
	uint64_t block = op->pos / IO_BLOCK_BYTES;
	uint64_t stop = MIN(block + op->s->chunk_blocks, (block / limit_blocks + 1) * limit_blocks);
	uint64_t end = MIN(op->end, stop * IO_BLOCK_BYTES);

	op->block = block;
	op->head = op->pos % IO_BLOCK_BYTES;
	op->len = (uint32_t)(end - op->pos);
	op->n = (uint32_t)(DIV_ROUND_UP(end, IO_BLOCK_BYTES) - block);
	op->niov = 0;
	memset(op->from_log, 0, sizeof(op->from_log));
}

/* ---- the poller: what was full a round ago ----------------------------------------------------------------------------- */

static int retry_ops(struct store *s)
{
	struct op_list list = TAILQ_HEAD_INITIALIZER(list);
	struct op *op;
	int went = 0;

	TAILQ_CONCAT(&list, &s->retry, link);
	while ((op = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, op, link);
		op_run(op);
		went++;
	}
	TAILQ_FOREACH (op, &s->retry, link)
		went--;
	return went > 0 ? went : 0;
}

int store_poll(void *arg)
{
	struct store *s = arg;
	int did = checkpoint_poll(s);

	room_poll(s);
	if (!s->again)
		return did;
	s->again = false;
	return did + dev_retry(s) + flush_retry(s) + rec_retry(s) + area_sweep(s) + heal_poll(s) +
	       retry_ops(s);
}

/* ---- the tick: what must not run inside a submission ------------------------------------------------------------------ */

void store_tick(void *arg)
{
	struct store *s = arg;
	struct op_list ready = TAILQ_HEAD_INITIALIZER(ready);
	struct req_list done = TAILQ_HEAD_INITIALIZER(done);
	struct io_req *req;
	struct op *op;

	dev_tick(s);
	flush_tick(s);
	TAILQ_CONCAT(&ready, &s->ready, link);
	while ((op = TAILQ_FIRST(&ready))) {
		TAILQ_REMOVE(&ready, op, link);
		op_run(op);
	}
	TAILQ_CONCAT(&done, &s->done, link);
	while ((req = TAILQ_FIRST(&done))) {
		TAILQ_REMOVE(&done, req, link);
		req->done_fn(req);
	}
}
