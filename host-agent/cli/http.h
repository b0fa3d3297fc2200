/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Requests to the agent, over its Unix socket with libcurl.
 * Thread: one. Ownership: *answer belongs to the caller. Errors: -ECONNREFUSED (no agent there), -EIO, -EPROTO with e
 * filled; an answer that is an error of the agent's is 0, with its HTTP status in *status.
 *
 *	http_init(); rc = http_call("/run/parapet/agent.sock", "GET", "/v1/nodes", query, NULL, &status, &answer, &err);
 */
#ifndef HOST_AGENT_CLI_HTTP_H
#define HOST_AGENT_CLI_HTTP_H

#include "common/base/err.h"

#include <jansson.h>

int http_init(void);
void http_done(void);

/* query: object of texts (NULL: none); body: NULL for none. */
int http_call(const char *socket, const char *method, const char *path, const json_t *query,
	const json_t *body, long *status, json_t **answer, struct err *e);

/* Calls line_fn for every non-empty line of the answer as it comes, until the other side ends it. */
typedef void (*http_line_fn)(void *arg, const char *line);
int http_stream(const char *socket, const char *path, const json_t *query, http_line_fn line_fn,
	void *arg, struct err *e);

#endif
