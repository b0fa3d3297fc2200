/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The destination of a transfer, on its own thread: volumes are made, followed, sealed or deleted (errands: they wait), and parts are written, in turn with
 * what else goes on there.
 */
#include <errno.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/mover/transfer_priv.h"

#define THROTTLED_NS (5 * MOVER_MS)
#define FULL_NS      MOVER_MS /* the store takes no more just now */

/* ---- parts ------------------------------------------------------------------------------------------------------ */

static void part_go(struct part *p);

static void part_home(struct part *p)
{
	shard_post_msg(p->t->sh, &p->msg, part_back, p);
}

static void written(struct io_req *req)
{
	struct part *p = req->arg;

	p->pos += p->run;
	if (req->status != IO_OK) {
		p->status = req->status;
		part_home(p);
		return;
	}
	part_go(p);
}

static uint64_t run_of(const struct part *p)
{
	uint64_t n = 1;

	if (p->nothing)
		return p->n;
	while (p->pos + n < p->n && p->kinds[p->pos + n] == p->kinds[p->pos])
		n++;
	return n;
}

static void trim_or_write(struct part *p)
{
	const struct volume *v = p->t->vols[p->vol].copy;
	uint8_t kind = p->nothing ? KIND_NOTHING : p->kinds[p->pos];

	p->req = (struct io_req){.op = kind == KIND_NOTHING ? IO_TRIM : IO_WRITE,
		.flags = IO_BACKGROUND,
		.vm = p->t->cfg.vm,
		.off_bytes = (p->block + p->pos) * IO_BLOCK_BYTES,
		.len_bytes = p->run * IO_BLOCK_BYTES,
		.stable = true,
		.done_fn = written,
		.arg = p};
	if (kind == KIND_NOTHING)
		return;
	/* The volume has lost its intermediate flash since this was written there: it is no safer, and no less, where plain blocks are. */
	if (kind == KIND_INTERMEDIATE && volume_cfg(v)->intermediate_dev == POOL_DEV_NONE)
		kind = KIND_PLAIN;
	p->req.outcome = (enum io_outcome)kind;
	p->iov = (struct iovec){p->buf + p->pos * IO_BLOCK_BYTES, (size_t)p->run * IO_BLOCK_BYTES};
	p->req.iov = &p->iov;
	p->req.niov = 1;
}

/* The next run of it; when there is none it is done. */
static void part_go(struct part *p)
{
	struct landing *l = &p->t->land;
	int rc;

	while (p->pos < p->n && p->fresh && p->kinds[p->pos] == KIND_NOTHING)
		p->pos++;
	if (p->pos == p->n) {
		part_home(p);
		return;
	}
	p->run = run_of(p);
	trim_or_write(p);
	rc = volume_submit(p->t->vols[p->vol].copy, &p->req);
	if (rc == -EAGAIN) {
		p->run = 0;
		TAILQ_INSERT_TAIL(&l->waiting, p, link);
	} else if (rc < 0) {
		p->status = IO_ERR_INTERNAL;
		part_home(p);
	}
}

static void wake(void *arg)
{
}

static int land_poll(void *arg)
{
	struct landing *l = arg;
	struct mover *m = l->t->cfg.to;
	struct part_list list = TAILQ_HEAD_INITIALIZER(list);
	struct part *p;
	int did = 0;

	TAILQ_CONCAT(&list, &l->waiting, link);
	while ((p = TAILQ_FIRST(&list))) {
		TAILQ_REMOVE(&list, p, link);
		if (!p->hurry && !p->charged && !throttle_ready(&m->throttle)) {
			TAILQ_INSERT_TAIL(&l->waiting, p, link);
			continue;
		}
		if (!p->charged && !p->nothing)
			throttle_charge(&m->throttle, p->n * IO_BLOCK_BYTES, false);
		p->charged = true;
		part_go(p);
		did++;
	}
	if (TAILQ_EMPTY(&l->waiting))
		return did;
	timer_arm(l->t->to_sh, &l->timer,
		shard_now_ns(l->t->to_sh) + (throttle_ready(&m->throttle) ? FULL_NS : THROTTLED_NS),
		wake, NULL);
	return did;
}

void land_part(void *arg)
{
	struct part *p = arg;

	p->pos = p->run = 0;
	p->charged = false;
	p->status = IO_OK;
	TAILQ_INSERT_TAIL(&p->t->land.waiting, p, link);
}

/* ---- volumes ------------------------------------------------------------------------------------------------------ */

/* The device of that name, here. */
static int dev_of(struct transfer *t, const struct tvol_want *w, const char *field,
	const char *name, int *dev, struct err *err)
{
	struct pool *p = store_pool(t->cfg.to->s);

	*dev = POOL_DEV_NONE;
	if (!name[0])
		return 0;
	*dev = pool_dev_find(p, name);
	if (*dev < 0)
		return err_set(err, -ENODEV, w->cfg.name, field,
			"%s is not in the pool of shard %u", name, t->cfg.to_shard);
	if (!pool_dev_usable(p, (unsigned int)*dev))
		return err_set(err, -ENODEV, w->cfg.name, field,
			"%s cannot be used in shard %u: it is %s", name, t->cfg.to_shard,
			pool_dev_state_name(pool_dev(p, (unsigned int)*dev)->state));
	return 0;
}

static int devs_of(
	struct transfer *t, const struct tvol_want *w, struct volume_cfg *cfg, struct err *err)
{
	int rc = dev_of(t, w, "data flash", w->data, &cfg->data_dev, err);

