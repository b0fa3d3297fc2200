/* SPDX-License-Identifier: BSD-3-Clause */
/* Members come, fail, leave and come back; openings are cut off; other owners appear. */
#include "tests/unit/logbed.h"

#include "dpu/pool/checkpoint.h"
#include "dpu/pool/superblock.h"

static struct bed bed(void)
{
	return bed_create(BED_4_2);
}

static void reopen(struct bed *b, uint32_t without)
{
	struct err err;

	bed_stop(b);
	if (bed_reopen(b, without, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static int no_section(void *arg, uint16_t type, const void *body, uint32_t len)
{
	return -ERANGE;
}

/* As an opening does. */
static void begin(struct bed *b)
{
	struct err err;

	if (ckpt_load(b->pool, no_section, NULL, &err) < 0 || pool_epoch_begin(b->pool, &err) < 0 ||
		ckpt_settle(b->pool, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static void idle(struct bed *b)
{
	while (shard_run_once(b->sh))
		;
}

static void rule(struct bed *b, unsigned int dev, enum flash_op op, uint64_t off, uint64_t len)
{
	struct fault_rule r = {.op = op,
		.off = off,
		.len = len,
		.per_million = 1000000,
		.status = FLASH_ERR_MEDIA};

	assert_true(fault_rule_add(b->flash[dev], &r) >= 0);
}

/* A device that is no member: beds have numbers 0 to 7. */
static struct pool_member other(struct bed *b, unsigned int i, const char *name)
{
	struct pool_member m = {0};

	m.flash = bed_flash(b, i);
	snprintf(m.name, sizeof(m.name), "%s", name);
	snprintf(m.domain, sizeof(m.domain), "n%u", i);
	return m;
}

/* Opens the bed's devices and further ones. */
static void reopen_with(struct bed *b, uint32_t without, unsigned int from, unsigned int to)
{
	struct pool_member m[BED_DEVS_MAX];
	unsigned int n = 0;
	struct err err;

	for (unsigned int i = 0; i < to; i++) {
		if (i >= 8 && i < from)
			continue;
		if (without >> i & 1)
			continue;
		b->flash[i] = bed_flash(b, i);
		bed_member(b, i, &m[n++]);
	}
	if (pool_open(b->sh, m, n, &b->pool, &err) < 0)
		fail_msg("%s", err_text(&err));
	bed_log_open(b);
}

/* ---- states --------------------------------------------------------------------------------------------------------- */

static void a_failed_member_stays_failed_until_it_is_returned(void **state)
{
	struct bed b = bed();
	struct err err;

	pool_dev_fail(b.pool, 3);
	idle(&b);
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 3)->state, POOL_DEV_FAILED);
	assert_true(pool_dev(b.pool, 3)->why[0]);
	assert_false(pool_dev_usable(b.pool, 3));
	begin(&b);
	reopen(&b, 0);
	begin(&b);
	assert_int_equal(pool_dev(b.pool, 3)->state, POOL_DEV_FAILED);
	assert_int_equal(pool_dev_return(b.pool, 3, NULL, &err), 0);
	assert_int_equal(pool_dev(b.pool, 3)->state, POOL_DEV_REBUILDING);
	assert_int_equal(pool_dev(b.pool, 3)->epoch_seen, 1);
	assert_int_equal(pool_dev_return(b.pool, 3, NULL, &err), -EBUSY);
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 3)->state, POOL_DEV_REBUILDING);
	assert_int_equal(pool_dev(b.pool, 3)->epoch_seen, 3);
	bed_close(&b);
}

static void what_was_taken_out_of_service_while_it_was_away_stays_so(void **state)
{
	struct bed b = bed();
	struct err err;

	reopen(&b, 0x48);
	begin(&b);
	pool_dev_fail_for(b.pool, 3, POOL_CAUSE_OPERATOR);
	idle(&b);
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 3)->state, POOL_DEV_FAILED);
	assert_int_equal(pool_dev(b.pool, 3)->cause, POOL_CAUSE_OPERATOR);
	assert_int_equal(pool_dev(b.pool, 6)->state, POOL_DEV_HEALTHY);
	begin(&b);
	assert_int_equal(pool_dev_return(b.pool, 3, NULL, &err), 0);
	/* Nor is one that had failed any better for having been away. */
	pool_dev_fail_for(b.pool, 5, POOL_CAUSE_ERRORS);
	idle(&b);
	reopen(&b, 0x20);
	begin(&b);
	assert_int_equal(pool_dev(b.pool, 5)->state, POOL_DEV_MISSING);
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 5)->state, POOL_DEV_FAILED);
	assert_int_equal(pool_dev(b.pool, 5)->cause, POOL_CAUSE_ERRORS);
	bed_close(&b);
}

