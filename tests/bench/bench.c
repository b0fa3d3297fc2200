/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/log.h"

static int nnames;
static char **names;

static const struct {
	const char *prefix;
	void (*run_fn)(void);
} groups[] = {
	{"ec.encode.", bench_ec},
	{"bare.", bench_pass},
	{"pipeline.", bench_pipeline},
	{"qos.", bench_qos},
	{"shards.", bench_shards},
	{"log.write_amplification.", bench_amplification},
	{"read.", bench_read},
	{"index.", bench_index},
	{"checkpoint.", bench_checkpoint},
	{"recovery.", bench_checkpoint},
	{"cleaner.", bench_mover},
	{"mover.", bench_mover},
	{"hung.", bench_hung},
	{"file.", bench_file},
	{"nvmf.tcp.", bench_nvmf_tcp},
	{"nvmf.rdma.", bench_nvmf_rdma},
};

bool bench_wanted(const char *name)
{
	if (!nnames)
		return true;
	for (int i = 0; i < nnames; i++)
		if (strncmp(names[i], name, strlen(names[i])) == 0 ||
			strncmp(names[i], name, strlen(name)) == 0)
			return true;
	return false;
}

void bench_result(
	const char *name, double value, const char *unit, enum bench_want want, double target)
{
	bool ok = want == BENCH_REPORT || (want == BENCH_AT_LEAST && value >= target) ||
		  (want == BENCH_AT_MOST && value <= target);
	char text[48] = "null";

	if (want != BENCH_REPORT)
		snprintf(text, sizeof(text), "\"%s %g\"",
			want == BENCH_AT_LEAST ? ">=" : "<=", target);
	printf("{\"name\":\"%s\",\"value\":%.4g,\"unit\":\"%s\",\"target\":%s,\"ok\":%s}\n", name,
		value, unit, text, ok ? "true" : "false");
	fflush(stdout);
}

uint64_t bench_cpu_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

void bench_compare(struct bench_side *sides, unsigned int n, unsigned int slices)
{
	for (unsigned int s = 0; s < slices; s++)
		for (unsigned int i = 0; i < n; i++) {
			uint64_t start = bench_cpu_ns();
			uint64_t work = sides[i].run_fn(sides[i].arg);
			double rate = (double)work * 1e9 / (double)(bench_cpu_ns() - start);

			if (rate > sides[i].best)
				sides[i].best = rate;
		}
	for (unsigned int i = 0; i < n; i++)
		fprintf(stderr, "  %-40s %10.3f G/s\n", sides[i].name, sides[i].best / 1e9);
}

/* PID: the CPU time a process has taken, in ns: finer than the ticks of /proc. */
static void cpu_of(const char *pid)
{
	clockid_t clock;
	struct timespec ts;

	if (clock_getcpuclockid((pid_t)strtol(pid, NULL, 10), &clock) != 0 ||
		clock_gettime(clock, &ts) < 0) {
		fprintf(stderr, "no process %s\n", pid);
		exit(1);
	}
	printf("%lld\n", (long long)ts.tv_sec * 1000000000 + ts.tv_nsec);
}

/* Parts that scripts use. */
static bool tool(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";

	if (argc == 4 && strcmp(what, "--count") == 0)
		bench_count(argv[2], argv[3]);
	else if (argc == 3 && strcmp(what, "--cpu-of") == 0)
		cpu_of(argv[2]);
	else if (argc == 5 && strcmp(what, "--bare-copy") == 0)
		bench_bare_copy(argv + 2);
	else if (argc == 3 && strcmp(what, "--serve") == 0)
		bench_serve(argv[2]);
	else if (argc == 3 && strcmp(what, "--echo-server") == 0)
		bench_echo_server(argv[2]);
	else if (argc == 7 && strcmp(what, "--echo-client") == 0)
		bench_echo_client(argv + 2);
	else
		return false;
	return true;
}

int main(int argc, char **argv)
{
	log_init("bench", LOG_LEVEL_WARN);
	if (tool(argc, argv))
		return 0;
	nnames = argc - 1;
	names = argv + 1;
	for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++)
		if (bench_wanted(groups[i].prefix))
			groups[i].run_fn();
	return 0;
}
