/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two shards beside one: what the second core brings, over what it brings the bare loop that does the same passes over memory (they
 * share its bandwidth). Each shard is a thread on a CPU of its own, with its own stack on its own slice of the same eight devices, and the generator
 * in its loop.
 *
 * All four sides (bare and stack, alone and both at once) run in turns. Rates are of CPU time, as everywhere; two that ran at once count only where they really
 * did: neither waited for its CPU for more than a tenth of the time. On a machine so busy that this never was, all count, and it is said: what they
 * take from each other is shown too small then, of the stacks as of the bare loops.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/util.h"
#include "tests/bench/bench.h"
#include "tests/bench/pass.h"
#include "tests/bench/stack.h"

#define WORKERS      2u
#define SLICE_BYTES  (64ull << 20)
#define SLICES       6u
#define ROUNDS       5u /* with new stacks: the log is not cleaned */
#define DEPTH        32u
#define VOLUME_BYTES (128ull << 20)
/* It takes what both sides write, 1.5 times and headers. Of those that run alone each worker does every other. */
#define LOG_BYTES ((SLICES * SLICE_BYTES * 3 / 2 + VOLUME_BYTES) / STACK_DEVS * 7 / 4 + (96u << 20))
#define DEV_BYTES (VOLUME_BYTES + LOG_BYTES)
#define TARGET    0.85
#define QUIET     1.1 /* wall-clock time over CPU time */

enum work { WORK_BARE, WORK_STACK, WORK_RENEW, WORK_END };

struct worker {
	unsigned int index;
	int cpu;
	pthread_t thread;
	uint32_t io_bytes;
	struct bare bare;
	struct stack stack;
	/* one slice */
	enum work work;
	bool active;
	double rate; /* bytes per second of CPU time */
	double waited; /* wall-clock time over CPU time */
};

static struct worker workers[WORKERS];
static pthread_barrier_t begin, end;

/* ---- a thread ------------------------------------------------------------------------------------------------ */

static void open_stack(struct worker *w)
{
	struct stack_cfg cfg = {.dev_bytes = DEV_BYTES,
		.dev_block = 4096,
		.volume_bytes = VOLUME_BYTES,
		.layout = VOLUME_FRAGMENTS,
		.protect = true,
		.depth = DEPTH,
		.io_bytes = w->io_bytes,
		.source_bytes = VOLUME_BYTES,
		.touched_bytes = LOG_BYTES,
		.slice = w->index,
		.slices = WORKERS};

	stack_open(&w->stack, &cfg);
	/* The first writes of blocks change their state, which takes records; what is measured is the steady state. */
	stack_write(&w->stack, VOLUME_BYTES / w->io_bytes);
}

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

static void one_slice(struct worker *w)
{
	uint64_t wall = wall_ns(), cpu = bench_cpu_ns(), bytes = SLICE_BYTES;

	if (w->work == WORK_BARE)
		bytes = bare_protected(&w->bare);
	else
		stack_write(&w->stack, SLICE_BYTES / w->io_bytes);
	cpu = bench_cpu_ns() - cpu;
	wall = wall_ns() - wall;
	w->rate = (double)bytes * 1e9 / (double)cpu;
	w->waited = (double)wall / (double)cpu;
}

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (pthread_setaffinity_np(pthread_self(), sizeof(set), &set))
		bench_die("a CPU", EINVAL);
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;

	pin(w->cpu);
	if (bare_open(&w->bare, w->io_bytes, 128) < 0)
		bench_die("bare loop", ENOMEM);
	open_stack(w);
	for (;;) {
		pthread_barrier_wait(&begin);
		if (w->work == WORK_END)
			break;
		if (w->work == WORK_RENEW) {
			stack_close(&w->stack);
			open_stack(w);
		} else if (w->active) {
			one_slice(w);
		}
		pthread_barrier_wait(&end);
	}
	stack_close(&w->stack);
	bare_close(&w->bare);
	return NULL;
}

/* ---- the sides ------------------------------------------------------------------------------------------------- */

struct side {
	enum work work;
	bool both;
	double best, best_quiet; /* bytes per second */
};

