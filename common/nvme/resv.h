/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reservations of a namespace (NVM Express Base 2.0, 7.3 to 7.6 and 8.19): hosts register a key with it, one acquires it,
 * and commands of others then end with Reservation Conflict. Structures of the four commands, and a pure decoder of what Reservation
 * Report gives in its extended form (128-bit host identifiers, the only ones there are on fabrics). Thread: any.
 *
 *	nvme_sqe_set_resv_report(&sqe, cid, nsid, sizeof(buf));
 *	rc = nvme_resv_report_parse(buf, sizeof(buf), &r);      -ENOBUFS: ask again with nvme_resv_report_bytes(r.nregistrants)
 *	for (i = 0; i < r.nregistrants; i++) use(from_le64(r.registrants[i].rkey));
 */
#ifndef COMMON_NVME_RESV_H
#define COMMON_NVME_RESV_H

#include <stdbool.h>

#include "common/nvme/cmd.h"

/* cdw10 of the three that change something: action in bits 2:0, IEKEY, then RTYPE in 15:8 or, registering, CPTPL in 31:30. */
#define NVME_RESV_IEKEY         (1U << 3) /* the current key is not compared */
#define NVME_RESV_RTYPE_SHIFT   8
#define NVME_RESV_CPTPL_SHIFT   30
#define NVME_RESV_CPTPL_KEEP    0U
#define NVME_RESV_CPTPL_CLEAR   2U /* lost with power */
#define NVME_RESV_CPTPL_PERSIST 3U
#define NVME_RESV_EDS           (1U << 0) /* report, cdw11: extended data structure */

enum nvme_resv_rega { /* Reservation Register */
	NVME_RESV_REGISTER = 0,
	NVME_RESV_UNREGISTER = 1,
	NVME_RESV_REPLACE = 2,
	NVME_RESV_UNREGISTER_ANY = 1 | NVME_RESV_IEKEY, /* whatever the key was */
	NVME_RESV_REPLACE_ANY = 2 | NVME_RESV_IEKEY,
};

enum nvme_resv_acqa { /* Reservation Acquire */
	NVME_RESV_ACQUIRE = 0,
	NVME_RESV_PREEMPT = 1,
	NVME_RESV_PREEMPT_ABORT = 2, /* and the other's commands are aborted */
};

enum nvme_resv_rela { /* Reservation Release */
	NVME_RESV_RELEASE = 0,
	NVME_RESV_CLEAR = 1, /* all registrations too */
};

enum nvme_resv_type {
	NVME_RESV_NONE = 0,
	NVME_RESV_WRITE_EXCLUSIVE = 1,
	NVME_RESV_EXCLUSIVE_ACCESS = 2,
	NVME_RESV_WRITE_EXCLUSIVE_RO = 3, /* registrants only */
	NVME_RESV_EXCLUSIVE_ACCESS_RO = 4,
	NVME_RESV_WRITE_EXCLUSIVE_AR = 5, /* all registrants hold it */
	NVME_RESV_EXCLUSIVE_ACCESS_AR = 6,
};

/* RESCAP of Identify Namespace: bit t says that type t is there. */
#define NVME_RESCAP_PTPL       (1U << 0)
#define NVME_RESCAP_TYPE(type) (1U << (type))
#define NVME_RESCAP_IEKEY      (1U << 7) /* IEKEY as of 1.3 */

/* Data of register: 0 crkey(8), 8 nrkey(8); acquire: 0 crkey(8), 8 prkey(8); release: 0 crkey(8). */
struct nvme_resv_register {
	le64 crkey;
	le64 nrkey;
};
static_assert(sizeof(struct nvme_resv_register) == 16, "reservation register");

struct nvme_resv_acquire {
	le64 crkey;
	le64 prkey;
};
static_assert(sizeof(struct nvme_resv_acquire) == 16, "reservation acquire");

struct nvme_resv_release {
	le64 crkey;
};
static_assert(sizeof(struct nvme_resv_release) == 8, "reservation release");

/* The extended report: this, then regctl registrants.
 * offset size field
 *      0    4 gen
 *      4    1 rtype
 *      5    2 regctl
 *      7    2 reserved
 *      9    1 ptpls
 *     10   54 reserved
 */
struct nvme_resv_status {
	le32 gen;
	uint8_t rtype;
	le16 regctl;
	uint8_t rsvd7[2];
	uint8_t ptpls;
	uint8_t rsvd10[54];
};
static_assert(sizeof(struct nvme_resv_status) == 64, "reservation status");
static_assert(offsetof(struct nvme_resv_status, regctl) == 5, "reservation status");
static_assert(offsetof(struct nvme_resv_status, ptpls) == 9, "reservation status");

/*
 * offset size field
 *      0    2 cntlid  FFFFh: not known
 *      2    1 rcsts   bit 0: holds the reservation
 *      3    5 reserved
 *      8    8 rkey
 *     16   16 hostid
 *     32   32 reserved
 */
struct nvme_registered_ctrl_ext {
	le16 cntlid;
	uint8_t rcsts;
	uint8_t rsvd3[5];
	le64 rkey;
	uint8_t hostid[16];
	uint8_t rsvd32[32];
};
static_assert(sizeof(struct nvme_registered_ctrl_ext) == 64, "registered controller");
static_assert(offsetof(struct nvme_registered_ctrl_ext, hostid) == 16, "registered controller");

#define NVME_RCSTS_HOLDER (1U << 0)

struct nvme_resv_report {
	uint32_t gen;
	enum nvme_resv_type type;
	bool ptpl;
	uint32_t nregistrants; /* one per controller of a host, or one per host */
	const struct nvme_registered_ctrl_ext *registrants; /* inside the bytes that were parsed */
};

static inline size_t nvme_resv_report_bytes(uint32_t nregistrants)
{
	return sizeof(struct nvme_resv_status) +
	       (size_t)nregistrants * sizeof(struct nvme_registered_ctrl_ext);
}

/* -EBADMSG: no header, or a type there is none of; -ENOBUFS: all but registrants is set, len_bytes end before the last of them. */
int nvme_resv_report_parse(const void *data, size_t len_bytes, struct nvme_resv_report *out);

/* The extended form; len_bytes is a multiple of 4 and not 0. */
static inline void nvme_sqe_set_resv_report(
	struct nvme_sqe *sqe, uint16_t cid, uint32_t nsid, uint32_t len_bytes)
{
	nvme_sqe_init(sqe, NVME_CMD_RESV_REPORT, cid, nsid);
	sqe->cdw10 = to_le32(len_bytes / 4 - 1);
	sqe->cdw11 = to_le32(NVME_RESV_EDS);
	sqe->dptr = nvme_sgl_transport(len_bytes);
}

#endif
