/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/nvmf.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "tests/unit/nvmf_peer.h"

#define WAIT_NS 20000000000ULL /* never reached unless something hangs */

static struct shard *sh;
static struct peer *peer;
static struct nvmf *n;
static int nready, nlost, lost_err;
static bool lost_retrying;
static uint32_t last_async;
static bool zero_copy; /* of the next connection */

static void ready(struct nvmf *c, void *arg)
{
	nready++;
}

static void lost(struct nvmf *c, void *arg, int err, bool retrying)
{
	nlost++;
	lost_err = err;
	lost_retrying = retrying;
}

static void async(struct nvmf *c, void *arg, uint32_t result)
{
	last_async = result;
}

static const struct nvmf_events events = {.ready_fn = ready, .lost_fn = lost, .async_fn = async};

static int setup(void **state)
{
	nready = nlost = lost_err = 0;
	last_async = UINT32_MAX;
	zero_copy = false;
	peer = NULL;
	n = NULL;
	return shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &sh);
}

static int teardown(void **state)
{
	nvmf_close(n);
	if (peer)
		peer_close(peer);
	shard_close(sh);
	return 0;
}

static struct nvmf_cfg cfg_for(const struct peer *p)
{
	return (struct nvmf_cfg){.host = "127.0.0.1",
		.port = p->port,
		.subnqn = PEER_NQN,
		.nqueues = 2,
		.depth = 16,
		.hdgst = p->cfg.hdgst,
		.zero_copy = zero_copy,
		.ddgst = p->cfg.ddgst};
}

static void open_both(const struct peer_cfg *pc)
{
	struct nvmf_cfg c;

	assert_int_equal(peer_open(sh, pc, &peer), 0);
	c = cfg_for(peer);
	c.hdgst = c.hdgst || pc->mischief == PEER_FEWER_DIGESTS;
	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
}

static void connect_both(const struct peer_cfg *pc)
{
	open_both(pc);
	assert_int_equal(nvmf_wait_ready(n, 10000), 0);
	assert_int_equal(nready, 1);
}

static bool is_positive(void *arg)
{
	return *(int *)arg > 0;
}

static void wait_lost(void)
{
	assert_int_equal(shard_wait(sh, is_positive, &nlost, WAIT_NS), 0);
}

static int rw(uint8_t opcode, uint16_t qid, uint64_t lba, void *buf, size_t len, struct nvmf_io *io)
{
	struct iovec iov[3] = {{buf, len / 4}, {(uint8_t *)buf + len / 4, 0},
		{(uint8_t *)buf + len / 4, len - len / 4}};

	*io = (struct nvmf_io){.iov = iov, .niov = 3};
	nvmf_io_rw(io, opcode, 1, lba, (uint32_t)(len / PEER_BLOCK), 0);
	return nvmf_run(nvmf_queue(n, qid), io);
}

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
}

/* ---- a target that behaves --------------------------------------------------------------------------------------- */

