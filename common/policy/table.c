/* SPDX-License-Identifier: BSD-3-Clause */
/* Building a table from its rows: every check, every sort and every outcome happen here, once. */
#include "common/policy/policy_priv.h"

#include "common/base/util.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define METHODS_MAX 64

static const char *const known_methods[] = {"object", "block", "filesystem"};

/* A row on its way into the table: where it came from and, once known, its VM. */
struct item {
	const struct policy_spec *spec;
	size_t i; /* index in the spec's array */
	size_t vm; /* index in the sorted VMs */
};

struct builder {
	const struct policy_spec *spec;
	struct err *e;
	struct policy_table *t;
	struct policy_vm *vms;
	struct policy_device *devices;
	struct policy_row *rows;
	struct item *vm_items; /* sorted by node and name, as t->vms */
	struct item *vm_by_num; /* sorted by node and number */
	struct item *dev_items;
	struct item *row_items;
	char object[96];
};

static const char *text_of(const char *s)
{
	return s ? s : "";
}

/* Every string was checked to fit before. */
#define COPY(field, text) snprintf(field, sizeof(field), "%s", text)

static bool given(const char *s)
{
	return s && s[0];
}

static void name_vm_row(struct builder *b, size_t i)
{
	const char *name = b->spec->vms[i].name;

	/* a name that is not one is the complaint, not part of the object */
	if (policy_check_name(name, NULL, NULL, NULL) < 0)
		snprintf(b->object, sizeof(b->object), "table 203 row %zu", i + 1);
	else
		snprintf(b->object, sizeof(b->object), "table 203 row %zu (vm %s)", i + 1, name);
}

static int method_known(struct builder *b, const char *method)
{
	char list[256] = "";
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_LEN(known_methods) + b->spec->nmethods; i++) {
		const char *m = i < ARRAY_LEN(known_methods)
					? known_methods[i]
					: text_of(b->spec->methods[i - ARRAY_LEN(known_methods)]);

		if (!strcmp(m, method))
			return 0;
		if (n < sizeof(list))
			n += snprintf(list + n, sizeof(list) - n, "%s%s", i ? ", " : "", m);
	}
	return err_set(
		b->e, -ENOENT, b->object, "method", "unknown access method; allowed: %s", list);
}

static int flash_known(struct builder *b, uint32_t node, const char *flash, const char *field)
{
	char list[160] = "";
	size_t n = 0;
	int rc = policy_check_name(flash, b->object, field, b->e);

	if (rc < 0)
		return rc;
	for (size_t i = 0; i < b->spec->nflashes; i++) {
		const struct policy_flash_spec *f = &b->spec->flashes[i];

		if (f->node != node)
			continue;
		if (!strcmp(text_of(f->name), flash))
			return 0;
		if (n < sizeof(list))
			n += snprintf(list + n, sizeof(list) - n, "%s%s", n ? ", " : "",
				text_of(f->name));
	}
	return err_set(b->e, -ENOENT, b->object, field, "node %u has no flash '%s'; allowed: %s",
		node, flash, n ? list : "none yet, add one first");
}

/* ---- the VMs (table 203) ------------------------------------------------------------------------ */

static int by_node_and_name(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;
	const struct policy_vm_spec *x = &a->spec->vms[a->i], *y = &b->spec->vms[b->i];
	int c = (x->node > y->node) - (x->node < y->node);

	if (!c)
		c = strcmp(x->name, y->name);
	return c ? c : (a->i > b->i) - (a->i < b->i);
}

static int by_node_and_number(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;
	const struct policy_vm_spec *x = &a->spec->vms[a->i], *y = &b->spec->vms[b->i];
	int c = (x->node > y->node) - (x->node < y->node);

	return c ? c : (x->vm > y->vm) - (x->vm < y->vm);
}

