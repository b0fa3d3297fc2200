/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * VMs beside each other in virtual time: the pipeline as it is over a store that serves bytes at a rate, first come first served, as a
 * flash does that is kept busy.
 */
#include "common/base/util.h"
#include "dpu/pipeline/pipeline.h"

#include <errno.h>
#include <string.h>

#define MS  1000000ull
#define S   1000000000ull
#define VMS 3u

struct volume {
	uint32_t id;
};

/* ---- the store ---------------------------------------------------------------------------------------------- */

static struct {
	struct shard *sh;
	struct timer timer;
	uint64_t ns_per_kib, ns_per_request, base_ns; /* base: beside the queueing */
	uint64_t busy_until;
	uint64_t last_off[VMS + 1];
	uint32_t inside, most_inside;
} dev;

struct dev_req { /* what the store knows of a request */
	struct io_req *req;
	uint64_t end_ns;
};
static struct dev_req fifo[4096];
static uint32_t fifo_head, fifo_tail;

static void dev_done(void *arg)
{
	while (fifo_head != fifo_tail &&
		fifo[fifo_head % ARRAY_LEN(fifo)].end_ns <= shard_now_ns(dev.sh)) {
		struct io_req *req = fifo[fifo_head++ % ARRAY_LEN(fifo)].req;

		dev.inside--;
		req->status = IO_OK;
		req->done_fn(req);
	}
	if (fifo_head != fifo_tail)
		assert_int_equal(timer_arm(dev.sh, &dev.timer,
					 fifo[fifo_head % ARRAY_LEN(fifo)].end_ns, dev_done, NULL),
			0);
}

int volume_submit(struct volume *v, struct io_req *req)
{
	uint64_t now = shard_now_ns(dev.sh);

	if (fifo_tail - fifo_head == ARRAY_LEN(fifo))
		return -EAGAIN;
	/* Requests of one VM come in the order they were made. */
	assert_true(req->off_bytes > dev.last_off[req->vm]);
	dev.last_off[req->vm] = req->off_bytes;
	dev.busy_until = MAX(dev.busy_until, now) + dev.ns_per_request +
			 req->len_bytes * dev.ns_per_kib / 1024;
	fifo[fifo_tail++ % ARRAY_LEN(fifo)] = (struct dev_req){req, dev.busy_until + dev.base_ns};
	dev.inside++;
	dev.most_inside = MAX(dev.most_inside, dev.inside);
	if (!dev.timer.heap_pos)
		assert_int_equal(timer_arm(dev.sh, &dev.timer,
					 fifo[fifo_head % ARRAY_LEN(fifo)].end_ns, dev_done, NULL),
			0);
	return 0;
}

uint32_t volume_id(const struct volume *v)
{
	return v->id;
}

/* ---- VMs ------------------------------------------------------------------------------------------------------- */

struct load {
	struct pipeline *p;
	struct volume vol;
	uint32_t vm, depth, bytes;
	uint64_t pause_ns; /* between the end of one and the next */
	bool stop;
	uint64_t submitted, ended, ended_bytes;
	struct hist took;
	struct io_req reqs[512];
	struct timer timer; /* with a pause: depth 1 */
};

struct fixture {
	struct shard *sh;
	struct tables *tables;
	struct pipeline *p;
	struct load load[VMS];
};

static void ended(struct io_req *req);

static void submit(struct load *l, struct io_req *req)
{
	*req = (struct io_req){.op = IO_READ,
		.vm = l->vm,
		.vol = &l->vol,
		.off_bytes = ++l->submitted,
		.len_bytes = l->bytes,
		.done_fn = ended,
		.arg = l};
	assert_int_equal(pipeline_submit(l->p, req), 0);
}

static void again(void *arg)
{
	struct load *l = arg;

	if (!l->stop)
		submit(l, &l->reqs[0]);
}

static void ended(struct io_req *req)
{
	struct load *l = req->arg;

	assert_int_equal(req->status, IO_OK);
	l->ended++;
	l->ended_bytes += req->len_bytes;
	hist_add(&l->took, shard_now_ns(dev.sh) - req->start_ns);
	if (l->stop)
		return;
	if (l->pause_ns)
		assert_int_equal(
			timer_arm(dev.sh, &l->timer, shard_now_ns(dev.sh) + l->pause_ns, again, l),
			0);
	else
		submit(l, req);
}

static void start(
	struct fixture *f, unsigned int i, uint32_t depth, uint32_t bytes, uint64_t pause_ns)
{
	struct load *l = &f->load[i];

	l->depth = depth;
	l->bytes = bytes;
	l->pause_ns = pause_ns;
	for (uint32_t k = 0; k < depth; k++)
		submit(l, &l->reqs[k]);
}

