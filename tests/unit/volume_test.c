/* SPDX-License-Identifier: BSD-3-Clause */
/* The storage stack in chosen situations; the random ones are in tests/model. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/flash/fault.h"
#include "dpu/stripelog/log_priv.h"
#include "dpu/volume/store_priv.h"

enum { DEVS_TOP = 12, DEV_BYTES = 24 << 20, BLOCK = 4096 };

static struct bed {
	struct shard *sh;
	struct flash *f[DEVS_TOP];
	struct store *store;
	unsigned int ndevs;
	bool volatile_cache;
	uint64_t away;
	unsigned int events[STORE_EVENTS];
	char lost_text[320];
} bed;

static uint64_t map_budget = 8 << 20;

static uint8_t out[64 * BLOCK], in[64 * BLOCK];

static void heard(void *arg, enum store_event_kind kind, const char *object, const char *text)
{
	assert_non_null(object);
	assert_non_null(text);
	bed.events[kind]++;
	if (kind == STORE_EVENT_BLOCKS_LOST)
		snprintf(bed.lost_text, sizeof(bed.lost_text), "%s %s", object, text);
}

/* ---- up and down ------------------------------------------------------------------------------------------------- */

static unsigned int open_devs(struct pool_member *mem)
{
	struct flash_opts o = {.block_bytes = 4096};
	unsigned int n = 0;
	char addr[64];

	for (unsigned int d = 0; d < bed.ndevs; d++) {
		bed.f[d] = NULL;
		if (bed.away >> d & 1)
			continue;
		snprintf(addr, sizeof(addr), "fault:%smem:%u,name=v%u",
			bed.volatile_cache ? "volatile:" : "", DEV_BYTES, d);
		assert_int_equal(flash_open(bed.sh, addr, &o, &bed.f[d], NULL), 0);
		snprintf(mem[n].name, sizeof(mem[n].name), "f%u", d);
		snprintf(mem[n].domain, sizeof(mem[n].domain), "n%u", d);
		mem[n++].flash = bed.f[d];
	}
	return n;
}

static int open_store(struct pool *p, bool force, struct err *e)
{
	struct store_cfg c = {.pool = p,
		.queue = QUEUE_CFG_DEFAULT,
		.max_requests = 8,
		.buffer_bytes = 4 << 20,
		.map_bytes = map_budget,
		.table_bytes = 1 << 20,
		.force = force};
	int rc = store_open(&c, &bed.store, e);

	if (rc == 0)
		store_on_event(bed.store, heard, NULL);
	return rc;
}

static void bed_open(unsigned int ndevs, unsigned int k, unsigned int m, bool volatile_cache)
{
	struct pool_cfg pc = {
		.name = "p", .segment_bytes = POOL_SEGMENT_MIN, .scheme = {(uint8_t)k, (uint8_t)m}};
	struct pool_member mem[DEVS_TOP] = {0};
	struct pool *p;
	unsigned int n;

	memset(&bed, 0, sizeof(bed));
	bed.ndevs = ndevs;
	bed.volatile_cache = volatile_cache;
	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 5}, &bed.sh),
		0);
	n = open_devs(mem);
	assert_int_equal(pool_create(bed.sh, &pc, mem, n, false, &p, NULL), 0);
	assert_int_equal(open_store(p, false, NULL), 0);
}

static int bed_reopen(uint64_t away, bool force, struct err *e)
{
	struct pool_member mem[DEVS_TOP] = {0};
	struct pool *p;
	unsigned int n;
	int rc;

	store_close(bed.store);
	bed.store = NULL;
	bed.away = away;
	n = open_devs(mem);
	assert_int_equal(pool_open(bed.sh, mem, n, &p, NULL), 0);
	rc = open_store(p, force, e);
	if (rc < 0)
		pool_close(p);
	return rc;
}

static void reopen_after_refusal(uint64_t away, bool force)
{
	struct pool_member mem[DEVS_TOP] = {0};
	struct pool *p;
	unsigned int n;

	bed.away = away;
	n = open_devs(mem);
	assert_int_equal(pool_open(bed.sh, mem, n, &p, NULL), 0);
	assert_int_equal(open_store(p, force, NULL), 0);
}

static void bed_close(void)
{
	store_close(bed.store);
	shard_close(bed.sh);
	flash_mem_forget(NULL);
}

/* ---- requests -------------------------------------------------------------------------------------------------------- */

static struct volume *create(
	const char *name, unsigned int nblocks, enum volume_layout layout, int data_dev)
{
	struct volume_cfg c = {.size_bytes = (uint64_t)nblocks * BLOCK,
		.layout = layout,
		.data_dev = data_dev,
		.intermediate_dev = data_dev ? 0 : 1};
	struct volume *v;

	snprintf(c.name, sizeof(c.name), "%s", name);
	assert_int_equal(volume_create(bed.store, &c, &v, NULL), 0);
	return v;
}

static unsigned int ended;

static void count_end(struct io_req *req)
{
	ended++;
}

static bool has_ended(void *arg)
{
	return ended >= *(unsigned int *)arg;
}

static enum io_status run(struct volume *v, struct io_req *r)
{
	unsigned int want = ++(unsigned int){0};

	ended = 0;
	r->done_fn = count_end;
	assert_int_equal(volume_submit(v, r), 0);
	assert_int_equal(shard_wait(bed.sh, has_ended, &want, 60ull * 1000000000ull), 0);
	return r->status;
}

