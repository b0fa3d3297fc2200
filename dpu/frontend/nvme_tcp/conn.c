/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

#define NS_PER_MS 1000000ull

static const char *const state_names[TGT_CONN_STATES] = {
	[TGT_CONN_NEW] = "new",
	[TGT_CONN_READY] = "ready",
	[TGT_CONN_TERM] = "terminating",
	[TGT_CONN_CLOSED] = "closed",
};

void tgt_conn_set_state(struct tgt_conn *c, enum tgt_conn_state state)
{
	log_debug("nvme-tcp: vm %u: %s port %u: %s -> %s", c->vm->vm, stream_peer(c->st)->addr,
		stream_peer(c->st)->port, state_names[c->state], state_names[state]);
	c->state = state;
}

/* ---- lifetime ------------------------------------------------------------------------------------- */
static void conn_free(struct tgt_conn *c)
{
	c->vm->nlive--;
	free(c->rx.staging);
	free(c->cmds);
	free(c);
}

void tgt_conn_hold(struct tgt_conn *c)
{
	c->refs++;
}

void tgt_conn_put(struct tgt_conn *c)
{
	if (--c->refs == 0)
		conn_free(c);
}

struct tgt_cmd *tgt_conn_cmd(struct tgt_conn *c, uint32_t slot)
{
	if (slot == 0)
		return &c->boot;
	return slot <= c->ncmds ? &c->cmds[slot - 1] : NULL;
}

static void slot_init(struct tgt_conn *c, struct tgt_cmd *cmd, uint16_t slot)
{
	cmd->conn = c;
	cmd->slot = slot;
	TAILQ_INSERT_TAIL(&c->free, cmd, link);
}

int tgt_conn_set_queue(struct tgt_conn *c, uint32_t entries)
{
	c->cmds = calloc(entries, sizeof(c->cmds[0]));
	if (!c->cmds)
		return -ENOMEM;
	c->ncmds = entries;
	c->entries = entries;
	for (uint32_t i = 0; i < entries; i++)
		slot_init(c, &c->cmds[i], (uint16_t)(i + 1));
	return 0;
}

void tgt_conn_close(struct tgt_conn *c)
{
	struct stream *st = c->st;

	if (c->state == TGT_CONN_CLOSED)
		return;
	tgt_conn_set_state(c, TGT_CONN_CLOSED);
	timer_disarm(c->vm->t->sh, &c->timer);
	tgt_rx_unwait(c);
	/* Everything on its way out is done (cancelled) when this returns. */
	c->st = NULL;
	stream_close(st);
	c->rx.cmd = NULL;
	for (uint32_t i = 0; i <= c->ncmds; i++)
		tgt_cmd_cancel(tgt_conn_cmd(c, i));
	TAILQ_REMOVE(&c->vm->conns, c, entry);
	c->vm->nconns--;
	if (c->ctrl)
		tgt_ctrl_conn_closed(c);
	tgt_conn_put(c);
}

/* ---- what the peer did wrong -------------------------------------------------------------------------- */
static void linger_over(void *arg)
{
	tgt_conn_close(arg);
}

static void link_sent(struct stream_tx *tx, int status)
{
	struct tgt_conn *c = tx->arg;

	c->link_tx_busy = false;
	if (status < 0 || c->state != TGT_CONN_TERM)
		return;
	/* The host reads the TermReq and closes; or has ended its side already. */
	if (c->eof)
		tgt_conn_close(c);
	else
		(void)stream_shutdown(c->st);
}

void tgt_conn_eof(struct tgt_conn *c)
{
	c->eof = true;
	if (c->state != TGT_CONN_TERM || !c->link_tx_busy)
		tgt_conn_close(c);
}

int tgt_conn_send_link(struct tgt_conn *c, size_t len_bytes)
{
	int rc;

	c->link_iov = (struct iovec){c->link_head, len_bytes};
	c->link_tx = (struct stream_tx){
		.iov = &c->link_iov, .niov = 1, .done_fn = link_sent, .arg = c};
	c->link_tx_busy = true;
	rc = stream_send(c->st, &c->link_tx);
	if (rc < 0)
		c->link_tx_busy = false;
	return rc;
}

