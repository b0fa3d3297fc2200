/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of dpu/stripelog only: the log's objects and what its files offer each other.
 *
 *	append.c ─▶ group.c (where) ─▶ pool        read.c ─▶ decode.c
 *	        └─▶ logio.c (I/O)                  scan.c ─▶ judge.c ─▶ recover.c
 *	table.c: ref ─▶ addresses of a stripe      flush.c: device flushes, the watermark
 */
#ifndef DPU_STRIPELOG_LOG_PRIV_H
#define DPU_STRIPELOG_LOG_PRIV_H

#include "dpu/core/shard.h"
#include "dpu/pool/health.h"
#include "dpu/stripelog/format.h"

/* ---- arena.c: page-wise runs of long-lived memory ---------------------------------------------------------- */
#define ARENA_PAGE 4096u
struct arena {
	uint8_t *mem;
	uint64_t *used; /* bit per page */
	uint32_t npages, hint, free;
};
int arena_open(struct arena *ar, uint32_t npages);
void arena_close(struct arena *ar);
/* npages contiguous pages, or NULL: later. */
void *arena_get(struct arena *ar, uint32_t npages);
void arena_put(struct arena *ar, void *p, uint32_t npages);

/* ---- table.c: the stripe table ------------------------------------------------------------------------------- */
/* Where a fragment is, packed to 6 bytes. */
struct table_addr {
	uint8_t dev;
	uint8_t segment[3];
	uint8_t off[2]; /* in units of 512 bytes */
};

struct table_entry {
	uint64_t number;
	uint16_t nblocks; /* 0: the entry is free */
	uint16_t live;
	uint8_t k, m;
	uint8_t hdr_units; /* header in units of 512 bytes, less one */
	uint8_t flags;
	struct table_addr addr[]; /* k + m */
};
#define ENTRY_THIN \
	2u /* accepted by a recovery with fragments missing, and not appended again: there was no room */
#define ENTRY_RECOVERED 1u /* found by the scan; dropped when still at 0 live blocks at recovery */

struct table;
int table_open(uint64_t max_bytes, struct table **out);
void table_close(struct table *t);
/* bounded: -ENOSPC rather than past max_bytes. */
int table_add(
	struct table *t, const struct frag_hdr *h, uint32_t live, bool bounded, uint32_t *ref);
/* Addresses of an entry of the same shape, written again elsewhere. */
void table_set(struct table *t, uint32_t ref, const struct frag_hdr *h);
struct table_entry *table_get(const struct table *t, uint32_t ref); /* NULL: no such entry */
void table_del(struct table *t, uint32_t ref);
/* Whether an entry begins there: for references from flash. */
bool table_is_ref(const struct table *t, uint32_t ref);
void table_each(
	struct table *t, void (*fn)(void *arg, uint32_t ref, struct table_entry *e), void *arg);
/* Checkpoints: what has changed since the last one committed is taken at the start, walked, and then done with or changed again. */
void table_take(struct table *t);
void table_taken(struct table *t, bool committed);
/* The next entry taken (all: every one) from *cursor on; *e NULL: freed. False: no more. */
bool table_next(const struct table *t, bool all, uint64_t *cursor, uint32_t *ref,
	const struct table_entry **e);
/* Loading into an empty table, before anything else: head NULL frees. Then once load_end. -EUCLEAN. */
int table_load(struct table *t, uint32_t ref, const struct table_entry *head,
	const struct table_addr *addr);
int table_load_end(struct table *t);
uint64_t table_bytes(const struct table *t);
uint64_t table_used_bytes(const struct table *t); /* of these, entries */
uint64_t table_max_bytes(const struct table *t);
uint64_t table_room(const struct table *t); /* bytes of entries that can be added yet */
uint64_t table_entry_bytes(unsigned int nfrags);
uint64_t table_entries(const struct table *t);
struct frag_addr table_addr_of(const struct table_entry *e, unsigned int frag);
static inline uint32_t table_rows(const struct table_entry *e)
{
	return ((uint32_t)e->nblocks + e->k - 1) / e->k;
}
static inline uint32_t table_hdr_bytes(const struct table_entry *e)
{
	return (e->hdr_units + 1u) * FRAG_HDR_UNIT;
}

