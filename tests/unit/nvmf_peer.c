/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/nvmf_peer.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"

#define FRESH_CNTLID 7

struct msg {
	struct stream_tx tx;
	struct iovec iov;
	uint8_t bytes[];
};

/* ---- sending ------------------------------------------------------------------------------------------ */

static void msg_done(struct stream_tx *tx, int status)
{
	free(container_of(tx, struct msg, tx));
}

static uint64_t rnd(struct peer *p)
{
	p->cfg.seed = p->cfg.seed * 6364136223846793005ULL + 1442695040888963407ULL;
	return p->cfg.seed >> 33;
}

static void send_bytes(
	struct peer_conn *c, const void *head, size_t hlen, const void *data, size_t len)
{
	size_t tail = len && c->link.ddgst ? 4 : 0;
	struct msg *m;

	if (!c->open)
		return;
	m = malloc(sizeof(*m) + hlen + len + tail);
	if (!m)
		return;
	memcpy(m->bytes, head, hlen);
	if (len)
		memcpy(m->bytes + hlen, data, len);
	if (tail) {
		le32 crc = to_le32(crc32c(data, len));

		if (c->p->cfg.mischief == PEER_BAD_DDGST && c->qid && !c->p->done_mischief) {
			crc.b[0] ^= 1;
			c->p->done_mischief = true;
		}
		memcpy(m->bytes + hlen + len, &crc, tail);
	}
	if (c->p->cfg.mischief == PEER_MUTATE && rnd(c->p) % 4 == 0)
		for (unsigned int i = 0; i <= rnd(c->p) % 4; i++)
			m->bytes[rnd(c->p) % (rnd(c->p) % 2 ? 24 : hlen + len)] ^=
				(uint8_t)(1u << rnd(c->p) % 8);
	m->iov = (struct iovec){m->bytes, hlen + len + tail};
	m->tx = (struct stream_tx){.iov = &m->iov, .niov = 1, .done_fn = msg_done};
	if (stream_send(c->stream, &m->tx) < 0)
		free(m);
}

static void respond(struct peer_conn *c, uint16_t cid, uint16_t status, uint64_t result)
{
	uint8_t head[NVME_TCP_HEAD_MAX];
	struct nvme_cqe cqe;

	nvme_cqe_set(&cqe, cid, status, result, 0);
	send_bytes(c, head, nvme_tcp_put_resp(&c->link, head, &cqe), NULL, 0);
	c->cmds[cid % PEER_CMDS].busy = false;
}

static void send_data(struct peer_conn *c, uint16_t cid, const uint8_t *data, uint32_t len)
{
	uint32_t max = c->p->cfg.c2h_bytes ? c->p->cfg.c2h_bytes : len;
	bool success = c->p->cfg.success && c->qid;
	uint8_t head[NVME_TCP_HEAD_MAX];

	for (uint32_t at = 0; at < len; at += max) {
		uint32_t n = MIN(max, len - at);
		uint8_t flags = at + n < len ? 0
					     : NVME_TCP_F_LAST | (success ? NVME_TCP_F_SUCCESS : 0);

		send_bytes(c, head, nvme_tcp_put_c2h_data(&c->link, head, cid, at, n, flags),
			data + at, n);
	}
	if (!success)
		respond(c, cid, 0, 0);
	c->cmds[cid % PEER_CMDS].busy = false;
}

static void send_r2t(struct peer_conn *c, uint16_t cid, uint32_t offset, uint32_t len)
{
	uint8_t head[NVME_TCP_HEAD_MAX];

	c->p->nr2ts++;
	c->cmds[cid % PEER_CMDS].granted = offset + len;
	send_bytes(c, head,
		nvme_tcp_put_r2t(&c->link, head, cid, (uint16_t)(cid ^ 0x5555), offset, len), NULL,
		0);
}

/* ---- misbehaving, instead of serving this command ---------------------------------------------------------- */

