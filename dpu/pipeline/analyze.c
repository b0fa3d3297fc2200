/* SPDX-License-Identifier: BSD-3-Clause */
/* I/O analysis (201): which volume and flash (203), and whether a write is erasure-coded (204). */
#include "dpu/pipeline/pipeline_priv.h"

enum io_status analyze(struct pipeline *p, struct pipeline_slot *slot, struct io_req *req)
{
	/* The one look at the tables this request gets. */
	const struct tables_snapshot *s = tables_current(p->cfg.tables);
	const struct tables_entry *e;

	if (!slot->vol) {
		slot->vm->stats.foreign++;
		return IO_ERR_INVALID;
	}
	e = tables_find(s, slot->vol->id);
	if (e && e->vm != req->vm) {
		slot->vm->stats.foreign++;
		return IO_ERR_INVALID;
	}
	/* A volume the tables do not name is plain. */
	req->outcome = e ? e->outcome : IO_PLAIN;
	return IO_OK;
}
