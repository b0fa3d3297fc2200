/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/resv.h"

#include <errno.h>

int nvme_resv_report_parse(const void *data, size_t len_bytes, struct nvme_resv_report *out)
{
	const struct nvme_resv_status *h = data;

	if (len_bytes < sizeof(*h) || h->rtype > NVME_RESV_EXCLUSIVE_ACCESS_AR)
		return -EBADMSG;
	*out = (struct nvme_resv_report){
		.gen = from_le32(h->gen),
		.type = (enum nvme_resv_type)h->rtype,
		.ptpl = h->ptpls & 1,
		.nregistrants = from_le16(h->regctl),
	};
	if (len_bytes < nvme_resv_report_bytes(out->nregistrants))
		return -ENOBUFS;
	out->registrants = (const void *)(h + 1);
	return 0;
}
