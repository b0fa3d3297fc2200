/* SPDX-License-Identifier: BSD-3-Clause */
/* Packed virtqueues. */
#include "dpu/frontend/vhost_blk/ring.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

#define AVAIL (1u << VRING_PACKED_DESC_F_AVAIL)
#define USED  (1u << VRING_PACKED_DESC_F_USED)
#define WRAP  0x8000u

_Static_assert(offsetof(struct vb_inflight_packed, desc) == 32, "vhost-user inflight, packed");
_Static_assert(sizeof(struct vb_inflight_packed_desc) == 32, "vhost-user inflight, packed");

static int fault(struct vb_packed *r, enum vb_fault f)
{
	if (!r->fault)
		r->fault = f;
	return -EINVAL;
}

static void advance(uint16_t *idx, bool *wrap, uint32_t n, uint16_t size)
{
	uint32_t at = *idx + n;

	if (at >= size) {
		at -= size;
		*wrap = !*wrap;
	}
	*idx = (uint16_t)at;
}

uint16_t vb_packed_base(const struct vb_packed *r)
{
	return (uint16_t)(r->avail_idx | (r->avail_wrap ? WRAP : 0));
}

/* ---- the inflight area --------------------------------------------------------------------------------------- */

static void area_begin(struct vb_packed *r, uint16_t base)
{
	struct vb_inflight_packed *in = r->inflight;

	in->used_idx = in->old_used_idx = base & (uint16_t)~WRAP;
	in->used_wrap = in->old_used_wrap = !!(base & WRAP);
	in->free_head = in->old_free_head = 0;
	for (uint16_t i = 0; i < r->size; i++) {
		in->desc[i].inflight = 0;
		in->desc[i].next = (uint16_t)(i + 1);
	}
	__atomic_store_n(&in->version, 1, __ATOMIC_RELEASE);
}

/* Notes what the ring holds from avail_idx on: it may be overwritten while the buffer is in flight. -EINVAL: no room in the list. */
static int area_take(struct vb_packed *r, uint16_t ndesc, uint16_t *entry)
{
	struct vb_inflight_packed *in = r->inflight;
	uint16_t head = in->old_free_head, at = head, last = head, idx = r->avail_idx;

	if (head >= r->size || in->desc[head].inflight)
		return fault(r, VB_FAULT_INFLIGHT);
	for (uint16_t i = 0; i < ndesc; i++) {
		if (at >= r->size)
			return fault(r, VB_FAULT_INFLIGHT);
		in->desc[at].addr = r->desc[idx].addr;
		in->desc[at].len = r->desc[idx].len;
		in->desc[at].flags = r->desc[idx].flags;
		in->desc[at].id = r->desc[idx].id;
		last = at;
		at = in->desc[at].next;
		idx = (uint16_t)(idx + 1 == r->size ? 0 : idx + 1);
	}
	in->desc[head].num = ndesc;
	in->desc[head].last = last;
	in->desc[head].counter = r->counter++;
	__atomic_store_n(&in->desc[head].inflight, 1, __ATOMIC_RELEASE);
	in->free_head = at;
	in->old_free_head = at;
	*entry = head;
	return 0;
}

/* Before the used descriptor is written: where the list and the index will be. */
static bool area_giving(struct vb_packed *r, uint16_t entry, uint16_t ndesc)
{
	struct vb_inflight_packed *in = r->inflight;
	uint16_t last = in->desc[entry].last, idx = r->used_idx;
	bool wrap = r->used_wrap;

	if (last >= r->size)
		return false;
	in->desc[last].next = in->free_head;
	in->free_head = entry;
	advance(&idx, &wrap, ndesc, r->size);
	in->used_idx = idx;
	in->used_wrap = wrap;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	return true;
}

