/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Appending a stripe:
 *
 *	shape ─▶ memory ─▶ encode ─▶ place ─▶ (group opening: wait) ─▶ headers ─▶ write all fragments ─▶ (flush) ─▶ done
 *	  ▲                                                                            │
 *	  └────────────── a fragment failed: its device is failed, all of it again elsewhere ◀┘
 *
 * A round that failed may have left fragments behind. The next round's header says so in a record (RECORD_VOID), so that recovery never
 * takes them for a stripe; where there is no next round a stripe of that record alone is appended.
 */
#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/core/io.h"
#include "dpu/core/mem.h"
#include "dpu/stripelog/ledger.h"
#include "dpu/stripelog/space.h"

#define INFLIGHT_DEFAULT 32u
#define ROUNDS_MAX       4u
#define WRITE_MEM_PAGES \
	10240u /* 40 MiB: two of the largest stripes' parity and stable blocks (2+8, 1024 blocks) */

struct void_body {
	le64 epoch;
	le64 number;
};

/* Where things are in op->mem. */
struct op_layout {
	uint32_t headers, parity, frags, iovs, crcs, stable, blocks, bytes;
	uint32_t nios; /* frag_io entries */
};

int append_open(struct stripelog *log)
{
	int rc;

	log->max_inflight = log->max_inflight ? log->max_inflight : INFLIGHT_DEFAULT;
	log->ops = calloc(log->max_inflight, sizeof(*log->ops));
	if (!log->ops)
		return -ENOMEM;
	for (uint32_t i = 0; i < log->max_inflight; i++)
		TAILQ_INSERT_TAIL(&log->free_ops, &log->ops[i], link);
	rc = arena_open(&log->write_mem, WRITE_MEM_PAGES);
	return rc;
}

void append_close(struct stripelog *log)
{
	arena_close(&log->write_mem);
	free(log->ops);
	log->ops = NULL;
}

uint32_t stripelog_inflight(const struct stripelog *log)
{
	return log->inflight;
}

/* ---- shape and memory --------------------------------------------------------------------------------------- */

static bool has_parity_memory(const struct append_op *op)
{
	return op->h.geo.k > 1 && !op->windowed;
}

static uint32_t data_blocks_of(const struct append_op *op, unsigned int frag)
{
	return op->h.geo.nblocks ? ec_fragment_blocks(&op->h.geo, frag) : 0;
}

static void layout_of(const struct append_op *op, struct op_layout *l)
{
	const struct ec_geometry *g = &op->h.geo;
	uint32_t nfrags = frag_count(&op->h), niov = nfrags * (1 + g->rows);
	uint32_t at = ROUND_UP(nfrags * op->h.len_bytes, ARENA_PAGE);

	l->headers = 0;
	l->parity = at;
	if (has_parity_memory(op))
		at += g->m * g->rows * EC_BLOCK;
	l->nios = nfrags * DIV_ROUND_UP(1 + g->rows, (uint32_t)FLASH_IOV_MAX);
	l->frags = at;
	at += l->nios * (uint32_t)sizeof(struct frag_io);
	l->iovs = ROUND_UP(at, 16u);
	at = l->iovs + niov * (uint32_t)sizeof(struct iovec);
	l->crcs = at;
	at = ROUND_UP(at + g->m * g->rows * (uint32_t)sizeof(uint32_t), 64u);
	l->stable = l->blocks = at;
	if (op->stabilized) {
		at += g->nblocks * (uint32_t)sizeof(*op->blocks);
		l->stable = ROUND_UP(at, ARENA_PAGE); /* devices write from there */
		at = l->stable + g->nblocks * EC_BLOCK;
	}
	l->bytes = at;
}

uint8_t *append_hdr(const struct append_op *op, unsigned int frag)
{
	return op->mem + (size_t)frag * op->h.len_bytes;
}

static uint32_t records_of(const struct append_op *op)
{
	return (op->voiding ? 0 : op->a->nrecords) + op->nvoids;
}

