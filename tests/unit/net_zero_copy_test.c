/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sends out of the caller's memory: the book of numbers alone, then streams on loopback. Loopback copies and says so; two system calls are
 * interposed, so that the reports can be made to look like a network device's, held back, or refused.
 */
#include "dpu/net/zero_copy.h"

#include <time.h>

#include <errno.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/net/sockets.h"

#define ROUNDS_MAX 200000
#define LARGE      (256u << 10)
#define SMALL      4096u
#define CAP        (8u << 20)

/* ---- the kernel, as the test wants it ---------------------------------------------------------------------- */

static bool hide_copied, hold_reports, no_room;
static int nzero_copy_calls;
static int late_reports; /* so many times there is nothing yet */

ssize_t sendmsg(int fd, const struct msghdr *m, int flags)
{
	if (flags & MSG_ZEROCOPY) {
		nzero_copy_calls++;
		if (no_room) {
			errno = ENOBUFS;
			return -1;
		}
	}
	return syscall(SYS_sendmsg, fd, m, flags);
}

ssize_t recvmsg(int fd, struct msghdr *m, int flags)
{
	ssize_t n;

	if ((flags & MSG_ERRQUEUE) && (hold_reports || late_reports > 0)) {
		late_reports--;
		errno = EAGAIN;
		return -1;
	}
	n = syscall(SYS_recvmsg, fd, m, flags);
	if (n >= 0 && (flags & MSG_ERRQUEUE) && hide_copied && CMSG_FIRSTHDR(m))
		((struct sock_extended_err *)CMSG_DATA(CMSG_FIRSTHDR(m)))->ee_code = 0;
	return n;
}

/* ---- the book ------------------------------------------------------------------------------------------------ */

static void numbers_are_released_in_order_whatever_the_reports_order(void **state)
{
	static struct zc z;

	memset(&z, 0, sizeof(z));
	z.next = z.released = UINT32_MAX - 2; /* wraps on the way */
	for (uint32_t i = 0; i < 6; i++)
		assert_int_equal(zc_sent(&z, 100 + i), UINT32_MAX - 2 + i);
	assert_int_equal(zc_outstanding(&z), 6);
	zc_report(&z, UINT32_MAX, 0, false); /* the third and fourth */
	assert_int_equal(zc_outstanding(&z), 6);
	assert_false(zc_is_released(&z, UINT32_MAX));
	zc_report(&z, UINT32_MAX - 2, UINT32_MAX - 2, true);
	assert_true(zc_is_released(&z, UINT32_MAX - 2));
	assert_false(zc_is_released(&z, UINT32_MAX - 1));
	zc_report(&z, UINT32_MAX - 1, UINT32_MAX - 1, false);
	assert_int_equal(zc_outstanding(&z), 2);
	assert_true(zc_is_released(&z, 0));
	assert_false(zc_is_released(&z, 1));
	zc_report(&z, 1, 2, false);
	assert_int_equal(zc_outstanding(&z), 0);
	assert_int_equal(z.copied_bytes, 100);
	assert_int_equal(z.free_bytes, 101 + 102 + 103 + 104 + 105);
	assert_int_equal(z.nonsense, 0);
}

static void reports_of_what_is_not_out_change_nothing(void **state)
{
	static struct zc z;

	memset(&z, 0, sizeof(z));
	zc_report(&z, 0, 0, false);
	for (int i = 0; i < 4; i++)
		zc_sent(&z, 1);
	zc_report(&z, 3, 1, false);
	zc_report(&z, 2, 4, false);
	zc_report(&z, 0xfffffff0, 2, false);
	assert_int_equal(z.nonsense, 4);
	assert_int_equal(zc_outstanding(&z), 4);
	zc_report(&z, 2, 2, false);
	zc_report(&z, 2, 2, false); /* twice */
	assert_int_equal(z.nonsense, 5);
	assert_int_equal(z.free_bytes, 1);
	zc_report(&z, 0, 3, false);
	assert_int_equal(z.free_bytes, 4);
	assert_int_equal(zc_outstanding(&z), 0);
}

