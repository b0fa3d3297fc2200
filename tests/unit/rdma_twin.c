/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/rdma_twin_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

#define CAPSULE_MAX 16384u

struct rd_pd {
	struct twin *t;
};

struct twin_mr {
	struct rd_mr mr;
	struct rd_pd *pd;
	uint8_t *base;
	size_t len;
	enum rd_access access;
	LIST_ENTRY(twin_mr) link;
};

struct twin_mw {
	struct rd_mw mw;
	struct rd_pd *pd;
	struct rd_link *bound; /* NULL: no access */
	uint32_t key;
	uint64_t addr;
	uint32_t len;
	bool write;
	LIST_ENTRY(twin_mw) link;
};

void twin_violate(struct twin *t, const char *what)
{
	if (!t->violations++)
		t->violation = what;
}

/* Is this the request that is to fail? */
static bool refuses(struct twin *t)
{
	return t->fail_at && !--t->fail_at;
}

/* ---- keys -------------------------------------------------------------------------------------------------------- */

static struct twin_mw *mw_of_key(struct twin *t, uint32_t key)
{
	struct twin_mw *w;

	LIST_FOREACH (w, &t->mws, link)
		if (w->bound && w->key == key)
			return w;
	return NULL;
}

static bool inside(uint64_t addr, uint64_t len, uint64_t base, uint64_t room)
{
	return addr >= base && len <= room && addr - base <= room - len;
}

uint8_t *twin_reach(
	struct twin *t, struct rd_link *l, uint32_t key, uint64_t addr, uint32_t len, bool write)
{
	struct twin_mw *w = mw_of_key(t, key);
	struct twin_mr *m;

	if (w && (!l || w->bound == l) && w->write == write && inside(addr, len, w->addr, w->len))
		return (uint8_t *)(uintptr_t)addr;
	LIST_FOREACH (m, &t->mrs, link)
		if (m->mr.rkey == key && m->access == RD_REMOTE &&
			inside(addr, len, (uintptr_t)m->base, m->len))
			return (uint8_t *)(uintptr_t)addr;
	return NULL;
}

bool twin_reaches(struct twin *t, uint32_t key, uint64_t addr, uint32_t len, bool write)
{
	return twin_reach(t, NULL, key, addr, len, write) != NULL;
}

uint32_t twin_other_key(struct rd_link *l, uint32_t key)
{
	struct twin_mw *w;

	LIST_FOREACH (w, &l->t->mws, link)
		if (w->bound == l && w->key != key)
			return w->key;
	return key;
}

static void unbind(struct twin_mw *w)
{
	if (w->bound)
		w->pd->t->nbound--;
	w->bound = NULL;
}

static bool is_local(struct twin *t, struct rd_pd *pd, const struct rd_sge *s)
{
	struct twin_mr *m;

	LIST_FOREACH (m, &t->mrs, link)
		if (m->mr.lkey == s->lkey)
			return m->pd == pd && inside(s->addr, s->len, (uintptr_t)m->base, m->len);
	return false;
}

/* ---- completions --------------------------------------------------------------------------------------------------- */

static void wake_run(void *arg)
{
	struct rd_link *l = arg;

	l->ev->wake_fn(l->arg);
}

static void complete(struct rd_link *l, struct rd_wc wc)
{
	struct twin *t = l->t;

	if (l->ncq == l->qp.ncqe) {
		twin_violate(t, "completion queue overflows");
		return;
	}
	l->cq[(l->cq_head + l->ncq++) % l->qp.ncqe] = wc;
	if (l->armed)
		shard_defer(t->sh, &l->wake_task, wake_run, l);
	l->armed = false;
}

static void wr_free(struct twin_wr *w)
{
	free(w->copy);
	free(w);
}

static void check_unchanged(struct rd_link *l, const struct twin_wr *w)
{
	const uint8_t *at = w->copy;

	for (int i = 0; i < (w->copy ? w->wr.send.nsge : 0); i++) {
		if (memcmp(at, (const void *)(uintptr_t)w->sge[i].addr, w->sge[i].len) != 0)
			twin_violate(l->t, "a send's buffer changed before it completed");
		at += w->sge[i].len;
	}
}

