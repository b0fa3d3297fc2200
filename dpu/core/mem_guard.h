/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Memory that is shared with somebody who is not trusted, and that may go away underneath: a file of a VM's that is mapped here and then
 * shortened, or whose file system is full. Touching such a page is a SIGBUS. For guarded memory the signal's handler puts zeroed memory of our
 * own in the place of all of it and marks it broken; whoever was reading or writing goes on, and the owner finds out by
 * mem_guard_hits(), which costs a load. Any other SIGBUS ends the process as it always does.
 *
 * Thread: any. A guard is deleted before its memory is unmapped, when nobody touches it any more. Errors: -errno.
 *
 *	mem_guard_add(base, len);
 *	... if (mem_guard_hits() != seen && mem_guard_is_broken(base)) ...
 *	mem_guard_del(base); munmap(base, len);
 */
#ifndef DPU_CORE_MEM_GUARD_H
#define DPU_CORE_MEM_GUARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define MEM_GUARDS_MAX 8192u

/* A whole mapping: base and len_bytes are multiples of its page size. -ENOSPC: there are too many; -EINVAL. */
int mem_guard_add(void *base, size_t len_bytes);
/* Whether it has been broken; false also where there is no such guard. */
bool mem_guard_del(void *base);
/* Whether the guarded memory that holds this address has been replaced. */
bool mem_guard_is_broken(const void *at);
/* How often that has happened so far, to any of it. */
uint64_t mem_guard_hits(void);

/*
 * While it is on, every SIGBUS of this thread is met, a page at a time, for memory that somebody else maps (a library) and that is guarded as
 * soon as its address is known. Turning it off says whether there was one.
 */
void mem_guard_thread_begin(void);
bool mem_guard_thread_end(void);

/*
 * The kernel says EFAULT where it was to read or write memory that is gone. This touches each page of what is guarded, so that a second attempt
 * succeeds. False: nothing of it has been replaced, the error has another cause.
 */
bool mem_guard_settle(const struct iovec *iov, size_t niov);

#endif
