/* SPDX-License-Identifier: BSD-3-Clause */
/* Buckets, turns, sleepers and the window on their own: time is a number here. */
#include "common/base/util.h"
#include "dpu/qos/qos.h"

#include <errno.h>
#include <string.h>

#define MS 1000000ull
#define S  1000000000ull

struct fixture {
	struct qos q;
	struct qos_vm v[64];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	assert_int_equal(qos_open(&f->q, ARRAY_LEN(f->v)), 0);
	for (size_t i = 0; i < ARRAY_LEN(f->v); i++)
		qos_vm_init(&f->v[i]);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(f->v); i++)
		qos_rest(&f->q, &f->v[i], 0);
	qos_close(&f->q);
	free(f);
	return 0;
}

/* One that ends at once. */
static void serve(struct fixture *f, struct qos_vm *v, uint64_t bytes, uint64_t now)
{
	qos_pass(&f->q, v, bytes, now);
	v->requests++; /* the backlog has no end */
	qos_end(&f->q, v, bytes, true);
	qos_wait(&f->q, v, bytes);
}

static void backlog(struct fixture *f, struct qos_vm *v, uint64_t bytes, uint64_t now)
{
	qos_begin(&f->q, v, now);
	qos_wait(&f->q, v, bytes);
}

/* What a VM with a backlog gets between two moments, served as soon as it may. */
static uint64_t taken(
	struct fixture *f, struct qos_vm *v, uint64_t bytes, uint64_t from, uint64_t to)
{
	uint64_t now = from, sum = 0;

	while (now < to) {
		struct qos_vm *p = qos_pick(&f->q, now);

		if (!p) {
			assert_true(qos_wake_ns(&f->q) > now);
			now = qos_wake_ns(&f->q);
			continue;
		}
		assert_ptr_equal(p, v);
		serve(f, v, bytes, now);
		sum += bytes;
	}
	return sum;
}

static void a_bandwidth_cap_is_exact(void **state)
{
	static const uint32_t rates[] = {100, 300, 1000, 25000};
	static const uint32_t sizes[] = {512, 4096, 131072, 1000000};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
		struct qos_vm *v = &f->v[i];
		uint64_t per_s = rates[i] * 125000ull, burst = per_s / 10, got;

		qos_vm_set(&f->q, v, &(struct qos_cfg){.mbps = rates[i]}, 0);
		backlog(f, v, sizes[i], 0);
		got = taken(f, v, sizes[i], 0, 10 * S);
		assert_in_range(got, 10 * per_s, 10 * per_s + burst + sizes[i]);
		qos_rest(&f->q, v, 10 * S);
	}
}

static void a_cap_of_requests_is_exact_also_for_odd_rates(void **state)
{
	static const uint32_t rates[] = {1, 7, 3333, 1000003};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(rates); i++) {
		struct qos_vm *v = &f->v[i];
		uint64_t got;

		qos_vm_set(&f->q, v, &(struct qos_cfg){.iops = rates[i], .burst_ms = 1}, 0);
		backlog(f, v, 4096, 0);
		got = taken(f, v, 4096, 0, 10 * S) / 4096;
		assert_in_range(got, 10 * rates[i], 10 * rates[i] + rates[i] / 1000 + 1);
		qos_rest(&f->q, v, 10 * S);
	}
}

static void the_tighter_of_two_caps_holds(void **state)
{
	struct fixture *f = *state;
	struct qos_vm *v = &f->v[0];

	/* 100 Mbit/s are 3051 requests of 4 KiB, and 95 of 128 KiB */
	qos_vm_set(&f->q, v, &(struct qos_cfg){.mbps = 100, .iops = 1000, .burst_ms = 1}, 0);
	backlog(f, v, 4096, 0);
	assert_in_range(taken(f, v, 4096, 0, 10 * S) / 4096, 10000, 10002);
	v->first_bytes = 131072;
	assert_in_range(taken(f, v, 131072, 10 * S, 20 * S), 124900000, 125300000);
}

static void after_a_pause_a_burst_goes_at_once_and_no_more(void **state)
{
	struct fixture *f = *state;
	struct qos_vm *v = &f->v[0];
	uint64_t n = 0;

	qos_vm_set(&f->q, v, &(struct qos_cfg){.mbps = 800, .burst_ms = 50}, 0); /* 5 MB */
	backlog(f, v, 100000, 0);
	taken(f, v, 100000, 0, S);
	qos_rest(&f->q, v, S);
	for (uint64_t now = 60 * S;; n++) { /* an hour would make no difference */
		if (!qos_may_pass(&f->q, v, 100000, now))
			break;
		qos_pass(&f->q, v, 100000, now);
		v->requests++;
		qos_end(&f->q, v, 100000, true);
	}
	assert_int_equal(n, 50);
}

