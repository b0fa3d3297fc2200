/* SPDX-License-Identifier: BSD-3-Clause */
/* ISA-L's codec and the reference twin: one suite over both, and each against the other. */
#include "dpu/ec/ec.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"

#define N_MAX (EC_K_MAX + EC_M_MAX)

static uint64_t random_state;

static uint64_t rnd(void)
{
	uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* PARAPET_SEED=n repeats a run. */
static void seed_and_say(void)
{
	const char *s = getenv("PARAPET_SEED");

	random_state = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL);
	print_message("# seed %llu\n", (unsigned long long)random_state);
}

static void *aligned(size_t n)
{
	void *p = NULL;

	assert_int_equal(posix_memalign(&p, 4096, n), 0);
	return p;
}

static void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = rnd();

		memcpy(p + i, &v, MIN(n - i, sizeof(v)));
	}
}

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

/* ---- the pass ----------------------------------------------------------------------------------------- */

struct batch {
	struct ec_pass pass;
	uint8_t *source, *copied, *copied2, *parity;
	const uint8_t *blocks[EC_BLOCKS_MAX];
	uint8_t *copy[EC_BLOCKS_MAX], *copy2[EC_BLOCKS_MAX];
	uint8_t *out[EC_M_MAX];
	uint32_t crc[EC_BLOCKS_MAX], parity_crc[EC_M_MAX * EC_BLOCKS_MAX];
};

/* Blocks scattered in random order over the source, at odd addresses; some of the copies not wanted. */
static struct batch *batch_open(struct ec_scheme scheme, uint32_t n, bool sparse_copies)
{
	struct batch *b = calloc(1, sizeof(*b));
	size_t bytes = (size_t)n * EC_BLOCK;
	struct ec_geometry g;

	assert_int_equal(ec_geometry_of(scheme, n, &g), 0);
	b->source = aligned(bytes + 64);
	b->copied = aligned(bytes);
	b->copied2 = aligned(bytes);
	b->parity = aligned((size_t)g.m * g.rows * EC_BLOCK);
	fill(b->source, bytes + 64);
	memset(b->copied, 0, bytes);
	memset(b->copied2, 0, bytes);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)(rnd() % (i + 1));

		b->blocks[i] = b->blocks[j];
		b->blocks[j] = b->source + (size_t)i * EC_BLOCK + 1 + i % 60;
		b->copy[i] = sparse_copies && i % 3 == 0 ? NULL : b->copied + (size_t)i * EC_BLOCK;
		b->copy2[i] = sparse_copies && i % 2 == 0 ? NULL
							  : b->copied2 + (size_t)i * EC_BLOCK;
	}
	for (unsigned int i = 0; i < g.m; i++)
		b->out[i] = b->parity + (size_t)i * g.rows * EC_BLOCK;
	b->pass = (struct ec_pass){.geo = g,
		.blocks = b->blocks,
		.copy = b->copy,
		.copy2 = b->copy2,
		.parity = b->out,
		.crc = b->crc,
		.parity_crc = b->parity_crc};
	return b;
}

static void batch_close(struct batch *b)
{
	free(b->source);
	free(b->copied);
	free(b->copied2);
	free(b->parity);
	free(b);
}

static void check_copies(const struct batch *b)
{
	static const uint8_t none[EC_BLOCK];

	for (uint32_t i = 0; i < b->pass.geo.nblocks; i++) {
		size_t at = (size_t)i * EC_BLOCK;

		if (b->pass.copy)
			assert_memory_equal(
				b->copied + at, b->copy[i] ? b->blocks[i] : none, EC_BLOCK);
		if (b->pass.copy2)
			assert_memory_equal(
				b->copied2 + at, b->copy2[i] ? b->blocks[i] : none, EC_BLOCK);
	}
}

/* CRCs and parity are those of `blocks`, computed the slow way. */
static void check_coding(
	const struct batch *b, const struct ec_code *slow, const uint8_t *const *blocks)
{
	const struct ec_geometry *g = &b->pass.geo;
	size_t len = (size_t)g->rows * EC_BLOCK;
	uint8_t *frag[EC_K_MAX], *parity[EC_M_MAX];

	for (unsigned int d = 0; d < g->k; d++) {
		frag[d] = calloc(1, len);
		for (uint32_t r = 0; r < ec_fragment_blocks(g, d); r++)
			memcpy(frag[d] + (size_t)r * EC_BLOCK, blocks[d * g->rows + r], EC_BLOCK);
	}
	for (unsigned int i = 0; i < g->m; i++)
		parity[i] = malloc(len);
	ec_encode(slow, len, (const uint8_t *const *)frag, parity);
	for (uint32_t i = 0; i < g->nblocks; i++)
		assert_int_equal(b->crc[i], crc32c(blocks[i], EC_BLOCK));
	for (unsigned int i = 0; i < g->m; i++) {
		assert_memory_equal(b->out[i], parity[i], len);
		for (uint32_t r = 0; r < g->rows; r++)
			assert_int_equal(b->parity_crc[i * g->rows + r],
				crc32c(parity[i] + (size_t)r * EC_BLOCK, EC_BLOCK));
		free(parity[i]);
	}
	for (unsigned int d = 0; d < g->k; d++)
		free(frag[d]);
}

