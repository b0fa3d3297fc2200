/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/agentd/node.h"

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "host-agent/agentd/sync.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <time.h>
#include <utlist.h>

#define CALL_MS        5000
#define CALL_FLASH_MS  30000
#define CALL_LONG_MS   300000
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000

struct node {
	struct node *next;
	struct agent *agent;
	char name[64];
	char address[256];
	char schedule[64];
	pthread_t thread;
	int wake_fd;
	unsigned int refs; /* under agent->nodes_lock */
	struct node_state state; /* under agent->nodes_lock */

	pthread_mutex_t look_lock; /* not taken with lock held */
	struct rpc_client *look; /* for questions; NULL: not connected */

	pthread_mutex_t lock; /* what follows */
	bool stop;
	bool stale; /* the card has said that the store may not be what it has */
	struct rpc_client *client;
	char events_boot[64]; /* whose events last_event counts */
	uint64_t last_event;
};

static void wake(struct node *n)
{
	uint64_t one = 1;

	if (write(n->wake_fd, &one, sizeof(one)) < 0)
		log_warn("node %s: wake: %m", n->name);
}

static void tell(struct node *n, const char *severity, const char *kind, const char *text)
{
	char object[96];

	snprintf(object, sizeof(object), "node %s", n->name);
	events_add(
		n->agent->events, n->name, &(struct event_text){severity, kind, object, text, 0});
}

/* ---- connection; all under n->lock ----------------------------------------------------------------- */

static void on_event(void *arg, const Parapet__Event *ev)
{
	static const char *const severities[] = {"info", "warning", "error"};
	static const char *const news[] = {"card-ready", "flash-removed"};
	struct node *n = arg;

	if (ev->has_missed && ev->missed)
		tell(n, "warning", "events-missed", "the card had more events than were fetched");
	n->last_event = ev->seq;
	for (size_t i = 0; i < ARRAY_LEN(news); i++)
		if (ev->kind && !strcmp(ev->kind, news[i])) {
			n->stale = true;
			wake(n);
		}
	events_add(n->agent->events, n->name,
		&(struct event_text){severities[(unsigned int)ev->severity < 3 ? ev->severity : 0],
			ev->kind ? ev->kind : "", ev->object ? ev->object : "",
			ev->text ? ev->text : "", ev->time_ns});
}

static void set_offline(struct node *n, const char *why)
{
	pthread_mutex_lock(&n->agent->nodes_lock);
	n->state.connected = false;
	n->state.tried = true;
	snprintf(n->state.last_error, sizeof(n->state.last_error), "%s", why);
	pthread_mutex_unlock(&n->agent->nodes_lock);
}

static void set_online(struct node *n, const Parapet__HelloReply *h)
{
	pthread_mutex_lock(&n->agent->nodes_lock);
	n->state = (struct node_state){.connected = true, .tried = true};
	n->state.card_version = h->has_tables_version ? h->tables_version : 0;
	snprintf(n->state.boot_id, sizeof(n->state.boot_id), "%s", h->boot_id ? h->boot_id : "");
	snprintf(n->state.program_version, sizeof(n->state.program_version), "%s",
		h->program_version ? h->program_version : "");
	pthread_mutex_unlock(&n->agent->nodes_lock);
}

static void disconnect(struct node *n, const char *why)
{
	if (!n->client)
		return;
	rpc_client_close(n->client);
	n->client = NULL;
	set_offline(n, why);
	tell(n, "warning", "card-lost", why);
	log_warn("node %s: card lost: %s", n->name, why);
}

static int subscribe(struct node *n, struct err *e)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__Subscribe sub = PARAPET__SUBSCRIBE__INIT;
	struct rpc_msg reply;
	int rc;

	req.op_case = PARAPET__REQUEST__OP_SUBSCRIBE;
	req.subscribe = &sub;
	if (n->events_boot[0]) {
		sub.boot_id = n->events_boot;
		sub.has_after_seq = true;
		sub.after_seq = n->last_event;
	}
	rc = rpc_client_call(n->client, &req, CALL_MS, &reply, e);
	if (rc < 0)
		return rc;
	if (reply.frame->response->result_case == PARAPET__RESPONSE__RESULT_SUBSCRIBED) {
		const Parapet__Subscribed *s = reply.frame->response->subscribed;

		snprintf(n->events_boot, sizeof(n->events_boot), "%s", s->boot_id);
		if (s->has_missed && s->missed)
			tell(n, "warning", "events-missed",
				"the card no longer has all events since the last connection");
	}
	rpc_msg_clear(&reply);
	/* Events that came together with the answer are in our buffer: poll() would not tell of them. */
	rc = rpc_client_wait(n->client, 0, e);
	return MIN(rc, 0);
}

