/* SPDX-License-Identifier: BSD-3-Clause */
#include "host-agent/agentd/schema.h"

#include "common/base/units.h"
#include "common/base/util.h"
#include "common/nvme/address.h"
#include "common/policy/policy.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define VHOST_DIR_MAX   80 /* the card's limit: a socket's address holds 107 bytes */
#define TEXT_MAX        255
#define DEVICE_PATH_MAX 48 /* what a volume's record on flash holds */

/* ---- checks of single texts ---------------------------------------------------------------------- */

int schema_parse_ec(const char *text, uint32_t *k, uint32_t *m)
{
	unsigned int a, b;
	int end = 0;

	if (sscanf(text, "%2u+%1u%n", &a, &b, &end) != 2 || text[end] || a < 1 || a > 24 || b < 1 ||
		b > 8)
		return -EINVAL;
	*k = a;
	*m = b;
	return 0;
}

int schema_parse_schedule(const char *text, struct schedule *out)
{
	unsigned int a, b;
	int end = 0;

	if (!strcmp(text, "realtime")) {
		*out = (struct schedule){.kind = SCHEDULE_REALTIME};
		return 0;
	}
	if (sscanf(text, "every %5u%n", &a, &end) == 1 && !text[end] && a >= 1 && a <= 86400) {
		*out = (struct schedule){.kind = SCHEDULE_EVERY, .seconds = a};
		return 0;
	}
	if (sscanf(text, "at %2u:%2u%n", &a, &b, &end) == 2 && !text[end] && a < 24 && b < 60) {
		*out = (struct schedule){.kind = SCHEDULE_AT, .seconds = a * 3600 + b * 60};
		return 0;
	}
	return -EINVAL;
}

int schema_parse_seconds(const char *text, uint64_t *s)
{
	static const struct {
		char unit;
		uint64_t s;
	} units[] = {{'\0', 1}, {'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 7 * 86400}};
	unsigned int v;
	int end = 0;

	if (sscanf(text, "%9u%n", &v, &end) != 1 || text[0] < '0' || text[0] > '9' ||
		(text[end] && text[end + 1]))
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_LEN(units); i++)
		if (units[i].unit == text[end]) {
			*s = v * units[i].s;
			return 0;
		}
	return -EINVAL;
}

static int check_ec(const char *text, const char *object, const char *field, struct err *e)
{
	uint32_t k, m;

	if (schema_parse_ec(text, &k, &m) == 0)
		return 0;
	return err_set(e, -EINVAL, object, field,
		"'%.20s' is no erasure code; allowed: K+M with K from 1 to 24 and M from 1 to 8, "
		"such "
		"as 4+2",
		text);
}

static int check_schedule(const char *text, const char *object, const char *field, struct err *e)
{
	struct schedule s;

	if (schema_parse_schedule(text, &s) == 0)
		return 0;
	return err_set(e, -EINVAL, object, field,
		"'%.40s' is no push schedule; allowed: realtime, every SECONDS (1 to 86400), at "
		"HH:MM "
		"(UTC)",
		text);
}

static int check_address(const char *text, const char *object, const char *field, struct err *e)
{
	if (!strncmp(text, "unix:/", 6) && strlen(text) < 5 + 108)
		return 0;
	return err_set(e, -EINVAL, object, field,
		"'%.80s' is no card address; allowed: unix:/PATH of the card's socket, up to 107 "
		"characters of path",
		text);
}

static int check_flash_address(
	const char *text, const char *object, const char *field, struct err *e)
{
	static const char *const kinds[] = {"file:/", "mem:", "fault:"};
	struct nvme_address peer;

	if (nvme_address_is_remote(text))
		return nvme_address_parse(text, &peer, object, field, e);

	for (size_t i = 0; i < ARRAY_LEN(kinds); i++)
		if (!strncmp(text, kinds[i], strlen(kinds[i])) && text[strlen(kinds[i])])
			return 0;
	return err_set(e, -EINVAL, object, field,
		"'%.80s' is no flash address; allowed: file:/PATH, mem:SIZE, fault:..., "
		"nvme+tcp://HOST[:PORT]/SUBNQN#NSID, nvme+rdma://...",
		text);
}

static int check_card_ip(const char *text, const char *object, const char *field, struct err *e)
{
	char ip[INET_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	struct in_addr a;
	unsigned int bits;
	int end = 0;

	if (slash && slash - text < (ptrdiff_t)sizeof(ip)) {
		memcpy(ip, text, slash - text);
		ip[slash - text] = '\0';
		if (inet_pton(AF_INET, ip, &a) == 1 && sscanf(slash, "/%2u%n", &bits, &end) == 1 &&
			!slash[end] && bits >= 1 && bits <= 31)
			return 0;
	}
	return err_set(e, -EINVAL, object, field,
		"'%.40s' is no card address; allowed: an IPv4 address with its prefix, such as "
		"10.1.0.1/24",
		text);
}

static int check_mac(const char *text, const char *object, const char *field, struct err *e)
{
	unsigned int b[6];
	int end = 0;

	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%n", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5],
		    &end) == 6 &&
		!text[end] && strlen(text) == 17 && !(b[0] & 1))
		return 0;
	return err_set(e, -EINVAL, object, field,
		"'%.40s' is no card MAC; allowed: six hexadecimal bytes, not multicast, such as "
		"02:00:00:00:00:01",
		text);
}

