/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a member: states, coming, going, coming back.
 *
 * Every change goes into the superblocks in the background (sbwrite.c). What is remembered over an opening (open.c): failed, evacuating, rebuilding, spare.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/pool/ckpt_priv.h"
#include "dpu/pool/lineage.h"

static void tell_listeners(void *arg)
{
	struct pool *p = arg;
	struct pool_listener *l;

	while (p->changed) {
		unsigned int dev = (unsigned int)__builtin_ctzll(p->changed);

		p->changed &= p->changed - 1;
		for (l = TAILQ_FIRST(&p->listeners); l; l = p->next_listener) {
			p->next_listener = TAILQ_NEXT(l, link);
			l->changed_fn(l->arg, dev);
		}
	}
}

void pool_tell(struct pool *p, unsigned int dev)
{
	p->changed |= 1ull << dev;
	shard_defer(p->sh, &p->changed_task, tell_listeners, p);
}

static void dev_is_now(struct pool *p, unsigned int dev, enum pool_dev_state state)
{
	p->devs[dev].state = state;
	p->room_version++;
	if (pool_dev_usable(p, dev))
		p->devs[dev].cause = POOL_CAUSE_NONE;
	pool_tell(p, dev);
	sbwrite_kick(p);
}

void pool_dev_fail(struct pool *p, unsigned int dev)
{
	if (pool_dev_usable(p, dev))
		pool_dev_fail_for(p, dev, POOL_CAUSE_UNREACHABLE);
}

void pool_dev_fail_for(struct pool *p, unsigned int dev, enum pool_cause cause)
{
	if (dev >= p->sb.ndevs || p->devs[dev].state == POOL_DEV_REMOVED)
		return;
	if (!pool_dev_usable(p, dev)) {
		p->devs[dev].cause = cause;
		sbwrite_kick(p);
		return;
	}
	/* What it cannot do now is not its fault. */
	if (p->lost && cause != POOL_CAUSE_OPERATOR)
		return;
	p->devs[dev].cause = cause;
	p->devs[dev].errors++;
	p->devs[dev].failures++;
	dev_is_now(p, dev, POOL_DEV_FAILED);
}

int pool_dev_set_state(struct pool *p, unsigned int dev, enum pool_dev_state state, struct err *err)
{
	enum pool_dev_state now = dev < p->sb.ndevs ? p->devs[dev].state : POOL_DEV_REMOVED;

	if (state == POOL_DEV_FAILED && pool_dev_usable(p, dev)) {
		pool_dev_fail(p, dev);
		return 0;
	}
	if (!pool_dev_usable(p, dev) || state == POOL_DEV_FAILED || state == POOL_DEV_MISSING ||
		state == POOL_DEV_REMOVED)
		return err_set(err, -EINVAL, dev < p->sb.ndevs ? p->devs[dev].name : "flash",
			"state", "%s cannot become %s", pool_dev_state_name(now),
			pool_dev_state_name(state));
	if (state == POOL_DEV_SPARE && now != state && pool_dev_in_use(p, dev))
		return err_set(err, -EBUSY, p->devs[dev].name, "state",
			"%u segments are in use: evacuate it first", pool_dev_in_use(p, dev));
	if (state != now)
		dev_is_now(p, dev, state);
	return 0;
}

void pool_on_dev_change(struct pool *p, struct pool_listener *l,
	void (*changed_fn)(void *arg, unsigned int dev), void *arg)
{
	l->changed_fn = changed_fn;
	l->arg = arg;
	TAILQ_INSERT_TAIL(&p->listeners, l, link);
}

void pool_listener_del(struct pool *p, struct pool_listener *l)
{
	if (!l->changed_fn)
		return;
	if (p->next_listener == l)
		p->next_listener = TAILQ_NEXT(l, link);
	TAILQ_REMOVE(&p->listeners, l, link);
	l->changed_fn = NULL;
}

uint32_t pool_dev_in_use(const struct pool *p, unsigned int dev)
{
	const struct pool_dev *d = &p->devs[dev];

	/* All but the first, which holds the superblocks. */
	return d->nsegments ? d->nsegments - 1 - d->free_segments : 0;
}

/* ---- coming ---------------------------------------------------------------------------------------------------------- */

static int slot_for_new(const struct pool *p)
{
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (p->devs[i].state == POOL_DEV_REMOVED)
			return (int)i;
	}
	return p->sb.ndevs < POOL_DEVS_MAX ? (int)p->sb.ndevs : -ENOSPC;
}

