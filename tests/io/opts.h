/* SPDX-License-Identifier: BSD-3-Clause */
/* The command line of parapet-io. Thread: main. */
#ifndef TESTS_IO_OPTS_H
#define TESTS_IO_OPTS_H

#include <stdbool.h>
#include <stdint.h>

enum io_exit { EXIT_OK = 0, EXIT_USAGE = 1, EXIT_CONNECT = 2, EXIT_IO = 3, EXIT_MISMATCH = 4 };

enum io_command {
	CMD_WRITE,
	CMD_READ,
	CMD_VERIFY,
	CMD_FLUSH,
	CMD_TRIM,
	CMD_ZERO,
	CMD_IDENTIFY,
	CMD_DISCOVER,
	CMD_NONE
};

struct opts {
	enum io_command command;
	const char *command_name;
	char host[64]; /* numeric */
	uint16_t port;
	const char *transport; /* "tcp", "rdma" */
	const char *nqn, *hostnqn;
	uint32_t nsid; /* 0: the first there is */
	uint64_t bs; /* 0: mixed */
	uint64_t size; /* 0: to the end */
	uint64_t offset;
	uint64_t seed;
	uint64_t count; /* 0: each piece once */
	uint64_t gen_min, gen_max;
	uint32_t depth, queues;
	uint32_t time_limit_s, reconnect_s, reconnect_max_ms, io_timeout_s, keep_alive_ms;
	bool random, fua, hdgst, ddgst, json, verify, flush, zeros, no_sqflow, mix;
	int expect_status; /* -1: success */
};

/* 0; 1: help was asked for and shown; -EINVAL after a message on stderr. */
int opts_parse(int argc, char **argv, struct opts *o);

#endif
