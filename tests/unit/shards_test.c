/* SPDX-License-Identifier: BSD-3-Clause */
/* A card of two shards: what it serves, what happens when things fail on one of them. */
#include "tests/unit/shards_rig.h"

/* ---- tests -------------------------------------------------------------------------------------------------------------- */

static void two_shards_serve_their_own_vms_and_are_found_again(void **state)
{
	struct rig *r = *state;
	unsigned int where[NVMS + 1];
	size_t missing;

	assert_int_equal(shards_count(r->s), 1); /* before there is a pool */
	all_up(r);
	assert_int_equal(shards_count(r->s), 2);
	assert_true(card_has_pool(shards_card(r->s, 0)) && card_has_pool(shards_card(r->s, 1)));
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(vms_on(r, i), NVMS / 2);
		assert_int_equal(devices_on(r, i, &missing), NVMS / 2);
		assert_int_equal(missing, 0);
		assert_int_equal(card_tables_version(shards_card(r->s, i)), 1);
	}
	for (uint32_t vm = 1; vm <= NVMS; vm++)
		where[vm] = shards_of_vm(r->s, vm);
	vms_write(r);
	vms_check_data(r);

	rig_stop(r);
	rig_start(r);
	assert_int_equal(shards_count(r->s), 2);
	for (uint32_t vm = 1; vm <= NVMS; vm++)
		assert_int_equal(shards_of_vm(r->s, vm), where[vm]);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(vms_on(r, i), NVMS / 2);
		assert_int_equal(card_tables_version(shards_card(r->s, i)), 1);
	}
	vms_check_data(r);
}

static int uuid_of(struct card *c, void *arg)
{
	memcpy(arg, pool_uuid(store_pool(c->store)), 16);
	return 0;
}

static void slices_of_a_pool_have_one_uuid_and_fixed_number(void **state)
{
	struct rig *r = *state;
	uint8_t a[16], b[16];

	create_all(r);
	assert_int_equal(shards_run(r->s, 0, uuid_of, a), 0);
	assert_int_equal(shards_run(r->s, 1, uuid_of, b), 0);
	assert_memory_equal(a, b, 16);
	assert_int_equal(shards_resize(r->s, 3, &r->e), -EBUSY);
	assert_int_equal(shards_resize(r->s, 17, &r->e), -EINVAL);
	assert_int_equal(shards_resize(r->s, 0, &r->e), -EINVAL);
	assert_int_equal(shards_count(r->s), 2);
}

/* ---- failures ---------------------------------------------------------------------------------------------------------------- */

static int flash_ask(struct rig *r, unsigned int shard, bool back, const char *name)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__FlashFail fail = PARAPET__FLASH_FAIL__INIT;
	Parapet__FlashReturn ret = PARAPET__FLASH_RETURN__INIT;

	fail.name = ret.name = (char *)(uintptr_t)name;
	if (back) {
		req.op_case = PARAPET__REQUEST__OP_FLASH_RETURN;
		req.flash_return = &ret;
	} else {
		req.op_case = PARAPET__REQUEST__OP_FLASH_FAIL;
		req.flash_fail = &fail;
	}
	return ask_rc(r, shard, back ? call_flash_return : call_flash_fail, &req);
}

struct dev_look {
	const char *name;
	bool usable;
	enum pool_cause cause;
	uint32_t failures;
};

static int dev_look(struct card *c, void *arg)
{
	struct dev_look *d = arg;
	const struct pool *p = store_pool(c->store);
	int dev = pool_dev_find(p, d->name);

	assert_true(dev >= 0);
	d->usable = pool_dev_usable(p, (unsigned int)dev);
	d->cause = pool_dev(p, (unsigned int)dev)->cause;
	d->failures = pool_dev(p, (unsigned int)dev)->failures;
	return 0;
}

static struct dev_look dev_on(struct rig *r, unsigned int shard, const char *name)
{
	struct dev_look d = {.name = name};

	assert_int_equal(shards_run(r->s, shard, dev_look, &d), 0);
	return d;
}

/* What cards tell each other is posted: it is there after a few rounds. */
static bool becomes_unusable(struct rig *r, unsigned int shard, const char *name)
{
	for (int i = 0; i < WAIT_S * 100; i++) {
		if (!dev_on(r, shard, name).usable)
			return true;
		nap_ms(10);
	}
	return false;
}