void tgt_conn_fault(
	struct tgt_conn *c, const struct nvme_tcp_fault *fault, const void *bad, size_t bad_bytes)
{
	struct shard *sh = c->vm->t->sh;

	if (c->state == TGT_CONN_CLOSED || c->state == TGT_CONN_TERM)
		return;
	c->vm->stats.pdu_errors++;
	c->vm->stats.hdgst_errors += fault->fes == NVME_TCP_FES_HDGST;
	log_debug("nvme-tcp: vm %u: %s: %s: %s", c->vm->vm, stream_peer(c->st)->addr,
		bad_bytes ? nvme_tcp_pdu_name(((const struct nvme_tcp_hdr *)bad)->pdu_type)
			  : "no PDU",
		fault->what ? fault->what : "");
	if (fault->fes == NVME_TCP_FES_NONE || c->link_tx_busy) {
		tgt_conn_close(c);
		return;
	}
	tgt_conn_set_state(c, TGT_CONN_TERM);
	c->rx.state = TGT_RX_DRAIN;
	c->rx.cmd = NULL;
	if (tgt_conn_send_link(
		    c, nvme_tcp_put_term(&c->link, c->link_head, fault, bad, bad_bytes)) < 0 ||
		timer_arm(sh, &c->timer, shard_now_ns(sh) + c->vm->t->cfg.linger_ms * NS_PER_MS,
			linger_over, c) < 0)
		tgt_conn_close(c);
}

/* ---- from the stream -------------------------------------------------------------------------------------- */
static void conn_readable(struct stream *s, void *arg)
{
	struct tgt_conn *c = arg;

	tgt_conn_hold(c);
	tgt_rx_readable(c);
	tgt_conn_put(c);
}

static void conn_closed(struct stream *s, void *arg, int err)
{
	tgt_conn_close(arg);
}

static const struct stream_events conn_events = {
	.readable_fn = conn_readable, .closed_fn = conn_closed};

static void handshake_over(void *arg)
{
	struct tgt_conn *c = arg;

	c->vm->stats.handshake_timeouts++;
	tgt_conn_close(c);
}

void tgt_conn_connected(struct tgt_conn *c)
{
	timer_disarm(c->vm->t->sh, &c->timer);
}

static struct tgt_conn *conn_new(struct nvme_tcp_vm *vm, struct stream *s)
{
	struct tgt_conn *c = calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->rx.staging = malloc(TGT_STAGING_BYTES);
	if (!c->rx.staging) {
		free(c);
		return NULL;
	}
	c->vm = vm;
	c->st = s;
	c->refs = 1;
	c->can_borrow = s->ops->borrow != NULL;
	c->link = (struct nvme_tcp_link){
		.controller = true,
		.max_capsule_data = TGT_CAPSULE_BYTES,
		.max_data = TGT_XFER_MAX,
		.digest = crc32c,
	};
	c->rx.head_need = sizeof(struct nvme_tcp_hdr);
	TAILQ_INIT(&c->free);
	slot_init(c, &c->boot, 0);
	return c;
}

int tgt_conn_accept(struct stream_listener *l, void *arg, struct stream *s)
{
	struct nvme_tcp_vm *vm = arg;
	struct shard *sh = vm->t->sh;
	struct tgt_conn *c;

	/* Connections that wait for the backend count too: reconnecting must not make memory grow. */
	if (vm->closing || vm->nlive >= vm->t->cfg.max_conns) {
		vm->stats.refused_conns++;
		return -ECONNREFUSED;
	}
	c = conn_new(vm, s);
	if (!c || timer_arm(sh, &c->timer, shard_now_ns(sh) + vm->t->cfg.handshake_ms * NS_PER_MS,
			  handshake_over, c) < 0) {
		vm->stats.refused_conns++;
		if (c)
			free(c->rx.staging);
		free(c);
		return -ENOMEM;
	}
	vm->nlive++;
	vm->nconns++;
	vm->stats.accepted++;
	TAILQ_INSERT_TAIL(&vm->conns, c, entry);
	stream_set_events(s, &conn_events, c);
	return 0;
}
