/* SPDX-License-Identifier: BSD-3-Clause */
/* The structures as libnvme's header has them; its names where they differ from the specification's and ours. */
#include <nvme/types.h>

#include "tests/unit/nvme_layout.h"

#define nvme_error_log        nvme_error_log_page
#define nvme_fw_slot_log      nvme_firmware_slot
#define nvme_connect_data     nvmf_connect_data
#define nvme_discovery_header nvmf_discovery_log
#define nvme_discovery_record nvmf_disc_log_entry

#define NVME_LOG_DISCOVERY    NVME_LOG_LID_DISCOVER
#define NVME_FEAT_KATO        NVME_FEAT_FID_KATO
#define NVME_FEAT_NUM_QUEUES  NVME_FEAT_FID_NUM_QUEUES
#define NVME_FEAT_ASYNC_EVENT NVME_FEAT_FID_ASYNC_EVENT
#define NVME_FEAT_VOLATILE_WC NVME_FEAT_FID_VOLATILE_WC
#define NVME_FEAT_HOST_ID     NVME_FEAT_FID_HOST_ID

const struct layout_fact layout_of_libnvme[] = {LAYOUT_FACTS};
const size_t layout_of_libnvme_count = sizeof(layout_of_libnvme) / sizeof(layout_of_libnvme[0]);
