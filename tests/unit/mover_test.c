/* SPDX-License-Identifier: BSD-3-Clause */
/* The mover: every reason, beside VMs that read and write, under virtual time. */
#include "tests/unit/storebed.h"

#include "dpu/mover/mover.h"
#include "dpu/stripelog/stripelog.h"
#include "dpu/volume/move.h"
#include "dpu/volume/store_priv.h"

static struct mover *m;
static unsigned int told[MOVER_STATES];

static void task_told(void *arg, const struct mover_task *t)
{
	told[t->state]++;
}

static void mover_up(void)
{
	assert_int_equal(mover_open(&(struct mover_cfg){.store = sb.store}, &m), 0);
	mover_on_event(m, task_told, NULL);
}

static void open_bed(const struct sb_cfg *cfg)
{
	memset(told, 0, sizeof(told));
	sb_open(cfg);
	mover_up();
}

static void close_bed(void)
{
	mover_close(m);
	sb_check();
	sb_close();
}

static void reopen_bed(uint64_t away)
{
	mover_close(m);
	sb_reopen(away);
	mover_up();
}

static bool is_over(void *arg)
{
	const struct mover_task *t = mover_task_find(m, *(uint32_t *)arg);

	return t->state == MOVER_DONE || t->state == MOVER_FAILED || t->state == MOVER_CANCELLED;
}

static const struct mover_task *finish(uint32_t id)
{
	assert_non_null(mover_task_find(m, id));
	assert_int_equal(shard_wait(sb.sh, is_over, &id, 3600 * 1000000000ull), 0);
	return mover_task_find(m, id);
}

static uint32_t start(enum mover_reason reason, int dev, int vol)
{
	struct mover_job job = {
		.reason = reason, .dev = dev, .volume = vol < 0 ? NULL : sb.vols[vol].v};
	struct err e = {0};
	uint32_t id = 0;
	int rc = mover_start(m, &job, &id, &e);

	if (rc < 0)
		print_message("%s\n", err_text(&e));
	assert_int_equal(rc, 0);
	return id;
}

static const struct mover_task *task_of(enum mover_reason reason)
{
	const struct mover_task *t = NULL;

	while ((t = mover_task_next(m, t)))
		if (t->reason == reason)
			return t;
	return NULL;
}

static bool never(void *arg)
{
	return false;
}

static bool task_is_there(void *arg)
{
	return task_of(*(enum mover_reason *)arg) != NULL;
}

static const struct mover_task *finish_auto(enum mover_reason reason)
{
	assert_int_equal(shard_wait(sb.sh, task_is_there, &reason, 60 * 1000000000ull), 0);
	return finish(task_of(reason)->id);
}

/* ---- a writer beside it: several requests at once, never two on one block ------------------------------------------ */

#define RACERS 8u
static struct racer {
	struct io_req req;
	struct iovec iov;
	uint8_t *buf;
	unsigned int vol;
	uint64_t block;
	uint32_t n;
	bool busy;
} racers[RACERS];
static uint64_t race_writes, race_reads, race_full;
static unsigned int race_outcomes = 1u << IO_PROTECT;

static void race_done(struct io_req *r)
{
	struct racer *x = r->arg;
	uint8_t want[SB_BLOCK];

	x->busy = false;
	if (r->op == IO_READ) {
		race_reads++;
		assert_int_equal(r->status, IO_OK);
		for (uint32_t i = 0; i < x->n; i++) {
			sb_fill(want, x->vol, x->block + i, sb.vols[x->vol].version[x->block + i]);
			assert_memory_equal(x->buf + (size_t)i * SB_BLOCK, want, SB_BLOCK);
		}
		return;
	}
	if (r->status == IO_ERR_NO_SPACE) {
		race_full++;
		return;
	}
	assert_int_equal(r->status, IO_OK);
	race_writes++;
	for (uint32_t i = 0; i < x->n; i++)
		sb.vols[x->vol].version[x->block + i]++;
}

static bool race_free(unsigned int vol, uint64_t block, uint32_t n)
{
	for (unsigned int i = 0; i < RACERS; i++)
		if (racers[i].busy && racers[i].vol == vol &&
			block < racers[i].block + racers[i].n && racers[i].block < block + n)
			return false;
	return true;
}

