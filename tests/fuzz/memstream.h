/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A third provider of byte streams (dpu/net/stream.h), for fuzzing: what a stream receives is what the test puts there, what it
 * sends is what the test finds. No kernel, no chance. Thread: the shard's.
 *
 *	memstream_listen(sh, &l); ... owner starts it ...; ms = memstream_connect(l);     or memstream_open(sh, ev, arg, &ms)
 *	memstream_put(ms, bytes, n); memstream_pump(ms); ... ms->out, ms->out_len ...; memstream_drop(ms);
 */
#ifndef TESTS_FUZZ_MEMSTREAM_H
#define TESTS_FUZZ_MEMSTREAM_H

#include "dpu/net/stream.h"

#define MEMSTREAM_IN  24576u
#define MEMSTREAM_OUT 24576u

struct memstream {
	struct stream st;
	uint8_t in[MEMSTREAM_IN];
	size_t in_at, in_len;
	bool ended; /* the test's side has ended */
	uint8_t out
		[MEMSTREAM_OUT]; /* sent and not yet taken by the test; beyond this: only counted */
	size_t out_len;
	bool hold; /* take nothing that is sent */
	bool detached;
};

int memstream_listen(struct shard *sh, struct stream_listener **out);
/* NULL: refused. */
struct memstream *memstream_connect(struct stream_listener *l);
struct memstream *memstream_open(struct shard *sh, const struct stream_events *ev, void *arg);
/* The test lets go; the stream's owner has to do so too. */
void memstream_drop(struct memstream *ms);

void memstream_put(struct memstream *ms, const void *p, size_t len);
/* Tells the owner of bytes until it takes no more, and runs the shard until it is idle. */
void memstream_pump(struct memstream *ms);
/* Forgets the first len bytes of out. */
void memstream_taken(struct memstream *ms, size_t len);
static inline bool memstream_gone(const struct memstream *ms)
{
	return ms->detached || ms->st.dead;
}

#endif
