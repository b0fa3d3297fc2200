/* SPDX-License-Identifier: BSD-3-Clause */
/* Devices: volumes of the pool under the names and namespace numbers VMs know them by. */
#include "dpu/control/card_priv.h"

#include "dpu/control/shard_move.h"
#include "dpu/mover/transfer.h"
#include "common/base/util.h"
#include "dpu/volume/move.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- names --------------------------------------------------------------------------------------------------- */

/* A decimal number up to the character `end`; the place behind that, or NULL. */
static const char *take_number(const char *p, char end, uint32_t *out)
{
	uint64_t v = 0;
	const char *start = p;

	for (; *p >= '0' && *p <= '9'; p++) {
		v = v * 10 + (uint64_t)(*p - '0');
		if (v > UINT32_MAX)
			return NULL;
	}
	*out = (uint32_t)v;
	return p > start && *p == end ? p + 1 : NULL;
}

int device_parse(const struct volume *vol, struct device_id *id)
{
	const char *p = take_number(volume_cfg(vol)->name, '.', &id->vm);

	p = p ? take_number(p, '/', &id->nsid) : NULL;
	if (!p || !id->vm || !id->nsid || id->nsid > NVME_TCP_NSID_MAX)
		return -EINVAL;
	id->path = p - 1; /* with its slash */
	return 0;
}

static int device_volume_name(
	uint32_t vm, uint32_t nsid, const char *path, char *buf, size_t len, struct err *e)
{
	if (strlen(path) > DEVICE_PATH_MAX ||
		snprintf(buf, len, "%u.%u%s", vm, nsid, path) >= (int)len)
		return err_set(
			e, -ENAMETOOLONG, "device", "path", "at most %d bytes", DEVICE_PATH_MAX);
	return 0;
}

struct volume *device_find(const struct card *c, uint32_t vm, const char *path)
{
	struct volume *vol = c->store ? volume_first(c->store) : NULL;
	struct device_id id;

	for (; vol; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0 && id.vm == vm && !strcmp(id.path, path))
			return vol;
	return NULL;
}

unsigned int devices_of_vm(const struct card *c, uint32_t vm)
{
	struct volume *vol = c->store ? volume_first(c->store) : NULL;
	struct device_id id;
	unsigned int n = 0;

	for (; vol; vol = volume_next(vol))
		n += device_parse(vol, &id) == 0 && id.vm == vm;
	return n;
}

int card_vms_of_devices(const struct card *c, uint32_t **vms, size_t *n)
{
	struct volume *vol = c->store ? volume_first(c->store) : NULL;
	struct device_id id;
	size_t room = 1;

	for (; vol; vol = volume_next(vol))
		room++;
	*n = 0;
	*vms = calloc(room, sizeof(**vms));
	if (!*vms)
		return -ENOMEM;
	vol = c->store ? volume_first(c->store) : NULL;
	for (; vol; vol = volume_next(vol)) {
		size_t i = 0;

		if (device_parse(vol, &id) < 0 || transfer_is_part(c->store, c->cfg.index, vol))
			continue;
		while (i < *n && (*vms)[i] != id.vm)
			i++;
		if (i == *n)
			(*vms)[(*n)++] = id.vm;
	}
	return 0;
}

/* The lowest number no device of the VM has; 0: none. */
static uint32_t free_nsid(const struct card *c, uint32_t vm)
{
	bool used[NVME_TCP_NSID_MAX + 1] = {0};
	struct volume *vol = volume_first(c->store);
	struct device_id id;

	for (; vol; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0 && id.vm == vm)
			used[id.nsid] = true;
	for (uint32_t i = 1; i <= NVME_TCP_NSID_MAX; i++)
		if (!used[i])
			return i;
	return 0;
}

/* ---- in and out of use ----------------------------------------------------------------------------------------- */

