/* SPDX-License-Identifier: BSD-3-Clause */
/* HTTP: sockets, bodies, routing, answers, the event stream. What is asked for is in api_*.c. */
#include "host-agent/agentd/api.h"

#include "common/base/log.h"
#include "common/base/util.h"
#include "common/rpc/conn.h"

#include <errno.h>
#include <microhttpd.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BODY_MAX        (4u << 20)
#define CONNECTIONS_MAX 64
#define IDLE_S          60

struct api {
	struct agent *a;
	struct MHD_Daemon *daemon;
	int fd;
	char path[108];
};

/* A request on its way in. */
struct incoming {
	char *body;
	size_t len;
	bool too_large;
};

static const struct api_route *const routes[] = {
	api_config_routes, api_table_routes, api_card_routes, api_flash_routes, api_task_routes};

/* ---- answers --------------------------------------------------------------------------------------------- */

static const struct {
	int code;
	const char *name;
	unsigned int http;
} codes[] = {
	{EINVAL, "EINVAL", 400},
	{ERANGE, "ERANGE", 400},
	{E2BIG, "E2BIG", 400},
	{ENOENT, "ENOENT", 404},
	{EEXIST, "EEXIST", 409},
	{EBUSY, "EBUSY", 409},
	{ENOSPC, "ENOSPC", 409},
	{ENODATA, "ENODATA", 409},
	{ESTALE, "ESTALE", 412},
	{EAGAIN, "EAGAIN", 409},
	{EXDEV, "EXDEV", 409},
	{EUCLEAN, "EUCLEAN", 409},
	{ENODEV, "ENODEV", 409},
	{EOWNERDEAD, "EOWNERDEAD", 409},
	{EHOSTUNREACH, "EHOSTUNREACH", 503},
	{EOPNOTSUPP, "EOPNOTSUPP", 501},
};

static enum MHD_Result answer(struct MHD_Connection *conn, unsigned int http, json_t *o)
{
	char *text = o ? json_dumps(o, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
	struct MHD_Response *r;
	enum MHD_Result ret;

	json_decref(o);
	if (!text)
		return MHD_NO; /* out of memory: closing the connection is all that is left */
	r = MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
	if (!r) {
		free(text);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", "application/json");
	ret = MHD_queue_response(conn, http, r);
	MHD_destroy_response(r);
	return ret;
}

/* Reasons end in "; allowed: ..." where there is a choice: told apart for programs. */
static enum MHD_Result answer_error(struct MHD_Connection *conn, const struct err *e)
{
	const char *split = strstr(e->reason, "; allowed: ");
	size_t len = split ? (size_t)(split - e->reason) : strlen(e->reason);
	const char *name = "EIO";
	unsigned int http = 500;
	char number[16];
	json_t *o;

	snprintf(number, sizeof(number), "E%d", -e->code);
	if (e->code != -EIO)
		name = number;
	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		if (codes[i].code == -e->code) {
			name = codes[i].name;
			http = codes[i].http;
		}
	}
	o = json_pack("{s:{s:s, s:s, s:s, s:s%, s:s?}}", "error", "code", name, "object", e->object,
		"field", e->field, "reason", e->reason[0] ? e->reason : strerror(-e->code),
		e->reason[0] ? len : strlen(strerror(-e->code)), "allowed",
		split ? split + strlen("; allowed: ") : NULL);
	if (!o) /* the card's words were not UTF-8 */
		o = json_pack("{s:{s:s, s:s, s:s, s:s}}", "error", "code", name, "object", "",
			"field", "", "reason", "a text that cannot be shown");
	return answer(conn, http, o);
}

/* ---- events ------------------------------------------------------------------------------------------------ */

struct event_stream {
	struct events *ev;
	uint64_t last;
	bool follow, first;
	char *pending;
	size_t off, len;
};

static char *event_lines(json_t *list, size_t *len)
{
	char *text = NULL;
	json_t *o;
	size_t i;

	*len = 0;
	json_array_foreach(list, i, o)
	{
		char *line = json_dumps(o, JSON_COMPACT), *bigger;
		size_t n = line ? strlen(line) : 0;

		bigger = line ? realloc(text, *len + n + 2) : NULL;
		if (!bigger) {
			free(line);
			break;
		}
		text = bigger;
		memcpy(text + *len, line, n);
		text[*len + n] = '\n';
		*len += n + 1;
		free(line);
	}
	return text;
}

/* Blocks up to a second: every connection has a thread of its own. */
static ssize_t stream_read(void *arg, uint64_t pos, char *buf, size_t max)
{
	struct event_stream *st = arg;
	json_t *list;
	size_t n;

	if (st->off == st->len) {
		uint64_t from = st->last;

		free(st->pending);
		st->pending = NULL;
		st->off = st->len = 0;
		n = events_after(
			st->ev, from, st->follow && !st->first ? 1000 : 0, &list, &st->last);
		if (n)
			st->pending = event_lines(list, &st->len);
		json_decref(list);
		if (!st->len) {
			if (!st->follow)
				return MHD_CONTENT_READER_END_OF_STREAM;
			/* an empty line now and then shows that someone is still there */
			if (events_stopped(st->ev))
				return MHD_CONTENT_READER_END_OF_STREAM;
			st->first = false;
			buf[0] = '\n';
			return 1;
		}
		st->first = false;
	}
	n = MIN(max, st->len - st->off);
	memcpy(buf, st->pending + st->off, n);
	st->off += n;
	return (ssize_t)n;
}

static void stream_free(void *arg)
{
	struct event_stream *st = arg;

	free(st->pending);
	free(st);
}

static enum MHD_Result answer_events(struct api *api, struct MHD_Connection *conn)
{
	const char *after = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, "after");
	const char *follow = MHD_lookup_connection_value(conn, MHD_GET_ARGUMENT_KIND, "follow");
	struct event_stream *st = calloc(1, sizeof(*st));
	struct MHD_Response *r;
	enum MHD_Result ret;

