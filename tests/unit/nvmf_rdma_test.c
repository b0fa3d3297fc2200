/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "tests/unit/rdma_twin.h"

#define BUF_BYTES (1u << 20)
#define NIOS      64
#define NS_PER_MS 1000000ULL
#define WAIT_NS   (3600000 * NS_PER_MS) /* of virtual time: never reached unless something hangs */

static struct shard *sh;
static struct twin twin;
static struct nvmf *n;
static struct nvmf_cfg cfg;
static uint8_t *buf; /* registered memory */
static int nready, nlost, lost_err, ndone;
static struct nvmf_io ios[NIOS];
static struct iovec iovs[NIOS];

static void ready(struct nvmf *c, void *arg)
{
	nready++;
}

static void lost(struct nvmf *c, void *arg, int err, bool retrying)
{
	nlost++;
	lost_err = err;
}

static const struct nvmf_events events = {.ready_fn = ready, .lost_fn = lost};

static int setup(void **state)
{
	nready = nlost = lost_err = ndone = 0;
	n = NULL;
	memset(ios, 0, sizeof(ios));
	if (shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1}, &sh) < 0 ||
		twin_open(sh, &twin) < 0)
		return -1;
	twin.cfg.capsule_bytes = 4096;
	cfg = (struct nvmf_cfg){.transport = "rdma",
		.host = "192.0.2.1",
		.subnqn = TWIN_NQN,
		.nqueues = 2,
		.depth = 32,
		.rdma_ops = &rd_twin,
		.rdma_arg = &twin};
	buf = mem_alloc(BUF_BYTES);
	return buf ? 0 : -1;
}

/* Whatever happened: the host has kept the rules of verbs, and nothing is left on the device. */
static int teardown(void **state)
{
	nvmf_close(n);
	if (twin.violations)
		print_error("the twin: %s\n", twin.violation);
	assert_int_equal(twin.violations, 0);
	assert_int_equal(twin.nlinks, 0);
	assert_int_equal(twin.nmws, 0);
	assert_int_equal(twin.nbound, 0);
	assert_int_equal(twin.nmrs, 0);
	assert_int_equal(twin.npds, 0);
	mem_free(buf, BUF_BYTES);
	twin_close(&twin);
	shard_close(sh);
	return 0;
}

static void open_only(void)
{
	assert_int_equal(nvmf_open(sh, &cfg, &events, NULL, &n, NULL), 0);
}

static void connect_twin(void)
{
	open_only();
	if (nvmf_wait_ready(n, 60000) < 0)
		print_error("%s\n", err_text(nvmf_error(n)));
	assert_true(nvmf_is_ready(n));
	for (int i = 0; i < 5; i++) /* the request for events goes its way */
		shard_run_once(sh);
}

static bool is_positive(void *arg)
{
	return *(int *)arg > 0;
}

static void wait_lost(void)
{
	assert_int_equal(shard_wait(sh, is_positive, &nlost, WAIT_NS), 0);
}

static void spin(int rounds)
{
	while (rounds--)
		shard_run_once(sh);
}

static void fill(uint8_t *p, size_t len, uint32_t seed)
{
	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
}

static int rwv(uint8_t opcode, uint16_t qid, uint64_t block, struct iovec *iov, int niov)
{
	struct nvmf_io io = {.iov = iov, .niov = niov};
	size_t len = 0;

	for (int i = 0; i < niov; i++)
		len += iov[i].iov_len;
	nvmf_io_rw(&io, opcode, 1, block, (uint32_t)(len / TWIN_BLOCK), 0);
	return nvmf_run(nvmf_queue(n, qid), &io);
}

static int rw(uint8_t opcode, uint16_t qid, uint64_t block, void *data, size_t len)
{
	return rwv(opcode, qid, block, &(struct iovec){data, len}, 1);
}

static void done(struct nvmf_io *io)
{
	ndone++;
}

static int submit(int i, uint8_t opcode, uint16_t qid, uint64_t block, void *data, size_t len)
{
	iovs[i] = (struct iovec){data, len};
	ios[i] = (struct nvmf_io){.iov = &iovs[i], .niov = len ? 1 : 0, .done_fn = done};
	if (opcode == NVME_CMD_FLUSH)
		nvmf_io_flush(&ios[i], 1);
	else
		nvmf_io_rw(&ios[i], opcode, 1, block, (uint32_t)(len / TWIN_BLOCK), 0);
	return nvmf_submit(nvmf_queue(n, qid), &ios[i]);
}

static bool all_done(void *arg)
{
	return ndone >= *(int *)arg;
}

static void wait_done(int want)
{
	assert_int_equal(shard_wait(sh, all_done, &want, WAIT_NS), 0);
}

static uint32_t last_key(uint64_t *addr, uint32_t *len)
{
	struct nvme_keyed_sgl k;

	memcpy(&k, &twin.last.dptr, sizeof(k));
	*addr = from_le64(k.addr);
	*len = nvme_keyed_length(&k);
	return nvme_keyed_key(&k);
}

/* ---- a target that behaves ------------------------------------------------------------------------------------------- */

