/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening a log again: after a clean stop, a dead process, a power cut; with devices missing and coming back. */
#include "tests/unit/logbed.h"

#define VBLOCKS 4096u

/* ---- a map of volume 1, as the volume layer would build it from a scan --------------------------------- */

struct vblock {
	uint64_t seq;
	uint32_t ref, pos, crc;
	bool mapped;
};

struct vmap {
	struct bed *b;
	struct vblock blk[VBLOCKS];
	uint32_t records[VBLOCKS]; /* how often record `value` was told */
	unsigned int stripes, lost, lost_committed, moved;
};

static void on_stripe(void *arg, uint32_t ref, const struct stripe_extent *ext, uint32_t next,
	const uint32_t *crc, uint32_t nblocks)
{
	struct vmap *m = arg;
	uint32_t pos = 0;

	m->stripes++;
	for (uint32_t e = 0; e < next; e++) {
		for (uint32_t i = 0; i < ext[e].nblocks; i++, pos++) {
			struct vblock *v = &m->blk[ext[e].block + i];

			if (v->mapped && v->seq >= ext[e].seq)
				continue;
			if (v->mapped)
				stripelog_put(m->b->log, v->ref, 1);
			*v = (struct vblock){ext[e].seq, ref, pos, crc[pos], true};
			stripelog_get(m->b->log, ref, 1);
		}
	}
	assert_int_equal(pos, nblocks);
}

static void on_record(void *arg, const struct record *r)
{
	struct vmap *m = arg;
	uint32_t value;

	assert_int_equal(r->type, RECORD_STATE);
	memcpy(&value, r->body, 4);
	m->records[value]++;
}

static void on_lost(void *arg, const struct stripe_extent *ext, uint32_t next, const uint32_t *crc,
	uint32_t nblocks, unsigned int have, unsigned int need, bool committed)
{
	struct vmap *m = arg;

	assert_true(have < need);
	m->lost++;
	m->lost_committed += committed;
}

static void on_moved(void *arg, uint32_t old_ref, uint32_t new_ref)
{
	struct vmap *m = arg;

	m->moved++;
	for (uint32_t i = 0; i < VBLOCKS; i++) {
		if (m->blk[i].mapped && m->blk[i].ref == old_ref)
			m->blk[i].ref = new_ref;
	}
}

static void vmap_scan(struct bed *b, struct vmap *m)
{
	struct stripelog_visitor v = {
		.stripe_fn = on_stripe, .record_fn = on_record, .lost_fn = on_lost, .arg = m};
	struct err err;

	memset(m, 0, sizeof(*m));
	m->b = b;
	if (stripelog_scan(b->log, &v, &err) < 0)
		fail_msg("%s", err_text(&err));
}

static void vmap_recover(struct bed *b, struct vmap *m)
{
	struct err err;

	if (pool_epoch_begin(b->pool, &err) < 0 || stripelog_recover(b->log, on_moved, m, &err) < 0)
		fail_msg("%s", err_text(&err));
}

/* Opens the bed without some devices, all the way. */
static void open_all(struct bed *b, uint32_t without, struct vmap *m)
{
	struct err err;

	if (bed_reopen(b, without, &err) < 0)
		fail_msg("%s", err_text(&err));
	vmap_scan(b, m);
	vmap_recover(b, m);
}

/* The version of a mapped block, read back and checked; 0: not mapped. */
static uint32_t version_of(struct bed *b, const struct vmap *m, uint32_t block)
{
	const struct vblock *v = &m->blk[block];
	uint8_t want[EC_BLOCK];

	if (!v->mapped)
		return 0;
	stamp(want, block, (uint32_t)v->seq);
	assert_int_equal(v->crc, crc32c(want, EC_BLOCK));
	assert_int_equal(
		bed_get(b, v->ref, (uint64_t)block - v->pos, v->pos, 1, (uint32_t)v->seq, NULL),
		IO_OK);
	return (uint32_t)v->seq;
}

static struct bed fresh(struct bed_cfg cfg, struct vmap *m)
{
	struct bed b = bed_create(cfg);

	vmap_scan(&b, m);
	vmap_recover(&b, m);
	return b;
}

