/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Copying a volume while its VM writes to it: what has been written since, and what is there at all.
 *
 *	volume_track_start(v);
 *	copy everything;
 *	while ((n = volume_track_take(v, &cursor, end, max, &block)))	a pass; the next one begins when what this one took is copied
 *		volume_kinds(v, block, ...), then a read of it, then a copy;
 *	volume_track_stop(v);
 *
 * A write, write zeroes or trim is marked when it ends, however it ends, under its range lock: also one that was in flight at the start. So whoever takes a
 * mark, looks at the kinds and then reads (in this order; reads wait for that lock) has what is there, or finds the mark again in the next
 * pass. What repairs and movers do changes no contents and is not marked, except where it changes a block's kind.
 *
 * A mark stands for a piece of 64 KiB, more in volumes beyond 2 TiB: the marks take 4 MiB at most (when a volume grows they may become coarser).
 *
 * Thread: the shard's. Ownership: the marks are the volume's; it cannot be deleted meanwhile.
 */
#ifndef DPU_VOLUME_TRACK_H
#define DPU_VOLUME_TRACK_H

#include <stdbool.h>
#include <stdint.h>

#include "dpu/volume/volume.h"

/* Nothing is marked yet. -ENOMEM; -EBUSY: it is tracked already. */
int volume_track_start(struct volume *v);
void volume_track_stop(struct volume *v); /* no effect when it is not tracked */
bool volume_is_tracked(const struct volume *v);

/* Marks [block, +n): it is to be taken (again). No effect when it is not tracked. */
void volume_track_mark(struct volume *v, uint64_t block, uint64_t n);
/* The opposite: forgets marks of pieces that lie whole in [block, +n). The caller is about to look at them all the same. */
void volume_track_clear(struct volume *v, uint64_t block, uint64_t n);
/*
 * The next run of marked pieces at or after *cursor: its first block and the number of blocks, max_blocks at most (but a piece is never split), none at
 * or beyond `end`; the marks are gone, the cursor is behind it. 0: there is none. What a piece has beyond `end` stays marked.
 */
uint64_t volume_track_take(
	struct volume *v, uint64_t *cursor, uint64_t end, uint64_t max_blocks, uint64_t *block);
uint64_t volume_track_bytes(const struct volume *v); /* marked, rounded to pieces */

/* What there is of a block, and how a copy of it has to be written: the first three equal enum io_outcome. */
enum volume_kind {
	KIND_PLAIN,
	KIND_INTERMEDIATE,
	KIND_PROTECT,
	KIND_NOTHING, /* reads as zeros */
	KIND_LOST, /* cannot be read: given up by a recovery or a mover */
};
/* Of [block, +n), n <= 128, as the map says now. Returns how many it filled: fewer at the end of the volume. */
uint32_t volume_kinds(const struct volume *v, uint64_t block, uint32_t n, uint8_t *kinds);

#endif
