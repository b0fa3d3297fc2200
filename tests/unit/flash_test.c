/* SPDX-License-Identifier: BSD-3-Clause */
/* One conformance suite over every back end, in blocks of 512 and 4096. */
#include "dpu/flash/flash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/core/shard.h"
#include "tests/unit/nvme_memory.h"

#define SIZE  (8u << 20)
#define DEPTH 64u

struct backend {
	const char *name, *address; /* %s: a scratch file */
	const char *dir; /* of the scratch file */
	uint32_t block;
	bool virtual;
	uint32_t peer; /* blocks of a peer's namespace; 0: none */
};

struct bed {
	struct shard *sh;
	struct flash *f;
	struct nvme_memory *peer;
	char path[64], address[160];
	uint32_t block;
};

static void bed_open(struct bed *b, const struct backend *be)
{
	struct shard_cfg cfg = {.clock = be->virtual ? SHARD_CLOCK_VIRTUAL : SHARD_CLOCK_MONOTONIC,
		.mode = SHARD_ADAPTIVE,
		.seed = 11};
	struct flash_opts opts = {.depth = DEPTH, .block_bytes = be->block, .exclusive = true};
	struct err err = {0};

	*b = (struct bed){.block = be->block};
	assert_int_equal(shard_open(&cfg, &b->sh), 0);
	if (be->dir) {
		int fd;

		snprintf(b->path, sizeof(b->path), "%s/parapet-flash-XXXXXX", be->dir);
		fd = mkstemp(b->path);
		assert_true(fd >= 0);
		assert_int_equal(ftruncate(fd, SIZE), 0);
		close(fd);
	}
	snprintf(b->address, sizeof(b->address), "%s%s", be->address, b->path);
	if (be->peer) {
		assert_int_equal(nvme_memory_open(b->sh, SIZE, be->peer, &b->peer), 0);
		snprintf(b->address, sizeof(b->address), "%s//127.0.0.1:%u/%s#1?keep-alive=100",
			be->address, b->peer->port, NVME_MEMORY_NQN);
	}
	if (flash_open(b->sh, b->address, &opts, &b->f, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static void bed_close(struct bed *b)
{
	flash_close(b->f);
	if (b->peer)
		nvme_memory_close(b->peer);
	shard_close(b->sh);
	if (b->path[0])
		unlink(b->path);
}

static void fill(uint8_t *p, size_t n, uint64_t seed)
{
	for (size_t i = 0; i < n; i++) {
		seed = seed * 6364136223846793005ull + 1442695040888963407ull;
		p[i] = (uint8_t)(seed >> 56);
	}
}

static void *aligned(size_t n)
{
	void *p = NULL;

	assert_int_equal(posix_memalign(&p, 4096, n), 0);
	return p;
}

/* ---- the suite --------------------------------------------------------------------------------- */

static void info_is_sound(struct bed *b)
{
	const struct flash_info *info = flash_info(b->f);

	assert_string_equal(info->address, b->address);
	assert_int_equal(info->size_bytes, SIZE);
	assert_int_equal(info->block_bytes, b->block);
	assert_true(info->atomic_bytes >= info->block_bytes);
	assert_int_equal(info->depth, DEPTH);
	assert_int_equal(flash_in_flight(b->f), 0);
}

static void fresh_contents_read_as_zeros_and_writes_read_back(struct bed *b)
{
	enum { LEN = 300 * 4096 };
	uint8_t *w = aligned(LEN), *r = aligned(LEN);
	struct flash_stats st;

	memset(r, 1, LEN);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 4096, r, LEN), 0);
	for (size_t i = 0; i < LEN; i++)
		assert_int_equal(r[i], 0);
	fill(w, LEN, 1);
	assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE, b->block, w, LEN), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_FLUSH, 0, NULL, 0), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, b->block, r, LEN), 0);
	assert_memory_equal(w, r, LEN);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 0, r, b->block), 0);
	for (size_t i = 0; i < b->block; i++)
		assert_int_equal(r[i], 0);
	flash_stats(b->f, &st);
	assert_int_equal(st.writes, 1);
	assert_int_equal(st.write_bytes, LEN);
	assert_int_equal(st.reads, 3);
	assert_int_equal(st.flushes, 1);
	free(w);
	free(r);
}