static int check_listen(const char *text, const char *object, const char *field, struct err *e)
{
	const char *colon = strrchr(text, ':');
	char host[INET6_ADDRSTRLEN + 2] = "";
	unsigned char a[16];
	unsigned int port;
	int end = 0;

	if (colon && (size_t)(colon - text) < sizeof(host) &&
		sscanf(colon, ":%5u%n", &port, &end) == 1 && !colon[end] && port >= 1 &&
		port <= 65535) {
		size_t len = colon - text;

		memcpy(host, text, len);
		host[len] = '\0';
		if (inet_pton(AF_INET, host, a) == 1)
			return 0;
		if (len > 2 && host[0] == '[' && host[len - 1] == ']') {
			host[len - 1] = '\0';
			if (inet_pton(AF_INET6, host + 1, a) == 1)
				return 0;
		}
	}
	return err_set(e, -EINVAL, object, field,
		"'%.60s' is no listen address; allowed: IPv4:PORT or [IPv6]:PORT, such as "
		"127.0.0.1:4420",
		text);
}

static int check_vhost(const char *text, const char *object, const char *field, struct err *e)
{
	size_t len = strlen(text);
	bool dots = strstr(text, "/../") || (len >= 3 && !strcmp(text + len - 3, "/.."));

	if (text[0] == '/' && len <= VHOST_DIR_MAX && !dots)
		return 0;
	return err_set(e, -EINVAL, object, field,
		"'%.100s' is no directory for sockets; allowed: an absolute path on the card of at "
		"most %d bytes, without '..', such as /run/parapet/vhost",
		text, VHOST_DIR_MAX);
}

/* ---- the nouns ------------------------------------------------------------------------------------- */

#define METHOD_FIELD                    \
	{                               \
		"method", FIELD_NAME, 0 \
	}

