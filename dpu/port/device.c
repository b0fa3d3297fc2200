/* SPDX-License-Identifier: BSD-3-Clause */
/* Representor ranges are experimental in 22.11. */
#define ALLOW_EXPERIMENTAL_API
#include "dpu/port/port_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <rte_bus.h>
#include <rte_dev.h>
#include <rte_errno.h>
#include <rte_interrupts.h>

#include "common/base/log.h"
#include "common/base/util.h"

#define RX_DESC       512
#define TX_DESC       512
#define DEFAULT_MBUFS 4096
#define MBUF_CACHE    128
#define MAX_RANGES    64
/* A client device that has lost its peer for this long is started afresh: it connects then. When the connection is there, the
 * handshake gets longer: breaking one off has crashed peers. */
#define RESTART_NS   1000000000ULL
#define HANDSHAKE_NS 5000000000ULL

/* ---- who it is ----------------------------------------------------------------------------------- */

static enum vfname_kind kind_of(enum rte_eth_representor_type t)
{
	switch (t) {
	case RTE_ETH_REPRESENTOR_VF:
		return VFNAME_VF;
	case RTE_ETH_REPRESENTOR_SF:
		return VFNAME_SF;
	case RTE_ETH_REPRESENTOR_PF:
		return VFNAME_PF;
	default:
		return VFNAME_NONE;
	}
}

/* The driver's numbering of representors: how many ranges, 0 when it publishes none. */
static size_t representor_ranges(uint16_t id, struct vfname_range *out, size_t max)
{
	autofree struct rte_eth_representor_info *info = NULL;
	int n = rte_eth_representor_info_get(id, NULL);
	size_t used = 0;

	if (n <= 0)
		return 0;
	info = calloc(1, sizeof(*info) + (size_t)n * sizeof(info->ranges[0]));
	if (!info)
		return 0;
	info->nb_ranges_alloc = (uint32_t)n;
	if (rte_eth_representor_info_get(id, info) < 0)
		return 0;
	for (uint32_t i = 0; i < info->nb_ranges && used < max; i++) {
		const struct rte_eth_representor_range *r = &info->ranges[i];

		out[used].kind = kind_of(r->type);
		out[used].pf = (uint16_t)(r->pf < 0 ? info->pf : r->pf);
		out[used].id_first = r->id_base;
		out[used].id_last = r->id_end;
		out[used].num_first = (uint32_t)(r->type == RTE_ETH_REPRESENTOR_SF ? r->sf : r->vf);
		used += out[used].kind != VFNAME_NONE;
	}
	return used;
}

static bool on_bus(const struct rte_eth_dev_info *di, const char *name)
{
	const struct rte_bus *bus = di->device ? rte_dev_bus(di->device) : NULL;

	return bus && strcmp(rte_bus_name(bus), name) == 0;
}

void port_device_identify(struct port *p, const struct rte_eth_dev_info *di)
{
	struct rte_ether_addr a;

	if (rte_eth_macaddr_get(p->id, &a) == 0)
		memcpy(p->mac, a.addr_bytes, sizeof(p->mac));
	p->driver = di->driver_name ? di->driver_name : "unknown";
	if (on_bus(di, "pci") && !(di->dev_flags && (*di->dev_flags & RTE_ETH_DEV_REPRESENTOR)))
		snprintf(p->pci, sizeof(p->pci), "%s", rte_dev_name(di->device));
	if (di->dev_flags && (*di->dev_flags & RTE_ETH_DEV_REPRESENTOR)) {
		struct vfname_range r[MAX_RANGES];
		size_t n = representor_ranges(p->id, r, MAX_RANGES);

		if (vfname_of_representor(r, n, di->switch_info.port_id, &p->vf) < 0)
			log_warn("port %s: representor %u is in no range the driver names", p->name,
				di->switch_info.port_id);
	}
}

/* Devices that can steer get a second queue. Software vdevs cannot (memif would even negotiate
 * it with its peer), but TAP, whose rules the kernel executes. */
static bool may_steer(const struct rte_eth_dev_info *di)
{
	if (!di->device || on_bus(di, "vdev"))
		return di->driver_name && strcmp(di->driver_name, "net_tap") == 0;
	return true;
}

/* ---- bringing up ------------------------------------------------------------------------------------ */

