/* SPDX-License-Identifier: BSD-3-Clause */
/* What a pool survives, by device and by node, from where things really lie; and the end of a pool that another host has taken. */
#include "tests/unit/storebed.h"

#include "dpu/mover/mover.h"
#include "dpu/pool/checkpoint.h"
#include "dpu/pool/survive.h"
#include "dpu/volume/map.h"
#include "dpu/volume/move.h"

static struct pool_survival now(void)
{
	static const struct ec_scheme records = {0};
	const struct ec_scheme scheme = pool_cfg(store_pool(sb.store))->scheme;
	struct pool_survival s;

	pool_survival_begin(store_pool(sb.store), 0, &s);
	pool_survival_meta(&s);
	stripelog_survival(store_log(sb.store), records, &s);
	if (!stripelog_survival(store_log(sb.store), scheme, &s))
		pool_survival_ideal(&s, scheme);
	return s;
}

static void survives(unsigned int devices, unsigned int nodes)
{
	struct pool_survival s = now();

	assert_int_equal(s.devices, devices);
	assert_int_equal(s.nodes, nodes);
}

static void fill(void)
{
	sb_volume("a", 1024, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
}

static void checkpointed(void *arg, int status)
{
	*(int *)arg = status;
}

static bool is_set(void *arg)
{
	return *(int *)arg != 1;
}

static void checkpoint(void)
{
	int status = 1;

	assert_int_equal(store_checkpoint(sb.store, checkpointed, &status), 0);
	shard_wait(sb.sh, is_set, &status, 0);
	assert_int_equal(status, 0);
}

static void nodes_count_as_what_lies_on_them(void **state)
{
	static const struct {
		unsigned int ndevs, per_node, k, m, devices, nodes;
	} cases[] = {
		{6, 2, 4, 2, 2, 1}, /* three nodes of two */
		{6, 1, 4, 2, 2, 2}, /* six of one */
		{6, 6, 4, 2, 2, 0}, /* all in one */
		{12, 3, 4, 2, 2, 1}, /* four of three: two fragments of a stripe at most on each */
		{8, 2, 6, 2, 2, 1},
		{9, 3, 6, 2, 2, 0}, /* some node has three fragments */
		{3, 1, 2, 1, 1, 1},
		{4, 2, 2, 1, 1, 0},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		sb_open(&(struct sb_cfg){.ndevs = cases[i].ndevs,
			.k = cases[i].k,
			.m = cases[i].m,
			.per_node = cases[i].per_node});
		survives(cases[i].devices, cases[i].nodes); /* empty: what it would be */
		fill();
		survives(cases[i].devices, cases[i].nodes);
		checkpoint();
		survives(cases[i].devices, cases[i].nodes);
		sb_reopen(0);
		survives(cases[i].devices, cases[i].nodes);
		sb_close();
	}
}

static unsigned int most_on_one_node(uint64_t devs, unsigned int per_node)
{
	unsigned int most = 0;

	for (unsigned int d = 0; d < SB_DEVS; d += per_node)
		most = MAX(most,
			(unsigned int)__builtin_popcountll(devs & ((1ull << per_node) - 1) << d));
	return most;
}

static void stripes_of_4_2_on_four_nodes_of_three_take_two_of_each_at_most(void **state)
{
	sb_open(&(struct sb_cfg){.ndevs = 12, .k = 4, .m = 2, .per_node = 3, .dev_mib = 32});
	fill();
	for (unsigned int b = 0; b < 1024; b++) {
		struct stripe_shape shape;
		struct map_entry e;

		volume_look(sb.vols[0].v, b, 1, &e);
		assert_int_equal(stripelog_stripe_scheme(store_log(sb.store), e.ref, &shape), 0);
		assert_true(most_on_one_node(shape.devs, 3) <= 2);
	}
	/* So a whole node may go. */
	for (unsigned int d = 3; d < 6; d++)
		fault_set_gone(sb.f[d], true);
	sb_expect_all();
	survives(0, 0);
	sb_close();
}

static bool rebuilt(void *arg)
{
	const struct mover_task *t = NULL;

	while ((t = mover_task_next(arg, t)))
		if (t->reason == MOVER_REBUILD && t->state == MOVER_DONE)
			return true;
	return false;
}

static void a_loss_counts_until_it_is_rebuilt(void **state)
{
	struct mover_settings ms;
	struct mover *m;

	sb_open(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 48});
	assert_int_equal(mover_open(&(struct mover_cfg){.store = sb.store}, &m), 0);
	mover_settings(m, &ms);
	ms.rebuild_delay_s = 3600;
	assert_int_equal(mover_set(m, &ms, NULL), 0);
	fill();
	survives(2, 2);
	fault_set_gone(sb.f[3], true);
	pool_dev_fail(store_pool(sb.store), 3);
	survives(1, 1);
	assert_int_equal(now().fatal, 0);
	ms.rebuild_delay_s = 0;
	assert_int_equal(mover_set(m, &ms, NULL), 0);
	assert_int_equal(shard_wait(sb.sh, rebuilt, m, 3600ull * 1000000000ull), 0);
	survives(2, 2);
	mover_close(m);
	sb_close();
}