static int check_vm(struct builder *b, size_t i)
{
	const struct policy_vm_spec *s = &b->spec->vms[i];
	int rc;

	name_vm_row(b, i);
	rc = policy_check_name(s->name, b->object, "name", b->e);
	if (!rc && given(s->data_flash))
		rc = flash_known(b, s->node, s->data_flash, "data_flash");
	if (!rc && given(s->inter_flash))
		rc = flash_known(b, s->node, s->inter_flash, "intermediate_flash");
	if (!rc && given(s->method))
		rc = method_known(b, s->method);
	if (rc < 0)
		return rc;
	if ((unsigned int)s->mode >= POLICY_MODES)
		return err_set(b->e, -EINVAL, b->object, "mode",
			"unknown mode; allowed: auto, flag, method, path, method+path");
	if (given(s->data_flash) && given(s->inter_flash) && !strcmp(s->data_flash, s->inter_flash))
		return err_set(b->e, -EINVAL, b->object, "intermediate_flash",
			"'%s' holds the data area already; allowed: any other flash",
			s->data_flash);
	if (s->mem_bytes && (s->host_addr > UINT64_MAX - s->mem_bytes ||
				    s->guest_addr > UINT64_MAX - s->mem_bytes))
		return err_set(b->e, -EINVAL, b->object, "mem_bytes",
			"the memory would end beyond the 64-bit address space");
	return 0;
}

static int sort_vms(struct builder *b)
{
	size_t n = b->spec->nvms;
	const struct policy_vm_spec *s = b->spec->vms;
	int rc;

	for (size_t i = 0; i < n; i++) {
		rc = check_vm(b, i);
		if (rc < 0)
			return rc;
		b->vm_items[i] = (struct item){.spec = b->spec, .i = i};
	}
	qsort(b->vm_items, n, sizeof(*b->vm_items), by_node_and_name);
	for (size_t i = 0; i < n; i++) {
		b->vm_by_num[i] = b->vm_items[i];
		b->vm_by_num[i].vm = i;
		if (i && s[b->vm_items[i].i].node == s[b->vm_items[i - 1].i].node &&
			!strcmp(s[b->vm_items[i].i].name, s[b->vm_items[i - 1].i].name)) {
			name_vm_row(b, b->vm_items[i].i);
			return err_set(b->e, -EEXIST, b->object, "name",
				"row %zu has the same VM name on node %u", b->vm_items[i - 1].i + 1,
				s[b->vm_items[i].i].node);
		}
	}
	qsort(b->vm_by_num, n, sizeof(*b->vm_by_num), by_node_and_number);
	for (size_t i = 1; i < n; i++) {
		if (by_node_and_number(&b->vm_by_num[i - 1], &b->vm_by_num[i]) == 0) {
			size_t x = MIN(b->vm_by_num[i - 1].i, b->vm_by_num[i].i);
			size_t y = MAX(b->vm_by_num[i - 1].i, b->vm_by_num[i].i);

			name_vm_row(b, y);
			return err_set(b->e, -EEXIST, b->object, "vm",
				"row %zu has the same VM number %u on node %u", x + 1, s[y].vm,
				s[y].node);
		}
	}
	return 0;
}

static void fill_vms(struct builder *b)
{
	for (size_t i = 0; i < b->spec->nvms; i++) {
		const struct policy_vm_spec *s = &b->spec->vms[b->vm_items[i].i];
		struct policy_vm *vm = &b->vms[i];

		vm->node = s->node;
		vm->vm = s->vm;
		vm->host_addr = s->host_addr;
		vm->guest_addr = s->guest_addr;
		vm->mem_bytes = s->mem_bytes;
		vm->mode = s->mode;
		vm->mode_set = s->mode != POLICY_MODE_AUTO;
		COPY(vm->name, s->name);
		COPY(vm->data_flash, text_of(s->data_flash));
		COPY(vm->inter_flash, text_of(s->inter_flash));
		COPY(vm->method, given(s->method) ? s->method : POLICY_METHOD_DEFAULT);
	}
}

