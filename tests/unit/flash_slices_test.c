/* SPDX-License-Identifier: BSD-3-Clause */
/* Devices opened in slices: what a slice reaches, who may have it beside whom, and two threads on two of them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/flash/fault.h"
#include "tests/unit/nvme_memory.h"

#define MIB   (1024ull * 1024)
#define WIDTH (64 * MIB)
#define SIZE  (2 * WIDTH + 20 * MIB) /* two slices, and a rest that is nobody's */
#define BLOCK 4096u
#define ROUND 64u /* blocks of a thread's step */

static struct shard *sh; /* a peer's, too */
static struct nvme_memory *peer;
static char path[64];

static int setup(void **state)
{
	int fd;

	snprintf(path, sizeof(path), "/var/tmp/parapet-slices-XXXXXX");
	fd = mkstemp(path);
	if (fd < 0 || ftruncate(fd, SIZE) < 0)
		return -1;
	close(fd);
	if (shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 5}, &sh) < 0)
		return -1;
	return nvme_memory_open(sh, SIZE, BLOCK, &peer);
}

static int teardown(void **state)
{
	nvme_memory_close(peer);
	shard_close(sh);
	unlink(path);
	flash_mem_forget(NULL);
	return 0;
}

enum kind { A_FILE, A_MEM, A_PEER, A_FAULT, KINDS };

static const char *address(enum kind k)
{
	static char text[96];

	switch (k) {
	case A_FILE:
		snprintf(text, sizeof(text), "file:%s", path);
		break;
	case A_MEM:
		snprintf(text, sizeof(text), "mem:%llu,name=s", SIZE);
		break;
	case A_PEER:
		snprintf(text, sizeof(text), "nvme+tcp://127.0.0.1:%u/%s#1", peer->port,
			NVME_MEMORY_NQN);
		break;
	default:
		snprintf(text, sizeof(text), "fault:volatile:file:%s", path);
		break;
	}
	return text;
}

static struct flash_opts part(uint32_t slice, uint32_t slices)
{
	return (struct flash_opts){
		.depth = 32, .exclusive = true, .slice = slice, .slices = slices};
}

static int try_open(enum kind k, struct flash_opts o, struct flash **f)
{
	struct err err = {0};
	int rc = flash_open(sh, address(k), &o, f, &err);

	if (rc < 0)
		assert_true(err.reason[0]);
	return rc;
}

static struct flash *open_part(enum kind k, struct flash_opts o)
{
	struct flash *f = NULL;
	struct err err = {0};

	if (flash_open(sh, address(k), &o, &f, &err) < 0)
		fail_msg("%s", err_text(&err));
	return f;
}

static void put(struct flash *f, uint64_t off, uint8_t value)
{
	static uint8_t buf[BLOCK] __attribute__((aligned(4096)));

	memset(buf, value, BLOCK);
	assert_int_equal(flash_rw_sync(f, FLASH_WRITE, off, buf, BLOCK), 0);
}

static void expect(struct flash *f, uint64_t off, uint8_t value)
{
	static uint8_t buf[BLOCK] __attribute__((aligned(4096)));

	memset(buf, ~value, BLOCK);
	assert_int_equal(flash_rw_sync(f, FLASH_READ, off, buf, BLOCK), 0);
	for (unsigned int i = 0; i < BLOCK; i++)
		assert_int_equal(buf[i], value);
}

/* ---- what it is -------------------------------------------------------------------------------------- */

