/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/net/stream.h"

#include <errno.h>
#include <string.h>

/* ---- lifetime ----------------------------------------------------------------------------------- */
void stream_listener_hold(struct stream_listener *l)
{
	l->refs++;
}

void stream_listener_drop(struct stream_listener *l)
{
	if (--l->refs == 0)
		l->ops->destroy(l);
}

void stream_hold(struct stream *s)
{
	s->refs++;
}

void stream_drop(struct stream *s)
{
	struct stream_listener *l = s->listener;

	if (--s->refs)
		return;
	s->ops->destroy(s);
	if (l)
		stream_listener_drop(l);
}

/* Ends every queued transmission. The owner may queue nothing more: the stream is dead or given up. */
static void fail_queue(struct stream *s, int err)
{
	struct stream_tx *tx;

	s->unsent_bytes = 0;
	STAILQ_CONCAT(&s->heldq, &s->txq);
	while ((tx = STAILQ_FIRST(&s->heldq))) {
		STAILQ_REMOVE_HEAD(&s->heldq, link);
		tx->done_fn(tx, err);
	}
}

static void let_go(struct stream *s)
{
	if (s->ops->let_go)
		s->ops->let_go(s);
}

static void give_up(struct stream *s, bool reset)
{
	bool torn = !STAILQ_EMPTY(&s->txq) || !STAILQ_EMPTY(&s->heldq);

	if (s->given_up)
		return;
	stream_hold(s);
	s->given_up = true;
	shard_undefer(s->sh, &s->push_task);
	/* An orderly end would present the peer with a torn message when something is unsent. */
	let_go(s);
	s->ops->detach(s, reset || torn);
	fail_queue(s, -ECANCELED);
	if (s->listener) {
		s->listener->nconns--;
		s->listener->counters.closed++;
	}
	stream_drop(s); /* the frame's */
	stream_drop(s); /* the owner's */
}

void stream_close(struct stream *s)
{
	give_up(s, false);
}

void stream_abort(struct stream *s)
{
	give_up(s, true);
}

/* ---- the owner's side ---------------------------------------------------------------------------- */
void stream_set_events(struct stream *s, const struct stream_events *ev, void *arg)
{
	s->ev = ev;
	s->arg = arg;
}

void stream_count_into(struct stream *s, struct stream_counters *c)
{
	s->counters = c;
}

const struct stream_addr *stream_peer(const struct stream *s)
{
	return &s->peer;
}

const struct stream_addr *stream_local(const struct stream *s)
{
	return &s->local;
}

ssize_t stream_recv(struct stream *s, const struct iovec *iov, int niov)
{
	if (s->dead || s->given_up)
		return -ENOTCONN;
	return s->ops->recv(s, iov, niov);
}

ssize_t stream_borrow(struct stream *s, const void **p)
{
	if (s->dead || s->given_up)
		return -ENOTCONN;
	return s->ops->borrow ? s->ops->borrow(s, p) : -ENOTSUP;
}

void stream_consume(struct stream *s, size_t len_bytes)
{
	if (!s->dead && !s->given_up && len_bytes && s->ops->consume)
		s->ops->consume(s, len_bytes);
}

void stream_pause(struct stream *s)
{
	if (s->paused || s->dead || s->given_up)
		return;
	s->paused = true;
	s->ops->set_reading(s, false);
}

void stream_resume(struct stream *s)
{
	if (!s->paused || s->dead || s->given_up)
		return;
	s->paused = false;
	s->ops->set_reading(s, true);
}

static void push_task_run(void *arg)
{
	stream_push(arg);
}

int stream_send(struct stream *s, struct stream_tx *tx)
{
	if (s->dead || s->given_up || s->shut)
		return -EPIPE;
	if (tx->niov < 1 || !tx->iov || !tx->done_fn)
		return -EINVAL;
	tx->len_bytes = 0;
	for (int i = 0; i < tx->niov; i++)
		tx->len_bytes += tx->iov[i].iov_len;
	s->unsent_bytes += tx->len_bytes;
	tx->at_iov = 0;
	tx->at_off = 0;
	tx->held = false;
	STAILQ_INSERT_TAIL(&s->txq, tx, link);
	shard_defer(s->sh, &s->push_task, push_task_run, s);
	return 0;
}

size_t stream_unsent(const struct stream *s)
{
	return s->unsent_bytes;
}

int stream_shutdown(struct stream *s)
{
	if (s->dead || s->given_up)
		return -EPIPE;
	s->shut = true;
	shard_defer(s->sh, &s->push_task, push_task_run, s);
	return 0;
}

/* ---- listeners ------------------------------------------------------------------------------------- */
int stream_listener_start(struct stream_listener *l, stream_accept_fn accept_fn, void *arg)
{
	int rc;

	if (l->started)
		return -EALREADY;
	l->accept_fn = accept_fn;
	l->arg = arg;
	rc = l->ops->start(l);
	l->started = rc == 0;
	return rc;
}

void stream_listener_close(struct stream_listener *l)
{
	if (l->closed)
		return;
	l->closed = true;
	l->ops->stop(l);
	stream_listener_drop(l);
}

const struct stream_addr *stream_listener_addr(const struct stream_listener *l)
{
	return &l->addr;
}

const struct stream_listener_counters *stream_listener_counters(const struct stream_listener *l)
{
	return &l->counters;
}

