/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of dpu/volume share: the store, its volumes, and the operation (one request of a VM, or a repair) with
 * its stages. Everything an operation needs while it runs is inside it or in pools made at open.
 *
 *	volume_submit ─▶ op: lock ─▶ chunk ─▶ area ─▶ reserve ─▶ buffers ─▶ read (read-modify-write) ─▶ fill ─▶ issue
 *	                      ▲                                                                                  │
 *	                      └── next chunk ◀─ apply (map) ◀─ record ◀─ flush ◀─────────────────────────────────┘
 *
 * Thread: the shard's.
 */
#ifndef DPU_VOLUME_STORE_PRIV_H
#define DPU_VOLUME_STORE_PRIV_H

#include "dpu/core/mem.h"
#include "dpu/core/shard.h"
#include "dpu/volume/lock.h"
#include "dpu/volume/map.h"
#include "dpu/volume/volume.h"

#define CHUNK_BLOCKS 128u /* an operation works in pieces of this much */
#define CHUNK_WORDS  (CHUNK_BLOCKS / 64)
#define TRIES_MAX    5u /* of a device I/O that ends with a transient error */

/* ---- areas (area.c): where a volume's blocks lie in place --------------------------------------------------- */
enum area_kind { AREA_DATA, AREA_INTERMEDIATE, AREAS };
enum piece_state { PIECE_NONE, PIECE_MAKING, PIECE_READY };

/* A segment's worth of a volume, identity-mapped to a segment of a device. */
struct piece_move;
struct piece {
	uint32_t segment;
	uint8_t dev;
	uint8_t state;
	bool freeing; /* a job is giving it back */
	bool failed; /* the last attempt to make it: its waiters have to be told */
	struct piece_move *copy; /* being copied elsewhere: it has to know what is written */
	bool fresh; /* every unmapped block's place here still holds zeros: made by this run and nothing went wrong or was dropped since */
};

/* ---- records (rec.c) -------------------------------------------------------------------------------------------- */
struct rec_item {
	struct record rec;
	bool fua;
	void (*done_fn)(struct rec_item *it, enum io_status status);
	void *arg;
	TAILQ_ENTRY(rec_item) link;
};
TAILQ_HEAD(rec_list, rec_item);

#define REC_BATCHES 4u
struct rec_batch {
	struct store *s;
	struct stripe_append app;
	struct rec_list items;
	struct record records[STRIPELOG_RECORDS_MAX];
	uint64_t since_ns; /* on its way */
	bool busy;
};

/* ---- flushes of one device (devflush.c) ---------------------------------------------------------------------------- */
struct dev_flush {
	void (*done_fn)(struct dev_flush *f, enum flash_status status);
	void *arg;
	TAILQ_ENTRY(dev_flush) link;
};
TAILQ_HEAD(dev_flush_list, dev_flush);

#define FLUSH_PARTS 4u /* devices one operation flushes side by side */
struct flush_part {
	struct dev_flush f;
	struct op *op;
	uint64_t gen;
	uint8_t dev;
};

struct dev_flusher {
	struct flash_io io;
	struct store *s;
	uint8_t dev;
	bool busy, dead; /* dead: the device is; the tick tells */
	unsigned int tries;
	struct dev_flush_list running, next; /* next: came while one was running */
};

/* ---- device I/O of an operation (dev.c) --------------------------------------------------------------------------------- */
struct vio {
	struct flash_io io;
	struct store *s;
	struct op *op; /* of an operation */
	void *arg; /* the owner's, where it is none */
	void (*done_fn)(struct vio *v);
	uint8_t dev, tries;
	uint16_t first, n; /* blocks of the operation's chunk */
	TAILQ_ENTRY(vio) link;
};
TAILQ_HEAD(vio_list, vio);

struct sread { /* a read from the log */
	struct stripe_read r;
	struct op *op;
	uint16_t first, n;
	TAILQ_ENTRY(sread) link;
};
TAILQ_HEAD(sread_list, sread);

/* ---- operations (op.c) ------------------------------------------------------------------------------------------------------ */
enum op_kind { OP_READ, OP_WRITE, OP_ZERO, OP_TRIM, OP_FLUSH, OP_REPAIR };

