/* SPDX-License-Identifier: BSD-3-Clause */
/* Streaming (non-temporal) copies, written for the processors we run on; plain ones elsewhere. */
#include "dpu/core/mem.h"

#include <string.h>

#if defined(__x86_64__)

#include <immintrin.h>

#define LINE           64u
#define PREFETCH_AHEAD 512u /* bytes; the hardware's prefetcher stops at each 4 KiB page */

static inline void line_put(char *dst, __m128i a, __m128i b, __m128i c, __m128i d)
{
	_mm_stream_si128((__m128i *)dst, a);
	_mm_stream_si128((__m128i *)dst + 1, b);
	_mm_stream_si128((__m128i *)dst + 2, c);
	_mm_stream_si128((__m128i *)dst + 3, d);
}

static inline void line_copy(char *dst, const char *src)
{
	const __m128i *s = (const __m128i *)src;

	_mm_prefetch(src + PREFETCH_AHEAD, _MM_HINT_T0);
	line_put(dst, _mm_loadu_si128(s), _mm_loadu_si128(s + 1), _mm_loadu_si128(s + 2),
		_mm_loadu_si128(s + 3));
}

void mem_stream_fence(void)
{
	_mm_sfence();
}

#elif defined(__aarch64__)

#include <arm_neon.h>

#define LINE 64u

static inline void line_put(char *dst, uint8x16_t a, uint8x16_t b, uint8x16_t c, uint8x16_t d)
{
	__asm__ volatile("stnp %q1, %q2, [%0]\n\tstnp %q3, %q4, [%0, #32]" ::"r"(dst), "w"(a),
			 "w"(b), "w"(c), "w"(d)
			 : "memory");
}

static inline void line_copy(char *dst, const char *src)
{
	const uint8_t *s = (const uint8_t *)src;

	line_put(dst, vld1q_u8(s), vld1q_u8(s + 16), vld1q_u8(s + 32), vld1q_u8(s + 48));
}

void mem_stream_fence(void)
{
	__asm__ volatile("dmb ishst" ::: "memory");
}

#else

#define LINE 64u

static inline void line_copy(char *dst, const char *src)
{
	memcpy(dst, src, LINE);
}

void mem_stream_fence(void)
{
	__sync_synchronize();
}

#endif

void mem_copy_stream(void *dst, const void *src, size_t len_bytes)
{
	size_t head = -(uintptr_t)dst % LINE;
	const char *s = src;
	char *d = dst;

	if (head >= len_bytes)
		head = len_bytes;
	memcpy(d, s, head);
	d += head, s += head, len_bytes -= head;
	for (; len_bytes >= LINE; d += LINE, s += LINE, len_bytes -= LINE)
		line_copy(d, s);
	memcpy(d, s, len_bytes);
}

void mem_zero_stream(void *dst, size_t len_bytes)
{
	static const char zeros[4096] __attribute__((aligned(64)));
	char *d = dst;

	while (len_bytes) {
		size_t n = len_bytes < sizeof(zeros) ? len_bytes : sizeof(zeros);

		mem_copy_stream(d, zeros, n);
		d += n;
		len_bytes -= n;
	}
}
