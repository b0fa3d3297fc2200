/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The VM's side of vhost-user, small: one memory file, virtqueues of either kind in it, and a reconnect that goes on with what
 * is in flight, as QEMU's does. The memory lies at VU_GPA in the guest's eyes; queue rings first, then whatever the caller takes.
 *
 * Thread: one. Errors: 0 or -errno, with a line on stderr.
 *
 *	vu_open(&(struct vu_cfg){.socket = path, .queues = 1, .queue_size = 256, .mem_bytes = 64 << 20}, &v);
 *	buf = vu_alloc(v, 4096, 4096);
 *	vu_put(v, 0, slot, parts, nparts); vu_kick(v, 0); ... vu_get(v, 0, &len) == slot
 */
#ifndef TESTS_VHOST_VU_H
#define TESTS_VHOST_VU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <linux/virtio_blk.h>
#include <linux/virtio_ring.h>

#define VU_GPA        0x100000ull
#define VU_GPA2       0x40000000ull /* of memory that is added later */
#define VU_QUEUES_MAX 16u
#define VU_PARTS_MAX  130u

struct vu_cfg {
	const char *socket;
	uint32_t queues;
	uint16_t queue_size;
	uint64_t mem_bytes;
	bool packed, indirect, no_inflight;
	uint64_t features; /* wanted; 0: all that are offered */
};

struct vu_part {
	void *at; /* in the memory, or any address with raw */
	uint32_t len;
	bool write; /* by the device */
};

struct vu_queue {
	void *ring; /* all of it */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	struct vring_packed_desc *pdesc;
	struct vring_packed_desc_event *driver, *device;
	uint16_t avail_idx, used_idx;
	bool avail_wrap, used_wrap;
	uint16_t nparts[1024]; /* packed: places a slot takes */
	int kick, call;
	bool pending; /* something was made available since the last kick */
	uint64_t kicks;
};

struct vu {
	struct vu_cfg cfg;
	int fd, slave, mem_fd, mem2_fd, inflight_fd;
	uint8_t *mem, *mem2;
	uint64_t mem2_bytes, used;
	uint64_t features, protocol;
	uint64_t inflight_bytes;
	uint32_t nqueues; /* the device's */
	struct virtio_blk_config config;
	struct vu_queue q[VU_QUEUES_MAX];
	struct vring_desc *tables; /* one indirect table per queue and slot */
};

int vu_open(const struct vu_cfg *cfg, struct vu **out);
void vu_close(struct vu *v);
/* After the other side has gone: the same memory, rings and requests. */
int vu_reconnect(struct vu *v);
bool vu_is_gone(struct vu *v); /* the other side has closed the connection */
void *vu_alloc(struct vu *v, size_t len, size_t align);
uint64_t vu_gpa(const struct vu *v, const void *at);
/* More memory, while everything runs (hot-add). Its beginning is *at. */
int vu_add_memory(struct vu *v, uint64_t len, void **at);
/* GET_VRING_BASE and start from nothing: what a driver's reset does. */
int vu_reset(struct vu *v);
/* One message of it, and the memory table once more: neither touches the memory. */
int vu_tell_base(struct vu *v, uint32_t queue);
int vu_tell_memory(struct vu *v);
/* A file of our own, empty, as the inflight area: the device's own cannot be shortened. */
int vu_own_inflight(struct vu *v);
int vu_get_config(struct vu *v);
/* A config change that was told of since the last call. */
bool vu_config_changed(struct vu *v);

/* slot: 0..queue_size-1; without indirect tables slot * nparts is the first descriptor in a split ring. */
void vu_put(struct vu *v, uint32_t q, uint16_t slot, const struct vu_part *p, unsigned int n);
/* The same again: the parts of the slot are those of the last vu_put(). Split only. */
void vu_put_again(struct vu *v, uint32_t q, uint16_t head);
void vu_kick(struct vu *v, uint32_t q);
/* A slot that is done (split: the head that is), or -1. */
int vu_get(struct vu *v, uint32_t q, uint32_t *len);
void vu_wait_call(struct vu *v, uint32_t q, int timeout_ms);
void vu_want_calls(struct vu *v, uint32_t q, bool on);

#endif
