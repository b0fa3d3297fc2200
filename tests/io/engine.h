/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Keeps queues full of one kind of command over the pieces of a run. With reconnect_s it outlives its target: commands in
 * flight at a loss are sent again with the same data, after the pieces acknowledged last have been read back and
 * checked. Thread: main (a shard of its own).
 *
 *	engine_open(&opts, &report, &e, &err);       connects, looks at the namespace, cuts the pieces
 *	engine_run(e, CMD_WRITE);                    EXIT_*
 *	engine_close(e);
 */
#ifndef TESTS_IO_ENGINE_H
#define TESTS_IO_ENGINE_H

#include "common/base/err.h"
#include "dpu/nvmf/nvmf.h"
#include "tests/io/opts.h"
#include "tests/io/report.h"

struct engine;

/* EXIT_OK, EXIT_CONNECT, EXIT_USAGE (range, block size, with *err). What it got so far is in *out also on error. */
enum io_exit engine_open(
	const struct opts *o, struct report *r, struct engine **out, struct err *err);
void engine_close(struct engine *e);
struct nvmf *engine_nvmf(struct engine *e);

/* CMD_WRITE, CMD_READ, CMD_VERIFY, CMD_TRIM, CMD_ZERO over the pieces; CMD_FLUSH once (or --count times). */
enum io_exit engine_run(struct engine *e, enum io_command command);
/* One Flush after a run. */
enum io_exit engine_flush(struct engine *e);
/* Reads back what engine_run(CMD_WRITE) has had acknowledged. */
enum io_exit engine_check_written(struct engine *e);

#endif
