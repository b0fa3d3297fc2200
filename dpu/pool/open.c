/* SPDX-License-Identifier: BSD-3-Clause */
/* Opening a pool from the members that are there. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/pool/ckpt_priv.h"
#include "dpu/pool/lineage.h"

struct opening {
	const struct pool_member *members;
	unsigned int n;
	struct superblock *sbs; /* of members[i] */
	struct claim *claims;
	unsigned int *slots;
	int *rcs; /* 0, or -EIO where it could not be read */
	int newest; /* member with the authoritative superblock */
	int bad; /* member that an error is about; -1: none */
	uint64_t left; /* members that are left out, bit per number */
};

static bool is_left(const struct opening *o, unsigned int i)
{
	return o->left >> i & 1;
}

static int opening_read_one(struct opening *o, unsigned int i, struct err *err)
{
	const char *name = o->members[i].name;
	struct claim *c = &o->claims[i];
	int rc;

	c->sb = NULL;
	o->rcs[i] = -ENOENT;
	if (is_left(o, i))
		return 0;
	rc = superblock_read_intact(o->members[i].flash, &o->sbs[i], &o->slots[i], &c->intact);
	o->rcs[i] = rc;
	switch (rc) {
	case 0:
		c->sb = &o->sbs[i];
		c->uuid = o->sbs[i].members[o->sbs[i].dev].uuid;
		return pool_slice_check(&o->sbs[i], o->members[i].flash, name, err);
	case -ENODATA:
		return err_set(err, rc, name, NULL, "has no superblock of a pool");
	case -EPROTONOSUPPORT:
		return err_set(err, rc, name, "version",
			"was written by a newer version; this one reads major %u", SB_MAJOR);
	case -EUCLEAN:
		return err_set(err, rc, name, NULL, "both superblocks are damaged");
	case -ENOMEM:
		return err_set(err, rc, name, NULL, "no memory");
	default:
		return 0; /* a dying device: judged once we know whom we miss */
	}
}

/* A member of the pool that most are of. */
static unsigned int opening_major(const struct opening *o)
{
	unsigned int best = 0, most = 0;

	for (unsigned int i = 0; i < o->n; i++) {
		unsigned int count = 0;

		for (unsigned int j = 0; j < o->n && !o->rcs[i]; j++)
			count += !o->rcs[j] &&
				 memcmp(o->sbs[i].pool_uuid, o->sbs[j].pool_uuid, 16) == 0;
		if (count > most) {
			most = count;
			best = i;
		}
	}
	return best;
}

/* Superblocks of different pools have no history in common to be judged by. */
static int opening_one_pool(struct opening *o, struct err *err)
{
	unsigned int first = opening_major(o);

	for (unsigned int i = 0; i < o->n; i++) {
		if (o->rcs[i])
			continue;
		o->bad = (int)i;
		if (memcmp(o->sbs[i].pool_uuid, o->sbs[first].pool_uuid, 16) != 0)
			return err_set(err, -EXDEV, o->members[i].name, NULL,
				"belongs to pool \"%s\", not to \"%s\" as %s does",
				o->sbs[i].cfg.name, o->sbs[first].cfg.name, o->members[first].name);
		if (memcmp(o->sbs[i].key, o->sbs[first].key, 16) != 0)
			return err_set(err, -EXDEV, o->members[i].name, NULL,
				"has another key than %s", o->members[first].name);
	}
	o->bad = -1;
	return 0;
}

static int opening_read(struct opening *o, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; rc == 0 && i < o->n; i++) {
		rc = opening_read_one(o, i, err);
		o->bad = rc ? (int)i : -1;
	}
	if (rc == 0)
		rc = opening_one_pool(o, err);
	if (rc < 0)
		return rc;
	o->newest = lineage_judge(o->claims, o->n);
	if (o->newest < 0)
		return err_set(err, -EIO, "pool", NULL, "no superblock could be read");
	return 0;
}

