/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of flash devices in an open pool: added, failed, returned, replaced, removed.
 *
 * A device that leaves is drained first (mover: evacuate, or rebuild where it has failed). That it leaves is kept with the remembered
 * members, so that it goes on after a restart; it is out of the pool once nothing lies on it any more (flash_upkeep()).
 */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "dpu/pool/checkpoint.h"
#include "dpu/volume/move.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LOOK_NS        (1000000000ull)
#define LOST_MAX       64 /* lines of what is lost */
#define CHECKPOINT_TRY 5 /* looks between two checkpoints that let the last segments go */

/* ---- finding ------------------------------------------------------------------------------------------------------ */

static struct card_flash *remembered(struct card *c, const char *name)
{
	for (unsigned int i = 0; i < c->nflashes; i++)
		if (!strcmp(c->flashes[i].name, name))
			return &c->flashes[i];
	return NULL;
}

bool flash_is_leaving(const struct card *c, const char *name)
{
	const struct card_flash *f = remembered((struct card *)c, name);

	return f && f->leaving;
}

/* The member's number, or -ENOENT. */
static int member(struct card *c, const char *name, char *object, size_t len, struct err *e)
{
	int dev = pool_need(c, e);

	object_name(object, len, "flash", name);
	if (dev < 0)
		return dev;
	dev = pool_dev_find(store_pool(c->store), name);
	return dev >= 0 ? dev : err_set(e, -ENOENT, object, NULL, "the pool has no such flash");
}

static uint32_t used_segments(const struct pool *p, unsigned int dev)
{
	uint32_t n = 0;

	/* segment 0 has the superblocks */
	for (uint32_t s = 1; s < pool_dev(p, dev)->nsegments; s++)
		n += pool_segment_use(p, dev, s) != POOL_FREE;
	return n;
}

/* ---- add --------------------------------------------------------------------------------------------------------------- */

static int open_one(
	struct card *c, const struct card_flash *f, struct pool_member *m, struct err *e)
{
	struct flash_opts opts = pool_flash_opts(c, f);
	struct err why = {0};
	char object[96];
	int rc = flash_open(c->cfg.shard, f->address, &opts, &m->flash, &why);

	if (rc < 0)
		return err_set(e, rc, object_name(object, sizeof(object), "flash", f->name),
			why.field[0] ? why.field : "address", "%s: %s", f->address,
			why.reason[0] ? why.reason : strerror(-rc));
	memcpy(m->name, f->name, sizeof(m->name));
	memcpy(m->domain, f->domain, sizeof(m->domain));
	return 0;
}

/* Not a member already, under this name or another. 1: it is, and just this one. */
static int is_new(struct card *c, const struct card_flash *f, struct err *e)
{
	const struct card_flash *is = remembered(c, f->name);
	char object[96];

	object_name(object, sizeof(object), "flash", f->name);
	if (is && pool_dev_find(store_pool(c->store), f->name) >= 0) {
		if (!strcmp(is->address, f->address))
			return 1;
		return err_set(e, -EEXIST, object, "address", "it is in the pool with address %s",
			is->address);
	}
	for (unsigned int i = 0; i < c->nflashes; i++)
		if (card_flash_same(&c->flashes[i], f))
			return err_set(e, -EEXIST, object, "address", "flash %s has the same",
				c->flashes[i].name);
	if (!is && c->nflashes == POOL_DEVS_MAX)
		return err_set(e, -ENOSPC, object, NULL, "a pool has at most %d", POOL_DEVS_MAX);
	return 0;
}

static bool any_volatile(const struct pool *p)
{
	for (unsigned int i = 0; i < pool_ndevs(p); i++) {
		const struct pool_dev *d = pool_dev(p, i);

		if (d->state != POOL_DEV_REMOVED &&
			(!d->flash || flash_info(d->flash)->volatile_cache))
			return true;
	}
	return false;
}

static void note_claim(struct card *c, unsigned int dev, bool claimed)
{
	c->claimed &= ~(1ull << dev);
	c->claimed |= (uint64_t)claimed << dev;
}

