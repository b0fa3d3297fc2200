/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Room: operations that wait for it, what is said about it, and what is kept back for checkpoints.
 *
 * An overwrite never adds live data, so it is not refused because the log has no free group just now: it waits until the cleaner and a
 * checkpoint have made one (ST_RESERVE, before anything is written and outside of every era, so no checkpoint waits for it). The same
 * holds for a piece of an area when segments are in limbo.
 */
#include <errno.h>

#include "common/base/util.h"
#include "dpu/volume/ckpt.h"

#define POLL_ROUNDS     64u
#define LOOK_AGAIN_NS   2000000000ull
#define HYSTERESIS      2u /* per cent below the warning level: all is well again */
#define RECORD_SEGMENTS 3u /* kept back on each device for records, beside checkpoints */
#define LOW_PART        8u /* a checkpoint in time when less than this part of the log is free ... */
#define LIMBO_PART      32u /* ... and at least this part is in limbo */
#define WARNING_DEF     80u
#define CRITICAL_DEF    95u

/* ---- waiting ------------------------------------------------------------------------------------------------------- */

bool room_wait(struct op *op)
{
	struct store *s = op->s;

	if (s->closing || s->stats.fenced)
		return false;
	/* Nothing of the chunk has been written, and the cleaner has to be able to move what it covers: the lock is taken anew, for what is
	 * left of the range, and with it a new sequence. Otherwise those who wait could hold a block of every group there is. */
	op_unpin(op);
	range_unlock(&op->vol->locks, &op->lock);
	op->locked = false;
	op->seq = 0;
	op->zeros = false;
	op->stage = ST_LOCK;
	TAILQ_INSERT_TAIL(&s->room_waiters, op, link);
	s->stats.room_waits++;
	s->stats.room_waiting++;
	checkpoint_for_space(s);
	return true;
}

bool room_in_limbo(const struct store *s, bool grows)
{
	struct log_space sp;

	if (!checkpoint_may_help(s))
		return false;
	stripelog_space(s->log, &sp);
	return sp.limbo_bytes && (!grows || sp.live_bytes < sp.limit_bytes);
}

void room_wake(struct store *s)
{
	struct op *op;

	while ((op = TAILQ_FIRST(&s->room_waiters))) {
		TAILQ_REMOVE(&s->room_waiters, op, link);
		s->stats.room_waiting--;
		op_ready(op);
	}
}

static void log_tells(void *arg, enum log_space_event event)
{
	struct store *s = arg;

	switch (event) {
	case LOG_SPACE_WANTED:
		s->space_short = true;
		checkpoint_for_space(s);
		break;
	case LOG_SPACE_LIMBO:
		if (s->space_short)
			checkpoint_for_space(s);
		break;
	case LOG_SPACE_RETURNED:
		s->space_short = false;
		room_wake(s);
		break;
	}
}

/* ---- levels --------------------------------------------------------------------------------------------------------- */

int store_set_space_levels(struct store *s, unsigned int warning, unsigned int critical)
{
	if (!warning || warning >= critical || critical > 100)
		return -EINVAL;
	s->cfg.space_warning = (uint8_t)warning;
	s->cfg.space_critical = (uint8_t)critical;
	return 0;
}

enum store_space_level store_space_level(const struct store *s)
{
	return s->space_level;
}

struct fullness {
	unsigned int percent;
	const char *object;
	const char *what;
};

/* Segments of a device that areas have: what is neither free, nor the log's, nor a checkpoint's. */
static unsigned int area_percent(const struct store *s, unsigned int dev)
{
	const struct pool_dev *d = pool_dev(s->pool, dev);
	uint64_t others = (uint64_t)d->free_segments + stripelog_dev_segments(s->log, dev) +
			  ckpt_segments_on(s->pool, dev);

	if (!d->nsegments || others >= d->nsegments)
		return 0;
	return (unsigned int)((d->nsegments - others) * 100 / d->nsegments);
}

static struct fullness fullest(const struct store *s, const struct log_space *sp)
{
	struct fullness f = {.object = pool_cfg(s->pool)->name, .what = "protected data"};

	if (sp->limit_bytes)
		f.percent = (unsigned int)MIN(sp->live_bytes * 100 / sp->limit_bytes, 100u);
	for (unsigned int d = 0; d < pool_ndevs(s->pool); d++) {
		unsigned int p = pool_dev_usable(s->pool, d) ? area_percent(s, d) : 0;

		if (p > f.percent)
			f = (struct fullness){
				p, pool_dev(s->pool, d)->name, "data and intermediate areas"};
	}
	return f;
}

