/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/net/lwip_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <lwip/priv/tcp_priv.h>

#include "common/base/util.h"

#define DEFAULT_CONNS     128
#define DEFAULT_HALF_OPEN 32
#define TIME_WAIT_MAX     256 /* per interface */
#define WRITE_IOVS        32
#define KEEP_IDLE_MS      30000

struct lwip_listener {
	struct stream_listener l;
	struct lwipnet_if *nif; /* NULL: the interface is gone */
	struct tcp_pcb *pcb;
	uint16_t port;
	LIST_ENTRY(lwip_listener) link;
};

struct lwip_stream {
	struct stream st;
	struct lwipnet_if *nif; /* NULL: the interface is gone */
	struct tcp_pcb *pcb; /* NULL: lwIP has given the connection up, or both sides have ended */
	struct lwip_listener *pending; /* its owner does not know of it yet */
	struct pbuf *rx_head, *rx_tail; /* linked by next; their tot_len is not kept up */
	uint32_t rx_off; /* taken of rx_head */
	bool reading, eof, eof_told, fin_sent;
	bool want_push, listed;
	TAILQ_ENTRY(lwip_stream) ready_link;
	TAILQ_ENTRY(lwip_stream) if_link;
};

static struct lwip_stream *stream_of(struct stream *s)
{
	return container_of(s, struct lwip_stream, st);
}

static int errno_of(err_t err)
{
	switch (err) {
	case ERR_OK:
		return 0;
	case ERR_MEM:
	case ERR_BUF:
		return -ENOMEM;
	case ERR_TIMEOUT:
		return -ETIMEDOUT;
	case ERR_RTE:
		return -EHOSTUNREACH;
	case ERR_USE:
		return -EADDRINUSE;
	case ERR_ABRT:
		return -ECONNABORTED;
	case ERR_RST:
		return -ECONNRESET;
	case ERR_CLSD:
	case ERR_CONN:
		return -ENOTCONN;
	default:
		return -EIO;
	}
}

/* ---- the list of streams with something to do ----------------------------------------------------- */

static void list(struct lwip_stream *k)
{
	if (k->listed || !k->nif)
		return;
	k->listed = true;
	TAILQ_INSERT_TAIL(&k->nif->net->ready, k, ready_link);
	lwip_defer(k->nif->net);
}

static void unlist(struct lwip_stream *k)
{
	if (!k->listed)
		return;
	k->listed = false;
	TAILQ_REMOVE(&k->nif->net->ready, k, ready_link);
}

static bool readable(const struct lwip_stream *k)
{
	return k->reading && (k->rx_head || (k->eof && !k->eof_told));
}

/* ---- lwIP's callbacks: they take notes ---------------------------------------------------------------- */

/* Lets go of the connection; lwIP finishes or has finished it. */
static void forget_pcb(struct lwip_stream *k)
{
	if (!k->pcb)
		return;
	tcp_arg(k->pcb, NULL);
	tcp_recv(k->pcb, NULL);
	tcp_sent(k->pcb, NULL);
	tcp_err(k->pcb, NULL);
	k->pcb = NULL;
}

static err_t on_recv(void *arg, struct tcp_pcb *pcb, struct pbuf *p, err_t err)
{
	struct lwip_stream *k = arg;

	if (p) {
		if (k->rx_tail)
			k->rx_tail->next = p;
		else
			k->rx_head = p;
		while (p->next)
			p = p->next;
		k->rx_tail = p;
	} else {
		k->eof = true;
		/* Both have ended: lwIP will free the connection some time without telling. */
		if (k->fin_sent)
			forget_pcb(k);
	}
	list(k);
	return ERR_OK;
}

static err_t on_sent(void *arg, struct tcp_pcb *pcb, u16_t len)
{
	struct lwip_stream *k = arg;

	k->want_push = true;
	list(k);
	return ERR_OK;
}

/* lwIP has freed the connection. */
static void on_err(void *arg, err_t err)
{
	struct lwip_stream *k = arg;

	k->pcb = NULL;
	if (k->pending)
		list(k);
	else if (!k->eof || !k->fin_sent)
		stream_fail_later(&k->st, errno_of(err) < 0 ? errno_of(err) : -ECONNRESET);
}

/* ---- receiving ------------------------------------------------------------------------------------------ */

