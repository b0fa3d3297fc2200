/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/port/fdb.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define WAYS 8

/* 16 bytes. key holds the address in its low 48 bits; 0 is an empty entry (the zero address is never learnt). */
struct fdb_entry {
	uint64_t key;
	uint32_t seen_s;
	uint8_t port;
	bool uplink;
};

struct fdb {
	struct fdb_entry *entry;
	uint64_t bucket_mask, seed;
	uint32_t age_s, per_port;
	uint32_t owned[FDB_PORTS];
	uint32_t searched_s[FDB_PORTS]; /* when share_free() last looked */
	struct fdb_stats stats;
};

static uint64_t mac_key(const uint8_t mac[6])
{
	uint64_t k = 0;

	memcpy(&k, mac, 6);
	return k;
}

/* A seeded 64-bit mix: full avalanche, so that nobody without the seed can fill one bucket on purpose. */
static struct fdb_entry *bucket_of(const struct fdb *f, uint64_t key)
{
	uint64_t h = key ^ f->seed;

	h = (h ^ (h >> 32)) * 0xd6e8feb86659fd93ULL;
	h = (h ^ (h >> 32) ^ (f->seed << 1)) * 0xd6e8feb86659fd93ULL;
	h ^= h >> 32;
	return &f->entry[(h & f->bucket_mask) * WAYS];
}

static bool aged(const struct fdb *f, const struct fdb_entry *e, uint32_t now_s)
{
	return now_s - e->seen_s > f->age_s;
}

int fdb_open(const struct fdb_cfg *cfg, struct fdb **out)
{
	uint64_t buckets = 1;
	struct fdb *f;

	if (cfg->entries > 1u << 24)
		return -EINVAL;
	while (buckets * WAYS < cfg->entries)
		buckets *= 2;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->entry = calloc(buckets * WAYS, sizeof(*f->entry));
	if (!f->entry) {
		free(f);
		return -ENOMEM;
	}
	f->bucket_mask = buckets - 1;
	f->seed = cfg->seed;
	f->age_s = cfg->age_s;
	f->per_port = cfg->per_port;
	*out = f;
	return 0;
}

void fdb_close(struct fdb *f)
{
	if (!f)
		return;
	free(f->entry);
	free(f);
}

static void entry_drop(struct fdb *f, struct fdb_entry *e)
{
	f->owned[e->port]--;
	f->stats.used--;
	e->key = 0;
}

/* The address is known: refresh it or move it. */
static int entry_seen(
	struct fdb *f, struct fdb_entry *e, unsigned int port, bool uplink, uint32_t now_s)
{
	if (e->port != port) {
		if (!e->uplink && !uplink && !aged(f, e, now_s)) {
			f->stats.refused_moves++;
			return -EPERM;
		}
		if (!uplink && f->per_port && f->owned[port] >= f->per_port) {
			f->stats.refused_share++;
			return -ENOSPC;
		}
		f->owned[e->port]--;
		f->owned[port]++;
		e->port = (uint8_t)port;
		e->uplink = uplink;
		f->stats.moves++;
	}
	e->seen_s = now_s;
	return 0;
}

/* An empty entry, else an aged one, else the oldest. */
static struct fdb_entry *entry_victim(struct fdb_entry *b, uint32_t now_s)
{
	struct fdb_entry *v = b;

	for (struct fdb_entry *e = b; e < b + WAYS; e++) {
		if (!e->key)
			return e;
		if (now_s - e->seen_s > now_s - v->seen_s)
			v = e;
	}
	return v;
}

/* What a port has aged out counts against its share until somebody needs the place: look before refusing, once
 * a second at most, as a VM may send a thousand new addresses in that time. */
static bool share_free(struct fdb *f, unsigned int port, uint32_t now_s)
{
	if (!f->per_port || f->owned[port] < f->per_port)
		return true;
	if (f->searched_s[port] == now_s)
		return false;
	f->searched_s[port] = now_s;
	for (uint64_t i = 0; i < (f->bucket_mask + 1) * WAYS; i++) {
		struct fdb_entry *e = &f->entry[i];

		if (e->key && e->port == port && aged(f, e, now_s))
			entry_drop(f, e);
	}
	return f->owned[port] < f->per_port;
}

int fdb_learn(struct fdb *f, const uint8_t mac[6], unsigned int port, bool uplink, uint32_t now_s)
{
	uint64_t key = mac_key(mac);
	struct fdb_entry *b, *v;

	if (!key || (mac[0] & 1) || port >= FDB_PORTS)
		return -EINVAL;
	b = bucket_of(f, key);
	for (struct fdb_entry *e = b; e < b + WAYS; e++)
		if (e->key == key)
			return entry_seen(f, e, port, uplink, now_s);
	if (!uplink && !share_free(f, port, now_s)) {
		f->stats.refused_share++;
		return -ENOSPC;
	}
	v = entry_victim(b, now_s);
	if (v->key) {
		f->stats.evicted += !aged(f, v, now_s);
		entry_drop(f, v);
	}
	*v = (struct fdb_entry){
		.key = key, .seen_s = now_s, .port = (uint8_t)port, .uplink = uplink};
	f->owned[port]++;
	f->stats.used++;
	return 0;
}

int fdb_find(const struct fdb *f, const uint8_t mac[6], uint32_t now_s)
{
	uint64_t key = mac_key(mac);
	const struct fdb_entry *b = bucket_of(f, key);

	if (!key)
		return FDB_NONE;
	for (const struct fdb_entry *e = b; e < b + WAYS; e++)
		if (e->key == key)
			return aged(f, e, now_s) ? FDB_NONE : e->port;
	return FDB_NONE;
}

void fdb_forget_port(struct fdb *f, unsigned int port)
{
	for (uint64_t i = 0; i < (f->bucket_mask + 1) * WAYS; i++)
		if (f->entry[i].key && f->entry[i].port == port)
			entry_drop(f, &f->entry[i]);
}

void fdb_stats(const struct fdb *f, struct fdb_stats *st)
{
	*st = f->stats;
}
