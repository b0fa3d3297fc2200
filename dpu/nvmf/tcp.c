/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/tcp_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/net/sockets.h"

/* ---- the transfer's place in a command's pieces ------------------------------------------------------------ */

int tcp_pieces(
	const struct nvmf_slot *s, const struct tcp_slot *t, size_t len, struct iovec *iov, int max)
{
	size_t off = t->at_off;
	int n = 0;

	for (int i = t->at_iov; len && i < s->io->niov && n < max; i++, off = 0) {
		size_t take = MIN(len, s->io->iov[i].iov_len - off);

		if (!take)
			continue;
		iov[n].iov_base = (uint8_t *)s->io->iov[i].iov_base + off;
		iov[n++].iov_len = take;
		len -= take;
	}
	return n;
}

void tcp_moved(const struct nvmf_slot *s, struct tcp_slot *t, size_t len)
{
	t->moved += (uint32_t)len;
	while (len) {
		size_t rest = s->io->iov[t->at_iov].iov_len - t->at_off;

		if (rest > len) {
			t->at_off += len;
			return;
		}
		len -= rest;
		t->at_iov++;
		t->at_off = 0;
	}
}

/* ---- sending ------------------------------------------------------------------------------------------------- */

/* The stream reports its death by closed_fn; nobody waits for ICReq and TermReq. */
static void conn_tx_done(struct stream_tx *tx, int status)
{
	struct tcp_conn *c = tx->arg;

	c->tx_busy = false;
}

static int conn_send(struct tcp_conn *c, size_t len)
{
	int rc;

	c->tx_iov = (struct iovec){c->head, len};
	c->tx = (struct stream_tx){.iov = &c->tx_iov, .niov = 1, .done_fn = conn_tx_done, .arg = c};
	rc = stream_send(c->stream, &c->tx);
	c->tx_busy = rc == 0;
	return rc;
}

static void conn_lost(struct tcp_conn *c, int err, const char *what)
{
	if (c->dead)
		return;
	c->dead = true;
	nvmf_queue_lost(c->q, err, what);
}

int tcp_fault(
	struct tcp_conn *c, const struct nvme_tcp_fault *fault, const void *bad, size_t bad_bytes)
{
	if (c->dead)
		return -EPROTO;
	c->q->n->stats.protocol_errors++;
	if (fault->fes != NVME_TCP_FES_NONE && !c->tx_busy)
		(void)conn_send(c, nvme_tcp_put_term(&c->link, c->head, fault, bad, bad_bytes));
	stream_pause(c->stream);
	conn_lost(c, -EPROTO, fault->what);
	return -EPROTO;
}

static void slot_sent(struct stream_tx *tx, int status);

/* Sends what is in t->head (head bytes) and the next data_bytes of the command. */
static int slot_send(struct tcp_conn *c, struct nvmf_slot *s, size_t head, uint32_t data_bytes)
{
	struct tcp_slot *t = tcp_slot_of(c, s);
	int n = 1, rc;

	t->iov[0] = (struct iovec){t->head, head};
	if (data_bytes) {
		n += tcp_pieces(s, t, data_bytes, t->iov + 1, NVMF_IOV_MAX);
		if (c->link.ddgst) {
			uint32_t crc = CRC32C_INIT;

			for (int i = 1; i < n; i++)
				crc = crc32c_add(crc, t->iov[i].iov_base, t->iov[i].iov_len);
			t->ddgst = to_le32(crc32c_end(crc));
			t->iov[n++] = (struct iovec){&t->ddgst, sizeof(t->ddgst)};
		}
	}
	t->tx = (struct stream_tx){.iov = t->iov, .niov = n, .done_fn = slot_sent, .arg = c};
	rc = stream_send(c->stream, &t->tx);
	if (rc == 0) {
		t->tx_busy = true;
		tcp_moved(s, t, data_bytes);
	}
	return rc;
}

/* Fabrics commands take their data along on every queue (NVMe/TCP transport specification), as those of the admin queue do. */
static uint32_t capsule_bytes(const struct nvmf_queue *q, const struct nvmf_io *io)
{
	return io->sqe.opcode == NVME_OPC_FABRICS ? q->n->transport->admin_capsule_bytes
						  : q->capsule_bytes;
}

static int tcp_submit(struct nvmf_queue *q, struct nvmf_slot *s)
{
	struct tcp_conn *c = q->conn;
	struct tcp_slot *t = tcp_slot_of(c, s);
	uint32_t data = 0;

	if (c->dead || !c->link.ready)
		return -ENOTCONN;
	t->answered = t->bad_digest = false;
	t->at_iov = 0;
	t->at_off = 0;
	t->moved = t->granted = 0;
	t->now.left = t->next.left = 0;
	t->in_capsule = s->out && s->data_bytes <= capsule_bytes(q, s->io);
	if (t->in_capsule)
		data = s->data_bytes;
	s->io->sqe.dptr = t->in_capsule ? nvme_sgl_in_capsule(0, data)
					: nvme_sgl_transport(s->data_bytes);
	return slot_send(c, s, nvme_tcp_put_cmd(&c->link, t->head, &s->io->sqe, data), data);
}

