/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/nvmf_peer_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"

#define FRESH_CNTLID    7
#define PEER_ANA_GROUPS 2

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

void peer_send_bytes(
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

void peer_cmd_end(struct peer_cmd *cmd)
{
	free(cmd->data);
	cmd->data = NULL;
	cmd->busy = false;
}

void peer_respond(struct peer_conn *c, uint16_t cid, uint16_t status, uint64_t result)
{
	uint8_t head[NVME_TCP_HEAD_MAX];
	struct nvme_cqe cqe;

	nvme_cqe_set(&cqe, cid, status, result, 0);
	peer_send_bytes(c, head, nvme_tcp_put_resp(&c->link, head, &cqe), NULL, 0);
	peer_cmd_end(&c->cmds[cid % PEER_CMDS]);
}

void peer_send_data(struct peer_conn *c, uint16_t cid, const uint8_t *data, uint32_t len)
{
	uint32_t max = c->p->cfg.c2h_bytes ? c->p->cfg.c2h_bytes : len;
	bool success = c->p->cfg.success && c->qid;
	uint8_t head[NVME_TCP_HEAD_MAX];

	for (uint32_t at = 0; at < len; at += max) {
		uint32_t n = MIN(max, len - at);
		uint8_t flags = at + n < len ? 0
					     : NVME_TCP_F_LAST | (success ? NVME_TCP_F_SUCCESS : 0);

		peer_send_bytes(c, head, nvme_tcp_put_c2h_data(&c->link, head, cid, at, n, flags),
			data + at, n);
	}
	if (!success)
		peer_respond(c, cid, 0, 0);
	peer_cmd_end(&c->cmds[cid % PEER_CMDS]);
}

void peer_send_r2t(struct peer_conn *c, uint16_t cid, uint32_t offset, uint32_t len)
{
	uint8_t head[NVME_TCP_HEAD_MAX];

	c->p->nr2ts++;
	c->cmds[cid % PEER_CMDS].granted = offset + len;
	peer_send_bytes(c, head,
		nvme_tcp_put_r2t(&c->link, head, cid, (uint16_t)(cid ^ 0x5555), offset, len), NULL,
		0);
}

/* ---- admin ------------------------------------------------------------------------------------------------------ */

static void on_connect(struct peer_conn *c, const struct nvme_connect_sqe *con, const uint8_t *data)
{
	const struct nvme_connect_data *d = (const void *)data;
	struct peer *p = c->p;

	p->nconnects++;
	c->qid = from_le16(con->qid);
	memcpy(c->hostid, d->hostid, sizeof(c->hostid));
	if (c->qid) {
		c->cntlid = from_le16(d->cntlid);
	} else {
		c->cntlid = (uint16_t)(FRESH_CNTLID + p->ncontrollers++);
		p->kato_ms = from_le32(con->kato);
	}
	if (p->cfg.mischief == PEER_REFUSE_CONNECT)
		peer_respond(c, from_le16(con->cid), NVME_SC_CONNECT_INVALID_HOST | NVME_SC_DNR, 0);
	else
		peer_respond(c, from_le16(con->cid), 0,
			c->cntlid | (p->cfg.mischief == PEER_ASK_AUTH ? 1u << 16 : 0));
}

static void on_fabrics(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
{
	const struct nvme_sqe *sqe = &pdu->cmd->sqe;
	const struct nvme_fabrics_sqe *f = (const void *)sqe;
	const struct nvme_connect_sqe *con = (const void *)sqe;
	const struct nvme_property_sqe *prop = (const void *)sqe;
	uint16_t cid = from_le16(sqe->cid);
	struct peer *p = c->p;

	switch (f->fctype) {
	case NVME_FCTYPE_CONNECT:
		if (pdu->data_bytes < sizeof(struct nvme_connect_data))
			peer_respond(c, cid, NVME_SC_CONNECT_FORMAT | NVME_SC_DNR, 0);
		else
			on_connect(c, con, data);
		break;
	case NVME_FCTYPE_PROPERTY_SET:
		p->cc = (uint32_t)from_le64(prop->value);
		peer_respond(c, cid, 0, 0);
		break;
	case NVME_FCTYPE_PROPERTY_GET:
		if (from_le32(prop->ofst) == NVME_PROP_CAP)
			peer_respond(
				c, cid, 0, 1023 | NVME_CAP_CQR | NVME_CAP_CSS_NVM | 10ULL << 24);
		else if (from_le32(prop->ofst) == NVME_PROP_CSTS)
			peer_respond(c, cid, 0,
				p->cfg.mischief == PEER_FATAL_STATUS  ? NVME_CSTS_CFS
				: p->cfg.mischief == PEER_NEVER_READY ? 0
				: p->cc & NVME_CC_SHN_MASK ? NVME_CSTS_SHST_DONE | NVME_CSTS_RDY
							   : NVME_CSTS_RDY);
		else
			peer_respond(c, cid, 0, NVME_VS_1_4);
		break;
	default:
		peer_respond(c, cid, NVME_SC_INVALID_FIELD, 0);
	}
}

static void fill_ctrl(const struct peer_cfg *cfg, struct nvme_id_ctrl *id)
{
	uint32_t oaes = NVME_OAES_NS_ATTR;

	nvme_ascii_fill(id->sn, sizeof(id->sn), "PEER0001");
	nvme_ascii_fill(id->mn, sizeof(id->mn), "Scripted peer");
	id->ioccsz = to_le32((64 + cfg->capsule_bytes) / 16);
	id->mdts = 6; /* 256 KiB */
	id->acl = 3;
	id->kas = to_le16(cfg->kas);
	id->cqt = to_le16(cfg->cqt);
	id->vwc = NVME_VWC_PRESENT;
	id->nn = to_le32(1);
	id->oncs = to_le16((uint16_t)(NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES |
				      (cfg->reservations ? NVME_ONCS_RESERVATIONS : 0)));
	if (cfg->ana) {
		oaes |= NVME_OAES_ANA_CHANGE;
		id->cmic = NVME_CMIC_PORTS | NVME_CMIC_CTRLS | NVME_CMIC_ANA;
		id->anatt = 10;
		id->anacap = NVME_ANACAP_OPTIMIZED | NVME_ANACAP_NON_OPTIMIZED |
			     NVME_ANACAP_INACCESSIBLE | NVME_ANACAP_LOSS | NVME_ANACAP_CHANGE |
			     NVME_ANACAP_GRPID_FIXED;
		id->anagrpmax = id->nanagrpid = to_le32(PEER_ANA_GROUPS);
	}
	id->oaes = to_le32(oaes);
}

static void fill_ns(const struct peer *p, struct nvme_id_ns *id)
{
	id->nsze = id->ncap = id->nuse = to_le64(p->ns->nblocks);
	id->lbaf[0].ds = 9;
	id->nmic = NVME_NMIC_SHARED;
	id->dlfeat = NVME_DLFEAT_ZERO | NVME_DLFEAT_WZ_DEAC;
	id->rescap = p->cfg.reservations ? p->cfg.no_ptpl ? 0xfe : 0xff : 0;
	id->anagrpid = to_le32(p->cfg.ana ? PEER_ANA_GROUPS : 0);
	memcpy(id->nguid, p->ns->nguid, sizeof(id->nguid));
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
		fill_ctrl(&c->p->cfg, &id.ctrl);
		break;
	case NVME_CNS_NS:
		if ((from_le32(sqe->nsid) != 1 && !c->p->cfg.list_fn) || c->p->cfg.no_namespace) {
			peer_respond(c, cid, NVME_SC_INVALID_NS | NVME_SC_DNR, 0);
			return;
		}
		fill_ns(c->p, &id.ns);
		break;
	case NVME_CNS_NS_ACTIVE_LIST:
		if (c->p->cfg.list_fn)
			c->p->cfg.list_fn(c->p->cfg.fn_arg, from_le32(sqe->nsid), id.list);
		else
			id.list[0] = to_le32(from_le32(sqe->nsid) < 1 ? 1 : 0);
		break;
	}
	peer_send_data(c, cid, id.bytes, sizeof(id));
}

/* Group 1 is empty and out of reach; the namespace is in group 2. */
static void on_ana_log(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	uint64_t off = nvme_sqe_log_offset(sqe), len = nvme_sqe_log_len_bytes(sqe);
	bool groups_only = from_le32(sqe->cdw10) & NVME_LOG_ANA_RGO;
	uint8_t log[4096] = {0};
	struct nvme_ana_log *h = (void *)log;
	struct nvme_ana_group_desc *g = (void *)(h + 1);

	c->p->nana_reads++;
	h->chgcnt = to_le64(c->p->ana_changes);
	h->ngrps = to_le16(PEER_ANA_GROUPS);
	g[0].grpid = to_le32(1);
	g[0].state = NVME_ANA_INACCESSIBLE;
	g[1].grpid = to_le32(PEER_ANA_GROUPS);
	g[1].state = (uint8_t)c->p->ana_state;
	g[1].nnsids = to_le32(groups_only ? 0 : 1);
	g[1].nsids[0] = to_le32(groups_only ? 0 : 1);
	if (!c->p->cfg.ana || off > sizeof(log) || len > sizeof(log) - off)
		peer_respond(c, from_le16(sqe->cid), NVME_SC_INVALID_LOG_PAGE | NVME_SC_DNR, 0);
	else
		peer_send_data(c, from_le16(sqe->cid), log + off, (uint32_t)len);
}

static void on_log(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	uint64_t off = nvme_sqe_log_offset(sqe), len = nvme_sqe_log_len_bytes(sqe);
	struct {
		struct nvme_discovery_header h;
		struct nvme_discovery_record r[6];
	} *log = calloc(1, sizeof(*log));
	uint8_t page[8192];

	if (c->p->cfg.log_fn && len <= sizeof(page)) {
		c->p->cfg.log_fn(c->p->cfg.fn_arg, off, page, (uint32_t)len);
		peer_send_data(c, from_le16(sqe->cid), page, (uint32_t)len);
	} else if (!log || off > sizeof(*log) || len > sizeof(*log) - off) {
		peer_respond(c, from_le16(sqe->cid), NVME_SC_INVALID_FIELD | NVME_SC_DNR, 0);
	} else {
		log->h.genctr = to_le64(3);
		log->h.numrec = to_le64(6);
		for (int i = 0; i < 6; i++) {
			log->r[i].portid = to_le16((uint16_t)i);
			memcpy(log->r[i].subnqn, PEER_NQN, sizeof(PEER_NQN));
		}
		peer_send_data(c, from_le16(sqe->cid), (uint8_t *)log + off, (uint32_t)len);
	}
	free(log);
}

/* True when the command is no more: it has ended as aborted. */
static bool abort_cmd(struct peer_conn *c, uint16_t cid)
{
	struct peer_cmd *cmd = &c->cmds[cid % PEER_CMDS];
	struct peer_held *h;

	if (!cmd->busy || from_le16(cmd->sqe.cid) != cid)
		return false;
	TAILQ_FOREACH (h, &c->p->held, link)
		if (h->c == c && from_le16(h->sqe.cid) == cid)
			break;
	if (h && h->carried_out)
		return false;
	if (h)
		peer_held_free(c->p, h);
	peer_respond(c, cid, NVME_SC_ABORT_REQ, 0);
	return true;
}

static void on_abort(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	uint32_t what = from_le32(sqe->cdw10);
	bool done = false;

	c->p->naborts++;
	if (c->p->cfg.mischief == PEER_NO_ANSWER)
		return;
	for (int i = 0; i < PEER_CONNS && !c->p->cfg.aborts_nothing; i++) {
		struct peer_conn *q = &c->p->conns[i];

		if (q->open && q->cntlid == c->cntlid && q->qid && q->qid == (what & 0xffff))
			done |= abort_cmd(q, (uint16_t)(what >> 16));
	}
	peer_respond(c, from_le16(sqe->cid), 0, done ? 0 : 1);
}

static void on_aer(struct peer_conn *c, uint16_t cid)
{
	c->p->naers++;
	c->aer_cid = cid;
	c->aer_here = true;
	if (!c->event_waits)
		return;
	c->event_waits = c->aer_here = false;
	peer_respond(c, cid, 0, c->event);
}

static void on_admin(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	uint16_t cid = from_le16(sqe->cid), q = c->p->cfg.max_queues ? c->p->cfg.max_queues - 1 : 7;

	switch (sqe->opcode) {
	case NVME_ADMIN_IDENTIFY:
		on_identify(c, sqe);
		break;
	case NVME_ADMIN_GET_LOG_PAGE:
		if ((from_le32(sqe->cdw10) & 0xff) == NVME_LOG_ANA)
			on_ana_log(c, sqe);
		else
			on_log(c, sqe);
		break;
	case NVME_ADMIN_SET_FEATURES:
		if ((from_le32(sqe->cdw10) & 0xff) == NVME_FEAT_ASYNC_EVENT)
			c->async_config = from_le32(sqe->cdw11);
		peer_respond(c, cid, 0, (uint32_t)q << 16 | q);
		break;
	case NVME_ADMIN_KEEP_ALIVE:
		c->p->nkeep_alives++;
		peer_respond(c, cid, 0, 0);
		break;
	case NVME_ADMIN_ASYNC_EVENT:
		on_aer(c, cid);
		break;
	case NVME_ADMIN_ABORT:
		on_abort(c, sqe);
		break;
	default:
		peer_respond(c, cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0);
	}
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
	peer_send_bytes(c, head,
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
			on_fabrics(c, pdu, data);
		else if (c->qid)
			peer_on_io(c, pdu, data);
		else
			on_admin(c, &pdu->cmd->sqe);
		break;
	case NVME_TCP_H2C_DATA:
		peer_on_h2c(c, pdu, data);
		break;
	}
}

/* ---- connections --------------------------------------------------------------------------------------------------- */

static void conn_close(struct peer_conn *c)
{
	struct peer_held *h;

	if (!c->open)
		return;
	c->open = false;
	stream_close(c->stream);
	free(c->buf);
	for (int i = 0; i < PEER_CMDS; i++)
		peer_cmd_end(&c->cmds[i]);
	TAILQ_FOREACH (h, &c->p->held, link)
		if (h->c == c)
			h->c = NULL;
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

int peer_up(struct peer *p)
{
	int rc = sockets_listen(
		p->sh, &(struct sockets_cfg){.addr = "127.0.0.1", .port = p->port}, &p->l, NULL);

	if (rc == 0)
		rc = stream_listener_start(p->l, accepted, p);
	if (rc == 0)
		p->port = stream_listener_addr(p->l)->port;
	return rc;
}

void peer_down(struct peer *p)
{
	peer_drop_connections(p);
	if (p->l)
		stream_listener_close(p->l);
	p->l = NULL;
}

int peer_open(struct shard *sh, const struct peer_cfg *cfg, struct peer **out)
{
	struct peer *p = calloc(1, sizeof(*p));
	int rc = 0;

	if (!p)
		return -ENOMEM;
	p->sh = sh;
	p->cfg = *cfg;
	p->term_fes = -1;
	p->ana_state = cfg->ana_state ? cfg->ana_state : NVME_ANA_OPTIMIZED;
	TAILQ_INIT(&p->held);
	if (cfg->ns)
		p->ns = peer_ns_get(cfg->ns);
	else
		rc = peer_ns_open_sized(cfg->nblocks ? cfg->nblocks : PEER_BLOCKS, &p->ns);
	if (rc == 0) {
		p->mem = p->ns->mem;
		rc = peer_up(p);
	}
	if (rc < 0) {
		peer_close(p);
		return rc;
	}
	*out = p;
	return 0;
}

void peer_drop_connections(struct peer *p)
{
	for (int i = 0; i < PEER_CONNS; i++)
		conn_close(&p->conns[i]);
}

static void notify(struct peer_conn *c, uint32_t result)
{
	if (c->aer_here) {
		c->aer_here = false;
		peer_respond(c, c->aer_cid, 0, result);
	} else {
		c->event_waits = true;
		c->event = result;
	}
}

void peer_async_event(struct peer *p, uint32_t result)
{
	for (int i = 0; i < PEER_CONNS; i++)
		if (p->conns[i].open && p->conns[i].qid == 0)
			notify(&p->conns[i], result);
}

void peer_set_ana(struct peer *p, enum nvme_ana_state state)
{
	uint32_t notice = NVME_AER_TYPE_NOTICE | NVME_AER_NOTICE_ANA << 8 | NVME_LOG_ANA << 16;

	p->ana_state = state;
	p->ana_changes++;
	for (int i = 0; i < PEER_CONNS; i++)
		if (p->conns[i].open && p->conns[i].qid == 0 &&
			p->conns[i].async_config & NVME_OAES_ANA_CHANGE)
			notify(&p->conns[i], notice);
}

void peer_close(struct peer *p)
{
	peer_down(p);
	peer_forget(p);
	peer_ns_put(p->ns);
	free(p);
}
