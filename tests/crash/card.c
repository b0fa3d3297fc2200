/* SPDX-License-Identifier: BSD-3-Clause */
/* The shipped stack on recorded devices. */
#include <errno.h>
#include <stdio.h>

#include "dpu/volume/move.h"
#include "tests/crash/world.h"

static struct recorder_cfg device(
	struct world *w, struct card *c, struct image *im, struct journal *j, unsigned int dev)
{
	return (struct recorder_cfg){.sh = c->sh,
		.image = im,
		.journal = j,
		.dev = dev,
		.size_bytes = w->dev_bytes,
		.segment_bytes = w->pool_cfg.segment_bytes,
		.block_bytes = w->dev_block,
		.atomic_bytes = w->atomic,
		.volatile_cache = w->volatile_cache};
}

static unsigned int members(struct world *w, struct card *c, struct image *im, struct journal *j,
	uint64_t missing, struct pool_member *mem)
{
	unsigned int n = 0;

	for (unsigned int d = 0; d < w->ndevs; d++) {
		struct recorder_cfg rc = device(w, c, im, j, d);

		if (missing >> d & 1)
			continue;
		snprintf(mem[n].name, sizeof(mem[n].name), "f%u", d);
		snprintf(mem[n].domain, sizeof(mem[n].domain), "node%u", d % 5);
		if (recorder_open(&rc, &mem[n].flash) < 0)
			fail(w, "no memory");
		c->f[d] = mem[n++].flash;
	}
	return n;
}

/* Checkpoints by themselves, now and then so soon that what a recovery appends again is enough for one. */
static void store_up(struct world *w, struct card *c, struct pool *p, bool create)
{
	struct store_cfg sc = {.pool = p,
		.ec = EC_ISAL,
		.max_requests = 16,
		.buffer_bytes = 1 << 20,
		.map_bytes = 1 << 20,
		.manual_checkpoints = one_in(w, 4),
		.checkpoint_bytes = (1 + rnd(w, 8)) << 20};
	struct err e = {0};
	int rc;

	if (!create && sc.checkpoint_bytes == 1 << 20)
		sc.checkpoint_bytes = 64 << 10;
	sc.queue.group_commit = !one_in(w, 4);
	sc.queue.max_bytes = (uint32_t)(4096u << rnd(w, 6));
	sc.queue.max_count = (uint32_t)rnd(w, 5);
	sc.queue.max_age_us = 1 + (uint32_t)rnd(w, 100);
	sc.queue.per_request = one_in(w, 6);
	rc = store_open(&sc, &c->store, &e);
	if (rc < 0)
		fail(w, "the store does not open: %s", err_text(&e));
}

void card_mover_up(struct world *w, struct card *c)
{
	struct mover_limits limits = {.share_percent = (uint32_t)(20 + rnd(w, 500))};
	struct mover_settings set;
	struct err e = {0};

	if (mover_open(&(struct mover_cfg){.store = c->store, .limits = limits}, &c->mover) < 0)
		fail(w, "the mover does not open");
	mover_settings(c->mover, &set);
	set.rebuild_delay_s = (uint32_t)rnd(w, 2);
	set.scrub_interval_s = 0;
	set.auto_restore = one_in(w, 2);
	w->roams |= set.auto_restore;
	if (one_in(w, 2) && mover_set(c->mover, &set, &e) < 0 && e.code != -ENOSPC &&
		e.code != -EROFS)
		fail(w, "mover_set: %s", err_text(&e));
}

int card_up(struct world *w, struct card *c, struct image *im, struct journal *j, uint64_t missing,
	bool create, bool may_refuse)
{
	struct pool_member mem[IMAGE_DEVS_MAX] = {0};
	struct err e = {0};
	struct pool *p;
	unsigned int n;
	int rc;

	*c = (struct card){0};
	if (shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL,
			       .seed = next_random(&w->rng) | 1},
		    &c->sh) < 0)
		fail(w, "shard_open");
	n = members(w, c, im, j, missing, mem);
	rc = create ? pool_create(c->sh, &w->pool_cfg, mem, n, false, &p, &e)
		    : pool_open(c->sh, mem, n, &p, &e);
	if (rc == -EUCLEAN && may_refuse) {
		for (unsigned int i = 0; i < n; i++)
			flash_close(mem[i].flash);
		shard_close(c->sh);
		return rc;
	}
	if (rc < 0)
		fail(w, "the pool does not open: %s", err_text(&e));
	store_up(w, c, p, create);
	return 0;
}

void card_mover_down(struct card *c)
{
	if (c->mover)
		mover_close(c->mover);
	c->mover = NULL;
}

void card_down(struct card *c)
{
	card_mover_down(c);
	store_close(c->store);
	shard_close(c->sh);
}

