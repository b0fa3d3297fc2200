/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Byte streams: what the NVMe/TCP target (and any other user of TCP on the card) speaks through. Two providers behind one
 * ops struct: kernel sockets (sockets.h) and lwIP on a port (lwip.h). Non-blocking, driven by the shard.
 *
 * Receiving is pull: readable_fn says that there is something, stream_recv() puts it where the caller wants it
 * (sockets: the kernel writes straight into the caller's buffers; lwIP: its one copy). Bytes that are not taken stay
 * with the provider and close the peer's window: not taking is the back-pressure. stream_borrow() shows a received
 * piece in place where the provider can (lwIP), so that the caller's own copy is the only one.
 * Sending is vectored: a stream_tx and its bytes stay the caller's but unchanged until done_fn. What was queued in one round
 * of the shard leaves together. The queue is a list of the caller's own structs: its bound is how many it has.
 * A provider may send out of the caller's own memory (sockets with zero_copy): done_fn is then when nothing reads it any more, a
 * round trip later, and no longer in the order of sending.
 *
 * Thread: a stream and a listener belong to one shard.
 *
 * Ownership and lifetime:
 *  - A listener is its opener's until stream_listener_close(), which leaves accepted streams alone.
 *  - An accepted stream is the property of whoever accept_fn hands it to, until stream_close() or stream_abort().
 *  - stream_close() and stream_abort() are allowed anywhere, also in every callback of the same stream (readable_fn,
 *    closed_fn, done_fn) but accept_fn (return an error there). Transmissions still queued get done_fn(-ECANCELED) before they return,
 *    also those sent out of their own memory and not acknowledged: the connection is reset and its memory let go of first.
 *    After they return no callback of the stream runs any more and the pointer must not be used.
 *  - closed_fn does not free: the owner still calls stream_close(), there or later.
 *  - stream_listener_close() is allowed in accept_fn of the same listener too.
 *
 * Errors: 0 or -errno. stream_send() follows the rule of every submit: 0 and done_fn exactly once, later (from the
 * shard's loop or from stream_close()), or -errno and never.
 *
 *	sockets_listen(sh, &(struct sockets_cfg){.addr = "127.0.0.1", .port = 4420, .max_conns = 64}, &l, &err);
 *	stream_listener_start(l, accepted, vm);
 *	int accepted(l, arg, s) { conn->stream = s; stream_set_events(s, &conn_events, conn); return 0; }
 *	void readable(s, arg)   { while ((n = stream_recv(s, iov, niov)) > 0) ...; }
 *	tx->iov = iov; tx->niov = 2; tx->done_fn = sent; stream_send(s, tx);
 */
#ifndef DPU_NET_STREAM_H
#define DPU_NET_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "dpu/core/shard.h"

struct stream;
struct stream_listener;

struct stream_addr {
	char addr[46]; /* text, IPv4 or IPv6 */
	uint16_t port;
};

/* What a stream tells its owner. Both are required. */
struct stream_events {
	/* Bytes or the end of the stream can be received and receiving is not paused. Level-triggered: it is called once per
	 * round while that is so, until stream_recv() has returned 0. */
	void (*readable_fn)(struct stream *s, void *arg);
	/* The connection is dead (reset, timeout, error: err < 0). Once, and nothing after it: what was received and
	 * not taken is lost, everything queued has been done with an error. The peer's orderly end is no death: it is
	 * stream_recv() returning 0, and sending goes on. */
	void (*closed_fn)(struct stream *s, void *arg, int err);
};

/* One transmission. The caller sets the first four; all of it and the bytes are left alone until done_fn. */
struct stream_tx {
	const struct iovec *iov;
	int niov; /* at least 1; empty pieces are allowed */
	void (*done_fn)(struct stream_tx *tx,
		int status); /* 0: its bytes may be reused; or -errno: some were not sent */
	void *arg;
	/* of the stream */
	size_t len_bytes; /* of all pieces */
	int at_iov;
	size_t at_off;
	bool held; /* some of it is sent out of its own memory: done when hold_id is released */
	uint32_t hold_id;
	STAILQ_ENTRY(stream_tx) link;
};

/* What sending took. Several streams may count into one. */
struct stream_counters {
	uint64_t sends; /* calls of the kernel that took something */
	uint64_t zero_copy_bytes; /* sent out of the callers' memory */
	uint64_t zero_copy_copied_bytes; /* meant to be, and copied by the kernel */
	uint64_t zero_copy_no_room; /* refused for want of memory: copied by us */
};

/* ---- a stream ----------------------------------------------------------------------------------- */
void stream_set_events(struct stream *s, const struct stream_events *ev, void *arg);
/* Counts into *c from now on (NULL: nowhere), which outlives the stream. */
void stream_count_into(struct stream *s, struct stream_counters *c);
const struct stream_addr *stream_peer(const struct stream *s);
const struct stream_addr *stream_local(const struct stream *s);

/* Receives into iov as much as is there: > 0 bytes; 0 the peer has ended its side; -EAGAIN nothing now; other -errno:
 * dead (closed_fn follows from the loop, unless the stream is given up before). Fewer
 * bytes than asked for usually means that there is no more now. */
ssize_t stream_recv(struct stream *s, const struct iovec *iov, int niov);
/* The next received bytes in place: > 0 of them at *p, valid until stream_consume(), stream_recv() or close; otherwise as
 * stream_recv(); -ENOTSUP where the provider cannot (sockets): then use stream_recv(). */
ssize_t stream_borrow(struct stream *s, const void **p);
/* Takes the first len_bytes (at most what was borrowed) off the stream. */
void stream_consume(struct stream *s, size_t len_bytes);
/* No readable_fn until resumed, e.g. while there is no buffer. closed_fn may still come. */
void stream_pause(struct stream *s);
void stream_resume(struct stream *s);

/* -EPIPE after stream_shutdown() or death, -EINVAL. */
int stream_send(struct stream *s, struct stream_tx *tx);
size_t stream_unsent(const struct stream *s); /* bytes queued and not yet taken by the provider */
/* No more will be sent; the peer sees the end after everything queued. Receiving goes on. */
int stream_shutdown(struct stream *s);

/* Gives the stream up. In order where all was sent (and, sockets, read: TCP resets otherwise), else a reset. */
void stream_close(struct stream *s);
/* Gives the stream up with a reset. */
void stream_abort(struct stream *s);

/* ---- a listener ------------------------------------------------------------------------------------ */
struct stream_listener_counters {
	uint64_t accepted;
	uint64_t refused_cap; /* beyond max_conns */
	uint64_t refused_owner; /* accept_fn said no */
	uint64_t
		dropped_half_open; /* beyond max_half_open (lwIP; the kernel keeps its own count) */
	uint64_t closed; /* given up by their owners */
	uint64_t died; /* reset, timed out */
	uint64_t rx_bytes, tx_bytes;
};

/* A new stream. 0: the callee owns it and has set its events; -errno: the provider resets it. */
typedef int (*stream_accept_fn)(struct stream_listener *l, void *arg, struct stream *s);

/* Nothing is accepted before this. */
int stream_listener_start(struct stream_listener *l, stream_accept_fn accept_fn, void *arg);
void stream_listener_close(struct stream_listener *l);
const struct stream_addr *stream_listener_addr(const struct stream_listener *l);
const struct stream_listener_counters *stream_listener_counters(const struct stream_listener *l);
uint32_t stream_listener_nconns(
	const struct stream_listener *l); /* streams accepted and not given up */

/* ==== for providers ===================================================================================
 * A provider embeds struct stream and struct stream_listener, fills `ops` and calls the helpers below. The core (stream.c)
 * keeps the queue of transmissions, the counters, the cap and the lifetime: a stream is destroyed when its owner gave
 * it up and no callback of it is on the stack.
 */
struct stream_ops {
	const char *name;
	ssize_t (*recv)(struct stream *s, const struct iovec *iov, int niov);
	ssize_t (*borrow)(struct stream *s, const void **p); /* optional, with consume */
	void (*consume)(struct stream *s, size_t len_bytes);
	void (*set_reading)(struct stream *s, bool on); /* pause, resume; off at death */
	/* Send as much of the queue as goes (stream_tx_gather, stream_tx_advance), and when it is empty and s->shut is
	 * set and not yet done, end our side. Called from a task after stream_send() and stream_shutdown(); the provider
	 * calls it itself, through stream_push(), when the connection can take more. Dies through stream_died(). */
	void (*push)(struct stream *s);
	/* Optional, with stream_tx_advance_held(): the connection is over; return when nothing reads the memory of what is held. */
	void (*let_go)(struct stream *s);
	/* Close the connection (reset: RST) and stop all of the provider's callbacks for it. Once, also after death. */
	void (*detach)(struct stream *s, bool reset);
	void (*destroy)(struct stream *s); /* free the memory; detach has been called */
};

struct stream_listener_ops {
	int (*start)(struct stream_listener *l);
	void (*stop)(
		struct stream_listener *l); /* no new connections; half-open ones are dropped */
	void (*destroy)(struct stream_listener *l);
};

struct stream {
	const struct stream_ops *ops;
	struct shard *sh;
	struct stream_listener *listener; /* NULL: outgoing */
	const struct stream_events *ev;
	void *arg;
	struct stream_addr peer, local;
	STAILQ_HEAD(stream_txq, stream_tx) txq;
	struct stream_txq heldq; /* all taken; their memory is still read; by hold_id, ascending */
	struct stream_counters *counters; /* NULL: not counted */
	size_t unsent_bytes;
	struct task push_task;
	uint32_t refs; /* 1 for the owner, 1 per callback frame */
	int failed; /* to die of, from the loop */
	bool paused, shut, dead, given_up;
};

struct stream_listener {
	const struct stream_listener_ops *ops;
	struct shard *sh;
	stream_accept_fn accept_fn;
	void *arg;
	struct stream_addr addr;
	struct stream_listener_counters counters;
	uint32_t max_conns, max_half_open;
	uint32_t nconns;
	uint32_t refs; /* 1 for the owner, 1 per stream, 1 per callback frame */
	bool started, closed;
};

void stream_init(struct stream *s, const struct stream_ops *ops, struct shard *sh);
void stream_listener_init(
	struct stream_listener *l, const struct stream_listener_ops *ops, struct shard *sh);
/* A connection is established: counts, applies max_conns, calls accept_fn. 0, or -errno after ops->detach(s, true): the
 * stream is gone, unless the provider holds it. Also after 0 it may have been given up by its owner already: hold it. */
int stream_accepted(struct stream_listener *l, struct stream *s);
void stream_readable(struct stream *s); /* calls readable_fn unless paused, dead or given up */
void stream_push(struct stream *s); /* calls ops->push unless dead or given up */
void stream_died(
	struct stream *s, int err); /* from the loop: fails the queue, calls closed_fn; once */
void stream_fail_later(struct stream *s, int err); /* from anywhere: stream_died() from the loop */
/* The unsent pieces, at most max, of the transmissions before `end` (NULL: all); returns how many. */
int stream_tx_gather(struct stream *s, const struct stream_tx *end, struct iovec *iov, int max);
/* The first len_bytes of the queue have been taken (copied, or acknowledged): done_fn of what is complete. The
 * stream may be given up when this returns: check s->given_up; the memory is valid while the caller is in one of its own
 * callbacks bracketed by stream_hold/stream_drop. */
void stream_tx_advance(struct stream *s, size_t len_bytes);
/* The same where they are taken but still read out of their own memory, until hold_id (numbers ascend, and wrap) is released. */
void stream_tx_advance_held(struct stream *s, size_t len_bytes, uint32_t hold_id);
/* Everything held with a number below next_id is let go of: done_fn. As above the stream may be given up. */
void stream_tx_release(struct stream *s, uint32_t next_id);
void stream_hold(struct stream *s);
void stream_drop(struct stream *s);
void stream_listener_hold(struct stream_listener *l);
void stream_listener_drop(struct stream_listener *l);
void stream_count_rx(struct stream *s, size_t len_bytes);

#endif
