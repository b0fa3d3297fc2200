/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Segment and fragment headers of the stripe log. Byte 0: bit 0: changes to a valid header (else raw bytes), bit 1: with a CRC
 * that fits, bit 2: a segment header.
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/stripelog/format.h"

#define EXTENTS_MAX 8

static const struct log_identity id = {.uuid = {1, 2, 3}, .key = {4, 5, 6}};
static uint8_t buf[FRAG_HDR_MAX];

/* ---- valid ones to begin with ---------------------------------------------------------------------------- */

static void make_segment(struct eater *e)
{
	struct seg_hdr h = {
		.epoch = 2, .nonce = 77, .generation = 2ull << 32 | 5, .segment_bytes = 16u << 20};

	h.nmembers = (uint8_t)(1 + eat8(e) % FRAGS_MAX);
	h.self = (uint8_t)(h.nmembers / 2);
	h.k = 4;
	h.m = 2;
	for (unsigned int i = 0; i < h.nmembers; i++) {
		h.members[i].dev = (uint8_t)(i * 2);
		h.members[i].segment = i + 7;
	}
	seg_hdr_build(&id, &h, buf);
}

static void make_fragment(struct eater *e)
{
	struct stripe_extent extents[EXTENTS_MAX];
	struct record rec[3] = {
		{.type = 1, .len = 5}, {.type = 9, .len = 0}, {.type = 2, .len = 238}};
	struct frag_hdr h = {.epoch = 2,
		.nonce = 77,
		.generation = 2ull << 32 | 5,
		.number = 42,
		.watermark = 40};
	uint32_t nblocks = eat8(e), crc[256] = {0}, own[256] = {0}, left;
	struct ec_scheme scheme = {
		(uint8_t)(1 + eat8(e) % EC_K_MAX), (uint8_t)(1 + eat8(e) % EC_M_MAX)};

	h.scheme = scheme;
	h.excluded = POOL_DEV_NONE;
	h.nrecords = eat8(e) % 4;
	h.geo = (struct ec_geometry){.k = 1, .m = scheme.m};
	if (nblocks && ec_geometry_of(scheme, nblocks, &h.geo) < 0)
		return;
	if (frag_count(&h) > FRAGS_MAX)
		return;
	for (left = nblocks; left && h.nextents < EXTENTS_MAX; h.nextents++) {
		uint32_t n = h.nextents == EXTENTS_MAX - 1 ? left : DIV_ROUND_UP(left, 2u);

		extents[h.nextents] = (struct stripe_extent){
			.block = h.nextents * 1000, .seq = 5, .volume = 1, .nblocks = n};
		left -= n;
	}
	for (unsigned int i = 0; i < frag_count(&h); i++)
		h.addr[i] = (struct frag_addr){
			.dev = (uint8_t)i, .segment = i + 7, .off = SEG_HDR_BYTES};
	h.len_bytes = frag_hdr_bytes(frag_count(&h), h.nextents, nblocks, h.geo.rows,
		frag_records_bytes(rec, h.nrecords), FRAG_HDR_UNIT);
	if (!h.len_bytes)
		return;
	frag_hdr_build(&id, &h, extents, crc, rec, buf);
	frag_hdr_seal(buf, 0, own, h.geo.rows);
}

static void fix_crc(bool segment)
{
	struct frag_disk *d = (struct frag_disk *)buf;
	uint32_t len = from_le32(d->len_bytes);

	if (segment) {
		((struct seg_disk *)buf)->crc = to_le32(
			crc32c(buf, offsetof(struct seg_disk, crc)));
	} else if (len >= sizeof(*d) && len <= sizeof(buf)) {
		d->crc = to_le32(0);
		d->crc = to_le32(crc32c(buf, len));
	}
}

/* ---- what must hold ------------------------------------------------------------------------------------------- */

static void check_fragment(const struct frag_hdr *h, size_t len)
{
	uint64_t blocks = 0;
	size_t pos = 0;
	uint32_t n = 0;
	struct record rec;
	uint8_t sum = 0;

	FUZZ_CHECK(h->len_bytes <= len && frag_count(h) >= 1 && frag_count(h) <= FRAGS_MAX);
	FUZZ_CHECK(h->place < frag_count(h));
	for (unsigned int i = 0; i < frag_count(h); i++)
		FUZZ_CHECK(h->addr[i].dev < POOL_DEVS_MAX && h->addr[i].off >= SEG_HDR_BYTES);
	for (uint32_t i = 0; i < h->nextents; i++)
		blocks += frag_hdr_extent(h, i).nblocks;
	FUZZ_CHECK(blocks == h->geo.nblocks);
	FUZZ_CHECK((uint64_t)h->geo.k * h->geo.rows >= h->geo.nblocks);
	/* Touch everything it says is there: the sanitizer judges. */
	for (uint32_t i = 0; i < h->geo.nblocks; i++)
		sum ^= h->block_crc[i].b[3];
	for (uint32_t i = 0; i < h->geo.rows; i++)
		sum ^= h->own_crc[i].b[3];
	while (frag_hdr_record(h, &pos, &rec)) {
		FUZZ_CHECK(rec.len <= RECORD_BODY_MAX);
		n++;
	}
	FUZZ_CHECK(n == h->nrecords);
	memcpy(&rec, &sum, 1); /* sum is used */
}

static void run_fragment(const uint8_t *p, size_t len)
{
	struct frag_hdr h;
	uint32_t need = 0;
	int rc = frag_hdr_parse(&id, p, len, &h, &need);

	if (rc == 0)
		check_fragment(&h, len);
	else if (rc == -EMSGSIZE)
		FUZZ_CHECK(need > len && need <= FRAG_HDR_MAX);
	else
		FUZZ_CHECK(rc == -ENODATA || rc == -EUCLEAN || rc == -EPROTONOSUPPORT);
}

static void run_segment(const uint8_t *p, size_t len)
{
	struct seg_hdr h;
	int rc = seg_hdr_parse(&id, p, len, &h);

	if (rc < 0) {
		FUZZ_CHECK(rc == -ENODATA || rc == -EUCLEAN || rc == -EPROTONOSUPPORT);
		return;
	}
	FUZZ_CHECK(h.nmembers >= 1 && h.nmembers <= FRAGS_MAX && h.self < h.nmembers);
	for (unsigned int i = 0; i < h.nmembers; i++)
		FUZZ_CHECK(h.members[i].dev < POOL_DEVS_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	uint8_t how = eat8(&e), *copy;
	bool segment = how & 4;
	size_t len;

	memset(buf, 0, sizeof(buf));
	if (how & 1) {
		if (segment)
			make_segment(&e);
		else
			make_fragment(&e);
		len = segment ? SEG_HDR_BYTES
			      : MIN(MAX(from_le32(((struct frag_disk *)buf)->len_bytes), 144u),
					FRAG_HDR_MAX);
		eat_patches(&e, buf, len);
	} else {
		len = MIN(e.left, sizeof(buf));
		eat_bytes(&e, buf, len);
	}
	if (how & 2)
		fix_crc(segment);
	/* A buffer of exactly this size: one byte too far is seen. */
	copy = malloc(len ? len : 1);
	FUZZ_CHECK(copy);
	memcpy(copy, buf, len);
	if (segment)
		run_segment(copy, len);
	else
		run_fragment(copy, len);
	free(copy);
	return 0;
}