static void more_failures_than_m_are_a_path_not_devices(void **state)
{
	struct bed b = bed();

	for (unsigned int d = 0; d < 3; d++)
		pool_dev_fail(b.pool, d);
	idle(&b);
	reopen(&b, 0);
	for (unsigned int d = 0; d < 3; d++)
		assert_int_equal(pool_dev(b.pool, d)->state, POOL_DEV_REBUILDING);
	begin(&b);
	for (unsigned int d = 0; d < 2; d++)
		pool_dev_fail(b.pool, d);
	idle(&b);
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 0)->state, POOL_DEV_FAILED);
	/* With one missing besides they are needed. */
	reopen(&b, 0x10);
	assert_int_equal(pool_dev(b.pool, 0)->state, POOL_DEV_REBUILDING);
	assert_int_equal(pool_dev(b.pool, 4)->state, POOL_DEV_MISSING);
	bed_close(&b);
}

static void states_are_remembered_and_placement_heeds_them(void **state)
{
	struct bed b = bed();
	struct err err;
	uint8_t devs[8];
	uint32_t seg;

	assert_int_equal(pool_dev_set_state(b.pool, 1, POOL_DEV_SPARE, &err), 0);
	assert_int_equal(pool_dev_set_state(b.pool, 2, POOL_DEV_EVACUATING, &err), 0);
	assert_int_equal(pool_dev_set_state(b.pool, 3, POOL_DEV_SUSPECT, &err), 0);
	assert_int_equal(pool_dev_set_state(b.pool, 4, POOL_DEV_REBUILDING, &err), 0);
	assert_int_equal(pool_dev_set_state(b.pool, 5, POOL_DEV_MISSING, &err), -EINVAL);
	assert_int_equal(pool_dev_set_state(b.pool, 5, POOL_DEV_REMOVED, &err), -EINVAL);
	assert_true(pool_dev_usable(b.pool, 1) && pool_dev_usable(b.pool, 2) &&
		    pool_dev_usable(b.pool, 3));
	assert_int_equal(pool_segment_alloc(b.pool, 1, POOL_LOG, POOL_FOR_META, &seg), -ENODEV);
	assert_int_equal(pool_segment_alloc(b.pool, 2, POOL_LOG, POOL_FOR_META, &seg), -ENODEV);
	assert_int_equal(pool_place(b.pool, 5, POOL_DEV_NONE, POOL_FOR_USER, devs), 5);
	for (unsigned int i = 0; i < 5; i++)
		assert_true(devs[i] != 1 && devs[i] != 2 && devs[i] != 3);
	/* The suspect comes last; spare and evacuating not at all. */
	assert_int_equal(pool_place(b.pool, 8, POOL_DEV_NONE, POOL_FOR_USER, devs), 6);
	assert_int_equal(devs[5], 3);
	assert_int_equal(pool_segment_alloc(b.pool, 6, POOL_DATA, POOL_FOR_USER, &seg), 0);
	assert_int_equal(pool_dev_set_state(b.pool, 6, POOL_DEV_SPARE, &err), -EBUSY);
	idle(&b);
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 1)->state, POOL_DEV_SPARE);
	assert_int_equal(pool_dev(b.pool, 2)->state, POOL_DEV_EVACUATING);
	assert_int_equal(pool_dev(b.pool, 3)->state, POOL_DEV_HEALTHY);
	assert_int_equal(pool_dev(b.pool, 4)->state, POOL_DEV_REBUILDING);
	bed_close(&b);
}

static void opening_alone_writes_nothing(void **state)
{
	struct bed b = bed();
	struct flash_stats st;
	struct err err;

	reopen(&b, 0);
	assert_int_equal(pool_dev_set_state(b.pool, 1, POOL_DEV_SUSPECT, &err), 0);
	assert_int_equal(pool_set(b.pool, pool_cfg(b.pool), &err), -EINVAL);
	assert_int_equal(ckpt_load(b.pool, no_section, NULL, &err), 0);
	idle(&b);
	for (unsigned int d = 0; d < 8; d++) {
		flash_stats(b.flash[d], &st);
		assert_int_equal(st.writes + st.flushes, 0);
	}
	bed_close(&b);
}

