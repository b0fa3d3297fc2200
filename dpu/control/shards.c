/* SPDX-License-Identifier: BSD-3-Clause */
/* The threads of a card: how they start and end, and how others have something done on them. */
#include "dpu/control/shard_move.h"
#include "dpu/control/shards_priv.h"

#include "common/base/log.h"
#include "common/base/util.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <uuid/uuid.h>

#define NS_PER_S 1000000000ull

/* ---- what cards tell each other ------------------------------------------------------------------------------------ */

struct failure {
	struct card *to;
	char name[64];
	enum pool_cause cause;
};

static void failure_arrives(void *arg)
{
	struct failure *f = arg;

	card_fail_flash(f->to, f->name, f->cause);
	free(f);
}

static void failure_post(struct member *to, const char *name, enum pool_cause cause)
{
	struct failure *f = calloc(1, sizeof(*f));

	if (f) {
		*f = (struct failure){.to = to->card, .cause = cause};
		snprintf(f->name, sizeof(f->name), "%s", name);
	}
	if (!f || shard_post(to->sh, failure_arrives, f) < 0) {
		log_error("out of memory: shard %u is not told that flash %s failed", to->index,
			name);
		free(f);
	}
}

static void flash_failed(void *arg, unsigned int index, const char *name, enum pool_cause cause)
{
	struct shards *s = arg;

	pthread_mutex_lock(&s->lock);
	for (unsigned int i = 0; !s->closing && i < atomic_load(&s->count); i++)
		if (i != index)
			failure_post(&s->members[i], name, cause);
	pthread_mutex_unlock(&s->lock);
}

static const struct card_peers_ops peers = {
	.owns_vm = assign_owns, .shard_of_vm = assign_of_vm, .flash_failed = flash_failed};

/* ---- a thread ------------------------------------------------------------------------------------------------------- */

static void nothing(void *arg)
{
}

/* Ports and lwIP stay with shard 0; sockets are every shard's own. */
static struct card_cfg cfg_of(const struct member *m)
{
	struct card_cfg cfg = m->s->cfg.card;
	unsigned int n = 0;

	memset(cfg.access, 0, sizeof(cfg.access));
	for (int i = 0; i < CARD_ACCESS_MAX && m->s->cfg.card.access[i].ops; i++)
		if (m->s->cfg.card.access[i].ops == &access_sockets)
			cfg.access[n++] = (struct card_access){&access_sockets, m->sh};
	cfg.shard = m->sh;
	cfg.index = m->index;
	cfg.first = m->s->members[0].card;
	cfg.peers = &peers;
	cfg.peers_arg = m->s;
	return cfg;
}

static int member_open(struct member *m)
{
	char dir[sizeof(m->s->state_dir) + 16];
	struct card_cfg cfg;
	int rc = cores_pin(m, &m->e);

	if (rc < 0)
		return rc;
	if (m->s->cfg.thread_begin_fn)
		m->s->cfg.thread_begin_fn();
	rc = shard_open(&(struct shard_cfg){.mode = m->s->cfg.card.mode, .id = m->index}, &m->sh);
	if (rc < 0)
		return err_set(&m->e, rc, "shard", NULL, "does not start: %s", strerror(-rc));
	cfg = cfg_of(m);
	snprintf(dir, sizeof(dir), "%s/shard%u", m->s->state_dir, m->index);
	cfg.state_dir = dir;
	return card_open(&cfg, &m->card, &m->e);
}

static void member_close(struct member *m)
{
	if (m->card) {
		shard_run_once(m->sh); /* what was posted before it stopped */
		card_close(m->card);
	}
	if (m->s->cfg.thread_end_fn)
		m->s->cfg.thread_end_fn();
}

/* Whoever stopped it or posted to it may not be quite done with its loop: that goes when nobody can be. */
static void member_join(struct member *m)
{
	pthread_join(m->thread, NULL);
	if (m->sh)
		shard_close(m->sh);
	m->sh = NULL;
	m->card = NULL;
}

static void *member_main(void *arg)
{
	struct member *m = arg;
	bool up;

	snprintf(m->name, sizeof(m->name), "shard%u", m->index);
	pthread_setname_np(pthread_self(), m->name);
	log_thread(m->name);
	clock_gettime(CLOCK_MONOTONIC, &m->since);
	m->rc = member_open(m);
	up = m->rc == 0;
	if (!up)
		member_close(m);
	sem_post(&m->up);
	if (!up)
		return NULL;
	shard_run(m->sh);
	member_close(m);
	atomic_store(&m->ended, true);
	shard_post(m->s->members[0].sh, nothing, NULL); /* wakes shards_close() */
	return NULL;
}

