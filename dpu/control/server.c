/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/server.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "common/rpc/conn.h"
#include "dpu/control/call.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define OUT_MAX_BYTES (2u * RPC_FRAME_MAX)
#define OUT_ENOUGH_BYTES \
	(256u << 10) /* no more requests or events for a peer that has this much unread */
#define HELLO_MS 10000

/*
 * A connection: NEW (only Hello is allowed, and soon) ─▶ READY ─▶ CLOSING (what is unsent goes out first).
 */
enum conn_state { CONN_NEW, CONN_READY, CONN_CLOSING };

struct conn {
	struct rpc_conn rpc;
	enum conn_state state;
	int64_t since_ms;
	bool subscribed;
	uint64_t seen; /* the last event it has got */
};

struct server {
	struct card *card;
	pthread_t thread;
	int listen_fd;
	int wake_fd; /* stop, or an event */
	atomic_bool stop, ended;
	struct conn *conns[SERVER_CONNS_MAX];
	unsigned int nconns;
	char path[108];
};

static const struct {
	Parapet__Request__OpCase op;
	call_fn fn;
	const char *name;
} handlers[] = {
	{PARAPET__REQUEST__OP_TABLES_PUSH, call_tables_push, "tables push"},
	{PARAPET__REQUEST__OP_TABLES_GET, call_tables_get, "tables get"},
	{PARAPET__REQUEST__OP_POOL_CREATE, call_pool_create, "pool create"},
	{PARAPET__REQUEST__OP_POOL_OPEN, call_pool_open, "pool open"},
	{PARAPET__REQUEST__OP_POOL_SET, call_pool_set, "pool set"},
	{PARAPET__REQUEST__OP_FLASH_FAIL, call_flash_fail, "flash fail"},
	{PARAPET__REQUEST__OP_DEVICE_ADD, call_device_add, "device add"},
	{PARAPET__REQUEST__OP_DEVICE_DEL, call_device_del, "device del"},
	{PARAPET__REQUEST__OP_DEVICE_LIST, call_device_list, "device list"},
	{PARAPET__REQUEST__OP_EXPLAIN, call_explain, "explain"},
	{PARAPET__REQUEST__OP_FLOW_LIST, call_flow_list, "flow list"},
	{PARAPET__REQUEST__OP_STATUS_GET, call_status, "status"},
	{PARAPET__REQUEST__OP_STATS_GET, call_stats, "stats"},
};

/* ---- answers ---------------------------------------------------------------------------------------------------- */

static int send_response(struct conn *cn, Parapet__Response *r)
{
	Parapet__Frame f = PARAPET__FRAME__INIT;

	f.body_case = PARAPET__FRAME__BODY_RESPONSE;
	f.response = r;
	return rpc_conn_send(&cn->rpc, &f);
}

static int send_error(struct conn *cn, uint64_t id, int rc, const struct err *e)
{
	Parapet__Response r = PARAPET__RESPONSE__INIT;
	Parapet__Error pe = PARAPET__ERROR__INIT;

	r.id = id;
	r.error = &pe;
	pe.code = -rc;
	pe.object = e->object[0] ? (char *)e->object : NULL;
	pe.field = e->field[0] ? (char *)e->field : NULL;
	pe.reason = e->reason[0] ? (char *)e->reason : strerror(-rc);
	return send_response(cn, &r);
}

/* ---- requests the server answers itself ----------------------------------------------------------------------------- */

static int do_hello(struct server *s, struct conn *cn, const Parapet__Request *req)
{
	static const char *const capabilities[] = {"tables-check", "events"};
	Parapet__Response r = PARAPET__RESPONSE__INIT;
	Parapet__HelloReply h = PARAPET__HELLO_REPLY__INIT;
	const Parapet__Hello *hello = req->hello;
	uint32_t ours = PARAPET__VERSION__MINOR;
	struct err e = {0};

	if (hello->major != PARAPET__VERSION__MAJOR) {
		cn->state = CONN_CLOSING;
		err_set(&e, -EPROTO, "control protocol", "version",
			"the card speaks version %d, you speak %u", PARAPET__VERSION__MAJOR,
			hello->major);
		return send_error(cn, req->id, -EPROTO, &e);
	}
	cn->state = CONN_READY;
	h.major = PARAPET__VERSION__MAJOR;
	h.minor = MIN(hello->minor, ours);
	h.program = (char *)"parapet-dpu";
	h.program_version = (char *)CARD_VERSION;
	h.capabilities = (char **)capabilities;
	h.n_capabilities = ARRAY_LEN(capabilities);
	h.boot_id = (char *)card_boot_id(s->card);
	h.has_tables_version = h.has_frame_bytes_max = true;
	h.tables_version = card_tables_version(s->card);
	h.frame_bytes_max = RPC_FRAME_MAX;
	r.id = req->id;
	r.result_case = PARAPET__RESPONSE__RESULT_HELLO;
	r.hello = &h;
	return send_response(cn, &r);
}