static void a_slice_is_a_device_of_its_width_that_begins_at_zero(void **state)
{
	for (enum kind k = 0; k < KINDS; k++) {
		struct flash *s[2], *whole;
		const struct flash_info *fi;

		for (uint32_t i = 0; i < 2; i++) {
			s[i] = open_part(k, part(i, 2));
			fi = flash_info(s[i]);
			assert_int_equal(fi->size_bytes, WIDTH);
			assert_int_equal(fi->slice, i);
			assert_int_equal(fi->slices, 2);
			assert_int_equal(fi->cut_bytes, SIZE);
			assert_string_equal(fi->address, address(k));
			put(s[i], 0, (uint8_t)(0x10 + i));
			put(s[i], WIDTH - BLOCK, (uint8_t)(0x20 + i));
			assert_int_equal(flash_rw_sync(s[i], FLASH_FLUSH, 0, NULL, 0), 0);
		}
		for (uint32_t i = 0; i < 2; i++) {
			expect(s[i], 0, (uint8_t)(0x10 + i));
			expect(s[i], WIDTH - BLOCK, (uint8_t)(0x20 + i));
			flash_close(s[i]);
		}
		whole = open_part(k, part(0, 0));
		fi = flash_info(whole);
		assert_int_equal(fi->size_bytes, SIZE);
		assert_int_equal(fi->slice, 0);
		assert_int_equal(fi->slices, 1);
		assert_int_equal(fi->cut_bytes, 0);
		expect(whole, 0, 0x10);
		expect(whole, WIDTH - BLOCK, 0x20);
		expect(whole, WIDTH, 0x11);
		expect(whole, 2 * WIDTH - BLOCK, 0x21);
		expect(whole, 2 * WIDTH, 0);
		flash_close(whole);
	}
}

static void nothing_of_a_slice_reaches_beyond_it(void **state)
{
	for (enum kind k = 0; k < KINDS; k++) {
		struct flash *whole = open_part(k, part(0, 1)), *s;

		put(whole, WIDTH - BLOCK, 0x77);
		put(whole, 2 * WIDTH, 0x78);
		put(whole, WIDTH, 0x79);
		flash_close(whole);
		s = open_part(k, part(1, 2));
		assert_int_equal(flash_rw_sync(s, FLASH_READ, WIDTH, s, BLOCK), -EINVAL);
		assert_int_equal(
			flash_rw_sync(s, FLASH_WRITE_ZEROES, WIDTH - BLOCK, NULL, 2 * BLOCK),
			-EINVAL);
		assert_int_equal(flash_rw_sync(s, FLASH_DISCARD, 0, NULL, WIDTH + BLOCK), -EINVAL);
		assert_int_equal(
			flash_rw_sync(s, FLASH_READ, UINT64_MAX - WIDTH + 1, s, BLOCK), -EINVAL);
		assert_null(flash_window(s, WIDTH, BLOCK));
		assert_int_equal(flash_rw_sync(s, FLASH_WRITE_ZEROES, 0, NULL, WIDTH), 0);
		expect(s, 0, 0);
		assert_int_equal(flash_rw_sync(s, FLASH_DISCARD, 0, NULL, WIDTH), 0);
		flash_close(s);
		whole = open_part(k, part(0, 1));
		expect(whole, WIDTH - BLOCK, 0x77);
		expect(whole, 2 * WIDTH, 0x78);
		flash_close(whole);
	}
}

static void ended(struct flash_io *io)
{
	*(uint64_t *)io->arg = io->off;
}

static bool is_set(void *arg)
{
	return *(uint64_t *)arg != UINT64_MAX;
}

static void an_io_has_its_own_offset_again_when_it_ends_or_is_refused(void **state)
{
	static uint8_t buf[BLOCK] __attribute__((aligned(4096)));
	uint64_t seen = UINT64_MAX;
	struct iovec iov = {buf, BLOCK};
	struct flash_io io = {.op = FLASH_WRITE,
		.off = 3 * BLOCK,
		.len = BLOCK,
		.iov = &iov,
		.niov = 1,
		.done_fn = ended,
		.arg = &seen};
	struct flash *s = open_part(A_FAULT, part(1, 2));

	/* A rule's range is the slice's, too. */
	assert_int_equal(fault_rule_add(s, &(struct fault_rule){.any_op = true,
						   .off = 3 * BLOCK,
						   .len = BLOCK,
						   .per_million = 1000000,
						   .status = FLASH_ERR_MEDIA}),
		0);
	assert_int_equal(flash_submit(s, &io), 0);
	assert_int_equal(shard_wait(sh, is_set, &seen, 0), 0);
	assert_int_equal(seen, 3 * BLOCK);
	assert_int_equal(io.status, FLASH_ERR_MEDIA);
	assert_int_equal(fault_hits(s), 1);
	io.off = WIDTH;
	assert_int_equal(flash_submit(s, &io), -EINVAL);
	assert_int_equal(io.off, WIDTH);
	flash_abandon(s);
	io.off = 0;
	assert_int_equal(flash_submit(s, &io), -ENODEV);
	assert_int_equal(io.off, 0);
	flash_close(s);
}