static int fail_with_errors(struct card *c, void *arg)
{
	struct pool *p = store_pool(c->store);

	pool_dev_fail_for(p, (unsigned int)pool_dev_find(p, arg), POOL_CAUSE_ERRORS);
	return 0;
}

static void a_device_that_fails_in_one_shard_fails_in_the_other(void **state)
{
	struct rig *r = *state;

	all_up(r);
	vms_write(r);
	assert_int_equal(flash_ask(r, 0, false, "f2"), 0); /* the operator */
	assert_true(becomes_unusable(r, 1, "f2"));
	assert_int_equal(dev_on(r, 0, "f2").cause, POOL_CAUSE_OPERATOR);
	assert_int_equal(dev_on(r, 1, "f2").cause, POOL_CAUSE_OPERATOR);
	vms_check_data(r);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(flash_ask(r, i, true, "f2"), 0);

	shards_run(r->s, 1, fail_with_errors, (char *)"f3"); /* by itself */
	assert_true(becomes_unusable(r, 0, "f3"));
	assert_int_equal(dev_on(r, 0, "f3").cause, POOL_CAUSE_ERRORS);
	vms_check_data(r);
	assert_true(dev_on(r, 0, "f2").usable && dev_on(r, 1, "f2").usable);
}

/* Whoever failed it because the other did does not tell it back: the other may have it again by then. */
static void failures_do_not_come_back(void **state)
{
	struct rig *r = *state;

	all_up(r);
	for (uint32_t round = 1; round <= 3; round++) {
		shards_run(r->s, round % 2, fail_with_errors, (char *)"f2");
		assert_true(becomes_unusable(r, 0, "f2") && becomes_unusable(r, 1, "f2"));
		for (unsigned int i = 0; i < 2; i++)
			assert_int_equal(flash_ask(r, i, true, "f2"), 0);
		nap_ms(50);
		for (unsigned int i = 0; i < 2; i++) {
			assert_true(dev_on(r, i, "f2").usable);
			assert_int_equal(dev_on(r, i, "f2").failures, round);
		}
	}
}

/* ---- half-done changes ---------------------------------------------------------------------------------------------------------- */

static int undo(struct card *c, void *arg)
{
	card_pool_undo(c);
	return 0;
}

static void a_creation_that_fails_on_one_shard_leaves_nothing(void **state)
{
	struct rig *r = *state;
	struct create c;

	create_init(r, &c);
	assert_int_equal(shards_resize(r->s, 2, &r->e), 0);
	assert_int_equal(create_on(r, 1, &c), 0);
	c.msg.k = 9; /* too many for five devices */
	assert_int_equal(create_on(r, 0, &c), -EINVAL);
	assert_int_equal(shards_run(r->s, 1, undo, NULL), 0);
	assert_false(card_has_pool(shards_card(r->s, 1)));
	assert_int_equal(shards_resize(r->s, 1, &r->e), 0);
	assert_int_equal(shards_count(r->s), 1);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(shards_count(r->s), 1);
	all_up(r); /* without force */
	assert_int_equal(vms_on(r, 1), NVMS / 2);
}

/* The card dies between the creation on shard 1 and that on shard 0. */
static void a_pool_that_shard_0_does_not_have_is_none(void **state)
{
	struct rig *r = *state;
	struct create c;

	create_init(r, &c);
	assert_int_equal(shards_resize(r->s, 2, &r->e), 0);
	assert_int_equal(create_on(r, 1, &c), 0);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(shards_count(r->s), 1);
	assert_false(card_has_pool(shards_card(r->s, 0)));
	assert_int_equal(shards_resize(r->s, 2, &r->e), 0);
	assert_false(card_has_pool(shards_card(r->s, 1)));
	assert_int_equal(
		create_on(r, 1, &c), -EEXIST); /* what it holds is not overwritten unasked */
	c.msg.force = true;
	assert_int_equal(create_on(r, 1, &c), 0);
	assert_int_equal(create_on(r, 0, &c), 0);
}

struct put {
	struct tables_doc *doc;
	struct err e;
};

static int tables_of(struct card *c, void *arg)
{
	((struct put *)arg)->doc = card_tables(c);
	return 0;
}

static int tables_put(struct card *c, void *arg)
{
	struct put *p = arg;

	return card_put_tables(c, p->doc, &p->e);
}

