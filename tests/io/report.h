/* SPDX-License-Identifier: BSD-3-Clause */
/* What a run found: counters, latencies, findings; printed for people or as one JSON object. Thread: main. */
#ifndef TESTS_IO_REPORT_H
#define TESTS_IO_REPORT_H

#include "dpu/nvmf/nvmf.h"
#include "tests/io/opts.h"
#include "tests/io/stamp.h"

#define LAT_SUB      32 /* steps per power of two: 3 % wide */
#define LAT_BUCKETS  (40 * LAT_SUB)
#define FINDINGS_MAX 10
#define STATUSES_MAX 8

struct report {
	uint64_t ops, bytes, elapsed_ns;
	uint64_t errors; /* commands that ended other than expected */
	uint64_t expected; /* commands that ended with the expected status */
	uint64_t retries, reconnects, rechecked, checked_sectors, mismatches, unwritten;
	uint64_t reads, zeroed, flushes; /* among the writes (--mix) */
	uint64_t gen_min, gen_max; /* generations written */
	uint64_t pieces;
	struct {
		int err; /* -errno, or 0 */
		uint16_t status;
		uint64_t count, first_lba;
	} statuses[STATUSES_MAX];
	int nstatuses;
	struct stamp_finding findings[FINDINGS_MAX];
	int nfindings;
	uint32_t lat[LAT_BUCKETS];
	uint64_t lat_sum_ns, lat_max_ns, lat_count;
	uint32_t block_bytes;
	struct nvmf_stats wire; /* what the transport did for it */
};

void report_latency(struct report *r, uint64_t ns);
/* Nanoseconds below which the given share (0..1) of commands was. */
uint64_t report_percentile(const struct report *r, double share);
void report_status(struct report *r, int err, uint16_t status, uint64_t lba);
void report_finding(struct report *r, const struct stamp_finding *f);
void report_print(const struct report *r, const struct opts *o, enum io_exit code);

#endif
