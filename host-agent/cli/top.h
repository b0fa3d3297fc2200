/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The live view: what happened between two answers of /v1/top, as JSON (what --json prints) and as text.
 * Thread: one. Ownership: results are the caller's.
 *
 *	d = top_difference(then, now); top_render(stdout, d, "bytes"); json_decref(d);
 */
#ifndef HOST_AGENT_CLI_TOP_H
#define HOST_AGENT_CLI_TOP_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

/*
 * {"node", "time_ns", "interval_s", "card": {"iops", "bytes_per_s", "batches_per_s", "batch_writes", "batch_blocks", "stripe_blocks", "stripe_fill_percent",
 * "write_amplification", "window_bytes", "window_full_per_s"}, "vms": [{"name", "read": {"iops", "bytes_per_s", "p50_us", "p99_us", "max_us"}, "write": {..},
 * "other_iops", "iops", "bytes_per_s", "p99_us", "in_flight", "waiting", "capped_percent", "mbps_cap", "iops_cap", "weight", "errors_per_s"}],
 * "stages": [{"of", "stage", "share_percent", "p50_us", "p99_us", "per_s"}], "flashes": [{"name", "reads_per_s", "writes_per_s", "read_bytes_per_s",
 * "write_bytes_per_s", "util_percent", "in_flight", "read_p99_us", "write_p99_us"}]}.
 * Rates are by the card's clock. What a VM did not do is absent. NULL: the answers are of two runs of the card, or of the same moment.
 */
json_t *top_difference(const json_t *then, const json_t *now);

/* What VMs can be sorted by, highest first: "iops", "bytes", "p99", "waiting", "capped"; "name". */
bool top_sort_known(const char *key);
#define TOP_SORTS "iops, bytes, p99, waiting, capped, name"
void top_sort(json_t *difference, const char *key);

void top_render(FILE *f, const json_t *difference);

#endif
