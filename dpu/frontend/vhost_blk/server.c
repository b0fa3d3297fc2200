/* SPDX-License-Identifier: BSD-3-Clause */
/* The server, its VMs and their disks. */
#include "dpu/frontend/vhost_blk/vhost_blk_priv.h"

#include "common/base/util.h"
#include "dpu/core/mem_guard.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <linux/virtio_blk.h>

#define DEFAULT_QUEUES  4u
#define DEFAULT_POLL_NS 50000u
#define STOP_TIMEOUT_NS 30000000000ull

void vb_event(struct vb_disk *d, enum vhost_blk_event ev, const char *fmt, ...)
{
	const struct vhost_blk_cfg *cfg = &d->vm->vb->cfg;
	char text[320];
	va_list ap;

	if (!cfg->event_fn)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	cfg->event_fn(cfg->event_arg, ev, d->vm->vm, d->cfg.nsid, text);
}

int vhost_blk_open(struct shard *sh, const struct vhost_blk_cfg *cfg, struct vhost_blk **out)
{
	struct vhost_blk *vb;

	if (!cfg->submit_fn || !cfg->lib || cfg->queues > VHOST_BLK_QUEUES_MAX)
		return -EINVAL;
	vb = calloc(1, sizeof(*vb));
	if (!vb)
		return -ENOMEM;
	vb->sh = sh;
	vb->cfg = *cfg;
	if (!vb->cfg.queues)
		vb->cfg.queues = DEFAULT_QUEUES;
	if (!vb->cfg.poll_ns)
		vb->cfg.poll_ns = DEFAULT_POLL_NS;
	TAILQ_INIT(&vb->hot);
	TAILQ_INIT(&vb->vms);
	poller_add(sh, &vb->poller, vb_poll, vb, POLLER_SLEEPS);
	*out = vb;
	return 0;
}

int vhost_blk_close(struct vhost_blk *vb)
{
	if (!TAILQ_EMPTY(&vb->vms))
		return -EBUSY;
	poller_del(vb->sh, &vb->poller);
	free(vb);
	return 0;
}

/* ---- VMs --------------------------------------------------------------------------------------------------------- */

static int vm_err(struct err *e, int rc, const char *name, const char *field, const char *reason,
	const char *value)
{
	char object[96];

	snprintf(object, sizeof(object), "vm %.64s", name);
	return err_set(
		e, rc, object, field, "%s%s%s", value ? value : "", value ? ": " : "", reason);
}

int vhost_blk_dir_check(const char *dir, const char *vm_name, struct err *err)
{
	struct stat st;

	if (dir[0] != '/')
		return vm_err(err, -EINVAL, vm_name, "vhost", "not an absolute path", dir);
	/* The longest of its names: "/NAME.256.sock". */
	if (strlen(dir) + strlen(vm_name) + sizeof("/.256.sock") > VHOST_BLK_PATH_MAX)
		return vm_err(err, -ENAMETOOLONG, vm_name, "vhost",
			"too long: a socket's path has at most 107 bytes, its name included", dir);
	if (stat(dir, &st) < 0)
		return vm_err(err, -errno, vm_name, "vhost", strerror(errno), dir);
	if (!S_ISDIR(st.st_mode))
		return vm_err(err, -ENOTDIR, vm_name, "vhost", "not a directory", dir);
	if (access(dir, W_OK | X_OK) < 0)
		return vm_err(err, -errno, vm_name, "vhost", strerror(errno), dir);
	return 0;
}

int vhost_blk_vm_add(struct vhost_blk *vb, const struct vhost_blk_vm_cfg *cfg,
	struct vhost_blk_vm **out, struct err *err)
{
	struct vhost_blk_vm *vm;
	int rc = vhost_blk_dir_check(cfg->dir, cfg->name, err);

	if (rc < 0)
		return rc;
	TAILQ_FOREACH (vm, &vb->vms, link)
		if (vm->vm == cfg->vm)
			return vm_err(err, -EEXIST, cfg->name, NULL, "exists", NULL);
	vm = calloc(1, sizeof(*vm));
	if (!vm)
		return vm_err(err, -ENOMEM, cfg->name, NULL, "out of memory", NULL);
	vm->vb = vb;
	vm->vm = cfg->vm;
	vm->row = cfg->row;
	snprintf(vm->name, sizeof(vm->name), "%s", cfg->name);
	snprintf(vm->dir, sizeof(vm->dir), "%s", cfg->dir);
	TAILQ_INSERT_TAIL(&vb->vms, vm, link);
	*out = vm;
	return 0;
}

void vhost_blk_vm_set_row(struct vhost_blk_vm *vm, const struct vhost_blk_row *row)
{
	vm->row = *row;
}

/* ---- disks --------------------------------------------------------------------------------------------------------- */

static struct vb_disk *disk_find(const struct vhost_blk_vm *vm, uint32_t nsid)
{
	return nsid && nsid <= VHOST_BLK_NSID_MAX ? vm->disks[nsid - 1] : NULL;
}

