/* SPDX-License-Identifier: BSD-3-Clause */
/* A shard: its thread, its VMs, its part of the pool. */
#include "dpu/control/card_priv.h"

#include <errno.h>
#include <sched.h>
#include <time.h>

static uint64_t thread_cpu_ns(void)
{
	struct timespec t;

	return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) < 0
		       ? 0
		       : (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void fill_thread(const struct card *card, Parapet__Shard *s)
{
	int cpu = sched_getcpu();

	s->has_cpu = cpu >= 0;
	s->cpu = cpu >= 0 ? (uint32_t)cpu : 0;
	s->has_cpu_ns = s->has_uptime_ns = true;
	s->cpu_ns = thread_cpu_ns();
	s->uptime_ns = shard_now_ns(card->cfg.shard) - card->started_ns;
}

static int fill_vms(struct call *c, const Parapet__Status *st, Parapet__Shard *s)
{
	if (call_messages(c, st->n_vms, Parapet__ShardVm, parapet__shard_vm__init, &s->vms) < 0)
		return -ENOMEM;
	s->has_in_flight = true;
	for (size_t i = 0; i < st->n_vms; i++) {
		s->vms[i]->vm = st->vms[i]->vm;
		s->vms[i]->name = st->vms[i]->name;
		s->in_flight += st->vms[i]->in_flight;
	}
	s->n_vms = st->n_vms;
	return 0;
}

static void fill_pool(const struct card *card, const Parapet__PoolStatus *p, Parapet__Shard *s)
{
	struct device_id id;

	s->has_devices = true;
	if (card->store)
		for (struct volume *v = volume_first(card->store); v; v = volume_next(v))
			s->devices += device_parse(v, &id) == 0;
	s->state = p->state;
	s->has_size_bytes = p->has_size_bytes;
	s->size_bytes = p->size_bytes;
	s->has_free_bytes = p->has_free_bytes;
	s->free_bytes = p->free_bytes;
	s->has_log_used_percent = p->log != NULL;
	s->log_used_percent = p->log ? p->log->used_percent : 0;
}

int call_shard_list(struct card *card, struct call *c)
{
	Parapet__Shards *r = call_message(c, Parapet__Shards, parapet__shards__init);
	const Parapet__Status *st;
	int rc = r ? call_messages(c, 1, Parapet__Shard, parapet__shard__init, &r->shards)
		   : -ENOMEM;

	if (rc == 0)
		rc = status_fill(card, c);
	if (rc < 0)
		return rc;
	st = c->resp.status;
	r->n_shards = 1;
	r->shards[0]->index = card_index(card);
	fill_thread(card, r->shards[0]);
	fill_pool(card, st->pool, r->shards[0]);
	c->resp.result_case = PARAPET__RESPONSE__RESULT_SHARDS;
	c->resp.shards = r;
	return fill_vms(c, st, r->shards[0]);
}
