/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/model/rig.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/move.h"

uint64_t rnd(struct life *l, uint64_t below)
{
	l->rng ^= l->rng << 13;
	l->rng ^= l->rng >> 7;
	l->rng ^= l->rng << 17;
	return l->rng % below;
}

bool one_in(struct life *l, uint64_t n)
{
	return rnd(l, n) == 0;
}

unsigned int popcount(uint64_t x)
{
	return (unsigned int)__builtin_popcountll(x);
}

void fail(struct life *l, const char *fmt, ...)
{
	va_list ap;

	printf("not ok 1 - the storage stack agrees with its model\n# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n# life %llu, step %llu; %u+%u on %u devices of %u-byte blocks%s%s, dead %llx, "
	       "away %llx\n",
		(unsigned long long)l->number, (unsigned long long)l->step, l->k, l->m, l->ndevs,
		l->dev_block, l->volatile_cache ? ", volatile caches" : "",
		l->protected_only ? ", protected only" : "", (unsigned long long)l->dead,
		(unsigned long long)l->away);
	printf("# again: SEED=%llu LIFE=%llu STEPS=%llu\n", (unsigned long long)l->seed,
		(unsigned long long)l->number, (unsigned long long)l->steps);
	fflush(stdout);
	abort();
}

/* ---- devices -------------------------------------------------------------------------------------------------------- */

static void open_devs(struct life *l, uint64_t away)
{
	struct flash_opts o = {.block_bytes = l->dev_block, .atomic_bytes = l->dev_block};
	struct err e = {0};
	char addr[96];

	for (unsigned int d = 0; d < l->ndevs; d++) {
		l->f[d] = NULL;
		if (away >> d & 1)
			continue;
		snprintf(addr, sizeof(addr), "%smem:%llu,name=model%u",
			!l->faults          ? ""
			: l->volatile_cache ? "fault:volatile:"
					    : "fault:",
			(unsigned long long)l->dev_bytes, d);
		if (flash_open(l->sh, addr, &o, &l->f[d], &e) < 0)
			fail(l, "flash_open: %s", err_text(&e));
		if (l->dead >> d & 1)
			fault_set_gone(l->f[d], true);
	}
	l->away = away;
	l->ever_away |= away;
	l->armed = 0;
	l->hanging = false;
}

static unsigned int members(struct life *l, struct pool_member *mem)
{
	unsigned int n = 0;

	for (unsigned int d = 0; d < l->ndevs; d++) {
		if (!l->f[d] || l->dead >> d & 1)
			continue;
		snprintf(mem[n].name, sizeof(mem[n].name), "f%u", d);
		snprintf(mem[n].domain, sizeof(mem[n].domain), "node%u", d % 5);
		mem[n++].flash = l->f[d];
	}
	return n;
}

static struct store_cfg store_cfg_of(struct life *l, struct pool *p)
{
	struct store_cfg c = {.pool = p,
		.ec = EC_ISAL,
		.max_requests = 24,
		.buffer_bytes = 3 << 20,
		.map_bytes = 16 << 20};

	c.manual_checkpoints = one_in(l, 4);
	c.checkpoint_bytes = (1 + rnd(l, 16)) << 20;
	c.queue.group_commit = !one_in(l, 4);
	c.queue.max_bytes = (uint32_t)(4096 << rnd(l, 9));
	c.queue.max_count = (uint32_t)rnd(l, 9);
	c.queue.max_age_us = (uint32_t)(1 + rnd(l, 500));
	c.queue.per_request = one_in(l, 6);
	c.queue.per_vm = one_in(l, 4);
	return c;
}

static void open_mover(struct life *l)
{
	struct mover_cfg c = {
		.store = l->store, .limits = {.share_percent = (uint32_t)(10 + rnd(l, 300))}};
	struct mover_settings set;
	struct err e = {0};
	int rc = mover_open(&c, &l->mover);

	if (rc < 0)
		fail(l, "mover_open: %d", rc);
	mover_settings(l->mover, &set);
	set.rebuild_delay_s = (uint32_t)rnd(l, 3);
	set.scrub_interval_s = one_in(l, 2) ? 0 : (uint32_t)(1 + rnd(l, 100));
	set.auto_restore = one_in(l, 2);
	l->roams |= set.auto_restore;
	rc = mover_set(l->mover, &set, &e);
	if (rc < 0 && rc != -ENOSPC && rc != -EROFS && rc != -EIO)
		fail(l, "mover_set: %s", err_text(&e));
}

