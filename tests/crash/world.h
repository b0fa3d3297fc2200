/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash explorer's parts. A world is a small pool, a workload that ran on it once, and the journal of what it wrote and what
 * it acknowledged. From the journal come states: the power goes at some entry, some of what was not flushed is there, up to m devices are not.
 * Each is recovered with the shipped stack, compared with the ledger and looked over by the offline checker; and the recovery's own writes
 * are cut in the same way.
 *
 *	work.c     what a workload does            card.c    the shipped stack on recorded devices
 *	ledger.c   what was asked and promised     verify.c  is what a recovered card says among it?
 *	explore.c  states, and states of recoveries    main.c    worlds on all cores, the report
 */
#ifndef TESTS_CRASH_WORLD_H
#define TESTS_CRASH_WORLD_H

#include "dpu/core/shard.h"
#include "dpu/mover/mover.h"
#include "dpu/volume/volume.h"
#include "tests/crash/recorder.h"
#include "tests/model/ref.h"

#define VOLS_EVER  10u /* volumes of a world, at any time */
#define VOLS_LIVE  3u
#define OPS_MAX    1600u
#define SIZES_MAX  32u
#define VOL_BLOCKS 64u
#define IO_BLOCKS  24u
/* Of a volume that is written once, block by block, and left alone. */
#define STILL_BLOCKS 128u
#define DEPTH_MAX    3u
#define LATER_MAX    5u

/* What the journal says of the workload. */
enum user_ev {
	USER_BEGIN, /* id: op */
	USER_ACK,
	USER_FAIL,
	USER_CREATE, /* id: volume */
	USER_CREATED,
	USER_DELETE,
	USER_DELETED,
	USER_GROW, /* id: of w->sizes */
	USER_GROWN,
	USER_DEV_LOST, /* id: device */
	USER_DEV_BACK,
	USER_DEVS_WHOLE, /* what was lost is made whole elsewhere, and flushed */
	USER_EVENTS
};

struct wop {
	enum io_op op;
	uint32_t flags, vol, ver;
	enum io_outcome outcome;
	uint64_t off_bytes, len_bytes;
	uint64_t first, n; /* sectors whose value changes */
	bool flip; /* changes how a block is kept */
	bool waited; /* while it was in flight somebody waited for room */
	bool flying; /* where the journal has been gone through to */
	uint32_t began; /* ledger's clock */
};

enum vol_life { VOL_NOT_YET, VOL_CREATING, VOL_LIVE, VOL_DELETING, VOL_GONE };

/* A volume in the ledger, as far as the journal has been gone through. */
struct lvol {
	struct volume_cfg cfg; /* as created */
	uint64_t area_devs;
	enum vol_life life;
	uint64_t size_bytes, next_bytes; /* they differ while it grows */
	struct ref ref;
};

struct new_size {
	uint32_t vol;
	uint64_t bytes;
};

/* What workloads are like. */
enum profile {
	WORK_RANDOM,
	WORK_SEQUENTIAL,
	WORK_OVERLAP,
	WORK_TRIM,
	WORK_FLIP,
	WORK_FILL, /* until segments come round again */
	WORK_DEVICES,
	PROFILES
};
extern const char *const profile_names[PROFILES];

/* Kinds of event a state can fall into. The first REQUIRED are those that have to be met. */
enum counter {
	C_APPEND,
	C_RECORD,
	C_ROOT,
	C_REUSE,
	C_RECOVERY,
	C_FLIP,
	C_MOVER,
	C_TRIM,
	C_DEV_LOSS,
	C_DEV_RETURN,
	REQUIRED,
	C_SEGMENT = REQUIRED,
	C_CHUNK,
	C_SUPERBLOCK,
	C_AREA,
	C_ZERO,
	C_VOLUME,
	C_FLUSH,
	C_AFTER,
	C_DEGRADED,
	COUNTERS
};
extern const char *const counter_names[COUNTERS];

struct totals {
	uint64_t worlds, states, kinds[COUNTERS], profiles[PROFILES];
	uint64_t reads, decoded, reappended, excused, refused, checks, loaded;
};

/* A card: the stack on a layer of devices. */
struct card {
	struct shard *sh;
	struct store *store;
	struct mover *mover;
	struct flash *f[IMAGE_DEVS_MAX]; /* NULL: not there; valid while the store has it */
	bool checkpointing;
};