/* Geometry, copies, header size under today's devices. */
static int op_shape(struct append_op *op)
{
	struct stripelog *log = op->log;
	const struct stripe_append *a = op->a;
	size_t rec_bytes = op->nvoids * (2 + sizeof(struct void_body));
	bool is_short = false;
	int rc;

	memset(&op->h, 0, sizeof(op->h));
	if (a->nblocks && !op->voiding) {
		rc = scheme_fit(log, a->scheme, a->excluded_dev, a->nblocks, &op->h.geo, &is_short);
		if (rc < 0)
			return rc;
		op->h.scheme = a->scheme;
		op->h.nextents = a->nextents;
		op->h.excluded = a->excluded_dev;
	} else {
		unsigned int copies = record_copies(log);

		if (!copies)
			return -EROFS;
		is_short = copies <= pool_cfg(log->pool)->scheme.m;
		op->h.geo = (struct ec_geometry){.k = 1, .m = (uint8_t)(copies - 1)};
		op->h.excluded = POOL_DEV_NONE;
	}
	if (!op->voiding)
		rec_bytes += frag_records_bytes(a->records, a->nrecords);
	op->h.nrecords = records_of(op);
	op->h.len_bytes = frag_hdr_bytes(frag_count(&op->h), op->h.nextents, op->h.geo.nblocks,
		op->h.geo.rows, rec_bytes, log->block_bytes);
	op->is_short = is_short;
	return op->h.len_bytes ? 0 : -EINVAL;
}

/* Where blocks that somebody may change are made stable, when the log does not read them once (any more: a device without a window has
 * come): op_encode() fills it, and it is what is written. */
static void op_stable_places(struct append_op *op, const struct op_layout *l)
{
	const uint8_t **blocks = (const uint8_t **)(void *)(op->mem + l->blocks);

	for (uint32_t i = 0; i < op->h.geo.nblocks; i++)
		blocks[i] = op->mem + l->stable + (size_t)i * EC_BLOCK;
	op->blocks = blocks;
}

static int op_memory(struct append_op *op)
{
	struct op_layout l;

	op->stabilized = op->a->unstable && !op->windowed && op->h.geo.nblocks;
	layout_of(op, &l);
	op->mem_pages = DIV_ROUND_UP(l.bytes, ARENA_PAGE);
	op->mem = arena_get(&op->log->write_mem, op->mem_pages);
	if (!op->mem)
		return -EAGAIN;
	op->blocks = op->a->blocks;
	if (op->stabilized)
		op_stable_places(op, &l);
	return 0;
}

static void op_release(struct append_op *op)
{
	if (op->mem)
		arena_put(&op->log->write_mem, op->mem, op->mem_pages);
	op->mem = NULL;
}

/* ---- encode --------------------------------------------------------------------------------------------------- */

/* Nothing but CRCs, of what is written. */
static void encode_copies(struct append_op *op)
{
	const struct stripe_append *a = op->a;

	for (uint32_t i = 0; i < a->nblocks; i++) {
		if (op->stabilized)
			memcpy((uint8_t *)(uintptr_t)op->blocks[i], a->blocks[i], EC_BLOCK);
		a->crc[i] = crc32c(op->blocks[i], EC_BLOCK);
	}
}

static int op_encode(struct append_op *op)
{
	struct stripelog *log = op->log;
	const struct stripe_append *a = op->a;
	struct op_layout l;
	uint8_t *parity[EC_M_MAX];
	const struct ec_code *code;
	int rc;

	if (!op->h.geo.nblocks || op->windowed)
		return 0;
	if (op->h.geo.k == 1) {
		encode_copies(op);
		return 0;
	}
	rc = ec_code_get(log->ec, op->h.geo.k, op->h.geo.m, &code);
	if (rc < 0)
		return rc;
	layout_of(op, &l);
	for (unsigned int i = 0; i < op->h.geo.m; i++)
		parity[i] = op->mem + l.parity + (size_t)i * op->h.geo.rows * EC_BLOCK;
	ec_encode_pass(code,
		&(struct ec_pass){.geo = op->h.geo,
			.blocks = a->blocks,
			.copy = op->stabilized ? (uint8_t *const *)(uintptr_t)op->blocks : NULL,
			.unstable = op->stabilized,
			.parity = parity,
			.crc = a->crc,
			.parity_crc = (uint32_t *)(void *)(op->mem + l.crcs)});
	return 0;
}

/* ---- headers and writes ------------------------------------------------------------------------------------------ */

/* Records of the caller, then those about rounds that failed. */
void append_void_record(const struct stripelog *log, uint64_t number, struct record *out)
{
	struct void_body b = {.epoch = to_le64(pool_epoch(log->pool)), .number = to_le64(number)};

	out->type = RECORD_VOID;
	out->len = sizeof(b);
	memcpy(out->body, &b, sizeof(b));
}

static const struct record *op_records(struct append_op *op, struct record *buf)
{
	const struct stripe_append *a = op->a;
	uint32_t n = op->voiding ? 0 : a->nrecords;

	if (!op->nvoids)
		return a->records;
	if (n)
		memcpy(buf, a->records, n * sizeof(*buf));
	for (uint32_t i = 0; i < op->nvoids; i++)
		append_void_record(op->log, op->voids[i], &buf[n + i]);
	return buf;
}

