/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/events.h"

#include "common/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct ring {
	pthread_mutex_t lock;
	unsigned int handles;
	uint64_t newest;
	int notify_fd;
	struct event kept[EVENTS_KEPT]; /* event n at n % EVENTS_KEPT */
};

struct events {
	struct ring *ring;
	int shard; /* -1: not said; under the ring's lock */
};

int events_open(struct events **out)
{
	struct events *ev = calloc(1, sizeof(*ev));

	if (!ev || !(ev->ring = calloc(1, sizeof(*ev->ring)))) {
		free(ev);
		return -ENOMEM;
	}
	pthread_mutex_init(&ev->ring->lock, NULL);
	ev->ring->notify_fd = -1;
	ev->ring->handles = 1;
	ev->shard = -1;
	*out = ev;
	return 0;
}

int events_share(struct events *ev, struct events **out)
{
	struct events *more = calloc(1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	more->ring = ev->ring;
	more->shard = -1;
	pthread_mutex_lock(&ev->ring->lock);
	ev->ring->handles++;
	pthread_mutex_unlock(&ev->ring->lock);
	*out = more;
	return 0;
}

void events_close(struct events *ev)
{
	bool last;

	if (!ev)
		return;
	pthread_mutex_lock(&ev->ring->lock);
	last = --ev->ring->handles == 0;
	pthread_mutex_unlock(&ev->ring->lock);
	if (last) {
		pthread_mutex_destroy(&ev->ring->lock);
		free(ev->ring);
	}
	free(ev);
}

void events_set_shard(struct events *ev, int shard)
{
	pthread_mutex_lock(&ev->ring->lock);
	ev->shard = shard;
	pthread_mutex_unlock(&ev->ring->lock);
}

void event_post(struct events *ev, enum event_severity severity, const char *kind,
	const char *object, const char *fmt, ...)
{
	static const enum log_level levels[] = {LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR};
	const uint64_t one = 1;
	struct ring *r = ev->ring;
	struct timespec now;
	struct event *e;
	int said = 0;
	va_list ap;

	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&r->lock);
	e = &r->kept[(r->newest + 1) % EVENTS_KEPT];
	e->seq = ++r->newest;
	e->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	e->severity = severity;
	snprintf(e->kind, sizeof(e->kind), "%s", kind);
	snprintf(e->object, sizeof(e->object), "%s", object);
	va_start(ap, fmt);
	if (ev->shard >= 0)
		said = snprintf(e->text, sizeof(e->text), "shard %d: ", ev->shard);
	vsnprintf(e->text + said, sizeof(e->text) - (size_t)said, fmt, ap);
	va_end(ap);
	log_line(levels[severity], "%s: %s: %s", e->kind, e->object, e->text);
	/* A full eventfd counter is readable already. */
	if (r->notify_fd >= 0 && write(r->notify_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warn("control: telling the server of an event failed");
	pthread_mutex_unlock(&r->lock);
}

static uint64_t oldest_of(const struct ring *r)
{
	return r->newest < EVENTS_KEPT ? 1 : r->newest - EVENTS_KEPT + 1;
}

void events_range(struct events *ev, uint64_t *oldest, uint64_t *newest)
{
	pthread_mutex_lock(&ev->ring->lock);
	*oldest = oldest_of(ev->ring);
	*newest = ev->ring->newest;
	pthread_mutex_unlock(&ev->ring->lock);
}

int events_next(struct events *ev, uint64_t after, struct event *out)
{
	int rc = -ENOENT;

	pthread_mutex_lock(&ev->ring->lock);
	if (after < ev->ring->newest) {
		uint64_t n = after + 1 < oldest_of(ev->ring) ? oldest_of(ev->ring) : after + 1;

		*out = ev->ring->kept[n % EVENTS_KEPT];
		rc = 0;
	}
	pthread_mutex_unlock(&ev->ring->lock);
	return rc;
}

void events_notify(struct events *ev, int fd)
{
	pthread_mutex_lock(&ev->ring->lock);
	ev->ring->notify_fd = fd;
	pthread_mutex_unlock(&ev->ring->lock);
}
