/* SPDX-License-Identifier: BSD-3-Clause */
/* What is written to a volume while somebody copies it. */
#include "tests/unit/storebed.h"

#include "dpu/volume/lock.h"
#include "dpu/volume/move.h"
#include "dpu/volume/store_priv.h"
#include "dpu/volume/track.h"

enum { PIECE = 16 }; /* blocks of a mark */

static void open_bed(uint64_t nblocks)
{
	sb_open(&(struct sb_cfg){.ndevs = 5, .k = 2, .m = 1, .dev_mib = 48});
	sb_volume("a", nblocks, VOLUME_COPY, 0);
	assert_int_equal(volume_track_start(sb.vols[0].v), 0);
	assert_int_equal(volume_track_start(sb.vols[0].v), -EBUSY);
}

static void expect_marks(const char *want)
{
	struct volume *v = sb.vols[0].v;
	uint64_t cursor = 0, block, n;
	char got[256] = "";

	while ((n = volume_track_take(v, &cursor, UINT64_MAX, UINT64_MAX, &block)))
		snprintf(got + strlen(got), sizeof(got) - strlen(got), "%llu+%llu ",
			(unsigned long long)block, (unsigned long long)n);
	assert_string_equal(got, want);
	assert_int_equal(volume_track_bytes(v), 0);
}

static enum io_status zero(enum io_op op, uint64_t off, uint64_t len)
{
	return sb_run(sb.vols[0].v,
		&(struct io_req){.op = op, .off_bytes = off, .len_bytes = len, .stable = true});
}

static void every_kind_of_change_is_marked_and_nothing_else(void **state)
{
	open_bed(1000);
	expect_marks("");
	for (unsigned int how = 0; how < 3; how++) {
		assert_int_equal(sb_write(0, (enum io_outcome)how, 15, 2), IO_OK);
		expect_marks("0+32 ");
	}
	assert_int_equal(zero(IO_TRIM, 64 * SB_BLOCK, 100 * SB_BLOCK), IO_OK);
	expect_marks("64+112 ");
	assert_int_equal(zero(IO_WRITE_ZEROES, 999 * SB_BLOCK, SB_BLOCK), IO_OK);
	expect_marks("992+8 ");
	sb_read(0, 0, 64);
	assert_int_equal(sb_run(sb.vols[0].v, &(struct io_req){.op = IO_FLUSH}), IO_OK);
	expect_marks("");
	sb_close();
}

static void a_write_of_a_part_of_a_block_is_marked(void **state)
{
	struct iovec iov = {.iov_len = 512};
	struct volume_cfg c = {
		.name = "s", .size_bytes = 1 << 20, .block_bytes = 512, .intermediate_dev = 1};

	open_bed(64);
	assert_int_equal(volume_create(sb.store, &c, &sb.vols[0].v, NULL), 0);
	assert_int_equal(volume_track_start(sb.vols[0].v), 0);
	iov.iov_base = sb.out;
	assert_int_equal(sb_run(sb.vols[0].v, &(struct io_req){.op = IO_WRITE,
						      .off_bytes = 33 * SB_BLOCK - 512,
						      .len_bytes = 512,
						      .iov = &iov,
						      .niov = 1,
						      .outcome = IO_PROTECT}),
		IO_OK);
	expect_marks("32+16 ");
	sb_close();
}

static void what_is_in_flight_at_the_start_is_marked_when_it_ends(void **state)
{
	struct io_req r = {.op = IO_WRITE,
		.off_bytes = 0,
		.len_bytes = SB_BLOCK,
		.stable = true,
		.done_fn = sb_done};
	struct iovec iov;

	open_bed(64);
	volume_track_stop(sb.vols[0].v);
	iov = (struct iovec){sb.out, SB_BLOCK};
	r.iov = &iov;
	r.niov = 1;
	sb.ended = 0;
	assert_int_equal(volume_submit(sb.vols[0].v, &r), 0);
	assert_int_equal(volume_track_start(sb.vols[0].v), 0);
	expect_marks("");
	assert_int_equal(shard_wait(sb.sh, sb_has_ended, NULL, 0), 0);
	expect_marks("0+16 ");
	sb_close();
}