static void power_cut(struct bed *b)
{
	struct flash *devs[BED_DEVS_MAX];
	unsigned int n = 0;

	for (unsigned int i = 0; i < b->cfg.ndevs; i++) {
		if (b->flash[i])
			devs[n++] = b->flash[i];
	}
	assert_int_equal(fault_power_cut(devs, n), 0);
}

/* ---- tests -------------------------------------------------------------------------------------------------- */

static void a_clean_stop_finds_everything_again(void **state)
{
	struct vmap *m = malloc(sizeof(*m));
	struct bed b = fresh(BED_4_2, m);

	for (uint32_t i = 0; i < 60; i++)
		bed_put(&b, i * 40, 1 + i % 40, 2);
	for (uint32_t i = 0; i < 40; i++)
		assert_int_equal(bed_record(&b, i), IO_OK);
	for (unsigned int round = 0; round < 3; round++) {
		bed_stop(&b);
		open_all(&b, 0, m);
		assert_int_equal(m->lost, 0);
		for (uint32_t i = 0; i < 60; i++) {
			assert_int_equal(version_of(&b, m, i * 40 + i % 40), 2);
			assert_int_equal(
				version_of(&b, m, i * 40 + i % 40 + 1), i % 40 == 39 ? 2 : 0);
		}
		for (uint32_t i = 0; i < 40; i++)
			assert_true(m->records[i] >= 1);
	}
	bed_close(&b);
	free(m);
}

static void what_was_flushed_survives_a_power_cut_and_the_loss_of_two(void **state)
{
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct vmap *m = malloc(sizeof(*m));
		struct bed_cfg cfg = BED_4_2;
		struct put *late[8];
		uint32_t without;
		struct bed b;

		cfg.seed = seed;
		b = fresh(cfg, m);
		for (uint32_t i = 0; i < 20; i++)
			bed_put(&b, i * 40, 1 + (i * 7 + (uint32_t)seed) % 40, 1);
		assert_int_equal(bed_flush(&b), IO_OK);
		/* Newer versions of some, acknowledged or in flight, never flushed. */
		for (uint32_t i = 0; i < 4; i++)
			bed_put(&b, i * 40, 1 + (i * 7 + (uint32_t)seed) % 40, 2);
		for (uint32_t i = 0; i < 8; i++) {
			late[i] = put_new(&b, (i + 4) * 40, 1, 1, 3);
			assert_int_equal(stripelog_append(b.log, &late[i]->a), 0);
		}
		for (unsigned int r = 0; r < seed % 4; r++)
			shard_run_once(b.sh);
		power_cut(&b);
		for (uint32_t i = 0; i < 8; i++) {
			put_wait(&b, late[i]);
			put_free(late[i]);
		}
		bed_stop(&b);
		without = 1u << (seed % 8) | 1u << (seed / 3 % 8);
		open_all(&b, without, m);
		assert_int_equal(m->lost_committed, 0);
		for (uint32_t i = 0; i < 20; i++) {
			uint32_t n = 1 + (i * 7 + (uint32_t)seed) % 40;
			uint32_t v = version_of(&b, m, i * 40 + n - 1);

			assert_true(v == 1 || (i < 4 && v == 2) || (i >= 4 && i < 12 && v == 3));
			assert_true(version_of(&b, m, i * 40) >= 1);
		}
		bed_close(&b);
		free(m);
	}
}

