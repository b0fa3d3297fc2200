/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A storage stack to measure: eight mem: devices, a pool, a store, one VM with one volume behind the pipeline, and a generator
 * in place of the frontend that keeps `depth` requests in flight. Thread: one.
 */
#ifndef TESTS_BENCH_STACK_H
#define TESTS_BENCH_STACK_H

#include <signal.h>

#include "dpu/core/shard.h"
#include "dpu/pipeline/pipeline.h"
#include "tests/bench/nullflash.h"

#define STACK_DEVS 8u

struct stack_cfg {
	uint64_t dev_bytes;
	uint32_t dev_block; /* 512 or 4096 */
	uint64_t volume_bytes;
	enum volume_layout layout;
	bool protect; /* what table 204 says of the VM */
	bool per_request; /* the queue: a stripe per write */
	uint64_t map_bytes; /* 0: the default */
	uint32_t depth, io_bytes;
	uint64_t
		source_bytes; /* what is written comes from here; larger than the caches, or one I/O */
	bool null; /* the devices keep no zeros (nullflash.h), and what is written is zeros */
	bool random; /* places are drawn anew each time; otherwise each comes once before any comes again */
	bool manual_checkpoints;
	uint32_t segment_bytes; /* 0: the default */
	bool faulty; /* the devices are fault devices */
	uint64_t
		touched_bytes; /* of each device that will be used, so much of its memory is there before it is measured */
	unsigned int slice, slices; /* dev_bytes is one slice of so many of a device; 0: whole */
};

struct stack;
struct stack_req {
	struct io_req io;
	struct iovec iov;
	struct stack *stack;
	TAILQ_ENTRY(stack_req) link;
};

struct stack {
	struct stack_cfg cfg;
	struct shard *sh;
	struct nullflash *contents[STACK_DEVS]; /* with cfg.null */
	struct pool *pool;
	struct store *store;
	struct tables *tables;
	struct pipeline *pipeline;
	struct volume *vol;
	uint8_t *source;
	struct stack_req *reqs;
	TAILQ_HEAD(, stack_req) idle;
	uint64_t todo, in_flight, next, errors, rng;
	uint64_t open_cpu_ns; /* CPU time that the last opening of pool and store took */
	enum io_op op;
	bool in_order; /* offsets rise; otherwise they are scattered */
};

/* All of these end the program with a message when something goes wrong: there is nothing to measure then. */
void stack_open(struct stack *s, const struct stack_cfg *cfg);
void stack_close(struct stack *s);
/* With cfg.null: the process dies and another one opens the pool. */
void stack_kill_and_reopen(struct stack *s);
/* count writes; every block of the volume is written once before any is written again. */
void stack_write(struct stack *s, uint64_t count);
/* The same with reads, into the source buffer. */
void stack_read(struct stack *s, uint64_t count);
/* For reads whose CRC is checked and not checked in turns (read.c): one contents everywhere; then the shard's loop until *stop. */
void bench_read_prepare(struct stack *s);
void bench_read_serve(struct shard *sh, const volatile sig_atomic_t *stop);
void bench_die(const char *what, int rc) __attribute__((noreturn));

#endif