static const struct field node_fields[] = {
	{"name", FIELD_NAME, FIELD_KEY}, {"number", FIELD_NUMBER, FIELD_INTERNAL},
	{"address", FIELD_TEXT, FIELD_NEEDED, .check = check_address},
	{"schedule", FIELD_TEXT, 0, .check = check_schedule}, {"uplink", FIELD_TEXT, 0},
	{"reception", FIELD_ENUM, 0, .allowed = "adaptive|polling|interrupt"},
	{"methods", FIELD_LIST, 0},
	{"card_version", FIELD_NUMBER,
		FIELD_INTERNAL}, /* of the tables the card has, as last seen */
	{"problem", FIELD_TEXT, FIELD_INTERNAL}, /* why the card does not have the newest */
};
static const struct field flash_fields[] = {
	{"node", FIELD_NAME, FIELD_KEY}, {"name", FIELD_NAME, FIELD_KEY},
	{"address", FIELD_TEXT, FIELD_NEEDED | FIELD_FIXED, .max = NVME_ADDRESS_TEXT_MAX,
		.check = check_flash_address},
	{"domain", FIELD_NAME, FIELD_FIXED},
	{"atomic_bytes", FIELD_SIZE, FIELD_FIXED, .max = 1u << 20},
	{"block_bytes", FIELD_SIZE, FIELD_FIXED, .allowed = "512|4096"},
	{"spare", FIELD_FLAG, FIELD_FIXED}, /* kept empty until another one fails */
	{"force", FIELD_FLAG, FIELD_FIXED}, /* overwrite what it holds */
	{"change", FIELD_TEXT, FIELD_INTERNAL}, /* "add", "remove": the card has not done it yet */
};
static const struct field pool_fields[] = {
	{"node", FIELD_NAME, FIELD_KEY},
	{"ec", FIELD_TEXT, FIELD_NEEDED, .check = check_ec},
	{"on_degraded", FIELD_ENUM, 0, .allowed = "refuse|allow"},
	{"segment_bytes", FIELD_SIZE, FIELD_FIXED, .min = 1u << 20, .max = 1u << 30},
	{"same_flash", FIELD_FLAG, FIELD_FIXED},
	{"shards", FIELD_NUMBER, FIELD_FIXED, .min = 1, .max = 16}, /* absent: the card's choice */
	{"force", FIELD_FLAG, FIELD_FIXED}, /* overwrite what the flash devices hold */
	{"created", FIELD_FLAG, FIELD_INTERNAL},
	/* absent: the card's default, for the last three: whatever the pool has */
	{"suspect_ms", FIELD_NUMBER, 0, .min = 10, .max = 60000},
	{"timeout_ms", FIELD_NUMBER, 0, .min = 100, .max = 120000},
	{"error_limit", FIELD_NUMBER, 0, .min = 1, .max = 1000000},
	{"space_warning", FIELD_NUMBER, 0, .min = 1, .max = 100},
	{"space_critical", FIELD_NUMBER, 0, .min = 1, .max = 100},
	{"scrub_interval_s", FIELD_TIME, 0, .max = 366u * 86400u},
	{"rebuild_delay_s", FIELD_TIME, 0, .max = 86400},
	{"auto_restore", FIELD_FLAG, 0},
	{"auto_return", FIELD_FLAG, FIELD_ON},
};
static const struct field vm_fields[] = {
	{"node", FIELD_NAME, FIELD_KEY},
	{"name", FIELD_NAME, FIELD_KEY},
	{"number", FIELD_NUMBER, FIELD_INTERNAL},
	{"cores", FIELD_NUMBER, 0, .min = 1, .max = 4096},
	{"memory", FIELD_SIZE, 0, .min = 1},
	{"host_addr", FIELD_NUMBER, 0},
	{"guest_addr", FIELD_NUMBER, 0},
	METHOD_FIELD,
	{"mode", FIELD_ENUM, 0, .allowed = "auto|flag|method|path|method+path"},
	{"data_flash", FIELD_NAME, 0},
	{"intermediate_flash", FIELD_NAME, 0},
	{"vf", FIELD_TEXT, 0}, /* the card's port of the VM's VF */
	{"listen", FIELD_TEXT, 0, .check = check_listen},
	{"vhost", FIELD_TEXT, 0,
		.check = check_vhost}, /* directory of vhost-user sockets on the card */
	{"card_ip", FIELD_TEXT, 0, .check = check_card_ip},
	{"card_mac", FIELD_TEXT, 0, .check = check_mac},
	{"nqn", FIELD_TEXT, 0},
	{"hosts", FIELD_LIST, 0},
	/* what it may take; absent or 0: no cap, the default */
	{"bandwidth_mbps", FIELD_NUMBER, 0, .max = 1000000, .step = 100},
	{"iops", FIELD_NUMBER, 0, .max = 100000000},
	{"burst_ms", FIELD_NUMBER, 0, .min = 1, .max = 10000},
	{"weight", FIELD_NUMBER, 0, .min = 1, .max = 1000},
};
static const struct field device_fields[] = {
	{"node", FIELD_NAME, FIELD_KEY}, {"vm", FIELD_NAME, FIELD_KEY},
	{"path", FIELD_PATH, FIELD_KEY, .max = DEVICE_PATH_MAX},
	{"size", FIELD_SIZE, FIELD_NEEDED, .min = 1u << 20}, /* may grow */
	METHOD_FIELD, {"layout", FIELD_ENUM, 0, .allowed = "copy|fragments"},
	{"block_bytes", FIELD_SIZE, FIELD_FIXED, .allowed = "512|4096"},
	{"ec", FIELD_TEXT, 0, .check = check_ec}, /* absent: what it was made with */
	{"created", FIELD_FLAG, FIELD_INTERNAL}, /* the pool holds the volume */
};
static const struct field queue_fields[] = {
	{"node", FIELD_NAME, FIELD_KEY},
	{"bytes", FIELD_SIZE, 0, .min = 512, .max = 1u << 30},
	{"count", FIELD_NUMBER, 0, .min = 1, .max = 65536},
	{"age_us", FIELD_NUMBER, 0, .min = 1, .max = 10000000},
	{"each", FIELD_FLAG, 0},
	{"per_vm", FIELD_FLAG, 0},
	{"group_commit", FIELD_FLAG, FIELD_ON},
};
static const struct field row_fields[] = {
	{"node", FIELD_NAME, FIELD_KEY},
	{"vm", FIELD_NAME, FIELD_KEY},
	{"method", FIELD_TEXT, FIELD_KEY}, /* "": absent */
	{"path", FIELD_TEXT, FIELD_KEY}, /* "": absent */
	{"ec", FIELD_FLAG, FIELD_NEEDED},
	{"host_addr", FIELD_NUMBER, 0},
};