static void race_submit(struct racer *x, uint32_t max_blocks, uint64_t span)
{
	unsigned int vol = (unsigned int)(shard_random(sb.sh) % sb.nvols);
	uint32_t n = 1 + (uint32_t)(shard_random(sb.sh) % max_blocks);
	uint64_t block = shard_random(sb.sh) % (MIN(span, sb.vols[vol].nblocks) - n + 1);
	bool read = shard_random(sb.sh) % 8 == 0;
	enum io_outcome how;

	do
		how = (enum io_outcome)(shard_random(sb.sh) % 3);
	while (!(race_outcomes >> how & 1));
	if (!race_free(vol, block, n))
		return;
	if (!x->buf)
		x->buf = malloc((size_t)SB_RUN * SB_BLOCK);
	for (uint32_t i = 0; i < n && !read; i++)
		sb_fill(x->buf + (size_t)i * SB_BLOCK, vol, block + i,
			sb.vols[vol].version[block + i] + 1);
	x->iov = (struct iovec){x->buf, (size_t)n * SB_BLOCK};
	x->vol = vol;
	x->block = block;
	x->n = n;
	x->req = (struct io_req){.op = read ? IO_READ : IO_WRITE,
		.off_bytes = block * SB_BLOCK,
		.len_bytes = x->iov.iov_len,
		.iov = &x->iov,
		.niov = 1,
		.stable = true,
		.outcome = how,
		.done_fn = race_done,
		.arg = x};
	if (volume_submit(sb.vols[vol].v, &x->req) == 0)
		x->busy = true;
}

static bool race_over(void *arg)
{
	for (unsigned int i = 0; i < RACERS; i++)
		if (racers[i].busy)
			return false;
	return true;
}

/* Random requests until cond, or so many have been written. */
static void race(
	bool (*cond)(void *arg), void *arg, uint64_t writes, uint32_t max_blocks, uint64_t span)
{
	uint64_t end = race_writes + writes, idle = 0;

	while (race_writes + race_full < end && !(cond && cond(arg))) {
		uint64_t was = race_writes + race_reads + race_full;

		for (unsigned int i = 0; i < RACERS; i++)
			if (!racers[i].busy)
				race_submit(&racers[i], max_blocks, span);
		shard_run_once(sb.sh);
		idle = race_writes + race_reads + race_full == was ? idle + 1 : 0;
		if (idle < 64)
			continue;
		/* Everything waits for something: let time go by. */
		shard_wait(sb.sh, race_over, NULL, 1000000);
		assert_true(idle < 100000);
	}
	assert_int_equal(shard_wait(sb.sh, race_over, NULL, 60 * 1000000000ull), 0);
}

static void race_reset(void)
{
	race_writes = race_reads = race_full = 0;
	race_outcomes = 1u << IO_PROTECT;
	for (unsigned int i = 0; i < RACERS; i++) {
		free(racers[i].buf);
		racers[i] = (struct racer){0};
	}
}

/* ---- rebuild ---------------------------------------------------------------------------------------------------------- */

static bool none_uses(unsigned int dev)
{
	for (unsigned int i = 0; i < sb.nvols; i++)
		for (uint64_t b = 0; b < sb.vols[i].nblocks; b++) {
			struct map_entry e;

			volume_look(sb.vols[i].v, b, 1, &e);
			if (map_in_log(e.state) &&
				(stripelog_uses_dev(store_log(sb.store), e.ref, dev) ||
					stripelog_stripe_degraded(store_log(sb.store), e.ref)))
				return false;
		}
	return true;
}

static void a_failed_device_is_rebuilt_onto_what_is_left_while_vms_write(void **state)
{
	const struct mover_task *t;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 48});
	sb_volume("a", 4096, VOLUME_FRAGMENTS, 0);
	sb_volume("b", 2048, VOLUME_COPY, 1);
	race(NULL, NULL, 600, 32, UINT64_MAX);
	fault_set_gone(sb.f[5], true);
	pool_dev_fail(store_pool(sb.store), 5);
	race(task_is_there, &(enum mover_reason){MOVER_REBUILD}, 100, 8, UINT64_MAX);
	t = task_of(MOVER_REBUILD);
	assert_non_null(t);
	assert_string_equal(t->object, "f5");
	race(is_over, &(uint32_t){t->id}, 20000, 8, UINT64_MAX);
	t = finish(t->id);
	assert_int_equal(t->state, MOVER_DONE);
	assert_int_equal(t->unrecoverable, 0);
	assert_true(t->moved_blocks > 0);
	assert_true(none_uses(5));
	assert_int_equal(stripelog_dev_segments(store_log(sb.store), 5), 0);
	/* So two more may fail. */
	fault_set_gone(sb.f[0], true);
	fault_set_gone(sb.f[3], true);
	sb_expect_all();
	fault_set_gone(sb.f[0], false);
	fault_set_gone(sb.f[3], false);
	close_bed();
}

static void a_spare_takes_the_place_of_a_failed_device(void **state)
{
	struct pool_member mem = {.name = "spare", .domain = "ns"};
	const struct mover_task *t;
	unsigned int dev;

	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 4, .m = 2, .dev_mib = 48});
	sb_volume("a", 2048, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 64; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
	sb.extra = 1;
	mem.flash = sb_flash(6);
	assert_int_equal(pool_dev_add(store_pool(sb.store), &mem, true, false, &dev, NULL), 0);
	assert_int_equal(pool_dev(store_pool(sb.store), dev)->state, POOL_DEV_SPARE);
	fault_set_gone(sb.f[2], true);
	pool_dev_fail(store_pool(sb.store), 2);
	t = finish_auto(MOVER_REBUILD);
	assert_int_equal(t->state, MOVER_DONE);
	assert_int_equal(pool_dev(store_pool(sb.store), dev)->state, POOL_DEV_HEALTHY);
	assert_true(none_uses(2));
	sb_expect_all();
	close_bed();
}