uint32_t stream_listener_nconns(const struct stream_listener *l)
{
	return l->nconns;
}

/* ---- for providers ----------------------------------------------------------------------------------- */
void stream_init(struct stream *s, const struct stream_ops *ops, struct shard *sh)
{
	s->ops = ops;
	s->sh = sh;
	s->refs = 1;
	STAILQ_INIT(&s->txq);
	STAILQ_INIT(&s->heldq);
}

void stream_listener_init(
	struct stream_listener *l, const struct stream_listener_ops *ops, struct shard *sh)
{
	l->ops = ops;
	l->sh = sh;
	l->refs = 1;
}

int stream_accepted(struct stream_listener *l, struct stream *s)
{
	int rc;

	if (l->closed || (l->max_conns && l->nconns >= l->max_conns)) {
		l->counters.refused_cap += !l->closed;
		s->given_up = true;
		s->ops->detach(s, true);
		stream_drop(s);
		return -ECONNREFUSED;
	}
	s->listener = l;
	stream_listener_hold(l);
	l->nconns++;
	l->counters.accepted++;
	stream_hold(s);
	rc = l->accept_fn(l, l->arg, s);
	if (rc < 0 && !s->given_up) {
		l->counters.refused_owner++;
		give_up(s, true);
	}
	stream_drop(s);
	return rc < 0 ? rc : 0;
}

void stream_readable(struct stream *s)
{
	if (s->paused || s->dead || s->given_up)
		return;
	stream_hold(s);
	s->ev->readable_fn(s, s->arg);
	stream_drop(s);
}

void stream_push(struct stream *s)
{
	if (s->dead || s->given_up)
		return;
	stream_hold(s);
	if (s->failed)
		stream_died(s, s->failed);
	else
		s->ops->push(s);
	stream_drop(s);
}

void stream_fail_later(struct stream *s, int err)
{
	if (s->dead || s->given_up)
		return;
	s->failed = err;
	shard_defer(s->sh, &s->push_task, push_task_run, s);
}

void stream_died(struct stream *s, int err)
{
	if (s->dead || s->given_up)
		return;
	stream_hold(s);
	s->dead = true;
	shard_undefer(s->sh, &s->push_task);
	if (s->listener)
		s->listener->counters.died++;
	s->ops->set_reading(s, false);
	let_go(s);
	fail_queue(s, err);
	if (!s->given_up)
		s->ev->closed_fn(s, s->arg, err);
	stream_drop(s);
}

int stream_tx_gather(struct stream *s, const struct stream_tx *end, struct iovec *iov, int max)
{
	struct stream_tx *tx;
	int n = 0;

	STAILQ_FOREACH (tx, &s->txq, link) {
		size_t off = tx->at_off;

		if (tx == end)
			break;
		for (int i = tx->at_iov; i < tx->niov && n < max; i++, off = 0) {
			if (tx->iov[i].iov_len == off)
				continue;
			iov[n].iov_base = (char *)tx->iov[i].iov_base + off;
			iov[n++].iov_len = tx->iov[i].iov_len - off;
		}
		if (n == max)
			break;
	}
	return n;
}

/* Moves tx past what has been taken of it; returns the bytes left over for the next one, sets *all. */
static size_t tx_take(struct stream_tx *tx, size_t len, bool *all)
{
	while (tx->at_iov < tx->niov) {
		size_t rest = tx->iov[tx->at_iov].iov_len - tx->at_off;

		if (rest > len) {
			tx->at_off += len;
			*all = false;
			return 0;
		}
		len -= rest;
		tx->at_iov++;
		tx->at_off = 0;
	}
	*all = true;
	return len;
}

static void advance(struct stream *s, size_t len_bytes, bool hold, uint32_t hold_id)
{
	struct stream_tx *tx;
	bool all;

	s->unsent_bytes -= len_bytes;
	if (s->listener)
		s->listener->counters.tx_bytes += len_bytes;
	while ((tx = STAILQ_FIRST(&s->txq))) {
		if (hold && len_bytes) {
			tx->held = true;
			tx->hold_id = hold_id;
		}
		len_bytes = tx_take(tx, len_bytes, &all);
		if (!all)
			break;
		STAILQ_REMOVE_HEAD(&s->txq, link);
		if (tx->held)
			STAILQ_INSERT_TAIL(&s->heldq, tx, link);
		else
			tx->done_fn(tx, 0);
		if (s->given_up)
			break;
	}
}

void stream_tx_advance(struct stream *s, size_t len_bytes)
{
	advance(s, len_bytes, false, 0);
}

void stream_tx_advance_held(struct stream *s, size_t len_bytes, uint32_t hold_id)
{
	advance(s, len_bytes, true, hold_id);
}

void stream_tx_release(struct stream *s, uint32_t next_id)
{
	struct stream_tx *tx;

	while ((tx = STAILQ_FIRST(&s->heldq)) && (int32_t)(tx->hold_id - next_id) < 0) {
		STAILQ_REMOVE_HEAD(&s->heldq, link);
		tx->done_fn(tx, 0);
		if (s->given_up || s->dead)
			break;
	}
}

void stream_count_rx(struct stream *s, size_t len_bytes)
{
	if (s->listener)
		s->listener->counters.rx_bytes += len_bytes;
}
