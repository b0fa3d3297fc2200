/* SPDX-License-Identifier: BSD-3-Clause */
/* Names of the enums, and the spelling rules of names and paths. */
#include "common/policy/policy.h"

#include "common/base/util.h"

#include <errno.h>
#include <string.h>

static const char *const outcome_names[] = {
	[POLICY_PLAIN] = "plain",
	[POLICY_INTERMEDIATE] = "intermediate",
	[POLICY_PROTECT] = "protect",
};
static const char *const mode_names[] = {
	[POLICY_MODE_AUTO] = "auto",
	[POLICY_MODE_FLAG] = "flag",
	[POLICY_MODE_METHOD] = "method",
	[POLICY_MODE_PATH] = "path",
	[POLICY_MODE_BOTH] = "method+path",
};
static const char *const match_names[] = {
	[POLICY_MATCH_NONE] = "none",
	[POLICY_MATCH_PATTERN] = "pattern",
	[POLICY_MATCH_DIGITS] = "digits",
	[POLICY_MATCH_EXACT] = "exact",
};

const char *policy_outcome_name(enum policy_outcome outcome)
{
	return (size_t)outcome < ARRAY_LEN(outcome_names) ? outcome_names[outcome] : "unknown";
}

const char *policy_mode_name(enum policy_mode mode)
{
	return (size_t)mode < ARRAY_LEN(mode_names) ? mode_names[mode] : "unknown";
}

const char *policy_match_name(enum policy_match match)
{
	return (size_t)match < ARRAY_LEN(match_names) ? match_names[match] : "unknown";
}

int policy_mode_parse(const char *text, enum policy_mode *mode)
{
	for (size_t i = 0; i < ARRAY_LEN(mode_names); i++) {
		if (!strcmp(text, mode_names[i])) {
			*mode = (enum policy_mode)i;
			return 0;
		}
	}
	if (!strcmp(text, "both")) {
		*mode = POLICY_MODE_BOTH;
		return 0;
	}
	return -EINVAL;
}

/* What was given, fit to be shown: anything but printable ASCII becomes '?'. */
static const char *shown(const char *text, char *buf, size_t size)
{
	size_t i;

	for (i = 0; text && text[i] && i + 1 < size; i++)
		buf[i] = text[i] >= ' ' && text[i] < 0x7f ? text[i] : '?';
	buf[i] = '\0';
	return buf;
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

int policy_check_name(const char *name, const char *object, const char *field, struct err *e)
{
	size_t len = name ? strnlen(name, POLICY_NAME_SIZE) : 0;
	char buf[80];
	bool good = len > 0 && len < POLICY_NAME_SIZE && is_alnum(name[0]);

	for (size_t i = 0; good && i < len; i++)
		good = is_alnum(name[i]) || strchr("._-", name[i]);
	if (good)
		return 0;
	return err_set(e, -EINVAL, object, field,
		"'%s' is not a name; allowed: 1 to %d letters, digits, '.', '_', '-', the first "
		"a letter or digit",
		shown(name, buf, sizeof(buf)), POLICY_NAME_SIZE - 1);
}

int policy_check_path(const char *path, const char *object, const char *field, struct err *e)
{
	size_t len = path ? strnlen(path, POLICY_PATH_SIZE) : 0;
	char buf[POLICY_PATH_SIZE];
	bool good = len > 1 && len < POLICY_PATH_SIZE && path[0] == '/';

	for (size_t i = 0; good && i < len; i++)
		good = path[i] > ' ' && path[i] < 0x7f && !strchr("\"'\\*", path[i]);
	if (good)
		return 0;
	return err_set(e, -EINVAL, object, field,
		"'%s' is not a data path; allowed: '/' and up to %d printable characters "
		"without space, quotes, '\\' and '*'",
		shown(path, buf, sizeof(buf)), POLICY_PATH_SIZE - 2);
}
