/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Virtio-blk functions for VMs: in software each is a vhost-user-blk socket, DIR/VM.NSID.sock, that QEMU or libvirt attaches.
 * The VM's memory is reached directly, through the memory map its process gives (table 203's guest to host translation).
 *
 *	vhost_lib.c (librte_vhost, its thread)  ─▶ upcalls on the shard ─▶ queue.c ─▶ ring_*.c (checked) ─▶ request.c ─▶ submit_fn
 *
 * The VM is not trusted: ring.h says what is checked. A broken ring stops its disk, with an event, until the driver resets it. Requests in
 * flight are noted in memory that the VM's process keeps (inflight area): a card that was killed goes on with them.
 *
 * Queues are polled while there is work, without notifications; one that has been empty for poll_ns asks for kicks and is watched.
 * Interrupts go out once per round and queue.
 *
 * Thread: everything on the shard's; vhost_blk_vm_del() and vhost_blk_disk_del() wait through shard_wait() and are for control context only.
 * Ownership: the server owns VMs and disks; volumes belong to the caller until vhost_blk_disk_del() or vhost_blk_vm_del() returned 0.
 * Memory: request slots (about 3 KiB each) are allocated when a queue is started, none per I/O.
 * Errors: 0 or -errno, with *err (may be NULL) where a person has to read it.
 *
 *	vhost_blk_open(sh, &(struct vhost_blk_cfg){.submit_fn = submit, .arg = pipeline, .lib = &vhost_lib}, &vb);
 *	vhost_blk_vm_add(vb, &(struct vhost_blk_vm_cfg){.vm = 7, .name = "web1", .dir = "/run/parapet/vhost"}, &vm, &err);
 *	vhost_blk_disk_add(vm, &(struct vhost_blk_disk_cfg){.nsid = 1, .vol = v, .size_bytes = s, .block_bytes = 512}, &err);
 */
#ifndef DPU_FRONTEND_VHOST_BLK_VHOST_BLK_H
#define DPU_FRONTEND_VHOST_BLK_VHOST_BLK_H

#include <stdbool.h>
#include <stdint.h>

#include "common/base/err.h"
#include "dpu/core/io.h"
#include "dpu/core/shard.h"

#define VHOST_BLK_NSID_MAX   256u /* disks of a VM; numbers are 1..this */
#define VHOST_BLK_QUEUES_MAX 16u
#define VHOST_BLK_PATH_MAX   108u /* of a socket, with its end */
#define VHOST_BLK_ID_BYTES   20u

struct vhost_blk;
struct vhost_blk_vm;
struct vhost_lib_ops;

extern const struct vhost_lib_ops vhost_lib; /* librte_vhost; EAL has been started */

enum vhost_blk_event {
	VHOST_BLK_CONNECTED,
	VHOST_BLK_DISCONNECTED,
	VHOST_BLK_RING_BROKEN, /* a VM broke the rules of virtio */
	VHOST_BLK_MEMORY_REFUSED, /* its memory map is not what table 203 says */
	VHOST_BLK_RESUMED, /* requests of a former process are worked on again */
};

struct vhost_blk_cfg {
	/* As every submit (dpu/core/io.h); -EAGAIN: as much in flight as there may be: it is tried again. */
	int (*submit_fn)(void *arg, struct io_req *req);
	/* Something for the operator; text is valid during the call. May be NULL. */
	void (*event_fn)(
		void *arg, enum vhost_blk_event ev, uint32_t vm, uint32_t nsid, const char *text);
	void *arg;
	void *event_arg;
	const struct vhost_lib_ops *lib;
	uint32_t queues; /* of each disk; 0: 4 */
	uint64_t poll_ns; /* a queue without work is polled so long; 0: 50 us */
};

int vhost_blk_open(struct shard *sh, const struct vhost_blk_cfg *cfg, struct vhost_blk **out);
int vhost_blk_close(struct vhost_blk *vb); /* -EBUSY while there are VMs */

/* ---- VMs ---------------------------------------------------------------------------------------------------- */

