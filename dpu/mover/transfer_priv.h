/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the transfer only.
 *
 *	transfer.c       its life and its steps, one after the other     transfer_note.c  notes, and what they mean after a crash
 *	transfer_pass.c  passes: what is to be copied, reads
 *	transfer_land.c  the destination: writes, volumes                 (on its thread)
 *
 * Two threads: struct transfer is the source's. A part that is handed over (struct part, struct errand) belongs to the other thread until it is back, by
 * message; struct landing is the destination's. What both read (cfg, shards) does not change.
 */
#ifndef DPU_MOVER_TRANSFER_PRIV_H
#define DPU_MOVER_TRANSFER_PRIV_H

#include "dpu/mover/mover_priv.h"
#include "dpu/mover/transfer.h"
#include "dpu/volume/track.h"

#define PARTS       8u /* read and written at once */
#define PART_BLOCKS 128u /* 512 KiB */
#define PART_BYTES  (PART_BLOCKS * IO_BLOCK_BYTES)

enum transfer_step {
	STEP_NOTE, /* the source's notes */
	STEP_LAND, /* the destination's notes and volumes */
	STEP_COPY, /* a pass */
	STEP_FOLLOW, /* the copies are changed as the volumes were */
	STEP_STOP, /* pause_fn */
	STEP_REST, /* the last passes */
	STEP_REST_FOLLOW,
	STEP_SEAL, /* flush, notes: complete; at the destination */
	STEP_SEAL_SOURCE,
	STEP_SWITCH, /* switch_fn */
	STEP_COMMIT, /* the destination's notes go: these are the volumes */
	STEP_CLEAR, /* the source's volumes and notes go */
	STEP_UNDO, /* the copies and their notes go */
	STEP_UNDO_SOURCE, /* ... and the source's notes */
	STEP_OVER,
};

/* A volume as its copy is to be: devices by name. */
struct tvol_want {
	struct volume_cfg cfg;
	char data[64], intermediate[64]; /* empty: none */
};

struct tvol {
	struct volume *source; /* tracked: so it is not deleted */
	struct tvol_want want; /* the source writes it, the destination reads it, in errands only */
	struct volume *copy; /* the destination's */
	uint64_t nblocks; /* of the copy */
	/* of the pass */
	uint64_t cursor; /* marks before it have been taken */
	uint64_t at, end; /* taken, and not yet handed on */
};

enum part_state {
	PART_FREE,
	PART_TO_READ, /* the source's store was full */
	PART_READING,
	PART_AWAY, /* the destination's */
};

/* A run of blocks on its way. */
struct part {
	struct transfer *t;
	enum part_state state;
	unsigned int vol;
	uint64_t block, n;
	bool nothing; /* zeros all of it: n may be large */
	bool fresh; /* the copy's blocks were never written: what is not there need not be trimmed */
	bool hurry; /* regardless of the limits */
	uint32_t
		probe; /* a read failed: blocks are read one by one, to find which; PART_BLOCKS: no */
	uint8_t kinds[PART_BLOCKS];
	uint8_t *buf;
	struct iovec iov;
	struct io_req req;
	struct message msg;
	/* the destination's part of it */
	uint64_t pos, run; /* blocks that are written; in the request that is in flight */
	bool charged;
	enum io_status status;
	TAILQ_ENTRY(part) link;
};
TAILQ_HEAD(part_list, part);

/* Something that waits, on either shard: run there in control context, then back. */
struct errand {
	struct transfer *t;
	struct shard *sh;
	int (*fn)(struct transfer *t, struct err *err);
	struct message msg;
	bool under_way;
	int rc;
	struct err err;
};

struct landing {
	struct transfer *t;
	struct poller poller;
	struct timer timer;
	struct part_list waiting; /* for their turn */
	bool open;
};

struct transfer {
	struct transfer_cfg cfg;
	struct transfer_status pub;
	enum transfer_step step;
	struct shard *sh, *to_sh;
	struct store *s;
	struct poller poller;
	struct timer timer;
	struct tvol *vols;
	struct part parts[PARTS];
	struct errand errand;
	struct landing land;

	bool closing, stop; /* stop: nothing more is begun, and then it is undone */
	bool operator_pause;
	bool asked; /* this step has asked the caller, who has not answered */
	bool vm_paused, too_long;
	int paused_rc;
	enum transfer_state end_state; /* of the undoing */
	bool fresh; /* the first pass: the copies are empty */
	uint32_t stuck, attempts;
	uint64_t not_before_ns;
	uint64_t paused_at_ns, deadline_ns;
	uint64_t pass_bytes, last_pass_bytes;
	uint64_t rate_ns, rate_bytes;
};

/* transfer.c */
void transfer_fail(struct transfer *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void transfer_say(struct transfer *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* transfer_pass.c */
int parts_open(struct transfer *t);
void parts_close(struct transfer *t);
unsigned int parts_busy(const struct transfer *t);
void pass_begin(struct transfer *t);
/* Begins what may be begun now; how much. */
int pass_work(struct transfer *t);
bool pass_is_over(struct transfer *t);
void pass_give_up(struct transfer *t); /* what was taken and not begun is marked again */
void part_back(void *arg); /* a part from the destination; a message */
uint64_t pass_dirty(struct transfer *t);
/* The volumes have changed: their `want` says what they are now. */
bool pass_volumes_changed(struct transfer *t);

/* transfer_land.c: at the destination. All but land_part: errands. */
int land_open(struct transfer *t, struct err *err);
int land_follow(struct transfer *t, struct err *err);
int land_seal(struct transfer *t, struct err *err);
int land_commit(struct transfer *t, struct err *err);
int land_undo(struct transfer *t, struct err *err);
int land_leave(struct transfer *t, struct err *err); /* lets go, nothing else */
void land_part(void *arg); /* a message */

/* transfer_note.c: control context */
int transfer_note_put(struct store *s, const struct transfer_cfg *c, const struct volume_cfg *v,
	bool complete, struct err *err);
int transfer_note_del(struct store *s, const char *name, struct err *err);
/* There is a note of an earlier move of this volume: what is here, where its VM is not, a settling would delete. */
bool transfer_note_is_debris(
	const struct store *s, const struct transfer_cfg *c, const struct volume_cfg *v);

#endif