static enum io_status put(struct volume *v, enum io_outcome how, uint64_t block, unsigned int n,
	uint8_t byte, uint32_t flags)
{
	struct iovec iov = {out, (size_t)n * BLOCK};

	memset(out, byte, iov.iov_len);
	return run(v, &(struct io_req){.op = IO_WRITE,
			      .flags = flags,
			      .off_bytes = block * BLOCK,
			      .len_bytes = iov.iov_len,
			      .iov = &iov,
			      .niov = 1,
			      .stable = true,
			      .outcome = how});
}

static enum io_status get(struct volume *v, uint64_t block, unsigned int n)
{
	struct iovec iov = {in, (size_t)n * BLOCK};

	memset(in, 0xee, iov.iov_len);
	return run(v, &(struct io_req){.op = IO_READ,
			      .off_bytes = block * BLOCK,
			      .len_bytes = iov.iov_len,
			      .iov = &iov,
			      .niov = 1});
}

static void expect(struct volume *v, uint64_t block, unsigned int n, uint8_t byte)
{
	assert_int_equal(get(v, block, n), IO_OK);
	for (unsigned int i = 0; i < n * BLOCK; i++)
		assert_int_equal(in[i], byte);
}

static enum io_status other(struct volume *v, enum io_op op, uint64_t block, uint64_t n)
{
	return run(
		v, &(struct io_req){.op = op, .off_bytes = block * BLOCK, .len_bytes = n * BLOCK});
}

/* ---- what is lost, and what is not --------------------------------------------------------------------------------------- */

static void a_dead_data_flash_costs_plain_blocks_and_nothing_else(void **state)
{
	struct volume_stats st;
	struct volume *v;

	bed_open(6, 2, 1, true);
	v = create("a", 64, VOLUME_COPY, 0);
	assert_int_equal(put(v, IO_PROTECT, 0, 8, 1, 0), IO_OK);
	assert_int_equal(put(v, IO_PLAIN, 8, 8, 2, 0), IO_OK);
	assert_int_equal(put(v, IO_INTERMEDIATE, 16, 8, 3, 0), IO_OK);
	assert_int_equal(other(v, IO_FLUSH, 0, 0), IO_OK);
	volume_stats(v, &st);
	assert_int_equal(st.blocks[BLOCK_DATA_LOG], 8);
	assert_int_equal(st.blocks[BLOCK_DATA], 8);
	assert_int_equal(st.blocks[BLOCK_INTERMEDIATE], 8);
	fault_set_gone(bed.f[0], true);
	expect(v, 0, 8, 1);
	expect(v, 16, 8, 3);
	expect(v, 24, 8, 0);
	assert_int_equal(get(v, 8, 1), IO_ERR_MEDIA);
	assert_int_equal(put(v, IO_PLAIN, 40, 1, 4, 0), IO_ERR_MEDIA);
	/* It goes on: what is protected now is in the log only. */
	assert_int_equal(put(v, IO_PROTECT, 8, 4, 5, 0), IO_OK);
	expect(v, 8, 4, 5);
	assert_int_equal(get(v, 12, 1), IO_ERR_MEDIA);
	volume_stats(v, &st);
	assert_int_equal(st.blocks[BLOCK_LOG], 4);
	assert_true(bed.events[STORE_EVENT_DEV_FAILED] == 1);
	assert_true(bed.events[STORE_EVENT_MEDIA_ERROR] > 0);
	assert_int_equal(bed_reopen(1, false, NULL), 0);
	v = volume_find(bed.store, "a");
	expect(v, 0, 8, 1);
	expect(v, 8, 4, 5);
	assert_int_equal(get(v, 12, 1), IO_ERR_MEDIA);
	expect(v, 16, 8, 3);
	bed_close();
}

/* Its failed flush fails the device for everybody; when it is back nobody's unflushed blocks need be there. */
static void a_flush_tells_what_a_device_lost_before_it_came_back(void **state)
{
	struct pool *p;
	struct volume *a, *b;
	unsigned int told;

	bed_open(6, 2, 1, true);
	p = store_pool(bed.store);
	a = create("a", 64, VOLUME_COPY, 0);
	b = create("b", 64, VOLUME_COPY, 0);
	assert_int_equal(put(a, IO_PLAIN, 0, 8, 1, 0), IO_OK);
	assert_int_equal(put(b, IO_PLAIN, 0, 8, 2, 0), IO_OK);
	told = bed.events[STORE_EVENT_MEDIA_ERROR];
	fault_set_gone(bed.f[0], true);
	assert_int_equal(other(a, IO_FLUSH, 0, 0), IO_ERR_MEDIA);
	fault_set_gone(bed.f[0], false);
	assert_int_equal(pool_dev_return(p, 0, NULL, NULL), 0);
	assert_int_equal(other(a, IO_FLUSH, 0, 0), IO_OK);
	assert_int_equal(other(b, IO_FLUSH, 0, 0), IO_ERR_MEDIA);
	assert_int_equal(bed.events[STORE_EVENT_MEDIA_ERROR], told + 2);
	assert_int_equal(other(b, IO_FLUSH, 0, 0), IO_OK); /* once */
	assert_int_equal(put(b, IO_PLAIN, 0, 8, 3, IO_FUA), IO_OK);
	/* What was flushed is no loss. */
	fault_set_gone(bed.f[0], true);
	pool_dev_fail(p, 0);
	fault_set_gone(bed.f[0], false);
	assert_int_equal(pool_dev_return(p, 0, NULL, NULL), 0);
	assert_int_equal(other(b, IO_FLUSH, 0, 0), IO_OK);
	expect(b, 0, 8, 3);
	bed_close();
}

