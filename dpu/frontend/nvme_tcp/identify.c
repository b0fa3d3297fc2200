/* SPDX-License-Identifier: BSD-3-Clause */
/* Identify: what the controller and its namespaces say of themselves. */
#include <string.h>

#include "common/base/util.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

#define MODEL           "Parapet"
#define FIRMWARE        "1.0"
#define CMIC_MULTI_CTRL 0x02
#define NMIC_SHARED     0x01
#define ABORTS          4 /* concurrent ones, 0's based in Identify */
#define CRDT_100MS      10 /* "not now" is worth another try after a second */
#define WZSL_PAGES_LOG2 12 /* 16 MiB per write zeroes is a good size; more is accepted */
#define CSI_NVM         0

static void id_ctrl_common(const struct tgt_ctrl *ctrl, struct nvme_id_ctrl *id)
{
	const struct nvme_tcp_target_cfg *cfg = &ctrl->vm->t->cfg;

	nvme_ascii_fill(id->sn, sizeof(id->sn), ctrl->vm->serial);
	nvme_ascii_fill(id->mn, sizeof(id->mn), MODEL);
	nvme_ascii_fill(id->fr, sizeof(id->fr), FIRMWARE);
	id->mdts = TGT_MDTS;
	id->cntlid = to_le16(ctrl->cntlid);
	id->ver = to_le32(NVME_VS_1_4);
	id->ctratt = to_le32(NVME_CTRATT_HOSTID_EXT | NVME_CTRATT_TBKAS);
	id->aerl = TGT_AERS_MAX - 1;
	id->lpa = NVME_LPA_EXT_DATA;
	id->elpe = TGT_ERRORS_MAX - 1;
	id->kas = to_le16(TGT_KAS_MS / 100);
	id->maxcmd = to_le16((uint16_t)cfg->max_queue_entries);
	id->sgls = to_le32(NVME_SGLS_SUPPORTED | NVME_SGLS_OFFSET | NVME_SGLS_TRANSPORT);
	id->ioccsz = to_le32((sizeof(struct nvme_sqe) + TGT_CAPSULE_BYTES) / 16);
	id->iorcsz = to_le32(sizeof(struct nvme_cqe) / 16);
	id->msdbd = 1;
	id->oaes = to_le32(ctrl->discovery ? NVME_OAES_DISC_CHANGE : NVME_OAES_NS_ATTR);
}

static void id_ctrl_io(const struct tgt_ctrl *ctrl, struct nvme_id_ctrl *id)
{
	id->cmic = CMIC_MULTI_CTRL;
	id->cntrltype = NVME_CNTRLTYPE_IO;
	id->crdt1 = to_le16(CRDT_100MS);
	id->acl = ABORTS - 1;
	id->frmw = 0x03; /* one slot, read-only */
	id->wctemp = to_le16(343);
	id->cctemp = to_le16(363);
	id->sqes = 0x66;
	id->cqes = 0x44;
	id->nn = to_le32(NVME_TCP_NSID_MAX);
	id->mnan = to_le32(NVME_TCP_NSID_MAX);
	id->oncs = to_le16(NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES);
	id->vwc = (ctrl->vm->write_cache ? NVME_VWC_PRESENT : 0) | NVME_VWC_NSID_ALL_NO;
	memcpy(id->subnqn, ctrl->vm->subnqn, sizeof(id->subnqn));
}

static void identify_ctrl(struct tgt_cmd *cmd, void *page)
{
	const struct tgt_ctrl *ctrl = cmd->conn->ctrl;
	struct nvme_id_ctrl *id = page;

	id_ctrl_common(ctrl, id);
	if (ctrl->discovery) {
		id->cntrltype = NVME_CNTRLTYPE_DISCOVERY;
		memcpy(id->subnqn, NVME_DISCOVERY_NQN, sizeof(NVME_DISCOVERY_NQN));
	} else {
		id_ctrl_io(ctrl, id);
	}
}

static void identify_ns(const struct tgt_ns *ns, void *page)
{
	struct nvme_id_ns *id = page;
	uint64_t blocks = ns->cfg.size_bytes >> ns->block_shift;
	/* 4 KiB is what the volume works in; 0's based, in logical blocks. */
	le16 page_blocks = to_le16((uint16_t)((IO_BLOCK_BYTES >> ns->block_shift) - 1));

	id->nsze = id->ncap = id->nuse = to_le64(blocks);
	id->nsfeat = NVME_NSFEAT_OPTPERF;
	id->nmic = NMIC_SHARED;
	id->dlfeat = NVME_DLFEAT_ZERO | NVME_DLFEAT_WZ_DEAC;
	id->npwg = id->npwa = id->npdg = id->npda = page_blocks;
	memcpy(id->nguid, ns->cfg.nguid, sizeof(id->nguid));
	memcpy(id->eui64, ns->cfg.eui64, sizeof(id->eui64));
	id->lbaf[0].ds = ns->block_shift;
}

