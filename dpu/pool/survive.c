/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/pool/survive.h"

#include "common/base/util.h"
#include "dpu/pool/ckpt_priv.h"

unsigned int pool_domain_of(const struct pool *p, unsigned int dev)
{
	for (unsigned int i = 0; i < dev; i++)
		if (p->devs[i].state != POOL_DEV_REMOVED &&
			strcmp(p->devs[i].domain, p->devs[dev].domain) == 0)
			return i;
	return dev;
}

void pool_survival_begin(const struct pool *p, uint64_t in_doubt, struct pool_survival *s)
{
	uint64_t by_first[POOL_DEVS_MAX] = {0};

	memset(s, 0, sizeof(*s));
	s->pool = p;
	s->devices = s->nodes = POOL_DEVS_MAX;
	for (unsigned int i = 0; i < p->sb.ndevs; i++) {
		if (!pool_dev_usable(p, i) || in_doubt >> i & 1)
			continue;
		s->good |= 1ull << i;
		by_first[pool_domain_of(p, i)] |= 1ull << i;
	}
	for (unsigned int i = 0; i < p->sb.ndevs; i++)
		if (by_first[i])
			s->node[s->nnodes++] = by_first[i];
}

static unsigned int count(uint64_t devs)
{
	return (unsigned int)__builtin_popcountll(devs);
}

/* Those that hold most go first, while enough is left. */
static unsigned int nodes_to_spare(const struct pool_survival *s, uint64_t devs, unsigned int spare)
{
	uint8_t with[POOL_DEVS_MAX + 1] = {0}; /* nodes by how many devices they have of it */
	unsigned int nodes = 0;

	for (unsigned int i = 0; i < s->nnodes; i++)
		with[count(s->node[i] & devs)]++;
	for (unsigned int n = POOL_DEVS_MAX; n > 0; n--)
		for (; with[n]; with[n]--) {
			if (n > spare)
				return nodes;
			spare -= n;
			nodes++;
		}
	return nodes;
}

void pool_survival_add(struct pool_survival *s, uint64_t devs, unsigned int need)
{
	unsigned int have, spare;

	devs &= s->good;
	have = count(devs);
	spare = have > need ? have - need : 0;
	if (spare < s->devices)
		s->devices = spare;
	if (s->nodes)
		s->nodes = MIN(s->nodes, nodes_to_spare(s, devs, spare));
	for (unsigned int i = 0; i < s->nnodes; i++)
		if (count(s->node[i] & devs) > spare)
			s->fatal |= s->node[i];
}

void pool_survival_merge(struct pool_survival *s, const struct pool_survival *other)
{
	s->devices = MIN(s->devices, other->devices);
	s->nodes = MIN(s->nodes, other->nodes);
	s->fatal |= other->fatal;
}

void pool_survival_meta(struct pool_survival *s)
{
	const struct pool *p = s->pool;
	const struct ckpt_chain *c = &p->ckpt->chain;

	pool_survival_add(s, s->good, p->sb.cfg.scheme.m + 1u);
	for (uint32_t i = 0; c->nparts && i < c->nsets; i++) {
		uint64_t devs = 0;

		for (unsigned int j = 0; j < c->sets[i].n; j++)
			if (c->sets[i].ref[j].dev < POOL_DEVS_MAX)
				devs |= 1ull << c->sets[i].ref[j].dev;
		pool_survival_add(s, devs, 1);
	}
}

void pool_survival_ideal(struct pool_survival *s, struct ec_scheme scheme)
{
	struct pool_room room;
	uint8_t devs[EC_K_MAX + EC_M_MAX];
	unsigned int n = 0;
	uint64_t mask = 0;

	for (unsigned int i = 0; i < POOL_DEVS_MAX; i++) {
		room.free[i] = s->good >> i & 1 && pool_dev_placeable(s->pool, i);
		n += room.free[i];
	}
	n = MIN(n, (unsigned int)scheme.k + scheme.m);
	n = pool_room_place(s->pool, &room, n, POOL_DEV_NONE, devs);
	for (unsigned int i = 0; i < n; i++)
		mask |= 1ull << devs[i];
	/* Fewer devices than k + m: a narrower stripe with all its parity. */
	pool_survival_add(s, mask, n > scheme.m ? n - scheme.m : 1);
}