static void the_last_block_is_there_and_the_next_is_not(struct bed *b)
{
	uint8_t *buf = aligned(2 * 4096);

	fill(buf, b->block, 2);
	assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE, SIZE - b->block, buf, b->block), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE, SIZE, buf, b->block), -EINVAL);
	assert_int_equal(
		flash_rw_sync(b->f, FLASH_READ, SIZE - b->block, buf, 2 * b->block), -EINVAL);
	assert_int_equal(
		flash_rw_sync(b->f, FLASH_READ, UINT64_MAX - b->block + 1, buf, b->block), -EINVAL);
	assert_int_equal(
		flash_rw_sync(b->f, FLASH_WRITE_ZEROES, 0, NULL, SIZE + b->block), -EINVAL);
	assert_int_equal(flash_rw_sync(b->f, FLASH_DISCARD, SIZE, NULL, b->block), -EINVAL);
	free(buf);
}

static void never(struct flash_io *io)
{
	fail_msg("a refused I/O must not complete");
}

static void malformed_requests_are_refused(struct bed *b)
{
	uint8_t *buf = aligned(8192);
	struct iovec iov[2] = {{buf, b->block}, {buf, b->block}};
	struct flash_io good = {
		.op = FLASH_READ, .len = b->block, .iov = iov, .niov = 1, .done_fn = never};
	struct flash_io io;

	io = good, io.off = 1;
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	io = good, io.len = b->block - 1, iov[0].iov_len = b->block - 1;
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	iov[0].iov_len = b->block;
	io = good, io.len = 0;
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	io = good, io.niov = 2; /* sums to more */
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	io = good, io.len = 2 * b->block; /* sums to less */
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	io = good, io.niov = 0;
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	io = good, io.niov = FLASH_IOV_MAX + 1;
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	io = good, io.op = (enum flash_op)77;
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	iov[1].iov_len = SIZE_MAX; /* would wrap around */
	io = good, io.niov = 2;
	assert_int_equal(flash_submit(b->f, &io), -EINVAL);
	assert_int_equal(flash_in_flight(b->f), 0);
	free(buf);
}

struct waiter {
	int pending;
};

static void count_down(struct flash_io *io)
{
	struct waiter *w = io->arg;

	w->pending--;
}

static bool none_pending(void *arg)
{
	return ((struct waiter *)arg)->pending == 0;
}

static enum flash_status run_io(struct bed *b, struct flash_io *io)
{
	struct waiter w = {1};

	io->done_fn = count_down;
	io->arg = &w;
	assert_int_equal(flash_submit(b->f, io), 0);
	assert_int_equal(w.pending, 1); /* never inside submit */
	assert_int_equal(shard_wait(b->sh, none_pending, &w, 0), 0);
	return io->status;
}

/* Cuts buf into n pieces of odd lengths, one of them empty; each one byte further away from alignment. */
static void cut_up(struct iovec *iov, int n, uint8_t *buf, size_t len)
{
	size_t at = 0;

	for (int i = 0; i < n; i++) {
		size_t piece = i == n - 1 ? len - at : i == 3 ? 0 : 101 + (size_t)i * 40;

		iov[i] = (struct iovec){buf + at + (size_t)i + 1, piece};
		at += piece;
	}
}

static void scattered_and_unaligned_memory_works(struct bed *b)
{
	enum { N = 16 };
	static const size_t lens[] = {
		4 * 4096, 160 * 4096}; /* short and long for a bounce buffer */
	struct iovec wi[N], ri[N];

	for (size_t k = 0; k < ARRAY_LEN(lens); k++) {
		size_t len = lens[k], at = 0;
		uint8_t *w = aligned(len + 4096), *r = aligned(len + 4096), *flat = aligned(len);
		struct flash_io io = {
			.op = FLASH_WRITE, .off = 8192, .len = len, .iov = wi, .niov = N};

		fill(w, len + 4096, 3 + k);
		cut_up(wi, N, w, len);
		cut_up(ri, N, r, len);
		assert_int_equal(run_io(b, &io), FLASH_OK);
		io.op = FLASH_READ;
		io.iov = ri;
		assert_int_equal(run_io(b, &io), FLASH_OK);
		for (int i = 0; i < N; i++) {
			assert_memory_equal(ri[i].iov_base, wi[i].iov_base, wi[i].iov_len);
			memcpy(flat + at, wi[i].iov_base, wi[i].iov_len);
			at += wi[i].iov_len;
		}
		assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 8192, r, len), 0);
		assert_memory_equal(r, flat, len);
		free(w);
		free(r);
		free(flat);
	}
}

