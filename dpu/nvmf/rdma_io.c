/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/rdma_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>

#include "common/base/util.h"

#define POLL_BATCH  32
#define POLL_ROUNDS 4 /* batches per call: other queues want their turn */
/* Empty polls before the completion queue is armed and left alone: an event costs more than looking a few times. */
#define IDLE_POLLS 64

/* A work request's id: what it is, and its place in the send queue or its response's buffer. */
enum wr_kind { WR_RECV, WR_SEND, WR_BIND, WR_INVALIDATE };
#define WR_KIND_SHIFT   60
#define WR_ID(kind, at) ((uint64_t)(kind) << WR_KIND_SHIFT | (at))
#define WR_KIND(id)     ((enum wr_kind)((id) >> WR_KIND_SHIFT))
#define WR_AT(id)       ((id) & ((1ULL << WR_KIND_SHIFT) - 1))

void rdma_fault(struct rdma_conn *c, int err, const char *what)
{
	if (c->dead)
		return;
	c->dead = true;
	poller_del(c->q->n->sh, &c->poller);
	nvmf_queue_lost(c->q, err, what);
}

static void protocol_fault(struct rdma_conn *c, const char *what)
{
	c->q->n->stats.protocol_errors++;
	rdma_fault(c, -EPROTO, what);
}

/* ---- the chain ------------------------------------------------------------------------------------------------ */

static void kick_run(void *arg)
{
	struct rdma_conn *c = arg;

	rdma_kick(c->q);
}

static struct rd_wr *chain_add(struct rdma_conn *c, struct rdma_slot *r, enum wr_kind kind)
{
	static const enum rd_op ops[] = {
		[WR_SEND] = RD_SEND, [WR_BIND] = RD_BIND, [WR_INVALIDATE] = RD_INVALIDATE};
	struct rd_wr *wr = &c->chain[c->nchain];

	assert(c->nchain < (uint32_t)c->nslots * RDMA_WRS_PER_SLOT);
	c->nchain++;
	r->last_wr = ++c->queued;
	*wr = (struct rd_wr){.id = WR_ID(kind, c->queued), .op = ops[kind]};
	shard_defer(c->q->n->sh, &c->kick_task, kick_run, c);
	return wr;
}

void rdma_kick(struct nvmf_queue *q)
{
	struct rdma_conn *c = q->conn;
	uint32_t n = c->nchain;
	int rc;

	if (!n || c->dead)
		return;
	c->chain[n - 1].signaled = true;
	c->nchain = 0;
	c->posted = c->queued;
	q->n->stats.kicks++;
	q->n->stats.posts += n;
	rc = c->ops->post_send(c->link, c->chain, (int)n);
	if (rc < 0)
		rdma_fault(c, rc, "the device takes no work requests");
	else
		rdma_poll_start(c);
}

/* ---- submission ------------------------------------------------------------------------------------------------- */

/* Keys of a window differ in their lowest 8 bits from binding to binding. */
static uint32_t next_key(uint32_t key)
{
	return (key & ~0xffU) | ((key + 1) & 0xff);
}

static void window_bind(struct rdma_conn *c, struct nvmf_slot *s, struct rdma_slot *r,
	const struct rdma_range *data)
{
	struct rd_wr *wr = chain_add(c, r, WR_BIND);

	r->mw->rkey = next_key(r->mw->rkey);
	r->bound = true;
	wr->bind.mw = r->mw;
	wr->bind.mr = data->mr;
	wr->bind.addr = (uintptr_t)data->base;
	wr->bind.len = s->data_bytes;
	wr->bind.rkey = r->mw->rkey;
	wr->bind.write = !s->out;
	c->q->n->stats.binds++;
}

/* Data that the target fetches or brings: it gets a key to exactly this range. */
static int submit_keyed(struct rdma_conn *c, struct nvmf_slot *s, struct rdma_slot *r)
{
	struct rdma_range data;
	uint32_t key;
	int rc = rdma_data_range(c, s, &data);

	if (rc < 0)
		return rc;
	if (r->mw) {
		window_bind(c, s, r, &data);
		key = r->mw->rkey;
	} else {
		key = data.mr->rkey;
		c->q->n->stats.region_keys++;
	}
	s->io->sqe.dptr = nvme_sgl_keyed((uintptr_t)data.base, s->data_bytes, key, r->bound);
	return 1;
}

