/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What file: costs per byte at 128 KiB and 4 KiB, depth 16: beside pread() and pwrite() into memory of one's own, which is what it would cost if an I/O that was
 * abandoned could be called back. `checked`: writes whose reader tells them from anything else, and that are not copied therefore (fragments,
 * the data area of protected blocks). Each with and without what the ring is told beforehand (file_fixed.h), in turns. CPU time of the process (the kernel has workers for us), O_DIRECT where
 * the file system has it: what a card's cores have to do, not what its disk does.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/core/shard.h"
#include "dpu/flash/file_fixed.h"
#include "dpu/flash/flash.h"
#include "tests/bench/bench.h"
#include "tests/bench/stack.h"

#define IO_BYTES    (128u << 10) /* at most */
#define FILE_BYTES  (64ull << 20)
#define SLICE_BYTES (128ull << 20)
#define DEPTH       16u
#define SLICES      15u

struct file_bench {
	struct shard *sh;
	struct flash *f; /* one of: */
	struct flash *fixed, *common;
	uint32_t io_bytes;
	uint64_t slice_bytes;
	int fd;
	uint8_t *mem; /* a buffer for each in flight */
	struct flash_io io[DEPTH];
	struct iovec iov[DEPTH];
	uint64_t at, left;
	unsigned int in_flight;
	enum flash_op op;
	bool checked;
};
static struct file_bench fb;

static void next(struct flash_io *io);

static void ended(struct flash_io *io)
{
	if (io->status != FLASH_OK)
		bench_die("file I/O", -EIO);
	fb.in_flight--;
	next(io);
}

static void next(struct flash_io *io)
{
	if (!fb.left)
		return;
	fb.left -= fb.io_bytes;
	fb.at = (fb.at + fb.io_bytes) % FILE_BYTES;
	io->op = fb.op;
	io->checked = fb.checked;
	io->off = fb.at;
	io->len = fb.io_bytes;
	io->done_fn = ended;
	fb.in_flight++;
	if (flash_submit(fb.f, io) < 0)
		bench_die("flash_submit", -EIO);
}

static bool all_done(void *arg)
{
	return !fb.in_flight;
}

static uint64_t through_flash(void *arg)
{
	fb.left = fb.slice_bytes;
	for (unsigned int i = 0; i < DEPTH; i++) {
		fb.iov[i] = (struct iovec){fb.mem + (size_t)i * IO_BYTES, fb.io_bytes};
		fb.io[i].iov = &fb.iov[i];
		fb.io[i].niov = 1;
		next(&fb.io[i]);
	}
	shard_wait(fb.sh, all_done, NULL, 0);
	return fb.slice_bytes;
}

/* arg: struct flash * of the bench's, by its place. */
static uint64_t flash_reads(void *arg)
{
	fb.f = *(struct flash **)arg;
	fb.op = FLASH_READ;
	return through_flash(arg);
}

static uint64_t flash_writes(void *arg)
{
	fb.f = *(struct flash **)arg;
	fb.op = FLASH_WRITE;
	fb.checked = false;
	return through_flash(arg);
}

static uint64_t flash_checked_writes(void *arg)
{
	fb.f = *(struct flash **)arg;
	fb.op = FLASH_WRITE;
	fb.checked = true;
	return through_flash(arg);
}

static uint64_t bare(void *arg)
{
	bool reads = arg != NULL;

	for (uint64_t n = 0; n < fb.slice_bytes; n += fb.io_bytes) {
		uint8_t *p = fb.mem + n / fb.io_bytes % DEPTH * IO_BYTES;
		off_t off = (off_t)(n % FILE_BYTES);
		ssize_t rc = reads ? pread(fb.fd, p, fb.io_bytes, off)
				   : pwrite(fb.fd, p, fb.io_bytes, off);

		if (rc != (ssize_t)fb.io_bytes)
			bench_die("pread/pwrite", -EIO);
	}
	return fb.slice_bytes;
}