static void zeroed_ranges_read_as_zeros_and_nothing_else_does(struct bed *b)
{
	enum { LEN = 6 << 20 };
	uint8_t *w = aligned(LEN), *r = aligned(LEN);
	uint64_t from = 3 * b->block, to = LEN - 5 * b->block;

	fill(w, LEN, 4);
	assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE, 0, w, LEN), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE_ZEROES, from, NULL, to - from), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 0, r, LEN), 0);
	memset(w + from, 0, to - from);
	assert_memory_equal(r, w, LEN);
	assert_int_equal(
		flash_rw_sync(b->f, FLASH_WRITE_ZEROES, LEN - 2 * b->block, NULL, b->block), 0);
	memset(w + LEN - 2 * b->block, 0, b->block);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 0, r, LEN), 0);
	assert_memory_equal(r, w, LEN);
	free(w);
	free(r);
}

static void a_discard_leaves_its_neighbours_alone(struct bed *b)
{
	enum { LEN = 6 << 20 };
	uint8_t *w = aligned(LEN), *r = aligned(LEN);
	uint64_t from = 7 * b->block, to = LEN - b->block;

	fill(w, LEN, 5);
	assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE, 0, w, LEN), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_DISCARD, from, NULL, to - from), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, 0, r, LEN), 0);
	assert_memory_equal(r, w, from);
	assert_memory_equal(r + to, w + to, LEN - to);
	assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE, from, w, b->block), 0);
	assert_int_equal(flash_rw_sync(b->f, FLASH_READ, from, r, b->block), 0);
	assert_memory_equal(r, w, b->block);
	free(w);
	free(r);
}

static void depth_is_a_limit_and_everything_completes_once(struct bed *b)
{
	uint8_t *w = aligned((DEPTH + 1) * 4096), *r = aligned((DEPTH + 1) * 4096);
	struct iovec iov[DEPTH + 1];
	struct flash_io ios[DEPTH + 1];
	struct waiter wt = {0};

	fill(w, (DEPTH + 1) * 4096, 6);
	for (int pass = 0; pass < 2; pass++) {
		for (uint32_t i = 0; i <= DEPTH; i++) {
			iov[i] = (struct iovec){(pass ? r : w) + i * 4096, b->block};
			ios[i] = (struct flash_io){.op = pass ? FLASH_READ : FLASH_WRITE,
				.off = (uint64_t)i * 3 * b->block,
				.len = b->block,
				.iov = &iov[i],
				.niov = 1,
				.done_fn = count_down,
				.arg = &wt};
			if (i == DEPTH) {
				assert_int_equal(flash_submit(b->f, &ios[i]), -EAGAIN);
				break;
			}
			assert_int_equal(flash_submit(b->f, &ios[i]), 0);
			wt.pending++;
		}
		assert_int_equal(flash_in_flight(b->f), DEPTH);
		flash_kick(b->f);
		assert_int_equal(wt.pending, DEPTH);
		assert_int_equal(shard_wait(b->sh, none_pending, &wt, 0), 0);
		assert_int_equal(flash_in_flight(b->f), 0);
		for (uint32_t i = 0; i < DEPTH; i++)
			assert_int_equal(ios[i].status, FLASH_OK);
	}
	for (uint32_t i = 0; i < DEPTH; i++)
		assert_memory_equal(r + i * 4096, w + i * 4096, b->block);
	free(w);
	free(r);
}

struct chain {
	struct bed *b;
	struct flash_io io;
	struct iovec iov;
	int left;
};

static void chain_next(struct flash_io *io)
{
	struct chain *c = io->arg;

	assert_int_equal(io->status, FLASH_OK);
	io->off += c->b->block;
	if (--c->left) {
		assert_int_equal(flash_submit(c->b->f, io), 0);
		return;
	}
	flash_close(c->b->f); /* the last completion may close the device */
	c->b->f = NULL;
}

static bool chain_over(void *arg)
{
	return ((struct chain *)arg)->left == 0;
}

static void a_completion_may_submit_and_the_last_may_close(struct bed *b)
{
	uint8_t *buf = aligned(4096);
	struct chain c = {.b = b, .left = 100, .iov = {buf, b->block}};

	memset(buf, 9, 4096);
	c.io = (struct flash_io){.op = FLASH_WRITE,
		.len = b->block,
		.iov = &c.iov,
		.niov = 1,
		.done_fn = chain_next,
		.arg = &c};
	assert_int_equal(flash_submit(b->f, &c.io), 0);
	assert_int_equal(shard_wait(b->sh, chain_over, &c, 0), 0);
	assert_null(b->f);
	free(buf);
}

