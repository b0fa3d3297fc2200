/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The queue controller (202): gathers protected writes into batches and hands them to the stripe log (EC 102).
 *
 * A batch closes on bytes, on count, on age, at once when its key has no stripe in flight (group commit: at the end of the
 * shard's round, so that what arrived together goes together), or per request; with per_vm a batch holds one VM's writes only.
 * The key is (scheme, excluded device[, VM]). Whatever the settings, an age limit applies. Several batches of a key may be
 * in flight.
 *
 * Thread: one shard. Submit contract of dpu/core/io.h. Memory: allocated at open.
 */
#ifndef DPU_QUEUE_QUEUE_H
#define DPU_QUEUE_QUEUE_H

#include "common/base/hist.h"
#include "dpu/stripelog/stripelog.h"

struct queue_cfg {
	uint32_t max_bytes; /* close at this much data; 0: 512 KiB */
	uint32_t max_count; /* close at this many writes; 0: no limit */
	uint32_t
		max_age_us; /* close when its first write has waited this long; 0: 100; at most 1000000 */
	bool group_commit; /* close when nothing of the key is in flight (default) */
	bool per_request; /* every write a batch of its own */
	bool per_vm;
};
#define QUEUE_CFG_DEFAULT \
	((struct queue_cfg){.max_bytes = 512u << 10, .max_age_us = 100, .group_commit = true})
/* -EINVAL with field and allowed range. */
int queue_cfg_check(const struct queue_cfg *cfg, struct err *err);

/* One protected write: nblocks consecutive blocks of a volume. */
struct queue_item {
	uint32_t vm;
	struct ec_scheme scheme;
	int excluded_dev;
	struct stripe_extent extent; /* volume, block, nblocks, seq */
	const uint8_t *const
		*blocks; /* extent.nblocks pointers to 4 KiB, there until done_fn; stable unless: */
	bool unstable; /* somebody may change them: the log reads them once */
	uint32_t *crc; /* extent.nblocks, out */
	bool fua; /* closes its batch and flushes it */
	void (*done_fn)(struct queue_item *it, enum io_status status);
	void *arg;
	uint32_t ref, pos; /* out: where the blocks are in the log, consecutive from pos */
	TAILQ_ENTRY(queue_item) link;
	uint64_t queued_ns;
};

struct queue;
/* max_blocks: of a batch, whatever the settings say (what a stripe may have in the pool's segments); 0: EC_BLOCKS_MAX. */
int queue_open(struct stripelog *log, struct shard *sh, const struct queue_cfg *cfg,
	uint32_t max_blocks, struct queue **out);
void queue_close(struct queue *q); /* empty */
void queue_set(struct queue *q, const struct queue_cfg *cfg); /* live; checked before */
const struct queue_cfg *queue_cfg(const struct queue *q);
/* An item of more than max_blocks blocks is the caller's error (-EINVAL); -EAGAIN: full, later. */
int queue_submit(struct queue *q, struct queue_item *it);

enum queue_close_reason {
	QUEUE_CLOSE_BYTES,
	QUEUE_CLOSE_COUNT,
	QUEUE_CLOSE_AGE,
	QUEUE_CLOSE_IDLE,
	QUEUE_CLOSE_REQUEST,
	QUEUE_CLOSE_FUA,
	QUEUE_CLOSE_REASONS
};
struct queue_stats {
	uint64_t batches, items, blocks, closed[QUEUE_CLOSE_REASONS], waiting;
};
void queue_stats(const struct queue *q, struct queue_stats *out);

struct queue_hists {
	struct hist waited; /* ns, of each write: until its batch went to the log */
	struct hist in_log; /* ns, of each write: encoding and the stripe, until it was written */
	struct hist batch_items, batch_blocks; /* of each batch */
};
const struct queue_hists *queue_hists(const struct queue *q);

#endif
