/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A pool: the flash devices one card owns. Superblocks, the epoch, device states, segments and where groups go.
 *
 *	device:  | segment 0: superblocks (two alternating slots), room for metadata | segment 1 | segment 2 | ...
 *
 * Or the same slice (flash.h) of every device, each of which is a device to the pool: a card of several shards has a pool in each slice, all with the same
 * UUID and with keys, epochs and everything else of their own.
 *
 * Thread: one shard; pools of different shards are opened and used side by side. pool_create/open/epoch calls wait through shard_wait() (control context); the rest is immediate.
 * Ownership: the pool takes the flash devices over and closes them. Errors: 0 or -errno with struct err.
 */
#ifndef DPU_POOL_POOL_H
#define DPU_POOL_POOL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "common/base/err.h"
#include "dpu/ec/ec.h"
#include "dpu/flash/flash.h"

#define POOL_DEVS_MAX        64
#define POOL_SEGMENT_DEFAULT (16u << 20)
#define POOL_SEGMENT_MIN     (1u << 20)
#define POOL_SEGMENT_MAX     (32u << 20)
#define POOL_DEV_NONE        (-1)

enum pool_on_degraded { POOL_DEGRADED_REFUSE, POOL_DEGRADED_ALLOW };

/* The numbers are those of the superblock. "Usable": takes I/O. "Placeable": gets new segments. */
enum pool_dev_state {
	POOL_DEV_HEALTHY = 0, /* usable, placeable */
	POOL_DEV_FAILED = 1, /* errors or hangs while we used it: no I/O any more */
	POOL_DEV_MISSING = 2, /* a member that was not there at open */
	POOL_DEV_SUSPECT = 3, /* usable; placed only where there are not enough others */
	POOL_DEV_REBUILDING =
		4, /* usable, placeable; the mover brings data onto it, or checks what lies on it since it is back */
	POOL_DEV_EVACUATING = 5, /* usable, not placeable: is being emptied */
	POOL_DEV_SPARE = 6, /* usable, not placeable: waits for a failure */
	POOL_DEV_REMOVED = 7, /* an empty slot; pool_dev_add() may give it to another device */
};
const char *pool_dev_state_name(enum pool_dev_state s);

/* Why a member is failed or missing. The numbers are those of the superblock. */
enum pool_cause {
	POOL_CAUSE_NONE = 0, /* it is not, or nobody knows */
	POOL_CAUSE_UNREACHABLE = 1, /* it is gone or gave no answer: it may come back as it was */
	POOL_CAUSE_ERRORS = 2, /* it answered, with errors; or it is not the member it should be */
	POOL_CAUSE_OPERATOR = 3, /* taken out of service */
	POOL_CAUSES
};

/* What a segment holds. */
enum pool_use { POOL_FREE, POOL_META, POOL_LOG, POOL_DATA, POOL_INTERMEDIATE };

struct pool_cfg {
	char name[64];
	struct ec_scheme
		scheme; /* of volumes that say nothing else; its m is also the pool's largest m */
	enum pool_on_degraded on_degraded;
	bool allow_data_device; /* fragments may lie on the data area's device */
	uint32_t segment_bytes; /* 0: POOL_SEGMENT_DEFAULT; a power of two */
	uint8_t uuid
		[16]; /* pool_create: the pool's, which its slices share; zero: random. Not used elsewhere: pool_uuid() */
};

struct pool_member {
	char name[64]; /* "f0": the user's name of the flash */
	char domain[64]; /* failure domain (node) */
	struct flash *flash;
};

struct pool;

/* Formats the members (refuses one that carries a pool's superblock unless force), then opens. -EINVAL: fewer members than
 * k+m, unequal logical blocks, too small, not all the same slice; -EEXIST: already part of a pool. Where it fails the members stay the caller's. */
int pool_create(struct shard *sh, const struct pool_cfg *cfg, const struct pool_member *members,
	unsigned int n, bool force, struct pool **out, struct err *err);

/*
 * Opens from whatever members are there (missing ones become POOL_DEV_MISSING). Checks magic, version, CRC, UUID, that no two are
 * the same, that sizes fit, that each is opened as the slice that it is. -ENODATA: no superblock; -EPROTONOSUPPORT: newer major; -EXDEV: of another pool or
 * slice; -EUCLEAN: damaged, shrunk, opened as cut at another size.
 * The epoch is not raised yet: the caller judges stripes first (recovery), then calls pool_epoch_begin().
 */
int pool_open(struct shard *sh, const struct pool_member *members, unsigned int n,
	struct pool **out, struct err *err);
/*
 * The same for members that are known to be of one pool (those the card remembers): up to m of them that cannot be used (no superblock or damaged ones, of another
 * pool, no longer a member, used by another owner, shrunk) are left out and count as missing. They stay the caller's; left[], with room for n, says
 * which and why. Where it fails all stay the caller's.
 */
