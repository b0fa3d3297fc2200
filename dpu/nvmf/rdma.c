/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/rdma_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/util.h"

/* ---- memory of a queue, kept over reconnects ---------------------------------------------------------------- */

static void rdma_conn_close(struct nvmf_queue *q)
{
	struct rdma_conn *c = q->conn;

	for (uint16_t i = 0; i < q->nslots; i++)
		mem_free(c->slots[i].bounce, c->slots[i].bounce_bytes);
	mem_free(c->ctl, c->ctl_bytes);
	free(c->chain);
	free(c->recvs);
	free(c);
	q->conn = NULL;
}

static int rdma_conn_open(struct nvmf_queue *q)
{
	const struct nvmf_cfg *cfg = &q->n->cfg;
	struct rdma_conn *c = calloc(1, sizeof(*c) + q->nslots * sizeof(c->slots[0]));

	if (!c)
		return -ENOMEM;
	c->q = q;
	c->ops = cfg->rdma_ops ? cfg->rdma_ops : &rd_verbs;
	TAILQ_INIT(&c->waiting);
	c->ctl_bytes = (size_t)q->nslots * RDMA_CAPSULE_STRIDE + RDMA_PAD_MAX +
		       (q->nslots + 1UL) * RDMA_CQE_STRIDE;
	c->ctl = mem_alloc(c->ctl_bytes);
	c->chain = calloc(q->nslots, RDMA_WRS_PER_SLOT * sizeof(c->chain[0]));
	c->recvs = calloc(q->nslots + 1UL, sizeof(c->recvs[0]));
	q->conn = c;
	if (c->ctl && c->chain && c->recvs)
		return 0;
	rdma_conn_close(q);
	return -ENOMEM;
}

/* ---- connecting ------------------------------------------------------------------------------------------------ */

/* The queue pair's size: the device may have room for fewer commands than we would like. */
static int take_sizes(struct rdma_conn *c, struct rd_qp_cfg *qp, struct err *err)
{
	struct nvmf_queue *q = c->q;
	struct rd_caps caps;
	uint32_t n;

	c->ops->caps(c->link, &caps);
	n = MIN(caps.max_wr / RDMA_WRS_PER_SLOT, caps.max_wr ? caps.max_wr - 1 : 0);
	n = MIN(n, caps.max_cqe ? (caps.max_cqe - 1) / (RDMA_WRS_PER_SLOT + 1) : 0);
	n = MIN(n, (uint32_t)q->nslots);
	if (n < 2 || caps.max_sge < 3)
		return err_set(err, -EOPNOTSUPP, NULL, NULL,
			"the RDMA device is too small (%u work requests, %u pieces)", caps.max_wr,
			caps.max_sge);
	c->nslots = (uint16_t)n;
	q->depth = (uint16_t)MIN(q->depth, n);
	c->max_sge = MIN(caps.max_sge, (uint32_t)RDMA_SGE_MAX);
	*qp = (struct rd_qp_cfg){.nsend = n * RDMA_WRS_PER_SLOT,
		.nrecv = n + 1,
		.nsge = c->max_sge,
		.ncqe = n * RDMA_WRS_PER_SLOT + n + 1};
	return 0;
}

static int open_windows(struct rdma_conn *c, struct err *err)
{
	for (uint16_t i = 0; i < c->q->nslots && rdma_dev_windows(c->dev); i++) {
		int rc = c->ops->mw_open(rdma_dev_pd(c->dev), &c->slots[i].mw);

		if (rc < 0)
			return err_set(
				err, rc, NULL, NULL, "the RDMA device has no more memory windows");
	}
	return 0;
}

/* What the queue needs of its device, as soon as that is known. */
static int open_resources(struct rdma_conn *c, struct err *err)
{
	struct rd_qp_cfg qp;
	int rc = take_sizes(c, &qp, err);

	if (rc == 0)
		rc = rdma_dev_get(c->ops, c->link, c->q->n->sh, &c->dev, err);
	if (rc < 0)
		return rc;
	rc = c->ops->mr_open(rdma_dev_pd(c->dev), c->ctl, c->ctl_bytes, RD_LOCAL, &c->ctl_mr);
	if (rc < 0)
		return err_set(err, rc, NULL, NULL, "cannot register memory: %s", strerror(-rc));
	rc = open_windows(c, err);
	if (rc < 0)
		return rc;
	rc = c->ops->qp_open(c->link, rdma_dev_pd(c->dev), &qp);
	if (rc < 0)
		return err_set(err, rc, NULL, NULL, "cannot create a queue pair of %u: %s",
			c->nslots, strerror(-rc));
	rc = rdma_recvs_post_all(c, qp.nrecv);
	return rc < 0 ? err_set(err, rc, NULL, NULL, "the device takes no receive requests") : 0;
}

