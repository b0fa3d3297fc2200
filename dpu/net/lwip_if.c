/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/net/lwip_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/init.h>
#include <lwip/prot/ethernet.h>
#include <lwip/prot/ip4.h>
#include <lwip/prot/tcp.h>
#include <lwip/timeouts.h>

#include "common/base/endian.h"
#include "common/base/log.h"
#include "common/base/util.h"

#define TICK_NS            50000000ULL
#define DEFAULT_MAX_FRAMES 2048
/* Frames shorter than this are copied: keeping a whole frame buffer for a few bytes is how buffers run out. */
#define KEEP_MIN_BYTES 512
/* Beyond max_frames, copies are held up to this many times of it. */
#define COPIES_FACTOR 4

/* ---- time, and the task -------------------------------------------------------------------------- */

static void run_task(void *arg)
{
	struct lwipnet *net = arg;
	struct lwipnet_if *nif;

	LIST_FOREACH (nif, &net->ifs, link) {
		if (nif->tx_stalled && port_can_send(nif->port))
			lwip_streams_retry(nif);
		else if (nif->tx_stalled)
			lwip_defer(net); /* the port's queue is full, and is being sent */
	}
	lwip_streams_run(net);
}

void lwip_defer(struct lwipnet *net)
{
	shard_defer(net->sh, &net->task, run_task, net);
}

static void tick(void *arg)
{
	struct lwipnet *net = arg;
	struct lwipnet_if *nif;

	sys_check_timeouts();
	LIST_FOREACH (nif, &net->ifs, link) {
		lwip_streams_tick(nif);
		if (nif->tx_stalled)
			lwip_defer(net);
	}
	/* Cannot fail: the place in the timer heap has just become free. */
	(void)timer_arm(net->sh, &net->tick, shard_now_ns(net->sh) + TICK_NS, tick, net);
}

/* lwIP is one set of global variables. */
static bool initialised, opened;

int lwipnet_open(struct shard *sh, struct lwipnet **out, struct err *e)
{
	struct lwipnet *net;
	int rc;

	if (opened)
		return err_set(e, -EBUSY, "lwip", NULL, "there is one instance in a process");
	net = calloc(1, sizeof(*net));
	if (!net)
		return err_set(e, -ENOMEM, "lwip", NULL, "out of memory");
	net->sh = sh;
	TAILQ_INIT(&net->ready);
	if (!initialised)
		lwip_init();
	initialised = true;
	rc = timer_arm(sh, &net->tick, shard_now_ns(sh) + TICK_NS, tick, net);
	if (rc < 0) {
		free(net);
		return err_set(e, rc, "lwip", NULL, "out of memory");
	}
	opened = true;
	*out = net;
	return 0;
}

void lwipnet_close(struct lwipnet *net)
{
	if (!net)
		return;
	timer_disarm(net->sh, &net->tick);
	shard_undefer(net->sh, &net->task);
	free(net);
	opened = false;
}

/* ---- neighbours ------------------------------------------------------------------------------------------
 * lwIP's own ARP cache has ten entries for all interfaces together: one VM could push out the others' by claiming
 * a few addresses. Here each VF has its own, filled by what the VM sends, and the card never has to ask: it only answers.
 */

static struct lwip_neighbour *neigh_find(struct lwipnet_if *nif, uint32_t ip)
{
	if (nif->neigh[nif->neigh_last].ip == ip)
		return &nif->neigh[nif->neigh_last];
	for (uint32_t i = 0; i < LWIPNET_NEIGHBOURS; i++) {
		if (nif->neigh[i].ip != ip)
			continue;
		nif->neigh_last = i;
		return &nif->neigh[i];
	}
	return NULL;
}

static void neigh_learn(struct lwipnet_if *nif, uint32_t ip, const uint8_t *mac)
{
	struct lwip_neighbour *n = ip ? neigh_find(nif, ip) : NULL;

	if (!ip)
		return;
	if (!n) {
		n = nif->neigh;
		for (uint32_t i = 1; i < LWIPNET_NEIGHBOURS && n->ip; i++)
			if (!nif->neigh[i].ip || nif->neigh[i].used - n->used > UINT32_MAX / 2)
				n = &nif->neigh[i];
		n->ip = ip;
	}
	memcpy(n->mac, mac, sizeof(n->mac));
	n->used = ++nif->neigh_clock;
}

/* ---- sending ------------------------------------------------------------------------------------------------ */

static void ethernet_write(uint8_t *frame, const uint8_t *dst, const uint8_t *src, uint16_t type)
{
	be16 t = to_be16(type);

	memcpy(frame, dst, 6);
	memcpy(frame + 6, src, 6);
	memcpy(frame + 12, &t, 2);
}

/*
 * lwIP's way out. What an interface's input provokes belongs to that interface: lwIP routes a reset for an unknown
 * connection by subnet, which may be another VF's.
 */