/* ---- logio.c: I/O to members, with patience ---------------------------------------------------------------------- */
/* An I/O that is retried while the device's queue is full and three times after a transient error. done_fn runs once, later, with io.status. */
struct logio {
	struct flash_io io; /* op, off, len, iov, niov: the caller's */
	struct stripelog *log;
	void (*done_fn)(struct logio *lio);
	void *arg;
	uint8_t dev;
	uint8_t retries; /* left */
	TAILQ_ENTRY(logio) link;
};
TAILQ_HEAD(logio_list, logio);
void logio_submit(struct stripelog *log, unsigned int dev, struct logio *lio);
int logio_poll(struct stripelog *log);

/* ---- ledger.c: every group (ledger.h) ---------------------------------------------------------------------------- */
struct ledger_group;
struct ledger_segs { /* of a device */
	struct ledger_group **group; /* by segment */
	uint32_t cap, used, records; /* segments of groups; of these, of records */
};

/* ---- group.c, space.c: where stripes go ------------------------------------------------------------------------------ */
struct append_op;
TAILQ_HEAD(append_list, append_op);

struct group {
	uint64_t nonce, generation;
	uint8_t n;
	bool opening, closed;
	enum pool_class cls; /* what its segments were taken as */
	struct ledger_group *books;
	uint32_t refs; /* its key's, and one per append in flight */
	struct {
		uint8_t dev;
		uint32_t segment;
		uint32_t off; /* append pointer */
	} members[FRAGS_MAX];
	uint64_t room; /* bytes left on all members */
	uint32_t frag_max; /* largest fragment so far: append pointers are no further apart */
	uint32_t hdr_pending;
	struct append_list waiters;
	struct logio hdr_io[FRAGS_MAX];
	struct iovec hdr_iov[FRAGS_MAX];
	uint8_t *hdr_mem;
	LIST_ENTRY(group) link;
};

/* What may share a group: one scheme, one excluded device; records apart. */
struct log_key {
	struct ec_scheme scheme; /* k = 0: records */
	int excluded;
	bool mover;
	struct group *open;
	uint64_t reserved; /* blocks promised and not yet appended */
	uint64_t *plans; /* groups the promises need beyond the open one: a bit per device */
	uint32_t nplans, plans_cap;
	uint32_t groups_left; /* caches of space.c, valid for ... */
	uint64_t groups_version;
	struct {
		uint64_t block; /* sizes for promises of up to 1 << index blocks */
		uint32_t frag;
	} easy[11];
	uint64_t easy_version[11];
};
#define KEYS_MAX 512u

/* ---- append.c ------------------------------------------------------------------------------------------------------------ */
struct frag_io {
	struct logio lio;
	struct append_op *op;
};

struct append_op {
	struct stripelog *log;
	struct stripe_append *a;
	struct log_key *key;
	struct group *g;
	struct frag_hdr h;
	uint64_t devs; /* bit per device it is written to */
	uint8_t *mem; /* of the arena: headers, iovecs, I/Os, parity */
	const uint8_t *const *blocks; /* the caller's, or where stabilized a copy in mem */
	bool stabilized;
	uint32_t mem_pages;
	uint32_t pending;
	uint32_t attempts;
	bool failed; /* a fragment write of this round did */
	bool placed, has_ref;
	bool is_short; /* fewer copies or parity than asked for */
	bool voiding; /* the stripe cannot be had; a record that says so is being appended */
	bool windowed; /* stored straight into flash memory */
	enum io_status status; /* to end with */
	uint64_t voids[8]; /* numbers of rounds that failed, those of `voiding` included */
	uint32_t nvoids;
	struct stripe_flush flush;
	struct task task;
	TAILQ_ENTRY(append_op)
	link; /* waiters of a group, or those who try again, or the free ones */
};

