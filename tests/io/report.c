/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/io/report.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "common/nvme/cmd.h"

static unsigned int bucket_of(uint64_t ns)
{
	unsigned int shift, b;

	if (ns < LAT_SUB)
		return (unsigned int)ns;
	shift = 63 - (unsigned int)__builtin_clzll(ns) - 5; /* log2(LAT_SUB) */
	b = (shift + 1) * LAT_SUB + (unsigned int)(ns >> shift) - LAT_SUB;
	return MIN(b, LAT_BUCKETS - 1u);
}

static uint64_t bucket_top_ns(unsigned int b)
{
	unsigned int shift = b / LAT_SUB;

	if (!shift)
		return b;
	return ((uint64_t)(LAT_SUB + b % LAT_SUB + 1) << (shift - 1)) - 1;
}

void report_latency(struct report *r, uint64_t ns)
{
	r->lat[bucket_of(ns)]++;
	r->lat_sum_ns += ns;
	r->lat_max_ns = MAX(r->lat_max_ns, ns);
	r->lat_count++;
}

uint64_t report_percentile(const struct report *r, double share)
{
	uint64_t want = (uint64_t)((double)r->lat_count * share), seen = 0;

	for (unsigned int b = 0; b < LAT_BUCKETS; b++) {
		seen += r->lat[b];
		if (seen > want || (seen == r->lat_count && seen))
			return MIN(bucket_top_ns(b), r->lat_max_ns);
	}
	return 0;
}

void report_status(struct report *r, int err, uint16_t status, uint64_t lba)
{
	int i = 0;

	while (i < r->nstatuses && (r->statuses[i].err != err || r->statuses[i].status != status))
		i++;
	if (i == STATUSES_MAX)
		return;
	if (i == r->nstatuses) {
		r->nstatuses++;
		r->statuses[i].err = err;
		r->statuses[i].status = status;
		r->statuses[i].first_lba = lba;
	}
	r->statuses[i].count++;
}

void report_finding(struct report *r, const struct stamp_finding *f)
{
	r->mismatches++;
	if (r->nfindings < FINDINGS_MAX)
		r->findings[r->nfindings++] = *f;
}

static double seconds(const struct report *r)
{
	return (double)r->elapsed_ns / 1e9;
}

static double per_second(const struct report *r, double v)
{
	return r->elapsed_ns ? v / seconds(r) : 0;
}

static const char *status_text(int err, uint16_t status)
{
	return err ? strerror(-err) : nvme_status_name(status);
}

static json_t *json_latency(const struct report *r)
{
	return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f}", "mean",
		r->lat_count ? (double)r->lat_sum_ns / (double)r->lat_count / 1e3 : 0.0, "p50",
		(double)report_percentile(r, 0.5) / 1e3, "p95",
		(double)report_percentile(r, 0.95) / 1e3, "p99",
		(double)report_percentile(r, 0.99) / 1e3, "p999",
		(double)report_percentile(r, 0.999) / 1e3, "max", (double)r->lat_max_ns / 1e3);
}

static json_t *json_findings(const struct report *r)
{
	json_t *list = json_array();

	for (int i = 0; i < r->nfindings; i++) {
		const struct stamp_finding *f = &r->findings[i];

		json_array_append_new(list,
			json_pack("{s:I, s:I, s:s, s:I, s:I, s:I, s:i}", "lba",
				(json_int_t)(f->sector * STAMP_SECTOR / r->block_bytes),
				"byte_offset", (json_int_t)(f->sector * STAMP_SECTOR), "found",
				stamp_verdict_name(f->verdict), "found_seed",
				(json_int_t)f->found_seed, "found_sector",
				(json_int_t)f->found_sector, "found_generation",
				(json_int_t)f->found_generation, "first_wrong_byte", (int)f->byte));
	}
	return list;
}

static json_t *json_statuses(const struct report *r)
{
	json_t *list = json_array();

	for (int i = 0; i < r->nstatuses; i++)
		json_array_append_new(
			list, json_pack("{s:s, s:i, s:I, s:I}", "text",
				      status_text(r->statuses[i].err, r->statuses[i].status),
				      "status", (int)NVME_SC_CODE(r->statuses[i].status), "count",
				      (json_int_t)r->statuses[i].count, "first_lba",
				      (json_int_t)r->statuses[i].first_lba));
	return list;
}

static json_t *json_wire(const struct nvmf_stats *w, const char *transport)
{
	return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}",
		"name", transport, "commands", (json_int_t)w->commands, "kicks",
		(json_int_t)w->kicks, "posts", (json_int_t)w->posts, "completions",
		(json_int_t)w->completions, "copied_bytes", (json_int_t)w->copied_bytes,
		"zero_copy_bytes", (json_int_t)w->zero_copy_bytes, "inline_bytes",
		(json_int_t)w->inline_bytes, "binds", (json_int_t)w->binds, "remote_invalidates",
		(json_int_t)w->remote_invalidates, "losses", (json_int_t)w->losses, "timeouts",
		(json_int_t)w->timeouts, "aborts", (json_int_t)w->aborts);
}