static void a_write_that_fails_half_way_is_marked(void **state)
{
	open_bed(64);
	assert_int_equal(sb_write(0, IO_PLAIN, 0, 64), IO_OK);
	expect_marks("0+64 ");
	fault_rule_add(sb.f[0],
		&(struct fault_rule){
			.op = FLASH_WRITE, .per_million = 1000000, .status = FLASH_ERR_MEDIA});
	assert_int_equal(sb_write(0, IO_PLAIN, 20, 8), IO_ERR_MEDIA);
	expect_marks("16+16 ");
	fault_rules_clear(sb.f[0]);
	sb_close();
}

static void batch_done(void *arg, struct move_batch *b)
{
	*(bool *)arg = true;
}

static bool is_true(void *arg)
{
	return *(bool *)arg;
}

static void movers_mark_what_changes_its_kind(void **state)
{
	bool done = false;
	struct move_batch *b;
	struct volume *v;

	open_bed(128);
	v = sb.vols[0].v;
	assert_int_equal(sb_write(0, IO_PLAIN, 0, 8), IO_OK);
	assert_int_equal(sb_write(0, IO_PROTECT, 64, 8), IO_OK);
	expect_marks("0+16 64+16 ");
	assert_int_equal(move_batch_open(sb.store, 0, &b), 0);
	move_batch_reset(b, &(struct move_cfg){.kind = MOVE_TO_LOG});
	assert_int_equal(move_add(b, v, 0, 8, MOVE_ANY_REF), 8);
	assert_int_equal(move_add(b, v, 64, 8, MOVE_ANY_REF), 8);
	assert_int_equal(move_batch_start(b, batch_done, &done), 0);
	assert_int_equal(shard_wait(sb.sh, is_true, &done, 0), 0);
	assert_int_equal(move_batch_items(b)[15].result, MOVE_MOVED);
	expect_marks("0+16 ");
	move_batch_close(b);
	sb_expect_all();
	sb_close();
}

static void runs_are_taken_in_order_as_long_as_asked_for(void **state)
{
	struct volume *v;
	uint64_t cursor = 0, block = 0;

	open_bed(1000);
	v = sb.vols[0].v;
	volume_track_mark(v, 0, 100);
	volume_track_mark(v, 500, 1);
	assert_int_equal(volume_track_bytes(v), 8 * 65536);
	assert_int_equal(volume_track_take(v, &cursor, 1000, 32, &block), 32);
	assert_int_equal(block, 0);
	volume_track_mark(v, 3, 1); /* behind the cursor: the next pass */
	assert_int_equal(volume_track_take(v, &cursor, 1000, 1, &block), PIECE);
	assert_int_equal(block, 32);
	/* An end in the middle of a piece: what is beyond is marked still. */
	assert_int_equal(volume_track_take(v, &cursor, 105, 1000, &block), 57);
	assert_int_equal(block, 48);
	assert_int_equal(volume_track_take(v, &cursor, 105, 1000, &block), 0);
	volume_track_clear(v, 96, 17);
	expect_marks("0+16 496+16 ");
	volume_track_mark(v, 999, 1);
	volume_track_clear(v, 990, 10);
	expect_marks("");
	sb_close();
}

static void a_volume_that_grows_is_tracked_to_its_new_end(void **state)
{
	struct volume *v;

	open_bed(1000);
	v = sb.vols[0].v;
	volume_track_mark(v, 999, 1);
	volume_track_mark(v, 10, 1);
	assert_int_equal(volume_grow(v, 8ull << 30, NULL), 0);
	assert_int_equal(sb_run(v, &(struct io_req){.op = IO_TRIM,
					   .off_bytes = 4ull << 30,
					   .len_bytes = SB_BLOCK}),
		IO_OK);
	expect_marks("0+16 992+16 1048576+16 ");
	/* Beyond 2 TiB the pieces are larger. */
	volume_track_mark(v, 1048576, 1);
	volume_track_mark(v, 40, 1);
	assert_int_equal(volume_grow(v, 8ull << 40, NULL), 0);
	volume_track_mark(v, (8ull << 28) - 1, 1);
	expect_marks("0+64 1048576+64 2147483584+64 ");
	sb_close();
}

