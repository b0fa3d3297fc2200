/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/net/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/core/io.h"
#include "dpu/core/mem_guard.h"
#include "dpu/net/zero_copy.h"

#define DEFAULT_CONNS   256
#define DEFAULT_BACKLOG 64
#define ACCEPT_BATCH    16
/* One writev gathers this much at most; the rest follows at once while the socket takes it. */
#define WRITE_IOVS 256
/* When descriptors have run out, accepting is tried again after this long. */
#define ACCEPT_RETRY_NS 100000000ULL
/* Longer than a network device's watchdog lets a packet lie (5 to 15 s) before it throws the ring away. */
#define LET_GO_NS 20000000000ULL

struct sock {
	struct stream st;
	int fd;
	struct fd_watch watch;
	bool reading;
	bool connecting; /* outgoing, not established yet */
	bool blocked; /* the kernel takes no more for now */
	bool eof, hung_up, fin_sent;
	struct zc *zc; /* NULL: never asked for */
	bool zc_on; /* goes on asking */
	bool zc_full; /* the kernel has no room for more of them, until it reports some */
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
	bool settled = false;
	ssize_t n;

	/* Where it goes may be a VM's memory, and gone: that is not the connection's fault. */
	do
		n = readv(k->fd, iov, niov);
	while (n < 0 &&
		(errno == EINTR || (errno == EFAULT && !settled &&
					   (settled = mem_guard_settle(iov, (size_t)niov)))));
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

	/* What is held is not acknowledged: a hang-up after our end would hide its reports. */
	if (!s->shut || k->fin_sent || !STAILQ_EMPTY(&s->txq) || !STAILQ_EMPTY(&s->heldq))
		return;
	k->fin_sent = true;
	if (shutdown(k->fd, SHUT_WR) < 0)
		stream_died(s, -errno);
}

/* ---- zero copy --------------------------------------------------------------------------------------- */

static void zc_start(struct sock *k)
{
	int one = 1;

	/* Not a Unix socket, nor a kernel without it: then as if it had not been asked for. */
	if (setsockopt(k->fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)) < 0)
		return;
	k->zc = calloc(1, sizeof(*k->zc));
	k->zc_on = k->zc != NULL;
}

