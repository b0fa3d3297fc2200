/* SPDX-License-Identifier: BSD-3-Clause */
/* Controllers: Connect makes them, properties enable and shut them, keep alive and the admin connection's end take them away. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

#define NS_PER_MS      1000000ull
#define FLUSH_RETRY_NS 1000000ull
#define CAP_TO_500MS   30 /* CAP.TO: enabling takes no time, a shutdown flushes first */
#define CNTLID_LAST    0xffef
#define SQE_AT(field)  ((uint32_t)offsetof(struct nvme_connect_sqe, field))
#define DATA_AT(field) ((uint32_t)offsetof(struct nvme_connect_data, field))

static const char *const state_names[TGT_CTRL_STATES] = {
	[TGT_CTRL_DISABLED] = "disabled",
	[TGT_CTRL_READY] = "ready",
	[TGT_CTRL_SHUT] = "shut",
	[TGT_CTRL_GONE] = "gone",
};

static void set_state(struct tgt_ctrl *ctrl, enum tgt_ctrl_state state)
{
	if (ctrl->state == state)
		return;
	log_debug("nvme-tcp: vm %u: controller %u: %s -> %s", ctrl->vm->vm, ctrl->cntlid,
		state_names[ctrl->state], state_names[state]);
	ctrl->state = state;
}

/* ---- lifetime --------------------------------------------------------------------------------------- */
static void ctrl_put(struct tgt_ctrl *ctrl)
{
	if (--ctrl->refs)
		return;
	TAILQ_REMOVE(&ctrl->vm->ctrls, ctrl, entry);
	ctrl->vm->nctrls--;
	timer_disarm(ctrl->vm->t->sh, &ctrl->keep_alive);
	timer_disarm(ctrl->vm->t->sh, &ctrl->flush_retry);
	free(ctrl);
}

static void close_io(struct tgt_ctrl *ctrl)
{
	for (uint32_t q = 1; q <= TGT_QUEUES_MAX; q++)
		if (ctrl->io[q])
			tgt_conn_close(ctrl->io[q]);
}

void tgt_ctrl_conn_closed(struct tgt_conn *c)
{
	struct tgt_ctrl *ctrl = c->ctrl;

	c->ctrl = NULL;
	if (ctrl->admin == c) {
		ctrl->admin = NULL;
		set_state(ctrl, TGT_CTRL_GONE);
		timer_disarm(ctrl->vm->t->sh, &ctrl->keep_alive);
		close_io(ctrl); /* each gives its reference back; ours is still there */
	} else {
		ctrl->io[c->qid] = NULL;
	}
	ctrl_put(ctrl);
}

void tgt_ctrl_close(struct tgt_ctrl *ctrl)
{
	ctrl->refs++;
	if (ctrl->admin)
		tgt_conn_close(ctrl->admin);
	close_io(ctrl);
	ctrl_put(ctrl);
}

static bool cntlid_in_use(struct nvme_tcp_target *t, uint16_t id)
{
	struct nvme_tcp_vm *vm;
	struct tgt_ctrl *ctrl;

	TAILQ_FOREACH (vm, &t->vms, entry)
		TAILQ_FOREACH (ctrl, &vm->ctrls, entry)
			if (ctrl->cntlid == id)
				return true;
	return false;
}

static uint16_t new_cntlid(struct nvme_tcp_target *t)
{
	do
		t->next_cntlid = t->next_cntlid >= CNTLID_LAST ? 1 : t->next_cntlid + 1;
	while (cntlid_in_use(t, t->next_cntlid));
	return t->next_cntlid;
}

/* ---- keep alive ---------------------------------------------------------------------------------------- */
static void keep_alive_over(void *arg)
{
	struct tgt_ctrl *ctrl = arg;

	/* Any command counts (TBKAS), so a silent host is noticed after one to two periods. */
	if (ctrl->traffic && tgt_ctrl_set_kato(ctrl, ctrl->kato_ms) == 0)
		return;
	ctrl->vm->stats.keep_alive_timeouts++;
	ctrl->csts |= NVME_CSTS_CFS;
	tgt_ctrl_close(ctrl);
}

