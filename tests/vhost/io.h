/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost-io: what its parts share. Thread: one. */
#ifndef TESTS_VHOST_IO_H
#define TESTS_VHOST_IO_H

#include "tests/vhost/vu.h"

#include <sys/types.h>

struct io_opts {
	const char *command, *kind;
	struct vu_cfg vu;
	uint64_t offset, size, count, seed, warm;
	pid_t cpu_of; /* whose CPU time is told of; 0: nobody's */
	uint32_t block, depth, segments;
	unsigned int seconds, reconnect_s;
	bool random, irq, plain, json, zero, spread;
};

struct io_result {
	uint64_t requests, bytes, errors, reconnects, wrong, kicks, resumed_wait_ms, cpu_ns;
	double seconds;
	char note[256];
};

void io_nap_us(uint32_t us);
/* One request and its answer: the status byte, or -ETIMEDOUT. Slot 0 of queue 0; data may be NULL. */
int io_one(struct vu *v, uint32_t type, uint64_t sector, void *data, uint32_t len, bool to_device);

/* load.c: write, read, verify, bench-write, bench-read. 0 or -errno. */
int io_load(struct vu *v, const struct io_opts *o, struct io_result *r);
/* bad.c: breaks a rule of virtio and looks what becomes of it. 0: as it should be. */
int io_bad(struct vu *v, const struct io_opts *o, struct io_result *r);
/* Requests, and in their middle the file of the memory or of the inflight area gets empty. 0: the card is there and has let go of the disk. */
int io_truncate(struct vu *v, const struct io_opts *o, struct io_result *r);

#endif
