/* SPDX-License-Identifier: BSD-3-Clause */
/* Which VM is on which shard, and of how many shards a pool is: remembered, lost, nonsense, asked of the pool. */
#include "tests/unit/shards_rig.h"

#include "dpu/control/assign.h"

/* ---- what is remembered ------------------------------------------------------------------------------------------------- */

static void assignments_are_read_with_care(void **state)
{
	static const struct {
		const char *what;
		size_t len;
		uint8_t b[24];
	} bad[] = {
		{"empty", 0, {0}},
		{"cut off", 7, {2, 0, 0, 0, 0, 0, 0}},
		{"no shards", 8, {0, 0, 0, 0, 0, 0, 0, 0}},
		{"17 shards", 8, {17, 0, 0, 0, 0, 0, 0, 0}},
		{"fewer VMs than said", 8, {2, 0, 0, 0, 1, 0, 0, 0}},
		{"more VMs than said", 16, {2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}},
		{"far too many VMs", 8, {2, 0, 0, 0, 255, 255, 255, 255}},
		{"a shard that is not there", 16, {2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 2, 0, 0, 0}},
		{"a VM twice", 24,
			{2, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0}},
		{"out of order", 24,
			{2, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0}},
	};
	static const uint8_t good[] = {
		2, 0, 0, 0, 2, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0};
	struct assign a;
	struct err e;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		memset(&e, 0, sizeof(e));
		if (assign_decode(bad[i].b, bad[i].len, &a, &e) != -EUCLEAN)
			fail_msg("taken: %s", bad[i].what);
		assert_true(e.reason[0] != 0);
		assert_int_equal(a.n, 0);
	}
	assert_int_equal(assign_decode(good, sizeof(good), &a, &e), 0);
	assert_int_equal(a.count, 2);
	assert_int_equal(assign_find(&a, 7), 1);
	assert_int_equal(assign_find(&a, 8), -ENOENT);
	assert_int_equal(assign_find(&a, 9), 0);
	assign_clear(&a);
}

static void assignments_grow_and_stay_in_order(void **state)
{
	struct assign a = {.count = 16}, b;

	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(assign_set(&a, i * 7919 % 1009 + 1, i % 16), 0);
	assert_int_equal(assign_copy(&a, &b), 0);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(assign_set(&b, 5000 + i, 3), 0);
	assert_int_equal(a.n, 1000);
	assert_int_equal(b.n, 1040);
	for (uint32_t i = 0; i < 1000; i++)
		assert_int_equal(assign_find(&b, i * 7919 % 1009 + 1), i % 16);
	for (size_t i = 1; i < b.n; i++)
		assert_true(b.vms[i - 1].vm < b.vms[i].vm);
	assign_clear(&a);
	assign_clear(&b);
}

/* ---- and what is not ------------------------------------------------------------------------------------------------------ */

static void state_write(struct rig *r, const char *name, const void *p, size_t len)
{
	char path[128];
	autoclose int fd = -1;

	snprintf(path, sizeof(path), "%s/%s", r->state, name);
	fd = open(path, O_WRONLY | O_TRUNC | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, p, len), (ssize_t)len);
}

static void check_found_again(struct rig *r, const unsigned int *where)
{
	rig_start(r);
	assert_int_equal(shards_count(r->s), 2);
	for (uint32_t vm = 1; vm <= NVMS; vm++)
		assert_int_equal(shards_of_vm(r->s, vm), where[vm]);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(vms_on(r, i), NVMS / 2);
	vms_check_data(r);
}

static void what_is_not_remembered_is_asked_of_the_pool(void **state)
{
	static const uint8_t zero_shards[] = {0, 0, 0, 0, 0, 0, 0, 0};
	struct rig *r = *state;
	unsigned int where[NVMS + 1];
	struct state_dir *dir;
	char path[128];

	all_up(r);
	vms_write(r);
	for (uint32_t vm = 1; vm <= NVMS; vm++)
		where[vm] = shards_of_vm(r->s, vm);
	rig_stop(r);
	state_write(r, "shards", "no such thing", 13); /* damaged */
	check_found_again(r, where);

	rig_stop(r);
	assert_int_equal(state_open(r->state, &dir, &r->e), 0); /* whole, but nonsense */
	assert_int_equal(state_save(dir, "shards", zero_shards, sizeof(zero_shards), &r->e), 0);
	state_close(dir);
	check_found_again(r, where);

	rig_stop(r);
	snprintf(path, sizeof(path), "%s/shards", r->state);
	assert_int_equal(unlink(path), 0); /* lost */
	check_found_again(r, where);
}

struct count {
	const Parapet__PoolOpen *open;
	unsigned int count;
	struct err e;
};

static int shards_asked(struct card *c, void *arg)
{
	struct count *n = arg;

	return card_pool_shards(c, n->open, &n->count, &n->e);
}

