/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * librte_vhost, spoken here only. It reads the sockets on a thread of its own; what it tells is handed to the shard, which
 * takes none of the library's locks: the library holds them while it waits for us.
 *
 * Before a message that moves memory or a ring underneath, its queues are stopped, which waits for what is in flight; afterwards they are
 * started again from what the library then has. The configuration space and the inflight area are ours: the library leaves the one to
 * its users and believes the sizes of the other.
 *
 * All of it is memory that the VM's process may take away underneath. It is guarded (mem_guard.h) while it is mapped; once some of it was
 * replaced the connection is good for nothing: no memory is taken until the driver connects anew.
 */
#define ALLOW_EXPERIMENTAL_API /* protocol features, config change */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <rte_vhost.h>

#include "common/base/log.h"
#include "dpu/core/mem_guard.h"
#include "dpu/frontend/vhost_blk/vhost_blk_priv.h"

#define CONFIG_BYTES_MAX 256u
#define CLOSE_TIMEOUT_NS 30000000000ull

/* ---- messages, as the library hands them to its users (vhost-user protocol, "Message specification") -------------------- */

enum vl_request {
	VL_SET_FEATURES = 2,
	VL_RESET_OWNER = 4,
	VL_SET_MEM_TABLE = 5,
	VL_SET_VRING_NUM = 8,
	VL_SET_VRING_ADDR = 9,
	VL_SET_VRING_BASE = 10,
	VL_GET_VRING_BASE = 11,
	VL_SET_VRING_KICK = 12,
	VL_SET_VRING_CALL = 13,
	VL_SET_VRING_ERR = 14,
	VL_GET_QUEUE_NUM = 17,
	VL_SET_VRING_ENABLE = 18,
	VL_GET_CONFIG = 24,
	VL_SET_CONFIG = 25,
	VL_GET_INFLIGHT_FD = 31,
	VL_SET_INFLIGHT_FD = 32,
};

struct vl_inflight_msg {
	uint64_t mmap_size, mmap_offset;
	uint16_t num_queues, queue_size;
};

struct vl_msg {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t nregions, padding;
			struct {
				uint64_t gpa, len, user, offset;
			} r[VB_REGIONS_MAX];
		} memory;
		struct {
			uint32_t offset, size, flags;
			uint8_t region[CONFIG_BYTES_MAX];
		} config;
		struct vl_inflight_msg inflight;
		uint8_t all[632];
	} u;
	int fds[VB_REGIONS_MAX];
	int nfds;
} __attribute__((packed));

_Static_assert(
	sizeof(struct rte_vhost_inflight_info_split) == offsetof(struct vb_inflight_split, desc) &&
		sizeof(struct rte_vhost_inflight_desc_split) ==
			sizeof(struct vb_inflight_split_desc),
	"inflight area, split");
_Static_assert(
	sizeof(struct rte_vhost_inflight_desc_packed) == sizeof(struct vb_inflight_packed_desc),
	"inflight area, packed");

/* ---- one socket ------------------------------------------------------------------------------------------------------- */

struct vl_queue {
	bool ready; /* the library: everything of it is set */
	bool running; /* the shard serves it */
};

struct vl_disk {
	struct shard *sh;
	struct vb_disk *disk;
	char path[VHOST_BLK_PATH_MAX];
	uint64_t offered;
	uint32_t nqueues;
	atomic_bool closing; /* the shard is done with it: nothing is told any more */
	/* lock: config space, and vid for set_config() */
	pthread_mutex_t lock;
	uint8_t config[CONFIG_BYTES_MAX];
	int vid; /* -1: no connection */
	/* the library's thread only */
	uint64_t features;
	struct vb_mem mem;
	void *guarded[VB_REGIONS_MAX];
	uint32_t nguarded;
	bool memory_gone; /* something of this connection's was replaced */
	struct vl_queue queues[VHOST_BLK_QUEUES_MAX];
	uint8_t *area; /* inflight */
	size_t area_bytes;
	int area_fd;
	uint16_t area_queues, area_size;
	TAILQ_ENTRY(vl_disk) link;
};

