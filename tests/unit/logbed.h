/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A bed for tests of the stripe log and the pool: N devices (mem:, under fault: where asked), pool, codec and log on a shard with
 * virtual time; straight-down append, read and flush; blocks stamped so that each says which one it is.
 */
#ifndef TESTS_UNIT_LOGBED_H
#define TESTS_UNIT_LOGBED_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/core/shard.h"
#include "dpu/flash/fault.h"
#include "dpu/stripelog/stripelog.h"

#define BED_DEVS_MAX 16u
#define BED_STRIPE   256u /* largest stripe of these tests */

struct bed_cfg {
	unsigned int ndevs;
	struct ec_scheme scheme;
	enum ec_impl impl;
	bool fault, volatile_cache;
	uint32_t block_bytes;
	uint32_t segment_bytes;
	uint32_t size_mib;
	enum pool_on_degraded on_degraded;
	uint64_t seed;
};
#define BED_4_2                                    \
	((struct bed_cfg){.ndevs = 8,              \
		.scheme = {4, 2},                  \
		.impl = EC_ISAL,                   \
		.fault = true,                     \
		.volatile_cache = true,            \
		.block_bytes = 512,                \
		.segment_bytes = POOL_SEGMENT_MIN, \
		.size_mib = 32,                    \
		.seed = 7})

struct bed {
	struct bed_cfg cfg;
	struct shard *sh;
	struct flash *flash[BED_DEVS_MAX]; /* NULL: not given to the pool */
	struct pool *pool;
	struct ec *ec;
	struct stripelog *log;
};

__attribute__((unused)) static struct flash *bed_flash(struct bed *b, unsigned int i)
{
	struct flash_opts opts = {.block_bytes = b->cfg.block_bytes};
	char address[96];
	struct flash *f;
	struct err err;

	snprintf(address, sizeof(address), "%s%smem:%uM,name=bed%u", b->cfg.fault ? "fault:" : "",
		b->cfg.fault && b->cfg.volatile_cache ? "volatile:" : "", b->cfg.size_mib, i);
	if (flash_open(b->sh, address, &opts, &f, &err) < 0)
		fail_msg("%s", err_text(&err));
	return f;
}

__attribute__((unused)) static void bed_member(struct bed *b, unsigned int i, struct pool_member *m)
{
	memset(m, 0, sizeof(*m));
	snprintf(m->name, sizeof(m->name), "f%u", i);
	snprintf(m->domain, sizeof(m->domain), "n%u", i);
	m->flash = b->flash[i];
}

__attribute__((unused)) static void bed_log_open(struct bed *b)
{
	struct stripelog_cfg cfg = {.pool = b->pool, .ec = b->ec};

	assert_int_equal(ec_open(b->cfg.impl, &b->ec), 0);
	cfg.ec = b->ec;
	assert_int_equal(stripelog_open(&cfg, &b->log), 0);
}

__attribute__((unused)) static struct bed bed_create(struct bed_cfg cfg)
{
	struct bed b = {.cfg = cfg};
	struct pool_cfg pc = {.name = "bed",
		.scheme = cfg.scheme,
		.on_degraded = cfg.on_degraded,
		.segment_bytes = cfg.segment_bytes};
	struct pool_member m[BED_DEVS_MAX];
	struct err err;

	flash_mem_forget(NULL);
	assert_int_equal(
		shard_open(
			&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = cfg.seed}, &b.sh),
		0);
	for (unsigned int i = 0; i < cfg.ndevs; i++) {
		b.flash[i] = bed_flash(&b, i);
		bed_member(&b, i, &m[i]);
	}
	if (pool_create(b.sh, &pc, m, cfg.ndevs, false, &b.pool, &err) < 0)
		fail_msg("%s", err_text(&err));
	bed_log_open(&b);
	return b;
}

/* Closes log and pool; the devices' contents stay. */
__attribute__((unused)) static void bed_stop(struct bed *b)
{
	stripelog_close(b->log);
	pool_close(b->pool);
	ec_close(b->ec);
	b->log = NULL;
	b->pool = NULL;
	memset(b->flash, 0, sizeof(b->flash));
}

