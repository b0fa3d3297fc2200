/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How old is what is in flight? One list in order of submission and one timer per device, which looks at the head of the list:
 *
 *	submission ── slow_after ──▶ SLOW told ── gone_after ──▶ one more look, so that the loop reaps what has ended ──▶ abandoned
 *
 * Nothing is armed per I/O: the timer stays where the first I/O has put it, and finds out whom it is for when it fires.
 */
#include <errno.h>
#include <stdio.h>

#include "common/base/util.h"
#include "dpu/flash/flash_priv.h"

#define NS_PER_MS    1000000ull
#define GRACE_NS     (20 * NS_PER_MS) /* until the last look */
#define AWAY_NS      (250 * NS_PER_MS) /* the timer was so late: the process was not running */
#define AVERAGE_PART 32 /* of the moving averages: what the newest counts */

static uint64_t slow_after(const struct flash *f)
{
	return f->slow_after_ns ? f->slow_after_ns : FLASH_SLOW_MS * NS_PER_MS;
}

static uint64_t gone_after(const struct flash *f)
{
	return f->gone_after_ns ? f->gone_after_ns : FLASH_GONE_MS * NS_PER_MS;
}

static uint64_t age_of(const struct flash *f, const struct flash_io *io)
{
	return shard_now_ns(f->sh) - MAX(io->submit_ns, f->attended_ns);
}

static void tell(
	struct flash *f, enum flash_notice what, enum flash_op op, enum flash_status status)
{
	if (f->notice_fn)
		f->notice_fn(f->notice_arg, what, op, status);
}

void flash_on_notice(struct flash *f,
	void (*notice_fn)(
		void *arg, enum flash_notice what, enum flash_op op, enum flash_status status),
	void *arg)
{
	f->notice_fn = notice_fn;
	f->notice_arg = arg;
}

/* ---- looking ----------------------------------------------------------------------------------------------- */

static void look(void *arg);

static void look_in(struct flash *f, uint64_t at_ns)
{
	/* Where there is no memory for it the next submission tries again. */
	timer_arm(f->sh, &f->look, at_ns, look, f);
}

static void look_next(struct flash *f, const struct flash_io *oldest)
{
	uint64_t from = MAX(oldest->submit_ns, f->attended_ns);
	uint64_t wait = f->slow ? gone_after(f) : MIN(slow_after(f), gone_after(f));

	if (wait != UINT64_MAX)
		look_in(f, from + wait);
}

static void slow_begin(struct flash *f, const struct flash_io *oldest)
{
	f->slow = true;
	f->slow_times++;
	f->slow_since_ns = shard_now_ns(f->sh);
	tell(f, FLASH_NOTICE_SLOW, oldest->op, FLASH_OK);
}

static void slow_end(struct flash *f)
{
	f->slow = false;
	f->slow_ns += shard_now_ns(f->sh) - f->slow_since_ns;
}

static void look(void *arg)
{
	struct flash *f = arg;
	uint64_t now = shard_now_ns(f->sh), age;
	const struct flash_io *oldest;

	if (!f->in_flight)
		return;
	/* Stopped, or starved: the device may have answered long ago, and nobody looked. */
	if (now - f->look.deadline_ns > AWAY_NS)
		f->attended_ns = now;
	oldest = TAILQ_FIRST(&f->aged);
	age = age_of(f, oldest);
	if (age < gone_after(f))
		f->last_look = false;
	if (age >= gone_after(f) && !f->last_look) {
		f->last_look = true;
		look_in(f, now + GRACE_NS);
		return;
	}
	if (age >= gone_after(f)) {
		flash_abandon(f);
		return;
	}
	if (age >= slow_after(f) && !f->slow)
		slow_begin(f, oldest);
	look_next(f, oldest);
}

/* ---- an I/O ------------------------------------------------------------------------------------------------- */

void age_begin(struct flash *f, struct flash_io *io)
{
	io->submit_ns = shard_now_ns(f->sh);
	if (!f->in_flight++) {
		TAILQ_INIT(&f->aged);
		f->busy_since_ns = io->submit_ns;
	}
	TAILQ_INSERT_TAIL(&f->aged, io, age_link);
	if (!f->look.heap_pos)
		look_next(f, TAILQ_FIRST(&f->aged));
}

static void average(uint64_t *avg, uint64_t ns)
{
	*avg = *avg ? *avg + ns / AVERAGE_PART - *avg / AVERAGE_PART : ns;
}

static struct flash_latency latency(const struct hist *h)
{
	return (struct flash_latency){.p50_ns = hist_at(h, 500),
		.p99_ns = hist_at(h, 990),
		.max_ns = h->max,
		.count = h->count};
}

static void measure(struct flash *f, enum flash_op op, uint64_t ns)
{
	f->max_ns = MAX(f->max_ns, ns);
	if (op == FLASH_READ) {
		average(&f->read_ns, ns);
		hist_add(&f->reads, ns);
	} else if (op == FLASH_WRITE) {
		average(&f->write_ns, ns);
		hist_add(&f->writes, ns);
	} else if (op == FLASH_FLUSH) {
		average(&f->flush_ns, ns);
		hist_add(&f->flushes, ns);
	}
}

