/* SPDX-License-Identifier: BSD-3-Clause */
/* Reservations and ANA: the codecs alone, then the initiator's calls against scripted peers, several hosts and several paths. */
#include "common/nvme/resv.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/nvmf/nvmf.h"
#include "tests/unit/nvmf_peer.h"

#define WAIT_NS 20000000000ULL /* never reached unless something hangs */
#define HOSTS   3

static struct shard *sh;
static struct peer_ns *ns;
static struct peer *peers[2];
static struct nvmf *n[HOSTS];
static uint32_t async_result;
static const uint8_t hostids[HOSTS][16] = {{1, 1}, {2, 2}, {3, 3}};

static void async(struct nvmf *c, void *arg, uint32_t result)
{
	async_result = result;
}

static const struct nvmf_events events = {.async_fn = async};

static int setup(void **state)
{
	async_result = UINT32_MAX;
	memset(n, 0, sizeof(n));
	memset(peers, 0, sizeof(peers));
	if (shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &sh) < 0)
		return -1;
	return peer_ns_open(0, &ns);
}

static int teardown(void **state)
{
	for (int i = 0; i < HOSTS; i++)
		nvmf_close(n[i]);
	for (int i = 0; i < 2; i++)
		if (peers[i])
			peer_close(peers[i]);
	peer_ns_put(ns);
	shard_close(sh);
	return 0;
}

static void open_peer(int i, struct peer_cfg cfg)
{
	cfg.ns = ns;
	cfg.reservations = true;
	assert_int_equal(peer_open(sh, &cfg, &peers[i]), 0);
}

static void open_host(int i, int peer)
{
	struct nvmf_cfg cfg = {.host = "127.0.0.1",
		.port = peers[peer]->port,
		.subnqn = PEER_NQN,
		.hostid = hostids[i],
		.nqueues = 1,
		.depth = 8};

	assert_int_equal(nvmf_open(sh, &cfg, &events, NULL, &n[i], NULL), 0);
	assert_int_equal(nvmf_wait_ready(n[i], 10000), 0);
}

static uint16_t run(int host, struct nvmf_io *io)
{
	int rc = nvmf_run(nvmf_queue(n[host], 1), io);

	assert_int_equal(io->err, 0);
	assert_int_equal(rc, io->status ? -EIO : 0);
	return io->status;
}

static uint16_t reg(int host, uint64_t old, uint64_t new, enum nvme_resv_rega action)
{
	struct nvmf_io io = {0};

	nvmf_io_resv_register(&io, 1, old, new, action, false);
	return run(host, &io);
}

static uint16_t acquire(int host, uint64_t key, uint64_t preempt, enum nvme_resv_acqa action)
{
	struct nvmf_io io = {0};

	nvmf_io_resv_acquire(&io, 1, key, preempt, action, NVME_RESV_WRITE_EXCLUSIVE);
	return run(host, &io);
}

static uint16_t rw(int host, uint8_t opcode, uint8_t *buf)
{
	struct iovec iov = {buf, PEER_BLOCK};
	struct nvmf_io io = {.iov = &iov, .niov = 1};

	nvmf_io_rw(&io, opcode, 1, 0, 1, 0);
	return run(host, &io);
}

/* ---- codecs ------------------------------------------------------------------------------------------------ */

/* Three groups: 1 optimized with 5 and 9; 7 inaccessible with none; 3 non-optimized with 2. */
static const uint8_t ana[] = {
	/* chgcnt 4, three groups */
	4, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0,
	/* group 1 */
	1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xf1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 0, 5, 0, 0, 0, 9, 0, 0, 0,
	/* group 7 */
	7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0,
	/* group 3 */
	3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
	0, 2, 0, 0, 0};

