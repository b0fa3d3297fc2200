/* SPDX-License-Identifier: BSD-3-Clause */
/* Checkpoints: when, and from one state to the next. What is in them: checkpoint_sections.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/volume/ckpt.h"

#define LOG_BYTES_DEF (256ull << 20)
#define LOG_BYTES_TIMES \
	24u /* ... or this many times what the last checkpoint wrote: its part of all writes stays small */
#define TRIGGER_ROUNDS 64u /* the poller looks at the log's numbers this often */
#define SOON_NS        2000000000ull
#define RETRY_MIN_NS   1000000000ull
#define RETRY_MAX_NS   60000000000ull

enum ckpt_state { CK_IDLE, CK_FENCE, CK_BARRIER, CK_SECTIONS, CK_FLUSH, CK_OWNER, CK_COMMIT };

struct ckpt_waiter {
	void (*done_fn)(void *arg, int status);
	void *arg;
};

struct checkpoint {
	struct store *s;
	enum ckpt_state state;
	bool wanted, base;
	bool ready; /* sections: the writer takes more */
	bool flushing;
	uint8_t old_era;
	uint32_t since; /* changes of this generation and later are not in the last one committed */
	uint32_t rounds, failures;
	uint64_t begin_ns, retry_ns; /* not before, unless somebody asks for it */
	uint64_t appended,
		last_appended; /* log position at the start of this one, of the last one committed */
	bool committed; /* one by this process */
	uint64_t flush_devs;
	struct ckpt_writer *w;
	struct stripelog_ckpt log;
	struct ckpt_cursor cursor;
	struct stripe_flush flush;
	struct pool_fence fence;
	struct timer timer;
	struct ckpt_waiter now[CKPT_WAITERS], next[CKPT_WAITERS];
	unsigned int nnow, nnext;
};

static uint64_t appended_bytes(const struct store *s)
{
	struct log_space sp;

	stripelog_space(s->log, &sp);
	return sp.appended_bytes;
}

/* ---- the end ---------------------------------------------------------------------------------------------------- */

static void tell(struct ckpt_waiter *w, unsigned int *n, int status)
{
	struct ckpt_waiter list[CKPT_WAITERS];
	unsigned int count = *n;

	memcpy(list, w, count * sizeof(*w));
	*n = 0;
	for (unsigned int i = 0; i < count; i++)
		if (list[i].done_fn)
			list[i].done_fn(list[i].arg, status);
}

static void arm_retry(struct checkpoint *ck);

static void finish(struct checkpoint *ck, int status)
{
	ck->state = CK_IDLE;
	ck->w = NULL;
	tell(ck->now, &ck->nnow, status);
	if (ck->nnext) {
		memcpy(ck->now, ck->next, sizeof(ck->now));
		ck->nnow = ck->nnext;
		ck->nnext = 0;
		ck->wanted = true;
	}
}

void store_lost(struct store *s, const char *dev)
{
	if (s->stats.fenced)
		return;
	s->stats.fenced = true;
	log_error("pool %s: another owner has opened it (%s says so): nothing is written any more",
		pool_cfg(s->pool)->name, dev);
	store_event(s, STORE_EVENT_FENCED, pool_cfg(s->pool)->name,
		"another owner has opened the pool (%s says so): every request fails from here on",
		dev);
	room_wake(s); /* nobody makes room any more */
}

static void failed(struct checkpoint *ck, int status, const char *what)
{
	struct store *s = ck->s;
	uint64_t delay = MIN(RETRY_MIN_NS << MIN(ck->failures, 6u), RETRY_MAX_NS);

	ck->failures++;
	s->stats.checkpoints_failed++;
	ck->retry_ns = shard_now_ns(s->sh) + delay;
	if (status == -ESTALE) {
		store_lost(s, pool_dev(s->pool, ck->fence.dev)->name);
	} else {
		log_warn("pool %s: checkpoint: %s: %s", pool_cfg(s->pool)->name, what,
			strerror(-status));
		store_event(s, STORE_EVENT_CHECKPOINT_FAILED, pool_cfg(s->pool)->name,
			"%s: %s; tried again in %llu s", what, strerror(-status),
			(unsigned long long)(delay / 1000000000));
		if (!s->cfg.manual_checkpoints)
			arm_retry(ck);
	}
	finish(ck, status);
	room_wake(s); /* who hoped for its space has to look again */
}

