/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The loop. Every round: the throttle earns; each running task does a little, in turn; the cleaner first, since everything needs space.
 * Batches are in flight in slots; what ends wakes the loop by itself, for the rest there is one timer.
 */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/mover/mover_priv.h"

#define WORKS_PER_ROUND 4u
#define IDLE_NS         (5 * MOVER_MS) /* a throttled task looks again */
#define RATE_NS         (500 * MOVER_MS)

static const struct reason *const reasons[MOVER_REASONS] = {[MOVER_CLEAN] = &reason_clean,
	[MOVER_REBUILD] = &reason_rebuild,
	[MOVER_SCRUB] = &reason_scrub,
	[MOVER_PROTECT] = &reason_protect,
	[MOVER_EVACUATE] = &reason_evacuate,
	[MOVER_RESTORE] = &reason_restore};

const struct reason *mover_reason_ops(enum mover_reason r)
{
	return reasons[r];
}

uint64_t mover_wall_s(const struct mover *m)
{
	struct timespec ts;

	if (shard_is_virtual(m->sh))
		return shard_now_ns(m->sh) / MOVER_S;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec;
}

void mover_event(struct mtask *t)
{
	if (t->m->event_fn && t->pub.reason != MOVER_CLEAN)
		t->m->event_fn(t->m->event_arg, &t->pub);
}

void mover_on_event(
	struct mover *m, void (*event_fn)(void *arg, const struct mover_task *t), void *arg)
{
	m->event_fn = event_fn;
	m->event_arg = arg;
}

/* ---- slots ------------------------------------------------------------------------------------------------------ */

struct slot *slot_get(struct mtask *t)
{
	struct mover *m = t->m;
	bool clean = t->pub.reason == MOVER_CLEAN;
	struct slot *all = clean ? m->clean_slots : m->slots;

	for (unsigned int i = 0; i < (clean ? MOVER_CLEAN_SLOTS : MOVER_SLOTS); i++) {
		if (all[i].owner)
			continue;
		all[i].owner = t;
		return &all[i];
	}
	return NULL;
}

void slot_put(struct slot *sl)
{
	move_batch_reset(sl->batch, &(struct move_cfg){0}); /* lets its volumes go */
	sl->owner = NULL;
}

static void slot_done(void *arg, struct move_batch *b)
{
	struct slot *sl = arg;
	struct mtask *t = sl->owner;
	uint64_t bytes = move_batch_bytes(b), effort = move_batch_effort(b);
	bool clean = t->pub.reason == MOVER_CLEAN;

	/* Half of it was reading; what was not foreseen is charged now. */
	if (effort / 2 > sl->charged)
		throttle_charge(&t->m->throttle, effort / 2 - sl->charged, clean);
	t->pub.moved_bytes += bytes / 2;
	t->in_flight--;
	t->reason->batch_done(t, b);
	slot_put(sl);
}

void slot_start(struct slot *sl)
{
	struct mtask *t = sl->owner;

	sl->charged = (uint64_t)move_batch_count(sl->batch) * IO_BLOCK_BYTES;
	throttle_charge(&t->m->throttle, sl->charged, t->pub.reason == MOVER_CLEAN);
	t->in_flight++;
	if (move_batch_start(sl->batch, slot_done, sl) < 0) {
		assert(false);
		t->in_flight--;
		slot_put(sl);
	}
}

void task_sleep(struct mtask *t, uint64_t ns)
{
	t->not_before_ns = MAX(t->not_before_ns, shard_now_ns(t->m->sh) + ns);
}

void task_say(struct mtask *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->pub.text, sizeof(t->pub.text), fmt, ap);
	va_end(ap);
}

/* ---- progress ----------------------------------------------------------------------------------------------------- */

