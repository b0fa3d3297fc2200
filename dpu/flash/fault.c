/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/flash/fault.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/flash/flash_priv.h"

/*
 *	submit ─▶ DELAYED / HANGING ─┐
 *	      └──────────────────────┴─▶ OLD (writes: read what they replace) ─▶ INNER ─▶ END ─▶ completed
 *	a power cut turns all of them into HELD, and HELD into END once the contents are settled
 */
enum state {
	STATE_FREE,
	STATE_DELAYED, /* timer armed */
	STATE_HANGING, /* until fault_release() */
	STATE_OLD_WAITS, /* the inner device was full: again from a task */
	STATE_OLD,
	STATE_INNER_WAITS,
	STATE_INNER,
	STATE_HELD,
	STATE_END, /* its completion is queued as a task */
};

/* What a write replaced, kept while it can still be lost; in the order in which they went to the inner device. */
struct undo {
	uint64_t off, len;
	bool completed;
	uint64_t completed_at; /* event number */
	TAILQ_ENTRY(undo) link;
	uint8_t old[];
};
TAILQ_HEAD(undo_list, undo);

struct fault_io {
	struct fault_flash *ff;
	struct flash_io *outer;
	struct flash_io inner;
	struct iovec iov;
	enum state state;
	enum flash_status forced; /* by a rule; FLASH_OK: none */
	enum flash_status status; /* of STATE_END */
	bool corrupt, lost, dead; /* dead: whatever the inner device says, it is gone */
	uint64_t store_len; /* writes: how much of it is stored */
	uint64_t event; /* flush: what had completed before it */
	uint8_t *copy; /* the bytes stored, where they are not the caller's */
	struct undo *undo;
	struct timer timer;
	struct task task;
};

/* A write that hung when the device was abandoned. */
struct ghost {
	struct fault_flash *ff;
	struct flash_io io;
	struct iovec iov;
	TAILQ_ENTRY(ghost) link;
	uint8_t bytes[];
};
TAILQ_HEAD(ghost_list, ghost);

struct rule_state {
	struct fault_rule rule;
	uint64_t seen, hits;
};

struct fault_flash {
	struct flash f;
	struct flash *inner;
	bool volatile_cache, gone, cut, settling;
	struct rule_state rules[FAULT_RULES_MAX];
	int nrules;
	uint64_t hits;
	uint64_t events; /* counts completions and flush submissions */
	struct undo_list undos;
	struct ghost_list ghosts;
	uint32_t landing; /* ghosts the inner device has */
	struct fault_io *ios; /* depth of them */
};

static const struct flash_ops fault_ops;

static struct fault_flash *fault_of(const struct flash *f)
{
	assert(f->ops == &fault_ops);
	return container_of(f, struct fault_flash, f);
}

static void set_state(struct fault_io *x, enum state s)
{
	x->state = s;
}

