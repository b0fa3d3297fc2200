/* SPDX-License-Identifier: BSD-3-Clause */
/* The decision with everything it looked at; shared by the builder and the explanation. */
#ifndef COMMON_POLICY_POLICY_PRIV_H
#define COMMON_POLICY_POLICY_PRIV_H

#include "common/policy/policy.h"

/* The best row of each kind for one (VM, device) pair; NULL where none matches. */
struct policy_verdict {
	const struct policy_row *pair; /* names method and path */
	const struct policy_row *path; /* names the path only */
	const struct policy_row *method; /* names the method only */
	const struct policy_row *vm; /* names neither */
	const struct policy_row *decisive; /* NULL: the absence of a match decided */
	enum policy_outcome outcome;
};

void policy_judge(
	const struct policy_vm *vm, const struct policy_device *dev, struct policy_verdict *v);

#endif