static void a_namespace_has_the_state_of_the_group_that_lists_it(void **state)
{
	enum nvme_ana_state s;

	assert_int_equal(nvme_ana_log_find(ana, sizeof(ana), 5, 0, &s), 0);
	assert_int_equal(s, NVME_ANA_OPTIMIZED);
	assert_int_equal(nvme_ana_log_find(ana, sizeof(ana), 9, 7, &s), 0);
	assert_int_equal(s, NVME_ANA_OPTIMIZED);
	assert_int_equal(nvme_ana_log_find(ana, sizeof(ana), 2, 3, &s), 0);
	assert_int_equal(s, NVME_ANA_NON_OPTIMIZED);
	assert_int_equal(nvme_ana_log_find(ana, sizeof(ana), 77, 7, &s), 0);
	assert_int_equal(s, NVME_ANA_INACCESSIBLE);
	assert_int_equal(nvme_ana_log_find(ana, sizeof(ana), 77, 8, &s), -ENOENT);
	assert_int_equal(nvme_ana_log_find(ana, sizeof(ana), 77, 0, &s), -ENOENT);
	assert_string_equal(nvme_ana_state_name(NVME_ANA_CHANGE), "change");
	assert_string_equal(nvme_ana_state_name((enum nvme_ana_state)9), "?");
	assert_true(nvme_ana_usable(NVME_ANA_NON_OPTIMIZED));
	assert_false(nvme_ana_usable(NVME_ANA_CHANGE));
}

/* The copies have exactly their length, so that a sanitizer sees one byte too many. */
static void a_cut_or_boasting_ana_log_is_refused(void **state)
{
	static const size_t counts[] = {16 + 4, 56 + 4, 88 + 4};
	enum nvme_ana_state s;
	uint8_t *p;

	for (size_t len = 0; len < sizeof(ana); len++) {
		p = malloc(len ? len : 1);
		memcpy(p, ana, len);
		assert_int_equal(nvme_ana_log_find(p, len, 5, 1, &s), -EBADMSG);
		free(p);
	}
	for (size_t i = 0; i < ARRAY_LEN(counts); i++) {
		p = malloc(sizeof(ana));
		memcpy(p, ana, sizeof(ana));
		memset(p + counts[i], 0xff, 4);
		assert_int_equal(nvme_ana_log_find(p, sizeof(ana), 5, 1, &s), -EBADMSG);
		free(p);
	}
	p = malloc(sizeof(ana));
	memcpy(p, ana, sizeof(ana));
	p[32] = 5; /* no such state */
	assert_int_equal(nvme_ana_log_find(p, sizeof(ana), 5, 0, &s), -EBADMSG);
	assert_int_equal(nvme_ana_log_find(p, sizeof(ana), 2, 0, &s), 0);
	free(p);
}

static void a_report_is_taken_apart_within_its_bytes(void **state)
{
	uint8_t b[64 + 2 * 64] = {9, 0, 0, 0, NVME_RESV_WRITE_EXCLUSIVE, 2, 0, 0, 0, 1};
	struct nvme_resv_report r;

	b[64 + 128 - 64 + 8] = 0xcd; /* the second's key */
	b[128 + 2] = NVME_RCSTS_HOLDER;
	assert_int_equal(nvme_resv_report_parse(b, sizeof(b), &r), 0);
	assert_int_equal(r.gen, 9);
	assert_int_equal(r.type, NVME_RESV_WRITE_EXCLUSIVE);
	assert_true(r.ptpl);
	assert_int_equal(r.nregistrants, 2);
	assert_int_equal(from_le64(r.registrants[1].rkey), 0xcd);
	assert_int_equal(r.registrants[1].rcsts, NVME_RCSTS_HOLDER);
	assert_int_equal(nvme_resv_report_parse(b, sizeof(b) - 1, &r), -ENOBUFS);
	assert_int_equal(r.nregistrants, 2);
	assert_null(r.registrants);
	assert_int_equal(nvme_resv_report_parse(b, 63, &r), -EBADMSG);
	memset(b + 5, 0xff, 2);
	assert_int_equal(nvme_resv_report_parse(b, sizeof(b), &r), -ENOBUFS);
	assert_int_equal(nvme_resv_report_bytes(r.nregistrants), 64 + 65535 * 64);
	b[4] = 7;
	assert_int_equal(nvme_resv_report_parse(b, sizeof(b), &r), -EBADMSG);
}

