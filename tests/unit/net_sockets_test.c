/* SPDX-License-Identifier: BSD-3-Clause */
/* Streams over kernel sockets on loopback: a server side on the stream interface, a client that is one too or a bare socket. */
#include "dpu/net/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/util.h"

#define ROUNDS_MAX 200000
#define BULK_BYTES (3u << 20)

/* What one side has seen. */
struct side {
	struct stream *s;
	uint8_t *got;
	size_t ngot, cap;
	bool eof, closed, close_in_readable, close_in_closed;
	int err, readables, sent, send_err;
};

struct fixture {
	struct shard *sh;
	struct stream_listener *l;
	struct side server, client;
	struct stream *first; /* an accepted stream that a later one took the place of */
	int refuse; /* accept_fn returns this */
	int naccepted;
};

static void side_readable(struct stream *s, void *arg)
{
	struct side *d = arg;
	uint8_t buf[2][1500];
	struct iovec iov[2] = {{buf[0], sizeof(buf[0])}, {buf[1], sizeof(buf[1])}};
	ssize_t n;

	assert_false(d->closed);
	assert_false(d->eof);
	d->readables++;
	if (d->close_in_readable) {
		d->s = NULL;
		stream_close(s);
		return;
	}
	n = stream_recv(s, iov, 2);
	if (n == 0)
		d->eof = true;
	if (n <= 0)
		return;
	assert_true(d->ngot + (size_t)n <= d->cap);
	memcpy(d->got + d->ngot, buf[0], MIN((size_t)n, sizeof(buf[0])));
	if ((size_t)n > sizeof(buf[0]))
		memcpy(d->got + d->ngot + sizeof(buf[0]), buf[1], (size_t)n - sizeof(buf[0]));
	d->ngot += (size_t)n;
}

static void side_closed(struct stream *s, void *arg, int err)
{
	struct side *d = arg;

	assert_false(d->closed);
	d->closed = true;
	d->err = err;
	if (d->close_in_closed) {
		d->s = NULL;
		stream_close(s);
	}
}

static const struct stream_events side_events = {side_readable, side_closed};

static void side_sent(struct stream_tx *tx, int status)
{
	struct side *d = tx->arg;

	d->sent++;
	if (status < 0)
		d->send_err = status;
}

static int accepted(struct stream_listener *l, void *arg, struct stream *s)
{
	struct fixture *f = arg;

	if (f->refuse)
		return f->refuse;
	f->naccepted++;
	if (f->server.s)
		f->first = f->server.s;
	f->server.s = s;
	stream_set_events(s, &side_events, &f->server);
	return 0;
}

static void until(struct fixture *f, const bool *flag)
{
	for (int i = 0; i < ROUNDS_MAX && !*flag; i++)
		shard_run_once(f->sh);
	assert_true(*flag);
}

static void until_ptr(struct fixture *f, struct stream *const *p)
{
	for (int i = 0; i < ROUNDS_MAX && !*p; i++)
		shard_run_once(f->sh);
	assert_non_null(*p);
}

static void until_bytes(struct fixture *f, const struct side *d, size_t n)
{
	for (int i = 0; i < ROUNDS_MAX && d->ngot < n; i++)
		shard_run_once(f->sh);
	assert_int_equal(d->ngot, n);
}

static void rounds(struct fixture *f, int n)
{
	while (n--)
		shard_run_once(f->sh);
}

static int setup_caps(void **state, uint32_t max_conns)
{
	struct fixture *f = calloc(1, sizeof(*f));
	struct err err;

	assert_int_equal(
		shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &f->sh), 0);
	assert_int_equal(sockets_listen(f->sh,
				 &(struct sockets_cfg){.addr = "127.0.0.1", .max_conns = max_conns},
				 &f->l, &err),
		0);
	assert_int_equal(stream_listener_start(f->l, accepted, f), 0);
	f->server.cap = f->client.cap = BULK_BYTES;
	f->server.got = malloc(BULK_BYTES);
	f->client.got = malloc(BULK_BYTES);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_caps(state, 2);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	if (f->server.s)
		stream_close(f->server.s);
	if (f->client.s)
		stream_close(f->client.s);
	if (f->l)
		stream_listener_close(f->l);
	rounds(f, 10);
	shard_close(f->sh);
	free(f->server.got);
	free(f->client.got);
	free(f);
	return 0;
}

static struct sockets_cfg to_listener(struct fixture *f)
{
	return (struct sockets_cfg){.addr = "127.0.0.1", .port = stream_listener_addr(f->l)->port};
}

static void connect_both(struct fixture *f)
{
	struct sockets_cfg cfg = to_listener(f);

	assert_int_equal(
		sockets_connect(f->sh, &cfg, &side_events, &f->client, &f->client.s, NULL), 0);
	until_ptr(f, &f->server.s);
}

