/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Two stores, each with its shard and mover, and a VM whose volumes are at one of them: it writes, zeroes, trims and reads at random, and is checked against
 * what it remembers of each of its sectors. Under virtual time both shards take turns on one thread.
 */
#ifndef TESTS_UNIT_TRANSFERBED_H
#define TESTS_UNIT_TRANSFERBED_H

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
#include "dpu/mover/mover.h"
#include "dpu/mover/transfer.h"
#include "dpu/volume/move.h"
#include "dpu/volume/store_priv.h"
#include "dpu/volume/track.h"

enum { TB_DEVS = 6, TB_SECTOR = 512, TB_BLOCK = 4096, TB_VM = 7, TB_VOLS = 3, TB_REQS = 8 };
enum { TB_REQ_BLOCKS = 40, TB_SECTORS = TB_BLOCK / TB_SECTOR };

struct tb_side {
	struct shard *sh;
	struct flash *f[TB_DEVS];
	unsigned int order[TB_DEVS]; /* number in the pool -> flash: differs between the sides */
	struct store *store;
	struct mover *m;
	unsigned int dev_mib;
};

struct tb_vol {
	struct volume *v;
	char name[64];
	uint8_t nguid[16];
	uint32_t block_bytes;
	uint64_t nblocks, cap; /* cap: of version[] */
	uint32_t *version; /* of each sector; 0: zeros */
};

struct tb_req {
	struct io_req req;
	struct iovec iov;
	uint8_t *buf;
	unsigned int vol;
	uint64_t sector, n;
	uint32_t version;
	bool busy;
};

static struct tb {
	struct tb_side side[2];
	bool volatile_cache, small;
	/* the VM */
	unsigned int where; /* durable */
	bool running, broken; /* broken: its requests may fail: the machine is dying */
	struct tb_vol vols[TB_VOLS];
	unsigned int nvols;
	struct tb_req reqs[TB_REQS];
	unsigned int flying;
	uint32_t version;
	uint64_t seed, writes, no_space;
	uint8_t *page;
	/* the move */
	struct transfer *t;
	bool stopping, refuse_switch, ended;
	unsigned int pauses, resumes, switches;
	int pause_rc;
} tb;

static inline uint64_t tb_random(void)
{
	tb.seed ^= tb.seed << 13;
	tb.seed ^= tb.seed >> 7;
	tb.seed ^= tb.seed << 17;
	return tb.seed;
}

/* ---- stores ----------------------------------------------------------------------------------------------------- */

static inline void tb_members(unsigned int i, struct pool_member *mem)
{
	struct flash_opts o = {.block_bytes = 4096};
	struct tb_side *s = &tb.side[i];
	char addr[64];

	for (unsigned int d = 0; d < TB_DEVS; d++) {
		unsigned int n = s->order[d];

		snprintf(addr, sizeof(addr), "fault:%smem:%uM,name=tb%u.%u",
			tb.volatile_cache ? "volatile:" : "", s->dev_mib, i, n);
		assert_int_equal(flash_open(s->sh, addr, &o, &s->f[n], NULL), 0);
		snprintf(mem[d].name, sizeof(mem[d].name), "f%u", n);
		snprintf(mem[d].domain, sizeof(mem[d].domain), "n%u", n);
		mem[d].flash = s->f[n];
	}
}

static inline void tb_store(unsigned int i, struct pool *p)
{
	struct store_cfg c = {.pool = p,
		.queue = QUEUE_CFG_DEFAULT,
		.max_requests = 16,
		.buffer_bytes = tb.small ? 2 << 20 : 8 << 20,
		.map_bytes = tb.small ? 1 << 20 : 16 << 20,
		.table_bytes = tb.small ? 4 << 20 : 32 << 20,
		.checkpoint_bytes = 8 << 20};
	struct err e = {0};

	if (store_open(&c, &tb.side[i].store, &e) < 0)
		fail_msg("%s", err_text(&e));
}

static inline void tb_side_up(unsigned int i)
{
	assert_int_equal(
		mover_open(&(struct mover_cfg){.store = tb.side[i].store}, &tb.side[i].m), 0);
}

