/* SPDX-License-Identifier: BSD-3-Clause */
/* poll and analyze over a volume of a few lines that takes as many requests as it is told to. */
#include "common/base/util.h"
#include "dpu/pipeline/pipeline.h"

#include <errno.h>
#include <string.h>

struct volume {
	uint32_t id;
};

static struct {
	TAILQ_HEAD(, io_req) held;
	int room; /* takes so many more */
	int rc; /* or says this */
	int submitted;
	uint32_t order[64]; /* VMs in the order they were served */
} dev;

int volume_submit(struct volume *v, struct io_req *req)
{
	if (dev.rc)
		return dev.rc;
	if (dev.room == 0)
		return -EAGAIN;
	dev.room--;
	if (dev.submitted < (int)ARRAY_LEN(dev.order))
		dev.order[dev.submitted] = req->vm;
	dev.submitted++;
	TAILQ_INSERT_TAIL(&dev.held, req, link);
	return 0;
}

uint32_t volume_id(const struct volume *v)
{
	return v->id;
}

static void dev_complete(enum io_status status)
{
	struct io_req *req = TAILQ_FIRST(&dev.held);

	assert_non_null(req);
	TAILQ_REMOVE(&dev.held, req, link);
	req->status = status;
	req->done_fn(req);
}

struct fixture {
	struct shard *sh;
	struct tables *tables;
	struct pipeline *p;
	struct volume vol[2];
};

static int ndone;

static void done(struct io_req *req)
{
	assert_int_equal(req->arg, 0xabc);
	ndone++;
}

static struct io_req a_write(struct fixture *f, uint32_t vm)
{
	return (struct io_req){.op = IO_WRITE,
		.vm = vm,
		.vol = &f->vol[vm - 1],
		.len_bytes = 4096,
		.done_fn = done,
		.arg = (void *)0xabc};
}

/* VM 1 owns volume 10, VM 2 volume 11; at most 4 requests of a VM. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	memset(&dev, 0, sizeof(dev));
	TAILQ_INIT(&dev.held);
	dev.room = 1000;
	ndone = 0;
	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1}, &f->sh),
		0);
	assert_int_equal(tables_open(f->sh, &f->tables), 0);
	assert_int_equal(pipeline_open(
				 &(struct pipeline_cfg){
					 .shard = f->sh, .tables = f->tables, .vm_requests = 4},
				 &f->p),
		0);
	for (uint32_t i = 0; i < 2; i++) {
		f->vol[i].id = 10 + i;
		assert_int_equal(pipeline_vm_add(f->p, i + 1), 0);
		assert_int_equal(pipeline_volume_add(f->p, i + 1, &f->vol[i]), 0);
	}
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	pipeline_close(f->p);
	tables_close(f->tables);
	shard_close(f->sh);
	free(f);
	return 0;
}

static void publish(struct fixture *f, bool ec, uint64_t version)
{
	Parapet__Tables pb = PARAPET__TABLES__INIT;
	Parapet__Vm vm = PARAPET__VM__INIT, *vms[] = {&vm};
	Parapet__TableDevice td = PARAPET__TABLE_DEVICE__INIT, *tds[] = {&td};
	Parapet__Row row = PARAPET__ROW__INIT, *rows[] = {&row};
	const struct tables_volume vols[] = {{10, 1, "/dev/a"}, {11, 2, "/dev/b"}};
	struct tables_doc *doc;
	struct err e;

	pb.version = version;
	vm.vm = td.vm = row.vm = 1;
	vm.name = (char *)"web1";
	vm.data_flash = (char *)"f0";
	td.path = (char *)"/dev/a";
	row.ec = ec;
	pb.vms = vms;
	pb.devices = tds;
	pb.rows = rows;
	pb.n_vms = pb.n_devices = pb.n_rows = 1;
	if (tables_doc_build(&pb, NULL, &(struct tables_env){.no_pool = true}, &doc, &e) < 0)
		fail_msg("%s", err_text(&e));
	/* The document refers to pb on our stack: only the policy table of it is used by snapshots. */
	assert_int_equal(tables_publish(f->tables, doc, vols, 2), 0);
	tables_doc_put(doc);
}

