/* SPDX-License-Identifier: BSD-3-Clause */
/* VMs and their ways in: what the tables name is brought up, what they no longer name goes. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#define RETRY_NS 2000000000ull

static const char *text_of(const char *s)
{
	return s ? s : "";
}

struct card_vm *vm_by_number(const struct card *c, uint32_t vm)
{
	struct card_vm *v;

	TAILQ_FOREACH (v, &c->vms, link)
		if (v->vm == vm)
			return v;
	return NULL;
}

static void signature_of(const struct tables_doc *doc, const Parapet__Vm *vm, char *buf, size_t len)
{
	snprintf(buf, len, "%s|%s|%s|%s|%s|%s|%s|%s", vm->name, text_of(vm->listen),
		text_of(vm->port), text_of(vm->card_ip), text_of(vm->card_mac), text_of(vm->nqn),
		text_of(vm->vhost), vm->port ? text_of(doc->pb->uplink) : "");
}

/* The subsystem's name where the tables give none: a UUID made from the card's and the VM's number. */
static void default_nqn(const struct card *c, uint32_t vm, char *buf, size_t len)
{
	char name[16], text[37];
	uuid_t id;

	snprintf(name, sizeof(name), "vm %u", vm);
	uuid_generate_sha1(id, c->id, name, strlen(name));
	uuid_unparse_lower(id, text);
	snprintf(buf, len, "nqn.2014-08.org.nvmexpress:uuid:%s", text);
}

static const struct card_access *access_of(const struct card *c, enum tables_access_kind kind)
{
	for (int i = 0; i < CARD_ACCESS_MAX && c->cfg.access[i].ops; i++)
		if (c->cfg.access[i].ops->kind == kind)
			return &c->cfg.access[i];
	return NULL;
}

static bool has_write_cache(const struct card *c)
{
	const struct pool *p = c->store ? store_pool(c->store) : NULL;

	for (unsigned int i = 0; p && i < pool_ndevs(p); i++) {
		const struct pool_dev *d = pool_dev(p, i);

		if (d->state != POOL_DEV_REMOVED &&
			(!d->flash || flash_info(d->flash)->volatile_cache))
			return true;
	}
	return p == NULL;
}

/* ---- one VM ------------------------------------------------------------------------------------------------ */

static int target_up(struct card *c, struct card_vm *v, const Parapet__Vm *vm, struct err *e)
{
	char serial[24];
	struct nvme_tcp_vm_cfg cfg = {.vm = vm->vm,
		.subnqn = v->nqn,
		.hosts = (const char *const *)vm->hosts,
		.nhosts = (int)vm->n_hosts,
		.serial = serial,
		.no_write_cache = !has_write_cache(c)};

	snprintf(serial, sizeof(serial), "PP%02X%02X%02X%02X%08X", c->id[0], c->id[1], c->id[2],
		c->id[3], vm->vm);
	return nvme_tcp_vm_add(c->target, &cfg, &v->tvm, e);
}

static int volumes_up(struct card *c, struct card_vm *v, struct err *e)
{
	struct volume *vol = c->store ? volume_first(c->store) : NULL;
	struct device_id id;
	int rc = 0;

	for (; vol && rc == 0; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0 && id.vm == v->vm)
			rc = device_attach(c, v, vol, e);
	return rc;
}

/* Everything of the VM goes, hosts are disconnected. -ETIMEDOUT: requests have not come back; nothing of it is reachable. */
static int vm_down(struct card *c, struct card_vm *v)
{
	int rc = 0;

	/* What waits for tokens ends now. */
	pipeline_vm_set_qos(c->pipeline, v->vm, &(struct qos_cfg){.weight = 0});
	rc = vhost_vm_down(c, v);
	if (rc < 0)
		return rc;
	if (v->tvm) {
		rc = nvme_tcp_vm_del(v->tvm);
		if (rc < 0)
			return rc;
		v->tvm = NULL;
	}
	if (v->way) {
		v->access->ops->close(v->access->provider, v->way);
		v->way = NULL;
	}
	rc = pipeline_vm_del(c->pipeline, v->vm);
	return rc == -ENOENT ? 0 : rc;
}