static void what_lost_too_many_devices_is_told_and_the_rest_is_rebuilt(void **state)
{
	const struct mover_task *t;
	struct stripe_shape shape;
	struct map_entry e;

	open_bed(&(struct sb_cfg){.ndevs = 7, .k = 2, .m = 1, .dev_mib = 48});
	sb_volume("a", 1024, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 128; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 8, 8), IO_OK);
	volume_look(sb.vols[0].v, 0, 1, &e);
	assert_int_equal(stripelog_stripe_scheme(store_log(sb.store), e.ref, &shape), 0);
	for (unsigned int i = 0; i < 2; i++) {
		unsigned int d = (unsigned int)__builtin_ctzll(shape.devs);

		shape.devs &= shape.devs - 1;
		fault_set_gone(sb.f[d], true);
		pool_dev_fail(store_pool(sb.store), d);
	}
	t = finish_auto(MOVER_REBUILD);
	assert_int_equal(t->state, MOVER_DONE);
	assert_true(t->unrecoverable > 0 && t->unrecoverable < 1024);
	assert_non_null(strstr(t->text, "unrecoverable"));
	mover_close(m);
	sb_close();
}

/* ---- scrub ---------------------------------------------------------------------------------------------------------------- */

static void a_scrub_finds_and_repairs_what_is_not_as_it_was_written(void **state)
{
	static uint8_t junk[16 * SB_BLOCK];
	struct volume *v;
	const struct mover_task *t;
	unsigned int dev;
	uint32_t id;

	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 3, .m = 2, .dev_mib = 48});
	sb_volume("a", 1024, VOLUME_COPY, 0);
	sb_volume("b", 1024, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 32; i++) {
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
		assert_int_equal(sb_write(1, IO_PROTECT, i * 32, 32), IO_OK);
	}
	t = finish(start(MOVER_SCRUB, POOL_DEV_NONE, -1));
	assert_int_equal(t->state, MOVER_DONE);
	assert_int_equal(t->found, 0);
	/* A piece of the data area, and what is at the start of a group's segment on another device. */
	memset(junk, 0x5a, sizeof(junk));
	v = sb.vols[0].v;
	dev = area_piece(v, AREA_DATA, 100)->dev;
	assert_int_equal(
		flash_rw_sync(sb.f[dev], FLASH_WRITE,
			area_off(v, area_piece(v, AREA_DATA, 100), 100), junk, 3 * SB_BLOCK),
		0);
	for (uint32_t seg = 1; seg < 40; seg++)
		if (pool_segment_use(store_pool(sb.store), 4, seg) == POOL_LOG)
			assert_int_equal(
				flash_rw_sync(sb.f[4], FLASH_WRITE,
					pool_segment_off(store_pool(sb.store), seg) + 32 * SB_BLOCK,
					junk, sizeof(junk)),
				0);
	id = start(MOVER_SCRUB, POOL_DEV_NONE, -1);
	t = finish(id);
	assert_int_equal(t->state, MOVER_DONE);
	assert_true(t->found >= 4);
	assert_true(t->repaired >= 4);
	assert_int_equal(t->unrecoverable, 0);
	t = finish(start(MOVER_SCRUB, POOL_DEV_NONE, -1));
	assert_int_equal(t->found, 0);
	sb_expect_all();
	close_bed();
}

static void a_scrub_comes_by_itself_when_its_time_has_come(void **state)
{
	struct mover_settings s;

	open_bed(&(struct sb_cfg){.ndevs = 4, .k = 2, .m = 1});
	sb_volume("a", 256, VOLUME_FRAGMENTS, 0);
	assert_int_equal(sb_write(0, IO_PROTECT, 0, 64), IO_OK);
	mover_settings(m, &s);
	assert_int_equal(s.scrub_interval_s, MOVER_SCRUB_DEFAULT_S);
	s.scrub_interval_s = 30;
	assert_int_equal(mover_set(m, &s, NULL), 0);
	assert_int_equal(finish_auto(MOVER_SCRUB)->state, MOVER_DONE);
	reopen_bed(0);
	mover_settings(m, &s);
	assert_int_equal(s.scrub_interval_s, 30);
	close_bed();
}

