/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A namespace on a peer, reached over one path or several: what a flash back end stands on. A path is a controller connection
 * (nvmf.h); all of them are kept connected, each comes back by itself after a loss. An I/O goes down one path; the asymmetric namespace
 * access (ANA) of the target says which are preferred:
 *
 *	optimized, connected  >  non-optimized, connected  >  none: the I/O waits for a path, and whoever has a deadline gives the device up
 *
 * Ghosts. When a path is lost with commands in flight, or a command was not answered in time and could not be aborted, the target may still
 * carry them out later. So after a loss:
 *  - a read is sent again at once, on any path;
 *  - a write that is `repeatable` (flash_io.checked: whoever reads it can tell it from anything else) too;
 *  - any other one waits until the target is known to have ended everything of the lost association: its keep-alive
 *    timeout twice over (it notices a loss no later) and the command quiesce time it reports. nvmf_dev_quiet_ns() tells.
 * A new write to blocks that such a command may still change waits as long, whatever it is. Nothing is acknowledged twice, and an I/O that was aborted by
 * the target's own word is no ghost.
 *
 * Caches. A target that restarts loses what was in its volatile cache, and comes back as if nothing had happened. So a flush succeeds only
 * over a path on which it is known that the target has not restarted since before the oldest write the flush has to cover; where there is none any
 * more it ends with NVMF_DEV_GONE: what had been written since the last flush may not be there. A path knows it
 *  - of the time of one connection;
 *  - of a loss, where it was connected again sooner after the target was last heard than it can lose power and serve the namespace again
 *    (nvmf_dev_cfg.restart_min_ms): a cable, a switch, a target that dropped us. Only what was answered on a connection that was complete counts as
 *    heard: one that was begun and failed may have been with the target after its restart;
 *  - of all the time since this host's reservation key was registered, where the key is still there and would not have survived a loss of power.
 *
 * Reservations (where the target has them) keep a former owner of the pool out: nvmf_dev_claim(). They are of hosts: the devices that a host has of one
 * namespace in this process (the slices of a flash) share one.
 *
 * Thread: the shard's; different devices belong to different shards, also of one namespace. Submission: 0 and done_fn exactly once, later, from the shard's loop or from nvmf_dev_abandon(); or -errno (-EAGAIN: full;
 * -ENODEV: abandoned; -EINVAL) and never. The caller owns the I/O, its iovecs and buffers until done_fn; then nothing of the transport uses them any more
 * (RDMA: no key that gives access to them is valid).
 * Ownership: nvmf_dev_open() gives, nvmf_dev_close() takes back. Errors: 0 or -errno with struct err.
 *
 *	nvmf_dev_open(sh, &cfg, &events, me, &d, &err);          connecting goes on; nvmf_dev_wait(d, ms, &err) for control work
 *	io.op = NVMF_DEV_WRITE; io.lba = 0; io.nblocks = 16; io.iov = iov; io.niov = 1; io.done_fn = wrote;
 *	rc = nvmf_dev_submit(d, &io);
 */
#ifndef DPU_NVMF_DEV_H
#define DPU_NVMF_DEV_H

#include <sys/queue.h>

#include "dpu/nvmf/nvmf.h"

#define NVMF_PATHS_MAX 4

struct nvmf_dev;

struct nvmf_dev_cfg {
	struct nvmf_cfg
		ctrl; /* of every path, but for host and port; reconnect_min_ms 0: the device's own */
	unsigned int npaths;
	struct nvmf_path_addr {
		char host[64];
		uint16_t port; /* 0: 4420 */
	} paths[NVMF_PATHS_MAX];
	uint32_t nsid;
	uint32_t depth; /* I/Os at once, over all paths; 0: the queues' */
	uint32_t
		io_timeout_ms; /* then a command is aborted; after as long again its connection is given up. 0: 4000 */
	/* The least time in which the peer could lose power and serve the namespace again; see Caches. 0: 8000; 1: no outage is that short. */
	uint32_t restart_min_ms;
};

enum nvmf_dev_op {
	NVMF_DEV_READ,
	NVMF_DEV_WRITE,
	NVMF_DEV_FLUSH,
	NVMF_DEV_WRITE_ZEROES, /* deallocates where that reads as zeros */
	NVMF_DEV_DISCARD, /* succeeds at once where the target has none: a hint */
};

enum nvmf_dev_result {
	NVMF_DEV_OK,
	NVMF_DEV_TRANSIENT, /* may work when tried again */
	NVMF_DEV_MEDIA, /* these blocks, for good */
	NVMF_DEV_GONE, /* the device was abandoned, the namespace is no more, or its cache cannot be believed: open it anew and check it */
	NVMF_DEV_FENCED, /* another host holds the reservation: we are not its owner any more */
};

