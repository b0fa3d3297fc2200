/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/stream_shim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

#define PIECE_MAX 1460u
#define SEND_MAX  9000u

struct shim {
	struct stream st;
	struct stream *in;
	uint8_t piece[PIECE_MAX];
	uint32_t at, end;
	bool eof, sending;
	uint8_t out[SEND_MAX];
	struct iovec out_iov;
	struct stream_tx out_tx;
	struct task again;
};

struct shim_listener {
	struct stream_listener l;
	struct stream_listener *in;
};

static struct shim *shim_of(struct stream *s)
{
	return container_of(s, struct shim, st);
}

static void again(void *arg)
{
	struct shim *k = arg;

	if (k->at < k->end || k->eof)
		stream_readable(&k->st);
}

static void in_readable(struct stream *in, void *arg)
{
	struct shim *k = arg;

	stream_readable(&k->st);
}

static void in_closed(struct stream *in, void *arg, int err)
{
	struct shim *k = arg;

	stream_died(&k->st, err);
}

static const struct stream_events in_events = {in_readable, in_closed};

static ssize_t shim_borrow(struct stream *s, const void **p)
{
	struct shim *k = shim_of(s);
	struct iovec iov = {k->piece, 1 + shard_random(s->sh) % PIECE_MAX};
	ssize_t n;

	if (k->at == k->end) {
		n = stream_recv(k->in, &iov, 1);
		k->eof = n == 0;
		if (n <= 0)
			return n;
		stream_count_rx(s, (size_t)n);
		k->at = 0;
		k->end = (uint32_t)n;
	}
	*p = k->piece + k->at;
	return k->end - k->at;
}

static void shim_consume(struct stream *s, size_t len_bytes)
{
	struct shim *k = shim_of(s);

	k->at += (uint32_t)len_bytes;
	/* The inner stream may have nothing more to tell of what is left here. */
	if (k->at < k->end && !s->paused)
		shard_defer(s->sh, &k->again, again, k);
}

static ssize_t shim_recv(struct stream *s, const struct iovec *iov, int niov)
{
	const void *p;
	ssize_t n = shim_borrow(s, &p);

	if (n <= 0)
		return n;
	n = MIN(n, (ssize_t)iov[0].iov_len);
	memcpy(iov[0].iov_base, p, (size_t)n);
	shim_consume(s, (size_t)n);
	return n;
}

static void shim_set_reading(struct stream *s, bool on)
{
	struct shim *k = shim_of(s);

	if (!on) {
		stream_pause(k->in);
		return;
	}
	stream_resume(k->in);
	if (k->at < k->end)
		shard_defer(s->sh, &k->again, again, k);
}

static void out_sent(struct stream_tx *tx, int status)
{
	struct shim *k = tx->arg;

	k->sending = false;
	if (status < 0)
		return;
	stream_hold(&k->st);
	stream_tx_advance(&k->st, k->out_iov.iov_len);
	stream_push(&k->st);
	stream_drop(&k->st);
}

static void shim_push(struct stream *s)
{
	struct shim *k = shim_of(s);
	struct iovec iov[8];
	int n = k->sending ? 0 : stream_tx_gather(s, NULL, iov, 8);
	size_t len = 0, max = 1 + shard_random(s->sh) % SEND_MAX;

	for (int i = 0; i < n && len < max; i++) {
		size_t part = MIN(iov[i].iov_len, max - len);

		memcpy(k->out + len, iov[i].iov_base, part);
		len += part;
	}
	if (len) {
		k->out_iov = (struct iovec){k->out, len};
		k->out_tx = (struct stream_tx){
			.iov = &k->out_iov, .niov = 1, .done_fn = out_sent, .arg = k};
		k->sending = stream_send(k->in, &k->out_tx) == 0;
	} else if (s->shut && !k->sending && STAILQ_EMPTY(&s->txq)) {
		(void)stream_shutdown(k->in);
	}
}

static void shim_detach(struct stream *s, bool reset)
{
	struct shim *k = shim_of(s);

	shard_undefer(s->sh, &k->again);
	if (reset)
		stream_abort(k->in);
	else
		stream_close(k->in);
}

static void shim_destroy(struct stream *s)
{
	free(shim_of(s));
}

static const struct stream_ops shim_ops = {
	.name = "shim",
	.recv = shim_recv,
	.borrow = shim_borrow,
	.consume = shim_consume,
	.set_reading = shim_set_reading,
	.push = shim_push,
	.detach = shim_detach,
	.destroy = shim_destroy,
};

static int in_accepted(struct stream_listener *in, void *arg, struct stream *s)
{
	struct shim_listener *kl = arg;
	struct shim *k = calloc(1, sizeof(*k));

	if (!k)
		return -ENOMEM;
	stream_init(&k->st, &shim_ops, s->sh);
	k->in = s;
	k->st.peer = s->peer;
	k->st.local = s->local;
	stream_set_events(s, &in_events, k);
	/* Where it is refused the inner stream has been given up by detach: that is this callee's business, not an error. */
	(void)stream_accepted(&kl->l, &k->st);
	return 0;
}

static struct shim_listener *listener_of(struct stream_listener *l)
{
	return container_of(l, struct shim_listener, l);
}

static int shim_start(struct stream_listener *l)
{
	return stream_listener_start(listener_of(l)->in, in_accepted, listener_of(l));
}

static void shim_stop(struct stream_listener *l)
{
	stream_listener_close(listener_of(l)->in);
}

static void shim_listener_destroy(struct stream_listener *l)
{
	free(listener_of(l));
}

static const struct stream_listener_ops shim_listener_ops = {
	shim_start, shim_stop, shim_listener_destroy};

int shim_listen(struct shard *sh, struct stream_listener *inner, struct stream_listener **out)
{
	struct shim_listener *kl = calloc(1, sizeof(*kl));

	if (!kl)
		return -ENOMEM;
	stream_listener_init(&kl->l, &shim_listener_ops, sh);
	kl->in = inner;
	kl->l.addr = *stream_listener_addr(inner);
	*out = &kl->l;
	return 0;
}