static int opening_check(struct opening *o, struct err *err)
{
	const struct superblock *top = &o->sbs[o->newest];

	for (unsigned int i = 0; i < o->n; i++) {
		const struct superblock *sb = &o->sbs[i];
		const char *name = o->members[i].name;
		const struct flash_info *fi = flash_info(o->members[i].flash);

		if (o->rcs[i])
			continue;
		o->bad = (int)i;
		if (sb->dev >= top->ndevs ||
			memcmp(sb->members[sb->dev].uuid, top->members[sb->dev].uuid, 16) != 0)
			return err_set(err, -EXDEV, name, NULL, "is no longer a member of \"%s\"",
				top->cfg.name);
		if (o->claims[i].forked)
			return err_set(err, -EUCLEAN, name, NULL,
				"was used by another owner of the pool since epoch %llu; open "
				"without it",
				(unsigned long long)o->claims[i].epoch + 1);
		if (fi->size_bytes < top->members[sb->dev].size_bytes)
			return err_set(err, -EUCLEAN, name, "size", "it has shrunk");
		if (top->block_bytes % fi->block_bytes)
			return err_set(err, -EUCLEAN, name, "block size",
				"%u does not divide the pool's %u", fi->block_bytes,
				top->block_bytes);
		for (unsigned int j = 0; j < i; j++) {
			if (!o->rcs[j] && o->sbs[j].dev == sb->dev)
				return err_set(err, -EEXIST, name, NULL, "is the same device as %s",
					o->members[j].name);
		}
	}
	o->bad = -1;
	return 0;
}

static bool table_ok(const struct superblock *sb)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < sb->ndevs; i++) {
		const struct sb_member *m = &sb->members[i];

		if (m->state == POOL_DEV_REMOVED)
			continue;
		n++;
		if ((uint64_t)m->nsegments * sb->cfg.segment_bytes > m->size_bytes ||
			m->nsegments < POOL_DEV_SEGMENTS_MIN)
			return false;
	}
	return sb->cfg.scheme.k + sb->cfg.scheme.m <= n;
}

/* The member number of what the caller gave: by its superblock, or where that cannot be read by its name. */
static int opening_dev(const struct opening *o, unsigned int i, const struct superblock *top)
{
	if (!o->rcs[i])
		return (int)o->sbs[i].dev;
	for (unsigned int d = 0; d < top->ndevs; d++) {
		if (top->members[d].state != POOL_DEV_REMOVED &&
			strncmp(top->members[d].name, o->members[i].name, 64) == 0)
			return (int)d;
	}
	return -ENOENT;
}

int pool_dev_init(struct pool *p, unsigned int i, struct flash *f)
{
	const struct sb_member *m = &p->sb.members[i];
	struct pool_dev *d = &p->devs[i];

	memcpy(d->name, m->name, sizeof(d->name));
	memcpy(d->domain, m->domain, sizeof(d->domain));
	memcpy(d->uuid, m->uuid, sizeof(d->uuid));
	d->cut_bytes = m->cut_bytes;
	d->nsegments = m->nsegments;
	d->flash = f;
	d->state = f                              ? POOL_DEV_HEALTHY
		   : m->state == POOL_DEV_REMOVED ? POOL_DEV_REMOVED
						  : POOL_DEV_MISSING;
	/* One that had failed is no better for not being there. */
	if (d->state == POOL_DEV_MISSING)
		d->cause = m->cause ? (enum pool_cause)m->cause : POOL_CAUSE_UNREACHABLE;
	health_attach(p, i);
	if (f && sbwrite_attach(p, i) < 0)
		return -ENOMEM;
	return pool_segments_open(p, i);
}

/* Also one that was away since: for what it had failed, or had been taken out of service, it is no better for that. */
static bool had_failed(const struct sb_member *m)
{
	return m->state == POOL_DEV_FAILED ||
	       (m->state == POOL_DEV_MISSING &&
		       (m->cause == POOL_CAUSE_ERRORS || m->cause == POOL_CAUSE_OPERATOR));
}

/*
 * What was remembered of a member that is here. A failed one stays failed until somebody says that it is well (pool_dev_return), as long as what is out of use
 * is no more than the pool bears losing. When it is more, what failed was rather a path or a shelf, and it is better to have them all.
 */
