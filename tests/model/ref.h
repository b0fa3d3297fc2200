/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The model of a volume: per 512-byte sector the values that a read may return, from what was written, acknowledged and
 * flushed. Nothing of the storage stack is in here.
 *
 *	c[0]       the floor: what is certain (flushed, or seen after a recovery)
 *	c[1..n-1]  written later, in order of submission: in flight, acknowledged, or failed (may be there or not)
 *
 *	running           the last acknowledged, or anything in flight or failed after it
 *	process died      the same
 *	power was lost    any of them
 */
#ifndef TESTS_MODEL_REF_H
#define TESTS_MODEL_REF_H

#include <stdbool.h>
#include <stdint.h>

#define SECTOR     512u
#define CANDS_MAX  40u
#define SEC_PER_4K 8u

enum cand_state { CAND_FLYING, CAND_ACKED, CAND_FAILED };
enum cand_kind { CAND_ZERO, CAND_PROTECTED, CAND_UNPROTECTED };

struct cand {
	uint32_t id; /* of the operation */
	uint32_t ver; /* content: 0 is zeros */
	uint32_t alt; /* the VM changed its memory meanwhile: this or that; 0: no */
	uint32_t began, acked_at; /* 0: not acknowledged */
	uint8_t kind, state;
	bool waited; /* while it was in flight something waited for room: others may have passed it, and it others */
	bool undecided; /* still in flight, and nobody knows yet whether something will wait */
};

struct sector {
	uint8_t n;
	uint8_t unseen; /* power was lost and nobody could look since: any of the first so many */
	struct cand c[CANDS_MAX];
};

struct ref {
	uint32_t salt; /* of the volume: its content differs from all others' */
	uint64_t nsectors;
	struct sector *s;
};

int ref_open(struct ref *r, uint32_t salt, uint64_t nsectors);
int ref_grow(struct ref *r, uint64_t nsectors);
void ref_close(struct ref *r);

void sector_fill(uint8_t *p, uint32_t salt, uint64_t sector, uint32_t ver);
/* The version in p, or -1: no content that was ever written there. */
int64_t sector_version(const uint8_t *p, uint32_t salt, uint64_t sector);

bool ref_full(const struct ref *r, uint64_t first, uint64_t n); /* no room for one more */
void ref_begin(struct ref *r, uint64_t first, uint64_t n, const struct cand *c);
void ref_end(struct ref *r, uint64_t first, uint64_t n, uint32_t id, bool acked, uint32_t clock);
/* While it was in flight something waited for room. */
void ref_waited(struct ref *r, uint64_t first, uint64_t n, uint32_t id);
/* x takes effect before y whatever is seen (order.c). */
bool cand_precedes(const struct cand *x, const struct cand *y);
/* A flush that began at `clock` has succeeded: what was acknowledged before is certain. */
void ref_flushed(struct ref *r, uint64_t first, uint64_t n, uint32_t clock);

/* May a read return this now? Remembers which alternative it was. */
bool ref_read(struct ref *r, uint64_t sector, uint32_t ver);
/* May it after power was lost (or a process died)? Then it is the only one from now on. */
bool ref_recovered(struct ref *r, uint64_t sector, uint32_t ver, bool power);
/*
 * After a power loss, of the sectors of a 4 KiB block: may they hold these versions together? whole: requests take effect on the block one
 * after the other, each as a whole; else every sector is on its own (a logical block of 512 bytes that is changed in place).
 */
bool ref_block(const struct ref *r, uint64_t block, const int64_t *ver, bool whole);
/* The same, for requests that were in flight together when one of them waited for room: in some order (order.c). */
bool ref_block_some_order(const struct ref *r, uint64_t block, const int64_t *ver);
/* It could not be read after a power loss: its device is away. */
void ref_unseen(struct ref *r, uint64_t first, uint64_t n);
/* Is there anything unprotected among what it may hold? */
bool ref_unprotected(const struct ref *r, uint64_t sector);
/* Newest acknowledged kind. */
enum cand_kind ref_kind(const struct ref *r, uint64_t sector);
void ref_print(const struct ref *r, uint64_t sector);

#endif
