/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of dpu/port: set.c owns the set and finds ports, device.c talks to the device's control side, datapath.c moves
 * frames. Thread: the shard's.
 */
#ifndef DPU_PORT_PORT_PRIV_H
#define DPU_PORT_PORT_PRIV_H

#include "common/base/util.h" /* before DPDK, which only fills in container_of where there is none */

#include <rte_ethdev.h>
#include <rte_mbuf.h>

#include "dpu/port/fdb.h"
#include "dpu/port/port.h"
#include "dpu/port/vfname.h"

#define PORT_RX_BURST  32
#define PORT_RX_QUEUES 2 /* where rules can steer: 1 is the card's own */
/* Frames waiting for the device; a power of two. The bridge may fill the first part only, so that forwarded traffic
 * never keeps the card's own answers out. */
#define PORT_TXQ        1024u
#define PORT_TXQ_BRIDGE 768u

struct port {
	struct port_set *ps;
	unsigned int index;
	uint16_t id; /* ethdev */
	enum port_role role;
	char name[PORT_NAME_MAX];
	struct vfname vf; /* of a representor */
	const char *driver;
	char pci[PORT_NAME_MAX]; /* address of a PCI function that is no representor, else empty */
	uint8_t mac[6];
	uint16_t domain;

	struct rte_mempool *pool;
	uint16_t nrxq, ntxq;
	bool started;
	bool link_up;
	uint64_t link_since_ns;
	uint64_t patience_ns; /* with a link that is down, before the device is restarted */

	const struct port_filter *filter;
	void *filter_arg;
	void (*card_fn)(void *arg, struct rte_mbuf *pkt);
	void *card_arg;

	struct poller poller;
	/* Rx interrupts: an epoll set of EAL's, itself watched by the shard. -1: the device has none. */
	int intr_epfd;
	struct fd_watch intr_watch;
	bool intr_armed;
	uint32_t empty_polls;

	struct rte_mbuf *txq[PORT_TXQ];
	uint32_t tx_head, tx_tail; /* free running */
	struct port_stats st;
};

struct port_set {
	struct shard *sh;
	struct port_set_cfg cfg;
	char uplinks[PORT_UPLINKS_MAX][PORT_NAME_MAX];
	struct port *port[PORT_MAX];
	unsigned int nports;
	struct fdb *fdb;
	struct timer link_timer;
	bool thread_registered;
};

/* device.c */
int port_device_open(struct port *p, struct err *e); /* configures and starts */
void port_device_close(struct port *p);
void port_device_identify(struct port *p, const struct rte_eth_dev_info *di);
void port_link_check(struct port *p); /* every so often */
void port_intr_close(struct port *p);
void port_intr_reopen(struct port *p); /* and tells the shard whether the port can wake it */
void port_intr_arm(struct port *p);
void port_intr_disarm(struct port *p);

/* datapath.c */
int port_poll(void *arg);
void port_tx_drop_all(struct port *p);

#endif
