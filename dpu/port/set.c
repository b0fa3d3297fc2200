/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/port/port_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_lcore.h>

#include "common/base/log.h"
#include "common/base/util.h"

#define DEFAULT_FDB_ENTRIES 4096
#define DEFAULT_FDB_AGE_S   300
#define LINK_CHECK_NS       250000000ULL

static void link_timer_fire(void *arg)
{
	struct port_set *ps = arg;

	for (unsigned int i = 0; i < ps->nports; i++)
		port_link_check(ps->port[i]);
	if (timer_arm(ps->sh, &ps->link_timer, shard_now_ns(ps->sh) + LINK_CHECK_NS,
		    link_timer_fire, ps) < 0)
		log_error("ports: links are no longer watched: out of memory");
}

/* ---- adding what EAL has found ------------------------------------------------------------------------ */

static bool is_uplink(const struct port_set *ps, const char *name)
{
	for (unsigned int i = 0; i < ps->cfg.nuplinks; i++)
		if (strcmp(ps->uplinks[i], name) == 0)
			return true;
	return false;
}

static bool has_ethdev(const struct port_set *ps, uint16_t id)
{
	for (unsigned int i = 0; i < ps->nports; i++)
		if (ps->port[i]->id == id)
			return true;
	return false;
}

static int port_add(struct port_set *ps, uint16_t id, struct err *e)
{
	char name[RTE_ETH_NAME_MAX_LEN];
	struct port *p;
	int rc;

	rc = rte_eth_dev_get_name_by_port(id, name);
	if (rc < 0)
		return err_set(e, rc, "ports", NULL, "device %u has no name", id);
	if (ps->nports == PORT_MAX)
		return err_set(e, -ENOSPC, name, NULL, "a card has at most %d ports", PORT_MAX);
	p = calloc(1, sizeof(*p));
	if (!p)
		return err_set(e, -ENOMEM, name, NULL, "out of memory");
	p->ps = ps;
	p->id = id;
	p->index = ps->nports;
	p->role = is_uplink(ps, name) ? PORT_ROLE_UPLINK : PORT_ROLE_VF;
	snprintf(p->name, sizeof(p->name), "%s", name);
	rc = port_device_open(p, e);
	if (rc < 0) {
		port_device_close(p);
		free(p);
		return rc;
	}
	ps->port[ps->nports++] = p;
	port_intr_reopen(p); /* adds the poller */
	port_link_check(p);
	log_info("port %s: %s, driver %s, %u receive queue%s%s", p->name,
		p->role == PORT_ROLE_UPLINK ? "uplink" : "VF", p->driver, p->nrxq,
		p->nrxq == 1 ? "" : "s", p->intr_epfd >= 0 ? ", interrupts" : "");
	return 0;
}

/* Every Ethernet device that is not ours yet; returns how many. */
static int scan(struct port_set *ps, struct err *e)
{
	uint16_t id;
	int added = 0;

	RTE_ETH_FOREACH_DEV(id)
	{
		int rc;

		if (has_ethdev(ps, id))
			continue;
		rc = port_add(ps, id, e);
		if (rc < 0)
			return rc;
		added++;
	}
	return added;
}

static int check_uplinks(const struct port_set *ps, struct err *e)
{
	for (unsigned int i = 0; i < ps->cfg.nuplinks; i++) {
		uint16_t id;

		if (rte_eth_dev_get_port_by_name(ps->uplinks[i], &id) < 0)
			return err_set(e, -ENODEV, ps->uplinks[i], "uplink",
				"there is no such Ethernet device; EAL's arguments (--vdev, -a) "
				"create them");
	}
	return 0;
}

/* ---- the set --------------------------------------------------------------------------------------------- */

static int set_init(struct port_set *ps, const struct port_set_cfg *cfg, struct err *e)
{
	struct fdb_cfg fc = {
		.entries = cfg->fdb_entries ? cfg->fdb_entries : DEFAULT_FDB_ENTRIES,
		.age_s = cfg->fdb_age_s ? cfg->fdb_age_s : DEFAULT_FDB_AGE_S,
		.seed = shard_random(cfg->shard),
	};
	int rc;

	ps->sh = cfg->shard;
	ps->cfg = *cfg;
	if (cfg->nuplinks > PORT_UPLINKS_MAX)
		return err_set(
			e, -EINVAL, "ports", "uplink", "there can be %d at most", PORT_UPLINKS_MAX);
	for (unsigned int i = 0; i < cfg->nuplinks; i++) {
		snprintf(ps->uplinks[i], sizeof(ps->uplinks[i]), "%s", cfg->uplinks[i]);
		ps->cfg.uplinks[i] = ps->uplinks[i];
	}
	fc.per_port = MAX(fc.entries / 8, 8u);
	rc = fdb_open(&fc, &ps->fdb);
	if (rc < 0)
		return err_set(e, rc, "ports", "fdb", "cannot hold %u addresses", fc.entries);
	/* Frame buffers are cached per EAL thread: a shard's thread that EAL did not start becomes one. */
	if (rte_lcore_id() == LCORE_ID_ANY && rte_thread_register() == 0)
		ps->thread_registered = true;
	return check_uplinks(ps, e);
}

