/* SPDX-License-Identifier: BSD-3-Clause */
/* The bytes on flash: superblocks, segment headers, fragment headers. What is written is read; what is damaged is refused. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/pool/superblock.h"
#include "dpu/stripelog/format.h"

static uint64_t rnd(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static const struct log_identity id = {.uuid = "0123456789abcdef", .key = "fedcba987654321"};

/* Puts the right CRC over what a test has changed. */
static void crc_fix(uint8_t *buf, size_t len, size_t at)
{
	le32 crc;

	memset(buf + at, 0, 4);
	crc = to_le32(crc32c(buf, len));
	memcpy(buf + at, &crc, 4);
}

/* ---- superblock ------------------------------------------------------------------------------------------- */

static struct superblock sb_sample(void)
{
	struct superblock sb = {.epoch = 7,
		.generation = 9,
		.block_bytes = 512,
		.dev = 2,
		.ndevs = 5,
		.cfg = {.name = "tank",
			.scheme = {3, 2},
			.on_degraded = POOL_DEGRADED_ALLOW,
			.allow_data_device = true,
			.segment_bytes = POOL_SEGMENT_DEFAULT}};

	memcpy(sb.pool_uuid, id.uuid, 16);
	memcpy(sb.key, id.key, 16);
	for (unsigned int i = 0; i < SB_HISTORY; i++)
		sb.history[i] = i * 77;
	for (unsigned int i = 0; i < sb.ndevs; i++) {
		memset(sb.members[i].uuid, (int)(i + 1), 16);
		snprintf(sb.members[i].name, 64, "f%u", i);
		snprintf(sb.members[i].domain, 64, "node%u", i / 2);
		sb.members[i].size_bytes = 1ull << 30;
		sb.members[i].nsegments = 64;
		sb.members[i].state = i % 3;
	}
	return sb;
}

static void a_superblock_reads_back(void **state)
{
	struct superblock sb = sb_sample(), got;
	uint8_t *buf = malloc(SB_BYTES);

	superblock_build(&sb, buf);
	assert_int_equal(superblock_parse(buf, SB_BYTES, &got), 0);
	assert_int_equal(got.epoch, 7);
	assert_int_equal(got.generation, 9);
	assert_int_equal(got.dev, 2);
	assert_int_equal(got.cfg.scheme.k, 3);
	assert_int_equal(got.cfg.on_degraded, POOL_DEGRADED_ALLOW);
	assert_true(got.cfg.allow_data_device);
	assert_string_equal(got.cfg.name, "tank");
	assert_memory_equal(got.history, sb.history, sizeof(sb.history));
	assert_string_equal(got.members[4].domain, "node2");
	assert_int_equal(superblock_parse(buf, SB_BYTES - 1, &got), -ENODATA);
	free(buf);
}

static void a_flipped_bit_anywhere_in_a_superblock_is_noticed(void **state)
{
	struct superblock sb = sb_sample(), got;
	uint8_t *buf = malloc(SB_BYTES);

	superblock_build(&sb, buf);
	for (uint32_t i = 0; i < SB_BYTES; i++) {
		buf[i] ^= (uint8_t)(1u << i % 8);
		assert_true(superblock_parse(buf, SB_BYTES, &got) < 0);
		buf[i] ^= (uint8_t)(1u << i % 8);
	}
	assert_int_equal(superblock_parse(buf, SB_BYTES, &got), 0);
	free(buf);
}

static void versions_of_superblocks_follow_the_rules(void **state)
{
	struct superblock sb = sb_sample(), got;
	uint8_t *buf = malloc(SB_BYTES);
	struct sb_disk *d = (struct sb_disk *)(void *)buf;

	superblock_build(&sb, buf);
	d->reserved[3] = 1;
	crc_fix(buf, SB_BYTES, offsetof(struct sb_disk, crc));
	assert_int_equal(superblock_parse(buf, SB_BYTES, &got), -EUCLEAN);
	d->minor = to_le16(SB_MINOR + 1);
	crc_fix(buf, SB_BYTES, offsetof(struct sb_disk, crc));
	assert_int_equal(superblock_parse(buf, SB_BYTES, &got), 0);
	d->major = to_le16(SB_MAJOR + 1);
	crc_fix(buf, SB_BYTES, offsetof(struct sb_disk, crc));
	assert_int_equal(superblock_parse(buf, SB_BYTES, &got), -EPROTONOSUPPORT);
	free(buf);
}

