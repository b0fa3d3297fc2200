/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A provider of streams for tests, on top of another one: it offers received bytes in place (borrow), in pieces of
 * random size, as a packet stack does, and takes what is sent in small pieces. Neither of which sockets do.
 * Thread, ownership, errors: stream.h. The inner listener becomes the shim's.
 */
#ifndef TESTS_UNIT_STREAM_SHIM_H
#define TESTS_UNIT_STREAM_SHIM_H

#include "dpu/net/stream.h"

int shim_listen(struct shard *sh, struct stream_listener *inner, struct stream_listener **out);

#endif
