/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * poll (200) and analyze (201): from the frontends to the volumes.
 *
 *	frontend ─▶ pipeline_submit() ─▶ poll: per-VM queues ─▶ qos: caps, turns ─▶ analyze: 203, 204 ─▶ volume_submit()
 *
 * analyze takes one table snapshot per request, checks that the volume is the VM's own, and sets req->outcome. poll keeps requests
 * that may not go yet in the queue of their VM, in order: those over a cap of the VM, those whose turn it is not (dpu/qos/qos.h), and those
 * the volume cannot take (back-pressure). Nothing is dropped; VMs take turns by weight, so one cannot starve another.
 *
 * Thread: the shard's. Submit contract of dpu/core/io.h: 0 and req->done_fn once, later; or -errno and never: -EAGAIN (the VM has
 * as many requests in flight as it may: when one completes), -ENOENT (no such VM), -ESHUTDOWN (the pipeline is closing).
 * A request for a volume that is not the VM's ends with IO_ERR_INVALID.
 * Ownership: the frontend owns req; while in flight the pipeline uses its link, done_fn and arg, and puts the last two back
 * before it calls done_fn. Memory: allocated at open and with each VM.
 *
 *	pipeline_submit(p, req);	req->vm, vol, op, flags, off, len, iov, niov, stable, done_fn, arg are set
 */
#ifndef DPU_PIPELINE_PIPELINE_H
#define DPU_PIPELINE_PIPELINE_H

#include "common/base/err.h"
#include "common/base/hist.h"
#include "dpu/qos/qos.h"
#include "dpu/tables/tables.h"
#include "dpu/volume/volume.h"

struct pipeline;

struct pipeline_cfg {
	struct shard *shard;
	struct tables *tables;
	uint32_t vm_requests; /* of one VM in flight or waiting; 0: 1024 */
};

#define PIPELINE_VMS_MAX POLICY_VMS_MAX

int pipeline_open(const struct pipeline_cfg *cfg, struct pipeline **out);
/* Nothing is in flight: pipeline_drain() first. */
void pipeline_close(struct pipeline *p);

int pipeline_submit(struct pipeline *p, struct io_req *req);

/* Takes no new request and waits until none is in flight, 0 or -ETIMEDOUT. Control context (shard_wait()). Caps do not count
 * meanwhile. pipeline_resume() takes requests again. */
int pipeline_drain(struct pipeline *p, uint64_t timeout_ns);
void pipeline_resume(struct pipeline *p);

/* ---- VMs and their volumes: set by control ------------------------------------------------------------------ */

int pipeline_vm_add(struct pipeline *p, uint32_t vm); /* -EEXIST, -ENOSPC, -ENOMEM; vm is not 0 */
/* -EBUSY while it has requests in flight, -ENOENT. Its volumes are no longer reachable. */
int pipeline_vm_del(struct pipeline *p, uint32_t vm);
/* Its caps and its weight from now on, also for what waits. A new VM has the defaults. -ENOENT, -EINVAL (qos_cfg_check()). */
int pipeline_vm_set_qos(struct pipeline *p, uint32_t vm, const struct qos_cfg *cfg);
/* The VM may use the volume. -EEXIST, -ENOENT (VM), -ENOMEM. */
int pipeline_volume_add(struct pipeline *p, uint32_t vm, const struct volume *vol);
/* It may no longer. -EBUSY while requests for it are in flight, -ENOENT. */
int pipeline_volume_del(struct pipeline *p, uint32_t vm, const struct volume *vol);

/* ---- numbers ---------------------------------------------------------------------------------------------- */

#define PIPELINE_OPS (IO_TRIM + 1)

struct pipeline_vm_stats {
	uint64_t requests[PIPELINE_OPS], bytes[PIPELINE_OPS];
	uint64_t outcome[3], outcome_bytes[3]; /* of writes, by enum io_outcome */
	uint64_t status[IO_STATUS_COUNT];
	uint64_t refused; /* -EAGAIN: over the VM's bound */
	uint64_t waited; /* did not go to the volume at once */
	uint64_t foreign; /* named a volume that is not the VM's */
	uint64_t latency_ns[PIPELINE_OPS], latency_max_ns[PIPELINE_OPS]; /* sums, and the longest */
	uint64_t capped_ns; /* time its first waiting request lacked tokens */
	uint32_t in_flight, waiting; /* the first counts the second */
};
int pipeline_vm_stats(const struct pipeline *p, uint32_t vm, struct pipeline_vm_stats *out);
/* Submit to done, in ns; time is that of the shard's rounds: what ends in the round it came in took 0. NULL: no such VM. Valid while the VM is there. */
const struct hist *pipeline_vm_latency(const struct pipeline *p, uint32_t vm, enum io_op op);

struct pipeline_stats {
	const struct hist
		*waited; /* ns, of requests that did not go to the volume at once; the pipeline's */
	uint64_t window_bytes, flying_bytes; /* dpu/qos/qos.h */
	uint64_t window_full; /* times somebody had to wait for the window */
};
void pipeline_stats(const struct pipeline *p, struct pipeline_stats *out);

#endif
