/* SPDX-License-Identifier: BSD-3-Clause */
/* The target and our own initiator, each with all of its options, on one shard. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/nvmf/nvmf.h"
#include "tests/unit/nvme_tcp_host.h"

#define SLOTS      48
#define SLOT_BYTES (256u << 10)
#define AREA       (BED_BYTES / SLOTS / 4096 * 4096) /* each slot writes to a part of its own */

static int setup(void **state)
{
	*state = bed_open(&(struct bed_cfg){0});
	return 0;
}

static int setup_borrow(void **state)
{
	*state = bed_open(&(struct bed_cfg){.borrow = true});
	return 0;
}

static int teardown(void **state)
{
	bed_close(*state);
	return 0;
}

static struct nvmf_cfg cfg_for(struct bed *b)
{
	return (struct nvmf_cfg){.host = "127.0.0.1",
		.port = b->port,
		.subnqn = BED_NQN,
		.hostnqn = BED_HOST,
		.nqueues = 2};
}

static struct nvmf *open_ready(struct bed *b, const struct nvmf_cfg *cfg)
{
	struct nvmf *n;
	struct err err = {0};

	assert_int_equal(nvmf_open(b->sh, cfg, NULL, NULL, &n, &err), 0);
	if (nvmf_wait_ready(n, 10000) != 0)
		fail_msg("%s", err_text(nvmf_error(n)));
	return n;
}

/* ---- many writes and reads of mixed sizes, verified ---------------------------------------------------- */
struct traffic;
struct slot {
	struct traffic *t;
	struct nvmf_io io;
	struct iovec iov[3];
	uint8_t *out, *in;
	uint32_t index, len, seed;
	uint64_t lba;
	bool reading;
};

struct traffic {
	struct nvmf *n;
	struct slot slot[SLOTS];
	uint32_t rng, left, active, done;
};

static uint32_t rnd(struct traffic *t)
{
	t->rng = t->rng * 1664525u + 1013904223u;
	return t->rng >> 8;
}

static void slot_done(struct nvmf_io *io);

static void slot_submit(struct slot *s, uint8_t opcode)
{
	uint8_t *p = s->reading ? s->in : s->out;
	uint32_t a = MIN(s->len, 1000u), c = MIN(s->len - a, 5000u);

	nvmf_io_rw(&s->io, opcode, 1, s->lba, s->len / 4096, 0);
	/* Pieces of odd sizes and alignments. */
	s->iov[0] = (struct iovec){p, a};
	s->iov[1] = (struct iovec){p + a, c};
	s->iov[2] = (struct iovec){p + a + c, s->len - a - c};
	s->io.iov = s->iov;
	s->io.niov = 3;
	s->io.done_fn = slot_done;
	s->io.arg = s;
	assert_int_equal(nvmf_submit(nvmf_queue(s->t->n, (uint16_t)(1 + s->index % 2)), &s->io), 0);
}

static void slot_start(struct slot *s)
{
	struct traffic *t = s->t;
	uint32_t max = MIN(AREA, SLOT_BYTES) / 4096;

	if (!t->left) {
		t->active--;
		return;
	}
	t->left--;
	s->len = (1 + (rnd(t) % 3 ? rnd(t) % 4 : rnd(t) % max)) * 4096;
	s->lba = s->index * (AREA / 4096) + rnd(t) % (AREA / 4096 - s->len / 4096 + 1);
	s->seed = rnd(t);
	pattern(s->out, s->len, s->seed);
	s->reading = false;
	slot_submit(s, NVME_CMD_WRITE);
}

static void slot_done(struct nvmf_io *io)
{
	struct slot *s = io->arg;

	assert_int_equal(nvmf_io_result(io), 0);
	if (!s->reading) {
		s->reading = true;
		memset(s->in, 0, s->len);
		slot_submit(s, NVME_CMD_READ);
		return;
	}
	assert_memory_equal(s->in, s->out, s->len);
	s->t->done++;
	slot_start(s);
}

