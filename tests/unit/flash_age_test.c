/* SPDX-License-Identifier: BSD-3-Clause */
/* Deadlines: when a device is called slow, when it is given up, and what its ghosts may do. Virtual time. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/flash/fault.h"
#include "dpu/flash/smart.h"

#define BLOCK 4096u
#define MS    1000000ull
#define N     16u

struct req {
	struct bed *b;
	struct flash_io io;
	struct iovec iov;
	uint8_t buf[BLOCK];
	uint64_t ended_ns;
	int done;
};

struct bed {
	struct shard *sh;
	struct flash *f;
	uint64_t start;
	struct req reqs[N];
	unsigned int nreqs, slow, prompt, gone, errors;
	uint64_t slow_ns, prompt_ns, gone_ns;
};

static void noticed(void *arg, enum flash_notice what, enum flash_op op, enum flash_status status)
{
	struct bed *b = arg;
	uint64_t at = shard_now_ns(b->sh) - b->start;

	switch (what) {
	case FLASH_NOTICE_SLOW:
		b->slow++;
		b->slow_ns = at;
		break;
	case FLASH_NOTICE_PROMPT:
		b->prompt++;
		b->prompt_ns = at;
		break;
	case FLASH_NOTICE_GONE:
		b->gone++;
		b->gone_ns = at;
		break;
	case FLASH_NOTICE_ERROR:
		assert_int_not_equal(status, FLASH_OK);
		b->errors++;
		break;
	}
}

static struct bed *bed_open(const char *address)
{
	struct bed *b = calloc(1, sizeof(*b));
	struct err err;

	assert_non_null(b);
	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 3}, &b->sh),
		0);
	assert_int_equal(flash_open(b->sh, address, NULL, &b->f, &err), 0);
	assert_int_equal(flash_set_timeouts(b->f, 100, 800), 0);
	flash_on_notice(b->f, noticed, b);
	b->start = shard_now_ns(b->sh);
	return b;
}

static void bed_close(struct bed *b)
{
	flash_close(b->f);
	shard_close(b->sh);
	free(b);
}

static void ended(struct flash_io *io)
{
	struct req *r = io->arg;

	r->done++;
	r->ended_ns = shard_now_ns(r->b->sh) - r->b->start;
}

static struct req *submit(struct bed *b, enum flash_op op, uint32_t block, uint8_t value)
{
	struct req *r = &b->reqs[b->nreqs++];

	assert_true(b->nreqs <= N);
	r->b = b;
	memset(r->buf, value, BLOCK);
	r->iov = (struct iovec){r->buf, BLOCK};
	r->io = (struct flash_io){.op = op,
		.off = (uint64_t)block * BLOCK,
		.len = op == FLASH_FLUSH ? 0 : BLOCK,
		.iov = &r->iov,
		.niov = 1,
		.done_fn = ended,
		.arg = r};
	assert_int_equal(flash_submit(b->f, &r->io), 0);
	return r;
}

static void run_dry(struct bed *b)
{
	while (shard_run_once(b->sh))
		;
}

static bool never(void *arg)
{
	return false;
}

static void run_for(struct bed *b, uint64_t ns)
{
	assert_int_equal(shard_wait(b->sh, never, NULL, ns), -ETIMEDOUT);
}

static void hit_next(struct bed *b, uint32_t count, uint64_t delay_ns)
{
	struct fault_rule r = {
		.any_op = true, .per_million = 1000000, .count = count, .delay_ns = delay_ns};

	fault_rules_clear(b->f);
	assert_true(fault_rule_add(b->f, &r) >= 0);
}

static void prompt_io_is_never_told_of_and_leaves_no_timer(void **state)
{
	struct bed *b = bed_open("fault:mem:1M");
	struct flash_health h;

	for (unsigned int i = 0; i < N; i++)
		submit(b, FLASH_WRITE, i, 1);
	run_dry(b);
	assert_int_equal(shard_now_ns(b->sh), b->start);
	assert_int_equal(b->slow + b->prompt + b->gone + b->errors, 0);
	flash_health(b->f, &h);
	assert_int_equal(h.in_flight, 0);
	assert_int_equal(h.oldest_ns, 0);
	assert_int_equal(h.slow_times, 0);
	assert_false(h.smart.known);
	assert_true(h.smart.why_not[0]);
	bed_close(b);
}

static void a_slow_io_is_told_of_once_and_its_end_as_well(void **state)
{
	struct bed *b = bed_open("fault:mem:1M");
	struct flash_health h;
	struct req *slow;

	hit_next(b, 1, 300 * MS);
	slow = submit(b, FLASH_WRITE, 1, 1);
	submit(b, FLASH_READ, 2, 0);
	run_for(b, 150 * MS);
	assert_int_equal(b->slow, 1);
	assert_int_equal(b->slow_ns, 100 * MS);
	assert_true(flash_is_slow(b->f));
	flash_health(b->f, &h);
	assert_int_equal(h.oldest_ns, 150 * MS);
	run_dry(b);
	assert_int_equal(slow->done, 1);
	assert_int_equal(slow->io.status, FLASH_OK);
	assert_int_equal(b->slow, 1);
	assert_int_equal(b->prompt, 1);
	assert_int_equal(b->prompt_ns, 300 * MS);
	assert_int_equal(b->gone, 0);
	flash_health(b->f, &h);
	assert_int_equal(h.slow_times, 1);
	assert_int_equal(h.slow_ns, 200 * MS);
	assert_int_equal(h.max_ns, 300 * MS);
	assert_false(h.slow);
	bed_close(b);
}

/* The timer of a slow one that ended must not be the deadline of the next. */
static void each_slow_io_is_told_of_in_time(void **state)
{
	struct bed *b = bed_open("fault:mem:1M");

	hit_next(b, 2, 150 * MS);
	submit(b, FLASH_WRITE, 1, 1);
	run_for(b, 120 * MS);
	assert_int_equal(b->slow, 1);
	submit(b, FLASH_WRITE, 2, 1);
	run_for(b, 60 * MS);
	assert_int_equal(b->prompt, 1);
	assert_int_equal(b->slow, 1);
	run_dry(b);
	assert_int_equal(b->slow, 2);
	assert_int_equal(b->slow_ns, 220 * MS);
	assert_int_equal(b->prompt_ns, 270 * MS);
	bed_close(b);
}