/* A device fails, loses what it had in its cache, and is back. */
static void a_device_that_is_back_is_checked_before_it_counts(void **state)
{
	static uint8_t junk[16 * SB_BLOCK];
	struct mover_settings s;
	const struct mover_task *t;
	struct pool *p;

	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 3, .m = 2, .dev_mib = 48});
	p = store_pool(sb.store);
	mover_settings(m, &s);
	s.rebuild_delay_s = 3600;
	s.scrub_interval_s = 0;
	assert_int_equal(mover_set(m, &s, NULL), 0);
	sb_volume("a", 1024, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
	pool_dev_fail(p, 4);
	for (uint32_t seg = 1; seg < 40; seg++)
		if (pool_segment_use(p, 4, seg) == POOL_LOG)
			assert_int_equal(flash_rw_sync(sb.f[4], FLASH_WRITE,
						 pool_segment_off(p, seg) + 32 * SB_BLOCK, junk,
						 sizeof(junk)),
				0);
	assert_int_equal(pool_dev_return(p, 4, NULL, NULL), 0);
	assert_true(mover_dev_in_doubt(m, 4));
	assert_false(mover_dev_in_doubt(m, 3));
	/* Durable: so it is after a restart. */
	reopen_bed(0);
	p = store_pool(sb.store);
	assert_true(mover_dev_in_doubt(m, 4));
	t = finish_auto(MOVER_SCRUB);
	assert_int_equal(t->state, MOVER_DONE);
	assert_string_equal(t->object, "f4");
	assert_true(t->found > 0);
	assert_int_equal(t->repaired, t->found);
	assert_int_equal(t->unrecoverable, 0);
	assert_false(mover_dev_in_doubt(m, 4));
	assert_int_equal(pool_dev(p, 4)->state, POOL_DEV_HEALTHY);
	/* Now it counts: any two others may go. */
	pool_dev_fail(p, 0);
	pool_dev_fail(p, 1);
	sb_expect_all();
	close_bed();
}

/* The doubt is not over when it fails again in the midst of it. */
static void a_device_that_fails_again_stays_in_doubt(void **state)
{
	struct mover_limits l = {.share_percent = 20, .ceiling_bytes_per_s = 64 << 10};
	struct mover_settings s;
	const struct mover_task *t;
	struct pool *p;
	uint32_t id;

	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 3, .m = 2, .dev_mib = 48});
	p = store_pool(sb.store);
	mover_settings(m, &s);
	s.rebuild_delay_s = 3600;
	assert_int_equal(mover_set(m, &s, NULL), 0);
	sb_volume("a", 1024, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
	assert_int_equal(mover_set_limits(m, &l, NULL), 0);
	pool_dev_fail(p, 2);
	assert_int_equal(pool_dev_return(p, 2, NULL, NULL), 0);
	assert_int_equal(shard_wait(sb.sh, task_is_there, &(enum mover_reason){MOVER_SCRUB}, 0), 0);
	t = task_of(MOVER_SCRUB);
	id = t->id;
	assert_int_equal(shard_wait(sb.sh, is_over, &id, 5 * 1000000000ull), -ETIMEDOUT);
	pool_dev_fail(p, 2);
	assert_int_equal(pool_dev_return(p, 2, NULL, NULL), 0);
	assert_int_equal(shard_wait(sb.sh, is_over, &id, 5 * 1000000000ull), 0);
	t = mover_task_find(m, id);
	assert_non_null(strstr(t->text, "failed again"));
	assert_true(mover_dev_in_doubt(m, 2));
	/* Another one begins, and ends it. */
	l.ceiling_bytes_per_s = 0;
	assert_int_equal(mover_set_limits(m, &l, NULL), 0);
	assert_int_equal(shard_wait(sb.sh, never, NULL, 60 * 1000000000ull), -ETIMEDOUT);
	assert_false(mover_dev_in_doubt(m, 2));
	assert_int_equal(pool_dev(p, 2)->state, POOL_DEV_HEALTHY);
	sb_expect_all();
	close_bed();
}

/* ---- protect ---------------------------------------------------------------------------------------------------------------- */

static void check_schemes(unsigned int vol, struct ec_scheme want)
{
	for (uint64_t b = 0; b < sb.vols[vol].nblocks; b++) {
		struct stripe_shape shape;
		struct map_entry e;

		volume_look(sb.vols[vol].v, b, 1, &e);
		if (!map_in_log(e.state))
			continue;
		assert_int_equal(stripelog_stripe_scheme(store_log(sb.store), e.ref, &shape), 0);
		assert_int_equal(shape.scheme_k, want.k);
		assert_int_equal(shape.scheme_m, want.m);
	}
}

static void a_volume_changes_its_scheme_and_its_layout_and_back_in_use(void **state)
{
	struct ec_scheme narrow = {2, 1}, wide = {4, 2};
	struct volume *v;
	uint32_t id;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 64});
	sb_volume("a", 2048, VOLUME_COPY, 0);
	race(NULL, NULL, 300, 16, UINT64_MAX);
	v = sb.vols[0].v;
	for (unsigned int round = 0; round < 2; round++) {
		assert_int_equal(volume_set_scheme(v, round ? wide : narrow, NULL), 0);
		assert_int_equal(
			volume_set_layout(v, round ? VOLUME_COPY : VOLUME_FRAGMENTS, NULL), 0);
		id = start(MOVER_PROTECT, POOL_DEV_NONE, 0);
		race(is_over, &id, 20000, 8, UINT64_MAX);
		assert_int_equal(finish(id)->state, MOVER_DONE);
		check_schemes(0, round ? wide : narrow);
		assert_int_equal(sb_blocks_in(0, round ? BLOCK_LOG : BLOCK_DATA_LOG), 0);
		sb_expect_all();
		reopen_bed(0);
		v = sb.vols[0].v;
		sb_expect_all();
	}
	reopen_bed(1ull << 0 | 1ull << 4);
	sb_expect_all();
	close_bed();
}

