/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A shard: one thread's run-to-completion loop, and everything it drives: pollers, timers, deferred
 * tasks, file descriptors, messages from other threads.
 *
 * Time is injected: with a virtual clock the loop never sleeps; when nothing is left to do it jumps to the
 * next timer, so that the storage floors run deterministically in tests, with exactly the shipped objects.
 *
 * Thread: everything here is called on the shard's own thread, except shard_post() and shard_stop().
 * Ownership: pollers, timers, tasks and watches are embedded in their owner's structs; the owner removes
 * them before it frees them. Callbacks may add and remove any of them, themselves included.
 * Errors: 0 or -errno.
 *
 *	struct shard *sh;
 *	shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &sh);
 *	poller_add(sh, &ctx->poller, ctx_poll, ctx, POLLER_SLEEPS);
 *	shard_run(sh);
 */
#ifndef DPU_CORE_SHARD_H
#define DPU_CORE_SHARD_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

struct shard;

/* Where the shard's time comes from: monotonic nanoseconds. */
enum shard_clock { SHARD_CLOCK_MONOTONIC, SHARD_CLOCK_VIRTUAL };

/* How it waits for work, poll (200): always polling (with a short back-off), polling while there is
 * work and sleeping on descriptors and timers when there is none, or sleeping at once. */
enum shard_mode { SHARD_POLLING, SHARD_ADAPTIVE, SHARD_INTERRUPT };

struct shard_cfg {
	enum shard_clock clock;
	enum shard_mode mode;
	uint64_t seed; /* of shard_random(); 0: from the kernel */
	unsigned int id;
};

int shard_open(const struct shard_cfg *cfg, struct shard **out);
void shard_close(
	struct shard *sh); /* every poller, timer, task and watch has been removed before */

uint64_t shard_now_ns(const struct shard *sh); /* read once per round of the loop */
/* The clock itself, for what happens within a round; costs a look at it. Under virtual time the same as shard_now_ns(). */
uint64_t shard_clock_ns(const struct shard *sh);
uint64_t shard_random(struct shard *sh);
unsigned int shard_id(const struct shard *sh);
bool shard_is_virtual(const struct shard *sh);
void shard_set_mode(struct shard *sh, enum shard_mode mode);

/* One round: messages, due timers, tasks, pollers, descriptors. True when any of them did something. Never sleeps. */
bool shard_run_once(struct shard *sh);
/* Rounds until shard_stop(); waits as the mode says between idle rounds. */
void shard_run(struct shard *sh);
void shard_stop(struct shard *sh); /* any thread, also from a signal handler */

/*
 * Runs rounds until cond(arg) is true: for control work (opening a pool, creating a volume) that is written
 * straight down. The poller, task or message this is called from is not entered again meanwhile; all others run.
 * Not for the data path. -ETIMEDOUT after timeout_ns (0: never); -EDEADLK under virtual time
 * when nothing is left that could make it true.
 */
int shard_wait(struct shard *sh, bool (*cond)(void *arg), void *arg, uint64_t timeout_ns);

/* ---- pollers: called every round ----------------------------------------------------------------- */
enum poller_kind {
	POLLER_BUSY, /* its source cannot wake a sleeper (memif, a ring): sleeps are 1 ms at most while it is there */
	POLLER_SLEEPS, /* its source wakes the shard by a descriptor or a message, or follows from other work */
};

struct poller {
	int (*poll_fn)(void *arg); /* returns how much it did, 0 for nothing */
	void *arg;
	enum poller_kind kind;
	bool linked, running;
	TAILQ_ENTRY(poller) link;
};

void poller_add(struct shard *sh, struct poller *p, int (*poll_fn)(void *arg), void *arg,
	enum poller_kind kind);
void poller_del(struct shard *sh, struct poller *p); /* no effect when it is not added */

/* ---- timers: once, at or after a deadline in shard_now_ns() time ------------------------------------ */
struct timer {
	void (*fire_fn)(void *arg);
	void *arg;
	uint64_t deadline_ns;
	uint32_t heap_pos; /* 0: not armed */
};

/* (Re-)arms; the timer must have been zeroed once. */
int timer_arm(struct shard *sh, struct timer *t, uint64_t deadline_ns, void (*fire_fn)(void *arg),
	void *arg);
void timer_disarm(struct shard *sh, struct timer *t);

/* ---- tasks: once, later in this round or in the next; how completions avoid running inside submit ------- */
struct task {
	void (*run_fn)(void *arg);
	void *arg;
	bool queued;
	TAILQ_ENTRY(task) link;
};

void shard_defer(struct shard *sh, struct task *t, void (*run_fn)(void *arg),
	void *arg); /* no effect when queued */
void shard_undefer(struct shard *sh, struct task *t);

/* ---- descriptors (epoll, level-triggered) ------------------------------------------------------------- */
struct fd_watch {
	int fd;
	uint32_t events; /* EPOLLIN, EPOLLOUT */
	void (*ready_fn)(void *arg, uint32_t events);
	void *arg;
	bool added;
};

int fd_watch_add(struct shard *sh, struct fd_watch *w, int fd, uint32_t events,
	void (*ready_fn)(void *arg, uint32_t events), void *arg);
int fd_watch_set(struct shard *sh, struct fd_watch *w, uint32_t events);
void fd_watch_del(struct shard *sh, struct fd_watch *w);

/* ---- messages: run fn(arg) on the shard's thread, in order; any thread; wakes a sleeper ----------------- */
int shard_post(struct shard *sh, void (*fn)(void *arg), void *arg); /* -ENOMEM */
/* The same in memory of the caller's, which is the shard's until fn runs (and may be posted again from there on). Nothing is allocated. */
struct message {
	struct message *next;
	void (*fn)(void *arg);
	void *arg;
	bool allocated; /* by shard_post() */
};
void shard_post_msg(struct shard *sh, struct message *m, void (*fn)(void *arg), void *arg);
/* The same, and waits until it has run. Not from the shard's own thread, nor once the shard has stopped for good. */
int shard_call(struct shard *sh, void (*fn)(void *arg), void *arg);

#endif
