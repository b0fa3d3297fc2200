/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The log's part of a checkpoint, out and in.
 *
 *	floor    {epoch, first number not covered, first generation not covered}: one, first
 *	groups   every group below the floor that is not about to be freed; those that were open, with their append pointers
 *	table    changed entries of the stripe table, by reference; freed ones too; never a stripe above the floor
 *
 * It is fuzzy: sections say how things are at the moment they are written. That is right because whatever happened after the floor is found in the
 * log and comes on top: an entry freed and used again meanwhile is referred to only by blocks that were written above the floor.
 *
 * Offset  Size  Field         LOG_SECTION_FLOOR (32 bytes)
 *      0     8  epoch
 *      8     8  number        shard << 56 | counter: stripes of `epoch` from this number on are not covered
 *     16     8  generation    groups from this on are not covered
 *     24     8  reserved      zero
 *
 * Offset  Size  Field         LOG_SECTION_GROUPS: any number of
 *      0     8  generation
 *      8     8  nonce
 *     16     8  last          number of its last stripe
 *     24     1  n             members
 *     25     1  k             scheme; 0: records
 *     26     1  m
 *     27     1  flags         1: was open at the floor, 2: of the mover
 *     28   4 n  members       device << 24 | segment, le32
 *          4 n  offsets       only of open ones: append pointers at the floor, le32
 *
 * Offset  Size  Field         LOG_SECTION_TABLE: any number of
 *      0     4  ref
 *      4     2  nblocks       0: the entry is free, and that is all of it
 *      6     8  number
 *     14     1  k
 *     15     1  m
 *     16     1  hdr_units     header in units of 512 bytes, less one
 *     17     1  flags         1: thin: accepted by a recovery with fragments missing
 *     18   6 f  addresses     of k + m fragments: device u8, segment u24, offset u16 in units of 512 bytes
 */
#include <errno.h>

#include "common/base/util.h"
#include "dpu/stripelog/ledger.h"
#include "dpu/stripelog/space.h"

struct floor_disk {
	le64 epoch;
	le64 number;
	le64 generation;
	le64 reserved;
};
static_assert(sizeof(struct floor_disk) == 32, "floor");

struct group_disk {
	le64 generation;
	le64 nonce;
	le64 last;
	uint8_t n, k, m, flags;
};
static_assert(sizeof(struct group_disk) == 28, "group");
#define GROUP_OPEN  1u
#define GROUP_MOVER 2u

struct entry_disk {
	le32 ref;
	le16 nblocks;
	/* nblocks 0: no more */
	le64 number;
	uint8_t k, m, hdr_units, flags;
};
static_assert(sizeof(struct entry_disk) == 18, "entry");
#define ENTRY_FLAG_THIN   1u
#define ENTRY_FREED_BYTES 6u
static_assert(offsetof(struct entry_disk, number) == ENTRY_FREED_BYTES, "freed entry");
static_assert(sizeof(struct entry_disk) + FRAGS_MAX * sizeof(struct table_addr) <= 4096, "fits");

enum { STAGE_FLOOR, STAGE_GROUPS, STAGE_TABLE, STAGE_END };

bool floor_covers(const struct stripelog *log, uint64_t epoch, uint64_t number)
{
	const struct log_floor *f = &log->floor;

	if (!log->have_floor || epoch > f->epoch)
		return false;
	return epoch < f->epoch ||
	       (NUMBER_SHARD(number) == log->shard_id && NUMBER_COUNTER(number) < f->counter);
}

bool floor_covers_group(const struct stripelog *log, uint64_t generation)
{
	return log->have_floor && generation < log->floor.generation;
}

/* ---- out ------------------------------------------------------------------------------------------------------- */