#define NOUN(n) const struct noun noun_##n = {#n, n##_fields, ARRAY_LEN(n##_fields)}
NOUN(node);
NOUN(flash);
NOUN(pool);
NOUN(vm);
NOUN(device);
NOUN(queue);
NOUN(row);

const struct noun *const schema_nouns[] = {
	&noun_node, &noun_flash, &noun_pool, &noun_vm, &noun_device, &noun_queue, &noun_row};
const size_t schema_nnouns = ARRAY_LEN(schema_nouns);

const struct field *schema_field(const struct noun *n, const char *name)
{
	for (size_t i = 0; i < n->nfields; i++)
		if (!strcmp(n->fields[i].name, name))
			return &n->fields[i];
	return NULL;
}

/* ---- checking values --------------------------------------------------------------------------------- */

static int wrong_type(const struct field *f, const char *object, const char *allowed, struct err *e)
{
	return err_set(e, -EINVAL, object, f->name, "wrong type of value; allowed: %s", allowed);
}

static int check_text(const struct field *f, const json_t *v, const char *object, struct err *e)
{
	const char *s = json_string_value(v);
	size_t len = json_string_length(v), max = f->max ? f->max : TEXT_MAX;

	if (!s)
		return wrong_type(f, object, "a text", e);
	if (strlen(s) != len || len > max || (!len && !(f->flags & FIELD_KEY)))
		return err_set(e, -EINVAL, object, f->name,
			"the text is empty or too long; allowed: 1 to %zu characters", max);
	for (size_t i = 0; i < len; i++)
		if (s[i] < ' ' || s[i] > '~' || strchr("\"\\", s[i]))
			return err_set(e, -EINVAL, object, f->name,
				"the text holds a character that is not allowed; allowed: "
				"printable "
				"ASCII without quotes and backslash");
	return f->check ? f->check(s, object, f->name, e) : 0;
}

/* allowed: "512|4096" */
static bool number_allowed(const struct field *f, uint64_t v)
{
	for (const char *p = f->allowed; p; p = strchr(p, '|')) {
		p += *p == '|';
		if (strtoull(p, NULL, 10) == v)
			return true;
	}
	return false;
}

