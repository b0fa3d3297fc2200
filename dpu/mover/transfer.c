/* SPDX-License-Identifier: BSD-3-Clause */
/* A transfer's life: its steps, one after the other, and what may be asked of it meanwhile. */
#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/mover/transfer_priv.h"

#define IDLE_NS      (5 * MOVER_MS)
#define RATE_NS      (500 * MOVER_MS)
#define ATTEMPTS_MAX 3u /* times the VM is paused */
#define ATTEMPT_NS   MOVER_S /* between two of them, at least */
#define STUCK_MAX    2u /* passes that were hardly smaller than the one before */

static const char *const state_names[TRANSFER_STATES] = {[TRANSFER_PREPARING] = "preparing",
	[TRANSFER_COPYING] = "copying",
	[TRANSFER_WAITING] = "waiting",
	[TRANSFER_PAUSED] = "paused",
	[TRANSFER_STOPPING] = "stopping",
	[TRANSFER_RESTING] = "resting",
	[TRANSFER_SWITCHING] = "switching",
	[TRANSFER_CLEARING] = "clearing",
	[TRANSFER_UNDOING] = "undoing",
	[TRANSFER_DONE] = "done",
	[TRANSFER_FAILED] = "failed",
	[TRANSFER_CANCELLED] = "cancelled"};

const char *transfer_state_name(enum transfer_state s)
{
	return (unsigned int)s < TRANSFER_STATES ? state_names[s] : "?";
}

void transfer_say(struct transfer *t, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->pub.text, sizeof(t->pub.text), fmt, ap);
	va_end(ap);
}

/* The first reason is the one that is told. */
void transfer_fail(struct transfer *t, const char *fmt, ...)
{
	va_list ap;

	if (t->stop)
		return;
	t->stop = true;
	t->end_state = TRANSFER_FAILED;
	va_start(ap, fmt);
	vsnprintf(t->pub.text, sizeof(t->pub.text), fmt, ap);
	va_end(ap);
}

/* ---- errands: what waits, on either shard ------------------------------------------------------------------------ */

static void errand_back(void *arg)
{
	struct errand *e = arg;

	e->under_way = false;
}

static void errand_run(void *arg)
{
	struct errand *e = arg;

	e->rc = e->fn(e->t, &e->err);
	shard_post_msg(e->t->sh, &e->msg, errand_back, e);
}

static void errand_send(
	struct transfer *t, struct shard *sh, int (*fn)(struct transfer *t, struct err *err))
{
	struct errand *e = &t->errand;

	*e = (struct errand){.t = t, .sh = sh, .fn = fn, .under_way = true};
	shard_post_msg(sh, &e->msg, errand_run, e);
}

static int source_note(struct transfer *t, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = transfer_note_put(t->s, &t->cfg, &t->vols[i].want.cfg, false, err);
	return rc;
}

static int source_seal(struct transfer *t, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = transfer_note_put(t->s, &t->cfg, &t->vols[i].want.cfg, true, err);
	return rc;
}

static int source_clear(struct transfer *t, struct err *err)
{
	int first = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes; i++) {
		struct tvol *x = &t->vols[i];
		struct err *e = first ? NULL : err;
		int rc;

		volume_track_stop(x->source);
		rc = volume_delete(x->source, e);
		if (rc == 0) {
			x->source = NULL;
			rc = transfer_note_del(t->s, x->want.cfg.name, e);
		}
		if (!first)
			first = rc;
	}
	return first;
}

static int source_undo(struct transfer *t, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = transfer_note_del(t->s, t->vols[i].want.cfg.name, err);
	return rc;
}

/* ---- steps --------------------------------------------------------------------------------------------------------- */

static void step_to(struct transfer *t, enum transfer_step step)
{
	static const enum transfer_state states[] = {[STEP_NOTE] = TRANSFER_PREPARING,
		[STEP_LAND] = TRANSFER_PREPARING,
		[STEP_COPY] = TRANSFER_COPYING,
		[STEP_FOLLOW] = TRANSFER_COPYING,
		[STEP_STOP] = TRANSFER_STOPPING,
		[STEP_REST] = TRANSFER_RESTING,
		[STEP_REST_FOLLOW] = TRANSFER_RESTING,
		[STEP_SEAL] = TRANSFER_RESTING,
		[STEP_SEAL_SOURCE] = TRANSFER_RESTING,
		[STEP_SWITCH] = TRANSFER_SWITCHING,
		[STEP_COMMIT] = TRANSFER_CLEARING,
		[STEP_CLEAR] = TRANSFER_CLEARING,
		[STEP_UNDO] = TRANSFER_UNDOING,
		[STEP_UNDO_SOURCE] = TRANSFER_UNDOING,
		[STEP_OVER] = TRANSFER_DONE};

	t->step = step;
	t->asked = false;
	if (step != STEP_OVER)
		t->pub.state = states[step];
}

