/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/address.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"
#include "common/nvme/fabrics.h"

#define PORT_DEFAULT 4420
#define FORM         "HOST[:PORT][,HOST[:PORT]...]/SUBNQN#NSID"
#define SHOWN        64u /* of what is wrong */

struct parse {
	struct nvme_address *a;
	const char *object, *field;
	struct err *err;
};

bool nvme_address_is_remote(const char *text)
{
	return strncmp(text, "nvme+", 5) == 0;
}

static int bad(const struct parse *p, const char *part, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

/* The sentence begins with the part: as the field, or within the caller's. */
static int bad(const struct parse *p, const char *part, const char *fmt, ...)
{
	char why[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	if (p->field)
		return err_set(p->err, -EINVAL, p->object, p->field, "%s %s", part, why);
	return err_set(p->err, -EINVAL, p->object, part, "%s", why);
}

static const char *scheme(const struct parse *p)
{
	return p->a->rdma ? "nvme+rdma" : "nvme+tcp";
}

static int shown(size_t len)
{
	return (int)MIN(len, (size_t)SHOWN);
}

/* Digits and nothing else. */
static bool number(const char *s, size_t len, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!len || len > 10)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (s[i] < '0' || s[i] > '9')
			return false;
		v = v * 10 + (uint64_t)(s[i] - '0');
	}
	*out = v;
	return v <= max;
}

/* ---- HOST[:PORT] --------------------------------------------------------------------------------------------- */

/* In its shortest spelling: whoever compares two compares texts. */
static int host_take(const struct parse *p, const char *s, size_t len, bool v6, char host[64])
{
	uint8_t raw[sizeof(struct in6_addr)];

	if (len < 64) {
		memcpy(host, s, len);
		host[len] = 0;
	}
	if (len >= 64 || strlen(host) != len || inet_pton(v6 ? AF_INET6 : AF_INET, host, raw) != 1)
		return bad(p, "host",
			"'%.*s' is not a numeric %s address; allowed: IPv4[:PORT] or "
			"[IPv6][:PORT], such as 10.0.0.2:4420 (names are not resolved)",
			shown(len), s, v6 ? "IPv6" : "IPv4");
	(void)inet_ntop(v6 ? AF_INET6 : AF_INET, raw, host, 64);
	return 0;
}

static int port_take(const struct parse *p, const char *s, size_t len, uint16_t *port)
{
	uint64_t v;

	if (!number(s, len, UINT16_MAX, &v) || !v)
		return bad(p, "port", "'%.*s' is not a number in range; allowed: 1 to 65535",
			shown(len), s);
	*port = (uint16_t)v;
	return 0;
}

static int path_take(
	const struct parse *p, const char *s, size_t len, char host[64], uint16_t *port)
{
	bool v6 = len && s[0] == '[';
	const char *end = s + len, *from = s + v6,
		   *to = len ? memchr(s, v6 ? ']' : ':', len) : NULL, *rest;
	int rc;

	if (!len)
		return bad(p, "host", "is missing; allowed: " FORM);
	if (v6 && !to)
		return bad(p, "host", "'%.*s' lacks its closing bracket; allowed: [IPv6][:PORT]",
			shown(len), s);
	if (!to)
		to = end;
	rest = to + v6;
	rc = host_take(p, from, (size_t)(to - from), v6, host);
	if (rc < 0 || rest == end)
		return rc;
	if (*rest != ':')
		return bad(p, "host", "'%.*s' stands behind the bracket; allowed: [IPv6][:PORT]",
			shown((size_t)(end - rest)), rest);
	return port_take(p, rest + 1, (size_t)(end - rest - 1), port);
}

int nvme_host_parse(const char *text, size_t len, char host[64], uint16_t *port)
{
	const struct parse nobody_told = {0};

	return path_take(&nobody_told, text, len, host, port);
}

const char *nvme_host_text(const char *host, uint16_t port, char *buf, size_t size)
{
	snprintf(buf, size, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host, port);
	return buf;
}

void nvme_address_domain(const struct nvme_address *a, char domain[64])
{
	size_t n = 0;

	/* A name begins with a letter or a digit: "::1" is "0--1". */
	if (a->paths[0].host[0] == ':')
		domain[n++] = '0';
	for (const char *p = a->paths[0].host; *p && n < 63; p++)
		domain[n++] = *p == ':' ? '-' : *p;
	domain[n] = 0;
}

