/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/core/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "common/base/util.h"

#define PAGE_BYTES ((size_t)4096)
#define HUGE_BYTES ((size_t)2 << 20)

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

/* What a request of len_bytes really maps; mem_free() derives the same from the same length. 0: too large. */
static size_t mapped_bytes(size_t len_bytes)
{
	if (!len_bytes || len_bytes > SIZE_MAX / 2)
		return 0;
	return ROUND_UP(len_bytes, len_bytes >= HUGE_BYTES ? HUGE_BYTES : PAGE_BYTES);
}

/* Anonymous memory aligned to 2 MiB, so that transparent huge pages can back all of it. */
static void *map_aligned(size_t len)
{
	char *p = mmap(NULL, len + HUGE_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t head;

	if (p == MAP_FAILED)
		return NULL;
	head = (HUGE_BYTES - (uintptr_t)p % HUGE_BYTES) % HUGE_BYTES;
	if (head)
		munmap(p, head);
	if (head < HUGE_BYTES)
		munmap(p + head + len, HUGE_BYTES - head);
	return p + head;
}

void *mem_reserve(size_t len_bytes)
{
	size_t len = mapped_bytes(len_bytes);
	void *p = len ? map_aligned(len) : NULL;

	if (p)
		madvise(p, len, MADV_HUGEPAGE);
	return p;
}

static void *alloc_pages(size_t len_bytes, size_t len)
{
	void *p;

	if (len_bytes < HUGE_BYTES) {
		p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		return p == MAP_FAILED ? NULL : p;
	}
	p = mmap(NULL, len, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (p != MAP_FAILED)
		return p;
	p = map_aligned(len);
	if (!p)
		return NULL;
	madvise(p, len, MADV_HUGEPAGE);
	/* Pages now, not at the first I/O. Kernels before 5.14 do not know it; they fault later. */
	if (madvise(p, len, MADV_POPULATE_WRITE) < 0 && errno != EINVAL) {
		munmap(p, len);
		return NULL;
	}
	return p;
}

void *mem_alloc(size_t len_bytes)
{
	size_t len = mapped_bytes(len_bytes);
	void *p = len ? alloc_pages(len_bytes, len) : NULL;

	if (p)
		(void)mem_region_add(p, len);
	return p;
}

void mem_free(void *p, size_t len_bytes)
{
	if (!p)
		return;
	mem_region_del(p);
	munmap(p, mapped_bytes(len_bytes));
}

struct bufpool {
	char *base;
	size_t stride, len;
	uint32_t count, nfree;
	void *free[]; /* a stack: the buffer used last is the warmest */
};

int bufpool_open(size_t size_bytes, uint32_t count, struct bufpool **out)
{
	struct bufpool *bp;

	if (!size_bytes || !count || size_bytes > SIZE_MAX / 4 / count)
		return -EINVAL;
	bp = calloc(1, sizeof(*bp) + count * sizeof(bp->free[0]));
	if (!bp)
		return -ENOMEM;
	bp->stride = ROUND_UP(size_bytes, PAGE_BYTES);
	bp->count = count;
	bp->len = bp->stride * count;
	bp->base = mem_alloc(bp->len);
	if (!bp->base) {
		free(bp);
		return -ENOMEM;
	}
	while (bp->nfree < count) {
		bp->free[bp->nfree] = bp->base + (size_t)(count - 1 - bp->nfree) * bp->stride;
		bp->nfree++;
	}
	*out = bp;
	return 0;
}

void bufpool_close(struct bufpool *bp)
{
	if (!bp)
		return;
	assert(bp->nfree == bp->count);
	mem_free(bp->base, bp->len);
	free(bp);
}

void *bufpool_get(struct bufpool *bp)
{
	return bp->nfree ? bp->free[--bp->nfree] : NULL;
}

void bufpool_put(struct bufpool *bp, void *buf)
{
	assert(bp->nfree < bp->count);
	assert((size_t)((char *)buf - bp->base) < bp->len);
	assert((size_t)((char *)buf - bp->base) % bp->stride == 0);
	bp->free[bp->nfree++] = buf;
}

uint32_t bufpool_free_count(const struct bufpool *bp)
{
	return bp->nfree;
}

size_t bufpool_size_bytes(const struct bufpool *bp)
{
	return bp->stride;
}