#define CUT ((1ull << 31) + 12345 * 512)

static struct superblock sb_sliced(void)
{
	struct superblock sb = sb_sample();

	sb.slice = 1;
	sb.slices = 2;
	for (unsigned int i = 0; i < sb.ndevs; i++)
		sb.members[i].cut_bytes = CUT; /* the sample's sizes are half of it, rounded */
	memset(&sb.members[3], 0, sizeof(sb.members[3]));
	sb.members[3].state = POOL_DEV_REMOVED;
	return sb;
}

static void a_superblock_of_a_slice_reads_back_and_is_of_the_next_major(void **state)
{
	struct superblock sb = sb_sliced(), got;
	uint8_t *buf = malloc(SB_BYTES);
	struct sb_disk *d = (struct sb_disk *)(void *)buf;

	superblock_build(&sb, buf);
	assert_int_equal(from_le16(d->major), 2); /* 1 would be opened as a whole device */
	assert_int_equal(superblock_parse(buf, SB_BYTES, &got), 0);
	assert_int_equal(got.slice, 1);
	assert_int_equal(got.slices, 2);
	assert_int_equal(got.members[0].cut_bytes, CUT);
	assert_int_equal(got.members[3].cut_bytes, 0);
	sb = sb_sample();
	sb.slices = 1; /* as flash_info has it */
	superblock_build(&sb, buf);
	assert_int_equal(from_le16(d->major), 1);
	assert_int_equal(superblock_parse(buf, SB_BYTES, &got), 0);
	assert_int_equal(got.slices, 0);
	free(buf);
}

static void slices_that_cannot_be_are_damage(void **state)
{
	static const struct {
		uint16_t major, slice, slices;
		unsigned int member;
		uint64_t cut, size;
	} bad[] = {
		{2, 0, 0, 0, CUT, 1ull << 30}, /* none */
		{2, 0, 1, 0, CUT, 1ull << 31},
		{2, 2, 2, 0, CUT, 1ull << 30}, /* not one of them */
		{2, 1, FLASH_SLICES_MAX + 1, 0, CUT, 1ull << 30},
		{2, 1, 2, 4, CUT, (1ull << 30) - 4096}, /* other than its width */
		{2, 1, 2, 4, CUT, 1ull << 31},
		{2, 1, 2, 4, 0, 1ull << 30},
		{2, 1, 2, 4, UINT64_MAX, 1ull << 30},
		{2, 1, 2, 4, 0, 0}, /* only a removed one has none */
		{2, 1, 2, 3, CUT, 1ull << 30},
		{2, 1, 2, 3, CUT, 0},
		{2, 1, 3, 0, CUT, 1ull << 30}, /* the others' width is another */
		{1, 1, 2, 0, CUT, 1ull << 30}, /* reserved in major 1 */
		{0, 1, 2, 0, CUT, 1ull << 30},
	};
	struct superblock sb = sb_sliced(), got;
	uint8_t *buf = malloc(SB_BYTES);
	struct sb_disk *d = (struct sb_disk *)(void *)buf;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		superblock_build(&sb, buf);
		d->major = to_le16(bad[i].major);
		d->slice = to_le16(bad[i].slice);
		d->slices = to_le16(bad[i].slices);
		d->members[bad[i].member].cut_bytes = to_le64(bad[i].cut);
		d->members[bad[i].member].size_bytes = to_le64(bad[i].size);
		crc_fix(buf, SB_BYTES, offsetof(struct sb_disk, crc));
		assert_int_equal(superblock_parse(buf, SB_BYTES, &got), -EUCLEAN);
	}
	/* One such field is enough in a whole one. */
	sb = sb_sample();
	for (unsigned int i = 0; i < 3; i++) {
		superblock_build(&sb, buf);
		d->slice = to_le16(i == 0);
		d->slices = to_le16(i == 1);
		d->members[2].cut_bytes = to_le64(i == 2);
		crc_fix(buf, SB_BYTES, offsetof(struct sb_disk, crc));
		assert_int_equal(superblock_parse(buf, SB_BYTES, &got), -EUCLEAN);
	}
	free(buf);
}