struct nvmf_dev_io {
	enum nvmf_dev_op op;
	uint64_t lba;
	uint32_t nblocks; /* at most nvmf_dev_info.max_blocks; flush: 0 */
	const struct iovec *iov; /* read, write */
	int niov; /* at most nvmf_dev_info.max_pieces */
	bool repeatable; /* write: see above */
	void (*done_fn)(struct nvmf_dev_io *io);
	void *arg;
	enum nvmf_dev_result result;
	/* the device's while in flight */
	struct nvmf_io cmd;
	struct nvmf_dev *dev;
	int path;
	uint8_t tries;
	uint64_t hold_ns; /* not sent before */
	uint64_t seq; /* flush: the last write it covers */
	TAILQ_ENTRY(nvmf_dev_io) link;
};

struct nvmf_dev_info { /* of the namespace, since it was first reached */
	uint64_t nblocks;
	uint32_t block_bytes;
	uint32_t atomic_bytes; /* power fail atomicity the target promises; a block at least */
	uint32_t max_blocks; /* of one I/O */
	uint32_t max_pieces; /* of its memory */
	bool volatile_cache, write_zeroes, discard, reservations;
	uint8_t nguid[16];
	char serial[21], model[41];
};

enum nvmf_path_state {
	NVMF_PATH_CONNECTING,
	NVMF_PATH_LOST, /* waits to connect again */
	NVMF_PATH_OPTIMIZED,
	NVMF_PATH_NON_OPTIMIZED,
	NVMF_PATH_INACCESSIBLE, /* connected; ANA says inaccessible, persistent loss or change */
};
const char *nvmf_path_state_name(enum nvmf_path_state s);

struct nvmf_path_status {
	struct nvmf_path_addr addr;
	enum nvmf_path_state state;
	uint32_t in_flight;
	struct nvmf_stats stats;
	char error[160]; /* of the last loss; empty: none */
};

/* All optional; from the shard's loop; they must not close the device. */
struct nvmf_dev_events {
	void (*path_fn)(
		struct nvmf_dev *d, void *arg, unsigned int path); /* its state has changed */
	void (*fenced_fn)(
		struct nvmf_dev *d, void *arg); /* once: another host took the reservation */
	void (*resized_fn)(struct nvmf_dev *d, void *arg); /* nvmf_dev_info.nblocks */
};

int nvmf_dev_open(struct shard *sh, const struct nvmf_dev_cfg *cfg,
	const struct nvmf_dev_events *ev, void *arg, struct nvmf_dev **out, struct err *err);
/* Nothing is in flight. Waits for nothing; the connections are shut down in order where that needs no waiting. */
void nvmf_dev_close(struct nvmf_dev *d);
/* Control context: until a path is usable and the namespace identified. -ETIMEDOUT, -ENODEV (no such namespace), -ECONNREFUSED, ...: err has the last
 * path's reason. */
int nvmf_dev_wait(struct nvmf_dev *d, uint32_t timeout_ms, struct err *err);
/* Drops every connection (queue pairs are destroyed) and ends everything in flight with GONE before it returns; nothing is submitted
 * afterwards. Commands that had been sent may still be carried out by the target until nvmf_dev_quiet_ns(). */
void nvmf_dev_abandon(struct nvmf_dev *d);

bool nvmf_dev_is_ready(const struct nvmf_dev *d); /* a path is usable */
const struct nvmf_dev_info *nvmf_dev_info(const struct nvmf_dev *d);
unsigned int nvmf_dev_npaths(const struct nvmf_dev *d);
void nvmf_dev_path(const struct nvmf_dev *d, unsigned int path, struct nvmf_path_status *out);
/* shard_now_ns() time after which no write of a connection lost so far can still be carried out; 0: there is none. */
uint64_t nvmf_dev_quiet_ns(const struct nvmf_dev *d);
void nvmf_dev_set_timeout(struct nvmf_dev *d, uint32_t io_timeout_ms);

int nvmf_dev_submit(struct nvmf_dev *d, struct nvmf_dev_io *io);
/* Sends what submit has gathered: one doorbell (RDMA) or one send (TCP) per queue. The loop does it every round anyway. */
void nvmf_dev_kick(struct nvmf_dev *d);

/* Control context: registers `key` and makes this host the only one that may write (Write Exclusive). preempt: takes it from whoever holds it, whose
 * writes end with Reservation Conflict from then on. -EOPNOTSUPP: the target has no reservations; -EBUSY: another host holds it, or this one's other devices
 * have it with another key; -EIO. */
int nvmf_dev_claim(struct nvmf_dev *d, uint64_t key, bool preempt, struct err *err);
/* Gives it back (release, unregister) when no other device of this host has it: an orderly end. */
int nvmf_dev_unclaim(struct nvmf_dev *d, struct err *err);

#endif
