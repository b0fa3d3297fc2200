/* SPDX-License-Identifier: BSD-3-Clause */
/* What only flash on peers has: addresses, cutting, ghosts of a device that was given up, warming, claims. The suite of all back ends is flash_test. */
#include "dpu/flash/flash.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "tests/unit/nvmf_peer.h"

#define WAIT_NS 20000000000ULL /* never reached unless something hangs */
#define MS      1000000ULL
#define BYTES   (PEER_BLOCKS * PEER_BLOCK)

static struct shard *sh;
static struct peer_ns *ns;
static struct peer *peer;
static struct flash *f;
static char address[FLASH_ADDRESS_MAX];

static int setup(void **state)
{
	f = NULL;
	peer = NULL;
	if (peer_ns_open(&ns) < 0)
		return -1;
	return shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &sh);
}

static int teardown(void **state)
{
	flash_close(f);
	flash_cool(sh);
	if (peer)
		peer_close(peer);
	peer_ns_put(ns);
	shard_close(sh);
	return 0;
}

static void peer_begin(struct peer_cfg cfg)
{
	cfg.ns = ns;
	assert_int_equal(peer_open(sh, &cfg, &peer), 0);
	snprintf(address, sizeof(address), "nvme+tcp://127.0.0.1:%u/%s#1?keep-alive=200",
		peer->port, PEER_NQN);
}

static struct flash *open_at(const char *at)
{
	struct flash_opts opts = {.exclusive = true, .depth = 16};
	struct flash *out;
	struct err err = {0};

	if (flash_open(sh, at, &opts, &out, &err) < 0)
		fail_msg("%s", err_text(&err));
	return out;
}

/* ---- addresses -------------------------------------------------------------------------------------------------- */

/* The grammar is nvme_address_test's. */
static void bad_addresses_are_refused_by_the_part_that_is_bad(void **state)
{
	static const struct {
		const char *address, *object, *field;
	} bad[] = {
		{"nvme+tcp:", "", "address"},
		{"nvme+tcp://peer1/nqn.a:b#1", "//peer1/nqn.a:b#1", "host"},
		{"nvme+tcp://10.0.0.2:0/nqn.a:b#1", "//10.0.0.2:0/nqn.a:b#1", "port"},
		{"nvme+tcp://10.0.0.2/peer#1", "//10.0.0.2/peer#1", "NQN"},
		{"nvme+tcp://10.0.0.2/nqn.a:b", "//10.0.0.2/nqn.a:b", "namespace"},
		{"nvme+tcp://10.0.0.2/nqn.a:b#1?x", "//10.0.0.2/nqn.a:b#1?x", "option"},
		{"nvme+tcp://10.0.0.2/nqn.a:b#1?queues=65", NULL, "queues"},
		{"nvme+tcp://10.0.0.2/nqn.a:b#1?restart-min=0", NULL, "restart-min"},
		{"nvme+rdma://10.0.0.2/nqn.a:b#1?hdgst", "//10.0.0.2/nqn.a:b#1?hdgst", "hdgst"},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct err err = {0};
		struct flash *out;

		assert_int_equal(flash_open(sh, bad[i].address, NULL, &out, &err), -EINVAL);
		assert_string_equal(err.field, bad[i].field);
		if (bad[i].object)
			assert_string_equal(err.object, bad[i].object);
		assert_true(err.reason[0]);
		flash_warm(sh, bad[i].address, NULL); /* nobody to tell */
		assert_false(flash_is_warm(sh, bad[i].address));
	}
}

static void an_opening_that_finds_nobody_says_where_and_why(void **state)
{
	struct flash_opts opts = {.exclusive = true, .connect_ms = 100};
	struct flash *out;
	struct err err = {0};

	peer_begin((struct peer_cfg){0});
	peer_down(peer);
	assert_int_equal(flash_open(sh, address, &opts, &out, &err), -ECONNREFUSED);
	assert_non_null(strstr(err.reason, "127.0.0.1"));
	assert_int_equal(peer_up(peer), 0);
	snprintf(address, sizeof(address), "nvme+tcp://127.0.0.1:%u/%s#7", peer->port, PEER_NQN);
	opts.connect_ms = 20000;
	assert_int_equal(flash_open(sh, address, &opts, &out, &err), -ENODEV);
	assert_non_null(strstr(err.reason, "no such namespace"));
}

