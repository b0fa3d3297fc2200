/* SPDX-License-Identifier: BSD-3-Clause */
/* The card's pool: created or opened from flash addresses, and remembered by them. */
#include "dpu/control/card_priv.h"

#include "dpu/control/shard_move.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "common/nvme/address.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define STATE_POOL "pool" /* a packed parapet.PoolOpen: the members by name and address */

/* ---- what the store tells -------------------------------------------------------------------------------------- */

/* The store names devices of the pool and volumes; people know them as flash and as devices of VMs. */
const char *user_object(const struct card *c, const char *object, char *buf, size_t len)
{
	struct volume *vol = c->store ? volume_find(c->store, object) : NULL;
	const struct policy_vm *v;
	struct device_id id;

	if (vol && device_parse(vol, &id) == 0) {
		v = tables_doc_policy_vm(c->doc, id.vm);
		snprintf(buf, len, "device %s of vm %.32s", id.path, v ? v->name : "?");
		return buf;
	}
	if (c->store && pool_dev_find(store_pool(c->store), object) >= 0)
		return object_name(buf, len, "flash", object);
	return "pool";
}

static void store_event(void *arg, enum store_event_kind kind, const char *object, const char *text)
{
	static const struct {
		const char *name;
		enum event_severity severity;
	} kinds[] = {
		[STORE_EVENT_DEV_FAILED] = {"flash-failed", EVENT_ERROR},
		[STORE_EVENT_DEV_SUSPECT] = {"flash-suspect", EVENT_WARNING},
		[STORE_EVENT_DEV_STATE] = {"flash-state", EVENT_INFO},
		[STORE_EVENT_DEGRADED] = {"degraded", EVENT_WARNING},
		[STORE_EVENT_SPACE_LOW] = {"space-low", EVENT_WARNING},
		[STORE_EVENT_NO_SPACE] = {"no-space", EVENT_ERROR},
		[STORE_EVENT_MAP_FULL] = {"map-full", EVENT_ERROR},
		[STORE_EVENT_DATA_AREA_LOST] = {"data-area-lost", EVENT_WARNING},
		[STORE_EVENT_REPAIRED] = {"repaired", EVENT_INFO},
		[STORE_EVENT_MEDIA_ERROR] = {"media-error", EVENT_ERROR},
		[STORE_EVENT_RECOVERED] = {"recovered", EVENT_INFO},
		[STORE_EVENT_SPACE_CRITICAL] = {"space-critical", EVENT_ERROR},
		[STORE_EVENT_SPACE_OK] = {"space-ok", EVENT_INFO},
		[STORE_EVENT_CHECKPOINT_FAILED] = {"checkpoint-failed", EVENT_WARNING},
		[STORE_EVENT_FENCED] = {"fenced", EVENT_ERROR},
		[STORE_EVENT_BLOCKS_LOST] = {"blocks-lost", EVENT_ERROR},
	};
	struct card *c = arg;
	bool known = (unsigned int)kind < ARRAY_LEN(kinds);
	char name[96];

	event_post(c->events, known ? kinds[kind].severity : EVENT_WARNING,
		known ? kinds[kind].name : "store",
		user_object(c, object ? object : "", name, sizeof(name)), "%s", text ? text : "");
	if (kind == STORE_EVENT_DEV_FAILED)
		flash_tell_failed(c, object);
}

/* ---- members --------------------------------------------------------------------------------------------------- */

/* What fails together. Nobody said: a device on a peer goes with its node, as far as its first address tells. */
static int take_domain(const Parapet__Flash *f, char domain[64], const char *object, struct err *e)
{
	struct nvme_address a;
	int rc;

	snprintf(domain, 64, "%s", f->domain && f->domain[0] ? f->domain : "local");
	if (f->domain && f->domain[0])
		return policy_check_name(f->domain, object, "domain", e);
	if (!nvme_address_is_remote(f->address))
		return 0;
	rc = nvme_address_parse(f->address, &a, object, "address", e);
	if (rc == 0)
		nvme_address_domain(&a, domain);
	return rc;
}

