/* SPDX-License-Identifier: BSD-3-Clause */
/* Which devices are treated differently by two tables. */
#include "common/policy/policy.h"

#include <string.h>

static int device_order(const struct policy_device *a, const struct policy_device *b)
{
	int c = (a->vm->node > b->vm->node) - (a->vm->node < b->vm->node);

	if (!c)
		c = strcmp(a->vm->name, b->vm->name);
	return c ? c : strcmp(a->path, b->path);
}

size_t policy_diff(const struct policy_table *before, const struct policy_table *after,
	policy_change_fn fn, void *arg)
{
	size_t nb = before ? before->ndevices : 0, na = after->ndevices;
	size_t i = 0, j = 0, changes = 0;

	/* both are sorted by node, VM name and path: merge */
	while (i < nb || j < na) {
		const struct policy_device *b = i < nb ? &before->devices[i] : NULL;
		const struct policy_device *a = j < na ? &after->devices[j] : NULL;
		int c = !b ? 1 : !a ? -1 : device_order(b, a);
		const struct policy_device *one = c <= 0 ? b : a;

		if (c <= 0)
			i++;
		if (c >= 0)
			j++;
		if (c == 0 && a->outcome == b->outcome)
			continue;
		changes++;
		if (fn)
			fn(arg, &(struct policy_change){
					.node = one->vm->node,
					.vm = one->vm->name,
					.path = one->path,
					.before = c <= 0 ? b : NULL,
					.after = c >= 0 ? a : NULL,
				});
	}
	return changes;
}
