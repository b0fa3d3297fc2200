/* SPDX-License-Identifier: BSD-3-Clause */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <infiniband/verbs.h>
#include <netdb.h>
#include <rdma/rdma_cma.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "common/base/util.h"
#include "dpu/nvmf/rdma_priv.h"

#define CM_DATA_MAX 256
#define POLL_MAX    32
/* Of the transport: an answer that does not come is asked for this often, and a peer without receive buffers for ever. */
#define RETRIES     7
#define RNR_RETRIES 7
#define CONSUMER    28 /* IB CM reject reason: the peer's program said no */
#define RXE_VENDOR  0xffffff

struct rd_link {
	struct shard *sh;
	const struct rd_events *ev;
	void *arg;
	uint32_t timeout_ms;
	struct rdma_event_channel *channel;
	struct rdma_cm_id *id;
	struct fd_watch cm_watch;
	struct ibv_device_attr attr;
	struct ibv_comp_channel *comp;
	struct ibv_cq *cq;
	struct fd_watch comp_watch;
	unsigned int inv_flag; /* of a completion: the peer has invalidated a key */
	uint32_t nsend, nrecv;
	struct ibv_send_wr *send; /* nsend, to translate a chain into */
	struct ibv_recv_wr *recv;
};

struct rd_pd {
	struct ibv_pd *pd;
};

struct verbs_mr {
	struct rd_mr mr;
	struct ibv_mr *ibv;
};

struct verbs_mw {
	struct rd_mw mw;
	struct ibv_mw *ibv;
};

/* Scatter/gather lists are handed down as they are. */
static_assert(sizeof(struct rd_sge) == sizeof(struct ibv_sge) &&
		      offsetof(struct rd_sge, len) == offsetof(struct ibv_sge, length) &&
		      offsetof(struct rd_sge, lkey) == offsetof(struct ibv_sge, lkey),
	"scatter/gather element");

static int errno_or(int fallback)
{
	return errno ? -errno : -fallback;
}

/* ---- connection manager ------------------------------------------------------------------------------------------- */

static void addr_resolved(struct rd_link *l)
{
	l->inv_flag = IBV_WC_WITH_INV;
	if (ibv_query_device(l->id->verbs, &l->attr))
		l->ev->down_fn(l->arg, -EIO, "the RDMA device does not tell its limits");
	else if (rdma_resolve_route(l->id, (int)l->timeout_ms))
		l->ev->down_fn(l->arg, errno_or(EIO), "cannot resolve a route");
	/* The kernel's software device hands its own flags through to programs, where this bit has another name (and no meaning on
	 * connections). */
	if (l->attr.vendor_id == RXE_VENDOR)
		l->inv_flag |= IBV_WC_IP_CSUM_OK;
}

static const char *reject_text(int reason)
{
	switch (reason) {
	case CONSUMER:
		return NULL;
	case 8: /* invalid service id */
		return "no NVMe/RDMA target listens on this port";
	case 3: /* no resources */
		return "the target has no resources";
	default:
		return "rejected by the connection manager";
	}
}

static void cm_event(
	struct rd_link *l, enum rdma_cm_event_type type, int status, const void *data, size_t len)
{
	const struct rd_events *ev = l->ev;

	switch (type) {
	case RDMA_CM_EVENT_ADDR_RESOLVED:
		addr_resolved(l);
		break;
	case RDMA_CM_EVENT_ROUTE_RESOLVED:
		ev->resolved_fn(l->arg);
		break;
	case RDMA_CM_EVENT_ESTABLISHED:
		ev->established_fn(l->arg, data, len);
		break;
	case RDMA_CM_EVENT_REJECTED:
		ev->rejected_fn(l->arg, reject_text(status), data, len);
		break;
	case RDMA_CM_EVENT_ADDR_ERROR:
		ev->down_fn(l->arg, -EHOSTUNREACH,
			status == -ETIMEDOUT ? "nobody has this address"
					     : "no RDMA device leads to this address");
		break;
	case RDMA_CM_EVENT_ROUTE_ERROR:
		ev->down_fn(l->arg, -EHOSTUNREACH, "no route to this address");
		break;
	case RDMA_CM_EVENT_UNREACHABLE:
		ev->down_fn(l->arg, -EHOSTUNREACH, "the target does not answer");
		break;
	case RDMA_CM_EVENT_CONNECT_ERROR:
		ev->down_fn(l->arg, -ECONNRESET, "the connection could not be established");
		break;
	case RDMA_CM_EVENT_DISCONNECTED:
		ev->down_fn(l->arg, -ECONNRESET, "the target closed the connection");
		break;
	case RDMA_CM_EVENT_ADDR_CHANGE:
		ev->down_fn(l->arg, -ENETDOWN, "the address of the RDMA device changed");
		break;
	case RDMA_CM_EVENT_DEVICE_REMOVAL:
		ev->down_fn(l->arg, -ENODEV, "the RDMA device was removed");
		break;
	default: /* what comes after an end, and of listeners and multicast */
		break;
	}
}

