/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The machine dies at every moment of a move: after any number of rounds of both shards, both stores are opened again from what their flash holds, and settled.
 * Then the VM's volumes are at exactly one of them, the one that its assignment names, with all that it had been told was written.
 */
#include "tests/unit/transferbed.h"

#include <limits.h>
#include <sys/prctl.h>

#include "common/base/log.h"

enum { BLOCKS = 160, MOMENTS_MAX = 400 };
enum crash { KILLED, POWER_LOST };

static const struct transfer_cfg usual = {.small_bytes = 64 << 10};
static unsigned int points, after_switch, deleted[2], kept[2];

static bool enough(void)
{
	return tb.writes >= 80;
}

static void start(enum crash how)
{
	tb_start(how == POWER_LOST, 16, 16);
	tb_volume("vm7/a", BLOCKS, BLOCKS, VOLUME_COPY, 512);
	tb_volume("vm7/b", BLOCKS, BLOCKS, VOLUME_FRAGMENTS, 4096);
	tb.running = true;
	tb_run_until(enough, TB_REQS, BLOCKS);
	if (how == KILLED)
		return;
	/* What was never flushed may be gone, so the VM is quiet: all it has must survive. */
	tb_drain();
	tb_flush();
}

/* ---- death ------------------------------------------------------------------------------------------------------ */

#define FOR_EVER UINT_MAX
static struct poller reapers[2];
static unsigned int age, die_at; /* in rounds of either shard, those within a wait too */

/* Where the move is: what a crash would find. */
static uint64_t position(void)
{
	const struct transfer_status *st = transfer_status(tb.t);
	uint64_t p = st->state + 16 * (uint64_t)st->passes;

	for (unsigned int i = 0; i < 2; i++) {
		p = p * 8 + tb_notes(i);
		for (struct volume *v = volume_first(tb.side[i].store); v; v = volume_next(v))
			p += 1ull << (40 + 8 * i);
	}
	return p;
}

static unsigned int moments[MOMENTS_MAX], nmoments;

static void moment_add(unsigned int at)
{
	if (nmoments < MOMENTS_MAX)
		moments[nmoments++] = at;
}

static int reap(void *arg)
{
	static uint64_t was;
	uint64_t now = position();

	if (die_at == FOR_EVER && now != was) {
		moment_add(age ? age - 1 : 0);
		moment_add(age);
		was = now;
	}
	if (tb.broken || age++ < die_at)
		return 0;
	tb.broken = true;
	tb.running = false;
	for (unsigned int i = 0; i < 2; i++)
		for (unsigned int d = 0; d < TB_DEVS; d++)
			fault_set_gone(tb.side[i].f[d], true);
	return 1;
}

/* What is left of the process winds down: nothing of it reaches the flash. */
static void wind_down(void)
{
	for (unsigned int i = 0; !tb.ended; i++) {
		if (tb.stopping) {
			tb.stopping = false;
			transfer_paused(tb.t, -EIO);
		}
		tb_round();
		assert_true(i < 100000);
	}
	tb_close_move();
	for (unsigned int i = 0; i < 2; i++) {
		poller_del(tb.side[i].sh, &reapers[i]);
		mover_close(tb.side[i].m);
	}
}

/* So many rounds of the move, or until it is over, then it dies. */
static void live_and_die(unsigned int rounds, enum crash how)
{
	unsigned int where, quiet = 0;

	age = 0;
	die_at = rounds;
	for (unsigned int i = 0; i < 2; i++)
		poller_add(tb.side[i].sh, &reapers[i], reap, NULL, POLLER_SLEEPS);
	while (!tb.broken && quiet < 8) {
		tb_work(how == KILLED ? 2 : 0, BLOCKS);
		tb_round();
		tb_stopped();
		quiet = tb.ended ? quiet + 1 : 0;
	}
	die_at = 0;
	reap(NULL);
	where = tb.where;
	wind_down();
	assert_int_equal(tb.where, where);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(how == KILLED ? fault_process_kill(tb.side[i].f, TB_DEVS)
					       : fault_power_cut(tb.side[i].f, TB_DEVS),
			0);
		store_close(tb.side[i].store);
	}
	tb.broken = false;
}