enum op_stage {
	ST_FREE,
	ST_LOCK, /* waits for its range */
	ST_CHUNK, /* takes the next piece of the range */
	ST_AREA, /* sees that the pieces it writes to exist */
	ST_RESERVE, /* sets room aside in the log: before anything is written */
	ST_BUFFERS, /* bounce buffers for what cannot be used in place */
	ST_READ, /* reads; writes: the rest of partly written blocks */
	ST_FILL, /* gathers the payload */
	ST_ISSUE, /* device writes and the queue */
	ST_WRITTEN, /* all of them have ended */
	ST_FLUSH, /* makes them durable before a record may say so */
	ST_RECORD, /* the change of state */
	ST_LOGFLUSH, /* FUA: earlier records */
	ST_APPLY, /* the map: from here on it is visible */
	ST_TRIM, /* whole blocks of trim and write zeroes */
	ST_DONE,
};

enum step { GO, PARK };

struct iov_cursor {
	int i;
	size_t off;
};

struct op {
	enum op_kind kind;
	enum op_stage stage;
	enum io_status status; /* the first thing that went wrong */
	struct io_req *req; /* NULL: repair */
	struct volume *vol;
	struct store *s;
	enum io_outcome outcome;
	bool fua, locked;
	bool in_era;
	uint8_t era;
	uint8_t room_waits; /* how often it has waited for a checkpoint to free something */

	/* the range, in bytes of the volume, and how far it has got */
	uint64_t pos, end;
	uint64_t seq;
	uint64_t mark_ns; /* when its present stage (enum store_stage) began */
	struct range_lock lock;

	/* the chunk: bytes [head, head + len) of blocks [block, +n) */
	uint64_t block;
	uint32_t n, head, len;
	struct map_pin pin;
	struct iov_cursor cur; /* where the chunk starts in the request's iovec */
	uint64_t own[CHUNK_WORDS]; /* blk[i] is a bounce buffer */
	uint64_t from_log[CHUNK_WORDS]; /* the data area did not have it */
	uint32_t nbounce;
	uint8_t *blk[CHUNK_BLOCKS];
	uint32_t crc[CHUNK_BLOCKS];
	struct iovec iov[CHUNK_BLOCKS];
	uint32_t niov;

	/* reading: indices [rd_next, rd_end) are still to be asked for */
	uint32_t rd_next, rd_end, rd_first;
	bool rd_on, rd_log; /* rd_log: second pass, only what is in from_log */
	bool rd_failed;
	uint32_t rd_bad; /* when it failed: the first block that could not be had */

	/* writing */
	bool zeros; /* the payload is zeros (ends of write zeroes) */
	bool rmw_head, rmw_tail; /* blocks that still need their old contents */
	bool whole_head, whole_tail; /* ... and are then written whole */
	bool to_data; /* goes to an area in place */
	bool data_failed, log_failed;
	enum io_status log_status; /* when log_failed */
	uint64_t zero_first, zero_n; /* trim: the whole blocks */
	bool need_record, need_flush, waited_area;
	enum area_kind area;
	uint32_t reserved;
	struct ec_scheme reserved_scheme;
	int excluded;

	uint32_t pending;
	struct queue_item qi;
	struct rec_item rec;
	struct flush_part parts[FLUSH_PARTS];
	struct stripe_flush sf;
	uint64_t log_gen;
	uint64_t flush_devs; /* flush: still to do */
	TAILQ_ENTRY(op) link; /* in at most one list of the store */
};
TAILQ_HEAD(op_list, op);

/* ---- volume, store --------------------------------------------------------------------------------------------------------------- */
struct volume {
	struct store *s;
	struct volume_cfg cfg;
	uint32_t id;
	uint32_t version; /* of the record it is as */
	uint32_t last_version; /* that was tried */
	uint64_t nblocks;
	uint64_t next_seq;
	struct map *map;
	struct range_locks locks;
	struct piece *pieces[AREAS];
	uint64_t npieces;
	char *lost_text; /* what a forced opening gave up, until it is told; mostly NULL */
	uint32_t in_flight; /* requests, repairs, pieces being made */
	uint32_t requests; /* of VMs */
	bool deleting;
	/* what Flush has to flush: per device, a count of writes and the count at its last flush */
	uint64_t used_devs;
	uint64_t dev_gen[POOL_DEVS_MAX], dev_flushed[POOL_DEVS_MAX];
	uint64_t plain_devs; /* holds unflushed blocks that exist nowhere else */
	uint64_t
		lost_devs; /* failed with such blocks in their caches: the next flush says so, also when they are back */
	uint64_t log_gen, log_flushed;
	struct volume_stats stats;
	uint64_t media_event_ns;
	struct track *track; /* what is written is remembered (track.c); mostly NULL */
	uint64_t sweep, sweep_end; /* pieces that may have lost their last block */
	uint32_t listed; /* generation of the checkpoint that lists it */
	TAILQ_ENTRY(volume) link;
};
TAILQ_HEAD(volume_list, volume);

