/* SPDX-License-Identifier: BSD-3-Clause */
/* parapet-io as its users start it, against the scripted peer: above all that it notices what is wrong. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "tests/unit/nvmf_peer.h"

#define WAIT_NS 20000000000ULL
#define OUT_MAX 65536

extern char **environ;

static char program[4096];
static struct shard *sh;
static struct peer *peer;

struct child {
	pid_t pid;
	int out, status;
	size_t len;
	char text[OUT_MAX];
	void (*each_round)(void);
};

static void open_peer(const struct peer_cfg *cfg)
{
	assert_int_equal(
		shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &sh), 0);
	assert_int_equal(peer_open(sh, cfg, &peer), 0);
}

static int close_peer(void **state)
{
	if (peer)
		peer_close(peer);
	if (sh)
		shard_close(sh);
	peer = NULL;
	sh = NULL;
	return 0;
}

static bool child_ended(void *arg)
{
	struct child *c = arg;
	ssize_t n;

	if (c->each_round)
		c->each_round();
	n = read(c->out, c->text + c->len, sizeof(c->text) - 1 - c->len);
	if (n > 0)
		c->len += (size_t)n;
	if (n != 0)
		return false;
	return waitpid(c->pid, &c->status, WNOHANG) == c->pid;
}

/* A timer keeps the shard's wait from sleeping over the child's end. */
static void again(void *arg)
{
	(void)timer_arm(sh, arg, shard_now_ns(sh) + 1000000, again, arg);
}