static void report_due(struct rd_link *l)
{
	struct twin_wr *w;

	while (!l->t->hold_sends && (w = STAILQ_FIRST(&l->due))) {
		STAILQ_REMOVE_HEAD(&l->due, link);
		l->ndue--;
		check_unchanged(l, w);
		if (w->wr.signaled)
			complete(l, (struct rd_wc){.id = w->wr.id});
		wr_free(w);
	}
}

void twin_break(struct rd_link *l)
{
	struct twin_wr *w;

	l->state = L_BROKEN;
	for (int i = 0; i < 2; i++)
		while ((w = STAILQ_FIRST(i ? &l->sq : &l->due))) {
			if (i)
				STAILQ_REMOVE_HEAD(&l->sq, link);
			else
				STAILQ_REMOVE_HEAD(&l->due, link);
			complete(l, (struct rd_wc){
					    .id = w->wr.id, .error = "flushed", .flushed = true});
			wr_free(w);
		}
	l->nsq = l->ndue = 0;
	for (; l->nrq; l->nrq--, l->rq_head++)
		complete(l, (struct rd_wc){.id = l->rq[l->rq_head % l->qp.nrecv].id,
				    .error = "flushed",
				    .flushed = true});
}

static void fail_wr(struct rd_link *l, uint64_t id, const char *error)
{
	complete(l, (struct rd_wc){.id = id, .error = error});
	twin_break(l);
}

void twin_deny(struct rd_link *l)
{
	l->t->denied++;
	twin_break(l);
}

/* ---- responses -------------------------------------------------------------------------------------------------------- */

static void deliver_one(struct rd_link *l, struct twin_msg *m)
{
	struct rd_recv *r = &l->rq[l->rq_head++ % l->qp.nrecv];
	struct twin_mw *w = m->inv ? mw_of_key(l->t, m->key) : NULL;

	l->nrq--;
	if (!is_local(l->t, l->pd, &r->sge)) {
		twin_violate(l->t, "a receive buffer that is not registered");
		return;
	}
	if (m->len > r->sge.len) {
		fail_wr(l, r->id, "local length error");
		return;
	}
	if (m->inv && (!w || w->bound != l)) { /* as hardware: no such key */
		twin_deny(l);
		return;
	}
	memcpy((void *)(uintptr_t)r->sge.addr, m->bytes, m->len);
	if (w)
		unbind(w);
	complete(l,
		(struct rd_wc){
			.id = r->id, .byte_len = m->len, .with_inv = m->inv, .inv_rkey = m->key});
}

static void deliver(struct rd_link *l)
{
	struct twin_msg *m;

	while (l->state == L_UP && (m = STAILQ_FIRST(&l->out))) {
		if (!l->nrq) {
			l->t->rnr++;
			return;
		}
		STAILQ_REMOVE_HEAD(&l->out, link);
		deliver_one(l, m);
		free(m);
	}
}

void twin_respond(
	struct rd_link *l, const void *bytes, uint32_t len, bool inv, uint32_t key, bool hold)
{
	struct twin_msg *m = calloc(1, sizeof(*m));

	if (!m)
		return;
	m->len = MIN(len, (uint32_t)sizeof(m->bytes));
	memcpy(m->bytes, bytes, m->len);
	m->inv = inv;
	m->key = key;
	if (hold)
		STAILQ_INSERT_TAIL(&l->held, m, link);
	else
		STAILQ_INSERT_TAIL(&l->out, m, link);
}

bool twin_send_raw(
	struct twin *t, uint16_t qid, const void *bytes, uint32_t len, bool inv, uint32_t key)
{
	struct rd_link *l;

	LIST_FOREACH (l, &t->links, link)
		if (l->qid == qid && l->state == L_UP) {
			twin_respond(l, bytes, len, inv, key, false);
			deliver(l);
			return true;
		}
	return false;
}

/* ---- the send queue -------------------------------------------------------------------------------------------------------- */