static void open_store(struct life *l, struct pool *p)
{
	struct store_cfg c = store_cfg_of(l, p);
	struct err e = {0};

	if (store_open(&c, &l->store, &e) < 0)
		fail(l, "store_open: %s", err_text(&e));
	l->checkpointing = false;
	open_mover(l);
	l->pulled_ns = shard_now_ns(l->sh); /* what was done before says nothing more */
}

/* ---- lives ------------------------------------------------------------------------------------------------------------ */

void life_begin(struct life *l, uint64_t seed, uint64_t number)
{
	static const unsigned int shapes[][2] = {{2, 1}, {4, 2}, {8, 3}, {1, 1}, {1, 2}};
	struct pool_cfg pc = {.name = "model", .segment_bytes = POOL_SEGMENT_MIN};
	struct pool_member mem[DEVS_MAX] = {0};
	struct err e = {0};
	struct pool *p;
	unsigned int shape;

	l->seed = seed;
	l->number = number;
	l->rng = (seed + 1) * 0x9e3779b97f4a7c15ull + number * 0xbf58476d1ce4e5b9ull + 1;
	for (int i = 0; i < 8; i++)
		rnd(l, 2);
	shape = (unsigned int)rnd(l, one_in(l, 4) ? 5 : 3);
	l->k = shapes[shape][0];
	l->m = shapes[shape][1];
	/* Room for the data area's device and for m devices to go, most of the time. */
	l->ndevs = l->k + l->m + (unsigned int)rnd(l, l->m + 2u) + 1;
	l->ndevs = MIN(MAX(l->ndevs, 2 * l->m + 2), DEVS_MAX);
	l->faults = !one_in(l, 6);
	l->volatile_cache = l->faults && !one_in(l, 4);
	l->protected_only = one_in(l, 3);
	l->dev_block = one_in(l, 2) ? 512 : 4096;
	l->dev_bytes = (24 + rnd(l, 40)) << 20;
	pc.scheme = (struct ec_scheme){(uint8_t)l->k, (uint8_t)l->m};
	pc.on_degraded = one_in(l, 2) ? POOL_DEGRADED_REFUSE : POOL_DEGRADED_ALLOW;
	pc.allow_data_device = one_in(l, 6);
	if (shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = l->rng | 1},
		    &l->sh) < 0)
		fail(l, "shard_open");
	open_devs(l, 0);
	if (pool_create(l->sh, &pc, mem, members(l, mem), false, &p, &e) < 0)
		fail(l, "pool_create: %s", err_text(&e));
	open_store(l, p);
	for (unsigned int i = 0; i < FLIGHT; i++) {
		l->rqs[i].l = l;
		l->rqs[i].buf = malloc(IO_MAX);
		if (!l->rqs[i].buf)
			fail(l, "no memory");
	}
	for (unsigned int i = 0; i < 1 + rnd(l, VOLS); i++)
		vol_create(l, &l->vols[i]);
}

static void add_stats(struct life *l)
{
	struct volume_stats st;

	for (unsigned int i = 0; i < VOLS; i++) {
		if (!l->vols[i].v)
			continue;
		volume_stats(l->vols[i].v, &st);
		l->sum.from_decode += st.from_decode;
		l->sum.from_log += st.from_log;
		l->sum.from_data += st.from_data;
		l->sum.from_intermediate += st.from_intermediate;
		l->sum.repaired += st.repaired;
		l->sum.media_errors += st.media_errors;
	}
	store_stats(l->store, &l->last);
	l->n_checkpoints += l->last.checkpoints;
	for (const struct mover_task *t = mover_task_next(l->mover, NULL); t;
		t = mover_task_next(l->mover, t))
		l->n_moved += t->moved_blocks;
}

static void close_store(struct life *l)
{
	add_stats(l);
	mover_close(l->mover);
	store_close(l->store);
	l->mover = NULL;
	l->store = NULL;
}

static void close_devs_left(struct life *l)
{
	/* The pool closed those it had; the dead were never given to it again. */
	for (unsigned int d = 0; d < l->ndevs; d++)
		l->f[d] = NULL;
}

void life_end(struct life *l)
{
	if (l->store) {
		life_drain(l);
		close_store(l);
	}
	close_devs_left(l);
	for (unsigned int i = 0; i < VOLS; i++)
		ref_close(&l->vols[i].ref);
	for (unsigned int i = 0; i < FLIGHT; i++)
		free(l->rqs[i].buf);
	shard_close(l->sh);
	flash_mem_forget(NULL);
}

void life_rounds(struct life *l, unsigned int n)
{
	while (n--)
		shard_run_once(l->sh);
}

