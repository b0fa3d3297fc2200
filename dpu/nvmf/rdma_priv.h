/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe/RDMA under the initiator: one queue pair per queue.
 *
 *   rdma.c        connecting and its end
 *   rdma_io.c     capsules, the chain of work requests behind one doorbell, completions
 *   rdma_mem.c    devices and their registered regions, where a command's data lies, bounce buffers
 *   rdma_verbs.c  the provider on librdmacm and libibverbs
 *
 * The seam is struct rd_ops: what the first three need of a verbs layer. Names of the seam begin with rd_, as librdmacm has
 * taken rdma_. A link is one connection (cm id, queue pair, completion queue), all on one shard.
 *
 * What a peer may reach: with memory windows the range of each command in flight, for reading or for writing, until the command
 * ends; without them (a device that has no type 2B windows) whole regions, as long as the queue is connected.
 *
 * A slot ends when its response is here and all its work requests have completed: bind, send, and the invalidation of its
 * window where the target did not do it. Only the last request of a chain is signalled: as a send queue completes in order,
 * its completion is that of all before it.
 */
#ifndef DPU_NVMF_RDMA_PRIV_H
#define DPU_NVMF_RDMA_PRIV_H

#include "common/nvme/rdma.h"
#include "dpu/core/mem.h"
#include "dpu/nvmf/nvmf_priv.h"

/* ---- the seam --------------------------------------------------------------------------------------------- */

struct rd_link; /* the provider's, as the things below are */
struct rd_pd;
struct rd_mr {
	uint32_t lkey, rkey;
};
struct rd_mw {
	uint32_t rkey; /* as last bound: the next one differs in its lowest 8 bits */
};

enum rd_access {
	RD_LOCAL, /* the device alone */
	RD_WINDOWS, /* the peer through windows bound to it */
	RD_REMOTE, /* the peer, reading and writing */
};

struct rd_caps {
	uint32_t max_wr; /* of a send or receive queue */
	uint32_t max_cqe;
	uint32_t max_sge; /* of a send */
	bool windows; /* type 2B */
};

struct rd_sge {
	uint64_t addr;
	uint32_t len;
	uint32_t lkey;
};

enum rd_op { RD_SEND, RD_BIND, RD_INVALIDATE };

struct rd_wr {
	uint64_t id;
	enum rd_op op;
	bool signaled; /* an error completes in any case */
	union {
		struct {
			struct rd_sge *sge;
			int nsge;
		} send;
		struct {
			struct rd_mw *mw;
			struct rd_mr *mr;
			uint64_t addr;
			uint32_t len;
			uint32_t rkey; /* the new key */
			bool write; /* the peer writes; else it reads */
		} bind;
		uint32_t invalidate; /* key */
	};
};

struct rd_recv {
	uint64_t id;
	struct rd_sge sge;
};

struct rd_wc {
	uint64_t id;
	const char *error; /* NULL: success. Else only id and flushed count. */
	bool flushed; /* failed for an earlier error, or a disconnect */
	uint32_t byte_len; /* of a receive */
	bool with_inv; /* of a receive: the peer has invalidated inv_rkey */
	uint32_t inv_rkey;
};

/* All from the shard's loop, never from inside an op, and none after close. */
struct rd_events {
	void (*resolved_fn)(void *arg); /* the device is known */
	void (*established_fn)(void *arg, const void *data, size_t len);
	/* what: why, or NULL: the target's program said no with data. */
	void (*rejected_fn)(void *arg, const char *what, const void *data, size_t len);
	void (*down_fn)(void *arg, int err, const char *what);
	void (*wake_fn)(void *arg); /* completions after arm() */
};

struct rd_link_cfg {
	struct shard *sh;
	const char *host; /* numeric */
	uint16_t port;
	uint32_t timeout_ms; /* of resolving */
	const struct rd_events *ev;
	void *arg;
	void *provider_arg;
};

struct rd_qp_cfg {
	uint32_t nsend, nrecv, nsge, ncqe;
};

/* In the order of their use. 0 or -errno. */
struct rd_ops {
	const char *name;
	/* Begins to resolve: resolved_fn or down_fn follows. */
	int (*open)(const struct rd_link_cfg *cfg, struct rd_link **out, struct err *err);
	void (*caps)(const struct rd_link *l, struct rd_caps *out);
	const void *(*device)(const struct rd_link *l); /* the same for all links on a device */
	int (*pd_open)(struct rd_link *l, struct rd_pd **out);
	int (*mr_open)(
		struct rd_pd *pd, void *p, size_t len, enum rd_access access, struct rd_mr **out);
	int (*mw_open)(struct rd_pd *pd, struct rd_mw **out);
	int (*qp_open)(struct rd_link *l, struct rd_pd *pd, const struct rd_qp_cfg *cfg);
	/* established_fn, rejected_fn or down_fn follows. */
	int (*connect)(struct rd_link *l, const void *data, size_t len);

	int (*post_recv)(struct rd_link *l, const struct rd_recv *r, int n);
	int (*post_send)(struct rd_link *l, const struct rd_wr *wr, int n); /* one doorbell */
	int (*poll)(struct rd_link *l, struct rd_wc *wc, int max); /* how many */
	int (*arm)(
		struct rd_link *l); /* wake_fn with the next completion; poll once more after it */