/* What a send takes: its pieces behind one another. */
static bool gather(struct rd_link *l, struct twin_wr *w)
{
	uint32_t at = 0;

	w->copy = malloc(CAPSULE_MAX);
	for (int i = 0; i < w->wr.send.nsge; i++) {
		const struct rd_sge *s = &w->sge[i];

		if (!w->copy || !is_local(l->t, l->pd, s) || s->len > CAPSULE_MAX - at) {
			twin_violate(l->t, "a send of memory that is not registered");
			return false;
		}
		memcpy(w->copy + at, (const void *)(uintptr_t)s->addr, s->len);
		at += s->len;
	}
	w->copy_bytes = at;
	if (at < sizeof(struct nvme_sqe) || w->sge[0].len != sizeof(struct nvme_sqe))
		twin_violate(l->t, "a capsule without a command");
	return at >= sizeof(struct nvme_sqe);
}

static const char *send_error(enum twin_fault f)
{
	switch (f) {
	case TWIN_RETRY_EXCEEDED:
		return "transport retry counter exceeded";
	case TWIN_RNR_EXCEEDED:
		return "RNR retry counter exceeded";
	case TWIN_REMOTE_ACCESS:
		return "remote access error";
	default:
		return NULL;
	}
}

static bool run_send(struct rd_link *l, struct twin_wr *w)
{
	struct twin *t = l->t;
	struct nvme_sqe sqe;
	const char *error = l->qid ? send_error(t->fault) : NULL;

	t->sends++;
	if (!gather(l, w)) {
		fail_wr(l, w->wr.id, "local protection error");
		return false;
	}
	memcpy(&sqe, w->copy, sizeof(sqe));
	if (sqe.opcode != NVME_OPC_FABRICS && l->qid && (error || t->fault == TWIN_FLUSHED)) {
		t->fault = TWIN_NONE;
		if (error)
			fail_wr(l, w->wr.id, error);
		else
			twin_break(l);
		return false;
	}
	twin_take_command(l, w->copy, w->copy_bytes);
	return l->state == L_UP;
}

static bool run_bind(struct rd_link *l, const struct rd_wr *wr)
{
	struct twin *t = l->t;
	struct twin_mw *w = container_of(wr->bind.mw, struct twin_mw, mw);
	struct twin_mr *m = container_of(wr->bind.mr, struct twin_mr, mr);

	t->binds++;
	if (l->qid && t->fault == TWIN_BIND_ERROR) {
		t->fault = TWIN_NONE;
		fail_wr(l, wr->id, "memory window bind error");
		return false;
	}
	if (w->bound || w->pd != l->pd || m->pd != l->pd || m->access != RD_WINDOWS ||
		!inside(wr->bind.addr, wr->bind.len, (uintptr_t)m->base, m->len) || !wr->bind.len ||
		((wr->bind.rkey ^ w->key) & ~0xffU) || wr->bind.rkey == w->key) {
		twin_violate(t, "a bind that hardware refuses");
		fail_wr(l, wr->id, "memory window bind error");
		return false;
	}
	w->bound = l;
	w->key = wr->bind.rkey;
	w->addr = wr->bind.addr;
	w->len = wr->bind.len;
	w->write = wr->bind.write;
	t->nbound++;
	return true;
}

static bool run_invalidate(struct rd_link *l, const struct rd_wr *wr)
{
	struct twin_mw *w = mw_of_key(l->t, wr->invalidate);

	l->t->invalidates++;
	if (l->t->fault == TWIN_INVALIDATE_ERROR) {
		l->t->fault = TWIN_NONE;
		fail_wr(l, wr->id, "local operation error");
		return false;
	}
	if (!w || w->bound != l) {
		twin_violate(l->t, "an invalidate of what is not bound");
		fail_wr(l, wr->id, "local operation error");
		return false;
	}
	unbind(w);
	return true;
}

static bool run_wr(struct rd_link *l, struct twin_wr *w)
{
	switch (w->wr.op) {
	case RD_SEND:
		return run_send(l, w);
	case RD_BIND:
		return run_bind(l, &w->wr);
	case RD_INVALIDATE:
		return run_invalidate(l, &w->wr);
	}
	return false;
}

static void tell_end(struct rd_link *l)
{
	static const struct {
		int err;
		const char *what;
	} ends[] = {
		[TWIN_DISCONNECT] = {-ECONNRESET, "the target closed the connection"},
		[TWIN_DEVICE_GONE] = {-ENODEV, "the RDMA device was removed"},
		[TWIN_ADDRESS_CHANGED] = {-ENETDOWN, "the address of the RDMA device changed"},
	};
	enum twin_fault f = l->fault;

	l->fault = TWIN_NONE;
	if (f)
		l->ev->down_fn(l->arg, ends[f].err, ends[f].what);
}

