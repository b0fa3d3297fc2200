/* SPDX-License-Identifier: BSD-3-Clause */
/* VMs' virtio-blk functions as their card tells of them. Thread: one. */
#ifndef HOST_AGENT_CLI_ATTACH_H
#define HOST_AGENT_CLI_ATTACH_H

#include "host-agent/cli/cli.h"

/* The list of VhostDisk of the contract, the caller's; NULL where there is none or it cannot be had. */
json_t *attach_functions(struct cli *c, const char *node_name, const char *vm);

#endif
