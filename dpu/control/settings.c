/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Settings of a pool beside its code: thresholds of devices and of space (kept in the card's state directory, put in force whenever a pool
 * opens) and what the mover does of its own accord (kept in the pool itself). And what follows from them for VMs: their health log.
 */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "dpu/pool/health.h"
#include "dpu/stripelog/stripelog.h"

#include <errno.h>
#include <string.h>

#define STATE_SETTINGS    "settings" /* a packed parapet.PoolSettings: those of the card */
#define WARNING_DEFAULT   80u
#define CRITICAL_DEFAULT  95u
#define ERRORS_WINDOW_MIN 1u

/* ---- kept by the card --------------------------------------------------------------------------------------------- */

void settings_recall(struct card *c)
{
	autofree void *body = NULL;
	Parapet__PoolSettings *msg = NULL;
	struct err e = {0};
	size_t len;
	int rc = state_load(c->state, STATE_SETTINGS, &body, &len, &e);

	parapet__pool_settings__init(&c->settings);
	if (rc == -ENOENT)
		return;
	if (rc == 0)
		msg = parapet__pool_settings__unpack(NULL, len, body);
	if (!msg) {
		event_post(c->events, EVENT_ERROR, "settings-lost", "pool",
			"%s; the defaults are in force",
			rc < 0 ? err_text(&e) : "they cannot be read");
		return;
	}
	c->settings = *msg; /* numbers only */
	c->settings.base.unknown_fields = NULL;
	c->settings.base.n_unknown_fields = 0;
	parapet__pool_settings__free_unpacked(msg, NULL);
}

static int keep(struct card *c, const Parapet__PoolSettings *s, struct err *e)
{
	size_t len = parapet__pool_settings__get_packed_size(s);
	autofree uint8_t *p = malloc(len + 1);

	if (!p)
		return err_set(e, -ENOMEM, "pool", NULL, "out of memory");
	parapet__pool_settings__pack(s, p);
	return state_save(c->state, STATE_SETTINGS, p, len, e);
}

/* ---- in force ---------------------------------------------------------------------------------------------------------- */

static uint32_t or_default(bool has, uint32_t value, uint32_t dflt)
{
	return has && value ? value : dflt;
}

static struct pool_health_cfg health_of(const Parapet__PoolSettings *s)
{
	struct pool_health_cfg h = POOL_HEALTH_DEFAULT;

	h.slow_ms = or_default(s->has_suspect_ms, s->suspect_ms, h.slow_ms);
	h.gone_ms = or_default(s->has_timeout_ms, s->timeout_ms, h.gone_ms);
	h.fail_errors = or_default(s->has_error_limit, s->error_limit, h.fail_errors);
	/* One of them alone must not contradict the other's default. */
	if (!or_default(s->has_suspect_ms, s->suspect_ms, 0))
		h.slow_ms = MIN(h.slow_ms, h.gone_ms);
	if (!or_default(s->has_timeout_ms, s->timeout_ms, 0))
		h.gone_ms = MAX(h.slow_ms, h.gone_ms);
	return h;
}

static int card_settings_in_force(struct card *c, const Parapet__PoolSettings *s, struct err *e)
{
	uint32_t warning = or_default(s->has_space_warning, s->space_warning, WARNING_DEFAULT);
	uint32_t critical = or_default(s->has_space_critical, s->space_critical, CRITICAL_DEFAULT);
	struct pool_health_cfg h = health_of(s);
	int rc;

	if (warning > critical && !or_default(s->has_space_warning, s->space_warning, 0))
		warning = critical > 1 ? critical - 1 : 1;
	if (critical <= warning && !or_default(s->has_space_critical, s->space_critical, 0))
		critical = MIN(warning + 1, 100u);
	if (warning >= critical || critical > 100)
		return err_set(e, -EINVAL, "pool", "space_warning",
			"%u %% and %u %%: warning must be below critical, and that at most 100",
			warning, critical);
	rc = pool_health_set(store_pool(c->store), &h, e);
	if (rc == 0)
		rc = store_set_space_levels(c->store, warning, critical);
	if (rc < 0)
		return e && e->reason[0] ? rc
					 : err_set(e, rc, "pool", "settings", "%s", strerror(-rc));
	return 0;
}

void settings_in_pool(struct card *c)
{
	struct err e = {0};

	if (card_settings_in_force(c, &c->settings, &e) < 0)
		event_post(c->events, EVENT_ERROR, "settings", "pool", "%s", err_text(&e));
}

