/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#define STATE_ID "card" /* 16 random bytes, made once */
#define DRAIN_NS 10000000000ull

const char *object_name(char *buf, size_t len, const char *noun, const char *name)
{
	snprintf(buf, len, "%s %.64s", noun, name);
	return buf;
}

static int submit(void *arg, struct io_req *req)
{
	return pipeline_submit(arg, req);
}

/* Who this card is: subsystem names and serial numbers are made from it, so it must not change. */
static int identity(struct card *c, struct err *e)
{
	autofree void *body = NULL;
	size_t len;
	int rc;

	if (c->cfg.first) {
		memcpy(c->id, c->cfg.first->id, sizeof(c->id));
		return 0;
	}
	rc = state_load(c->state, STATE_ID, &body, &len, e);
	if (rc == 0 && len == sizeof(c->id)) {
		memcpy(c->id, body, sizeof(c->id));
		return 0;
	}
	if (rc < 0 && rc != -ENOENT && rc != -EUCLEAN)
		return rc;
	uuid_generate(c->id);
	return state_save(c->state, STATE_ID, c->id, sizeof(c->id), e);
}

static int parts_open(struct card *c, struct err *e)
{
	uuid_t boot;
	int rc;

	uuid_generate(boot);
	uuid_unparse_lower(boot, c->boot_id);
	c->started_ns = shard_now_ns(c->cfg.shard);
	rc = c->cfg.first ? events_share(c->cfg.first->events, &c->events)
			  : events_open(&c->events);
	if (rc == 0 && c->cfg.index)
		events_set_shard(c->events, (int)c->cfg.index);
	if (rc == 0)
		rc = tables_doc_empty(&c->doc);
	if (rc == 0)
		rc = tables_open(c->cfg.shard, &c->tables);
	if (rc == 0)
		rc = pipeline_open(
			&(struct pipeline_cfg){.shard = c->cfg.shard, .tables = c->tables},
			&c->pipeline);
	if (rc == 0)
		rc = nvme_tcp_target_open(c->cfg.shard,
			&(struct nvme_tcp_target_cfg){.submit_fn = submit, .arg = c->pipeline},
			&c->target);
	if (rc == 0)
		rc = vhost_up(c, e);
	return rc < 0 ? err_set(e, rc, "card", NULL, "start: %s", strerror(-rc)) : 0;
}

int card_open(const struct card_cfg *cfg, struct card **out, struct err *e)
{
	struct card *c = calloc(1, sizeof(*c));
	int rc;

	if (!c)
		return err_set(e, -ENOMEM, "card", NULL, "out of memory");
	c->cfg = *cfg;
	c->count = 1;
	TAILQ_INIT(&c->vms);
	rc = state_open(cfg->state_dir, &c->state, e);
	if (rc == 0)
		rc = identity(c, e);
	if (rc == 0)
		rc = parts_open(c, e);
	if (rc < 0) {
		card_close(c);
		return rc;
	}
	event_post(c->events, EVENT_INFO, "card-started", "card", "version %s", CARD_VERSION);
	settings_recall(c);
	tables_bring_up(c); /* before the pool: it has the queue's settings */
	if (!c->cfg.first)
		pool_recall(c);
	*out = c;
	return 0;
}

/* What another shard remembers counts only while shard 0 has a pool: then it is asked for. */
void card_start_pool(struct card *c)
{
	if (c->cfg.first)
		pool_recall(c);
	pool_bring_up(c);
}

int card_start_vms(struct card *c, struct err *e)
{
	int rc = devices_publish(c, c->doc, e);

	if (rc == 0)
		rc = vms_reconcile(c, c->doc, false, e);
	if (rc < 0)
		return rc;
	atomic_store(&c->up, true);
	flash_look_arm(c);
	event_post(c->events, EVENT_INFO, "card-ready", "card", "the pool is %s",
		c->store             ? "open"
		: c->pool_problem[0] ? "not open"
				     : "not there yet");
	return 0;
}

int card_start(struct card *c, struct err *e)
{
	card_start_pool(c);
	return card_start_vms(c, e);
}

bool card_is_up(const struct card *c)
{
	return atomic_load(&c->up);
}

void card_close(struct card *c)
{
	if (!c)
		return;
	flash_look_disarm(c);
	if (c->pipeline) {
		vms_take_down(c);
		if (pipeline_drain(c->pipeline, DRAIN_NS) < 0)
			event_post(c->events, EVENT_ERROR, "requests-stuck", "card",
				"requests have not ended");
	}
	pool_take_down(c);
	flash_cool(c->cfg.shard);
	vhost_down(c);
	if (c->target)
		nvme_tcp_target_close(c->target);
	pipeline_close(c->pipeline);
	tables_doc_put(c->doc);
	tables_close(c->tables);
	events_close(c->events);
	state_close(c->state);
	free(c);
}

struct events *card_events(struct card *c)
{
	return c->events;
}

struct shard *card_shard(struct card *c)
{
	return c->cfg.shard;
}

const char *card_boot_id(const struct card *c)
{
	return c->boot_id;
}

bool card_wants_upkeep(const struct card *c)
{
	return atomic_load(&c->wants_upkeep);
}

uint64_t card_tables_version(const struct card *c)
{
	return atomic_load(&c->tables_version);
}

bool card_has_pool(const struct card *c)
{
	return atomic_load(&c->has_pool);
}

/* ---- one of several ------------------------------------------------------------------------------------------ */

unsigned int card_index(const struct card *c)
{
	return c->cfg.index;
}

unsigned int card_count(const struct card *c)
{
	return c->count;
}

void card_set_count(struct card *c, unsigned int count, const uint8_t *uuid)
{
	c->count = count;
	memcpy(c->new_uuid, uuid, sizeof(c->new_uuid));
	events_set_shard(c->events, count > 1 ? (int)c->cfg.index : -1);
}

bool card_owns(const struct card *c, uint32_t vm)
{
	return !c->cfg.peers || c->cfg.peers->owns_vm(c->cfg.peers_arg, c->cfg.index, vm);
}

struct tables_doc *card_tables(struct card *c)
{
	return tables_doc_get(c->doc);
}

struct state_dir *card_state(struct card *c)
{
	return c->state;
}

void card_sleep(struct card *c)
{
	vms_take_down(c);
	flash_look_disarm(c);
	c->nflashes = 0;
	c->pool_problem[0] = 0;
	shard_set_mode(c->cfg.shard, SHARD_INTERRUPT);
}

int card_wake(struct card *c, struct tables_doc *doc, struct err *e)
{
	int rc = card_put_tables(c, doc, e);

	if (rc == 0 && card_is_up(c))
		flash_look_arm(c);
	else if (rc == 0)
		rc = card_start_vms(c, e);
	return rc;
}
