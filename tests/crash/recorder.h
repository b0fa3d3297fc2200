/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A flash back end that writes down what happens to it, and the device states that a power cut may leave behind.
 *
 * Recorder: a device on a layer of an image. Completions come late and out of order, by the shard's random numbers; a write lands where it
 * completes, not before. Each write and flush is entered in the journal where it is submitted and where it completes; the user of the
 * devices adds entries of its own. A device can be pulled out: what is in flight lands or does not, and nothing works until it is opened again.
 *
 * Replay: goes through a journal and knows, at each entry, what is durable: of a device without volatile cache what has
 * completed, of one with it what had completed before the submission of a flush that has completed. The rest may be there, or not, or in part.
 *
 * Thread: the shard's. Ownership: a device belongs to whoever it is given to (a pool); journal and image outlive it.
 */
#ifndef TESTS_CRASH_RECORDER_H
#define TESTS_CRASH_RECORDER_H

#include "dpu/flash/flash.h"
#include "tests/crash/image.h"

enum ev_kind {
	EV_WRITE,
	EV_WRITE_DONE,
	EV_WRITE_LOST, /* the device was pulled out before it landed */
	EV_FLUSH,
	EV_FLUSH_DONE,
	EV_USER
};

/* What a write is to the stack above, by its place and first bytes. */
enum ev_class {
	CLASS_SUPERBLOCK,
	CLASS_ROOT, /* of a checkpoint */
	CLASS_CHUNK, /* a piece of a checkpoint */
	CLASS_SEGMENT,
	CLASS_REUSE, /* the header of a segment that held something else before */
	CLASS_APPEND,
	CLASS_MOVED, /* an append nobody asked for: the ledger's to say */
	CLASS_RECORD,
	CLASS_AREA,
	CLASS_ZERO,
	CLASSES
};

struct event {
	uint8_t kind, dev, class;
	uint8_t user; /* EV_USER: the user's */
	uint32_t id; /* ..._DONE: the entry of the submission; EV_USER: the user's */
	uint64_t off, len;
	uint8_t *data; /* writes; NULL: zeros */
};

struct journal {
	struct event *ev;
	size_t n, cap;
	/* per device and segment: it has been written to (a bit each) */
	uint64_t used[IMAGE_DEVS_MAX];
};

void journal_user(struct journal *j, uint8_t user, uint32_t id);
void journal_clear(struct journal *j);

struct recorder_cfg {
	struct shard *sh;
	struct image *image;
	struct journal *journal;
	unsigned int dev;
	uint64_t size_bytes, segment_bytes;
	uint32_t block_bytes, atomic_bytes;
	bool volatile_cache;
};
int recorder_open(const struct recorder_cfg *cfg, struct flash **out);
/* Pulls it out. */
void recorder_lose(struct flash *f);

struct pend {
	uint32_t ev;
	bool done, durable;
	uint32_t done_at;
};

struct replay {
	const struct journal *j;
	struct image *base; /* receives what is durable */
	bool volatile_cache;
	size_t at; /* entries gone through */
	struct pend *pend; /* what is not in base yet */
	size_t npend, cap_pend;
};

void replay_begin(
	struct replay *r, const struct journal *j, struct image *base, bool volatile_cache);
void replay_step(struct replay *r);
void replay_end(struct replay *r);

enum fate_mode {
	FATES_ALL,
	FATES_NONE,
	FATES_RANDOM,
	FATES_TORN, /* each there, torn or not there */
	FATES_ALL_TORN, /* each in part, all of them at the same places */
	FATES_BY_DEV, /* all of some devices, nothing of the others */
	FATES_UNSEEN, /* the same, where those that have it are away at the next opening, and come back after it */
	FATE_MODES
};
/* Adds what the power cut left of the rest to `to`: base, or a layer on it. Torn at multiples of `unit`. unseen: devices, for that mode. */
void replay_cut(const struct replay *r, struct image *to, enum fate_mode mode, uint64_t unseen,
	uint32_t unit, uint64_t *rng);

uint64_t next_random(uint64_t *rng);

#endif