static void print_json(const struct report *r, const struct opts *o, enum io_exit code)
{
	json_t *j = json_pack("{s:s, s:i, s:b, s:I, s:I, s:f, s:f, s:f, s:o}", "command",
		o->command_name, "exit", (int)code, "ok", code == EXIT_OK, "ops",
		(json_int_t)r->ops, "bytes", (json_int_t)r->bytes, "seconds", seconds(r),
		"mb_per_s", per_second(r, (double)r->bytes / 1e6), "iops",
		per_second(r, (double)r->ops), "latency_us", json_latency(r));

	json_object_update_new(
		j, json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o}",
			   "errors", (json_int_t)r->errors, "expected_errors",
			   (json_int_t)r->expected, "retries", (json_int_t)r->retries, "reconnects",
			   (json_int_t)r->reconnects, "rechecked", (json_int_t)r->rechecked,
			   "checked_sectors", (json_int_t)r->checked_sectors, "mismatches",
			   (json_int_t)r->mismatches, "pieces", (json_int_t)r->pieces, "seed",
			   (json_int_t)o->seed, "generation_min", (json_int_t)r->gen_min,
			   "generation_max", (json_int_t)r->gen_max, "statuses", json_statuses(r),
			   "findings", json_findings(r)));
	if (o->mix)
		json_object_update_new(
			j, json_pack("{s:I, s:I, s:I}", "mixed_reads", (json_int_t)r->reads,
				   "mixed_zeroes", (json_int_t)r->zeroed, "mixed_flushes",
				   (json_int_t)r->flushes));
	json_object_set_new(j, "transport", json_wire(&r->wire, o->transport));
	json_dumpf(j, stdout, JSON_INDENT(1));
	putchar('\n');
	json_decref(j);
}

static void print_problems(const struct report *r)
{
	for (int i = 0; i < r->nstatuses; i++)
		printf("  %llu commands: %s (first at LBA %llu)\n",
			(unsigned long long)r->statuses[i].count,
			status_text(r->statuses[i].err, r->statuses[i].status),
			(unsigned long long)r->statuses[i].first_lba);
	for (int i = 0; i < r->nfindings; i++) {
		const struct stamp_finding *f = &r->findings[i];

		printf("  LBA %llu (byte %llu): %s",
			(unsigned long long)(f->sector * STAMP_SECTOR / r->block_bytes),
			(unsigned long long)(f->sector * STAMP_SECTOR),
			stamp_verdict_name(f->verdict));
		if (f->verdict != STAMP_ZERO && f->verdict != STAMP_FOREIGN)
			printf(" (seed %llu, sector %llu, generation %llu, from byte %u)",
				(unsigned long long)f->found_seed,
				(unsigned long long)f->found_sector,
				(unsigned long long)f->found_generation, f->byte);
		putchar('\n');
	}
	if (r->mismatches > (uint64_t)r->nfindings)
		printf("  and %llu more\n",
			(unsigned long long)(r->mismatches - (uint64_t)r->nfindings));
}

void report_print(const struct report *r, const struct opts *o, enum io_exit code)
{
	if (o->json) {
		print_json(r, o, code);
		return;
	}
	printf("%s: %llu commands, %.1f MB in %.2f s: %.1f MB/s, %.0f IOPS\n", o->command_name,
		(unsigned long long)r->ops, (double)r->bytes / 1e6, seconds(r),
		per_second(r, (double)r->bytes / 1e6), per_second(r, (double)r->ops));
	if (r->lat_count)
		printf("  latency us: mean %.1f  p50 %.1f  p95 %.1f  p99 %.1f  p99.9 %.1f  max "
		       "%.1f\n",
			(double)r->lat_sum_ns / (double)r->lat_count / 1e3,
			(double)report_percentile(r, 0.5) / 1e3,
			(double)report_percentile(r, 0.95) / 1e3,
			(double)report_percentile(r, 0.99) / 1e3,
			(double)report_percentile(r, 0.999) / 1e3, (double)r->lat_max_ns / 1e3);
	if (r->gen_max)
		printf("  seed %llu, generations %llu to %llu\n", (unsigned long long)o->seed,
			(unsigned long long)r->gen_min, (unsigned long long)r->gen_max);
	if (r->reconnects || r->retries)
		printf("  reconnected %llu times, %llu commands sent again, %llu acknowledged "
		       "pieces checked after it\n",
			(unsigned long long)r->reconnects, (unsigned long long)r->retries,
			(unsigned long long)r->rechecked);
	if (r->checked_sectors || r->mismatches)
		printf("  %llu sectors checked, %llu wrong\n",
			(unsigned long long)r->checked_sectors, (unsigned long long)r->mismatches);
	print_problems(r);
}