/* At least min_segments large. *dev: its number. */
static int add(struct card *c, const struct card_flash *f, bool spare, bool force,
	uint64_t min_segments, unsigned int *dev, struct err *e)
{
	struct pool *p = store_pool(c->store);
	bool cached = any_volatile(p), claimed = false;
	struct pool_member m = {.flash = NULL};
	struct err why = {0};
	char object[96];
	int rc = open_one(c, f, &m, e);

	if (rc < 0)
		return rc;
	object_name(object, sizeof(object), "flash", f->name);
	if (flash_info(m.flash)->size_bytes / pool_segment_bytes(p) < min_segments)
		rc = err_set(&why, -EINVAL, object, "address",
			"%s is too small: %llu bytes, %llu are needed", f->address,
			(unsigned long long)flash_info(m.flash)->size_bytes,
			(unsigned long long)(min_segments * pool_segment_bytes(p)));
	if (rc == 0)
		rc = claim_flash(c, m.flash, f->name, force, &claimed, &why);
	if (rc == 0)
		rc = pool_dev_add(p, &m, spare, force, dev, &why);
	if (rc < 0) {
		if (claimed)
			(void)flash_unclaim(m.flash, NULL);
		flash_close(m.flash);
		return err_set(
			e, rc, object, why.field, "%s", why.reason[0] ? why.reason : strerror(-rc));
	}
	note_claim(c, *dev, claimed);
	c->flashes[c->nflashes] = *f;
	c->flashes[c->nflashes].cut_bytes = flash_info(m.flash)->cut_bytes;
	c->flashes[c->nflashes++].leaving = false;
	rc = pool_remember(c, e);
	if (rc < 0) {
		c->nflashes--;
		pool_dev_remove(p, *dev, NULL);
		return rc;
	}
	event_post(c->events, EVENT_INFO, "flash-added", object, "%s%s", f->address,
		spare ? ", as a spare" : "");
	if (!cached &&
		any_volatile(
			p)) /* hosts have to flush from now on: they learn it by connecting again */
		pool_in_use(c);
	return 0;
}

int call_flash_add(struct card *card, struct call *c)
{
	const Parapet__FlashAdd *req = c->req->flash_add;
	struct card_flash f = {0};
	unsigned int dev;
	int rc = pool_need(card, &c->err);

	if (rc == 0)
		rc = card_flash_take(req->flash, &f, &c->err);
	if (rc == 0)
		rc = is_new(card, &f, &c->err);
	if (rc == 0)
		rc = add(card, &f, req->flash->spare, req->force, 0, &dev, &c->err);
	return rc < 0 ? rc : status_fill(card, c);
}

/* ---- fail, return --------------------------------------------------------------------------------------------------------- */

int call_flash_fail(struct card *card, struct call *c)
{
	char object[96];
	int dev = member(card, c->req->flash_fail->name, object, sizeof(object), &c->err);
	struct pool *p;

	if (dev < 0)
		return dev;
	p = store_pool(card->store);
	if (pool_dev_usable(p, (unsigned int)dev))
		event_post(card->events, EVENT_WARNING, "flash-failed", object,
			"taken out of service by the operator");
	else if (card->cfg.peers)
		card->cfg.peers->flash_failed(card->cfg.peers_arg, card->cfg.index,
			c->req->flash_fail->name, POOL_CAUSE_OPERATOR);
	/* One that is away already does not come back by itself. */
	pool_dev_fail_for(p, (unsigned int)dev, POOL_CAUSE_OPERATOR);
	return status_fill(card, c);
}

/* ---- the same device in other shards ----------------------------------------------------------------------------------------- */

/* What one shard cannot use, no shard does: else data of some VMs would go on to a device that others know to be bad. */
void flash_tell_failed(struct card *c, const char *name)
{
	int dev = c->store ? pool_dev_find(store_pool(c->store), name) : -1;
	bool told = dev >= 0 && c->told >> dev & 1;

	if (dev < 0)
		return;
	c->told &= ~(1ull << dev);
	if (!told && c->cfg.peers)
		c->cfg.peers->flash_failed(c->cfg.peers_arg, c->cfg.index, name,
			pool_dev(store_pool(c->store), (unsigned int)dev)->cause);
}