static void a_request_larger_than_the_bucket_waits_for_a_full_one(void **state)
{
	struct fixture *f = *state;
	struct qos_vm *v = &f->v[0];

	/* 100 Mbit/s, 1 ms: the bucket holds 12500 bytes */
	qos_vm_set(&f->q, v, &(struct qos_cfg){.mbps = 100, .burst_ms = 1}, 0);
	backlog(f, v, 1 << 20, 0);
	assert_in_range(taken(f, v, 1 << 20, 0, 10 * S), 125000000, 125000000 + (2 << 20));
}

static void a_sleeper_wakes_when_its_tokens_suffice_and_not_before(void **state)
{
	struct fixture *f = *state;
	struct qos_vm *v = &f->v[0];

	qos_vm_set(&f->q, v, &(struct qos_cfg){.iops = 1000, .burst_ms = 1}, 0);
	backlog(f, v, 4096, 5 * S);
	assert_ptr_equal(qos_pick(&f->q, 5 * S), v);
	serve(f, v, 4096, 5 * S);
	assert_null(qos_pick(&f->q, 5 * S));
	assert_int_equal(qos_wake_ns(&f->q), 5 * S + MS);
	assert_null(qos_pick(&f->q, 5 * S + MS - 1));
	assert_ptr_equal(qos_pick(&f->q, 5 * S + MS), v);
	assert_int_equal(qos_slept_ns(v, 6 * S), MS);
}

static void another_cap_holds_at_once(void **state)
{
	struct fixture *f = *state;
	struct qos_vm *v = &f->v[0];

	qos_vm_set(&f->q, v, &(struct qos_cfg){.mbps = 100, .burst_ms = 1}, 0);
	backlog(f, v, 10 << 20, 0);
	taken(f, v, 10 << 20, 0, MS); /* a debt of 839 ms */
	assert_null(qos_pick(&f->q, 2 * MS));
	/* ten times as fast: what is left of the debt is paid ten times as fast */
	qos_vm_set(&f->q, v, &(struct qos_cfg){.mbps = 1000, .burst_ms = 1}, 2 * MS);
	assert_null(qos_pick(&f->q, 2 * MS));
	assert_in_range(qos_wake_ns(&f->q), 83 * MS, 87 * MS);
	/* none: it goes */
	qos_vm_set(&f->q, v, &(struct qos_cfg){0}, 3 * MS);
	assert_ptr_equal(qos_pick(&f->q, 3 * MS), v);
	/* and back: the bucket starts full */
	qos_vm_set(&f->q, v, &(struct qos_cfg){.mbps = 100}, 4 * MS);
	assert_ptr_equal(qos_pick(&f->q, 4 * MS), v);
}

static void lifted_caps_do_not_count_and_leave_no_debt(void **state)
{
	struct fixture *f = *state;
	struct qos_vm *v = &f->v[0];

	qos_vm_set(&f->q, v, &(struct qos_cfg){.iops = 1, .burst_ms = 1}, 0);
	backlog(f, v, 4096, 0);
	assert_ptr_equal(qos_pick(&f->q, 0), v);
	serve(f, v, 4096, 0);
	assert_null(qos_pick(&f->q, 0));
	qos_lift(&f->q, true, MS);
	for (int i = 0; i < 1000; i++) {
		assert_ptr_equal(qos_pick(&f->q, MS), v);
		serve(f, v, 4096, MS);
	}
	qos_lift(&f->q, false, MS);
	assert_null(qos_pick(&f->q, MS));
	assert_int_equal(qos_wake_ns(&f->q), S);
}

static void sixty_sleepers_each_get_their_rate(void **state)
{
	struct fixture *f = *state;
	uint64_t got[60] = {0}, now = 0;

	for (uint32_t i = 0; i < 60; i++) {
		qos_vm_set(
			&f->q, &f->v[i], &(struct qos_cfg){.iops = 10 + 7 * i, .burst_ms = 1}, 0);
		backlog(f, &f->v[i], 4096, 0);
	}
	while (now < 10 * S) {
		struct qos_vm *v = qos_pick(&f->q, now);

		if (!v) {
			now = qos_wake_ns(&f->q);
			continue;
		}
		serve(f, v, 4096, now);
		got[v - f->v]++;
	}
	for (uint32_t i = 0; i < 60; i++)
		assert_in_range(got[i], 10 * (10 + 7 * i), 10 * (10 + 7 * i) + 1);
}

