/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A bed for tests of namespaces on peers (dpu/nvmf/dev.h): one namespace behind up to two scripted targets on real sockets, a device or two that use it, and
 * requests that say when they end. Cmocka's setup and teardown of each test.
 */
#ifndef TESTS_UNIT_NVMF_DEVBED_H
#define TESTS_UNIT_NVMF_DEVBED_H

#include "dpu/nvmf/dev.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "tests/unit/nvmf_peer.h"

#define WAIT_NS 20000000000ULL /* never reached unless something hangs */
#define KATO_MS 200u
#define MS      1000000ULL
#define LEN     (8 * PEER_BLOCK)
#define NIOS    16

struct req {
	struct nvmf_dev_io io;
	struct iovec iov;
	uint8_t buf[LEN];
	int done;
	uint64_t ended_ns;
};

static struct shard *sh;
static struct peer_ns *ns;
static struct peer *peers[2];
static struct nvmf_dev *d, *other;
static struct req reqs[NIOS];
static unsigned int nreqs, nfenced, nresized;
/* Of the next device that is opened: */
static uint32_t restart_min_ms;
static const uint8_t *hostid; /* NULL: a host of its own */
static int only_peer; /* -1: over all there are */
static const uint8_t host[16] = {7, 7};

static inline void on_fenced(struct nvmf_dev *dev, void *arg)
{
	nfenced++;
}

static inline void on_resized(struct nvmf_dev *dev, void *arg)
{
	nresized++;
}

static const struct nvmf_dev_events events = {.fenced_fn = on_fenced, .resized_fn = on_resized};

static inline int setup(void **state)
{
	nreqs = nfenced = nresized = 0;
	restart_min_ms = 1;
	hostid = NULL;
	only_peer = -1;
	d = other = NULL;
	peers[0] = peers[1] = NULL;
	memset(reqs, 0, sizeof(reqs));
	if (peer_ns_open(&ns) < 0)
		return -1;
	return shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 1}, &sh);
}

static inline int teardown(void **state)
{
	nvmf_dev_close(d);
	nvmf_dev_close(other);
	for (int i = 0; i < 2; i++)
		if (peers[i])
			peer_close(peers[i]);
	peer_ns_put(ns);
	shard_close(sh);
	return 0;
}

static inline struct peer *peer_add(int i, struct peer_cfg cfg)
{
	cfg.ns = ns;
	assert_int_equal(peer_open(sh, &cfg, &peers[i]), 0);
	return peers[i];
}

static inline struct nvmf_dev *dev_begin(uint32_t timeout_ms)
{
	struct nvmf_dev_cfg cfg = {.ctrl = {.subnqn = PEER_NQN,
					   .hostid = hostid,
					   .keep_alive_ms = KATO_MS,
					   .depth = 32,
					   .reconnect_min_ms = 20,
					   .reconnect_max_ms = 50},
		.nsid = 1,
		.io_timeout_ms = timeout_ms,
		.restart_min_ms = restart_min_ms};
	struct nvmf_dev *dev;
	struct err err = {0};

	for (int i = 0; i < 2 && peers[i]; i++) {
		if (only_peer >= 0 && i != only_peer)
			continue;
		snprintf(cfg.paths[cfg.npaths].host, sizeof(cfg.paths[0].host), "127.0.0.1");
		cfg.paths[cfg.npaths++].port = peers[i]->port;
	}
	if (nvmf_dev_open(sh, &cfg, &events, NULL, &dev, &err) < 0)
		fail_msg("%s", err_text(&err));
	return dev;
}

static inline bool is_up(const struct nvmf_dev *dev, unsigned int path)
{
	struct nvmf_path_status st;

	nvmf_dev_path(dev, path, &st);
	return st.state == NVMF_PATH_OPTIMIZED || st.state == NVMF_PATH_NON_OPTIMIZED;
}