static int paths_take(const struct parse *p, const char *s, const char *end)
{
	struct nvme_address *a = p->a;

	for (;;) {
		const char *comma = memchr(s, ',', (size_t)(end - s)), *to = comma ? comma : end;
		unsigned int n = a->npaths;
		int rc;

		if (n == NVME_ADDRESS_PATHS)
			return bad(p, "host",
				"'%.*s' is one too many; allowed: %d paths to one namespace",
				shown((size_t)(to - s)), s, NVME_ADDRESS_PATHS);
		a->paths[n].port = PORT_DEFAULT;
		rc = path_take(p, s, (size_t)(to - s), a->paths[n].host, &a->paths[n].port);
		if (rc < 0)
			return rc;
		for (unsigned int i = 0; i < n; i++)
			if (a->paths[i].port == a->paths[n].port &&
				!strcmp(a->paths[i].host, a->paths[n].host))
				return bad(p, "host", "%s port %u is there twice; allowed: once",
					a->paths[n].host, a->paths[n].port);
		a->npaths++;
		if (!comma)
			return 0;
		s = comma + 1;
	}
}

/* ---- SUBNQN#NSID ------------------------------------------------------------------------------------------------ */

static bool nqn_take(struct nvme_address *a, const char *s, size_t len)
{
	if (len >= sizeof(a->subnqn))
		return false;
	for (size_t i = 0; i < len; i++)
		if (s[i] <= ' ' || s[i] > '~')
			return false;
	memcpy(a->subnqn, s, len);
	a->subnqn[len] = 0;
	return nvme_nqn_ok(a->subnqn);
}

static int namespace_take(const struct parse *p, const char *s, const char *end)
{
	const char *hash = memrchr(s, '#', (size_t)(end - s));
	uint64_t nsid;

	if (!hash)
		return bad(p, "namespace",
			"is missing; allowed: %s://" FORM
			" (quoted: in YAML and in shells '#' begins a comment)",
			scheme(p));
	if (!nqn_take(p->a, s, (size_t)(hash - s)))
		return bad(p, "NQN",
			"'%.*s' is not an NVMe qualified name; allowed: nqn. and up to 219 more "
			"characters, printable ASCII without spaces",
			shown((size_t)(hash - s)), s);
	if (!number(hash + 1, (size_t)(end - hash - 1), UINT32_MAX - 1, &nsid) || !nsid)
		return bad(p, "namespace",
			"'%.*s' is not a number in range; allowed: 1 to 4294967294",
			shown((size_t)(end - hash - 1)), hash + 1);
	p->a->nsid = (uint32_t)nsid;
	return 0;
}

/* ---- options ------------------------------------------------------------------------------------------------------ */

enum {
	OPT_HDGST,
	OPT_DDGST,
	OPT_ZERO_COPY,
	OPT_QUEUES,
	OPT_DEPTH,
	OPT_KEEP_ALIVE,
	OPT_RESTART_MIN
};

static const struct option {
	const char *name;
	bool tcp_only;
	uint32_t min, max; /* max 0: takes no value */
} options[] = {
	[OPT_HDGST] = {"hdgst", true, 0, 0},
	[OPT_DDGST] = {"ddgst", true, 0, 0},
	[OPT_ZERO_COPY] = {"zero-copy", true, 0, 0},
	[OPT_QUEUES] = {"queues", false, 1, NVME_ADDRESS_QUEUES_MAX},
	[OPT_DEPTH] = {"depth", false, 2, NVME_ADDRESS_DEPTH_MAX},
	[OPT_KEEP_ALIVE] = {"keep-alive", false, 100, 60000},
	[OPT_RESTART_MIN] = {"restart-min", false, 1, 600000},
};

static void option_set(struct nvme_address *a, size_t i, uint32_t v)
{
	switch (i) {
	case OPT_HDGST:
		a->hdgst = true;
		break;
	case OPT_DDGST:
		a->ddgst = true;
		break;
	case OPT_ZERO_COPY:
		a->zero_copy = true;
		break;
	case OPT_QUEUES:
		a->queues = v;
		break;
	case OPT_DEPTH:
		a->depth = v;
		break;
	case OPT_KEEP_ALIVE:
		a->keep_alive_ms = v;
		break;
	default:
		a->restart_min_ms = v;
		break;
	}
}

