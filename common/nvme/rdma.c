/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/rdma.h"

#include <errno.h>

#include "common/base/util.h"

const char *nvme_rdma_sts_name(uint16_t sts)
{
	static const char *const names[] = {
		[NVME_RDMA_INVALID_LEN] = "invalid private data length",
		[NVME_RDMA_INVALID_RECFMT] = "invalid record format",
		[NVME_RDMA_INVALID_QID] = "invalid queue id",
		[NVME_RDMA_INVALID_HSQSIZE] = "invalid send queue size",
		[NVME_RDMA_INVALID_HRQSIZE] = "invalid receive queue size",
		[NVME_RDMA_NO_RESOURCES] = "out of resources",
		[NVME_RDMA_INVALID_IRD] = "invalid number of incoming RDMA reads",
		[NVME_RDMA_INVALID_ORD] = "invalid number of outgoing RDMA reads",
		[NVME_RDMA_INVALID_CNTLID] = "invalid controller id",
	};

	return sts < ARRAY_LEN(names) && names[sts] ? names[sts] : "unknown reason";
}

/* The connection manager pads private data with zeros, so longer is right and shorter is not. */
int nvme_rdma_accept_parse(const void *data, size_t len, uint16_t *crqsize)
{
	struct nvme_rdma_accept a;

	*crqsize = 0;
	if (!data || len < sizeof(a))
		return -EPROTO;
	memcpy(&a, data, sizeof(a));
	if (from_le16(a.recfmt) != NVME_RDMA_RECFMT)
		return -EPROTO;
	*crqsize = from_le16(a.crqsize);
	return 0;
}

uint16_t nvme_rdma_reject_parse(const void *data, size_t len)
{
	struct nvme_rdma_reject r;

	if (!data || len < sizeof(r))
		return 0;
	memcpy(&r, data, sizeof(r));
	return from_le16(r.recfmt) == NVME_RDMA_RECFMT ? from_le16(r.sts) : 0;
}
