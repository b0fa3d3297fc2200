/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/qos/qos.h"

#include <errno.h>
#include <stdio.h>

int qos_cfg_check(const struct qos_cfg *cfg, const char *object, const char *prefix, struct err *e)
{
	const struct {
		const char *name;
		uint32_t value, max;
	} fields[] = {{"mbps", cfg->mbps, QOS_MBPS_MAX}, {"iops", cfg->iops, QOS_IOPS_MAX},
		{"burst_ms", cfg->burst_ms, QOS_BURST_MS_MAX},
		{"weight", cfg->weight, QOS_WEIGHT_MAX}};
	char field[48];

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		snprintf(field, sizeof(field), "%s%s", prefix, fields[i].name);
		if (fields[i].value > fields[i].max)
			return err_set(e, -EINVAL, object, field,
				"%u is too large; allowed: up to %u (0: the default)",
				fields[i].value, fields[i].max);
	}
	snprintf(field, sizeof(field), "%smbps", prefix);
	if (cfg->mbps % QOS_MBPS_STEP)
		return err_set(e, -EINVAL, object, field,
			"%u is no step of %u; allowed: %u, %u, ... (0: no cap)", cfg->mbps,
			QOS_MBPS_STEP, QOS_MBPS_STEP, 2 * QOS_MBPS_STEP);
	return 0;
}
