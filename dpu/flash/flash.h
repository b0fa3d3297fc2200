/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One flash device behind one interface: `file:PATH` (a file or block device: io_uring, O_DIRECT where the file system
 * has it), `nvme+tcp:` and `nvme+rdma:` (a namespace on a peer), `mem:` (memory, for tests and benchmarks) and `fault:` (stacked on any of them:
 * errors, delays, torn writes, lost unflushed writes, disappearance).
 *
 * Addresses:  file:PATH                 a file or block device that exists
 *             nvme+tcp://HOST[:PORT][,HOST[:PORT]...]/SUBNQN#NSID[?OPTION[&OPTION...]]
 *             nvme+rdma://...           the same. Several hosts are several paths to one namespace. [ADDR] for IPv6; port 4420. Options:
 *                                       hdgst, ddgst, zero-copy (tcp), queues=N, depth=N, keep-alive=MS, restart-min=MS (common/nvme/address.h)
 *             mem:SIZE[,name=NAME]      fresh and zero; with a name the contents outlive the close, for the process
 *             fault:[volatile:]ADDRESS  see fault.h; volatile: with a cache that power loss empties
 *
 * Slices: a device can be opened in equal slices, each a struct flash of its own: a device of the slice's width that begins at 0. Writes, zeroes and
 * discards stay within the slice; a flush is one of the whole device. Slices of one device may belong to different shards, of this process; while one is
 * open exclusively neither the whole device nor another process has it (on peers: see flash_claim), and each slice has one owner.
 *
 * Thread: a device, or slice of one, and its queue pair belong to one shard; different ones may be opened, used and closed by different threads at once.
 * What they share behind that (locks of files, named memory, claims) is the back ends' and guarded; nothing of it is touched per I/O. Submission: 0 and io->done_fn(io) exactly once, later, from the
 * shard's loop; or -errno (-EAGAIN: the queue is full, -ENODEV: it was abandoned, -EINVAL: bounds or alignment; the core checks these,
 * back ends need not) and never. done_fn may submit again; it must not wait (shard_wait, *_sync). The caller owns io, its iovecs and
 * buffers until done_fn.
 *
 * Deadlines: an I/O that is older than slow_ms is told of; one older than gone_ms makes the core abandon the device: everything in flight ends with
 * FLASH_ERR_GONE, whatever the kernel is still doing with it (a ghost). No ghost reads into the caller's memory, or writes what was not the
 * caller's when it submitted (but see `checked`); and the device cannot be opened again before the last ghost is gone.
 *
 * Addresses: bytes from the start of the device, or slice. Offsets and lengths are multiples of flash_info.block_bytes.
 * Alignment of memory: any works; buffers aligned to block_bytes avoid a copy.
 *
 *	flash_open(sh, "file:/var/lib/parapet/f0", &opts, &f, &err);
 *	io->op = FLASH_WRITE; io->off = 0; io->iov = iov; io->niov = 1; io->len = 4096; io->done_fn = wrote;
 *	rc = flash_submit(f, io);
 */
#ifndef DPU_FLASH_FLASH_H
#define DPU_FLASH_FLASH_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#include "common/base/err.h"
#include "common/base/hist.h"

struct flash;
struct shard;

enum flash_op {
	FLASH_READ,
	FLASH_WRITE,
	FLASH_FLUSH, /* every write completed before its submission is durable when it completes */
	FLASH_WRITE_ZEROES, /* reads as zeros afterwards */
	FLASH_DISCARD, /* a hint; contents undefined afterwards */
};

enum flash_status {
	FLASH_OK = 0,
	FLASH_ERR_TRANSIENT, /* may work when tried again */
	FLASH_ERR_MEDIA, /* these blocks, for good; the device goes on */
	FLASH_ERR_GONE, /* the device: it will not come back without being opened again */
	FLASH_ERR_FENCED, /* another host has made itself the only writer (flash_claim): the pool is not ours any more */
	FLASH_STATUS_COUNT
};
const char *flash_status_name(enum flash_status s);

struct flash_io {
	enum flash_op op;
	uint64_t off; /* bytes; the core's while in flight */
	uint64_t len; /* bytes; read/write: the sum of iov */
	const struct iovec *iov;
	int niov; /* up to FLASH_IOV_MAX */
	void (*done_fn)(struct flash_io *io);
	void *arg;
	enum flash_status status;
	/* Write: whoever reads it back can tell it from anything else (it carries a CRC, or one is kept of it). Then no copy is made for the
	 * sake of ghosts: one may store whatever the memory holds by then. */
	bool checked;
	void *priv[4]; /* the back end's while in flight */
	TAILQ_ENTRY(flash_io) link; /* the back end's while in flight, the owner's otherwise */
	uint64_t submit_ns; /* the core's while in flight, as is this: */
	TAILQ_ENTRY(flash_io) age_link;
};
#define FLASH_IOV_MAX 256

