/* SPDX-License-Identifier: BSD-3-Clause */
/* Appending, reading, flushing: the stripe log while it runs. */
#include "tests/unit/logbed.h"

static void every_size_reads_back(struct bed_cfg cfg)
{
	static const uint32_t sizes[] = {1, 2, 3, 4, 5, 7, 8, 9, 31, 32, 33, 63, 64, 65, 128, 200};
	struct bed b = bed_create(cfg);
	uint32_t refs[ARRAY_LEN(sizes)];
	bool decoded;

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		refs[i] = bed_put(&b, i * 1000, sizes[i], (uint32_t)i + 1);
	for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
		assert_int_equal(
			bed_get_all(&b, refs[i], i * 1000, sizes[i], (uint32_t)i + 1), IO_OK);
		assert_int_equal(
			bed_get(&b, refs[i], i * 1000, sizes[i] - 1, 1, (uint32_t)i + 1, &decoded),
			IO_OK);
		assert_false(decoded);
	}
	bed_close(&b);
}

static void stripes_of_every_size_read_back(void **state)
{
	struct bed_cfg cfg = BED_4_2;

	every_size_reads_back(cfg);
	cfg.block_bytes = 4096;
	cfg.impl = EC_REFERENCE;
	every_size_reads_back(cfg);
	cfg.fault = false; /* straight into the memory of the devices */
	every_size_reads_back(cfg);
	cfg.scheme = (struct ec_scheme){1, 2};
	cfg.ndevs = 3;
	every_size_reads_back(cfg);
}

/* With devices i and j dead every stripe is still read; with a third one, only those that have k fragments left. */
static void pair_dies(struct bed_cfg cfg, unsigned int i, unsigned int j)
{
	static const uint32_t sizes[] = {1, 2, 5, 22, 40};
	struct bed b = bed_create(cfg);
	uint32_t refs[ARRAY_LEN(sizes)], ok = 0;
	struct stripelog_stats st;

	for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
		refs[s] = bed_put(&b, s * 1000, sizes[s], 5);
	fault_set_gone(b.flash[i], true);
	fault_set_gone(b.flash[j], true);
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
		assert_int_equal(bed_get_all(&b, refs[s], s * 1000, sizes[s], 5), IO_OK);
	for (unsigned int d = 0; d < cfg.ndevs; d++)
		fault_set_gone(b.flash[d], d != (i + 1) % cfg.ndevs && d != (j + 2) % cfg.ndevs);
	for (size_t s = 0; s < ARRAY_LEN(sizes); s++)
		ok += bed_get_all(&b, refs[s], s * 1000, sizes[s], 5) == IO_OK;
	stripelog_stats(b.log, &st);
	assert_true(ok <= 2); /* copies may be on one of two devices; 2+2 and wider cannot be */
	assert_true(st.unrecoverable_blocks > 0);
	bed_close(&b);
}

static void reads_survive_the_loss_of_any_m_devices(void **state)
{
	for (unsigned int i = 0; i < 8; i++) {
		for (unsigned int j = i + 1; j < 8; j++)
			pair_dies(BED_4_2, i, j);
	}
}

static void a_failed_write_is_appended_elsewhere_before_it_is_acknowledged(void **state)
{
	struct bed b = bed_create(BED_4_2);
	struct stripelog_stats st;
	uint32_t ref[3];

	ref[0] = bed_put(&b, 0, 40, 1);
	for (unsigned int d = 0; d < 2; d++) {
		fault_set_gone(b.flash[stripelog_block_dev(b.log, ref[d], 0)], true);
		ref[d + 1] = bed_put(&b, 1000 * (d + 1), 40, 1);
	}
	stripelog_stats(b.log, &st);
	assert_int_equal(st.reappends, 2);
	assert_int_equal(st.stripes_by_width[4], 3);
	for (unsigned int s = 0; s < 3; s++)
		assert_int_equal(bed_get_all(&b, ref[s], 1000 * s, 40, 1), IO_OK);
	bed_close(&b);
}

/* Parity, CRCs and what the devices write later are of one reading; a round that has to be done again elsewhere reads anew. */
static void memory_that_changes_is_taken_once(void **state)
{
	for (int gone = 0; gone < 2; gone++) {
		struct bed b = bed_create(BED_4_2); /* no windows: the devices write later */
		struct put *p = put_new(&b, 0, 40, 1, 1);
		uint32_t first = bed_put(&b, 5000, 40, 1);

		assert_false(stripelog_reads_once(b.log));
		p->a.unstable = true;
		if (gone)
			fault_set_gone(b.flash[stripelog_block_dev(b.log, first, 0)], true);
		assert_int_equal(stripelog_append(b.log, &p->a), 0);
		if (!gone)
			memset(p->mem, 0xee, 40 * EC_BLOCK);
		assert_int_equal(put_wait(&b, p), IO_OK);
		assert_int_equal(bed_get_all(&b, p->a.ref, 0, 40, 1), IO_OK);
		put_free(p);
		bed_close(&b);
	}
}

