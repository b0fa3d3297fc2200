/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/cli/http.h"

#include "common/base/util.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define ANSWER_MAX (64u << 20)

struct buffer {
	char *text;
	size_t len;
	http_line_fn line_fn; /* NULL: gather everything */
	void *arg;
};

int http_init(void)
{
	return curl_global_init(CURL_GLOBAL_DEFAULT) ? -EIO : 0;
}

void http_done(void)
{
	curl_global_cleanup();
}

static void give_lines(struct buffer *b)
{
	char *start = b->text, *end;

	while ((end = memchr(start, '\n', b->len - (start - b->text)))) {
		*end = '\0';
		if (*start)
			b->line_fn(b->arg, start);
		start = end + 1;
	}
	b->len -= start - b->text;
	memmove(b->text, start, b->len);
}

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
	struct buffer *b = arg;
	char *bigger;

	if (b->len + n > ANSWER_MAX)
		return 0;
	bigger = realloc(b->text, b->len + n + 1);
	if (!bigger)
		return 0;
	b->text = bigger;
	memcpy(b->text + b->len, data, n);
	b->len += n;
	b->text[b->len] = '\0';
	if (b->line_fn)
		give_lines(b);
	return n;
}

/* "http://agent/v1/x?a=b", curl_free()d by the caller's cleanup. */
static char *url_of(CURL *curl, const char *path, const json_t *query)
{
	size_t size = 4096, len;
	char *url = malloc(size), sep = '?';
	const char *name;
	json_t *v;

	if (!url)
		return NULL;
	len = snprintf(url, size, "http://agent%s", path);
	json_object_foreach((json_t *)query, name, v)
	{
		char *k = curl_easy_escape(curl, name, 0);
		char *t = curl_easy_escape(
			curl, json_string_value(v) ? json_string_value(v) : "", 0);
		size_t need = k && t ? strlen(k) + strlen(t) + 3 : size;

		if (len + need < size)
			len += snprintf(url + len, size - len, "%c%s=%s", sep, k, t);
		else
			len = size; /* refused below */
		sep = '&';
		curl_free(k);
		curl_free(t);
		if (len >= size) {
			free(url);
			return NULL;
		}
	}
	return url;
}

/* Whom a change is made for: the person behind sudo, if there is one. */
static struct curl_slist *headers(void)
{
	const char *user = getenv("SUDO_USER");
	struct curl_slist *h = curl_slist_append(NULL, "Content-Type: application/json"), *more;
	char line[128];

	if (!user || !user[0])
		user = getenv("USER");
	if (h && user && user[0] && !strpbrk(user, "\r\n")) {
		snprintf(line, sizeof(line), "X-Parapet-Author: %.64s", user);
		more = curl_slist_append(h, line);
		h = more ? more : h;
	}
	/* no pause of a second before a larger body */
	more = h ? curl_slist_append(h, "Expect:") : NULL;
	return more ? more : h;
}

static int perform(CURL *curl, const char *socket, long *status, struct err *e)
{
	char why[CURL_ERROR_SIZE] = "";
	CURLcode rc;

	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
	rc = curl_easy_perform(curl);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
	if (rc == CURLE_COULDNT_CONNECT)
		return err_set(e, -ECONNREFUSED, "agent", "",
			"not reachable at %s; allowed: start parapet-agent, or name its socket "
			"with "
			"--agent",
			socket);
	if (rc != CURLE_OK)
		return err_set(e, -EIO, "agent", "", "%s", why[0] ? why : curl_easy_strerror(rc));
	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, status);
	return 0;
}

static int exchange(const char *socket, const char *method, const char *path, const json_t *query,
	const char *body, struct buffer *b, long *status, struct err *e)
{
	struct curl_slist *h = headers();
	CURL *curl = curl_easy_init();
	char *url = curl ? url_of(curl, path, query) : NULL;
	int rc;

	if (!curl || !url || !h) {
		rc = err_set(e, -ENOMEM, "request", "", "too long, or out of memory");
	} else {
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
		curl_easy_setopt(curl, CURLOPT_URL, url);
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
		curl_easy_setopt(curl, CURLOPT_HTTPHEADER, h);
		curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
		curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_data);
		curl_easy_setopt(curl, CURLOPT_WRITEDATA, b);
		if (body)
			curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
		rc = perform(curl, socket, status, e);
	}
	free(url);
	curl_slist_free_all(h);
	curl_easy_cleanup(curl);
	return rc;
}

int http_call(const char *socket, const char *method, const char *path, const json_t *query,
	const json_t *body, long *status, json_t **answer, struct err *e)
{
	autofree char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	struct buffer b = {NULL};
	json_error_t je;
	int rc;

	if (body && !text)
		return err_set(e, -EINVAL, "request", "", "cannot be written as JSON");
	rc = exchange(socket, method, path, query, text, &b, status, e);
	if (!rc) {
		*answer = json_loadb(b.text ? b.text : "", b.len, 0, &je);
		if (!*answer)
			rc = err_set(
				e, -EPROTO, "agent", "", "its answer is not JSON: %s", je.text);
	}
	free(b.text);
	return rc;
}

int http_stream(const char *socket, const char *path, const json_t *query, http_line_fn line_fn,
	void *arg, struct err *e)
{
	struct buffer b = {.line_fn = line_fn, .arg = arg};
	long status = 0;
	int rc = exchange(socket, "GET", path, query, NULL, &b, &status, e);

	free(b.text);
	if (!rc && status != 200)
		rc = err_set(e, -EIO, "agent", "", "HTTP status %ld", status);
	return rc;
}
