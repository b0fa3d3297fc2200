/* SPDX-License-Identifier: BSD-3-Clause */
/* The store: everything above one pool, put together and taken apart; events and numbers. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/volume/ckpt.h"

#define REQUESTS_DEF 1024u
#define BUFFERS_DEF  (64ull << 20)
#define MAP_DEF      (1ull << 30)
#define STRIPE_PART \
	4u /* a fragment takes no more than this part of a segment: promises of space count on it */
#define NO_SPACE_GAP 1000000000ull

/* ---- events ---------------------------------------------------------------------------------------------------- */

void store_event(
	struct store *s, enum store_event_kind kind, const char *object, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	if (!s->event_fn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	s->event_fn(s->event_arg, kind, object, text);
}

void store_on_event(struct store *s,
	void (*event_fn)(
		void *arg, enum store_event_kind kind, const char *object, const char *text),
	void *arg)
{
	struct volume *v;

	s->event_fn = event_fn;
	s->event_arg = arg;
	TAILQ_FOREACH (v, &s->volumes, link) {
		if (v->lost_text)
			store_event(s, STORE_EVENT_BLOCKS_LOST, v->cfg.name, "%s", v->lost_text);
		free(v->lost_text);
		v->lost_text = NULL;
	}
	room_tell(s);
	if (s->stats.recovery_stripes || s->stats.recovery_lost)
		store_event(s, STORE_EVENT_RECOVERED, pool_cfg(s->pool)->name,
			"%llu stripes found, %llu completed again, %llu blocks lost, in %llu ms",
			(unsigned long long)s->stats.recovery_stripes,
			(unsigned long long)s->stats.recovery_reappended,
			(unsigned long long)s->stats.recovery_lost,
			(unsigned long long)(s->stats.recovery_ns / 1000000));
}

static void dev_changed(void *arg, unsigned int dev)
{
	struct store *s = arg;
	const struct pool_dev *pd = pool_dev(s->pool, dev);
	unsigned int down = 0;

	if (pool_is_lost(s->pool, NULL)) {
		store_lost(s, pd->name);
		return;
	}
	rec_hurry(s);
	if (pd->failures != s->failures_seen[dev]) { /* it may be back already */
		s->failures_seen[dev] = pd->failures;
		volumes_dev_failed(s, dev);
	}
	if (pd->state == POOL_DEV_REMOVED)
		return; /* whoever took it out says so */
	if (pool_dev_usable(s->pool, dev)) {
		store_event(s,
			pd->state == POOL_DEV_SUSPECT ? STORE_EVENT_DEV_SUSPECT
						      : STORE_EVENT_DEV_STATE,
			pd->name, "the device is %s now%s%s", pool_dev_state_name(pd->state),
			pd->why[0] ? ": " : "", pd->why);
		return;
	}
	for (unsigned int d = 0; d < pool_ndevs(s->pool); d++)
		down += pool_dev(s->pool, d)->state != POOL_DEV_REMOVED &&
			!pool_dev_usable(s->pool, d);
	store_event(s, STORE_EVENT_DEV_FAILED, pd->name,
		"the device has failed and is not used any more%s%s", pd->why[0] ? ": " : "",
		pd->why);
	store_event(s, STORE_EVENT_DEGRADED, pool_cfg(s->pool)->name,
		"%u of %u devices are missing", down, pool_ndevs(s->pool));
}

void store_no_space(struct store *s, struct volume *v)
{
	uint64_t now = shard_now_ns(s->sh);

	if (s->no_space_ns && now - s->no_space_ns < NO_SPACE_GAP)
		return;
	s->no_space_ns = now;
	store_check_space(s);
	store_event(s, STORE_EVENT_NO_SPACE, v->cfg.name,
		"a write was refused: the pool has no room for it");
}

static const char gives_more[] = "parapet-dpu --map-memory gives more, trim and delete free it";

void store_map_full(struct store *s, struct volume *v)
{
	uint64_t now = shard_now_ns(s->sh);
	struct store_stats st;

	if (s->map_full_ns && now - s->map_full_ns < NO_SPACE_GAP)
		return;
	s->map_full_ns = now;
	store_stats(s, &st);
	store_event(s, STORE_EVENT_MAP_FULL, v->cfg.name,
		"a write was refused: of the memory for location maps %llu of %llu MiB are used, "
		"of the stripe table's %llu of %llu MiB; %s",
		(unsigned long long)(st.map_bytes >> 20),
		(unsigned long long)(st.map_max_bytes >> 20),
		(unsigned long long)(st.log.table_used_bytes >> 20),
		(unsigned long long)(st.log.table_max_bytes >> 20), gives_more);
}

/* ---- open ---------------------------------------------------------------------------------------------------------- */

static void lists_init(struct store *s)
{
	TAILQ_INIT(&s->volumes);
	TAILQ_INIT(&s->free_ops);
	TAILQ_INIT(&s->free_repairs);
	TAILQ_INIT(&s->ready);
	TAILQ_INIT(&s->retry);
	TAILQ_INIT(&s->buf_wait);
	TAILQ_INIT(&s->area_wait);
	TAILQ_INIT(&s->room_waiters);
	TAILQ_INIT(&s->done);
	TAILQ_INIT(&s->free_vios);
	TAILQ_INIT(&s->dead_vios);
	TAILQ_INIT(&s->free_sreads);
	TAILQ_INIT(&s->recs);
	for (unsigned int d = 0; d < POOL_DEVS_MAX; d++) {
		TAILQ_INIT(&s->dev_wait[d]);
		TAILQ_INIT(&s->flushers[d].running);
		TAILQ_INIT(&s->flushers[d].next);
		s->flushers[d].s = s;
		s->flushers[d].dev = (uint8_t)d;
	}
	for (unsigned int i = 0; i < REC_BATCHES; i++) {
		TAILQ_INIT(&s->rec_batches[i].items);
		s->rec_batches[i].s = s;
	}
	s->tick.run_fn = store_tick;
}

static int parts_open(struct store *s, struct err *err)
{
	uint64_t nbufs = MAX(s->cfg.buffer_bytes / IO_BLOCK_BYTES, 2ull * CHUNK_BLOCKS);
	struct stripelog_cfg log_cfg = {.pool = s->pool, .table_bytes = s->cfg.table_bytes};
	int rc;

	rc = ops_open(s, s->cfg.max_requests);
	if (rc == 0)
		rc = areas_open(s);
	if (rc == 0)
		rc = area_frees_open(s);
	if (rc == 0)
		rc = map_mem_open(s->cfg.map_bytes, &s->map_mem);
	if (rc == 0)
		rc = bufpool_open(IO_BLOCK_BYTES, (uint32_t)MIN(nbufs, UINT32_MAX), &s->bufs);
	if (rc == 0)
		rc = ec_open(s->cfg.ec, &s->ec);
	log_cfg.ec = s->ec;
	log_cfg.shard_id = shard_id(s->sh);
	if (rc == 0)
		rc = stripelog_open(&log_cfg, &s->log);
	if (rc < 0)
		return err_set(err, rc, pool_cfg(s->pool)->name, NULL,
			"the storage stack cannot be set up: %s", strerror(-rc));
	rc = room_open(s);
	if (rc == 0)
		rc = checkpoint_open(s);
	if (rc == 0)
		rc = heal_open(s);
	if (rc < 0)
		return err_set(err, rc, pool_cfg(s->pool)->name, NULL, "no memory");
	return queue_open(s->log, s->sh, &s->cfg.queue, s->piece_blocks / STRIPE_PART, &s->queue);
}

static void parts_close(struct store *s)
{
	struct volume *v;

	while ((v = TAILQ_FIRST(&s->volumes)))
		volume_free(v);
	poller_del(s->sh, &s->poller);
	shard_undefer(s->sh, &s->tick);
	shard_undefer(s->sh, &s->rec_round);
	queue_close(s->queue);
	heal_close(s);
	checkpoint_close(s);
	room_close(s);
	if (s->log)
		stripelog_close(s->log);
	if (s->ec)
		ec_close(s->ec);
	if (s->bufs)
		bufpool_close(s->bufs);
	map_mem_close(s->map_mem);
	notes_close(s);
	area_frees_close(s);
	areas_close(s);
	ops_close(s);
}

int store_open(const struct store_cfg *cfg, struct store **out, struct err *err)
{
	struct store *s;
	unsigned int lost;
	int rc = queue_cfg_check(&cfg->queue, err);

	if (rc < 0)
		return rc;
	s = calloc(1, sizeof(*s));
	if (!s)
		return err_set(err, -ENOMEM, "store", NULL, "no memory");
	s->cfg = *cfg;
	s->cfg.max_requests = cfg->max_requests ? cfg->max_requests : REQUESTS_DEF;
	s->cfg.buffer_bytes = cfg->buffer_bytes ? cfg->buffer_bytes : BUFFERS_DEF;
	s->cfg.map_bytes = cfg->map_bytes ? cfg->map_bytes : MAP_DEF;
	s->pool = cfg->pool;
	s->sh = pool_shard(cfg->pool);
	s->piece_blocks = pool_segment_bytes(s->pool) / IO_BLOCK_BYTES;
	s->chunk_blocks = MIN(CHUNK_BLOCKS, s->piece_blocks / STRIPE_PART);
	s->next_id = 1;
	s->next_note_seq = (pool_epoch(s->pool) << 40) + 1;
	lists_init(s);
	rc = parts_open(s, err);
	if (rc == 0) {
		poller_add(s->sh, &s->poller, store_poll, s, POLLER_SLEEPS);
		rc = store_recover(s, err);
	}
	if (rc < 0) {
		parts_close(s);
		free(s);
		return rc;
	}
	pool_on_dev_change(s->pool, &s->dev_listener, dev_changed, s);
	if (pool_is_lost(s->pool, &lost)) /* while nobody listened yet */
		dev_changed(s, lost);
	*out = s;
	return 0;
}

/* ---- close ----------------------------------------------------------------------------------------------------------- */

static bool is_quiet(void *arg)
{
	struct store *s = arg;
	struct queue_stats qs;

	queue_stats(s->queue, &qs);
	return !s->in_flight && !qs.waiting && !stripelog_inflight(s->log) && rec_idle(s) &&
	       area_jobs_idle(s) && area_frees_idle(s) && !s->note_puts && TAILQ_EMPTY(&s->done) &&
	       checkpoint_idle(s) && heal_idle(s) && !s->piece_orphans;
}

struct close_flush {
	struct store *s;
	struct stripe_flush f;
	bool done;
	enum io_status status;
};

static void close_flushed(struct stripe_flush *f, enum io_status status)
{
	struct close_flush *c = f->arg;

	c->status = status;
	c->done = true;
}

static bool close_is_flushed(void *arg)
{
	return ((struct close_flush *)arg)->done;
}

/* Everything durable; what cannot be is said, not waited for. */
static void flush_all(struct store *s)
{
	struct close_flush c = {.s = s, .f = {.done_fn = close_flushed, .arg = &c}};
	struct volume *v;
	int rc;

	TAILQ_FOREACH (v, &s->volumes, link)
		c.f.also_devs |= v->used_devs;
	rc = stripelog_flush(s->log, &c.f);
	if (rc == 0)
		rc = shard_wait(s->sh, close_is_flushed, &c, 0);
	if (rc < 0 || c.status != IO_OK)
		log_warn("pool %s: not everything could be flushed at close: %s",
			pool_cfg(s->pool)->name, rc < 0 ? strerror(-rc) : io_status_name(c.status));
}

void store_close(struct store *s)
{
	if (!s)
		return;
	s->closing = true;
	room_wake(s); /* nobody makes room any more */
	shard_wait(s->sh, is_quiet, s, 0);
	checkpoint_final(s);
	flush_all(s);
	shard_wait(s->sh, is_quiet, s, 0);
	pool_listener_del(s->pool, &s->dev_listener);
	parts_close(s);
	pool_close(s->pool);
	free(s);
}

/* ---- looking ----------------------------------------------------------------------------------------------------------- */

struct pool *store_pool(struct store *s)
{
	return s->pool;
}

struct queue *store_queue(struct store *s)
{
	return s->queue;
}

struct stripelog *store_log(struct store *s)
{
	return s->log;
}

const struct hist *store_times(const struct store *s, enum store_class c, enum store_stage st)
{
	return &s->times[c][st];
}

void store_stats(const struct store *s, struct store_stats *out)
{
	*out = s->stats;
	stripelog_stats(s->log, &out->log);
	queue_stats(s->queue, &out->queue);
	out->requests_in_flight = s->in_flight;
	out->map_bytes = map_mem_used(s->map_mem);
	out->map_max_bytes = map_mem_max(s->map_mem);
}