static TAILQ_HEAD(, vl_disk) disks = TAILQ_HEAD_INITIALIZER(disks);
static struct vl_disk *by_vid[RTE_MAX_VHOST_DEVICE];
static pthread_mutex_t disks_lock = PTHREAD_MUTEX_INITIALIZER;

static struct vl_disk *of_vid(int vid)
{
	struct vl_disk *d = NULL;

	pthread_mutex_lock(&disks_lock);
	if (vid >= 0 && vid < RTE_MAX_VHOST_DEVICE)
		d = by_vid[vid];
	pthread_mutex_unlock(&disks_lock);
	return d;
}

static struct vl_disk *of_path(int vid)
{
	char path[VHOST_BLK_PATH_MAX];
	struct vl_disk *d;

	if (rte_vhost_get_ifname(vid, path, sizeof(path)) < 0)
		return NULL;
	pthread_mutex_lock(&disks_lock);
	TAILQ_FOREACH (d, &disks, link)
		if (!strcmp(d->path, path))
			break;
	pthread_mutex_unlock(&disks_lock);
	return d;
}

static void map_vid(int vid, struct vl_disk *d)
{
	pthread_mutex_lock(&disks_lock);
	if (vid >= 0 && vid < RTE_MAX_VHOST_DEVICE)
		by_vid[vid] = d;
	pthread_mutex_unlock(&disks_lock);
}

/* ---- to the shard and back ------------------------------------------------------------------------------------------------ */

struct vl_tell {
	struct vl_disk *d;
	uint32_t queue;
	bool reset;
	struct vb_ring_setup setup;
	int rc;
	uint16_t base;
	sem_t stopped;
};

static void tell_connected(void *arg)
{
	vb_disk_connected(((struct vl_tell *)arg)->d->disk);
}

static void tell_disconnected(void *arg)
{
	vb_disk_disconnected(((struct vl_tell *)arg)->d->disk);
}

static void tell_features(void *arg)
{
	struct vl_tell *t = arg;

	vb_disk_set_features(t->d->disk, t->d->features);
}

static void tell_memory(void *arg)
{
	struct vl_tell *t = arg;

	t->rc = vb_disk_set_memory(t->d->disk, &t->d->mem);
}

static void tell_start(void *arg)
{
	struct vl_tell *t = arg;

	t->rc = vb_queue_start(t->d->disk, t->queue, &t->setup);
}

static void when_stopped(void *arg, uint16_t base)
{
	struct vl_tell *t = arg;

	t->base = base;
	sem_post(&t->stopped);
}

static void tell_stop(void *arg)
{
	struct vl_tell *t = arg;

	vb_queue_stop(t->d->disk, t->queue, t->reset, when_stopped, t);
}

static int tell(struct vl_tell *t, void (*fn)(void *arg))
{
	int rc = atomic_load(&t->d->closing) ? -ESHUTDOWN : shard_call(t->d->sh, fn, t);

	return rc < 0 ? rc : t->rc;
}

/* Waits until nothing of it is in flight, then the library's indices are the queue's. */
static void queue_stop(struct vl_disk *d, int vid, uint32_t queue, bool reset)
{
	struct vl_tell t = {.d = d, .queue = queue, .reset = reset};

	if ((!d->queues[queue].running && !reset) || atomic_load(&d->closing))
		return;
	sem_init(&t.stopped, 0, 0);
	if (shard_post(d->sh, tell_stop, &t) == 0)
		while (sem_wait(&t.stopped) < 0 && errno == EINTR)
			;
	sem_destroy(&t.stopped);
	if (d->queues[queue].running)
		rte_vhost_set_vring_base(vid, (uint16_t)queue, t.base, t.base);
	d->queues[queue].running = false;
}

