/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Long-lived I/O memory, allocated at start: page-aligned, huge pages where the machine has them, zeroed.
 * Fixed-size buffer pools on top. No allocation per I/O: a pool that is empty means back-pressure.
 *
 * Thread: mem_alloc/mem_free any; a pool belongs to one shard.
 */
#ifndef DPU_CORE_MEM_H
#define DPU_CORE_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void *mem_alloc(size_t len_bytes); /* NULL when there is none; aligned to 4096 at least */
/* The same without touching it: pages come with their first use (sparse contents). */
void *mem_reserve(size_t len_bytes);
/* Hidden: lwIP's library has a mem_free() too, and would call this one. */
void mem_free(void *p, size_t len_bytes) __attribute__((visibility("hidden")));

/*
 * The regions that mem_alloc() has given out and mem_free() has not taken back, for devices that want to know memory before
 * they move it (RDMA). A region's id is never used again, its address may be. Who keeps something per region looks at the
 * generation, which costs a load, and reads the list again when it has changed. Reserved memory is not listed: it has no pages.
 */
struct mem_region {
	uint8_t *base;
	size_t len_bytes; /* whole pages */
	uint64_t id;
};
uint64_t mem_generation(void);
/* At most max of them, in order of their addresses; returns how many there are. */
size_t mem_regions(struct mem_region *out, size_t max);
/* For mem.c, and for whoever has I/O memory from elsewhere that lives long. False: out of memory; not listed then. */
bool mem_region_add(void *base, size_t len_bytes);
void mem_region_del(void *base); /* no effect when it is not listed */

/*
 * Copies to memory nobody reads soon: streaming stores, which neither read the destination first nor push anything out
 * of the caches. Best with dst at a multiple of 64. Before another thread or device may look: mem_stream_fence().
 */
void mem_copy_stream(void *dst, const void *src, size_t len_bytes);
void mem_zero_stream(void *dst, size_t len_bytes);
void mem_stream_fence(void);

struct bufpool; /* count buffers of size_bytes each, 4096-aligned */
int bufpool_open(size_t size_bytes, uint32_t count, struct bufpool **out);
void bufpool_close(struct bufpool *bp);
void *bufpool_get(struct bufpool *bp); /* NULL when empty */
void bufpool_put(struct bufpool *bp, void *buf);
uint32_t bufpool_free_count(const struct bufpool *bp);
size_t bufpool_size_bytes(const struct bufpool *bp);

#endif
