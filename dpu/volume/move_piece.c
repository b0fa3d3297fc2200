/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pieces of areas on the move.
 *
 *	evacuate   segment ─▶ chunks, each under a shared lock: read, write ─▶ (those written to meanwhile once more) ─▶ exclusive lock of the whole piece
 *	           ─▶ what is left ─▶ flush ─▶ [lost blocks] ─▶ record ─▶ the new home is the truth ─▶ unlock
 *	rehome     segment ─▶ zeros ─▶ flush ─▶ exclusive lock ─▶ lost blocks ─▶ record ─▶ unlock
 *
 * Requests that write to a piece hold their range exclusively from admission on and say so with piece_written(): a chunk copied under a shared
 * lock is whole, and its dirty bit is not missed. Records of lost blocks are durable before the one that gives the piece a new home: the old state would
 * otherwise find zeros there.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/move_priv.h"

#define PIECE_BLOCKS_MAX (POOL_SEGMENT_MAX / IO_BLOCK_BYTES)
#define PIECE_CHUNKS_MAX (PIECE_BLOCKS_MAX / CHUNK_BLOCKS)
#define LAST_CHUNKS      2u /* that few are left for the exclusive lock ... */
#define ROUNDS_MAX       4u /* ... or what there is after so many times the whole */
#define LOST_RECORDS     16u /* under way at once */
#define RETRY_NS         100000000ull
#define PATIENCE_TRIES   3u /* of a record, until requests that wait for its end are refused */
_Static_assert(PIECE_CHUNKS_MAX <= 64, "a bit per chunk");

struct piece_move {
	struct store *s;
	enum piece_move_kind kind;
	struct volume *vol;
	uint64_t index;
	enum area_kind area;
	unsigned int from_dev, to_dev;
	uint32_t from_segment, segment;
	bool have_segment;
	bool running, final;
	bool unsettled; /* waits to try its record again */
	uint32_t tries; /* of that record that failed */
	bool orphan; /* whoever started it is gone: it ends by itself, at the latest with the store */
	uint8_t era;

	struct range_lock lock;
	bool locked;
	struct map_pin pin;
	void (*next_fn)(struct piece_move *m); /* from the task */
	struct task task;
	struct timer timer;

	uint64_t dirty; /* chunks to copy */
	uint32_t copied, chunk;
	uint32_t chunk_blocks, single; /* blocks of the chunk; which one is read alone */
	bool singly;
	uint8_t *buf;
	struct iovec iov;
	struct vio vio;
	uint64_t bad[PIECE_BLOCKS_MAX / 64]; /* blocks that could not be read from the old home */

	struct pool_zero zero;
	struct dev_flush flush;
	struct rec_item recs[LOST_RECORDS];
	struct {
		uint64_t block;
		uint32_t n;
	} runs[LOST_RECORDS];
	uint8_t eras[LOST_RECORDS];
	uint32_t nrecs, pending;
	bool rec_failed;
	uint64_t look; /* blocks of the piece looked at */
	uint64_t lost;
	void (*done_fn)(void *arg, int status, uint64_t lost);
	void *arg;
};

/* ---- life -------------------------------------------------------------------------------------------------------- */

int piece_move_open(struct store *s, struct piece_move **out)
{
	struct piece_move *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->s = s;
	m->buf = mem_alloc((size_t)CHUNK_BLOCKS * IO_BLOCK_BYTES);
	if (!m->buf) {
		free(m);
		return -ENOMEM;
	}
	*out = m;
	return 0;
}

bool piece_move_is_unsettled(const struct piece_move *m)
{
	return m->running && m->unsettled;
}

void piece_move_close(struct piece_move *m)
{
	if (!m)
		return;
	if (m->running) {
		assert(m->unsettled);
		m->orphan = true;
		m->s->piece_orphans++;
		return;
	}
	shard_undefer(m->s->sh, &m->task);
	timer_disarm(m->s->sh, &m->timer);
	mem_free(m->buf, (size_t)CHUNK_BLOCKS * IO_BLOCK_BYTES);
	free(m);
}

static void run_next(void *arg)
{
	struct piece_move *m = arg;

	m->next_fn(m);
}

/* Goes on from the shard's loop: out of callbacks that must not lock, or as deep as one likes. */
static void then(struct piece_move *m, void (*fn)(struct piece_move *m))
{
	m->next_fn = fn;
	shard_defer(m->s->sh, &m->task, run_next, m);
}