static int submit_in_capsule(struct rdma_conn *c, struct nvmf_slot *s, struct rdma_slot *r)
{
	uint32_t offset = c->q->capsule_offset;
	int first = 1, n;

	if (offset)
		r->sge[first++] = (struct rd_sge){(uintptr_t)rdma_pad(c), offset, c->ctl_mr->lkey};
	n = rdma_data_pieces(c, s, r->sge + first, (int)c->max_sge - first);
	if (n < 0)
		return n;
	s->io->sqe.dptr = nvme_sgl_in_capsule(0, s->data_bytes);
	if (c->q->live)
		c->q->n->stats.inline_bytes += s->data_bytes;
	return first + n;
}

int rdma_submit(struct nvmf_queue *q, struct nvmf_slot *s)
{
	struct rdma_conn *c = q->conn;
	struct rdma_slot *r = rdma_slot_of(c, s);
	uint8_t *capsule = rdma_capsule(c, nvmf_slot_index(q, s));
	struct rd_wr *wr;
	int nsge = 1;

	if (c->dead || !c->up)
		return -ENOTCONN;
	rdma_dev_sync(c->dev);
	r->answered = r->bound = r->bounced = false;
	if (!s->data_bytes)
		s->io->sqe.dptr = nvme_sgl_keyed(0, 0, 0, false);
	else if (s->out && s->data_bytes <= q->capsule_bytes)
		nsge = submit_in_capsule(c, s, r);
	else
		nsge = submit_keyed(c, s, r);
	if (nsge < 0)
		return nsge;
	memcpy(capsule, &s->io->sqe, sizeof(s->io->sqe));
	r->sge[0] = (struct rd_sge){(uintptr_t)capsule, sizeof(struct nvme_sqe), c->ctl_mr->lkey};
	wr = chain_add(c, r, WR_SEND);
	wr->send.sge = r->sge;
	wr->send.nsge = nsge;
	return 0;
}

/* ---- completions -------------------------------------------------------------------------------------------------- */

static void recv_fill(struct rdma_conn *c, uint32_t i)
{
	c->recvs[c->nrecvs++] = (struct rd_recv){.id = WR_ID(WR_RECV, i),
		.sge = {(uintptr_t)rdma_cqe(c, i), RDMA_CQE_STRIDE, c->ctl_mr->lkey}};
}

static int recvs_post(struct rdma_conn *c)
{
	int rc = c->nrecvs ? c->ops->post_recv(c->link, c->recvs, (int)c->nrecvs) : 0;

	c->q->n->stats.posts += c->nrecvs;
	c->nrecvs = 0;
	return rc;
}

int rdma_recvs_post_all(struct rdma_conn *c, uint32_t n)
{
	c->nrecvs = 0;
	for (uint32_t i = 0; i < n; i++)
		recv_fill(c, i);
	return recvs_post(c);
}

static void take_error(struct rdma_conn *c, const struct rd_wc *wc)
{
	static const char *const kinds[] = {
		[WR_RECV] = "receiving a response",
		[WR_SEND] = "sending a command",
		[WR_BIND] = "binding a memory window",
		[WR_INVALIDATE] = "invalidating a memory window",
	};
	uint32_t kind = WR_KIND(wc->id);
	char text[128];

	if (wc->flushed)
		snprintf(text, sizeof(text), "the connection broke");
	else
		snprintf(text, sizeof(text), "%s: %s",
			kind < ARRAY_LEN(kinds) ? kinds[kind] : "a work request", wc->error);
	rdma_fault(c, -ECONNRESET, text);
}

