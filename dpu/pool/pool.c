/* SPDX-License-Identifier: BSD-3-Clause */
/* The pool as a whole: what it is, its settings, its end. */
#include "dpu/pool/pool.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/pool/ckpt_priv.h"

const char *pool_dev_state_name(enum pool_dev_state s)
{
	static const char *const names[] = {"healthy", "failed", "missing", "suspect", "rebuilding",
		"evacuating", "spare", "removed"};

	return (unsigned int)s < ARRAY_LEN(names) ? names[s] : "?";
}

const struct pool_cfg *pool_cfg(const struct pool *p)
{
	return &p->sb.cfg;
}

const uint8_t *pool_uuid(const struct pool *p)
{
	return p->sb.pool_uuid;
}

const uint8_t *pool_key(const struct pool *p)
{
	return p->sb.key;
}

uint64_t pool_epoch(const struct pool *p)
{
	return p->sb.epoch;
}

const uint8_t *pool_owner(const struct pool *p)
{
	return p->sb.owner;
}

void pool_set_owner(struct pool *p, const uint8_t *id)
{
	memcpy(p->sb.owner, id, sizeof(p->sb.owner));
}

bool pool_is_lost(const struct pool *p, unsigned int *dev)
{
	if (dev)
		*dev = p->lost_dev;
	return p->lost;
}

uint32_t pool_block_bytes(const struct pool *p)
{
	return p->sb.block_bytes;
}

struct shard *pool_shard(const struct pool *p)
{
	return p->sh;
}

unsigned int pool_ndevs(const struct pool *p)
{
	return p->sb.ndevs;
}

const struct pool_dev *pool_dev(const struct pool *p, unsigned int dev)
{
	return dev < p->sb.ndevs ? &p->devs[dev] : NULL;
}

unsigned int pool_members(const struct pool *p)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < p->sb.ndevs; i++)
		n += p->devs[i].state != POOL_DEV_REMOVED;
	return n;
}

int pool_dev_find(const struct pool *p, const char *name)
{
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (p->devs[i].state != POOL_DEV_REMOVED && strcmp(p->devs[i].name, name) == 0)
			return (int)i;
	}
	return -ENOENT;
}

/* Sets of states: these two are asked for every device and write. */
#define USABLE                                                                         \
	(1u << POOL_DEV_HEALTHY | 1u << POOL_DEV_SUSPECT | 1u << POOL_DEV_REBUILDING | \
		1u << POOL_DEV_EVACUATING | 1u << POOL_DEV_SPARE)
#define PLACEABLE (USABLE & ~(1u << POOL_DEV_EVACUATING | 1u << POOL_DEV_SPARE))

bool pool_dev_usable(const struct pool *p, unsigned int dev)
{
	return dev < p->sb.ndevs && USABLE >> p->devs[dev].state & 1;
}

bool pool_dev_placeable(const struct pool *p, unsigned int dev)
{
	return dev < p->sb.ndevs && PLACEABLE >> p->devs[dev].state & 1;
}

int pool_set(struct pool *p, const struct pool_cfg *cfg, struct err *err)
{
	struct pool_cfg before = p->sb.cfg, want = *cfg;
	int rc;

	if (!p->writable)
		return err_set(err, -EINVAL, "pool", NULL, "is not open for writing");
	if (!want.segment_bytes)
		want.segment_bytes = before.segment_bytes;
	rc = pool_cfg_check(&want, pool_members(p), err);
	if (rc < 0)
		return rc;
	memcpy(want.uuid, before.uuid, sizeof(want.uuid));
	if (want.segment_bytes != before.segment_bytes)
		return err_set(err, -EINVAL, "pool", "segment size", "is fixed at creation (%u)",
			before.segment_bytes);
	p->sb.cfg = want;
	rc = sbwrite_sync(p, err);
	if (rc < 0)
		p->sb.cfg = before;
	return rc;
}

/* ---- beginning and end ------------------------------------------------------------------------------------------- */

struct pool *pool_new(struct shard *sh, struct err *err)
{
	struct pool *p = calloc(1, sizeof(*p));

	if (!p) {
		err_set(err, -ENOMEM, "pool", NULL, "no memory");
		return NULL;
	}
	p->sh = sh;
	p->reserve_meta = POOL_RESERVE_SEGMENTS;
	p->health_cfg = POOL_HEALTH_DEFAULT;
	TAILQ_INIT(&p->listeners);
	if (ckpt_open(p) < 0) {
		free(p);
		err_set(err, -ENOMEM, "pool", NULL, "no memory");
		return NULL;
	}
	return p;
}

void pool_free(struct pool *p)
{
	health_close(p);
	shard_undefer(p->sh, &p->changed_task);
	sbwrite_close(p);
	ckpt_close(p);
	pool_segments_close(p);
	free(p);
}
static bool ios_ended(void *arg)
{
	struct pool *p = arg;

	return !p->ios && !p->fences && !ckpt_busy(p) && !sbwrite_busy(p);
}

void pool_quiesce(struct pool *p)
{
	p->writable = false;
	/* Superblocks, the last writes of a checkpoint that came to nothing. */
	shard_wait(p->sh, ios_ended, p, 0);
}

int pool_wipe(struct pool *p, struct err *err)
{
	int rc = 0;

	pool_quiesce(p);
	if (p->lost)
		rc = err_set(err, -ESTALE, p->devs[p->lost_dev].name, NULL,
			"another host has taken the pool over");
	for (unsigned int i = 0; i < p->sb.ndevs && !p->lost; i++) {
		const struct pool_dev *d = &p->devs[i];
		int gone = pool_dev_usable(p, i) ? 0 : -EIO;

		for (unsigned int slot = 0; slot < 2 && !gone; slot++)
			gone = superblock_wipe(d->flash, slot);
		if (gone && rc == 0 && d->state != POOL_DEV_REMOVED)
			rc = err_set(err, -EIO, d->name, NULL, "its superblocks cannot be wiped");
	}
	pool_close(p);
	return rc;
}

void pool_close(struct pool *p)
{
	pool_quiesce(p);
	health_close(p);
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		struct flash *f = p->devs[i].flash;

		/* So that the next owner need not take it from us. */
		if (f && !p->lost && !flash_is_abandoned(f) && flash_unclaim(f, NULL) < 0)
			log_warn("pool %s: the reservation of %s could not be given back",
				p->sb.cfg.name, p->devs[i].name);
		if (f)
			flash_close(f);
		p->devs[i].flash = NULL;
	}
	pool_free(p);
}