TAILQ_HEAD(req_list, io_req);
struct track;
struct area_job;
#define AREA_JOBS 16u
struct piece_free;
#define PIECE_FREES 4u
struct note;
struct note_put;
struct checkpoint;
struct healer;

/* A segment of an area that nothing refers to any more, but that the last checkpoint still calls taken. */
struct limbo_seg {
	uint32_t segment;
	uint32_t
		gen; /* of the map when it came here: free when a checkpoint that began later is committed */
	uint8_t dev;
};

struct store {
	struct pool *pool;
	struct pool_listener dev_listener;
	uint32_t failures_seen[POOL_DEVS_MAX]; /* of pool_dev.failures */
	struct shard *sh;
	struct ec *ec;
	struct stripelog *log;
	struct queue *queue;
	struct map_mem *map_mem;
	struct bufpool *bufs;
	struct store_cfg cfg;
	uint32_t piece_blocks, chunk_blocks;
	struct volume_list volumes;
	uint32_t next_id;

	struct op *ops, *repair_ops;
	struct op_list free_ops, free_repairs;
	struct op_list ready; /* may go on: run by the tick */
	struct op_list retry; /* something was full: tried again every round */
	struct op_list buf_wait; /* in order */
	struct op_list area_wait;
	struct op_list room_waiters; /* for room */
	struct req_list done; /* ended inside submit: told by the tick */
	unsigned int in_submit;
	uint32_t in_flight, background; /* background: those that are not a VM's (IO_BACKGROUND) */
	uint64_t foreground_bytes; /* read and written by VMs: the mover's measure */

	struct vio *vios;
	struct vio_list free_vios, dead_vios, dev_wait[POOL_DEVS_MAX];
	struct sread *sreads;
	struct sread_list free_sreads;
	struct dev_flusher flushers[POOL_DEVS_MAX];

	struct rec_batch rec_batches[REC_BATCHES];
	struct rec_list recs;
	struct area_job *jobs;
	struct piece_free *frees;
	bool sweeping;
	struct limbo_seg *limbo;
	size_t nlimbo, cap_limbo;

	struct note *notes; /* uthash */
	uint32_t nnotes, note_tombs,
		note_puts; /* there; removed, remembered while puts are in flight; in flight */
	uint64_t next_note_seq, note_serial;
	struct checkpoint *ck;
	struct healer *healer;

	bool recovered; /* maps and stripe table agree: checkpoints may begin */
	bool have_ckpt; /* one is committed or on its way: what is freed goes through limbo */
	uint8_t era; /* 0 or 1; see era_enter() */
	uint32_t era_count[2];

	struct task tick, rec_round;
	struct poller poller;
	bool closing;
	uint32_t
		piece_orphans; /* moves of pieces that nobody waits for any more (piece_move_close) */
	bool again; /* something was full: the poller has to try again */
	bool space_short; /* somebody has been told to wait for room in the log */
	enum store_space_level space_level;
	uint32_t space_rounds;
	uint64_t room_look_ns; /* when those who wait for room began to, or last looked again */
	uint64_t no_space_ns, map_full_ns; /* of the last event */

	void (*event_fn)(
		void *arg, enum store_event_kind kind, const char *object, const char *text);
	void *event_arg;
	struct store_stats stats;
	struct hist times[STORE_CLASSES][STORE_STAGES];
};

static inline void op_stage_end(struct op *op, enum store_class c, enum store_stage st)
{
	uint64_t now = shard_now_ns(op->s->sh);

	hist_add(&op->s->times[c][st], now - op->mark_ns);
	op->mark_ns = now;
}

/*
 * Eras. Whoever appends something to the log that will change what a checkpoint says (map, pieces, volumes, notes) is in an era from before the append
 * is submitted until the change is made. A checkpoint notes the log's position, ends the era, and waits until the old one is empty: then
 * everything before that position is in what it writes. Whoever is in an era must not wait for space: that may take a checkpoint.
 */
static inline uint8_t era_enter(struct store *s)
{
	s->era_count[s->era]++;
	return s->era;
}
static inline void era_leave(struct store *s, uint8_t era)
{
	s->era_count[era]--;
}
void op_era_enter(struct op *op);
void op_era_leave(struct op *op); /* no effect when it is in none */

