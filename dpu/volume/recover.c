/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Recovery: from a checkpoint, and what the log's scan finds since, in no particular order, to maps that are as they were.
 *
 *	load      -> the committed checkpoint, if there is one
 *	scan      -> per volume: a map and, beside each page, the sequence of what it holds; the newest of a block wins
 *	finish    -> volumes whose newest record says they exist; their pieces; trims; states of protected blocks
 *	judge     -> blocks that refer to nothing, or whose newest stripe is lost: a data-area copy with the right CRC, or a refusal (force: media errors)
 *	away      -> a refusal where what was written last may be on members that are not here (force: a warning)
 *	begin     -> epoch + 1, the checkpoint's root, the log's own recovery, records of what was judged
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/volume/ckpt.h"
#include "dpu/volume/recover_priv.h"

struct moved {
	uint32_t from, to;
	UT_hash_handle hh;
};

/* ---- volumes ------------------------------------------------------------------------------------------------------------ */

/*
 * 0, or -EEXIST where the record does not count: it was never complete (nothing can refer to the piece), and a recovery that did not see its
 * copies gave the segment to the log.
 */
static int claim_segment(struct recovery *r, const struct rec_area_fields *a)
{
	enum pool_use use = a->kind == AREA_DATA ? POOL_DATA : POOL_INTERMEDIATE;
	int rc = pool_segment_claim(r->s->pool, a->dev, a->segment, use);

	if (rc != -EEXIST)
		return rc;
	if (pool_segment_use(r->s->pool, a->dev, a->segment) != POOL_LOG)
		return -EUCLEAN;
	rc = stripelog_segment_yield(r->s->log, a->dev, a->segment, a->seq >> SEQ_EPOCH_SHIFT);
	return rc ? rc : pool_segment_claim(r->s->pool, a->dev, a->segment, use);
}

static int claim_area(
	struct recovery *r, struct volume *v, const struct found_area *fa, struct err *err)
{
	const struct rec_area_fields *a = &fa->f;
	bool same = fa->loaded && fa->loaded_dev == a->dev && fa->loaded_segment == a->segment;
	int rc;

	if (a->gone || !same)
		recovery_unload_area(r, fa);
	if (a->gone)
		return 0;
	if (a->piece >= v->npieces || a->dev >= pool_ndevs(r->s->pool))
		return err_set(err, -EUCLEAN, v->cfg.name, NULL,
			"a record places piece %llu outside the volume or the pool",
			(unsigned long long)a->piece);
	rc = same ? 0 : claim_segment(r, a);
	if (rc == -EEXIST)
		return 0;
	if (rc < 0)
		return err_set(err, -EUCLEAN, v->cfg.name, NULL,
			"segment %u of %s, which holds piece %llu, is %s", a->segment,
			pool_dev(r->s->pool, a->dev)->name, (unsigned long long)a->piece,
			rc == -EUCLEAN ? "also used by something else" : "not there");
	v->pieces[a->kind][a->piece] = (struct piece){
		.segment = a->segment, .dev = a->dev, .state = PIECE_READY};
	return 0;
}

static int claim_areas(struct recovery *r, struct shadow *sh, struct err *err)
{
	int rc = 0;

	for (struct found_area *a = sh->areas; a && rc == 0; a = a->hh.next)
		rc = claim_area(r, sh->vol, a, err);
	return rc;
}

static int by_id(const struct shadow *a, const struct shadow *b)
{
	return a->id < b->id ? -1 : a->id > b->id;
}

/* The latest of a name: an earlier one can only be a creation that was reported as failed. */
static bool superseded(struct recovery *r, const struct shadow *sh)
{
	for (const struct shadow *o = r->shadows; o; o = o->hh.next)
		if (o->id > sh->id && o->have_cfg && !o->rec.deleted &&
			!strcmp(o->rec.cfg.name, sh->rec.cfg.name))
			return true;
	return false;
}

static int make_volume(struct recovery *r, struct shadow *sh, struct err *err)
{
	struct volume_cfg *c = &sh->rec.cfg;
	uint64_t nblocks = c->size_bytes / IO_BLOCK_BYTES;
	int rc;

	rc = shadow_apply_zeros(sh);
	if (rc == 0)
		rc = map_fit(sh->map, nblocks);
	if (rc == -EUCLEAN)
		return err_set(err, rc, c->name, NULL, "there are blocks beyond its end (%llu)",
			(unsigned long long)nblocks);
	if (rc == 0)
		rc = volume_new(r->s, sh->id, c, sh->map, &sh->vol);
	if (rc < 0)
		return err_set(err, rc, c->name, NULL, "no memory for its map");
	sh->map = NULL; /* the volume's now */
	sh->vol->version = sh->vol->last_version = sh->rec.version;
	return claim_areas(r, sh, err);
}

static void unmake_volume(struct recovery *r, struct shadow *sh)
{
	for (struct found_area *a = sh->areas; a; a = a->hh.next)
		recovery_unload_area(r, a);
	if (!sh->have_cfg)
		log_warn("recovery: the log has data of volume %u, which no record knows: dropped",
			sh->id);
}

