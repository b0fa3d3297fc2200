/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The storage stack of one pool on one shard: volumes, their location maps, and the paths of reads and writes.
 *
 *	pipeline ─▶ volume_submit() ─┬─▶ data area / intermediate area (in place)
 *	                             └─▶ queue ─▶ stripe log
 *
 * Each block of a volume is in one state: unmapped, zero, data, data+log, log, intermediate (hwdocs/formats/records.md).
 *
 * Thread: the shard's. store_open, store_close, volume_create/resize/delete wait through shard_wait(): control context only.
 * volume_submit follows dpu/core/io.h: 0 and req->done_fn once later, or -errno and never (-EAGAIN: as much in flight as the
 * store was opened for; try again when something completes). Bounds, alignment and state are checked here, whatever the frontend did.
 * Ownership: the store takes the pool over and closes it; volumes belong to the store.
 */
#ifndef DPU_VOLUME_VOLUME_H
#define DPU_VOLUME_VOLUME_H

#include "common/base/hist.h"
#include "dpu/core/io.h"
#include "dpu/pool/pool.h"
#include "dpu/queue/queue.h"

enum volume_layout {
	VOLUME_COPY, /* the patent's: full copy in the data area and fragments in the log */
	VOLUME_FRAGMENTS, /* fragments only: protected blocks are not in the data area */
};

struct log_progress; /* dpu/stripelog/stripelog.h */
struct store;
struct volume;

struct store_cfg {
	struct pool *pool; /* fresh from pool_create(), or from pool_open() */
	enum ec_impl ec;
	struct queue_cfg queue;
	uint32_t max_requests; /* in flight; 0: 1024 */
	uint64_t buffer_bytes; /* bounce and read-modify-write buffers; 0: 64 MiB */
	uint64_t map_bytes; /* budget of the location maps; 0: 1 GiB (400 GiB of mapped blocks) */
	uint64_t table_bytes; /* budget of the stripe table; 0: 1 GiB */
	bool force; /* open although live stripes are lost: those blocks become media errors; or may be, with members that are away */
	bool read_only; /* looks and never writes: no epoch, no repairs, no checkpoints; writes of VMs are refused (fsck) */
	bool manual_checkpoints; /* only store_checkpoint() makes them: neither the log's growth nor a close does (tests) */
	uint64_t checkpoint_bytes; /* of log between two checkpoints, at least; 0: 256 MiB */
	struct log_progress
		*progress; /* written while store_open() runs, the caller's; NULL: nobody watches */
	uint8_t space_warning,
		space_critical; /* per cent of the log's capacity that is live; 0: 80, 95 */
};

/*
 * Opens: scans the log, builds the maps, judges every stripe, raises the epoch, makes recovery's verdict durable
 * (hwdocs/formats/stripelog.md, "Which stripes count"). -EIO with err naming volumes and blocks where a live stripe has fewer than k' fragments, or members
 * where so many are away that what was written last may be on them alone (neither with force). On failure the pool stays the caller's.
 */
int store_open(const struct store_cfg *cfg, struct store **out, struct err *err);
/* Waits for what is in flight, flushes, closes the pool. */
void store_close(struct store *s);
struct pool *store_pool(struct store *s);
struct queue *store_queue(struct store *s);
struct stripelog *store_log(struct store *s);

/*
 * A checkpoint of what the store is at this moment or later (hwdocs/formats/checkpoint.md), in the background: reads and writes go on. When one is
 * running another follows it. done_fn (may be NULL) from the shard's loop: 0 committed, -ENOSPC, -EIO, -ESTALE (fenced: another owner has opened
 * the pool), -ECANCELED (the store closes). Returns 0, -EAGAIN (eight are waiting already), -EROFS (read_only).
 */
int store_checkpoint(struct store *s, void (*done_fn)(void *arg, int status), void *arg);

/* Per cent of the log's capacity at which STORE_EVENT_SPACE_LOW / SPACE_CRITICAL are told. -EINVAL unless 0 < warning < critical <= 100. */
int store_set_space_levels(struct store *s, unsigned int warning, unsigned int critical);
enum store_space_level { STORE_SPACE_OK, STORE_SPACE_WARNING, STORE_SPACE_CRITICAL };
enum store_space_level store_space_level(const struct store *s);

