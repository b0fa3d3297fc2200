/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe over Fabrics: the fabrics commands, connect data, controller properties and the discovery log,
 * with the names of the NVM Express Base Specification (2.0, chapters 3.1.3, 5.16 and 6). All commands
 * are views of a struct nvme_sqe and have its size. Thread: any.
 *
 *	struct nvme_connect_data data;
 *	nvme_connect_fill(&sqe, &data, &(struct nvme_connect){.qid = 0, .sqsize = 31, ...});
 */
#ifndef COMMON_NVME_FABRICS_H
#define COMMON_NVME_FABRICS_H

#include <stdbool.h>

#include "common/nvme/cmd.h"

#define NVME_NQN_FIELD     256 /* bytes of an NQN field */
#define NVME_NQN_MAX       223 /* characters of an NQN */
#define NVME_DISCOVERY_NQN "nqn.2014-08.org.nvmexpress.discovery"
#define NVME_CNTLID_ANY    0xffff /* dynamic controller model: the subsystem chooses */

enum nvme_fctype {
	NVME_FCTYPE_PROPERTY_SET = 0x00,
	NVME_FCTYPE_CONNECT = 0x01,
	NVME_FCTYPE_PROPERTY_GET = 0x04,
	NVME_FCTYPE_AUTH_SEND = 0x05,
	NVME_FCTYPE_AUTH_RECV = 0x06,
	NVME_FCTYPE_DISCONNECT = 0x08,
};

/* What all fabrics commands share: 0 opcode(1) = 7Fh, 1 flags(1), 2 cid(2), 4 fctype(1), 24 dptr(16). */
struct nvme_fabrics_sqe {
	uint8_t opcode;
	uint8_t flags;
	le16 cid;
	uint8_t fctype;
	uint8_t rsvd5[19];
	struct nvme_sgl dptr;
	uint8_t specific[24];
};
static_assert(sizeof(struct nvme_fabrics_sqe) == 64, "fabrics command");

/* Connect: 40 recfmt(2), 42 qid(2), 44 sqsize(2, 0's based), 46 cattr(1), 48 kato(4, ms). */
struct nvme_connect_sqe {
	uint8_t opcode;
	uint8_t flags;
	le16 cid;
	uint8_t fctype;
	uint8_t rsvd5[19];
	struct nvme_sgl dptr;
	le16 recfmt;
	le16 qid;
	le16 sqsize;
	uint8_t cattr;
	uint8_t rsvd47;
	le32 kato;
	uint8_t rsvd52[12];
};
static_assert(sizeof(struct nvme_connect_sqe) == 64, "connect command");
static_assert(offsetof(struct nvme_connect_sqe, kato) == 48, "connect command");

#define NVME_CONNECT_DISABLE_SQFLOW 0x04 /* cattr: no SQ flow control */

/* Property get and set: 40 attrib(1; bits 2:0 001b: 8 bytes), 44 ofst(4), 48 value(8, set only). */
struct nvme_property_sqe {
	uint8_t opcode;
	uint8_t flags;
	le16 cid;
	uint8_t fctype;
	uint8_t rsvd5[35];
	uint8_t attrib;
	uint8_t rsvd41[3];
	le32 ofst;
	le64 value;
	uint8_t rsvd56[8];
};
static_assert(sizeof(struct nvme_property_sqe) == 64, "property command");
static_assert(offsetof(struct nvme_property_sqe, ofst) == 44, "property command");

#define NVME_PROP_SIZE_MASK 0x07
#define NVME_PROP_4B        0x00
#define NVME_PROP_8B        0x01

/* Disconnect (of one I/O queue): 40 recfmt(2). */
struct nvme_disconnect_sqe {
	uint8_t opcode;
	uint8_t flags;
	le16 cid;
	uint8_t fctype;
	uint8_t rsvd5[35];
	le16 recfmt;
	uint8_t rsvd42[22];
};
static_assert(sizeof(struct nvme_disconnect_sqe) == 64, "disconnect command");

/* Connect's data:
 * offset size field
 *      0   16 hostid
 *     16    2 cntlid
 *     18  238 reserved
 *    256  256 subnqn   zero-terminated
 *    512  256 hostnqn  zero-terminated
 *    768  256 reserved
 */
struct nvme_connect_data {
	uint8_t hostid[16];
	le16 cntlid;
	uint8_t rsvd18[238];
	char subnqn[NVME_NQN_FIELD];
	char hostnqn[NVME_NQN_FIELD];
	uint8_t rsvd768[256];
};
static_assert(sizeof(struct nvme_connect_data) == 1024, "connect data");
static_assert(offsetof(struct nvme_connect_data, subnqn) == 256, "connect data");

/* Connect's result: success: cntlid in bits 15:0, authentication required in 31:16.
 * Connect Invalid Parameters: offset (iattr 1: in the data, 0: in the command). */
#define NVME_CONNECT_RESULT_CNTLID(result) ((uint16_t)(result))
#define NVME_CONNECT_INVALID_SQE(offset)   ((uint32_t)(offset))
#define NVME_CONNECT_INVALID_DATA(offset)  (1U << 16 | (uint32_t)(offset))

/* ---- properties ---------------------------------------------------------------- */
enum nvme_property {
	NVME_PROP_CAP = 0x00, /* 8 bytes */
	NVME_PROP_VS = 0x08, /* 4 */
	NVME_PROP_CC = 0x14, /* 4 */
	NVME_PROP_CSTS = 0x1c, /* 4 */
	NVME_PROP_NSSR = 0x20, /* 4 */
};

#define NVME_VS_2_0 0x00020000U
#define NVME_VS_1_4 0x00010400U