static void one_pass(enum ec_impl impl, int rounds)
{
	const struct ec_code *code, *slow;
	struct ec *ec, *ref;

	seed_and_say();
	assert_int_equal(ec_open(impl, &ec), 0);
	assert_int_equal(ec_open(EC_REFERENCE, &ref), 0);
	for (int i = 0; i < rounds; i++) {
		struct ec_scheme scheme = {
			(uint8_t)(1 + rnd() % EC_K_MAX), (uint8_t)(1 + rnd() % EC_M_MAX)};
		uint32_t n = i % 10 == 9 ? EC_BLOCKS_MAX : 1 + (uint32_t)(rnd() % 60);
		struct batch *b = batch_open(scheme, n, rnd() % 2);
		struct ec_pass *p = &b->pass;

		p->parity_stream = rnd() % 2;
		p->unstable = rnd() % 2;
		if (!p->unstable && rnd() % 2)
			p->copy = NULL;
		if (rnd() % 2)
			p->copy2 = NULL;
		assert_int_equal(ec_code_get(ec, p->geo.k, p->geo.m, &code), 0);
		assert_int_equal(ec_code_get(ref, p->geo.k, p->geo.m, &slow), 0);
		ec_encode_pass(code, p);
		check_copies(b);
		check_coding(b, slow, b->blocks);
		batch_close(b);
	}
	ec_close(ec);
	ec_close(ref);
}

static void isal_does_crc_copies_and_parity_in_one_pass(void **state)
{
	one_pass(EC_ISAL, 60);
}

static void the_reference_does_the_same_pass(void **state)
{
	one_pass(EC_REFERENCE, 20);
}

struct meddler {
	struct batch *b;
	atomic_bool stop;
};

static void *meddle(void *arg)
{
	struct meddler *md = arg;
	volatile uint8_t *p = md->b->source;
	size_t bytes = (size_t)md->b->pass.geo.nblocks * EC_BLOCK;

	for (size_t at = 0; !atomic_load_explicit(&md->stop, memory_order_relaxed); at += 61)
		p[at % bytes]++;
	return NULL;
}

static void a_source_that_changes_meanwhile_is_stored_as_one_image(void **state)
{
	struct ec_scheme scheme = {4, 2};
	const struct ec_code *code, *slow;
	struct meddler md = {.b = batch_open(scheme, 64, false)};
	const uint8_t *stored[64];
	struct ec *ec, *ref;
	pthread_t thread;

	seed_and_say();
	assert_int_equal(ec_open(EC_ISAL, &ec), 0);
	assert_int_equal(ec_open(EC_REFERENCE, &ref), 0);
	assert_int_equal(ec_code_get(ec, 4, 2, &code), 0);
	assert_int_equal(ec_code_get(ref, 4, 2, &slow), 0);
	md.b->pass.unstable = true;
	for (int i = 0; i < 64; i++)
		stored[i] = md.b->copy[i];
	assert_int_equal(pthread_create(&thread, NULL, meddle, &md), 0);
	for (int i = 0; i < 30; i++) {
		ec_encode_pass(code, &md.b->pass);
		assert_memory_equal(md.b->copied, md.b->copied2, 64 * EC_BLOCK);
		check_coding(md.b, slow, stored);
	}
	atomic_store(&md.stop, true);
	pthread_join(thread, NULL);
	batch_close(md.b);
	ec_close(ec);
	ec_close(ref);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(isal_recovers_every_scheme_from_every_loss),
		cmocka_unit_test(the_reference_recovers_every_scheme_from_every_loss),
		cmocka_unit_test(both_make_the_same_parity_and_read_each_other),
		cmocka_unit_test(limits_and_malformed_decodes_are_refused),
		cmocka_unit_test(geometry_has_every_block_once_and_no_empty_fragment),
		cmocka_unit_test(isal_does_crc_copies_and_parity_in_one_pass),
		cmocka_unit_test(the_reference_does_the_same_pass),
		cmocka_unit_test(a_source_that_changes_meanwhile_is_stored_as_one_image),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