static void a_hanging_device_is_given_up_with_all_it_has(void **state)
{
	static const enum flash_op ops[] = {
		FLASH_READ, FLASH_WRITE, FLASH_FLUSH, FLASH_WRITE_ZEROES, FLASH_DISCARD};
	struct bed *b = bed_open("fault:mem:1M");
	struct flash_health h;

	hit_next(b, 0, UINT64_MAX);
	for (unsigned int i = 0; i < ARRAY_LEN(ops); i++)
		submit(b, ops[i], i, 7);
	run_for(b, 500 * MS);
	submit(b, FLASH_WRITE, 100, 7); /* young, and ends with the others */
	run_dry(b);
	assert_int_equal(b->gone, 1);
	for (unsigned int i = 0; i < b->nreqs; i++) {
		assert_int_equal(b->reqs[i].done, 1);
		assert_int_equal(b->reqs[i].io.status, FLASH_ERR_GONE);
		assert_true(b->reqs[i].ended_ns >= 800 * MS);
		assert_true(b->reqs[i].ended_ns <= 900 * MS);
	}
	assert_int_equal(b->errors, b->nreqs);
	assert_int_equal(flash_submit(b->f, &b->reqs[0].io), -ENODEV);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 0, b->reqs[0].buf, BLOCK), -ENODEV);
	flash_health(b->f, &h);
	assert_true(h.abandoned);
	assert_int_equal(h.ghosts, 2); /* the writes */
	assert_int_equal(h.errors[FLASH_ERR_GONE], b->nreqs);
	bed_close(b);
}

/* A control path that waits straight down goes on as well. */
static void a_waiting_call_returns_when_the_device_is_given_up(void **state)
{
	struct bed *b = bed_open("fault:mem:1M");
	uint8_t buf[BLOCK];

	hit_next(b, 0, UINT64_MAX);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 0, buf, BLOCK), -ENODEV);
	assert_true(shard_now_ns(b->sh) - b->start <= 900 * MS);
	bed_close(b);
}

static void a_ghost_lands_with_the_bytes_it_had_and_never_in_memory(void **state)
{
	struct bed *b = bed_open("fault:mem:1M,name=haunted");
	struct req *w, *r;
	uint8_t buf[BLOCK];

	hit_next(b, 2, UINT64_MAX);
	w = submit(b, FLASH_WRITE, 1, 0xaa);
	r = submit(b, FLASH_READ, 2, 0x11);
	run_dry(b);
	assert_int_equal(w->io.status, FLASH_ERR_GONE);
	assert_int_equal(r->io.status, FLASH_ERR_GONE);
	memset(w->buf, 0xbb, BLOCK); /* ours again */
	fault_release(b->f);
	run_dry(b);
	assert_int_equal(flash_ghosts(b->f), 0);
	for (unsigned int i = 0; i < BLOCK; i++)
		assert_int_equal(r->buf[i], 0x11);
	assert_int_equal(flash_rw_sync(fault_inner(b->f), FLASH_READ, BLOCK, buf, BLOCK), 0);
	for (unsigned int i = 0; i < BLOCK; i++)
		assert_int_equal(buf[i], 0xaa);
	bed_close(b);
	flash_mem_forget("haunted");
}

static void timeouts_are_checked_and_may_be_off(void **state)
{
	struct bed *b = bed_open("fault:mem:1M");
	struct req *w;

	assert_int_equal(flash_set_timeouts(b->f, 900, 800), -EINVAL);
	assert_int_equal(flash_set_timeouts(b->f, 1, FLASH_TIMEOUT_MS_MAX + 1), -EINVAL);
	assert_int_equal(flash_set_timeouts(b->f, 0, 0), 0);
	hit_next(b, 1, UINT64_MAX);
	w = submit(b, FLASH_WRITE, 1, 1);
	run_dry(b);
	assert_int_equal(w->done, 0);
	assert_int_equal(shard_now_ns(b->sh), b->start);
	/* and on again, for what is in flight too */
	assert_int_equal(flash_set_timeouts(b->f, 0, 50), 0);
	run_dry(b);
	assert_int_equal(w->done, 1);
	assert_int_equal(b->slow, 0);
	assert_int_equal(b->gone, 1);
	bed_close(b);
}

