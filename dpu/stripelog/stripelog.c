/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening, closing, the log's one poller, live counts, numbers. */
#include "dpu/stripelog/stripelog.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/stripelog/ledger.h"
#include "dpu/stripelog/space.h"

#define TABLE_DEF (1ull << 30)

void log_devs_refresh(struct stripelog *log)
{
	uint64_t version = pool_room_version(log->pool) + 1;

	if (log->room_seen == version && log->ndevs == pool_ndevs(log->pool))
		return;
	log->room_seen = version;
	log->ndevs = pool_ndevs(log->pool);
	window_open(log);
}

static int log_poll(void *arg)
{
	struct stripelog *log = arg;

	log_devs_refresh(log);
	return logio_poll(log) + append_poll(log) + read_poll(log);
}

static void log_free(struct stripelog *log)
{
	scan_free(log);
	list_close(log);
	verify_close(log);
	space_close(log);
	ledger_close(log);
	append_close(log);
	read_close(log);
	table_close(log->table);
	free(log->marks);
	free(log->records_mem);
	free(log);
}

static int log_alloc(struct stripelog *log, uint64_t table_bytes)
{
	int rc = table_open(table_bytes ? table_bytes : TABLE_DEF, &log->table);

	if (rc < 0)
		return rc;
	log->marks = calloc(MARKS_MAX, sizeof(*log->marks));
	log->records_mem = calloc(RECORDS_INLINE_MAX, sizeof(*log->records_mem));
	if (!log->marks || !log->records_mem)
		return -ENOMEM;
	rc = append_open(log);
	return rc < 0 ? rc : read_open(log);
}

static void log_init_lists(struct stripelog *log)
{
	LIST_INIT(&log->groups);
	TAILQ_INIT(&log->free_ops);
	TAILQ_INIT(&log->again);
	TAILQ_INIT(&log->flushes);
	TAILQ_INIT(&log->free_reads);
	TAILQ_INIT(&log->read_waiters);
	for (unsigned int i = 0; i < POOL_DEVS_MAX; i++)
		TAILQ_INIT(&log->devs[i].full);
}

int stripelog_open(const struct stripelog_cfg *cfg, struct stripelog **out)
{
	struct stripelog *log = calloc(1, sizeof(*log));
	int rc;

	if (!log)
		return -ENOMEM;
	log_init_lists(log);
	log->pool = cfg->pool;
	log->ec = cfg->ec;
	log->sh = pool_shard(cfg->pool);
	log->shard_id = cfg->shard_id & 0xff;
	log->max_inflight = cfg->max_inflight;
	log->max_reads = cfg->max_reads;
	log->block_bytes = pool_block_bytes(cfg->pool);
	log->segment_bytes = pool_segment_bytes(cfg->pool);
	log->next_counter = 1;
	log->settled = true; /* until a scan finds more */
	log->overprovision = 5;
	memcpy(log->id.uuid, pool_uuid(cfg->pool), 16);
	memcpy(log->id.key, pool_key(cfg->pool), 16);
	log_devs_refresh(log);
	rc = log_alloc(log, cfg->table_bytes);
	if (rc < 0) {
		log_free(log);
		return rc;
	}
	poller_add(log->sh, &log->poller, log_poll, log, POLLER_SLEEPS);
	*out = log;
	return 0;
}

/* The log does some I/O of its own accord: headers of groups, flushes that move the watermark. */
static bool log_idle(void *arg)
{
	const struct stripelog *log = arg;
	const struct group *g;

	LIST_FOREACH (g, &log->groups, link) {
		if (g->hdr_pending)
			return false;
	}
	return TAILQ_EMPTY(&log->flushes) && !log->mend.busy;
}

void stripelog_close(struct stripelog *log)
{
	assert(log->inflight == log->mend.busy && !log->reads_inflight && !log->lists_busy);
	log->closing = true;
	mend_close(log);
	groups_close_all(log);
	shard_wait(log->sh, log_idle, log, 0);
	poller_del(log->sh, &log->poller);
	shard_undefer(log->sh, &log->flush_task);
	shard_undefer(log->sh, &log->space_task);
	log_free(log);
}

void stripelog_put(struct stripelog *log, uint32_t ref, uint32_t nblocks)
{
	struct table_entry *e = table_get(log->table, ref);

	assert(e && e->live >= nblocks);
	entry_live(log, e, -(int64_t)nblocks);
	/* What a scan has found stays until recovery has dealt with it. */
	if (!e->live && !(e->flags & ENTRY_RECOVERED))
		entry_del(log, ref);
}

void stripelog_get(struct stripelog *log, uint32_t ref, uint32_t nblocks)
{
	struct table_entry *e = table_get(log->table, ref);

	assert(e && e->live + nblocks <= UINT16_MAX);
	entry_live(log, e, nblocks);
}

int stripelog_block_dev(const struct stripelog *log, uint32_t ref, uint32_t pos)
{
	const struct table_entry *e = table_get(log->table, ref);

	if (!e || pos >= e->nblocks)
		return -ENOENT;
	return table_addr_of(e, pos / table_rows(e)).dev;
}

const struct hist *stripelog_fill(const struct stripelog *log)
{
	return &log->fill;
}

void stripelog_stats(const struct stripelog *log, struct stripelog_stats *out)
{
	*out = log->stats;
	out->table_bytes = table_bytes(log->table);
	out->table_used_bytes = table_used_bytes(log->table);
	out->table_max_bytes = table_max_bytes(log->table);
	out->table_entries = table_entries(log->table);
}
