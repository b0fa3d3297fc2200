/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/io/stamp.h"

#include <stdbool.h>
#include <string.h>

#include "common/base/endian.h"
#include "common/base/util.h"

#define MAGIC 0x6f692d7465706170ULL /* "papet-io" */
#define WORDS (STAMP_SECTOR / 8)
#define HEAD  4

static uint64_t mix(uint64_t x)
{
	x ^= x >> 31;
	x *= 0x7fb5d329728ea185ULL;
	x ^= x >> 27;
	x *= 0x81dadef4bc2dd44dULL;
	return x ^ x >> 33;
}

static void fill_one(le64 *w, uint64_t seed, uint64_t sector, uint64_t generation)
{
	uint64_t x = mix(seed) ^ mix(sector + 0x9e3779b97f4a7c15ULL) ^ mix(generation << 20 | 1);

	w[0] = to_le64(MAGIC);
	w[1] = to_le64(seed);
	w[2] = to_le64(sector);
	w[3] = to_le64(generation);
	/* Each word by itself, not one from the other: multiplications side by side, so that stamping is no bottleneck. */
	for (unsigned int i = HEAD; i < WORDS; i++) {
		uint64_t y = (x + i * 0x9e3779b97f4a7c15ULL) * 6364136223846793005ULL;

		w[i] = to_le64(y ^ y >> 29);
	}
}

void stamp_fill(void *buf, size_t len_bytes, uint64_t seed, uint64_t sector, uint64_t generation)
{
	le64 *w = buf;

	for (size_t at = 0; at < len_bytes; at += STAMP_SECTOR, w += WORDS)
		fill_one(w, seed, sector++, generation);
}

static bool is_zero(const uint8_t *p)
{
	return p[0] == 0 && memcmp(p, p + 1, STAMP_SECTOR - 1) == 0;
}

static uint32_t first_difference(const uint8_t *a, const uint8_t *b)
{
	uint32_t i = 0;

	while (i < STAMP_SECTOR - 1 && a[i] == b[i])
		i++;
	return i;
}

enum stamp_verdict stamp_check(const void *sector_bytes, uint64_t seed, uint64_t sector,
	uint64_t gen_min, uint64_t gen_max, struct stamp_finding *out)
{
	le64 want[WORDS], head[HEAD];
	enum stamp_verdict v;

	memcpy(head, sector_bytes, sizeof(head));
	*out = (struct stamp_finding){.sector = sector,
		.found_seed = from_le64(head[1]),
		.found_sector = from_le64(head[2]),
		.found_generation = from_le64(head[3])};
	if (from_le64(head[0]) != MAGIC)
		v = is_zero(sector_bytes) ? STAMP_ZERO : STAMP_FOREIGN;
	else if (out->found_seed != seed)
		v = STAMP_OTHER_SEED;
	else if (out->found_sector != sector)
		v = STAMP_OTHER_SECTOR;
	else if (out->found_generation < gen_min)
		v = STAMP_STALE;
	else if (out->found_generation > gen_max)
		v = STAMP_FUTURE;
	else {
		fill_one(want, seed, sector, out->found_generation);
		v = memcmp(want, sector_bytes, STAMP_SECTOR) ? STAMP_CORRUPT : STAMP_OK;
		if (v != STAMP_OK)
			out->byte = first_difference((const uint8_t *)want, sector_bytes);
	}
	return out->verdict = v;
}

enum stamp_verdict stamp_check_zero(
	const void *sector_bytes, uint64_t sector, struct stamp_finding *out)
{
	le64 head[HEAD];

	memcpy(head, sector_bytes, sizeof(head));
	*out = (struct stamp_finding){.sector = sector,
		.found_seed = from_le64(head[1]),
		.found_sector = from_le64(head[2]),
		.found_generation = from_le64(head[3])};
	return out->verdict = is_zero(sector_bytes) ? STAMP_OK : STAMP_FOREIGN;
}

const char *stamp_verdict_name(enum stamp_verdict v)
{
	static const char *const names[] = {
		[STAMP_OK] = "ok",
		[STAMP_ZERO] = "zeros",
		[STAMP_FOREIGN] = "foreign data",
		[STAMP_OTHER_SEED] = "data of another run",
		[STAMP_OTHER_SECTOR] = "data of another place",
		[STAMP_STALE] = "an older generation",
		[STAMP_FUTURE] = "a generation never written",
		[STAMP_CORRUPT] = "corrupt data",
	};

	return (size_t)v < ARRAY_LEN(names) ? names[v] : "?";
}