struct pool_left {
	unsigned int member; /* members[] */
	struct err why;
};
int pool_open_degraded(struct shard *sh, const struct pool_member *members, unsigned int n,
	struct pool_left *left, unsigned int *nleft, struct pool **out, struct err *err);
/* Makes epoch + 1 durable on every present device (at least m+1 of them, else -EIO). Before the first new I/O. */
int pool_epoch_begin(struct pool *p, struct err *err);
void pool_close(struct pool *p);
/* Undoes a creation: wipes the superblocks of all members, which are none then, and closes the pool in any case. -EIO: some could not be wiped (err names the
 * first); -ESTALE: another host has the pool, nothing was wiped. */
int pool_wipe(struct pool *p, struct err *err);
/*
 * What the superblock at the beginning of a device says, of its first slice or of all of it: read without a lock, next to an owner. opts: how to open it, NULL:
 * the defaults; its slice and `exclusive` do not count. Waits (control context). -ENODATA: there is none; -EUCLEAN: both are damaged; -EPROTONOSUPPORT;
 * or what flash_open() says.
 */
struct pool_probe {
	uint8_t uuid[16];
	char name[64]; /* of the pool */
	unsigned int slices; /* 1: whole */
	uint64_t cut_bytes; /* 0: whole */
	uint64_t epoch;
};
int pool_probe(struct shard *sh, const char *address, const struct flash_opts *opts,
	struct pool_probe *out, struct err *err);
/* Changes settings durably (name, scheme, on_degraded; the segment size is fixed). */
int pool_set(struct pool *p, const struct pool_cfg *cfg, struct err *err);

const struct pool_cfg *pool_cfg(const struct pool *p);
const uint8_t *pool_uuid(const struct pool *p); /* 16 bytes */
unsigned int pool_slice(const struct pool *p); /* 0 of whole devices */
unsigned int pool_slices(const struct pool *p); /* 1: whole devices */
const uint8_t *pool_key(const struct pool *
		p); /* 16 random bytes no VM can read: makes log headers unforgeable from payload */
uint64_t pool_epoch(const struct pool *p);
/* The card that began the epoch the pool was opened with, 16 bytes (zero: not known), until pool_set_owner(): who begins the next one. */
const uint8_t *pool_owner(const struct pool *p);
void pool_set_owner(struct pool *p, const uint8_t *id);
uint32_t pool_block_bytes(const struct pool *p); /* the larger logical block of the members */
struct shard *pool_shard(const struct pool *p);

/* ---- devices: numbered 0..n-1; n grows up to POOL_DEVS_MAX, numbers of removed ones are given out again -------------- */
struct pool_dev {
	char name[64], domain[64]; /* empty: a removed slot */
	uint8_t uuid[16];
	uint64_t cut_bytes; /* the device's size when it was cut into slices; 0: whole */
	struct flash *flash; /* NULL when missing */
	enum pool_dev_state state;
	uint32_t nsegments, free_segments;
	uint64_t epoch_seen; /* epoch of its superblock when it was opened: behind = it was away */
	uint64_t errors;
	uint32_t failures; /* how often it became FAILED since the pool was opened */
	char why[96]; /* its state is what it is; empty: no news */
	enum pool_cause cause; /* failed, missing: why */
};
unsigned int pool_ndevs(const struct pool *p);
const struct pool_dev *pool_dev(const struct pool *p, unsigned int dev);
int pool_dev_find(const struct pool *p, const char *name); /* number or -ENOENT */
bool pool_dev_usable(const struct pool *p, unsigned int dev);
/* Bit per member that cannot be used although the superblocks knew it as in use: what was written last may have gone to it. Until pool_epoch_begin(). */
uint64_t pool_away(const struct pool *p);
bool pool_dev_placeable(const struct pool *p, unsigned int dev);
/* Declares a device failed (dpu/pool/health.h does so by itself); told to listeners, remembered in the other superblocks soon. Its flash stays open: I/O in flight ends by itself. */
void pool_dev_fail(struct pool *p, unsigned int dev);
/* The same for a reason; pool_dev_fail() is for devices that are gone. Of a member that is down already: corrects the cause (durable soon). */
void pool_dev_fail_for(struct pool *p, unsigned int dev, enum pool_cause cause);
/*
 * Changes between the usable states, and from them to FAILED; told to listeners, durable soon. -EINVAL: from or to FAILED (but as said), MISSING or
 * REMOVED; -EBUSY: a device with segments in use does not become a spare.
 */
int pool_dev_set_state(
	struct pool *p, unsigned int dev, enum pool_dev_state state, struct err *err);
/*
 * Control context (these wait). A new member: gets the pool's superblock, in a removed slot or as the next number; as a spare it takes no
 * data until pool_dev_set_state() puts it into service. Takes m->flash over on success. -EXDEV: another slice than the pool's; -EEXIST: the name is taken, or the device belongs to a pool (unless force;
 * a present member of this pool never); -EINVAL: block size, too small; -ENOSPC: POOL_DEVS_MAX; -EIO.
 */
