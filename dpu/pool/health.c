/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/pool/health.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

#include "common/base/util.h"
#include "dpu/pool/pool_priv.h"

#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull
#define DAY_S     86400u
#define HURRY_MS  1600u /* of the two seconds that a request may wait beyond gone_ms */

static void quiet_look(void *arg);

/* ---- counting ---------------------------------------------------------------------------------------------- */

static struct pool_health *health_of(struct pool *p, unsigned int dev)
{
	return &p->health[dev];
}

/* Two halves of a window: what is older than the older half is forgotten. */
static void window_turn(struct pool *p, struct pool_health *h)
{
	uint64_t half = p->health_cfg.window_s * NS_PER_S / 2, now = shard_now_ns(p->sh);

	if (now - h->half_ns < half)
		return;
	h->counts[1] = now - h->half_ns < 2 * half ? h->counts[0] : (struct pool_dev_health){0};
	h->counts[0] = (struct pool_dev_health){0};
	h->half_ns = now;
}

static struct pool_dev_health window_sum(const struct pool_health *h)
{
	return (struct pool_dev_health){
		.errors = h->counts[0].errors + h->counts[1].errors,
		.failed_writes = h->counts[0].failed_writes + h->counts[1].failed_writes,
		.corrupt = h->counts[0].corrupt + h->counts[1].corrupt,
		.slow_times = h->counts[0].slow_times + h->counts[1].slow_times,
		.slow_ms = h->counts[0].slow_ms + h->counts[1].slow_ms,
	};
}

void pool_dev_health(const struct pool *p, unsigned int dev, struct pool_dev_health *out)
{
	*out = dev < p->sb.ndevs ? window_sum(&p->health[dev]) : (struct pool_dev_health){0};
}

/* ---- judging ------------------------------------------------------------------------------------------------- */

static void say_why(struct pool *p, unsigned int dev, const char *fmt, va_list ap)
{
	vsnprintf(p->devs[dev].why, sizeof(p->devs[dev].why), fmt, ap);
}

/* A peer that no way leads to is not to blame for what went wrong on the way. */
enum pool_cause health_cause(const struct pool *p, unsigned int dev, enum pool_cause cause)
{
	struct flash_health h = {.npaths = 0};

	if (p->devs[dev].flash)
		flash_health(p->devs[dev].flash, &h);
	for (unsigned int i = 0; i < h.npaths; i++)
		if (h.paths[i].usable)
			return cause;
	return h.npaths ? POOL_CAUSE_UNREACHABLE : cause;
}

static void __attribute__((format(printf, 4, 5)))
fail(struct pool *p, unsigned int dev, enum pool_cause cause, const char *fmt, ...)
{
	va_list ap;

	if (!pool_dev_usable(p, dev))
		return;
	va_start(ap, fmt);
	say_why(p, dev, fmt, ap);
	va_end(ap);
	pool_dev_fail_for(p, dev, health_cause(p, dev, cause));
}

/* Also resets the time of quiet: it did something again. */
static void __attribute__((format(printf, 3, 4)))
suspect(struct pool *p, unsigned int dev, const char *fmt, ...)
{
	va_list ap;

	health_of(p, dev)->last_ns = shard_now_ns(p->sh);
	if (p->devs[dev].state != POOL_DEV_HEALTHY)
		return;
	va_start(ap, fmt);
	say_why(p, dev, fmt, ap);
	va_end(ap);
	pool_dev_set_state(p, dev, POOL_DEV_SUSPECT, NULL);
	if (!p->quiet.heap_pos)
		timer_arm(p->sh, &p->quiet, shard_now_ns(p->sh) + p->health_cfg.quiet_s * NS_PER_S,
			quiet_look, p);
}

static bool over(uint64_t count, uint32_t limit)
{
	return limit && count >= limit;
}

