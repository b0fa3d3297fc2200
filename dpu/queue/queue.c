/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/queue/queue.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"

#define KEYS_MAX      256u
#define KEY_BUCKETS   64u
#define BATCHES_MAX   128u
#define MAX_BYTES_DEF (512u << 10)
#define MAX_BYTES_TOP (EC_BLOCKS_MAX * EC_BLOCK)
#define AGE_US_DEF    100u
#define AGE_US_TOP    1000000u

TAILQ_HEAD(item_list, queue_item);
TAILQ_HEAD(batch_list, batch);

/*
 * A batch goes: free -> open (its key gathers into it) -> closed (waits for the log to take it; usually no time) -> in the log -> free.
 */
struct batch {
	struct queue *q;
	struct key *key;
	struct item_list items;
	uint32_t nitems, nblocks;
	uint64_t first_ns; /* when its first item came */
	uint64_t sent_ns; /* to the log */
	bool fua;
	enum queue_close_reason why;
	struct stripe_append app;
	TAILQ_ENTRY(batch) link; /* in free, open or closed */
	const uint8_t *blocks[EC_BLOCKS_MAX];
	uint32_t crc[EC_BLOCKS_MAX];
	struct stripe_extent extents[EC_BLOCKS_MAX];
};

/* What a batch has in common. Kept while it has an open batch or stripes in flight. */
struct key {
	struct ec_scheme scheme;
	int excluded_dev;
	uint32_t vm;
	bool per_vm; /* vm counts */
	uint32_t busy; /* batches closed or in the log */
	struct batch *open;
	LIST_ENTRY(key) link;
};
LIST_HEAD(key_list, key);

struct queue {
	struct stripelog *log;
	struct shard *sh;
	struct queue_cfg cfg;
	uint32_t max_blocks; /* of a batch */
	struct task
		round_end; /* group commit: looks at the open batches once the round's requests are in */
	struct timer age;
	struct poller retry; /* offers closed batches again */
	struct key_list buckets[KEY_BUCKETS], free_keys;
	struct batch_list free, open, closed;
	struct key *keys;
	struct batch *batches;
	uint32_t in_log;
	struct queue_stats stats;
	struct queue_hists hists;
};

static void age_fired(void *arg);
static void round_end(void *arg);

/* ---- settings --------------------------------------------------------------------------------------------- */

int queue_cfg_check(const struct queue_cfg *cfg, struct err *err)
{
	if (cfg->max_bytes && (cfg->max_bytes < EC_BLOCK || cfg->max_bytes > MAX_BYTES_TOP))
		return err_set(err, -EINVAL, "queue", "max_bytes", "%u is outside %u..%u (0: %u)",
			cfg->max_bytes, EC_BLOCK, MAX_BYTES_TOP, MAX_BYTES_DEF);
	if (cfg->max_count > EC_BLOCKS_MAX)
		return err_set(err, -EINVAL, "queue", "max_count", "%u is over %u (0: no limit)",
			cfg->max_count, EC_BLOCKS_MAX);
	if (cfg->max_age_us > AGE_US_TOP)
		return err_set(err, -EINVAL, "queue", "max_age_us", "%u is over %u (0: %u)",
			cfg->max_age_us, AGE_US_TOP, AGE_US_DEF);
	return 0;
}

static struct queue_cfg with_defaults(const struct queue_cfg *cfg)
{
	struct queue_cfg c = *cfg;

	c.max_bytes = c.max_bytes ? c.max_bytes : MAX_BYTES_DEF;
	c.max_age_us = c.max_age_us ? c.max_age_us : AGE_US_DEF;
	return c;
}

/* ---- keys ----------------------------------------------------------------------------------------------------- */

static struct key_list *key_bucket(struct queue *q, const struct queue_item *it, bool per_vm)
{
	uint32_t h = it->scheme.k * 31u + it->scheme.m * 7u + (uint32_t)(it->excluded_dev + 1);

	if (per_vm)
		h += it->vm * 2654435761u >> 8;
	return &q->buckets[h % KEY_BUCKETS];
}

