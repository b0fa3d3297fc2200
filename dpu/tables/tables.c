/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/tables/tables.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

_Static_assert((int)IO_PLAIN == (int)POLICY_PLAIN, "outcomes");
_Static_assert((int)IO_INTERMEDIATE == (int)POLICY_INTERMEDIATE, "outcomes");
_Static_assert((int)IO_PROTECT == (int)POLICY_PROTECT, "outcomes");

/* ---- snapshots ------------------------------------------------------------------------------------------ */

static struct tables_snapshot *snapshot_new(
	struct tables_doc *doc, const struct tables_volume *volumes, size_t n)
{
	struct tables_snapshot *s;
	size_t places = 16;

	while (places < n * 2)
		places *= 2;
	s = calloc(1, sizeof(*s) + places * sizeof(s->entries[0]));
	if (!s)
		return NULL;
	s->version = doc->policy->version;
	s->doc = tables_doc_get(doc);
	s->mask = (uint32_t)places - 1;
	s->nvolumes = (uint32_t)n;
	for (size_t i = 0; i < n; i++) {
		uint32_t at = tables_hash(volumes[i].id);
		struct tables_entry *e;

		assert(volumes[i].id != 0);
		while (s->entries[at & s->mask].volume)
			at++;
		e = &s->entries[at & s->mask];
		e->volume = volumes[i].id;
		e->vm = volumes[i].vm;
		e->device = tables_doc_device(doc, volumes[i].vm, volumes[i].path);
		e->outcome = e->device ? (enum io_outcome)policy_decide(e->device) : IO_PLAIN;
	}
	return s;
}

static void snapshot_free(struct tables_snapshot *s)
{
	if (!s)
		return;
	tables_doc_put(s->doc);
	free(s);
}

/* ---- replacing ------------------------------------------------------------------------------------------- */

/* A former snapshot on its way out: freed when the shard has come round to its messages. */
struct retiree {
	struct tables *tables;
	struct tables_snapshot *snapshot;
};

static void grace_over(void *arg)
{
	struct retiree *r = arg;

	r->tables->retiring--;
	snapshot_free(r->snapshot);
	free(r);
}

int tables_publish(struct tables *t, struct tables_doc *doc, const struct tables_volume *volumes,
	size_t nvolumes)
{
	struct retiree *r = malloc(sizeof(*r));
	struct tables_snapshot *s = snapshot_new(doc, volumes, nvolumes), *old = t->current;
	int rc = -ENOMEM;

	if (!r || !s)
		goto fail;
	*r = (struct retiree){.tables = t, .snapshot = old};
	/* The message first: it cannot run before this function returns to the loop, and it is what may fail. */
	rc = shard_post(t->shard, grace_over, r);
	if (rc < 0)
		goto fail;
	t->retiring++;
	t->swaps++;
	__atomic_store_n(&t->current, s, __ATOMIC_RELEASE);
	return 0;
fail:
	snapshot_free(s);
	free(r);
	return rc;
}

int tables_open(struct shard *sh, struct tables **out)
{
	struct tables *t = calloc(1, sizeof(*t));
	struct tables_doc *doc = NULL;
	int rc = -ENOMEM;

	if (!t)
		return -ENOMEM;
	t->shard = sh;
	rc = tables_doc_empty(&doc);
	if (rc == 0) {
		t->current = snapshot_new(doc, NULL, 0);
		tables_doc_put(doc);
		rc = t->current ? 0 : -ENOMEM;
	}
	if (rc < 0) {
		free(t);
		return rc;
	}
	*out = t;
	return 0;
}

static bool none_retiring(void *arg)
{
	return ((struct tables *)arg)->retiring == 0;
}

void tables_close(struct tables *t)
{
	if (!t)
		return;
	shard_wait(t->shard, none_retiring, t, 0);
	snapshot_free(t->current);
	free(t);
}