static void commands_carry_actions_types_and_keys_where_the_specification_has_them(void **state)
{
	static const uint8_t keys[16] = {
		8, 7, 6, 5, 4, 3, 2, 1, 0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11};
	struct nvmf_io io = {0};

	nvmf_io_resv_register(
		&io, 3, 0x0102030405060708, 0x1112131415161718, NVME_RESV_REPLACE_ANY, true);
	assert_int_equal(io.sqe.opcode, 0x0d);
	assert_int_equal(from_le32(io.sqe.nsid), 3);
	assert_int_equal(from_le32(io.sqe.cdw10), 0xc000000aU);
	assert_int_equal(io.niov, 1);
	assert_int_equal(io.iov[0].iov_len, 16);
	assert_memory_equal(io.iov[0].iov_base, keys, 16);
	nvmf_io_resv_acquire(&io, 3, 0x0102030405060708, 0x1112131415161718, NVME_RESV_PREEMPT,
		NVME_RESV_WRITE_EXCLUSIVE_RO);
	assert_int_equal(io.sqe.opcode, 0x11);
	assert_int_equal(from_le32(io.sqe.cdw10), 0x301);
	assert_memory_equal(io.iov[0].iov_base, keys, 16);
	nvmf_io_resv_release(
		&io, 3, 0x0102030405060708, NVME_RESV_RELEASE, NVME_RESV_WRITE_EXCLUSIVE);
	assert_int_equal(io.sqe.opcode, 0x15);
	assert_int_equal(from_le32(io.sqe.cdw10), 0x100);
	assert_int_equal(io.iov[0].iov_len, 8);
	assert_memory_equal(io.iov[0].iov_base, keys, 8);
}

/* ---- hosts ---------------------------------------------------------------------------------------------------- */

static void only_the_holder_may_write_and_the_report_says_who_it_is(void **state)
{
	static const uint32_t capsules[] = {0, 8192}; /* keys by R2T, and in the capsule */
	static uint8_t buf[PEER_BLOCK];
	struct nvmf_resv_status s;

	for (size_t i = 0; i < ARRAY_LEN(capsules); i++) {
		open_peer(0, (struct peer_cfg){.capsule_bytes = capsules[i]});
		open_host(0, 0);
		open_host(1, 0);
		assert_int_equal(nvmf_resv_report(n[0], 1, &s), 0);
		assert_false(s.registered || s.held);
		assert_int_equal(
			acquire(0, 0xa, 0, NVME_RESV_ACQUIRE), NVME_SC_RESERVATION_CONFLICT);
		assert_int_equal(reg(0, 0, 0xa, NVME_RESV_REGISTER), 0);
		assert_int_equal(
			acquire(0, 0xb, 0, NVME_RESV_ACQUIRE), NVME_SC_RESERVATION_CONFLICT);
		assert_int_equal(acquire(0, 0xa, 0, NVME_RESV_ACQUIRE), 0);
		assert_int_equal(rw(0, NVME_CMD_WRITE, buf), 0);
		assert_int_equal(rw(1, NVME_CMD_WRITE, buf), NVME_SC_RESERVATION_CONFLICT);
		assert_int_equal(rw(1, NVME_CMD_READ, buf), 0);
		assert_int_equal(nvmf_resv_report(n[1], 1, &s), 0);
		assert_int_equal(s.type, NVME_RESV_WRITE_EXCLUSIVE);
		assert_true(s.held);
		assert_false(s.registered || s.we_hold);
		assert_int_equal(s.holder_key, 0xa);
		assert_memory_equal(s.holder_hostid, hostids[0], 16);
		assert_int_equal(nvmf_resv_report(n[0], 1, &s), 0);
		assert_true(s.registered && s.we_hold);
		assert_int_equal(s.our_key, 0xa);
		assert_int_equal(reg(0, 0xa, 0, NVME_RESV_UNREGISTER), 0);
		assert_int_equal(rw(1, NVME_CMD_WRITE, buf), 0);
		for (int h = 0; h < 2; h++) {
			nvmf_close(n[h]);
			n[h] = NULL;
		}
		peer_close(peers[0]);
		peers[0] = NULL;
	}
}