static void queues_stop(struct vl_disk *d, int vid, bool reset)
{
	for (uint32_t i = 0; i < d->nqueues; i++)
		queue_stop(d, vid, i, reset);
}

/* ---- starting a queue ------------------------------------------------------------------------------------------------------- */

/* The library looks at the addresses, but hands them out also where it found them wanting. */
static bool is_inside(const struct vl_disk *d, const void *p, size_t len, size_t align)
{
	const uint8_t *at = p;

	if (!p || (uintptr_t)p % align)
		return false;
	for (uint32_t i = 0; i < d->mem.n; i++)
		if (at >= d->mem.r[i].host && at < d->mem.r[i].host + d->mem.r[i].len)
			return len <= (size_t)(d->mem.r[i].host + d->mem.r[i].len - at);
	return false;
}

static bool ring_is_inside(
	const struct vl_disk *d, const struct rte_vhost_vring *v, bool packed, size_t n)
{
	if (packed)
		return is_inside(d, v->desc_packed, n * sizeof(*v->desc_packed), 16) &&
		       is_inside(d, v->driver_event, sizeof(*v->driver_event), 4) &&
		       is_inside(d, v->device_event, sizeof(*v->device_event), 4);
	return is_inside(d, v->desc, n * sizeof(*v->desc), 16) &&
	       is_inside(d, v->avail, sizeof(*v->avail) + n * sizeof(v->avail->ring[0]), 2) &&
	       is_inside(d, v->used, sizeof(*v->used) + n * sizeof(v->used->ring[0]), 4);
}

static size_t area_of_queue(bool packed, uint16_t size)
{
	size_t n = packed ? sizeof(struct vb_inflight_packed) +
				    size * sizeof(struct vb_inflight_packed_desc)
			  : sizeof(struct vb_inflight_split) +
				    size * sizeof(struct vb_inflight_split_desc);

	return RTE_ALIGN_MUL_CEIL(n, 64u);
}

static bool is_packed(const struct vl_disk *d)
{
	return d->features >> VIRTIO_F_RING_PACKED & 1;
}

/* The queue's part of the area; one that was used says so by its version. */
static void area_part(struct vl_disk *d, uint32_t queue, struct vb_ring_setup *s)
{
	struct vb_inflight_split *in; /* both kinds begin alike */

	if (!d->area || queue >= d->area_queues)
		return;
	in = (void *)(d->area + queue * area_of_queue(s->packed, d->area_size));
	s->inflight = in;
	s->inflight_fresh = in->version == 0; /* the ring sets it */
	in->desc_num = d->area_size;
}

static int queue_start(struct vl_disk *d, int vid, uint32_t queue)
{
	struct vl_tell t = {.d = d, .queue = queue};
	struct rte_vhost_vring v;
	uint16_t avail, used;
	int rc;

	if (d->queues[queue].running || atomic_load(&d->closing))
		return 0;
	if (rte_vhost_get_vhost_vring(vid, (uint16_t)queue, &v) < 0 ||
		rte_vhost_get_vring_base(vid, (uint16_t)queue, &avail, &used) < 0)
		return -EINVAL;
	t.setup = (struct vb_ring_setup){.packed = is_packed(d),
		.size = v.size,
		.desc = v.desc,
		.avail = v.avail,
		.used = v.used,
		.base = avail};
	if (v.size > VB_QUEUE_SIZE_MAX || !ring_is_inside(d, &v, t.setup.packed, v.size)) {
		log_warn("%s: queue %u: the ring is not in the VM's memory", d->path, queue);
		return -EINVAL;
	}
	area_part(d, queue, &t.setup);
	/* Ours, whatever becomes of the library's. */
	t.setup.kick_fd = v.kickfd >= 0 ? dup(v.kickfd) : -1;
	t.setup.call_fd = v.callfd >= 0 ? dup(v.callfd) : -1;
	rc = tell(&t, tell_start);
	d->queues[queue].running = rc == 0;
	if (rc < 0)
		log_warn("%s: queue %u does not start: %s", d->path, queue, strerror(-rc));
	return rc;
}

