/* SPDX-License-Identifier: BSD-3-Clause */
/* Runs of pages, next fit: what is in flight together lies together, and comes back soon. */
#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/stripelog/log_priv.h"

int arena_open(struct arena *ar, uint32_t npages)
{
	ar->mem = mem_alloc((size_t)npages * ARENA_PAGE);
	ar->used = calloc(DIV_ROUND_UP(npages, 64u), sizeof(*ar->used));
	ar->npages = ar->free = npages;
	ar->hint = 0;
	if (!ar->mem || !ar->used) {
		arena_close(ar);
		return -ENOMEM;
	}
	return 0;
}

void arena_close(struct arena *ar)
{
	if (ar->mem)
		mem_free(ar->mem, (size_t)ar->npages * ARENA_PAGE);
	free(ar->used);
	*ar = (struct arena){0};
}

static bool page_used(const struct arena *ar, uint32_t i)
{
	return ar->used[i / 64] >> (i % 64) & 1;
}

/* The first run of n free pages in [from, to), or to. */
static uint32_t run_find(const struct arena *ar, uint32_t from, uint32_t to, uint32_t n)
{
	uint32_t len = 0;

	for (uint32_t i = from; i < to; i++) {
		if (i % 64 == 0 && ar->used[i / 64] == UINT64_MAX) {
			len = 0;
			i += 63;
			continue;
		}
		len = page_used(ar, i) ? 0 : len + 1;
		if (len == n)
			return i + 1 - n;
	}
	return to;
}

static void run_mark(struct arena *ar, uint32_t at, uint32_t n, bool used)
{
	for (uint32_t i = at; i < at + n; i++) {
		assert(page_used(ar, i) != used);
		ar->used[i / 64] ^= 1ull << (i % 64);
	}
}

void *arena_get(struct arena *ar, uint32_t npages)
{
	uint32_t at, end;

	if (!npages || npages > ar->free)
		return NULL;
	at = run_find(ar, ar->hint, ar->npages, npages);
	if (at == ar->npages) {
		end = MIN(ar->hint + npages, ar->npages);
		at = run_find(ar, 0, end, npages);
		if (at == end)
			return NULL;
	}
	run_mark(ar, at, npages, true);
	ar->free -= npages;
	ar->hint = at + npages == ar->npages ? 0 : at + npages;
	return ar->mem + (size_t)at * ARENA_PAGE;
}

void arena_put(struct arena *ar, void *p, uint32_t npages)
{
	uint32_t at = (uint32_t)(((uint8_t *)p - ar->mem) / ARENA_PAGE);

	run_mark(ar, at, npages, false);
	ar->free += npages;
	if (ar->free == ar->npages)
		ar->hint = 0; /* idle: back to memory that is warm */
}
