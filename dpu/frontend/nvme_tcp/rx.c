/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bytes in. The receiver goes HEAD -> (STALLED) -> PAD -> DATA -> DIGEST -> HEAD; phases of no bytes are skipped. Headers
 * pass through a small staging buffer; payload is received straight into its place where the provider can.
 */
#include <errno.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

#define DATA_AT(field) ((uint32_t)offsetof(struct nvme_tcp_data, field))

static void fault_here(struct tgt_conn *c, enum nvme_tcp_fes fes, uint32_t fei, const char *what)
{
	struct nvme_tcp_fault f;

	(void)nvme_tcp_fault_set(&f, fes, fei, what);
	tgt_conn_fault(c, &f, c->rx.head, c->rx.pdu.hdr->hlen);
}

/* Moves on to the first phase that has bytes. False: the PDU is complete. */
static bool next_phase(struct tgt_rx *rx)
{
	if (rx->pad_left)
		rx->state = TGT_RX_PAD;
	else if (rx->data_left)
		rx->state = TGT_RX_DATA;
	else if (rx->pdu.ddgst && rx->digest_have < sizeof(rx->digest))
		rx->state = TGT_RX_DIGEST;
	else
		return false;
	return true;
}

/* ---- a header is complete ---------------------------------------------------------------------------- */
static void line_up(struct tgt_conn *c)
{
	c->stalled = true;
	c->vm->nstalled++;
	TAILQ_INSERT_TAIL(&c->vm->stalled, c, stall_entry);
}

void tgt_rx_unwait(struct tgt_conn *c)
{
	if (!c->stalled)
		return;
	c->stalled = false;
	c->vm->nstalled--;
	TAILQ_REMOVE(&c->vm->stalled, c, stall_entry);
}

static void stall(struct tgt_conn *c)
{
	c->vm->stats.buffer_waits++;
	c->rx.state = TGT_RX_STALLED;
	line_up(c);
	stream_pause(c->st);
}

/* The payload of the PDU begins at off of the command's buffer. */
static void aim(struct tgt_rx *rx, struct tgt_cmd *cmd, uint32_t off)
{
	rx->cmd = cmd;
	rx->chunk = 0;
	rx->chunk_off = off;
	while (rx->chunk < cmd->buf.n && rx->chunk_off >= cmd->buf.iov[rx->chunk].iov_len)
		rx->chunk_off -= (uint32_t)cmd->buf.iov[rx->chunk++].iov_len;
}

static bool capsule_buffer(struct tgt_conn *c)
{
	struct tgt_cmd *cmd = c->rx.cmd;

	if (!tgt_buf_get_capsule(c, &cmd->buf, c->rx.pdu.data_bytes))
		return false;
	aim(&c->rx, cmd, 0);
	return true;
}

static void head_capsule(struct tgt_conn *c)
{
	struct tgt_cmd *cmd = tgt_cmd_get(c, &c->rx.pdu.cmd->sqe);

	if (!cmd) {
		fault_here(c, NVME_TCP_FES_SEQUENCE, 0, "more commands than the queue has entries");
		return;
	}
	c->rx.cmd = cmd;
	cmd->capsule_bytes = c->rx.pdu.data_bytes;
	if (cmd->capsule_bytes && !capsule_buffer(c))
		stall(c);
}

/* Everything a host may say about a transfer is held against what its command was granted. */
static void head_data(struct tgt_conn *c)
{
	const struct nvme_tcp_data *d = c->rx.pdu.data;
	struct tgt_cmd *cmd = tgt_conn_cmd(c, from_le16(d->ttag));
	uint32_t left;

	if (!cmd || cmd->state != TGT_CMD_DATA) {
		fault_here(
			c, NVME_TCP_FES_INVALID_FIELD, DATA_AT(ttag), "no transfer has this tag");
		return;
	}
	if (from_le16(d->cccid) != cmd->cid) {
		fault_here(c, NVME_TCP_FES_INVALID_FIELD, DATA_AT(cccid),
			"tag and command do not match");
		return;
	}
	left = cmd->xfer_bytes - cmd->received;
	if (from_le32(d->datao) != cmd->received || from_le32(d->datal) > left) {
		fault_here(c, NVME_TCP_FES_DATA_RANGE, 0, "data outside of what was asked for");
		return;
	}
	if (!(c->rx.pdu.flags & NVME_TCP_F_LAST) != (from_le32(d->datal) != left)) {
		fault_here(c, NVME_TCP_FES_INVALID_FIELD, offsetof(struct nvme_tcp_hdr, flags),
			"LAST_PDU is not where the transfer ends");
		return;
	}
	aim(&c->rx, cmd, cmd->received);
}

