/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Bounded reading of bytes that came from a wire or a disk: a reader can never run past its end.
 * A failed read returns NULL / sets `bad` and every later read fails too, so that a parser may check
 * once at its end. The bytes belong to whoever owns the buffer. Thread: any.
 *
 *	struct reader r = reader_of(buf, len);
 *	const struct hdr *h = reader_get(&r, sizeof(*h));
 *	if (!h) return -EPROTO;
 */
#ifndef COMMON_BASE_READER_H
#define COMMON_BASE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct reader {
	const uint8_t *p;
	size_t left;
	bool bad;
};

static inline struct reader reader_of(const void *p, size_t len_bytes)
{
	return (struct reader){.p = p, .left = len_bytes};
}

/* The next len_bytes bytes, or NULL where there are fewer. */
static inline const void *reader_get(struct reader *r, size_t len_bytes)
{
	const void *p = r->p;

	if (r->bad || len_bytes > r->left) {
		r->bad = true;
		return NULL;
	}
	r->p += len_bytes;
	r->left -= len_bytes;
	return p;
}

/* count elements of size_bytes each; overflow-safe. */
static inline const void *reader_get_array(struct reader *r, size_t count, size_t size_bytes)
{
	if (size_bytes && count > SIZE_MAX / size_bytes) {
		r->bad = true;
		return NULL;
	}
	return reader_get(r, count * size_bytes);
}

#endif
