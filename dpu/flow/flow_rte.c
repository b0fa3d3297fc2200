/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The only file that speaks rte_flow. Two providers: transfer rules in the embedded switch (a VF's frames are matched
 * where they leave the VF, and need not come up at all), and receive rules on the port (matching frames come up in the card's
 * queue). Drivers accept different spellings of the same rule; the narrow ones are tried first. What a driver's validate
 * says is not asked: only a rule that was created exists.
 */
/* Transfer proxies are experimental in 22.11. */
#define ALLOW_EXPERIMENTAL_API
#include "common/base/util.h"

#include <rte_errno.h>
#include <rte_flow.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dpu/flow/flow_priv.h"

#define CARD_QUEUE 1
#define MAX_ITEMS  6
#define MAX_ACTS   4
#define PRIO_CARD  0
#define PRIO_REST  1

/* A rule while it is spelt; pattern and actions point into the rest. */
struct spelling {
	struct rte_flow_item item[MAX_ITEMS];
	struct rte_flow_action act[MAX_ACTS];
	int nitems, nacts;
	struct rte_flow_item_ethdev from, from_mask;
	struct rte_flow_item_eth eth, eth_mask;
	struct rte_flow_item_ipv4 ip, ip_mask;
	struct rte_flow_item_tcp tcp, tcp_mask;
	struct rte_flow_item_arp_eth_ipv4 arp, arp_mask;
	struct rte_flow_action_queue queue;
	struct rte_flow_action_ethdev to;
};

/* How narrow, and whether the device is asked to count. */
struct variant {
	bool eth_dst, count;
};
static const struct variant variants[] = {
	{true, true}, {true, false}, {false, true}, {false, false}};

static void item_add(
	struct spelling *s, enum rte_flow_item_type type, const void *spec, const void *mask)
{
	s->item[s->nitems++] = (struct rte_flow_item){.type = type, .spec = spec, .mask = mask};
}

static void act_add(struct spelling *s, enum rte_flow_action_type type, const void *conf)
{
	s->act[s->nacts++] = (struct rte_flow_action){.type = type, .conf = conf};
}

static void match_ethernet(
	struct spelling *s, const struct flow *f, const struct variant *v, enum classify_rule kind)
{
	bool spec = true;

	if (kind == CLASSIFY_REST) {
		/* Unicast only: group frames come up, so that the bridge floods them and learns the VM's address. */
		s->eth_mask.hdr.dst_addr.addr_bytes[0] = 1;
	} else if (v->eth_dst && kind != CLASSIFY_ARP) {
		memcpy(s->eth.hdr.dst_addr.addr_bytes, f->card.mac, sizeof(f->card.mac));
		memset(s->eth_mask.hdr.dst_addr.addr_bytes, 0xff, sizeof(f->card.mac));
	} else if (kind == CLASSIFY_ARP) {
		s->eth.hdr.ether_type = RTE_BE16(RTE_ETHER_TYPE_ARP);
		s->eth_mask.hdr.ether_type = RTE_BE16(0xffff);
	} else {
		spec = false;
	}
	item_add(s, RTE_FLOW_ITEM_TYPE_ETH, spec ? &s->eth : NULL, spec ? &s->eth_mask : NULL);
}

static void match_storage(struct spelling *s, const struct flow *f, enum classify_rule kind)
{
	s->ip.hdr.dst_addr = rte_cpu_to_be_32(f->card.ip);
	s->ip_mask.hdr.dst_addr = RTE_BE32(0xffffffff);
	s->ip.hdr.next_proto_id = IPPROTO_TCP; /* some drivers want it said, TCP item or not */
	s->ip_mask.hdr.next_proto_id = 0xff;
	item_add(s, RTE_FLOW_ITEM_TYPE_IPV4, &s->ip, &s->ip_mask);
	s->tcp.hdr.dst_port = rte_cpu_to_be_16(
		kind == CLASSIFY_NVME ? CLASSIFY_PORT_NVME : CLASSIFY_PORT_DISCOVERY);
	s->tcp_mask.hdr.dst_port = RTE_BE16(0xffff);
	item_add(s, RTE_FLOW_ITEM_TYPE_TCP, &s->tcp, &s->tcp_mask);
}

static void match(
	struct spelling *s, const struct flow *f, const struct variant *v, enum classify_rule kind)
{
	match_ethernet(s, f, v, kind);
	if (kind == CLASSIFY_NVME || kind == CLASSIFY_DISCOVERY)
		match_storage(s, f, kind);
	if (kind == CLASSIFY_ARP && v->eth_dst) {
		s->arp.tpa = rte_cpu_to_be_32(f->card.ip);
		s->arp_mask.tpa = RTE_BE32(0xffffffff);
		item_add(s, RTE_FLOW_ITEM_TYPE_ARP_ETH_IPV4, &s->arp, &s->arp_mask);
	}
	item_add(s, RTE_FLOW_ITEM_TYPE_END, NULL, NULL);
}

static int create(struct flow_rule *r, uint16_t port, const struct rte_flow_attr *attr,
	const struct spelling *s, const struct variant *v, char *why, size_t why_len)
{
	struct rte_flow_error err = {0};
	struct rte_flow *h = rte_flow_create(port, attr, s->item, s->act, &err);

	if (!h) {
		int rc = rte_errno ? -rte_errno : -EIO;

		snprintf(why, why_len, "%s: %s", attr->transfer ? "transfer" : "ingress",
			err.message ? err.message : strerror(-rc));
		return rc;
	}
	r->handle = h;
	r->handle_port = port;
	r->counted = v->count;
	return 0;
}