static void cm_ready(void *arg, uint32_t revents)
{
	struct rd_link *l = arg;
	struct rdma_cm_event *e;

	/* Each is acknowledged before it is acted on: destroying an id waits for all that were taken. */
	while (l->id && rdma_get_cm_event(l->channel, &e) == 0) {
		enum rdma_cm_event_type type = e->event;
		int status = e->status;
		uint8_t data[CM_DATA_MAX];
		size_t len = MIN((size_t)e->param.conn.private_data_len, sizeof(data));

		if (!e->param.conn.private_data)
			len = 0;
		memcpy(data, len ? e->param.conn.private_data : data, len);
		rdma_ack_cm_event(e);
		cm_event(l, type, status, data, len);
	}
}

/* Tells the target, which fails where there is none, and puts the queue pair into its error state, which must not. */
static void verbs_disconnect(struct rd_link *l)
{
	struct ibv_qp_attr attr = {.qp_state = IBV_QPS_ERR};

	if (!l->id || !l->id->qp)
		return;
	(void)rdma_disconnect(l->id);
	(void)ibv_modify_qp(l->id->qp, &attr, IBV_QP_STATE);
}

static void verbs_close(struct rd_link *l)
{
	if (l->cm_watch.added)
		fd_watch_del(l->sh, &l->cm_watch);
	if (l->comp_watch.added)
		fd_watch_del(l->sh, &l->comp_watch);
	if (l->id && l->id->qp)
		rdma_destroy_qp(l->id);
	if (l->cq)
		ibv_destroy_cq(l->cq);
	if (l->comp)
		ibv_destroy_comp_channel(l->comp);
	if (l->id)
		rdma_destroy_id(l->id);
	if (l->channel)
		rdma_destroy_event_channel(l->channel);
	free(l->send);
	free(l->recv);
	free(l);
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0 ? -errno : 0;
}

static int begin(struct rd_link *l, struct sockaddr *to, struct err *err)
{
	int rc;

	errno = 0;
	l->channel = rdma_create_event_channel();
	if (!l->channel)
		return err_set(err, errno_or(ENODEV), NULL, NULL,
			"no RDMA device, or the kernel's rdma_ucm is not there");
	rc = set_nonblocking(l->channel->fd);
	if (rc == 0)
		rc = fd_watch_add(l->sh, &l->cm_watch, l->channel->fd, EPOLLIN, cm_ready, l);
	if (rc < 0)
		return err_set(err, rc, NULL, NULL, "cannot watch the connection manager");
	if (rdma_create_id(l->channel, &l->id, l, RDMA_PS_TCP)) {
		l->id = NULL;
		return err_set(err, errno_or(ENOMEM), NULL, NULL, "cannot create a connection");
	}
	if (rdma_resolve_addr(l->id, NULL, to, (int)l->timeout_ms))
		return err_set(err, errno_or(EHOSTUNREACH), NULL, NULL,
			"no RDMA device leads to this address");
	return 0;
}

static int verbs_open(const struct rd_link_cfg *cfg, struct rd_link **out, struct err *err)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV}, *to;
	struct rd_link *l;
	char port[8];
	int rc;

	snprintf(port, sizeof(port), "%u", cfg->port);
	if (getaddrinfo(cfg->host, port, &hints, &to))
		return err_set(err, -EINVAL, cfg->host, NULL, "is not a numeric address");
	l = calloc(1, sizeof(*l));
	if (!l) {
		freeaddrinfo(to);
		return err_set(err, -ENOMEM, cfg->host, NULL, "out of memory");
	}
	l->sh = cfg->sh;
	l->ev = cfg->ev;
	l->arg = cfg->arg;
	l->timeout_ms = cfg->timeout_ms;
	rc = begin(l, to->ai_addr, err);
	freeaddrinfo(to);
	if (rc < 0)
		verbs_close(l);
	else
		*out = l;
	return rc;
}

/* ---- the device's resources ------------------------------------------------------------------------------------------ */

static void verbs_caps(const struct rd_link *l, struct rd_caps *out)
{
	*out = (struct rd_caps){
		.max_wr = (uint32_t)MAX(l->attr.max_qp_wr, 0),
		.max_cqe = (uint32_t)MAX(l->attr.max_cqe, 0),
		.max_sge = (uint32_t)MAX(l->attr.max_sge, 0),
		.windows = l->attr.device_cap_flags & IBV_DEVICE_MEM_WINDOW_TYPE_2B,
	};
}

