/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/base/util.h"
#include "dpu/flash/remote_priv.h"

#define GHOSTS_WAIT_NS 1000000000ull /* how long an opening waits for those of an earlier one */
#define WARM_NS        60000000000ull

/* ---- who uses what, in all shards ------------------------------------------------------------------------------ */

/* A closed device whose writes may still be carried out. */
struct haunted {
	char subnqn[NVME_NQN_FIELD];
	uint32_t nsid;
	struct slice slice;
	uint64_t until_ns; /* CLOCK_MONOTONIC: of no shard */
	LIST_ENTRY(haunted) link;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, remote_use) uses = LIST_HEAD_INITIALIZER(uses);
static LIST_HEAD(, haunted) haunted = LIST_HEAD_INITIALIZER(haunted);

static uint64_t clock_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Forgets those that are over. Under the lock. */
static uint64_t ghosts_left_ns(const struct remote_use *u)
{
	uint64_t now = clock_ns(), left = 0;
	struct haunted *h, *next;

	for (h = LIST_FIRST(&haunted); h; h = next) {
		next = LIST_NEXT(h, link);
		if (h->until_ns <= now) {
			LIST_REMOVE(h, link);
			free(h);
		} else if (h->nsid == u->nsid && !strcmp(h->subnqn, u->subnqn) &&
			   slice_clashes(&h->slice, &u->slice) && h->until_ns - now > left) {
			left = h->until_ns - now;
		}
	}
	return left;
}

static bool is_taken(const struct remote_use *u)
{
	const struct remote_use *o;

	LIST_FOREACH (o, &uses, link)
		if (o != u && o->exclusive && u->exclusive && o->nsid == u->nsid &&
			!strcmp(o->subnqn, u->subnqn) && slice_clashes(&o->slice, &u->slice))
			return true;
	return false;
}

struct wanted {
	struct remote_use *u;
	uint64_t ghosts_ns;
	bool taken;
};

/* True when it is settled: ours, or another's. */
static bool try_use(void *arg)
{
	struct wanted *w = arg;

	pthread_mutex_lock(&lock);
	w->taken = is_taken(w->u);
	w->ghosts_ns = ghosts_left_ns(w->u);
	if (!w->taken && !w->ghosts_ns)
		LIST_INSERT_HEAD(&uses, w->u, link);
	pthread_mutex_unlock(&lock);
	return w->taken || !w->ghosts_ns;
}

int remote_use_begin(struct shard *sh, struct remote_use *u, const char *where, struct err *err)
{
	struct wanted w = {.u = u};

	if (!try_use(&w) && shard_wait(sh, try_use, &w, MIN(w.ghosts_ns, GHOSTS_WAIT_NS)) < 0)
		(void)try_use(&w);
	if (w.taken)
		return err_set(err, -EBUSY, where, NULL, "in use by another owner");
	if (w.ghosts_ns)
		return err_set(err, -EBUSY, where, NULL,
			"was given up with writes in flight, which the peer may still carry out: "
			"try again in %llu ms",
			(unsigned long long)(w.ghosts_ns / 1000000 + 1));
	return 0;
}

int remote_use_settle(struct remote_use *u, const char *where, uint64_t size_bytes, struct err *err)
{
	struct slice s = u->slice;
	int rc = slice_settle(&s, where, size_bytes, err);
	bool taken;

	if (rc < 0)
		return rc;
	pthread_mutex_lock(&lock);
	u->slice = s;
	taken = is_taken(u);
	pthread_mutex_unlock(&lock);
	return taken ? err_set(err, -EBUSY, where, "slices", "is open in slices of another size")
		     : 0;
}

void remote_use_end(struct remote_use *u, uint64_t ghosts_ns)
{
	struct haunted *h = ghosts_ns ? calloc(1, sizeof(*h)) : NULL;

	pthread_mutex_lock(&lock);
	LIST_REMOVE(u, link);
	if (h) {
		memcpy(h->subnqn, u->subnqn, sizeof(h->subnqn));
		h->nsid = u->nsid;
		h->slice = u->slice;
		h->until_ns = clock_ns() + ghosts_ns;
		LIST_INSERT_HEAD(&haunted, h, link);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- warmed ---------------------------------------------------------------------------------------------------------- */

struct warm {
	struct shard *sh;
	char transport[8], where[FLASH_ADDRESS_MAX];
	struct nvmf_dev *dev;
	uint64_t since_ns;
	struct timer expire;
	LIST_ENTRY(warm) link;
};
static LIST_HEAD(, warm) warmed = LIST_HEAD_INITIALIZER(warmed);

static struct warm *warm_find(struct shard *sh, const char *transport, const char *where)
{
	struct warm *w;

	pthread_mutex_lock(&lock);
	LIST_FOREACH (w, &warmed, link)
		if (w->sh == sh && !strcmp(w->transport, transport) && !strcmp(w->where, where))
			break;
	pthread_mutex_unlock(&lock);
	return w;
}

/* What was warmed belongs to the caller then. */
static struct nvmf_dev *warm_remove(struct warm *w)
{
	struct nvmf_dev *dev = w->dev;

	pthread_mutex_lock(&lock);
	LIST_REMOVE(w, link);
	pthread_mutex_unlock(&lock);
	timer_disarm(w->sh, &w->expire);
	free(w);
	return dev;
}

static void warm_expire(void *arg)
{
	nvmf_dev_close(warm_remove(arg));
}

void remote_warm(
	struct shard *sh, const char *transport, const char *where, const struct flash_opts *opts)
{
	struct nvme_address a;
	struct warm *w;

	if (warm_find(sh, transport, where) || strlen(where) >= sizeof(w->where) ||
		nvme_address_parse_rest(!strcmp(transport, "rdma"), where, &a, where, NULL, NULL) <
			0)
		return;
	w = calloc(1, sizeof(*w));
	if (!w)
		return;
	w->sh = sh;
	w->since_ns = shard_now_ns(sh);
	snprintf(w->transport, sizeof(w->transport), "%s", transport);
	snprintf(w->where, sizeof(w->where), "%s", where);
	if (remote_connect(sh, transport, &a, opts, &w->dev, NULL) < 0) {
		free(w);
		return;
	}
	if (timer_arm(sh, &w->expire, w->since_ns + WARM_NS, warm_expire, w) < 0) {
		nvmf_dev_close(w->dev);
		free(w);
		return;
	}
	pthread_mutex_lock(&lock);
	LIST_INSERT_HEAD(&warmed, w, link);
	pthread_mutex_unlock(&lock);
}

bool remote_is_warm(struct shard *sh, const char *transport, const char *where)
{
	const struct warm *w = warm_find(sh, transport, where);

	return w && nvmf_dev_is_ready(w->dev);
}

struct nvmf_dev *remote_warm_take(
	struct shard *sh, const char *transport, const char *where, uint64_t *since_ns)
{
	struct warm *w = warm_find(sh, transport, where);

	if (!w)
		return NULL;
	*since_ns = w->since_ns;
	return warm_remove(w);
}

void remote_cool(struct shard *sh)
{
	struct warm *w;

	for (;;) {
		pthread_mutex_lock(&lock);
		LIST_FOREACH (w, &warmed, link)
			if (w->sh == sh)
				break;
		pthread_mutex_unlock(&lock);
		if (!w)
			return;
		nvmf_dev_close(warm_remove(w));
	}
}