/* The sorted index of VM (node, number), or an error about the row named in b->object. */
static int find_vm(struct builder *b, uint32_t node, uint32_t number, size_t *vm)
{
	const struct policy_vm_spec key_vm = {.node = node, .vm = number};
	const struct policy_spec key_spec = {.vms = &key_vm};
	const struct item key = {.spec = &key_spec};
	const struct item *hit;

	if (b->spec->nvms) {
		hit = bsearch(&key, b->vm_by_num, b->spec->nvms, sizeof(key), by_node_and_number);
		if (hit) {
			*vm = hit->vm;
			return 0;
		}
	}
	return err_set(b->e, -ENOENT, b->object, "vm", "node %u has no VM number %u in table 203",
		node, number);
}

/* ---- devices ------------------------------------------------------------------------------------- */

static int by_vm_and_path(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;
	int c = (a->vm > b->vm) - (a->vm < b->vm);

	if (!c)
		c = strcmp(a->spec->devices[a->i].path, b->spec->devices[b->i].path);
	return c ? c : (a->i > b->i) - (a->i < b->i);
}

static int sort_devices(struct builder *b)
{
	const struct policy_device_spec *s = b->spec->devices;
	size_t n = b->spec->ndevices;
	int rc;

	for (size_t i = 0; i < n; i++) {
		struct item *it = &b->dev_items[i];

		*it = (struct item){.spec = b->spec, .i = i};
		snprintf(b->object, sizeof(b->object), "device row %zu", i + 1);
		rc = policy_check_path(s[i].path, b->object, "path", b->e);
		if (!rc)
			rc = find_vm(b, s[i].node, s[i].vm, &it->vm);
		if (!rc && given(s[i].method))
			rc = method_known(b, s[i].method);
		if (rc < 0)
			return rc;
		if (++b->vms[it->vm].ndevices > POLICY_VM_DEVICES_MAX)
			return err_set(b->e, -E2BIG, b->object, "vm",
				"vm %s has more than %d devices", b->vms[it->vm].name,
				POLICY_VM_DEVICES_MAX);
	}
	qsort(b->dev_items, n, sizeof(*b->dev_items), by_vm_and_path);
	for (size_t i = 1; i < n; i++) {
		const struct item *x = &b->dev_items[i - 1], *y = &b->dev_items[i];

		if (x->vm == y->vm && !strcmp(s[x->i].path, s[y->i].path)) {
			snprintf(b->object, sizeof(b->object), "device row %zu", y->i + 1);
			return err_set(b->e, -EEXIST, b->object, "path",
				"row %zu gives vm %s the same path %s", x->i + 1,
				b->vms[x->vm].name, s[x->i].path);
		}
	}
	return 0;
}

static void fill_devices(struct builder *b)
{
	for (size_t i = 0; i < b->spec->ndevices; i++) {
		const struct item *it = &b->dev_items[i];
		const struct policy_device_spec *s = &b->spec->devices[it->i];
		struct policy_vm *vm = &b->vms[it->vm];
		struct policy_device *d = &b->devices[i];

		if (!vm->devices)
			vm->devices = d;
		d->index = i;
		d->vm = vm;
		d->method_own = given(s->method);
		COPY(d->method, d->method_own ? s->method : vm->method);
		COPY(d->path, s->path);
	}
}

/* ---- table 204 ------------------------------------------------------------------------------------ */

static void name_row(struct builder *b, const struct item *it)
{
	snprintf(b->object, sizeof(b->object), "table 204 row %zu (vm %s)", it->i + 1,
		b->vms[it->vm].name);
}

static int by_vm_and_order(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;
	int c = (a->vm > b->vm) - (a->vm < b->vm);

	return c ? c : (a->i > b->i) - (a->i < b->i);
}

static int same_key(const struct item *a, const struct item *b)
{
	const struct policy_row_spec *x = &a->spec->rows[a->i], *y = &b->spec->rows[b->i];
	int c = (a->vm > b->vm) - (a->vm < b->vm);

	if (!c)
		c = strcmp(text_of(x->method), text_of(y->method));
	return c ? c : strcmp(text_of(x->path), text_of(y->path));
}

static int by_key(const void *pa, const void *pb)
{
	const struct item *a = pa, *b = pb;
	int c = same_key(a, b);

	return c ? c : (a->i > b->i) - (a->i < b->i);
}

