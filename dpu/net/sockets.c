/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/net/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/core/io.h"

#define DEFAULT_CONNS   256
#define DEFAULT_BACKLOG 64
#define ACCEPT_BATCH    16
/* One writev gathers this much at most; the rest follows at once while the socket takes it. */
#define WRITE_IOVS 256
/* When descriptors have run out, accepting is tried again after this long. */
#define ACCEPT_RETRY_NS 100000000ULL

struct sock {
	struct stream st;
	int fd;
	struct fd_watch watch;
	bool reading;
	bool connecting; /* outgoing, not established yet */
	bool blocked; /* the kernel takes no more for now */
	bool eof, hung_up, fin_sent;
};

struct sock_listener {
	struct stream_listener l;
	int fd;
	struct fd_watch watch;
	struct timer retry;
};

static struct sock *sock_of(struct stream *s)
{
	return container_of(s, struct sock, st);
}

/* ---- a connection ---------------------------------------------------------------------------------- */
static void sock_ready(void *arg, uint32_t events);

/* Events follow from the state: reading, and a send (or a connect) that waits for room. With neither epoll still tells of
 * errors; after a hang-up, which it would tell for ever, the socket is not watched at all. */
static int sock_watch(struct sock *k)
{
	bool in = k->reading && !k->eof && !k->connecting;
	uint32_t want = (in ? EPOLLIN : 0) | (k->blocked || k->connecting ? EPOLLOUT : 0);
	int rc = 0;

	if (k->st.dead || (!want && k->hung_up)) {
		if (k->watch.added)
			fd_watch_del(k->st.sh, &k->watch);
	} else if (!k->watch.added) {
		rc = fd_watch_add(k->st.sh, &k->watch, k->fd, want, sock_ready, k);
	} else if (want != k->watch.events) {
		rc = fd_watch_set(k->st.sh, &k->watch, want);
	}
	return rc;
}

static void sock_rewatch(struct sock *k)
{
	int rc = sock_watch(k);

	if (rc < 0)
		stream_fail_later(&k->st, rc);
}

static ssize_t sock_recv(struct stream *s, const struct iovec *iov, int niov)
{
	struct sock *k = sock_of(s);
	ssize_t n;

	do
		n = readv(k->fd, iov, niov);
	while (n < 0 && errno == EINTR);
	if (n < 0 && (errno == EWOULDBLOCK || k->connecting))
		return -EAGAIN;
	if (n < 0) {
		n = -errno;
		stream_fail_later(s, (int)n);
		return n;
	}
	if (n == 0 && io_iov_bytes(iov, (size_t)niov)) {
		k->eof = true;
		sock_rewatch(k);
	}
	stream_count_rx(s, (size_t)n);
	return n;
}

static void sock_set_reading(struct stream *s, bool on)
{
	struct sock *k = sock_of(s);

	k->reading = on;
	sock_rewatch(k);
}

/* Ends our side once the queue is empty. */
static void sock_fin(struct sock *k)
{
	struct stream *s = &k->st;

	if (!s->shut || k->fin_sent || !STAILQ_EMPTY(&s->txq))
		return;
	k->fin_sent = true;
	if (shutdown(k->fd, SHUT_WR) < 0)
		stream_died(s, -errno);
}

static void sock_push(struct stream *s)
{
	struct sock *k = sock_of(s);
	struct iovec iov[WRITE_IOVS];

	if (k->connecting || k->blocked)
		return;
	while (!STAILQ_EMPTY(&s->txq)) {
		struct msghdr m = {.msg_iov = iov};
		ssize_t n;

		m.msg_iovlen = (size_t)stream_tx_gather(s, iov, WRITE_IOVS);
		do
			n = m.msg_iovlen ? sendmsg(k->fd, &m, MSG_NOSIGNAL) : 0;
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno == EWOULDBLOCK) {
			k->blocked = true;
			sock_rewatch(k);
			return;
		}
		if (n < 0) {
			stream_died(s, -errno);
			return;
		}
		stream_tx_advance(s, (size_t)n);
		if (s->given_up || s->dead)
			return;
	}
	sock_fin(k);
}

/* SO_LINGER with no time turns close() into a reset. */
static void sock_detach(struct stream *s, bool reset)
{
	struct sock *k = sock_of(s);
	struct linger hard = {.l_onoff = 1};

	if (k->watch.added)
		fd_watch_del(s->sh, &k->watch);
	if (reset)
		(void)setsockopt(k->fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
	close(k->fd);
	k->fd = -1;
}

static void sock_destroy(struct stream *s)
{
	free(sock_of(s));
}

static const struct stream_ops sock_ops = {
	.name = "sockets",
	.recv = sock_recv,
	.set_reading = sock_set_reading,
	.push = sock_push,
	.detach = sock_detach,
	.destroy = sock_destroy,
};

static int sock_error(int fd)
{
	int err = 0;
	socklen_t len = sizeof(err);

	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) < 0)
		return -errno;
	return -err;
}

