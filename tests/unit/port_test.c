/* SPDX-License-Identifier: BSD-3-Clause */
/* The bridge's address table and the naming of representors, without EAL. */
#include <errno.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/port/fdb.h"
#include "dpu/port/vfname.h"

#define UPLINK 0
#define VF1    1
#define VF2    2

static const uint8_t mac_a[6] = {0x02, 0, 0, 0, 0, 0xa};

static struct fdb *fdb_new(uint32_t entries, uint32_t per_port)
{
	struct fdb *f;

	assert_int_equal(
		fdb_open(
			&(struct fdb_cfg){
				.entries = entries, .age_s = 300, .per_port = per_port, .seed = 7},
			&f),
		0);
	return f;
}

static void mac_of(uint32_t i, uint8_t mac[6])
{
	mac[0] = 2;
	mac[1] = 0xaa;
	memcpy(mac + 2, &i, 4);
}

static void finds_what_it_learnt_until_it_has_aged(void **state)
{
	struct fdb *f = fdb_new(64, 0);

	assert_int_equal(fdb_find(f, mac_a, 0), FDB_NONE);
	assert_int_equal(fdb_learn(f, mac_a, VF1, false, 10), 0);
	assert_int_equal(fdb_find(f, mac_a, 310), VF1);
	assert_int_equal(fdb_find(f, mac_a, 311), FDB_NONE);
	assert_int_equal(fdb_learn(f, mac_a, VF1, false, 400), 0);
	assert_int_equal(fdb_find(f, mac_a, 700), VF1);
	fdb_close(f);
}

static void never_learns_group_or_zero_addresses(void **state)
{
	static const uint8_t zero[6], bcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
				      mcast[6] = {1, 0, 0x5e, 0, 0, 1};
	struct fdb *f = fdb_new(64, 0);
	struct fdb_stats st;

	assert_int_equal(fdb_learn(f, zero, VF1, false, 0), -EINVAL);
	assert_int_equal(fdb_learn(f, bcast, VF1, false, 0), -EINVAL);
	assert_int_equal(fdb_learn(f, mcast, VF1, false, 0), -EINVAL);
	assert_int_equal(fdb_learn(f, mac_a, FDB_PORTS, false, 0), -EINVAL);
	assert_int_equal(fdb_find(f, zero, 0), FDB_NONE);
	fdb_stats(f, &st);
	assert_int_equal(st.used, 0);
	fdb_close(f);
}

static void a_vf_cannot_take_over_another_vfs_address(void **state)
{
	struct fdb *f = fdb_new(64, 0);
	struct fdb_stats st;

	assert_int_equal(fdb_learn(f, mac_a, VF1, false, 0), 0);
	assert_int_equal(fdb_learn(f, mac_a, VF2, false, 5), -EPERM);
	assert_int_equal(fdb_find(f, mac_a, 5), VF1);
	/* Aged, it may. */
	assert_int_equal(fdb_learn(f, mac_a, VF2, false, 301), 0);
	assert_int_equal(fdb_find(f, mac_a, 301), VF2);
	fdb_stats(f, &st);
	assert_int_equal(st.refused_moves, 1);
	assert_int_equal(st.moves, 1);
	fdb_close(f);
}

static void an_address_moves_between_vf_and_uplink(void **state)
{
	struct fdb *f = fdb_new(64, 0);

	assert_int_equal(fdb_learn(f, mac_a, VF1, false, 0), 0);
	assert_int_equal(fdb_learn(f, mac_a, UPLINK, true, 1), 0);
	assert_int_equal(fdb_find(f, mac_a, 1), UPLINK);
	assert_int_equal(fdb_learn(f, mac_a, VF2, false, 2), 0);
	assert_int_equal(fdb_find(f, mac_a, 2), VF2);
	fdb_close(f);
}

static void a_vf_that_floods_addresses_keeps_to_its_share(void **state)
{
	struct fdb *f = fdb_new(1024, 16);
	struct fdb_stats st;
	uint8_t mac[6];
	unsigned int known = 0;

	assert_int_equal(fdb_learn(f, mac_a, VF2, false, 0), 0);
	for (uint32_t i = 0; i < 1000; i++) {
		mac_of(i, mac);
		assert_int_equal(fdb_learn(f, mac, VF1, false, 0), i < 16 ? 0 : -ENOSPC);
	}
	for (uint32_t i = 0; i < 1000; i++) {
		mac_of(i, mac);
		known += fdb_find(f, mac, 0) == VF1;
	}
	assert_int_equal(known, 16);
	assert_int_equal(fdb_find(f, mac_a, 0), VF2);
	/* What has aged is given back, also while the port is at its limit. */
	mac_of(5000, mac);
	assert_int_equal(fdb_learn(f, mac, VF1, false, 301), 0);
	fdb_stats(f, &st);
	assert_int_equal(st.refused_share, 984);
	fdb_close(f);
}