static void random_operations_agree_with_plain_memory(struct bed *b)
{
	uint8_t *model = calloc(1, SIZE), *buf = aligned(64 * 4096), *r = aligned(64 * 4096);

	for (int step = 0; step < 400; step++) {
		uint64_t n = 1 + shard_random(b->sh) % 64;
		uint64_t off = shard_random(b->sh) % (SIZE / b->block - n) * b->block;
		uint64_t len = n * b->block;

		switch (shard_random(b->sh) % 8) {
		case 0:
			assert_int_equal(
				flash_rw_sync(b->f, FLASH_WRITE_ZEROES, off, NULL, len), 0);
			memset(model + off, 0, len);
			break;
		case 1:
			assert_int_equal(flash_rw_sync(b->f, FLASH_FLUSH, 0, NULL, 0), 0);
			break;
		case 2:
		case 3:
		case 4:
			fill(buf, len, shard_random(b->sh));
			assert_int_equal(flash_rw_sync(b->f, FLASH_WRITE, off, buf, len), 0);
			memcpy(model + off, buf, len);
			break;
		default:
			assert_int_equal(flash_rw_sync(b->f, FLASH_READ, off, r, len), 0);
			assert_memory_equal(r, model + off, len);
		}
	}
	free(model);
	free(buf);
	free(r);
}

/* ---- giving up --------------------------------------------------------------------------------- */

enum { GHOSTS = 32, GHOST_LEN = 5 * 4096 };

struct given_up {
	struct bed *b;
	struct flash_io io[GHOSTS];
	struct iovec iov[GHOSTS];
	uint8_t *mem; /* GHOST_LEN each */
	unsigned int ended, gone;
};

/* Reads are told GONE: the memory is the test's again, and stays as the test leaves it. */
static void ghost_told(struct flash_io *io)
{
	struct given_up *g = io->arg;

	assert_true(io->status == FLASH_OK || io->status == FLASH_ERR_GONE);
	g->ended++;
	if (io->status != FLASH_ERR_GONE)
		return;
	g->gone++;
	memset(io->iov->iov_base, 0xee, GHOST_LEN);
}

static bool all_told(void *arg)
{
	return ((struct given_up *)arg)->ended == GHOSTS;
}

static bool no_ghosts(void *arg)
{
	return flash_ghosts(((struct bed *)arg)->f) == 0;
}

/* Odd ones write to the second half of the device, even ones read the first. */
static void give_up_under_load(struct bed *b, struct given_up *g, bool checked)
{
	*g = (struct given_up){.b = b, .mem = aligned(GHOSTS * GHOST_LEN)};
	fill(g->mem, GHOSTS * GHOST_LEN, 9);
	for (unsigned int i = 0; i < GHOSTS; i++) {
		g->iov[i] = (struct iovec){g->mem + i * GHOST_LEN, GHOST_LEN};
		g->io[i] = (struct flash_io){.op = i % 2 ? FLASH_WRITE : FLASH_READ,
			.off = (uint64_t)i * GHOST_LEN + (i % 2 ? SIZE / 2 : 0),
			.len = GHOST_LEN,
			.iov = &g->iov[i],
			.niov = 1,
			.checked = checked,
			.done_fn = ghost_told,
			.arg = g};
		assert_int_equal(flash_submit(b->f, &g->io[i]), 0);
	}
	flash_kick(b->f);
	flash_abandon(b->f);
	assert_true(flash_is_abandoned(b->f));
	assert_int_equal(g->ended, 0);
	assert_int_equal(
		flash_submit(b->f, &(struct flash_io){.op = FLASH_FLUSH, .done_fn = never}),
		-ENODEV);
	assert_int_equal(shard_wait(b->sh, all_told, g, 0), 0);
	assert_int_equal(flash_in_flight(b->f), 0);
}