static void preempting_takes_the_reservation_and_the_registration(void **state)
{
	static uint8_t buf[PEER_BLOCK];
	struct nvmf_resv_status s;

	open_peer(0, (struct peer_cfg){0});
	open_host(0, 0);
	open_host(1, 0);
	assert_int_equal(reg(0, 0, 0xa, NVME_RESV_REGISTER), 0);
	assert_int_equal(acquire(0, 0xa, 0, NVME_RESV_ACQUIRE), 0);
	assert_int_equal(reg(1, 0, 0xb, NVME_RESV_REGISTER), 0);
	assert_int_equal(acquire(1, 0xb, 0, NVME_RESV_ACQUIRE), NVME_SC_RESERVATION_CONFLICT);
	assert_int_equal(acquire(1, 0xb, 0xc, NVME_RESV_PREEMPT), NVME_SC_RESERVATION_CONFLICT);
	assert_int_equal(acquire(1, 0xb, 0xa, NVME_RESV_PREEMPT), 0);
	assert_int_equal(rw(0, NVME_CMD_WRITE, buf), NVME_SC_RESERVATION_CONFLICT);
	assert_int_equal(rw(1, NVME_CMD_WRITE, buf), 0);
	assert_int_equal(nvmf_resv_report(n[0], 1, &s), 0);
	assert_false(s.registered);
	assert_int_equal(s.nregistrants, 1);
	assert_memory_equal(s.holder_hostid, hostids[1], 16);
	/* a key left from a former life is replaced without being known */
	assert_int_equal(reg(1, 0, 0xe, NVME_RESV_REPLACE), NVME_SC_RESERVATION_CONFLICT);
	assert_int_equal(reg(1, 0, 0xe, NVME_RESV_REPLACE_ANY), 0);
	assert_int_equal(nvmf_resv_report(n[1], 1, &s), 0);
	assert_true(s.we_hold);
	assert_int_equal(s.our_key, 0xe);
}

static void a_ghost_of_a_fenced_host_changes_nothing(void **state)
{
	static uint8_t buf[PEER_BLOCK], zeros[PEER_BLOCK];
	struct iovec iov = {buf, PEER_BLOCK};

	memset(buf, 0x11, sizeof(buf));
	for (int fenced = 0; fenced < 2; fenced++) {
		struct nvmf_io io = {.iov = &iov, .niov = 1};

		open_peer(0, (struct peer_cfg){.capsule_bytes = 4096});
		open_host(0, 0);
		assert_int_equal(reg(0, 0, 0xa, NVME_RESV_REGISTER), 0);
		assert_int_equal(acquire(0, 0xa, 0, NVME_RESV_ACQUIRE), 0);
		memset(ns->mem, 0, PEER_BLOCK);
		peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
		nvmf_io_rw(&io, NVME_CMD_WRITE, 1, 0, 1, 0);
		io.timeout_ms = 100;
		peers[0]->cfg.aborts_nothing = true;
		assert_true(nvmf_run(nvmf_queue(n[0], 1), &io) < 0);
		assert_int_equal(peers[0]->nheld, 1);
		peer_drop_connections(peers[0]);
		if (fenced) {
			open_host(1, 0);
			assert_int_equal(reg(1, 0, 0xb, NVME_RESV_REGISTER), 0);
			assert_int_equal(acquire(1, 0xb, 0xa, NVME_RESV_PREEMPT), 0);
		}
		assert_memory_equal(ns->mem, zeros, PEER_BLOCK);
		peer_release(peers[0]);
		assert_memory_equal(ns->mem, fenced ? zeros : buf, PEER_BLOCK);
		for (int h = 0; h < 2; h++) {
			nvmf_close(n[h]);
			n[h] = NULL;
		}
		peer_close(peers[0]);
		peers[0] = NULL;
		memset(ns->reg, 0, sizeof(ns->reg));
		ns->type = NVME_RESV_NONE;
	}
}

