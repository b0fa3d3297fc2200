/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Ethernet ports of the card: any DPDK device given by EAL arguments. One or more are uplinks, all others are VF
 * ports: the card's end of a VM's virtual function (a memif or vhost vdev in loopback, a representor on silicon).
 * A VF is identified by its port; nothing a packet says can change that.
 *
 * Each frame of a VF port is given to the port's filter (dpu/flow): storage goes to the port's card function
 * (dpu/net on lwIP), the rest through a learning bridge to the uplink and back. VF ports reach each other only in
 * the same L2 domain; a frame never leaves through the port it came from.
 *
 * Thread: everything here runs on the shard's thread, port_eal_init() and port_eal_cleanup() on the main thread.
 * Ownership: a port lives until its set is closed. Frames are DPDK mbufs; callers outside of port/ see them as opaque
 * struct rte_mbuf and use port_pkt_*(). A frame has one owner: whoever gets it frees or sends it.
 * Errors: 0 or -errno; struct err says which port and why.
 *
 *	n = port_eal_init(argc, argv);                   (before any other thread is started)
 *	port_set_open(&(struct port_set_cfg){.shard = sh, .uplinks = {"net_memif9"}, .nuplinks = 1}, &ps, &e);
 *	p = port_find(ps, "net_memif0");                 (or "vf3", "pf0vf3" for representors)
 *	...
 *	port_set_close(ps);
 *	port_eal_cleanup();
 */
#ifndef DPU_PORT_PORT_H
#define DPU_PORT_PORT_H

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>

#include "common/base/err.h"
#include "dpu/core/shard.h"

struct rte_mbuf;
struct port;
struct port_set;

#define PORT_NAME_MAX       64
#define PORT_MAX            64 /* ports of a card */
#define PORT_UPLINKS_MAX    4
#define PORT_FRAME_MAX      1518
#define PORT_PKT_PRIV_BYTES 96 /* of each received frame, for whoever owns it */

/* ---- EAL ------------------------------------------------------------------------------------------ */

/*
 * rte_eal_init() with what a card needs where argv does not say it: no pinning to cores, no leftover files, no PCI
 * scan when only vdevs are asked for, and ordinary memory (with a warning that says what it costs) on a machine without
 * huge pages. argv[0] is the program; EAL's arguments end at "--" or the end. Returns how many entries of argv
 * belonged to EAL (as rte_eal_init() does), or -errno.
 */
int port_eal_init(int argc, char **argv);
void port_eal_cleanup(void);
bool port_eal_has_hugepages(void); /* after port_eal_init() */
/* At the start and the end of a thread that uses the card's memory and libraries beside the main thread: EAL knows it by a number of its own. Where EAL cannot have it
 * there is a warning: it may use what needs no such number. */
void port_eal_thread_begin(void);
void port_eal_thread_end(void);

/* ---- the set of ports -------------------------------------------------------------------------------- */

struct port_set_cfg {
	struct shard *shard;
	const char *uplinks[PORT_UPLINKS_MAX]; /* device names, as EAL knows them */
	unsigned int nuplinks; /* 0: frames that are not for the card are dropped and counted */
	uint32_t mbufs; /* frame buffers of each port; 0: 4096 */
	uint32_t fdb_entries; /* MAC addresses learnt at most; 0: 4096 */
	uint32_t fdb_age_s; /* forgotten after; 0: 300 */
	bool interrupts; /* ask for Rx interrupts where the driver has them */
};

/* Takes over every Ethernet device EAL has found, configures and starts it and adds its poller. */
int port_set_open(const struct port_set_cfg *cfg, struct port_set **out, struct err *e);
void port_set_close(struct port_set *ps);

unsigned int port_count(const struct port_set *ps);
struct port *port_at(
	const struct port_set *ps, unsigned int i); /* i < port_count(); order is stable */
/* By device name, representor name (pf0vf3, or vf3 when only one PF has it), or NULL. */
struct port *port_find(const struct port_set *ps, const char *name);
/* The same; a representor that is not there yet (the host may enable VFs late) is attached through the card's PCI ports. */
struct port *port_find_late(struct port_set *ps, const char *name);
struct port *port_uplink(const struct port_set *ps); /* the first, or NULL */

/* ---- one port ------------------------------------------------------------------------------------------ */

enum port_role { PORT_ROLE_VF, PORT_ROLE_UPLINK };

struct port_info {
	char name[PORT_NAME_MAX]; /* of the device */
	char vf_name[24]; /* pf0vf3 for a representor, else empty */
	const char *driver;
	enum port_role role;
	unsigned int index; /* in the set */
	uint16_t ethdev_id;
	uint8_t mac[6];
	bool link_up;
	bool rx_interrupts;
	uint16_t rx_queues;
	uint16_t domain; /* L2 domain, 0: private */
};

struct port_stats {
	uint64_t rx_packets, rx_bytes, tx_packets, tx_bytes;
	uint64_t
		rx_card_queue; /* came up in the queue that rules steer to (0 where there is one queue) */
	uint64_t to_card; /* frames the filter gave to the card */
	uint64_t
		forwarded; /* frames that left through another port, copies of a flood counted once */
	uint64_t flooded;
	uint64_t
		drop_filter; /* to the card, but nothing it serves; or to the VM in the card's name */
	uint64_t drop_bridge; /* malformed, link-local, or nowhere to go */
	uint64_t drop_isolation; /* known to be behind a VF of another domain */
	uint64_t drop_tx_full;
	uint64_t drop_device; /* as counted by the device: missed, no buffer, errors */
	uint64_t link_downs, reattached;
};

void port_info(const struct port *p, struct port_info *info);
void port_stats(const struct port *p, struct port_stats *st);

/* VF ports with the same domain > 0 may talk to each other; 0 (the start) is a domain of its own. */
void port_domain_set(struct port *p, uint16_t domain);

enum port_verdict { PORT_FORWARD, PORT_CARD, PORT_DROP };

/* Who judges the frames of a VF port. len_bytes is the first segment's; the frame may be longer. */
struct port_filter {
	/* A frame the VM has sent. */
	enum port_verdict (*from_vf_fn)(void *arg, const uint8_t *frame, size_t len_bytes);
	/* A frame the bridge is about to give to the VM: false drops it. */
	bool (*to_vf_fn)(void *arg, const uint8_t *frame, size_t len_bytes);
};
/* Without a filter (NULL) everything is forwarded. The struct stays the caller's and valid. */
void port_filter_set(struct port *p, const struct port_filter *filter, void *arg);
/* Gets the frames judged PORT_CARD, each in one piece, and owns them. NULL takes it away: they are dropped then. */
void port_card_set(struct port *p, void (*card_fn)(void *arg, struct rte_mbuf *pkt), void *arg);

/* ---- frames ------------------------------------------------------------------------------------------------ */

uint8_t *port_pkt_data(struct rte_mbuf *pkt, size_t *len_bytes);
void *port_pkt_priv(struct rte_mbuf *pkt); /* PORT_PKT_PRIV_BYTES, 8-aligned */
void port_pkt_free(struct rte_mbuf *pkt);

/* A frame of len_bytes <= PORT_FRAME_MAX to be filled and sent; NULL when buffers are out. */
struct rte_mbuf *port_pkt_alloc(struct port *p, size_t len_bytes);
/* Queues the frame for sending through p; owns it in any case. -ENOBUFS: the queue is full, the frame is gone. */
int port_pkt_send(struct port *p, struct rte_mbuf *pkt);
/* True when the next port_pkt_send() has room: for those who would rather wait. */
bool port_can_send(const struct port *p);

#endif