void card_fail_flash(struct card *c, const char *name, enum pool_cause cause)
{
	int dev = c->store ? pool_dev_find(store_pool(c->store), name) : -1;

	if (dev < 0)
		return;
	/* One that is down already: only the operator, and who knows that it is not the device it was, keep it from coming back by itself. */
	if (!pool_dev_usable(store_pool(c->store), (unsigned int)dev)) {
		if (cause != POOL_CAUSE_UNREACHABLE)
			pool_dev_fail_for(store_pool(c->store), (unsigned int)dev, cause);
		return;
	}
	c->told |= 1ull << dev; /* they know: it is not told back */
	pool_dev_fail_for(store_pool(c->store), (unsigned int)dev, cause);
}

int card_flash_undo_add(struct card *c, const char *name, struct err *e)
{
	char object[96];
	int dev = member(c, name, object, sizeof(object), e);

	if (dev < 0)
		return dev;
	return flash_forget(c, name)
		       ? 0
		       : err_set(e, -EBUSY, object, NULL,
				 "it cannot be taken out again: something lies on it; allowed: "
				 "'flash remove'");
}

/* Opens the member again, when nothing of its old I/O can land on it any more, and gives it back to the pool. */
static int return_anew(struct card *c, unsigned int dev, const struct card_flash *f, bool *claimed,
	const char *object, struct err *e)
{
	struct pool *p = store_pool(c->store);
	struct pool_member m = {.flash = NULL};
	struct err why = {0};
	int rc = pool_dev_detach(p, dev, &why);

	if (rc < 0)
		return err_set(e, rc, object, NULL, "%s", why.reason);
	rc = open_one(c, f, &m, e);
	if (rc < 0)
		return rc;
	rc = claim_flash(c, m.flash, f->name, false, claimed, &why);
	if (rc == 0)
		rc = pool_dev_return(p, dev, m.flash, &why);
	if (rc == 0)
		return 0;
	if (*claimed)
		(void)flash_unclaim(m.flash, NULL);
	flash_close(m.flash);
	return err_set(e, rc, object, why.field, "%s", why.reason[0] ? why.reason : strerror(-rc));
}

/* The one we still have. -ENODEV: it has to be opened again. */
static int return_same(
	struct card *c, unsigned int dev, bool *claimed, const char *object, struct err *e)
{
	struct pool *p = store_pool(c->store);
	struct flash *f = pool_dev(p, dev)->flash;
	struct err why = {0};
	int rc = f && !flash_is_abandoned(f) ? 0 : -ENODEV;

	if (rc == 0)
		rc = claim_flash(c, f, pool_dev(p, dev)->name, false, claimed, &why);
	if (rc == 0)
		rc = pool_dev_return(p, dev, NULL, &why);
	return rc < 0 ? err_set(e, rc, object, why.field, "%s",
				why.reason[0] ? why.reason : strerror(-rc))
		      : 0;
}

int flash_come_back(struct card *card, const char *name, struct err *e)
{
	char object[96];
	int dev = member(card, name, object, sizeof(object), e), rc;
	struct card_flash *f = remembered(card, name);
	const struct pool_dev *d;
	bool claimed = false;
	struct pool *p;

	if (dev < 0)
		return dev;
	p = store_pool(card->store);
	d = pool_dev(p, (unsigned int)dev);
	if (pool_dev_usable(p, (unsigned int)dev))
		return err_set(e, -EBUSY, object, NULL, "it is not away: it is %s",
			pool_dev_state_name(d->state));
	rc = return_same(card, (unsigned int)dev, &claimed, object, e);
	if (rc == -ENODEV && f)
		rc = return_anew(card, (unsigned int)dev, f, &claimed, object, e);
	if (rc < 0)
		return rc;
	note_claim(card, (unsigned int)dev, claimed);
	card->told &= ~(1ull << dev);
	event_post(card->events, EVENT_INFO, "flash-returned", object,
		"it is %s; it was last written in epoch %llu, now is %llu",
		pool_dev_state_name(d->state), (unsigned long long)d->epoch_seen,
		(unsigned long long)pool_epoch(p));
	return 0;
}

