/* SPDX-License-Identifier: BSD-3-Clause */
/* Between the twin's device (rdma_twin.c) and its target (rdma_twin_target.c). Thread: the shard's. */
#ifndef TESTS_UNIT_RDMA_TWIN_PRIV_H
#define TESTS_UNIT_RDMA_TWIN_PRIV_H

#include "tests/unit/rdma_twin.h"

/* A request in the send queue, and after that one whose completion is due. */
struct twin_wr {
	struct rd_wr wr;
	struct rd_sge sge[RDMA_SGE_MAX];
	uint8_t *copy; /* what a send has taken */
	uint32_t copy_bytes;
	STAILQ_ENTRY(twin_wr) link;
};
STAILQ_HEAD(twin_wrs, twin_wr);

struct twin_msg { /* a response on its way */
	uint8_t bytes[2 * RDMA_CQE_STRIDE];
	uint32_t len, key;
	bool inv;
	STAILQ_ENTRY(twin_msg) link;
};
STAILQ_HEAD(twin_msgs, twin_msg);

struct rd_link {
	struct twin *t;
	const struct rd_events *ev;
	void *arg;
	struct rd_pd *pd;
	struct rd_qp_cfg qp;
	enum { L_OPEN, L_CONNECTING, L_UP, L_BROKEN } state;
	struct task event_task, work_task, wake_task;
	enum twin_fault fault; /* that its event is about */
	uint16_t qid;
	bool armed;

	struct twin_wrs sq, due; /* posted; executed, not reported */
	uint32_t nsq, ndue;
	struct rd_recv *rq; /* ring */
	uint32_t rq_head, nrq;
	struct rd_wc *cq;
	uint32_t cq_head, ncq;
	struct twin_msgs out, held; /* waiting for a receive buffer; for twin_release() */
	LIST_ENTRY(rd_link) link;
};

/* ---- rdma_twin.c: what the device does for the target ---- */
void twin_violate(struct twin *t, const char *what);
/* Memory of the host under a key; NULL: denied. l NULL: by any connection. */
uint8_t *twin_reach(
	struct twin *t, struct rd_link *l, uint32_t key, uint64_t addr, uint32_t len, bool write);
/* The error state of the queue pair: all that was posted comes back flushed. */
void twin_break(struct rd_link *l);
/* The same for an access that was denied. */
void twin_deny(struct rd_link *l);
/* A key of another command of this connection, or key. */
uint32_t twin_other_key(struct rd_link *l, uint32_t key);
void twin_respond(
	struct rd_link *l, const void *bytes, uint32_t len, bool inv, uint32_t key, bool hold);

/* ---- rdma_twin_target.c ---- */
void twin_take_command(struct rd_link *l, const uint8_t *capsule, uint32_t bytes);

#endif