/* What the first opening after a crash saw is what every later one sees, whichever devices are there. */
static void a_verdict_holds_whoever_is_missing_later(void **state)
{
	unsigned int voided = 0, kept = 0;

	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct vmap *m = malloc(sizeof(*m));
		struct bed_cfg cfg = BED_4_2;
		uint32_t verdict[16], records[16];
		struct bed b;

		cfg.seed = seed;
		b = fresh(cfg, m);
		for (uint32_t i = 0; i < 16; i++)
			bed_put(&b, i * 40, 20, 1);
		assert_int_equal(bed_flush(&b), IO_OK);
		for (uint32_t i = 0; i < 16; i++) {
			bed_put(&b, i * 40, 20, 2);
			assert_int_equal(bed_record(&b, i), IO_OK);
		}
		power_cut(&b);
		bed_stop(&b);
		open_all(&b, 1u << (seed % 8), m);
		for (uint32_t i = 0; i < 16; i++) {
			verdict[i] = version_of(&b, m, i * 40);
			records[i] = m->records[i];
			assert_true(verdict[i] == 1 || verdict[i] == 2);
			voided += verdict[i] == 1;
			kept += verdict[i] == 2;
		}
		for (unsigned int round = 0; round < 4; round++) {
			uint32_t without = round == 0 ? 0
						      : 1u << ((seed + round) % 8) |
								1u << ((seed * 3 + round) % 8);

			power_cut(&b);
			bed_stop(&b);
			open_all(&b, without, m);
			for (uint32_t i = 0; i < 16; i++) {
				assert_int_equal(version_of(&b, m, i * 40), verdict[i]);
				assert_int_equal(m->records[i] > 0, records[i] > 0);
			}
			assert_int_equal(m->lost_committed, 0);
		}
		bed_close(&b);
		free(m);
	}
	/* The cuts must have gone both ways for this to say anything. */
	assert_true(voided > 20 && kept > 20);
}

static void dying_during_recovery_is_harmless(void **state)
{
	for (uint64_t seed = 1; seed <= 24; seed++) {
		struct fault_rule gone = {.any_op = true,
			.per_million = 1000000,
			.status = FLASH_ERR_GONE,
			.skip = (uint32_t)(seed * 5)};
		struct vmap *m = malloc(sizeof(*m));
		struct bed_cfg cfg = BED_4_2;
		uint32_t verdict[16];
		struct err err;
		struct bed b;

		cfg.seed = seed;
		b = fresh(cfg, m);
		for (uint32_t i = 0; i < 16; i++)
			bed_put(&b, i * 40, 20, 1);
		assert_int_equal(bed_flush(&b), IO_OK);
		for (uint32_t i = 0; i < 16; i++)
			bed_put(&b, i * 40, 20, 2);
		power_cut(&b);
		bed_stop(&b);
		assert_int_equal(bed_reopen(&b, 0, &err), 0);
		vmap_scan(&b, m);
		for (unsigned int d = 0; d < cfg.ndevs; d++)
			fault_rule_add(b.flash[d], &gone);
		if (pool_epoch_begin(b.pool, &err) == 0)
			stripelog_recover(b.log, on_moved, m, &err);
		power_cut(&b);
		bed_stop(&b);
		open_all(&b, 0, m);
		for (uint32_t i = 0; i < 16; i++)
			verdict[i] = version_of(&b, m, i * 40);
		bed_stop(&b);
		open_all(&b, 1u << (seed % 8), m);
		for (uint32_t i = 0; i < 16; i++) {
			assert_true(verdict[i] == 1 || verdict[i] == 2);
			assert_int_equal(version_of(&b, m, i * 40), verdict[i]);
		}
		assert_int_equal(m->lost_committed, 0);
		bed_close(&b);
		free(m);
	}
}

static void too_few_fragments_of_a_durable_stripe_are_a_loss(void **state)
{
	struct vmap *m = malloc(sizeof(*m));
	struct bed b = fresh(BED_4_2, m);

	for (uint32_t i = 0; i < 8; i++)
		bed_put(&b, i * 40, 40, 1);
	assert_int_equal(bed_flush(&b), IO_OK);
	bed_put(&b, 1000, 4, 1); /* carries the watermark, to all devices of the group */
	assert_int_equal(bed_flush(&b), IO_OK);
	bed_stop(&b);
	open_all(&b, 0x0f, m);
	assert_true(m->lost > 0);
	assert_int_equal(m->lost_committed, m->lost);
	bed_close(&b);
	free(m);
}

static void a_write_nobody_completed_is_no_loss(void **state)
{
	struct vmap *m = malloc(sizeof(*m));
	struct bed b = fresh(BED_4_2, m);
	unsigned int given_up = 0;

	bed_put(&b, 0, 40, 1);
	assert_int_equal(bed_flush(&b), IO_OK);
	/* Devices die one after the other until writes are refused. */
	for (unsigned int d = 0; d < 8; d++) {
		struct put *p = put_new(&b, 100 + d * 40, 40, 1, 1);

		fault_set_gone(b.flash[d], true);
		if (stripelog_append(b.log, &p->a) == 0)
			given_up += put_wait(&b, p) != IO_OK;
		put_free(p);
	}
	assert_true(given_up >= 1);
	bed_stop(&b);
	open_all(&b, 0, m);
	assert_int_equal(m->lost_committed, 0);
	assert_int_equal(version_of(&b, m, 39), 1);
	bed_close(&b);
	free(m);
}