static void queues_start(struct vl_disk *d, int vid)
{
	for (uint32_t i = 0; i < d->nqueues; i++)
		if (d->queues[i].ready)
			queue_start(d, vid, i);
}

/* ---- the inflight area ---------------------------------------------------------------------------------------------------------- */

static void area_close(struct vl_disk *d)
{
	if (d->area) {
		d->memory_gone |= mem_guard_del(d->area);
		munmap(d->area, d->area_bytes);
	}
	if (d->area_fd >= 0)
		close(d->area_fd);
	d->area = NULL;
	d->area_fd = -1;
	d->area_queues = d->area_size = 0;
}

static bool area_is_sane(const struct vl_disk *d, uint32_t size, const struct vl_inflight_msg *i)
{
	return size >= offsetof(struct vl_inflight_msg, queue_size) && i->num_queues &&
	       i->num_queues <= d->nqueues && i->queue_size && i->queue_size <= VB_QUEUE_SIZE_MAX;
}

static int area_map(struct vl_disk *d, int fd, const struct vl_inflight_msg *i)
{
	uint64_t offset = i->mmap_offset;
	size_t need = i->num_queues * area_of_queue(is_packed(d), i->queue_size);
	struct stat st;
	void *p;

	/* It is as large as it is said to be. */
	if (i->mmap_size < need || fstat(fd, &st) < 0 || st.st_size < 0 ||
		offset > (uint64_t)st.st_size || need > (uint64_t)st.st_size - offset)
		return -EINVAL;
	p = mmap(NULL, need, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
	if (p == MAP_FAILED)
		return -errno;
	if (mem_guard_add(p, RTE_ALIGN_MUL_CEIL(need, (size_t)sysconf(_SC_PAGESIZE))) < 0) {
		munmap(p, need);
		return -ENOSPC;
	}
	area_close(d);
	d->area = p;
	d->area_bytes = need;
	d->area_fd = fd;
	d->area_queues = i->num_queues;
	d->area_size = i->queue_size;
	return 0;
}

static enum rte_vhost_msg_result get_inflight(struct vl_disk *d, struct vl_msg *m)
{
	struct vl_inflight_msg i = m->u.inflight;
	int fd;

	if (!area_is_sane(d, m->size, &i))
		return RTE_VHOST_MSG_RESULT_ERR;
	i.mmap_size = i.num_queues * area_of_queue(is_packed(d), i.queue_size);
	i.mmap_offset = 0;
	fd = memfd_create("parapet-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0 || ftruncate(fd, (off_t)i.mmap_size) < 0 || area_map(d, fd, &i) < 0) {
		if (fd >= 0)
			close(fd);
		return RTE_VHOST_MSG_RESULT_ERR;
	}
	fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
	m->u.inflight = i;
	m->size = sizeof(i);
	m->fds[0] = fd; /* stays ours; the message carries a copy */
	m->nfds = 1;
	return RTE_VHOST_MSG_RESULT_REPLY;
}

static enum rte_vhost_msg_result set_inflight(struct vl_disk *d, int vid, struct vl_msg *m)
{
	struct vl_inflight_msg i = m->u.inflight;

	queues_stop(d, vid, false);
	if (!area_is_sane(d, m->size, &i) || m->nfds != 1 || area_map(d, m->fds[0], &i) < 0) {
		log_warn("%s: the inflight area is refused: its sizes are wrong", d->path);
		return RTE_VHOST_MSG_RESULT_ERR;
	}
	m->fds[0] = -1;
	m->nfds = 0;
	queues_start(d, vid);
	return RTE_VHOST_MSG_RESULT_OK;
}

/* ---- before the library looks at a message ------------------------------------------------------------------------------------------ */

static enum rte_vhost_msg_result get_config(struct vl_disk *d, struct vl_msg *m)
{
	const size_t head = offsetof(struct vl_msg, u.config.region) - offsetof(struct vl_msg, u);
	uint32_t size = m->u.config.size, offset = m->u.config.offset;

	if (m->size < head || size > CONFIG_BYTES_MAX || offset > CONFIG_BYTES_MAX - size)
		return RTE_VHOST_MSG_RESULT_ERR;
	pthread_mutex_lock(&d->lock);
	memcpy(m->u.config.region, d->config + offset, size);
	pthread_mutex_unlock(&d->lock);
	m->size = (uint32_t)(head + size);
	m->nfds = 0;
	return RTE_VHOST_MSG_RESULT_REPLY;
}

/* From here on the library may unmap it; nobody of us touches it. */
static void memory_let_go(struct vl_disk *d)
{
	while (d->nguarded)
		d->memory_gone |= mem_guard_del(d->guarded[--d->nguarded]);
	d->mem.n = 0;
}

/* A region that is larger than its file is gone before it is used. */
static bool memory_is_there(const struct vl_disk *d, const struct vl_msg *m)
{
	uint32_t n = m->u.memory.nregions;

	if (!n || n > VB_REGIONS_MAX || m->nfds != (int)n)
		return false;
	for (uint32_t i = 0; i < n; i++) {
		uint64_t offset = m->u.memory.r[i].offset, len = m->u.memory.r[i].len;
		struct stat st;

		if (!len || m->u.memory.r[i].gpa + len < len || offset + len < len ||
			fstat(m->fds[i], &st) < 0)
			return false;
		if (S_ISREG(st.st_mode) && offset + len > (uint64_t)st.st_size)
			return false;
	}
	return true;
}

static uint32_t queue_of(const struct vl_msg *m)
{
	switch (m->request) {
	case VL_SET_VRING_KICK:
	case VL_SET_VRING_CALL:
	case VL_SET_VRING_ERR:
		return m->u.u64 & 0xff;
	default:
		return m->u.state.index;
	}
}

static enum rte_vhost_msg_result before_queue(struct vl_disk *d, int vid, struct vl_msg *m)
{
	uint32_t queue = queue_of(m);

	if (queue >= d->nqueues) {
		log_warn("%s: queue %u: there are %u", d->path, queue, d->nqueues);
		return RTE_VHOST_MSG_RESULT_ERR;
	}
	if (m->request == VL_SET_VRING_NUM &&
		(!m->u.state.num || m->u.state.num > VB_QUEUE_SIZE_MAX)) {
		log_warn("%s: queue %u: size %u; at most %u", d->path, queue, m->u.state.num,
			VB_QUEUE_SIZE_MAX);
		return RTE_VHOST_MSG_RESULT_ERR;
	}
	if (m->request != VL_SET_VRING_ERR &&
		(m->request != VL_SET_VRING_ENABLE || !m->u.state.num))
		queue_stop(d, vid, queue, m->request == VL_GET_VRING_BASE);
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static enum rte_vhost_msg_result judge(struct vl_disk *d, int vid, struct vl_msg *m)
{
	switch (m->request) {
	case VL_GET_QUEUE_NUM:
		m->u.u64 = d->nqueues;
		m->size = sizeof(m->u.u64);
		m->nfds = 0;
		return RTE_VHOST_MSG_RESULT_REPLY;
	case VL_GET_CONFIG:
		return get_config(d, m);
	case VL_SET_CONFIG:
		return RTE_VHOST_MSG_RESULT_OK; /* nothing in it can be set */
	case VL_GET_INFLIGHT_FD:
		return get_inflight(d, m);
	case VL_SET_INFLIGHT_FD:
		return set_inflight(d, vid, m);
	case VL_SET_MEM_TABLE:
		if (!memory_is_there(d, m)) {
			log_warn("%s: the memory map is refused: its files are shorter", d->path);
			return RTE_VHOST_MSG_RESULT_ERR;
		}
		queues_stop(d, vid, false);
		memory_let_go(d);
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	case VL_RESET_OWNER:
		queues_stop(d, vid, true);
		memory_let_go(d);
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	case VL_SET_VRING_NUM:
	case VL_SET_VRING_ADDR:
	case VL_SET_VRING_BASE:
	case VL_GET_VRING_BASE:
	case VL_SET_VRING_KICK:
	case VL_SET_VRING_CALL:
	case VL_SET_VRING_ERR:
	case VL_SET_VRING_ENABLE:
		return before_queue(d, vid, m);
	default:
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	}
}

static enum rte_vhost_msg_result before(int vid, void *msg)
{
	struct vl_disk *d = of_vid(vid);
	struct vl_msg *m = msg;
	enum rte_vhost_msg_result r;

	mem_guard_thread_begin(); /* the library looks into memory that it has just mapped */
	r = d ? judge(d, vid, m) : RTE_VHOST_MSG_RESULT_ERR;
	/* The library does not close what comes with a message that somebody else refuses. */
	for (int i = 0; r == RTE_VHOST_MSG_RESULT_ERR && i < m->nfds && i < (int)VB_REGIONS_MAX;
		i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
	return r;
}

/* ---- and after ------------------------------------------------------------------------------------------------------------------------- */

/* Whole mappings, as the library has made them. */
static int memory_guard(struct vl_disk *d, const struct rte_vhost_memory *mem)
{
	for (uint32_t i = 0; i < mem->nregions && i < VB_REGIONS_MAX; i++) {
		int rc = mem_guard_add(mem->regions[i].mmap_addr, mem->regions[i].mmap_size);

		if (rc < 0)
			return rc;
		d->guarded[d->nguarded++] = mem->regions[i].mmap_addr;
	}
	return d->memory_gone || mem_guard_is_broken(d->area) ? -EFAULT : 0;
}

static int take_memory(struct vl_disk *d, int vid)
{
	struct vl_tell t = {.d = d};
	struct rte_vhost_memory *mem;
	int rc;

	if (rte_vhost_get_mem_table(vid, &mem) < 0)
		return -EINVAL;
	rc = memory_guard(d, mem);
	d->mem.n = RTE_MIN(mem->nregions, VB_REGIONS_MAX);
	for (uint32_t i = 0; i < d->mem.n; i++)
		d->mem.r[i] = (struct vb_region){.gpa = mem->regions[i].guest_phys_addr,
			.len = mem->regions[i].size,
			.host = (uint8_t *)(uintptr_t)mem->regions[i].host_user_addr,
			.user = mem->regions[i].guest_user_addr};
	free(mem);
	if (rc == 0)
		rc = tell(&t, tell_memory);
	if (rc < 0)
		memory_let_go(d);
	return rc;
}

static enum rte_vhost_msg_result after(int vid, void *msg)
{
	struct vl_disk *d = of_vid(vid);
	struct vl_msg *m = msg;
	struct vl_tell t = {.d = d};

	if (!d)
		return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
	d->memory_gone |= mem_guard_thread_end();
	switch (m->request) {
	case VL_SET_FEATURES:
		rte_vhost_get_negotiated_features(vid, &d->features);
		tell(&t, tell_features);
		break;
	case VL_SET_MEM_TABLE:
		if (take_memory(d, vid) < 0)
			return RTE_VHOST_MSG_RESULT_ERR;
		queues_start(d, vid);
		break;
	case VL_SET_VRING_NUM:
	case VL_SET_VRING_ADDR:
	case VL_SET_VRING_BASE:
		if (d->queues[queue_of(m)].ready)
			queue_start(d, vid, queue_of(m));
		break;
	default:
		break;
	}
	return RTE_VHOST_MSG_RESULT_NOT_HANDLED;
}

static const struct rte_vhost_user_extern_ops extern_ops = {
	.pre_msg_handle = before,
	.post_msg_handle = after,
};

/* ---- callbacks ---------------------------------------------------------------------------------------------------------------------- */

static int new_connection(int vid)
{
	struct vl_disk *d = of_path(vid);
	struct vl_tell t = {.d = d};

	if (!d || atomic_load(&d->closing))
		return -1;
	if (d->vid >= 0) {
		log_warn("%s: a second driver is refused", d->path);
		return -1;
	}
	/* Declared without const, and not written to. */
	if (rte_vhost_extern_callback_register(vid, &extern_ops, NULL) < 0)
		return -1;
	memset(d->queues, 0, sizeof(d->queues));
	d->mem.n = 0;
	d->memory_gone = false;
	d->features = 0;
	map_vid(vid, d);
	pthread_mutex_lock(&d->lock);
	d->vid = vid;
	pthread_mutex_unlock(&d->lock);
	tell(&t, tell_connected);
	return 0;
}

static void destroy_connection(int vid)
{
	struct vl_disk *d = of_vid(vid);
	struct vl_tell t = {.d = d};

	if (!d)
		return;
	queues_stop(d, vid, true);
	tell(&t, tell_disconnected);
	memory_let_go(d);
	area_close(d);
	map_vid(vid, NULL);
	pthread_mutex_lock(&d->lock);
	d->vid = -1;
	pthread_mutex_unlock(&d->lock);
}

static int new_device(int vid)
{
	return 0; /* queues are started one by one */
}

static void destroy_device(int vid)
{
	struct vl_disk *d = of_vid(vid);

	if (d)
		queues_stop(d, vid, false);
}

static int vring_state_changed(int vid, uint16_t queue, int enable)
{
	struct vl_disk *d = of_vid(vid);

	if (!d || queue >= d->nqueues)
		return 0;
	d->queues[queue].ready = enable;
	if (enable)
		return queue_start(d, vid, queue);
	queue_stop(d, vid, queue, false);
	return 0;
}

static const struct rte_vhost_device_ops device_ops = {
	.new_device = new_device,
	.destroy_device = destroy_device,
	.vring_state_changed = vring_state_changed,
	.new_connection = new_connection,
	.destroy_connection = destroy_connection,
};

/* ---- open and close -------------------------------------------------------------------------------------------------------------------- */

/* A socket that a former card left behind goes; anything else stays. */
static int make_way(const char *path, struct err *err)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, rc;

	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0
				       : err_set(err, -errno, path, NULL, "%s", strerror(errno));
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, -EEXIST, path, NULL, "exists, and is no socket");
	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(err, -errno, path, NULL, "%s", strerror(errno));
	rc = connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0 ? -errno : 0;
	close(fd);
	if (rc == 0 || rc == -EAGAIN)
		return err_set(err, -EADDRINUSE, path, NULL, "another process listens there");
	return unlink(path) < 0 && errno != ENOENT
		       ? err_set(err, -errno, path, NULL, "%s", strerror(errno))
		       : 0;
}

static int listen_at(const struct vl_disk *d, struct err *err)
{
	const uint64_t protocol = 1ull << VHOST_USER_PROTOCOL_F_MQ |
				  1ull << VHOST_USER_PROTOCOL_F_REPLY_ACK |
				  1ull << VHOST_USER_PROTOCOL_F_SLAVE_REQ |
				  1ull << VHOST_USER_PROTOCOL_F_CONFIG |
				  1ull << VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD;

	if (rte_vhost_driver_register(d->path, 0) < 0)
		return err_set(err, -ENOSPC, d->path, NULL, "there are too many vhost sockets");
	/* Setting features also says that this is no network device. */
	if (rte_vhost_driver_set_features(
		    d->path, d->offered | 1ull << VHOST_USER_F_PROTOCOL_FEATURES) == 0 &&
		rte_vhost_driver_set_protocol_features(d->path, protocol) == 0 &&
		rte_vhost_driver_callback_register(d->path, &device_ops) == 0 &&
		rte_vhost_driver_start(d->path) == 0)
		return 0;
	rte_vhost_driver_unregister(d->path);
	return err_set(err, -EIO, d->path, NULL, "the socket cannot be made");
}

static void unlist(struct vl_disk *d)
{
	pthread_mutex_lock(&disks_lock);
	TAILQ_REMOVE(&disks, d, link);
	for (int i = 0; i < RTE_MAX_VHOST_DEVICE; i++)
		if (by_vid[i] == d)
			by_vid[i] = NULL;
	pthread_mutex_unlock(&disks_lock);
}

static void disk_free(struct vl_disk *d)
{
	unlist(d);
	area_close(d);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

static int lib_open(const struct vhost_lib_cfg *cfg, void **out, struct err *err)
{
	struct vl_disk *d;
	int rc = make_way(cfg->path, err);

	if (rc < 0)
		return rc;
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(err, -ENOMEM, cfg->path, NULL, "out of memory");
	d->sh = cfg->sh;
	d->disk = cfg->disk;
	d->offered = cfg->features;
	d->nqueues = cfg->queues;
	d->vid = d->area_fd = -1;
	pthread_mutex_init(&d->lock, NULL);
	snprintf(d->path, sizeof(d->path), "%s", cfg->path);
	memcpy(d->config, cfg->config, RTE_MIN(cfg->config_bytes, sizeof(d->config)));
	pthread_mutex_lock(&disks_lock);
	TAILQ_INSERT_TAIL(&disks, d, link);
	pthread_mutex_unlock(&disks_lock);
	rc = listen_at(d, err);
	if (rc < 0) {
		disk_free(d);
		return rc;
	}
	*out = d;
	return 0;
}

struct vl_closing {
	struct vl_disk *d;
	bool done; /* the shard's */
};

static void closed(void *arg)
{
	((struct vl_closing *)arg)->done = true;
}

/* The library waits here for its own thread, which may be waiting for the shard: not on the shard's thread. */
static void *unregister(void *arg)
{
	struct vl_closing *c = arg;

	rte_vhost_driver_unregister(c->d->path);
	while (shard_post(c->d->sh, closed, c) < 0)
		sleep(1);
	return NULL;
}

static bool is_closed(void *arg)
{
	return ((struct vl_closing *)arg)->done;
}

static int lib_close(void *lib)
{
	struct vl_disk *d = lib;
	struct vl_closing c = {.d = d};
	pthread_t thread;
	int rc;

	atomic_store(&d->closing, true);
	rc = pthread_create(&thread, NULL, unregister, &c);
	if (rc)
		return -rc;
	/* It ends: whatever the library's thread waits for is served meanwhile. */
	shard_wait(d->sh, is_closed, &c, 0);
	pthread_join(thread, NULL);
	disk_free(d);
	return 0;
}

static void lib_set_config(void *lib, const void *config, size_t len)
{
	struct vl_disk *d = lib;
	uint64_t features = 0;

	pthread_mutex_lock(&d->lock);
	memcpy(d->config, config, RTE_MIN(len, sizeof(d->config)));
	/* Under the lock the connection stays. */
	if (d->vid >= 0 && rte_vhost_get_negotiated_protocol_features(d->vid, &features) == 0 &&
		features >> VHOST_USER_PROTOCOL_F_SLAVE_REQ & 1)
		rte_vhost_slave_config_change(d->vid, false);
	pthread_mutex_unlock(&d->lock);
}

const struct vhost_lib_ops vhost_lib = {
	.open = lib_open,
	.close = lib_close,
	.set_config = lib_set_config,
};
