/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The model test: random operations on the shipped storage stack, under virtual time, on devices that misbehave, against
 * a model that knows for each sector what a read may return (ref.h). Deterministic.
 *
 *	SEED=n STEPS=n model_test         LIFE=n: only that one (to see a failure again)
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "tests/model/rig.h"

#define STEPS_DEF   20000ull
#define STEPS_SHORT 6000ull
#define LIFE_STEPS  2500ull

static uint64_t env(const char *name, uint64_t def)
{
	const char *v = getenv(name);

	return v && *v ? strtoull(v, NULL, 0) : def;
}

/* ---- trouble ------------------------------------------------------------------------------------------------------- */

static int pick_up_dev(struct life *l)
{
	for (unsigned int tries = 0; tries < 50; tries++) {
		unsigned int d = (unsigned int)rnd(l, l->ndevs);

		if (l->f[d] && pool_dev_usable(store_pool(l->store), d) && !(l->dead >> d & 1))
			return (int)d;
	}
	return -1;
}

static uint64_t missing(struct life *l)
{
	return l->dead | l->away | l->suspect | l->thin;
}

/* A few operations of one device go wrong. Never more than the stack tries again, and never what unprotected data cannot survive. */
static void add_rule(struct life *l)
{
	int d = pick_up_dev(l);
	struct fault_rule r = {.any_op = true,
		.per_million = 1000000,
		.skip = (uint32_t)rnd(l, 20),
		.count = 1 + (uint32_t)rnd(l, 2)};

	if (d < 0 || l->armed >> d & 1)
		return;
	switch (rnd(l, 5)) {
	case 0:
		r.status = FLASH_ERR_TRANSIENT;
		break;
	case 1:
		r.delay_ns = 1 + rnd(l, 3000000);
		break;
	case 2: /* released in time, or the pool gives the device up */
		if (!may_lose(l, missing(l) | 1ull << d))
			return;
		l->suspect |= 1ull << d;
		r.delay_ns = UINT64_MAX;
		l->hanging = true;
		break;
	case 3: /* a bad place: writes of unprotected blocks fail, and the log gives the device up */
		if (!may_lose(l, missing(l) | 1ull << d))
			return;
		l->suspect |= 1ull << d;
		r.any_op = false;
		r.op = FLASH_WRITE;
		r.status = FLASH_ERR_MEDIA;
		break;
	default: /* rot: counts as a device that is gone, so there must be one to spare */
		if (!l->protected_only || l->rotten || !may_lose(l, missing(l) | 1ull << d))
			return;
		r.any_op = false;
		r.op = FLASH_READ;
		if (one_in(l, 2))
			r.corrupt = true;
		else
			r.status = FLASH_ERR_MEDIA;
		l->rotten = true;
		break;
	}
	if (fault_rule_add(l->f[d], &r) < 0)
		fail(l, "fault_rule_add");
	l->armed |= 1ull << d;
	l->n_rules++;
}

static void kill_dev(struct life *l)
{
	int d = pick_up_dev(l);

	if (d < 0 || l->rotten || !may_lose(l, missing(l) | 1ull << d))
		return;
	fault_set_gone(l->f[d], true);
	l->dead |= 1ull << d;
	l->n_gone++;
}

/* A cable comes loose, and somebody puts it back: with what had been written until then. */
static void pull_dev(struct life *l)
{
	int d = pick_up_dev(l);

	if (d < 0 || l->rotten || !may_lose(l, missing(l) | 1ull << d))
		return;
	fault_set_gone(l->f[d], true);
	l->pulled |= 1ull << d;
	l->thin |= 1ull << d;
	l->ever_pulled |= 1ull << d;
	l->pulled_ns = shard_now_ns(l->sh);
	l->n_pulls++;
}