/* NVM Express Base Specification, "SMART / Health Information". */
/* Classes are a sixteenth wide, and say the longest that falls into them. */
static void latency_is_told_in_classes(void **state)
{
	struct bed *b = bed_open("fault:mem:1M");
	struct flash_health h;

	assert_int_equal(flash_set_timeouts(b->f, 0, 0), 0);
	for (unsigned int i = 0; i < 200; i++) {
		b->nreqs = 0;
		hit_next(b, 1, i < 100 ? 1 * MS : i < 198 ? 3 * MS : 70 * MS);
		submit(b, FLASH_READ, 0, 0);
		run_dry(b);
	}
	hit_next(b, 1, 5000 * 1000 * MS); /* beyond the last class */
	b->nreqs = 0;
	submit(b, FLASH_WRITE, 0, 0);
	run_dry(b);
	flash_health(b->f, &h);
	assert_int_equal(h.read.count, 200);
	assert_in_range(h.read.p50_ns, MS, MS + MS / 16);
	assert_in_range(h.read.p99_ns, 3 * MS, 3 * MS + 3 * MS / 16);
	assert_int_equal(h.read.max_ns, 70 * MS);
	assert_int_equal(h.write.count, 1);
	assert_int_equal(h.write.p50_ns, h.write.max_ns);
	assert_int_equal(h.write.max_ns, 5000 * 1000 * MS);
	assert_int_equal(h.flush.count + h.flush.p50_ns + h.flush.max_ns, 0);
	bed_close(b);
}

static void the_smart_log_page_is_read_as_it_is_specified(void **state)
{
	struct nvme_smart_log page = {0};
	uint8_t *p = (uint8_t *)&page;
	struct flash_smart s;

	p[0] = 0x04;
	p[1] = 0x2f; /* 303 K */
	p[2] = 0x01;
	p[3] = 97;
	p[4] = 10;
	p[5] = 130;
	p[32] = 2; /* thousands of 512 bytes */
	p[48] = 3;
	p[129] = 1; /* 256 h */
	p[144] = 7;
	p[160] = 9;
	smart_parse(&page, &s);
	assert_true(s.known);
	assert_int_equal(s.critical, 4);
	assert_int_equal(s.celsius, 30);
	assert_int_equal(s.spare_percent, 97);
	assert_int_equal(s.spare_min_percent, 10);
	assert_int_equal(s.used_percent, 130);
	assert_int_equal(s.read_bytes, 1024000);
	assert_int_equal(s.written_bytes, 1536000);
	assert_int_equal(s.hours, 256);
	assert_int_equal(s.unsafe_shutdowns, 7);
	assert_int_equal(s.media_errors, 9);
	p[56] = 1; /* 2^64 of them */
	smart_parse(&page, &s);
	assert_true(s.written_bytes == UINT64_MAX);
	assert_null(smart_open(0)); /* whatever it is, an NVMe namespace it is not */
	smart_get(NULL, &s);
	assert_false(s.known);
	assert_true(s.why_not[0]);
}

static void closes(void *arg, enum flash_notice what, enum flash_op op, enum flash_status status)
{
}

static void last_one_closes(struct flash_io *io)
{
	struct bed *b = io->arg;

	if (++b->errors < 3)
		return;
	flash_close(b->f);
	b->f = NULL;
}

static void the_last_to_be_told_may_close_the_device(void **state)
{
	struct bed *b = bed_open("fault:mem:1M");

	flash_on_notice(b->f, closes, NULL);
	hit_next(b, 0, UINT64_MAX);
	for (unsigned int i = 0; i < 3; i++) {
		b->reqs[i].io = (struct flash_io){
			.op = FLASH_FLUSH, .done_fn = last_one_closes, .arg = b};
		assert_int_equal(flash_submit(b->f, &b->reqs[i].io), 0);
	}
	flash_abandon(b->f);
	run_dry(b);
	assert_null(b->f);
	bed_close(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(prompt_io_is_never_told_of_and_leaves_no_timer),
		cmocka_unit_test(a_slow_io_is_told_of_once_and_its_end_as_well),
		cmocka_unit_test(each_slow_io_is_told_of_in_time),
		cmocka_unit_test(a_hanging_device_is_given_up_with_all_it_has),
		cmocka_unit_test(a_waiting_call_returns_when_the_device_is_given_up),
		cmocka_unit_test(a_ghost_lands_with_the_bytes_it_had_and_never_in_memory),
		cmocka_unit_test(timeouts_are_checked_and_may_be_off),
		cmocka_unit_test(latency_is_told_in_classes),
		cmocka_unit_test(the_smart_log_page_is_read_as_it_is_specified),
		cmocka_unit_test(the_last_to_be_told_may_close_the_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
