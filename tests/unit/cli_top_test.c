/* SPDX-License-Identifier: BSD-3-Clause */
/* Two answers of a card, subtracted and shown. */
#include "common/base/hist.h"
#include "common/base/util.h"
#include "host-agent/cli/top.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A card that has served `n` reads of 100 us and `n` writes of 1 ms of VM a, in as many tenths of a millisecond. */
static json_t *answer(const char *boot, long long ms, int n, const char *name)
{
	json_t *a = json_pack("{s:s, s:I, s:s, s:I, s:I, s:i, s:I}", "boot_id", boot, "time_ns",
		(json_int_t)(ms * 1000000), "node", "n1", "user_bytes", (json_int_t)n * 4096,
		"device_bytes", (json_int_t)n * 4096 * 3 / 2, "batch_blocks_max", 128,
		"window_bytes", (json_int_t)1048576);
	json_t *read = json_pack("{s:[i], s:[i], s:i, s:i}", "classes", hist_class(100000),
		"counts", n, "sum", n * 100000, "max", 100000);
	json_t *write = json_pack("{s:[i], s:[i], s:i, s:i}", "classes", hist_class(1000000),
		"counts", n, "sum", n * 1000000, "max", 1000000);
	json_t *stripe = json_pack("{s:[i], s:[i], s:i, s:i}", "classes", hist_class(64), "counts",
		n, "sum", n * 64, "max", 64);

	json_object_set_new(a, "vms",
		json_pack("[{s:i, s:s, s:[{s:s, s:i, s:i, s:O}, {s:s, s:i, s:i, s:O}], s:i, s:i, "
			  "s:I, "
			  "s:i}, {s:i, s:s, s:[]}]",
			"vm", 1, "name", name, "ops", "op", "read", "requests", n, "bytes",
			n * 4096, "latency", read, "op", "write", "requests", n, "bytes", n * 4096,
			"latency", write, "in_flight", 7, "waiting", 3, "capped_ns",
			(json_int_t)(ms * 500000), "qos_mbps", 500, "vm", 2, "name", "idle",
			"ops"));
	json_object_set_new(a, "stages",
		json_pack("[{s:s, s:s, s:O}, {s:s, s:s, s:O}, {s:s, s:s, s:O}]", "of", "read",
			"stage", "device", "time", read, "of", "protect", "stage", "device", "time",
			write, "of", "protect", "stage", "log", "time", write));
	json_object_set_new(a, "flashes",
		json_pack("[{s:s, s:i, s:I, s:O}]", "name", "f0", "writes", n, "busy_ns",
			(json_int_t)(ms * 250000), "write", write));
	json_object_set_new(a, "stripe_blocks", stripe);
	json_decref(read);
	json_decref(write);
	return a;
}

static double real(const json_t *o, const char *name)
{
	assert_non_null(json_object_get(o, name));
	return json_number_value(json_object_get(o, name));
}

static void near(double got, double want)
{
	if (fabs(got - want) > want * 0.07)
		fail_msg("%g is not %g", got, want);
}

static json_t *difference(void)
{
	json_t *then = answer("b", 1000, 100, "a"), *now = answer("b", 3000, 2100, "a");
	json_t *d = top_difference(then, now);

	assert_non_null(d);
	json_decref(then);
	json_decref(now);
	return d;
}

static void rates_are_of_the_interval_by_the_cards_clock(void **state)
{
	json_t *d = difference(), *vm = json_array_get(json_object_get(d, "vms"), 0);
	json_t *card = json_object_get(d, "card");

	near(real(d, "interval_s"), 2);
	near(real(json_object_get(vm, "read"), "iops"), 1000);
	near(real(json_object_get(vm, "write"), "bytes_per_s"), 4096000);
	near(real(json_object_get(vm, "read"), "p99_us"), 100);
	near(real(json_object_get(vm, "write"), "p50_us"), 1000);
	near(real(vm, "iops"), 2000);
	near(real(vm, "capped_percent"), 50);
	near(real(card, "write_amplification"), 1.5);
	near(real(card, "stripe_fill_percent"), 50);
	near(real(json_array_get(json_object_get(d, "flashes"), 0), "util_percent"), 25);
	json_decref(d);
}

static void shares_add_up_without_the_parts_of_parts(void **state)
{
	json_t *d = difference(), *stages = json_object_get(d, "stages");

	assert_int_equal(json_array_size(stages), 3);
	near(real(json_array_get(stages, 0), "share_percent"), 100 * 0.1 / 1.1);
	near(real(json_array_get(stages, 1), "share_percent"), 100 * 1 / 1.1);
	near(real(json_array_get(stages, 2), "share_percent"),
		100 * 1 / 1.1); /* the log, of device */
	json_decref(d);
}

static void another_run_of_the_card_is_not_subtracted(void **state)
{
	json_t *then = answer("b", 1000, 100, "a"), *now = answer("c", 2000, 50, "a");
	json_t *fewer = answer("b", 2000, 50, "a"), *d;

	assert_null(top_difference(then, now));
	assert_null(top_difference(then, then));
	/* the same run, but a VM that was deleted and made again: what there is counts */
	d = top_difference(then, fewer);
	near(real(json_object_get(json_array_get(json_object_get(d, "vms"), 0), "read"), "iops"),
		50);
	json_decref(d);
	json_decref(then);
	json_decref(now);
	json_decref(fewer);
}

static void an_answer_of_nonsense_does_no_harm(void **state)
{
	json_t *then = json_loads("{\"time_ns\": 1}", 0, NULL);
	json_t *now = json_loads(
		"{\"time_ns\": 1000000001, \"vms\": [{\"ops\": [{\"latency\": {\"classes\": "
		"[-1, 100000, 3], \"counts\": [1]}}]}, 7], \"stages\": [{}], "
		"\"flashes\": \"none\"}",
		0, NULL);
	json_t *d = top_difference(then, now);
	FILE *f = fopen("/dev/null", "w");

	assert_non_null(d);
	top_sort(d, "p99");
	top_render(f, d);
	fclose(f);
	json_decref(d);
	json_decref(then);
	json_decref(now);
}

static void vms_are_sorted_highest_first_and_names_are_made_harmless(void **state)
{
	json_t *then = answer("b", 1000, 100, "a"), *now = answer("b", 2000, 2100, "a\033[31m");
	json_t *d = top_difference(then, now);
	char *text = NULL;
	size_t size;
	FILE *f;

	top_sort(d, "iops");
	assert_string_equal(json_string_value(json_object_get(
				    json_array_get(json_object_get(d, "vms"), 1), "name")),
		"idle");
	f = open_memstream(&text, &size);
	top_render(f, d);
	fclose(f);
	assert_null(strchr(text, '\033'));
	assert_non_null(strstr(text, "a?[31m"));
	assert_non_null(strstr(text, "500Mb/s"));
	assert_true(top_sort_known("capped"));
	assert_false(top_sort_known("size"));
	free(text);
	json_decref(d);
	json_decref(then);
	json_decref(now);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rates_are_of_the_interval_by_the_cards_clock),
		cmocka_unit_test(shares_add_up_without_the_parts_of_parts),
		cmocka_unit_test(another_run_of_the_card_is_not_subtracted),
		cmocka_unit_test(an_answer_of_nonsense_does_no_harm),
		cmocka_unit_test(vms_are_sorted_highest_first_and_names_are_made_harmless),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