static void rx_drop_head(struct lwip_stream *k)
{
	struct pbuf *p = k->rx_head;

	k->rx_head = p->next;
	if (!k->rx_head)
		k->rx_tail = NULL;
	k->rx_off = 0;
	p->next = NULL;
	p->tot_len = p->len;
	pbuf_free(p);
}

static void rx_drop_all(struct lwip_stream *k)
{
	while (k->rx_head)
		rx_drop_head(k);
}

/* Opens the peer's window again. */
static void taken(struct lwip_stream *k, size_t len)
{
	stream_count_rx(&k->st, len);
	while (k->pcb && len) {
		u16_t n = (u16_t)MIN(len, 0xffffu);

		tcp_recved(k->pcb, n);
		len -= n;
	}
}

static ssize_t end_or_nothing(struct lwip_stream *k)
{
	if (!k->eof)
		return -EAGAIN;
	k->eof_told = true;
	return 0;
}

static ssize_t lw_recv(struct stream *s, const struct iovec *iov, int niov)
{
	struct lwip_stream *k = stream_of(s);
	size_t got = 0;

	for (int i = 0; i < niov; i++) {
		size_t at = 0;

		while (at < iov[i].iov_len && k->rx_head) {
			struct pbuf *p = k->rx_head;
			size_t n = MIN(iov[i].iov_len - at, p->len - k->rx_off);

			memcpy((char *)iov[i].iov_base + at, (char *)p->payload + k->rx_off, n);
			at += n;
			k->rx_off += (uint32_t)n;
			if (k->rx_off == p->len)
				rx_drop_head(k);
		}
		got += at;
	}
	if (!got && !k->rx_head)
		return end_or_nothing(k);
	taken(k, got);
	return (ssize_t)got;
}

static ssize_t lw_borrow(struct stream *s, const void **p)
{
	struct lwip_stream *k = stream_of(s);

	while (k->rx_head && k->rx_off == k->rx_head->len)
		rx_drop_head(k);
	if (!k->rx_head)
		return end_or_nothing(k);
	*p = (char *)k->rx_head->payload + k->rx_off;
	return (ssize_t)(k->rx_head->len - k->rx_off);
}

static void lw_consume(struct stream *s, size_t len_bytes)
{
	struct lwip_stream *k = stream_of(s);
	size_t n;

	if (!k->rx_head)
		return;
	n = MIN(len_bytes, k->rx_head->len - k->rx_off);
	k->rx_off += (uint32_t)n;
	if (k->rx_off == k->rx_head->len)
		rx_drop_head(k);
	taken(k, n);
}

static void lw_set_reading(struct stream *s, bool on)
{
	struct lwip_stream *k = stream_of(s);

	k->reading = on;
	if (readable(k))
		list(k);
}

/* ---- sending ---------------------------------------------------------------------------------------------- */

/* Hands pieces to lwIP, which copies them; returns how many bytes it took, fewer than there are when it is full. */
static ssize_t write_pieces(struct lwip_stream *k, const struct iovec *iov, int n, bool *full)
{
	size_t total = 0;

	*full = false;
	for (int i = 0; i < n && !*full; i++) {
		const char *p = iov[i].iov_base;
		size_t left = iov[i].iov_len;

		while (left && !*full) {
			size_t len = MIN(left, (size_t)tcp_sndbuf(k->pcb));
			bool more = i + 1 < n || len < left;
			err_t err = ERR_MEM;

			len = MIN(len, 0xffffu);
			if (len)
				err = tcp_write(k->pcb, p, (u16_t)len,
					TCP_WRITE_FLAG_COPY | (more ? TCP_WRITE_FLAG_MORE : 0));
			if (err == ERR_MEM) {
				*full = true;
				break;
			}
			if (err != ERR_OK)
				return errno_of(err);
			p += len;
			left -= len;
			total += len;
		}
	}
	return (ssize_t)total;
}

/* Ends our side once the queue is empty. */
static void lw_fin(struct lwip_stream *k)
{
	struct stream *s = &k->st;

	if (!s->shut || k->fin_sent || !STAILQ_EMPTY(&s->txq) || !k->pcb)
		return;
	if (tcp_shutdown(k->pcb, 0, 1) != ERR_OK)
		return; /* out of memory: the tick tries again */
	k->fin_sent = true;
	if (k->eof)
		forget_pcb(k);
}