static uint64_t first_block(const struct piece_move *m)
{
	return m->index * m->s->piece_blocks;
}

/* A grown volume has them elsewhere. */
static struct piece *piece_of(const struct piece_move *m)
{
	return &m->vol->pieces[m->area][m->index];
}

/* Blocks of the piece that the volume has. */
static uint64_t block_count(const struct piece_move *m)
{
	return MIN(m->s->piece_blocks, m->vol->nblocks - first_block(m));
}

static void unlock(struct piece_move *m)
{
	if (m->pin.nblocks)
		map_unpin(m->vol->map, &m->pin);
	if (m->locked)
		range_unlock(&m->vol->locks, &m->lock);
	m->locked = false;
}

static void finish(struct piece_move *m, int status)
{
	if (piece_of(m)->copy == m)
		piece_of(m)->copy = NULL;
	if (m->have_segment)
		pool_segment_free(m->s->pool, m->to_dev, m->segment);
	m->have_segment = false;
	unlock(m);
	m->vol->in_flight--;
	m->running = false;
	if (m->orphan) {
		m->s->piece_orphans--;
		piece_move_close(m);
		return;
	}
	m->done_fn(m->arg, status, m->lost);
}

static void lock_granted(struct range_lock *l)
{
	struct piece_move *m = container_of(l, struct piece_move, lock);

	shard_defer(m->s->sh, &m->task, run_next, m);
}

/* Of the whole piece: as far as it goes, not as far as the volume does today, which may grow meanwhile. */
static void lock_then(struct piece_move *m, uint64_t first, uint64_t n, bool exclusive,
	void (*fn)(struct piece_move *m))
{
	m->lock.granted_fn = lock_granted;
	m->next_fn = fn;
	m->locked = true;
	if (range_lock(&m->vol->locks, &m->lock, first, n, exclusive))
		shard_defer(m->s->sh, &m->task, run_next, m);
}

static void pin_ready(struct map_pin *pin, int status)
{
	struct piece_move *m = container_of(pin, struct piece_move, pin);

	if (status < 0) {
		pin->nblocks = 0;
		finish(m, status);
	} else {
		shard_defer(m->s->sh, &m->task, run_next, m);
	}
}

/* The whole piece, for looking and for changing what is there. */
static void pin_then(struct piece_move *m, void (*fn)(struct piece_move *m))
{
	int rc;

	m->next_fn = fn;
	m->pin.ready_fn = pin_ready;
	rc = map_pin(m->vol->map, first_block(m), block_count(m), MAP_READ, &m->pin);
	if (rc > 0) {
		fn(m);
	} else if (rc < 0) {
		m->pin.nblocks = 0;
		finish(m, rc);
	}
}

/* ---- the end: the record, and the new truth ---------------------------------------------------------------------------- */

static void record(struct piece_move *m);

static void record_again(void *arg)
{
	struct piece_move *m = arg;

	m->unsettled = false;
	record(m);
}

static void new_home(struct piece_move *m)
{
	struct piece *p = piece_of(m);
	unsigned int dev = p->dev;
	uint32_t segment = p->segment;

	if (m->have_segment) {
		p->dev = (uint8_t)m->to_dev;
		p->segment = m->segment;
		m->have_segment = false;
	} else {
		p->state = PIECE_NONE;
	}
	p->fresh = false;
	p->failed = false;
	limbo_add(m->s, dev, segment, true);
}

static void recorded(struct rec_item *it, enum io_status status)
{
	struct piece_move *m = it->arg;

	if (status == IO_OK)
		new_home(m);
	era_leave(m->s, m->era);
	if (status == IO_OK) {
		finish(m, 0);
		return;
	}
	/*
	 * It may be on flash all the same: nothing may be written to the old home until it is known which one holds. It is tried until it is; where
	 * that takes long (hardly any device is left) VMs are told so instead of waiting with it.
	 */
	if (!m->s->closing) {
		m->unsettled = true;
		if (++m->tries >= PATIENCE_TRIES)
			volume_refuse_waiting(m->vol, first_block(m), block_count(m));
		timer_arm(m->s->sh, &m->timer, shard_now_ns(m->s->sh) + RETRY_NS, record_again, m);
		return;
	}
	if (m->have_segment)
		limbo_add(m->s, m->to_dev, m->segment, false);
	m->have_segment = false;
	finish(m, -EIO);
}

