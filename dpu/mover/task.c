/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tasks: started, paused, resumed, cancelled; and what of them outlives the process. Notes of the pool, all integers little-endian:
 *
 *	"mover"      offset 0 share u32 | 4 rebuild delay u32 | 8 ceiling u64 | 16 scrub interval u32 | 20 flags u8 (1: auto restore) | 21 zero[3]
 *	             | 24 next id u32 | 28 zero[4] | 32 last scrub u64 (seconds since 1970)                                              = 40
 *	"task/ID"    offset 0 reason u8 | 1 state u8 | 2 device u8 (255: none) | 3 flags u8 (1: plain too) | 4 volume u32 | 8 phase u8 | 9 zero[3]
 *	             | 12 cursor: volume u32 | 16 cursor: block u64 | 24 done u64 | 32 total u64 | 40 moved u64 | 48 moved bytes u64 | 56 found u64
 *	             | 64 repaired u64 | 72 unrecoverable u64 | 80 name of the object[64]                                                = 144
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/endian.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/mover/mover_priv.h"

#define NOTE_NS     (10 * MOVER_S) /* progress is noted so often */
#define NO_DEV_BYTE 255u
#define TASK_PREFIX "task/"

struct settings_note {
	le32 share, rebuild_delay_s;
	le64 ceiling;
	le32 scrub_interval_s;
	uint8_t flags, zero[3];
	le32 next_id;
	uint8_t zero2[4];
	le64 scrubbed_s;
};
_Static_assert(sizeof(struct settings_note) == 40, "settings note");

struct task_note {
	uint8_t reason, state, dev, flags;
	le32 volume;
	uint8_t phase, zero[3];
	le32 at_volume;
	le64 at_block;
	le64 done, total, moved, moved_bytes, found, repaired, unrecoverable;
	char object[64];
};
_Static_assert(sizeof(struct task_note) == 144, "task note");
_Static_assert(sizeof(struct task_note) <= STORE_NOTE_BODY_MAX, "fits a note");

static const char *const reason_names[MOVER_REASONS] = {
	"clean", "rebuild", "scrub", "protect", "evacuate", "restore"};
static const char *const state_names[MOVER_STATES] = {
	"running", "paused", "waiting", "done", "failed", "cancelled"};

const char *mover_reason_name(enum mover_reason r)
{
	return (unsigned int)r < MOVER_REASONS ? reason_names[r] : "?";
}

int mover_reason_parse(const char *name)
{
	for (unsigned int i = 0; i < MOVER_REASONS; i++)
		if (!strcmp(name, reason_names[i]))
			return (int)i;
	return -EINVAL;
}