static void data_arrives_whole_both_ways_and_is_never_copied(void **state)
{
	static const size_t lens[] = {512, 4096, 4608, 65536, 262144};
	uint8_t *in = buf + BUF_BYTES / 2;
	size_t moved = 0;

	connect_twin();
	for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
		fill(buf, lens[i], (uint32_t)i);
		assert_int_equal(rw(NVME_CMD_WRITE, 1, i, buf, lens[i]), 0);
		assert_memory_equal(twin.mem + i * TWIN_BLOCK, buf, lens[i]);
		memset(in, 0, lens[i]);
		assert_int_equal(rw(NVME_CMD_READ, 2, i, in, lens[i]), 0);
		assert_memory_equal(in, buf, lens[i]);
	}
	assert_int_equal(rw(NVME_CMD_WRITE, 1, TWIN_BYTES / TWIN_BLOCK, buf, 512), -EIO);
	/* One write more, which the target refused. */
	for (size_t i = 0; i < ARRAY_LEN(lens); i++)
		moved += 2 * lens[i];
	assert_int_equal(nvmf_stats(n)->zero_copy_bytes, moved + 512);
	assert_int_equal(nvmf_stats(n)->copied_bytes, 0);
	assert_int_equal(nvmf_stats(n)->binds, nvmf_stats(n)->remote_invalidates);
	assert_int_equal(twin.invalidates, 0);
	assert_int_equal(nlost, 0);
}

static void small_writes_go_inside_their_capsules_and_reads_never_do(void **state)
{
	uint64_t inlined = 0, binds;

	connect_twin();
	assert_int_equal(nvmf_stats(n)->inline_bytes, 0);
	binds = nvmf_stats(n)->binds;
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, buf, 4096), 0);
	assert_int_equal(nvmf_stats(n)->inline_bytes - inlined, 4096);
	assert_int_equal(nvmf_stats(n)->binds, binds);
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf, 512), 0);
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, buf, 4608), 0);
	assert_int_equal(nvmf_stats(n)->inline_bytes - inlined, 4096);
	assert_int_equal(nvmf_stats(n)->binds, binds + 2);
}

static void in_capsule_data_stands_where_the_controller_wants_it(void **state)
{
	twin.cfg.icdoff = 12;
	connect_twin();
	fill(buf, 4096, 5);
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 3, buf, 4096), 0);
	assert_memory_equal(twin.mem + 3 * TWIN_BLOCK, buf, 4096);
	assert_int_equal(twin.last.dptr.id, NVME_SGL_ID_DATA_OFFSET);
}

static void an_offset_that_is_too_far_means_no_in_capsule_data(void **state)
{
	twin.cfg.icdoff = RDMA_PAD_MAX / 16 + 1;
	connect_twin();
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, buf, 512), 0);
	assert_int_equal(twin.last.dptr.id, NVME_SGL_ID_KEYED_INV);
}

static void the_connect_request_says_what_the_queue_is(void **state)
{
	cfg.nqueues = 1;
	cfg.depth = 20;
	connect_twin();
	assert_int_equal(from_le16(twin.last_request.recfmt), 0);
	assert_int_equal(from_le16(twin.last_request.qid), 1);
	assert_int_equal(from_le16(twin.last_request.cntlid), TWIN_CNTLID);
	assert_int_equal(from_le16(twin.last_request.hsqsize), 20);
	assert_int_equal(from_le16(twin.last_request.hrqsize), 21);
	assert_int_equal(twin.last_sqsize, 20);
	assert_int_equal(nvmf_depth(n), 20);
}

static void a_target_with_a_shorter_queue_gets_fewer_commands_at_a_time(void **state)
{
	twin.cfg.crqsize = 8;
	connect_twin();
	assert_int_equal(nvmf_depth(n), 8);
	assert_int_equal(twin.last_sqsize, 8);
	for (int i = 0; i < 8; i++)
		assert_int_equal(submit(i, NVME_CMD_FLUSH, 1, 0, NULL, 0), 0);
	assert_int_equal(submit(8, NVME_CMD_FLUSH, 1, 0, NULL, 0), -EAGAIN);
	wait_done(8);
}

static void a_small_device_gets_a_shorter_queue_and_a_tiny_one_is_refused(void **state)
{
	twin.cfg.max_wr = 30;
	connect_twin();
	assert_int_equal(nvmf_depth(n), 10);
	for (int i = 0; i < 10; i++)
		assert_int_equal(submit(i, NVME_CMD_READ, 1, 0, buf + i * 4096, 4096), 0);
	wait_done(10);
	nvmf_close(n);
	twin.cfg.max_wr = 4;
	open_only();
	assert_int_equal(nvmf_wait_ready(n, 1000), -EOPNOTSUPP);
	assert_non_null(strstr(err_text(nvmf_error(n)), "too small"));
}

