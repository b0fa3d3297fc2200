/* SPDX-License-Identifier: BSD-3-Clause */
/* What a live view needs, in one go: counts of VMs, stages, batches and flash, all since start. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"

#include <errno.h>

/* ---- histograms ------------------------------------------------------------------------------------------------ */

static Parapet__Histogram *histogram(struct call *c, const struct hist *h)
{
	Parapet__Histogram *m = call_message(c, Parapet__Histogram, parapet__histogram__init);
	size_t n = 0;

	for (unsigned int i = 0; i < HIST_CLASSES; i++)
		n += h->n[i] != 0;
	if (!m)
		return NULL;
	m->classes = call_alloc(c, (n + 1) * sizeof(m->classes[0]));
	m->counts = call_alloc(c, (n + 1) * sizeof(m->counts[0]));
	if (!m->classes || !m->counts)
		return NULL;
	for (unsigned int i = 0; i < HIST_CLASSES; i++) {
		if (!h->n[i])
			continue;
		m->classes[m->n_classes++] = i;
		m->counts[m->n_counts++] = h->n[i];
	}
	m->has_sum = m->has_max = true;
	m->sum = h->sum;
	m->max = h->max;
	return m;
}

/* ---- VMs ---------------------------------------------------------------------------------------------------------- */

static int vm_ops(struct card *card, struct call *c, uint32_t vm,
	const struct pipeline_vm_stats *st, Parapet__TopVm *m)
{
	m->ops = call_alloc(c, PIPELINE_OPS * sizeof(m->ops[0]));
	if (!m->ops)
		return -ENOMEM;
	for (int op = 0; op < PIPELINE_OPS; op++) {
		Parapet__TopOp *o;

		if (!st->requests[op])
			continue;
		o = call_message(c, Parapet__TopOp, parapet__top_op__init);
		if (!o)
			return -ENOMEM;
		o->op = call_str(c, io_op_name((enum io_op)op));
		o->has_requests = o->has_bytes = true;
		o->requests = st->requests[op];
		o->bytes = st->bytes[op];
		o->latency = histogram(c, pipeline_vm_latency(card->pipeline, vm, (enum io_op)op));
		if (!o->latency)
			return -ENOMEM;
		m->ops[m->n_ops++] = o;
	}
	return 0;
}

static void vm_qos(const Parapet__Vm *row, Parapet__TopVm *m)
{
	if (!row)
		return;
	m->has_qos_mbps = row->qos_mbps;
	m->qos_mbps = row->qos_mbps;
	m->has_qos_iops = row->qos_iops;
	m->qos_iops = row->qos_iops;
	m->has_qos_weight = true;
	m->qos_weight = row->qos_weight ? row->qos_weight : QOS_WEIGHT_DEF;
}

static int vm_fill(struct card *card, struct call *c, const struct card_vm *v,
	const struct pipeline_vm_stats *st, Parapet__TopVm *m)
{
	m->vm = v->vm;
	m->name = call_str(c, v->name);
	m->has_in_flight = m->has_waiting = m->has_waited = true;
	m->in_flight = st->in_flight;
	m->waiting = st->waiting;
	m->waited = st->waited;
	m->has_capped_ns = m->has_refused = m->has_errors = true;
	m->capped_ns = st->capped_ns;
	m->refused = st->refused;
	for (int i = IO_OK + 1; i < IO_STATUS_COUNT; i++)
		m->errors += st->status[i];
	vm_qos(tables_doc_vm(card->doc, v->vm), m);
	return vm_ops(card, c, v->vm, st, m);
}

static int vms_fill(struct card *card, struct call *c, Parapet__Top *t)
{
	struct pipeline_vm_stats st;
	struct card_vm *v;
	size_t n = 0;

	TAILQ_FOREACH (v, &card->vms, link)
		n++;
	if (call_messages(c, n, Parapet__TopVm, parapet__top_vm__init, &t->vms) < 0)
		return -ENOMEM;
	TAILQ_FOREACH (v, &card->vms, link) {
		if (pipeline_vm_stats(card->pipeline, v->vm, &st) < 0)
			continue;
		t->user_bytes += st.bytes[IO_WRITE];
		if (vm_fill(card, c, v, &st, t->vms[t->n_vms++]) < 0)
			return -ENOMEM;
	}
	t->has_user_bytes = true;
	return 0;
}

/* ---- stages --------------------------------------------------------------------------------------------------------- */

static const char *const class_names[STORE_CLASSES] = {[STORE_PLAIN] = "plain",
	[STORE_INTERMEDIATE] = "intermediate",
	[STORE_PROTECT] = "protect",
	[STORE_READ] = "read"};
static const char *const stage_names[STORE_STAGES] = {[STORE_ADMIT] = "admit",
	[STORE_DEVICE] = "device",
	[STORE_AREA] = "area",
	[STORE_FINISH] = "finish"};
#define STAGES_MAX (1 + STORE_CLASSES * STORE_STAGES + 2)

static int stage_add(
	struct call *c, Parapet__Top *t, const char *of, const char *stage, const struct hist *time)
{
	Parapet__TopStage *m;