static inline void tb_open_sides(unsigned int mib0, unsigned int mib1)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct pool_cfg pc = {
			.name = "p", .segment_bytes = POOL_SEGMENT_MIN, .scheme = {3, 2}};
		struct shard_cfg sc = {.clock = SHARD_CLOCK_VIRTUAL, .seed = 7 + i, .id = i};
		struct pool_member mem[TB_DEVS] = {0};
		struct pool *p;

		tb.side[i].dev_mib = i ? mib1 : mib0;
		for (unsigned int d = 0; d < TB_DEVS; d++)
			tb.side[i].order[d] = i ? TB_DEVS - 1 - d : d;
		assert_int_equal(shard_open(&sc, &tb.side[i].sh), 0);
		tb_members(i, mem);
		assert_int_equal(pool_create(tb.side[i].sh, &pc, mem, TB_DEVS, false, &p, NULL), 0);
		tb_store(i, p);
		tb_side_up(i);
	}
}

static inline void tb_reopen_side(unsigned int i)
{
	struct pool_member mem[TB_DEVS] = {0};
	struct pool *p;

	tb_members(i, mem);
	assert_int_equal(pool_open(tb.side[i].sh, mem, TB_DEVS, &p, NULL), 0);
	tb_store(i, p);
}

static inline void tb_start(bool volatile_cache, unsigned int mib0, unsigned int mib1)
{
	memset(&tb, 0, sizeof(tb));
	tb.volatile_cache = volatile_cache;
	tb.small = mib0 <= 16;
	tb.seed = 0x9e3779b97f4a7c15ull;
	tb.page = malloc((size_t)TB_REQ_BLOCKS * TB_BLOCK);
	for (unsigned int i = 0; i < TB_REQS; i++)
		tb.reqs[i].buf = malloc((size_t)TB_REQ_BLOCKS * TB_BLOCK);
	tb_open_sides(mib0, mib1);
}

static inline void tb_check(void)
{
	for (unsigned int i = 0; i < 2; i++) {
		struct store_check c = {0};

		assert_int_equal(store_check(tb.side[i].store,
					 &(struct store_check_cfg){.deep = true}, &c, NULL),
			0);
		assert_int_equal(c.problems, 0);
		assert_int_equal(c.unreadable_blocks, 0);
	}
}

static inline void tb_end(void)
{
	for (unsigned int i = 0; i < 2; i++) {
		mover_close(tb.side[i].m);
		store_close(tb.side[i].store);
		shard_close(tb.side[i].sh);
	}
	flash_mem_forget(NULL);
	for (unsigned int i = 0; i < tb.nvols; i++)
		free(tb.vols[i].version);
	for (unsigned int i = 0; i < TB_REQS; i++)
		free(tb.reqs[i].buf);
	free(tb.page);
}

/* A round of both. */
static inline bool tb_round(void)
{
	bool did = shard_run_once(tb.side[0].sh);

	return shard_run_once(tb.side[1].sh) || did;
}

/* ---- the VM ------------------------------------------------------------------------------------------------------ */

static inline unsigned int tb_volume(const char *name, uint64_t nblocks, uint64_t cap,
	enum volume_layout layout, uint32_t block_bytes)
{
	struct volume_cfg c = {.size_bytes = nblocks * TB_BLOCK,
		.layout = layout,
		.block_bytes = block_bytes,
		.scheme = {2, 1},
		.data_dev = pool_dev_find(store_pool(tb.side[tb.where].store), "f1"),
		.intermediate_dev = pool_dev_find(store_pool(tb.side[tb.where].store), "f4")};
	struct tb_vol *x = &tb.vols[tb.nvols];

	snprintf(c.name, sizeof(c.name), "%s", name);
	snprintf(x->name, sizeof(x->name), "%s", name);
	assert_int_equal(volume_create(tb.side[tb.where].store, &c, &x->v, NULL), 0);
	memcpy(x->nguid, volume_cfg(x->v)->nguid, 16);
	x->nblocks = nblocks;
	x->cap = cap;
	x->block_bytes = block_bytes;
	x->version = calloc(cap * TB_SECTORS, sizeof(*x->version));
	return tb.nvols++;
}

static inline void tb_fill(uint8_t *p, unsigned int vol, uint64_t sector, uint32_t version)
{
	uint64_t x = ((uint64_t)version << 32) ^ (sector * 0x9e3779b97f4a7c15ull) ^ vol;

	if (!version) {
		memset(p, 0, TB_SECTOR);
		return;
	}
	for (unsigned int i = 0; i < TB_SECTOR / 8; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(p + i * 8, &x, 8);
	}
}

/* What a request has done: of a trim only whole blocks are sure, the generator makes no others. */
static inline void tb_remember(const struct tb_req *r)
{
	for (uint64_t i = 0; i < r->n; i++)
		tb.vols[r->vol].version[r->sector + i] = r->req.op == IO_WRITE ? r->version : 0;
}

