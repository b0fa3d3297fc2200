/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "common/base/util.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

/* CRD = 01b: retry after CRDT1 of Identify; only hosts that asked for it (ACRE) may see it. */
#define RETRY_DELAY_1 0x0800u

/* "Do not retry" where the same command will fail again: the host's multipath and retry logic believe it. */
static const struct {
	uint16_t read, other;
} map[IO_STATUS_COUNT] = {
	[IO_OK] = {NVME_SC_SUCCESS, NVME_SC_SUCCESS},
	[IO_ERR_INVALID] = {NVME_SC_INVALID_FIELD | NVME_SC_DNR,
		NVME_SC_INVALID_FIELD | NVME_SC_DNR},
	[IO_ERR_RANGE] = {NVME_SC_LBA_RANGE | NVME_SC_DNR, NVME_SC_LBA_RANGE | NVME_SC_DNR},
	[IO_ERR_NO_SPACE] = {NVME_SC_CAP_EXCEEDED | NVME_SC_DNR,
		NVME_SC_CAP_EXCEEDED | NVME_SC_DNR},
	[IO_ERR_MEDIA] = {NVME_SC_READ_ERROR | NVME_SC_DNR, NVME_SC_WRITE_FAULT | NVME_SC_DNR},
	[IO_ERR_RETRY] = {NVME_SC_NS_NOT_READY, NVME_SC_NS_NOT_READY},
	[IO_ERR_ABORTED] = {NVME_SC_ABORT_REQ, NVME_SC_ABORT_REQ},
	[IO_ERR_INTERNAL] = {NVME_SC_INTERNAL, NVME_SC_INTERNAL},
};

uint16_t tgt_status(enum io_op op, enum io_status status, bool acre)
{
	uint16_t s;

	if ((size_t)status >= ARRAY_LEN(map))
		status = IO_ERR_INTERNAL;
	s = op == IO_READ ? map[status].read : map[status].other;
	return status == IO_ERR_RETRY && acre ? s | RETRY_DELAY_1 : s;
}

enum io_status tgt_status_of_errno(int err)
{
	switch (-err) {
	case EINVAL:
		return IO_ERR_INVALID;
	case ERANGE:
		return IO_ERR_RANGE;
	case ENOSPC:
		return IO_ERR_NO_SPACE;
	case EIO:
		return IO_ERR_MEDIA;
	case EBUSY:
	case ESHUTDOWN:
		return IO_ERR_RETRY;
	default:
		return IO_ERR_INTERNAL;
	}
}