static void run_traffic(struct bed *b, struct nvmf *n, uint32_t count)
{
	struct traffic *t = calloc(1, sizeof(*t));

	t->n = n;
	t->rng = 42;
	t->left = count;
	t->active = SLOTS;
	for (uint32_t i = 0; i < SLOTS; i++) {
		t->slot[i] = (struct slot){
			.t = t, .index = i, .out = malloc(SLOT_BYTES), .in = malloc(SLOT_BYTES)};
		slot_start(&t->slot[i]);
	}
	bed_until(b, &t->done, count);
	for (uint32_t i = 0; i < SLOTS; i++) {
		free(t->slot[i].out);
		free(t->slot[i].in);
	}
	free(t);
}

static void with_options(struct bed *b, bool hdgst, bool ddgst, bool no_sqflow)
{
	struct nvmf_cfg cfg = cfg_for(b);
	struct nvmf *n;

	cfg.hdgst = hdgst;
	cfg.ddgst = ddgst;
	cfg.no_sqflow = no_sqflow;
	n = open_ready(b, &cfg);
	assert_int_equal(nvmf_nqueues(n), 2);
	assert_int_equal(nvmf_max_io_bytes(n), 512 << 10);
	run_traffic(b, n, 400);
	assert_int_equal(nvmf_shutdown(n), 0);
	nvmf_close(n);
	for (int i = 0; i < 10000 && bed_stats(b).conns; i++)
		bed_rounds(b, 10);
	assert_int_equal(bed_stats(b).conns, 0);
	assert_int_equal(bed_stats(b).failed_commands, 0);
	assert_int_equal(bed_stats(b).pdu_errors + bed_stats(b).host_terms, 0);
}

static void traffic_of_mixed_sizes_is_right(void **state)
{
	with_options(*state, false, false, false);
}

static void traffic_with_digests_is_right(void **state)
{
	with_options(*state, true, true, false);
}

static void traffic_without_sq_flow_control_is_right(void **state)
{
	with_options(*state, false, true, true);
}

static void traffic_through_little_memory_is_right(void **state)
{
	struct bed *b = bed_open(&(struct bed_cfg){.target = {.vm_buffer_bytes = 1}});

	with_options(b, false, false, true);
	assert_true(bed_stats(b).buffer_waits > 0);
	bed_close(b);
	(void)state;
}

/* ---- the rest of what an initiator asks for -------------------------------------------------------------- */
static void discovery_and_namespaces_are_found(void **state)
{
	struct bed *b = *state;
	struct nvmf_cfg cfg = cfg_for(b);
	struct nvme_discovery_record rec[4];
	struct nvmf_ns ns;
	struct nvmf *n;
	uint32_t nsid[4], count;
	uint64_t total;

	cfg.subnqn = NVME_DISCOVERY_NQN;
	cfg.nqueues = 0;
	n = open_ready(b, &cfg);
	assert_int_equal(nvmf_discover(n, rec, 4, &count, &total), 0);
	assert_int_equal(count, 1);
	assert_int_equal(total, 1);
	assert_string_equal(rec[0].subnqn, BED_NQN);
	nvmf_close(n);
	cfg = cfg_for(b);
	n = open_ready(b, &cfg);
	assert_int_equal(nvmf_list_ns(n, 0, nsid, 4), 1);
	assert_int_equal(nvmf_identify_ns(n, nsid[0], &ns), 0);
	assert_int_equal(ns.block_bytes, 4096);
	assert_int_equal(ns.nblocks, BED_BYTES / 4096);
	assert_true(ns.reads_zeros_after_trim);
	assert_int_equal(nvmf_identify_ns(n, 2, &ns), -ENODEV);
	nvmf_close(n);
}

static struct nvmf_queue *q1(struct nvmf *n)
{
	return nvmf_queue(n, 1);
}

