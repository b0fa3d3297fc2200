/* SPDX-License-Identifier: BSD-3-Clause */
/* A decision retold: the same verdict as the data path's, with the rows and steps that led to it. */
#include "common/policy/policy_priv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void step(struct policy_explanation *x, unsigned int figure, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void step(struct policy_explanation *x, unsigned int figure, const char *fmt, ...)
{
	struct policy_explain_step *s;
	va_list ap;

	if (x->nsteps == POLICY_STEPS_MAX)
		return;
	s = &x->steps[x->nsteps++];
	s->figure = figure;
	va_start(ap, fmt);
	vsnprintf(s->text, sizeof(s->text), fmt, ap);
	va_end(ap);
}

static unsigned int number_of(const struct policy_row *r)
{
	return r ? r->number : 0;
}

/* ---- mode and method ---------------------------------------------------------------------------- */

static void explain_mode(struct policy_explanation *x)
{
	const struct policy_vm *vm = x->vm;
	const char *columns = "methods and paths";

	if (vm->mode == POLICY_MODE_FLAG)
		columns = "neither methods nor paths";
	else if (vm->mode == POLICY_MODE_METHOD)
		columns = "methods only";
	else if (vm->mode == POLICY_MODE_PATH)
		columns = "paths only";
	if (vm->mode_set)
		snprintf(x->mode_why, sizeof(x->mode_why), "set for vm %s", vm->name);
	else if (!vm->nrows)
		snprintf(x->mode_why, sizeof(x->mode_why), "default: vm %s has no row", vm->name);
	else
		snprintf(x->mode_why, sizeof(x->mode_why), "default: the rows of vm %s name %s",
			vm->name, columns);
	snprintf(x->method_why, sizeof(x->method_why), "%s of %s %s",
		x->device->method_own ? "own method" : "method",
		x->device->method_own ? "device" : "vm",
		x->device->method_own ? x->device->path : vm->name);
}

/* ---- rows --------------------------------------------------------------------------------------- */

/* Why a row has no say in this mode, or NULL. */
static const char *no_say(enum policy_mode mode, const struct policy_row *r)
{
	if (mode == POLICY_MODE_METHOD && r->path[0])
		return "names a path, and mode method looks at rows with a method only";
	if (mode == POLICY_MODE_PATH && r->method[0])
		return "names a method, and mode path looks at rows with a path only";
	return NULL;
}

static const char *match_text(enum policy_match m)
{
	static const char *const text[] = {
		[POLICY_MATCH_PATTERN] = "pattern",
		[POLICY_MATCH_DIGITS] = "name followed by digits",
		[POLICY_MATCH_EXACT] = "exactly",
	};

	return text[m];
}

static void explain_row(
	struct policy_explanation *x, const struct policy_verdict *v, const struct policy_row *r)
{
	struct policy_explain_row *o = &x->rows[x->nrows++];
	const struct policy_device *d = x->device;
	const char *mute = no_say(x->vm->mode, r);
	const struct policy_row *best = r->path[0] ? (r->method[0] ? v->pair : v->path) : r;

	o->row = r;
	o->decisive = r == v->decisive;
	if (r->path[0])
		o->match = policy_path_match(r->path, d->path);
	if (r->method[0] && strcmp(r->method, d->method) != 0)
		snprintf(o->why, sizeof(o->why), "method %s is not %s", r->method, d->method);
	else if (r->path[0] && !o->match)
		snprintf(o->why, sizeof(o->why), "path does not cover %s", d->path);
	else if (mute)
		snprintf(o->why, sizeof(o->why), "%s", mute);
	else if (best != r)
		snprintf(o->why, sizeof(o->why), "path matches (%s), but row %u fits better",
			match_text(o->match), best->number);
	else {
		o->matched = true;
		snprintf(o->why, sizeof(o->why), "%s%s%s%s%s", r->method[0] ? "method matches" : "",
			r->method[0] && r->path[0] ? ", " : "", r->path[0] ? "path matches: " : "",
			r->path[0] ? match_text(o->match) : "",
			!r->method[0] && !r->path[0] ? "holds for the whole VM" : "");
	}
}

/* ---- steps -------------------------------------------------------------------------------------- */

static void steps_flag(struct policy_explanation *x, const struct policy_verdict *v)
{
	static const char *const kinds[] = {
		"the VM", "the method", "the path", "the method and the path"};
	const struct policy_row *r = v->decisive;

	if (!r) {
		step(x, 8, "no row matches method %s and path %s", x->device->method,
			x->device->path);
		step(x, 8, "no match counts as EC flag 0: plain");
		return;
	}
	step(x, 8, "the most specific matching row is row %u: it names %s", r->number,
		kinds[(r->method[0] ? 1 : 0) + (r->path[0] ? 2 : 0)]);
	step(x, 8, "EC flag of row %u is %d: %s", r->number, r->ec,
		policy_outcome_name(v->outcome));
}

