/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/io/work.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"

#define NBLOCKS_MAX 65536u /* of one NVMe command */

static uint64_t next(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

/* Sizes of real traffic: mostly 4 KiB, many small multiples, some large, and some that are no multiple of it. */
static uint32_t mixed_bytes(uint64_t *state, uint32_t block_bytes, uint32_t max_bytes)
{
	uint64_t r = next(state);
	uint32_t n;

	switch (r % 8) {
	case 0:
	case 1:
	case 2:
		n = 4096;
		break;
	case 3:
		n = 4096 * (1 + (uint32_t)(r >> 8) % 8);
		break;
	case 4:
		n = 65536;
		break;
	case 5:
		n = 131072;
		break;
	case 6:
		n = block_bytes * (1 + (uint32_t)(r >> 8) % 16);
		break;
	default:
		n = 4096 * (1 + (uint32_t)(r >> 8) % 32) + block_bytes * ((uint32_t)(r >> 24) % 8);
	}
	n = MIN(n, max_bytes);
	return MAX(n / block_bytes * block_bytes, block_bytes);
}

/* Cuts the range; with pieces NULL it only counts. */
static uint64_t cut(const struct work_cfg *cfg, struct piece *pieces)
{
	uint64_t state = cfg->seed ^ 0x6d69786564ULL, at = 0, n = 0;

	while (at < cfg->size) {
		uint64_t len = cfg->bs ? cfg->bs
				       : mixed_bytes(&state, cfg->block_bytes, cfg->max_bytes);

		len = MIN(len, cfg->size - at);
		if (pieces)
			pieces[n] = (struct piece){.block = (cfg->offset + at) / cfg->block_bytes,
				.nblocks = (uint32_t)(len / cfg->block_bytes)};
		at += len;
		n++;
	}
	return n;
}

static void shuffle(struct work *w, uint64_t seed)
{
	uint64_t state = seed ^ 0x73687566ULL;

	for (uint64_t i = w->npieces; i > 1; i--) {
		uint64_t j = next(&state) % i;
		struct piece t = w->pieces[j];

		w->pieces[j] = w->pieces[i - 1];
		w->pieces[i - 1] = t;
	}
}

int work_open(const struct work_cfg *cfg, struct work *w)
{
	*w = (struct work){0};
	if (cfg->bs % cfg->block_bytes || cfg->bs > cfg->max_bytes ||
		cfg->max_bytes < cfg->block_bytes || cfg->bs / cfg->block_bytes > NBLOCKS_MAX)
		return -EINVAL;
	w->npieces = cfg->bs ? DIV_ROUND_UP(cfg->size, cfg->bs) : cut(cfg, NULL);
	if (w->npieces > SIZE_MAX / sizeof(w->pieces[0]))
		return -ENOMEM;
	w->pieces = calloc(w->npieces, sizeof(w->pieces[0]));
	if (!w->pieces)
		return -ENOMEM;
	cut(cfg, w->pieces);
	if (cfg->random)
		shuffle(w, cfg->seed);
	return 0;
}

void work_close(struct work *w)
{
	free(w->pieces);
	w->pieces = NULL;
}
