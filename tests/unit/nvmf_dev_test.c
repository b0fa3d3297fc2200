/* SPDX-License-Identifier: BSD-3-Clause */
/* A namespace over several paths: against scripted targets on real sockets. What reservations do is nvmf_claim_test's. */
#include "tests/unit/nvmf_devbed.h"

/* ---- without trouble ------------------------------------------------------------------------------------------ */

static void a_namespace_says_what_it_is(void **state)
{
	const struct nvmf_dev_info *info;

	peer_add(0, (struct peer_cfg){.reservations = true});
	d = dev_open(0);
	info = nvmf_dev_info(d);
	assert_int_equal(info->nblocks, PEER_BLOCKS);
	assert_int_equal(info->block_bytes, PEER_BLOCK);
	assert_int_equal(info->atomic_bytes, PEER_BLOCK);
	assert_int_equal(info->max_blocks, (256 << 10) / PEER_BLOCK);
	assert_int_equal(info->max_pieces, NVMF_IOV_MAX);
	assert_true(info->volatile_cache && info->write_zeroes && info->discard);
	assert_true(info->reservations);
	assert_string_equal(info->serial, "PEER0001");
	assert_string_equal(info->model, "Scripted peer");
	assert_int_equal(nvmf_dev_quiet_ns(d), 0);
}

static void every_operation_reaches_the_namespace(void **state)
{
	struct req *r;

	peer_add(0, (struct peer_cfg){.capsule_bytes = 8192});
	d = dev_open(0);
	assert_int_equal(run(NVMF_DEV_WRITE, 8, 0x5a), NVMF_DEV_OK);
	assert_true(holds(8, 0x5a));
	r = submit(NVMF_DEV_READ, 8, 0);
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
	assert_int_equal(r->buf[0], 0x5a);
	assert_int_equal(r->buf[LEN - 1], 0x5a);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK);
	assert_int_equal(peers[0]->nflushes, 1);
	assert_int_equal(run(NVMF_DEV_WRITE_ZEROES, 8, 0), NVMF_DEV_OK);
	assert_true(holds(8, 0));
	assert_int_equal(run(NVMF_DEV_DISCARD, 8, 0), NVMF_DEV_OK);
}

static void malformed_ios_and_one_too_many_are_refused(void **state)
{
	struct req *r;

	peer_add(0, (struct peer_cfg){0});
	d = dev_begin(0);
	r = req_new(NVMF_DEV_READ, 0, 0);
	assert_int_equal(nvmf_dev_submit(d, &r->io), -EINVAL); /* nothing is known of it yet */
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	r->io.lba = PEER_BLOCKS - 1;
	assert_int_equal(nvmf_dev_submit(d, &r->io), -EINVAL);
	r->io.lba = UINT64_MAX;
	assert_int_equal(nvmf_dev_submit(d, &r->io), -EINVAL);
	r->io.lba = 0;
	r->io.nblocks--;
	assert_int_equal(nvmf_dev_submit(d, &r->io), -EINVAL);
	r->io.nblocks = 0;
	assert_int_equal(nvmf_dev_submit(d, &r->io), -EINVAL);
	r->io.op = NVMF_DEV_FLUSH;
	assert_int_equal(nvmf_dev_submit(d, &r->io), -EINVAL);
	r->io.op = NVMF_DEV_DISCARD;
	r->io.nblocks = 1;
	assert_int_equal(nvmf_dev_submit(d, &r->io), -EINVAL);
	assert_int_equal(r->done, 0);
}

