/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/rpc/client.h"

#include "common/base/clock.h"
#include "common/base/util.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#define OUT_MAX_BYTES (2u * RPC_FRAME_MAX)

struct rpc_client {
	struct rpc_conn conn;
	rpc_event_fn event_fn;
	void *arg;
	uint64_t next_id;
	struct rpc_msg hello;
};

static int lost(struct err *e, int rc)
{
	const char *why = rc == -ETIMEDOUT    ? "no answer in time"
			  : rc == -EPROTO     ? "the answer is not of this protocol"
			  : rc == -EMSGSIZE   ? "the message is too large"
			  : rc == -ECONNRESET ? "the card closed the connection"
					      : strerror(-rc);

	return err_set(e, rc == -EPIPE ? -ECONNRESET : rc, "card", NULL, "%s", why);
}

/* Waits until the socket is ready for events or the deadline (in clock_now_ms() time) has passed. */
static int wait_for(struct rpc_client *c, short events, int64_t deadline)
{
	struct pollfd p = {.fd = c->conn.fd, .events = events};
	int64_t left;
	int rc;

	do {
		left = deadline - clock_now_ms();
		rc = poll(&p, 1, left < 0 ? 0 : (int)MIN(left, (int64_t)INT32_MAX));
	} while (rc < 0 && errno == EINTR);
	if (rc < 0)
		return -errno;
	return rc == 0 ? -ETIMEDOUT : 0;
}

/* The next frame, waiting for it. */
static int next_frame(struct rpc_client *c, int64_t deadline, struct rpc_msg *m)
{
	int rc;

	for (;;) {
		rc = rpc_conn_next(&c->conn, m);
		if (rc != 0)
			return rc < 0 ? rc : 0;
		rc = wait_for(c, POLLIN, deadline);
		if (rc == 0)
			rc = rpc_conn_fill(&c->conn);
		if (rc < 0 && rc != -EAGAIN)
			return rc;
	}
}

static int send_request(struct rpc_client *c, Parapet__Request *req, int64_t deadline)
{
	Parapet__Frame f = PARAPET__FRAME__INIT;
	int rc;

	req->id = ++c->next_id;
	f.body_case = PARAPET__FRAME__BODY_REQUEST;
	f.request = req;
	rc = rpc_conn_send(&c->conn, &f);
	while (rc == 0 && (rc = rpc_conn_flush(&c->conn)) == -EAGAIN)
		rc = wait_for(c, POLLOUT, deadline);
	return rc;
}

/* The card's refusal as an error of ours. */
static int refused(const Parapet__Error *pe, struct err *e)
{
	int code = pe->code > 0 && pe->code < 4096 ? -pe->code : -EIO;

	return err_set(e, code, pe->object, pe->field, "%s", pe->reason ? pe->reason : "");
}

int rpc_client_call(struct rpc_client *c, Parapet__Request *req, int timeout_ms,
	struct rpc_msg *reply, struct err *e)
{
	int64_t deadline = clock_now_ms() + timeout_ms;
	struct rpc_msg m;
	int rc = send_request(c, req, deadline);

	while (rc == 0) {
		rc = next_frame(c, deadline, &m);
		if (rc < 0)
			break;
		if (m.frame->body_case == PARAPET__FRAME__BODY_EVENT) {
			if (c->event_fn)
				c->event_fn(c->arg, m.frame->event);
		} else if (m.frame->body_case == PARAPET__FRAME__BODY_RESPONSE &&
			   m.frame->response->id == req->id) {
			if (m.frame->response->error) {
				rc = refused(m.frame->response->error, e);
				rpc_msg_clear(&m);
				return rc;
			}
			*reply = m;
			return 0;
		} else if (m.frame->body_case != PARAPET__FRAME__BODY_RESPONSE) {
			rc = -EPROTO;
		}
		/* A response to an older call that was given up on is dropped. */
		rpc_msg_clear(&m);
	}
	return lost(e, rc);
}

int rpc_client_wait(struct rpc_client *c, int timeout_ms, struct err *e)
{
	int64_t deadline = clock_now_ms() + timeout_ms;
	struct rpc_msg m;
	int n = 0, rc;

	for (;;) {
		/* After the first event only what has arrived already is taken. */
		rc = next_frame(c, n ? clock_now_ms() : deadline, &m);
		if (rc == -ETIMEDOUT)
			return n;
		if (rc < 0)
			return lost(e, rc);
		if (m.frame->body_case == PARAPET__FRAME__BODY_EVENT) {
			if (c->event_fn)
				c->event_fn(c->arg, m.frame->event);
			n++;
		}
		rpc_msg_clear(&m);
	}
}

static int say_hello(struct rpc_client *c, const char *program, int timeout_ms, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__Hello hello = PARAPET__HELLO__INIT;
	const Parapet__HelloReply *r;
	int rc;

	hello.major = PARAPET__VERSION__MAJOR;
	hello.minor = PARAPET__VERSION__MINOR;
	hello.program = (char *)program;
	req.op_case = PARAPET__REQUEST__OP_HELLO;
	req.hello = &hello;
	rc = rpc_client_call(c, &req, timeout_ms, &c->hello, e);
	if (rc < 0)
		return rc;
	if (c->hello.frame->response->result_case != PARAPET__RESPONSE__RESULT_HELLO)
		return lost(e, -EPROTO);
	r = c->hello.frame->response->hello;
	if (r->major != PARAPET__VERSION__MAJOR)
		return err_set(e, -EPROTO, "card", "version",
			"it speaks version %u of the control protocol, this program %d", r->major,
			PARAPET__VERSION__MAJOR);
	return 0;
}

int rpc_client_open(const char *path, const char *program, int timeout_ms, rpc_event_fn event_fn,
	void *arg, struct rpc_client **out, struct err *e)
{
	struct rpc_client *c = calloc(1, sizeof(*c));
	int rc, fd;

	if (!c)
		return err_set(e, -ENOMEM, "card", NULL, "out of memory");
	c->conn.fd = -1;
	c->event_fn = event_fn;
	c->arg = arg;
	rc = rpc_connect(path, &fd, e);
	if (rc == 0) {
		rc = rpc_conn_init(&c->conn, fd, RPC_FRAME_MAX, OUT_MAX_BYTES);
		if (rc < 0)
			close(fd);
		else
			rc = say_hello(c, program, timeout_ms, e);
	}
	if (rc < 0) {
		rpc_client_close(c);
		return rc;
	}
	*out = c;
	return 0;
}

void rpc_client_close(struct rpc_client *c)
{
	if (!c)
		return;
	rpc_msg_clear(&c->hello);
	rpc_conn_close(&c->conn);
	free(c);
}

const Parapet__HelloReply *rpc_client_hello(const struct rpc_client *c)
{
	return c->hello.frame->response->hello;
}

bool rpc_client_can(const struct rpc_client *c, const char *capability)
{
	const Parapet__HelloReply *r = rpc_client_hello(c);

	for (size_t i = 0; i < r->n_capabilities; i++)
		if (!strcmp(r->capabilities[i], capability))
			return true;
	return false;
}

int rpc_client_fd(const struct rpc_client *c)
{
	return c->conn.fd;
}