static void a_transient_write_error_is_tried_again_in_place(void **state)
{
	struct fault_rule rule = {.op = FLASH_WRITE,
		.per_million = 1000000,
		.count = 1,
		.status = FLASH_ERR_TRANSIENT};
	struct bed b = bed_create(BED_4_2);
	struct stripelog_stats st;
	uint32_t ref;

	for (unsigned int d = 0; d < 8; d++)
		assert_true(fault_rule_add(b.flash[d], &rule) >= 0);
	ref = bed_put(&b, 0, 40, 1);
	assert_int_equal(bed_get_all(&b, ref, 0, 40, 1), IO_OK);
	stripelog_stats(b.log, &st);
	assert_int_equal(st.reappends, 0);
	for (unsigned int d = 0; d < 8; d++)
		assert_true(pool_dev_usable(b.pool, d));
	bed_close(&b);
}

static void too_few_devices_are_refused_or_allowed_as_the_pool_says(void **state)
{
	struct bed_cfg cfg = BED_4_2;

	for (unsigned int allow = 0; allow < 2; allow++) {
		struct stripelog_stats st;
		struct put *p;
		struct bed b;
		int rc;

		cfg.on_degraded = allow ? POOL_DEGRADED_ALLOW : POOL_DEGRADED_REFUSE;
		b = bed_create(cfg);
		for (unsigned int d = 0; d < 6; d++)
			pool_dev_fail(b.pool, d);
		p = put_new(&b, 0, 8, 1, 1);
		rc = stripelog_append(b.log, &p->a);
		assert_int_equal(rc, allow ? 0 : -EROFS);
		assert_int_equal(stripelog_reserve(b.log, cfg.scheme, POOL_DEV_NONE, 1), rc);
		assert_int_equal(bed_record(&b, 1), allow ? IO_OK : IO_ERR_RETRY);
		if (allow) {
			assert_int_equal(put_wait(&b, p), IO_OK);
			stripelog_stats(b.log, &st);
			assert_true(st.short_stripes > 0);
			assert_int_equal(bed_get_all(&b, p->a.ref, 0, 8, 1), IO_OK);
		}
		put_free(p);
		bed_close(&b);
	}
}

static void fewer_devices_make_narrower_stripes(void **state)
{
	struct bed b = bed_create(BED_4_2);
	struct stripelog_stats st;

	for (unsigned int d = 0; d < 4; d++)
		pool_dev_fail(b.pool, d);
	assert_int_equal(bed_get_all(&b, bed_put(&b, 0, 40, 1), 0, 40, 1), IO_OK);
	stripelog_stats(b.log, &st);
	assert_int_equal(st.stripes_by_width[2], 1);
	bed_close(&b);
}

static void fragments_keep_off_the_excluded_device(void **state)
{
	struct bed b = bed_create(BED_4_2);

	for (unsigned int s = 0; s < 30; s++) {
		struct put *p = put_new(&b, s * 100, 24, 1, 1);

		p->a.excluded_dev = 3;
		assert_int_equal(stripelog_append(b.log, &p->a), 0);
		assert_int_equal(put_wait(&b, p), IO_OK);
		for (uint32_t i = 0; i < 24; i++)
			assert_int_not_equal(stripelog_block_dev(b.log, p->a.ref, i), 3);
		put_free(p);
	}
	bed_close(&b);
}

static void flush_reaches_every_dirty_device_and_is_shared(void **state)
{
	enum io_status st[3] = {IO_STATUS_COUNT, IO_STATUS_COUNT, IO_STATUS_COUNT};
	struct stripe_flush f[3];
	struct bed b = bed_create(BED_4_2);
	struct stripelog_stats s;

	bed_put(&b, 0, 40, 1);
	for (unsigned int i = 0; i < 3; i++) {
		f[i] = (struct stripe_flush){
			.done_fn = flush_done, .arg = &st[i], .also_devs = i ? 0 : 0x80};
		assert_int_equal(stripelog_flush(b.log, &f[i]), 0);
	}
	for (unsigned int i = 0; i < 3; i++) {
		assert_int_equal(shard_wait(b.sh, status_is_set, &st[i], 0), 0);
		assert_int_equal(st[i], IO_OK);
	}
	stripelog_stats(b.log, &s);
	assert_true(s.flushes == 6 || s.flushes == 7); /* device 7 may hold a fragment or not */
	assert_int_equal(bed_flush(&b), IO_OK);
	stripelog_stats(b.log, &s);
	assert_true(s.flushes <= 7); /* nothing was dirty */
	bed_close(&b);
}

