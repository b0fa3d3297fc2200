/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/server.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "common/rpc/conn.h"
#include "dpu/control/route.h"

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
 * A request on its way: the server's thread makes it, shards carry it out, the server's thread answers it. Requests that only look are
 * carried out at once, also while one that changes something waits in its handler; changes are carried out one after another by a thread of
 * their own (route.h).
 */
struct turn {
	struct route_job job; /* first: the answer comes by it */
	struct server *s;
	struct conn *cn; /* NULL: nobody waits for the answer any more */
	struct rpc_msg msg; /* what the job's request lives in */
	bool upkeep; /* nobody's request */
	int64_t since_ms;
	STAILQ_ENTRY(turn) link; /* changes that wait; turns that have been carried out */
};
STAILQ_HEAD(turn_list, turn);

struct server {
	struct shards *shards;
	pthread_t thread, worker; /* answers; changes */
	int listen_fd;
	int wake_fd; /* stop, or an event */
	atomic_bool stop, ended;
	struct conn *conns[SERVER_CONNS_MAX];
	unsigned int nconns;
	struct turn_list changes; /* in line; the server's thread only */
	struct turn *change; /* being carried out */
	unsigned int nout; /* turns on shards, and the change */
	pthread_mutex_t lock;
	pthread_cond_t work; /* there is a change for the worker, or its end */
	struct turn_list done; /* under lock, as the rest */
	struct turn *given; /* to the worker */
	bool work_ends;
	char path[108];
};

static struct card *first(const struct server *s)
{
	return shards_card(s->shards, 0);
}

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
	h.boot_id = (char *)card_boot_id(first(s));
	h.has_tables_version = h.has_frame_bytes_max = true;
	h.tables_version = card_tables_version(first(s));
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
	bool same_boot = sub->boot_id && !strcmp(sub->boot_id, card_boot_id(first(s)));

	events_range(card_events(first(s)), &ok.oldest_seq, &ok.newest_seq);
	cn->subscribed = true;
	cn->seen = same_boot ? MIN(sub->after_seq, ok.newest_seq) : 0;
	ok.boot_id = (char *)card_boot_id(first(s));
	ok.has_missed = true;
	ok.missed = cn->seen + 1 < ok.oldest_seq ? ok.oldest_seq - cn->seen - 1 : 0;
	if (ok.missed)
		cn->seen = ok.oldest_seq - 1;
	r.id = req->id;
	r.result_case = PARAPET__RESPONSE__RESULT_SUBSCRIBED;
	r.subscribed = &ok;
	return send_response(cn, &r);
}

/* ---- requests for shards -------------------------------------------------------------------------------------------- */

static void turn_wake(struct server *s)
{
	const uint64_t one = 1;

	if (write(s->wake_fd, &one, sizeof(one)) < 0)
		log_debug("control: it is awake already");
}

/* Any thread: it has been carried out. */
static void turn_done(struct turn *t)
{
	struct server *s = t->s;

	pthread_mutex_lock(&s->lock);
	STAILQ_INSERT_TAIL(&s->done, t, link);
	pthread_mutex_unlock(&s->lock);
	turn_wake(s);
}

static void look_done(struct route_job *job)
{
	turn_done((struct turn *)job);
}

