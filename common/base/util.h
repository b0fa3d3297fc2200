/* SPDX-License-Identifier: BSD-3-Clause */
/* Small things everything uses. */
#ifndef COMMON_BASE_UTIL_H
#define COMMON_BASE_UTIL_H

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                       ((a) < (b) ? (a) : (b))
#define MAX(a, b)                       ((a) > (b) ? (a) : (b))
#define DIV_ROUND_UP(n, d)              (((n) + (d)-1) / (d))
#define ROUND_UP(n, d)                  (DIV_ROUND_UP(n, d) * (d))
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Scope-local clean-up: "autofree char *s = strdup(...);", "autoclose int fd = open(...);". */
static inline void autofree_fn(void *p)
{
	free(*(void **)p);
}
static inline void autoclose_fn(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}
#define autofree  __attribute__((cleanup(autofree_fn)))
#define autoclose __attribute__((cleanup(autoclose_fn)))

#endif
