/* SPDX-License-Identifier: BSD-3-Clause */
/* A VM's volumes move from one store to another while it writes. */
#include "tests/unit/transferbed.h"

#include <pthread.h>
#include <stdatomic.h>
#include <time.h>

enum { BLOCKS = 1024, SPAN = 1024 };

static const struct transfer_cfg usual = {.small_bytes = 1 << 20};

static void three_volumes(void)
{
	tb_volume("vm7/a", BLOCKS, 2 * BLOCKS, VOLUME_COPY, 4096);
	tb_volume("vm7/b", BLOCKS, 2 * BLOCKS, VOLUME_FRAGMENTS, 4096);
	tb_volume("vm7/c", BLOCKS, 2 * BLOCKS, VOLUME_COPY, 512);
	tb.running = true;
}

static bool some_writes(void)
{
	return tb.writes >= 600;
}

static void start(unsigned int mib1)
{
	tb_start(false, 48, mib1);
	three_volumes();
	tb_run_until(some_writes, TB_REQS, SPAN);
}

static void finish_bed(void)
{
	tb_drain();
	tb_expect_one_truth();
	tb_expect_contents();
	assert_int_equal(tb_notes(0) + tb_notes(1), 0);
	tb_check();
	tb_end();
}

static void a_vm_that_writes_moves_with_all_it_has(void **state)
{
	const struct transfer_status *st;

	start(48);
	tb_move_with(&usual);
	assert_int_equal(tb_finish(4, SPAN), TRANSFER_DONE);
	st = transfer_status(tb.t);
	assert_int_equal(st->state, TRANSFER_DONE);
	assert_int_equal(tb.where, 1);
	assert_int_equal(tb.pauses, 1 + tb.resumes);
	assert_int_equal(tb.switches, 1);
	assert_true(st->passes > 1 && st->copied_bytes > 3 << 20);
	tb_close_move();
	tb.writes = 0;
	tb_run_until(some_writes, TB_REQS, SPAN);
	/* And back again. */
	tb_drain();
	tb_expect_contents();
	assert_int_equal(tb_notes(0) + tb_notes(1), 0);
	tb_end();
}

static void an_idle_vm_moves_in_one_pass_and_back(void **state)
{
	start(48);
	tb_drain();
	for (unsigned int i = 0; i < 2; i++) {
		tb_move_with(&usual);
		assert_int_equal(tb_finish(0, SPAN), TRANSFER_DONE);
		assert_int_equal(transfer_status(tb.t)->passes, 2);
		tb_close_move();
		tb_expect_one_truth();
		tb_expect_contents();
	}
	assert_int_equal(tb.where, 0);
	finish_bed();
}

static void blocks_that_are_not_there_are_not_written(void **state)
{
	struct volume_stats st;

	tb_start(false, 48, 48);
	tb_volume("vm7/a", 64 << 10, 64 << 10, VOLUME_COPY, 4096);
	tb.running = true;
	tb_op(IO_WRITE, 0, IO_PLAIN, 0, 3);
	tb_op(IO_WRITE, 0, IO_PROTECT, 5, 3);
	tb_op(IO_WRITE, 0, IO_INTERMEDIATE, 40000, 3);
	tb_op(IO_TRIM, 0, IO_PLAIN, 1, 1);
	tb_move_with(&usual);
	assert_int_equal(tb_finish(0, SPAN), TRANSFER_DONE);
	volume_stats(tb.vols[0].v, &st);
	assert_int_equal(st.blocks[BLOCK_DATA], 2);
	assert_int_equal(st.blocks[BLOCK_DATA_LOG], 3);
	assert_int_equal(st.blocks[BLOCK_INTERMEDIATE], 3);
	assert_int_equal(st.writes[IO_PLAIN] + st.writes[IO_PROTECT], 0); /* not the VM's */
	assert_string_equal(pool_dev(store_pool(tb.side[1].store),
				    (unsigned int)volume_cfg(tb.vols[0].v)->data_dev)
				    ->name,
		"f1");
	assert_int_equal(volume_cfg(tb.vols[0].v)->scheme.k, 2);
	tb_close_move();
	finish_bed();
}

/* ---- it changes meanwhile ------------------------------------------------------------------------------------------ */

static bool is_copying(void)
{
	return transfer_status(tb.t)->state == TRANSFER_COPYING &&
	       transfer_status(tb.t)->copied_bytes > 0;
}