static int bare_client(struct fixture *f)
{
	struct sockaddr_in in = {
		.sin_family = AF_INET, .sin_port = htons(stream_listener_addr(f->l)->port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	return fd;
}

static void fill(uint8_t *p, size_t n, uint32_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)((i * 2654435761u + seed) >> 13);
}

static void many_transmissions_arrive_whole_and_in_order(void **state)
{
	struct fixture *f = *state;
	enum { N = 64 };
	static uint8_t out[BULK_BYTES];
	struct stream_tx tx[N];
	struct iovec iov[N][3];
	size_t each = BULK_BYTES / N;

	connect_both(f);
	assert_string_equal(stream_peer(f->server.s)->addr, "127.0.0.1");
	assert_int_equal(stream_local(f->server.s)->port, stream_listener_addr(f->l)->port);
	fill(out, sizeof(out), 7);
	for (int i = 0; i < N; i++) {
		uint8_t *p = out + (size_t)i * each;

		iov[i][0] = (struct iovec){p, 24};
		iov[i][1] = (struct iovec){NULL, 0};
		iov[i][2] = (struct iovec){p + 24, each - 24};
		tx[i] = (struct stream_tx){
			.iov = iov[i], .niov = 3, .done_fn = side_sent, .arg = &f->client};
		assert_int_equal(stream_send(f->client.s, &tx[i]), 0);
		assert_int_equal(f->client.sent, 0); /* never inside send */
	}
	assert_int_equal(stream_unsent(f->client.s), BULK_BYTES);
	until_bytes(f, &f->server, BULK_BYTES);
	assert_memory_equal(f->server.got, out, BULK_BYTES);
	assert_int_equal(f->client.sent, N);
	assert_int_equal(f->client.send_err, 0);
	assert_int_equal(stream_unsent(f->client.s), 0);
	assert_int_equal(stream_listener_counters(f->l)->rx_bytes, BULK_BYTES);
}

static void a_paused_reader_stops_the_sender_and_loses_nothing(void **state)
{
	struct fixture *f = *state;
	static uint8_t out[BULK_BYTES];
	struct iovec iov = {out, sizeof(out)};
	struct stream_tx tx = {.iov = &iov, .niov = 1, .done_fn = side_sent, .arg = &f->client};
	size_t stuck;

	connect_both(f);
	stream_pause(f->server.s);
	fill(out, sizeof(out), 9);
	/* Loopback buffers take a few MiB at most: what is unsent stops shrinking. */
	for (int i = 0; i < 4; i++) {
		assert_int_equal(stream_send(f->client.s, &tx), 0);
		for (int r = 0; r < 2000 && f->client.sent == i; r++)
			shard_run_once(f->sh);
		if (f->client.sent == i)
			break;
	}
	stuck = stream_unsent(f->client.s);
	assert_true(stuck > 0);
	rounds(f, 2000);
	assert_int_equal(stream_unsent(f->client.s), stuck);
	assert_int_equal(f->server.readables, 0);
	f->server.cap = 5 * (size_t)BULK_BYTES;
	f->server.got = realloc(f->server.got, f->server.cap);
	stream_resume(f->server.s);
	until_bytes(f, &f->server, (size_t)BULK_BYTES * (size_t)(f->client.sent + 1));
	assert_memory_equal(f->server.got, out, BULK_BYTES);
	assert_int_equal(stream_unsent(f->client.s), 0);
}

static void the_end_of_one_side_leaves_the_other_open(void **state)
{
	struct fixture *f = *state;
	static const char hello[] = "hello", bye[] = "goodbye";
	struct iovec a = {(void *)(uintptr_t)hello, 5}, b = {(void *)(uintptr_t)bye, 7};
	struct stream_tx ta = {.iov = &a, .niov = 1, .done_fn = side_sent, .arg = &f->client};
	struct stream_tx tb = {.iov = &b, .niov = 1, .done_fn = side_sent, .arg = &f->server};
	int readables;

	connect_both(f);
	assert_int_equal(stream_send(f->client.s, &ta), 0);
	assert_int_equal(stream_shutdown(f->client.s), 0);
	assert_int_equal(stream_send(f->client.s, &ta), -EPIPE);
	until(f, &f->server.eof);
	assert_memory_equal(f->server.got, "hello", 5);
	readables = f->server.readables;
	rounds(f, 200);
	assert_int_equal(f->server.readables, readables); /* the end is told once */
	assert_int_equal(stream_send(f->server.s, &tb), 0);
	until_bytes(f, &f->client, 7);
	assert_memory_equal(f->client.got, "goodbye", 7);
	assert_false(f->server.closed);
	assert_false(f->client.closed);
	stream_close(f->server.s);
	f->server.s = NULL;
	until(f, &f->client.eof);
}

static void a_reset_is_told_even_while_paused(void **state)
{
	struct fixture *f = *state;

	connect_both(f);
	stream_pause(f->server.s);
	stream_abort(f->client.s);
	f->client.s = NULL;
	until(f, &f->server.closed);
	assert_int_equal(f->server.err, -ECONNRESET);
	assert_int_equal(stream_send(f->server.s, &(struct stream_tx){.iov = &(struct iovec){0},
							  .niov = 1,
							  .done_fn = side_sent}),
		-EPIPE);
	assert_int_equal(stream_recv(f->server.s, &(struct iovec){f->server.got, 1}, 1), -ENOTCONN);
	assert_int_equal(stream_listener_counters(f->l)->died, 1);
}

static void giving_up_cancels_what_is_queued_before_it_returns(void **state)
{
	struct fixture *f = *state;
	uint8_t b[10] = {0};
	struct iovec iov = {b, sizeof(b)};
	struct stream_tx tx[3];

	connect_both(f);
	for (int i = 0; i < 3; i++) {
		tx[i] = (struct stream_tx){
			.iov = &iov, .niov = 1, .done_fn = side_sent, .arg = &f->server};
		assert_int_equal(stream_send(f->server.s, &tx[i]), 0);
	}
	stream_close(f->server.s);
	f->server.s = NULL;
	assert_int_equal(f->server.sent, 3);
	assert_int_equal(f->server.send_err, -ECANCELED);
	assert_int_equal(stream_listener_nconns(f->l), 0);
	until(f, &f->client.closed); /* torn: a reset, not an orderly end */
}

static void an_owner_may_close_in_its_own_callbacks(void **state)
{
	struct fixture *f = *state;
	uint8_t b = 1;
	struct iovec iov = {&b, 1};
	struct stream_tx tx = {.iov = &iov, .niov = 1, .done_fn = side_sent, .arg = &f->client};

	connect_both(f);
	f->server.close_in_readable = true;
	f->client.close_in_closed = true;
	assert_int_equal(stream_send(f->client.s, &tx), 0);
	until(f, &f->client.closed); /* closed with a byte unread: a reset */
	assert_null(f->server.s);
	assert_null(f->client.s);
}

static struct stream *closing;
static void sent_and_close(struct stream_tx *tx, int status)
{
	side_sent(tx, status);
	if (closing)
		stream_close(closing);
	closing = NULL;
}

static void an_owner_may_close_when_its_transmission_is_done(void **state)
{
	struct fixture *f = *state;
	uint8_t b[4] = {1, 2, 3, 4};
	struct iovec iov = {b, 4};
	struct stream_tx tx[2];

	connect_both(f);
	for (int i = 0; i < 2; i++) {
		tx[i] = (struct stream_tx){
			.iov = &iov, .niov = 1, .done_fn = sent_and_close, .arg = &f->server};
		assert_int_equal(stream_send(f->server.s, &tx[i]), 0);
	}
	closing = f->server.s;
	f->server.s = NULL;
	for (int i = 0; i < ROUNDS_MAX && f->server.sent < 2; i++)
		shard_run_once(f->sh);
	assert_int_equal(f->server.sent, 2);
}

static void connections_beyond_the_cap_are_refused_and_counted(void **state)
{
	struct fixture *f = *state;
	int fd[3];
	char c;

	for (int i = 0; i < 3; i++)
		fd[i] = bare_client(f);
	for (int i = 0; i < ROUNDS_MAX && !stream_listener_counters(f->l)->refused_cap; i++)
		shard_run_once(f->sh);
	assert_int_equal(stream_listener_counters(f->l)->accepted, 2);
	assert_int_equal(stream_listener_counters(f->l)->refused_cap, 1);
	assert_int_equal(stream_listener_nconns(f->l), 2);
	assert_int_equal(recv(fd[2], &c, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	for (int i = 0; i < 3; i++)
		close(fd[i]);
	stream_close(f->first);
	f->first = NULL;
	assert_int_equal(stream_listener_nconns(f->l), 1);
}

static void a_refusing_owner_resets_the_peer(void **state)
{
	struct fixture *f = *state;
	char c;
	int fd;

	f->refuse = -EACCES;
	fd = bare_client(f);
	for (int i = 0; i < ROUNDS_MAX && !stream_listener_counters(f->l)->refused_owner; i++)
		shard_run_once(f->sh);
	assert_int_equal(recv(fd, &c, 1, 0), -1);
	assert_int_equal(stream_listener_nconns(f->l), 0);
	close(fd);
}

static void a_listener_may_go_before_its_streams(void **state)
{
	struct fixture *f = *state;
	uint8_t b = 9;
	struct iovec iov = {&b, 1};
	struct stream_tx tx = {.iov = &iov, .niov = 1, .done_fn = side_sent, .arg = &f->client};

	connect_both(f);
	stream_listener_close(f->l);
	f->l = NULL;
	assert_int_equal(stream_send(f->client.s, &tx), 0);
	until_bytes(f, &f->server, 1);
}

/* The listener's own descriptor, which nothing hands out. */
static int listening_fd(uint16_t port)
{
	for (int fd = 3; fd < 1024; fd++) {
		struct sockaddr_in in = {0};
		socklen_t len = sizeof(in), size = sizeof(int);
		int listening = 0;

		if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 &&
			listening && getsockname(fd, (struct sockaddr *)&in, &len) == 0 &&
			in.sin_port == htons(port))
			return fd;
	}
	return -1;
}

static void an_address_is_free_at_once_whoever_still_holds_the_socket(void **state)
{
	struct fixture *f = *state;
	struct sockets_cfg cfg = to_listener(f);
	int held = dup(listening_fd(cfg.port));

	assert_true(held >= 0);
	stream_listener_close(f->l);
	f->l = NULL;
	assert_int_equal(sockets_listen(f->sh, &cfg, &f->l, NULL), 0);
	assert_int_equal(stream_listener_start(f->l, accepted, f), 0);
	connect_both(f);
	close(held);
}

static bool is_accepted(void *arg)
{
	return ((struct fixture *)arg)->naccepted;
}

static void running_out_of_descriptors_only_delays_a_connection(void **state)
{
	struct fixture *f = *state;
	int fd = bare_client(f);
	struct rlimit old, none;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	none = old;
	none.rlim_cur = (rlim_t)fd + 1; /* every number below is taken, or made so */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	rounds(f, 500);
	assert_int_equal(f->naccepted, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_int_equal(shard_wait(f->sh, is_accepted, f, 20000000000u), 0);
	close(fd);
}

static void a_failed_connect_is_told_as_closed(void **state)
{
	struct fixture *f = *state;
	struct sockets_cfg cfg = to_listener(f);

	stream_listener_close(f->l);
	f->l = NULL;
	if (sockets_connect(f->sh, &cfg, &side_events, &f->client, &f->client.s, NULL) < 0)
		return; /* told at once: as good */
	until(f, &f->client.closed);
	assert_int_equal(f->client.err, -ECONNREFUSED);
}

static void wrong_addresses_are_refused_with_a_reason(void **state)
{
	struct fixture *f = *state;
	struct sockets_cfg cfg = {.addr = "no-such-host", .port = 1};
	struct stream_listener *l;
	struct err err;

	assert_int_equal(sockets_listen(f->sh, &cfg, &l, &err), -EINVAL);
	assert_string_equal(err.object, "no-such-host");
	cfg = to_listener(f);
	assert_int_equal(sockets_listen(f->sh, &cfg, &l, &err), -EADDRINUSE);
}

static void borrowing_is_not_offered_by_sockets(void **state)
{
	struct fixture *f = *state;
	const void *p;

	connect_both(f);
	assert_int_equal(stream_borrow(f->server.s, &p), -ENOTSUP);
}

static void an_adopted_descriptor_is_a_stream(void **state)
{
	struct fixture *f = *state;
	int fd[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
	assert_int_equal(sockets_adopt(f->sh, fd[0], &side_events, &f->client, &f->client.s), 0);
	assert_int_equal(write(fd[1], "abc", 3), 3);
	until_bytes(f, &f->client, 3);
	close(fd[1]);
	until(f, &f->client.eof);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(many_transmissions_arrive_whole_and_in_order),
		T(a_paused_reader_stops_the_sender_and_loses_nothing),
		T(the_end_of_one_side_leaves_the_other_open),
		T(a_reset_is_told_even_while_paused),
		T(giving_up_cancels_what_is_queued_before_it_returns),
		T(an_owner_may_close_in_its_own_callbacks),
		T(an_owner_may_close_when_its_transmission_is_done),
		T(connections_beyond_the_cap_are_refused_and_counted),
		T(a_refusing_owner_resets_the_peer),
		T(a_listener_may_go_before_its_streams),
		T(an_address_is_free_at_once_whoever_still_holds_the_socket),
		T(running_out_of_descriptors_only_delays_a_connection),
		T(a_failed_connect_is_told_as_closed),
		T(wrong_addresses_are_refused_with_a_reason),
		T(borrowing_is_not_offered_by_sockets),
		T(an_adopted_descriptor_is_a_stream),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