/* A step that is one errand: begins it. */
static void errand_step(struct transfer *t, enum transfer_step step)
{
	static const struct {
		bool there;
		int (*fn)(struct transfer *t, struct err *err);
	} errands[] = {[STEP_NOTE] = {false, source_note},
		[STEP_LAND] = {true, land_open},
		[STEP_FOLLOW] = {true, land_follow},
		[STEP_REST_FOLLOW] = {true, land_follow},
		[STEP_SEAL] = {true, land_seal},
		[STEP_SEAL_SOURCE] = {false, source_seal},
		[STEP_COMMIT] = {true, land_commit},
		[STEP_CLEAR] = {false, source_clear},
		[STEP_UNDO] = {true, land_undo},
		[STEP_UNDO_SOURCE] = {false, source_undo}};

	step_to(t, step);
	errand_send(t, errands[step].there ? t->to_sh : t->sh, errands[step].fn);
}

static void begin_pass(struct transfer *t, enum transfer_step step)
{
	step_to(t, step);
	pass_begin(t);
}

static void track_stop(struct transfer *t)
{
	for (unsigned int i = 0; i < t->cfg.nvolumes; i++)
		if (t->vols[i].source)
			volume_track_stop(t->vols[i].source);
}

static void over(struct transfer *t, enum transfer_state state)
{
	track_stop(t);
	step_to(t, STEP_OVER);
	t->pub.state = state;
	t->pub.ended_ns = shard_now_ns(t->sh);
	t->pub.eta_s = state == TRANSFER_DONE ? 0 : UINT64_MAX;
	t->pub.rate_bytes_per_s = t->pub.dirty_bytes = 0;
	t->cfg.ops->end_fn(t->cfg.arg);
}

static void vm_goes_on(struct transfer *t)
{
	if (!t->vm_paused)
		return;
	t->vm_paused = false;
	t->pub.paused_ns += shard_now_ns(t->sh) - t->paused_at_ns;
	t->cfg.ops->resume_fn(t->cfg.arg);
}

/* Nothing of it is under way: back to where it was. */
static void undo(struct transfer *t)
{
	pass_give_up(t);
	vm_goes_on(t);
	errand_step(t, STEP_UNDO);
}

/* After the switch: what does not work is left to the next start. */
static void errand_failed(struct transfer *t)
{
	const char *why = err_text(&t->errand.err);

	switch (t->step) {
	case STEP_COMMIT:
	case STEP_CLEAR:
		transfer_say(t, "done, but its old volumes are left until the next start: %s", why);
		log_warn("transfer of vm %u: %s", t->cfg.vm, t->pub.text);
		over(t, TRANSFER_DONE);
		return;
	case STEP_UNDO:
	case STEP_UNDO_SOURCE:
		log_warn("transfer of vm %u: what was copied is left until the next start: %s",
			t->cfg.vm, why);
		over(t, t->end_state);
		return;
	default:
		transfer_fail(t, "%s", why);
	}
}

static void ask(struct transfer *t, void (*fn)(void *arg))
{
	t->asked = true;
	fn(t->cfg.arg);
}

static void errand_done(struct transfer *t)
{
	switch (t->step) {
	case STEP_NOTE:
		errand_step(t, STEP_LAND);
		return;
	case STEP_LAND:
		t->fresh = true;
		begin_pass(t, STEP_COPY);
		return;
	case STEP_FOLLOW:
		begin_pass(t, STEP_COPY);
		return;
	case STEP_REST_FOLLOW:
		begin_pass(t, STEP_REST);
		return;
	case STEP_SEAL:
		errand_step(t, STEP_SEAL_SOURCE);
		return;
	case STEP_SEAL_SOURCE:
		step_to(t, STEP_SWITCH);
		ask(t, t->cfg.ops->switch_fn);
		return;
	case STEP_COMMIT:
		errand_step(t, STEP_CLEAR);
		return;
	case STEP_CLEAR:
		over(t, TRANSFER_DONE);
		return;
	case STEP_UNDO:
		errand_step(t, STEP_UNDO_SOURCE);
		return;
	case STEP_UNDO_SOURCE:
		over(t, t->end_state);
		return;
	default:
		assert(false);
	}
}

