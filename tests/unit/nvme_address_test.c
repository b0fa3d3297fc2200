/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/address.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/util.h"

static void a_whole_address_is_taken_apart(void **state)
{
	struct nvme_address a;
	struct err e = {0};

	assert_int_equal(nvme_address_parse("nvme+tcp://[fe80::1]:4421,10.0.0.3:1,[::1],10.0.0.2/"
					    "nqn.2026-01.test:a/b#c#4294967294?hdgst&ddgst&"
					    "queues=64&depth=1023&keep-alive=500&zero-copy&"
					    "restart-min=600000",
				 &a, "flash f0", "address", &e),
		0);
	assert_false(a.rdma);
	assert_int_equal(a.npaths, 4);
	assert_string_equal(a.paths[0].host, "fe80::1");
	assert_int_equal(a.paths[0].port, 4421);
	assert_string_equal(a.paths[1].host, "10.0.0.3");
	assert_int_equal(a.paths[1].port, 1);
	assert_string_equal(a.paths[2].host, "::1");
	assert_int_equal(a.paths[2].port, 4420);
	assert_string_equal(a.paths[3].host, "10.0.0.2");
	assert_string_equal(a.subnqn, "nqn.2026-01.test:a/b#c");
	assert_int_equal(a.nsid, UINT32_MAX - 1);
	assert_true(a.hdgst && a.ddgst && a.zero_copy);
	assert_int_equal(a.queues, 64);
	assert_int_equal(a.depth, 1023);
	assert_int_equal(a.keep_alive_ms, 500);
	assert_int_equal(a.restart_min_ms, 600000);
}

static void what_is_not_named_is_left_to_others(void **state)
{
	struct nvme_address a;

	assert_int_equal(nvme_address_parse("nvme+rdma://[::1]/nqn.x#1", &a, "f", "a", NULL), 0);
	assert_true(a.rdma);
	assert_int_equal(a.npaths, 1);
	assert_int_equal(a.paths[0].port, 4420);
	assert_false(a.hdgst || a.ddgst || a.zero_copy);
	assert_int_equal(a.queues + a.depth + a.keep_alive_ms + a.restart_min_ms, 0);
	assert_int_equal(nvme_address_parse_rest(
				 true, "//10.0.0.2/nqn.x#3?restart-min=1", &a, "f", NULL, NULL),
		0);
	assert_true(a.rdma);
	assert_int_equal(a.nsid, 3);
	assert_int_equal(a.restart_min_ms, 1);
}

static void a_host_comes_in_its_shortest_spelling(void **state)
{
	struct nvme_address a;
	char host[64];
	uint16_t port = 7;

	assert_int_equal(
		nvme_address_parse("nvme+tcp://[FD00:0:0::02]/nqn.x#1", &a, "f", "a", NULL), 0);
	assert_string_equal(a.paths[0].host, "fd00::2");
	assert_int_equal(nvme_host_parse("[0:0:0:0:0:0:0:1]", 17, host, &port), 0);
	assert_string_equal(host, "::1");
	assert_int_equal(port, 7);
	assert_int_equal(nvme_host_parse("10.0.0.2:80/and more", 11, host, &port), 0);
	assert_string_equal(host, "10.0.0.2");
	assert_int_equal(port, 80);
	assert_int_equal(nvme_host_parse("", 0, host, &port), -EINVAL);
}

