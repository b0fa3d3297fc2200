/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/endian.h"
#include "common/base/err.h"
#include "common/base/reader.h"
#include "common/base/units.h"
#include "common/base/util.h"

#include <errno.h>

static void sizes_are_parsed_in_binary_units(void **state)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {{"0", 0}, {"4096", 4096}, {"1K", 1024}, {"10G", 10ULL << 30},
		{"512MiB", 512ULL << 20}, {"3 TiB", 3ULL << 40}, {"7b", 7}};
	static const char *const bad[] = {"", "x", "-1", "1X", "1iB", "1KiBs", " 1", "1.5G"};
	uint64_t v;

	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(units_parse_bytes(good[i].text, &v), 0);
		assert_int_equal(v, good[i].bytes);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(units_parse_bytes(bad[i], &v), -EINVAL);
	assert_int_equal(units_parse_bytes("99999999999999999999", &v), -ERANGE);
	assert_int_equal(units_parse_bytes("16777216T", &v), -ERANGE);
}

static void sizes_are_printed_for_people(void **state)
{
	char b[32];

	assert_string_equal(units_format_bytes(512, b, sizeof(b)), "512 B");
	assert_string_equal(units_format_bytes(10ULL << 30, b, sizeof(b)), "10 GiB");
	assert_string_equal(units_format_bytes(1536, b, sizeof(b)), "1.5 KiB");
}

static void typed_integers_keep_their_byte_order(void **state)
{
	le32 l = to_le32(0x01020304);
	be64 b = to_be64(0x0102030405060708);

	assert_int_equal(l.b[0], 4);
	assert_int_equal(b.b[0], 1);
	assert_int_equal(from_le32(l), 0x01020304);
	assert_int_equal(from_be64(b), 0x0102030405060708);
}

static void a_reader_never_passes_its_end(void **state)
{
	uint8_t buf[8] = {0};
	struct reader r = reader_of(buf, sizeof(buf));

	assert_non_null(reader_get(&r, 8));
	assert_null(reader_get(&r, 1));
	assert_null(reader_get(&r, 0));
	r = reader_of(buf, sizeof(buf));
	assert_null(reader_get_array(&r, SIZE_MAX / 2, 4));
	assert_true(r.bad);
}

static void an_error_names_object_field_and_reason(void **state)
{
	struct err e;

	assert_int_equal(err_set(&e, -EINVAL, "vm web1", "size", "%d is too small", 3), -EINVAL);
	assert_string_equal(err_text(&e), "vm web1: size: 3 is too small");
	assert_int_equal(err_set(NULL, -EIO, NULL, NULL, "unused"), -EIO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_parsed_in_binary_units),
		cmocka_unit_test(sizes_are_printed_for_people),
		cmocka_unit_test(typed_integers_keep_their_byte_order),
		cmocka_unit_test(a_reader_never_passes_its_end),
		cmocka_unit_test(an_error_names_object_field_and_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
