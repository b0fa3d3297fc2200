/* SPDX-License-Identifier: BSD-3-Clause */
/* A VM of a card of two shards moves to the other one: as a request, a task, and what a restart makes of it. */
#include "tests/unit/shards_rig.h"

#include "dpu/control/route.h"
#include "dpu/control/shard_move.h"

/* ---- requests, as the server's worker carries them out ------------------------------------------------------------------ */

static int change(struct rig *r, const Parapet__Request *req, struct route_job *job)
{
	*job = (struct route_job){.op = route_op(req->op_case)};
	assert_non_null(job->op);
	call_init(&job->call, req);
	route_change(r->s, job);
	r->e = job->call.err;
	if (job->rc < 0)
		print_message("%s\n", err_text(&r->e));
	return job->rc;
}

/* Its task; 0: none. */
static int move(struct rig *r, uint32_t vm, uint32_t shard, uint32_t *task)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__ShardMove m = PARAPET__SHARD_MOVE__INIT;
	struct route_job job;
	int rc;

	m.vm = vm;
	m.shard = shard;
	req.op_case = PARAPET__REQUEST__OP_SHARD_MOVE;
	req.shard_move = &m;
	rc = change(r, &req, &job);
	*task = 0;
	if (rc == 0 && job.call.resp.tasks->n_tasks) {
		assert_int_equal(job.call.resp.tasks->n_tasks, 1);
		assert_int_equal(job.call.resp.tasks->tasks[0]->reason,
			PARAPET__TASK_REASON__TASK_REASON_MOVE);
		*task = job.call.resp.tasks->tasks[0]->id;
	}
	route_job_clear(&job);
	return rc;
}

static int control(struct rig *r, uint32_t task, Parapet__TaskAction action)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TaskControl t = PARAPET__TASK_CONTROL__INIT;
	struct route_job job;
	int rc;

	t.id = task;
	t.action = action;
	req.op_case = PARAPET__REQUEST__OP_TASK_CONTROL;
	req.task_control = &t;
	rc = change(r, &req, &job);
	route_job_clear(&job);
	return rc;
}

static Parapet__TaskState state_of(struct rig *r, uint32_t task)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__TaskList l = PARAPET__TASK_LIST__INIT;
	Parapet__TaskState st;
	struct ask a;

	l.has_id = true;
	l.id = task;
	req.op_case = PARAPET__REQUEST__OP_TASK_LIST;
	req.task_list = &l;
	assert_int_equal(ask(r, task % 16, &a, call_task_list, &req), 0);
	assert_int_equal(a.call.resp.tasks->n_tasks, 1);
	assert_string_equal(a.call.resp.tasks->tasks[0]->object, "vm vm1");
	st = a.call.resp.tasks->tasks[0]->state;
	call_clear(&a.call);
	return st;
}

static bool has_ended(Parapet__TaskState st)
{
	return st == PARAPET__TASK_STATE__TASK_STATE_DONE ||
	       st == PARAPET__TASK_STATE__TASK_STATE_FAILED ||
	       st == PARAPET__TASK_STATE__TASK_STATE_CANCELLED;
}

static Parapet__TaskState finish(struct rig *r, uint32_t task)
{
	Parapet__TaskState st;

	while (!has_ended(st = state_of(r, task))) {
		vms_write(r); /* meanwhile, wherever they are */
		if (route_wants_upkeep(r->s))
			route_upkeep(r->s);
	}
	return st;
}

/* ---- what VMs have ------------------------------------------------------------------------------------------------------ */

static void expect_vms(struct rig *r, size_t on_0, size_t on_1)
{
	size_t missing;

	assert_int_equal(vms_on(r, 0), on_0);
	assert_int_equal(vms_on(r, 1), on_1);
	assert_int_equal(devices_on(r, 0, &missing), on_0);
	assert_int_equal(missing, 0);
	assert_int_equal(devices_on(r, 1, &missing), on_1);
	assert_int_equal(missing, 0);
}

/* ---- tests -------------------------------------------------------------------------------------------------------------------- */