static int do_subscribe(struct server *s, struct conn *cn, const Parapet__Request *req)
{
	const Parapet__Subscribe *sub = req->subscribe;
	Parapet__Response r = PARAPET__RESPONSE__INIT;
	Parapet__Subscribed ok = PARAPET__SUBSCRIBED__INIT;
	bool same_boot = sub->boot_id && !strcmp(sub->boot_id, card_boot_id(s->card));

	events_range(card_events(s->card), &ok.oldest_seq, &ok.newest_seq);
	cn->subscribed = true;
	cn->seen = same_boot ? MIN(sub->after_seq, ok.newest_seq) : 0;
	ok.boot_id = (char *)card_boot_id(s->card);
	ok.has_missed = true;
	ok.missed = cn->seen + 1 < ok.oldest_seq ? ok.oldest_seq - cn->seen - 1 : 0;
	if (ok.missed)
		cn->seen = ok.oldest_seq - 1;
	r.id = req->id;
	r.result_case = PARAPET__RESPONSE__RESULT_SUBSCRIBED;
	r.subscribed = &ok;
	return send_response(cn, &r);
}

/* ---- requests for the shard -------------------------------------------------------------------------------------------- */

struct run {
	struct card *card;
	struct call *call;
	call_fn fn;
	int rc;
};

static void run_call(void *arg)
{
	struct run *r = arg;

	r->rc = r->fn(r->card, r->call);
}

static int do_call(struct server *s, struct conn *cn, const Parapet__Request *req, call_fn fn)
{
	struct call c;
	struct run r = {.card = s->card, .call = &c, .fn = fn};
	int rc;

	call_init(&c, req);
	rc = shard_call(card_shard(s->card), run_call, &r);
	if (rc == 0)
		rc = r.rc;
	if (rc == 0 && c.oom)
		rc = -ENOMEM;
	if (rc < 0)
		rc = send_error(cn, req->id, rc, &c.err);
	else
		rc = send_response(cn, &c.resp);
	if (rc == -EMSGSIZE) {
		struct err e = {.reason = "the answer is too large for one frame"};

		rc = send_error(cn, req->id, rc, &e);
	}
	call_clear(&c);
	return rc;
}

static int do_request(struct server *s, struct conn *cn, const Parapet__Request *req)
{
	struct err e = {0};

	if (req->op_case == PARAPET__REQUEST__OP_HELLO)
		return do_hello(s, cn, req);
	if (cn->state == CONN_NEW) {
		cn->state = CONN_CLOSING;
		err_set(&e, -EPROTO, "control protocol", NULL, "the first request is Hello");
		return send_error(cn, req->id, -EPROTO, &e);
	}
	if (req->op_case == PARAPET__REQUEST__OP_SUBSCRIBE)
		return do_subscribe(s, cn, req);
	for (size_t i = 0; i < ARRAY_LEN(handlers); i++)
		if (handlers[i].op == req->op_case)
			return do_call(s, cn, req, handlers[i].fn);
	err_set(&e, -EOPNOTSUPP, "control protocol", NULL,
		"this card (version %d.%d) does not know the request", PARAPET__VERSION__MAJOR,
		PARAPET__VERSION__MINOR);
	return send_error(cn, req->id, -EOPNOTSUPP, &e);
}

/* ---- connections -------------------------------------------------------------------------------------------------------- */

static void conn_drop(struct server *s, unsigned int i)
{
	rpc_conn_close(&s->conns[i]->rpc);
	free(s->conns[i]);
	s->conns[i] = s->conns[--s->nconns];
}

static void accept_one(struct server *s)
{
	int fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct conn *cn;

	if (fd < 0)
		return; /* it went away again */
	cn = calloc(1, sizeof(*cn));
	if (!cn || rpc_conn_init(&cn->rpc, fd, RPC_FRAME_MAX, OUT_MAX_BYTES) < 0) {
		free(cn);
		close(fd);
		return;
	}
	cn->since_ms = clock_now_ms();
	s->conns[s->nconns++] = cn;
}

/* Requests that have arrived. Not 0: the connection is lost. */
static int conn_input(struct server *s, struct conn *cn)
{
	struct rpc_msg m;
	int rc = 0;

	while (rc == 0 && cn->state != CONN_CLOSING &&
		rpc_conn_unsent(&cn->rpc) < OUT_ENOUGH_BYTES && !atomic_load(&s->stop)) {
		rc = rpc_conn_next(&cn->rpc, &m);
		if (rc <= 0)
			return rc;
		rc = m.frame->body_case == PARAPET__FRAME__BODY_REQUEST
			     ? do_request(s, cn, m.frame->request)
			     : -EPROTO;
		rpc_msg_clear(&m);
	}
	return rc;
}

static int conn_events(struct server *s, struct conn *cn)
{
	struct event e;
	int rc = 0;

	while (rc == 0 && cn->subscribed && cn->state == CONN_READY &&
		rpc_conn_unsent(&cn->rpc) < OUT_ENOUGH_BYTES &&
		events_next(card_events(s->card), cn->seen, &e) == 0) {
		Parapet__Frame f = PARAPET__FRAME__INIT;
		Parapet__Event pe = PARAPET__EVENT__INIT;

		pe.seq = e.seq;
		pe.time_ns = e.time_ns;
		pe.has_severity = true;
		pe.severity = (Parapet__Severity)e.severity;
		pe.kind = e.kind;
		pe.object = e.object;
		pe.text = e.text;
		pe.has_missed = e.seq > cn->seen + 1;
		pe.missed = e.seq - cn->seen - 1;
		f.body_case = PARAPET__FRAME__BODY_EVENT;
		f.event = &pe;
		rc = rpc_conn_send(&cn->rpc, &f);
		cn->seen = e.seq;
	}
	return rc;
}

