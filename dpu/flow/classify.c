/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/flow/classify.h"

#include <string.h>

#include "common/base/endian.h"
#include "common/base/reader.h"

#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP  0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_QINQ 0x88a8
#define IPPROTO_TCP_   6
/* Tags looked through on the way to a VM; a deeper stack is refused there. */
#define VLAN_DEPTH 4

struct eth_hdr {
	uint8_t dst[6], src[6];
	be16 type;
};

struct arp_ipv4 { /* RFC 826 */
	be16 hw_type, proto_type;
	uint8_t hw_len, proto_len;
	be16 op;
	uint8_t sender_mac[6];
	be32 sender_ip;
	uint8_t target_mac[6];
	be32 target_ip;
};

struct ipv4_hdr { /* RFC 791 */
	uint8_t ver_ihl, tos;
	be16 total_len, id, frag;
	uint8_t ttl, proto;
	be16 checksum;
	be32 src, dst;
};

struct tcp_hdr { /* RFC 9293 */
	be16 src, dst;
	be32 seq, ack;
	uint8_t off, flags;
	be16 window, checksum, urgent;
};

_Static_assert(sizeof(struct eth_hdr) == 14, "Ethernet header");
_Static_assert(sizeof(struct arp_ipv4) == 28, "ARP for IPv4");
_Static_assert(sizeof(struct ipv4_hdr) == 20, "IPv4 header");
_Static_assert(sizeof(struct tcp_hdr) == 20, "TCP header");

static bool same_mac(const uint8_t *a, const uint8_t *b)
{
	return memcmp(a, b, 6) == 0;
}

static bool broadcast_mac(const uint8_t *m)
{
	static const uint8_t all[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	return same_mac(m, all);
}

/* Neither unspecified, loopback, multicast, reserved, broadcast nor the card itself. */
static bool possible_neighbour(const struct classify_card *card, uint32_t ip)
{
	return ip != card->ip && (ip >> 24) != 0 && (ip >> 24) != 127 && (ip >> 28) < 14;
}

static const struct arp_ipv4 *arp_get(struct reader *r)
{
	const struct arp_ipv4 *a = reader_get(r, sizeof(*a));

	if (!a || from_be16(a->hw_type) != 1 || from_be16(a->proto_type) != ETHERTYPE_IPV4 ||
		a->hw_len != 6 || a->proto_len != 4)
		return NULL;
	return a;
}

/* ARP about the card's address: from the VM itself, as a probe (sender 0.0.0.0) too. */
static bool arp_for_card(
	const struct classify_card *card, const struct eth_hdr *eth, struct reader *r)
{
	const struct arp_ipv4 *a = arp_get(r);
	uint32_t sender;

	if (!a || from_be32(a->target_ip) != card->ip || !same_mac(a->sender_mac, eth->src))
		return false;
	sender = from_be32(a->sender_ip);
	return sender == 0 || possible_neighbour(card, sender);
}

/* An unfragmented TCP segment whose headers are all there and lie within both the packet and the frame. */
static enum classify_rule tcp_for_card(const struct classify_card *card, struct reader *r)
{
	const struct ipv4_hdr *ip = reader_get(r, sizeof(*ip));
	const struct tcp_hdr *tcp;
	size_t ihl, total, options;

	if (!ip || ip->ver_ihl >> 4 != 4 || ip->proto != IPPROTO_TCP_)
		return CLASSIFY_UNSERVED;
	ihl = (ip->ver_ihl & 15u) * 4u;
	total = from_be16(ip->total_len);
	if (ihl < sizeof(*ip) || total < ihl + sizeof(*tcp) || total - sizeof(*ip) > r->left)
		return CLASSIFY_UNSERVED;
	if (from_be16(ip->frag) & 0x3fff) /* more fragments, or an offset */
		return CLASSIFY_UNSERVED;
	if (from_be32(ip->dst) != card->ip || !possible_neighbour(card, from_be32(ip->src)))
		return CLASSIFY_UNSERVED;
	options = ihl - sizeof(*ip);
	if (!reader_get(r, options))
		return CLASSIFY_UNSERVED;
	tcp = reader_get(r, sizeof(*tcp));
	if (!tcp || (tcp->off >> 4) * 4u < sizeof(*tcp) || (tcp->off >> 4) * 4u > total - ihl)
		return CLASSIFY_UNSERVED;
	switch (from_be16(tcp->dst)) {
	case CLASSIFY_PORT_NVME:
		return CLASSIFY_NVME;
	case CLASSIFY_PORT_DISCOVERY:
		return CLASSIFY_DISCOVERY;
	default:
		return CLASSIFY_UNSERVED;
	}
}

enum classify_rule classify_from_vf(
	const struct classify_card *card, const uint8_t *frame, size_t len_bytes)
{
	struct reader r = reader_of(frame, len_bytes);
	const struct eth_hdr *eth = reader_get(&r, sizeof(*eth));
	bool to_card;

	/* A group address or the card's own cannot be a source. */
	if (!eth || (eth->src[0] & 1) || same_mac(eth->src, card->mac))
		return CLASSIFY_UNSERVED;
	to_card = same_mac(eth->dst, card->mac);
	if (from_be16(eth->type) == ETHERTYPE_ARP && (to_card || broadcast_mac(eth->dst)) &&
		arp_for_card(card, eth, &r))
		return CLASSIFY_ARP;
	if (!to_card)
		return CLASSIFY_REST;
	if (from_be16(eth->type) == ETHERTYPE_IPV4)
		return tcp_for_card(card, &r);
	return CLASSIFY_UNSERVED;
}

bool classify_to_vf(const struct classify_card *card, const uint8_t *frame, size_t len_bytes)
{
	struct reader r = reader_of(frame, len_bytes);
	const struct eth_hdr *eth = reader_get(&r, sizeof(*eth));
	const be16 *type;
	uint16_t t;

	if (!eth || same_mac(eth->src, card->mac) || same_mac(eth->dst, card->mac))
		return false;
	t = from_be16(eth->type);
	for (int depth = 0; t == ETHERTYPE_VLAN || t == ETHERTYPE_QINQ; depth++) {
		if (depth == VLAN_DEPTH || !reader_get(&r, sizeof(be16)))
			return false;
		type = reader_get(&r, sizeof(*type));
		if (!type)
			return false;
		t = from_be16(*type);
	}
	if (t == ETHERTYPE_ARP) {
		const struct arp_ipv4 *a = arp_get(&r);

		return !a || from_be32(a->sender_ip) != card->ip;
	}
	if (t == ETHERTYPE_IPV4) {
		const struct ipv4_hdr *ip = reader_get(&r, sizeof(*ip));

		return !ip || from_be32(ip->src) != card->ip;
	}
	return true;
}