static void the_window_is_bounded_and_used_again(void **state)
{
	static struct zc z;

	memset(&z, 0, sizeof(z));
	for (uint32_t round = 0; round < 5; round++) {
		while (zc_room(&z))
			zc_sent(&z, 1);
		assert_int_equal(zc_outstanding(&z), ZC_WINDOW);
		/* odd ones first, then the rest from behind */
		for (uint32_t i = 1; i < ZC_WINDOW; i += 2)
			zc_report(&z, round * ZC_WINDOW + i, round * ZC_WINDOW + i, false);
		assert_int_equal(zc_outstanding(&z), ZC_WINDOW);
		for (uint32_t i = ZC_WINDOW; i > 0; i -= 2)
			zc_report(&z, round * ZC_WINDOW + i - 2, round * ZC_WINDOW + i - 2, false);
		assert_int_equal(zc_outstanding(&z), 0);
	}
	assert_int_equal(z.nonsense, 0);
	assert_int_equal(z.free_bytes, 5 * ZC_WINDOW);
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

struct fixture {
	struct shard *sh;
	struct stream_listener *l;
	struct stream *server, *client;
	struct stream_counters counters;
	uint8_t *got, *out;
	size_t ngot;
	bool eof;
	int sent, send_err, closed_err;
};

static void server_readable(struct stream *s, void *arg)
{
	struct fixture *f = arg;
	struct iovec iov = {f->got + f->ngot, CAP - f->ngot};
	ssize_t n = stream_recv(s, &iov, 1);

	if (n == 0)
		f->eof = true;
	if (n > 0)
		f->ngot += (size_t)n;
}

static void server_closed(struct stream *s, void *arg, int err)
{
	((struct fixture *)arg)->eof = true;
}

static void client_readable(struct stream *s, void *arg)
{
	uint8_t b[16];

	(void)stream_recv(s, &(struct iovec){b, sizeof(b)}, 1);
}

static void client_closed(struct stream *s, void *arg, int err)
{
	((struct fixture *)arg)->closed_err = err;
}

static const struct stream_events server_events = {server_readable, server_closed};
static const struct stream_events client_events = {client_readable, client_closed};

static void sent(struct stream_tx *tx, int status)
{
	struct fixture *f = tx->arg;

	f->sent++;
	if (status < 0)
		f->send_err = status;
}

static int accepted(struct stream_listener *l, void *arg, struct stream *s)
{
	struct fixture *f = arg;

	f->server = s;
	stream_set_events(s, &server_events, f);
	return 0;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct sockets_cfg cfg = {.addr = "127.0.0.1", .zero_copy = true};

	hide_copied = hold_reports = no_room = false;
	nzero_copy_calls = late_reports = 0;
	f->got = malloc(CAP);
	f->out = malloc(CAP);
	for (size_t i = 0; i < CAP; i++)
		f->out[i] = (uint8_t)(i * 2654435761u >> 13);
	assert_int_equal(
		shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &f->sh), 0);
	assert_int_equal(sockets_listen(f->sh, &cfg, &f->l, NULL), 0);
	assert_int_equal(stream_listener_start(f->l, accepted, f), 0);
	cfg.port = stream_listener_addr(f->l)->port;
	assert_int_equal(sockets_connect(f->sh, &cfg, &client_events, f, &f->client, NULL), 0);
	stream_count_into(f->client, &f->counters);
	for (int i = 0; i < ROUNDS_MAX && !f->server; i++)
		shard_run_once(f->sh);
	assert_non_null(f->server);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	hold_reports = false;
	if (f->client)
		stream_close(f->client);
	if (f->server)
		stream_close(f->server);
	stream_listener_close(f->l);
	shard_close(f->sh);
	free(f->got);
	free(f->out);
	free(f);
	return 0;
}

