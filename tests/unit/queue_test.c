/* SPDX-License-Identifier: BSD-3-Clause */
/* The queue controller over a log that does as told: when batches close, what they hold, and that each item ends once. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/queue/queue.h"

enum { ITEMS = 200, MAX_FLIGHT = 4 };

/* ---- the log ----------------------------------------------------------------------------------------------- */
static struct {
	TAILQ_HEAD(, stripe_append) flight;
	unsigned int in_flight, appends, unreserved;
	struct {
		uint32_t nblocks, nextents, volumes;
		bool fua;
		int excluded;
	} seen[ITEMS];
	int refuse; /* -errno of the next appends */
} fake;

int stripelog_append(struct stripelog *log, struct stripe_append *a)
{
	uint32_t n = 0;

	if (fake.refuse)
		return fake.refuse;
	if (fake.in_flight == MAX_FLIGHT)
		return -EAGAIN;
	fake.seen[fake.appends].nblocks = a->nblocks;
	fake.seen[fake.appends].nextents = a->nextents;
	fake.seen[fake.appends].fua = a->fua;
	fake.seen[fake.appends].excluded = a->excluded_dev;
	for (uint32_t e = 0; e < a->nextents; e++)
		n += a->extents[e].nblocks;
	assert_int_equal(n, a->nblocks);
	for (uint32_t i = 0; i < a->nblocks; i++)
		a->crc[i] = a->blocks[i][0];
	a->ref = fake.appends++;
	fake.in_flight++;
	TAILQ_INSERT_TAIL(&fake.flight, a, link);
	return 0;
}

void stripelog_unreserve(
	struct stripelog *log, struct ec_scheme scheme, int excluded_dev, uint32_t nblocks)
{
	fake.unreserved += nblocks;
}

static void complete_one(enum io_status status)
{
	struct stripe_append *a = TAILQ_FIRST(&fake.flight);

	TAILQ_REMOVE(&fake.flight, a, link);
	fake.in_flight--;
	a->done_fn(a, status);
}

/* ---- the items ------------------------------------------------------------------------------------------------ */
struct item {
	struct queue_item it;
	const uint8_t *blocks[8];
	uint32_t crc[8];
	unsigned int done;
	enum io_status status;
};

static struct rig {
	struct shard *sh;
	struct queue *q;
	struct item item[ITEMS];
	unsigned int submitted, done;
	bool in_submit;
} rig;

static uint8_t bytes[ITEMS][4096];

static void item_done(struct queue_item *it, enum io_status status)
{
	struct item *i = container_of(it, struct item, it);

	assert_false(rig.in_submit);
	assert_int_equal(i->done++, 0);
	i->status = status;
	rig.done++;
	if (status == IO_OK)
		for (uint32_t b = 0; b < it->extent.nblocks; b++)
			assert_int_equal(i->crc[b], i->blocks[b][0]);
}

static struct item *submit(uint32_t nblocks, uint32_t vm, bool fua)
{
	struct item *i = &rig.item[rig.submitted];

	memset(i, 0, sizeof(*i));
	bytes[rig.submitted][0] = (uint8_t)rig.submitted;
	for (uint32_t b = 0; b < nblocks; b++)
		i->blocks[b] = bytes[rig.submitted];
	i->it = (struct queue_item){.vm = vm,
		.scheme = {4, 2},
		.excluded_dev = 3,
		.extent = {.block = rig.submitted * 8, .volume = vm, .nblocks = nblocks},
		.blocks = i->blocks,
		.crc = i->crc,
		.fua = fua,
		.done_fn = item_done};
	rig.in_submit = true;
	assert_int_equal(queue_submit(rig.q, &i->it), 0);
	rig.in_submit = false;
	rig.submitted++;
	return i;
}

/* One round is enough for what was submitted; an idle one would let the virtual clock jump. */
static void rounds(void)
{
	shard_run_once(rig.sh);
}

static bool appends_reached(void *arg)
{
	return fake.appends >= *(unsigned int *)arg;
}

static void open_rig(const struct queue_cfg *cfg)
{
	memset(&fake, 0, sizeof(fake));
	TAILQ_INIT(&fake.flight);
	rig.submitted = rig.done = 0;
	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1}, &rig.sh),
		0);
	assert_int_equal(queue_open(NULL, rig.sh, cfg, 100, &rig.q), 0);
}