	if (!st)
		return MHD_NO;
	st->ev = api->a->events;
	st->last = after ? strtoull(after, NULL, 10) : 0;
	st->follow = follow && !strcmp(follow, "1");
	st->first = true;
	r = MHD_create_response_from_callback(
		MHD_SIZE_UNKNOWN, 16384, stream_read, st, stream_free);
	if (!r) {
		stream_free(st);
		return MHD_NO;
	}
	MHD_add_response_header(r, "Content-Type", "application/x-ndjson");
	ret = MHD_queue_response(conn, 200, r);
	MHD_destroy_response(r);
	return ret;
}

/* ---- requests ------------------------------------------------------------------------------------------------ */

const char *api_query(const struct api_request *rq, const char *name)
{
	return json_string_value(json_object_get(rq->query, name));
}

int api_node(struct api_request *rq, const char **node, struct err *e)
{
	json_t *o = rq->body && json_is_object(rq->body) ? rq->body : rq->query, *key, *have = NULL;
	int rc = change_default_node(rq->s, o, e);

	if (rc < 0)
		return rc;
	*node = json_string_value(json_object_get(o, "node"));
	if (!*node)
		return err_set(e, -EINVAL, "node", "node", "is not a text; allowed: a node's name");
	key = json_pack("{s:s}", "name", *node);
	rc = key ? store_get(rq->s, &noun_node, key, &have, e) : -ENOMEM;
	json_decref(have);
	json_decref(key);
	return rc;
}

static enum MHD_Result add_query(
	void *arg, enum MHD_ValueKind kind, const char *key, const char *value)
{
	/* what is not UTF-8 cannot be a value of ours and is left out */
	json_object_set_new(arg, key, json_string(value ? value : ""));
	return MHD_YES;
}

