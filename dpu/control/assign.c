/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/control/assign.h"

#include "common/base/endian.h"
#include "common/base/util.h"

#include <errno.h>
#include <string.h>

#define STATE_SHARDS "shards"
#define ROOM_STEP    16u

struct head {
	le32 count, nvms;
};
struct entry {
	le32 vm, shard;
};
_Static_assert(sizeof(struct head) == 8 && sizeof(struct entry) == 8, "state shards");

/* Where vm is, or would be. */
static size_t place_of(const struct assign *a, uint32_t vm)
{
	size_t lo = 0, hi = a->n;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;

		if (a->vms[mid].vm < vm)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int assign_find(const struct assign *a, uint32_t vm)
{
	size_t i = place_of(a, vm);

	return i < a->n && a->vms[i].vm == vm ? (int)a->vms[i].shard : -ENOENT;
}

int assign_set(struct assign *a, uint32_t vm, unsigned int shard)
{
	size_t i = place_of(a, vm);
	struct assign_vm *more;

	if (i < a->n && a->vms[i].vm == vm) {
		a->vms[i].shard = shard;
		return 0;
	}
	if (a->n == ASSIGN_VMS_MAX)
		return -ENOSPC;
	if (a->n % ROOM_STEP == 0) {
		more = realloc(a->vms, (a->n + ROOM_STEP) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		a->vms = more;
	}
	memmove(&a->vms[i + 1], &a->vms[i], (a->n - i) * sizeof(a->vms[0]));
	a->vms[i] = (struct assign_vm){vm, shard};
	a->n++;
	return 0;
}

int assign_copy(const struct assign *a, struct assign *out)
{
	*out = (struct assign){.count = a->count};
	out->vms = malloc(ROUND_UP(a->n + 1, (size_t)ROOM_STEP) * sizeof(out->vms[0]));
	if (!out->vms)
		return -ENOMEM;
	if (a->n)
		memcpy(out->vms, a->vms, a->n * sizeof(a->vms[0]));
	out->n = a->n;
	return 0;
}

void assign_clear(struct assign *a)
{
	free(a->vms);
	a->vms = NULL;
	a->n = 0;
}

/* ---- as bytes ------------------------------------------------------------------------------------------------ */

static int not_ours(struct err *e, const char *what)
{
	return err_set(e, -EUCLEAN, "state shards", NULL, "it cannot be read: %s", what);
}

static int take_entry(const struct entry *in, struct assign *out, struct err *e)
{
	uint32_t vm = from_le32(in->vm), shard = from_le32(in->shard);

	if (shard >= out->count)
		return not_ours(e, "a VM is on a shard that is not there");
	if (out->n && vm <= out->vms[out->n - 1].vm)
		return not_ours(e, "VMs are not in order");
	return assign_set(out, vm, shard);
}

int assign_decode(const uint8_t *body, size_t len_bytes, struct assign *out, struct err *e)
{
	struct entry en;
	struct head h;
	size_t n;
	int rc = 0;

	*out = (struct assign){.count = 1};
	if (len_bytes < sizeof(h))
		return not_ours(e, "too short");
	memcpy(&h, body, sizeof(h));
	n = from_le32(h.nvms);
	if (n > ASSIGN_VMS_MAX || len_bytes != sizeof(h) + n * sizeof(en))
		return not_ours(e, "its length is wrong");
	if (from_le32(h.count) < 1 || from_le32(h.count) > ASSIGN_SHARDS_MAX)
		return not_ours(e, "so many shards there cannot be");
	out->count = from_le32(h.count);
	for (size_t i = 0; rc == 0 && i < n; i++) {
		memcpy(&en, body + sizeof(h) + i * sizeof(en), sizeof(en));
		rc = take_entry(&en, out, e);
	}
	if (rc < 0) {
		assign_clear(out);
		out->count = 1;
	}
	return rc;
}

int assign_load(struct state_dir *dir, struct assign *out, struct err *e)
{
	autofree void *body = NULL;
	size_t len;
	int rc = state_load(dir, STATE_SHARDS, &body, &len, e);

	*out = (struct assign){.count = 1};
	return rc < 0 ? rc : assign_decode(body, len, out, e);
}

int assign_save(struct state_dir *dir, const struct assign *a, struct err *e)
{
	size_t len = sizeof(struct head) + a->n * sizeof(struct entry);
	struct head h = {.count = to_le32(a->count), .nvms = to_le32((uint32_t)a->n)};
	autofree uint8_t *body = malloc(len);

	if (!body)
		return err_set(e, -ENOMEM, "state shards", NULL, "out of memory");
	memcpy(body, &h, sizeof(h));
	for (size_t i = 0; i < a->n; i++) {
		struct entry en = {to_le32(a->vms[i].vm), to_le32(a->vms[i].shard)};

		memcpy(body + sizeof(h) + i * sizeof(en), &en, sizeof(en));
	}
	return state_save(dir, STATE_SHARDS, body, len, e);
}
