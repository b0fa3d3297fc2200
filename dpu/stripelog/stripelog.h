/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The stripe log: the append-only sequence of stripes and records that is the redundancy area.
 * hwdocs/formats/ describes the bytes; stripelog/format.h mirrors them.
 *
 * A stripe is one encoded batch: k' data fragments and m parity fragments on distinct devices of one segment group. A record is a
 * small logged fact; a batch of records is a stripe without data blocks whose header, with the records in it, is written in
 * (largest m + 2) copies.
 *
 * Thread: one shard. Submit contract of dpu/core/io.h: 0 and done_fn once later, or -errno and never.
 * Memory: allocated at open from stripelog_cfg, but for the stripe table and groups, which grow in slabs while writing, never per I/O;
 * -EAGAIN means "later" (back-pressure: retry from a poller or completion).
 * Ownership: the caller owns the request structs and what they point to until done_fn.
 */
#ifndef DPU_STRIPELOG_STRIPELOG_H
#define DPU_STRIPELOG_STRIPELOG_H

#include "common/base/hist.h"
#include "dpu/core/io.h"
#include "dpu/ec/ec.h"
#include "dpu/pool/pool.h"

struct stripelog;

struct stripelog_cfg {
	struct pool *pool;
	struct ec *ec;
	uint32_t max_inflight; /* appends at once; 0: 32 */
	uint32_t max_reads; /* degraded reads at once; 0: 64 */
	uint32_t shard_id; /* part of stripe numbers */
	uint64_t table_bytes; /* bound of the stripe table for appends; 0: 1 GiB */
};

int stripelog_open(const struct stripelog_cfg *cfg, struct stripelog **out);
void stripelog_close(
	struct stripelog *log); /* nothing of the caller's in flight; waits for the log's own I/O */

/* A run of blocks of a volume in a stripe, in stripe order. Sequences decide what is newest (per volume). */
struct stripe_extent {
	uint64_t block; /* first block in the volume */
	uint64_t seq;
	uint32_t volume; /* id in the pool, never reused */
	uint32_t nblocks;
};

/* ---- records: what is logged besides data --------------------------------------------------------------- */
enum record_type {
	RECORD_VOLUME = 1, /* created, resized or deleted: payload owned by dpu/volume */
	RECORD_STATE = 2, /* blocks [block, +nblocks) of a volume are now in a state, at seq */
	RECORD_AREA =
		3, /* a segment of a device now holds a piece of a volume's data or intermediate area, or no longer */
	RECORD_RECOVERY = 4, /* the verdict of a recovery: dpu/stripelog's own */
	/* 5: the log's own (void) */
	RECORD_NOTE = 6, /* a small durable fact under a key: payload owned by dpu/volume */
};
struct record {
	uint8_t type;
	uint8_t len; /* of body, <= RECORD_BODY_MAX */
	uint8_t body[238]; /* bytes on flash: the owner's endian-typed struct */
};
#define RECORD_BODY_MAX       238
#define STRIPELOG_RECORDS_MAX 64 /* records of one append */

/* Appends store blocks where they belong in the one reading that everything is made of: unstable ones cost no copy in memory. */
bool stripelog_reads_once(const struct stripelog *log);

/* ---- append ------------------------------------------------------------------------------------------------ */
struct stripe_append {
	/* what: nblocks > 0 and extents that cover them, or records only (nblocks 0). May carry both. */
	struct ec_scheme scheme;
	int excluded_dev; /* POOL_DEV_NONE or the data area's device */
	uint32_t nblocks; /* up to EC_BLOCKS_MAX */
	const uint8_t *const *blocks; /* 4 KiB each, there until done_fn; stable unless: */
	bool unstable; /* somebody may change them: costs a copy where the log does not read them once */
	const struct stripe_extent *extents;
	uint32_t nextents;
	const struct record *records;
	uint32_t nrecords;
	bool fua; /* flushed on all its devices before done_fn */
	bool mover; /* of the mover: never shares a group with what VMs write, and gives way to it */
	enum pool_class cls; /* META: records that must always be possible (trim when full) */
	void (*done_fn)(struct stripe_append *a, enum io_status status);
	void *arg;
	/* results */
	uint32_t ref; /* nblocks > 0: number in the stripe table, holding nblocks live blocks */
	uint32_t *crc; /* nblocks entries of the caller's, filled before done_fn */
	/* the log's own */
	void *priv;
	TAILQ_ENTRY(stripe_append) link;
};
/* -EAGAIN: too many in flight. -ENOSPC: no room (nothing written). -EROFS: too few devices and on-degraded = refuse (IO_ERR_RETRY). A
 * fragment write that fails is repaired by re-appending elsewhere before done_fn; it is never acknowledged short (unless on-degraded =
 * allow and no device is left; raises stats.short_stripes). */