static void head_complete(struct tgt_conn *c)
{
	struct tgt_rx *rx = &c->rx;

	rx->pad_left = rx->pdu.pad_bytes;
	rx->data_left = rx->pdu.data_bytes;
	rx->digest_have = 0;
	rx->crc = CRC32C_INIT;
	rx->cmd = NULL;
	if (rx->pdu.type == NVME_TCP_CAPSULE_CMD)
		head_capsule(c);
	else if (rx->pdu.type == NVME_TCP_H2C_DATA)
		head_data(c);
}

/* ---- a PDU is complete ------------------------------------------------------------------------------------ */
static void done_icreq(struct tgt_conn *c)
{
	const struct nvme_tcp_icreq *p = c->rx.pdu.icreq;
	size_t n = nvme_tcp_put_icresp(c->link_head, 0, p->dgst, TGT_XFER_MAX);

	c->link.hdgst = p->dgst & NVME_TCP_DGST_HDR;
	c->link.ddgst = p->dgst & NVME_TCP_DGST_DATA;
	c->link.tx_pda = p->hpda;
	c->link.ready = true;
	tgt_conn_set_state(c, TGT_CONN_READY);
	if (tgt_conn_send_link(c, n) < 0)
		tgt_conn_close(c);
}

static void done_data(struct tgt_conn *c)
{
	struct tgt_cmd *cmd = c->rx.cmd;

	cmd->received += c->rx.pdu.data_bytes;
	if (cmd->received == cmd->xfer_bytes)
		tgt_cmd_data_ready(cmd);
}

static void pdu_complete(struct tgt_conn *c)
{
	struct tgt_rx *rx = &c->rx;
	struct tgt_cmd *cmd = rx->cmd;

	if (rx->pdu.ddgst && crc32c_end(rx->crc) != from_le32(rx->digest)) {
		c->vm->stats.ddgst_errors++;
		if (cmd)
			cmd->data_bad = true;
	}
	/* Ready for the next header before the command runs: running it may end this connection. */
	rx->state = TGT_RX_HEAD;
	rx->head_have = 0;
	rx->head_need = sizeof(struct nvme_tcp_hdr);
	switch (rx->pdu.type) {
	case NVME_TCP_ICREQ:
		done_icreq(c);
		break;
	case NVME_TCP_CAPSULE_CMD:
		tgt_cmd_start(cmd);
		break;
	case NVME_TCP_H2C_DATA:
		done_data(c);
		break;
	default: /* H2CTermReq: the decoder lets nothing else through */
		c->vm->stats.host_terms++;
		tgt_conn_close(c);
		break;
	}
}

static void advance(struct tgt_conn *c)
{
	if (c->rx.state == TGT_RX_STALLED || c->rx.state == TGT_RX_DRAIN || !c->st)
		return;
	if (!next_phase(&c->rx))
		pdu_complete(c);
}

/* ---- bytes -------------------------------------------------------------------------------------------------- */
static void feed_head(struct tgt_conn *c)
{
	struct tgt_rx *rx = &c->rx;
	struct nvme_tcp_fault fault;
	int rc = nvme_tcp_pdu_parse(&c->link, rx->head, rx->head_have, &rx->pdu, &fault);

	if (rc > 0 && (size_t)rc <= sizeof(rx->head)) {
		rx->head_need = (uint32_t)rc;
		return;
	}
	if (rc != 0) {
		tgt_conn_fault(c, &fault, rx->head, rx->head_have);
		return;
	}
	head_complete(c);
	advance(c);
}

/* Payload that was received straight into place, or has just been copied there. */
static void payload_in_place(struct tgt_rx *rx, uint32_t len)
{
	rx->data_left -= len;
	while (len) {
		struct iovec *v = &rx->cmd->buf.iov[rx->chunk];
		uint32_t n = MIN(len, (uint32_t)v->iov_len - rx->chunk_off);

		if (rx->pdu.ddgst)
			rx->crc = crc32c_add(rx->crc, (uint8_t *)v->iov_base + rx->chunk_off, n);
		rx->chunk_off += n;
		len -= n;
		if (rx->chunk_off == v->iov_len) {
			rx->chunk++;
			rx->chunk_off = 0;
		}
	}
}

static uint32_t feed_payload(struct tgt_rx *rx, const uint8_t *p, uint32_t len)
{
	uint32_t n = MIN(len, rx->data_left);

	if (!rx->cmd) { /* of a TermReq: nobody wants it */
		rx->data_left -= n;
		return n;
	}
	for (uint32_t done = 0, part; done < n; done += part) {
		struct iovec *v = &rx->cmd->buf.iov[rx->chunk];

		part = MIN(n - done, (uint32_t)v->iov_len - rx->chunk_off);
		memcpy((uint8_t *)v->iov_base + rx->chunk_off, p + done, part);
		payload_in_place(rx, part);
	}
	return n;
}