static void misbehave(struct peer_conn *c, const struct nvme_sqe *sqe, uint32_t len)
{
	static uint8_t junk[65536];
	struct nvme_tcp_fault f = {.fes = NVME_TCP_FES_SEQUENCE};
	uint8_t head[NVME_TCP_TERM_MAX];
	uint16_t cid = from_le16(sqe->cid);
	struct nvme_cqe cqe;
	size_t n;

	memset(junk, 0xee, sizeof(junk));
	nvme_cqe_set(&cqe, cid, 0, 0, 0);
	switch (c->p->cfg.mischief) {
	case PEER_RESP_UNKNOWN:
		respond(c, (uint16_t)(cid + 1024), 0, 0);
		break;
	case PEER_RESP_TWICE:
		respond(c, cid, NVME_SC_INTERNAL, 0);
		respond(c, cid, NVME_SC_INTERNAL, 0);
		break;
	case PEER_DATA_UNKNOWN:
		n = nvme_tcp_put_c2h_data(
			&c->link, head, (uint16_t)(cid + 1), 0, 512, NVME_TCP_F_LAST);
		send_bytes(c, head, n, junk, 512);
		break;
	case PEER_DATA_FOR_WRITE:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 0, 512, NVME_TCP_F_LAST);
		send_bytes(c, head, n, junk, 512);
		break;
	case PEER_DATA_BEYOND:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 0, len + 512, NVME_TCP_F_LAST);
		send_bytes(c, head, n, junk, len + 512);
		break;
	case PEER_DATA_GAP:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 512, 512, NVME_TCP_F_LAST);
		send_bytes(c, head, n, junk, 512);
		break;
	case PEER_DATA_LENGTH:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 0, 512, NVME_TCP_F_LAST);
		((struct nvme_tcp_data *)head)->datal = to_le32(0x7fffff00);
		send_bytes(c, head, n, junk, 512);
		break;
	case PEER_R2T_BEYOND:
		send_r2t(c, cid, 0, len + 4);
		break;
	case PEER_R2T_FOR_READ:
		send_r2t(c, cid, 0, len);
		break;
	case PEER_R2T_TWICE:
		send_r2t(c, cid, 0, len / 2);
		send_r2t(c, cid, len / 2, len / 4);
		send_r2t(c, cid, len / 2 + len / 4, len / 4);
		break;
	case PEER_R2T_GAP:
		send_r2t(c, cid, len / 2, len / 2);
		break;
	case PEER_SHORT_READ:
		respond(c, cid, 0, 0);
		break;
	case PEER_BAD_HDGST:
		n = nvme_tcp_put_resp(&c->link, head, &cqe);
		head[9] ^= 0x40;
		send_bytes(c, head, n, NULL, 0);
		break;
	case PEER_TERM:
		send_bytes(c, head, nvme_tcp_put_term(&c->link, head, &f, junk, 24), NULL, 0);
		break;
	case PEER_CLOSE:
		stream_shutdown(c->stream);
		break;
	case PEER_GARBAGE:
		send_bytes(c, junk, 4096, NULL, 0);
		break;
	case PEER_WRONG_DIRECTION:
		send_bytes(c, head, nvme_tcp_put_cmd(&c->link, head, sqe, 0), NULL, 0);
		break;
	case PEER_MEDIA_ERROR:
		respond(c, cid, NVME_SC_READ_ERROR | NVME_SC_DNR, 0);
		break;
	default: /* PEER_NO_ANSWER, PEER_SLOW */
		break;
	}
}

static bool wants_mischief(const struct peer *p, const struct nvme_sqe *sqe)
{
	enum peer_mischief m = p->cfg.mischief;

	if (p->done_mischief || m < PEER_RESP_UNKNOWN || m == PEER_MUTATE || m == PEER_BAD_DDGST)
		return false;
	switch (m) {
	case PEER_DATA_FOR_WRITE:
	case PEER_R2T_BEYOND:
	case PEER_R2T_TWICE:
	case PEER_R2T_GAP:
		return sqe->opcode == NVME_CMD_WRITE;
	case PEER_DATA_BEYOND:
	case PEER_DATA_GAP:
	case PEER_DATA_LENGTH:
	case PEER_R2T_FOR_READ:
	case PEER_SHORT_READ:
		return sqe->opcode == NVME_CMD_READ;
	default:
		return sqe->opcode == NVME_CMD_READ || sqe->opcode == NVME_CMD_WRITE;
	}
}

/* ---- admin ------------------------------------------------------------------------------------------------------ */

