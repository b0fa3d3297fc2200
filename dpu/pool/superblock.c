/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/pool/superblock.h"

#include <errno.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"

static uint32_t superblock_crc(const uint8_t *buf)
{
	static const uint8_t zero[4];
	size_t at = offsetof(struct sb_disk, crc);
	uint32_t crc = crc32c_add(CRC32C_INIT, buf, at);

	crc = crc32c_add(crc, zero, sizeof(zero));
	return crc32c_end(crc32c_add(crc, buf + at + 4, SB_BYTES - at - 4));
}

/* Text of at most 63 characters, the rest of the field zero. */
static void text_put(char dst[64], const char *src)
{
	memset(dst, 0, 64);
	memcpy(dst, src, strnlen(src, 63));
}

static void member_build(const struct sb_member *m, struct sb_member_disk *d)
{
	memcpy(d->uuid, m->uuid, 16);
	text_put(d->name, m->name);
	text_put(d->domain, m->domain);
	d->size_bytes = to_le64(m->size_bytes);
	d->nsegments = to_le32(m->nsegments);
	d->state = m->state;
	d->cause = m->cause;
	d->cut_bytes = to_le64(m->cut_bytes);
}

void superblock_build(const struct superblock *sb, void *buf)
{
	struct sb_disk *d = buf;

	memset(d, 0, sizeof(*d));
	d->magic = to_le64(SB_MAGIC);
	d->major = to_le16(sb->slices > 1 ? SB_MAJOR_SLICED : SB_MAJOR_WHOLE);
	d->minor = to_le16(SB_MINOR);
	d->len_bytes = to_le32(SB_BYTES);
	memcpy(d->pool_uuid, sb->pool_uuid, 16);
	memcpy(d->key, sb->key, 16);
	d->epoch = to_le64(sb->epoch);
	d->generation = to_le64(sb->generation);
	memcpy(d->dev_uuid, sb->members[sb->dev].uuid, 16);
	d->dev = to_le16((uint16_t)sb->dev);
	d->ndevs = to_le16((uint16_t)sb->ndevs);
	d->k = sb->cfg.scheme.k;
	d->m = sb->cfg.scheme.m;
	d->on_degraded = sb->cfg.on_degraded == POOL_DEGRADED_ALLOW;
	d->flags = sb->cfg.allow_data_device ? SB_FLAG_ALLOW_DATA_DEVICE : 0;
	d->segment_bytes = to_le32(sb->cfg.segment_bytes);
	d->block_bytes = to_le32(sb->block_bytes);
	text_put(d->name, sb->cfg.name);
	for (unsigned int i = 0; i < SB_HISTORY; i++) {
		d->history[i] = to_le64(sb->history[i]);
		d->participants[i] = to_le64(sb->participants[i]);
	}
	d->ckpt_id = to_le64(sb->ckpt_id);
	memcpy(d->owner, sb->owner, 16);
	if (sb->slices > 1) {
		d->slice = to_le16((uint16_t)sb->slice);
		d->slices = to_le16((uint16_t)sb->slices);
	}
	for (unsigned int i = 0; i < sb->ndevs; i++)
		member_build(&sb->members[i], &d->members[i]);
	d->crc = to_le32(superblock_crc(buf));
}

static bool all_zero(const void *p, size_t len)
{
	const uint8_t *b = p;

	for (size_t i = 0; i < len; i++) {
		if (b[i])
			return false;
	}
	return true;
}

static int member_parse(const struct sb_member_disk *d, struct sb_member *m)
{
	memcpy(m->uuid, d->uuid, 16);
	memcpy(m->name, d->name, 64);
	memcpy(m->domain, d->domain, 64);
	m->size_bytes = from_le64(d->size_bytes);
	m->nsegments = from_le32(d->nsegments);
	m->state = d->state;
	m->cause = d->cause;
	if (m->name[63] || m->domain[63] || m->state > POOL_DEV_REMOVED ||
		m->cause >= POOL_CAUSES || m->nsegments > POOL_SEGMENTS_MAX)
		return -EUCLEAN;
	return 0;
}

static bool geometry_ok(const struct superblock *sb)
{
	uint32_t seg = sb->cfg.segment_bytes;

	return sb->ndevs >= 1 && sb->ndevs <= POOL_DEVS_MAX && sb->dev < sb->ndevs &&
	       sb->cfg.scheme.k >= 1 && sb->cfg.scheme.k <= EC_K_MAX && sb->cfg.scheme.m >= 1 &&
	       sb->cfg.scheme.m <= EC_M_MAX && seg >= POOL_SEGMENT_MIN && seg <= POOL_SEGMENT_MAX &&
	       !(seg & (seg - 1)) && (sb->block_bytes == 512 || sb->block_bytes == 4096) &&
	       !sb->cfg.name[63];
}