static void work_run(void *arg)
{
	struct rd_link *l = arg;
	struct twin_wr *w;

	while (l->state == L_UP && (w = STAILQ_FIRST(&l->sq))) {
		STAILQ_REMOVE_HEAD(&l->sq, link);
		l->nsq--;
		if (run_wr(l, w)) {
			STAILQ_INSERT_TAIL(&l->due, w, link);
			l->ndue++;
		} else {
			wr_free(w);
		}
	}
	report_due(l);
	deliver(l);
	tell_end(l);
}

static int twin_post_send(struct rd_link *l, const struct rd_wr *wr, int n)
{
	struct twin *t = l->t;

	if (l->qid && t->fault == TWIN_POST_FAILS) {
		t->fault = TWIN_NONE;
		return -ENOMEM;
	}
	t->doorbells++;
	if (n <= 0 || l->nsq + l->ndue + (uint32_t)n > l->qp.nsend)
		twin_violate(t, "the send queue overflows");
	if (n > 0 && !wr[n - 1].signaled)
		twin_violate(t, "a chain whose end nobody will know");
	for (int i = 0; i < n; i++) {
		struct twin_wr *w = calloc(1, sizeof(*w));

		if (!w)
			return -ENOMEM;
		w->wr = wr[i];
		t->signaled += wr[i].signaled;
		if (wr[i].op == RD_SEND) {
			if (wr[i].send.nsge < 1 || (uint32_t)wr[i].send.nsge > l->qp.nsge)
				twin_violate(t, "a send of too many pieces");
			memcpy(w->sge, wr[i].send.sge,
				(size_t)MIN(wr[i].send.nsge, RDMA_SGE_MAX) * sizeof(w->sge[0]));
		}
		STAILQ_INSERT_TAIL(&l->sq, w, link);
		l->nsq++;
	}
	if (l->state == L_BROKEN)
		twin_break(l);
	shard_defer(t->sh, &l->work_task, work_run, l);
	return 0;
}

static int twin_post_recv(struct rd_link *l, const struct rd_recv *r, int n)
{
	if (refuses(l->t))
		return -ENOMEM;
	for (int i = 0; i < n; i++) {
		if (l->nrq == l->qp.nrecv) {
			twin_violate(l->t, "the receive queue overflows");
			return -ENOMEM;
		}
		l->rq[(l->rq_head + l->nrq++) % l->qp.nrecv] = r[i];
	}
	shard_defer(l->t->sh, &l->work_task, work_run, l);
	return 0;
}

static int twin_poll(struct rd_link *l, struct rd_wc *wc, int max)
{
	int n = 0;

	if (l->qid && l->t->fault == TWIN_POLL_FAILS) {
		l->t->fault = TWIN_NONE;
		return -EIO;
	}
	for (; n < max && l->ncq; n++, l->ncq--)
		wc[n] = l->cq[l->cq_head++ % l->qp.ncqe];
	return n;
}

static int twin_arm(struct rd_link *l)
{
	if (l->qid && l->t->fault == TWIN_ARM_FAILS) {
		l->t->fault = TWIN_NONE;
		return -EIO;
	}
	l->t->arms++;
	if (l->qid && l->t->slip) {
		l->t->slip = false;
		twin_release(l->t);
		work_run(l);
	}
	l->armed = true;
	return 0;
}

/* ---- connections ------------------------------------------------------------------------------------------------------------- */

static void resolved_run(void *arg)
{
	struct rd_link *l = arg;

	if (l->t->fault == TWIN_UNRESOLVED) {
		l->t->fault = TWIN_NONE;
		l->ev->down_fn(l->arg, -EHOSTUNREACH, "no RDMA device leads to this address");
	} else {
		l->ev->resolved_fn(l->arg);
	}
}