#define NVME_CAP_MQES(cap)   ((uint16_t)((cap)&0xffff)) /* 0's based */
#define NVME_CAP_CQR         (1ULL << 16)
#define NVME_CAP_TO(cap)     ((uint8_t)((cap) >> 24)) /* units of 500 ms */
#define NVME_CAP_TO_SHIFT    24
#define NVME_CAP_CSS_NVM     (1ULL << 37)
#define NVME_CAP_CSS_NONE    (1ULL << 44) /* no I/O command set: discovery controllers */
#define NVME_CAP_MPSMIN(cap) ((uint8_t)((cap) >> 48 & 0xf))

#define NVME_CC_EN            (1U << 0)
#define NVME_CC_CSS_SHIFT     4
#define NVME_CC_MPS_SHIFT     7
#define NVME_CC_AMS_SHIFT     11
#define NVME_CC_SHN_MASK      (3U << 14)
#define NVME_CC_SHN_NORMAL    (1U << 14)
#define NVME_CC_SHN_ABRUPT    (2U << 14)
#define NVME_CC_IOSQES_SHIFT  16
#define NVME_CC_IOCQES_SHIFT  20
#define NVME_CSTS_RDY         (1U << 0)
#define NVME_CSTS_CFS         (1U << 1)
#define NVME_CSTS_SHST_MASK   (3U << 2)
#define NVME_CSTS_SHST_OCCURS (1U << 2)
#define NVME_CSTS_SHST_DONE   (2U << 2)

/* ---- discovery log (log page 70h) ------------------------------------------------
 * header: 0 genctr(8), 8 numrec(8), 16 recfmt(2), 18 reserved(1006); records of 1024 bytes follow
 */
struct nvme_discovery_header {
	le64 genctr;
	le64 numrec;
	le16 recfmt;
	uint8_t rsvd18[1006];
};
static_assert(sizeof(struct nvme_discovery_header) == 1024, "discovery log header");

/*
 * offset size field
 *      0    1 trtype   1 RDMA, 3 TCP
 *      1    1 adrfam   1 IPv4, 2 IPv6
 *      2    1 subtype  1 referral, 2 NVM subsystem, 3 this discovery subsystem
 *      3    1 treq
 *      4    2 portid
 *      6    2 cntlid   FFFFh: dynamic
 *      8    2 asqsz
 *     10    2 eflags
 *     32   32 trsvcid  decimal port, space padded ASCII
 *    256  256 subnqn
 *    512  256 traddr   space padded ASCII
 *    768  256 tsas     TCP: byte 0 is sectype (0: no TLS)
 */
struct nvme_discovery_record {
	uint8_t trtype;
	uint8_t adrfam;
	uint8_t subtype;
	uint8_t treq;
	le16 portid;
	le16 cntlid;
	le16 asqsz;
	le16 eflags;
	uint8_t rsvd12[20];
	char trsvcid[32];
	uint8_t rsvd64[192];
	char subnqn[NVME_NQN_FIELD];
	char traddr[256];
	uint8_t tsas[256];
};
static_assert(sizeof(struct nvme_discovery_record) == 1024, "discovery log record");
static_assert(offsetof(struct nvme_discovery_record, subnqn) == 256, "discovery log record");

#define NVME_TRTYPE_RDMA           1
#define NVME_TRTYPE_TCP            3
#define NVME_ADRFAM_IPV4           1
#define NVME_ADRFAM_IPV6           2
#define NVME_DISC_SUBTYPE_REFERRAL 1
#define NVME_DISC_SUBTYPE_NVM      2
#define NVME_DISC_SUBTYPE_SELF     3
#define NVME_DISC_TREQ_NO_SECURE   2 /* secure channel not required... */
#define NVME_DISC_TREQ_NO_SQFLOW   4 /* ...SQ flow control may be disabled */

/* ---- helpers --------------------------------------------------------------------- */

struct nvme_connect {
	uint16_t cid;
	uint16_t qid;
	uint16_t sqsize; /* 0's based */
	uint16_t cntlid; /* NVME_CNTLID_ANY on the admin queue */
	uint32_t kato_ms;
	bool no_sqflow;
	const uint8_t *hostid; /* 16 bytes */
	const char *subnqn; /* at most NVME_NQN_MAX characters; longer ones are -EINVAL */
	const char *hostnqn;
};

/* Fills command and data (in-capsule, offset 0). 0 or -EINVAL. */
int nvme_connect_fill(
	struct nvme_sqe *sqe, struct nvme_connect_data *data, const struct nvme_connect *c);

/* Property get / set; size_bytes is 4 or 8. */
void nvme_property_get_fill(struct nvme_sqe *sqe, uint16_t cid, uint32_t offset, int size_bytes);
void nvme_property_set_fill(
	struct nvme_sqe *sqe, uint16_t cid, uint32_t offset, int size_bytes, uint64_t value);

/* True where field (NVME_NQN_FIELD bytes from a wire) holds a terminated, non-empty NQN of at most
 * NVME_NQN_MAX characters that begins with "nqn.". */
bool nvme_nqn_field_ok(const char *field);

/* True where text is such an NQN. */
bool nvme_nqn_ok(const char *text);

/* Copies text into a space padded ASCII field of n bytes; longer text is cut. */
void nvme_ascii_fill(char *field, size_t n, const char *text);

/* Copies a space padded (or zero-terminated) field of n bytes into out (n + 1 bytes), trimmed, with
 * anything unprintable replaced by '?'. Returns out. */
char *nvme_ascii_text(const char *field, size_t n, char *out);

#endif
