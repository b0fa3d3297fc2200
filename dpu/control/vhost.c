/* SPDX-License-Identifier: BSD-3-Clause */
/* VMs' virtio-blk functions: which there are, and how they are. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
	enum event_severity severity;
	const char *kind;
} event_kinds[] = {
	[VHOST_BLK_CONNECTED] = {EVENT_INFO, "vhost-connected"},
	[VHOST_BLK_DISCONNECTED] = {EVENT_INFO, "vhost-disconnected"},
	[VHOST_BLK_RING_BROKEN] = {EVENT_WARNING, "vhost-ring-broken"},
	[VHOST_BLK_MEMORY_REFUSED] = {EVENT_ERROR, "vhost-memory-refused"},
	[VHOST_BLK_RESUMED] = {EVENT_INFO, "vhost-resumed"},
};

static bool given(const char *s)
{
	return s && s[0];
}

static int submit(void *arg, struct io_req *req)
{
	return pipeline_submit(arg, req);
}

/* The device of a VM with that number, or NULL. */
static const struct volume *device_by_nsid(const struct card *c, uint32_t vm, uint32_t nsid)
{
	struct volume *vol = c->store ? volume_first(c->store) : NULL;
	struct device_id id;

	for (; vol; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0 && id.vm == vm && id.nsid == nsid)
			return vol;
	return NULL;
}

static void happened(
	void *arg, enum vhost_blk_event ev, uint32_t vm, uint32_t nsid, const char *text)
{
	const struct card *c = arg;
	const struct volume *vol = device_by_nsid(c, vm, nsid);
	const struct card_vm *v = vm_by_number(c, vm);
	struct device_id id;
	char object[96];

	if (vol && device_parse(vol, &id) == 0)
		snprintf(object, sizeof(object), "device %.48s", id.path);
	else
		snprintf(object, sizeof(object), "disk %u", nsid);
	event_post(c->events, event_kinds[ev].severity, event_kinds[ev].kind, object, "vm %s: %s",
		v ? v->name : "?", text);
}

int vhost_up(struct card *c, struct err *e)
{
	struct vhost_blk_cfg cfg = {.submit_fn = submit,
		.arg = c->pipeline,
		.event_fn = happened,
		.event_arg = c,
		.lib = c->cfg.vhost};
	int rc = cfg.lib ? vhost_blk_open(c->cfg.shard, &cfg, &c->vhost) : 0;

	return rc < 0 ? err_set(e, rc, "card", NULL, "vhost: %s", strerror(-rc)) : 0;
}

void vhost_down(struct card *c)
{
	if (c->vhost)
		vhost_blk_close(c->vhost);
}

/* ---- VMs ----------------------------------------------------------------------------------------------------------- */

int vhost_check(struct card *c, const Parapet__Vm *vm, struct err *e)
{
	char object[96];

	if (!given(vm->vhost))
		return 0;
	if (!c->vhost)
		return err_set(e, -ENODEV, object_name(object, sizeof(object), "vm", vm->name),
			"vhost",
			"this card was started without DPDK, which vhost-user needs; give "
			"parapet-dpu EAL arguments, at least \"-- --no-pci\"");
	return vhost_blk_dir_check(vm->vhost, vm->name, e);
}

static struct vhost_blk_row row_of(const Parapet__Vm *vm)
{
	return (struct vhost_blk_row){.host_addr = vm->host_addr,
		.guest_addr = vm->guest_addr,
		.mem_bytes = vm->mem_bytes};
}

int vhost_vm_up(struct card *c, struct card_vm *v, const Parapet__Vm *vm, struct err *e)
{
	struct vhost_blk_vm_cfg cfg = {
		.vm = vm->vm, .name = vm->name, .dir = vm->vhost, .row = row_of(vm)};
	int rc = vhost_check(c, vm, e);

	if (rc < 0 || !given(vm->vhost))
		return rc;
	return vhost_blk_vm_add(c->vhost, &cfg, &v->vvm, e);
}

int vhost_vm_down(struct card *c, struct card_vm *v)
{
	int rc = v->vvm ? vhost_blk_vm_del(v->vvm) : 0;

	if (rc == 0)
		v->vvm = NULL;
	return rc;
}

void vhost_vm_row(struct card_vm *v, const Parapet__Vm *vm)
{
	struct vhost_blk_row row = row_of(vm);

	if (v->vvm)
		vhost_blk_vm_set_row(v->vvm, &row);
}

/* ---- devices --------------------------------------------------------------------------------------------------------- */

int vhost_attach(struct card_vm *v, const struct volume *vol, struct err *e)
{
	const struct volume_cfg *vc = volume_cfg(vol);
	struct vhost_blk_disk_cfg cfg = {.vol = (struct volume *)(uintptr_t)vol,
		.size_bytes = vc->size_bytes,
		.block_bytes = vc->block_bytes};
	struct device_id id;

	if (!v->vvm || device_parse(vol, &id) < 0)
		return 0;
	cfg.nsid = id.nsid;
	/* The beginning of the NGUID, which NVMe hosts know the device by. */
	for (unsigned int i = 0; i < VHOST_BLK_ID_BYTES / 2; i++)
		snprintf(cfg.id + 2 * i, 3, "%02x", vc->nguid[i]);
	return vhost_blk_disk_add(v->vvm, &cfg, e);
}

