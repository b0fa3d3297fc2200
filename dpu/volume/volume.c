/* SPDX-License-Identifier: BSD-3-Clause */
/* Volumes: created, grown, deleted; each change is a record that is durable before anything relies on it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/volume/move.h"
#include "dpu/volume/store_priv.h"
#include "dpu/volume/track.h"

const char *block_state_name(enum block_state s)
{
	static const char *const names[] = {[BLOCK_UNMAPPED] = "unmapped",
		[BLOCK_ZERO] = "zero",
		[BLOCK_DATA] = "data",
		[BLOCK_DATA_LOG] = "data+log",
		[BLOCK_LOG] = "log",
		[BLOCK_INTERMEDIATE] = "intermediate"};

	return (unsigned int)s < BLOCK_STATES ? names[s] : "?";
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

int volume_new(struct store *s, uint32_t id, const struct volume_cfg *cfg, struct map *map,
	struct volume **out)
{
	struct volume *v = calloc(1, sizeof(*v));
	int rc;

	if (!v)
		return -ENOMEM;
	v->s = s;
	v->id = id;
	v->version = v->last_version = 1;
	v->cfg = *cfg;
	v->nblocks = cfg->size_bytes / IO_BLOCK_BYTES;
	v->next_seq = (pool_epoch(s->pool) << 40) + 1;
	range_locks_init(&v->locks);
	rc = volume_pieces_grow(v, v->nblocks);
	if (rc == 0)
		rc = map ? map_grow(map, v->nblocks) : map_open(s->map_mem, v->nblocks, &map);
	if (rc < 0) {
		for (unsigned int k = 0; k < AREAS; k++)
			free(v->pieces[k]);
		free(v);
		return rc;
	}
	v->map = map;
	TAILQ_INSERT_TAIL(&s->volumes, v, link);
	*out = v;
	return 0;
}

void volume_free(struct volume *v)
{
	TAILQ_REMOVE(&v->s->volumes, v, link);
	map_close(v->map);
	for (unsigned int k = 0; k < AREAS; k++)
		free(v->pieces[k]);
	free(v->lost_text);
	volume_track_stop(v);
	free(v);
}

void volume_put_log(void *arg, uint32_t ref, uint32_t nblocks)
{
	struct volume *v = arg;

	stripelog_put(v->s->log, ref, nblocks);
}

/* ---- checks --------------------------------------------------------------------------------------------------------- */

static int check_dev(struct store *s, const char *name, const char *field, int dev, struct err *err)
{
	if (dev < 0 || (unsigned int)dev >= pool_ndevs(s->pool))
		return err_set(err, -EINVAL, name, field, "no device %d: the pool has 0..%u", dev,
			pool_ndevs(s->pool) - 1);
	return 0;
}

static int check_devs(
	struct store *s, const char *name, int data_dev, int intermediate_dev, struct err *err)
{
	int rc = check_dev(s, name, "data flash", data_dev, err);

	if (rc < 0 || intermediate_dev == POOL_DEV_NONE)
		return rc;
	rc = check_dev(s, name, "intermediate flash", intermediate_dev, err);
	if (rc < 0)
		return rc;
	if (intermediate_dev == data_dev)
		return err_set(err, -EINVAL, name, "intermediate flash",
			"must be another one than the data flash (%s)",
			pool_dev(s->pool, (unsigned int)data_dev)->name);
	return 0;
}

static int check_size(const char *name, uint64_t size_bytes, struct err *err)
{
	if (!size_bytes || size_bytes % IO_BLOCK_BYTES)
		return err_set(err, -EINVAL, name, "size",
			"%llu bytes: must be a multiple of %u, more than 0",
			(unsigned long long)size_bytes, IO_BLOCK_BYTES);
	if (size_bytes / IO_BLOCK_BYTES > MAP_BLOCKS_MAX)
		return err_set(err, -ERANGE, name, "size", "%llu bytes: at most 256 TiB",
			(unsigned long long)size_bytes);
	return 0;
}

static int check_scheme(struct store *s, const char *name, struct ec_scheme scheme, struct err *err)
{
	unsigned int m = pool_cfg(s->pool)->scheme.m, devs = 0;

	for (unsigned int d = 0; d < pool_ndevs(s->pool); d++)
		devs += pool_dev(s->pool, d)->state != POOL_DEV_REMOVED;
	if (!scheme.k || scheme.k > EC_K_MAX || !scheme.m || scheme.m > m)
		return err_set(err, -EINVAL, name, "ec",
			"%u+%u: k must be 1..%u and m 1..%u (the pool's)", scheme.k, scheme.m,
			EC_K_MAX, m);
	if ((unsigned int)scheme.k + scheme.m > devs)
		return err_set(err, -EINVAL, name, "ec",
			"%u+%u is wider than the pool of %u devices", scheme.k, scheme.m, devs);
	return 0;
}