static void plain_data_becomes_protected(void **state)
{
	struct mover_job job = {.reason = MOVER_PROTECT, .dev = POOL_DEV_NONE, .plain_too = true};
	uint32_t id;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 3, .m = 2, .dev_mib = 48});
	sb_volume("a", 1024, VOLUME_COPY, 0);
	race_outcomes = 7;
	race(NULL, NULL, 200, 16, UINT64_MAX);
	assert_true(sb_blocks_in(0, BLOCK_DATA) > 0);
	assert_true(sb_blocks_in(0, BLOCK_INTERMEDIATE) > 0);
	job.volume = sb.vols[0].v;
	assert_int_equal(mover_start(m, &job, &id, NULL), 0);
	race_outcomes = 1u << IO_PROTECT;
	race(is_over, &id, 5000, 8, UINT64_MAX);
	assert_int_equal(finish(id)->state, MOVER_DONE);
	assert_int_equal(sb_blocks_in(0, BLOCK_DATA), 0);
	assert_int_equal(sb_blocks_in(0, BLOCK_INTERMEDIATE), 0);
	assert_int_equal(sb_blocks_in(0, BLOCK_LOG), 0);
	reopen_bed(1ull << 0 | 1ull << 2);
	sb_expect_all();
	close_bed();
}

/* ---- evacuate, restore -------------------------------------------------------------------------------------------------------- */

static bool is_quiet(void *flash)
{
	return !flash_in_flight(flash);
}

static void a_device_is_evacuated_and_removed_while_vms_write(void **state)
{
	const struct mover_task *t;
	struct err e = {0};
	uint32_t id;
	int rc;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 64});
	sb_volume("a", 2048, VOLUME_COPY, 3);
	sb_volume("b", 1024, VOLUME_FRAGMENTS, 2);
	race_outcomes = 7;
	race(NULL, NULL, 400, 16, UINT64_MAX);
	id = start(MOVER_EVACUATE, 3, -1);
	assert_int_equal(pool_dev(store_pool(sb.store), 3)->state, POOL_DEV_EVACUATING);
	race(is_over, &id, 20000, 8, UINT64_MAX);
	t = finish(id);
	print_message(
		"evacuate: %s, moved %llu blocks\n", t->text, (unsigned long long)t->moved_blocks);
	assert_int_equal(t->state, MOVER_DONE);
	assert_int_not_equal(volume_cfg(sb.vols[0].v)->data_dev, 3);
	/* The root of a checkpoint that the writes have brought about may be on its way there, which removal does not wait for. */
	assert_int_equal(shard_wait(sb.sh, is_quiet, sb.f[3], 1000000000ull), 0);
	rc = pool_dev_remove(store_pool(sb.store), 3, &e);
	if (rc < 0)
		print_message("%s\n", err_text(&e));
	assert_int_equal(rc, 0);
	sb_expect_all();
	race(NULL, NULL, 100, 16, UINT64_MAX);
	sb_expect_all();
	close_bed();
}

static void an_evacuation_without_room_is_refused(void **state)
{
	struct mover_job job = {.reason = MOVER_EVACUATE, .dev = 1};
	struct err e = {0};

	open_bed(&(struct sb_cfg){.ndevs = 4, .k = 2, .m = 2});
	assert_int_equal(mover_start(m, &job, NULL, &e), -EINVAL);
	assert_non_null(strstr(e.reason, "would be left"));
	assert_int_equal(pool_dev(store_pool(sb.store), 1)->state, POOL_DEV_HEALTHY);
	job.dev = 9;
	assert_int_equal(mover_start(m, &job, NULL, NULL), -EINVAL);
	job = (struct mover_job){.reason = MOVER_REBUILD, .dev = 1};
	assert_int_equal(mover_start(m, &job, NULL, NULL), -EINVAL);
	job = (struct mover_job){.reason = MOVER_PROTECT, .dev = POOL_DEV_NONE};
	assert_int_equal(mover_start(m, &job, NULL, NULL), -EINVAL);
	assert_int_equal(mover_pause(m, 77, NULL), -ENOENT);
	close_bed();
}