static inline void tb_stopped(void)
{
	if (!tb.stopping || tb.flying)
		return;
	tb.stopping = false;
	transfer_paused(tb.t, tb.pause_rc);
}

static inline void tb_done(struct io_req *req)
{
	struct tb_req *r = req->arg;

	if (tb.broken && req->status != IO_OK)
		return; /* it stays busy: nobody knows what became of it */
	r->busy = false;
	tb.flying--;
	if (req->status == IO_ERR_NO_SPACE && req->op != IO_READ) {
		tb.no_space++;
		return;
	}
	assert_int_equal(req->status, IO_OK);
	if (req->op == IO_READ) {
		for (uint64_t i = 0; i < r->n; i++) {
			uint8_t want[TB_SECTOR];

			tb_fill(want, r->vol, r->sector + i,
				tb.vols[r->vol].version[r->sector + i]);
			assert_memory_equal(r->buf + i * TB_SECTOR, want, TB_SECTOR);
		}
		return;
	}
	tb.writes++;
	tb_remember(r);
}

static inline bool tb_overlaps(unsigned int vol, uint64_t sector, uint64_t n)
{
	for (unsigned int i = 0; i < TB_REQS; i++) {
		const struct tb_req *r = &tb.reqs[i];

		if (r->busy && r->vol == vol && sector < r->sector + r->n && r->sector < sector + n)
			return true;
	}
	return false;
}

static inline void tb_choose(struct tb_req *r, uint64_t span)
{
	static const enum io_op ops[8] = {IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE, IO_READ,
		IO_TRIM, IO_WRITE_ZEROES};
	struct tb_vol *x;
	uint64_t unit, units;

	r->vol = (unsigned int)(tb_random() % tb.nvols);
	x = &tb.vols[r->vol];
	r->req = (struct io_req){.op = ops[tb_random() % 8],
		.vm = TB_VM,
		.outcome = (enum io_outcome)(tb_random() % 3),
		.stable = true,
		.done_fn = tb_done,
		.arg = r};
	unit = r->req.op == IO_TRIM ? TB_SECTORS : x->block_bytes / TB_SECTOR;
	units = MIN(span, x->nblocks) * TB_SECTORS / unit;
	r->n = (1 + tb_random() % (tb_random() % 4 ? 8 : TB_REQ_BLOCKS)) * unit;
	r->n = MIN(r->n, (uint64_t)TB_REQ_BLOCKS * TB_SECTORS);
	r->sector = tb_random() % (units - r->n / unit + 1) * unit;
}

static inline void tb_submit(struct tb_req *r)
{
	r->version = ++tb.version;
	r->req.off_bytes = r->sector * TB_SECTOR;
	r->req.len_bytes = r->n * TB_SECTOR;
	r->iov = (struct iovec){r->buf, r->req.len_bytes};
	if (r->req.op <= IO_WRITE) {
		r->req.iov = &r->iov;
		r->req.niov = 1;
	}
	for (uint64_t i = 0; i < r->n && r->req.op == IO_WRITE; i++)
		tb_fill(r->buf + i * TB_SECTOR, r->vol, r->sector + i, r->version);
	if (volume_submit(tb.vols[r->vol].v, &r->req) < 0)
		return;
	r->busy = true;
	tb.flying++;
}

/* Up to `many` requests in flight in the first `span` blocks. */
static inline void tb_work(unsigned int many, uint64_t span)
{
	if (!tb.running)
		return;
	for (unsigned int i = 0; i < TB_REQS && tb.flying < many; i++) {
		struct tb_req *r = &tb.reqs[i];

		if (r->busy)
			continue;
		tb_choose(r, span);
		if (!tb_overlaps(r->vol, r->sector, r->n))
			tb_submit(r);
	}
}

static inline void tb_drain(void)
{
	tb.running = false;
	for (unsigned int i = 0; tb.flying; i++) {
		tb_round();
		assert_true(i < 1000000);
	}
	tb.running = true;
}

/* One request, straight down. */
static inline void tb_op(
	enum io_op op, unsigned int vol, enum io_outcome how, uint64_t block, uint64_t n)
{
	struct tb_req *r = &tb.reqs[0];

	tb_drain();
	r->vol = vol;
	r->sector = block * TB_SECTORS;
	r->n = n * TB_SECTORS;
	r->req = (struct io_req){.op = op,
		.vm = TB_VM,
		.outcome = how,
		.stable = true,
		.done_fn = tb_done,
		.arg = r};
	tb_submit(r);
	assert_true(r->busy);
	tb_drain();
}

