/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/nvmf_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"

#define NS_PER_MS 1000000ULL
#define CID_STEP  NVMF_DEPTH_MAX /* the next generation of a slot's command id */

int nvmf_queue_init(struct nvmf *n, uint16_t qid, uint16_t depth)
{
	struct nvmf_queue *q = &n->queues[qid];

	q->n = n;
	q->qid = qid;
	q->nslots = q->depth = depth;
	q->slots = calloc(depth, sizeof(q->slots[0]));
	if (!q->slots)
		return -ENOMEM;
	SLIST_INIT(&q->free);
	for (uint16_t i = depth; i-- > 0;) {
		q->slots[i].cid = i;
		SLIST_INSERT_HEAD(&q->free, &q->slots[i], link);
	}
	return n->transport->conn_open(q);
}

void nvmf_queue_fini(struct nvmf_queue *q)
{
	if (q->conn)
		q->n->transport->conn_close(q);
	free(q->slots);
	q->slots = NULL;
}

/* ---- filling commands ---------------------------------------------------------------------------------- */

void nvmf_io_rw(struct nvmf_io *io, uint8_t opcode, uint32_t nsid, uint64_t lba, uint32_t nblocks,
	uint32_t flags)
{
	nvme_sqe_set_rw(&io->sqe, opcode, 0, nsid, lba, nblocks, flags);
}

void nvmf_io_flush(struct nvmf_io *io, uint32_t nsid)
{
	nvme_sqe_init(&io->sqe, NVME_CMD_FLUSH, 0, nsid);
}

/* Data that lies in the command's own struct. */
static void own_data(struct nvmf_io *io, void *data, size_t len)
{
	io->own_iov = (struct iovec){.iov_base = data, .iov_len = len};
	io->iov = &io->own_iov;
	io->niov = 1;
}

void nvmf_io_trim(struct nvmf_io *io, uint32_t nsid, uint64_t lba, uint32_t nblocks)
{
	nvme_sqe_init(&io->sqe, NVME_CMD_DSM, 0, nsid);
	io->sqe.cdw11 = to_le32(NVME_DSM_AD);
	io->range = (struct nvme_dsm_range){.nlb = to_le32(nblocks), .slba = to_le64(lba)};
	own_data(io, &io->range, sizeof(io->range));
}

void nvmf_io_resv_register(struct nvmf_io *io, uint32_t nsid, uint64_t old_key, uint64_t new_key,
	enum nvme_resv_rega action, bool ptpl)
{
	uint32_t cptpl = ptpl ? NVME_RESV_CPTPL_PERSIST : NVME_RESV_CPTPL_KEEP;

	nvme_sqe_init(&io->sqe, NVME_CMD_RESV_REGISTER, 0, nsid);
	io->sqe.cdw10 = to_le32(action | cptpl << NVME_RESV_CPTPL_SHIFT);
	io->resv_register = (struct nvme_resv_register){
		.crkey = to_le64(old_key), .nrkey = to_le64(new_key)};
	own_data(io, &io->resv_register, sizeof(io->resv_register));
}

void nvmf_io_resv_acquire(struct nvmf_io *io, uint32_t nsid, uint64_t key, uint64_t preempt_key,
	enum nvme_resv_acqa action, enum nvme_resv_type type)
{
	nvme_sqe_init(&io->sqe, NVME_CMD_RESV_ACQUIRE, 0, nsid);
	io->sqe.cdw10 = to_le32(action | (uint32_t)type << NVME_RESV_RTYPE_SHIFT);
	io->resv_acquire = (struct nvme_resv_acquire){
		.crkey = to_le64(key), .prkey = to_le64(preempt_key)};
	own_data(io, &io->resv_acquire, sizeof(io->resv_acquire));
}

void nvmf_io_resv_release(struct nvmf_io *io, uint32_t nsid, uint64_t key,
	enum nvme_resv_rela action, enum nvme_resv_type type)
{
	nvme_sqe_init(&io->sqe, NVME_CMD_RESV_RELEASE, 0, nsid);
	io->sqe.cdw10 = to_le32(action | (uint32_t)type << NVME_RESV_RTYPE_SHIFT);
	io->resv_release = (struct nvme_resv_release){.crkey = to_le64(key)};
	own_data(io, &io->resv_release, sizeof(io->resv_release));
}

int nvmf_io_result(const struct nvmf_io *io)
{
	return io->err ? io->err : NVME_SC_CODE(io->status) ? -EIO : 0;
}

/* ---- submission ------------------------------------------------------------------------------------------ */

/* Which way a command's data moves is in its opcode, of fabrics commands in their type. */
static uint8_t data_direction(const struct nvme_sqe *sqe)
{
	const struct nvme_fabrics_sqe *f = (const struct nvme_fabrics_sqe *)sqe;

	return (sqe->opcode == NVME_OPC_FABRICS ? f->fctype : sqe->opcode) & 3;
}

static int check_data(const struct nvmf_queue *q, const struct nvmf_io *io, uint32_t *len)
{
	uint8_t dir = data_direction(&io->sqe);
	uint64_t sum = 0;

	if (io->niov < 0 || io->niov > NVMF_IOV_MAX || !io->done_fn)
		return -EINVAL;
	for (int i = 0; i < io->niov; i++) {
		if (io->iov[i].iov_len > UINT32_MAX)
			return -EINVAL;
		sum += io->iov[i].iov_len;
	}
	if (sum > q->n->max_io_bytes)
		return -EINVAL;
	if (sum ? dir != NVME_OPC_DATA_OUT && dir != NVME_OPC_DATA_IN : false)
		return -EINVAL;
	*len = (uint32_t)sum;
	return 0;
}