static void on_resolved(void *arg)
{
	struct rdma_conn *c = arg;
	struct nvmf_queue *q = c->q;
	struct nvme_rdma_request rq = {.recfmt = to_le16(NVME_RDMA_RECFMT), .qid = to_le16(q->qid)};
	struct err e = {0};
	int rc;

	if (c->dead)
		return;
	rc = open_resources(c, &e);
	if (rc < 0) {
		rdma_fault(c, rc, e.reason);
		return;
	}
	/* As Connect's sqsize, which is 0's based: one entry more than there are commands at a time. */
	rq.hrqsize = to_le16((uint16_t)(q->depth + 1));
	rq.hsqsize = to_le16(q->depth);
	rq.cntlid = to_le16(q->qid ? q->n->cntlid : 0);
	rc = c->ops->connect(c->link, &rq, sizeof(rq));
	if (rc < 0)
		rdma_fault(c, rc, "cannot connect");
}

static void on_established(void *arg, const void *data, size_t len)
{
	struct rdma_conn *c = arg;
	uint16_t crqsize;

	if (c->dead || c->up)
		return;
	if (nvme_rdma_accept_parse(data, len, &crqsize) < 0) {
		c->q->n->stats.protocol_errors++;
		rdma_fault(c, -EPROTO, "the target accepts with something that is not NVMe/RDMA");
		return;
	}
	if (crqsize)
		c->q->depth = MIN(c->q->depth, crqsize);
	c->up = true;
	nvmf_queue_up(c->q);
}

static void on_rejected(void *arg, const char *what, const void *data, size_t len)
{
	struct rdma_conn *c = arg;
	char text[160];
	uint16_t sts = what ? 0 : nvme_rdma_reject_parse(data, len);

	if (sts)
		snprintf(text, sizeof(text), "the target refused the connection: %s (status %u)",
			nvme_rdma_sts_name(sts), sts);
	else
		snprintf(text, sizeof(text), "the connection was refused: %s",
			what ? what : "no reason given");
	rdma_fault(c, -ECONNREFUSED, text);
}

static void on_down(void *arg, int err, const char *what)
{
	rdma_fault(arg, err, what);
}

static void on_wake(void *arg)
{
	struct rdma_conn *c = arg;

	c->armed = false;
	rdma_poll_start(c);
}

static const struct rd_events events = {
	.resolved_fn = on_resolved,
	.established_fn = on_established,
	.rejected_fn = on_rejected,
	.down_fn = on_down,
	.wake_fn = on_wake,
};

static int rdma_start(struct nvmf_queue *q, struct err *err)
{
	struct rdma_conn *c = q->conn;
	const struct nvmf_cfg *cfg = &q->n->cfg;
	struct rd_link_cfg lc = {.sh = q->n->sh,
		.host = cfg->host,
		.port = cfg->port,
		/* Before the attempt's own end, which knows no reasons. */
		.timeout_ms = cfg->connect_timeout_ms / 4 * 3,
		.ev = &events,
		.arg = c,
		.provider_arg = cfg->rdma_arg};

	c->up = c->dead = c->armed = false;
	c->nchain = c->nrecvs = 0;
	c->queued = c->posted = c->reaped = 0;
	return c->ops->open(&lc, &c->link, err);
}

/* When the link is closed neither device nor peer touches anything. Commands end when the queue is drained. */
static void rdma_stop(struct nvmf_queue *q)
{
	struct rdma_conn *c = q->conn;

	c->dead = true;
	c->up = false;
	poller_del(q->n->sh, &c->poller);
	shard_undefer(q->n->sh, &c->kick_task);
	if (c->link)
		c->ops->disconnect(c->link);
	TAILQ_INIT(&c->waiting);
	for (uint16_t i = 0; i < q->nslots; i++) {
		if (c->slots[i].mw)
			c->ops->mw_close(c->slots[i].mw);
		c->slots[i].mw = NULL;
		c->slots[i].bound = false;
	}
	if (c->link)
		c->ops->close(c->link);
	c->link = NULL;
	if (c->ctl_mr)
		c->ops->mr_close(c->ctl_mr);
	c->ctl_mr = NULL;
	rdma_dev_put(c->dev);
	c->dev = NULL;
}

/* Identify speaks of capsules where the SGL support says that data may lie in them. */
static const char *rdma_capsule_limit(
	const struct nvme_id_ctrl *id, uint32_t *bytes, uint32_t *offset)
{
	uint32_t sgls = from_le32(id->sgls);

	*offset = from_le16(id->icdoff) * 16U;
	*bytes = (sgls & NVME_SGLS_OFFSET) && *offset <= RDMA_PAD_MAX ? nvmf_capsule_room(id) : 0;
	return sgls & NVME_SGLS_KEYED ? NULL : "the controller does not take keyed SGLs";
}

/* Targets take one descriptor per command. */
static uint32_t rdma_max_pieces(const struct nvmf_queue *q)
{
	return 1;
}

const struct nvmf_transport nvmf_rdma = {
	.name = "rdma",
	.capsule = rdma_capsule_limit,
	.conn_open = rdma_conn_open,
	.conn_close = rdma_conn_close,
	.start = rdma_start,
	.stop = rdma_stop,
	.submit = rdma_submit,
	.kick = rdma_kick,
	.max_pieces = rdma_max_pieces,
};