int stripelog_append(struct stripelog *log, struct stripe_append *a);

/* Stripes that could be appended at once from an idle log; for group commit. */
uint32_t stripelog_inflight(const struct stripelog *log);

/* Room left, worst case, for user blocks appended under scheme one by one (each in a stripe of its own). */
uint64_t stripelog_blocks_left(
	const struct stripelog *log, struct ec_scheme scheme, int excluded_dev);
/* Sets aside room for nblocks in the worst case before anything is written. An append of nblocks data blocks that was accepted (returned 0)
 * gives it back, whatever its end; otherwise stripelog_unreserve() does. -ENOSPC; -EROFS as stripelog_append(). */
int stripelog_reserve(
	struct stripelog *log, struct ec_scheme scheme, int excluded_dev, uint32_t nblocks);
void stripelog_unreserve(
	struct stripelog *log, struct ec_scheme scheme, int excluded_dev, uint32_t nblocks);

/* Whether the stripe table has room for nblocks appended under scheme, each in a stripe of its own, beside all that is reserved. Where it
 * has not, appends of blocks may fail with -ENOSPC (nothing written); records need no room there. */
bool stripelog_table_room(const struct stripelog *log, struct ec_scheme scheme, uint32_t nblocks);

/* ---- space ------------------------------------------------------------------------------------------------------ */
/*
 * What is live is counted at what it takes in full stripes (the mover makes them full), in bytes of flash with parity and headers.
 * New live blocks are refused where that would pass limit_bytes; an overwrite never adds any, and waits for the cleaner instead.
 */
struct log_space {
	uint64_t
		capacity_bytes; /* what the log could fill: its groups and the free segments beyond the reserves */
	uint64_t
		limit_bytes; /* of these, live data may have so much: over-provisioning taken off */
	uint64_t live_bytes;
	uint64_t used_bytes; /* segments of groups, live and dead, records too */
	uint64_t limbo_bytes; /* of these: free once the next checkpoint has been committed */
	uint64_t record_bytes; /* of these: groups of records */
	uint64_t free_bytes; /* that appends for VMs may take */
	uint64_t reserve_bytes; /* free, but kept for the mover and for metadata */
	uint64_t
		appended_bytes; /* to the log since it was opened, all copies: what a checkpoint makes unnecessary to scan */
	uint32_t groups, groups_open, groups_limbo;
};
void stripelog_space(const struct stripelog *log, struct log_space *out);

/* As stripelog_reserve(), told how many of nblocks are not in the log yet (the others replace blocks that are).
 *   -ENOSPC  really full: the new ones would pass the limit, or there is no room and nobody to make any
 *   -EBUSY   no room at this moment, but garbage that is being cleaned, or segments in limbo: again when the on_space listener has been told */
int stripelog_reserve_new(struct stripelog *log, struct ec_scheme scheme, int excluded_dev,
	uint32_t nblocks, uint32_t nnew);
/* Per cent kept free for the cleaner to work in (default 5). */
void stripelog_set_overprovision(struct stripelog *log, unsigned int percent);
/* The mover says whether it is able to make room: without it, no room is -ENOSPC at once. */
void stripelog_set_cleaning(struct stripelog *log, bool able);
enum log_space_event {
	LOG_SPACE_WANTED, /* somebody was told -EBUSY: clean, and make checkpoints */
	LOG_SPACE_RETURNED, /* segments are free again, or cleaning was given up: ask again */
	LOG_SPACE_LIMBO, /* a group has come to limbo: a checkpoint would free it */
};
/* Several listeners, from the shard's loop. -ENOSPC: too many (8). */
int stripelog_on_space(
	struct stripelog *log, void (*fn)(void *arg, enum log_space_event event), void *arg);
void stripelog_off_space(struct stripelog *log, void *arg);

