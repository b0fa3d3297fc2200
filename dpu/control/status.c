/* SPDX-License-Identifier: BSD-3-Clause */
/* Status: what an operator has to know. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "common/nvme/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#define WARNINGS_MAX 64
#define DEGRADED_MAX (POOL_DEVS_MAX + 4)
#define NS_PER_S     1000000000ull

/* ---- the pool ---------------------------------------------------------------------------------------------------- */

static unsigned int members(const struct pool *p)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		n += pool_dev(p, i)->state != POOL_DEV_REMOVED;
	return n;
}

static unsigned int unusable(const struct pool *p)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		n += pool_dev(p, i)->state != POOL_DEV_REMOVED && !pool_dev_usable(p, i);
	return n;
}

static void areas_allocated(const struct pool *p, unsigned int dev, Parapet__Areas *a)
{
	uint64_t per_use[POOL_INTERMEDIATE + 1] = {0};

	for (uint32_t s = 0; s < pool_dev(p, dev)->nsegments; s++)
		per_use[pool_segment_use(p, dev, s)] += pool_segment_bytes(p);
	a->has_data = a->has_redundancy = a->has_intermediate = a->has_metadata = true;
	a->data = per_use[POOL_DATA];
	a->redundancy = per_use[POOL_LOG];
	a->intermediate = per_use[POOL_INTERMEDIATE];
	a->metadata = per_use[POOL_META];
}

static void fill_flash_device(const struct pool_dev *d, Parapet__FlashStatus *s)
{
	const struct flash_info *fi = flash_info(d->flash);
	struct flash_stats fs;

	flash_stats(d->flash, &fs);
	s->has_size_bytes = s->has_block_bytes = s->has_atomic_bytes = s->has_volatile_cache =
		s->has_read_bytes = true;
	s->size_bytes = fi->size_bytes;
	s->block_bytes = fi->block_bytes;
	s->atomic_bytes = fi->atomic_bytes;
	s->volatile_cache = fi->volatile_cache;
	s->read_bytes = fs.read_bytes;
}

/* The address as the card remembers it: a missing device has no other. */
const char *flash_address_of(const struct card *card, const struct pool_dev *d)
{
	for (unsigned int i = 0; i < card->nflashes; i++)
		if (!strcmp(card->flashes[i].name, d->name))
			return card->flashes[i].address;
	return d->flash ? flash_info(d->flash)->address : "";
}

static int fill_flash(struct card *card, struct call *c, unsigned int dev,
	const struct store_stats *st, Parapet__FlashStatus *s)
{
	const struct pool *p = store_pool(card->store);
	const struct pool_dev *d = pool_dev(p, dev);

	s->flash = call_message(c, Parapet__Flash, parapet__flash__init);
	s->allocated = call_message(c, Parapet__Areas, parapet__areas__init);
	s->written = call_message(c, Parapet__Areas, parapet__areas__init);
	if (!s->flash || !s->allocated || !s->written)
		return -ENOMEM;
	s->flash->name = call_str(c, d->name);
	s->flash->address = call_str(c, flash_address_of(card, d));
	s->has_remote = s->has_claimed = true;
	s->remote = nvme_address_is_remote(s->flash->address);
	s->claimed = card->claimed >> dev & 1;
	s->flash->domain = call_str(c, d->domain);
	s->state = call_str(c, pool_dev_state_name(d->state));
	s->has_free_bytes = s->has_errors = true;
	s->free_bytes = (uint64_t)d->free_segments * pool_segment_bytes(p);
	s->errors = d->errors;
	s->flash->has_spare = s->flash->has_leaving = true;
	s->flash->spare = d->state == POOL_DEV_SPARE;
	s->flash->leaving = flash_is_leaving(card, d->name);
	if (d->flash)
		fill_flash_device(d, s);
	if (flash_health_fill(p, dev, c, s) < 0)
		return -ENOMEM;
	areas_allocated(p, dev, s->allocated);
	s->written->has_data = s->written->has_redundancy = s->written->has_intermediate = true;
	s->written->data = st->data_bytes[dev];
	s->written->redundancy = st->log.dev_bytes[dev];
	s->written->intermediate = st->intermediate_bytes[dev];
	return 0;
}

