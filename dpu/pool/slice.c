/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools in slices of flash: which slice is whose. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/units.h"
#include "common/base/util.h"
#include "dpu/pool/pool_priv.h"

static_assert(FLASH_SLICE_ALIGN % POOL_SEGMENT_MAX == 0, "slices are whole segments");

unsigned int pool_slice(const struct pool *p)
{
	return p->sb.slice;
}

unsigned int pool_slices(const struct pool *p)
{
	return MAX(p->sb.slices, 1u);
}

unsigned int pool_flash_slices(const struct flash *f)
{
	return MAX(flash_info(f)->slices, 1u);
}

static const char *slice_text(unsigned int slice, unsigned int slices, char *buf, size_t len)
{
	if (slices > 1)
		snprintf(buf, len, "slice %u of %u", slice, slices);
	else
		snprintf(buf, len, "a whole device");
	return buf;
}

int pool_slice_fits(
	const struct superblock *sb, const struct flash *f, const char *name, struct err *err)
{
	const struct flash_info *fi = flash_info(f);
	unsigned int has = pool_flash_slices(f), wants = MAX(sb->slices, 1u);
	char is[48], is_not[48];

	if (has == wants && fi->slice == sb->slice)
		return 0;
	return err_set(err, -EXDEV, name, "slice", "is opened as %s; pool \"%s\" has %s here",
		slice_text(fi->slice, has, is_not, sizeof(is_not)), sb->cfg.name,
		slice_text(sb->slice, wants, is, sizeof(is)));
}

int pool_slice_check(
	const struct superblock *sb, const struct flash *f, const char *name, struct err *err)
{
	uint64_t is = flash_info(f)->cut_bytes, was = sb->members[sb->dev].cut_bytes;
	char now[32], then[32];
	int rc = pool_slice_fits(sb, f, name, err);

	if (rc < 0 || is == was)
		return rc;
	return err_set(err, -EUCLEAN, name, "slice",
		"was cut when it had %s, and is opened as cut at %s",
		units_format_bytes(was, then, sizeof(then)),
		units_format_bytes(is, now, sizeof(now)));
}

int pool_probe(struct shard *sh, const char *address, const struct flash_opts *opts,
	struct pool_probe *out, struct err *err)
{
	struct flash_opts o = opts ? *opts : (struct flash_opts){0};
	struct superblock sb;
	struct flash *f;
	int rc;

	o.exclusive = false;
	o.slice = o.slices = 0;
	o.cut_bytes = 0;
	rc = flash_open(sh, address, &o, &f, err);
	if (rc < 0)
		return rc;
	rc = superblock_read(f, &sb, NULL);
	flash_close(f);
	switch (rc) {
	case 0:
		break;
	case -ENODATA:
		return err_set(err, rc, address, NULL, "has no superblock of a pool");
	case -EUCLEAN:
		return err_set(err, rc, address, NULL, "both superblocks are damaged");
	case -EPROTONOSUPPORT:
		return err_set(err, rc, address, "version", "was written by a newer version");
	default:
		return err_set(err, rc, address, NULL, "its superblocks cannot be read");
	}
	*out = (struct pool_probe){.slices = MAX(sb.slices, 1u),
		.cut_bytes = sb.members[sb.dev].cut_bytes,
		.epoch = sb.epoch};
	memcpy(out->uuid, sb.pool_uuid, sizeof(out->uuid));
	memcpy(out->name, sb.cfg.name, sizeof(out->name));
	return 0;
}
