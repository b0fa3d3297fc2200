/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A write is sent again, and ends; its owner writes the same blocks anew; then the target comes to the first command, which it still had
 * from the lost connection, and the blocks are old again. So a range that a ghost may still write to takes no new write until the
 * ghosts are known to be over.
 */
#include "common/base/util.h"
#include "dpu/nvmf/dev_priv.h"

static void prune(struct nvmf_dev *d)
{
	uint64_t now = shard_now_ns(d->sh);

	for (uint32_t i = 0; i < d->nghosts;) {
		if (d->ghosts[i].until_ns <= now)
			d->ghosts[i] = d->ghosts[--d->nghosts];
		else
			i++;
	}
}

void ghost_add(struct nvmf_dev *d, const struct nvmf_dev_io *io, uint64_t until_ns)
{
	if (!dev_io_writes(io))
		return;
	d->quiet_ns = MAX(d->quiet_ns, until_ns);
	if (d->nghosts == d->max_ghosts)
		prune(d);
	if (d->nghosts == d->max_ghosts)
		d->all_until_ns = MAX(d->all_until_ns, until_ns);
	else
		d->ghosts[d->nghosts++] = (struct ghost){
			.lba = io->lba, .nblocks = io->nblocks, .until_ns = until_ns};
}

uint64_t ghost_until(struct nvmf_dev *d, const struct nvmf_dev_io *io)
{
	uint64_t now, until = d->all_until_ns;

	if (!d->quiet_ns || !dev_io_writes(io))
		return 0;
	now = shard_now_ns(d->sh);
	if (d->quiet_ns <= now) {
		d->quiet_ns = d->all_until_ns = 0;
		d->nghosts = 0;
		return 0;
	}
	for (uint32_t i = 0; i < d->nghosts; i++) {
		const struct ghost *g = &d->ghosts[i];

		if (io->lba < g->lba + g->nblocks && g->lba < io->lba + io->nblocks)
			until = MAX(until, g->until_ns);
	}
	return until > now ? until : 0;
}
