/* SPDX-License-Identifier: BSD-3-Clause */
/* How each flash device is: latencies, what is outstanding, errors, the ways to it, wear. */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "dpu/pool/health.h"

#include <errno.h>
#include <string.h>

#define NS_PER_US  1000ull
#define HEALTH_MAX 32

static int fill_latency(struct call *c, const struct flash_health *h, Parapet__FlashStatus *s)
{
	const struct {
		const char *op;
		const struct flash_latency *l;
	} list[] = {{"read", &h->read}, {"write", &h->write}, {"flush", &h->flush}};

	if (call_messages(
		    c, ARRAY_LEN(list), Parapet__Latency, parapet__latency__init, &s->latency) < 0)
		return -ENOMEM;
	for (size_t i = 0; i < ARRAY_LEN(list); i++) {
		Parapet__Latency *m = s->latency[s->n_latency++];

		m->op = call_str(c, list[i].op);
		m->has_p50_us = m->has_p99_us = m->has_max_us = m->has_count = true;
		m->p50_us = list[i].l->p50_ns / NS_PER_US;
		m->p99_us = list[i].l->p99_ns / NS_PER_US;
		m->max_us = list[i].l->max_ns / NS_PER_US;
		m->count = list[i].l->count;
	}
	return 0;
}

static int fill_paths(struct call *c, const struct flash_health *h, Parapet__FlashStatus *s)
{
	if (call_messages(c, h->npaths, Parapet__Path, parapet__path__init, &s->paths) < 0)
		return -ENOMEM;
	for (unsigned int i = 0; i < h->npaths; i++) {
		const struct flash_path *p = &h->paths[i];
		Parapet__Path *m = s->paths[s->n_paths++];

		m->address = call_str(c, p->address);
		m->state = call_str(c, p->state);
		m->has_usable = m->has_in_flight = m->has_commands = m->has_losses =
			m->has_timeouts = true;
		m->usable = p->usable;
		m->in_flight = p->in_flight;
		m->commands = p->commands;
		m->losses = p->losses;
		m->timeouts = p->timeouts;
		m->error = p->error[0] ? call_str(c, p->error) : NULL;
	}
	return 0;
}

static void smart_numbers(struct call *c, const struct flash_smart *w, Parapet__FlashStatus *s)
{
	if (!w->known)
		return;
	add_named(c, s->health, &s->n_health, "wear_used_percent", w->used_percent);
	add_named(c, s->health, &s->n_health, "spare_percent", w->spare_percent);
	add_named(c, s->health, &s->n_health, "spare_threshold_percent", w->spare_min_percent);
	add_named(c, s->health, &s->n_health, "temperature_celsius",
		(uint64_t)MAX(w->celsius, (int16_t)0));
	add_named(c, s->health, &s->n_health, "critical_warning", w->critical);
	add_named(c, s->health, &s->n_health, "power_on_hours", w->hours);
	add_named(c, s->health, &s->n_health, "unsafe_shutdowns", w->unsafe_shutdowns);
	add_named(c, s->health, &s->n_health, "device_media_errors", w->media_errors);
	add_named(c, s->health, &s->n_health, "device_written_bytes", w->written_bytes);
}

int flash_health_fill(
	const struct pool *p, unsigned int dev, struct call *c, Parapet__FlashStatus *s)
{
	const struct pool_dev *d = pool_dev(p, dev);
	struct pool_dev_health counted;
	struct flash_health h;

	if (d->why[0])
		s->reason = call_str(c, d->why);
	if (call_messages(c, HEALTH_MAX, Parapet__Named, parapet__named__init, &s->health) < 0)
		return -ENOMEM;
	pool_dev_health(p, dev, &counted);
	add_named(c, s->health, &s->n_health, "errors_lately", counted.errors);
	add_named(c, s->health, &s->n_health, "failed_writes_lately", counted.failed_writes);
	add_named(c, s->health, &s->n_health, "corrupt_blocks_lately", counted.corrupt);
	add_named(c, s->health, &s->n_health, "slow_times_lately", counted.slow_times);
	add_named(c, s->health, &s->n_health, "slow_ms_lately", counted.slow_ms);
	if (!d->flash)
		return 0;
	flash_health(d->flash, &h);
	s->has_in_flight = true;
	s->in_flight = h.in_flight;
	if (fill_latency(c, &h, s) < 0 || fill_paths(c, &h, s) < 0)
		return -ENOMEM;
	add_named(c, s->health, &s->n_health, "read_us", h.read_ns / NS_PER_US);
	add_named(c, s->health, &s->n_health, "write_us", h.write_ns / NS_PER_US);
	add_named(c, s->health, &s->n_health, "flush_us", h.flush_ns / NS_PER_US);
	add_named(c, s->health, &s->n_health, "longest_us", h.max_ns / NS_PER_US);
	add_named(c, s->health, &s->n_health, "oldest_in_flight_us", h.oldest_ns / NS_PER_US);
	add_named(c, s->health, &s->n_health, "slow_times", h.slow_times);
	add_named(c, s->health, &s->n_health, "in_flight", h.in_flight);
	add_named(c, s->health, &s->n_health, "given_up_in_flight", h.ghosts);
	smart_numbers(c, &h.smart, s);
	return 0;
}