static void waiting_tells_why_there_is_nothing(void **state)
{
	struct nvmf_dev_cfg cfg = {.ctrl = {.subnqn = PEER_NQN}, .npaths = 1, .nsid = 2};
	struct err err = {0};

	peer_add(0, (struct peer_cfg){0});
	snprintf(cfg.paths[0].host, sizeof(cfg.paths[0].host), "127.0.0.1");
	cfg.paths[0].port = peers[0]->port;
	assert_int_equal(nvmf_dev_open(sh, &cfg, NULL, NULL, &d, &err), 0);
	assert_int_equal(nvmf_dev_wait(d, 20000, &err), -ENODEV);
	assert_non_null(strstr(err.reason, "no such namespace"));
	nvmf_dev_close(d);
	peer_down(peers[0]);
	cfg.nsid = 1;
	assert_int_equal(nvmf_dev_open(sh, &cfg, NULL, NULL, &d, &err), 0);
	assert_int_equal(nvmf_dev_wait(d, 200, &err), -ECONNREFUSED);
	nvmf_dev_close(d);
	d = NULL;
	cfg.npaths = 0;
	assert_int_equal(nvmf_dev_open(sh, &cfg, NULL, NULL, &d, &err), -EINVAL);
	assert_string_equal(err.field, "paths");
	cfg.npaths = 1;
	cfg.nsid = 0;
	assert_int_equal(nvmf_dev_open(sh, &cfg, NULL, NULL, &d, &err), -EINVAL);
	assert_string_equal(err.field, "namespace");
}

/* ---- lost connections and ghosts --------------------------------------------------------------------------------- */

static void a_read_is_sent_again_at_once_after_a_loss(void **state)
{
	struct req *r;

	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	memset(ns->mem, 0x31, LEN);
	peer_hold(peers[0], NVME_CMD_READ, 1, PEER_HOLD_ALL);
	r = submit(NVMF_DEV_READ, 0, 0);
	wait_held();
	lose_first();
	assert_int_equal(r->done, 0);
	assert_int_equal(nvmf_dev_quiet_ns(d), 0); /* reads leave no ghosts */
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
	assert_int_equal(r->buf[LEN - 1], 0x31);
}

static void a_repeatable_write_is_sent_again_at_once(void **state)
{
	struct req *r;

	peer_add(0, (struct peer_cfg){.cqt = 20000});
	d = dev_open(0);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	r = submit_to(d, NVMF_DEV_WRITE, 0, 0x77, true);
	wait_held();
	lose_first();
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
	assert_true(holds(0, 0x77));
	assert_true(nvmf_dev_quiet_ns(d) > shard_now_ns(sh)); /* the ghost is still about */
}

static void an_unrepeatable_write_waits_until_its_ghost_is_over(void **state)
{
	struct req *r;
	uint64_t quiet;

	peer_add(0, (struct peer_cfg){.cqt = 300});
	d = dev_open(0);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	r = submit(NVMF_DEV_WRITE, 0, 0x66);
	wait_held();
	lose_first();
	quiet = nvmf_dev_quiet_ns(d);
	assert_true(quiet >= shard_now_ns(sh) + (2 * KATO_MS + 300 - 100) * MS);
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(ns->nwrites, 0);
	assert_true(shard_now_ns(sh) >= quiet || !r->done);
	peer_release(peers[0]); /* the ghost */
	assert_int_equal(ns->nwrites, 1);
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
	assert_true(r->ended_ns >= quiet);
	assert_int_equal(ns->nwrites, 2);
	assert_true(holds(0, 0x66));
	assert_int_equal(nvmf_dev_quiet_ns(d), 0);
}

static void a_new_write_over_a_ghost_waits_for_its_end(void **state)
{
	struct req *first, *second, *elsewhere;
	uint64_t quiet;

	peer_add(0, (struct peer_cfg){.cqt = 600});
	d = dev_open(0);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	first = submit_to(d, NVMF_DEV_WRITE, 16, 1, true);
	wait_held();
	lose_first();
	quiet = nvmf_dev_quiet_ns(d);
	assert_int_equal(wait_for(first), NVMF_DEV_OK);
	second = submit_to(d, NVMF_DEV_WRITE, 16 + 7, 2, true); /* one block of it */
	elsewhere = submit_to(d, NVMF_DEV_WRITE, 16 + 8 + 8, 3, true);
	assert_int_equal(wait_for(elsewhere), NVMF_DEV_OK);
	if (elsewhere->ended_ns < quiet)
		assert_int_equal(second->done, 0);
	peer_release(peers[0]); /* the first write, once more: over nothing newer */
	assert_int_equal(wait_for(second), NVMF_DEV_OK);
	assert_true(second->ended_ns >= quiet);
	assert_true(holds(16 + 7, 2));
}

