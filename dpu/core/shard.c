/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/core/shard.h"

#include <assert.h>
#include <errno.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"

#define NS_PER_S         1000000000ull
#define NS_PER_MS        1000000ull
#define VIRTUAL_START_NS NS_PER_S
#define SPIN_ROUNDS      200 /* empty rounds before the first sleep */
#define CHORE_ROUNDS     8 /* ... and after nothing but timers */
#define NAP_NS           1000 /* ... of this length */
#define DROWSY_AFTER_NS  (100 * NS_PER_MS) /* idle for this long: sleep up to ... */
#define DROWSY_NAP_NS    NS_PER_MS /* ... this, where a source cannot wake us */
#define SKIPPED_NAP_NS   (100 * 1000) /* a ready descriptor whose callback is already running */
#define FDS_EVERY_ROUNDS \
	4 /* under load a look at the descriptors costs a syscall: not each round */
#define DEADLOCK_NS    (500 * NS_PER_MS)
#define EVENTS_MAX     64
#define TIMERS_INITIAL 256

/* One level of nesting (shard_wait() inside a callback starts another) for each kind of callback, so that a level
 * knows what the levels above it are in the middle of, and removals can reach into them. */
struct poller_frame {
	struct poller *cur, *next;
	struct poller_frame *up;
};
struct task_frame {
	struct task *cur;
	struct task_frame *up;
};
struct fd_frame {
	struct epoll_event ev[EVENTS_MAX];
	int n;
	struct fd_watch *cur;
	struct fd_frame *up;
};

struct shard {
	struct shard_cfg cfg;
	uint64_t now_ns;
	uint64_t random_state;
	uint64_t rounds;

	TAILQ_HEAD(, poller) pollers;
	struct poller_frame *poller_frames;
	unsigned int nbusy; /* pollers of kind POLLER_BUSY */

	TAILQ_HEAD(, task) tasks;
	uint32_t ntasks;
	struct task_frame *task_frames;

	struct timer **heap; /* 1-based binary heap by deadline */
	uint32_t ntimers, heap_cap;

	int epoll_fd, wake_fd;
	unsigned int nwatches;
	struct fd_frame *fd_frames;
	bool fd_skipped; /* the last look found only descriptors whose callbacks are running */

	struct message *fifo; /* taken out of inbox, oldest first; the shard's own */
	_Atomic(struct message *) inbox; /* newest first; any thread pushes */
	atomic_bool sleeping; /* a poster has to write to wake_fd */
	atomic_bool stop;

	uint32_t idle_rounds;
	bool chores; /* the last round had timers, and what they started, and nothing from outside */
	uint64_t idle_since_ns;
};

static uint64_t monotonic_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

static void nap(uint64_t ns)
{
	struct timespec ts = {.tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S)};

	nanosleep(&ts, NULL);
}

/* ---- life cycle ------------------------------------------------------------------------------ */

static int open_descriptors(struct shard *sh)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = NULL};

	sh->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (sh->epoll_fd < 0)
		return -errno;
	sh->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (sh->wake_fd < 0)
		return -errno;
	return epoll_ctl(sh->epoll_fd, EPOLL_CTL_ADD, sh->wake_fd, &ev) < 0 ? -errno : 0;
}

int shard_open(const struct shard_cfg *cfg, struct shard **out)
{
	struct shard *sh = calloc(1, sizeof(*sh));
	int rc = -ENOMEM;

	if (!sh)
		return -ENOMEM;
	sh->cfg = *cfg;
	sh->epoll_fd = sh->wake_fd = -1;
	sh->random_state = cfg->seed;
	TAILQ_INIT(&sh->pollers);
	TAILQ_INIT(&sh->tasks);
	sh->heap_cap = TIMERS_INITIAL;
	sh->heap = calloc(sh->heap_cap + 1, sizeof(sh->heap[0]));
	if (!sh->heap)
		goto fail;
	rc = open_descriptors(sh);
	if (rc < 0)
		goto fail;
	if (!cfg->seed && getrandom(&sh->random_state, sizeof(sh->random_state), 0) !=
				  sizeof(sh->random_state)) {
		rc = -EIO;
		goto fail;
	}
	sh->now_ns = cfg->clock == SHARD_CLOCK_VIRTUAL ? VIRTUAL_START_NS : monotonic_ns();
	sh->idle_since_ns = sh->now_ns;
	*out = sh;
	return 0;
fail:
	shard_close(sh);
	return rc;
}

