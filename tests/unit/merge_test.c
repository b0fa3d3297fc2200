/* SPDX-License-Identifier: BSD-3-Clause */
/* Answers of several shards made one: messages in, a message out, no card. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/util.h"
#include "dpu/control/merge.h"
#include "dpu/control/task_id.h"

#define SHARDS 3

/* ---- a call to merge into, and answers made of its memory ------------------------------------------------------- */

static int setup(void **state)
{
	static const Parapet__Request none = PARAPET__REQUEST__INIT;
	struct call *c = calloc(1, sizeof(*c));

	call_init(c, &none);
	*state = c;
	return 0;
}

static int teardown(void **state)
{
	call_clear(*state);
	free(*state);
	return 0;
}

#define NEW(c, type, init) call_message(c, Parapet__##type, parapet__##init##__init)
#define SET(m, f, v)                 \
	do {                         \
		(m)->has_##f = true; \
		(m)->f = (v);        \
	} while (0)

static Parapet__Named *named(struct call *c, const char *name, uint64_t value)
{
	Parapet__Named *n = NEW(c, Named, named);

	n->name = call_str(c, name);
	n->value = value;
	return n;
}

/* A list of one. */
#define ONE(c, list, n, item)                              \
	do {                                               \
		(list) = call_alloc(c, sizeof((list)[0])); \
		(list)[0] = (item);                        \
		(n) = 1;                                   \
	} while (0)

static Parapet__FlashStatus *flash(struct call *c, const char *name, const char *state)
{
	Parapet__FlashStatus *f = NEW(c, FlashStatus, flash_status);

	f->flash = NEW(c, Flash, flash);
	f->flash->name = call_str(c, name);
	f->flash->address = call_str(c, "file:/x");
	f->state = call_str(c, state);
	return f;
}

static Parapet__Status *status(struct call *c, const char *pool_state)
{
	Parapet__Status *s = NEW(c, Status, status);

	s->boot_id = call_str(c, "boot");
	s->pool = NEW(c, PoolStatus, pool_status);
	s->pool->state = call_str(c, pool_state);
	return s;
}

static Parapet__PoolStatus *pool_of(struct call *c, Parapet__Status *const *parts, size_t n)
{
	Parapet__Status *out = NULL;

	assert_int_equal(merge_status(c, parts, n, &out), 0);
	return out->pool;
}

static uint64_t value_of(Parapet__Named *const *list, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (!strcmp(list[i]->name, name))
			return list[i]->value;
	fail_msg("nothing is called %s", name);
	return 0;
}

/* ---- pools -------------------------------------------------------------------------------------------------------- */

static void sizes_add_up_and_what_survives_is_the_least(void **state)
{
	struct call *c = *state;
	Parapet__Status *p[SHARDS];
	Parapet__PoolStatus *m;

	for (unsigned int i = 0; i < SHARDS; i++) {
		p[i] = status(c, "online");
		SET(p[i]->pool, size_bytes, 100u + i);
		SET(p[i]->pool, free_bytes, 10u * i);
		SET(p[i]->pool, survives, 2 - (i == 1));
		SET(p[i]->pool, epoch, 7 + i);
		SET(p[i]->pool, k, 4);
		p[i]->pool->log = NEW(c, LogSpace, log_space);
		SET(p[i]->pool->log, live_bytes, 5);
		SET(p[i]->pool->log, used_percent, 10 * i);
	}
	m = pool_of(c, p, SHARDS);
	assert_int_equal(m->size_bytes, 303);
	assert_int_equal(m->free_bytes, 30);
	assert_int_equal(m->survives, 1);
	assert_int_equal(m->epoch, 9);
	assert_int_equal(m->k, 4);
	assert_int_equal(m->log->live_bytes, 15);
	assert_int_equal(m->log->used_percent, 20);
	assert_int_equal(m->shards, SHARDS);
	assert_false(m->has_survives_nodes); /* nobody said */
	assert_string_equal(m->state, "online");
}

static void the_worst_state_is_the_pools(void **state)
{
	static const struct {
		const char *of[SHARDS], *together;
	} cases[] = {
		{{"online", "degraded", "online"}, "degraded"},
		{{"degraded", "recovering", "online"}, "recovering"},
		{{"failed", "recovering", "online"}, "failed"},
		{{"none", "none", "none"}, "none"},
		{{"online", "none", "online"}, "failed"},
		{{"none", "online", "online"}, "failed"},
	};
	struct call *c = *state;

	for (size_t k = 0; k < ARRAY_LEN(cases); k++) {
		Parapet__Status *p[SHARDS];

		for (unsigned int i = 0; i < SHARDS; i++)
			p[i] = status(c, cases[k].of[i]);
		assert_string_equal(pool_of(c, p, SHARDS)->state, cases[k].together);
	}
}

