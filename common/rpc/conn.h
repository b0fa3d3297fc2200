/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A connection of the control protocol: frames over a non-blocking stream socket, buffered both ways, and the Unix
 * socket they live on. Used by the card's server and, through client.h, by the agent.
 *
 * Memory: the input buffer grows with the bytes that have arrived, never with a length that was only announced, and never beyond
 * one frame of in_max_bytes; output beyond out_max_bytes is refused (a reader that does not read).
 * Thread: a connection belongs to one thread at a time. Errors: 0 or -errno.
 *
 *	rpc_conn_init(&c, fd, RPC_FRAME_MAX, 4 * RPC_FRAME_MAX);
 *	rc = rpc_conn_fill(&c);			when poll() says readable
 *	while ((rc = rpc_conn_next(&c, &m)) == 1) { ...; rpc_msg_clear(&m); }
 *	rpc_conn_send(&c, &frame); rpc_conn_flush(&c);
 *	rpc_conn_close(&c);
 */
#ifndef COMMON_RPC_CONN_H
#define COMMON_RPC_CONN_H

#include "common/base/err.h"
#include "common/rpc/frame.h"

#include <stdbool.h>

struct rpc_conn {
	int fd;
	uint32_t in_max_bytes;
	size_t out_max_bytes;
	uint8_t *in, *out;
	size_t in_off, in_len, in_cap; /* unread bytes: in[in_off .. in_len) */
	size_t out_off, out_len, out_cap; /* unsent bytes: out[out_off .. out_len) */
};

/* Takes over fd and makes it non-blocking. */
int rpc_conn_init(struct rpc_conn *c, int fd, uint32_t in_max_bytes, size_t out_max_bytes);
void rpc_conn_close(struct rpc_conn *c);

/* Reads what has arrived. 0: something came; -EAGAIN: nothing; -ECONNRESET: the peer is gone; -EPROTO, -EMSGSIZE as
 * rpc_frame_length() judges the frame that arrives. */
int rpc_conn_fill(struct rpc_conn *c);
/* The next whole frame: 1; 0: none yet; -EPROTO, -EMSGSIZE, -ENOMEM: the stream is lost, close it. */
int rpc_conn_next(struct rpc_conn *c, struct rpc_msg *out);

/* Packs frame into the output buffer. -ENOBUFS: over out_max_bytes; -EMSGSIZE; -ENOMEM. */
int rpc_conn_send(struct rpc_conn *c, const Parapet__Frame *frame);
/* Writes what it can. 0: all out; -EAGAIN: wait for writable; -EPIPE, ...: the peer is gone. */
int rpc_conn_flush(struct rpc_conn *c);
static inline size_t rpc_conn_unsent(const struct rpc_conn *c)
{
	return c->out_len - c->out_off;
}

/* A listening Unix socket at path, mode 0600. A stale socket file is replaced, a living one is -EADDRINUSE. */
int rpc_listen(const char *path, int *fd_out, struct err *e);
/* A connected one. */
int rpc_connect(const char *path, int *fd_out, struct err *e);

#endif
