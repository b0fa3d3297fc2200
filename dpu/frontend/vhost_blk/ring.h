/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Virtqueues as the device sees them (virtio 1.1, 2.6 split and 2.7 packed), over plain memory: what the driver has made
 * available is taken, checked and translated; what is done is given back.
 *
 * The driver is not trusted. Each word of its memory is read once; counts, indices, lengths and addresses are checked before they are used;
 * whatever it writes, nothing outside the regions of vb_mem and of the rings (which the caller has checked) is touched and every walk ends.
 * A fault says that the ring as a whole cannot be believed any more.
 *
 * With an inflight area (vhost-user's: memory that outlives this process) each buffer that has been taken is noted there before
 * it is worked on and struck out after it was given back, so that another process can go on (vb_*_recover). The area is shared with the
 * VM's own process and checked like the ring.
 *
 * Thread: one at a time. Ownership: all memory is the caller's. Nothing here allocates.
 *
 *	vb_split_start(&r, size, desc, avail, used, base, inflight);
 *	while ((n = vb_split_get(&r, &mem, &chain)) > 0) ... chain.iov, chain.nout, chain.nin ...
 *	vb_split_put(&r, chain.head, written_bytes);
 */
#ifndef DPU_FRONTEND_VHOST_BLK_RING_H
#define DPU_FRONTEND_VHOST_BLK_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <linux/virtio_ring.h>

#define VB_REGIONS_MAX    8u
#define VB_QUEUE_SIZE_MAX 1024u
#define VB_SEGS_MAX       126u /* data segments of a request, as the driver is told */
#define VB_IOV_MAX \
	(VB_SEGS_MAX + 2 + 2 * VB_REGIONS_MAX) /* header, status; pieces at region borders */
#define VB_CHAIN_BYTES_MAX (UINT32_MAX - 65536u)

/* ---- guest memory ------------------------------------------------------------------------------------------ */

struct vb_region {
	uint64_t gpa, len; /* guest physical; gpa + len does not wrap */
	uint8_t *host; /* where it is mapped here */
	uint64_t user; /* where the VM's process has it */
};
struct vb_mem {
	uint32_t n;
	struct vb_region r[VB_REGIONS_MAX];
};

/* The place of guest address gpa here, and in *len how much of the *len bytes wanted lies there in one piece. NULL: not the guest's. */
static inline uint8_t *vb_mem_at(const struct vb_mem *m, uint64_t gpa, uint64_t *len)
{
	for (uint32_t i = 0; i < m->n; i++) {
		uint64_t off = gpa - m->r[i].gpa;

		if (gpa < m->r[i].gpa || off >= m->r[i].len)
			continue;
		if (*len > m->r[i].len - off)
			*len = m->r[i].len - off;
		return m->r[i].host + off;
	}
	return NULL;
}

/* ---- what is wrong with a ring -------------------------------------------------------------------------------- */

enum vb_fault {
	VB_FAULT_NONE,
	VB_FAULT_INDEX, /* the available index jumped by more than the ring holds */
	VB_FAULT_HEAD, /* a head or buffer id outside of the ring */
	VB_FAULT_BUSY, /* a buffer that is in flight was made available again */
	VB_FAULT_NEXT, /* a next index outside of its table */
	VB_FAULT_LOOP, /* a chain longer than its table */
	VB_FAULT_ADDRESS, /* memory that is not the VM's */
	VB_FAULT_LENGTH, /* a descriptor of no length, or more than 4 GiB in all */
	VB_FAULT_ORDER, /* a readable descriptor behind a writable one */
	VB_FAULT_INDIRECT, /* an indirect table inside one, with NEXT, or of a wrong size */
	VB_FAULT_SEGMENTS, /* more segments than the driver was told */
	VB_FAULT_HEADER, /* no request header, or no place for the status */
	VB_FAULT_INFLIGHT, /* the inflight area contradicts itself */
	VB_FAULT_MEMORY, /* the VM's memory went away: not the ring's own fault, and not mended by a reset */
	VB_FAULTS
};
const char *vb_fault_name(enum vb_fault f); /* "available index", "loop", ... */

/* A buffer of the driver: readable pieces first, then writable ones. */
struct vb_chain {
	uint16_t head; /* split: head; packed: buffer id. Below the ring's size */
	uint16_t ndesc; /* packed: places it takes in the ring */
	uint16_t entry; /* packed with inflight area: its place there */
	uint16_t nout, nin;
	uint64_t out_bytes, in_bytes;
	struct iovec *iov; /* the caller's, VB_IOV_MAX */
};

/* ---- split ---------------------------------------------------------------------------------------------------------- */

/* vhost-user's layout, docs/interop/vhost-user.rst "Inflight I/O tracking". */
struct vb_inflight_split {
	uint64_t features;
	uint16_t version, desc_num, last_io, used_idx;
	struct vb_inflight_split_desc {
		uint8_t inflight, padding[5];
		uint16_t next;
		uint64_t counter;
	} desc[];
};

struct vb_split {
	uint16_t size;
	uint16_t last_avail, last_used;
	volatile struct vring_desc *desc;
	volatile struct vring_avail *avail;
	volatile struct vring_used *used;
	struct vb_inflight_split *inflight; /* NULL: none */
	uint64_t counter;
	enum vb_fault fault; /* the first; nothing is taken any more */
};

/* size: a power of two, at most VB_QUEUE_SIZE_MAX. last_avail: where it goes on where nothing is in flight. */
void vb_split_start(struct vb_split *r, uint16_t size, void *desc, void *avail, void *used,
	uint16_t last_avail, struct vb_inflight_split *inflight);
/* The heads that were in flight when the last process ended, oldest first; heads has room for size. Returns how many, or -EINVAL (fault).
 * They are taken already: translate each with vb_split_chain(). */
int vb_split_recover(struct vb_split *r, uint16_t *heads);
/* Fetches the beginning of the data of the buffer that comes next into the cache, where it is easily found: a wrong guess costs nothing else. */
#define VB_AHEAD_BYTES 512u
void vb_split_ahead(const struct vb_split *r, const struct vb_mem *mem);
/* 1: *c is filled and in flight. 0: nothing there. -EINVAL: r->fault. */
int vb_split_get(struct vb_split *r, const struct vb_mem *mem, struct vb_chain *c);
int vb_split_chain(struct vb_split *r, const struct vb_mem *mem, uint16_t head, struct vb_chain *c);
void vb_split_put(struct vb_split *r, uint16_t head, uint32_t written);
/* Whether the driver shall kick. After "true" look once more with vb_split_get(). */
void vb_split_notify(struct vb_split *r, bool on);
bool vb_split_wants_call(const struct vb_split *r);

/* ---- packed -------------------------------------------------------------------------------------------------------------- */

struct vb_inflight_packed {
	uint64_t features;
	uint16_t version, desc_num, free_head, old_free_head, used_idx, old_used_idx;
	uint8_t used_wrap, old_used_wrap, padding[7];
	struct vb_inflight_packed_desc {
		uint8_t inflight, padding;
		uint16_t next, last, num;
		uint64_t counter;
		uint16_t id, flags;
		uint32_t len;
		uint64_t addr;
	} desc[];
};

struct vb_packed {
	uint16_t size;
	uint16_t avail_idx, used_idx;
	bool avail_wrap, used_wrap;
	uint16_t taken; /* places of buffers in flight */
	volatile struct vring_packed_desc *desc;
	volatile struct vring_packed_desc_event *driver, *device;
	struct vb_inflight_packed *inflight;
	uint64_t counter;
	enum vb_fault fault;
};

/* base: index and, in bit 15, wrap counter. fresh: the area is new and takes the base over; else the area knows better. */
void vb_packed_start(struct vb_packed *r, uint16_t size, void *desc, void *driver, void *device,
	uint16_t base, struct vb_inflight_packed *inflight, bool fresh);
/* As vb_split_recover(), but entries of the area; translate each with vb_packed_entry(). */
int vb_packed_recover(struct vb_packed *r, uint16_t *entries);
int vb_packed_get(struct vb_packed *r, const struct vb_mem *mem, struct vb_chain *c);
int vb_packed_entry(
	struct vb_packed *r, const struct vb_mem *mem, uint16_t entry, struct vb_chain *c);
void vb_packed_put(
	struct vb_packed *r, uint16_t id, uint16_t ndesc, uint16_t entry, uint32_t written);
void vb_packed_notify(struct vb_packed *r, bool on);
bool vb_packed_wants_call(const struct vb_packed *r);
/* avail_idx with its wrap counter in bit 15. */
uint16_t vb_packed_base(const struct vb_packed *r);

/* ---- for both (chain.c) ------------------------------------------------------------------------------------------------------ */

void vb_chain_begin(struct vb_chain *c);
/* One descriptor more. Flags as both kinds have them: VRING_DESC_F_WRITE. */
enum vb_fault vb_chain_add(
	struct vb_chain *c, const struct vb_mem *mem, uint64_t gpa, uint32_t len, uint16_t flags);
/* Everything in an indirect table. linked: a split ring's, where descriptors name their successors. */
enum vb_fault vb_chain_indirect(struct vb_chain *c, const struct vb_mem *mem, uint64_t gpa,
	uint32_t len, uint16_t size, bool linked);

#endif