static void a_report_longer_than_a_page_is_read_whole(void **state)
{
	struct nvmf_resv_status s;

	open_peer(0, (struct peer_cfg){0});
	open_host(0, 0);
	for (int i = 0; i < 100; i++) {
		ns->reg[i].key = 1000 + (uint64_t)i;
		ns->reg[i].hostid[0] = (uint8_t)(100 + i);
	}
	ns->reg[99].holds = true;
	ns->type = NVME_RESV_EXCLUSIVE_ACCESS_RO;
	assert_int_equal(reg(0, 0, 0xa, NVME_RESV_REGISTER), 0);
	assert_int_equal(nvmf_resv_report(n[0], 1, &s), 0);
	assert_int_equal(s.nregistrants, 101);
	assert_int_equal(s.holder_key, 1099);
	assert_int_equal(s.our_key, 0xa);
}

static void a_target_without_reservations_says_so(void **state)
{
	struct nvmf_resv_status s;

	open_peer(0, (struct peer_cfg){0});
	peers[0]->cfg.reservations = false;
	open_host(0, 0);
	assert_int_equal(nvmf_resv_report(n[0], 1, &s), -EIO);
	assert_int_equal(reg(0, 0, 0xa, NVME_RESV_REGISTER), NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
}

/* ---- paths ----------------------------------------------------------------------------------------------------- */

static int read_ana(int host, enum nvme_ana_state *s)
{
	uint8_t log[1024];
	struct iovec iov = {log, sizeof(log)};
	struct nvmf_io io = {.iov = &iov, .niov = 1};

	nvme_sqe_set_get_log(&io.sqe, 0, NVME_LOG_ANA, 0, sizeof(log));
	assert_int_equal(nvmf_run(nvmf_queue(n[host], 0), &io), 0);
	return nvme_ana_log_find(log, sizeof(log), 1, 0, s);
}

static void paths_share_a_namespace_and_have_states_of_their_own(void **state)
{
	static uint8_t buf[PEER_BLOCK], in[PEER_BLOCK];
	enum nvme_ana_state s;

	open_peer(0, (struct peer_cfg){.ana = true});
	open_peer(1, (struct peer_cfg){.ana = true, .ana_state = NVME_ANA_NON_OPTIMIZED});
	open_host(0, 0);
	open_host(1, 1);
	memset(buf, 0x77, sizeof(buf));
	assert_int_equal(rw(0, NVME_CMD_WRITE, buf), 0);
	assert_int_equal(rw(1, NVME_CMD_READ, in), 0);
	assert_memory_equal(in, buf, sizeof(buf));
	assert_int_equal(read_ana(0, &s), 0);
	assert_int_equal(s, NVME_ANA_OPTIMIZED);
	assert_int_equal(read_ana(1, &s), 0);
	assert_int_equal(s, NVME_ANA_NON_OPTIMIZED);
	peer_set_ana(peers[0], NVME_ANA_INACCESSIBLE);
	assert_int_equal(rw(0, NVME_CMD_WRITE, buf), NVME_SC_ANA_INACCESSIBLE);
	assert_int_equal(rw(1, NVME_CMD_WRITE, buf), 0);
	assert_int_equal(read_ana(0, &s), 0);
	assert_int_equal(s, NVME_ANA_INACCESSIBLE);
	peer_set_ana(peers[0], NVME_ANA_PERSISTENT_LOSS);
	assert_int_equal(rw(0, NVME_CMD_READ, buf), NVME_SC_ANA_PERSISTENT_LOSS);
	peer_set_ana(peers[0], NVME_ANA_CHANGE);
	assert_int_equal(rw(0, NVME_CMD_READ, buf), NVME_SC_ANA_TRANSITION);
}

static void nothing(struct nvmf_io *io)
{
}

static void a_held_command_ends_when_aborted(void **state)
{
	static uint8_t buf[PEER_BLOCK] = {0x33};
	struct iovec iov = {buf, PEER_BLOCK};
	struct nvmf_io io = {.iov = &iov, .niov = 1, .timeout_ms = 50};

	open_peer(0, (struct peer_cfg){.capsule_bytes = 4096});
	open_host(0, 0);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ALL);
	nvmf_io_rw(&io, NVME_CMD_WRITE, 1, 0, 1, 0);
	assert_int_equal(run(0, &io), NVME_SC_ABORT_REQ);
	assert_int_equal(ns->mem[0], 0);
	assert_int_equal(peers[0]->nheld, 0);
}