/* Where the VM is to come in, checked without touching anything. v->access and its text are set. */
static int way_check(struct card *c, struct card_vm *v, const struct tables_doc *doc,
	const Parapet__Vm *vm, struct tables_access *a, struct err *e)
{
	char object[96];
	int rc = tables_access_parse(vm, a, e);

	if (rc < 0 || a->kind == TABLES_ACCESS_NONE)
		return rc;
	if (a->kind == TABLES_ACCESS_PORT && c->cfg.first)
		return err_set(e, -EINVAL, object_name(object, sizeof(object), "vm", vm->name),
			"port",
			"it is on shard %u, and ports are shard 0's; allowed: move it there first",
			c->cfg.index);
	v->access = access_of(c, a->kind);
	if (!v->access)
		return err_set(e, -ENODEV, object_name(object, sizeof(object), "vm", vm->name),
			a->kind == TABLES_ACCESS_PORT ? "port" : "listen",
			a->kind == TABLES_ACCESS_PORT
				? "this card was started without ports; give parapet-dpu EAL "
				  "arguments"
				: "this card takes no connections over sockets");
	snprintf(v->access_text, sizeof(v->access_text), "%s %s%s%s", v->access->ops->name,
		a->kind == TABLES_ACCESS_PORT ? vm->port : vm->listen,
		a->kind == TABLES_ACCESS_PORT ? " " : "",
		a->kind == TABLES_ACCESS_PORT ? vm->card_ip : "");
	if (!v->access->ops->check)
		return 0;
	return v->access->ops->check(v->access->provider, doc->pb, vm, a, e);
}

static int way_up(struct card *c, struct card_vm *v, const struct tables_doc *doc,
	const Parapet__Vm *vm, struct err *e)
{
	struct tables_access a;
	int rc = way_check(c, v, doc, vm, &a, e);

	if (rc < 0 || a.kind == TABLES_ACCESS_NONE)
		return rc;
	return v->access->ops->open(v->access->provider, doc->pb, vm, &a, v->tvm, &v->way, e);
}

/* ---- what it may take ---------------------------------------------------------------------------------------- */

static struct qos_cfg qos_of(const Parapet__Vm *vm)
{
	return (struct qos_cfg){.mbps = vm->qos_mbps,
		.iops = vm->qos_iops,
		.burst_ms = vm->qos_burst_ms,
		.weight = vm->qos_weight};
}

static int qos_check(const Parapet__Vm *vm, struct err *e)
{
	struct qos_cfg cfg = qos_of(vm);
	char object[96];

	return qos_cfg_check(&cfg, object_name(object, sizeof(object), "vm", vm->name), "qos_", e);
}

static void qos_in_force(struct card *c, const Parapet__Vm *vm)
{
	struct qos_cfg cfg = qos_of(vm);
	char object[96];

	/* -ENOENT: it is not up, and gets it when it comes. Pushed tables were checked; remembered ones may be an older card's. */
	if (pipeline_vm_set_qos(c->pipeline, vm->vm, &cfg) == -EINVAL)
		event_post(c->events, EVENT_WARNING, "qos-ignored",
			object_name(object, sizeof(object), "vm", vm->name),
			"its caps and its weight are out of range");
}

int vms_check(struct card *c, const struct tables_doc *doc, struct err *e)
{
	struct card_vm scratch;
	struct tables_access a;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < doc->pb->n_vms; i++) {
		if (!card_owns(c, doc->pb->vms[i]->vm))
			continue;
		rc = qos_check(doc->pb->vms[i], e);
		if (rc == 0)
			rc = way_check(c, &scratch, doc, doc->pb->vms[i], &a, e);
		if (rc == 0)
			rc = vhost_check(c, doc->pb->vms[i], e);
	}
	return rc;
}

