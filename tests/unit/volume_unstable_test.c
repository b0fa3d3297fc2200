/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes out of memory that a VM changes while they are under way: whatever is stored is one thing everywhere, and reads back. */
#include "tests/unit/storebed.h"

#include "dpu/stripelog/stripelog.h"
#include "dpu/volume/store_priv.h"

enum { BLOCKS = 16 };

static void begin(unsigned int vol, enum io_outcome how, uint64_t off, struct iovec *iov, int niov,
	struct io_req *r)
{
	*r = (struct io_req){.op = IO_WRITE,
		.off_bytes = off,
		.len_bytes = io_iov_bytes(iov, (uint32_t)niov),
		.iov = iov,
		.niov = (uint16_t)niov,
		.stable = false,
		.outcome = how,
		.done_fn = sb_done};
	sb.ended = 0;
	assert_int_equal(volume_submit(sb.vols[vol].v, r), 0);
}

static void finish(struct io_req *r)
{
	assert_int_equal(shard_wait(sb.sh, sb_has_ended, NULL, 60ull * 1000000000ull), 0);
	assert_int_equal(r->status, IO_OK);
}

/* Each block is what was there before the change or after it; all of it, as nobody changes half of one here. */
static void expect_either(unsigned int vol, unsigned int n, uint8_t before, uint8_t after)
{
	assert_int_equal(sb_read(vol, 0, n), IO_OK);
	for (unsigned int i = 0; i < n; i++) {
		uint8_t first = sb.in[i * SB_BLOCK];

		assert_true(first == before || first == after);
		for (unsigned int k = 0; k < SB_BLOCK; k++)
			assert_int_equal(sb.in[i * SB_BLOCK + k], first);
	}
}

static void change_under_way(unsigned int vol, enum io_outcome how)
{
	struct store_check c = {0};
	struct volume_stats st;
	struct io_req r;

	/* One that lies whole in its block, and one in pieces across their borders. */
	for (int pieces = 1; pieces <= 2; pieces++) {
		struct iovec iov[2] = {{sb.out, BLOCKS * SB_BLOCK}, {0}};

		if (pieces == 2) {
			iov[0].iov_len = 2 * SB_BLOCK + 512;
			iov[1] = (struct iovec){
				sb.out + iov[0].iov_len, BLOCKS * SB_BLOCK - iov[0].iov_len};
		}
		memset(sb.out, 0x11, BLOCKS * SB_BLOCK);
		begin(vol, how, 0, iov, pieces, &r);
		memset(sb.out, 0x22, BLOCKS * SB_BLOCK);
		finish(&r);
		expect_either(vol, BLOCKS, 0x11, 0x22);
		for (int i = 0; i < 50; i++)
			shard_run_once(sb.sh);
	}
	/* Data area, log and CRCs agree: a read found nothing to put right. */
	volume_stats(sb.vols[vol].v, &st);
	assert_int_equal(st.repaired, 0);
	assert_int_equal(
		store_check(sb.store, &(struct store_check_cfg){.deep = true}, &c, NULL), 0);
	assert_int_equal(c.problems, 0);
	assert_int_equal(c.unreadable_blocks, 0);
}

static void all_ways(bool bare)
{
	unsigned int fragments, copy;

	sb_open(&(struct sb_cfg){.ndevs = 7, .k = 4, .m = 2, .bare = bare});
	assert_int_equal(stripelog_reads_once(sb.store->log), bare);
	fragments = sb_volume("fragments", 64, VOLUME_FRAGMENTS, 0);
	copy = sb_volume("copy", 64, VOLUME_COPY, 0);
	change_under_way(fragments, IO_PROTECT);
	change_under_way(copy, IO_PROTECT);
	change_under_way(copy, IO_PLAIN);
	change_under_way(copy, IO_INTERMEDIATE);
	sb_reopen(0);
	expect_either(fragments, BLOCKS, 0x11, 0x22);
	sb_close();
}

static void memory_that_changes_under_a_write_is_stored_as_one_thing(void **state)
{
	all_ways(false);
}

static void so_it_is_where_the_log_reads_it_in_place(void **state)
{
	all_ways(true);
}

/* The fragments carry it, not only what was read: with any two devices away the decoded data has the right CRC. */
static void they_decode(bool bare)
{
	struct iovec iov;
	struct io_req r;
	unsigned int v;

	sb_open(&(struct sb_cfg){.ndevs = 7, .k = 4, .m = 2, .bare = bare});
	v = sb_volume("a", 64, VOLUME_FRAGMENTS, 0);
	iov = (struct iovec){sb.out, BLOCKS * SB_BLOCK};
	memset(sb.out, 0x11, BLOCKS * SB_BLOCK);
	begin(v, IO_PROTECT, 0, &iov, 1, &r);
	memset(sb.out, 0x22, BLOCKS * SB_BLOCK);
	finish(&r);
	for (unsigned int i = 1; i + 1 < 7; i++) {
		sb_reopen(3ull << i);
		expect_either(v, BLOCKS, 0x11, 0x22);
	}
	sb_close();
}

static void fragments_of_memory_that_changed_decode(void **state)
{
	they_decode(true);
}

static void so_do_fragments_that_the_devices_write_later(void **state)
{
	they_decode(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_that_changes_under_a_write_is_stored_as_one_thing),
		cmocka_unit_test(so_it_is_where_the_log_reads_it_in_place),
		cmocka_unit_test(fragments_of_memory_that_changed_decode),
		cmocka_unit_test(so_do_fragments_that_the_devices_write_later),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