static void record(struct piece_move *m)
{
	struct rec_item *it = &m->recs[0];

	rec_area(&it->rec, m->vol->id, m->area, m->index, m->vol->next_seq++,
		m->have_segment ? m->to_dev : piece_of(m)->dev,
		m->have_segment ? m->segment : piece_of(m)->segment, !m->have_segment);
	m->era = era_enter(m->s);
	it->fua = true;
	it->done_fn = recorded;
	it->arg = m;
	rec_submit(m->s, it);
}

/* ---- what is lost ---------------------------------------------------------------------------------------------------------- */

static void lose_next(struct piece_move *m);

static void run_lost(struct piece_move *m, uint64_t block, uint32_t n)
{
	static const struct map_entry lost = {.state = MAP_STATE_LOST, .ref = 2};

	for (uint32_t i = 0; i < n; i++)
		map_set(m->vol->map, block + i, &lost);
	m->lost += n;
	volume_media_error(m->vol, block);
}

static void lost_recorded(struct rec_item *it, enum io_status status)
{
	struct piece_move *m = it->arg;
	uint32_t i = (uint32_t)(it - m->recs);

	if (status == IO_OK)
		run_lost(m, m->runs[i].block, m->runs[i].n);
	else
		m->rec_failed = true;
	era_leave(m->s, m->eras[i]);
	if (--m->pending)
		return;
	if (m->rec_failed)
		finish(m, -EIO);
	else
		lose_next(m);
}

static bool is_plain(const struct piece_move *m, uint8_t state)
{
	return state == (m->area == AREA_DATA ? BLOCK_DATA : BLOCK_INTERMEDIATE);
}

/* Whether the old home's copy of this block is no more: none is after rehome, those that could not be read otherwise. */
static bool is_gone(const struct piece_move *m, uint64_t i)
{
	return m->kind == PIECE_REHOME || bit_get(m->bad, (uint32_t)i);
}

/* A run of plain blocks that are gone, from m->look on; protected ones on the way are in the log alone from now on. */
static bool find_lost(struct piece_move *m, uint64_t *block, uint32_t *n)
{
	uint64_t first = first_block(m), count = block_count(m);

	*n = 0;
	for (; m->look < count; m->look++) {
		struct map_entry e = map_get(m->vol->map, first + m->look);

		if (is_gone(m, m->look) && is_plain(m, e.state)) {
			if (!*n)
				*block = first + m->look;
			(*n)++;
			continue;
		}
		if (*n)
			return true;
		if (is_gone(m, m->look) && m->area == AREA_DATA && e.state == BLOCK_DATA_LOG) {
			e.state = BLOCK_LOG;
			map_set(m->vol->map, first + m->look, &e);
		}
	}
	return *n > 0;
}

static void lose_next(struct piece_move *m)
{
	uint64_t block;
	uint32_t n;

	m->nrecs = 0;
	m->rec_failed = false;
	while (m->nrecs < LOST_RECORDS && find_lost(m, &block, &n)) {
		struct rec_item *it = &m->recs[m->nrecs];

		m->runs[m->nrecs].block = block;
		m->runs[m->nrecs++].n = n;
		rec_state(&it->rec, m->vol->id, MAP_STATE_LOST, block, n, m->vol->next_seq++);
		it->fua = true;
		it->done_fn = lost_recorded;
		it->arg = m;
	}
	m->pending = m->nrecs;
	for (uint32_t i = 0; i < m->nrecs; i++) {
		m->eras[i] = era_enter(m->s);
		rec_submit(m->s, &m->recs[i]);
	}
	if (!m->nrecs)
		record(m);
}

static void lose(struct piece_move *m)
{
	m->look = 0;
	lose_next(m);
}

static void flushed(struct dev_flush *f, enum flash_status status)
{
	struct piece_move *m = f->arg;

	if (status != FLASH_OK)
		finish(m, -EIO);
	else
		m->next_fn(m);
}

static void flush_then(struct piece_move *m, void (*fn)(struct piece_move *m))
{
	if (!store_dev_volatile(m->s, m->to_dev)) {
		fn(m);
		return;
	}
	m->next_fn = fn;
	m->flush.done_fn = flushed;
	m->flush.arg = m;
	dev_flush(m->s, m->to_dev, &m->flush);
}

