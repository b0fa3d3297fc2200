/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/endian.h"
#include "common/base/util.h"
#include "common/rpc/client.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

static size_t encode_event(uint64_t seq, const char *text, uint8_t **out)
{
	Parapet__Frame f = PARAPET__FRAME__INIT;
	Parapet__Event ev = PARAPET__EVENT__INIT;
	size_t n;

	ev.seq = seq;
	ev.text = (char *)text;
	f.body_case = PARAPET__FRAME__BODY_EVENT;
	f.event = &ev;
	assert_int_equal(rpc_frame_size(&f, &n), 0);
	*out = malloc(n);
	assert_non_null(*out);
	rpc_frame_encode(&f, *out);
	return n;
}

static void a_frame_comes_back_as_it_was_sent(void **state)
{
	autofree uint8_t *p = NULL;
	size_t n = encode_event(7, "flash f3 is gone", &p), used = 0;
	struct rpc_msg m = {0};

	assert_int_equal(rpc_frame_decode(p, n, RPC_FRAME_MAX, &used, &m), 0);
	assert_int_equal(used, n);
	assert_int_equal(m.frame->body_case, PARAPET__FRAME__BODY_EVENT);
	assert_int_equal(m.frame->event->seq, 7);
	assert_string_equal(m.frame->event->text, "flash f3 is gone");
	rpc_msg_clear(&m);
}

static void every_cut_frame_asks_for_more_bytes(void **state)
{
	autofree uint8_t *p = NULL;
	size_t n = encode_event(1, "x", &p), used;
	struct rpc_msg m;

	for (size_t i = 0; i < n; i++) {
		autofree uint8_t *cut = malloc(i + 1);

		memcpy(cut, p, i);
		assert_int_equal(rpc_frame_decode(cut, i, RPC_FRAME_MAX, &used, &m), -EAGAIN);
	}
}

static void the_size_is_judged_before_the_message(void **state)
{
	uint8_t h[RPC_HEADER_BYTES];
	be32 magic = to_be32(RPC_MAGIC), len;
	struct rpc_msg m;
	size_t used;

	memcpy(h, &magic, 4);
	len = to_be32(RPC_FRAME_MAX + 1);
	memcpy(h + 4, &len, 4);
	assert_int_equal(rpc_frame_decode(h, sizeof(h), RPC_FRAME_MAX, &used, &m), -EMSGSIZE);
	len = to_be32(0);
	memcpy(h + 4, &len, 4);
	assert_int_equal(rpc_frame_decode(h, sizeof(h), RPC_FRAME_MAX, &used, &m), -EPROTO);
	len = to_be32(RPC_FRAME_MAX);
	memcpy(h + 4, &len, 4);
	assert_int_equal(rpc_frame_decode(h, sizeof(h), RPC_FRAME_MAX, &used, &m), -EAGAIN);
	h[0] ^= 1;
	assert_int_equal(rpc_frame_decode(h, sizeof(h), RPC_FRAME_MAX, &used, &m), -EPROTO);
}

static void a_flipped_bit_never_crashes_the_decoder(void **state)
{
	autofree uint8_t *p = NULL;
	size_t n = encode_event(300, "a somewhat longer text", &p), used;
	struct rpc_msg m;

	for (size_t bit = 0; bit < n * 8; bit++) {
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
		if (rpc_frame_decode(p, n, RPC_FRAME_MAX, &used, &m) == 0)
			rpc_msg_clear(&m);
		p[bit / 8] ^= (uint8_t)(1u << bit % 8);
	}
	assert_int_equal(rpc_frame_decode(p, n, RPC_FRAME_MAX, &used, &m), 0);
	rpc_msg_clear(&m);
}

static size_t put_varint(uint8_t *p, uint64_t v)
{
	size_t n = 0;

	for (; v >= 0x80; v >>= 7)
		p[n++] = (uint8_t)(v | 0x80);
	p[n++] = (uint8_t)v;
	return n;
}

/* Millions of empty strings: two bytes each on the wire, many more unpacked. */
static void a_small_message_cannot_claim_much_memory(void **state)
{
	size_t body = 6u << 20, off = 0, used;
	autofree uint8_t *p = calloc(1, RPC_HEADER_BYTES + body + 64), *strings = calloc(1, body);
	uint8_t *q = p + RPC_HEADER_BYTES;
	be32 magic = to_be32(RPC_MAGIC), len;
	uint8_t hello[16], head[32];
	size_t nh = 0, nhead = 0;
	struct rpc_msg m;

	nh += (hello[nh] = 1 << 3, 1), nh += put_varint(hello + nh, 1);
	nh += (hello[nh] = 2 << 3, 1), nh += put_varint(hello + nh, 0);
	for (size_t i = 0; i < body; i += 2)
		strings[i] = 5 << 3 | 2;
	nhead += (head[nhead] = 1 << 3, 1), nhead += put_varint(head + nhead, 9);
	nhead += (head[nhead] = 2 << 3 | 2, 1), nhead += put_varint(head + nhead, nh + body);
	q[off++] = 1 << 3 | 2;
	off += put_varint(q + off, nhead + nh + body);
	memcpy(q + off, head, nhead);
	off += nhead;
	memcpy(q + off, hello, nh);
	off += nh;
	memcpy(q + off, strings, body);
	off += body;
	memcpy(p, &magic, 4);
	len = to_be32((uint32_t)off);
	memcpy(p + 4, &len, 4);
	assert_int_equal(
		rpc_frame_decode(p, RPC_HEADER_BYTES + off, RPC_FRAME_MAX, &used, &m), -EPROTO);
}

