/* SPDX-License-Identifier: BSD-3-Clause */
/* Beginning an epoch, and finding out that somebody else has. */
#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/pool/ckpt_priv.h"

static uint64_t usable_mask(const struct pool *p)
{
	uint64_t mask = 0;

	for (unsigned int i = 0; i < p->sb.ndevs; i++)
		mask |= (uint64_t)pool_dev_usable(p, i) << i;
	return mask;
}

/*
 * Written until a round reaches everybody it names: who fails on the way is no participant, and the others have to know that before anything
 * is written in this epoch (lineage.h).
 */
static int epoch_write(struct pool *p, struct err *err)
{
	for (;;) {
		uint64_t mask = usable_mask(p);
		int rc;

		p->sb.participants[p->sb.epoch % SB_HISTORY] = mask;
		rc = sbwrite_sync(p, err);
		if (rc == 0 && p->lost)
			rc = -ESTALE;
		if (rc < 0)
			return rc;
		if (usable_mask(p) != mask)
			continue;
		/* What came to nothing goes from the other slots, too: it must not look like another owner's. */
		if (!p->hollow_seen)
			return 0;
		p->hollow_seen = false;
	}
}

struct fence_wait {
	struct pool_fence f;
	bool done;
	int status;
};

static void fence_told(struct pool_fence *f, int status)
{
	struct fence_wait *w = f->arg;

	w->done = true;
	w->status = status;
}

static bool fence_is_told(void *arg)
{
	return ((struct fence_wait *)arg)->done;
}

/* Did somebody begin the same epoch at the same moment? One of the two sees the other's. */
static int epoch_verify(struct pool *p, struct err *err)
{
	struct fence_wait *w = calloc(1, sizeof(*w));
	int rc;

	if (!w)
		return err_set(err, -ENOMEM, "pool", NULL, "no memory");
	w->f.done_fn = fence_told;
	w->f.arg = w;
	rc = pool_fenced(p, &w->f);
	if (rc == 0)
		rc = shard_wait(p->sh, fence_is_told, w, 0);
	if (rc < 0) /* a device that hangs has it now */
		return err_set(err, rc, "pool", NULL, "superblocks cannot be read back");
	rc = w->status;
	if (rc == -ESTALE)
		err_set(err, rc, p->devs[w->f.dev].name, NULL,
			"another owner is opening the pool at this moment");
	else if (rc < 0)
		err_set(err, rc, "pool", NULL, "superblocks cannot be read back");
	free(w);
	return rc;
}

int pool_epoch_begin(struct pool *p, struct err *err)
{
	struct superblock before = p->sb;
	bool writable = p->writable;
	uint64_t id;
	int rc;

	if (getrandom(&id, sizeof(id), 0) != sizeof(id))
		return err_set(err, -EIO, "pool", NULL, "no random numbers");
	p->sb.epoch++;
	p->sb.history[p->sb.epoch % SB_HISTORY] = id;
	p->writable = true;
	p->ckpt->settled = false;
	rc = epoch_write(p, err);
	if (rc == 0)
		rc = epoch_verify(p, err);
	if (rc < 0) {
		if (p->lost)
			rc = err_set(err, -ESTALE, p->devs[p->lost_dev].name, NULL,
				"another host has taken the pool over: it holds the reservation");
		/* Some devices may carry it. It is hollow: not all that it names do. */
		before.generation = p->sb.generation;
		p->sb = before;
		p->writable = writable;
		return rc;
	}
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (pool_dev_usable(p, i))
			p->devs[i].epoch_seen = p->sb.epoch;
	}
	return 0;
}

/* ---- fenced? ------------------------------------------------------------------------------------------------------ */

struct fencing {
	struct pool *p;
	struct pool_fence *f;
	uint8_t *mem; /* two slots per device */
	size_t mem_len;
	unsigned int pending, good;
	bool stale;
	struct fencing_dev {
		struct fencing *of;
		struct devio ios[2];
		unsigned int pending;
		bool bad;
	} devs[POOL_DEVS_MAX];
	struct task task;
};

static void fencing_end(void *arg)
{
	struct fencing *g = arg;
	struct pool_fence *f = g->f;
	struct pool *p = g->p;
	int status = g->stale ? -ESTALE : g->good >= ckpt_copies_needed(g->p) ? 0 : -EIO;

	mem_free(g->mem, g->mem_len);
	free(g);
	f->priv = NULL;
	p->fences--;
	f->done_fn(f, status);
}

static bool is_anothers(const struct pool *p, const struct superblock *sb)
{
	if (memcmp(sb->pool_uuid, p->sb.pool_uuid, 16) != 0 || sb->epoch > p->sb.epoch)
		return true;
	return sb->epoch == p->sb.epoch &&
	       sb->history[sb->epoch % SB_HISTORY] != p->sb.history[sb->epoch % SB_HISTORY];
}

static void fencing_judge(struct fencing *g, unsigned int dev)
{
	struct superblock *sb = malloc(sizeof(*sb));
	bool any = false;

	for (unsigned int slot = 0; sb && slot < 2; slot++) {
		if (superblock_parse(g->mem + ((size_t)dev * 2 + slot) * SB_BYTES, SB_BYTES, sb) <
			0)
			continue; /* being written, perhaps */
		any = true;
		if (is_anothers(g->p, sb)) {
			g->stale = true;
			g->f->dev = dev;
		}
	}
	g->good += any;
	free(sb);
}

static void fencing_put(struct fencing *g)
{
	if (--g->pending == 0)
		shard_defer(g->p->sh, &g->task, fencing_end, g);
}

static void fencing_read(struct devio *d, int status)
{
	struct fencing_dev *fd = d->arg;
	struct fencing *g = fd->of;

	fd->bad |= status < 0;
	if (--fd->pending)
		return;
	if (!fd->bad)
		fencing_judge(g, d->dev);
	fencing_put(g);
}

int pool_fenced(struct pool *p, struct pool_fence *f)
{
	struct fencing *g;

	if (f->priv)
		return -EBUSY;
	g = calloc(1, sizeof(*g));
	if (!g)
		return -ENOMEM;
	g->p = p;
	g->f = f;
	g->mem_len = (size_t)p->sb.ndevs * 2 * SB_BYTES;
	g->mem = mem_alloc(g->mem_len);
	if (!g->mem) {
		free(g);
		return -ENOMEM;
	}
	f->priv = g;
	p->fences++;
	g->pending = 1;
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		struct fencing_dev *fd = &g->devs[i];

		if (!pool_dev_usable(p, i))
			continue;
		g->pending++;
		fd->of = g;
		fd->pending = 2;
		for (unsigned int slot = 0; slot < 2; slot++) {
			fd->ios[slot].done_fn = fencing_read;
			fd->ios[slot].arg = fd;
			devio_start(p, &fd->ios[slot], i, FLASH_READ,
				(uint64_t)slot * SB_SLOT_STRIDE,
				g->mem + ((size_t)i * 2 + slot) * SB_BYTES, SB_BYTES);
		}
	}
	fencing_put(g);
	return 0;
}
