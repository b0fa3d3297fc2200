/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/rpc/conn.h"

#include "common/base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define READ_BYTES (64u << 10)

int rpc_conn_init(struct rpc_conn *c, int fd, uint32_t in_max_bytes, size_t out_max_bytes)
{
	int fl = fcntl(fd, F_GETFL);

	if (fl < 0 || fcntl(fd, F_SETFL, fl | O_NONBLOCK) < 0)
		return -errno;
	*c = (struct rpc_conn){
		.fd = fd, .in_max_bytes = in_max_bytes, .out_max_bytes = out_max_bytes};
	return 0;
}

void rpc_conn_close(struct rpc_conn *c)
{
	if (c->fd >= 0)
		close(c->fd);
	free(c->in);
	free(c->out);
	*c = (struct rpc_conn){.fd = -1};
}

/* Room for want more bytes at the end of a buffer that keeps [off, len): moves them to the front, grows by doubling. */
static int make_room(uint8_t **buf, size_t *off, size_t *len, size_t *cap, size_t want)
{
	size_t kept = *len - *off, need = kept + want, grown;
	uint8_t *p;

	if (*cap - *len >= want)
		return 0;
	if (*off) {
		memmove(*buf, *buf + *off, kept);
		*off = 0;
		*len = kept;
	}
	if (*cap >= need)
		return 0;
	grown = MAX(need, *cap * 2);
	p = realloc(*buf, grown);
	if (!p)
		return -ENOMEM;
	*buf = p;
	*cap = grown;
	return 0;
}

int rpc_conn_fill(struct rpc_conn *c)
{
	uint32_t msg;
	ssize_t n;
	int rc;

	rc = make_room(&c->in, &c->in_off, &c->in_len, &c->in_cap, READ_BYTES);
	if (rc < 0)
		return rc;
	do {
		n = read(c->fd, c->in + c->in_len, c->in_cap - c->in_len);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	if (n == 0)
		return -ECONNRESET;
	c->in_len += (size_t)n;
	rc = rpc_frame_length(c->in + c->in_off, c->in_len - c->in_off, c->in_max_bytes, &msg);
	return rc == -EAGAIN ? 0 : rc;
}

int rpc_conn_next(struct rpc_conn *c, struct rpc_msg *out)
{
	size_t used;
	int rc = rpc_frame_decode(
		c->in + c->in_off, c->in_len - c->in_off, c->in_max_bytes, &used, out);

	if (rc == -EAGAIN)
		return 0;
	if (rc < 0)
		return rc;
	c->in_off += used;
	if (c->in_off == c->in_len)
		c->in_off = c->in_len = 0;
	return 1;
}

int rpc_conn_send(struct rpc_conn *c, const Parapet__Frame *frame)
{
	size_t n;
	int rc = rpc_frame_size(frame, &n);

	if (rc < 0)
		return rc;
	if (n > c->out_max_bytes - MIN(c->out_max_bytes, rpc_conn_unsent(c)))
		return -ENOBUFS;
	rc = make_room(&c->out, &c->out_off, &c->out_len, &c->out_cap, n);
	if (rc < 0)
		return rc;
	rpc_frame_encode(frame, c->out + c->out_len);
	c->out_len += n;
	return 0;
}

int rpc_conn_flush(struct rpc_conn *c)
{
	ssize_t n;

	while (c->out_off < c->out_len) {
		n = send(c->fd, c->out + c->out_off, c->out_len - c->out_off, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EWOULDBLOCK ? -EAGAIN : -errno;
		c->out_off += (size_t)n;
	}
	c->out_off = c->out_len = 0;
	return 0;
}

/* ---- the socket ---------------------------------------------------------------------------------------------- */

static int address_of(const char *path, struct sockaddr_un *sa, struct err *e)
{
	memset(sa, 0, sizeof(*sa));
	sa->sun_family = AF_UNIX;
	if (!path[0] || strlen(path) >= sizeof(sa->sun_path))
		return err_set(e, -EINVAL, "control socket", "path",
			"'%s' is empty or longer than %zu", path, sizeof(sa->sun_path) - 1);
	memcpy(sa->sun_path, path, strlen(path) + 1);
	return 0;
}

int rpc_connect(const char *path, int *fd_out, struct err *e)
{
	struct sockaddr_un sa;
	int rc = address_of(path, &sa, e), fd;

	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return err_set(e, -errno, "control socket", NULL, "socket: %s", strerror(errno));
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		rc = err_set(e, -errno, "control socket", NULL, "%s: %s", path, strerror(errno));
		close(fd);
		return rc;
	}
	*fd_out = fd;
	return 0;
}

/* A socket file nobody listens on is what a killed process leaves behind. */
static int remove_stale(const char *path, struct err *e)
{
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : err_set(e, -errno, "control socket", "path", "%s: %s",
						 path, strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(e, -EEXIST, "control socket", "path",
			"%s exists and is not a socket", path);
	rc = rpc_connect(path, &fd, NULL);
	if (rc == 0) {
		close(fd);
		return err_set(e, -EADDRINUSE, "control socket", "path",
			"%s: another process listens there", path);
	}
	if (unlink(path) < 0 && errno != ENOENT)
		return err_set(
			e, -errno, "control socket", "path", "%s: %s", path, strerror(errno));
	return 0;
}

int rpc_listen(const char *path, int *fd_out, struct err *e)
{
	struct sockaddr_un sa;
	int rc = address_of(path, &sa, e), fd;

	if (rc == 0)
		rc = remove_stale(path, e);
	if (rc < 0)
		return rc;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, -errno, "control socket", NULL, "socket: %s", strerror(errno));
	/* Linux gives the socket file the mode of the descriptor: it is never open to others, not even for a moment. */
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0) {
		rc = err_set(e, -errno, "control socket", NULL, "%s: %s", path, strerror(errno));
		close(fd);
		return rc;
	}
	if (chmod(path, 0600) < 0 || listen(fd, 16) < 0) {
		rc = err_set(e, -errno, "control socket", NULL, "%s: %s", path, strerror(errno));
		unlink(path);
		close(fd);
		return rc;
	}
	*fd_out = fd;
	return 0;
}
