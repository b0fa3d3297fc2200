/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Facts about NVMe structures that our headers and libnvme's both state, under the same names: sizes, offsets, codes. Each of two files
 * makes an array of them with its own headers; nvme_layout_test.c holds one against the other.
 */
#ifndef TESTS_UNIT_NVME_LAYOUT_H
#define TESTS_UNIT_NVME_LAYOUT_H

#include <stddef.h>

struct layout_fact {
	const char *what;
	size_t value;
};

extern const struct layout_fact layout_of_libnvme[];
extern const size_t layout_of_libnvme_count;

/* clang-format off */
#define LAYOUT_SIZE(type)       {"sizeof " #type, sizeof(struct type)}
#define LAYOUT_AT(type, member) {#type "." #member, offsetof(struct type, member)}
#define LAYOUT_CODE(name)       {#name, name}
#define LAYOUT_SC(name)         {#name, (name) & 0xff} /* libnvme keeps the type apart */

#define LAYOUT_FACTS \
	LAYOUT_SIZE(nvme_id_ctrl), LAYOUT_AT(nvme_id_ctrl, sn), LAYOUT_AT(nvme_id_ctrl, mn), \
	LAYOUT_AT(nvme_id_ctrl, fr), LAYOUT_AT(nvme_id_ctrl, mdts), LAYOUT_AT(nvme_id_ctrl, cntlid), \
	LAYOUT_AT(nvme_id_ctrl, ver), LAYOUT_AT(nvme_id_ctrl, oaes), LAYOUT_AT(nvme_id_ctrl, ctratt), \
	LAYOUT_AT(nvme_id_ctrl, cntrltype), LAYOUT_AT(nvme_id_ctrl, crdt1), LAYOUT_AT(nvme_id_ctrl, oacs), \
	LAYOUT_AT(nvme_id_ctrl, acl), LAYOUT_AT(nvme_id_ctrl, aerl), LAYOUT_AT(nvme_id_ctrl, frmw), \
	LAYOUT_AT(nvme_id_ctrl, lpa), LAYOUT_AT(nvme_id_ctrl, elpe), LAYOUT_AT(nvme_id_ctrl, wctemp), \
	LAYOUT_AT(nvme_id_ctrl, tnvmcap), LAYOUT_AT(nvme_id_ctrl, kas), LAYOUT_AT(nvme_id_ctrl, sanicap), \
	LAYOUT_AT(nvme_id_ctrl, anagrpmax), LAYOUT_AT(nvme_id_ctrl, megcap), LAYOUT_AT(nvme_id_ctrl, sqes), \
	LAYOUT_AT(nvme_id_ctrl, cqes), LAYOUT_AT(nvme_id_ctrl, maxcmd), LAYOUT_AT(nvme_id_ctrl, nn), \
	LAYOUT_AT(nvme_id_ctrl, oncs), LAYOUT_AT(nvme_id_ctrl, fna), LAYOUT_AT(nvme_id_ctrl, vwc), \
	LAYOUT_AT(nvme_id_ctrl, awun), LAYOUT_AT(nvme_id_ctrl, awupf), LAYOUT_AT(nvme_id_ctrl, sgls), \
	LAYOUT_AT(nvme_id_ctrl, mnan), LAYOUT_AT(nvme_id_ctrl, subnqn), LAYOUT_AT(nvme_id_ctrl, ioccsz), \
	LAYOUT_AT(nvme_id_ctrl, iorcsz), LAYOUT_AT(nvme_id_ctrl, icdoff), LAYOUT_AT(nvme_id_ctrl, msdbd), \
	LAYOUT_AT(nvme_id_ctrl, ofcs), LAYOUT_AT(nvme_id_ctrl, psd), LAYOUT_AT(nvme_id_ctrl, vs), \
	LAYOUT_SIZE(nvme_id_ns), LAYOUT_AT(nvme_id_ns, ncap), LAYOUT_AT(nvme_id_ns, nsfeat), \
	LAYOUT_AT(nvme_id_ns, nlbaf), LAYOUT_AT(nvme_id_ns, flbas), LAYOUT_AT(nvme_id_ns, nmic), \
	LAYOUT_AT(nvme_id_ns, dlfeat), LAYOUT_AT(nvme_id_ns, nawun), LAYOUT_AT(nvme_id_ns, nawupf), \
	LAYOUT_AT(nvme_id_ns, noiob), LAYOUT_AT(nvme_id_ns, nvmcap), LAYOUT_AT(nvme_id_ns, npwg), \
	LAYOUT_AT(nvme_id_ns, nows), LAYOUT_AT(nvme_id_ns, mssrl), LAYOUT_AT(nvme_id_ns, mcl), \
	LAYOUT_AT(nvme_id_ns, anagrpid), LAYOUT_AT(nvme_id_ns, nsattr), LAYOUT_AT(nvme_id_ns, nguid), \
	LAYOUT_AT(nvme_id_ns, eui64), LAYOUT_AT(nvme_id_ns, lbaf), LAYOUT_AT(nvme_id_ns, vs), \
	LAYOUT_SIZE(nvme_lbaf), LAYOUT_AT(nvme_lbaf, ds), LAYOUT_AT(nvme_lbaf, rp), \
	LAYOUT_SIZE(nvme_ns_id_desc), LAYOUT_AT(nvme_ns_id_desc, nid), \
	LAYOUT_SIZE(nvme_dsm_range), LAYOUT_AT(nvme_dsm_range, nlb), LAYOUT_AT(nvme_dsm_range, slba), \
	LAYOUT_SIZE(nvme_smart_log), LAYOUT_AT(nvme_smart_log, temperature), \
	LAYOUT_AT(nvme_smart_log, percent_used), LAYOUT_AT(nvme_smart_log, data_units_read), \
	LAYOUT_AT(nvme_smart_log, host_writes), LAYOUT_AT(nvme_smart_log, media_errors), \
	LAYOUT_AT(nvme_smart_log, num_err_log_entries), LAYOUT_AT(nvme_smart_log, temp_sensor), \
	LAYOUT_SIZE(nvme_error_log), LAYOUT_AT(nvme_error_log, sqid), LAYOUT_AT(nvme_error_log, lba), \
	LAYOUT_AT(nvme_error_log, nsid), LAYOUT_AT(nvme_error_log, trtype), LAYOUT_AT(nvme_error_log, cs), \
	LAYOUT_SIZE(nvme_fw_slot_log), LAYOUT_AT(nvme_fw_slot_log, frs), \
	LAYOUT_SIZE(nvme_cmd_effects_log), LAYOUT_AT(nvme_cmd_effects_log, iocs), \
	LAYOUT_AT(nvme_id_ctrl, cmic), LAYOUT_AT(nvme_id_ctrl, anatt), LAYOUT_AT(nvme_id_ctrl, anacap), \
	LAYOUT_AT(nvme_id_ctrl, nanagrpid), LAYOUT_AT(nvme_id_ns, rescap), \
	LAYOUT_SIZE(nvme_ana_log), LAYOUT_AT(nvme_ana_log, ngrps), \
	LAYOUT_SIZE(nvme_ana_group_desc), LAYOUT_AT(nvme_ana_group_desc, nnsids), \
	LAYOUT_AT(nvme_ana_group_desc, state), LAYOUT_AT(nvme_ana_group_desc, nsids), \
	LAYOUT_SIZE(nvme_resv_status), LAYOUT_AT(nvme_resv_status, rtype), LAYOUT_AT(nvme_resv_status, regctl), \
	LAYOUT_AT(nvme_resv_status, ptpls), \
	LAYOUT_SIZE(nvme_registered_ctrl_ext), LAYOUT_AT(nvme_registered_ctrl_ext, rcsts), \
	LAYOUT_AT(nvme_registered_ctrl_ext, rkey), LAYOUT_AT(nvme_registered_ctrl_ext, hostid), \
	LAYOUT_CODE(NVME_ANA_OPTIMIZED), LAYOUT_CODE(NVME_ANA_NON_OPTIMIZED), LAYOUT_CODE(NVME_ANA_INACCESSIBLE), \
	LAYOUT_CODE(NVME_ANA_PERSISTENT_LOSS), LAYOUT_CODE(NVME_ANA_CHANGE), LAYOUT_CODE(NVME_LOG_ANA), \
	LAYOUT_CODE(NVME_CMD_RESV_REGISTER), LAYOUT_CODE(NVME_CMD_RESV_REPORT), LAYOUT_CODE(NVME_CMD_RESV_ACQUIRE), \
	LAYOUT_CODE(NVME_CMD_RESV_RELEASE), LAYOUT_CODE(NVME_RESV_WRITE_EXCLUSIVE), \
	LAYOUT_CODE(NVME_RESV_EXCLUSIVE_ACCESS_RO), LAYOUT_CODE(NVME_RESV_EXCLUSIVE_ACCESS_AR), \
	LAYOUT_CODE(NVME_RESV_REGISTER), LAYOUT_CODE(NVME_RESV_UNREGISTER), LAYOUT_CODE(NVME_RESV_REPLACE), \
	LAYOUT_CODE(NVME_RESV_ACQUIRE), LAYOUT_CODE(NVME_RESV_PREEMPT), LAYOUT_CODE(NVME_RESV_PREEMPT_ABORT), \
	LAYOUT_CODE(NVME_RESV_RELEASE), LAYOUT_CODE(NVME_RESV_CLEAR), \
	LAYOUT_SC(NVME_SC_RESERVATION_CONFLICT), LAYOUT_SC(NVME_SC_ANA_PERSISTENT_LOSS), \
	LAYOUT_SC(NVME_SC_ANA_INACCESSIBLE), LAYOUT_SC(NVME_SC_ANA_TRANSITION), \
	LAYOUT_SIZE(nvme_connect_data), LAYOUT_AT(nvme_connect_data, cntlid), \
	LAYOUT_AT(nvme_connect_data, hostnqn), \
	LAYOUT_SIZE(nvme_discovery_header), LAYOUT_AT(nvme_discovery_header, numrec), \
	LAYOUT_AT(nvme_discovery_header, recfmt), \
	LAYOUT_SIZE(nvme_discovery_record), LAYOUT_AT(nvme_discovery_record, portid), \
	LAYOUT_AT(nvme_discovery_record, eflags), LAYOUT_AT(nvme_discovery_record, trsvcid), \
	LAYOUT_AT(nvme_discovery_record, subnqn), LAYOUT_AT(nvme_discovery_record, traddr), \
	LAYOUT_AT(nvme_discovery_record, tsas), \
	LAYOUT_SC(NVME_SC_INVALID_OPCODE), LAYOUT_SC(NVME_SC_INVALID_FIELD), \
	LAYOUT_SC(NVME_SC_CMDID_CONFLICT), LAYOUT_SC(NVME_SC_DATA_XFER_ERROR), \
	LAYOUT_SC(NVME_SC_ABORT_REQ), LAYOUT_SC(NVME_SC_INVALID_NS), LAYOUT_SC(NVME_SC_CMD_SEQ_ERROR), \
	LAYOUT_SC(NVME_SC_SGL_INVALID_DATA), LAYOUT_SC(NVME_SC_SGL_INVALID_TYPE), \
	LAYOUT_SC(NVME_SC_SGL_INVALID_OFFSET), LAYOUT_SC(NVME_SC_LBA_RANGE), \
	LAYOUT_SC(NVME_SC_CAP_EXCEEDED), LAYOUT_SC(NVME_SC_NS_NOT_READY), \
	LAYOUT_SC(NVME_SC_NS_WRITE_PROTECTED), LAYOUT_SC(NVME_SC_CMD_INTERRUPTED), \
	LAYOUT_SC(NVME_SC_QUEUE_SIZE), LAYOUT_SC(NVME_SC_ABORT_LIMIT), \
	LAYOUT_SC(NVME_SC_INVALID_LOG_PAGE), LAYOUT_SC(NVME_SC_FEATURE_NOT_CHANGEABLE), \
	LAYOUT_SC(NVME_SC_CONNECT_CTRL_BUSY), LAYOUT_SC(NVME_SC_CONNECT_INVALID_PARAM), \
	LAYOUT_SC(NVME_SC_CONNECT_INVALID_HOST), LAYOUT_SC(NVME_SC_READ_ERROR), \
	LAYOUT_SC(NVME_SC_WRITE_FAULT), LAYOUT_SC(NVME_SC_COMPARE_FAILED), \
	LAYOUT_CODE(NVME_SC_DNR), LAYOUT_CODE(NVME_SC_MORE), LAYOUT_CODE(NVME_LOG_DISCOVERY), \
	LAYOUT_CODE(NVME_FEAT_KATO), LAYOUT_CODE(NVME_FEAT_NUM_QUEUES), LAYOUT_CODE(NVME_FEAT_ASYNC_EVENT), \
	LAYOUT_CODE(NVME_FEAT_VOLATILE_WC), LAYOUT_CODE(NVME_FEAT_HOST_ID), LAYOUT_CODE(NVME_NIDT_CSI)
/* clang-format on */

#endif
