/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Identify structures, log pages, features and asynchronous events with the specification's own names
 * (NVM Express Base 2.0 figures 275, 207-216; NVM Command Set 1.0 figure 97). Fields we never set or
 * read are folded into reserved ranges. Endian-typed, unpadded. Thread: any.
 */
#ifndef COMMON_NVME_IDENTIFY_H
#define COMMON_NVME_IDENTIFY_H

#include "common/nvme/cmd.h"
#include "common/nvme/fabrics.h"

#define NVME_IDENTIFY_SIZE 4096

/* Identify's CNS (cdw10 bits 7:0). */
enum nvme_cns {
	NVME_CNS_NS = 0x00,
	NVME_CNS_CTRL = 0x01,
	NVME_CNS_NS_ACTIVE_LIST = 0x02,
	NVME_CNS_NS_DESC_LIST = 0x03,
	NVME_CNS_CSI_NS = 0x05,
	NVME_CNS_CSI_CTRL = 0x06,
	NVME_CNS_CSI_NS_ACTIVE_LIST = 0x07,
	NVME_CNS_CSI_INDEPENDENT_NS = 0x08,
};

/* Identify controller:
 * offset size field           offset size field
 *      0    2 vid                516    4 nn
 *      2    2 ssvid              520    2 oncs
 *      4   20 sn                 522    2 fuses
 *     24   40 mn                 524    1 fna
 *     64    8 fr                 525    1 vwc
 *     72    1 rab                526    2 awun (0's based, logical blocks)
 *     73    3 ieee               528    2 awupf
 *     76    1 cmic               530    1 icsvscc
 *     77    1 mdts (2^n CAP.MPSMIN pages)   531    1 nwpc
 *     78    2 cntlid             532    2 acwu
 *     80    4 ver                536    4 sgls
 *     92    4 oaes               540    4 mnan
 *     96    4 ctratt             768  256 subnqn
 *    111    1 cntrltype         1792    4 ioccsz (16 byte units, SQE included)
 *    256    2 oacs              1796    4 iorcsz
 *    258    1 acl               1800    2 icdoff
 *    259    1 aerl              1802    1 fcatt
 *    260    1 frmw              1803    1 msdbd
 *    261    1 lpa               1804    2 ofcs
 *    262    1 elpe              2048 1024 psd
 *    263    1 npss              3072 1024 vs
 *    320    2 kas (100 ms)
 *    386    2 cqt (ms)
 *    512    1 sqes, 513 1 cqes, 514 2 maxcmd
 */
struct nvme_id_ctrl {
	le16 vid;
	le16 ssvid;
	char sn[20];
	char mn[40];
	char fr[8];
	uint8_t rab;
	uint8_t ieee[3];
	uint8_t cmic;
	uint8_t mdts;
	le16 cntlid;
	le32 ver;
	le32 rtd3r;
	le32 rtd3e;
	le32 oaes;
	le32 ctratt;
	le16 rrls;
	uint8_t rsvd102[9];
	uint8_t cntrltype;
	uint8_t fguid[16];
	le16 crdt1;
	le16 crdt2;
	le16 crdt3;
	uint8_t rsvd134[122];
	le16 oacs;
	uint8_t acl;
	uint8_t aerl;
	uint8_t frmw;
	uint8_t lpa;
	uint8_t elpe;
	uint8_t npss;
	uint8_t avscc;
	uint8_t apsta;
	le16 wctemp;
	le16 cctemp;
	le16 mtfa;
	le32 hmpre;
	le32 hmmin;
	uint8_t tnvmcap[16];
	uint8_t unvmcap[16];
	le32 rpmbs;
	le16 edstt;
	uint8_t dsto;
	uint8_t fwug;
	le16 kas;
	le16 hctma;
	le16 mntmt;
	le16 mxtmt;
	le32 sanicap;
	le32 hmminds;
	le16 hmmaxd;
	le16 nsetidmax;
	le16 endgidmax;
	uint8_t anatt;
	uint8_t anacap;
	le32 anagrpmax;
	le32 nanagrpid;
	le32 pels;
	le16 domainid;
	uint8_t rsvd358[10];
	uint8_t megcap[16];
	uint8_t rsvd384[2];
	le16 cqt;
	uint8_t rsvd388[124];
	uint8_t sqes;
	uint8_t cqes;
	le16 maxcmd;
	le32 nn;
	le16 oncs;
	le16 fuses;
	uint8_t fna;
	uint8_t vwc;
	le16 awun;
	le16 awupf;
	uint8_t icsvscc;
	uint8_t nwpc;
	le16 acwu;
	le16 ocfs;
	le32 sgls;
	le32 mnan;
	uint8_t rsvd544[224];
	char subnqn[NVME_NQN_FIELD];
	uint8_t rsvd1024[768];
	le32 ioccsz;
	le32 iorcsz;
	le16 icdoff;
	uint8_t fcatt;
	uint8_t msdbd;
	le16 ofcs;
	uint8_t rsvd1806[242];
	uint8_t psd[32][32];
	uint8_t vs[1024];
};
static_assert(sizeof(struct nvme_id_ctrl) == 4096, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, cntrltype) == 111, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, oacs) == 256, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, kas) == 320, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, cqt) == 386, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, sqes) == 512, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, vwc) == 525, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, sgls) == 536, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, subnqn) == 768, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, ioccsz) == 1792, "identify controller");
static_assert(offsetof(struct nvme_id_ctrl, psd) == 2048, "identify controller");

