/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The answers of a card's shards to one request, made one. Pure functions on messages.
 *
 * parts[i] is what shard i answered. What a host counts is added up; what is about the whole card (tables, settings, its name) is shard 0's.
 *
 *	sizes, room, counters, requests    added up
 *	states                             the worst
 *	what the pool survives             the least
 *	percentiles, maxima, durations     the largest: of latencies only their counts can be added
 *	wear and what else a flash tells   the worst: every shard has asked the same device
 *	used_percent of the log            the largest: a shard can be full while another is not
 *	epoch                              the largest; each shard has its own
 *	recovery                           the one that is furthest behind; its figures are added up, times the largest
 *	checkpoint                         number, epoch and age of the oldest (none at all where a shard has none); bytes are added up
 *	texts                              once where all shards say the same, else as "shard N: ..."
 *	VMs, devices, tasks                one list; VMs and devices by their numbers
 *	what tables change                 shard 0's: all have the same
 *
 * Ownership: the result points into the parts and into c's memory; the parts' memory must live as long as it. Errors: -ENOMEM, -EINVAL where the
 * parts are not of one kind.
 */
#ifndef DPU_CONTROL_MERGE_H
#define DPU_CONTROL_MERGE_H

#include "dpu/control/call.h"

#include <stddef.h>

/* Becomes c->resp; n is at least 1. With n 1 it is parts[0] as it is. */
int merge_responses(struct call *c, Parapet__Response *const *parts, size_t n);

/* The parts of it. */
int merge_status(struct call *c, Parapet__Status *const *parts, size_t n, Parapet__Status **out);
int merge_pool(
	struct call *c, Parapet__PoolStatus *const *parts, size_t n, Parapet__PoolStatus **out);
int merge_stats(struct call *c, Parapet__Stats *const *parts, size_t n, Parapet__Stats **out);
int merge_top(struct call *c, Parapet__Top *const *parts, size_t n, Parapet__Top **out);

#endif