static void a_full_table_forgets_and_never_grows(void **state)
{
	struct fdb *f = fdb_new(64, 0);
	struct fdb_stats st;
	uint8_t mac[6];

	for (uint32_t i = 0; i < 10000; i++) {
		mac_of(i, mac);
		assert_int_equal(fdb_learn(f, mac, UPLINK, true, i), 0);
		assert_int_equal(fdb_find(f, mac, i), UPLINK);
	}
	fdb_stats(f, &st);
	assert_in_range(st.used, 1, 64);
	fdb_close(f);
}

static void forgets_a_port_that_went(void **state)
{
	struct fdb *f = fdb_new(64, 1);
	uint8_t mac[6];

	mac_of(1, mac);
	assert_int_equal(fdb_learn(f, mac_a, VF1, false, 0), 0);
	assert_int_equal(fdb_learn(f, mac, VF2, false, 0), 0);
	fdb_forget_port(f, VF1);
	assert_int_equal(fdb_find(f, mac_a, 0), FDB_NONE);
	assert_int_equal(fdb_find(f, mac, 0), VF2);
	/* The share is free again. */
	assert_int_equal(fdb_learn(f, mac_a, VF1, false, 0), 0);
	fdb_close(f);
}

static void maps_representor_numbers_through_the_drivers_ranges(void **state)
{
	/* As a two-port card numbers them: VFs of PF 0 and 1, SFs, the host's PF. */
	static const struct vfname_range r[] = {
		{VFNAME_VF, 0, 0x0000, 0x0ffe, 0},
		{VFNAME_PF, 0, 0x0fff, 0x0fff, 0},
		{VFNAME_SF, 0, 0x1000, 0x1ffe, 0},
		{VFNAME_VF, 1, 0x4000, 0x4ffe, 0},
	};
	struct vfname v;
	char buf[24];

	assert_int_equal(vfname_of_representor(r, ARRAY_LEN(r), 3, &v), 0);
	assert_string_equal(vfname_format(&v, buf, sizeof(buf)), "pf0vf3");
	assert_int_equal(vfname_of_representor(r, ARRAY_LEN(r), 0x0fff, &v), 0);
	assert_string_equal(vfname_format(&v, buf, sizeof(buf)), "pf0");
	assert_int_equal(vfname_of_representor(r, ARRAY_LEN(r), 0x1058, &v), 0);
	assert_string_equal(vfname_format(&v, buf, sizeof(buf)), "pf0sf88");
	assert_int_equal(vfname_of_representor(r, ARRAY_LEN(r), 0x4001, &v), 0);
	assert_string_equal(vfname_format(&v, buf, sizeof(buf)), "pf1vf1");
	assert_int_equal(vfname_of_representor(r, ARRAY_LEN(r), 0x8000, &v), -ENOENT);
	assert_int_equal(vfname_of_representor(NULL, 0, 5, &v), 0);
	assert_string_equal(vfname_format(&v, buf, sizeof(buf)), "pf0vf5");
}

static void parses_names_as_it_prints_them(void **state)
{
	static const char *const bad[] = {"", "vf", "pf", "pfvf1", "vf1x", "pf0vf", "vf-1", "vf 1",
		"pf70000vf1", "vf4294967296", "net_memif0", "pf0vf1vf2"};
	struct vfname v;
	bool any;

	assert_int_equal(vfname_parse("pf1vf12", &v, &any), 0);
	assert_true(v.kind == VFNAME_VF && v.pf == 1 && v.num == 12 && !any);
	assert_int_equal(vfname_parse("vf3", &v, &any), 0);
	assert_true(v.kind == VFNAME_VF && v.num == 3 && any);
	assert_int_equal(vfname_parse("pf1", &v, &any), 0);
	assert_true(v.kind == VFNAME_PF && v.pf == 1);
	assert_int_equal(vfname_parse("pf0sf88", &v, &any), 0);
	assert_true(v.kind == VFNAME_SF && v.num == 88);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(vfname_parse(bad[i], &v, &any), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_what_it_learnt_until_it_has_aged),
		cmocka_unit_test(never_learns_group_or_zero_addresses),
		cmocka_unit_test(a_vf_cannot_take_over_another_vfs_address),
		cmocka_unit_test(an_address_moves_between_vf_and_uplink),
		cmocka_unit_test(a_vf_that_floods_addresses_keeps_to_its_share),
		cmocka_unit_test(a_full_table_forgets_and_never_grows),
		cmocka_unit_test(forgets_a_port_that_went),
		cmocka_unit_test(maps_representor_numbers_through_the_drivers_ranges),
		cmocka_unit_test(parses_names_as_it_prints_them),
	};

	return cmocka_run_group_tests_name("port", tests, NULL, NULL);
}