/* With a CRC that is right nothing may crash, and whatever is accepted is in range. */
static void nonsense_with_a_good_crc_is_contained(void **state)
{
	struct superblock sb = sb_sample(), got;
	uint8_t *good = malloc(SB_BYTES), *buf = malloc(SB_BYTES);
	uint64_t seed = 88172645463325252ull;

	for (unsigned int i = 0; i < 20000; i++) {
		if (i == 10000)
			sb = sb_sliced();
		if (i % 10000 == 0)
			superblock_build(&sb, good);
		memcpy(buf, good, SB_BYTES);
		for (unsigned int n = 0; n < 1 + i % 3; n++)
			buf[8 + rnd(&seed) % 1400] = (uint8_t)rnd(&seed);
		crc_fix(buf, SB_BYTES, offsetof(struct sb_disk, crc));
		if (superblock_parse(buf, SB_BYTES, &got) < 0)
			continue;
		assert_true(got.ndevs >= 1 && got.ndevs <= POOL_DEVS_MAX && got.dev < got.ndevs);
		assert_true(got.cfg.segment_bytes >= POOL_SEGMENT_MIN);
		assert_true(got.cfg.scheme.k >= 1 && got.cfg.scheme.m <= EC_M_MAX);
		assert_true(strlen(got.cfg.name) < 64);
		assert_true(got.slices <= FLASH_SLICES_MAX && got.slice < MAX(got.slices, 1u));
	}
	free(good);
	free(buf);
}

/* ---- segment header ----------------------------------------------------------------------------------------- */

static struct seg_hdr seg_sample(void)
{
	struct seg_hdr h = {.epoch = 3,
		.nonce = 0xabcdef,
		.generation = 3ull << 32 | 5,
		.segment_bytes = POOL_SEGMENT_MIN,
		.self = 4,
		.nmembers = 6,
		.k = 4,
		.m = 2};

	for (unsigned int i = 0; i < 6; i++) {
		h.members[i].dev = (uint8_t)(i + 1);
		h.members[i].segment = 100 + i;
	}
	return h;
}

static void a_segment_header_reads_back_and_flips_are_noticed(void **state)
{
	struct seg_hdr h = seg_sample(), got;
	uint8_t *buf = malloc(SEG_HDR_BYTES);
	struct log_identity other = id;

	seg_hdr_build(&id, &h, buf);
	assert_int_equal(seg_hdr_parse(&id, buf, SEG_HDR_BYTES, &got), 0);
	assert_int_equal(got.nonce, h.nonce);
	assert_int_equal(got.members[5].segment, 105);
	other.key[0] ^= 1;
	assert_int_equal(seg_hdr_parse(&other, buf, SEG_HDR_BYTES, &got), -ENODATA);
	for (uint32_t i = 0; i < SEG_HDR_BYTES; i++) {
		buf[i] ^= (uint8_t)(1u << i % 8);
		assert_true(seg_hdr_parse(&id, buf, SEG_HDR_BYTES, &got) < 0);
		buf[i] ^= (uint8_t)(1u << i % 8);
	}
	free(buf);
}