static void payload_that_looks_like_a_header_is_payload(void **state)
{
	struct vmap *m = malloc(sizeof(*m));
	struct bed b = fresh(BED_4_2, m);
	uint8_t *raw = malloc(POOL_SEGMENT_MIN), *at = NULL;
	unsigned int dev = 0;
	struct put *p;

	/* A VM that got hold of a real fragment, header and all, writes it as its data; then the writer dies. */
	bed_put(&b, 0, 8, 1);
	for (dev = 0; dev < 8 && !at; dev++) {
		for (uint32_t seg = 1; seg < 32 && !at; seg++) {
			assert_int_equal(
				flash_rw_sync(b.flash[dev], FLASH_READ,
					(uint64_t)seg * POOL_SEGMENT_MIN, raw, POOL_SEGMENT_MIN),
				0);
			if (memcmp(raw, "PARASEGM", 8) == 0 &&
				memcmp(raw + 4096, "PARASTRP", 8) == 0)
				at = raw + 4096;
		}
	}
	assert_non_null(at);
	p = put_new(&b, 500, 8, 1, 9);
	for (uint32_t i = 0; i < 8; i++)
		memcpy(p->mem + i * EC_BLOCK, at, EC_BLOCK);
	assert_int_equal(stripelog_append(b.log, &p->a), 0);
	assert_int_equal(put_wait(&b, p), IO_OK);
	put_free(p);
	/* Break the real headers of that stripe, so that the search runs through its payload. */
	for (unsigned int d = 0; d < 8; d++) {
		for (uint32_t seg = 1; seg < 32; seg++) {
			uint64_t off = (uint64_t)seg * POOL_SEGMENT_MIN;

			assert_int_equal(
				flash_rw_sync(b.flash[d], FLASH_READ, off, raw, POOL_SEGMENT_MIN),
				0);
			if (memcmp(raw, "PARASEGM", 8) != 0)
				continue;
			for (uint32_t o = 4096; o < POOL_SEGMENT_MIN; o += 512) {
				if (memcmp(raw + o, "PARASTRP", 8) == 0 && raw[o + 72] != at[72]) {
					memset(raw + o, 0, 512);
					assert_int_equal(flash_rw_sync(b.flash[d], FLASH_WRITE,
								 off + o, raw + o, 512),
						0);
				}
			}
		}
	}
	bed_stop(&b);
	open_all(&b, 0, m);
	assert_int_equal(version_of(&b, m, 7), 1);
	assert_false(m->blk[500].mapped);
	bed_close(&b);
	free(raw);
	free(m);
}

static void a_full_log_is_found_again(void **state)
{
	struct vmap *m = malloc(sizeof(*m));
	struct bed_cfg cfg = BED_4_2;
	uint32_t n = 0;
	struct bed b;

	cfg.size_mib = 10;
	cfg.fault = false;
	b = fresh(cfg, m);
	while (stripelog_reserve(b.log, cfg.scheme, POOL_DEV_NONE, 33) == 0) {
		bed_put(&b, n % 64 * 40, 33, n + 1);
		n++;
	}
	assert_true(n > 100);
	bed_stop(&b);
	open_all(&b, 1, m);
	for (uint32_t i = 0; i < 64; i++)
		assert_int_equal(version_of(&b, m, i * 40 + 32), (n - 1 - (n - 1 - i) % 64) + 1);
	bed_close(&b);
	free(m);
}