static void data_arrives_whole_in_every_shape_of_transfer(void **state)
{
	static const struct peer_cfg shapes[] = {
		{.capsule_bytes = 8192},
		{.capsule_bytes = 8192, .hdgst = true, .ddgst = true},
		{.r2t_bytes = 0, .maxh2cdata = 131072},
		{.r2t_bytes = 12288, .maxh2cdata = 4096, .c2h_bytes = 4096},
		{.r2t_bytes = 5120, .ddgst = true, .c2h_bytes = 1024, .success = true},
		{.hdgst = true, .cpda = 31, .capsule_bytes = 1024, .c2h_bytes = 2048},
		{.hdgst = true,
			.ddgst = true,
			.cpda = 3,
			.r2t_bytes = 65536,
			.maxh2cdata = 8192,
			.success = true},
	};
	static const size_t lens[] = {512, 4096, 8192, 8704, 65536, 131072};
	static uint8_t out[131072], in[131072];
	struct nvmf_io io;

	for (size_t k = 0; k < 2 * ARRAY_LEN(shapes); k++) {
		size_t i = k / 2;

		nready = 0;
		zero_copy = k % 2;
		connect_both(&shapes[i]);
		for (size_t j = 0; j < ARRAY_LEN(lens); j++) {
			fill(out, lens[j], (uint32_t)(i * 16 + j));
			assert_int_equal(rw(NVME_CMD_WRITE, 1, j, out, lens[j], &io), 0);
			assert_memory_equal(peer->mem + j * PEER_BLOCK, out, lens[j]);
			memset(in, 0, sizeof(in));
			assert_int_equal(rw(NVME_CMD_READ, 2, j, in, lens[j], &io), 0);
			assert_memory_equal(in, out, lens[j]);
		}
		assert_int_equal(peer->term_fes, -1);
		assert_int_equal(peer->ncapsule_writes > 0, shapes[i].capsule_bytes > 0);
		assert_true(peer->nr2ts > 0);
		assert_int_equal(nlost, 0);
		assert_true(nvmf_stats(n)->kicks > 0);
		assert_int_equal(nvmf_stats(n)->zero_copy_bytes, 0); /* loopback copies */
		nvmf_close(n);
		n = NULL;
		peer_close(peer);
	}
	peer = NULL;
}

static void other_commands_and_statuses_come_through(void **state)
{
	struct nvmf_io io = {0};
	struct nvmf_ns ns;
	uint8_t buf[1024];
	uint32_t ids[4];

	connect_both(&(struct peer_cfg){.max_queues = 1});
	assert_int_equal(nvmf_nqueues(n), 1);
	assert_null(nvmf_queue(n, 2));
	assert_int_equal(nvmf_max_io_bytes(n), 256 << 10);
	assert_int_equal(nvmf_list_ns(n, 0, ids, 4), 1);
	assert_int_equal(ids[0], 1);
	assert_int_equal(nvmf_identify_ns(n, 1, &ns), 0);
	assert_int_equal(ns.nblocks, PEER_BLOCKS);
	assert_int_equal(nvmf_identify_ns(n, 9, &ns), -ENODEV);

	memset(peer->mem, 0xaa, 4096);
	nvmf_io_rw(&io, NVME_CMD_WRITE_ZEROES, 1, 1, 2, NVME_RW_DEAC);
	assert_int_equal(nvmf_run(nvmf_queue(n, 1), &io), 0);
	assert_int_equal(peer->mem[511], 0xaa);
	assert_int_equal(peer->mem[512], 0);
	io = (struct nvmf_io){0};
	nvmf_io_flush(&io, 1);
	assert_int_equal(nvmf_run(nvmf_queue(n, 1), &io), 0);
	assert_int_equal(peer->nflushes, 1);
	nvmf_io_trim(&io, 1, 5, 6);
	assert_int_equal(nvmf_run(nvmf_queue(n, 1), &io), 0);
	assert_int_equal(rw(NVME_CMD_READ, 1, PEER_BLOCKS, buf, 512, &io), -EIO);
	assert_int_equal(NVME_SC_CODE(io.status), NVME_SC_LBA_RANGE);

	io = (struct nvmf_io){.iov = &(struct iovec){buf, 512}, .niov = 1};
	nvmf_io_flush(&io, 1); /* has no data */
	assert_int_equal(nvmf_run(nvmf_queue(n, 1), &io), -EINVAL);
	nvmf_io_rw(&io, NVME_CMD_READ, 1, 0, 1, 0);
	io.iov = &(struct iovec){buf, (256 << 10) + 512};
	assert_int_equal(nvmf_run(nvmf_queue(n, 1), &io), -EINVAL);
}