static void a_device_that_cannot_flush_fails_and_only_its_own_writer_hears(void **state)
{
	struct fault_rule rule = {
		.op = FLASH_FLUSH, .per_million = 1000000, .status = FLASH_ERR_MEDIA};
	struct bed b = bed_create(BED_4_2);
	enum io_status st = IO_STATUS_COUNT;
	struct stripe_flush f = {.done_fn = flush_done, .arg = &st, .also_devs = 1u << 5 | 1u << 6};
	uint32_t ref = bed_put(&b, 0, 80, 1);
	int dev = stripelog_block_dev(b.log, ref, 0);

	fault_rule_add(b.flash[dev], &rule);
	assert_int_equal(bed_flush(&b), IO_OK);
	assert_false(pool_dev_usable(b.pool, (unsigned int)dev));
	fault_rule_add(b.flash[5], &rule);
	assert_int_equal(stripelog_flush(b.log, &f), 0);
	assert_int_equal(shard_wait(b.sh, status_is_set, &st, 0), 0);
	if (dev != 5) {
		assert_int_equal(st, IO_ERR_MEDIA);
		assert_int_equal(f.also_devs, 1u << 5);
	}
	assert_int_equal(bed_get_all(&b, ref, 0, 80, 1), IO_OK);
	bed_close(&b);
}

/* Blocks one by one until the log says no: as many as promised at least, never a refusal after a promise. */
static void space_is_promised_before_it_is_used(void **state)
{
	struct bed_cfg cfg = BED_4_2;
	uint64_t promised, done = 0;
	struct bed b;

	cfg.size_mib = 8;
	b = bed_create(cfg);
	promised = stripelog_blocks_left(b.log, cfg.scheme, POOL_DEV_NONE);
	assert_true(promised > 1000);
	while (stripelog_reserve(b.log, cfg.scheme, POOL_DEV_NONE, 1) == 0) {
		bed_put(&b, done, 1, 1);
		done++;
	}
	assert_true(done >= promised);
	assert_int_equal(stripelog_reserve(b.log, cfg.scheme, POOL_DEV_NONE, 1), -ENOSPC);
	assert_true(stripelog_blocks_left(b.log, cfg.scheme, POOL_DEV_NONE) <= 1);
	bed_close(&b);
}

/* Many promises of many sizes and keys outstanding, in random order: each one is kept. */
static void promises_are_kept_whatever_the_mixture(void **state)
{
	struct bed_cfg cfg = BED_4_2;

	cfg.size_mib = 16;
	for (uint64_t seed = 1; seed <= 6; seed++) {
		struct {
			uint32_t n;
			int excl;
		} held[16] = {{0}};
		unsigned int refused = 0, kept = 0;
		struct bed b;

		cfg.seed = seed;
		b = bed_create(cfg);
		while (refused < 200) {
			unsigned int i = (unsigned int)(shard_random(b.sh) % ARRAY_LEN(held));
			uint32_t n = 1 + (uint32_t)(shard_random(b.sh) % (seed < 4 ? 8 : 100));
			int excl = (int)(shard_random(b.sh) % 3) - 1;
			struct put *p;

			if (!held[i].n) {
				int rc = stripelog_reserve(b.log, cfg.scheme, excl, n);

				assert_true(rc == 0 || rc == -ENOSPC);
				refused += rc != 0;
				held[i].n = rc ? 0 : n;
				held[i].excl = excl;
				continue;
			}
			p = put_new(&b, 0, held[i].n, 1, 1);
			p->a.excluded_dev = held[i].excl;
			assert_int_equal(stripelog_append(b.log, &p->a), 0);
			assert_int_equal(put_wait(&b, p), IO_OK);
			stripelog_put(b.log, p->a.ref, held[i].n);
			put_free(p);
			held[i].n = 0;
			kept++;
		}
		assert_true(kept > 50);
		assert_int_equal(
			stripelog_reserve(b.log, cfg.scheme, POOL_DEV_NONE, 2000), -ENOSPC);
		bed_close(&b);
	}
}