/* The pointers of what is open now; every stripe above the floor in these groups lies behind them. */
static void floor_open_groups(struct stripelog *log, uint64_t id)
{
	for (uint32_t i = 0; i < log->nkeys; i++) {
		const struct group *g = log->keys[i].open;

		/* A member failed: nothing goes there any more, and nobody may come to close it. */
		if (g && g->closed)
			group_close(log, &log->keys[i]);
		g = log->keys[i].open;
		if (!g)
			continue;
		g->books->floor = id;
		for (unsigned int j = 0; j < g->n; j++)
			g->books->members[j].off = g->members[j].off;
	}
}

/* Records above the next floor go to another group, so that this one can end. Not each time: a group is a segment on m + 2 devices. */
static void close_records(struct stripelog *log)
{
	for (uint32_t i = 0; i < log->nkeys; i++) {
		struct log_key *key = &log->keys[i];

		if (!key->scheme.k && key->open &&
			key->open->members[0].off > log->segment_bytes / 4)
			group_close(log, key);
	}
}

static bool ends_with(const struct stripelog *log, const struct ledger_group *g, uint64_t id)
{
	if (g->limbo)
		return g->limbo <= id;
	/* Closed, and nothing in flight: all of its stripes are below today's floor. */
	return !g->k && !g->open;
}

void stripelog_checkpoint_start(struct stripelog *log, bool base, struct stripelog_ckpt *c)
{
	struct ledger_group *g, *tmp;

	assert(!log->scan); /* no recovery is under way */
	close_records(log);
	*c = (struct stripelog_ckpt){.base = base, .id = ++log->ckpt_started};
	c->floor = (struct log_floor){.epoch = pool_epoch(log->pool),
		.counter = log->next_counter,
		.generation = pool_epoch(log->pool) << 32 | (log->groups_opened + 1)};
	floor_open_groups(log, c->id);
	HASH_ITER(hh, log->ledger, g, tmp)
	{
		if (ends_with(log, g, c->id))
			g->drop = c->id;
	}
	table_take(log->table);
	if (base)
		c->cursor = 0;
}

static uint32_t floor_put(const struct stripelog *log, const struct stripelog_ckpt *c, void *buf)
{
	struct floor_disk d = {.epoch = to_le64(c->floor.epoch),
		.number = to_le64(stripe_number(log, c->floor.counter)),
		.generation = to_le64(c->floor.generation)};

	memcpy(buf, &d, sizeof(d));
	return sizeof(d);
}

static uint32_t group_bytes(const struct ledger_group *g, bool open)
{
	return (uint32_t)sizeof(struct group_disk) + g->n * (open ? 8u : 4u);
}

static void group_put_bytes(const struct ledger_group *g, bool open, uint8_t *p)
{
	struct group_disk d = {.generation = to_le64(g->generation),
		.nonce = to_le64(g->nonce),
		.last = to_le64(g->last),
		.n = g->n,
		.k = g->k,
		.m = g->m,
		.flags = (uint8_t)((open ? GROUP_OPEN : 0) | (g->mover ? GROUP_MOVER : 0))};

	memcpy(p, &d, sizeof(d));
	p += sizeof(d);
	for (unsigned int i = 0; i < g->n; i++, p += 4)
		memcpy(p, &(le32[]){to_le32(g->members[i].at)}, 4);
	for (unsigned int i = 0; open && i < g->n; i++, p += 4)
		memcpy(p, &(le32[]){to_le32(g->members[i].off)}, 4);
}

/* The group after the one the cursor names. None is freed before the checkpoint ends. */
static struct ledger_group *group_after(const struct stripelog *log, uint64_t generation)
{
	struct ledger_group *g = log->ledger;

	if (generation) {
		g = ledger_find(log, generation);
		return g ? g->hh.next : NULL;
	}
	return g;
}

static uint32_t groups_put(
	struct stripelog *log, struct stripelog_ckpt *c, uint8_t *buf, uint32_t cap)
{
	struct ledger_group *g;
	uint32_t at = 0;