static inline bool tb_flush_is_done(void *arg)
{
	return tb.flying == 0;
}

static inline void tb_flushed(struct io_req *req)
{
	assert_int_equal(req->status, IO_OK);
	tb.flying--;
}

static inline void tb_flush(void)
{
	for (unsigned int i = 0; i < tb.nvols; i++) {
		struct io_req req = {.op = IO_FLUSH, .done_fn = tb_flushed};

		tb.flying++;
		assert_int_equal(volume_submit(tb.vols[i].v, &req), 0);
		assert_int_equal(shard_wait(tb.side[tb.where].sh, tb_flush_is_done, NULL, 0), 0);
	}
}

/* The volumes at the VM's side, by their names; there are none at the other. */
static inline void tb_attach(void)
{
	for (unsigned int i = 0; i < tb.nvols; i++) {
		struct tb_vol *x = &tb.vols[i];

		x->v = volume_find(tb.side[tb.where].store, x->name);
		assert_non_null(x->v);
		assert_memory_equal(volume_cfg(x->v)->nguid, x->nguid, 16);
		assert_int_equal(volume_cfg(x->v)->block_bytes, x->block_bytes);
	}
}

static inline void tb_expect_one_truth(void)
{
	unsigned int n = 0;

	tb_attach();
	assert_null(volume_first(tb.side[!tb.where].store));
	for (struct volume *v = volume_first(tb.side[tb.where].store); v; v = volume_next(v))
		n++;
	assert_int_equal(n, tb.nvols);
}

struct tb_wait {
	struct io_req req;
	bool done;
};

static inline void tb_wait_done(struct io_req *req)
{
	((struct tb_wait *)req->arg)->done = true;
}

static inline bool tb_wait_is_done(void *arg)
{
	return ((struct tb_wait *)arg)->done;
}

static inline void tb_read(struct tb_vol *x, uint64_t block, uint64_t n)
{
	struct iovec iov = {tb.page, n * TB_BLOCK};
	struct tb_wait w = {.req = {.op = IO_READ,
				    .off_bytes = block * TB_BLOCK,
				    .len_bytes = iov.iov_len,
				    .iov = &iov,
				    .niov = 1,
				    .done_fn = tb_wait_done}};

	w.req.arg = &w;
	assert_int_equal(volume_submit(x->v, &w.req), 0);
	assert_int_equal(shard_wait(tb.side[tb.where].sh, tb_wait_is_done, &w, 0), 0);
	assert_int_equal(w.req.status, IO_OK);
}

/* What the crash has made of a sector that was being written: old or new; it is remembered. */
static inline bool tb_may_be(unsigned int vol, uint64_t sector, const uint8_t *p)
{
	uint8_t want[TB_SECTOR];

	for (unsigned int i = 0; i < TB_REQS; i++) {
		const struct tb_req *r = &tb.reqs[i];

		if (!r->busy || r->vol != vol || sector < r->sector || sector >= r->sector + r->n)
			continue;
		tb_fill(want, vol, sector, r->req.op == IO_WRITE ? r->version : 0);
		if (r->req.op == IO_READ || memcmp(p, want, TB_SECTOR) != 0)
			continue;
		tb.vols[vol].version[sector] = r->req.op == IO_WRITE ? r->version : 0;
		return true;
	}
	return false;
}

static inline void tb_expect_contents(void)
{
	uint8_t want[TB_SECTOR];

	for (unsigned int i = 0; i < tb.nvols; i++) {
		struct tb_vol *x = &tb.vols[i];

		assert_int_equal(volume_nblocks(x->v), x->nblocks);
		for (uint64_t b = 0, n; b < x->nblocks; b += n) {
			n = MIN((uint64_t)TB_REQ_BLOCKS, x->nblocks - b);
			tb_read(x, b, n);
			for (uint64_t k = 0; k < n * TB_SECTORS; k++) {
				uint64_t sector = b * TB_SECTORS + k;
				const uint8_t *p = tb.page + k * TB_SECTOR;

				tb_fill(want, i, sector, x->version[sector]);
				if (memcmp(p, want, TB_SECTOR) != 0 && !tb_may_be(i, sector, p))
					fail_msg("%s: sector %llu is not version %u", x->name,
						(unsigned long long)sector, x->version[sector]);
			}
		}
	}
	for (unsigned int i = 0; i < TB_REQS; i++)
		tb.reqs[i].busy = false;
	tb.flying = 0;
}

