/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a flash back end provides, and what the core does for it. Private to dpu/flash.
 *
 * Slices: a back end opens the whole device and says its size; the core cuts it, and moves io->off by f->base while an I/O is in flight. What a back end
 * keeps others out with is its own business (struct slice).
 *
 * Thread: each struct flash its shard's. What is static in a back end is shared by all shards, and has a lock that no I/O takes.
 *
 * Before it calls submit the core has checked: depth, range, alignment to block_bytes, the iovecs' sum, non-zero
 * length (but for flush). A back end ends every I/O it accepted with flash_complete(), from the shard's loop, never inside submit;
 * the device may be closed by the last completion's done_fn, so nothing of it is touched after that call.
 */
#ifndef DPU_FLASH_FLASH_PRIV_H
#define DPU_FLASH_FLASH_PRIV_H

#include "common/base/hist.h"
#include "dpu/core/shard.h"
#include "dpu/flash/flash.h"

TAILQ_HEAD(flash_io_list, flash_io);

/* slice.c: which part of a device is opened. */
struct slice {
	uint32_t index, count; /* count 1: whole */
	uint64_t cut_bytes; /* 0: not known yet, or whole */
};
struct slice slice_of(const struct flash_opts *o);
/* The two may not be open exclusively at the same time: they overlap, or are of different cuts. */
bool slice_clashes(const struct slice *a, const struct slice *b);
/* Fills in cut_bytes of a device that has size_bytes now. -EINVAL: too small; -EUCLEAN: it has shrunk. */
int slice_settle(struct slice *s, const char *name, uint64_t size_bytes, struct err *err);
uint64_t slice_bytes(const struct slice *s, uint64_t size_bytes); /* settled ones */
uint64_t slice_base(const struct slice *s);

struct flash_ops {
	void (*close)(struct flash *f); /* nothing in flight; frees f */
	int (*submit)(struct flash *f, struct flash_io *io);
	void (*kick)(struct flash *f); /* optional */
	void *(*window)(struct flash *f, uint64_t off); /* optional; range checked, of the device */
	/* Ends everything in flight with flash_complete(GONE) and lets go of the callers' memory; what is still under way below becomes a ghost
	 * (f->ghosts). Called once, from a task; nothing is submitted afterwards. Optional: I/O that never hangs just ends. */
	void (*abandon)(struct flash *f);
	/* All optional. */
	void (*smart)(struct flash *f, struct flash_smart *out);
	uint32_t (*ghosts)(const struct flash *f); /* beside those of f->ghosts */
	/* After so long the device will be abandoned; 0: never. From now on. */
	void (*timeouts)(struct flash *f, uint32_t gone_ms);
	void (*paths)(const struct flash *f, struct flash_health *out); /* paths and npaths */
	int (*claim)(struct flash *f, uint64_t key, bool preempt, struct err *err);
	int (*unclaim)(struct flash *f, struct err *err);
};

struct flash {
	const struct flash_ops *ops;
	struct shard *sh;
	uint64_t base; /* the core's: where the slice begins on the device */
	struct flash_info info; /* filled by the back end, but for the slice */
	struct flash_stats stats;
	uint32_t in_flight;
	uint32_t ghosts; /* the back end's */

	/* the core's: age.c */
	struct flash_io_list aged; /* in flight, in order of submission; valid while in_flight */
	struct timer look; /* armed while something is in flight */
	struct task give_up;
	uint64_t slow_after_ns, gone_after_ns; /* 0: the default, UINT64_MAX: never */
	uint64_t attended_ns; /* the loop had been away until then: ages count from here */
	uint64_t slow_since_ns, slow_ns, slow_times;
	bool slow, abandoned, last_look;
	uint64_t read_ns, write_ns, flush_ns, max_ns;
	struct hist reads, writes, flushes; /* latencies */
	uint64_t busy_since_ns, busy_ns; /* something was in flight */
	void (*notice_fn)(
		void *arg, enum flash_notice what, enum flash_op op, enum flash_status status);
	void *notice_arg;
};

/* age.c: the deadlines of what is in flight */
void age_begin(struct flash *f, struct flash_io *io);
void age_end(struct flash *f, struct flash_io *io);
void age_close(struct flash *f);

struct flash_backend {
	const char *scheme; /* what stands before the first colon */
	/* where: what stands behind it. opts: complete, defaults filled in where they are the same for all. */
	int (*open)(struct shard *sh, const char *where, const struct flash_opts *opts,
		struct flash **out, struct err *err);
	bool stacked; /* opens another address, with these opts: what it opens is the slice already */
	/* Optional: where opening has to wait for somebody. As flash_warm() and its fellows. */
	void (*warm)(struct shard *sh, const char *where, const struct flash_opts *opts);
	bool (*is_warm)(struct shard *sh, const char *where);
	void (*cool)(struct shard *sh);
};
extern const struct flash_backend flash_backend_file, flash_backend_mem, flash_backend_fault,
	flash_backend_tcp, flash_backend_rdma;

#define FLASH_DEPTH_DEFAULT 256u
#define FLASH_DEPTH_MAX     4096u

void flash_complete(struct flash *f, struct flash_io *io, enum flash_status status);

/* Copies between scattered memory and one buffer of io->len bytes. */
void flash_gather(const struct flash_io *io, void *dst);
void flash_scatter(const struct flash_io *io, const void *src);

#endif