/* ---- the stripe table: live blocks of a stripe ---------------------------------------------------------------- */
/* nblocks of stripe `ref` are no longer (or, recovery: also) referred to by the map; at 0 the entry is freed. */
void stripelog_put(struct stripelog *log, uint32_t ref, uint32_t nblocks);
void stripelog_get(struct stripelog *log, uint32_t ref, uint32_t nblocks);
/* The device on which block `pos` of stripe ref lies, or -ENOENT. */
int stripelog_block_dev(const struct stripelog *log, uint32_t ref, uint32_t pos);

/* 0; -ENOENT: no such stripe, or it has no block `pos`; -EIO: fewer than k' of its fragments are on devices that are there. Recovery asks it
 * about every block the map has (what a checkpoint says is not believed either). */
int stripelog_stripe_check(const struct stripelog *log, uint32_t ref, uint32_t pos);
/* Some fragment lies on a device that is not usable, or it was never complete. False: no such stripe, too. */
bool stripelog_stripe_degraded(const struct stripelog *log, uint32_t ref);
struct stripe_shape {
	uint8_t k, m; /* k' and m of the stripe itself */
	uint8_t scheme_k, scheme_m; /* of its group: what was asked for */
	bool mover;
	uint32_t nblocks, live;
	uint64_t group;
	uint64_t devs; /* bit per device */
};
/* -ENOENT. */
int stripelog_stripe_scheme(const struct stripelog *log, uint32_t ref, struct stripe_shape *out);
/* Whether a fragment of it is on dev. */
bool stripelog_uses_dev(const struct stripelog *log, uint32_t ref, unsigned int dev);
/* Segments of dev that belong to groups (0: nothing of the log is there). */
uint32_t stripelog_dev_segments(const struct stripelog *log, unsigned int dev);

/* What is live in the log under this scheme (k 0: records, which every scheme stands on), added to s. True: there is any. Fragments of narrower
 * stripes count as if they lay on all members of their group. */
struct pool_survival;
bool stripelog_survival(
	const struct stripelog *log, struct ec_scheme scheme, struct pool_survival *s);

/* ---- groups: for cleaning, rebuild, scrub ------------------------------------------------------------------------------- */
/* A group is known by its generation. It is open (appended to), closed, or, with nothing live in it, in limbo: its segments go back to the
 * pool when a checkpoint that was started after that has been committed. */
struct log_victim {
	uint64_t group;
	uint32_t live,
		total; /* blocks: live, and what a group of this shape holds in full stripes */
	uint64_t age; /* stripes appended to the log since its last one */
	uint32_t live_stripes; /* upper bound */
	uint8_t k, m; /* scheme asked for */
	bool degraded; /* a member is on a device that is not usable */
	bool mover;
};
/* Closed groups with live blocks, best to clean first: (1 - u) age / (1 + u). Groups that a cleaning would gain nothing from are left out. Returns
 * how many. */
unsigned int stripelog_victims(
	const struct stripelog *log, struct log_victim *out, unsigned int max);
/* The groups with live blocks in order of their ids, after `group` (0: from the first); open ones too. False: no more. */
bool stripelog_group_next(const struct stripelog *log, uint64_t group, struct log_victim *out);
/* Closes the open group of every key that has fragments on dev (before evacuation), or all of them (POOL_DEV_NONE). */
void stripelog_close_groups(struct stripelog *log, int dev);

/*
 * What is live in a group: reads a header of each stripe (another fragment's where it is bad) and says which blocks of which volumes it holds. The map
 * decides which of them are still in it. In bites: set cursor = 0, call again with the cursor it left until more is false.
 */
struct group_list {
	uint64_t group;
	uint64_t cursor;
	uint32_t max; /* stripes per call; 0: 32 */
	/* From inside the log's poll; pointers are valid until it returns. */
	void (*stripe_fn)(struct group_list *l, uint32_t ref, const struct stripe_extent *extents,
		uint32_t nextents, uint32_t nblocks);
	/* Always IO_OK: a group that is gone has no stripes. */
	void (*done_fn)(struct group_list *l, enum io_status status);
	void *arg;
	bool more;
	uint32_t stripes,
		unreadable; /* results: told; live ones without a readable header (the map's owner finds their blocks by ref) */
	void (*unreadable_fn)(struct group_list *l, uint32_t ref); /* may be NULL */
	void *priv;
};
/* -EAGAIN: as many as there may be are under way. */
int stripelog_group_list(struct stripelog *log, struct group_list *l);

