/* SPDX-License-Identifier: BSD-3-Clause */
/* Documents: what was pushed, checked as a whole and turned into a policy table. */
#include "dpu/tables/tables.h"

#include "common/base/util.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NQN_MAX   223
#define HOSTS_MAX 16
#define VHOST_DIR_MAX \
	80 /* with a name and a number behind it, it must fit into a socket's address */

/* ---- a VM's way in ----------------------------------------------------------------------------------------- */

static bool given(const char *s)
{
	return s && s[0];
}

static int vm_err(const Parapet__Vm *vm, struct err *e, const char *field, const char *reason)
{
	char object[96];

	snprintf(object, sizeof(object), "vm %.64s", vm->name);
	return err_set(e, -EINVAL, object, field, "%s", reason);
}

/* A decimal number of at most max at the whole of text. */
static int parse_number(const char *text, unsigned int max, unsigned int *out)
{
	unsigned int v = 0;

	if (!*text)
		return -EINVAL;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return -EINVAL;
		v = v * 10 + (unsigned int)(*text - '0');
		if (v > max)
			return -ERANGE;
	}
	*out = v;
	return 0;
}

static int parse_listen(const char *text, struct tables_access *out)
{
	const char *colon = strrchr(text, ':'), *from = text;
	unsigned char bin[16];
	unsigned int port;
	size_t n;
	bool v6;

	if (!colon || parse_number(colon + 1, 65535, &port) < 0 || port == 0)
		return -EINVAL;
	n = (size_t)(colon - text);
	v6 = text[0] == '[';
	if (v6) {
		if (n < 2 || text[n - 1] != ']')
			return -EINVAL;
		from++;
		n -= 2;
	}
	if (n >= sizeof(out->addr))
		return -EINVAL;
	memcpy(out->addr, from, n);
	out->addr[n] = 0;
	out->tcp_port = (uint16_t)port;
	return inet_pton(v6 ? AF_INET6 : AF_INET, out->addr, bin) == 1 ? 0 : -EINVAL;
}