static void windows_are_of_the_slice(void **state)
{
	struct flash *s = open_part(A_MEM, part(1, 2)), *own, *whole;
	struct err err = {0};
	struct flash_opts o = part(3, 4);

	memset(flash_window(s, BLOCK, BLOCK), 0x3c, BLOCK);
	expect(s, BLOCK, 0x3c);
	flash_close(s);
	whole = open_part(A_MEM, part(0, 0));
	expect(whole, WIDTH + BLOCK, 0x3c);
	flash_close(whole);
	/* Without a name: memory of the slice's own. */
	assert_int_equal(flash_open(sh, "mem:128M", &o, &own, &err), 0);
	assert_int_equal(flash_info(own)->size_bytes, 32 * MIB);
	put(own, 32 * MIB - BLOCK, 0x4d);
	assert_int_equal(((uint8_t *)flash_window(own, 32 * MIB - BLOCK, BLOCK))[BLOCK - 1], 0x4d);
	flash_close(own);
}

static void the_width_stays_when_the_device_grows_and_it_must_not_shrink(void **state)
{
	struct flash_opts o = part(1, 2);
	struct flash *f;

	f = open_part(A_FILE, o);
	put(f, 0, 0x66);
	flash_close(f);
	assert_int_equal(truncate(path, 4 * WIDTH), 0);
	o.cut_bytes = SIZE;
	f = open_part(A_FILE, o);
	assert_int_equal(flash_info(f)->size_bytes, WIDTH);
	assert_int_equal(flash_info(f)->cut_bytes, SIZE);
	expect(f, 0, 0x66);
	flash_close(f);
	assert_int_equal(truncate(path, SIZE - BLOCK), 0);
	assert_int_equal(try_open(A_FILE, o, &f), -EUCLEAN);
	o.cut_bytes = SIZE + BLOCK;
	assert_int_equal(try_open(A_MEM, o, &f), -EUCLEAN);
}

static void slices_that_cannot_be_are_refused(void **state)
{
	static const struct {
		struct flash_opts o;
		const char *field;
	} bad[] = {{{.slices = FLASH_SLICES_MAX + 1}, "slices"},
		{{.slice = 2, .slices = 2}, "slice"}, {{.slice = 1}, "slice"},
		{{.slice = 1, .slices = 1}, "slice"}, {{.cut_bytes = SIZE}, "slices"},
		{{.slices = 1, .cut_bytes = SIZE}, "slices"}, {{.slices = 5}, "slices"},
		{{.slices = 2, .cut_bytes = 63 * MIB}, "slices"}};
	struct err err;
	struct flash *f;

	for (enum kind k = 0; k < KINDS; k++) {
		for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
			err = (struct err){0};
			assert_int_equal(flash_open(sh, address(k), &bad[i].o, &f, &err), -EINVAL);
			assert_string_equal(err.field, bad[i].field);
			assert_true(err.reason[0]);
		}
	}
	assert_int_equal(flash_slice_bytes(SIZE, 2), WIDTH);
	assert_int_equal(flash_slice_bytes(SIZE, 5), 0);
	assert_int_equal(flash_slice_bytes(SIZE, 0), 0);
	assert_int_equal(flash_slice_bytes(UINT64_MAX, 1) % FLASH_SLICE_ALIGN, 0);
}

/* ---- who has it ------------------------------------------------------------------------------------------ */

