/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A VM's volumes go from the store of one shard to that of another, while the VM reads and writes.
 *
 *	notes at the source ─▶ notes, volumes at the destination ─▶ passes: everything, then what was written meanwhile, again and again
 *	  ─▶ pause_fn: the VM stands still ─▶ the rest ─▶ flush, notes: complete ─▶ switch_fn: the VM is the other shard's
 *	  ─▶ the destination's notes go ─▶ the source's volumes and notes go ─▶ end_fn
 *
 * Truth: whose the VM is decides (the caller makes that durable in switch_fn). A volume on its way has a note at either side, from before its copy exists until
 * one of the two is gone; at start transfer_settle() deletes the one that is not the VM's. So a crash at any moment leaves one truth. What fails
 * before the switch, or is cancelled, deletes the copies, and the VM goes on where it was.
 *
 * The foreground goes first at either side: a pass obeys the limits of both movers (dpu/mover/mover.h), the rest does not: the VM waits for it. It waits
 * no longer than pause_max_ms (and a flush): else it goes on at the source, and more passes follow.
 *
 * Each block is written as what it is: plain, intermediate or protected; what is not there is not written. A block that cannot be read ends the move. Volumes
 * keep name, NGUID, size, block size, layout, scheme and their flash (by its name); what is changed of them meanwhile (growth too) is changed in the copy.
 *
 * Thread: all of it is called on the source's shard, transfer_settle() on the store's. Callbacks come on the source's shard; they may call everything here but
 * transfer_close(). The destination's store, mover and shard are used on their own thread, by messages. Both movers outlive the transfer.
 * Memory: bounded, allocated at open. Errors: 0 or -errno with struct err.
 *
 *	transfer_open(&cfg, &t, &e);
 *	  pause_fn: stop the VM, drain; transfer_paused(t, 0);
 *	  switch_fn: assign the VM, durably; transfer_switched(t); bring it up there: volume_find() by name
 *	  end_fn: transfer_status(t) says how; transfer_close(t), later
 */
#ifndef DPU_MOVER_TRANSFER_H
#define DPU_MOVER_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "dpu/mover/mover.h"

struct transfer;

#define TRANSFER_VOLUMES_MAX 256u
#define TRANSFER_SMALL_BYTES (8ull << 20) /* so little left: the VM is paused for it */
#define TRANSFER_PAUSE_MS    5000u

struct transfer_ops {
	/* The VM shall stand still: takes no new request, and when none is in flight: transfer_paused(). */
	void (*pause_fn)(void *arg);
	/* The VM goes on at the source. After pause_fn, when the rest took too long, or the move failed, or it was cancelled. */
	void (*resume_fn)(void *arg);
	/* The copies are whole and durable: makes the VM the other shard's, durably, then transfer_switched(); or transfer_not_switched(). From here on the VM's
	 * volumes are not touched at the source. */
	void (*switch_fn)(void *arg);
	/* It is over (done, failed, cancelled), once. */
	void (*end_fn)(void *arg);
};

struct transfer_cfg {
	struct mover *from, *to; /* with their stores */
	unsigned int from_shard, to_shard; /* numbers, for the notes */
	uint32_t vm;
	struct volume *const *volumes; /* all of the VM's, at the source; read by the open only */
	unsigned int nvolumes; /* 0..TRANSFER_VOLUMES_MAX */
	uint64_t small_bytes; /* 0: TRANSFER_SMALL_BYTES */
	uint32_t pause_max_ms; /* 0: TRANSFER_PAUSE_MS */
	const struct transfer_ops *ops;
	void *arg;
};

/* -EINVAL, -ENOMEM, -EBUSY (a volume is being copied already). It begins with the shard's next round. */
int transfer_open(const struct transfer_cfg *cfg, struct transfer **out, struct err *err);
/* Control context. One that is not over is left as it is, once nothing of it is in flight: transfer_settle() puts it right at the next start. */
void transfer_close(struct transfer *t);

/* rc < 0: the VM could not be stopped, and goes on at the source (no resume_fn); it is tried again after more passes, a few times. */
void transfer_paused(struct transfer *t, int rc);
void transfer_switched(struct transfer *t);
/* It is the source's as before, for certain: the move ends, failed, with this text. */
void transfer_not_switched(struct transfer *t, const char *why);

/* Between the rounds of copying. -EINVAL: not in that state; -EBUSY: the VM is paused for the rest. */
int transfer_pause(struct transfer *t, struct err *err);
int transfer_resume(struct transfer *t, struct err *err);
/* -EBUSY: it is too late, the VM is changing its shard; -EINVAL: it is over. */
int transfer_cancel(struct transfer *t, struct err *err);

enum transfer_state {
	TRANSFER_PREPARING, /* notes, volumes at the destination */
	TRANSFER_COPYING,
	TRANSFER_WAITING, /* for devices, for room: text says */
	TRANSFER_PAUSED, /* by the operator */
	TRANSFER_STOPPING, /* pause_fn is under way */
	TRANSFER_RESTING, /* the VM stands still: the rest, flush */
	TRANSFER_SWITCHING, /* switch_fn is under way */
	TRANSFER_CLEARING, /* switched: the source's volumes go */
	TRANSFER_UNDOING, /* the copies go */
	TRANSFER_DONE,
	TRANSFER_FAILED, /* text says why */
	TRANSFER_CANCELLED,
	TRANSFER_STATES
};
const char *transfer_state_name(enum transfer_state s);

struct transfer_status {
	enum transfer_state state;
	uint32_t vm;
	unsigned int from_shard, to_shard;
	uint32_t passes; /* ended */
	uint64_t done_bytes, total_bytes; /* of this pass, as far as is known */
	uint64_t copied_bytes; /* all told */
	uint64_t dirty_bytes; /* written meanwhile: for the next pass */
	uint64_t rate_bytes_per_s; /* of late */
	uint64_t eta_s; /* of the end; UINT64_MAX: not known */
	uint64_t paused_ns; /* the VM stood still, all told (up to the switch) */
	uint64_t started_ns, ended_ns; /* the source's shard time; 0: not yet */
	char text[192]; /* what it waits for, or how it ended */
};
/* Valid until the shard's next round. */
const struct transfer_status *transfer_status(struct transfer *t);

/* ---- after a start -------------------------------------------------------------------------------------------------------- */
struct transfer_settled {
	unsigned int deleted, kept; /* volumes */
	unsigned int
		unclear; /* neither: the VM is on a third shard, or where its volume is not whole */
};
/*
 * What a crash left on the move: volumes of a VM that is not here (shard_of_fn says where each is) go, those of one that is stay. Before VMs are brought up; any
 * number of times. Control context. self: the shard of this store. 0; -EIO, -ENOSPC with err: something could not be done, and is next time.
 */
int transfer_settle(struct store *s, unsigned int self,
	unsigned int (*shard_of_fn)(void *arg, uint32_t vm), void *arg,
	struct transfer_settled *out, struct err *err);
/* The volume, in the store of shard self, is a copy that was never whole. */
bool transfer_is_part(const struct store *s, unsigned int self, const struct volume *v);

#endif