static void frames_pass_a_socket_in_pieces_and_in_bunches(void **state)
{
	autofree uint8_t *a = NULL, *b = NULL;
	size_t na = encode_event(1, "first", &a), nb = encode_event(2, "second", &b);
	struct rpc_conn c;
	struct rpc_msg m;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(rpc_conn_init(&c, sv[0], RPC_FRAME_MAX, RPC_FRAME_MAX), 0);
	assert_int_equal(rpc_conn_fill(&c), -EAGAIN);
	for (size_t i = 0; i < na; i++) {
		assert_int_equal(rpc_conn_next(&c, &m), 0);
		assert_int_equal(write(sv[1], a + i, 1), 1);
		assert_int_equal(rpc_conn_fill(&c), 0);
	}
	assert_int_equal(write(sv[1], b, nb), nb);
	assert_int_equal(write(sv[1], a, na), na);
	assert_int_equal(rpc_conn_fill(&c), 0);
	for (uint64_t want, i = 0; i < 3; i++) {
		want = i == 1 ? 2 : 1;
		assert_int_equal(rpc_conn_next(&c, &m), 1);
		assert_int_equal(m.frame->event->seq, want);
		rpc_msg_clear(&m);
	}
	assert_int_equal(rpc_conn_next(&c, &m), 0);
	assert_int_equal(write(sv[1], "GET / HTTP/1.1\r\n", 16), 16);
	assert_int_equal(rpc_conn_fill(&c), -EPROTO);
	close(sv[1]);
	rpc_conn_close(&c);
}

static void a_reader_that_does_not_read_is_noticed(void **state)
{
	Parapet__Frame f = PARAPET__FRAME__INIT;
	Parapet__Event ev = PARAPET__EVENT__INIT;
	struct rpc_conn c;
	int sv[2], rc = 0, n = 0;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	assert_int_equal(rpc_conn_init(&c, sv[0], RPC_FRAME_MAX, 4096), 0);
	ev.text = (char *)"1234567890";
	f.body_case = PARAPET__FRAME__BODY_EVENT;
	f.event = &ev;
	while (rc == 0) {
		rc = rpc_conn_send(&c, &f);
		n++;
		assert_true(n < 1000);
	}
	assert_int_equal(rc, -ENOBUFS);
	assert_true(rpc_conn_unsent(&c) <= 4096);
	assert_int_equal(rpc_conn_flush(&c), 0);
	assert_int_equal(rpc_conn_send(&c, &f), 0);
	close(sv[1]);
	assert_int_equal(rpc_conn_flush(&c), -EPIPE);
	rpc_conn_close(&c);
}

/* ---- a card of a few lines, for the client ---------------------------------------------------------------------- */

struct card {
	int listen_fd;
	uint32_t major;
	bool mute;
};

static void answer(struct rpc_conn *c, const Parapet__Request *req, const struct card *card)
{
	Parapet__Frame f = PARAPET__FRAME__INIT;
	Parapet__Response r = PARAPET__RESPONSE__INIT;
	Parapet__HelloReply hello = PARAPET__HELLO_REPLY__INIT;
	Parapet__Error err = PARAPET__ERROR__INIT;
	Parapet__Event ev = PARAPET__EVENT__INIT;

	ev.seq = req->id;
	f.body_case = PARAPET__FRAME__BODY_EVENT;
	f.event = &ev;
	assert_int_equal(rpc_conn_send(c, &f), 0);
	r.id = req->id;
	if (req->op_case == PARAPET__REQUEST__OP_HELLO) {
		hello.major = card->major;
		r.result_case = PARAPET__RESPONSE__RESULT_HELLO;
		r.hello = &hello;
	} else {
		err.code = ESTALE;
		err.object = (char *)"tables";
		err.field = (char *)"base_version";
		err.reason = (char *)"the card has 5";
		r.error = &err;
	}
	f.body_case = PARAPET__FRAME__BODY_RESPONSE;
	f.response = &r;
	assert_int_equal(rpc_conn_send(c, &f), 0);
	assert_int_equal(rpc_conn_flush(c), 0);
}

