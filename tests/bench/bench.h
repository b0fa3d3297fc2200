/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The performance table. Each group of benches prints one JSON object a line to stdout (tests/bench/bench.sh makes table and file
 * of them) and what it is doing to stderr.
 *
 * Machines here are shared and noisy, so: time is the thread's own CPU time; a ratio's two sides run alternately in short
 * slices, and each side counts its best slice. Thread: main.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#include <stdbool.h>
#include <stdint.h>

enum bench_want { BENCH_REPORT, BENCH_AT_LEAST, BENCH_AT_MOST };

void bench_result(
	const char *name, double value, const char *unit, enum bench_want want, double target);
/* True when `name` was asked for on the command line (or nothing was). */
bool bench_wanted(const char *name);

uint64_t bench_cpu_ns(void);

/* One side of a comparison: does some work, returns how much (bytes, operations). */
struct bench_side {
	const char *name;
	uint64_t (*run_fn)(void *arg);
	void *arg;
	double best; /* out: work per second of CPU time, of the best slice */
};
/* Runs all sides in turns, `slices` times each. */
void bench_compare(struct bench_side *sides, unsigned int n, unsigned int slices);

void bench_ec(void);
void bench_pass(void);
void bench_pipeline(void);
void bench_qos(void);
void bench_shards(void);
void bench_amplification(void);
void bench_index(void);
void bench_hung(void);
void bench_nvmf_tcp(void);
void bench_nvmf_rdma(void);
void bench_file(void);
void bench_read(void);
void bench_mover(void);
void bench_checkpoint(void);
void bench_count(const char *what, const char *count);
void bench_bare_copy(char **args); /* three of them */
void bench_serve(const char *what);
void bench_echo_server(const char *addr);
void bench_echo_client(char **args); /* five of them */

#endif
