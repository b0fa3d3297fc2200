/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A VM on its way to another shard, on the card that it leaves: the transfer (dpu/mover/transfer.h) of its devices, as a task. Its end is a change that
 * concerns two shards, and is carried out by the thread for those (route_move.c), which this asks.
 *
 *	transfer: pause_fn ─▶ wants STOP ─▶ upkeep: VM down ─▶ transfer_paused() ... switch_fn | resume_fn ─▶ wants SWITCH | RESUME ─▶ upkeep goes on
 */
#include "dpu/control/shard_move.h"

#include "common/base/util.h"
#include "dpu/control/card_priv.h"
#include "dpu/control/task_id.h"
#include "dpu/mover/transfer.h"

#include <errno.h>
#include <limits.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct card_move {
	struct card *c;
	struct transfer *t; /* NULL: it is over, last says how */
	struct transfer_status last;
	struct task over_task;
	uint32_t id; /* the task's, inside */
	char object[96];
	atomic_int wants; /* enum move_wants */
	sem_t asked; /* wants is SWITCH or RESUME */
};

/* ---- what the transfer asks for ------------------------------------------------------------------------------------- */

static void wants_stop(void *arg)
{
	struct card_move *m = arg;

	atomic_store(&m->wants, MOVE_STOP);
	atomic_store(&m->c->move_wants_stop, true);
}

static void wants(struct card_move *m, enum move_wants what)
{
	atomic_store(&m->wants, what);
	sem_post(&m->asked);
}

static void wants_switch(void *arg)
{
	wants(arg, MOVE_SWITCH);
}

static void wants_resume(void *arg)
{
	wants(arg, MOVE_RESUME);
}

static void let_go(struct card_move *m)
{
	struct transfer *t = m->t;

	m->last = *transfer_status(t);
	m->t = NULL;
	transfer_close(t);
}

static void tell_end(struct card_move *m)
{
	const struct transfer_status *st = &m->last;
	uint32_t id = task_id_outside(m->id, card_index(m->c), card_count(m->c));

	if (st->state == TRANSFER_DONE)
		event_post(m->c->events, EVENT_INFO, "task-done", m->object,
			"task %u, move: from shard %u to shard %u, %llu MiB in %u passes; the VM "
			"stood still for %llu ms%s%s",
			id, st->from_shard, st->to_shard,
			(unsigned long long)(st->copied_bytes >> 20), st->passes,
			(unsigned long long)(st->paused_ns / 1000000), st->text[0] ? "; " : "",
			st->text);
	else
		event_post(m->c->events, st->state == TRANSFER_FAILED ? EVENT_ERROR : EVENT_WARNING,
			st->state == TRANSFER_FAILED ? "task-failed" : "task-cancelled", m->object,
			"task %u, move: it stays on shard %u: %s", id, st->from_shard, st->text);
}

static void is_over(void *arg)
{
	struct card_move *m = arg;

	let_go(m);
	tell_end(m);
}

static void has_ended(void *arg)
{
	struct card_move *m = arg;

	shard_defer(m->c->cfg.shard, &m->over_task, is_over, m);
}

/* ---- begin ------------------------------------------------------------------------------------------------------------ */

static bool is_under_way(const struct card *c)
{
	return c->move && c->move->t;
}

int move_refuses(const struct card *c, uint32_t vm, const char *object, struct err *e)
{
	if (!is_under_way(c) || c->move->last.vm != vm)
		return 0;
	return err_set(e, -EBUSY, object, "vm",
		"vm %u is on its way to shard %u; allowed: when that has ended, or task %u is "
		"cancelled",
		vm, c->move->last.to_shard,
		task_id_outside(c->move->id, card_index(c), card_count(c)));
}

