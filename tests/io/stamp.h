/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What parapet-io writes: every 512 bytes (a sector) say who wrote them (seed), where they belong (sector number on the
 * namespace) and when (generation), and the rest of the sector follows from those three. So a wrong byte, a
 * sector in the wrong place, a lost or a torn write are told apart. Pure functions. Thread: any.
 *
 * sector: 0 magic(8), 8 seed(8), 16 sector(8), 24 generation(8), 32 pseudo-random(480); little-endian
 */
#ifndef TESTS_IO_STAMP_H
#define TESTS_IO_STAMP_H

#include <stddef.h>
#include <stdint.h>

#define STAMP_SECTOR 512u

/* len_bytes is a multiple of 512. */
void stamp_fill(void *buf, size_t len_bytes, uint64_t seed, uint64_t sector, uint64_t generation);

enum stamp_verdict {
	STAMP_OK,
	STAMP_ZERO, /* never written, or trimmed */
	STAMP_FOREIGN, /* not one of ours */
	STAMP_OTHER_SEED,
	STAMP_OTHER_SECTOR, /* ours, from another place */
	STAMP_STALE, /* a generation older than the one that must be there */
	STAMP_FUTURE, /* a generation that was never written */
	STAMP_CORRUPT, /* the stamp is right, bytes after it are not */
};
const char *stamp_verdict_name(enum stamp_verdict v);

struct stamp_finding {
	enum stamp_verdict verdict;
	uint64_t sector; /* that was read */
	uint64_t found_seed, found_sector, found_generation;
	uint32_t byte; /* first wrong byte of the sector */
};

/* Checks one sector: generations gen_min..gen_max are right. */
enum stamp_verdict stamp_check(const void *sector_bytes, uint64_t seed, uint64_t sector,
	uint64_t gen_min, uint64_t gen_max, struct stamp_finding *out);
/* All 512 bytes are zero. */
enum stamp_verdict stamp_check_zero(
	const void *sector_bytes, uint64_t sector, struct stamp_finding *out);

#endif