static bool chance(struct fault_flash *ff, uint64_t one_in)
{
	return shard_random(ff->f.sh) % one_in == 0;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void complete(struct fault_io *x)
{
	struct flash_io *outer = x->outer;

	free(x->copy);
	x->copy = NULL;
	x->outer = NULL;
	set_state(x, STATE_FREE);
	flash_complete(&x->ff->f, outer, x->status);
}

static void advance(void *arg);

static void finish(struct fault_io *x, enum flash_status status)
{
	x->status = status;
	if (x->ff->settling) {
		set_state(x, STATE_HELD);
		return;
	}
	set_state(x, STATE_END);
	shard_defer(x->ff->f.sh, &x->task, advance, x);
}

static void undo_drop(struct fault_flash *ff, struct undo *u)
{
	TAILQ_REMOVE(&ff->undos, u, link);
	free(u);
}

/* A flush that worked: what had completed before it is durable. */
static void undo_flushed(struct fault_flash *ff, uint64_t event)
{
	struct undo *u = TAILQ_FIRST(&ff->undos), *next;

	for (; u; u = next) {
		next = TAILQ_NEXT(u, link);
		if (u->completed && u->completed_at < event)
			undo_drop(ff, u);
	}
}

/* ---- one I/O ---------------------------------------------------------------------------------- */

static void flip_a_bit(struct fault_flash *ff, uint8_t *p, uint64_t len)
{
	uint64_t bit = shard_random(ff->f.sh) % (len * 8);

	p[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

static void corrupt_read(struct fault_flash *ff, const struct flash_io *io)
{
	uint64_t at = shard_random(ff->f.sh) % io->len;

	for (int i = 0; i < io->niov; i++) {
		if (at < io->iov[i].iov_len) {
			flip_a_bit(ff, (uint8_t *)io->iov[i].iov_base + at, 1);
			return;
		}
		at -= io->iov[i].iov_len;
	}
}

static void inner_done(struct flash_io *io)
{
	struct fault_io *x = io->arg;
	struct fault_flash *ff = x->ff;
	enum flash_status status = io->status;

	if (x->state == STATE_OLD && status == FLASH_OK && !x->dead) {
		TAILQ_INSERT_TAIL(&ff->undos, x->undo, link);
		set_state(x, STATE_INNER_WAITS);
		advance(x);
		return;
	}
	if (x->state == STATE_OLD) {
		free(x->undo);
	} else if (x->undo && !ff->cut) {
		x->undo->completed = true;
		x->undo->completed_at = ++ff->events;
		if (!ff->volatile_cache)
			undo_drop(ff, x->undo);
	} else if (x->outer->op == FLASH_FLUSH && status == FLASH_OK && !x->dead) {
		undo_flushed(ff, x->event);
	} else if (x->outer->op == FLASH_READ && status == FLASH_OK && x->corrupt) {
		corrupt_read(ff, x->outer);
	}
	x->undo = NULL;
	if (status == FLASH_OK)
		status = x->forced;
	if (x->dead)
		status = FLASH_ERR_GONE;
	finish(x, status);
}

/* Hands the inner device what x->inner says, now or when it has room. */
static void inner_submit(struct fault_io *x, enum state waits, enum state submitted)
{
	int rc;

	set_state(x, submitted);
	rc = flash_submit(x->ff->inner, &x->inner);
	if (rc == -EAGAIN) {
		set_state(x, waits);
		shard_defer(x->ff->f.sh, &x->task, advance, x);
	} else if (rc < 0) {
		if (submitted == STATE_OLD)
			free(x->undo);
		x->undo = NULL;
		finish(x, FLASH_ERR_TRANSIENT);
	}
}

static bool is_write(const struct flash_io *io)
{
	return io->op == FLASH_WRITE || io->op == FLASH_WRITE_ZEROES;
}

/* How much of a write that fails (or only pretends) is stored: nothing, some of its first blocks, or all. */
static uint64_t stored_part(struct fault_io *x)
{
	struct fault_flash *ff = x->ff;
	uint64_t blocks = x->outer->len / ff->f.info.block_bytes;

	if (x->lost)
		return 0;
	if (x->forced == FLASH_OK || chance(ff, 3))
		return x->outer->len;
	return chance(ff, 2) ? 0 : shard_random(ff->f.sh) % blocks * ff->f.info.block_bytes;
}

static void start(struct fault_io *x)
{
	struct flash_io *io = x->outer;

	if (!is_write(io)) {
		if (x->forced != FLASH_OK) {
			finish(x, x->forced);
			return;
		}
		x->event = ++x->ff->events;
		set_state(x, STATE_INNER_WAITS);
		advance(x);
		return;
	}
	x->store_len = stored_part(x);
	if (!x->store_len) {
		finish(x, x->forced);
		return;
	}
	x->undo = malloc(sizeof(*x->undo) + x->store_len);
	if (!x->undo) {
		finish(x, FLASH_ERR_TRANSIENT);
		return;
	}
	x->undo->off = io->off;
	x->undo->len = x->store_len;
	x->undo->completed = false;
	set_state(x, STATE_OLD_WAITS);
	advance(x);
}

static void submit_old(struct fault_io *x)
{
	x->iov = (struct iovec){x->undo->old, x->undo->len};
	x->inner = (struct flash_io){.op = FLASH_READ,
		.off = x->undo->off,
		.len = x->undo->len,
		.iov = &x->iov,
		.niov = 1,
		.done_fn = inner_done,
		.arg = x};
	inner_submit(x, STATE_OLD_WAITS, STATE_OLD);
}

static void submit_inner(struct fault_io *x)
{
	const struct flash_io *io = x->outer;

	x->inner = (struct flash_io){.op = io->op,
		.off = io->off,
		.len = is_write(io) ? x->store_len : io->len,
		.iov = io->iov,
		.niov = io->niov,
		.checked = io->checked,
		.done_fn = inner_done,
		.arg = x};
	if (io->op == FLASH_WRITE && (x->corrupt || x->store_len < io->len)) {
		if (!x->copy) {
			x->copy = malloc(io->len);
			if (!x->copy) {
				undo_drop(x->ff, x->undo);
				x->undo = NULL;
				finish(x, FLASH_ERR_TRANSIENT);
				return;
			}
			flash_gather(io, x->copy);
			if (x->corrupt)
				flip_a_bit(x->ff, x->copy, x->store_len);
		}
		x->iov = (struct iovec){x->copy, x->store_len};
		x->inner.iov = &x->iov;
		x->inner.niov = 1;
	}
	inner_submit(x, STATE_INNER_WAITS, STATE_INNER);
}

static void advance(void *arg)
{
	struct fault_io *x = arg;

	switch (x->state) {
	case STATE_DELAYED:
		start(x);
		break;
	case STATE_OLD_WAITS:
		submit_old(x);
		break;
	case STATE_INNER_WAITS:
		submit_inner(x);
		break;
	case STATE_END:
		complete(x);
		break;
	default:
		assert(!"a state that waits for something else");
	}
}

/* ---- rules ------------------------------------------------------------------------------------- */

static bool rule_matches(const struct fault_rule *r, const struct flash_io *io)
{
	if (!r->any_op && r->op != io->op)
		return false;
	if (!r->len || io->op == FLASH_FLUSH)
		return true;
	return io->off < r->off + r->len && r->off < io->off + io->len;
}

static const struct fault_rule *rule_hit(struct fault_flash *ff, const struct flash_io *io)
{
	for (int i = 0; i < ff->nrules; i++) {
		struct rule_state *rs = &ff->rules[i];

		if (!rule_matches(&rs->rule, io) || rs->seen++ < rs->rule.skip ||
			(rs->rule.count && rs->hits >= rs->rule.count) ||
			shard_random(ff->f.sh) % 1000000 >= rs->rule.per_million)
			continue;
		rs->hits++;
		ff->hits++;
		return &rs->rule;
	}
	return NULL;
}

int fault_rule_add(struct flash *f, const struct fault_rule *rule)
{
	struct fault_flash *ff = fault_of(f);

	if ((unsigned int)rule->status >= FLASH_STATUS_COUNT)
		return -EINVAL;
	if (ff->nrules == FAULT_RULES_MAX)
		return -ENOSPC;
	ff->rules[ff->nrules] = (struct rule_state){.rule = *rule};
	return ff->nrules++;
}

void fault_rules_clear(struct flash *f)
{
	fault_of(f)->nrules = 0;
}

uint64_t fault_rule_hits(const struct flash *f, int rule)
{
	const struct fault_flash *ff = fault_of(f);

	return rule >= 0 && rule < ff->nrules ? ff->rules[rule].hits : 0;
}

uint64_t fault_hits(const struct flash *f)
{
	return fault_of(f)->hits;
}

/* ---- the device ---------------------------------------------------------------------------------- */

static struct fault_io *io_get(struct fault_flash *ff)
{
	/* The core lets at most depth of them in. A completion is never far from its neighbours, so this is short. */
	for (uint32_t i = 0;; i++)
		if (ff->ios[i].state == STATE_FREE)
			return &ff->ios[i];
}

static void delay_over(void *arg)
{
	advance(arg);
}

static int fault_submit(struct flash *f, struct flash_io *io)
{
	struct fault_flash *ff = fault_of(f);
	struct fault_io *x = io_get(ff);
	const struct fault_rule *r;
	int rc;

	x->ff = ff;
	x->outer = io;
	x->undo = NULL;
	x->copy = NULL;
	x->forced = FLASH_OK;
	x->corrupt = x->lost = x->dead = false;
	if (ff->cut || ff->gone) {
		finish(x, FLASH_ERR_GONE);
		return 0;
	}
	r = rule_hit(ff, io);
	if (!r) {
		start(x);
		return 0;
	}
	x->forced = r->status;
	x->corrupt = r->corrupt && io->len;
	x->lost = r->lost;
	if (r->delay_ns == UINT64_MAX) {
		set_state(x, STATE_HANGING);
	} else if (r->delay_ns) {
		rc = timer_arm(f->sh, &x->timer, shard_now_ns(f->sh) + r->delay_ns, delay_over, x);
		if (rc < 0)
			return rc;
		set_state(x, STATE_DELAYED);
	} else {
		start(x);
	}
	return 0;
}

static void fault_kick(struct flash *f)
{
	flash_kick(fault_of(f)->inner);
}

static void fault_abandon(struct flash *f);

static uint32_t fault_ghosts(const struct flash *f)
{
	return flash_ghosts(fault_of(f)->inner);
}

static void fault_timeouts(struct flash *f, uint32_t gone_ms)
{
	struct flash *inner = fault_of(f)->inner;

	if (inner->ops->timeouts)
		inner->ops->timeouts(inner, gone_ms);
}

static void fault_paths(const struct flash *f, struct flash_health *out)
{
	const struct flash *inner = fault_of(f)->inner;

	if (inner->ops->paths)
		inner->ops->paths(inner, out);
}

static int fault_claim(struct flash *f, uint64_t key, bool preempt, struct err *err)
{
	return flash_claim(fault_of(f)->inner, key, preempt, err);
}

static int fault_unclaim(struct flash *f, struct err *err)
{
	return flash_unclaim(fault_of(f)->inner, err);
}

static void fault_close(struct flash *f)
{
	struct fault_flash *ff = fault_of(f);
	struct ghost *g;

	while (ff->landing)
		shard_run_once(f->sh);
	while ((g = TAILQ_FIRST(&ff->ghosts))) {
		TAILQ_REMOVE(&ff->ghosts, g, link);
		free(g);
	}
	while (!TAILQ_EMPTY(&ff->undos))
		undo_drop(ff, TAILQ_FIRST(&ff->undos));
	flash_close(ff->inner);
	free(ff->ios);
	free(ff);
}

static const struct flash_ops fault_ops = {
	.close = fault_close,
	.submit = fault_submit,
	.kick = fault_kick,
	.abandon = fault_abandon,
	.ghosts = fault_ghosts,
	.timeouts = fault_timeouts,
	.paths = fault_paths,
	.claim = fault_claim,
	.unclaim = fault_unclaim,
};

int fault_open(struct shard *sh, struct flash *inner, bool volatile_cache, struct flash **out)
{
	struct fault_flash *ff = calloc(1, sizeof(*ff));

	if (!ff)
		return -ENOMEM;
	ff->ios = calloc(inner->info.depth, sizeof(ff->ios[0]));
	if (!ff->ios) {
		free(ff);
		return -ENOMEM;
	}
	TAILQ_INIT(&ff->undos);
	TAILQ_INIT(&ff->ghosts);
	ff->inner = inner;
	ff->volatile_cache = volatile_cache;
	ff->f = (struct flash){.ops = &fault_ops, .sh = sh, .info = inner->info};
	ff->f.info.volatile_cache = volatile_cache;
	ff->f.info.reads_once = false; /* torn and repeated writes */
	*out = &ff->f;
	return 0;
}

static const char volatile_prefix[] = "volatile:";

static const char *inner_address(const char *where)
{
	return strncmp(where, volatile_prefix, strlen(volatile_prefix)) == 0
		       ? where + strlen(volatile_prefix)
		       : where;
}

static int fault_open_address(struct shard *sh, const char *where, const struct flash_opts *opts,
	struct flash **out, struct err *err)
{
	const char *inner_where = inner_address(where);
	bool is_volatile = inner_where != where;
	struct flash *inner;
	int rc;

	rc = flash_open(sh, inner_where, opts, &inner, err);
	if (rc < 0)
		return rc;
	rc = fault_open(sh, inner, is_volatile || inner->info.volatile_cache, out);
	if (rc < 0) {
		flash_close(inner);
		err_set(err, rc, where, NULL, "no memory");
	}
	return rc;
}

static void fault_warm(struct shard *sh, const char *where, const struct flash_opts *opts)
{
	flash_warm(sh, inner_address(where), opts);
}

static bool fault_is_warm(struct shard *sh, const char *where)
{
	return flash_is_warm(sh, inner_address(where));
}

const struct flash_backend flash_backend_fault = {.scheme = "fault",
	.open = fault_open_address,
	.stacked = true,
	.warm = fault_warm,
	.is_warm = fault_is_warm};

struct flash *fault_inner(struct flash *f)
{
	return fault_of(f)->inner;
}

bool flash_is_fault(const struct flash *f)
{
	return f->ops == &fault_ops;
}

/* ---- disappearance, hanging ------------------------------------------------------------------------ */

/* What the inner device does not have yet will never get there. */
static void stop_waiting(struct fault_io *x)
{
	struct shard *sh = x->ff->f.sh;

	switch (x->state) {
	case STATE_DELAYED:
	case STATE_HANGING:
		timer_disarm(sh, &x->timer);
		shard_undefer(sh, &x->task); /* released a moment ago */
		break;
	case STATE_OLD_WAITS:
		shard_undefer(sh, &x->task);
		free(x->undo);
		break;
	case STATE_INNER_WAITS:
		shard_undefer(sh, &x->task);
		if (x->undo)
			undo_drop(x->ff, x->undo);
		break;
	case STATE_END: /* done, but nobody knows */
		shard_undefer(sh, &x->task);
		break;
	default:
		return;
	}
	x->undo = NULL;
	finish(x, FLASH_ERR_GONE);
}

static void kill_in_flight(struct fault_flash *ff)
{
	for (uint32_t i = 0; i < ff->f.info.depth; i++) {
		struct fault_io *x = &ff->ios[i];

		if (x->state == STATE_FREE)
			continue;
		x->dead = true;
		stop_waiting(x);
	}
}

void fault_set_gone(struct flash *f, bool gone)
{
	struct fault_flash *ff = fault_of(f);

	ff->gone = gone;
	if (gone)
		kill_in_flight(ff);
}

/* What is in flight will not be seen to end. A write's bytes are kept where it hangs: the owner's memory is the owner's again. */
static void keep_ghost(struct fault_io *x)
{
	struct flash_io *io = x->outer;
	struct ghost *g = malloc(sizeof(*g) + io->len);

	if (!g)
		return; /* it never lands: that may happen to ghosts */
	flash_gather(io, g->bytes);
	g->ff = x->ff;
	g->iov = (struct iovec){g->bytes, io->len};
	g->io = (struct flash_io){
		.op = FLASH_WRITE, .off = io->off, .len = io->len, .iov = &g->iov, .niov = 1};
	TAILQ_INSERT_TAIL(&x->ff->ghosts, g, link);
	x->ff->f.ghosts++;
}

static void fault_abandon(struct flash *f)
{
	struct fault_flash *ff = fault_of(f);

	for (uint32_t i = 0; i < f->info.depth; i++) {
		struct fault_io *x = &ff->ios[i];

		if (x->state == STATE_HANGING && x->outer->op == FLASH_WRITE)
			keep_ghost(x);
	}
	if (ff->inner->in_flight)
		flash_abandon(ff->inner);
	kill_in_flight(ff);
}

static void ghost_landed(struct flash_io *io)
{
	struct ghost *g = container_of(io, struct ghost, io);

	g->ff->landing--;
	g->ff->f.ghosts--;
	free(g);
}

static void ghosts_land(struct fault_flash *ff)
{
	struct ghost *g;

	while ((g = TAILQ_FIRST(&ff->ghosts))) {
		TAILQ_REMOVE(&ff->ghosts, g, link);
		g->io.done_fn = ghost_landed;
		ff->landing++;
		if (flash_submit(ff->inner, &g->io) < 0)
			ghost_landed(&g->io);
	}
}

void fault_release(struct flash *f)
{
	struct fault_flash *ff = fault_of(f);

	ghosts_land(ff);
	for (uint32_t i = 0; i < f->info.depth; i++) {
		struct fault_io *x = &ff->ios[i];

		if (x->state == STATE_HANGING) {
			set_state(x, STATE_DELAYED);
			shard_defer(f->sh, &x->task, advance, x);
		}
	}
}

uint32_t fault_hanging(const struct flash *f)
{
	struct fault_flash *ff = fault_of(f);
	uint32_t n = 0;

	for (uint32_t i = 0; i < f->info.depth; i++)
		n += ff->ios[i].state == STATE_HANGING;
	return n;
}

/* ---- power ------------------------------------------------------------------------------------------ */

enum fate { FATE_KEPT, FATE_LOST, FATE_TORN };

static enum fate choose_fate(struct fault_flash *ff, const struct undo *u, bool power)
{
	if (!power && u->completed)
		return FATE_KEPT;
	switch (shard_random(ff->f.sh) % 4) {
	case 0:
		return FATE_LOST;
	case 1:
		return FATE_TORN;
	default:
		return FATE_KEPT;
	}
}

static void bit_set(uint8_t *map, uint64_t n)
{
	map[n / 8] |= (uint8_t)(1u << n % 8);
}

/*
 * Puts back what u replaced, where its fate says so. From the newest to the oldest: a block whose newer write was kept is
 * settled, and older fates no longer matter to it.
 */
static int settle_one(struct fault_flash *ff, struct undo *u, enum fate fate, uint8_t *settled)
{
	uint32_t block = ff->f.info.block_bytes, unit = MAX(ff->f.info.atomic_bytes, block);
	bool unit_kept = true;

	for (uint64_t at = u->off; at < u->off + u->len; at += block) {
		uint64_t n = at / block;
		int rc;

		if (at == u->off || at % unit == 0)
			unit_kept = fate == FATE_KEPT || (fate == FATE_TORN && chance(ff, 2));
		if (settled[n / 8] >> n % 8 & 1)
			continue;
		if (unit_kept) {
			bit_set(settled, n);
			continue;
		}
		rc = flash_rw_sync(ff->inner, FLASH_WRITE, at, u->old + (at - u->off), block);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int settle(struct fault_flash *ff, bool power)
{
	uint8_t *settled = calloc(ff->f.info.size_bytes / ff->f.info.block_bytes / 8 + 1, 1);
	struct undo *u;
	int rc = 0;

	if (!settled)
		return -ENOMEM;
	while (rc == 0 && (u = TAILQ_LAST(&ff->undos, undo_list))) {
		rc = settle_one(ff, u, choose_fate(ff, u, power), settled);
		undo_drop(ff, u);
	}
	free(settled);
	return rc;
}

struct cut {
	struct flash *const *devs;
	unsigned int n;
};

static bool inner_is_idle(void *arg)
{
	const struct cut *c = arg;

	for (unsigned int i = 0; i < c->n; i++)
		if (fault_of(c->devs[i])->inner->in_flight)
			return false;
	return true;
}

static void let_go(struct fault_flash *ff)
{
	ff->settling = false;
	for (uint32_t i = 0; i < ff->f.info.depth; i++)
		if (ff->ios[i].state == STATE_HELD)
			finish(&ff->ios[i], FLASH_ERR_GONE);
}

static int cut(struct flash *const *devs, unsigned int n, bool power)
{
	struct cut c = {.devs = devs, .n = n};
	int rc;

	/* All of them before anything else runs; and what the stack above does meanwhile is held back from it. */
	for (unsigned int i = 0; i < n; i++) {
		struct fault_flash *ff = fault_of(devs[i]);

		ff->cut = ff->settling = true;
		kill_in_flight(ff);
	}
	rc = shard_wait(devs[0]->sh, inner_is_idle, &c, 0);
	for (unsigned int i = 0; i < n && rc == 0; i++)
		rc = settle(fault_of(devs[i]), power);
	for (unsigned int i = 0; i < n; i++)
		let_go(fault_of(devs[i]));
	return rc;
}

int fault_power_cut(struct flash *const *devs, unsigned int n)
{
	return n ? cut(devs, n, true) : 0;
}

int fault_process_kill(struct flash *const *devs, unsigned int n)
{
	return n ? cut(devs, n, false) : 0;
}

void fault_power_on(struct flash *f)
{
	fault_of(f)->cut = false;
}
