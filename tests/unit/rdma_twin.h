/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The loopback twin of the verbs layer (struct rd_ops): a device in memory on the test's shard with a small NVMe/RDMA target at
 * its other end. The target reaches the host's memory through keys only, and the device checks each: a key that is not
 * valid, a range beyond it or the wrong direction is denied and breaks the connection, as hardware does. Whatever the host does
 * wrong by the rules of verbs (a window bound twice, memory that is not registered, buffers changed before their send has
 * completed, queues that overflow) counts as a violation.
 *
 * Nothing happens inside an op: work is done and events are told by tasks of the shard.
 * Thread: the shard's. Ownership: the twin outlives all controllers opened with it.
 *
 *	twin_open(sh, &t); t.cfg.capsule_bytes = 4096;
 *	cfg.transport = "rdma"; cfg.rdma_ops = &rd_twin; cfg.rdma_arg = &t;
 */
#ifndef TESTS_UNIT_RDMA_TWIN_H
#define TESTS_UNIT_RDMA_TWIN_H

#include "dpu/nvmf/rdma_priv.h"

#define TWIN_NQN    "nqn.2026-11.io.parapet:twin"
#define TWIN_BLOCK  512u
#define TWIN_BYTES  (4u << 20) /* of namespace 1 */
#define TWIN_CNTLID 7

/* Each happens to the next read, write or flush (or to the next connection), once. */
enum twin_fault {
	TWIN_NONE,
	/* connecting */
	TWIN_REJECT, /* with reject_sts */
	TWIN_REJECT_CM, /* nobody listens */
	TWIN_REJECT_EMPTY, /* the program says no, and nothing more */
	TWIN_ACCEPT_SHORT,
	TWIN_ACCEPT_FORMAT,
	TWIN_UNRESOLVED,
	TWIN_MUTE, /* neither accepts nor rejects */
	/* completions of the host's work requests */
	TWIN_RETRY_EXCEEDED,
	TWIN_RNR_EXCEEDED,
	TWIN_REMOTE_ACCESS,
	TWIN_BIND_ERROR,
	TWIN_INVALIDATE_ERROR, /* the target does not invalidate, and the host cannot */
	TWIN_FLUSHED,
	TWIN_POST_FAILS,
	TWIN_POLL_FAILS,
	TWIN_ARM_FAILS,
	/* the connection, after the command was taken */
	TWIN_DISCONNECT,
	TWIN_DEVICE_GONE,
	TWIN_ADDRESS_CHANGED,
	/* responses */
	TWIN_WRONG_CID,
	TWIN_TWICE,
	TWIN_STALE_CID,
	TWIN_CQE_SHORT,
	TWIN_CQE_LONG,
	TWIN_CQE_HUGE, /* more than a receive buffer holds */
	TWIN_CQE_NONE, /* zero bytes */
	TWIN_NO_INVALIDATE,
	TWIN_WRONG_INVALIDATE,
	TWIN_FLOOD, /* more responses than there are buffers */
	/* memory */
	TWIN_BEYOND, /* one byte more than it was given */
	TWIN_BEFORE, /* begins one byte too early */
	TWIN_WRONG_WAY, /* writes what it may read, reads what it may write */
	TWIN_SILENCE, /* no answer */
	TWIN_NFAULTS
};

struct twin_cfg {
	bool no_windows, windows_lie; /* the device has none; says so but has none */
	bool refuse_regions; /* registers control memory only */
	bool no_keyed; /* the controller's SGL support */
	uint32_t capsule_bytes; /* in-capsule data */
	uint16_t icdoff;
	uint32_t max_wr, max_cqe, max_sge; /* 0: plenty */
	uint16_t crqsize; /* 0: what the host asks for */
	uint16_t reject_sts;
	const void *accept,
		*reject; /* private data instead of the right one; NULL: the right one */
	size_t private_bytes;
};

struct twin {
	struct shard *sh;
	struct twin_cfg cfg;
	enum twin_fault fault;
	uint32_t fail_at; /* the how manyth request for a resource fails; 0: none */
	bool hold_sends; /* completions of the send queue wait for twin_release() */
	bool hold_responses; /* so do answers to reads, writes and flushes */
	bool slip; /* what is held completes just before a queue is armed */

	LIST_HEAD(, rd_link) links;
	LIST_HEAD(, twin_mr) mrs;
	LIST_HEAD(, twin_mw) mws;
	uint32_t npds, nmrs, nmws, nlinks, nbound;
	uint32_t next_index; /* of keys */

	/* what happened */
	uint32_t violations, denied, rnr;
	const char *violation; /* the first */
	uint32_t doorbells, binds, invalidates, sends, signaled, arms, mr_opens;
	uint32_t connects, aborts, ncommands; /* reads, writes and flushes */
	struct nvme_rdma_request last_request;
	uint16_t last_sqsize;
	struct nvme_sqe last; /* the last read, write or flush */
	struct nvme_sqe recent[8]; /* the last ones, number i (from 0) at i % 8 */

	uint8_t *mem; /* namespace 1 */
};

extern const struct rd_ops rd_twin;

int twin_open(struct shard *sh, struct twin *t);
void twin_close(struct twin *t); /* everything opened through it is gone */
/* Lets go of what is held, and holds no more. */
void twin_release(struct twin *t);
/* May the target reach this? */
bool twin_reaches(struct twin *t, uint32_t key, uint64_t addr, uint32_t len, bool write);
/* The target's end of queue qid sends this as a response; inv: invalidates key. False: there is no such queue. */
bool twin_send_raw(
	struct twin *t, uint16_t qid, const void *bytes, uint32_t len, bool inv, uint32_t key);

#endif