static void file_open(char *path, char *address, size_t len)
{
	const struct flash_opts shared = {0};
	struct err e = {0};

	fb.fd = mkstemp(path);
	if (fb.fd >= 0)
		fcntl(fb.fd, F_SETFL, fcntl(fb.fd, F_GETFL) | O_DIRECT);
	if (fb.fd < 0 || ftruncate(fb.fd, FILE_BYTES) < 0)
		bench_die("scratch file", -errno);
	if (shard_open(&(struct shard_cfg){.mode = SHARD_POLLING, .seed = 1}, &fb.sh) < 0)
		bench_die("shard", -ENOMEM);
	snprintf(address, len, "file:%s", path);
	if (flash_open(fb.sh, address, &shared, &fb.fixed, &e) < 0)
		bench_die(err_text(&e), -EIO);
	file_fixed_off = true;
	if (flash_open(fb.sh, address, &shared, &fb.common, &e) < 0)
		bench_die(err_text(&e), -EIO);
	file_fixed_off = false;
	fb.mem = mem_alloc(DEPTH * IO_BYTES);
	if (!fb.mem)
		bench_die("memory", -ENOMEM);
	memset(fb.mem, 7, DEPTH * IO_BYTES);
}

static uint64_t process_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* As bench_compare(), by another clock; and each slice's rate. */
static void compare(struct bench_side *sides, double (*rates)[SLICES], unsigned int n)
{
	for (unsigned int s = 0; s < SLICES * n; s++) {
		struct bench_side *side = &sides[s % n];
		uint64_t start = process_ns(), work = side->run_fn(side->arg);
		double rate = (double)work * 1e9 / (double)(process_ns() - start);

		rates[s % n][s / n] = rate;
		side->best = MAX(side->best, rate);
	}
	for (unsigned int i = 0; i < n; i++)
		fprintf(stderr, "  %-40s %10.3f G/s\n", sides[i].name, sides[i].best / 1e9);
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* The median of slices that ran one after the other: what other jobs take hits both. */
static double median_ratio(const double *over, const double *under)
{
	double r[SLICES];

	for (unsigned int i = 0; i < SLICES; i++)
		r[i] = over[i] / under[i];
	qsort(r, SLICES, sizeof(r[0]), by_value);
	return r[SLICES / 2];
}

/* NAME.{read,write,checked_write}_ratio over pread() and pwrite(), .{...}.fixed_ratio over the same without registering. */
static void measure(const char *size, uint32_t io_bytes, uint64_t slice_bytes)
{
	static const char *const kinds[] = {"read", "write", "checked_write"};
	struct bench_side sides[] = {{"pread", bare, (void *)1}, {"pwrite", bare, NULL},
		{"file: read", flash_reads, &fb.fixed},
		{"file: read, nothing registered", flash_reads, &fb.common},
		{"file: write", flash_writes, &fb.fixed},
		{"file: write, nothing registered", flash_writes, &fb.common},
		{"file: checked write", flash_checked_writes, &fb.fixed},
		{"file: checked write, nothing registered", flash_checked_writes, &fb.common}};
	double rates[ARRAY_LEN(sides)][SLICES];

	fb.io_bytes = io_bytes;
	fb.slice_bytes = slice_bytes;
	compare(sides, rates, ARRAY_LEN(sides));
	for (unsigned int i = 0; i < ARRAY_LEN(kinds); i++) {
		char name[64];

		snprintf(name, sizeof(name), "file.%s_ratio%s", kinds[i], size);
		bench_result(name, sides[2 + 2 * i].best / sides[i != 0].best, "", BENCH_REPORT, 0);
		snprintf(name, sizeof(name), "file.%s.fixed_ratio%s", kinds[i], size);
		bench_result(name, median_ratio(rates[2 + 2 * i], rates[3 + 2 * i]), "",
			BENCH_REPORT, 0);
	}
}

void bench_file(void)
{
	char path[] = "/var/tmp/parapet-bench-XXXXXX", address[64];
	struct flash_stats st;

	if (!bench_wanted("file."))
		return;
	fprintf(stderr, "file.\n");
	file_open(path, address, sizeof(address));
	fb.io_bytes = IO_BYTES;
	fb.slice_bytes = SLICE_BYTES;
	bare(NULL); /* pages come */
	measure("", IO_BYTES, SLICE_BYTES);
	measure(".4k", 4096, SLICE_BYTES / 16);
	flash_stats(fb.fixed, &st);
	bench_result("file.fixed_fraction", (double)st.fixed / (double)(st.reads + st.writes), "",
		BENCH_REPORT, 0);
	flash_close(fb.fixed);
	flash_close(fb.common);
	shard_close(fb.sh);
	mem_free(fb.mem, DEPTH * IO_BYTES);
	close(fb.fd);
	unlink(path);
}