	if (!time->count)
		return 0;
	m = call_message(c, Parapet__TopStage, parapet__top_stage__init);
	if (!m || !(m->time = histogram(c, time)))
		return -ENOMEM;
	m->of = call_str(c, of);
	m->stage = call_str(c, stage);
	t->stages[t->n_stages++] = m;
	return 0;
}

static int store_stages(struct card *card, struct call *c, Parapet__Top *t)
{
	const struct queue_hists *q = queue_hists(store_queue(card->store));
	int rc = 0;

	for (int k = 0; rc == 0 && k < STORE_CLASSES; k++)
		for (int st = 0; rc == 0 && st < STORE_STAGES; st++)
			rc = stage_add(c, t, class_names[k], stage_names[st],
				store_times(
					card->store, (enum store_class)k, (enum store_stage)st));
	if (rc == 0)
		rc = stage_add(c, t, "protect", "queue", &q->waited);
	if (rc == 0)
		rc = stage_add(c, t, "protect", "log", &q->in_log);
	return rc;
}

/* ---- batches, stripes, flash --------------------------------------------------------------------------------------------- */

static int batches_fill(struct card *card, struct call *c, Parapet__Top *t)
{
	static const char *const why[QUEUE_CLOSE_REASONS] = {[QUEUE_CLOSE_BYTES] = "bytes",
		[QUEUE_CLOSE_COUNT] = "count",
		[QUEUE_CLOSE_AGE] = "age",
		[QUEUE_CLOSE_IDLE] = "idle",
		[QUEUE_CLOSE_REQUEST] = "request",
		[QUEUE_CLOSE_FUA] = "fua"};
	const struct queue *q = store_queue(card->store);
	struct queue_stats st;

	queue_stats(q, &st);
	t->batch_requests = histogram(c, &queue_hists(q)->batch_items);
	t->batch_blocks = histogram(c, &queue_hists(q)->batch_blocks);
	t->stripe_blocks = histogram(c, stripelog_fill(store_log(card->store)));
	if (!t->batch_requests || !t->batch_blocks || !t->stripe_blocks ||
		call_messages(c, QUEUE_CLOSE_REASONS, Parapet__Named, parapet__named__init,
			&t->closed) < 0)
		return -ENOMEM;
	t->has_batch_blocks_max = true;
	t->batch_blocks_max = queue_cfg(q)->max_bytes / IO_BLOCK_BYTES;
	for (int i = 0; i < QUEUE_CLOSE_REASONS; i++) {
		t->closed[i]->name = call_str(c, why[i]);
		t->closed[i]->value = st.closed[i];
	}
	t->n_closed = QUEUE_CLOSE_REASONS;
	return 0;
}

static int flash_fill(struct call *c, const struct pool_dev *d, Parapet__TopFlash *m)
{
	struct flash_stats st;

	m->name = call_str(c, d->name);
	if (!d->flash)
		return 0;
	flash_stats(d->flash, &st);
	m->has_reads = m->has_writes = m->has_read_bytes = m->has_write_bytes = true;
	m->reads = st.reads;
	m->writes = st.writes;
	m->read_bytes = st.read_bytes;
	m->write_bytes = st.write_bytes;
	m->has_busy_ns = m->has_in_flight = true;
	m->busy_ns = flash_busy_ns(d->flash);
	m->in_flight = flash_in_flight(d->flash);
	m->read = histogram(c, flash_times(d->flash, FLASH_READ));
	m->write = histogram(c, flash_times(d->flash, FLASH_WRITE));
	return m->read && m->write ? 0 : -ENOMEM;
}

static int flashes_fill(struct card *card, struct call *c, Parapet__Top *t)
{
	const struct pool *p = store_pool(card->store);
	int rc = call_messages(
		c, pool_ndevs(p), Parapet__TopFlash, parapet__top_flash__init, &t->flashes);

	for (unsigned int i = 0; rc == 0 && i < pool_ndevs(p); i++) {
		Parapet__TopFlash *m = t->flashes[t->n_flashes];

		if (pool_dev(p, i)->state == POOL_DEV_REMOVED)
			continue;
		rc = flash_fill(c, pool_dev(p, i), m);
		t->device_bytes += m->write_bytes;
		t->n_flashes++;
	}
	t->has_device_bytes = true;
	return rc;
}

int call_top(struct card *card, struct call *c)
{
	Parapet__Top *t = call_message(c, Parapet__Top, parapet__top__init);
	struct pipeline_stats ps;
	int rc;

	if (!t || !(t->stages = call_alloc(c, STAGES_MAX * sizeof(t->stages[0]))))
		return -ENOMEM;
	pipeline_stats(card->pipeline, &ps);
	t->time_ns = shard_now_ns(card->cfg.shard);
	t->boot_id = call_str(c, card->boot_id);
	t->has_window_bytes = t->has_window_full = true;
	t->window_bytes = ps.window_bytes;
	t->window_full = ps.window_full;
	rc = vms_fill(card, c, t);
	if (rc == 0)
		rc = stage_add(c, t, "all", "wait", ps.waited);
	if (rc == 0 && card->store)
		rc = store_stages(card, c, t);
	if (rc == 0 && card->store)
		rc = batches_fill(card, c, t);
	if (rc == 0 && card->store)
		rc = flashes_fill(card, c, t);
	c->resp.result_case = PARAPET__RESPONSE__RESULT_TOP;
	c->resp.top = t;
	return rc;
}