/* A device that was away while others went on comes back: what it missed, and what was voided, stays so. */
static void a_device_that_was_away_is_believed_only_where_it_is_right(void **state)
{
	struct vmap *m = malloc(sizeof(*m));
	struct bed b = fresh(BED_4_2, m);

	for (uint32_t i = 0; i < 20; i++)
		bed_put(&b, i * 40, 20, 1);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(bed_record(&b, i), IO_OK);
	assert_int_equal(bed_flush(&b), IO_OK);
	bed_stop(&b);
	for (unsigned int round = 0; round < 8; round++) {
		uint32_t version = round + 2;

		open_all(&b, 1u << round, m);
		assert_int_equal(m->lost_committed, 0);
		for (uint32_t i = 0; i < 20; i++) {
			assert_int_equal(version_of(&b, m, i * 40 + 19), version - 1);
			assert_true(m->records[i] > 0);
			bed_put(&b, i * 40, 20, version);
		}
		assert_int_equal(bed_flush(&b), IO_OK);
		bed_stop(&b);
	}
	open_all(&b, 0, m);
	for (uint32_t i = 0; i < 20; i++)
		assert_int_equal(version_of(&b, m, i * 40), 9);
	bed_close(&b);
	free(m);
}

/* Flips `n` random bits in the log segments of a closed device. */
static void flip_bits(struct bed *b, unsigned int dev, unsigned int n)
{
	struct flash *f = bed_flash(b, dev);
	uint8_t buf[512];

	for (unsigned int i = 0; i < n; i++) {
		uint64_t off = POOL_SEGMENT_MIN +
			       shard_random(b->sh) % (6ull * POOL_SEGMENT_MIN) / 512 * 512;

		/* Half of them where headers are. */
		if (i % 2)
			off = off / POOL_SEGMENT_MIN * POOL_SEGMENT_MIN +
			      shard_random(b->sh) % 128 * 512;
		assert_int_equal(flash_rw_sync(f, FLASH_READ, off, buf, 512), 0);
		buf[shard_random(b->sh) % 512] ^= (uint8_t)(1u << shard_random(b->sh) % 8);
		assert_int_equal(flash_rw_sync(f, FLASH_WRITE, off, buf, 512), 0);
	}
	assert_int_equal(flash_rw_sync(f, FLASH_FLUSH, 0, NULL, 0), 0);
	flash_close(f);
}

/* Rotten bits on two devices: everything is there. On all of them: what is read is right, or is not read. */
static void rotten_bits_never_become_data(void **state)
{
	unsigned int unread = 0, decoded = 0;

	for (uint64_t seed = 1; seed <= 16; seed++) {
		struct vmap *m = malloc(sizeof(*m));
		struct bed_cfg cfg = BED_4_2;
		struct stripelog_stats st;
		bool all = seed % 2;
		struct bed b;

		cfg.seed = seed;
		b = fresh(cfg, m);
		for (uint32_t i = 0; i < 60; i++)
			bed_put(&b, i * 40, 1 + i * 11 % 40, 1);
		assert_int_equal(bed_flush(&b), IO_OK);
		bed_put(&b, 60 * 40, 40, 1);
		assert_int_equal(bed_flush(&b), IO_OK);
		bed_stop(&b);
		for (unsigned int d = 0; d < cfg.ndevs; d++) {
			if (all || d == seed % 8 || d == seed / 2 % 8)
				flip_bits(&b, d, all ? 400 : 2000);
		}
		open_all(&b, 0, m);
		for (uint32_t i = 0; i < 60; i++) {
			uint32_t n = 1 + i * 11 % 40;

			for (uint32_t at = 0; at < n; at += 7) {
				const struct vblock *v = &m->blk[i * 40 + at];

				if (!all)
					assert_int_equal(version_of(&b, m, i * 40 + at), 1);
				else if (!v->mapped)
					unread++;
				else if (bed_get(&b, v->ref, i * 40, v->pos, 1, 1, NULL) != IO_OK)
					unread++;
			}
		}
		stripelog_stats(b.log, &st);
		decoded += st.decoded_blocks > 0;
		bed_close(&b);
		free(m);
	}
	assert_true(unread > 0);
	assert_true(decoded > 8);
}