static void records_have_room_when_the_log_is_full(void **state)
{
	struct bed_cfg cfg = BED_4_2;
	struct record r = {.type = RECORD_STATE, .len = 8};
	struct put *p;
	struct bed b;

	cfg.size_mib = 8;
	b = bed_create(cfg);
	while (stripelog_reserve(b.log, cfg.scheme, POOL_DEV_NONE, 50) == 0)
		bed_put(&b, 0, 50, 1);
	while (stripelog_reserve(b.log, cfg.scheme, POOL_DEV_NONE, 1) == 0)
		bed_put(&b, 0, 1, 1);
	for (unsigned int i = 0; i < 500; i++) {
		p = put_new(&b, 0, 0, 0, 0);
		p->a.records = &r;
		p->a.nrecords = 1;
		p->a.cls = POOL_FOR_META;
		assert_int_equal(stripelog_append(b.log, &p->a), 0);
		assert_int_equal(put_wait(&b, p), IO_OK);
		put_free(p);
	}
	bed_close(&b);
}

static void a_full_complement_in_flight_is_back_pressure(void **state)
{
	struct bed b = bed_create(BED_4_2);
	struct put *p[64];
	unsigned int n = 0;
	int rc = 0;

	while (n < 64) {
		p[n] = put_new(&b, n * 100, 40, 40, 1);
		rc = stripelog_append(b.log, &p[n]->a);
		n++;
		if (rc < 0)
			break;
	}
	assert_int_equal(rc, -EAGAIN);
	assert_int_equal(stripelog_inflight(b.log), n - 1);
	put_free(p[--n]);
	while (n-- > 0) {
		assert_int_equal(put_wait(&b, p[n]), IO_OK);
		assert_int_equal(bed_get_all(&b, p[n]->a.ref, n * 100, 40, 1), IO_OK);
		put_free(p[n]);
	}
	assert_int_equal(stripelog_inflight(b.log), 0);
	bed_close(&b);
}

static void freed_entries_of_the_table_are_used_again(void **state)
{
	struct bed_cfg cfg = BED_4_2;
	struct stripelog_stats st;
	struct bed b;

	cfg.size_mib = 64;
	b = bed_create(cfg);
	for (unsigned int i = 0; i < 300; i++) {
		uint32_t n = 1 + i % 9, ref = bed_put(&b, 0, n, 1);

		stripelog_get(b.log, ref, 1);
		stripelog_put(b.log, ref, n);
		assert_int_equal(stripelog_block_dev(b.log, ref, n), -ENOENT);
		assert_true(stripelog_block_dev(b.log, ref, 0) >= 0);
		stripelog_put(b.log, ref, 1);
		assert_int_equal(stripelog_block_dev(b.log, ref, 0), -ENOENT);
		assert_true(ref < 100);
	}
	stripelog_stats(b.log, &st);
	assert_int_equal(st.table_entries, 0);
	assert_int_equal(st.stripes, 300);
	bed_close(&b);
}

static void small_writes_amplify_little(void **state)
{
	struct bed_cfg cfg = BED_4_2;
	struct stripelog_stats st;
	struct bed b;

	cfg.size_mib = 64;
	b = bed_create(cfg);
	for (unsigned int i = 0; i < 100; i++) {
		struct put *p = put_new(&b, i * 32, 32, 32, 1);

		assert_int_equal(stripelog_append(b.log, &p->a), 0);
		assert_int_equal(put_wait(&b, p), IO_OK);
		put_free(p);
	}
	stripelog_stats(b.log, &st);
	assert_true((st.bytes_header + st.bytes_data + st.bytes_parity) * 100 <
		    175ull * 100 * 32 * EC_BLOCK);
	bed_close(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stripes_of_every_size_read_back),
		cmocka_unit_test(reads_survive_the_loss_of_any_m_devices),
		cmocka_unit_test(a_failed_write_is_appended_elsewhere_before_it_is_acknowledged),
		cmocka_unit_test(memory_that_changes_is_taken_once),
		cmocka_unit_test(a_transient_write_error_is_tried_again_in_place),
		cmocka_unit_test(too_few_devices_are_refused_or_allowed_as_the_pool_says),
		cmocka_unit_test(fewer_devices_make_narrower_stripes),
		cmocka_unit_test(fragments_keep_off_the_excluded_device),
		cmocka_unit_test(flush_reaches_every_dirty_device_and_is_shared),
		cmocka_unit_test(a_device_that_cannot_flush_fails_and_only_its_own_writer_hears),
		cmocka_unit_test(space_is_promised_before_it_is_used),
		cmocka_unit_test(promises_are_kept_whatever_the_mixture),
		cmocka_unit_test(records_have_room_when_the_log_is_full),
		cmocka_unit_test(a_full_complement_in_flight_is_back_pressure),
		cmocka_unit_test(freed_entries_of_the_table_are_used_again),
		cmocka_unit_test(small_writes_amplify_little),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