static int check_number(
	const struct field *f, const json_t *v, const char *object, uint64_t *out, struct err *e)
{
	uint64_t max = f->max ? f->max : INT64_MAX;
	const char *s = json_string_value(v);
	char lo[32], hi[32];
	int rc = -EINVAL;

	if (json_is_integer(v) && json_integer_value(v) >= 0) {
		*out = json_integer_value(v);
		rc = 0;
	} else if (s && f->type == FIELD_TIME) {
		rc = schema_parse_seconds(s, out);
	} else if (s && f->type == FIELD_SIZE) {
		rc = units_parse_bytes(s, out);
	} else if (s && s[0] >= '0' && s[0] <= '9') {
		char *end;

		errno = 0;
		*out = strtoull(s, &end, 0);
		rc = *end || errno ? -EINVAL : 0;
	}
	if (!rc && f->allowed)
		return number_allowed(f, *out) ? 0
					       : err_set(e, -EINVAL, object, f->name,
							 "%llu is not possible; allowed: %s",
							 (unsigned long long)*out, f->allowed);
	if (!rc && f->step && *out % f->step)
		return err_set(e, -EINVAL, object, f->name,
			"%llu is between two steps; allowed: multiples of %llu up to %llu",
			(unsigned long long)*out, (unsigned long long)f->step,
			(unsigned long long)max);
	if (!rc && *out >= f->min && *out <= max)
		return 0;
	if (f->type == FIELD_TIME)
		return err_set(e, -EINVAL, object, f->name,
			"not a time in range; allowed: %llu to %llu seconds, such as 90, 30m, 12h, "
			"7d",
			(unsigned long long)f->min, (unsigned long long)max);
	if (f->type == FIELD_NUMBER)
		return err_set(e, -EINVAL, object, f->name,
			"not a number in range; allowed: %llu to %llu", (unsigned long long)f->min,
			(unsigned long long)max);
	return err_set(e, -EINVAL, object, f->name,
		"not a size in range; allowed: %s to %s, such as 4096, 512M or 10G",
		units_format_bytes(f->min, lo, sizeof(lo)),
		units_format_bytes(max, hi, sizeof(hi)));
}

static int check_flag(
	const struct field *f, const json_t *v, const char *object, bool *out, struct err *e)
{
	static const char *const yes[] = {"1", "on", "yes", "true"};
	static const char *const no[] = {"0", "off", "no", "false"};
	const char *s = json_string_value(v);

	if (json_is_boolean(v)) {
		*out = json_is_true(v);
		return 0;
	}
	if (json_is_integer(v) && (json_integer_value(v) == 0 || json_integer_value(v) == 1)) {
		*out = json_integer_value(v);
		return 0;
	}
	for (size_t i = 0; s && i < ARRAY_LEN(yes); i++) {
		if (!strcasecmp(s, yes[i]) || !strcasecmp(s, no[i])) {
			*out = !strcasecmp(s, yes[i]);
			return 0;
		}
	}
	return wrong_type(f, object, "1 or 0, on or off, yes or no, true or false", e);
}

static int check_enum(const struct field *f, const json_t *v, const char *object, struct err *e)
{
	const char *s = json_string_value(v), *at = f->allowed;
	size_t len = s ? strlen(s) : 0;

	while (s && len && !strchr(s, '|') && (at = strstr(at, s))) {
		if ((at == f->allowed || at[-1] == '|') && (!at[len] || at[len] == '|'))
			return 0;
		at += 1;
	}
	return err_set(e, -EINVAL, object, f->name, "'%.40s' is not known; allowed: %s",
		s ? s : "(not a text)", f->allowed);
}

static int check_list(const struct field *f, const json_t *v, const char *object, struct err *e)
{
	const struct field one = {f->name, FIELD_TEXT, 0};
	const json_t *item;
	size_t i;
	int rc;

	if (!json_is_array(v) || json_array_size(v) > 64)
		return wrong_type(f, object, "a list of up to 64 texts", e);
	json_array_foreach((json_t *)v, i, item)
	{
		rc = check_text(&one, item, object, e);
		if (rc < 0)
			return rc;
	}
	return 0;
}