static void run(struct fixture *f, uint64_t ns)
{
	uint64_t end = shard_now_ns(f->sh) + ns;

	while (shard_now_ns(f->sh) < end)
		shard_run_once(f->sh);
}

/* Runs on, and forgets what was before. */
static void settle(struct fixture *f, uint64_t ns)
{
	run(f, ns);
	for (unsigned int i = 0; i < VMS; i++) {
		f->load[i].ended = f->load[i].ended_bytes = 0;
		memset(&f->load[i].took, 0, sizeof(f->load[i].took));
	}
	dev.most_inside = dev.inside;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	memset(&dev, 0, sizeof(dev));
	fifo_head = fifo_tail = 0;
	dev.ns_per_kib = 1024; /* 1 GB/s */
	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1}, &f->sh),
		0);
	dev.sh = f->sh;
	assert_int_equal(tables_open(f->sh, &f->tables), 0);
	assert_int_equal(
		pipeline_open(&(struct pipeline_cfg){.shard = f->sh, .tables = f->tables}, &f->p),
		0);
	for (uint32_t i = 0; i < VMS; i++) {
		f->load[i].p = f->p;
		f->load[i].vm = i + 1;
		f->load[i].vol.id = 10 + i;
		assert_int_equal(pipeline_vm_add(f->p, i + 1), 0);
		assert_int_equal(pipeline_volume_add(f->p, i + 1, &f->load[i].vol), 0);
	}
	*state = f;
	return 0;
}

/* Nothing is lost: all that was begun ends, caps or not. */
static int teardown(void **state)
{
	struct fixture *f = *state;
	uint64_t submitted = 0, ends = 0;

	for (unsigned int i = 0; i < VMS; i++) {
		f->load[i].stop = true;
		timer_disarm(f->sh, &f->load[i].timer);
	}
	assert_int_equal(pipeline_drain(f->p, 100 * S), 0);
	for (unsigned int i = 0; i < VMS; i++) {
		struct pipeline_vm_stats st;

		assert_int_equal(pipeline_vm_stats(f->p, i + 1, &st), 0);
		submitted += f->load[i].submitted;
		ends += st.status[IO_OK];
		assert_int_equal(st.in_flight + st.waiting, 0);
	}
	assert_int_equal(submitted, ends);
	timer_disarm(f->sh, &dev.timer);
	pipeline_close(f->p);
	tables_close(f->tables);
	shard_close(f->sh);
	free(f);
	return 0;
}

static void set_qos(struct fixture *f, unsigned int i, struct qos_cfg cfg)
{
	assert_int_equal(pipeline_vm_set_qos(f->p, i + 1, &cfg), 0);
}

/* ---- tests --------------------------------------------------------------------------------------------------------- */

static void a_capped_vm_gets_its_rate_and_another_the_rest(void **state)
{
	struct fixture *f = *state;
	struct pipeline_vm_stats st;

	set_qos(f, 0, (struct qos_cfg){.mbps = 800}); /* 100 MB/s */
	start(f, 0, 32, 131072, 0);
	start(f, 1, 32, 131072, 0);
	run(f, 10 * S);
	assert_in_range(f->load[0].ended_bytes, 995000000, 1015000000); /* and a burst of 10 MB */
	assert_in_range(f->load[1].ended_bytes, 8800000000, 9010000000);
	assert_int_equal(pipeline_vm_stats(f->p, 1, &st), 0);
	assert_in_range(st.capped_ns, 5 * S, 10 * S);
	assert_int_equal(pipeline_vm_stats(f->p, 2, &st), 0);
	assert_int_equal(st.capped_ns, 0);
}

static void a_cap_changes_while_the_vm_runs(void **state)
{
	struct fixture *f = *state;

	start(f, 0, 16, 65536, 0);
	settle(f, S);
	set_qos(f, 0, (struct qos_cfg){.mbps = 100, .burst_ms = 10});
	settle(f, S / 10);
	run(f, 10 * S);
	assert_in_range(f->load[0].ended_bytes, 123000000, 127000000);
	set_qos(f, 0, (struct qos_cfg){.iops = 5000, .burst_ms = 10});
	settle(f, S / 10);
	run(f, 10 * S);
	assert_in_range(f->load[0].ended, 49900, 50100);
	set_qos(f, 0, (struct qos_cfg){0});
	settle(f, S / 10);
	run(f, S);
	assert_in_range(f->load[0].ended_bytes, 990000000, 1010000000);
}

static void weights_share_a_busy_store(void **state)
{
	struct fixture *f = *state;

	set_qos(f, 1, (struct qos_cfg){.weight = 300});
	start(f, 0, 64, 131072, 0);
	start(f, 1, 64, 131072, 0);
	settle(f, 2 * S);
	run(f, 4 * S);
	/* 1 : 3, and nothing is wasted */
	assert_in_range(f->load[1].ended_bytes * 100 / f->load[0].ended_bytes, 285, 315);
	assert_in_range(f->load[0].ended_bytes + f->load[1].ended_bytes, 3960000000, 4040000000);
}