/* ---- coming and going ----------------------------------------------------------------------------------------------- */

static void a_new_member_joins_for_good(void **state)
{
	struct bed b = bed();
	struct pool_member m = other(&b, 8, "f8");
	struct pool_member same = other(&b, 9, "f3");
	unsigned int dev = 99;
	struct err err;
	uint32_t seg;

	assert_int_equal(pool_dev_add(b.pool, &same, false, false, &dev, &err), -EEXIST);
	assert_string_equal(err.field, "name");
	flash_close(same.flash);
	assert_int_equal(pool_dev_add(b.pool, &m, true, false, &dev, &err), 0);
	assert_int_equal(dev, 8);
	b.flash[8] = m.flash;
	assert_int_equal(pool_ndevs(b.pool), 9);
	assert_int_equal(pool_dev(b.pool, 8)->state, POOL_DEV_SPARE);
	assert_int_equal(pool_dev_set_state(b.pool, 8, POOL_DEV_HEALTHY, &err), 0);
	assert_int_equal(pool_segment_alloc(b.pool, 8, POOL_LOG, POOL_FOR_USER, &seg), 0);
	bed_stop(&b);
	reopen_with(&b, 0, 8, 9);
	assert_int_equal(pool_ndevs(b.pool), 9);
	assert_int_equal(pool_dev(b.pool, 8)->state, POOL_DEV_HEALTHY);
	assert_string_equal(pool_dev(b.pool, 8)->name, "f8");
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 8)->state, POOL_DEV_MISSING);
	bed_close(&b);
}

static void newcomers_that_do_not_fit_are_refused(void **state)
{
	struct bed b = bed(), two;
	struct pool_member m = {.name = "x"};
	struct flash_opts o4k = {.block_bytes = 4096}, o512 = {.block_bytes = 512};
	unsigned int dev;
	struct err err;

	assert_int_equal(flash_open(b.sh, "mem:64M", &o4k, &m.flash, &err), 0);
	assert_int_equal(pool_dev_add(b.pool, &m, false, false, &dev, &err), -EINVAL);
	assert_string_equal(err.field, "block size");
	flash_close(m.flash);
	assert_int_equal(flash_open(b.sh, "mem:2M", &o512, &m.flash, &err), 0);
	assert_int_equal(pool_dev_add(b.pool, &m, false, false, &dev, &err), -EINVAL);
	assert_string_equal(err.field, "size");
	flash_close(m.flash);
	/* A member of another pool, unless by force. */
	two = (struct bed){.cfg = b.cfg, .sh = b.sh};
	{
		struct pool_cfg pc = {
			.name = "two", .scheme = {2, 1}, .segment_bytes = POOL_SEGMENT_MIN};
		struct pool_member ms[3];
		struct pool *p;

		for (unsigned int i = 0; i < 3; i++) {
			two.flash[i] = bed_flash(&two, 9 + i);
			bed_member(&two, i, &ms[i]);
		}
		assert_int_equal(pool_create(b.sh, &pc, ms, 3, false, &p, &err), 0);
		pool_close(p);
	}
	m = other(&b, 9, "y");
	assert_int_equal(pool_dev_add(b.pool, &m, false, false, &dev, &err), -EEXIST);
	assert_int_equal(pool_dev_add(b.pool, &m, false, true, &dev, &err), 0);
	/* A member of this one: never. */
	reopen(&b, 0x02);
	begin(&b);
	m = other(&b, 1, "z");
	assert_int_equal(pool_dev_add(b.pool, &m, false, true, &dev, &err), -EEXIST);
	assert_int_equal(pool_dev_return(b.pool, 1, m.flash, &err), 0);
	bed_close(&b);
}

static void an_addition_that_fails_leaves_the_pool_as_it_was(void **state)
{
	for (unsigned int when = 0; when < 3; when++) {
		struct bed b = bed();
		struct pool_member m = other(&b, 8, "f8");
		struct fault_rule r = {.op = FLASH_WRITE,
			.per_million = 1000000,
			.skip = when,
			.status = FLASH_ERR_MEDIA};
		unsigned int dev;
		struct err err;

		fault_rule_add(m.flash, &r);
		assert_true(pool_dev_add(b.pool, &m, false, false, &dev, &err) < 0);
		assert_string_equal(err.object, "f8");
		assert_int_equal(pool_ndevs(b.pool), 8);
		flash_close(m.flash);
		reopen(&b, 0);
		assert_int_equal(pool_ndevs(b.pool), 8);
		begin(&b);
		bed_close(&b);
	}
}