static void judge(struct pool *p, unsigned int dev)
{
	const struct pool_health_cfg *c = &p->health_cfg;
	struct pool_dev_health sum = window_sum(health_of(p, dev));

	if (over(sum.errors, c->fail_errors))
		fail(p, dev, POOL_CAUSE_ERRORS, "%u errors within %u s", sum.errors, c->window_s);
	else if (over(sum.failed_writes, c->fail_writes))
		fail(p, dev, POOL_CAUSE_ERRORS, "%u failed writes within %u s", sum.failed_writes,
			c->window_s);
	else if (over(sum.slow_times, c->fail_slow))
		fail(p, dev, POOL_CAUSE_UNREACHABLE, "%u times slower than %u ms within %u s",
			sum.slow_times, c->slow_ms, c->window_s);
	else if (over(sum.slow_ms, c->fail_slow_ms))
		fail(p, dev, POOL_CAUSE_UNREACHABLE, "did not answer for %llu ms of %u s",
			(unsigned long long)sum.slow_ms, c->window_s);
	else if (sum.failed_writes)
		suspect(p, dev, "a write failed");
	else if (over(sum.errors, c->suspect_errors))
		suspect(p, dev, "%u errors within %u s", sum.errors, c->window_s);
	else if (over(sum.errors + sum.corrupt, c->suspect_errors))
		suspect(p, dev, "%u blocks with a wrong CRC, %u errors within %u s", sum.corrupt,
			sum.errors, c->window_s);
}

/* Suspects that have been quiet for long enough; and when to look again. */
static void quiet_look(void *arg)
{
	struct pool *p = arg;
	uint64_t now = shard_now_ns(p->sh), quiet = p->health_cfg.quiet_s * NS_PER_S;
	uint64_t next = UINT64_MAX;

	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (p->devs[i].state != POOL_DEV_SUSPECT)
			continue;
		if (now - p->health[i].last_ns < quiet || pool_dev_hung(p, i)) {
			next = MIN(next, MAX(p->health[i].last_ns + quiet, now + NS_PER_S));
			continue;
		}
		snprintf(p->devs[i].why, sizeof(p->devs[i].why), "quiet for %u s",
			p->health_cfg.quiet_s);
		memset(p->health[i].counts, 0, sizeof(p->health[i].counts));
		pool_dev_set_state(p, i, POOL_DEV_HEALTHY, NULL);
	}
	if (next != UINT64_MAX)
		timer_arm(p->sh, &p->quiet, next, quiet_look, p);
}

/* ---- probes ----------------------------------------------------------------------------------------------------- */

static void probed(struct flash_io *io)
{
	struct pool_health *h = io->arg;

	h->probing = false;
	h->p->probes--;
}

/* One hangs: do the others? Whatever the read says, it is in flight, and so has a deadline. */
static void probe_all(void *arg)
{
	struct pool *p = arg;

	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		struct pool_health *h = &p->health[i];
		struct flash *f = p->devs[i].flash;

		if (!f || h->probing || p->closing || !pool_dev_usable(p, i) || flash_in_flight(f))
			continue;
		h->probe_iov = (struct iovec){h->probe_mem, flash_info(f)->block_bytes};
		h->probe = (struct flash_io){.op = FLASH_READ,
			.len = flash_info(f)->block_bytes,
			.iov = &h->probe_iov,
			.niov = 1,
			.done_fn = probed,
			.arg = h};
		if (flash_submit(f, &h->probe) < 0)
			continue;
		h->probing = true;
		p->probes++;
	}
}

/* As long as one hangs: its users wait, so nobody else might be asking the others. */
static void probe_again(void *arg)
{
	struct pool *p = arg;

	if (!pool_any_hung(p))
		return;
	probe_all(p);
	timer_arm(p->sh, &p->again, shard_now_ns(p->sh) + p->health_cfg.slow_ms * NS_PER_MS,
		probe_again, p);
}

static bool no_probes(void *arg)
{
	return !((struct pool *)arg)->probes;
}

/* ---- what a flash tells --------------------------------------------------------------------------------------------- */