static int connect_card(struct node *n)
{
	struct err e = {0};
	int rc;

	rc = rpc_client_open(n->address + strlen("unix:"), "parapet-agent", CALL_MS, on_event, n,
		&n->client, &e);
	if (!rc) {
		rc = subscribe(n, &e);
		if (rc < 0) {
			rpc_client_close(n->client);
			n->client = NULL;
		}
	}
	if (rc < 0) {
		set_offline(n, err_text(&e));
		return rc;
	}
	set_online(n, rpc_client_hello(n->client));
	tell(n, "info", "card-connected", "connected to the card");
	log_info("node %s: connected", n->name);
	return 0;
}

/* ---- the thread ------------------------------------------------------------------------------------------ */

/* Milliseconds from now to the next scheduled push; -1: none is scheduled. */
static int64_t schedule_wait_ms(const struct node *n)
{
	struct schedule s;
	time_t now = time(NULL);
	int64_t left;

	if (schema_parse_schedule(n->schedule, &s) < 0 || s.kind == SCHEDULE_REALTIME)
		return -1;
	if (s.kind == SCHEDULE_EVERY)
		return (int64_t)s.seconds * 1000;
	left = (int64_t)s.seconds - now % 86400;
	return (left <= 0 ? left + 86400 : left) * 1000;
}

static void bring_up_to_date(struct node *n)
{
	struct sync_result res = {.applied = false};
	struct err e = {0};
	int rc;

	pthread_mutex_lock(&n->agent->change);
	rc = sync_now(n->agent, n->name, SYNC_PUSH, &res, &e);
	pthread_mutex_unlock(&n->agent->change);
	if (rc < 0 && rc != -EHOSTUNREACH) {
		log_warn("node %s: %s", n->name, err_text(&e));
		tell(n, "error", rc == -ESTALE ? "tables-conflict" : "sync-refused", err_text(&e));
	} else if (!rc && res.problem[0]) {
		log_warn("node %s: %s", n->name, res.problem);
		tell(n, "error", "card-problem", res.problem);
	}
	sync_result_clear(&res);
}

