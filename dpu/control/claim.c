/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keeping a former owner out. Where a member has reservations this card makes itself its only writer before the pool's epoch begins; whoever wrote before is
 * fenced by the device itself. Elsewhere the epoch only detects a second owner, so the operator has to say that the first is off: the superblocks name it.
 */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

/* Of this card, the same after every start; never 0. */
static uint64_t key_of(const struct card *c)
{
	uint64_t key, rest;

	memcpy(&key, c->id, 8);
	memcpy(&rest, c->id + 8, 8);
	key ^= rest * 0x9e3779b97f4a7c15ull;
	return key ? key : 1;
}

int claim_flash(struct card *c, struct flash *f, const char *name, bool take_over, bool *claimed,
	struct err *e)
{
	struct err why = {0};
	char object[96];
	int rc = flash_claim(f, key_of(c), take_over, &why);

	*claimed = rc == 0;
	if (rc == 0 || rc == -EOPNOTSUPP)
		return 0;
	object_name(object, sizeof(object), "flash", name);
	if (rc == -EBUSY)
		return err_set(e, rc, object, "reservation",
			"held by another host%s%.120s; allowed: if that host is off, 'pool import "
			"--take-over' or 'pool open --take-over'",
			why.reason[0] ? ": " : "", why.reason);
	return err_set(
		e, rc, object, "reservation", "%s", why.reason[0] ? why.reason : strerror(-rc));
}

static bool is_zero(const uint8_t *id)
{
	static const uint8_t zero[16];

	return memcmp(id, zero, sizeof(zero)) == 0;
}

/* The superblocks say whose the pool was. An older version does not: then only who imports is asked. */
static int check_owner(
	const struct card *c, const struct pool *p, bool imported, bool take_over, struct err *e)
{
	const uint8_t *owner = pool_owner(p);
	char who[48];

	if (take_over || memcmp(owner, c->id, sizeof(c->id)) == 0)
		return 0;
	if (is_zero(owner)) {
		if (!imported)
			return 0;
		snprintf(who, sizeof(who), "not known");
	} else {
		char uuid[37];

		uuid_unparse_lower(owner, uuid);
		snprintf(who, sizeof(who), "card %s", uuid);
	}
	return err_set(e, -EOWNERDEAD, "pool", "owner",
		"its last owner is %s, not this card; allowed: with --take-over, once that card is "
		"off",
		who);
}

static void give_back(struct card *c, struct pool *p)
{
	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		if (c->claimed >> i & 1)
			(void)flash_unclaim(pool_dev(p, i)->flash, NULL);
	c->claimed = 0;
}

int claim_pool(struct card *c, struct pool *p, bool imported, bool take_over, struct err *e)
{
	int rc = check_owner(c, p, imported, take_over, e);

	c->claimed = 0;
	for (unsigned int i = 0; rc == 0 && i < pool_ndevs(p); i++) {
		struct err why = {0};
		bool claimed = false;

		if (!pool_dev_usable(p, i))
			continue;
		rc = claim_flash(
			c, pool_dev(p, i)->flash, pool_dev(p, i)->name, take_over, &claimed, &why);
		c->claimed |= (uint64_t)claimed << i;
		if (rc == -EBUSY && e)
			*e = why;
		if (rc == 0 || rc == -EBUSY)
			continue;
		/* It does not even answer that: the pool can do without it, or will say that it cannot. */
		event_post(c->events, EVENT_ERROR, "flash-failed", why.object,
			"the pool is opened without it: %s", why.reason);
		pool_dev_fail_for(p, i, POOL_CAUSE_UNREACHABLE);
		rc = 0;
	}
	if (rc < 0) {
		give_back(c, p);
		return rc;
	}
	pool_set_owner(p, c->id);
	return 0;
}
