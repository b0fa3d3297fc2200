/* SPDX-License-Identifier: BSD-3-Clause */
/* Which VM is on which shard. */
#include "dpu/control/card_priv.h"
#include "dpu/control/shards_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

int assign_of_vm(void *arg, uint32_t vm)
{
	struct shards *s = arg;
	int shard;

	pthread_mutex_lock(&s->lock);
	shard = assign_find(&s->assign, vm);
	pthread_mutex_unlock(&s->lock);
	return shard;
}

unsigned int shards_of_vm(const struct shards *s, uint32_t vm)
{
	int shard = assign_of_vm((struct shards *)s, vm); /* for its lock */

	return shard < 0 ? 0 : (unsigned int)shard;
}

bool assign_owns(void *arg, unsigned int index, uint32_t vm)
{
	return shards_of_vm(arg, vm) == index;
}

/* ---- changing it ------------------------------------------------------------------------------------------------------ */

/* Remembers *next, then puts it in force. It is taken over in any case. */
static int put_in_force(struct shards *s, struct assign *next, struct err *e)
{
	struct assign was = *next;
	int rc = assign_save(card_state(s->members[0].card), next, e);

	if (rc == 0) {
		pthread_mutex_lock(&s->lock);
		was = s->assign;
		s->assign = *next;
		pthread_mutex_unlock(&s->lock);
	}
	assign_clear(&was);
	return rc;
}

static int no_memory(struct err *e)
{
	return err_set(e, -ENOMEM, "shard", NULL, "out of memory");
}

int shards_put_vm(struct shards *s, uint32_t vm, unsigned int shard, struct err *e)
{
	struct assign next;
	int rc;

	if (shard >= shards_count(s))
		return err_set(e, -EINVAL, "shard", NULL, "%u: there are %u, from 0", shard,
			shards_count(s));
	rc = assign_copy(&s->assign, &next);
	if (rc == 0)
		rc = assign_set(&next, vm, shard);
	if (rc < 0) {
		assign_clear(&next);
		return no_memory(e);
	}
	return put_in_force(s, &next, e);
}

int assign_resize(struct shards *s, unsigned int count, struct err *e)
{
	struct assign next = {.count = count};

	for (size_t i = 0; i < s->assign.n; i++)
		if (s->assign.vms[i].shard < count &&
			assign_set(&next, s->assign.vms[i].vm, s->assign.vms[i].shard) < 0) {
			assign_clear(&next);
			return no_memory(e);
		}
	/* A card that never had more than one remembers nothing of it. */
	if (count == 1 && s->assign.count == 1 && !next.n)
		return 0;
	return put_in_force(s, &next, e);
}

/* ---- placing ------------------------------------------------------------------------------------------------------------ */

struct owned {
	uint32_t *vms; /* that have devices there */
	size_t n;
};

struct placing {
	struct owned owned[SHARDS_MAX];
	unsigned int count;
	const struct assign *was;
	struct assign next;
	uint32_t load[SHARDS_MAX]; /* VMs */
};

static int list_owned(struct card *c, void *arg)
{
	struct owned *o = arg;

	return card_vms_of_devices(c, &o->vms, &o->n);
}

static bool owns(const struct owned *o, uint32_t vm)
{
	for (size_t i = 0; i < o->n; i++)
		if (o->vms[i] == vm)
			return true;
	return false;
}

static int place(struct placing *p, uint32_t vm, unsigned int shard)
{
	p->load[shard]++;
	return assign_set(&p->next, vm, shard);
}

/* Where its devices are; where several have some, the one that was said last is right. */
static int place_by_devices(struct placing *p, uint32_t vm)
{
	int was = assign_find(p->was, vm);

	if (assign_find(&p->next, vm) >= 0)
		return 0;
	if (was >= 0 && was < (int)p->count && owns(&p->owned[was], vm))
		return place(p, vm, (unsigned int)was);
	for (unsigned int i = 0; i < p->count; i++)
		if (owns(&p->owned[i], vm))
			return place(p, vm, i);
	return 0;
}

static unsigned int emptiest(const struct placing *p)
{
	unsigned int best = 0;

	for (unsigned int i = 1; i < p->count; i++)
		if (p->load[i] < p->load[best])
			best = i;
	return best;
}

/* Those that have been somewhere stay there, before the new ones are spread. */
static int place_known(struct placing *p, const Parapet__Tables *t)
{
	int rc = 0, was;

	for (size_t i = 0; t && rc == 0 && i < t->n_vms; i++) {
		was = assign_find(p->was, t->vms[i]->vm);
		if (was >= 0 && was < (int)p->count && assign_find(&p->next, t->vms[i]->vm) < 0)
			rc = place(p, t->vms[i]->vm, (unsigned int)was);
	}
	return rc;
}