static void pieces_are_gathered_and_scattered_where_they_lie_apart(void **state)
{
	struct iovec apart[3] = {
		{buf, 8192}, {buf + 100000, 512}, {buf + 300000, 7680}}; /* 16 KiB */
	struct iovec beside[3] = {{buf, 8192}, {NULL, 0}, {buf + 8192, 8192}};
	uint64_t copied;

	connect_twin();
	assert_int_equal(nvmf_max_pieces(n), 1);
	fill(buf, BUF_BYTES / 2, 9);
	copied = nvmf_stats(n)->copied_bytes;
	assert_int_equal(rwv(NVME_CMD_WRITE, 1, 0, apart, 3), 0);
	assert_memory_equal(twin.mem, buf, 8192);
	assert_memory_equal(twin.mem + 8192, buf + 100000, 512);
	assert_memory_equal(twin.mem + 8704, buf + 300000, 7680);
	assert_int_equal(nvmf_stats(n)->copied_bytes - copied, 16384);
	memset(buf, 0, BUF_BYTES);
	assert_int_equal(rwv(NVME_CMD_READ, 1, 0, apart, 3), 0);
	assert_memory_equal(twin.mem, buf, 8192);
	assert_memory_equal(twin.mem + 8192, buf + 100000, 512);
	assert_memory_equal(twin.mem + 8704, buf + 300000, 7680);
	copied = nvmf_stats(n)->copied_bytes;
	assert_int_equal(rwv(NVME_CMD_READ, 1, 0, beside, 3), 0);
	assert_memory_equal(twin.mem, buf, 16384);
	assert_int_equal(nvmf_stats(n)->copied_bytes, copied);
}

static void pieces_of_a_capsule_go_out_of_their_own_memory(void **state)
{
	struct iovec iov[20];
	uint64_t copied;

	for (int i = 0; i < 20; i++)
		iov[i] = (struct iovec){buf + i * 5000, 128};
	connect_twin();
	fill(buf, 100000, 1);
	copied = nvmf_stats(n)->copied_bytes;
	assert_int_equal(rwv(NVME_CMD_WRITE, 1, 0, iov, 8), 0); /* 1024 bytes */
	assert_memory_equal(twin.mem + 7 * 128, buf + 7 * 5000, 128);
	assert_int_equal(nvmf_stats(n)->copied_bytes, copied);
	assert_int_equal(rwv(NVME_CMD_WRITE, 1, 0, iov, 20), 0); /* more than the device takes */
	assert_memory_equal(twin.mem + 19 * 128, buf + 19 * 5000, 128);
	assert_int_equal(nvmf_stats(n)->copied_bytes - copied, 2560);
}

static void a_capsule_has_as_many_pieces_as_the_device_takes(void **state)
{
	struct iovec iov[4] = {
		{buf, 512}, {buf + 4096, 512}, {buf + 9000, 512}, {buf + 20000, 512}};

	twin.cfg.max_sge = 4; /* one is the command's */
	connect_twin();
	assert_int_equal(rwv(NVME_CMD_WRITE, 1, 0, iov, 3), 0);
	assert_int_equal(nvmf_stats(n)->copied_bytes, 0);
	assert_int_equal(rwv(NVME_CMD_WRITE, 1, 0, iov, 4), 0);
	assert_int_equal(nvmf_stats(n)->copied_bytes, 2048);
}

static void memory_that_is_not_registered_is_copied_and_counted(void **state)
{
	static uint8_t out[65536], in[65536];
	uint64_t copied;

	connect_twin();
	copied = nvmf_stats(n)->copied_bytes;
	fill(out, sizeof(out), 3);
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, out, sizeof(out)), 0);
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, in, sizeof(in)), 0);
	assert_memory_equal(out, in, sizeof(in));
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, out, 1024), 0);
	assert_int_equal(nvmf_stats(n)->copied_bytes - copied, 2 * 65536 + 1024);
}

static void a_read_that_failed_changes_nothing(void **state)
{
	uint8_t in[512];

	connect_twin();
	memset(in, 0x5a, sizeof(in));
	assert_int_equal(rw(NVME_CMD_READ, 1, TWIN_BYTES / TWIN_BLOCK, in, sizeof(in)), -EIO);
	for (size_t i = 0; i < sizeof(in); i++)
		assert_int_equal(in[i], 0x5a);
}

/* ---- doorbells ----------------------------------------------------------------------------------------------------------- */

static void what_is_submitted_in_one_round_is_one_doorbell(void **state)
{
	struct nvmf_stats before;
	const struct nvmf_stats *now;
	uint32_t doorbells, signaled;

	connect_twin();
	now = nvmf_stats(n);
	before = *now;
	doorbells = twin.doorbells;
	signaled = twin.signaled;
	for (int i = 0; i < 12; i++)
		assert_int_equal(submit(i, NVME_CMD_WRITE, 1, 0, buf + i * 65536, 65536), 0);
	assert_int_equal(twin.doorbells, doorbells);
	wait_done(12);
	assert_int_equal(twin.doorbells, doorbells + 1);
	assert_int_equal(now->kicks - before.kicks, 1);
	assert_int_equal(twin.signaled, signaled + 1);
	assert_int_equal(now->binds - before.binds, 12);
	assert_int_equal(now->remote_invalidates - before.remote_invalidates, 12);
	/* 12 binds, 12 sends, 12 receive buffers posted again; 12 responses and one completed chain. */
	assert_int_equal(now->posts - before.posts, 36);
	assert_int_equal(now->completions - before.completions, 13);
	assert_int_equal(now->copied_bytes, before.copied_bytes);
	assert_int_equal(now->zero_copy_bytes - before.zero_copy_bytes, 12 * 65536);
}