/* The target must have ended the key of this command and no other; where it ended none, we do. False: the connection is lost. */
static bool take_key(struct rdma_conn *c, struct rdma_slot *r, const struct rd_wc *wc)
{
	if (wc->with_inv) {
		if (!r->bound || wc->inv_rkey != r->mw->rkey) {
			protocol_fault(c, "a response invalidates a key that is not its command's");
			return false;
		}
		r->bound = false;
		c->q->n->stats.remote_invalidates++;
	} else if (r->bound) {
		chain_add(c, r, WR_INVALIDATE)->invalidate = r->mw->rkey;
		r->bound = false;
	}
	return true;
}

static void take_response(struct rdma_conn *c, const struct rd_wc *wc)
{
	uint32_t i = (uint32_t)WR_AT(wc->id);
	struct nvme_cqe cqe;
	struct nvmf_slot *s;
	struct rdma_slot *r;

	if (wc->byte_len != sizeof(cqe)) {
		protocol_fault(c, "a response of a wrong length");
		return;
	}
	memcpy(&cqe, rdma_cqe(c, i), sizeof(cqe));
	s = nvmf_slot_find(c->q, from_le16(cqe.cid));
	r = s ? rdma_slot_of(c, s) : NULL;
	if (!r || r->answered || r->last_wr > c->posted) {
		protocol_fault(c, "response to a command that is not in flight");
		return;
	}
	if (!take_key(c, r, wc))
		return;
	r->answered = true;
	r->status = nvme_cqe_status(&cqe);
	r->result = from_le64(cqe.result);
	TAILQ_INSERT_TAIL(&c->waiting, r, link);
	recv_fill(c, i);
}

/* Slots whose response is here and whose requests the device has let go of. */
static void finish_waiting(struct rdma_conn *c)
{
	struct rdma_slot *next;

	for (struct rdma_slot *r = TAILQ_FIRST(&c->waiting); r; r = next) {
		struct nvmf_slot *s = &c->q->slots[r - c->slots];

		next = TAILQ_NEXT(r, link);
		if (r->last_wr > c->reaped)
			continue;
		TAILQ_REMOVE(&c->waiting, r, link);
		if (!NVME_SC_CODE(r->status))
			rdma_data_scatter(c, s);
		nvmf_slot_done(c->q, s, 0, r->status, r->result);
	}
}

/* One batch: responses first, then their buffers are posted again, then commands end, which may bring new ones. */
static int reap(struct rdma_conn *c)
{
	struct rd_wc wc[POLL_BATCH];
	int n = c->ops->poll(c->link, wc, POLL_BATCH), rc;

	if (n < 0)
		rdma_fault(c, n, "the completion queue fails");
	if (n <= 0)
		return 0;
	c->q->n->stats.completions += (uint64_t)n;
	for (int i = 0; i < n && !c->dead; i++) {
		if (wc[i].error)
			take_error(c, &wc[i]);
		else if (WR_KIND(wc[i].id) == WR_RECV)
			take_response(c, &wc[i]);
		else
			c->reaped = WR_AT(wc[i].id);
	}
	rc = c->dead ? 0 : recvs_post(c);
	if (rc < 0)
		rdma_fault(c, rc, "the device takes no receive requests");
	finish_waiting(c);
	rdma_kick(c->q);
	return n;
}

static int conn_poll(void *arg)
{
	struct rdma_conn *c = arg;
	int n = 0, got = POLL_BATCH;

	for (int i = 0; i < POLL_ROUNDS && got == POLL_BATCH && !c->dead; i++)
		n += got = reap(c);
	if (n || c->dead) {
		c->idle_polls = 0;
		return n;
	}
	if (++c->idle_polls < IDLE_POLLS)
		return 1;
	if (!c->armed) {
		int rc = c->ops->arm(c->link);

		if (rc < 0) {
			rdma_fault(c, rc, "the completion queue cannot be armed");
			return 0;
		}
		c->armed = true;
		n = reap(c); /* what came before it was armed wakes nobody */
		if (n)
			return n;
	}
	poller_del(c->q->n->sh, &c->poller);
	return 0;
}

void rdma_poll_start(struct rdma_conn *c)
{
	c->idle_polls = 0;
	if (!c->poller.linked && !c->dead)
		poller_add(c->q->n->sh, &c->poller, conn_poll, c, POLLER_SLEEPS);
}