#define NVME_CNTRLTYPE_IO        1
#define NVME_CNTRLTYPE_DISCOVERY 2
#define NVME_OAES_NS_ATTR        (1U << 8)
#define NVME_OAES_DISC_CHANGE    (1U << 31)
#define NVME_CTRATT_HOSTID_EXT   (1U << 0)
#define NVME_CTRATT_TBKAS        (1U << 6)
#define NVME_LPA_EXT_DATA        (1U << 2) /* get log page: extended data */
#define NVME_ONCS_COMPARE        (1U << 0)
#define NVME_ONCS_DSM            (1U << 2)
#define NVME_ONCS_WRITE_ZEROES   (1U << 3)
#define NVME_VWC_PRESENT         (1U << 0)
#define NVME_VWC_NSID_ALL_NO     (2U << 1) /* flush to NSID FFFFFFFFh not supported... */
#define NVME_VWC_NSID_ALL        (3U << 1) /* ...or supported */
#define NVME_SGLS_SUPPORTED      (1U << 0)
#define NVME_SGLS_KEYED          (1U << 2)
#define NVME_SGLS_OFFSET         (1U << 20) /* address field may be an offset: in-capsule data */
#define NVME_SGLS_TRANSPORT      (1U << 21)
#define NVME_FCATT_STATIC        (1U << 0)
#define NVME_OFCS_DISCONNECT     (1U << 0)

/* LBA format: 0 ms(2), 2 ds(1, log2), 3 rp(1). */
struct nvme_lbaf {
	le16 ms;
	uint8_t ds;
	uint8_t rp;
};
static_assert(sizeof(struct nvme_lbaf) == 4, "LBA format");

/* Identify namespace:
 * offset size field               offset size field
 *      0    8 nsze (blocks)           32    1 fpi
 *      8    8 ncap                    33    1 dlfeat
 *     16    8 nuse                    34    2 nawun, 36 nawupf, 38 nacwu, 40 nabsn, 42 nabo,
 *     24    1 nsfeat                           44 nabspf, 46 noiob
 *     25    1 nlbaf (0's based)       48   16 nvmcap
 *     26    1 flbas                   64    2 npwg, 66 npwa, 68 npdg, 70 npda, 72 nows
 *     27    1 mc                      92    4 anagrpid
 *     28    1 dpc                     99    1 nsattr
 *     29    1 dps                    104   16 nguid
 *     30    1 nmic                   120    8 eui64
 *     31    1 rescap                 128  256 lbaf[64]
 */
struct nvme_id_ns {
	le64 nsze;
	le64 ncap;
	le64 nuse;
	uint8_t nsfeat;
	uint8_t nlbaf;
	uint8_t flbas;
	uint8_t mc;
	uint8_t dpc;
	uint8_t dps;
	uint8_t nmic;
	uint8_t rescap;
	uint8_t fpi;
	uint8_t dlfeat;
	le16 nawun;
	le16 nawupf;
	le16 nacwu;
	le16 nabsn;
	le16 nabo;
	le16 nabspf;
	le16 noiob;
	uint8_t nvmcap[16];
	le16 npwg;
	le16 npwa;
	le16 npdg;
	le16 npda;
	le16 nows;
	le16 mssrl;
	le32 mcl;
	uint8_t msrc;
	uint8_t rsvd81[11];
	le32 anagrpid;
	uint8_t rsvd96[3];
	uint8_t nsattr;
	le16 nvmsetid;
	le16 endgid;
	uint8_t nguid[16];
	uint8_t eui64[8];
	struct nvme_lbaf lbaf[64];
	le64 lbstm;
	uint8_t vs[3704];
};
static_assert(sizeof(struct nvme_id_ns) == 4096, "identify namespace");
static_assert(offsetof(struct nvme_id_ns, nguid) == 104, "identify namespace");
static_assert(offsetof(struct nvme_id_ns, lbaf) == 128, "identify namespace");