static err_t ip_out(struct netif *netif, struct pbuf *p, const ip4_addr_t *to)
{
	struct lwipnet_if *nif = netif->state;
	const struct lwip_neighbour *n;
	struct rte_mbuf *pkt;
	uint8_t *frame;
	size_t len;

	if (nif->net->input_if && nif->net->input_if != nif) {
		nif = nif->net->input_if;
		nif->st.rerouted++;
	}
	n = neigh_find(nif, to->addr);
	if (!n) {
		nif->st.drop_tx++;
		return ERR_RTE;
	}
	pkt = port_can_send(nif->port) ? port_pkt_alloc(nif->port, 14u + p->tot_len) : NULL;
	if (!pkt) {
		nif->st.drop_tx++;
		nif->tx_stalled = true;
		lwip_defer(nif->net);
		return ERR_MEM;
	}
	frame = port_pkt_data(pkt, &len);
	ethernet_write(frame, n->mac, nif->mac, ETHTYPE_IP);
	(void)pbuf_copy_partial(p, frame + 14, p->tot_len, 0);
	nif->st.tx_frames++;
	return port_pkt_send(nif->port, pkt) < 0 ? ERR_MEM : ERR_OK;
}

/* ---- receiving ------------------------------------------------------------------------------------------------ */

/* A received frame as lwIP holds it, in the frame's private area or, copied, in front of its bytes. */
struct rx_pbuf {
	struct pbuf_custom pc;
	struct lwipnet_if *nif;
	struct rte_mbuf *pkt; /* NULL: a copy */
};
_Static_assert(sizeof(struct rx_pbuf) <= PORT_PKT_PRIV_BYTES, "fits the frame's private area");

static void rx_free(struct pbuf *p)
{
	struct rx_pbuf *r = (struct rx_pbuf *)p;

	r->nif->st.frames_held--;
	if (r->pkt)
		port_pkt_free(r->pkt);
	else
		free(r);
}

/* Wraps the IP packet at data; owns pkt in any case. */
static struct pbuf *rx_wrap(struct lwipnet_if *nif, struct rte_mbuf *pkt, uint8_t *data, size_t len)
{
	bool keep = len >= KEEP_MIN_BYTES && nif->st.frames_held < nif->max_frames;
	struct rx_pbuf *r;

	if (keep) {
		r = port_pkt_priv(pkt);
		r->pkt = pkt;
	} else {
		r = malloc(sizeof(*r) + len);
		if (r) {
			memcpy(r + 1, data, len);
			r->pkt = NULL;
			nif->st.rx_copied++;
		}
		port_pkt_free(pkt);
		if (!r)
			return NULL;
		data = (uint8_t *)(r + 1);
	}
	r->nif = nif;
	r->pc.custom_free_function = rx_free;
	nif->st.frames_held++;
	return pbuf_alloced_custom(PBUF_RAW, (u16_t)len, PBUF_REF, &r->pc, data, (u16_t)len);
}

static void arp_input(struct lwipnet_if *nif, const uint8_t *frame)
{
	/* Checked by the classifier: a whole ARP packet for Ethernet and IPv4 about our address. */
	static const uint8_t reply[8] = {0, 1, 0x08, 0, 6, 4, 0, 2};
	const uint8_t *arp = frame + 14;
	struct rte_mbuf *pkt;
	uint32_t sender;
	uint8_t *out;
	size_t len;

	memcpy(&sender, arp + 14, 4);
	neigh_learn(nif, sender, arp + 8);
	if (arp[6] != 0 || arp[7] != 1) /* only a request is answered */
		return;
	pkt = port_pkt_alloc(nif->port, 14 + 28);
	if (!pkt) {
		nif->st.drop_tx++;
		return;
	}
	out = port_pkt_data(pkt, &len);
	ethernet_write(out, arp + 8, nif->mac, ETHTYPE_ARP);
	memcpy(out + 14, reply, sizeof(reply));
	memcpy(out + 22, nif->mac, 6);
	memcpy(out + 28, &nif->ip, 4);
	memcpy(out + 32, arp + 8, 10); /* its MAC and IP address */
	if (port_pkt_send(nif->port, pkt) < 0)
		nif->st.drop_tx++;
	else
		nif->st.tx_frames++;
}

/* Where the TCP segment of a checked packet starts, and how long header and payload are. */
struct segment {
	uint16_t dst_port;
	uint8_t flags;
	size_t payload;
};

static bool segment_of(const uint8_t *ip, size_t len, struct segment *seg)
{
	size_t ihl = (ip[0] & 15u) * 4u, total, off;

	if (len < 20 || ihl < 20 || len < ihl + 20)
		return false;
	total = (size_t)ip[2] << 8 | ip[3];
	off = (size_t)(ip[ihl + 12] >> 4) * 4;
	if (total > len || total < ihl + off)
		return false;
	seg->dst_port = (uint16_t)(ip[ihl + 2] << 8 | ip[ihl + 3]);
	seg->flags = ip[ihl + 13];
	seg->payload = total - ihl - off;
	return true;
}