static bool key_is(const struct key *k, const struct queue_item *it, bool per_vm)
{
	return k->scheme.k == it->scheme.k && k->scheme.m == it->scheme.m &&
	       k->excluded_dev == it->excluded_dev && k->per_vm == per_vm &&
	       (!per_vm || k->vm == it->vm);
}

static struct key *key_get(struct queue *q, const struct queue_item *it)
{
	bool per_vm = q->cfg.per_vm;
	struct key_list *bucket = key_bucket(q, it, per_vm);
	struct key *k;

	LIST_FOREACH (k, bucket, link)
		if (key_is(k, it, per_vm))
			return k;
	k = LIST_FIRST(&q->free_keys);
	if (!k)
		return NULL;
	LIST_REMOVE(k, link);
	*k = (struct key){.scheme = it->scheme,
		.excluded_dev = it->excluded_dev,
		.vm = it->vm,
		.per_vm = per_vm};
	LIST_INSERT_HEAD(bucket, k, link);
	return k;
}

static void key_put(struct queue *q, struct key *k)
{
	if (k->open || k->busy)
		return;
	LIST_REMOVE(k, link);
	LIST_INSERT_HEAD(&q->free_keys, k, link);
}

/* ---- batches in the log ------------------------------------------------------------------------------------------- */

static enum io_status status_of(int rc)
{
	switch (rc) {
	case -ENOSPC:
		return IO_ERR_NO_SPACE;
	case -EROFS:
		return IO_ERR_RETRY;
	default:
		return IO_ERR_INTERNAL;
	}
}

static void batch_done(struct queue *q, struct batch *b, enum io_status status)
{
	struct key *k = b->key;
	uint64_t now = shard_now_ns(q->sh);
	struct queue_item *it;
	uint32_t pos = 0;

	k->busy--;
	if (k->open && q->cfg.group_commit && !k->busy)
		shard_defer(q->sh, &q->round_end, round_end, q);
	key_put(q, k);
	while ((it = TAILQ_FIRST(&b->items))) {
		uint32_t n = it->extent.nblocks;

		TAILQ_REMOVE(&b->items, it, link);
		hist_add(&q->hists.waited, b->sent_ns - it->queued_ns);
		hist_add(&q->hists.in_log, now - b->sent_ns);
		if (status == IO_OK) {
			it->ref = b->app.ref;
			it->pos = pos;
			memcpy(it->crc, b->crc + pos, n * sizeof(*it->crc));
		}
		pos += n;
		it->done_fn(it, status);
	}
	TAILQ_INSERT_HEAD(&q->free, b, link);
}

static void appended(struct stripe_append *app, enum io_status status)
{
	struct batch *b = app->arg;

	b->q->in_log--;
	batch_done(b->q, b, status);
}

static void fill_append(struct batch *b)
{
	struct queue_item *it;
	uint32_t pos = 0, e = 0;
	bool unstable = false;

	TAILQ_FOREACH (it, &b->items, link) {
		memcpy(b->blocks + pos, it->blocks, it->extent.nblocks * sizeof(*it->blocks));
		b->extents[e++] = it->extent;
		pos += it->extent.nblocks;
		unstable |= it->unstable;
	}
	b->app = (struct stripe_append){.scheme = b->key->scheme,
		.excluded_dev = b->key->excluded_dev,
		.nblocks = pos,
		.blocks = b->blocks,
		.unstable = unstable,
		.extents = b->extents,
		.nextents = e,
		.fua = b->fua,
		.done_fn = appended,
		.arg = b,
		.crc = b->crc};
}