static bool is_zero(const uint8_t *p, size_t n)
{
	while (n--)
		if (*p++)
			return false;
	return true;
}

static uint8_t *put_desc(uint8_t *at, uint8_t type, const void *id, uint8_t len)
{
	struct nvme_ns_id_desc *d = (void *)at;

	d->nidt = type;
	d->nidl = len;
	memcpy(d->nid, id, len);
	return at + sizeof(*d) + len;
}

static void identify_descs(const struct tgt_ns *ns, void *page)
{
	uint8_t *at = page, csi = CSI_NVM;

	if (!is_zero(ns->cfg.eui64, sizeof(ns->cfg.eui64)))
		at = put_desc(at, NVME_NIDT_EUI64, ns->cfg.eui64, sizeof(ns->cfg.eui64));
	if (!is_zero(ns->cfg.nguid, sizeof(ns->cfg.nguid)))
		at = put_desc(at, NVME_NIDT_NGUID, ns->cfg.nguid, sizeof(ns->cfg.nguid));
	put_desc(at, NVME_NIDT_CSI, &csi, sizeof(csi));
}

static void identify_list(struct tgt_cmd *cmd, void *page)
{
	const struct nvme_tcp_vm *vm = cmd->conn->vm;
	uint32_t after = from_le32(cmd->sqe.nsid), n = 0;
	le32 *list = page;

	for (uint32_t i = after; i < NVME_TCP_NSID_MAX; i++)
		if (vm->ns[i])
			list[n++] = to_le32(i + 1);
}

/* The NVM command set's own part of Identify Controller: 0 vsl, 1 wzsl, 2 wusl, 3 dmrl, 4 dmrsl(4), 8 dmsl(8). */
static void identify_nvm_ctrl(uint8_t *page)
{
	page[1] = WZSL_PAGES_LOG2;
	page[3] = NVME_DSM_MAX_RANGES - 1;
}

static uint16_t fill_ns(struct tgt_cmd *cmd, uint8_t cns, void *page)
{
	uint32_t nsid = from_le32(cmd->sqe.nsid);
	const struct tgt_ns *ns = tgt_ns_find(cmd->conn->vm, nsid);

	if (nsid == 0 || (nsid > NVME_TCP_NSID_MAX && nsid != NVME_NSID_ALL))
		return NVME_SC_INVALID_NS | NVME_SC_DNR;
	/* Valid but not there: zeros; all of them at once: what they have in common, which is nothing. */
	if (!ns)
		return cns == NVME_CNS_NS ? NVME_SC_SUCCESS : NVME_SC_INVALID_NS | NVME_SC_DNR;
	if (cns == NVME_CNS_NS)
		identify_ns(ns, page);
	else if (cns == NVME_CNS_NS_DESC_LIST)
		identify_descs(ns, page);
	return NVME_SC_SUCCESS; /* CNS 05h: the NVM command set adds nothing but zeros */
}

static uint16_t fill(struct tgt_cmd *cmd, uint8_t *page)
{
	uint8_t cns = from_le32(cmd->sqe.cdw10) & 0xff, csi = from_le32(cmd->sqe.cdw11) >> 24;
	bool discovery = cmd->conn->ctrl->discovery;

	if (cns == NVME_CNS_CTRL) {
		identify_ctrl(cmd, page);
		return NVME_SC_SUCCESS;
	}
	if (discovery || (cns >= NVME_CNS_CSI_NS && csi != CSI_NVM))
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	switch (cns) {
	case NVME_CNS_NS:
	case NVME_CNS_NS_DESC_LIST:
	case NVME_CNS_CSI_NS:
		return fill_ns(cmd, cns, page);
	case NVME_CNS_NS_ACTIVE_LIST:
	case NVME_CNS_CSI_NS_ACTIVE_LIST:
		if (from_le32(cmd->sqe.nsid) >= NVME_NSID_ALL - 1)
			return NVME_SC_INVALID_NS | NVME_SC_DNR;
		identify_list(cmd, page);
		return NVME_SC_SUCCESS;
	case NVME_CNS_CSI_CTRL:
		identify_nvm_ctrl(page);
		return NVME_SC_SUCCESS;
	default:
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	}
}

static void identify_go(struct tgt_cmd *cmd)
{
	uint8_t page[NVME_IDENTIFY_SIZE] = {0};
	uint16_t status = fill(cmd, page);

	if (status == NVME_SC_SUCCESS)
		tgt_buf_write(&cmd->buf, 0, page, cmd->xfer_bytes);
	tgt_cmd_complete(cmd, status, 0);
}

void tgt_identify_start(struct tgt_cmd *cmd)
{
	tgt_cmd_transfer(cmd, TGT_DIR_OUT, NVME_IDENTIFY_SIZE, identify_go);
}