#define AT "nvme+tcp://10.0.0.2/nqn.x#1"
static const struct {
	const char *text, *field, *says;
} bad[] = {
	{"", "transport", "nvme+tcp://..., nvme+rdma://..."},
	{"nvme+fc://10.0.0.2/nqn.x#1", "transport", "missing in 'nvme+fc"},
	{"nvme+tcp:", "address", "does not begin with nvme+tcp://"},
	{"nvme+rdma:10.0.0.2/nqn.x#1", "address", "does not begin with nvme+rdma://"},
	{"nvme+tcp://", "NQN", "missing"},
	{"nvme+tcp://10.0.0.2", "NQN", "missing"},
	{"nvme+tcp:///nqn.x#1", "host", "missing"},
	{"nvme+tcp://10.0.0.2,/nqn.x#1", "host", "missing"},
	{"nvme+tcp://,10.0.0.2/nqn.x#1", "host", "missing"},
	{"nvme+tcp://peer.example/nqn.x#1", "host", "'peer.example' is not a numeric IPv4"},
	{"nvme+tcp://10.0.0/nqn.x#1", "host", "[IPv6][:PORT]"},
	{"nvme+tcp://fd00::2/nqn.x#1", "host", "[IPv6][:PORT]"},
	{"nvme+tcp://::1/nqn.x#1", "host", "[IPv6][:PORT]"},
	{"nvme+tcp://[fd00::2/nqn.x#1", "host", "bracket"},
	{"nvme+tcp://[fd00::2]x/nqn.x#1", "host", "'x' stands behind the bracket"},
	{"nvme+tcp://[10.0.0.2]/nqn.x#1", "host", "numeric IPv6"},
	{"nvme+tcp://[]/nqn.x#1", "host", "numeric IPv6"},
	{"nvme+tcp://[fe80::1%eth0]/nqn.x#1", "host", "numeric IPv6"},
	{"nvme+tcp://1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5/nqn.x#1", "host", "4 paths"},
	{"nvme+tcp://10.0.0.2,10.0.0.2:4420/nqn.x#1", "host", "twice"},
	{"nvme+tcp://[::1],[0::1]/nqn.x#1", "host", "twice"},
	{"nvme+tcp://10.0.0.2:0/nqn.x#1", "port", "1 to 65535"},
	{"nvme+tcp://10.0.0.2:65536/nqn.x#1", "port", "1 to 65535"},
	{"nvme+tcp://10.0.0.2:/nqn.x#1", "port", "1 to 65535"},
	{"nvme+tcp://10.0.0.2:4x/nqn.x#1", "port", "'4x'"},
	{"nvme+tcp://10.0.0.2:99999999999999999999/nqn.x#1", "port", "1 to 65535"},
	{"nvme+tcp://10.0.0.2/#1", "NQN", "219 more"},
	{"nvme+tcp://10.0.0.2/nqn.#1", "NQN", "219 more"},
	{"nvme+tcp://10.0.0.2/disk#1", "NQN", "'disk'"},
	{"nvme+tcp://10.0.0.2/nqn.a b#1", "NQN", "without spaces"},
	{"nvme+tcp://10.0.0.2/nqn.\xc3\xa4#1", "NQN", "ASCII"},
	{"nvme+tcp://10.0.0.2/nqn.x", "namespace", "missing"},
	{"nvme+tcp://10.0.0.2/nqn.x?queues=2#1", "namespace", "missing"},
	{"nvme+tcp://10.0.0.2/nqn.x#", "namespace", "1 to 4294967294"},
	{"nvme+tcp://10.0.0.2/nqn.x#0", "namespace", "1 to 4294967294"},
	{"nvme+tcp://10.0.0.2/nqn.x#4294967295", "namespace", "1 to 4294967294"},
	{"nvme+tcp://10.0.0.2/nqn.x#1x", "namespace", "'1x'"},
	{AT "?", "option", "restart-min=1..600000"},
	{AT "?speed=9", "option", "hdgst, ddgst, zero-copy, queues=1..64, depth=2..1023"},
	{AT "?hdgst&", "option", "'' is not known"},
	{AT "?hdgst&hdgst", "hdgst", "twice"},
	{AT "?queues=2&queues=3", "queues", "twice"},
	{AT "?hdgst=1", "hdgst", "no value"},
	{AT "?queues", "queues", "1 to 64"},
	{AT "?queues=0", "queues", "1 to 64"},
	{AT "?queues=65", "queues", "1 to 64"},
	{AT "?queues=99999999999999999999", "queues", "1 to 64"},
	{AT "?depth=1", "depth", "2 to 1023"},
	{AT "?depth=1024", "depth", "2 to 1023"},
	{AT "?keep-alive=99", "keep-alive", "100 to 60000"},
	{AT "?keep-alive=-5", "keep-alive", "100 to 60000"},
	{AT "?keep-alive=60001", "keep-alive", "100 to 60000"},
	{AT "?restart-min=0", "restart-min", "1 to 600000"},
	{AT "?restart-min=600001", "restart-min", "1 to 600000"},
	{AT "?restart-min", "restart-min", "1 to 600000"},
	{"nvme+rdma://10.0.0.2/nqn.x#1?hdgst", "hdgst", "nvme+rdma"},
	{"nvme+rdma://10.0.0.2/nqn.x#1?speed", "option", "allowed: queues"},
};

static void malformed_addresses_are_refused_by_the_part_that_is_bad(void **state)
{
	struct nvme_address a;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = {0};

		assert_int_equal(nvme_address_parse(bad[i].text, &a, "f0", NULL, &e), -EINVAL);
		assert_string_equal(e.object, "f0");
		assert_string_equal(e.field, bad[i].field);
		if (!strstr(e.reason, bad[i].says) || !strstr(e.reason, "; allowed: "))
			fail_msg("%s: %s", bad[i].text, e.reason);
	}
}

static void a_caller_with_a_field_reads_the_part_in_the_reason(void **state)
{
	struct nvme_address a;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = {0};

		assert_int_equal(nvme_address_parse(bad[i].text, &a, "f0", "address", &e), -EINVAL);
		assert_string_equal(e.field, "address");
		if (strncmp(e.reason, bad[i].field, strlen(bad[i].field)) != 0 ||
			!strstr(e.reason, bad[i].says))
			fail_msg("%s: %s", bad[i].text, e.reason);
	}
}

static void names_and_addresses_have_a_longest_length(void **state)
{
	char nqn[NVME_ADDRESS_TEXT_MAX + 1], text[2 * NVME_ADDRESS_TEXT_MAX];
	struct nvme_address a;
	struct err e = {0};

	memset(nqn, 'x', sizeof(nqn));
	memcpy(nqn, "nqn.", 4);
	snprintf(text, sizeof(text), "nvme+tcp://10.0.0.2/%.223s#1", nqn);
	assert_int_equal(nvme_address_parse(text, &a, "f0", NULL, &e), 0);
	assert_int_equal(strlen(a.subnqn), 223);
	snprintf(text, sizeof(text), "nvme+tcp://10.0.0.2/%.224s#1", nqn);
	assert_int_equal(nvme_address_parse(text, &a, "f0", NULL, &e), -EINVAL);
	assert_string_equal(e.field, "NQN");
	snprintf(text, sizeof(text), "nvme+tcp://10.0.0.2/%.511s#1", nqn);
	assert_int_equal(nvme_address_parse(text, &a, "f0", NULL, &e), -EINVAL);
	assert_string_equal(e.field, "address");
	assert_non_null(strstr(e.reason, "511"));
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
		cmocka_unit_test(what_is_not_named_is_left_to_others),
		cmocka_unit_test(a_host_comes_in_its_shortest_spelling),
		cmocka_unit_test(malformed_addresses_are_refused_by_the_part_that_is_bad),
		cmocka_unit_test(a_caller_with_a_field_reads_the_part_in_the_reason),
		cmocka_unit_test(names_and_addresses_have_a_longest_length),
		cmocka_unit_test(the_domain_is_the_first_host_as_a_name),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
