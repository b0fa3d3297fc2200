/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/cmd.h"

#include "common/base/util.h"

static const struct {
	uint16_t status;
	const char *name;
} names[] = {
	{NVME_SC_SUCCESS, "Successful Completion"},
	{NVME_SC_INVALID_OPCODE, "Invalid Command Opcode"},
	{NVME_SC_INVALID_FIELD, "Invalid Field in Command"},
	{NVME_SC_CMDID_CONFLICT, "Command ID Conflict"},
	{NVME_SC_DATA_XFER_ERROR, "Data Transfer Error"},
	{NVME_SC_POWER_LOSS, "Commands Aborted due to Power Loss Notification"},
	{NVME_SC_INTERNAL, "Internal Error"},
	{NVME_SC_ABORT_REQ, "Command Abort Requested"},
	{NVME_SC_ABORT_QUEUE, "Command Aborted due to SQ Deletion"},
	{NVME_SC_FUSED_FAIL, "Command Aborted due to Failed Fused Command"},
	{NVME_SC_FUSED_MISSING, "Command Aborted due to Missing Fused Command"},
	{NVME_SC_INVALID_NS, "Invalid Namespace or Format"},
	{NVME_SC_CMD_SEQ_ERROR, "Command Sequence Error"},
	{NVME_SC_SGL_INVALID_LAST, "Invalid SGL Segment Descriptor"},
	{NVME_SC_SGL_INVALID_COUNT, "Invalid Number of SGL Descriptors"},
	{NVME_SC_SGL_INVALID_DATA, "Data SGL Length Invalid"},
	{NVME_SC_SGL_INVALID_TYPE, "SGL Descriptor Type Invalid"},
	{NVME_SC_SGL_INVALID_OFFSET, "SGL Offset Invalid"},
	{NVME_SC_HOSTID_INCONSISTENT, "Host Identifier Inconsistent Format"},
	{NVME_SC_KA_TIMEOUT_EXPIRED, "Keep Alive Timer Expired"},
	{NVME_SC_KA_TIMEOUT_INVALID, "Keep Alive Timeout Invalid"},
	{NVME_SC_NS_WRITE_PROTECTED, "Namespace is Write Protected"},
	{NVME_SC_CMD_INTERRUPTED, "Command Interrupted"},
	{NVME_SC_TRANSIENT_TRANSPORT, "Transient Transport Error"},
	{NVME_SC_LBA_RANGE, "LBA Out of Range"},
	{NVME_SC_CAP_EXCEEDED, "Capacity Exceeded"},
	{NVME_SC_NS_NOT_READY, "Namespace Not Ready"},
	{NVME_SC_RESERVATION_CONFLICT, "Reservation Conflict"},
	{NVME_SC_QID_INVALID, "Invalid Queue Identifier"},
	{NVME_SC_QUEUE_SIZE, "Invalid Queue Size"},
	{NVME_SC_ABORT_LIMIT, "Abort Command Limit Exceeded"},
	{NVME_SC_ASYNC_LIMIT, "Asynchronous Event Request Limit Exceeded"},
	{NVME_SC_INVALID_LOG_PAGE, "Invalid Log Page"},
	{NVME_SC_FEATURE_NOT_SAVEABLE, "Feature Identifier Not Saveable"},
	{NVME_SC_FEATURE_NOT_CHANGEABLE, "Feature Not Changeable"},
	{NVME_SC_FEATURE_NOT_PER_NS, "Feature Not Namespace Specific"},
	{NVME_SC_CONNECT_FORMAT, "Connect Incompatible Format"},
	{NVME_SC_CONNECT_CTRL_BUSY, "Connect Controller Busy"},
	{NVME_SC_CONNECT_INVALID_PARAM, "Connect Invalid Parameters"},
	{NVME_SC_CONNECT_RESTART_DISC, "Connect Restart Discovery"},
	{NVME_SC_CONNECT_INVALID_HOST, "Connect Invalid Host"},
	{NVME_SC_DISCOVERY_RESTART, "Discovery Restart"},
	{NVME_SC_AUTH_REQUIRED, "Authentication Required"},
	{NVME_SC_WRITE_FAULT, "Write Fault"},
	{NVME_SC_READ_ERROR, "Unrecovered Read Error"},
	{NVME_SC_GUARD_CHECK, "End-to-end Guard Check Error"},
	{NVME_SC_COMPARE_FAILED, "Compare Failure"},
	{NVME_SC_ACCESS_DENIED, "Access Denied"},
	{NVME_SC_PATH_INTERNAL, "Internal Path Error"},
	{NVME_SC_ANA_PERSISTENT_LOSS, "Asymmetric Access Persistent Loss"},
	{NVME_SC_ANA_INACCESSIBLE, "Asymmetric Access Inaccessible"},
	{NVME_SC_ANA_TRANSITION, "Asymmetric Access Transition"},
	{NVME_SC_PATH_CTRL_ERROR, "Controller Pathing Error"},
	{NVME_SC_PATH_HOST_ERROR, "Host Pathing Error"},
	{NVME_SC_PATH_HOST_ABORTED, "Command Aborted By Host"},
};

const char *nvme_status_name(uint16_t status)
{
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (names[i].status == NVME_SC_CODE(status))
			return names[i].name;
	return "status not in our list";
}
