/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/port/port_priv.h"

#include <errno.h>
#include <string.h>

#include <rte_mbuf.h>

#define ETH_HDR_BYTES 14
/* Rounds without a frame after which interrupts are armed. */
#define IDLE_BEFORE_IRQ 32

/* ---- sending --------------------------------------------------------------------------------------- */

static uint32_t tx_queued(const struct port *p)
{
	return p->tx_tail - p->tx_head;
}

static int tx_flush(struct port *p)
{
	int sent = 0;

	while (tx_queued(p)) {
		uint32_t at = p->tx_head % PORT_TXQ;
		uint16_t run = (uint16_t)RTE_MIN(tx_queued(p), PORT_TXQ - at);
		uint64_t bytes = 0;
		uint16_t n;

		for (uint16_t i = 0; i < run; i++)
			bytes += p->txq[at + i]->pkt_len;
		n = rte_eth_tx_burst(p->id, 0, &p->txq[at], run);
		for (uint16_t i = n; i < run; i++)
			bytes -= p->txq[at + i]->pkt_len;
		p->st.tx_packets += n;
		p->st.tx_bytes += bytes;
		p->tx_head += n;
		sent += n;
		if (n < run)
			break;
	}
	/* A device without its peer takes nothing, and old frames are no use to one that comes back. */
	if (!sent && !p->link_up)
		port_tx_drop_all(p);
	return sent;
}

void port_tx_drop_all(struct port *p)
{
	p->st.drop_tx_full += tx_queued(p);
	while (tx_queued(p))
		rte_pktmbuf_free(p->txq[p->tx_head++ % PORT_TXQ]);
}

static int tx_queue(struct port *p, struct rte_mbuf *m, uint32_t limit)
{
	if (tx_queued(p) >= limit) {
		p->st.drop_tx_full++;
		rte_pktmbuf_free(m);
		return -ENOBUFS;
	}
	p->txq[p->tx_tail++ % PORT_TXQ] = m;
	return 0;
}

/* ---- the bridge -------------------------------------------------------------------------------------- */

/* 01:80:c2:00:00:00 to :0f: between neighbours on one link, never forwarded by a bridge (IEEE 802.1D). */
static bool link_local(const uint8_t *dst)
{
	static const uint8_t prefix[5] = {0x01, 0x80, 0xc2, 0x00, 0x00};

	return memcmp(dst, prefix, sizeof(prefix)) == 0 && dst[5] < 16;
}

static bool may_pass(const struct port *in, const struct port *out)
{
	if (in == out)
		return false;
	if (in->role == PORT_ROLE_UPLINK)
		return out->role == PORT_ROLE_VF; /* two uplinks would be a loop */
	return out->role == PORT_ROLE_UPLINK || (in->domain && in->domain == out->domain);
}

static bool guard_passes(const struct port *out, const uint8_t *frame, size_t len)
{
	return !out->filter || !out->filter->to_vf_fn ||
	       out->filter->to_vf_fn(out->filter_arg, frame, len);
}

static void bridge_one(struct port *in, struct port *out, struct rte_mbuf *m)
{
	if (in == out) {
		in->st.drop_bridge++;
	} else if (!may_pass(in, out)) {
		in->st.drop_isolation++;
	} else if (!guard_passes(out, rte_pktmbuf_mtod(m, uint8_t *), m->data_len)) {
		out->st.drop_filter++;
	} else {
		in->st.forwarded += tx_queue(out, m, PORT_TXQ_BRIDGE) == 0;
		return;
	}
	rte_pktmbuf_free(m);
}

/* One frame, several owners: nobody writes to a frame that is being sent. */
static void bridge_flood(struct port *in, struct rte_mbuf *m)
{
	const struct port_set *ps = in->ps;
	unsigned int copies = 0;

	for (unsigned int i = 0; i < ps->nports; i++) {
		struct port *out = ps->port[i];

		if (!may_pass(in, out))
			continue;
		if (!guard_passes(out, rte_pktmbuf_mtod(m, uint8_t *), m->data_len)) {
			out->st.drop_filter++;
			continue;
		}
		rte_pktmbuf_refcnt_update(m, 1);
		copies += tx_queue(out, m, PORT_TXQ_BRIDGE) == 0;
	}
	in->st.flooded++;
	in->st.forwarded += copies > 0;
	in->st.drop_bridge += copies == 0;
	rte_pktmbuf_free(m);
}