int call_flash_return(struct card *card, struct call *c)
{
	const char *name = c->req->flash_return->name;
	struct card_flash *f = remembered(card, name);
	struct err why = {0};
	char object[96];
	int rc = flash_come_back(card, name, &c->err);

	if (rc < 0)
		return rc;
	if (f && f->leaving) {
		f->leaving = false;
		if (pool_remember(card, &why) < 0)
			event_post(card->events, EVENT_ERROR, "state",
				object_name(object, sizeof(object), "flash", name), "%s",
				err_text(&why));
	}
	return status_fill(card, c);
}

/* ---- what would be lost ---------------------------------------------------------------------------------------------------- */

/* Volumes with pieces on dev that hold data nothing else has. Returns how many; lines go to list where there is one. */
static size_t unprotected_on(
	struct card *c, unsigned int dev, struct call *call, char **list, size_t max)
{
	struct volume *vol;
	size_t n = 0;

	for (vol = volume_first(c->store); vol; vol = volume_next(vol)) {
		struct piece_at at = {.vol = vol};
		char object[128];

		if (!device_has_unprotected(vol) || !piece_find(c->store, (int)dev, &at) ||
			at.vol != vol)
			continue;
		if (list && n < max)
			list[n] = call_fmt(call, "unprotected data of %s that lies there",
				user_object(c, volume_cfg(vol)->name, object, sizeof(object)));
		n++;
	}
	return n;
}

/* The name of the first of them, for a complaint. */
static const char *first_unprotected(struct card *c, unsigned int dev, char *buf, size_t len)
{
	struct volume *vol;

	for (vol = volume_first(c->store); vol; vol = volume_next(vol)) {
		struct piece_at at = {.vol = vol};

		if (device_has_unprotected(vol) && piece_find(c->store, (int)dev, &at) &&
			at.vol == vol)
			return user_object(c, volume_cfg(vol)->name, buf, len);
	}
	return "";
}

/* ---- leave --------------------------------------------------------------------------------------------------------------------- */

/* The tables must not name it: VMs have their areas there. */
static int nobody_wants_it(
	const struct card *c, const char *name, const char *object, struct err *e)
{
	for (size_t i = 0; i < c->doc->policy->nvms; i++) {
		const struct policy_vm *v = &c->doc->policy->vms[i];

		if (!strcmp(v->data_flash, name) || !strcmp(v->inter_flash, name))
			return err_set(e, -EBUSY, object, NULL,
				"the tables put the %s area of vm %s there; name another flash "
				"first",
				!strcmp(v->data_flash, name) ? "data" : "intermediate", v->name);
	}
	return 0;
}

/* Members that would be left take the pool's code. */
static int enough_is_left(const struct card *c, unsigned int dev, const char *object, struct err *e)
{
	const struct pool *p = store_pool(c->store);
	unsigned int left = 0, need = pool_cfg(p)->scheme.k + pool_cfg(p)->scheme.m;

	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		left += i != dev && pool_dev_usable(p, i) &&
			pool_dev(p, i)->state != POOL_DEV_EVACUATING;
	if (left >= need)
		return 0;
	return err_set(e, -EBUSY, object, NULL,
		"%u flash devices would be left, and %u+%u needs %u: new stripes would lose their "
		"redundancy; allowed: add one, 'flash replace', or a smaller code first",
		left, pool_cfg(p)->scheme.k, pool_cfg(p)->scheme.m, need);
}

static const struct mover_task *task_of(const struct card *c, unsigned int dev)
{
	const char *name = pool_dev(store_pool(c->store), dev)->name;
	const struct mover_task *t = NULL;

	while ((t = mover_task_next(c->mover, t)))
		if ((t->reason == MOVER_EVACUATE || t->reason == MOVER_REBUILD) &&
			!task_has_ended(t) && !strcmp(t->object, name))
			return t;
	return NULL;
}

