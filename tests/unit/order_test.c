/* SPDX-License-Identifier: BSD-3-Clause */
/* The reference of the model and of the crash explorer: what may a block hold when requests that were in flight together passed each other? */
#include <stdlib.h>

#include "tests/model/ref.h"

struct bed {
	struct ref r;
	uint32_t id, clock;
};

static struct bed *bed_open(void)
{
	struct bed *b = calloc(1, sizeof(*b));

	assert_non_null(b);
	assert_int_equal(ref_open(&b->r, 1, SEC_PER_4K), 0);
	return b;
}

static void bed_close(struct bed *b)
{
	ref_close(&b->r);
	free(b);
}

/* A write of sectors [first, first + n); its version is 10 times its number. */
static uint32_t begin_kind(
	struct bed *b, uint64_t first, uint64_t n, bool waited, enum cand_kind kind)
{
	struct cand c = {.id = ++b->id,
		.ver = kind == CAND_ZERO ? 0 : b->id * 10,
		.began = b->clock,
		.kind = (uint8_t)kind,
		.waited = waited};

	ref_begin(&b->r, first, n, &c);
	return b->id;
}

static uint32_t begin(struct bed *b, uint64_t first, uint64_t n, bool waited)
{
	return begin_kind(b, first, n, waited, CAND_PROTECTED);
}

static void end(struct bed *b, uint32_t id, bool ok)
{
	ref_end(&b->r, 0, SEC_PER_4K, id, ok, ++b->clock);
}

static uint32_t whole(struct bed *b, bool waited)
{
	uint32_t id = begin(b, 0, SEC_PER_4K, waited);

	end(b, id, true);
	return id;
}

static bool may_hold(struct bed *b, int64_t from0, int64_t from4, int64_t last)
{
	int64_t ver[SEC_PER_4K] = {from0, from0, from0, from0, from4, from4, from4, last};

	return ref_block(&b->r, 0, ver, true);
}

static void a_request_that_waits_may_be_passed(void **state)
{
	struct bed *b = bed_open();
	uint32_t base = whole(b, false), all = begin(b, 0, 8, true), one = begin(b, 7, 1, true);

	end(b, one, true);
	assert_true(may_hold(b, base * 10, base * 10, one * 10)); /* passed */
	assert_true(may_hold(b, all * 10, all * 10, one * 10)); /* in order */
	assert_true(may_hold(b, all * 10, all * 10, all * 10)); /* passed, and came afterwards */
	bed_close(b);
}

static void without_waiting_requests_keep_their_order(void **state)
{
	struct bed *b = bed_open();
	uint32_t base = whole(b, false), all = begin(b, 0, 8, false), one = begin(b, 7, 1, false);

	end(b, one, true);
	assert_false(may_hold(b, base * 10, base * 10, one * 10));
	assert_true(may_hold(b, all * 10, all * 10, one * 10));
	bed_close(b);
}

static void a_request_that_was_over_before_is_never_passed(void **state)
{
	struct bed *b = bed_open();
	uint32_t base = whole(b, true), all = whole(b, true), one = begin(b, 7, 1, true);

	end(b, one, true);
	assert_false(may_hold(b, base * 10, base * 10, one * 10));
	assert_true(may_hold(b, all * 10, all * 10, one * 10));
	assert_true(
		may_hold(b, base * 10, base * 10, base * 10)); /* power loss: nothing was flushed */
	bed_close(b);
}

static void a_request_is_never_torn(void **state)
{
	struct bed *b = bed_open();
	uint32_t base = whole(b, false), all = begin(b, 0, 8, true), one = begin(b, 7, 1, true);

	end(b, one, true);
	assert_false(may_hold(b, all * 10, base * 10, one * 10));
	assert_false(may_hold(b, base * 10, all * 10, base * 10));
	bed_close(b);
}

/* Each of them over a part of the other. */
static void two_requests_do_not_pass_each_other_in_a_circle(void **state)
{
	struct bed *b = bed_open();
	uint32_t base = whole(b, false), x = begin(b, 0, 8, true), y = begin(b, 0, 8, true);

	assert_true(may_hold(b, x * 10, x * 10, x * 10));
	assert_true(may_hold(b, y * 10, y * 10, y * 10));
	assert_false(may_hold(b, x * 10, y * 10, y * 10));
	assert_false(may_hold(b, x * 10, y * 10, base * 10));
	bed_close(b);
}

static void a_failed_request_may_be_there_or_not(void **state)
{
	struct bed *b = bed_open();
	uint32_t base = whole(b, false), all = begin(b, 0, 8, true), one = begin(b, 7, 1, true);

	end(b, one, true);
	end(b, all, false);
	assert_true(may_hold(b, base * 10, base * 10, one * 10));
	assert_true(may_hold(b, all * 10, all * 10, one * 10));
	bed_close(b);
}