static int fill_stripes(
	struct call *c, const struct pool *p, const struct store_stats *st, Parapet__PoolStatus *s)
{
	if (call_messages(c, EC_K_MAX + 1, Parapet__StripeWidth, parapet__stripe_width__init,
		    &s->stripes) < 0)
		return -ENOMEM;
	for (unsigned int k = 1; k <= EC_K_MAX; k++) {
		Parapet__StripeWidth *w;

		if (!st->log.stripes_by_width[k])
			continue;
		w = s->stripes[s->n_stripes++];
		w->k = k;
		w->m = pool_cfg(p)->scheme.m;
		w->stripes = st->log.stripes_by_width[k];
	}
	return 0;
}

static int fill_counters(struct call *c, const struct store_stats *st, Parapet__PoolStatus *s)
{
	const struct {
		const char *name;
		uint64_t value;
	} list[] = {
		{"stripes", st->log.stripes},
		{"records", st->log.records},
		{"log_header_bytes", st->log.bytes_header},
		{"log_data_bytes", st->log.bytes_data},
		{"log_parity_bytes", st->log.bytes_parity},
		{"log_record_bytes", st->log.bytes_record},
		{"reappends", st->log.reappends},
		{"short_stripes", st->log.short_stripes},
		{"decoded_blocks", st->log.decoded_blocks},
		{"crc_mismatches", st->log.crc_mismatches},
		{"unrecoverable_blocks", st->log.unrecoverable_blocks},
		{"log_flushes", st->log.flushes},
		{"map_bytes", st->map_bytes},
		{"map_budget_bytes", st->map_max_bytes},
		{"stripe_table_bytes", st->log.table_bytes},
		{"stripe_table_used_bytes", st->log.table_used_bytes},
		{"stripe_table_budget_bytes", st->log.table_max_bytes},
		{"batches", st->queue.batches},
		{"batch_items", st->queue.items},
		{"batch_blocks", st->queue.blocks},
		{"closed_bytes", st->queue.closed[QUEUE_CLOSE_BYTES]},
		{"closed_count", st->queue.closed[QUEUE_CLOSE_COUNT]},
		{"closed_age", st->queue.closed[QUEUE_CLOSE_AGE]},
		{"closed_idle", st->queue.closed[QUEUE_CLOSE_IDLE]},
		{"closed_request", st->queue.closed[QUEUE_CLOSE_REQUEST]},
		{"closed_fua", st->queue.closed[QUEUE_CLOSE_FUA]},
		{"requests_in_flight", st->requests_in_flight},
		{"requests_refused", st->requests_refused},
		{"recovery_stripes", st->recovery_stripes},
		{"recovery_reappended", st->recovery_reappended},
		{"blocks_lost", st->recovery_lost},
		{"recovery_ns", st->recovery_ns},
	};

	if (call_messages(c, ARRAY_LEN(list), Parapet__Named, parapet__named__init, &s->counters) <
		0)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		s->counters[i]->name = call_str(c, list[i].name);
		s->counters[i]->value = list[i].value;
	}
	s->n_counters = ARRAY_LEN(list);
	return 0;
}

static int fill_degraded(
	struct card *card, struct call *c, const struct store_stats *st, Parapet__PoolStatus *s)
{
	const struct pool *p = store_pool(card->store);
	unsigned int gone = unusable(p), width;

	s->degraded = call_alloc(c, DEGRADED_MAX * sizeof(s->degraded[0]));
	if (!s->degraded)
		return -ENOMEM;
	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		if (pool_dev(p, i)->state != POOL_DEV_REMOVED && !pool_dev_usable(p, i))
			s->degraded[s->n_degraded++] = call_fmt(c, "flash %s is %s",
				pool_dev(p, i)->name, pool_dev_state_name(pool_dev(p, i)->state));
	width = (unsigned int)pool_cfg(p)->scheme.k + pool_cfg(p)->scheme.m;
	if (members(p) - gone < width)
		s->degraded[s->n_degraded++] = call_fmt(c,
			"new stripes are narrower than %u+%u: %u devices are left",
			pool_cfg(p)->scheme.k, pool_cfg(p)->scheme.m, members(p) - gone);
	if (st->log.short_stripes)
		s->degraded[s->n_degraded++] = call_fmt(c,
			"%lu stripes were written with less redundancy",
			(unsigned long)st->log.short_stripes);
	if (st->recovery_lost)
		s->degraded[s->n_degraded++] = call_fmt(
			c, "%lu blocks were lost", (unsigned long)st->recovery_lost);
	return 0;
}

