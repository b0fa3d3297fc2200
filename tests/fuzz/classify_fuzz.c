/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The software classifier. Byte 0: how long the frame is and whether it is raw or changes to a good one. Whatever is let into the
 * stack is looked at again, at fixed offsets, by code that shares nothing with the classifier.
 */
#include "tests/fuzz/fuzz.h"

#include "dpu/flow/classify.h"

#define FRAME_MAX 256

static const struct classify_card card = {.ip = 0x0a010001, .mac = {2, 0x50, 0, 0, 0, 1}};

static const uint8_t good_tcp[FRAME_MAX] = {2, 0x50, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9, 0x08,
	0x00, /* Ethernet */
	0x45, 0, 0, 60, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 1, 0, 2, 10, 1, 0, 1, /* IPv4 */
	0x9c, 0x40, 0x11, 0x44, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff}; /* TCP to 4420 */
static const uint8_t good_arp[FRAME_MAX] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 9,
	0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 9, 10, 1, 0, 2, 0, 0, 0, 0, 0, 0, 10,
	1, 0, 1};

static uint32_t be(const uint8_t *p, int n)
{
	uint32_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

static void check_tcp(const uint8_t *f, size_t len, uint32_t port)
{
	uint32_t ihl = (f[14] & 15u) * 4, total;

	FUZZ_CHECK(len >= 54 && !memcmp(f, card.mac, 6) && be(f + 12, 2) == 0x0800);
	total = be(f + 16, 2);
	FUZZ_CHECK(f[14] >> 4 == 4 && ihl >= 20 && total >= ihl + 20 && 14 + total <= len);
	FUZZ_CHECK(!(f[20] & 0x3f) && !f[21]); /* no fragment */
	FUZZ_CHECK(f[23] == 6 && be(f + 30, 4) == card.ip && be(f + 26, 4) != card.ip);
	FUZZ_CHECK(f[26] != 0 && f[26] != 127 && f[26] < 224);
	FUZZ_CHECK(be(f + 14 + ihl + 2, 2) == port);
	FUZZ_CHECK((f[14 + ihl + 12] >> 4) >= 5 && (f[14 + ihl + 12] >> 4) * 4u <= total - ihl);
}

static void check_from_vf(const uint8_t *f, size_t len)
{
	switch (classify_from_vf(&card, f, len)) {
	case CLASSIFY_ARP:
		FUZZ_CHECK(len >= 42 && be(f + 12, 2) == 0x0806 && be(f + 38, 4) == card.ip);
		FUZZ_CHECK(!memcmp(f, card.mac, 6) || be(f, 4) == 0xffffffff);
		FUZZ_CHECK(!memcmp(f + 6, f + 22, 6) && be(f + 28, 4) != card.ip);
		break;
	case CLASSIFY_NVME:
		check_tcp(f, len, 4420);
		break;
	case CLASSIFY_DISCOVERY:
		check_tcp(f, len, 8009);
		break;
	case CLASSIFY_REST: /* never to the card's MAC, never from a group address */
		FUZZ_CHECK(len >= 14 && memcmp(f, card.mac, 6) && !(f[6] & 1));
		break;
	default:
		FUZZ_CHECK(len < 14 || (f[6] & 1) || !memcmp(f + 6, card.mac, 6) ||
			   !memcmp(f, card.mac, 6));
	}
}

static void check_to_vf(const uint8_t *f, size_t len)
{
	size_t at = 12;

	if (!classify_to_vf(&card, f, len))
		return;
	FUZZ_CHECK(len >= 14 && memcmp(f + 6, card.mac, 6) && memcmp(f, card.mac, 6));
	while (at + 6 <= len && (be(f + at, 2) == 0x8100 || be(f + at, 2) == 0x88a8))
		at += 4;
	if (be(f + at, 2) == 0x0800 && len >= at + 22)
		FUZZ_CHECK(be(f + at + 14, 4) != card.ip);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	uint8_t how = eat8(&e), frame[FRAME_MAX], *exact;
	size_t len = FRAME_MAX - (how >> 2) * 4u;

	if (how & 1) {
		memcpy(frame, how & 2 ? good_arp : good_tcp, sizeof(frame));
		eat_patches(&e, frame, sizeof(frame));
	} else {
		len = e.left < sizeof(frame) ? e.left : sizeof(frame);
		eat_bytes(&e, frame, sizeof(frame));
	}
	exact = malloc(len ? len : 1); /* so that a read beyond the end is seen */
	FUZZ_CHECK(exact);
	memcpy(exact, frame, len);
	check_from_vf(exact, len);
	check_to_vf(exact, len);
	free(exact);
	return 0;
}