static int twin_link_open(const struct rd_link_cfg *cfg, struct rd_link **out, struct err *err)
{
	struct twin *t = cfg->provider_arg;
	struct rd_link *l = refuses(t) ? NULL : calloc(1, sizeof(*l));

	if (!l)
		return err_set(err, -ENOMEM, NULL, NULL, "out of memory");
	l->t = t;
	l->ev = cfg->ev;
	l->arg = cfg->arg;
	STAILQ_INIT(&l->sq);
	STAILQ_INIT(&l->due);
	STAILQ_INIT(&l->out);
	STAILQ_INIT(&l->held);
	LIST_INSERT_HEAD(&t->links, l, link);
	t->nlinks++;
	shard_defer(t->sh, &l->event_task, resolved_run, l);
	*out = l;
	return 0;
}

static void answer_run(void *arg)
{
	struct rd_link *l = arg;
	struct twin *t = l->t;
	enum twin_fault f = t->fault;
	struct nvme_rdma_reject r = {.recfmt = to_le16(0), .sts = to_le16(t->cfg.reject_sts)};
	struct nvme_rdma_accept a = {0};
	uint16_t hsq = from_le16(t->last_request.hsqsize);

	a.crqsize = to_le16((uint16_t)(t->cfg.crqsize ? t->cfg.crqsize : hsq + 1));
	a.recfmt = to_le16(f == TWIN_ACCEPT_FORMAT);
	if (f >= TWIN_REJECT && f <= TWIN_MUTE)
		t->fault = TWIN_NONE;
	if (t->cfg.reject) {
		l->ev->rejected_fn(l->arg, NULL, t->cfg.reject, t->cfg.private_bytes);
		return;
	}
	switch (f) {
	case TWIN_REJECT:
		l->ev->rejected_fn(l->arg, NULL, &r, sizeof(r));
		break;
	case TWIN_REJECT_CM:
		l->ev->rejected_fn(l->arg, "nobody listens", NULL, 0);
		break;
	case TWIN_REJECT_EMPTY:
		l->ev->rejected_fn(l->arg, NULL, NULL, 0);
		break;
	case TWIN_MUTE:
		break;
	default:
		l->state = L_UP;
		if (t->cfg.accept)
			l->ev->established_fn(l->arg, t->cfg.accept, t->cfg.private_bytes);
		else
			l->ev->established_fn(l->arg, &a, f == TWIN_ACCEPT_SHORT ? 3 : sizeof(a));
		break;
	}
}

static int twin_connect(struct rd_link *l, const void *data, size_t len)
{
	struct twin *t = l->t;

	if (len != sizeof(t->last_request) || !l->rq || !l->nrq) {
		twin_violate(
			t, "connects without receive buffers or with private data of a wrong size");
		return -EINVAL;
	}
	if (refuses(t))
		return -EIO;
	memcpy(&t->last_request, data, len);
	l->qid = from_le16(t->last_request.qid);
	l->state = L_CONNECTING;
	t->connects++;
	shard_defer(t->sh, &l->event_task, answer_run, l);
	return 0;
}

static int twin_qp_open(struct rd_link *l, struct rd_pd *pd, const struct rd_qp_cfg *cfg)
{
	l->pd = pd;
	l->qp = *cfg;
	if (refuses(l->t))
		return -ENOMEM;
	l->rq = calloc(cfg->nrecv, sizeof(l->rq[0]));
	l->cq = calloc(cfg->ncqe, sizeof(l->cq[0]));
	return l->rq && l->cq ? 0 : -ENOMEM;
}

static void twin_disconnect(struct rd_link *l)
{
	if (l->cq)
		twin_break(l);
	l->state = L_BROKEN;
}

static void msgs_drop(struct twin_msgs *q)
{
	struct twin_msg *m;

	while ((m = STAILQ_FIRST(q))) {
		STAILQ_REMOVE_HEAD(q, link);
		free(m);
	}
}

static void twin_link_close(struct rd_link *l)
{
	struct twin *t = l->t;
	struct twin_mw *w;

	LIST_FOREACH (w, &t->mws, link)
		if (w->bound == l)
			twin_violate(t, "a queue pair is destroyed under bound windows");
	shard_undefer(t->sh, &l->event_task);
	shard_undefer(t->sh, &l->work_task);
	shard_undefer(t->sh, &l->wake_task);
	msgs_drop(&l->out);
	msgs_drop(&l->held);
	LIST_REMOVE(l, link);
	t->nlinks--;
	free(l->rq);
	free(l->cq);
	free(l);
}