/* Writes four protected blocks of v and tells which devices hold their stripe. */
static uint64_t holders(struct volume *v)
{
	uint64_t mask = 0, before[DEVS_TOP];
	struct store_stats st;

	store_stats(bed.store, &st);
	memcpy(before, st.log.dev_bytes, sizeof(before));
	assert_int_equal(put(v, IO_PROTECT, 3, 4, 7, IO_FUA), IO_OK);
	store_stats(bed.store, &st);
	for (unsigned int d = 0; d < bed.ndevs; d++)
		if (st.log.dev_bytes[d] != before[d])
			mask |= 1ull << d;
	return mask;
}

static void opening_is_refused_with_the_blocks_named_where_a_stripe_is_lost_and_forced_once(
	void **state)
{
	struct err e = {0};
	struct volume *v;
	uint64_t gone;

	bed_open(7, 2, 1, true);
	v = create("web1", 64, VOLUME_FRAGMENTS, 0);
	assert_int_equal(put(v, IO_PLAIN, 40, 1, 9, IO_FUA), IO_OK);
	gone = holders(v);
	assert_int_equal(__builtin_popcountll(gone), 3);
	/* Not the data flash, and one of the three stays. */
	gone &= ~1ull;
	if (__builtin_popcountll(gone) == 3)
		gone &= gone - 1;
	assert_int_equal(bed_reopen(0, false, NULL), 0); /* its verdict: the stripe is there */
	assert_int_equal(bed_reopen(gone, false, &e), -EIO);
	assert_non_null(strstr(e.reason, "web1: blocks 3-6"));
	assert_non_null(strstr(e.reason, "4 blocks"));
	reopen_after_refusal(0, false);
	expect(volume_find(bed.store, "web1"), 3, 4, 7);
	assert_int_equal(bed_reopen(gone, true, &e), 0);
	assert_int_equal(bed.events[STORE_EVENT_BLOCKS_LOST], 1);
	assert_string_equal(bed.lost_text, "web1 lost, media errors from now on: blocks 3-6");
	v = volume_find(bed.store, "web1");
	for (unsigned int b = 3; b < 7; b++)
		assert_int_equal(get(v, b, 1), IO_ERR_MEDIA);
	expect(v, 0, 3, 0);
	expect(v, 7, 10, 0);
	expect(v, 40, 1, 9);
	assert_int_equal(put(v, IO_PROTECT, 4, 1, 8, IO_FUA), IO_OK);
	assert_int_equal(other(v, IO_TRIM, 5, 1), IO_OK);
	/* Decided once: not refused again, and what was given up does not come back. */
	assert_int_equal(bed_reopen(0, false, &e), 0);
	v = volume_find(bed.store, "web1");
	assert_int_equal(get(v, 3, 1), IO_ERR_MEDIA);
	expect(v, 4, 1, 8);
	expect(v, 5, 1, 0);
	assert_int_equal(get(v, 6, 1), IO_ERR_MEDIA);
	bed_close();
}

/* "... 3-6 8-9": how many blocks these are. */
static uint64_t blocks_named(const char *text)
{
	uint64_t n = 0;

	for (const char *p = text; (p = strchr(p, '-')); p++) {
		const char *first = p;

		while (first > text && first[-1] >= '0' && first[-1] <= '9')
			first--;
		n += strtoull(p + 1, NULL, 10) - strtoull(first, NULL, 10) + 1;
	}
	return n;
}

static void long_lists_of_lost_blocks_end_with_how_many_more(void **state)
{
	struct err e = {0};
	struct volume *v[2];
	uint64_t gone, lost;
	char more[96];

	bed_open(7, 2, 1, true);
	v[0] = create("web1", 512, VOLUME_FRAGMENTS, 0);
	v[1] = create("web2", 512, VOLUME_FRAGMENTS, 0);
	gone = holders(v[0]) & holders(v[1]);
	for (unsigned int b = 8; b < 480; b += 8)
		for (unsigned int i = 0; i < 2; i++)
			assert_int_equal(put(v[i], IO_PROTECT, b, 4, 7, IO_FUA), IO_OK);
	gone &= ~1ull;
	while (__builtin_popcountll(gone) > 2)
		gone &= gone - 1;
	assert_int_equal(__builtin_popcountll(gone), 2);
	assert_int_equal(bed_reopen(0, false, NULL), 0);
	assert_int_equal(bed_reopen(gone, false, &e), -EIO);
	lost = strtoull(e.reason, NULL, 10);
	assert_non_null(strstr(e.reason, "(web1: blocks "));
	assert_true(blocks_named(e.reason) > 4 * 10);
	assert_true(lost > blocks_named(e.reason));
	snprintf(more, sizeof(more), ", and %llu more in 2 volumes); bring devices back, or force",
		(unsigned long long)(lost - blocks_named(e.reason)));
	assert_non_null(strstr(e.reason, more));
	reopen_after_refusal(gone, true);
	assert_int_equal(bed.events[STORE_EVENT_BLOCKS_LOST], 2);
	assert_non_null(strstr(bed.lost_text, "web2 lost"));
	lost = 0;
	for (unsigned int b = 0; b < 512; b++)
		lost += get(volume_find(bed.store, "web2"), b, 1) == IO_ERR_MEDIA;
	assert_true(lost > blocks_named(bed.lost_text) && blocks_named(bed.lost_text) > 4 * 10);
	snprintf(more, sizeof(more), ", and %llu more blocks",
		(unsigned long long)(lost - blocks_named(bed.lost_text)));
	assert_non_null(strstr(bed.lost_text, more));
	bed_close();
}

/*
 * A power cut after which the devices with all of the last write's stripe do not come back: it was acknowledged and flushed, and nobody who is left has
 * heard of it.
 */