/* A stripe number's way to the watermark. */
enum mark_state {
	MARK_FREE,
	MARK_INFLIGHT,
	MARK_WRITTEN,
	MARK_STUCK /* not before a record says that it is void */
};
struct mark {
	uint64_t tick; /* when its last fragment had been written */
	uint64_t devs;
	uint8_t state;
};
#define MARKS_MAX 8192u /* stripes above the watermark */
#define MARKS_PUSH \
	512u /* so many, and the log flushes of its own accord: recovery verifies what is above */

struct read_op;
TAILQ_HEAD(read_list, read_op);
TAILQ_HEAD(flush_list, stripe_flush);

struct log_dev {
	struct logio_list full; /* waiting for room in the device's queue */
	uint64_t dirty_tick; /* of its last completed write */
	uint64_t covered_tick; /* writes up to here are durable */
	uint64_t flush_tick; /* what the flush in flight will cover */
	bool flushing;
	struct logio flush_io;
};

struct stripelog {
	struct log_progress *progress; /* of the scan; NULL: nobody watches */
	struct pool *pool;
	struct shard *sh;
	struct ec *ec;
	struct log_identity id;
	uint32_t shard_id;
	uint32_t block_bytes, segment_bytes;
	unsigned int ndevs;
	struct table *table;
	struct poller poller;

	struct log_key keys[KEYS_MAX];
	uint32_t nkeys;
	struct log_key *last_key;
	LIST_HEAD(, group) groups;
	uint32_t groups_opened; /* in this epoch */
	struct ledger_group *ledger; /* by generation */
	struct ledger_segs segs[POOL_DEVS_MAX];
	uint32_t groups_count, groups_limbo, limbo_segments;
	uint64_t live_bytes; /* of all groups, at what they take in full stripes */
	uint64_t dev_live[POOL_DEVS_MAX]; /* of these, in groups with a member there */
	uint64_t reserved_blocks; /* of all keys */
	struct capacity_cache {
		uint64_t version, bytes;
		int excluded;
		uint8_t width;
	} capacity[2]; /* of all devices, of all but one */
	uint64_t room_seen; /* pool_room_version() when devices were looked at */
	bool settled; /* live counts are right */
	uint64_t ckpt_started; /* checkpoints since open */
	struct log_floor floor; /* of the checkpoint that was loaded */
	bool have_floor, load_ended;
	struct {
		void (*fn)(void *arg, enum log_space_event event);
		void *arg;
	} space_fns[8];
	uint32_t space_events; /* bits to tell */
	struct task space_task;
	bool cleaning;
	uint32_t overprovision; /* per cent */
	uint32_t held[POOL_DEVS_MAX]; /* segments in plans */
	uint64_t space_stamp; /* raised when promises change */

	struct append_op *ops;
	struct append_list free_ops, again; /* again: wait for memory or a retry */
	uint32_t max_inflight, inflight;
	uint32_t mover_inflight; /* of these */
	struct arena write_mem;
	bool windows; /* every device is memory we may store into */
	uint8_t *window_ptrs[EC_BLOCKS_MAX];
	struct record *records_mem; /* for a header under construction */

	struct log_dev devs[POOL_DEVS_MAX];
	uint64_t tick;
	struct flush_list flushes;
	struct task flush_task;
	struct mark *marks;
	uint64_t next_counter; /* of the next stripe */
	uint64_t watermark; /* counter */
	uint64_t frozen_mark; /* what headers say while recovery runs */
	bool recovering;
	struct stripe_flush mark_flush; /* of the log's own accord */
	bool mark_flushing;
	bool closing;
	uint32_t nstuck; /* marks that are */
	struct log_mend {
		struct stripe_append a;
		struct record records[16];
		uint64_t numbers[16];
		struct timer timer;
		uint32_t n;
		bool busy;
	} mend;

	struct read_op *read_ops;
	struct read_list free_reads, read_waiters;
	struct arena read_mem;
	uint32_t max_reads, reads_inflight;

	struct list_ops *lists; /* with the first of them */
	struct verify_ops *verifies;
	uint32_t lists_busy; /* of both */

	struct scan *scan; /* between stripelog_scan() and stripelog_recover() */
	struct stripelog_stats stats;
	struct hist fill; /* blocks of a stripe */
};

