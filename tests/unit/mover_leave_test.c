/* SPDX-License-Identifier: BSD-3-Clause */
/* The mover where devices are too few: what it gives up for the sake of new data, and that its end waits for nobody. */
#include "tests/unit/storebed.h"

#include "dpu/mover/mover.h"
#include "dpu/stripelog/stripelog.h"
#include "dpu/volume/move.h"
#include "dpu/volume/store_priv.h"

#define NS_PER_S 1000000000ull

static struct mover *m;

static void bed_open(const struct sb_cfg *cfg)
{
	sb_open(cfg);
	assert_int_equal(mover_open(&(struct mover_cfg){.store = sb.store}, &m), 0);
}

static uint32_t start(enum mover_reason reason, int dev, int vol)
{
	struct mover_job job = {
		.reason = reason, .dev = dev, .volume = vol < 0 ? NULL : sb.vols[vol].v};
	struct err e = {0};
	uint32_t id = 0;

	if (mover_start(m, &job, &id, &e) < 0)
		fail_msg("%s", err_text(&e));
	return id;
}

static void lose(unsigned int dev)
{
	fault_set_gone(sb.f[dev], true);
	pool_dev_fail(store_pool(sb.store), dev);
}

static bool has_failed(void *arg)
{
	return mover_task_find(m, *(uint32_t *)arg)->state == MOVER_FAILED;
}

static void an_evacuation_gives_way_where_new_data_would_lack_redundancy(void **state)
{
	struct mover_limits slow = {.share_percent = 1, .ceiling_bytes_per_s = 64 << 10};
	uint32_t id;

	bed_open(&(struct sb_cfg){.ndevs = 5, .k = 1, .m = 1, .dev_mib = 48});
	sb_volume("a", 2048, VOLUME_COPY, 2);
	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
	assert_int_equal(mover_set_limits(m, &slow, NULL), 0);
	id = start(MOVER_EVACUATE, 1, -1);
	assert_int_equal(pool_dev(store_pool(sb.store), 1)->state, POOL_DEV_EVACUATING);
	lose(3);
	lose(4);
	/* 0 alone would take a stripe's copies, beside the data flash. */
	assert_int_equal(shard_wait(sb.sh, has_failed, &id, 60 * NS_PER_S), 0);
	assert_non_null(strstr(mover_task_find(m, id)->text, "gave way"));
	assert_int_equal(pool_dev(store_pool(sb.store), 1)->state, POOL_DEV_HEALTHY);
	assert_int_equal(sb_write(0, IO_PROTECT, 0, 8), IO_OK);
	lose(0);
	sb_expect_all();
	fault_set_gone(sb.f[0], false);
	mover_close(m);
	sb_close();
}

static void an_evacuation_that_would_leave_too_few_is_refused(void **state)
{
	struct mover_job job = {.reason = MOVER_EVACUATE, .dev = 1};
	struct err e = {0};

	bed_open(&(struct sb_cfg){.ndevs = 3, .k = 1, .m = 1, .dev_mib = 48});
	assert_int_equal(mover_start(m, &job, NULL, &e), -EINVAL);
	assert_non_null(strstr(e.reason, "beside a data flash"));
	assert_int_equal(pool_dev(store_pool(sb.store), 1)->state, POOL_DEV_HEALTHY);
	mover_close(m);
	sb_close();
}

static bool is_unsettled(void)
{
	return sb.store->piece_orphans != 0;
}

static bool never(void *arg)
{
	return false;
}

static bool restores(void *arg)
{
	const struct mover_task *t = NULL;

	while ((t = mover_task_next(m, t)))
		if (t->reason == MOVER_RESTORE)
			return t->state != MOVER_DONE && t->state != MOVER_FAILED;
	return false;
}

/* A piece that moves has to say so in the log, and there are not enough devices to say it on. */
static void its_end_does_not_wait_for_devices_that_are_away(void **state)
{
	struct err e = {0};

	bed_open(&(struct sb_cfg){.ndevs = 4, .k = 1, .m = 1, .dev_mib = 48});
	sb_volume("a", 1024, VOLUME_COPY, 3);
	assert_int_equal(sb_write(0, IO_PROTECT, 0, 32), IO_OK);
	lose(3);
	assert_int_equal(shard_wait(sb.sh, restores, NULL, 60 * NS_PER_S), 0); /* by itself */
	lose(1);
	lose(volume_cfg(sb.vols[0].v)->data_dev == 2 ? 0 : 2);
	assert_int_equal(shard_wait(sb.sh, never, NULL, 5 * NS_PER_S), -ETIMEDOUT);
	assert_true(restores(NULL));
	/* Nobody waits for that. */
	assert_int_equal(sb_write(0, IO_PROTECT, 0, 8), IO_ERR_RETRY);
	mover_close(m);
	assert_true(is_unsettled());
	assert_int_equal(sb_write(0, IO_PLAIN, 8, 8), IO_ERR_RETRY);
	/* They are back: it is settled without the mover. */
	for (unsigned int d = 0; d < 3; d++) {
		if (pool_dev_usable(store_pool(sb.store), d))
			continue;
		fault_set_gone(sb.f[d], false);
		assert_int_equal(pool_dev_return(store_pool(sb.store), d, NULL, &e), 0);
	}
	assert_int_equal(shard_wait(sb.sh, never, NULL, 5 * NS_PER_S), -ETIMEDOUT);
	assert_false(is_unsettled());
	sb_expect_all();
	assert_int_equal(sb_write(0, IO_PROTECT, 0, 8), IO_OK);
	sb_expect_all();
	sb_close();
}

/* More groups than the cleaner remembers, and no header of any can be read: it has to rest between two looks at them. */
static void cleaning_where_nothing_can_be_read_does_not_go_round_and_round(void **state)
{
	struct mover_job job = {.reason = MOVER_CLEAN, .dev = POOL_DEV_NONE};
	struct log_space sp;
	struct err e = {0};

	bed_open(&(struct sb_cfg){.ndevs = 3, .k = 1, .m = 1, .dev_mib = 64});
	sb_volume("a", 2048, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 30; i++) {
		assert_int_equal(sb_write(0, IO_PROTECT, 64 + i * 8, 8), IO_OK);
		for (unsigned int garbage = 0; garbage < 8; garbage++)
			assert_int_equal(sb_write(0, IO_PROTECT, 0, 32), IO_OK);
	}
	stripelog_space(store_log(sb.store), &sp);
	assert_true(sp.groups > 20);
	for (unsigned int d = 0; d < 3; d++)
		lose(d);
	assert_int_equal(mover_start(m, &job, NULL, &e), 0);
	/* Virtual time goes on only where there is nothing to do. */
	assert_int_equal(shard_wait(sb.sh, never, NULL, NS_PER_S), -ETIMEDOUT);
	mover_close(m);
	sb_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_evacuation_gives_way_where_new_data_would_lack_redundancy),
		cmocka_unit_test(an_evacuation_that_would_leave_too_few_is_refused),
		cmocka_unit_test(its_end_does_not_wait_for_devices_that_are_away),
		cmocka_unit_test(cleaning_where_nothing_can_be_read_does_not_go_round_and_round),
	};

	return cmocka_run_group_tests_name("mover_leave", tests, NULL, NULL);
}