static void what_was_flushed_stays_but_for_requests_still_on_their_way(void **state)
{
	struct bed *b = bed_open();
	uint32_t base = whole(b, false), all = begin(b, 0, 8, true), later = begin(b, 0, 8, true);

	end(b, later, true);
	ref_flushed(&b->r, 0, SEC_PER_4K, b->clock);
	assert_true(may_hold(b, later * 10, later * 10, later * 10));
	assert_true(
		may_hold(b, all * 10, all * 10, all * 10)); /* it was passed, and came afterwards */
	assert_false(may_hold(b, base * 10, base * 10, base * 10));
	assert_false(may_hold(b, all * 10, later * 10, later * 10));
	bed_close(b);
}

static void two_that_are_flushed_stay_possible_however_often(void **state)
{
	struct bed *b = bed_open();
	uint32_t x, y;

	whole(b, false);
	x = begin(b, 0, 8, true);
	y = begin(b, 4, 4, true);
	end(b, y, true);
	end(b, x, true);
	for (int i = 0; i < 3; i++)
		ref_flushed(&b->r, 0, SEC_PER_4K, b->clock);
	assert_true(may_hold(b, x * 10, x * 10, x * 10));
	assert_true(may_hold(b, x * 10, y * 10, y * 10));
	assert_false(may_hold(b, x * 10, x * 10, y * 10));
	x = whole(b, false);
	ref_flushed(&b->r, 0, SEC_PER_4K, b->clock);
	assert_false(may_hold(b, y * 10, y * 10, y * 10));
	assert_true(may_hold(b, x * 10, x * 10, x * 10));
	bed_close(b);
}

static void a_flush_makes_an_order_certain_where_nothing_waited(void **state)
{
	struct bed *b = bed_open();
	uint32_t all, later;

	whole(b, false);
	all = begin(b, 0, 8, false);
	later = begin(b, 0, 8, false);
	end(b, later, true);
	ref_flushed(&b->r, 0, SEC_PER_4K, b->clock);
	assert_false(may_hold(b, all * 10, all * 10, all * 10));
	assert_true(may_hold(b, later * 10, later * 10, later * 10));
	bed_close(b);
}

/* One whole block after the other: the numbers of what was written first and last. */
static uint32_t over(struct bed *b, enum cand_kind first, bool flushed, enum cand_kind last)
{
	uint32_t id = begin_kind(b, 0, SEC_PER_4K, false, first);

	end(b, id, true);
	if (flushed)
		ref_flushed(&b->r, 0, SEC_PER_4K, b->clock);
	id = begin_kind(b, 0, SEC_PER_4K, false, last);
	end(b, id, true);
	return id;
}

static bool kept_unprotected(struct bed *b, uint32_t ver, bool power)
{
	bool unprotected;

	assert_true(ref_recovered(&b->r, 0, ver, power));
	unprotected = ref_unprotected(&b->r, 0);
	bed_close(b);
	return unprotected;
}

static void a_protected_write_over_an_unprotected_one_may_have_left_its_bytes_alone(void **state)
{
	struct bed *b = bed_open();
	uint32_t last = over(b, CAND_UNPROTECTED, true, CAND_PROTECTED);

	assert_true(kept_unprotected(b, last * 10, true));
	/* No power was lost: what was acknowledged is in the log. */
	b = bed_open();
	last = over(b, CAND_UNPROTECTED, true, CAND_PROTECTED);
	assert_false(kept_unprotected(b, last * 10, false));
	/* It was flushed: the same. */
	b = bed_open();
	last = over(b, CAND_UNPROTECTED, false, CAND_PROTECTED);
	ref_flushed(&b->r, 0, SEC_PER_4K, b->clock);
	assert_false(kept_unprotected(b, last * 10, true));
	b = bed_open();
	last = over(b, CAND_PROTECTED, true, CAND_PROTECTED);
	assert_false(kept_unprotected(b, last * 10, true));
}

static void zeros_over_an_unprotected_write_need_no_device(void **state)
{
	struct bed *b = bed_open();

	over(b, CAND_UNPROTECTED, true, CAND_ZERO);
	assert_false(kept_unprotected(b, 0, true));
	/* The other way round the record may be there without the data. */
	b = bed_open();
	over(b, CAND_ZERO, true, CAND_UNPROTECTED);
	assert_true(kept_unprotected(b, 0, true));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_that_waits_may_be_passed),
		cmocka_unit_test(without_waiting_requests_keep_their_order),
		cmocka_unit_test(a_request_that_was_over_before_is_never_passed),
		cmocka_unit_test(a_request_is_never_torn),
		cmocka_unit_test(two_requests_do_not_pass_each_other_in_a_circle),
		cmocka_unit_test(a_failed_request_may_be_there_or_not),
		cmocka_unit_test(what_was_flushed_stays_but_for_requests_still_on_their_way),
		cmocka_unit_test(two_that_are_flushed_stay_possible_however_often),
		cmocka_unit_test(a_flush_makes_an_order_certain_where_nothing_waited),
		cmocka_unit_test(
			a_protected_write_over_an_unprotected_one_may_have_left_its_bytes_alone),
		cmocka_unit_test(zeros_over_an_unprotected_write_need_no_device),
	};

	return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}