static void an_rdma_address_that_leads_nowhere_says_why(void **state)
{
	struct flash_opts opts = {.exclusive = true, .connect_ms = 100};
	struct flash *out;
	struct err err = {0};

	assert_true(flash_open(sh, "nvme+rdma://127.0.0.1:1/nqn.a:b#1", &opts, &out, &err) < 0);
	assert_true(err.reason[0]);
	print_message("# %s\n", err_text(&err));
}

/* ---- I/O ----------------------------------------------------------------------------------------------------------- */

struct req {
	struct flash_io io;
	struct iovec iov[FLASH_IOV_MAX];
	uint8_t buf[8 * PEER_BLOCK];
	int done;
};

static void ended(struct flash_io *io)
{
	((struct req *)io->arg)->done++;
}

static bool is_done(void *arg)
{
	return ((struct req *)arg)->done;
}

static enum flash_status wait_for(struct req *r)
{
	assert_int_equal(shard_wait(sh, is_done, r, WAIT_NS), 0);
	assert_int_equal(r->done, 1);
	return r->io.status;
}

static void submit(struct req *r, enum flash_op op, uint64_t off, uint8_t value)
{
	memset(r->buf, value, sizeof(r->buf));
	r->done = 0;
	r->iov[0] = (struct iovec){r->buf, sizeof(r->buf)};
	r->io = (struct flash_io){.op = op,
		.off = off,
		.len = op == FLASH_FLUSH ? 0 : sizeof(r->buf),
		.iov = r->iov,
		.niov = 1,
		.done_fn = ended,
		.arg = r};
	assert_int_equal(flash_submit(f, &r->io), 0);
	flash_kick(f);
}

/* Blocks in more pieces than a command may have, pieces of several blocks, pieces of nothing. */
static void memory_in_any_pieces_is_cut_at_blocks(void **state)
{
	enum { LEN = 128 * PEER_BLOCK };
	static uint8_t w[LEN], back[LEN];
	static struct req r;
	uint64_t at = 0;
	int n = 0;

	peer_begin((struct peer_cfg){.capsule_bytes = 4096});
	f = open_at(address);
	for (size_t i = 0; i < LEN; i++)
		w[i] = (uint8_t)(i * 7 + i / 251);
	while (n < 200) { /* 800 bytes in 200 pieces: a block and a half */
		r.iov[n++] = (struct iovec){w + at, 4};
		at += 4;
	}
	r.iov[n++] = (struct iovec){w + at, 0};
	r.iov[n++] = (struct iovec){w + at, 3 * PEER_BLOCK + 17};
	at += 3 * PEER_BLOCK + 17;
	while (n < FLASH_IOV_MAX - 1) {
		r.iov[n++] = (struct iovec){w + at, 601};
		at += 601;
	}
	assert_true(at < LEN);
	r.iov[n++] = (struct iovec){w + at, ROUND_UP(at, PEER_BLOCK) - at};
	at = ROUND_UP(at, PEER_BLOCK);
	for (int read = 0; read < 2; read++) {
		if (read) {
			memcpy(back, w, at);
			memset(w, 0, at);
		}
		r.done = 0;
		r.io = (struct flash_io){.op = read ? FLASH_READ : FLASH_WRITE,
			.off = PEER_BLOCK,
			.len = at,
			.iov = r.iov,
			.niov = n,
			.done_fn = ended,
			.arg = &r};
		assert_int_equal(flash_submit(f, &r.io), 0);
		assert_int_equal(wait_for(&r), FLASH_OK);
		if (!read)
			assert_memory_equal(ns->mem + PEER_BLOCK, w, at);
	}
	assert_memory_equal(back, w, at);
}