/* The connection is there, or has failed. */
static bool sock_connected(struct sock *k)
{
	int rc = sock_error(k->fd);

	if (rc < 0) {
		stream_died(&k->st, rc);
		return false;
	}
	k->connecting = false;
	stream_push(&k->st);
	return true;
}

static void sock_ready(void *arg, uint32_t events)
{
	struct sock *k = arg;
	struct stream *s = &k->st;

	stream_hold(s);
	if (k->connecting && !sock_connected(k))
		goto out;
	if (events & EPOLLERR) {
		int rc = sock_error(k->fd);

		stream_died(s, rc < 0 ? rc : -EIO);
		goto out;
	}
	k->hung_up = k->hung_up || (events & EPOLLHUP);
	if (k->blocked && (events & (EPOLLOUT | EPOLLHUP))) {
		k->blocked = false;
		stream_push(s);
	}
	if (k->reading && !k->eof && (events & (EPOLLIN | EPOLLHUP)))
		stream_readable(s);
	if (!s->given_up)
		sock_rewatch(k);
out:
	stream_drop(s);
}

static void addr_text(const struct sockaddr_storage *ss, struct stream_addr *out)
{
	const struct sockaddr_in *in = (const void *)ss;
	const struct sockaddr_in6 *in6 = (const void *)ss;

	if (ss->ss_family == AF_INET) {
		inet_ntop(AF_INET, &in->sin_addr, out->addr, sizeof(out->addr));
		out->port = ntohs(in->sin_port);
	} else if (ss->ss_family == AF_INET6) {
		inet_ntop(AF_INET6, &in6->sin6_addr, out->addr, sizeof(out->addr));
		out->port = ntohs(in6->sin6_port);
	}
}

static void sock_names(struct sock *k)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);

	if (getsockname(k->fd, (struct sockaddr *)&ss, &len) == 0)
		addr_text(&ss, &k->st.local);
	len = sizeof(ss);
	if (getpeername(k->fd, (struct sockaddr *)&ss, &len) == 0)
		addr_text(&ss, &k->st.peer);
}

/* Takes fd; on error it is closed. */
static int sock_new(struct shard *sh, int fd, struct sock **out)
{
	struct sock *k = calloc(1, sizeof(*k));
	int one = 1;

	if (!k) {
		close(fd);
		return -ENOMEM;
	}
	stream_init(&k->st, &sock_ops, sh);
	k->fd = fd;
	k->reading = true;
	/* A reply must not wait for the peer's delayed acknowledgement; harmless failure on a Unix socket. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	sock_names(k);
	*out = k;
	return 0;
}

/* ---- listening --------------------------------------------------------------------------------------- */
static int addr_parse(
	const struct sockets_cfg *cfg, struct sockaddr_storage *ss, socklen_t *len, struct err *err)
{
	struct sockaddr_in *in = (void *)ss;
	struct sockaddr_in6 *in6 = (void *)ss;

	memset(ss, 0, sizeof(*ss));
	if (inet_pton(AF_INET, cfg->addr, &in->sin_addr) == 1) {
		in->sin_family = AF_INET;
		in->sin_port = htons(cfg->port);
		*len = sizeof(*in);
		return 0;
	}
	if (inet_pton(AF_INET6, cfg->addr, &in6->sin6_addr) == 1) {
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(cfg->port);
		*len = sizeof(*in6);
		return 0;
	}
	return err_set(err, -EINVAL, cfg->addr, "address", "is not a numeric IPv4 or IPv6 address");
}

static struct sock_listener *listener_of(struct stream_listener *l)
{
	return container_of(l, struct sock_listener, l);
}

static void listener_ready(void *arg, uint32_t events);

static void listener_retry(void *arg)
{
	struct sock_listener *kl = arg;

	/* Failing again, it waits again; the backlog keeps who knocks meanwhile. */
	if (fd_watch_add(kl->l.sh, &kl->watch, kl->fd, EPOLLIN, listener_ready, kl) < 0)
		(void)timer_arm(kl->l.sh, &kl->retry, shard_now_ns(kl->l.sh) + ACCEPT_RETRY_NS,
			listener_retry, kl);
}

/* Out of descriptors or memory: level-triggered accepting would spin, so it rests for a moment. */
static void listener_rest(struct sock_listener *kl)
{
	if (timer_arm(kl->l.sh, &kl->retry, shard_now_ns(kl->l.sh) + ACCEPT_RETRY_NS,
		    listener_retry, kl) == 0)
		fd_watch_del(kl->l.sh, &kl->watch);
}

static int listener_accept_one(struct sock_listener *kl)
{
	int fd = accept4(kl->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct sock *k;
	int rc;

	if (fd < 0)
		return -errno;
	rc = sock_new(kl->l.sh, fd, &k);
	if (rc < 0)
		return rc;
	stream_hold(&k->st);
	rc = stream_accepted(&kl->l, &k->st);
	if (rc == 0 && !k->st.given_up)
		sock_rewatch(k);
	stream_drop(&k->st);
	return 0;
}

static void listener_ready(void *arg, uint32_t events)
{
	struct sock_listener *kl = arg;
	int rc = 0;

	stream_listener_hold(&kl->l);
	for (int i = 0; i < ACCEPT_BATCH && !kl->l.closed && rc == 0; i++)
		rc = listener_accept_one(kl);
	if (!kl->l.closed && (rc == -EMFILE || rc == -ENFILE || rc == -ENOMEM || rc == -ENOBUFS))
		listener_rest(kl);
	stream_listener_drop(&kl->l);
}

static int listener_start(struct stream_listener *l)
{
	struct sock_listener *kl = listener_of(l);

	return fd_watch_add(l->sh, &kl->watch, kl->fd, EPOLLIN, listener_ready, kl);
}

static void listener_stop(struct stream_listener *l)
{
	struct sock_listener *kl = listener_of(l);

	if (kl->watch.added)
		fd_watch_del(l->sh, &kl->watch);
	timer_disarm(l->sh, &kl->retry);
	close(kl->fd);
	kl->fd = -1;
}

static void listener_destroy(struct stream_listener *l)
{
	free(listener_of(l));
}

static const struct stream_listener_ops listener_ops = {
	.start = listener_start,
	.stop = listener_stop,
	.destroy = listener_destroy,
};

static int listen_fd(const struct sockets_cfg *cfg, struct err *err)
{
	struct sockaddr_storage ss;
	socklen_t len;
	int one = 1, fd, rc;

	rc = addr_parse(cfg, &ss, &len, err);
	if (rc < 0)
		return rc;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, cfg->addr, NULL, "socket: %s", strerror(errno));
	if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
		bind(fd, (struct sockaddr *)&ss, len) < 0 ||
		listen(fd, (int)(cfg->max_half_open ? cfg->max_half_open : DEFAULT_BACKLOG)) < 0) {
		rc = err_set(err, -errno, cfg->addr, NULL, "cannot listen on port %u: %s",
			cfg->port, strerror(errno));
		close(fd);
		return rc;
	}
	return fd;
}

