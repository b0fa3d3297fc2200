/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/flash/file_fixed.h"

#include <liburing.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"

bool file_fixed_off;

#define REGIONS_MAX  512u /* more than that: the last ones are not seen */
#define REGION_BYTES (1ull << 30) /* what the kernel takes as one buffer */

/* Without a limit: where there is one, rings count against it as well, and one that cannot be opened is worse than slow ones. */
static bool may_pin(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[_LINUX_CAPABILITY_U32S_3] = {{0}};
	struct rlimit limit;

	if (syscall(SYS_capget, &h, d) == 0 && d[0].effective >> CAP_IPC_LOCK & 1)
		return true;
	return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

void file_fixed_open(struct file_fixed *fx, struct io_uring *ring, int fd)
{
	*fx = (struct file_fixed){.ring = ring};
	if (file_fixed_off)
		return;
	fx->file = io_uring_register_files(ring, &fd, 1) == 0;
	fx->table = may_pin() && io_uring_register_buffers_sparse(ring, FILE_FIXED_MAX) == 0;
}

void file_fixed_close(struct file_fixed *fx)
{
	if (fx->table)
		io_uring_unregister_buffers(fx->ring);
	if (fx->file)
		io_uring_unregister_files(fx->ring);
	*fx = (struct file_fixed){0};
}

/* An empty one clears the slot; what is in flight keeps its pages. */
static bool update(struct file_fixed *fx, uint32_t slot, void *base, size_t len)
{
	struct iovec iov = {base, len};
	__u64 tag = 0;

	return io_uring_register_buffers_update_tag(fx->ring, slot, &iov, &tag, 1) == 1;
}

static bool is_listed(const struct mem_region *list, size_t n, const struct file_fixed_region *r)
{
	for (size_t i = 0; i < n; i++)
		if (list[i].id == r->id)
			return true;
	return false;
}

/* Some memory was given back, or out: what is gone must not be taken for what is there now. */
static void forget_the_gone(struct file_fixed *fx)
{
	struct mem_region list[REGIONS_MAX];
	size_t n;

	fx->generation = mem_generation();
	fx->nrefused = 0;
	n = MIN(mem_regions(list, REGIONS_MAX), (size_t)REGIONS_MAX);
	for (uint32_t i = 0; i < FILE_FIXED_MAX; i++) {
		struct file_fixed_region *s = &fx->slot[i];

		if (!s->base || is_listed(list, n, s))
			continue;
		update(fx, i, NULL, 0);
		*s = (struct file_fixed_region){0};
	}
}

static bool holds(const struct file_fixed_region *r, const uint8_t *at, size_t len)
{
	return r->base && at >= r->base && (size_t)(at - r->base) < r->len &&
	       len <= r->len - (size_t)(at - r->base);
}

/* The region of mem_regions() around it. */
static bool region_of(const uint8_t *at, size_t len, struct file_fixed_region *out)
{
	struct mem_region list[REGIONS_MAX];
	size_t n = MIN(mem_regions(list, REGIONS_MAX), (size_t)REGIONS_MAX);

	for (size_t i = 0; i < n; i++) {
		*out = (struct file_fixed_region){list[i].base, list[i].len_bytes, list[i].id};
		if (holds(out, at, len))
			return true;
	}
	/* None: then it is this piece alone that is not asked for again. */
	*out = (struct file_fixed_region){(uint8_t *)(uintptr_t)at, len, 0};
	return false;
}

static bool is_refused(const struct file_fixed *fx, const uint8_t *at, size_t len)
{
	/* A full list: nothing more is tried until memory changes. */
	if (fx->nrefused == FILE_FIXED_MAX)
		return true;
	for (uint32_t i = 0; i < fx->nrefused; i++)
		if (holds(&fx->refused[i], at, len))
			return true;
	return false;
}

static int add(struct file_fixed *fx, const uint8_t *at, size_t len)
{
	struct file_fixed_region r;
	bool listed = region_of(at, len, &r);

	for (uint32_t i = 0; listed && r.len <= REGION_BYTES && i < FILE_FIXED_MAX; i++) {
		if (fx->slot[i].base)
			continue;
		if (!update(fx, i, r.base, r.len))
			break;
		fx->slot[i] = r;
		return (int)i;
	}
	fx->refused[fx->nrefused++] = r;
	return -1;
}

int file_fixed_find(struct file_fixed *fx, const void *at, size_t len)
{
	if (!fx->table)
		return -1;
	if (fx->generation != mem_generation())
		forget_the_gone(fx);
	for (uint32_t i = 0; i < FILE_FIXED_MAX; i++)
		if (holds(&fx->slot[i], at, len))
			return (int)i;
	return is_refused(fx, at, len) ? -1 : add(fx, at, len);
}
