/* SPDX-License-Identifier: BSD-3-Clause */
/* What the files of merge share. */
#ifndef DPU_CONTROL_MERGE_PRIV_H
#define DPU_CONTROL_MERGE_PRIV_H

#include "dpu/control/merge.h"

#include "common/base/util.h"

/* ---- optional fields: absent is not 0 ------------------------------------------------------------------------- */

#define MERGE_(to, from, f, value)                                     \
	do {                                                           \
		if ((from)->has_##f) {                                 \
			(to)->f = (to)->has_##f ? (value) : (from)->f; \
			(to)->has_##f = true;                          \
		}                                                      \
	} while (0)
#define MERGE_SUM(to, from, f)   MERGE_(to, from, f, (to)->f + (from)->f)
#define MERGE_MAX(to, from, f)   MERGE_(to, from, f, MAX((to)->f, (from)->f))
#define MERGE_MIN(to, from, f)   MERGE_(to, from, f, MIN((to)->f, (from)->f))
#define MERGE_FIRST(to, from, f) MERGE_(to, from, f, (to)->f)
#define MERGE_ANY(to, from, f)   MERGE_(to, from, f, (to)->f || (from)->f)
#define MERGE_ALL(to, from, f)   MERGE_(to, from, f, (to)->f && (from)->f)

/* ---- texts -------------------------------------------------------------------------------------------------------- */

struct merge_texts {
	char **items;
	size_t n;
};
/* What all say once, the rest as "shard N: ...". */
int merge_texts(struct call *c, const struct merge_texts *parts, size_t n, struct merge_texts *out);
/* One text of texts that may be NULL; NULL where all are. */
char *merge_text(struct call *c, char *const *parts, size_t n);

/* ---- names and values ------------------------------------------------------------------------------------------------ */

enum merge_rule { MERGE_BY_SUM, MERGE_BY_MAX, MERGE_BY_MIN };
enum merge_rule merge_rule_of(const char *name); /* of a counter or figure */
uint64_t merge_value(enum merge_rule rule, uint64_t a, uint64_t b);

struct merge_named {
	Parapet__Named **items;
	size_t n;
};
int merge_named(struct call *c, const struct merge_named *parts, size_t n, struct merge_named *out);

/* ---- lists ------------------------------------------------------------------------------------------------------------- */

struct merge_list {
	void **items;
	size_t n;
};
/* One after the other. */
int merge_concat(struct call *c, const struct merge_list *parts, size_t n, struct merge_list *out);

#endif