/* Is it one of ours? A present member must not be added twice, nor a missing one be lost by it. */
static int new_is_no_member(
	struct pool *p, const struct pool_member *m, bool *was_ours, struct err *err)
{
	struct superblock *sb = malloc(sizeof(*sb));
	int rc;

	if (!sb)
		return err_set(err, -ENOMEM, m->name, NULL, "no memory");
	rc = superblock_read(m->flash, sb, NULL);
	*was_ours = rc == 0 && memcmp(sb->key, p->sb.key, 16) == 0;
	if (*was_ours && sb->dev < p->sb.ndevs && p->devs[sb->dev].state != POOL_DEV_REMOVED &&
		memcmp(sb->members[sb->dev].uuid, p->sb.members[sb->dev].uuid, 16) == 0)
		rc = err_set(err, -EEXIST, m->name, NULL, "is member %s of this pool",
			p->devs[sb->dev].name);
	else
		rc = 0;
	free(sb);
	return rc;
}

/* Several at once: each is a round trip to a device that may be on a peer. */
#define WIPES 32u

struct wiping {
	struct pool *p;
	struct flash *f;
	uint32_t next, nsegments, in_flight, len;
	bool failed;
	struct flash_io io[WIPES];
};

static void wipe_done(struct flash_io *io);

static void wipe_next(struct wiping *w, struct flash_io *io)
{
	if (w->failed || w->next == w->nsegments)
		return;
	*io = (struct flash_io){.op = FLASH_WRITE_ZEROES,
		.off = pool_segment_off(w->p, w->next++),
		.len = w->len,
		.done_fn = wipe_done,
		.arg = w};
	if (flash_submit(w->f, io) < 0)
		w->failed = true;
	else
		w->in_flight++;
}

static void wipe_done(struct flash_io *io)
{
	struct wiping *w = io->arg;

	w->in_flight--;
	w->failed |= io->status != FLASH_OK;
	wipe_next(w, io);
}

static bool wipe_is_over(void *arg)
{
	return !((struct wiping *)arg)->in_flight;
}

/* Headers of log segments it holds from a time when it was a member could be taken for its own. */
static int old_headers_wipe(struct pool *p, struct flash *f, uint32_t nsegments)
{
	uint32_t len = MAX(4096u, flash_info(f)->block_bytes);
	struct wiping w = {.p = p, .f = f, .next = 1, .nsegments = nsegments, .len = len};
	int rc;

	for (uint32_t i = 0; i < MIN(WIPES, flash_info(f)->depth) && nsegments > 1; i++)
		wipe_next(&w, &w.io[i]);
	rc = shard_wait(p->sh, wipe_is_over, &w, 0);
	if (rc == 0 && w.failed)
		rc = -EIO;
	for (unsigned int slot = 0; rc == 0 && slot < 2; slot++)
		rc = flash_rw_sync(f, FLASH_WRITE_ZEROES, ckpt_root_off(slot), NULL, len);
	return rc;
}

static void member_fill(struct pool *p, struct sb_member *sm, const struct pool_member *m)
{
	uint64_t size = flash_info(m->flash)->size_bytes;

	memset(sm, 0, sizeof(*sm));
	memcpy(sm->name, m->name, sizeof(sm->name));
	memcpy(sm->domain, m->domain, sizeof(sm->domain));
	sm->size_bytes = size;
	sm->cut_bytes = flash_info(m->flash)->cut_bytes;
	sm->nsegments = (uint32_t)MIN(size / p->sb.cfg.segment_bytes, POOL_SEGMENTS_MAX);
}

static void slot_empty(struct pool *p, unsigned int dev)
{
	struct pool_dev *d = &p->devs[dev];

	free(p->use[dev]);
	p->use[dev] = NULL;
	memset(d, 0, sizeof(*d));
	d->state = POOL_DEV_REMOVED;
	memset(&p->sb.members[dev], 0, sizeof(p->sb.members[dev]));
	p->sb.members[dev].state = POOL_DEV_REMOVED;
	p->ckpt->slot[dev] = -1;
	p->held[dev] = 0;
	p->room_version++;
}

/*
 * The newcomer first: cut off after that, its superblock is the newest and says that it is a member, which the others learn; without it they
 * do not know of it, and it counts as no member when it shows up. The other way round the others would miss a device that has no superblock.
 */