#define NVME_NSFEAT_THIN        (1U << 0)
#define NVME_NSFEAT_NSABP       (1U << 1) /* nawun, nawupf, nacwu are per namespace */
#define NVME_NSFEAT_OPTPERF     (1U << 4) /* npwg .. nows are valid */
#define NVME_FLBAS_INDEX(flbas) (((flbas)&0xf) | ((flbas) >> 1 & 0x30))
#define NVME_DLFEAT_ZERO        0x01 /* deallocated blocks read as zeros... */
#define NVME_DLFEAT_WZ_DEAC     (1U << 3) /* ...and write zeroes may deallocate */
#define NVME_NSATTR_WRITE_PROT  (1U << 0)

/* Namespace identification descriptor: 0 nidt(1), 1 nidl(1), 2 reserved(2), then nidl bytes. */
struct nvme_ns_id_desc {
	uint8_t nidt;
	uint8_t nidl;
	uint8_t rsvd2[2];
	uint8_t nid[];
};
static_assert(sizeof(struct nvme_ns_id_desc) == 4, "namespace identification descriptor");

#define NVME_NIDT_EUI64 1
#define NVME_NIDT_NGUID 2
#define NVME_NIDT_UUID  3
#define NVME_NIDT_CSI   4

/* ---- log pages ------------------------------------------------------------------- */
enum nvme_log_page {
	NVME_LOG_SUPPORTED = 0x00,
	NVME_LOG_ERROR = 0x01,
	NVME_LOG_SMART = 0x02,
	NVME_LOG_FW_SLOT = 0x03,
	NVME_LOG_CHANGED_NS = 0x04,
	NVME_LOG_CMD_EFFECTS = 0x05,
	NVME_LOG_DISCOVERY = 0x70,
};

/* Get log page: cdw10 lid(7:0), lsp(14:8), rae(15), numdl(31:16); cdw11 numdu(15:0); cdw12/13 offset. */
#define NVME_LOG_RAE (1U << 15)

/* Error log entry: 0 error_count(8), 8 sqid(2), 10 cid(2), 12 status(2), 14 param(2), 16 lba(8),
 * 24 nsid(4), 28 vs(1), 29 trtype(1), 32 cs(8), 40 trtype_spec(2). */
struct nvme_error_log {
	le64 error_count;
	le16 sqid;
	le16 cid;
	le16 status;
	le16 param;
	le64 lba;
	le32 nsid;
	uint8_t vs;
	uint8_t trtype;
	uint8_t rsvd30[2];
	le64 cs;
	le16 trtype_spec;
	uint8_t rsvd42[22];
};
static_assert(sizeof(struct nvme_error_log) == 64, "error log entry");

/* SMART / health: 0 critical_warning(1), 1 temperature(2, kelvin), 3 avail_spare(1),
 * 4 spare_thresh(1), 5 percent_used(1), 32 sixteen-byte counters from data_units_read on. */
#define NVME_SMART_CRIT_SPARE \
	(1U << 0) /* of critical_warning: available spare below its threshold */
#define NVME_SMART_CRIT_RELIABILITY (1U << 2)
#define NVME_SMART_CRIT_READ_ONLY   (1U << 3)
struct nvme_smart_log {
	uint8_t critical_warning;
	le16 temperature;
	uint8_t avail_spare;
	uint8_t spare_thresh;
	uint8_t percent_used;
	uint8_t endu_grp_crit_warn;
	uint8_t rsvd7[25];
	uint8_t data_units_read[16];
	uint8_t data_units_written[16];
	uint8_t host_reads[16];
	uint8_t host_writes[16];
	uint8_t ctrl_busy_time[16];
	uint8_t power_cycles[16];
	uint8_t power_on_hours[16];
	uint8_t unsafe_shutdowns[16];
	uint8_t media_errors[16];
	uint8_t num_err_log_entries[16];
	le32 warning_temp_time;
	le32 critical_comp_time;
	le16 temp_sensor[8];
	uint8_t rsvd216[296];
};
static_assert(sizeof(struct nvme_smart_log) == 512, "SMART log");
static_assert(offsetof(struct nvme_smart_log, data_units_read) == 32, "SMART log");
static_assert(offsetof(struct nvme_smart_log, warning_temp_time) == 192, "SMART log");