static void ip_input_one(struct lwipnet_if *nif, struct rte_mbuf *pkt, uint8_t *frame, size_t len)
{
	uint8_t *ip = frame + 14;
	struct segment seg;
	struct pbuf *p;
	uint32_t src;
	bool syn;

	len -= 14;
	if (!segment_of(ip, len, &seg))
		goto drop;
	/* Pure acknowledgements are never held, and what is held may be waiting for them. */
	if (seg.payload && nif->st.frames_held >= nif->max_frames * COPIES_FACTOR)
		goto drop;
	syn = (seg.flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
	if (syn && !lwip_syn_allowed(nif, seg.dst_port)) {
		nif->st.drop_syn++;
		port_pkt_free(pkt);
		return;
	}
	memcpy(&src, ip + 12, 4);
	neigh_learn(nif, src, frame + 6);
	p = rx_wrap(nif, pkt, ip, len);
	if (!p) {
		nif->st.drop_frames++;
		return;
	}
	nif->net->input_if = nif;
	if (nif->netif.input(p, &nif->netif) != ERR_OK)
		pbuf_free(p);
	if (syn)
		lwip_syn_bind(nif);
	nif->net->input_if = NULL;
	return;
drop:
	nif->st.drop_frames++;
	port_pkt_free(pkt);
}

static void frame_input(void *arg, struct rte_mbuf *pkt)
{
	struct lwipnet_if *nif = arg;
	uint8_t *frame;
	size_t len;

	nif->st.rx_frames++;
	frame = port_pkt_data(pkt, &len);
	if (len >= 14 + 28 && frame[12] == 0x08 && frame[13] == 0x06) {
		arp_input(nif, frame);
		port_pkt_free(pkt);
	} else if (len > 14 && len <= PORT_FRAME_MAX && frame[12] == 0x08 && frame[13] == 0x00) {
		ip_input_one(nif, pkt, frame, len);
	} else {
		nif->st.drop_frames++;
		port_pkt_free(pkt);
	}
}

/* ---- interfaces --------------------------------------------------------------------------------------------------- */

static err_t netif_setup(struct netif *n)
{
	n->name[0] = 'v';
	n->name[1] = 'f';
	n->output = ip_out;
	n->mtu = 1500;
	n->flags = NETIF_FLAG_BROADCAST | NETIF_FLAG_LINK_UP;
	return ERR_OK;
}

int lwipnet_if_add(struct lwipnet *net, const struct lwipnet_if_cfg *cfg, struct lwipnet_if **out,
	struct err *e)
{
	ip4_addr_t ip = {.addr = lwip_htonl(cfg->ip)}, mask, gw = {0};
	struct lwipnet_if *nif;

	if (!cfg->port || !cfg->mac)
		return err_set(e, -EINVAL, "lwip", NULL, "needs a port and a MAC address");
	if (cfg->prefix_len < 8 || cfg->prefix_len > 30)
		return err_set(e, -EINVAL, "card address", "prefix", "must be /8 to /30");
	mask.addr = lwip_htonl(UINT32_MAX << (32 - cfg->prefix_len));
	nif = calloc(1, sizeof(*nif));
	if (!nif)
		return err_set(e, -ENOMEM, "lwip", NULL, "out of memory");
	nif->net = net;
	nif->port = cfg->port;
	nif->ip = ip.addr;
	nif->max_frames = cfg->max_frames ? cfg->max_frames : DEFAULT_MAX_FRAMES;
	memcpy(nif->mac, cfg->mac, sizeof(nif->mac));
	TAILQ_INIT(&nif->streams);
	LIST_INIT(&nif->listeners);
	if (!netif_add(&nif->netif, &ip, &mask, &gw, nif, netif_setup, ip4_input)) {
		free(nif);
		return err_set(e, -ENOSPC, "lwip", NULL, "no more interfaces");
	}
	netif_set_up(&nif->netif);
	LIST_INSERT_HEAD(&net->ifs, nif, link);
	port_card_set(cfg->port, frame_input, nif);
	*out = nif;
	return 0;
}

void lwipnet_if_del(struct lwipnet_if *nif)
{
	if (!nif)
		return;
	port_card_set(nif->port, NULL, NULL);
	lwip_if_reset(nif);
	/* lwIP would end every connection of this address, those on other VFs too. Ours are gone already. */
	ip4_addr_set_any(ip_2_ip4(&nif->netif.ip_addr));
	netif_remove(&nif->netif);
	LIST_REMOVE(nif, link);
	if (nif->st.frames_held) {
		/* A frame that still points here would be freed into a dead interface: leak it instead. */
		log_error("lwip: %u frames of a deleted interface are still held",
			nif->st.frames_held);
		return;
	}
	free(nif);
}

void lwipnet_if_stats(const struct lwipnet_if *nif, struct lwipnet_if_stats *st)
{
	*st = nif->st;
}
