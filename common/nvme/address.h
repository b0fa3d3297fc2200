/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The address of a namespace on a peer, as people write it:
 *
 *	nvme+tcp://HOST[:PORT][,HOST[:PORT]...]/SUBNQN#NSID[?OPTION[&OPTION...]]      nvme+rdma://...
 *
 * HOST is numeric, IPv6 in brackets; several are several paths to one namespace. Options: hdgst, ddgst, zero-copy (tcp), queues=N,
 * depth=N, keep-alive=MS, restart-min=MS (dpu/nvmf/dev.h, Caches). In YAML and in a shell the address is best quoted: ',', '[', '&', '?' and (after a space) '#' mean something there.
 *
 * Pure functions on text. Thread: any. Errors: -EINVAL, err says which part and what is allowed.
 *
 *	nvme_address_parse("nvme+tcp://10.0.0.2/nqn.x#1", &a, "flash f0", "address", &err)
 */
#ifndef COMMON_NVME_ADDRESS_H
#define COMMON_NVME_ADDRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/base/err.h"

#define NVME_ADDRESS_PATHS      4
#define NVME_ADDRESS_QUEUES_MAX 64
#define NVME_ADDRESS_DEPTH_MAX  1023
#define NVME_ADDRESS_TEXT_MAX   511 /* characters of a whole address */

struct nvme_address {
	bool rdma;
	unsigned int npaths;
	struct {
		char host[64]; /* in its shortest spelling */
		uint16_t port; /* 4420 where none is named */
	} paths[NVME_ADDRESS_PATHS];
	char subnqn[224];
	uint32_t nsid;
	bool hdgst, ddgst, zero_copy;
	uint32_t queues, depth, keep_alive_ms, restart_min_ms; /* 0: not named */
};

/* Begins with nvme+: the address of a peer, well formed or not. */
bool nvme_address_is_remote(const char *text);
/* object and field go into err. field NULL: the part of the address that is bad ("transport", "address", "host", "port", "NQN", "namespace",
 * "option" or the name of one). */
int nvme_address_parse(const char *text, struct nvme_address *out, const char *object,
	const char *field, struct err *err);
/* The same behind "nvme+tcp:" and "nvme+rdma:". */
int nvme_address_parse_rest(bool rdma, const char *rest, struct nvme_address *out,
	const char *object, const char *field, struct err *err);
/* HOST[:PORT], [ADDR] for IPv6; *port stays as it is where none is named. -EINVAL: not numeric. */
int nvme_host_parse(const char *text, size_t len, char host[64], uint16_t *port);
/* "10.0.0.2:4420", "[fd00::2]:4420" */
const char *nvme_host_text(const char *host, uint16_t port, char *buf, size_t size);
/* The failure domain of a device nobody gave one: its first host as a name ("10.0.0.2", "fd00--2"). */
void nvme_address_domain(const struct nvme_address *a, char domain[64]);

#endif