static void close_rig(void)
{
	unsigned int idle = 0;

	while (rig.done < rig.submitted && idle++ < 1000) {
		rounds();
		if (fake.in_flight)
			complete_one(IO_OK);
	}
	assert_int_equal(rig.done, rig.submitted);
	queue_close(rig.q);
	shard_close(rig.sh);
}

static struct queue_stats stats(void)
{
	struct queue_stats s;

	queue_stats(rig.q, &s);
	return s;
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */
static void what_arrives_in_one_round_goes_as_one_batch(void **state)
{
	open_rig(&QUEUE_CFG_DEFAULT);
	for (int i = 0; i < 5; i++)
		submit(2, 1, false);
	assert_int_equal(fake.appends, 0);
	rounds();
	assert_int_equal(fake.appends, 1);
	assert_int_equal(fake.seen[0].nblocks, 10);
	assert_int_equal(fake.seen[0].nextents, 5);
	assert_int_equal(fake.seen[0].excluded, 3);
	assert_int_equal(stats().closed[QUEUE_CLOSE_IDLE], 1);
	complete_one(IO_OK);
	assert_int_equal(rig.done, 5);
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(rig.item[i].it.pos, 2 * i);
	close_rig();
}

static void while_a_stripe_is_in_flight_the_next_batch_gathers_until_it_ends(void **state)
{
	open_rig(&(struct queue_cfg){.group_commit = true, .max_age_us = 1000000});
	submit(1, 1, false);
	rounds();
	for (int i = 0; i < 3; i++) {
		submit(1, 1, false);
		shard_run_once(rig.sh);
	}
	assert_int_equal(fake.appends, 1);
	complete_one(IO_OK);
	rounds();
	assert_int_equal(fake.appends, 2);
	assert_int_equal(fake.seen[1].nextents, 3);
	close_rig();
}

static void age_closes_a_batch_that_nothing_else_closes(void **state)
{
	unsigned int want = 1;
	uint64_t t0;

	open_rig(&(struct queue_cfg){.max_age_us = 700});
	t0 = shard_now_ns(rig.sh);
	submit(1, 1, false);
	assert_int_equal(shard_wait(rig.sh, appends_reached, &want, 0), 0);
	assert_int_equal(shard_now_ns(rig.sh) - t0, 700000);
	assert_int_equal(stats().closed[QUEUE_CLOSE_AGE], 1);
	close_rig();
}

static void bytes_and_count_close_full_batches_side_by_side(void **state)
{
	open_rig(&(struct queue_cfg){.max_bytes = 8 * 4096, .max_age_us = 1000000});
	for (int i = 0; i < 7; i++)
		submit(3, 1, false);
	rounds();
	/* 3 + 3, then 3 more would not fit. */
	assert_int_equal(fake.appends, 3);
	assert_int_equal(fake.in_flight, 3);
	assert_int_equal(fake.seen[0].nblocks, 6);
	assert_int_equal(stats().closed[QUEUE_CLOSE_BYTES], 3);
	assert_int_equal(stats().waiting, 1);
	queue_set(rig.q, &(struct queue_cfg){.max_count = 2, .max_age_us = 1000000});
	rounds();
	assert_int_equal(fake.appends, 4); /* the old settings' rest */
	complete_one(IO_OK);
	submit(1, 1, false);
	submit(1, 1, false);
	rounds();
	assert_int_equal(fake.seen[4].nextents, 2);
	assert_int_equal(stats().closed[QUEUE_CLOSE_COUNT], 1);
	close_rig();
}

static void fua_closes_its_batch_at_once_and_marks_it(void **state)
{
	open_rig(&(struct queue_cfg){.max_age_us = 1000000});
	submit(1, 1, false);
	submit(1, 1, true);
	submit(1, 1, false);
	rounds();
	assert_int_equal(fake.appends, 1);
	assert_int_equal(fake.seen[0].nextents, 2);
	assert_true(fake.seen[0].fua);
	assert_int_equal(stats().closed[QUEUE_CLOSE_FUA], 1);
	close_rig();
}

static void per_request_encodes_each_write_alone(void **state)
{
	open_rig(&(struct queue_cfg){.per_request = true});
	for (int i = 0; i < 3; i++)
		submit(1, 1, false);
	rounds();
	assert_int_equal(fake.appends, 3);
	assert_int_equal(stats().closed[QUEUE_CLOSE_REQUEST], 3);
	close_rig();
}

static void per_vm_never_mixes_two_vms_in_a_batch(void **state)
{
	open_rig(&(struct queue_cfg){.per_vm = true, .group_commit = true});
	for (int i = 0; i < 6; i++)
		submit(1, 1 + i % 2, false);
	rounds();
	assert_int_equal(fake.appends, 2);
	for (unsigned int i = 0; i < 6; i++)
		assert_int_equal(rig.item[i].it.extent.volume, 1 + i % 2);
	assert_int_equal(fake.seen[0].nextents, 3);
	assert_int_equal(fake.seen[1].nextents, 3);
	close_rig();
}

static void a_full_log_is_waited_for_and_order_is_kept(void **state)
{
	open_rig(&(struct queue_cfg){.per_request = true});
	for (int i = 0; i < 20; i++)
		submit(1, 1, false);
	rounds();
	assert_int_equal(fake.in_flight, MAX_FLIGHT);
	assert_int_equal(stats().waiting, 20 - MAX_FLIGHT);
	for (unsigned int i = 0; i < 20; i++) {
		complete_one(IO_OK);
		rounds();
		assert_int_equal(rig.done, i + 1);
		assert_int_equal(rig.item[i].done, 1);
		assert_int_equal(rig.item[i].it.ref, i);
	}
	close_rig();
}

static void a_log_that_refuses_fails_its_items_and_gives_their_room_back(void **state)
{
	struct item *a, *b;

	open_rig(&QUEUE_CFG_DEFAULT);
	fake.refuse = -ENOSPC;
	a = submit(3, 1, false);
	rounds();
	assert_int_equal(a->status, IO_ERR_NO_SPACE);
	fake.refuse = -EROFS;
	b = submit(2, 1, false);
	rounds();
	assert_int_equal(b->status, IO_ERR_RETRY);
	assert_int_equal(fake.unreserved, 5);
	fake.refuse = 0;
	a = submit(1, 1, false);
	rounds();
	complete_one(IO_ERR_MEDIA);
	assert_int_equal(a->status, IO_ERR_MEDIA);
	assert_int_equal(fake.unreserved, 5);
	close_rig();
}

static void no_batch_is_larger_than_the_log_can_take(void **state)
{
	static struct queue_item large = {.extent.nblocks = 101};

	open_rig(&(struct queue_cfg){.max_bytes = 4 << 20, .max_age_us = 1000000});
	assert_int_equal(queue_submit(rig.q, &large), -EINVAL);
	for (int i = 0; i < 21; i++)
		submit(5, 1, false);
	rounds();
	assert_int_equal(fake.appends, 1);
	assert_int_equal(fake.seen[0].nblocks, 100);
	close_rig();
}

static void settings_out_of_range_are_named(void **state)
{
	struct err e = {0};

	assert_int_equal(queue_cfg_check(&(struct queue_cfg){.max_bytes = 100}, &e), -EINVAL);
	assert_string_equal(e.field, "max_bytes");
	assert_int_equal(queue_cfg_check(&(struct queue_cfg){.max_bytes = 8 << 20}, &e), -EINVAL);
	assert_int_equal(queue_cfg_check(&(struct queue_cfg){.max_age_us = 1000001}, &e), -EINVAL);
	assert_string_equal(e.field, "max_age_us");
	assert_int_equal(queue_cfg_check(&QUEUE_CFG_DEFAULT, &e), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_arrives_in_one_round_goes_as_one_batch),
		cmocka_unit_test(while_a_stripe_is_in_flight_the_next_batch_gathers_until_it_ends),
		cmocka_unit_test(age_closes_a_batch_that_nothing_else_closes),
		cmocka_unit_test(bytes_and_count_close_full_batches_side_by_side),
		cmocka_unit_test(fua_closes_its_batch_at_once_and_marks_it),
		cmocka_unit_test(per_request_encodes_each_write_alone),
		cmocka_unit_test(per_vm_never_mixes_two_vms_in_a_batch),
		cmocka_unit_test(a_full_log_is_waited_for_and_order_is_kept),
		cmocka_unit_test(a_log_that_refuses_fails_its_items_and_gives_their_room_back),
		cmocka_unit_test(no_batch_is_larger_than_the_log_can_take),
		cmocka_unit_test(settings_out_of_range_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