/* One connection's turn. Not 0: drop it. */
static int conn_turn(struct server *s, struct conn *cn, short revents)
{
	int rc = 0;

	if (revents & (POLLIN | POLLHUP | POLLERR)) {
		rc = rpc_conn_fill(&cn->rpc);
		if (rc == -EAGAIN)
			rc = 0;
	}
	if (rc == 0)
		rc = conn_input(s, cn);
	if (rc == 0)
		rc = conn_events(s, cn);
	if (rc < 0) {
		if (rc != -ECONNRESET)
			log_warn("control: a connection is closed: %s", strerror(-rc));
		return rc;
	}
	if (rpc_conn_unsent(&cn->rpc)) {
		rc = rpc_conn_flush(&cn->rpc);
		if (rc < 0 && rc != -EAGAIN)
			return rc;
	}
	if (cn->state == CONN_CLOSING && !rpc_conn_unsent(&cn->rpc))
		return -ECONNRESET;
	return cn->state == CONN_NEW && clock_now_ms() - cn->since_ms > HELLO_MS ? -ETIMEDOUT : 0;
}

static short conn_wants(const struct conn *cn)
{
	short ev = rpc_conn_unsent(&cn->rpc) ? POLLOUT : 0;

	if (cn->state != CONN_CLOSING && rpc_conn_unsent(&cn->rpc) < OUT_ENOUGH_BYTES)
		ev |= POLLIN;
	return ev;
}

static void *server_main(void *arg)
{
	struct server *s = arg;
	struct pollfd p[SERVER_CONNS_MAX + 2];
	uint64_t drained;

	while (!atomic_load(&s->stop)) {
		unsigned int n = s->nconns;

		p[0] = (struct pollfd){.fd = s->wake_fd, .events = POLLIN};
		p[1] = (struct pollfd){
			.fd = n < SERVER_CONNS_MAX ? s->listen_fd : -1, .events = POLLIN};
		for (unsigned int i = 0; i < n; i++)
			p[2 + i] = (struct pollfd){
				.fd = s->conns[i]->rpc.fd, .events = conn_wants(s->conns[i])};
		if (poll(p, n + 2, 1000) < 0 && errno != EINTR)
			log_error("control: poll: %s", strerror(errno));
		if (p[0].revents && read(s->wake_fd, &drained, sizeof(drained)) < 0)
			log_debug("control: nothing to wake for");
		/* From the last: dropping one moves the last into its place. */
		for (unsigned int i = n; i-- > 0;)
			if (conn_turn(s, s->conns[i], p[2 + i].revents) < 0)
				conn_drop(s, i);
		if (p[1].revents)
			accept_one(s);
	}
	return NULL;
}

static void nothing(void *arg)
{
}

static void *thread_main(void *arg)
{
	struct server *s = arg;

	server_main(s);
	atomic_store(&s->ended, true);
	shard_post(card_shard(s->card), nothing, NULL); /* wakes server_stop() */
	return NULL;
}

/* ---- start and stop -------------------------------------------------------------------------------------------------------- */

int server_start(struct card *card, const char *socket_path, struct server **out, struct err *e)
{
	struct server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "control socket", NULL, "out of memory");
	s->card = card;
	s->listen_fd = -1;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake_fd < 0) {
		rc = err_set(e, -errno, "control socket", NULL, "eventfd: %s", strerror(errno));
		goto fail;
	}
	rc = rpc_listen(socket_path, &s->listen_fd, e);
	if (rc < 0)
		goto fail;
	snprintf(s->path, sizeof(s->path), "%s", socket_path);
	events_notify(card_events(card), s->wake_fd);
	rc = -pthread_create(&s->thread, NULL, thread_main, s);
	if (rc < 0) {
		events_notify(card_events(card), -1);
		unlink(s->path);
		err_set(e, rc, "control socket", NULL, "thread: %s", strerror(-rc));
		goto fail;
	}
	*out = s;
	return 0;
fail:
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	free(s);
	return rc;
}

static bool has_ended(void *arg)
{
	return atomic_load(&((struct server *)arg)->ended);
}

void server_stop(struct server *s)
{
	const uint64_t one = 1;

	if (!s)
		return;
	atomic_store(&s->stop, true);
	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		log_debug("control: it is awake already");
	/* The thread may be waiting for the shard to carry out a request. */
	shard_wait(card_shard(s->card), has_ended, s, 0);
	pthread_join(s->thread, NULL);
	events_notify(card_events(s->card), -1);
	while (s->nconns)
		conn_drop(s, s->nconns - 1);
	close(s->listen_fd);
	unlink(s->path);
	close(s->wake_fd);
	free(s);
}
