/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The asking side of the control protocol, straight down: connect, say hello, call and wait. For the agent and for tests.
 *
 * Events arrive between responses; they are given to event_fn, from inside rpc_client_call() and rpc_client_wait(). event_fn must
 * not call back into the client.
 * Thread: one at a time. Ownership: a reply lives until its rpc_msg_clear(). Errors: 0 or -errno with err filled: -ETIMEDOUT,
 * -ECONNRESET and -EPROTO mean that the connection is lost (close it); anything else is the card's own answer.
 *
 *	rpc_client_open("/run/parapet/dpu.sock", "parapet-agent", 5000, on_event, arg, &c, &err);
 *	Parapet__Request req = PARAPET__REQUEST__INIT;
 *	Parapet__StatusGet get = PARAPET__STATUS_GET__INIT;
 *	req.op_case = PARAPET__REQUEST__OP_STATUS_GET; req.status_get = &get;
 *	if (rpc_client_call(c, &req, 5000, &reply, &err) == 0) { use(reply.frame->response->status); rpc_msg_clear(&reply); }
 */
#ifndef COMMON_RPC_CLIENT_H
#define COMMON_RPC_CLIENT_H

#include "common/rpc/conn.h"

struct rpc_client;

typedef void (*rpc_event_fn)(void *arg, const Parapet__Event *event);

/* Connects and negotiates; event_fn may be NULL. -EPROTO where the majors differ. */
int rpc_client_open(const char *path, const char *program, int timeout_ms, rpc_event_fn event_fn,
	void *arg, struct rpc_client **out, struct err *e);
void rpc_client_close(struct rpc_client *c);

/* What the card said; valid as long as the client. */
const Parapet__HelloReply *rpc_client_hello(const struct rpc_client *c);
bool rpc_client_can(const struct rpc_client *c, const char *capability);
int rpc_client_fd(const struct rpc_client *c); /* for poll() */

/* Sends req (its id is set here) and waits for its response. 0: reply->frame->response, without an error in it. */
int rpc_client_call(struct rpc_client *c, Parapet__Request *req, int timeout_ms,
	struct rpc_msg *reply, struct err *e);
/* Waits for events up to timeout_ms (0: takes what is there); returns how many were given to event_fn, or -errno. */
int rpc_client_wait(struct rpc_client *c, int timeout_ms, struct err *e);

#endif