static const void *verbs_device(const struct rd_link *l)
{
	return l->id->verbs; /* librdmacm opens each device once */
}

static int verbs_pd_open(struct rd_link *l, struct rd_pd **out)
{
	struct rd_pd *pd = calloc(1, sizeof(*pd));

	if (!pd)
		return -ENOMEM;
	errno = 0;
	pd->pd = ibv_alloc_pd(l->id->verbs);
	if (!pd->pd) {
		free(pd);
		return errno_or(ENOMEM);
	}
	*out = pd;
	return 0;
}

static void verbs_pd_close(struct rd_pd *pd)
{
	ibv_dealloc_pd(pd->pd);
	free(pd);
}

static int verbs_mr_open(
	struct rd_pd *pd, void *p, size_t len, enum rd_access access, struct rd_mr **out)
{
	static const int flags[] = {
		[RD_LOCAL] = IBV_ACCESS_LOCAL_WRITE,
		[RD_WINDOWS] = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_MW_BIND,
		[RD_REMOTE] = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
			      IBV_ACCESS_REMOTE_WRITE,
	};
	struct verbs_mr *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	errno = 0;
	m->ibv = ibv_reg_mr(pd->pd, p, len, flags[access]);
	if (!m->ibv) {
		free(m);
		return errno_or(ENOMEM);
	}
	m->mr.lkey = m->ibv->lkey;
	m->mr.rkey = m->ibv->rkey;
	*out = &m->mr;
	return 0;
}

static void verbs_mr_close(struct rd_mr *mr)
{
	struct verbs_mr *m = container_of(mr, struct verbs_mr, mr);

	ibv_dereg_mr(m->ibv);
	free(m);
}

static int verbs_mw_open(struct rd_pd *pd, struct rd_mw **out)
{
	struct verbs_mw *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	errno = 0;
	m->ibv = ibv_alloc_mw(pd->pd, IBV_MW_TYPE_2);
	if (!m->ibv) {
		free(m);
		return errno_or(EOPNOTSUPP);
	}
	m->mw.rkey = m->ibv->rkey;
	*out = &m->mw;
	return 0;
}

static void verbs_mw_close(struct rd_mw *mw)
{
	struct verbs_mw *m = container_of(mw, struct verbs_mw, mw);

	ibv_dealloc_mw(m->ibv);
	free(m);
}

static void comp_ready(void *arg, uint32_t revents)
{
	struct rd_link *l = arg;
	struct ibv_cq *cq;
	void *ctx;
	unsigned int n = 0;

	while (ibv_get_cq_event(l->comp, &cq, &ctx) == 0)
		n++;
	if (!n)
		return;
	ibv_ack_cq_events(l->cq, n);
	l->ev->wake_fn(l->arg);
}

static int cq_open(struct rd_link *l, uint32_t ncqe)
{
	int rc;

	errno = 0;
	l->comp = ibv_create_comp_channel(l->id->verbs);
	if (!l->comp)
		return errno_or(ENOMEM);
	rc = set_nonblocking(l->comp->fd);
	if (rc == 0)
		rc = fd_watch_add(l->sh, &l->comp_watch, l->comp->fd, EPOLLIN, comp_ready, l);
	if (rc < 0)
		return rc;
	l->cq = ibv_create_cq(l->id->verbs, (int)ncqe, l, l->comp, 0);
	return l->cq ? 0 : errno_or(ENOMEM);
}

static int verbs_qp_open(struct rd_link *l, struct rd_pd *pd, const struct rd_qp_cfg *cfg)
{
	struct ibv_qp_init_attr attr = {
		.cap = {.max_send_wr = cfg->nsend,
			.max_recv_wr = cfg->nrecv,
			.max_send_sge = cfg->nsge,
			.max_recv_sge = 1},
		.qp_type = IBV_QPT_RC,
	};
	int rc = cq_open(l, cfg->ncqe);

	if (rc < 0)
		return rc;
	l->nsend = cfg->nsend;
	l->nrecv = cfg->nrecv;
	l->send = calloc(cfg->nsend, sizeof(l->send[0]));
	l->recv = calloc(cfg->nrecv, sizeof(l->recv[0]));
	if (!l->send || !l->recv)
		return -ENOMEM;
	attr.send_cq = attr.recv_cq = l->cq;
	errno = 0;
	return rdma_create_qp(l->id, pd->pd, &attr) ? errno_or(EIO) : 0;
}

static int verbs_connect(struct rd_link *l, const void *data, size_t len)
{
	/* We issue no RDMA reads; the target may have as many on us as the device serves. */
	struct rdma_conn_param p = {
		.private_data = data,
		.private_data_len = (uint8_t)len,
		.responder_resources = (uint8_t)MAX(1, MIN(l->attr.max_qp_rd_atom, UINT8_MAX)),
		.flow_control = 1,
		.retry_count = RETRIES,
		.rnr_retry_count = RNR_RETRIES,
	};

	errno = 0;
	return rdma_connect(l->id, &p) ? errno_or(EIO) : 0;
}