static void lw_push(struct stream *s)
{
	struct lwip_stream *k = stream_of(s);
	struct iovec iov[WRITE_IOVS];
	bool full = false, wrote = false;

	while (k->pcb && !full && !STAILQ_EMPTY(&s->txq)) {
		int n = stream_tx_gather(s, NULL, iov, WRITE_IOVS);
		ssize_t took = write_pieces(k, iov, n, &full);

		if (took < 0) {
			stream_died(s, (int)took);
			return;
		}
		wrote |= took > 0;
		/* Where nothing was taken the first transmission may still be complete: it may be empty. */
		stream_tx_advance(s, (size_t)took);
		if (s->given_up || s->dead)
			return;
	}
	if (wrote && k->pcb)
		(void)tcp_output(k->pcb); /* what cannot go now goes by lwip_streams_retry() */
	lw_fin(k);
}

/* ---- lifetime ------------------------------------------------------------------------------------------------ */

static void lw_detach(struct stream *s, bool reset)
{
	struct lwip_stream *k = stream_of(s);
	struct tcp_pcb *pcb = k->pcb;

	unlist(k);
	forget_pcb(k);
	/* With bytes unread tcp_close() resets, as it must: it sees by the window that they were not taken. */
	if (pcb && (reset || tcp_close(pcb) != ERR_OK))
		tcp_abort(pcb);
	rx_drop_all(k);
	if (k->nif)
		TAILQ_REMOVE(&k->nif->streams, k, if_link);
	k->nif = NULL;
}

static void lw_destroy(struct stream *s)
{
	free(stream_of(s));
}

static const struct stream_ops lwip_ops = {
	.name = "lwip",
	.recv = lw_recv,
	.borrow = lw_borrow,
	.consume = lw_consume,
	.set_reading = lw_set_reading,
	.push = lw_push,
	.detach = lw_detach,
	.destroy = lw_destroy,
};

/* ---- accepting ------------------------------------------------------------------------------------------------- */

static void addr_text(const ip_addr_t *ip, uint16_t port, struct stream_addr *out)
{
	(void)ip4addr_ntoa_r(ip_2_ip4(ip), out->addr, sizeof(out->addr));
	out->port = port;
}

/* Established. The owner hears of it from the task. */
static err_t on_accept(void *arg, struct tcp_pcb *pcb, err_t err)
{
	struct lwip_listener *kl = arg;
	struct lwip_stream *k;

	if (!pcb || err != ERR_OK || !kl || !kl->nif)
		return ERR_VAL;
	k = calloc(1, sizeof(*k));
	if (!k)
		return ERR_MEM; /* lwIP resets it */
	stream_init(&k->st, &lwip_ops, kl->l.sh);
	k->nif = kl->nif;
	k->pcb = pcb;
	k->reading = true;
	k->pending = kl;
	stream_listener_hold(&kl->l);
	addr_text(&pcb->remote_ip, pcb->remote_port, &k->st.peer);
	addr_text(&pcb->local_ip, pcb->local_port, &k->st.local);
	TAILQ_INSERT_TAIL(&k->nif->streams, k, if_link);

	tcp_bind_netif(pcb, &k->nif->netif);
	tcp_nagle_disable(pcb);
	ip_set_option(pcb, SOF_KEEPALIVE); /* a VM that went without a word */
	pcb->keep_idle = KEEP_IDLE_MS;
	tcp_arg(pcb, k);
	tcp_recv(pcb, on_recv);
	tcp_sent(pcb, on_sent);
	tcp_err(pcb, on_err);
	list(k);
	return ERR_OK;
}

/* Gives the new stream to its owner; the caller holds it. */
static void hand_over(struct lwip_stream *k)
{
	struct lwip_listener *kl = k->pending;

	k->pending = NULL;
	if (k->pcb) {
		(void)stream_accepted(&kl->l, &k->st);
	} else { /* reset before anybody knew of it */
		k->st.given_up = true;
		lw_detach(&k->st, true);
		stream_drop(&k->st);
	}
	stream_listener_drop(&kl->l);
}

static void run_one(struct lwip_stream *k)
{
	struct stream *s = &k->st;

	stream_hold(s);
	if (k->pending)
		hand_over(k);
	if (k->want_push && !s->given_up) {
		k->want_push = false;
		stream_push(s);
	}
	if (!s->given_up && !s->dead && readable(k))
		stream_readable(s);
	if (!s->given_up && !s->dead && (readable(k) || k->want_push))
		list(k);
	stream_drop(s);
}

