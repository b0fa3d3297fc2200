/* SPDX-License-Identifier: BSD-3-Clause */
/* What poll, analyze and the registry of VMs share. */
#ifndef DPU_PIPELINE_PIPELINE_PRIV_H
#define DPU_PIPELINE_PIPELINE_PRIV_H

#include "dpu/pipeline/pipeline.h"
#include "dpu/qos/qos.h"

#define VM_PLACES (2u * PIPELINE_VMS_MAX) /* of the hash table: a power of two, never full */

struct pipeline_vol {
	uint32_t id; /* volume_id() */
	uint32_t in_flight;
};

/* A request between submit and done: what the pipeline has to put back. */
struct pipeline_slot {
	struct pipeline_vm *vm;
	struct pipeline_vol *vol; /* NULL: it will be refused */
	uint64_t bytes; /* what it counts for in qos */
	uint64_t sampled_ns; /* when it went to the volume, where that is measured; else 0 */
	bool passed;
	void (*done_fn)(struct io_req *req);
	void *arg;
	SLIST_ENTRY(pipeline_slot) link;
};

struct pipeline_vm {
	struct pipeline *p;
	uint32_t vm;
	struct pipeline_slot *slots;
	SLIST_HEAD(, pipeline_slot) free_slots;
	TAILQ_HEAD(, io_req)
	waiting; /* for their turn, for tokens, for the volume; in order of arrival */
	struct qos_vm qos;
	struct pipeline_vol **vols; /* the VM's, by id */
	uint32_t nvols;
	struct pipeline_vm_stats stats;
	struct hist took[PIPELINE_OPS]; /* submit to done */
};

struct pipeline {
	struct pipeline_cfg cfg;
	struct pipeline_vm *vms[VM_PLACES]; /* by number, open addressing */
	uint32_t nvms;
	uint32_t in_flight;
	bool draining;
	struct qos qos; /* who is next */
	struct hist waited; /* of requests that did: until they went to the volume */
	TAILQ_HEAD(, io_req) refused; /* to be completed from the loop */
	struct task turn_task, refuse_task;
	struct timer wake_timer; /* tokens, or the volume has to be asked again */
};

static inline uint32_t vm_hash(uint32_t vm)
{
	return vm * 2654435761u >> 11;
}

static inline struct pipeline_vm *vm_find(const struct pipeline *p, uint32_t vm)
{
	for (uint32_t i = vm_hash(vm);; i++) {
		struct pipeline_vm *v = p->vms[i & (VM_PLACES - 1)];

		if (!v || v->vm == vm)
			return v;
	}
}

/* The first volume with a number >= id is at the returned place (nvols: none). */
static inline uint32_t vol_place(const struct pipeline_vm *v, uint32_t id)
{
	uint32_t lo = 0, hi = v->nvols;

	while (lo < hi) {
		uint32_t mid = (lo + hi) / 2;

		if (v->vols[mid]->id < id)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

static inline struct pipeline_vol *vol_of(const struct pipeline_vm *v, uint32_t id)
{
	uint32_t i = vol_place(v, id);

	return i < v->nvols && v->vols[i]->id == id ? v->vols[i] : NULL;
}

void poll_turn(void *arg); /* struct pipeline: passes on what may go now */

/* analyze (201): routes by table 203, decides by table 204; sets req->outcome. 0, or the status to refuse with. */
enum io_status analyze(struct pipeline *p, struct pipeline_slot *slot, struct io_req *req);

#endif
