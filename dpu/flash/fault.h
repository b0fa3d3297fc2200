/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fault: a flash device that misbehaves as told, stacked on another. Opened by address "fault:INNER" or over an open device.
 * Random choices come from the shard's seed. Thread: the shard's.
 *
 * Power loss: with volatile_cache set, writes since the last flush are kept aside; fault_power_cut() drops a random subset of
 * them, tears some at 512 bytes, and fails whatever is in flight with FLASH_ERR_GONE without telling its owner until
 * the device is closed. fault_process_kill() keeps everything that completed.
 */
#ifndef DPU_FLASH_FAULT_H
#define DPU_FLASH_FAULT_H

#include "dpu/flash/flash.h"

struct fault_rule {
	enum flash_op op; /* of this operation ... */
	bool any_op; /* ... or of any */
	uint64_t off, len; /* touching this range; len 0: anywhere */
	uint32_t per_million; /* chance */
	uint32_t skip,
		count; /* let the first `skip` matches pass, then hit `count` (0: for ever) */
	enum flash_status status; /* end with this (FLASH_OK: only the delay) */
	uint64_t delay_ns; /* before completion; UINT64_MAX: hangs until fault_release() */
	bool corrupt; /* reads: flip a bit; writes: store one flipped bit */
};

/* Takes over inner (closed with it). */
int fault_open(struct shard *sh, struct flash *inner, bool volatile_cache, struct flash **out);
int fault_rule_add(struct flash *f, const struct fault_rule *rule); /* returns its number */
void fault_rules_clear(struct flash *f);
void fault_set_gone(struct flash *f, bool gone); /* disappears; comes back as it was */
void fault_release(struct flash *f); /* lets hanging I/O complete */
void fault_power_cut(struct flash *f);
struct flash *fault_inner(struct flash *f);

#endif
