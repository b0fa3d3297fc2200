/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bare loops over buffers larger than every cache: the yardsticks of the pipeline's figures. A copy with streaming stores, and the
 * passes of a protected write (4+2: CRC, encode, 1.5 copies) with nothing around them.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dpu/core/mem.h"
#include "dpu/ec/ec.h"
#include "tests/bench/bench.h"
#include "tests/bench/pass.h"

int bare_open(struct bare *b, uint32_t io_bytes, uint32_t stripe_blocks)
{
	struct ec_scheme scheme = {4, 2};

	memset(b, 0, sizeof(*b));
	b->io_bytes = io_bytes;
	b->src = mem_alloc(BARE_BYTES);
	b->dst = mem_alloc(BARE_BYTES);
	b->parity = mem_alloc(BARE_BYTES);
	if (!b->src || !b->dst || !b->parity || ec_open(EC_ISAL, &b->ec) < 0)
		return -1;
	memset(b->src, 0x5a, BARE_BYTES);
	memset(b->dst, 1, BARE_BYTES);
	memset(b->parity, 1, BARE_BYTES);
	if (ec_geometry_of(scheme, stripe_blocks, &b->geo) < 0)
		return -1;
	return ec_code_get(b->ec, b->geo.k, b->geo.m, &b->code);
}

void bare_close(struct bare *b)
{
	ec_close(b->ec);
	mem_free(b->src, BARE_BYTES);
	mem_free(b->dst, BARE_BYTES);
	mem_free(b->parity, BARE_BYTES);
}

/* Where the n-th I/O of a pass comes from: scattered over the source, each place once. */
static const uint8_t *source(const struct bare *b, uint64_t n)
{
	uint64_t places = BARE_BYTES / b->io_bytes;

	return b->src + n * 40503 % places * b->io_bytes;
}

uint64_t bare_copy(void *arg)
{
	struct bare *b = arg;
	uint64_t n = BARE_SLICE / b->io_bytes;

	for (uint64_t i = 0; i < n; i++, b->next++)
		mem_copy_stream(b->dst + b->next * b->io_bytes % BARE_BYTES, source(b, b->next),
			b->io_bytes);
	mem_stream_fence();
	return BARE_SLICE;
}

static void one_stripe(struct bare *b)
{
	const uint8_t *blocks[EC_BLOCKS_MAX];
	uint8_t *copy[EC_BLOCKS_MAX], *parity[EC_M_MAX];
	uint32_t crc[EC_BLOCKS_MAX], parity_crc[EC_M_MAX * EC_BLOCKS_MAX];
	uint32_t per_io = b->io_bytes / EC_BLOCK;
	uint64_t bytes = (uint64_t)b->geo.nblocks * EC_BLOCK;
	uint64_t at = b->next * b->io_bytes % (BARE_BYTES - bytes) / EC_BLOCK * EC_BLOCK;
	struct ec_pass p = {.geo = b->geo,
		.blocks = blocks,
		.copy = copy,
		.unstable = b->unstable,
		.parity = parity,
		.stream = true,
		.crc = crc,
		.parity_crc = parity_crc};

	for (uint32_t i = 0; i < b->geo.nblocks; i++) {
		blocks[i] = source(b, b->next + i / per_io) + i % per_io * EC_BLOCK;
		copy[i] = b->dst + at + (uint64_t)i * EC_BLOCK;
	}
	for (unsigned int i = 0; i < b->geo.m; i++)
		parity[i] = b->parity + (at / b->geo.k + i * BARE_BYTES / 2) / EC_BLOCK * EC_BLOCK;
	ec_encode_pass(b->code, &p);
	b->next += b->geo.nblocks / per_io;
}

uint64_t bare_protected(void *arg)
{
	struct bare *b = arg;
	uint64_t done = 0;

	for (; done < BARE_SLICE; done += (uint64_t)b->geo.nblocks * EC_BLOCK)
		one_stripe(b);
	return done;
}

/* Memory as a VM's is that the card has mapped: a file in memory, of pages that the system gives such files. */
static uint8_t *guest_memory(void)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	uint8_t *p = MAP_FAILED;

	if (fd >= 0 && ftruncate(fd, BARE_BYTES) == 0)
		p = mmap(
			NULL, BARE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);
	if (fd >= 0)
		close(fd);
	return p == MAP_FAILED ? NULL : p;
}

/* The source is a guest's from now on. */
static bool bare_of_guest(struct bare *b)
{
	uint8_t *guest = guest_memory();

	if (!guest)
		return false;
	memset(guest, 0x5a, BARE_BYTES);
	mem_free(b->src, BARE_BYTES);
	b->src = guest;
	b->unstable = true;
	return true;
}