struct world {
	uint64_t seed, number, rng, state;
	enum profile profile;
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
	struct new_size sizes[SIZES_MAX];
	unsigned int nsizes;
	uint32_t clock, in_flight[COUNTERS];
	uint64_t
		lost; /* devices that were pulled out and not put back, as far as the journal has been gone through */
	uint64_t thin; /* ... and put back, or not, but what they missed has not been made whole */
	uint64_t ever_lost; /* unprotected blocks that were on them may be given up */
	size_t first_cut; /* the pool exists from here on */
	bool roamed,
		roams; /* the mover may have put areas on other devices: in the workload; in the state at hand */
	uint64_t emptied,
		empties; /* devices that were or are being emptied take nothing new: one less to lose; as above */
	unsigned int depth; /* of the recovery at hand, and the devices it has to do without */
	uint64_t missing;
	char trail[DEPTH_MAX][96]; /* how it came to that, per recovery */
	struct totals *t;
	uint8_t *buf;
};

/* Says what is wrong and how to see it again; ends the program. */
void fail(struct world *w, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
uint64_t rnd(struct world *w, uint64_t below); /* 0..below-1 */
bool one_in(struct world *w, uint64_t n);
uint32_t world_unit(const struct world *w); /* power loss tears there */

/* missing: bit per device. create: formats. Fails the test where the stack does not come up; only with may_refuse the pool may
 * say -EUCLEAN, and that is returned. */
int card_up(struct world *w, struct card *c, struct image *im, struct journal *j, uint64_t missing,
	bool create, bool may_refuse);
void card_down(struct card *c);
/* The mover: not while a card is being looked over. */
void card_mover_up(struct world *w, struct card *c);
void card_mover_down(struct card *c);
/* Starts a checkpoint; c->checkpointing until it is over. It may fail, for lack of room or devices. */
void card_checkpoint(struct world *w, struct card *c);
/* As shard_wait(), for requests: with patience, and checkpoints now and then. */
int card_wait(struct world *w, struct card *c, bool (*cond)(void *arg), void *arg);
/* Devices that may hold unprotected blocks of a volume. */
uint64_t card_area_devs(const struct world *w, uint32_t vol);
/* Starts a job of some kind that this card could have: true when one runs now. */
bool card_job(struct world *w, struct card *c, uint64_t lost);
bool card_jobs_rest(const struct card *c); /* no task is under way, but for cleaning */
/* Puts a device back that had been pulled out. False: the pool does not want it yet (it is in use, still). */
bool card_return(
	struct world *w, struct card *c, struct image *im, struct journal *j, unsigned int dev);

void work_run(struct world *w);

/* ---- the ledger ---- */
void ledger_begin(struct world *w);
void ledger_event(struct world *w, struct event *e);
void ledger_end(struct world *w);

/* ---- states ---- */
#define MEDIA (-1) /* value of a sector that could not be read: its only place is away */

/* A write (FUA) or trim in the life after a recovery. */
struct later {
	uint32_t vol, ver;
	uint64_t first, n;
	size_t began, acked; /* entries of the stage's journal */
	bool unprotected, ok;
};

/*
 *	stage 0: the workload's journal, cut at some entry ─▶ contents ─▶ recovery, reading everything, some writes ─▶ its journal
 *	stage 1: that journal, cut ─▶ ...
 */
struct stage {
	struct image cut; /* what the power cut left */
	struct image view; /* and what was written on it since */
	struct journal j;
	size_t cut_at; /* entry of the journal of the stage before (0: of the workload) */
	enum fate_mode fates; /* what became of what was not durable */
	size_t opened, end;
	uint64_t missing;
	uint32_t present; /* volumes that were there after the recovery */
	uint64_t size_bytes[VOLS_EVER];
	int64_t val[VOLS_EVER][STILL_BLOCKS * SEC_PER_4K];
	struct later later[LATER_MAX];
	unsigned int nlater;
};

struct explorer {
	struct world *w;
	struct card card;
	struct replay main;
	unsigned int depth;
	uint32_t vers;
	struct stage st[DEPTH_MAX];
};

/* Reads all of the recovered card's volumes and compares. */
void verify_all(struct explorer *x);
/* The offline checker: map, stripes, groups and free space agree. Nothing else is under way. */
void verify_structure(struct explorer *x);

struct one {
	struct io_req req;
	struct iovec iov;
	bool done;
};
/* A request of len_bytes from or to w->buf, waited for. */
enum io_status run_one(struct explorer *x, struct volume *v, struct one *o);

/* `states` of it (every: at every entry of its journal), until t->states is `enough`. */
void explore(struct world *w, uint64_t states, bool every, uint64_t enough);

#endif