static void coarser_pieces_are_not_taken_twice_in_a_pass(void **state)
{
	uint64_t cursor = 0, block;
	struct volume *v;

	open_bed(1000);
	v = sb.vols[0].v;
	volume_track_mark(v, 0, 1);
	assert_int_equal(volume_track_take(v, &cursor, 1000, 16, &block), 16);
	volume_track_mark(v, 16, 1);
	assert_int_equal(volume_grow(v, 8ull << 40, NULL), 0);
	assert_int_equal(volume_track_take(v, &cursor, UINT64_MAX, 64, &block), 0);
	expect_marks("0+64 ");
	sb_close();
}

static void a_tracked_volume_is_not_deleted(void **state)
{
	struct err e = {0};

	open_bed(64);
	assert_int_equal(volume_delete(sb.vols[0].v, &e), -EBUSY);
	assert_non_null(strstr(e.reason, "copied"));
	volume_track_stop(sb.vols[0].v);
	assert_int_equal(volume_delete(sb.vols[0].v, &e), 0);
	sb_close();
}

static void the_kinds_of_blocks_are_what_they_were_written_as(void **state)
{
	uint8_t k[64];

	open_bed(64);
	assert_int_equal(sb_write(0, IO_PLAIN, 0, 8), IO_OK);
	assert_int_equal(sb_write(0, IO_INTERMEDIATE, 8, 8), IO_OK);
	assert_int_equal(sb_write(0, IO_PROTECT, 16, 8), IO_OK);
	assert_int_equal(zero(IO_TRIM, 4 * SB_BLOCK, SB_BLOCK), IO_OK);
	assert_int_equal(volume_kinds(sb.vols[0].v, 2, 64, k), 62);
	for (unsigned int i = 0; i < 62; i++)
		assert_int_equal(k[i], i == 2   ? KIND_NOTHING
				       : i < 6  ? KIND_PLAIN
				       : i < 14 ? KIND_INTERMEDIATE
				       : i < 22 ? KIND_PROTECT
						: KIND_NOTHING);
	sb_close();
}

static void what_is_copied_in_the_background_counts_as_no_foreground(void **state)
{
	struct iovec iov;
	struct io_req r = {.op = IO_READ,
		.flags = IO_BACKGROUND,
		.len_bytes = SB_BLOCK,
		.iov = &iov,
		.niov = 1,
		.done_fn = sb_done};
	uint64_t was, bytes;
	uint32_t flying;

	open_bed(64);
	iov = (struct iovec){sb.in, SB_BLOCK};
	assert_int_equal(sb_write(0, IO_PROTECT, 0, 1), IO_OK);
	store_foreground(sb.store, &was, &flying);
	assert_true(was > 0);
	sb.ended = 0;
	assert_int_equal(volume_submit(sb.vols[0].v, &r), 0);
	store_foreground(sb.store, &bytes, &flying);
	assert_int_equal(flying, 0);
	assert_int_equal(sb.store->in_flight, 1);
	assert_int_equal(shard_wait(sb.sh, sb_has_ended, NULL, 0), 0);
	store_foreground(sb.store, &bytes, &flying);
	assert_int_equal(bytes, was);
	assert_int_equal(flying, 0);
	sb_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_kind_of_change_is_marked_and_nothing_else),
		cmocka_unit_test(a_write_of_a_part_of_a_block_is_marked),
		cmocka_unit_test(what_is_in_flight_at_the_start_is_marked_when_it_ends),
		cmocka_unit_test(a_write_that_fails_half_way_is_marked),
		cmocka_unit_test(movers_mark_what_changes_its_kind),
		cmocka_unit_test(runs_are_taken_in_order_as_long_as_asked_for),
		cmocka_unit_test(a_volume_that_grows_is_tracked_to_its_new_end),
		cmocka_unit_test(coarser_pieces_are_not_taken_twice_in_a_pass),
		cmocka_unit_test(a_tracked_volume_is_not_deleted),
		cmocka_unit_test(the_kinds_of_blocks_are_what_they_were_written_as),
		cmocka_unit_test(what_is_copied_in_the_background_counts_as_no_foreground),
	};

	return cmocka_run_group_tests_name("track", tests, NULL, NULL);
}