static void discovery_records_are_read_in_pieces(void **state)
{
	struct nvme_discovery_record r[8];
	struct nvmf_cfg c;
	uint32_t count;
	uint64_t total;

	assert_int_equal(peer_open(sh, &(struct peer_cfg){0}, &peer), 0);
	c = cfg_for(peer);
	c.subnqn = NVME_DISCOVERY_NQN;
	c.nqueues = 0;
	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
	assert_int_equal(nvmf_wait_ready(n, 10000), 0);
	assert_int_equal(nvmf_discover(n, r, 8, &count, &total), 0);
	assert_int_equal(count, 6);
	assert_int_equal(from_le16(r[5].portid), 5);
	assert_int_equal(nvmf_discover(n, r, 5, &count, &total), 0);
	assert_int_equal(count, 5);
	assert_int_equal(total, 6);
}

static void shutdown_tells_the_controller(void **state)
{
	connect_both(&(struct peer_cfg){0});
	assert_int_equal(nvmf_shutdown(n), 0);
	assert_int_equal(peer->cc & NVME_CC_SHN_MASK, NVME_CC_SHN_NORMAL);
	assert_int_equal(nvmf_submit(nvmf_queue(n, 1), &(struct nvmf_io){0}), -ENOTCONN);
}

static bool aer_seen(void *arg)
{
	return last_async != UINT32_MAX && peer->naers == 2;
}

static bool keep_alives_seen(void *arg)
{
	return peer->nkeep_alives >= 3;
}

static void keep_alive_and_events_go_on_by_themselves(void **state)
{
	struct nvmf_cfg c;

	assert_int_equal(peer_open(sh, &(struct peer_cfg){0}, &peer), 0);
	c = cfg_for(peer);
	c.keep_alive_ms = 20;
	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
	assert_int_equal(nvmf_wait_ready(n, 10000), 0);
	assert_int_equal(shard_wait(sh, keep_alives_seen, NULL, WAIT_NS), 0);
	peer_async_event(peer, NVME_AER_TYPE_NOTICE | 4 << 16);
	assert_int_equal(shard_wait(sh, aer_seen, NULL, WAIT_NS), 0);
	assert_int_equal(NVME_AER_LOG(last_async), 4);
}

/* ---- depth: many commands at once ------------------------------------------------------------------------------------ */

static int ndone;

static void count_done(struct nvmf_io *io)
{
	ndone++;
}

static bool all_done(void *arg)
{
	return ndone == *(int *)arg;
}

static void a_full_queue_says_so_and_everything_is_done_once(void **state)
{
	static struct nvmf_io io[16];
	static uint8_t data[16][4096];
	static struct iovec iov[16];
	struct nvmf_io extra = {.done_fn = count_done};
	int want = 16;

	connect_both(&(struct peer_cfg){.r2t_bytes = 1024});
	ndone = 0;
	for (int i = 0; i < 16; i++) {
		fill(data[i], 4096, (uint32_t)i);
		iov[i] = (struct iovec){data[i], 4096};
		io[i] = (struct nvmf_io){.iov = &iov[i], .niov = 1, .done_fn = count_done};
		nvmf_io_rw(&io[i], NVME_CMD_WRITE, 1, (uint64_t)i * 8, 8, 0);
		assert_int_equal(nvmf_submit(nvmf_queue(n, 1), &io[i]), 0);
	}
	nvmf_io_flush(&extra, 1);
	assert_int_equal(nvmf_submit(nvmf_queue(n, 1), &extra), -EAGAIN);
	assert_int_equal(ndone, 0); /* never inside submit */
	assert_int_equal(nvmf_in_flight(nvmf_queue(n, 1)), 16);
	assert_int_equal(shard_wait(sh, all_done, &want, WAIT_NS), 0);
	for (int i = 0; i < 16; i++) {
		assert_int_equal(nvmf_io_result(&io[i]), 0);
		assert_memory_equal(peer->mem + i * 4096, data[i], 4096);
	}
	assert_int_equal(nvmf_in_flight(nvmf_queue(n, 1)), 0);
}