void lwip_streams_run(struct lwipnet *net)
{
	struct lwip_stream *k, *last = TAILQ_LAST(&net->ready, lwip_stream_list);
	unsigned int n = 0;

	/* As many as there are now: whoever is listed again waits for the next round. */
	TAILQ_FOREACH (k, &net->ready, ready_link)
		n++;
	while (last && n-- && (k = TAILQ_FIRST(&net->ready))) {
		unlist(k);
		run_one(k);
	}
}

void lwip_streams_retry(struct lwipnet_if *nif)
{
	struct lwip_stream *k;

	nif->tx_stalled = false;
	TAILQ_FOREACH (k, &nif->streams, if_link) {
		if (k->pcb)
			(void)tcp_output(k->pcb);
		if (nif->tx_stalled)
			break;
	}
}

void lwip_streams_tick(struct lwipnet_if *nif)
{
	struct lwip_stream *k;

	TAILQ_FOREACH (k, &nif->streams, if_link) {
		if (k->pcb && !k->pending && (!STAILQ_EMPTY(&k->st.txq) || k->st.shut)) {
			k->want_push = true;
			list(k);
		}
	}
}

/* ---- listening ------------------------------------------------------------------------------------------------- */

static struct lwip_listener *listener_of(struct stream_listener *l)
{
	return container_of(l, struct lwip_listener, l);
}

/*
 * A listener of its own per interface, also where two VFs have the same address: lwIP allows a second one on the same
 * address and port only between pcbs with SOF_REUSEADDR at bind, and not with it at listen.
 */
static int listener_start(struct stream_listener *l)
{
	struct lwip_listener *kl = listener_of(l);
	struct tcp_pcb *pcb, *listening;
	ip_addr_t ip = IPADDR4_INIT(kl->nif ? kl->nif->ip : 0);
	err_t err;

	if (!kl->nif)
		return -ENETDOWN;
	pcb = tcp_new_ip_type(IPADDR_TYPE_V4);
	if (!pcb)
		return -ENOMEM;
	ip_set_option(pcb, SOF_REUSEADDR);
	err = tcp_bind(pcb, &ip, kl->port);
	if (err != ERR_OK) {
		tcp_abort(pcb);
		return errno_of(err);
	}
	ip_reset_option(pcb, SOF_REUSEADDR);
	listening = tcp_listen_with_backlog_and_err(pcb, TCP_DEFAULT_LISTEN_BACKLOG, &err);
	if (!listening) {
		tcp_abort(pcb);
		return errno_of(err);
	}
	ip_set_option(listening, SOF_REUSEADDR);
	tcp_bind_netif(listening, &kl->nif->netif);
	tcp_arg(listening, kl);
	tcp_accept(listening, on_accept);
	kl->pcb = listening;
	return 0;
}

static bool half_open_of(const struct lwip_listener *kl, const struct tcp_pcb *pcb)
{
	return pcb->state == SYN_RCVD && pcb->local_port == kl->port &&
	       pcb->netif_idx == netif_get_index(&kl->nif->netif);
}

static void listener_stop(struct stream_listener *l)
{
	struct lwip_listener *kl = listener_of(l);
	struct tcp_pcb *pcb, *next;

	if (!kl->nif)
		return;
	for (pcb = tcp_active_pcbs; pcb; pcb = next) {
		next = pcb->next;
		if (half_open_of(kl, pcb))
			tcp_abort(pcb);
	}
	if (kl->pcb)
		(void)tcp_close(kl->pcb); /* cannot fail for a listener */
	kl->pcb = NULL;
	LIST_REMOVE(kl, link);
	kl->nif = NULL;
}

static void listener_destroy(struct stream_listener *l)
{
	free(listener_of(l));
}

static const struct stream_listener_ops listener_ops = {
	.start = listener_start,
	.stop = listener_stop,
	.destroy = listener_destroy,
};

int lwipnet_listen(struct lwipnet_if *nif, const struct lwipnet_listen_cfg *cfg,
	struct stream_listener **out, struct err *e)
{
	struct lwip_listener *kl;

