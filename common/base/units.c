/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/units.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

static const char letters[] = "KMGTPE";

int units_parse_bytes(const char *text, uint64_t *bytes)
{
	unsigned long long v;
	unsigned int shift = 0;
	char *end;

	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -ERANGE;
	while (*end == ' ')
		end++;
	for (unsigned int i = 0; *end && letters[i]; i++) {
		if (toupper((unsigned char)*end) == letters[i]) {
			shift = 10 * (i + 1);
			end++;
			break;
		}
	}
	if (*end && strcasecmp(end, "B") && (!shift || strcasecmp(end, "iB")))
		return -EINVAL;
	if (shift && v >> (64 - shift))
		return -ERANGE;
	*bytes = (uint64_t)v << shift;
	return 0;
}

const char *units_format_bytes(uint64_t bytes, char *buf, size_t len)
{
	double v = (double)bytes;
	int unit = -1;

	while (v >= 1024 && letters[unit + 1]) {
		v /= 1024;
		unit++;
	}
	if (unit < 0)
		snprintf(buf, len, "%llu B", (unsigned long long)bytes);
	else if (v == (uint64_t)v)
		snprintf(buf, len, "%.0f %ciB", v, letters[unit]);
	else
		snprintf(buf, len, "%.1f %ciB", v, letters[unit]);
	return buf;
}