static void an_addition_cut_off_is_whole_or_nothing(void **state)
{
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct bed_cfg cfg = BED_4_2;
		struct pool_member m;
		unsigned int dev, n;
		struct err err;
		struct bed b;

		cfg.seed = 100 + seed;
		b = bed_create(cfg);
		m = other(&b, 8, "f8");
		/* The pool's devices go, some time after the newcomer got its superblock, all of it or a part. */
		for (unsigned int d = 0; d < 8; d++) {
			struct fault_rule r = {.op = seed & 1 ? FLASH_WRITE : FLASH_FLUSH,
				.per_million = 1000000,
				.status = FLASH_ERR_GONE};

			if ((seed * 37 + d * 11) % 5 < 4)
				fault_rule_add(b.flash[d], &r);
		}
		if (pool_dev_add(b.pool, &m, false, false, &dev, &err) == 0)
			b.flash[8] = m.flash;
		else
			flash_close(m.flash);
		for (n = 0; n < 8 && b.flash[n]; n++)
			;
		assert_int_equal(fault_power_cut(b.flash, n), 0);
		bed_stop(&b);
		if (seed & 2) {
			assert_int_equal(bed_reopen(&b, 0, &err), 0);
		} else {
			reopen_with(&b, 0, 8, 9);
			assert_int_equal(pool_ndevs(b.pool), 9);
			assert_int_equal(pool_dev(b.pool, 8)->state, POOL_DEV_HEALTHY);
		}
		begin(&b);
		bed_close(&b);
	}
}

static void a_member_leaves_when_nothing_is_on_it(void **state)
{
	struct bed b = bed();
	struct pool_member m;
	unsigned int dev;
	struct err err;
	uint32_t seg;

	assert_int_equal(pool_segment_alloc(b.pool, 2, POOL_LOG, POOL_FOR_USER, &seg), 0);
	assert_int_equal(pool_dev_remove(b.pool, 2, &err), -EBUSY);
	pool_segment_free(b.pool, 2, seg);
	assert_int_equal(pool_dev_remove(b.pool, 2, &err), 0);
	b.flash[2] = NULL;
	assert_int_equal(pool_dev(b.pool, 2)->state, POOL_DEV_REMOVED);
	assert_int_equal(pool_dev_find(b.pool, "f2"), -ENOENT);
	assert_int_equal(pool_dev_remove(b.pool, 2, &err), -EINVAL);
	/* Its superblocks are gone; opening with it names it, opening without it misses nobody. */
	bed_stop(&b);
	assert_int_equal(bed_reopen(&b, 0, &err), -ENODATA);
	assert_string_equal(err.object, "f2");
	assert_int_equal(bed_reopen(&b, 0x04, &err), 0);
	assert_int_equal(pool_dev(b.pool, 2)->state, POOL_DEV_REMOVED);
	begin(&b);
	/* The slot goes to the next one: the same device, as it happens. */
	m = other(&b, 2, "new");
	assert_int_equal(pool_dev_add(b.pool, &m, false, false, &dev, &err), 0);
	assert_int_equal(dev, 2);
	b.flash[2] = m.flash;
	/* 4+2 needs six. */
	for (unsigned int d = 6; d < 8; d++) {
		assert_int_equal(pool_dev_remove(b.pool, d, &err), 0);
		b.flash[d] = NULL;
	}
	assert_int_equal(pool_dev_remove(b.pool, 5, &err), -EINVAL);
	bed_close(&b);
}

static void a_removed_member_that_was_away_does_not_come_back(void **state)
{
	struct bed b = bed();
	struct err err = {0};

	reopen(&b, 0x20);
	begin(&b);
	assert_int_equal(pool_dev_remove(b.pool, 5, &err), 0);
	bed_stop(&b);
	assert_int_equal(bed_reopen(&b, 0, &err), -EXDEV);
	assert_string_equal(err.object, "f5");
	assert_int_equal(bed_reopen(&b, 0x20, &err), 0);
	bed_close(&b);
}

