/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/core/io.h"
#include "dpu/core/mem.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bit by bit, from the polynomial: the twin that the fast one is held against. */
static uint32_t crc32c_slow(const uint8_t *p, size_t n)
{
	uint32_t crc = 0xffffffffu;

	while (n--) {
		crc ^= *p++;
		for (int i = 0; i < 8; i++)
			crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return ~crc;
}

static void crc32c_has_the_published_check_value(void **state)
{
	uint8_t zeros[32] = {0};

	assert_int_equal(crc32c("123456789", 9), 0xe3069283);
	assert_int_equal(crc32c(zeros, sizeof(zeros)), 0x8a9136aa); /* RFC 3720, B.4 */
	assert_int_equal(crc32c("", 0), 0);
}

static void crc32c_in_pieces_of_any_length_equals_the_slow_one(void **state)
{
	uint8_t buf[9000];
	uint64_t r = 88172645463325252ull;

	for (size_t i = 0; i < sizeof(buf); i++) {
		r ^= r << 13, r ^= r >> 7, r ^= r << 17;
		buf[i] = (uint8_t)r;
	}
	for (size_t len = 0; len < sizeof(buf); len = len * 2 + 1) {
		uint32_t want = crc32c_slow(buf + 3, len - (len > 3 ? 3 : len));
		size_t n = len - (len > 3 ? 3 : len);
		uint32_t crc = CRC32C_INIT;

		assert_int_equal(crc32c(buf + 3, n), want);
		for (size_t at = 0, step = 1; at < n; at += step, step = step * 3 + 1) {
			if (step > n - at)
				step = n - at;
			crc = crc32c_add(crc, buf + 3 + at, step);
		}
		assert_int_equal(crc32c_end(crc), want);
	}
}

static void crcs_side_by_side_and_their_copies_equal_single_ones(void **state)
{
	uint8_t *mem = mem_alloc(64 << 10);
	const uint8_t *src[CRC32C_STREAMS];
	uint8_t *dst[CRC32C_STREAMS];
	uint32_t crc[CRC32C_STREAMS];

	for (size_t i = 0; i < 32u << 10; i++)
		mem[i] = (uint8_t)(i * 31 + i / 253);
	for (unsigned int n = 1; n <= CRC32C_STREAMS; n++)
		for (size_t len = 64; len <= 4096; len *= 4) {
			memset(mem + (32 << 10), 0, 32 << 10);
			for (unsigned int i = 0; i < n; i++) {
				crc[i] = CRC32C_INIT;
				src[i] = mem + i * 5000 + i; /* unaligned */
				dst[i] = i == 1 ? NULL : mem + (32 << 10) + i * 4096;
			}
			crc32c_copy_stream(n, src, dst, src, crc, len);
			mem_stream_fence();
			for (unsigned int i = 0; i < n; i++) {
				assert_int_equal(crc32c_end(crc[i]), crc32c(src[i], len));
				if (dst[i])
					assert_memory_equal(dst[i], src[i], len);
			}
			for (size_t i = 4096; i < 8192; i++)
				assert_int_equal(mem[(32 << 10) + i], 0);
		}
	mem_free(mem, 64 << 10);
}

static void streamed_copies_of_any_length_and_alignment_are_exact(void **state)
{
	uint8_t src[700], dst[800], want[800];

	for (size_t i = 0; i < sizeof(src); i++)
		src[i] = (uint8_t)(i * 7 + 1);
	for (size_t to = 0; to < 70; to += 3)
		for (size_t from = 0; from < 70; from += 13)
			for (size_t len = 0; len < 600; len += 29) {
				memset(dst, 0xee, sizeof(dst));
				memset(want, 0xee, sizeof(want));
				mem_copy_stream(dst + to, src + from, len);
				memcpy(want + to, src + from, len);
				assert_memory_equal(dst, want, sizeof(dst));
			}
	memset(want, 0xee, sizeof(want));
	memset(dst, 0xee, sizeof(dst));
	mem_zero_stream(dst + 5, 700);
	memset(want + 5, 0, 700);
	assert_memory_equal(dst, want, sizeof(dst));
}

static void memory_is_aligned_zeroed_and_writable(void **state)
{
	static const size_t sizes[] = {1, 4096, 5000, (2u << 20) - 1, 2u << 20, (5u << 20) + 1};

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t *p = mem_alloc(sizes[i]);

		assert_non_null(p);
		assert_int_equal((uintptr_t)p % 4096, 0);
		for (size_t at = 0; at < sizes[i]; at += 4096)
			assert_int_equal(p[at], 0);
		memset(p, 0xa5, sizes[i]);
		mem_free(p, sizes[i]);
	}
	mem_free(NULL, 4096);
	assert_null(mem_alloc(0));
	assert_null(mem_alloc(SIZE_MAX));
	assert_null(mem_alloc(SIZE_MAX / 4));
}

