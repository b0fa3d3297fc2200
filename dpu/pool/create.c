/* SPDX-License-Identifier: BSD-3-Clause */
/* Making a pool out of flash devices. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <uuid/uuid.h>

#include "common/base/units.h"
#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/pool/ckpt_priv.h"

int pool_cfg_check(const struct pool_cfg *cfg, unsigned int ndevs, struct err *err)
{
	uint32_t seg = cfg->segment_bytes;
	struct ec_geometry g;

	if (ec_geometry_of(cfg->scheme, 1, &g) < 0)
		return err_set(err, -EINVAL, "pool", "ec", "%u+%u: k must be 1..%u and m 1..%u",
			cfg->scheme.k, cfg->scheme.m, EC_K_MAX, EC_M_MAX);
	if (cfg->scheme.k + cfg->scheme.m > ndevs)
		return err_set(err, -EINVAL, "pool", "ec",
			"%u+%u needs %u flash devices, the pool has %u", cfg->scheme.k,
			cfg->scheme.m, cfg->scheme.k + cfg->scheme.m, ndevs);
	if (seg < POOL_SEGMENT_MIN || seg > POOL_SEGMENT_MAX || (seg & (seg - 1)))
		return err_set(err, -EINVAL, "pool", "segment size",
			"%u: a power of two from %u to %u", seg, POOL_SEGMENT_MIN,
			POOL_SEGMENT_MAX);
	if (!memchr(cfg->name, 0, sizeof(cfg->name)))
		return err_set(err, -EINVAL, "pool", "name", "at most 63 characters");
	return 0;
}

int pool_member_check(const struct pool_member *m, uint32_t segment_bytes, bool force,
	uint32_t block_bytes, struct err *err)
{
	const struct flash_info *fi = flash_info(m->flash);
	struct superblock sb;
	char have[32], need[32];
	int rc;

	if (!memchr(m->name, 0, sizeof(m->name)) || !m->name[0] ||
		!memchr(m->domain, 0, sizeof(m->domain)))
		return err_set(err, -EINVAL, "flash", "name", "1 to 63 characters");
	if (fi->size_bytes / segment_bytes < POOL_DEV_SEGMENTS_MIN)
		return err_set(err, -EINVAL, m->name, "size",
			"%s is too small: at least %u segments, %s",
			units_format_bytes(fi->size_bytes, have, sizeof(have)),
			POOL_DEV_SEGMENTS_MIN,
			units_format_bytes((uint64_t)POOL_DEV_SEGMENTS_MIN * segment_bytes, need,
				sizeof(need)));
	if (fi->block_bytes != block_bytes)
		return err_set(err, -EINVAL, m->name, "block size",
			"%u: all members of a pool have the same, the first has %u",
			fi->block_bytes, block_bytes);
	if (force)
		return 0;
	rc = superblock_read(m->flash, &sb, NULL);
	if (rc == 0)
		return err_set(err, -EEXIST, m->name, NULL,
			"already part of pool \"%s\"; force overwrites it", sb.cfg.name);
	if (rc == -EPROTONOSUPPORT)
		return err_set(err, -EEXIST, m->name, NULL,
			"part of a pool of a newer version; force overwrites it");
	/* Damaged superblocks of a dead pool do not stand in the way; a device that cannot be read does. */
	if (rc == -ENODATA || rc == -EUCLEAN)
		return 0;
	return err_set(err, rc, m->name, NULL, "cannot be read");
}

static int names_check(const struct pool_member *members, unsigned int n, struct err *err)
{
	for (unsigned int i = 0; i < n; i++) {
		for (unsigned int j = i + 1; j < n; j++) {
			if (members[i].flash == members[j].flash ||
				strncmp(members[i].name, members[j].name, 64) == 0)
				return err_set(
					err, -EINVAL, members[i].name, "name", "given twice");
		}
	}
	return 0;
}

static int slices_check(const struct pool_member *members, unsigned int n, struct err *err)
{
	const struct flash_info *first = flash_info(members[0].flash);

	for (unsigned int i = 1; i < n; i++) {
		const struct flash_info *fi = flash_info(members[i].flash);

		if (fi->slice != first->slice ||
			pool_flash_slices(members[i].flash) != pool_flash_slices(members[0].flash))
			return err_set(err, -EINVAL, members[i].name, "slice",
				"%u of %u: all members are the same slice, the first is %u of %u",
				fi->slice, pool_flash_slices(members[i].flash), first->slice,
				pool_flash_slices(members[0].flash));
	}
	return 0;
}

