/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of dpu/volume: checkpoints of the store, in the background.
 *
 *	idle -> fence (are we still the owner?) -> barrier (what was on its way when the log's floor was taken is in the map)
 *	     -> sections -> flush (every device) -> commit (root) -> idle
 *
 * Writes go on all the while: pages are taken as they are when their turn comes. What happened since the floor is still in the log, and beats them
 * at a recovery. hwdocs/formats/checkpoint.md says why that is right. None begins before the store's own recovery has ended.
 *
 * Thread: the shard's. A state ends in the poller's round or in a completion; nothing waits but checkpoint_final().
 */
#ifndef DPU_VOLUME_CKPT_H
#define DPU_VOLUME_CKPT_H

#include "dpu/pool/checkpoint.h"
#include "dpu/volume/sections.h"

#define CKPT_SECTION_BYTES (32u << 10) /* of pages: what a round of the poller writes */
#define CKPT_DROPPED_BYTES (8u << 10)
#define CKPT_WAITERS       8u

/* ---- checkpoint_sections.c: what is in it, a bite at a time --------------------------------------------------------- */
enum ckpt_stage {
	CKPT_STORE,
	CKPT_VOLUMES,
	CKPT_PIECES,
	CKPT_NOTES,
	CKPT_PAGES,
	CKPT_LOG,
	CKPT_END
};

struct ckpt_cursor {
	struct store *s;
	struct ckpt_writer *w;
	struct stripelog_ckpt *log;
	enum ckpt_stage stage;
	uint32_t gen; /* which volumes are listed */
	uint32_t since; /* pages that changed in this generation or later; 0: all */
	uint32_t volume; /* id of the one it is at */
	uint8_t kind;
	uint64_t at; /* piece, page or note */
	struct section out; /* being filled, or waiting to be taken */
	struct section dropped;
	bool full; /* out has to go first */
	bool full_dropped;
	uint64_t pages;
};
void cursor_start(struct ckpt_cursor *c);
/* 1: there is more; 0: that was all; -EAGAIN: the writer's buffers are full; or what ckpt_put() says. */
int cursor_step(struct ckpt_cursor *c);

/* ---- checkpoint.c ----------------------------------------------------------------------------------------------------- */
int checkpoint_open(struct store *s);
void checkpoint_close(struct store *s);
int checkpoint_poll(struct store *s);
bool checkpoint_idle(const struct store *s);
/* One soon (after a recovery), unless this store makes none by itself. */
void checkpoint_soon(struct store *s);
/* One as soon as may be: something waits for space. No effect when the last attempt failed a moment ago. */
void checkpoint_for_space(struct store *s);
/* True where one would free something that is in limbo, and none has just failed: it is worth while to wait for space. */
bool checkpoint_may_help(const struct store *s);
/* Control context: the last one of a store that closes, where something has changed since the last. */
void checkpoint_final(struct store *s);

#endif