void append_headers(struct append_op *op)
{
	struct stripelog *log = op->log;
	const struct stripe_append *a = op->a;
	const struct ec_geometry *g = &op->h.geo;
	const uint32_t *parity_crc;
	struct op_layout l;

	layout_of(op, &l);
	parity_crc = (const uint32_t *)(const void *)(op->mem + l.crcs);
	op->h.watermark = mark_header(log);
	frag_hdr_build(&log->id, &op->h, a->extents, a->crc, op_records(op, log->records_mem),
		append_hdr(op, 0));
	for (unsigned int i = 1; i < frag_count(&op->h); i++)
		memcpy(append_hdr(op, i), append_hdr(op, 0), op->h.len_bytes);
	for (unsigned int i = 0; i < frag_count(&op->h); i++) {
		const uint32_t *own = a->crc;

		if (i >= g->k && g->k > 1)
			own = parity_crc + (size_t)(i - g->k) * g->rows;
		else if (i < g->k && g->rows) /* none: there need not be CRCs */
			own = a->crc + (size_t)i * g->rows;
		frag_hdr_seal(append_hdr(op, i), (uint8_t)i, own, data_blocks_of(op, i));
	}
}

static void frag_done(struct logio *lio)
{
	struct append_op *op = ((struct frag_io *)lio)->op;
	struct stripelog *log = op->log;

	if (lio->io.status == FLASH_OK) {
		flush_wrote(log, lio->dev);
	} else {
		op->failed = true;
		pool_dev_write_failed(log->pool, lio->dev);
		op->g->closed = true;
	}
	if (--op->pending == 0)
		append_written(op);
}

/* Adds [p, p + len) to a list of iovecs, merged with the one before where it follows it. */
static uint32_t iov_add(struct iovec *iov, uint32_t n, const void *p, size_t len)
{
	if (n && (uint8_t *)iov[n - 1].iov_base + iov[n - 1].iov_len == (const uint8_t *)p) {
		iov[n - 1].iov_len += len;
		return n;
	}
	iov[n] = (struct iovec){(void *)(uintptr_t)p, len};
	return n + 1;
}

/* The iovecs of a fragment: header, then source blocks where they lie, or parity. */
static uint32_t frag_iovs(struct append_op *op, unsigned int frag, struct iovec *iov)
{
	const struct ec_geometry *g = &op->h.geo;
	uint32_t n = iov_add(iov, 0, append_hdr(op, frag), op->h.len_bytes);
	struct op_layout l;

	if (frag >= g->k && g->k > 1) {
		layout_of(op, &l);
		return iov_add(iov, n,
			op->mem + l.parity + (size_t)(frag - g->k) * g->rows * EC_BLOCK,
			(size_t)g->rows * EC_BLOCK);
	}
	for (uint32_t i = 0; i < data_blocks_of(op, frag); i++) {
		uint32_t at = frag < g->k ? frag * g->rows + i : i;

		n = iov_add(iov, n, op->blocks[at], EC_BLOCK);
	}
	return n;
}

/* Cuts a fragment's iovecs into I/Os; returns how many. */
static uint32_t frag_ios(
	struct append_op *op, unsigned int frag, struct frag_io *fio, struct iovec *iov)
{
	const struct frag_addr *at = &op->h.addr[frag];
	uint64_t off = pool_segment_off(op->log->pool, at->segment) + at->off;
	uint32_t n = frag_iovs(op, frag, iov), ios = 0;

	for (uint32_t i = 0; i < n; i += FLASH_IOV_MAX) {
		uint32_t niov = MIN(n - i, (uint32_t)FLASH_IOV_MAX);
		struct frag_io *f = &fio[ios++];

		*f = (struct frag_io){.op = op};
		f->lio.io = (struct flash_io){.op = FLASH_WRITE,
			.off = off,
			.len = io_iov_bytes(iov + i, niov),
			.iov = iov + i,
			.niov = (int)niov,
			.checked = true};
		f->lio.dev = at->dev;
		f->lio.done_fn = frag_done;
		off += f->lio.io.len;
	}
	op->log->stats.dev_bytes[at->dev] += io_iov_bytes(iov, n);
	return ios;
}

