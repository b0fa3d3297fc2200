/* SPDX-License-Identifier: BSD-3-Clause */
/* The software classifier on hand-made frames: what enters the stack, what is forwarded, what is dropped. */
#include <string.h>

#include "common/base/endian.h"
#include "common/base/util.h"
#include "dpu/flow/classify.h"

#define CARD_IP 0x0a010001u /* 10.1.0.1 */
#define VM_IP   0x0a010002u

static const struct classify_card card = {.ip = CARD_IP, .mac = {2, 0x50, 0, 0, 0, 1}};
static const uint8_t vm_mac[6] = {2, 0, 0, 0, 0, 9};
static const uint8_t other_mac[6] = {2, 0, 0, 0, 0, 7};
static const uint8_t bcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

struct frame {
	uint8_t b[1518];
	size_t len;
};

static void put(struct frame *f, const void *p, size_t n)
{
	memcpy(f->b + f->len, p, n);
	f->len += n;
}
static void put16(struct frame *f, uint16_t v)
{
	be16 x = to_be16(v);

	put(f, &x, 2);
}
static void put32(struct frame *f, uint32_t v)
{
	be32 x = to_be32(v);

	put(f, &x, 4);
}
static void eth(struct frame *f, const uint8_t *dst, const uint8_t *src, uint16_t type)
{
	f->len = 0;
	put(f, dst, 6);
	put(f, src, 6);
	put16(f, type);
}

static void arp(struct frame *f, const uint8_t *dst, uint16_t op, uint32_t spa, uint32_t tpa)
{
	static const uint8_t none[6];

	eth(f, dst, vm_mac, 0x0806);
	put16(f, 1);
	put16(f, 0x0800);
	put(f, "\x06\x04", 2);
	put16(f, op);
	put(f, vm_mac, 6);
	put32(f, spa);
	put(f, none, 6);
	put32(f, tpa);
}

/* A TCP segment with ihl words of IP header and payload bytes. */
static void tcp(struct frame *f, uint32_t dst_ip, uint16_t port, unsigned int ihl, size_t payload)
{
	static const uint8_t zeros[1460];

	eth(f, card.mac, vm_mac, 0x0800);
	put(f, (uint8_t[]){(uint8_t)(0x40 | ihl), 0}, 2);
	put16(f, (uint16_t)(ihl * 4 + 20 + payload));
	put32(f, 0); /* id, flags */
	put(f, "\x40\x06\0\0", 4);
	put32(f, VM_IP);
	put32(f, dst_ip);
	put(f, zeros, (ihl - 5) * 4);
	put16(f, 40000);
	put16(f, port);
	put32(f, 1);
	put32(f, 0);
	put(f, "\x50\x02\xff\xff\0\0\0\0", 8);
	put(f, zeros, payload);
}

static enum classify_rule judge(const struct frame *f)
{
	return classify_from_vf(&card, f->b, f->len);
}

static void storage_connections_are_the_cards(void **state)
{
	struct frame f;

	tcp(&f, CARD_IP, 4420, 5, 100);
	assert_int_equal(judge(&f), CLASSIFY_NVME);
	tcp(&f, CARD_IP, 8009, 5, 0);
	assert_int_equal(judge(&f), CLASSIFY_DISCOVERY);
	/* Padded to the shortest Ethernet frame. */
	put(&f, "\0\0\0\0\0\0", 6);
	assert_int_equal(judge(&f), CLASSIFY_DISCOVERY);
	/* IP options are stepped over. */
	tcp(&f, CARD_IP, 4420, 15, 8);
	assert_int_equal(judge(&f), CLASSIFY_NVME);
}