static void a_shard_without_its_part_is_named(void **state)
{
	struct call *c = *state;
	Parapet__Status *p[SHARDS] = {status(c, "online"), status(c, "none"), status(c, "failed")};

	p[2]->pool->reason = call_str(c, "2 of 3 flash devices are missing");
	assert_string_equal(pool_of(c, p, SHARDS)->reason,
		"shard 1: it has no pool; shard 2: 2 of 3 flash devices are missing");
}

static void what_all_say_is_said_once(void **state)
{
	struct call *c = *state;
	Parapet__Status *p[SHARDS];
	Parapet__PoolStatus *m;

	for (unsigned int i = 0; i < SHARDS; i++) {
		p[i] = status(c, "degraded");
		p[i]->pool->degraded = call_alloc(c, 2 * sizeof(char *));
		p[i]->pool->degraded[0] = call_str(c, "flash f1 is failed");
		p[i]->pool->n_degraded = 1;
	}
	p[2]->pool->degraded[1] = call_str(c, "3 blocks were lost");
	p[2]->pool->n_degraded = 2;
	m = pool_of(c, p, SHARDS);
	assert_int_equal(m->n_degraded, 2);
	assert_string_equal(m->degraded[0], "flash f1 is failed");
	assert_string_equal(m->degraded[1], "shard 2: 3 blocks were lost");
}

static void slices_of_a_flash_are_one_flash(void **state)
{
	struct call *c = *state;
	Parapet__Status *p[2] = {status(c, "online"), status(c, "degraded")};
	Parapet__PoolStatus *m;

	for (unsigned int i = 0; i < 2; i++) {
		Parapet__FlashStatus *f = flash(c, "f0", i ? "rebuilding" : "healthy");

		SET(f, size_bytes, 1000);
		SET(f, block_bytes, 4096);
		SET(f, claimed, i == 0);
		f->allocated = NEW(c, Areas, areas);
		SET(f->allocated, data, 1 + i);
		ONE(c, f->latency, f->n_latency, NEW(c, Latency, latency));
		f->latency[0]->op = call_str(c, "read");
		SET(f->latency[0], p99_us, 100 * (i + 1));
		SET(f->latency[0], count, 5);
		f->health = call_alloc(c, 3 * sizeof(f->health[0]));
		f->health[0] = named(c, "wear_used_percent", 40 + i);
		f->health[1] = named(c, "spare_percent", 90 + i);
		f->health[2] = named(c, "slow_times", 2);
		f->n_health = 3;
		p[i]->pool->flashes = call_alloc(c, 2 * sizeof(f));
		p[i]->pool->flashes[0] = f;
		p[i]->pool->n_flashes = 1;
	}
	p[1]->pool->flashes[1] = flash(c, "f1", "healthy"); /* only one of them has it */
	p[1]->pool->n_flashes = 2;
	p[1]->pool->flashes[0]->reason = call_str(c, "it was away");
	m = pool_of(c, p, 2);
	assert_int_equal(m->n_flashes, 2);
	assert_string_equal(m->flashes[0]->state, "rebuilding");
	assert_string_equal(m->flashes[0]->reason, "shard 1: it was away");
	assert_int_equal(m->flashes[0]->size_bytes, 2000);
	assert_int_equal(m->flashes[0]->block_bytes, 4096);
	assert_false(m->flashes[0]->claimed);
	assert_int_equal(m->flashes[0]->allocated->data, 3);
	assert_int_equal(m->flashes[0]->latency[0]->p99_us, 200);
	assert_int_equal(m->flashes[0]->latency[0]->count, 10);
	assert_int_equal(
		value_of(m->flashes[0]->health, m->flashes[0]->n_health, "wear_used_percent"), 41);
	assert_int_equal(
		value_of(m->flashes[0]->health, m->flashes[0]->n_health, "spare_percent"), 90);
	assert_int_equal(value_of(m->flashes[0]->health, m->flashes[0]->n_health, "slow_times"), 4);
	assert_string_equal(m->flashes[1]->flash->name, "f1");
	/* what went in is as it was */
	assert_int_equal(p[0]->pool->flashes[0]->size_bytes, 1000);
	assert_string_equal(p[0]->pool->flashes[0]->state, "healthy");
	assert_int_equal(p[0]->pool->flashes[0]->allocated->data, 1);
}