static void take_rate(struct mtask *t, uint64_t now)
{
	uint64_t dt = now - t->rate_ns, bytes, left;
	struct mover_task *p = &t->pub;

	if (t->rate_ns && dt < RATE_NS)
		return;
	bytes = p->moved_bytes - t->rate_bytes;
	if (t->rate_ns && dt)
		p->rate_bytes_per_s = (uint64_t)((double)bytes * MOVER_S / (double)dt);
	t->rate_ns = now;
	t->rate_bytes = p->moved_bytes;
	p->eta_s = UINT64_MAX;
	if (!p->total_blocks || !p->done_blocks || p->done_blocks > p->total_blocks ||
		now <= p->started_ns)
		return;
	left = p->total_blocks - p->done_blocks;
	if (p->done_blocks > t->done_before)
		p->eta_s = (uint64_t)((double)(now - p->started_ns) /
				      (double)(p->done_blocks - t->done_before) * (double)left /
				      (double)MOVER_S);
}

/* ---- one task ------------------------------------------------------------------------------------------------------- */

static bool may_work(struct mtask *t, uint64_t now)
{
	struct mover *m = t->m;

	if (t->stopping || task_is_over(t) || t->pub.state == MOVER_PAUSED ||
		now < t->not_before_ns)
		return false;
	if (t->pub.reason == MOVER_CLEAN)
		return throttle_clean_ready(&m->throttle, m->pressure);
	return throttle_ready(&m->throttle);
}

static void begin_task(struct mtask *t)
{
	int rc = t->reason->begin(t);

	t->begun = true;
	t->done_before = MIN(t->done_before, t->pub.done_blocks);
	if (rc == 0)
		return;
	if (!t->pub.text[0])
		task_say(t, "%s", strerror(-rc));
	task_end(t, MOVER_FAILED);
}

static enum work work_task(struct mtask *t)
{
	enum work w;

	if (!t->begun) {
		begin_task(t);
		return WORK_MORE;
	}
	w = t->reason->work(t);
	if (w == WORK_DONE)
		task_end(t, MOVER_DONE);
	else if (w == WORK_FAILED)
		task_end(t, MOVER_FAILED);
	else if (t->pub.reason != MOVER_CLEAN)
		t->pub.state = t->not_before_ns > shard_now_ns(t->m->sh) && t->pub.text[0]
				       ? MOVER_WAITING
				       : MOVER_RUNNING;
	if (w == WORK_MORE && t->pub.state == MOVER_RUNNING)
		t->pub.text[0] = 0;
	return w;
}

/* A task that has been stopped is over, or paused, once nothing of it is in flight. */
static int settle_task(struct mtask *t)
{
	if (!t->stopping || t->in_flight)
		return 0;
	t->stopping = false;
	if (t->begun)
		t->reason->end(t);
	t->begun = false;
	t->pub.state = t->then;
	if (t->then == MOVER_CANCELLED && t->reason->cancelled)
		t->reason->cancelled(t);
	if (t->then != MOVER_PAUSED)
		t->pub.ended_ns = shard_now_ns(t->m->sh);
	if (t->then == MOVER_DONE)
		t->pub.eta_s = 0;
	t->pub.rate_bytes_per_s = 0;
	task_note(t);
	mover_event(t);
	return 1;
}

/* ---- the round -------------------------------------------------------------------------------------------------------- */

static void wake(void *arg)
{
}

/* Nothing to do just now: when is there? */
static void arm_timer(struct mover *m, uint64_t now)
{
	uint64_t at = auto_next_ns(m);
	struct mtask *t;

	TAILQ_FOREACH (t, &m->tasks, link) {
		if (task_is_over(t) || t->pub.state == MOVER_PAUSED || t->stopping)
			continue;
		if (t->not_before_ns > now)
			at = MIN(at, t->not_before_ns);
		else if (t->pub.reason != MOVER_CLEAN ? !throttle_ready(&m->throttle)
						      : m->pressure > 0)
			at = MIN(at, now + IDLE_NS);
	}
	if (at != UINT64_MAX)
		timer_arm(m->sh, &m->timer, MAX(at, now + 1), wake, m);
	else
		timer_disarm(m->sh, &m->timer);
}

