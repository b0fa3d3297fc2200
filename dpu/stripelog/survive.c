/* SPDX-License-Identifier: BSD-3-Clause */
/* What the log can lose: every group with something live in it. */
#include "dpu/pool/survive.h"
#include "dpu/stripelog/ledger.h"

/*
 * A stripe has m fragments more than it needs, wherever on its group it lies: so what may be lost of the group's members is m. Where the group was opened on
 * too few devices for that (on-degraded: allow) one must stay.
 */
static void group_add(const struct ledger_group *g, struct pool_survival *s)
{
	unsigned int width = (unsigned int)g->n + g->lost, need = 1;
	uint64_t devs = 0;

	for (unsigned int i = 0; i < g->n; i++)
		devs |= 1ull << AT_DEV(g->members[i].at);
	if (g->k && width > g->m)
		need = width - g->m;
	if (g->thin) /* some stripe has fragments missing, nobody counts how many */
		need = POOL_DEVS_MAX;
	pool_survival_add(s, devs, need);
}

bool stripelog_survival(
	const struct stripelog *log, struct ec_scheme scheme, struct pool_survival *s)
{
	struct ledger_group *g, *tmp;
	bool any = false;

	HASH_ITER(hh, log->ledger, g, tmp)
	{
		/* Records have no live count: they are until a checkpoint makes them needless. */
		if (g->k != scheme.k || (g->k && g->m != scheme.m) || (g->k && !g->live) ||
			g->limbo)
			continue;
		any = true;
		group_add(g, s);
	}
	return any;
}