/* ---- what a card does besides -------------------------------------------------------------------------------------- */

static void checkpointed(void *arg, int status)
{
	((struct card *)arg)->checkpointing = false;
}

void card_checkpoint(struct world *w, struct card *c)
{
	int rc;

	if (c->checkpointing)
		return;
	c->checkpointing = true;
	rc = store_checkpoint(c->store, checkpointed, c);
	if (rc < 0)
		fail(w, "store_checkpoint: %d", rc);
}

/* Where no checkpoint is made unasked, whoever waits for room waits for us. */
int card_wait(struct world *w, struct card *c, bool (*cond)(void *arg), void *arg)
{
	int rc = -ETIMEDOUT;

	for (unsigned int i = 0; i < 100 && rc == -ETIMEDOUT; i++) {
		rc = shard_wait(c->sh, cond, arg, 10000000000ull);
		if (rc == -ETIMEDOUT)
			card_checkpoint(w, c);
	}
	return rc;
}

static struct volume *any_volume(struct world *w, struct card *c)
{
	struct volume *v = volume_first(c->store);

	for (uint64_t i = rnd(w, VOLS_LIVE); v && i && volume_next(v); i--)
		v = volume_next(v);
	/* What nobody writes to meets nothing when it is moved. */
	if (v && volume_cfg(v)->size_bytes == STILL_BLOCKS * 4096 && volume_next(v))
		v = volume_next(v);
	return v;
}

/* Another scheme or layout for a volume, or protection for what has none: then everything of it is to be moved. */
static bool change_policy(struct world *w, struct card *c, struct mover_job *job)
{
	struct ec_scheme scheme = {(uint8_t)(1 + rnd(w, w->k)), (uint8_t)w->m};
	struct err e = {0};
	int rc = 0;

	job->volume = any_volume(w, c);
	if (!job->volume)
		return false;
	job->plain_too = one_in(w, 2);
	if (one_in(w, 2))
		rc = volume_set_scheme(job->volume, scheme, &e);
	else if (one_in(w, 2))
		rc = volume_set_layout(job->volume,
			volume_cfg(job->volume)->layout == VOLUME_COPY ? VOLUME_FRAGMENTS
								       : VOLUME_COPY,
			&e);
	return rc == 0;
}

uint64_t card_area_devs(const struct world *w, uint32_t vol)
{
	return w->roams ? (1ull << w->ndevs) - 1 : w->vols[vol].area_devs;
}

bool card_job(struct world *w, struct card *c, uint64_t lost)
{
	struct mover_job job = {.dev = POOL_DEV_NONE};
	struct err e = {0};
	uint32_t id;
	int rc;

	switch (rnd(w, 6)) {
	case 0:
		job.reason = MOVER_SCRUB;
		break;
	case 1:
		job.reason = MOVER_EVACUATE;
		job.dev = (int)rnd(w, w->ndevs);
		if (lost || w->empties || one_in(w, 2) ||
			!pool_dev_usable(store_pool(c->store), (unsigned int)job.dev))
			return false;
		w->roams = true;
		w->empties = 1ull << job.dev;
		break;
	case 2:
		job.reason = MOVER_REBUILD;
		job.dev = lost ? __builtin_ctzll(lost) : (int)rnd(w, w->ndevs);
		break;
	case 3:
		job.reason = MOVER_CLEAN;
		break;
	default:
		job.reason = MOVER_PROTECT;
		if (!change_policy(w, c, &job))
			return false;
		break;
	}
	rc = mover_start(c->mover, &job, &id, &e);
	if (rc < 0 && rc != -EEXIST && rc != -ENOSPC && rc != -EINVAL && rc != -EROFS &&
		rc != -EBUSY)
		fail(w, "mover_start %s: %s", mover_reason_name(job.reason), err_text(&e));
	return rc == 0;
}

bool card_jobs_rest(const struct card *c)
{
	for (const struct mover_task *t = mover_task_next(c->mover, NULL); t;
		t = mover_task_next(c->mover, t))
		if (t->reason != MOVER_CLEAN &&
			(t->state == MOVER_RUNNING || t->state == MOVER_WAITING))
			return false;
	return true;
}

bool card_return(
	struct world *w, struct card *c, struct image *im, struct journal *j, unsigned int dev)
{
	struct recorder_cfg rc = device(w, c, im, j, dev);
	struct flash *f;
	struct err e = {0};
	int res;

	if (recorder_open(&rc, &f) < 0)
		fail(w, "no memory");
	res = pool_dev_return(store_pool(c->store), dev, f, &e);
	if (res == 0) {
		c->f[dev] = f;
		return true;
	}
	flash_close(f);
	if (res != -EBUSY && res != -EINVAL)
		fail(w, "a device does not come back: %s", err_text(&e));
	return false;
}