static void segment_headers_of_the_future_are_told_apart(void **state)
{
	struct seg_hdr h = seg_sample(), got;
	uint8_t *buf = malloc(SEG_HDR_BYTES);
	struct seg_disk *d = (struct seg_disk *)(void *)buf;

	seg_hdr_build(&id, &h, buf);
	d->major = to_le16(LOG_MAJOR + 1);
	d->crc = to_le32(crc32c(buf, SEG_HDR_BYTES - 4));
	assert_int_equal(seg_hdr_parse(&id, buf, SEG_HDR_BYTES, &got), -EPROTONOSUPPORT);
	d->major = to_le16(LOG_MAJOR);
	d->members[2].dev = d->members[1].dev; /* the same device twice */
	d->crc = to_le32(crc32c(buf, SEG_HDR_BYTES - 4));
	assert_int_equal(seg_hdr_parse(&id, buf, SEG_HDR_BYTES, &got), -EUCLEAN);
	free(buf);
}

/* ---- fragment header ---------------------------------------------------------------------------------------- */

struct sample {
	struct frag_hdr h;
	struct stripe_extent ext[EC_BLOCKS_MAX];
	uint32_t crc[EC_BLOCKS_MAX];
	struct record rec[STRIPELOG_RECORDS_MAX];
};

static uint8_t *frag_sample(struct sample *s, struct ec_scheme scheme, uint32_t nblocks,
	uint32_t nextents, uint32_t nrecords, uint32_t align)
{
	uint8_t *buf;

	memset(s, 0, sizeof(*s));
	if (nblocks)
		assert_int_equal(ec_geometry_of(scheme, nblocks, &s->h.geo), 0);
	else
		s->h.geo = (struct ec_geometry){.k = 1, .m = 3};
	s->h.scheme = scheme;
	s->h.epoch = 5;
	s->h.nonce = 99;
	s->h.number = 4711;
	s->h.watermark = 4700;
	s->h.excluded = 9;
	s->h.nextents = nextents;
	s->h.nrecords = nrecords;
	for (unsigned int i = 0; i < frag_count(&s->h); i++)
		s->h.addr[i] = (struct frag_addr){
			.dev = (uint8_t)i, .segment = 3 + i, .off = 4096 + 512 * i};
	for (uint32_t i = 0; i < nextents; i++) {
		uint32_t from = i * nblocks / nextents, to = (i + 1) * nblocks / nextents;

		s->ext[i] = (struct stripe_extent){
			.volume = i, .block = i * 1000, .nblocks = to - from, .seq = i + 1};
	}
	for (uint32_t i = 0; i < nblocks; i++)
		s->crc[i] = i * 0x01010101u;
	for (uint32_t i = 0; i < nrecords; i++) {
		s->rec[i].type = RECORD_STATE;
		s->rec[i].len = (uint8_t)(i * 37 % (RECORD_BODY_MAX + 1));
		memset(s->rec[i].body, (int)i, s->rec[i].len);
	}
	s->h.len_bytes = frag_hdr_bytes(frag_count(&s->h), nextents, nblocks, s->h.geo.rows,
		frag_records_bytes(s->rec, nrecords), align);
	assert_true(s->h.len_bytes > 0);
	buf = malloc(s->h.len_bytes);
	frag_hdr_build(&id, &s->h, s->ext, s->crc, s->rec, buf);
	return buf;
}

static void check_frag(const struct sample *s, uint8_t *buf, uint8_t place)
{
	uint32_t need, n = s->h.geo.nblocks ? ec_fragment_blocks(&s->h.geo, place) : 0,
		       own[EC_BLOCKS_MAX];
	struct frag_hdr got;
	struct record r;
	size_t pos = 0;

	for (uint32_t i = 0; i < n; i++)
		own[i] = i + 1000;
	frag_hdr_seal(buf, place, own, n);
	assert_true(frag_hdr_probe(&id, buf));
	assert_int_equal(frag_hdr_parse(&id, buf, s->h.len_bytes, &got, &need), 0);
	assert_int_equal(got.place, place);
	assert_int_equal(got.number, 4711);
	assert_int_equal(got.watermark, 4700);
	assert_int_equal(got.excluded, 9);
	assert_int_equal(got.geo.rows, s->h.geo.rows);
	for (uint32_t i = 0; i < got.geo.nblocks; i++)
		assert_int_equal(from_le32(got.block_crc[i]), s->crc[i]);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(from_le32(got.own_crc[i]), own[i]);
	for (uint32_t i = 0; i < got.nextents; i++)
		assert_int_equal(frag_hdr_extent(&got, i).block, i * 1000);
	for (uint32_t i = 0; i < s->h.nrecords; i++) {
		assert_true(frag_hdr_record(&got, &pos, &r));
		assert_int_equal(r.len, s->rec[i].len);
		assert_memory_equal(r.body, s->rec[i].body, r.len);
	}
	assert_false(frag_hdr_record(&got, &pos, &r));
}

