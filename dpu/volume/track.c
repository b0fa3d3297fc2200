/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/volume/track.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/volume/move.h"
#include "dpu/volume/store_priv.h"

#define SHIFT_MIN  4u /* 16 blocks: 64 KiB */
#define PIECES_MAX (1ull << 25)
#define WORD_BITS  64u

_Static_assert((int)KIND_PLAIN == (int)IO_PLAIN && (int)KIND_INTERMEDIATE == (int)IO_INTERMEDIATE &&
		       (int)KIND_PROTECT == (int)IO_PROTECT,
	"a kind is the outcome of its copy");

struct track {
	unsigned int shift; /* blocks of a piece: 1 << shift */
	uint64_t npieces, nmarked;
	uint64_t words[];
};

/* ---- bits ------------------------------------------------------------------------------------------------------- */

static bool marked(const struct track *t, uint64_t piece)
{
	return t->words[piece / WORD_BITS] >> (piece % WORD_BITS) & 1;
}

/* The bits of [first, end) in the word of `first`; *next is where the rest begins. */
static uint64_t word_mask(uint64_t first, uint64_t end, uint64_t *next)
{
	uint64_t mask = UINT64_MAX << (first % WORD_BITS);

	*next = (first / WORD_BITS + 1) * WORD_BITS;
	if (*next > end) {
		mask &= UINT64_MAX >> (*next - end);
		*next = end;
	}
	return mask;
}

static void set(struct track *t, uint64_t first, uint64_t end)
{
	for (uint64_t next; first < end; first = next) {
		uint64_t *w = &t->words[first / WORD_BITS], mask = word_mask(first, end, &next);

		t->nmarked += (unsigned int)__builtin_popcountll(mask & ~*w);
		*w |= mask;
	}
}

static void clear(struct track *t, uint64_t first, uint64_t end)
{
	for (uint64_t next; first < end; first = next) {
		uint64_t *w = &t->words[first / WORD_BITS], mask = word_mask(first, end, &next);

		t->nmarked -= (unsigned int)__builtin_popcountll(mask & *w);
		*w &= ~mask;
	}
}

/* The first marked piece of [first, end); end: none. */
static uint64_t next_marked(const struct track *t, uint64_t first, uint64_t end)
{
	for (uint64_t next; first < end; first = next) {
		uint64_t w = t->words[first / WORD_BITS] & word_mask(first, end, &next);

		if (w)
			return first / WORD_BITS * WORD_BITS + (unsigned int)__builtin_ctzll(w);
	}
	return end;
}

/* ---- life --------------------------------------------------------------------------------------------------------- */

static struct track *track_new(uint64_t nblocks, unsigned int shift)
{
	struct track *t;
	uint64_t n;

	while ((n = DIV_ROUND_UP(nblocks, 1ull << shift)) > PIECES_MAX)
		shift++;
	t = calloc(1, sizeof(*t) + DIV_ROUND_UP(n, WORD_BITS) * sizeof(uint64_t));
	if (!t)
		return NULL;
	t->shift = shift;
	t->npieces = n;
	return t;
}

int volume_track_start(struct volume *v)
{
	if (v->track)
		return -EBUSY;
	v->track = track_new(v->nblocks, SHIFT_MIN);
	return v->track ? 0 : -ENOMEM;
}

void volume_track_stop(struct volume *v)
{
	free(v->track);
	v->track = NULL;
}

bool volume_is_tracked(const struct volume *v)
{
	return v->track != NULL;
}

int track_grow(struct volume *v, uint64_t nblocks)
{
	struct track *old = v->track, *t;
	unsigned int up;

	if (!old || DIV_ROUND_UP(nblocks, 1ull << old->shift) <= old->npieces)
		return 0;
	t = track_new(nblocks, old->shift);
	if (!t)
		return -ENOMEM;
	up = t->shift - old->shift;
	for (uint64_t i = 0; (i = next_marked(old, i, old->npieces)) < old->npieces; i++)
		set(t, i >> up, (i >> up) + 1);
	free(old);
	v->track = t;
	return 0;
}

/* ---- marks ---------------------------------------------------------------------------------------------------------- */

void volume_track_mark(struct volume *v, uint64_t block, uint64_t n)
{
	struct track *t = v->track;

	if (t && n)
		set(t, block >> t->shift, MIN(t->npieces, ((block + n - 1) >> t->shift) + 1));
}

void volume_track_clear(struct volume *v, uint64_t block, uint64_t n)
{
	struct track *t = v->track;
	uint64_t end = block + n;

	if (!t)
		return;
	/* The last piece of a volume is whole although it may be short. */
	clear(t, DIV_ROUND_UP(block, 1ull << t->shift),
		end >= v->nblocks ? t->npieces : end >> t->shift);
}

void track_op(const struct op *op)
{
	const struct io_req *r = op->req;
	uint64_t first;

	if (op->kind != OP_WRITE && op->kind != OP_ZERO && op->kind != OP_TRIM)
		return;
	first = r->off_bytes / IO_BLOCK_BYTES;
	volume_track_mark(
		op->vol, first, DIV_ROUND_UP(r->off_bytes + r->len_bytes, IO_BLOCK_BYTES) - first);
}

uint64_t volume_track_take(
	struct volume *v, uint64_t *cursor, uint64_t end, uint64_t max_blocks, uint64_t *block)
{
	struct track *t = v->track;
	uint64_t stop, first, n = 1, max;

	end = MIN(end, v->nblocks);
	if (!t || *cursor >= end)
		return 0;
	/* A piece that was begun (they may have become coarser since) is left for the next pass. */
	stop = DIV_ROUND_UP(end, 1ull << t->shift);
	first = next_marked(t, DIV_ROUND_UP(*cursor, 1ull << t->shift), stop);
	if (first >= stop) {
		*cursor = end;
		return 0;
	}
	max = MAX(max_blocks >> t->shift, 1ull);
	while (n < max && first + n < stop && marked(t, first + n))
		n++;
	clear(t, first, first + n);
	*block = first << t->shift;
	*cursor = MIN((first + n) << t->shift, end);
	if (((first + n) << t->shift) > end && end < v->nblocks)
		volume_track_mark(v, end, 1);
	return *cursor - *block;
}

uint64_t volume_track_bytes(const struct volume *v)
{
	return v->track ? (v->track->nmarked << v->track->shift) * IO_BLOCK_BYTES : 0;
}

/* ---- kinds ------------------------------------------------------------------------------------------------------------ */

uint32_t volume_kinds(const struct volume *v, uint64_t block, uint32_t n, uint8_t *kinds)
{
	static const uint8_t of[MAP_STATES] = {[BLOCK_UNMAPPED] = KIND_NOTHING,
		[BLOCK_ZERO] = KIND_NOTHING,
		[BLOCK_DATA] = KIND_PLAIN,
		[BLOCK_DATA_LOG] = KIND_PROTECT,
		[BLOCK_LOG] = KIND_PROTECT,
		[BLOCK_INTERMEDIATE] = KIND_INTERMEDIATE,
		[MAP_STATE_LOST] = KIND_LOST};
	struct map_entry e[CHUNK_BLOCKS];

	n = volume_look(v, block, MIN(n, CHUNK_BLOCKS), e);
	for (uint32_t i = 0; i < n; i++)
		kinds[i] = of[e[i].state];
	return n;
}