static void zeros_wait_and_a_discard_is_only_a_hint(void **state)
{
	struct req *zero, *trim;
	uint64_t quiet;

	peer_add(0, (struct peer_cfg){.cqt = 100});
	d = dev_open(0);
	peer_hold(peers[0], NVME_CMD_WRITE_ZEROES, 1, PEER_HOLD_ALL);
	zero = submit(NVMF_DEV_WRITE_ZEROES, 0, 0);
	wait_held();
	peer_hold(peers[0], NVME_CMD_DSM, 1, PEER_HOLD_ALL);
	trim = submit(NVMF_DEV_DISCARD, 64, 0);
	while (peers[0]->nheld < 2)
		shard_run_once(sh);
	lose_first();
	quiet = nvmf_dev_quiet_ns(d);
	assert_int_equal(wait_for(trim), NVMF_DEV_OK);
	assert_int_equal(wait_for(zero), NVMF_DEV_OK);
	assert_true(zero->ended_ns >= quiet);
}

static void what_the_target_has_lost_cannot_be_flushed(void **state)
{
	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK);
	lose_first();
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK); /* nothing was in its cache */
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 2), NVMF_DEV_OK);
	lose_first();
	assert_int_equal(run(NVMF_DEV_WRITE, 8, 3), NVMF_DEV_OK);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes, 2);
}

static void an_outage_too_short_for_a_restart_keeps_the_cache(void **state)
{
	uint64_t before;

	peer_add(0, (struct peer_cfg){0});
	restart_min_ms = 0;
	d = dev_open(0);
	for (uint32_t i = 0; i < 3; i++) {
		uint32_t seen = peers[0]->nflushes;

		before = shard_now_ns(sh);
		assert_int_equal(run(NVMF_DEV_WRITE, 8 * i, 1), NVMF_DEV_OK);
		lose_first();
		assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
		away_for(20); /* a second time before the flush */
		if (shard_now_ns(sh) - before >= 8000 * MS)
			skip(); /* the machine stood still for so long */
		assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK);
		assert_int_equal(peers[0]->nflushes, seen + 1);
	}
}

static void an_outage_in_which_the_target_may_have_restarted_does_not(void **state)
{
	peer_add(0, (struct peer_cfg){0});
	restart_min_ms = 300;
	d = dev_open(0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	away_for(320);
	lose_first(); /* that this one is short does not help */
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes, 0);
}

/* They may be those of a target that has restarted. */
static void answers_while_connecting_do_not_shorten_an_outage(void **state)
{
	uint32_t seen;

	peer_add(0, (struct peer_cfg){0});
	restart_min_ms = 300;
	d = dev_open(0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	peers[0]->cfg.mischief = PEER_REFUSE_CONNECT;
	lose_first();
	seen = peers[0]->nconnects;
	run_for(320);
	assert_true(peers[0]->nconnects > seen + 1);
	peers[0]->cfg.mischief = PEER_GOOD;
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_GONE);
	assert_int_equal(peers[0]->nflushes, 0);
}

static void a_flush_goes_down_the_path_that_was_there_all_the_time(void **state)
{
	peer_add(0, (struct peer_cfg){0});
	peer_add(1, (struct peer_cfg){.ana = true, .ana_state = NVME_ANA_NON_OPTIMIZED});
	d = dev_open(0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	lose_first();
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK);
	assert_int_equal(peers[0]->nflushes, 0);
	assert_int_equal(peers[1]->nflushes, 1);
	assert_int_equal(run(NVMF_DEV_FLUSH, 0, 0), NVMF_DEV_OK);
	assert_int_equal(peers[0]->nflushes, 1);
}

