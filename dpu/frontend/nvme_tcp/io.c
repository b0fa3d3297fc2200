/* SPDX-License-Identifier: BSD-3-Clause */
/* The NVM command set: read, write, flush, write zeroes, dataset management. */
#include <errno.h>

#include "common/base/util.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

#define RETRY_NS \
	200000ull /* when nothing of ours is in flight whose end would tell that there is room */

static void io_done(struct io_req *req);
static void retry(void *arg);

/* ---- into the backend and out of it ----------------------------------------------------------------- */
static void wait_backend(struct tgt_cmd *cmd, bool first)
{
	struct nvme_tcp_vm *vm = cmd->conn->vm;
	struct shard *sh = vm->t->sh;

	tgt_cmd_set_state(cmd, TGT_CMD_WAIT_BACKEND);
	if (first)
		TAILQ_INSERT_HEAD(&vm->wait_backend, cmd, link);
	else
		TAILQ_INSERT_TAIL(&vm->wait_backend, cmd, link);
	if (!vm->retry_timer.heap_pos &&
		timer_arm(sh, &vm->retry_timer, shard_now_ns(sh) + RETRY_NS, retry, vm) < 0)
		shard_defer(sh, &vm->retry_task, retry, vm);
}

void tgt_io_unwait(struct tgt_cmd *cmd)
{
	TAILQ_REMOVE(&cmd->conn->vm->wait_backend, cmd, link);
}

/* False: the backend has no room; the command is in state RUN still. */
static bool try_submit(struct tgt_cmd *cmd)
{
	struct tgt_conn *c = cmd->conn;
	struct nvme_tcp_target *t = c->vm->t;
	int rc;

	tgt_conn_hold(c);
	tgt_cmd_set_state(cmd, TGT_CMD_BACKEND);
	rc = t->cfg.submit_fn(t->cfg.arg, &cmd->req);
	if (rc == 0)
		return true;
	tgt_cmd_set_state(cmd, TGT_CMD_RUN);
	if (rc != -EAGAIN)
		tgt_cmd_fail(cmd,
			tgt_status(cmd->req.op, tgt_status_of_errno(rc), c->ctrl && c->ctrl->acre));
	tgt_conn_put(c);
	return rc != -EAGAIN;
}

static void submit(struct tgt_cmd *cmd)
{
	struct nvme_tcp_vm *vm = cmd->conn->vm;

	if (TAILQ_EMPTY(&vm->wait_backend) && try_submit(cmd))
		return;
	vm->stats.backend_waits++;
	wait_backend(cmd, false);
}

static void retry(void *arg)
{
	struct nvme_tcp_vm *vm = arg;
	struct tgt_cmd *cmd;

	while ((cmd = TAILQ_FIRST(&vm->wait_backend))) {
		TAILQ_REMOVE(&vm->wait_backend, cmd, link);
		tgt_cmd_set_state(cmd, TGT_CMD_RUN);
		if (!try_submit(cmd)) {
			wait_backend(cmd, true);
			return;
		}
	}
	timer_disarm(vm->t->sh, &vm->retry_timer);
}

static void prepare(
	struct tgt_cmd *cmd, enum io_op op, uint64_t off_bytes, uint64_t len_bytes, uint32_t flags)
{
	struct tgt_conn *c = cmd->conn;

	cmd->req = (struct io_req){
		.op = op,
		.flags = flags,
		.vm = c->vm->vm,
		.vol = cmd->ns->cfg.vol,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.stable = true, /* received bytes are ours */
		.done_fn = io_done,
		.arg = cmd,
		.start_ns = shard_now_ns(c->vm->t->sh),
	};
}

static void count(struct nvme_tcp_vm_stats *s, const struct io_req *req)
{
	switch (req->op) {
	case IO_READ:
		s->reads++;
		s->read_bytes += req->len_bytes;
		break;
	case IO_WRITE:
		s->writes++;
		s->write_bytes += req->len_bytes;
		break;
	case IO_FLUSH:
		s->flushes++;
		break;
	case IO_WRITE_ZEROES:
		s->write_zeroes++;
		break;
	case IO_TRIM:
		s->trims++;
		break;
	}
	s->media_errors += req->status == IO_ERR_MEDIA;
}

static void trim_next(struct tgt_cmd *cmd);

static void io_done(struct io_req *req)
{
	struct tgt_cmd *cmd = req->arg;
	struct tgt_conn *c = cmd->conn;
	struct nvme_tcp_vm *vm = c->vm;

	tgt_cmd_set_state(cmd, TGT_CMD_RUN);
	count(&vm->stats, req);
	if (!TAILQ_EMPTY(&vm->wait_backend))
		shard_defer(vm->t->sh, &vm->retry_task, retry, vm);
	if (req->op == IO_TRIM && req->status == IO_OK && c->state == TGT_CONN_READY)
		trim_next(cmd);
	else
		tgt_cmd_complete(
			cmd, tgt_status(req->op, req->status, c->ctrl && c->ctrl->acre), 0);
	tgt_conn_put(c);
}

/* ---- read, write ---------------------------------------------------------------------------------------- */
static void read_go(struct tgt_cmd *cmd)
{
	cmd->req.iov = cmd->buf.iov;
	cmd->req.niov = cmd->buf.n;
	submit(cmd);
}