/* More stripes above the watermark, with more holes, than one record of a verdict can name. */
static void a_verdict_of_many_parts_is_one_verdict(void **state)
{
	struct vmap *m = malloc(sizeof(*m));
	struct bed_cfg cfg = BED_4_2;
	uint8_t verdict[1500];
	unsigned int kept = 0;
	struct bed b;

	cfg.size_mib = 64;
	b = fresh(cfg, m);
	for (uint32_t i = 0; i < 1500; i++)
		bed_put(&b, i, 1, 1);
	power_cut(&b);
	bed_stop(&b);
	open_all(&b, 0, m);
	for (uint32_t i = 0; i < 1500; i++) {
		verdict[i] = (uint8_t)version_of(&b, m, i);
		kept += verdict[i];
	}
	assert_true(kept > 100 && kept < 1500);
	for (unsigned int round = 0; round < 2; round++) {
		power_cut(&b);
		bed_stop(&b);
		open_all(&b, 1u << (round * 3), m);
		for (uint32_t i = 0; i < 1500; i++)
			assert_int_equal(version_of(&b, m, i), verdict[i]);
	}
	bed_close(&b);
	free(m);
}

/* Devices that fail writes, reads and flushes at random while stripes are appended, until most are dead: every acknowledged stripe that was
 * flushed while at most m had died since is there, nothing is invented, and the pool opens again. */
static void a_storm_of_faults_ends_every_append_once(void **state)
{
	unsigned int all_acked = 0, refused = 0;

	for (uint64_t seed = 1; seed <= 40; seed++) {
		struct fault_rule rule = {
			.op = FLASH_WRITE, .per_million = 4000, .status = FLASH_ERR_MEDIA};
		struct fault_rule shaky = {
			.any_op = true, .per_million = 20000, .status = FLASH_ERR_TRANSIENT};
		struct vmap *m = malloc(sizeof(*m));
		unsigned int acked = 0, ended = 0;
		struct put *p[8] = {NULL};
		struct bed_cfg cfg = BED_4_2;
		struct bed b;

		cfg.seed = seed;
		cfg.on_degraded = seed % 2 ? POOL_DEGRADED_ALLOW : POOL_DEGRADED_REFUSE;
		cfg.volatile_cache = seed % 3;
		b = fresh(cfg, m);
		rule.per_million = seed % 4 ? 4000 : 100000;
		for (unsigned int d = 0; d < cfg.ndevs; d++) {
			assert_true(fault_rule_add(b.flash[d], &rule) >= 0);
			assert_true(fault_rule_add(b.flash[d], &shaky) >= 0);
		}
		for (unsigned int i = 0; i < 240; i++) {
			unsigned int slot = i % 8;

			if (p[slot]) {
				acked += put_wait(&b, p[slot]) == IO_OK;
				ended++;
				put_free(p[slot]);
			}
			p[slot] = put_new(&b, i % 60 * 40, 1 + i % 40, 1, i + 1);
			p[slot]->a.fua = i % 5 == 0;
			if (stripelog_append(b.log, &p[slot]->a) < 0) {
				put_free(p[slot]);
				p[slot] = NULL;
			}
		}
		for (unsigned int i = 0; i < 8; i++) {
			if (!p[i])
				continue;
			acked += put_wait(&b, p[i]) == IO_OK;
			ended++;
			put_free(p[i]);
		}
		assert_true(acked <= ended);
		all_acked += acked;
		refused += ended - acked;
		assert_int_equal(stripelog_inflight(b.log), 0);
		bed_stop(&b);
		open_all(&b, 0, m);
		for (uint32_t i = 0; i < 60; i++)
			version_of(&b, m, i * 40);
		bed_close(&b);
		free(m);
	}
	assert_true(all_acked > 500 && refused > 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_clean_stop_finds_everything_again),
		cmocka_unit_test(what_was_flushed_survives_a_power_cut_and_the_loss_of_two),
		cmocka_unit_test(a_verdict_holds_whoever_is_missing_later),
		cmocka_unit_test(dying_during_recovery_is_harmless),
		cmocka_unit_test(too_few_fragments_of_a_durable_stripe_are_a_loss),
		cmocka_unit_test(a_write_nobody_completed_is_no_loss),
		cmocka_unit_test(payload_that_looks_like_a_header_is_payload),
		cmocka_unit_test(a_full_log_is_found_again),
		cmocka_unit_test(a_device_that_was_away_is_believed_only_where_it_is_right),
		cmocka_unit_test(rotten_bits_never_become_data),
		cmocka_unit_test(a_verdict_of_many_parts_is_one_verdict),
		cmocka_unit_test(a_storm_of_faults_ends_every_append_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
