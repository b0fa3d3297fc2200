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
#include <sys/queue.h>
#include <sys/socket.h>

#define OUT_MAX_BYTES (2u * RPC_FRAME_MAX)
#define OUT_ENOUGH_BYTES \
	(256u << 10) /* no more requests or events for a peer that has this much unread */
#define HELLO_MS    10000
#define PATIENCE_MS 2000 /* how long a change waits for the card to be up */

/*
 * A connection: NEW (only Hello is allowed, and soon) ─▶ READY ─▶ CLOSING (what is unsent goes out first).
 * One request of a connection at a time is carried out; those of different connections go side by side.
 */
enum conn_state { CONN_NEW, CONN_READY, CONN_CLOSING };

struct conn {
	struct rpc_conn rpc;
	enum conn_state state;
	int64_t since_ms;
	bool subscribed;
	uint64_t seen; /* the last event it has got */
	bool lost; /* its answer could not be sent */
	struct turn *turn; /* the request that is being carried out; NULL: none */
};

/*
 * A request on its way: the server's thread makes it, the shard carries it out, the server's thread answers it. Requests that
 * only look are carried out at once, also while one that changes something waits in its handler; changes are carried
 * out one after another.
 */
struct turn {
	struct server *s;
	struct conn *cn; /* NULL: nobody waits for the answer any more */
	struct rpc_msg msg; /* what the call's request lives in */
	struct call call;
	const struct handler *h;
	int64_t since_ms;
	int rc;
	STAILQ_ENTRY(turn) link; /* changes that wait; turns that have been carried out */
};
STAILQ_HEAD(turn_list, turn);

struct server {
	struct card *card;
	pthread_t thread;
	int listen_fd;
	int wake_fd; /* stop, or an event */
	atomic_bool stop, ended;
	struct conn *conns[SERVER_CONNS_MAX];
	unsigned int nconns;
	struct turn_list changes; /* in line; the server's thread only */
	struct turn *change; /* being carried out */
	unsigned int nout; /* turns on the shard */
	pthread_mutex_t done_lock;
	struct turn_list done; /* under done_lock */
	char path[108];
};