/* Starts what empties the device. force: where that cannot be, it is failed, and what the others can make again is made. */
static int drain(struct card *c, unsigned int dev, bool force, const char *object, struct err *e)
{
	struct pool *p = store_pool(c->store);
	struct mover_job job = {.reason = MOVER_EVACUATE, .dev = (int)dev};
	struct err why = {0};
	char first[128];
	uint32_t id;
	int rc;

	if (!pool_dev_usable(p, dev)) {
		job.reason = MOVER_REBUILD;
		if (!force && unprotected_on(c, dev, NULL, NULL, 0))
			return err_set(e, -EBUSY, object, NULL,
				"it is %s, and unprotected data of %s lies nowhere else: it would "
				"be "
				"lost; allowed: 'flash return' when it is there again, or force",
				pool_dev_state_name(pool_dev(p, dev)->state),
				first_unprotected(c, dev, first, sizeof(first)));
	}
	rc = mover_start(c->mover, &job, &id, &why);
	if (rc == 0 || rc == -EEXIST)
		return 0;
	if (job.reason == MOVER_EVACUATE && force) {
		event_post(c->events, EVENT_WARNING, "flash-failed", object, "removed by force: %s",
			why.reason);
		pool_dev_fail(p, dev);
		return 0; /* the rebuild starts by itself */
	}
	if (job.reason == MOVER_REBUILD && rc == -EINVAL)
		return 0; /* nothing of the log lies there */
	return err_set(e, rc == -ENOMEM ? rc : -EBUSY, object, NULL,
		"it cannot be emptied: %s; allowed: make room, or force", why.reason);
}

/* It is to go: kept, and drained. 0, or 1: it is out of the pool already. */
static int leave(
	struct card *c, unsigned int dev, bool force, struct call *call, Parapet__FlashChanged *out)
{
	struct pool *p = store_pool(c->store);
	struct card_flash *f = remembered(c, pool_dev(p, dev)->name);
	bool down = !pool_dev_usable(p, dev);
	char object[96];
	int rc;

	object_name(object, sizeof(object), "flash", pool_dev(p, dev)->name);
	if (!f)
		return err_set(&call->err, -ENOENT, object, NULL, "the card does not remember it");
	if (force && down) {
		out->n_lost = unprotected_on(c, dev, call, out->lost, LOST_MAX);
		out->n_lost = MIN(out->n_lost, (size_t)LOST_MAX);
	}
	if (!f->leaving && used_segments(p, dev)) {
		rc = drain(c, dev, force, object, &call->err);
		if (rc < 0)
			return rc;
		if (!down && !pool_dev_usable(p, dev)) /* by force */
			out->n_lost = MIN(unprotected_on(c, dev, call, out->lost, LOST_MAX),
				(size_t)LOST_MAX);
	}
	f->leaving = true;
	rc = pool_remember(c, &call->err);
	if (rc < 0) {
		f->leaving = false;
		return rc;
	}
	event_post(c->events, out->n_lost ? EVENT_WARNING : EVENT_INFO, "flash-leaving", object,
		"it goes out of the pool once it is empty%s", out->n_lost ? "; data is lost" : "");
	return flash_try_remove(c, f->name) ? 1 : 0;
}

static int changed_answer(
	struct card *card, struct call *c, const char *name, bool removed, Parapet__FlashChanged *r)
{
	const struct mover_task *t;
	int dev = removed ? -1 : pool_dev_find(store_pool(card->store), name), rc;

	r->has_removed = true;
	r->removed = removed;
	t = dev >= 0 ? task_of(card, (unsigned int)dev) : NULL;
	if (t) {
		r->task = call_message(c, Parapet__Task, parapet__task__init);
		if (!r->task)
			return -ENOMEM;
		task_fill(card, c, t, r->task);
	}
	rc = status_fill(card, c);
	if (rc < 0)
		return rc;
	r->pool = c->resp.status->pool;
	c->resp.result_case = PARAPET__RESPONSE__RESULT_FLASH_CHANGED;
	c->resp.flash_changed = r;
	return 0;
}

static Parapet__FlashChanged *changed_begin(struct call *c)
{
	Parapet__FlashChanged *r = call_message(
		c, Parapet__FlashChanged, parapet__flash_changed__init);

	if (r)
		r->lost = call_alloc(c, LOST_MAX * sizeof(r->lost[0]));
	return r && r->lost ? r : NULL;
}

