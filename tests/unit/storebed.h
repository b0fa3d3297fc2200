/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A store on mem: devices behind fault:, under virtual time, for tests of what goes on behind the back of VMs. Every block that is written carries its
 * volume's number, its place and a version, and is checked against what the test remembers.
 */
#ifndef TESTS_UNIT_STOREBED_H
#define TESTS_UNIT_STOREBED_H

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
#include "dpu/core/shard.h"
#include "dpu/flash/fault.h"
#include "dpu/volume/volume.h"

enum { SB_DEVS = 16, SB_BLOCK = 4096, SB_RUN = 64, SB_VOLS = 8 };

struct sb_cfg {
	unsigned int ndevs, k, m;
	uint32_t dev_mib; /* 0: 24 */
	unsigned int per_node; /* devices of a failure domain, by their numbers; 0: 1 */
	bool volatile_cache, allow_data_device, manual_checkpoints;
	bool bare; /* without fault: the log stores straight into the flash memory */
};

/* What a volume should hold: the version of each block, 0: zeros. */
struct sb_vol {
	struct volume *v;
	char name[64];
	uint32_t *version;
	uint64_t nblocks;
};

static struct storebed {
	struct sb_cfg cfg;
	struct shard *sh;
	struct flash *f[SB_DEVS];
	unsigned int extra; /* devices added later */
	struct store *store;
	uint64_t away;
	struct sb_vol vols[SB_VOLS];
	unsigned int nvols;
	unsigned int events[STORE_EVENTS];
	unsigned int ended;
	uint8_t *out, *in;
} sb;

static inline void sb_heard(
	void *arg, enum store_event_kind kind, const char *object, const char *text)
{
	sb.events[kind]++;
}

static inline struct flash *sb_flash(unsigned int d)
{
	struct flash_opts o = {.block_bytes = 4096};
	char addr[64];

	snprintf(addr, sizeof(addr), "%s%smem:%uM,name=sb%u",
		sb.cfg.bare ? "" : "fault:", sb.cfg.volatile_cache ? "volatile:" : "",
		sb.cfg.dev_mib, d);
	assert_int_equal(flash_open(sb.sh, addr, &o, &sb.f[d], NULL), 0);
	return sb.f[d];
}

static inline unsigned int sb_members(struct pool_member *mem)
{
	unsigned int n = 0;

	for (unsigned int d = 0; d < sb.cfg.ndevs + sb.extra; d++) {
		sb.f[d] = NULL;
		if (sb.away >> d & 1)
			continue;
		snprintf(mem[n].name, sizeof(mem[n].name), "f%u", d);
		snprintf(mem[n].domain, sizeof(mem[n].domain), "n%u", d / MAX(sb.cfg.per_node, 1u));
		mem[n++].flash = sb_flash(d);
	}
	return n;
}

static inline int sb_open_store(struct pool *p, bool force, struct err *e)
{
	struct store_cfg c = {.pool = p,
		.queue = QUEUE_CFG_DEFAULT,
		.max_requests = 32,
		.buffer_bytes = 8 << 20,
		.map_bytes = 16 << 20,
		.table_bytes = 32 << 20,
		.manual_checkpoints = sb.cfg.manual_checkpoints,
		.checkpoint_bytes = 8 << 20,
		.force = force};
	int rc = store_open(&c, &sb.store, e);

	if (rc == 0)
		store_on_event(sb.store, sb_heard, NULL);
	return rc;
}

static inline void sb_open(const struct sb_cfg *cfg)
{
	struct pool_cfg pc = {.name = "p",
		.segment_bytes = POOL_SEGMENT_MIN,
		.scheme = {(uint8_t)cfg->k, (uint8_t)cfg->m},
		.allow_data_device = cfg->allow_data_device};
	struct pool_member mem[SB_DEVS] = {0};
	struct pool *p;

	memset(&sb, 0, sizeof(sb));
	sb.cfg = *cfg;
	if (!sb.cfg.dev_mib)
		sb.cfg.dev_mib = 24;
	sb.out = malloc((size_t)SB_RUN * SB_BLOCK);
	sb.in = malloc((size_t)SB_RUN * SB_BLOCK);
	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 7}, &sb.sh),
		0);
	assert_int_equal(pool_create(sb.sh, &pc, mem, sb_members(mem), false, &p, NULL), 0);
	assert_int_equal(sb_open_store(p, false, NULL), 0);
}

static inline int sb_start(uint64_t away, bool force, struct err *e)
{
	struct pool_member mem[SB_DEVS] = {0};
	struct pool *p;
	int rc;

	sb.away = away;
	assert_int_equal(pool_open(sb.sh, mem, sb_members(mem), &p, NULL), 0);
	rc = sb_open_store(p, force, e);
	if (rc < 0) {
		pool_close(p);
		return rc;
	}
	for (unsigned int i = 0; i < sb.nvols; i++) {
		sb.vols[i].v = volume_find(sb.store, sb.vols[i].name);
		assert_non_null(sb.vols[i].v);
	}
	return 0;
}

