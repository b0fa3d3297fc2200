/* SPDX-License-Identifier: BSD-3-Clause */
/* Classes, percentiles and differences of histograms. */
#include "common/base/hist.h"
#include "common/base/util.h"

#include <stdlib.h>
#include <string.h>

static void every_value_falls_into_a_class_that_is_at_most_a_sixteenth_wide(void **state)
{
	uint64_t x = 88172645463325252ull;

	for (int i = 0; i < 100000; i++) {
		uint64_t v, top;

		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		v = x >> (24 + x % 40); /* below 2^40 */
		top = hist_class_top(hist_class(v));
		assert_true(v <= top);
		assert_true(top - v <= v / 16);
	}
	for (unsigned int c = 0; c < HIST_CLASSES - 1; c++) {
		assert_int_equal(hist_class(hist_class_top(c)), c);
		assert_int_equal(hist_class(hist_class_top(c) + 1), c + 1);
	}
	assert_int_equal(hist_class(UINT64_MAX), HIST_CLASSES - 1);
}

static void percentiles_are_those_of_the_sorted_values(void **state)
{
	struct hist h = {.count = 0};

	assert_int_equal(hist_at(&h, 500), 0);
	for (uint64_t v = 1; v <= 1000; v++)
		hist_add(&h, v * 1000);
	assert_in_range(hist_at(&h, 500), 500000, 532000);
	assert_in_range(hist_at(&h, 990), 990000, 1000000);
	assert_int_equal(hist_at(&h, 1000), 1000000);
	assert_int_equal(h.sum, 500500000);
	hist_add(&h, 1ull << 50);
	assert_int_equal(hist_at(&h, 1000), 1ull << 50);
}

static void two_merged_are_as_if_one_had_counted_all(void **state)
{
	struct hist a = {.count = 0}, b = {.count = 0}, both = {.count = 0};

	for (uint64_t v = 0; v < 5000; v++) {
		hist_add(v % 3 ? &a : &b, v * v);
		hist_add(&both, v * v);
	}
	hist_merge(&a, &b);
	assert_memory_equal(&a, &both, sizeof(a));
}

static void a_difference_is_what_came_in_between(void **state)
{
	struct hist now = {.count = 0}, then, d;

	for (uint64_t v = 0; v < 1000; v++)
		hist_add(&now, 50000000); /* a bad time, long ago */
	then = now;
	for (uint64_t v = 1; v <= 100; v++)
		hist_add(&now, v * 10);
	hist_since(&now, &then, &d);
	assert_int_equal(d.count, 100);
	assert_int_equal(d.sum, 50500);
	assert_in_range(d.max, 1000, 1063);
	assert_in_range(hist_at(&d, 500), 500, 532);
	hist_since(&now, &now, &d);
	assert_int_equal(d.count + d.sum + d.max + hist_at(&d, 990), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_value_falls_into_a_class_that_is_at_most_a_sixteenth_wide),
		cmocka_unit_test(percentiles_are_those_of_the_sorted_values),
		cmocka_unit_test(two_merged_are_as_if_one_had_counted_all),
		cmocka_unit_test(a_difference_is_what_came_in_between),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