#define FLASH_SLICES_MAX  16u
#define FLASH_SLICE_ALIGN (32u << 20) /* where slices begin and end: multiples of it */

#define FLASH_ADDRESS_MAX 512
struct flash_info {
	char address[FLASH_ADDRESS_MAX];
	uint64_t size_bytes; /* of a slice: its width */
	uint32_t slice, slices; /* which of how many; 0 of 1: the whole device */
	uint64_t cut_bytes; /* size of the device that was cut into slices; 0: it is whole */
	uint32_t block_bytes; /* 512 or 4096: unit of addressing */
	uint32_t atomic_bytes; /* largest aligned write that power loss cannot tear */
	bool volatile_cache; /* completed writes may be lost on power loss until flushed */
	uint32_t depth;
	bool reads_once; /* a write's payload is read exactly once: memory that somebody may change meanwhile can be given */
};

struct flash_opts {
	uint32_t depth; /* I/Os in flight at once; 0: 256 */
	uint32_t
		block_bytes; /* 0: what the device says; mem: and files: 512 or 4096 may be chosen, default 4096 */
	uint32_t
		atomic_bytes; /* 0: the physical block size; regular files count as 4096 (an assumption) */
	const uint8_t *
		host_id; /* 16 bytes: who we are to targets on peers, the same after every start and for all slices; NULL: somebody new */
	uint32_t connect_ms; /* how long flash_open() waits for a peer; 0: 5000 */
	bool exclusive; /* refuse a device another process holds (default use); waits shortly for a killed owner */
	/* Slice `slice` of `slices` (up to FLASH_SLICES_MAX; 0 or 1: whole) of a device that had cut_bytes when it was cut (0: its size now). */
	uint32_t slice, slices;
	uint64_t cut_bytes;
};
/* Width of a slice; 0: too small for so many. */
uint64_t flash_slice_bytes(uint64_t cut_bytes, uint32_t slices);

/* Opens an address; opts NULL: the defaults and exclusive. -EINVAL (malformed address, no such slice, too small for so many), -ENOENT, -EBUSY (in use by another
 * owner; so are slices that overlap), -EUCLEAN (smaller than cut_bytes: it has shrunk), -ENODEV, ...: err says. */
int flash_open(struct shard *sh, const char *address, const struct flash_opts *opts,
	struct flash **out, struct err *err);
/* Begins to connect to a peer, so that the flash_open() of the same address that follows finds it connected: for many devices at once call this for all of them
 * first. No effect on local ones. Never waits; what no flash_open() has taken after a minute is dropped. */
void flash_warm(struct shard *sh, const char *address, const struct flash_opts *opts);
/* A warmed address (or a local one) can be opened without waiting. */
bool flash_is_warm(struct shard *sh, const char *address);
/* Drops what was warmed and not opened. Needed before the shard is closed, where there may be some. */
void flash_cool(struct shard *sh);
/* After the last completion (in flight is an error of the caller: asserts). Does not wait for ghosts: what they hold stays until they are gone. */
void flash_close(struct flash *f);
const struct flash_info *flash_info(const struct flash *f);
uint32_t flash_in_flight(const struct flash *f);

int flash_submit(struct flash *f, struct flash_io *io);
/* Pushes out what submit has gathered (one doorbell or syscall per batch); the shard's loop does it every round anyway. */
void flash_kick(struct flash *f);

/* mem: only (NULL elsewhere): the memory behind [off, off + len), for the single-pass write path. Whoever stores there
 * behaves as a completed write: durable at once, so only devices without volatile cache offer it. */
void *flash_window(struct flash *f, uint64_t off, uint64_t len);

/* Forgets the contents kept for "mem:SIZE,name=NAME" (NULL: all). Those of open devices stay. Any thread. */
void flash_mem_forget(const char *name);

/* Counters since open. */
struct flash_stats {
	uint64_t reads, writes, flushes, read_bytes, write_bytes, zero_bytes,
		errors[FLASH_STATUS_COUNT];
	uint64_t fixed; /* file: transfers to or from memory that the kernel knew beforehand */
};
void flash_stats(const struct flash *f, struct flash_stats *out);

/* ---- deadlines and health --------------------------------------------------------------------------------- */
#define FLASH_SLOW_MS        1000u
#define FLASH_GONE_MS        8000u
#define FLASH_TIMEOUT_MS_MAX 600000u

/* From now on. Until then the defaults above. 0: never. -EINVAL: over the maximum, or slow after gone. */
int flash_set_timeouts(struct flash *f, uint32_t slow_ms, uint32_t gone_ms);