/* ---- evacuate: copying --------------------------------------------------------------------------------------------------------- */

static void copy_next(struct piece_move *m);

void piece_move_dirty(struct piece_move *m, uint64_t block, uint64_t n)
{
	uint64_t from = block - first_block(m), last = from + n - 1;

	for (uint64_t c = from / CHUNK_BLOCKS; c <= last / CHUNK_BLOCKS; c++)
		m->dirty |= 1ull << c;
}

static void chunk_copied(struct piece_move *m)
{
	m->copied++;
	if (!m->final)
		unlock(m);
	copy_next(m);
}

static bool any_bad(const struct piece_move *m)
{
	for (unsigned int i = 0; i < ARRAY_LEN(m->bad); i++)
		if (m->bad[i])
			return true;
	return false;
}

static void chunk_io(struct piece_move *m, enum flash_op op, uint32_t from, uint32_t n,
	void (*done_fn)(struct vio *v))
{
	struct vio *v = &m->vio;
	struct piece to = {.segment = m->segment, .dev = (uint8_t)m->to_dev};
	const struct piece *p = op == FLASH_READ ? piece_of(m) : &to;
	uint64_t block = first_block(m) + (uint64_t)m->chunk * CHUNK_BLOCKS + from;

	m->iov = (struct iovec){m->buf + (size_t)from * IO_BLOCK_BYTES, (size_t)n * IO_BLOCK_BYTES};
	v->op = NULL;
	v->arg = m;
	v->dev = p->dev;
	v->first = (uint16_t)from;
	v->n = (uint16_t)n;
	v->done_fn = done_fn;
	v->io = (struct flash_io){.op = op,
		.off = area_off(m->vol, p, block),
		.len = m->iov.iov_len,
		.iov = &m->iov,
		.niov = 1};
	vio_submit(m->s, v);
}

static void chunk_written(struct vio *v)
{
	struct piece_move *m = v->arg;

	if (v->io.status != FLASH_OK) {
		finish(m, -EIO);
		return;
	}
	if (m->area == AREA_DATA)
		m->s->stats.data_bytes[v->dev] += v->io.len;
	else
		m->s->stats.intermediate_bytes[v->dev] += v->io.len;
	then(m, chunk_copied);
}

static void read_single(struct piece_move *m);

/* Only a device that answers says something of its blocks: one that was pulled or hangs may be back with all of them. */
static bool source_answers(const struct piece_move *m)
{
	return pool_dev_usable(m->s->pool, m->from_dev);
}

static void chunk_read(struct vio *v)
{
	struct piece_move *m = v->arg;
	bool ok = v->io.status == FLASH_OK;

	if (!ok && (v->io.status != FLASH_ERR_MEDIA || !source_answers(m))) {
		finish(m, -EIO);
		return;
	}
	if (!ok && !m->singly && m->chunk_blocks > 1) {
		m->singly = true;
		m->single = 0;
		then(m, read_single);
		return;
	}
	if (!ok) {
		bit_set(m->bad, m->chunk * CHUNK_BLOCKS + v->first);
		memset(m->buf + (size_t)v->first * IO_BLOCK_BYTES, 0, IO_BLOCK_BYTES);
	}
	if (m->singly && ++m->single < m->chunk_blocks)
		then(m, read_single);
	else
		chunk_io(m, FLASH_WRITE, 0, m->chunk_blocks, chunk_written);
}

static void read_single(struct piece_move *m)
{
	chunk_io(m, FLASH_READ, m->single, 1, chunk_read);
}

/* A trim may have emptied it meanwhile, and given it back. */
static bool still_there(struct piece_move *m)
{
	if (piece_of(m)->state == PIECE_READY && piece_of(m)->copy == m &&
		piece_of(m)->dev == m->from_dev && piece_of(m)->segment == m->from_segment)
		return true;
	finish(m, 0);
	return false;
}

static void copy_chunk(struct piece_move *m)
{
	if (!still_there(m))
		return;
	m->dirty &= ~(1ull << m->chunk);
	m->singly = false;
	/* A chunk is two words of bits. */
	memset(&m->bad[m->chunk * CHUNK_WORDS], 0, CHUNK_WORDS * sizeof(m->bad[0]));
	chunk_io(m, FLASH_READ, 0, m->chunk_blocks, chunk_read);
}

static void copy_last(struct piece_move *m);