/* ---- between passes ------------------------------------------------------------------------------------------------------- */

/* The VM stands still only when that is worth it: little is left, or it does not get less. */
static bool should_stop(struct transfer *t, uint64_t dirty)
{
	if (shard_now_ns(t->sh) < t->not_before_ns)
		return false;
	if (dirty <= t->cfg.small_bytes)
		return true;
	t->stuck = t->last_pass_bytes && dirty > t->last_pass_bytes / 4 * 3 ? t->stuck + 1 : 0;
	t->last_pass_bytes = dirty;
	if (t->stuck < STUCK_MAX)
		return false;
	transfer_say(t, "the VM writes as fast as it is copied: it is paused for the last %llu MiB",
		(unsigned long long)(dirty >> 20));
	return true;
}

static void pass_ended(struct transfer *t)
{
	uint64_t dirty;

	t->pub.passes++;
	t->fresh = false;
	if (pass_volumes_changed(t)) {
		errand_step(t, t->step == STEP_REST ? STEP_REST_FOLLOW : STEP_FOLLOW);
		return;
	}
	dirty = pass_dirty(t);
	if (t->step == STEP_REST && !dirty) {
		errand_step(t, STEP_SEAL);
	} else if (t->step == STEP_REST) {
		begin_pass(t, STEP_REST);
	} else if (!t->operator_pause && should_stop(t, dirty)) {
		step_to(t, STEP_STOP);
		ask(t, t->cfg.ops->pause_fn);
	} else {
		begin_pass(t, STEP_COPY);
	}
}

/* The VM was stopped, or could not be, or for too long: more passes, later. */
static void stop_again_later(struct transfer *t, const char *why)
{
	if (++t->attempts >= ATTEMPTS_MAX) {
		transfer_fail(t, "%s, %u times: gave up", why, t->attempts);
		return;
	}
	transfer_say(t, "%s: it goes on where it is, for now", why);
	t->stuck = 0;
	t->last_pass_bytes = 0;
	t->not_before_ns = shard_now_ns(t->sh) + ATTEMPT_NS;
	begin_pass(t, STEP_COPY);
}

static void rest_took_too_long(struct transfer *t)
{
	char why[96];

	snprintf(why, sizeof(why), "the rest was not copied in %u ms", t->cfg.pause_max_ms);
	pass_give_up(t);
	vm_goes_on(t);
	t->too_long = false;
	stop_again_later(t, why);
}

/* ---- the loop ----------------------------------------------------------------------------------------------------------------- */

static void wake(void *arg)
{
}

static void take_rate(struct transfer *t, uint64_t now)
{
	struct transfer_status *p = &t->pub;
	uint64_t dt = now - t->rate_ns, left;

	if (t->rate_ns && dt < RATE_NS)
		return;
	if (t->rate_ns)
		p->rate_bytes_per_s = (uint64_t)((double)(p->copied_bytes - t->rate_bytes) *
						 MOVER_S / (double)dt);
	t->rate_ns = now;
	t->rate_bytes = p->copied_bytes;
	p->dirty_bytes = pass_dirty(t);
	left = p->dirty_bytes + p->total_bytes - MIN(p->total_bytes, p->done_bytes);
	p->eta_s = p->rate_bytes_per_s ? left / p->rate_bytes_per_s : UINT64_MAX;
}

static void say_state(struct transfer *t, uint64_t now)
{
	enum transfer_state was = t->pub.state;

	t->pub.state = TRANSFER_COPYING;
	if (t->operator_pause)
		t->pub.state = TRANSFER_PAUSED;
	else if (now < t->not_before_ns)
		t->pub.state = TRANSFER_WAITING;
	else if (was == TRANSFER_WAITING && !t->stop)
		t->pub.text[0] = 0;
}

