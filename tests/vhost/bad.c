/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a malicious driver may do. After a rule of the ring was broken the disk must stop (no answer, also to good requests
 * of other queues) until the driver has reset it, and must then work; a request that is merely wrong must be answered.
 */
#include "tests/vhost/io.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct bad {
	struct vu *v;
	struct vu_queue *q;
	struct virtio_blk_outhdr *h;
	uint8_t *data, *status;
	struct vring_desc *table;
	struct vu_part p[3];
};

static void desc(
	struct bad *b, uint16_t i, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t next)
{
	b->q->desc[i] = (struct vring_desc){gpa, len, flags, next};
}

static uint64_t at(const struct bad *b, const void *p)
{
	return vu_gpa(b->v, p);
}

/* A good request in descriptors 0 to 2, not made available. */
static void good(struct bad *b)
{
	desc(b, 0, at(b, b->h), 16, VRING_DESC_F_NEXT, 1);
	desc(b, 1, at(b, b->data), 4096, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	desc(b, 2, at(b, b->status), 1, VRING_DESC_F_WRITE, 0);
}

static void bad_loop(struct bad *b)
{
	b->q->desc[1].next = 0;
	b->q->desc[0].flags |= VRING_DESC_F_WRITE;
}
static void bad_next(struct bad *b)
{
	b->q->desc[0].next = 0xffff;
}
static void bad_address(struct bad *b)
{
	b->q->desc[1].addr = 0x10;
}
static void bad_beyond(struct bad *b)
{
	b->q->desc[1].addr = VU_GPA + b->v->cfg.mem_bytes - 512;
}
static void bad_wrap(struct bad *b)
{
	b->q->desc[1].addr = UINT64_MAX - 100;
}
static void bad_empty(struct bad *b)
{
	b->q->desc[1].len = 0;
}
static void bad_huge(struct bad *b)
{
	b->q->desc[1].len = UINT32_MAX;
}
static void bad_order(struct bad *b)
{
	b->q->desc[2].flags = VRING_DESC_F_NEXT | VRING_DESC_F_WRITE;
	b->q->desc[2].next = 3;
	desc(b, 3, at(b, b->data), 16, 0, 0);
}
static void bad_no_status(struct bad *b)
{
	b->q->desc[0].flags = 0;
}
static void bad_short_header(struct bad *b)
{
	b->q->desc[0].len = 8;
}
static void indirect(struct bad *b, uint32_t len, uint16_t flags)
{
	memcpy(b->table, b->q->desc, 3 * sizeof(*b->table));
	desc(b, 0, at(b, b->table), len, VRING_DESC_F_INDIRECT | flags, 1);
}
static void bad_indirect_nested(struct bad *b)
{
	indirect(b, 48, 0);
	b->table[1].flags |= VRING_DESC_F_INDIRECT;
}
static void bad_indirect_size(struct bad *b)
{
	indirect(b, 47, 0);
}
static void bad_indirect_empty(struct bad *b)
{
	indirect(b, 0, 0);
}
static void bad_indirect_large(struct bad *b)
{
	indirect(b, (b->v->cfg.queue_size + 1u) * 16, 0);
}
static void bad_indirect_next(struct bad *b)
{
	indirect(b, 48, VRING_DESC_F_NEXT);
}
static void bad_indirect_loop(struct bad *b)
{
	indirect(b, 48, 0);
	b->table[2].flags |= VRING_DESC_F_NEXT;
	b->table[2].next = 1;
}
static void bad_indirect_address(struct bad *b)
{
	indirect(b, 48, 0);
	b->q->desc[0].addr = VU_GPA + b->v->cfg.mem_bytes - 32;
}
static void bad_segments(struct bad *b)
{
	for (uint16_t i = 1; i < 200; i++)
		desc(b, i, at(b, b->data), 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
			(uint16_t)(i + 1));
	desc(b, 200, at(b, b->status), 1, VRING_DESC_F_WRITE, 0);
}
static void bad_head(struct bad *b)
{
	vu_put_again(b->v, 0, b->v->cfg.queue_size);
}
static void bad_index(struct bad *b)
{
	b->q->avail_idx = (uint16_t)(b->q->avail_idx + b->v->cfg.queue_size + 1);
	vu_put_again(b->v, 0, 0);
}
static void bad_twice(struct bad *b)
{
	/* Both in one step: the second is seen while the first is in flight. */
	b->q->avail->ring[b->q->avail_idx++ & (b->v->cfg.queue_size - 1)] = 0;
	vu_put_again(b->v, 0, 0);
}

/* Requests that are wrong, in a ring that is right: the status they get. */
static void odd_type(struct bad *b)
{
	b->h->type = 77;
}
static void odd_range(struct bad *b)
{
	b->h->sector = b->v->config.capacity;
}
static void odd_far(struct bad *b)
{
	b->h->sector = UINT64_MAX - 1;
}
static void odd_length(struct bad *b)
{
	b->q->desc[1].len = 513;
}

static const struct kind {
	const char *name;
	void (*make)(struct bad *b);
	int status; /* -1: the ring breaks */
	bool put; /* it makes itself available */
} kinds[] = {
	{"loop", bad_loop, -1},
	{"next", bad_next, -1},
	{"address", bad_address, -1},
	{"beyond", bad_beyond, -1},
	{"wrap", bad_wrap, -1},
	{"empty", bad_empty, -1},
	{"huge", bad_huge, -1},
	{"order", bad_order, -1},
	{"no-status", bad_no_status, -1},
	{"short-header", bad_short_header, -1},
	{"indirect-nested", bad_indirect_nested, -1},
	{"indirect-size", bad_indirect_size, -1},
	{"indirect-empty", bad_indirect_empty, -1},
	{"indirect-large", bad_indirect_large, -1},
	{"indirect-next", bad_indirect_next, -1},
	{"indirect-loop", bad_indirect_loop, -1},
	{"indirect-address", bad_indirect_address, -1},
	{"segments", bad_segments, -1},
	{"head", bad_head, -1, true},
	{"index", bad_index, -1, true},
	{"twice", bad_twice, -1, true},
	{"type", odd_type, VIRTIO_BLK_S_UNSUPP},
	{"range", odd_range, VIRTIO_BLK_S_IOERR},
	{"far", odd_far, VIRTIO_BLK_S_IOERR},
	{"length", odd_length, VIRTIO_BLK_S_IOERR},
};
#define NKINDS (sizeof(kinds) / sizeof(kinds[0]))

/* Whether the request is answered; a stop cannot be seen, only waited for. */
static bool is_answered(struct vu *v, int timeout_ms)
{
	uint32_t len;

	for (int i = 0; i < timeout_ms; i++) {
		if (vu_get(v, 0, &len) >= 0)
			return true;
		io_nap_us(1000);
	}
	return false;
}

static int one_kind(struct bad *b, const struct kind *k, char *note, size_t len)
{
	struct vu *v = b->v;

	*b->h = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_IN};
	*b->status = 0xff;
	good(b);
	k->make(b);
	if (!k->put)
		vu_put_again(v, 0, 0);
	vu_kick(v, 0);
	if (k->status >= 0) {
		if (is_answered(v, 5000) && *b->status == k->status)
			return 0;
		snprintf(note, len, "%s: status %u instead of %d", k->name, *b->status, k->status);
		return -EPROTO;
	}
	/* One of two may be answered before the ring is found to be broken. */
	while (strcmp(k->name, "twice") ? false : is_answered(v, 200))
		;
	if (is_answered(v, 100)) {
		snprintf(note, len, "%s: was answered, with status %u", k->name, *b->status);
		return -EPROTO;
	}
	if (vu_is_gone(v)) {
		snprintf(note, len, "%s: the connection was closed", k->name);
		return -ECONNRESET;
	}
	if (vu_reset(v) < 0 || io_one(v, VIRTIO_BLK_T_IN, 0, b->data, 4096, false) != 0) {
		snprintf(note, len, "%s: does not work after a reset", k->name);
		return -EPROTO;
	}
	return 0;
}