static void nothing_else_addressed_to_the_card_enters(void **state)
{
	struct frame f;

	tcp(&f, CARD_IP, 22, 5, 0);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	tcp(&f, CARD_IP, 4421, 5, 0);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	/* To another address: lwIP would forward it between its interfaces. */
	tcp(&f, 0x0a020002, 4420, 5, 0);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	tcp(&f, CARD_IP, 4420, 5, 0);
	f.b[23] = 1; /* ICMP */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	f.b[23] = 17; /* UDP */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	eth(&f, card.mac, vm_mac, 0x86dd);
	put(&f, "\x60\0\0\0", 4);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	eth(&f, card.mac, vm_mac, 0x8100);
	put(&f, "\0\0\x08\0", 4);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
}

static void impossible_senders_do_not_enter(void **state)
{
	static const uint32_t bad[] = {0, CARD_IP, 0x7f000001, 0xe0000001, 0xffffffff};
	struct frame f;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		be32 src = to_be32(bad[i]);

		tcp(&f, CARD_IP, 4420, 5, 0);
		memcpy(f.b + 26, &src, 4);
		assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	}
	tcp(&f, CARD_IP, 4420, 5, 0);
	memcpy(f.b + 6, card.mac, 6);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	memcpy(f.b + 6, bcast, 6);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
}

static void fragments_and_wrong_lengths_do_not_enter(void **state)
{
	struct frame f;
	be16 v;

	tcp(&f, CARD_IP, 4420, 5, 100);
	f.b[20] = 0x20; /* more fragments */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	f.b[20] = 0;
	f.b[21] = 1; /* offset */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	f.b[20] = 0x40; /* don't fragment is fine */
	f.b[21] = 0;
	assert_int_equal(judge(&f), CLASSIFY_NVME);

	v = to_be16(141); /* longer than the frame */
	memcpy(f.b + 16, &v, 2);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	v = to_be16(39); /* shorter than its headers */
	memcpy(f.b + 16, &v, 2);
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);

	tcp(&f, CARD_IP, 4420, 5, 0);
	f.b[14] = 0x44; /* header length under 20 */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	f.b[14] = 0x4f; /* options that are not there */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	f.b[14] = 0x65; /* version 6 */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	tcp(&f, CARD_IP, 4420, 5, 0);
	f.b[46] = 0x40; /* TCP header under 20 */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
	f.b[46] = 0x60; /* longer than the packet */
	assert_int_equal(judge(&f), CLASSIFY_UNSERVED);
}

static void every_cut_of_a_good_frame_is_dropped(void **state)
{
	struct frame f;

	tcp(&f, CARD_IP, 4420, 7, 40);
	for (size_t n = 0; n < f.len; n++) {
		/* An exact copy, so that a sanitizer sees a read beyond the end. */
		autofree uint8_t *p = malloc(n ? n : 1);

		assert_non_null(p);
		memcpy(p, f.b, n);
		assert_int_equal(classify_from_vf(&card, p, n), CLASSIFY_UNSERVED);
	}
	arp(&f, card.mac, 1, VM_IP, CARD_IP);
	for (size_t n = 0; n < f.len; n++)
		assert_int_equal(classify_from_vf(&card, f.b, n), CLASSIFY_UNSERVED);
}

static void arp_for_the_card_is_the_cards_other_arp_is_forwarded(void **state)
{
	struct frame f;

	arp(&f, bcast, 1, VM_IP, CARD_IP);
	assert_int_equal(judge(&f), CLASSIFY_ARP);
	arp(&f, bcast, 1, 0, CARD_IP); /* a probe for duplicates */
	assert_int_equal(judge(&f), CLASSIFY_ARP);
	arp(&f, card.mac, 2, VM_IP, CARD_IP); /* the answer to ours */
	assert_int_equal(judge(&f), CLASSIFY_ARP);
	arp(&f, bcast, 1, VM_IP, 0x0a0100fe);
	assert_int_equal(judge(&f), CLASSIFY_REST);
	arp(&f, other_mac, 2, VM_IP, CARD_IP);
	assert_int_equal(judge(&f), CLASSIFY_REST);
	arp(&f, bcast, 1, CARD_IP, CARD_IP); /* claims the card's address */
	assert_int_equal(judge(&f), CLASSIFY_REST);
	arp(&f, bcast, 1, VM_IP, CARD_IP); /* in somebody else's name */
	memcpy(f.b + 22, other_mac, 6);
	assert_int_equal(judge(&f), CLASSIFY_REST);
	arp(&f, bcast, 1, VM_IP, CARD_IP);
	f.b[18] = 8; /* hardware address length */
	assert_int_equal(judge(&f), CLASSIFY_REST);
}

