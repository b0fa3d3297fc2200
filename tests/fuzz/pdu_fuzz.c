/* SPDX-License-Identifier: BSD-3-Clause */
/* NVMe/TCP PDU headers: byte 0 says who receives and what was agreed, byte 1 alignment and limits; then the bytes of a PDU. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "common/base/util.h"
#include "common/nvme/tcp.h"
#include "dpu/core/crc32c.h"

static void check_pdu(const struct nvme_tcp_link *l, const struct nvme_tcp_pdu *p, size_t size)
{
	uint64_t sum = (uint64_t)p->head_bytes + p->pad_bytes + p->data_bytes + (p->ddgst ? 4 : 0);

	FUZZ_CHECK(p->head_bytes <= size && p->head_bytes <= NVME_TCP_HDR_MAX);
	FUZZ_CHECK(sum == p->plen);
	FUZZ_CHECK(!p->ddgst || (l->ddgst && p->data_bytes));
	if (p->type == NVME_TCP_CAPSULE_CMD)
		FUZZ_CHECK(l->controller && l->ready && p->data_bytes <= l->max_capsule_data);
	if (p->type == NVME_TCP_H2C_DATA || p->type == NVME_TCP_C2H_DATA) {
		FUZZ_CHECK(p->data_bytes && p->data_bytes <= l->max_data);
		FUZZ_CHECK(from_le32(p->data->datal) == p->data_bytes);
		FUZZ_CHECK((uint64_t)from_le32(p->data->datao) + p->data_bytes <= UINT32_MAX);
	}
	if (p->type == NVME_TCP_R2T)
		FUZZ_CHECK(
			(uint64_t)from_le32(p->r2t->r2to) + from_le32(p->r2t->r2tl) <= UINT32_MAX);
}

/* What was accepted comes out the same when it is encoded again. */
static void check_again(
	const struct nvme_tcp_link *l, const struct nvme_tcp_pdu *p, const uint8_t *bytes)
{
	struct nvme_tcp_link peer = *l;
	uint8_t head[NVME_TCP_HEAD_MAX];
	size_t n = 0;

	peer.tx_pda = l->rx_pda;
	switch (p->type) {
	case NVME_TCP_CAPSULE_RESP:
		n = nvme_tcp_put_resp(&peer, head, &p->resp->cqe);
		break;
	case NVME_TCP_CAPSULE_CMD:
		n = nvme_tcp_put_cmd(&peer, head, &p->cmd->sqe, p->data_bytes);
		break;
	default:
		return;
	}
	FUZZ_CHECK(n >= p->head_bytes);
	FUZZ_CHECK(memcmp(head + 8, bytes + 8, p->hdr->hlen - 8u) == 0);
}

static void check_sgl(const struct nvme_tcp_pdu *p)
{
	struct nvme_tcp_sgl sgl;

	if (p->type != NVME_TCP_CAPSULE_CMD)
		return;
	if (nvme_tcp_sgl_parse(&p->cmd->sqe.dptr, p->data_bytes, &sgl) == 0 && sgl.in_capsule)
		FUZZ_CHECK((uint64_t)sgl.offset + sgl.length <= p->data_bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	uint8_t how = eat8(&e), limits = eat8(&e), bytes[160];
	struct nvme_tcp_link link = {.controller = how & 1,
		.ready = how & 2,
		.hdgst = how & 4,
		.ddgst = how & 8,
		.rx_pda = limits & 31,
		.max_capsule_data = limits & 32 ? 8192 : 0,
		.max_data = limits & 64 ? UINT32_MAX : 131072,
		.digest = crc32c};
	struct nvme_tcp_pdu pdu;
	struct nvme_tcp_fault f;
	size_t n = MIN(e.left, sizeof(bytes));
	int rc;

	eat_bytes(&e, bytes, sizeof(bytes));
	if ((how & 16) &&
		bytes[2] <= 128) { /* a digest that fits, so that what lies behind it is reached */
		le32 crc = to_le32(crc32c(bytes, bytes[2]));

		memcpy(bytes + bytes[2], &crc, sizeof(crc));
	}
	rc = nvme_tcp_pdu_parse(&link, bytes, n, &pdu, &f);
	if (rc > 0) {
		FUZZ_CHECK((size_t)rc > n && rc <= NVME_TCP_HDR_MAX);
	} else if (rc < 0) {
		FUZZ_CHECK(rc == -EPROTO && f.what && f.fes <= NVME_TCP_FES_UNSUPPORTED);
		FUZZ_CHECK(nvme_tcp_put_term(&link, bytes, &f, data, size) <= NVME_TCP_TERM_MAX);
	} else {
		check_pdu(&link, &pdu, n);
		check_sgl(&pdu);
		check_again(&link, &pdu, bytes);
	}
	return 0;
}
