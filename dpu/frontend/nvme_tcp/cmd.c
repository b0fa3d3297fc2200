/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A command's way: CAPSULE -> RUN -> (WAIT_BUFFER) -> (R2T -> DATA) -> RUN -> (WAIT_BACKEND) BACKEND -> RUN -> ANSWER -> FREE.
 * Its slot is given back when the answer has left, so a host that keeps to its queue size always finds one.
 */
#include <assert.h>
#include <errno.h>

#include "common/base/util.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

void tgt_cmd_set_state(struct tgt_cmd *cmd, enum tgt_cmd_state state)
{
	struct tgt_conn *c = cmd->conn;

	/* No log: this is the data path. A command's state is seen in a debugger and in the counters. */
	c->nexpecting += state == TGT_CMD_DATA;
	c->nexpecting -= cmd->state == TGT_CMD_DATA;
	cmd->state = state;
}

struct tgt_cmd *tgt_cmd_get(struct tgt_conn *c, const struct nvme_sqe *sqe)
{
	struct tgt_cmd *cmd = TAILQ_FIRST(&c->free);

	if (!cmd)
		return NULL;
	TAILQ_REMOVE(&c->free, cmd, link);
	tgt_cmd_set_state(cmd, TGT_CMD_CAPSULE);
	cmd->sqe = *sqe;
	cmd->cid = from_le16(sqe->cid);
	cmd->capsule_bytes = 0;
	cmd->data_bad = false;
	cmd->sgl = (struct nvme_tcp_sgl){0};
	cmd->dir = TGT_DIR_NONE;
	cmd->xfer_bytes = cmd->received = 0;
	cmd->go_fn = NULL;
	cmd->ns = NULL;
	c->vm->stats.commands++;
	return cmd;
}

static void release(struct tgt_cmd *cmd)
{
	struct tgt_conn *c = cmd->conn;

	assert(cmd->state != TGT_CMD_FREE && cmd->state != TGT_CMD_BACKEND);
	tgt_buf_put(c->vm, &cmd->buf);
	if (cmd->ns)
		cmd->ns->refs--;
	cmd->ns = NULL;
	tgt_cmd_set_state(cmd, TGT_CMD_FREE);
	TAILQ_INSERT_TAIL(&c->free, cmd, link);
	c->vm->stats.commands--;
}

/* ---- what the capsule says ----------------------------------------------------------------------- */
/* How its data moves; fabrics commands keep that in the command type. */
static uint8_t data_bits(const struct nvme_sqe *sqe)
{
	const struct nvme_fabrics_sqe *f = (const void *)sqe;

	return (sqe->opcode == NVME_OPC_FABRICS ? f->fctype : sqe->opcode) &
	       (NVME_OPC_DATA_OUT | NVME_OPC_DATA_IN);
}

static uint16_t check_capsule(struct tgt_cmd *cmd)
{
	uint8_t data = data_bits(&cmd->sqe);
	uint16_t status = NVME_SC_SUCCESS;

	if ((cmd->sqe.flags & NVME_SQE_FUSE_MASK) ||
		(cmd->sqe.flags & NVME_SQE_PSDT_MASK) != NVME_SQE_PSDT_SGL)
		return NVME_SC_INVALID_FIELD | NVME_SC_DNR;
	/* Commands without data may leave the descriptor as they like. */
	if (data == NVME_OPC_DATA_OUT || data == NVME_OPC_DATA_IN)
		status = nvme_tcp_sgl_parse(&cmd->sqe.dptr, cmd->capsule_bytes, &cmd->sgl);
	if (status == NVME_SC_SUCCESS && data == NVME_OPC_DATA_IN && cmd->sgl.in_capsule)
		status = NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR;
	return status;
}

