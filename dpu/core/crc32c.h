/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * CRC32C (Castagnoli), as NVMe/TCP digests and the on-flash formats use it. ISA-L underneath. Thread: any.
 */
#ifndef DPU_CORE_CRC32C_H
#define DPU_CORE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* The finished CRC of buf: crc32c("123456789") = 0xe3069283. */
uint32_t crc32c(const void *buf, size_t len_bytes);
/* In pieces: crc = CRC32C_INIT; crc = crc32c_add(crc, p, n); ...; crc32c_end(crc). */
#define CRC32C_INIT 0xffffffffu
uint32_t crc32c_add(uint32_t crc, const void *buf, size_t len_bytes);
static inline uint32_t crc32c_end(uint32_t crc)
{
	return ~crc;
}

#endif
