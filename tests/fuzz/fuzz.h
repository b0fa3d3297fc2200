/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One fuzz target per decoder: NAME_fuzz.c defines the two functions below. Linked with libFuzzer (clang) it searches; linked with
 * replay.c (any compiler) it runs inputs that are there: the corpus and every past finding, also mutated a little.
 * A target checks more than the absence of crashes: FUZZ_CHECK() is what must hold of whatever was decoded. Thread: one.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_CHECK(cond)                                                                          \
	do {                                                                                      \
		if (!(cond)) {                                                                    \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                                                  \
		}                                                                                 \
	} while (0)

/* Takes bytes off the input; zeros once it is used up. */
struct eater {
	const uint8_t *p;
	size_t left;
};

static inline uint8_t eat8(struct eater *e)
{
	if (!e->left)
		return 0;
	e->left--;
	return *e->p++;
}

static inline uint16_t eat16(struct eater *e)
{
	uint16_t lo = eat8(e);

	return (uint16_t)(lo | eat8(e) << 8);
}

static inline uint32_t eat32(struct eater *e)
{
	uint32_t lo = eat16(e);

	return lo | (uint32_t)eat16(e) << 16;
}

static inline uint64_t eat64(struct eater *e)
{
	uint64_t lo = eat32(e);

	return lo | (uint64_t)eat32(e) << 32;
}

/* Up to n bytes into p, the rest zeros. */
static inline void eat_bytes(struct eater *e, void *p, size_t n)
{
	size_t have = n < e->left ? n : e->left;

	memset(p, 0, n);
	if (have)
		memcpy(p, e->p, have);
	e->p += have;
	e->left -= have;
}

/* The input is a list of changes {offset(2), length(1), bytes} to a valid structure of n bytes: fuzzing works on what matters
 * though the structure is large and mostly zeros. */
static inline void eat_patches(struct eater *e, uint8_t *p, size_t n)
{
	while (e->left > 3) {
		size_t at = eat16(e) % n, len = eat8(e);

		if (len > n - at)
			len = n - at;
		if (len > e->left)
			len = e->left;
		eat_bytes(e, p + at, len);
	}
}

#endif