static void closing_ends_commands_in_flight(void **state)
{
	struct nvmf_io io = {.done_fn = count_done};

	connect_both(&(struct peer_cfg){0});
	ndone = 0;
	nvmf_io_flush(&io, 1);
	assert_int_equal(nvmf_submit(nvmf_queue(n, 1), &io), 0);
	nvmf_close(n);
	n = NULL;
	assert_int_equal(ndone, 1);
	assert_int_equal(io.err, -ECANCELED);
}

/* ---- a target that does not behave -------------------------------------------------------------------------------- */

static void a_connection_that_cannot_be_made_is_told_with_its_reason(void **state)
{
	static const struct {
		enum peer_mischief m;
		int err;
		const char *reason;
	} cases[] = {
		{PEER_NO_ICRESP, -ETIMEDOUT, "did not finish connecting"},
		{PEER_BAD_ICRESP, -EPROTO, "MAXH2CDATA"},
		{PEER_FEWER_DIGESTS, -EPROTO, "digests"},
		{PEER_REFUSE_CONNECT, -ECONNREFUSED, "Connect Invalid Host"},
		{PEER_ASK_AUTH, -EACCES, "authentication"},
		{PEER_NEVER_READY, -ETIMEDOUT, "did not finish connecting"},
		{PEER_FATAL_STATUS, -EIO, "fatal status"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct peer_cfg pc = {.mischief = cases[i].m, .hdgst = true};
		struct nvmf_cfg c;

		nlost = 0;
		assert_int_equal(peer_open(sh, &pc, &peer), 0);
		c = cfg_for(peer);
		c.connect_timeout_ms = 300;
		assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
		assert_int_equal(nvmf_wait_ready(n, 15000), cases[i].err);
		assert_int_equal(nlost, 1);
		assert_int_equal(lost_err, cases[i].err);
		assert_false(lost_retrying);
		assert_non_null(strstr(nvmf_error(n)->reason, cases[i].reason));
		nvmf_close(n);
		n = NULL;
		peer_close(peer);
	}
	peer = NULL;
	assert_int_equal(nready, 0);
}

static void wrong_configuration_is_refused_at_open(void **state)
{
	struct nvmf_cfg c = {.host = "127.0.0.1", .subnqn = "not-an-nqn"};
	struct err e;

	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, &e), -EINVAL);
	assert_string_equal(e.field, "subnqn");
	c.subnqn = PEER_NQN;
	c.transport = "pigeon";
	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, &e), -EINVAL);
	assert_string_equal(e.field, "transport");
	c.transport = "tcp";
	c.depth = NVMF_DEPTH_MAX;
	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, &e), -EINVAL);
	n = NULL;
}

/* Command data in guarded memory: a target that writes outside is caught. */
static void run_mischief(enum peer_mischief m, struct nvmf_io *io)
{
	static uint8_t buf[3 * 16384];
	uint8_t *data = buf + 16384;
	bool reads = m == PEER_DATA_BEYOND || m == PEER_DATA_GAP || m == PEER_DATA_LENGTH ||
		     m == PEER_R2T_FOR_READ || m == PEER_SHORT_READ || m == PEER_BAD_DDGST;

	memset(buf, 0x5a, sizeof(buf));
	(void)rw(reads ? NVME_CMD_READ : NVME_CMD_WRITE, 1, 0, data, 16384, io);
	for (size_t i = 0; i < 16384; i++)
		if (buf[i] != 0x5a || buf[2 * 16384 + i] != 0x5a)
			fail_msg("mischief %d wrote outside the command's data", m);
}