static void kick_sends_at_once_and_only_what_there_is(void **state)
{
	uint32_t doorbells;

	connect_twin();
	doorbells = twin.doorbells;
	assert_int_equal(submit(0, NVME_CMD_READ, 1, 0, buf, 4096), 0);
	assert_int_equal(submit(1, NVME_CMD_READ, 1, 8, buf + 4096, 4096), 0);
	nvmf_kick(nvmf_queue(n, 1));
	assert_int_equal(twin.doorbells, doorbells + 1);
	nvmf_kick(nvmf_queue(n, 1));
	nvmf_kick(nvmf_queue(n, 2));
	assert_int_equal(twin.doorbells, doorbells + 1);
	wait_done(2);
	spin(10);
	assert_int_equal(twin.doorbells, doorbells + 1);
}

static int again_left;

static void again(struct nvmf_io *io)
{
	ndone++;
	if (again_left-- > 0)
		assert_int_equal(nvmf_submit(io->queue, io), 0);
}

static void a_queue_at_full_depth_never_runs_out_of_receive_buffers(void **state)
{
	int want;

	connect_twin();
	again_left = 1000;
	for (int i = 0; i < 32; i++) {
		assert_int_equal(submit(i, i & 1 ? NVME_CMD_READ : NVME_CMD_WRITE, 1, 0,
					 buf + i * 8192, i & 2 ? 8192 : 512),
			0);
		ios[i].done_fn = again;
	}
	want = 1000 + 32;
	wait_done(want);
	assert_int_equal(twin.rnr, 0);
	assert_int_equal(nlost, 0);
	assert_int_equal(nvmf_in_flight(nvmf_queue(n, 1)), 0);
}

static void an_idle_queue_waits_for_an_event(void **state)
{
	connect_twin();
	twin.hold_responses = true;
	assert_int_equal(submit(0, NVME_CMD_READ, 1, 0, buf, 4096), 0);
	spin(400); /* the completion queue is armed and left alone */
	assert_int_equal(ndone, 0);
	assert_true(twin.arms > 0);
	twin_release(&twin);
	wait_done(1);
	assert_int_equal(ios[0].err, 0);
}

static void what_completes_just_before_arming_is_not_overlooked(void **state)
{
	connect_twin();
	spin(200); /* both queues are armed: the next to be is ours */
	twin.hold_responses = twin.slip = true;
	assert_int_equal(submit(0, NVME_CMD_READ, 1, 0, buf, 4096), 0);
	spin(200);
	assert_int_equal(ndone, 1);
}

/* ---- keys ------------------------------------------------------------------------------------------------------------------- */

static void a_key_gives_the_range_of_its_command_and_no_more(void **state)
{
	uint64_t addr;
	uint32_t len, key;

	connect_twin();
	twin.hold_responses = true;
	assert_int_equal(submit(0, NVME_CMD_WRITE, 1, 0, buf + 4096, 65536), 0);
	spin(5);
	key = last_key(&addr, &len);
	assert_int_equal(addr, (uintptr_t)buf + 4096);
	assert_int_equal(len, 65536);
	assert_true(twin_reaches(&twin, key, addr, len, false));
	assert_false(twin_reaches(&twin, key, addr, len, true)); /* a write is read */
	assert_false(twin_reaches(&twin, key, addr, len + 1, false));
	assert_false(twin_reaches(&twin, key, addr - 1, 1, false));
	assert_false(twin_reaches(&twin, key + 1, addr, 1, false));
	twin_release(&twin);
	wait_done(1);
	assert_false(twin_reaches(&twin, key, addr, 1, false));
}

static void after_its_command_a_key_is_invalid(void **state)
{
	uint32_t keys[600], len;
	uint64_t addr;

	connect_twin();
	for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
		bool write = i & 1;

		twin.fault = i % 3 == 0 ? TWIN_NO_INVALIDATE : TWIN_NONE;
		assert_int_equal(rw(write ? NVME_CMD_WRITE : NVME_CMD_READ, 1, 0, buf, 8192), 0);
		keys[i] = last_key(&addr, &len);
		assert_int_equal(twin.nbound, 0);
		assert_false(twin_reaches(&twin, keys[i], addr, len, !write));
		/* A slot's next command has another key. */
		assert_true(!i || keys[i] != keys[i - 1]);
	}
	assert_int_equal(twin.invalidates, ARRAY_LEN(keys) / 3);
}

static void a_command_ends_only_when_its_window_has_been_invalidated(void **state)
{
	connect_twin();
	twin.fault = TWIN_NO_INVALIDATE;
	twin.hold_sends = true;
	assert_int_equal(submit(0, NVME_CMD_READ, 1, 0, buf, 65536), 0);
	spin(200);
	assert_int_equal(twin.invalidates, 1);
	assert_int_equal(ndone, 0);
	twin_release(&twin);
	wait_done(1);
	assert_int_equal(nvmf_io_result(&ios[0]), 0);
	assert_int_equal(twin.nbound, 0);
}

static void a_response_before_the_end_of_its_send_does_not_end_the_command(void **state)
{
	connect_twin();
	twin.hold_sends = true;
	assert_int_equal(submit(0, NVME_CMD_WRITE, 1, 0, buf, 1024), 0);
	assert_int_equal(submit(1, NVME_CMD_WRITE, 1, 2, buf + 65536, 65536), 0);
	spin(200);
	assert_int_equal(twin.ncommands, 2);
	assert_int_equal(ndone, 0);
	assert_int_equal(nvmf_in_flight(nvmf_queue(n, 1)), 2);
	twin_release(&twin);
	wait_done(2);
}