static int copy(struct transfer *t, uint64_t now)
{
	int did;

	if (t->step == STEP_REST && now >= t->deadline_ns)
		t->too_long = true;
	if (t->too_long) {
		if (parts_busy(t))
			return 0;
		rest_took_too_long(t);
		return 1;
	}
	did = pass_work(t);
	take_rate(t, now);
	if (t->step == STEP_COPY)
		say_state(t, now);
	if (t->stop || !pass_is_over(t))
		return did;
	/* What was put off waits for its time, what the operator stopped for him. */
	if (t->step == STEP_COPY && (t->operator_pause || now < t->not_before_ns))
		return did;
	pass_ended(t);
	return 1;
}

static int answered(struct transfer *t)
{
	int rc = t->paused_rc;

	if (t->asked)
		return 0;
	if (t->step == STEP_SWITCH) { /* transfer_switched() */
		t->pub.paused_ns += shard_now_ns(t->sh) - t->paused_at_ns;
		errand_step(t, STEP_COMMIT);
		return 1;
	}
	if (rc < 0) {
		stop_again_later(t, "the VM could not be stopped");
		return 1;
	}
	begin_pass(t, STEP_REST);
	return 1;
}

static void arm_timer(struct transfer *t, uint64_t now)
{
	uint64_t at = UINT64_MAX;

	if (t->step == STEP_REST)
		at = t->deadline_ns;
	if (t->step == STEP_COPY || t->step == STEP_REST)
		at = MIN(at, MAX(t->not_before_ns, now + IDLE_NS));
	if (at != UINT64_MAX)
		timer_arm(t->sh, &t->timer, MAX(at, now + 1), wake, t);
	else
		timer_disarm(t->sh, &t->timer);
}

static bool may_be_undone(const struct transfer *t)
{
	return t->step < STEP_SWITCH || (t->step == STEP_SWITCH && !t->asked);
}

static int step(struct transfer *t, uint64_t now)
{
	if (t->step == STEP_OVER || t->errand.under_way)
		return 0;
	if (t->errand.fn) {
		t->errand.fn = NULL;
		if (t->errand.rc < 0)
			errand_failed(t);
		else if (!t->stop || !may_be_undone(t))
			errand_done(t);
		return 1;
	}
	if (t->stop && may_be_undone(t) && !t->asked) {
		if (parts_busy(t))
			return 0;
		undo(t);
		return 1;
	}
	if (t->step == STEP_COPY || t->step == STEP_REST)
		return copy(t, now);
	return answered(t);
}

static int transfer_poll(void *arg)
{
	struct transfer *t = arg;
	uint64_t now = shard_now_ns(t->sh);
	int did = t->closing ? 0 : step(t, now);

	if (!did)
		arm_timer(t, now);
	return did;
}

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static int volumes_open(struct transfer *t, struct err *err)
{
	int rc;

	for (unsigned int i = 0; i < t->cfg.nvolumes; i++) {
		rc = volume_track_start(t->cfg.volumes[i]);
		if (rc < 0)
			return err_set(err, rc, volume_cfg(t->cfg.volumes[i])->name, NULL,
				rc == -EBUSY ? "is being copied elsewhere already"
					     : "no memory to follow what is written");
		t->vols[i].source = t->cfg.volumes[i];
	}
	pass_volumes_changed(t); /* fills in what they are */
	return 0;
}

static void transfer_free(struct transfer *t)
{
	parts_close(t);
	free(t->vols);
	free(t);
}