static void an_imported_pool_says_how_many_shards_it_has(void **state)
{
	struct rig *r = *state;
	struct count count = {0};
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__PoolOpen open = PARAPET__POOL_OPEN__INIT;
	struct create c;
	struct push p;
	char path[160];

	all_up(r);
	vms_write(r);
	rig_stop(r);
	tree_remove(r->state); /* another card, and devices that grew */
	for (int i = 0; i < NFLASH; i++) {
		snprintf(path, sizeof(path), "%s/f%d", r->dir, i);
		assert_int_equal(truncate(path, 2 * FLASH_BYTES), 0);
	}
	rig_start(r);
	assert_int_equal(shards_count(r->s), 1);
	create_init(r, &c);
	count.open = &open;
	open.flashes = c.list;
	open.n_flashes = NFLASH;
	open.has_take_over = open.take_over = true;
	req.op_case = PARAPET__REQUEST__OP_POOL_OPEN;
	req.pool_open = &open;
	assert_int_equal(ask_rc(r, 0, call_pool_open, &req), -EXDEV); /* not as one */
	push_init(&p, 0); /* all VMs are on shard 0 for now */
	assert_int_equal(push_on(r, 0, &p), 0);
	assert_int_equal(shards_run(r->s, 0, shards_asked, &count), 0);
	assert_int_equal(count.count, 2);
	assert_int_equal(shards_resize(r->s, 2, &r->e), 0);
	for (unsigned int i = 2; i-- > 0;)
		if (ask_rc(r, i, call_pool_open, &req) < 0)
			fail_msg("shard %u: %s", i, err_text(&r->e));
	assert_int_equal(shards_place_vms(r->s, NULL, &r->e), 0);
	shards_vms_again(r->s);
	vms_check_data(r);
	assert_int_equal(vms_on(r, 0) + vms_on(r, 1), NVMS);
}

/* ---- which VM is where ------------------------------------------------------------------------------------------------------------- */

static void ports_are_shard_0s(void **state)
{
	struct rig *r = *state;
	char port[NVMS][16], ip[NVMS][16];
	struct push p;

	create_all(r);
	push_init(&p, 0);
	for (int i = 0; i < NVMS; i++) { /* all come in over ports */
		snprintf(port[i], sizeof(port[i]), "net_memif%d", i);
		snprintf(ip[i], sizeof(ip[i]), "10.0.0.%d/24", i + 1);
		p.vm[i].listen = NULL;
		p.vm[i].port = port[i];
		p.vm[i].card_ip = ip[i];
	}
	assert_int_equal(shards_place_vms(r->s, &p.t, &r->e), 0);
	for (uint32_t vm = 1; vm <= NVMS; vm++)
		assert_int_equal(shards_of_vm(r->s, vm), 0);
	assert_int_equal(shards_put_vm(r->s, 2, 1, &r->e), 0);
	assert_int_equal(push_on(r, 1, &p), -EINVAL);
	assert_string_equal(r->e.field, "port");
	assert_non_null(strstr(r->e.reason, "shard 1"));
	assert_int_equal(shards_put_vm(r->s, 2, 2, &r->e), -EINVAL); /* no such shard */
}

static void a_vm_without_devices_goes_where_it_is_put(void **state)
{
	struct rig *r = *state;
	struct push p;
	uint32_t vm = 1;

	create_all(r);
	push_init(&p, 0);
	push_all(r, &p);
	while (shards_of_vm(r->s, vm) != 1)
		vm++;
	assert_int_equal(shards_put_vm(r->s, vm, 0, &r->e), 0);
	shards_vms_again(r->s);
	assert_int_equal(vms_on(r, 0), NVMS / 2 + 1);
	assert_int_equal(vms_on(r, 1), NVMS / 2 - 1);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(shards_of_vm(r->s, vm), 0);
	assert_int_equal(vms_on(r, 0), NVMS / 2 + 1);
	push_init(&p, 1);
	p.t.n_vms = p.t.n_devices = p.t.n_rows = vm -
						 1; /* it goes: not before the push has happened */
	assert_int_equal(shards_place_vms(r->s, &p.t, &r->e), 0);
	assert_int_equal(vms_on(r, 0), NVMS / 2 + 1);
}

/* Where the state directory says one thing and the pool another, devices are where they are. */
static void devices_outweigh_what_was_said(void **state)
{
	struct rig *r = *state;
	uint32_t vm = 1;

	all_up(r);
	while (shards_of_vm(r->s, vm) != 1)
		vm++;
	assert_int_equal(shards_put_vm(r->s, vm, 0, &r->e), 0);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(shards_of_vm(r->s, vm), 1);
	assert_int_equal(vms_on(r, 1), NVMS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(assignments_are_read_with_care),
		cmocka_unit_test(assignments_grow_and_stay_in_order),
		TEST(what_is_not_remembered_is_asked_of_the_pool),
		TEST(an_imported_pool_says_how_many_shards_it_has),
		TEST(ports_are_shard_0s),
		TEST(a_vm_without_devices_goes_where_it_is_put),
		TEST(devices_outweigh_what_was_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