static inline bool all_up(void *arg)
{
	const struct nvmf_dev *dev = arg;

	for (unsigned int i = 0; i < nvmf_dev_npaths(dev); i++)
		if (!is_up(dev, i))
			return false;
	return true;
}

static inline struct nvmf_dev *dev_open(uint32_t timeout_ms)
{
	struct nvmf_dev *dev = dev_begin(timeout_ms);

	assert_int_equal(shard_wait(sh, all_up, dev, WAIT_NS), 0);
	return dev;
}

static inline void ended(struct nvmf_dev_io *io)
{
	struct req *r = io->arg;

	r->done++;
	r->ended_ns = shard_now_ns(sh);
}

static inline struct req *req_new(enum nvmf_dev_op op, uint64_t lba, uint8_t value)
{
	struct req *r = &reqs[nreqs++];

	assert_true(nreqs <= NIOS);
	memset(r->buf, value, LEN);
	r->iov = (struct iovec){r->buf, LEN};
	r->io = (struct nvmf_dev_io){.op = op, .lba = lba, .done_fn = ended, .arg = r};
	if (op != NVMF_DEV_FLUSH)
		r->io.nblocks = LEN / PEER_BLOCK;
	if (op == NVMF_DEV_READ || op == NVMF_DEV_WRITE) {
		r->io.iov = &r->iov;
		r->io.niov = 1;
	}
	return r;
}

static inline struct req *submit_to(
	struct nvmf_dev *dev, enum nvmf_dev_op op, uint64_t lba, uint8_t value, bool repeatable)
{
	struct req *r = req_new(op, lba, value);

	r->io.repeatable = repeatable;
	assert_int_equal(nvmf_dev_submit(dev, &r->io), 0);
	nvmf_dev_kick(dev);
	return r;
}

static inline struct req *submit(enum nvmf_dev_op op, uint64_t lba, uint8_t value)
{
	return submit_to(d, op, lba, value, false);
}

static inline bool is_done(void *arg)
{
	return ((struct req *)arg)->done;
}

static inline enum nvmf_dev_result wait_for(struct req *r)
{
	assert_int_equal(shard_wait(sh, is_done, r, WAIT_NS), 0);
	assert_int_equal(r->done, 1);
	return r->io.result;
}

static inline enum nvmf_dev_result run(enum nvmf_dev_op op, uint64_t lba, uint8_t value)
{
	return wait_for(submit(op, lba, value));
}

static inline bool never(void *arg)
{
	return false;
}

static inline void run_for(uint64_t ms)
{
	assert_int_equal(shard_wait(sh, never, NULL, ms * MS), -ETIMEDOUT);
}

static inline bool is_held(void *arg)
{
	return peers[0]->nheld > 0;
}

static inline void wait_held(void)
{
	assert_int_equal(shard_wait(sh, is_held, NULL, WAIT_NS), 0);
}

static inline bool first_is_down(void *arg)
{
	return !is_up(d, 0);
}

/* The first path loses its connections, and we have noticed. */
static inline void lose_first(void)
{
	peer_drop_connections(peers[0]);
	assert_int_equal(shard_wait(sh, first_is_down, NULL, WAIT_NS), 0);
}

static inline bool holds(uint64_t lba, uint8_t value)
{
	for (uint32_t i = 0; i < LEN; i++)
		if (ns->mem[lba * PEER_BLOCK + i] != value)
			return false;
	return true;
}

static inline struct nvmf_stats stats_of(unsigned int path)
{
	struct nvmf_path_status st;

	nvmf_dev_path(d, path, &st);
	return st.stats;
}

/* Out for ms at least; back, and usable. */
static inline void away_for(uint64_t ms)
{
	peer_down(peers[0]);
	assert_int_equal(shard_wait(sh, first_is_down, NULL, WAIT_NS), 0);
	run_for(ms);
	assert_int_equal(peer_up(peers[0]), 0);
	assert_int_equal(shard_wait(sh, all_up, d, WAIT_NS), 0);
}

#endif
