/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The superblock of a pool member, and its codec: pure functions on bytes (fuzzed). hwdocs/formats/superblock.md.
 *
 * Segment 0 of every device starts with two slots of 16 KiB, 64 KiB apart. A generation is written to the slot that does not have the
 * one before it, which a torn write leaves.
 *
 * Offset  Size  Field            struct sb_disk
 *      0     8  magic            "PARAPOOL"
 *      8     2  major            1: of whole devices; 2: of slices. Readers refuse a newer one
 *     10     2  minor            readers accept a newer one (and ignore what they do not know)
 *     12     4  len_bytes        16384; with magic and crc the part that no version moves
 *     16    16  pool_uuid
 *     32    16  key              random, known to the card only: no VM can forge a log header
 *     48     8  epoch            raised at every opening
 *     56     8  generation       raised at every write of superblocks
 *     64    16  dev_uuid         of this device
 *     80     2  dev              its number
 *     82     2  ndevs
 *     84     1  k                scheme of volumes that say nothing else
 *     85     1  m
 *     86     1  on_degraded      0 refuse, 1 allow
 *     87     1  flags            bit 0: fragments may lie on the data area's device
 *     88     4  segment_bytes
 *     92     4  block_bytes      logical block of the log
 *     96    64  name             zero-terminated
 *    160   128  history          16 random ids: [e & 15] is that of epoch e, for the last 16 epochs (fork detection)
 *    288     8  ckpt_id          newest checkpoint known to be committed; an opening that finds none as new is refused
 *    296   128  participants     of the epochs in history: bit per device; see lineage.h
 *    424    16  owner            the card that began the epoch; zero: a minor 0 wrote it
 *    440     2  slice            major 2: which slice of every member this is, from 0
 *    442     2  slices           major 2: of how many, 2..16
 *    444    64  reserved         zero
 *    508     4  crc              CRC32C of the 16 KiB with this field zero
 *    512 12288  members          64 entries of 192 bytes
 *  12800  3584  reserved         zero
 *
 * Offset  Size  Field            struct sb_member_disk
 *      0    16  uuid
 *     16    64  name             zero-terminated
 *     80    64  domain           zero-terminated
 *    144     8  size_bytes
 *    152     4  nsegments
 *    156     1  state            enum pool_dev_state as last known
 *    157     1  cause            enum pool_cause: why it is failed or missing
 *    158     8  cut_bytes        major 2: size of the device when it was cut into slices; size_bytes is the slice's
 *    166    26  reserved         zero
 *
 * Thread: any. Errors: 0 or -errno.
 */
#ifndef DPU_POOL_SUPERBLOCK_H
#define DPU_POOL_SUPERBLOCK_H

#include <assert.h>
#include <stddef.h>

#include "common/base/endian.h"
#include "dpu/pool/pool.h"

#define SB_MAGIC       0x4c4f4f5041524150ull /* "PARAPOOL" as little-endian bytes */
#define SB_MAJOR       2 /* the newest that is read */
#define SB_MAJOR_WHOLE 1 /* what a pool of whole devices is written as */
#define SB_MAJOR_SLICED \
	2 /* whoever does not know of slices would take the first for all there is */
#define SB_MINOR          1 /* 1: owner, cause */
#define SB_BYTES          16384u
#define SB_SLOT_STRIDE    65536u
#define SB_HISTORY        16u
#define POOL_SEGMENTS_MAX (1u << 24) /* of a device: addresses keep 24 bits */

struct sb_member_disk {
	uint8_t uuid[16];
	char name[64];
	char domain[64];
	le64 size_bytes;
	le32 nsegments;
	uint8_t state;
	uint8_t cause;
	le64 cut_bytes;
	uint8_t reserved[26];
};
static_assert(sizeof(struct sb_member_disk) == 192, "superblock member");

struct sb_disk {
	le64 magic;
	le16 major;
	le16 minor;
	le32 len_bytes;
	uint8_t pool_uuid[16];
	uint8_t key[16];
	le64 epoch;
	le64 generation;
	uint8_t dev_uuid[16];
	le16 dev;
	le16 ndevs;
	uint8_t k;
	uint8_t m;
	uint8_t on_degraded;
	uint8_t flags;
	le32 segment_bytes;
	le32 block_bytes;
	char name[64];
	le64 history[SB_HISTORY];
	le64 ckpt_id;
	le64 participants[SB_HISTORY];
	uint8_t owner[16];
	le16 slice;
	le16 slices;
	uint8_t reserved[64];
	le32 crc;
	struct sb_member_disk members[POOL_DEVS_MAX];
	uint8_t reserved2[3584];
};
static_assert(sizeof(struct sb_disk) == SB_BYTES, "superblock");
static_assert(offsetof(struct sb_disk, epoch) == 48, "superblock epoch");
static_assert(offsetof(struct sb_disk, history) == 160, "superblock history");
static_assert(offsetof(struct sb_disk, participants) == 296, "superblock participants");
static_assert(offsetof(struct sb_disk, owner) == 424, "superblock owner");
static_assert(offsetof(struct sb_disk, slice) == 440, "superblock slice");
static_assert(offsetof(struct sb_disk, crc) == 508, "superblock crc");
static_assert(offsetof(struct sb_disk, members) == 512, "superblock members");

#define SB_FLAG_ALLOW_DATA_DEVICE 1u

/* The same in memory. */
struct sb_member {
	uint8_t uuid[16];
	char name[64];
	char domain[64];
	uint64_t size_bytes;
	uint32_t nsegments;
	uint8_t state;
	uint8_t cause;
	uint64_t cut_bytes; /* 0: whole */
};

struct superblock {
	uint8_t pool_uuid[16];
	uint8_t key[16];
	uint64_t epoch;
	uint64_t generation;
	uint64_t history[SB_HISTORY];
	uint64_t participants[SB_HISTORY];
	uint64_t ckpt_id;
	uint8_t owner[16];
	uint32_t block_bytes;
	unsigned int dev;
	unsigned int ndevs;
	unsigned int slice, slices; /* slices 0 or 1: whole devices */
	struct pool_cfg cfg; /* but for its uuid */
	struct sb_member members[POOL_DEVS_MAX];
};

/* Writes sb as the superblock of device sb->dev into SB_BYTES at buf. */
void superblock_build(const struct superblock *sb, void *buf);
/*
 * -ENODATA: no magic; -EUCLEAN: damaged (length, CRC, a field out of range, reserved bytes not zero); -EPROTONOSUPPORT: a newer
 * major version. *out is written on success only.
 */
int superblock_parse(const void *buf, size_t len, struct superblock *out);

#endif
