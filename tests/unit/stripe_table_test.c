/* SPDX-License-Identifier: BSD-3-Clause */
/* The stripe table by itself: its bound, and entries of different sizes that take each other's place. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/stripelog/log_priv.h"

enum { SLAB = 1 << 20, TOP = 50000 };

static struct frag_hdr hdr_of(unsigned int k, unsigned int m, uint64_t number)
{
	struct frag_hdr h = {.number = number,
		.len_bytes = 512,
		.geo = {.k = (uint8_t)k, .m = (uint8_t)m, .nblocks = k, .rows = 1}};

	for (unsigned int i = 0; i < k + m; i++)
		h.addr[i] = (struct frag_addr){
			.dev = (uint8_t)i, .segment = (uint32_t)number & 0xffff, .off = i * 512};
	return h;
}

static int add(struct table *t, unsigned int k, unsigned int m, uint64_t number, bool bounded,
	uint32_t *ref)
{
	struct frag_hdr h = hdr_of(k, m, number);

	return table_add(t, &h, k, bounded, ref);
}

static void expect_entry(
	struct table *t, uint32_t ref, unsigned int k, unsigned int m, uint64_t number)
{
	struct table_entry *e = table_get(t, ref);

	assert_non_null(e);
	assert_int_equal(e->k, k);
	assert_int_equal(e->m, m);
	assert_int_equal(e->number, number);
	for (unsigned int i = 0; i < k + m; i++) {
		struct frag_addr a = table_addr_of(e, i);

		assert_int_equal(a.dev, i);
		assert_int_equal(a.segment, number & 0xffff);
		assert_int_equal(a.off, i * 512);
	}
}

static void appends_stop_at_the_bound_and_a_scan_does_not(void **state)
{
	uint32_t ref, last = 0, extra;
	uint64_t n = 0;
	struct table *t;
	int rc;

	assert_int_equal(table_open(2 * SLAB, &t), 0);
	assert_int_equal(table_max_bytes(t), 2 * SLAB);
	while ((rc = add(t, 4, 2, n, true, &ref)) == 0) {
		last = ref;
		n++;
	}
	assert_int_equal(rc, -ENOSPC);
	assert_int_equal(n, 2 * SLAB / table_entry_bytes(6));
	assert_int_equal(table_used_bytes(t), 2 * SLAB);
	assert_int_equal(table_room(t), 0);
	assert_int_equal(add(t, 4, 2, n, false, &extra), 0);
	expect_entry(t, extra, 4, 2, n);
	assert_true(table_used_bytes(t) > table_max_bytes(t));
	/* One goes, one comes. */
	table_del(t, last);
	assert_int_equal(table_room(t) / table_entry_bytes(6) > 0, 1);
	assert_int_equal(add(t, 4, 2, 7, true, &ref), 0);
	assert_int_equal(ref, last);
	expect_entry(t, ref, 4, 2, 7);
	table_close(t);
}

static void the_least_bound_is_one_slab(void **state)
{
	struct table *t;
	uint32_t ref;

	assert_int_equal(table_open(1, &t), 0);
	assert_int_equal(table_max_bytes(t), SLAB);
	assert_int_equal(add(t, 1, 2, 1, true, &ref), 0);
	table_close(t);
}

static unsigned int seen;
static uint64_t seen_sum;

static void see(void *arg, uint32_t ref, struct table_entry *e)
{
	seen++;
	seen_sum += e->number;
}

/* Random entries of all sizes at the bound: every one keeps what was put into it, and the walk finds each once. */
static void entries_of_all_sizes_share_a_full_table(void **state)
{
	static struct {
		uint32_t ref;
		uint8_t k, m;
		uint64_t number;
	} is[TOP];
	uint64_t x = 88172645463325252ull, number = 1, sum = 0;
	unsigned int n = 0, refused = 0;
	struct table *t;

	assert_int_equal(table_open(SLAB, &t), 0);
	for (unsigned int step = 0; step < 200000; step++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		if (n && (x >> 8) % 16 < (refused ? 9u : 4u)) {
			unsigned int i = (unsigned int)((x >> 16) % n);

			expect_entry(t, is[i].ref, is[i].k, is[i].m, is[i].number);
			table_del(t, is[i].ref);
			is[i] = is[--n];
			continue;
		}
		is[n].k = (uint8_t)(1 + (x >> 20) % EC_K_MAX);
		is[n].m = (uint8_t)(1 + (x >> 40) % EC_M_MAX);
		is[n].number = number++;
		if (add(t, is[n].k, is[n].m, is[n].number, true, &is[n].ref) == 0) {
			assert_true(n < TOP - 1);
			n++;
		} else {
			refused++;
		}
		assert_true(table_bytes(t) < 2 * SLAB);
	}
	assert_true(refused > 0);
	for (unsigned int i = 0; i < n; i++) {
		expect_entry(t, is[i].ref, is[i].k, is[i].m, is[i].number);
		sum += is[i].number;
	}
	seen = 0;
	seen_sum = 0;
	table_each(t, see, NULL);
	assert_int_equal(seen, n);
	assert_int_equal(seen, table_entries(t));
	assert_int_equal(seen_sum, sum);
	table_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(appends_stop_at_the_bound_and_a_scan_does_not),
		cmocka_unit_test(the_least_bound_is_one_slab),
		cmocka_unit_test(entries_of_all_sizes_share_a_full_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
