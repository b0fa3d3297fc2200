/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The software classifier: what a frame of a VF is, judged from its bytes alone. A pure function, free of DPDK; the
 * bytes are hostile. Whatever it calls the card's is complete enough to be fed to a TCP/IP stack that would
 * otherwise forward, answer or reassemble: an ARP packet about the card's address, or an unfragmented TCP segment from a
 * possible neighbour to the card's MAC and IP address on a storage port.
 *
 *	frame addressed to            what                                        verdict
 *	card's MAC or broadcast       ARP, target is the card's IP                card
 *	card's MAC                    IPv4 TCP to the card's IP, 4420 / 8009      card
 *	card's MAC                    anything else, fragments, malformed         drop
 *	any other                     (ARP for others, VLAN, IPv6, ...)           forward
 *	shorter than a header                                                     drop
 *
 * Thread: any.
 */
#ifndef DPU_FLOW_CLASSIFY_H
#define DPU_FLOW_CLASSIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLASSIFY_PORT_NVME      4420
#define CLASSIFY_PORT_DISCOVERY 8009

/* The rules, in the order they are tried. */
enum classify_rule {
	CLASSIFY_ARP,
	CLASSIFY_NVME,
	CLASSIFY_DISCOVERY,
	CLASSIFY_UNSERVED, /* to the card's MAC, but nothing it serves; or malformed: dropped */
	CLASSIFY_REST, /* everything else: forwarded */
	CLASSIFY_RULES
};

struct classify_card {
	uint32_t ip; /* host order */
	uint8_t mac[6];
};

/* frame: from the destination MAC on, without FCS; len_bytes: what can be read there, at least all headers of a frame
 * that is the card's (else it is unserved). */
enum classify_rule classify_from_vf(
	const struct classify_card *card, const uint8_t *frame, size_t len_bytes);

/* A frame that others send to the VM: false when it speaks in the card's name (its MAC, its IP as the source of
 * IPv4 or ARP, VLAN tags or not) or is addressed to the card's MAC. */
bool classify_to_vf(const struct classify_card *card, const uint8_t *frame, size_t len_bytes);

#endif