static void what_may_be_on_missing_devices_alone_is_not_rolled_back_silently(void **state)
{
	struct err e = {0};
	struct volume *v;
	uint64_t gone;

	bed_open(7, 2, 1, true);
	v = create("web1", 64, VOLUME_FRAGMENTS, 0);
	assert_int_equal(put(v, IO_PLAIN, 3, 4, 6, IO_FUA), IO_OK);
	assert_int_equal(bed_reopen(0, false, NULL), 0);
	v = volume_find(bed.store, "web1");
	gone = holders(v); /* the same blocks, protected */
	assert_true(__builtin_popcountll(gone) >= 2 && __builtin_popcountll(gone) <= 5);
	assert_int_equal(fault_power_cut(bed.f, 7), 0);
	assert_int_equal(bed_reopen(gone, false, &e), -EIO);
	for (unsigned int d = 0; d < 7; d++) {
		char name[8];

		snprintf(name, sizeof(name), "f%u", d);
		if (gone >> d & 1)
			assert_non_null(strstr(e.reason, name));
	}
	assert_non_null(strstr(e.reason, "are away"));
	/* No verdict was made: it is there when they are. */
	reopen_after_refusal(0, false);
	expect(volume_find(bed.store, "web1"), 3, 4, 7);
	bed_close();
}

static void the_data_area_saves_blocks_whose_stripes_are_lost(void **state)
{
	struct volume_stats st;
	struct err e = {0};
	struct volume *v;
	uint64_t gone;

	bed_open(7, 2, 1, true);
	v = create("a", 64, VOLUME_COPY, 0);
	assert_int_equal(put(v, IO_PROTECT, 40, 1, 9, IO_FUA), IO_OK); /* makes the piece */
	gone = holders(v);
	assert_int_equal(gone & 1, 0); /* not on the data area's device */
	gone &= gone - 1;
	assert_int_equal(bed_reopen(0, false, NULL), 0);
	/* Nothing that is known of is lost; but what is known of need not be all. */
	assert_int_equal(bed_reopen(gone, false, &e), -EIO);
	assert_non_null(strstr(e.reason, "are away"));
	reopen_after_refusal(gone, true);
	assert_int_equal(bed.events[STORE_EVENT_BLOCKS_LOST], 0);
	v = volume_find(bed.store, "a");
	expect(v, 3, 4, 7);
	volume_stats(v, &st);
	assert_int_equal(st.blocks[BLOCK_DATA], 4);
	assert_int_equal(bed_reopen(0, false, NULL), 0);
	v = volume_find(bed.store, "a");
	expect(v, 3, 4, 7);
	bed_close();
}

static void rotten_data_area_blocks_are_served_from_the_log_and_put_right(void **state)
{
	struct volume_stats st;
	struct volume *v;

	bed_open(6, 2, 1, false);
	v = create("a", 64, VOLUME_COPY, 0);
	assert_int_equal(put(v, IO_PROTECT, 0, 8, 1, 0), IO_OK);
	/* The device says it wrote this, and did not. */
	assert_true(fault_rule_add(bed.f[0], &(struct fault_rule){.op = FLASH_WRITE,
						     .per_million = 1000000,
						     .count = 1,
						     .lost = true}) >= 0);
	assert_int_equal(put(v, IO_PROTECT, 2, 3, 6, 0), IO_OK);
	expect(v, 2, 3, 6);
	for (int i = 0; i < 50; i++)
		shard_run_once(bed.sh);
	volume_stats(v, &st);
	assert_int_equal(st.repaired, 3);
	assert_int_equal(bed.events[STORE_EVENT_REPAIRED], 1);
	expect(v, 0, 2, 1);
	expect(v, 2, 3, 6);
	volume_stats(v, &st);
	assert_int_equal(st.repaired, 3);
	bed_close();
}

static void a_block_that_rots_in_the_log_is_decoded_and_written_again(void **state)
{
	struct store_stats stats;
	struct volume_stats st;
	struct map_entry was, is;
	struct volume *v;
	int dev;

	bed_open(6, 2, 1, false);
	v = create("a", 64, VOLUME_FRAGMENTS, 0);
	assert_int_equal(put(v, IO_PROTECT, 0, 8, 5, 0), IO_OK);
	was = map_get(v->map, 0);
	dev = stripelog_block_dev(bed.store->log, was.ref, was.pos);
	assert_true(dev >= 0);
	/* What is read is not what was written: once. */
	assert_true(fault_rule_add(bed.f[dev], &(struct fault_rule){.op = FLASH_READ,
						       .per_million = 1000000,
						       .corrupt = true,
						       .count = 1}) >= 0);
	expect(v, 0, 8, 5);
	for (int i = 0; i < 200; i++)
		shard_run_once(bed.sh);
	store_stats(bed.store, &stats);
	assert_int_equal(stats.log.crc_mismatches, 1);
	volume_stats(v, &st);
	assert_int_equal(st.repaired, 8);
	assert_true(bed.events[STORE_EVENT_REPAIRED] > 0);
	is = map_get(v->map, 0);
	assert_true(is.state == BLOCK_LOG && is.ref != was.ref);
	expect(v, 0, 8, 5);
	/* Where a device is missing blocks are decoded, and nothing is written again for that. */
	fault_set_gone(bed.f[stripelog_block_dev(bed.store->log, is.ref, is.pos)], true);
	expect(v, 0, 8, 5);
	expect(v, 0, 8, 5);
	for (int i = 0; i < 200; i++)
		shard_run_once(bed.sh);
	volume_stats(v, &st);
	assert_true(st.from_decode > 0);
	assert_int_equal(st.repaired, 8);
	bed_close();
}