static void rounds(struct fixture *f, int n)
{
	while (n--)
		shard_run_once(f->sh);
}

static void until_sent(struct fixture *f, int n)
{
	for (int i = 0; i < ROUNDS_MAX && f->sent < n; i++)
		shard_run_once(f->sh);
	assert_int_equal(f->sent, n);
}

static void until_got(struct fixture *f, size_t n)
{
	for (int i = 0; i < ROUNDS_MAX && f->ngot < n; i++)
		shard_run_once(f->sh);
	assert_int_equal(f->ngot, n);
}

static void send_one(
	struct fixture *f, struct stream_tx *tx, struct iovec *iov, size_t at, size_t len)
{
	*iov = (struct iovec){f->out + at, len};
	*tx = (struct stream_tx){.iov = iov, .niov = 1, .done_fn = sent, .arg = f};
	assert_int_equal(stream_send(f->client, tx), 0);
}

static void a_large_send_is_done_when_its_memory_is_let_go_of(void **state)
{
	struct fixture *f = *state;
	struct stream_tx tx;
	struct iovec iov;

	hold_reports = true;
	send_one(f, &tx, &iov, 0, LARGE);
	until_got(f, LARGE);
	rounds(f, 100);
	assert_int_equal(stream_unsent(f->client), 0);
	assert_int_equal(f->sent,
		0); /* the peer has it all; the kernel has not said that it is done with it */
	hold_reports = false;
	until_sent(f, 1);
	assert_int_equal(f->send_err, 0);
	assert_memory_equal(f->got, f->out, LARGE);
}

static void a_kernel_that_copies_is_not_asked_again(void **state)
{
	struct fixture *f = *state;
	struct stream_tx tx;
	struct iovec iov;
	int calls;

	send_one(f, &tx, &iov, 0, LARGE);
	until_sent(f, 1);
	calls = nzero_copy_calls;
	assert_true(calls > 0);
	assert_int_equal(f->counters.zero_copy_copied_bytes, LARGE);
	assert_int_equal(f->counters.zero_copy_bytes, 0);
	send_one(f, &tx, &iov, LARGE, LARGE);
	until_sent(f, 2);
	until_got(f, 2 * LARGE);
	assert_int_equal(nzero_copy_calls, calls);
	assert_int_equal(f->counters.zero_copy_copied_bytes, LARGE);
	assert_memory_equal(f->got, f->out, 2 * LARGE);
}

static void large_and_small_ones_keep_their_order_and_small_ones_are_copied(void **state)
{
	enum { N = 48 };
	struct fixture *f = *state;
	struct stream_tx tx[N];
	struct iovec iov[N];
	size_t at = 0, large = 0;

	hide_copied = true;
	for (int i = 0; i < N; i++) {
		size_t len = i % 3 == 1   ? SMALL
			     : i % 3 == 2 ? SOCKETS_ZERO_COPY_MIN - 1
					  : LARGE / 2;

		send_one(f, &tx[i], &iov[i], at, len);
		at += len;
		large += len == LARGE / 2 ? len : 0;
	}
	until_sent(f, N);
	until_got(f, at);
	assert_memory_equal(f->got, f->out, at);
	assert_int_equal(f->send_err, 0);
	assert_int_equal(f->counters.zero_copy_bytes, large);
	assert_int_equal(f->counters.zero_copy_copied_bytes, 0);
	assert_true(f->counters.sends >= (uint64_t)nzero_copy_calls);
}

static void without_room_it_is_copied_and_counted(void **state)
{
	struct fixture *f = *state;
	struct stream_tx tx[2];
	struct iovec iov[2];

	no_room = true;
	send_one(f, &tx[0], &iov[0], 0, LARGE);
	until_sent(f, 1);
	until_got(f, LARGE);
	assert_memory_equal(f->got, f->out, LARGE);
	assert_int_equal(f->counters.zero_copy_no_room, 1); /* not tried again for each call */
	assert_int_equal(f->counters.zero_copy_bytes + f->counters.zero_copy_copied_bytes, 0);
}

