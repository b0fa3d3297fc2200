/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside dpu/nvmf: the controller, its queues and slots, and what a transport is.
 *
 *   ctrl.c   the way to "ready" and back, keep-alive, asynchronous events, reconnecting
 *   queue.c  slots (one per command in flight), submission, completion, timeouts, abort
 *   tcp.c    the NVMe/TCP transport: tcp_rx.c decodes, tcp.c sends and connects
 *   rdma*.c  the NVMe/RDMA transport: see rdma_priv.h
 *   sync.c   identify, discovery and shutdown for callers that wait
 *   dev*.c   a namespace over several controllers (dev_priv.h)
 *
 * A transport moves one queue's commands. It knows slots, not controllers; everything it learns it tells by
 * nvmf_queue_up(), nvmf_slot_done() and nvmf_queue_lost(), all from the shard's loop. Lost queues are torn down by a task of the
 * controller, never under the transport's feet: a transport marks itself dead and returns.
 */
#ifndef DPU_NVMF_NVMF_PRIV_H
#define DPU_NVMF_NVMF_PRIV_H

#include "dpu/core/shard.h"
#include "dpu/nvmf/nvmf.h"

#define NVMF_ADMIN_DEPTH 32
#define NVMF_NABORTS     4

struct nvmf_slot {
	struct nvmf_io *io; /* NULL: free */
	uint64_t sent_ns, deadline_ns;
	uint32_t data_bytes;
	uint16_t cid; /* index in the low bits, generation above: a late answer fits no slot */
	bool out; /* data goes to the controller */
	bool aborted;
	SLIST_ENTRY(nvmf_slot) link;
};

struct nvmf_transport;

struct nvmf_queue {
	struct nvmf *n;
	uint16_t qid;
	uint16_t depth; /* slots that may be used */
	uint16_t nslots; /* slots that exist */
	uint16_t in_flight;
	bool opened; /* the transport has resources for it */
	bool live; /* Connect has succeeded */
	uint32_t capsule_bytes; /* most in-capsule data */
	uint32_t capsule_offset; /* where it begins behind the command */
	struct nvmf_slot *slots;
	SLIST_HEAD(, nvmf_slot) free;
	void *conn; /* the transport's */
	struct nvmf_io connect_io;
	struct nvme_connect_data connect_data;
	struct iovec connect_iov;
};

struct nvmf_transport {
	const char *name;
	uint32_t admin_capsule_bytes; /* in-capsule data every target takes on the admin queue */
	/* In-capsule data of I/O queues as Identify has it: most bytes, and where they begin behind the command. An error text where
	 * the controller lacks what the transport needs, else NULL. */
	const char *(*capsule)(const struct nvme_id_ctrl *id, uint32_t *bytes, uint32_t *offset);
	/* Memory for a queue (q->conn) of q->nslots slots; kept over reconnects. */
	int (*conn_open)(struct nvmf_queue *q);
	void (*conn_close)(struct nvmf_queue *q);
	/* Begins to connect: nvmf_queue_up() or nvmf_queue_lost() follows; or -errno and neither, with *err. */
	int (*start)(struct nvmf_queue *q, struct err *err);
	/* Drops the connection: when it returns no callback comes any more and no slot's buffer is used. Started queues only. */
	void (*stop)(struct nvmf_queue *q);
	/* Sends the command of a slot: fills sqe.dptr. nvmf_slot_done() follows, or -errno and it does not. */
	int (*submit)(struct nvmf_queue *q, struct nvmf_slot *s);
	/* Sends what submit has gathered, now; the loop does it every round anyway. Optional. */
	void (*kick)(struct nvmf_queue *q);
	/* Pieces a command may have without a copy, of a live queue. Optional: NVMF_IOV_MAX. */
	uint32_t (*max_pieces)(const struct nvmf_queue *q);
};
extern const struct nvmf_transport nvmf_tcp, nvmf_rdma;

enum nvmf_state {
	NVMF_IDLE, /* not connected and not trying */
	NVMF_WAITING, /* for the next attempt */
	NVMF_CONNECTING, /* one of the steps below is under way */
	NVMF_READY,
	NVMF_SHUTTING, /* orderly end: no new commands but ours */
};

/* On the way to ready, in this order. */
enum nvmf_step {
	NVMF_STEP_ADMIN, /* transport and Connect of the admin queue */
	NVMF_STEP_CAP,
	NVMF_STEP_VS,
	NVMF_STEP_ENABLE, /* CC.EN = 1 */
	NVMF_STEP_CSTS, /* until CSTS.RDY */
	NVMF_STEP_IDENTIFY,
	NVMF_STEP_NUM_QUEUES,
	NVMF_STEP_ASYNC_CONFIG,
	NVMF_STEP_IO_QUEUES, /* transport and Connect of all I/O queues */
	NVMF_NSTEPS
};