static void run_side(struct side *s, unsigned int turn)
{
	double rate = 0, waited = 1;

	for (unsigned int i = 0; i < WORKERS; i++) {
		workers[i].work = s->work;
		workers[i].active = s->both || turn % WORKERS == i;
	}
	pthread_barrier_wait(&begin);
	pthread_barrier_wait(&end);
	for (unsigned int i = 0; i < WORKERS; i++) {
		if (!workers[i].active)
			continue;
		rate += workers[i].rate;
		waited = MAX(waited, workers[i].waited);
	}
	s->best = MAX(s->best, rate);
	if (!s->both || waited <= QUIET)
		s->best_quiet = MAX(s->best_quiet, rate);
}

/* How much more two do than one. */
static double scaling(const struct side *one, const struct side *two, bool quiet, const char *what)
{
	double alone = one->best, both = quiet ? two->best_quiet : two->best;

	fprintf(stderr, "  %-12s %8.3f GB/s alone, %8.3f GB/s two: %.2f\n", what, alone / 1e9,
		both / 1e9, both / alone);
	return both / alone;
}

static void start_workers(uint32_t io_bytes, const int *cpus)
{
	pthread_barrier_init(&begin, NULL, WORKERS + 1);
	pthread_barrier_init(&end, NULL, WORKERS + 1);
	for (unsigned int i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){.index = i, .cpu = cpus[i], .io_bytes = io_bytes};
		if (pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]))
			bench_die("a thread", ENOMEM);
	}
}

static void renew_stacks(void)
{
	for (unsigned int i = 0; i < WORKERS; i++)
		workers[i].work = WORK_RENEW;
	pthread_barrier_wait(&begin);
	pthread_barrier_wait(&end);
}

static void end_workers(void)
{
	for (unsigned int i = 0; i < WORKERS; i++)
		workers[i].work = WORK_END;
	pthread_barrier_wait(&begin);
	for (unsigned int i = 0; i < WORKERS; i++)
		pthread_join(workers[i].thread, NULL);
	pthread_barrier_destroy(&begin);
	pthread_barrier_destroy(&end);
}

static double compare(const char *size, uint32_t io_bytes, const int *cpus)
{
	struct side sides[] = {{.work = WORK_BARE}, {.work = WORK_STACK},
		{.work = WORK_BARE, .both = true}, {.work = WORK_STACK, .both = true}};
	double bare, stack;
	bool quiet;
	char name[64];

	fprintf(stderr, "shards.scaling.2, %s\n", size);
	start_workers(io_bytes, cpus);
	for (unsigned int turn = 0; turn < ROUNDS * SLICES; turn++) {
		if (turn && turn % SLICES == 0)
			renew_stacks();
		for (unsigned int i = 0; i < ARRAY_LEN(sides); i++)
			run_side(&sides[i], turn);
	}
	end_workers();
	flash_mem_forget(NULL);
	quiet = sides[2].best_quiet > 0 && sides[3].best_quiet > 0;
	if (!quiet)
		fprintf(stderr, "  the machine is busy: they hardly ran at once\n");
	bare = scaling(&sides[0], &sides[2], quiet, "bare loop");
	stack = scaling(&sides[1], &sides[3], quiet, "shards");
	snprintf(name, sizeof(name), "shards.bare.2.%s", size);
	bench_result(name, bare, "", BENCH_REPORT, 0);
	snprintf(name, sizeof(name), "shards.scaling.2.%s", size);
	bench_result(name, stack / bare, "", BENCH_AT_LEAST, TARGET);
	return stack / bare;
}

/* Two CPUs this process may use. */
static bool two_cpus(int *cpus)
{
	cpu_set_t set;
	unsigned int n = 0;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return false;
	for (int cpu = 0; cpu < CPU_SETSIZE && n < WORKERS; cpu++)
		if (CPU_ISSET(cpu, &set))
			cpus[n++] = cpu;
	return n == WORKERS;
}

void bench_shards(void)
{
	int cpus[WORKERS];
	double large, small;

	if (!two_cpus(cpus)) {
		fprintf(stderr, "shards.scaling.2: left out: it takes two CPUs\n");
		return;
	}
	large = compare("128k", 128u << 10, cpus);
	small = compare("4k", 4096, cpus);
	bench_result("shards.scaling.2", MIN(large, small), "", BENCH_AT_LEAST, TARGET);
}
