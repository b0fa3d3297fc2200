/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of the vhost-user-blk server, and the seam to what speaks vhost-user (vhost_lib.c; tests have a twin). */
#ifndef DPU_FRONTEND_VHOST_BLK_VHOST_BLK_PRIV_H
#define DPU_FRONTEND_VHOST_BLK_VHOST_BLK_PRIV_H

#include <sys/queue.h>

#include "dpu/frontend/vhost_blk/ring.h"
#include "dpu/frontend/vhost_blk/vhost_blk.h"

#define VB_RANGES_MAX        32u /* of a discard or write zeroes */
#define VB_RANGE_SECTORS_MAX (1u << 21) /* 1 GiB */
#define VB_DATA_BYTES_MAX    (32u << 20) /* of a read or write */
#define VB_SIZE_MAX          (256u << 10) /* of a segment, as the driver is told */
#define VB_SECTOR            512u
#define VB_TELL_AGAIN_NS     10000000000ull /* a VM that does the same again and again fills no log */

/* ---- the seam -------------------------------------------------------------------------------------------------- */

struct vb_disk;

struct vhost_lib_cfg {
	struct shard *sh;
	const char *path;
	uint64_t features; /* offered */
	uint32_t queues;
	const void *config; /* struct virtio_blk_config, copied */
	size_t config_bytes;
	struct vb_disk *disk; /* of the upcalls */
};

struct vhost_lib_ops {
	/* Listens. Upcalls come from now on, on the shard's thread. */
	int (*open)(const struct vhost_lib_cfg *cfg, void **out, struct err *err);
	/* No queue runs any more. Waits through shard_wait(); no upcall comes once it has returned. */
	int (*close)(void *lib);
	/* Another config space; a driver that is connected is told. */
	void (*set_config)(void *lib, const void *config, size_t len);
};

/* A queue as the driver has set it up. The descriptors become the queue's, also on error. */
struct vb_ring_setup {
	bool packed;
	uint16_t size;
	void *desc, *avail,
		*used; /* packed: desc, driver and device area; checked to be the VM's, and large enough */
	uint16_t base; /* packed: with the wrap counter in bit 15 */
	void *inflight; /* NULL: none */
	bool inflight_fresh;
	int kick_fd, call_fd; /* -1: none */
};

/* Upcalls. */
void vb_disk_connected(struct vb_disk *d);
void vb_disk_disconnected(struct vb_disk *d); /* no queue is running */
void vb_disk_set_features(struct vb_disk *d, uint64_t features);
/* The memory map; no queue is running. It is guarded (mem_guard.h), as the inflight area is. -EPERM: not as table 203 says; it is not used. */
int vb_disk_set_memory(struct vb_disk *d, const struct vb_mem *mem);
int vb_queue_start(struct vb_disk *d, uint32_t queue, const struct vb_ring_setup *s);
/* Takes nothing more; stopped_fn(arg, base) once nothing of it is in flight, at once where nothing is or it does not run (base: what
 * vb_queue_start() was given last). reset: what was wrong with the ring is forgotten. */
void vb_queue_stop(struct vb_disk *d, uint32_t queue, bool reset,
	void (*stopped_fn)(void *arg, uint16_t base), void *arg);

/* ---- inside ---------------------------------------------------------------------------------------------------------- */

enum vb_queue_state {
	VB_QUEUE_STOPPED,
	VB_QUEUE_RUNNING,
	VB_QUEUE_STOPPING, /* waits for what is in flight */
};

struct vb_range {
	uint64_t off_bytes, len_bytes;
	uint32_t flags; /* of the io_req */
};

/* A request from the ring to the status byte. */
struct vb_slot {
	struct io_req req;
	struct vb_queue *q;
	uint8_t *status; /* in the VM's memory */
	uint32_t written; /* bytes, where it succeeds */
	uint16_t head, ndesc, entry;
	uint16_t range, nranges;
	TAILQ_ENTRY(vb_slot) link; /* free, or waiting for the backend */
	struct vb_range ranges[VB_RANGES_MAX];
	struct iovec iov[VB_IOV_MAX];
};
TAILQ_HEAD(vb_slots, vb_slot);