static void count_bytes(struct append_op *op)
{
	struct stripelog_stats *s = &op->log->stats;
	const struct ec_geometry *g = &op->h.geo;
	uint64_t hdrs = (uint64_t)frag_count(&op->h) * op->h.len_bytes;

	if (!g->nblocks) {
		s->bytes_record += hdrs;
		return;
	}
	s->bytes_header += hdrs;
	s->bytes_data += (uint64_t)g->nblocks * EC_BLOCK;
	s->bytes_parity += (uint64_t)g->m * g->rows * EC_BLOCK;
}

/* One round: everything at once. */
static void op_submit(struct append_op *op)
{
	struct frag_io *fios;
	struct iovec *iovs;
	struct op_layout l;
	uint32_t n = 0;

	op->failed = false;
	count_bytes(op);
	layout_of(op, &l);
	if (op->windowed) {
		window_store(op, (uint32_t *)(void *)(op->mem + l.crcs));
		return;
	}
	append_headers(op);
	fios = (struct frag_io *)(void *)(op->mem + l.frags);
	iovs = (struct iovec *)(void *)(op->mem + l.iovs);
	for (unsigned int i = 0; i < frag_count(&op->h); i++)
		n += frag_ios(op, i, fios + n, iovs + (size_t)i * (1 + op->h.geo.rows));
	assert(n <= l.nios);
	op->pending = n;
	for (uint32_t i = 0; i < n; i++)
		logio_submit(op->log, fios[i].lio.dev, &fios[i].lio);
}

/* ---- a round from its start ------------------------------------------------------------------------------------------ */

static int op_table(struct append_op *op)
{
	int rc;

	if (!op->h.geo.nblocks)
		return 0;
	rc = entry_add(op->log, &op->h, op->h.geo.nblocks, true, &op->a->ref);
	op->has_ref = rc == 0;
	return rc;
}

static void op_unplace(struct append_op *op)
{
	if (op->has_ref)
		entry_del(op->log, op->a->ref);
	op->has_ref = false;
	if (op->placed) {
		group_put(op->log, op->g);
		mark_written(op->log, op->h.number, 0);
	}
	op->placed = false;
	op_release(op);
}

static struct log_key *op_key(struct append_op *op)
{
	if (op->a->nblocks && !op->voiding)
		return key_get(op->log, op->a->scheme, op->a->excluded_dev, op->a->mover);
	return key_get(op->log, (struct ec_scheme){0}, POOL_DEV_NONE, false);
}

/* 0: on its way. -EAGAIN: no memory now; nothing is held. Other: it cannot be. */
static int op_start(struct append_op *op)
{
	int rc;

	if (pool_is_lost(op->log->pool, NULL))
		return -EROFS;
	log_devs_refresh(op->log);
	rc = op_shape(op);
	if (rc < 0)
		return rc;
	op->key = op_key(op);
	if (!op->key)
		return -ENOSPC;
	op->windowed = op->log->windows;
	rc = op_memory(op);
	if (rc < 0)
		return rc;
	rc = group_place(op->log, op);
	if (rc == 0) {
		op->placed = true;
		rc = op_table(op);
	}
	if (rc == 0)
		rc = op_encode(op);
	if (rc < 0) {
		op_unplace(op);
		return rc == -EFBIG ? -EINVAL : rc;
	}
	if (op->g->opening)
		TAILQ_INSERT_TAIL(&op->g->waiters, op, link);
	else
		op_submit(op);
	return 0;
}

static void op_end(struct append_op *op, enum io_status status)
{
	struct stripelog *log = op->log;
	struct stripe_append *a = op->a;

	op_release(op);
	log->inflight--;
	log->mover_inflight -= a->mover;
	TAILQ_INSERT_HEAD(&log->free_ops, op, link);
	a->priv = NULL;
	a->done_fn(a, status);
}

static void op_restart(struct append_op *op);

/* It cannot be stored: say so durably where fragments of it may be lying about, then to the caller. */
static void op_give_up(struct append_op *op, int rc)
{
	if (!op->voiding) {
		op->status = rc == -ENOSPC  ? IO_ERR_NO_SPACE
			     : rc == -EROFS ? IO_ERR_RETRY
					    : IO_ERR_INTERNAL;
		if (op->nvoids) {
			op->voiding = true;
			op->attempts = 0;
			op_restart(op);
			return;
		}
	}
	/* Not even that: the watermark does not pass these numbers before mend.c has managed to say it. */
	for (uint32_t i = 0; i < op->nvoids; i++)
		mark_stuck(op->log, op->voids[i]);
	op_end(op, op->status);
}

static void op_restart(struct append_op *op)
{
	int rc = op_start(op);

	if (rc == -EAGAIN)
		TAILQ_INSERT_TAIL(&op->log->again, op, link);
	else if (rc < 0)
		op_give_up(op, rc);
}