static void messages_drop(struct message *m)
{
	while (m) {
		struct message *next = m->next;

		if (m->allocated)
			free(m);
		m = next;
	}
}

void shard_close(struct shard *sh)
{
	if (!sh)
		return;
	assert(TAILQ_EMPTY(&sh->pollers) && TAILQ_EMPTY(&sh->tasks));
	assert(!sh->ntimers && !sh->nwatches);
	messages_drop(sh->fifo);
	messages_drop(atomic_exchange(&sh->inbox, NULL));
	if (sh->epoll_fd >= 0)
		close(sh->epoll_fd);
	if (sh->wake_fd >= 0)
		close(sh->wake_fd);
	free(sh->heap);
	free(sh);
}

uint64_t shard_clock_ns(const struct shard *sh)
{
	return sh->cfg.clock == SHARD_CLOCK_MONOTONIC ? monotonic_ns() : sh->now_ns;
}

uint64_t shard_now_ns(const struct shard *sh)
{
	return sh->now_ns;
}

/* splitmix64: small, seedable, good enough for choices; nothing secret is drawn from it. */
uint64_t shard_random(struct shard *sh)
{
	uint64_t z = (sh->random_state += 0x9e3779b97f4a7c15ull);

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

unsigned int shard_id(const struct shard *sh)
{
	return sh->cfg.id;
}

bool shard_is_virtual(const struct shard *sh)
{
	return sh->cfg.clock == SHARD_CLOCK_VIRTUAL;
}

void shard_set_mode(struct shard *sh, enum shard_mode mode)
{
	sh->cfg.mode = mode;
}

/* ---- pollers --------------------------------------------------------------------------------- */

void poller_add(struct shard *sh, struct poller *p, int (*poll_fn)(void *arg), void *arg,
	enum poller_kind kind)
{
	assert(!p->linked);
	*p = (struct poller){.poll_fn = poll_fn, .arg = arg, .kind = kind, .linked = true};
	sh->nbusy += kind == POLLER_BUSY;
	TAILQ_INSERT_TAIL(&sh->pollers, p, link);
}

void poller_del(struct shard *sh, struct poller *p)
{
	if (!p->linked)
		return;
	for (struct poller_frame *f = sh->poller_frames; f; f = f->up) {
		if (f->next == p)
			f->next = TAILQ_NEXT(p, link);
		if (f->cur == p)
			f->cur = NULL;
	}
	TAILQ_REMOVE(&sh->pollers, p, link);
	sh->nbusy -= p->kind == POLLER_BUSY;
	p->linked = p->running = false;
}

static bool run_pollers(struct shard *sh)
{
	struct poller_frame f = {.next = TAILQ_FIRST(&sh->pollers), .up = sh->poller_frames};
	bool did = false;

	sh->poller_frames = &f;
	while ((f.cur = f.next)) {
		f.next = TAILQ_NEXT(f.cur, link);
		if (f.cur->running)
			continue;
		f.cur->running = true;
		did |= f.cur->poll_fn(f.cur->arg) > 0;
		if (f.cur) /* still added */
			f.cur->running = false;
	}
	sh->poller_frames = f.up;
	return did;
}

/* ---- timers ---------------------------------------------------------------------------------- */

static void heap_put(struct shard *sh, uint32_t pos, struct timer *t)
{
	sh->heap[pos] = t;
	t->heap_pos = pos;
}

static void heap_up(struct shard *sh, uint32_t pos, struct timer *t)
{
	while (pos > 1 && sh->heap[pos / 2]->deadline_ns > t->deadline_ns) {
		heap_put(sh, pos, sh->heap[pos / 2]);
		pos /= 2;
	}
	heap_put(sh, pos, t);
}

static void heap_down(struct shard *sh, uint32_t pos, struct timer *t)
{
	for (uint32_t child; (child = 2 * pos) <= sh->ntimers; pos = child) {
		if (child < sh->ntimers &&
			sh->heap[child + 1]->deadline_ns < sh->heap[child]->deadline_ns)
			child++;
		if (sh->heap[child]->deadline_ns >= t->deadline_ns)
			break;
		heap_put(sh, pos, sh->heap[child]);
	}
	heap_put(sh, pos, t);
}

/* Where t belongs after its deadline changed, or after it was put into another one's place. */
static void heap_place(struct shard *sh, uint32_t pos, struct timer *t)
{
	if (pos > 1 && sh->heap[pos / 2]->deadline_ns > t->deadline_ns)
		heap_up(sh, pos, t);
	else
		heap_down(sh, pos, t);
}

int timer_arm(struct shard *sh, struct timer *t, uint64_t deadline_ns, void (*fire_fn)(void *arg),
	void *arg)
{
	struct timer **heap;

	t->fire_fn = fire_fn;
	t->arg = arg;
	t->deadline_ns = deadline_ns;
	if (t->heap_pos) {
		heap_place(sh, t->heap_pos, t);
		return 0;
	}
	if (sh->ntimers == sh->heap_cap) {
		heap = realloc(sh->heap, (2 * (size_t)sh->heap_cap + 1) * sizeof(heap[0]));
		if (!heap)
			return -ENOMEM;
		sh->heap = heap;
		sh->heap_cap *= 2;
	}
	heap_up(sh, ++sh->ntimers, t);
	return 0;
}

void timer_disarm(struct shard *sh, struct timer *t)
{
	uint32_t pos = t->heap_pos;
	struct timer *last;

	if (!pos)
		return;
	t->heap_pos = 0;
	last = sh->heap[sh->ntimers--];
	if (last != t)
		heap_place(sh, pos, last);
}

static bool run_timers(struct shard *sh)
{
	/* One that re-arms itself for now or earlier waits for the next round. */
	uint32_t budget = sh->ntimers;
	bool did = false;

	while (budget-- && sh->ntimers && sh->heap[1]->deadline_ns <= sh->now_ns) {
		struct timer *t = sh->heap[1];

		timer_disarm(sh, t);
		t->fire_fn(t->arg);
		did = true;
	}
	return did;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

void shard_defer(struct shard *sh, struct task *t, void (*run_fn)(void *arg), void *arg)
{
	if (t->queued)
		return;
	*t = (struct task){.run_fn = run_fn, .arg = arg, .queued = true};
	TAILQ_INSERT_TAIL(&sh->tasks, t, link);
	sh->ntasks++;
}

void shard_undefer(struct shard *sh, struct task *t)
{
	if (!t->queued)
		return;
	TAILQ_REMOVE(&sh->tasks, t, link);
	sh->ntasks--;
	t->queued = false;
}

static bool task_is_running(const struct shard *sh, const struct task *t)
{
	for (const struct task_frame *f = sh->task_frames; f; f = f->up)
		if (f->cur == t)
			return true;
	return false;
}

/* *stuck: how many stay queued because an outer level is inside them. */
static bool run_tasks(struct shard *sh, uint32_t *stuck)
{
	struct task_frame f = {.up = sh->task_frames};
	uint32_t budget = sh->ntasks; /* what they defer runs in the next round */
	bool did = false;

	*stuck = 0;

	while (budget-- && !TAILQ_EMPTY(&sh->tasks)) {
		struct task *t = TAILQ_FIRST(&sh->tasks);

		TAILQ_REMOVE(&sh->tasks, t, link);
		if (f.up && task_is_running(sh, t)) {
			TAILQ_INSERT_TAIL(&sh->tasks, t, link);
			++*stuck;
			continue;
		}
		sh->ntasks--;
		t->queued = false;
		f.cur = t;
		sh->task_frames = &f;
		t->run_fn(t->arg);
		sh->task_frames = f.up;
		did = true;
	}
	return did;
}

/* ---- descriptors ----------------------------------------------------------------------------- */

int fd_watch_add(struct shard *sh, struct fd_watch *w, int fd, uint32_t events,
	void (*ready_fn)(void *arg, uint32_t events), void *arg)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	assert(!w->added);
	*w = (struct fd_watch){.fd = fd, .events = events, .ready_fn = ready_fn, .arg = arg};
	if (epoll_ctl(sh->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0)
		return -errno;
	w->added = true;
	sh->nwatches++;
	return 0;
}

int fd_watch_set(struct shard *sh, struct fd_watch *w, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = w};

	if (w->events == events)
		return 0;
	if (epoll_ctl(sh->epoll_fd, EPOLL_CTL_MOD, w->fd, &ev) < 0)
		return -errno;
	w->events = events;
	return 0;
}

void fd_watch_del(struct shard *sh, struct fd_watch *w)
{
	if (!w->added)
		return;
	epoll_ctl(sh->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
	for (struct fd_frame *f = sh->fd_frames; f; f = f->up) {
		if (f->cur == w)
			f->cur = NULL;
		for (int i = 0; i < f->n; i++)
			if (f->ev[i].data.ptr == w)
				f->ev[i].events = 0;
	}
	w->added = false;
	sh->nwatches--;
}

static bool watch_is_running(const struct shard *sh, const struct fd_watch *w)
{
	for (const struct fd_frame *f = sh->fd_frames; f; f = f->up)
		if (f->cur == w)
			return true;
	return false;
}

static int wait_fds(struct shard *sh, struct epoll_event *ev, uint64_t timeout_ns)
{
	struct timespec ts = {.tv_sec = (time_t)(timeout_ns / NS_PER_S),
		.tv_nsec = (long)(timeout_ns % NS_PER_S)};
	int n;

	if (!timeout_ns)
		return epoll_wait(sh->epoll_fd, ev, EVENTS_MAX, 0);
	n = epoll_pwait2(sh->epoll_fd, ev, EVENTS_MAX, timeout_ns == UINT64_MAX ? NULL : &ts, NULL);
	if (n < 0 && errno == ENOSYS)
		n = epoll_wait(sh->epoll_fd, ev, EVENTS_MAX,
			timeout_ns == UINT64_MAX
				? -1
				: (int)MIN(timeout_ns / NS_PER_MS + 1, (uint64_t)1000));
	return n;
}

static bool run_fds(struct shard *sh, uint64_t timeout_ns)
{
	struct fd_frame f = {.up = sh->fd_frames};
	bool did = false, skipped = false;
	uint64_t drain;

	f.n = wait_fds(sh, f.ev, timeout_ns);
	/* Whoever arms a timer in a callback after a sleep must not get one that is over already. */
	if (timeout_ns && sh->cfg.clock == SHARD_CLOCK_MONOTONIC)
		sh->now_ns = monotonic_ns();
	sh->fd_frames = &f;
	for (int i = 0; i < f.n; i++) {
		struct fd_watch *w = f.ev[i].data.ptr;

		if (!w) {
			while (read(sh->wake_fd, &drain, sizeof(drain)) > 0)
				;
			did = true;
			continue;
		}
		if (!f.ev[i].events)
			continue;
		if (f.up && watch_is_running(sh, w)) {
			skipped = true;
			continue;
		}
		f.cur = w;
		w->ready_fn(w->arg, f.ev[i].events);
		f.cur = NULL;
		did = true;
	}
	sh->fd_frames = f.up;
	sh->fd_skipped = skipped && !did;
	return did;
}

/* ---- messages -------------------------------------------------------------------------------- */

static void wake(struct shard *sh)
{
	uint64_t one = 1;
	ssize_t n = write(sh->wake_fd, &one, sizeof(one));

	(void)n; /* a full counter wakes as well */
}

static void push(struct shard *sh, struct message *m)
{
	m->next = atomic_load_explicit(&sh->inbox, memory_order_relaxed);
	while (!atomic_compare_exchange_weak(&sh->inbox, &m->next, m))
		;
	/* Either we see it sleeping or it sees the message before it sleeps (both are sequentially consistent). */
	if (atomic_load(&sh->sleeping))
		wake(sh);
}

int shard_post(struct shard *sh, void (*fn)(void *arg), void *arg)
{
	struct message *m = malloc(sizeof(*m));

	if (!m)
		return -ENOMEM;
	*m = (struct message){.fn = fn, .arg = arg, .allocated = true};
	push(sh, m);
	return 0;
}

void shard_post_msg(struct shard *sh, struct message *m, void (*fn)(void *arg), void *arg)
{
	*m = (struct message){.fn = fn, .arg = arg};
	push(sh, m);
}

struct call {
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void call_run(void *arg)
{
	struct call *c = arg;

	c->fn(c->arg);
	sem_post(&c->done);
}

int shard_call(struct shard *sh, void (*fn)(void *arg), void *arg)
{
	struct call c = {.fn = fn, .arg = arg};
	int rc;

	sem_init(&c.done, 0, 0);
	rc = shard_post(sh, call_run, &c);
	if (rc == 0)
		while (sem_wait(&c.done) < 0 && errno == EINTR)
			;
	sem_destroy(&c.done);
	return rc;
}

static void take_messages(struct shard *sh)
{
	struct message *m = atomic_exchange(&sh->inbox, NULL), *fifo = NULL, **tail = &sh->fifo;

	while (m) {
		struct message *next = m->next;

		m->next = fifo;
		fifo = m;
		m = next;
	}
	while (*tail)
		tail = &(*tail)->next;
	*tail = fifo;
}

static bool run_messages(struct shard *sh)
{
	bool did = false;

	if (atomic_load_explicit(&sh->inbox, memory_order_relaxed))
		take_messages(sh);
	while (sh->fifo) {
		struct message *m = sh->fifo;
		bool allocated = m->allocated;

		sh->fifo = m->next;
		m->fn(m->arg);
		if (allocated) /* else it is the owner's again */
			free(m);
		did = true;
	}
	return did;
}

/* ---- the loop -------------------------------------------------------------------------------- */

static bool jump_to_next_timer(struct shard *sh)
{
	if (!sh->ntimers)
		return false;
	sh->now_ns = MAX(sh->now_ns, sh->heap[1]->deadline_ns);
	return run_timers(sh);
}

bool shard_run_once(struct shard *sh)
{
	bool did, outside;
	uint32_t stuck;

	if (sh->cfg.clock == SHARD_CLOCK_MONOTONIC)
		sh->now_ns = monotonic_ns();
	sh->rounds++;
	outside = run_messages(sh);
	did = run_timers(sh);
	did |= run_tasks(sh, &stuck);
	outside |= run_pollers(sh);
	did |= outside;
	if (sh->nwatches && (!did || sh->rounds % FDS_EVERY_ROUNDS == 0))
		outside |= run_fds(sh, 0);
	did |= outside;
	sh->chores = did && !outside;
	did |= sh->ntasks > stuck; /* deferred by whoever reported nothing done */
	if (!did && sh->cfg.clock == SHARD_CLOCK_VIRTUAL)
		did = jump_to_next_timer(sh);
	return did;
}

/* Blocks on descriptors, messages and the next timer, max_ns at most. */
static bool sleep_on_fds(struct shard *sh, uint64_t max_ns)
{
	uint64_t timeout_ns = max_ns, now_ns;
	bool did = false;

	if (sh->ntimers && sh->cfg.clock == SHARD_CLOCK_MONOTONIC) {
		now_ns = monotonic_ns();
		if (sh->heap[1]->deadline_ns <= now_ns)
			return false;
		timeout_ns = MIN(timeout_ns, sh->heap[1]->deadline_ns - now_ns);
	}
	if (sh->ntasks) /* stuck ones; counted loosely, so look again soon */
		timeout_ns = MIN(timeout_ns, DROWSY_NAP_NS);
	atomic_store(&sh->sleeping, true);
	if (!atomic_load(&sh->inbox) && !atomic_load(&sh->stop))
		did = run_fds(sh, timeout_ns);
	atomic_store(&sh->sleeping, false);
	if (sh->fd_skipped)
		nap(SKIPPED_NAP_NS);
	return did;
}

/* What the mode says about a round that found nothing to do. */
static void idle(struct shard *sh)
{
	if (sh->idle_rounds++ == 0)
		sh->idle_since_ns = sh->now_ns;
	if (sh->cfg.mode != SHARD_INTERRUPT && sh->idle_rounds < SPIN_ROUNDS)
		return;
	if (sh->cfg.mode == SHARD_POLLING) {
		nap(NAP_NS);
		return;
	}
	if (!sh->nbusy)
		sleep_on_fds(sh, UINT64_MAX);
	else if (sh->cfg.mode == SHARD_INTERRUPT ||
		 sh->now_ns - sh->idle_since_ns >= DROWSY_AFTER_NS)
		sleep_on_fds(sh, DROWSY_NAP_NS);
	else
		nap(NAP_NS);
}

/* After a round under virtual time that found nothing: only another thread could still make a difference. */
static bool is_deadlocked(struct shard *sh)
{
	return !sh->ntimers && !sh->nbusy && !sleep_on_fds(sh, DEADLOCK_NS) && !shard_run_once(sh);
}

static void round_or_idle(struct shard *sh)
{
	if (!shard_run_once(sh))
		idle(sh);
	else if (!sh->chores)
		sh->idle_rounds = 0;
	else /* nobody waits: back to sleep soon, or as drowsy as before */
		sh->idle_rounds = MIN(sh->idle_rounds, SPIN_ROUNDS - CHORE_ROUNDS);
}

void shard_run(struct shard *sh)
{
	/* Else the kernel makes 50 us of each short nap. */
	prctl(PR_SET_TIMERSLACK, 1);
	while (!atomic_load_explicit(&sh->stop, memory_order_relaxed))
		round_or_idle(sh);
	atomic_store(&sh->stop, false);
}

void shard_stop(struct shard *sh)
{
	atomic_store(&sh->stop, true);
	wake(sh);
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

int shard_wait(struct shard *sh, bool (*cond)(void *arg), void *arg, uint64_t timeout_ns)
{
	struct timer timeout = {0};
	bool expired = false;
	int rc = 0;

	if (timeout_ns) {
		if (sh->cfg.clock == SHARD_CLOCK_MONOTONIC)
			sh->now_ns = monotonic_ns();
		rc = timer_arm(sh, &timeout, sh->now_ns + timeout_ns, set_true, &expired);
		if (rc < 0)
			return rc;
	}
	while (!cond(arg)) {
		if (expired) {
			rc = -ETIMEDOUT;
			break;
		}
		if (sh->cfg.clock == SHARD_CLOCK_MONOTONIC) {
			round_or_idle(sh);
		} else if (!shard_run_once(sh) && !cond(arg) && is_deadlocked(sh)) {
			rc = cond(arg) ? 0 : -EDEADLK;
			break;
		}
	}
	timer_disarm(sh, &timeout);
	return rc;
}
