/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/agentd/events.h"

#include "common/base/util.h"

#include <errno.h>
#include <pthread.h>
#include <time.h>

struct events {
	pthread_mutex_t lock;
	pthread_cond_t more;
	bool stopped;
	uint64_t newest; /* number of the latest event, 0: none yet */
	size_t capacity;
	json_t *ring[]; /* event n is at n % capacity */
};

int events_open(size_t capacity, struct events **out)
{
	struct events *ev = calloc(1, sizeof(*ev) + capacity * sizeof(ev->ring[0]));
	pthread_condattr_t attr;

	if (!ev)
		return -ENOMEM;
	ev->capacity = capacity;
	pthread_mutex_init(&ev->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&ev->more, &attr);
	pthread_condattr_destroy(&attr);
	*out = ev;
	return 0;
}

void events_close(struct events *ev)
{
	if (!ev)
		return;
	for (size_t i = 0; i < ev->capacity; i++)
		json_decref(ev->ring[i]);
	pthread_cond_destroy(&ev->more);
	pthread_mutex_destroy(&ev->lock);
	free(ev);
}

/* What a card sent is text for people, of any bytes: shown as printable ASCII. */
static json_t *shown(const char *s)
{
	char buf[512];
	size_t i;

	for (i = 0; s && s[i] && i + 1 < sizeof(buf); i++)
		buf[i] = s[i] >= ' ' && s[i] < 0x7f ? s[i] : '?';
	buf[i] = '\0';
	return json_string(buf);
}

void events_add(struct events *ev, const char *node, const struct event_text *t)
{
	struct timespec ts;
	uint64_t time_ns = t->time_ns;
	json_t *o;

	if (!time_ns) {
		clock_gettime(CLOCK_REALTIME, &ts);
		time_ns = (uint64_t)ts.tv_sec * 1000000000u + ts.tv_nsec;
	}
	o = json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "time_ns", (json_int_t)time_ns, "node",
		shown(node), "severity", shown(t->severity), "kind", shown(t->kind), "object",
		shown(t->object), "text", shown(t->text));
	if (!o)
		return; /* out of memory: the event is lost, the numbers go on */
	pthread_mutex_lock(&ev->lock);
	ev->newest++;
	json_object_set_new(o, "seq", json_integer((json_int_t)ev->newest));
	json_decref(ev->ring[ev->newest % ev->capacity]);
	ev->ring[ev->newest % ev->capacity] = o;
	pthread_cond_broadcast(&ev->more);
	pthread_mutex_unlock(&ev->lock);
}

size_t events_after(
	struct events *ev, uint64_t after, int timeout_ms, json_t **list, uint64_t *last)
{
	struct timespec until;
	uint64_t from;
	size_t n = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += timeout_ms / 1000;
	until.tv_nsec += (timeout_ms % 1000) * 1000000l;
	if (until.tv_nsec >= 1000000000l) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000l;
	}
	*list = json_array();
	pthread_mutex_lock(&ev->lock);
	while (!ev->stopped && ev->newest <= after && timeout_ms > 0)
		if (pthread_cond_timedwait(&ev->more, &ev->lock, &until) == ETIMEDOUT)
			break;
	from = ev->newest > ev->capacity ? ev->newest - ev->capacity : 0;
	for (uint64_t i = MAX(from, after) + 1; i <= ev->newest; i++) {
		/* a copy: reference counts of jansson are not shared between threads here */
		json_array_append_new(*list, json_deep_copy(ev->ring[i % ev->capacity]));
		n++;
	}
	*last = MAX(ev->newest, after);
	pthread_mutex_unlock(&ev->lock);
	return n;
}

void events_stop(struct events *ev)
{
	pthread_mutex_lock(&ev->lock);
	ev->stopped = true;
	pthread_cond_broadcast(&ev->more);
	pthread_mutex_unlock(&ev->lock);
}

bool events_stopped(struct events *ev)
{
	bool stopped;

	pthread_mutex_lock(&ev->lock);
	stopped = ev->stopped;
	pthread_mutex_unlock(&ev->lock);
	return stopped;
}