/* Signals are the first thread's. */
static int thread_create(struct member *m)
{
	sigset_t all, was;
	int rc;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &was);
	rc = pthread_create(&m->thread, NULL, member_main, m);
	pthread_sigmask(SIG_SETMASK, &was, NULL);
	return -rc;
}

static int member_start(struct member *m, struct err *e)
{
	int rc;

	*m = (struct member){.s = m->s, .index = m->index, .cpu = -1};
	sem_init(&m->up, 0, 0);
	rc = thread_create(m);
	if (rc < 0) {
		err_set(e, rc, "shard", NULL, "thread: %s", strerror(-rc));
	} else {
		while (sem_wait(&m->up) < 0 && errno == EINTR)
			;
		rc = m->rc;
		if (rc < 0) {
			*e = m->e;
			member_join(m);
		}
	}
	sem_destroy(&m->up);
	return rc;
}

/* ---- having something done on them ---------------------------------------------------------------------------------- */

struct job {
	struct card *card;
	int (*fn)(struct card *c, void *arg);
	void *arg;
	struct shard *wake; /* shard 0 waits in its loop; NULL: done is waited for */
	sem_t *done;
	atomic_bool ended;
	int rc;
};

static void job_run(void *arg)
{
	struct job *j = arg;
	struct shard *to_wake = j->wake;

	j->rc = j->fn(j->card, j->arg);
	if (j->done) {
		sem_post(j->done);
		return;
	}
	atomic_store(&j->ended, true); /* from here on it is not ours */
	shard_post(to_wake, nothing, NULL);
}

static void wait_sem(sem_t *sem)
{
	while (sem_wait(sem) < 0 && errno == EINTR)
		;
}

struct jobs {
	struct job j[SHARDS_MAX];
	unsigned int n;
};

static bool others_ended(void *arg)
{
	struct jobs *js = arg;

	for (unsigned int i = 1; i < js->n; i++)
		if (!atomic_load(&js->j[i].ended))
			return false;
	return true;
}

static int first_error(const struct jobs *js)
{
	for (unsigned int i = 0; i < js->n; i++)
		if (js->j[i].rc < 0)
			return js->j[i].rc;
	return 0;
}

/* Once it is posted, its fields are the shard's until it has ended. */
static bool job_post(struct shards *s, unsigned int i, struct job *j)
{
	int rc = shard_post(s->members[i].sh, job_run, j);

	if (rc == 0)
		return true;
	j->rc = rc;
	atomic_store(&j->ended, true);
	return false;
}

/* On shard 0's thread: its own is done here, and its loop goes on until the others have ended. */
static void run_here(struct shards *s, struct jobs *js)
{
	for (unsigned int i = 1; i < js->n; i++) {
		js->j[i].wake = s->members[0].sh;
		job_post(s, i, &js->j[i]);
	}
	js->j[0].rc = js->j[0].fn(js->j[0].card, js->j[0].arg);
	if (js->n > 1)
		shard_wait(s->members[0].sh, others_ended, js, 0);
}

static void run_from_outside(struct shards *s, struct jobs *js)
{
	unsigned int posted = 0;
	sem_t done;

	sem_init(&done, 0, 0);
	for (unsigned int i = 0; i < js->n; i++) {
		js->j[i].done = &done;
		posted += job_post(s, i, &js->j[i]);
	}
	while (posted--)
		wait_sem(&done);
	sem_destroy(&done);
}

int shards_run(
	struct shards *s, unsigned int shard, int (*fn)(struct card *c, void *arg), void *arg)
{
	sem_t done;
	struct job j = {.card = s->members[shard].card, .fn = fn, .arg = arg, .done = &done};

	sem_init(&done, 0, 0);
	if (job_post(s, shard, &j))
		wait_sem(&done);
	sem_destroy(&done);
	return j.rc;
}