static int make_volumes(struct recovery *r, struct err *err)
{
	struct shadow *sh, *next;
	int rc = 0;

	HASH_SORT(r->shadows, by_id);
	HASH_ITER(hh, r->shadows, sh, next)
	{
		if (sh->have_cfg && !sh->rec.deleted && !superseded(r, sh))
			rc = make_volume(r, sh, err);
		else
			unmake_volume(r, sh);
		if (rc < 0)
			return rc;
		shadow_free_seq(sh);
	}
	return 0;
}

/* ---- beginning ---------------------------------------------------------------------------------------------------------------- */

static void stripe_moved(void *arg, uint32_t old_ref, uint32_t new_ref)
{
	struct recovery *r = arg;
	struct moved *m = calloc(1, sizeof(*m));

	if (!m) {
		r->rc = -ENOMEM;
		return;
	}
	m->from = old_ref;
	m->to = new_ref;
	HASH_ADD(hh, r->moved, from, sizeof(m->from), m);
	r->s->stats.recovery_reappended++;
}

static int move_page(void *arg, uint64_t first, struct map_page *page)
{
	struct recovery *r = arg;
	struct moved *m;

	for (unsigned int i = 0; i < MAP_PAGE_BLOCKS; i++) {
		if (!map_in_log(page->ps[i] & 7))
			continue;
		HASH_FIND(hh, r->moved, &page->ref[i], sizeof(page->ref[i]), m);
		if (!m)
			continue;
		page->ref[i] = m->to;
		map_page_touch(r->vol->map, page);
	}
	return 0;
}

static void moved_free(struct recovery *r)
{
	struct moved *m, *next;

	HASH_ITER(hh, r->moved, m, next)
	{
		HASH_DEL(r->moved, m);
		free(m);
	}
}

static int begin(struct recovery *r, struct err *err)
{
	struct store *s = r->s;
	struct volume *v;
	int rc = pool_epoch_begin(s->pool, err);

	if (rc < 0)
		return rc;
	TAILQ_FOREACH (v, &s->volumes, link)
		v->next_seq = (pool_epoch(s->pool) << SEQ_EPOCH_SHIFT) + 1;
	s->next_note_seq = (pool_epoch(s->pool) << SEQ_EPOCH_SHIFT) + 1;
	notes_settle(s);
	rc = ckpt_settle(s->pool, err);
	if (rc == 0)
		rc = stripelog_recover(s->log, stripe_moved, r, err);
	if (rc == 0)
		rc = r->rc;
	if (rc < 0)
		return rc;
	if (r->moved)
		TAILQ_FOREACH (r->vol, &s->volumes, link)
			map_each_page(r->vol->map, move_page, r);
	rc = recovery_record_verdicts(r);
	if (rc < 0)
		return err_set(err, rc, pool_cfg(s->pool)->name, NULL,
			"the verdict about lost blocks could not be made durable: %s",
			strerror(-rc));
	return 0;
}

static int scan(struct recovery *r, struct err *err)
{
	struct store *s = r->s;
	struct stripelog_visitor visitor = recovery_visitor;
	struct stripelog_stats st;
	int rc;

	visitor.arg = r;
	stripelog_watch(s->log, s->cfg.progress);
	rc = stripelog_scan(s->log, &visitor, err);
	stripelog_watch(s->log, NULL);
	if (rc == 0 && r->rc < 0)
		rc = err_set(err, r->rc, pool_cfg(s->pool)->name, NULL, "scan: %s",
			r->rc == -ENOSPC ? "the maps do not fit their memory: parapet-dpu "
					   "--map-memory gives more"
					 : strerror(-r->rc));
	stripelog_stats(s->log, &st);
	s->stats.recovery_log_bytes = st.scan_segments * pool_segment_bytes(s->pool);
	return rc;
}

int store_recover(struct store *s, struct err *err)
{
	struct recovery r = {.s = s};
	uint64_t t0 = shard_now_ns(s->sh);
	int rc;

	r.buf = mem_alloc(IO_BLOCK_BYTES);
	if (!r.buf)
		return err_set(err, -ENOMEM, pool_cfg(s->pool)->name, NULL, "no memory");
	rc = recovery_load(&r, err);
	if (rc == 0)
		rc = scan(&r, err);
	if (rc == 0)
		rc = make_volumes(&r, err);
	if (rc == 0)
		rc = recovery_judge(&r, err);
	if (rc == 0)
		rc = recovery_check_away(&r, err);
	if (rc == 0 && recovery_name_lost(&r) < 0)
		rc = err_set(err, -ENOMEM, pool_cfg(s->pool)->name, NULL, "no memory");
	if (rc == 0 && !s->cfg.read_only)
		rc = begin(&r, err);
	if (rc == 0) {
		s->recovered = true;
		checkpoint_soon(s);
	}
	moved_free(&r);
	shadows_free(&r);
	free(r.verdicts);
	mem_free(r.buf, IO_BLOCK_BYTES);
	s->stats.recovery_ns = shard_now_ns(s->sh) - t0;
	return rc;
}