int sockets_listen(struct shard *sh, const struct sockets_cfg *cfg, struct stream_listener **out,
	struct err *err)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	struct sock_listener *kl;
	int fd = listen_fd(cfg, err);

	if (fd < 0)
		return fd;
	kl = calloc(1, sizeof(*kl));
	if (!kl) {
		close(fd);
		return err_set(err, -ENOMEM, cfg->addr, NULL, "out of memory");
	}
	stream_listener_init(&kl->l, &listener_ops, sh);
	kl->fd = fd;
	kl->l.max_conns = cfg->max_conns ? cfg->max_conns : DEFAULT_CONNS;
	kl->l.max_half_open = cfg->max_half_open ? cfg->max_half_open : DEFAULT_BACKLOG;
	if (getsockname(fd, (struct sockaddr *)&ss, &len) == 0)
		addr_text(&ss, &kl->l.addr);
	*out = &kl->l;
	return 0;
}

/* ---- connecting --------------------------------------------------------------------------------------- */
static int sock_begin(
	struct sock *k, const struct stream_events *ev, void *arg, struct stream **out)
{
	int rc;

	stream_set_events(&k->st, ev, arg);
	rc = sock_watch(k);
	if (rc < 0) {
		sock_detach(&k->st, true);
		sock_destroy(&k->st);
		return rc;
	}
	*out = &k->st;
	return 0;
}

int sockets_connect(struct shard *sh, const struct sockets_cfg *cfg, const struct stream_events *ev,
	void *arg, struct stream **out, struct err *err)
{
	struct sockaddr_storage ss;
	struct sock *k;
	socklen_t len;
	int fd, rc;

	rc = addr_parse(cfg, &ss, &len, err);
	if (rc < 0)
		return rc;
	fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, -errno, cfg->addr, NULL, "socket: %s", strerror(errno));
	do
		rc = connect(fd, (struct sockaddr *)&ss, len);
	while (rc < 0 && errno == EINTR);
	if (rc < 0 && errno != EINPROGRESS) {
		rc = err_set(err, -errno, cfg->addr, NULL, "cannot connect to port %u: %s",
			cfg->port, strerror(errno));
		close(fd);
		return rc;
	}
	rc = sock_new(sh, fd, &k);
	if (rc < 0)
		return err_set(err, rc, cfg->addr, NULL, "out of memory");
	k->connecting = true;
	addr_text(&ss, &k->st.peer);
	rc = sock_begin(k, ev, arg, out);
	return rc < 0 ? err_set(err, rc, cfg->addr, NULL, "cannot watch the connection") : 0;
}

int sockets_adopt(
	struct shard *sh, int fd, const struct stream_events *ev, void *arg, struct stream **out)
{
	int flags = fcntl(fd, F_GETFL);
	struct sock *k;
	int rc;

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
		rc = -errno;
		close(fd);
		return rc;
	}
	rc = sock_new(sh, fd, &k);
	return rc < 0 ? rc : sock_begin(k, ev, arg, out);
}