static void every_breach_of_protocol_costs_the_connection_and_nothing_more(void **state)
{
	static const struct {
		enum peer_mischief m;
		int fes; /* -1: none */
	} cases[] = {
		{PEER_RESP_UNKNOWN, NVME_TCP_FES_INVALID_FIELD},
		{PEER_DATA_UNKNOWN, NVME_TCP_FES_INVALID_FIELD},
		{PEER_DATA_FOR_WRITE, NVME_TCP_FES_INVALID_FIELD},
		{PEER_DATA_BEYOND, NVME_TCP_FES_DATA_RANGE},
		{PEER_DATA_GAP, NVME_TCP_FES_DATA_RANGE},
		{PEER_DATA_LENGTH, NVME_TCP_FES_INVALID_FIELD},
		{PEER_R2T_BEYOND, NVME_TCP_FES_DATA_RANGE},
		{PEER_R2T_FOR_READ, NVME_TCP_FES_INVALID_FIELD},
		{PEER_R2T_TWICE, NVME_TCP_FES_LIMIT},
		{PEER_R2T_GAP, NVME_TCP_FES_DATA_RANGE},
		{PEER_BAD_HDGST, NVME_TCP_FES_HDGST},
		{PEER_TERM, -1},
		{PEER_CLOSE, -1},
		{PEER_GARBAGE, NVME_TCP_FES_INVALID_FIELD},
		{PEER_WRONG_DIRECTION, NVME_TCP_FES_INVALID_FIELD},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct peer_cfg pc = {
			.mischief = cases[i].m, .hdgst = cases[i].m == PEER_BAD_HDGST};
		struct nvmf_io io;

		nready = nlost = 0;
		connect_both(&pc);
		run_mischief(cases[i].m, &io);
		assert_true(io.err < 0);
		wait_lost();
		assert_int_equal(lost_err, -EPROTO);
		for (int round = 0; round < 50 && peer->term_fes < 0 && cases[i].fes >= 0; round++)
			shard_run_once(sh);
		if (peer->term_fes != cases[i].fes)
			fail_msg("mischief %d: FES %d, wanted %d", cases[i].m, peer->term_fes,
				cases[i].fes);
		assert_int_equal(nvmf_submit(nvmf_queue(n, 0), &io), -ENOTCONN);
		nvmf_close(n);
		n = NULL;
		peer_close(peer);
	}
	peer = NULL;
}

static void a_second_response_costs_the_connection_after_the_first_counted(void **state)
{
	struct nvmf_io io;

	connect_both(&(struct peer_cfg){.mischief = PEER_RESP_TWICE});
	run_mischief(PEER_RESP_TWICE, &io);
	assert_int_equal(io.err, 0);
	assert_int_equal(io.status, NVME_SC_INTERNAL);
	wait_lost();
}

static void a_failed_command_keeps_the_connection(void **state)
{
	struct nvmf_io io;
	uint8_t buf[512];

	connect_both(&(struct peer_cfg){.mischief = PEER_MEDIA_ERROR});
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf, 512, &io), -EIO);
	assert_int_equal(NVME_SC_CODE(io.status), NVME_SC_READ_ERROR);
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf, 512, &io), 0);
	assert_int_equal(nlost, 0);
}

static void a_data_digest_error_fails_its_command_only(void **state)
{
	struct nvmf_io io;
	uint8_t buf[512];

	connect_both(&(struct peer_cfg){.mischief = PEER_BAD_DDGST, .ddgst = true});
	run_mischief(PEER_BAD_DDGST, &io);
	assert_int_equal(io.err, 0);
	assert_int_equal(io.status, NVME_SC_TRANSIENT_TRANSPORT);
	assert_int_equal(nvmf_stats(n)->data_digest_errors, 1);
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf, 512, &io), 0);
	assert_int_equal(nlost, 0);
}

static void success_without_data_is_no_success(void **state)
{
	struct nvmf_io io;

	connect_both(&(struct peer_cfg){.mischief = PEER_SHORT_READ});
	run_mischief(PEER_SHORT_READ, &io);
	assert_int_equal(io.err, -EBADMSG);
}