static void add_need(const struct card *c, const struct volume *vol, struct move_need *n)
{
	const struct volume_cfg *cfg = volume_cfg(vol);
	struct volume_stats st;
	uint64_t in_log, placed;

	volume_stats(vol, &st);
	in_log = st.blocks[BLOCK_LOG] + st.blocks[BLOCK_DATA_LOG];
	placed = st.blocks[BLOCK_DATA] + st.blocks[BLOCK_DATA_LOG];
	n->log_bytes += in_log * IO_BLOCK_BYTES / cfg->scheme.k *
			((uint64_t)cfg->scheme.k + cfg->scheme.m);
	for (unsigned int d = 0; d < pool_ndevs(store_pool(c->store)); d++) {
		snprintf(n->flash[d].name, sizeof(n->flash[d].name), "%s",
			pool_dev(store_pool(c->store), d)->name);
		if ((int)d == cfg->data_dev)
			n->flash[d].bytes += placed * IO_BLOCK_BYTES;
		if ((int)d == cfg->intermediate_dev)
			n->flash[d].bytes += st.blocks[BLOCK_INTERMEDIATE] * IO_BLOCK_BYTES;
	}
}

int move_look(struct card *c, void *arg)
{
	struct move_need *n = arg;
	const Parapet__Vm *vm = tables_doc_vm(c->doc, n->vm);
	struct volume *vol;
	struct device_id id;
	char object[96];
	int rc = pool_need(c, &n->err);

	if (rc < 0)
		return rc;
	snprintf(object, sizeof(object), "vm %u", n->vm);
	if (!vm)
		return err_set(&n->err, -ENOENT, object, NULL, "the tables have no such VM");
	object_name(object, sizeof(object), "vm", vm->name);
	if (vm->port && vm->port[0])
		return err_set(&n->err, -EBUSY, object, "port",
			"it comes in over port %s, and ports are shard 0's", vm->port);
	if (is_under_way(c))
		return err_set(&n->err, -EBUSY, c->move->object, NULL,
			"is on its way from this shard: one VM at a time");
	for (vol = volume_first(c->store); vol; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0 && id.vm == n->vm)
			add_need(c, vol, n);
	return 0;
}

int move_room(struct card *c, void *arg)
{
	struct move_need *n = arg;
	struct log_space sp;
	char object[32];
	int rc = pool_need(c, &n->err);

	if (rc < 0)
		return rc;
	snprintf(object, sizeof(object), "shard %u", card_index(c));
	stripelog_space(store_log(c->store), &sp);
	if (sp.limit_bytes < sp.live_bytes || n->log_bytes > sp.limit_bytes - sp.live_bytes)
		return err_set(&n->err, -ENOSPC, object, NULL,
			"its log has room for %llu MiB, the VM's protected blocks need %llu MiB",
			(unsigned long long)((sp.limit_bytes -
						     MIN(sp.limit_bytes, sp.live_bytes)) >>
					     20),
			(unsigned long long)(n->log_bytes >> 20));
	for (unsigned int i = 0; i < POOL_DEVS_MAX; i++) {
		const struct pool *p = store_pool(c->store);
		int dev = n->flash[i].bytes ? pool_dev_find(p, n->flash[i].name) : -1;
		uint64_t room;

		if (dev < 0)
			continue;
		room = (uint64_t)pool_dev(p, (unsigned int)dev)->free_segments *
		       pool_segment_bytes(p);
		if (n->flash[i].bytes > room)
			return err_set(&n->err, -ENOSPC, object, n->flash[i].name,
				"it has %llu MiB free there, the VM needs %llu MiB",
				(unsigned long long)(room >> 20),
				(unsigned long long)(n->flash[i].bytes >> 20));
	}
	n->to_mover = c->mover;
	return 0;
}

/* The VM's devices; the caller frees them. */
static struct volume **volumes_of(struct card *c, uint32_t vm, unsigned int *n)
{
	struct volume **list, *vol;
	struct device_id id;
	size_t room = 1;

