/* SPDX-License-Identifier: BSD-3-Clause */
/* The structures as libnvme's header has them; its names where they differ from the specification's and ours. */
#include <nvme/types.h>

#include "tests/unit/nvme_layout.h"

#define nvme_error_log        nvme_error_log_page
#define nvme_fw_slot_log      nvme_firmware_slot
#define nvme_connect_data     nvmf_connect_data
#define nvme_discovery_header nvmf_discovery_log
#define nvme_discovery_record nvmf_disc_log_entry

#define NVME_LOG_DISCOVERY            NVME_LOG_LID_DISCOVER
#define NVME_ANA_OPTIMIZED            NVME_ANA_STATE_OPTIMIZED
#define NVME_ANA_NON_OPTIMIZED        NVME_ANA_STATE_NONOPTIMIZED
#define NVME_ANA_INACCESSIBLE         NVME_ANA_STATE_INACCESSIBLE
#define NVME_ANA_PERSISTENT_LOSS      NVME_ANA_STATE_PERSISTENT_LOSS
#define NVME_ANA_CHANGE               NVME_ANA_STATE_CHANGE
#define NVME_LOG_ANA                  NVME_LOG_LID_ANA
#define NVME_CMD_RESV_REGISTER        nvme_cmd_resv_register
#define NVME_CMD_RESV_REPORT          nvme_cmd_resv_report
#define NVME_CMD_RESV_ACQUIRE         nvme_cmd_resv_acquire
#define NVME_CMD_RESV_RELEASE         nvme_cmd_resv_release
#define NVME_RESV_WRITE_EXCLUSIVE     NVME_RESERVATION_RTYPE_WE
#define NVME_RESV_EXCLUSIVE_ACCESS_RO NVME_RESERVATION_RTYPE_EARO
#define NVME_RESV_EXCLUSIVE_ACCESS_AR NVME_RESERVATION_RTYPE_EAAR
#define NVME_RESV_REGISTER            NVME_RESERVATION_RREGA_REGISTER_KEY
#define NVME_RESV_UNREGISTER          NVME_RESERVATION_RREGA_UNREGISTER_KEY
#define NVME_RESV_REPLACE             NVME_RESERVATION_RREGA_REPLACE_KEY
#define NVME_RESV_ACQUIRE             NVME_RESERVATION_RACQA_ACQUIRE
#define NVME_RESV_PREEMPT             NVME_RESERVATION_RACQA_PREEMPT
#define NVME_RESV_PREEMPT_ABORT       NVME_RESERVATION_RACQA_PREEMPT_AND_ABORT
#define NVME_RESV_RELEASE             NVME_RESERVATION_RRELA_RELEASE
#define NVME_RESV_CLEAR               NVME_RESERVATION_RRELA_CLEAR
#define NVME_FEAT_KATO                NVME_FEAT_FID_KATO
#define NVME_FEAT_NUM_QUEUES          NVME_FEAT_FID_NUM_QUEUES
#define NVME_FEAT_ASYNC_EVENT         NVME_FEAT_FID_ASYNC_EVENT
#define NVME_FEAT_VOLATILE_WC         NVME_FEAT_FID_VOLATILE_WC
#define NVME_FEAT_HOST_ID             NVME_FEAT_FID_HOST_ID

const struct layout_fact layout_of_libnvme[] = {LAYOUT_FACTS};
const size_t layout_of_libnvme_count = sizeof(layout_of_libnvme) / sizeof(layout_of_libnvme[0]);
