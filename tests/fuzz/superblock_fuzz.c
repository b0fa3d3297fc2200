/* SPDX-License-Identifier: BSD-3-Clause */
/* Superblocks. Byte 0: bit 0: changes to a valid one (else raw bytes, zero-extended), bit 1: with a CRC that fits, bit 3: of a slice. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "dpu/core/crc32c.h"
#include "dpu/pool/superblock.h"

static void make_valid(uint8_t *buf, uint8_t ndevs, bool sliced)
{
	static struct superblock sb;

	memset(&sb, 0, sizeof(sb));
	sb.epoch = 3;
	sb.generation = 9;
	sb.block_bytes = 4096;
	sb.ndevs = 1 + ndevs % POOL_DEVS_MAX;
	sb.dev = sb.ndevs / 2;
	sb.cfg.scheme = (struct ec_scheme){4, 2};
	sb.cfg.segment_bytes = POOL_SEGMENT_MIN;
	snprintf(sb.cfg.name, sizeof(sb.cfg.name), "pool0");
	for (unsigned int i = 0; i < sb.ndevs; i++) {
		sb.members[i].uuid[0] = (uint8_t)(i + 1);
		sb.members[i].nsegments = 100;
		sb.members[i].size_bytes = 100ull * POOL_SEGMENT_MIN;
		snprintf(sb.members[i].name, sizeof(sb.members[i].name), "f%u", i);
		if (sliced) {
			sb.members[i].cut_bytes = 513ull << 20;
			sb.members[i].size_bytes = 128ull << 20;
		}
	}
	sb.slice = sliced ? 3 : 0;
	sb.slices = sliced ? 4 : 0;
	superblock_build(&sb, buf);
}

static void fix_crc(uint8_t *buf)
{
	le32 crc = {{0}};

	memcpy(buf + offsetof(struct sb_disk, crc), &crc, sizeof(crc));
	crc = to_le32(crc32c(buf, SB_BYTES));
	memcpy(buf + offsetof(struct sb_disk, crc), &crc, sizeof(crc));
}

static void check_parsed(const struct superblock *sb)
{
	static uint8_t again[SB_BYTES];
	static struct superblock sb2;

	FUZZ_CHECK(sb->ndevs >= 1 && sb->ndevs <= POOL_DEVS_MAX && sb->dev < sb->ndevs);
	FUZZ_CHECK(strnlen(sb->cfg.name, 64) < 64);
	for (unsigned int i = 0; i < sb->ndevs; i++)
		FUZZ_CHECK(strnlen(sb->members[i].name, 64) < 64 &&
			   strnlen(sb->members[i].domain, 64) < 64);
	FUZZ_CHECK(sb->slices <= FLASH_SLICES_MAX && sb->slices != 1 &&
		   sb->slice < (sb->slices ? sb->slices : 1));
	for (unsigned int i = 0; i < sb->ndevs; i++) /* no slice reaches beyond its device */
		FUZZ_CHECK(sb->slices ? sb->members[i].size_bytes <=
						sb->members[i].cut_bytes / sb->slices
				      : !sb->members[i].cut_bytes);
	superblock_build(sb, again);
	FUZZ_CHECK(superblock_parse(again, sizeof(again), &sb2) == 0);
	FUZZ_CHECK(sb2.epoch == sb->epoch && sb2.generation == sb->generation &&
		   sb2.ndevs == sb->ndevs);
	FUZZ_CHECK(sb2.slice == sb->slice && sb2.slices == sb->slices &&
		   sb2.members[sb->dev].cut_bytes == sb->members[sb->dev].cut_bytes);
	FUZZ_CHECK(sb2.cfg.segment_bytes == sb->cfg.segment_bytes &&
		   sb2.cfg.scheme.k == sb->cfg.scheme.k);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t buf[SB_BYTES];
	static struct superblock sb;
	struct eater e = {data, size};
	uint8_t how = eat8(&e);
	size_t len = sizeof(buf);
	int rc;

	if (how & 1) {
		make_valid(buf, eat8(&e), how & 8);
		eat_patches(&e, buf, sizeof(buf));
	} else {
		len = e.left < sizeof(buf) && (how & 4) ? e.left : sizeof(buf);
		eat_bytes(&e, buf, sizeof(buf));
	}
	if (how & 2)
		fix_crc(buf);
	rc = superblock_parse(buf, len, &sb);
	if (rc == 0)
		check_parsed(&sb);
	else
		FUZZ_CHECK(rc == -ENODATA || rc == -EUCLEAN || rc == -EPROTONOSUPPORT);
	return 0;
}
