/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of dpu/stripelog: the ledger, every group there is with what is live in it.
 *
 *	open ─▶ closed ─▶ (nothing live) limbo ─▶ (a checkpoint that started after that has committed) its segments are free
 *
 * A group is known by its generation; a segment's group is found through a table per device, a stripe's through its first address. Groups of
 * records (k = 0) have no live count: they end with the first checkpoint whose floor is above their last stripe.
 *
 * Thread: the shard's. Ownership: the log. Errors: 0 or -errno.
 */
#ifndef DPU_STRIPELOG_LEDGER_H
#define DPU_STRIPELOG_LEDGER_H

#include <uthash.h>

#include "dpu/stripelog/log_priv.h"

struct ledger_member {
	uint32_t at; /* SEG_AT */
	uint32_t off; /* append pointer at the floor, of groups that were open there */
};

struct ledger_group {
	uint64_t generation, nonce;
	uint64_t last; /* number of its last stripe */
	uint64_t limbo; /* 0: not there; else the first checkpoint that may free it */
	uint64_t drop; /* the checkpoint that will free it */
	uint64_t floor; /* the checkpoint at whose floor it was open */
	uint32_t live; /* blocks */
	uint32_t cost; /* bytes a live block counts for */
	uint32_t *refs; /* of its stripes; dead ones, and some twice, among them */
	uint32_t nrefs, refs_cap;
	uint8_t n, k, m;
	uint8_t lost; /* members that turned out to be somebody else's: it was so much wider */
	bool open; /* appended to, or appends to it are in flight */
	bool mover;
	bool thin; /* some stripe is (ENTRY_THIN), or was */
	UT_hash_handle hh; /* in order of generation once settled */
	struct ledger_member members[];
};
#define SEG_AT(dev, segment) ((uint32_t)(dev) << 24 | (segment))
#define AT_DEV(at)           ((at) >> 24)
#define AT_SEGMENT(at)       ((at)&0xffffffu)

/* Of `like` everything but the hash handle and members counts. -ENOMEM; -EEXIST: that generation, or one of the segments, is there already. */
int ledger_add(struct stripelog *log, const struct ledger_group *like,
	const struct ledger_member *members, struct ledger_group **out);
/* Forgets it; give_back: its segments are the pool's again. */
void ledger_del(struct stripelog *log, struct ledger_group *g, bool give_back);
void ledger_close(struct stripelog *log);
struct ledger_group *ledger_find(const struct stripelog *log, uint64_t generation);
struct ledger_group *ledger_at(const struct stripelog *log, uint32_t at);
void ledger_yield(
	struct stripelog *log, uint32_t at); /* the segment is somebody else's after all */
void ledger_sort(struct stripelog *log);
/* Nothing is appended to it any more: limbo, when nothing is live. */
void ledger_done(struct stripelog *log, struct ledger_group *g);
/* Live counts are right from here on (recovery has ended): what is dead goes to limbo. */
void ledger_settle(struct stripelog *log);
/* Its live stripes, each once, in refs; returns how many. */
uint32_t ledger_refs(struct stripelog *log, struct ledger_group *g);

/* Stripes with their group's books. */
int entry_add(struct stripelog *log, const struct frag_hdr *h, uint32_t live, bool bounded,
	uint32_t *ref);
int entry_track(struct stripelog *log, uint32_t ref); /* one that was loaded */
void entry_del(struct stripelog *log, uint32_t ref);
void entry_live(struct stripelog *log, struct table_entry *e, int64_t delta);
struct ledger_group *entry_group(const struct stripelog *log, const struct table_entry *e);

#endif
