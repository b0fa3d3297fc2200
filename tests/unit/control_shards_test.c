/* SPDX-License-Identifier: BSD-3-Clause */
/* A card of two shards behind its control socket: requests are carried out on both or on none, and answered as by one. */
#include "tests/unit/control_rig.h"

#include <sys/stat.h>

#define VMS 4u

static int setup_two(void **state)
{
	return setup_shards(state, 2);
}

/* ---- a pool of two shards, and VMs 1 to VMS ---------------------------------------------------------------------- */

static void create_two(struct create *c)
{
	create_init(c, 2, 1);
	for (int i = 0; i < NFLASH; i++)
		c->f[i].address = (char *)"mem:64M";
}

struct vms {
	Parapet__TablesPush msg;
	Parapet__Tables t;
	Parapet__Vm vm[VMS], *vms[VMS];
	Parapet__TableDevice dev[VMS], *devs[VMS];
	char name[VMS][8], listen[VMS][32];
};

static void vms_init(struct vms *p, uint64_t base)
{
	parapet__tables_push__init(&p->msg);
	parapet__tables__init(&p->t);
	for (unsigned int i = 0; i < VMS; i++) {
		parapet__vm__init(&p->vm[i]);
		parapet__table_device__init(&p->dev[i]);
		snprintf(p->name[i], sizeof(p->name[i]), "vm%u", i + 1);
		snprintf(p->listen[i], sizeof(p->listen[i]), "127.0.0.1:%u", base_port() + i);
		p->vm[i].vm = p->dev[i].vm = i + 1;
		p->vm[i].name = p->name[i];
		p->vm[i].listen = p->listen[i];
		p->vm[i].data_flash = (char *)"f0";
		p->dev[i].path = (char *)"/dev/a";
		p->vms[i] = &p->vm[i];
		p->devs[i] = &p->dev[i];
	}
	p->t.version = base + 1;
	p->t.vms = p->vms;
	p->t.devices = p->devs;
	p->t.n_vms = p->t.n_devices = VMS;
	p->msg.base_version = base;
	p->msg.tables = &p->t;
}

static int vms_push(struct rig *r, struct vms *p)
{
	struct rpc_msg m;
	int rc = ASK(r, TABLES_PUSH, tables_push, &p->msg, &m);

	if (rc == 0)
		rpc_msg_clear(&m);
	return rc;
}

static void up(struct rig *r)
{
	struct create c;
	struct vms p;

	create_two(&c);
	if (create(r, &c) < 0)
		fail_msg("%s", err_text(&r->e));
	vms_init(&p, 0);
	if (vms_push(r, &p) < 0)
		fail_msg("%s", err_text(&r->e));
	for (uint32_t vm = 1; vm <= VMS; vm++) {
		Parapet__DeviceAdd d = device("/dev/a", 1u << 20);

		d.vm = vm;
		if (device_add(r, &d) < 0)
			fail_msg("%s", err_text(&r->e));
	}
}

/* The version of the tables on the VM's shard. */
static uint64_t version_at(struct rig *r, uint32_t vm)
{
	Parapet__Explain ex = PARAPET__EXPLAIN__INIT;
	struct rpc_msg m;
	uint64_t v;

	ex.vm = vm;
	ex.path = (char *)"/dev/a";
	if (ASK(r, EXPLAIN, explain, &ex, &m) < 0)
		fail_msg("%s", err_text(&r->e));
	v = m.frame->response->explanation->version;
	rpc_msg_clear(&m);
	return v;
}