int shards_run_all(struct shards *s, int (*fn)(struct card *c, void *arg), void *const *args)
{
	struct jobs js = {.n = atomic_load(&s->count)};

	for (unsigned int i = 0; i < js.n; i++)
		js.j[i] = (struct job){
			.card = s->members[i].card, .fn = fn, .arg = args ? args[i] : NULL};
	if (pthread_equal(pthread_self(), s->members[0].thread))
		run_here(s, &js);
	else
		run_from_outside(s, &js);
	return first_error(&js);
}

/* ---- how many ------------------------------------------------------------------------------------------------------- */

struct new_count {
	unsigned int count;
	const uint8_t *uuid;
	struct tables_doc *doc; /* shard 0's: one that slept has an older one */
	struct err e;
};

static int take_count(struct card *c, void *arg)
{
	const struct new_count *n = arg;

	card_set_count(c, n->count, n->uuid);
	return 0;
}

static int get_tables(struct card *c, void *arg)
{
	((struct new_count *)arg)->doc = card_tables(c);
	return 0;
}

static int wake_up(struct card *c, void *arg)
{
	struct new_count *n = arg;

	return card_wake(c, n->doc, &n->e);
}

static int go_to_sleep(struct card *c, void *arg)
{
	card_sleep(c);
	return 0;
}

/* Those that are needed and not there. Nobody knows of them yet. */
static int members_come(struct shards *s, unsigned int count, struct err *e)
{
	int rc = 0;

	for (unsigned int i = 1; rc == 0 && i < count; i++) {
		s->members[i].s = s;
		s->members[i].index = i;
		if (!s->members[i].card)
			rc = member_start(&s->members[i], e);
	}
	return rc;
}

static int check_resize(struct shards *s, unsigned int count, struct err *e)
{
	if (count < 1 || count > SHARDS_MAX)
		return err_set(
			e, -EINVAL, "pool", "shards", "%u: allowed: 1 to %u", count, SHARDS_MAX);
	for (unsigned int i = 0; i < shards_count(s); i++)
		if (card_has_pool(shards_card(s, i)))
			return err_set(e, -EBUSY, "pool", "shards",
				"shard %u has an open pool: it has its number of shards for ever",
				i);
	return 0;
}

int shards_resize(struct shards *s, unsigned int count, struct err *e)
{
	unsigned int was = shards_count(s);
	struct new_count n = {.count = count, .uuid = s->uuid};
	int rc = check_resize(s, count, e);

	if (rc == 0)
		rc = members_come(s, count, e);
	if (rc == 0)
		rc = assign_resize(s, count, e);
	if (rc < 0)
		return rc;
	memset(s->uuid, 0, sizeof(s->uuid));
	if (count > 1)
		uuid_generate(s->uuid);
	shards_run(s, 0, get_tables, &n);
	for (unsigned int i = MAX(was, count); i-- > 0;) {
		shards_run(s, i, take_count, &n);
		if (i >= count)
			shards_run(s, i, go_to_sleep, NULL);
		else if (i >= was && rc == 0)
			rc = shards_run(s, i, wake_up, &n);
	}
	tables_doc_put(n.doc);
	atomic_store(&s->count, count);
	if (rc < 0)
		*e = n.e;
	if (rc == 0)
		rc = shards_place_vms(s, NULL, e);
	shards_vms_again(s);
	return rc;
}

unsigned int shards_count(const struct shards *s)
{
	return atomic_load(&s->count);
}

unsigned int shards_default(const struct shards *s)
{
	return s->cfg.count ? s->cfg.count : 1;
}

bool shards_are_up(const struct shards *s)
{
	for (unsigned int i = 0; i < shards_count(s); i++)
		if (!card_is_up(shards_card(s, i)))
			return false;
	return true;
}

struct card *shards_card(const struct shards *s, unsigned int shard)
{
	return s->members[shard].card;
}

void shards_time(const struct shards *s, unsigned int shard, uint64_t *cpu_ns, uint64_t *uptime_ns)
{
	const struct member *m = &s->members[shard];
	struct timespec now, cpu;
	clockid_t clock;

	*cpu_ns = *uptime_ns = 0;
	if (pthread_getcpuclockid(m->thread, &clock) || clock_gettime(clock, &cpu) < 0)
		return;
	clock_gettime(CLOCK_MONOTONIC, &now);
	*cpu_ns = (uint64_t)cpu.tv_sec * NS_PER_S + (uint64_t)cpu.tv_nsec;
	*uptime_ns = (uint64_t)(now.tv_sec - m->since.tv_sec) * NS_PER_S + (uint64_t)now.tv_nsec -
		     (uint64_t)m->since.tv_nsec;
}