/* The clean value of v, or NULL with e filled. */
static json_t *clean_value(
	const struct field *f, const json_t *v, const char *object, struct err *e)
{
	uint64_t n = 0;
	bool flag = false;

	switch (f->type) {
	case FIELD_NUMBER:
	case FIELD_SIZE:
	case FIELD_TIME:
		return check_number(f, v, object, &n, e) < 0 ? NULL : json_integer((json_int_t)n);
	case FIELD_FLAG:
		return check_flag(f, v, object, &flag, e) < 0 ? NULL : json_boolean(flag);
	case FIELD_ENUM:
		return check_enum(f, v, object, e) < 0 ? NULL : json_deep_copy(v);
	case FIELD_LIST:
		return check_list(f, v, object, e) < 0 ? NULL : json_deep_copy(v);
	case FIELD_NAME:
		if (policy_check_name(json_string_value(v), object, f->name, e) < 0)
			return NULL;
		return json_deep_copy(v);
	case FIELD_PATH:
		if (policy_check_path(json_string_value(v), object, f->name, e) < 0)
			return NULL;
		if (f->max && json_string_length(v) > f->max) {
			err_set(e, -EINVAL, object, f->name,
				"the path is too long; allowed: %llu characters",
				(unsigned long long)f->max);
			return NULL;
		}
		return json_deep_copy(v);
	case FIELD_TEXT:
		break;
	}
	return check_text(f, v, object, e) < 0 ? NULL : json_deep_copy(v);
}

static int unknown_field(const struct noun *n, const char *name, const char *object, struct err *e)
{
	char list[256] = "";
	size_t len = 0;

	for (size_t i = 0; i < n->nfields; i++)
		if (!(n->fields[i].flags & FIELD_INTERNAL) && len < sizeof(list))
			len += snprintf(list + len, sizeof(list) - len, "%s%s", len ? ", " : "",
				n->fields[i].name);
	return err_set(e, -EINVAL, object, "", "'%.40s' is not a field of a %s; allowed: %s",
		policy_check_name(name, NULL, NULL, NULL) < 0 ? "?" : name, n->name, list);
}

static int check_member(const struct noun *n, const char *name, const json_t *v,
	enum schema_for what, const char *object, json_t *out, struct err *e)
{
	const struct field *f = schema_field(n, name);
	json_t *clean;

	if (!f || f->flags & FIELD_INTERNAL)
		return unknown_field(n, name, object, e);
	if (json_is_null(v)) {
		if (f->flags & (FIELD_KEY | FIELD_NEEDED))
			return err_set(
				e, -EINVAL, object, name, "cannot be empty; allowed: a value");
		if (what == SCHEMA_CREATE)
			return 0;
		return json_object_set_new(out, name, json_null()) ? -ENOMEM : 0;
	}
	clean = clean_value(f, v, object, e);
	if (!clean)
		return -EINVAL;
	return json_object_set_new(out, name, clean) ? -ENOMEM : 0;
}

int schema_check(const struct noun *n, const json_t *in, enum schema_for what, const char *object,
	json_t **out, struct err *e)
{
	json_t *o, *v;
	const char *name;
	int rc = 0;

	if (!json_is_object(in))
		return err_set(
			e, -EINVAL, object, "", "not an object; allowed: {\"field\": value, ...}");
	o = json_object();
	if (!o)
		return err_set(e, -ENOMEM, object, "", "out of memory");
	json_object_foreach((json_t *)in, name, v)
	{
		rc = check_member(n, name, v, what, object, o, e);
		if (rc < 0)
			break;
	}
	for (size_t i = 0; !rc && what == SCHEMA_CREATE && i < n->nfields; i++)
		if (n->fields[i].flags & FIELD_NEEDED && !json_object_get(o, n->fields[i].name))
			rc = err_set(e, -EINVAL, object, n->fields[i].name, "is needed");
	if (rc < 0)
		json_decref(o);
	else
		*out = o;
	return rc;
}