	/* The peer reaches nothing any more, and work requests come to nothing. Windows can go now: some devices do not let go of a
	 * queue pair with windows. Then close, after which the device touches none of the link's memory. */
	void (*disconnect)(struct rd_link *l);
	void (*close)(struct rd_link *l);
	void (*mw_close)(struct rd_mw *mw);
	void (*mr_close)(struct rd_mr *mr);
	void (*pd_close)(struct rd_pd *pd);
};
extern const struct rd_ops rd_verbs;

/* ---- rdma_mem.c ----------------------------------------------------------------------------------------------- */

#define RDMA_SGE_MAX 16 /* command, padding and pieces of in-capsule data */

/* A device as one shard uses it: one protection domain, each region registered in it once, whole, with its first use. That pins
 * its pages, which takes a while once, and counts against the limit of locked memory, for every shard. */
struct rdma_dev;

int rdma_dev_get(const struct rd_ops *ops, struct rd_link *l, struct shard *sh,
	struct rdma_dev **out, struct err *err);
void rdma_dev_put(struct rdma_dev *d);
struct rd_pd *rdma_dev_pd(const struct rdma_dev *d);
bool rdma_dev_windows(const struct rdma_dev *d);
/* Lets go of memory that has been freed; costs a load when nothing has changed. */
void rdma_dev_sync(struct rdma_dev *d);
/* The registration that covers all of it, or NULL: it is not memory of mem_alloc(), or the device refused it. */
struct rd_mr *rdma_dev_mr(struct rdma_dev *d, const void *p, size_t len);

/* Lies beside the nvmf_slot of the same index. */
struct rdma_slot {
	struct rd_mw *mw; /* NULL: keys of regions */
	bool bound; /* the window gives access */
	bool bounced; /* the data is in bounce */
	bool answered;
	uint16_t status;
	uint64_t result;
	uint64_t last_wr; /* the last work request of this command */
	uint8_t *bounce;
	uint32_t bounce_bytes;
	struct rd_sge sge[RDMA_SGE_MAX];
	TAILQ_ENTRY(rdma_slot) link; /* of waiting */
};

struct rdma_range {
	uint8_t *base;
	struct rd_mr *mr;
};

struct rdma_conn {
	struct nvmf_queue *q;
	const struct rd_ops *ops;
	struct rd_link *link; /* NULL: not started */
	struct rdma_dev *dev;
	struct rd_mr *ctl_mr;
	bool up; /* established */
	bool dead; /* reported as lost: nothing is believed or sent any more */
	bool armed;
	uint16_t nslots; /* with this device: q->nslots at most */
	uint32_t max_sge;
	uint32_t idle_polls;
	struct poller poller;
	struct task kick_task;

	struct rd_wr *chain; /* gathered, not posted yet */
	uint32_t nchain;
	uint64_t queued, posted, reaped; /* work requests of the send queue, counted from 1 */
	TAILQ_HEAD(, rdma_slot) waiting; /* answered */

	/* One block: nslots capsules, padding between a command and its data, nslots + 1 responses. */
	uint8_t *ctl;
	size_t ctl_bytes;
	struct rd_recv *recvs; /* to be posted again */
	uint32_t nrecvs;

	struct rdma_slot slots[];
};

#define RDMA_CAPSULE_STRIDE 64
#define RDMA_CQE_STRIDE     64 /* so that a response of a wrong size is seen as one */
#define RDMA_PAD_MAX        4096 /* ICDOFF's bytes */
#define RDMA_WRS_PER_SLOT   3 /* bind, send, invalidate */

static inline struct rdma_slot *rdma_slot_of(struct rdma_conn *c, const struct nvmf_slot *s)
{
	return &c->slots[nvmf_slot_index(c->q, s)];
}
static inline uint8_t *rdma_capsule(struct rdma_conn *c, uint32_t i)
{
	return c->ctl + (size_t)i * RDMA_CAPSULE_STRIDE;
}
static inline uint8_t *rdma_pad(struct rdma_conn *c)
{
	return rdma_capsule(c, c->q->nslots);
}
static inline uint8_t *rdma_cqe(struct rdma_conn *c, uint32_t i)
{
	return rdma_pad(c) + RDMA_PAD_MAX + (size_t)i * RDMA_CQE_STRIDE;
}

/* The command's data as one range of registered memory, its own or the slot's bounce buffer. 0 or -ENOMEM. */
int rdma_data_range(struct rdma_conn *c, struct nvmf_slot *s, struct rdma_range *out);
/* The same as at most max pieces; returns how many. */
int rdma_data_pieces(struct rdma_conn *c, struct nvmf_slot *s, struct rd_sge *sge, int max);
/* Brings data that was read into the bounce buffer to where the command wants it. */
void rdma_data_scatter(struct rdma_conn *c, struct nvmf_slot *s);

/* ---- rdma_io.c ------------------------------------------------------------------------------------------------- */
int rdma_submit(struct nvmf_queue *q, struct nvmf_slot *s);
void rdma_kick(struct nvmf_queue *q);
/* Posts the responses' buffers 0..n-1, once the queue pair is there. */
int rdma_recvs_post_all(struct rdma_conn *c, uint32_t n);
/* There is or will be work: poll. */
void rdma_poll_start(struct rdma_conn *c);
/* The connection is lost. */
void rdma_fault(struct rdma_conn *c, int err, const char *what);

#endif