void append_group_ready(struct append_op *op, bool ok)
{
	if (ok) {
		op_submit(op);
		return;
	}
	/* Nothing of it has been written: place it anew. */
	op_unplace(op);
	op_restart(op);
}

int append_poll(struct stripelog *log)
{
	struct append_list list = TAILQ_HEAD_INITIALIZER(list);
	struct append_op *op;
	int did = 0;

	TAILQ_CONCAT(&list, &log->again, link);
	while ((op = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, op, link);
		op_restart(op);
		did += !(TAILQ_LAST(&log->again, append_list) == op);
	}
	return did;
}

/* ---- the end of a round ------------------------------------------------------------------------------------------------- */

static void op_flushed(struct stripe_flush *f, enum io_status status)
{
	struct append_op *op = f->arg;

	op_end(op, op->status);
}

static void op_written_all(struct append_op *op)
{
	struct stripelog *log = op->log;
	struct stripe_append *a = op->a;

	mark_written(log, op->h.number, op->devs);
	for (uint32_t i = 0; i < op->nvoids; i++)
		mark_written(log, op->voids[i], op->devs);
	log->stats.records += op->h.nrecords;
	log->stats.short_stripes += op->is_short;
	if (op->h.geo.nblocks) {
		log->stats.stripes++;
		log->stats.stripes_by_width[op->h.geo.k]++;
		hist_add(&log->fill, op->h.geo.nblocks);
	}
	op->has_ref = false; /* the caller's now */
	if (!a->fua && !op->voiding) {
		op_end(op, op->status);
		return;
	}
	op->flush = (struct stripe_flush){.done_fn = op_flushed, .arg = op};
	stripelog_flush(log, &op->flush);
}

void append_written(struct append_op *op)
{
	struct stripelog *log = op->log;

	group_put(log, op->g);
	op->placed = false;
	if (!op->failed) {
		op_written_all(op);
		return;
	}
	log->stats.reappends++;
	if (op->has_ref)
		entry_del(log, op->a->ref);
	op->has_ref = false;
	op_release(op);
	op->voids[op->nvoids++] = op->h.number;
	if (op->nvoids < ARRAY_LEN(op->voids) && ++op->attempts < ROUNDS_MAX)
		op_restart(op);
	else
		op_give_up(op, -EROFS);
}

/* ---- submit ---------------------------------------------------------------------------------------------------------------- */

static bool append_valid(const struct stripelog *log, const struct stripe_append *a)
{
	uint64_t sum = 0;

	if (!a->done_fn || a->nrecords + ROUNDS_MAX > RECORDS_INLINE_MAX ||
		(!a->nblocks && !a->nrecords) || a->nblocks > EC_BLOCKS_MAX)
		return false;
	for (uint32_t i = 0; i < a->nrecords; i++) {
		if (a->records[i].len > RECORD_BODY_MAX)
			return false;
	}
	if (!a->nblocks)
		return true;
	for (uint32_t i = 0; i < a->nextents; i++)
		sum += a->extents[i].nblocks;
	return sum == a->nblocks && a->nextents <= a->nblocks && a->crc && a->blocks &&
	       a->scheme.k >= 1 && a->scheme.k <= EC_K_MAX && a->scheme.m >= 1 &&
	       a->scheme.m <= EC_M_MAX && a->excluded_dev < (int)log->ndevs;
}

int stripelog_append(struct stripelog *log, struct stripe_append *a)
{
	int rc;

	if (!append_valid(log, a))
		return -EINVAL;
	/* A stripe of a VM finds one of the mover's before it at most. */
	if (a->mover && log->mover_inflight)
		return -EAGAIN;
	rc = mark_room(log);
	return rc ? rc : append_begin(log, a);
}

int append_begin(struct stripelog *log, struct stripe_append *a)
{
	struct append_op *op = TAILQ_FIRST(&log->free_ops);
	int rc;

	if (!op)
		return -EAGAIN;
	memset(op, 0, offsetof(struct append_op, link));
	op->log = log;
	op->a = a;
	op->status = IO_OK;
	TAILQ_REMOVE(&log->free_ops, op, link);
	rc = op_start(op);
	if (rc < 0) {
		TAILQ_INSERT_HEAD(&log->free_ops, op, link);
		return rc;
	}
	a->priv = op;
	log->inflight++;
	log->mover_inflight += a->mover;
	if (a->nblocks && !a->mover)
		space_used(log, op->key, a->nblocks);
	return 0;
}
