/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe submission and completion entries, SGL descriptors, opcodes and status codes, with the names of
 * the NVM Express Base and NVM Command Set Specifications (2.0). Structures only, plus the few helpers
 * that fill or take apart one entry. Everything on the wire is endian-typed and unpadded. Thread: any.
 *
 *	struct nvme_sqe sqe;
 *	nvme_sqe_set_rw(&sqe, NVME_CMD_WRITE, cid, nsid, slba, nlb, NVME_RW_FUA);
 *	sqe.dptr = nvme_sgl_in_capsule(0, nbytes);
 *
 * A status is kept as one uint16_t: SC in bits 7:0, SCT in 10:8, NVME_SC_MORE, NVME_SC_DNR; that is the
 * completion's status field without the phase bit.
 */
#ifndef COMMON_NVME_CMD_H
#define COMMON_NVME_CMD_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/base/endian.h"

/* ---- SGL descriptor ---------------------------------------------------------
 * offset size field
 *      0    8 addr    in capsule: offset into the data behind the command; transport: 0
 *      8    4 length  bytes
 *     12    3 reserved
 *     15    1 id      type in bits 7:4, subtype in 3:0
 */
struct nvme_sgl {
	le64 addr;
	le32 length;
	uint8_t rsvd12[3];
	uint8_t id;
};
static_assert(sizeof(struct nvme_sgl) == 16, "SGL descriptor");

#define NVME_SGL_ID_DATA_ADDRESS 0x00 /* data block, address: not valid on fabrics */
#define NVME_SGL_ID_DATA_OFFSET  0x01 /* data block, offset: in-capsule data */
#define NVME_SGL_ID_TRANSPORT    0x5a /* transport data block: data moves in data PDUs */
#define NVME_SGL_ID_KEYED        0x40 /* keyed data block, address (RDMA) */
#define NVME_SGL_ID_KEYED_INV    0x4f /* keyed data block, invalidate key (RDMA) */

/* ---- submission queue entry --------------------------------------------------
 * offset size field
 *      0    1 opcode
 *      1    1 flags   FUSE in bits 1:0, PSDT in 7:6 (01b: SGL)
 *      2    2 cid
 *      4    4 nsid
 *      8    8 cdw2, cdw3
 *     16    8 mptr
 *     24   16 dptr    the SGL descriptor
 *     40   24 cdw10 .. cdw15
 */
struct nvme_sqe {
	uint8_t opcode;
	uint8_t flags;
	le16 cid;
	le32 nsid;
	le32 cdw2;
	le32 cdw3;
	le64 mptr;
	struct nvme_sgl dptr;
	le32 cdw10;
	le32 cdw11;
	le32 cdw12;
	le32 cdw13;
	le32 cdw14;
	le32 cdw15;
};
static_assert(sizeof(struct nvme_sqe) == 64, "submission entry");
static_assert(offsetof(struct nvme_sqe, dptr) == 24, "submission entry");
static_assert(offsetof(struct nvme_sqe, cdw10) == 40, "submission entry");

#define NVME_SQE_FUSE_MASK 0x03
#define NVME_SQE_PSDT_MASK 0xc0
#define NVME_SQE_PSDT_SGL  0x40

/* ---- completion queue entry --------------------------------------------------
 * offset size field
 *      0    8 result  command specific (dw0, dw1)
 *      8    2 sqhd
 *     10    2 sqid    reserved on fabrics
 *     12    2 cid
 *     14    2 status  phase in bit 0 (reserved on fabrics), status field in 15:1
 */
struct nvme_cqe {
	le64 result;
	le16 sqhd;
	le16 sqid;
	le16 cid;
	le16 status;
};
static_assert(sizeof(struct nvme_cqe) == 16, "completion entry");
static_assert(offsetof(struct nvme_cqe, cid) == 12, "completion entry");

enum nvme_admin_opcode {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
	NVME_ADMIN_NS_MANAGEMENT = 0x0d,
	NVME_ADMIN_KEEP_ALIVE = 0x18,
	NVME_OPC_FABRICS = 0x7f,
};