static void probed(struct vio *v)
{
	struct piece_move *m = v->arg;

	if (v->io.status == FLASH_OK && source_answers(m))
		then(m, lose);
	else
		finish(m, -EIO);
}

/*
 * Before anything is given up the device has to show that it still reads: a kernel may call all of one that was pulled bad media. With nothing to give
 * up the copy is whole, whatever became of the device.
 */
static void give_up(struct piece_move *m)
{
	struct vio *v = &m->vio;

	if (!any_bad(m)) {
		lose(m);
		return;
	}
	m->iov = (struct iovec){m->buf, IO_BLOCK_BYTES};
	v->op = NULL;
	v->arg = m;
	v->dev = (uint8_t)m->from_dev;
	v->done_fn = probed;
	v->io = (struct flash_io){
		.op = FLASH_READ, .off = 0, .len = IO_BLOCK_BYTES, .iov = &m->iov, .niov = 1};
	vio_submit(m->s, v);
}

static void last_locked(struct piece_move *m)
{
	m->final = true;
	if (!still_there(m))
		return;
	if ((m->dirty || any_bad(m)) && !source_answers(m))
		finish(m, -EIO);
	else
		pin_then(m, copy_last);
}

static void copy_last(struct piece_move *m)
{
	if (m->dirty)
		copy_next(m);
	else
		flush_then(m, give_up);
}

static uint32_t chunk_size(const struct piece_move *m, uint32_t chunk)
{
	uint64_t at = (uint64_t)chunk * CHUNK_BLOCKS, n = block_count(m);

	return at < n ? (uint32_t)MIN(CHUNK_BLOCKS, n - at) : 0;
}

static void copy_next(struct piece_move *m)
{
	uint32_t nchunks = (uint32_t)DIV_ROUND_UP(block_count(m), CHUNK_BLOCKS);
	bool enough = m->copied >= nchunks &&
		      (unsigned int)__builtin_popcountll(m->dirty) <= LAST_CHUNKS;

	if (m->s->closing && !m->final) {
		finish(m, -ECANCELED);
		return;
	}
	if (m->final && !m->dirty) {
		flush_then(m, give_up);
		return;
	}
	if (!m->final && (enough || m->copied >= ROUNDS_MAX * nchunks)) {
		lock_then(m, first_block(m), m->s->piece_blocks, true, last_locked);
		return;
	}
	m->chunk = (uint32_t)__builtin_ctzll(m->dirty);
	m->chunk_blocks = chunk_size(m, m->chunk);
	if (m->final)
		copy_chunk(m);
	else
		lock_then(m, first_block(m) + (uint64_t)m->chunk * CHUNK_BLOCKS, m->chunk_blocks,
			false, copy_chunk);
}

static void evacuate(struct piece_move *m)
{
	uint32_t nchunks = (uint32_t)DIV_ROUND_UP(block_count(m), CHUNK_BLOCKS);

	m->dirty = nchunks < 64 ? (1ull << nchunks) - 1 : UINT64_MAX;
	copy_next(m);
}

/* ---- rehome ------------------------------------------------------------------------------------------------------------------ */

static void whole_locked(struct piece_move *m)
{
	if (!still_there(m))
		return;
	if (pool_dev_usable(m->s->pool, m->from_dev))
		finish(m, 0); /* it is back: nothing has to be given up */
	else
		pin_then(m, lose);
}

static void lock_whole(struct piece_move *m)
{
	lock_then(m, first_block(m), m->s->piece_blocks, true, whole_locked);
}

static void zeroed(struct pool_zero *z, int status)
{
	struct piece_move *m = z->arg;

	if (status < 0)
		finish(m, status);
	else
		flush_then(m, lock_whole);
}

static void zero(struct piece_move *m)
{
	int rc;

	m->zero.done_fn = zeroed;
	m->zero.arg = m;
	rc = pool_segment_zero(m->s->pool, m->to_dev, m->segment, &m->zero);
	if (rc == -EAGAIN)
		then(m, zero);
	else if (rc < 0)
		finish(m, rc);
}

/* ---- start -------------------------------------------------------------------------------------------------------------------------- */

static int take_segment(struct piece_move *m)
{
	int rc = pool_segment_alloc(m->s->pool, m->to_dev,
		m->area == AREA_DATA ? POOL_DATA : POOL_INTERMEDIATE, POOL_FOR_USER, &m->segment);

	m->have_segment = rc == 0;
	return rc;
}