static void a_data_area_that_cannot_be_written_leaves_protected_blocks_in_the_log(void **state)
{
	struct volume_stats st;
	struct volume *v;

	bed_open(6, 2, 1, false);
	v = create("a", 64, VOLUME_COPY, 0);
	assert_int_equal(put(v, IO_PROTECT, 0, 4, 1, 0), IO_OK);
	assert_true(fault_rule_add(bed.f[0], &(struct fault_rule){.op = FLASH_WRITE,
						     .per_million = 1000000,
						     .count = 1,
						     .status = FLASH_ERR_MEDIA}) >= 0);
	assert_int_equal(put(v, IO_PROTECT, 0, 4, 2, 0), IO_OK);
	expect(v, 0, 4, 2);
	volume_stats(v, &st);
	assert_int_equal(st.blocks[BLOCK_LOG], 4);
	assert_int_equal(bed.events[STORE_EVENT_DATA_AREA_LOST], 1);
	assert_int_equal(bed_reopen(0, false, NULL), 0);
	v = volume_find(bed.store, "a");
	expect(v, 0, 4, 2);
	bed_close();
}

/* ---- space ------------------------------------------------------------------------------------------------------------------- */

static void a_new_volume_in_recycled_space_reads_zeros_and_so_does_its_flash(void **state)
{
	static uint8_t segment[POOL_SEGMENT_MIN];
	struct pool *p;
	struct volume *v;

	bed_open(5, 2, 1, false);
	p = store_pool(bed.store);
	v = create("old", 1024, VOLUME_COPY, 0);
	for (unsigned int b = 0; b < 1024; b += 64)
		assert_int_equal(put(v, IO_PLAIN, b, 64, 0x5a, 0), IO_OK);
	assert_int_equal(volume_delete(v, NULL), 0);
	v = create("new", 1024, VOLUME_COPY, 0);
	assert_int_equal(put(v, IO_PLAIN, 700, 1, 1, 0), IO_OK);
	assert_int_equal(put(v, IO_PROTECT, 300, 1, 2, 0), IO_OK);
	for (unsigned int b = 0; b < 256; b += 64)
		expect(v, b, 64, 0);
	for (unsigned int s = 1; s < pool_dev(p, 0)->nsegments; s++) {
		if (pool_segment_use(p, 0, s) != POOL_DATA)
			continue;
		assert_int_equal(flash_rw_sync(bed.f[0], FLASH_READ, pool_segment_off(p, s),
					 segment, sizeof(segment)),
			0);
		for (unsigned int i = 0; i < sizeof(segment); i++)
			assert_true(segment[i] <= 2);
	}
	bed_close();
}

static void a_full_pool_refuses_new_blocks_and_goes_on_overwriting_reading_and_trimming(
	void **state)
{
	enum io_status st = IO_OK;
	struct store_stats stats;
	struct volume *v;
	unsigned int n = 0;

	bed_open(4, 2, 1, true);
	v = create("a", 40000, VOLUME_FRAGMENTS, 0);
	while (st == IO_OK && n++ < 1200)
		st = put(v, IO_PROTECT, (uint64_t)n * 32, 32, (uint8_t)(n % 200 + 2), 0);
	assert_int_equal(st, IO_ERR_NO_SPACE);
	assert_true(bed.events[STORE_EVENT_NO_SPACE] > 0);
	assert_int_equal(bed.events[STORE_EVENT_SPACE_LOW], 1);
	assert_int_equal(bed.events[STORE_EVENT_SPACE_CRITICAL], 1);
	assert_int_equal(store_space_level(bed.store), STORE_SPACE_CRITICAL);
	store_on_event(bed.store, heard, NULL); /* who listens from now on hears how it is */
	assert_int_equal(bed.events[STORE_EVENT_SPACE_LOW], 1);
	assert_int_equal(bed.events[STORE_EVENT_SPACE_CRITICAL], 2);
	expect(v, (uint64_t)(n - 1) * 32, 32, (uint8_t)((n - 1) % 200 + 2));
	expect(v, (uint64_t)n * 32, 32, 0); /* nothing of the refused one */
	/* What is there can be written again for ever: many times what the pool holds. */
	for (unsigned int i = 0; i < 2000; i++)
		assert_int_equal(put(v, IO_PROTECT, 32, 32, (uint8_t)(i % 200 + 2), 0), IO_OK);
	expect(v, 32, 32, (uint8_t)(1999 % 200 + 2));
	store_stats(bed.store, &stats);
	assert_true(stats.checkpoints > 3);
	assert_int_equal(put(v, IO_PROTECT, 39000, 32, 1, 0), IO_ERR_NO_SPACE);
	for (unsigned int i = 0; i < 200; i++)
		assert_int_equal(other(v, IO_TRIM, 32 + i % 32, 1), IO_OK);
	assert_int_equal(other(v, IO_TRIM, 96, 3000), IO_OK);
	assert_int_equal(put(v, IO_PROTECT, 39000, 32, 1, 0), IO_OK); /* in their place */
	expect(v, 32, 32, 0);
	assert_int_equal(other(v, IO_FLUSH, 0, 0), IO_OK);
	assert_int_equal(bed_reopen(0, false, NULL), 0);
	v = volume_find(bed.store, "a");
	expect(v, 64, 32, 4);
	expect(v, 32, 32, 0);
	bed_close();
}

/* ---- order -------------------------------------------------------------------------------------------------------------------- */

static uint64_t flushes_of(unsigned int dev)
{
	struct flash_stats st;

	flash_stats(bed.f[dev], &st);
	return st.flushes;
}