__attribute__((unused)) static void bed_close(struct bed *b)
{
	bed_stop(b);
	shard_close(b->sh);
	flash_mem_forget(NULL);
}

/* Opens the same devices again, but for those in `without`. */
__attribute__((unused)) static int bed_reopen(struct bed *b, uint32_t without, struct err *err)
{
	struct pool_member m[BED_DEVS_MAX];
	unsigned int n = 0;
	int rc;

	for (unsigned int i = 0; i < b->cfg.ndevs; i++) {
		if (without >> i & 1)
			continue;
		b->flash[i] = bed_flash(b, i);
		bed_member(b, i, &m[n++]);
	}
	rc = pool_open(b->sh, m, n, &b->pool, err);
	if (rc < 0) {
		for (unsigned int i = 0; i < b->cfg.ndevs; i++) {
			if (b->flash[i])
				flash_close(b->flash[i]);
			b->flash[i] = NULL;
		}
		return rc;
	}
	bed_log_open(b);
	return 0;
}

/* ---- blocks --------------------------------------------------------------------------------------------- */

/* Every 8 bytes say which block and which version. */
__attribute__((unused)) static void stamp(uint8_t *p, uint64_t block, uint32_t version)
{
	for (uint32_t i = 0; i < EC_BLOCK; i += 8) {
		uint64_t v = block * 0x9e3779b97f4a7c15ull ^ version ^ (uint64_t)i << 40;

		memcpy(p + i, &v, 8);
	}
}

/* ---- append ------------------------------------------------------------------------------------------------ */

struct put {
	struct stripe_append a;
	uint8_t *mem;
	const uint8_t *blocks[EC_BLOCKS_MAX];
	struct stripe_extent ext[EC_BLOCKS_MAX];
	uint32_t crc[EC_BLOCKS_MAX];
	enum io_status status;
	bool done;
};

__attribute__((unused)) static void put_done(struct stripe_append *a, enum io_status status)
{
	struct put *p = a->arg;

	assert_false(p->done);
	p->done = true;
	p->status = status;
}

/* A stripe of n blocks [block, +n) of volume 1 in `nextents` extents. */
__attribute__((unused)) static struct put *put_new(
	struct bed *b, uint64_t block, uint32_t n, uint32_t nextents, uint32_t version)
{
	struct put *p = calloc(1, sizeof(*p));

	p->mem = malloc((size_t)(n ? n : 1) * EC_BLOCK);
	for (uint32_t i = 0; i < n; i++) {
		p->blocks[i] = p->mem + (size_t)i * EC_BLOCK;
		stamp(p->mem + (size_t)i * EC_BLOCK, block + i, version);
	}
	for (uint32_t i = 0; i < nextents; i++) {
		uint32_t from = i * n / nextents, to = (i + 1) * n / nextents;

		p->ext[i] = (struct stripe_extent){
			.volume = 1, .block = block + from, .nblocks = to - from, .seq = version};
	}
	p->a = (struct stripe_append){.scheme = b->cfg.scheme,
		.excluded_dev = POOL_DEV_NONE,
		.nblocks = n,
		.blocks = p->blocks,
		.extents = p->ext,
		.nextents = nextents,
		.crc = p->crc,
		.done_fn = put_done,
		.arg = p};
	return p;
}

__attribute__((unused)) static void put_free(struct put *p)
{
	free(p->mem);
	free(p);
}

__attribute__((unused)) static bool put_is_done(void *arg)
{
	return ((struct put *)arg)->done;
}

__attribute__((unused)) static enum io_status put_wait(struct bed *b, struct put *p)
{
	assert_int_equal(shard_wait(b->sh, put_is_done, p, 0), 0);
	return p->status;
}

/* Appends n blocks and waits; returns the reference. */
__attribute__((unused)) static uint32_t bed_put(
	struct bed *b, uint64_t block, uint32_t n, uint32_t version)
{
	struct put *p = put_new(b, block, n, 1, version);
	uint32_t ref;