/* ---- work ------------------------------------------------------------------------------------------------------------- */

static int verbs_post_recv(struct rd_link *l, const struct rd_recv *r, int n)
{
	struct ibv_recv_wr *bad;

	if (n < 0 || (uint32_t)n > l->nrecv)
		return -EINVAL;
	for (int i = 0; i < n; i++)
		l->recv[i] = (struct ibv_recv_wr){
			.wr_id = r[i].id,
			.next = i + 1 < n ? &l->recv[i + 1] : NULL,
			.sg_list = (struct ibv_sge *)(uintptr_t)&r[i].sge,
			.num_sge = 1,
		};
	return n ? -ibv_post_recv(l->id->qp, l->recv, &bad) : 0;
}

static void translate(const struct rd_wr *wr, struct ibv_send_wr *out)
{
	*out = (struct ibv_send_wr){
		.wr_id = wr->id, .send_flags = wr->signaled ? IBV_SEND_SIGNALED : 0};
	switch (wr->op) {
	case RD_SEND:
		out->opcode = IBV_WR_SEND;
		out->sg_list = (struct ibv_sge *)(void *)wr->send.sge;
		out->num_sge = wr->send.nsge;
		break;
	case RD_BIND:
		out->opcode = IBV_WR_BIND_MW;
		out->bind_mw.mw = container_of(wr->bind.mw, struct verbs_mw, mw)->ibv;
		out->bind_mw.rkey = wr->bind.rkey;
		out->bind_mw.bind_info.mr = container_of(wr->bind.mr, struct verbs_mr, mr)->ibv;
		out->bind_mw.bind_info.addr = wr->bind.addr;
		out->bind_mw.bind_info.length = wr->bind.len;
		out->bind_mw.bind_info.mw_access_flags = wr->bind.write ? IBV_ACCESS_REMOTE_WRITE
									: IBV_ACCESS_REMOTE_READ;
		break;
	case RD_INVALIDATE:
		out->opcode = IBV_WR_LOCAL_INV;
		out->invalidate_rkey = wr->invalidate;
		break;
	}
}

static int verbs_post_send(struct rd_link *l, const struct rd_wr *wr, int n)
{
	struct ibv_send_wr *bad;
	int rc;

	if (n <= 0 || (uint32_t)n > l->nsend)
		return -EINVAL;
	for (int i = 0; i < n; i++) {
		translate(&wr[i], &l->send[i]);
		l->send[i].next = i + 1 < n ? &l->send[i + 1] : NULL;
	}
	rc = -ibv_post_send(l->id->qp, l->send, &bad);
	/* A provider finds the window by the key it has at the time; keeping that up to date is the program's part. */
	for (int i = 0; i < n; i++)
		if (wr[i].op == RD_BIND)
			container_of(wr[i].bind.mw, struct verbs_mw, mw)->ibv->rkey = wr[i].bind
											      .rkey;
	return rc;
}

static int verbs_poll(struct rd_link *l, struct rd_wc *wc, int max)
{
	struct ibv_wc w[POLL_MAX];
	int n = ibv_poll_cq(l->cq, MIN(max, POLL_MAX), w);

	for (int i = 0; i < n; i++)
		wc[i] = (struct rd_wc){
			.id = w[i].wr_id,
			.error = w[i].status == IBV_WC_SUCCESS ? NULL
							       : ibv_wc_status_str(w[i].status),
			.flushed = w[i].status == IBV_WC_WR_FLUSH_ERR,
			.byte_len = w[i].byte_len,
			.with_inv = w[i].wc_flags & l->inv_flag,
			.inv_rkey = w[i].invalidated_rkey,
		};
	return n < 0 ? -EIO : n;
}

static int verbs_arm(struct rd_link *l)
{
	return -ibv_req_notify_cq(l->cq, 0);
}

const struct rd_ops rd_verbs = {
	.name = "verbs",
	.open = verbs_open,
	.caps = verbs_caps,
	.device = verbs_device,
	.pd_open = verbs_pd_open,
	.mr_open = verbs_mr_open,
	.mw_open = verbs_mw_open,
	.qp_open = verbs_qp_open,
	.connect = verbs_connect,
	.post_recv = verbs_post_recv,
	.post_send = verbs_post_send,
	.poll = verbs_poll,
	.arm = verbs_arm,
	.disconnect = verbs_disconnect,
	.close = verbs_close,
	.mw_close = verbs_mw_close,
	.mr_close = verbs_mr_close,
	.pd_close = verbs_pd_close,
};