int card_flash_take(const Parapet__Flash *f, struct card_flash *out, struct err *e)
{
	char object[96];
	int rc = policy_check_name(f->name, "flash", "name", e);

	if (rc < 0)
		return rc;
	object_name(object, sizeof(object), "flash", f->name);
	if (strlen(f->address) >= sizeof(out->address))
		return err_set(e, -EINVAL, object, "address", "at most %zu bytes",
			sizeof(out->address) - 1);
	snprintf(out->name, sizeof(out->name), "%s", f->name);
	snprintf(out->address, sizeof(out->address), "%s", f->address);
	rc = take_domain(f, out->domain, object, e);
	out->atomic_bytes = f->atomic_bytes;
	out->block_bytes = f->block_bytes;
	out->cut_bytes = f->cut_bytes;
	out->leaving = f->leaving;
	return rc;
}

/* Memory without a name is new memory each time; another spelling of a file meets the lock on it. */
bool card_flash_same(const struct card_flash *a, const struct card_flash *b)
{
	return strncmp(a->address, "mem:", 4) && !strcmp(a->address, b->address);
}

static int flashes_take(
	Parapet__Flash *const *list, size_t n, struct card_flash *out, struct err *e)
{
	int rc = 0;

	if (n > POOL_DEVS_MAX)
		return err_set(e, -E2BIG, "pool", "flashes", "at most %d", POOL_DEVS_MAX);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		rc = card_flash_take(list[i], &out[i], e);
		for (size_t j = 0; rc == 0 && j < i; j++)
			if (!strcmp(out[i].name, out[j].name) || card_flash_same(&out[i], &out[j]))
				rc = err_set(e, -EEXIST, "pool", "flashes",
					"flash %s is named twice (as %s)", out[i].name,
					out[j].name);
	}
	return rc;
}

/* Each shard has its slice of every flash. */
struct flash_opts pool_flash_opts(const struct card *c, const struct card_flash *f)
{
	bool cut = c->count > 1;

	return (struct flash_opts){.exclusive = true,
		.atomic_bytes = f->atomic_bytes,
		.block_bytes = f->block_bytes,
		.host_id = c->id,
		.slice = cut ? c->cfg.index : 0,
		.slices = cut ? c->count : 0,
		.cut_bytes = cut ? f->cut_bytes : 0};
}

static void members_close(struct pool_member *m, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		flash_close(m[i].flash);
}

/* Opens the flash devices. One that is not there is skipped where some_missing; one that another process uses never is. */
static int members_open(struct card *c, struct card_flash *f, unsigned int n, bool some_missing,
	struct pool_member *m, unsigned int *nm, struct err *e)
{
	*nm = 0;
	/* All at once: a node that is gone costs the time of one connection, not of one for each of its devices. */
	for (unsigned int i = 0; i < n; i++) {
		struct flash_opts opts = pool_flash_opts(c, &f[i]);

		if (nvme_address_is_remote(f[i].address))
			flash_warm(c->cfg.shard, f[i].address, &opts);
	}
	for (unsigned int i = 0; i < n; i++) {
		struct flash_opts opts = pool_flash_opts(c, &f[i]);
		struct err why = {0};
		struct flash *flash;
		char object[96];
		int rc = flash_open(c->cfg.shard, f[i].address, &opts, &flash, &why);

		object_name(object, sizeof(object), "flash", f[i].name);
		if (rc < 0 && some_missing && rc != -EBUSY) {
			event_post(c->events, EVENT_ERROR, "flash-missing", object, "%s: %s",
				f[i].address, why.reason[0] ? why.reason : strerror(-rc));
			continue;
		}
		if (rc < 0) {
			members_close(m, *nm);
			return err_set(e, rc, object, why.field[0] ? why.field : "address",
				"%s: %s", f[i].address, why.reason[0] ? why.reason : strerror(-rc));
		}
		memcpy(m[*nm].name, f[i].name, sizeof(m[*nm].name));
		memcpy(m[*nm].domain, f[i].domain, sizeof(m[*nm].domain));
		m[*nm].flash = flash;
		f[i].cut_bytes = flash_info(flash)->cut_bytes;
		(*nm)++;
	}
	return 0;
}

/* What the superblocks at the start of the device say, which slice 0 has; whoever uses it. */
static int probe_one(
	struct card *c, const struct card_flash *f, struct pool_probe *out, struct err *e)
{
	const struct flash_opts opts = {
		.atomic_bytes = f->atomic_bytes, .block_bytes = f->block_bytes, .host_id = c->id};