static void begin(struct piece_move *m)
{
	bool segment = m->kind == PIECE_EVACUATE ||
		       (m->kind == PIECE_REHOME && m->area == AREA_DATA);
	int rc = segment ? take_segment(m) : 0;

	if (rc < 0)
		finish(m, rc);
	else if (m->kind == PIECE_EVACUATE)
		evacuate(m);
	else if (segment)
		zero(m);
	else
		lock_whole(m);
}

int piece_move_start(struct piece_move *m, enum piece_move_kind kind, const struct piece_at *at,
	unsigned int to_dev, void (*done_fn)(void *arg, int status, uint64_t lost), void *arg)
{
	struct volume *v = at->vol;
	struct piece *p;

	if (m->running || !v || v->deleting || at->index >= v->npieces ||
		at->index * m->s->piece_blocks >= v->nblocks)
		return -EINVAL;
	p = &v->pieces[at->intermediate ? AREA_INTERMEDIATE : AREA_DATA][at->index];
	if (p->state != PIECE_READY || p->copy || p->freeing)
		return -EBUSY;
	if (!(kind == PIECE_REHOME && at->intermediate) &&
		(to_dev == p->dev || !pool_dev_usable(m->s->pool, to_dev)))
		return -ENODEV;
	m->kind = kind;
	m->vol = v;
	m->index = at->index;
	m->area = at->intermediate ? AREA_INTERMEDIATE : AREA_DATA;
	m->from_dev = p->dev;
	m->from_segment = p->segment;
	m->to_dev = to_dev;
	p->copy = m;
	m->have_segment = m->locked = m->final = false;
	m->pin.nblocks = 0;
	m->dirty = m->lost = 0;
	m->copied = m->tries = 0;
	memset(m->bad, 0, sizeof(m->bad));
	m->done_fn = done_fn;
	m->arg = arg;
	m->running = true;
	v->in_flight++;
	then(m, begin);
	return 0;
}

/* ---- looking --------------------------------------------------------------------------------------------------------------------------- */

bool piece_find(struct store *s, int dev, struct piece_at *at)
{
	struct volume *v = at->vol ? at->vol : TAILQ_FIRST(&s->volumes);

	if (!at->vol)
		*at = (struct piece_at){0};
	for (; v; v = TAILQ_NEXT(v, link)) {
		for (; !v->deleting && at->index < v->npieces;
			at->index++, at->intermediate = false)
			for (unsigned int k = at->intermediate; k < AREAS; k++) {
				const struct piece *p = &v->pieces[k][at->index];

				if (p->state != PIECE_READY || p->dev != dev)
					continue;
				at->vol = v;
				at->intermediate = k == AREA_INTERMEDIATE;
				return true;
			}
		at->index = 0;
		at->intermediate = false;
	}
	at->vol = NULL;
	return false;
}

bool piece_next(struct store *s, int dev, struct piece_at *at)
{
	at->index += at->intermediate;
	at->intermediate = !at->intermediate;
	return piece_find(s, dev, at);
}

bool piece_lies_on(const struct volume *v, uint64_t block, int dev)
{
	const struct piece *p = &v->pieces[AREA_DATA][block / v->s->piece_blocks];

	return p->state == PIECE_READY && p->dev == dev;
}

bool piece_is_only_copy(const struct piece_at *at)
{
	uint8_t plain = at->intermediate ? BLOCK_INTERMEDIATE : BLOCK_DATA;
	const struct volume *v = at->vol;
	uint64_t first = at->index * v->s->piece_blocks;
	uint64_t end = MIN(first + v->s->piece_blocks, v->nblocks);

	for (uint64_t b = first; b < end; b++)
		if (map_state(v->map, b) == plain)
			return true;
	return false;
}

uint64_t piece_count(const struct store *s, int dev)
{
	const struct volume *v;
	uint64_t n = 0;

	TAILQ_FOREACH (v, &s->volumes, link)
		for (unsigned int k = 0; k < AREAS; k++)
			for (uint64_t i = 0; i < v->npieces; i++)
				n += v->pieces[k][i].state == PIECE_READY &&
				     v->pieces[k][i].dev == dev;
	return n;
}

uint32_t piece_blocks(const struct store *s)
{
	return s->piece_blocks;
}
