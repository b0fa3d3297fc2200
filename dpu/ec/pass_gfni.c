/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The pass over a batch for processors with AVX-512, GFNI and VPCLMULQDQ: everything a line (64 bytes) of a source takes part in
 * happens while it is in one register, so that each source is loaded once, whoever changes it meanwhile, and no copy of it is kept.
 *
 *	load ──▶ copies (streamed)
 *	     ├─▶ CRC of its block: a fold of 64 bytes, s * x^512 + line
 *	     └─▶ parity i += c[i][d] * line ──▶ after the last source: parity (streamed), and its CRC
 *
 * A strip is as many lines of one source as leave room for the parity of all of them in registers; then comes the next source. A
 * multiplication by a constant is linear over GF(2): an 8x8 bit matrix, which is what GF2P8AFFINEQB takes.
 */
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/core/mem.h"
#include "dpu/ec/ec_priv.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define LINE  64u
#define LINES (EC_BLOCK / LINE)
#ifndef AHEAD
#define AHEAD 2048u /* prefetched before it is needed: bytes of each source, at most a block */
#endif

#define VECTORS __attribute__((target("avx512f,avx512bw,gfni,vpclmulqdq")))
#define INLINE  static inline __attribute__((always_inline)) VECTORS

bool pass_gfni_usable(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
	       __builtin_cpu_supports("gfni") && __builtin_cpu_supports("vpclmulqdq");
}

/* ---- arithmetic --------------------------------------------------------------------------------------- */

#define FIELD_REDUCTION 0x1d /* x^8 of x^8 + x^4 + x^3 + x^2 + 1 */

/* Byte 7 - i of the matrix says which bits of the operand make bit i of the product: column j is c * x^j. */
static uint64_t times_matrix(uint8_t c)
{
	uint64_t a = 0;

	for (unsigned int j = 0; j < 8; j++) {
		for (unsigned int i = 0; i < 8; i++)
			a |= (uint64_t)(c >> i & 1) << ((7 - i) * 8 + j);
		c = (uint8_t)(c << 1 ^ (c & 0x80 ? FIELD_REDUCTION : 0));
	}
	return a;
}

void pass_gfni_init(struct ec_code *c)
{
	static const uint8_t zeros[EC_BLOCK];

	for (unsigned int i = 0; i < c->m; i++)
		for (unsigned int d = 0; d < c->k; d++)
			c->affine[d * c->m + i] = times_matrix(c->matrix[(c->k + i) * c->k + d]);
	c->crc_zeros = crc32c(zeros, sizeof(zeros));
}

/*
 * CRCs are taken over polynomials with their bits reversed: the first bit of memory has the highest power. A carry-less product of
 * two reversed numbers lacks a factor x. So a lane's first 64 bits times x^(512 + 64 - 1), its last times x^(512 - 1), both modulo
 * the CRC's polynomial 0x1edc6f41, are the lane 64 bytes further on.
 */
#define FOLD_FIRST 0x1c19243b00000000ull
#define FOLD_LAST  0x75bba45b00000000ull

INLINE __m512i fold(__m512i s, __m512i line, __m512i by)
{
	__m512i first = _mm512_clmulepi64_epi128(s, by, 0x00);
	__m512i last = _mm512_clmulepi64_epi128(s, by, 0x11);

	return _mm512_ternarylogic_epi64(first, last, line, 0x96); /* all three added */
}

/* What 4 KiB were folded into has their remainder. It began with zero, not with CRC32C_INIT: the CRC of zeros makes up for it,
 * and for the inversion at the end. */
INLINE uint32_t crc_of(const struct ec_code *c, __m512i s)
{
	uint64_t w[8] __attribute__((aligned(64))), crc = 0;

	_mm512_store_si512(w, s);
	for (unsigned int i = 0; i < 8; i++)
		crc = _mm_crc32_u64(crc, w[i]);
	return (uint32_t)crc ^ c->crc_zeros;
}

/* ---- one row: a block of each fragment ------------------------------------------------------------------ */