int pool_dev_add(struct pool *p, const struct pool_member *m, bool spare, bool force,
	unsigned int *dev, struct err *err);
/* Takes a member out of the pool for good, in any state; closes its flash and wipes its superblocks where it can be written. -EBUSY: segments are in use, or I/O
 * is in flight; -EINVAL: fewer than k + m members, or usable ones, would be left. */
int pool_dev_remove(struct pool *p, unsigned int dev, struct err *err);
/* Closes the flash of a failed member, so that its address can be opened again (for pool_dev_return). -EBUSY: it is in use, or I/O of the time when it failed
 * has not ended, ghosts included: what they write could land on what it gets afterwards. */
int pool_dev_detach(struct pool *p, unsigned int dev, struct err *err);
/*
 * A missing or failed member is back; flash NULL: the failed one we still have. Checks that it is this member and that no other owner used it. What is on it
 * is worth what the map refers to, no more: pool_dev.epoch_seen says how long it was away. HEALTHY from here on. Takes flash over on success.
 * -EXDEV: another device or slice; -EUCLEAN: used by another owner, damaged, shrunk, cut otherwise; -EBUSY: it is in use, or I/O is in flight on the old flash; -EIO.
 */
int pool_dev_return(struct pool *p, unsigned int dev, struct flash *flash, struct err *err);
/* Are we still the owner? Reads the superblocks of all usable devices. done_fn once, later: 0; -ESTALE: another owner has begun an epoch, stop
 * writing; -EIO: fewer than m + 1 could be read. The struct is the caller's; one at a time per struct. -EBUSY: in flight already. */
struct pool_fence {
	void (*done_fn)(struct pool_fence *f, int status);
	void *arg;
	unsigned int dev; /* -ESTALE: the device that says so */
	void *priv; /* the pool's while in flight; zero before the first use */
};
int pool_fenced(struct pool *p, struct pool_fence *f);
/* A device has said that another host made itself the only writer (FLASH_ERR_FENCED): the pool is not ours any more, for good. Listeners are told, with *dev;
 * nothing is written to superblocks, and no device fails because of it. */
bool pool_is_lost(const struct pool *p, unsigned int *dev);
/* Several listeners; called from the shard's loop, after what changed the device has returned, in the order they came. The struct is the caller's
 * until pool_listener_del(), which may be called from changed_fn. */
struct pool_listener {
	void (*changed_fn)(void *arg, unsigned int dev);
	void *arg;
	TAILQ_ENTRY(pool_listener) link;
};
void pool_on_dev_change(struct pool *p, struct pool_listener *l,
	void (*changed_fn)(void *arg, unsigned int dev), void *arg);
void pool_listener_del(struct pool *p, struct pool_listener *l); /* no effect when not added */

/* ---- segments -------------------------------------------------------------------------------------------- */
/* For whom a segment is: who comes later may go deeper into what is kept back on each device. */
enum pool_class {
	POOL_FOR_USER, /* leaves both reserves alone */
	POOL_FOR_MOVER, /* leaves the reserve of metadata alone */
	POOL_FOR_META /* checkpoints, records, trim: down to the last segment */
};
/* Segments of each device that are kept back; 4 and 0 at first. Fewer may be free already: then users and movers wait. */
void pool_reserve_set(struct pool *p, uint32_t meta_segments, uint32_t mover_segments);
void pool_reserve_get(const struct pool *p, uint32_t *meta_segments, uint32_t *mover_segments);
/* A free segment of dev for `use`. -ENOSPC, -ENODEV. */
int pool_segment_alloc(struct pool *p, unsigned int dev, enum pool_use use, enum pool_class cls,
	uint32_t *segment);
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
	struct pool *pool; /* the pool's, as is this: */
	unsigned int dev;
};
int pool_segment_zero(struct pool *p, unsigned int dev, uint32_t segment, struct pool_zero *z);

/*
 * Chooses `width` distinct usable devices with room for one more segment, never `excluded` (POOL_DEV_NONE: none), spread over failure
 * domains as evenly as possible, then those with the most free segments. Returns how many it found (may be fewer than width).
 */
unsigned int pool_place(
	struct pool *p, unsigned int width, int excluded, enum pool_class cls, uint8_t *devs);

/* The same choice played on numbers, for space accounting: what could be placed if ... Changes only *room. */
struct pool_room {
	uint32_t free[POOL_DEVS_MAX]; /* segments that may be taken; 0 for unusable devices */
};
void pool_room_get(const struct pool *p, enum pool_class cls, struct pool_room *room);
/* Takes one segment from each device chosen when there are `width` of them; else takes none. Returns how many it found. */
unsigned int pool_room_place(const struct pool *p, struct pool_room *room, unsigned int width,
	int excluded, uint8_t *devs);
/* Segments per device that are spoken for: only POOL_LOG takes them. The stripe log backs its promises with it. */
void pool_hold(struct pool *p, const uint32_t *per_dev);
/* Changes whenever free segments or device states do. */
uint64_t pool_room_version(const struct pool *p);

#endif
