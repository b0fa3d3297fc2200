/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Byte streams over kernel sockets (stream.h): on silicon over a scalable function, in loopback over any interface.
 *
 * Thread: the shard's. Ownership: see stream.h. Errors: 0 or -errno, with *err where it is given.
 *
 *	sockets_listen(sh, &(struct sockets_cfg){.addr = "::1", .port = 4420, .max_conns = 64}, &l, &err);
 */
#ifndef DPU_NET_SOCKETS_H
#define DPU_NET_SOCKETS_H

#include <stdint.h>

#include "common/base/err.h"
#include "dpu/net/stream.h"

struct sockets_cfg {
	const char *addr; /* numeric IPv4 or IPv6 */
	uint16_t port; /* listening: 0 picks one (stream_listener_addr tells) */
	uint32_t max_conns; /* 0: 256 */
	uint32_t max_half_open; /* the kernel's backlog; 0: 64 */
	/* Connecting: transmissions of SOCKETS_ZERO_COPY_MIN bytes and more are sent out of their own memory (MSG_ZEROCOPY), where the kernel
	 * has it and as long as it does not copy after all (loopback does): noticed at the first such report, and not asked for again. */
	bool zero_copy;
};

/* Below this, pinning pages and reading the error queue cost more than the copy. */
#define SOCKETS_ZERO_COPY_MIN 16384u

int sockets_listen(struct shard *sh, const struct sockets_cfg *cfg, struct stream_listener **out,
	struct err *err);

/* An outgoing connection. Sending may start at once; a failure to connect is closed_fn. */
int sockets_connect(struct shard *sh, const struct sockets_cfg *cfg, const struct stream_events *ev,
	void *arg, struct stream **out, struct err *err);

/* Takes over a connected stream socket (a socketpair in tests); the descriptor is the stream's, also on error. */
int sockets_adopt(
	struct shard *sh, int fd, const struct stream_events *ev, void *arg, struct stream **out);

#endif