void age_end(struct flash *f, struct flash_io *io)
{
	uint64_t ns = shard_now_ns(f->sh) - io->submit_ns;
	bool was_oldest = io == TAILQ_FIRST(&f->aged);

	TAILQ_REMOVE(&f->aged, io, age_link);
	if (!--f->in_flight) {
		f->busy_ns += shard_now_ns(f->sh) - f->busy_since_ns;
		if (shard_is_virtual(f->sh))
			timer_disarm(
				f->sh, &f->look); /* or time would jump to it when all is done */
	}
	measure(f, io->op, ns);
	if (!f->slow || !was_oldest || f->abandoned)
		return;
	if (f->in_flight && age_of(f, TAILQ_FIRST(&f->aged)) >= slow_after(f))
		return;
	slow_end(f);
	timer_disarm(f->sh, &f->look); /* it was for the end of that one */
	if (f->in_flight)
		look_next(f, TAILQ_FIRST(&f->aged));
	tell(f, FLASH_NOTICE_PROMPT, io->op, FLASH_OK);
}

void age_close(struct flash *f)
{
	timer_disarm(f->sh, &f->look);
	shard_undefer(f->sh, &f->give_up);
}

int flash_set_timeouts(struct flash *f, uint32_t slow_ms, uint32_t gone_ms)
{
	if (slow_ms > FLASH_TIMEOUT_MS_MAX || gone_ms > FLASH_TIMEOUT_MS_MAX ||
		(slow_ms && gone_ms && slow_ms > gone_ms))
		return -EINVAL;
	f->slow_after_ns = slow_ms ? slow_ms * NS_PER_MS : UINT64_MAX;
	f->gone_after_ns = gone_ms ? gone_ms * NS_PER_MS : UINT64_MAX;
	timer_disarm(f->sh, &f->look);
	if (f->in_flight)
		look_next(f, TAILQ_FIRST(&f->aged));
	if (f->ops->timeouts)
		f->ops->timeouts(f, gone_ms);
	return 0;
}

/* ---- giving up ------------------------------------------------------------------------------------------------ */

static void give_up(void *arg)
{
	struct flash *f = arg;

	tell(f, FLASH_NOTICE_GONE, FLASH_FLUSH, FLASH_ERR_GONE);
	if (f->in_flight && f->ops->abandon)
		f->ops->abandon(f); /* the last one may close the device */
}

void flash_abandon(struct flash *f)
{
	if (f->abandoned)
		return;
	f->abandoned = true;
	timer_disarm(f->sh, &f->look);
	if (f->slow)
		slow_end(f);
	shard_defer(f->sh, &f->give_up, give_up, f);
}

bool flash_is_abandoned(const struct flash *f)
{
	return f->abandoned;
}

bool flash_is_slow(const struct flash *f)
{
	return f->slow;
}

uint64_t flash_oldest_ns(const struct flash *f)
{
	return f->in_flight ? age_of(f, TAILQ_FIRST(&f->aged)) : 0;
}

uint64_t flash_slow_ns(const struct flash *f)
{
	return f->slow_ns + (f->slow ? shard_now_ns(f->sh) - f->slow_since_ns : 0);
}

const struct hist *flash_times(const struct flash *f, enum flash_op op)
{
	return op == FLASH_READ ? &f->reads : op == FLASH_WRITE ? &f->writes : &f->flushes;
}

uint64_t flash_busy_ns(const struct flash *f)
{
	return f->busy_ns + (f->in_flight ? shard_now_ns(f->sh) - f->busy_since_ns : 0);
}

uint32_t flash_ghosts(const struct flash *f)
{
	return f->ghosts + (f->ops->ghosts ? f->ops->ghosts(f) : 0);
}

/* ---- looking at it ------------------------------------------------------------------------------------------------ */

void flash_health(struct flash *f, struct flash_health *out)
{
	*out = (struct flash_health){.read_ns = f->read_ns,
		.write_ns = f->write_ns,
		.flush_ns = f->flush_ns,
		.read = latency(&f->reads),
		.write = latency(&f->writes),
		.flush = latency(&f->flushes),
		.max_ns = f->max_ns,
		.slow_ns = flash_slow_ns(f),
		.slow_times = f->slow_times,
		.busy_ns = flash_busy_ns(f),
		.in_flight = f->in_flight,
		.ghosts = flash_ghosts(f),
		.oldest_ns = flash_oldest_ns(f),
		.slow = f->slow,
		.abandoned = f->abandoned};
	for (unsigned int i = 0; i < FLASH_STATUS_COUNT; i++)
		out->errors[i] = f->stats.errors[i];
	if (f->ops->paths)
		f->ops->paths(f, out);
	if (f->ops->smart)
		f->ops->smart(f, &out->smart);
	else
		snprintf(
			out->smart.why_not, sizeof(out->smart.why_not), "not an NVMe block device");
}