static void on_fabrics(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	const struct nvme_fabrics_sqe *f = (const void *)sqe;
	const struct nvme_connect_sqe *con = (const void *)sqe;
	const struct nvme_property_sqe *prop = (const void *)sqe;
	uint16_t cid = from_le16(sqe->cid);
	struct peer *p = c->p;

	switch (f->fctype) {
	case NVME_FCTYPE_CONNECT:
		p->nconnects++;
		c->qid = from_le16(con->qid);
		if (p->cfg.mischief == PEER_REFUSE_CONNECT)
			respond(c, cid, NVME_SC_CONNECT_INVALID_HOST | NVME_SC_DNR, 0);
		else
			respond(c, cid, 0,
				FRESH_CNTLID | (p->cfg.mischief == PEER_ASK_AUTH ? 1u << 16 : 0));
		break;
	case NVME_FCTYPE_PROPERTY_SET:
		p->cc = (uint32_t)from_le64(prop->value);
		respond(c, cid, 0, 0);
		break;
	case NVME_FCTYPE_PROPERTY_GET:
		if (from_le32(prop->ofst) == NVME_PROP_CAP)
			respond(c, cid, 0, 1023 | NVME_CAP_CQR | NVME_CAP_CSS_NVM | 10ULL << 24);
		else if (from_le32(prop->ofst) == NVME_PROP_CSTS)
			respond(c, cid, 0,
				p->cfg.mischief == PEER_FATAL_STATUS  ? NVME_CSTS_CFS
				: p->cfg.mischief == PEER_NEVER_READY ? 0
				: p->cc & NVME_CC_SHN_MASK ? NVME_CSTS_SHST_DONE | NVME_CSTS_RDY
							   : NVME_CSTS_RDY);
		else
			respond(c, cid, 0, NVME_VS_1_4);
		break;
	default:
		respond(c, cid, NVME_SC_INVALID_FIELD, 0);
	}
}

static void on_identify(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	union {
		struct nvme_id_ctrl ctrl;
		struct nvme_id_ns ns;
		le32 list[1024];
		uint8_t bytes[4096];
	} id = {.bytes = {0}};
	uint16_t cid = from_le16(sqe->cid);

	switch (from_le32(sqe->cdw10) & 0xff) {
	case NVME_CNS_CTRL:
		id.ctrl.ioccsz = to_le32((64 + c->p->cfg.capsule_bytes) / 16);
		id.ctrl.oaes = to_le32(NVME_OAES_NS_ATTR);
		id.ctrl.mdts = 6; /* 256 KiB */
		id.ctrl.acl = 3;
		break;
	case NVME_CNS_NS:
		if (from_le32(sqe->nsid) != 1) {
			respond(c, cid, NVME_SC_INVALID_NS | NVME_SC_DNR, 0);
			return;
		}
		id.ns.nsze = to_le64(PEER_BLOCKS);
		id.ns.lbaf[0].ds = 9;
		break;
	case NVME_CNS_NS_ACTIVE_LIST:
		id.list[0] = to_le32(from_le32(sqe->nsid) < 1 ? 1 : 0);
		break;
	}
	send_data(c, cid, id.bytes, sizeof(id));
}

static void on_log(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	uint64_t off = nvme_sqe_log_offset(sqe), len = nvme_sqe_log_len_bytes(sqe);
	struct {
		struct nvme_discovery_header h;
		struct nvme_discovery_record r[6];
	} *log = calloc(1, sizeof(*log));

	if (!log || off > sizeof(*log) || len > sizeof(*log) - off) {
		respond(c, from_le16(sqe->cid), NVME_SC_INVALID_FIELD | NVME_SC_DNR, 0);
	} else {
		log->h.genctr = to_le64(3);
		log->h.numrec = to_le64(6);
		for (int i = 0; i < 6; i++) {
			log->r[i].portid = to_le16((uint16_t)i);
			memcpy(log->r[i].subnqn, PEER_NQN, sizeof(PEER_NQN));
		}
		send_data(c, from_le16(sqe->cid), (uint8_t *)log + off, (uint32_t)len);
	}
	free(log);
}

static void abort_all(struct peer_conn *c)
{
	for (int i = 0; i < PEER_CMDS; i++)
		if (c->open && c->cmds[i].busy)
			respond(c, from_le16(c->cmds[i].sqe.cid), NVME_SC_ABORT_REQ, 0);
}

static void on_admin(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	uint16_t cid = from_le16(sqe->cid), q = c->p->cfg.max_queues ? c->p->cfg.max_queues - 1 : 7;

	switch (sqe->opcode) {
	case NVME_ADMIN_IDENTIFY:
		on_identify(c, sqe);
		break;
	case NVME_ADMIN_GET_LOG_PAGE:
		on_log(c, sqe);
		break;
	case NVME_ADMIN_SET_FEATURES:
		respond(c, cid, 0, (uint32_t)q << 16 | q);
		break;
	case NVME_ADMIN_KEEP_ALIVE:
		c->p->nkeep_alives++;
		respond(c, cid, 0, 0);
		break;
	case NVME_ADMIN_ASYNC_EVENT:
		c->p->naers++;
		c->p->aer_cid = cid;
		break;
	case NVME_ADMIN_ABORT:
		c->p->naborts++;
		if (c->p->cfg.mischief == PEER_NO_ANSWER)
			break;
		for (int i = 0; i < PEER_CONNS; i++)
			if (c->p->conns[i].open && c->p->conns[i].qid)
				abort_all(&c->p->conns[i]);
		respond(c, cid, 0, 0);
		break;
	default:
		respond(c, cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0);
	}
}

