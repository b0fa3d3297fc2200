/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A node's tables as one JSON document ("body"), and its way into the other shapes: a policy table (to check,
 * compare and explain), the protobuf message that goes to the card, and back.
 *
 *	{"node": 1, "methods": [..], "uplink": "..", "reception": "..", "queue": {..},
 *	 "vms": [{"name", "number", ..}], "devices": [{"vm", "path", "method"}],
 *	 "rows": [{"vm", "method", "path", "ec", "host_addr"}]}
 *
 * Absent values are missing members; VMs and devices are sorted, rows keep their order; the same
 * configuration always gives the same text.
 * Thread: any; a body is not changed here. Ownership: what is returned belongs to the caller. Errors: 0 or
 * -errno with e filled.
 */
#ifndef HOST_AGENT_AGENTD_TABLES_H
#define HOST_AGENT_AGENTD_TABLES_H

#include "common/policy/policy.h"
#include "host-agent/agentd/store.h"
#include "proto/parapet.pb-c.h"

/* VM# of a name in a body; 0, which no VM has, where there is none. */
uint32_t tables_vm_number(const json_t *body, const char *name);

/* The tables that the store's configuration of a node amounts to. */
int tables_body(struct store *s, const char *node, json_t **body, struct err *e);
/* Canonical text, free() it; NULL: out of memory. */
char *tables_text(const json_t *body);
/* The tables of a node nobody has configured yet. */
json_t *tables_empty(uint32_t node);

/* Checks body and builds its policy table. flashes: array of names that exist on the node; NULL: any name
 * counts as known (versions of the past). */
int tables_policy(const json_t *body, uint64_t version, const json_t *flashes,
	struct policy_table **out, struct err *e);

/* The message for the card. Strings point into body, which must stay; tables_message_free() frees the rest. */
struct tables_message {
	Parapet__Tables tables;
	void **chunks;
	size_t nchunks;
};
int tables_message(const json_t *body, uint64_t version, const char *author,
	struct tables_message *out, struct err *e);
void tables_message_free(struct tables_message *m);

/* A body from what a card says it has. */
int tables_from_card(const Parapet__Tables *t, json_t **body, struct err *e);

/* Every device whose outcome changes: [{"vm", "path", "before", "after"}], null where it did not exist. */
json_t *tables_outcomes(const struct policy_table *before, const struct policy_table *after);

/* What differs: [{"change": "added"|"removed"|"changed", "object": "vm web1", "before", "after"}]. */
json_t *tables_compare(const json_t *before, const json_t *after);

/* An explanation as the API shows it. */
json_t *tables_explanation(const struct policy_explanation *x);

#endif
