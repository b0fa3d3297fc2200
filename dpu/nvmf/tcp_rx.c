/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/tcp_priv.h"

#include <errno.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"

#define RX_PIECES 32 /* of a command's data, taken with one call */
#define RX_ROUNDS 16 /* receives per call: other queues want their turn */

static int fault(struct tcp_conn *c, const struct nvme_tcp_pdu *pdu, enum nvme_tcp_fes fes,
	uint32_t fei, const char *what)
{
	struct nvme_tcp_fault f;

	nvme_tcp_fault_set(&f, fes, fei, what);
	return tcp_fault(c, &f, pdu->hdr, pdu->head_bytes);
}

/* ---- one PDU each -------------------------------------------------------------------------------------------- */

static int on_icresp(struct tcp_conn *c, const struct nvme_tcp_pdu *pdu)
{
	uint8_t dgst = pdu->icresp->dgst;

	if (c->link.hdgst != !!(dgst & NVME_TCP_DGST_HDR) ||
		c->link.ddgst != !!(dgst & NVME_TCP_DGST_DATA))
		return fault(c, pdu, NVME_TCP_FES_NONE, 0,
			"the target does not do the digests asked for");
	c->link.tx_pda = pdu->icresp->cpda;
	c->maxh2cdata = from_le32(pdu->icresp->maxh2cdata);
	c->link.ready = true;
	nvmf_queue_up(c->q);
	return 0;
}

static int on_term(struct tcp_conn *c, const struct nvme_tcp_pdu *pdu)
{
	static const char *const reasons[] = {
		[NVME_TCP_FES_NONE] = "the target ended the connection (reason 0)",
		[NVME_TCP_FES_INVALID_FIELD] =
			"the target ended the connection: invalid PDU header field",
		[NVME_TCP_FES_SEQUENCE] = "the target ended the connection: PDU sequence error",
		[NVME_TCP_FES_HDGST] = "the target ended the connection: header digest error",
		[NVME_TCP_FES_DATA_RANGE] =
			"the target ended the connection: data transfer out of range",
		[NVME_TCP_FES_LIMIT] =
			"the target ended the connection: data transfer limit exceeded",
		[NVME_TCP_FES_UNSUPPORTED] =
			"the target ended the connection: unsupported parameter",
	};
	uint16_t fes = from_le16(pdu->term->fes);

	return fault(c, pdu, NVME_TCP_FES_NONE, 0,
		fes < ARRAY_LEN(reasons) ? reasons[fes] : "the target ended the connection");
}

static void answer(struct tcp_conn *c, struct nvmf_slot *s, uint16_t status, uint64_t result)
{
	struct tcp_slot *t = tcp_slot_of(c, s);

	t->answered = true;
	t->status = status;
	t->result = result;
	tcp_finish(c, s);
}

static int on_resp(struct tcp_conn *c, const struct nvme_tcp_pdu *pdu)
{
	const struct nvme_cqe *cqe = &pdu->resp->cqe;
	struct nvmf_slot *s = nvmf_slot_find(c->q, from_le16(cqe->cid));

	if (!s || tcp_slot_of(c, s)->answered)
		return fault(c, pdu, NVME_TCP_FES_INVALID_FIELD,
			offsetof(struct nvme_tcp_resp, cqe) + offsetof(struct nvme_cqe, cid),
			"response to a command that is not in flight");
	answer(c, s, nvme_cqe_status(cqe), from_le64(cqe->result));
	return 0;
}

static int on_r2t(struct tcp_conn *c, const struct nvme_tcp_pdu *pdu)
{
	const struct nvme_tcp_r2t *p = pdu->r2t;
	struct nvmf_slot *s = nvmf_slot_find(c->q, from_le16(p->cccid));
	struct tcp_slot *t = s ? tcp_slot_of(c, s) : NULL;
	uint32_t offset = from_le32(p->r2to), len = from_le32(p->r2tl);

	if (!t || !s->out || t->in_capsule || t->answered)
		return fault(c, pdu, NVME_TCP_FES_INVALID_FIELD,
			offsetof(struct nvme_tcp_r2t, cccid),
			"R2T for a command that has no data to send");
	if (t->now.left || t->next.left)
		return fault(
			c, pdu, NVME_TCP_FES_LIMIT, 0, "a second R2T before the first was served");
	if (offset != t->granted || len > s->data_bytes - offset)
		return fault(c, pdu, NVME_TCP_FES_DATA_RANGE, 0, "R2T outside its transfer");
	t->granted = offset + len;
	/* The stream may still hold the last PDU of the former R2T. */
	t->next = (struct tcp_grant){.ttag = from_le16(p->ttag), .offset = offset, .left = len};
	tcp_send_granted(c, s);
	return 0;
}

