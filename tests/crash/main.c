/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash explorer (world.h).
 *
 *	SEED=n STATES=n JOBS=n crash        WORLD=n: only that one (to see a failure again)
 *
 * Every world is made from the seed and its number alone, so it does not matter which of the processes looks at it.
 */
#include <errno.h>
#include <assert.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "tests/crash/host.h"
#include "tests/crash/world.h"

#define U(x) ((unsigned long long)(x))

/* States of one world, without those inside of recoveries. In long runs some worlds are cut at every entry of their journal. */
#define WORLD_STATES 30u
#define EVERY_WORLD  16u
#define LONG_STATES  20000u
#define JOBS_MAX     64u

const char *const counter_names[COUNTERS] = {[C_APPEND] = "append",
	[C_RECORD] = "record",
	[C_ROOT] = "checkpoint root",
	[C_REUSE] = "segment reuse",
	[C_RECOVERY] = "recovery step",
	[C_FLIP] = "policy flip",
	[C_MOVER] = "mover install",
	[C_TRIM] = "trim",
	[C_DEV_LOSS] = "device loss",
	[C_DEV_RETURN] = "device return",
	[C_SEGMENT] = "segment header",
	[C_CHUNK] = "checkpoint piece",
	[C_SUPERBLOCK] = "superblock",
	[C_AREA] = "area write",
	[C_ZERO] = "zeroing",
	[C_VOLUME] = "volume change",
	[C_FLUSH] = "flush",
	[C_AFTER] = "life after recovery",
	[C_DEGRADED] = "degraded card"};

static struct world *current;

uint64_t rnd(struct world *w, uint64_t below)
{
	return next_random(&w->rng) % below;
}

bool one_in(struct world *w, uint64_t n)
{
	return rnd(w, n) == 0;
}

uint32_t world_unit(const struct world *w)
{
	return MAX(w->dev_block, w->atomic);
}

static void say_where(const struct world *w)
{
	printf("# world %llu (%s), state %llu; %u+%u on %u devices of %u-byte blocks, %u "
	       "atomic%s\n",
		U(w->number), profile_names[w->profile], U(w->state), w->k, w->m, w->ndevs,
		w->dev_block, w->atomic, w->volatile_cache ? ", volatile caches" : "");
	printf("# recovery %u, without devices %llx; pulled out %llx, not made whole %llx\n",
		w->depth + 1, U(w->missing), U(w->lost), U(w->thin));
	for (unsigned int d = 0; d <= w->depth; d++)
		printf("# recovery %u: %s\n", d + 1, w->trail[d]);
	printf("# after %llu states of %llu workloads\n", U(w->t->states + 1), U(w->t->worlds + 1));
	printf("# again: SEED=%llu WORLD=%llu\n", U(w->seed), U(w->number));
	fflush(stdout);
}

