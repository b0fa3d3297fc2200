/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe/RDMA (NVM Express RDMA Transport Specification 1.0): private data of the connection manager and the keyed SGL
 * descriptor. Structures only, and the helpers that fill or judge one of them. Thread: any.
 *
 * Capsules are the submission entry (and in-capsule data) in one SEND, responses the completion entry in one SEND.
 */
#ifndef COMMON_NVME_RDMA_H
#define COMMON_NVME_RDMA_H

#include <stdbool.h>

#include "common/nvme/cmd.h"

#define NVME_RDMA_PORT      4420
#define NVME_RDMA_RECFMT    0
#define NVME_RDMA_KEYED_MAX 0xffffffu /* bytes of one keyed descriptor */

/* Connect request, host to controller:
 * offset size field
 *      0    2 recfmt
 *      2    2 qid
 *      4    2 hrqsize  entries of the host's receive queue
 *      6    2 hsqsize  entries of the host's send queue, 0's based: Connect's sqsize
 *      8    2 cntlid   of an I/O queue: its controller
 *     10   22 reserved
 */
struct nvme_rdma_request {
	le16 recfmt;
	le16 qid;
	le16 hrqsize;
	le16 hsqsize;
	le16 cntlid;
	uint8_t rsvd10[22];
};
static_assert(sizeof(struct nvme_rdma_request) == 32, "connect request");
static_assert(offsetof(struct nvme_rdma_request, hsqsize) == 6, "connect request");
static_assert(offsetof(struct nvme_rdma_request, cntlid) == 8, "connect request");

/* Accept, controller to host: 0 recfmt(2), 2 crqsize(2, entries of the controller's receive queue), 4 reserved(28). */
struct nvme_rdma_accept {
	le16 recfmt;
	le16 crqsize;
	uint8_t rsvd4[28];
};
static_assert(sizeof(struct nvme_rdma_accept) == 32, "accept");

/* Reject, controller to host: 0 recfmt(2), 2 sts(2). */
struct nvme_rdma_reject {
	le16 recfmt;
	le16 sts;
};
static_assert(sizeof(struct nvme_rdma_reject) == 4, "reject");

enum nvme_rdma_sts {
	NVME_RDMA_INVALID_LEN = 1, /* private data length */
	NVME_RDMA_INVALID_RECFMT = 2,
	NVME_RDMA_INVALID_QID = 3,
	NVME_RDMA_INVALID_HSQSIZE = 4,
	NVME_RDMA_INVALID_HRQSIZE = 5,
	NVME_RDMA_NO_RESOURCES = 6,
	NVME_RDMA_INVALID_IRD = 7,
	NVME_RDMA_INVALID_ORD = 8,
	NVME_RDMA_INVALID_CNTLID = 9,
};

/* Never NULL. */
const char *nvme_rdma_sts_name(uint16_t sts);

/* Keyed SGL data block descriptor:
 * offset size field
 *      0    8 addr
 *      8    3 length  bytes
 *     11    4 key
 *     15    1 id      NVME_SGL_ID_KEYED, NVME_SGL_ID_KEYED_INV
 */
struct nvme_keyed_sgl {
	le64 addr;
	uint8_t length[3];
	uint8_t key[4];
	uint8_t id;
};
static_assert(sizeof(struct nvme_keyed_sgl) == 16, "keyed SGL descriptor");
static_assert(offsetof(struct nvme_keyed_sgl, key) == 11, "keyed SGL descriptor");

/* Memory of the host under a key; invalidate: the controller ends the key with its response. length_bytes at
 * most NVME_RDMA_KEYED_MAX; 0, 0, 0 is the descriptor of a command without data. */
static inline struct nvme_sgl nvme_sgl_keyed(
	uint64_t addr, uint32_t length_bytes, uint32_t key, bool invalidate)
{
	struct nvme_keyed_sgl k = {.addr = to_le64(addr),
		.id = invalidate ? NVME_SGL_ID_KEYED_INV : NVME_SGL_ID_KEYED};
	le32 len = to_le32(length_bytes), rkey = to_le32(key);
	struct nvme_sgl out;

	memcpy(k.length, &len, sizeof(k.length));
	memcpy(k.key, &rkey, sizeof(k.key));
	memcpy(&out, &k, sizeof(out));
	return out;
}

static inline uint32_t nvme_keyed_length(const struct nvme_keyed_sgl *k)
{
	return k->length[0] | (uint32_t)k->length[1] << 8 | (uint32_t)k->length[2] << 16;
}

static inline uint32_t nvme_keyed_key(const struct nvme_keyed_sgl *k)
{
	le32 key;

	memcpy(&key, k->key, sizeof(key));
	return from_le32(key);
}

/* What a controller accepts with: 0, or -EPROTO where the data is too short or of an unknown format. *crqsize 0: not told. */
int nvme_rdma_accept_parse(const void *data, size_t len, uint16_t *crqsize);
/* enum nvme_rdma_sts of a reject, or 0 where the data is none of NVMe/RDMA. */
uint16_t nvme_rdma_reject_parse(const void *data, size_t len);

#endif
