/* SPDX-License-Identifier: BSD-3-Clause */
/* Sizes as people write them. Binary units: K, M, G, T (or KiB, MiB, ...) are powers of 1024. Thread: any. */
#ifndef COMMON_BASE_UNITS_H
#define COMMON_BASE_UNITS_H

#include <stddef.h>
#include <stdint.h>

/* Parses "10G", "512MiB", "4096" into bytes. 0, or -EINVAL (not a size), -ERANGE (over 2^64 - 1). */
int units_parse_bytes(const char *text, uint64_t *bytes);

/* Writes "10 GiB" / "1.5 MiB" / "512 B" into buf and returns it. */
const char *units_format_bytes(uint64_t bytes, char *buf, size_t len);

#endif