/* ---- notes: small durable facts of whoever needs them (the mover's tasks, settings) ------------------------------------- */
#define STORE_NOTE_KEY_MAX  27u /* characters */
#define STORE_NOTE_BODY_MAX 200u
#define STORE_NOTES_MAX     4096u
/*
 * Sets note `key` (len 0: removes it). done_fn (may be NULL) once from the shard's loop: 0, durable and visible to store_note_get(); -ENOSPC, -EIO,
 * -EROFS as records. Of two in flight for one key the later one holds. Returns 0, -EINVAL (key, len), -ENOSPC (too many notes), -ENOMEM, -EROFS.
 */
int store_note_put(struct store *s, const char *key, const void *body, uint8_t len,
	void (*done_fn)(void *arg, int status), void *arg);
/* Its body, valid until the shard's loop runs again, or NULL. */
const void *store_note_get(const struct store *s, const char *key, uint8_t *len);
/* Every note whose key begins with prefix; fn must not put notes. Stops at the first value that is not 0 and returns it. */
int store_note_each(const struct store *s, const char *prefix,
	int (*fn)(void *arg, const char *key, const void *body, uint8_t len), void *arg);

/* ---- offline check (parapet-fsck, the crash explorer) --------------------------------------------------------------------- */
struct store_check_cfg {
	bool deep; /* reads every block, with its CRC */
	void (*report_fn)(void *arg, const char *text); /* one line per finding; may be NULL */
	void *arg;
};
struct store_check {
	uint64_t problems; /* of the structure; lines told are bounded, the count is not */
	uint64_t blocks, stripes, groups, pieces, segments; /* looked at */
	uint64_t degraded_stripes; /* some fragment is on a device that is away or failed */
	uint64_t
		misplaced_blocks; /* protected, with a fragment on the data area's device: evacuations and such may do that for a while */
	uint64_t read_blocks, unreadable_blocks; /* deep; also blocks that were given up before */
	uint64_t
		bad_fragments; /* deep: of stripes that are in use; a scrub mends them while k' others are good */
};
/*
 * Whether everything agrees: each segment used once, and by what the allocator says; every map entry in a stripe that exists; live counts; pieces and
 * group members on devices where they may be. With requests in flight the result means nothing. Control context. 0 (also with problems found), -ENOMEM.
 */
int store_check(struct store *s, const struct store_check_cfg *cfg, struct store_check *out,
	struct err *err);

struct volume_cfg {
	char name[64]; /* unique in the pool: the device's data path or id, the caller's choice */
	uint8_t nguid[16]; /* all zero: random */
	uint64_t size_bytes; /* a multiple of 4096 */
	uint32_t
		block_bytes; /* logical block: 4096, or 512; 0: 4096 where the data flash writes 4096 atomically, else 512 */
	enum volume_layout layout;
	struct ec_scheme scheme; /* k = 0: the pool's */
	int data_dev; /* device of the data area */
	int intermediate_dev; /* device of the intermediate area, != data_dev; POOL_DEV_NONE: none (intermediate writes are refused) */
};

/* -EEXIST (name), -EINVAL, -ENOSPC, -ERANGE with err. The new volume reads as zeros. Durable on return. */
int volume_create(
	struct store *s, const struct volume_cfg *cfg, struct volume **out, struct err *err);
/* Durable on return; its space is free for others (which read zeros there). -EBUSY with requests in flight. */
int volume_delete(struct volume *v, struct err *err);
int volume_grow(struct volume *v, uint64_t size_bytes, struct err *err);
/* Changes which devices new segments of the data and intermediate area come from; existing ones stay where they are. */
int volume_set_devs(struct volume *v, int data_dev, int intermediate_dev, struct err *err);
struct volume *volume_find(struct store *s, const char *name);
struct volume *volume_first(struct store *s);
struct volume *volume_next(struct volume *v);
const struct volume_cfg *volume_cfg(const struct volume *v);
uint32_t volume_id(const struct volume *v);

int volume_submit(struct volume *v, struct io_req *req);

enum block_state {
	BLOCK_UNMAPPED,
	BLOCK_ZERO,
	BLOCK_DATA,
	BLOCK_DATA_LOG,
	BLOCK_LOG,
	BLOCK_INTERMEDIATE,
	BLOCK_STATES
};
const char *block_state_name(enum block_state s);

