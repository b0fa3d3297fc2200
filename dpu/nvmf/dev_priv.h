/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside a device on a peer (dev.h):
 *
 *   dev.c        open and close, what it says of itself, waiting
 *   dev_path.c   a path's way to "usable" after its controller is ready, and back
 *   dev_io.c     where an I/O is, what becomes of it when a command has ended
 *   dev_ghost.c  ranges that commands of lost connections may still write to
 *   dev_claim.c  reservations
 *
 * An I/O is in exactly one place until its owner is told:
 *
 *	submit ─▶ WAITING ─▶ sent on a path ─▶ DONE ─▶ done_fn, from a task
 *	             ▲             │
 *	             └─── HELD ◀───┘  until a time: before it is tried again, or until nothing of a lost connection can follow it
 */
#ifndef DPU_NVMF_DEV_PRIV_H
#define DPU_NVMF_DEV_PRIV_H

#include "common/nvme/identify.h"
#include "dpu/core/shard.h"
#include "dpu/nvmf/dev.h"

#define DEV_NS_PER_MS 1000000ULL

TAILQ_HEAD(nvmf_dev_ios, nvmf_dev_io);

/* What a path asks its controller after that is ready, in this order; again when the target says that something has changed. */
enum path_step {
	PATH_IDLE, /* nothing under way */
	PATH_CHANGED_NS, /* reading the log that lets the target tell of the next change */
	PATH_IDENTIFY,
	PATH_ANA, /* where the target has it */
	PATH_RESV_REPORT, /* where the device is claimed: is it still ours? */
	PATH_RESV_REGISTER, /* the target has forgotten it */
	PATH_RESV_ACQUIRE,
};

struct path {
	struct nvmf_dev *d;
	struct nvmf_path_addr addr;
	struct nvmf *n; /* NULL: abandoned */
	enum nvmf_path_state state;
	bool known; /* in this association the namespace has been identified as ours */
	bool was_known; /* ... at some time, whatever it is now */
	bool unfit; /* ... as not there, or not what it was; error says */
	bool checked; /* the claim, in this association */
	enum nvmf_path_state ana; /* what the target says of the way: usable, or inaccessible */
	uint32_t anagrpid;
	uint64_t change_ns; /* since when it says: change. 0: it does not */
	bool again; /* the steps start again when they have ended */
	bool changed; /* ... with the log of changed namespaces */
	enum path_step step;
	struct nvmf_io io; /* of the steps */
	struct iovec iov;
	void *page; /* what they read: page_bytes, NVME_IDENTIFY_SIZE at least */
	size_t page_bytes;
	struct timer look; /* until the steps are tried again */
	bool up; /* this association has become complete */
	uint64_t
		heard_ns; /* the last complete association that was lost: when the target was last heard; 0: there was none */
	uint64_t
		up_seq; /* as many writes had ended at a time since when the target has not restarted, as this path knows */
	uint32_t in_flight;
	uint16_t next_queue;
	struct nvmf_stats stats; /* when n is gone */
	char error[160];
};

/* Blocks that a command of a lost connection may still change. */
struct ghost {
	uint64_t lba, until_ns;
	uint32_t nblocks;
};

struct nvmf_dev {
	struct shard *sh;
	const struct nvmf_dev_events *ev;
	void *arg;
	uint32_t nsid, depth, io_timeout_ms;
	char name[NVME_NQN_FIELD + 16]; /* in messages */
	unsigned int npaths;
	struct path paths[NVMF_PATHS_MAX];
	struct nvmf_dev_info info; /* nblocks 0: never reached yet */
	bool deac; /* write zeroes may deallocate */
	bool ptpl; /* reservations can outlive a loss of power */
	uint8_t hostid[16];
	uint64_t claim_key; /* 0: not claimed */
	struct host_claim *claim; /* dev_claim.c's: shared; NULL: not claimed */
	uint64_t key_losses; /* of the claim's, those claim_seq takes into account */
	uint64_t
		claim_seq; /* as many writes had ended when the target was last without that key, for all we know */
	bool abandoned, fenced;
	bool gone; /* the target says there is no such namespace any more */

	uint32_t in_flight;
	struct nvmf_dev_ios waiting, held, done;
	struct task task;
	struct timer hold_timer;

	/* Writes are numbered as they end. Those from dirty_seq on lie in the target's volatile cache (0: none does). */
	uint64_t wrote_seq, dirty_seq;
	uint64_t restart_min_ns;
	bool cache_lost; /* for good: what had been written cannot be believed */

	struct ghost *ghosts;
	uint32_t nghosts, max_ghosts;
	uint64_t all_until_ns; /* more ghosts than there is room for: they may be anywhere */
	uint64_t quiet_ns; /* the last of them */
};

/* ---- dev_path.c ---------------------------------------------------------------------------------------- */
extern const struct nvmf_events path_events;
bool path_is_usable(const struct path *p);
/* Asks the target again how the namespace is; changed: because it has told of a change. */
void path_look(struct path *p, bool changed);
/* A command was told that there is no such namespace. */
void path_missing(struct path *p);
/* A command was told that it cannot get through here: enum nvme_status of SCT 3. */
void path_blocked(struct path *p, uint16_t status);
void path_close(struct path *p);

/* ---- dev_io.c -------------------------------------------------------------------------------------------- */
void dev_run(void *arg); /* the device's task: sends what waits, tells what is done */
void dev_push(struct nvmf_dev *d); /* defers it */
/* Everything that is not on a path ends with result. */
void dev_end_waiting(struct nvmf_dev *d, enum nvmf_dev_result result);
/* Tells the owners of what is done. The last one may close the device: nothing of it is touched afterwards. */
void dev_tell(struct nvmf_dev *d);
void dev_fenced(struct nvmf_dev *d);
static inline bool dev_io_writes(const struct nvmf_dev_io *io)
{
	return io->op == NVMF_DEV_WRITE || io->op == NVMF_DEV_WRITE_ZEROES ||
	       io->op == NVMF_DEV_DISCARD;
}

/* ---- dev_claim.c ----------------------------------------------------------------------------------------- */
/* The target does not have the key: whoever sees it later on another connection of this host cannot tell that it was made anew. */
void claim_key_lost(struct nvmf_dev *d);
/* The target has it. So it had all the time since claim_seq, for all this host knows. */
void claim_key_seen(struct nvmf_dev *d);
void claim_leave(struct nvmf_dev *d); /* without a word to the target */

/* ---- dev_ghost.c ----------------------------------------------------------------------------------------- */
void ghost_add(struct nvmf_dev *d, const struct nvmf_dev_io *io, uint64_t until_ns);
/* Until when a new write has to wait for the ghosts in its range; 0: there are none. */
uint64_t ghost_until(struct nvmf_dev *d, const struct nvmf_dev_io *io);

#endif