enum nvme_cmd_opcode {
	NVME_CMD_FLUSH = 0x00,
	NVME_CMD_WRITE = 0x01,
	NVME_CMD_READ = 0x02,
	NVME_CMD_WRITE_UNCORRECTABLE = 0x04,
	NVME_CMD_COMPARE = 0x05,
	NVME_CMD_WRITE_ZEROES = 0x08,
	NVME_CMD_DSM = 0x09,
	NVME_CMD_VERIFY = 0x0c,
	NVME_CMD_RESV_REGISTER = 0x0d,
	NVME_CMD_RESV_REPORT = 0x0e,
	NVME_CMD_RESV_ACQUIRE = 0x11,
	NVME_CMD_RESV_RELEASE = 0x15,
};

/* Bits 1:0 of an opcode tell how data moves. */
#define NVME_OPC_DATA_OUT 0x1 /* host to controller */
#define NVME_OPC_DATA_IN  0x2 /* controller to host */

/* cdw12 of read, write and write zeroes */
#define NVME_RW_NLB_MASK    0x0000ffffU /* 0's based */
#define NVME_RW_DEAC        (1U << 25) /* write zeroes: deallocate */
#define NVME_RW_PRINFO_MASK (0xfU << 26)
#define NVME_RW_FUA         (1U << 30)
#define NVME_RW_LR          (1U << 31)

#define NVME_DSM_NR_MASK    0xffU /* cdw10: number of ranges, 0's based */
#define NVME_DSM_IDR        (1U << 0)
#define NVME_DSM_IDW        (1U << 1)
#define NVME_DSM_AD         (1U << 2) /* cdw11: deallocate */
#define NVME_DSM_MAX_RANGES 256

/* One range of dataset management: 0 cattr(4), 4 nlb(4, not 0's based), 8 slba(8). */
struct nvme_dsm_range {
	le32 cattr;
	le32 nlb;
	le64 slba;
};
static_assert(sizeof(struct nvme_dsm_range) == 16, "dataset management range");

#define NVME_NSID_ALL 0xffffffffU

/* ---- status ------------------------------------------------------------------ */
#define NVME_SC_CODE(status) ((status)&0x7ffU) /* SCT and SC without MORE, DNR, CRD */
#define NVME_SC_MORE         0x2000U
#define NVME_SC_DNR          0x4000U

enum nvme_status {
	/* generic (SCT 0) */
	NVME_SC_SUCCESS = 0x000,
	NVME_SC_INVALID_OPCODE = 0x001,
	NVME_SC_INVALID_FIELD = 0x002,
	NVME_SC_CMDID_CONFLICT = 0x003,
	NVME_SC_DATA_XFER_ERROR = 0x004,
	NVME_SC_POWER_LOSS = 0x005,
	NVME_SC_INTERNAL = 0x006,
	NVME_SC_ABORT_REQ = 0x007,
	NVME_SC_ABORT_QUEUE = 0x008,
	NVME_SC_FUSED_FAIL = 0x009,
	NVME_SC_FUSED_MISSING = 0x00a,
	NVME_SC_INVALID_NS = 0x00b,
	NVME_SC_CMD_SEQ_ERROR = 0x00c,
	NVME_SC_SGL_INVALID_LAST = 0x00d,
	NVME_SC_SGL_INVALID_COUNT = 0x00e,
	NVME_SC_SGL_INVALID_DATA = 0x00f,
	NVME_SC_SGL_INVALID_TYPE = 0x011,
	NVME_SC_SGL_INVALID_OFFSET = 0x016,
	NVME_SC_HOSTID_INCONSISTENT = 0x018,
	NVME_SC_KA_TIMEOUT_EXPIRED = 0x019,
	NVME_SC_KA_TIMEOUT_INVALID = 0x01a,
	NVME_SC_NS_WRITE_PROTECTED = 0x020,
	NVME_SC_CMD_INTERRUPTED = 0x021,
	NVME_SC_TRANSIENT_TRANSPORT = 0x022,
	NVME_SC_LBA_RANGE = 0x080,
	NVME_SC_CAP_EXCEEDED = 0x081,
	NVME_SC_NS_NOT_READY = 0x082,
	NVME_SC_RESERVATION_CONFLICT = 0x083,
	/* command specific (SCT 1) */
	NVME_SC_QID_INVALID = 0x101,
	NVME_SC_QUEUE_SIZE = 0x102,
	NVME_SC_ABORT_LIMIT = 0x103,
	NVME_SC_ASYNC_LIMIT = 0x105,
	NVME_SC_INVALID_LOG_PAGE = 0x109,
	NVME_SC_FEATURE_NOT_SAVEABLE = 0x10d,
	NVME_SC_FEATURE_NOT_CHANGEABLE = 0x10e,
	NVME_SC_FEATURE_NOT_PER_NS = 0x10f,
	NVME_SC_CONNECT_FORMAT = 0x180,
	NVME_SC_CONNECT_CTRL_BUSY = 0x181,
	NVME_SC_CONNECT_INVALID_PARAM = 0x182,
	NVME_SC_CONNECT_RESTART_DISC = 0x183,
	NVME_SC_CONNECT_INVALID_HOST = 0x184,
	NVME_SC_DISCOVERY_RESTART = 0x190,
	NVME_SC_AUTH_REQUIRED = 0x191,
	/* media and data integrity (SCT 2) */
	NVME_SC_WRITE_FAULT = 0x280,
	NVME_SC_READ_ERROR = 0x281,
	NVME_SC_GUARD_CHECK = 0x282,
	NVME_SC_COMPARE_FAILED = 0x285,
	NVME_SC_ACCESS_DENIED = 0x286,
	/* path (SCT 3) */
	NVME_SC_PATH_INTERNAL = 0x300,
	NVME_SC_ANA_PERSISTENT_LOSS = 0x301,
	NVME_SC_ANA_INACCESSIBLE = 0x302,
	NVME_SC_ANA_TRANSITION = 0x303,
	NVME_SC_PATH_CTRL_ERROR = 0x360,
	NVME_SC_PATH_HOST_ERROR = 0x370,
	NVME_SC_PATH_HOST_ABORTED = 0x371,
};

