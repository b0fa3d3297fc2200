/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "common/base/util.h"
#include "tests/unit/rdma_twin_priv.h"

static void respond(struct rd_link *l, const struct nvme_sqe *sqe, uint16_t status, uint64_t result)
{
	struct nvme_keyed_sgl k;
	struct nvme_cqe cqe;

	memcpy(&k, &sqe->dptr, sizeof(k));
	nvme_cqe_set(&cqe, from_le16(sqe->cid), status, result, 0);
	twin_respond(
		l, &cqe, sizeof(cqe), k.id == NVME_SGL_ID_KEYED_INV, nvme_keyed_key(&k), false);
}

/* Moves a command's data between buf and the host: false when the device denies it. */
static bool move(struct rd_link *l, const uint8_t *capsule, uint32_t capsule_bytes, uint8_t *buf,
	uint32_t len, bool to_host, enum twin_fault how)
{
	struct nvme_sqe sqe;
	struct nvme_keyed_sgl k;
	uint64_t addr;
	bool write = to_host != (how == TWIN_WRONG_WAY);
	uint8_t *p;

	memcpy(&sqe, capsule, sizeof(sqe));
	memcpy(&k, &sqe.dptr, sizeof(k));
	if (k.id == NVME_SGL_ID_DATA_OFFSET) {
		uint64_t at = sizeof(sqe) + l->t->cfg.icdoff * 16ULL + from_le64(sqe.dptr.addr);

		if (to_host || from_le32(sqe.dptr.length) != len || at + len != capsule_bytes) {
			twin_violate(l->t, "in-capsule data of another shape than its command");
			return false;
		}
		memcpy(buf, capsule + at, len);
		return true;
	}
	if ((k.id != NVME_SGL_ID_KEYED && k.id != NVME_SGL_ID_KEYED_INV) ||
		nvme_keyed_length(&k) != len || capsule_bytes != sizeof(sqe)) {
		twin_violate(l->t, "a descriptor that fits not its command");
		return false;
	}
	addr = from_le64(k.addr) - (how == TWIN_BEFORE);
	len += how == TWIN_BEYOND;
	p = twin_reach(l->t, l, nvme_keyed_key(&k), addr, len, write);
	if (!p) {
		if (!how)
			twin_violate(l->t, "a key that does not give what its command needs");
		twin_deny(l);
		return false;
	}
	if (to_host)
		memcpy(p, buf, len);
	else
		memcpy(buf, p, len);
	return true;
}

static void identify_ctrl(const struct twin *t, struct nvme_id_ctrl *id)
{
	id->mdts = 8; /* 1 MiB */
	id->acl = 3;
	id->cntlid = to_le16(TWIN_CNTLID);
	id->nn = to_le32(1);
	id->sqes = 0x66;
	id->cqes = 0x44;
	id->sgls = to_le32(NVME_SGLS_SUPPORTED | (t->cfg.no_keyed ? 0 : NVME_SGLS_KEYED) |
			   (t->cfg.capsule_bytes ? NVME_SGLS_OFFSET : 0));
	id->ioccsz = to_le32(
		(uint32_t)sizeof(struct nvme_sqe) / 16 + t->cfg.icdoff + t->cfg.capsule_bytes / 16);
	id->iorcsz = to_le32(1);
	id->icdoff = to_le16(t->cfg.icdoff);
	id->msdbd = 1;
}

static void admin(struct rd_link *l, const uint8_t *capsule, uint32_t n, const struct nvme_sqe *sqe)
{
	static uint8_t page[NVME_IDENTIFY_SIZE];
	struct nvme_id_ns *ns = (struct nvme_id_ns *)page;
	uint32_t cns = from_le32(sqe->cdw10) & 0xff;

	memset(page, 0, sizeof(page));
	switch (sqe->opcode) {
	case NVME_ADMIN_IDENTIFY:
		if (cns == NVME_CNS_CTRL) {
			identify_ctrl(l->t, (struct nvme_id_ctrl *)page);
		} else if (cns == NVME_CNS_NS) {
			ns->nsze = ns->ncap = to_le64(TWIN_BYTES / TWIN_BLOCK);
			ns->lbaf[0].ds = 9;
		} else {
			page[0] = 1;
		}
		if (move(l, capsule, n, page, sizeof(page), true, TWIN_NONE))
			respond(l, sqe, NVME_SC_SUCCESS, 0);
		break;
	case NVME_ADMIN_ASYNC_EVENT: /* never answered */
		break;
	case NVME_ADMIN_SET_FEATURES: /* of queues there are as many as one likes */
		respond(l, sqe, NVME_SC_SUCCESS, from_le32(sqe->cdw11));
		break;
	case NVME_ADMIN_ABORT:
		l->t->aborts++;
		respond(l, sqe, NVME_SC_SUCCESS, 1); /* not aborted */
		break;
	default:
		respond(l, sqe, NVME_SC_SUCCESS, 0);
		break;
	}
}

static void fabrics(
	struct rd_link *l, const uint8_t *capsule, uint32_t n, const struct nvme_sqe *sqe)
{
	const struct nvme_connect_sqe *c = (const struct nvme_connect_sqe *)sqe;
	const struct nvme_property_sqe *p = (const struct nvme_property_sqe *)sqe;
	struct nvme_connect_data data;
	uint64_t value = 0;

