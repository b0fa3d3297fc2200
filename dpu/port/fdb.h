/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bridge's memory of which MAC address is behind which port: a hash of fixed size, 8 entries a bucket, never growing.
 * A bucket that is full forgets its oldest entry. An address learnt on a VF does not move to another VF before it has
 * aged, so that a VM cannot pull its neighbour's frames to itself; between a VF and the uplink it moves
 * freely (a VM that migrates). A VF port may own a limited share.
 *
 * Thread: one. Time: seconds, given by the caller, never decreasing. Errors: 0 or -errno. Free of DPDK.
 *
 *	fdb_open(&(struct fdb_cfg){.entries = 4096, .age_s = 300, .per_port = 512, .seed = random}, &fdb);
 *	fdb_learn(fdb, mac, port, is_uplink, now_s);
 *	port = fdb_find(fdb, mac, now_s);
 */
#ifndef DPU_PORT_FDB_H
#define DPU_PORT_FDB_H

#include <stdbool.h>
#include <stdint.h>

#define FDB_PORTS 64
#define FDB_NONE  (-1)

struct fdb;

struct fdb_cfg {
	uint32_t entries; /* rounded up to a power of two, at least 8 */
	uint32_t age_s; /* an address not seen for longer is unknown */
	uint32_t per_port; /* entries a port that is no uplink may own; 0: no limit */
	uint64_t seed; /* of the hash: addresses are chosen by VMs */
};

int fdb_open(const struct fdb_cfg *cfg, struct fdb **out);
void fdb_close(struct fdb *f);

/*
 * mac was seen as a source on port (< FDB_PORTS). 0, or: -EPERM another VF owns it; -ENOSPC the port's share is used up;
 * -EINVAL a group address or zero. Refusals are counted.
 */
int fdb_learn(struct fdb *f, const uint8_t mac[6], unsigned int port, bool uplink, uint32_t now_s);
/* The port, or FDB_NONE. */
int fdb_find(const struct fdb *f, const uint8_t mac[6], uint32_t now_s);
void fdb_forget_port(struct fdb *f, unsigned int port);

struct fdb_stats {
	uint32_t used; /* entries, aged ones included until they are reused */
	uint64_t moves, refused_moves, refused_share, evicted;
};
void fdb_stats(const struct fdb *f, struct fdb_stats *st);

#endif