/* Fields that major 1 does not have. */
static bool whole_ok(const struct sb_disk *d, unsigned int ndevs)
{
	if (from_le16(d->major) != SB_MAJOR_WHOLE)
		return true;
	for (unsigned int i = 0; i < ndevs; i++) {
		if (from_le64(d->members[i].cut_bytes))
			return false;
	}
	return !from_le16(d->slice) && !from_le16(d->slices);
}

static bool slices_ok(const struct superblock *sb)
{
	if (sb->slices < 2 || sb->slices > FLASH_SLICES_MAX || sb->slice >= sb->slices)
		return false;
	for (unsigned int i = 0; i < sb->ndevs; i++) {
		const struct sb_member *m = &sb->members[i];

		if (m->size_bytes != flash_slice_bytes(m->cut_bytes, sb->slices) ||
			!m->size_bytes != (m->state == POOL_DEV_REMOVED))
			return false;
	}
	return true;
}

static void slices_parse(const struct sb_disk *d, struct superblock *sb)
{
	sb->slice = from_le16(d->slice);
	sb->slices = from_le16(d->slices);
	for (unsigned int i = 0; i < sb->ndevs; i++)
		sb->members[i].cut_bytes = from_le64(d->members[i].cut_bytes);
}

static bool reserved_ok(const struct sb_disk *d, unsigned int ndevs)
{
	/* A newer minor may have given them a meaning. */
	if (from_le16(d->minor) > SB_MINOR)
		return true;
	for (unsigned int i = 0; i < ndevs; i++) {
		if (!all_zero(d->members[i].reserved, sizeof(d->members[i].reserved)))
			return false;
	}
	return all_zero(d->reserved, sizeof(d->reserved)) &&
	       all_zero(d->reserved2, sizeof(d->reserved2)) && whole_ok(d, ndevs) &&
	       all_zero(&d->members[ndevs], (POOL_DEVS_MAX - ndevs) * sizeof(d->members[0])) &&
	       d->on_degraded <= 1 && !(d->flags & ~SB_FLAG_ALLOW_DATA_DEVICE);
}

static void head_parse(const struct sb_disk *d, struct superblock *sb)
{
	memcpy(sb->pool_uuid, d->pool_uuid, 16);
	memcpy(sb->key, d->key, 16);
	sb->epoch = from_le64(d->epoch);
	sb->generation = from_le64(d->generation);
	sb->dev = from_le16(d->dev);
	sb->ndevs = from_le16(d->ndevs);
	sb->block_bytes = from_le32(d->block_bytes);
	sb->cfg.scheme = (struct ec_scheme){.k = d->k, .m = d->m};
	sb->cfg.on_degraded = d->on_degraded ? POOL_DEGRADED_ALLOW : POOL_DEGRADED_REFUSE;
	sb->cfg.allow_data_device = d->flags & SB_FLAG_ALLOW_DATA_DEVICE;
	sb->cfg.segment_bytes = from_le32(d->segment_bytes);
	memcpy(sb->cfg.name, d->name, 64);
	for (unsigned int i = 0; i < SB_HISTORY; i++) {
		sb->history[i] = from_le64(d->history[i]);
		sb->participants[i] = from_le64(d->participants[i]);
	}
	sb->ckpt_id = from_le64(d->ckpt_id);
	memcpy(sb->owner, d->owner, 16);
}

int superblock_parse(const void *buf, size_t len, struct superblock *out)
{
	const struct sb_disk *d = buf;
	struct superblock sb;

	if (len < SB_BYTES || from_le64(d->magic) != SB_MAGIC)
		return -ENODATA;
	if (from_le32(d->len_bytes) != SB_BYTES || from_le32(d->crc) != superblock_crc(buf))
		return -EUCLEAN;
	if (from_le16(d->major) > SB_MAJOR)
		return -EPROTONOSUPPORT;
	if (from_le16(d->major) < SB_MAJOR_WHOLE)
		return -EUCLEAN;
	memset(&sb, 0, sizeof(sb));
	head_parse(d, &sb);
	if (!geometry_ok(&sb) || !reserved_ok(d, sb.ndevs))
		return -EUCLEAN;
	for (unsigned int i = 0; i < sb.ndevs; i++) {
		if (member_parse(&d->members[i], &sb.members[i]) < 0)
			return -EUCLEAN;
	}
	if (from_le16(d->major) == SB_MAJOR_SLICED) {
		slices_parse(d, &sb);
		if (!slices_ok(&sb))
			return -EUCLEAN;
	}
	if (memcmp(d->dev_uuid, sb.members[sb.dev].uuid, 16) != 0)
		return -EUCLEAN;
	*out = sb;
	return 0;
}
