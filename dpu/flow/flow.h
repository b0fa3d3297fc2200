/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which frames of a VF are the card's: rules per VF. Storage (ARP for the card's address, TCP to it on ports 4420
 * and 8009) goes to the card, the rest to the uplink. A rule is put into hardware by rte_flow where the port takes it (transfer
 * rules where supported, else a receive queue of its own), else the software classifier does it. Whatever the hardware
 * sends up is judged by the classifier again: only what it calls the card's ever reaches the stack.
 *
 * Thread: the shard's. Ownership: a flow belongs to its caller and is closed before its port's set.
 * Errors: 0 or -errno; a rule that hardware refuses is not an error, flow_rule_get() says why.
 *
 *	flow_open(&(struct flow_cfg){.port = p, .uplink = port_uplink(ps), .card_ip = ip, .vm = "web1"}, &f, &e);
 *	for (i = 0; flow_rule_get(f, i, &info) == 0; i++)
 *		...
 *	flow_close(f);
 */
#ifndef DPU_FLOW_FLOW_H
#define DPU_FLOW_FLOW_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "dpu/port/port.h"

struct flow;

struct flow_cfg {
	struct port *port; /* the VF's; one flow per port */
	struct port *uplink; /* or NULL */
	const char *vm; /* name, for listings; copied */
	uint32_t card_ip; /* IPv4 in host order */
	uint8_t card_mac[6]; /* all zero: flow_card_mac() */
	bool software_only; /* do not try hardware */
};

/* The card's MAC address on a VF: derived from VF name and address, so that it survives a restart of the card. */
void flow_card_mac(const char *vf_name, uint32_t card_ip, uint8_t mac[6]);

int flow_open(const struct flow_cfg *cfg, struct flow **out, struct err *e);
void flow_close(struct flow *f); /* NULL is allowed */

struct flow_rule_info {
	char vm[64];
	char port[PORT_NAME_MAX];
	char match[64]; /* "tcp 10.0.0.2 port 4420" */
	char action[32]; /* "card", "uplink" */
	char provider[24]; /* "rte_flow transfer", "rte_flow queue 1", "software" */
	char reason[128]; /* software: why hardware did not take it; else empty */
	bool hw_counted; /* the device counts this rule */
	uint64_t hw_packets, hw_bytes;
	uint64_t packets, bytes; /* that came up to the card's processors and matched */
};

/* Rule i, in the order they are tried; -ENOENT beyond the last. Asks the device for its counters. */
int flow_rule_get(struct flow *f, unsigned int i, struct flow_rule_info *info);

#endif