static int check_cfg(struct store *s, const struct volume_cfg *c, struct err *err)
{
	int rc;

	if (!c->name[0] || !memchr(c->name, 0, sizeof(c->name)))
		return err_set(err, -EINVAL, "volume", "name", "must have 1..63 characters");
	if (volume_find(s, c->name))
		return err_set(err, -EEXIST, c->name, NULL, "there is such a volume already");
	rc = check_size(c->name, c->size_bytes, err);
	if (rc == 0)
		rc = check_devs(s, c->name, c->data_dev, c->intermediate_dev, err);
	if (rc < 0)
		return rc;
	if (c->block_bytes != 512 && c->block_bytes != IO_BLOCK_BYTES)
		return err_set(err, -EINVAL, c->name, "block size", "%u: must be 512 or %u",
			c->block_bytes, IO_BLOCK_BYTES);
	if ((unsigned int)c->layout > VOLUME_FRAGMENTS)
		return err_set(err, -EINVAL, c->name, "layout", "must be copy or fragments");
	return check_scheme(s, c->name, c->scheme, err);
}

uint32_t volume_default_block_bytes(const struct store *s, int data_dev)
{
	const struct pool_dev *d = pool_dev(s->pool, (unsigned int)data_dev);

	if (d->flash && flash_info(d->flash)->atomic_bytes < IO_BLOCK_BYTES)
		return 512;
	return IO_BLOCK_BYTES;
}

/* ---- changes ------------------------------------------------------------------------------------------------------------ */

/* Durable on return; the caller makes it visible then, and leaves the era (also after an error). */
static int log_volume(
	struct volume *v, const struct volume_cfg *cfg, bool deleted, uint8_t *era, struct err *err)
{
	struct rec_item it = {.fua = true};
	uint32_t version;
	int rc;

	*era = era_enter(v->s);
	if (v->s->cfg.read_only)
		return err_set(err, -EROFS, v->cfg.name, NULL, "the pool is open for reading only");
	/* One that failed may be on flash: its number is not used again. What a checkpoint says meanwhile has the old number with the old contents. */
	version = ++v->last_version;
	rec_volume(&it.rec, v->id, version, cfg, deleted);
	rc = rec_submit_wait(v->s, &it);
	v->log_gen++;
	if (rc == 0)
		v->version = version;
	if (rc == -ENOSPC)
		return err_set(err, rc, v->cfg.name, NULL, "no room left in the pool");
	if (rc < 0)
		return err_set(err, rc, v->cfg.name, NULL,
			"the change could not be made durable: %s", strerror(-rc));
	return 0;
}

static void random_id(struct store *s, uint8_t id[16])
{
	uint64_t r[2] = {shard_random(s->sh), shard_random(s->sh)};

	memcpy(id, r, 16);
	id[6] = (id[6] & 0x0f) | 0x40; /* RFC 4122: random */
	id[8] = (id[8] & 0x3f) | 0x80;
}

int volume_create(
	struct store *s, const struct volume_cfg *cfg, struct volume **out, struct err *err)
{
	static const uint8_t none[16];
	struct volume_cfg c = *cfg;
	struct volume *v;
	uint8_t era;
	int rc;

	if (!c.scheme.k)
		c.scheme = pool_cfg(s->pool)->scheme;
	if (!c.block_bytes && c.data_dev >= 0 && (unsigned int)c.data_dev < pool_ndevs(s->pool))
		c.block_bytes = volume_default_block_bytes(s, c.data_dev);
	rc = check_cfg(s, &c, err);
	if (rc < 0)
		return rc;
	if (!memcmp(c.nguid, none, sizeof(none)))
		random_id(s, c.nguid);
	rc = volume_new(s, s->next_id++, &c, NULL, &v);
	if (rc < 0)
		return err_set(err, rc, c.name, NULL, "no memory for its map");
	rc = log_volume(v, &v->cfg, false, &era, err);
	era_leave(s, era);
	if (rc < 0) {
		/* Should the record be on flash all the same, a later volume of this name or this one's absence
		 * of data make it harmless: recovery keeps the latest of a name. */
		volume_free(v);
		return rc;
	}
	*out = v;
	return 0;
}

static bool is_idle(void *arg)
{
	return ((struct volume *)arg)->in_flight == 0;
}

static void free_pieces(struct volume *v)
{
	for (unsigned int k = 0; k < AREAS; k++)
		for (uint64_t i = 0; i < v->npieces; i++)
			if (v->pieces[k][i].state == PIECE_READY)
				limbo_add(v->s, v->pieces[k][i].dev, v->pieces[k][i].segment, true);
}