static int option_unknown(const struct parse *p, const char *s, size_t len)
{
	char all[200];
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		const struct option *o = &options[i];

		if (o->tcp_only && p->a->rdma)
			continue;
		n += (size_t)snprintf(all + n, sizeof(all) - n, "%s%s", n ? ", " : "", o->name);
		if (o->max)
			n += (size_t)snprintf(all + n, sizeof(all) - n, "=%u..%u", o->min, o->max);
	}
	return bad(p, "option", "'%.*s' is not known; allowed: %s", shown(len), s, all);
}

static int option_take(const struct parse *p, const char *s, size_t len, unsigned int *seen)
{
	const char *eq = memchr(s, '=', len);
	size_t name = eq ? (size_t)(eq - s) : len, i = 0;
	const struct option *o;
	uint64_t v = 0;

	while (i < ARRAY_LEN(options) &&
		(strlen(options[i].name) != name || strncmp(options[i].name, s, name) != 0))
		i++;
	if (i == ARRAY_LEN(options))
		return option_unknown(p, s, len);
	o = &options[i];
	if (*seen & 1u << i)
		return bad(p, o->name, "is there twice; allowed: once");
	*seen |= 1u << i;
	if (o->tcp_only && p->a->rdma)
		return bad(p, o->name, "is not for nvme+rdma; allowed: with nvme+tcp://");
	if (!o->max && eq)
		return bad(p, o->name, "takes no value; allowed: the name alone");
	if (o->max && (!eq || !number(eq + 1, len - name - 1, o->max, &v) || v < o->min))
		return bad(p, o->name, "takes a number; allowed: %u to %u", o->min, o->max);
	option_set(p->a, i, (uint32_t)v);
	return 0;
}

static int options_take(const struct parse *p, const char *s)
{
	unsigned int seen = 0;

	for (;;) {
		size_t len = strcspn(s, "&");
		int rc = option_take(p, s, len, &seen);

		if (rc < 0 || !s[len])
			return rc;
		s += len + 1;
	}
}

/* ---- the whole ------------------------------------------------------------------------------------------------------ */

static int rest_take(const struct parse *p, const char *rest)
{
	const char *slash, *end;
	int rc;

	if (strncmp(rest, "//", 2) != 0)
		return bad(p, "address", "does not begin with %s://; allowed: %s://" FORM,
			scheme(p), scheme(p));
	if (strlen(rest) > NVME_ADDRESS_TEXT_MAX)
		return bad(
			p, "address", "is too long; allowed: %d characters", NVME_ADDRESS_TEXT_MAX);
	slash = strchr(rest + 2, '/');
	if (!slash)
		return bad(p, "NQN", "is missing; allowed: %s://" FORM, scheme(p));
	rc = paths_take(p, rest + 2, slash);
	if (rc < 0)
		return rc;
	end = strchr(slash + 1, '?');
	rc = namespace_take(p, slash + 1, end ? end : slash + 1 + strlen(slash + 1));
	return rc < 0 || !end ? rc : options_take(p, end + 1);
}

int nvme_address_parse_rest(bool rdma, const char *rest, struct nvme_address *out,
	const char *object, const char *field, struct err *err)
{
	const struct parse p = {.a = out, .object = object, .field = field, .err = err};

	*out = (struct nvme_address){.rdma = rdma};
	return rest_take(&p, rest);
}

int nvme_address_parse(const char *text, struct nvme_address *out, const char *object,
	const char *field, struct err *err)
{
	const struct parse p = {.a = out, .object = object, .field = field, .err = err};
	bool rdma = strncmp(text, "nvme+rdma:", 10) == 0;

	*out = (struct nvme_address){.rdma = rdma};
	if (!rdma && strncmp(text, "nvme+tcp:", 9) != 0)
		return bad(&p, "transport",
			"is missing in '%.40s'; allowed: nvme+tcp://..., nvme+rdma://...", text);
	if (strlen(text) > NVME_ADDRESS_TEXT_MAX)
		return bad(&p, "address", "is too long; allowed: %d characters",
			NVME_ADDRESS_TEXT_MAX);
	return rest_take(&p, text + (rdma ? 10 : 9));
}
