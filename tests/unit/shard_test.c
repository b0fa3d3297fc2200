/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/core/shard.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"

static struct shard *open_shard(enum shard_clock clock, enum shard_mode mode)
{
	struct shard_cfg cfg = {.clock = clock, .mode = mode, .seed = 7, .id = 3};
	struct shard *sh;

	assert_int_equal(shard_open(&cfg, &sh), 0);
	return sh;
}

static struct shard *open_virtual(void)
{
	return open_shard(SHARD_CLOCK_VIRTUAL, SHARD_ADAPTIVE);
}

/* ---- timers -------------------------------------------------------------------------------- */

struct alarm {
	struct timer t;
	struct shard *sh;
	uint64_t fired_at_ns;
	int fired;
	uint64_t again_ns;
};

static void alarm_fire(void *arg)
{
	struct alarm *a = arg;

	a->fired++;
	a->fired_at_ns = shard_now_ns(a->sh);
	if (a->again_ns)
		timer_arm(a->sh, &a->t, shard_now_ns(a->sh) + a->again_ns, alarm_fire, a);
}

static void virtual_time_jumps_from_timer_to_timer_in_order(void **state)
{
	enum { N = 1000 };
	static struct alarm a[N];
	struct shard *sh = open_virtual();
	uint64_t start = shard_now_ns(sh), last = 0;
	int fired = 0;

	memset(a, 0, sizeof(a));
	for (int i = 0; i < N; i++) {
		a[i].sh = sh;
		timer_arm(sh, &a[i].t, start + 1 + shard_random(sh) % 1000000, alarm_fire, &a[i]);
	}
	for (int i = 0; i < N; i += 3) /* moved later, earlier, taken away */
		timer_arm(sh, &a[i].t, start + 1 + shard_random(sh) % 2000000, alarm_fire, &a[i]);
	for (int i = 0; i < N; i += 7)
		timer_disarm(sh, &a[i].t);
	while (shard_run_once(sh)) {
		assert_true(shard_now_ns(sh) >= last);
		last = shard_now_ns(sh);
	}
	for (int i = 0; i < N; i++) {
		assert_int_equal(a[i].fired, i % 7 != 0);
		fired += a[i].fired;
		if (a[i].fired)
			assert_int_equal(a[i].fired_at_ns, a[i].t.deadline_ns);
	}
	assert_int_equal(fired, N - (N + 6) / 7);
	shard_close(sh);
}

static void a_timer_that_rearms_itself_leaves_room_for_others(void **state)
{
	struct shard *sh = open_virtual();
	struct alarm greedy = {.sh = sh}, other = {.sh = sh};

	timer_arm(sh, &greedy.t, 0, alarm_fire, &greedy);
	timer_arm(sh, &other.t, 0, alarm_fire, &other);
	greedy.again_ns = 1;
	for (int i = 0; i < 10; i++)
		assert_true(shard_run_once(sh));
	assert_int_equal(other.fired, 1);
	assert_true(greedy.fired >= 9);
	timer_disarm(sh, &greedy.t);
	timer_disarm(sh, &greedy.t); /* harmless */
	assert_false(shard_run_once(sh));
	shard_close(sh);
}

/* ---- tasks, pollers, shard_wait ------------------------------------------------------------- */

struct actor {
	struct shard *sh;
	struct poller poller;
	struct task task;
	int runs, depth, max_depth;
	struct actor *waits_for; /* waits until this one ran three times more */
	struct actor *frees;
	bool defers;
	int want;
	int wait_rc;
};

static bool ran_enough(void *arg)
{
	struct actor *a = arg;

	return a->runs >= a->want;
}