/* Firmware slots: 0 afi(1), 8 seven revisions of 8 characters. */
struct nvme_fw_slot_log {
	uint8_t afi;
	uint8_t rsvd1[7];
	char frs[7][8];
	uint8_t rsvd64[448];
};
static_assert(sizeof(struct nvme_fw_slot_log) == 512, "firmware slot log");

/* Commands supported and effects: 256 admin entries, then 256 I/O entries. */
struct nvme_cmd_effects_log {
	le32 acs[256];
	le32 iocs[256];
	uint8_t rsvd2048[2048];
};
static_assert(sizeof(struct nvme_cmd_effects_log) == 4096, "command effects log");

#define NVME_EFFECTS_CSUPP (1U << 0)
#define NVME_EFFECTS_LBCC  (1U << 1)

/* ---- features --------------------------------------------------------------------- */
enum nvme_feature {
	NVME_FEAT_ARBITRATION = 0x01,
	NVME_FEAT_POWER_MGMT = 0x02,
	NVME_FEAT_TEMP_THRESH = 0x04,
	NVME_FEAT_ERROR_RECOVERY = 0x05,
	NVME_FEAT_VOLATILE_WC = 0x06,
	NVME_FEAT_NUM_QUEUES = 0x07,
	NVME_FEAT_WRITE_ATOMIC = 0x0a,
	NVME_FEAT_ASYNC_EVENT = 0x0b,
	NVME_FEAT_KATO = 0x0f,
	NVME_FEAT_HOST_BEHAVIOR = 0x16,
	NVME_FEAT_HOST_ID = 0x81,
};
#define NVME_FEAT_SV (1U << 31) /* set features cdw10: save */

/* ---- asynchronous events ------------------------------------------------------------ */
#define NVME_AER_TYPE(result)      ((uint8_t)((result)&0x7))
#define NVME_AER_INFO(result)      ((uint8_t)((result) >> 8))
#define NVME_AER_LOG(result)       ((uint8_t)((result) >> 16))
#define NVME_AER_TYPE_ERROR        0
#define NVME_AER_TYPE_SMART        1
#define NVME_AER_TYPE_NOTICE       2
#define NVME_AER_SMART_RELIABILITY 0
#define NVME_AER_SMART_SPARE       2
#define NVME_AER_NOTICE_NS_ATTR    0x00
#define NVME_AER_NOTICE_DISC_CHG   0xf0

/* ---- helpers -------------------------------------------------------------------------- */

static inline void nvme_sqe_set_identify(
	struct nvme_sqe *sqe, uint16_t cid, uint32_t nsid, uint8_t cns)
{
	nvme_sqe_init(sqe, NVME_ADMIN_IDENTIFY, cid, nsid);
	sqe->cdw10 = to_le32(cns);
	sqe->dptr = nvme_sgl_transport(NVME_IDENTIFY_SIZE);
}

/* len_bytes and offset are multiples of 4; len_bytes is not 0. */
static inline void nvme_sqe_set_get_log(
	struct nvme_sqe *sqe, uint16_t cid, uint8_t lid, uint64_t offset, uint32_t len_bytes)
{
	uint32_t numd = len_bytes / 4 - 1;

	nvme_sqe_init(sqe, NVME_ADMIN_GET_LOG_PAGE, cid, 0);
	sqe->cdw10 = to_le32(lid | (numd & 0xffff) << 16);
	sqe->cdw11 = to_le32(numd >> 16);
	sqe->cdw12 = to_le32((uint32_t)offset);
	sqe->cdw13 = to_le32((uint32_t)(offset >> 32));
	sqe->dptr = nvme_sgl_transport(len_bytes);
}

static inline uint64_t nvme_sqe_log_len_bytes(const struct nvme_sqe *sqe)
{
	uint64_t numd = (uint64_t)(from_le32(sqe->cdw11) & 0xffff) << 16 |
			from_le32(sqe->cdw10) >> 16;

	return (numd + 1) * 4;
}

static inline uint64_t nvme_sqe_log_offset(const struct nvme_sqe *sqe)
{
	return (uint64_t)from_le32(sqe->cdw13) << 32 | from_le32(sqe->cdw12);
}

#endif
