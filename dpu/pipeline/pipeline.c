/* SPDX-License-Identifier: BSD-3-Clause */
/* VMs and their volumes. */
#include "dpu/pipeline/pipeline_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define VM_REQUESTS 1024u

int pipeline_open(const struct pipeline_cfg *cfg, struct pipeline **out)
{
	struct pipeline *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->cfg = *cfg;
	if (!p->cfg.vm_requests)
		p->cfg.vm_requests = VM_REQUESTS;
	TAILQ_INIT(&p->refused);
	if (qos_open(&p->qos, PIPELINE_VMS_MAX) < 0) {
		free(p);
		return -ENOMEM;
	}
	*out = p;
	return 0;
}

static void vm_free(struct pipeline_vm *v)
{
	for (uint32_t i = 0; i < v->nvols; i++)
		free(v->vols[i]);
	free(v->vols);
	free(v->slots);
	free(v);
}

void pipeline_close(struct pipeline *p)
{
	if (!p)
		return;
	assert(p->in_flight == 0);
	shard_undefer(p->cfg.shard, &p->turn_task);
	shard_undefer(p->cfg.shard, &p->refuse_task);
	timer_disarm(p->cfg.shard, &p->wake_timer);
	for (uint32_t i = 0; i < VM_PLACES; i++)
		if (p->vms[i])
			vm_free(p->vms[i]);
	qos_close(&p->qos);
	free(p);
}

/* ---- VMs ----------------------------------------------------------------------------------------------------- */

static void vm_place(struct pipeline *p, struct pipeline_vm *v)
{
	uint32_t i = vm_hash(v->vm);

	while (p->vms[i & (VM_PLACES - 1)])
		i++;
	p->vms[i & (VM_PLACES - 1)] = v;
}

int pipeline_vm_add(struct pipeline *p, uint32_t vm)
{
	struct pipeline_vm *v;

	if (!vm)
		return -EINVAL;
	if (vm_find(p, vm))
		return -EEXIST;
	if (p->nvms >= PIPELINE_VMS_MAX)
		return -ENOSPC;
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->slots = calloc(p->cfg.vm_requests, sizeof(v->slots[0]));
	if (!v->slots) {
		free(v);
		return -ENOMEM;
	}
	v->p = p;
	v->vm = vm;
	TAILQ_INIT(&v->waiting);
	qos_vm_init(&v->qos);
	for (uint32_t i = 0; i < p->cfg.vm_requests; i++) {
		v->slots[i].vm = v;
		SLIST_INSERT_HEAD(&v->free_slots, &v->slots[i], link);
	}
	vm_place(p, v);
	p->nvms++;
	return 0;
}

int pipeline_vm_del(struct pipeline *p, uint32_t vm)
{
	struct pipeline_vm *v = vm_find(p, vm), *rest;
	uint32_t i;

	if (!v)
		return -ENOENT;
	if (v->stats.in_flight)
		return -EBUSY;
	for (i = vm_hash(vm); p->vms[i & (VM_PLACES - 1)] != v; i++)
		;
	p->vms[i & (VM_PLACES - 1)] = NULL;
	/* Open addressing: those behind it in the same run may have to move up. */
	for (i++; (rest = p->vms[i & (VM_PLACES - 1)]); i++) {
		p->vms[i & (VM_PLACES - 1)] = NULL;
		vm_place(p, rest);
	}
	p->nvms--;
	vm_free(v);
	return 0;
}

int pipeline_vm_stats(const struct pipeline *p, uint32_t vm, struct pipeline_vm_stats *out)
{
	const struct pipeline_vm *v = vm_find(p, vm);

	if (!v)
		return -ENOENT;
	*out = v->stats;
	for (int op = 0; op < PIPELINE_OPS; op++) {
		out->latency_ns[op] = v->took[op].sum;
		out->latency_max_ns[op] = v->took[op].max;
	}
	out->capped_ns = qos_slept_ns(&v->qos, shard_now_ns(p->cfg.shard));
	return 0;
}

const struct hist *pipeline_vm_latency(const struct pipeline *p, uint32_t vm, enum io_op op)
{
	const struct pipeline_vm *v = vm_find(p, vm);

	return v ? &v->took[op] : NULL;
}

void pipeline_stats(const struct pipeline *p, struct pipeline_stats *out)
{
	*out = (struct pipeline_stats){.waited = &p->waited,
		.window_bytes = p->qos.window,
		.flying_bytes = p->qos.flying,
		.window_full = p->qos.full_times};
}

int pipeline_vm_set_qos(struct pipeline *p, uint32_t vm, const struct qos_cfg *cfg)
{
	struct pipeline_vm *v = vm_find(p, vm);

	if (!v)
		return -ENOENT;
	if (qos_cfg_check(cfg, "vm", "", NULL) < 0)
		return -EINVAL;
	qos_vm_set(&p->qos, &v->qos, cfg, shard_now_ns(p->cfg.shard));
	shard_defer(p->cfg.shard, &p->turn_task, poll_turn, p);
	return 0;
}

/* ---- volumes --------------------------------------------------------------------------------------------------- */

int pipeline_volume_add(struct pipeline *p, uint32_t vm, const struct volume *vol)
{
	struct pipeline_vm *v = vm_find(p, vm);
	uint32_t id = volume_id(vol), at;
	struct pipeline_vol *pv, **grown;

	if (!v)
		return -ENOENT;
	at = vol_place(v, id);
	if (at < v->nvols && v->vols[at]->id == id)
		return -EEXIST;
	pv = calloc(1, sizeof(*pv));
	grown = pv ? realloc(v->vols, (v->nvols + 1) * sizeof(v->vols[0])) : NULL;
	if (!grown) {
		free(pv);
		return -ENOMEM;
	}
	v->vols = grown;
	memmove(&v->vols[at + 1], &v->vols[at], (v->nvols - at) * sizeof(v->vols[0]));
	pv->id = id;
	v->vols[at] = pv;
	v->nvols++;
	return 0;
}

int pipeline_volume_del(struct pipeline *p, uint32_t vm, const struct volume *vol)
{
	struct pipeline_vm *v = vm_find(p, vm);
	uint32_t id = volume_id(vol), at;

	if (!v)
		return -ENOENT;
	at = vol_place(v, id);
	if (at >= v->nvols || v->vols[at]->id != id)
		return -ENOENT;
	if (v->vols[at]->in_flight)
		return -EBUSY;
	free(v->vols[at]);
	v->nvols--;
	memmove(&v->vols[at], &v->vols[at + 1], (v->nvols - at) * sizeof(v->vols[0]));
	return 0;
}
