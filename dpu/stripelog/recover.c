/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/stripelog/log_priv.h"

void scan_free(struct stripelog *log)
{
}
