/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One request on its way through a handler, and the memory its response is made of.
 *
 * Handlers run on the shard; the response is packed by the server's thread later, when the card may have changed: it must not
 * point to anything but the call's own memory and its doc. They fill call->resp from call_*() memory, which lives until the response has been packed; or
 * they return -errno and describe it in call->err. Running out of that memory is remembered (call->oom) and makes the call
 * fail as a whole, so that strings need not be checked one by one.
 */
#ifndef DPU_CONTROL_CALL_H
#define DPU_CONTROL_CALL_H

#include "common/base/err.h"
#include "common/rpc/frame.h"

#include <stdbool.h>
#include <stdint.h>

struct card;
struct call_piece;
struct tables_doc;

struct call {
	const Parapet__Request *req;
	Parapet__Response resp;
	struct err err;
	bool oom;
	struct call_piece *pieces;
	struct tables_doc *doc; /* the response points into it; put by call_clear() */
};

void call_init(struct call *c, const Parapet__Request *req);
void call_clear(struct call *c);

/* len_bytes zeroed bytes; NULL (and oom) when there are none. */
void *call_alloc(struct call *c, size_t len_bytes);
/* A string; "" on oom. */
char *call_str(struct call *c, const char *s);
char *call_fmt(struct call *c, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* A repeated field of room for n messages of the type: *out[0..n) initialized. 0 or -ENOMEM. */
#define call_messages(c, n, type, init, out) \
	call_messages_(c, n, sizeof(type), (void (*)(void *))(init), (void ***)(out))
int call_messages_(struct call *c, size_t n, size_t size_bytes, void (*init)(void *), void ***out);
/* One message; NULL on oom. */
#define call_message(c, type, init) \
	((type *)call_message_(c, sizeof(type), (void (*)(void *))(init)))
void *call_message_(struct call *c, size_t size_bytes, void (*init)(void *));

typedef int (*call_fn)(struct card *card, struct call *c);

/* ---- the handlers, one file per noun ------------------------------------------------------------------ */
int call_tables_push(struct card *card, struct call *c);
int call_tables_get(struct card *card, struct call *c);
int call_explain(struct card *card, struct call *c);
int call_pool_create(struct card *card, struct call *c);
int call_pool_open(struct card *card, struct call *c);
int call_pool_set(struct card *card, struct call *c);
int call_flash_fail(struct card *card, struct call *c);
int call_flash_add(struct card *card, struct call *c);
int call_flash_remove(struct card *card, struct call *c);
int call_flash_replace(struct card *card, struct call *c);
int call_flash_discover(struct card *card, struct call *c);
int call_flash_return(struct card *card, struct call *c);
int call_flash_upkeep(
	struct card *card, struct call *c); /* nobody asks for it: the server does it by itself */
int call_checkpoint(struct card *card, struct call *c);
int call_device_add(struct card *card, struct call *c);
int call_device_del(struct card *card, struct call *c);
int call_device_grow(struct card *card, struct call *c);
int call_device_set(struct card *card, struct call *c);
int call_device_list(struct card *card, struct call *c);
int call_task_list(struct card *card, struct call *c);
int call_task_start(struct card *card, struct call *c);
int call_task_control(struct card *card, struct call *c);
int call_task_limits(struct card *card, struct call *c);
int call_flow_list(struct card *card, struct call *c);
int call_status(struct card *card, struct call *c);
int call_stats(struct card *card, struct call *c);
int call_top(struct card *card, struct call *c);
int call_shard_list(struct card *card, struct call *c); /* this one's entry */

#endif