/* The worker: one change at a time. */
static void *worker_main(void *arg)
{
	struct server *s = arg;
	struct turn *t;

	shards_leave_cores(s->shards);
	pthread_mutex_lock(&s->lock);
	for (;;) {
		while (!s->given && !s->work_ends)
			pthread_cond_wait(&s->work, &s->lock);
		t = s->given;
		s->given = NULL;
		if (!t)
			break;
		pthread_mutex_unlock(&s->lock);
		if (t->upkeep)
			route_upkeep(s->shards);
		else
			route_change(s->shards, &t->job);
		turn_done(t);
		pthread_mutex_lock(&s->lock);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static int turn_answer(struct turn *t)
{
	struct conn *cn = t->cn;
	uint64_t id;
	int rc;

	if (!cn)
		return 0;
	id = t->job.call.req->id;
	cn->turn = NULL;
	if (t->job.rc < 0)
		return send_error(cn, id, t->job.rc, &t->job.call.err);
	rc = send_response(cn, &t->job.call.resp);
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
	route_job_clear(&t->job);
	rpc_msg_clear(&t->msg);
	free(t);
}

/* Answers t without carrying it out. */
static void turn_refuse(struct turn *t, int rc)
{
	t->job.rc = rc;
	if (turn_answer(t) < 0)
		log_warn("control: an answer is lost");
	turn_free(t);
}

static void look_go(struct turn *t)
{
	int rc = route_look(t->s->shards, &t->job, look_done);

	if (rc < 0)
		turn_refuse(t, rc);
	else
		t->s->nout++;
}

static void change_go(struct turn *t)
{
	struct server *s = t->s;

	s->nout++;
	s->change = t;
	pthread_mutex_lock(&s->lock);
	s->given = t;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
}

/* The next change, once the card is up. What has waited for that too long is told why. */
static void changes_go(struct server *s)
{
	struct turn *t;

	while (!s->change && (t = STAILQ_FIRST(&s->changes))) {
		bool stop = atomic_load(&s->stop), up = shards_are_up(s->shards);

		if (!stop && !up && clock_now_ms() - t->since_ms < PATIENCE_MS)
			return;
		STAILQ_REMOVE_HEAD(&s->changes, link);
		if (!stop && up) {
			change_go(t);
			continue;
		}
		err_set(&t->job.call.err, -EAGAIN, "card", NULL, "%s",
			stop ? "it is stopping"
			     : "it is still opening its pool, see its status; try again then");
		turn_refuse(t, -EAGAIN);
	}
}

/* What cards do by themselves and nothing may interfere with: as a change that nobody waits for. */
static void upkeep_go(struct server *s)
{
	struct turn *t;

	if (s->change || !STAILQ_EMPTY(&s->changes) || atomic_load(&s->stop) ||
		!shards_are_up(s->shards) || !route_wants_upkeep(s->shards))
		return;
	t = calloc(1, sizeof(*t));
	if (!t)
		return; /* again in a second */
	t->s = s;
	t->upkeep = true;
	change_go(t);
}

/* Answers what has been carried out. A connection that cannot take its answer is dropped by its next turn. */
static void turns_done(struct server *s)
{
	struct turn *t;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		t = STAILQ_FIRST(&s->done);
		if (t)
			STAILQ_REMOVE_HEAD(&s->done, link);
		pthread_mutex_unlock(&s->lock);
		if (!t)
			break;
		s->nout--;
		if (s->change == t)
			s->change = NULL;
		else
			route_answer(&t->job);
		if (turn_answer(t) < 0 && t->cn)
			t->cn->lost = true;
		t->cn = NULL;
		turn_free(t);
	}
	changes_go(s);
	upkeep_go(s);
}

/* Takes the message over. */
static int turn_start(
	struct server *s, struct conn *cn, struct rpc_msg *m, const struct route_op *op)
{
	struct turn *t = calloc(1, sizeof(*t));
	struct err e = {0};

	if (!t)
		return send_error(cn, m->frame->request->id, -ENOMEM, &e);
	t->s = s;
	t->cn = cn;
	t->msg = *m;
	t->job.op = op;
	t->since_ms = clock_now_ms();
	*m = (struct rpc_msg){0};
	call_init(&t->job.call, t->msg.frame->request);
	cn->turn = t;
	if (!route_op_changes(op)) {
		look_go(t);
		return 0;
	}
	STAILQ_INSERT_TAIL(&s->changes, t, link);
	changes_go(s);
	return 0;
}

static int do_request(struct server *s, struct conn *cn, struct rpc_msg *m)
{
	const Parapet__Request *req = m->frame->request;
	const struct route_op *op;
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
	op = route_op(req->op_case);
	if (op)
		return turn_start(s, cn, m, op);
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
		events_next(card_events(first(s)), cn->seen, &e) == 0) {
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

static void server_main(struct server *s)
{
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
	pthread_mutex_lock(&s->lock);
	s->work_ends = true;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->worker, NULL);
}

static void nothing(void *arg)
{
}

static void *thread_main(void *arg)
{
	struct server *s = arg;

	shards_leave_cores(s->shards);
	server_main(s);
	atomic_store(&s->ended, true);
	shard_post(card_shard(first(s)), nothing, NULL); /* wakes server_stop() */
	return NULL;
}

/* ---- start and stop -------------------------------------------------------------------------------------------------------- */

static int threads_start(struct server *s, struct err *e)
{
	int rc = -pthread_create(&s->worker, NULL, worker_main, s);

	if (rc == 0) {
		rc = -pthread_create(&s->thread, NULL, thread_main, s);
		if (rc < 0) {
			pthread_mutex_lock(&s->lock);
			s->work_ends = true;
			pthread_cond_signal(&s->work);
			pthread_mutex_unlock(&s->lock);
			pthread_join(s->worker, NULL);
		}
	}
	return rc < 0 ? err_set(e, rc, "control socket", NULL, "thread: %s", strerror(-rc)) : 0;
}

static void server_free(struct server *s)
{
	if (s->listen_fd >= 0) {
		close(s->listen_fd);
		unlink(s->path);
	}
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	pthread_cond_destroy(&s->work);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int server_start(struct shards *shards, const char *socket_path, struct server **out, struct err *e)
{
	struct server *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "control socket", NULL, "out of memory");
	s->shards = shards;
	STAILQ_INIT(&s->changes);
	STAILQ_INIT(&s->done);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->work, NULL);
	s->listen_fd = -1;
	s->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	rc = s->wake_fd < 0
		     ? err_set(e, -errno, "control socket", NULL, "eventfd: %s", strerror(errno))
		     : 0;
	if (rc == 0)
		rc = rpc_listen(socket_path, &s->listen_fd, e);
	if (rc == 0) {
		snprintf(s->path, sizeof(s->path), "%s", socket_path);
		events_notify(card_events(shards_card(shards, 0)), s->wake_fd);
		rc = threads_start(s, e);
	}
	if (rc < 0) {
		events_notify(card_events(shards_card(shards, 0)), -1);
		server_free(s);
		return rc;
	}
	*out = s;
	return 0;
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
	/* Its threads may be waiting for this shard to carry out a request. */
	shard_wait(card_shard(first(s)), has_ended, s, 0);
	pthread_join(s->thread, NULL);
	events_notify(card_events(first(s)), -1);
	while (s->nconns)
		conn_drop(s, s->nconns - 1);
	server_free(s);
}
