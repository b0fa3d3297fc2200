/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Numbers of tasks. Each shard's mover counts its own from 1; outside a number names one task of the card:
 * where there are several shards it is the mover's times TASK_ID_SHARDS plus the shard.
 */
#ifndef DPU_CONTROL_TASK_ID_H
#define DPU_CONTROL_TASK_ID_H

#include <stdint.h>

#define TASK_ID_SHARDS 16u

static inline uint32_t task_id_outside(uint32_t inside, unsigned int shard, unsigned int nshards)
{
	return nshards > 1 ? inside * TASK_ID_SHARDS + shard : inside;
}

/* 0, which is no task's, where it is another shard's. */
static inline uint32_t task_id_inside(uint32_t outside, unsigned int shard, unsigned int nshards)
{
	if (nshards <= 1)
		return outside;
	return outside % TASK_ID_SHARDS == shard ? outside / TASK_ID_SHARDS : 0;
}

/* Of a number that no shard has: any shard. */
static inline unsigned int task_id_shard(uint32_t outside, unsigned int nshards)
{
	unsigned int shard = outside % TASK_ID_SHARDS;

	return nshards > 1 && shard < nshards ? shard : 0;
}

#endif
