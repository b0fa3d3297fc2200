/* SPDX-License-Identifier: BSD-3-Clause */
/* ISA-L's codec and the reference twin: one suite over both, and each against the other. */
#include "tests/unit/ec_rig.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

#define N_MAX (EC_K_MAX + EC_M_MAX)

/* ---- losses --------------------------------------------------------------------------------------- */

struct stand {
	const struct ec_code *code;
	unsigned int k, m;
	size_t len;
	uint8_t *frag[N_MAX], *out[N_MAX];
};

static void stand_open(
	struct stand *s, const struct ec_code *code, unsigned int k, unsigned int m, size_t len)
{
	*s = (struct stand){.code = code, .k = k, .m = m, .len = len};
	for (unsigned int i = 0; i < k + m; i++) {
		s->frag[i] = aligned(len);
		s->out[i] = aligned(len);
		fill(s->frag[i], len);
	}
	ec_encode(code, len, (const uint8_t *const *)s->frag, s->frag + k);
}

static void stand_close(struct stand *s)
{
	for (unsigned int i = 0; i < s->k + s->m; i++) {
		free(s->frag[i]);
		free(s->out[i]);
	}
}

/* Every fragment of `lost` (a bit set) comes back from the first k of the others. */
static void check_loss(struct stand *s, uint32_t lost)
{
	uint8_t have[EC_K_MAX], want[N_MAX];
	const uint8_t *src[EC_K_MAX];
	unsigned int nhave = 0, nwant = 0;

	for (unsigned int i = 0; i < s->k + s->m; i++) {
		if (lost >> i & 1) {
			want[nwant++] = (uint8_t)i;
		} else if (nhave < s->k) {
			src[nhave] = s->frag[i];
			have[nhave++] = (uint8_t)i;
		}
	}
	assert_int_equal(nhave, s->k);
	for (unsigned int i = 0; i < nwant; i++)
		memset(s->out[i], 0x55, s->len);
	assert_int_equal(ec_decode(s->code, s->len, have, src, want, nwant, s->out), 0);
	for (unsigned int i = 0; i < nwant; i++)
		if (memcmp(s->out[i], s->frag[want[i]], s->len) != 0)
			fail_msg("%u+%u: fragment %u is wrong after the loss of %#x", s->k, s->m,
				want[i], lost);
}

/* How many ways there are to lose `lost` of n, or limit + 1 when more than limit. */
static uint64_t ways(unsigned int n, unsigned int lost, uint64_t limit)
{
	uint64_t w = 1;

	for (unsigned int i = 1; i <= lost && w <= limit; i++)
		w = w * (n - lost + i) / i;
	return MIN(w, limit + 1);
}

static uint32_t some_loss(unsigned int n, unsigned int count)
{
	uint32_t lost = 0;

	while ((unsigned int)__builtin_popcount(lost) < count)
		lost |= 1u << rnd() % n;
	return lost;
}

/* The next number with as many bits set (Gosper). */
static uint64_t next_same_count(uint64_t v)
{
	uint64_t low = v & -v, up = v + low;

	return up | ((v ^ up) / low >> 2);
}

static void every_loss_of_a_scheme(
	const struct ec_code *code, unsigned int k, unsigned int m, uint64_t limit)
{
	struct stand s;

	stand_open(&s, code, k, m, 64);
	for (unsigned int lost = 1; lost <= m; lost++) {
		if (ways(k + m, lost, limit) <= limit)
			for (uint64_t v = (1ull << lost) - 1; v < 1ull << (k + m);
				v = next_same_count(v))
				check_loss(&s, (uint32_t)v);
		else
			for (uint64_t i = 0; i < limit / 4; i++)
				check_loss(&s, some_loss(k + m, lost));
	}
	stand_close(&s);
}

static void every_scheme_recovers_from_every_loss(enum ec_impl impl, uint64_t limit)
{
	const struct ec_code *code;
	struct ec *ec;

	seed_and_say();
	assert_int_equal(ec_open(impl, &ec), 0);
	for (unsigned int k = 1; k <= EC_K_MAX; k++)
		for (unsigned int m = 1; m <= EC_M_MAX; m++) {
			assert_int_equal(ec_code_get(ec, k, m, &code), 0);
			assert_int_equal(
				ec_code_matrix(code), k == 1 ? EC_MATRIX_COPY : EC_MATRIX_CAUCHY);
			every_loss_of_a_scheme(code, k, m, limit);
		}
	ec_close(ec);
}

static void isal_recovers_every_scheme_from_every_loss(void **state)
{
	every_scheme_recovers_from_every_loss(EC_ISAL, 500);
}

static void the_reference_recovers_every_scheme_from_every_loss(void **state)
{
	every_scheme_recovers_from_every_loss(EC_REFERENCE, 40);
}

/* ---- the twins agree -------------------------------------------------------------------------------- */