/* The place of the region that begins at p, or -1; the list must be in order. */
static int listed(const void *p, uint64_t *id)
{
	struct mem_region list[256];
	size_t n = mem_regions(list, ARRAY_LEN(list));
	int at = -1;

	assert_true(n <= ARRAY_LEN(list));
	for (size_t i = 0; i < n; i++) {
		assert_true(!i || list[i - 1].base + list[i - 1].len_bytes <= list[i].base);
		if (list[i].base == p) {
			at = (int)i;
			*id = list[i].id;
			assert_int_equal(list[i].len_bytes % 4096, 0);
		}
	}
	return at;
}

static void regions_given_out_are_listed_until_they_are_freed(void **state)
{
	uint64_t before = mem_generation(), ids[100], id;
	size_t n = mem_regions(NULL, 0);
	void *p[100], *reserved = mem_reserve(1 << 20);

	assert_int_equal(mem_generation(), before);
	assert_int_equal(listed(reserved, &id), -1);
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		p[i] = mem_alloc(100 + i * 100);
		assert_true(mem_generation() > before);
		before = mem_generation();
		assert_true(listed(p[i], &ids[i]) >= 0);
		for (size_t j = 0; j < i; j++)
			assert_true(ids[j] != ids[i]);
	}
	assert_int_equal(mem_regions(NULL, 0), n + ARRAY_LEN(p));
	for (size_t i = 0; i < ARRAY_LEN(p); i++) {
		size_t at = (i * 37) % ARRAY_LEN(p);

		mem_free(p[at], 100 + at * 100);
		assert_int_equal(listed(p[at], &id), -1);
		assert_true(mem_generation() > before);
		before = mem_generation();
	}
	mem_free(reserved, 1 << 20);
	assert_int_equal(mem_generation(), before);
	assert_int_equal(mem_regions(NULL, 0), n);
}

static void a_buffer_pool_gives_each_buffer_once_and_then_says_no(void **state)
{
	enum { N = 700 };
	uint8_t *bufs[N];
	struct bufpool *bp;

	assert_int_equal(bufpool_open(0, 1, &bp), -EINVAL);
	assert_int_equal(bufpool_open(4096, 0, &bp), -EINVAL);
	assert_int_equal(bufpool_open(SIZE_MAX / 2, 100, &bp), -EINVAL);
	assert_int_equal(bufpool_open(5000, N, &bp), 0);
	assert_int_equal(bufpool_size_bytes(bp), 8192);
	for (int i = 0; i < N; i++) {
		assert_int_equal(bufpool_free_count(bp), N - i);
		bufs[i] = bufpool_get(bp);
		assert_non_null(bufs[i]);
		assert_int_equal((uintptr_t)bufs[i] % 4096, 0);
		memset(bufs[i], i, 8192);
	}
	assert_null(bufpool_get(bp));
	for (int i = 0; i < N; i++) {
		assert_int_equal(bufs[i][0], i & 0xff);
		assert_int_equal(bufs[i][8191], i & 0xff);
		bufpool_put(bp, bufs[i]);
	}
	assert_ptr_equal(bufpool_get(bp), bufs[N - 1]); /* the warmest first */
	bufpool_put(bp, bufs[N - 1]);
	bufpool_close(bp);
	bufpool_close(NULL);
}

static void statuses_and_operations_have_names(void **state)
{
	for (int s = 0; s < IO_STATUS_COUNT; s++) {
		assert_non_null(io_status_name(s));
		assert_string_not_equal(io_status_name(s), "unknown");
	}
	assert_string_equal(io_status_name(IO_STATUS_COUNT), "unknown");
	assert_string_equal(io_op_name(IO_TRIM), "trim");
	assert_string_equal(io_op_name((enum io_op)99), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(crc32c_has_the_published_check_value),
		cmocka_unit_test(crc32c_in_pieces_of_any_length_equals_the_slow_one),
		cmocka_unit_test(crcs_side_by_side_and_their_copies_equal_single_ones),
		cmocka_unit_test(streamed_copies_of_any_length_and_alignment_are_exact),
		cmocka_unit_test(memory_is_aligned_zeroed_and_writable),
		cmocka_unit_test(regions_given_out_are_listed_until_they_are_freed),
		cmocka_unit_test(a_buffer_pool_gives_each_buffer_once_and_then_says_no),
		cmocka_unit_test(statuses_and_operations_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
