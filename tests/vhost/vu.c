/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/vhost/vu.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_config.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	GET_QUEUE_NUM = 17,
	SET_VRING_ENABLE = 18,
	SET_SLAVE_REQ_FD = 21,
	GET_CONFIG = 24,
	GET_INFLIGHT_FD = 31,
	SET_INFLIGHT_FD = 32,
};
#define F_PROTOCOL  (1ull << 30)
#define P_MQ        (1ull << 0)
#define P_REPLY_ACK (1ull << 3)
#define P_SLAVE     (1ull << 5)
#define P_CONFIG    (1ull << 9)
#define P_INFLIGHT  (1ull << 12)
#define NEED_REPLY  8u

struct msg {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t n, padding;
			struct {
				uint64_t gpa, len, user, offset;
			} r[8];
		} memory;
		struct {
			uint32_t offset, size, flags;
			uint8_t region[256];
		} config;
		struct {
			uint64_t mmap_size, mmap_offset;
			uint16_t num_queues, queue_size;
		} inflight;
	} u;
} __attribute__((packed));
#define HEAD offsetof(struct msg, u)

/* ---- messages ------------------------------------------------------------------------------------------------- */

static int send_msg(struct vu *v, struct msg *m, uint32_t size, const int *fds, int nfds)
{
	char control[CMSG_SPACE(8 * sizeof(int))] = {0};
	struct iovec iov = {m, HEAD + size};
	struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
	struct cmsghdr *c;

	m->flags |= 1;
	m->size = size;
	if (nfds) {
		h.msg_control = control;
		h.msg_controllen = CMSG_SPACE((size_t)nfds * sizeof(int));
		c = CMSG_FIRSTHDR(&h);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN((size_t)nfds * sizeof(int));
		memcpy(CMSG_DATA(c), fds, (size_t)nfds * sizeof(int));
	}
	return sendmsg(v->fd, &h, MSG_NOSIGNAL) == (ssize_t)(HEAD + size) ? 0 : -EPIPE;
}

static int recv_msg(int from, struct msg *m, int *fd)
{
	char control[CMSG_SPACE(8 * sizeof(int))];
	struct iovec iov = {m, HEAD};
	struct msghdr h = {.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control)};
	struct cmsghdr *c;

	if (recvmsg(from, &h, MSG_WAITALL | MSG_CMSG_CLOEXEC) != (ssize_t)HEAD ||
		m->size > sizeof(m->u))
		return -EPIPE;
	c = CMSG_FIRSTHDR(&h);
	if (fd && c && c->cmsg_type == SCM_RIGHTS)
		memcpy(fd, CMSG_DATA(c), sizeof(*fd));
	if (m->size && recv(from, &m->u, m->size, MSG_WAITALL) != (ssize_t)m->size)
		return -EPIPE;
	return 0;
}

static int ask(struct vu *v, struct msg *m, uint32_t size, int *fd)
{
	uint32_t request = m->request;
	int rc = send_msg(v, m, size, NULL, 0);

	if (rc == 0)
		rc = recv_msg(v->fd, m, fd);
	return rc == 0 && m->request != request ? -EPROTO : rc;
}

/* Tells, and waits until it has been carried out. */
static int tell(struct vu *v, struct msg *m, uint32_t size, const int *fds, int nfds)
{
	bool ack = v->protocol & P_REPLY_ACK;
	int rc;

	m->flags = ack ? NEED_REPLY : 0;
	rc = send_msg(v, m, size, fds, nfds);
	if (rc == 0 && ack)
		rc = recv_msg(v->fd, m, NULL);
	return rc == 0 && ack && m->u.u64 ? -EPERM : rc;
}

static int tell_u64(struct vu *v, uint32_t request, uint64_t value)
{
	struct msg m = {.request = request, .u.u64 = value};

	return tell(v, &m, 8, NULL, 0);
}

static int tell_state(struct vu *v, uint32_t request, uint32_t index, uint32_t num)
{
	struct msg m = {.request = request, .u.state = {index, num}};

	return tell(v, &m, 8, NULL, 0);
}

/* ---- memory and queues -------------------------------------------------------------------------------------------- */

uint64_t vu_gpa(const struct vu *v, const void *at)
{
	const uint8_t *p = at;

	if (v->mem2 && p >= v->mem2 && p < v->mem2 + v->mem2_bytes)
		return VU_GPA2 + (uint64_t)(p - v->mem2);
	return VU_GPA + (uint64_t)(p - v->mem);
}