int nvmf_queue_submit(struct nvmf_queue *q, struct nvmf_io *io)
{
	struct nvmf *n = q->n;
	uint32_t len, timeout_ms = io->timeout_ms ? io->timeout_ms : n->cfg.io_timeout_ms;
	struct nvmf_slot *s;
	int rc = check_data(q, io, &len);

	if (rc < 0)
		return rc;
	s = SLIST_FIRST(&q->free);
	if (!s || q->in_flight >= q->depth)
		return -EAGAIN;
	SLIST_REMOVE_HEAD(&q->free, link);
	s->cid = (uint16_t)(s->cid + CID_STEP);
	s->io = io;
	s->data_bytes = len;
	s->out = data_direction(&io->sqe) == NVME_OPC_DATA_OUT;
	s->aborted = false;
	s->sent_ns = shard_now_ns(n->sh);
	s->deadline_ns = timeout_ms == UINT32_MAX ? UINT64_MAX
						  : s->sent_ns + timeout_ms * NS_PER_MS;
	io->queue = q;
	io->cid = s->cid;
	io->err = 0;
	io->status = 0;
	io->result = 0;
	io->sqe.cid = to_le16(s->cid);
	rc = n->transport->submit(q, s);
	if (rc < 0) {
		s->io = NULL;
		SLIST_INSERT_HEAD(&q->free, s, link);
		return rc;
	}
	q->in_flight++;
	n->stats.commands++;
	return 0;
}

int nvmf_submit(struct nvmf_queue *q, struct nvmf_io *io)
{
	if (!q || q->n->state != NVMF_READY || q->n->lost || !q->live)
		return -ENOTCONN;
	return nvmf_queue_submit(q, io);
}

void nvmf_kick(struct nvmf_queue *q)
{
	if (q && q->opened && q->n->transport->kick)
		q->n->transport->kick(q);
}

void nvmf_slot_done(
	struct nvmf_queue *q, struct nvmf_slot *s, int err, uint16_t status, uint64_t result)
{
	struct nvmf_io *io = s->io;

	s->io = NULL;
	SLIST_INSERT_HEAD(&q->free, s, link);
	q->in_flight--;
	io->err = err;
	io->status = status;
	io->result = result;
	if (!err)
		q->n->heard_ns = MAX(q->n->heard_ns, s->sent_ns);
	if (!err && !NVME_SC_CODE(status)) {
		if (s->out)
			q->n->stats.tx_bytes += s->data_bytes;
		else
			q->n->stats.rx_bytes += s->data_bytes;
	}
	io->done_fn(io);
}

void nvmf_queue_drain(struct nvmf_queue *q, int err)
{
	for (uint16_t i = 0; i < q->nslots; i++)
		if (q->slots[i].io)
			nvmf_slot_done(q, &q->slots[i], err, 0, 0);
	assert(q->in_flight == 0);
}

uint16_t nvmf_in_flight(const struct nvmf_queue *q)
{
	return q->in_flight;
}

/* ---- timeouts and abort ------------------------------------------------------------------------------------ */

/* The aborted command tells its own end; that of the Abort command only frees its place. */
static void abort_done(struct nvmf_io *io)
{
	struct nvmf *n = io->arg;

	n->aborts_busy &= ~(1U << (io - n->aborts));
}

static int abort_slot(struct nvmf_queue *q, struct nvmf_slot *s)
{
	struct nvmf *n = q->n;
	unsigned int limit = MIN(n->id.acl + 1U, NVMF_NABORTS), i = 0;
	struct nvmf_io *io;
	int rc;

	if (s->aborted)
		return -EALREADY;
	while (i < limit && (n->aborts_busy & 1U << i))
		i++;
	if (i == limit)
		return -EBUSY;
	io = &n->aborts[i];
	*io = (struct nvmf_io){.done_fn = abort_done, .arg = n};
	nvme_sqe_init(&io->sqe, NVME_ADMIN_ABORT, 0, 0);
	io->sqe.cdw10 = to_le32((uint32_t)s->cid << 16 | q->qid);
	rc = nvmf_queue_submit(&n->queues[0], io);
	if (rc < 0)
		return rc;
	n->aborts_busy |= 1U << i;
	n->stats.aborts++;
	s->aborted = true;
	return 0;
}

int nvmf_abort(struct nvmf_io *io)
{
	struct nvmf_queue *q = io->queue;
	struct nvmf_slot *s;

	if (!q || q->n->state != NVMF_READY || q->n->lost)
		return -ENOTCONN;
	s = nvmf_slot_find(q, io->cid);
	return s && s->io == io ? abort_slot(q, s) : -EALREADY;
}

void nvmf_queue_tick(struct nvmf_queue *q)
{
	uint64_t now = shard_now_ns(q->n->sh);

	for (uint16_t i = 0; i < q->nslots && !q->n->lost; i++) {
		struct nvmf_slot *s = &q->slots[i];

		if (!s->io || s->deadline_ns > now)
			continue;
		q->n->stats.timeouts++;
		/* Admin commands have nobody to abort them; a second timeout has tried everything. */
		if (q->qid == 0 || s->aborted) {
			nvmf_queue_lost(q, -ETIMEDOUT, "a command was not answered in time");
			return;
		}
		if (abort_slot(q, s) == -EBUSY) /* next tick, or one more timeout at most */
			s->aborted = true;
		s->deadline_ns = now + q->n->cfg.io_timeout_ms * NS_PER_MS;
	}
}