static int on_data(struct tcp_conn *c, const struct nvme_tcp_pdu *pdu)
{
	const struct nvme_tcp_data *p = pdu->data;
	struct nvmf_slot *s = nvmf_slot_find(c->q, from_le16(p->cccid));
	struct tcp_slot *t = s ? tcp_slot_of(c, s) : NULL;

	if (!t || s->out || !s->data_bytes || t->answered)
		return fault(c, pdu, NVME_TCP_FES_INVALID_FIELD,
			offsetof(struct nvme_tcp_data, cccid),
			"data for a command that expects none");
	if (from_le32(p->datao) != t->moved || pdu->data_bytes > s->data_bytes - t->moved)
		return fault(c, pdu, NVME_TCP_FES_DATA_RANGE, 0, "data outside its transfer");
	t->digest = CRC32C_INIT;
	c->rx_slot = s;
	c->rx_success = pdu->flags & NVME_TCP_F_SUCCESS;
	return 0;
}

static int on_pdu(struct tcp_conn *c, const struct nvme_tcp_pdu *pdu)
{
	c->rx_slot = NULL;
	switch (pdu->type) {
	case NVME_TCP_ICRESP:
		return on_icresp(c, pdu);
	case NVME_TCP_C2H_TERM:
		return on_term(c, pdu);
	case NVME_TCP_CAPSULE_RESP:
		return on_resp(c, pdu);
	case NVME_TCP_R2T:
		return on_r2t(c, pdu);
	case NVME_TCP_C2H_DATA:
		return on_data(c, pdu);
	default: /* the decoder lets nothing else through to a host */
		return fault(c, pdu, NVME_TCP_FES_INVALID_FIELD, 0, "unexpected PDU");
	}
}

/* ---- from bytes to PDUs -------------------------------------------------------------------------------------------- */

/* A data PDU is over: its bytes and, where agreed, its digest are here. */
static void data_end(struct tcp_conn *c, bool digest_ok)
{
	struct nvmf_slot *s = c->rx_slot;

	c->rx = TCP_RX_HEAD;
	c->rx_slot = NULL;
	if (!digest_ok) {
		tcp_slot_of(c, s)->bad_digest = true;
		c->q->n->stats.data_digest_errors++;
	}
	if (c->rx_success)
		answer(c, s, NVME_SC_SUCCESS, 0);
}

static void data_got(struct tcp_conn *c, const struct iovec *iov, size_t len)
{
	struct nvmf_slot *s = c->rx_slot;
	struct tcp_slot *t = tcp_slot_of(c, s);
	size_t left = len;

	for (; c->rx_digest && left; iov++) {
		size_t n = MIN(left, iov->iov_len);

		t->digest = crc32c_add(t->digest, iov->iov_base, n);
		left -= n;
	}
	tcp_moved(s, t, len);
	c->rx_left -= (uint32_t)len;
	if (c->rx_left)
		return;
	if (c->rx_digest) {
		c->rx = TCP_RX_DIGEST;
		c->rx_left = sizeof(le32);
	} else {
		data_end(c, true);
	}
}

static void begin_data(struct tcp_conn *c)
{
	c->rx = TCP_RX_DATA;
	c->rx_left = c->rx_data;
}