/* Scrub: reads a stripe whole, checks every header, every CRC, and that parity is what the data says. */
struct stripe_verify {
	uint32_t ref;
	void (*done_fn)(struct stripe_verify *v, enum io_status status); /* IO_OK: looked at */
	void *arg;
	/* results: a bit per fragment (0..k-1 data) */
	uint32_t
		bad; /* read, and not what was written: header, payload, or parity that does not match */
	uint32_t unread; /* I/O error */
	uint32_t away; /* on a device that is not usable: not read */
	bool gone; /* the stripe died meanwhile: the rest says nothing */
	uint8_t k, m;
	uint32_t nblocks;
	uint64_t bytes; /* read */
	void *priv;
};
/* -EINVAL: no such stripe; -EAGAIN: as many as there may be are under way. */
int stripelog_verify(struct stripelog *log, struct stripe_verify *v);

/* ---- read ------------------------------------------------------------------------------------------------------ */
struct stripe_read {
	uint32_t ref;
	uint32_t pos; /* first block in the stripe */
	uint32_t nblocks; /* consecutive in the stripe; may span fragments */
	const uint32_t *crc; /* expected, from the map: nblocks entries */
	uint8_t *const *bufs; /* nblocks destinations of 4 KiB */
	void (*done_fn)(struct stripe_read *r, enum io_status status);
	void *arg;
	bool decoded; /* result: at least one block came from decoding */
	bool passing; /* result: a device that was asked, or would have been, did not answer: what is bad now may be had another time */
	uint64_t
		bad_map; /* result, nblocks <= 64: bit per block that could not be had (IO_ERR_MEDIA) */
	void *priv;
	TAILQ_ENTRY(stripe_read) link;
};
/* Reads blocks, each checked against its CRC; what fails (error, mismatch, dead device) is decoded from any k' good fragments. nblocks <= 64. */
int stripelog_read(struct stripelog *log, struct stripe_read *r);

/* ---- flush ------------------------------------------------------------------------------------------------------- */
struct stripe_flush {
	void (*done_fn)(struct stripe_flush *f, enum io_status status);
	void *arg;
	uint64_t
		also_devs; /* bit per device that the caller dirtied itself (data, intermediate areas); after IO_ERR_MEDIA: those that failed to flush */
	void *priv[2];
	TAILQ_ENTRY(stripe_flush) link;
};
/* Every append completed before this call, and also_devs, durable. Concurrent flushes of a device are shared. */
int stripelog_flush(struct stripelog *log, struct stripe_flush *f);

/* ---- checkpoints ---------------------------------------------------------------------------------------------------- */
/*
 * A checkpoint makes the log before its floor unnecessary to read. The owner of the map: start; waits until everything appended before is in
 * its map; next, until it is over, each time into a section of the pool's checkpoint; flushes everything (stripelog_flush with also_devs);
 * commits; end. Appends go on all the while. One at a time.
 */
#define LOG_SECTION_FIRST  32u
#define LOG_SECTION_FLOOR  32u
#define LOG_SECTION_GROUPS 33u
#define LOG_SECTION_TABLE  34u
#define LOG_SECTION_LAST   63u

/* Stripes of (epoch, counter) and later are not covered; nor are groups of `generation` and later, and those that were open. */
struct log_floor {
	uint64_t epoch, counter, generation;
};
struct stripelog_ckpt {
	struct log_floor floor;
	bool base; /* the whole stripe table, not what changed since the last one committed */
	/* the log's own */
	uint64_t id;
	uint32_t stage;
	uint64_t cursor;
};
/* Not between a scan and the end of the recovery that follows it. */
void stripelog_checkpoint_start(struct stripelog *log, bool base, struct stripelog_ckpt *c);
/* The next section: 0, its type and *len bytes (at most cap, which is 4 KiB at least); 1: that was all. */
int stripelog_checkpoint_next(struct stripelog *log, struct stripelog_ckpt *c, uint16_t *type,
	void *buf, uint32_t cap, uint32_t *len);
/* committed: groups that had come to limbo before the start, and those of records before the floor, are the pool's again. Else nothing happened. */
void stripelog_checkpoint_end(struct stripelog *log, struct stripelog_ckpt *c, bool committed);
/*
 * Opening: every section of the committed checkpoint in order, before stripelog_scan(); sections of other types are ignored. Then the scan reads what
 * came after. Loaded stripes have 0 live blocks, like those the scan finds. -EUCLEAN: not what a log writes.
 */
int stripelog_load(
	struct stripelog *log, uint16_t type, const void *body, uint32_t len, struct err *err);
