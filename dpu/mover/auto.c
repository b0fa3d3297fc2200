/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What starts by itself: a rebuild for a device that failed or is away, the restore of data areas that were on it, the scrub of a device that is back,
 * and the scrub whose time has come.
 */
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/mover/mover_priv.h"

#define LOOK_NS (10 * MOVER_S)

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static bool is_down(const struct mover *m, unsigned int dev)
{
	enum pool_dev_state s = pool_dev(m->pool, dev)->state;

	return s == POOL_DEV_FAILED || s == POOL_DEV_MISSING;
}

static void dev_changed(void *arg, unsigned int dev)
{
	struct mover *m = arg;

	if (!pool_dev_usable(m->pool, dev))
		m->spares &= ~(1ull << dev);
	m->auto_ns = 0; /* looked at in the next round: not from inside whoever found it out */
}

static void note_devices(struct mover *m, uint64_t now)
{
	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++) {
		uint64_t bit = 1ull << d;

		if (is_down(m, d) && !(m->down & bit)) {
			m->down |= bit;
			m->failed_ns[d] = now;
		} else if (!is_down(m, d)) {
			m->down &= ~bit;
			m->rebuilt &= ~bit;
		}
	}
}

/*
 * A node that is gone is its devices gone, together: one decision, counted from when the last of them was found out. Where others of its node are still there
 * a device is for itself.
 */
static uint64_t due_ns(const struct mover *m, unsigned int dev)
{
	uint64_t last = m->failed_ns[dev];

	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++) {
		if (pool_dev(m->pool, d)->state == POOL_DEV_REMOVED ||
			strcmp(pool_dev(m->pool, d)->domain, pool_dev(m->pool, dev)->domain) != 0)
			continue;
		if (!(m->down >> d & 1)) {
			last = m->failed_ns[dev];
			break;
		}
		last = MAX(last, m->failed_ns[d]);
	}
	return last + m->settings.rebuild_delay_s * MOVER_S;
}

int mover_choose_dev(struct mover *m, uint64_t not_devs)
{
	int best = POOL_DEV_NONE;

	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++) {
		const struct pool_dev *pd = pool_dev(m->pool, d);

		if (not_devs >> d & 1 || !pool_dev_placeable(m->pool, d) || !pd->free_segments)
			continue;
		if (best < 0 ||
			pd->free_segments > pool_dev(m->pool, (unsigned int)best)->free_segments)
			best = (int)d;
	}
	return best;
}

/* The volume's data device, or another one with room where it is down and that is wanted. From the loop: waits through shard_wait(). */
static bool has_home(struct mover *m, struct volume *v)
{
	const struct volume_cfg *c = volume_cfg(v);
	uint64_t not = c->intermediate_dev == POOL_DEV_NONE ? 0 : 1ull << c->intermediate_dev;
	struct err e = {0};
	int dev;

	if (pool_dev_usable(m->pool, (unsigned int)c->data_dev))
		return true;
	if (!m->settings.auto_restore)
		return false;
	dev = mover_choose_dev(m, not );
	if (dev == POOL_DEV_NONE)
		return false;
	if (volume_set_devs(v, dev, c->intermediate_dev, &e) < 0) {
		log_warn("mover: %s", err_text(&e));
		return false;
	}
	log_info("mover: the data area of %s goes to %s", c->name,
		pool_dev(m->pool, (unsigned int)dev)->name);
	return true;
}

static bool has_pieces_on(struct mover *m, struct volume *v, uint64_t devs)
{
	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++) {
		struct piece_at at = {.vol = v};
		bool found = devs >> d & 1 && piece_find(m->s, (int)d, &at);

		for (; found && at.vol == v; found = piece_next(m->s, (int)d, &at))
			if (!piece_is_only_copy(&at))
				return true;
	}
	return false;
}

/* Areas on devices whose rebuild is due. Pieces with plain blocks wait for the device, or for an operator who gives them up. */
static void start_restores(struct mover *m, uint64_t due)
{
	struct volume *v, *next;

	for (v = volume_first(m->s); v && due; v = next) {
		uint32_t id = volume_id(v);

		next = volume_next(v);
		if (!volume_by_id(m->s, id) || task_find(m, MOVER_RESTORE, POOL_DEV_NONE, id) ||
			!has_pieces_on(m, v, due) || !has_home(m, v))
			continue;
		task_start(m, &(struct mover_job){
				      .reason = MOVER_RESTORE, .dev = POOL_DEV_NONE, .volume = v});
	}
}