static void area_gave(struct vb_packed *r, uint16_t entry)
{
	struct vb_inflight_packed *in = r->inflight;

	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(&in->desc[entry].inflight, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	in->old_free_head = in->free_head;
	in->old_used_idx = in->used_idx;
	in->old_used_wrap = in->used_wrap;
}

static int by_counter(const void *a, const void *b, void *area)
{
	const struct vb_inflight_packed *in = area;
	uint64_t x = in->desc[*(const uint16_t *)a].counter;
	uint64_t y = in->desc[*(const uint16_t *)b].counter;

	return x < y ? -1 : x > y;
}

/* The last process died between area_giving() and the end of area_gave(). */
static void area_settle(struct vb_packed *r)
{
	struct vb_inflight_packed *in = r->inflight;
	/* So it stays when the driver has made the place available again since. */
	bool given = !!(r->desc[in->old_used_idx].flags & USED) == !!in->old_used_wrap;

	if (in->used_idx == in->old_used_idx && in->used_wrap == in->old_used_wrap)
		return;
	/* free_head is the entry that was being given back. */
	if (given && in->free_head < r->size) {
		in->desc[in->free_head].inflight = 0;
		in->old_used_idx = in->used_idx;
		in->old_used_wrap = in->used_wrap;
	} else {
		in->used_idx = in->old_used_idx;
		in->used_wrap = in->old_used_wrap;
	}
}

/* The free list anew, from what is not in flight: the last process may have died in the middle of changing it. */
static enum vb_fault area_relink(struct vb_packed *r)
{
	struct vb_inflight_packed *in = r->inflight;
	bool busy[VB_QUEUE_SIZE_MAX] = {false};
	uint16_t free_head = r->size;

	for (uint16_t i = 0; i < r->size; i++) {
		uint16_t at = i;

		for (uint16_t n = in->desc[i].inflight ? in->desc[i].num : 0; n; n--) {
			if (at >= r->size || busy[at])
				return VB_FAULT_INFLIGHT;
			busy[at] = true;
			in->desc[i].last = at;
			at = in->desc[at].next;
		}
	}
	for (uint16_t i = r->size; i--;)
		if (!busy[i]) {
			in->desc[i].next = free_head;
			free_head = i;
		}
	in->free_head = in->old_free_head = free_head;
	return VB_FAULT_NONE;
}

int vb_packed_recover(struct vb_packed *r, uint16_t *entries)
{
	struct vb_inflight_packed *in = r->inflight;
	uint32_t taken = 0;
	enum vb_fault f;
	int n = 0;

	if (r->fault)
		return -EINVAL;
	if (!in)
		return 0;
	f = area_relink(r);
	if (f)
		return fault(r, f);
	for (uint16_t i = 0; i < r->size; i++) {
		if (!in->desc[i].inflight)
			continue;
		taken += in->desc[i].num;
		if (!in->desc[i].num || taken > r->size)
			return fault(r, VB_FAULT_INFLIGHT);
		entries[n++] = i;
	}
	if (!n)
		return 0;
	qsort_r(entries, (size_t)n, sizeof(entries[0]), by_counter, in);
	r->counter = in->desc[entries[n - 1]].counter + 1;
	advance(&r->avail_idx, &r->avail_wrap, taken, r->size);
	r->taken = (uint16_t)taken;
	return n;
}

/* ---- the ring --------------------------------------------------------------------------------------------------- */

void vb_packed_start(struct vb_packed *r, uint16_t size, void *desc, void *driver, void *device,
	uint16_t base, struct vb_inflight_packed *inflight, bool fresh)
{
	*r = (struct vb_packed){.size = size,
		.desc = desc,
		.driver = driver,
		.device = device,
		.inflight = inflight};
	if (inflight && inflight->desc_num < size) {
		fault(r, VB_FAULT_INFLIGHT);
		return;
	}
	if (inflight && fresh)
		area_begin(r, base);
	if (inflight) {
		if (inflight->old_used_idx >= size || inflight->used_idx >= size) {
			fault(r, VB_FAULT_INFLIGHT);
			return;
		}
		area_settle(r);
		base = (uint16_t)(inflight->old_used_idx | (inflight->old_used_wrap ? WRAP : 0));
	}
	r->avail_idx = r->used_idx = base & (uint16_t)~WRAP;
	r->avail_wrap = r->used_wrap = !!(base & WRAP);
	if (r->avail_idx >= size)
		fault(r, VB_FAULT_INDEX);
}

/* One descriptor of a chain. 0: more follow; 1: it was the last; -EINVAL. */
static int chain_step(struct vb_packed *r, const struct vb_mem *mem, struct vb_chain *c,
	uint64_t addr, uint32_t len, uint16_t flags)
{
	enum vb_fault f;

	if (flags & VRING_DESC_F_INDIRECT) {
		/* Alone, or not at all. */
		if ((flags & VRING_DESC_F_NEXT) || c->ndesc)
			return fault(r, VB_FAULT_INDIRECT);
		f = vb_chain_indirect(c, mem, addr, len, r->size, false);
	} else {
		f = vb_chain_add(c, mem, addr, len, flags);
	}
	c->ndesc++;
	if (f)
		return fault(r, f);
	return !(flags & VRING_DESC_F_NEXT);
}

int vb_packed_get(struct vb_packed *r, const struct vb_mem *mem, struct vb_chain *c)
{
	uint16_t idx = r->avail_idx, flags;
	int rc = 0;

	if (r->fault)
		return -EINVAL;
	flags = __atomic_load_n(&r->desc[idx].flags, __ATOMIC_ACQUIRE);
	if (!!(flags & AVAIL) != r->avail_wrap || !!(flags & USED) == r->avail_wrap)
		return 0;
	vb_chain_begin(c);
	while (rc == 0) {
		uint16_t id = r->desc[idx].id;

		/* More descriptors than there are, or into those that are in flight. */
		if (c->ndesc + r->taken >= r->size)
			return fault(r, VB_FAULT_LOOP);
		if (c->ndesc)
			flags = r->desc[idx].flags;
		rc = chain_step(r, mem, c, r->desc[idx].addr, r->desc[idx].len, flags);
		c->head = id; /* the last one's counts */
		idx = (uint16_t)(idx + 1 == r->size ? 0 : idx + 1);
	}
	if (rc < 0)
		return rc;
	if (c->head >= r->size)
		return fault(r, VB_FAULT_HEAD);
	if (r->inflight && area_take(r, c->ndesc, &c->entry) < 0)
		return -EINVAL;
	advance(&r->avail_idx, &r->avail_wrap, c->ndesc, r->size);
	r->taken += c->ndesc;
	return 1;
}

int vb_packed_entry(
	struct vb_packed *r, const struct vb_mem *mem, uint16_t entry, struct vb_chain *c)
{
	struct vb_inflight_packed *in = r->inflight;
	uint16_t at = entry, ndesc = in->desc[entry].num;
	int rc = 0;

	vb_chain_begin(c);
	while (rc == 0) {
		if (at >= r->size || c->ndesc == ndesc)
			return fault(r, VB_FAULT_INFLIGHT);
		rc = chain_step(r, mem, c, in->desc[at].addr, in->desc[at].len, in->desc[at].flags);
		c->head = in->desc[at].id;
		at = in->desc[at].next;
	}
	if (rc < 0)
		return rc;
	c->entry = entry;
	if (c->ndesc != ndesc)
		return fault(r, VB_FAULT_INFLIGHT);
	return c->head < r->size ? 1 : fault(r, VB_FAULT_HEAD);
}

void vb_packed_put(
	struct vb_packed *r, uint16_t id, uint16_t ndesc, uint16_t entry, uint32_t written)
{
	volatile struct vring_packed_desc *d = &r->desc[r->used_idx];
	uint16_t flags = (uint16_t)((r->used_wrap ? AVAIL | USED : 0) |
				    (written ? VRING_DESC_F_WRITE : 0));

	if (r->inflight && !area_giving(r, entry, ndesc)) {
		fault(r, VB_FAULT_INFLIGHT);
		return;
	}
	d->id = id;
	d->len = written;
	__atomic_store_n(&d->flags, flags, __ATOMIC_RELEASE);
	if (r->inflight)
		area_gave(r, entry);
	r->taken -= ndesc;
	advance(&r->used_idx, &r->used_wrap, ndesc, r->size);
}

void vb_packed_notify(struct vb_packed *r, bool on)
{
	r->device->flags = on ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE;
	if (on)
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

bool vb_packed_wants_call(const struct vb_packed *r)
{
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return r->driver->flags != VRING_PACKED_EVENT_FLAG_DISABLE;
}