static void ios_larger_than_the_peer_takes_go_in_parts(void **state)
{
	uint8_t *buf = malloc(BYTES), *back = malloc(BYTES);

	peer_begin((struct peer_cfg){0});
	f = open_at(address);
	for (size_t i = 0; i < BYTES; i++)
		buf[i] = (uint8_t)(i * 13 + i / 509);
	assert_int_equal(flash_rw_sync(f, FLASH_WRITE, 0, buf, BYTES), 0);
	assert_int_equal(ns->nwrites, BYTES / (256 << 10));
	assert_memory_equal(ns->mem, buf, BYTES);
	assert_int_equal(flash_rw_sync(f, FLASH_READ, 0, back, BYTES), 0);
	assert_memory_equal(back, buf, BYTES);
	assert_int_equal(flash_rw_sync(f, FLASH_WRITE_ZEROES, 0, NULL, BYTES), 0);
	memset(buf, 0, BYTES);
	assert_memory_equal(ns->mem, buf, BYTES);
	free(buf);
	free(back);
}

static void a_checked_write_is_repeated_and_another_waits(void **state)
{
	static struct req plain, checked;

	peer_begin((struct peer_cfg){.cqt = 300});
	f = open_at(address);
	peer_hold(peer, NVME_CMD_WRITE, 2, PEER_HOLD_ALL);
	submit(&plain, FLASH_WRITE, 0, 1);
	memset(checked.buf, 2, sizeof(checked.buf));
	checked.iov[0] = (struct iovec){checked.buf, sizeof(checked.buf)};
	checked.io = (struct flash_io){.op = FLASH_WRITE,
		.off = 65536,
		.len = sizeof(checked.buf),
		.iov = checked.iov,
		.niov = 1,
		.checked = true,
		.done_fn = ended,
		.arg = &checked};
	assert_int_equal(flash_submit(f, &checked.io), 0);
	while (peer->nheld < 2)
		shard_run_once(sh);
	peer_drop_connections(peer);
	assert_int_equal(wait_for(&checked), FLASH_OK);
	assert_int_equal(plain.done, 0);
	assert_int_equal(wait_for(&plain), FLASH_OK);
	assert_int_equal(ns->nwrites, 2);
}

static enum flash_status run(enum flash_op op)
{
	static struct req r;

	submit(&r, op, 0, 1);
	return wait_for(&r);
}

static bool is_away(void *arg)
{
	struct flash_health h;

	flash_health(f, &h);
	return !h.paths[0].usable;
}

static bool is_back(void *arg)
{
	return !is_away(arg);
}

/* A write that is not flushed, then a short outage, then the flush. */
static enum flash_status flush_over_an_outage(const char *option)
{
	peer_begin((struct peer_cfg){0});
	snprintf(address + strlen(address), sizeof(address) - strlen(address), "%s", option);
	f = open_at(address);
	assert_int_equal(run(FLASH_WRITE), FLASH_OK);
	peer_drop_connections(peer);
	assert_int_equal(shard_wait(sh, is_away, NULL, WAIT_NS), 0);
	assert_int_equal(shard_wait(sh, is_back, NULL, WAIT_NS), 0);
	return run(FLASH_FLUSH);
}

static void an_outage_shorter_than_a_restart_costs_no_flush(void **state)
{
	assert_int_equal(flush_over_an_outage("&restart-min=600000"), FLASH_OK);
	assert_int_equal(peer->nflushes, 1);
}

static void where_no_outage_is_short_a_flush_ends_the_device(void **state)
{
	assert_int_equal(flush_over_an_outage("&restart-min=1"), FLASH_ERR_GONE);
	assert_int_equal(peer->nflushes, 0);
}

/* ---- given up -------------------------------------------------------------------------------------------------------- */

static bool no_ghosts(void *arg)
{
	return flash_ghosts(f) == 0;
}