/* It was a member, with a header in a segment. It joins again under the same number: that header is gone. */
static void a_former_member_brings_nothing_along(void **state)
{
	struct bed b = bed();
	uint8_t junk[4096], buf[4096];
	struct pool_member m;
	unsigned int dev;
	struct err err;

	memset(junk, 0x5a, sizeof(junk));
	assert_int_equal(flash_rw_sync(b.flash[5], FLASH_WRITE, 7ull << 20, junk, sizeof(junk)), 0);
	assert_int_equal(flash_rw_sync(b.flash[5], FLASH_FLUSH, 0, NULL, 0), 0);
	reopen(&b, 0x20);
	begin(&b);
	assert_int_equal(pool_dev_remove(b.pool, 5, &err), 0);
	m = other(&b, 5, "f5");
	assert_int_equal(pool_dev_add(b.pool, &m, false, false, &dev, &err), -EEXIST);
	assert_int_equal(pool_dev_add(b.pool, &m, false, true, &dev, &err), 0);
	assert_int_equal(dev, 5);
	assert_int_equal(flash_rw_sync(m.flash, FLASH_READ, 7ull << 20, buf, sizeof(buf)), 0);
	assert_int_equal(buf[0], 0);
	bed_close(&b);
}

/* ---- coming back ------------------------------------------------------------------------------------------------------ */

static void a_missing_member_comes_back_while_the_pool_runs(void **state)
{
	struct bed b = bed();
	struct flash *wrong;
	struct err err = {0};

	reopen(&b, 0x48);
	begin(&b);
	wrong = bed_flash(&b, 3);
	assert_int_equal(pool_dev_return(b.pool, 6, wrong, &err), -EXDEV);
	assert_string_equal(err.object, "f6");
	assert_int_equal(pool_dev_return(b.pool, 3, NULL, &err), -ENODEV);
	assert_int_equal(pool_dev_return(b.pool, 3, wrong, &err), 0);
	b.flash[3] = wrong;
	assert_int_equal(pool_dev(b.pool, 3)->epoch_seen, 1);
	assert_true(pool_dev_usable(b.pool, 3));
	reopen(&b, 0);
	assert_int_equal(pool_dev(b.pool, 3)->epoch_seen, 2);
	assert_int_equal(pool_dev(b.pool, 6)->epoch_seen, 1);
	bed_close(&b);
}

static void a_member_another_owner_used_does_not_come_back(void **state)
{
	struct bed b = bed();
	struct flash *f;
	struct err err = {0};

	reopen(&b, 0x0f); /* owner A: 4..7 */
	begin(&b);
	reopen(&b, 0xf0); /* owner B: 0..3 */
	begin(&b);
	f = bed_flash(&b, 5);
	assert_int_equal(pool_dev_return(b.pool, 5, f, &err), -EUCLEAN);
	assert_string_equal(err.object, "f5");
	flash_close(f);
	bed_stop(&b);
	assert_int_equal(bed_reopen(&b, 0, &err), -EUCLEAN);
	assert_int_equal(bed_reopen(&b, 0xf0, &err), 0);
	bed_close(&b);
}

/* ---- openings that are cut off ------------------------------------------------------------------------------------------ */

struct fence_note {
	bool done;
	int status;
};

static void fence_done(struct pool_fence *f, int status)
{
	struct fence_note *n = f->arg;

	n->done = true;
	n->status = status;
}

static bool fence_is_done(void *arg)
{
	return ((struct fence_note *)arg)->done;
}

static int fenced(struct bed *b, unsigned int *dev)
{
	struct fence_note n = {0};
	struct pool_fence f = {.done_fn = fence_done, .arg = &n};

	assert_int_equal(pool_fenced(b->pool, &f), 0);
	assert_int_equal(pool_fenced(b->pool, &f), -EBUSY);
	assert_int_equal(shard_wait(b->sh, fence_is_done, &n, 0), 0);
	*dev = f.dev;
	return n.status;
}