/* After the floor was taken. */
static void aborted(struct checkpoint *ck, int status, const char *what)
{
	ckpt_abort(ck->w);
	stripelog_checkpoint_end(ck->s->log, &ck->log, false);
	failed(ck, status, what);
}

static void committed(void *arg, int status)
{
	struct checkpoint *ck = arg;
	struct store *s = ck->s;
	struct store_stats *st = &s->stats;
	struct ckpt_info info;

	stripelog_checkpoint_end(s->log, &ck->log, status == 0);
	if (status < 0) {
		failed(ck, status, "its root could not be made durable");
		return;
	}
	ckpt_info(s->pool, &info);
	ck->since = ck->cursor.gen;
	ck->failures = 0;
	ck->committed = true;
	ck->last_appended = ck->appended;
	st->checkpoints++;
	st->checkpoint_bytes = info.written_bytes;
	st->checkpoint_bytes_total += info.written_bytes;
	st->checkpoint_pages = ck->cursor.pages;
	st->checkpoint_ns = shard_now_ns(s->sh) - ck->begin_ns;
	limbo_end(s, ck->cursor.gen);
	log_info("pool %s: checkpoint %llu (%s, part %u): %llu pages, %llu KiB in all copies, %llu "
		 "ms",
		pool_cfg(s->pool)->name, (unsigned long long)info.id,
		ck->base ? "base" : "increment", info.parts, (unsigned long long)ck->cursor.pages,
		(unsigned long long)(info.written_bytes >> 10),
		(unsigned long long)(st->checkpoint_ns / 1000000));
	finish(ck, 0);
	room_wake(s);
}

/* ---- the beginning -------------------------------------------------------------------------------------------------- */

static void fence_done(struct pool_fence *f, int status);

/* First of all: are we still the owner? */
static void begin(struct checkpoint *ck)
{
	struct store *s = ck->s;
	int rc;

	ck->wanted = false;
	ck->begin_ns = shard_now_ns(s->sh);
	ck->state = CK_FENCE;
	ck->fence.done_fn = fence_done;
	ck->fence.arg = ck;
	rc = pool_fenced(s->pool, &ck->fence);
	if (rc == -EBUSY || rc == -EAGAIN) {
		ck->state = CK_IDLE;
		ck->wanted = true; /* with a later round */
	} else if (rc < 0) {
		failed(ck, rc, "the superblocks could not be read");
	}
}

/* Asked again before the root: one who has opened the pool meanwhile must not find ours over his. */
static void ask_again(struct checkpoint *ck)
{
	int rc;

	ck->state = CK_OWNER;
	rc = pool_fenced(ck->s->pool, &ck->fence);
	if (rc < 0)
		aborted(ck, rc, "the superblocks could not be read");
}

static void commit(struct checkpoint *ck, int status)
{
	if (status < 0) {
		aborted(ck, status, "the superblocks could not be read");
		return;
	}
	ck->state = CK_COMMIT;
	ckpt_commit(ck->w, committed, ck);
}

/* The floor, the generation and the era change at one instant. */
static void start(struct checkpoint *ck)
{
	struct store *s = ck->s;
	struct err e = {0};
	int rc;

	ck->base = ckpt_wants_base(s->pool);
	rc = ckpt_begin(s->pool, ck->base, &ck->w, &e);
	if (rc == -EBUSY) {
		/* One that was dropped is still being written; no event: it ends. */
		ck->state = CK_IDLE;
		ck->wanted = true;
		return;
	}
	if (rc < 0) {
		failed(ck, rc, e.reason[0] ? e.reason : "it could not begin");
		return;
	}
	s->have_ckpt = true;
	stripelog_checkpoint_start(s->log, ck->base, &ck->log);
	ck->appended = appended_bytes(s);
	map_mem_set_gen(s->map_mem, map_mem_gen(s->map_mem) + 1);
	ck->old_era = s->era;
	s->era ^= 1;
	ck->cursor.w = ck->w;
	ck->cursor.log = &ck->log;
	ck->cursor.gen = map_mem_gen(s->map_mem);
	ck->cursor.since = ck->base ? 0 : ck->since;
	cursor_start(&ck->cursor);
	ck->ready = true;
	ck->state = CK_BARRIER;
}