static void both_make_the_same_parity_and_read_each_other(void **state)
{
	static const size_t lens[] = {64, 192, 1024, 4096 + 64, 65536};
	const struct ec_code *fast, *slow;
	struct ec *isal, *ref;
	struct stand s;

	seed_and_say();
	assert_int_equal(ec_open(EC_ISAL, &isal), 0);
	assert_int_equal(ec_open(EC_REFERENCE, &ref), 0);
	for (unsigned int k = 1; k <= EC_K_MAX; k++)
		for (unsigned int m = 1; m <= EC_M_MAX; m++) {
			size_t len = lens[(k + m) % (k < 12 ? ARRAY_LEN(lens) : 4)];

			assert_int_equal(ec_code_get(isal, k, m, &fast), 0);
			assert_int_equal(ec_code_get(ref, k, m, &slow), 0);
			stand_open(&s, fast, k, m, len);
			ec_encode(slow, len, (const uint8_t *const *)s.frag, s.out);
			for (unsigned int i = 0; i < m; i++)
				assert_memory_equal(s.out[i], s.frag[k + i], len);
			s.code = slow;
			check_loss(&s, some_loss(k + m, m));
			stand_close(&s);
		}
	ec_close(isal);
	ec_close(ref);
}

static void limits_and_malformed_decodes_are_refused(void **state)
{
	const struct ec_code *code;
	uint8_t have[] = {0, 1, 2, 3}, want[] = {4, 5, 6, 0, 1, 2, 3};
	struct stand s;
	struct ec *ec;

	assert_int_equal(ec_open(EC_ISAL, &ec), 0);
	assert_int_equal(ec_code_get(ec, 0, 1, &code), -EINVAL);
	assert_int_equal(ec_code_get(ec, 1, 0, &code), -EINVAL);
	assert_int_equal(ec_code_get(ec, EC_K_MAX + 1, 1, &code), -EINVAL);
	assert_int_equal(ec_code_get(ec, 1, EC_M_MAX + 1, &code), -EINVAL);
	assert_int_equal(ec_code_get(ec, 4, 2, &code), 0);
	stand_open(&s, code, 4, 2, 64);
#define DECODE(len, n) ec_decode(code, len, have, (const uint8_t *const *)s.frag, want, n, s.out)
	assert_int_equal(DECODE(64, 2), 0);
	assert_int_equal(DECODE(64, 0), 0);
	assert_int_equal(DECODE(0, 2), -EINVAL);
	assert_int_equal(DECODE(65, 2), -EINVAL);
	assert_int_equal(DECODE(64, 3), -EINVAL); /* fragment 6 of 4+2 */
	assert_int_equal(DECODE(64, 7), -EINVAL);
	have[3] = 0;
	assert_int_equal(DECODE(64, 2), -EINVAL);
	have[3] = 6;
	assert_int_equal(DECODE(64, 2), -EINVAL);
	stand_close(&s);
	ec_close(ec);
}

/* ---- geometry --------------------------------------------------------------------------------------- */

static void geometry_has_every_block_once_and_no_empty_fragment(void **state)
{
	struct ec_geometry g;

	for (unsigned int k = 1; k <= EC_K_MAX; k++)
		for (uint32_t n = 1; n <= EC_BLOCKS_MAX; n++) {
			uint32_t sum = 0;

			assert_int_equal(
				ec_geometry_of((struct ec_scheme){(uint8_t)k, 3}, n, &g), 0);
			assert_true(g.k >= 1 && g.k <= MIN(k, n));
			assert_int_equal(g.rows, DIV_ROUND_UP(n, MIN(k, n)));
			for (unsigned int i = 0; i < g.k; i++) {
				uint32_t blocks = ec_fragment_blocks(&g, i);

				assert_true(blocks >= 1 && blocks <= g.rows);
				assert_true(i == g.k - 1u || blocks == g.rows);
				sum += blocks;
			}
			assert_int_equal(sum, n);
			assert_int_equal(ec_fragment_blocks(&g, g.k), g.rows);
		}
	assert_int_equal(ec_geometry_of((struct ec_scheme){4, 2}, 0, &g), -EINVAL);
	assert_int_equal(ec_geometry_of((struct ec_scheme){4, 2}, EC_BLOCKS_MAX + 1, &g), -EINVAL);
	assert_int_equal(ec_geometry_of((struct ec_scheme){0, 2}, 1, &g), -EINVAL);
	assert_int_equal(ec_geometry_of((struct ec_scheme){4, 9}, 1, &g), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(isal_recovers_every_scheme_from_every_loss),
		cmocka_unit_test(the_reference_recovers_every_scheme_from_every_loss),
		cmocka_unit_test(both_make_the_same_parity_and_read_each_other),
		cmocka_unit_test(limits_and_malformed_decodes_are_refused),
		cmocka_unit_test(geometry_has_every_block_once_and_no_empty_fragment),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