/* ---- all of them ----------------------------------------------------------------------------------------------------- */

static int first_open(struct shards *s, struct err *e)
{
	struct member *m = &s->members[0];
	struct card_cfg cfg = s->cfg.card;
	int rc = cores_pin(m, e);

	cfg.index = 0;
	cfg.first = NULL;
	cfg.peers = &peers;
	cfg.peers_arg = s;
	m->thread = pthread_self();
	m->sh = cfg.shard;
	clock_gettime(CLOCK_MONOTONIC, &m->since);
	return rc < 0 ? rc : card_open(&cfg, &m->card, e);
}

static int others_open(struct shards *s, struct err *e)
{
	unsigned int count = s->assign.count;
	int rc = members_come(s, count, e);

	for (unsigned int i = 0; rc == 0 && i < count; i++)
		card_set_count(s->members[i].card, count, s->uuid); /* they do nothing yet */
	if (rc == 0)
		atomic_store(&s->count, count);
	return rc;
}

int shards_open(const struct shards_cfg *cfg, struct shards **out, struct err *e)
{
	struct shards *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "shard", NULL, "out of memory");
	s->cfg = *cfg;
	s->assign.count = 1;
	s->members[0].s = s;
	atomic_store(&s->count, 1);
	pthread_mutex_init(&s->lock, NULL);
	if (cfg->count > SHARDS_MAX)
		rc = err_set(e, -EINVAL, "option --shards", NULL, "%u: allowed: 1 to %u",
			cfg->count, SHARDS_MAX);
	else if (snprintf(s->state_dir, sizeof(s->state_dir), "%s", cfg->card.state_dir) >=
		 (int)sizeof(s->state_dir))
		rc = err_set(e, -ENAMETOOLONG, "state directory", "path", "at most %zu bytes",
			sizeof(s->state_dir) - 1);
	else
		rc = cores_take(s, e);
	if (rc == 0)
		rc = first_open(s, e);
	if (rc == 0)
		rc = assign_recall(s, e);
	if (rc == 0)
		rc = others_open(s, e);
	if (rc < 0) {
		shards_close(s);
		return rc;
	}
	*out = s;
	return 0;
}

static int start_pool(struct card *c, void *arg)
{
	card_start_pool(c);
	return 0;
}

static int start_vms(struct card *c, void *arg)
{
	return card_start_vms(c, arg);
}

int shards_start(struct shards *s, struct err *e)
{
	struct err errs[SHARDS_MAX] = {0};
	void *args[SHARDS_MAX];
	int rc;

	for (unsigned int i = 0; i < SHARDS_MAX; i++)
		args[i] = &errs[i];
	shards_run_all(s, start_pool, NULL);
	rc = shards_place_vms(s, NULL, e);
	if (rc < 0)
		return rc;
	rc = shards_run_all(s, start_vms, args);
	for (unsigned int i = 0; rc < 0 && i < SHARDS_MAX; i++)
		if (errs[i].code) {
			*e = errs[i];
			break;
		}
	return rc;
}

static bool all_ended(void *arg)
{
	const struct shards *s = arg;

	for (unsigned int i = 1; i < SHARDS_MAX; i++)
		if (s->members[i].card && !atomic_load(&s->members[i].ended))
			return false;
	return true;
}

void shards_close(struct shards *s)
{
	if (!s)
		return;
	/* Those on their way need both ends. */
	if (s->members[0].card)
		shards_run_all(s, move_leave, NULL);
	pthread_mutex_lock(&s->lock);
	s->closing = true;
	pthread_mutex_unlock(&s->lock);
	for (unsigned int i = 1; i < SHARDS_MAX; i++)
		if (s->members[i].card)
			shard_stop(s->members[i].sh);
	/* Shard 0's loop goes on: somebody whom they wait for may wait for it. */
	if (!all_ended(s))
		shard_wait(s->members[0].sh, all_ended, s, 0);
	for (unsigned int i = 1; i < SHARDS_MAX; i++)
		if (s->members[i].card)
			member_join(&s->members[i]);
	if (s->members[0].card) {
		shard_run_once(s->members[0].sh); /* what they told it */
		card_close(s->members[0].card);
	}
	assign_clear(&s->assign);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