#define DRAIN_TRIES 60u
#define DRAIN_NS    (60ull * 1000000000ull)
static bool is_drained(void *arg)
{
	return ((struct life *)arg)->flying == 0;
}

static void release_all(struct life *l)
{
	for (unsigned int d = 0; d < l->ndevs && l->faults; d++)
		if (l->f[d] && (l->armed >> d & 1)) {
			fault_rules_clear(l->f[d]);
			fault_release(l->f[d]);
		}
	l->armed = 0;
	l->hanging = l->rotten = false;
}

void life_drain(struct life *l)
{
	release_all(l);
	/* Where checkpoints are made when asked for only, somebody has to ask: requests may wait for the room that one gives back. */
	for (unsigned int i = 0; i < DRAIN_TRIES; i++) {
		if (shard_wait(l->sh, is_drained, l, DRAIN_NS) == 0)
			return;
		life_checkpoint(l);
	}
	fail(l, "%u requests do not end", l->flying);
}

/* ---- losing devices ------------------------------------------------------------------------------------------------------ */

/* The mover gave it another data flash, which older stripes may have fragments on. */
static void see_moved(struct vol *v)
{
	int now = volume_cfg(v->v)->data_dev;

	v->moved |= now != v->cfg.data_dev;
	v->cfg.data_dev = now;
}

/*
 * A volume may lose m devices that hold its stripes, and (copy) its data flash besides, which holds none. The pool's records are in
 * (its m) + 2 copies, and its m + 1 devices are needed to go on.
 */
bool may_lose(struct life *l, uint64_t devs)
{
	unsigned int lost = popcount(devs);
	struct store_stats st;

	store_stats(l->store, &st);
	l->thin_stripes |= st.log.short_stripes != 0;
	if (l->thin_stripes)
		return false; /* nothing more */
	if (lost > l->m + 1 || l->ndevs - lost < l->m + 1)
		return false;
	for (unsigned int i = 0; i < VOLS; i++) {
		struct vol *v = &l->vols[i];
		uint64_t d = devs;

		if (!v->v)
			continue;
		see_moved(v);
		if (v->cfg.layout == VOLUME_COPY && !v->moved &&
			!pool_cfg(store_pool(l->store))->allow_data_device)
			d &= ~(1ull << v->cfg.data_dev);
		if (popcount(d) > v->cfg.scheme.m)
			return false;
	}
	return true;
}

/* ---- reopening -------------------------------------------------------------------------------------------------------------- */

static void find_volumes(struct life *l)
{
	struct volume *v;
	unsigned int n = 0, want = 0;

	for (unsigned int i = 0; i < VOLS; i++) {
		struct vol *x = &l->vols[i];

		if (!x->v)
			continue;
		want++;
		x->v = volume_find(l->store, x->name);
		if (!x->v)
			fail(l, "volume %s is gone", x->name);
		see_moved(x);
		if (volume_cfg(x->v)->size_bytes != x->cfg.size_bytes ||
			memcmp(volume_cfg(x->v)->nguid, x->cfg.nguid, 16))
			fail(l, "volume %s came back as another", x->name);
	}
	for (v = volume_first(l->store); v; v = volume_next(v))
		n++;
	if (n != want)
		fail(l, "%u volumes came back, there were %u", n, want);
}

void life_reopen(struct life *l, enum reopen how, uint64_t away)
{
	struct pool_member mem[DEVS_MAX] = {0};
	struct flash *up[DEVS_MAX];
	struct err e = {0};
	struct pool *p;
	unsigned int n = 0;

	for (unsigned int d = 0; d < l->ndevs; d++)
		if (l->f[d] && !(l->dead >> d & 1))
			up[n++] = l->f[d];
	if (how == REOPEN_CLEAN || !l->faults) {
		how = REOPEN_CLEAN;
		life_drain(l);
		l->n_cleans++;
	} else if (how == REOPEN_KILL) {
		if (fault_process_kill(up, n) < 0)
			fail(l, "fault_process_kill");
		l->n_kills++;
	} else {
		if (fault_power_cut(up, n) < 0)
			fail(l, "fault_power_cut");
		l->n_cuts++;
	}
	/* What ends now, ends after the event: not acknowledged. */
	l->done = true;
	life_drain(l);
	l->done = false;
	close_store(l);
	close_devs_left(l);
	/* What was out when the card went down stays out. */
	l->dead |= l->pulled;
	l->pulled = 0;
	open_devs(l, away | l->dead);
	if (pool_open(l->sh, mem, members(l, mem), &p, &e) < 0)
		fail(l, "pool_open: %s", err_text(&e));
	open_store(l, p);
	find_volumes(l);
	verify_all(l, true, how == REOPEN_POWER);
}