/* ---- I/O --------------------------------------------------------------------------------------------------------- */

static void on_io(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
{
	const struct nvme_sqe *sqe = &pdu->cmd->sqe;
	uint64_t lba = nvme_sqe_slba(sqe);
	uint32_t len = nvme_sqe_nlb(sqe) * PEER_BLOCK;
	uint16_t cid = from_le16(sqe->cid);
	struct peer_cmd *cmd = &c->cmds[cid % PEER_CMDS];

	*cmd = (struct peer_cmd){.sqe = *sqe, .busy = true, .len = len};
	if (wants_mischief(c->p, sqe)) {
		c->p->done_mischief = true;
		misbehave(c, sqe, len);
		return;
	}
	if (sqe->opcode == NVME_CMD_FLUSH || sqe->opcode == NVME_CMD_DSM) {
		c->p->nflushes += sqe->opcode == NVME_CMD_FLUSH;
		respond(c, cid, 0, 0);
		return;
	}
	if (lba > PEER_BLOCKS || len / PEER_BLOCK > PEER_BLOCKS - lba) {
		respond(c, cid, NVME_SC_LBA_RANGE | NVME_SC_DNR, 0);
		return;
	}
	switch (sqe->opcode) {
	case NVME_CMD_READ:
		send_data(c, cid, c->p->mem + lba * PEER_BLOCK, len);
		break;
	case NVME_CMD_WRITE_ZEROES:
		memset(c->p->mem + lba * PEER_BLOCK, 0, len);
		respond(c, cid, 0, 0);
		break;
	case NVME_CMD_WRITE:
		if (pdu->data_bytes == len) {
			c->p->ncapsule_writes++;
			memcpy(c->p->mem + lba * PEER_BLOCK, data, len);
			respond(c, cid, 0, 0);
		} else {
			send_r2t(c, cid, 0,
				c->p->cfg.r2t_bytes ? MIN(c->p->cfg.r2t_bytes, len) : len);
		}
		break;
	default:
		respond(c, cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0);
	}
}

static void on_h2c(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
{
	uint16_t cid = from_le16(pdu->data->cccid);
	struct peer_cmd *cmd = &c->cmds[cid % PEER_CMDS];
	uint32_t off = from_le32(pdu->data->datao);
	uint64_t at = nvme_sqe_slba(&cmd->sqe) * PEER_BLOCK;

	if (!cmd->busy || off != cmd->got || pdu->data_bytes > cmd->granted - off ||
		at + cmd->granted > PEER_BLOCKS * PEER_BLOCK)
		return; /* a peer that has sent nonsense gets nonsense */
	memcpy(c->p->mem + at + off, data, pdu->data_bytes);
	cmd->got += pdu->data_bytes;
	if (cmd->got < cmd->granted)
		return;
	if (cmd->got < cmd->len)
		send_r2t(c, cid, cmd->got, MIN(c->p->cfg.r2t_bytes, cmd->len - cmd->got));
	else
		respond(c, cid, 0, 0);
}

static void on_icreq(struct peer_conn *c, const struct nvme_tcp_pdu *pdu)
{
	struct peer_cfg *cfg = &c->p->cfg;
	uint32_t max = cfg->maxh2cdata ? cfg->maxh2cdata : 4096;
	uint8_t dgst = pdu->icreq->dgst, head[NVME_TCP_HEAD_MAX];

	if (cfg->mischief == PEER_NO_ICRESP)
		return;
	if (!cfg->hdgst)
		dgst &= (uint8_t)~NVME_TCP_DGST_HDR;
	if (!cfg->ddgst)
		dgst &= (uint8_t)~NVME_TCP_DGST_DATA;
	if (cfg->mischief == PEER_FEWER_DIGESTS)
		dgst = 0;
	send_bytes(c, head,
		nvme_tcp_put_icresp(
			head, cfg->cpda, dgst, cfg->mischief == PEER_BAD_ICRESP ? 0 : max),
		NULL, 0);
	c->link.rx_pda = cfg->cpda;
	c->link.tx_pda = pdu->icreq->hpda;
	c->link.hdgst = dgst & NVME_TCP_DGST_HDR;
	c->link.ddgst = dgst & NVME_TCP_DGST_DATA;
	c->link.ready = true;
}

static void on_pdu(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
{
	switch (pdu->type) {
	case NVME_TCP_ICREQ:
		on_icreq(c, pdu);
		break;
	case NVME_TCP_H2C_TERM:
		c->p->term_fes = from_le16(pdu->term->fes);
		break;
	case NVME_TCP_CAPSULE_CMD:
		c->p->ncommands++;
		if (pdu->cmd->sqe.opcode == NVME_OPC_FABRICS)
			on_fabrics(c, &pdu->cmd->sqe);
		else if (c->qid)
			on_io(c, pdu, data);
		else
			on_admin(c, &pdu->cmd->sqe);
		break;
	case NVME_TCP_H2C_DATA:
		on_h2c(c, pdu, data);
		break;
	}
}

/* ---- connections --------------------------------------------------------------------------------------------------- */

static void conn_close(struct peer_conn *c)
{
	if (!c->open)
		return;
	c->open = false;
	stream_close(c->stream);
	free(c->buf);
}

static bool digest_ok(const uint8_t *data, uint32_t len)
{
	le32 crc = to_le32(crc32c(data, len));

	return memcmp(data + len, &crc, sizeof(crc)) == 0;
}

static void take_all(struct peer_conn *c)
{
	uint32_t at = 0;

	while (c->open) {
		struct nvme_tcp_pdu pdu;
		struct nvme_tcp_fault f;
		int rc = nvme_tcp_pdu_parse(&c->link, c->buf + at, c->have - at, &pdu, &f);
		const uint8_t *data = c->buf + at + pdu.head_bytes + pdu.pad_bytes;

		if (rc < 0) {
			conn_close(c);
			return;
		}
		if (rc > 0 || c->have - at < pdu.plen)
			break;
		if (pdu.ddgst && !digest_ok(data, pdu.data_bytes))
			c->p->term_fes = 100; /* our digest of what the initiator sent differs */
		on_pdu(c, &pdu, data);
		at += pdu.plen;
	}
	if (!c->open)
		return;
	memmove(c->buf, c->buf + at, c->have - at);
	c->have -= at;
}

static void readable(struct stream *s, void *arg)
{
	struct peer_conn *c = arg;
	struct iovec iov = {c->buf + c->have, PEER_BUF - c->have};
	ssize_t n = stream_recv(s, &iov, 1);

	if (n == 0)
		conn_close(c);
	if (n <= 0)
		return;
	c->have += (uint32_t)n;
	take_all(c);
}

static void closed(struct stream *s, void *arg, int err)
{
	conn_close(arg);
}

static const struct stream_events events = {.readable_fn = readable, .closed_fn = closed};

static int accepted(struct stream_listener *l, void *arg, struct stream *s)
{
	struct peer *p = arg;
	struct peer_conn *c = p->conns;

	while (c < p->conns + PEER_CONNS && c->open)
		c++;
	if (c == p->conns + PEER_CONNS)
		return -EBUSY;
	memset(c, 0, sizeof(*c));
	c->buf = malloc(PEER_BUF);
	if (!c->buf)
		return -ENOMEM;
	c->p = p;
	c->stream = s;
	c->open = true;
	c->link = (struct nvme_tcp_link){.controller = true,
		.max_capsule_data = 65536,
		.max_data = p->cfg.maxh2cdata ? p->cfg.maxh2cdata : 4096,
		.digest = crc32c};
	stream_set_events(s, &events, c);
	return 0;
}

int peer_open(struct shard *sh, const struct peer_cfg *cfg, struct peer **out)
{
	struct peer *p = calloc(1, sizeof(*p));
	int rc = -ENOMEM;

	if (!p)
		return -ENOMEM;
	p->sh = sh;
	p->cfg = *cfg;
	p->term_fes = -1;
	p->mem = calloc(PEER_BLOCKS, PEER_BLOCK);
	if (p->mem)
		rc = sockets_listen(sh, &(struct sockets_cfg){.addr = "127.0.0.1"}, &p->l, NULL);
	if (rc == 0)
		rc = stream_listener_start(p->l, accepted, p);
	if (rc < 0) {
		peer_close(p);
		return rc;
	}
	p->port = stream_listener_addr(p->l)->port;
	*out = p;
	return 0;
}

void peer_drop_connections(struct peer *p)
{
	for (int i = 0; i < PEER_CONNS; i++)
		conn_close(&p->conns[i]);
}

void peer_async_event(struct peer *p, uint32_t result)
{
	for (int i = 0; i < PEER_CONNS; i++)
		if (p->conns[i].open && p->conns[i].qid == 0)
			respond(&p->conns[i], p->aer_cid, 0, result);
}

void peer_close(struct peer *p)
{
	peer_drop_connections(p);
	if (p->l)
		stream_listener_close(p->l);
	free(p->mem);
	free(p);
}