/* The next H2CData PDU of what has been granted. */
void tcp_send_granted(struct tcp_conn *c, struct nvmf_slot *s)
{
	struct tcp_slot *t = tcp_slot_of(c, s);
	uint32_t len;
	size_t head;

	if (t->tx_busy || t->answered || c->dead)
		return;
	if (!t->now.left) {
		t->now = t->next;
		t->next.left = 0;
	}
	if (!t->now.left)
		return;
	len = MIN(t->now.left, c->maxh2cdata);
	head = nvme_tcp_put_h2c_data(&c->link, t->head, s->cid, t->now.ttag, t->now.offset, len,
		len == t->now.left ? NVME_TCP_F_LAST : 0);
	if (slot_send(c, s, head, len) < 0) /* dying: closed_fn follows */
		return;
	t->now.offset += len;
	t->now.left -= len;
}

/* The answer counts once the stream has let go of the command's buffers. */
void tcp_finish(struct tcp_conn *c, struct nvmf_slot *s)
{
	struct tcp_slot *t = tcp_slot_of(c, s);
	uint16_t status = t->status;
	int err = 0;

	if (!t->answered || t->tx_busy)
		return;
	if (t->bad_digest && !NVME_SC_CODE(status))
		status = NVME_SC_TRANSIENT_TRANSPORT;
	else if (!NVME_SC_CODE(status) && s->data_bytes && !s->out && t->moved != s->data_bytes)
		err = -EBADMSG; /* "success", and less data than asked for */
	nvmf_slot_done(c->q, s, err, status, t->result);
}

static void slot_sent(struct stream_tx *tx, int status)
{
	struct tcp_conn *c = tx->arg;
	struct tcp_slot *t = container_of(tx, struct tcp_slot, tx);
	struct nvmf_slot *s = &c->q->slots[t - c->slots];

	t->tx_busy = false;
	if (status < 0 || c->dead)
		return; /* the slot ends when the queue is drained */
	if (t->answered)
		tcp_finish(c, s);
	else
		tcp_send_granted(c, s);
}

/* ---- connecting ------------------------------------------------------------------------------------------------- */

static void tcp_closed(struct stream *st, void *arg, int err)
{
	struct tcp_conn *c = arg;
	char what[128];

	snprintf(what, sizeof(what), "%s: %s",
		c->link.ready ? "the connection broke" : "cannot connect", strerror(-err));
	conn_lost(c, err, what);
}

static const struct stream_events events = {.readable_fn = tcp_readable, .closed_fn = tcp_closed};

static int tcp_conn_open(struct nvmf_queue *q)
{
	struct tcp_conn *c = calloc(1, sizeof(*c) + q->nslots * sizeof(c->slots[0]));

	if (!c)
		return -ENOMEM;
	c->q = q;
	q->conn = c;
	return 0;
}

static void tcp_conn_close(struct nvmf_queue *q)
{
	free(q->conn);
	q->conn = NULL;
}

/* Data elsewhere than behind the command is not for TCP. */
static const char *tcp_capsule(const struct nvme_id_ctrl *id, uint32_t *bytes, uint32_t *offset)
{
	*bytes = from_le16(id->icdoff) ? 0 : nvmf_capsule_room(id);
	*offset = 0;
	return NULL;
}

static int conn_connect(struct tcp_conn *c, struct err *err)
{
	const struct nvmf_cfg *cfg = &c->q->n->cfg;

	if (cfg->connect_fn)
		return cfg->connect_fn(cfg->connect_arg, &events, c, &c->stream, err);
	return sockets_connect(c->q->n->sh,
		&(struct sockets_cfg){
			.addr = cfg->host, .port = cfg->port, .zero_copy = cfg->zero_copy},
		&events, c, &c->stream, err);
}

void tcp_count(struct tcp_conn *c)
{
	struct nvmf_stats *st = &c->q->n->stats;

	st->kicks += c->sent.sends - c->told.sends;
	st->zero_copy_bytes += c->sent.zero_copy_bytes - c->told.zero_copy_bytes;
	c->told = c->sent;
}

static int tcp_start(struct nvmf_queue *q, struct err *err)
{
	struct tcp_conn *c = q->conn;
	const struct nvmf_cfg *cfg = &q->n->cfg;
	uint8_t dgst = (cfg->hdgst ? NVME_TCP_DGST_HDR : 0) | (cfg->ddgst ? NVME_TCP_DGST_DATA : 0);
	int rc;

	c->link = (struct nvme_tcp_link){
		.hdgst = cfg->hdgst,
		.ddgst = cfg->ddgst,
		.max_data = UINT32_MAX, /* a transfer is held against its command */
		.digest = crc32c,
	};
	c->dead = false;
	c->rx = TCP_RX_HEAD;
	c->rx_slot = NULL;
	c->at = c->end = 0;
	rc = conn_connect(c, err);
	if (rc < 0)
		return rc;
	c->sent = c->told = (struct stream_counters){0};
	stream_count_into(c->stream, &c->sent);
	rc = conn_send(c, nvme_tcp_put_icreq(c->head, 0, dgst, 0));
	if (rc < 0) {
		stream_abort(c->stream);
		c->stream = NULL;
		return err_set(err, rc, cfg->host, NULL, "cannot send");
	}
	return 0;
}

static void tcp_stop(struct nvmf_queue *q)
{
	struct tcp_conn *c = q->conn;

	c->dead = true;
	if (c->stream)
		stream_close(c->stream);
	c->stream = NULL;
	tcp_count(c);
}

const struct nvmf_transport nvmf_tcp = {
	.name = "tcp",
	.admin_capsule_bytes = 8192,
	.capsule = tcp_capsule,
	.conn_open = tcp_conn_open,
	.conn_close = tcp_conn_close,
	.start = tcp_start,
	.stop = tcp_stop,
	.submit = tcp_submit,
};