/* ---- the device -------------------------------------------------------------------------------------------------------------------- */

static void twin_caps(const struct rd_link *l, struct rd_caps *out)
{
	const struct twin_cfg *c = &l->t->cfg;

	*out = (struct rd_caps){.max_wr = c->max_wr ? c->max_wr : 16384,
		.max_cqe = c->max_cqe ? c->max_cqe : 65536,
		.max_sge = c->max_sge ? c->max_sge : 32,
		.windows = !c->no_windows};
}

static const void *twin_device(const struct rd_link *l)
{
	return l->t;
}

static int twin_pd_open(struct rd_link *l, struct rd_pd **out)
{
	struct rd_pd *pd = refuses(l->t) ? NULL : calloc(1, sizeof(*pd));

	if (!pd)
		return -ENOMEM;
	pd->t = l->t;
	pd->t->npds++;
	*out = pd;
	return 0;
}

static void twin_pd_close(struct rd_pd *pd)
{
	pd->t->npds--;
	free(pd);
}

static uint32_t new_key(struct twin *t)
{
	return ++t->next_index << 8;
}

static int twin_mr_open(
	struct rd_pd *pd, void *p, size_t len, enum rd_access access, struct rd_mr **out)
{
	struct twin *t = pd->t;
	struct twin_mr *m;

	if ((t->cfg.refuse_regions && access != RD_LOCAL) || refuses(t))
		return -ENOMEM;
	m = calloc(1, sizeof(*m));
	if (!m)
		return -ENOMEM;
	m->pd = pd;
	m->base = p;
	m->len = len;
	m->access = access;
	m->mr.lkey = new_key(t);
	m->mr.rkey = access == RD_REMOTE ? m->mr.lkey : 0;
	LIST_INSERT_HEAD(&t->mrs, m, link);
	t->nmrs++;
	t->mr_opens++;
	*out = &m->mr;
	return 0;
}

static void twin_mr_close(struct rd_mr *mr)
{
	struct twin_mr *m = container_of(mr, struct twin_mr, mr);

	m->pd->t->nmrs--;
	LIST_REMOVE(m, link);
	free(m);
}

static int twin_mw_open(struct rd_pd *pd, struct rd_mw **out)
{
	struct twin *t = pd->t;
	struct twin_mw *w;

	if (t->cfg.no_windows || t->cfg.windows_lie)
		return -EOPNOTSUPP;
	w = refuses(t) ? NULL : calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->pd = pd;
	w->mw.rkey = w->key = new_key(t) | 0xfe; /* soon over the top */
	LIST_INSERT_HEAD(&t->mws, w, link);
	t->nmws++;
	*out = &w->mw;
	return 0;
}

static void twin_mw_close(struct rd_mw *mw)
{
	struct twin_mw *w = container_of(mw, struct twin_mw, mw);

	unbind(w);
	w->pd->t->nmws--;
	LIST_REMOVE(w, link);
	free(w);
}

const struct rd_ops rd_twin = {
	.name = "twin",
	.open = twin_link_open,
	.caps = twin_caps,
	.device = twin_device,
	.pd_open = twin_pd_open,
	.mr_open = twin_mr_open,
	.mw_open = twin_mw_open,
	.qp_open = twin_qp_open,
	.connect = twin_connect,
	.post_recv = twin_post_recv,
	.post_send = twin_post_send,
	.poll = twin_poll,
	.arm = twin_arm,
	.disconnect = twin_disconnect,
	.close = twin_link_close,
	.mw_close = twin_mw_close,
	.mr_close = twin_mr_close,
	.pd_close = twin_pd_close,
};

int twin_open(struct shard *sh, struct twin *t)
{
	memset(t, 0, sizeof(*t));
	t->sh = sh;
	t->mem = calloc(1, TWIN_BYTES);
	return t->mem ? 0 : -ENOMEM;
}

void twin_close(struct twin *t)
{
	free(t->mem);
	t->mem = NULL;
}

void twin_release(struct twin *t)
{
	struct rd_link *l;

	t->hold_sends = t->hold_responses = false;
	LIST_FOREACH (l, &t->links, link) {
		STAILQ_CONCAT(&l->out, &l->held);
		shard_defer(t->sh, &l->work_task, work_run, l);
	}
}
