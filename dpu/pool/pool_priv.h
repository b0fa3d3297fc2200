/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside of dpu/pool only. */
#ifndef DPU_POOL_POOL_PRIV_H
#define DPU_POOL_POOL_PRIV_H

#include "dpu/core/shard.h"
#include "dpu/pool/devio.h"
#include "dpu/pool/health.h"
#include "dpu/pool/superblock.h"

#define POOL_RESERVE_SEGMENTS 4u /* of each device, kept back for metadata at first */
#define POOL_DEV_SEGMENTS_MIN 6u /* superblocks, the reserve, and room to do something */

/* health.c: what is known of a device's behaviour. */
struct pool_health {
	struct pool *p;
	struct pool_dev_health counts[2]; /* the half of the window that runs, and the one before */
	uint64_t half_ns; /* when the one that runs began */
	uint64_t last_ns; /* when it last did something that made it a suspect */
	uint64_t slow_seen_ns; /* of flash_slow_ns(), counted already */
	bool probing;
	bool hurried; /* given up because another was */
	struct flash_io probe;
	struct iovec probe_iov;
	uint8_t probe_mem[4096];
};

struct ckpt;

/* sbwrite.c: superblocks on their way. */
struct sbwrite {
	struct devio ios[POOL_DEVS_MAX];
	uint8_t *mem[POOL_DEVS_MAX]; /* SB_BYTES each */
	unsigned int pending, good;
	bool running, again;
	uint64_t started, ended; /* rounds */
	int status; /* of the last round */
	struct task task;
};

struct pool {
	struct shard *sh;
	struct superblock sb; /* what the next write of superblocks starts from */
	struct pool_dev devs[POOL_DEVS_MAX];
	uint8_t *use[POOL_DEVS_MAX]; /* enum pool_use of every segment */
	uint32_t hint[POOL_DEVS_MAX]; /* no free segment lies below */
	uint32_t held[POOL_DEVS_MAX];
	uint64_t room_version;
	uint32_t reserve_meta, reserve_mover;
	TAILQ_HEAD(, pool_listener) listeners;
	struct pool_listener *next_listener; /* while they are being told */
	struct task changed_task;
	uint64_t changed; /* bit per device to tell the listeners of */

	struct pool_health_cfg health_cfg;
	struct pool_health health[POOL_DEVS_MAX];
	struct timer quiet, hurry, again;
	struct task probe_task;
	uint32_t probes; /* in flight */
	uint32_t nhung;
	bool closing;

	struct sbwrite sbwrite;
	uint8_t sb_slot[POOL_DEVS_MAX]; /* with the device's newest superblock */
	bool writable; /* an epoch of ours has begun */
	bool hollow_seen; /* a device has epochs that came to nothing */

	struct ckpt *ckpt;
	uint32_t ios; /* devio: in flight */
	uint32_t fences; /* pool_fenced(): not told yet */
	bool lost; /* FLASH_ERR_FENCED */
	unsigned int lost_dev; /* who said so */
};

/* health.c: whenever devs[dev].flash is set; before it is closed or given away; before any of them is closed with the pool (waits). */
void health_attach(struct pool *p, unsigned int dev);
void health_detach(struct pool *p, unsigned int dev);
void health_close(struct pool *p);
/* Why it failed, when all that is known is `cause`. */
enum pool_cause health_cause(const struct pool *p, unsigned int dev, enum pool_cause cause);

/* sbwrite.c */
/* The newer good one of both slots; slot (may be NULL): which. Errors as superblock_parse(), -EIO only where neither could be read. */
int superblock_read(struct flash *f, struct superblock *out, unsigned int *slot);
/* intact: neither slot is damaged. */
int superblock_read_intact(
	struct flash *f, struct superblock *out, unsigned int *slot, bool *intact);
int superblock_wipe(struct flash *f, unsigned int slot);
int sbwrite_attach(struct pool *p, unsigned int dev); /* before dev is usable. -ENOMEM */
void sbwrite_kick(struct pool *p); /* in the background, when the pool is writable */
int sbwrite_sync(struct pool *p,
	struct err *err); /* waits for a round that begins now; -EIO: fewer than m + 1 */
bool sbwrite_busy(const struct pool *p);
void sbwrite_close(struct pool *p);

/* pool.c */
struct pool *pool_new(struct shard *sh, struct err *err);
void pool_free(struct pool *p); /* the flash devices are somebody else's by now */
void pool_quiesce(struct pool *p); /* waits for its own I/O; no superblock is written after it */
unsigned int pool_members(const struct pool *p); /* without removed ones */

/* slice.c */
unsigned int pool_flash_slices(const struct flash *f); /* 1: whole */
/* Is f opened as the slice that its superblock is of? -EXDEV, -EUCLEAN. */
int pool_slice_check(
	const struct superblock *sb, const struct flash *f, const char *name, struct err *err);
/* Is f the same slice as p's members? -EXDEV. */
int pool_slice_fits(
	const struct superblock *sb, const struct flash *f, const char *name, struct err *err);

/* create.c */
int pool_cfg_check(const struct pool_cfg *cfg, unsigned int ndevs, struct err *err);
int pool_member_check(const struct pool_member *m, uint32_t segment_bytes, bool force,
	uint32_t block_bytes, struct err *err);

/* open.c: the device of members[dev]; f NULL: missing. -ENOMEM. */
int pool_dev_init(struct pool *p, unsigned int dev, struct flash *f);

/* life.c: listeners hear of dev. */
void pool_tell(struct pool *p, unsigned int dev);
/* life.c: segments that hold something. */
uint32_t pool_dev_in_use(const struct pool *p, unsigned int dev);

/* segment.c: the use map of a device whose nsegments is set; segment 0 is taken. -ENOMEM. */
int pool_segments_open(struct pool *p, unsigned int dev);
void pool_segments_close(struct pool *p);

#endif