static unsigned int rebuilds_over(struct mover *m)
{
	const struct mover_task *t = NULL;
	unsigned int n = 0;

	while ((t = mover_task_next(m, t)))
		n += t->reason == MOVER_REBUILD && t->state == MOVER_DONE;
	return n;
}

static bool both_rebuilt(void *arg)
{
	return rebuilds_over(arg) == 2;
}

static bool any_rebuild(void *arg)
{
	const struct mover_task *t = NULL;

	while ((t = mover_task_next(arg, t)))
		if (t->reason == MOVER_REBUILD)
			return true;
	return false;
}

/* The second device of the node is found out 20 s later: what was decided for the first is decided for both, and the first task does the work. */
static void the_devices_of_a_lost_node_are_rebuilt_by_one_decision(void **state)
{
	const uint64_t s = 1000000000ull;
	const struct mover_task *t = NULL;
	uint64_t moved[2] = {0}, then;
	struct mover_settings ms;
	unsigned int n = 0;
	struct mover *m;

	sb_open(&(struct sb_cfg){.ndevs = 10, .k = 4, .m = 2, .per_node = 2, .dev_mib = 48});
	assert_int_equal(mover_open(&(struct mover_cfg){.store = sb.store}, &m), 0);
	mover_settings(m, &ms);
	ms.rebuild_delay_s = 60;
	assert_int_equal(mover_set(m, &ms, NULL), 0);
	fill();
	fault_set_gone(sb.f[2], true);
	pool_dev_fail(store_pool(sb.store), 2);
	assert_int_equal(shard_wait(sb.sh, any_rebuild, m, 20 * s), -ETIMEDOUT);
	fault_set_gone(sb.f[3], true);
	pool_dev_fail(store_pool(sb.store), 3);
	then = shard_now_ns(sb.sh);
	assert_int_equal(shard_wait(sb.sh, any_rebuild, m, 3600 * s), 0);
	assert_true(shard_now_ns(sb.sh) - then >= 60 * s);
	assert_int_equal(shard_wait(sb.sh, both_rebuilt, m, 3600 * s), 0);
	while ((t = mover_task_next(m, t)))
		if (t->reason == MOVER_REBUILD)
			moved[n++] = t->moved_blocks;
	assert_true(moved[0] > 0);
	assert_int_equal(moved[1], 0);
	survives(2, 1);
	sb_expect_all();
	mover_close(m);
	sb_close();
}

static void nodes_that_hold_too_much_are_named_where_others_could_have_it(void **state)
{
	struct pool_survival s, better;
	unsigned int dev;

	/* Four of six devices are of one node. */
	sb_open(&(struct sb_cfg){.ndevs = 6, .k = 4, .m = 2, .per_node = 4, .dev_mib = 32});
	fill();
	s = now();
	assert_int_equal(s.nodes, 0);
	assert_int_equal(s.fatal, 15);
	sb.extra = 4;
	for (unsigned int i = 6; i < 10; i++) {
		struct pool_member mem = {.flash = sb_flash(i)};

		snprintf(mem.name, sizeof(mem.name), "f%u", i);
		snprintf(mem.domain, sizeof(mem.domain), "new%u", i);
		assert_int_equal(
			pool_dev_add(store_pool(sb.store), &mem, false, false, &dev, NULL), 0);
	}
	pool_survival_begin(store_pool(sb.store), 0, &better);
	pool_survival_ideal(&better, (struct ec_scheme){4, 2});
	assert_int_equal(better.nodes, 2);
	s = now();
	assert_int_equal(s.nodes, 0);
	assert_int_equal(s.fatal, 15);
	sb_close();
}