static int newcomer_write(struct pool *p, unsigned int dev, struct err *err)
{
	struct superblock *sb = malloc(sizeof(*sb));
	uint8_t *buf = mem_alloc(SB_BYTES);
	struct flash *f = p->devs[dev].flash;
	int rc = sb && buf ? 0 : -ENOMEM;

	if (rc == 0)
		rc = superblock_wipe(f, p->sb_slot[dev]);
	if (rc == 0) {
		*sb = p->sb;
		sb->generation = ++p->sb.generation;
		sb->dev = dev;
		superblock_build(sb, buf);
		rc = flash_rw_sync(f, FLASH_WRITE,
			(p->sb_slot[dev] ^ 1u) * (uint64_t)SB_SLOT_STRIDE, buf, SB_BYTES);
	}
	if (rc == 0)
		rc = flash_rw_sync(f, FLASH_FLUSH, 0, NULL, 0);
	p->sb_slot[dev] ^= 1;
	if (buf)
		mem_free(buf, SB_BYTES);
	free(sb);
	return rc ? err_set(err, rc, p->devs[dev].name, NULL, "cannot be written") : 0;
}

static int newcomer_join(
	struct pool *p, unsigned int dev, const struct pool_member *m, bool spare, struct err *err)
{
	struct sb_member *sm = &p->sb.members[dev];
	int rc;

	member_fill(p, sm, m);
	if (getrandom(sm->uuid, sizeof(sm->uuid), 0) != sizeof(sm->uuid))
		return err_set(err, -EIO, m->name, NULL, "no random numbers");
	sm->state = spare ? POOL_DEV_SPARE : POOL_DEV_HEALTHY;
	p->sb.ndevs = MAX(p->sb.ndevs, dev + 1);
	/* Not usable before its superblock is there. */
	rc = pool_dev_init(p, dev, m->flash);
	if (rc < 0)
		return err_set(err, rc, m->name, NULL, "no memory");
	p->devs[dev].state = POOL_DEV_MISSING;
	rc = newcomer_write(p, dev, err);
	if (rc < 0)
		return rc;
	p->devs[dev].epoch_seen = p->sb.epoch;
	dev_is_now(p, dev, spare ? POOL_DEV_SPARE : POOL_DEV_HEALTHY);
	rc = sbwrite_sync(p, err);
	if (rc == 0 && !pool_dev_usable(p, dev))
		rc = err_set(err, -EIO, m->name, NULL, "cannot be written");
	return rc;
}

static int newcomer_check(
	struct pool *p, const struct pool_member *m, bool force, bool *was_ours, struct err *err)
{
	int rc = pool_slice_fits(&p->sb, m->flash, m->name, err);

	if (rc == 0)
		rc = new_is_no_member(p, m, was_ours, err);
	if (rc == 0)
		rc = pool_member_check(m, p->sb.cfg.segment_bytes, force, p->sb.block_bytes, err);
	if (rc < 0)
		return rc;
	if (pool_dev_find(p, m->name) >= 0)
		return err_set(err, -EEXIST, m->name, "name", "is that of another member");
	if (!p->writable)
		return err_set(err, -EINVAL, "pool", NULL, "is not open for writing");
	return 0;
}

int pool_dev_add(struct pool *p, const struct pool_member *m, bool spare, bool force,
	unsigned int *dev, struct err *err)
{
	unsigned int ndevs = p->sb.ndevs;
	bool was_ours = false;
	int slot, rc = newcomer_check(p, m, force, &was_ours, err);

	if (rc < 0)
		return rc;
	slot = slot_for_new(p);
	if (slot < 0)
		return err_set(
			err, slot, m->name, NULL, "a pool has %u members at most", POOL_DEVS_MAX);
	if (was_ours &&
		old_headers_wipe(p, m->flash,
			(uint32_t)MIN(flash_info(m->flash)->size_bytes / p->sb.cfg.segment_bytes,
				POOL_SEGMENTS_MAX)) < 0)
		return err_set(err, -EIO, m->name, NULL, "cannot be written");
	rc = newcomer_join(p, (unsigned int)slot, m, spare, err);
	if (rc < 0) {
		/* The caller's again. Superblocks that name it do no harm: the next round takes it out of them. */
		health_detach(p, (unsigned int)slot);
		p->devs[slot].flash = NULL;
		slot_empty(p, (unsigned int)slot);
		p->sb.ndevs = ndevs;
		sbwrite_kick(p);
		return rc;
	}
	*dev = (unsigned int)slot;
	return 0;
}

/* ---- going ----------------------------------------------------------------------------------------------------------- */

