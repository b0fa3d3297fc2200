/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A YAML file as JSON. Plain scalars that look like numbers, booleans or null become such, everything else and all
 * quoted ones are texts. One document per file; duplicate keys, keys that are no texts, nesting deeper than 32 and
 * more than 100000 values are refused. JSON is YAML, so JSON files work too.
 * Thread: any. Errors: -EINVAL with the line, -ENOENT and other errno of the file, -E2BIG (over 4 MiB).
 */
#ifndef HOST_AGENT_CLI_YAML_H
#define HOST_AGENT_CLI_YAML_H

#include "common/base/err.h"

#include <jansson.h>

/* path "-": standard input. */
int yaml_load(const char *path, json_t **out, struct err *e);
int yaml_parse(const char *text, size_t len, json_t **out, struct err *e);

#endif