	return pool_probe(c->cfg.shard, f->address, &opts, out, e);
}

/* ---- the remembered pool ------------------------------------------------------------------------------------------ */

static int remember(struct card *c, const struct card_flash *f, unsigned int n, struct err *e)
{
	Parapet__PoolOpen msg = PARAPET__POOL_OPEN__INIT;
	Parapet__Flash items[POOL_DEVS_MAX], *list[POOL_DEVS_MAX];
	autofree uint8_t *p = NULL;
	size_t len;

	for (unsigned int i = 0; i < n; i++) {
		parapet__flash__init(&items[i]);
		items[i].name = (char *)f[i].name;
		items[i].address = (char *)f[i].address;
		items[i].domain = (char *)f[i].domain;
		items[i].has_atomic_bytes = items[i].has_block_bytes = true;
		items[i].atomic_bytes = f[i].atomic_bytes;
		items[i].block_bytes = f[i].block_bytes;
		items[i].has_leaving = items[i].leaving = f[i].leaving;
		items[i].has_cut_bytes = f[i].cut_bytes != 0;
		items[i].cut_bytes = f[i].cut_bytes;
		list[i] = &items[i];
	}
	msg.n_flashes = n;
	msg.flashes = list;
	len = parapet__pool_open__get_packed_size(&msg);
	p = malloc(len);
	if (!p)
		return err_set(e, -ENOMEM, "pool", NULL, "out of memory");
	parapet__pool_open__pack(&msg, p);
	return state_save(c->state, STATE_POOL, p, len, e);
}

int pool_remember(struct card *c, struct err *e)
{
	return remember(c, c->flashes, c->nflashes, e);
}

static int forget(struct card *c, struct err *e)
{
	c->nflashes = 0;
	return state_remove(c->state, STATE_POOL, e);
}

/* 0, or -ENOENT where there is none. */
static int recall(struct card *c, struct err *e)
{
	autofree void *body = NULL;
	Parapet__PoolOpen *msg;
	size_t len;
	int rc = state_load(c->state, STATE_POOL, &body, &len, e);

	if (rc < 0)
		return rc;
	msg = parapet__pool_open__unpack(NULL, len, body);
	if (!msg)
		return err_set(e, -EUCLEAN, "state pool", NULL, "it cannot be read");
	rc = flashes_take(msg->flashes, msg->n_flashes, c->flashes, e);
	if (rc == 0)
		c->nflashes = (unsigned int)msg->n_flashes;
	parapet__pool_open__free_unpacked(msg, NULL);
	return rc;
}

void pool_recall(struct card *c)
{
	struct err e = {0};
	int rc = recall(c, &e);

	if (rc == -ENOENT && c->cfg.first)
		err_set(&e, rc, "pool", NULL,
			"shard 0 has one, this shard remembers none; allowed: 'pool open' with its "
			"flash devices");
	if (rc < 0 && (rc != -ENOENT || c->cfg.first))
		snprintf(c->pool_problem, sizeof(c->pool_problem), "%s", err_text(&e));
}

bool card_remembers_pool(const struct card *c)
{
	return c->nflashes || c->pool_problem[0];
}

/* ---- up and down --------------------------------------------------------------------------------------------------- */

/* The VMs learn of the devices (and of a write cache): they are brought up anew. */
void pool_in_use(struct card *c)
{
	struct err e = {0};

	c->pool_problem[0] = 0;
	vms_take_down(c);
	if (devices_publish(c, c->doc, &e) < 0 || vms_reconcile(c, c->doc, false, &e) < 0)
		event_post(c->events, EVENT_ERROR, "vm-down", "card", "%s", err_text(&e));
}