static int leave_check(const struct pool *p, unsigned int dev, struct err *err)
{
	unsigned int width = p->sb.cfg.scheme.k + p->sb.cfg.scheme.m, usable = 0;
	const struct pool_dev *d = &p->devs[dev];

	for (unsigned int i = 0; i < p->sb.ndevs; i++)
		usable += i != dev && pool_dev_usable(p, i);
	if (pool_dev_in_use(p, dev))
		return err_set(err, -EBUSY, d->name, NULL, "%u segments are in use",
			pool_dev_in_use(p, dev));
	if (pool_members(p) - 1 < width || (pool_dev_usable(p, dev) && usable < width))
		return err_set(err, -EINVAL, d->name, NULL,
			"%u+%u needs %u usable members, %u would be left", p->sb.cfg.scheme.k,
			p->sb.cfg.scheme.m, width, usable);
	if (d->flash && flash_in_flight(d->flash))
		return err_set(err, -EBUSY, d->name, NULL, "I/O is in flight");
	return 0;
}

static bool is_idle(void *arg)
{
	return !flash_in_flight(arg);
}

int pool_dev_remove(struct pool *p, unsigned int dev, struct err *err)
{
	struct pool_dev before;
	struct sb_member member;
	int rc;

	if (dev >= p->sb.ndevs || p->devs[dev].state == POOL_DEV_REMOVED)
		return err_set(err, -EINVAL, "flash", NULL, "there is no member %u", dev);
	if (!p->writable)
		return err_set(err, -EINVAL, "pool", NULL, "is not open for writing");
	rc = leave_check(p, dev, err);
	if (rc < 0)
		return rc;
	before = p->devs[dev];
	member = p->sb.members[dev];
	health_detach(p, dev);
	memset(&p->sb.members[dev], 0, sizeof(p->sb.members[dev]));
	/* Nothing goes to it from here on, though it is still ours. */
	dev_is_now(p, dev, POOL_DEV_REMOVED);
	rc = sbwrite_sync(p, err);
	if (rc < 0) {
		p->sb.members[dev] = member;
		p->devs[dev] = before;
		health_attach(p, dev);
		dev_is_now(p, dev, before.state);
		return rc;
	}
	/* The others do not count it any more: what it says of itself is only in the way. */
	if (before.flash) {
		shard_wait(p->sh, is_idle, before.flash, 0); /* a probe */
		for (unsigned int slot = 0; slot < 2 && before.state != POOL_DEV_FAILED; slot++)
			(void)superblock_wipe(before.flash, slot);
		if (!flash_is_abandoned(before.flash))
			(void)flash_unclaim(before.flash, NULL);
		flash_close(before.flash);
	}
	slot_empty(p, dev);
	return 0;
}

/* ---- coming back ------------------------------------------------------------------------------------------------------- */

/* Its superblock against ours, as if all of us were opened together. */
static int return_judge(
	struct pool *p, unsigned int dev, const struct superblock *sb, bool intact, struct err *err)
{
	struct claim c[POOL_DEVS_MAX + 1];
	unsigned int n = 0;

	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (i != dev && pool_dev_usable(p, i))
			c[n++] = (struct claim){
				.sb = &p->sb, .uuid = p->sb.members[i].uuid, .intact = true};
	}
	c[n] = (struct claim){.sb = sb, .uuid = p->sb.members[dev].uuid, .intact = intact};
	if (lineage_judge(c, n + 1) == (int)n || c[n].forked)
		return err_set(err, -EUCLEAN, p->devs[dev].name, NULL,
			"was used by another owner of the pool since epoch %llu",
			(unsigned long long)c[n].epoch);
	p->devs[dev].epoch_seen = c[n].epoch;
	return 0;
}

static int return_check(struct pool *p, unsigned int dev, struct flash *f, struct superblock *sb,
	unsigned int *slot, struct err *err)
{
	const struct sb_member *m = &p->sb.members[dev];
	const char *name = p->devs[dev].name;
	bool intact;
	int rc = superblock_read_intact(f, sb, slot, &intact);

	if (rc == -ENODATA)
		return err_set(err, -EXDEV, name, NULL, "has no superblock of a pool");
	if (rc < 0)
		return err_set(err, rc == -EUCLEAN ? rc : -EIO, name, NULL,
			rc == -EUCLEAN ? "both superblocks are damaged"
				       : "its superblocks cannot be read");
	if (memcmp(sb->key, p->sb.key, 16) != 0 ||
		memcmp(sb->members[sb->dev].uuid, m->uuid, 16) != 0)
		return err_set(err, -EXDEV, name, NULL, "is another device than the one that left");
	rc = pool_slice_check(sb, f, name, err);
	if (rc < 0)
		return rc;
	if (flash_info(f)->size_bytes < m->size_bytes)
		return err_set(err, -EUCLEAN, name, "size", "it has shrunk");
	if (p->sb.block_bytes % flash_info(f)->block_bytes)
		return err_set(err, -EUCLEAN, name, "block size",
			"%u does not divide the pool's %u", flash_info(f)->block_bytes,
			p->sb.block_bytes);
	return return_judge(p, dev, sb, intact, err);
}