/* ---- the move ------------------------------------------------------------------------------------------------------- */

static inline void tb_pause(void *arg)
{
	tb.pauses++;
	tb.running = false;
	tb.stopping = true;
	if (tb.pause_rc < 0) {
		tb.running = true;
		tb.stopping = false;
		transfer_paused(tb.t, tb.pause_rc);
	}
}

static inline void tb_resume(void *arg)
{
	tb.resumes++;
	tb.running = true;
}

static inline void tb_compare_kinds(void)
{
	for (unsigned int i = 0; i < tb.nvols; i++) {
		struct volume *a = volume_find(tb.side[0].store, tb.vols[i].name);
		struct volume *b = volume_find(tb.side[1].store, tb.vols[i].name);
		uint8_t ka[128], kb[128];

		for (uint64_t at = 0; at < tb.vols[i].nblocks; at += 128) {
			uint32_t n = volume_kinds(a, at, 128, ka);

			assert_int_equal(volume_kinds(b, at, 128, kb), n);
			assert_memory_equal(ka, kb, n);
		}
	}
}

/* Nothing of the copies is in a cache any more. */
static inline void tb_expect_flushed(void)
{
	for (unsigned int i = 0; i < tb.nvols; i++) {
		const struct volume *v = volume_find(tb.side[!tb.where].store, tb.vols[i].name);

		for (unsigned int d = 0; d < TB_DEVS; d++)
			assert_int_equal(v->dev_flushed[d], v->dev_gen[d]);
		assert_int_equal(v->log_flushed, v->log_gen);
	}
}

static inline void tb_switch(void *arg)
{
	tb.switches++;
	assert_int_equal(tb.flying, 0);
	if (tb.refuse_switch || tb.broken) {
		transfer_not_switched(tb.t, "the assignment could not be written");
		return;
	}
	tb_compare_kinds();
	if (tb.volatile_cache)
		tb_expect_flushed();
	tb.where = !tb.where;
	transfer_switched(tb.t);

	tb_attach();
	tb.running = true;
}

static inline void tb_ended(void *arg)
{
	tb.ended = true;
}

static inline void tb_move_with(const struct transfer_cfg *limits)
{
	static const struct transfer_ops ops = {.pause_fn = tb_pause,
		.resume_fn = tb_resume,
		.switch_fn = tb_switch,
		.end_fn = tb_ended};
	struct volume *vols[TB_VOLS];
	struct transfer_cfg c = *limits;
	struct err e = {0};

	for (unsigned int i = 0; i < tb.nvols; i++)
		vols[i] = tb.vols[i].v;
	c.from = tb.side[tb.where].m;
	c.to = tb.side[!tb.where].m;
	c.from_shard = tb.where;
	c.to_shard = !tb.where;
	c.vm = TB_VM;
	c.volumes = vols;
	c.nvolumes = tb.nvols;
	c.ops = &ops;
	tb.ended = false;
	if (transfer_open(&c, &tb.t, &e) < 0)
		fail_msg("%s", err_text(&e));
}

/* The VM works while cond does not hold. */
static inline void tb_run_until(bool (*cond)(void), unsigned int many, uint64_t span)
{
	for (uint64_t i = 0; !cond(); i++) {
		if (i % 64 < 48) /* virtual time passes while it has nothing to do */
			tb_work(many, span);
		tb_round();
		tb_stopped();
		if (i == 3000000)
			fail_msg("stuck: %s, pass %u, %s",
				transfer_state_name(transfer_status(tb.t)->state),
				transfer_status(tb.t)->passes, transfer_status(tb.t)->text);
	}
}

static inline bool tb_is_over(void)
{
	return tb.ended;
}

static inline enum transfer_state tb_finish(unsigned int many, uint64_t span)
{
	enum transfer_state st;

	tb_run_until(tb_is_over, many, span);
	st = transfer_status(tb.t)->state;
	return st;
}

static inline void tb_close_move(void)
{
	transfer_close(tb.t);
	tb.t = NULL;
}

static inline unsigned int tb_shard_of(void *arg, uint32_t vm)
{
	assert_int_equal(vm, TB_VM);
	return tb.where;
}

static inline int tb_count_note(void *arg, const char *key, const void *body, uint8_t len)
{
	++*(unsigned int *)arg;
	return 0;
}

static inline unsigned int tb_notes(unsigned int side)
{
	unsigned int n = 0;

	store_note_each(tb.side[side].store, "moving/", tb_count_note, &n);
	return n;
}

#endif