int io_bad(struct vu *v, const struct io_opts *o, struct io_result *r)
{
	struct bad b = {.v = v, .q = &v->q[0]};
	bool found = false;
	int rc = 0;

	if (o->vu.packed || o->vu.queue_size < 256)
		return -EINVAL;
	b.h = vu_alloc(v, sizeof(*b.h), 64);
	b.status = vu_alloc(v, 1, 1);
	b.data = vu_alloc(v, 65536, 4096);
	b.table = vu_alloc(v, 4096, 4096);
	if (!b.table)
		return -ENOMEM;
	for (size_t i = 0; i < NKINDS && rc == 0; i++) {
		if (o->kind && strcmp(o->kind, "all") && strcmp(o->kind, kinds[i].name))
			continue;
		found = true;
		rc = one_kind(&b, &kinds[i], r->note, sizeof(r->note));
		r->requests++;
		r->errors += kinds[i].status < 0;
	}
	return found ? rc : -ENOENT;
}

/* ---- memory that goes away ---------------------------------------------------------------------------------------- */

/* As many large writes as there are slots: they are on their way when the memory goes. */
static int fill_ring(struct vu *v, uint32_t depth)
{
	for (uint32_t i = 0; i < depth; i++) {
		struct virtio_blk_outhdr *h = vu_alloc(v, sizeof(*h), 64);
		uint8_t *data = vu_alloc(v, 65536, 4096), *status = vu_alloc(v, 1, 1);
		struct vu_part p[] = {
			{h, sizeof(*h), false}, {data, 65536, false}, {status, 1, true}};

		if (!status)
			return -ENOMEM;
		*h = (struct virtio_blk_outhdr){.type = VIRTIO_BLK_T_OUT, .sector = i * 128};
		vu_put(v, 0, (uint16_t)i, p, 3);
	}
	return 0;
}

int io_truncate(struct vu *v, const struct io_opts *o, struct io_result *r)
{
	bool inflight = o->kind && !strcmp(o->kind, "inflight");
	int rc = inflight ? vu_own_inflight(v) : 0;
	uint64_t one = 1;

	if (rc == 0)
		rc = fill_ring(v, o->depth);
	if (rc < 0)
		return rc;
	vu_kick(v, 0);
	/* From here on our own mapping of it is gone too: nothing of it is touched. */
	if (ftruncate(inflight ? v->inflight_fd : v->mem_fd, 0) < 0)
		return -errno;
	rc = inflight ? fill_ring(v, o->depth) : 0;
	if (rc < 0)
		return rc;
	for (int i = 0; i < 200; i++) {
		if (write(v->q[0].kick, &one, sizeof(one)) < 0 && errno != EAGAIN)
			return -errno;
		io_nap_us(5000);
	}
	snprintf(r->note, sizeof(r->note), "the %s is gone, the connection is %s",
		inflight ? "inflight area" : "memory", vu_is_gone(v) ? "closed" : "there");
	/* Nor does a reset make it good. */
	rc = vu_tell_base(v, 0);
	if (rc == 0)
		rc = vu_tell_memory(v) == 0 ? -EPROTO : 0;
	return rc;
}