static void io_waits_for_a_peer_that_restarts(void **state)
{
	struct req *r, *w;

	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	peer_down(peers[0]);
	assert_int_equal(shard_wait(sh, first_is_down, NULL, WAIT_NS), 0);
	r = submit(NVMF_DEV_READ, 0, 1);
	w = submit(NVMF_DEV_WRITE, 8, 9);
	run_for(150);
	assert_int_equal(r->done + w->done, 0);
	assert_false(nvmf_dev_is_ready(d));
	assert_int_equal(peer_up(peers[0]), 0);
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
	assert_int_equal(wait_for(w), NVMF_DEV_OK);
	assert_true(holds(8, 9));
}

static void an_abandoned_device_ends_everything_and_sends_nothing_more(void **state)
{
	struct req *r, *w, *waits;
	uint32_t commands;

	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	w = submit(NVMF_DEV_WRITE, 0, 4);
	wait_held();
	peer_hold(peers[0], NVME_CMD_READ, 1, PEER_HOLD_ALL);
	r = submit(NVMF_DEV_READ, 0, 4);
	waits = submit(NVMF_DEV_FLUSH, 0, 0);
	commands = peers[0]->ncommands;
	nvmf_dev_abandon(d);
	assert_int_equal(w->done + r->done + waits->done, 3);
	assert_int_equal(w->io.result, NVMF_DEV_GONE);
	assert_int_equal(r->io.result, NVMF_DEV_GONE);
	assert_true(nvmf_dev_quiet_ns(d) > shard_now_ns(sh));
	assert_int_equal(nvmf_dev_submit(d, &req_new(NVMF_DEV_READ, 0, 0)->io), -ENODEV);
	run_for(100);
	assert_true(peers[0]->ncommands <= commands + 2); /* what was on its way */
	assert_int_equal(ns->nwrites, 0);
}

/* ---- several paths -------------------------------------------------------------------------------------------------- */

static void what_was_on_a_lost_path_goes_down_another(void **state)
{
	struct req *r, *w;

	peer_add(0, (struct peer_cfg){.ana = true});
	peer_add(1, (struct peer_cfg){.ana = true, .ana_state = NVME_ANA_NON_OPTIMIZED});
	d = dev_open(0);
	peer_hold(peers[0], NVME_CMD_READ, 1, PEER_HOLD_ALL);
	r = submit(NVMF_DEV_READ, 0, 0);
	wait_held();
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	w = submit_to(d, NVMF_DEV_WRITE, 8, 5, true);
	while (peers[0]->nheld < 2)
		shard_run_once(sh);
	peer_down(peers[0]);
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
	assert_int_equal(wait_for(w), NVMF_DEV_OK);
	assert_true(holds(8, 5));
	assert_true(nvmf_dev_is_ready(d));
	assert_false(is_up(d, 0));
}

static bool second_works(void *arg)
{
	return stats_of(1).commands > *(uint64_t *)arg;
}

static void io_follows_the_state_of_the_paths(void **state)
{
	uint64_t before;
	struct req *r;

	peer_add(0, (struct peer_cfg){.ana = true});
	peer_add(1, (struct peer_cfg){.ana = true, .ana_state = NVME_ANA_NON_OPTIMIZED});
	d = dev_open(0);
	before = ns->nwrites;
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_OK);
	assert_int_equal(ns->nwrites, before + 4);
	before = stats_of(1).commands;
	peer_set_ana(peers[0], NVME_ANA_INACCESSIBLE);
	assert_int_equal(shard_wait(sh, first_is_down, NULL, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 2), NVMF_DEV_OK);
	assert_true(second_works(&before));
	/* Nobody tells: the answer to the next command does. */
	peers[1]->ana_state = NVME_ANA_CHANGE;
	r = submit(NVMF_DEV_WRITE, 0, 3);
	run_for(100);
	assert_int_equal(r->done, 0);
	assert_false(nvmf_dev_is_ready(d));
	peer_set_ana(peers[0], NVME_ANA_OPTIMIZED);
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
	assert_true(is_up(d, 0));
	assert_int_equal(stats_of(0).losses + stats_of(1).losses, 0);
}