static void a_device_given_up_with_writes_in_flight_is_not_opened_before_they_are_over(void **state)
{
	static struct req w;
	struct flash_opts opts = {.exclusive = true};
	struct flash *again;
	struct err err = {0};
	int rc;

	peer_begin((struct peer_cfg){.cqt = 1500}); /* longer than an opening waits */
	f = open_at(address);
	peer_hold(peer, NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	submit(&w, FLASH_WRITE, 0, 1);
	while (!peer->nheld)
		shard_run_once(sh);
	flash_abandon(f);
	assert_int_equal(wait_for(&w), FLASH_ERR_GONE);
	assert_int_equal(flash_ghosts(f), 1);
	flash_close(f);
	f = NULL;
	assert_int_equal(flash_open(sh, address, &opts, &again, &err), -EBUSY);
	assert_non_null(strstr(err.reason, "given up"));
	peer_release(peer); /* the ghost */
	assert_int_equal(ns->nwrites, 1);
	while ((rc = flash_open(sh, address, &opts, &f, &err)) == -EBUSY)
		;
	assert_int_equal(rc, 0);
	assert_int_equal(flash_rw_sync(f, FLASH_READ, 0, w.buf, sizeof(w.buf)), 0);
	assert_int_equal(w.buf[0], 1);
}

static void ghosts_are_told_of_until_they_are_over(void **state)
{
	static struct req w;

	peer_begin((struct peer_cfg){0});
	f = open_at(address);
	peer_hold(peer, NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	submit(&w, FLASH_WRITE, 0, 1);
	while (!peer->nheld)
		shard_run_once(sh);
	flash_abandon(f);
	assert_int_equal(wait_for(&w), FLASH_ERR_GONE);
	assert_int_equal(flash_ghosts(f), 1);
	assert_int_equal(shard_wait(sh, no_ghosts, NULL, WAIT_NS), 0);
}

static void a_peer_that_stays_away_costs_the_device_its_deadline(void **state)
{
	static struct req r;

	peer_begin((struct peer_cfg){0});
	f = open_at(address);
	assert_int_equal(flash_set_timeouts(f, 100, 400), 0);
	peer_down(peer);
	submit(&r, FLASH_READ, 0, 0);
	assert_int_equal(wait_for(&r), FLASH_ERR_GONE);
	assert_true(flash_is_abandoned(f));
}

/* Half of the time until the device is given up: then a command is aborted. */
static void a_hanging_command_is_aborted_before_the_device_is_given_up(void **state)
{
	static struct req r;

	peer_begin((struct peer_cfg){0});
	f = open_at(address);
	assert_int_equal(flash_set_timeouts(f, 200, 2000), 0);
	peer_hold(peer, NVME_CMD_READ, 1, PEER_HOLD_ALL);
	submit(&r, FLASH_READ, 0, 0);
	assert_int_equal(wait_for(&r), FLASH_OK);
	assert_int_equal(peer->naborts, 1);
	assert_false(flash_is_abandoned(f));
}

static void a_namespace_has_one_exclusive_owner_here(void **state)
{
	struct flash_opts opts = {.exclusive = true}, shared = {0};
	struct flash *g;
	struct err err = {0};

	peer_begin((struct peer_cfg){0});
	f = open_at(address);
	assert_int_equal(flash_open(sh, address, &opts, &g, &err), -EBUSY);
	assert_int_equal(flash_open(sh, address, &shared, &g, &err), 0);
	flash_close(g);
}

/* ---- warming, claims, health ------------------------------------------------------------------------------------------- */

static bool is_warm(void *arg)
{
	return flash_is_warm(sh, address);
}

static void a_warmed_address_is_opened_with_its_connection(void **state)
{
	uint32_t connects;

	peer_begin((struct peer_cfg){0});
	assert_true(flash_is_warm(sh, "mem:1M"));
	assert_false(flash_is_warm(sh, address));
	flash_warm(sh, address, NULL);
	flash_warm(sh, address, NULL);
	flash_warm(sh, "mem:1M", NULL);
	flash_warm(sh, "nvme+tcp://nonsense", NULL);
	assert_int_equal(shard_wait(sh, is_warm, NULL, WAIT_NS), 0);
	connects = peer->nconnects;
	f = open_at(address);
	assert_int_equal(peer->nconnects, connects);
	assert_false(flash_is_warm(sh, address));
	assert_int_equal(flash_rw_sync(f, FLASH_FLUSH, 0, NULL, 0), 0);
	flash_close(f);
	snprintf(address, sizeof(address), "fault:nvme+tcp://127.0.0.1:%u/%s#1", peer->port,
		PEER_NQN);
	flash_warm(sh, address, NULL);
	assert_int_equal(shard_wait(sh, is_warm, NULL, WAIT_NS), 0);
	f = open_at(address);
	flash_warm(sh, address, NULL); /* dropped by flash_cool() */
}

static void a_claim_fences_the_former_owner(void **state)
{
	static const uint8_t us[16] = {1}, them[16] = {2};
	struct flash_opts opts = {.host_id = us}, theirs = {.host_id = them};
	struct flash *g, *mem;
	static struct req w;
	struct err err = {0};
	char faulty[FLASH_ADDRESS_MAX + 8];

	peer_begin((struct peer_cfg){.reservations = true});
	snprintf(faulty, sizeof(faulty), "fault:%s", address);
	assert_int_equal(flash_open(sh, address, &opts, &f, &err), 0);
	assert_int_equal(flash_open(sh, faulty, &theirs, &g, &err), 0);
	assert_int_equal(flash_claim(f, 7, false, &err), 0);
	assert_int_equal(flash_claim(g, 8, false, &err), -EBUSY);
	assert_int_equal(flash_claim(g, 8, true, &err), 0);
	submit(&w, FLASH_WRITE, 0, 1);
	assert_int_equal(wait_for(&w), FLASH_ERR_FENCED);
	assert_int_equal(flash_unclaim(g, &err), 0);
	assert_int_equal(ns->type, NVME_RESV_NONE);
	flash_close(g);
	assert_int_equal(flash_open(sh, "mem:1M", NULL, &mem, &err), 0);
	assert_int_equal(flash_claim(mem, 7, false, &err), -EOPNOTSUPP);
	assert_int_equal(flash_unclaim(mem, &err), 0);
	flash_close(mem);
}

static void health_shows_the_paths_and_what_they_cost(void **state)
{
	static struct req r;
	struct flash_health h;

	peer_begin((struct peer_cfg){0});
	f = open_at(address);
	submit(&r, FLASH_READ, 0, 0);
	assert_int_equal(wait_for(&r), FLASH_OK);
	flash_health(f, &h);
	assert_int_equal(h.npaths, 1);
	assert_non_null(strstr(h.paths[0].address, "127.0.0.1:"));
	assert_string_equal(h.paths[0].state, "optimized");
	assert_true(h.paths[0].usable);
	assert_true(h.paths[0].commands > 0);
	assert_int_equal(h.paths[0].losses, 0);
	assert_int_equal(h.read.count, 1);
	assert_int_equal(h.read.p99_ns, h.read.max_ns);
	assert_false(h.smart.known);
	peer_drop_connections(peer);
	submit(&r, FLASH_READ, 0, 0);
	assert_int_equal(wait_for(&r), FLASH_OK);
	flash_health(f, &h);
	assert_int_equal(h.paths[0].losses, 1);
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(bad_addresses_are_refused_by_the_part_that_is_bad),
		T(an_opening_that_finds_nobody_says_where_and_why),
		T(an_rdma_address_that_leads_nowhere_says_why),
		T(memory_in_any_pieces_is_cut_at_blocks),
		T(ios_larger_than_the_peer_takes_go_in_parts),
		T(a_checked_write_is_repeated_and_another_waits),
		T(an_outage_shorter_than_a_restart_costs_no_flush),
		T(where_no_outage_is_short_a_flush_ends_the_device),
		T(a_device_given_up_with_writes_in_flight_is_not_opened_before_they_are_over),
		T(ghosts_are_told_of_until_they_are_over),
		T(a_peer_that_stays_away_costs_the_device_its_deadline),
		T(a_hanging_command_is_aborted_before_the_device_is_given_up),
		T(a_namespace_has_one_exclusive_owner_here),
		T(a_warmed_address_is_opened_with_its_connection),
		T(a_claim_fences_the_former_owner),
		T(health_shows_the_paths_and_what_they_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
