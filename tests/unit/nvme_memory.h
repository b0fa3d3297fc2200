/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The card's own NVMe/TCP target over plain memory, on the test's shard and a loopback port: something for initiators to talk to. Thread: the shard's.
 *
 *	nvme_memory_open(sh, 8u << 20, 512, &m);  ... 127.0.0.1:m->port, NVME_MEMORY_NQN, namespace 1 ...  nvme_memory_close(m);
 */
#ifndef TESTS_UNIT_NVME_MEMORY_H
#define TESTS_UNIT_NVME_MEMORY_H

#include <stdint.h>
#include <sys/queue.h>

#include "dpu/core/io.h"
#include "dpu/core/shard.h"

#define NVME_MEMORY_NQN "nqn.2026-11.test:memory"

struct nvme_memory {
	struct shard *sh;
	uint8_t *bytes;
	uint64_t size_bytes;
	uint16_t port;
	TAILQ_HEAD(, io_req) queued;
	struct task run;
	struct nvme_tcp_target *target;
	struct nvme_tcp_vm *vm;
};

int nvme_memory_open(
	struct shard *sh, uint64_t size_bytes, uint32_t block_bytes, struct nvme_memory **out);
void nvme_memory_close(struct nvme_memory *m);

#endif