static void slow(struct pool *p, unsigned int dev, enum flash_op op)
{
	static const char *const names[] = {[FLASH_READ] = "read",
		[FLASH_WRITE] = "write",
		[FLASH_FLUSH] = "flush",
		[FLASH_WRITE_ZEROES] = "write of zeros",
		[FLASH_DISCARD] = "discard"};

	health_of(p, dev)->counts[0].slow_times++;
	suspect(p, dev, "a %s takes longer than %u ms", names[op], p->health_cfg.slow_ms);
	judge(p, dev);
	p->room_version++;
	shard_defer(p->sh, &p->probe_task, probe_all, p);
	if (!p->again.heap_pos)
		timer_arm(p->sh, &p->again, shard_now_ns(p->sh) + p->health_cfg.slow_ms * NS_PER_MS,
			probe_again, p);
}

static void prompt(struct pool *p, unsigned int dev)
{
	struct pool_health *h = health_of(p, dev);
	uint64_t slow_ns = flash_slow_ns(p->devs[dev].flash);

	h->counts[0].slow_ms += (slow_ns - h->slow_seen_ns) / NS_PER_MS;
	h->slow_seen_ns = slow_ns;
	h->last_ns = shard_now_ns(p->sh);
	p->room_version++;
	judge(p, dev);
}

static void error(struct pool *p, unsigned int dev, enum flash_op op, enum flash_status status)
{
	struct pool_health *h = health_of(p, dev);

	if (status == FLASH_ERR_FENCED) {
		if (!p->lost) {
			p->lost = true;
			p->lost_dev = dev;
			p->writable = false;
			pool_tell(p, dev);
		}
		return;
	}
	p->devs[dev].errors++;
	if (status == FLASH_ERR_GONE) {
		fail(p, dev, POOL_CAUSE_UNREACHABLE, "the device is gone");
		return;
	}
	h->counts[0].errors++;
	if (op == FLASH_FLUSH && status == FLASH_ERR_MEDIA) {
		/* What it had said was written may not be: nothing of it can be believed. */
		fail(p, dev, POOL_CAUSE_ERRORS, "a flush failed");
		return;
	}
	judge(p, dev);
}

void pool_dev_write_failed(struct pool *p, unsigned int dev)
{
	if (!pool_dev_usable(p, dev) || p->lost)
		return;
	window_turn(p, health_of(p, dev));
	health_of(p, dev)->counts[0].failed_writes++;
	judge(p, dev);
}

void pool_dev_corrupt(struct pool *p, unsigned int dev, uint32_t n)
{
	if (!n || !pool_dev_usable(p, dev))
		return;
	p->devs[dev].errors += n;
	window_turn(p, health_of(p, dev));
	health_of(p, dev)->counts[0].corrupt += n;
	judge(p, dev);
}

/* ---- life --------------------------------------------------------------------------------------------------------------- */

bool pool_dev_hung(const struct pool *p, unsigned int dev)
{
	return pool_dev_usable(p, dev) && flash_is_slow(p->devs[dev].flash);
}

bool pool_any_hung(const struct pool *p)
{
	return p->nhung;
}

static void count_hung(struct pool *p)
{
	p->nhung = 0;
	for (unsigned int i = 0; i < p->sb.ndevs; i++)
		p->nhung += pool_dev_hung(p, i);
}

/*
 * A device was given up. Who waited for it may now wait for another that hangs as well, but not as long again: what has not answered within HURRY_MS
 * (it is asked now) is given up, too, where the pool can be without it.
 */
static void hurry(void *arg)
{
	struct pool *p = arg;
	unsigned int down = 0;

	for (unsigned int i = 0; i < p->sb.ndevs; i++)
		down += p->devs[i].state == POOL_DEV_FAILED || p->devs[i].state == POOL_DEV_MISSING;
	for (unsigned int i = 0; i < p->sb.ndevs && down < p->sb.cfg.scheme.m; i++) {
		if (!pool_dev_hung(p, i) ||
			flash_oldest_ns(p->devs[i].flash) < HURRY_MS * NS_PER_MS)
			continue;
		down++;
		health_of(p, i)->hurried = true;
		flash_abandon(p->devs[i].flash);
	}
}