static void kinds_of_data_survive_what_the_weakest_shard_does(void **state)
{
	struct call *c = *state;
	Parapet__Status *p[2] = {status(c, "online"), status(c, "online")};
	Parapet__PoolStatus *m;

	for (unsigned int i = 0; i < 2; i++) {
		Parapet__Survives *s = NEW(c, Survives, survives);

		s->what = call_str(c, "protected 4+2");
		s->devices = 2 - i;
		SET(s, bytes, 50);
		ONE(c, s->fatal_nodes, s->n_fatal_nodes, call_str(c, i ? "n1" : "n0"));
		ONE(c, p[i]->pool->survival, p[i]->pool->n_survival, s);
	}
	m = pool_of(c, p, 2);
	assert_int_equal(m->n_survival, 1);
	assert_int_equal(m->survival[0]->devices, 1);
	assert_int_equal(m->survival[0]->bytes, 100);
	assert_int_equal(m->survival[0]->n_fatal_nodes, 2);
	assert_int_equal(p[0]->pool->survival[0]->devices, 2);
}

static void the_oldest_checkpoint_and_the_slowest_recovery_count(void **state)
{
	struct call *c = *state;
	Parapet__Status *p[2] = {status(c, "recovering"), status(c, "recovering")};
	Parapet__PoolStatus *m;

	for (unsigned int i = 0; i < 2; i++) {
		p[i]->pool->checkpoint = NEW(c, CheckpointStatus, checkpoint_status);
		SET(p[i]->pool->checkpoint, id, 10 + i);
		SET(p[i]->pool->checkpoint, age_s, i ? 90 : 30);
		SET(p[i]->pool->checkpoint, bytes, 7);
		p[i]->pool->recovery = NEW(c, Recovery, recovery);
		p[i]->pool->recovery->phase = call_str(c, i ? "scan" : "roll forward");
		SET(p[i]->pool->recovery, percent, i ? 20 : 80);
		p[i]->pool->recovery->figures = call_alloc(c, 2 * sizeof(void *));
		p[i]->pool->recovery->figures[0] = named(c, "ms", 100 * (i + 1));
		p[i]->pool->recovery->figures[1] = named(c, "stripes", 3);
		p[i]->pool->recovery->n_figures = 2;
	}
	m = pool_of(c, p, 2);
	assert_int_equal(m->checkpoint->id, 11);
	assert_int_equal(m->checkpoint->age_s, 90);
	assert_int_equal(m->checkpoint->bytes, 14);
	assert_string_equal(m->recovery->phase, "scan");
	assert_int_equal(m->recovery->percent, 20);
	assert_int_equal(value_of(m->recovery->figures, m->recovery->n_figures, "ms"), 200);
	assert_int_equal(value_of(m->recovery->figures, m->recovery->n_figures, "stripes"), 6);
	p[0]->pool->checkpoint->has_id = false; /* this one has none yet */
	assert_false(pool_of(c, p, 2)->checkpoint->has_id);
}

/* ---- lists ------------------------------------------------------------------------------------------------------------ */

static void vms_are_one_list_by_number(void **state)
{
	static const uint32_t numbers[SHARDS] = {9, 2, 5};
	struct call *c = *state;
	Parapet__Status *p[SHARDS], *out;

	for (unsigned int i = 0; i < SHARDS; i++) {
		p[i] = status(c, "online");
		ONE(c, p[i]->vms, p[i]->n_vms, NEW(c, VmStatus, vm_status));
		p[i]->vms[0]->vm = numbers[i];
		SET(p[i]->vms[0], shard, i);
		ONE(c, p[i]->warnings, p[i]->n_warnings, call_str(c, "no huge pages"));
	}
	assert_int_equal(merge_status(c, p, SHARDS, &out), 0);
	assert_int_equal(out->n_vms, SHARDS);
	assert_int_equal(out->vms[0]->vm, 2);
	assert_int_equal(out->vms[0]->shard, 1);
	assert_int_equal(out->vms[2]->vm, 9);
	assert_int_equal(out->n_warnings, 1);
	assert_string_equal(out->boot_id, "boot");
}

static int respond(struct call *c, Parapet__Response *list, size_t n)
{
	Parapet__Response *p[SHARDS];

	for (size_t i = 0; i < n; i++)
		p[i] = &list[i];
	return merge_responses(c, p, n);
}

