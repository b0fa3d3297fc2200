/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sends out of the caller's own pages (MSG_ZEROCOPY): which of them the kernel has let go of. The kernel numbers the sends of
 * a socket that asked for it 0, 1, 2, ... and reports ranges of numbers on the socket's error queue: coalesced, rarely out of order. This
 * file is the book of them, pure; sockets.c does the system calls.
 *
 * Only a prefix counts: `released` is the first number that is still out, so what hangs on number n is free when n is below
 * it. That may wait for an earlier send a little longer than needed, never shorter.
 *
 * Thread: its owner's. Nothing here fails: nonsense reports are ignored and counted.
 *
 *	if (zc_room(&z)) n = sendmsg(..., MSG_ZEROCOPY);  id = zc_sent(&z, n);
 *	zc_report(&z, lo, hi, copied);  while (first && zc_is_released(&z, first->id)) ...
 */
#ifndef DPU_NET_ZERO_COPY_H
#define DPU_NET_ZERO_COPY_H

#include <stdbool.h>
#include <stdint.h>

#define ZC_WINDOW 512u /* sends that may be out; more go with a copy */

struct zc {
	uint32_t next; /* number of the next send */
	uint32_t released; /* all below are free */
	uint64_t free_bytes; /* of sends reported: really sent from their own pages... */
	uint64_t copied_bytes; /* ...or copied by the kernel after all */
	uint64_t nonsense;
	uint64_t done[ZC_WINDOW / 64]; /* reported, of those from `released` on */
	uint32_t bytes[ZC_WINDOW];
};

static inline uint32_t zc_outstanding(const struct zc *z)
{
	return z->next - z->released;
}

static inline bool zc_room(const struct zc *z)
{
	return zc_outstanding(z) < ZC_WINDOW;
}

/* Numbers wrap; what is out is a small part of them. */
static inline bool zc_is_released(const struct zc *z, uint32_t id)
{
	return (int32_t)(id - z->released) < 0;
}

/* A send of so many bytes has been taken; there was room. Returns its number. */
uint32_t zc_sent(struct zc *z, uint32_t len_bytes);
/* The kernel reports lo..hi (inclusive) as done. */
void zc_report(struct zc *z, uint32_t lo, uint32_t hi, bool copied);

#endif