static void a_write_gets_the_outcome_of_the_table_in_force(void **state)
{
	struct fixture *f = *state;
	struct io_req a = a_write(f, 1), b = a_write(f, 1), c = a_write(f, 2);

	publish(f, true, 1);
	assert_int_equal(pipeline_submit(f->p, &a), 0);
	assert_int_equal(a.outcome, IO_PROTECT);
	publish(f, false, 2);
	assert_int_equal(pipeline_submit(f->p, &b), 0);
	assert_int_equal(b.outcome, IO_PLAIN);
	assert_int_equal(a.outcome, IO_PROTECT);
	/* not named by the tables: plain */
	assert_int_equal(pipeline_submit(f->p, &c), 0);
	assert_int_equal(c.outcome, IO_PLAIN);
	for (int i = 0; i < 3; i++)
		dev_complete(IO_OK);
	assert_int_equal(ndone, 3);
}

static void a_volume_of_another_vm_is_out_of_reach(void **state)
{
	struct fixture *f = *state;
	struct pipeline_vm_stats st;
	struct io_req r = a_write(f, 1);

	r.vol = &f->vol[1];
	assert_int_equal(pipeline_submit(f->p, &r), 0);
	assert_int_equal(ndone, 0); /* never inside submit */
	shard_run_once(f->sh);
	assert_int_equal(ndone, 1);
	assert_int_equal(r.status, IO_ERR_INVALID);
	assert_int_equal(dev.submitted, 0);
	assert_int_equal(pipeline_vm_stats(f->p, 1, &st), 0);
	assert_int_equal(st.foreign, 1);
	assert_int_equal(st.status[IO_ERR_INVALID], 1);
	r.vm = 9;
	assert_int_equal(pipeline_submit(f->p, &r), -ENOENT);
}

static void a_vm_has_a_bound_of_its_own(void **state)
{
	struct fixture *f = *state;
	struct pipeline_vm_stats st;
	struct io_req r[5], other = a_write(f, 2);

	for (int i = 0; i < 5; i++) {
		r[i] = a_write(f, 1);
		assert_int_equal(pipeline_submit(f->p, &r[i]), i < 4 ? 0 : -EAGAIN);
	}
	assert_ptr_equal(r[4].done_fn, done); /* untouched */
	assert_int_equal(pipeline_submit(f->p, &other), 0);
	dev_complete(IO_OK);
	assert_int_equal(pipeline_submit(f->p, &r[4]), 0);
	while (!TAILQ_EMPTY(&dev.held))
		dev_complete(IO_ERR_MEDIA);
	assert_int_equal(ndone, 6);
	assert_int_equal(pipeline_vm_stats(f->p, 1, &st), 0);
	assert_int_equal(st.refused, 1);
	assert_int_equal(st.requests[IO_WRITE], 5);
	assert_int_equal(st.status[IO_OK], 1);
	assert_int_equal(st.status[IO_ERR_MEDIA], 4);
	assert_int_equal(st.in_flight, 0);
}

static void vms_that_wait_take_turns(void **state)
{
	static const uint32_t want[] = {1, 1, 1, 2, 1, 2, 2, 2};
	struct fixture *f = *state;
	struct io_req r[8];

	dev.room = 2;
	for (int i = 0; i < 8; i++) {
		r[i] = a_write(f, i < 4 ? 1 : 2);
		assert_int_equal(pipeline_submit(f->p, &r[i]), 0);
	}
	assert_int_equal(dev.submitted, 2);
	while (ndone < 8) {
		dev.room++;
		dev_complete(IO_OK);
		shard_run_once(f->sh);
	}
	assert_memory_equal(dev.order, want, sizeof(want));
}

static void a_full_store_is_asked_again_without_a_completion(void **state)
{
	struct fixture *f = *state;
	struct io_req r = a_write(f, 1);

	dev.room = 0;
	assert_int_equal(pipeline_submit(f->p, &r), 0);
	for (int i = 0; i < 10; i++)
		shard_run_once(f->sh);
	assert_int_equal(dev.submitted, 0);
	dev.room = 1;
	for (int i = 0; i < 100 && !dev.submitted; i++)
		shard_run_once(f->sh);
	assert_int_equal(dev.submitted, 1);
	dev_complete(IO_OK);
	assert_int_equal(ndone, 1);
}