void fail(struct world *w, const char *fmt, ...)
{
	va_list ap;

	printf("not ok 1 - every state is recovered to what was promised\n# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
	say_where(w);
	exit(1);
}

/* An assertion of the stack, or worse: only to say where. */
static void aborted(int sig)
{
	if (current)
		say_where(current);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void world_begin(struct world *w, uint64_t seed, uint64_t number)
{
	static const unsigned int shapes[][2] = {{2, 1}, {4, 2}};
	unsigned int shape;

	w->seed = seed;
	w->number = number;
	w->rng = (seed + 1) * 0x9e3779b97f4a7c15ull + (number + 1) * 0xbf58476d1ce4e5b9ull + 1;
	for (int i = 0; i < 8; i++)
		rnd(w, 2);
	host_seed(w->rng);
	w->profile = (enum profile)(number % PROFILES);
	shape = (unsigned int)rnd(w, 2);
	w->k = shapes[shape][0];
	w->m = shapes[shape][1];
	w->ndevs = w->k + w->m + 1 + (unsigned int)rnd(w, 2);
	w->volatile_cache = !one_in(w, 4);
	w->dev_block = one_in(w, 3) ? 4096 : 512;
	w->atomic = w->dev_block == 512 && !one_in(w, 4) ? 512 : 4096;
	w->dev_bytes = (w->profile == WORK_FILL ? 16 + rnd(w, 6) : 20 + rnd(w, 8)) << 20;
	w->pool_cfg = (struct pool_cfg){.name = "crash",
		.scheme = {(uint8_t)w->k, (uint8_t)w->m},
		.segment_bytes = POOL_SEGMENT_MIN,
		.on_degraded = one_in(w, 2) ? POOL_DEGRADED_REFUSE : POOL_DEGRADED_ALLOW};
	w->buf = malloc((size_t)STILL_BLOCKS * 4096);
	if (!w->buf || image_open(&w->ran, NULL, w->ndevs, w->dev_bytes) < 0 ||
		image_open(&w->base, NULL, w->ndevs, w->dev_bytes) < 0)
		fail(w, "no memory");
}

static void world_end(struct world *w)
{
	image_close(&w->ran);
	image_close(&w->base);
	journal_clear(&w->j);
	free(w->buf);
	free(w);
}

static uint64_t env(const char *name, uint64_t def)
{
	const char *v = getenv(name);

	return v && *v ? strtoull(v, NULL, 0) : def;
}

static void run_world(
	struct totals *t, uint64_t seed, uint64_t number, bool longer, uint64_t enough)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		exit(1);
	w->t = t;
	current = w;
	world_begin(w, seed, number);
	work_run(w);
	explore(w, WORLD_STATES, longer && number % EVERY_WORLD == 5, enough);
	t->worlds++;
	t->profiles[w->profile]++;
	current = NULL;
	world_end(w);
}

/* Each of `jobs` processes takes every jobs-th world. */
static void run_worlds(
	struct totals *t, uint64_t seed, uint64_t states, unsigned int job, unsigned int jobs)
{
	uint64_t share = (states + jobs - 1) / jobs;

	for (uint64_t n = job; t->states < share; n += jobs)
		run_world(t, seed, n, states >= LONG_STATES, share);
}

static void add_up(struct totals *t, const struct totals *more)
{
	uint64_t *to = (uint64_t *)t;
	const uint64_t *from = (const uint64_t *)more;

	for (size_t i = 0; i < sizeof(*t) / sizeof(*to); i++)
		to[i] += from[i];
}
static_assert(sizeof(struct totals) % sizeof(uint64_t) == 0, "totals are numbers");

struct job {
	pid_t pid;
	int fd;
};

static struct job job_start(uint64_t seed, uint64_t states, unsigned int job, unsigned int jobs)
{
	struct totals t = {0};
	struct job j;
	int fd[2];

	fflush(stdout);
	if (pipe(fd) < 0 || (j.pid = fork()) < 0) {
		perror("crash");
		exit(1);
	}
	j.fd = fd[0];
	if (j.pid) {
		close(fd[1]);
		return j;
	}
	close(fd[0]);
	run_worlds(&t, seed, states, job, jobs);
	fflush(stdout);
	_exit(write(fd[1], &t, sizeof(t)) == (ssize_t)sizeof(t) ? 0 : 1);
}

/* The first that fails has said why: it ends the others. */
static bool run_jobs(struct totals *t, uint64_t seed, uint64_t states, unsigned int jobs)
{
	struct job j[JOBS_MAX];
	bool ok = true;
	int status;

	for (unsigned int i = 0; i < jobs; i++)
		j[i] = job_start(seed, states, i, jobs);
	for (unsigned int left = jobs; left; left--) {
		pid_t pid = wait(&status);

		if (pid < 0)
			return false;
		for (unsigned int i = 0; i < jobs; i++)
			if (j[i].pid == pid)
				j[i].pid = 0;
		if (status && ok)
			for (unsigned int i = 0; i < jobs; i++)
				if (j[i].pid)
					kill(j[i].pid, SIGKILL);
		ok &= status == 0;
	}
	for (unsigned int i = 0; i < jobs; i++) {
		struct totals more;

		if (ok && read(j[i].fd, &more, sizeof(more)) == (ssize_t)sizeof(more))
			add_up(t, &more);
		else
			ok = false;
		close(j[i].fd);
	}
	return ok;
}

static bool report(const struct totals *t)
{
	bool all = t->decoded && t->reappended && t->excused;

	printf("# %llu states of %llu workloads; %llu reads, %llu blocks decoded, %llu stripes "
	       "completed again, %llu unprotected blocks away with their device, %llu checks, %llu "
	       "checkpoints loaded\n",
		U(t->states), U(t->worlds), U(t->reads), U(t->decoded), U(t->reappended),
		U(t->excused), U(t->checks), U(t->loaded));
	printf("# %llu times the pool asked to be opened without devices of a recovery that was "
	       "cut\n",
		U(t->refused));
	printf("# workloads:");
	for (unsigned int p = 0; p < PROFILES; p++)
		printf(" %llu %s%s", U(t->profiles[p]), profile_names[p],
			p + 1 < PROFILES ? "," : "\n");
	for (unsigned int c = 0; c < COUNTERS; c++) {
		printf("# %-20s %8llu states%s\n", counter_names[c], U(t->kinds[c]),
			c < REQUIRED ? "" : " (besides)");
		all &= c >= REQUIRED || t->kinds[c] != 0;
	}
	return all;
}

int main(void)
{
	static const int fatal[] = {SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGILL};
	uint64_t seed = env("SEED", 1), states = env("STATES", 2500);
	uint64_t jobs = env("JOBS", (uint64_t)MAX(1, sysconf(_SC_NPROCESSORS_ONLN)));
	const char *only = getenv("WORLD");
	struct totals t = {0};
	bool all;

	log_init("crash", LOG_LEVEL_ERROR);
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (size_t i = 0; i < ARRAY_LEN(fatal); i++)
		signal(fatal[i], aborted);
	jobs = MIN(MAX(jobs, 1u), JOBS_MAX);
	printf("# SEED=%llu STATES=%llu JOBS=%llu\n", U(seed), U(states), U(jobs));
	if (only)
		run_world(&t, seed, env("WORLD", 0), states >= LONG_STATES, UINT64_MAX);
	else if (!run_jobs(&t, seed, states, (unsigned int)jobs))
		return 1;
	all = report(&t);
	printf("ok 1 - every state is recovered to what was promised\n");
	if (only)
		return 0;
	printf("%s 2 - the states cover every kind of event\n", all ? "ok" : "not ok");
	printf("1..2\n");
	return all ? 0 : 1;
}
