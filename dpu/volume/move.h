/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Moving blocks: what the mover does to data, a batch at a time.
 *
 *	add blocks ─▶ try-lock ─▶ look at the map, ask filter ─▶ read (CRC, decode) ─▶ append one stripe ─▶ map ─▶ unlock ─▶ results
 *
 * A moved block is, on flash and in recovery, a rewrite of the same bytes by the VM: the exclusive range lock is held from before the read until
 * the map is updated, and the stripe carries a fresh write sequence. So nothing can come between, and nothing is special.
 * Blocks whose lock is not free at once are left alone (MOVE_BUSY): the caller comes back. When anything fails the map is as it was.
 *
 * Thread: the shard's. move_batch_start follows dpu/core/io.h: 0 and done_fn once later, or -errno and never.
 * Memory: all of a batch's at move_batch_open. Ownership: the caller owns the batch; volumes in it are kept alive from move_add() on.
 *
 *	move_batch_open(s, 0, &b);
 *	move_batch_reset(b, &(struct move_cfg){.kind = MOVE_TO_LOG});
 *	while (... && move_add(b, v, block, n) == n) ...
 *	move_batch_start(b, done, arg);
 */
#ifndef DPU_VOLUME_MOVE_H
#define DPU_VOLUME_MOVE_H

#include "dpu/volume/map.h"
#include "dpu/volume/volume.h"

struct move_batch;

#define MOVE_BLOCKS_MAX 256u
#define MOVE_ANY_REF    UINT32_MAX

/* ---- looking at maps ------------------------------------------------------------------------------------------ */
uint64_t volume_nblocks(const struct volume *v);
/* The entries of [block, +n), n <= MAP_PAGE_BLOCKS, as they are now: what is done about them has to look again under the lock (a batch does).
 * Returns how many it filled: fewer at the end of the volume. */
uint32_t volume_look(const struct volume *v, uint64_t block, uint32_t n, struct map_entry *out);
/* The first block at or after `block` whose page of the map exists; the volume's end when there is none. */
uint64_t volume_next_mapped(const struct volume *v, uint64_t block);
struct volume *volume_by_id(struct store *s, uint32_t id); /* NULL: no such, or being deleted */

/* ---- batches --------------------------------------------------------------------------------------------------- */
enum move_kind {
	/* Appended to the log again under the volume's scheme of today. Blocks in state log and data+log keep it (data+log becomes log where the layout
	 * is fragments); data becomes data+log (copy) or log (fragments); intermediate becomes log. */
	MOVE_TO_LOG,
	/* Written to the data area from the log: log, data+log -> data+log. Only in volumes of layout copy and where the piece is there. */
	MOVE_TO_AREA,
	/* data+log blocks whose copy in the data area is not what its CRC says are written again from the log; good ones are MOVE_SKIPPED. */
	MOVE_CHECK_AREA,
	/* data+log -> log, in the map alone: volumes of layout fragments give up their copies; pieces without a block are given back by and by. What the
	 * log cannot give now stays: MOVE_FAILED while devices are away that may have it, else MOVE_SKIPPED. */
	MOVE_FORGET_AREA,
};

enum move_result {
	MOVE_MOVED,
	MOVE_BUSY, /* a request held it */
	MOVE_SKIPPED, /* nothing to move there, or the filter said no */
	MOVE_LOST, /* it cannot be read */
	MOVE_FAILED, /* it could not be written: move_batch_status() says why */
};

struct move_item {
	struct volume *vol;
	uint64_t block;
	uint32_t ref; /* only if the map still holds this stripe; MOVE_ANY_REF: whatever it holds */
	uint8_t result; /* enum move_result */
};

/* Is this block, as the map has it now (under its lock), to be moved? */
typedef bool move_filter_fn(
	void *arg, const struct volume *v, uint64_t block, const struct map_entry *e);

struct move_cfg {
	enum move_kind kind;
	move_filter_fn *filter_fn; /* NULL: every one that can be */
	void *filter_arg;
	/* A block that cannot be had although no device of its stripe is away, and all of them answered, becomes lost for good: a record, a media error of just that block from
	 * now on, an event. Else the map stays as it is (a media error all the same, until the device is back). */
	bool lose;
	bool lose_always; /* whatever may come back */
	/* May go as deep as the mover's reserve. Only for what gives back more than it takes: cleaning. Whoever else did could leave the cleaner nothing to work
	 * in, and everybody waits for everybody. */
	bool reserve;
};