void *vu_alloc(struct vu *v, size_t len, size_t align)
{
	uint64_t at = (v->used + align - 1) / align * align;

	if (at + len > v->cfg.mem_bytes)
		return NULL;
	v->used = at + len;
	return v->mem + at;
}

static int queue_alloc(struct vu *v, struct vu_queue *q)
{
	size_t n = v->cfg.queue_size;

	q->ring = q->desc = vu_alloc(v, n * 16, 4096);
	q->pdesc = q->ring;
	q->avail = vu_alloc(v, 6 + 2 * n, 64);
	q->used = vu_alloc(v, 6 + 8 * n, 64);
	q->driver = (void *)q->avail;
	q->device = (void *)q->used;
	q->avail_wrap = q->used_wrap = true;
	q->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	q->call = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return q->used && q->kick >= 0 && q->call >= 0 ? 0 : -ENOMEM;
}

int vu_tell_memory(struct vu *v)
{
	struct msg m = {.request = SET_MEM_TABLE, .u.memory.n = 1};
	int fds[2] = {v->mem_fd, v->mem2_fd};

	m.u.memory.r[0].gpa = VU_GPA;
	m.u.memory.r[0].len = v->cfg.mem_bytes;
	m.u.memory.r[0].user = (uintptr_t)v->mem;
	if (v->mem2) {
		m.u.memory.n = 2;
		m.u.memory.r[1].gpa = VU_GPA2;
		m.u.memory.r[1].len = v->mem2_bytes;
		m.u.memory.r[1].user = (uintptr_t)v->mem2;
	}
	return tell(v, &m, 8 + m.u.memory.n * 32, fds, (int)m.u.memory.n);
}

int vu_add_memory(struct vu *v, uint64_t len, void **at)
{
	v->mem2_fd = memfd_create("vhost-io-more", MFD_CLOEXEC);
	if (v->mem2_fd < 0 || ftruncate(v->mem2_fd, (off_t)len) < 0)
		return -errno;
	v->mem2 = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, v->mem2_fd, 0);
	if (v->mem2 == MAP_FAILED)
		return -errno;
	v->mem2_bytes = len;
	*at = v->mem2;
	return vu_tell_memory(v);
}

static int tell_fd(struct vu *v, uint32_t request, uint32_t index, int fd)
{
	struct msg m = {.request = request, .u.u64 = index};

	return tell(v, &m, 8, &fd, 1);
}

static int queue_start(struct vu *v, uint32_t i)
{
	struct vu_queue *q = &v->q[i];
	struct msg m = {.request = SET_VRING_ADDR, .u.addr = {.index = i}};
	/* As QEMU after the back end died: what has been used is the base. */
	uint32_t base = v->cfg.packed ? q->used_idx | (q->used_wrap ? 0x8000u : 0)
				      : (uint32_t)__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE);
	int rc;

	m.u.addr.desc = (uintptr_t)q->desc;
	m.u.addr.avail = (uintptr_t)q->avail;
	m.u.addr.used = (uintptr_t)q->used;
	rc = tell_state(v, SET_VRING_NUM, i, v->cfg.queue_size);
	if (rc == 0)
		rc = tell_state(v, SET_VRING_BASE, i, base);
	if (rc == 0)
		rc = tell(v, &m, 40, NULL, 0);
	if (rc == 0)
		rc = tell_fd(v, SET_VRING_KICK, i, q->kick);
	if (rc == 0)
		rc = tell_fd(v, SET_VRING_CALL, i, q->call);
	return rc ? rc : tell_state(v, SET_VRING_ENABLE, i, 1);
}

static int set_inflight(struct vu *v)
{
	struct msg m = {.request = SET_INFLIGHT_FD};

	m.u.inflight.mmap_size = v->inflight_bytes;
	m.u.inflight.num_queues = (uint16_t)v->cfg.queues;
	m.u.inflight.queue_size = v->cfg.queue_size;
	return tell(v, &m, 20, &v->inflight_fd, 1);
}

static int tell_inflight(struct vu *v)
{
	struct msg m = {.request = GET_INFLIGHT_FD};
	int rc = 0;

	if (v->cfg.no_inflight)
		return 0;
	m.u.inflight.num_queues = (uint16_t)v->cfg.queues;
	m.u.inflight.queue_size = v->cfg.queue_size;
	if (v->inflight_fd < 0) {
		rc = ask(v, &m, 20, &v->inflight_fd);
		v->inflight_bytes = m.u.inflight.mmap_size;
	}
	if (rc || v->inflight_fd < 0)
		return rc ? rc : -EPROTO;
	return set_inflight(v);
}

