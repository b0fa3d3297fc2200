/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Members of JSON objects whose shape has been checked already (rows of the store, tables of ours). Thread: any; what is returned
 * belongs to the object.
 */
#ifndef HOST_AGENT_AGENTD_FIELD_H
#define HOST_AGENT_AGENTD_FIELD_H

#include <jansson.h>
#include <stdint.h>

#include "common/base/err.h"

const char *field_text(const json_t *o, const char *name); /* NULL: there is none */
const char *field_text_or_empty(const json_t *o, const char *name);
uint64_t field_number(const json_t *o, const char *name); /* 0: there is none */
/* -ENOMEM; `object` is what could not be made. */
int field_no_memory(struct err *e, const char *object);

#endif