static void write_go(struct tgt_cmd *cmd)
{
	cmd->req.iov = cmd->buf.iov;
	cmd->req.niov = cmd->buf.n;
	if (cmd->sgl.in_capsule) {
		/* The answer's vector is not in use yet; the buffer's own must keep its beginning. */
		cmd->tx_iov[0] = (struct iovec){
			(uint8_t *)cmd->buf.iov[0].iov_base + cmd->sgl.offset, cmd->xfer_bytes};
		cmd->req.iov = cmd->tx_iov;
		cmd->req.niov = 1;
	}
	submit(cmd);
}

/* slba and nlb as a byte range of the namespace. */
static bool byte_range(
	const struct tgt_ns *ns, uint64_t slba, uint64_t nlb, uint64_t *off, uint64_t *len)
{
	uint64_t blocks = ns->cfg.size_bytes >> ns->block_shift;

	if (slba > blocks || nlb > blocks - slba)
		return false;
	*off = slba << ns->block_shift;
	*len = nlb << ns->block_shift;
	return true;
}

static void start_rw(struct tgt_cmd *cmd, enum io_op op)
{
	uint32_t nlb = nvme_sqe_nlb(&cmd->sqe), cdw12 = from_le32(cmd->sqe.cdw12);
	uint32_t flags = op != IO_READ && (cdw12 & NVME_RW_FUA) ? IO_FUA : 0;
	uint64_t off, len;

	if (op == IO_WRITE_ZEROES && (cdw12 & NVME_RW_DEAC))
		flags |= IO_DEALLOC;
	if (!byte_range(cmd->ns, nvme_sqe_slba(&cmd->sqe), nlb, &off, &len)) {
		tgt_cmd_fail(cmd, NVME_SC_LBA_RANGE | NVME_SC_DNR);
		return;
	}
	prepare(cmd, op, off, len, flags);
	if (op == IO_WRITE_ZEROES)
		submit(cmd);
	else if (len > TGT_XFER_MAX)
		tgt_cmd_fail(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
	else if (op == IO_READ)
		tgt_cmd_transfer(cmd, TGT_DIR_OUT, (uint32_t)len, read_go);
	else
		tgt_cmd_transfer(cmd, TGT_DIR_IN, (uint32_t)len, write_go);
}

/* ---- dataset management: one range after the other ------------------------------------------------------- */
static void trim_next(struct tgt_cmd *cmd)
{
	struct nvme_dsm_range r;
	uint64_t off, len;

	while (cmd->range < cmd->nranges) {
		tgt_buf_read(&cmd->buf, cmd->sgl.offset + cmd->range * (uint32_t)sizeof(r), &r,
			sizeof(r));
		cmd->range++;
		if (!byte_range(cmd->ns, from_le64(r.slba), from_le32(r.nlb), &off, &len)) {
			tgt_cmd_fail(cmd, NVME_SC_LBA_RANGE | NVME_SC_DNR);
			return;
		}
		if (len == 0)
			continue;
		prepare(cmd, IO_TRIM, off, len, 0);
		submit(cmd);
		return;
	}
	tgt_cmd_complete(cmd, NVME_SC_SUCCESS, 0);
}

static void start_dsm(struct tgt_cmd *cmd)
{
	uint32_t n = (from_le32(cmd->sqe.cdw10) & NVME_DSM_NR_MASK) + 1, len = cmd->sgl.length;

	/* The buffer may be longer than its ranges: Linux always sends room for 256. */
	if (len < n * sizeof(struct nvme_dsm_range) ||
		len > NVME_DSM_MAX_RANGES * sizeof(struct nvme_dsm_range)) {
		tgt_cmd_fail(cmd, NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR);
		return;
	}
	cmd->range = 0;
	/* Hints without deallocation (integral read, write) are taken note of, which is all they ask for. */
	cmd->nranges = from_le32(cmd->sqe.cdw11) & NVME_DSM_AD ? (uint16_t)n : 0;
	tgt_cmd_transfer(cmd, TGT_DIR_IN, len, trim_next);
}

void tgt_io_start(struct tgt_cmd *cmd)
{
	struct tgt_ns *ns = tgt_ns_find(cmd->conn->vm, from_le32(cmd->sqe.nsid));

	if (!ns) {
		tgt_cmd_fail(cmd, NVME_SC_INVALID_NS | NVME_SC_DNR);
		return;
	}
	cmd->ns = ns;
	ns->refs++;
	switch (cmd->sqe.opcode) {
	case NVME_CMD_READ:
		start_rw(cmd, IO_READ);
		break;
	case NVME_CMD_WRITE:
		start_rw(cmd, IO_WRITE);
		break;
	case NVME_CMD_WRITE_ZEROES:
		start_rw(cmd, IO_WRITE_ZEROES);
		break;
	case NVME_CMD_FLUSH:
		prepare(cmd, IO_FLUSH, 0, 0, 0);
		submit(cmd);
		break;
	case NVME_CMD_DSM:
		start_dsm(cmd);
		break;
	default:
		tgt_cmd_fail(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
		break;
	}
}
