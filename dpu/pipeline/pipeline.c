/* SPDX-License-Identifier: BSD-3-Clause */
/* VMs and their namespaces. */
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
	TAILQ_INIT(&p->ready);
	TAILQ_INIT(&p->refused);
	*out = p;
	return 0;
}

static void vm_free(struct pipeline_vm *v)
{
	for (uint32_t i = 0; i < v->nns; i++)
		free(v->ns[i]);
	free(v->ns);
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
	timer_disarm(p->cfg.shard, &p->retry_timer);
	for (uint32_t i = 0; i < VM_PLACES; i++)
		if (p->vms[i])
			vm_free(p->vms[i]);
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
	if (v->stats.in_flight || !LIST_EMPTY(&v->watches))
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

uint32_t pipeline_vm_in_flight(const struct pipeline *p, uint32_t vm)
{
	const struct pipeline_vm *v = vm_find(p, vm);

	return v ? v->stats.in_flight : 0;
}

int pipeline_vm_stats(const struct pipeline *p, uint32_t vm, struct pipeline_vm_stats *out)
{
	const struct pipeline_vm *v = vm_find(p, vm);

	if (!v)
		return -ENOENT;
	*out = v->stats;
	return 0;
}

/* ---- namespaces ------------------------------------------------------------------------------------------------ */

static void ns_changed(struct pipeline_vm *v, uint32_t nsid)
{
	struct pipeline_watch *w, *next;

	for (w = LIST_FIRST(&v->watches); w; w = next) {
		next = LIST_NEXT(w, link);
		w->changed_fn(w->arg, nsid);
	}
}

int pipeline_ns_add(struct pipeline *p, uint32_t vm, struct volume *vol)
{
	struct pipeline_vm *v = vm_find(p, vm);
	uint32_t nsid = volume_id(vol), at;
	struct pipeline_ns *ns, **grown;

	if (!v)
		return -ENOENT;
	at = ns_place(v, nsid);
	if (at < v->nns && v->ns[at]->nsid == nsid)
		return -EEXIST;
	ns = calloc(1, sizeof(*ns));
	grown = ns ? realloc(v->ns, (v->nns + 1) * sizeof(v->ns[0])) : NULL;
	if (!grown) {
		free(ns);
		return -ENOMEM;
	}
	v->ns = grown;
	memmove(&v->ns[at + 1], &v->ns[at], (v->nns - at) * sizeof(v->ns[0]));
	ns->nsid = nsid;
	ns->vol = vol;
	v->ns[at] = ns;
	v->nns++;
	ns_changed(v, nsid);
	return 0;
}

int pipeline_ns_del(struct pipeline *p, uint32_t vm, uint32_t nsid)
{
	struct pipeline_vm *v = vm_find(p, vm);
	uint32_t at;

	if (!v)
		return -ENOENT;
	at = ns_place(v, nsid);
	if (at >= v->nns || v->ns[at]->nsid != nsid)
		return -ENOENT;
	if (v->ns[at]->in_flight)
		return -EBUSY;
	free(v->ns[at]);
	v->nns--;
	memmove(&v->ns[at], &v->ns[at + 1], (v->nns - at) * sizeof(v->ns[0]));
	ns_changed(v, nsid);
	return 0;
}

struct volume *pipeline_ns_find(const struct pipeline *p, uint32_t vm, uint32_t nsid)
{
	const struct pipeline_vm *v = vm_find(p, vm);
	const struct pipeline_ns *ns = v ? ns_of(v, nsid) : NULL;

	return ns ? ns->vol : NULL;
}

uint32_t pipeline_ns_next(const struct pipeline *p, uint32_t vm, uint32_t nsid)
{
	const struct pipeline_vm *v = vm_find(p, vm);
	uint32_t at;

	if (!v || nsid == UINT32_MAX)
		return 0;
	at = ns_place(v, nsid + 1);
	return at < v->nns ? v->ns[at]->nsid : 0;
}

uint32_t pipeline_ns_count(const struct pipeline *p, uint32_t vm)
{
	const struct pipeline_vm *v = vm_find(p, vm);

	return v ? v->nns : 0;
}

int pipeline_watch_add(struct pipeline *p, uint32_t vm, struct pipeline_watch *w)
{
	struct pipeline_vm *v = vm_find(p, vm);

	if (!v)
		return -ENOENT;
	LIST_INSERT_HEAD(&v->watches, w, link);
	return 0;
}

void pipeline_watch_del(struct pipeline_watch *w)
{
	LIST_REMOVE(w, link);
}