static void volumes_may_grow_and_change_on_the_way(void **state)
{
	struct tb_vol *x;

	start(48);
	tb_move_with(&usual);
	tb_run_until(is_copying, 2, SPAN);
	for (unsigned int i = 0; i < tb.nvols; i++) {
		x = &tb.vols[i];
		assert_int_equal(volume_grow(x->v, (BLOCKS + 500) * (uint64_t)TB_BLOCK, NULL), 0);
		x->nblocks = BLOCKS + 500;
	}
	assert_int_equal(volume_set_layout(tb.vols[0].v, VOLUME_FRAGMENTS, NULL), 0);
	assert_int_equal(volume_set_scheme(tb.vols[1].v, (struct ec_scheme){3, 2}, NULL), 0);
	assert_int_equal(tb_finish(2, BLOCKS + 500), TRANSFER_DONE);
	assert_int_equal(volume_cfg(tb.vols[0].v)->layout, VOLUME_FRAGMENTS);
	assert_int_equal(volume_cfg(tb.vols[1].v)->scheme.k, 3);
	tb_close_move();
	finish_bed();
}

static void a_volume_on_the_move_is_not_deleted(void **state)
{
	start(48);
	tb_drain();
	tb_move_with(&usual);
	assert_int_equal(volume_delete(tb.vols[0].v, NULL), -EBUSY);
	assert_int_equal(tb_finish(0, SPAN), TRANSFER_DONE);
	tb_close_move();
	finish_bed();
}

/* ---- it ends before the switch ----------------------------------------------------------------------------------------- */

static void expect_still_here(void)
{
	assert_int_equal(tb.where, 0);
	tb_close_move();
	tb.writes = 0;
	tb_run_until(some_writes, TB_REQS, SPAN);
	finish_bed();
}

static void a_cancelled_move_leaves_nothing_behind(void **state)
{
	static const enum transfer_state when[] = {TRANSFER_PREPARING, TRANSFER_COPYING,
		TRANSFER_STOPPING, TRANSFER_RESTING, TRANSFER_SWITCHING};

	for (unsigned int i = 0; i < ARRAY_LEN(when); i++) {
		bool tried = false;

		start(48);
		tb_move_with(&usual);
		while (!tb.ended) {
			if (!tried && transfer_status(tb.t)->state == when[i]) {
				tried = true;
				assert_int_equal(transfer_cancel(tb.t, NULL),
					when[i] == TRANSFER_SWITCHING ? -EBUSY : 0);
			}
			tb_work(3, SPAN);
			tb_round();
			tb_stopped();
		}
		assert_true(tried);
		assert_int_equal(transfer_cancel(tb.t, NULL), -EINVAL);
		if (when[i] == TRANSFER_SWITCHING) {
			assert_int_equal(transfer_status(tb.t)->state, TRANSFER_DONE);
			tb_close_move();
			finish_bed();
			continue;
		}
		assert_int_equal(transfer_status(tb.t)->state, TRANSFER_CANCELLED);
		assert_int_equal(tb.pauses, tb.resumes);
		expect_still_here();
	}
}

static void a_paused_move_does_nothing_until_it_goes_on(void **state)
{
	uint64_t was;

	start(48);
	tb_move_with(&usual);
	tb_run_until(is_copying, 2, SPAN);
	assert_int_equal(transfer_pause(tb.t, NULL), 0);
	assert_int_equal(transfer_pause(tb.t, NULL), -EINVAL);
	for (unsigned int i = 0; i < 3000; i++) {
		tb_work(2, SPAN);
		tb_round();
	}
	was = transfer_status(tb.t)->copied_bytes;
	for (unsigned int i = 0; i < 3000; i++) {
		tb_work(2, SPAN);
		tb_round();
	}
	assert_int_equal(transfer_status(tb.t)->copied_bytes, was);
	assert_int_equal(transfer_status(tb.t)->state, TRANSFER_PAUSED);
	assert_int_equal(transfer_resume(tb.t, NULL), 0);
	assert_int_equal(transfer_resume(tb.t, NULL), -EINVAL);
	assert_int_equal(tb_finish(2, SPAN), TRANSFER_DONE);
	tb_close_move();
	finish_bed();
}

static void a_full_destination_ends_it_and_nothing_is_lost(void **state)
{
	start(16);
	tb_move_with(&usual);
	assert_int_equal(tb_finish(2, SPAN), TRANSFER_FAILED);
	assert_non_null(strstr(transfer_status(tb.t)->text, "no room"));
	expect_still_here();
}

static void a_destination_without_the_flash_refuses(void **state)
{
	struct volume *v;

	start(48);
	fault_set_gone(tb.side[1].f[4], true);
	pool_dev_fail(store_pool(tb.side[1].store), 1); /* f4 */
	tb_move_with(&usual);
	assert_int_equal(tb_finish(2, SPAN), TRANSFER_FAILED);
	assert_non_null(strstr(transfer_status(tb.t)->text, "f4 cannot be used in shard 1"));
	v = volume_first(tb.side[1].store);
	assert_null(v);
	fault_set_gone(tb.side[1].f[4], false);
	tb_close_move();
	tb_drain();
	tb_expect_one_truth();
	tb_expect_contents();
	tb_end();
}