static void a_slice_has_one_owner_and_beside_it_there_is_no_whole(void **state)
{
	struct flash_opts shared = {0}, other_cut = part(1, 2);

	other_cut.cut_bytes = SIZE - BLOCK;
	for (enum kind k = 0; k <= A_PEER; k++) {
		struct flash *s0 = open_part(k, part(0, 2)), *s1 = open_part(k, part(1, 2)), *f;

		assert_int_equal(try_open(k, part(0, 2), &f), -EBUSY);
		assert_int_equal(try_open(k, part(1, 2), &f), -EBUSY);
		assert_int_equal(try_open(k, part(0, 0), &f), -EBUSY);
		f = open_part(k, shared); /* who only looks */
		flash_close(f);
		flash_close(s1);
		assert_int_equal(try_open(k, part(0, 1), &f), -EBUSY);
		s1 = open_part(k, part(1, 2));
		flash_close(s0);
		assert_int_equal(try_open(k, part(0, 4), &f), k == A_FILE ? 0 : -EBUSY);
		if (k == A_FILE)
			flash_close(f); /* other bytes */
		flash_close(s1);
		f = open_part(k, part(0, 0));
		assert_int_equal(try_open(k, part(1, 2), &s1), -EBUSY);
		flash_close(f);
		s0 = open_part(k, part(0, 2));
		assert_int_equal(try_open(k, other_cut, &f), k == A_FILE ? 0 : -EBUSY);
		if (k == A_FILE)
			flash_close(f);
		flash_close(s0);
	}
}

/* 0: opened; else the error, as an exit status. */
static int in_another_process(struct flash_opts o)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		struct shard *own;
		struct flash *f;
		int rc = shard_open(&(struct shard_cfg){.seed = 6}, &own);

		if (rc == 0)
			rc = flash_open(own, address(A_FILE), &o, &f, NULL);
		_exit(-rc);
	}
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void another_process_is_kept_out_of_all_slices_while_one_is_open(void **state)
{
	struct flash *s1 = open_part(A_FILE, part(1, 2)), *s0;
	struct flash_opts shared = {0};

	assert_int_equal(in_another_process(part(0, 2)), EBUSY);
	assert_int_equal(in_another_process(part(1, 2)), EBUSY);
	assert_int_equal(in_another_process(part(0, 0)), EBUSY);
	assert_int_equal(in_another_process(shared), 0);
	s0 = open_part(A_FILE, part(0, 2));
	flash_close(s1);
	assert_int_equal(in_another_process(part(1, 2)), EBUSY);
	flash_close(s0);
	assert_int_equal(in_another_process(part(1, 2)), 0);
	s0 = open_part(A_FILE, part(0, 0));
	assert_int_equal(in_another_process(part(1, 2)), EBUSY);
	flash_close(s0);
	assert_int_equal(in_another_process(part(0, 0)), 0);
}

