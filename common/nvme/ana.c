/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/ana.h"

#include <errno.h>
#include <string.h>

const char *nvme_ana_state_name(enum nvme_ana_state state)
{
	switch (state) {
	case NVME_ANA_OPTIMIZED:
		return "optimized";
	case NVME_ANA_NON_OPTIMIZED:
		return "non-optimized";
	case NVME_ANA_INACCESSIBLE:
		return "inaccessible";
	case NVME_ANA_PERSISTENT_LOSS:
		return "persistent loss";
	case NVME_ANA_CHANGE:
		return "change";
	}
	return "?";
}

static bool state_is_known(uint8_t s)
{
	return (s >= NVME_ANA_OPTIMIZED && s <= NVME_ANA_PERSISTENT_LOSS) || s == NVME_ANA_CHANGE;
}

/* A log in memory has no alignment to speak of: le32 is bytes. */
static bool lists(const le32 *nsids, uint32_t n, uint32_t nsid)
{
	for (uint32_t i = 0; i < n; i++)
		if (from_le32(nsids[i]) == nsid)
			return true;
	return false;
}

int nvme_ana_log_find(const void *log, size_t len_bytes, uint32_t nsid, uint32_t anagrpid,
	enum nvme_ana_state *out)
{
	const uint8_t *p = log;
	const struct nvme_ana_log *h = log;
	size_t at = sizeof(*h);
	int by_list = -1, by_group = -1, state;

	if (len_bytes < sizeof(*h))
		return -EBADMSG;
	for (uint16_t i = 0; i < from_le16(h->ngrps); i++) {
		const struct nvme_ana_group_desc *g = (const void *)(p + at);
		uint32_t n;

		if (len_bytes - at < sizeof(*g))
			return -EBADMSG;
		at += sizeof(*g);
		n = from_le32(g->nnsids);
		if (n > (len_bytes - at) / sizeof(g->nsids[0]))
			return -EBADMSG;
		at += n * sizeof(g->nsids[0]);
		state = g->state & NVME_ANA_STATE_MASK;
		if (by_list < 0 && lists(g->nsids, n, nsid))
			by_list = state;
		if (by_group < 0 && anagrpid && from_le32(g->grpid) == anagrpid)
			by_group = state;
	}
	state = by_list >= 0 ? by_list : by_group;
	if (state < 0)
		return -ENOENT;
	if (!state_is_known((uint8_t)state))
		return -EBADMSG;
	*out = (enum nvme_ana_state)state;
	return 0;
}