int vhost_detach(struct card *c, uint32_t vm, uint32_t nsid)
{
	struct card_vm *v = vm_by_number(c, vm);
	int rc = v && v->vvm ? vhost_blk_disk_del(v->vvm, nsid, false) : 0;

	return rc == -ENOENT ? 0 : rc;
}

void vhost_resize(struct card_vm *v, uint32_t nsid, uint64_t size_bytes)
{
	if (v->vvm)
		vhost_blk_disk_resize(v->vvm, nsid, size_bytes);
}

uint32_t vhost_users(const struct card_vm *v, uint32_t nsid)
{
	return v->vvm ? vhost_blk_disk_users(v->vvm, nsid) : 0;
}

/* ---- how they are ------------------------------------------------------------------------------------------------------ */

static void named(struct call *c, Parapet__VhostDisk *d, const char *name, uint64_t value)
{
	Parapet__Named *n = d->counters[d->n_counters++];

	n->name = call_str(c, name);
	n->value = value;
}

static int fill_disk(struct call *c, const struct volume *vol, uint32_t nsid,
	const struct vhost_blk_disk_info *i, Parapet__VhostDisk *d)
{
	struct device_id id;
	char features[256];

	d->nsid = nsid;
	d->path = call_str(c, vol && device_parse(vol, &id) == 0 ? id.path : "");
	d->socket = call_str(c, i->socket);
	d->has_connected = d->has_queues = d->has_queues_running = d->has_queue_size =
		d->has_in_flight = true;
	d->connected = i->connected;
	vhost_blk_feature_names(i->features, features, sizeof(features));
	d->features = call_str(c, features);
	d->queues = i->queues;
	d->queues_running = i->queues_running;
	d->queue_size = i->queue_size;
	d->in_flight = i->in_flight;
	d->fault = i->fault ? call_str(c, i->fault) : NULL;
	d->has_host_addr = d->has_guest_addr = d->has_mem_bytes = d->has_regions = i->regions != 0;
	d->host_addr = i->memory.host_addr;
	d->guest_addr = i->memory.guest_addr;
	d->mem_bytes = i->memory.mem_bytes;
	d->regions = i->regions;
	if (call_messages(c, 7, Parapet__Named, parapet__named__init, &d->counters) < 0)
		return -ENOMEM;
	named(c, d, "requests", i->requests);
	named(c, d, "connections", i->connections);
	named(c, d, "broken_rings", i->faults);
	named(c, d, "refused_maps", i->refused_maps);
	named(c, d, "resumed_requests", i->resumed);
	named(c, d, "kicks", i->kicks);
	named(c, d, "interrupts", i->interrupts);
	return 0;
}

int vhost_fill(
	struct call *call, const struct card *c, const struct card_vm *v, Parapet__VmStatus *s)
{
	struct vhost_blk_vm_stats st;
	struct vhost_blk_disk_info info;
	int rc = 0;

	if (!v->vvm)
		return 0;
	vhost_blk_vm_stats(v->vvm, &st);
	if (call_messages(
		    call, st.disks, Parapet__VhostDisk, parapet__vhost_disk__init, &s->vhost) < 0)
		return -ENOMEM;
	for (uint32_t nsid = 1; rc == 0 && nsid <= VHOST_BLK_NSID_MAX; nsid++)
		if (vhost_blk_disk_info(v->vvm, nsid, &info) == 0)
			rc = fill_disk(call, device_by_nsid(c, v->vm, nsid), nsid, &info,
				s->vhost[s->n_vhost++]);
	return rc;
}

void vhost_numbers(const struct card_vm *v,
	void (*stat_fn)(void *arg, const char *object, const char *name, uint64_t value), void *arg,
	const char *object)
{
	struct vhost_blk_vm_stats st;

	if (!v->vvm)
		return;
	vhost_blk_vm_stats(v->vvm, &st);
	stat_fn(arg, object, "vhost.disks", st.disks);
	stat_fn(arg, object, "vhost.connected", st.connected);
	stat_fn(arg, object, "vhost.in_flight", st.in_flight);
	stat_fn(arg, object, "vhost.reads", st.reads);
	stat_fn(arg, object, "vhost.writes", st.writes);
	stat_fn(arg, object, "vhost.flushes", st.flushes);
	stat_fn(arg, object, "vhost.discards", st.discards);
	stat_fn(arg, object, "vhost.write_zeroes", st.write_zeroes);
	stat_fn(arg, object, "vhost.get_ids", st.ids);
	stat_fn(arg, object, "vhost.read_bytes", st.read_bytes);
	stat_fn(arg, object, "vhost.write_bytes", st.write_bytes);
	stat_fn(arg, object, "vhost.failed_requests", st.failed);
	stat_fn(arg, object, "vhost.unsupported_requests", st.unsupported);
	stat_fn(arg, object, "vhost.connections", st.connections);
	stat_fn(arg, object, "vhost.broken_rings", st.faults);
	stat_fn(arg, object, "vhost.refused_maps", st.refused_maps);
	stat_fn(arg, object, "vhost.resumed_requests", st.resumed);
	stat_fn(arg, object, "vhost.kicks", st.kicks);
	stat_fn(arg, object, "vhost.interrupts", st.interrupts);
	stat_fn(arg, object, "vhost.interrupts_saved", st.interrupts_saved);
	stat_fn(arg, object, "vhost.rounds", st.rounds);
	stat_fn(arg, object, "vhost.backend_waits", st.backend_waits);
}