int device_attach(struct card *c, struct card_vm *v, struct volume *vol, struct err *e)
{
	const struct volume_cfg *cfg = volume_cfg(vol);
	struct nvme_tcp_ns_cfg ns = {
		.vol = vol, .size_bytes = cfg->size_bytes, .block_bytes = cfg->block_bytes};
	struct device_id id;
	int rc = device_parse(vol, &id);

	if (rc == 0)
		rc = pipeline_volume_add(c->pipeline, v->vm, vol);
	if (rc < 0)
		return err_set(e, rc, "device", "path", "volume %s cannot be used: %s", cfg->name,
			strerror(-rc));
	ns.nsid = id.nsid;
	memcpy(ns.nguid, cfg->nguid, sizeof(ns.nguid));
	rc = nvme_tcp_ns_add(v->tvm, &ns, e);
	if (rc == 0) {
		rc = vhost_attach(v, vol, e);
		if (rc < 0)
			nvme_tcp_ns_del(v->tvm, id.nsid);
	}
	if (rc < 0)
		pipeline_volume_del(c->pipeline, v->vm, vol);
	return rc;
}

/* -EBUSY: requests are in flight, nothing has changed. */
static int device_detach(struct card *c, struct card_vm *v, struct volume *vol, uint32_t nsid)
{
	int rc = nvme_tcp_ns_del(v->tvm, nsid);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	rc = pipeline_volume_del(c->pipeline, v->vm, vol);
	return rc == -ENOENT ? 0 : rc;
}

int devices_publish(struct card *c, struct tables_doc *doc, struct err *e)
{
	struct volume *vol = c->store ? volume_first(c->store) : NULL;
	autofree struct tables_volume *list = NULL;
	struct device_id id;
	size_t n = 0;
	int rc;

	for (; vol; vol = volume_next(vol))
		n++;
	list = calloc(n + 1, sizeof(*list));
	n = 0;
	vol = list && c->store ? volume_first(c->store) : NULL;
	for (; vol; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0)
			list[n++] = (struct tables_volume){
				.id = volume_id(vol), .vm = id.vm, .path = id.path};
	rc = list ? tables_publish(c->tables, doc, list, n) : -ENOMEM;
	return rc < 0 ? err_set(e, rc, "tables", NULL, "out of memory") : 0;
}