static int parse_card_ip(const char *text, struct tables_access *out)
{
	const char *slash = strchr(text, '/');
	struct in_addr in;
	unsigned int prefix;
	char addr[16];
	uint32_t host;
	size_t n;

	if (!slash || parse_number(slash + 1, 30, &prefix) < 0 || prefix < 8)
		return -EINVAL;
	n = (size_t)(slash - text);
	if (n >= sizeof(addr))
		return -EINVAL;
	memcpy(addr, text, n);
	addr[n] = 0;
	if (inet_pton(AF_INET, addr, &in) != 1)
		return -EINVAL;
	out->card_ip = ntohl(in.s_addr);
	out->prefix_len = (uint8_t)prefix;
	host = out->card_ip & (UINT32_MAX >> prefix);
	if (host == 0 || host == UINT32_MAX >> prefix)
		return -EINVAL; /* the network, or everyone in it */
	return out->card_ip >> 24 == 0 || out->card_ip >> 24 == 127 || out->card_ip >> 28 >= 14
		       ? -EINVAL
		       : 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int parse_mac(const char *text, uint8_t mac[6])
{
	if (strlen(text) != 17)
		return -EINVAL;
	for (int i = 0; i < 6; i++) {
		int hi = hex_digit(text[i * 3]), lo = hex_digit(text[i * 3 + 1]);

		if (hi < 0 || lo < 0 || (i < 5 && text[i * 3 + 2] != ':'))
			return -EINVAL;
		mac[i] = (uint8_t)(hi << 4 | lo);
	}
	return mac[0] & 1 ? -EINVAL : 0;
}

int tables_access_parse(const Parapet__Vm *vm, struct tables_access *out, struct err *e)
{
	*out = (struct tables_access){0};
	if (given(vm->listen) && given(vm->port))
		return vm_err(vm, e, "listen", "a VM has a listen address or a port, not both");
	if (given(vm->listen)) {
		out->kind = TABLES_ACCESS_SOCKET;
		if (parse_listen(vm->listen, out) < 0)
			return vm_err(vm, e, "listen",
				"not ADDRESS:PORT or [ADDRESS]:PORT with a numeric address");
	}
	if (!given(vm->port)) {
		if (given(vm->card_ip) || given(vm->card_mac))
			return vm_err(
				vm, e, given(vm->card_ip) ? "card_ip" : "card_mac", "needs a port");
		return 0;
	}
	out->kind = TABLES_ACCESS_PORT;
	out->port = vm->port;
	if (!given(vm->card_ip) || parse_card_ip(vm->card_ip, out) < 0)
		return vm_err(vm, e, "card_ip",
			"a port needs the card's IPv4 address and prefix there, such as "
			"10.1.0.1/24 (prefix 8 to 30)");
	if (given(vm->card_mac)) {
		if (parse_mac(vm->card_mac, out->card_mac) < 0)
			return vm_err(vm, e, "card_mac",
				"not a unicast address such as 02:00:00:00:00:01");
		out->mac_set = true;
	}
	return 0;
}

/* ---- checks beyond common/policy ----------------------------------------------------------------------------- */

static int check_nqn(const Parapet__Vm *vm, const char *nqn, const char *field, struct err *e)
{
	size_t n = strlen(nqn);

	if (n > NQN_MAX || n < 5 || memcmp(nqn, "nqn.", 4))
		return vm_err(vm, e, field, "an NQN starts with 'nqn.' and has 5 to 223 bytes");
	for (; *nqn; nqn++)
		if (*nqn <= ' ' || *nqn > '~')
			return vm_err(vm, e, field, "an NQN is printable ASCII without spaces");
	return 0;
}

static int check_vhost(const Parapet__Vm *vm, struct err *e)
{
	const char *p = vm->vhost;

	if (p[0] != '/' || strlen(p) > VHOST_DIR_MAX)
		return vm_err(vm, e, "vhost", "an absolute path of at most 80 bytes");
	for (; *p; p++)
		if (*p < ' ' || *p > '~' || !strncmp(p, "/../", 4) || !strcmp(p, "/.."))
			return vm_err(vm, e, "vhost", "printable ASCII, and no '..' in it");
	return 0;
}

static int check_vm(const Parapet__Vm *vm, struct err *e)
{
	struct tables_access access;
	int rc;

	if (vm->vm == 0)
		return vm_err(vm, e, "vm", "VM numbers start at 1");
	if (vm->has_mode && (unsigned int)vm->mode >= POLICY_MODES)
		return vm_err(
			vm, e, "mode", "unknown; allowed: auto, flag, method, path, method+path");
	rc = tables_access_parse(vm, &access, e);
	if (rc == 0 && given(vm->vhost))
		rc = check_vhost(vm, e);
	if (rc == 0 && given(vm->nqn))
		rc = check_nqn(vm, vm->nqn, "nqn", e);
	if (rc == 0 && vm->n_hosts > HOSTS_MAX)
		rc = vm_err(vm, e, "hosts", "at most 16");
	for (size_t i = 0; rc == 0 && i < vm->n_hosts; i++)
		rc = check_nqn(vm, vm->hosts[i], "hosts", e);
	return rc;
}

/* What must differ between VMs: their ways in and their subsystems. */
struct unique {
	const char *value;
	const Parapet__Vm *vm;
};

static int by_value(const void *a, const void *b)
{
	return strcmp(((const struct unique *)a)->value, ((const struct unique *)b)->value);
}

static int check_unique(const Parapet__Tables *pb, const char *field,
	const char *(*value_of)(const Parapet__Vm *vm), struct err *e)
{
	autofree struct unique *u = calloc(pb->n_vms + 1, sizeof(*u));
	size_t n = 0;

	if (!u)
		return err_set(e, -ENOMEM, "tables", NULL, "out of memory");
	for (size_t i = 0; i < pb->n_vms; i++)
		if (given(value_of(pb->vms[i])))
			u[n++] = (struct unique){value_of(pb->vms[i]), pb->vms[i]};
	qsort(u, n, sizeof(*u), by_value);
	for (size_t i = 1; i < n; i++) {
		char object[96];

		if (by_value(&u[i - 1], &u[i]))
			continue;
		snprintf(object, sizeof(object), "vm %.64s", u[i].vm->name);
		return err_set(e, -EEXIST, object, field, "%s is that of vm %s", u[i].value,
			u[i - 1].vm->name);
	}
	return 0;
}

static const char *vm_listen(const Parapet__Vm *vm)
{
	return vm->listen;
}
static const char *vm_port(const Parapet__Vm *vm)
{
	return vm->port;
}
static const char *vm_nqn(const Parapet__Vm *vm)
{
	return vm->nqn;
}

static int check_tables(const Parapet__Tables *pb, struct err *e)
{
	int rc = 0;

	if (pb->version == 0)
		return err_set(e, -EINVAL, "tables", "version", "versions start at 1");
	if (pb->has_reception &&
		(unsigned int)pb->reception > PARAPET__RECEPTION__RECEPTION_INTERRUPT)
		return err_set(e, -EINVAL, "tables", "reception",
			"unknown; allowed: adaptive, polling, interrupt");
	for (size_t i = 0; rc == 0 && i < pb->n_vms; i++)
		rc = check_vm(pb->vms[i], e);
	if (rc == 0)
		rc = check_unique(pb, "listen", vm_listen, e);
	if (rc == 0)
		rc = check_unique(pb, "port", vm_port, e);
	if (rc == 0)
		rc = check_unique(pb, "nqn", vm_nqn, e);
	return rc;
}

/* ---- to a policy table ---------------------------------------------------------------------------------------- */

struct spec_mem {
	struct policy_flash_spec *flashes;
	struct policy_vm_spec *vms;
	struct policy_device_spec *devices;
	struct policy_row_spec *rows;
};

static void spec_mem_free(struct spec_mem *m)
{
	free(m->flashes);
	free(m->vms);
	free(m->devices);
	free(m->rows);
}

static void spec_flashes(const Parapet__Tables *pb, const struct tables_env *env,
	struct policy_flash_spec *f, size_t *n)
{
	*n = 0;
	for (size_t i = 0; i < env->nflashes; i++)
		f[(*n)++] = (struct policy_flash_spec){.node = pb->node, .name = env->flashes[i]};
	for (size_t i = 0; env->no_pool && i < pb->n_vms; i++) {
		if (given(pb->vms[i]->data_flash))
			f[(*n)++] = (struct policy_flash_spec){pb->node, pb->vms[i]->data_flash};
		if (given(pb->vms[i]->inter_flash))
			f[(*n)++] = (struct policy_flash_spec){pb->node, pb->vms[i]->inter_flash};
	}
}

static int spec_fill(const Parapet__Tables *pb, const struct tables_env *env, struct spec_mem *m,
	struct policy_spec *spec)
{
	m->flashes = calloc(env->nflashes + 2 * pb->n_vms + 1, sizeof(*m->flashes));
	m->vms = calloc(pb->n_vms + 1, sizeof(*m->vms));
	m->devices = calloc(pb->n_devices + 1, sizeof(*m->devices));
	m->rows = calloc(pb->n_rows + 1, sizeof(*m->rows));
	if (!m->flashes || !m->vms || !m->devices || !m->rows)
		return -ENOMEM;
	for (size_t i = 0; i < pb->n_vms; i++) {
		const Parapet__Vm *v = pb->vms[i];

		m->vms[i] = (struct policy_vm_spec){.node = pb->node,
			.vm = v->vm,
			.name = v->name,
			.host_addr = v->host_addr,
			.guest_addr = v->guest_addr,
			.mem_bytes = v->mem_bytes,
			.data_flash = v->data_flash,
			.inter_flash = v->inter_flash,
			.method = v->method,
			.mode = (enum policy_mode)v->mode};
	}
	for (size_t i = 0; i < pb->n_devices; i++)
		m->devices[i] = (struct policy_device_spec){.node = pb->node,
			.vm = pb->devices[i]->vm,
			.path = pb->devices[i]->path,
			.method = pb->devices[i]->method};
	for (size_t i = 0; i < pb->n_rows; i++)
		m->rows[i] = (struct policy_row_spec){.node = pb->node,
			.vm = pb->rows[i]->vm,
			.host_addr = pb->rows[i]->host_addr,
			.method = pb->rows[i]->method,
			.path = pb->rows[i]->path,
			.ec = pb->rows[i]->ec};
	*spec = (struct policy_spec){.version = pb->version,
		.flashes = m->flashes,
		.methods = (const char *const *)pb->methods,
		.nmethods = pb->n_methods,
		.vms = m->vms,
		.nvms = pb->n_vms,
		.devices = m->devices,
		.ndevices = pb->n_devices,
		.rows = m->rows,
		.nrows = pb->n_rows};
	spec_flashes(pb, env, m->flashes, &spec->nflashes);
	return 0;
}

_Static_assert((int)PARAPET__MODE__MODE_AUTO == (int)POLICY_MODE_AUTO, "modes");
_Static_assert((int)PARAPET__MODE__MODE_FLAG == (int)POLICY_MODE_FLAG, "modes");
_Static_assert((int)PARAPET__MODE__MODE_METHOD == (int)POLICY_MODE_METHOD, "modes");
_Static_assert((int)PARAPET__MODE__MODE_PATH == (int)POLICY_MODE_PATH, "modes");
_Static_assert((int)PARAPET__MODE__MODE_BOTH == (int)POLICY_MODE_BOTH, "modes");

int tables_doc_build(const Parapet__Tables *pb, struct rpc_arena *arena,
	const struct tables_env *env, struct tables_doc **out, struct err *e)
{
	struct tables_doc *d = calloc(1, sizeof(*d));
	struct spec_mem mem = {0};
	struct policy_spec spec;
	int rc = d ? 0 : err_set(e, -ENOMEM, "tables", NULL, "out of memory");

	if (rc == 0)
		rc = check_tables(pb, e);
	if (rc == 0) {
		rc = spec_fill(pb, env, &mem, &spec);
		if (rc < 0)
			err_set(e, rc, "tables", NULL, "out of memory");
	}
	if (rc == 0)
		rc = policy_table_open(&spec, &d->policy, e);
	spec_mem_free(&mem);
	if (rc < 0) {
		free(d);
		return rc;
	}
	d->pb = pb;
	d->arena = arena;
	d->refs = 1;
	*out = d;
	return 0;
}

int tables_doc_empty(struct tables_doc **out)
{
	static const Parapet__Tables none = PARAPET__TABLES__INIT;
	struct policy_spec spec = {0};
	struct tables_doc *d = calloc(1, sizeof(*d));
	int rc;

	if (!d)
		return -ENOMEM;
	rc = policy_table_open(&spec, &d->policy, NULL);
	if (rc < 0) {
		free(d);
		return rc;
	}
	d->pb = &none;
	d->refs = 1;
	*out = d;
	return 0;
}

struct tables_doc *tables_doc_get(struct tables_doc *d)
{
	d->refs++;
	return d;
}

void tables_doc_put(struct tables_doc *d)
{
	if (!d || --d->refs)
		return;
	policy_table_close(d->policy);
	rpc_arena_free(d->arena);
	free(d);
}

const Parapet__Vm *tables_doc_vm(const struct tables_doc *d, uint32_t vm)
{
	for (size_t i = 0; i < d->pb->n_vms; i++)
		if (d->pb->vms[i]->vm == vm)
			return d->pb->vms[i];
	return NULL;
}

const struct policy_vm *tables_doc_policy_vm(const struct tables_doc *d, uint32_t vm)
{
	return policy_table_vm_by_number(d->policy, d->pb->node, vm);
}

const struct policy_device *tables_doc_device(
	const struct tables_doc *d, uint32_t vm, const char *path)
{
	const struct policy_vm *v = tables_doc_policy_vm(d, vm);

	return v ? policy_vm_device(v, path) : NULL;
}
