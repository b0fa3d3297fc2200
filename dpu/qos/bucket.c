/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/qos/bucket.h"

void qos_bucket_set(
	struct qos_bucket *b, uint64_t rate, uint64_t unit_ns, uint64_t burst_ns, uint64_t now)
{
	uint64_t debt_ns = b->full_ns > now ? b->full_ns - now : 0;

	if (!rate || !b->rate) /* a new bucket is full */
		debt_ns = 0;
	else if (rate != b->rate)
		debt_ns = (uint64_t)((double)debt_ns * (double)b->rate / (double)rate);
	*b = (struct qos_bucket){
		.rate = rate, .unit_ns = unit_ns, .burst_ns = burst_ns, .full_ns = now + debt_ns};
}
