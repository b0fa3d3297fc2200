/* SPDX-License-Identifier: BSD-3-Clause */
/* Split virtqueues. */
#include "dpu/frontend/vhost_blk/ring.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

_Static_assert(offsetof(struct vb_inflight_split, desc) == 16, "vhost-user inflight, split");
_Static_assert(sizeof(struct vb_inflight_split_desc) == 16, "vhost-user inflight, split");

static int fault(struct vb_split *r, enum vb_fault f)
{
	if (!r->fault)
		r->fault = f;
	return -EINVAL;
}

void vb_split_start(struct vb_split *r, uint16_t size, void *desc, void *avail, void *used,
	uint16_t last_avail, struct vb_inflight_split *inflight)
{
	*r = (struct vb_split){.size = size,
		.desc = desc,
		.avail = avail,
		.used = used,
		.last_avail = last_avail,
		.inflight = inflight};
	r->last_used = __atomic_load_n(&r->used->idx, __ATOMIC_ACQUIRE);
}

static int by_counter(const void *a, const void *b, void *area)
{
	const struct vb_inflight_split *in = area;
	uint64_t x = in->desc[*(const uint16_t *)a].counter;
	uint64_t y = in->desc[*(const uint16_t *)b].counter;

	return x < y ? -1 : x > y;
}

int vb_split_recover(struct vb_split *r, uint16_t *heads)
{
	struct vb_inflight_split *in = r->inflight;
	int n = 0;

	if (!in)
		return 0;
	in->version = 1;
	if (in->desc_num < r->size)
		return fault(r, VB_FAULT_INFLIGHT);
	/* The last one had been given back, but not struck out yet. */
	if (in->used_idx != r->last_used) {
		if (in->last_io < r->size)
			in->desc[in->last_io].inflight = 0;
		in->used_idx = r->last_used;
	}
	for (uint16_t i = 0; i < r->size; i++)
		if (in->desc[i].inflight)
			heads[n++] = i;
	if (!n)
		return 0;
	qsort_r(heads, (size_t)n, sizeof(heads[0]), by_counter, in);
	r->counter = in->desc[heads[n - 1]].counter + 1;
	/* Each that was taken is either in flight or used. */
	r->last_avail = (uint16_t)(r->last_used + n);
	return n;
}

static int chain_fault(struct vb_split *r, enum vb_fault f)
{
	return f ? fault(r, f) : 1;
}

int vb_split_chain(struct vb_split *r, const struct vb_mem *mem, uint16_t head, struct vb_chain *c)
{
	uint16_t i = head;

	vb_chain_begin(c);
	c->head = head;
	for (uint16_t walked = 0; walked < r->size; walked++) {
		uint64_t addr = r->desc[i].addr;
		uint32_t len = r->desc[i].len;
		uint16_t flags = r->desc[i].flags, next = r->desc[i].next;
		enum vb_fault f;

		if (flags & VRING_DESC_F_INDIRECT) {
			if (flags & VRING_DESC_F_NEXT)
				return fault(r, VB_FAULT_INDIRECT);
			return chain_fault(r, vb_chain_indirect(c, mem, addr, len, r->size, true));
		}
		f = vb_chain_add(c, mem, addr, len, flags);
		if (f)
			return fault(r, f);
		if (!(flags & VRING_DESC_F_NEXT))
			return 1;
		if (next >= r->size)
			return fault(r, VB_FAULT_NEXT);
		i = next;
	}
	return fault(r, VB_FAULT_LOOP);
}

void vb_split_ahead(const struct vb_split *r, const struct vb_mem *mem)
{
	uint64_t len = VB_AHEAD_BYTES;
	const uint8_t *at;
	uint16_t head, i;

	if (__atomic_load_n(&r->avail->idx, __ATOMIC_RELAXED) == r->last_avail)
		return;
	head = r->avail->ring[r->last_avail & (r->size - 1)];
	i = head < r->size ? r->desc[head].next : r->size;
	if (i >= r->size || (r->desc[head].flags & VRING_DESC_F_INDIRECT))
		return;
	at = vb_mem_at(mem, r->desc[i].addr, &len);
	if (at)
		for (uint64_t off = 0; off < len; off += 64)
			__builtin_prefetch(at + off);
}

int vb_split_get(struct vb_split *r, const struct vb_mem *mem, struct vb_chain *c)
{
	uint16_t there, head;
	int rc;

	if (r->fault)
		return -EINVAL;
	there = (uint16_t)(__atomic_load_n(&r->avail->idx, __ATOMIC_ACQUIRE) - r->last_avail);
	if (!there)
		return 0;
	if (there > r->size)
		return fault(r, VB_FAULT_INDEX);
	head = r->avail->ring[r->last_avail & (r->size - 1)];
	if (head >= r->size)
		return fault(r, VB_FAULT_HEAD);
	if (r->inflight && r->inflight->desc[head].inflight)
		return fault(r, VB_FAULT_BUSY);
	rc = vb_split_chain(r, mem, head, c);
	if (rc < 0)
		return rc;
	if (r->inflight) {
		r->inflight->desc[head].counter = r->counter++;
		__atomic_store_n(&r->inflight->desc[head].inflight, 1, __ATOMIC_RELEASE);
	}
	r->last_avail++;
	return 1;
}

void vb_split_put(struct vb_split *r, uint16_t head, uint32_t written)
{
	volatile struct vring_used_elem *e = &r->used->ring[r->last_used & (r->size - 1)];
	uint16_t idx = (uint16_t)(r->last_used + 1);

	if (r->inflight)
		__atomic_store_n(&r->inflight->last_io, head, __ATOMIC_RELAXED);
	e->id = head;
	e->len = written;
	__atomic_store_n(&r->used->idx, idx, __ATOMIC_RELEASE);
	r->last_used = idx;
	if (!r->inflight)
		return;
	/* A process that dies in between leaves used_idx behind: that is how the next one knows. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&r->inflight->desc[head].inflight, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&r->inflight->used_idx, idx, __ATOMIC_RELEASE);
}

void vb_split_notify(struct vb_split *r, bool on)
{
	r->used->flags = on ? 0 : VRING_USED_F_NO_NOTIFY;
	/* Seen by the driver before we look again. */
	if (on)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool vb_split_wants_call(const struct vb_split *r)
{
	/* The used index is out before we look. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return !(r->avail->flags & VRING_AVAIL_F_NO_INTERRUPT);
}