/* ---- transfer rules ------------------------------------------------------------------------------------- */

/* The rest may bypass the card only where all that is the card's is kept from bypassing it too. */
static bool storage_is_transferred(const struct flow *f)
{
	return f->rule[CLASSIFY_ARP].provider == &flow_rte_transfer &&
	       f->rule[CLASSIFY_NVME].provider == &flow_rte_transfer &&
	       f->rule[CLASSIFY_DISCOVERY].provider == &flow_rte_transfer;
}

static void spell_transfer(
	struct spelling *s, const struct flow *f, const struct variant *v, enum classify_rule kind)
{
	memset(s, 0, sizeof(*s));
	s->from.port_id = f->port.ethdev_id;
	s->from_mask.port_id = 0xffff;
	item_add(s, RTE_FLOW_ITEM_TYPE_REPRESENTED_PORT, &s->from, &s->from_mask);
	match(s, f, v, kind);
	if (v->count)
		act_add(s, RTE_FLOW_ACTION_TYPE_COUNT, NULL);
	if (kind == CLASSIFY_REST) {
		s->to.port_id = f->uplink.ethdev_id;
		act_add(s, RTE_FLOW_ACTION_TYPE_REPRESENTED_PORT, &s->to);
	} else {
		s->to.port_id = f->port.ethdev_id;
		act_add(s, RTE_FLOW_ACTION_TYPE_PORT_REPRESENTOR, &s->to);
	}
	act_add(s, RTE_FLOW_ACTION_TYPE_END, NULL);
}

static int transfer_create(struct flow *f, struct flow_rule *r, char *why, size_t why_len)
{
	struct rte_flow_attr attr = {.transfer = 1};
	uint16_t proxy = f->port.ethdev_id;
	struct rte_flow_error err = {0};
	struct spelling s;
	int rc = -ENOTSUP;

	if (!f->port.vf_name[0])
		return -ENOTSUP; /* not a representor: there is no switch behind it */
	if (r->kind == CLASSIFY_REST) {
		attr.priority = PRIO_REST;
		if (!f->uplink.name[0] || !storage_is_transferred(f)) {
			snprintf(why, why_len, "transfer: %s",
				f->uplink.name[0] ? "storage is not steered in the switch"
						  : "no uplink");
			return -ENOTSUP;
		}
	}
	if (rte_flow_pick_transfer_proxy(f->port.ethdev_id, &proxy, &err) < 0)
		proxy = f->port.ethdev_id;
	for (size_t i = 0; i < ARRAY_LEN(variants) && rc < 0; i++) {
		spell_transfer(&s, f, &variants[i], r->kind);
		rc = create(r, proxy, &attr, &s, &variants[i], why, why_len);
	}
	return rc;
}

/* ---- receive rules ------------------------------------------------------------------------------------------ */

static int queue_create(struct flow *f, struct flow_rule *r, char *why, size_t why_len)
{
	struct rte_flow_attr attr = {.ingress = 1, .priority = PRIO_CARD};
	struct spelling s;
	int rc = -ENOTSUP;

	if (r->kind == CLASSIFY_REST) {
		if (!why[0])
			snprintf(why, why_len, "only a switch behind the port can forward");
		return -ENOTSUP;
	}
	if (f->port.rx_queues <= CARD_QUEUE) {
		snprintf(why, why_len, "driver %s does not steer", f->port.driver);
		return -ENOTSUP;
	}
	for (size_t i = 0; i < ARRAY_LEN(variants) && rc < 0; i++) {
		memset(&s, 0, sizeof(s));
		match(&s, f, &variants[i], r->kind);
		if (variants[i].count)
			act_add(&s, RTE_FLOW_ACTION_TYPE_COUNT, NULL);
		s.queue.index = CARD_QUEUE;
		act_add(&s, RTE_FLOW_ACTION_TYPE_QUEUE, &s.queue);
		act_add(&s, RTE_FLOW_ACTION_TYPE_END, NULL);
		rc = create(r, f->port.ethdev_id, &attr, &s, &variants[i], why, why_len);
	}
	return rc;
}

/* ---- both ------------------------------------------------------------------------------------------------------ */

static void rule_destroy(struct flow_rule *r)
{
	struct rte_flow_error err = {0};

	(void)rte_flow_destroy(r->handle_port, r->handle, &err);
	r->handle = NULL;
}

static int rule_query(struct flow_rule *r, uint64_t *packets, uint64_t *bytes)
{
	const struct rte_flow_action count[] = {
		{.type = RTE_FLOW_ACTION_TYPE_COUNT}, {.type = RTE_FLOW_ACTION_TYPE_END}};
	struct rte_flow_query_count q = {0};
	struct rte_flow_error err = {0};
	int rc = rte_flow_query(r->handle_port, r->handle, count, &q, &err);

	if (rc < 0)
		return rc;
	*packets = q.hits_set ? q.hits : 0;
	*bytes = q.bytes_set ? q.bytes : 0;
	return q.hits_set || q.bytes_set ? 0 : -ENOTSUP;
}

const struct flow_provider flow_rte_transfer = {
	.name = "rte_flow transfer",
	.create = transfer_create,
	.destroy = rule_destroy,
	.query = rule_query,
};

const struct flow_provider flow_rte_queue = {
	.name = "rte_flow queue",
	.create = queue_create,
	.destroy = rule_destroy,
	.query = rule_query,
};