static int queues_setup(struct port *p, struct err *e)
{
	uint16_t nrx = RX_DESC, ntx = TX_DESC;
	int rc = rte_eth_dev_adjust_nb_rx_tx_desc(p->id, &nrx, &ntx);

	for (uint16_t q = 0; rc == 0 && q < p->nrxq; q++)
		rc = rte_eth_rx_queue_setup(p->id, q, nrx, SOCKET_ID_ANY, NULL, p->pool);
	for (uint16_t q = 0; rc == 0 && q < p->ntxq; q++)
		rc = rte_eth_tx_queue_setup(p->id, q, ntx, SOCKET_ID_ANY, NULL);
	return rc < 0 ? err_set(e, rc, p->name, "queues", "the device refuses: %s", strerror(-rc))
		      : 0;
}

static int device_configure(struct port *p, const struct rte_eth_dev_info *di, struct err *e)
{
	struct rte_eth_conf conf = {.intr_conf = {.rxq = p->ps->cfg.interrupts}};
	int rc;

	p->nrxq = may_steer(di) && di->max_rx_queues >= PORT_RX_QUEUES ? PORT_RX_QUEUES : 1;
	p->ntxq = 1;
	if (p->nrxq > 1 && strcmp(p->driver, "net_tap") == 0)
		p->ntxq = p->nrxq; /* its queues come in pairs */
	rc = rte_eth_dev_configure(p->id, p->nrxq, p->ntxq, &conf);
	if (rc < 0 && conf.intr_conf.rxq) {
		conf.intr_conf.rxq = 0;
		rc = rte_eth_dev_configure(p->id, p->nrxq, p->ntxq, &conf);
	}
	if (rc < 0)
		return err_set(e, rc, p->name, NULL, "cannot be configured with %u queues: %s",
			p->nrxq, strerror(-rc));
	return 0;
}

static int pool_create(struct port *p, struct err *e)
{
	uint32_t n = p->ps->cfg.mbufs ? p->ps->cfg.mbufs : DEFAULT_MBUFS;
	char name[RTE_MEMPOOL_NAMESIZE];

	snprintf(name, sizeof(name), "port_%u", p->id);
	p->pool = rte_pktmbuf_pool_create(
		name, n, MBUF_CACHE, PORT_PKT_PRIV_BYTES, RTE_MBUF_DEFAULT_BUF_SIZE, SOCKET_ID_ANY);
	if (!p->pool)
		return err_set(e, -rte_errno, p->name, "mbufs",
			"no memory for %u frame buffers (%s); give EAL more with -m", n,
			rte_strerror(rte_errno));
	return 0;
}

static int device_start(struct port *p)
{
	int rc = rte_eth_dev_start(p->id);

	if (rc < 0)
		return rc;
	p->started = true;
	/* The card's addresses are not the device's. Refused only where everything is received anyway. */
	(void)rte_eth_promiscuous_enable(p->id);
	(void)rte_eth_allmulticast_enable(p->id);
	port_intr_reopen(p);
	return 0;
}

int port_device_open(struct port *p, struct err *e)
{
	struct rte_eth_dev_info di;
	int rc = rte_eth_dev_info_get(p->id, &di);

	p->intr_epfd = -1;
	if (rc < 0)
		return err_set(
			e, rc, p->name, NULL, "cannot be asked what it is: %s", strerror(-rc));
	port_device_identify(p, &di);
	rc = device_configure(p, &di, e);
	if (rc == 0)
		rc = pool_create(p, e);
	if (rc == 0)
		rc = queues_setup(p, e);
	if (rc < 0)
		return rc;
	p->link_since_ns = shard_now_ns(p->ps->sh);
	/* A peer process that is not there yet is no reason to fail: port_link_check() goes on trying. */
	p->patience_ns = HANDSHAKE_NS;
	if (device_start(p) < 0) {
		log_warn("port %s: does not start yet; trying again every second", p->name);
		p->patience_ns = RESTART_NS;
	}
	return 0;
}

void port_device_close(struct port *p)
{
	port_intr_close(p);
	port_tx_drop_all(p);
	if (p->started)
		(void)rte_eth_dev_stop(p->id);
	p->started = false;
	(void)rte_eth_dev_close(p->id);
	rte_mempool_free(p->pool);
	p->pool = NULL;
}

/* ---- link, and peers that come back --------------------------------------------------------------------- */

static void device_restart(struct port *p)
{
	int rc;

	port_intr_close(p);
	port_tx_drop_all(p);
	if (p->started) {
		p->started = false;
		rc = rte_eth_dev_stop(p->id);
		if (rc < 0)
			log_warn("port %s: cannot be stopped: %s", p->name, strerror(-rc));
	}
	p->patience_ns = device_start(p) == 0 ? HANDSHAKE_NS : RESTART_NS;
}