static void weights_share_it_for_small_requests_too(void **state)
{
	struct fixture *f = *state;

	dev.ns_per_request = 4000;
	set_qos(f, 1, (struct qos_cfg){.weight = 300});
	start(f, 0, 128, 4096, 0);
	start(f, 1, 128, 4096, 0);
	settle(f, 2 * S);
	run(f, 2 * S);
	assert_in_range(f->load[1].ended * 100 / f->load[0].ended, 270, 330);
}

static void equal_vms_get_equal_parts_whatever_their_depths(void **state)
{
	struct fixture *f = *state;

	start(f, 0, 32, 131072, 0);
	start(f, 1, 256, 131072, 0);
	start(f, 2, 512, 65536, 0);
	settle(f, 2 * S);
	run(f, 4 * S);
	for (unsigned int i = 0; i < VMS; i++)
		assert_in_range(f->load[i].ended_bytes, 1200000000, 1450000000);
}

static uint64_t light_p99(struct fixture *f, bool heavy)
{
	if (heavy)
		start(f, 0, 512, 131072, 0);
	start(f, 1, 1, 4096, 200000);
	settle(f, 3 * S);
	run(f, 2 * S);
	return hist_at(&f->load[1].took, 990);
}

static void a_light_vm_does_not_wait_for_a_deep_queue(void **state)
{
	struct fixture *f = *state;
	uint64_t p99 = light_p99(f, true);

	/* 512 times 128 KiB are 67 ms; the window brings it to 2 */
	assert_in_range(p99, 4096, 3 * MS);
	assert_in_range(f->load[0].ended_bytes, 1950000000, 2010000000); /* at no price */
	assert_true(f->load[1].ended > 1000);
}

static void a_slow_store_is_kept_busy_all_the_same(void **state)
{
	struct fixture *f = *state;

	dev.base_ns = 20 * MS; /* a window of 2 ms of work would leave it idle for nine tenths */
	start(f, 0, 512, 131072, 0);
	start(f, 1, 512, 131072, 0);
	settle(f, 5 * S);
	run(f, 4 * S);
	assert_in_range(f->load[0].ended_bytes + f->load[1].ended_bytes, 3300000000, 4040000000);
	assert_in_range(f->load[0].ended_bytes * 100 / f->load[1].ended_bytes, 90, 110);
}

static void one_vm_alone_has_all_of_its_depth_inside(void **state)
{
	struct fixture *f = *state;

	start(f, 0, 512, 131072, 0);
	run(f, S);
	assert_int_equal(dev.most_inside, 512);
}

static void latencies_are_kept_by_vm_and_operation(void **state)
{
	struct fixture *f = *state;
	const struct hist *h;
	struct pipeline_stats st;

	set_qos(f, 0, (struct qos_cfg){.iops = 1000, .burst_ms = 1});
	start(f, 0, 10, 4096, 0);
	run(f, 2 * S);
	h = pipeline_vm_latency(f->p, 1, IO_READ);
	assert_int_equal(h->count, f->load[0].ended);
	/* ten of them, one each millisecond */
	assert_in_range(hist_at(h, 500), 10 * MS * 93 / 100, 10 * MS * 107 / 100);
	assert_int_equal(pipeline_vm_latency(f->p, 1, IO_WRITE)->count, 0);
	assert_null(pipeline_vm_latency(f->p, 99, IO_READ));
	pipeline_stats(f->p, &st);
	assert_in_range(hist_at(st.waited, 500), 9 * MS, 11 * MS);
}

static void a_drain_does_not_wait_for_tokens(void **state)
{
	struct fixture *f = *state;
	uint64_t before;

	set_qos(f, 0, (struct qos_cfg){.iops = 1});
	start(f, 0, 500, 4096, 0);
	f->load[0].stop = true;
	before = shard_now_ns(f->sh);
	assert_int_equal(pipeline_drain(f->p, S), 0);
	assert_true(shard_now_ns(f->sh) - before < 10 * MS);
	assert_int_equal(f->load[0].ended, 500);
	pipeline_resume(f->p);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_capped_vm_gets_its_rate_and_another_the_rest),
		T(a_cap_changes_while_the_vm_runs),
		T(weights_share_a_busy_store),
		T(weights_share_it_for_small_requests_too),
		T(equal_vms_get_equal_parts_whatever_their_depths),
		T(a_light_vm_does_not_wait_for_a_deep_queue),
		T(a_slow_store_is_kept_busy_all_the_same),
		T(one_vm_alone_has_all_of_its_depth_inside),
		T(latencies_are_kept_by_vm_and_operation),
		T(a_drain_does_not_wait_for_tokens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
