/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Integers of wire and disk formats, typed by their byte order so that one cannot be used unconverted.
 * All have alignment 1: structs made of them have no padding. Thread: any.
 *
 *	struct hdr { le32 magic; le64 seq; };
 *	h->seq = to_le64(seq);   seq = from_le64(h->seq);
 */
#ifndef COMMON_BASE_ENDIAN_H
#define COMMON_BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define ENDIAN_TYPE(order, bits)                                       \
	typedef struct {                                               \
		uint8_t b[bits / 8];                                   \
	} order##bits;                                                 \
	static inline order##bits to_##order##bits(uint##bits##_t v)   \
	{                                                              \
		order##bits r;                                         \
		v = hto##order##bits(v);                               \
		memcpy(r.b, &v, sizeof(v));                            \
		return r;                                              \
	}                                                              \
	static inline uint##bits##_t from_##order##bits(order##bits r) \
	{                                                              \
		uint##bits##_t v;                                      \
		memcpy(&v, r.b, sizeof(v));                            \
		return order##bits##toh(v);                            \
	}

ENDIAN_TYPE(le, 16)
ENDIAN_TYPE(le, 32)
ENDIAN_TYPE(le, 64)
ENDIAN_TYPE(be, 16)
ENDIAN_TYPE(be, 32)
ENDIAN_TYPE(be, 64)

#endif