/* Sleeps until the card says something, someone wakes us or the time is up. */
static void wait_and_listen(struct node *n, int64_t wait_ms)
{
	struct pollfd p[2] = {{.fd = n->wake_fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
	struct err e = {0};
	uint64_t count;

	pthread_mutex_lock(&n->lock);
	if (n->client)
		p[1].fd = rpc_client_fd(n->client);
	pthread_mutex_unlock(&n->lock);
	if (poll(p, 2, wait_ms < 0 ? -1 : (int)MIN(wait_ms, 3600000)) < 0)
		return;
	if (p[0].revents && read(n->wake_fd, &count, sizeof(count)) < 0)
		log_warn("node %s: wake: %m", n->name);
	if (!p[1].revents)
		return;
	pthread_mutex_lock(&n->lock);
	/* the connection may be another one by now: then nothing is there, and that is fine */
	if (n->client && rpc_client_wait(n->client, 0, &e) < 0)
		disconnect(n, err_text(&e));
	pthread_mutex_unlock(&n->lock);
}

static void *node_main(void *arg)
{
	struct node *n = arg;
	int64_t backoff_ms = BACKOFF_MIN_MS, wait_ms, due;
	bool fresh, stop, stale;

	wait_ms = schedule_wait_ms(n);
	due = wait_ms < 0 ? -1 : clock_now_ms() + wait_ms;
	for (;;) {
		fresh = false;
		pthread_mutex_lock(&n->lock);
		stop = n->stop;
		stale = n->stale;
		n->stale = false;
		if (!stop && !n->client)
			fresh = connect_card(n) == 0;
		wait_ms = n->client ? -1 : backoff_ms;
		backoff_ms = n->client ? BACKOFF_MIN_MS : MIN(backoff_ms * 2, BACKOFF_MAX_MS);
		pthread_mutex_unlock(&n->lock);
		if (stop)
			break;
		if (fresh || stale || (due >= 0 && clock_now_ms() >= due)) {
			bring_up_to_date(n);
			if (due >= 0 && clock_now_ms() >= due)
				due = clock_now_ms() + schedule_wait_ms(n);
		}
		if (due >= 0) {
			int64_t left = MAX(due - clock_now_ms(), 0);

			wait_ms = wait_ms < 0 ? left : MIN(wait_ms, left);
		}
		wait_and_listen(n, wait_ms);
	}
	pthread_mutex_lock(&n->lock);
	rpc_client_close(n->client);
	n->client = NULL;
	pthread_mutex_unlock(&n->lock);
	pthread_mutex_lock(&n->look_lock);
	rpc_client_close(n->look);
	n->look = NULL;
	pthread_mutex_unlock(&n->look_lock);
	return NULL;
}

/* ---- the set of nodes ---------------------------------------------------------------------------------- */

/* The node is no longer in the list. */
static void node_stop(struct node *n)
{
	pthread_mutex_lock(&n->lock);
	n->stop = true;
	pthread_mutex_unlock(&n->lock);
	wake(n);
	pthread_join(n->thread, NULL);
	pthread_mutex_lock(&n->agent->nodes_lock);
	while (n->refs)
		pthread_cond_wait(&n->agent->nodes_idle, &n->agent->nodes_lock);
	pthread_mutex_unlock(&n->agent->nodes_lock);
	close(n->wake_fd);
	rpc_client_close(n->look);
	pthread_mutex_destroy(&n->look_lock);
	pthread_mutex_destroy(&n->lock);
	free(n);
}

static int node_start(struct agent *a, const json_t *o, struct err *e)
{
	const char *schedule = json_string_value(json_object_get(o, "schedule"));
	struct node *n = calloc(1, sizeof(*n));
	int rc;

	if (!n)
		return err_set(e, -ENOMEM, "node", "", "out of memory");
	n->agent = a;
	snprintf(n->name, sizeof(n->name), "%s", json_string_value(json_object_get(o, "name")));
	snprintf(n->address, sizeof(n->address), "%s",
		json_string_value(json_object_get(o, "address")));
	snprintf(n->schedule, sizeof(n->schedule), "%s", schedule ? schedule : "realtime");
	snprintf(n->state.last_error, sizeof(n->state.last_error), "not connected yet");
	n->wake_fd = eventfd(0, EFD_CLOEXEC);
	if (n->wake_fd < 0) {
		rc = -errno;
		free(n);
		return err_set(e, rc, "node", "", "eventfd: %s", strerror(-rc));
	}
	pthread_mutex_init(&n->look_lock, NULL);
	pthread_mutex_init(&n->lock, NULL);
	/* The thread asks for its own node at once: it must find it in the list. */
	pthread_mutex_lock(&a->nodes_lock);
	rc = pthread_create(&n->thread, NULL, node_main, n);
	if (!rc)
		LL_APPEND(a->nodes, n);
	pthread_mutex_unlock(&a->nodes_lock);
	if (rc) {
		close(n->wake_fd);
		pthread_mutex_destroy(&n->look_lock);
		pthread_mutex_destroy(&n->lock);
		free(n);
		return err_set(e, -rc, "node", "", "thread: %s", strerror(rc));
	}
	return 0;
}

/* With agent->nodes_lock held. */
static struct node *find(struct agent *a, const char *name)
{
	struct node *n;

	LL_FOREACH(a->nodes, n)
	{
		if (!strcmp(n->name, name))
			return n;
	}
	return NULL;
}

/* A reference keeps the node from being freed. */
static struct node *node_get(struct agent *a, const char *name)
{
	struct node *n;

	pthread_mutex_lock(&a->nodes_lock);
	n = find(a, name);
	if (n)
		n->refs++;
	pthread_mutex_unlock(&a->nodes_lock);
	return n;
}

static void node_put(struct node *n)
{
	struct agent *a = n->agent;

	pthread_mutex_lock(&a->nodes_lock);
	n->refs--;
	pthread_cond_broadcast(&a->nodes_idle);
	pthread_mutex_unlock(&a->nodes_lock);
}

static bool same_node(const struct node *n, const json_t *o)
{
	const char *schedule = json_string_value(json_object_get(o, "schedule"));

	return !strcmp(n->name, json_string_value(json_object_get(o, "name"))) &&
	       !strcmp(n->address, json_string_value(json_object_get(o, "address"))) &&
	       !strcmp(n->schedule, schedule ? schedule : "realtime");
}

static int reload_locked(struct agent *a, struct store *s, struct err *e)
{
	struct node *n, *tmp, *gone = NULL;
	json_t *list, *o;
	size_t i;
	int rc = store_list(s, &noun_node, NULL, &list, e);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&a->nodes_lock);
	LL_FOREACH_SAFE(a->nodes, n, tmp)
	{
		bool keep = false;

		json_array_foreach(list, i, o)
		{
			keep = keep || same_node(n, o);
		}
		if (!keep) {
			LL_DELETE(a->nodes, n);
			LL_PREPEND(gone, n);
		}
	}
	pthread_mutex_unlock(&a->nodes_lock);
	LL_FOREACH_SAFE(gone, n, tmp)
	{
		node_stop(n);
	}
	json_array_foreach(list, i, o)
	{
		const char *name = json_string_value(json_object_get(o, "name"));
		struct node_state st;

		if (!rc && !node_state_get(a, name, &st))
			rc = node_start(a, o, e);
	}
	json_decref(list);
	return rc;
}

int nodes_reload(struct agent *a, struct err *e)
{
	struct store *s;
	int rc = store_open(a->db_path, &s, e);

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&a->reload);
	rc = reload_locked(a, s, e);
	pthread_mutex_unlock(&a->reload);
	store_close(s);
	return rc;
}

