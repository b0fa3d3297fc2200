/* SPDX-License-Identifier: BSD-3-Clause */
/* The pass over a batch by each implementation: CRCs, copies and parity against the reference codec on whole fragments. */
#include "tests/unit/ec_rig.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"

#define SLACK 64u /* behind each block of a destination, so that it can begin anywhere; guarded */
#define GUARD 0xa7
#define SLOT  (EC_BLOCK + SLACK)

/* ---- a batch --------------------------------------------------------------------------------------------- */

struct codecs {
	struct ec *ec, *ref;
	const struct ec_code *fast[EC_K_MAX + 1][EC_M_MAX + 1], *slow[EC_K_MAX + 1][EC_M_MAX + 1];
};

static void codecs_open(struct codecs *c, enum ec_impl impl)
{
	seed_and_say();
	assert_int_equal(ec_open(impl, &c->ec), 0);
	assert_int_equal(ec_open(EC_REFERENCE, &c->ref), 0);
	for (unsigned int k = 1; k <= EC_K_MAX; k++)
		for (unsigned int m = 1; m <= EC_M_MAX; m++) {
			assert_int_equal(ec_code_get(c->ec, k, m, &c->fast[k][m]), 0);
			assert_int_equal(ec_code_get(c->ref, k, m, &c->slow[k][m]), 0);
		}
}

static void codecs_close(struct codecs *c)
{
	ec_close(c->ec);
	ec_close(c->ref);
}

struct batch {
	struct ec_pass pass;
	uint8_t *source, *copied, *copied2, *parity;
	const uint8_t *blocks[EC_BLOCKS_MAX];
	uint8_t *copy[EC_BLOCKS_MAX], *copy2[EC_BLOCKS_MAX];
	uint8_t *out[EC_M_MAX];
	uint32_t crc[EC_BLOCKS_MAX], parity_crc[EC_M_MAX * EC_BLOCKS_MAX];
};

/* As the flash has it (a multiple of 64), or anywhere. */
static unsigned int some_shift(bool odd)
{
	return odd ? (unsigned int)(rnd() % SLACK) : 0;
}

static void copies_at(uint8_t *mem, uint8_t **copy, uint32_t n, bool odd, unsigned int none_of)
{
	memset(mem, GUARD, (size_t)n * SLOT);
	for (uint32_t i = 0; i < n; i++)
		copy[i] = none_of && i % none_of == 0 ? NULL
						      : mem + (size_t)i * SLOT + some_shift(odd);
}

/* Blocks scattered in random order over the source, at odd addresses; some of the copies not wanted. */
static struct batch *batch_open(struct ec_scheme scheme, uint32_t n, bool sparse_copies, bool odd)
{
	struct batch *b = calloc(1, sizeof(*b));
	size_t bytes = (size_t)n * EC_BLOCK, fragment;
	struct ec_geometry g;