int tgt_ctrl_set_kato(struct tgt_ctrl *ctrl, uint32_t kato_ms)
{
	struct shard *sh = ctrl->vm->t->sh;

	ctrl->kato_ms = kato_ms ? MAX(kato_ms, TGT_KAS_MS) : 0;
	ctrl->traffic = false;
	if (!kato_ms) {
		timer_disarm(sh, &ctrl->keep_alive);
		return 0;
	}
	return timer_arm(sh, &ctrl->keep_alive, shard_now_ns(sh) + ctrl->kato_ms * NS_PER_MS,
		keep_alive_over, ctrl);
}

/* ---- Connect ---------------------------------------------------------------------------------------------- */
static void refuse(struct tgt_cmd *cmd, uint16_t status, uint32_t result)
{
	cmd->conn->vm->stats.refused_connects++;
	tgt_cmd_complete(cmd, status | NVME_SC_DNR, result);
}

static void accept_connect(
	struct tgt_cmd *cmd, struct tgt_ctrl *ctrl, const struct nvme_connect_sqe *sqe)
{
	struct tgt_conn *c = cmd->conn;

	c->ctrl = ctrl;
	c->qid = from_le16(sqe->qid);
	c->sqflow_off = sqe->cattr & NVME_CONNECT_DISABLE_SQFLOW;
	if (c->qid)
		ctrl->io[c->qid] = c;
	else
		ctrl->admin = c;
	ctrl->refs++;
	ctrl->traffic = true;
	c->vm->stats.connects++;
	tgt_conn_connected(c);
	tgt_cmd_complete(cmd, NVME_SC_SUCCESS, ctrl->cntlid);
}

static struct tgt_ctrl *ctrl_new(
	struct nvme_tcp_vm *vm, const struct nvme_connect_data *d, bool discovery)
{
	struct tgt_ctrl *ctrl = calloc(1, sizeof(*ctrl));

	if (!ctrl)
		return NULL;
	ctrl->vm = vm;
	ctrl->refs = 1;
	ctrl->discovery = discovery;
	ctrl->cntlid = new_cntlid(vm->t);
	ctrl->csts = 0;
	memcpy(ctrl->hostnqn, d->hostnqn, sizeof(ctrl->hostnqn));
	memcpy(ctrl->hostid, d->hostid, sizeof(ctrl->hostid));
	TAILQ_INIT(&ctrl->aers);
	TAILQ_INSERT_TAIL(&vm->ctrls, ctrl, entry);
	vm->nctrls++;
	return ctrl;
}

static void connect_admin(
	struct tgt_cmd *cmd, const struct nvme_connect_sqe *sqe, const struct nvme_connect_data *d)
{
	struct nvme_tcp_vm *vm = cmd->conn->vm;
	bool discovery = strcmp(d->subnqn, NVME_DISCOVERY_NQN) == 0;
	struct tgt_ctrl *ctrl;

	/* The VM is the one of the listener; whatever else exists on this card does not exist here. */
	if (!discovery && strcmp(d->subnqn, vm->subnqn) != 0) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(subnqn)));
		return;
	}
	if (!discovery && !tgt_host_allowed(vm, d->hostnqn)) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_HOST, 0);
		return;
	}
	if (from_le16(d->cntlid) != NVME_CNTLID_ANY) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(cntlid)));
		return;
	}
	ctrl = vm->nctrls < TGT_CTRLS_MAX ? ctrl_new(vm, d, discovery) : NULL;
	if (!ctrl) {
		refuse(cmd, NVME_SC_CONNECT_CTRL_BUSY, 0);
		return;
	}
	/* The queue last: a Connect that was refused may come again. */
	if (tgt_ctrl_set_kato(ctrl, from_le32(sqe->kato)) < 0 ||
		tgt_conn_set_queue(cmd->conn, from_le16(sqe->sqsize) + 1u) < 0)
		refuse(cmd, NVME_SC_INTERNAL, 0);
	else
		accept_connect(cmd, ctrl, sqe);
	ctrl_put(ctrl);
}