struct nvmf {
	struct shard *sh;
	struct nvmf_cfg cfg;
	char host[64], subnqn[NVME_NQN_FIELD], hostnqn[NVME_NQN_FIELD];
	uint8_t hostid[16];
	const struct nvmf_transport *transport;
	const struct nvmf_events *ev;
	void *arg;

	enum nvmf_state state;
	enum nvmf_step step;
	uint16_t nlive; /* I/O queues that are up, while connecting */
	struct nvmf_queue *queues; /* admin and cfg.nqueues */
	uint16_t nqueues; /* I/O queues given */
	uint16_t cntlid;
	uint64_t cap;
	uint32_t vs;
	uint32_t max_io_bytes;
	uint64_t quiet_ns; /* 0: it was never ready */
	uint64_t sync_until_ns; /* nvmf_run_until() */
	struct nvme_id_ctrl id;

	struct nvmf_io setup, keep_alive, aer;
	bool keep_alive_busy, aer_busy;
	struct iovec setup_iov;
	struct nvmf_io aborts[NVMF_NABORTS];
	uint32_t aborts_busy; /* one bit each */

	struct timer step_timer; /* of the attempt, then the keep-alive's */
	struct timer csts_timer, tick_timer, retry_timer;
	struct task lost_task;
	bool lost; /* lost_task is queued */
	int lost_err;
	struct err err;
	uint64_t lost_since_ns;
	uint64_t heard_ns; /* nvmf_heard_ns() */
	uint32_t retry_ms;
	struct nvmf_stats stats;
};

/* ---- queue.c ------------------------------------------------------------------------------------------ */
int nvmf_queue_init(struct nvmf *n, uint16_t qid, uint16_t depth);
void nvmf_queue_fini(struct nvmf_queue *q);
/* Ours, in any state in which the transport is up. */
int nvmf_queue_submit(struct nvmf_queue *q, struct nvmf_io *io);
/* Ends all commands in flight with err; the transport has been stopped. */
void nvmf_queue_drain(struct nvmf_queue *q, int err);
/* Looks for commands over their time. */
void nvmf_queue_tick(struct nvmf_queue *q);

/* For transports: */
/* IOCCSZ without the command and without ICDOFF's bytes. */
static inline uint32_t nvmf_capsule_room(const struct nvme_id_ctrl *id)
{
	uint64_t all = from_le32(id->ioccsz) * 16ULL,
		 head = sizeof(struct nvme_sqe) + from_le16(id->icdoff) * 16ULL;

	return all <= head ? 0 : all - head > UINT32_MAX ? UINT32_MAX : (uint32_t)(all - head);
}
static inline struct nvmf_slot *nvmf_slot_find(struct nvmf_queue *q, uint16_t cid)
{
	uint16_t i = cid % NVMF_DEPTH_MAX;

	return i < q->nslots && q->slots[i].io && q->slots[i].cid == cid ? &q->slots[i] : NULL;
}
static inline uint16_t nvmf_slot_index(const struct nvmf_queue *q, const struct nvmf_slot *s)
{
	return (uint16_t)(s - q->slots);
}
/* The command is over; its buffers are not used any more. */
void nvmf_slot_done(
	struct nvmf_queue *q, struct nvmf_slot *s, int err, uint16_t status, uint64_t result);

/* ---- ctrl.c: what queues and transports report ----------------------------------------------------------- */
void nvmf_queue_up(struct nvmf_queue *q);
/* The connection is lost, what says why (a text of any life). May be called anywhere; acts from a task. */
void nvmf_queue_lost(struct nvmf_queue *q, int err, const char *what);
void nvmf_lost(struct nvmf *n, int err, const char *what);
/* A controller's timeout of commands, from now on. */
void nvmf_set_io_timeout(struct nvmf *n, uint32_t ms);
/* What Identify says of a namespace; -ENODEV: not there, or in a format we do not take. */
int nvmf_take_ns(const struct nvme_id_ns *id, struct nvmf_ns *out);
/* What a reservation report says to this host. */
void nvmf_take_resv(
	const struct nvmf *n, const struct nvme_resv_report *r, struct nvmf_resv_status *out);
/* The one place that changes n->state. */
void nvmf_set_state(struct nvmf *n, enum nvmf_state state);

#endif