int call_flash_remove(struct card *card, struct call *c)
{
	const Parapet__FlashRemove *req = c->req->flash_remove;
	Parapet__FlashChanged *r = changed_begin(c);
	char object[96];
	int dev = member(card, req->name, object, sizeof(object), &c->err), rc;

	if (dev < 0 || !r)
		return r ? dev : -ENOMEM;
	rc = nobody_wants_it(card, req->name, object, &c->err);
	if (rc == 0)
		rc = enough_is_left(card, (unsigned int)dev, object, &c->err);
	if (rc == 0)
		rc = leave(card, (unsigned int)dev, req->force, c, r);
	return rc < 0 ? rc : changed_answer(card, c, req->name, rc == 1, r);
}

/* ---- replace -------------------------------------------------------------------------------------------------------------------- */

/* A member already: a spare is put into service. */
static int take_member(struct card *c, const char *name, uint64_t min_segments, int not_dev,
	unsigned int *dev, struct err *e)
{
	struct pool *p = store_pool(c->store);
	char object[96];
	int n = member(c, name, object, sizeof(object), e);

	if (n < 0)
		return n;
	*dev = (unsigned int)n;
	if (n == not_dev)
		return err_set(e, -EINVAL, object, NULL, "it cannot replace itself");
	if (pool_dev(p, *dev)->nsegments < min_segments)
		return err_set(e, -EINVAL, object, "address",
			"it is too small: %u segments, %llu are needed",
			pool_dev(p, *dev)->nsegments, (unsigned long long)min_segments);
	if (flash_is_leaving(c, name) || !pool_dev_usable(p, *dev))
		return err_set(e, -EBUSY, object, NULL, "it is %s",
			flash_is_leaving(c, name) ? "leaving itself"
						  : pool_dev_state_name(pool_dev(p, *dev)->state));
	if (pool_dev(p, *dev)->state != POOL_DEV_SPARE)
		return 0;
	return pool_dev_set_state(p, *dev, POOL_DEV_HEALTHY, e);
}

/* New segments of the volumes' areas come from the new device. */
static int move_areas(struct card *c, int from, int to, struct err *e)
{
	struct volume *vol;
	int rc = 0;

	for (vol = volume_first(c->store); vol && rc == 0; vol = volume_next(vol)) {
		const struct volume_cfg *v = volume_cfg(vol);
		int data = v->data_dev == from ? to : v->data_dev;
		int inter = v->intermediate_dev == from ? to : v->intermediate_dev;

		if (data == inter) /* it has the other area of this volume already */
			continue;
		if (data != v->data_dev || inter != v->intermediate_dev)
			rc = volume_set_devs(vol, data, inter, e);
	}
	return rc;
}

int call_flash_replace(struct card *card, struct call *c)
{
	const Parapet__FlashReplace *req = c->req->flash_replace;
	Parapet__FlashChanged *r = changed_begin(c);
	bool known = !req->by->address[0], added = false;
	struct card_flash f = {0};
	unsigned int to = 0;
	uint64_t least;
	char object[96];
	int from = member(card, req->name, object, sizeof(object), &c->err), rc;

	if (from < 0 || !r)
		return r ? from : -ENOMEM;
	least = pool_dev(store_pool(card->store), (unsigned int)from)->nsegments;
	if (known) {
		rc = take_member(card, req->by->name, least, from, &to, &c->err);
	} else {
		rc = card_flash_take(req->by, &f, &c->err);
		if (rc == 0)
			rc = is_new(card, &f, &c->err);
		if (rc == 1) { /* whoever did not hear the answer asks once more */
			rc = take_member(card, f.name, least, from, &to, &c->err);
		} else if (rc == 0) {
			rc = add(card, &f, false, req->force, least, &to, &c->err);
			added = rc == 0;
		}
	}
	if (rc == 0)
		rc = move_areas(card, from, (int)to, &c->err);
	if (rc == 0)
		rc = leave(card, (unsigned int)from, req->force, c, r);
	if (rc < 0 && added) {
		if (move_areas(card, (int)to, from, NULL) == 0)
			flash_forget(card, f.name);
	}
	return rc < 0 ? rc : changed_answer(card, c, req->name, rc == 1, r);
}

/* ---- out of the pool -------------------------------------------------------------------------------------------------------------- */