static int create_sb(struct superblock *sb, const struct pool_cfg *cfg,
	const struct pool_member *members, unsigned int n, struct err *err)
{
	sb->cfg = *cfg;
	memset(sb->cfg.uuid, 0, sizeof(sb->cfg.uuid));
	memcpy(sb->pool_uuid, cfg->uuid, sizeof(sb->pool_uuid));
	sb->slice = flash_info(members[0].flash)->slice;
	sb->slices = pool_flash_slices(members[0].flash);
	sb->ndevs = n;
	sb->epoch = 1;
	sb->participants[1] = n == 64 ? UINT64_MAX : (1ull << n) - 1;
	sb->block_bytes = flash_info(members[0].flash)->block_bytes;
	if ((uuid_is_null(sb->pool_uuid) && getrandom(sb->pool_uuid, 16, 0) != 16) ||
		getrandom(sb->key, 16, 0) != 16 || getrandom(&sb->history[1], 8, 0) != 8)
		return err_set(err, -EIO, "pool", NULL, "no random numbers");
	for (unsigned int i = 0; i < n; i++) {
		struct sb_member *m = &sb->members[i];
		uint64_t segs = flash_info(members[i].flash)->size_bytes / cfg->segment_bytes;

		if (getrandom(m->uuid, 16, 0) != 16)
			return err_set(err, -EIO, "pool", NULL, "no random numbers");
		memcpy(m->name, members[i].name, sizeof(m->name));
		memcpy(m->domain, members[i].domain, sizeof(m->domain));
		m->size_bytes = flash_info(members[i].flash)->size_bytes;
		m->cut_bytes = flash_info(members[i].flash)->cut_bytes;
		m->nsegments = (uint32_t)MIN(segs, POOL_SEGMENTS_MAX);
	}
	return 0;
}

/* Log segments an earlier pool left do not matter: its key differs. An old superblock in the slot we do not write first does: it
 * would win by its generation. So it goes before ours comes. */
static int create_write(struct pool *p, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; rc == 0 && i < p->sb.ndevs; i++) {
		rc = superblock_wipe(p->devs[i].flash, p->sb_slot[i]);
		if (rc < 0)
			err_set(err, rc, p->devs[i].name, NULL, "cannot be written");
	}
	p->writable = true;
	if (rc == 0)
		rc = sbwrite_sync(p, err);
	for (unsigned int i = 0; rc == 0 && i < p->sb.ndevs; i++) {
		if (!pool_dev_usable(p, i))
			rc = err_set(err, -EIO, p->devs[i].name, NULL, "cannot be written");
		p->devs[i].epoch_seen = p->sb.epoch;
	}
	return rc;
}

int pool_create(struct shard *sh, const struct pool_cfg *cfg, const struct pool_member *members,
	unsigned int n, bool force, struct pool **out, struct err *err)
{
	struct pool_cfg want = *cfg;
	struct pool *p;
	int rc;

	if (!want.segment_bytes)
		want.segment_bytes = POOL_SEGMENT_DEFAULT;
	if (n < 1 || n > POOL_DEVS_MAX)
		return err_set(
			err, -EINVAL, "pool", "members", "1 to %u flash devices", POOL_DEVS_MAX);
	rc = pool_cfg_check(&want, n, err);
	if (rc == 0)
		rc = names_check(members, n, err);
	if (rc == 0)
		rc = slices_check(members, n, err);
	for (unsigned int i = 0; rc == 0 && i < n; i++)
		rc = pool_member_check(&members[i], want.segment_bytes, force,
			flash_info(members[0].flash)->block_bytes, err);
	if (rc < 0)
		return rc;
	p = pool_new(sh, err);
	if (!p)
		return -ENOMEM;
	rc = create_sb(&p->sb, &want, members, n, err);
	for (unsigned int i = 0; rc == 0 && i < n; i++)
		rc = pool_dev_init(p, i, members[i].flash);
	if (rc == 0)
		rc = create_write(p, err);
	if (rc < 0) {
		pool_quiesce(p);
		pool_free(p);
		return rc;
	}
	/* New: what lies where roots would be belongs to another pool's key. */
	p->ckpt->loaded = p->ckpt->settled = true;
	*out = p;
	return 0;
}