static void act(struct actor *a)
{
	a->runs++;
	a->depth++;
	a->max_depth = MAX(a->max_depth, a->depth);
	if (a->waits_for) {
		struct actor *other = a->waits_for;

		a->waits_for = NULL;
		other->want = other->runs + 3;
		a->wait_rc = shard_wait(a->sh, ran_enough, other, 0);
	}
	if (a->frees) {
		poller_del(a->sh, &a->frees->poller);
		shard_undefer(a->sh, &a->frees->task);
		free(a->frees);
		a->frees = NULL;
	}
	a->depth--;
}

static int actor_poll(void *arg)
{
	act(arg);
	return 1;
}

static void actor_run(void *arg)
{
	struct actor *a = arg;

	if (a->defers) /* may run again while act() waits: it must not */
		shard_defer(a->sh, &a->task, actor_run, a);
	act(a);
}

static void a_waiting_poller_is_not_entered_again_but_others_run(void **state)
{
	struct shard *sh = open_virtual();
	struct actor a = {.sh = sh}, b = {.sh = sh};

	a.waits_for = &b;
	poller_add(sh, &a.poller, actor_poll, &a, POLLER_SLEEPS);
	poller_add(sh, &b.poller, actor_poll, &b, POLLER_SLEEPS);
	shard_run_once(sh);
	assert_int_equal(a.wait_rc, 0);
	assert_int_equal(a.max_depth, 1);
	assert_int_equal(a.runs, 1);
	assert_true(b.runs >= 3);
	shard_run_once(sh);
	assert_int_equal(a.runs, 2);
	poller_del(sh, &a.poller);
	poller_del(sh, &b.poller);
	poller_del(sh, &b.poller); /* harmless */
	shard_close(sh);
}

static void a_waiting_task_is_not_entered_again_even_if_deferred(void **state)
{
	struct shard *sh = open_virtual();
	struct actor a = {.sh = sh, .defers = true}, b = {.sh = sh};

	a.waits_for = &b;
	poller_add(sh, &b.poller, actor_poll, &b, POLLER_SLEEPS);
	shard_defer(sh, &a.task, actor_run, &a);
	shard_defer(sh, &a.task, actor_run, &a); /* queued once */
	shard_run_once(sh);
	assert_int_equal(a.wait_rc, 0);
	assert_int_equal(a.max_depth, 1);
	assert_int_equal(a.runs, 1);
	a.defers = false;
	shard_run_once(sh);
	assert_int_equal(a.runs, 2);
	poller_del(sh, &b.poller);
	shard_close(sh);
}

static void callbacks_may_remove_and_free_each_other(void **state)
{
	struct shard *sh = open_virtual();
	struct actor a = {.sh = sh}, last = {.sh = sh};

	for (int round = 0; round < 2; round++) {
		struct actor *victim = calloc(1, sizeof(*victim));

		victim->sh = sh;
		a.frees = victim;
		poller_add(sh, &a.poller, actor_poll, &a, POLLER_SLEEPS);
		poller_add(sh, &victim->poller, actor_poll, victim, POLLER_BUSY);
		poller_add(sh, &last.poller, actor_poll, &last, POLLER_SLEEPS);
		if (round == 1) { /* from inside a nested round, and pending as a task too */
			a.waits_for = &last;
			shard_defer(sh, &victim->task, actor_run, victim);
			shard_undefer(sh, &victim->task);
			shard_undefer(sh, &victim->task);
		}
		shard_run_once(sh);
		assert_null(a.frees);
		poller_del(sh, &a.poller);
		poller_del(sh, &last.poller);
	}
	assert_true(last.runs >= 4);
	shard_close(sh);
}

static bool never(void *arg)
{
	return false;
}

static void waiting_times_out_or_says_that_nothing_can_help(void **state)
{
	struct shard *sh = open_virtual();
	uint64_t start = shard_now_ns(sh);

	assert_int_equal(shard_wait(sh, never, NULL, 5000), -ETIMEDOUT);
	assert_int_equal(shard_now_ns(sh), start + 5000);
	assert_int_equal(shard_wait(sh, never, NULL, 0), -EDEADLK);
	shard_close(sh);
	sh = open_shard(SHARD_CLOCK_MONOTONIC, SHARD_INTERRUPT);
	assert_int_equal(shard_wait(sh, never, NULL, 1000000), -ETIMEDOUT);
	shard_close(sh);
}

