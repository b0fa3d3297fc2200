/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The latest events of all cards and of the agent itself, numbered by the agent, in a ring of fixed size.
 * Thread: any. Ownership: a list from events_after() belongs to the caller. Errors: 0 or -errno.
 *
 *	events_open(1024, &ev);
 *	events_add(ev, "n1", &(struct event_text){"info", "card-connected", "node n1", "..."});
 *	n = events_after(ev, seq, 1000, &list, &seq);	waits up to a second for something newer
 */
#ifndef HOST_AGENT_AGENTD_EVENTS_H
#define HOST_AGENT_AGENTD_EVENTS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct events;

struct event_text {
	const char *severity; /* "info", "warning", "error" */
	const char *kind; /* stable, for machines: "card-lost" */
	const char *object; /* "flash f3" */
	const char *text;
	uint64_t time_ns; /* 0: now */
};

int events_open(size_t capacity, struct events **out);
void events_close(struct events *ev);

void events_add(struct events *ev, const char *node, const struct event_text *t);

/* All events after number `after` that are still kept, waiting up to timeout_ms for one; *last: the
 * number to go on from. Returns how many are in *list. Where some are gone already the first one kept follows:
 * numbers show the gap. */
size_t events_after(
	struct events *ev, uint64_t after, int timeout_ms, json_t **list, uint64_t *last);

/* Wakes all who wait, now and from now on. */
void events_stop(struct events *ev);
bool events_stopped(struct events *ev);

#endif
