/* SPDX-License-Identifier: BSD-3-Clause */
/* Where the slices of a device begin and end, and which exclude each other. */
#include <errno.h>

#include "common/base/units.h"
#include "common/base/util.h"
#include "dpu/flash/flash_priv.h"

uint64_t flash_slice_bytes(uint64_t cut_bytes, uint32_t slices)
{
	uint64_t part = slices ? cut_bytes / slices : 0;

	return part - part % FLASH_SLICE_ALIGN;
}

struct slice slice_of(const struct flash_opts *o)
{
	return (struct slice){
		.index = o->slice, .count = MAX(o->slices, 1u), .cut_bytes = o->cut_bytes};
}

bool slice_clashes(const struct slice *a, const struct slice *b)
{
	return a->count != b->count || a->index == b->index ||
	       (a->cut_bytes && b->cut_bytes && a->cut_bytes != b->cut_bytes);
}

int slice_settle(struct slice *s, const char *name, uint64_t size_bytes, struct err *err)
{
	char now[32], then[32];

	if (s->count == 1)
		return 0;
	if (s->cut_bytes > size_bytes)
		return err_set(err, -EUCLEAN, name, "size",
			"it has shrunk: %s, it was cut into slices when it had %s",
			units_format_bytes(size_bytes, now, sizeof(now)),
			units_format_bytes(s->cut_bytes, then, sizeof(then)));
	if (!s->cut_bytes)
		s->cut_bytes = size_bytes;
	if (!flash_slice_bytes(s->cut_bytes, s->count))
		return err_set(err, -EINVAL, name, "slices",
			"%s is too small for %u: each has %s at least",
			units_format_bytes(s->cut_bytes, now, sizeof(now)), s->count,
			units_format_bytes(FLASH_SLICE_ALIGN, then, sizeof(then)));
	return 0;
}

uint64_t slice_bytes(const struct slice *s, uint64_t size_bytes)
{
	return s->count == 1 ? size_bytes : flash_slice_bytes(s->cut_bytes, s->count);
}

uint64_t slice_base(const struct slice *s)
{
	return s->count == 1 ? 0 : s->index * flash_slice_bytes(s->cut_bytes, s->count);
}