static const struct handler {
	Parapet__Request__OpCase op;
	call_fn fn;
	bool changes; /* else it only looks, and never waits */
} handlers[] = {
	{PARAPET__REQUEST__OP_TABLES_PUSH, call_tables_push, true},
	{PARAPET__REQUEST__OP_TABLES_GET, call_tables_get, false},
	{PARAPET__REQUEST__OP_POOL_CREATE, call_pool_create, true},
	{PARAPET__REQUEST__OP_POOL_OPEN, call_pool_open, true},
	{PARAPET__REQUEST__OP_POOL_SET, call_pool_set, true},
	{PARAPET__REQUEST__OP_FLASH_FAIL, call_flash_fail, true},
	{PARAPET__REQUEST__OP_FLASH_ADD, call_flash_add, true},
	{PARAPET__REQUEST__OP_FLASH_REMOVE, call_flash_remove, true},
	{PARAPET__REQUEST__OP_FLASH_REPLACE, call_flash_replace, true},
	{PARAPET__REQUEST__OP_FLASH_RETURN, call_flash_return, true},
	{PARAPET__REQUEST__OP_FLASH_DISCOVER, call_flash_discover, true}, /* it waits */
	{PARAPET__REQUEST__OP_CHECKPOINT, call_checkpoint, true},
	{PARAPET__REQUEST__OP_DEVICE_ADD, call_device_add, true},
	{PARAPET__REQUEST__OP_DEVICE_DEL, call_device_del, true},
	{PARAPET__REQUEST__OP_DEVICE_GROW, call_device_grow, true},
	{PARAPET__REQUEST__OP_DEVICE_SET, call_device_set, true},
	{PARAPET__REQUEST__OP_DEVICE_LIST, call_device_list, false},
	{PARAPET__REQUEST__OP_EXPLAIN, call_explain, false},
	{PARAPET__REQUEST__OP_FLOW_LIST, call_flow_list, false},
	{PARAPET__REQUEST__OP_TASK_LIST, call_task_list, false},
	{PARAPET__REQUEST__OP_TASK_START, call_task_start, true},
	{PARAPET__REQUEST__OP_TASK_CONTROL, call_task_control, true},
	{PARAPET__REQUEST__OP_TASK_LIMITS, call_task_limits, true},
	{PARAPET__REQUEST__OP_STATUS_GET, call_status, false},
	{PARAPET__REQUEST__OP_STATS_GET, call_stats, false},
	{PARAPET__REQUEST__OP_TOP_GET, call_top, false},
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

static void turn_wake(struct server *s)
{
	const uint64_t one = 1;

	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		log_debug("control: it is awake already");
}

/* On the shard. */
static void turn_run(void *arg)
{
	struct turn *t = arg;
	struct server *s = t->s;

	t->rc = t->h->fn(s->card, &t->call);
	if (t->rc == 0 && t->call.oom)
		t->rc = -ENOMEM;
	pthread_mutex_lock(&s->done_lock);
	STAILQ_INSERT_TAIL(&s->done, t, link);
	pthread_mutex_unlock(&s->done_lock);
	turn_wake(s);
}

static int turn_answer(struct turn *t)
{
	struct conn *cn = t->cn;
	uint64_t id = t->call.req->id;
	int rc;

	if (!cn)
		return 0;
	cn->turn = NULL;
	if (t->rc < 0)
		return send_error(cn, id, t->rc, &t->call.err);
	rc = send_response(cn, &t->call.resp);
	if (rc == -EMSGSIZE) {
		struct err e = {.reason = "the answer is too large for one frame"};

		rc = send_error(cn, id, rc, &e);
	}
	return rc;
}

static void turn_free(struct turn *t)
{
	if (t->cn)
		t->cn->turn = NULL;
	call_clear(&t->call);
	rpc_msg_clear(&t->msg);
	free(t);
}

/* Answers t without carrying it out. */
static void turn_refuse(struct turn *t, int rc)
{
	t->rc = rc;
	if (turn_answer(t) < 0)
		log_warn("control: an answer is lost");
	turn_free(t);
}

static void turn_go(struct turn *t)
{
	struct server *s = t->s;
	int rc = shard_post(card_shard(s->card), turn_run, t);

	if (rc < 0) {
		turn_refuse(t, rc);
		return;
	}
	s->nout++;
	if (t->h->changes)
		s->change = t;
}

/* The next change, once the card is up. What has waited for that too long is told why. */
static void changes_go(struct server *s)
{
	struct turn *t;

	while (!s->change && (t = STAILQ_FIRST(&s->changes))) {
		bool stop = atomic_load(&s->stop);

		if (!stop && !card_is_up(s->card) && clock_now_ms() - t->since_ms < PATIENCE_MS)
			return;
		STAILQ_REMOVE_HEAD(&s->changes, link);
		if (!stop && card_is_up(s->card)) {
			turn_go(t);
			continue;
		}
		err_set(&t->call.err, -EAGAIN, "card", NULL, "%s",
			stop ? "it is stopping"
			     : "it is still opening its pool, see its status; try again then");
		turn_refuse(t, -EAGAIN);
	}
}

/* What the card does by itself and nothing may interfere with: as a change that nobody waits for. */
static void upkeep_go(struct server *s)
{
	static const struct handler upkeep = {.fn = call_flash_upkeep, .changes = true};
	static const Parapet__Request none = PARAPET__REQUEST__INIT;
	struct turn *t;

	if (s->change || !STAILQ_EMPTY(&s->changes) || atomic_load(&s->stop) ||
		!card_is_up(s->card) || !card_wants_upkeep(s->card))
		return;
	t = calloc(1, sizeof(*t));
	if (!t)
		return; /* again in a second */
	*t = (struct turn){.s = s, .h = &upkeep};
	call_init(&t->call, &none);
	turn_go(t);
}

/* Answers what the shard has carried out. A connection that cannot take its answer is dropped by its next turn. */
static void turns_done(struct server *s)
{
	struct turn *t;

	for (;;) {
		pthread_mutex_lock(&s->done_lock);
		t = STAILQ_FIRST(&s->done);
		if (t)
			STAILQ_REMOVE_HEAD(&s->done, link);
		pthread_mutex_unlock(&s->done_lock);
		if (!t)
			break;
		s->nout--;
		if (s->change == t)
			s->change = NULL;
		if (turn_answer(t) < 0 && t->cn)
			t->cn->lost = true;
		t->cn = NULL;
		turn_free(t);
	}
	changes_go(s);
	upkeep_go(s);
}

/* Takes the message over. */
static int turn_start(struct server *s, struct conn *cn, struct rpc_msg *m, const struct handler *h)
{
	struct turn *t = calloc(1, sizeof(*t));
	struct err e = {0};

	if (!t)
		return send_error(cn, m->frame->request->id, -ENOMEM, &e);
	*t = (struct turn){.s = s, .cn = cn, .msg = *m, .h = h, .since_ms = clock_now_ms()};
	*m = (struct rpc_msg){0};
	call_init(&t->call, t->msg.frame->request);
	cn->turn = t;
	if (!h->changes) {
		turn_go(t);
		return 0;
	}
	STAILQ_INSERT_TAIL(&s->changes, t, link);
	changes_go(s);
	return 0;
}

static int do_request(struct server *s, struct conn *cn, struct rpc_msg *m)
{
	const Parapet__Request *req = m->frame->request;
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
			return turn_start(s, cn, m, &handlers[i]);
	err_set(&e, -EOPNOTSUPP, "control protocol", NULL,
		"this card (version %d.%d) does not know the request", PARAPET__VERSION__MAJOR,
		PARAPET__VERSION__MINOR);
	return send_error(cn, req->id, -EOPNOTSUPP, &e);
}

/* ---- connections -------------------------------------------------------------------------------------------------------- */

static void conn_drop(struct server *s, unsigned int i)
{
	if (s->conns[i]->turn)
		s->conns[i]->turn->cn = NULL; /* it is carried out all the same */
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

	while (rc == 0 && cn->state != CONN_CLOSING && !cn->turn &&
		rpc_conn_unsent(&cn->rpc) < OUT_ENOUGH_BYTES && !atomic_load(&s->stop)) {
		rc = rpc_conn_next(&cn->rpc, &m);
		if (rc <= 0)
			return rc;
		rc = m.frame->body_case == PARAPET__FRAME__BODY_REQUEST ? do_request(s, cn, &m)
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
	int rc = cn->lost ? -ECONNRESET : 0;

	if (rc == 0 && revents & (POLLIN | POLLHUP | POLLERR)) {
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

	/* While its request is carried out no more bytes are taken than have arrived: one frame is the bound. */
	if (cn->state != CONN_CLOSING && !cn->turn && rpc_conn_unsent(&cn->rpc) < OUT_ENOUGH_BYTES)
		ev |= POLLIN;
	return ev;
}

static void *server_main(void *arg)
{
	struct server *s = arg;
	struct pollfd p[SERVER_CONNS_MAX + 2];
	uint64_t drained;

	while (!atomic_load(&s->stop) || s->nout) {
		unsigned int n = s->nconns;

		p[0] = (struct pollfd){.fd = s->wake_fd, .events = POLLIN};
		p[1] = (struct pollfd){
			.fd = n < SERVER_CONNS_MAX ? s->listen_fd : -1, .events = POLLIN};
		for (unsigned int i = 0; i < n; i++)
			p[2 + i] = (struct pollfd){
				.fd = s->conns[i]->rpc.fd, .events = conn_wants(s->conns[i])};
		if (poll(p, n + 2, STAILQ_EMPTY(&s->changes) || s->change ? 1000 : 50) < 0 &&
			errno != EINTR)
			log_error("control: poll: %s", strerror(errno));
		if (p[0].revents && read(s->wake_fd, &drained, sizeof(drained)) < 0)
			log_debug("control: nothing to wake for");
		turns_done(s);
		/* From the last: dropping one moves the last into its place. */
		for (unsigned int i = n; i-- > 0;)
			if (conn_turn(s, s->conns[i], p[2 + i].revents) < 0)
				conn_drop(s, i);
		if (p[1].revents)
			accept_one(s);
	}
	changes_go(s); /* what is left is refused */
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
	STAILQ_INIT(&s->changes);
	STAILQ_INIT(&s->done);
	pthread_mutex_init(&s->done_lock, NULL);
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
	pthread_mutex_destroy(&s->done_lock);
	free(s);
	return rc;
}

static bool has_ended(void *arg)
{
	return atomic_load(&((struct server *)arg)->ended);
}

void server_stop(struct server *s)
{
	if (!s)
		return;
	atomic_store(&s->stop, true);
	turn_wake(s);
	/* The thread may be waiting for the shard to carry out a request. */
	shard_wait(card_shard(s->card), has_ended, s, 0);
	pthread_join(s->thread, NULL);
	events_notify(card_events(s->card), -1);
	while (s->nconns)
		conn_drop(s, s->nconns - 1);
	close(s->listen_fd);
	unlink(s->path);
	close(s->wake_fd);
	pthread_mutex_destroy(&s->done_lock);
	free(s);
}