static void return_dev(struct life *l)
{
	unsigned int d;
	struct err e = {0};
	int rc;

	if (!l->pulled)
		return;
	d = (unsigned int)__builtin_ctzll(l->pulled);
	if (pool_dev_usable(store_pool(l->store), d))
		return; /* nobody has noticed yet */
	fault_set_gone(l->f[d], false);
	rc = pool_dev_return(store_pool(l->store), d, NULL, &e);
	if (rc < 0) {
		if (rc != -EBUSY)
			fail(l, "device %u does not come back: %s", d, err_text(&e));
		fault_set_gone(l->f[d], true);
		return;
	}
	l->pulled &= ~(1ull << d);
	l->n_returns++;
}

static void reopen(struct life *l)
{
	uint64_t away = 0;

	/* Devices that are away come back or not; others may be away this time. */
	for (unsigned int i = 0; i < 2; i++) {
		uint64_t d = 1ull << rnd(l, l->ndevs);

		/* One that is pulled out now is dead from then on. */
		if (one_in(l, 3) && may_lose(l, l->dead | l->suspect | l->thin | away | d))
			away |= d;
	}
	life_reopen(l, (enum reopen)rnd(l, 3), away);
}

static void change_volumes(struct life *l)
{
	struct vol *v = &l->vols[rnd(l, VOLS)];

	life_drain(l);
	if (!v->v) {
		/* What is gone already must be within what it promises. */
		vol_create(l, v);
		if (v->v && !may_lose(l, missing(l)))
			vol_delete(l, v);
		return;
	}
	switch (rnd(l, 4)) {
	case 0:
		vol_delete(l, v);
		break;
	case 1:
		vol_move(l, v);
		break;
	default:
		vol_grow(l, v);
		break;
	}
}

/* ---- a life ----------------------------------------------------------------------------------------------------------- */

static void step(struct life *l)
{
	uint64_t what = rnd(l, 1000);

	if (what < 3)
		reopen(l);
	else if (what < 8)
		change_volumes(l);
	else if (what < 20 && l->faults)
		add_rule(l);
	else if (what < 22 && l->faults)
		kill_dev(l);
	else if (what < 30)
		life_drain(l);
	else if (what < 34)
		verify_all(l, false, false);
	else if (what < 40)
		life_checkpoint(l);
	else if (what < 46)
		life_job(l);
	else if (what < 48 && l->faults)
		pull_dev(l);
	else if (what < 54 && l->faults)
		return_dev(l);
	else if (what < 58)
		life_whole(l);
	else
		rq_random(l);
	life_rounds(l, (unsigned int)rnd(l, 6));
}

/* As much as may be lost is lost, and all that is protected is still there: in the running card and in one that starts. */
static void last_day(struct life *l)
{
	rq_flush_all(l);
	if (l->faults) {
		for (unsigned int tries = 0; tries < 100; tries++)
			kill_dev(l);
		verify_all(l, false, false);
		life_reopen(l, REOPEN_POWER, 0);
	} else {
		life_reopen(l, REOPEN_CLEAN, 0);
	}
	verify_all(l, false, false);
}

static uint64_t live(struct life *l, uint64_t seed, uint64_t number, uint64_t steps)
{
	life_begin(l, seed, number);
	for (l->step = 0; l->step < MIN(steps, LIFE_STEPS); l->step++)
		step(l);
	last_day(l);
	life_end(l);
	return l->step;
}

struct totals {
	uint64_t lives, steps, reads, writes[3], trims, flushes, cleans, kills, cuts, gone, rules,
		vols, no_space, media, retry, decoded, repaired, from_log, from_data, from_inter,
		checkpoints, jobs[MOVER_REASONS], moved, pulls, returns, whole, schemes;
};

