/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside of the lwIP provider: lwip_if.c moves frames, lwip_stream.c connections. lwIP's callbacks run inside its input or
 * its timers; they only note what happened and list the stream: the owner's code runs from a task of the shard.
 * Thread: the shard's.
 */
#ifndef DPU_NET_LWIP_PRIV_H
#define DPU_NET_LWIP_PRIV_H

#include <lwip/ip4.h>
#include <lwip/netif.h>
#include <lwip/pbuf.h>
#include <lwip/tcp.h>

#include "dpu/net/lwip.h"

#define LWIPNET_NEIGHBOURS 32

struct lwip_stream;
struct lwip_listener;
TAILQ_HEAD(lwip_stream_list, lwip_stream);
LIST_HEAD(lwip_listener_list, lwip_listener);

struct lwipnet {
	struct shard *sh;
	struct timer tick;
	struct task task;
	struct lwip_stream_list ready; /* something to tell or to do */
	LIST_HEAD(, lwipnet_if) ifs;
	struct lwipnet_if *input_if; /* whose frame lwIP is working on */
};

/* Who speaks on the VF, learnt from what they send to the card. */
struct lwip_neighbour {
	uint32_t ip; /* network order; 0: free */
	uint8_t mac[6];
	uint32_t used;
};

struct lwipnet_if {
	struct netif netif;
	struct lwipnet *net;
	struct port *port;
	uint8_t mac[6];
	uint32_t ip; /* network order */
	uint32_t max_frames;
	bool tx_stalled; /* a segment could not be queued: lwIP would wait half a second */
	struct lwip_neighbour neigh[LWIPNET_NEIGHBOURS];
	uint32_t neigh_last, neigh_clock;
	struct lwip_stream_list streams;
	struct lwip_listener_list listeners;
	struct lwipnet_if_stats st;
	LIST_ENTRY(lwipnet_if) link;
};

/* lwip_stream.c */
bool lwip_syn_allowed(struct lwipnet_if *nif, uint16_t port); /* before lwIP sees the SYN */
void lwip_syn_bind(struct lwipnet_if *nif); /* after */
void lwip_streams_run(struct lwipnet *net); /* what is ready */
void lwip_streams_retry(struct lwipnet_if *nif); /* sends what lwIP kept back */
void lwip_streams_tick(struct lwipnet_if *nif);
void lwip_if_reset(
	struct lwipnet_if *nif); /* ends every connection and listener of the interface */

/* lwip_if.c */
void lwip_defer(struct lwipnet *net);

#endif