static int vm_up(struct card *c, struct card_vm *v, const struct tables_doc *doc,
	const Parapet__Vm *vm, struct err *e)
{
	int rc;

	if (vm->nqn && vm->nqn[0])
		snprintf(v->nqn, sizeof(v->nqn), "%s", vm->nqn);
	else
		default_nqn(c, vm->vm, v->nqn, sizeof(v->nqn));
	rc = pipeline_vm_add(c->pipeline, vm->vm);
	if (rc < 0) {
		char object[96];

		return err_set(e, rc, object_name(object, sizeof(object), "vm", vm->name), NULL,
			"cannot be brought up: %s", strerror(-rc));
	}
	qos_in_force(c, vm);
	rc = target_up(c, v, vm, e);
	if (rc == 0)
		rc = vhost_vm_up(c, v, vm, e);
	if (rc == 0)
		rc = volumes_up(c, v, e);
	if (rc == 0)
		rc = way_up(c, v, doc, vm, e);
	if (rc < 0)
		vm_down(c, v);
	return rc;
}

/* The problem of a VM; who reads it knows which VM it is. */
static void problem_set(struct card_vm *v, const struct err *e)
{
	char object[96];

	object_name(object, sizeof(object), "vm", v->name);
	if (!strcmp(e->object, object) && e->field[0])
		snprintf(v->problem, sizeof(v->problem), "%s: %s", e->field, e->reason);
	else if (!strcmp(e->object, object))
		snprintf(v->problem, sizeof(v->problem), "%s", e->reason);
	else
		snprintf(v->problem, sizeof(v->problem), "%s", err_text(e));
}

static void vm_forget(struct card *c, struct card_vm *v)
{
	TAILQ_REMOVE(&c->vms, v, link);
	free(v);
}

/* ---- all of them --------------------------------------------------------------------------------------------- */

static void retry(void *arg);

static void retry_arm(struct card *c)
{
	struct card_vm *v;

	TAILQ_FOREACH (v, &c->vms, link)
		if (v->problem[0])
			break;
	if (!v)
		timer_disarm(c->cfg.shard, &c->retry_timer);
	else if (timer_arm(c->cfg.shard, &c->retry_timer, shard_now_ns(c->cfg.shard) + RETRY_NS,
			 retry, c) < 0)
		event_post(c->events, EVENT_ERROR, "no-memory", "card",
			"VMs that are not up are not tried again");
}

/* Those that did not come up, once more: an address may have become free, a port may have come. */
static void retry(void *arg)
{
	struct card *c = arg;
	struct card_vm *v;
	char object[96];

	TAILQ_FOREACH (v, &c->vms, link) {
		const Parapet__Vm *vm = tables_doc_vm(c->doc, v->vm);
		struct err e = {0};

		if (!v->problem[0] || v->tvm || !vm || !card_owns(c, v->vm))
			continue;
		if (vm_up(c, v, c->doc, vm, &e) < 0) {
			problem_set(v, &e);
			continue;
		}
		v->problem[0] = 0;
		event_post(c->events, EVENT_INFO, "vm-up",
			object_name(object, sizeof(object), "vm", v->name), "%s", v->access_text);
	}
	retry_arm(c);
}

/* Hosts that may no longer connect are disconnected now; the others come back by themselves. */
static int hosts_update(struct card *c, struct card_vm *v, const struct tables_doc *doc,
	const Parapet__Vm *vm, struct err *e)
{
	const Parapet__Vm *was = tables_doc_vm(c->doc, vm->vm);
	bool same = was && was->n_hosts == vm->n_hosts;
	int rc;

	for (size_t i = 0; same && i < vm->n_hosts; i++)
		same = !strcmp(was->hosts[i], vm->hosts[i]);
	if (same && c->doc != doc)
		return 0;
	rc = nvme_tcp_vm_set_hosts(v->tvm, (const char *const *)vm->hosts, (int)vm->n_hosts, e);
	if (rc == 0 && !same)
		nvme_tcp_vm_disconnect(v->tvm);
	return rc;
}