	if (c->fctype == NVME_FCTYPE_CONNECT) {
		if (!move(l, capsule, n, (uint8_t *)&data, sizeof(data), false, TWIN_NONE))
			return;
		l->t->last_sqsize = from_le16(c->sqsize);
		respond(l, sqe,
			strcmp(data.subnqn, TWIN_NQN) || from_le16(c->qid) != l->qid
				? NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR
				: NVME_SC_SUCCESS,
			TWIN_CNTLID);
		return;
	}
	if (c->fctype == NVME_FCTYPE_PROPERTY_GET) {
		uint32_t at = from_le32(p->ofst);

		value = at == NVME_PROP_CAP    ? 1023 | NVME_CAP_CQR | NVME_CAP_CSS_NVM
			: at == NVME_PROP_VS   ? NVME_VS_1_4
			: at == NVME_PROP_CSTS ? NVME_CSTS_RDY | NVME_CSTS_SHST_DONE
					       : 0;
	}
	respond(l, sqe, NVME_SC_SUCCESS, value);
}

/* Responses that are not as they should be. */
static bool respond_badly(struct rd_link *l, const struct nvme_sqe *sqe, enum twin_fault f)
{
	uint8_t bytes[2 * RDMA_CQE_STRIDE] = {0};
	struct nvme_cqe *cqe = (struct nvme_cqe *)bytes;
	struct nvme_keyed_sgl k;
	uint16_t cid = from_le16(sqe->cid);
	uint32_t len = sizeof(*cqe), key, times = 1;
	bool inv;

	memcpy(&k, &sqe->dptr, sizeof(k));
	key = nvme_keyed_key(&k);
	inv = k.id == NVME_SGL_ID_KEYED_INV;
	switch (f) {
	case TWIN_WRONG_CID:
		cid ^= 1;
		break;
	case TWIN_STALE_CID:
		cid = (uint16_t)(cid - NVMF_DEPTH_MAX);
		break;
	case TWIN_TWICE:
		times = 2;
		break;
	case TWIN_FLOOD:
		times = l->qp.nrecv + 5;
		break;
	case TWIN_CQE_SHORT:
		len = 15;
		break;
	case TWIN_CQE_LONG:
		len = 17;
		break;
	case TWIN_CQE_HUGE:
		len = RDMA_CQE_STRIDE + 1;
		break;
	case TWIN_CQE_NONE:
		len = 0;
		break;
	case TWIN_NO_INVALIDATE:
	case TWIN_INVALIDATE_ERROR:
		inv = false;
		break;
	case TWIN_WRONG_INVALIDATE: /* somebody else's, or one where there was none */
		inv = true;
		key = twin_other_key(l, key);
		break;
	default:
		return false;
	}
	nvme_cqe_set(cqe, cid, NVME_SC_SUCCESS, 0, 0);
	for (uint32_t i = 0; i < times; i++)
		twin_respond(l, bytes, len, inv && !i, key, false);
	return true;
}

static void io(struct rd_link *l, const uint8_t *capsule, uint32_t n, const struct nvme_sqe *sqe)
{
	struct twin *t = l->t;
	enum twin_fault f = t->fault;
	uint64_t at = nvme_sqe_slba(sqe) * TWIN_BLOCK;
	uint32_t len = nvme_sqe_nlb(sqe) * TWIN_BLOCK;
	struct nvme_cqe cqe;
	struct nvme_keyed_sgl k;

	t->fault = f == TWIN_INVALIDATE_ERROR ? f : TWIN_NONE;
	t->last = t->recent[t->ncommands++ % ARRAY_LEN(t->recent)] = *sqe;
	if (sqe->opcode == NVME_CMD_READ || sqe->opcode == NVME_CMD_WRITE) {
		enum twin_fault how = f >= TWIN_BEYOND && f <= TWIN_WRONG_WAY ? f : TWIN_NONE;

		if (at + len > TWIN_BYTES) {
			respond(l, sqe, NVME_SC_LBA_RANGE | NVME_SC_DNR, 0);
			return;
		}
		if (!move(l, capsule, n, t->mem + at, len, sqe->opcode == NVME_CMD_READ, how))
			return;
	}
	if (f == TWIN_SILENCE)
		return;
	if (f >= TWIN_DISCONNECT && f <= TWIN_ADDRESS_CHANGED) {
		l->fault = f;
		twin_break(l);
		return;
	}
	if (respond_badly(l, sqe, f))
		return;
	memcpy(&k, &sqe->dptr, sizeof(k));
	nvme_cqe_set(&cqe, from_le16(sqe->cid), NVME_SC_SUCCESS, 0, 0);
	twin_respond(l, &cqe, sizeof(cqe), k.id == NVME_SGL_ID_KEYED_INV, nvme_keyed_key(&k),
		t->hold_responses);
}

void twin_take_command(struct rd_link *l, const uint8_t *capsule, uint32_t bytes)
{
	struct nvme_sqe sqe;

	memcpy(&sqe, capsule, sizeof(sqe));
	if (sqe.opcode == NVME_OPC_FABRICS)
		fabrics(l, capsule, bytes, &sqe);
	else if (!l->qid)
		admin(l, capsule, bytes, &sqe);
	else
		io(l, capsule, bytes, &sqe);
}
