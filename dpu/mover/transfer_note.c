/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Notes of volumes on their way to another shard, in the pools of both (hwdocs/formats/records.md): which VM's, from where, to where, and whether the copy is
 * whole. What they mean at a start:
 *
 *	                    the VM is here                    it is at the other end of the move       elsewhere
 *	at the source       stays                             goes, if the copy was whole              unclear
 *	at the destination  stays, if it was whole            goes                                     unclear
 *
 * Unclear never happens by itself (somebody has changed where the VM is): nothing is deleted then.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/endian.h"
#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/mover/transfer_priv.h"

#define PREFIX "moving/"

struct moving_note {
	le32 vm;
	uint8_t from, to, complete, zero;
	uint8_t nguid[16];
	char name[64];
};
_Static_assert(sizeof(struct moving_note) == 88, "moving note");
_Static_assert(sizeof(struct moving_note) <= STORE_NOTE_BODY_MAX, "fits a note");

/* Names are longer than keys. FNV-1a; that two volumes have one key is told. */
static void key_of(const char *name, char key[STORE_NOTE_KEY_MAX + 1])
{
	uint64_t h = 0xcbf29ce484222325ull;

	for (const char *p = name; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3ull;
	snprintf(key, STORE_NOTE_KEY_MAX + 1, PREFIX "%016llx", (unsigned long long)h);
}

struct put_wait {
	bool done;
	int status;
};

static void put_done(void *arg, int status)
{
	struct put_wait *w = arg;

	w->status = status;
	w->done = true;
}

static bool put_is_done(void *arg)
{
	return ((struct put_wait *)arg)->done;
}

static int put(struct store *s, const char *key, const void *body, uint8_t len, const char *name,
	struct err *err)
{
	struct put_wait w = {0};
	int rc = store_note_put(s, key, body, len, put_done, &w);

	if (rc == 0)
		rc = shard_wait(pool_shard(store_pool(s)), put_is_done, &w, 0);
	if (rc == 0)
		rc = w.status;
	if (rc < 0)
		return err_set(err, rc, name, NULL,
			"the note that it moves could not be made durable: %s", strerror(-rc));
	return 0;
}

/* false: there is none, or it is not one. */
static bool note_get(const struct store *s, const char *key, struct moving_note *out)
{
	uint8_t len;
	const void *body = store_note_get(s, key, &len);

	if (!body || len != sizeof(*out))
		return false;
	memcpy(out, body, sizeof(*out));
	return memchr(out->name, 0, sizeof(out->name)) != NULL;
}

int transfer_note_put(struct store *s, const struct transfer_cfg *c, const struct volume_cfg *v,
	bool complete, struct err *err)
{
	struct moving_note n = {.vm = to_le32(c->vm),
		.from = (uint8_t)c->from_shard,
		.to = (uint8_t)c->to_shard,
		.complete = complete};
	char key[STORE_NOTE_KEY_MAX + 1];
	struct moving_note old;

	key_of(v->name, key);
	if (note_get(s, key, &old) && strcmp(old.name, v->name) != 0)
		return err_set(err, -EEXIST, v->name, NULL,
			"moves under the same note as %s: move it when that one is done", old.name);
	memcpy(n.nguid, v->nguid, sizeof(n.nguid));
	memcpy(n.name, v->name, sizeof(n.name));
	return put(s, key, &n, sizeof(n), v->name, err);
}

int transfer_note_del(struct store *s, const char *name, struct err *err)
{
	char key[STORE_NOTE_KEY_MAX + 1];
	struct moving_note n;

	key_of(name, key);
	if (!note_get(s, key, &n) || strcmp(n.name, name) != 0)
		return 0;
	return put(s, key, NULL, 0, name, err);
}

bool transfer_note_is_debris(
	const struct store *s, const struct transfer_cfg *c, const struct volume_cfg *v)
{
	char key[STORE_NOTE_KEY_MAX + 1];
	struct moving_note n;

	key_of(v->name, key);
	return note_get(s, key, &n) && !strcmp(n.name, v->name) && from_le32(n.vm) == c->vm &&
	       !memcmp(n.nguid, v->nguid, sizeof(n.nguid));
}

bool transfer_is_part(const struct store *s, unsigned int self, const struct volume *v)
{
	const struct volume_cfg *cfg = volume_cfg(v);
	char key[STORE_NOTE_KEY_MAX + 1];
	struct moving_note n;

	key_of(cfg->name, key);
	return note_get(s, key, &n) && !strcmp(n.name, cfg->name) && n.to == self && !n.complete &&
	       !memcmp(n.nguid, cfg->nguid, sizeof(n.nguid));
}

/* ---- after a start --------------------------------------------------------------------------------------------------- */

struct note_list {
	struct moving_note *n;
	size_t count, cap;
};

static int collect(void *arg, const char *key, const void *body, uint8_t len)
{
	struct note_list *l = arg;
	struct moving_note n;

	memcpy(&n, body, MIN(sizeof(n), (size_t)len));
	if (len != sizeof(n) || !memchr(n.name, 0, sizeof(n.name))) {
		log_warn("note %s is not one of a volume that moves: left alone", key);
		return 0;
	}
	if (l->count == l->cap) {
		size_t cap = l->cap ? 2 * l->cap : 16;
		struct moving_note *p = realloc(l->n, cap * sizeof(*p));

		if (!p)
			return -ENOMEM;
		l->n = p;
		l->cap = cap;
	}
	l->n[l->count++] = n;
	return 0;
}

enum verdict { STAYS, GOES, UNCLEAR };

static enum verdict judge(const struct moving_note *n, unsigned int self, unsigned int where)
{
	if (where == self && (self == n->from || n->complete))
		return STAYS;
	if ((self == n->to && where == n->from) ||
		(self == n->from && where == n->to && n->complete))
		return GOES;
	return UNCLEAR;
}

static int delete_volume(struct store *s, const struct moving_note *n, struct err *err)
{
	struct volume *v = volume_find(s, n->name);

	if (!v || memcmp(volume_cfg(v)->nguid, n->nguid, sizeof(n->nguid)) != 0)
		return 0; /* it was deleted before, or never made */
	return volume_delete(v, err);
}

int transfer_settle(struct store *s, unsigned int self,
	unsigned int (*shard_of_fn)(void *arg, uint32_t vm), void *arg,
	struct transfer_settled *out, struct err *err)
{
	struct note_list l = {0};
	int rc;

	*out = (struct transfer_settled){0};
	rc = store_note_each(s, PREFIX, collect, &l);
	if (rc < 0)
		err_set(err, rc, "pool", NULL, "no memory for the notes of volumes that move");
	for (size_t i = 0; i < l.count && rc == 0; i++) {
		const struct moving_note *n = &l.n[i];
		enum verdict v = judge(n, self, shard_of_fn(arg, from_le32(n->vm)));

		if (v == UNCLEAR) {
			out->unclear++;
			continue;
		}
		if (v == GOES)
			rc = delete_volume(s, n, err);
		if (rc == 0)
			rc = transfer_note_del(s, n->name, err);
		if (rc == 0 && v == GOES)
			out->deleted++;
		else if (rc == 0)
			out->kept++;
	}
	free(l.n);
	return rc;
}
