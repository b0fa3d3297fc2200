/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CRC of several buffers side by side, copying them on the way. The processor's CRC instruction takes three cycles but starts
 * one every cycle: four independent chains keep it busy without having to combine partial CRCs, and the copy's vector loads and
 * streaming stores run in its shadow.
 */
#include "dpu/core/crc32c.h"

#include <assert.h>
#include <string.h>

#include "dpu/core/mem.h"

#define LINE 64u

#if defined(__x86_64__) && defined(__SSE4_2__)

#include <immintrin.h>

#define HAVE_LINES 1

static inline uint64_t crc_word(uint64_t crc, const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	return _mm_crc32_u64(crc, w);
}

struct line {
	__m128i v[4];
};

static inline struct line line_load(const uint8_t *p)
{
	const __m128i *v = (const __m128i *)p;

	return (struct line){{_mm_loadu_si128(v), _mm_loadu_si128(v + 1), _mm_loadu_si128(v + 2),
		_mm_loadu_si128(v + 3)}};
}

static inline void line_store(uint8_t *p, const struct line *l)
{
	__m128i *v = (__m128i *)p;

	_mm_stream_si128(v, l->v[0]);
	_mm_stream_si128(v + 1, l->v[1]);
	_mm_stream_si128(v + 2, l->v[2]);
	_mm_stream_si128(v + 3, l->v[3]);
}

#elif defined(__aarch64__)

#include <arm_neon.h>

#define HAVE_LINES 1

/* Every processor we run on has it, the compiler's baseline has not. */
static inline uint64_t crc_word(uint64_t crc, const uint8_t *p)
{
	uint64_t w;

	memcpy(&w, p, sizeof(w));
	__asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(w));
	return crc;
}

struct line {
	uint8x16_t v[4];
};

static inline struct line line_load(const uint8_t *p)
{
	return (struct line){{vld1q_u8(p), vld1q_u8(p + 16), vld1q_u8(p + 32), vld1q_u8(p + 48)}};
}

static inline void line_store(uint8_t *p, const struct line *l)
{
	__asm__ volatile("stnp %q1, %q2, [%0]\n\tstnp %q3, %q4, [%0, #32]" ::"r"(p), "w"(l->v[0]),
			 "w"(l->v[1]), "w"(l->v[2]), "w"(l->v[3])
			 : "memory");
}

#endif

#ifdef HAVE_LINES

/* n is a constant wherever this is inlined, so that the inner loops unroll. */
static inline __attribute__((always_inline)) void lines(const unsigned int n,
	const uint8_t *const *src, uint8_t *const *dst, const uint8_t *const *ahead, uint32_t *crc,
	size_t len_bytes)
{
	uint64_t c[CRC32C_STREAMS];

	for (unsigned int i = 0; i < n; i++)
		c[i] = crc[i];
	for (size_t at = 0; at < len_bytes; at += LINE) {
		struct line l[CRC32C_STREAMS];

		/* Loads of all before the stores of any: sources and destinations are blocks, equal in their low 12
		 * address bits, by which the processor guesses what depends on what. */
#pragma GCC unroll 8
		for (unsigned int i = 0; i < n; i++) {
			__builtin_prefetch(ahead[i] + at, 0, 3);
			l[i] = line_load(src[i] + at);
		}
#pragma GCC unroll 8
		for (unsigned int w = 0; w < LINE; w += 8)
#pragma GCC unroll 8
			for (unsigned int i = 0; i < n; i++)
				c[i] = crc_word(c[i], src[i] + at + w);
#pragma GCC unroll 8
		for (unsigned int i = 0; i < n; i++)
			if (dst[i])
				line_store(dst[i] + at, &l[i]);
	}
	for (unsigned int i = 0; i < n; i++)
		crc[i] = (uint32_t)c[i];
}

void crc32c_copy_stream(unsigned int n, const uint8_t *const *src, uint8_t *const *dst,
	const uint8_t *const *ahead, uint32_t *crc, size_t len_bytes)
{
	assert(n <= CRC32C_STREAMS && len_bytes % LINE == 0);
	switch (n) {
	case 1:
		lines(1, src, dst, ahead, crc, len_bytes);
		break;
	case 2:
		lines(2, src, dst, ahead, crc, len_bytes);
		break;
	case 3:
		lines(3, src, dst, ahead, crc, len_bytes);
		break;
	case 4:
		lines(4, src, dst, ahead, crc, len_bytes);
		break;
	}
}

#else

void crc32c_copy_stream(unsigned int n, const uint8_t *const *src, uint8_t *const *dst,
	const uint8_t *const *ahead, uint32_t *crc, size_t len_bytes)
{
	assert(n <= CRC32C_STREAMS && len_bytes % LINE == 0);
	for (unsigned int i = 0; i < n; i++) {
		crc[i] = crc32c_add(crc[i], src[i], len_bytes);
		if (dst[i])
			mem_copy_stream(dst[i], src[i], len_bytes);
	}
}

#endif