	for (vol = volume_first(c->store); vol; vol = volume_next(vol))
		room++;
	*n = 0;
	list = calloc(room, sizeof(list[0]));
	for (vol = volume_first(c->store); list && vol; vol = volume_next(vol))
		if (device_parse(vol, &id) == 0 && id.vm == vm)
			list[(*n)++] = vol;
	return list;
}

static void move_free(struct card *c)
{
	if (!c->move)
		return;
	shard_undefer(c->cfg.shard, &c->move->over_task);
	sem_destroy(&c->move->asked);
	free(c->move);
	c->move = NULL;
}

int move_start(struct card *c, void *arg)
{
	static const struct transfer_ops ops = {.pause_fn = wants_stop,
		.resume_fn = wants_resume,
		.switch_fn = wants_switch,
		.end_fn = has_ended};
	struct move_need *n = arg;
	const Parapet__Vm *vm = tables_doc_vm(c->doc, n->vm);
	struct transfer_cfg cfg = {.from = c->mover,
		.to = n->to_mover,
		.from_shard = card_index(c),
		.to_shard = n->to,
		.vm = n->vm,
		.ops = &ops};
	struct volume **volumes;
	struct card_move *m;
	int rc;

	if (!c->mover || !vm || is_under_way(c))
		return err_set(&n->err, -EAGAIN, "vm", NULL, "the card has changed: try again");
	move_free(c);
	m = calloc(1, sizeof(*m));
	volumes = volumes_of(c, n->vm, &cfg.nvolumes);
	rc = m && volumes ? 0 : err_set(&n->err, -ENOMEM, "vm", NULL, "out of memory");
	cfg.volumes = volumes;
	cfg.arg = m;
	if (rc == 0)
		rc = transfer_open(&cfg, &m->t, &n->err);
	free(volumes);
	if (rc < 0) {
		free(m);
		return rc;
	}
	m->c = c;
	m->id = mover_take_id(c->mover);
	m->last = *transfer_status(m->t);
	object_name(m->object, sizeof(m->object), "vm", vm->name);
	sem_init(&m->asked, 0, 0);
	c->move = m;
	n->task = task_id_outside(m->id, card_index(c), card_count(c));
	event_post(c->events, EVENT_INFO, "task-started", m->object,
		"task %u, move: from shard %u to shard %u", n->task, cfg.from_shard, cfg.to_shard);
	return 0;
}

/* ---- end: for the thread that carries out changes -------------------------------------------------------------------------- */

bool card_move_wants_stop(const struct card *c)
{
	return atomic_load(&c->move_wants_stop);
}

int move_stop(struct card *c, void *arg)
{
	struct move_need *n = arg;
	int rc;

	atomic_store(&c->move_wants_stop, false);
	if (!is_under_way(c))
		return -ENOENT;
	n->vm = c->move->last.vm;
	n->to = c->move->last.to_shard;
	rc = vm_stop(c, n->vm);
	if (is_under_way(c))
		transfer_paused(c->move->t, rc);
	if (rc < 0)
		card_vms_again(c);
	return rc;
}

enum move_wants move_wait(struct card *c)
{
	while (sem_wait(&c->move->asked) < 0 && errno == EINTR)
		;
	return (enum move_wants)atomic_load(&c->move->wants);
}

int move_switched(struct card *c, void *arg)
{
	transfer_switched(c->move->t);
	return 0;
}

int move_not_switched(struct card *c, void *arg)
{
	const struct move_need *n = arg;

	transfer_not_switched(c->move->t, err_text(&n->err));
	return 0;
}

int move_leave(struct card *c, void *arg)
{
	if (is_under_way(c))
		let_go(c->move);
	move_free(c);
	return 0;
}

/* ---- as a task ----------------------------------------------------------------------------------------------------------------- */

static const struct transfer_status *status_of(const struct card_move *m)
{
	return m->t ? transfer_status(m->t) : &m->last;
}