void nodes_close(struct agent *a)
{
	struct node *n, *tmp;

	LL_FOREACH_SAFE(a->nodes, n, tmp)
	{
		pthread_mutex_lock(&a->nodes_lock);
		LL_DELETE(a->nodes, n);
		pthread_mutex_unlock(&a->nodes_lock);
		node_stop(n);
	}
}

bool node_state_get(struct agent *a, const char *name, struct node_state *out)
{
	struct node *n;

	pthread_mutex_lock(&a->nodes_lock);
	n = find(a, name);
	if (n)
		*out = n->state;
	pthread_mutex_unlock(&a->nodes_lock);
	return n;
}

void node_wait_tried(struct agent *a, const char *name, int timeout_ms)
{
	const struct timespec nap = {.tv_nsec = 10000000};
	struct node_state st;

	for (int64_t until = clock_now_ms() + timeout_ms; clock_now_ms() < until;
		nanosleep(&nap, NULL))
		if (!node_state_get(a, name, &st) || st.tried)
			return;
}

void node_card_version_set(struct agent *a, const char *name, uint64_t version)
{
	struct node *n;

	pthread_mutex_lock(&a->nodes_lock);
	n = find(a, name);
	if (n)
		n->state.card_version = version;
	pthread_mutex_unlock(&a->nodes_lock);
}

static bool is_lost(int rc)
{
	return rc == -ETIMEDOUT || rc == -ECONNRESET || rc == -EPROTO;
}

static int unreachable(struct node *n, struct err *e)
{
	struct node_state st = {.last_error = ""};
	char object[96];

	snprintf(object, sizeof(object), "node %s", n->name);
	node_state_get(n->agent, n->name, &st);
	return err_set(e, -EHOSTUNREACH, object, "address",
		"the card cannot be reached at %.100s: %.180s", n->address, st.last_error);
}

static int lost(struct node *n, const struct err *why, struct err *e)
{
	char object[96];

	snprintf(object, sizeof(object), "node %s", n->name);
	return err_set(
		e, -EHOSTUNREACH, object, "address", "the card was lost: %.280s", err_text(why));
}

/* ---- changes: over the connection that events come in on; under n->lock */

static int timeout_of(const Parapet__Request *req)
{
	switch (req->op_case) {
	case PARAPET__REQUEST__OP_POOL_CREATE:
	case PARAPET__REQUEST__OP_POOL_OPEN:
	case PARAPET__REQUEST__OP_FLASH_ADD:
	case PARAPET__REQUEST__OP_FLASH_REMOVE:
	case PARAPET__REQUEST__OP_FLASH_REPLACE:
	case PARAPET__REQUEST__OP_FLASH_RETURN:
	case PARAPET__REQUEST__OP_CHECKPOINT:
		return CALL_LONG_MS;
	case PARAPET__REQUEST__OP_FLASH_DISCOVER:
	case PARAPET__REQUEST__OP_TABLES_PUSH:
	case PARAPET__REQUEST__OP_DEVICE_ADD:
	case PARAPET__REQUEST__OP_DEVICE_DEL:
	case PARAPET__REQUEST__OP_DEVICE_GROW:
	case PARAPET__REQUEST__OP_DEVICE_SET:
	case PARAPET__REQUEST__OP_POOL_SET:
	case PARAPET__REQUEST__OP_TASK_START:
	case PARAPET__REQUEST__OP_TASK_CONTROL:
	case PARAPET__REQUEST__OP_TASK_LIMITS:
		return CALL_FLASH_MS;
	default:
		return CALL_MS;
	}
}