static int store_up(struct card *c, struct pool *pool, bool force, struct err *e)
{
	struct store_cfg cfg = {.pool = pool,
		.ec = EC_ISAL,
		.queue = queue_cfg_of(c->doc),
		.force = force,
		.progress = &c->progress,
		/* A mapped block takes 10 bytes of map and is given 6 of stripe table (hwdocs/budget.md). */
		.map_bytes = c->cfg.map_bytes / c->count / 16 * 10,
		.table_bytes = c->cfg.map_bytes / c->count / 16 * 6};
	struct store *s;
	int rc = store_open(&cfg, &s, e);

	if (rc < 0) {
		pool_close(pool);
		return rc;
	}
	c->store = s; /* not before it is open: those who only look go on looking meanwhile */
	c->told = 0;
	atomic_store(&c->has_pool, true);
	store_on_event(s, store_event, c);
	settings_in_pool(c);
	rc = tasks_up(c, e);
	if (rc < 0)
		pool_take_down(c);
	else
		moves_settle(c);
	return rc;
}

/* "f1, f3": members that are not there; their absence is mostly why a pool does not open. */
static void missing_text(const struct pool *p, char *buf, size_t size)
{
	size_t len = 0;

	buf[0] = 0;
	for (unsigned int i = 0; i < pool_ndevs(p) && len < size; i++)
		if (pool_dev(p, i)->state == POOL_DEV_MISSING)
			len += (size_t)snprintf(buf + len, size - len, "%s%s", len ? ", " : "",
				pool_dev(p, i)->name);
}

/* Members the card remembers: one that has gone bad must not keep the others from being opened. */
static int members_pool(struct card *c, const struct pool_member *m, unsigned int nm,
	struct pool **pool, struct err *e)
{
	struct pool_left *left = calloc(nm, sizeof(*left));
	unsigned int nleft;
	char object[96];
	int rc;

	if (!left)
		return err_set(e, -ENOMEM, "pool", NULL, "no memory");
	rc = pool_open_degraded(c->cfg.shard, m, nm, left, &nleft, pool, e);
	for (unsigned int i = 0; rc == 0 && i < nleft; i++) {
		event_post(c->events, EVENT_ERROR, "flash-left-out",
			object_name(object, sizeof(object), "flash", m[left[i].member].name),
			"the pool was opened without it: %s", left[i].why.reason);
		flash_close(m[left[i].member].flash);
	}
	free(left);
	return rc;
}

/* How a pool is opened. */
struct opening {
	bool force; /* although data is lost */
	bool remembered; /* by the card itself, at its start */
	bool imported; /* the card has not had it before */
	bool take_over; /* the former owner is off, says the operator */
};

static int members_up(struct card *c, struct card_flash *f, unsigned int n,
	const struct opening *how, struct err *e)
{
	struct pool_member m[POOL_DEVS_MAX] = {0};
	struct store_stats *st;
	struct pool *pool;
	char missing[100];
	struct err why;
	unsigned int nm;
	int rc = members_open(c, f, n, true, m, &nm, e);

	if (rc < 0)
		return rc;
	if (!nm)
		return err_set(
			e, -ENODEV, "pool", "flashes", "none of its %u flash devices is there", n);
	rc = how->remembered ? members_pool(c, m, nm, &pool, e)
			     : pool_open(c->cfg.shard, m, nm, &pool, e);
	if (rc < 0) {
		members_close(m, nm);
		return rc;
	}
	missing_text(pool, missing, sizeof(missing));
	rc = claim_pool(c, pool, how->imported, how->take_over, e);
	if (rc < 0) {
		pool_close(pool);
		return rc;
	}
	rc = store_up(c, pool, how->force, e);
	if (rc < 0 && missing[0] && e && !strstr(e->reason, missing)) {
		why = *e;
		err_set(e, rc, why.object, why.field, "%s; missing: %s", why.reason, missing);
	}
	st = rc == 0 ? malloc(sizeof(*st)) : NULL;
	if (st) {
		store_stats(c->store, st);
		event_post(c->events, EVENT_INFO, "pool-opened", "pool",
			"epoch %lu, %lu stripes found in %lu ms, %lu appended again, %lu blocks "
			"lost",
			(unsigned long)pool_epoch(pool), (unsigned long)st->recovery_stripes,
			(unsigned long)(st->recovery_ns / 1000000),
			(unsigned long)st->recovery_reappended, (unsigned long)st->recovery_lost);
	}
	free(st);
	return rc;
}

static int pool_up(struct card *c, struct card_flash *f, unsigned int n, const struct opening *how,
	struct err *e)
{
	int rc;