static void without_windows_keys_are_those_of_regions(void **state)
{
	for (int lie = 0; lie < 2; lie++) {
		twin.cfg.no_windows = !lie;
		twin.cfg.windows_lie = lie;
		connect_twin();
		fill(buf, 65536, 7);
		assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, buf, 65536), 0);
		assert_memory_equal(twin.mem, buf, 65536);
		assert_int_equal(twin.last.dptr.id, NVME_SGL_ID_KEYED);
		assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf + 65536, 65536), 0);
		assert_memory_equal(buf + 65536, buf, 65536);
		assert_true(nvmf_stats(n)->region_keys >= 2);
		assert_int_equal(nvmf_stats(n)->binds, 0);
		nvmf_close(n);
		n = NULL;
	}
}

static void regions_are_registered_once_and_let_go_when_freed(void **state)
{
	struct nvmf *other;
	uint32_t opens, nmrs;
	uint8_t *more = mem_alloc(65536);

	connect_twin();
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf, 65536), 0);
	opens = twin.mr_opens;
	for (int i = 0; i < 10; i++)
		assert_int_equal(rw(NVME_CMD_READ, 2, 0, buf + i * 65536, 65536), 0);
	assert_int_equal(twin.mr_opens, opens);
	/* A second controller of the shard registers its control memory and no region again. */
	assert_int_equal(nvmf_open(sh, &cfg, NULL, NULL, &other, NULL), 0);
	assert_int_equal(nvmf_wait_ready(other, 1000), 0);
	assert_int_equal(twin.npds, 1);
	nvmf_close(other);

	assert_int_equal(rw(NVME_CMD_READ, 1, 0, more, 65536), 0);
	nmrs = twin.nmrs;
	mem_free(more, 65536);
	assert_int_equal(rw(NVME_CMD_FLUSH, 1, 0, NULL, 512), -EINVAL); /* no data */
	assert_int_equal(submit(0, NVME_CMD_FLUSH, 1, 0, NULL, 0), 0);
	assert_int_equal(twin.nmrs, nmrs - 1);
	wait_done(1);
	/* The same address again is other memory. */
	more = mem_alloc(65536);
	opens = twin.mr_opens;
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, more, 65536), 0);
	assert_int_equal(twin.mr_opens, opens + 1);
	/* Even when nobody has looked between. */
	mem_free(more, 65536);
	more = mem_alloc(65536);
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, more, 65536), 0);
	assert_int_equal(twin.mr_opens, opens + 2);
	mem_free(more, 65536);
}

static void a_device_that_registers_no_memory_gives_errors_not_crashes(void **state)
{
	static uint8_t data[65536];

	twin.cfg.refuse_regions = true;
	open_only();
	assert_int_equal(nvmf_wait_ready(n, 60000), -ENOMEM);
	nvmf_close(n);
	/* The same for one that is full later. */
	twin.cfg.refuse_regions = false;
	connect_twin();
	twin.cfg.refuse_regions = true;
	memset(data, 1, sizeof(data));
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, data, sizeof(data)), -ENOMEM);
	assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, data, 512), -ENOMEM);
	assert_int_equal(nvmf_in_flight(nvmf_queue(n, 1)), 0);
	assert_int_equal(submit(0, NVME_CMD_FLUSH, 1, 0, NULL, 0), 0);
	wait_done(1);
	assert_int_equal(nlost, 1);
}

/* Each step that asks the device for something fails once, the first, the second, ... */
static void whatever_the_device_refuses_is_an_error_and_leaves_nothing(void **state)
{
	uint32_t step = 1;
	int rc;

	for (rc = -1; rc < 0 && step < 2000; step++) {
		twin.fail_at = step;
		open_only();
		rc = nvmf_wait_ready(n, 60000);
		if (!twin.fail_at && rc < 0) {
			assert_true(nvmf_error(n)->code < 0);
			assert_true(strlen(nvmf_error(n)->reason) > 0);
		}
		nvmf_close(n);
		n = NULL;
		assert_int_equal(twin.nlinks + twin.nmws + twin.nmrs + twin.npds, 0);
		if (!twin.fail_at) /* it was used, for a window perhaps: then there are none */
			rc = -1;
	}
	assert_int_equal(rc, 0);
	assert_true(step > 100); /* pd, regions, windows, queue pairs, receives, connect */
}

static void a_command_that_cannot_be_sent_while_the_connection_dies_is_told_so(void **state)
{
	connect_twin();
	twin.fault = TWIN_POST_FAILS;
	assert_int_equal(submit(0, NVME_CMD_FLUSH, 1, 0, NULL, 0), 0);
	nvmf_kick(nvmf_queue(n, 1));
	assert_int_equal(submit(1, NVME_CMD_FLUSH, 1, 0, NULL, 0), -ENOTCONN);
	wait_lost();
	assert_int_equal(ndone, 1);
}

/* ---- connections that do not come about ---------------------------------------------------------------------------------- */