/* op.c */
int ops_open(struct store *s, uint32_t count);
void ops_close(struct store *s);
void op_run(struct op *op); /* goes on with it as far as it gets */
void op_ready(struct op *op); /* the same, from the tick */
enum step op_retry(struct op *op); /* parks it until the next round */
void op_fail(struct op *op, enum io_status status);
/* Requests that wait for blocks in there are to be tried again by whoever made them. */
void volume_refuse_waiting(struct volume *v, uint64_t first, uint64_t nblocks);
bool op_buffers(struct op *op); /* maps blk[]; false: parked */
void op_release_buffers(struct op *op);
void op_gather(struct op *op);
void op_scatter(struct op *op);
void op_unreserve(struct op *op);
void op_set_chunk(struct op *op,
	uint64_t limit_blocks); /* the chunk at pos, not across a multiple of limit_blocks */
enum step op_pin(
	struct op *op, enum map_intent intent); /* the chunk; op->stage is already the next one */
void op_unpin(struct op *op);
void op_next_chunk(struct op *op); /* past it: ST_CHUNK or ST_DONE */
bool repair_start(struct volume *v, uint64_t block, uint32_t n);
void store_tick(void *arg); /* struct store */
int store_poll(void *arg);

/* read.c */
enum step read_step(struct op *op);
int op_add_iov(struct op *op, uint32_t from, uint32_t n);
void volume_media_error(
	struct volume *v, uint64_t block); /* counts, and tells the operator now and then */
void read_begin(struct op *op, uint32_t from, uint32_t to);
enum step read_go(struct op *op); /* GO: all of it is there, or op->rd_failed */

/* write.c */
enum step write_step(struct op *op);
/* trim.c */
enum step trim_step(struct op *op);
/* flush.c */
enum step flush_step(struct op *op);
enum step op_flush_dev(
	struct op *op, unsigned int dev, enum op_stage next); /* one device, on behalf of a write */
enum step op_flush_log(struct op *op, enum op_stage next);
void volume_wrote(
	struct volume *v, unsigned int dev, bool only_copy); /* a write to a device has ended */
void dev_flush(struct store *s, unsigned int dev, struct dev_flush *f);
void flush_tick(struct store *s);
int flush_retry(struct store *s); /* devices whose queue was full; how many went */
bool store_dev_volatile(const struct store *s, unsigned int dev);
/* Every volume with unflushed blocks that exist nowhere else remembers it until its next flush. */
void volumes_dev_failed(struct store *s, unsigned int dev);

/* dev.c */
/* Worth asking where there is another way: it works, and does not hang just now. */
bool store_dev_answers(const struct store *s, unsigned int dev);
struct vio *vio_get(struct store *s);
void vio_put(struct store *s, struct vio *v);
void vio_submit(struct store *s, struct vio *v);
void dev_tick(struct store *s);
int dev_retry(struct store *s); /* devices whose queue was full; how many went */

/* rec.c */
void rec_submit(struct store *s, struct rec_item *it);
int rec_submit_wait(struct store *s, struct rec_item *it); /* control context */
bool rec_idle(const struct store *s);
void rec_hurry(struct store *s); /* a device hangs: those that wait may have to go alone */
int rec_retry(struct store *s); /* the log was full; how many went */
void rec_state(struct record *r, uint32_t volume, uint8_t state, uint64_t block, uint64_t nblocks,
	uint64_t seq);
void rec_area(struct record *r, uint32_t volume, enum area_kind kind, uint64_t piece, uint64_t seq,
	unsigned int dev, uint32_t segment, bool gone);
void rec_volume(struct record *r, uint32_t id, uint32_t version, const struct volume_cfg *cfg,
	bool deleted);
/* len 0: the note is gone */
void rec_note(struct record *r, const char *key, uint64_t seq, const void *body, uint8_t len);

struct rec_state_fields {
	uint32_t volume;
	uint8_t state;
	uint64_t block, nblocks, seq;
};
struct rec_area_fields {
	uint32_t volume, segment;
	uint8_t kind, dev;
	bool gone; /* no longer */
	uint64_t piece, seq; /* of two for the same piece the later one holds */
};
struct rec_volume_fields {
	uint32_t id, version;
	bool deleted;
	struct volume_cfg cfg;
};
struct rec_note_fields {
	char key[STORE_NOTE_KEY_MAX + 1];
	uint64_t seq; /* the highest one holds */
	uint8_t len;
	uint8_t body[STORE_NOTE_BODY_MAX];
};
/* 0 or -EINVAL: not what it should be */
int rec_parse_note(const struct record *r, struct rec_note_fields *out);
int rec_parse_state(const struct record *r, struct rec_state_fields *out);
int rec_parse_area(const struct record *r, struct rec_area_fields *out);
int rec_parse_volume(const struct record *r, struct rec_volume_fields *out);