/* ---- descriptors ------------------------------------------------------------------------------- */

struct pipe_end {
	struct shard *sh;
	struct fd_watch watch;
	int fds[2];
	int ready;
	struct pipe_end *removes;
	bool waits;
	int wait_rc;
};

static void pipe_ready(void *arg, uint32_t events)
{
	struct pipe_end *p = arg;
	char c;

	p->ready++;
	assert_true(events & EPOLLIN);
	if (p->waits) /* still readable: the nested rounds must leave us alone */
		p->wait_rc = shard_wait(p->sh, never, NULL, 3000000);
	assert_int_equal(read(p->fds[0], &c, 1), 1);
	if (p->removes)
		fd_watch_del(p->sh, &p->removes->watch);
}

static void pipe_open(struct shard *sh, struct pipe_end *p)
{
	*p = (struct pipe_end){.sh = sh};
	assert_int_equal(pipe(p->fds), 0);
	assert_int_equal(fd_watch_add(sh, &p->watch, p->fds[0], EPOLLIN, pipe_ready, p), 0);
	assert_int_equal(write(p->fds[1], "x", 1), 1);
}

static void pipe_close(struct pipe_end *p)
{
	fd_watch_del(p->sh, &p->watch);
	close(p->fds[0]);
	close(p->fds[1]);
}

static void a_removed_descriptor_is_not_called_even_when_it_was_ready(void **state)
{
	struct shard *sh = open_virtual();
	struct pipe_end a, b;

	pipe_open(sh, &a);
	pipe_open(sh, &b);
	a.removes = &b;
	b.removes = &a;
	assert_true(shard_run_once(sh));
	assert_int_equal(a.ready + b.ready, 1);
	assert_false(shard_run_once(sh));
	pipe_close(&a);
	pipe_close(&b);
	shard_close(sh);
}

static void a_waiting_descriptor_is_not_entered_again(void **state)
{
	struct shard *sh = open_shard(SHARD_CLOCK_MONOTONIC, SHARD_ADAPTIVE);
	struct pipe_end a;

	pipe_open(sh, &a);
	a.waits = true;
	while (!a.ready)
		shard_run_once(sh);
	assert_int_equal(a.ready, 1);
	assert_int_equal(a.wait_rc, -ETIMEDOUT);
	assert_int_equal(fd_watch_set(sh, &a.watch, 0), 0);
	assert_int_equal(write(a.fds[1], "y", 1), 1);
	assert_false(shard_run_once(sh));
	assert_int_equal(
		fd_watch_add(sh, &(struct fd_watch){0}, -1, EPOLLIN, pipe_ready, NULL), -EBADF);
	pipe_close(&a);
	shard_close(sh);
}

/* ---- threads --------------------------------------------------------------------------------- */

enum { POSTERS = 3, POSTS = 2000 };
struct inbox {
	struct shard *sh;
	int last[POSTERS], total;
	bool in_order;
};
struct letter {
	struct inbox *to;
	int from, n;
};

static void letter_read(void *arg)
{
	struct letter *l = arg;

	l->to->in_order &= l->n == l->to->last[l->from] + 1;
	l->to->last[l->from] = l->n;
	l->to->total++;
}

struct poster {
	struct inbox *in;
	int id;
	struct letter letters[POSTS];
};

static void *poster_main(void *arg)
{
	struct timespec pause = {.tv_nsec = 1000000};
	struct poster *p = arg;

	for (int i = 0; i < POSTS; i++) {
		p->letters[i] = (struct letter){p->in, p->id, i + 1};
		while (shard_post(p->in->sh, letter_read, &p->letters[i]) < 0)
			;
		if (i % 500 == 0)
			nanosleep(&pause, NULL); /* let it fall asleep */
	}
	return NULL;
}

