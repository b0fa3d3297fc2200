/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Flash on peers comes back by itself. A member that is away because it could not be reached is connected to again and again in the background; when its
 * peer answers it is returned, as 'flash return' does: it is checked whether it is still that member, and scrubbed.
 *
 * Not those that answered with errors, that another owner used, or that the operator took out of service. One that comes and goes waits longer
 * each time before it is believed.
 */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "common/nvme/address.h"

#include <errno.h>
#include <string.h>

#define NS_PER_MS   1000000ull
#define WAIT_MIN_MS 1000u
#define WAIT_MAX_MS 60000u
#define WARM_MAX_MS 30000u /* what is warm and not taken is dropped after a minute */
#define STEADY_NS   (600000 * NS_PER_MS) /* here for so long: it starts from anew */

static struct card_flash *remembered(struct card *c, const char *name)
{
	for (unsigned int i = 0; i < c->nflashes; i++)
		if (!strcmp(c->flashes[i].name, name))
			return &c->flashes[i];
	return NULL;
}

/* The member on a peer that dev is, if it is one to wait for. */
static struct card_flash *waited_for(struct card *c, unsigned int dev)
{
	const struct pool_dev *d = pool_dev(store_pool(c->store), dev);
	struct card_flash *f;

	if ((d->state != POOL_DEV_FAILED && d->state != POOL_DEV_MISSING) ||
		d->cause != POOL_CAUSE_UNREACHABLE)
		return NULL;
	f = remembered(c, d->name);
	return f && !f->leaving && nvme_address_is_remote(f->address) ? f : NULL;
}

static uint64_t longer(uint32_t *wait_ms, uint32_t max_ms, uint64_t now)
{
	*wait_ms = MIN(MAX(2 * *wait_ms, WAIT_MIN_MS), max_ms);
	return now + *wait_ms * NS_PER_MS;
}

static bool look_at(struct card *c, const struct card_flash *f, struct card_comeback *b)
{
	const struct flash_opts opts = pool_flash_opts(c, f);
	uint64_t now = shard_now_ns(c->cfg.shard);

	if (now < b->next_ns)
		return false;
	if (now >= b->warm_ns) {
		b->warm_ns = longer(&b->warm_wait_ms, WARM_MAX_MS, now);
		flash_warm(c->cfg.shard, f->address, &opts);
	}
	b->wanted = flash_is_warm(c->cfg.shard, f->address);
	if (!b->wanted)
		return false;
	/* Ready; where it does not come back after all, or not for long, it is tried less and less often. */
	b->next_ns = longer(&b->wait_ms, WAIT_MAX_MS, now);
	b->warm_ns = b->warm_wait_ms = 0;
	return true;
}

bool comeback_look(struct card *c)
{
	bool any = false;

	if (!c->store || (c->settings.has_auto_return && !c->settings.auto_return) ||
		pool_is_lost(store_pool(c->store), NULL))
		return false;
	for (unsigned int i = 0; i < pool_ndevs(store_pool(c->store)); i++) {
		struct card_comeback *b = &c->comebacks[i];
		struct card_flash *f = waited_for(c, i);

		if (f)
			any |= look_at(c, f, b);
		else if (b->back_ns && shard_now_ns(c->cfg.shard) - b->back_ns > STEADY_NS)
			*b = (struct card_comeback){0};
	}
	return any;
}

/* Not the member it was: nothing but an operator makes it right. */
static bool is_final(int rc)
{
	return rc == -EXDEV || rc == -EUCLEAN || rc == -EINVAL || rc == -ENOENT;
}

void comeback_upkeep(struct card *c)
{
	for (unsigned int i = 0; c->store && i < pool_ndevs(store_pool(c->store)); i++) {
		struct pool *p = store_pool(c->store);
		struct card_comeback *b = &c->comebacks[i];
		struct card_flash *f = b->wanted ? waited_for(c, i) : NULL;
		struct err why = {0};
		char object[96];
		int rc;

		b->wanted = false;
		if (!f)
			continue;
		rc = flash_come_back(c, f->name, &why);
		if (rc == 0) {
			b->back_ns = shard_now_ns(c->cfg.shard);
		} else if (is_final(rc)) {
			pool_dev_fail_for(p, i, POOL_CAUSE_ERRORS);
			if (c->cfg.peers) /* where it came back, it goes again, for good */
				c->cfg.peers->flash_failed(
					c->cfg.peers_arg, c->cfg.index, f->name, POOL_CAUSE_ERRORS);
			event_post(c->events, EVENT_ERROR, "flash-not-returned",
				object_name(object, sizeof(object), "flash", f->name),
				"its peer answers, but it does not come back by itself: %s",
				why.reason);
		}
	}
}

void comeback_forget(struct card *c)
{
	memset(c->comebacks, 0, sizeof(c->comebacks));
}