static void tell_level(struct store *s, const struct fullness *f)
{
	static const enum store_event_kind kinds[] = {[STORE_SPACE_OK] = STORE_EVENT_SPACE_OK,
		[STORE_SPACE_WARNING] = STORE_EVENT_SPACE_LOW,
		[STORE_SPACE_CRITICAL] = STORE_EVENT_SPACE_CRITICAL};
	enum store_space_level old = s->space_level, level = old;

	if (f->percent >= s->cfg.space_critical)
		level = STORE_SPACE_CRITICAL;
	else if (f->percent >= s->cfg.space_warning)
		level = f->percent + HYSTERESIS >= s->cfg.space_critical
				? MAX(old, STORE_SPACE_WARNING)
				: STORE_SPACE_WARNING;
	else if (f->percent + HYSTERESIS < s->cfg.space_warning)
		level = STORE_SPACE_OK;
	if (level == old)
		return;
	s->space_level = level;
	store_event(s, kinds[level], f->object,
		"%u %% of the room is taken by %s (warning at %u, critical at %u)", f->percent,
		f->what, s->cfg.space_warning, s->cfg.space_critical);
}

void room_tell(struct store *s)
{
	struct log_space sp;
	struct fullness f;

	if (s->space_level == STORE_SPACE_OK)
		return;
	s->space_level = STORE_SPACE_OK;
	stripelog_space(s->log, &sp);
	f = fullest(s, &sp);
	tell_level(s, &f);
}

/* ---- kept back ---------------------------------------------------------------------------------------------------------- */

/* A base of everything there is, in all its copies, beside the checkpoint it replaces. */
static void keep_back(struct store *s)
{
	uint32_t copies = pool_cfg(s->pool)->scheme.m + 2u, meta, mover, want, n = 0;
	struct stripelog_stats st;
	uint64_t bytes;

	for (unsigned int d = 0; d < pool_ndevs(s->pool); d++)
		n += pool_dev_usable(s->pool, d);
	if (!n)
		return;
	stripelog_stats(s->log, &st);
	bytes = (map_mem_used(s->map_mem) + st.table_used_bytes) / 8 * 9;
	want = (uint32_t)DIV_ROUND_UP(DIV_ROUND_UP(bytes, pool_segment_bytes(s->pool)) * copies, n);
	want = MAX(want, 1u) + RECORD_SEGMENTS;
	pool_reserve_get(s->pool, &meta, &mover);
	if (want != meta)
		pool_reserve_set(s->pool, want, mover);
}

static void look(struct store *s)
{
	struct log_space sp;
	struct fullness f;

	stripelog_space(s->log, &sp);
	f = fullest(s, &sp);
	tell_level(s, &f);
	keep_back(s);
	/* In time, before anybody has to wait; but not for less than the checkpoint itself takes. */
	if (sp.free_bytes < sp.capacity_bytes / LOW_PART &&
		sp.limbo_bytes > MAX(sp.capacity_bytes / LIMBO_PART, s->stats.checkpoint_bytes))
		checkpoint_for_space(s);
}

/* Whoever waits is woken by what makes room. Should room come about in a way that nobody tells of, they look again now and then all the same. */
static void look_again(struct store *s)
{
	uint64_t now = shard_now_ns(s->sh);

	if (TAILQ_EMPTY(&s->room_waiters)) {
		s->room_look_ns = now;
	} else if (now - s->room_look_ns >= LOOK_AGAIN_NS) {
		s->room_look_ns = now;
		checkpoint_for_space(s);
		room_wake(s);
	}
}

void room_poll(struct store *s)
{
	if (++s->space_rounds % POLL_ROUNDS == 0)
		look(s);
	look_again(s);
}

void store_check_space(struct store *s)
{
	look(s);
}

int room_open(struct store *s)
{
	s->cfg.space_warning = s->cfg.space_warning ? s->cfg.space_warning : WARNING_DEF;
	s->cfg.space_critical = s->cfg.space_critical ? s->cfg.space_critical : CRITICAL_DEF;
	return stripelog_on_space(s->log, log_tells, s);
}

void room_close(struct store *s)
{
	if (s->log)
		stripelog_off_space(s->log, s);
}
