/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the agent knows about: nouns (node, flash, pool, vm, device, queue, row) and their fields. One
 * table of fields per noun drives input checking, the SQLite store, the API and `apply`, so that a field is
 * described once.
 *
 * Objects are jansson objects. Values are normalized by schema_check(): sizes and numbers are integers, enums
 * and texts strings, flags booleans, lists arrays of strings; an absent value is a missing member.
 * Thread: any (constant data). Errors: -EINVAL with object, field, reason and what is allowed.
 *
 *	json_t *clean;
 *	rc = schema_check(&noun_vm, body, SCHEMA_CREATE, "vm web1", &clean, &err);
 */
#ifndef HOST_AGENT_AGENTD_SCHEMA_H
#define HOST_AGENT_AGENTD_SCHEMA_H

#include "common/base/err.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum field_type {
	FIELD_NAME, /* letters, digits, "._-" */
	FIELD_TEXT, /* printable ASCII without quotes and backslash */
	FIELD_PATH, /* a device's data path */
	FIELD_NUMBER,
	FIELD_SIZE, /* a number, or text such as "10G" */
	FIELD_TIME, /* seconds, or text such as "12h" */
	FIELD_FLAG,
	FIELD_ENUM,
	FIELD_LIST, /* of FIELD_TEXT */
};

enum {
	FIELD_KEY = 1, /* part of the object's identity */
	FIELD_NEEDED = 2, /* must be given when the object is made */
	FIELD_FIXED = 4, /* cannot change once the object exists */
	FIELD_INTERNAL = 8, /* the agent's own; not accepted from outside */
	FIELD_ON = 16, /* a flag that is on where it is absent */
};

/* A further check of a text; says what is allowed in *e's reason. */
typedef int (*field_check_fn)(
	const char *text, const char *object, const char *field, struct err *e);

struct field {
	const char *name;
	enum field_type type;
	unsigned int flags;
	uint64_t min, max; /* of numbers and sizes; max 0: 2^63 - 1 */
	uint64_t step; /* of numbers: only its multiples; 0: any */
	const char *allowed; /* of enums: "a|b|c"; of sizes: the only ones, "512|4096" */
	field_check_fn check;
};

struct noun {
	const char *name; /* also the table in the store */
	const struct field *fields;
	size_t nfields;
};

extern const struct noun noun_node, noun_flash, noun_pool, noun_vm, noun_device, noun_queue,
	noun_row;
extern const struct noun *const schema_nouns[];
extern const size_t schema_nnouns;

enum schema_for {
	SCHEMA_CREATE, /* needed fields must be there */
	SCHEMA_CHANGE, /* fixed fields must not; null clears a field and stays null in *out */
};

const struct field *schema_field(const struct noun *n, const char *name);

/* Checks what a person or program gave; *out is a new object. `in` may hold key fields too. */
int schema_check(const struct noun *n, const json_t *in, enum schema_for what, const char *object,
	json_t **out, struct err *e);

/* "90", "30m", "12h", "7d", "2w". */
int schema_parse_seconds(const char *text, uint64_t *s);
/* "4+2" -> 4, 2. -EINVAL outside 1..24 + 1..8. */
int schema_parse_ec(const char *text, uint32_t *k, uint32_t *m);

/* Push schedules: "realtime", "every SECONDS", "at HH:MM" (UTC). */
enum schedule_kind { SCHEDULE_REALTIME, SCHEDULE_EVERY, SCHEDULE_AT };
struct schedule {
	enum schedule_kind kind;
	uint32_t seconds; /* the period, or seconds after midnight UTC */
};
int schema_parse_schedule(const char *text, struct schedule *out);

#endif