/* The header at buf + at: 1 when it was taken, 0 when bytes are missing, -EPROTO. */
static int take_head(struct tcp_conn *c)
{
	struct nvme_tcp_pdu pdu;
	struct nvme_tcp_fault f;
	uint32_t have = c->end - c->at;
	int rc = nvme_tcp_pdu_parse(&c->link, c->buf + c->at, have, &pdu, &f);

	if (rc < 0)
		return tcp_fault(c, &f, c->buf + c->at, MIN(have, (uint32_t)NVME_TCP_HDR_MAX));
	if (rc >
		0) /* then have < rc <= NVME_TCP_HDR_MAX, which the buffer holds after moving it up */
		return 0;
	c->at += pdu.head_bytes;
	rc = on_pdu(c, &pdu);
	if (rc < 0 || c->dead)
		return -EPROTO;
	if (c->rx_slot) {
		c->rx_data = pdu.data_bytes;
		c->rx_digest = pdu.ddgst;
		c->rx_left = pdu.pad_bytes;
		c->rx = TCP_RX_PAD;
		if (!c->rx_left)
			begin_data(c);
	}
	return 1;
}

/* Data that came along with a header into our buffer. */
static void copy_data(struct tcp_conn *c)
{
	struct tcp_slot *t = tcp_slot_of(c, c->rx_slot);
	uint32_t want = MIN(c->rx_left, c->end - c->at);
	struct iovec iov[RX_PIECES];
	int n = tcp_pieces(c->rx_slot, t, want, iov, RX_PIECES);
	size_t len = 0;

	for (int i = 0; i < n; i++) {
		memcpy(iov[i].iov_base, c->buf + c->at, iov[i].iov_len);
		c->at += (uint32_t)iov[i].iov_len;
		len += iov[i].iov_len;
	}
	data_got(c, iov, len);
}

static int take_digest(struct tcp_conn *c)
{
	le32 got;

	if (c->end - c->at < sizeof(got))
		return 0;
	memcpy(&got, c->buf + c->at, sizeof(got));
	c->at += sizeof(got);
	data_end(c, from_le32(got) == crc32c_end(tcp_slot_of(c, c->rx_slot)->digest));
	return 1;
}

/* Works off what is in the buffer: until bytes are missing, or the connection is lost. */
static void take_all(struct tcp_conn *c)
{
	int rc = 1;

	while (rc > 0 && !c->dead && c->at < c->end) {
		uint32_t n = MIN(c->rx_left, c->end - c->at);

		switch (c->rx) {
		case TCP_RX_HEAD:
			rc = take_head(c);
			break;
		case TCP_RX_PAD:
			c->at += n;
			c->rx_left -= n;
			if (!c->rx_left)
				begin_data(c);
			break;
		case TCP_RX_DATA:
			copy_data(c);
			break;
		case TCP_RX_DIGEST:
			rc = take_digest(c);
			break;
		}
	}
	memmove(c->buf, c->buf + c->at, c->end - c->at);
	c->end -= c->at;
	c->at = 0;
}

/* One receive: the command's own pieces first when data is due, then our buffer. */
static ssize_t receive(struct tcp_conn *c)
{
	struct iovec iov[RX_PIECES + 1];
	size_t direct = 0, len;
	ssize_t got;
	int n = 0;

	if (c->rx == TCP_RX_DATA && c->at == c->end) {
		n = tcp_pieces(c->rx_slot, tcp_slot_of(c, c->rx_slot), c->rx_left, iov, RX_PIECES);
		for (int i = 0; i < n; i++)
			direct += iov[i].iov_len;
	}
	/* Where the pieces were too many for one call, nothing may land behind a gap. */
	if (c->rx != TCP_RX_DATA || direct == c->rx_left)
		iov[n++] = (struct iovec){c->buf + c->end, sizeof(c->buf) - c->end};
	got = stream_recv(c->stream, iov, n);
	if (got <= 0)
		return got;
	len = MIN((size_t)got, direct);
	c->end += (uint32_t)((size_t)got - len);
	if (len)
		data_got(c, iov, len);
	take_all(c);
	return got;
}

void tcp_readable(struct stream *st, void *arg)
{
	struct tcp_conn *c = arg;

	tcp_count(c);
	for (int i = 0; i < RX_ROUNDS && !c->dead; i++) {
		ssize_t got = receive(c);

		if (got == 0) {
			struct nvme_tcp_fault f;

			nvme_tcp_fault_set(
				&f, NVME_TCP_FES_NONE, 0, "the target closed the connection");
			tcp_fault(c, &f, NULL, 0);
		}
		if (got <= 0)
			return;
	}
}