static void a_name_that_is_taken_refuses(void **state)
{
	struct volume_cfg c = {.name = "vm7/b", .size_bytes = 1 << 20, .intermediate_dev = 1};
	struct volume *v;

	start(48);
	assert_int_equal(volume_create(tb.side[1].store, &c, &v, NULL), 0);
	tb_move_with(&usual);
	assert_int_equal(tb_finish(2, SPAN), TRANSFER_FAILED);
	assert_non_null(strstr(transfer_status(tb.t)->text, "such a volume"));
	assert_ptr_equal(volume_first(tb.side[1].store), v);
	assert_int_equal(volume_delete(v, NULL), 0);
	expect_still_here();
}

static void a_switch_that_fails_leaves_the_vm_where_it_was(void **state)
{
	start(48);
	tb.refuse_switch = true;
	tb_move_with(&usual);
	assert_int_equal(tb_finish(2, SPAN), TRANSFER_FAILED);
	assert_non_null(strstr(transfer_status(tb.t)->text, "assignment"));
	assert_int_equal(tb.resumes, tb.pauses);
	expect_still_here();
}

static void a_vm_that_cannot_be_stopped_stays(void **state)
{
	start(48);
	tb.pause_rc = -ETIMEDOUT;
	tb_move_with(&usual);
	assert_int_equal(tb_finish(2, SPAN), TRANSFER_FAILED);
	assert_int_equal(tb.pauses, 3);
	assert_int_equal(tb.resumes, 0);
	assert_non_null(strstr(transfer_status(tb.t)->text, "could not be stopped"));
	expect_still_here();
}

/* ---- devices that fail --------------------------------------------------------------------------------------------------- */

static void a_block_that_cannot_be_read_is_named(void **state)
{
	struct volume *v;

	start(48);
	tb_op(IO_WRITE, 0, IO_PLAIN, 77, 1);
	v = tb.vols[0].v;
	fault_rule_add(
		tb.side[0].f[1], &(struct fault_rule){.op = FLASH_READ,
					 .off = area_off(v, area_piece(v, AREA_DATA, 77), 77),
					 .len = TB_BLOCK,
					 .per_million = 1000000,
					 .status = FLASH_ERR_MEDIA});
	tb_move_with(&usual);
	assert_int_equal(tb_finish(0, SPAN), TRANSFER_FAILED);
	assert_non_null(strstr(transfer_status(tb.t)->text, "vm7/a: block 77 cannot be read"));
	fault_rules_clear(tb.side[0].f[1]);
	expect_still_here();
}

static void protected_blocks_move_although_a_device_fails(void **state)
{
	tb_start(false, 48, 48);
	tb_volume("vm7/a", BLOCKS, BLOCKS, VOLUME_FRAGMENTS, 4096);
	tb.running = true;
	for (uint64_t b = 0; b < BLOCKS; b += 32)
		tb_op(IO_WRITE, 0, IO_PROTECT, b, 32);
	tb_move_with(&usual);
	tb_run_until(is_copying, 0, SPAN);
	fault_set_gone(tb.side[0].f[2], true);
	pool_dev_fail(store_pool(tb.side[0].store), 2);
	fault_set_gone(tb.side[1].f[3], true);
	pool_dev_fail(store_pool(tb.side[1].store), 2);
	assert_int_equal(tb_finish(0, SPAN), TRANSFER_DONE);
	tb_close_move();
	tb_expect_one_truth();
	tb_expect_contents();
	fault_set_gone(tb.side[0].f[2], false);
	fault_set_gone(tb.side[1].f[3], false);
	tb_end();
}

static void a_destination_that_dies_leaves_the_vm_alone(void **state)
{
	start(48);
	tb_move_with(&usual);
	tb_run_until(is_copying, 2, SPAN);
	for (unsigned int d = 0; d < TB_DEVS; d++) {
		fault_set_gone(tb.side[1].f[d], true);
		pool_dev_fail(store_pool(tb.side[1].store), TB_DEVS - 1 - d);
	}
	assert_int_equal(tb_finish(2, SPAN), TRANSFER_FAILED);
	assert_int_equal(tb.where, 0);
	tb_close_move();
	tb.writes = 0;
	tb_run_until(some_writes, TB_REQS, SPAN);
	tb_drain();
	tb_attach();
	tb_expect_contents();
	tb_end();
}

/* ---- it does not get less ---------------------------------------------------------------------------------------------------- */