const char *mover_state_name(enum mover_state s)
{
	return (unsigned int)s < MOVER_STATES ? state_names[s] : "?";
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

bool task_is_over(const struct mtask *t)
{
	return t->pub.state == MOVER_DONE || t->pub.state == MOVER_FAILED ||
	       t->pub.state == MOVER_CANCELLED;
}

/* Oldest first, until there is room for one more. */
static void forget_old(struct mover *m)
{
	struct mtask *t, *next;

	for (t = TAILQ_FIRST(&m->tasks); t && m->ntasks >= MOVER_TASKS_MAX; t = next) {
		next = TAILQ_NEXT(t, link);
		if (task_is_over(t) && !t->noting && !t->in_flight && !t->stopping)
			task_free(t);
	}
}

struct mtask *task_new(struct mover *m, enum mover_reason reason, uint32_t id)
{
	struct mtask *t, *after;

	forget_old(m);
	if (m->ntasks >= MOVER_TASKS_MAX)
		return NULL;
	t = calloc(1, sizeof(*t));
	if (!t)
		return NULL;
	t->m = m;
	t->reason = mover_reason_ops(reason);
	t->dev = POOL_DEV_NONE;
	t->pub.id = id;
	t->pub.reason = reason;
	t->pub.eta_s = UINT64_MAX;
	t->pub.started_ns = shard_now_ns(m->sh);
	after = TAILQ_LAST(&m->tasks, mtask_list);
	while (after && after->pub.id > id)
		after = TAILQ_PREV(after, mtask_list, link);
	if (after)
		TAILQ_INSERT_AFTER(&m->tasks, after, t, link);
	else
		TAILQ_INSERT_HEAD(&m->tasks, t, link);
	m->ntasks++;
	m->next_id = MAX(m->next_id, id + 1);
	return t;
}

void task_free(struct mtask *t)
{
	TAILQ_REMOVE(&t->m->tasks, t, link);
	t->m->ntasks--;
	free(t);
}

struct mtask *task_find(const struct mover *m, enum mover_reason reason, int dev, uint32_t volume)
{
	struct mtask *t;

	TAILQ_FOREACH (t, &m->tasks, link)
		if (t->pub.reason == reason && t->dev == dev && t->volume == volume &&
			!task_is_over(t))
			return t;
	return NULL;
}

uint32_t mover_take_id(struct mover *m)
{
	return m->next_id++;
}

static struct mtask *task_by_id(const struct mover *m, uint32_t id)
{
	struct mtask *t;

	TAILQ_FOREACH (t, &m->tasks, link)
		if (t->pub.id == id)
			return t;
	return NULL;
}

void task_name_object(struct mtask *t)
{
	struct volume *v = t->volume ? volume_by_id(t->m->s, t->volume) : NULL;
	const char *name = pool_cfg(t->m->pool)->name;

	if (t->dev != POOL_DEV_NONE)
		name = pool_dev(t->m->pool, (unsigned int)t->dev)->name;
	if (v)
		name = volume_cfg(v)->name;
	snprintf(t->pub.object, sizeof(t->pub.object), "%s", name);
}

/* Ends, or pauses, as soon as nothing of it is in flight. */
void task_end(struct mtask *t, enum mover_state state)
{
	t->stopping = true;
	t->then = state;
	if (state == MOVER_DONE && t->pub.unrecoverable)
		task_say(t, "done with %llu unrecoverable blocks",
			(unsigned long long)t->pub.unrecoverable);
	else if (state == MOVER_DONE && !t->pub.text[0])
		task_say(t, "done");
}

/* ---- notes of tasks --------------------------------------------------------------------------------------------------- */

static void task_key(const struct mtask *t, char *key, size_t size)
{
	snprintf(key, size, TASK_PREFIX "%u", t->pub.id);
}

static void noted(void *arg, int status)
{
	struct mtask *t = arg;

	t->noting = false;
	if (status < 0)
		log_warn("mover: task %u could not be noted: %s", t->pub.id, strerror(-status));
	if (t->note_again) {
		t->note_again = false;
		task_note(t);
	}
}

static void task_write(const struct mtask *t, struct task_note *n)
{
	const struct mover_task *p = &t->pub;

	*n = (struct task_note){.reason = (uint8_t)p->reason,
		.state = p->state == MOVER_PAUSED ? MOVER_PAUSED : MOVER_RUNNING,
		.dev = t->dev == POOL_DEV_NONE ? NO_DEV_BYTE : (uint8_t)t->dev,
		.flags = t->plain_too,
		.volume = to_le32(t->volume),
		.phase = t->phase,
		.at_volume = to_le32(t->cursor.volume),
		.at_block = to_le64(t->cursor.block),
		.done = to_le64(p->done_blocks),
		.total = to_le64(p->total_blocks),
		.moved = to_le64(p->moved_blocks),
		.moved_bytes = to_le64(p->moved_bytes),
		.found = to_le64(p->found),
		.repaired = to_le64(p->repaired),
		.unrecoverable = to_le64(p->unrecoverable)};
	memcpy(n->object, p->object, sizeof(n->object));
}

/* Where it is; nothing once it is over. Of the cleaner there is nothing to note. */
void task_note(struct mtask *t)
{
	char key[STORE_NOTE_KEY_MAX + 1];
	struct task_note n;
	int rc;

	if (t->pub.reason == MOVER_CLEAN)
		return;
	if (t->noting) {
		t->note_again = true;
		return;
	}
	task_key(t, key, sizeof(key));
	task_write(t, &n);
	t->noted_ns = shard_now_ns(t->m->sh);
	t->noting = true;
	rc = store_note_put(t->m->s, key, &n, task_is_over(t) ? 0 : sizeof(n), noted, t);
	if (rc < 0) {
		t->noting = false;
		log_warn("mover: task %u could not be noted: %s", t->pub.id, strerror(-rc));
	}
}

void task_note_now_and_then(struct mtask *t)
{
	if (t->begun && t->pub.state == MOVER_RUNNING &&
		shard_now_ns(t->m->sh) - t->noted_ns >= NOTE_NS)
		task_note(t);
}

static int load_task(void *arg, const char *key, const void *body, uint8_t len)
{
	struct mover *m = arg;
	struct task_note n;
	struct mtask *t;
	char *end;
	unsigned long id = strtoul(key + strlen(TASK_PREFIX), &end, 10);

	if (len < sizeof(n) || *end || id <= MOVER_CLEAN_ID || id >= UINT32_MAX) {
		log_warn("mover: note %s is not one of a task", key);
		return 0;
	}
	memcpy(&n, body, sizeof(n));
	if (n.reason == MOVER_CLEAN || n.reason >= MOVER_REASONS ||
		(n.dev != NO_DEV_BYTE && n.dev >= pool_ndevs(m->pool)) ||
		n.object[sizeof(n.object) - 1]) {
		log_warn("mover: note %s is not one of a task", key);
		return 0;
	}
	t = task_new(m, n.reason, (uint32_t)id);
	if (!t)
		return -ENOMEM;
	t->pub.state = n.state == MOVER_PAUSED ? MOVER_PAUSED : MOVER_RUNNING;
	t->dev = n.dev == NO_DEV_BYTE ? POOL_DEV_NONE : n.dev;
	t->plain_too = n.flags & 1;
	t->volume = from_le32(n.volume);
	t->phase = n.phase;
	t->cursor = (struct cursor){from_le32(n.at_volume), from_le64(n.at_block)};
	t->pub.done_blocks = t->done_before = from_le64(n.done);
	t->pub.total_blocks = from_le64(n.total);
	t->pub.moved_blocks = from_le64(n.moved);
	t->pub.moved_bytes = t->rate_bytes = from_le64(n.moved_bytes);
	t->pub.found = from_le64(n.found);
	t->pub.repaired = from_le64(n.repaired);
	t->pub.unrecoverable = from_le64(n.unrecoverable);
	memcpy(t->pub.object, n.object, sizeof(t->pub.object));
	t->noted_ns = shard_now_ns(m->sh);
	return 0;
}

int tasks_load(struct mover *m)
{
	task_name_object(m->cleaner);
	return store_note_each(m->s, TASK_PREFIX, load_task, m);
}

/* ---- settings -------------------------------------------------------------------------------------------------------------- */

static const char settings_key[] = "mover";

int settings_load(struct mover *m, const struct mover_limits *dflt)
{
	struct settings_note n;
	uint8_t len = 0;
	const void *body = store_note_get(m->s, settings_key, &len);

	m->throttle.limits = *dflt;
	if (!dflt->share_percent)
		m->throttle.limits.share_percent = MOVER_SHARE_DEFAULT;
	m->settings = (struct mover_settings){
		.scrub_interval_s = MOVER_SCRUB_DEFAULT_S, .auto_restore = true};
	m->scrubbed_s = mover_wall_s(m);
	m->next_id = MOVER_CLEAN_ID + 1;
	if (!body || len < sizeof(n))
		return 0;
	memcpy(&n, body, sizeof(n));
	if (from_le32(n.share) >= 1 && from_le32(n.share) <= MOVER_SHARE_MAX)
		m->throttle.limits.share_percent = from_le32(n.share);
	m->throttle.limits.ceiling_bytes_per_s = from_le64(n.ceiling);
	m->settings.rebuild_delay_s = from_le32(n.rebuild_delay_s);
	m->settings.scrub_interval_s = from_le32(n.scrub_interval_s);
	m->settings.auto_restore = n.flags & 1;
	m->next_id = MAX(m->next_id, from_le32(n.next_id));
	m->scrubbed_s = from_le64(n.scrubbed_s);
	return 0;
}

int settings_put(struct mover *m, void (*done_fn)(void *arg, int status), void *arg)
{
	struct settings_note n = {.share = to_le32(m->throttle.limits.share_percent),
		.rebuild_delay_s = to_le32(m->settings.rebuild_delay_s),
		.ceiling = to_le64(m->throttle.limits.ceiling_bytes_per_s),
		.scrub_interval_s = to_le32(m->settings.scrub_interval_s),
		.flags = m->settings.auto_restore,
		.next_id = to_le32(m->next_id),
		.scrubbed_s = to_le64(m->scrubbed_s)};

	return store_note_put(m->s, settings_key, &n, sizeof(n), done_fn, arg);
}

struct put_wait {
	unsigned int left;
	int status;
};

static void put_done(void *arg, int status)
{
	struct put_wait *w = arg;

	w->left--;
	if (status < 0)
		w->status = status;
}

static bool put_is_done(void *arg)
{
	return !((struct put_wait *)arg)->left;
}

/* Settings, and a task when there is one: durable on return. */
static int put_and_wait(struct mover *m, struct mtask *t, struct err *err)
{
	struct put_wait w = {.left = 1};
	char key[STORE_NOTE_KEY_MAX + 1];
	struct task_note n;
	int rc = settings_put(m, put_done, &w);

	if (rc == 0 && t) {
		task_key(t, key, sizeof(key));
		task_write(t, &n);
		w.left++;
		rc = store_note_put(m->s, key, &n, sizeof(n), put_done, &w);
		w.left -= rc < 0;
	}
	if (w.left)
		shard_wait(m->sh, put_is_done, &w, 0);
	rc = rc < 0 ? rc : w.status;
	if (rc < 0)
		return err_set(err, rc, pool_cfg(m->pool)->name, "mover",
			"could not be made durable: %s", strerror(-rc));
	return 0;
}

int mover_set_limits(struct mover *m, const struct mover_limits *l, struct err *err)
{
	struct mover_limits old = m->throttle.limits;
	int rc;

	if (l->share_percent < 1 || l->share_percent > MOVER_SHARE_MAX)
		return err_set(err, -EINVAL, "mover", "share", "%u per cent: must be 1..%u",
			l->share_percent, MOVER_SHARE_MAX);
	if (l->ceiling_bytes_per_s && l->ceiling_bytes_per_s < IO_BLOCK_BYTES)
		return err_set(err, -EINVAL, "mover", "ceiling",
			"must be 0 (none) or at least %u bytes per second", IO_BLOCK_BYTES);
	m->throttle.limits = *l;
	rc = put_and_wait(m, NULL, err);
	if (rc < 0)
		m->throttle.limits = old;
	return rc;
}

void mover_limits(const struct mover *m, struct mover_limits *out)
{
	*out = m->throttle.limits;
}

int mover_set(struct mover *m, const struct mover_settings *s, struct err *err)
{
	struct mover_settings old = m->settings;
	int rc;

	m->settings = *s;
	rc = put_and_wait(m, NULL, err);
	if (rc < 0)
		m->settings = old;
	m->auto_ns = 0;
	return rc;
}

void mover_settings(const struct mover *m, struct mover_settings *out)
{
	*out = m->settings;
}

/* ---- the operator's --------------------------------------------------------------------------------------------------------- */

static struct mtask *task_of_job(struct mover *m, const struct mover_job *job)
{
	struct mtask *t = task_new(m, job->reason, m->next_id);

	if (!t)
		return NULL;
	t->dev = job->dev;
	t->volume = job->volume ? volume_id(job->volume) : 0;
	t->plain_too = job->plain_too;
	task_name_object(t);
	return t;
}

struct mtask *task_start(struct mover *m, const struct mover_job *job)
{
	struct mtask *t = task_of_job(m, job);

	if (!t)
		return NULL;
	task_note(t);
	settings_put(m, NULL, NULL);
	mover_event(t);
	return t;
}

static int check_job(struct mover *m, const struct mover_job *job, struct err *err)
{
	bool of_dev = job->reason == MOVER_REBUILD || job->reason == MOVER_EVACUATE;
	bool of_volume = job->reason == MOVER_PROTECT || job->reason == MOVER_RESTORE;

	if ((unsigned int)job->reason >= MOVER_REASONS)
		return err_set(err, -EINVAL, "mover", "reason", "no such reason");
	if (of_dev != (job->dev != POOL_DEV_NONE))
		return err_set(err, -EINVAL, mover_reason_name(job->reason), "device", "%s",
			of_dev ? "must be given" : "is not for this");
	if (of_dev && (job->dev < 0 || (unsigned int)job->dev >= pool_ndevs(m->pool) ||
			      pool_dev(m->pool, (unsigned int)job->dev)->state == POOL_DEV_REMOVED))
		return err_set(err, -EINVAL, mover_reason_name(job->reason), "device",
			"no device %d", job->dev);
	if (of_volume && !job->volume)
		return err_set(
			err, -EINVAL, mover_reason_name(job->reason), "volume", "must be given");
	return 0;
}

int mover_start(struct mover *m, const struct mover_job *job, uint32_t *id, struct err *err)
{
	const struct reason *r;
	struct mtask *t;
	int rc = check_job(m, job, err);

	if (rc < 0)
		return rc;
	t = task_find(m, job->reason, job->dev, job->volume ? volume_id(job->volume) : 0);
	if (t && id)
		*id = t->pub.id;
	r = mover_reason_ops(job->reason);
	if (t && job->reason != MOVER_CLEAN)
		return err_set(
			err, -EEXIST, t->pub.object, NULL, "task %u does that already", t->pub.id);
	if (r->check)
		rc = r->check(m, job, err);
	if (rc < 0 || job->reason == MOVER_CLEAN)
		return rc;
	t = task_of_job(m, job);
	if (!t)
		return err_set(err, -EBUSY, "mover", NULL, "%u tasks are under way", m->ntasks);
	t->plain_too |= job->reason == MOVER_RESTORE;
	t->pub.state = MOVER_PAUSED; /* until it is durable */
	rc = put_and_wait(m, t, err);
	if (rc < 0) {
		task_free(t);
		return rc;
	}
	t->pub.state = MOVER_RUNNING;
	if (id)
		*id = t->pub.id;
	mover_event(t);
	return 0;
}

static struct mtask *task_of_id(struct mover *m, uint32_t id, struct err *err)
{
	struct mtask *t = task_by_id(m, id);

	if (!t)
		err_set(err, -ENOENT, "task", NULL, "no task %u", id);
	return t;
}

int mover_pause(struct mover *m, uint32_t id, struct err *err)
{
	struct mtask *t = task_of_id(m, id, err);

	if (!t)
		return -ENOENT;
	if (task_is_over(t) || t->stopping || t->pub.state == MOVER_PAUSED)
		return err_set(err, -EINVAL, t->pub.object, NULL, "it is %s",
			t->stopping ? "ending" : mover_state_name(t->pub.state));
	if (t->pub.reason == MOVER_CLEAN)
		t->pub.state = MOVER_PAUSED; /* it still hears of need, and goes on then */
	else
		task_end(t, MOVER_PAUSED);
	return 0;
}

int mover_resume(struct mover *m, uint32_t id, struct err *err)
{
	struct mtask *t = task_of_id(m, id, err);

	if (!t)
		return -ENOENT;
	if (t->stopping && t->then == MOVER_PAUSED) {
		t->stopping = false;
		return 0;
	}
	if (t->pub.state != MOVER_PAUSED)
		return err_set(err, -EINVAL, t->pub.object, NULL, "it is %s",
			mover_state_name(t->pub.state));
	t->pub.state = MOVER_RUNNING;
	t->pub.text[0] = 0;
	t->not_before_ns = 0;
	t->rate_ns = 0;
	task_note(t);
	mover_event(t);
	return 0;
}

int mover_cancel(struct mover *m, uint32_t id, struct err *err)
{
	struct mtask *t = task_of_id(m, id, err);

	if (!t)
		return -ENOENT;
	if (task_is_over(t) || t->pub.reason == MOVER_CLEAN ||
		(t->stopping && t->then != MOVER_PAUSED))
		return err_set(err, -EINVAL, t->pub.object, NULL,
			t->pub.reason == MOVER_CLEAN ? "cleaning cannot be cancelled: pause it"
						     : "it is over");
	task_say(t, "cancelled");
	task_end(t, MOVER_CANCELLED);
	return 0;
}

const struct mover_task *mover_task_next(const struct mover *m, const struct mover_task *prev)
{
	const struct mtask *t = prev ? TAILQ_NEXT(container_of(prev, const struct mtask, pub), link)
				     : TAILQ_FIRST(&m->tasks);

	return t ? &t->pub : NULL;
}

const struct mover_task *mover_task_find(const struct mover *m, uint32_t id)
{
	const struct mtask *t = task_by_id(m, id);

	return t ? &t->pub : NULL;
}