static void inbox_sum(void *arg)
{
	struct inbox *in = arg;

	in->total++;
}

static void *run_main(void *arg)
{
	shard_run(arg);
	return NULL;
}

static void messages_arrive_once_in_order_and_wake_sleepers(void **state)
{
	static const enum shard_mode modes[] = {SHARD_POLLING, SHARD_ADAPTIVE, SHARD_INTERRUPT};
	static struct poster posters[POSTERS];
	pthread_t shard_thread, threads[POSTERS];

	for (size_t m = 0; m < ARRAY_LEN(modes); m++) {
		struct shard *sh = open_shard(SHARD_CLOCK_MONOTONIC, modes[m]);
		struct inbox in = {.sh = sh, .in_order = true};

		assert_int_equal(pthread_create(&shard_thread, NULL, run_main, sh), 0);
		for (int i = 0; i < POSTERS; i++) {
			posters[i].in = &in;
			posters[i].id = i;
			pthread_create(&threads[i], NULL, poster_main, &posters[i]);
		}
		for (int i = 0; i < POSTERS; i++)
			pthread_join(threads[i], NULL);
		assert_int_equal(shard_call(sh, inbox_sum, &in), 0);
		assert_int_equal(in.total, POSTERS * POSTS + 1);
		assert_true(in.in_order);
		shard_stop(sh);
		pthread_join(shard_thread, NULL);
		shard_close(sh);
	}
}

static void a_sleeping_shard_wakes_for_its_timer(void **state)
{
	struct shard *sh = open_shard(SHARD_CLOCK_MONOTONIC, SHARD_INTERRUPT);
	struct alarm a = {.sh = sh};
	uint64_t deadline = shard_now_ns(sh) + 2000000;
	struct actor b = {.sh = sh};

	timer_arm(sh, &a.t, deadline, alarm_fire, &a);
	poller_add(sh, &b.poller, actor_poll, &b, POLLER_SLEEPS);
	poller_del(sh, &b.poller);
	assert_int_equal(shard_wait(sh, never, NULL, 4000000), -ETIMEDOUT);
	assert_int_equal(a.fired, 1);
	assert_true(a.fired_at_ns >= deadline);
	shard_close(sh);
}

struct clocked {
	struct shard *sh;
	struct fd_watch watch;
	int fds[2];
	uint64_t now_ns;
};

static int count_poll(void *arg)
{
	(*(unsigned int *)arg)++;
	return 0;
}

static bool has_fired_often(void *arg)
{
	return ((struct alarm *)arg)->fired >= 50;
}

static void a_shard_that_only_its_timers_wake_does_not_look_about_for_long(void **state)
{
	struct shard *sh = open_shard(SHARD_CLOCK_MONOTONIC, SHARD_ADAPTIVE);
	struct alarm a = {.sh = sh, .again_ns = 2000000};
	struct poller p = {0};
	unsigned int polls = 0;

	poller_add(sh, &p, count_poll, &polls, POLLER_SLEEPS);
	alarm_fire(&a);
	assert_int_equal(shard_wait(sh, has_fired_often, &a, 0), 0);
	timer_disarm(sh, &a.t);
	/* Two hundred rounds before the first sleep, some ten for each timer. */
	assert_in_range(polls, 50, 200 + 50 * 20);
	poller_del(sh, &p);
	shard_close(sh);
}

static void clocked_ready(void *arg, uint32_t events)
{
	struct clocked *c = arg;
	char b;

	assert_int_equal(read(c->fds[0], &b, 1), 1);
	c->now_ns = shard_now_ns(c->sh);
	fd_watch_del(c->sh, &c->watch);
	shard_stop(c->sh);
}