static void *card_main(void *arg)
{
	struct card *card = arg;
	struct rpc_conn c;
	struct rpc_msg m;
	int fd = -1, rc;

	while (fd < 0)
		fd = accept(card->listen_fd, NULL, NULL);
	rpc_conn_init(&c, fd, RPC_FRAME_MAX, RPC_FRAME_MAX);
	do {
		rc = rpc_conn_fill(&c);
		while (rpc_conn_next(&c, &m) == 1) {
			if (!card->mute)
				answer(&c, m.frame->request, card);
			rpc_msg_clear(&m);
		}
		poll(&(struct pollfd){.fd = fd, .events = POLLIN}, 1, 100);
	} while (rc == 0 || rc == -EAGAIN);
	rpc_conn_close(&c);
	return NULL;
}

static void count_event(void *arg, const Parapet__Event *ev)
{
	*(uint64_t *)arg += ev->seq;
}

static void temp_socket(char *path, size_t len)
{
	snprintf(path, len, "/tmp/parapet-rpc-test.%d", (int)getpid());
	unlink(path);
}

static void the_client_gets_answers_refusals_and_events(void **state)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TablesGet get = PARAPET__TABLES_GET__INIT;
	struct card card = {.major = PARAPET__VERSION__MAJOR};
	struct rpc_client *c;
	struct rpc_msg m;
	struct err e = {0};
	struct stat st;
	uint64_t events = 0;
	char path[64];
	pthread_t th;

	temp_socket(path, sizeof(path));
	assert_int_equal(rpc_listen(path, &card.listen_fd, &e), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	assert_int_equal(pthread_create(&th, NULL, card_main, &card), 0);
	assert_int_equal(rpc_client_open(path, "test", 10000, count_event, &events, &c, &e), 0);
	assert_int_equal(rpc_client_hello(c)->major, PARAPET__VERSION__MAJOR);
	assert_false(rpc_client_can(c, "teleport"));
	req.op_case = PARAPET__REQUEST__OP_TABLES_GET;
	req.tables_get = &get;
	assert_int_equal(rpc_client_call(c, &req, 10000, &m, &e), -ESTALE);
	assert_string_equal(err_text(&e), "tables: base_version: the card has 5");
	assert_int_equal(events, 1 + 2);
	rpc_client_close(c);
	pthread_join(th, NULL);
	close(card.listen_fd);
	unlink(path);
}

static void a_card_of_another_major_or_without_an_answer_is_refused(void **state)
{
	static const struct card cards[] = {{.major = PARAPET__VERSION__MAJOR + 1}, {.mute = true}};
	static const int want[] = {-EPROTO, -ETIMEDOUT};
	struct rpc_client *c;
	struct err e = {0};
	char path[64];
	pthread_t th;

	for (size_t i = 0; i < ARRAY_LEN(cards); i++) {
		struct card card = cards[i];

		temp_socket(path, sizeof(path));
		assert_int_equal(rpc_listen(path, &card.listen_fd, &e), 0);
		assert_int_equal(pthread_create(&th, NULL, card_main, &card), 0);
		assert_int_equal(
			rpc_client_open(path, "test", card.mute ? 50 : 10000, NULL, NULL, &c, &e),
			want[i]);
		pthread_join(th, NULL);
		close(card.listen_fd);
	}
	unlink(path);
}

static void a_stale_socket_is_replaced_and_a_living_one_is_not(void **state)
{
	char path[64];
	struct err e = {0};
	int a, b;

	temp_socket(path, sizeof(path));
	assert_int_equal(rpc_listen(path, &a, &e), 0);
	assert_int_equal(rpc_listen(path, &b, &e), -EADDRINUSE);
	close(a);
	assert_int_equal(rpc_listen(path, &b, &e), 0);
	close(b);
	unlink(path);
	assert_int_equal(rpc_connect(path, &a, &e), -ENOENT);
	assert_int_equal(rpc_listen("", &a, &e), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_frame_comes_back_as_it_was_sent),
		cmocka_unit_test(every_cut_frame_asks_for_more_bytes),
		cmocka_unit_test(the_size_is_judged_before_the_message),
		cmocka_unit_test(a_flipped_bit_never_crashes_the_decoder),
		cmocka_unit_test(a_small_message_cannot_claim_much_memory),
		cmocka_unit_test(frames_pass_a_socket_in_pieces_and_in_bunches),
		cmocka_unit_test(a_reader_that_does_not_read_is_noticed),
		cmocka_unit_test(the_client_gets_answers_refusals_and_events),
		cmocka_unit_test(a_card_of_another_major_or_without_an_answer_is_refused),
		cmocka_unit_test(a_stale_socket_is_replaced_and_a_living_one_is_not),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