static void a_vm_moves_to_the_other_shard_and_back_and_stays_there(void **state)
{
	struct rig *r = *state;
	unsigned int from;
	uint32_t task;

	all_up(r);
	from = shards_of_vm(r->s, 1);
	vms_write(r);
	assert_int_equal(move(r, 1, !from, &task), 0);
	assert_true(task != 0);
	assert_int_equal(finish(r, task), PARAPET__TASK_STATE__TASK_STATE_DONE);
	assert_int_equal(shards_of_vm(r->s, 1), !from);
	vms_check_data(r);
	expect_vms(r, from ? 3 : 1, from ? 1 : 3);
	/* It is there: nothing to do. */
	assert_int_equal(move(r, 1, !from, &task), 0);
	assert_int_equal(task, 0);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(shards_of_vm(r->s, 1), !from);
	vms_check_data(r);
	assert_int_equal(move(r, 1, from, &task), 0);
	assert_int_equal(finish(r, task), PARAPET__TASK_STATE__TASK_STATE_DONE);
	vms_check_data(r);
	expect_vms(r, 2, 2);
}

static void what_cannot_move_is_refused_with_the_reason(void **state)
{
	struct rig *r = *state;
	uint32_t task;

	assert_int_equal(move(r, 1, 1, &task), -EINVAL); /* without a pool there is one shard */
	all_up(r);
	assert_int_equal(move(r, 1, 2, &task), -EINVAL);
	assert_non_null(strstr(r->e.reason, "there are 2"));
	assert_int_equal(move(r, 99, 1, &task), -ENOENT);
	expect_vms(r, 2, 2);
}

/* So slow that it does not end by itself. */
static int slow_down(struct card *c, void *arg)
{
	struct mover_limits slow = {.share_percent = 1, .ceiling_bytes_per_s = 32 << 10};

	return mover_set_limits(c->mover, &slow, NULL);
}

static void a_move_on_its_way_can_be_paused_and_cancelled(void **state)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__DeviceAdd d = PARAPET__DEVICE_ADD__INIT;
	struct rig *r = *state;
	unsigned int from;
	uint32_t task, other;

	all_up(r);
	from = shards_of_vm(r->s, 1);
	vms_write(r);
	assert_int_equal(shards_run_all(r->s, slow_down, NULL), 0);
	assert_int_equal(move(r, 1, !from, &task), 0);
	assert_int_equal(control(r, task, PARAPET__TASK_ACTION__TASK_ACTION_PAUSE), 0);
	assert_int_equal(move(r, 1, !from, &other), -EBUSY);
	/* It would be left behind. */
	d.vm = 1;
	d.path = (char *)"/dev/another";
	d.size_bytes = DEV_BYTES;
	req.op_case = PARAPET__REQUEST__OP_DEVICE_ADD;
	req.device_add = &d;
	assert_int_equal(ask_rc(r, from, call_device_add, &req), -EBUSY);
	assert_non_null(strstr(r->e.reason, "is on its way to shard"));
	assert_int_equal(control(r, task, PARAPET__TASK_ACTION__TASK_ACTION_CANCEL), 0);
	assert_int_equal(finish(r, task), PARAPET__TASK_STATE__TASK_STATE_CANCELLED);
	assert_int_equal(shards_of_vm(r->s, 1), from);
	vms_check_data(r);
	expect_vms(r, 2, 2);
}

static void a_move_that_a_stop_interrupts_is_undone_at_the_next_start(void **state)
{
	struct rig *r = *state;
	unsigned int from;
	uint32_t task;

	all_up(r);
	from = shards_of_vm(r->s, 1);
	vms_write(r);
	assert_int_equal(move(r, 1, !from, &task), 0);
	/* No upkeep: it waits for somebody to stop the VM. */
	while (!card_move_wants_stop(shards_card(r->s, from)))
		nap_ms(2);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(shards_of_vm(r->s, 1), from);
	vms_check_data(r);
	expect_vms(r, 2, 2);
	assert_int_equal(move(r, 1, !from, &task), 0);
	assert_int_equal(finish(r, task), PARAPET__TASK_STATE__TASK_STATE_DONE);
	vms_check_data(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_vm_moves_to_the_other_shard_and_back_and_stays_there),
		TEST(what_cannot_move_is_refused_with_the_reason),
		TEST(a_move_on_its_way_can_be_paused_and_cancelled),
		TEST(a_move_that_a_stop_interrupts_is_undone_at_the_next_start),
	};

	return cmocka_run_group_tests_name("shards_move", tests, NULL, NULL);
}
