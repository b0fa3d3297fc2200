/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/agentd/field.h"

#include <errno.h>

const char *field_text(const json_t *o, const char *name)
{
	return json_string_value(json_object_get(o, name));
}

const char *field_text_or_empty(const json_t *o, const char *name)
{
	const char *s = field_text(o, name);

	return s ? s : "";
}

uint64_t field_number(const json_t *o, const char *name)
{
	return (uint64_t)json_integer_value(json_object_get(o, name));
}

int field_no_memory(struct err *e, const char *object)
{
	return err_set(e, -ENOMEM, object, "", "out of memory");
}