static void a_refused_connection_says_why(void **state)
{
	static const struct {
		enum twin_fault fault;
		uint16_t sts;
		int err;
		const char *text;
	} cases[] = {
		{TWIN_REJECT, NVME_RDMA_INVALID_LEN, -ECONNREFUSED, "private data length"},
		{TWIN_REJECT, NVME_RDMA_INVALID_HSQSIZE, -ECONNREFUSED, "invalid send queue size"},
		{TWIN_REJECT, NVME_RDMA_NO_RESOURCES, -ECONNREFUSED, "out of resources"},
		{TWIN_REJECT, 4711, -ECONNREFUSED, "status 4711"},
		{TWIN_REJECT, 0, -ECONNREFUSED, "no reason given"},
		{TWIN_REJECT_EMPTY, 0, -ECONNREFUSED, "no reason given"},
		{TWIN_REJECT_CM, 0, -ECONNREFUSED, "nobody listens"},
		{TWIN_ACCEPT_SHORT, 0, -EPROTO, "not NVMe/RDMA"},
		{TWIN_ACCEPT_FORMAT, 0, -EPROTO, "not NVMe/RDMA"},
		{TWIN_UNRESOLVED, 0, -EHOSTUNREACH, "no RDMA device leads"},
		{TWIN_MUTE, 0, -ETIMEDOUT, "in time"},
	};

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		twin.fault = cases[i].fault;
		twin.cfg.reject_sts = cases[i].sts;
		open_only();
		assert_int_equal(nvmf_wait_ready(n, 60000), cases[i].err);
		if (!strstr(err_text(nvmf_error(n)), cases[i].text))
			fail_msg("%s: %s", cases[i].text, err_text(nvmf_error(n)));
		assert_int_equal(twin.nlinks, 0);
		nvmf_close(n);
		n = NULL;
		twin.fault = TWIN_NONE;
	}
}

static void a_controller_without_keyed_descriptors_is_not_used(void **state)
{
	twin.cfg.no_keyed = true;
	open_only();
	assert_int_equal(nvmf_wait_ready(n, 60000), -EPROTONOSUPPORT);
	assert_non_null(strstr(err_text(nvmf_error(n)), "keyed SGLs"));
}

static void closing_while_connecting_leaves_nothing(void **state)
{
	for (int rounds = 0; rounds < 30; rounds++) {
		open_only();
		spin(rounds);
		nvmf_close(n);
		n = NULL;
		assert_int_equal(twin.nlinks, 0);
		assert_int_equal(twin.nmrs, 0);
	}
}

/* ---- connections that break -------------------------------------------------------------------------------------------------- */

/* Two commands are in flight when it happens; both end, with an error, and nothing of theirs is reachable. */
static void break_by(enum twin_fault f, uint8_t opcode, size_t len, int err, const char *text)
{
	uint32_t ncommands = twin.ncommands;

	nready = nlost = ndone = 0;
	connect_twin();
	twin.hold_responses = true;
	assert_int_equal(submit(0, NVME_CMD_WRITE, 1, 8, buf + 262144, 8192), 0);
	spin(3);
	assert_int_equal(twin.ncommands, ncommands + 1);
	twin.hold_responses = false;
	twin.fault = f;
	assert_int_equal(submit(1, opcode, 1, 0, buf, len), 0);
	wait_lost();
	assert_int_equal(lost_err, err);
	if (!strstr(err_text(nvmf_error(n)), text))
		fail_msg("fault %d: %s: %s", f, text, err_text(nvmf_error(n)));
	assert_int_equal(ndone, 2);
	assert_int_equal(ios[0].err, err);
	/* Twins: the first answer was right and counts. */
	if (f != TWIN_TWICE && f != TWIN_FLOOD)
		assert_int_equal(ios[1].err, err);
	assert_int_equal(twin.nbound, 0);
	assert_int_equal(twin.nlinks, 0);
	assert_int_equal(twin.nmrs, 0);
	nvmf_close(n);
	n = NULL;
	twin.fault = TWIN_NONE;
}

static void failed_work_requests_cost_the_connection(void **state)
{
	break_by(TWIN_RETRY_EXCEEDED, NVME_CMD_WRITE, 512, -ECONNRESET, "transport retry");
	break_by(TWIN_RNR_EXCEEDED, NVME_CMD_READ, 8192, -ECONNRESET, "RNR retry");
	break_by(TWIN_REMOTE_ACCESS, NVME_CMD_WRITE, 8192, -ECONNRESET, "remote access");
	break_by(TWIN_BIND_ERROR, NVME_CMD_WRITE, 8192, -ECONNRESET, "binding a memory window");
	break_by(TWIN_INVALIDATE_ERROR, NVME_CMD_READ, 8192, -ECONNRESET,
		"invalidating a memory window");
	break_by(TWIN_FLUSHED, NVME_CMD_READ, 8192, -ECONNRESET, "the connection broke");
	break_by(TWIN_POST_FAILS, NVME_CMD_READ, 8192, -ENOMEM, "takes no work requests");
	break_by(TWIN_POLL_FAILS, NVME_CMD_READ, 8192, -EIO, "completion queue fails");
}

static void an_end_between_command_and_response_ends_all_commands(void **state)
{
	break_by(TWIN_DISCONNECT, NVME_CMD_WRITE, 512, -ECONNRESET, "closed the connection");
	break_by(TWIN_DISCONNECT, NVME_CMD_READ, 8192, -ECONNRESET, "closed the connection");
	break_by(TWIN_DEVICE_GONE, NVME_CMD_READ, 8192, -ENODEV, "was removed");
	break_by(TWIN_ADDRESS_CHANGED, NVME_CMD_READ, 8192, -ENETDOWN, "address");
}