/* A row's path is a device's, the beginning of several, or a pattern: the same characters and '*'. */
static int check_row_path(struct builder *b, const char *path)
{
	char plain[POLICY_PATH_SIZE] = "/";
	size_t len = strnlen(path, POLICY_PATH_SIZE);

	if (!strcmp(path, "*"))
		return 0;
	if (len < POLICY_PATH_SIZE) {
		memcpy(plain, path, len + 1);
		if (plain[0] == '*')
			plain[0] = '/';
		for (char *p = plain; (p = strchr(p, '*'));)
			*p = 'x';
		if (policy_check_path(plain, NULL, NULL, NULL) == 0)
			return 0;
	}
	return err_set(b->e, -EINVAL, b->object, "path",
		"not a data path; allowed: a device's path, its beginning (/dev/ecpool covers "
		"/dev/ecpool0) or a pattern with '*', at most %d printable characters",
		POLICY_PATH_SIZE - 1);
}

static int check_row(struct builder *b, struct item *it)
{
	const struct policy_row_spec *s = &b->spec->rows[it->i];
	const struct policy_vm *vm;
	int rc;

	snprintf(b->object, sizeof(b->object), "table 204 row %zu", it->i + 1);
	rc = find_vm(b, s->node, s->vm, &it->vm);
	if (rc < 0)
		return rc;
	name_row(b, it);
	if (given(s->method))
		rc = method_known(b, s->method);
	if (!rc && given(s->path))
		rc = check_row_path(b, s->path);
	if (rc < 0)
		return rc;
	vm = &b->vms[it->vm];
	if (s->host_addr && s->host_addr != vm->host_addr)
		return err_set(b->e, -EINVAL, b->object, "host_addr",
			"0x%llx differs from table 203, which says 0x%llx; allowed: that or none",
			(unsigned long long)s->host_addr, (unsigned long long)vm->host_addr);
	if (++b->vms[it->vm].nrows > POLICY_VM_ROWS_MAX)
		return err_set(b->e, -E2BIG, b->object, "vm", "vm %s has more than %d rows",
			vm->name, POLICY_VM_ROWS_MAX);
	return 0;
}

static int sort_rows(struct builder *b)
{
	const struct policy_row_spec *s = b->spec->rows;
	size_t n = b->spec->nrows;
	int rc;

	for (size_t i = 0; i < n; i++) {
		b->row_items[i] = (struct item){.spec = b->spec, .i = i};
		rc = check_row(b, &b->row_items[i]);
		if (rc < 0)
			return rc;
	}
	qsort(b->row_items, n, sizeof(*b->row_items), by_key);
	for (size_t i = 1; i < n; i++) {
		const struct item *x = &b->row_items[i - 1], *y = &b->row_items[i];

		if (same_key(x, y))
			continue;
		name_row(b, y);
		if (s[x->i].ec == s[y->i].ec)
			return err_set(
				b->e, -EEXIST, b->object, "ec", "duplicate of row %zu", x->i + 1);
		return err_set(b->e, -EEXIST, b->object, "ec",
			"contradicts row %zu: same method and path, other flag", x->i + 1);
	}
	qsort(b->row_items, n, sizeof(*b->row_items), by_vm_and_order);
	return 0;
}

static void fill_rows(struct builder *b)
{
	for (size_t i = 0; i < b->spec->nrows; i++) {
		const struct item *it = &b->row_items[i];
		const struct policy_row_spec *s = &b->spec->rows[it->i];
		struct policy_row *r = &b->rows[i];

		if (!b->vms[it->vm].rows)
			b->vms[it->vm].rows = r;
		r->number = it->i + 1;
		r->ec = s->ec;
		COPY(r->method, text_of(s->method));
		COPY(r->path, text_of(s->path));
	}
}

/* ---- modes and outcomes ---------------------------------------------------------------------------- */

static enum policy_mode mode_from_rows(const struct policy_vm *vm)
{
	bool methods = false, paths = false;

	for (size_t i = 0; i < vm->nrows; i++) {
		methods |= vm->rows[i].method[0] != '\0';
		paths |= vm->rows[i].path[0] != '\0';
	}
	if (methods && paths)
		return POLICY_MODE_BOTH;
	if (methods)
		return POLICY_MODE_METHOD;
	return paths ? POLICY_MODE_PATH : POLICY_MODE_FLAG;
}