/* max_blocks 0: as many as a stripe may have, up to MOVE_BLOCKS_MAX. -ENOMEM. */
int move_batch_open(struct store *s, uint32_t max_blocks, struct move_batch **out);
void move_batch_close(struct move_batch *b); /* not while it runs */
void move_batch_reset(struct move_batch *b, const struct move_cfg *cfg); /* empty again */
/*
 * Adds blocks [block, +n) as far as they fit; returns how many were added. Fewer than n: the batch is full, or the next block goes to another
 * group of the log (scheme, device to avoid): start it, then go on with that block in another batch.
 */
uint32_t move_add(struct move_batch *b, struct volume *v, uint64_t block, uint32_t n, uint32_t ref);
uint32_t move_batch_count(const struct move_batch *b);
/* Never fails for lack of anything passing: it waits for that. -EINVAL: empty or running. */
int move_batch_start(
	struct move_batch *b, void (*done_fn)(void *arg, struct move_batch *b), void *arg);
const struct move_item *move_batch_items(const struct move_batch *b); /* after done_fn */
enum io_status move_batch_status(
	const struct move_batch *b); /* IO_ERR_NO_SPACE, ...: why MOVE_FAILED */
uint64_t move_batch_bytes(const struct move_batch *b); /* read and written for it */
/* The same and what it cost beside: many small reads and decoding take more than their bytes say. */
uint64_t move_batch_effort(const struct move_batch *b);

/* What the VMs have read and written since the store was opened, and how many of their requests are in flight. */
void store_foreground(const struct store *s, uint64_t *bytes, uint32_t *in_flight);

/* The device that a stripe with this block should not be on (POOL_DEV_NONE: any may be). */
int volume_excluded_dev(const struct volume *v, uint64_t block);
/* The piece of the data area behind a block, for MOVE_TO_AREA: 1 it is there, 0 it is being made (ask again), -ENOSPC, -ENODEV, -EIO. */
int volume_need_piece(struct volume *v, uint64_t block);

/* ---- pieces of areas (move_piece.c) ------------------------------------------------------------------------------ */
/*
 * A piece is a segment's worth of a data or intermediate area. One such operation at a time per piece_move.
 *
 *	evacuate  copied to a segment of another device, chunk by chunk while requests go on; what is written meanwhile is copied once more; then, under the
 *	          lock of the whole piece, the rest, a flush, the record, and the new one is the truth. A crash before leaves the old one.
 *	rehome    its device is gone: plain (intermediate) blocks become lost, protected ones are in the log alone from now on; a data piece gets an
 *	          empty segment on another device (MOVE_TO_AREA fills it), an intermediate piece is given up.
 */
enum piece_move_kind { PIECE_EVACUATE, PIECE_REHOME };
struct piece_move;
struct piece_at {
	struct volume *vol;
	bool intermediate;
	uint64_t index;
};
int piece_move_open(struct store *s, struct piece_move **out);
/* Not while it runs, unless it is unsettled: then it goes on without done_fn, and the store, when it closes, waits for it. */
void piece_move_close(struct piece_move *p);
/* Its last record failed, and may be on flash all the same: it is tried again until it is known, however long devices are away. */
bool piece_move_is_unsettled(const struct piece_move *p);
/* The next piece at or after *at (volume NULL: from the first) that lies on dev, in order; false: none. */
bool piece_find(struct store *s, int dev, struct piece_at *at);
/* The one after *at. */
bool piece_next(struct store *s, int dev, struct piece_at *at);
/* The block's place in the data area is on dev. */
bool piece_lies_on(const struct volume *v, uint64_t block, int dev);
/* Some block there is nowhere else: rehome would give it up. */
bool piece_is_only_copy(const struct piece_at *at);
uint64_t piece_count(const struct store *s, int dev); /* that lie on it */
uint32_t piece_blocks(const struct store *s);
/* to_dev: of evacuate and rehome. done_fn's status: 0, -ENOSPC, -EIO, -ECANCELED; the piece is then as it was. lost: blocks given up
 * (evacuate: only what a device that goes on answering says it cannot read).
 * -EINVAL, -EBUSY (it is on the move or being made), -ENODEV. */
int piece_move_start(struct piece_move *p, enum piece_move_kind kind, const struct piece_at *at,
	unsigned int to_dev, void (*done_fn)(void *arg, int status, uint64_t lost), void *arg);

/* ---- what may be changed of a volume while it is in use ------------------------------------------------------------ */
/* Durable on return (control context). New writes follow at once; what is there stays as it is until the mover has been over it (MOVER_PROTECT). */
/* k = 0: the pool's scheme. */
int volume_set_scheme(struct volume *v, struct ec_scheme scheme, struct err *err);
int volume_set_layout(struct volume *v, enum volume_layout layout, struct err *err);

#endif
