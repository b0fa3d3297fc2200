/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Addresses of namespaces on peers, behind the scheme's colon:
 *
 *	//HOST[:PORT][,HOST[:PORT]...]/SUBNQN#NSID[?OPTION[&OPTION...]]
 *
 * HOST is a numeric address, IPv6 in brackets. A pure function of the text. Thread: any. Errors: -EINVAL, err names the part and the remedy.
 */
#ifndef DPU_FLASH_REMOTE_ADDR_H
#define DPU_FLASH_REMOTE_ADDR_H

#include "common/nvme/fabrics.h"
#include "dpu/nvmf/dev.h"

struct remote_addr {
	struct nvmf_path_addr paths[NVMF_PATHS_MAX];
	unsigned int npaths;
	char subnqn[NVME_NQN_FIELD];
	uint32_t nsid;
	/* options; 0: not given */
	bool hdgst, ddgst, zero_copy;
	uint16_t queues, depth;
	uint32_t keep_alive_ms;
};

/* tcp: options that only NVMe/TCP has are allowed. */
int remote_addr_parse(const char *where, bool tcp, struct remote_addr *out, struct err *err);

#endif