static void given_up(struct pool *p, unsigned int dev)
{
	if (health_of(p, dev)->hurried)
		fail(p, dev, POOL_CAUSE_UNREACHABLE,
			"hung when another device was given up, and %u ms later", HURRY_MS);
	else
		fail(p, dev, POOL_CAUSE_UNREACHABLE, "an I/O has not ended within %u ms",
			p->health_cfg.gone_ms);
	shard_defer(p->sh, &p->probe_task, probe_all, p);
	/* Asked a task later, so a little later. */
	if (!p->hurry.heap_pos)
		timer_arm(p->sh, &p->hurry,
			shard_now_ns(p->sh) + (HURRY_MS + HURRY_MS / 16) * NS_PER_MS, hurry, p);
}

static void noticed(void *arg, enum flash_notice what, enum flash_op op, enum flash_status status)
{
	struct pool_health *h = arg;
	struct pool *p = h->p;
	unsigned int dev = (unsigned int)(h - p->health);

	window_turn(p, h);
	switch (what) {
	case FLASH_NOTICE_SLOW:
		slow(p, dev, op);
		break;
	case FLASH_NOTICE_PROMPT:
		prompt(p, dev);
		break;
	case FLASH_NOTICE_GONE:
		given_up(p, dev);
		break;
	case FLASH_NOTICE_ERROR:
		error(p, dev, op, status);
		return;
	}
	count_hung(p);
}

void health_attach(struct pool *p, unsigned int dev)
{
	struct pool_health *h = health_of(p, dev);
	struct flash *f = p->devs[dev].flash;

	if (!f)
		return;
	*h = (struct pool_health){.p = p, .half_ns = shard_now_ns(p->sh)};
	flash_set_timeouts(f, p->health_cfg.slow_ms, p->health_cfg.gone_ms);
	flash_on_notice(f, noticed, h);
}

void health_detach(struct pool *p, unsigned int dev)
{
	if (p->devs[dev].flash)
		flash_on_notice(p->devs[dev].flash, NULL, NULL);
}

void health_close(struct pool *p)
{
	p->closing = true;
	shard_undefer(p->sh, &p->probe_task);
	timer_disarm(p->sh, &p->quiet);
	timer_disarm(p->sh, &p->hurry);
	timer_disarm(p->sh, &p->again);
	if (p->probes)
		shard_wait(p->sh, no_probes, p, 0);
	for (unsigned int i = 0; i < p->sb.ndevs; i++)
		health_detach(p, i);
}

const struct pool_health_cfg *pool_health_cfg(const struct pool *p)
{
	return &p->health_cfg;
}

static int in_range(const char *field, uint32_t value, uint32_t min, uint32_t max, struct err *err)
{
	if (value >= min && value <= max)
		return 0;
	return err_set(err, -EINVAL, "pool", field, "%u: %u to %u", value, min, max);
}

int pool_health_check(const struct pool_health_cfg *c, struct err *err)
{
	int rc = in_range("timeout", c->gone_ms, 100, FLASH_TIMEOUT_MS_MAX, err);

	if (rc == 0)
		rc = in_range("slow after", c->slow_ms, 10, c->gone_ms, err);
	if (rc == 0)
		rc = in_range("error window", c->window_s, 1, DAY_S, err);
	if (rc == 0)
		rc = in_range("quiet time", c->quiet_s, 1, DAY_S, err);
	if (rc == 0)
		rc = in_range("failed writes", c->fail_writes, 1, 3, err);
	return rc;
}

int pool_health_set(struct pool *p, const struct pool_health_cfg *cfg, struct err *err)
{
	int rc = pool_health_check(cfg, err);

	if (rc < 0)
		return rc;
	p->health_cfg = *cfg;
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (p->devs[i].flash)
			flash_set_timeouts(p->devs[i].flash, cfg->slow_ms, cfg->gone_ms);
	}
	return 0;
}