static void a_data_area_whose_device_died_is_restored_elsewhere(void **state)
{
	const struct mover_task *t;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 64});
	sb_volume("a", 2048, VOLUME_COPY, 3);
	race(NULL, NULL, 400, 16, UINT64_MAX);
	fault_set_gone(sb.f[3], true);
	pool_dev_fail(store_pool(sb.store), 3);
	race(task_is_there, &(enum mover_reason){MOVER_RESTORE}, 1000, 8, UINT64_MAX);
	t = task_of(MOVER_RESTORE);
	assert_non_null(t);
	race(is_over, &(uint32_t){t->id}, 20000, 8, UINT64_MAX);
	t = finish(t->id);
	assert_int_equal(t->state, MOVER_DONE);
	assert_int_equal(t->unrecoverable, 0);
	assert_int_equal(sb_blocks_in(0, BLOCK_LOG), 0);
	assert_int_not_equal(volume_cfg(sb.vols[0].v)->data_dev, 3);
	finish_auto(MOVER_REBUILD);
	assert_true(none_uses(3));
	sb_expect_all();
	reopen_bed(1ull << 3);
	sb_expect_all();
	close_bed();
}

static void unprotected_data_waits_for_its_device_until_it_is_given_up(void **state)
{
	const struct mover_task *t;
	struct err e = {0};

	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 64});
	sb_volume("a", 1024, VOLUME_COPY, 3);
	assert_int_equal(sb_write(0, IO_PLAIN, 0, 16), IO_OK);
	assert_int_equal(sb_write(0, IO_PROTECT, 16, 16), IO_OK);
	assert_int_equal(sb_write(0, IO_PROTECT, 512, 32), IO_OK); /* another piece */
	fault_set_gone(sb.f[3], true);
	pool_dev_fail(store_pool(sb.store), 3);
	t = finish_auto(MOVER_RESTORE);
	assert_int_equal(t->state, MOVER_DONE);
	assert_int_equal(t->unrecoverable, 0);
	assert_int_equal(shard_wait(sb.sh, never, NULL, 60 * 1000000000ull), -ETIMEDOUT);
	assert_int_equal(sb_blocks_in(0, BLOCK_DATA), 16);
	assert_int_equal(piece_count(sb.store, 3), 1);
	/* It is back, with everything. */
	fault_set_gone(sb.f[3], false);
	assert_int_equal(pool_dev_return(store_pool(sb.store), 3, NULL, &e), 0);
	sb_expect_all();
	/* Gone again, and this time for good. */
	fault_set_gone(sb.f[3], true);
	pool_dev_fail(store_pool(sb.store), 3);
	shard_wait(sb.sh, never, NULL, 60 * 1000000000ull);
	t = finish(start(MOVER_RESTORE, POOL_DEV_NONE, 0));
	assert_int_equal(t->unrecoverable, 16);
	assert_int_equal(piece_count(sb.store, 3), 0);
	assert_int_equal(sb_read(0, 5, 1), IO_ERR_MEDIA);
	sb_expect(0, 16, 1008);
	assert_int_equal(sb_write(0, IO_PLAIN, 0, 16), IO_OK);
	sb_expect_all();
	close_bed();
}

/* ---- tasks -------------------------------------------------------------------------------------------------------------------- */

static void a_task_goes_on_after_a_restart_and_can_be_paused(void **state)
{
	struct mover_limits l = {.share_percent = 20, .ceiling_bytes_per_s = 256 << 10};
	const struct mover_task *t;
	struct ec_scheme narrow = {2, 1};
	uint64_t done;
	uint32_t id;

	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 48});
	sb_volume("a", 4096, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 128; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
	assert_int_equal(mover_set_limits(m, &l, NULL), 0);
	assert_int_equal(volume_set_scheme(sb.vols[0].v, narrow, NULL), 0);
	id = start(MOVER_PROTECT, POOL_DEV_NONE, 0);
	/* 16 MiB at a quarter of a MiB a second. */
	assert_int_equal(shard_wait(sb.sh, is_over, &id, 20 * 1000000000ull), -ETIMEDOUT);
	t = mover_task_find(m, id);
	done = t->moved_bytes;
	assert_true(done > 3 << 20 && done < 8 << 20);
	assert_true(t->eta_s != UINT64_MAX);
	assert_int_equal(mover_pause(m, id, NULL), 0);
	assert_int_equal(shard_wait(sb.sh, is_over, &id, 20 * 1000000000ull), -ETIMEDOUT);
	assert_int_equal(mover_task_find(m, id)->state, MOVER_PAUSED);
	assert_int_equal(mover_pause(m, id, NULL), -EINVAL);
	reopen_bed(0);
	t = mover_task_find(m, id);
	assert_non_null(t);
	assert_int_equal(t->state, MOVER_PAUSED);
	assert_string_equal(t->object, "a");
	assert_true(t->moved_bytes >= done);
	mover_limits(m, &l);
	assert_int_equal(l.ceiling_bytes_per_s, 256 << 10);
	assert_int_equal(mover_resume(m, id, NULL), 0);
	assert_int_equal(shard_wait(sb.sh, is_over, &id, 5 * 1000000000ull), -ETIMEDOUT);
	reopen_bed(0);
	assert_int_equal(mover_task_find(m, id)->state, MOVER_RUNNING);
	l.ceiling_bytes_per_s = 0;
	assert_int_equal(mover_set_limits(m, &l, NULL), 0);
	assert_int_equal(finish(id)->state, MOVER_DONE);
	check_schemes(0, narrow);
	sb_expect_all();
	reopen_bed(0);
	assert_null(mover_task_find(m, id));
	assert_true(start(MOVER_SCRUB, POOL_DEV_NONE, -1) > id);
	close_bed();
}