static int change_locked(
	struct node *n, Parapet__Request *req, struct rpc_msg *reply, struct err *e)
{
	struct err why = {0};
	int rc;

	if (!n->client)
		return unreachable(n, e);
	rc = rpc_client_call(n->client, req, timeout_of(req), reply, &why);
	if (is_lost(rc)) {
		disconnect(n, err_text(&why));
		wake(n);
		return lost(n, &why, e);
	}
	if (rc < 0 && e)
		*e = why;
	/* Events that came together with the answer; a connection that is lost by now is found out by the thread. */
	if (rpc_client_wait(n->client, 0, NULL) < 0)
		wake(n);
	return rc;
}

/* ---- questions: over a connection of their own; under n->look_lock */

static bool is_question(const Parapet__Request *req)
{
	switch (req->op_case) {
	case PARAPET__REQUEST__OP_TABLES_GET:
	case PARAPET__REQUEST__OP_DEVICE_LIST:
	case PARAPET__REQUEST__OP_EXPLAIN:
	case PARAPET__REQUEST__OP_FLOW_LIST:
	case PARAPET__REQUEST__OP_STATUS_GET:
	case PARAPET__REQUEST__OP_STATS_GET:
	case PARAPET__REQUEST__OP_TOP_GET:
	case PARAPET__REQUEST__OP_TASK_LIST:
	case PARAPET__REQUEST__OP_SHARD_LIST:
		return true;
	default:
		return false;
	}
}

static int look_once(struct node *n, Parapet__Request *req, struct rpc_msg *reply, struct err *why)
{
	int rc = 0;

	if (!n->look)
		rc = rpc_client_open(n->address + strlen("unix:"), "parapet-agent", CALL_MS, NULL,
			NULL, &n->look, why);
	if (rc < 0) {
		n->look = NULL;
		return -ECONNRESET;
	}
	rc = rpc_client_call(n->look, req, CALL_MS, reply, why);
	if (is_lost(rc)) {
		rpc_client_close(n->look);
		n->look = NULL;
	}
	return rc;
}

static int look_locked(struct node *n, Parapet__Request *req, struct rpc_msg *reply, struct err *e)
{
	struct node_state st = {.connected = false};
	struct err why = {0};
	bool had = n->look;
	int rc;

	/* That the card is there is known from the other connection, which is tried again all the time. */
	if (!node_state_get(n->agent, n->name, &st) || !st.connected)
		return unreachable(n, e);
	rc = look_once(n, req, reply, &why);
	if (rc == -ECONNRESET && had) /* of a card that has been restarted since */
		rc = look_once(n, req, reply, &why);
	if (is_lost(rc)) {
		/* A card that does not answer here is given up as a whole, unless a change has its attention. */
		if (pthread_mutex_trylock(&n->lock) == 0) {
			disconnect(n, err_text(&why));
			pthread_mutex_unlock(&n->lock);
			wake(n);
		}
		return lost(n, &why, e);
	}
	if (rc < 0 && e)
		*e = why;
	return rc;
}

int node_call(struct agent *a, const char *name, Parapet__Request *req, struct rpc_msg *reply,
	struct err *e)
{
	struct node *n = node_get(a, name);
	pthread_mutex_t *lock;
	char object[96];
	int rc;

	if (!n) {
		snprintf(object, sizeof(object), "node %s", name);
		return err_set(e, -ENOENT, object, "", "does not exist");
	}
	lock = is_question(req) ? &n->look_lock : &n->lock;
	pthread_mutex_lock(lock);
	rc = is_question(req) ? look_locked(n, req, reply, e) : change_locked(n, req, reply, e);
	pthread_mutex_unlock(lock);
	node_put(n);
	return rc;
}
