/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/address.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/util.h"

static void a_whole_address_is_taken_apart(void **state)
{
	struct nvme_address a;
	struct err e = {0};

	assert_int_equal(nvme_address_parse(
				 "nvme+tcp://10.0.0.2,[fd00::2]:4421/nqn.2026-01.test:a/b#7?hdgst&"
				 "queues=4&keep-alive=500",
				 &a, "flash f0", "address", &e),
		0);
	assert_false(a.rdma);
	assert_int_equal(a.npaths, 2);
	assert_string_equal(a.paths[0].host, "10.0.0.2");
	assert_int_equal(a.paths[0].port, 4420);
	assert_string_equal(a.paths[1].host, "fd00::2");
	assert_int_equal(a.paths[1].port, 4421);
	assert_string_equal(a.subnqn, "nqn.2026-01.test:a/b");
	assert_int_equal(a.nsid, 7);
	assert_true(a.hdgst && !a.ddgst && a.keep_alive_ms == 500);
	assert_int_equal(a.queues, 4);
	assert_int_equal(nvme_address_parse("nvme+rdma://[::1]/nqn.x#1", &a, "f", "a", NULL), 0);
	assert_true(a.rdma);
}

static void malformed_addresses_are_refused_with_what_is_allowed(void **state)
{
	static const struct {
		const char *text, *says;
	} bad[] = {
		{"nvme+tcp://", "no subsystem"},
		{"nvme+tcp:///nqn.x#1", "no host"},
		{"nvme+tcp://10.0.0.2/nqn.x", "no #NSID"},
		{"nvme+tcp://10.0.0.2", "no subsystem"},
		{"nvme+tcp://peer.example/nqn.x#1", "is no host"},
		{"nvme+tcp://10.0.0.2:0/nqn.x#1", "is no host"},
		{"nvme+tcp://10.0.0.2:65536/nqn.x#1", "is no host"},
		{"nvme+tcp://10.0.0.2:/nqn.x#1", "is no host"},
		{"nvme+tcp://fd00::2/nqn.x#1", "is no host"},
		{"nvme+tcp://[fd00::2/nqn.x#1", "is no host"},
		{"nvme+tcp://[fd00::2]x/nqn.x#1", "is no host"},
		{"nvme+tcp://10.0.0.2,/nqn.x#1", "no host behind"},
		{"nvme+tcp://,10.0.0.2/nqn.x#1", "is no host"},
		{"nvme+tcp://1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5/nqn.x#1", "too many"},
		{"nvme+tcp://10.0.0.2/disk#1", "no subsystem name"},
		{"nvme+tcp://10.0.0.2/nqn.a b#1", "not allowed"},
		{"nvme+tcp://10.0.0.2/nqn.x#0", "namespace number"},
		{"nvme+tcp://10.0.0.2/nqn.x#4294967295", "namespace number"},
		{"nvme+tcp://10.0.0.2/nqn.x#1x", "namespace number"},
		{"nvme+tcp://10.0.0.2/nqn.x#", "namespace number"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?", "option"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?queues=0", "option"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?queues=99999999999999999999", "option"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?speed", "option"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?hdgst=1", "option"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?queues", "option"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?queues=2&queues=3", "option"},
		{"nvme+tcp://10.0.0.2/nqn.x#1?depth=1", "option"},
		{"nvme+tcp://10.0.0.2,10.0.0.2:4420/nqn.x#1", "twice"},
		{"nvme+rdma://10.0.0.2/nqn.x#1?hdgst", "option"},
		{"nvme+fc://10.0.0.2/nqn.x#1", "names no transport"},
	};
	struct nvme_address a;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = {0};

		assert_int_equal(
			nvme_address_parse(bad[i].text, &a, "flash f0", "address", &e), -EINVAL);
		assert_string_equal(e.object, "flash f0");
		assert_string_equal(e.field, "address");
		if (!strstr(e.reason, bad[i].says))
			fail_msg("%s: %s", bad[i].text, e.reason);
	}
}

static void the_domain_is_the_first_host_as_a_name(void **state)
{
	struct nvme_address a;
	char domain[64], text[80];

	nvme_address_parse("nvme+tcp://10.0.0.2,10.0.1.2/nqn.x#1", &a, NULL, NULL, NULL);
	nvme_address_domain(&a, domain);
	assert_string_equal(domain, "10.0.0.2");
	nvme_address_parse("nvme+tcp://[::1]/nqn.x#1", &a, NULL, NULL, NULL);
	nvme_address_domain(&a, domain);
	assert_string_equal(domain, "0--1");
	assert_string_equal(nvme_host_text("::1", 80, text, sizeof(text)), "[::1]:80");
	assert_string_equal(nvme_host_text("1.2.3.4", 80, text, sizeof(text)), "1.2.3.4:80");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_whole_address_is_taken_apart),
		cmocka_unit_test(malformed_addresses_are_refused_with_what_is_allowed),
		cmocka_unit_test(the_domain_is_the_first_host_as_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
