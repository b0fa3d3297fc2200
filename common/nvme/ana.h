/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asymmetric namespace access (ANA): how well a controller reaches the namespaces of a group, log page 0Ch (NVM Express Base 2.0, 5.16.1.13
 * and 8.1). Structures, and one pure look-up in a log page as it came from a target. Thread: any.
 *
 *	if (nvme_ana_log_find(log, got_bytes, nsid, from_le32(ns->anagrpid), &state) == 0 && nvme_ana_usable(state)) ...
 */
#ifndef COMMON_NVME_ANA_H
#define COMMON_NVME_ANA_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/endian.h"

/* The log: a header, then ngrps group descriptors one behind the other, each with its list of namespaces.
 * offset size field
 *      0    8 chgcnt  counts changes
 *      8    2 ngrps
 *     10    6 reserved
 */
struct nvme_ana_log {
	le64 chgcnt;
	le16 ngrps;
	uint8_t rsvd10[6];
};
static_assert(sizeof(struct nvme_ana_log) == 16, "ANA log");
static_assert(offsetof(struct nvme_ana_log, ngrps) == 8, "ANA log");

/*
 * offset size field
 *      0    4 grpid   1 .. ANAGRPMAX
 *      4    4 nnsids  entries of nsids; 0 where groups only were asked for
 *      8    8 chgcnt
 *     16    1 state   enum nvme_ana_state in bits 3:0
 *     17   15 reserved
 *     32    4 nsids, each, ascending
 */
struct nvme_ana_group_desc {
	le32 grpid;
	le32 nnsids;
	le64 chgcnt;
	uint8_t state;
	uint8_t rsvd17[15];
	le32 nsids[];
};
static_assert(sizeof(struct nvme_ana_group_desc) == 32, "ANA group descriptor");
static_assert(offsetof(struct nvme_ana_group_desc, state) == 16, "ANA group descriptor");

enum nvme_ana_state {
	NVME_ANA_OPTIMIZED = 0x1,
	NVME_ANA_NON_OPTIMIZED = 0x2,
	NVME_ANA_INACCESSIBLE = 0x3,
	NVME_ANA_PERSISTENT_LOSS = 0x4,
	NVME_ANA_CHANGE = 0xf, /* between two others */
};
#define NVME_ANA_STATE_MASK 0xf

/* Get log page, LSP bit 0 (cdw10 bit 8): group descriptors without their namespaces. */
#define NVME_LOG_ANA_RGO (1U << 8)

/* "optimized"; "?" for a number that is none. */
const char *nvme_ana_state_name(enum nvme_ana_state state);

static inline bool nvme_ana_usable(enum nvme_ana_state state)
{
	return state == NVME_ANA_OPTIMIZED || state == NVME_ANA_NON_OPTIMIZED;
}

/* The state of a namespace: of the group whose list has nsid, or, where no list has it (groups only), of group anagrpid (0: not known). The whole log
 * is walked whatever is found. -ENOENT: neither is there; -EBADMSG: len bytes end before what the log says of itself, or the
 * group's state is none that the specification has. */
int nvme_ana_log_find(const void *log, size_t len_bytes, uint32_t nsid, uint32_t anagrpid,
	enum nvme_ana_state *out);

#endif