bool device_has_unprotected(const struct volume *vol)
{
	struct volume_stats st;

	volume_stats(vol, &st);
	return st.blocks[BLOCK_DATA] || st.blocks[BLOCK_INTERMEDIATE];
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

static void named(struct call *c, Parapet__Named *n, const char *name, uint64_t value)
{
	n->name = call_str(c, name);
	n->value = value;
}

static int fill_numbers(struct call *c, const struct volume *vol, Parapet__Device *d)
{
	struct volume_stats st;

	volume_stats(vol, &st);
	if (call_messages(c, BLOCK_STATES, Parapet__Named, parapet__named__init, &d->blocks) < 0 ||
		call_messages(c, 10, Parapet__Named, parapet__named__init, &d->counters) < 0)
		return -ENOMEM;
	for (int i = 0; i < BLOCK_STATES; i++)
		named(c, d->blocks[d->n_blocks++], block_state_name((enum block_state)i),
			st.blocks[i]);
	named(c, d->counters[0], "reads", st.reads);
	named(c, d->counters[1], "read_bytes", st.read_bytes);
	named(c, d->counters[2], "read_blocks_data", st.from_data);
	named(c, d->counters[3], "read_blocks_log", st.from_log);
	named(c, d->counters[4], "read_blocks_decoded", st.from_decode);
	named(c, d->counters[5], "read_blocks_intermediate", st.from_intermediate);
	named(c, d->counters[6], "read_blocks_nothing", st.from_nothing);
	named(c, d->counters[7], "repaired_blocks", st.repaired);
	named(c, d->counters[8], "media_errors", st.media_errors);
	named(c, d->counters[9], "map_bytes", st.map_bytes);
	d->n_counters = 10;
	return 0;
}

static const char *dev_name(const struct card *card, int dev)
{
	return dev == POOL_DEV_NONE ? ""
				    : pool_dev(store_pool(card->store), (unsigned int)dev)->name;
}

static int fill_device(
	struct card *card, struct call *c, const struct volume *vol, Parapet__Device *d)
{
	const struct volume_cfg *cfg = volume_cfg(vol);
	const struct policy_device *pd;
	const struct policy_vm *pv;
	struct card_vm *v;
	struct device_id id;

	if (device_parse(vol, &id) < 0)
		return -EINVAL;
	v = vm_by_number(card, id.vm);
	pd = tables_doc_device(card->doc, id.vm, id.path);
	pv = tables_doc_policy_vm(card->doc, id.vm);
	d->vm = id.vm;
	d->path = call_str(c, id.path);
	d->vm_name = call_str(c, pv ? pv->name : "");
	d->has_nsid = d->has_nguid = d->has_size_bytes = d->has_block_bytes = true;
	d->nsid = id.nsid;
	d->nguid.data = call_alloc(c, sizeof(cfg->nguid));
	if (!d->nguid.data)
		return -ENOMEM;
	memcpy(d->nguid.data, cfg->nguid, sizeof(cfg->nguid));
	d->nguid.len = sizeof(cfg->nguid);
	d->size_bytes = cfg->size_bytes;
	d->block_bytes = cfg->block_bytes;
	d->has_layout = d->has_outcome = d->has_connections = d->has_in_tables = true;
	d->layout = cfg->layout == VOLUME_COPY ? PARAPET__LAYOUT__LAYOUT_COPY
					       : PARAPET__LAYOUT__LAYOUT_FRAGMENTS;
	d->method = call_str(c, pd ? pd->method : pv ? pv->method : "");
	d->data_flash = call_str(c, dev_name(card, cfg->data_dev));
	d->inter_flash = call_str(c, dev_name(card, cfg->intermediate_dev));
	d->outcome = (Parapet__Outcome)(pd ? policy_decide(pd) : POLICY_PLAIN);
	d->in_tables = pd != NULL;
	d->connections = v && v->tvm ? nvme_tcp_ns_users(v->tvm, id.nsid) + vhost_users(v, id.nsid)
				     : 0;
	d->has_k = d->has_m = true;
	d->k = cfg->scheme.k;
	d->m = cfg->scheme.m;
	return fill_numbers(c, vol, d);
}

int call_device_list(struct card *card, struct call *c)
{
	const Parapet__DeviceList *req = c->req->device_list;
	struct volume *vol = card->store ? volume_first(card->store) : NULL;
	const Parapet__Tables *pb = card->doc->pb;
	Parapet__Devices *r = call_message(c, Parapet__Devices, parapet__devices__init);
	struct device_id id;
	size_t n = 0;
	int rc = 0;

	for (; vol; vol = volume_next(vol))
		n++;
	if (!r || call_messages(c, n, Parapet__Device, parapet__device__init, &r->devices) < 0 ||
		!(r->missing = call_alloc(c, (pb->n_devices + 1) * sizeof(r->missing[0]))))
		return -ENOMEM;
	vol = card->store ? volume_first(card->store) : NULL;
	for (; vol && rc == 0; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0 && (!req->has_vm || req->vm == id.vm) &&
			card_owns(card, id.vm))
			rc = fill_device(card, c, vol, r->devices[r->n_devices++]);
	for (size_t i = 0; i < pb->n_devices; i++)
		if ((!req->has_vm || req->vm == pb->devices[i]->vm) &&
			card_owns(card, pb->devices[i]->vm) &&
			!device_find(card, pb->devices[i]->vm, pb->devices[i]->path))
			r->missing[r->n_missing++] = pb->devices[i];
	c->doc = tables_doc_get(card->doc); /* "missing" is a part of it */
	c->resp.result_case = PARAPET__RESPONSE__RESULT_DEVICES;
	c->resp.devices = r;
	return rc;
}

/* ---- add --------------------------------------------------------------------------------------------------------- */

struct add {
	const Parapet__DeviceAdd *req;
	char object[96];
	struct card_vm *v;
	const struct policy_vm *pv;
	struct volume_cfg cfg;
};

static int flash_number(struct card *card, struct add *a, const char *flash, const char *field,
	int *dev, struct err *e)
{
	*dev = flash[0] ? pool_dev_find(store_pool(card->store), flash) : POOL_DEV_NONE;
	if (flash[0] && *dev < 0)
		return err_set(e, -ENOENT, a->object, field, "the pool has no flash '%s'", flash);
	return 0;
}

static int add_check(struct card *card, struct add *a, struct err *e)
{
	const Parapet__DeviceAdd *req = a->req;
	int rc = policy_check_path(req->path, "device", "path", e);

	if (rc < 0)
		return rc;
	snprintf(a->object, sizeof(a->object), "device %.64s", req->path);
	if (!card->store)
		return err_set(e, -ENODEV, a->object, NULL, "this card has no open pool%s%s",
			card->pool_problem[0] ? ": " : "; create one first", card->pool_problem);
	a->v = vm_by_number(card, req->vm);
	a->pv = tables_doc_policy_vm(card->doc, req->vm);
	if (!a->v || !a->pv)
		return err_set(e, -ENOENT, a->object, "vm",
			"the card's tables (version %lu) have no VM %u; push them first",
			(unsigned long)card->doc->policy->version, req->vm);
	if (!a->v->tvm)
		return err_set(e, -EAGAIN, a->object, "vm", "it is not up: %s", a->v->problem);
	if (!a->pv->data_flash[0])
		return err_set(e, -EINVAL, a->object, "data_flash",
			"set the data flash of vm %s first", a->pv->name);
	if (req->has_layout && (unsigned int)req->layout > PARAPET__LAYOUT__LAYOUT_FRAGMENTS)
		return err_set(
			e, -EINVAL, a->object, "layout", "unknown; allowed: copy, fragments");
	if (req->has_k != req->has_m || (req->has_k && (req->k < 1 || req->k > EC_K_MAX ||
							       req->m < 1 || req->m > EC_M_MAX)))
		return err_set(e, -EINVAL, a->object, "ec", "k is 1 to %d, m 1 to %d, both given",
			EC_K_MAX, EC_M_MAX);
	return 0;
}

static int add_cfg(struct card *card, struct add *a, struct err *e)
{
	const Parapet__DeviceAdd *req = a->req;
	struct volume_cfg *cfg = &a->cfg;
	uint32_t nsid = free_nsid(card, req->vm);
	int rc;

	if (!nsid)
		return err_set(e, -ENOSPC, a->object, NULL, "a VM has at most %d devices",
			NVME_TCP_NSID_MAX);
	cfg->size_bytes = req->size_bytes;
	cfg->block_bytes = req->block_bytes;
	cfg->layout = req->layout == PARAPET__LAYOUT__LAYOUT_FRAGMENTS ? VOLUME_FRAGMENTS
								       : VOLUME_COPY;
	cfg->scheme = (struct ec_scheme){.k = (uint8_t)req->k, .m = (uint8_t)req->m};
	rc = device_volume_name(req->vm, nsid, req->path, cfg->name, sizeof(cfg->name), e);
	if (rc == 0)
		rc = flash_number(card, a, a->pv->data_flash, "data_flash", &cfg->data_dev, e);
	if (rc == 0)
		rc = flash_number(card, a, a->pv->inter_flash, "intermediate_flash",
			&cfg->intermediate_dev, e);
	return rc;
}

/* The same again is no error: whoever did not hear the answer asks once more. */
static int same_device(const struct add *a, const struct volume *vol, struct err *e)
{
	const struct volume_cfg *is = volume_cfg(vol);
	const Parapet__DeviceAdd *req = a->req;
	enum volume_layout layout = req->layout == PARAPET__LAYOUT__LAYOUT_FRAGMENTS
					    ? VOLUME_FRAGMENTS
					    : VOLUME_COPY;

	if (is->size_bytes != req->size_bytes)
		return err_set(e, -EEXIST, a->object, "size", "it exists with %lu bytes",
			(unsigned long)is->size_bytes);
	if (is->layout != layout)
		return err_set(e, -EEXIST, a->object, "layout", "it exists with layout %s",
			is->layout == VOLUME_COPY ? "copy" : "fragments");
	if (req->block_bytes && is->block_bytes != req->block_bytes)
		return err_set(
			e, -EEXIST, a->object, "block_bytes", "it exists with %u", is->block_bytes);
	return 0;
}

static int add_volume(struct card *card, struct add *a, struct volume **out, struct err *e)
{
	struct volume *vol;
	int rc = add_cfg(card, a, e);

	if (rc == 0)
		rc = volume_create(card->store, &a->cfg, &vol, e);
	if (rc < 0)
		return rc;
	/* The VM may have gone down while the creation waited: then there is nothing to attach to now. */
	a->v = vm_by_number(card, a->req->vm);
	rc = devices_publish(card, card->doc, e);
	if (rc == 0 && a->v && a->v->tvm)
		rc = device_attach(card, a->v, vol, e);
	if (rc < 0) {
		volume_delete(vol, NULL);
		devices_publish(card, card->doc, NULL);
		return rc;
	}
	event_post(card->events, EVENT_INFO, "device-added", a->object, "vm %s, %lu bytes",
		a->pv->name, (unsigned long)a->cfg.size_bytes);
	*out = vol;
	return 0;
}

int call_device_add(struct card *card, struct call *c)
{
	struct add a = {.req = c->req->device_add};
	struct volume *vol;
	Parapet__Device *d = call_message(c, Parapet__Device, parapet__device__init);
	int rc = d ? add_check(card, &a, &c->err) : -ENOMEM;

	if (rc < 0)
		return rc;
	vol = device_find(card, a.req->vm, a.req->path);
	if (!vol)
		rc = move_refuses(card, a.req->vm, a.object, &c->err);
	if (rc == 0)
		rc = vol ? same_device(&a, vol, &c->err) : add_volume(card, &a, &vol, &c->err);
	if (rc < 0)
		return rc;
	c->resp.result_case = PARAPET__RESPONSE__RESULT_DEVICE;
	c->resp.device = d;
	return fill_device(card, c, vol, d);
}

/* ---- grow -------------------------------------------------------------------------------------------------------- */

int call_device_grow(struct card *card, struct call *c)
{
	const Parapet__DeviceGrow *req = c->req->device_grow;
	struct volume *vol = device_find(card, req->vm, req->path);
	struct card_vm *v = vm_by_number(card, req->vm);
	Parapet__Device *d = call_message(c, Parapet__Device, parapet__device__init);
	struct device_id id;
	struct err why = {0};
	char object[96];
	uint64_t was;
	int rc;

	snprintf(object, sizeof(object), "device %.64s", req->path);
	if (!d)
		return -ENOMEM;
	if (!vol)
		return err_set(&c->err, -ENOENT, object, NULL, "vm %u has no such device", req->vm);
	was = volume_cfg(vol)->size_bytes;
	if (req->size_bytes < was)
		return err_set(&c->err, -EINVAL, object, "size",
			"%llu bytes: a device cannot shrink, it has %llu",
			(unsigned long long)req->size_bytes, (unsigned long long)was);
	rc = volume_grow(vol, req->size_bytes, &why);
	if (rc < 0)
		return err_set(&c->err, rc, object, "size", "%s",
			why.reason[0] ? why.reason : strerror(-rc));
	device_parse(vol, &id);
	if (req->size_bytes > was) {
		/* The VM may have gone down while this waited; it learns of the size when it comes back. */
		v = vm_by_number(card, req->vm);
		if (v && v->tvm)
			nvme_tcp_ns_resize(v->tvm, id.nsid, req->size_bytes);
		if (v)
			vhost_resize(v, id.nsid, req->size_bytes);
		event_post(card->events, EVENT_INFO, "device-grown", object,
			"vm %u, %llu to %llu bytes", req->vm, (unsigned long long)was,
			(unsigned long long)req->size_bytes);
	}
	c->resp.result_case = PARAPET__RESPONSE__RESULT_DEVICE;
	c->resp.device = d;
	return fill_device(card, c, vol, d);
}

/* ---- scheme and layout ------------------------------------------------------------------------------------------------- */

static int set_check(
	struct card *card, const Parapet__DeviceSet *req, const char *object, struct err *e)
{
	if (req->has_layout && (unsigned int)req->layout > PARAPET__LAYOUT__LAYOUT_FRAGMENTS)
		return err_set(e, -EINVAL, object, "layout", "unknown; allowed: copy, fragments");
	if (req->has_k != req->has_m || (req->has_k && (req->k < 1 || req->k > EC_K_MAX ||
							       req->m < 1 || req->m > EC_M_MAX)))
		return err_set(e, -EINVAL, object, "ec", "k is 1 to %d, m 1 to %d, both given",
			EC_K_MAX, EC_M_MAX);
	return 0;
}

static int set_volume(
	const Parapet__DeviceSet *req, struct volume *vol, bool *changed, struct err *e)
{
	const struct volume_cfg *is = volume_cfg(vol);
	enum volume_layout layout = req->layout == PARAPET__LAYOUT__LAYOUT_FRAGMENTS
					    ? VOLUME_FRAGMENTS
					    : VOLUME_COPY;
	int rc = 0;

	if (req->has_k && (is->scheme.k != req->k || is->scheme.m != req->m)) {
		*changed = true;
		rc = volume_set_scheme(
			vol, (struct ec_scheme){.k = (uint8_t)req->k, .m = (uint8_t)req->m}, e);
	}
	if (rc == 0 && req->has_layout && is->layout != layout) {
		*changed = true;
		rc = volume_set_layout(vol, layout, e);
	}
	return rc;
}

int call_device_set(struct card *card, struct call *c)
{
	const Parapet__DeviceSet *req = c->req->device_set;
	struct volume *vol = device_find(card, req->vm, req->path);
	Parapet__Device *d = call_message(c, Parapet__Device, parapet__device__init);
	struct err why = {0};
	bool changed = false;
	char object[96];
	int rc;

	snprintf(object, sizeof(object), "device %.64s", req->path);
	if (!d || !(d->tasks = call_alloc(c, sizeof(d->tasks[0]))))
		return -ENOMEM;
	if (!vol)
		return err_set(&c->err, -ENOENT, object, NULL, "vm %u has no such device", req->vm);
	rc = set_check(card, req, object, &c->err);
	if (rc < 0)
		return rc;
	rc = set_volume(req, vol, &changed, &why);
	if (rc < 0)
		return err_set(&c->err, rc, object, why.field[0] ? why.field : "ec", "%s",
			why.reason[0] ? why.reason : strerror(-rc));
	if (changed) {
		event_post(card->events, EVENT_INFO, "device-set", object, "vm %u: %u+%u, %s",
			req->vm, volume_cfg(vol)->scheme.k, volume_cfg(vol)->scheme.m,
			volume_cfg(vol)->layout == VOLUME_COPY ? "copy" : "fragments");
		if (!req->no_migrate && tasks_relay(card, c, vol, &d->tasks[0]) < 0)
			event_post(card->events, EVENT_WARNING, "not-protected", object,
				"what lies there stays as it is: %s", err_text(&c->err));
		d->n_tasks = d->tasks[0] != NULL;
	}
	c->resp.result_case = PARAPET__RESPONSE__RESULT_DEVICE;
	c->resp.device = d;
	return fill_device(card, c, vol, d);
}

/* ---- delete ------------------------------------------------------------------------------------------------------ */

int call_device_del(struct card *card, struct call *c)
{
	const Parapet__DeviceDel *req = c->req->device_del;
	struct volume *vol = device_find(card, req->vm, req->path);
	struct card_vm *v = vm_by_number(card, req->vm);
	struct device_id id;
	char object[96];
	int rc = 0;

	snprintf(object, sizeof(object), "device %.64s", req->path);
	if (!vol)
		return err_set(&c->err, -ENOENT, object, NULL, "vm %u has no such device", req->vm);
	device_parse(vol, &id);
	if (v && v->tvm) {
		uint32_t users = nvme_tcp_ns_users(v->tvm, id.nsid) + vhost_users(v, id.nsid);

		if (users)
			return err_set(&c->err, -EBUSY, object, NULL,
				"%u connections use it; disconnect the VM first", users);
		rc = vhost_detach(card, req->vm, id.nsid);
		/* That waited: the VM may have gone, or come anew. */
		vol = device_find(card, req->vm, req->path);
		v = vm_by_number(card, req->vm);
		if (!vol)
			return err_set(&c->err, -EAGAIN, object, NULL, "the pool has changed");
		if (rc == 0 && v && v->tvm)
			rc = device_detach(card, v, vol, id.nsid);
	}
	if (rc == 0)
		rc = volume_delete(vol, &c->err);
	if (rc < 0) {
		/* It is still there: give it back to the VM. */
		if (v && v->tvm)
			device_attach(card, v, vol, NULL);
		return c->err.code ? rc : err_set(&c->err, rc, object, NULL, "%s", strerror(-rc));
	}
	event_post(card->events, EVENT_INFO, "device-deleted", object, "vm %u", req->vm);
	/* The snapshot may go on naming a volume that is no more: its number is never used again. */
	devices_publish(card, card->doc, NULL);
	return 0;
}