	if (!cfg->port)
		return err_set(e, -EINVAL, "lwip", "port", "0 is no port to listen on");
	LIST_FOREACH (kl, &nif->listeners, link)
		if (kl->port == cfg->port)
			return err_set(e, -EADDRINUSE, "lwip", "port", "%u is listened on already",
				cfg->port);
	kl = calloc(1, sizeof(*kl));
	if (!kl)
		return err_set(e, -ENOMEM, "lwip", NULL, "out of memory");
	stream_listener_init(&kl->l, &listener_ops, nif->net->sh);
	kl->nif = nif;
	kl->port = cfg->port;
	kl->l.max_conns = cfg->max_conns ? cfg->max_conns : DEFAULT_CONNS;
	kl->l.max_half_open = cfg->max_half_open ? cfg->max_half_open : DEFAULT_HALF_OPEN;
	(void)ip4addr_ntoa_r(netif_ip4_addr(&nif->netif), kl->l.addr.addr, sizeof(kl->l.addr.addr));
	kl->l.addr.port = cfg->port;
	LIST_INSERT_HEAD(&nif->listeners, kl, link);
	*out = &kl->l;
	return 0;
}

/* ---- caps that lwIP does not have ---------------------------------------------------------------------------- */

/* Connections that wait out their end: lwIP keeps each for two minutes. The oldest go first. */
static void time_wait_trim(struct lwipnet_if *nif)
{
	struct tcp_pcb *pcb, *oldest = NULL;
	unsigned int n = 0;

	for (pcb = tcp_tw_pcbs; pcb; pcb = pcb->next) {
		if (pcb->netif_idx != netif_get_index(&nif->netif))
			continue;
		oldest = pcb; /* new ones are put in front */
		n++;
	}
	if (n > TIME_WAIT_MAX)
		tcp_abort(oldest);
}

/*
 * Half-open connections per listener: beyond the cap the oldest makes room, so that a VM's forgotten attempts do not keep it
 * out for the 20 seconds lwIP waits for each. And all of the interface: those that lwIP is still closing count too.
 */
bool lwip_syn_allowed(struct lwipnet_if *nif, uint16_t port)
{
	struct tcp_pcb *pcb, *oldest = NULL;
	struct lwip_listener *kl, *to = NULL;
	uint32_t half_open = 0, all = 0, limit = 0;

	LIST_FOREACH (kl, &nif->listeners, link) {
		limit += kl->l.max_conns;
		if (kl->port == port && kl->pcb)
			to = kl;
	}
	if (!to)
		return true; /* lwIP answers with a reset */
	for (pcb = tcp_active_pcbs; pcb; pcb = pcb->next) {
		all += pcb->netif_idx == netif_get_index(&nif->netif);
		if (!half_open_of(to, pcb))
			continue;
		half_open++;
		if (!oldest || (int32_t)(pcb->tmr - oldest->tmr) <= 0)
			oldest = pcb; /* of the same tick: new ones are put in front */
	}
	if (all >= 2 * limit) {
		to->l.counters.dropped_half_open++;
		return false;
	}
	if (half_open >= to->l.max_half_open) {
		to->l.counters.dropped_half_open++;
		nif->st.drop_syn++;
		tcp_abandon(oldest, 0);
	}
	time_wait_trim(nif);
	return true;
}

/* A half-open connection belongs to the interface its SYN came in on: its answers are sent again by a timer, which would
 * route by subnet otherwise. */
void lwip_syn_bind(struct lwipnet_if *nif)
{
	for (struct tcp_pcb *pcb = tcp_active_pcbs; pcb; pcb = pcb->next)
		if (pcb->state == SYN_RCVD && pcb->netif_idx == NETIF_NO_INDEX)
			tcp_bind_netif(pcb, &nif->netif);
}

/* ---- the end of an interface --------------------------------------------------------------------------------- */

static void abort_list(struct tcp_pcb **head, uint8_t netif_idx)
{
	struct tcp_pcb *pcb = *head;

	while (pcb) {
		struct tcp_pcb *next = pcb->next;

		if (pcb->netif_idx == netif_idx)
			tcp_abort(pcb);
		pcb = next;
	}
}

void lwip_if_reset(struct lwipnet_if *nif)
{
	struct lwip_stream *k;

	while (!LIST_EMPTY(&nif->listeners))
		listener_stop(&LIST_FIRST(&nif->listeners)->l);
	while ((k = TAILQ_FIRST(&nif->streams))) {
		struct lwip_listener *pending = k->pending;

		if (pending) {
			hand_over(
				k); /* refused by now: the listener is closed or has no interface */
			continue;
		}
		lw_detach(&k->st, true);
		k->eof = k->fin_sent = false;
		stream_fail_later(&k->st, -ENETDOWN);
	}
	abort_list(&tcp_active_pcbs, netif_get_index(&nif->netif));
	abort_list(&tcp_tw_pcbs, netif_get_index(&nif->netif));
}