static uint32_t vm_on(struct rig *r, uint32_t shard)
{
	struct rpc_msg m;
	const Parapet__Status *s = status(r, &m);
	uint32_t vm = 0;

	for (size_t i = 0; i < s->n_vms; i++)
		if (s->vms[i]->shard == shard)
			vm = s->vms[i]->vm;
	rpc_msg_clear(&m);
	assert_int_not_equal(vm, 0);
	return vm;
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

static void two_shards_answer_as_one_card(void **state)
{
	Parapet__ShardList list = PARAPET__SHARD_LIST__INIT;
	Parapet__DeviceList devices = PARAPET__DEVICE_LIST__INIT;
	struct rig *r = *state;
	const Parapet__Status *s;
	const Parapet__Shards *sh;
	struct rpc_msg m;

	up(r);
	s = status(r, &m);
	assert_string_equal(s->pool->state, "online");
	assert_int_equal(s->pool->shards, 2);
	assert_int_equal(s->pool->n_flashes, NFLASH);
	assert_int_equal(s->n_vms, VMS);
	for (uint32_t i = 0; i < VMS; i++) {
		assert_int_equal(s->vms[i]->vm, i + 1);
		assert_null(s->vms[i]->problem);
	}
	assert_int_equal(s->tables_version, 1);
	rpc_msg_clear(&m);
	assert_int_equal(ASK(r, SHARD_LIST, shard_list, &list, &m), 0);
	sh = m.frame->response->shards;
	assert_int_equal(sh->n_shards, 2);
	for (uint32_t i = 0; i < 2; i++) {
		assert_int_equal(sh->shards[i]->index, i);
		assert_int_equal(sh->shards[i]->n_vms, VMS / 2);
		assert_int_equal(sh->shards[i]->devices, VMS / 2);
		assert_true(sh->shards[i]->size_bytes >= NFLASH * (32ull << 20));
	}
	rpc_msg_clear(&m);
	assert_int_equal(ASK(r, DEVICE_LIST, device_list, &devices, &m), 0);
	assert_int_equal(m.frame->response->devices->n_devices, VMS);
	assert_int_equal(m.frame->response->devices->n_missing, 0);
	rpc_msg_clear(&m);
}

static void a_push_that_one_shard_refuses_is_on_neither(void **state)
{
	struct rig *r = *state;

	up(r);
	for (uint32_t shard = 0; shard < 2; shard++) {
		struct vms p;
		struct rpc_msg m;

		vms_init(&p, 1);
		p.vm[vm_on(r, shard) - 1].listen = (char *)"192.0.2.77:4420"; /* not here */
		assert_true(vms_push(r, &p) < 0);
		assert_string_equal(r->e.field, "listen");
		for (uint32_t vm = 1; vm <= VMS; vm++)
			assert_int_equal(version_at(r, vm), 1);
		assert_int_equal(version_of(r), 1);
		for (uint32_t i = 0; i < VMS; i++)
			assert_null(status(r, &m)->vms[i]->problem), rpc_msg_clear(&m);
	}
	rig_stop(r);
	rig_start(r);
	assert_int_equal(version_of(r), 1);
}

static void a_check_is_made_on_both_and_changes_neither(void **state)
{
	struct rig *r = *state;
	struct rpc_msg m;
	struct vms p;

	up(r);
	vms_init(&p, 1);
	p.msg.has_check_only = p.msg.check_only = true;
	p.t.n_devices = 1; /* the others lose theirs */
	assert_int_equal(ASK(r, TABLES_PUSH, tables_push, &p.msg, &m), 0);
	assert_int_equal(m.frame->response->applied->version, 1);
	assert_int_equal(m.frame->response->applied->n_changes, VMS - 1); /* each once */
	rpc_msg_clear(&m);
	for (uint32_t shard = 0; shard < 2; shard++) {
		uint32_t vm = vm_on(r, shard), kept = 0;

		vms_init(&p, 1);
		for (unsigned int i = 0; i < VMS; i++)
			if (i + 1 != vm) {
				p.vms[kept] = &p.vm[i];
				p.devs[kept++] = &p.dev[i];
			}
		p.t.n_vms = p.t.n_devices = kept;
		assert_int_equal(vms_push(r, &p), -EBUSY); /* it has a device */
		assert_int_equal(version_at(r, vm), 1);
	}
}

static void a_pool_that_one_shard_cannot_make_is_on_neither(void **state)
{
	struct rig *r = *state;
	struct create c;
	struct rpc_msg m;
	char path[128];

	create_two(&c);
	c.msg.has_shards = true;
	c.msg.shards = 17;
	assert_int_equal(create(r, &c), -EINVAL);
	assert_string_equal(r->e.field, "shards");
	/* Shard 0, the last, cannot remember it. */
	snprintf(path, sizeof(path), "%s/pool", r->state);
	assert_int_equal(mkdir(path, 0700), 0);
	c.msg.has_shards = false;
	assert_true(create(r, &c) < 0);
	assert_string_equal(status(r, &m)->pool->state, "none");
	rpc_msg_clear(&m);
	assert_int_equal(shards_count(r->shards), 1);
	assert_int_equal(rmdir(path), 0);
	c.msg.has_shards = true;
	c.msg.shards = 1;
	assert_int_equal(create(r, &c), 0);
	assert_int_equal(status(r, &m)->pool->shards, 1);
	rpc_msg_clear(&m);
	assert_int_equal(create(r, &c), -EEXIST);
}

static void tasks_have_numbers_of_their_own(void **state)
{
	Parapet__TaskStart start = PARAPET__TASK_START__INIT;
	Parapet__TaskList list = PARAPET__TASK_LIST__INIT;
	Parapet__TaskControl control = PARAPET__TASK_CONTROL__INIT;
	struct rig *r = *state;
	struct rpc_msg m;
	uint32_t id[2];

	up(r);
	start.reason = PARAPET__TASK_REASON__TASK_REASON_SCRUB;
	assert_int_equal(ASK(r, TASK_START, task_start, &start, &m), 0);
	assert_int_equal(m.frame->response->tasks->n_tasks, 2);
	for (int i = 0; i < 2; i++)
		id[i] = m.frame->response->tasks->tasks[i]->id;
	rpc_msg_clear(&m);
	assert_int_not_equal(id[0], id[1]);
	list.has_id = true;
	for (int i = 0; i < 2; i++) {
		list.id = id[i];
		assert_int_equal(ASK(r, TASK_LIST, task_list, &list, &m), 0);
		assert_int_equal(m.frame->response->tasks->n_tasks, 1);
		assert_int_equal(m.frame->response->tasks->tasks[0]->id, id[i]);
		rpc_msg_clear(&m);
	}
	list.id = control.id = id[1] + 16 * 100;
	assert_int_equal(ASK(r, TASK_LIST, task_list, &list, &m), -ENOENT);
	control.action = PARAPET__TASK_ACTION__TASK_ACTION_CANCEL;
	assert_int_equal(ASK(r, TASK_CONTROL, task_control, &control, &m), -ENOENT);
	start.reason = PARAPET__TASK_REASON__TASK_REASON_EVACUATE;
	start.flash = (char *)"f99";
	assert_int_equal(ASK(r, TASK_START, task_start, &start, &m), -ENOENT);
}

static void limits_are_those_of_the_card(void **state)
{
	Parapet__TaskLimits l = PARAPET__TASK_LIMITS__INIT;
	struct rig *r = *state;
	struct rpc_msg m;

	up(r);
	l.has_ceiling_bytes_per_s = l.has_share_percent = true;
	l.ceiling_bytes_per_s = 1000001;
	l.share_percent = 70;
	assert_int_equal(ASK(r, TASK_LIMITS, task_limits, &l, &m), 0);
	assert_int_equal(m.frame->response->tasks->ceiling_bytes_per_s, 1000001);
	assert_int_equal(m.frame->response->tasks->share_percent, 70);
	rpc_msg_clear(&m);
	l.share_percent = 0;
	assert_true(ASK(r, TASK_LIMITS, task_limits, &l, &m) < 0);
}

static Parapet__Status *status_with(struct rig *r, Parapet__PoolSet *set, struct rpc_msg *m)
{
	if (ASK(r, POOL_SET, pool_set, set, m) < 0)
		fail_msg("%s", err_text(&r->e));
	return m->frame->response->status;
}

static void settings_are_on_both(void **state)
{
	Parapet__PoolSettings settings = PARAPET__POOL_SETTINGS__INIT;
	Parapet__PoolSet set = PARAPET__POOL_SET__INIT;
	struct rig *r = *state;
	struct rpc_msg m;

	up(r);
	set.has_k = set.has_m = true;
	set.k = 3;
	set.m = 1;
	set.settings = &settings;
	settings.has_timeout_ms = true;
	settings.timeout_ms = 4000;
	assert_int_equal(status_with(r, &set, &m)->pool->k, 3);
	assert_int_equal(m.frame->response->status->pool->settings->timeout_ms, 4000);
	rpc_msg_clear(&m);
	settings.has_suspect_ms = true;
	settings.suspect_ms = 9000; /* more than the timeout */
	assert_true(ASK(r, POOL_SET, pool_set, &set, &m) < 0);
	assert_int_equal(status(r, &m)->pool->settings->timeout_ms, 4000);
	rpc_msg_clear(&m);
}

static bool flash_is(struct rig *r, const char *name, const char *is)
{
	struct rpc_msg m;
	const Parapet__PoolStatus *p = status(r, &m)->pool;
	bool found = false;

	for (size_t i = 0; i < p->n_flashes; i++)
		found |= !strcmp(p->flashes[i]->flash->name, name) &&
			 (!is || !strcmp(p->flashes[i]->state, is));
	rpc_msg_clear(&m);
	return found;
}

static void a_flash_comes_fails_returns_and_goes_as_one(void **state)
{
	Parapet__FlashAdd add = PARAPET__FLASH_ADD__INIT;
	Parapet__FlashFail fails = PARAPET__FLASH_FAIL__INIT;
	Parapet__FlashReturn back = PARAPET__FLASH_RETURN__INIT;
	Parapet__FlashRemove gone = PARAPET__FLASH_REMOVE__INIT;
	Parapet__Flash f = PARAPET__FLASH__INIT;
	struct rig *r = *state;
	struct rpc_msg m;

	up(r);
	f.name = (char *)"f9";
	f.address = (char *)"mem:8M"; /* too small to be cut in two */
	add.flash = &f;
	assert_true(ASK(r, FLASH_ADD, flash_add, &add, &m) < 0);
	assert_false(flash_is(r, "f9", NULL));
	f.address = (char *)"mem:64M";
	assert_int_equal(ASK(r, FLASH_ADD, flash_add, &add, &m), 0);
	rpc_msg_clear(&m);
	assert_true(flash_is(r, "f9", "healthy"));
	back.name = fails.name = gone.name = f.name;
	assert_int_equal(ASK(r, FLASH_RETURN, flash_return, &back, &m), -EBUSY);
	assert_int_equal(ASK(r, FLASH_FAIL, flash_fail, &fails, &m), 0);
	rpc_msg_clear(&m);
	assert_false(flash_is(r, "f9", "healthy"));
	assert_int_equal(ASK(r, FLASH_RETURN, flash_return, &back, &m), 0);
	rpc_msg_clear(&m);
	assert_int_equal(ASK(r, FLASH_REMOVE, flash_remove, &gone, &m), 0);
	rpc_msg_clear(&m);
	for (int i = 0; i < 200 && flash_is(r, "f9", NULL); i++)
		poll(NULL, 0, 50);
	assert_false(flash_is(r, "f9", NULL));
	assert_int_equal(ASK(r, FLASH_REMOVE, flash_remove, &gone, &m), -ENOENT);
	assert_int_equal(ASK(r, FLASH_FAIL, flash_fail, &fails, &m), -ENOENT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup_two, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(two_shards_answer_as_one_card),
		T(a_push_that_one_shard_refuses_is_on_neither),
		T(a_check_is_made_on_both_and_changes_neither),
		T(a_pool_that_one_shard_cannot_make_is_on_neither),
		T(tasks_have_numbers_of_their_own),
		T(limits_are_those_of_the_card),
		T(settings_are_on_both),
		T(a_flash_comes_fails_returns_and_goes_as_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