	c->opening = true;
	c->progress = (struct log_progress){.phase = NULL};
	comeback_forget(c);
	rc = members_up(c, f, n, how, e);
	c->opening = false;
	return rc;
}

void pool_bring_up(struct card *c)
{
	const struct opening how = {.remembered = true};
	struct err e = {0};

	if (c->nflashes && pool_up(c, c->flashes, c->nflashes, &how, &e) < 0)
		snprintf(c->pool_problem, sizeof(c->pool_problem), "%s", err_text(&e));
	if (c->pool_problem[0])
		event_post(c->events, EVENT_ERROR, "pool-not-open", "pool", "%s", c->pool_problem);
}

void pool_take_down(struct card *c)
{
	struct store *s = c->store;

	tasks_down(c);
	/* Closing waits, and those who only look go on looking. */
	c->store = NULL;
	atomic_store(&c->has_pool, false);
	if (s)
		store_close(s);
}

/* ---- requests --------------------------------------------------------------------------------------------------------- */

static int none_open(const struct card *card, struct err *e)
{
	return card->store ? err_set(e, -EEXIST, "pool", NULL, "this card has an open pool already")
			   : 0;
}

static int scheme_of(uint32_t k, uint32_t m, struct ec_scheme *out, struct err *e)
{
	if (k < 1 || k > EC_K_MAX || m < 1 || m > EC_M_MAX)
		return err_set(e, -EINVAL, "pool", "ec", "%u+%u: k is 1 to %d, m 1 to %d", k, m,
			EC_K_MAX, EC_M_MAX);
	*out = (struct ec_scheme){.k = (uint8_t)k, .m = (uint8_t)m};
	return 0;
}

static int on_degraded_of(Parapet__OnDegraded v, enum pool_on_degraded *out, struct err *e)
{
	if (v != PARAPET__ON_DEGRADED__ON_DEGRADED_REFUSE &&
		v != PARAPET__ON_DEGRADED__ON_DEGRADED_ALLOW)
		return err_set(
			e, -EINVAL, "pool", "on_degraded", "unknown; allowed: refuse, allow");
	*out = v == PARAPET__ON_DEGRADED__ON_DEGRADED_ALLOW ? POOL_DEGRADED_ALLOW
							    : POOL_DEGRADED_REFUSE;
	return 0;
}

static int create_cfg(
	const struct card *c, const Parapet__PoolCreate *req, struct pool_cfg *cfg, struct err *e)
{
	int rc = scheme_of(req->k, req->m, &cfg->scheme, e);

	if (rc == 0)
		rc = on_degraded_of(req->on_degraded, &cfg->on_degraded, e);
	if (rc == 0 && (req->segment_bytes > POOL_SEGMENT_MAX ||
			       (req->segment_bytes && req->segment_bytes < POOL_SEGMENT_MIN) ||
			       (req->segment_bytes & (req->segment_bytes - 1))))
		rc = err_set(e, -EINVAL, "pool", "segment_bytes",
			"a power of two from %u to %u MiB", POOL_SEGMENT_MIN >> 20,
			POOL_SEGMENT_MAX >> 20);
	if (rc == 0 && req->n_flashes < req->k + req->m)
		rc = err_set(e, -EINVAL, "pool", "ec",
			"%u+%u needs %u flash devices, there are %zu", req->k, req->m,
			req->k + req->m, req->n_flashes);
	snprintf(cfg->name, sizeof(cfg->name), "pool0");
	cfg->allow_data_device = req->same_flash;
	cfg->segment_bytes = (uint32_t)req->segment_bytes;
	memcpy(cfg->uuid, c->new_uuid, sizeof(cfg->uuid));
	return rc;
}

static void members_unclaim(struct card *c, const struct pool_member *m, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (c->claimed >> i & 1)
			(void)flash_unclaim(m[i].flash, NULL);
	c->claimed = 0;
}

/* Before anything is written. They become devices 0 to n - 1 of the pool. */
static int members_claim(
	struct card *c, const struct pool_member *m, unsigned int n, bool force, struct err *e)
{
	int rc = 0;

	c->claimed = 0;
	for (unsigned int i = 0; rc == 0 && i < n; i++) {
		bool claimed = false;

		rc = claim_flash(c, m[i].flash, m[i].name, force, &claimed, e);
		c->claimed |= (uint64_t)claimed << i;
	}
	return rc;
}