static void what_the_volume_refuses_ends_with_a_status(void **state)
{
	static const struct {
		int rc;
		enum io_status status;
	} cases[] = {{-ERANGE, IO_ERR_RANGE}, {-ENOSPC, IO_ERR_NO_SPACE}, {-EINVAL, IO_ERR_INVALID},
		{-EROFS, IO_ERR_RETRY}, {-EIO, IO_ERR_INTERNAL}};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct io_req r = a_write(f, 1);

		dev.rc = cases[i].rc;
		assert_int_equal(pipeline_submit(f->p, &r), 0);
		assert_int_equal(ndone, i);
		shard_run_once(f->sh);
		assert_int_equal(ndone, i + 1);
		assert_int_equal(r.status, cases[i].status);
	}
}

static void what_is_in_use_is_not_taken_away(void **state)
{
	struct fixture *f = *state;
	struct io_req r = a_write(f, 1);

	assert_int_equal(pipeline_submit(f->p, &r), 0);
	assert_int_equal(pipeline_volume_del(f->p, 1, &f->vol[0]), -EBUSY);
	assert_int_equal(pipeline_vm_del(f->p, 1), -EBUSY);
	assert_int_equal(pipeline_drain(f->p, 1000000), -ETIMEDOUT);
	assert_int_equal(pipeline_submit(f->p, &r), -ESHUTDOWN);
	dev_complete(IO_OK);
	assert_int_equal(pipeline_drain(f->p, 1000000), 0);
	pipeline_resume(f->p);
	assert_int_equal(pipeline_volume_del(f->p, 1, &f->vol[0]), 0);
	assert_int_equal(pipeline_volume_del(f->p, 1, &f->vol[0]), -ENOENT);
	assert_int_equal(pipeline_vm_del(f->p, 1), 0);
	assert_int_equal(pipeline_vm_add(f->p, 1), 0);
	assert_int_equal(pipeline_vm_add(f->p, 1), -EEXIST);
}

static void a_thousand_vms_are_found_whatever_leaves(void **state)
{
	struct fixture *f = *state;
	uint32_t x = 7;

	assert_int_equal(pipeline_vm_del(f->p, 1), 0);
	assert_int_equal(pipeline_vm_del(f->p, 2), 0);
	for (uint32_t i = 1; i <= PIPELINE_VMS_MAX; i++)
		assert_int_equal(pipeline_vm_add(f->p, i * 2048), 0); /* many in one place */
	assert_int_equal(pipeline_vm_add(f->p, 3), -ENOSPC);
	for (uint32_t i = 0; i < PIPELINE_VMS_MAX / 2; i++) {
		struct pipeline_vm_stats st;

		x = x * 1103515245u + 12345u;
		pipeline_vm_del(f->p, (x >> 8) % PIPELINE_VMS_MAX * 2048 + 2048);
		assert_int_equal(
			pipeline_vm_stats(f->p, (x >> 8) % PIPELINE_VMS_MAX * 2048 + 2048, &st),
			-ENOENT);
	}
	for (uint32_t i = 1; i <= PIPELINE_VMS_MAX; i++)
		pipeline_vm_del(f->p, i * 2048);
	for (uint32_t i = 1; i <= PIPELINE_VMS_MAX; i++)
		assert_int_equal(pipeline_vm_add(f->p, i), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(a_write_gets_the_outcome_of_the_table_in_force),
		T(a_volume_of_another_vm_is_out_of_reach),
		T(a_vm_has_a_bound_of_its_own),
		T(vms_that_wait_take_turns),
		T(a_full_store_is_asked_again_without_a_completion),
		T(what_the_volume_refuses_ends_with_a_status),
		T(what_is_in_use_is_not_taken_away),
		T(a_thousand_vms_are_found_whatever_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
