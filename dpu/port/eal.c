/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/port/port.h"

#include <errno.h>
#include <glob.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_lcore.h>

#include "common/base/log.h"
#include "common/base/util.h"

#define HUGEPAGES_GLOB "/sys/devices/system/node/node*/hugepages/hugepages-*/free_hugepages"
/* Memory EAL gets on a machine without huge pages: enough for PORT_MAX small ports. */
#define PLAIN_MEMORY_MB  "512"
#define HUGEPAGES_MIN_KB (256 * 1024)
#define EXTRA_ARGS       16

static bool hugepages;

/* What the user said, so that nothing is said twice. */
struct eal_said {
	bool memory_mode, no_huge, memory_size, file_prefix, cores, pci, vdev, log_level, telemetry,
		shconf;
};

/* The options EAL excludes each other or may be given once; "--x=y" and "--x y" alike. */
static bool option_is(const char *arg, const char *name)
{
	size_t n = strlen(name);

	return strncmp(arg, name, n) == 0 && (arg[n] == '\0' || arg[n] == '=');
}

/* Short options may carry their value: -l0, -a0000:03:00.0. */
static bool short_is(const char *arg, char name)
{
	return arg[0] == '-' && arg[1] == name;
}

static void said_by(struct eal_said *said, const char *a)
{
	said->memory_mode |= option_is(a, "--no-huge") || option_is(a, "--in-memory") ||
			     option_is(a, "--huge-dir") || option_is(a, "--huge-unlink");
	said->no_huge |= option_is(a, "--no-huge");
	said->memory_size |= option_is(a, "--socket-mem") || short_is(a, 'm');
	said->file_prefix |= option_is(a, "--file-prefix");
	said->cores |= option_is(a, "--lcores") || short_is(a, 'l') || short_is(a, 'c');
	said->pci |= option_is(a, "--no-pci") || option_is(a, "--allow") ||
		     option_is(a, "--block") || short_is(a, 'a') || short_is(a, 'b');
	said->vdev |= option_is(a, "--vdev");
	said->log_level |= option_is(a, "--log-level");
	said->telemetry |= option_is(a, "--telemetry") || option_is(a, "--no-telemetry");
	said->shconf |= option_is(a, "--no-shconf");
}

/* Fewer than a card needs are as good as none: EAL would start on them and run out. */
static bool has_free_hugepages(void)
{
	unsigned long long total_kb = 0;
	glob_t g;

	if (glob(HUGEPAGES_GLOB, 0, NULL, &g) != 0)
		return false;
	for (size_t i = 0; i < g.gl_pathc; i++) {
		const char *size = strstr(g.gl_pathv[i], "hugepages-");
		FILE *f = fopen(g.gl_pathv[i], "re");
		unsigned long long n = 0, kb = 0;

		if (!f)
			continue;
		if (size && sscanf(size, "hugepages-%llukB", &kb) == 1 &&
			fscanf(f, "%llu", &n) == 1)
			total_kb += n * kb;
		fclose(f);
	}
	globfree(&g);
	return total_kb >= HUGEPAGES_MIN_KB;
}

/*
 * One EAL core that floats over the CPUs this process may use. EAL would pin the main thread to one of them and start
 * a thread on each other: two pollers that happen to be pinned to one CPU starve each other.
 */
static int floating_core(char *buf, size_t len)
{
	cpu_set_t set;
	size_t at;

	if (sched_getaffinity(0, sizeof(set), &set) < 0)
		return -errno;
	at = (size_t)snprintf(buf, len, "0@(");
	for (int cpu = 0, any = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &set))
			continue;
		at += (size_t)snprintf(
			buf + at, at < len ? len - at : 0, "%s%d", any++ ? "," : "", cpu);
		if (at >= len)
			return -E2BIG;
	}
	at += (size_t)snprintf(buf + at, len - at, ")");
	return at < len ? 0 : -E2BIG;
}

static void warn_plain_memory(const struct eal_said *said)
{
	log_warn("%s: running on ordinary memory. Copies cost about a fifth more and devices that "
		 "need physical addresses cannot be used; reserve pages in "
		 "/proc/sys/vm/nr_hugepages to change that",
		said->no_huge ? "--no-huge" : "no free huge pages (256 MiB are needed)");
}

/* The arguments to add after the program's name; returns how many. */
static int extra_args(
	const struct eal_said *said, const char **out, const char *prefix, const char *cores)
{
	int n = 0;

	if (!said->memory_mode) {
		out[n++] = hugepages ? "--in-memory" : "--no-huge";
		if (!hugepages && !said->shconf)
			out[n++] = "--no-shconf";
		if (!hugepages && !said->memory_size) {
			out[n++] = "-m";
			out[n++] = PLAIN_MEMORY_MB;
		}
	}
	if (!said->file_prefix)
		out[n++] = prefix;
	if (!said->cores && cores[0]) {
		out[n++] = "--lcores";
		out[n++] = cores;
	}
	if (!said->pci && said->vdev)
		out[n++] = "--no-pci";
	if (!said->log_level) {
		out[n++] = "--log-level=*:warning";
		/* It warns of secondary processes, which there are none of. */
		out[n++] = "--log-level=pmd.net.memif*:error";
	}
	if (!said->telemetry)
		out[n++] = "--no-telemetry";
	return n;
}

int port_eal_init(int argc, char **argv)
{
	struct eal_said said = {0};
	char prefix[48], cores[1024];
	autofree const char **args = calloc((size_t)argc + EXTRA_ARGS + 1, sizeof(*args));
	int own, n, rc;

	if (!args)
		return -ENOMEM;
	if (argc < 1)
		return -EINVAL;
	for (own = 1; own < argc && strcmp(argv[own], "--") != 0; own++)
		said_by(&said, argv[own]);
	hugepages = !said.no_huge && has_free_hugepages();
	if (!hugepages && (said.no_huge || !said.memory_mode))
		warn_plain_memory(&said);
	snprintf(prefix, sizeof(prefix), "--file-prefix=parapet-%d", (int)getpid());
	if (floating_core(cores, sizeof(cores)) < 0)
		cores[0] = '\0';

	args[0] = argv[0];
	n = 1 + extra_args(&said, args + 1, prefix, cores);
	for (int i = 1; i < own; i++)
		args[n++] = argv[i];
	/* EAL permutes the array it is given, which is ours, and leaves the strings alone. */
	rc = rte_eal_init(n, (char **)(uintptr_t)args);
	if (rc < 0) {
		rc = rte_errno ? -rte_errno : -EIO;
		log_error("the packet environment (EAL) did not start: %s", rte_strerror(-rc));
		return rc;
	}
	return own < argc ? own + 1 : own;
}

void port_eal_cleanup(void)
{
	(void)rte_eal_cleanup();
}

bool port_eal_has_hugepages(void)
{
	return hugepages;
}

void port_eal_thread_begin(void)
{
	if (rte_thread_register() < 0)
		log_warn("the packet environment (EAL) does not know a thread: %s",
			rte_strerror(rte_errno));
}

void port_eal_thread_end(void)
{
	rte_thread_unregister();
}