/* The peer reads nothing: most of it stays in our kernel, out of our pages. */
static void send_into_a_wall(struct fixture *f, struct stream_tx *tx, struct iovec *iov)
{
	stream_pause(f->server);
	send_one(f, tx, iov, 0, 2 * LARGE);
	rounds(f, 500);
	assert_int_equal(f->sent, 0);
}

static void giving_up_waits_for_the_kernel_and_cancels(void **state)
{
	struct fixture *f = *state;
	struct stream_tx tx;
	struct iovec iov;

	send_into_a_wall(f, &tx, &iov);
	stream_close(f->client);
	f->client = NULL;
	assert_int_equal(f->sent, 1);
	assert_int_equal(f->send_err, -ECANCELED);
	/* every call was reported before the stream went: nothing is read any more */
	assert_true(f->counters.zero_copy_copied_bytes > 0);
	memset(f->out, 0, LARGE);
	stream_resume(f->server);
	for (int i = 0; i < ROUNDS_MAX && !f->eof; i++)
		shard_run_once(f->sh);
	assert_true(f->eof);
	for (size_t i = 0; i < f->ngot; i++)
		assert_int_equal(f->got[i], (uint8_t)(i * 2654435761u >> 13));
}

static void a_device_that_is_slow_to_let_go_is_waited_for(void **state)
{
	struct fixture *f = *state;
	struct stream_tx tx;
	struct iovec iov;

	send_into_a_wall(f, &tx, &iov);
	late_reports = 20;
	stream_abort(f->client);
	f->client = NULL;
	assert_true(late_reports <= 0);
	assert_int_equal(f->sent, 1);
	assert_true(f->counters.zero_copy_copied_bytes > 0);
}

static void what_is_held_ends_with_the_connection(void **state)
{
	struct fixture *f = *state;
	struct stream_tx tx;
	struct iovec iov;

	send_into_a_wall(f, &tx, &iov);
	stream_abort(f->server);
	f->server = NULL;
	for (int i = 0; i < ROUNDS_MAX && !f->closed_err; i++)
		shard_run_once(f->sh);
	assert_true(f->closed_err < 0);
	assert_int_equal(f->sent, 1); /* before it is told: the kernel let go of it at the reset */
}

static void our_end_comes_after_everything_held(void **state)
{
	struct fixture *f = *state;
	struct stream_tx tx;
	struct iovec iov;

	hide_copied = true;
	send_into_a_wall(f, &tx, &iov);
	assert_int_equal(stream_shutdown(f->client), 0);
	rounds(f, 100);
	stream_resume(f->server);
	for (int i = 0; i < ROUNDS_MAX && !f->eof; i++)
		shard_run_once(f->sh);
	assert_true(f->eof);
	assert_int_equal(f->ngot, 2 * LARGE);
	assert_memory_equal(f->got, f->out, 2 * LARGE);
	assert_int_equal(f->sent, 1);
	assert_int_equal(f->send_err, 0);
	assert_int_equal(f->closed_err, 0);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_released_in_order_whatever_the_reports_order),
		cmocka_unit_test(reports_of_what_is_not_out_change_nothing),
		cmocka_unit_test(the_window_is_bounded_and_used_again),
		T(a_large_send_is_done_when_its_memory_is_let_go_of),
		T(a_kernel_that_copies_is_not_asked_again),
		T(large_and_small_ones_keep_their_order_and_small_ones_are_copied),
		T(without_room_it_is_copied_and_counted),
		T(giving_up_waits_for_the_kernel_and_cancels),
		T(a_device_that_is_slow_to_let_go_is_waited_for),
		T(what_is_held_ends_with_the_connection),
		T(our_end_comes_after_everything_held),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
