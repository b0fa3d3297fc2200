/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VMs beside each other through the shipped stack: what a light one waits for beside a heavy one, against both as one VM (then there are no turns and no
 * window: what it would be without); what that costs the heavy one; and shares by weight. Times are CPU time of the one thread: the machine's other load
 * does not count.
 */
#include <stdio.h>
#include <string.h>

#include "common/base/hist.h"
#include "tests/bench/bench.h"
#include "tests/bench/stack.h"

#define VOLUME_BYTES (256ull << 20)
#define HEAVY_DEPTH  256u
#define DEPTH_MAX    256u
#define SLICE_BYTES  (1ull << 30)
#define SLICES       5u
#define SETTLE_NS    1500000000ull
#define VM           1u /* the stack's */

static struct stack stack;

struct load;
struct load_req {
	struct io_req io;
	struct iovec iov;
	struct load *load;
	uint64_t start_ns;
	bool busy;
};

struct load {
	uint32_t vm, depth, bytes;
	struct volume *vol;
	uint64_t next, ended, ended_bytes;
	bool timed;
	struct hist took;
	struct load_req reqs[DEPTH_MAX];
};
static struct load heavy, light;

static void ended(struct io_req *io)
{
	struct load_req *r = io->arg;

	if (io->status != IO_OK)
		bench_die("a write failed", -5);
	r->busy = false;
	r->load->ended++;
	r->load->ended_bytes += io->len_bytes;
	if (r->load->timed)
		hist_add(&r->load->took, bench_cpu_ns() - r->start_ns);
}

static void submit(struct load *l)
{
	for (uint32_t i = 0; i < l->depth; i++) {
		struct load_req *r = &l->reqs[i];
		uint64_t places = VOLUME_BYTES / l->bytes;
		int rc;

		if (r->busy)
			continue;
		r->busy = true;
		r->load = l;
		r->start_ns = l->timed ? bench_cpu_ns() : 0;
		r->iov = (struct iovec){
			stack.source + l->next % (stack.cfg.source_bytes / l->bytes) * l->bytes,
			l->bytes};
		r->io = (struct io_req){.op = IO_WRITE,
			.vm = l->vm,
			.vol = l->vol,
			.off_bytes = l->next++ % places * l->bytes,
			.len_bytes = l->bytes,
			.iov = &r->iov,
			.niov = 1,
			.stable = true,
			.done_fn = ended,
			.arg = r};
		rc = pipeline_submit(stack.pipeline, &r->io);
		if (rc < 0)
			bench_die("submit", rc);
	}
}

static bool busy(const struct load *l)
{
	for (uint32_t i = 0; i < l->depth; i++)
		if (l->reqs[i].busy)
			return true;
	return false;
}

/* Both at once until so many bytes more are written, and for so long. The light one begins first in every round, as a frontend that polls fairly has it
 * now and then. */
static void run(uint64_t bytes, uint64_t ns)
{
	uint64_t until = shard_now_ns(stack.sh) + ns;

	heavy.ended = heavy.ended_bytes = light.ended = light.ended_bytes = 0;
	memset(&light.took, 0, sizeof(light.took));
	while (heavy.ended_bytes + light.ended_bytes < bytes || shard_now_ns(stack.sh) < until) {
		submit(&light);
		submit(&heavy);
		shard_run_once(stack.sh);
	}
}

/* The window finds its size: that takes time, not bytes. */
static void settle(void)
{
	run(0, SETTLE_NS);
}