static void add_up(struct totals *t, const struct life *l)
{
	t->lives++;
	t->steps += l->step;
	t->reads += l->n_reads;
	for (unsigned int i = 0; i < 3; i++)
		t->writes[i] += l->n_writes[i];
	t->trims += l->n_trims;
	t->flushes += l->n_flushes;
	t->cleans += l->n_cleans;
	t->kills += l->n_kills;
	t->cuts += l->n_cuts;
	t->gone += l->n_gone;
	t->rules += l->n_rules;
	t->vols += l->n_vols;
	t->no_space += l->n_no_space;
	t->media += l->n_media;
	t->retry += l->n_retry;
	t->checkpoints += l->n_checkpoints;
	for (unsigned int i = 0; i < MOVER_REASONS; i++)
		t->jobs[i] += l->n_jobs[i];
	t->moved += l->n_moved;
	t->pulls += l->n_pulls;
	t->returns += l->n_returns;
	t->whole += l->n_whole;
	t->schemes += l->n_schemes;
	t->decoded += l->sum.from_decode;
	t->repaired += l->sum.repaired;
	t->from_log += l->sum.from_log;
	t->from_data += l->sum.from_data;
	t->from_inter += l->sum.from_intermediate;
}

#define U(x) ((unsigned long long)(x))

static void print_totals(const struct totals *t)
{
	printf("# %llu lives, %llu steps: %llu reads, writes %llu plain %llu intermediate %llu "
	       "protected, %llu trims and zeroes, %llu flushes\n",
		U(t->lives), U(t->steps), U(t->reads), U(t->writes[0]), U(t->writes[1]),
		U(t->writes[2]), U(t->trims), U(t->flushes));
	printf("# reopened: %llu clean, %llu after a kill, %llu after power loss; %llu devices "
	       "lost, %llu faults, %llu volumes\n",
		U(t->cleans), U(t->kills), U(t->cuts), U(t->gone), U(t->rules), U(t->vols));
	printf("# blocks read: %llu data area, %llu log, %llu decoded, %llu intermediate; %llu "
	       "repaired; refused: %llu no space, %llu media, %llu retry\n",
		U(t->from_data), U(t->from_log), U(t->decoded), U(t->from_inter), U(t->repaired),
		U(t->no_space), U(t->media), U(t->retry));
}

static void print_background(const struct totals *t)
{
	printf("# %llu checkpoints; %llu blocks moved; jobs asked for:", U(t->checkpoints),
		U(t->moved));
	for (unsigned int i = 0; i < MOVER_REASONS; i++)
		printf(" %llu %s", U(t->jobs[i]), mover_reason_name((enum mover_reason)i));
	printf("\n# devices pulled out: %llu, put back: %llu, made whole elsewhere: %llu; volumes "
	       "that changed scheme or layout: %llu\n",
		U(t->pulls), U(t->returns), U(t->whole), U(t->schemes));
}

/* A run that never met what it is for proves nothing. */
static bool all_seen(const struct totals *t)
{
	return t->writes[0] && t->writes[1] && t->writes[2] && t->trims && t->flushes &&
	       t->cleans && t->kills && t->cuts && t->gone && t->rules && t->decoded &&
	       t->from_log && t->from_data && t->from_inter && t->repaired && t->checkpoints &&
	       t->moved && t->pulls && t->returns && t->schemes;
}

int main(void)
{
	uint64_t seed = env("SEED", 1),
		 steps = env("STEPS", getenv("PARAPET_SHORT") ? STEPS_SHORT : STEPS_DEF);
	const char *only = getenv("LIFE");
	struct totals t = {0};
	bool seen;

	log_init("model", LOG_LEVEL_ERROR);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("# SEED=%llu STEPS=%llu\n", U(seed), U(steps));
	for (uint64_t n = only ? env("LIFE", 0) : 0; t.steps < steps; n++) {
		struct life *l = calloc(1, sizeof(*l));

		if (!l)
			return 1;
		l->steps = steps;
		live(l, seed, n, steps);
		add_up(&t, l);
		free(l);
		if (only)
			break;
	}
	print_totals(&t);
	print_background(&t);
	printf("ok 1 - the storage stack agrees with its model\n");
	if (only)
		return 0;
	seen = all_seen(&t);
	printf("%s 2 - the run met every kind of operation, failure and reopening\n",
		seen ? "ok" : "not ok");
	printf("1..2\n");
	return seen ? 0 : 1;
}