int vu_own_inflight(struct vu *v)
{
	close(v->inflight_fd);
	v->inflight_fd = memfd_create("vhost-io-inflight", MFD_CLOEXEC);
	if (v->inflight_fd < 0 || ftruncate(v->inflight_fd, (off_t)v->inflight_bytes) < 0)
		return -errno;
	return set_inflight(v);
}

static int queues_start(struct vu *v)
{
	int rc = tell_inflight(v);

	for (uint32_t i = 0; rc == 0 && i < v->cfg.queues; i++)
		rc = queue_start(v, i);
	return rc;
}

int vu_tell_base(struct vu *v, uint32_t queue)
{
	struct msg m = {.request = GET_VRING_BASE, .u.state = {queue, 0}};

	return ask(v, &m, 8, NULL);
}

int vu_reset(struct vu *v)
{
	int rc = 0;

	for (uint32_t i = 0; rc == 0 && i < v->cfg.queues; i++) {
		struct vu_queue *q = &v->q[i];

		rc = vu_tell_base(v, i);
		memset(q->ring, 0, v->cfg.queue_size * 16u);
		memset(q->avail, 0, 6 + 2u * v->cfg.queue_size);
		memset(q->used, 0, 6 + 8u * v->cfg.queue_size);
		q->avail_idx = q->used_idx = 0;
		q->avail_wrap = q->used_wrap = true;
	}
	if (v->inflight_fd >= 0)
		close(v->inflight_fd);
	v->inflight_fd = -1;
	return rc ? rc : queues_start(v);
}

/* ---- connecting ------------------------------------------------------------------------------------------------------- */

int vu_get_config(struct vu *v)
{
	struct msg m = {.request = GET_CONFIG, .u.config.size = sizeof(v->config)};
	int rc = ask(v, &m, 12 + sizeof(v->config), NULL);

	if (rc == 0)
		memcpy(&v->config, m.u.config.region, sizeof(v->config));
	return rc;
}

bool vu_config_changed(struct vu *v)
{
	struct pollfd p = {v->slave, POLLIN, 0};
	struct msg m;

	return poll(&p, 1, 0) == 1 && (p.revents & POLLIN) && recv_msg(v->slave, &m, NULL) == 0 &&
	       m.request == 2;
}

static int negotiate(struct vu *v)
{
	struct msg m = {.request = GET_FEATURES};
	int pair[2], rc = ask(v, &m, 0, NULL);

	if (rc)
		return rc;
	v->features = m.u.u64;
	if (v->cfg.features)
		v->features &= v->cfg.features | F_PROTOCOL;
	if (!v->cfg.packed)
		v->features &= ~(1ull << VIRTIO_F_RING_PACKED);
	else if (!(v->features >> VIRTIO_F_RING_PACKED & 1))
		return -EOPNOTSUPP;
	m = (struct msg){.request = GET_PROTOCOL_FEATURES};
	rc = ask(v, &m, 0, NULL);
	if (rc)
		return rc;
	v->protocol = 0;
	rc = tell_u64(v, SET_PROTOCOL_FEATURES,
		m.u.u64 & (P_MQ | P_REPLY_ACK | P_SLAVE | P_CONFIG | P_INFLIGHT));
	v->protocol = m.u.u64;
	if (!rc)
		rc = tell_u64(v, SET_OWNER, 0);
	m = (struct msg){.request = GET_QUEUE_NUM};
	if (!rc)
		rc = ask(v, &m, 0, NULL);
	v->nqueues = (uint32_t)m.u.u64;
	if (!rc && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		rc = -errno;
	if (rc)
		return rc;
	rc = tell_fd(v, SET_SLAVE_REQ_FD, 0, pair[1]);
	close(pair[1]);
	if (v->slave >= 0)
		close(v->slave);
	v->slave = pair[0];
	if (!rc)
		rc = vu_get_config(v);
	return rc ? rc : tell_u64(v, SET_FEATURES, v->features);
}

static int dial(struct vu *v)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int rc;

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", v->cfg.socket);
	if (v->fd >= 0)
		close(v->fd);
	v->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	v->protocol = 0;
	if (v->fd < 0 || connect(v->fd, (struct sockaddr *)&un, sizeof(un)) < 0)
		return -errno;
	rc = negotiate(v);
	return rc ? rc : vu_tell_memory(v);
}

int vu_reconnect(struct vu *v)
{
	int rc = dial(v);

	return rc ? rc : queues_start(v);
}

