/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/address.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"

#define PORT_DEFAULT 4420

bool nvme_address_is_remote(const char *text)
{
	return strncmp(text, "nvme+", 5) == 0;
}

/* Digits only, all of [text, text + len), up to max. */
static int number(const char *text, size_t len, uint64_t max, uint64_t *out)
{
	uint64_t v = 0;

	if (!len || len > 10)
		return -EINVAL;
	for (size_t i = 0; i < len; i++) {
		if (!isdigit((unsigned char)text[i]))
			return -EINVAL;
		v = v * 10 + (uint64_t)(text[i] - '0');
	}
	*out = v;
	return v > max ? -EINVAL : 0;
}

int nvme_host_parse(const char *text, size_t len, char host[64], uint16_t *port)
{
	bool v6 = len && text[0] == '[';
	const char *end = memchr(text, v6 ? ']' : ':', len), *rest = end;
	uint8_t bin[16];
	uint64_t v;
	size_t n;

	if (v6 && !end)
		return -EINVAL;
	text += v6;
	len -= v6;
	n = end ? (size_t)(end - text) : len;
	if (!n || n >= 64)
		return -EINVAL;
	memcpy(host, text, n);
	host[n] = 0;
	if (inet_pton(v6 ? AF_INET6 : AF_INET, host, bin) != 1)
		return -EINVAL;
	rest = v6 ? end + 1 : text + n;
	len -= (size_t)(rest - text);
	if (!len)
		return 0;
	if (rest[0] != ':' || number(rest + 1, len - 1, UINT16_MAX, &v) < 0 || !v)
		return -EINVAL;
	*port = (uint16_t)v;
	return 0;
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

static int hosts_parse(const char *text, const char *end, struct nvme_address *a,
	const char *object, const char *field, struct err *err)
{
	while (text < end) {
		const char *comma = memchr(text, ',', (size_t)(end - text));
		size_t len = (size_t)((comma ? comma : end) - text);

		if (a->npaths == NVME_ADDRESS_PATHS)
			return err_set(err, -EINVAL, object, field,
				"too many hosts; allowed: up to %d paths to one namespace",
				NVME_ADDRESS_PATHS);
		a->paths[a->npaths].port = PORT_DEFAULT;
		if (nvme_host_parse(
			    text, len, a->paths[a->npaths].host, &a->paths[a->npaths].port) < 0)
			return err_set(err, -EINVAL, object, field,
				"'%.*s' is no host; allowed: IPv4[:PORT] or [IPv6][:PORT], "
				"numeric, such as 10.0.0.2:4420",
				(int)(len < 80 ? len : 80), text);
		for (unsigned int i = 0; i < a->npaths; i++)
			if (a->paths[i].port == a->paths[a->npaths].port &&
				!strcmp(a->paths[i].host, a->paths[a->npaths].host))
				return err_set(err, -EINVAL, object, field,
					"host '%s' is there twice", a->paths[i].host);
		a->npaths++;
		text += len + (comma != NULL);
		if (comma && text == end)
			return err_set(
				err, -EINVAL, object, field, "no host behind the last comma");
	}
	if (!a->npaths)
		return err_set(err, -EINVAL, object, field, "no host; allowed: %s",
			"nvme+tcp://HOST[:PORT]/SUBNQN#NSID");
	return 0;
}

static const struct option {
	const char *name;
	bool tcp_only;
	uint32_t min, max; /* max 0: takes no value */
} options[] = {{"hdgst", true, 0, 0}, {"ddgst", true, 0, 0}, {"zero-copy", true, 0, 0},
	{"queues", false, 1, 64}, {"depth", false, 2, 1023}, {"keep-alive", false, 100, 60000}};

static void option_set(struct nvme_address *a, size_t i, uint32_t v)
{
	bool *const flags[] = {&a->hdgst, &a->ddgst, &a->zero_copy};
	uint32_t *const numbers[] = {&a->queues, &a->depth, &a->keep_alive_ms};

	if (i < ARRAY_LEN(flags))
		*flags[i] = true;
	else
		*numbers[i - ARRAY_LEN(flags)] = v;
}

static int option_take(const char *o, size_t len, struct nvme_address *a, unsigned int *seen)
{
	const char *eq = memchr(o, '=', len);
	size_t n = eq ? (size_t)(eq - o) : len;
	uint64_t v = 0;

	for (size_t i = 0; i < ARRAY_LEN(options); i++) {
		const struct option *opt = &options[i];

		if (strlen(opt->name) != n || strncmp(opt->name, o, n) != 0)
			continue;
		if (*seen & 1u << i || (opt->tcp_only && a->rdma) || !opt->max == !!eq)
			return -EINVAL;
		if (eq && (number(eq + 1, len - n - 1, opt->max, &v) < 0 || v < opt->min))
			return -EINVAL;
		*seen |= 1u << i;
		option_set(a, i, (uint32_t)v);
		return 0;
	}
	return -EINVAL;
}

static int options_parse(const char *text, struct nvme_address *a, const char *object,
	const char *field, struct err *err)
{
	unsigned int seen = 0;

	for (;;) {
		size_t len = strcspn(text, "&");

		if (option_take(text, len, a, &seen) < 0)
			return err_set(err, -EINVAL, object, field,
				"option '%.*s' is not known, there twice or out of range; allowed: "
				"%squeues=1..64, depth=2..1023, keep-alive=100..60000 (ms)",
				(int)(len < 60 ? len : 60), text,
				a->rdma ? "" : "hdgst, ddgst, zero-copy, ");
		if (!text[len])
			return 0;
		text += len + 1;
	}
}

static int nqn_parse(const char *text, size_t len, struct nvme_address *a, const char *object,
	const char *field, struct err *err)
{
	if (len < 5 || len >= sizeof(a->subnqn) || strncmp(text, "nqn.", 4) != 0)
		return err_set(err, -EINVAL, object, field,
			"'%.*s' is no subsystem name; allowed: nqn. and up to 219 characters",
			(int)(len < 80 ? len : 80), text);
	for (size_t i = 0; i < len; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return err_set(err, -EINVAL, object, field,
				"the subsystem name holds a character that is not allowed; "
				"allowed: "
				"printable ASCII without spaces");
	memcpy(a->subnqn, text, len);
	a->subnqn[len] = 0;
	return 0;
}

int nvme_address_parse(const char *text, struct nvme_address *out, const char *object,
	const char *field, struct err *err)
{
	const char *p, *slash, *hash;
	uint64_t nsid;
	size_t len;
	int rc;

	memset(out, 0, sizeof(*out));
	out->rdma = strncmp(text, "nvme+rdma://", 12) == 0;
	if (!out->rdma && strncmp(text, "nvme+tcp://", 11) != 0)
		return err_set(err, -EINVAL, object, field,
			"'%.40s' names no transport; allowed: nvme+tcp://..., nvme+rdma://...",
			text);
	if (strlen(text) > NVME_ADDRESS_TEXT_MAX)
		return err_set(err, -EINVAL, object, field, "too long; allowed: %d characters",
			NVME_ADDRESS_TEXT_MAX);
	p = text + (out->rdma ? 12 : 11);
	slash = strchr(p, '/');
	hash = slash ? memrchr(slash, '#', strcspn(slash, "?")) : NULL;
	if (!hash)
		return err_set(err, -EINVAL, object, field,
			"'%.120s' has no %s; allowed: %sHOST[:PORT]/SUBNQN#NSID (quoted: in YAML "
			"and "
			"shells '#' begins a comment)",
			text, slash ? "#NSID" : "subsystem",
			out->rdma ? "nvme+rdma://" : "nvme+tcp://");
	rc = hosts_parse(p, slash, out, object, field, err);
	if (rc == 0)
		rc = nqn_parse(slash + 1, (size_t)(hash - slash - 1), out, object, field, err);
	if (rc < 0)
		return rc;
	len = strcspn(hash + 1, "?");
	if (number(hash + 1, len, UINT32_MAX - 1, &nsid) < 0 || !nsid)
		return err_set(err, -EINVAL, object, field,
			"'%.*s' is no namespace number; allowed: 1 to 4294967294",
			(int)(len < 40 ? len : 40), hash + 1);
	out->nsid = (uint32_t)nsid;
	return hash[1 + len] ? options_parse(hash + 2 + len, out, object, field, err) : 0;
}