/* "LBA Out of Range" and the like; "status 0x3a" style numbers are the caller's to add. Never NULL. */
const char *nvme_status_name(uint16_t status);

/* ---- helpers ------------------------------------------------------------------ */

/* Data behind the command in its capsule, offset bytes in. */
static inline struct nvme_sgl nvme_sgl_in_capsule(uint64_t offset, uint32_t length_bytes)
{
	return (struct nvme_sgl){.addr = to_le64(offset),
		.length = to_le32(length_bytes),
		.id = NVME_SGL_ID_DATA_OFFSET};
}

/* Data that the transport moves: data PDUs on TCP. */
static inline struct nvme_sgl nvme_sgl_transport(uint32_t length_bytes)
{
	return (struct nvme_sgl){.length = to_le32(length_bytes), .id = NVME_SGL_ID_TRANSPORT};
}

/* Clears *sqe and sets what every command on fabrics has. */
static inline void nvme_sqe_init(struct nvme_sqe *sqe, uint8_t opcode, uint16_t cid, uint32_t nsid)
{
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = opcode;
	sqe->flags = NVME_SQE_PSDT_SGL;
	sqe->cid = to_le16(cid);
	sqe->nsid = to_le32(nsid);
	sqe->dptr.id = NVME_SGL_ID_TRANSPORT;
}

/* Read, write, compare, write zeroes: nlb is 1..65536 blocks, flags are NVME_RW_* of cdw12. */
static inline void nvme_sqe_set_rw(struct nvme_sqe *sqe, uint8_t opcode, uint16_t cid,
	uint32_t nsid, uint64_t slba, uint32_t nlb, uint32_t flags)
{
	nvme_sqe_init(sqe, opcode, cid, nsid);
	sqe->cdw10 = to_le32((uint32_t)slba);
	sqe->cdw11 = to_le32((uint32_t)(slba >> 32));
	sqe->cdw12 = to_le32(((nlb - 1) & NVME_RW_NLB_MASK) | flags);
}

static inline uint64_t nvme_sqe_slba(const struct nvme_sqe *sqe)
{
	return (uint64_t)from_le32(sqe->cdw11) << 32 | from_le32(sqe->cdw10);
}

/* 1..65536 */
static inline uint32_t nvme_sqe_nlb(const struct nvme_sqe *sqe)
{
	return (from_le32(sqe->cdw12) & NVME_RW_NLB_MASK) + 1;
}

static inline void nvme_cqe_set(
	struct nvme_cqe *cqe, uint16_t cid, uint16_t status, uint64_t result, uint16_t sqhd)
{
	memset(cqe, 0, sizeof(*cqe));
	cqe->result = to_le64(result);
	cqe->sqhd = to_le16(sqhd);
	cqe->cid = to_le16(cid);
	cqe->status = to_le16((uint16_t)(status << 1));
}

static inline uint16_t nvme_cqe_status(const struct nvme_cqe *cqe)
{
	return from_le16(cqe->status) >> 1;
}

#endif