static enum pool_dev_state state_at_open(const struct opening *o, unsigned int dev, bool forgive)
{
	const struct sb_member *m = &o->sbs[o->newest].members[dev];

	if (had_failed(m))
		return forgive ? POOL_DEV_REBUILDING : POOL_DEV_FAILED;
	switch (m->state) {
	case POOL_DEV_REBUILDING:
		return POOL_DEV_REBUILDING;
	case POOL_DEV_EVACUATING:
		return POOL_DEV_EVACUATING;
	case POOL_DEV_SPARE:
		return POOL_DEV_SPARE;
	default:
		return POOL_DEV_HEALTHY; /* a suspicion has to come up again */
	}
}

static void dev_attach(
	struct pool *p, unsigned int dev, const struct opening *o, unsigned int i, bool forgive)
{
	const struct pool_member *m = &o->members[i];
	struct pool_dev *d = &p->devs[dev];

	d->flash = m->flash;
	health_attach(p, dev);
	d->state = o->rcs[i] ? POOL_DEV_FAILED : state_at_open(o, dev, forgive);
	d->cause = o->rcs[i] ? POOL_CAUSE_ERRORS
		   : d->state == POOL_DEV_FAILED
			   ? (enum pool_cause)o->sbs[o->newest].members[dev].cause
			   : POOL_CAUSE_NONE;
	if (o->rcs[i])
		snprintf(d->why, sizeof(d->why), "its superblocks cannot be read");
	else if (d->state == POOL_DEV_FAILED)
		snprintf(d->why, sizeof(d->why), "it had failed before");
	d->epoch_seen = o->rcs[i] ? 0 : o->claims[i].epoch;
	d->errors = o->rcs[i] ? 1 : 0;
	p->sb_slot[dev] = (uint8_t)(o->rcs[i] ? 0 : o->slots[i]);
	/* The names of today: kept with the next write of superblocks. */
	if (m->name[0]) {
		memcpy(d->name, m->name, sizeof(d->name));
		memcpy(p->sb.members[dev].name, m->name, sizeof(d->name));
	}
	if (m->domain[0]) {
		memcpy(d->domain, m->domain, sizeof(d->domain));
		memcpy(p->sb.members[dev].domain, m->domain, sizeof(d->domain));
	}
}

/* More are out of use than the pool bears losing, if those that had failed stay so. */
static bool too_many_out(const struct opening *o)
{
	const struct superblock *top = &o->sbs[o->newest];
	unsigned int members = 0, good = 0;

	for (unsigned int d = 0; d < top->ndevs; d++)
		members += top->members[d].state != POOL_DEV_REMOVED;
	for (unsigned int i = 0; i < o->n; i++)
		good += !o->rcs[i] && !had_failed(&top->members[o->sbs[i].dev]);
	return members - good > top->cfg.scheme.m;
}

static int attach_all(struct pool *p, const struct opening *o, struct err *err)
{
	bool forgive = too_many_out(o);

	for (unsigned int i = 0; i < o->n; i++) {
		int dev = is_left(o, i) ? 0 : opening_dev(o, i, &o->sbs[o->newest]);

		if (is_left(o, i))
			continue;
		if (dev < 0 || p->devs[dev].flash)
			return err_set(err, -EIO, o->members[i].name, NULL,
				"cannot be read, and is no member by name");
		if (sbwrite_attach(p, (unsigned int)dev) < 0)
			return err_set(err, -ENOMEM, "pool", NULL, "no memory");
		dev_attach(p, (unsigned int)dev, o, i, forgive);
		if (o->rcs[i])
			continue;
		/* Above whatever is there: also above superblocks that came to nothing. */
		p->sb.generation = MAX(p->sb.generation, o->sbs[i].generation);
		p->hollow_seen |= o->claims[i].epoch < o->sbs[i].epoch;
	}
	return 0;
}

uint64_t pool_away(const struct pool *p)
{
	uint64_t away = 0;

	for (unsigned int d = 0; d < p->sb.ndevs; d++) {
		switch (p->sb.members[d].state) {
		case POOL_DEV_FAILED:
		case POOL_DEV_MISSING:
		case POOL_DEV_SPARE:
		case POOL_DEV_REMOVED:
			break;
		default:
			away |= (uint64_t)!pool_dev_usable(p, d) << d;
		}
	}
	return away;
}