/* Else a timer that is armed there would be over at once after a long sleep. */
static void a_descriptor_that_ends_a_sleep_sees_the_time_after_it(void **state)
{
	struct clocked c = {.sh = open_shard(SHARD_CLOCK_MONOTONIC, SHARD_INTERRUPT)};
	struct timespec nap = {.tv_nsec = 5000000}, now;
	pthread_t thread;

	assert_int_equal(pipe(c.fds), 0);
	assert_int_equal(fd_watch_add(c.sh, &c.watch, c.fds[0], EPOLLIN, clocked_ready, &c), 0);
	assert_int_equal(pthread_create(&thread, NULL, run_main, c.sh), 0);
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_MONOTONIC, &now);
	assert_int_equal(write(c.fds[1], "x", 1), 1);
	pthread_join(thread, NULL);
	assert_true(c.now_ns >= (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
	shard_close(c.sh);
	close(c.fds[0]);
	close(c.fds[1]);
}

static void the_same_seed_gives_the_same_choices(void **state)
{
	struct shard *a = open_virtual(), *b = open_virtual(), *c;
	uint64_t v = 0;

	assert_int_equal(shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL}, &c), 0);
	for (int i = 0; i < 100; i++) {
		v = shard_random(a);
		assert_int_equal(v, shard_random(b));
	}
	assert_int_not_equal(v, shard_random(c));
	assert_int_equal(shard_id(a), 3);
	assert_true(shard_is_virtual(a));
	shard_close(a);
	shard_close(b);
	shard_close(c);
}

/* ---- messages in memory of their owners: two shards throw one to and fro -------------------------------------------- */

struct ball {
	struct message msg;
	struct shard *at[2];
	unsigned int throws;
};

static void ball_caught(void *arg)
{
	struct ball *b = arg;

	if (++b->throws <= POSTS) {
		shard_post_msg(b->at[b->throws % 2], &b->msg, ball_caught, b);
	} else {
		shard_stop(b->at[0]);
		shard_stop(b->at[1]);
	}
}

static void *player_main(void *arg)
{
	shard_run(arg);
	return NULL;
}

static void a_message_in_its_owners_memory_may_be_posted_again_when_it_has_arrived(void **state)
{
	struct ball b = {0};
	pthread_t other;

	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(
			shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &b.at[i]), 0);
	assert_int_equal(pthread_create(&other, NULL, player_main, b.at[1]), 0);
	shard_post_msg(b.at[0], &b.msg, ball_caught, &b);
	shard_run(b.at[0]);
	pthread_join(other, NULL);
	assert_int_equal(b.throws, POSTS + 1);
	/* One that never arrives is its owner's all the same. */
	shard_post_msg(b.at[0], &b.msg, ball_caught, &b);
	shard_close(b.at[0]);
	shard_close(b.at[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(virtual_time_jumps_from_timer_to_timer_in_order),
		cmocka_unit_test(a_timer_that_rearms_itself_leaves_room_for_others),
		cmocka_unit_test(a_waiting_poller_is_not_entered_again_but_others_run),
		cmocka_unit_test(a_waiting_task_is_not_entered_again_even_if_deferred),
		cmocka_unit_test(callbacks_may_remove_and_free_each_other),
		cmocka_unit_test(waiting_times_out_or_says_that_nothing_can_help),
		cmocka_unit_test(a_removed_descriptor_is_not_called_even_when_it_was_ready),
		cmocka_unit_test(a_waiting_descriptor_is_not_entered_again),
		cmocka_unit_test(messages_arrive_once_in_order_and_wake_sleepers),
		cmocka_unit_test(
			a_message_in_its_owners_memory_may_be_posted_again_when_it_has_arrived),
		cmocka_unit_test(a_sleeping_shard_wakes_for_its_timer),
		cmocka_unit_test(a_shard_that_only_its_timers_wake_does_not_look_about_for_long),
		cmocka_unit_test(a_descriptor_that_ends_a_sleep_sees_the_time_after_it),
		cmocka_unit_test(the_same_seed_gives_the_same_choices),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
