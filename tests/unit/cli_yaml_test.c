/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/util.h"
#include "host-agent/cli/yaml.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void yaml_becomes_the_json_people_mean(void **state)
{
	static const struct {
		const char *yaml, *json;
	} c[] = {
		{"a: 1", "{\"a\":1}"},
		{"a: -7", "{\"a\":-7}"},
		{"a: '1'", "{\"a\":\"1\"}"},
		{"a: 007", "{\"a\":\"007\"}"},
		{"a: 4+2", "{\"a\":\"4+2\"}"},
		{"a: 10G", "{\"a\":\"10G\"}"},
		{"a: true\nb: FALSE\nc: on", "{\"a\":true,\"b\":false,\"c\":\"on\"}"},
		{"a: ~\nb:\nc: null\nd: ''", "{\"a\":null,\"b\":null,\"c\":null,\"d\":\"\"}"},
		{"a: [x, {b: c}]", "{\"a\":[\"x\",{\"b\":\"c\"}]}"},
		{"- 1\n- two", "[1,\"two\"]"},
		{"a: 99999999999999999999", "{\"a\":\"99999999999999999999\"}"},
		{"a: file:/x # why", "{\"a\":\"file:/x\"}"},
		{"{\"a\": [1, \"b\"]}", "{\"a\":[1,\"b\"]}"},
		{"x: &x {a: 1}\ny: *x", "{\"x\":{\"a\":1},\"y\":{\"a\":1}}"},
	};

	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		struct err e = {0};
		json_t *o = NULL;
		char *text;

		if (yaml_parse(c[i].yaml, strlen(c[i].yaml), &o, &e) < 0)
			fail_msg("%s: %s", c[i].yaml, err_text(&e));
		text = json_dumps(o, JSON_COMPACT);
		assert_string_equal(text, c[i].json);
		free(text);
		json_decref(o);
	}
}

static void what_is_not_one_document_is_refused_with_the_line(void **state)
{
	static const char *const bad[] = {"", "# only a comment\n", "a: [", "a: b: c", "a: 1\na: 2",
		"{[x]: 1}", "a: 1\n---\nb: 2", "\ta: 1", "a: *nobody", "a: &a [*a]", "a: \"\xff\"",
		"a: \"\\x00\"\n\x01"};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err e = {0};
		json_t *o = NULL;

		if (yaml_parse(bad[i], strlen(bad[i]), &o, &e) != -EINVAL)
			fail_msg("'%s' was taken", bad[i]);
		assert_null(o);
		assert_true(e.reason[0]);
	}
}

static void depth_is_bounded(void **state)
{
	char text[256];
	struct err e;
	json_t *o;

	memset(text, '[', 32);
	memset(text + 32, ']', 32);
	assert_int_equal(yaml_parse(text, 64, &o, &e), 0);
	json_decref(o);
	memset(text, '[', 64);
	memset(text + 64, ']', 64);
	assert_int_equal(yaml_parse(text, 128, &o, &e), -EINVAL);
	assert_non_null(strstr(e.reason, "too deep"));
}

static void files_that_cannot_be_read_say_why(void **state)
{
	struct err e;
	json_t *o;

	assert_int_equal(yaml_load("/no/such/file", &o, &e), -ENOENT);
	assert_string_equal(e.object, "file /no/such/file");
	assert_true(yaml_load("/tmp", &o, &e) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(yaml_becomes_the_json_people_mean),
		cmocka_unit_test(what_is_not_one_document_is_refused_with_the_line),
		cmocka_unit_test(depth_is_bounded),
		cmocka_unit_test(files_that_cannot_be_read_say_why),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
