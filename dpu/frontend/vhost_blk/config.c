/* SPDX-License-Identifier: BSD-3-Clause */
/* What a disk tells its driver, and what a VM's memory map tells the card. */
#include "dpu/frontend/vhost_blk/vhost_blk_priv.h"

#include "common/base/util.h"

#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>

static const struct {
	unsigned int bit;
	const char *name;
} features[] = {
	{VIRTIO_F_VERSION_1, "version-1"},
	{VIRTIO_F_RING_PACKED, "packed"},
	{VIRTIO_RING_F_INDIRECT_DESC, "indirect"},
	{VIRTIO_BLK_F_MQ, "mq"},
	{VIRTIO_BLK_F_FLUSH, "flush"},
	{VIRTIO_BLK_F_DISCARD, "discard"},
	{VIRTIO_BLK_F_WRITE_ZEROES, "write-zeroes"},
	{VIRTIO_BLK_F_BLK_SIZE, "blk-size"},
	{VIRTIO_BLK_F_TOPOLOGY, "topology"},
	{VIRTIO_BLK_F_SEG_MAX, "seg-max"},
	{VIRTIO_BLK_F_SIZE_MAX, "size-max"},
	{VIRTIO_BLK_F_RO, "read-only"},
};

uint64_t vb_features(const struct vb_disk *d)
{
	uint64_t all = 0;

	for (size_t i = 0; i < ARRAY_LEN(features); i++)
		if (features[i].bit != VIRTIO_BLK_F_RO || d->cfg.read_only)
			all |= 1ull << features[i].bit;
	return all;
}

int vhost_blk_feature_names(uint64_t set, char *buf, size_t len)
{
	int n = 0;

	if (len)
		buf[0] = 0;
	for (size_t i = 0; i < ARRAY_LEN(features); i++)
		if (set >> features[i].bit & 1)
			n += snprintf(buf + MIN((size_t)n, len), len - MIN((size_t)n, len), "%s%s",
				n ? " " : "", features[i].name);
	return n;
}

void vb_config_fill(const struct vb_disk *d, struct virtio_blk_config *c)
{
	uint32_t block_sectors = d->cfg.block_bytes / VB_SECTOR;

	*c = (struct virtio_blk_config){
		.capacity = htole64(d->cfg.size_bytes / VB_SECTOR),
		.size_max = htole32(VB_SIZE_MAX),
		.seg_max = htole32(VB_SEGS_MAX),
		.blk_size = htole32(d->cfg.block_bytes),
		/* 4 KiB is what the store works in, whatever the logical block is. */
		.physical_block_exp = block_sectors == 1 ? 3 : 0,
		.min_io_size = htole16(IO_BLOCK_BYTES / d->cfg.block_bytes),
		.wce = 1,
		.num_queues = htole16((uint16_t)d->vm->vb->cfg.queues),
		.max_discard_sectors = htole32(VB_RANGE_SECTORS_MAX),
		.max_discard_seg = htole32(VB_RANGES_MAX),
		.discard_sector_alignment = htole32(IO_BLOCK_BYTES / VB_SECTOR),
		.max_write_zeroes_sectors = htole32(VB_RANGE_SECTORS_MAX),
		.max_write_zeroes_seg = htole32(VB_RANGES_MAX),
		.write_zeroes_may_unmap = 1,
	};
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

void vb_memory_row(const struct vb_mem *mem, struct vhost_blk_row *out)
{
	*out = (struct vhost_blk_row){0};
	for (uint32_t i = 0; i < mem->n; i++) {
		const struct vb_region *r = &mem->r[i];

		if (!out->mem_bytes || r->gpa < out->guest_addr) {
			out->guest_addr = r->gpa;
			out->host_addr = r->user;
		}
		out->mem_bytes += r->len;
	}
}

bool vb_memory_differs(
	const struct vb_mem *mem, const struct vhost_blk_row *row, char *why, size_t len)
{
	struct vhost_blk_row is;
	uint64_t host = 0;

	vb_memory_row(mem, &is);
	if (row->mem_bytes && is.mem_bytes > row->mem_bytes) {
		snprintf(why, len, "mem_bytes: it has %" PRIu64 " bytes, table 203 says %" PRIu64,
			is.mem_bytes, row->mem_bytes);
		return true;
	}
	if (!row->host_addr && !row->guest_addr)
		return false;
	for (uint32_t i = 0; i < mem->n && !host; i++)
		if (row->guest_addr >= mem->r[i].gpa &&
			row->guest_addr - mem->r[i].gpa < mem->r[i].len)
			host = mem->r[i].user + (row->guest_addr - mem->r[i].gpa);
	if (!host) {
		snprintf(why, len, "guest_addr: it has no memory at 0x%" PRIx64, row->guest_addr);
		return true;
	}
	if (row->host_addr && host != row->host_addr) {
		snprintf(why, len,
			"host_addr: guest address 0x%" PRIx64 " is at 0x%" PRIx64
			", table 203 says 0x%" PRIx64,
			row->guest_addr, host, row->host_addr);
		return true;
	}
	return false;
}