int transfer_open(const struct transfer_cfg *cfg, struct transfer **out, struct err *err)
{
	struct transfer *t;
	int rc;

	if (cfg->nvolumes > TRANSFER_VOLUMES_MAX || cfg->from_shard == cfg->to_shard ||
		cfg->from_shard > UINT8_MAX || cfg->to_shard > UINT8_MAX || cfg->from == cfg->to)
		return err_set(err, -EINVAL, "vm", "shard",
			"%u to %u with %u volumes: must be two shards, and at most %u volumes",
			cfg->from_shard, cfg->to_shard, cfg->nvolumes, TRANSFER_VOLUMES_MAX);
	t = calloc(1, sizeof(*t));
	if (!t)
		return err_set(err, -ENOMEM, "vm", NULL, "no memory for its move");
	t->cfg = *cfg;
	if (!t->cfg.small_bytes)
		t->cfg.small_bytes = TRANSFER_SMALL_BYTES;
	if (!t->cfg.pause_max_ms)
		t->cfg.pause_max_ms = TRANSFER_PAUSE_MS;
	t->s = cfg->from->s;
	t->sh = cfg->from->sh;
	t->to_sh = cfg->to->sh;
	t->vols = calloc(MAX(cfg->nvolumes, 1u), sizeof(*t->vols));
	rc = t->vols ? parts_open(t) : -ENOMEM;
	if (rc < 0)
		err_set(err, rc, "vm", NULL, "no memory for its move");
	else
		rc = volumes_open(t, err);
	if (rc < 0) {
		if (t->vols)
			track_stop(t);
		transfer_free(t);
		return rc;
	}
	t->cfg.volumes = NULL; /* the caller's */
	t->pub = (struct transfer_status){.vm = cfg->vm,
		.from_shard = cfg->from_shard,
		.to_shard = cfg->to_shard,
		.eta_s = UINT64_MAX,
		.started_ns = shard_now_ns(t->sh)};
	errand_step(t, STEP_NOTE);
	poller_add(t->sh, &t->poller, transfer_poll, t, POLLER_SLEEPS);
	*out = t;
	return 0;
}

static bool is_quiet(void *arg)
{
	struct transfer *t = arg;

	for (unsigned int i = 0; i < PARTS; i++)
		if (t->parts[i].state == PART_TO_READ)
			t->parts[i].state = PART_FREE;
	return !t->errand.under_way && !parts_busy(t);
}

void transfer_close(struct transfer *t)
{
	if (!t)
		return;
	t->closing = true;
	t->stop = true;
	shard_wait(t->sh, is_quiet, t, 0);
	if (t->step != STEP_OVER) {
		track_stop(t);
		errand_send(t, t->to_sh, land_leave);
		shard_wait(t->sh, is_quiet, t, 0);
	}
	poller_del(t->sh, &t->poller);
	timer_disarm(t->sh, &t->timer);
	transfer_free(t);
}

/* ---- the caller ------------------------------------------------------------------------------------------------------------------ */

void transfer_paused(struct transfer *t, int rc)
{
	assert(t->step == STEP_STOP && t->asked);
	t->asked = false;
	t->paused_rc = rc;
	if (rc < 0)
		return;
	t->vm_paused = true;
	t->paused_at_ns = shard_now_ns(t->sh);
	t->deadline_ns = t->paused_at_ns + t->cfg.pause_max_ms * MOVER_MS;
}

void transfer_switched(struct transfer *t)
{
	assert(t->step == STEP_SWITCH && t->asked);
	t->asked = false;
	t->vm_paused = false;
}

void transfer_not_switched(struct transfer *t, const char *why)
{
	assert(t->step == STEP_SWITCH && t->asked);
	t->asked = false;
	transfer_fail(t, "%s", why);
}

int transfer_pause(struct transfer *t, struct err *err)
{
	if (t->step > STEP_FOLLOW && t->step < STEP_OVER)
		return err_set(
			err, -EBUSY, "vm", NULL, "its move is at its end: it takes no pause");
	if (t->step == STEP_OVER || t->stop || t->operator_pause)
		return err_set(err, -EINVAL, "vm", NULL, "its move is %s",
			transfer_state_name(t->pub.state));
	t->operator_pause = true;
	return 0;
}

int transfer_resume(struct transfer *t, struct err *err)
{
	if (t->step == STEP_OVER || t->stop || !t->operator_pause)
		return err_set(err, -EINVAL, "vm", NULL, "its move is %s, not paused",
			transfer_state_name(t->pub.state));
	t->operator_pause = false;
	return 0;
}

int transfer_cancel(struct transfer *t, struct err *err)
{
	if (t->step == STEP_OVER || t->stop)
		return err_set(err, -EINVAL, "vm", NULL, "its move is %s",
			transfer_state_name(t->pub.state));
	if (!(t->step < STEP_SWITCH))
		return err_set(
			err, -EBUSY, "vm", NULL, "it is changing its shard: too late to cancel");
	t->stop = true;
	t->end_state = TRANSFER_CANCELLED;
	transfer_say(t, "cancelled");
	return 0;
}

const struct transfer_status *transfer_status(struct transfer *t)
{
	return &t->pub;
}
