/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash explorer's parts. A world is a small pool, a random workload that ran on it once, and the journal of what it wrote and what
 * it acknowledged. From the journal come states: the power goes at some entry, some of what was not flushed is there, up to m devices are not.
 * Each is recovered with the shipped stack and compared with the ledger; and the recovery's own writes are cut in the same way.
 */
#ifndef TESTS_CRASH_WORLD_H
#define TESTS_CRASH_WORLD_H

#include "dpu/core/shard.h"
#include "dpu/volume/volume.h"
#include "tests/crash/recorder.h"
#include "tests/model/ref.h"

#define VOLS_EVER  10u /* volumes of a world, at any time */
#define VOLS_LIVE  3u
#define OPS_MAX    400u
#define VOL_BLOCKS 48u
#define IO_BLOCKS  24u
#define DEPTH_MAX  3u

/* What the journal says of the workload. */
enum user_ev {
	USER_BEGIN,
	USER_ACK,
	USER_FAIL,
	USER_CREATE,
	USER_CREATED,
	USER_DELETE,
	USER_DELETED
};

struct wop {
	enum io_op op;
	uint32_t flags, vol, ver;
	enum io_outcome outcome;
	uint64_t off_bytes, len_bytes;
	uint64_t first, n; /* sectors whose value changes */
	bool flip; /* changes how a block is kept */
	uint32_t began; /* ledger's clock */
};

enum vol_life { VOL_NOT_YET, VOL_CREATING, VOL_LIVE, VOL_DELETING, VOL_GONE };

/* A volume in the ledger, as far as the journal has been gone through. */
struct lvol {
	struct volume_cfg cfg;
	uint64_t area_devs;
	enum vol_life life;
	struct ref ref;
};

enum counter {
	C_APPEND,
	C_RECORD,
	C_SEGMENT,
	C_SUPERBLOCK,
	C_AREA,
	C_ZERO,
	C_FLIP,
	C_TRIM,
	C_VOLUME,
	C_FLUSH,
	C_RECOVERY,
	C_AFTER,
	C_DEV_LOSS,
	C_DEV_RETURN,
	COUNTERS
};

struct totals {
	uint64_t worlds, states, kinds[COUNTERS];
	uint64_t reads, decoded, reappended, excused, refused;
};

struct world {
	uint64_t seed, number, rng, state;
	unsigned int k, m, ndevs;
	bool volatile_cache;
	uint32_t dev_block, atomic;
	uint64_t dev_bytes;
	struct pool_cfg pool_cfg;
	struct journal j;
	struct image ran; /* what the workload left behind */
	struct image base; /* durable at the entry looked at */
	struct lvol vols[VOLS_EVER];
	unsigned int nvols;
	struct wop ops[OPS_MAX];
	unsigned int nops;
	uint32_t clock, in_flight_flips, in_flight_trims, in_flight_vols, in_flight_flushes;
	size_t first_cut; /* the pool exists from here on */
	unsigned int depth; /* of the recovery at hand, and the devices it has to do without */
	uint64_t missing;
	struct totals *t;
	uint8_t *buf;
};

/* Says what is wrong and how to see it again; ends the program. */
void fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
uint64_t rnd(struct world *w, uint64_t below); /* 0..below-1 */
bool one_in(struct world *w, uint64_t n);
uint32_t world_unit(const struct world *w); /* power loss tears there */

/* A card: the stack on a layer of devices. */
struct card {
	struct shard *sh;
	struct store *store;
};
/* missing: bit per device. create: formats. Fails the test where the stack does not come up; only with may_refuse the pool may
 * say -EUCLEAN, and that is returned. */
int card_up(struct world *w, struct card *c, struct image *im, struct journal *j, uint64_t missing,
	bool create, bool may_refuse);
void card_down(struct card *c);

void work_run(struct world *w);

/* The ledger. */
void ledger_begin(struct world *w);
void ledger_event(struct world *w, const struct event *e);
void ledger_end(struct world *w);

/* Every state that is chosen of it, until t->states is `enough`. */
void explore(struct world *w, uint64_t states, uint64_t enough);

#endif
