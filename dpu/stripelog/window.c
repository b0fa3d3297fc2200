/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices whose memory we may store into (mem:) need no write: one pass over the batch takes CRCs, encodes, and streams data and
 * parity to where they belong; headers follow behind a fence. Used when every device of the pool offers it.
 */
#include <errno.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/core/mem.h"
#include "dpu/stripelog/log_priv.h"

#define PROBE_BYTES 4096u

void window_open(struct stripelog *log)
{
	log->windows = true;
	for (unsigned int i = 0; i < log->ndevs; i++) {
		const struct pool_dev *d = pool_dev(log->pool, i);

		if (!d->flash || flash_info(d->flash)->volatile_cache ||
			!flash_window(d->flash, 0, PROBE_BYTES))
			log->windows = false;
	}
}

bool stripelog_reads_once(const struct stripelog *log)
{
	return log->windows;
}

static void window_done(void *arg)
{
	struct append_op *op = arg;

	for (uint64_t d = op->devs; d; d &= d - 1) {
		unsigned int dev = (unsigned int)__builtin_ctzll(d);

		if (!op->failed)
			flush_wrote(op->log, dev);
	}
	append_written(op);
}

/* Where each fragment goes; a device that has no window any more is failed. */
static bool windows_of(struct append_op *op, uint8_t **win)
{
	struct stripelog *log = op->log;
	bool ok = true;

	for (unsigned int i = 0; i < frag_count(&op->h); i++) {
		const struct frag_addr *a = &op->h.addr[i];
		const struct pool_dev *d = pool_dev(log->pool, a->dev);
		uint64_t len = op->h.len_bytes;

		if (op->h.geo.nblocks)
			len += (uint64_t)ec_fragment_blocks(&op->h.geo, i) * EC_BLOCK;
		win[i] = flash_window(
			d->flash, pool_segment_off(log->pool, a->segment) + a->off, len);
		if (!win[i] || !pool_dev_usable(log->pool, a->dev)) {
			pool_dev_fail(log->pool, a->dev);
			ok = false;
			continue;
		}
		log->stats.dev_bytes[a->dev] += len;
	}
	return ok;
}

/* A single copy, where the pool has no other device left. */
static void copy_plain(struct append_op *op, uint8_t *dst)
{
	const struct stripe_append *a = op->a;

	for (uint32_t i = 0; i < a->nblocks; i++) {
		memcpy(dst + (size_t)i * EC_BLOCK, a->blocks[i], EC_BLOCK);
		a->crc[i] = crc32c(dst + (size_t)i * EC_BLOCK, EC_BLOCK);
	}
}

static int encode_into(struct append_op *op, uint8_t *const *win, uint32_t *parity_crc)
{
	const struct ec_geometry *g = &op->h.geo;
	uint8_t **copy = op->log->window_ptrs, *parity[FRAGS_MAX];
	const struct ec_code *code;
	int rc;

	if (!g->m) {
		copy_plain(op, win[0] + op->h.len_bytes);
		return 0;
	}
	rc = ec_code_get(op->log->ec, g->k, g->m, &code);
	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < g->nblocks; i++)
		copy[i] = win[i / g->rows] + op->h.len_bytes + (size_t)(i % g->rows) * EC_BLOCK;
	for (unsigned int i = 0; i < g->m; i++)
		parity[i] = win[g->k + i] + op->h.len_bytes;
	ec_encode_pass(code, &(struct ec_pass){.geo = *g,
				     .blocks = op->a->blocks,
				     .copy = copy,
				     .unstable = op->a->unstable,
				     .parity = parity,
				     .stream = true,
				     .crc = op->a->crc,
				     .parity_crc = parity_crc});
	return 0;
}

void window_store(struct append_op *op, uint32_t *parity_crc)
{
	uint8_t *win[FRAGS_MAX];

	op->failed = !windows_of(op, win);
	if (!op->failed && op->h.geo.nblocks && encode_into(op, win, parity_crc) < 0)
		op->failed = true;
	if (!op->failed) {
		append_headers(op);
		__sync_synchronize(); /* payload first: a header is what makes it count */
		for (unsigned int i = 0; i < frag_count(&op->h); i++)
			mem_copy_stream(win[i], append_hdr(op, i), op->h.len_bytes);
		mem_stream_fence();
	}
	shard_defer(op->log->sh, &op->task, window_done, op);
}