static void flush_zeroes_and_trim_work(void **state)
{
	struct bed *b = *state;
	struct nvmf_cfg cfg = cfg_for(b);
	struct nvmf *n = open_ready(b, &cfg);
	struct nvmf_io io = {0};

	memset(b->vol.bytes, 1, BED_BYTES);
	nvmf_io_flush(&io, 1);
	assert_int_equal(nvmf_run(q1(n), &io), 0);
	nvmf_io_rw(&io, NVME_CMD_WRITE_ZEROES, 1, 8, 1024, NVME_RW_DEAC);
	io.iov = NULL;
	io.niov = 0;
	assert_int_equal(nvmf_run(q1(n), &io), 0);
	assert_int_equal(b->vol.bytes[8 * 4096 - 1], 1);
	assert_int_equal(b->vol.bytes[8 * 4096], 0);
	nvmf_io_trim(&io, 1, 1500, 100);
	assert_int_equal(nvmf_run(q1(n), &io), 0);
	assert_int_equal(b->ntrimmed, 100 * 4096);
	nvmf_io_trim(&io, 1, BED_BYTES / 4096, 1);
	assert_int_equal(nvmf_run(q1(n), &io), -EIO);
	assert_int_equal(NVME_SC_CODE(io.status), NVME_SC_LBA_RANGE);
	nvmf_close(n);
}

static void refused_ones_learn_why(void **state)
{
	struct bed *b = *state;
	struct nvmf_cfg cfg = cfg_for(b);
	struct nvmf *n;
	struct err err;

	cfg.port = b->port2; /* the other VM's door */
	assert_int_equal(nvmf_open(b->sh, &cfg, NULL, NULL, &n, &err), 0);
	assert_true(nvmf_wait_ready(n, 10000) < 0);
	print_message("# %s\n", err_text(nvmf_error(n)));
	nvmf_close(n);
}

static uint32_t events_seen, event_result;
static void on_event(struct nvmf *n, void *arg, uint32_t result)
{
	events_seen++;
	event_result = result;
}

static void a_namespace_that_grows_is_told(void **state)
{
	struct bed *b = *state;
	struct nvmf_cfg cfg = cfg_for(b);
	struct nvmf_events ev = {.async_fn = on_event};
	struct nvmf *n;
	struct err err;

	events_seen = 0;
	assert_int_equal(nvmf_open(b->sh, &cfg, &ev, NULL, &n, &err), 0);
	assert_int_equal(nvmf_wait_ready(n, 10000), 0);
	bed_rounds(b, 300);
	assert_int_equal(nvme_tcp_ns_resize(b->vm, 1, BED_BYTES / 2), 0);
	bed_until(b, &events_seen, 1);
	assert_int_equal(NVME_AER_LOG(event_result), NVME_LOG_CHANGED_NS);
	nvmf_close(n);
}

static void an_initiator_comes_back_after_it_was_cut_off(void **state)
{
	struct bed *b = *state;
	struct nvmf_cfg cfg = cfg_for(b);
	struct nvmf_io io = {0};
	struct nvmf *n;

	cfg.reconnect_min_ms = 1;
	cfg.reconnect_max_ms = 10;
	n = open_ready(b, &cfg);
	run_traffic(b, n, 100);
	nvme_tcp_vm_disconnect(b->vm);
	for (int i = 0; i < 100000 && nvmf_is_ready(n); i++)
		bed_rounds(b, 1);
	assert_false(nvmf_is_ready(n));
	assert_int_equal(nvmf_wait_ready(n, 10000), 0);
	nvmf_io_flush(&io, 1);
	assert_int_equal(nvmf_run(q1(n), &io), 0);
	run_traffic(b, n, 100);
	nvmf_close(n);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
/* The same over streams that lend received bytes in odd pieces. */
#define B(name)                                                       \
	{                                                             \
#name "_borrowed", name, setup_borrow, teardown, NULL \
	}
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(traffic_of_mixed_sizes_is_right),
		T(traffic_with_digests_is_right),
		T(traffic_without_sq_flow_control_is_right),
		cmocka_unit_test(traffic_through_little_memory_is_right),
		T(discovery_and_namespaces_are_found),
		T(flush_zeroes_and_trim_work),
		T(refused_ones_learn_why),
		T(a_namespace_that_grows_is_told),
		T(an_initiator_comes_back_after_it_was_cut_off),
		B(traffic_of_mixed_sizes_is_right),
		B(traffic_with_digests_is_right),
		B(traffic_without_sq_flow_control_is_right),
		B(an_initiator_comes_back_after_it_was_cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