static void fence_done(struct pool_fence *f, int status)
{
	struct checkpoint *ck = f->arg;

	if (ck->state == CK_OWNER) {
		commit(ck, status);
		return;
	}
	if (status < 0)
		failed(ck, status, "the superblocks could not be read");
	else
		start(ck);
}

/* ---- in between ------------------------------------------------------------------------------------------------------- */

static void may_go_on(void *arg)
{
	((struct checkpoint *)arg)->ready = true;
}

static int write_sections(struct checkpoint *ck)
{
	int rc;

	if (!ck->ready)
		return 0;
	rc = cursor_step(&ck->cursor);
	if (rc == -EAGAIN) {
		ck->ready = false;
		ckpt_on_ready(ck->w, may_go_on, ck);
		return 0;
	}
	if (rc < 0)
		aborted(ck, rc,
			rc == -ENOSPC ? "no room is left for it" : "it could not be written");
	else if (rc == 0)
		ck->state = CK_FLUSH;
	return 1;
}

static uint64_t usable_devs(const struct store *s)
{
	uint64_t mask = 0;

	for (unsigned int d = 0; d < pool_ndevs(s->pool); d++)
		if (pool_dev_usable(s->pool, d))
			mask |= 1ull << d;
	return mask;
}

static void flushed(struct stripe_flush *f, enum io_status status)
{
	struct checkpoint *ck = f->arg;

	ck->flushing = false;
	if (status == IO_OK) {
		ask_again(ck);
		return;
	}
	/* A device that has failed meanwhile takes nothing along that the others have not; what is only on it is lost with it anyway. */
	if (status == IO_ERR_MEDIA && !(f->also_devs & usable_devs(ck->s)))
		return;
	aborted(ck, -EIO, "not every device could be flushed");
}

static int start_flush(struct checkpoint *ck)
{
	int rc;

	if (ck->flushing)
		return 0;
	ck->flush = (struct stripe_flush){
		.done_fn = flushed, .arg = ck, .also_devs = usable_devs(ck->s)};
	ck->flushing = true;
	rc = stripelog_flush(ck->s->log, &ck->flush);
	if (rc == 0)
		return 1;
	ck->flushing = false;
	if (rc == -EAGAIN)
		return 0;
	aborted(ck, rc, "the log could not be flushed");
	return 1;
}

/* ---- when ---------------------------------------------------------------------------------------------------------------- */

static void timer_fired(void *arg)
{
	struct checkpoint *ck = arg;

	if (!ck->s->closing && !ck->s->stats.fenced)
		ck->wanted = true;
}

static void arm_retry(struct checkpoint *ck)
{
	timer_arm(ck->s->sh, &ck->timer, ck->retry_ns, timer_fired, ck);
}

void checkpoint_soon(struct store *s)
{
	struct checkpoint *ck = s->ck;

	if (!s->cfg.manual_checkpoints && !s->cfg.read_only)
		timer_arm(s->sh, &ck->timer, shard_now_ns(s->sh) + SOON_NS, timer_fired, ck);
}

static void check_trigger(struct checkpoint *ck)
{
	struct store *s = ck->s;
	uint64_t min = s->cfg.checkpoint_bytes ? s->cfg.checkpoint_bytes : LOG_BYTES_DEF;

	if (shard_now_ns(s->sh) < ck->retry_ns)
		return;
	s->stats.log_bytes_since = appended_bytes(s) - ck->last_appended;
	if (s->stats.log_bytes_since >= MAX(min, s->stats.checkpoint_bytes * LOG_BYTES_TIMES))
		ck->wanted = true;
}

bool checkpoint_may_help(const struct store *s)
{
	struct checkpoint *ck = s->ck;
	struct log_space sp;

	if (s->cfg.manual_checkpoints || s->closing || s->stats.fenced ||
		shard_now_ns(s->sh) < ck->retry_ns)
		return false;
	stripelog_space(s->log, &sp);
	return s->nlimbo || sp.limbo_bytes || ck->state != CK_IDLE;
}