	while ((g = group_after(log, c->cursor)) && g->generation < c->floor.generation) {
		bool open = g->floor == c->id;

		if (g->drop != c->id) {
			if (group_bytes(g, open) > cap - at)
				return at;
			group_put_bytes(g, open, buf + at);
			at += group_bytes(g, open);
		}
		c->cursor = g->generation;
	}
	c->stage = STAGE_TABLE;
	c->cursor = 0;
	return at;
}

static uint32_t entry_put_bytes(const struct stripelog *log, const struct stripelog_ckpt *c,
	uint32_t ref, const struct table_entry *e, uint8_t *p)
{
	struct entry_disk d = {.ref = to_le32(ref)};
	uint32_t naddr;

	if (!e || (NUMBER_SHARD(e->number) == log->shard_id &&
			  NUMBER_COUNTER(e->number) >= c->floor.counter)) {
		memcpy(p, &d, ENTRY_FREED_BYTES);
		return c->base ? 0 : ENTRY_FREED_BYTES;
	}
	naddr = (uint32_t)e->k + e->m;
	d.nblocks = to_le16(e->nblocks);
	d.number = to_le64(e->number);
	d.k = e->k;
	d.m = e->m;
	d.hdr_units = e->hdr_units;
	d.flags = e->flags & ENTRY_THIN ? ENTRY_FLAG_THIN : 0;
	memcpy(p, &d, sizeof(d));
	memcpy(p + sizeof(d), e->addr, naddr * sizeof(e->addr[0]));
	return (uint32_t)(sizeof(d) + naddr * sizeof(e->addr[0]));
}

static uint32_t table_put(
	struct stripelog *log, struct stripelog_ckpt *c, uint8_t *buf, uint32_t cap)
{
	const uint32_t most = sizeof(struct entry_disk) + FRAGS_MAX * sizeof(struct table_addr);
	const struct table_entry *e;
	uint32_t at = 0, ref;

	while (cap - at >= most) {
		if (!table_next(log->table, c->base, &c->cursor, &ref, &e)) {
			c->stage = STAGE_END;
			break;
		}
		at += entry_put_bytes(log, c, ref, e, buf + at);
	}
	return at;
}

int stripelog_checkpoint_next(struct stripelog *log, struct stripelog_ckpt *c, uint16_t *type,
	void *buf, uint32_t cap, uint32_t *len)
{
	assert(cap >= 4096);
	*len = 0;
	if (c->stage == STAGE_FLOOR) {
		*type = LOG_SECTION_FLOOR;
		*len = floor_put(log, c, buf);
		c->stage = STAGE_GROUPS;
	} else if (c->stage == STAGE_GROUPS) {
		*type = LOG_SECTION_GROUPS;
		*len = groups_put(log, c, buf, cap);
	}
	if (!*len && c->stage == STAGE_TABLE) {
		*type = LOG_SECTION_TABLE;
		*len = table_put(log, c, buf, cap);
	}
	return *len ? 0 : 1;
}

void stripelog_checkpoint_end(struct stripelog *log, struct stripelog_ckpt *c, bool committed)
{
	struct ledger_group *g, *tmp;
	bool freed = false;

	table_taken(log->table, committed);
	HASH_ITER(hh, log->ledger, g, tmp)
	{
		if (g->drop != c->id)
			continue;
		if (committed) {
			ledger_del(log, g, true);
			freed = true;
		} else {
			g->drop = 0;
		}
	}
	if (freed)
		space_tell(log, LOG_SPACE_RETURNED);
}

/* ---- in --------------------------------------------------------------------------------------------------------- */

static int damaged(struct err *err, const char *what)
{
	return err_set(
		err, -EUCLEAN, "stripe log", NULL, "the checkpoint's %s make no sense", what);
}