static void an_abandoned_device_tells_everybody_and_lets_go_of_their_memory(struct bed *b)
{
	struct given_up g;

	give_up_under_load(b, &g, true);
	assert_int_equal(shard_wait(b->sh, no_ghosts, b, 0), 0);
	assert_int_equal(g.ended, GHOSTS);
	for (unsigned int i = 0; i < GHOSTS; i++)
		for (unsigned int j = 0; g.io[i].status == FLASH_ERR_GONE && j < GHOST_LEN; j++)
			assert_int_equal(g.mem[i * GHOST_LEN + j], 0xee);
	assert_int_equal(flash_rw_sync(b->f, FLASH_FLUSH, 0, NULL, 0), -ENODEV);
	free(g.mem);
}

static void bed_open_again(struct bed *b)
{
	struct flash_opts opts = {.depth = DEPTH, .block_bytes = b->block, .exclusive = true};
	struct err err = {0};
	int rc;

	do /* a peer may need longer than an opening waits */
		rc = flash_open(b->sh, b->address, &opts, &b->f, &err);
	while (rc == -EBUSY && b->peer);
	if (rc < 0)
		fail_msg("%s", err_text(&err));
}

/* Closed while the kernel is at it: what it stores is what was submitted, or nothing. */
static void a_device_closed_with_ghosts_opens_again_when_they_are_gone(struct bed *b)
{
	uint8_t *want = aligned(GHOSTS * GHOST_LEN), *r = aligned(GHOST_LEN);
	struct given_up g;

	give_up_under_load(b, &g, false);
	flash_close(b->f);
	memset(g.mem, 0xdd, GHOSTS * GHOST_LEN);
	bed_open_again(b);
	fill(want, GHOSTS * GHOST_LEN, 9);
	for (unsigned int i = 1; i < GHOSTS; i += 2) {
		assert_int_equal(flash_rw_sync(b->f, FLASH_READ, g.io[i].off, r, GHOST_LEN), 0);
		for (unsigned int j = 0; j < GHOST_LEN; j++)
			assert_true(r[j] == 0 || r[j] == want[i * GHOST_LEN + j]);
	}
	for (unsigned int j = 0; j < GHOSTS * GHOST_LEN; j++)
		assert_int_equal(g.mem[j], 0xdd);
	free(want);
	free(r);
	free(g.mem);
}

/* ---- running it ------------------------------------------------------------------------------- */

static const struct backend suite_backends[] = {
	{"mem", "mem:8M", NULL, 4096, true},
	{"mem, 512", "mem:8M", NULL, 512, true},
	{"file", "file:", "/var/tmp", 4096, false},
	{"file, 512", "file:", "/var/tmp", 512, false},
	{"file, virtual time", "file:", "/var/tmp", 4096, true},
	{"file on tmpfs", "file:", "/dev/shm", 4096, false},
	{"fault over mem", "fault:mem:8M", NULL, 4096, true},
	{"volatile fault over mem, 512", "fault:volatile:mem:8M", NULL, 512, true},
	{"fault over file", "fault:file:", "/var/tmp", 4096, false},
	{"NVMe/TCP", "nvme+tcp:", NULL, 4096, false, 4096},
	{"NVMe/TCP, 512", "nvme+tcp:", NULL, 512, false, 512},
	{"NVMe/TCP, 4096 on 512", "nvme+tcp:", NULL, 4096, false, 512},
	{"fault over NVMe/TCP", "fault:nvme+tcp:", NULL, 4096, false, 4096},
};

static void over_all(void (*test)(struct bed *b))
{
	for (size_t i = 0; i < ARRAY_LEN(suite_backends); i++) {
		struct bed b;

		print_message("# %s\n", suite_backends[i].name);
		bed_open(&b, &suite_backends[i]);
		test(&b);
		bed_close(&b);
	}
}

#define SUITE(fn)                          \
	static void all_##fn(void **state) \
	{                                  \
		over_all(fn);              \
	}
SUITE(info_is_sound)
SUITE(fresh_contents_read_as_zeros_and_writes_read_back)
SUITE(the_last_block_is_there_and_the_next_is_not)
SUITE(malformed_requests_are_refused)
SUITE(scattered_and_unaligned_memory_works)
SUITE(zeroed_ranges_read_as_zeros_and_nothing_else_does)
SUITE(a_discard_leaves_its_neighbours_alone)
SUITE(depth_is_a_limit_and_everything_completes_once)
SUITE(a_completion_may_submit_and_the_last_may_close)
SUITE(random_operations_agree_with_plain_memory)
SUITE(an_abandoned_device_tells_everybody_and_lets_go_of_their_memory)
SUITE(a_device_closed_with_ghosts_opens_again_when_they_are_gone)

/* ---- addresses, opening, what only one back end has -------------------------------------------- */