/* 0: gone (in the log, or failed: its items were told later than any submit, this runs from the loop only); -EAGAIN: stays closed. */
static int batch_offer(struct queue *q, struct batch *b)
{
	int rc = stripelog_append(q->log, &b->app);

	if (rc == -EAGAIN)
		return rc;
	TAILQ_REMOVE(&q->closed, b, link);
	b->sent_ns = shard_now_ns(q->sh);
	if (rc == 0) {
		hist_add(&q->hists.batch_items, b->nitems);
		hist_add(&q->hists.batch_blocks, b->nblocks);
		q->in_log++;
		q->stats.waiting -= b->nitems;
		q->stats.batches++;
		q->stats.closed[b->why]++;
		return 0;
	}
	q->stats.waiting -= b->nitems;
	stripelog_unreserve(q->log, b->key->scheme, b->key->excluded_dev, b->nblocks);
	batch_done(q, b, status_of(rc));
	return 0;
}

/* Offers closed batches in order. Returns how many went. */
static int offer_closed(void *arg)
{
	struct queue *q = arg;
	struct batch *b;
	int n = 0;

	while ((b = TAILQ_FIRST(&q->closed))) {
		if (batch_offer(q, b) == -EAGAIN)
			break;
		n++;
	}
	if (TAILQ_EMPTY(&q->closed))
		poller_del(q->sh, &q->retry);
	else if (!q->retry.linked)
		poller_add(q->sh, &q->retry, offer_closed, q, POLLER_SLEEPS);
	return n;
}

/* ---- gathering ------------------------------------------------------------------------------------------------------ */

/* From here the loop takes it (offer_closed), so that no item can end inside queue_submit(). */
static void batch_close(struct queue *q, struct batch *b, enum queue_close_reason why)
{
	b->why = why;
	b->key->open = NULL;
	b->key->busy++;
	TAILQ_REMOVE(&q->open, b, link);
	fill_append(b);
	TAILQ_INSERT_TAIL(&q->closed, b, link);
}

static void arm_age(struct queue *q)
{
	struct batch *b = TAILQ_FIRST(&q->open); /* the oldest */

	if (!b) {
		timer_disarm(q->sh, &q->age);
		return;
	}
	if (timer_arm(q->sh, &q->age, b->first_ns + q->cfg.max_age_us * 1000ull, age_fired, q) <
		0) {
		/* No timer to be had: do not make it wait. */
		batch_close(q, b, QUEUE_CLOSE_AGE);
		shard_defer(q->sh, &q->round_end, round_end, q);
	}
}

static void age_fired(void *arg)
{
	struct queue *q = arg;
	uint64_t now = shard_now_ns(q->sh);
	struct batch *b;

	while ((b = TAILQ_FIRST(&q->open)) && b->first_ns + q->cfg.max_age_us * 1000ull <= now)
		batch_close(q, b, QUEUE_CLOSE_AGE);
	offer_closed(q);
	arm_age(q);
}

static void round_end(void *arg)
{
	struct queue *q = arg;
	struct batch *b, *next;

	for (b = TAILQ_FIRST(&q->open); b && q->cfg.group_commit; b = next) {
		next = TAILQ_NEXT(b, link);
		if (!b->key->busy)
			batch_close(q, b, QUEUE_CLOSE_IDLE);
	}
	offer_closed(q);
	arm_age(q);
}

static struct batch *batch_open(struct queue *q, struct key *k)
{
	struct batch *b = TAILQ_FIRST(&q->free);

	if (!b)
		return NULL;
	TAILQ_REMOVE(&q->free, b, link);
	b->key = k;
	TAILQ_INIT(&b->items);
	b->nitems = b->nblocks = 0;
	b->fua = false;
	b->first_ns = shard_now_ns(q->sh);
	k->open = b;
	TAILQ_INSERT_TAIL(&q->open, b, link);
	return b;
}

static bool fits(const struct queue *q, const struct batch *b, uint32_t nblocks)
{
	return b->nblocks + nblocks <= MIN(q->cfg.max_bytes / EC_BLOCK, q->max_blocks);
}

/* The reason to close b now, or QUEUE_CLOSE_REASONS. */
static enum queue_close_reason full(const struct queue *q, const struct batch *b)
{
	if (b->fua)
		return QUEUE_CLOSE_FUA;
	if (q->cfg.per_request)
		return QUEUE_CLOSE_REQUEST;
	if (!fits(q, b, 1))
		return QUEUE_CLOSE_BYTES;
	if (q->cfg.max_count && b->nitems >= q->cfg.max_count)
		return QUEUE_CLOSE_COUNT;
	return QUEUE_CLOSE_REASONS;
}