static void an_opening_cut_off_makes_nobody_another_owner(void **state)
{
	static const uint32_t got[] = {0x01, 0x03, 0x80, 0x55, 0x7f, 0x00, 0xf0};
	static const uint32_t next[] = {0xff, 0xfc, 0x0f, 0xaa, 0x70, 0x7e, 0x38};

	for (unsigned int i = 0; i < ARRAY_LEN(got) * ARRAY_LEN(next); i++) {
		uint32_t g = got[i / ARRAY_LEN(next)], t = next[i % ARRAY_LEN(next)];
		struct bed b = bed();
		unsigned int dev;
		struct err err;

		reopen(&b, 0);
		for (unsigned int d = 0; d < 8; d++) {
			if (!(g >> d & 1))
				rule(&b, d, FLASH_WRITE, 0, 1u << 17);
		}
		if (__builtin_popcount(g) >= 3) {
			/* Enough got it: the others are failed ones then, and the epoch is a real one. */
			assert_int_equal(pool_epoch_begin(b.pool, &err), 0);
			assert_int_equal(pool_epoch(b.pool), 2);
			bed_close(&b);
			continue;
		}
		assert_int_equal(pool_epoch_begin(b.pool, &err), -EIO);
		reopen(&b, ~t & 0xff);
		begin(&b);
		reopen(&b, 0); /* everybody */
		begin(&b);
		/* What came to nothing is no other owner's either. */
		assert_int_equal(fenced(&b, &dev), 0);
		bed_close(&b);
	}
}

/* Devices drop out at any write or flush of the opening, and the power goes. Those who were let go by an owner that went on know it; the others never differ. */
static void an_opening_that_loses_devices_and_power_is_settled_later(void **state)
{
	unsigned int real = 0, hollow = 0;

	for (uint32_t seed = 0; seed < 150; seed++) {
		uint32_t x = seed * 2654435761u + 12345, lost = 0, next;
		struct bed_cfg cfg = BED_4_2;
		struct err err;
		struct bed b;
		int rc;

		cfg.seed = 500 + seed;
		b = bed_create(cfg);
		reopen(&b, 0);
		for (unsigned int d = 0; d < 8; d++) {
			struct fault_rule r = {.op = x >> d & 1 ? FLASH_WRITE : FLASH_FLUSH,
				.per_million = 1000000,
				.skip = x >> (d + 3) & 1,
				.status = FLASH_ERR_GONE};

			if ((x >> (2 * d) & 3) || seed & 1) {
				fault_rule_add(b.flash[d], &r);
				lost |= 1u << d;
			}
		}
		rc = pool_epoch_begin(b.pool, &err);
		assert_int_equal(fault_power_cut(b.flash, 8), 0);
		/* Who opens next: if the epoch was begun, somebody of those that were in it. */
		next = (x >> 9 & 0xff) | 7u << (x >> 17) % 6;
		if (rc == 0)
			next |= ~lost & 0xff;
		real += rc == 0;
		hollow += rc < 0;
		reopen(&b, ~next & 0xff);
		begin(&b);
		reopen(&b, 0);
		begin(&b);
		bed_close(&b);
	}
	print_message("openings that lost devices: %u went on, %u came to nothing\n", real, hollow);
	assert_true(real > 10 && hollow > 10);
}

/* Another card opens the same device files: here it is simulated by writing what it would. */
static void other_owner_writes(struct bed *b, unsigned int dev)
{
	uint8_t *buf = malloc(SB_BYTES);
	struct superblock sb;
	unsigned int slot;

	for (slot = 0; slot < 2; slot++) {
		assert_int_equal(flash_rw_sync(b->flash[dev], FLASH_READ, slot * SB_SLOT_STRIDE,
					 buf, SB_BYTES),
			0);
		if (superblock_parse(buf, SB_BYTES, &sb) == 0)
			break;
	}
	sb.epoch = pool_epoch(b->pool) + 1;
	sb.generation += 10;
	sb.history[sb.epoch % SB_HISTORY] = 4711;
	superblock_build(&sb, buf);
	assert_int_equal(
		flash_rw_sync(b->flash[dev], FLASH_WRITE, slot * SB_SLOT_STRIDE, buf, SB_BYTES), 0);
	free(buf);
}

static void an_owner_that_was_overtaken_notices(void **state)
{
	struct bed b = bed();
	unsigned int dev;

	reopen(&b, 0x04);
	begin(&b);
	assert_int_equal(fenced(&b, &dev), 0);
	other_owner_writes(&b, 5);
	assert_int_equal(fenced(&b, &dev), -ESTALE);
	assert_int_equal(dev, 5);
	bed_close(&b);
}

static void without_enough_superblocks_nobody_can_tell(void **state)
{
	struct bed b = bed();
	unsigned int dev;

	for (unsigned int d = 0; d < 6; d++)
		rule(&b, d, FLASH_READ, 0, 1u << 17);
	assert_int_equal(fenced(&b, &dev), -EIO);
	bed_close(&b);
}