static int floor_load(struct stripelog *log, struct reader *r, struct err *err)
{
	const struct floor_disk *p = reader_get(r, sizeof(*p));
	uint64_t number;

	if (!p || r->left)
		return damaged(err, "limits");
	number = from_le64(p->number);
	log->floor = (struct log_floor){.epoch = from_le64(p->epoch),
		.counter = NUMBER_COUNTER(number),
		.generation = from_le64(p->generation)};
	/* Groups come anew with each part. */
	ledger_close(log);
	log->have_floor = true;
	log->settled = false;
	if (NUMBER_SHARD(number) != log->shard_id || !log->floor.counter ||
		log->floor.generation >> 32 != log->floor.epoch)
		return damaged(err, "limits");
	return 0;
}

static int group_load(struct stripelog *log, struct reader *r)
{
	const struct group_disk *p = reader_get(r, sizeof(*p));
	struct ledger_member members[FRAGS_MAX];
	struct ledger_group like;
	const uint8_t *at, *off = NULL;

	if (!p || !p->n || p->n > FRAGS_MAX || p->k > EC_K_MAX || p->m > EC_M_MAX)
		return -EUCLEAN;
	at = reader_get(r, p->n * 4u);
	if (p->flags & GROUP_OPEN)
		off = reader_get(r, p->n * 4u);
	if (r->bad)
		return -EUCLEAN;
	like = (struct ledger_group){.generation = from_le64(p->generation),
		.nonce = from_le64(p->nonce),
		.last = from_le64(p->last),
		.n = p->n,
		.k = p->k,
		.m = p->m,
		.floor = p->flags & GROUP_OPEN,
		.mover = p->flags & GROUP_MOVER};
	if (like.generation >= log->floor.generation)
		return -EUCLEAN;
	for (unsigned int i = 0; i < p->n; i++) {
		le32 v;

		memcpy(&v, at + i * 4u, sizeof(v));
		members[i] = (struct ledger_member){.at = from_le32(v)};
		if (AT_DEV(members[i].at) >= POOL_DEVS_MAX || !AT_SEGMENT(members[i].at))
			return -EUCLEAN;
		if (!off)
			continue;
		memcpy(&v, off + i * 4u, sizeof(v));
		members[i].off = from_le32(v);
		if (members[i].off < SEG_HDR_BYTES || members[i].off > log->segment_bytes ||
			members[i].off % FRAG_HDR_UNIT)
			return -EUCLEAN;
	}
	for (unsigned int i = 1; i < p->n; i++) {
		for (unsigned int j = 0; j < i; j++) {
			if (AT_DEV(members[i].at) == AT_DEV(members[j].at))
				return -EUCLEAN;
		}
	}
	return ledger_add(log, &like, members, NULL);
}

static int entry_load(struct stripelog *log, struct reader *r)
{
	union {
		struct table_entry e;
		uint8_t bytes[sizeof(struct table_entry)];
	} head = {0};
	const uint8_t *p = reader_get(r, ENTRY_FREED_BYTES), *addr;
	struct entry_disk d;
	uint32_t nfrags;

	if (!p)
		return -EUCLEAN;
	memcpy(&d, p, ENTRY_FREED_BYTES);
	if (!from_le16(d.nblocks))
		return table_load(log->table, from_le32(d.ref), NULL, NULL);
	if (!reader_get(r, sizeof(d) - ENTRY_FREED_BYTES))
		return -EUCLEAN;
	memcpy(&d, p, sizeof(d));
	nfrags = (uint32_t)d.k + d.m;
	addr = reader_get(r, nfrags * sizeof(struct table_addr));
	if (!addr || !d.k || (d.flags & ~ENTRY_FLAG_THIN) || d.k > EC_K_MAX ||
		d.m > FRAGS_MAX - d.k || from_le16(d.nblocks) > EC_BLOCKS_MAX ||
		d.k > from_le16(d.nblocks))
		return -EUCLEAN;
	head.e.number = from_le64(d.number);
	head.e.nblocks = from_le16(d.nblocks);
	head.e.k = d.k;
	head.e.m = d.m;
	head.e.hdr_units = d.hdr_units;
	head.e.flags = (uint8_t)(ENTRY_RECOVERED | (d.flags ? ENTRY_THIN : 0));
	return table_load(log->table, from_le32(d.ref), &head.e,
		(const struct table_addr *)(const void *)addr);
}