/* Takes an empty device out of the pool and out of the memory. */
bool flash_forget(struct card *c, const char *name)
{
	struct pool *p = store_pool(c->store);
	int dev = pool_dev_find(p, name);
	struct card_flash *f = remembered(c, name);
	struct err e = {0};
	char object[96];

	if (dev >= 0 && pool_dev_remove(p, (unsigned int)dev, &e) < 0)
		return false;
	if (f) {
		*f = c->flashes[c->nflashes - 1];
		c->nflashes--;
		if (pool_remember(c, &e) < 0)
			event_post(c->events, EVENT_ERROR, "state", "card", "%s", err_text(&e));
	}
	event_post(c->events, EVENT_INFO, "flash-removed",
		object_name(object, sizeof(object), "flash", name), "it is out of the pool");
	return true;
}

bool flash_try_remove(struct card *c, const char *name)
{
	char copy[sizeof(c->flashes[0].name)];
	int dev = pool_dev_find(store_pool(c->store), name);

	if (dev >= 0 && (used_segments(store_pool(c->store), (unsigned int)dev) ||
				task_of(c, (unsigned int)dev)))
		return false;
	snprintf(copy, sizeof(copy), "%s", name);
	return flash_forget(c, copy);
}

/* Has it been taken back (its task cancelled)? */
static bool stays(struct card *c, const struct card_flash *f)
{
	int dev = pool_dev_find(store_pool(c->store), f->name);
	enum pool_dev_state s;

	if (dev < 0)
		return false;
	s = pool_dev(store_pool(c->store), (unsigned int)dev)->state;
	return s == POOL_DEV_HEALTHY && !task_of(c, (unsigned int)dev) &&
	       used_segments(store_pool(c->store), (unsigned int)dev);
}

/* A change of its own (server.c): nothing else changes meanwhile, and it may wait. */
int call_flash_upkeep(struct card *card, struct call *c)
{
	atomic_store(&card->wants_upkeep, false);
	if (!card->store)
		return 0;
	comeback_upkeep(card);
	for (unsigned int i = card->nflashes; i-- > 0;) {
		struct card_flash *f = &card->flashes[i];
		struct err e = {0};
		char object[96];

		if (!f->leaving || flash_try_remove(card, f->name) || !stays(card, f))
			continue;
		f->leaving = false;
		if (pool_remember(card, &e) < 0)
			event_post(card->events, EVENT_ERROR, "state", "card", "%s", err_text(&e));
		event_post(card->events, EVENT_WARNING, "flash-stays",
			object_name(object, sizeof(object), "flash", f->name),
			"it is no longer to leave: its task was cancelled");
	}
	return 0;
}

/* What is left are copies of checkpoints: the next one leaves them behind. */
static void let_checkpoints_go(struct card *c, unsigned int dev)
{
	const struct pool *p = store_pool(c->store);

	if (task_of(c, dev) || !ckpt_segments_on(p, dev) || c->looks++ % CHECKPOINT_TRY)
		return;
	if (store_checkpoint(c->store, NULL, NULL) < 0)
		event_post(c->events, EVENT_WARNING, "checkpoint-failed", "pool",
			"flash %s cannot be emptied of the former ones now",
			pool_dev(p, dev)->name);
}

/* Looks, and asks for upkeep where there is something to do. */
static void look(void *arg)
{
	struct card *c = arg;
	bool any = false;

	for (unsigned int i = 0; c->store && i < c->nflashes; i++) {
		const struct card_flash *f = &c->flashes[i];
		int dev = f->leaving ? pool_dev_find(store_pool(c->store), f->name) : -1;

		if (!f->leaving)
			continue;
		if (dev >= 0 && used_segments(store_pool(c->store), (unsigned int)dev) &&
			!stays(c, f))
			let_checkpoints_go(c, (unsigned int)dev);
		else
			any = true;
	}
	any |= comeback_look(c);
	atomic_store(&c->wants_upkeep, any);
	nodes_look(c);
	health_look(c);
	flash_look_arm(c);
}

void flash_look_arm(struct card *c)
{
	if (timer_arm(c->cfg.shard, &c->look_timer, shard_now_ns(c->cfg.shard) + LOOK_NS, look, c) <
		0)
		event_post(c->events, EVENT_ERROR, "no-memory", "card",
			"the pool is not looked after");
}

void flash_look_disarm(struct card *c)
{
	timer_disarm(c->cfg.shard, &c->look_timer);
}
