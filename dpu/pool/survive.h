/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How many more devices, and how many more nodes (failure domains), a pool may lose right now. What lies on flash is added piece by piece: on which devices
 * it lies, and how many of them it needs; the least of all counts. Devices that are not usable, and those in doubt, hold nothing.
 *
 *	need 4 of   node a: ██   node b: ██   node c: ██      any 2 devices; 1 node (two would take 4 of 6 away)
 *
 * Any n nodes: the n that hold most of a piece are the worst choice, so they are the ones that count.
 *
 * Thread: the pool's shard. Nothing is kept. Errors: none.
 *
 *	pool_survival_begin(p, in_doubt, &s);
 *	pool_survival_meta(&s);
 *	pool_survival_add(&s, devs, need);      of every piece
 *	use(s.devices, s.nodes);
 */
#ifndef DPU_POOL_SURVIVE_H
#define DPU_POOL_SURVIVE_H

#include "dpu/pool/pool.h"

struct pool_survival {
	unsigned int devices, nodes; /* further ones that may be lost, any */
	uint64_t fatal; /* bit per device of a node whose loss alone is too much */
	/* its own */
	const struct pool *pool;
	uint64_t good; /* bit per device that counts */
	unsigned int nnodes; /* of good devices */
	uint64_t node[POOL_DEVS_MAX]; /* bit per device */
};

/* in_doubt: bit per device that is usable, but not known to hold what it should. */
void pool_survival_begin(const struct pool *p, uint64_t in_doubt, struct pool_survival *s);
/* Lies on devs (bit per device), any `need` of them are enough (at least 1). */
void pool_survival_add(struct pool_survival *s, uint64_t devs, unsigned int need);
/* The same; the smaller numbers of both count. */
void pool_survival_merge(struct pool_survival *s, const struct pool_survival *other);
/* Superblocks (m + 1 devices begin an epoch) and the checkpoint (each chunk once). */
void pool_survival_meta(struct pool_survival *s);
/* What a new stripe of k + m would be placed on today, were there room. For pools with nothing on them, and to say what could be. */
void pool_survival_ideal(struct pool_survival *s, struct ec_scheme scheme);

/* The member's domain is where other members are, too: number of the first device with it. */
unsigned int pool_domain_of(const struct pool *p, unsigned int dev);

#endif