static void what_a_killed_process_had_can_be_opened(void **state)
{
	struct flash *f;
	int fds[2], status;
	char c;
	pid_t pid;

	assert_int_equal(pipe(fds), 0);
	pid = fork();
	if (!pid) {
		struct shard *own;
		struct flash_opts o = part(1, 2);

		if (shard_open(&(struct shard_cfg){.seed = 6}, &own) < 0 ||
			flash_open(own, address(A_FILE), &o, &f, NULL) < 0 ||
			write(fds[1], "x", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	assert_int_equal(read(fds[0], &c, 1), 1);
	assert_int_equal(try_open(A_FILE, part(0, 2), &f), -EBUSY);
	assert_int_equal(try_open(A_FILE, part(0, 0), &f), -EBUSY);
	kill(pid, SIGKILL);
	f = open_part(A_FILE, part(1, 2)); /* at once: it waits for the dead */
	flash_close(f);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(fds[0]);
	close(fds[1]);
}

/* ---- threads ---------------------------------------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	char address[96], why[256];
	uint32_t slice;
	struct shard *sh;
	struct flash *f;
	uint8_t stamp[WIDTH / BLOCK]; /* of each block: what it holds */
	uint8_t *buf;
	uint64_t random;
	int steps;
	atomic_bool over;
};

static uint64_t next(struct worker *w)
{
	w->random ^= w->random << 13;
	w->random ^= w->random >> 7;
	w->random ^= w->random << 17;
	return w->random;
}

static bool fails(struct worker *w, const char *what, int rc)
{
	if (rc)
		snprintf(w->why, sizeof(w->why), "slice %u: %s: %d", w->slice, what, rc);
	return rc;
}

static bool reopen(struct worker *w)
{
	struct flash_opts o = part(w->slice, 2);
	struct err err = {0};
	int rc;

	if (w->f)
		flash_close(w->f);
	w->f = NULL;
	rc = flash_open(w->sh, w->address, &o, &w->f, &err);
	return fails(w, err_text(&err), rc);
}

static bool write_some(struct worker *w, uint64_t at, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		w->stamp[at + i] = (uint8_t)next(w);
		memset(w->buf + (size_t)i * BLOCK, w->stamp[at + i], BLOCK);
	}
	return fails(w, "write",
		flash_rw_sync(w->f, FLASH_WRITE, at * BLOCK, w->buf, (uint64_t)n * BLOCK));
}

static bool zero_some(struct worker *w, uint64_t at, uint32_t n)
{
	memset(w->stamp + at, 0, n);
	return fails(w, "zero",
		flash_rw_sync(w->f, FLASH_WRITE_ZEROES, at * BLOCK, NULL, (uint64_t)n * BLOCK));
}

static bool read_some(struct worker *w, uint64_t at, uint32_t n)
{
	if (fails(w, "read",
		    flash_rw_sync(w->f, FLASH_READ, at * BLOCK, w->buf, (uint64_t)n * BLOCK)))
		return true;
	for (size_t i = 0; i < (size_t)n * BLOCK; i++)
		if (w->buf[i] != w->stamp[at + i / BLOCK])
			return fails(w, "not what was written", (int)(at + i / BLOCK) + 1);
	return false;
}

static bool step(struct worker *w)
{
	uint32_t n = 1 + (uint32_t)(next(w) % ROUND);
	uint64_t at = next(w) % (WIDTH / BLOCK - n + 1);

	switch (next(w) % 8) {
	case 0:
		return reopen(w);
	case 1:
		return zero_some(w, at, n);
	case 2:
		return fails(w, "flush", flash_rw_sync(w->f, FLASH_FLUSH, 0, NULL, 0));
	case 3:
	case 4:
		return read_some(w, at, n);
	default:
		return write_some(w, at, n);
	}
}

static void *work(void *arg)
{
	struct worker *w = arg;
	int steps = w->steps;
	bool bad = fails(w, "shard",
		shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = w->random}, &w->sh));

	bad = bad || reopen(w);
	for (int i = 0; i < steps && !bad; i++)
		bad = step(w);
	for (uint64_t at = 0; at < WIDTH / BLOCK && !bad; at += ROUND)
		bad = read_some(w, at, ROUND);
	if (w->f)
		flash_close(w->f);
	if (w->sh)
		shard_close(w->sh);
	atomic_store(&w->over, true);
	return NULL;
}

static void two_threads_each_have_a_slice_of_the_same_device(void **state)
{
	static struct worker w[2];

	for (enum kind k = 0; k < KINDS; k++) {
		for (uint32_t i = 0; i < 2; i++) {
			memset(&w[i], 0, sizeof(w[i]));
			w[i].slice = i;
			w[i].steps = k == A_PEER ? 100 : 300;
			w[i].random = 77 + 13 * k + i;
			assert_int_equal(
				posix_memalign((void **)&w[i].buf, 4096, ROUND * BLOCK), 0);
			snprintf(w[i].address, sizeof(w[i].address), "%s", address(k));
		}
		assert_int_equal(truncate(path, 0), 0);
		assert_int_equal(truncate(path, SIZE), 0);
		for (uint32_t i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
		while (!atomic_load(&w[0].over) ||
			!atomic_load(&w[1].over)) /* the peer lives here */
			shard_run_once(sh);
		for (uint32_t i = 0; i < 2; i++) {
			assert_int_equal(pthread_join(w[i].thread, NULL), 0);
			free(w[i].buf);
		}
		assert_string_equal(w[0].why, "");
		assert_string_equal(w[1].why, "");
	}
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_slice_is_a_device_of_its_width_that_begins_at_zero),
		T(nothing_of_a_slice_reaches_beyond_it),
		T(an_io_has_its_own_offset_again_when_it_ends_or_is_refused),
		T(windows_are_of_the_slice),
		T(the_width_stays_when_the_device_grows_and_it_must_not_shrink),
		T(slices_that_cannot_be_are_refused),
		T(a_slice_has_one_owner_and_beside_it_there_is_no_whole),
		T(another_process_is_kept_out_of_all_slices_while_one_is_open),
		T(what_a_killed_process_had_can_be_opened),
		T(two_threads_each_have_a_slice_of_the_same_device),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
