/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash explorer (world.h).
 *
 *	SEED=n STATES=n crash        WORLD=n: only that one (to see a failure again)
 */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "tests/crash/world.h"

#define U(x) ((unsigned long long)(x))

/* States of one world, without those inside of recoveries. */
#define WORLD_STATES 60u

static const char *const counter_names[COUNTERS] = {"append", "record", "segment header",
	"superblock", "area write", "zeroing", "policy flip", "trim", "volume change", "flush",
	"recovery step", "life after recovery", "device loss", "device return"};

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
	printf("# world %llu, state %llu; %u+%u on %u devices of %u-byte blocks, %u atomic%s\n",
		U(w->number), U(w->state), w->k, w->m, w->ndevs, w->dev_block, w->atomic,
		w->volatile_cache ? ", volatile caches" : "");
	printf("# recovery %u, without devices %llx\n", w->depth + 1, U(w->missing));
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

/* An assertion of the stack: only to say where. */
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
	shape = (unsigned int)rnd(w, 2);
	w->k = shapes[shape][0];
	w->m = shapes[shape][1];
	w->ndevs = w->k + w->m + 1 + (unsigned int)rnd(w, 2);
	w->volatile_cache = !one_in(w, 4);
	w->dev_block = one_in(w, 3) ? 4096 : 512;
	w->atomic = w->dev_block == 512 && !one_in(w, 4) ? 512 : 4096;
	w->dev_bytes = 20ull << 20;
	w->pool_cfg = (struct pool_cfg){.name = "crash",
		.scheme = {(uint8_t)w->k, (uint8_t)w->m},
		.segment_bytes = POOL_SEGMENT_MIN,
		.on_degraded = one_in(w, 2) ? POOL_DEGRADED_REFUSE : POOL_DEGRADED_ALLOW};
	w->buf = malloc((size_t)VOL_BLOCKS * 4096);
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

static void run_world(struct totals *t, uint64_t seed, uint64_t number, uint64_t enough)
{
	struct world *w = calloc(1, sizeof(*w));

	if (!w)
		exit(1);
	w->t = t;
	current = w;
	world_begin(w, seed, number);
	work_run(w);
	explore(w, WORLD_STATES, enough);
	t->worlds++;
	current = NULL;
	world_end(w);
}

static bool report(const struct totals *t)
{
	bool all = true;

	printf("# %llu states of %llu workloads; %llu reads, %llu blocks decoded, %llu stripes "
	       "completed again, %llu unprotected blocks away with their device\n",
		U(t->states), U(t->worlds), U(t->reads), U(t->decoded), U(t->reappended),
		U(t->excused));
	printf("# %llu times the pool asked to be opened without devices of a recovery that was "
	       "cut\n",
		U(t->refused));
	for (unsigned int c = 0; c < COUNTERS; c++) {
		printf("# %-20s %8llu states\n", counter_names[c], U(t->kinds[c]));
		all &= t->kinds[c] != 0;
	}
	return all && t->decoded && t->reappended && t->excused;
}

int main(void)
{
	uint64_t seed = env("SEED", 1), states = env("STATES", 2500);
	const char *only = getenv("WORLD");
	struct totals t = {0};
	bool all;

	log_init("crash", LOG_LEVEL_ERROR);
	setvbuf(stdout, NULL, _IOLBF, 0);
	signal(SIGABRT, aborted);
	printf("# SEED=%llu STATES=%llu\n", U(seed), U(states));
	for (uint64_t n = only ? env("WORLD", 0) : 0; t.states < states; n++) {
		run_world(&t, seed, n, only ? UINT64_MAX : states);
		if (only)
			break;
	}
	all = report(&t);
	printf("ok 1 - every state is recovered to what was promised\n");
	if (only)
		return 0;
	printf("%s 2 - the states cover every kind of event\n", all ? "ok" : "not ok");
	printf("1..2\n");
	return all ? 0 : 1;
}
