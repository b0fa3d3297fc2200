/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the model test drives: a pool of devices that fail as told, the shipped storage stack on it, and requests in flight.
 * One life: pool_create, operations, reopenings, until the space is used up or the steps are done.
 */
#ifndef TESTS_MODEL_RIG_H
#define TESTS_MODEL_RIG_H

#include "dpu/core/shard.h"
#include "dpu/flash/fault.h"
#include "dpu/mover/mover.h"
#include "dpu/volume/volume.h"
#include "tests/model/ref.h"

#define VOLS     4u
#define FLIGHT   16u
#define DEVS_MAX 20u
#define IO_MAX   (200u * 4096u)

struct vol {
	struct volume *v; /* NULL: there is none in this place */
	char name[64];
	struct volume_cfg cfg;
	struct ref ref;
	uint64_t area_devs; /* ever used for its areas */
	bool moved; /* stripes may lie on the data flash of today: it is another one, or had another layout */
	uint32_t born;
};

struct life;
struct rq {
	struct io_req req;
	struct iovec iov[24];
	struct life *l;
	struct vol *vol;
	uint8_t *buf;
	uint64_t first, n; /* sectors whose value changes, or is read */
	uint32_t id, ver, alt, began;
	uint64_t armed, n_rules; /* of the life when it was submitted */
	uint64_t room_waits; /* of the store; */
	bool some_waited; /* ... somebody was waiting */
	bool busy, zeros;
};

enum reopen { REOPEN_CLEAN, REOPEN_KILL, REOPEN_POWER };

struct life {
	uint64_t rng, seed, number;
	unsigned int k, m, ndevs;
	bool faults; /* devices misbehave; without: plain mem:, the single-pass path */
	bool volatile_cache;
	bool protected_only; /* nothing unprotected: any byte of any device may rot */
	uint32_t dev_block;
	uint64_t dev_bytes;
	struct shard *sh;
	struct flash *f[DEVS_MAX];
	uint64_t dead; /* failed for good */
	uint64_t suspect; /* had media errors: may have been given up */
	uint64_t away; /* not there at the last open */
	bool thin_stripes; /* too few devices at times, and allowed: some have less than their redundancy */
	uint64_t pulled; /* gone, and may come back while the card runs */
	uint64_t thin; /* was pulled out, and what it missed has not been made whole yet */
	uint64_t ever_away; /* the same of those that were not there at an open */
	bool roams; /* the mover may have put areas on other devices */
	uint64_t pulled_ns; /* when the last one went */
	uint64_t ever_pulled; /* unprotected blocks that were there may have been given up */
	bool hanging, rotten;
	uint64_t armed; /* devices with rules */
	struct store *store;
	struct mover *mover;
	bool checkpointing;
	struct vol vols[VOLS];
	struct rq rqs[FLIGHT];
	unsigned int flying;
	uint32_t ids, vers, clock, salts;
	uint64_t step, steps;
	bool full, done;
	/* what happened, for the summary and to see that nothing is left out */
	uint64_t n_reads, n_writes[3], n_trims, n_flushes, n_kills, n_cuts, n_cleans, n_gone,
		n_rules, n_no_space, n_media, n_retry, n_vols, n_checkpoints, n_jobs[MOVER_REASONS],
		n_moved, n_pulls, n_returns, n_whole, n_schemes;
	struct volume_stats sum;
	struct store_stats last;
};

uint64_t rnd(struct life *l, uint64_t below); /* 0..below-1 */
bool one_in(struct life *l, uint64_t n);
/* Says what is wrong, how to see it again, and ends the program. */
void fail(struct life *l, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));

void life_begin(struct life *l, uint64_t seed, uint64_t number);
void life_end(struct life *l);
void life_drain(struct life *l); /* until nothing is in flight */
void life_rounds(struct life *l, unsigned int n);
void life_reopen(struct life *l, enum reopen how, uint64_t away);

/* A checkpoint, in the background. */
void life_checkpoint(struct life *l);
/* A job for the mover, of any kind that makes sense now. */
void life_job(struct life *l);
/* Notes when what a device missed is on others, durably. */
void life_whole(struct life *l);

/* Devices that may hold unprotected blocks of a volume. */
uint64_t life_area_devs(const struct life *l, const struct vol *v);
/* Devices whose unprotected blocks need not be readable. */
uint64_t life_gone_devs(const struct life *l);

/* May these devices be gone at the same time, by what is promised? */
bool may_lose(struct life *l, uint64_t devs);
unsigned int popcount(uint64_t x);

void vol_create(struct life *l, struct vol *v);
void vol_delete(struct life *l, struct vol *v);
void vol_grow(struct life *l, struct vol *v);
void vol_move(struct life *l, struct vol *v);

void rq_random(struct life *l);
/* Reads everything; after a reopening that is what counts from then on. */
void verify_all(struct life *l, bool reopened, bool power);
void rq_flush_all(struct life *l);

#endif