static void a_slow_command_is_aborted_and_a_dead_one_costs_the_connection(void **state)
{
	static const enum peer_mischief m[] = {PEER_SLOW, PEER_NO_ANSWER};

	for (size_t i = 0; i < ARRAY_LEN(m); i++) {
		struct peer_cfg pc = {.mischief = m[i]};
		struct nvmf_io io;
		struct nvmf_cfg c;

		nlost = 0;
		assert_int_equal(peer_open(sh, &pc, &peer), 0);
		c = cfg_for(peer);
		c.io_timeout_ms = 150;
		assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
		assert_int_equal(nvmf_wait_ready(n, 10000), 0);
		run_mischief(m[i], &io);
		assert_int_equal(peer->naborts, 1);
		if (m[i] == PEER_SLOW) {
			assert_int_equal(io.err, 0);
			assert_int_equal(io.status, NVME_SC_ABORT_REQ);
			assert_int_equal(nlost, 0);
		} else {
			assert_int_equal(io.err, -ETIMEDOUT);
			wait_lost();
			assert_int_equal(lost_err, -ETIMEDOUT);
		}
		nvmf_close(n);
		n = NULL;
		peer_close(peer);
	}
	peer = NULL;
}

static bool command_arrived(void *arg)
{
	return peer->done_mischief;
}

static void a_caller_can_abort_a_command(void **state)
{
	struct nvmf_io io = {.done_fn = count_done};
	uint8_t buf[512];
	int want = 1;

	connect_both(&(struct peer_cfg){.mischief = PEER_SLOW});
	ndone = 0;
	io.iov = &(struct iovec){buf, 512};
	io.niov = 1;
	nvmf_io_rw(&io, NVME_CMD_READ, 1, 0, 1, 0);
	assert_int_equal(nvmf_submit(nvmf_queue(n, 1), &io), 0);
	assert_int_equal(shard_wait(sh, command_arrived, NULL, WAIT_NS), 0);
	assert_int_equal(nvmf_abort(&io), 0);
	assert_int_equal(nvmf_abort(&io), -EALREADY);
	assert_int_equal(shard_wait(sh, all_done, &want, WAIT_NS), 0);
	assert_int_equal(io.status, NVME_SC_ABORT_REQ);
	assert_int_equal(nvmf_abort(&io), -EALREADY);
}

static bool ready_again(void *arg)
{
	return nready == 2;
}

static void a_lost_connection_comes_back_when_asked_to(void **state)
{
	struct nvmf_io io = {.done_fn = count_done};
	struct nvmf_cfg c;
	uint8_t buf[512];

	assert_int_equal(peer_open(sh, &(struct peer_cfg){0}, &peer), 0);
	c = cfg_for(peer);
	c.reconnect_min_ms = 10;
	c.reconnect_max_ms = 40;
	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
	assert_int_equal(nvmf_wait_ready(n, 10000), 0);
	ndone = 0;
	nvmf_io_flush(&io, 1);
	assert_int_equal(nvmf_submit(nvmf_queue(n, 2), &io), 0);
	peer_drop_connections(peer);
	assert_int_equal(shard_wait(sh, ready_again, NULL, WAIT_NS), 0);
	assert_true(nlost >= 1);
	assert_true(lost_retrying);
	assert_int_equal(ndone, 1);
	assert_true(io.err < 0);
	assert_int_equal(rw(NVME_CMD_READ, 2, 0, buf, 512, &io), 0);
}

static bool is_held(void *arg)
{
	return peer->nheld > 0;
}

static bool never(void *arg)
{
	return false;
}

