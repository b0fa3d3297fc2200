/* SPDX-License-Identifier: BSD-3-Clause */
/* What the tests of the codecs share: random bytes that can be had again, in memory that begins where it should. */
#ifndef TESTS_UNIT_EC_RIG_H
#define TESTS_UNIT_EC_RIG_H

#include "dpu/ec/ec.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/util.h"

static uint64_t random_state;

static inline uint64_t rnd(void)
{
	uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* PARAPET_SEED=n repeats a run. */
static inline void seed_and_say(void)
{
	const char *s = getenv("PARAPET_SEED");

	random_state = s ? strtoull(s, NULL, 0) : (uint64_t)time(NULL);
	print_message("# seed %llu\n", (unsigned long long)random_state);
}

static inline void *aligned(size_t n)
{
	void *p = NULL;

	assert_int_equal(posix_memalign(&p, 4096, n), 0);
	return p;
}

static inline void fill(uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i += 8) {
		uint64_t v = rnd();

		memcpy(p + i, &v, MIN(n - i, sizeof(v)));
	}
}

#endif