/* Drivers that connect to a peer process when started. The others keep trying themselves, or wait for the peer. */
static bool connects_at_start(const struct port *p)
{
	return strcmp(p->driver, "net_memif") == 0;
}

void port_link_check(struct port *p)
{
	uint64_t now = shard_now_ns(p->ps->sh);
	struct rte_eth_link link = {0};
	bool up;

	if (p->started && rte_eth_link_get_nowait(p->id, &link) < 0)
		return;
	up = link.link_status == RTE_ETH_LINK_UP;
	if (up != p->link_up) {
		p->link_up = up;
		p->link_since_ns = now;
		if (up) {
			p->st.reattached += p->st.link_downs > 0;
			port_intr_reopen(
				p); /* some devices have descriptors only once a peer is there */
		} else {
			p->st.link_downs++;
			p->patience_ns = RESTART_NS;
			port_tx_drop_all(p);
		}
		log_info("port %s: link %s", p->name, up ? "up" : "down");
		return;
	}
	if (!up && (!p->started || connects_at_start(p)) &&
		now - p->link_since_ns >= p->patience_ns) {
		device_restart(p);
		p->link_since_ns = now;
	}
}

/* ---- Rx interrupts ---------------------------------------------------------------------------------------- */

/*
 * EAL's own wait would "acknowledge" by reading eight bytes off the descriptor: with TAP that is a frame. The set is
 * edge-triggered, so taking the events is enough, for event counters too.
 */
static void intr_ready(void *arg, uint32_t events)
{
	struct port *p = arg;
	struct epoll_event ev[PORT_RX_QUEUES];

	(void)epoll_wait(p->intr_epfd, ev, PORT_RX_QUEUES, 0);
	port_intr_disarm(p);
	p->empty_polls = 0;
}

/* Drivers without descriptors; asking them makes EAL complain. */
static bool never_interrupts(const struct port *p)
{
	static const char *const drivers[] = {"net_memif", "net_ring", "net_null", "net_af_packet",
		"net_af_xdp", "net_bonding", "net_virtio_user"};

	for (size_t i = 0; i < ARRAY_LEN(drivers); i++)
		if (strcmp(p->driver, drivers[i]) == 0)
			return true;
	return false;
}

static void port_intr_open(struct port *p)
{
	int rc = 0;

	p->intr_epfd = -1;
	p->intr_armed = false;
	if (!p->ps->cfg.interrupts || never_interrupts(p))
		return;
	p->intr_epfd = epoll_create1(EPOLL_CLOEXEC);
	if (p->intr_epfd < 0)
		return;
	for (uint16_t q = 0; rc == 0 && q < p->nrxq; q++)
		rc = rte_eth_dev_rx_intr_ctl_q(
			p->id, q, p->intr_epfd, RTE_INTR_EVENT_ADD, (void *)(uintptr_t)q);
	if (rc == 0)
		rc = fd_watch_add(p->ps->sh, &p->intr_watch, p->intr_epfd, EPOLLIN, intr_ready, p);
	if (rc < 0) {
		close(p->intr_epfd);
		p->intr_epfd = -1;
	}
}

void port_intr_close(struct port *p)
{
	if (p->intr_epfd < 0)
		return;
	port_intr_disarm(p);
	fd_watch_del(p->ps->sh, &p->intr_watch);
	for (uint16_t q = 0; q < p->nrxq; q++)
		(void)rte_eth_dev_rx_intr_ctl_q(p->id, q, p->intr_epfd, RTE_INTR_EVENT_DEL, NULL);
	close(p->intr_epfd);
	p->intr_epfd = -1;
}

void port_intr_reopen(struct port *p)
{
	poller_del(p->ps->sh, &p->poller);
	port_intr_close(p);
	port_intr_open(p);
	poller_add(p->ps->sh, &p->poller, port_poll, p,
		p->intr_epfd >= 0 ? POLLER_SLEEPS : POLLER_BUSY);
}

/* Drivers whose descriptor is level-triggered (TAP) have nothing to enable and say so: that is fine. */
void port_intr_arm(struct port *p)
{
	if (p->intr_epfd < 0 || p->intr_armed)
		return;
	for (uint16_t q = 0; q < p->nrxq; q++)
		(void)rte_eth_dev_rx_intr_enable(p->id, q);
	p->intr_armed = true;
}

void port_intr_disarm(struct port *p)
{
	if (!p->intr_armed)
		return;
	for (uint16_t q = 0; q < p->nrxq; q++)
		(void)rte_eth_dev_rx_intr_disable(p->id, q);
	p->intr_armed = false;
}