static int disk_err(
	const struct vb_disk *d, struct err *e, int rc, const char *field, const char *reason)
{
	char object[96];

	snprintf(object, sizeof(object), "vm %.64s disk %u", d->vm->name, d->cfg.nsid);
	return err_set(e, rc, object, field, "%s", reason);
}

static int disk_check(const struct vb_disk *d, struct err *e)
{
	const struct vhost_blk_disk_cfg *cfg = &d->cfg;

	if (!cfg->nsid || cfg->nsid > VHOST_BLK_NSID_MAX)
		return disk_err(d, e, -ERANGE, "nsid", "must be 1 to 256");
	if (disk_find(d->vm, cfg->nsid))
		return disk_err(d, e, -EEXIST, NULL, "exists");
	if (cfg->block_bytes != VB_SECTOR && cfg->block_bytes != IO_BLOCK_BYTES)
		return disk_err(d, e, -EINVAL, "block size", "must be 512 or 4096");
	if (!cfg->vol || !cfg->size_bytes || cfg->size_bytes % cfg->block_bytes)
		return disk_err(
			d, e, -EINVAL, "size", "must be a multiple of the block size, not 0");
	return 0;
}

static void disk_free(struct vb_disk *d)
{
	free(d->queues);
	free(d);
}

static int disk_open(struct vb_disk *d, struct err *err)
{
	struct vhost_blk *vb = d->vm->vb;
	struct virtio_blk_config config;
	struct vhost_lib_cfg cfg = {.sh = vb->sh,
		.path = d->path,
		.features = vb_features(d),
		.queues = vb->cfg.queues,
		.config = &config,
		.config_bytes = sizeof(config),
		.disk = d};

	vb_config_fill(d, &config);
	for (uint32_t i = 0; i < vb->cfg.queues; i++) {
		d->queues[i].disk = d;
		d->queues[i].index = i;
		d->queues[i].kick_fd = d->queues[i].call_fd = -1;
	}
	return vb->cfg.lib->open(&cfg, &d->lib, err);
}

int vhost_blk_disk_add(
	struct vhost_blk_vm *vm, const struct vhost_blk_disk_cfg *cfg, struct err *err)
{
	struct vb_disk *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return vm_err(err, -ENOMEM, vm->name, NULL, "out of memory", NULL);
	d->vm = vm;
	d->cfg = *cfg;
	rc = disk_check(d, err);
	if (rc == 0) {
		d->queues = calloc(vm->vb->cfg.queues, sizeof(d->queues[0]));
		if (!d->queues)
			rc = disk_err(d, err, -ENOMEM, NULL, "out of memory");
	}
	if (rc == 0 && snprintf(d->path, sizeof(d->path), "%s/%s.%u.sock", vm->dir, vm->name,
			       cfg->nsid) >= (int)sizeof(d->path))
		rc = disk_err(d, err, -ENAMETOOLONG, "vhost", "the socket's path is too long");
	if (rc == 0)
		rc = disk_open(d, err);
	if (rc < 0) {
		disk_free(d);
		return rc;
	}
	vm->disks[cfg->nsid - 1] = d;
	return 0;
}

static void nothing(void *arg, uint16_t base)
{
}

static bool is_stopped(void *arg)
{
	const struct vb_disk *d = arg;

	for (uint32_t i = 0; i < d->vm->vb->cfg.queues; i++)
		if (d->queues[i].state != VB_QUEUE_STOPPED)
			return false;
	return true;
}

static int disk_close(struct vb_disk *d)
{
	struct vhost_blk *vb = d->vm->vb;
	int rc;

	d->closing = true; /* no queue is started any more */
	for (uint32_t i = 0; i < vb->cfg.queues; i++)
		if (d->queues[i].state == VB_QUEUE_RUNNING)
			vb_queue_stop(d, i, false, nothing, NULL);
	rc = shard_wait(vb->sh, is_stopped, d, STOP_TIMEOUT_NS);
	if (rc == 0)
		rc = vb->cfg.lib->close(d->lib);
	if (rc < 0)
		return rc;
	d->vm->disks[d->cfg.nsid - 1] = NULL;
	disk_free(d);
	return 0;
}

int vhost_blk_disk_del(struct vhost_blk_vm *vm, uint32_t nsid, bool force)
{
	struct vb_disk *d = disk_find(vm, nsid);

	if (!d)
		return -ENOENT;
	if (d->connected && !force)
		return -EBUSY;
	return disk_close(d);
}

int vhost_blk_vm_del(struct vhost_blk_vm *vm)
{
	for (uint32_t i = 0; i < VHOST_BLK_NSID_MAX; i++) {
		int rc = vm->disks[i] ? disk_close(vm->disks[i]) : 0;

		if (rc < 0)
			return rc;
	}
	TAILQ_REMOVE(&vm->vb->vms, vm, link);
	free(vm);
	return 0;
}