/* One report of the error queue; -errno when there is none. */
static int zc_take_report(struct sock *k)
{
	char control[CMSG_SPACE(sizeof(struct sock_extended_err)) + 64];
	struct msghdr m = {.msg_control = control, .msg_controllen = sizeof(control)};
	const struct sock_extended_err *e;
	struct cmsghdr *c;

	if (recvmsg(k->fd, &m, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
		return -errno;
	for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		bool ours = (c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) ||
			    (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR);
		bool copied;

		e = (const void *)CMSG_DATA(c);
		if (!ours || e->ee_errno || e->ee_origin != SO_EE_ORIGIN_ZEROCOPY)
			continue;
		copied = e->ee_code & SO_EE_CODE_ZEROCOPY_COPIED;
		zc_report(k->zc, e->ee_info, e->ee_data, copied);
		if (copied)
			k->zc_on = false;
	}
	return 0;
}

/* Reads all reports there are; nothing is done for anybody yet. */
static void zc_take_reports(struct sock *k)
{
	uint64_t free_bytes = k->zc->free_bytes, copied_bytes = k->zc->copied_bytes;

	while (zc_take_report(k) == 0)
		k->zc_full = false;
	if (!k->st.counters)
		return;
	k->st.counters->zero_copy_bytes += k->zc->free_bytes - free_bytes;
	k->st.counters->zero_copy_copied_bytes += k->zc->copied_bytes - copied_bytes;
}

static void zc_reap(struct sock *k)
{
	zc_take_reports(k);
	stream_tx_release(&k->st, k->zc->released);
	if (!k->st.given_up && !k->st.dead)
		sock_fin(k);
}

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/*
 * The connection is over and pages may still be on their way: whoever gets them next would see them sent, as a write to a peer even.
 * Disconnecting (not closing: the reports would go with the socket) sends the reset and empties the socket's queues at once; what is
 * left then is in the hands of the network device, for microseconds: it is waited for here, with the shard. A device that has stopped
 * altogether is reset by the kernel's watchdog, which frees its ring. Beyond that nothing can be promised; it is said.
 */
static void sock_let_go(struct stream *s)
{
	struct sock *k = sock_of(s);
	struct sockaddr none = {.sa_family = AF_UNSPEC};
	struct timespec pause = {.tv_nsec = 20000};
	uint64_t until;

	if (!k->zc || !zc_outstanding(k->zc))
		return;
	(void)connect(k->fd, &none, sizeof(none));
	zc_take_reports(k);
	until = clock_ns() + LET_GO_NS;
	while (zc_outstanding(k->zc) && clock_ns() < until) {
		nanosleep(&pause, NULL);
		pause.tv_nsec = MIN(pause.tv_nsec * 2, 1000000L);
		zc_take_reports(k);
	}
	if (zc_outstanding(k->zc))
		log_error("net: %s port %u: the network device has held on to sent memory for "
			  "20 s; it is taken back",
			s->peer.addr, s->peer.port);
}

/* ---- sending ------------------------------------------------------------------------------------------- */

/* Where the first transmissions are large (or small) and one follows that is not: that one. They are sent apart: a small one
 * costs less when it is copied. */
static const struct stream_tx *class_end(const struct stream *s, bool *large)
{
	const struct stream_tx *tx = STAILQ_FIRST(&s->txq);

	*large = tx->len_bytes >= SOCKETS_ZERO_COPY_MIN;
	while (tx && *large == (tx->len_bytes >= SOCKETS_ZERO_COPY_MIN))
		tx = STAILQ_NEXT(tx, link);
	return tx;
}

/* One system call: bytes taken, or -errno. *zc: out of their own memory. */
static ssize_t sock_send(struct sock *k, bool *zc)
{
	struct iovec iov[WRITE_IOVS];
	struct msghdr m = {.msg_iov = iov};
	const struct stream_tx *end = NULL;
	int flags = MSG_NOSIGNAL;
	ssize_t n;

	*zc = false;
	if (k->zc_on && !k->zc_full && zc_room(k->zc))
		end = class_end(&k->st, zc);
	m.msg_iovlen = (size_t)stream_tx_gather(&k->st, end, iov, WRITE_IOVS);
	if (!m.msg_iovlen)
		return 0;
	if (end)
		flags |= MSG_MORE;
	do
		n = sendmsg(k->fd, &m, flags | (*zc ? MSG_ZEROCOPY : 0));
	while (n < 0 && errno == EINTR);
	if (n < 0 && errno == ENOBUFS && *zc) {
		/* With none of ours out there is nothing to wait for: the limit (locked memory) is too low for good. */
		k->zc_full = true;
		k->zc_on = zc_outstanding(k->zc) > 0;
		if (k->st.counters)
			k->st.counters->zero_copy_no_room++;
		*zc = false;
		do
			n = sendmsg(k->fd, &m, flags);
		while (n < 0 && errno == EINTR);
	}
	return n < 0 ? -errno : n;
}

static void sock_push(struct stream *s)
{
	struct sock *k = sock_of(s);

	if (k->connecting || k->blocked)
		return;
	while (!STAILQ_EMPTY(&s->txq)) {
		bool zc;
		ssize_t n = sock_send(k, &zc);

		if (n == -EWOULDBLOCK) {
			k->blocked = true;
			sock_rewatch(k);
			return;
		}
		if (n < 0) {
			stream_died(s, (int)n);
			return;
		}
		if (s->counters)
			s->counters->sends++;
		if (zc)
			stream_tx_advance_held(s, (size_t)n, zc_sent(k->zc, (uint32_t)n));
		else
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
	free(sock_of(s)->zc);
	free(sock_of(s));
}

static const struct stream_ops sock_ops = {
	.name = "sockets",
	.recv = sock_recv,
	.set_reading = sock_set_reading,
	.push = sock_push,
	.let_go = sock_let_go,
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

/* True when the connection is dead, or was given up in a callback; reports of zero copy look like errors too. */
static bool sock_failed(struct sock *k)
{
	int rc;

	if (k->zc)
		zc_reap(k);
	if (k->st.given_up || k->st.dead)
		return true;
	rc = sock_error(k->fd);
	if (rc == 0 && k->zc)
		return false;
	stream_died(&k->st, rc < 0 ? rc : -EIO);
	return true;
}

static void sock_ready(void *arg, uint32_t events)
{
	struct sock *k = arg;
	struct stream *s = &k->st;

	stream_hold(s);
	if (k->connecting && !sock_connected(k))
		goto out;
	if ((events & EPOLLERR) && sock_failed(k))
		goto out;
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
	/* The address is free at once, whoever holds the socket past its close(): librte_vhost's thread polls numbers that it has closed, and that are ours since. */
	(void)shutdown(kl->fd, SHUT_RDWR);
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
	if (cfg->zero_copy)
		zc_start(k);
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