	assert_int_equal(ec_geometry_of(scheme, n, &g), 0);
	fragment = (size_t)g.rows * EC_BLOCK + SLACK;
	b->source = aligned(bytes + 64);
	b->copied = aligned((size_t)n * SLOT);
	b->copied2 = aligned((size_t)n * SLOT);
	b->parity = aligned(g.m * fragment);
	fill(b->source, bytes + 64);
	for (uint32_t i = 0; i < n; i++) {
		uint32_t j = (uint32_t)(rnd() % (i + 1));

		b->blocks[i] = b->blocks[j];
		b->blocks[j] = b->source + (size_t)i * EC_BLOCK + (odd ? 1 + i % 60 : 0);
	}
	copies_at(b->copied, b->copy, n, odd, sparse_copies ? 3 : 0);
	copies_at(b->copied2, b->copy2, n, odd, sparse_copies ? 2 : 0);
	memset(b->parity, GUARD, g.m * fragment);
	for (unsigned int i = 0; i < g.m; i++)
		b->out[i] = b->parity + i * fragment + some_shift(odd);
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

static void check_guard(const uint8_t *from, const uint8_t *to)
{
	for (; from < to; from++)
		assert_int_equal(*from, GUARD);
}

static void check_copy(const uint8_t *slot, const uint8_t *copy, const uint8_t *block)
{
	if (!copy) {
		check_guard(slot, slot + SLOT);
		return;
	}
	check_guard(slot, copy);
	assert_memory_equal(copy, block, EC_BLOCK);
	check_guard(copy + EC_BLOCK, slot + SLOT);
}

static void check_copies(const struct batch *b)
{
	for (uint32_t i = 0; i < b->pass.geo.nblocks; i++) {
		check_copy(b->copied + (size_t)i * SLOT, b->pass.copy ? b->copy[i] : NULL,
			b->blocks[i]);
		check_copy(b->copied2 + (size_t)i * SLOT, b->pass.copy2 ? b->copy2[i] : NULL,
			b->blocks[i]);
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
		const uint8_t *slot = b->parity + i * (len + SLACK);

		check_guard(slot, b->out[i]);
		assert_memory_equal(b->out[i], parity[i], len);
		check_guard(b->out[i] + len, slot + len + SLACK);
		for (uint32_t r = 0; r < g->rows; r++)
			assert_int_equal(b->parity_crc[i * g->rows + r],
				crc32c(parity[i] + (size_t)r * EC_BLOCK, EC_BLOCK));
		free(parity[i]);
	}
	for (unsigned int d = 0; d < g->k; d++)
		free(frag[d]);
}

/* ---- one image in, one image out -------------------------------------------------------------------------- */

static void one_pass(const struct codecs *c, struct ec_scheme scheme, uint32_t n)
{
	struct batch *b = batch_open(scheme, n, rnd() % 2, rnd() % 2);
	struct ec_pass *p = &b->pass;

	p->stream = rnd() % 2;
	p->unstable = rnd() % 2;
	if (!p->unstable && rnd() % 2)
		p->copy = NULL;
	if (rnd() % 2)
		p->copy2 = NULL;
	ec_encode_pass(c->fast[p->geo.k][p->geo.m], p);
	check_copies(b);
	check_coding(b, c->slow[p->geo.k][p->geo.m], b->blocks);
	batch_close(b);
}

/* Every width, each with a full and with a short last fragment; what else there is to choose, by chance. */
static void every_scheme(enum ec_impl impl)
{
	struct codecs c;

	codecs_open(&c, impl);
	for (unsigned int k = 1; k <= EC_K_MAX; k++)
		for (unsigned int m = 1; m <= EC_M_MAX; m++) {
			struct ec_scheme scheme = {(uint8_t)k, (uint8_t)m};

			one_pass(&c, scheme, k);
			one_pass(&c, scheme, 3 * k - (k > 1));
		}
	codecs_close(&c);
}

static void batches_of_any_size(enum ec_impl impl, int rounds)
{
	struct codecs c;

	codecs_open(&c, impl);
	for (int i = 0; i < rounds; i++)
		one_pass(&c,
			(struct ec_scheme){
				(uint8_t)(1 + rnd() % EC_K_MAX), (uint8_t)(1 + rnd() % EC_M_MAX)},
			i % 10 == 9 ? EC_BLOCKS_MAX : 1 + (uint32_t)(rnd() % 60));
	codecs_close(&c);
}

static void every_scheme_in_one_pass(void **state)
{
	print_message("# the kernel for AVX-512 and GFNI: %s\n", ec_pass_is_ours() ? "yes" : "no");
	every_scheme(EC_ISAL);
}

static void every_scheme_in_one_pass_of_isal(void **state)
{
	every_scheme(EC_ISAL_ONLY);
}

static void every_scheme_in_one_pass_of_the_reference(void **state)
{
	every_scheme(EC_REFERENCE);
}

static void batches_of_any_size_in_one_pass(void **state)
{
	batches_of_any_size(EC_ISAL, 60);
}

static void batches_of_any_size_in_one_pass_of_isal(void **state)
{
	batches_of_any_size(EC_ISAL_ONLY, 60);
}

/* ---- a source that changes ---------------------------------------------------------------------------------- */

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

/* Until the source was seen changing under a pass, so that the check has checked something. */
static void meddled_with(
	const struct codecs *c, struct ec_scheme scheme, uint32_t n, bool stream, bool odd)
{
	struct meddler md = {.b = batch_open(scheme, n, false, odd)};
	struct ec_pass *p = &md.b->pass;
	uint64_t changed = 0;
	pthread_t thread;

	p->unstable = true;
	p->stream = stream;
	assert_int_equal(pthread_create(&thread, NULL, meddle, &md), 0);
	for (int i = 0; i < 10 || !changed; i++) {
		ec_encode_pass(c->fast[p->geo.k][p->geo.m], p);
		for (uint32_t j = 0; j < n; j++) {
			assert_memory_equal(md.b->copy[j], md.b->copy2[j], EC_BLOCK);
			changed += memcmp(md.b->copy[j], md.b->blocks[j], EC_BLOCK) != 0;
		}
		check_coding(md.b, c->slow[p->geo.k][p->geo.m], (const uint8_t *const *)md.b->copy);
	}
	atomic_store(&md.stop, true);
	pthread_join(thread, NULL);
	batch_close(md.b);
}

static void stored_as_one_image(enum ec_impl impl)
{
	static const struct ec_scheme schemes[] = {
		{1, 1}, {1, 3}, {2, 1}, {4, 2}, {8, 3}, {10, 4}, {20, 5}, {24, 8}};
	struct codecs c;

	codecs_open(&c, impl);
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		for (unsigned int how = 0; how < 4; how++)
			meddled_with(&c, schemes[i], 47, how & 1, how & 2);
	codecs_close(&c);
}

static void a_source_that_changes_meanwhile_is_stored_as_one_image(void **state)
{
	stored_as_one_image(EC_ISAL);
}

static void a_source_that_changes_meanwhile_is_stored_as_one_image_by_isal(void **state)
{
	stored_as_one_image(EC_ISAL_ONLY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_scheme_in_one_pass),
		cmocka_unit_test(every_scheme_in_one_pass_of_isal),
		cmocka_unit_test(every_scheme_in_one_pass_of_the_reference),
		cmocka_unit_test(batches_of_any_size_in_one_pass),
		cmocka_unit_test(batches_of_any_size_in_one_pass_of_isal),
		cmocka_unit_test(a_source_that_changes_meanwhile_is_stored_as_one_image),
		cmocka_unit_test(a_source_that_changes_meanwhile_is_stored_as_one_image_by_isal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
