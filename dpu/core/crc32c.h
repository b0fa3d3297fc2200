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

/*
 * Up to CRC32C_STREAMS buffers of len_bytes (a multiple of 64) side by side: crc[i] goes on over src[i]; where dst[i] is not NULL
 * src[i] is copied there with streaming stores (dst[i] aligned to 16). ahead[i]: memory that is needed next, prefetched meanwhile;
 * any address. The fence (mem_stream_fence) is the caller's.
 */
#define CRC32C_STREAMS 4u
void crc32c_copy_stream(unsigned int n, const uint8_t *const *src, uint8_t *const *dst,
	const uint8_t *const *ahead, uint32_t *crc, size_t len_bytes);

#endif
