/* SPDX-License-Identifier: BSD-3-Clause */
/* Nodes: the failure domains of the pool. A node gone is its devices gone, together; that is told once, as is its return. */
#include "dpu/control/card_priv.h"

#include "common/nvme/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "dpu/pool/survive.h"

struct node {
	const char *name;
	uint64_t devs; /* bit per member */
	unsigned int usable, paths, usable_paths;
	bool remote; /* all of them */
};

static unsigned int ndevs(const struct node *n)
{
	return (unsigned int)__builtin_popcountll(n->devs);
}

static bool is_lost(const struct node *n)
{
	return !n->usable;
}

static const char *state_of(const struct node *n)
{
	if (is_lost(n))
		return "lost";
	return n->usable < ndevs(n) || n->usable_paths < n->paths ? "degraded" : "up";
}

/* A device that no way leads to now is no use, even before an I/O fails because of it. */
static void node_add(const struct card *c, struct node *n, unsigned int dev)
{
	const struct pool *p = store_pool(c->store);
	const struct pool_dev *d = pool_dev(p, dev);
	struct flash_health h = {.npaths = 0};
	unsigned int ways = 0;

	if (d->flash)
		flash_health(d->flash, &h);
	for (unsigned int i = 0; i < h.npaths; i++)
		ways += h.paths[i].usable;
	n->devs |= 1ull << dev;
	n->paths += h.npaths;
	n->usable_paths += ways;
	n->usable += pool_dev_usable(p, dev) && (!h.npaths || ways);
	n->remote = n->remote && nvme_address_is_remote(flash_address_of(c, d));
}

/* list has room for POOL_DEVS_MAX. */
static unsigned int nodes_of(const struct card *c, struct node *list)
{
	const struct pool *p = store_pool(c->store);
	unsigned int n = 0;

	for (unsigned int first = 0; first < pool_ndevs(p); first++) {
		if (pool_dev(p, first)->state == POOL_DEV_REMOVED ||
			pool_domain_of(p, first) != first)
			continue;
		list[n] = (struct node){.name = pool_dev(p, first)->domain, .remote = true};
		for (unsigned int i = first; i < pool_ndevs(p); i++)
			if (pool_dev(p, i)->state != POOL_DEV_REMOVED &&
				pool_domain_of(p, i) == first)
				node_add(c, &list[n], i);
		n++;
	}
	return n;
}

/* ---- events ------------------------------------------------------------------------------------------------------- */

static bool was_lost(const struct card *c, const char *name)
{
	for (unsigned int i = 0; i < c->nnodes; i++)
		if (!strcmp(c->nodes[i].name, name))
			return c->nodes[i].lost;
	return false;
}

static void flash_names(const struct pool *p, const struct node *n, char *buf, size_t size)
{
	size_t len = 0;

	buf[0] = 0;
	for (unsigned int i = 0; i < pool_ndevs(p) && len < size; i++)
		if (n->devs >> i & 1)
			len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? ", " : "",
				pool_dev(p, i)->name);
}

static void tell(const struct card *c, const struct node *n)
{
	bool lost = is_lost(n), was = was_lost(c, n->name);
	char object[96], names[400];

	if (lost == was)
		return;
	object_name(object, sizeof(object), "node", n->name);
	flash_names(store_pool(c->store), n, names, sizeof(names));
	if (lost)
		event_post(c->events, EVENT_ERROR, "node-lost", object,
			"all of its flash is away: %s", names);
	else
		event_post(c->events, EVENT_INFO, "node-back", object,
			"%u of its %u flash devices can be used again: %s", n->usable, ndevs(n),
			names);
}

void nodes_look(struct card *c)
{
	struct node list[POOL_DEVS_MAX];
	unsigned int n, kept = 0;

	if (!c->store) {
		c->nnodes = 0;
		return;
	}
	n = nodes_of(c, list);
	/* Nodes are the card's: one shard tells of them. */
	for (unsigned int i = 0; i < n; i++)
		if (list[i].remote && !c->cfg.first)
			tell(c, &list[i]);
	for (unsigned int i = 0; i < n; i++) {
		if (!list[i].remote)
			continue;
		snprintf(c->nodes[kept].name, sizeof(c->nodes[kept].name), "%s", list[i].name);
		c->nodes[kept++].lost = is_lost(&list[i]);
	}
	c->nnodes = kept;
}

/* ---- status --------------------------------------------------------------------------------------------------------- */

static int fill_node(
	const struct pool *p, struct call *c, const struct node *n, Parapet__NodeStatus *m)
{
	m->name = call_str(c, n->name);
	m->state = call_str(c, state_of(n));
	m->has_remote = m->has_usable = m->has_paths = m->has_usable_paths = true;
	m->remote = n->remote;
	m->usable = n->usable;
	m->paths = n->paths;
	m->usable_paths = n->usable_paths;
	m->flashes = call_alloc(c, ndevs(n) * sizeof(m->flashes[0]));
	if (!m->flashes)
		return -ENOMEM;
	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		if (n->devs >> i & 1)
			m->flashes[m->n_flashes++] = call_str(c, pool_dev(p, i)->name);
	return 0;
}

int nodes_fill(const struct card *card, struct call *c, Parapet__PoolStatus *s)
{
	struct node list[POOL_DEVS_MAX];
	unsigned int n = nodes_of(card, list);
	int rc = call_messages(c, n, Parapet__NodeStatus, parapet__node_status__init, &s->nodes);

	for (unsigned int i = 0; rc == 0 && i < n; i++)
		rc = fill_node(store_pool(card->store), c, &list[i], s->nodes[s->n_nodes++]);
	return rc;
}