static void a_task_can_be_cancelled(void **state)
{
	struct mover_limits l = {.share_percent = 20, .ceiling_bytes_per_s = 64 << 10};
	uint32_t id;

	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 2, .m = 1, .dev_mib = 48});
	sb_volume("a", 1024, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 32; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
	assert_int_equal(mover_set_limits(m, &l, NULL), 0);
	id = start(MOVER_EVACUATE, 2, -1);
	assert_int_equal(
		mover_start(m, &(struct mover_job){.reason = MOVER_EVACUATE, .dev = 2}, &id, NULL),
		-EEXIST);
	assert_int_equal(mover_cancel(m, id, NULL), 0);
	assert_int_equal(finish(id)->state, MOVER_CANCELLED);
	assert_int_equal(pool_dev(store_pool(sb.store), 2)->state, POOL_DEV_HEALTHY);
	assert_int_equal(mover_cancel(m, id, NULL), -EINVAL);
	assert_true(told[MOVER_CANCELLED] == 1);
	sb_expect_all();
	close_bed();
}

static void a_task_takes_its_share_beside_the_foreground(void **state)
{
	struct mover_limits l = {.share_percent = 10};
	struct ec_scheme narrow = {2, 1};
	const struct mover_task *t;
	struct volume_stats st;
	uint64_t before, fg;
	uint32_t id;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 96});
	sb_volume("a", 8192, VOLUME_FRAGMENTS, 0);
	for (unsigned int i = 0; i < 256; i++)
		assert_int_equal(sb_write(0, IO_PROTECT, i * 32, 32), IO_OK);
	assert_int_equal(mover_set_limits(m, &l, NULL), 0);
	assert_int_equal(volume_set_scheme(sb.vols[0].v, narrow, NULL), 0);
	volume_stats(sb.vols[0].v, &st);
	before = st.read_bytes + st.write_bytes[IO_PROTECT];
	id = start(MOVER_PROTECT, POOL_DEV_NONE, 0);
	race(is_over, &id, 2000, 16, UINT64_MAX);
	volume_stats(sb.vols[0].v, &st);
	fg = st.read_bytes + st.write_bytes[IO_PROTECT] - before;
	t = mover_task_find(m, id);
	print_message("foreground %llu KiB, moved %llu KiB\n", (unsigned long long)fg >> 10,
		(unsigned long long)t->moved_bytes >> 10);
	/* A tenth, but for what is saved up at the start and the batches under way at the end. */
	assert_true(t->moved_bytes <= fg / 10 + (10 << 20));
	assert_true(t->moved_bytes >= fg / 20);
	finish(id);
	close_bed();
}

/* ---- clean ----------------------------------------------------------------------------------------------------------------------- */

struct flow {
	uint64_t user, log;
};

static struct flow flow_now(void)
{
	struct store_stats st;
	struct flow f = {0};

	store_stats(sb.store, &st);
	for (unsigned int d = 0; d < POOL_DEVS_MAX; d++)
		f.log += st.log.dev_bytes[d];
	for (unsigned int i = 0; i < sb.nvols; i++) {
		struct volume_stats vs;

		volume_stats(sb.vols[i].v, &vs);
		f.user += vs.write_bytes[IO_PROTECT];
	}
	return f;
}

/* Fills the volume until the log takes no more, in order; how many blocks it took. */
static uint64_t fill_until_full(unsigned int vol, unsigned int step)
{
	uint64_t b = 0;

	while (b + step <= sb.vols[vol].nblocks) {
		enum io_status st = sb_write(vol, IO_PROTECT, b, step);

		if (st == IO_ERR_NO_SPACE)
			break;
		assert_int_equal(st, IO_OK);
		b += step;
	}
	return b;
}

static void a_full_pool_can_be_overwritten_for_ever(void **state)
{
	enum io_status st = IO_OK;
	struct log_space sp;
	struct flow a, b;
	uint64_t n;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 4, .m = 2, .dev_mib = 48});
	sb_volume("a", 65536, VOLUME_FRAGMENTS, 0);
	n = fill_until_full(0, 16);
	stripelog_space(store_log(sb.store), &sp);
	print_message("full at %llu blocks: capacity %llu limit %llu live %llu free %llu MiB\n",
		(unsigned long long)n, (unsigned long long)sp.capacity_bytes >> 20,
		(unsigned long long)sp.limit_bytes >> 20, (unsigned long long)sp.live_bytes >> 20,
		(unsigned long long)sp.free_bytes >> 20);
	assert_true(n > 1024);
	assert_true(n < 65536);
	/* Pausing the cleaner does not make the pool full: it goes on when somebody waits. */
	assert_int_equal(mover_pause(m, 1, NULL), 0);
	a = flow_now();
	race(NULL, NULL, 4000, 16, n);
	assert_int_equal(race_full, 0);
	b = flow_now();
	print_message("100 %%: %llu MiB written, amplification %.2f\n",
		(unsigned long long)(b.user - a.user) >> 20,
		(double)(b.log - a.log) / (double)(b.user - a.user));
	sb_expect(0, 0, (unsigned int)n);
	/* Not much that is new, though. */
	while (n < 40000 && (st = sb_write(0, IO_PROTECT, n, 1)) == IO_OK)
		n++;
	assert_int_equal(st, IO_ERR_NO_SPACE);
	close_bed();
}