/* Fragments of a stripe lie on different devices: what only one of them has left is no room for stripes. */
static uint64_t log_free_bytes(const struct pool *p)
{
	const struct pool_cfg *cfg = pool_cfg(p);
	unsigned int width = cfg->scheme.k + cfg->scheme.m, usable = members(p) - unusable(p);
	uint32_t each = 0, most = 0; /* segments that `width` devices can give */
	struct pool_room room;

	pool_room_get(p, POOL_FOR_USER, &room);
	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		most = MAX(most, room.free[i]);
	while (each < most) {
		uint32_t mid = most - (most - each) / 2;
		uint64_t sum = 0;

		for (unsigned int i = 0; i < pool_ndevs(p); i++)
			sum += MIN(room.free[i], mid);
		if (sum >= (uint64_t)mid * MIN(width, usable))
			each = mid;
		else
			most = mid - 1;
	}
	return (uint64_t)each * MIN(width, usable) * pool_segment_bytes(p) / width * cfg->scheme.k;
}

static int fill_open_pool(struct card *card, struct call *c, Parapet__PoolStatus *s)
{
	const struct pool *p = store_pool(card->store);
	struct store_stats *st = call_alloc(c, sizeof(*st));
	const struct pool_cfg *cfg = pool_cfg(p);
	char uuid[37];
	unsigned int by;
	int rc = st ? 0 : -ENOMEM;

	if (rc == 0)
		rc = call_messages(c, pool_ndevs(p), Parapet__FlashStatus,
			parapet__flash_status__init, &s->flashes);
	if (rc < 0)
		return rc;
	store_stats(card->store, st);
	uuid_unparse_lower(pool_uuid(p), uuid);
	s->uuid = call_str(c, uuid);
	s->has_epoch = s->has_k = s->has_m = s->has_on_degraded = s->has_segment_bytes =
		s->has_same_flash = s->has_size_bytes = s->has_free_bytes = s->has_log_free_bytes =
			true;
	s->epoch = pool_epoch(p);
	s->k = cfg->scheme.k;
	s->m = cfg->scheme.m;
	s->on_degraded = cfg->on_degraded == POOL_DEGRADED_ALLOW
				 ? PARAPET__ON_DEGRADED__ON_DEGRADED_ALLOW
				 : PARAPET__ON_DEGRADED__ON_DEGRADED_REFUSE;
	s->segment_bytes = pool_segment_bytes(p);
	s->same_flash = cfg->allow_data_device;
	for (unsigned int i = 0; rc == 0 && i < pool_ndevs(p); i++) {
		Parapet__FlashStatus *f = s->flashes[s->n_flashes];

		if (pool_dev(p, i)->state == POOL_DEV_REMOVED)
			continue;
		rc = fill_flash(card, c, i, st, f);
		s->n_flashes++;
		s->size_bytes += (uint64_t)pool_dev(p, i)->nsegments * pool_segment_bytes(p);
		if (pool_dev_usable(p, i))
			s->free_bytes += f->free_bytes;
	}
	if (pool_is_lost(p, &by))
		s->fenced = call_fmt(c, "flash %s says that another host holds its reservation",
			pool_dev(p, by)->name);
	else if (st->fenced)
		s->fenced = call_str(c, "another owner has begun an epoch");
	s->reason = s->fenced;
	s->log_free_bytes = log_free_bytes(p);
	if (rc == 0)
		rc = fill_stripes(c, p, st, s);
	if (rc == 0)
		rc = fill_counters(c, st, s);
	if (rc == 0)
		rc = fill_degraded(card, c, st, s);
	if (rc == 0)
		rc = pool_status_fill(card, c, st, s);
	s->state = call_str(c, pool_is_lost(p, NULL) || st->fenced ? "failed"
			       : s->n_degraded                     ? "degraded"
								   : "online");
	return rc;
}