static struct tgt_ctrl *find_ctrl(struct nvme_tcp_vm *vm, uint16_t cntlid)
{
	struct tgt_ctrl *ctrl;

	TAILQ_FOREACH (ctrl, &vm->ctrls, entry)
		if (ctrl->cntlid == cntlid && ctrl->state != TGT_CTRL_GONE)
			return ctrl;
	return NULL;
}

static void connect_io(
	struct tgt_cmd *cmd, const struct nvme_connect_sqe *sqe, const struct nvme_connect_data *d)
{
	struct nvme_tcp_vm *vm = cmd->conn->vm;
	struct tgt_ctrl *ctrl = find_ctrl(vm, from_le16(d->cntlid));
	uint16_t qid = from_le16(sqe->qid);

	if (!ctrl || ctrl->discovery) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(cntlid)));
		return;
	}
	if (strcmp(d->subnqn, vm->subnqn) != 0) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(subnqn)));
		return;
	}
	if (strcmp(d->hostnqn, ctrl->hostnqn) != 0) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(hostnqn)));
		return;
	}
	if (memcmp(d->hostid, ctrl->hostid, sizeof(ctrl->hostid)) != 0) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(hostid)));
		return;
	}
	if (qid > vm->t->cfg.max_io_queues) {
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_SQE(SQE_AT(qid)));
		return;
	}
	if (ctrl->state != TGT_CTRL_READY || ctrl->io[qid]) {
		refuse(cmd, NVME_SC_CMD_SEQ_ERROR, 0);
		return;
	}
	if (tgt_conn_set_queue(cmd->conn, from_le16(sqe->sqsize) + 1u) < 0) {
		refuse(cmd, NVME_SC_INTERNAL, 0);
		return;
	}
	accept_connect(cmd, ctrl, sqe);
}

static void connect_go(struct tgt_cmd *cmd)
{
	const struct nvme_connect_sqe *sqe = (const void *)&cmd->sqe;
	uint32_t entries = from_le16(sqe->sqsize) + 1u;
	struct nvme_connect_data d;

	tgt_buf_read(&cmd->buf, cmd->sgl.offset, &d, sizeof(d));
	if (from_le16(sqe->recfmt) != 0)
		refuse(cmd, NVME_SC_CONNECT_FORMAT, 0);
	else if (entries < TGT_ENTRIES_MIN || entries > cmd->conn->vm->t->cfg.max_queue_entries)
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_SQE(SQE_AT(sqsize)));
	else if (!nvme_nqn_field_ok(d.subnqn))
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(subnqn)));
	else if (!nvme_nqn_field_ok(d.hostnqn))
		refuse(cmd, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(DATA_AT(hostnqn)));
	else if (from_le16(sqe->qid) == 0)
		connect_admin(cmd, sqe, &d);
	else
		connect_io(cmd, sqe, &d);
}

/* ---- shutdown: what was acknowledged shall be durable when the host is told that it may go --------------- */
static void flush_next(void *arg);

static void flush_done(struct io_req *req)
{
	struct tgt_ctrl *ctrl = req->arg;

	ctrl->vm->ns[ctrl->flush_nsid - 1]->refs--;
	flush_next(ctrl);
}

static void flush_over(struct tgt_ctrl *ctrl)
{
	ctrl->flushing = false;
	if (ctrl->state == TGT_CTRL_SHUT) /* else the host has reset it meanwhile */
		ctrl->csts = (ctrl->csts & ~NVME_CSTS_SHST_MASK) | NVME_CSTS_SHST_DONE;
	ctrl_put(ctrl);
}