int port_set_open(const struct port_set_cfg *cfg, struct port_set **out, struct err *e)
{
	struct port_set *ps = calloc(1, sizeof(*ps));
	int rc;

	if (!ps)
		return err_set(e, -ENOMEM, "ports", NULL, "out of memory");
	rc = set_init(ps, cfg, e);
	if (rc == 0)
		rc = scan(ps, e);
	if (rc >= 0)
		rc = timer_arm(ps->sh, &ps->link_timer, shard_now_ns(ps->sh) + LINK_CHECK_NS,
			link_timer_fire, ps);
	if (rc < 0) {
		port_set_close(ps);
		return rc;
	}
	*out = ps;
	return 0;
}

void port_set_close(struct port_set *ps)
{
	if (!ps)
		return;
	timer_disarm(ps->sh, &ps->link_timer);
	/* All queues first: a frame may be of another port's buffers. */
	for (unsigned int i = 0; i < ps->nports; i++) {
		poller_del(ps->sh, &ps->port[i]->poller);
		port_tx_drop_all(ps->port[i]);
	}
	for (unsigned int i = 0; i < ps->nports; i++) {
		port_device_close(ps->port[i]);
		free(ps->port[i]);
	}
	fdb_close(ps->fdb);
	if (ps->thread_registered)
		rte_thread_unregister();
	free(ps);
}

/* Adds a device that was not there at start: devargs as for EAL ("0000:03:00.0,representor=vf[0-3]"). Devices that exist already are left
 * alone. Returns how many are new. */
static int attach(struct port_set *ps, const char *devargs, struct err *e)
{
	int rc = rte_dev_probe(devargs);

	if (rc < 0 && rc != -EEXIST)
		return err_set(e, rc, devargs, NULL, "cannot be attached: %s", strerror(-rc));
	return scan(ps, e);
}

unsigned int port_count(const struct port_set *ps)
{
	return ps->nports;
}

struct port *port_at(const struct port_set *ps, unsigned int i)
{
	return i < ps->nports ? ps->port[i] : NULL;
}

struct port *port_find(const struct port_set *ps, const char *name)
{
	struct port *found = NULL;
	struct vfname v;
	bool any_pf;

	for (unsigned int i = 0; i < ps->nports; i++)
		if (strcmp(ps->port[i]->name, name) == 0)
			return ps->port[i];
	if (vfname_parse(name, &v, &any_pf) < 0)
		return NULL;
	for (unsigned int i = 0; i < ps->nports; i++) {
		const struct vfname *have = &ps->port[i]->vf;

		if (have->kind != v.kind || have->num != v.num || (!any_pf && have->pf != v.pf))
			continue;
		if (found)
			return NULL; /* ambiguous: say which PF */
		found = ps->port[i];
	}
	return found;
}

struct port *port_find_late(struct port_set *ps, const char *name)
{
	struct port *p = port_find(ps, name);
	unsigned int n = ps->nports; /* new ones are representors themselves */
	struct vfname v;
	bool any_pf;

	if (p || vfname_parse(name, &v, &any_pf) < 0)
		return p;
	for (unsigned int i = 0; i < n && !p; i++) {
		char devargs[2 * PORT_NAME_MAX];
		struct err e = {0};

		if (!ps->port[i]->pci[0])
			continue;
		snprintf(devargs, sizeof(devargs), "%s,representor=%s", ps->port[i]->pci, name);
		if (attach(ps, devargs, &e) < 0)
			log_info("%s", err_text(&e));
		p = port_find(ps, name);
	}
	return p;
}

struct port *port_uplink(const struct port_set *ps)
{
	for (unsigned int i = 0; i < ps->nports; i++)
		if (ps->port[i]->role == PORT_ROLE_UPLINK)
			return ps->port[i];
	return NULL;
}

/* ---- one port ---------------------------------------------------------------------------------------------- */

void port_info(const struct port *p, struct port_info *info)
{
	*info = (struct port_info){
		.driver = p->driver,
		.role = p->role,
		.index = p->index,
		.ethdev_id = p->id,
		.link_up = p->link_up,
		.rx_interrupts = p->intr_epfd >= 0,
		.rx_queues = p->nrxq,
		.domain = p->domain,
	};
	snprintf(info->name, sizeof(info->name), "%s", p->name);
	vfname_format(&p->vf, info->vf_name, sizeof(info->vf_name));
	memcpy(info->mac, p->mac, sizeof(info->mac));
}

void port_stats(const struct port *p, struct port_stats *st)
{
	struct rte_eth_stats dev;

	*st = p->st;
	if (rte_eth_stats_get(p->id, &dev) == 0)
		st->drop_device = dev.imissed + dev.rx_nombuf + dev.ierrors + dev.oerrors;
}

void port_domain_set(struct port *p, uint16_t domain)
{
	p->domain = domain;
}

void port_filter_set(struct port *p, const struct port_filter *filter, void *arg)
{
	p->filter = filter;
	p->filter_arg = arg;
}

void port_card_set(struct port *p, void (*card_fn)(void *arg, struct rte_mbuf *pkt), void *arg)
{
	p->card_fn = card_fn;
	p->card_arg = arg;
}