static int return_attach(struct pool *p, unsigned int dev, struct flash *f, struct err *err)
{
	struct pool_dev *d = &p->devs[dev];
	struct flash *old = d->flash;

	/* What is still on its way could land on what we write from here on. */
	if (old && (flash_in_flight(old) || flash_ghosts(old)))
		return err_set(err, -EBUSY, d->name, NULL, "I/O is in flight on the device it was");
	if (old && old != f) {
		health_detach(p, dev);
		flash_close(old);
	}
	d->flash = f;
	health_attach(p, dev);
	p->ckpt->slot[dev] = -1;
	/* What was only in its cache when it left may be gone: healthy once the mover has looked. */
	snprintf(d->why, sizeof(d->why), "it was away: what lies on it is being checked");
	dev_is_now(p, dev, POOL_DEV_REBUILDING);
	return 0;
}

/* Before pool_epoch_begin() nothing is written: that will. */
static int return_write(struct pool *p, unsigned int dev, struct err *err)
{
	int rc = 0;

	/* Twice: an epoch that came to nothing may be in either slot. */
	for (unsigned int i = 0; rc == 0 && p->writable && i < 2; i++)
		rc = sbwrite_sync(p, err);
	if (rc == 0 && !pool_dev_usable(p, dev))
		rc = err_set(err, -EIO, p->devs[dev].name, NULL, "cannot be written");
	return rc;
}

int pool_dev_detach(struct pool *p, unsigned int dev, struct err *err)
{
	struct pool_dev *d = &p->devs[dev];

	if (dev >= p->sb.ndevs || d->state == POOL_DEV_REMOVED)
		return err_set(err, -EINVAL, "flash", NULL, "there is no member %u", dev);
	if (pool_dev_usable(p, dev))
		return err_set(err, -EBUSY, d->name, NULL, "is in use");
	if (!d->flash)
		return 0;
	if (flash_in_flight(d->flash) || flash_ghosts(d->flash))
		return err_set(err, -EBUSY, d->name, NULL,
			"%u I/Os of the time when it failed have not ended yet: try again when the "
			"device answers, or has been taken off the system",
			flash_in_flight(d->flash) + flash_ghosts(d->flash));
	health_detach(p, dev);
	flash_close(d->flash);
	d->flash = NULL;
	return 0;
}

int pool_dev_return(struct pool *p, unsigned int dev, struct flash *flash, struct err *err)
{
	struct superblock *sb;
	unsigned int slot;
	int rc;

	if (dev >= p->sb.ndevs || p->devs[dev].state == POOL_DEV_REMOVED)
		return err_set(err, -EINVAL, "flash", NULL, "there is no member %u", dev);
	if (pool_dev_usable(p, dev))
		return err_set(err, -EBUSY, p->devs[dev].name, NULL, "is in use");
	flash = flash ? flash : p->devs[dev].flash;
	if (!flash || flash_is_abandoned(flash))
		return err_set(err, -ENODEV, p->devs[dev].name, NULL, "has to be opened again");
	sb = malloc(sizeof(*sb));
	rc = sb ? sbwrite_attach(p, dev) : -ENOMEM;
	if (rc < 0)
		err_set(err, rc, p->devs[dev].name, NULL, "no memory");
	if (rc == 0)
		rc = return_check(p, dev, flash, sb, &slot, err);
	if (rc == 0)
		rc = return_attach(p, dev, flash, err);
	if (rc == 0) {
		p->sb_slot[dev] = (uint8_t)slot;
		p->sb.generation = MAX(p->sb.generation, sb->generation);
		rc = return_write(p, dev, err);
		/* The pool has it, failed as it may be: no error of the caller's. */
		if (rc < 0)
			pool_dev_fail(p, dev);
	}
	free(sb);
	return rc;
}