bool vu_is_gone(struct vu *v)
{
	struct pollfd p = {v->fd, POLLIN | POLLRDHUP, 0};

	return poll(&p, 1, 0) == 1 && (p.revents & (POLLHUP | POLLRDHUP | POLLERR));
}

int vu_open(const struct vu_cfg *cfg, struct vu **out)
{
	struct vu *v = calloc(1, sizeof(*v));
	int rc = 0;

	if (!v)
		return -ENOMEM;
	v->cfg = *cfg;
	v->fd = v->slave = v->mem2_fd = v->inflight_fd = -1;
	for (uint32_t i = 0; i < VU_QUEUES_MAX; i++)
		v->q[i].kick = v->q[i].call = -1;
	v->mem_fd = memfd_create("vhost-io", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (v->mem_fd < 0 || ftruncate(v->mem_fd, (off_t)cfg->mem_bytes) < 0)
		rc = -errno;
	v->mem = mmap(NULL, cfg->mem_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
		v->mem_fd, 0);
	if (!rc && v->mem == MAP_FAILED)
		rc = -errno;
	for (uint32_t i = 0; rc == 0 && i < cfg->queues; i++)
		rc = queue_alloc(v, &v->q[i]);
	if (rc == 0 && cfg->indirect) {
		v->tables = vu_alloc(v,
			(size_t)cfg->queues * cfg->queue_size * VU_PARTS_MAX * sizeof(*v->tables),
			64);
		rc = v->tables ? 0 : -ENOMEM;
	}
	if (rc == 0)
		rc = dial(v);
	if (rc == 0)
		rc = queues_start(v);
	if (rc < 0) {
		vu_close(v);
		return rc;
	}
	*out = v;
	return 0;
}

void vu_close(struct vu *v)
{
	const int fds[] = {v->fd, v->slave, v->mem_fd, v->mem2_fd, v->inflight_fd};

	for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	for (uint32_t i = 0; i < VU_QUEUES_MAX; i++) {
		if (v->q[i].kick >= 0)
			close(v->q[i].kick);
		if (v->q[i].call >= 0)
			close(v->q[i].call);
	}
	if (v->mem && v->mem != MAP_FAILED)
		munmap(v->mem, v->cfg.mem_bytes);
	if (v->mem2 && v->mem2 != MAP_FAILED)
		munmap(v->mem2, v->mem2_bytes);
	free(v);
}

/* ---- rings ---------------------------------------------------------------------------------------------------------------- */

static struct vring_desc *table_fill(
	struct vu *v, uint32_t q, uint16_t slot, const struct vu_part *p, unsigned int n)
{
	struct vring_desc *t = v->tables + ((size_t)q * v->cfg.queue_size + slot) * VU_PARTS_MAX;

	for (unsigned int i = 0; i < n; i++) {
		t[i].addr = vu_gpa(v, p[i].at);
		t[i].len = p[i].len;
		if (v->cfg.packed) {
			/* {addr, len, id, flags} */
			t[i].flags = 0;
			t[i].next = p[i].write ? VRING_DESC_F_WRITE : 0;
		} else {
			t[i].flags = (uint16_t)((p[i].write ? VRING_DESC_F_WRITE : 0) |
						(i + 1 < n ? VRING_DESC_F_NEXT : 0));
			t[i].next = (uint16_t)(i + 1);
		}
	}
	return t;
}

void vu_put_again(struct vu *v, uint32_t qi, uint16_t head)
{
	struct vu_queue *q = &v->q[qi];

	q->avail->ring[q->avail_idx & (v->cfg.queue_size - 1)] = head;
	q->avail_idx++;
	__atomic_store_n(&q->avail->idx, q->avail_idx, __ATOMIC_RELEASE);
	q->pending = true;
}

static void put_split(
	struct vu *v, uint32_t qi, uint16_t slot, const struct vu_part *p, unsigned int n)
{
	struct vu_queue *q = &v->q[qi];
	uint16_t head = (uint16_t)(v->cfg.indirect ? slot : slot * n);

	if (v->cfg.indirect) {
		struct vring_desc *t = table_fill(v, qi, slot, p, n);

		q->desc[head] = (struct vring_desc){
			vu_gpa(v, t), n * (uint32_t)sizeof(*t), VRING_DESC_F_INDIRECT, 0};
	}
	for (unsigned int i = 0; !v->cfg.indirect && i < n; i++)
		q->desc[head + i] = (struct vring_desc){vu_gpa(v, p[i].at), p[i].len,
			(uint16_t)((p[i].write ? VRING_DESC_F_WRITE : 0) |
				   (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			(uint16_t)(head + i + 1)};
	vu_put_again(v, qi, head);
}

static void put_packed(
	struct vu *v, uint32_t qi, uint16_t slot, const struct vu_part *p, unsigned int n)
{
	struct vu_queue *q = &v->q[qi];
	uint16_t first = q->avail_idx, first_flags = 0;
	unsigned int places = v->cfg.indirect ? 1 : n;

	for (unsigned int i = 0; i < places; i++) {
		struct vring_packed_desc *d = &q->pdesc[q->avail_idx];
		uint16_t flags = q->avail_wrap ? 1u << VRING_PACKED_DESC_F_AVAIL
					       : 1u << VRING_PACKED_DESC_F_USED;

		if (v->cfg.indirect) {
			d->addr = vu_gpa(v, table_fill(v, qi, slot, p, n));
			d->len = n * 16;
			flags |= VRING_DESC_F_INDIRECT;
		} else {
			d->addr = vu_gpa(v, p[i].at);
			d->len = p[i].len;
			flags |= (p[i].write ? VRING_DESC_F_WRITE : 0) |
				 (i + 1 < n ? VRING_DESC_F_NEXT : 0);
		}
		d->id = slot;
		if (i == 0)
			first_flags = flags;
		else
			d->flags = flags;
		if (++q->avail_idx == v->cfg.queue_size) {
			q->avail_idx = 0;
			q->avail_wrap = !q->avail_wrap;
		}
	}
	q->nparts[slot] = (uint16_t)places;
	__atomic_store_n(&q->pdesc[first].flags, first_flags, __ATOMIC_RELEASE);
	q->pending = true;
}

void vu_put(struct vu *v, uint32_t q, uint16_t slot, const struct vu_part *p, unsigned int n)
{
	if (v->cfg.packed)
		put_packed(v, q, slot, p, n);
	else
		put_split(v, q, slot, p, n);
}

void vu_kick(struct vu *v, uint32_t qi)
{
	struct vu_queue *q = &v->q[qi];
	uint64_t one = 1;

	if (!q->pending)
		return;
	q->pending = false;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (v->cfg.packed
			? *(volatile uint16_t *)&q->device->flags == VRING_PACKED_EVENT_FLAG_DISABLE
			: *(volatile uint16_t *)&q->used->flags & VRING_USED_F_NO_NOTIFY)
		return;
	q->kicks++;
	if (write(q->kick, &one, sizeof(one)) < 0 && errno != EAGAIN)
		perror("kick");
}

static int get_packed(struct vu *v, struct vu_queue *q, uint32_t *len)
{
	struct vring_packed_desc *d = &q->pdesc[q->used_idx];
	uint16_t flags = __atomic_load_n(&d->flags, __ATOMIC_ACQUIRE);
	bool used = flags >> VRING_PACKED_DESC_F_USED & 1,
	     avail = flags >> VRING_PACKED_DESC_F_AVAIL & 1;
	uint16_t id = d->id;

	if (used != avail || used != q->used_wrap)
		return -1;
	*len = d->len;
	q->used_idx = (uint16_t)(q->used_idx + q->nparts[id % 1024]);
	if (q->used_idx >= v->cfg.queue_size) {
		q->used_idx = (uint16_t)(q->used_idx - v->cfg.queue_size);
		q->used_wrap = !q->used_wrap;
	}
	return id;
}

int vu_get(struct vu *v, uint32_t qi, uint32_t *len)
{
	struct vu_queue *q = &v->q[qi];
	struct vring_used_elem *e;

	if (v->cfg.packed)
		return get_packed(v, q, len);
	if (__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE) == q->used_idx)
		return -1;
	e = &q->used->ring[q->used_idx & (v->cfg.queue_size - 1)];
	q->used_idx++;
	*len = e->len;
	return (int)e->id;
}

void vu_want_calls(struct vu *v, uint32_t qi, bool on)
{
	struct vu_queue *q = &v->q[qi];

	if (v->cfg.packed)
		q->driver->flags = on ? VRING_PACKED_EVENT_FLAG_ENABLE
				      : VRING_PACKED_EVENT_FLAG_DISABLE;
	else
		q->avail->flags = on ? 0 : VRING_AVAIL_F_NO_INTERRUPT;
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

void vu_wait_call(struct vu *v, uint32_t qi, int timeout_ms)
{
	struct pollfd p = {v->q[qi].call, POLLIN, 0};
	uint64_t n;

	if (poll(&p, 1, timeout_ms) == 1 && read(v->q[qi].call, &n, sizeof(n)) < 0)
		return;
}