/* ---- in the background ----------------------------------------------------------------------------------------------------- */

static void checkpointed(void *arg, int status)
{
	((struct life *)arg)->checkpointing = false;
}

void life_checkpoint(struct life *l)
{
	int rc;

	if (l->checkpointing)
		return;
	l->checkpointing = true;
	rc = store_checkpoint(l->store, checkpointed, l);
	if (rc < 0)
		fail(l, "store_checkpoint: %d", rc);
}

/* What a change of policy leaves to be moved. */
static bool change_policy(struct life *l, struct mover_job *job)
{
	struct vol *v = &l->vols[rnd(l, VOLS)];
	struct ec_scheme scheme = v->cfg.scheme;
	struct err e = {0};
	int rc = 0;

	if (!v->v)
		return false;
	job->volume = v->v;
	job->plain_too = one_in(l, 3);
	scheme.k = (uint8_t)(1 + rnd(l, l->k));
	if (one_in(l, 2))
		rc = volume_set_scheme(v->v, scheme, &e);
	else if (one_in(l, 2))
		rc = volume_set_layout(v->v,
			volume_cfg(v->v)->layout == VOLUME_COPY ? VOLUME_FRAGMENTS : VOLUME_COPY,
			&e);
	if (rc < 0 && rc != -ENOSPC && rc != -EROFS && rc != -EIO && rc != -EINVAL)
		fail(l, "a volume's policy does not change: %s", err_text(&e));
	l->n_schemes += rc == 0;
	see_moved(v);
	/* Stripes of its time without a full copy may lie on the data flash. */
	v->moved |= volume_cfg(v->v)->layout != v->cfg.layout;
	v->cfg = *volume_cfg(v->v);
	return rc == 0;
}

uint64_t life_area_devs(const struct life *l, const struct vol *v)
{
	return l->roams ? UINT64_MAX : v->area_devs;
}

uint64_t life_gone_devs(const struct life *l)
{
	uint64_t gone = l->dead | l->away | l->ever_pulled | (l->roams ? l->ever_away : 0);

	for (unsigned int d = 0; d < l->ndevs; d++)
		if (!pool_dev_usable(store_pool(l->store), d))
			gone |= 1ull << d;
	return gone;
}

void life_job(struct life *l)
{
	struct mover_job job = {
		.reason = (enum mover_reason)rnd(l, MOVER_REASONS), .dev = POOL_DEV_NONE};
	struct err e = {0};
	uint32_t id;
	int rc;

	if (job.reason == MOVER_EVACUATE || job.reason == MOVER_REBUILD)
		job.dev = (int)rnd(l, l->ndevs);
	/* Where nothing else could be lost, nothing is emptied: with the others it would be one less. */
	if (job.reason == MOVER_EVACUATE && (l->dead | l->away | l->pulled | l->suspect))
		return;
	if (job.reason == MOVER_PROTECT && !change_policy(l, &job))
		return;
	if (job.reason == MOVER_RESTORE) {
		job.volume = l->vols[rnd(l, VOLS)].v;
		if (!job.volume)
			return;
	}
	l->roams |= job.reason == MOVER_EVACUATE || job.reason == MOVER_RESTORE;
	rc = mover_start(l->mover, &job, &id, &e);
	if (rc == 0)
		l->n_jobs[job.reason]++;
	else if (rc != -EEXIST && rc != -EINVAL && rc != -ENOSPC && rc != -EBUSY && rc != -EROFS &&
		 rc != -EIO)
		fail(l, "mover_start %s: %s", mover_reason_name(job.reason), err_text(&e));
}

/* The last rebuild is done, and everything flushed after it. */
void life_whole(struct life *l)
{
	const struct mover_task *t, *rebuild = NULL;

	for (t = mover_task_next(l->mover, NULL); t; t = mover_task_next(l->mover, t)) {
		if (t->reason == MOVER_REBUILD && t->started_ns > l->pulled_ns)
			rebuild = t;
		if (t->reason == MOVER_REBUILD &&
			(t->state == MOVER_RUNNING || t->state == MOVER_WAITING))
			return;
	}
	if (!l->thin || !rebuild || rebuild->state != MOVER_DONE || rebuild->unrecoverable)
		return;
	rq_flush_all(l);
	l->thin = 0;
	l->n_whole++;
}
