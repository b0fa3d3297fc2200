/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recoveries that append more than what brings a checkpoint about. One that began in the middle of them would say of blocks that they are in stripes
 * which the recovery has put elsewhere; what it says is believed by the opening after that.
 */
#include "tests/unit/storebed.h"

enum { DEVS = 7, STRIPE = 16, BLOCKS = 400 * STRIPE };

/* More than checkpoint_bytes of the bed, none of it flushed: with a device away a recovery appends what was on it again. In so many stripes that it takes
 * more rounds than pass between two looks at how much has been appended. */
static void write_much(unsigned int vol)
{
	for (uint64_t block = 0; block < BLOCKS; block += STRIPE)
		assert_int_equal(sb_write(vol, IO_PROTECT, block, STRIPE), IO_OK);
}

/* The card's process dies: what completed stays. The next one makes checkpoints by itself, or not. */
static void die(bool automatic, uint64_t away)
{
	struct flash *on[SB_DEVS];
	struct err e = {0};
	unsigned int n = 0;

	for (unsigned int d = 0; d < DEVS; d++)
		if (sb.f[d])
			on[n++] = sb.f[d];
	assert_int_equal(fault_process_kill(on, n), 0);
	store_close(sb.store);
	sb.cfg.manual_checkpoints = !automatic;
	if (sb_start(away, false, &e) < 0)
		fail_msg("%s", err_text(&e));
}

static uint64_t checkpoints(void)
{
	struct store_stats st;

	store_stats(sb.store, &st);
	return st.checkpoints;
}

static bool one_is_made(void *arg)
{
	return checkpoints() > 0;
}

static void open_with_much_to_append_again(void)
{
	struct store_stats st;
	unsigned int vol;

	sb_open(&(struct sb_cfg){.ndevs = DEVS,
		.k = 4,
		.m = 2,
		.dev_mib = 32,
		.volatile_cache = true,
		.manual_checkpoints = true});
	vol = sb_volume("a", BLOCKS, VOLUME_FRAGMENTS, 0);
	write_much(vol);
	die(true, 1 << 2);
	store_stats(sb.store, &st);
	assert_true(st.recovery_reappended > BLOCKS / STRIPE / 2);
	assert_true(
		st.log.bytes_data > 8 << 20); /* of this process, which has only recovered yet */
}

static void no_checkpoint_begins_within_a_recovery(void **state)
{
	open_with_much_to_append_again();
	assert_int_equal(checkpoints(), 0);
	assert_int_equal(shard_wait(sb.sh, one_is_made, NULL, 0), 0);
	die(false, 1 << 2);
	sb_expect_all();
	sb_check();
	sb_close();
}

/* Dies after every so many rounds of what follows the recovery: no checkpoint, the beginning of one, all of it. */
static void whatever_a_recovery_leaves_behind_can_be_opened(void **state)
{
	bool made = false;

	for (unsigned int rounds = 0; !made; rounds = rounds * 2 + 1) {
		open_with_much_to_append_again();
		for (unsigned int i = 0; i < rounds; i++)
			shard_run_once(sb.sh);
		made = checkpoints() > 0;
		die(false, 0);
		sb_expect_all();
		sb_check();
		sb_close();
		assert_true(rounds < 1 << 20);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_checkpoint_begins_within_a_recovery),
		cmocka_unit_test(whatever_a_recovery_leaves_behind_can_be_opened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