static void the_vms_other_traffic_is_forwarded(void **state)
{
	struct frame f;

	/* Even with the card's IP: where it goes is what its MAC says. */
	tcp(&f, CARD_IP, 4420, 5, 10);
	memcpy(f.b, other_mac, 6);
	assert_int_equal(judge(&f), CLASSIFY_REST);
	eth(&f, other_mac, vm_mac, 0x86dd);
	assert_int_equal(judge(&f), CLASSIFY_REST);
	eth(&f, bcast, vm_mac, 0x8100);
	assert_int_equal(judge(&f), CLASSIFY_REST);
	eth(&f, (const uint8_t[]){1, 0, 0x5e, 0, 0, 1}, vm_mac, 0x0800);
	assert_int_equal(judge(&f), CLASSIFY_REST);
}

static bool passes(const struct frame *f)
{
	return classify_to_vf(&card, f->b, f->len);
}

static void nobody_else_speaks_to_the_vm_in_the_cards_name(void **state)
{
	struct frame f;
	be32 ip = to_be32(CARD_IP);

	tcp(&f, VM_IP, 5000, 5, 10);
	memcpy(f.b, vm_mac, 6);
	memcpy(f.b + 6, other_mac, 6);
	assert_true(passes(&f));
	memcpy(f.b + 26, &ip, 4); /* source: the card */
	assert_false(passes(&f));
	memcpy(f.b + 26, "\x0a\x01\x00\x09", 4);
	memcpy(f.b + 6, card.mac, 6);
	assert_false(passes(&f));

	arp(&f, vm_mac, 2, CARD_IP, VM_IP);
	assert_false(passes(&f));
	arp(&f, vm_mac, 2, 0x0a0100fe, VM_IP);
	assert_true(passes(&f));

	/* Behind tags too; an endless stack of tags does not pass. */
	eth(&f, vm_mac, other_mac, 0x8100);
	put(&f, "\0\x05\x08\x06", 4);
	put(&f, "\0\x01\x08\0\x06\x04\0\x02", 8);
	put(&f, other_mac, 6);
	put32(&f, CARD_IP);
	put(&f, vm_mac, 6);
	put32(&f, VM_IP);
	assert_false(passes(&f));
	f.b[35] ^= 4; /* another sender address */
	assert_true(passes(&f));
	eth(&f, vm_mac, other_mac, 0x8100);
	for (int i = 0; i < 6; i++)
		put(&f, "\0\x05\x81\0", 4);
	assert_false(passes(&f));
	for (size_t n = 0; n < 14; n++)
		assert_false(classify_to_vf(&card, f.b, n));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(storage_connections_are_the_cards),
		cmocka_unit_test(nothing_else_addressed_to_the_card_enters),
		cmocka_unit_test(impossible_senders_do_not_enter),
		cmocka_unit_test(fragments_and_wrong_lengths_do_not_enter),
		cmocka_unit_test(every_cut_of_a_good_frame_is_dropped),
		cmocka_unit_test(arp_for_the_card_is_the_cards_other_arp_is_forwarded),
		cmocka_unit_test(the_vms_other_traffic_is_forwarded),
		cmocka_unit_test(nobody_else_speaks_to_the_vm_in_the_cards_name),
	};

	return cmocka_run_group_tests_name("classify", tests, NULL, NULL);
}