struct row {
	unsigned int present; /* fragments that have a block: the last one may have ended */
	const uint8_t *block[EC_K_MAX];
	uint8_t *copy[EC_K_MAX], *copy2[EC_K_MAX]; /* NULL: none */
	__m512i crc[EC_K_MAX];
};

static VECTORS void row_begin(const struct ec_pass *p, uint32_t n, struct row *row)
{
	unsigned int d;

	for (d = 0; d < p->geo.k; d++) {
		uint32_t i = d * p->geo.rows + n;

		if (i >= p->geo.nblocks)
			break;
		row->block[d] = p->blocks[i];
		row->copy[d] = p->copy ? p->copy[i] : NULL;
		row->copy2[d] = p->copy2 ? p->copy2[i] : NULL;
		row->crc[d] = _mm512_setzero_si512();
	}
	row->present = d;
}

static VECTORS void row_end(
	const struct ec_code *c, const struct ec_pass *p, uint32_t n, const struct row *row)
{
	for (unsigned int d = 0; d < row->present; d++)
		p->crc[d * p->geo.rows + n] = crc_of(c, row->crc[d]);
}

/* The compiler must not load it a second time instead of keeping it: the source may be another by then. */
INLINE __m512i load_once(const uint8_t *p)
{
	__m512i v = _mm512_loadu_si512(p);

	__asm__ volatile("" : "+v"(v));
	return v;
}

INLINE void store(uint8_t *to, const __m512i *v, const unsigned int lines, bool stream)
{
	if (stream && (uintptr_t)to % LINE == 0)
#pragma GCC unroll 8
		for (unsigned int u = 0; u < lines; u++)
			_mm512_stream_si512((__m512i *)(void *)(to + u * LINE), v[u]);
	else
#pragma GCC unroll 8
		for (unsigned int u = 0; u < lines; u++)
			_mm512_storeu_si512(to + u * LINE, v[u]);
}

INLINE __m512i fold_constants(void)
{
	return _mm512_set4_epi64((long long)FOLD_LAST, (long long)FOLD_FIRST, (long long)FOLD_LAST,
		(long long)FOLD_FIRST);
}

INLINE void prefetch(const uint8_t *p, const unsigned int lines)
{
#pragma GCC unroll 8
	for (unsigned int u = 0; u < lines; u++)
		_mm_prefetch(p + u * LINE, _MM_HINT_T0);
}

/* What will be read when AHEAD more bytes of each source have been. */
INLINE const uint8_t *ahead(
	const struct row *row, const struct row *next, unsigned int d, uint32_t at)
{
	at += AHEAD;
	if (at < EC_BLOCK)
		return row->block[d] + at;
	return next->block[d < next->present ? d : 0] + (at - EC_BLOCK);
}

/* m and lines are constants wherever this is inlined, so that parity[] is registers. */
INLINE void strip(const unsigned int m, const unsigned int lines, const struct ec_code *c,
	struct row *row, const struct row *next, uint32_t at, bool stream, __m512i *parity)
{
	const __m512i by = fold_constants();

#pragma GCC unroll 64
	for (unsigned int i = 0; i < m * lines; i++)
		parity[i] = _mm512_setzero_si512();
	for (unsigned int d = 0; d < row->present; d++) {
		const uint8_t *src = row->block[d] + at;
		__m512i v[8], crc = row->crc[d];

		prefetch(ahead(row, next, d, at), lines);
#pragma GCC unroll 8
		for (unsigned int u = 0; u < lines; u++) {
			v[u] = load_once(src + u * LINE);
			crc = fold(crc, v[u], by);
		}
		row->crc[d] = crc;
		if (row->copy[d])
			store(row->copy[d] + at, v, lines, stream);
		if (row->copy2[d])
			store(row->copy2[d] + at, v, lines, stream);
#pragma GCC unroll 8
		for (unsigned int i = 0; i < m; i++) {
			__m512i a = _mm512_set1_epi64((long long)c->affine[d * m + i]);

#pragma GCC unroll 8
			for (unsigned int u = 0; u < lines; u++)
				parity[i * lines + u] = _mm512_xor_si512(parity[i * lines + u],
					_mm512_gf2p8affine_epi64_epi8(v[u], a, 0));
		}
	}
}