int call_pool_create(struct card *card, struct call *c)
{
	const Parapet__PoolCreate *req = c->req->pool_create;
	struct card_flash flashes[POOL_DEVS_MAX];
	struct pool_member m[POOL_DEVS_MAX] = {0};
	struct pool_cfg cfg = {0};
	struct pool *pool;
	unsigned int n = (unsigned int)req->n_flashes, nm;
	int rc = none_open(card, &c->err);

	if (rc == 0)
		rc = create_cfg(card, req, &cfg, &c->err);
	if (rc == 0)
		rc = flashes_take(req->flashes, req->n_flashes, flashes, &c->err);
	if (rc == 0)
		rc = members_open(card, flashes, n, false, m, &nm, &c->err);
	if (rc < 0)
		return rc;
	rc = members_claim(card, m, nm, req->force, &c->err);
	if (rc == 0)
		rc = pool_create(card->cfg.shard, &cfg, m, nm, req->force, &pool, &c->err);
	if (rc < 0) {
		members_unclaim(card, m, nm);
		members_close(m, nm);
		return rc;
	}
	pool_set_owner(pool, card->id);
	comeback_forget(card);
	rc = store_up(card, pool, false, &c->err);
	if (rc < 0)
		return rc;
	rc = remember(card, flashes, n, &c->err);
	if (rc < 0) {
		pool_take_down(card);
		return rc;
	}
	memcpy(card->flashes, flashes, n * sizeof(flashes[0]));
	card->nflashes = n;
	event_post(card->events, EVENT_INFO, "pool-created", "pool", "%u flash devices, %u+%u", n,
		req->k, req->m);
	pool_in_use(card);
	return status_fill(card, c);
}

/* A device may have grown since it was cut: its superblocks know. */
static void ask_cuts(struct card *c, struct card_flash *f, unsigned int n)
{
	struct pool_probe probe;

	for (unsigned int i = 0; c->count > 1 && i < n; i++)
		if (!f[i].cut_bytes && probe_one(c, &f[i], &probe, NULL) == 0)
			f[i].cut_bytes = probe.cut_bytes;
}

int call_pool_open(struct card *card, struct call *c)
{
	const Parapet__PoolOpen *req = c->req->pool_open;
	struct card_flash flashes[POOL_DEVS_MAX];
	const struct opening how = {
		.force = req->force, .imported = !card->nflashes, .take_over = req->take_over};
	unsigned int n = (unsigned int)req->n_flashes;
	int rc = none_open(card, &c->err);

	if (rc < 0)
		return rc;
	if (n) {
		rc = flashes_take(req->flashes, req->n_flashes, flashes, &c->err);
	} else {
		n = card->nflashes;
		memcpy(flashes, card->flashes, n * sizeof(flashes[0]));
		if (!n)
			rc = err_set(&c->err, -ENOENT, "pool", "flashes",
				"this card remembers no pool; name its flash devices");
	}
	if (rc < 0)
		return rc;
	ask_cuts(card, flashes, n);
	rc = pool_up(card, flashes, n, &how, &c->err);
	if (rc < 0)
		return rc;
	rc = remember(card, flashes, n, &c->err);
	if (rc < 0) {
		pool_take_down(card);
		return rc;
	}
	memcpy(card->flashes, flashes, n * sizeof(flashes[0]));
	card->nflashes = n;
	pool_in_use(card);
	return status_fill(card, c);
}

int pool_need(const struct card *card, struct err *e)
{
	return card->store ? 0
			   : err_set(e, -ENODEV, "pool", NULL, "this card has no open pool%s%s",
				     card->pool_problem[0] ? ": " : "", card->pool_problem);
}