/* An answer that took long shows only that the target was there when it was asked. */
static void a_target_was_heard_when_what_it_answered_was_sent(void **state)
{
	struct nvmf_io slow = {.done_fn = count_done}, quick = {.done_fn = count_done};
	unsigned int want = 1;
	uint64_t sent, heard;

	connect_both(&(struct peer_cfg){0});
	assert_true(nvmf_heard_ns(n) && nvmf_heard_ns(n) <= shard_now_ns(sh));
	peer_hold(peer, NVME_CMD_FLUSH, 1, PEER_HOLD_ANSWER);
	ndone = 0;
	sent = shard_now_ns(sh);
	nvmf_io_flush(&slow, 1);
	assert_int_equal(nvmf_submit(nvmf_queue(n, 1), &slow), 0);
	assert_int_equal(shard_wait(sh, is_held, NULL, WAIT_NS), 0);
	assert_int_equal(shard_wait(sh, never, NULL, 30000000), -ETIMEDOUT);
	peer_release(peer);
	assert_int_equal(shard_wait(sh, all_done, &want, WAIT_NS), 0);
	assert_int_equal(nvmf_heard_ns(n), sent);
	/* What is lost says nothing. */
	assert_int_equal(shard_wait(sh, never, NULL, 5000000), -ETIMEDOUT);
	heard = nvmf_heard_ns(n);
	nvmf_io_flush(&quick, 1);
	assert_int_equal(nvmf_submit(nvmf_queue(n, 1), &quick), 0);
	peer_drop_connections(peer);
	want = 2;
	assert_int_equal(shard_wait(sh, all_done, &want, WAIT_NS), 0);
	assert_true(quick.err < 0);
	assert_int_equal(nvmf_heard_ns(n), heard);
}

static void trying_again_ends_when_its_time_is_over(void **state)
{
	struct nvmf_cfg c;

	assert_int_equal(peer_open(sh, &(struct peer_cfg){0}, &peer), 0);
	c = cfg_for(peer);
	c.reconnect_min_ms = 5;
	c.reconnect_for_ms = 50;
	peer_close(peer); /* nobody listens there now */
	peer = NULL;
	assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
	assert_int_equal(nvmf_wait_ready(n, 15000), -ECONNREFUSED);
	assert_true(nlost >= 2);
	assert_false(lost_retrying);
}

static void random_damage_never_does_more_than_end_the_connection(void **state)
{
	for (uint64_t seed = 1; seed <= 200; seed++) {
		struct peer_cfg pc = {.mischief = PEER_MUTATE,
			.seed = seed * 0x9e3779b97f4a7c15ULL,
			.hdgst = seed % 4 == 0,
			.ddgst = seed % 8 == 0,
			.r2t_bytes = 4096,
			.c2h_bytes = 2048,
			.success = seed % 3 == 0};
		struct nvmf_cfg c;
		struct nvmf_io io;

		assert_int_equal(peer_open(sh, &pc, &peer), 0);
		c = cfg_for(peer);
		c.connect_timeout_ms = c.io_timeout_ms = 10;
		assert_int_equal(nvmf_open(sh, &c, &events, NULL, &n, NULL), 0);
		if (nvmf_wait_ready(n, 10000) == 0)
			for (int i = 0; i < 20 && nvmf_is_ready(n); i++)
				run_mischief(i % 2 ? PEER_SHORT_READ : PEER_RESP_TWICE, &io);
		nvmf_close(n);
		n = NULL;
		peer_close(peer);
	}
	peer = NULL;
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(data_arrives_whole_in_every_shape_of_transfer),
		T(other_commands_and_statuses_come_through),
		T(discovery_records_are_read_in_pieces),
		T(shutdown_tells_the_controller),
		T(keep_alive_and_events_go_on_by_themselves),
		T(a_full_queue_says_so_and_everything_is_done_once),
		T(closing_ends_commands_in_flight),
		T(a_connection_that_cannot_be_made_is_told_with_its_reason),
		T(wrong_configuration_is_refused_at_open),
		T(every_breach_of_protocol_costs_the_connection_and_nothing_more),
		T(a_second_response_costs_the_connection_after_the_first_counted),
		T(a_failed_command_keeps_the_connection),
		T(a_data_digest_error_fails_its_command_only),
		T(success_without_data_is_no_success),
		T(a_slow_command_is_aborted_and_a_dead_one_costs_the_connection),
		T(a_caller_can_abort_a_command),
		T(a_lost_connection_comes_back_when_asked_to),
		T(a_target_was_heard_when_what_it_answered_was_sent),
		T(trying_again_ends_when_its_time_is_over),
		T(random_damage_never_does_more_than_end_the_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