static void flush_next(void *arg)
{
	struct tgt_ctrl *ctrl = arg;
	struct nvme_tcp_target *t = ctrl->vm->t;
	struct tgt_ns *ns = NULL;
	int rc = -ENOENT;

	while (rc < 0) {
		while (ctrl->flush_nsid < NVME_TCP_NSID_MAX && !ns)
			ns = ctrl->vm->ns[ctrl->flush_nsid++];
		if (!ns)
			break;
		ctrl->flush = (struct io_req){.op = IO_FLUSH,
			.vm = ctrl->vm->vm,
			.vol = ns->cfg.vol,
			.stable = true,
			.done_fn = flush_done,
			.arg = ctrl,
			.start_ns = shard_now_ns(t->sh)};
		rc = t->cfg.submit_fn(t->cfg.arg, &ctrl->flush);
		if (rc == 0)
			ns->refs++;
		if (rc == -EAGAIN &&
			timer_arm(t->sh, &ctrl->flush_retry, shard_now_ns(t->sh) + FLUSH_RETRY_NS,
				flush_next, ctrl) == 0) {
			ctrl->flush_nsid--;
			return;
		}
		ns = NULL; /* one that cannot be flushed must not keep the host from leaving */
	}
	if (rc < 0)
		flush_over(ctrl);
}

static void shut(struct tgt_ctrl *ctrl)
{
	set_state(ctrl, TGT_CTRL_SHUT);
	ctrl->csts = (ctrl->csts & ~NVME_CSTS_SHST_MASK) | NVME_CSTS_SHST_OCCURS;
	if (ctrl->flushing) /* from before a reset: its end serves both */
		return;
	ctrl->flushing = true;
	ctrl->flush_nsid = 0;
	ctrl->refs++;
	if (ctrl->discovery || !ctrl->vm->write_cache)
		flush_over(ctrl);
	else
		flush_next(ctrl);
}

/* ---- properties ---------------------------------------------------------------------------------------------- */
static uint64_t cap(const struct tgt_ctrl *ctrl)
{
	return (ctrl->vm->t->cfg.max_queue_entries - 1) | NVME_CAP_CQR |
	       (uint64_t)CAP_TO_500MS << NVME_CAP_TO_SHIFT | NVME_CAP_CSS_NVM;
}

