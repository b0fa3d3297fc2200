/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The namespace behind scripted peers (nvmf_peer.h): memory and reservations, which several peers, that is paths, may share. Reservations are those of
 * the specification, all six types; hosts are told apart by their 16-byte identifiers. Thread: the shard's.
 *
 *	peer_ns_open(0, &ns);  cfg_a.ns = cfg_b.ns = ns;  peer_open(...) twice;  peer_ns_put(ns)
 */
#ifndef TESTS_UNIT_NVMF_PEER_NS_H
#define TESTS_UNIT_NVMF_PEER_NS_H

#include "common/nvme/resv.h"

#define PEER_BLOCK       512u
#define PEER_BLOCKS      4096u
#define PEER_REGISTRANTS 128

struct peer_registrant {
	uint8_t hostid[16];
	uint64_t key; /* 0: free */
	uint16_t cntlid;
	bool holds; /* not kept where all registrants hold it */
};

struct peer_ns {
	uint32_t refs;
	uint64_t nblocks; /* may be made smaller by a test */
	uint8_t nguid[16];
	uint8_t *mem; /* of the blocks it was opened with */
	uint32_t gen;
	enum nvme_resv_type type;
	bool ptpl;
	struct peer_registrant reg[PEER_REGISTRANTS];
	/* what it has seen */
	uint32_t nconflicts;
	uint32_t nwrites; /* carried out, write zeroes included */
};

int peer_ns_open(uint32_t nblocks, struct peer_ns **out); /* 0: PEER_BLOCKS */
struct peer_ns *peer_ns_get(struct peer_ns *ns);
void peer_ns_put(struct peer_ns *ns);

/* May this host do that now? enum nvme_status. */
uint16_t peer_ns_access(struct peer_ns *ns, const uint8_t *hostid, uint8_t opcode);
/* The three commands that change something; data is theirs. enum nvme_status. *preempted is set (16 bytes) and *did is true where
 * the commands of a host must be aborted. */
uint16_t peer_ns_reserve(struct peer_ns *ns, const uint8_t *hostid, uint16_t cntlid,
	const struct nvme_sqe *sqe, const void *data, uint8_t *preempted, bool *did);
/* Fills the extended report; returns its whole length, of which at most max_bytes are filled. */
size_t peer_ns_report(const struct peer_ns *ns, void *buf, size_t max_bytes);

#endif