/* After the last section, before the scan (which calls it if nobody has): whether it all fits together; claims the groups' segments. */
int stripelog_load_end(struct stripelog *log, struct err *err);

/* ---- recovery ------------------------------------------------------------------------------------------------------ */
/*
 * After a checkpoint has been loaded only segments it does not account for are looked at, and only what is above its floor is believed and told;
 * below it the loaded stripes are what there is: ask stripelog_stripe_check() about each the map refers to.
 *
 * stripelog_scan() reads every segment header and fragment header of the present devices, judges each stripe (accepted: at least k'
 * good fragments, not void by an earlier recovery's verdict), claims the segments in the pool, and tells what it found in no particular order: sequences
 * decide. Payload CRCs are verified above the flushed watermark. Stripes with fewer than k' fragments left go to the visitor's lost_fn(): the volume
 * layer refuses or records the loss. Of a stripe without any fragment on present devices nothing is known: whoever opens with more than m away has
 * to know that. Then the owner of the map calls:
 *   stripelog_recover()        after pool_epoch_begin(): re-appends accepted, incomplete stripes above the watermark that the map still refers
 *                              to, appends the recovery record, flushes. Nothing new is accepted before it has returned.
 */
struct stripelog_visitor {
	/* An accepted stripe; crc has nblocks entries. The ref starts with 0 live blocks: take what the map keeps with stripelog_get(); entries
	 * still at 0 when stripelog_recover() runs are dropped. */
	void (*stripe_fn)(void *arg, uint32_t ref, const struct stripe_extent *extents,
		uint32_t nextents, const uint32_t *crc, uint32_t nblocks);
	void (*record_fn)(void *arg, const struct record *rec);
	/* A stripe with too few good fragments: `committed` when a verdict or watermark says it once was complete (data loss if still referred to).
	 * Where more than m of its fragments are on devices that are away it counts as committed too: it may well have been.
	 * Any header that is left has the CRCs: blocks whose data-area copy matches are not lost. */
	void (*lost_fn)(void *arg, const struct stripe_extent *extents, uint32_t nextents,
		const uint32_t *crc, uint32_t nblocks, unsigned int have, unsigned int need,
		bool committed);
	void *arg;
};
int stripelog_scan(struct stripelog *log, const struct stripelog_visitor *v, struct err *err);
/* How far an opening is, for people who wait for it. Written from the shard's thread while the scan runs; the struct is the caller's. */
struct log_progress {
	const char *phase; /* a constant text; NULL: not begun */
	unsigned int percent;
};
void stripelog_watch(
	struct stripelog *log, struct log_progress *p); /* before the scan; NULL: nobody watches */
/*
 * Between the two: a record of `epoch` says that the segment is somebody else's. The newer of the two knew the truth; devices that were away meanwhile
 * may bring back the other.
 *   0        it is free again: only headers of other devices name it, of a group older than the record
 *   -EEXIST  it is the log's since a later epoch, whose recovery had not seen the record: so the record had not been complete
 *   -EUCLEAN both cannot be
 */
int stripelog_segment_yield(
	struct stripelog *log, unsigned int dev, uint32_t segment, uint64_t epoch);
/* moved_fn: block pos of stripe old_ref is now block pos of stripe new_ref (same CRC); the live count went along with it. Told before
 * stripelog_recover() returns; old_ref may be reused after that only. */
int stripelog_recover(struct stripelog *log,
	void (*moved_fn)(void *arg, uint32_t old_ref, uint32_t new_ref), void *arg,
	struct err *err);

/* ---- numbers -------------------------------------------------------------------------------------------------------- */
struct stripelog_stats {
	uint64_t stripes, records, bytes_header, bytes_data, bytes_parity, bytes_record;
	uint64_t stripes_by_width[EC_K_MAX + 1]; /* [k'] */
	uint64_t reappends, short_stripes, decoded_blocks, crc_mismatches, unrecoverable_blocks,
		flushes;
	uint64_t table_bytes, table_entries; /* memory of the stripe table */
	uint64_t table_used_bytes, table_max_bytes; /* entries in use; bound for appends */
	uint64_t dev_bytes[POOL_DEVS_MAX]; /* written to the redundancy area, per device */
	uint64_t scan_segments, scan_fragments, scan_stripes, scan_ns;
};
void stripelog_stats(const struct stripelog *log, struct stripelog_stats *out);
/* Blocks of each stripe that was written; the log's. */
const struct hist *stripelog_fill(const struct stripelog *log);

#endif