static void steps_method(struct policy_explanation *x, const struct policy_verdict *v)
{
	const char *m = x->device->method;

	if (v->outcome == POLICY_PROTECT)
		step(x, 10, "%s is an EC method (row %u): protect", m, v->method->number);
	else if (v->method)
		step(x, 10, "%s is not an EC method (row %u has flag 0): intermediate", m,
			v->method->number);
	else
		step(x, 10, "%s is not an EC method (no row names it): intermediate", m);
}

static void steps_path(struct policy_explanation *x, const struct policy_verdict *v)
{
	const char *p = x->device->path;

	if (v->outcome == POLICY_PROTECT)
		step(x, 11, "%s is an EC path (row %u): protect", p, v->path->number);
	else if (v->path)
		step(x, 11, "%s is a non-EC path (row %u): intermediate", p, v->path->number);
	else
		step(x, 11, "%s is not an EC path (no row covers it): intermediate", p);
}

static void steps_both(struct policy_explanation *x, const struct policy_verdict *v)
{
	const struct policy_device *d = x->device;
	bool ec_method = v->method && v->method->ec;

	if (v->pair) {
		step(x, 12, "row %u names both method and path and decides first: flag %d: %s",
			v->pair->number, v->pair->ec, policy_outcome_name(v->outcome));
		return;
	}
	step(x, 12, "no row names exactly this method and path");
	if (ec_method)
		step(x, 12, "%s is an EC method (row %u): look for non-EC paths", d->method,
			v->method->number);
	else
		step(x, 12, "%s is not an EC method: look for EC paths", d->method);
	if (ec_method && v->outcome == POLICY_PLAIN)
		step(x, 12, "%s is a non-EC path (row %u): plain", d->path, number_of(v->path));
	else if (ec_method)
		step(x, 12, "%s is not a non-EC path: protect", d->path);
	else if (v->outcome == POLICY_PROTECT)
		step(x, 12, "%s is an EC path (row %u): protect", d->path, number_of(v->path));
	else
		step(x, 12, "%s is not an EC path: intermediate", d->path);
}

static void explain_write(struct policy_explanation *x, const struct policy_verdict *v)
{
	const struct policy_vm *vm = x->vm;

	for (size_t i = 0; i < vm->nrows; i++)
		explain_row(x, v, &vm->rows[i]);
	step(x, 0, "table 203: vm %s, device %s: data area on flash %s", vm->name, x->device->path,
		vm->data_flash);
	if (!vm->nrows)
		step(x, 0, "table 204 has no row for vm %s: plain", vm->name);
	else if (vm->mode == POLICY_MODE_FLAG)
		steps_flag(x, v);
	else if (vm->mode == POLICY_MODE_METHOD)
		steps_method(x, v);
	else if (vm->mode == POLICY_MODE_PATH)
		steps_path(x, v);
	else
		steps_both(x, v);
	if (v->outcome == POLICY_PROTECT)
		snprintf(x->result, sizeof(x->result),
			"protect: data area on flash %s (with layout copy), and to EC: fragments "
			"and "
			"parity on other flash devices",
			vm->data_flash);
	else if (v->outcome == POLICY_PLAIN)
		snprintf(x->result, sizeof(x->result), "plain: data area on flash %s, no EC",
			vm->data_flash);
	else
		snprintf(x->result, sizeof(x->result),
			"intermediate: intermediate area on flash %s, no EC", vm->inter_flash);
}

static void explain_read(struct policy_explanation *x)
{
	const struct policy_vm *vm = x->vm;

	step(x, 0,
		"a read is never decided by table 204: it goes to the newest data, block by block");
	step(x, 0, "written as plain or protect: data area on flash %s", vm->data_flash);
	step(x, 0,
		"protected without a full copy, or the copy is lost or fails its CRC: the stripe "
		"log (a fragment, else decoded from the others)");
	if (vm->inter_flash[0])
		step(x, 0, "written as intermediate: intermediate area on flash %s",
			vm->inter_flash);
	step(x, 0, "never written, or trimmed: zeros, without touching flash");
	snprintf(x->result, sizeof(x->result),
		"newest data from: data area on flash %s, the stripe log%s%s, as the location map "
		"says per block",
		vm->data_flash, vm->inter_flash[0] ? ", or intermediate area on flash " : "",
		vm->inter_flash);
}

int policy_explain(const struct policy_table *t, const struct policy_device *dev, enum policy_op op,
	struct policy_explanation **out)
{
	struct policy_explanation *x;
	struct policy_verdict v;

	if (op != POLICY_OP_WRITE && op != POLICY_OP_READ)
		return -EINVAL;
	x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->version = t->version;
	x->vm = dev->vm;
	x->device = dev;
	x->op = op;
	policy_judge(x->vm, dev, &v);
	x->outcome = v.outcome;
	explain_mode(x);
	if (op == POLICY_OP_WRITE)
		explain_write(x, &v);
	else
		explain_read(x);
	*out = x;
	return 0;
}