static void responses_that_fit_no_command_cost_the_connection(void **state)
{
	break_by(TWIN_WRONG_CID, NVME_CMD_WRITE, 512, -EPROTO, "not in flight");
	break_by(TWIN_STALE_CID, NVME_CMD_READ, 8192, -EPROTO, "not in flight");
	break_by(TWIN_TWICE, NVME_CMD_WRITE, 512, -EPROTO, "not in flight");
	break_by(TWIN_TWICE, NVME_CMD_READ, 8192, -EPROTO, "not in flight");
	break_by(TWIN_FLOOD, NVME_CMD_WRITE, 512, -EPROTO, "not in flight");
	break_by(TWIN_CQE_SHORT, NVME_CMD_READ, 8192, -EPROTO, "wrong length");
	break_by(TWIN_CQE_LONG, NVME_CMD_WRITE, 8192, -EPROTO, "wrong length");
	break_by(TWIN_CQE_NONE, NVME_CMD_WRITE, 512, -EPROTO, "wrong length");
	break_by(TWIN_CQE_HUGE, NVME_CMD_WRITE, 512, -ECONNRESET, "receiving a response");
	break_by(TWIN_WRONG_INVALIDATE, NVME_CMD_READ, 8192, -EPROTO, "invalidates a key");
	break_by(TWIN_WRONG_INVALIDATE, NVME_CMD_WRITE, 512, -EPROTO, "invalidates a key");
}

static void protocol_errors_are_counted(void **state)
{
	connect_twin();
	twin.fault = TWIN_CQE_LONG;
	assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf, 4096), -EPROTO);
	assert_int_equal(nvmf_stats(n)->protocol_errors, 1);
}

static void a_target_that_reaches_too_far_is_denied_and_lost(void **state)
{
	static const enum twin_fault faults[] = {TWIN_BEYOND, TWIN_BEFORE, TWIN_WRONG_WAY};

	memset(buf, 0x5a, BUF_BYTES);
	for (size_t i = 0; i < ARRAY_LEN(faults); i++) {
		twin.denied = 0;
		break_by(faults[i], NVME_CMD_READ, 8192, -ECONNRESET, "the connection broke");
		break_by(faults[i], NVME_CMD_WRITE, 8192, -ECONNRESET, "the connection broke");
		assert_int_equal(twin.denied, 2);
	}
	for (size_t i = 0; i < BUF_BYTES; i++)
		assert_int_equal(buf[i], 0x5a);
}

static void a_response_nobody_waits_for_costs_the_connection(void **state)
{
	struct nvme_cqe cqe;

	connect_twin();
	nvme_cqe_set(&cqe, 3, 0, 0, 0);
	assert_true(twin_send_raw(&twin, 1, &cqe, sizeof(cqe), false, 0));
	wait_lost();
	assert_int_equal(lost_err, -EPROTO);
}

static struct poller early;

/* Runs before the queue's poller, and after the round's doorbells. */
static int answer_early(void *arg)
{
	struct nvme_cqe cqe;

	poller_del(sh, &early);
	assert_int_equal(submit(0, NVME_CMD_WRITE, 1, 0, buf, 8192), 0);
	nvme_cqe_set(&cqe, ios[0].cid, 0, 0, 0);
	assert_true(twin_send_raw(&twin, 1, &cqe, sizeof(cqe), false, 0));
	return 1;
}

static void a_response_to_a_command_that_has_not_left_yet_is_not_believed(void **state)
{
	connect_twin();
	spin(200); /* its poller is gone, and comes behind ours */
	assert_int_equal(submit(1, NVME_CMD_FLUSH, 1, 0, NULL, 0), 0);
	poller_add(sh, &early, answer_early, NULL, POLLER_SLEEPS);
	wait_lost();
	assert_int_equal(lost_err, -EPROTO);
	assert_int_equal(ios[0].err, -EPROTO);
	assert_int_equal(twin.last.opcode, NVME_CMD_FLUSH); /* the write was never sent */
	assert_int_equal(ndone, 2);
}

static void arming_that_fails_costs_the_connection(void **state)
{
	connect_twin();
	twin.hold_responses = true;
	twin.fault = TWIN_ARM_FAILS;
	assert_int_equal(submit(0, NVME_CMD_FLUSH, 1, 0, NULL, 0), 0);
	spin(2);
	twin.fault = TWIN_ARM_FAILS; /* the command has taken the first */
	wait_lost();
	assert_int_equal(lost_err, -EIO);
	assert_int_equal(ndone, 1);
}

static void silence_is_answered_by_abort_and_then_by_the_end(void **state)
{
	cfg.io_timeout_ms = 2000;
	connect_twin();
	twin.fault = TWIN_SILENCE;
	assert_int_equal(submit(0, NVME_CMD_WRITE, 1, 0, buf, 8192), 0);
	wait_lost();
	assert_int_equal(lost_err, -ETIMEDOUT);
	assert_int_equal(twin.aborts, 1);
	assert_int_equal(nvmf_stats(n)->aborts, 1);
	assert_int_equal(ndone, 1);
	assert_int_equal(ios[0].err, -ETIMEDOUT);
	assert_int_equal(twin.nbound, 0);
}