	assert_int_equal(stripelog_append(b->log, &p->a), 0);
	assert_int_equal(put_wait(b, p), IO_OK);
	for (uint32_t i = 0; i < n; i++)
		assert_int_equal(p->crc[i], crc32c(p->blocks[i], EC_BLOCK));
	ref = p->a.ref;
	put_free(p);
	return ref;
}

__attribute__((unused)) static enum io_status bed_record(struct bed *b, uint32_t value)
{
	struct record r = {.type = RECORD_STATE, .len = 4};
	struct put *p = put_new(b, 0, 0, 0, 0);
	enum io_status st;

	memcpy(r.body, &value, 4);
	p->a.records = &r;
	p->a.nrecords = 1;
	if (stripelog_append(b->log, &p->a) < 0)
		st = IO_ERR_RETRY;
	else
		st = put_wait(b, p);
	put_free(p);
	return st;
}

/* ---- read ----------------------------------------------------------------------------------------------------- */

struct get {
	struct stripe_read r;
	enum io_status status;
	bool done;
};

__attribute__((unused)) static void get_done(struct stripe_read *r, enum io_status status)
{
	struct get *g = r->arg;

	assert_false(g->done);
	g->done = true;
	g->status = status;
}

__attribute__((unused)) static bool get_is_done(void *arg)
{
	return ((struct get *)arg)->done;
}

/* Reads blocks [pos, +n) of a stripe that holds [block, ...) at `version`, and checks every byte of what was had. */
__attribute__((unused)) static enum io_status bed_get(struct bed *b, uint32_t ref, uint64_t block,
	uint32_t pos, uint32_t n, uint32_t version, bool *decoded)
{
	uint8_t *mem = calloc(64, EC_BLOCK), *bufs[64], want[EC_BLOCK];
	uint32_t crc[64];
	struct get g = {.r = {.ref = ref,
				.pos = pos,
				.nblocks = n,
				.crc = crc,
				.bufs = bufs,
				.done_fn = get_done,
				.arg = &g}};

	for (uint32_t i = 0; i < n; i++) {
		bufs[i] = mem + (size_t)i * EC_BLOCK;
		stamp(want, block + pos + i, version);
		crc[i] = crc32c(want, EC_BLOCK);
	}
	assert_int_equal(stripelog_read(b->log, &g.r), 0);
	assert_int_equal(shard_wait(b->sh, get_is_done, &g, 0), 0);
	for (uint32_t i = 0; i < n; i++) {
		stamp(want, block + pos + i, version);
		if (!(g.r.bad_map >> i & 1))
			assert_memory_equal(bufs[i], want, EC_BLOCK);
	}
	assert_int_equal(g.status == IO_OK, g.r.bad_map == 0);
	if (decoded)
		*decoded = g.r.decoded;
	free(mem);
	return g.status;
}

/* All n blocks of a stripe. */
__attribute__((unused)) static enum io_status bed_get_all(
	struct bed *b, uint32_t ref, uint64_t block, uint32_t n, uint32_t version)
{
	enum io_status worst = IO_OK;

	for (uint32_t at = 0; at < n; at += 64) {
		enum io_status st = bed_get(b, ref, block, at, MIN(64u, n - at), version, NULL);

		worst = st == IO_OK ? worst : st;
	}
	return worst;
}

/* ---- flush ------------------------------------------------------------------------------------------------------ */

__attribute__((unused)) static void flush_done(struct stripe_flush *f, enum io_status status)
{
	*(enum io_status *)f->arg = status;
}

__attribute__((unused)) static bool status_is_set(void *arg)
{
	return *(enum io_status *)arg != IO_STATUS_COUNT;
}

__attribute__((unused)) static enum io_status bed_flush(struct bed *b)
{
	enum io_status st = IO_STATUS_COUNT;
	struct stripe_flush f = {.done_fn = flush_done, .arg = &st};

	assert_int_equal(stripelog_flush(b->log, &f), 0);
	assert_int_equal(shard_wait(b->sh, status_is_set, &st, 0), 0);
	return st;
}

#endif