/* Who asks: the user at the other end of the socket, and whom the client says it acts for. */
static void find_author(struct MHD_Connection *conn, char *buf, size_t size)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(
		conn, MHD_CONNECTION_INFO_CONNECTION_FD);
	const char *named = MHD_lookup_connection_value(conn, MHD_HEADER_KIND, "X-Parapet-Author");
	struct ucred cred = {.uid = (uid_t)-1};
	socklen_t len = sizeof(cred);
	struct passwd pw, *found = NULL;
	char scratch[1024], user[40];
	size_t i;

	if (!info || getsockopt(info->connect_fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
		cred.uid = (uid_t)-1;
	if (getpwuid_r(cred.uid, &pw, scratch, sizeof(scratch), &found) == 0 && found)
		snprintf(user, sizeof(user), "%.32s", pw.pw_name);
	else
		snprintf(user, sizeof(user), "uid %u", cred.uid);
	i = snprintf(buf, size, "%s", user);
	if (!named || !named[0] || !strcmp(named, user))
		return;
	i += snprintf(buf + i, size - i, " (%.40s)", named);
	for (char *p = buf; *p; p++)
		if (*p < ' ' || *p > '~')
			*p = '?';
}

static int parse_body(struct incoming *in, json_t **body, struct err *e)
{
	json_error_t je;

	if (in->too_large)
		return err_set(
			e, -E2BIG, "request", "body", "too large; allowed: %u bytes", BODY_MAX);
	if (!in->len)
		return 0;
	*body = json_loadb(in->body, in->len, JSON_REJECT_DUPLICATES, &je);
	if (!*body)
		return err_set(e, -EINVAL, "request", "body", "not JSON: %.150s (line %d)", je.text,
			je.line);
	if (!json_is_object(*body))
		return err_set(e, -EINVAL, "request", "body", "not an object; allowed: {...}");
	return 0;
}

static const struct api_route *find_route(const char *method, const char *path, bool *path_known)
{
	*path_known = false;
	for (size_t i = 0; i < ARRAY_LEN(routes); i++) {
		for (const struct api_route *r = routes[i]; r->method; r++) {
			if (strcmp(r->path, path) != 0)
				continue;
			*path_known = true;
			if (!strcmp(r->method, method))
				return r;
		}
	}
	return NULL;
}

static int handle(struct api *api, struct MHD_Connection *conn, const struct api_route *route,
	struct incoming *in, json_t **out, struct err *e)
{
	struct api_request rq = {.a = api->a, .query = json_object()};
	int rc = rq.query ? parse_body(in, &rq.body, e) : -ENOMEM;

	if (!rc)
		rc = store_open(api->a->db_path, &rq.s, e);
	if (!rc) {
		MHD_get_connection_values(conn, MHD_GET_ARGUMENT_KIND, add_query, rq.query);
		find_author(conn, rq.author, sizeof(rq.author));
		rc = route->fn(&rq, out, e);
		store_close(rq.s);
	}
	json_decref(rq.query);
	json_decref(rq.body);
	return rc;
}

static enum MHD_Result respond(struct api *api, struct MHD_Connection *conn, const char *path,
	const char *method, struct incoming *in)
{
	const struct api_route *route;
	struct err e = {0};
	json_t *out = NULL;
	bool known;
	int rc;

	if (!strcmp(path, "/v1/events") && !strcmp(method, "GET"))
		return answer_events(api, conn);
	route = find_route(method, path, &known);
	if (!route) {
		rc = err_set(&e, known ? -EINVAL : -ENOENT, "request", known ? "method" : "path",
			known ? "this method is not for this path" : "there is no such path");
		return answer_error(conn, &e);
	}
	rc = handle(api, conn, route, in, &out, &e);
	if (rc < 0) {
		e.code = rc;
		return answer_error(conn, &e);
	}
	return answer(conn, 200, out ? out : json_object());
}

static enum MHD_Result on_request(void *arg, struct MHD_Connection *conn, const char *url,
	const char *method, const char *version, const char *data, size_t *len, void **state)
{
	struct incoming *in = *state;
	char *bigger;

	if (!in) {
		in = calloc(1, sizeof(*in));
		*state = in;
		return in ? MHD_YES : MHD_NO;
	}
	if (!*len)
		return respond(arg, conn, url, method, in);
	if (in->len + *len > BODY_MAX) {
		in->too_large = true;
	} else {
		bigger = realloc(in->body, in->len + *len);
		if (!bigger)
			return MHD_NO;
		in->body = bigger;
		memcpy(in->body + in->len, data, *len);
		in->len += *len;
	}
	*len = 0;
	return MHD_YES;
}

static void on_done(
	void *arg, struct MHD_Connection *conn, void **state, enum MHD_RequestTerminationCode how)
{
	struct incoming *in = *state;

	if (!in)
		return;
	free(in->body);
	free(in);
	*state = NULL;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

int api_start(struct agent *a, const char *path, struct api **out, struct err *e)
{
	struct api *api;
	int rc;

	api = calloc(1, sizeof(*api));
	if (!api)
		return err_set(e, -ENOMEM, "api", "", "out of memory");
	api->a = a;
	snprintf(api->path, sizeof(api->path), "%s", path);
	rc = rpc_listen(path, &api->fd, e);
	if (rc < 0) {
		free(api);
		return rc;
	}
	api->daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD |
					       MHD_USE_THREAD_PER_CONNECTION | MHD_USE_POLL |
					       MHD_USE_ITC,
		0, NULL, NULL, on_request, api, MHD_OPTION_LISTEN_SOCKET, api->fd,
		MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_S,
		MHD_OPTION_NOTIFY_COMPLETED, on_done, NULL, MHD_OPTION_END);
	if (!api->daemon) {
		close(api->fd);
		unlink(path);
		free(api);
		return err_set(e, -EIO, "api", "", "the HTTP server does not start");
	}
	*out = api;
	return 0;
}

void api_stop(struct api *api)
{
	if (!api)
		return;
	MHD_stop_daemon(api->daemon); /* closes the socket too */
	unlink(api->path);
	free(api);
}