static void it_connects_again_and_moves_data_with_new_keys(void **state)
{
	uint64_t addr;
	uint32_t len, key;

	cfg.reconnect_min_ms = 100;
	connect_twin();
	for (int i = 1; i <= 3; i++) {
		twin.fault = TWIN_DISCONNECT;
		assert_int_equal(rw(NVME_CMD_READ, 1, 0, buf, 8192), -ECONNRESET);
		key = last_key(&addr, &len);
		assert_int_equal(nvmf_wait_ready(n, 60000), 0);
		assert_int_equal(nlost, i);
		assert_int_equal(nready, i + 1);
		assert_false(twin_reaches(&twin, key, addr, len, true));
		fill(buf, 8192, (uint32_t)i);
		assert_int_equal(rw(NVME_CMD_WRITE, 1, 0, buf, 8192), 0);
		assert_memory_equal(twin.mem, buf, 8192);
	}
}

static void keep_alive_is_answered_for_hours(void **state)
{
	struct nvmf_io io = {0};

	cfg.keep_alive_ms = 10000;
	connect_twin();
	assert_int_equal(shard_wait(sh, is_positive, &nlost, 3600000 * NS_PER_MS), -ETIMEDOUT);
	nvmf_io_flush(&io, 1);
	assert_int_equal(nvmf_run(nvmf_queue(n, 1), &io), 0);
	assert_int_equal(nvmf_shutdown(n), 0);
}

static void closing_under_load_ends_every_command_and_every_key(void **state)
{
	uint64_t addr;
	uint32_t len, key;

	connect_twin();
	twin.hold_responses = twin.hold_sends = true;
	for (int i = 0; i < 20; i++)
		assert_int_equal(submit(i, i & 1 ? NVME_CMD_READ : NVME_CMD_WRITE,
					 (uint16_t)(1 + i % 2), 0, buf + i * 16384, 16384),
			0);
	spin(5);
	key = last_key(&addr, &len);
	assert_int_equal(twin.nbound, 20);
	assert_int_equal(submit(20, NVME_CMD_WRITE, 1, 0, buf, 8192), 0); /* not posted yet */
	nvmf_close(n);
	n = NULL;
	assert_int_equal(ndone, 21);
	for (int i = 0; i < 21; i++)
		assert_int_equal(ios[i].err, -ECANCELED);
	assert_int_equal(twin.nbound, 0);
	assert_int_equal(twin.nlinks, 0);
	assert_false(twin_reaches(&twin, key, addr, 1, true));
	assert_false(twin_reaches(&twin, key, addr, 1, false));
}

int main(void)
{
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(data_arrives_whole_both_ways_and_is_never_copied),
		T(small_writes_go_inside_their_capsules_and_reads_never_do),
		T(in_capsule_data_stands_where_the_controller_wants_it),
		T(an_offset_that_is_too_far_means_no_in_capsule_data),
		T(the_connect_request_says_what_the_queue_is),
		T(a_target_with_a_shorter_queue_gets_fewer_commands_at_a_time),
		T(a_small_device_gets_a_shorter_queue_and_a_tiny_one_is_refused),
		T(pieces_are_gathered_and_scattered_where_they_lie_apart),
		T(pieces_of_a_capsule_go_out_of_their_own_memory),
		T(a_capsule_has_as_many_pieces_as_the_device_takes),
		T(memory_that_is_not_registered_is_copied_and_counted),
		T(a_read_that_failed_changes_nothing),
		T(what_is_submitted_in_one_round_is_one_doorbell),
		T(kick_sends_at_once_and_only_what_there_is),
		T(a_queue_at_full_depth_never_runs_out_of_receive_buffers),
		T(an_idle_queue_waits_for_an_event),
		T(what_completes_just_before_arming_is_not_overlooked),
		T(a_key_gives_the_range_of_its_command_and_no_more),
		T(after_its_command_a_key_is_invalid),
		T(a_command_ends_only_when_its_window_has_been_invalidated),
		T(a_response_before_the_end_of_its_send_does_not_end_the_command),
		T(without_windows_keys_are_those_of_regions),
		T(regions_are_registered_once_and_let_go_when_freed),
		T(a_device_that_registers_no_memory_gives_errors_not_crashes),
		T(whatever_the_device_refuses_is_an_error_and_leaves_nothing),
		T(a_command_that_cannot_be_sent_while_the_connection_dies_is_told_so),
		T(a_refused_connection_says_why),
		T(a_controller_without_keyed_descriptors_is_not_used),
		T(closing_while_connecting_leaves_nothing),
		T(failed_work_requests_cost_the_connection),
		T(an_end_between_command_and_response_ends_all_commands),
		T(responses_that_fit_no_command_cost_the_connection),
		T(protocol_errors_are_counted),
		T(a_target_that_reaches_too_far_is_denied_and_lost),
		T(a_response_nobody_waits_for_costs_the_connection),
		T(a_response_to_a_command_that_has_not_left_yet_is_not_believed),
		T(arming_that_fails_costs_the_connection),
		T(silence_is_answered_by_abort_and_then_by_the_end),
		T(it_connects_again_and_moves_data_with_new_keys),
		T(keep_alive_is_answered_for_hours),
		T(closing_under_load_ends_every_command_and_every_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