static int settle_mode(struct builder *b, struct policy_vm *vm)
{
	if (vm->mode == POLICY_MODE_AUTO)
		vm->mode = mode_from_rows(vm);
	if (vm->mode == POLICY_MODE_FLAG)
		return 0;
	for (size_t i = 0; i < vm->nrows; i++) {
		const struct policy_row *r = &vm->rows[i];

		if (r->method[0] || r->path[0])
			continue;
		snprintf(b->object, sizeof(b->object), "table 204 row %u (vm %s)", r->number,
			vm->name);
		return err_set(b->e, -EINVAL, b->object, "method, path",
			"a row for the whole VM has no meaning in mode %s (%s); allowed: name a "
			"method or a path, or set the VM's mode to flag",
			policy_mode_name(vm->mode),
			vm->mode_set ? "as set" : "follows from the other rows");
	}
	return 0;
}

static int settle_outcomes(struct builder *b, size_t i)
{
	struct policy_vm *vm = &b->vms[i];

	name_vm_row(b, b->vm_items[i].i);
	if (vm->ndevices && !vm->data_flash[0])
		return err_set(b->e, -EINVAL, b->object, "data_flash",
			"a VM with devices needs one; allowed: any flash of node %u", vm->node);
	for (size_t j = 0; j < vm->ndevices; j++) {
		struct policy_device *d = &b->devices[vm->devices[j].index];
		struct policy_verdict v;

		policy_judge(vm, d, &v);
		d->outcome = v.outcome;
		if (v.outcome == POLICY_INTERMEDIATE && !vm->inter_flash[0])
			return err_set(b->e, -EINVAL, b->object, "intermediate_flash",
				"writes to %s would go to the intermediate area, and the VM has "
				"none; "
				"allowed: any flash of node %u but the data flash",
				d->path, vm->node);
	}
	return 0;
}

/* ---- building -------------------------------------------------------------------------------------- */

static int check_bounds(const struct policy_spec *s, struct err *e)
{
	if (s->nvms > POLICY_VMS_MAX)
		return err_set(e, -E2BIG, "table 203", NULL, "%zu VMs; allowed: %d", s->nvms,
			POLICY_VMS_MAX);
	if (s->ndevices > POLICY_DEVICES_MAX)
		return err_set(e, -E2BIG, "devices", NULL, "%zu devices; allowed: %d", s->ndevices,
			POLICY_DEVICES_MAX);
	if (s->nrows > POLICY_ROWS_MAX)
		return err_set(e, -E2BIG, "table 204", NULL, "%zu rows; allowed: %d", s->nrows,
			POLICY_ROWS_MAX);
	if (s->nmethods > METHODS_MAX)
		return err_set(e, -E2BIG, "methods", NULL,
			"%zu further access methods; allowed: %d", s->nmethods, METHODS_MAX);
	for (size_t i = 0; i < s->nmethods; i++) {
		if (policy_check_name(s->methods[i], "methods", "method", e) < 0)
			return -EINVAL;
		if (strlen(s->methods[i]) >= POLICY_METHOD_SIZE)
			return err_set(e, -EINVAL, "methods", "method",
				"'%s' is too long; allowed: %d characters", s->methods[i],
				POLICY_METHOD_SIZE - 1);
	}
	return 0;
}

/* calloc that also gives a pointer for no elements, so that NULL always means "no memory". */
static void *array_new(size_t n, size_t size)
{
	return calloc(n ? n : 1, size);
}