static uint32_t feed_some(struct tgt_conn *c, const uint8_t *p, uint32_t len)
{
	struct tgt_rx *rx = &c->rx;
	uint32_t n;

	switch (rx->state) {
	case TGT_RX_HEAD:
		n = MIN(len, rx->head_need - rx->head_have);
		memcpy(rx->head + rx->head_have, p, n);
		rx->head_have += n;
		if (rx->head_have == rx->head_need)
			feed_head(c);
		return n;
	case TGT_RX_PAD:
		n = MIN(len, rx->pad_left);
		rx->pad_left -= n;
		break;
	case TGT_RX_DATA:
		n = feed_payload(rx, p, len);
		break;
	case TGT_RX_DIGEST:
		n = MIN(len, (uint32_t)sizeof(rx->digest) - rx->digest_have);
		memcpy(rx->digest.b + rx->digest_have, p, n);
		rx->digest_have += n;
		break;
	default:
		return len;
	}
	advance(c);
	return n;
}

/* How many of the bytes were taken: all, unless the connection stalled or closed. */
static uint32_t feed(struct tgt_conn *c, const uint8_t *p, uint32_t len)
{
	uint32_t at = 0;

	while (at < len && c->st && c->rx.state != TGT_RX_STALLED)
		at += feed_some(c, p + at, len - at);
	return at;
}

static void feed_staged(struct tgt_conn *c)
{
	struct tgt_rx *rx = &c->rx;

	rx->stage_at += feed(c, rx->staging + rx->stage_at, rx->stage_end - rx->stage_at);
	if (rx->stage_at == rx->stage_end)
		rx->stage_at = rx->stage_end = 0;
}

/* ---- from the stream ------------------------------------------------------------------------------------------ */
/* What is left of the payload, in its place. */
static int direct_iov(const struct tgt_rx *rx, struct iovec *iov)
{
	uint32_t left = rx->data_left, off = rx->chunk_off;
	int n = 0;

	if (rx->state != TGT_RX_DATA || !rx->cmd)
		return 0;
	for (int i = rx->chunk; left; i++, off = 0) {
		const struct iovec *v = &rx->cmd->buf.iov[i];
		uint32_t part = MIN(left, (uint32_t)v->iov_len - off);

		iov[n++] = (struct iovec){(uint8_t *)v->iov_base + off, part};
		left -= part;
	}
	return n;
}

/* One receive. False: there is no more now, or nothing may be received any more. */
static bool receive(struct tgt_conn *c)
{
	struct tgt_rx *rx = &c->rx;
	struct iovec iov[TGT_CHUNKS_MAX + 1];
	int niov = direct_iov(rx, iov);
	uint32_t direct = niov ? rx->data_left : 0;
	uint32_t stage = c->nexpecting ? TGT_STAGING_SHORT : TGT_STAGING_BYTES;
	ssize_t n;

	iov[niov++] = (struct iovec){rx->staging, stage};
	n = stream_recv(c->st, iov, niov);
	if (n == -EAGAIN)
		return false;
	if (n <= 0) {
		if (n == 0)
			tgt_conn_eof(c);
		else
			tgt_conn_close(c);
		return false;
	}
	rx->stage_end = (uint32_t)n > direct ? (uint32_t)n - direct : 0;
	if (direct) {
		payload_in_place(rx, MIN((uint32_t)n, direct));
		advance(c);
	}
	if (c->st)
		feed_staged(c);
	return c->st && !c->stalled && (size_t)n == direct + stage;
}

static bool receive_borrowed(struct tgt_conn *c)
{
	const void *p;
	ssize_t n = stream_borrow(c->st, &p);
	uint32_t used;

	if (n == -EAGAIN)
		return false;
	if (n <= 0) {
		if (n == 0)
			tgt_conn_eof(c);
		else
			tgt_conn_close(c);
		return false;
	}
	used = feed(c, p, (uint32_t)MIN(n, (ssize_t)UINT32_MAX));
	if (!c->st)
		return false;
	stream_consume(c->st, used);
	return !c->stalled;
}

void tgt_rx_readable(struct tgt_conn *c)
{
	bool more = c->st && !c->stalled;

	if (c->can_borrow) {
		while (more)
			more = receive_borrowed(c);
		return;
	}
	for (int i = 0; i < TGT_RECVS_PER_ROUND && more; i++)
		more = receive(c);
}

void tgt_rx_unstall(struct tgt_conn *c)
{
	tgt_rx_unwait(c);
	if (!capsule_buffer(c)) {
		line_up(c);
		return;
	}
	tgt_conn_hold(c);
	c->rx.state = TGT_RX_HEAD;
	advance(c);
	if (c->st)
		feed_staged(c);
	if (c->st && !c->stalled)
		stream_resume(c->st);
	tgt_conn_put(c);
}
