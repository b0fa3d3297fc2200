/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Byte streams over lwIP on a port (stream.h): the VM's TCP connection ends in the firmware. One network interface per VF
 * port, with the card's address on that VF. Listeners and connections are bound to their interface: two VFs may use the
 * same subnet, even the same addresses, and never meet. The VM of a stream is the VM of its interface.
 *
 * lwIP would forward IP between its interfaces and answers more than storage; so only frames that the port's filter
 * (dpu/flow) calls the card's are fed in, and what an interface's input provokes leaves through that interface only.
 * lwIP allocates with malloc and has no limits of its own: connections, half-open ones and received frames held are capped here.
 *
 * Thread: one instance in the process, everything on its shard's thread. Errors: 0 or -errno.
 * Ownership: the instance outlives its interfaces, an interface its listeners and streams (lwipnet_if_del() resets those
 * streams that are left: their owners get closed_fn and still close them).
 *
 *	lwipnet_open(sh, &net, &e);
 *	lwipnet_if_add(net, &(struct lwipnet_if_cfg){.port = p, .ip = ip, .prefix_len = 24, .mac = mac}, &nif, &e);
 *	lwipnet_listen(nif, &(struct lwipnet_listen_cfg){.port = 4420}, &l, &e);
 *	stream_listener_start(l, accepted, vm);
 */
#ifndef DPU_NET_LWIP_H
#define DPU_NET_LWIP_H

#include <stdint.h>

#include "common/base/err.h"
#include "dpu/net/stream.h"
#include "dpu/port/port.h"

struct lwipnet;
struct lwipnet_if;

int lwipnet_open(struct shard *sh, struct lwipnet **out, struct err *e);
void lwipnet_close(struct lwipnet *net); /* its interfaces have been deleted */

struct lwipnet_if_cfg {
	struct port *port; /* the VF's; one interface per port. Its card function becomes ours */
	uint32_t ip; /* the card's address, host order */
	uint8_t prefix_len; /* 8..30; VMs outside the subnet cannot be reached */
	const uint8_t *mac; /* the same as dpu/flow has: flow_card_mac() */
	uint32_t max_frames; /* received frames held for streams; 0: 2048 */
};

int lwipnet_if_add(struct lwipnet *net, const struct lwipnet_if_cfg *cfg, struct lwipnet_if **out,
	struct err *e);
void lwipnet_if_del(struct lwipnet_if *nif);

struct lwipnet_listen_cfg {
	uint16_t port;
	uint32_t max_conns; /* 0: 128 */
	uint32_t max_half_open; /* 0: 32 */
};

int lwipnet_listen(struct lwipnet_if *nif, const struct lwipnet_listen_cfg *cfg,
	struct stream_listener **out, struct err *e);

struct lwipnet_if_stats {
	uint64_t rx_frames, tx_frames;
	uint64_t rx_copied; /* too small or too many to be kept in place */
	uint64_t drop_frames; /* over max_frames, or no memory */
	uint64_t drop_syn; /* connection attempts given up, or refused, over a cap */
	uint64_t drop_tx; /* no room: TCP sends again */
	uint64_t rerouted; /* would have left through another interface */
	uint32_t frames_held;
};

void lwipnet_if_stats(const struct lwipnet_if *nif, struct lwipnet_if_stats *st);

#endif