static int reserve(struct builder *b)
{
	const struct policy_spec *s = b->spec;

	b->t = calloc(1, sizeof(*b->t));
	if (!b->t)
		return -ENOMEM;
	b->t->vms = b->vms = array_new(s->nvms, sizeof(*b->vms));
	b->t->devices = b->devices = array_new(s->ndevices, sizeof(*b->devices));
	b->t->rows = b->rows = array_new(s->nrows, sizeof(*b->rows));
	b->vm_items = array_new(s->nvms, sizeof(struct item));
	b->vm_by_num = array_new(s->nvms, sizeof(struct item));
	b->dev_items = array_new(s->ndevices, sizeof(struct item));
	b->row_items = array_new(s->nrows, sizeof(struct item));
	if (!b->vms || !b->devices || !b->rows || !b->vm_items || !b->vm_by_num || !b->dev_items ||
		!b->row_items)
		return -ENOMEM;
	b->t->version = s->version;
	b->t->nvms = s->nvms;
	b->t->ndevices = s->ndevices;
	b->t->nrows = s->nrows;
	return 0;
}

static int build(struct builder *b)
{
	int rc = sort_vms(b);

	if (rc < 0)
		return rc;
	fill_vms(b);
	rc = sort_devices(b);
	if (rc < 0)
		return rc;
	fill_devices(b);
	rc = sort_rows(b);
	if (rc < 0)
		return rc;
	fill_rows(b);
	for (size_t i = 0; !rc && i < b->spec->nvms; i++)
		rc = settle_mode(b, &b->vms[i]);
	for (size_t i = 0; !rc && i < b->spec->nvms; i++)
		rc = settle_outcomes(b, i);
	return rc;
}

int policy_table_open(const struct policy_spec *spec, struct policy_table **out, struct err *e)
{
	struct builder b = {.spec = spec, .e = e};
	int rc = check_bounds(spec, e);

	if (rc < 0)
		return rc;
	rc = reserve(&b);
	if (rc < 0)
		err_set(e, rc, "table", NULL, "out of memory");
	else
		rc = build(&b);
	free(b.vm_items);
	free(b.vm_by_num);
	free(b.dev_items);
	free(b.row_items);
	if (rc < 0)
		policy_table_close(b.t);
	else
		*out = b.t;
	return rc;
}

int policy_check(const struct policy_spec *spec, struct err *e)
{
	struct policy_table *t = NULL;
	int rc = policy_table_open(spec, &t, e);

	policy_table_close(t);
	return rc;
}

void policy_table_close(struct policy_table *t)
{
	if (!t)
		return;
	free((void *)t->vms);
	free((void *)t->devices);
	free((void *)t->rows);
	free(t);
}

/* ---- look-ups --------------------------------------------------------------------------------------- */

const struct policy_vm *policy_table_vm(
	const struct policy_table *t, uint32_t node, const char *name)
{
	size_t lo = 0, hi = t->nvms;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		const struct policy_vm *vm = &t->vms[mid];
		int c = (vm->node > node) - (vm->node < node);

		if (!c)
			c = strcmp(vm->name, name);
		if (!c)
			return vm;
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

const struct policy_vm *policy_table_vm_by_number(
	const struct policy_table *t, uint32_t node, uint32_t vm)
{
	for (size_t i = 0; i < t->nvms; i++)
		if (t->vms[i].node == node && t->vms[i].vm == vm)
			return &t->vms[i];
	return NULL;
}

const struct policy_device *policy_vm_device(const struct policy_vm *vm, const char *path)
{
	size_t lo = 0, hi = vm->ndevices;

	while (lo < hi) {
		size_t mid = lo + (hi - lo) / 2;
		int c = strcmp(vm->devices[mid].path, path);

		if (!c)
			return &vm->devices[mid];
		if (c < 0)
			lo = mid + 1;
		else
			hi = mid;
	}
	return NULL;
}

const struct policy_device *policy_table_device(
	const struct policy_table *t, uint32_t node, const char *vm, const char *path)
{
	const struct policy_vm *v = policy_table_vm(t, node, vm);

	return v ? policy_vm_device(v, path) : NULL;
}

int policy_vm_translate(
	const struct policy_vm *vm, uint64_t guest_addr, uint64_t len_bytes, uint64_t *host_addr)
{
	uint64_t off = guest_addr - vm->guest_addr;

	if (guest_addr < vm->guest_addr || off > vm->mem_bytes || len_bytes > vm->mem_bytes - off)
		return -EFAULT;
	*host_addr = vm->host_addr + off;
	return 0;
}
