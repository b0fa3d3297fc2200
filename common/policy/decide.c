/* SPDX-License-Identifier: BSD-3-Clause */
/* The four modes (figures 8, 10, 11 and 12), and how a row's path fits a device. */
#include "common/policy/policy_priv.h"

#include <string.h>

static bool pattern_fits(const char *pattern, const char *text)
{
	const char *star = NULL, *resume = NULL;

	while (*text) {
		if (*pattern == '*') {
			star = pattern++;
			resume = text;
		} else if (*pattern == *text) {
			pattern++;
			text++;
		} else if (star) {
			/* let the last star swallow one character more */
			pattern = star + 1;
			text = ++resume;
		} else {
			return false;
		}
	}
	while (*pattern == '*')
		pattern++;
	return *pattern == '\0';
}

enum policy_match policy_path_match(const char *row_path, const char *device_path)
{
	size_t len = strlen(row_path);

	if (strchr(row_path, '*'))
		return pattern_fits(row_path, device_path) ? POLICY_MATCH_PATTERN
							   : POLICY_MATCH_NONE;
	if (strncmp(row_path, device_path, len) != 0)
		return POLICY_MATCH_NONE;
	if (!device_path[len])
		return POLICY_MATCH_EXACT;
	if (device_path[len + strspn(device_path + len, "0123456789")])
		return POLICY_MATCH_NONE;
	return POLICY_MATCH_DIGITS;
}

/* Whether row a is the better fit of two rows of the same kind that both match. Two patterns of the same
 * length can fit equally well: then the one that protects wins, whatever their order. */
static bool fits_better(
	const struct policy_row *a, const struct policy_row *b, const char *device_path)
{
	enum policy_match ma, mb;
	size_t la, lb;

	if (!b)
		return true;
	ma = policy_path_match(a->path, device_path);
	mb = policy_path_match(b->path, device_path);
	if (ma != mb)
		return ma > mb;
	la = strlen(a->path);
	lb = strlen(b->path);
	if (la != lb)
		return la > lb;
	return a->ec && !b->ec;
}

static void sort_out_rows(
	const struct policy_vm *vm, const struct policy_device *dev, struct policy_verdict *v)
{
	for (size_t i = 0; i < vm->nrows; i++) {
		const struct policy_row *r = &vm->rows[i];

		if (r->method[0] && strcmp(r->method, dev->method) != 0)
			continue;
		if (r->path[0] && !policy_path_match(r->path, dev->path))
			continue;
		if (!r->path[0] && !r->method[0])
			v->vm = r;
		else if (!r->path[0])
			v->method = r;
		else if (!r->method[0])
			v->path = fits_better(r, v->path, dev->path) ? r : v->path;
		else
			v->pair = fits_better(r, v->pair, dev->path) ? r : v->pair;
	}
}

static void take(
	struct policy_verdict *v, const struct policy_row *row, enum policy_outcome outcome)
{
	v->decisive = row;
	v->outcome = outcome;
}

static void judge_flag(struct policy_verdict *v)
{
	const struct policy_row *r = v->pair;

	if (!r)
		r = v->path;
	if (!r)
		r = v->method;
	if (!r)
		r = v->vm;
	take(v, r, r && r->ec ? POLICY_PROTECT : POLICY_PLAIN);
}

static void judge_both(struct policy_verdict *v)
{
	bool ec_method = v->method && v->method->ec;

	if (v->pair)
		take(v, v->pair, v->pair->ec ? POLICY_PROTECT : POLICY_PLAIN);
	else if (ec_method && v->path && !v->path->ec)
		take(v, v->path, POLICY_PLAIN);
	else if (ec_method)
		take(v, v->method, POLICY_PROTECT);
	else if (v->path && v->path->ec)
		take(v, v->path, POLICY_PROTECT);
	else
		take(v, v->path ? v->path : v->method, POLICY_INTERMEDIATE);
}

void policy_judge(
	const struct policy_vm *vm, const struct policy_device *dev, struct policy_verdict *v)
{
	*v = (struct policy_verdict){.outcome = POLICY_PLAIN};
	if (!vm->nrows)
		return;
	sort_out_rows(vm, dev, v);
	switch (vm->mode) {
	case POLICY_MODE_METHOD:
		take(v, v->method,
			v->method && v->method->ec ? POLICY_PROTECT : POLICY_INTERMEDIATE);
		break;
	case POLICY_MODE_PATH:
		take(v, v->path, v->path && v->path->ec ? POLICY_PROTECT : POLICY_INTERMEDIATE);
		break;
	case POLICY_MODE_BOTH:
		judge_both(v);
		break;
	default:
		judge_flag(v);
	}
}

size_t policy_row_covers(const struct policy_vm *vm, const struct policy_row *row)
{
	size_t n = 0;

	for (size_t i = 0; i < vm->ndevices; i++) {
		const struct policy_device *d = &vm->devices[i];

		n += (!row->method[0] || !strcmp(row->method, d->method)) &&
		     (!row->path[0] || policy_path_match(row->path, d->path));
	}
	return n;
}
