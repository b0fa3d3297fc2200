/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How many shards the pool has, and which VM is on which: as it is remembered ("shards" of the state directory) and in memory.
 *
 *	offset size field (little endian)
 *	0      4    shards, 1..16
 *	4      4    VMs
 *	8      8*n  for each VM, ascending: its number (4), its shard (4)
 *
 * Thread: one at a time. Errors: 0 or -errno with struct err.
 */
#ifndef DPU_CONTROL_ASSIGN_H
#define DPU_CONTROL_ASSIGN_H

#include "common/base/err.h"
#include "dpu/tables/state.h"

#include <stddef.h>
#include <stdint.h>

#define ASSIGN_SHARDS_MAX 16u
#define ASSIGN_VMS_MAX    65536u

struct assign_vm {
	uint32_t vm, shard;
};

struct assign {
	unsigned int count; /* shards */
	struct assign_vm *vms; /* ascending */
	size_t n;
};

/* The shard, or -ENOENT. */
int assign_find(const struct assign *a, uint32_t vm);
int assign_set(struct assign *a, uint32_t vm, unsigned int shard); /* -ENOMEM, -ENOSPC */
int assign_copy(const struct assign *a, struct assign *out); /* -ENOMEM */
void assign_clear(struct assign *a); /* no VM; count stays */

/* -EUCLEAN, with the reason: not what assign_save() writes. *out is for assign_clear(). */
int assign_decode(const uint8_t *body, size_t len_bytes, struct assign *out, struct err *e);
/* As state_load(): -ENOENT, -EUCLEAN, -EPROTONOSUPPORT. */
int assign_load(struct state_dir *dir, struct assign *out, struct err *e);
int assign_save(struct state_dir *dir, const struct assign *a, struct err *e);

#endif