static void a_record_waits_for_its_data_unless_the_place_is_known_to_hold_zeros(void **state)
{
	struct volume *v;
	uint64_t n;

	bed_open(6, 2, 1, true);
	v = create("a", 64, VOLUME_COPY, 0);
	assert_int_equal(put(v, IO_PLAIN, 0, 1, 1, 0), IO_OK); /* makes the piece */
	n = flushes_of(0);
	assert_int_equal(put(v, IO_PLAIN, 1, 1, 1, 0), IO_OK); /* fresh */
	assert_int_equal(put(v, IO_PLAIN, 0, 2, 2, 0), IO_OK); /* in place */
	assert_int_equal(put(v, IO_PROTECT, 4, 1, 1, 0), IO_OK);
	assert_int_equal(flushes_of(0), n);
	assert_int_equal(put(v, IO_PLAIN, 4, 1, 2, 0), IO_OK); /* data+log -> data */
	assert_int_equal(flushes_of(0), n + 1);
	assert_int_equal(other(v, IO_TRIM, 0, 1), IO_OK);
	assert_int_equal(put(v, IO_PLAIN, 0, 1, 3, 0), IO_OK); /* zero -> data */
	assert_int_equal(flushes_of(0), n + 2);
	/* What an earlier run may have left in an unmapped place, nobody knows. */
	assert_int_equal(bed_reopen(0, false, NULL), 0);
	v = volume_find(bed.store, "a");
	n = flushes_of(0);
	assert_int_equal(put(v, IO_PLAIN, 9, 1, 1, 0), IO_OK);
	assert_int_equal(flushes_of(0), n + 1);
	bed_close();
}

static uint64_t log_flushes(void)
{
	struct store_stats st;

	store_stats(bed.store, &st);
	return st.log.flushes;
}

/* Later records may outlive a power cut that an unflushed one does not. */
static void a_new_piece_is_durable_before_anything_is_said_about_it(void **state)
{
	struct volume *v;
	uint64_t n;

	bed_open(6, 2, 1, true);
	v = create("a", 600, VOLUME_COPY, 0);
	n = log_flushes();
	assert_int_equal(put(v, IO_PLAIN, 0, 1, 1, 0), IO_OK);
	assert_true(log_flushes() > n);
	n = log_flushes();
	assert_int_equal(put(v, IO_PLAIN, 1, 1, 1, 0), IO_OK); /* the same piece */
	assert_int_equal(log_flushes(), n);
	assert_int_equal(put(v, IO_PROTECT, 300, 1, 1, 0), IO_OK); /* the next */
	assert_true(log_flushes() > n);
	n = log_flushes();
	assert_int_equal(put(v, IO_INTERMEDIATE, 301, 1, 1, 0), IO_OK);
	assert_true(log_flushes() > n);
	bed_close();
}

static void a_policy_change_on_a_live_volume_never_shows_an_older_value(void **state)
{
	static const enum io_outcome ways[] = {IO_PROTECT, IO_PLAIN, IO_INTERMEDIATE};
	struct volume *v;
	uint8_t byte = 1;

	for (unsigned int layout = 0; layout < 2; layout++) {
		bed_open(6, 2, 1, true);
		v = create("a", 64, layout ? VOLUME_FRAGMENTS : VOLUME_COPY, 2);
		for (unsigned int a = 0; a < 3; a++)
			for (unsigned int b = 0; b < 3; b++)
				for (unsigned int c = 0; c < 3; c++) {
					assert_int_equal(put(v, ways[a], 5, 2, byte++, 0), IO_OK);
					assert_int_equal(put(v, ways[b], 6, 2, byte++, 0), IO_OK);
					assert_int_equal(
						put(v, ways[c], 5, 3, byte++, IO_FUA), IO_OK);
					expect(v, 5, 3, (uint8_t)(byte - 1));
					if (c < 2)
						continue;
					assert_int_equal(bed_reopen(0, false, NULL), 0);
					v = volume_find(bed.store, "a");
					expect(v, 5, 3, (uint8_t)(byte - 1));
				}
		bed_close();
	}
}

/* ---- pressure, checks ------------------------------------------------------------------------------------------------------------ */

static void more_than_fits_is_pushed_back_and_nothing_is_dropped(void **state)
{
	struct io_req r[12];
	struct iovec iov = {out, BLOCK};
	unsigned int taken = 0, want;
	struct volume *v;

	bed_open(5, 2, 1, false);
	v = create("a", 64, VOLUME_COPY, 0);
	ended = 0;
	for (unsigned int i = 0; i < ARRAY_LEN(r); i++) {
		int rc;

		r[i] = (struct io_req){.op = IO_WRITE,
			.off_bytes = i * BLOCK,
			.len_bytes = BLOCK,
			.iov = &iov,
			.niov = 1,
			.outcome = IO_PROTECT,
			.done_fn = count_end,
			.status = IO_STATUS_COUNT};
		rc = volume_submit(v, &r[i]);
		assert_true(rc == 0 || rc == -EAGAIN);
		taken += rc == 0;
	}
	assert_int_equal(taken, 8);
	assert_int_equal(ended, 0);
	assert_int_equal(volume_delete(v, NULL), -EBUSY);
	want = taken;
	assert_int_equal(shard_wait(bed.sh, has_ended, &want, 0), 0);
	for (unsigned int i = 0; i < ARRAY_LEN(r); i++)
		assert_int_equal(r[i].status, i < taken ? IO_OK : IO_STATUS_COUNT);
	bed_close();
}