static int load_all(struct stripelog *log, struct reader *r,
	int (*one)(struct stripelog *log, struct reader *r), const char *what, struct err *err)
{
	if (!log->have_floor)
		return damaged(err, "limits");
	while (r->left) {
		int rc = one(log, r);

		if (rc == -ENOMEM)
			return err_set(err, rc, "stripe log", NULL, "no memory for a checkpoint");
		if (rc < 0)
			return damaged(err, what);
	}
	return 0;
}

int stripelog_load(
	struct stripelog *log, uint16_t type, const void *body, uint32_t len, struct err *err)
{
	struct reader r = reader_of(body, len);

	assert(!log->scan && !log->inflight && !log->load_ended);
	switch (type) {
	case LOG_SECTION_FLOOR:
		return floor_load(log, &r, err);
	case LOG_SECTION_GROUPS:
		return load_all(log, &r, group_load, "groups", err);
	case LOG_SECTION_TABLE:
		return load_all(log, &r, entry_load, "stripes", err);
	default:
		return 0;
	}
}

/* ---- together ------------------------------------------------------------------------------------------------------ */

struct check {
	struct stripelog *log;
	int rc;
};

/* Below the floor, every fragment within a member of one group, and noted in its books. */
static void entry_check(void *arg, uint32_t ref, struct table_entry *e)
{
	struct check *c = arg;
	struct ledger_group *g = entry_group(c->log, e);
	uint64_t len = table_hdr_bytes(e);

	if (c->rc < 0)
		return;
	if (!g || !g->k || !floor_covers(c->log, g->generation >> 32, e->number)) {
		c->rc = -EUCLEAN;
		return;
	}
	len += (uint64_t)table_rows(e) * EC_BLOCK;
	for (unsigned int i = 0; i < (unsigned int)e->k + e->m; i++) {
		struct frag_addr a = table_addr_of(e, i);
		uint64_t need = i + 1 == e->k ? table_hdr_bytes(e) : len; /* it may be short */

		if (ledger_at(c->log, SEG_AT(a.dev, a.segment)) != g || a.off < SEG_HDR_BYTES ||
			a.off + need > c->log->segment_bytes) {
			c->rc = -EUCLEAN;
			return;
		}
	}
	g->thin |= (e->flags & ENTRY_THIN) != 0;
	c->rc = entry_track(c->log, ref);
}

static int claim_groups(struct stripelog *log, struct err *err)
{
	struct ledger_group *g, *tmp;

	HASH_ITER(hh, log->ledger, g, tmp)
	{
		for (unsigned int i = 0; i < g->n; i++) {
			uint32_t at = g->members[i].at;

			if (pool_segment_claim(log->pool, AT_DEV(at), AT_SEGMENT(at), POOL_LOG) < 0)
				return err_set(err, -EUCLEAN, "stripe log", NULL,
					"the checkpoint gives segment %u of device %u to two "
					"owners",
					AT_SEGMENT(at), AT_DEV(at));
		}
	}
	return 0;
}

int stripelog_load_end(struct stripelog *log, struct err *err)
{
	struct check c = {.log = log};

	if (!log->have_floor || log->load_ended)
		return 0;
	log->load_ended = true;
	ledger_sort(log);
	c.rc = table_load_end(log->table);
	if (c.rc == 0)
		table_each(log->table, entry_check, &c);
	if (c.rc == -ENOMEM)
		return err_set(err, c.rc, "stripe log", NULL, "no memory for a checkpoint");
	if (c.rc < 0)
		return damaged(err, "stripes");
	return claim_groups(log, err);
}
