/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The card's state directory: small documents that survive a restart and a power cut, such as the tables last applied. A
 * document is a file: written beside, flushed, renamed over the old one, the directory flushed. It carries a checksum.
 *
 *	offset size field
 *	0      8    magic "PRPTSTAT"
 *	8      4    format version, 1 (little endian, as all here)
 *	12     4    reserved, 0
 *	16     8    length of the body in bytes
 *	24     4    CRC32C of the body
 *	28     4    CRC32C of bytes 0..27
 *	32     ...  body
 *
 * Thread: one at a time for each document. A directory has one owner: a lock file keeps a second process out. Errors: 0 or -errno with struct err.
 */
#ifndef DPU_TABLES_STATE_H
#define DPU_TABLES_STATE_H

#include "common/base/err.h"

#include <stddef.h>
#include <stdint.h>

#define STATE_BODY_MAX (16u << 20)

struct state_dir;

/* Opens, making the directory (0700) if need be. -EBUSY: another process has it. */
int state_open(const char *path, struct state_dir **out, struct err *e);
void state_close(struct state_dir *s);

/* Durable on return. Where it fails the former document is still there. */
int state_save(
	struct state_dir *s, const char *name, const void *body, size_t len_bytes, struct err *e);
/* *body is for free(). -ENOENT: none; -EUCLEAN: damaged, and set aside as NAME.damaged for a look;
 * -EPROTONOSUPPORT: written by a newer version. */
int state_load(
	struct state_dir *s, const char *name, void **body, size_t *len_bytes, struct err *e);
/* It is no more, durably. 0 also where it was not. */
int state_remove(struct state_dir *s, const char *name, struct err *e);

#endif