static void wrong_requests_are_refused_with_the_right_status(void **state)
{
	struct iovec iov = {out, BLOCK};
	struct volume *v;
	struct io_req r = {.op = IO_WRITE, .len_bytes = BLOCK, .iov = &iov, .niov = 1};

	bed_open(5, 2, 1, false);
	v = create("a", 64, VOLUME_COPY, 0);
	r.off_bytes = 64 * BLOCK;
	assert_int_equal(run(v, &r), IO_ERR_RANGE);
	r.off_bytes = UINT64_MAX - BLOCK + 1;
	assert_int_equal(run(v, &r), IO_ERR_RANGE);
	r.off_bytes = 512;
	assert_int_equal(run(v, &r), IO_ERR_INVALID);
	r.off_bytes = 0;
	r.len_bytes = 2 * BLOCK;
	assert_int_equal(run(v, &r), IO_ERR_INVALID); /* more than its iovec */
	r.len_bytes = BLOCK;
	r.outcome = 3;
	assert_int_equal(run(v, &r), IO_ERR_INVALID);
	assert_int_equal(other(v, IO_TRIM, 1, UINT64_MAX / BLOCK), IO_ERR_RANGE);
	assert_int_equal(other(v, IO_WRITE_ZEROES, 0, 0), IO_ERR_INVALID);
	bed_close();
}

static void a_volume_that_cannot_be_is_refused_with_the_field(void **state)
{
	struct volume_cfg c = {.name = "x", .size_bytes = BLOCK, .intermediate_dev = 1}, bad;
	struct volume *v;
	struct err e;

	bed_open(5, 2, 1, false);
	assert_int_equal(volume_create(bed.store, &c, &v, &e), 0);
	assert_int_equal(volume_create(bed.store, &c, &v, &e), -EEXIST);
	snprintf(c.name, sizeof(c.name), "y");
#define REFUSED(change, code, what)                                             \
	do {                                                                    \
		bad = c;                                                        \
		change;                                                         \
		memset(&e, 0, sizeof(e));                                       \
		assert_int_equal(volume_create(bed.store, &bad, &v, &e), code); \
		assert_string_equal(e.field, what);                             \
	} while (0)
	REFUSED(bad.size_bytes = 100, -EINVAL, "size");
	REFUSED(bad.size_bytes = 1ull << 60, -ERANGE, "size");
	REFUSED(bad.block_bytes = 1024, -EINVAL, "block size");
	REFUSED(bad.data_dev = 5, -EINVAL, "data flash");
	REFUSED(bad.data_dev = -1, -EINVAL, "data flash");
	REFUSED(bad.intermediate_dev = 0, -EINVAL, "intermediate flash");
	REFUSED(bad.scheme = ((struct ec_scheme){5, 1}), -EINVAL, "ec");
	REFUSED(bad.scheme = ((struct ec_scheme){2, 2}), -EINVAL, "ec");
	REFUSED(bad.name[0] = 0, -EINVAL, "name");
	assert_int_equal(volume_grow(volume_find(bed.store, "x"), BLOCK / 2, &e), -EINVAL);
	bed_close();
}

/* ---- records -------------------------------------------------------------------------------------------------------------------------- */

static void records_come_back_as_they_were_and_nonsense_is_refused(void **state)
{
	struct volume_cfg c = {.name = "vol",
		.size_bytes = 1 << 20,
		.block_bytes = 512,
		.layout = VOLUME_FRAGMENTS,
		.scheme = {8, 3},
		.data_dev = 4,
		.intermediate_dev = POOL_DEV_NONE,
		.nguid = {1, 2, 3}};
	struct rec_volume_fields vf;
	struct rec_state_fields sf;
	struct rec_area_fields af;
	struct record r;
	uint32_t x = 1;

	rec_volume(&r, 77, 3, &c, true);
	assert_int_equal(rec_parse_volume(&r, &vf), 0);
	assert_int_equal(vf.id, 77);
	assert_int_equal(vf.version, 3);
	assert_true(vf.deleted);
	assert_memory_equal(&vf.cfg, &c, sizeof(c));
	rec_state(&r, 5, BLOCK_DATA, 1ull << 33, 9, 1ull << 50);
	assert_int_equal(rec_parse_state(&r, &sf), 0);
	assert_int_equal(sf.block, 1ull << 33);
	assert_int_equal(sf.seq, 1ull << 50);
	assert_int_equal(sf.state, BLOCK_DATA);
	r.len--;
	assert_int_equal(rec_parse_state(&r, &sf), -EINVAL);
	rec_state(&r, 5, BLOCK_LOG, 0, 1, 1); /* stripes say that, not records */
	assert_int_equal(rec_parse_state(&r, &sf), -EINVAL);
	rec_state(&r, 5, BLOCK_DATA, MAP_BLOCKS_MAX - 1, 2, 1);
	assert_int_equal(rec_parse_state(&r, &sf), -EINVAL);
	rec_area(&r, 5, AREA_INTERMEDIATE, 12, 99, 3, 1000, false);
	assert_int_equal(rec_parse_area(&r, &af), 0);
	assert_int_equal(af.piece, 12);
	assert_int_equal(af.seq, 99);
	assert_int_equal(af.segment, 1000);
	for (unsigned int i = 0; i < 200000; i++) {
		for (unsigned int b = 0; b < sizeof(r.body); b++) {
			x = x * 1664525u + 1013904223u;
			r.body[b] = (uint8_t)(x >> 24) & (x & 1 ? 0xff : 0x03);
		}
		r.len = (uint8_t)(x >> 16);
		if (rec_parse_volume(&r, &vf) == 0)
			assert_true(vf.cfg.size_bytes && strlen(vf.cfg.name) < 64);
		if (rec_parse_state(&r, &sf) == 0)
			assert_true(sf.block + sf.nblocks <= MAP_BLOCKS_MAX);
		if (rec_parse_area(&r, &af) == 0)
			assert_true(af.kind < AREAS && af.dev < POOL_DEVS_MAX);
	}
}

/* ---- bounds of memory ------------------------------------------------------------------------------------------------ */