static void another_namespace_behind_the_address_is_not_used(void **state)
{
	uint32_t writes;
	struct req *w;

	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	peer_down(peers[0]);
	assert_int_equal(shard_wait(sh, first_is_down, NULL, WAIT_NS), 0);
	ns->nguid[3] ^= 0xff;
	writes = ns->nwrites;
	w = submit(NVMF_DEV_WRITE, 0, 7);
	assert_int_equal(peer_up(peers[0]), 0);
	run_for(300);
	assert_int_equal(w->done, 0);
	assert_int_equal(ns->nwrites, writes);
	ns->nguid[3] ^= 0xff;
	assert_int_equal(wait_for(w), NVMF_DEV_OK);
}

/* ---- answers ---------------------------------------------------------------------------------------------------------- */

static void a_command_that_takes_too_long_is_aborted_and_sent_again(void **state)
{
	struct req *w;

	peer_add(0, (struct peer_cfg){0});
	d = dev_open(50);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	w = submit(NVMF_DEV_WRITE, 0, 8); /* the target's word: it was not carried out */
	assert_int_equal(wait_for(w), NVMF_DEV_OK);
	assert_int_equal(peers[0]->naborts, 1);
	assert_int_equal(ns->nwrites, 1);
	assert_int_equal(stats_of(0).losses, 0);
	assert_int_equal(nvmf_dev_quiet_ns(d), 0);
}

static void an_abort_without_effect_costs_the_connection(void **state)
{
	struct req *w;

	peer_add(0, (struct peer_cfg){.aborts_nothing = true});
	d = dev_open(50);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	w = submit(NVMF_DEV_WRITE, 0, 8);
	wait_held();
	assert_int_equal(shard_wait(sh, first_is_down, NULL, WAIT_NS), 0);
	assert_int_equal(w->done, 0);
	assert_int_equal(wait_for(w), NVMF_DEV_OK);
	assert_true(stats_of(0).losses >= 1);
	assert_int_equal(ns->nwrites, 1);
}

static void what_never_works_ends_as_transient(void **state)
{
	peer_add(0, (struct peer_cfg){0});
	d = dev_open(20);
	peer_hold(peers[0], NVME_CMD_WRITE, 1000, PEER_HOLD_ALL);
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 8), NVMF_DEV_TRANSIENT);
	assert_in_range(peers[0]->naborts, 2, 20);
	assert_int_equal(ns->nwrites, 0);
}

static void a_media_error_is_the_blocks_own(void **state)
{
	peer_add(0, (struct peer_cfg){.mischief = PEER_MEDIA_ERROR});
	d = dev_open(0);
	assert_int_equal(run(NVMF_DEV_READ, 0, 0), NVMF_DEV_MEDIA);
	assert_int_equal(run(NVMF_DEV_READ, 0, 0), NVMF_DEV_OK);
}

/* Whatever the target does instead of answering: OK is said when it has said so, and reads have what it sent. */
static void no_mischief_makes_up_an_acknowledgement(void **state)
{
	for (int m = PEER_RESP_UNKNOWN; m < PEER_MEDIA_ERROR; m++) {
		struct req *r, *w;

		if (m == PEER_RESP_TWICE) /* its first answer is one */
			continue;
		teardown(state);
		setup(state);
		peer_add(0,
			(struct peer_cfg){
				.mischief = (enum peer_mischief)m, .hdgst = true, .ddgst = true});
		memset(ns->mem, 0x44, LEN);
		d = dev_open(100);
		r = submit(NVMF_DEV_READ, 0, 0);
		w = submit_to(d, NVMF_DEV_WRITE, 8, 0x55, true);
		assert_int_equal(wait_for(r), NVMF_DEV_OK);
		assert_int_equal(r->buf[0], 0x44);
		assert_int_equal(r->buf[LEN - 1], 0x44);
		assert_int_equal(wait_for(w), NVMF_DEV_OK);
		assert_true(holds(8, 0x55));
	}
}