int vhost_blk_disk_resize(struct vhost_blk_vm *vm, uint32_t nsid, uint64_t size_bytes)
{
	struct vb_disk *d = disk_find(vm, nsid);
	struct virtio_blk_config config;

	if (!d)
		return -ENOENT;
	if (!size_bytes || size_bytes % d->cfg.block_bytes)
		return -EINVAL;
	d->cfg.size_bytes = size_bytes;
	vb_config_fill(d, &config);
	vm->vb->cfg.lib->set_config(d->lib, &config, sizeof(config));
	return 0;
}

uint32_t vhost_blk_disk_users(const struct vhost_blk_vm *vm, uint32_t nsid)
{
	const struct vb_disk *d = disk_find(vm, nsid);

	return d && d->connected;
}

int vhost_blk_disk_info(
	const struct vhost_blk_vm *vm, uint32_t nsid, struct vhost_blk_disk_info *out)
{
	const struct vb_disk *d = disk_find(vm, nsid);

	if (!d)
		return -ENOENT;
	*out = (struct vhost_blk_disk_info){.connected = d->connected,
		.features = d->features,
		.queues = vm->vb->cfg.queues,
		.in_flight = d->in_flight,
		.fault = d->fault ? vb_fault_name(d->fault) : NULL,
		.regions = d->mem.n,
		.requests = d->requests,
		.faults = d->faults,
		.refused_maps = d->refused_maps,
		.connections = d->connections,
		.resumed = d->resumed,
		.kicks = d->kicks,
		.interrupts = d->interrupts};
	snprintf(out->socket, sizeof(out->socket), "%s", d->path);
	vb_memory_row(&d->mem, &out->memory);
	for (uint32_t i = 0; i < vm->vb->cfg.queues; i++) {
		if (d->queues[i].state == VB_QUEUE_STOPPED)
			continue;
		out->queues_running++;
		if (!out->queue_size)
			out->queue_size = d->queues[i].size;
	}
	return 0;
}

void vhost_blk_vm_stats(const struct vhost_blk_vm *vm, struct vhost_blk_vm_stats *out)
{
	*out = vm->stats;
	for (uint32_t i = 0; i < VHOST_BLK_NSID_MAX; i++) {
		if (!vm->disks[i])
			continue;
		out->disks++;
		out->connected += vm->disks[i]->connected;
		out->in_flight += vm->disks[i]->in_flight;
	}
}

/* ---- upcalls ----------------------------------------------------------------------------------------------------------- */

void vb_disk_connected(struct vb_disk *d)
{
	uint64_t now = shard_now_ns(d->vm->vb->sh);

	d->connected = true;
	d->memory_gone = false;
	d->connections++;
	d->vm->stats.connections++;
	/* Whoever comes and goes every second is not told of every second. */
	d->link_told = !d->link_told_ns || now - d->link_told_ns >= VB_TELL_AGAIN_NS;
	if (!d->link_told)
		return;
	d->link_told_ns = now;
	vb_event(d, VHOST_BLK_CONNECTED, "%s", d->path);
}

void vb_disk_disconnected(struct vb_disk *d)
{
	if (!d->connected)
		return;
	d->connected = d->memory_gone = false;
	d->fault = VB_FAULT_NONE;
	d->features = 0;
	d->mem.n = 0;
	if (d->link_told)
		vb_event(d, VHOST_BLK_DISCONNECTED, "%s", d->path);
}

void vb_disk_set_features(struct vb_disk *d, uint64_t features)
{
	d->features = features;
}

bool vb_disk_memory_is_gone(struct vb_disk *d)
{
	bool gone = d->memory_gone;

	for (uint32_t i = 0; i < d->mem.n && !gone; i++)
		gone = mem_guard_is_broken(d->mem.r[i].host);
	for (uint32_t i = 0; i < d->vm->vb->cfg.queues && !gone; i++)
		gone = vb_queue_memory_is_gone(&d->queues[i]);
	d->memory_gone = gone;
	return gone;
}

void vb_look_at_memory(struct vhost_blk *vb)
{
	struct vhost_blk_vm *vm;

	/* First: what happens while we look is looked at again. */
	vb->guard_hits = mem_guard_hits();
	TAILQ_FOREACH (vm, &vb->vms, link)
		for (uint32_t i = 0; i < VHOST_BLK_NSID_MAX; i++) {
			struct vb_disk *d = vm->disks[i];

			if (d && !d->memory_gone && vb_disk_memory_is_gone(d))
				vb_queue_fault(&d->queues[0], VB_FAULT_MEMORY);
		}
}

int vb_disk_set_memory(struct vb_disk *d, const struct vb_mem *mem)
{
	char why[200];

	d->mem.n = 0;
	if (vb_memory_differs(mem, &d->vm->row, why, sizeof(why))) {
		uint64_t now = shard_now_ns(d->vm->vb->sh);

		d->refused_maps++;
		d->vm->stats.refused_maps++;
		if (!d->told_ns || now - d->told_ns >= VB_TELL_AGAIN_NS) {
			d->told_ns = now;
			vb_event(d, VHOST_BLK_MEMORY_REFUSED, "its memory is refused: %s", why);
		}
		return -EPERM;
	}
	d->mem = *mem;
	return 0;
}