static void a_ceiling_is_the_cards_and_none_is_none(void **state)
{
	struct call *c = *state;
	Parapet__Response r[2];

	for (unsigned int i = 0; i < 2; i++) {
		parapet__response__init(&r[i]);
		r[i].result_case = PARAPET__RESPONSE__RESULT_TASKS;
		r[i].tasks = NEW(c, Tasks, tasks);
		SET(r[i].tasks, share_percent, 50);
		SET(r[i].tasks, ceiling_bytes_per_s, 1000);
		ONE(c, r[i].tasks->tasks, r[i].tasks->n_tasks, NEW(c, Task, task));
		r[i].tasks->tasks[0]->id = task_id_outside(4, i, 2);
	}
	assert_int_equal(respond(c, r, 2), 0);
	assert_int_equal(c->resp.tasks->ceiling_bytes_per_s, 2000);
	assert_int_equal(c->resp.tasks->share_percent, 50);
	assert_int_equal(c->resp.tasks->n_tasks, 2);
	assert_int_not_equal(c->resp.tasks->tasks[0]->id, c->resp.tasks->tasks[1]->id);
	r[1].tasks->ceiling_bytes_per_s = 0;
	assert_int_equal(respond(c, r, 2), 0);
	assert_int_equal(c->resp.tasks->ceiling_bytes_per_s, 0);
	r[1].result_case = PARAPET__RESPONSE__RESULT_STATS;
	assert_int_equal(respond(c, r, 2), -EINVAL);
}

static void a_flash_is_removed_when_it_is_out_of_all(void **state)
{
	struct call *c = *state;
	Parapet__Response r[2];

	for (unsigned int i = 0; i < 2; i++) {
		parapet__response__init(&r[i]);
		r[i].result_case = PARAPET__RESPONSE__RESULT_FLASH_CHANGED;
		r[i].flash_changed = NEW(c, FlashChanged, flash_changed);
		r[i].flash_changed->pool = status(c, "online")->pool;
		SET(r[i].flash_changed, removed, i == 0);
	}
	r[1].flash_changed->task = NEW(c, Task, task);
	r[1].flash_changed->task->id = 17;
	assert_int_equal(respond(c, r, 2), 0);
	assert_true(c->resp.flash_changed->has_removed);
	assert_false(c->resp.flash_changed->removed);
	assert_int_equal(c->resp.flash_changed->task->id, 17);
	r[1].flash_changed->removed = true;
	assert_int_equal(respond(c, r, 2), 0);
	assert_true(c->resp.flash_changed->removed);
}

static void numbers_of_tasks_go_out_and_come_back(void **state)
{
	for (unsigned int n = 1; n <= TASK_ID_SHARDS; n++)
		for (unsigned int shard = 0; shard < n; shard++) {
			uint32_t out = task_id_outside(12345, shard, n);

			assert_int_equal(task_id_shard(out, n), n > 1 ? shard : 0);
			for (unsigned int k = 0; k < n; k++)
				assert_int_equal(task_id_inside(out, k, n), k == shard ? 12345 : 0);
		}
	assert_int_equal(task_id_outside(12345, 0, 1), 12345);
	assert_int_equal(task_id_shard(15, 2), 0); /* no such shard */
}

/* ---- stats and top ------------------------------------------------------------------------------------------------------ */

static Parapet__Stat *stat(struct call *c, const char *object, const char *name, uint64_t v)
{
	Parapet__Stat *s = NEW(c, Stat, stat);

	s->object = call_str(c, object);
	s->name = call_str(c, name);
	s->value = v;
	return s;
}

static void counters_add_up_and_maxima_do_not(void **state)
{
	struct call *c = *state;
	Parapet__Stats *p[2], *out;

	for (unsigned int i = 0; i < 2; i++) {
		p[i] = NEW(c, Stats, stats);
		p[i]->stats = call_alloc(c, 4 * sizeof(void *));
		p[i]->stats[0] = stat(c, i ? "vm b" : "vm z", "requests.read", 1 + i);
		p[i]->stats[1] = stat(c, "flash f0", "writes", 10);
		p[i]->stats[2] = stat(c, "flash f0", "latency_ns_p99.read", 100 + i);
		p[i]->stats[3] = stat(c, "flash f1", "writes", 20);
		p[i]->n_stats = 4;
	}
	assert_int_equal(merge_stats(c, p, 2, &out), 0);
	assert_int_equal(out->n_stats, 5);
	assert_string_equal(out->stats[0]->object, "vm z"); /* the order is kept */
	assert_int_equal(out->stats[1]->value, 20);
	assert_int_equal(out->stats[2]->value, 101);
	assert_int_equal(out->stats[3]->value, 40);
	assert_string_equal(out->stats[4]->object, "vm b");
	assert_int_equal(out->stats[4]->value, 2);
	assert_int_equal(p[0]->stats[1]->value, 10); /* what went in is as it was */
}