void tgt_cmd_start(struct tgt_cmd *cmd)
{
	struct tgt_ctrl *ctrl = cmd->conn->ctrl;
	uint16_t status;

	tgt_cmd_set_state(cmd, TGT_CMD_RUN);
	if (ctrl)
		ctrl->traffic = true;
	status = cmd->data_bad ? NVME_SC_TRANSIENT_TRANSPORT : check_capsule(cmd);
	if (status != NVME_SC_SUCCESS)
		tgt_cmd_fail(cmd, status);
	else if (cmd->sqe.opcode == NVME_OPC_FABRICS)
		tgt_fabrics_start(cmd);
	else if (!ctrl || ctrl->state != TGT_CTRL_READY)
		tgt_cmd_fail(cmd, NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	else if (cmd->conn->qid == 0)
		tgt_admin_start(cmd);
	else
		tgt_io_start(cmd);
}

/* ---- data from the host, room for data to it --------------------------------------------------------- */
static void r2t_sent(struct stream_tx *tx, int status)
{
	struct tgt_cmd *cmd = tx->arg;

	cmd->r2t_busy = false;
	if (status == 0 && cmd->state == TGT_CMD_R2T)
		tgt_cmd_set_state(cmd, TGT_CMD_DATA);
}

/* One R2T for the whole transfer; the host cuts it by MAXH2CDATA. */
static void send_r2t(struct tgt_cmd *cmd)
{
	struct tgt_conn *c = cmd->conn;
	size_t n = nvme_tcp_put_r2t(
		&c->link, cmd->r2t_head, cmd->cid, cmd->slot, 0, cmd->xfer_bytes);

	_Static_assert(
		sizeof(struct nvme_tcp_r2t) + 4 <= sizeof(cmd->r2t_head), "R2T and its digest");
	cmd->r2t_iov = (struct iovec){cmd->r2t_head, n};
	cmd->r2t_tx = (struct stream_tx){
		.iov = &cmd->r2t_iov, .niov = 1, .done_fn = r2t_sent, .arg = cmd};
	tgt_cmd_set_state(cmd, TGT_CMD_R2T);
	/* On failure the stream is dead; closing the connection takes the command along. */
	cmd->r2t_busy = stream_send(c->st, &cmd->r2t_tx) == 0;
}

void tgt_cmd_buffers_ready(struct tgt_cmd *cmd)
{
	tgt_cmd_set_state(cmd, TGT_CMD_RUN);
	if (cmd->conn->state != TGT_CONN_READY)
		release(cmd);
	else if (cmd->dir == TGT_DIR_IN)
		send_r2t(cmd);
	else
		cmd->go_fn(cmd);
}

void tgt_cmd_transfer(struct tgt_cmd *cmd, enum tgt_dir dir, uint32_t xfer_bytes,
	void (*go_fn)(struct tgt_cmd *cmd))
{
	bool exact = dir == TGT_DIR_IN || cmd->conn->qid != 0;

	cmd->dir = dir;
	cmd->go_fn = go_fn;
	cmd->xfer_bytes = exact ? xfer_bytes : MIN(xfer_bytes, cmd->sgl.length);
	if (exact && cmd->sgl.length != xfer_bytes) {
		tgt_cmd_fail(cmd, NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR);
		return;
	}
	if (cmd->xfer_bytes > TGT_XFER_MAX) {
		tgt_cmd_fail(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
		return;
	}
	if (cmd->xfer_bytes == 0 || (dir == TGT_DIR_IN && cmd->sgl.in_capsule)) {
		go_fn(cmd);
		return;
	}
	tgt_buf_put(
		cmd->conn->vm, &cmd->buf); /* capsule data that the descriptor does not point to */
	if (tgt_buf_get(cmd))
		tgt_cmd_buffers_ready(cmd);
}

void tgt_cmd_data_ready(struct tgt_cmd *cmd)
{
	tgt_cmd_set_state(cmd, TGT_CMD_RUN);
	if (cmd->data_bad)
		tgt_cmd_fail(cmd, NVME_SC_TRANSIENT_TRANSPORT);
	else
		cmd->go_fn(cmd);
}

/* ---- the answer ------------------------------------------------------------------------------------------ */
static void answer_sent(struct stream_tx *tx, int status)
{
	release(tx->arg);
}

static uint16_t next_sqhd(struct tgt_conn *c)
{
	if (c->sqflow_off)
		return 0xffff;
	if (c->entries)
		c->sqhd = (c->sqhd + 1) % c->entries;
	return (uint16_t)c->sqhd;
}

static int put_data(struct tgt_cmd *cmd, bool only)
{
	struct tgt_conn *c = cmd->conn;
	uint8_t flags = NVME_TCP_F_LAST | (only ? NVME_TCP_F_SUCCESS : 0);
	int n = 0;

	cmd->tx_iov[n++] = (struct iovec){cmd->head,
		nvme_tcp_put_c2h_data(&c->link, cmd->head, cmd->cid, 0, cmd->xfer_bytes, flags)};
	for (int i = 0; i < cmd->buf.n; i++)
		cmd->tx_iov[n++] = cmd->buf.iov[i];
	if (c->link.ddgst) {
		cmd->ddgst = to_le32(tgt_buf_crc(&cmd->buf, cmd->xfer_bytes));
		cmd->tx_iov[n++] = (struct iovec){&cmd->ddgst, sizeof(cmd->ddgst)};
	}
	return n;
}

static void send_answer(struct tgt_cmd *cmd, uint16_t status, uint64_t result)
{
	struct tgt_conn *c = cmd->conn;
	bool data = status == NVME_SC_SUCCESS && cmd->dir == TGT_DIR_OUT && cmd->xfer_bytes;
	/* Without SQ flow control the data PDU alone can say that all is well. */
	bool only = data && c->sqflow_off && result == 0;
	int n = data ? put_data(cmd, only) : 0;
	struct nvme_cqe cqe;

	_Static_assert(sizeof(struct nvme_tcp_resp) + 4 <= sizeof(cmd->resp_head),
		"CapsuleResp and its digest");
	if (!only) {
		nvme_cqe_set(&cqe, cmd->cid, status, result, next_sqhd(c));
		cmd->tx_iov[n++] = (struct iovec){
			cmd->resp_head, nvme_tcp_put_resp(&c->link, cmd->resp_head, &cqe)};
	}
	cmd->tx = (struct stream_tx){
		.iov = cmd->tx_iov, .niov = n, .done_fn = answer_sent, .arg = cmd};
	tgt_cmd_set_state(cmd, TGT_CMD_ANSWER);
	if (stream_send(c->st, &cmd->tx) < 0)
		release(cmd);
}

void tgt_cmd_complete(struct tgt_cmd *cmd, uint16_t status, uint64_t result)
{
	struct tgt_conn *c = cmd->conn;

	/* What came in is not needed any more, and its buffer must not wait for a slow reader of answers. */
	if (cmd->dir != TGT_DIR_OUT || status != NVME_SC_SUCCESS)
		tgt_buf_put(c->vm, &cmd->buf);
	if (cmd->ns)
		cmd->ns->refs--;
	cmd->ns = NULL;
	if (status != NVME_SC_SUCCESS) {
		c->vm->stats.failed_commands++;
		tgt_ctrl_error(cmd, status);
	}
	if (c->state == TGT_CONN_READY)
		send_answer(cmd, status, result);
	else
		release(cmd);
}

void tgt_cmd_cancel(struct tgt_cmd *cmd)
{
	switch (cmd->state) {
	case TGT_CMD_FREE:
	case TGT_CMD_RUN: /* whoever runs it finds the connection closed */
	case TGT_CMD_BACKEND: /* comes back */
		return;
	case TGT_CMD_WAIT_BUFFER:
		tgt_buf_unwait(cmd);
		break;
	case TGT_CMD_WAIT_BACKEND:
		tgt_io_unwait(cmd);
		break;
	case TGT_CMD_EVENT:
		tgt_event_unwait(cmd);
		break;
	default:
		break;
	}
	release(cmd);
}
