/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Superblocks to and from the devices.
 *
 * Writing is asynchronous: a round takes the superblock as it is, gives it the next generation and writes it to all usable devices side by side. A change during a
 * round starts another one. A device that cannot take its superblock fails, which is a change for the others' superblocks.
 */
#include <errno.h>
#include <stdio.h>

#include "dpu/core/mem.h"
#include "dpu/pool/pool_priv.h"

int superblock_read_intact(
	struct flash *f, struct superblock *out, unsigned int *slot_of, bool *intact)
{
	int rc[2], worst = -ENODATA;
	struct superblock sb;
	uint8_t *buf = mem_alloc(SB_BYTES);
	bool found = false;

	if (!buf)
		return -ENOMEM;
	for (unsigned int slot = 0; slot < 2; slot++) {
		if (flash_info(f)->size_bytes < 2 * SB_SLOT_STRIDE)
			rc[slot] = -ENODATA;
		else
			rc[slot] = flash_rw_sync(
				f, FLASH_READ, slot * SB_SLOT_STRIDE, buf, SB_BYTES);
		if (rc[slot] == 0)
			rc[slot] = superblock_parse(buf, SB_BYTES, &sb);
		if (rc[slot] == 0 && (!found || sb.generation > out->generation)) {
			*out = sb;
			found = true;
			if (slot_of)
				*slot_of = slot;
		}
		if (rc[slot] < 0 && (worst == -ENODATA || rc[slot] == -EPROTONOSUPPORT))
			worst = rc[slot];
	}
	mem_free(buf, SB_BYTES);
	/* A pool that is new has one only. */
	*intact = found && (worst == -ENODATA ? (!rc[0] && !rc[1]) || out->generation == 1 : false);
	/* A newer version has been here: even where the other slot is ours, it is not ours to touch. */
	if (worst == -EPROTONOSUPPORT)
		return worst;
	return found ? 0 : worst;
}

int superblock_read(struct flash *f, struct superblock *out, unsigned int *slot_of)
{
	bool intact;

	return superblock_read_intact(f, out, slot_of, &intact);
}

int superblock_wipe(struct flash *f, unsigned int slot)
{
	uint8_t *buf = mem_alloc(SB_BYTES);
	int rc = -ENOMEM;

	if (buf) {
		memset(buf, 0, SB_BYTES);
		rc = flash_rw_sync(f, FLASH_WRITE, (uint64_t)slot * SB_SLOT_STRIDE, buf, SB_BYTES);
		if (rc == 0)
			rc = flash_rw_sync(f, FLASH_FLUSH, 0, NULL, 0);
		mem_free(buf, SB_BYTES);
	}
	return rc;
}

/* ---- a round ------------------------------------------------------------------------------------------------------- */

static void round_start(void *arg);

static void round_end(void *arg)
{
	struct pool *p = arg;
	struct sbwrite *w = &p->sbwrite;

	w->running = false;
	w->ended = w->started;
	w->status = w->good >= p->sb.cfg.scheme.m + 1u ? 0 : -EIO;
	if (w->again)
		shard_defer(p->sh, &w->task, round_start, p);
}

static void round_put(struct pool *p)
{
	if (--p->sbwrite.pending == 0)
		shard_defer(p->sh, &p->sbwrite.task, round_end, p);
}

static void one_failed(struct pool *p, unsigned int dev)
{
	if (pool_dev_usable(p, dev) && !p->lost) {
		snprintf(p->devs[dev].why, sizeof(p->devs[dev].why),
			"its superblock cannot be written");
		pool_dev_fail_for(p, dev, health_cause(p, dev, POOL_CAUSE_ERRORS));
	}
	round_put(p);
}

static void one_flushed(struct devio *d, int status)
{
	struct pool *p = d->p;

	if (status < 0) {
		one_failed(p, d->dev);
		return;
	}
	p->sb_slot[d->dev] ^= 1;
	p->sbwrite.good++;
	round_put(p);
}

static void one_written(struct devio *d, int status)
{
	if (status < 0) {
		one_failed(d->p, d->dev);
		return;
	}
	d->done_fn = one_flushed;
	devio_start(d->p, d, d->dev, FLASH_FLUSH, 0, NULL, 0);
}

static void round_start(void *arg)
{
	struct pool *p = arg;
	struct sbwrite *w = &p->sbwrite;

	w->running = true;
	w->again = false;
	w->started++;
	w->good = 0;
	w->pending = 1;
	p->sb.generation++;
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		p->sb.members[i].state = (uint8_t)p->devs[i].state;
		p->sb.members[i].cause = (uint8_t)p->devs[i].cause;
	}
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (!pool_dev_usable(p, i))
			continue;
		p->sb.dev = i;
		superblock_build(&p->sb, w->mem[i]);
		w->pending++;
		w->ios[i].done_fn = one_written;
		/* The other slot: the newest one stays whole whatever becomes of this. */
		devio_start(p, &w->ios[i], i, FLASH_WRITE,
			(p->sb_slot[i] ^ 1u) * (uint64_t)SB_SLOT_STRIDE, w->mem[i], SB_BYTES);
	}
	round_put(p);
}

void sbwrite_kick(struct pool *p)
{
	struct sbwrite *w = &p->sbwrite;

	if (!p->writable || p->closing)
		return;
	w->again = true;
	if (!w->running)
		shard_defer(p->sh, &w->task, round_start, p);
}

bool sbwrite_busy(const struct pool *p)
{
	return p->sbwrite.running || p->sbwrite.again;
}

struct round_wait {
	struct pool *p;
	uint64_t round;
};

static bool round_is_over(void *arg)
{
	struct round_wait *w = arg;

	return w->p->sbwrite.ended >= w->round;
}

int sbwrite_sync(struct pool *p, struct err *err)
{
	struct round_wait w = {.p = p, .round = p->sbwrite.started + 1};
	int rc;

	if (p->lost)
		return err_set(err, -ESTALE, p->devs[p->lost_dev].name, NULL,
			"another host has taken the pool over: it holds the reservation");
	sbwrite_kick(p);
	rc = shard_wait(p->sh, round_is_over, &w, 0);
	if (rc == 0)
		rc = p->sbwrite.status;
	if (rc < 0)
		return err_set(err, rc, "pool", NULL,
			"superblocks written to %u devices, at least %u are needed",
			p->sbwrite.good, p->sb.cfg.scheme.m + 1u);
	return 0;
}

int sbwrite_attach(struct pool *p, unsigned int dev)
{
	if (!p->sbwrite.mem[dev])
		p->sbwrite.mem[dev] = mem_alloc(SB_BYTES);
	return p->sbwrite.mem[dev] ? 0 : -ENOMEM;
}

void sbwrite_close(struct pool *p)
{
	shard_undefer(p->sh, &p->sbwrite.task);
	for (unsigned int i = 0; i < POOL_DEVS_MAX; i++) {
		if (p->sbwrite.mem[i])
			mem_free(p->sbwrite.mem[i], SB_BYTES);
		p->sbwrite.mem[i] = NULL;
	}
}
