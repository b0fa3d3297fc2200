/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a ring has been told beforehand, so that the kernel need not look it up for each I/O: its file (slot 0), and memory that I/O goes out of
 * or into, pinned once instead of each time. Inside dpu/flash, beside file.c.
 *
 * A region of mem_regions() is registered when the first I/O wants it, and forgotten when it is given back. Where the kernel does not know
 * this, or the process may not pin what it likes (neither CAP_IPC_LOCK nor an unlimited RLIMIT_MEMLOCK), I/O goes the common way; nothing fails.
 *
 * Thread: the ring's.
 */
#ifndef DPU_FLASH_FILE_FIXED_H
#define DPU_FLASH_FILE_FIXED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FILE_FIXED_MAX 16u

struct io_uring;

struct file_fixed {
	struct io_uring *ring;
	bool file; /* slot 0 is the file: IOSQE_FIXED_FILE */
	bool table; /* there is one for memory */
	uint64_t generation; /* of mem_regions() */
	uint32_t nrefused;
	struct file_fixed_region {
		uint8_t *base; /* NULL: free */
		size_t len;
		uint64_t id;
	} slot[FILE_FIXED_MAX], refused[FILE_FIXED_MAX];
};

/* Nothing is registered with rings that are opened from now on: what it is measured against. */
extern bool file_fixed_off;

/* The ring is new. */
void file_fixed_open(struct file_fixed *fx, struct io_uring *ring, int fd);
/* Before the ring is closed: else its end, which comes later, holds the file, and whatever is locked through it. */
void file_fixed_close(struct file_fixed *fx);
/* The index of the registered buffer that holds all of it, or -1. */
int file_fixed_find(struct file_fixed *fx, const void *at, size_t len);

#endif