struct vb_stop_waiter {
	void (*stopped_fn)(void *arg, uint16_t base);
	void *arg;
};

struct vb_queue {
	struct vb_disk *disk;
	uint32_t index;
	enum vb_queue_state state;
	bool packed, hot, sleeping, call_pending, fault;
	uint16_t size, base;
	union {
		struct vb_split split;
		struct vb_packed ring_packed;
	};
	struct vb_slot *slots;
	uint8_t *busy; /* by head or buffer id */
	struct vb_slots free, waiting;
	uint32_t nbusy;
	uint64_t last_work_ns;
	int kick_fd, call_fd;
	struct fd_watch kick;
	struct vb_stop_waiter waiters[4];
	unsigned int nwaiters;
	TAILQ_ENTRY(vb_queue) hot_link;
};

struct vb_disk {
	struct vhost_blk_vm *vm;
	struct vhost_blk_disk_cfg cfg;
	struct vb_queue *queues;
	struct vb_mem mem;
	void *lib;
	char path[VHOST_BLK_PATH_MAX];
	uint64_t features, sectors;
	uint32_t in_flight;
	enum vb_fault fault;
	bool connected, closing;
	bool memory_gone; /* until the next connection */
	bool link_told; /* the operator heard of the connection */
	uint64_t link_told_ns;
	uint64_t told_ns; /* when the operator heard of a fault last */
	uint64_t requests, faults, refused_maps, connections, resumed, kicks, interrupts;
};

struct vhost_blk_vm {
	struct vhost_blk *vb;
	uint32_t vm;
	char name[68], dir[VHOST_BLK_PATH_MAX];
	struct vhost_blk_row row;
	struct vb_disk *disks[VHOST_BLK_NSID_MAX];
	struct vhost_blk_vm_stats stats;
	TAILQ_ENTRY(vhost_blk_vm) link;
};

struct vhost_blk {
	struct shard *sh;
	struct vhost_blk_cfg cfg;
	struct poller poller;
	uint64_t guard_hits; /* that were looked at */
	TAILQ_HEAD(, vb_queue) hot; /* polled, or with an interrupt to give */
	TAILQ_HEAD(, vhost_blk_vm) vms;
};

void vb_event(struct vb_disk *d, enum vhost_blk_event ev, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* queue.c */
int vb_poll(void *arg); /* of the server */
void vb_queue_put(struct vb_slot *s, uint32_t written); /* gives the buffer back, frees the slot */
void vb_queue_fault(struct vb_queue *q, enum vb_fault f);
void vb_queue_hot(struct vb_queue *q);
bool vb_queue_memory_is_gone(const struct vb_queue *q); /* of what is the ring's own */

/* server.c */
void vb_look_at_memory(struct vhost_blk *vb); /* some VM's has gone: stops its disks */
/* Whether the disk's is: what it reads there is no word of the VM's any more. */
bool vb_disk_memory_is_gone(struct vb_disk *d);

/* request.c */
/* Begins the request whose buffer is *c, in s. A fault: nothing has begun. */
enum vb_fault vb_request_begin(struct vb_slot *s, const struct vb_chain *c);
/* The backend once more; false: it still takes nothing. */
bool vb_request_submit(struct vb_slot *s);

/* config.c */
struct virtio_blk_config;
uint64_t vb_features(const struct vb_disk *d);
void vb_config_fill(const struct vb_disk *d, struct virtio_blk_config *c);
/* The map as a row of table 203 has it. */
void vb_memory_row(const struct vb_mem *mem, struct vhost_blk_row *out);
/* What contradicts the row, or false. */
bool vb_memory_differs(
	const struct vb_mem *mem, const struct vhost_blk_row *row, char *why, size_t len);

#endif
