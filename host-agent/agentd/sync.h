/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bringing one card to what the store says: pool, tables, devices, in this order, so that a device never
 * takes a write before the tables that decide it are in force.
 *
 * Tables go with the version the card is known to have (compare-and-swap). Where the card has another
 * one, and not the same contents, nothing is sent: -ESTALE, for a person to resolve (table fetch, table push --force).
 * What was wrong on the card before (a pool that does not open, a volume that is gone) is reported as a problem; it does not
 * make the call fail. A volume that the pool once held is never made again by itself.
 *
 * Thread: any, with agent->change held and a store transaction open; what was done on the card is marked in the store
 * as part of that transaction. Errors: 0 (the card is up to date, or what was asked for is done),
 * -EHOSTUNREACH (no card: pending), -ESTALE, anything else: the card refused; res tells what had been done before.
 */
#ifndef HOST_AGENT_AGENTD_SYNC_H
#define HOST_AGENT_AGENTD_SYNC_H

#include "host-agent/agentd/node.h"

enum sync_how {
	SYNC_HOLD, /* the schedule keeps the tables back: only ask the card whether it would take them */
	SYNC_PUSH,
	SYNC_FORCE, /* push whatever the card has */
};

struct sync_result {
	bool applied; /* the card has the newest tables */
	bool pushed; /* ... because of this call */
	uint64_t version; /* of the newest tables */
	json_t *remarks; /* from the card, or NULL */
	json_t *created; /* devices made by this call: [{"vm": number, "path"}], or NULL */
	json_t *tasks; /* that the card started because of the tables, or NULL */
	json_t *added; /* names of flash added to the pool by this call, or NULL */
	char waits[160]; /* "", or why the card cannot take anything just now */
	char problem[320]; /* "": none. Wrong on the card, and not caused by this call */
};

/* no_migrate: what is on flash stays as it is, whatever the tables turn. */
int sync_node(struct agent *a, struct store *s, const char *node, enum sync_how how,
	bool no_migrate, struct sync_result *res, struct err *e);
void sync_result_clear(struct sync_result *res);

/* The same in a transaction of its own, with what is wrong kept with the node. agent->change held. */
int sync_now(struct agent *a, const char *node, enum sync_how how, struct sync_result *res,
	struct err *e);

/* After a change that failed and was rolled back: takes its devices and tables off the card again. `before` is the
 * body in force before, pushed as a version of its own that is also written to the history of s (no transaction
 * open). */
int sync_undo(struct agent *a, struct store *s, const char *node, const struct sync_result *res,
	const json_t *before, const char *refused, const char *why, struct err *e);

/* Keeps the reason why the card is not up to date with the node; NULL: it is. */
void sync_note_problem(struct store *s, const char *node, const char *problem);

/* Opens the node's pool on its card. force: although live stripes are lost; their blocks become media errors. take_over: from another card, which is off. */
int sync_pool_open(struct agent *a, struct store *s, const char *node, bool force, bool take_over,
	struct err *e);

/* Flash leaves the pool, or gives its place to `by` (an object of noun flash; without "address" a member already). *out: {"removed",
 * "task", "lost"} as the card says. */
int sync_flash_remove(struct agent *a, const char *node, const char *name, bool force, json_t **out,
	struct err *e);
int sync_flash_replace(struct agent *a, const char *node, const char *name, const json_t *by,
	bool force, json_t **out, struct err *e);
/* Opens a pool that this agent does not know yet from its members. */
int sync_pool_import(struct agent *a, struct store *s, const char *node, const json_t *flashes,
	bool force, bool take_over, struct err *e);

/* Deletes a device's volume on the card. */
int sync_device_del(
	struct agent *a, const char *node, uint32_t vm, const char *path, struct err *e);

#endif
