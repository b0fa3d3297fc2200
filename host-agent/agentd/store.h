/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The agent's memory: an SQLite file with one table per noun of schema.h and the history of the tables
 * sent to each node. Objects go in and come out as the normalized JSON of schema.h.
 *
 * Thread: a handle belongs to one thread; several handles on one file work side by side (readers see
 * the last committed state). Ownership: returned json_t belong to the caller. Errors: 0 or -errno with e filled:
 * -ENOENT (no such object), -EEXIST (there already), -EIO (SQLite, with its message).
 *
 *	store_open("/var/lib/parapet/agent.db", &s, &err);
 *	store_begin(s, &err);
 *	store_put(s, &noun_vm, obj, &err);
 *	store_commit(s, &err);		or store_rollback(s)
 *	store_close(s);
 */
#ifndef HOST_AGENT_AGENTD_STORE_H
#define HOST_AGENT_AGENTD_STORE_H

#include "host-agent/agentd/schema.h"

struct store;

/* Opens or creates the file (mode 0600). -EPROTONOSUPPORT: made by a newer version. */
int store_open(const char *path, struct store **out, struct err *e);
void store_close(struct store *s);

/* A number that tells this file's agent from others, made with the file. */
int store_id(struct store *s, uint32_t *id, struct err *e);

/* One write transaction at a time per file; begin waits for another's end (up to 30 s). */
int store_begin(struct store *s, struct err *e);
int store_commit(struct store *s, struct err *e);
void store_rollback(struct store *s);

/* key: an object with the key fields of the noun; other members are ignored. */
int store_get(
	struct store *s, const struct noun *n, const json_t *key, json_t **out, struct err *e);
/* All objects whose members equal those of filter (NULL: all), in the order they were made. */
int store_list(
	struct store *s, const struct noun *n, const json_t *filter, json_t **out, struct err *e);
/* A new object; missing members are absent. */
int store_put(struct store *s, const struct noun *n, const json_t *obj, struct err *e);
/* Sets the given members of an object, null clears one. */
int store_set(struct store *s, const struct noun *n, const json_t *key, const json_t *members,
	struct err *e);
int store_del(struct store *s, const struct noun *n, const json_t *key, struct err *e);
/* Deletes all that match filter (at least one member); returns how many or -errno. */
int store_clear(struct store *s, const struct noun *n, const json_t *filter, struct err *e);

/* What people call an object: "vm web1", "device web1 /dev/ecpool0". */
void store_object_name(const struct noun *n, const json_t *key, char *buf, size_t size);

/* ---- history of the tables ----------------------------------------------------------------------------- */

/* Appends a version of a node's tables. body is canonical JSON (tables.h); author and what are for people. */
int store_version_add(struct store *s, const char *node, uint64_t version, const char *author,
	const char *what, const char *body, struct err *e);
/* version 0: the newest. *out: {"version", "time_ns", "author", "what", "body" (parsed)}. -ENOENT. */
int store_version_get(
	struct store *s, const char *node, uint64_t version, json_t **out, struct err *e);
/* Newest first, without bodies, at most limit. */
int store_version_list(
	struct store *s, const char *node, unsigned int limit, json_t **out, struct err *e);
int store_version_forget(struct store *s, const char *node, struct err *e);

#endif