bool mover_dev_in_doubt(const struct mover *m, unsigned int dev)
{
	return dev < pool_ndevs(m->pool) && pool_dev(m->pool, dev)->state == POOL_DEV_REBUILDING &&
	       !(m->spares >> dev & 1);
}

/* The watermark has passed what they had in their caches when they failed, and a write they acknowledged then may be lost. */
static void check_returned(struct mover *m)
{
	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++)
		if (mover_dev_in_doubt(m, d) && !task_find(m, MOVER_SCRUB, (int)d, 0))
			task_start(m, &(struct mover_job){.reason = MOVER_SCRUB, .dev = (int)d});
}

static void look_at_devices(struct mover *m, uint64_t now)
{
	uint64_t due = 0;

	note_devices(m, now);
	evacuate_give_way(m);
	check_returned(m);
	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++) {
		uint64_t bit = 1ull << d;

		if (!(m->down & bit) || now < due_ns(m, d))
			continue;
		due |= bit;
		if (m->rebuilt & bit || !stripelog_dev_segments(m->log, d))
			continue;
		m->rebuilt |= bit;
		if (!task_find(m, MOVER_REBUILD, (int)d, 0))
			task_start(m, &(struct mover_job){.reason = MOVER_REBUILD, .dev = (int)d});
	}
	start_restores(m, due);
	/* Those of a rebuild that ended just before the card did. */
	rebuild_spares_are_members(m, NULL);
}

/* ---- scrub ------------------------------------------------------------------------------------------------------------ */

static void look_at_scrub(struct mover *m)
{
	uint64_t now = mover_wall_s(m);

	if (!m->settings.scrub_interval_s || task_find(m, MOVER_SCRUB, POOL_DEV_NONE, 0))
		return;
	if (now < m->scrubbed_s) {
		m->scrubbed_s = now; /* the clock was put back */
		return;
	}
	if (now - m->scrubbed_s >= m->settings.scrub_interval_s)
		task_start(m, &(struct mover_job){.reason = MOVER_SCRUB, .dev = POOL_DEV_NONE});
}

/* ---- when ----------------------------------------------------------------------------------------------------------------- */

static void auto_look(void *arg)
{
	struct mover *m = arg;

	if (m->closing || pool_is_lost(m->pool, NULL))
		return;
	look_at_devices(m, shard_now_ns(m->sh));
	look_at_scrub(m);
}

/* The look itself is a task: it may wait, and the mover goes on meanwhile. */
void auto_poll(struct mover *m)
{
	uint64_t now = shard_now_ns(m->sh);

	if (now < m->auto_ns)
		return;
	m->auto_ns = MIN(now + LOOK_NS, MAX(auto_next_ns(m), now + 1));
	shard_defer(m->sh, &m->auto_task, auto_look, m);
}

/* When something will be due: virtual time jumps there. */
uint64_t auto_next_ns(const struct mover *m)
{
	uint64_t now = shard_now_ns(m->sh), at = UINT64_MAX, wall = mover_wall_s(m);

	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++)
		if (m->down >> d & 1 && !(m->rebuilt >> d & 1) && due_ns(m, d) > now)
			at = MIN(at, due_ns(m, d));
	for (unsigned int d = 0; d < pool_ndevs(m->pool); d++)
		if (mover_dev_in_doubt(m, d) && !task_find(m, MOVER_SCRUB, (int)d, 0))
			at = MIN(at, now + MOVER_S);
	if (m->settings.scrub_interval_s && !task_find(m, MOVER_SCRUB, POOL_DEV_NONE, 0)) {
		uint64_t due = m->scrubbed_s + m->settings.scrub_interval_s;

		at = MIN(at, now + (due > wall ? due - wall : 0) * MOVER_S + MOVER_MS);
	}
	return at;
}

void auto_open(struct mover *m)
{
	pool_on_dev_change(m->pool, &m->listener, dev_changed, m);
}

void auto_close(struct mover *m)
{
	pool_listener_del(m->pool, &m->listener);
	shard_undefer(m->sh, &m->auto_task);
}