static int pool_build(struct pool *p, const struct opening *o, struct err *err)
{
	p->sb = o->sbs[o->newest];
	lineage_mark(o->claims, o->n, &p->sb);
	if (!table_ok(&p->sb))
		return err_set(err, -EUCLEAN, o->members[o->newest].name, NULL,
			"its table of members contradicts itself");
	for (unsigned int d = 0; d < p->sb.ndevs; d++) {
		if (pool_dev_init(p, d, NULL) < 0)
			return err_set(err, -ENOMEM, "pool", NULL, "no memory");
	}
	return attach_all(p, o, err);
}

static int opening_alloc(struct opening *o)
{
	o->sbs = calloc(o->n, sizeof(*o->sbs));
	o->claims = calloc(o->n, sizeof(*o->claims));
	o->slots = calloc(o->n, sizeof(*o->slots));
	o->rcs = calloc(o->n, sizeof(*o->rcs));
	return o->sbs && o->claims && o->slots && o->rcs ? 0 : -ENOMEM;
}

static void opening_free(struct opening *o)
{
	free(o->sbs);
	free(o->claims);
	free(o->slots);
	free(o->rcs);
}

/* Without those that cannot be used, where that is wanted: one after the other, as each may have hidden the next one's reason. */
static int opening_judge(
	struct opening *o, struct pool_left *left, unsigned int *nleft, struct err *err)
{
	struct err e = {0};
	int rc;

	for (;;) {
		rc = opening_read(o, &e);
		if (rc == 0)
			rc = opening_check(o, &e);
		if (rc == 0 || !left || o->bad < 0 || *nleft + 1 == o->n ||
			(rc != -ENODATA && rc != -EUCLEAN && rc != -EXDEV))
			break;
		o->left |= 1ull << o->bad;
		left[(*nleft)++] = (struct pool_left){.member = (unsigned int)o->bad, .why = e};
	}
	if (rc == 0 && left && *nleft > o->sbs[o->newest].cfg.scheme.m) {
		/* More than the pool bears losing: rather the list of members is wrong. */
		e = left[0].why;
		rc = e.code;
	}
	if (rc < 0 && err)
		*err = e;
	return rc;
}

static int open_from(struct shard *sh, struct opening *o, struct pool_left *left,
	unsigned int *nleft, struct pool **out, struct err *err)
{
	struct pool *p;
	int rc;

	for (unsigned int i = 0; i < o->n; i++) {
		if (!memchr(o->members[i].name, 0, 64) || !memchr(o->members[i].domain, 0, 64))
			return err_set(err, -EINVAL, "flash", "name", "at most 63 characters");
	}
	if (opening_alloc(o) < 0)
		return err_set(err, -ENOMEM, "pool", NULL, "no memory");
	rc = opening_judge(o, left, nleft, err);
	if (rc < 0)
		return rc;
	p = pool_new(sh, err);
	if (!p)
		return -ENOMEM;
	rc = pool_build(p, o, err);
	if (rc < 0) {
		pool_quiesce(p);
		pool_free(p);
		return rc;
	}
	*out = p;
	return 0;
}

int pool_open_degraded(struct shard *sh, const struct pool_member *members, unsigned int n,
	struct pool_left *left, unsigned int *nleft, struct pool **out, struct err *err)
{
	struct opening o = {.members = members, .n = n};
	int rc;

	if (nleft)
		*nleft = 0;
	if (n < 1 || n > POOL_DEVS_MAX)
		return err_set(
			err, -EINVAL, "pool", "members", "1 to %u flash devices", POOL_DEVS_MAX);
	rc = open_from(sh, &o, left, nleft, out, err);
	opening_free(&o);
	return rc;
}

int pool_open(struct shard *sh, const struct pool_member *members, unsigned int n,
	struct pool **out, struct err *err)
{
	return pool_open_degraded(sh, members, n, NULL, NULL, out, err);
}