static void a_device_in_doubt_counts_as_lost(void **state)
{
	struct pool_survival s;

	sb_open(&(struct sb_cfg){.ndevs = 6, .k = 4, .m = 2, .per_node = 2});
	fill();
	pool_survival_begin(store_pool(sb.store), 1, &s);
	stripelog_survival(store_log(sb.store), (struct ec_scheme){4, 2}, &s);
	assert_int_equal(s.devices, 1);
	assert_int_equal(s.nodes, 0);
	sb_close();
}

/* ---- another host has it ---------------------------------------------------------------------------------------------- */

static void a_reservation_that_is_gone_ends_every_request_and_fails_no_device(void **state)
{
	const struct fault_rule rule = {
		.op = FLASH_WRITE, .per_million = 1000000, .status = FLASH_ERR_FENCED};
	const struct fault_rule flush = {
		.op = FLASH_FLUSH, .per_million = 1000000, .status = FLASH_ERR_FENCED};
	const struct mover_task *t = NULL;
	struct mover *m;
	struct pool *p;
	unsigned int dev;

	sb_open(&(struct sb_cfg){
		.ndevs = 8, .k = 4, .m = 2, .dev_mib = 48, .volatile_cache = true});
	assert_int_equal(mover_open(&(struct mover_cfg){.store = sb.store}, &m), 0);
	fill();
	p = store_pool(sb.store);
	assert_false(pool_is_lost(p, NULL));
	for (unsigned int i = 0; i < 8; i++)
		assert_true(fault_rule_add(sb.f[i], &rule) >= 0 &&
			    fault_rule_add(sb.f[i], &flush) >= 0);
	assert_int_not_equal(sb_write(0, IO_PROTECT, 0, 64), IO_OK);
	assert_true(pool_is_lost(p, &dev));
	assert_true(dev < 8);
	shard_run_once(sb.sh);
	assert_int_equal(sb.events[STORE_EVENT_FENCED], 1);
	assert_int_equal(sb_write(0, IO_PROTECT, 64, 8), IO_ERR_ABORTED);
	assert_int_equal(sb_read(0, 0, 8), IO_ERR_ABORTED);
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(pool_dev(p, i)->state, POOL_DEV_HEALTHY);
	for (unsigned int i = 0; i < 1000; i++)
		shard_run_once(sb.sh);
	while ((t = mover_task_next(m, t))) /* nothing is rebuilt because of it */
		assert_int_equal(t->reason, MOVER_CLEAN);
	mover_close(m);
	sb_close();
}

static void one_device_that_is_fenced_is_enough_for_nothing_to_be_acknowledged(void **state)
{
	const struct fault_rule rule = {
		.op = FLASH_WRITE, .per_million = 1000000, .status = FLASH_ERR_FENCED};
	enum io_status st = IO_OK;

	sb_open(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 48});
	fill();
	assert_true(fault_rule_add(sb.f[5], &rule) >= 0);
	/* The first write that meets it fails, although it could be stored on the others. */
	for (unsigned int i = 0; i < 64 && st == IO_OK; i++)
		st = sb_write(0, IO_PROTECT, i * 8, 8);
	assert_int_not_equal(st, IO_OK);
	assert_true(pool_is_lost(store_pool(sb.store), NULL));
	sb_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nodes_count_as_what_lies_on_them),
		cmocka_unit_test(stripes_of_4_2_on_four_nodes_of_three_take_two_of_each_at_most),
		cmocka_unit_test(a_loss_counts_until_it_is_rebuilt),
		cmocka_unit_test(the_devices_of_a_lost_node_are_rebuilt_by_one_decision),
		cmocka_unit_test(nodes_that_hold_too_much_are_named_where_others_could_have_it),
		cmocka_unit_test(a_device_in_doubt_counts_as_lost),
		cmocka_unit_test(a_reservation_that_is_gone_ends_every_request_and_fails_no_device),
		cmocka_unit_test(
			one_device_that_is_fenced_is_enough_for_nothing_to_be_acknowledged),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