/* Another one after the running one only where something waits for it: else those who wait for the cleaner would have one after the other made. */
void checkpoint_for_space(struct store *s)
{
	struct log_space sp;

	if (!checkpoint_may_help(s))
		return;
	stripelog_space(s->log, &sp);
	if (s->nlimbo || sp.limbo_bytes)
		s->ck->wanted = true;
}

int store_checkpoint(struct store *s, void (*done_fn)(void *arg, int status), void *arg)
{
	struct checkpoint *ck = s->ck;
	bool running = ck->state != CK_IDLE;
	struct ckpt_waiter *list = running ? ck->next : ck->now;
	unsigned int *n = running ? &ck->nnext : &ck->nnow;

	if (s->cfg.read_only || s->stats.fenced)
		return -EROFS;
	if (*n == CKPT_WAITERS)
		return -EAGAIN;
	list[(*n)++] = (struct ckpt_waiter){done_fn, arg};
	if (!running)
		ck->wanted = true;
	return 0;
}

int checkpoint_poll(struct store *s)
{
	struct checkpoint *ck = s->ck;

	switch (ck->state) {
	case CK_IDLE:
		/*
		 * Not out of the middle of a recovery, which appends enough to bring one about: until it has ended maps refer to stripes that it has put
		 * elsewhere, and what it accepts is not settled.
		 */
		if (!s->recovered || s->stats.fenced || s->cfg.read_only)
			return 0;
		if (!s->cfg.manual_checkpoints && !s->closing && ++ck->rounds % TRIGGER_ROUNDS == 0)
			check_trigger(ck);
		/* One that was dropped at its barrier may have left an era that is not empty yet. */
		if (!ck->wanted || s->era_count[s->era ^ 1])
			return 0;
		begin(ck);
		return 1;
	case CK_BARRIER:
		if (s->era_count[ck->old_era])
			return 0;
		ck->state = CK_SECTIONS;
		return 1;
	case CK_SECTIONS:
		return write_sections(ck);
	case CK_FLUSH:
		return start_flush(ck);
	case CK_FENCE:
	case CK_OWNER:
	case CK_COMMIT:
		return 0;
	}
	return 0;
}

/* ---- open, close ----------------------------------------------------------------------------------------------------------- */

int checkpoint_open(struct store *s)
{
	struct checkpoint *ck = calloc(1, sizeof(*ck));

	if (!ck)
		return -ENOMEM;
	s->ck = ck;
	ck->s = s;
	ck->since = 1;
	ck->cursor.s = s;
	ck->cursor.out.cap = CKPT_SECTION_BYTES;
	ck->cursor.dropped.cap = CKPT_DROPPED_BYTES;
	ck->cursor.out.buf = malloc(CKPT_SECTION_BYTES);
	ck->cursor.dropped.buf = malloc(CKPT_DROPPED_BYTES);
	return ck->cursor.out.buf && ck->cursor.dropped.buf ? 0 : -ENOMEM;
}

void checkpoint_close(struct store *s)
{
	struct checkpoint *ck = s->ck;

	if (!ck)
		return;
	timer_disarm(s->sh, &ck->timer);
	tell(ck->now, &ck->nnow, -ECANCELED);
	tell(ck->next, &ck->nnext, -ECANCELED);
	free(ck->cursor.out.buf);
	free(ck->cursor.dropped.buf);
	free(ck);
	s->ck = NULL;
}

bool checkpoint_idle(const struct store *s)
{
	return s->ck->state == CK_IDLE && !s->ck->wanted;
}

static bool is_over(void *arg)
{
	return checkpoint_idle(arg);
}

void checkpoint_final(struct store *s)
{
	struct checkpoint *ck = s->ck;
	struct ckpt_info info;

	timer_disarm(s->sh, &ck->timer);
	if (s->cfg.manual_checkpoints || s->cfg.read_only || s->stats.fenced)
		return;
	ckpt_info(s->pool, &info);
	if (ck->committed && info.exists && appended_bytes(s) == ck->last_appended)
		return;
	ck->wanted = true;
	shard_wait(s->sh, is_over, s, 0);
}