static int down_what_goes(struct card *c, const struct tables_doc *doc, struct err *e)
{
	struct card_vm *v, *next;
	char signature[512], object[96];

	for (v = TAILQ_FIRST(&c->vms); v; v = next) {
		const Parapet__Vm *vm = tables_doc_vm(doc, v->vm);
		int rc;

		next = TAILQ_NEXT(v, link);
		if (vm && card_owns(c, v->vm)) {
			signature_of(doc, vm, signature, sizeof(signature));
			if (!v->problem[0] && !strcmp(signature, v->signature))
				continue;
		}
		rc = vm_down(c, v);
		if (rc < 0)
			return err_set(e, rc, object_name(object, sizeof(object), "vm", v->name),
				NULL, "its requests do not end: %s", strerror(-rc));
		vm_forget(c, v);
	}
	return 0;
}

static int up_one(struct card *c, const struct tables_doc *doc, const Parapet__Vm *vm, bool strict,
	struct err *e)
{
	struct card_vm *v = calloc(1, sizeof(*v));
	char object[96];
	int rc;

	object_name(object, sizeof(object), "vm", vm->name);
	if (!v)
		return err_set(e, -ENOMEM, object, NULL, "out of memory");
	v->vm = vm->vm;
	snprintf(v->name, sizeof(v->name), "%s", vm->name);
	signature_of(doc, vm, v->signature, sizeof(v->signature));
	TAILQ_INSERT_TAIL(&c->vms, v, link);
	rc = vm_up(c, v, doc, vm, e);
	if (rc == 0)
		return 0;
	if (strict) {
		vm_forget(c, v);
		return rc;
	}
	problem_set(v, e);
	event_post(c->events, EVENT_ERROR, "vm-down", object, "%s", v->problem);
	return 0;
}

int vms_reconcile(struct card *c, const struct tables_doc *doc, bool strict, struct err *e)
{
	struct err ignored;
	int rc = down_what_goes(c, doc, e);

	for (size_t i = 0; rc == 0 && i < doc->pb->n_vms; i++) {
		const Parapet__Vm *vm = doc->pb->vms[i];
		struct card_vm *v = vm_by_number(c, vm->vm);

		if (!card_owns(c, vm->vm))
			continue;
		memset(&ignored, 0, sizeof(ignored));
		if (v) {
			rc = v->tvm ? hosts_update(c, v, doc, vm, e) : 0;
			qos_in_force(c, vm);
			vhost_vm_row(v, vm);
		} else
			rc = up_one(c, doc, vm, strict, e ? e : &ignored);
	}
	retry_arm(c);
	return rc;
}

void vms_take_down(struct card *c)
{
	struct card_vm *v, *next;

	timer_disarm(c->cfg.shard, &c->retry_timer);
	for (v = TAILQ_FIRST(&c->vms); v; v = next) {
		char object[96];

		next = TAILQ_NEXT(v, link);
		if (vm_down(c, v) < 0) {
			event_post(c->events, EVENT_ERROR, "vm-stuck",
				object_name(object, sizeof(object), "vm", v->name),
				"its requests do not end");
			continue;
		}
		vm_forget(c, v);
	}
}

int vm_stop(struct card *c, uint32_t vm)
{
	struct card_vm *v = vm_by_number(c, vm);
	int rc = v ? vm_down(c, v) : 0;

	/* That waited: it may have gone. */
	v = vm_by_number(c, vm);
	if (v && rc < 0)
		snprintf(v->problem, sizeof(v->problem), "its requests do not end: %s",
			strerror(-rc));
	else if (v)
		vm_forget(c, v);
	return rc;
}

void card_vms_again(struct card *c)
{
	struct err e = {0};

	if (devices_publish(c, c->doc, &e) < 0 || vms_reconcile(c, c->doc, false, &e) < 0)
		event_post(c->events, EVENT_ERROR, "vm-down", "card", "%s", err_text(&e));
}

void card_vms_let_go(struct card *c)
{
	struct err e = {0};

	if (down_what_goes(c, c->doc, &e) < 0)
		event_post(c->events, EVENT_ERROR, "vm-stuck", "card", "%s", err_text(&e));
}