static void open_stack(void)
{
	struct stack_cfg cfg = {.dev_bytes = 1024ull << 20,
		.dev_block = 4096,
		.volume_bytes = VOLUME_BYTES,
		.layout = VOLUME_FRAGMENTS,
		.depth = 2 * DEPTH_MAX,
		.io_bytes = 128u << 10,
		.source_bytes = 64u << 20,
		.touched_bytes = 640ull << 20};
	struct volume_cfg vol = {.name = "/dev/bench1",
		.size_bytes = VOLUME_BYTES,
		.layout = VOLUME_FRAGMENTS,
		.data_dev = 0,
		.intermediate_dev = POOL_DEV_NONE};
	struct volume *second;
	struct err e = {0};

	stack_open(&stack, &cfg);
	if (volume_create(stack.store, &vol, &second, &e) < 0)
		bench_die(err_text(&e), -1);
	memset(&heavy, 0, sizeof(heavy));
	memset(&light, 0, sizeof(light));
	heavy.vm = VM;
	heavy.vol = stack.vol;
	light.vol = second;
	stack_write(&stack, VOLUME_BYTES / cfg.io_bytes); /* its blocks are there */
}

/* The second VM, or (one) the first one with both volumes. */
static void second_vm(bool one)
{
	light.vm = one ? VM : VM + 1;
	if (!one && pipeline_vm_add(stack.pipeline, light.vm) < 0)
		bench_die("vm", -1);
	if (pipeline_volume_add(stack.pipeline, light.vm, light.vol) < 0)
		bench_die("volume", -1);
}

static void close_stack(void)
{
	while (busy(&heavy) || busy(&light))
		shard_run_once(stack.sh);
	pipeline_volume_del(stack.pipeline, light.vm, light.vol);
	if (light.vm != VM)
		pipeline_vm_del(stack.pipeline, light.vm);
	stack_close(&stack);
}

struct outcome {
	double p99_us, rate;
};

static struct outcome beside(bool one)
{
	struct outcome o;
	uint64_t start;

	open_stack();
	second_vm(one);
	light.timed = true;
	light.depth = 1;
	light.bytes = 4096;
	heavy.depth = HEAVY_DEPTH;
	heavy.bytes = 512u << 10;
	settle();
	start = bench_cpu_ns();
	run(SLICES * SLICE_BYTES, 0);
	o.rate = (double)heavy.ended_bytes / (double)(bench_cpu_ns() - start);
	o.p99_us = (double)hist_at(&light.took, 990) / 1e3;
	fprintf(stderr, "  %s: light p99 %.0f us of %lu, heavy %.2f GB/s\n",
		one ? "as one VM" : "as two VMs", o.p99_us, (unsigned long)light.ended, o.rate);
	close_stack();
	return o;
}

static void fairness(void)
{
	struct outcome one, two;

	if (!bench_wanted("qos.fairness.light_p99_ratio") &&
		!bench_wanted("qos.fairness.light_p99") && !bench_wanted("qos.fairness.heavy_kept"))
		return;
	fprintf(stderr, "qos.fairness: one 4 KiB write at a time beside 256 of 512 KiB\n");
	one = beside(true);
	two = beside(false);
	bench_result("qos.fairness.light_p99", two.p99_us, "us", BENCH_REPORT, 0);
	bench_result(
		"qos.fairness.light_p99_ratio", two.p99_us / one.p99_us, "", BENCH_AT_MOST, 0.5);
	bench_result("qos.fairness.heavy_kept", two.rate / one.rate, "", BENCH_AT_LEAST, 0.9);
}

static void share(const char *name, uint32_t bytes)
{
	double got;

	if (!bench_wanted(name))
		return;
	fprintf(stderr, "%s: weights 100 and 300\n", name);
	open_stack();
	second_vm(false);
	if (pipeline_vm_set_qos(stack.pipeline, light.vm, &(struct qos_cfg){.weight = 300}) < 0)
		bench_die("weight", -1);
	heavy.depth = light.depth = 128;
	heavy.bytes = light.bytes = bytes;
	settle();
	run(2 * SLICE_BYTES, 0);
	got = (double)light.ended_bytes / (double)heavy.ended_bytes;
	fprintf(stderr, "  1 : %.2f\n", got);
	bench_result(name, got / 3, "", BENCH_AT_LEAST, 0.8);
	close_stack();
}

void bench_qos(void)
{
	fairness();
	share("qos.share_of_3.128k", 128u << 10);
	share("qos.share_of_3.4k", 4096);
	flash_mem_forget(NULL);
}
