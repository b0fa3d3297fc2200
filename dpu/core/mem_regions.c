/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/core/mem.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

/* Sorted by address. Changes are rare and readers copy, so one lock and one array do. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct mem_region *regions;
static size_t nregions, cap;
static uint64_t last_id;
static _Atomic uint64_t generation;

/* The first region at or above base. */
static size_t place_of(const uint8_t *base)
{
	size_t lo = 0, hi = nregions;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (regions[mid].base < base)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static bool grow(void)
{
	size_t want = cap ? 2 * cap : 64;
	struct mem_region *p = realloc(regions, want * sizeof(p[0]));

	if (!p)
		return false;
	regions = p;
	cap = want;
	return true;
}

bool mem_region_add(void *base, size_t len_bytes)
{
	bool ok;
	size_t at;

	pthread_mutex_lock(&lock);
	ok = nregions < cap || grow();
	if (ok) {
		at = place_of(base);
		memmove(&regions[at + 1], &regions[at], (nregions - at) * sizeof(regions[0]));
		regions[at] = (struct mem_region){base, len_bytes, ++last_id};
		nregions++;
		atomic_fetch_add(&generation, 1);
	}
	pthread_mutex_unlock(&lock);
	return ok;
}

void mem_region_del(void *base)
{
	size_t at;

	pthread_mutex_lock(&lock);
	at = place_of(base);
	if (at < nregions && regions[at].base == base) {
		nregions--;
		memmove(&regions[at], &regions[at + 1], (nregions - at) * sizeof(regions[0]));
		atomic_fetch_add(&generation, 1);
	}
	if (!nregions) { /* leak checkers want an empty table to be gone */
		free(regions);
		regions = NULL;
		cap = 0;
	}
	pthread_mutex_unlock(&lock);
}

uint64_t mem_generation(void)
{
	return atomic_load_explicit(&generation, memory_order_acquire);
}

size_t mem_regions(struct mem_region *out, size_t max)
{
	size_t n;

	pthread_mutex_lock(&lock);
	n = nregions;
	if (n && max)
		memcpy(out, regions, MIN(n, max) * sizeof(out[0]));
	pthread_mutex_unlock(&lock);
	return n;
}