/* "recovering": how far it is, once that can be said. */
static int fill_progress(struct card *card, struct call *c, Parapet__PoolStatus *s)
{
	const struct log_progress *p = &card->progress;

	if (!card->opening || !p->phase)
		return 0;
	s->recovery = call_message(c, Parapet__Recovery, parapet__recovery__init);
	if (!s->recovery)
		return -ENOMEM;
	s->recovery->phase = call_str(c, p->phase);
	s->recovery->has_percent = true;
	s->recovery->percent = p->percent;
	return 0;
}

static int fill_pool(struct card *card, struct call *c, Parapet__PoolStatus *s)
{
	bool opening = card->opening || !card_is_up(card);

	s->has_shards = true;
	s->shards = card_count(card);
	if (card->store)
		return fill_open_pool(card, c, s);
	s->state = call_str(c, opening ? "recovering" : card->pool_problem[0] ? "failed" : "none");
	if (opening)
		return fill_progress(card, c, s);
	if (card->pool_problem[0])
		s->reason = call_str(c, card->pool_problem);
	return 0;
}

/* ---- VMs ------------------------------------------------------------------------------------------------------------ */

static void fill_vm(
	struct card *card, struct call *c, const struct card_vm *v, Parapet__VmStatus *s)
{
	const struct policy_vm *pv = tables_doc_policy_vm(card->doc, v->vm);
	struct pipeline_vm_stats ps;
	struct nvme_tcp_vm_stats ts;
	const Parapet__Vm *vm = tables_doc_vm(card->doc, v->vm);

	s->vm = v->vm;
	s->name = call_str(c, v->name);
	s->has_shard = true;
	s->shard = card_index(card);
	s->access = v->vvm && vm ? call_fmt(c, "%s%svhost %s", v->access_text,
					   v->access_text[0] ? ", " : "", vm->vhost)
				 : call_str(c, v->access_text);
	s->nqn = call_str(c, v->nqn);
	if (pv) {
		s->has_mode = true;
		s->mode = (Parapet__Mode)pv->mode;
		s->method = call_str(c, pv->method);
	}
	if (v->tvm) {
		nvme_tcp_vm_stats(v->tvm, &ts);
		s->has_connections = s->has_controllers = true;
		s->connections = ts.conns;
		s->controllers = ts.controllers;
	}
	if (pipeline_vm_stats(card->pipeline, v->vm, &ps) == 0) {
		s->has_in_flight = true;
		s->in_flight = ps.in_flight;
	}
	if (v->problem[0])
		s->problem = call_str(c, v->problem);
	else if (!v->access && !v->vvm)
		s->problem = call_str(
			c, "it has no listen address, no port and no vhost directory");
}

static int fill_vms(struct card *card, struct call *c, Parapet__Status *r)
{
	struct card_vm *v;
	size_t n = 0;

	TAILQ_FOREACH (v, &card->vms, link)
		n++;
	if (call_messages(c, n, Parapet__VmStatus, parapet__vm_status__init, &r->vms) < 0)
		return -ENOMEM;
	TAILQ_FOREACH (v, &card->vms, link) {
		Parapet__VmStatus *s = r->vms[r->n_vms++];

		fill_vm(card, c, v, s);
		if (vhost_fill(c, card, v, s) < 0)
			return -ENOMEM;
	}
	return 0;
}

/* ---- warnings: above all where tables and pool disagree ------------------------------------------------------------------ */

static void warn(struct call *c, Parapet__Status *r, char *text)
{
	if (r->n_warnings < WARNINGS_MAX)
		r->warnings[r->n_warnings++] = text;
}

static bool no_hugepages(void)
{
	char line[128];
	unsigned long n = 1;
	FILE *f = fopen("/proc/meminfo", "re");

	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "HugePages_Total: %lu", &n) == 1)
			break;
	fclose(f);
	return n == 0;
}