static void bad_addresses_and_options_are_refused_with_a_reason(void **state)
{
	static const struct {
		const char *address;
		int rc;
	} bad[] = {{"", -EINVAL}, {"mem", -EINVAL}, {"disk:/x", -EINVAL}, {"mem:", -EINVAL},
		{"mem:0", -EINVAL}, {"mem:1000", -EINVAL}, {"mem:8X", -EINVAL},
		{"mem:8M,nam=x", -EINVAL}, {"mem:8M,name=", -EINVAL}, {"file:", -ENOENT},
		{"file:/nowhere/at/all", -ENOENT}, {"file:/dev/null", -EINVAL},
		{"file:/tmp", -EINVAL}, {"fault:", -EINVAL}, {"fault:volatile:", -EINVAL},
		{"fault:mem:7", -EINVAL}};
	struct flash_opts opts[] = {{.block_bytes = 1000}, {.depth = 1000000},
		{.atomic_bytes = 700}, {.block_bytes = 4096, .atomic_bytes = 512}};
	struct shard *sh;
	struct flash *f;
	struct err err;

	assert_int_equal(shard_open(&(struct shard_cfg){.seed = 1}, &sh), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		err = (struct err){0};
		assert_int_equal(flash_open(sh, bad[i].address, NULL, &f, &err), bad[i].rc);
		assert_true(err.reason[0]);
	}
	for (size_t i = 0; i < ARRAY_LEN(opts); i++) {
		err = (struct err){0};
		assert_int_equal(flash_open(sh, "mem:8M", &opts[i], &f, &err), -EINVAL);
		assert_true(err.field[0]);
	}
	shard_close(sh);
}

static void a_file_in_use_is_refused_and_an_empty_one_too(void **state)
{
	char path[] = "/var/tmp/parapet-flash-XXXXXX", address[64];
	struct flash_opts shared = {.exclusive = false};
	int fd = mkstemp(path);
	struct flash *f, *g;
	struct err err = {0};
	struct shard *sh;

	assert_int_equal(shard_open(&(struct shard_cfg){.seed = 1}, &sh), 0);
	snprintf(address, sizeof(address), "file:%s", path);
	assert_int_equal(flash_open(sh, address, NULL, &f, &err), -EINVAL);
	assert_string_equal(err.field, "size");
	assert_int_equal(ftruncate(fd, 1 << 20), 0);
	assert_int_equal(flash_open(sh, address, NULL, &f, &err), 0);
	assert_int_equal(flash_open(sh, address, NULL, &g, &err), -EBUSY);
	assert_int_equal(flash_open(sh, address, &shared, &g, &err), 0);
	flash_close(g);
	flash_close(f);
	assert_int_equal(flash_open(sh, address, NULL, &f, &err), 0);
	flash_close(f);
	close(fd);
	unlink(path);
	shard_close(sh);
}

static void a_file_that_shrinks_is_a_media_error(void **state)
{
	static const struct backend be = {"file", "file:", "/var/tmp", 4096, false};
	uint8_t *buf = aligned(8192);
	struct bed b;

	bed_open(&b, &be);
	assert_int_equal(truncate(b.path, 4096), 0);
	assert_int_equal(flash_rw_sync(b.f, FLASH_READ, 0, buf, 4096), 0);
	assert_int_equal(flash_rw_sync(b.f, FLASH_READ, 8192, buf, 4096), -EIO);
	assert_int_equal(flash_rw_sync(b.f, FLASH_READ, 0, buf, 8192), -EIO);
	bed_close(&b);
	free(buf);
}

static void rw(struct flash *f, struct shard *sh, enum flash_op op, uint64_t off, uint8_t *p)
{
	struct iovec iov = {p, 4096};
	struct waiter w = {1};
	struct flash_io io = {.op = op,
		.off = off,
		.len = 4096,
		.iov = &iov,
		.niov = 1,
		.checked = true,
		.done_fn = count_down,
		.arg = &w};

	assert_int_equal(flash_submit(f, &io), 0);
	while (w.pending)
		shard_run_once(sh);
	assert_int_equal(io.status, FLASH_OK);
}