static int mover_poll(void *arg)
{
	struct mover *m = arg;
	uint64_t now = shard_now_ns(m->sh);
	struct mtask *t, *next;
	int did = 0;

	clean_tick(m->cleaner);
	throttle_tick(&m->throttle, m->s, now, m->pressure);
	auto_poll(m);
	for (t = TAILQ_FIRST(&m->tasks); t; t = next) {
		next = TAILQ_NEXT(t, link);
		did += settle_task(t);
		for (unsigned int i = 0; i < WORKS_PER_ROUND && may_work(t, now); i++) {
			if (work_task(t) != WORK_MORE) {
				did += t->stopping; /* settled in the next round */
				break;
			}
			did++;
		}
		if (!task_is_over(t)) {
			take_rate(t, now);
			task_note_now_and_then(t);
		}
	}
	if (!did)
		arm_timer(m, now);
	return did;
}

/* ---- open, close -------------------------------------------------------------------------------------------------------- */

static int slots_open(struct mover *m)
{
	int rc = 0;

	for (unsigned int i = 0; i < MOVER_SLOTS && rc == 0; i++)
		rc = move_batch_open(m->s, 0, &m->slots[i].batch);
	for (unsigned int i = 0; i < MOVER_CLEAN_SLOTS && rc == 0; i++)
		rc = move_batch_open(m->s, 0, &m->clean_slots[i].batch);
	return rc;
}

static void mover_free(struct mover *m)
{
	struct mtask *t;

	while ((t = TAILQ_FIRST(&m->tasks)))
		task_free(t);
	for (unsigned int i = 0; i < MOVER_SLOTS; i++)
		move_batch_close(m->slots[i].batch);
	for (unsigned int i = 0; i < MOVER_CLEAN_SLOTS; i++)
		move_batch_close(m->clean_slots[i].batch);
	free(m);
}

int mover_open(const struct mover_cfg *cfg, struct mover **out)
{
	struct mover *m = calloc(1, sizeof(*m));
	int rc;

	if (!m)
		return -ENOMEM;
	m->s = cfg->store;
	m->pool = store_pool(cfg->store);
	m->log = store_log(cfg->store);
	m->sh = pool_shard(m->pool);
	TAILQ_INIT(&m->tasks);
	rc = slots_open(m);
	if (rc == 0)
		rc = settings_load(m, &cfg->limits);
	if (rc == 0) {
		m->cleaner = task_new(m, MOVER_CLEAN, MOVER_CLEAN_ID);
		rc = m->cleaner ? tasks_load(m) : -ENOMEM;
	}
	if (rc < 0) {
		mover_free(m);
		return rc;
	}
	auto_open(m);
	poller_add(m->sh, &m->poller, mover_poll, m, POLLER_SLEEPS);
	*out = m;
	return 0;
}

static bool is_quiet(void *arg)
{
	struct mover *m = arg;
	struct mtask *t;

	if (m->notes_in_flight)
		return false;
	TAILQ_FOREACH (t, &m->tasks, link) {
		bool leaves = t->in_flight && t->reason->can_leave && t->reason->can_leave(t);

		if ((t->in_flight && !leaves) || t->noting)
			return false;
	}
	return true;
}

void mover_close(struct mover *m)
{
	struct mtask *t;

	if (!m)
		return;
	m->closing = true;
	poller_del(m->sh, &m->poller);
	timer_disarm(m->sh, &m->timer);
	auto_close(m);
	TAILQ_FOREACH (t, &m->tasks, link)
		if (!task_is_over(t))
			task_note(t);
	if (shard_wait(m->sh, is_quiet, m, 0) < 0)
		log_warn("mover: something is still under way at close");
	TAILQ_FOREACH (t, &m->tasks, link)
		if (t->begun)
			t->reason->end(t);
	mover_free(m);
}
