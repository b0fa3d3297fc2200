/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/rpc/frame.h"

#include "common/base/endian.h"
#include "common/base/util.h"

#include <errno.h>
#include <string.h>

/* ---- memory for one unpacked message: chunks, freed together, never more than a budget ------------------- */

#define CHUNK_BYTES (16u << 10)
#define ALIGN_BYTES 16u
#define BUDGET_BASE (64u << 10)
#define BUDGET_FACTOR \
	32u /* the worst honest message needs less than this many bytes per packed byte */

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(ALIGN_BYTES) uint8_t bytes[];
};

struct rpc_arena {
	ProtobufCAllocator alloc;
	struct chunk *chunks;
	size_t budget_bytes;
};

static void *arena_alloc(void *arg, size_t len)
{
	struct rpc_arena *a = arg;
	struct chunk *c = a->chunks;
	size_t need, size;

	if (len > a->budget_bytes)
		return NULL;
	need = ROUND_UP(MAX(len, (size_t)1), ALIGN_BYTES);
	if (need > a->budget_bytes)
		return NULL;
	if (!c || need > c->size - c->used) {
		size = MAX(need, (size_t)CHUNK_BYTES);
		c = malloc(sizeof(*c) + size);
		if (!c)
			return NULL;
		c->used = 0;
		c->size = size;
		c->next = a->chunks;
		a->chunks = c;
	}
	a->budget_bytes -= need;
	c->used += need;
	return c->bytes + c->used - need;
}

static void arena_free_one(void *arg, void *p)
{
	/* All at once in rpc_arena_free(). */
}

static struct rpc_arena *arena_new(size_t packed_bytes)
{
	struct rpc_arena *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->alloc = (ProtobufCAllocator){
		.alloc = arena_alloc, .free = arena_free_one, .allocator_data = a};
	a->budget_bytes = MIN(BUDGET_BASE + packed_bytes * BUDGET_FACTOR, (size_t)RPC_MEMORY_MAX);
	return a;
}

void rpc_arena_free(struct rpc_arena *a)
{
	struct chunk *c, *next;

	if (!a)
		return;
	for (c = a->chunks; c; c = next) {
		next = c->next;
		free(c);
	}
	free(a);
}

/* protobuf-c says only "no", for bad bytes and for a spent budget. */
static int unpack(const ProtobufCMessageDescriptor *type, const void *p, size_t len,
	ProtobufCMessage **out, struct rpc_arena **arena_out)
{
	struct rpc_arena *a = arena_new(len);
	ProtobufCMessage *m;

	if (!a)
		return -ENOMEM;
	m = protobuf_c_message_unpack(type, &a->alloc, len, p);
	if (!m) {
		rpc_arena_free(a);
		return -EPROTO;
	}
	*out = m;
	*arena_out = a;
	return 0;
}

/* ---- frames ------------------------------------------------------------------------------------------------ */

struct header {
	be32 magic;
	be32 msg_bytes;
};
_Static_assert(sizeof(struct header) == RPC_HEADER_BYTES, "frame header");

int rpc_frame_length(const void *p, size_t len_bytes, uint32_t max_bytes, uint32_t *msg_bytes)
{
	struct header h;
	uint32_t n;

	if (len_bytes < sizeof(h))
		return -EAGAIN;
	memcpy(&h, p, sizeof(h));
	if (from_be32(h.magic) != RPC_MAGIC)
		return -EPROTO;
	n = from_be32(h.msg_bytes);
	if (n == 0)
		return -EPROTO;
	if (n > max_bytes)
		return -EMSGSIZE;
	*msg_bytes = n;
	return 0;
}

int rpc_frame_decode(
	const void *p, size_t len_bytes, uint32_t max_bytes, size_t *used, struct rpc_msg *out)
{
	ProtobufCMessage *m = NULL;
	uint32_t n;
	int rc = rpc_frame_length(p, len_bytes, max_bytes, &n);

	if (rc < 0)
		return rc;
	if (len_bytes - RPC_HEADER_BYTES < n)
		return -EAGAIN;
	rc = unpack(&parapet__frame__descriptor, (const uint8_t *)p + RPC_HEADER_BYTES, n, &m,
		&out->arena);
	if (rc < 0)
		return rc;
	out->frame = (Parapet__Frame *)m;
	*used = RPC_HEADER_BYTES + (size_t)n;
	return 0;
}

void rpc_msg_clear(struct rpc_msg *m)
{
	rpc_arena_free(m->arena);
	m->arena = NULL;
	m->frame = NULL;
}

int rpc_frame_size(const Parapet__Frame *frame, size_t *len_bytes)
{
	size_t n = parapet__frame__get_packed_size(frame);

	if (n == 0 || n > RPC_FRAME_MAX)
		return -EMSGSIZE;
	*len_bytes = RPC_HEADER_BYTES + n;
	return 0;
}

void rpc_frame_encode(const Parapet__Frame *frame, void *p)
{
	size_t n = parapet__frame__pack(frame, (uint8_t *)p + RPC_HEADER_BYTES);
	struct header h = {.magic = to_be32(RPC_MAGIC), .msg_bytes = to_be32((uint32_t)n)};

	memcpy(p, &h, sizeof(h));
}

int rpc_unpack_tables(
	const void *p, size_t len_bytes, Parapet__Tables **out, struct rpc_arena **arena)
{
	ProtobufCMessage *m = NULL;
	int rc;

	if (len_bytes > RPC_FRAME_MAX)
		return -EMSGSIZE;
	rc = unpack(&parapet__tables__descriptor, p, len_bytes, &m, arena);
	if (rc == 0)
		*out = (Parapet__Tables *)m;
	return rc;
}