INLINE void encode_row(const unsigned int m, const unsigned int lines, const struct ec_code *c,
	const struct ec_pass *p, uint32_t n, struct row *row, const struct row *next)
{
	const __m512i by = fold_constants();
	__m512i parity[8 * 8], crc[EC_M_MAX];

	for (unsigned int i = 0; i < m; i++)
		crc[i] = _mm512_setzero_si512();
	for (uint32_t at = 0; at < EC_BLOCK; at += lines * LINE) {
		strip(m, lines, c, row, next, at, p->stream, parity);
#pragma GCC unroll 8
		for (unsigned int i = 0; i < m; i++) {
			store(p->parity[i] + (size_t)n * EC_BLOCK + at, parity + i * lines, lines,
				p->stream);
#pragma GCC unroll 8
			for (unsigned int u = 0; u < lines; u++)
				crc[i] = fold(crc[i], parity[i * lines + u], by);
		}
	}
	for (unsigned int i = 0; i < m; i++)
		p->parity_crc[i * p->geo.rows + n] = crc_of(c, crc[i]);
}

typedef void row_fn(const struct ec_code *c, const struct ec_pass *p, uint32_t n, struct row *row,
	const struct row *next);

/* Lines of a strip: m of them are parity, and thirty-two registers hold all. */
#define ENCODE_ROW(M, LINES_)                                                                \
	static VECTORS void encode_row_##M(const struct ec_code *c, const struct ec_pass *p, \
		uint32_t n, struct row *row, const struct row *next)                         \
	{                                                                                    \
		encode_row(M, LINES_, c, p, n, row, next);                                   \
	}
#ifndef L12
#define L12 8
#endif
ENCODE_ROW(1, L12)
ENCODE_ROW(2, L12)
ENCODE_ROW(3, 4)
ENCODE_ROW(4, 4)
ENCODE_ROW(5, 2)
ENCODE_ROW(6, 2)
ENCODE_ROW(7, 2)
ENCODE_ROW(8, 2)

/* k = 1: parity is copies. */
static VECTORS void replicate_row(const struct ec_code *c, const struct ec_pass *p, uint32_t n,
	struct row *row, const struct row *next)
{
	const __m512i by = fold_constants();

	for (uint32_t at = 0; at < EC_BLOCK; at += 4 * LINE) {
		__m512i v[4];

		prefetch(ahead(row, next, 0, at), 4);
#pragma GCC unroll 4
		for (unsigned int u = 0; u < 4; u++) {
			v[u] = load_once(row->block[0] + at + u * LINE);
			row->crc[0] = fold(row->crc[0], v[u], by);
		}
		if (row->copy[0])
			store(row->copy[0] + at, v, 4, p->stream);
		if (row->copy2[0])
			store(row->copy2[0] + at, v, 4, p->stream);
		for (unsigned int i = 0; i < c->m; i++)
			store(p->parity[i] + (size_t)n * EC_BLOCK + at, v, 4, p->stream);
	}
	for (unsigned int i = 0; i < c->m; i++)
		p->parity_crc[i * p->geo.rows + n] = crc_of(c, row->crc[0]);
}

VECTORS void pass_gfni(const struct ec_code *c, const struct ec_pass *p)
{
	static row_fn *const fns[EC_M_MAX + 1] = {NULL, encode_row_1, encode_row_2, encode_row_3,
		encode_row_4, encode_row_5, encode_row_6, encode_row_7, encode_row_8};
	row_fn *fn = c->k == 1 ? replicate_row : fns[c->m];
	struct row rows[2];

	row_begin(p, 0, &rows[0]);
	for (uint32_t n = 0; n < p->geo.rows; n++) {
		struct row *row = &rows[n & 1], *next = &rows[~n & 1];

		if (n + 1 < p->geo.rows)
			row_begin(p, n + 1, next);
		else
			next = row;
		fn(c, p, n, row, next);
		row_end(c, p, n, row);
	}
	mem_stream_fence();
}

#else

bool pass_gfni_usable(void)
{
	return false;
}

void pass_gfni_init(struct ec_code *c)
{
}

void pass_gfni(const struct ec_code *c, const struct ec_pass *p)
{
}

#endif