/* Copies in data areas on several devices: as many ways through the log, each with open groups of its own. */
static void a_full_pool_of_copies_can_be_overwritten_for_ever(void **state)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	uint64_t n[4];
	bool more = true;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 8, .k = 4, .m = 2, .dev_mib = 80});
	for (unsigned int i = 0; i < 4; i++) {
		sb_volume(names[i], 32768, VOLUME_COPY, (int)i * 2);
		n[i] = 0;
	}
	while (more) {
		more = false;
		for (unsigned int i = 0; i < 4; i++) {
			if (n[i] + 16 > sb.vols[i].nblocks ||
				sb_write(i, IO_PROTECT, n[i], 16) != IO_OK)
				continue;
			n[i] += 16;
			more = true;
		}
	}
	for (unsigned int i = 0; i < 4; i++) {
		print_message("%s: %llu blocks\n", names[i], (unsigned long long)n[i]);
		assert_true(n[i] > 1024);
		sb.vols[i].nblocks = n[i]; /* the race stays within what is there */
	}
	race(NULL, NULL, 3000, 16, UINT64_MAX);
	assert_int_equal(race_full, 0);
	sb_expect_all();
	close_bed();
}

static double amplification(unsigned int percent, unsigned int rounds)
{
	struct log_space sp;
	struct flow a, b;
	uint64_t n, per;

	race_reset();
	open_bed(&(struct sb_cfg){.ndevs = 6, .k = 4, .m = 2, .dev_mib = 80});
	sb_volume("a", 65536, VOLUME_FRAGMENTS, 0);
	stripelog_space(store_log(sb.store), &sp);
	for (n = 0; sp.live_bytes * 100 < sp.limit_bytes * percent; n += 64) {
		assert_int_equal(sb_write(0, IO_PROTECT, n, 64), IO_OK);
		stripelog_space(store_log(sb.store), &sp);
	}
	per = n / 32;
	race(NULL, NULL, 2 * per, 64, n); /* until it is steady */
	a = flow_now();
	race(NULL, NULL, rounds * per, 64, n);
	b = flow_now();
	assert_int_equal(race_full, 0);
	sb_expect(0, 0, (unsigned int)n);
	close_bed();
	return (double)(b.log - a.log) / (double)(b.user - a.user);
}

static void cleaning_costs_what_theory_says(void **state)
{
	double none = amplification(5, 10), at85 = amplification(85, 2);

	print_message("amplification: none %.2f, 85 %% %.2f (x%.2f)\n", none, at85, at85 / none);
	assert_true(at85 / none <= 4);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failed_device_is_rebuilt_onto_what_is_left_while_vms_write),
		cmocka_unit_test(a_spare_takes_the_place_of_a_failed_device),
		cmocka_unit_test(what_lost_too_many_devices_is_told_and_the_rest_is_rebuilt),
		cmocka_unit_test(a_scrub_finds_and_repairs_what_is_not_as_it_was_written),
		cmocka_unit_test(a_scrub_comes_by_itself_when_its_time_has_come),
		cmocka_unit_test(a_device_that_is_back_is_checked_before_it_counts),
		cmocka_unit_test(a_device_that_fails_again_stays_in_doubt),
		cmocka_unit_test(a_volume_changes_its_scheme_and_its_layout_and_back_in_use),
		cmocka_unit_test(plain_data_becomes_protected),
		cmocka_unit_test(a_device_is_evacuated_and_removed_while_vms_write),
		cmocka_unit_test(an_evacuation_without_room_is_refused),
		cmocka_unit_test(a_data_area_whose_device_died_is_restored_elsewhere),
		cmocka_unit_test(unprotected_data_waits_for_its_device_until_it_is_given_up),
		cmocka_unit_test(a_task_goes_on_after_a_restart_and_can_be_paused),
		cmocka_unit_test(a_task_can_be_cancelled),
		cmocka_unit_test(a_task_takes_its_share_beside_the_foreground),
		cmocka_unit_test(a_full_pool_can_be_overwritten_for_ever),
		cmocka_unit_test(a_full_pool_of_copies_can_be_overwritten_for_ever),
		cmocka_unit_test(cleaning_costs_what_theory_says),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
