/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/map.h"

static uint32_t seed;

static int any(void)
{
	seed = seed * 1664525u + 1013904223u;
	return (int)(seed >> 8);
}

enum { BLOCKS = 5000 };

static uint64_t put_total;
static uint32_t put_by_ref[64];

static void put(void *arg, uint32_t ref, uint32_t nblocks)
{
	put_total += nblocks;
	put_by_ref[ref] += nblocks;
}

static void set(struct map *m, uint64_t block, struct map_entry e)
{
	struct map_pin pin;

	assert_int_equal(map_pin(m, block, 1, MAP_WRITE, &pin), 1);
	map_set(m, block, &e);
	map_unpin(m, &pin);
}

static void blocks_never_written_are_unmapped_and_cost_no_page(void **state)
{
	struct map_mem *mm;
	struct map *m;

	assert_int_equal(map_mem_open(8 << 20, &mm), 0);
	assert_int_equal(map_open(mm, 1ull << 30, &m), 0);
	assert_int_equal(map_state(m, 0), BLOCK_UNMAPPED);
	assert_int_equal(map_state(m, (1ull << 30) - 1), BLOCK_UNMAPPED);
	assert_int_equal(map_mem_used(mm), 0);
	assert_int_equal(map_count(m, BLOCK_UNMAPPED), 1ull << 30);
	assert_false(map_any_used(m, 0, 1ull << 30));
	map_set_zero(m, 0, 1ull << 30, put, NULL);
	assert_int_equal(map_mem_used(mm), 0);
	map_close(m);
	map_mem_close(mm);
}

/* Random changes, trims and reads against a plain array. */
static void the_map_agrees_with_a_plain_array(void **state)
{
	struct map_entry *ref = calloc(BLOCKS, sizeof(*ref)), e;
	uint64_t n, first, expect_put = 0, counts[MAP_STATES];
	uint32_t by_ref[64] = {0};
	struct map_mem *mm;
	struct map *m;

	seed = 11;
	put_total = 0;
	memset(put_by_ref, 0, sizeof(put_by_ref));
	assert_int_equal(map_mem_open(8 << 20, &mm), 0);
	assert_int_equal(map_open(mm, BLOCKS, &m), 0);
	for (int step = 0; step < 20000; step++) {
		first = (uint64_t)(any() % BLOCKS);
		if (any() % 20) {
			e = (struct map_entry){.crc = (uint32_t)any(),
				.ref = any() % 64,
				.pos = any() % (MAP_POS_MAX + 1),
				.state = BLOCK_ZERO + any() % 5};
			set(m, first, e);
			ref[first] = e;
			continue;
		}
		n = 1 + (uint64_t)(any() % 1600);
		n = MIN(n, BLOCKS - first);
		for (uint64_t b = first; b < first + n; b++) {
			if (map_in_log(ref[b].state)) {
				expect_put++;
				by_ref[ref[b].ref]++;
			}
			if (ref[b].state != BLOCK_UNMAPPED)
				ref[b] = (struct map_entry){.state = BLOCK_ZERO};
		}
		map_set_zero(m, first, n, put, NULL);
		assert_false(map_any_used(m, first, n));
	}
	assert_int_equal(put_total, expect_put);
	assert_memory_equal(put_by_ref, by_ref, sizeof(by_ref));
	memset(counts, 0, sizeof(counts));
	for (uint64_t b = 0; b < BLOCKS; b++) {
		e = map_get(m, b);
		counts[e.state]++;
		assert_int_equal(e.state, map_state(m, b));
		/* Zero and unmapped both mean: nothing here. A page trimmed as a whole forgets the difference. */
		if (ref[b].state <= BLOCK_ZERO) {
			assert_true(e.state <= BLOCK_ZERO);
			continue;
		}
		assert_int_equal(e.state, ref[b].state);
		assert_int_equal(e.crc, ref[b].crc);
		assert_int_equal(e.ref, ref[b].ref);
		assert_int_equal(e.pos, ref[b].pos);
		assert_true(map_any_used(m, b, 1));
	}
	for (unsigned int s = 0; s < MAP_STATES; s++)
		assert_int_equal(map_count(m, s), counts[s]);
	map_recount(m);
	for (unsigned int s = 0; s < MAP_STATES; s++)
		assert_int_equal(map_count(m, s), counts[s]);
	map_close(m);
	assert_int_equal(map_mem_used(mm), 0);
	map_mem_close(mm);
	free(ref);
}

static void a_grown_map_keeps_what_it_had(void **state)
{
	struct map_entry e = {.state = BLOCK_LOG, .ref = 5, .pos = MAP_POS_MAX, .crc = 77};
	struct map_mem *mm;
	struct map *m;

	assert_int_equal(map_mem_open(8 << 20, &mm), 0);
	assert_int_equal(map_open(mm, 100, &m), 0);
	set(m, 99, e);
	assert_int_equal(map_grow(m, 1ull << 26), 0);
	assert_int_equal(map_nblocks(m), 1ull << 26);
	assert_int_equal(map_get(m, 99).ref, 5);
	assert_int_equal(map_get(m, 99).pos, MAP_POS_MAX);
	set(m, (1ull << 26) - 1, e);
	assert_int_equal(map_count(m, BLOCK_LOG), 2);
	assert_int_equal(map_grow(m, MAP_BLOCKS_MAX + 1), -EFBIG);
	map_close(m);
	map_mem_close(mm);
}

static void a_write_over_the_budget_is_refused_and_a_trim_makes_room(void **state)
{
	struct map_mem *mm;
	struct map_pin pin;
	struct map *m;
	uint64_t b = 0;
	int rc;

	assert_int_equal(map_mem_open(1, &mm), 0);
	assert_int_equal(map_open(mm, 1ull << 26, &m), 0);
	while ((rc = map_pin(m, b, 1, MAP_WRITE, &pin)) == 1)
		b += MAP_PAGE_BLOCKS;
	assert_int_equal(rc, -ENOSPC);
	assert_true(map_mem_used(mm) <= 2 << 20);
	assert_int_equal(map_pin(m, 0, 1, MAP_WRITE, &pin), 1);
	map_set_zero(m, 0, MAP_PAGE_BLOCKS, put, NULL);
	assert_int_equal(map_pin(m, b, 1, MAP_WRITE, &pin), 1);
	map_close(m);
	map_mem_close(mm);
}

static void a_full_map_costs_ten_bytes_a_block(void **state)
{
	struct map_mem *mm;
	struct map_pin pin;
	struct map *m;
	uint64_t n = 1 << 20;

	assert_int_equal(map_mem_open(64 << 20, &mm), 0);
	assert_int_equal(map_open(mm, n, &m), 0);
	assert_int_equal(map_pin(m, 0, n, MAP_WRITE, &pin), 1);
	assert_in_range(map_bytes(m), n * 10, n * 1005 / 100 * 10);
	map_close(m);
	map_mem_close(mm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocks_never_written_are_unmapped_and_cost_no_page),
		cmocka_unit_test(the_map_agrees_with_a_plain_array),
		cmocka_unit_test(a_grown_map_keeps_what_it_had),
		cmocka_unit_test(a_write_over_the_budget_is_refused_and_a_trim_makes_room),
		cmocka_unit_test(a_full_map_costs_ten_bytes_a_block),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