static Parapet__TaskState state_of(const struct transfer_status *st)
{
	switch (st->state) {
	case TRANSFER_PAUSED:
		return PARAPET__TASK_STATE__TASK_STATE_PAUSED;
	case TRANSFER_WAITING:
		return PARAPET__TASK_STATE__TASK_STATE_WAITING;
	case TRANSFER_DONE:
		return PARAPET__TASK_STATE__TASK_STATE_DONE;
	case TRANSFER_FAILED:
		return PARAPET__TASK_STATE__TASK_STATE_FAILED;
	case TRANSFER_CANCELLED:
		return PARAPET__TASK_STATE__TASK_STATE_CANCELLED;
	default:
		return PARAPET__TASK_STATE__TASK_STATE_RUNNING;
	}
}

bool move_is_task(const struct card *c, uint32_t id)
{
	return c->move && c->move->id == id;
}

bool move_is_open_task(const struct card *c)
{
	return is_under_way(c);
}

void move_fill(const struct card *c, struct call *call, Parapet__Task *t)
{
	const struct card_move *m = c->move;
	const struct transfer_status *st = status_of(m);

	t->id = task_id_outside(m->id, card_index(c), card_count(c));
	t->has_reason = t->has_state = t->has_done = t->has_total = t->has_bytes =
		t->has_bytes_per_s = true;
	t->reason = PARAPET__TASK_REASON__TASK_REASON_MOVE;
	t->state = state_of(st);
	t->object = call_str(call, m->object);
	t->total = st->total_bytes / IO_BLOCK_BYTES;
	t->done = MIN(st->done_bytes, st->total_bytes) / IO_BLOCK_BYTES;
	t->bytes = st->copied_bytes;
	t->bytes_per_s = st->rate_bytes_per_s;
	t->has_eta_s = m->t && st->eta_s != UINT64_MAX;
	t->eta_s = t->has_eta_s ? st->eta_s : 0;
	if (st->text[0])
		t->text = call_str(call, st->text);
	else if (m->t)
		t->text = call_fmt(call, "to shard %u: %s, pass %u", st->to_shard,
			transfer_state_name(st->state), st->passes + 1);
	else
		t->text = call_fmt(call, "to shard %u", st->to_shard);
}

int move_control(struct card *c, Parapet__TaskAction action, struct err *e)
{
	struct transfer *t = c->move->t;

	if (!t)
		return err_set(e, -EINVAL, NULL, NULL, "it has ended");
	switch (action) {
	case PARAPET__TASK_ACTION__TASK_ACTION_PAUSE:
		return transfer_pause(t, e);
	case PARAPET__TASK_ACTION__TASK_ACTION_RESUME:
		return transfer_resume(t, e);
	default:
		return transfer_cancel(t, e);
	}
}

/* ---- after a start ------------------------------------------------------------------------------------------------------------- */

static unsigned int where_is(void *arg, uint32_t vm)
{
	const struct card *c = arg;
	int shard = c->cfg.peers->shard_of_vm(c->cfg.peers_arg, vm);

	return shard < 0 ? UINT_MAX : (unsigned int)shard;
}

void moves_settle(struct card *c)
{
	struct transfer_settled out;
	struct err e = {0};
	int rc;

	if (!c->cfg.peers)
		return;
	rc = transfer_settle(c->store, card_index(c), where_is, c, &out, &e);
	if (rc < 0)
		event_post(c->events, EVENT_ERROR, "move-unsettled", "pool",
			"what a move left on shard %u could not be put right: %s", card_index(c),
			err_text(&e));
	if (out.unclear)
		event_post(c->events, EVENT_WARNING, "move-unclear", "pool",
			"shard %u has %u devices of VMs that were on their way when the card "
			"stopped, and it is not known where the VMs are: they are left alone",
			card_index(c), out.unclear);
	if (out.deleted)
		event_post(c->events, EVENT_INFO, "move-settled", "pool",
			"shard %u: %u devices that a move had left were deleted", card_index(c),
			out.deleted);
}
