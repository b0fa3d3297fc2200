/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What happened, for the operator: a ring of the last EVENTS_KEPT events, numbered without gaps from 1 since the start of the
 * card. Not for the data path. Thread: any. Ownership: strings are copied.
 *
 *	event_post(ev, EVENT_WARNING, "flash-failed", "flash f3", "12 errors");
 */
#ifndef DPU_CONTROL_EVENTS_H
#define DPU_CONTROL_EVENTS_H

#include <stdint.h>

#define EVENTS_KEPT 1024u

enum event_severity { EVENT_INFO, EVENT_WARNING, EVENT_ERROR };

struct event {
	uint64_t seq, time_ns; /* time: since 1970 */
	enum event_severity severity;
	char kind[32], object[96], text[680];
};

struct events;
int events_open(struct events **out);
/* Another handle of the same ring, for one of several shards. The last one that is closed takes the ring along. */
int events_share(struct events *ev, struct events **out);
void events_close(struct events *ev);

/* From now on texts that are posted through this handle begin with "shard N: "; -1: with nothing, as at first. */
void events_set_shard(struct events *ev, int shard);

/* Also a log line. */
void event_post(struct events *ev, enum event_severity severity, const char *kind,
	const char *object, const char *fmt, ...) __attribute__((format(printf, 5, 6)));

/* Numbers of the oldest kept and of the newest event; newest 0, oldest 1: none yet. */
void events_range(struct events *ev, uint64_t *oldest, uint64_t *newest);
/* The first kept event with a number > after. 0, or -ENOENT. */
int events_next(struct events *ev, uint64_t after, struct event *out);
/* fd becomes readable (an eventfd: one is added) with each event; -1: nobody is told. */
void events_notify(struct events *ev, int fd);

#endif