static void a_push_can_be_undone_and_shard_0_is_right_at_start(void **state)
{
	struct rig *r = *state;
	struct put before = {NULL};
	struct push p;

	all_up(r);
	shards_run(r->s, 1, tables_of, &before);
	push_init(&p, 1);
	p.t.n_vms = p.t.n_devices = p.t.n_rows = NVMS; /* the same, newer */
	assert_int_equal(push_on(r, 1, &p), 0);
	assert_int_equal(card_tables_version(shards_card(r->s, 1)), 2);
	assert_int_equal(shards_run(r->s, 1, tables_put, &before), 0);
	tables_doc_put(before.doc);
	assert_int_equal(card_tables_version(shards_card(r->s, 1)), 1);
	assert_int_equal(vms_on(r, 1), NVMS / 2);

	assert_int_equal(push_on(r, 1, &p), 0); /* and it dies before shard 0 has it */
	rig_stop(r);
	rig_start(r);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(card_tables_version(shards_card(r->s, i)), 1);
}

/* ---- the card's parts ------------------------------------------------------------------------------------------------------------- */

static int limits_of(struct card *c, void *arg)
{
	mover_limits(c->mover, arg);
	return 0;
}

static void a_ceiling_is_of_the_card(void **state)
{
	struct rig *r = *state;
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TaskLimits l = PARAPET__TASK_LIMITS__INIT;
	struct mover_limits got[2];

	create_all(r);
	l.has_ceiling_bytes_per_s = true;
	l.ceiling_bytes_per_s = 100000001;
	req.op_case = PARAPET__REQUEST__OP_TASK_LIMITS;
	req.task_limits = &l;
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(ask_rc(r, i, call_task_limits, &req), 0);
		shards_run(r->s, i, limits_of, &got[i]);
	}
	assert_int_equal(
		got[0].ceiling_bytes_per_s + got[1].ceiling_bytes_per_s, l.ceiling_bytes_per_s);
	assert_true(got[0].ceiling_bytes_per_s - got[1].ceiling_bytes_per_s <= 1);
}

static void events_say_which_shard(void **state)
{
	struct rig *r = *state;
	struct event ev;
	uint64_t at = 0;
	bool one = false, two = false;

	create_all(r);
	while (events_next(card_events(shards_card(r->s, 0)), at, &ev) == 0) {
		at = ev.seq;
		if (strcmp(ev.kind, "pool-created"))
			continue;
		one |= !strncmp(ev.text, "shard 0: ", 9);
		two |= !strncmp(ev.text, "shard 1: ", 9);
	}
	assert_true(one && two);
}

static void cores_are_checked(void **state)
{
	static const char *const bad[] = {"", "x", "0,", ",0", "0,0", "0-", "1-0", "0 1", "9999",
		"0,99999999999999999999", "-1", "0;1"};
	struct rig *r = *state;
	uint64_t cpu_ns, up_ns;
	char first[16];
	cpu_set_t set;
	int cpu = 0;

	rig_stop(r);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		r->cores = bad[i];
		if (rig_try(r) != -EINVAL)
			fail_msg("taken: '%s'", bad[i]);
		assert_string_equal(r->e.object, "option --cores");
		rig_stop(r);
	}
	assert_int_equal(sched_getaffinity(0, sizeof(set), &set), 0);
	while (!CPU_ISSET(cpu, &set))
		cpu++;
	snprintf(first, sizeof(first), "%d", cpu);
	r->cores = first;
	rig_start(r);
	create_all(r);
	assert_int_equal(shards_cpu(r->s, 0), cpu);
	assert_int_equal(shards_cpu(r->s, 1), cpu); /* in turns */
	shards_time(r->s, 1, &cpu_ns, &up_ns);
	assert_true(cpu_ns > 0 && up_ns > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(two_shards_serve_their_own_vms_and_are_found_again),
		TEST(slices_of_a_pool_have_one_uuid_and_fixed_number),
		TEST(a_device_that_fails_in_one_shard_fails_in_the_other),
		TEST(failures_do_not_come_back),
		TEST(a_creation_that_fails_on_one_shard_leaves_nothing),
		TEST(a_pool_that_shard_0_does_not_have_is_none),
		TEST(a_push_can_be_undone_and_shard_0_is_right_at_start),
		TEST(a_ceiling_is_of_the_card),
		TEST(events_say_which_shard),
		TEST(cores_are_checked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
