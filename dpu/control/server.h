/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control protocol's server: one ordinary thread, a Unix socket (mode 0600), requests carried out on the card's shards (route.h),
 * events pushed to whoever subscribed. A second thread waits for changes. Requests that change something are carried out one after another, those that only look
 * also while a change waits (a pool being opened, a volume being made). Changes wait until the card is up (shards_start()), two seconds
 * at most: then they are refused with EAGAIN. A slow or hostile peer costs its connection, nothing else: frames
 * are size-capped, output is bounded, readers that lag lose events and are told how many.
 *
 * Thread: start and stop on shard 0's thread, outside its callbacks. Errors: 0 or -errno with struct err.
 */
#ifndef DPU_CONTROL_SERVER_H
#define DPU_CONTROL_SERVER_H

#include "common/base/err.h"
#include "dpu/control/shards.h"

struct server;

#define SERVER_CONNS_MAX 16 /* more wait to be accepted */

int server_start(
	struct shards *shards, const char *socket_path, struct server **out, struct err *e);
/* Lets the request that is being carried out finish. */
void server_stop(struct server *s);

#endif
