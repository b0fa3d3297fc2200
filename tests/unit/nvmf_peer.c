/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/nvmf_peer.h"

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

static void cmd_end(struct peer_cmd *cmd)
{
	free(cmd->data);
	cmd->data = NULL;
	cmd->busy = false;
}

static void respond(struct peer_conn *c, uint16_t cid, uint16_t status, uint64_t result)
{
	uint8_t head[NVME_TCP_HEAD_MAX];
	struct nvme_cqe cqe;

	nvme_cqe_set(&cqe, cid, status, result, 0);
	send_bytes(c, head, nvme_tcp_put_resp(&c->link, head, &cqe), NULL, 0);
	cmd_end(&c->cmds[cid % PEER_CMDS]);
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
	cmd_end(&c->cmds[cid % PEER_CMDS]);
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
		respond(c, from_le16(con->cid), NVME_SC_CONNECT_INVALID_HOST | NVME_SC_DNR, 0);
	else
		respond(c, from_le16(con->cid), 0,
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
			respond(c, cid, NVME_SC_CONNECT_FORMAT | NVME_SC_DNR, 0);
		else
			on_connect(c, con, data);
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
	id->rescap = p->cfg.reservations ? 0xff : 0;
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
			respond(c, cid, NVME_SC_INVALID_NS | NVME_SC_DNR, 0);
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
	send_data(c, cid, id.bytes, sizeof(id));
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
		respond(c, from_le16(sqe->cid), NVME_SC_INVALID_LOG_PAGE | NVME_SC_DNR, 0);
	else
		send_data(c, from_le16(sqe->cid), log + off, (uint32_t)len);
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
		send_data(c, from_le16(sqe->cid), page, (uint32_t)len);
	} else if (!log || off > sizeof(*log) || len > sizeof(*log) - off) {
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

static void held_free(struct peer *p, struct peer_held *h)
{
	TAILQ_REMOVE(&p->held, h, link);
	p->nheld--;
	free(h->data);
	free(h);
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
		held_free(c->p, h);
	respond(c, cid, NVME_SC_ABORT_REQ, 0);
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
	respond(c, from_le16(sqe->cid), 0, done ? 0 : 1);
}

static void on_aer(struct peer_conn *c, uint16_t cid)
{
	c->p->naers++;
	c->aer_cid = cid;
	c->aer_here = true;
	if (!c->event_waits)
		return;
	c->event_waits = c->aer_here = false;
	respond(c, cid, 0, c->event);
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
		respond(c, cid, 0, (uint32_t)q << 16 | q);
		break;
	case NVME_ADMIN_KEEP_ALIVE:
		c->p->nkeep_alives++;
		respond(c, cid, 0, 0);
		break;
	case NVME_ADMIN_ASYNC_EVENT:
		on_aer(c, cid);
		break;
	case NVME_ADMIN_ABORT:
		on_abort(c, sqe);
		break;
	default:
		respond(c, cid, NVME_SC_INVALID_OPCODE | NVME_SC_DNR, 0);
	}
}

/* ---- I/O --------------------------------------------------------------------------------------------------------- */

/* Data that comes with a command; of dataset management nobody looks at it. */
static uint32_t data_out_bytes(const struct nvme_sqe *sqe)
{
	switch (sqe->opcode) {
	case NVME_CMD_WRITE:
		return nvme_sqe_nlb(sqe) * PEER_BLOCK;
	case NVME_CMD_RESV_REGISTER:
	case NVME_CMD_RESV_ACQUIRE:
		return sizeof(struct nvme_resv_register);
	case NVME_CMD_RESV_RELEASE:
		return sizeof(struct nvme_resv_release);
	}
	return 0;
}

static bool has_lba(const struct nvme_sqe *sqe)
{
	return sqe->opcode == NVME_CMD_READ || sqe->opcode == NVME_CMD_WRITE ||
	       sqe->opcode == NVME_CMD_WRITE_ZEROES;
}

/* Commands of a host that was preempted with abort never happen. */
static void forget_host(struct peer *p, const uint8_t *hostid)
{
	struct peer_held *h, *next;

	for (h = TAILQ_FIRST(&p->held); h; h = next) {
		next = TAILQ_NEXT(h, link);
		if (!h->carried_out && !memcmp(h->hostid, hostid, sizeof(h->hostid))) {
			if (h->c)
				respond(h->c, from_le16(h->sqe.cid), NVME_SC_ABORT_REQ, 0);
			held_free(p, h);
		}
	}
}

/* What a command does to the namespace; its status. */
static uint16_t carry_out(struct peer *p, const uint8_t *hostid, uint16_t cntlid,
	const struct nvme_sqe *sqe, const uint8_t *data)
{
	uint8_t *at = p->mem + nvme_sqe_slba(sqe) * PEER_BLOCK, preempted[16];
	uint16_t status = peer_ns_access(p->ns, hostid, sqe->opcode);
	bool did;

	if (status)
		return status;
	switch (sqe->opcode) {
	case NVME_CMD_READ:
	case NVME_CMD_DSM:
		return 0;
	case NVME_CMD_FLUSH:
		p->nflushes++;
		return 0;
	case NVME_CMD_WRITE:
		p->ns->nwrites++;
		memcpy(at, data, nvme_sqe_nlb(sqe) * PEER_BLOCK);
		return 0;
	case NVME_CMD_WRITE_ZEROES:
		p->ns->nwrites++;
		memset(at, 0, nvme_sqe_nlb(sqe) * PEER_BLOCK);
		return 0;
	}
	if (!p->cfg.reservations)
		return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
	if (sqe->opcode == NVME_CMD_RESV_REPORT)
		return from_le32(sqe->cdw11) & NVME_RESV_EDS ? 0 : NVME_SC_HOSTID_INCONSISTENT;
	status = peer_ns_reserve(p->ns, hostid, cntlid, sqe, data, preempted, &did);
	if (did)
		forget_host(p, preempted);
	return status;
}

static void send_report(struct peer_conn *c, const struct nvme_sqe *sqe)
{
	size_t len = ((size_t)from_le32(sqe->cdw10) + 1) * 4;
	uint8_t *buf = len <= PEER_BUF ? malloc(len) : NULL;

	if (!buf) {
		respond(c, from_le16(sqe->cid), NVME_SC_INTERNAL, 0);
		return;
	}
	(void)peer_ns_report(c->p->ns, buf, len);
	send_data(c, from_le16(sqe->cid), buf, (uint32_t)len);
	free(buf);
}

static void answer(struct peer_conn *c, const struct nvme_sqe *sqe, uint16_t status)
{
	uint16_t cid = from_le16(sqe->cid);

	if (!status && sqe->opcode == NVME_CMD_READ)
		send_data(c, cid, c->p->mem + nvme_sqe_slba(sqe) * PEER_BLOCK,
			nvme_sqe_nlb(sqe) * PEER_BLOCK);
	else if (!status && sqe->opcode == NVME_CMD_RESV_REPORT)
		send_report(c, sqe);
	else
		respond(c, cid, status, 0);
}

static bool hold(struct peer_conn *c, const struct nvme_sqe *sqe, const uint8_t *data, uint32_t len)
{
	struct peer *p = c->p;
	struct peer_held *h;

	if (!p->hold.left || sqe->opcode != p->hold.opcode)
		return false;
	h = calloc(1, sizeof(*h));
	if (!h || !(h->data = malloc(len + 1)))
		abort();
	h->c = c;
	h->sqe = *sqe;
	h->cntlid = c->cntlid;
	memcpy(h->hostid, c->hostid, sizeof(h->hostid));
	if (len)
		memcpy(h->data, data, len);
	if (p->hold.how == PEER_HOLD_ANSWER) {
		h->status = carry_out(p, h->hostid, h->cntlid, sqe, data);
		h->carried_out = true;
	}
	TAILQ_INSERT_TAIL(&p->held, h, link);
	p->nheld++;
	p->hold.left--;
	return true;
}

/* A command is here with all its data. */
static void complete(struct peer_conn *c, const struct nvme_sqe *sqe, const uint8_t *data)
{
	if (!hold(c, sqe, data, data_out_bytes(sqe)))
		answer(c, sqe, carry_out(c->p, c->hostid, c->cntlid, sqe, data));
}

static uint16_t ana_status(const struct peer *p)
{
	if (p->cfg.no_namespace)
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	switch (p->ana_state) {
	case NVME_ANA_INACCESSIBLE:
		return NVME_SC_ANA_INACCESSIBLE;
	case NVME_ANA_PERSISTENT_LOSS:
		return NVME_SC_ANA_PERSISTENT_LOSS;
	case NVME_ANA_CHANGE:
		return NVME_SC_ANA_TRANSITION;
	default:
		return NVME_SC_SUCCESS;
	}
}

static void on_io(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
{
	const struct nvme_sqe *sqe = &pdu->cmd->sqe;
	uint32_t len = nvme_sqe_nlb(sqe) * PEER_BLOCK, out = data_out_bytes(sqe);
	uint16_t cid = from_le16(sqe->cid), status = ana_status(c->p);
	struct peer_cmd *cmd = &c->cmds[cid % PEER_CMDS];
	uint64_t lba = nvme_sqe_slba(sqe);

	cmd_end(cmd);
	*cmd = (struct peer_cmd){.sqe = *sqe, .busy = true, .len = out};
	if (wants_mischief(c->p, sqe)) {
		c->p->done_mischief = true;
		misbehave(c, sqe, len);
		return;
	}
	if (!status && has_lba(sqe) &&
		(lba > c->p->ns->nblocks || len / PEER_BLOCK > c->p->ns->nblocks - lba))
		status = NVME_SC_LBA_RANGE | NVME_SC_DNR;
	if (status) {
		respond(c, cid, status, 0);
		return;
	}
	if (!out || pdu->data_bytes == out) {
		c->p->ncapsule_writes += sqe->opcode == NVME_CMD_WRITE;
		complete(c, sqe, data);
		return;
	}
	cmd->data = malloc(out);
	if (!cmd->data)
		abort();
	send_r2t(c, cid, 0, c->p->cfg.r2t_bytes ? MIN(c->p->cfg.r2t_bytes, out) : out);
}

static void on_h2c(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
{
	uint16_t cid = from_le16(pdu->data->cccid);
	struct peer_cmd *cmd = &c->cmds[cid % PEER_CMDS];
	uint32_t off = from_le32(pdu->data->datao);

	if (!cmd->busy || !cmd->data || off != cmd->got || cmd->granted > cmd->len ||
		pdu->data_bytes > cmd->granted - off)
		return; /* a peer that has sent nonsense gets nonsense */
	memcpy(cmd->data + off, data, pdu->data_bytes);
	cmd->got += pdu->data_bytes;
	if (cmd->got < cmd->granted)
		return;
	if (cmd->got < cmd->len)
		send_r2t(c, cid, cmd->got, MIN(c->p->cfg.r2t_bytes, cmd->len - cmd->got));
	else
		complete(c, &cmd->sqe, cmd->data);
}

void peer_hold(struct peer *p, uint8_t opcode, unsigned int count, enum peer_hold how)
{
	p->hold.opcode = opcode;
	p->hold.left = count;
	p->hold.how = how;
}

void peer_release(struct peer *p)
{
	struct peer_held *h;

	while ((h = TAILQ_FIRST(&p->held))) {
		if (!h->carried_out)
			h->status = carry_out(p, h->hostid, h->cntlid, &h->sqe, h->data);
		if (h->c)
			answer(h->c, &h->sqe, h->status);
		held_free(p, h);
	}
}

void peer_forget(struct peer *p)
{
	while (!TAILQ_EMPTY(&p->held))
		held_free(p, TAILQ_FIRST(&p->held));
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
			on_fabrics(c, pdu, data);
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
	struct peer_held *h;

	if (!c->open)
		return;
	c->open = false;
	stream_close(c->stream);
	free(c->buf);
	for (int i = 0; i < PEER_CMDS; i++)
		cmd_end(&c->cmds[i]);
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
		rc = peer_ns_open(p->cfg.nblocks, &p->ns);
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
		respond(c, c->aer_cid, 0, result);
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
