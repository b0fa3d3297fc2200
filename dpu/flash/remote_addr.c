/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/flash/remote_addr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"

#define PORT_DEFAULT   4420
#define KEEP_ALIVE_MIN 100
#define KEEP_ALIVE_MAX 60000
#define DEPTH_MIN      2

struct parse {
	const char *where;
	bool tcp;
	struct remote_addr *a;
	struct err *err;
};

static int bad(struct parse *p, const char *field, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int bad(struct parse *p, const char *field, const char *fmt, ...)
{
	char why[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return err_set(p->err, -EINVAL, p->where, field, "%s", why);
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

static int take_host(struct parse *p, const char *s, size_t len, bool v6)
{
	struct nvmf_path_addr *path = &p->a->paths[p->a->npaths];
	uint8_t raw[sizeof(struct in6_addr)];

	if (!len)
		return bad(p, "host", "is missing: //HOST[:PORT]/SUBNQN#NSID is wanted");
	if (len < sizeof(path->host)) {
		memcpy(path->host, s, len);
		path->host[len] = 0;
	}
	if (len >= sizeof(path->host) || inet_pton(v6 ? AF_INET6 : AF_INET, path->host, raw) != 1)
		return bad(p, "host", "\"%.*s\" is not a numeric %s address%s", (int)MIN(len, 64u),
			s, v6 ? "IPv6" : "IPv4",
			v6 ? "" : " (names are not resolved; IPv6 goes in brackets)");
	return 0;
}

static int take_port(struct parse *p, const char *s, size_t len)
{
	uint64_t port;

	if (!number(s, len, UINT16_MAX, &port) || !port)
		return bad(p, "port", "\"%.*s\" is not a number from 1 to 65535",
			(int)MIN(len, 64u), s);
	p->a->paths[p->a->npaths].port = (uint16_t)port;
	return 0;
}

static int take_path(struct parse *p, const char *s, size_t len)
{
	struct nvmf_path_addr *path = &p->a->paths[p->a->npaths];
	const char *end = s + len, *host = s, *host_end, *rest;
	bool v6 = len && s[0] == '[';
	int rc;

	if (p->a->npaths == NVMF_PATHS_MAX)
		return bad(p, "host", "more than %d paths", NVMF_PATHS_MAX);
	if (v6) {
		host = s + 1;
		host_end = memchr(s, ']', len);
		if (!host_end)
			return bad(p, "host", "\"%.*s\" lacks its closing bracket",
				(int)MIN(len, 64u), s);
		rest = host_end + 1;
	} else {
		host_end = memchr(s, ':', len);
		if (!host_end)
			host_end = end;
		rest = host_end;
	}
	rc = take_host(p, host, (size_t)(host_end - host), v6);
	if (rc < 0)
		return rc;
	path->port = PORT_DEFAULT;
	if (rest < end && *rest != ':')
		return bad(p, "host", "\"%.*s\" stands behind the bracket",
			(int)MIN((size_t)(end - rest), 64u), rest);
	if (rest < end)
		rc = take_port(p, rest + 1, (size_t)(end - rest - 1));
	if (rc < 0)
		return rc;
	for (unsigned int i = 0; i < p->a->npaths; i++)
		if (p->a->paths[i].port == path->port && !strcmp(p->a->paths[i].host, path->host))
			return bad(p, "host", "%s port %u is there twice", path->host, path->port);
	p->a->npaths++;
	return 0;
}

static int take_paths(struct parse *p, const char *s, const char *end)
{
	for (;;) {
		const char *comma = memchr(s, ',', (size_t)(end - s)), *to = comma ? comma : end;
		int rc = take_path(p, s, (size_t)(to - s));

		if (rc < 0 || !comma)
			return rc;
		s = comma + 1;
	}
}

/* ---- SUBNQN#NSID ------------------------------------------------------------------------------------------------ */

static int take_namespace(struct parse *p, const char *s, const char *end)
{
	const char *hash = memrchr(s, '#', (size_t)(end - s));
	uint64_t nsid;
	size_t len;

	if (!hash)
		return bad(p, "namespace", "is missing: SUBNQN#NSID is wanted");
	len = (size_t)(hash - s);
	if (len < sizeof(p->a->subnqn)) {
		memcpy(p->a->subnqn, s, len);
		p->a->subnqn[len] = 0;
	}
	if (len >= sizeof(p->a->subnqn) || !nvme_nqn_ok(p->a->subnqn))
		return bad(p, "NQN", "\"%.*s\" is not an NVMe qualified name (nqn...)",
			(int)MIN(len, 64u), s);
	if (!number(hash + 1, (size_t)(end - hash - 1), UINT32_MAX - 1, &nsid) || !nsid)
		return bad(p, "namespace", "\"%.*s\" is not the number of a namespace (1 and up)",
			(int)MIN((size_t)(end - hash - 1), 64u), hash + 1);
	p->a->nsid = (uint32_t)nsid;
	return 0;
}

/* ---- options ------------------------------------------------------------------------------------------------------ */

enum { OPT_HDGST, OPT_DDGST, OPT_ZERO_COPY, OPT_QUEUES, OPT_DEPTH, OPT_KEEP_ALIVE };

static const struct option {
	const char *name;
	bool tcp_only;
	uint32_t min, max; /* max 0: takes no value */
} options[] = {
	[OPT_HDGST] = {"hdgst", true, 0, 0},
	[OPT_DDGST] = {"ddgst", true, 0, 0},
	[OPT_ZERO_COPY] = {"zero-copy", true, 0, 0},
	[OPT_QUEUES] = {"queues", false, 1, NVMF_QUEUES_MAX},
	[OPT_DEPTH] = {"depth", false, DEPTH_MIN, NVMF_DEPTH_MAX - 1},
	[OPT_KEEP_ALIVE] = {"keep-alive", false, KEEP_ALIVE_MIN, KEEP_ALIVE_MAX},
};

static void set_option(struct remote_addr *a, size_t i, uint64_t v)
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
		a->queues = (uint16_t)v;
		break;
	case OPT_DEPTH:
		a->depth = (uint16_t)v;
		break;
	default:
		a->keep_alive_ms = (uint32_t)v;
		break;
	}
}

static int take_option(struct parse *p, const char *s, size_t len, unsigned int *seen)
{
	const char *eq = memchr(s, '=', len);
	size_t name = eq ? (size_t)(eq - s) : len, i = 0;
	const struct option *o;
	uint64_t v = 0;

	while (i < ARRAY_LEN(options) &&
		(strlen(options[i].name) != name || strncmp(options[i].name, s, name) != 0))
		i++;
	if (i == ARRAY_LEN(options))
		return bad(p, "option",
			"\"%.*s\" is none of hdgst, ddgst, zero-copy, queues=N, depth=N, "
			"keep-alive=MS",
			(int)MIN(len, 64u), s);
	o = &options[i];
	if (*seen & 1u << i)
		return bad(p, o->name, "is there twice");
	*seen |= 1u << i;
	if (o->tcp_only && !p->tcp)
		return bad(p, o->name, "is of NVMe/TCP alone");
	if (!o->max && eq)
		return bad(p, o->name, "takes no value");
	if (o->max && (!eq || !number(eq + 1, len - name - 1, o->max, &v) || v < o->min))
		return bad(p, o->name, "takes a number from %u to %u", o->min, o->max);
	set_option(p->a, i, v);
	return 0;
}

static int take_options(struct parse *p, const char *s)
{
	unsigned int seen = 0;

	for (;;) {
		size_t len = strcspn(s, "&");
		int rc = take_option(p, s, len, &seen);

		if (rc < 0 || !s[len])
			return rc;
		s += len + 1;
	}
}

int remote_addr_parse(const char *where, bool tcp, struct remote_addr *out, struct err *err)
{
	struct parse p = {.where = where, .tcp = tcp, .a = out, .err = err};
	const char *slash, *end;
	int rc;

	memset(out, 0, sizeof(*out));
	if (strncmp(where, "//", 2) != 0)
		return bad(&p, "address", "does not begin with //: //HOST[:PORT]/SUBNQN#NSID");
	slash = strchr(where + 2, '/');
	if (!slash)
		return bad(&p, "NQN", "is missing: //HOST[:PORT]/SUBNQN#NSID is wanted");
	rc = take_paths(&p, where + 2, slash);
	if (rc < 0)
		return rc;
	end = strchr(slash + 1, '?');
	rc = take_namespace(&p, slash + 1, end ? end : slash + 1 + strlen(slash + 1));
	if (rc < 0 || !end)
		return rc;
	return take_options(&p, end + 1);
}
