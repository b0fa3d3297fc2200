/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/events.h"

#include "common/base/log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

struct events {
	pthread_mutex_t lock;
	uint64_t newest;
	int notify_fd;
	struct event ring[EVENTS_KEPT]; /* event n at n % EVENTS_KEPT */
};

int events_open(struct events **out)
{
	struct events *ev = calloc(1, sizeof(*ev));

	if (!ev)
		return -ENOMEM;
	pthread_mutex_init(&ev->lock, NULL);
	ev->notify_fd = -1;
	*out = ev;
	return 0;
}

void events_close(struct events *ev)
{
	if (!ev)
		return;
	pthread_mutex_destroy(&ev->lock);
	free(ev);
}

void event_post(struct events *ev, enum event_severity severity, const char *kind,
	const char *object, const char *fmt, ...)
{
	static const enum log_level levels[] = {LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR};
	const uint64_t one = 1;
	struct timespec now;
	struct event *e;
	va_list ap;

	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&ev->lock);
	e = &ev->ring[(ev->newest + 1) % EVENTS_KEPT];
	e->seq = ++ev->newest;
	e->time_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	e->severity = severity;
	snprintf(e->kind, sizeof(e->kind), "%s", kind);
	snprintf(e->object, sizeof(e->object), "%s", object);
	va_start(ap, fmt);
	vsnprintf(e->text, sizeof(e->text), fmt, ap);
	va_end(ap);
	log_line(levels[severity], "%s: %s: %s", e->kind, e->object, e->text);
	/* A full eventfd counter is readable already. */
	if (ev->notify_fd >= 0 && write(ev->notify_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warn("control: telling the server of an event failed");
	pthread_mutex_unlock(&ev->lock);
}

static uint64_t oldest_of(const struct events *ev)
{
	return ev->newest < EVENTS_KEPT ? 1 : ev->newest - EVENTS_KEPT + 1;
}

void events_range(struct events *ev, uint64_t *oldest, uint64_t *newest)
{
	pthread_mutex_lock(&ev->lock);
	*oldest = oldest_of(ev);
	*newest = ev->newest;
	pthread_mutex_unlock(&ev->lock);
}

int events_next(struct events *ev, uint64_t after, struct event *out)
{
	int rc = -ENOENT;

	pthread_mutex_lock(&ev->lock);
	if (after < ev->newest) {
		uint64_t n = after + 1 < oldest_of(ev) ? oldest_of(ev) : after + 1;

		*out = ev->ring[n % EVENTS_KEPT];
		rc = 0;
	}
	pthread_mutex_unlock(&ev->lock);
	return rc;
}

void events_notify(struct events *ev, int fd)
{
	pthread_mutex_lock(&ev->lock);
	ev->notify_fd = fd;
	pthread_mutex_unlock(&ev->lock);
}