	if (rc < 0)
		return rc;
	return dev_of(t, w, "intermediate flash", w->intermediate, &cfg->intermediate_dev, err);
}

static int volume_lands(struct transfer *t, struct tvol *x, struct err *err)
{
	struct store *s = t->cfg.to->s;
	struct volume_cfg cfg = x->want.cfg;
	struct volume *old;
	int rc = devs_of(t, &x->want, &cfg, err);

	if (rc < 0)
		return rc;
	old = volume_find(s, cfg.name);
	if (old && memcmp(volume_cfg(old)->nguid, cfg.nguid, sizeof(cfg.nguid)) == 0 &&
		transfer_note_is_debris(s, &t->cfg, &cfg)) {
		rc = volume_delete(old, err); /* of a move that failed, and could not be undone */
		if (rc < 0)
			return rc;
		old = NULL;
	}
	if (old)
		return err_set(err, -EEXIST, cfg.name, NULL,
			"there is such a volume in shard %u already", t->cfg.to_shard);
	rc = transfer_note_put(s, &t->cfg, &cfg, false, err);
	if (rc == 0)
		rc = volume_create(s, &cfg, &x->copy, err);
	if (rc == 0)
		x->nblocks = volume_nblocks(x->copy);
	return rc;
}

int land_open(struct transfer *t, struct err *err)
{
	int rc = 0;

	TAILQ_INIT(&t->land.waiting);
	t->land.t = t;
	t->land.open = true;
	poller_add(t->to_sh, &t->land.poller, land_poll, &t->land, POLLER_SLEEPS);
	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = volume_lands(t, &t->vols[i], err);
	return rc;
}

static bool same_scheme(struct ec_scheme a, struct ec_scheme b)
{
	return a.k == b.k && a.m == b.m;
}

static int volume_follows(struct transfer *t, struct tvol *x, struct err *err)
{
	const struct volume_cfg *have = volume_cfg(x->copy);
	struct volume_cfg want = x->want.cfg;
	int rc = devs_of(t, &x->want, &want, err);

	if (rc == 0 && (have->data_dev != want.data_dev ||
			       have->intermediate_dev != want.intermediate_dev))
		rc = volume_set_devs(x->copy, want.data_dev, want.intermediate_dev, err);
	if (rc == 0 && !same_scheme(have->scheme, want.scheme))
		rc = volume_set_scheme(x->copy, want.scheme, err);
	if (rc == 0 && have->layout != want.layout)
		rc = volume_set_layout(x->copy, want.layout, err);
	if (rc == 0)
		rc = volume_grow(x->copy, want.size_bytes, err);
	if (rc == 0)
		x->nblocks = volume_nblocks(x->copy);
	return rc;
}

int land_follow(struct transfer *t, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = volume_follows(t, &t->vols[i], err);
	return rc;
}

/* ---- the end ---------------------------------------------------------------------------------------------------------- */

struct flush_wait {
	struct io_req req;
	bool done;
};

static void flush_done(struct io_req *req)
{
	((struct flush_wait *)req->arg)->done = true;
}

static bool flush_is_done(void *arg)
{
	return ((struct flush_wait *)arg)->done;
}

static bool never(void *arg)
{
	return false;
}

static int flush(struct transfer *t, struct volume *v, struct err *err)
{
	struct flush_wait w = {.req = {.op = IO_FLUSH, .flags = IO_BACKGROUND, .vm = t->cfg.vm}};
	int rc;

	w.req.done_fn = flush_done;
	w.req.arg = &w;
	while ((rc = volume_submit(v, &w.req)) == -EAGAIN)
		shard_wait(t->to_sh, never, NULL, FULL_NS);
	if (rc == 0)
		rc = shard_wait(t->to_sh, flush_is_done, &w, 0);
	if (rc == 0)
		rc = io_status_errno(w.req.status);
	if (rc < 0)
		return err_set(err, rc, volume_cfg(v)->name, NULL,
			"the copy could not be flushed in shard %u: %s", t->cfg.to_shard,
			strerror(-rc));
	return 0;
}

int land_seal(struct transfer *t, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = flush(t, t->vols[i].copy, err);
	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = transfer_note_put(
			t->cfg.to->s, &t->cfg, volume_cfg(t->vols[i].copy), true, err);
	return rc;
}

int land_leave(struct transfer *t, struct err *err)
{
	if (!t->land.open)
		return 0;
	t->land.open = false;
	poller_del(t->to_sh, &t->land.poller);
	timer_disarm(t->to_sh, &t->land.timer);
	return 0;
}

int land_commit(struct transfer *t, struct err *err)
{
	int rc = 0;

	land_leave(t, err);
	/* The copies belong to the VM already: it may have deleted one by now. */
	for (unsigned int i = 0; i < t->cfg.nvolumes && rc == 0; i++)
		rc = transfer_note_del(t->cfg.to->s, t->vols[i].want.cfg.name, err);
	return rc;
}

/* What cannot be deleted now is at the next start. */
int land_undo(struct transfer *t, struct err *err)
{
	int first = 0;

	land_leave(t, err);
	for (unsigned int i = 0; i < t->cfg.nvolumes; i++) {
		struct tvol *x = &t->vols[i];
		int rc;

		if (!x->copy)
			continue; /* one that could not be made may be on flash all the same: its note stays */
		rc = volume_delete(x->copy, first ? NULL : err);
		if (rc == 0) {
			x->copy = NULL;
			rc = transfer_note_del(t->cfg.to->s, x->want.cfg.name, first ? NULL : err);
		}
		if (!first)
			first = rc;
	}
	return first;
}