static void bridge(struct port *in, struct rte_mbuf *m)
{
	struct port_set *ps = in->ps;
	uint32_t now_s = (uint32_t)(shard_now_ns(ps->sh) / 1000000000ULL);
	const uint8_t *dst = rte_pktmbuf_mtod(m, uint8_t *);
	int out, rc;

	if (m->data_len < ETH_HDR_BYTES || link_local(dst)) {
		in->st.drop_bridge++;
		rte_pktmbuf_free(m);
		return;
	}
	rc = fdb_learn(ps->fdb, dst + 6, in->index, in->role == PORT_ROLE_UPLINK, now_s);
	if (rc == -EPERM || rc == -EINVAL) {
		in->st.drop_isolation += rc == -EPERM; /* speaks in another VF's name */
		in->st.drop_bridge += rc == -EINVAL;
		rte_pktmbuf_free(m);
		return;
	}
	out = (dst[0] & 1) ? FDB_NONE : fdb_find(ps->fdb, dst, now_s);
	if (out == FDB_NONE)
		bridge_flood(in, m);
	else
		bridge_one(in, ps->port[out], m);
}

/* ---- receiving ------------------------------------------------------------------------------------------ */

static void to_card(struct port *p, struct rte_mbuf *m)
{
	p->st.to_card++;
	if (!p->card_fn || (m->nb_segs > 1 && rte_pktmbuf_linearize(m) < 0)) {
		p->st.drop_filter++;
		rte_pktmbuf_free(m);
		return;
	}
	p->card_fn(p->card_arg, m);
}

static void receive(struct port *p, struct rte_mbuf *m)
{
	enum port_verdict v = PORT_FORWARD;

	p->st.rx_packets++;
	p->st.rx_bytes += m->pkt_len;
	if (p->filter && p->filter->from_vf_fn)
		v = p->filter->from_vf_fn(
			p->filter_arg, rte_pktmbuf_mtod(m, uint8_t *), m->data_len);
	switch (v) {
	case PORT_CARD:
		to_card(p, m);
		return;
	case PORT_FORWARD:
		bridge(p, m);
		return;
	case PORT_DROP:
		break;
	}
	p->st.drop_filter++;
	rte_pktmbuf_free(m);
}

/*
 * With interrupts the shard may sleep as soon as nobody has work. So an idle port claims to have some until its interrupts
 * are armed, and once more after that: a frame may have come just before.
 */
static int before_sleep(struct port *p, int did)
{
	if (did) {
		port_intr_disarm(p);
		p->empty_polls = 0;
		return 0;
	}
	if (p->intr_armed)
		return 0;
	if (++p->empty_polls >= IDLE_BEFORE_IRQ)
		port_intr_arm(p);
	return 1;
}

int port_poll(void *arg)
{
	struct rte_mbuf *pkt[PORT_RX_BURST];
	struct port *p = arg;
	int did = 0;

	if (!p->started) {
		port_tx_drop_all(p);
		return 0;
	}
	/* The card's own queue first. */
	for (int q = p->nrxq - 1; q >= 0; q--) {
		uint16_t n = rte_eth_rx_burst(p->id, (uint16_t)q, pkt, PORT_RX_BURST);

		for (uint16_t i = 0; i < n; i++)
			receive(p, pkt[i]);
		p->st.rx_card_queue += q > 0 ? n : 0;
		did += n;
	}
	did += p->intr_epfd >= 0 ? before_sleep(p, did) : 0;
	return did + tx_flush(p);
}

/* ---- frames for others --------------------------------------------------------------------------------- */

uint8_t *port_pkt_data(struct rte_mbuf *pkt, size_t *len_bytes)
{
	*len_bytes = pkt->data_len;
	return rte_pktmbuf_mtod(pkt, uint8_t *);
}

void *port_pkt_priv(struct rte_mbuf *pkt)
{
	return rte_mbuf_to_priv(pkt);
}

void port_pkt_free(struct rte_mbuf *pkt)
{
	rte_pktmbuf_free(pkt);
}

struct rte_mbuf *port_pkt_alloc(struct port *p, size_t len_bytes)
{
	struct rte_mbuf *m;

	if (len_bytes > PORT_FRAME_MAX)
		return NULL;
	m = rte_pktmbuf_alloc(p->pool);
	if (m)
		m->data_len = (uint16_t)(m->pkt_len = (uint32_t)len_bytes);
	return m;
}

int port_pkt_send(struct port *p, struct rte_mbuf *pkt)
{
	return tx_queue(p, pkt, PORT_TXQ);
}

bool port_can_send(const struct port *p)
{
	return tx_queued(p) < PORT_TXQ;
}