static void a_vm_that_writes_without_end_is_paused_for_the_rest(void **state)
{
	static const struct transfer_cfg hard = {.small_bytes = 1};

	start(48);
	tb_move_with(&hard);
	assert_int_equal(tb_finish(TB_REQS, SPAN), TRANSFER_DONE);
	assert_true(transfer_status(tb.t)->passes > 3);
	assert_true(transfer_status(tb.t)->paused_ns > 0);
	tb_close_move();
	finish_bed();
}

/* The destination takes longer for the rest than a VM may stand still. */
static void a_rest_that_takes_too_long_lets_the_vm_go_on(void **state)
{
	static const struct transfer_cfg brief = {.small_bytes = 64 << 20, .pause_max_ms = 20};

	start(48);
	tb_drain();
	for (unsigned int d = 0; d < TB_DEVS; d++)
		fault_rule_add(tb.side[1].f[d],
			&(struct fault_rule){
				.op = FLASH_WRITE, .per_million = 1000000, .delay_ns = 30000000});
	tb_move_with(&brief);
	assert_int_equal(tb_finish(TB_REQS, SPAN), TRANSFER_FAILED);
	assert_int_equal(tb.pauses, 3);
	assert_int_equal(tb.resumes, 3);
	assert_non_null(strstr(transfer_status(tb.t)->text, "in 20 ms, 3 times"));
	for (unsigned int d = 0; d < TB_DEVS; d++)
		fault_rules_clear(tb.side[1].f[d]);
	expect_still_here();
}

/* ---- limits ---------------------------------------------------------------------------------------------------------------------- */

static void passes_keep_to_the_movers_ceiling(void **state)
{
	struct mover_limits slow = {.share_percent = 10, .ceiling_bytes_per_s = 4 << 20};
	uint64_t began;

	start(48);
	tb_drain();
	assert_int_equal(mover_set_limits(tb.side[0].m, &slow, NULL), 0);
	began = shard_now_ns(tb.side[0].sh);
	tb_move_with(&usual);
	assert_int_equal(tb_finish(0, SPAN), TRANSFER_DONE);
	assert_true(transfer_status(tb.t)->copied_bytes > 8 << 20);
	assert_true(shard_now_ns(tb.side[0].sh) - began > 1000000000ull); /* virtual */
	tb_close_move();
	finish_bed();
}

static atomic_bool closed;

static void *other_shard(void *arg)
{
	while (!closed)
		if (!shard_run_once(tb.side[1].sh))
			nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	return NULL;
}

static void it_may_be_left_in_the_middle(void **state)
{
	struct transfer_settled out;
	pthread_t thread;

	start(48);
	tb_move_with(&usual);
	tb_run_until(is_copying, 2, SPAN);
	tb_drain();
	assert_int_equal(transfer_pause(tb.t, NULL), 0);
	for (unsigned int i = 0; i < 3000; i++)
		tb_round();
	closed = false;
	assert_int_equal(pthread_create(&thread, NULL, other_shard, NULL), 0);
	tb_close_move();
	closed = true;
	pthread_join(thread, NULL);
	assert_int_equal(tb_notes(0), 3);
	assert_int_equal(tb_notes(1), 3);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(
			transfer_settle(tb.side[i].store, i, tb_shard_of, NULL, &out, NULL), 0);
	assert_int_equal(out.deleted, 3);
	finish_bed();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_vm_that_writes_moves_with_all_it_has),
		cmocka_unit_test(an_idle_vm_moves_in_one_pass_and_back),
		cmocka_unit_test(blocks_that_are_not_there_are_not_written),
		cmocka_unit_test(volumes_may_grow_and_change_on_the_way),
		cmocka_unit_test(a_volume_on_the_move_is_not_deleted),
		cmocka_unit_test(a_cancelled_move_leaves_nothing_behind),
		cmocka_unit_test(a_paused_move_does_nothing_until_it_goes_on),
		cmocka_unit_test(a_full_destination_ends_it_and_nothing_is_lost),
		cmocka_unit_test(a_destination_without_the_flash_refuses),
		cmocka_unit_test(a_name_that_is_taken_refuses),
		cmocka_unit_test(a_switch_that_fails_leaves_the_vm_where_it_was),
		cmocka_unit_test(a_vm_that_cannot_be_stopped_stays),
		cmocka_unit_test(a_block_that_cannot_be_read_is_named),
		cmocka_unit_test(protected_blocks_move_although_a_device_fails),
		cmocka_unit_test(a_destination_that_dies_leaves_the_vm_alone),
		cmocka_unit_test(a_vm_that_writes_without_end_is_paused_for_the_rest),
		cmocka_unit_test(a_rest_that_takes_too_long_lets_the_vm_go_on),
		cmocka_unit_test(passes_keep_to_the_movers_ceiling),
		cmocka_unit_test(it_may_be_left_in_the_middle),
	};

	return cmocka_run_group_tests_name("transfer", tests, NULL, NULL);
}
