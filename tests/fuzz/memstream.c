/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/fuzz/memstream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

#define ROUNDS_MAX 64

static struct memstream *of(struct stream *s)
{
	return container_of(s, struct memstream, st);
}

static ssize_t ms_recv(struct stream *s, const struct iovec *iov, int niov)
{
	struct memstream *ms = of(s);
	size_t sum = 0;

	for (int i = 0; i < niov; i++) {
		size_t n = MIN(iov[i].iov_len, ms->in_len - ms->in_at);

		if (n)
			memcpy(iov[i].iov_base, ms->in + ms->in_at, n);
		ms->in_at += n;
		sum += n;
	}
	stream_count_rx(s, sum);
	return sum ? (ssize_t)sum : ms->ended ? 0 : -EAGAIN;
}

static void ms_set_reading(struct stream *s, bool on)
{
}

static void ms_push(struct stream *s)
{
	struct memstream *ms = of(s);
	struct iovec iov[16];
	int n;

	while (!ms->hold && !s->given_up && !s->dead && !STAILQ_EMPTY(&s->txq)) {
		size_t sum = 0;

		n = stream_tx_gather(s, NULL, iov, 16);
		for (int i = 0; i < n; i++) {
			size_t take = MIN(iov[i].iov_len, sizeof(ms->out) - ms->out_len);

			memcpy(ms->out + ms->out_len, iov[i].iov_base, take);
			ms->out_len += take;
			sum += iov[i].iov_len;
		}
		stream_tx_advance(s, sum);
	}
}

static void ms_detach(struct stream *s, bool reset)
{
	of(s)->detached = true;
}

static void ms_destroy(struct stream *s)
{
	free(of(s));
}

static const struct stream_ops ops = {
	.name = "memory",
	.recv = ms_recv,
	.set_reading = ms_set_reading,
	.push = ms_push,
	.detach = ms_detach,
	.destroy = ms_destroy,
};

static int l_start(struct stream_listener *l)
{
	return 0;
}

static void l_stop(struct stream_listener *l)
{
}

static void l_destroy(struct stream_listener *l)
{
	free(l);
}

static const struct stream_listener_ops listener_ops = {l_start, l_stop, l_destroy};

int memstream_listen(struct shard *sh, struct stream_listener **out)
{
	struct stream_listener *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	stream_listener_init(l, &listener_ops, sh);
	memcpy(l->addr.addr, "127.0.0.1", 10);
	l->addr.port = 4420;
	*out = l;
	return 0;
}

static struct memstream *make(struct shard *sh)
{
	struct memstream *ms = malloc(sizeof(*ms));

	if (!ms)
		return NULL;
	memset(&ms->st, 0, sizeof(ms->st));
	ms->in_at = ms->in_len = ms->out_len = 0;
	ms->ended = ms->hold = ms->detached = false;
	stream_init(&ms->st, &ops, sh);
	stream_hold(&ms->st); /* the test's */
	return ms;
}

struct memstream *memstream_connect(struct stream_listener *l)
{
	struct memstream *ms = make(l->sh);

	if (ms && stream_accepted(l, &ms->st) < 0) {
		memstream_drop(ms);
		return NULL;
	}
	return ms;
}

struct memstream *memstream_open(struct shard *sh, const struct stream_events *ev, void *arg)
{
	struct memstream *ms = make(sh);

	if (ms)
		stream_set_events(&ms->st, ev, arg);
	return ms;
}

void memstream_drop(struct memstream *ms)
{
	stream_drop(&ms->st);
}

void memstream_put(struct memstream *ms, const void *p, size_t len)
{
	if (ms->in_at) {
		memmove(ms->in, ms->in + ms->in_at, ms->in_len - ms->in_at);
		ms->in_len -= ms->in_at;
		ms->in_at = 0;
	}
	len = MIN(len, sizeof(ms->in) - ms->in_len);
	memcpy(ms->in + ms->in_len, p, len);
	ms->in_len += len;
}

void memstream_pump(struct memstream *ms)
{
	for (int i = 0; i < ROUNDS_MAX; i++) {
		size_t before = ms->in_at;
		bool did = false;

		if (!memstream_gone(ms) && (ms->in_at < ms->in_len || ms->ended))
			stream_readable(&ms->st);
		did = ms->in_at != before;
		if (!memstream_gone(ms) && !ms->hold && !STAILQ_EMPTY(&ms->st.txq))
			stream_push(&ms->st);
		if (!shard_run_once(ms->st.sh) && !did)
			return;
	}
}

void memstream_taken(struct memstream *ms, size_t len)
{
	memmove(ms->out, ms->out + len, ms->out_len - len);
	ms->out_len -= len;
}