static void fragment_headers_of_every_shape_read_back(void **state)
{
	static const struct {
		struct ec_scheme scheme;
		uint32_t n, ext, rec;
	} shapes[] = {{{4, 2}, 1, 1, 0}, {{4, 2}, 32, 32, 0}, {{4, 2}, 33, 7, 3}, {{1, 1}, 5, 2, 0},
		{{24, 8}, 1024, 1024, 64}, {{2, 8}, 1024, 1, 0}, {{0, 0}, 0, 0, 64},
		{{0, 0}, 0, 0, 1}};
	struct sample *s = malloc(sizeof(*s));

	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		uint8_t *buf = frag_sample(s, shapes[i].scheme, shapes[i].n, shapes[i].ext,
			shapes[i].rec, i % 2 ? 512 : 4096);

		for (unsigned int place = 0; place < frag_count(&s->h); place++)
			check_frag(s, buf, (uint8_t)place);
		free(buf);
	}
	free(s);
}

static void a_header_of_32_small_writes_fits_1536_bytes(void **state)
{
	assert_int_equal(frag_hdr_bytes(6, 32, 32, 8, 0, 512), 1536);
	assert_int_equal(frag_hdr_bytes(3, 1, 1, 1, 0, 512), 512);
	assert_int_equal(frag_hdr_bytes(32, 1024, 1024, 1024, 60000, 512), 0);
}

static void a_flipped_bit_anywhere_in_a_fragment_header_is_noticed(void **state)
{
	struct sample *s = malloc(sizeof(*s));
	uint8_t *buf = frag_sample(s, (struct ec_scheme){4, 2}, 32, 32, 2, 512);
	struct frag_hdr got;
	uint32_t need;

	frag_hdr_seal(buf, 5, s->crc, 8);
	for (uint32_t i = 0; i < s->h.len_bytes; i++) {
		for (unsigned int bit = 0; bit < 8; bit++) {
			buf[i] ^= (uint8_t)(1u << bit);
			assert_true(frag_hdr_parse(&id, buf, s->h.len_bytes, &got, &need) < 0);
			buf[i] ^= (uint8_t)(1u << bit);
		}
	}
	assert_int_equal(frag_hdr_parse(&id, buf, s->h.len_bytes, &got, &need), 0);
	free(buf);
	free(s);
}

static void a_short_buffer_says_how_much_is_needed(void **state)
{
	struct sample *s = malloc(sizeof(*s));
	uint8_t *buf = frag_sample(s, (struct ec_scheme){4, 2}, 200, 200, 0, 512), *part;
	struct frag_hdr got;
	uint32_t need = 0;

	frag_hdr_seal(buf, 0, s->crc, 50);
	for (uint32_t len = 0; len < s->h.len_bytes; len += 100) {
		part = malloc(len + 1);
		memcpy(part, buf, len);
		assert_int_equal(frag_hdr_parse(&id, part, len, &got, &need),
			len < sizeof(struct frag_disk) ? -ENODATA : -EMSGSIZE);
		free(part);
	}
	assert_int_equal(need, s->h.len_bytes);
	free(buf);
	free(s);
}