/* ---- damage -------------------------------------------------------------------------------------------------------------- */

/* A flipped bit anywhere in the newest superblock of a device: the older one is taken, or an error names the device. */
static void flipped_bits_in_superblocks_are_noticed(void **state)
{
	for (unsigned int i = 0; i < 200; i++) {
		struct bed b = bed();
		uint32_t at = i * 8191u % (SB_BYTES * 8);
		unsigned int dev = i % 8, both = i & 1;
		struct flash *f;
		uint8_t *buf = malloc(SB_BYTES);
		struct err err = {0};
		int rc;

		begin(&b);
		bed_stop(&b);
		f = bed_flash(&b, dev);
		for (unsigned int slot = 0; slot < 2; slot++) {
			if (!both && slot != i / 2 % 2)
				continue;
			assert_int_equal(
				flash_rw_sync(f, FLASH_READ, slot * SB_SLOT_STRIDE, buf, SB_BYTES),
				0);
			buf[at / 8] ^= (uint8_t)(1u << at % 8);
			assert_int_equal(
				flash_rw_sync(f, FLASH_WRITE, slot * SB_SLOT_STRIDE, buf, SB_BYTES),
				0);
		}
		assert_int_equal(flash_rw_sync(f, FLASH_FLUSH, 0, NULL, 0), 0);
		flash_close(f);
		free(buf);
		rc = bed_reopen(&b, 0, &err);
		if (both) {
			assert_true(rc == -EUCLEAN || rc == -ENODATA);
			assert_int_equal(err.object[1] - '0', dev);
			assert_int_equal(bed_reopen(&b, 1u << dev, &err), 0);
		} else {
			assert_int_equal(rc, 0);
		}
		begin(&b);
		bed_close(&b);
	}
}

static void a_mix_of_two_pools_is_refused_by_name(void **state)
{
	struct bed b = bed();
	struct pool_cfg pc = {.name = "two", .scheme = {2, 1}, .segment_bytes = POOL_SEGMENT_MIN};
	struct pool_member m[8];
	struct err err = {0};
	struct pool *p;

	bed_stop(&b);
	for (unsigned int i = 0; i < 3; i++) {
		b.flash[i] = bed_flash(&b, i);
		bed_member(&b, i, &m[i]);
	}
	assert_int_equal(pool_create(b.sh, &pc, m, 3, true, &p, &err), 0);
	pool_close(p);
	memset(b.flash, 0, sizeof(b.flash));
	for (unsigned int first = 0; first < 2; first++) {
		for (unsigned int i = 0; i < 8; i++) {
			unsigned int d = first ? 7 - i : i;

			b.flash[d] = bed_flash(&b, d);
			bed_member(&b, d, &m[i]);
		}
		assert_int_equal(pool_open(b.sh, m, 8, &p, &err), -EXDEV);
		/* The odd ones are those of which there are fewer. */
		assert_string_equal(err.object, first ? "f2" : "f0");
		assert_non_null(strstr(err.reason, "\"two\", not to \"bed\""));
		for (unsigned int i = 0; i < 8; i++)
			flash_close(b.flash[i]);
		memset(b.flash, 0, sizeof(b.flash));
	}
	assert_int_equal(bed_reopen(&b, 0x07, &err), 0);
	bed_close(&b);
}

static int open_what_is_good(struct bed *b, uint32_t *left_mask, struct err *err)
{
	struct pool_member m[8];
	struct pool_left left[8];
	unsigned int nleft;
	int rc;

	*left_mask = 0;
	for (unsigned int i = 0; i < 8; i++) {
		b->flash[i] = bed_flash(b, i);
		bed_member(b, i, &m[i]);
	}
	rc = pool_open_degraded(b->sh, m, 8, left, &nleft, &b->pool, err);
	for (unsigned int i = 0; i < nleft; i++) {
		assert_true(left[i].why.reason[0] && left[i].why.code < 0);
		assert_string_equal(left[i].why.object, m[left[i].member].name);
		*left_mask |= 1u << left[i].member;
	}
	for (unsigned int i = 0; i < 8; i++) {
		if (rc < 0 || (*left_mask >> i & 1)) {
			flash_close(b->flash[i]);
			b->flash[i] = NULL;
		}
	}
	if (rc == 0)
		bed_log_open(b);
	return rc;
}

