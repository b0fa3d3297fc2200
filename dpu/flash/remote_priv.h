/* SPDX-License-Identifier: BSD-3-Clause */
/* Namespaces on peers: who of this process uses which (remote_set.c). Inside dpu/flash, below remote.c. */
#ifndef DPU_FLASH_REMOTE_PRIV_H
#define DPU_FLASH_REMOTE_PRIV_H

#include "common/nvme/address.h"
#include "dpu/flash/flash_priv.h"
#include "dpu/nvmf/dev.h"

/* One per open device. What a closed one leaves behind is the set's own. Any thread. */
struct remote_use {
	char subnqn[NVME_NQN_FIELD];
	uint32_t nsid;
	bool exclusive;
	struct slice slice;
	LIST_ENTRY(remote_use) link;
};

/* Before the size is known. -EBUSY: another exclusive owner has it, or a slice of it that clashes with this one, or writes of an earlier opening may still be carried out (waits shortly for these to end). */
int remote_use_begin(struct shard *sh, struct remote_use *u, const char *where, struct err *err);
/* Now it is. -EBUSY: it is open in slices of another size; -EINVAL, -EUCLEAN: as slice_settle(). */
int remote_use_settle(
	struct remote_use *u, const char *where, uint64_t size_bytes, struct err *err);
/* ghosts_ns: for how long its writes may still be carried out. */
void remote_use_end(struct remote_use *u, uint64_t ghosts_ns);

/* Connecting to a namespace as a flash does it. transport: "tcp", "rdma". */
int remote_connect(struct shard *sh, const char *transport, const struct nvme_address *a,
	const struct flash_opts *opts, struct nvmf_dev **out, struct err *err);

/* ---- connections begun before they are wanted: of a shard's own thread each ---- */
void remote_warm(
	struct shard *sh, const char *transport, const char *where, const struct flash_opts *opts);
bool remote_is_warm(struct shard *sh, const char *transport, const char *where);
/* NULL: it was not warmed. *since_ns: when that was. */
struct nvmf_dev *remote_warm_take(
	struct shard *sh, const char *transport, const char *where, uint64_t *since_ns);
void remote_cool(struct shard *sh);

#endif