static void warn_of_devices(struct card *card, struct call *c, Parapet__Status *r)
{
	const Parapet__Tables *pb = card->doc->pb;
	struct volume *vol = volume_first(card->store);
	struct device_id id;

	for (; vol; vol = volume_next(vol)) {
		if (device_parse(vol, &id) < 0)
			warn(c, r,
				call_fmt(c, "volume %s of the pool is no device of this card",
					volume_cfg(vol)->name));
		else if (!tables_doc_vm(card->doc, id.vm))
			warn(c, r,
				call_fmt(c,
					"device %s is in the pool, but the tables have no VM %u: "
					"nobody can use it",
					id.path, id.vm));
		else if (!tables_doc_device(card->doc, id.vm, id.path))
			warn(c, r,
				call_fmt(c,
					"device %s of VM %u is in the pool, but not in the tables: "
					"its writes are plain",
					id.path, id.vm));
	}
	for (size_t i = 0; i < pb->n_devices; i++)
		if (card_owns(card, pb->devices[i]->vm) &&
			!device_find(card, pb->devices[i]->vm, pb->devices[i]->path))
			warn(c, r,
				call_fmt(c,
					"device %s of VM %u is in the tables, but not in the pool",
					pb->devices[i]->path, pb->devices[i]->vm));
	for (size_t i = 0; i < card->doc->policy->nvms; i++) {
		const struct policy_vm *v = &card->doc->policy->vms[i];
		struct pool *p = store_pool(card->store);

		if (v->data_flash[0] && pool_dev_find(p, v->data_flash) < 0)
			warn(c, r,
				call_fmt(c, "vm %s: the pool has no flash %s", v->name,
					v->data_flash));
		if (v->inter_flash[0] && pool_dev_find(p, v->inter_flash) < 0)
			warn(c, r,
				call_fmt(c, "vm %s: the pool has no flash %s", v->name,
					v->inter_flash));
	}
}

static int fill_warnings(struct card *card, struct call *c, Parapet__Status *r)
{
	r->warnings = call_alloc(c, WARNINGS_MAX * sizeof(r->warnings[0]));
	if (!r->warnings)
		return -ENOMEM;
	if (no_hugepages())
		warn(c, r,
			call_str(c, "this machine has no huge pages: copies cost about a fifth "
				    "more (set vm.nr_hugepages)"));
	if (card->tables_problem[0])
		warn(c, r, call_fmt(c, "the remembered tables: %s", card->tables_problem));
	if (card->store)
		warn_of_devices(card, c, r);
	return 0;
}

/* ---- together ----------------------------------------------------------------------------------------------------------- */

static void fill_queue(const struct card *card, Parapet__Queue *q)
{
	struct queue_cfg cfg = queue_cfg_of(card->doc);

	q->has_bytes = q->has_count = q->has_age_us = q->has_each = q->has_per_vm =
		q->has_group_commit = true;
	q->bytes = cfg.max_bytes;
	q->count = cfg.max_count;
	q->age_us = cfg.max_age_us;
	q->each = cfg.per_request;
	q->per_vm = cfg.per_vm;
	q->group_commit = cfg.group_commit;
}

int status_fill(struct card *card, struct call *c)
{
	Parapet__Status *r = call_message(c, Parapet__Status, parapet__status__init);
	uint64_t oldest;
	int rc;

	if (!r || !(r->pool = call_message(c, Parapet__PoolStatus, parapet__pool_status__init)) ||
		!(r->queue = call_message(c, Parapet__Queue, parapet__queue__init)))
		return -ENOMEM;
	r->boot_id = call_str(c, card->boot_id);
	r->program_version = call_str(c, CARD_VERSION);
	r->has_uptime_s = r->has_tables_version = r->has_node = r->has_reception =
		r->has_last_event = true;
	r->uptime_s = (shard_now_ns(card->cfg.shard) - card->started_ns) / NS_PER_S;
	r->tables_version = card->doc->policy->version;
	r->node = card->doc->pb->node;
	r->reception = card->doc->pb->has_reception        ? card->doc->pb->reception
		       : card->cfg.mode == SHARD_POLLING   ? PARAPET__RECEPTION__RECEPTION_POLLING
		       : card->cfg.mode == SHARD_INTERRUPT ? PARAPET__RECEPTION__RECEPTION_INTERRUPT
							   : PARAPET__RECEPTION__RECEPTION_ADAPTIVE;
	events_range(card->events, &oldest, &r->last_event);
	fill_queue(card, r->queue);
	rc = fill_pool(card, c, r->pool);
	if (rc == 0)
		rc = fill_vms(card, c, r);
	if (rc == 0)
		rc = fill_warnings(card, c, r);
	if (rc == 0)
		rc = tasks_fill_open(card, c, r);
	c->resp.result_case = PARAPET__RESPONSE__RESULT_STATUS;
	c->resp.status = r;
	return rc;
}

int call_status(struct card *card, struct call *c)
{
	return status_fill(card, c);
}