int call_pool_set(struct card *card, struct call *c)
{
	const Parapet__PoolSet *req = c->req->pool_set;
	struct pool_cfg cfg;
	int rc = pool_need(card, &c->err);

	if (rc < 0)
		return rc;
	cfg = *pool_cfg(store_pool(card->store));
	if (req->has_k != req->has_m)
		return err_set(&c->err, -EINVAL, "pool", "ec", "k and m are set together");
	if (req->has_k)
		rc = scheme_of(req->k, req->m, &cfg.scheme, &c->err);
	if (rc == 0 && req->has_on_degraded)
		rc = on_degraded_of(req->on_degraded, &cfg.on_degraded, &c->err);
	if (rc == 0 && (req->has_k || req->has_on_degraded))
		rc = pool_set(store_pool(card->store), &cfg, &c->err);
	if (rc == 0 && req->settings)
		rc = settings_set(card, req->settings, &c->err);
	if (rc < 0)
		return rc;
	event_post(card->events, EVENT_INFO, "pool-set", "pool", "%u+%u, on-degraded %s",
		cfg.scheme.k, cfg.scheme.m,
		cfg.on_degraded == POOL_DEGRADED_ALLOW ? "allow" : "refuse");
	return status_fill(card, c);
}

/* ---- of several shards --------------------------------------------------------------------------------------------- */

int card_pool_shards(
	struct card *c, const Parapet__PoolOpen *req, unsigned int *count, struct err *e)
{
	struct card_flash flashes[POOL_DEVS_MAX];
	unsigned int n = req && req->n_flashes ? (unsigned int)req->n_flashes : c->nflashes;
	struct pool_probe probe;
	int rc = 0;

	if (req && req->n_flashes)
		rc = flashes_take(req->flashes, req->n_flashes, flashes, e);
	else
		memcpy(flashes, c->flashes, n * sizeof(flashes[0]));
	if (rc < 0)
		return rc;
	rc = err_set(e, -ENOENT, "pool", "flashes",
		n ? "none of its flash devices is there"
		  : "this card remembers no pool; name its flash devices");
	for (unsigned int i = 0; rc < 0 && i < n; i++)
		rc = probe_one(c, &flashes[i], &probe, e);
	if (rc == 0)
		*count = MAX(probe.slices, 1u);
	return rc;
}

static void pool_drop(struct card *c)
{
	struct err e = {0};

	vms_take_down(c);
	pool_take_down(c);
	if (forget(c, &e) < 0)
		event_post(c->events, EVENT_ERROR, "state", "card", "%s", err_text(&e));
	pool_in_use(c);
}

void card_pool_close(struct card *c)
{
	if (c->store)
		pool_drop(c);
}

/* The store has closed it: what is wiped is opened once more, without raising the epoch. */
static int wipe(struct card *c, struct card_flash *f, unsigned int n, struct err *e)
{
	struct pool_member m[POOL_DEVS_MAX] = {0};
	struct pool *pool;
	unsigned int nm;
	int rc = members_open(c, f, n, true, m, &nm, e);

	if (rc < 0)
		return rc;
	rc = pool_open(c->cfg.shard, m, nm, &pool, e);
	if (rc < 0) {
		members_close(m, nm);
		return rc;
	}
	return pool_wipe(pool, e);
}

void card_pool_undo(struct card *c)
{
	struct card_flash flashes[POOL_DEVS_MAX];
	unsigned int n = c->nflashes;
	struct err e = {0};

	if (!c->store)
		return;
	memcpy(flashes, c->flashes, n * sizeof(flashes[0]));
	pool_drop(c);
	if (wipe(c, flashes, n, &e) < 0)
		event_post(c->events, EVENT_WARNING, "pool-not-wiped", "pool",
			"%s; the next 'pool create' needs force", err_text(&e));
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------- */

struct checkpoint {
	bool done;
	int status;
};

static void checkpoint_done(void *arg, int status)
{
	*(struct checkpoint *)arg = (struct checkpoint){.done = true, .status = status};
}

static bool checkpoint_is_done(void *arg)
{
	return ((struct checkpoint *)arg)->done;
}

int call_checkpoint(struct card *card, struct call *c)
{
	struct checkpoint cp = {.done = false};
	int rc = pool_need(card, &c->err);

	if (rc < 0)
		return rc;
	rc = store_checkpoint(card->store, checkpoint_done, &cp);
	if (rc == 0)
		rc = shard_wait(card->cfg.shard, checkpoint_is_done, &cp, 0);
	if (rc == 0)
		rc = cp.status;
	if (rc < 0)
		return err_set(&c->err, rc, "pool", "checkpoint", "it was not committed: %s",
			strerror(-rc));
	return status_fill(card, c);
}