static void a_target_that_flips_bits_is_survived(void **state)
{
	peer_add(0, (struct peer_cfg){.mischief = PEER_MUTATE, .seed = 5});
	d = dev_begin(50);
	run_for(500);
	for (int i = 0; i < 8 && nvmf_dev_info(d)->nblocks; i++) {
		struct req *r = req_new(i % 2 ? NVMF_DEV_WRITE : NVMF_DEV_READ, 0, 0);

		(void)nvmf_dev_submit(d, &r->io);
	}
	run_for(500);
	nvmf_dev_abandon(d);
}

/* ---- the namespace changes -------------------------------------------------------------------------------------------- */

static bool is_resized(void *arg)
{
	return nresized;
}

static void a_change_of_size_is_told(void **state)
{
	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	ns->nblocks = PEER_BLOCKS / 2;
	peer_async_event(peers[0],
		NVME_AER_TYPE_NOTICE | NVME_AER_NOTICE_NS_ATTR << 8 | NVME_LOG_CHANGED_NS << 16);
	assert_int_equal(shard_wait(sh, is_resized, NULL, WAIT_NS), 0);
	assert_int_equal(nvmf_dev_info(d)->nblocks, PEER_BLOCKS / 2);
	assert_int_equal(
		nvmf_dev_submit(d, &req_new(NVMF_DEV_READ, PEER_BLOCKS / 2, 0)->io), -EINVAL);
	assert_int_equal(run(NVMF_DEV_READ, 0, 0), NVMF_DEV_OK);
}

static void a_namespace_that_was_taken_away_is_gone_until_it_is_back(void **state)
{
	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	peers[0]->cfg.no_namespace = true;
	assert_int_equal(run(NVMF_DEV_WRITE, 0, 1), NVMF_DEV_GONE);
	assert_int_equal(run(NVMF_DEV_READ, 0, 1), NVMF_DEV_GONE);
	peers[0]->cfg.no_namespace = false;
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
	assert_int_equal(run(NVMF_DEV_READ, 0, 1), NVMF_DEV_OK);
}

static void a_namespace_that_comes_late_after_a_restart_is_waited_for(void **state)
{
	struct req *r;

	peer_add(0, (struct peer_cfg){0});
	d = dev_open(0);
	peers[0]->cfg.no_namespace = true;
	peer_drop_connections(peers[0]);
	r = submit(NVMF_DEV_READ, 0, 0);
	run_for(300);
	assert_int_equal(r->done, 0);
	peers[0]->cfg.no_namespace = false;
	assert_int_equal(wait_for(r), NVMF_DEV_OK);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_namespace_says_what_it_is),
		T(every_operation_reaches_the_namespace),
		T(malformed_ios_and_one_too_many_are_refused),
		T(waiting_tells_why_there_is_nothing),
		T(a_read_is_sent_again_at_once_after_a_loss),
		T(a_repeatable_write_is_sent_again_at_once),
		T(an_unrepeatable_write_waits_until_its_ghost_is_over),
		T(a_new_write_over_a_ghost_waits_for_its_end),
		T(zeros_wait_and_a_discard_is_only_a_hint),
		T(what_the_target_has_lost_cannot_be_flushed),
		T(an_outage_too_short_for_a_restart_keeps_the_cache),
		T(an_outage_in_which_the_target_may_have_restarted_does_not),
		T(answers_while_connecting_do_not_shorten_an_outage),
		T(a_flush_goes_down_the_path_that_was_there_all_the_time),
		T(io_waits_for_a_peer_that_restarts),
		T(an_abandoned_device_ends_everything_and_sends_nothing_more),
		T(what_was_on_a_lost_path_goes_down_another),
		T(io_follows_the_state_of_the_paths),
		T(another_namespace_behind_the_address_is_not_used),
		T(a_command_that_takes_too_long_is_aborted_and_sent_again),
		T(an_abort_without_effect_costs_the_connection),
		T(what_never_works_ends_as_transient),
		T(a_media_error_is_the_blocks_own),
		T(no_mischief_makes_up_an_acknowledgement),
		T(a_target_that_flips_bits_is_survived),
		T(a_change_of_size_is_told),
		T(a_namespace_that_was_taken_away_is_gone_until_it_is_back),
		T(a_namespace_that_comes_late_after_a_restart_is_waited_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
