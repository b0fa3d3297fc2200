/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int code, const char *object, const char *field, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return code;
	e->code = code;
	snprintf(e->object, sizeof(e->object), "%s", object ? object : "");
	snprintf(e->field, sizeof(e->field), "%s", field ? field : "");
	va_start(ap, fmt);
	vsnprintf(e->reason, sizeof(e->reason), fmt, ap);
	va_end(ap);
	return code;
}

const char *err_text(const struct err *e)
{
	static __thread char text[sizeof(e->object) + sizeof(e->field) + sizeof(e->reason) + 8];

	snprintf(text, sizeof(text), "%s%s%s%s%s", e->object, e->object[0] ? ": " : "", e->field,
		e->field[0] ? ": " : "", e->reason[0] ? e->reason : strerror(-e->code));
	return text;
}