/* ---- and after it ------------------------------------------------------------------------------------------------- */

static void settle(unsigned int i)
{
	struct transfer_settled out;
	struct err e = {0};

	if (transfer_settle(tb.side[i].store, i, tb_shard_of, NULL, &out, &e) < 0)
		fail_msg("%s", err_text(&e));
	assert_int_equal(out.unclear, 0);
	deleted[i] += out.deleted;
	kept[i] += out.kept;
	assert_int_equal(transfer_settle(tb.side[i].store, i, tb_shard_of, NULL, &out, &e), 0);
	assert_int_equal(out.deleted + out.kept + out.unclear, 0);
}

/* Dies once more in the middle of that: so many writes of each device still go through. */
static void settle_and_die(unsigned int i, unsigned int writes)
{
	struct transfer_settled out;

	for (unsigned int d = 0; d < TB_DEVS; d++)
		fault_rule_add(tb.side[i].f[d], &(struct fault_rule){.op = FLASH_WRITE,
							.per_million = 1000000,
							.skip = writes,
							.status = FLASH_ERR_GONE});
	transfer_settle(tb.side[i].store, i, tb_shard_of, NULL, &out, NULL);
	assert_int_equal(fault_process_kill(tb.side[i].f, TB_DEVS), 0);
	store_close(tb.side[i].store);
	tb_reopen_side(i);
}

static void come_back(bool die_again)
{
	for (unsigned int i = 0; i < 2; i++) {
		tb_reopen_side(i);
		if (die_again)
			settle_and_die(i, points % 4);
		settle(i);
	}
	tb_expect_one_truth();
	tb_expect_contents();
	tb_check();
	for (unsigned int i = 0; i < 2; i++)
		tb_side_up(i);
}

static void die_after(unsigned int rounds, enum crash how, bool die_again)
{
	start(how);
	tb_move_with(&usual);
	live_and_die(rounds, how);
	points++;
	after_switch += tb.where;
	come_back(die_again);
	tb_end();
}

/* The moments before and after each step, and some between. */
static void find_moments(enum crash how)
{
	unsigned int end;

	nmoments = 0;
	die_after(FOR_EVER, how, false);
	end = moments[nmoments - 1] + 20;
	for (unsigned int i = 0; i < 16; i++)
		moment_add((unsigned int)(tb_random() % end));
	assert_true(nmoments < MOMENTS_MAX);
}

static void every_moment(enum crash how, unsigned int step, bool die_again)
{
	find_moments(how);
	points = after_switch = 0;
	memset(deleted, 0, sizeof(deleted));
	memset(kept, 0, sizeof(kept));
	for (unsigned int i = 0; i < nmoments; i += step)
		die_after(moments[i], how, die_again);
	print_message(
		"%u moments, %u of them after the switch; volumes deleted %u + %u, kept %u + %u\n",
		points, after_switch, deleted[0], deleted[1], kept[0], kept[1]);
	/* All the ways that it can come out were among them. */
	assert_true(after_switch && after_switch < points);
	assert_true(kept[0] && deleted[1]);
	if (step == 1)
		assert_true(deleted[0] && kept[1]);
}

static void a_process_may_die_at_any_moment_of_a_move(void **state)
{
	every_moment(KILLED, 1, false);
}

static void power_may_be_lost_at_any_moment_of_a_move(void **state)
{
	every_moment(POWER_LOST, 1, false);
}

static void it_may_die_again_while_it_is_put_right(void **state)
{
	every_moment(KILLED, 3, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_process_may_die_at_any_moment_of_a_move),
		cmocka_unit_test(power_may_be_lost_at_any_moment_of_a_move),
		cmocka_unit_test(it_may_die_again_while_it_is_put_right),
	};

	prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0); /* stores are opened by the hundred */
	log_init("test",
		LOG_LEVEL_ERROR); /* of what cannot be written any more there is much to say */
	return cmocka_run_group_tests_name("transfer_crash", tests, NULL, NULL);
}
