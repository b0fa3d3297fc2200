/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Frames of the control protocol: an 8-byte header and one packed parapet.Frame message.
 *
 *	offset size field
 *	0      4    magic, big endian, "PRPT"
 *	4      4    length of the message in bytes, big endian, 1 .. RPC_FRAME_MAX
 *
 * Pure functions on bytes; the size is judged before anything is unpacked, and unpacking has a memory budget of its own
 * (a small message can describe a large structure). Thread: any. Ownership: a struct rpc_msg owns all that its frame
 * points to until rpc_msg_clear(). Errors: 0 or -errno.
 *
 *	struct rpc_msg m;
 *	rc = rpc_frame_decode(buf, len, RPC_FRAME_MAX, &used, &m);	-EAGAIN: the frame is not complete yet
 *	... m.frame->body_case ...
 *	rpc_msg_clear(&m);
 */
#ifndef COMMON_RPC_FRAME_H
#define COMMON_RPC_FRAME_H

#include "proto/parapet.pb-c.h"

#include <stddef.h>
#include <stdint.h>

#define RPC_HEADER_BYTES 8u
#define RPC_MAGIC        0x50525054u
#define RPC_FRAME_MAX    (8u << 20) /* of the message, without the header */
#define RPC_MEMORY_MAX   (64u << 20) /* what unpacking one message may take */

struct rpc_arena;

struct rpc_msg {
	Parapet__Frame *frame;
	struct rpc_arena *arena;
};

/* Length of the message behind the header at p. -EAGAIN (fewer than 8 bytes), -EPROTO (magic, zero length),
 * -EMSGSIZE (above max_bytes). */
int rpc_frame_length(const void *p, size_t len_bytes, uint32_t max_bytes, uint32_t *msg_bytes);

/* The first frame of [p, p + len_bytes): *used bytes, unpacked into *out. -EAGAIN (not complete), -EPROTO (header, not a
 * message, or one that needs more memory than its size allows), -EMSGSIZE. */
int rpc_frame_decode(
	const void *p, size_t len_bytes, uint32_t max_bytes, size_t *used, struct rpc_msg *out);
void rpc_msg_clear(struct rpc_msg *m);

/* Size of frame with its header; -EMSGSIZE above the cap. */
int rpc_frame_size(const Parapet__Frame *frame, size_t *len_bytes);
/* Writes header and message at p, which has room for rpc_frame_size() bytes. */
void rpc_frame_encode(const Parapet__Frame *frame, void *p);

/* Packing of a single message, for files and stores: "Tables" of the same contract. */
int rpc_unpack_tables(
	const void *p, size_t len_bytes, Parapet__Tables **out, struct rpc_arena **arena);
void rpc_arena_free(struct rpc_arena *arena);

#endif