static void a_header_of_another_pool_or_a_newer_version_is_told_apart(void **state)
{
	struct sample *s = malloc(sizeof(*s));
	uint8_t *buf = frag_sample(s, (struct ec_scheme){4, 2}, 8, 1, 0, 512);
	struct log_identity other = id;
	struct frag_hdr got;
	uint32_t need;

	frag_hdr_seal(buf, 0, s->crc, 2);
	other.key[15] ^= 0x80;
	assert_int_equal(frag_hdr_parse(&other, buf, s->h.len_bytes, &got, &need), -ENODATA);
	other = id;
	other.uuid[0] ^= 1;
	assert_int_equal(frag_hdr_parse(&other, buf, s->h.len_bytes, &got, &need), -ENODATA);
	((struct frag_disk *)(void *)buf)->major = to_le16(LOG_MAJOR + 1);
	crc_fix(buf, s->h.len_bytes, offsetof(struct frag_disk, crc));
	assert_int_equal(frag_hdr_parse(&id, buf, s->h.len_bytes, &got, &need), -EPROTONOSUPPORT);
	free(buf);
	free(s);
}

/* Random changes under a right CRC: no crash, nothing read outside (the sanitizer watches), and what is accepted adds up. */
static void nonsense_in_a_fragment_header_with_a_good_crc_is_contained(void **state)
{
	struct sample *s = malloc(sizeof(*s));
	uint8_t *good = frag_sample(s, (struct ec_scheme){4, 2}, 20, 6, 5, 512), *buf;
	uint64_t seed = 0x9e3779b97f4a7c15ull;
	unsigned int accepted = 0;

	buf = malloc(s->h.len_bytes);
	frag_hdr_seal(good, 1, s->crc, 5);
	for (unsigned int i = 0; i < 100000; i++) {
		uint32_t need, sum = 0;
		struct frag_hdr got;
		struct record r;
		size_t pos = 0;

		memcpy(buf, good, s->h.len_bytes);
		for (unsigned int n = 0; n < 1 + i % 3; n++)
			buf[48 + rnd(&seed) % (s->h.len_bytes - 48)] = (uint8_t)rnd(&seed);
		crc_fix(buf, s->h.len_bytes, offsetof(struct frag_disk, crc));
		if (frag_hdr_parse(&id, buf, s->h.len_bytes, &got, &need) < 0)
			continue;
		accepted++;
		assert_true(got.place < frag_count(&got) && frag_count(&got) <= FRAGS_MAX);
		for (uint32_t e = 0; e < got.nextents; e++)
			sum += frag_hdr_extent(&got, e).nblocks;
		assert_int_equal(sum, got.geo.nblocks);
		while (frag_hdr_record(&got, &pos, &r))
			assert_true(r.len <= RECORD_BODY_MAX);
	}
	assert_true(accepted > 1000);
	free(buf);
	free(good);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_superblock_reads_back),
		cmocka_unit_test(a_flipped_bit_anywhere_in_a_superblock_is_noticed),
		cmocka_unit_test(versions_of_superblocks_follow_the_rules),
		cmocka_unit_test(a_superblock_of_a_slice_reads_back_and_is_of_the_next_major),
		cmocka_unit_test(slices_that_cannot_be_are_damage),
		cmocka_unit_test(nonsense_with_a_good_crc_is_contained),
		cmocka_unit_test(a_segment_header_reads_back_and_flips_are_noticed),
		cmocka_unit_test(segment_headers_of_the_future_are_told_apart),
		cmocka_unit_test(fragment_headers_of_every_shape_read_back),
		cmocka_unit_test(a_header_of_32_small_writes_fits_1536_bytes),
		cmocka_unit_test(a_flipped_bit_anywhere_in_a_fragment_header_is_noticed),
		cmocka_unit_test(a_short_buffer_says_how_much_is_needed),
		cmocka_unit_test(a_header_of_another_pool_or_a_newer_version_is_told_apart),
		cmocka_unit_test(nonsense_in_a_fragment_header_with_a_good_crc_is_contained),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
