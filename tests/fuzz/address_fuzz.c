/* SPDX-License-Identifier: BSD-3-Clause */
/* Addresses of namespaces on peers, as people and discovery logs have them: byte 0 is whether the caller names a field; the rest is the text. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <stdarg.h>

#include "common/nvme/address.h"

#define TEXT_MAX 1024

static void append(char *text, size_t *n, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void append(char *text, size_t *n, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	*n += (size_t)vsnprintf(text + *n, TEXT_MAX - *n, fmt, ap);
	va_end(ap);
	FUZZ_CHECK(*n < TEXT_MAX);
}

static void append_number(char *text, size_t *n, char *sep, const char *name, uint32_t v)
{
	if (!v)
		return;
	append(text, n, "%c%s=%u", *sep, name, v);
	*sep = '&';
}

static void append_flag(char *text, size_t *n, char *sep, const char *name, bool on)
{
	if (!on)
		return;
	append(text, n, "%c%s", *sep, name);
	*sep = '&';
}

/* The same, in the longest way. */
static void print(const struct nvme_address *a, char *text)
{
	char host[80], sep = '?';
	size_t n = 0;

	append(text, &n, "nvme+%s://", a->rdma ? "rdma" : "tcp");
	for (unsigned int i = 0; i < a->npaths; i++)
		append(text, &n, "%s%s", i ? "," : "",
			nvme_host_text(a->paths[i].host, a->paths[i].port, host, sizeof(host)));
	append(text, &n, "/%s#%u", a->subnqn, a->nsid);
	append_flag(text, &n, &sep, "hdgst", a->hdgst);
	append_flag(text, &n, &sep, "ddgst", a->ddgst);
	append_flag(text, &n, &sep, "zero-copy", a->zero_copy);
	append_number(text, &n, &sep, "queues", a->queues);
	append_number(text, &n, &sep, "depth", a->depth);
	append_number(text, &n, &sep, "keep-alive", a->keep_alive_ms);
	append_number(text, &n, &sep, "restart-min", a->restart_min_ms);
}

static void check_good(const struct nvme_address *a)
{
	struct nvme_address again;
	char text[TEXT_MAX], same[TEXT_MAX], domain[64];

	FUZZ_CHECK(a->npaths >= 1 && a->npaths <= NVME_ADDRESS_PATHS);
	FUZZ_CHECK(a->nsid && a->nsid != UINT32_MAX);
	FUZZ_CHECK(!strncmp(a->subnqn, "nqn.", 4) && strlen(a->subnqn) < sizeof(a->subnqn));
	FUZZ_CHECK(a->queues <= NVME_ADDRESS_QUEUES_MAX && a->depth <= NVME_ADDRESS_DEPTH_MAX);
	FUZZ_CHECK(!a->rdma || !(a->hdgst || a->ddgst || a->zero_copy));
	for (unsigned int i = 0; i < a->npaths; i++)
		FUZZ_CHECK(a->paths[i].port);
	nvme_address_domain(a, domain);
	FUZZ_CHECK(domain[0] && !strpbrk(domain, ":[]/, "));
	print(a, text);
	if (strlen(text) > NVME_ADDRESS_TEXT_MAX)
		return; /* ports that were not named make it longer */
	FUZZ_CHECK(nvme_address_parse(text, &again, "f", NULL, NULL) == 0);
	print(&again, same);
	FUZZ_CHECK(!strcmp(text, same));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	const char *field = eat8(&e) & 1 ? "address" : NULL;
	struct nvme_address *a = malloc(sizeof(*a));
	char *text = malloc(e.left + 1); /* ends where its memory ends */
	size_t n = e.left;
	struct err err = {0};
	int rc;

	if (a && text) {
		eat_bytes(&e, text, n);
		text[n] = 0;
		memset(a, 0xa5, sizeof(*a));
		rc = nvme_address_parse(text, a, "f", field, &err);
		FUZZ_CHECK(rc == 0 ||
			   (rc == -EINVAL && err.code == rc && err.field[0] && err.reason[0]));
		FUZZ_CHECK(rc < 0 || nvme_address_is_remote(text));
		if (rc == 0)
			check_good(a);
	}
	free(text);
	free(a);
	return 0;
}