static void a_held_answer_comes_when_released(void **state)
{
	static uint8_t buf[PEER_BLOCK] = {0x33};
	struct iovec iov = {buf, PEER_BLOCK};
	struct nvmf_io io = {.iov = &iov, .niov = 1, .done_fn = nothing}, probe = {0};

	open_peer(0, (struct peer_cfg){.capsule_bytes = 4096});
	open_host(0, 0);
	peer_hold(peers[0], NVME_CMD_WRITE, 1, PEER_HOLD_ANSWER);
	nvmf_io_rw(&io, NVME_CMD_WRITE, 1, 0, 1, 0);
	assert_int_equal(nvmf_submit(nvmf_queue(n[0], 1), &io), 0);
	nvmf_io_flush(&probe, 1); /* answered behind it on the same queue */
	assert_int_equal(run(0, &probe), 0);
	assert_int_equal(ns->mem[0], 0x33);
	assert_int_equal(peers[0]->nheld, 1);
	assert_int_equal(nvmf_in_flight(nvmf_queue(n[0], 1)), 1);
	peer_release(peers[0]);
	assert_int_equal(run(0, &probe), 0);
	assert_int_equal(nvmf_in_flight(nvmf_queue(n[0], 1)), 0);
	assert_int_equal(nvmf_io_result(&io), 0);
}

static void a_peer_that_was_down_is_reached_again(void **state)
{
	static uint8_t buf[PEER_BLOCK];

	open_peer(0, (struct peer_cfg){0});
	open_host(0, 0);
	peer_down(peers[0]);
	assert_int_equal(peer_up(peers[0]), 0);
	open_host(1, 0);
	assert_int_equal(rw(1, NVME_CMD_WRITE, buf), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_namespace_has_the_state_of_the_group_that_lists_it),
		cmocka_unit_test(a_cut_or_boasting_ana_log_is_refused),
		cmocka_unit_test(a_report_is_taken_apart_within_its_bytes),
		cmocka_unit_test(
			commands_carry_actions_types_and_keys_where_the_specification_has_them),
		cmocka_unit_test_setup_teardown(
			only_the_holder_may_write_and_the_report_says_who_it_is, setup, teardown),
		cmocka_unit_test_setup_teardown(
			preempting_takes_the_reservation_and_the_registration, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_ghost_of_a_fenced_host_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_report_longer_than_a_page_is_read_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_target_without_reservations_says_so, setup, teardown),
		cmocka_unit_test_setup_teardown(
			paths_share_a_namespace_and_have_states_of_their_own, setup, teardown),
		cmocka_unit_test_setup_teardown(a_held_command_ends_when_aborted, setup, teardown),
		cmocka_unit_test_setup_teardown(a_held_answer_comes_when_released, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_peer_that_was_down_is_reached_again, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
