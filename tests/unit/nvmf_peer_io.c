/* SPDX-License-Identifier: BSD-3-Clause */
/* The scripted peer: I/O commands, their data, and holding them back. */
#include "tests/unit/nvmf_peer_priv.h"

#include <stdlib.h>

#include "common/base/util.h"

void peer_held_free(struct peer *p, struct peer_held *h)
{
	TAILQ_REMOVE(&p->held, h, link);
	p->nheld--;
	free(h->data);
	free(h);
}

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
				peer_respond(h->c, from_le16(h->sqe.cid), NVME_SC_ABORT_REQ, 0);
			peer_held_free(p, h);
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
		peer_respond(c, from_le16(sqe->cid), NVME_SC_INTERNAL, 0);
		return;
	}
	(void)peer_ns_report(c->p->ns, buf, len);
	peer_send_data(c, from_le16(sqe->cid), buf, (uint32_t)len);
	free(buf);
}

static void answer(struct peer_conn *c, const struct nvme_sqe *sqe, uint16_t status)
{
	uint16_t cid = from_le16(sqe->cid);

	if (!status && sqe->opcode == NVME_CMD_READ)
		peer_send_data(c, cid, c->p->mem + nvme_sqe_slba(sqe) * PEER_BLOCK,
			nvme_sqe_nlb(sqe) * PEER_BLOCK);
	else if (!status && sqe->opcode == NVME_CMD_RESV_REPORT)
		send_report(c, sqe);
	else
		peer_respond(c, cid, status, 0);
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

void peer_on_io(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
{
	const struct nvme_sqe *sqe = &pdu->cmd->sqe;
	uint32_t len = nvme_sqe_nlb(sqe) * PEER_BLOCK, out = data_out_bytes(sqe);
	uint16_t cid = from_le16(sqe->cid), status = ana_status(c->p);
	struct peer_cmd *cmd = &c->cmds[cid % PEER_CMDS];
	uint64_t lba = nvme_sqe_slba(sqe);

	peer_cmd_end(cmd);
	*cmd = (struct peer_cmd){.sqe = *sqe, .busy = true, .len = out};
	if (peer_wants_mischief(c->p, sqe)) {
		c->p->done_mischief = true;
		peer_misbehave(c, sqe, len);
		return;
	}
	if (!status && has_lba(sqe) &&
		(lba > c->p->ns->nblocks || len / PEER_BLOCK > c->p->ns->nblocks - lba))
		status = NVME_SC_LBA_RANGE | NVME_SC_DNR;
	if (status) {
		peer_respond(c, cid, status, 0);
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
	peer_send_r2t(c, cid, 0, c->p->cfg.r2t_bytes ? MIN(c->p->cfg.r2t_bytes, out) : out);
}

void peer_on_h2c(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data)
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
		peer_send_r2t(c, cid, cmd->got, MIN(c->p->cfg.r2t_bytes, cmd->len - cmd->got));
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
		peer_held_free(p, h);
	}
}

void peer_forget(struct peer *p)
{
	while (!TAILQ_EMPTY(&p->held))
		peer_held_free(p, TAILQ_FIRST(&p->held));
}