/* The VM's memory as its row of table 203 says; 0: not said. */
struct vhost_blk_row {
	uint64_t host_addr; /* where the VM's process has guest_addr */
	uint64_t guest_addr; /* 0 with host_addr 0: not said */
	uint64_t mem_bytes; /* the map may not be larger */
};

struct vhost_blk_vm_cfg {
	uint32_t vm; /* goes into every io_req */
	const char *name; /* in the sockets' names */
	const char *dir; /* exists, absolute */
	struct vhost_blk_row row;
};

/* Whether sockets can be made in dir: -EINVAL (not absolute, too long), -ENOENT, -ENOTDIR, -EACCES. */
int vhost_blk_dir_check(const char *dir, const char *vm_name, struct err *err);
int vhost_blk_vm_add(struct vhost_blk *vb, const struct vhost_blk_vm_cfg *cfg,
	struct vhost_blk_vm **out, struct err *err);
/* Takes the sockets away and waits for requests in flight. -ETIMEDOUT: they have not come back; call again. */
int vhost_blk_vm_del(struct vhost_blk_vm *vm);
/* For connections made from now on. */
void vhost_blk_vm_set_row(struct vhost_blk_vm *vm, const struct vhost_blk_row *row);

/* ---- disks ---------------------------------------------------------------------------------------------------- */

struct vhost_blk_disk_cfg {
	uint32_t nsid; /* 1..VHOST_BLK_NSID_MAX */
	struct volume *vol;
	uint64_t size_bytes; /* a multiple of block_bytes */
	uint32_t block_bytes; /* 512 or 4096 */
	bool read_only;
	char id[VHOST_BLK_ID_BYTES + 1]; /* what get-id answers */
};

int vhost_blk_disk_add(
	struct vhost_blk_vm *vm, const struct vhost_blk_disk_cfg *cfg, struct err *err);
/* -ENOENT; -EBUSY: a driver is connected and force is not set; -ETIMEDOUT as vm_del. */
int vhost_blk_disk_del(struct vhost_blk_vm *vm, uint32_t nsid, bool force);
/* A driver that is connected is told. */
int vhost_blk_disk_resize(struct vhost_blk_vm *vm, uint32_t nsid, uint64_t size_bytes);

struct vhost_blk_disk_info {
	char socket[VHOST_BLK_PATH_MAX];
	bool connected;
	uint64_t features; /* as negotiated; 0: not yet */
	uint32_t queues, queues_running, queue_size; /* queue_size: of the first that runs */
	uint32_t in_flight;
	const char *fault; /* what broke its ring; NULL: nothing */
	uint32_t regions;
	struct vhost_blk_row memory; /* as the map says */
	uint64_t requests, faults, refused_maps, connections, resumed, kicks, interrupts;
};
int vhost_blk_disk_info(
	const struct vhost_blk_vm *vm, uint32_t nsid, struct vhost_blk_disk_info *out);
/* Drivers that are connected: 0 or 1; 0 where there is no such disk. */
uint32_t vhost_blk_disk_users(const struct vhost_blk_vm *vm, uint32_t nsid);
/* "version-1 flush mq ...", for people. Returns what snprintf() does. */
int vhost_blk_feature_names(uint64_t features, char *buf, size_t len);

/* ---- counters --------------------------------------------------------------------------------------------------- */
struct vhost_blk_vm_stats {
	uint32_t disks, connected, in_flight; /* now */
	uint64_t reads, writes, flushes, discards, write_zeroes, ids; /* since vm_add */
	uint64_t read_bytes, write_bytes;
	uint64_t failed, unsupported; /* requests that ended so */
	uint64_t connections, faults, refused_maps;
	uint64_t resumed; /* requests of a former process */
	uint64_t kicks, interrupts, interrupts_saved; /* saved: the driver did not want one */
	uint64_t
		rounds; /* polls of a queue that found something; (reads + ...) / rounds: the batch */
	uint64_t backend_waits;
};
void vhost_blk_vm_stats(const struct vhost_blk_vm *vm, struct vhost_blk_vm_stats *out);

#endif