struct volume_stats {
	uint64_t blocks[BLOCK_STATES]; /* blocks now in each state */
	uint64_t reads, writes[3], trims, zeroes, flushes; /* writes by io_outcome */
	uint64_t read_bytes, write_bytes[3];
	uint64_t from_data, from_log, from_decode, from_intermediate,
		from_nothing; /* blocks read */
	uint64_t repaired; /* data-area blocks put right from the log */
	uint64_t media_errors;
	uint64_t map_bytes;
};
void volume_stats(const struct volume *v, struct volume_stats *out);

struct store_stats {
	struct stripelog_stats log;
	struct queue_stats queue;
	uint64_t data_bytes[POOL_DEVS_MAX],
		intermediate_bytes[POOL_DEVS_MAX]; /* written, per device */
	uint64_t requests_in_flight, requests_refused;
	uint64_t map_bytes, map_max_bytes; /* of all location maps: used, budget */
	uint64_t recovery_stripes, recovery_reappended, recovery_ns;
	uint64_t recovery_lost; /* blocks */
	uint64_t recovery_away; /* members that may have what was written last to themselves */
	uint64_t recovery_entries,
		recovery_load_ns; /* map entries the checkpoint gave, time it took */
	uint64_t recovery_log_bytes; /* what the scan had to look through */
	uint64_t checkpoints, checkpoints_failed;
	uint64_t checkpoint_bytes, checkpoint_pages,
		checkpoint_ns; /* of the last: all copies counted; beginning to commit */
	uint64_t checkpoint_bytes_total;
	uint64_t log_bytes_since; /* written to the log since the last one began */
	uint64_t limbo_segments; /* of areas: given back, and free once a checkpoint says so */
	uint64_t pieces_freed;
	uint64_t room_waits; /* times a request had to wait for room, and let others pass */
	uint32_t room_waiting; /* requests that do so now */
	bool fenced;
};
void store_stats(const struct store *s, struct store_stats *out);

/*
 * Where the time of reads and writes goes, in ns of the shard's rounds (the clock is read once per round: what is done in one round took 0, and
 * encoding shows in the device's time of the others). One after the other: admit, device, finish. Area, beside the device time of a protected
 * write, is the part of its data area; the queue's and the log's parts are in queue_hists().
 */
enum store_class { STORE_PLAIN, STORE_INTERMEDIATE, STORE_PROTECT, STORE_READ, STORE_CLASSES };
enum store_stage {
	STORE_ADMIT, /* its range, room in the log, buffers, the rest of partly written blocks */
	STORE_DEVICE, /* area writes, queue and log; reads: until all is there */
	STORE_AREA, /* protected, with a data area: that write alone */
	STORE_FINISH, /* records, flushes, the map */
	STORE_STAGES
};
/* The store's; per piece of a request, which is 512 KiB at most. */
const struct hist *store_times(const struct store *s, enum store_class c, enum store_stage st);

/* What happened, for the operator. Called on the shard; text is valid during the call. */
enum store_event_kind {
	STORE_EVENT_DEV_FAILED,
	STORE_EVENT_DEGRADED,
	STORE_EVENT_SPACE_LOW,
	STORE_EVENT_NO_SPACE,
	STORE_EVENT_MAP_FULL, /* the memory of the maps or of the stripe table is used up */
	STORE_EVENT_DATA_AREA_LOST,
	STORE_EVENT_REPAIRED,
	STORE_EVENT_MEDIA_ERROR,
	STORE_EVENT_RECOVERED,
	STORE_EVENT_SPACE_CRITICAL,
	STORE_EVENT_SPACE_OK, /* below the warning level again */
	STORE_EVENT_CHECKPOINT_FAILED,
	STORE_EVENT_DEV_SUSPECT,
	STORE_EVENT_DEV_STATE, /* any other change of a device's state */
	STORE_EVENT_FENCED, /* another owner has opened the pool: every request fails from here on */
	STORE_EVENT_BLOCKS_LOST, /* a forced opening gave them up: which ones of a volume */
	STORE_EVENTS
};
void store_on_event(struct store *s,
	void (*event_fn)(
		void *arg, enum store_event_kind kind, const char *object, const char *text),
	void *arg);

#endif