static Parapet__Histogram *histogram(
	struct call *c, const uint32_t *classes, const uint64_t *counts, size_t n)
{
	Parapet__Histogram *h = NEW(c, Histogram, histogram);

	h->classes = call_alloc(c, n * sizeof(h->classes[0]));
	h->counts = call_alloc(c, n * sizeof(h->counts[0]));
	memcpy(h->classes, classes, n * sizeof(h->classes[0]));
	memcpy(h->counts, counts, n * sizeof(h->counts[0]));
	h->n_classes = h->n_counts = n;
	SET(h, sum, 100 * n);
	SET(h, max, 10 * n);
	return h;
}

static void histograms_are_added_class_by_class(void **state)
{
	static const uint32_t a_classes[] = {1, 5, 9}, b_classes[] = {0, 5, 20, 21};
	static const uint64_t a_counts[] = {2, 3, 4}, b_counts[] = {1, 10, 1, 1};
	static const uint32_t classes[] = {0, 1, 5, 9, 20, 21};
	static const uint64_t counts[] = {1, 2, 13, 4, 1, 1};
	struct call *c = *state;
	Parapet__Top *p[2], *out;
	Parapet__Histogram *h;

	for (unsigned int i = 0; i < 2; i++) {
		p[i] = NEW(c, Top, top);
		p[i]->time_ns = 1000 + i;
		SET(p[i], device_bytes, 500);
		ONE(c, p[i]->stages, p[i]->n_stages, NEW(c, TopStage, top_stage));
		p[i]->stages[0]->of = call_str(c, "protect");
		p[i]->stages[0]->stage = call_str(c, "log");
		p[i]->stages[0]->time = i ? histogram(c, b_classes, b_counts, 4)
					  : histogram(c, a_classes, a_counts, 3);
		ONE(c, p[i]->flashes, p[i]->n_flashes, NEW(c, TopFlash, top_flash));
		p[i]->flashes[0]->name = call_str(c, "f0");
		SET(p[i]->flashes[0], writes, 3);
		SET(p[i]->flashes[0], busy_ns, 40 + i);
	}
	assert_int_equal(merge_top(c, p, 2, &out), 0);
	assert_int_equal(out->n_stages, 1);
	h = out->stages[0]->time;
	assert_int_equal(h->n_classes, ARRAY_LEN(classes));
	assert_int_equal(h->n_counts, ARRAY_LEN(classes));
	assert_memory_equal(h->classes, classes, sizeof(classes));
	assert_memory_equal(h->counts, counts, sizeof(counts));
	assert_int_equal(h->sum, 700);
	assert_int_equal(h->max, 40);
	assert_int_equal(out->device_bytes, 1000);
	assert_int_equal(out->n_flashes, 1);
	assert_int_equal(out->flashes[0]->writes, 6);
	assert_int_equal(out->flashes[0]->busy_ns, 41);
	assert_int_equal(out->time_ns, 1000);
}

static void one_answer_is_left_as_it_is(void **state)
{
	struct call *c = *state;
	Parapet__Response r = PARAPET__RESPONSE__INIT;

	c->resp.id = 77;
	r.result_case = PARAPET__RESPONSE__RESULT_STATUS;
	r.status = status(c, "degraded");
	assert_int_equal(respond(c, &r, 1), 0);
	assert_ptr_equal(c->resp.status, r.status);
	assert_int_equal(c->resp.id, 77);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(sizes_add_up_and_what_survives_is_the_least),
		T(the_worst_state_is_the_pools),
		T(a_shard_without_its_part_is_named),
		T(what_all_say_is_said_once),
		T(slices_of_a_flash_are_one_flash),
		T(kinds_of_data_survive_what_the_weakest_shard_does),
		T(the_oldest_checkpoint_and_the_slowest_recovery_count),
		T(vms_are_one_list_by_number),
		T(a_ceiling_is_the_cards_and_none_is_none),
		T(a_flash_is_removed_when_it_is_out_of_all),
		T(numbers_of_tasks_go_out_and_come_back),
		T(counters_add_up_and_maxima_do_not),
		T(histograms_are_added_class_by_class),
		T(one_answer_is_left_as_it_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