/* Runs "parapet-io ARGS" on the peer; returns its exit code, output in c. */
static int run_io(struct child *c, const char *args)
{
	char copy[512], addr[32], *argv[32] = {program}, *save = NULL;
	posix_spawn_file_actions_t fa;
	struct timer t = {0};
	int n = 1, pipefd[2];

	c->len = 0;
	snprintf(copy, sizeof(copy), "%s", args);
	snprintf(addr, sizeof(addr), "127.0.0.1:%u", peer->port);
	for (char *w = strtok_r(copy, " ", &save); w; w = strtok_r(NULL, " ", &save))
		argv[n++] = w;
	argv[n++] = (char *)"--addr";
	argv[n++] = addr;
	argv[n++] = (char *)"--json";
	argv[n] = NULL;
	assert_int_equal(pipe2(pipefd, O_CLOEXEC | O_NONBLOCK), 0);
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_adddup2(&fa, pipefd[1], 1);
	assert_int_equal(posix_spawn(&c->pid, program, &fa, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&fa);
	close(pipefd[1]);
	c->out = pipefd[0];
	again(&t);
	if (shard_wait(sh, child_ended, c, WAIT_NS) < 0) {
		kill(c->pid, SIGKILL);
		waitpid(c->pid, &c->status, 0);
	}
	timer_disarm(sh, &t);
	close(c->out);
	c->text[c->len] = 0;
	if (!WIFEXITED(c->status))
		fail_msg("parapet-io %s: status %#x\n%s", args, c->status, c->text);
	return WEXITSTATUS(c->status);
}

#define NQN " --nqn " PEER_NQN

static bool said(const struct child *c, const char *text)
{
	if (strstr(c->text, text))
		return true;
	fprintf(stderr, "# no \"%s\" in: %s\n", text, c->text);
	return false;
}

static struct child child;

static void what_was_written_verifies_and_nothing_else_does(void **state)
{
	static const char *const shapes[] = {"--bs 4k", "--bs mixed --random --seed 7",
		"--bs 512 --depth 128", "--bs 64k --queues 3 --random --digests hdr,data"};
	char args[256];

	for (size_t i = 0; i < ARRAY_LEN(shapes); i++) {
		open_peer(&(struct peer_cfg){.capsule_bytes = 8192, .hdgst = true, .ddgst = true});
		snprintf(args, sizeof(args), "verify%s %s", NQN, shapes[i]);
		assert_int_equal(run_io(&child, args), 4); /* nothing there yet */
		assert_true(said(&child, "\"found\": \"zeros\""));
		snprintf(args, sizeof(args), "write%s %s --verify --flush --fua", NQN, shapes[i]);
		assert_int_equal(run_io(&child, args), 0);
		assert_true(said(&child, "\"checked_sectors\": 4096"));
		assert_true(said(&child, "\"bytes\": 2097152"));
		assert_int_equal(peer->nflushes, 1);
		snprintf(args, sizeof(args), "verify%s %s", NQN, shapes[i]);
		assert_int_equal(run_io(&child, args), 0);
		snprintf(args, sizeof(args), "verify%s %s --seed 99", NQN, shapes[i]);
		assert_int_equal(run_io(&child, args), 4);
		assert_true(said(&child, "data of another run"));
		close_peer(NULL);
	}
}

static void every_kind_of_wrong_data_is_found_and_named(void **state)
{
	uint8_t sector[512];

	open_peer(&(struct peer_cfg){0});
	assert_int_equal(run_io(&child, "write" NQN " --bs 8k --count 300"),
		0); /* 256 pieces, then 44 again */
	assert_true(said(&child, "\"generation_max\": 2"));
	assert_int_equal(run_io(&child, "verify" NQN " --generation 1..2"), 0);
	assert_int_equal(run_io(&child, "verify" NQN), 4);
	assert_true(said(&child, "a generation never written"));
	assert_true(said(&child, "\"mismatches\": 704")); /* 44 pieces of 16 sectors */
	assert_int_equal(run_io(&child, "verify" NQN " --generation 2"), 4);
	assert_true(said(&child, "an older generation"));

	peer->mem[3000 * 512 + 77] ^= 1;
	assert_int_equal(run_io(&child, "verify" NQN " --generation 1..2"), 4);
	assert_true(said(&child, "\"mismatches\": 1,"));
	assert_true(said(&child, "\"lba\": 3000"));
	assert_true(said(&child, "\"first_wrong_byte\": 77"));
	memcpy(sector, peer->mem + 100 * 512, 512);
	memcpy(peer->mem + 3000 * 512, sector, 512);
	assert_int_equal(run_io(&child, "verify" NQN " --generation 1..2"), 4);
	assert_true(said(&child, "data of another place"));
	assert_int_equal(run_io(&child, "zero" NQN " --offset 64K --size 64K --bs 64k"), 0);
	assert_int_equal(run_io(&child, "verify --zeros" NQN " --offset 64K --size 64K"), 0);
	assert_int_equal(run_io(&child, "verify --zeros" NQN " --offset 64K --size 68K"), 4);
}

static void a_write_that_was_lost_on_the_way_is_found_by_verify(void **state)
{
	open_peer(&(struct peer_cfg){.mischief = PEER_RESP_TWICE});
	/* the peer "completes" the first write with an error and breaks the protocol */
	assert_int_equal(run_io(&child, "write" NQN " --depth 1"), 3);
	assert_true(said(&child, "Internal Error"));
}

static void media_errors_can_be_what_is_expected(void **state)
{
	open_peer(&(struct peer_cfg){.mischief = PEER_MEDIA_ERROR});
	assert_int_equal(run_io(&child, "read" NQN " --expect-media-error --count 1"), 0);
	assert_true(said(&child, "\"expected_errors\": 1"));
	assert_int_equal(
		run_io(&child, "read" NQN " --expect-media-error --count 1"), 3); /* it succeeded */
	assert_int_equal(
		run_io(&child, "write" NQN " --offset 2M --size 4K --expect-status 0x80"), 0);
	close_peer(NULL);
	open_peer(&(struct peer_cfg){.mischief = PEER_MEDIA_ERROR});
	assert_int_equal(run_io(&child, "read" NQN), 3);
	assert_true(said(&child, "Unrecovered Read Error"));
}

static uint32_t drops;

static void drop_three_times(void)
{
	if (drops < 3 && peer->ncommands > (drops + 1) * 1500) {
		drops++;
		peer_drop_connections(peer);
	}
}

static void connections_that_break_are_outlived_and_acknowledged_data_is_checked(void **state)
{
	open_peer(&(struct peer_cfg){0});
	drops = 0;
	child.each_round = drop_three_times;
	assert_int_equal(
		run_io(&child,
			"write" NQN " --random --count 6000 --reconnect 30 --verify --queues 2"),
		0);
	child.each_round = NULL;
	assert_false(strstr(child.text, "\"reconnects\": 0,"));
	assert_false(strstr(child.text, "\"rechecked\": 0,"));
	assert_true(said(&child, "\"mismatches\": 0"));
	assert_int_equal(drops, 3);
	/* without --reconnect it is an error */
	peer->ncommands = drops = 0;
	child.each_round = drop_three_times;
	assert_int_equal(run_io(&child, "write" NQN " --random --count 6000"), 3);
	child.each_round = NULL;
}

static bool forget;

static void drop_and_forget(void)
{
	if (!forget && peer->ncommands > 600) {
		forget = true;
		peer_drop_connections(peer);
		memset(peer->mem, 0, PEER_BLOCKS * PEER_BLOCK);
	}
}

static void a_target_that_forgets_acknowledged_writes_is_caught_after_reconnecting(void **state)
{
	open_peer(&(struct peer_cfg){0});
	forget = false;
	child.each_round = drop_and_forget;
	assert_int_equal(run_io(&child, "write" NQN " --count 512 --bs 4k --reconnect 30"), 0);
	assert_int_equal(run_io(&child, "write" NQN " --count 512 --bs 4k --reconnect 30"), 4);
	child.each_round = NULL;
	assert_true(said(&child, "\"found\": \"zeros\""));
}

static void go_away(void)
{
	if (peer->l && peer->ncommands > 600) {
		stream_listener_close(peer->l);
		peer->l = NULL;
		peer_drop_connections(peer);
	}
}

static void a_target_that_stays_away_ends_the_run_with_an_error(void **state)
{
	open_peer(&(struct peer_cfg){0});
	child.each_round = go_away;
	assert_int_equal(
		run_io(&child, "write" NQN " --random --count 100000 --reconnect 1 --verify"), 3);
	child.each_round = NULL;
	assert_null(strstr(child.text, "\"errors\": 0,"));
	assert_true(said(&child, "\"statuses\""));
}

static void exit_codes_tell_usage_and_connecting_apart(void **state)
{
	open_peer(&(struct peer_cfg){.mischief = PEER_REFUSE_CONNECT});
	assert_int_equal(run_io(&child, "fly" NQN), 1);
	assert_int_equal(run_io(&child, "write" NQN " --bs 5"), 1);
	assert_int_equal(run_io(&child, "write" NQN " --depth 0"), 1);
	assert_int_equal(run_io(&child, "write --nqn nonsense"), 1);
	assert_int_equal(run_io(&child, "write"), 1);
	assert_int_equal(run_io(&child, "write" NQN), 2);
	assert_true(said(&child, "Connect Invalid Host"));
	close_peer(NULL);
	open_peer(&(struct peer_cfg){0});
	assert_int_equal(run_io(&child, "write" NQN " --size 3M"), 1);
	assert_int_equal(run_io(&child, "write" NQN " --bs 512K"), 1);
	assert_int_equal(run_io(&child, "write" NQN " --nsid 3"), 2);
}

static void identify_discover_flush_and_trim_work(void **state)
{
	open_peer(&(struct peer_cfg){0});
	assert_int_equal(run_io(&child, "identify" NQN), 0);
	assert_true(said(&child, "\"bytes\": 2097152"));
	assert_int_equal(run_io(&child, "discover"), 0);
	assert_true(said(&child, "\"total\": 6"));
	assert_int_equal(run_io(&child, "flush" NQN), 0);
	assert_int_equal(peer->nflushes, 1);
	assert_int_equal(run_io(&child, "trim" NQN " --bs 64k"), 0);
	assert_true(said(&child, "\"ops\": 32"));
	assert_int_equal(run_io(&child, "read" NQN " --time-limit 1 --depth 4"), 0);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(
			what_was_written_verifies_and_nothing_else_does, close_peer),
		cmocka_unit_test_teardown(every_kind_of_wrong_data_is_found_and_named, close_peer),
		cmocka_unit_test_teardown(
			a_write_that_was_lost_on_the_way_is_found_by_verify, close_peer),
		cmocka_unit_test_teardown(media_errors_can_be_what_is_expected, close_peer),
		cmocka_unit_test_teardown(
			connections_that_break_are_outlived_and_acknowledged_data_is_checked,
			close_peer),
		cmocka_unit_test_teardown(
			a_target_that_forgets_acknowledged_writes_is_caught_after_reconnecting,
			close_peer),
		cmocka_unit_test_teardown(
			a_target_that_stays_away_ends_the_run_with_an_error, close_peer),
		cmocka_unit_test_teardown(exit_codes_tell_usage_and_connecting_apart, close_peer),
		cmocka_unit_test_teardown(identify_discover_flush_and_trim_work, close_peer),
	};
	char *slash;

	/* ../parapet-io, seen from this program */
	snprintf(program, sizeof(program), "%s", argv[0]);
	slash = strrchr(program, '/');
	snprintf(slash ? slash + 1 : program, 32, "../parapet-io");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