static void zap(struct bed *b, unsigned int dev, bool wipe)
{
	struct flash *f = bed_flash(b, dev);
	uint8_t *buf = calloc(1, SB_BYTES);

	for (unsigned int slot = 0; slot < 2; slot++) {
		if (!wipe)
			assert_int_equal(
				flash_rw_sync(f, FLASH_READ, slot * SB_SLOT_STRIDE, buf, SB_BYTES),
				0);
		buf[99] ^= !wipe;
		assert_int_equal(
			flash_rw_sync(f, FLASH_WRITE, slot * SB_SLOT_STRIDE, buf, SB_BYTES), 0);
	}
	assert_int_equal(flash_rw_sync(f, FLASH_FLUSH, 0, NULL, 0), 0);
	flash_close(f);
	free(buf);
}

static void a_card_opens_its_pool_without_members_gone_bad(void **state)
{
	struct bed b = bed();
	struct err err = {0};
	uint32_t left;

	reopen(&b, 0x80); /* 7 will have been removed meanwhile */
	begin(&b);
	assert_int_equal(pool_dev_remove(b.pool, 7, &err), 0);
	bed_stop(&b);
	zap(&b, 2, false);
	assert_int_equal(open_what_is_good(&b, &left, &err), 0);
	assert_int_equal(left, 0x84);
	assert_int_equal(pool_dev(b.pool, 2)->state, POOL_DEV_MISSING);
	begin(&b);
	bed_stop(&b);
	/* Another one is too many for 4+2: all stay the caller's. */
	zap(&b, 0, true);
	assert_int_equal(open_what_is_good(&b, &left, &err), -ENODATA);
	assert_string_equal(err.object, "f0");
	shard_close(b.sh);
	flash_mem_forget(NULL);
}

static void a_card_opens_its_pool_without_the_other_owners_part(void **state)
{
	struct bed b = bed();
	struct err err = {0};
	uint32_t left;

	reopen(&b, 0x3f);
	assert_int_equal(pool_epoch_begin(b.pool, &err), -EIO); /* two are too few for an owner */
	reopen(&b, 0x07);
	begin(&b);
	bed_stop(&b);
	assert_int_equal(open_what_is_good(&b, &left, &err), 0);
	assert_int_equal(left, 0); /* and what they tried does no harm */
	reopen(&b, 0x3e); /* three are enough: 0, 6, 7 */
	begin(&b);
	reopen(&b, 0xc1);
	begin(&b);
	bed_stop(&b);
	/* Three against five: more than the pool bears losing. */
	assert_int_equal(open_what_is_good(&b, &left, &err), -EUCLEAN);
	shard_close(b.sh);
	flash_mem_forget(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_failed_member_stays_failed_until_it_is_returned),
		cmocka_unit_test(what_was_taken_out_of_service_while_it_was_away_stays_so),
		cmocka_unit_test(more_failures_than_m_are_a_path_not_devices),
		cmocka_unit_test(states_are_remembered_and_placement_heeds_them),
		cmocka_unit_test(opening_alone_writes_nothing),
		cmocka_unit_test(a_new_member_joins_for_good),
		cmocka_unit_test(newcomers_that_do_not_fit_are_refused),
		cmocka_unit_test(an_addition_that_fails_leaves_the_pool_as_it_was),
		cmocka_unit_test(an_addition_cut_off_is_whole_or_nothing),
		cmocka_unit_test(a_member_leaves_when_nothing_is_on_it),
		cmocka_unit_test(a_removed_member_that_was_away_does_not_come_back),
		cmocka_unit_test(a_former_member_brings_nothing_along),
		cmocka_unit_test(a_missing_member_comes_back_while_the_pool_runs),
		cmocka_unit_test(a_member_another_owner_used_does_not_come_back),
		cmocka_unit_test(an_opening_cut_off_makes_nobody_another_owner),
		cmocka_unit_test(an_opening_that_loses_devices_and_power_is_settled_later),
		cmocka_unit_test(an_owner_that_was_overtaken_notices),
		cmocka_unit_test(without_enough_superblocks_nobody_can_tell),
		cmocka_unit_test(flipped_bits_in_superblocks_are_noticed),
		cmocka_unit_test(a_mix_of_two_pools_is_refused_by_name),
		cmocka_unit_test(a_card_opens_its_pool_without_members_gone_bad),
		cmocka_unit_test(a_card_opens_its_pool_without_the_other_owners_part),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