static void property_get(struct tgt_cmd *cmd)
{
	const struct nvme_property_sqe *sqe = (const void *)&cmd->sqe;
	const struct tgt_ctrl *ctrl = cmd->conn->ctrl;
	bool eight = (sqe->attrib & NVME_PROP_SIZE_MASK) == NVME_PROP_8B;
	uint64_t value;

	switch (from_le32(sqe->ofst)) {
	case NVME_PROP_CAP:
		value = cap(ctrl);
		eight = !eight;
		break;
	case NVME_PROP_VS:
		value = NVME_VS_1_4;
		break;
	case NVME_PROP_CC:
		value = ctrl->cc;
		break;
	case NVME_PROP_CSTS:
		value = ctrl->csts;
		break;
	default:
		tgt_cmd_fail(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
		return;
	}
	if (eight)
		tgt_cmd_fail(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
	else
		tgt_cmd_complete(cmd, NVME_SC_SUCCESS, value);
}

/* Memory page 4 KiB, NVM command set, round robin; 64-byte and 16-byte entries on the I/O queues. */
static bool cc_ok(const struct tgt_ctrl *ctrl, uint32_t cc)
{
	bool sizes = (cc >> NVME_CC_IOSQES_SHIFT & 0xf) == 6 &&
		     (cc >> NVME_CC_IOCQES_SHIFT & 0xf) == 4;

	return (cc >> NVME_CC_CSS_SHIFT & 7) == 0 && (cc >> NVME_CC_MPS_SHIFT & 0xf) == 0 &&
	       (cc >> NVME_CC_AMS_SHIFT & 7) == 0 && (ctrl->discovery || sizes);
}

/* Controller level reset: I/O queues go, the admin queue stays. */
static void reset(struct tgt_ctrl *ctrl)
{
	struct tgt_cmd *aer;

	close_io(ctrl);
	while ((aer = TAILQ_FIRST(&ctrl->aers))) {
		tgt_event_unwait(aer);
		tgt_cmd_set_state(aer, TGT_CMD_RUN);
		tgt_cmd_fail(aer, NVME_SC_ABORT_REQ);
	}
	ctrl->async_config = 0;
	ctrl->ns_changed = ctrl->ns_masked = ctrl->disc_changed = ctrl->disc_masked = false;
	ctrl->acre = false;
	ctrl->csts = 0;
	set_state(ctrl, TGT_CTRL_DISABLED);
}

static void set_cc(struct tgt_ctrl *ctrl, uint32_t cc)
{
	uint32_t old = ctrl->cc;

	ctrl->cc = cc;
	if ((cc & NVME_CC_EN) && !(old & NVME_CC_EN)) {
		if (!cc_ok(ctrl, cc)) {
			ctrl->csts |= NVME_CSTS_CFS;
			return;
		}
		ctrl->csts = NVME_CSTS_RDY;
		set_state(ctrl, TGT_CTRL_READY);
	}
	if ((cc & NVME_CC_SHN_MASK) && !(old & NVME_CC_SHN_MASK))
		shut(ctrl);
	if (!(cc & NVME_CC_EN) && (old & NVME_CC_EN))
		reset(ctrl);
}

static void property_set(struct tgt_cmd *cmd)
{
	const struct nvme_property_sqe *sqe = (const void *)&cmd->sqe;

	if (from_le32(sqe->ofst) != NVME_PROP_CC ||
		(sqe->attrib & NVME_PROP_SIZE_MASK) != NVME_PROP_4B) {
		tgt_cmd_fail(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
		return;
	}
	set_cc(cmd->conn->ctrl, (uint32_t)from_le64(sqe->value));
	tgt_cmd_complete(cmd, NVME_SC_SUCCESS, 0);
}

void tgt_fabrics_start(struct tgt_cmd *cmd)
{
	const struct nvme_fabrics_sqe *sqe = (const void *)&cmd->sqe;
	struct tgt_conn *c = cmd->conn;

	if (sqe->fctype == NVME_FCTYPE_CONNECT && !c->ctrl)
		tgt_cmd_transfer(cmd, TGT_DIR_IN, sizeof(struct nvme_connect_data), connect_go);
	else if (sqe->fctype == NVME_FCTYPE_CONNECT || !c->ctrl)
		tgt_cmd_fail(cmd, NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	else if (sqe->fctype == NVME_FCTYPE_PROPERTY_GET && c->qid == 0)
		property_get(cmd);
	else if (sqe->fctype == NVME_FCTYPE_PROPERTY_SET && c->qid == 0)
		property_set(cmd);
	else
		tgt_cmd_fail(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
}

/* ---- error log -------------------------------------------------------------------------------------------------- */
void tgt_ctrl_error(struct tgt_cmd *cmd, uint16_t status)
{
	struct tgt_ctrl *ctrl = cmd->conn->ctrl;
	struct nvme_error_log *e;

	if (!ctrl)
		return;
	e = &ctrl->errors[ctrl->nerrors++ % TGT_ERRORS_MAX];
	*e = (struct nvme_error_log){
		.error_count = to_le64(ctrl->nerrors),
		.sqid = to_le16(cmd->conn->qid),
		.cid = to_le16(cmd->cid),
		.status = to_le16((uint16_t)(status << 1)),
		.param = to_le16(0xffff), /* no particular byte */
		.trtype = NVME_TRTYPE_TCP,
	};
	if (cmd->sqe.opcode == NVME_OPC_FABRICS)
		return;
	e->nsid = cmd->sqe.nsid;
	if (cmd->conn->qid)
		e->lba = to_le64(nvme_sqe_slba(&cmd->sqe));
}