/* BYTES MILLISECONDS own|guest: the streaming copy for a script, whose sides run in turns. The memory of the source is huge pages where it can be, or a guest's. */
void bench_bare_copy(char **args)
{
	uint32_t bytes = (uint32_t)strtoul(args[0], NULL, 10);
	uint64_t budget = strtoull(args[1], NULL, 10) * 1000000, work = 0, start, used;
	static struct bare b;

	if (bytes < 512 || bytes > BARE_BYTES / 2 || bare_open(&b, bytes, 128) < 0 ||
		(strcmp(args[2], "guest") == 0 && !bare_of_guest(&b))) {
		fprintf(stderr, "no memory, or no size\n");
		exit(1);
	}
	start = bench_cpu_ns();
	do {
		work += bare_copy(&b);
		used = bench_cpu_ns() - start;
	} while (used < budget);
	printf("{\"bytes\":%llu,\"cpu_ns\":%llu}\n", (unsigned long long)work,
		(unsigned long long)used);
}

static void own_memory(void)
{
	static struct bare big, small;
	struct bench_side sides[] = {{"copy, 64 KiB", bare_copy, &big},
		{"protected 4+2, 64 KiB writes", bare_protected, &big},
		{"copy, 4 KiB", bare_copy, &small},
		{"protected 4+2, 4 KiB writes", bare_protected, &small}};

	if (bare_open(&big, 64u << 10, 128) < 0 || bare_open(&small, 4096, 128) < 0) {
		fprintf(stderr, "no memory\n");
		exit(1);
	}
	bench_compare(sides, 4, 7);
	bench_result("bare.copy.64k", sides[0].best / 1e9, "GB/s", BENCH_REPORT, 0);
	bench_result("bare.protected.64k", sides[1].best / 1e9, "GB/s", BENCH_REPORT, 0);
	bench_result("bare.copy.4k", sides[2].best / 1e9, "GB/s", BENCH_REPORT, 0);
	bench_result("bare.protected.4k", sides[3].best / 1e9, "GB/s", BENCH_REPORT, 0);
	bare_close(&big);
	bare_close(&small);
}

/* What a VM's 128 KiB writes are: memory that may change, in stripes of 512 KiB; by the processor's own kernel if it has one, by
 * ISA-L, and the same passes as a mirror (1+1). */
static void guest_memory_passes(void)
{
	static struct bare ours, isal, mirror;
	struct bench_side sides[] = {{"guest: copy, 128 KiB", bare_copy, &ours},
		{"guest: protected 4+2", bare_protected, &ours},
		{"guest: protected 4+2, ISA-L alone", bare_protected, &isal},
		{"guest: mirror", bare_protected, &mirror}};
	struct ec *ec;

	if (bare_open(&ours, 128u << 10, 128) < 0 || !bare_of_guest(&ours) ||
		ec_open(EC_ISAL_ONLY, &ec) < 0) {
		fprintf(stderr, "no memory\n");
		exit(1);
	}
	isal = mirror = ours;
	if (ec_code_get(ec, 4, 2, &isal.code) < 0 || ec_code_get(ours.ec, 1, 1, &mirror.code) < 0 ||
		ec_geometry_of((struct ec_scheme){1, 1}, 128, &mirror.geo) < 0) {
		fprintf(stderr, "no code\n");
		exit(1);
	}
	bench_compare(sides, 4, 9);
	bench_result("bare.guest.copy.128k", sides[0].best / 1e9, "GB/s", BENCH_REPORT, 0);
	bench_result("bare.guest.protected.128k", sides[1].best / 1e9, "GB/s", BENCH_REPORT, 0);
	bench_result("bare.guest.protected.128k.copy_ratio", sides[1].best / sides[0].best, "",
		BENCH_REPORT, 0);
	bench_result("bare.guest.protected.128k.isal_ratio", sides[1].best / sides[2].best, "",
		BENCH_REPORT, 0);
	bench_result("bare.guest.protected.128k.mirror_ratio", sides[1].best / sides[3].best, "",
		BENCH_REPORT, 0);
	ec_close(ec);
	munmap(ours.src, BARE_BYTES);
	ours.src = NULL;
	bare_close(&ours);
}

void bench_pass(void)
{
	fprintf(stderr, "bare loops\n");
	if (bench_wanted("bare.copy.") || bench_wanted("bare.protected."))
		own_memory();
	if (bench_wanted("bare.guest."))
		guest_memory_passes();
}