enum flash_notice {
	FLASH_NOTICE_SLOW, /* its oldest I/O is older than slow_ms */
	FLASH_NOTICE_PROMPT, /* no longer: that I/O has ended, and no other is that old */
	FLASH_NOTICE_GONE, /* it was abandoned: its I/Os end now */
	FLASH_NOTICE_ERROR, /* an I/O ends with an error: status, before its done_fn */
};
/* One listener: the pool. Called from the shard's loop; it must not submit or close. */
void flash_on_notice(struct flash *f,
	void (*notice_fn)(
		void *arg, enum flash_notice what, enum flash_op op, enum flash_status status),
	void *arg);

/* Gives the device up, as its deadline does: from now on it refuses, and what is in flight ends with FLASH_ERR_GONE in one of the shard's next tasks. */
void flash_abandon(struct flash *f);
bool flash_is_abandoned(const struct flash *f);
uint32_t flash_ghosts(
	const struct flash *f); /* I/Os that were told GONE and have not ended below */
bool flash_is_slow(const struct flash *f); /* between SLOW and PROMPT (or GONE) */
uint64_t flash_oldest_ns(const struct flash *f); /* age of the oldest I/O in flight; 0: none */
uint64_t flash_slow_ns(const struct flash *f); /* time it was, all told */

/* How long reads, writes and flushes took, in ns, since it was opened; the device's. */
const struct hist *flash_times(const struct flash *f, enum flash_op op);
uint64_t flash_busy_ns(const struct flash *f); /* time something was in flight, all told */

/* What an NVMe device says of itself (SMART log page 02h); others say nothing. */
struct flash_smart {
	bool known;
	char why_not[64]; /* where it is not known */
	uint64_t
		age_ns; /* of what is said here; it is asked for again when it is older than a minute */
	uint8_t critical; /* the log page's warning bits */
	uint8_t used_percent; /* of its rated life; may pass 100 */
	uint8_t spare_percent, spare_min_percent;
	int16_t celsius;
	uint64_t read_bytes, written_bytes, hours, unsafe_shutdowns, media_errors;
};

/* One way to a device on a peer. */
struct flash_path {
	char address[80]; /* "10.0.0.2:4420" */
	const char *state; /* "optimized", "lost", ... */
	bool usable;
	uint32_t in_flight;
	uint64_t losses, timeouts, commands;
	struct flash_wire {
		uint64_t kicks; /* doorbells (RDMA) or sends (TCP) */
		uint64_t posts, completions; /* work requests (RDMA) */
		uint64_t copied_bytes, zero_copy_bytes,
			inline_bytes; /* payload: copied, out of or into its own memory, in capsules */
		uint64_t binds, remote_invalidates; /* memory windows (RDMA) */
	} wire;
	char error[160]; /* of the last loss */
};
#define FLASH_PATHS_MAX 4

struct flash_latency {
	uint64_t p50_ns, p99_ns, max_ns,
		count; /* of I/Os that ended since the device was opened; 6 % wide classes */
};

struct flash_health {
	uint64_t read_ns, write_ns, flush_ns; /* latency, moving averages */
	struct flash_latency read, write, flush;
	uint64_t max_ns; /* the longest of an I/O that ended */
	uint64_t oldest_ns; /* age of the oldest in flight */
	uint64_t slow_ns; /* time the oldest was older than slow_ms, all told */
	uint64_t slow_times; /* times it became so */
	uint64_t busy_ns; /* time something was in flight */
	uint64_t errors[FLASH_STATUS_COUNT];
	uint32_t in_flight, ghosts;
	bool slow, abandoned;
	unsigned int npaths; /* 0: a local device */
	struct flash_path paths[FLASH_PATHS_MAX];
	struct flash_smart smart;
};
/* Never waits for the device: SMART is what it said last. */
void flash_health(struct flash *f, struct flash_health *out);

/* ---- keeping others out ------------------------------------------------------------------------------------ */

/* Where the device can (NVMe reservations on peers): makes this host its only writer; others' writes end with FLASH_ERR_FENCED from then on. preempt: also when another
 * host holds it. Slices of one device share one claim: all give the same key. Waits (control context). -EOPNOTSUPP: it cannot, nothing has changed; -EBUSY: another holds it; -EIO. */
int flash_claim(struct flash *f, uint64_t key, bool preempt, struct err *err);
/* The end of a claim, so that the next owner needs no preemption: of the last slice that has it. 0 also where there is none. */
int flash_unclaim(struct flash *f, struct err *err);

/* Straight-down I/O for control work, through shard_wait(). 0 or -EIO/-ENODEV by status; -errno of submit. */
int flash_rw_sync(struct flash *f, enum flash_op op, uint64_t off, void *buf, uint64_t len);

#endif
