/* SPDX-License-Identifier: BSD-3-Clause */
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/lock.h"

static uint32_t seed;

static int any(void)
{
	seed = seed * 1664525u + 1013904223u;
	return (int)(seed >> 8);
}

struct node {
	struct range_lock l;
	bool used, granted;
	unsigned int order;
};

static unsigned int granted_calls;

static void granted(struct range_lock *l)
{
	struct node *n = container_of(l, struct node, l);

	assert_false(n->granted);
	n->granted = true;
	granted_calls++;
}

static bool take(
	struct range_locks *ls, struct node *n, uint64_t first, uint64_t nblocks, bool excl)
{
	*n = (struct node){.l.granted_fn = granted, .used = true};
	n->granted = range_lock(ls, &n->l, first, nblocks, excl);
	return n->granted;
}

static void readers_share_and_a_writer_waits_for_all_of_them(void **state)
{
	struct range_locks ls;
	struct node r1, r2, w, r3;

	range_locks_init(&ls);
	assert_true(take(&ls, &r1, 10, 5, false));
	assert_true(take(&ls, &r2, 12, 5, false));
	assert_false(take(&ls, &w, 14, 1, true));
	/* First come first served: a reader behind the writer waits for it. */
	assert_false(take(&ls, &r3, 14, 1, false));
	range_unlock(&ls, &r1.l);
	assert_false(w.granted);
	range_unlock(&ls, &r2.l);
	assert_true(w.granted);
	assert_false(r3.granted);
	range_unlock(&ls, &w.l);
	assert_true(r3.granted);
	range_unlock(&ls, &r3.l);
	assert_int_equal(ls.held, 0);
}

static void ranges_that_only_touch_do_not_wait(void **state)
{
	struct range_locks ls;
	struct node a, b, c;

	range_locks_init(&ls);
	assert_true(take(&ls, &a, 0, 256, true));
	assert_true(take(&ls, &b, 256, 1, true));
	assert_true(take(&ls, &c, 257, 1ull << 40, true));
	range_unlock(&ls, &b.l);
	range_unlock(&ls, &a.l);
	range_unlock(&ls, &c.l);
}

static void a_lock_over_everything_waits_for_all_and_holds_up_all(void **state)
{
	struct range_locks ls;
	struct node n[5], w, after;

	range_locks_init(&ls);
	for (unsigned int i = 0; i < ARRAY_LEN(n); i++)
		assert_true(take(&ls, &n[i], i * 100000ull, 7, i & 1));
	assert_false(take(&ls, &w, 0, 1ull << 36, true));
	assert_false(take(&ls, &after, 5, 1, false));
	for (unsigned int i = 0; i < ARRAY_LEN(n); i++) {
		assert_false(w.granted);
		range_unlock(&ls, &n[i].l);
	}
	assert_true(w.granted);
	range_unlock(&ls, &w.l);
	assert_true(after.granted);
	range_unlock(&ls, &after.l);
}

static bool clash(const struct range_lock *a, const struct range_lock *b)
{
	return (a->exclusive || b->exclusive) && a->first < b->end && b->first < a->end;
}

/* Against the definition: a lock is granted exactly when no earlier one that is still held or waiting clashes with it. */
static void a_random_mix_is_granted_exactly_in_order_of_arrival(void **state)
{
	enum { N = 96 };
	struct node *n = calloc(N, sizeof(*n));
	struct range_locks ls;
	unsigned int order = 0;
	uint64_t waited = 0, left = 0;

	seed = 7;
	range_locks_init(&ls);
	for (int step = 0; step < 60000; step++) {
		struct node *x = &n[any() % N];
		/* Regions collide both truly and by hash. */
		uint64_t first = (uint64_t)(any() % 3) * RANGE_REGION_BLOCKS * RANGE_BUCKETS +
				 (uint64_t)(any() % 1500);
		uint64_t len = any() % 10 ? 1 + any() % 300 : 1 + any() % 60000;

		if (x->used && x->granted) {
			x->used = false;
			range_unlock(&ls, &x->l);
		} else if (!x->used) {
			take(&ls, x, first, len, any() % 2);
			x->order = order++;
			waited += !x->granted;
		} else if (any() % 4 == 0) {
			x->used = false;
			range_unwait(&ls, &x->l);
			left++;
		}
		for (int i = 0; i < N; i++) {
			bool blocked = false;

			for (int j = 0; n[i].used && j < N; j++)
				blocked |= n[j].used && j != i && n[j].order < n[i].order &&
					   clash(&n[j].l, &n[i].l);
			if (n[i].used)
				assert_int_equal(n[i].granted, !blocked);
		}
	}
	assert_true(waited > 1000 && left > 1000);
	free(n);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_share_and_a_writer_waits_for_all_of_them),
		cmocka_unit_test(ranges_that_only_touch_do_not_wait),
		cmocka_unit_test(a_lock_over_everything_waits_for_all_and_holds_up_all),
		cmocka_unit_test(a_random_mix_is_granted_exactly_in_order_of_arrival),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