static void maps_that_fill_their_memory_refuse_writes_say_so_and_go_on(void **state)
{
	struct store_stats st, before;
	enum io_status status = IO_OK;
	struct volume *v;
	uint64_t b = 0;

	map_budget = 1; /* the least: one slab */
	bed_open(6, 2, 1, false);
	map_budget = 8 << 20;
	v = create("a", 1 << 20, VOLUME_FRAGMENTS, 0);
	while (status == IO_OK && b < 1 << 20) {
		store_stats(bed.store, &before);
		status = put(v, IO_PROTECT, b, 1, 3, 0);
		b += MAP_PAGE_BLOCKS;
	}
	b -= MAP_PAGE_BLOCKS;
	assert_int_equal(status, IO_ERR_NO_SPACE);
	assert_int_equal(bed.events[STORE_EVENT_MAP_FULL], 1);
	assert_int_equal(bed.events[STORE_EVENT_NO_SPACE], 0);
	store_stats(bed.store, &st);
	assert_int_equal(st.map_bytes, before.map_bytes);
	assert_true(st.map_max_bytes - st.map_bytes < sizeof(struct map_page));
	assert_memory_equal(st.log.dev_bytes, before.log.dev_bytes, sizeof(st.log.dev_bytes));
	expect(v, b, 1, 0);
	/* What is there can be read, rewritten and trimmed, which makes room. */
	assert_int_equal(put(v, IO_PROTECT, 0, 1, 4, 0), IO_OK);
	expect(v, 0, 1, 4);
	assert_int_equal(other(v, IO_TRIM, 0, MAP_PAGE_BLOCKS), IO_OK);
	assert_int_equal(put(v, IO_PROTECT, b, 1, 5, 0), IO_OK);
	expect(v, b, 1, 5);
	bed_close();
}

/* Takes the stripe table's room until less than `left` bytes remain; the entries stay nobody's. */
static uint32_t crowd(struct table *t, uint64_t left)
{
	struct frag_hdr h = {.geo = {.k = 1, .m = 1, .nblocks = 1, .rows = 1}, .len_bytes = 512};
	uint32_t ref = UINT32_MAX;

	while (table_room(t) >= left)
		assert_int_equal(table_add(t, &h, 1, true, &ref), 0);
	return ref;
}

static void a_full_stripe_table_refuses_protected_writes_before_anything_is_written(void **state)
{
	struct store_stats st, before;
	struct volume *v;
	uint32_t last;

	bed_open(6, 2, 1, false);
	v = create("a", 64, VOLUME_COPY, 0);
	assert_int_equal(put(v, IO_PROTECT, 0, 2, 1, 0), IO_OK);
	last = crowd(bed.store->log->table, table_entry_bytes(2));
	store_stats(bed.store, &before);
	assert_true(before.log.table_used_bytes <= before.log.table_max_bytes);
	assert_int_equal(put(v, IO_PROTECT, 0, 1, 2, 0), IO_ERR_NO_SPACE);
	assert_int_equal(bed.events[STORE_EVENT_MAP_FULL], 1);
	store_stats(bed.store, &st);
	assert_memory_equal(st.log.dev_bytes, before.log.dev_bytes, sizeof(st.log.dev_bytes));
	assert_memory_equal(st.data_bytes, before.data_bytes, sizeof(st.data_bytes));
	assert_int_equal(st.log.table_bytes, before.log.table_bytes);
	expect(v, 0, 2, 1);
	/* Plain writes and their records need no entry; one that is freed makes room again. */
	assert_int_equal(put(v, IO_PLAIN, 8, 1, 6, 0), IO_OK);
	expect(v, 8, 1, 6);
	table_del(bed.store->log->table, last);
	assert_int_equal(put(v, IO_PROTECT, 0, 1, 2, 0), IO_OK);
	expect(v, 0, 1, 2);
	expect(v, 1, 1, 1);
	bed_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_dead_data_flash_costs_plain_blocks_and_nothing_else),
		cmocka_unit_test(a_flush_tells_what_a_device_lost_before_it_came_back),
		cmocka_unit_test(
			opening_is_refused_with_the_blocks_named_where_a_stripe_is_lost_and_forced_once),
		cmocka_unit_test(long_lists_of_lost_blocks_end_with_how_many_more),
		cmocka_unit_test(what_may_be_on_missing_devices_alone_is_not_rolled_back_silently),
		cmocka_unit_test(the_data_area_saves_blocks_whose_stripes_are_lost),
		cmocka_unit_test(rotten_data_area_blocks_are_served_from_the_log_and_put_right),
		cmocka_unit_test(a_block_that_rots_in_the_log_is_decoded_and_written_again),
		cmocka_unit_test(
			a_data_area_that_cannot_be_written_leaves_protected_blocks_in_the_log),
		cmocka_unit_test(a_new_volume_in_recycled_space_reads_zeros_and_so_does_its_flash),
		cmocka_unit_test(
			a_full_pool_refuses_new_blocks_and_goes_on_overwriting_reading_and_trimming),
		cmocka_unit_test(
			a_record_waits_for_its_data_unless_the_place_is_known_to_hold_zeros),
		cmocka_unit_test(a_new_piece_is_durable_before_anything_is_said_about_it),
		cmocka_unit_test(a_policy_change_on_a_live_volume_never_shows_an_older_value),
		cmocka_unit_test(more_than_fits_is_pushed_back_and_nothing_is_dropped),
		cmocka_unit_test(wrong_requests_are_refused_with_the_right_status),
		cmocka_unit_test(a_volume_that_cannot_be_is_refused_with_the_field),
		cmocka_unit_test(maps_that_fill_their_memory_refuse_writes_say_so_and_go_on),
		cmocka_unit_test(
			a_full_stripe_table_refuses_protected_writes_before_anything_is_written),
		cmocka_unit_test(records_come_back_as_they_were_and_nonsense_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