/* Those the request names; 0 is the default. */
#define TAKE(to, from, name)                       \
	do {                                       \
		if ((from)->has_##name) {          \
			(to)->has_##name = true;   \
			(to)->name = (from)->name; \
		}                                  \
	} while (0)

static int mover_settings_set(struct card *c, const Parapet__PoolSettings *s, struct err *e)
{
	struct mover_settings m;

	if (!s->has_scrub_interval_s && !s->has_rebuild_delay_s && !s->has_auto_restore)
		return 0;
	if (s->has_scrub_interval_s && s->scrub_interval_s > UINT32_MAX)
		return err_set(e, -EINVAL, "pool", "scrub_interval_s", "too long");
	mover_settings(c->mover, &m);
	if (s->has_scrub_interval_s)
		m.scrub_interval_s = (uint32_t)s->scrub_interval_s;
	if (s->has_rebuild_delay_s)
		m.rebuild_delay_s = s->rebuild_delay_s;
	if (s->has_auto_restore)
		m.auto_restore = s->auto_restore;
	return mover_set(c->mover, &m, e);
}

int settings_set(struct card *c, const Parapet__PoolSettings *s, struct err *e)
{
	Parapet__PoolSettings next = c->settings;
	int rc;

	TAKE(&next, s, suspect_ms);
	TAKE(&next, s, timeout_ms);
	TAKE(&next, s, error_limit);
	TAKE(&next, s, space_warning);
	TAKE(&next, s, space_critical);
	TAKE(&next, s, auto_return);
	rc = card_settings_in_force(c, &next, e);
	if (rc == 0)
		rc = keep(c, &next, e);
	if (rc == 0)
		rc = mover_settings_set(c, s, e);
	if (rc < 0) {
		settings_in_pool(c); /* those of before */
		return rc;
	}
	c->settings = next;
	return 0;
}

int settings_fill(const struct card *card, struct call *c, Parapet__PoolStatus *s)
{
	Parapet__PoolSettings *m = call_message(
		c, Parapet__PoolSettings, parapet__pool_settings__init);
	struct mover_settings ms;

	if (!m)
		return -ENOMEM;
	*m = card->settings;
	if (!m->has_auto_return)
		m->has_auto_return = m->auto_return = true;
	if (card->mover) {
		mover_settings(card->mover, &ms);
		m->has_scrub_interval_s = m->has_rebuild_delay_s = m->has_auto_restore = true;
		m->scrub_interval_s = ms.scrub_interval_s;
		m->rebuild_delay_s = ms.rebuild_delay_s;
		m->auto_restore = ms.auto_restore;
	}
	s->settings = m;
	return 0;
}

/* ---- what VMs are told ------------------------------------------------------------------------------------------------------ */

uint32_t space_used_percent(const struct card *c)
{
	struct log_space sp;

	stripelog_space(store_log(c->store), &sp);
	if (!sp.limit_bytes)
		return 0;
	return (uint32_t)MIN(sp.live_bytes * 100 / sp.limit_bytes, (uint64_t)100);
}

static uint8_t most_worn(const struct pool *p)
{
	struct flash_health h;
	uint8_t worst = 0;

	for (unsigned int i = 0; i < pool_ndevs(p); i++) {
		if (!pool_dev(p, i)->flash)
			continue;
		flash_health(pool_dev(p, i)->flash, &h);
		if (h.smart.known)
			worst = MAX(worst, h.smart.used_percent);
	}
	return worst;
}

void health_look(struct card *c)
{
	struct nvme_tcp_health h = {.spare_percent = 100,
		.spare_threshold = (uint8_t)(100 - or_default(c->settings.has_space_critical,
							   c->settings.space_critical,
							   CRITICAL_DEFAULT))};

	if (c->store) {
		h.spare_percent = (uint8_t)(100 - space_used_percent(c));
		/* The level is what counts, and it has a hysteresis of its own: percents are rounded. */
		if (store_space_level(c->store) == STORE_SPACE_CRITICAL)
			h.spare_percent = h.spare_threshold ? h.spare_threshold - 1 : 0;
		else
			h.spare_percent = MAX(h.spare_percent, h.spare_threshold);
		h.used_percent = most_worn(store_pool(c->store));
		h.unreliable = survives_nothing(c);
	}
	nvme_tcp_target_set_health(c->target, &h);
}
