/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool: the flash devices one card owns. Superblocks, the epoch, device states, segments and where groups go.
 *
 *	device:  | segment 0: superblocks (two alternating slots), room for metadata | segment 1 | segment 2 | ...
 *
 * Thread: one shard. pool_create/open/epoch calls wait through shard_wait() (control context); the rest is immediate.
 * Ownership: the pool takes the flash devices over and closes them. Errors: 0 or -errno with struct err.
 */
#ifndef DPU_POOL_POOL_H
#define DPU_POOL_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "dpu/ec/ec.h"
#include "dpu/flash/flash.h"

#define POOL_DEVS_MAX        64
#define POOL_SEGMENT_DEFAULT (16u << 20)
#define POOL_SEGMENT_MIN     (1u << 20)
#define POOL_SEGMENT_MAX     (32u << 20)
#define POOL_DEV_NONE        (-1)

enum pool_on_degraded { POOL_DEGRADED_REFUSE, POOL_DEGRADED_ALLOW };

enum pool_dev_state {
	POOL_DEV_HEALTHY,
	POOL_DEV_FAILED, /* errors while we used it; not written any more */
	POOL_DEV_MISSING, /* a member that was not there at open */
};
const char *pool_dev_state_name(enum pool_dev_state s);

/* What a segment holds. */
enum pool_use { POOL_FREE, POOL_META, POOL_LOG, POOL_DATA, POOL_INTERMEDIATE };

struct pool_cfg {
	char name[64];
	struct ec_scheme
		scheme; /* of volumes that say nothing else; its m is also the pool's largest m */
	enum pool_on_degraded on_degraded;
	bool allow_data_device; /* fragments may lie on the data area's device */
	uint32_t segment_bytes; /* 0: POOL_SEGMENT_DEFAULT; a power of two */
};

struct pool_member {
	char name[64]; /* "f0": the user's name of the flash */
	char domain[64]; /* failure domain (node) */
	struct flash *flash;
};

struct pool;

/* Formats the members (refuses one that carries a pool's superblock unless force), then opens. -EINVAL: fewer members than
 * k+m, unequal logical blocks, too small; -EEXIST: already part of a pool. Where it fails the members stay the caller's. */
int pool_create(struct shard *sh, const struct pool_cfg *cfg, const struct pool_member *members,
	unsigned int n, bool force, struct pool **out, struct err *err);

/*
 * Opens from whatever members are there (missing ones become POOL_DEV_MISSING). Checks magic, version, CRC, UUID, that no two are
 * the same, that sizes fit. -ENODATA: no superblock; -EPROTONOSUPPORT: newer major; -EXDEV: of another pool; -EUCLEAN: damaged.
 * The epoch is not raised yet: the caller judges stripes first (recovery), then calls pool_epoch_begin().
 */
int pool_open(struct shard *sh, const struct pool_member *members, unsigned int n,
	struct pool **out, struct err *err);
/* Makes epoch + 1 durable on every present device (at least m+1 of them, else -EIO). Before the first new I/O. */
int pool_epoch_begin(struct pool *p, struct err *err);
void pool_close(struct pool *p);
/* Changes settings durably (name, scheme, on_degraded; the segment size is fixed). */
int pool_set(struct pool *p, const struct pool_cfg *cfg, struct err *err);

const struct pool_cfg *pool_cfg(const struct pool *p);
const uint8_t *pool_uuid(const struct pool *p); /* 16 bytes */
const uint8_t *pool_key(const struct pool *
		p); /* 16 random bytes no VM can read: makes log headers unforgeable from payload */
uint64_t pool_epoch(const struct pool *p);
uint32_t pool_block_bytes(const struct pool *p); /* the larger logical block of the members */
struct shard *pool_shard(const struct pool *p);

/* ---- devices: numbered 0..n-1 for the life of the pool ------------------------------------------------- */
struct pool_dev {
	char name[64], domain[64];
	uint8_t uuid[16];
	struct flash *flash; /* NULL when missing */
	enum pool_dev_state state;
	uint32_t nsegments, free_segments;
	uint64_t epoch_seen; /* epoch of its superblock when it was opened: behind = it was away */
	uint64_t errors;
};
unsigned int pool_ndevs(const struct pool *p);
const struct pool_dev *pool_dev(const struct pool *p, unsigned int dev);
int pool_dev_find(const struct pool *p, const char *name); /* number or -ENOENT */
bool pool_dev_usable(const struct pool *p, unsigned int dev);
/* Declares a device failed; told to listeners. A failed device is remembered in the other superblocks at the next epoch. */
void pool_dev_fail(struct pool *p, unsigned int dev);
/* Counts an error that does not fail the device (a read that another copy answers). */
void pool_dev_count_error(struct pool *p, unsigned int dev);
/* One listener: the storage stack. Called from the shard's loop, after pool_dev_fail() has returned. */
void pool_on_dev_change(struct pool *p, void (*changed_fn)(void *arg, unsigned int dev), void *arg);

/* ---- segments -------------------------------------------------------------------------------------------- */
/* A free segment of dev for `use`. use_reserve: may take the last ones, kept back for records. -ENOSPC, -ENODEV. */
int pool_segment_alloc(
	struct pool *p, unsigned int dev, enum pool_use use, bool use_reserve, uint32_t *segment);
void pool_segment_free(struct pool *p, unsigned int dev, uint32_t segment);
/* Recovery: what the scan found. -EEXIST when it is taken already, -ERANGE. */
int pool_segment_claim(struct pool *p, unsigned int dev, uint32_t segment, enum pool_use use);
enum pool_use pool_segment_use(const struct pool *p, unsigned int dev, uint32_t segment);
uint64_t pool_segment_off(const struct pool *p, uint32_t segment); /* bytes on its device */
uint32_t pool_segment_bytes(const struct pool *p);
/* Reads as zeros on return of done_fn: has to precede the first use of a data or intermediate segment (recycled space). */
struct pool_zero {
	struct flash_io io;
	void (*done_fn)(struct pool_zero *z, int status); /* 0 or -EIO */
	void *arg;
};
int pool_segment_zero(struct pool *p, unsigned int dev, uint32_t segment, struct pool_zero *z);

/*
 * Chooses `width` distinct usable devices with room for one more segment, never `excluded` (POOL_DEV_NONE: none), spread over failure
 * domains as evenly as possible, then those with the most free segments. Returns how many it found (may be fewer than width).
 */
unsigned int pool_place(
	struct pool *p, unsigned int width, int excluded, bool use_reserve, uint8_t *devs);

/* The same choice played on numbers, for space accounting: what could be placed if ... Changes only *room. */
struct pool_room {
	uint32_t free[POOL_DEVS_MAX]; /* segments that may be taken; 0 for unusable devices */
};
void pool_room_get(const struct pool *p, bool use_reserve, struct pool_room *room);
/* Takes one segment from each device chosen when there are `width` of them; else takes none. Returns how many it found. */
unsigned int pool_room_place(const struct pool *p, struct pool_room *room, unsigned int width,
	int excluded, uint8_t *devs);
/* Segments per device that are spoken for: only POOL_LOG takes them. The stripe log backs its promises with it. */
void pool_hold(struct pool *p, const uint32_t *per_dev);
/* Changes whenever free segments or device states do. */
uint64_t pool_room_version(const struct pool *p);

#endif
