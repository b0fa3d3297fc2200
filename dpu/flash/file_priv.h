/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who has a file or block device open (file_lock.c). Inside dpu/flash, below file.c.
 *
 *	other processes    flock, by whoever has the whole file; or by a guard that all slices this process has open share. Of a block device it is
 *	                   also open exclusively (O_EXCL), so that the system has not mounted it
 *	slices             a lock on the bytes (F_OFD_SETLK) through the very descriptor the I/O goes through
 *
 * The second is held by I/O in flight: it outlives a killed process for as long as the kernel may still write there.
 * Thread: any; what is shared is under a lock of its own.
 */
#ifndef DPU_FLASH_FILE_PRIV_H
#define DPU_FLASH_FILE_PRIV_H

#include <sys/types.h>

#include "dpu/flash/flash_priv.h"

struct file_guard;

struct file_hold {
	int fd; /* what I/O goes through: of this opening alone, as fdatasync() tells each of an error once */
	struct file_guard *guard; /* NULL: whole, or not exclusive */
	struct slice slice; /* settled */
	dev_t dev; /* which file: block devices by their number, whatever the path */
	ino_t ino;
	bool closed; /* but its I/O has not ended */
	LIST_ENTRY(file_hold) link;
};

/*
 * Opens path and, where opts say so, keeps others out. Waits shortly for a killed owner, and for I/O of an earlier opening in this process.
 * -EBUSY, -EINVAL, -EUCLEAN, or of open(): err says. On failure nothing is held (h->fd is -1).
 */
int file_hold_open(
	const char *path, const struct flash_opts *opts, struct file_hold *h, struct err *err);
/* The device is closed, but I/O is still in the kernel: until file_hold_close() its slice is not opened again. */
void file_hold_haunt(struct file_hold *h);
void file_hold_close(struct file_hold *h); /* also a failed or zeroed one with fd -1 */

/* Size and logical block of an open file or block device; of a file 512. -errno. */
int file_geometry(int fd, uint64_t *size_bytes, unsigned int *logical, unsigned int *physical);

#endif