int volume_delete(struct volume *v, struct err *err)
{
	struct store *s = v->s;
	uint8_t era;
	int rc;

	if (v->requests)
		return err_set(
			err, -EBUSY, v->cfg.name, NULL, "%u requests are in flight", v->requests);
	if (v->deleting)
		return err_set(err, -EBUSY, v->cfg.name, NULL, "is being deleted");
	if (v->track)
		return err_set(err, -EBUSY, v->cfg.name, NULL, "is being copied elsewhere");
	v->deleting = true;
	rc = shard_wait(s->sh, is_idle, v, 0);
	if (rc < 0) {
		v->deleting = false;
		return rc;
	}
	rc = log_volume(v, &v->cfg, true, &era, err);
	if (rc < 0) {
		v->deleting = false;
	} else {
		map_set_zero(v->map, 0, v->nblocks, volume_put_log, v);
		free_pieces(v);
		volume_free(v);
	}
	era_leave(s, era);
	return rc;
}

int volume_grow(struct volume *v, uint64_t size_bytes, struct err *err)
{
	uint64_t nblocks = size_bytes / IO_BLOCK_BYTES, old = v->cfg.size_bytes;
	struct volume_cfg cfg = v->cfg;
	int rc = check_size(v->cfg.name, size_bytes, err);
	uint8_t era;

	if (rc < 0)
		return rc;
	if (size_bytes < old)
		return err_set(err, -EINVAL, v->cfg.name, "size",
			"%llu bytes: a volume cannot shrink (it has %llu)",
			(unsigned long long)size_bytes, (unsigned long long)old);
	if (size_bytes == old)
		return 0;
	rc = volume_pieces_grow(v, nblocks);
	if (rc == 0)
		rc = map_grow(v->map, nblocks);
	if (rc == 0)
		rc = track_grow(v, nblocks);
	if (rc < 0)
		return err_set(err, rc, v->cfg.name, "size", "no memory for its map");
	cfg.size_bytes = size_bytes;
	rc = log_volume(v, &cfg, false, &era, err);
	if (rc == 0) {
		v->cfg.size_bytes = size_bytes;
		v->nblocks = nblocks;
	}
	era_leave(v->s, era);
	return rc;
}

int volume_set_devs(struct volume *v, int data_dev, int intermediate_dev, struct err *err)
{
	struct volume_cfg cfg = v->cfg;
	int rc = check_devs(v->s, v->cfg.name, data_dev, intermediate_dev, err);
	uint8_t era;

	if (rc < 0)
		return rc;
	cfg.data_dev = data_dev;
	cfg.intermediate_dev = intermediate_dev;
	rc = log_volume(v, &cfg, false, &era, err);
	if (rc == 0) {
		v->cfg.data_dev = data_dev;
		v->cfg.intermediate_dev = intermediate_dev;
	}
	era_leave(v->s, era);
	return rc;
}

/* Makes cfg the volume's; what can differ from the present one is what may change in use. */
static int change(struct volume *v, const struct volume_cfg *cfg, struct err *err)
{
	uint8_t era;
	int rc;

	if (v->deleting)
		return err_set(err, -EBUSY, v->cfg.name, NULL, "is being deleted");
	rc = log_volume(v, cfg, false, &era, err);
	if (rc == 0) {
		v->cfg.scheme = cfg->scheme;
		v->cfg.layout = cfg->layout;
	}
	era_leave(v->s, era);
	return rc;
}

int volume_set_scheme(struct volume *v, struct ec_scheme scheme, struct err *err)
{
	struct volume_cfg cfg = v->cfg;
	int rc;

	if (!scheme.k)
		scheme = pool_cfg(v->s->pool)->scheme;
	rc = check_scheme(v->s, v->cfg.name, scheme, err);
	if (rc < 0)
		return rc;
	cfg.scheme = scheme;
	return change(v, &cfg, err);
}

/*
 * Recovery takes a protected block for data+log where the layout is copy and the piece is there, and for log otherwise; which of the two copies is
 * right its CRC says. So either layout is true of blocks that were written under the other one.
 */
int volume_set_layout(struct volume *v, enum volume_layout layout, struct err *err)
{
	struct volume_cfg cfg = v->cfg;

	if ((unsigned int)layout > VOLUME_FRAGMENTS)
		return err_set(err, -EINVAL, v->cfg.name, "layout", "must be copy or fragments");
	cfg.layout = layout;
	return change(v, &cfg, err);
}

/* ---- looking ---------------------------------------------------------------------------------------------------------------- */

struct volume *volume_find(struct store *s, const char *name)
{
	struct volume *v;

	TAILQ_FOREACH (v, &s->volumes, link)
		if (!v->deleting && !strcmp(v->cfg.name, name))
			return v;
	return NULL;
}

struct volume *volume_first(struct store *s)
{
	return TAILQ_FIRST(&s->volumes);
}

struct volume *volume_next(struct volume *v)
{
	return TAILQ_NEXT(v, link);
}

const struct volume_cfg *volume_cfg(const struct volume *v)
{
	return &v->cfg;
}

uint32_t volume_id(const struct volume *v)
{
	return v->id;
}

void volume_stats(const struct volume *v, struct volume_stats *out)
{
	*out = v->stats;
	for (unsigned int s = 0; s < BLOCK_STATES; s++)
		out->blocks[s] = map_count(v->map, s);
	out->map_bytes = map_bytes(v->map);
}