/* Turns, with a store that takes one at a time: shares[i] of n. */
static void turns(struct fixture *f, size_t nvms, const uint32_t *bytes, uint64_t n, uint64_t *got)
{
	for (size_t i = 0; i < nvms; i++)
		backlog(f, &f->v[i], bytes[i], 0);
	while (n--) {
		struct qos_vm *v = qos_pick(&f->q, 0);

		assert_non_null(v);
		serve(f, v, bytes[v - f->v], 0);
		got[v - f->v] += qos_cost(bytes[v - f->v]);
	}
}

static void turns_follow_weights_whatever_the_sizes(void **state)
{
	static const uint32_t weights[] = {1, 100, 300, 1000};
	static const uint32_t bytes[] = {4096, 1 << 20, 131072, 512};
	struct fixture *f = *state;
	uint64_t got[4] = {0};

	for (size_t i = 0; i < 4; i++)
		qos_vm_set(&f->q, &f->v[i], &(struct qos_cfg){.weight = weights[i]}, 0);
	turns(f, 4, bytes, 1000000, got);
	for (size_t i = 0; i < 4; i++)
		assert_in_range(got[i] * 1401 / weights[i] / 1000,
			(got[0] + got[1] + got[2] + got[3]) / 1000 * 97 / 100,
			(got[0] + got[1] + got[2] + got[3]) / 1000 * 103 / 100);
}

static void one_vm_alone_has_no_window(void **state)
{
	struct fixture *f = *state;

	for (int i = 0; i < 10000; i++) {
		qos_begin(&f->q, &f->v[0], 0);
		assert_true(qos_may_pass(&f->q, &f->v[0], 1 << 20, 0));
		qos_pass(&f->q, &f->v[0], 1 << 20, 0);
	}
}

static void with_two_a_full_window_holds_the_heavy_one_back_and_lets_the_light_one_in(void **state)
{
	struct fixture *f = *state;
	unsigned int n = 0;

	qos_begin(&f->q, &f->v[1], 0); /* is there */
	qos_end(&f->q, &f->v[1], 4096, false);
	qos_begin(&f->q, &f->v[1], 0);
	for (; n < 1000; n++) {
		qos_begin(&f->q, &f->v[0], 0);
		if (!qos_may_pass(&f->q, &f->v[0], 131072, 0))
			break;
		qos_pass(&f->q, &f->v[0], 131072, 0);
	}
	assert_in_range(n, 50, 70); /* 8 MiB at the start */
	qos_wait(&f->q, &f->v[0], 131072);
	assert_null(qos_pick(&f->q, 0));
	assert_true(qos_may_pass(&f->q, &f->v[1], 4096, 0));
	qos_pass(&f->q, &f->v[1], 4096, 0);
	/* a second after the light one was last seen it does not count any more */
	assert_null(qos_pick(&f->q, S - 1));
	assert_ptr_equal(qos_pick(&f->q, S), &f->v[0]);
}

static void settings_out_of_range_are_named(void **state)
{
	static const struct {
		struct qos_cfg cfg;
		const char *field, *says;
	} cases[] = {{{.mbps = 150}, "qos_mbps", "100, 200"},
		{{.mbps = 1000100}, "qos_mbps", "1000000"},
		{{.iops = 100000001}, "qos_iops", "100000000"},
		{{.burst_ms = 10001}, "qos_burst_ms", "10000"},
		{{.weight = 1001}, "qos_weight", "1000"}};
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		memset(&e, 0, sizeof(e));
		assert_int_equal(qos_cfg_check(&cases[i].cfg, "vm web1", "qos_", &e), -EINVAL);
		assert_string_equal(e.object, "vm web1");
		assert_string_equal(e.field, cases[i].field);
		assert_non_null(strstr(e.reason, cases[i].says));
	}
	assert_int_equal(qos_cfg_check(&(struct qos_cfg){1000000, 100000000, 10000, 1000}, "vm x",
				 "qos_", NULL),
		0);
	assert_int_equal(qos_cfg_check(&(struct qos_cfg){0}, "vm x", "qos_", NULL), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_bandwidth_cap_is_exact),
		T(a_cap_of_requests_is_exact_also_for_odd_rates),
		T(the_tighter_of_two_caps_holds),
		T(after_a_pause_a_burst_goes_at_once_and_no_more),
		T(a_request_larger_than_the_bucket_waits_for_a_full_one),
		T(a_sleeper_wakes_when_its_tokens_suffice_and_not_before),
		T(another_cap_holds_at_once),
		T(lifted_caps_do_not_count_and_leave_no_debt),
		T(sixty_sleepers_each_get_their_rate),
		T(turns_follow_weights_whatever_the_sizes),
		T(one_vm_alone_has_no_window),
		T(with_two_a_full_window_holds_the_heavy_one_back_and_lets_the_light_one_in),
		T(settings_out_of_range_are_named),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
