/* SPDX-License-Identifier: BSD-3-Clause */
/* The one file that speaks ISA-L's CRC interface. crc32_iscsi() takes and returns the raw shift register: it inverts
 * neither the seed nor the result, so the seed is CRC32C_INIT and crc32c_end() inverts. */
#include "dpu/core/crc32c.h"

#include <isa-l/crc.h>

#define PIECE_MAX (1u << 30) /* its length is an int */

uint32_t crc32c_add(uint32_t crc, const void *buf, size_t len_bytes)
{
	/* ISA-L does not write through the pointer; it only lacks the const. */
	unsigned char *p = (unsigned char *)(uintptr_t)buf;

	while (len_bytes > PIECE_MAX) {
		crc = crc32_iscsi(p, (int)PIECE_MAX, crc);
		p += PIECE_MAX;
		len_bytes -= PIECE_MAX;
	}
	return len_bytes ? crc32_iscsi(p, (int)len_bytes, crc) : crc;
}

uint32_t crc32c(const void *buf, size_t len_bytes)
{
	return crc32c_end(crc32c_add(CRC32C_INIT, buf, len_bytes));
}