static int place_new(struct placing *p, const Parapet__Tables *t)
{
	int rc = 0;

	for (size_t i = 0; t && rc == 0 && i < t->n_vms; i++) {
		const Parapet__Vm *vm = t->vms[i];

		if (assign_find(&p->next, vm->vm) < 0)
			rc = place(p, vm->vm, vm->port && vm->port[0] ? 0 : emptiest(p));
	}
	return rc;
}

static int place_all(struct placing *p, const Parapet__Tables *now, const Parapet__Tables *t)
{
	int rc = 0;

	for (unsigned int i = 0; i < p->count; i++)
		for (size_t j = 0; rc == 0 && j < p->owned[i].n; j++)
			rc = place_by_devices(p, p->owned[i].vms[j]);
	if (rc == 0)
		rc = place_known(p, now);
	if (rc == 0)
		rc = place_known(p, t);
	if (rc == 0)
		rc = place_new(p, now);
	return rc < 0 ? rc : place_new(p, t);
}

static bool is_same(const struct assign *a, const struct assign *b)
{
	return a->count == b->count && a->n == b->n &&
	       (!a->n || memcmp(a->vms, b->vms, a->n * sizeof(a->vms[0])) == 0);
}

static int get_tables(struct card *c, void *arg)
{
	struct tables_doc **doc = arg;

	if (!card_index(c))
		*doc = card_tables(c);
	return 0;
}

int shards_place_vms(struct shards *s, const Parapet__Tables *t, struct err *e)
{
	struct placing p = {.count = shards_count(s), .was = &s->assign};
	void *args[SHARDS_MAX], *docs[SHARDS_MAX];
	struct tables_doc *doc = NULL;
	int rc;

	if (p.count == 1)
		return 0; /* they are all on shard 0 */
	p.next.count = p.count;
	for (unsigned int i = 0; i < SHARDS_MAX; i++) {
		args[i] = &p.owned[i];
		docs[i] = &doc;
	}
	rc = shards_run_all(s, list_owned, args);
	if (rc == 0)
		rc = shards_run_all(s, get_tables, docs);
	if (rc == 0)
		rc = place_all(&p, doc->pb, t);
	if (rc < 0)
		no_memory(e);
	if (rc == 0 && !is_same(&p.next, p.was))
		rc = put_in_force(s, &p.next, e);
	else
		assign_clear(&p.next);
	for (unsigned int i = 0; i < p.count; i++)
		free(p.owned[i].vms);
	tables_doc_put(doc);
	return rc;
}

static int let_go(struct card *c, void *arg)
{
	card_vms_let_go(c);
	return 0;
}

static int again(struct card *c, void *arg)
{
	card_vms_again(c);
	return 0;
}

void shards_vms_again(struct shards *s)
{
	shards_run_all(
		s, let_go, NULL); /* first: an address is free when another shard listens at it */
	shards_run_all(s, again, NULL);
}

/* ---- at start ------------------------------------------------------------------------------------------------------------- */

/* The directory of a second shard: this card has had more than one. */
static bool had_shards(const struct shards *s)
{
	char path[sizeof(s->state_dir) + 16];
	struct stat st;

	snprintf(path, sizeof(path), "%s/shard1", s->state_dir);
	return stat(path, &st) == 0;
}

/* What is lost can be had from the pool: superblocks say how many shards it has, and devices of VMs are where they are. */
static void ask_the_pool(struct shards *s, const char *why)
{
	struct card *c = s->members[0].card;
	struct err e = {0};

	if (card_pool_shards(c, NULL, &s->assign.count, &e) < 0)
		event_post(card_events(c), EVENT_ERROR, "shards-lost", "pool",
			"%s, and none of the pool's flash devices says how many shards it has: %s; "
			"allowed: 'pool open' when they are there",
			why, e.reason);
	else
		event_post(card_events(c), EVENT_WARNING, "shards-found", "pool",
			"%s: by its flash devices the pool has %u shards, and each VM is where its "
			"devices are",
			why, s->assign.count);
}

int assign_recall(struct shards *s, struct err *e)
{
	struct card *c = s->members[0].card;
	int rc;

	if (!card_remembers_pool(c))
		return 0;
	rc = assign_load(card_state(c), &s->assign, e);
	if (rc == -EUCLEAN)
		ask_the_pool(s, err_text(e));
	else if (rc == -ENOENT && had_shards(s))
		ask_the_pool(s, "which VM is on which shard is not remembered");
	return rc == -EUCLEAN || rc == -ENOENT ? 0 : rc;
}