/* The kernel knows memory beforehand; what it knows must not outlive it. */
static void memory_that_is_given_back_and_out_again_is_the_new_one(void **state)
{
	static const struct backend be = {"file", "file:", "/var/tmp", 4096, false};
	uint8_t *back = aligned(4096), *mem = NULL, *was;
	struct flash_stats st;
	struct bed b;

	bed_open(&b, &be);
	for (unsigned int i = 0; i < 40; i++) { /* more than a ring keeps */
		was = mem;
		mem = mem_alloc(64 << 10);
		if (was)
			mem_free(was, 64 << 10);
		memset(mem, (int)i + 1, 64 << 10);
		rw(b.f, b.sh, FLASH_WRITE, i * 4096, mem + 8192);
		mem[8192] = 0xee;
		rw(b.f, b.sh, FLASH_READ, i * 4096, back);
		assert_int_equal(back[0], i + 1);
		assert_int_equal(back[4095], i + 1);
		if (i % 2) {
			mem_free(mem, 64 << 10);
			mem = NULL;
		}
	}
	flash_stats(b.f, &st);
	assert_true(st.fixed == 0 || st.fixed == 80); /* 0: a kernel or a limit that forbids it */
	memset(back, 0x77, 4096);
	rw(b.f, b.sh, FLASH_WRITE, 0, back); /* nobody's region */
	rw(b.f, b.sh, FLASH_READ, 0, back);
	assert_int_equal(back[4095], 0x77);
	bed_close(&b);
	free(back);
}

static void named_memory_outlives_its_device(void **state)
{
	struct shard *sh;
	struct flash *f, *g;
	struct err err;
	uint8_t *buf = aligned(4096);

	assert_int_equal(shard_open(&(struct shard_cfg){.seed = 1}, &sh), 0);
	assert_int_equal(flash_open(sh, "mem:8M,name=a", NULL, &f, &err), 0);
	memset(buf, 0x5c, 4096);
	assert_int_equal(flash_rw_sync(f, FLASH_WRITE, 4096, buf, 4096), 0);
	assert_int_equal(flash_open(sh, "mem:8M,name=a", NULL, &g, &err), -EBUSY);
	flash_close(f);
	assert_int_equal(flash_open(sh, "mem:4M,name=a", NULL, &g, &err), -EINVAL);
	assert_int_equal(flash_open(sh, "mem:8M,name=a", NULL, &f, &err), 0);
	assert_non_null(flash_window(f, 4096, 4096));
	assert_int_equal(((uint8_t *)flash_window(f, 4096, 4096))[4095], 0x5c);
	assert_null(flash_window(f, 8u << 20, 4096));
	flash_mem_forget("a"); /* in use: stays */
	flash_close(f);
	assert_int_equal(flash_open(sh, "mem:8M,name=a", NULL, &f, &err), 0);
	assert_int_equal(((uint8_t *)flash_window(f, 4096, 4096))[0], 0x5c);
	flash_close(f);
	flash_mem_forget(NULL);
	assert_int_equal(flash_open(sh, "mem:8M,name=a", NULL, &f, &err), 0);
	assert_int_equal(((uint8_t *)flash_window(f, 4096, 4096))[0], 0);
	flash_close(f);
	flash_mem_forget("a");
	shard_close(sh);
	free(buf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_info_is_sound),
		cmocka_unit_test(all_fresh_contents_read_as_zeros_and_writes_read_back),
		cmocka_unit_test(all_the_last_block_is_there_and_the_next_is_not),
		cmocka_unit_test(all_malformed_requests_are_refused),
		cmocka_unit_test(all_scattered_and_unaligned_memory_works),
		cmocka_unit_test(all_zeroed_ranges_read_as_zeros_and_nothing_else_does),
		cmocka_unit_test(all_a_discard_leaves_its_neighbours_alone),
		cmocka_unit_test(all_depth_is_a_limit_and_everything_completes_once),
		cmocka_unit_test(all_a_completion_may_submit_and_the_last_may_close),
		cmocka_unit_test(all_random_operations_agree_with_plain_memory),
		cmocka_unit_test(
			all_an_abandoned_device_tells_everybody_and_lets_go_of_their_memory),
		cmocka_unit_test(all_a_device_closed_with_ghosts_opens_again_when_they_are_gone),
		cmocka_unit_test(bad_addresses_and_options_are_refused_with_a_reason),
		cmocka_unit_test(a_file_in_use_is_refused_and_an_empty_one_too),
		cmocka_unit_test(a_file_that_shrinks_is_a_media_error),
		cmocka_unit_test(memory_that_is_given_back_and_out_again_is_the_new_one),
		cmocka_unit_test(named_memory_outlives_its_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
