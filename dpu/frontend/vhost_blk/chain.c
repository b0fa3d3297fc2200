/* SPDX-License-Identifier: BSD-3-Clause */
/* Descriptors to pieces of memory, for both kinds of ring. */
#include "dpu/frontend/vhost_blk/ring.h"

#include <string.h>

static const char *const fault_names[VB_FAULTS] = {
	[VB_FAULT_NONE] = "none",
	[VB_FAULT_INDEX] = "available index",
	[VB_FAULT_HEAD] = "head",
	[VB_FAULT_BUSY] = "buffer in flight",
	[VB_FAULT_NEXT] = "next index",
	[VB_FAULT_LOOP] = "loop",
	[VB_FAULT_ADDRESS] = "address",
	[VB_FAULT_LENGTH] = "length",
	[VB_FAULT_ORDER] = "order",
	[VB_FAULT_INDIRECT] = "indirect table",
	[VB_FAULT_SEGMENTS] = "segments",
	[VB_FAULT_HEADER] = "header",
	[VB_FAULT_INFLIGHT] = "inflight area",
	[VB_FAULT_MEMORY] = "memory",
};

const char *vb_fault_name(enum vb_fault f)
{
	return (unsigned int)f < VB_FAULTS ? fault_names[f] : "unknown";
}

void vb_chain_begin(struct vb_chain *c)
{
	c->nout = c->nin = 0;
	c->out_bytes = c->in_bytes = 0;
	c->ndesc = c->entry = 0;
}

enum vb_fault vb_chain_add(
	struct vb_chain *c, const struct vb_mem *mem, uint64_t gpa, uint32_t len, uint16_t flags)
{
	bool writable = flags & VRING_DESC_F_WRITE;
	uint64_t *total = writable ? &c->in_bytes : &c->out_bytes;
	uint64_t left = len;

	if (!len || c->out_bytes + c->in_bytes + len > VB_CHAIN_BYTES_MAX)
		return VB_FAULT_LENGTH;
	if (!writable && c->nin)
		return VB_FAULT_ORDER;
	if (gpa + len < gpa)
		return VB_FAULT_ADDRESS;
	*total += len;
	while (left) {
		uint64_t piece = left;
		uint8_t *at = vb_mem_at(mem, gpa, &piece);

		if (!at)
			return VB_FAULT_ADDRESS;
		if (c->nout + c->nin == VB_IOV_MAX)
			return VB_FAULT_SEGMENTS;
		c->iov[c->nout + c->nin] = (struct iovec){at, piece};
		if (writable)
			c->nin++;
		else
			c->nout++;
		gpa += piece;
		left -= piece;
	}
	return VB_FAULT_NONE;
}

/* An element of a table in guest memory; the table may lie across a border of regions, and at any address. */
static bool read_desc(const struct vb_mem *mem, uint64_t gpa, struct vring_desc *out)
{
	uint8_t *to = (uint8_t *)out;
	uint64_t left = sizeof(*out);

	while (left) {
		uint64_t piece = left;
		const uint8_t *at = vb_mem_at(mem, gpa, &piece);

		if (!at)
			return false;
		memcpy(to, at, piece);
		to += piece;
		gpa += piece;
		left -= piece;
	}
	/* What was copied is what is checked and used: the compiler must not go back to the guest's memory for it. */
	__asm__ volatile("" : "+m"(*out));
	return true;
}

enum vb_fault vb_chain_indirect(struct vb_chain *c, const struct vb_mem *mem, uint64_t gpa,
	uint32_t len, uint16_t size, bool linked)
{
	uint32_t n = len / sizeof(struct vring_desc), i = 0;
	enum vb_fault f;

	/* A table may hold what a ring may hold. */
	if (len % sizeof(struct vring_desc) || !n || n > size)
		return VB_FAULT_INDIRECT;
	if (gpa + len < gpa)
		return VB_FAULT_ADDRESS;
	for (uint32_t walked = 0; walked < n; walked++) {
		struct vring_desc d;
		uint16_t flags;

		if (!read_desc(mem, gpa + i * sizeof(d), &d))
			return VB_FAULT_ADDRESS;
		/* The packed kind is {addr, len, id, flags}. */
		flags = linked ? d.flags : d.next;
		if (flags & VRING_DESC_F_INDIRECT)
			return VB_FAULT_INDIRECT;
		f = vb_chain_add(c, mem, d.addr, d.len, flags);
		if (f)
			return f;
		if (!linked) {
			i++;
			continue;
		}
		if (!(flags & VRING_DESC_F_NEXT))
			return VB_FAULT_NONE;
		if (d.next >= n)
			return VB_FAULT_NEXT;
		i = d.next;
	}
	return linked ? VB_FAULT_LOOP : VB_FAULT_NONE;
}