/* area.c */
int areas_open(struct store *s);
void areas_close(struct store *s);
int volume_pieces_grow(struct volume *v, uint64_t nblocks);
struct piece *area_piece(struct volume *v, enum area_kind kind, uint64_t block);
/* 1: there; 0: op is parked and asks again; -ENOSPC, -ENODEV, -EIO (it was tried) */
int area_ensure(struct volume *v, enum area_kind kind, uint64_t block, struct op *op);
uint64_t area_off(struct volume *v, const struct piece *p, uint64_t block);
void area_not_fresh(struct volume *v, uint64_t first, uint64_t nblocks);
bool area_jobs_idle(const struct store *s);

/* area_free.c */
int area_frees_open(struct store *s);
void area_frees_close(struct store *s);
bool area_frees_idle(const struct store *s);
/* Blocks there have left the areas: pieces in which none is left are given back in the background. */
void area_left(struct volume *v, uint64_t first, uint64_t nblocks);
int area_sweep(struct store *s); /* the poller's part of that: how much it did */
/* sure: its record, that it is nobody's, is durable; else it may be there or not, and a scan of the whole log could believe the older one. */
void limbo_add(struct store *s, unsigned int dev, uint32_t segment, bool sure);
void limbo_end(struct store *s, uint32_t gen); /* a checkpoint that began as gen is committed */

/* notes.c */
void notes_close(struct store *s);
/* Recovery: what a checkpoint or a record says; the highest sequence holds. */
int notes_offer(struct store *s, const struct rec_note_fields *f);
void notes_forget(struct
	store *s); /* all of them, and what was removed: before recovery, or a newer part of a checkpoint */
void notes_settle(struct store *s); /* recovery is over */
/* Every note there is, in the order of their serials. Stops at the first value that is not 0 and returns it. */
int notes_each(const struct store *s,
	int (*fn)(void *arg, const struct rec_note_fields *f, uint64_t serial), void *arg);

/* heal.c */
int heal_open(struct store *s);
void heal_close(struct store *s);
bool heal_idle(const struct store *s);
/* [block, +n) had to be decoded from stripe ref. */
void heal_blocks(struct volume *v, uint64_t block, uint32_t n, uint32_t ref);
int heal_poll(struct store *s);

/* room.c */
int room_open(struct store *s);
void room_close(struct store *s);
void room_poll(struct store *s); /* levels, and what checkpoints need kept back; now and then */
void room_tell(struct store *s); /* the level that was found before anybody listened, once more */
/* Parks op until there may be room again; it goes on with the stage it is in. False: there is nothing to wait for. */
bool room_wait(struct op *op);
/* A checkpoint would make room in the log. grows: for more live data, of which there must not be too much already. */
bool room_in_limbo(const struct store *s, bool grows);
void room_wake(struct store *s);
/* checkpoint.c: the pool is not ours any more; dev says so. Once. */
void store_lost(struct store *s, const char *dev);

/* volume.c */
/* Takes the map over where there is one (recovery). */
int volume_new(struct store *s, uint32_t id, const struct volume_cfg *cfg, struct map *map,
	struct volume **out);
void volume_free(struct volume *v);
void volume_put_log(void *arg, uint32_t ref, uint32_t nblocks); /* a map_put_fn */
uint32_t volume_default_block_bytes(const struct store *s, int data_dev);

/* move_piece.c: [block, +n) of a piece is being written to, under its exclusive lock */
void piece_move_dirty(struct piece_move *m, uint64_t block, uint64_t n);
static inline void piece_written(struct piece *p, uint64_t block, uint64_t n)
{
	if (p->copy)
		piece_move_dirty(p->copy, block, n);
}

/* track.c */
/* The operation has written in its range, or may have: before its lock is given up. */
void track_op(const struct op *op);
int track_grow(struct volume *v, uint64_t nblocks); /* before the volume does */

#define STORE_LOST_TEXT 300u /* bytes of volume.lost_text: an event takes it whole */

/* recover.c */
int store_recover(struct store *s, struct err *err);

/* store.c */
void store_event(struct store *s, enum store_event_kind kind, const char *object, const char *fmt,
	...) __attribute__((format(printf, 4, 5)));
void store_check_space(struct store *s);
void store_no_space(struct store *s, struct volume *v);
void store_map_full(struct store *s, struct volume *v);

static inline bool bit_get(const uint64_t *w, uint32_t i)
{
	return w[i / 64] >> (i % 64) & 1;
}
static inline void bit_set(uint64_t *w, uint32_t i)
{
	w[i / 64] |= 1ull << (i % 64);
}

#endif