static inline uint64_t stripe_number(const struct stripelog *log, uint64_t counter)
{
	return (uint64_t)log->shard_id << 56 | counter;
}
#define NUMBER_COUNTER(n) ((n)&0x00ffffffffffffffull)
#define NUMBER_SHARD(n)   ((unsigned int)((n) >> 56))

/* group.c */
struct log_key *key_get(struct stripelog *log, struct ec_scheme scheme, int excluded, bool mover);
/* Finds room for op->h (its geometry and len_bytes are set): addresses, number, group. 0, -ENOSPC, -EROFS, -ENOMEM. */
int group_place(struct stripelog *log, struct append_op *op);
void group_put(struct stripelog *log, struct group *g);
void group_close(struct stripelog *log, struct log_key *key);
void groups_close_all(struct stripelog *log);
/* The scheme and geometry that today's devices allow. -EROFS: too few, -EINVAL. */
int scheme_fit(struct stripelog *log, struct ec_scheme scheme, int excluded, uint32_t nblocks,
	struct ec_geometry *geo, bool *is_short);
/* New stripes may go to it: placeable, and not hanging while there are enough others. */
bool log_dev_ok(const struct stripelog *log, unsigned int dev);
unsigned int eligible_devs(const struct stripelog *log, int excluded);
/* Copies a stripe of records gets today. 0: too few devices. */
unsigned int record_copies(const struct stripelog *log);

/* stripelog.c */
void log_devs_refresh(struct stripelog *log); /* devices come, go and return */

/* append.c */
int append_open(struct stripelog *log);
void append_close(struct stripelog *log);
void append_group_ready(
	struct append_op *op, bool ok); /* the group's headers are written, or not */
int append_poll(struct stripelog *log);
int append_begin(struct stripelog *log, struct stripe_append *a); /* without asking the watermark */
void append_void_record(const struct stripelog *log, uint64_t number, struct record *out);
void append_written(struct append_op *op); /* every fragment has been, or has failed */
uint8_t *append_hdr(const struct append_op *op, unsigned int frag);
void append_headers(struct append_op *op); /* builds all of them; the CRCs are there */

/* window.c: the stripe goes straight into the memory of all its devices; append_written() follows. */
void window_open(struct stripelog *log);
void window_store(struct append_op *op, uint32_t *parity_crc);

/* flush.c */
void flush_wrote(struct stripelog *log, unsigned int dev);
int mark_room(
	const struct stripelog *log); /* 0, -EAGAIN, -EROFS: not while the watermark is stuck */
uint64_t mark_begin(struct stripelog *log); /* the number of a new stripe */
void mark_written(struct stripelog *log, uint64_t number, uint64_t devs);
void mark_stuck(struct stripelog *log, uint64_t number);
uint32_t mark_stuck_list(const struct stripelog *log, uint64_t *numbers, uint32_t max);
uint64_t mark_header(const struct stripelog *log); /* the watermark to put into a header */

/* read.c, decode.c */
int read_open(struct stripelog *log);
void read_close(struct stripelog *log);
int read_poll(struct stripelog *log);

/* mend.c */
void mend_begin(struct stripelog *log); /* a number has got stuck */
void mend_close(struct stripelog *log);

/* clean.c, verify.c */
void list_close(struct stripelog *log);
void verify_close(struct stripelog *log);
/* Whether buf (of table_hdr_bytes(e)) is the header of fragment `frag` of e: then it is in *h. */
bool entry_header(const struct stripelog *log, const struct table_entry *e, unsigned int frag,
	const uint8_t *buf, struct frag_hdr *h);

/* checkpoint.c */
/* Whether the checkpoint that was loaded covers a stripe, or a group by its generation: neither is believed where it is found on flash. */
bool floor_covers(const struct stripelog *log, uint64_t epoch, uint64_t number);
bool floor_covers_group(const struct stripelog *log, uint64_t generation);

/* recover.c */
#define RECORD_VOID \
	5 /* the log's own: a stripe that was not acknowledged, whatever is found of it */
void scan_free(struct stripelog *log);

#endif