int queue_submit(struct queue *q, struct queue_item *it)
{
	uint32_t n = it->extent.nblocks;
	enum queue_close_reason why;
	struct key *k;
	struct batch *b;

	if (!n || n > q->max_blocks)
		return -EINVAL;
	k = key_get(q, it);
	if (!k)
		return -EAGAIN;
	b = k->open;
	/* What would not fit goes ahead; an item larger than a batch gets one of its own. */
	if (b && !fits(q, b, n)) {
		batch_close(q, b, QUEUE_CLOSE_BYTES);
		b = NULL;
	}
	if (!b) {
		b = batch_open(q, k);
		if (!b) {
			key_put(q, k);
			return -EAGAIN;
		}
	}
	it->queued_ns = shard_now_ns(q->sh);
	TAILQ_INSERT_TAIL(&b->items, it, link);
	b->nitems++;
	b->nblocks += n;
	b->fua |= it->fua;
	q->stats.items++;
	q->stats.blocks += n;
	q->stats.waiting++;
	why = full(q, b);
	if (why != QUEUE_CLOSE_REASONS)
		batch_close(q, b, why);
	shard_defer(q->sh, &q->round_end, round_end, q);
	return 0;
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

int queue_open(struct stripelog *log, struct shard *sh, const struct queue_cfg *cfg,
	uint32_t max_blocks, struct queue **out)
{
	struct queue *q;
	int rc = queue_cfg_check(cfg, NULL);

	if (rc < 0)
		return rc;
	q = calloc(1, sizeof(*q));
	if (!q)
		return -ENOMEM;
	q->keys = calloc(KEYS_MAX, sizeof(*q->keys));
	q->batches = calloc(BATCHES_MAX, sizeof(*q->batches));
	if (!q->keys || !q->batches) {
		free(q->batches);
		free(q->keys);
		free(q);
		return -ENOMEM;
	}
	q->log = log;
	q->sh = sh;
	q->cfg = with_defaults(cfg);
	q->max_blocks = max_blocks && max_blocks < EC_BLOCKS_MAX ? max_blocks : EC_BLOCKS_MAX;
	TAILQ_INIT(&q->free);
	TAILQ_INIT(&q->open);
	TAILQ_INIT(&q->closed);
	LIST_INIT(&q->free_keys);
	for (unsigned int i = 0; i < KEYS_MAX; i++)
		LIST_INSERT_HEAD(&q->free_keys, &q->keys[i], link);
	for (unsigned int i = 0; i < BATCHES_MAX; i++) {
		q->batches[i].q = q;
		TAILQ_INSERT_TAIL(&q->free, &q->batches[i], link);
	}
	*out = q;
	return 0;
}

void queue_close(struct queue *q)
{
	if (!q)
		return;
	assert(TAILQ_EMPTY(&q->open) && TAILQ_EMPTY(&q->closed) && !q->in_log);
	timer_disarm(q->sh, &q->age);
	shard_undefer(q->sh, &q->round_end);
	poller_del(q->sh, &q->retry);
	free(q->batches);
	free(q->keys);
	free(q);
}

void queue_set(struct queue *q, const struct queue_cfg *cfg)
{
	struct batch *b;

	assert(queue_cfg_check(cfg, NULL) == 0);
	/* What is gathered under the old settings goes under the old settings. */
	while ((b = TAILQ_FIRST(&q->open)))
		batch_close(q, b, QUEUE_CLOSE_AGE);
	shard_defer(q->sh, &q->round_end, round_end, q);
	q->cfg = with_defaults(cfg);
}

const struct queue_cfg *queue_cfg(const struct queue *q)
{
	return &q->cfg;
}

const struct queue_hists *queue_hists(const struct queue *q)
{
	return &q->hists;
}

void queue_stats(const struct queue *q, struct queue_stats *out)
{
	*out = q->stats;
}
