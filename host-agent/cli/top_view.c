/* SPDX-License-Identifier: BSD-3-Clause */
/* The live view as text. */
#include "host-agent/cli/top.h"

#include "common/base/units.h"
#include "common/base/util.h"

#include <string.h>

static double real(const json_t *o, const char *part, const char *name)
{
	return json_number_value(json_object_get(part ? json_object_get(o, part) : o, name));
}

/* Names come from elsewhere: nothing of them reaches the terminal but what is printable. */
static const char *name_of(const json_t *o, const char *member, char *buf, size_t size)
{
	const char *s = json_string_value(json_object_get(o, member));

	snprintf(buf, size, "%s", s ? s : "-");
	for (char *p = buf; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
	return buf;
}

/* "987", "12.3k", "4.56M" */
static const char *count_text(double v, char *buf, size_t size)
{
	if (v >= 999950)
		snprintf(buf, size, "%.2fM", v / 1e6);
	else if (v >= 9999.5)
		snprintf(buf, size, "%.1fk", v / 1e3);
	else
		snprintf(buf, size, "%.0f", v);
	return buf;
}

/* "85us", "1.25ms", "2.1s"; "-": nothing was measured */
static const char *time_text(
	const json_t *o, const char *part, const char *name, char *buf, size_t size)
{
	double us = real(o, part, name);

	if (part && real(o, part, "iops") <= 0)
		snprintf(buf, size, "-");
	else if (us >= 1e6)
		snprintf(buf, size, "%.1fs", us / 1e6);
	else if (us >= 1e4)
		snprintf(buf, size, "%.0fms", us / 1e3);
	else if (us >= 1e3)
		snprintf(buf, size, "%.2fms", us / 1e3);
	else
		snprintf(buf, size, "%.0fus", us);
	return buf;
}

#define COUNT(v)      count_text(v, (char[24]){""}, 24)
#define TIME(o, p, n) time_text(o, p, n, (char[24]){""}, 24)
#define MB(o, p, n)   (real(o, p, n) / 1e6)

static void card_lines(FILE *f, const json_t *d)
{
	const json_t *c = json_object_get(d, "card");
	char node[65], window[32];

	fprintf(f, "card %s: %s IOPS, %.1f MB/s in the last %.1f s",
		name_of(d, "node", node, sizeof(node)), COUNT(real(c, NULL, "iops")),
		MB(c, NULL, "bytes_per_s"), real(d, NULL, "interval_s"));
	if (json_object_get(c, "write_amplification"))
		fprintf(f, ", written to flash %.2f times", real(c, NULL, "write_amplification"));
	fprintf(f, "\nbatches: %s/s of %.1f writes, stripes of %.1f blocks (%.0f %% full)",
		COUNT(real(c, NULL, "batches_per_s")), real(c, NULL, "batch_writes"),
		real(c, NULL, "stripe_blocks"), real(c, NULL, "stripe_fill_percent"));
	fprintf(f, "; window %s, full %s/s\n\n",
		units_format_bytes((uint64_t)real(c, NULL, "window_bytes"), window, sizeof(window)),
		COUNT(real(c, NULL, "window_full_per_s")));
}

static void vm_line(FILE *f, const json_t *v)
{
	char name[65], cap[48];
	size_t n = 0;

	cap[0] = '\0';
	if (real(v, NULL, "mbps_cap") > 0)
		n = (size_t)snprintf(cap, sizeof(cap), "%.0fMb/s ", real(v, NULL, "mbps_cap"));
	if (real(v, NULL, "iops_cap") > 0)
		snprintf(cap + n, sizeof(cap) - n, "%s/s", COUNT(real(v, NULL, "iops_cap")));
	fprintf(f, "%-16.16s %8s %8s %9.1f %9.1f %8s %8s %8s %8s %5.0f %5.0f %5.0f%% %6.0f %s\n",
		name_of(v, "name", name, sizeof(name)), COUNT(real(v, "read", "iops")),
		COUNT(real(v, "write", "iops")), MB(v, "read", "bytes_per_s"),
		MB(v, "write", "bytes_per_s"), TIME(v, "read", "p50_us"), TIME(v, "read", "p99_us"),
		TIME(v, "write", "p50_us"), TIME(v, "write", "p99_us"), real(v, NULL, "in_flight"),
		real(v, NULL, "waiting"), real(v, NULL, "capped_percent"), real(v, NULL, "weight"),
		cap);
}

static void stage_line(FILE *f, const json_t *s)
{
	char of[24], stage[24];

	fprintf(f, "%-13s %-8s %6.1f%% %9s %9s %9s\n", name_of(s, "of", of, sizeof(of)),
		name_of(s, "stage", stage, sizeof(stage)), real(s, NULL, "share_percent"),
		TIME(s, NULL, "p50_us"), TIME(s, NULL, "p99_us"), COUNT(real(s, NULL, "per_s")));
}

static void flash_line(FILE *f, const json_t *v)
{
	char name[65];

	fprintf(f, "%-16.16s %8s %8s %9.1f %9.1f %5.0f%% %8s %8s %5.0f\n",
		name_of(v, "name", name, sizeof(name)), COUNT(real(v, NULL, "reads_per_s")),
		COUNT(real(v, NULL, "writes_per_s")), MB(v, NULL, "read_bytes_per_s"),
		MB(v, NULL, "write_bytes_per_s"), real(v, NULL, "util_percent"),
		real(v, NULL, "reads_per_s") > 0 ? TIME(v, NULL, "read_p99_us") : "-",
		real(v, NULL, "writes_per_s") > 0 ? TIME(v, NULL, "write_p99_us") : "-",
		real(v, NULL, "in_flight"));
}

static void table(FILE *f, const json_t *list, const char *title, const char *none,
	void (*line)(FILE *f, const json_t *o))
{
	json_t *o;
	size_t i;

	if (!json_array_size(list)) {
		fprintf(f, "%s", none);
		return;
	}
	fprintf(f, "%s\n", title);
	json_array_foreach((json_t *)list, i, o) line(f, o);
}

void top_render(FILE *f, const json_t *d)
{
	card_lines(f, d);
	table(f, json_object_get(d, "vms"),
		"VM                IOPS-R   IOPS-W    MB/s-R    MB/s-W    P50-R    P99-R    P50-W  "
		"  P99-W "
		"INFL  WAIT CAPPED WEIGHT CAP",
		"no VMs\n", vm_line);
	fprintf(f, "\n");
	table(f, json_object_get(d, "stages"),
		"REQUESTS      STAGE      SHARE       P50       P99       N/s",
		"nothing was done\n", stage_line);
	fprintf(f, "\n");
	table(f, json_object_get(d, "flashes"),
		"FLASH                R/s      W/s    MB/s-R    MB/s-W   UTIL    P99-R    P99-W  "
		"INFL",
		"no pool\n", flash_line);
}