static inline void sb_reopen(uint64_t away)
{
	store_close(sb.store);
	assert_int_equal(sb_start(away, false, NULL), 0);
}

static inline void sb_close(void)
{
	store_close(sb.store);
	shard_close(sb.sh);
	flash_mem_forget(NULL);
	for (unsigned int i = 0; i < sb.nvols; i++)
		free(sb.vols[i].version);
	free(sb.out);
	free(sb.in);
}

/* A volume as the test wants it; its number. */
static inline unsigned int sb_volume(
	const char *name, uint64_t nblocks, enum volume_layout layout, int data_dev)
{
	struct volume_cfg c = {.size_bytes = nblocks * SB_BLOCK,
		.layout = layout,
		.data_dev = data_dev,
		.intermediate_dev = data_dev ? 0 : 1};
	struct sb_vol *x = &sb.vols[sb.nvols];

	snprintf(c.name, sizeof(c.name), "%s", name);
	snprintf(x->name, sizeof(x->name), "%s", name);
	assert_int_equal(volume_create(sb.store, &c, &x->v, NULL), 0);
	x->nblocks = nblocks;
	x->version = calloc(nblocks, sizeof(*x->version));
	return sb.nvols++;
}

/* ---- requests ------------------------------------------------------------------------------------------------------- */

static inline void sb_done(struct io_req *req)
{
	sb.ended++;
}
static inline bool sb_has_ended(void *arg)
{
	return sb.ended > 0;
}

static inline enum io_status sb_run(struct volume *v, struct io_req *r)
{
	int rc;

	sb.ended = 0;
	r->done_fn = sb_done;
	while ((rc = volume_submit(v, r)) == -EAGAIN)
		shard_run_once(sb.sh);
	assert_int_equal(rc, 0);
	assert_int_equal(shard_wait(sb.sh, sb_has_ended, NULL, 600ull * 1000000000ull), 0);
	return r->status;
}

static inline void sb_fill(uint8_t *p, unsigned int vol, uint64_t block, uint32_t version)
{
	uint64_t x = ((uint64_t)version << 32) ^ (block * 0x9e3779b97f4a7c15ull) ^ vol;

	if (!version) {
		memset(p, 0, SB_BLOCK);
		return;
	}
	for (unsigned int i = 0; i < SB_BLOCK / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(p + i * 8, &x, 8);
	}
}

static inline enum io_status sb_write(
	unsigned int vol, enum io_outcome how, uint64_t block, unsigned int n)
{
	struct sb_vol *x = &sb.vols[vol];
	struct iovec iov = {sb.out, (size_t)n * SB_BLOCK};
	enum io_status st;

	for (unsigned int i = 0; i < n; i++)
		sb_fill(sb.out + (size_t)i * SB_BLOCK, vol, block + i, x->version[block + i] + 1);
	st = sb_run(x->v, &(struct io_req){.op = IO_WRITE,
				  .off_bytes = block * SB_BLOCK,
				  .len_bytes = iov.iov_len,
				  .iov = &iov,
				  .niov = 1,
				  .stable = true,
				  .outcome = how});
	for (unsigned int i = 0; i < n && st == IO_OK; i++)
		x->version[block + i]++;
	return st;
}

static inline enum io_status sb_read(unsigned int vol, uint64_t block, unsigned int n)
{
	struct iovec iov = {sb.in, (size_t)n * SB_BLOCK};

	memset(sb.in, 0xee, iov.iov_len);
	return sb_run(sb.vols[vol].v, &(struct io_req){.op = IO_READ,
					      .off_bytes = block * SB_BLOCK,
					      .len_bytes = iov.iov_len,
					      .iov = &iov,
					      .niov = 1});
}

/* Every block of [block, +n) is what was last written there. */
static inline void sb_expect(unsigned int vol, uint64_t block, unsigned int n)
{
	uint8_t want[SB_BLOCK];

	while (n) {
		unsigned int step = MIN(n, (unsigned int)SB_RUN);

		assert_int_equal(sb_read(vol, block, step), IO_OK);
		for (unsigned int i = 0; i < step; i++) {
			sb_fill(want, vol, block + i, sb.vols[vol].version[block + i]);
			assert_memory_equal(sb.in + (size_t)i * SB_BLOCK, want, SB_BLOCK);
		}
		block += step;
		n -= step;
	}
}

static inline void sb_expect_all(void)
{
	for (unsigned int i = 0; i < sb.nvols; i++)
		sb_expect(i, 0, (unsigned int)sb.vols[i].nblocks);
}

static inline uint64_t sb_blocks_in(unsigned int vol, enum block_state state)
{
	struct volume_stats st;

	volume_stats(sb.vols[vol].v, &st);
	return st.blocks[state];
}

/* The structure of the store agrees with itself. */
static inline void sb_check(void)
{
	struct store_check c = {0};
	struct err e = {0};

	assert_int_equal(store_check(sb.store, &(struct store_check_cfg){.deep = true}, &c, &e), 0);
	assert_int_equal(c.problems, 0);
}

#endif
