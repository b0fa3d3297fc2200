/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The agent's API: HTTP/1.1 and JSON on a root-only Unix socket (mode 0600: who may open it may do everything).
 *
 *	GET    /v1/NOUN[?node=&vm=&name=&path=]	list       NOUN: nodes flashes pools vms devices queues rows
 *						(flashes, pools, devices: &live=1 adds what the card says)
 *	POST   /v1/NOUN   {fields}		make (rows, queues: make or set)
 *	PATCH  /v1/NOUN   {keys, fields}	set; null clears a field
 *	DELETE /v1/NOUN?keys			delete (rows: those of vm=, of method= and path= where given)
 *	POST   /v1/apply[?check=1]  {nodes: [..]}	a whole document (apply.h)
 *	GET    /v1/table?node=&version=		one version   GET /v1/table/history, /v1/table/diff?from=&to=
 *	POST   /v1/table/push {node, force}	POST /v1/table/fetch {node, adopt}
 *	GET    /v1/explain?node=&vm=&device=&op=read|write
 *	GET    /v1/status  /v1/stats  /v1/top  /v1/flows  /v1/card/devices ?node=
 *	GET    /v1/card/explain?node=&vm=&device=&op=	the card's own, of what is in force there
 *	POST   /v1/flashes/fail, /return {node, name}	POST /v1/flashes/replace {node, name, by: {name, address, ..}, force}
 *	GET    /v1/flashes/discover?node=&host=&port=&transport=	what a peer offers, as the card sees it
 *	POST   /v1/pools/open {node, force, take_over}	POST /v1/pools/import {node, flashes: ["NAME=ADDRESS", ..], force, take_over}
 *	POST   /v1/pools/checkpoint {node}
 *	GET    /v1/tasks?node=&id=		POST /v1/tasks {node, reason, flash, vm, path, plain_too}
 *	POST   /v1/tasks/pause, /resume, /cancel {node, id}	PATCH /v1/tasks/limits {node, share, ceiling}
 *	GET    /v1/shards?node=		the shards of a card, as ShardList answers	POST /v1/shards/move {node, vm, shard}
 *	GET    /v1/events?after=&follow=1	JSON lines
 *
 * "node" may be left out where there is only one. A change may carry "base": {"NODE": VERSION} in the query as
 * base=VERSION: it is refused (ESTALE) where the node's tables have another version. Header X-Parapet-Author names a person.
 *
 * Answers: 200 and the object; else {"error": {"code": "EINVAL", "object", "field", "reason", "allowed"}} with
 * 400 EINVAL, 404 ENOENT, 409 EEXIST EBUSY ENOSPC EAGAIN EXDEV EUCLEAN ENODEV EOWNERDEAD (take_over is needed), 412 ESTALE, 503 EHOSTUNREACH (card), 500 anything else.
 * Changes answer as change.h says.
 *
 * Thread: the server has its own, one per connection. Errors: 0 or -errno with e filled.
 *
 *	api_start(agent, "/run/parapet/agent.sock", &api, &err); ... api_stop(api);
 */
#ifndef HOST_AGENT_AGENTD_API_H
#define HOST_AGENT_AGENTD_API_H

#include "host-agent/agentd/change.h"

struct api;

int api_start(struct agent *a, const char *path, struct api **out, struct err *e);
/* Ends all connections; event streams end with it (call events_stop() first). */
void api_stop(struct api *api);

/* One request, as its handler sees it. */
struct api_request {
	struct agent *a;
	struct store *s; /* for reading */
	char author[96];
	json_t *query; /* of texts */
	json_t *body; /* NULL where none was sent */
};

typedef int (*api_fn)(struct api_request *rq, json_t **out, struct err *e);

struct api_route {
	const char *method, *path;
	api_fn fn;
};

/* One array per file of handlers, each ended by {NULL}. */
extern const struct api_route api_config_routes[], api_table_routes[], api_card_routes[],
	api_flash_routes[], api_task_routes[];

/* "node" of the query or of the body, or the only one there is. */
int api_node(struct api_request *rq, const char **node, struct err *e);
const char *api_query(const struct api_request *rq, const char *name);
/* One change, with base= and check= of the query and its author. */
int api_change(struct api_request *rq, change_fn fn, void *arg, json_t **out, struct err *e);
/* Asks the card; *out: the response's message of kind `want`. */
int api_ask(struct api_request *rq, const char *node, Parapet__Request *req,
	Parapet__Response__ResultCase want, json_t **out, struct err *e);
json_t *api_card_status(struct api_request *rq, const char *node); /* NULL: not reachable */

/* Adds to flashes, pools or devices what their card says about them, as "card", to VMs their "shard" where the card has several; nothing where it cannot
 * be reached. */
void api_add_live(struct api_request *rq, const struct noun *n, json_t *list);

#endif
