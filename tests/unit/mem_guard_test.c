/* SPDX-License-Identifier: BSD-3-Clause */
/* Memory that goes away: guarded memory is replaced, anything else ends the process as ever. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dpu/core/mem_guard.h"

#define PAGE  4096u
#define BYTES (8 * PAGE)

struct bed {
	int fd;
	volatile uint8_t *at;
};

static int setup(void **state)
{
	static struct bed b;

	b.fd = memfd_create("guarded", MFD_CLOEXEC);
	assert_int_equal(ftruncate(b.fd, BYTES), 0);
	b.at = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, b.fd, 0);
	assert_ptr_not_equal(b.at, MAP_FAILED);
	memset((void *)b.at, 7, BYTES);
	*state = &b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	mem_guard_del((void *)b->at);
	munmap((void *)b->at, BYTES);
	close(b->fd);
	return 0;
}

static void memory_that_is_gone_reads_as_zeros_and_takes_writes(void **state)
{
	struct bed *b = *state;
	uint64_t hits = mem_guard_hits();

	assert_int_equal(mem_guard_add((void *)b->at, BYTES), 0);
	assert_int_equal(b->at[PAGE], 7);
	assert_false(mem_guard_is_broken((void *)b->at));
	assert_int_equal(ftruncate(b->fd, 2 * PAGE), 0);
	assert_int_equal(b->at[PAGE], 7);
	assert_int_equal(mem_guard_hits(), hits);
	assert_int_equal(b->at[5 * PAGE + 1], 0);
	assert_int_equal(mem_guard_hits(), hits + 1);
	assert_true(mem_guard_is_broken((void *)(b->at + 3)));
	/* All of it, at once: no mapping per page. */
	assert_int_equal(b->at[PAGE], 0);
	b->at[7 * PAGE] = 3;
	assert_int_equal(b->at[7 * PAGE], 3);
	assert_int_equal(mem_guard_hits(), hits + 1);
	assert_true(mem_guard_del((void *)b->at));
	assert_false(mem_guard_is_broken((void *)b->at));
}

static void a_place_that_is_used_again_is_not_broken(void **state)
{
	struct bed *b = *state;

	assert_int_equal(mem_guard_add((void *)b->at, BYTES), 0);
	assert_int_equal(ftruncate(b->fd, 0), 0);
	assert_int_equal(b->at[0], 0);
	assert_true(mem_guard_del((void *)b->at));
	assert_int_equal(mem_guard_add((void *)b->at, BYTES), 0);
	assert_false(mem_guard_is_broken((void *)b->at));
	assert_false(mem_guard_del((void *)b->at));
}

/* Ends of a child that touches what is gone. */
static int child_of(struct bed *b, void (*prepare)(struct bed *b))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		struct rlimit none = {0};

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGBUS, SIG_DFL);
		prepare(b);
		if (ftruncate(b->fd, 0) == 0)
			b->at[0] = 1;
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void guarded(struct bed *b)
{
	mem_guard_add((void *)b->at, BYTES);
}

static void elsewhere(struct bed *b)
{
	mem_guard_add((void *)(b->at + PAGE), PAGE);
}

static void let_go(struct bed *b)
{
	mem_guard_add((void *)b->at, BYTES);
	mem_guard_del((void *)b->at);
}

static void sent(struct bed *b)
{
	mem_guard_add((void *)b->at, BYTES);
	raise(SIGBUS);
}

static void any_other_sigbus_ends_the_process(void **state)
{
	assert_int_equal(child_of(*state, guarded), 0);
	setup(state);
	assert_int_equal(child_of(*state, elsewhere), SIGBUS);
	setup(state);
	assert_int_equal(child_of(*state, let_go), SIGBUS);
	setup(state);
	assert_int_equal(child_of(*state, sent), SIGBUS);
}

static void a_thread_may_meet_what_it_does_not_know_yet(void **state)
{
	struct bed *b = *state;

	mem_guard_thread_begin();
	assert_false(mem_guard_thread_end());
	assert_int_equal(ftruncate(b->fd, 0), 0);
	mem_guard_thread_begin();
	assert_int_equal(b->at[2 * PAGE], 0);
	assert_true(mem_guard_thread_end());
}

static void a_read_of_the_kernels_into_it_can_be_made_again(void **state)
{
	struct bed *b = *state;
	struct iovec iov = {(void *)(b->at + PAGE - 8), 2 * PAGE};
	char out[16] = "sixteen bytes..";
	int pair[2];

	assert_int_equal(pipe(pair), 0);
	assert_int_equal(write(pair[1], out, sizeof(out)), sizeof(out));
	assert_int_equal(mem_guard_add((void *)b->at, BYTES), 0);
	assert_false(mem_guard_settle(&iov, 1));
	assert_int_equal(ftruncate(b->fd, 0), 0);
	assert_int_equal(readv(pair[0], &iov, 1), -1);
	assert_int_equal(errno, EFAULT);
	assert_true(mem_guard_settle(&iov, 1));
	assert_int_equal(readv(pair[0], &iov, 1), sizeof(out));
	assert_memory_equal(iov.iov_base, out, sizeof(out));
	iov.iov_base = out;
	iov.iov_len = sizeof(out);
	assert_false(mem_guard_settle(&iov, 1));
	close(pair[0]);
	close(pair[1]);
}

static void *reader(void *arg)
{
	struct bed *b = arg;
	uint64_t sum = 0;

	for (unsigned int i = 0; i < BYTES; i += 64)
		sum += b->at[i];
	return (void *)(uintptr_t)(sum <= 7 * BYTES / 64);
}

static void threads_meet_it_side_by_side(void **state)
{
	struct bed *b = *state;
	uint64_t hits = mem_guard_hits();

	for (int round = 0; round < 50; round++) {
		pthread_t t[4];
		void *ok;

		assert_int_equal(mem_guard_add((void *)b->at, BYTES), 0);
		for (int i = 0; i < 4; i++)
			assert_int_equal(pthread_create(&t[i], NULL, reader, b), 0);
		assert_int_equal(ftruncate(b->fd, 0), 0);
		for (int i = 0; i < 4; i++) {
			pthread_join(t[i], &ok);
			assert_non_null(ok);
		}
		assert_int_equal(b->at[0], 0);
		mem_guard_del((void *)b->at);
		munmap((void *)b->at, BYTES);
		close(b->fd);
		setup(state);
	}
	assert_int_equal(mem_guard_hits(), hits + 50);
}

static void what_is_no_mapping_is_refused(void **state)
{
	struct bed *b = *state;

	assert_int_equal(mem_guard_add(NULL, PAGE), -EINVAL);
	assert_int_equal(mem_guard_add((void *)(b->at + 1), PAGE), -EINVAL);
	assert_int_equal(mem_guard_add((void *)b->at, PAGE - 1), -EINVAL);
	assert_int_equal(mem_guard_add((void *)b->at, 0), -EINVAL);
	assert_false(mem_guard_del(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			memory_that_is_gone_reads_as_zeros_and_takes_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_place_that_is_used_again_is_not_broken, setup, teardown),
		cmocka_unit_test_setup_teardown(any_other_sigbus_ends_the_process, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_thread_may_meet_what_it_does_not_know_yet, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_read_of_the_kernels_into_it_can_be_made_again, setup, teardown),
		cmocka_unit_test_setup_teardown(threads_meet_it_side_by_side, setup, teardown),
		cmocka_unit_test_setup_teardown(what_is_no_mapping_is_refused, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
