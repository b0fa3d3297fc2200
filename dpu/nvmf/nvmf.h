/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe over Fabrics initiator: one controller connection with its admin queue and I/O queues. What flash back ends
 * on peers and parapet-io speak through. Transports stand behind an ops table (nvmf_priv.h): TCP over kernel sockets,
 * RDMA on libibverbs.
 *
 * Connecting is asynchronous and drives itself: transport, Connect, properties, Identify, number of queues, I/O queues;
 * then ready_fn. A connection that is lost ends every command in flight with io->err (-ECONNRESET, -ETIMEDOUT, ...)
 * and calls lost_fn; whether it is tried again and for how long is the caller's setting, and what becomes of
 * the commands is the caller's business: nothing is ever sent twice by itself.
 *
 * Submission: nvmf_submit() returns 0 and io->done_fn(io) runs exactly once, later, from the shard's loop or from
 * nvmf_close(); or it returns -errno and done_fn never runs. Until then io, its iovecs and its buffers are the
 * caller's but unchanged. Nothing a target sends can do more than end the connection. What submit gathers in a round of the
 * loop leaves together: one doorbell (RDMA) or one send (TCP) per queue; nvmf_kick() rings it at once.
 *
 * A command that outlives its timeout is aborted (Abort command); one that does not end within a second timeout
 * costs the connection. A write whose connection was lost may still be executed by the target later.
 *
 * Thread: a controller and everything of it belong to one shard; different ones may be opened, used and closed by different threads at once. What is static
 * is under locks that no command takes: RDMA devices find their shard's protection domain (rdma_mem.c), claims their host's (dev_claim.c).
 * Ownership: nvmf_open() gives, nvmf_close() takes back; not from a callback of the same controller.
 * Errors: 0 or -errno; why a connection was lost is text in nvmf_error().
 *
 *	struct nvmf_cfg cfg = {.transport = "tcp", .host = "10.0.0.2", .port = 4420, .subnqn = nqn, .nqueues = 2};
 *	nvmf_open(sh, &cfg, &events, me, &n, &err);              then ready_fn, or straight down nvmf_wait_ready(n, ms)
 *	nvmf_io_rw(&io, NVME_CMD_WRITE, nsid, lba, nblocks, NVME_RW_FUA);
 *	io.iov = iov; io.niov = 1; io.done_fn = written;
 *	rc = nvmf_submit(nvmf_queue(n, 1), &io);                 then written(&io): nvmf_io_result(&io)
 */
#ifndef DPU_NVMF_NVMF_H
#define DPU_NVMF_NVMF_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/base/err.h"
#include "common/nvme/identify.h"
#include "common/nvme/resv.h"

struct nvmf;
struct nvmf_queue;
struct rd_ops;
struct shard;
struct stream;
struct stream_events;

#define NVMF_IOV_MAX    64 /* pieces of one command's data */
#define NVMF_QUEUES_MAX 64
#define NVMF_DEPTH_MAX  1024

struct nvmf_cfg {
	const char *transport; /* "tcp", "rdma"; NULL: tcp */
	const char *host; /* numeric address */
	uint16_t port; /* 0: 4420 */
	const char *subnqn;
	const char *hostnqn; /* NULL: made of hostid */
	const uint8_t *hostid; /* 16 bytes; NULL: made of hostnqn, or random */
	uint16_t nqueues; /* I/O queues wanted, fewer may be given; 0: none (discovery) */
	uint16_t depth; /* commands in flight per I/O queue; 0: 128 */
	bool hdgst, ddgst; /* ask for digests; a target that refuses them is not used */
	bool no_sqflow; /* ask for no SQ flow control (fewer PDUs) */
	bool zero_copy; /* tcp: large sends without a copy, where the kernel has it */
	uint32_t keep_alive_ms; /* 0: none */
	uint32_t connect_timeout_ms; /* of one attempt; 0: 10000 */
	uint32_t io_timeout_ms; /* 0: 30000 */
	/* After a loss, or a first attempt that failed: wait reconnect_min_ms, twice as long each time up to reconnect_max_ms, and
	 * give up reconnect_for_ms after the loss (0: never). reconnect_min_ms 0: do not try. */
	uint32_t reconnect_min_ms, reconnect_max_ms, reconnect_for_ms;
	/* How the byte stream of a queue comes to be; NULL: a kernel socket to host and port. As sockets_connect(). */
	int (*connect_fn)(void *arg, const struct stream_events *ev, void *ev_arg,
		struct stream **out, struct err *err);
	void *connect_arg;
	/* The verbs layer (rdma_priv.h) and what it is opened with; NULL: libibverbs. */
	const struct rd_ops *rdma_ops;
	void *rdma_arg;
};

struct nvmf_events {
	void (*ready_fn)(struct nvmf *n, void *arg); /* optional */
	/* Not connected any more, or an attempt failed. retrying false: it stays so. Optional. */
	void (*lost_fn)(struct nvmf *n, void *arg, int err, bool retrying);
	/* An asynchronous event: result of the AER completion (NVME_AER_*). Optional. */
	void (*async_fn)(struct nvmf *n, void *arg, uint32_t result);
};

struct nvmf_stats {
	uint64_t commands, rx_bytes, tx_bytes, timeouts, aborts, losses, data_digest_errors,
		protocol_errors;
	uint64_t kicks; /* sends (TCP) or doorbells of send queues (RDMA) */
	/* Payload is the data of I/O queues' commands, Connect's apart. Copied on its way (RDMA: memory that is not registered, pieces
	 * that lie apart; TCP: the kernel's business, 0); or moved out of and into its own memory (RDMA: all other; TCP: sent so, with
	 * zero_copy). */
	uint64_t copied_bytes;
	uint64_t zero_copy_bytes;
	/* RDMA only */
	uint64_t posts, completions; /* work requests posted, work completions reaped */
	uint64_t inline_bytes; /* payload inside capsules */
	uint64_t binds, remote_invalidates; /* memory windows */
	uint64_t region_keys; /* commands with a whole region's key: a device without windows */
};

/* ---- a controller --------------------------------------------------------------------------------- */
int nvmf_open(struct shard *sh, const struct nvmf_cfg *cfg, const struct nvmf_events *ev, void *arg,
	struct nvmf **out, struct err *err);
/* Commands in flight end with -ECANCELED before it returns. NULL is allowed. */
void nvmf_close(struct nvmf *n);

bool nvmf_is_ready(const struct nvmf *n);
const struct err *nvmf_error(const struct nvmf *n); /* of the last loss or failed attempt */
const struct nvmf_stats *nvmf_stats(const struct nvmf *n);
/* When, at the latest so far, a command was sent that the target has answered, whatever it said: it was there then, or later. (An answer may have
 * lain in a buffer for long before it was read; nothing is concluded from that time.) Survives reconnects, of which the commands count, too; 0: never. */
uint64_t nvmf_heard_ns(const struct nvmf *n);

/* While ready: */
const struct nvme_id_ctrl *nvmf_id(const struct nvmf *n);
uint16_t nvmf_nqueues(const struct nvmf *n); /* I/O queues given */
uint16_t nvmf_depth(const struct nvmf *n); /* of an I/O queue */
uint32_t nvmf_max_io_bytes(const struct nvmf *n); /* most data of one command */
/* Pieces of memory (not adjacent) a command may have without a copy being made: NVMF_IOV_MAX on TCP, few on RDMA. More, up to
 * NVMF_IOV_MAX, work and are gathered. */
uint32_t nvmf_max_pieces(const struct nvmf *n);
/* How long after the loss of a connection its commands may still be carried out by the target: twice the keep-alive timeout, and
 * the command quiesce time it reports. Known after the first time it was ready; before that nothing was sent. */
uint64_t nvmf_quiet_after_loss_ns(const struct nvmf *n);
struct nvmf_queue *nvmf_queue(
	struct nvmf *n, uint16_t qid); /* 0: admin, then 1..nqueues; or NULL */

/* ---- commands -------------------------------------------------------------------------------------- */
struct nvmf_io {
	struct nvme_sqe sqe; /* set by nvmf_io_*(); command id and SGL are filled in by submit */
	const struct iovec *iov; /* data; how much the command moves is the sum */
	int niov;
	uint32_t timeout_ms; /* 0: the controller's */
	void (*done_fn)(struct nvmf_io *io);
	void *arg;
	/* when done */
	int err; /* 0: status holds the target's answer; -errno: there was none */
	uint16_t status; /* enum nvme_status, NVME_SC_DNR */
	uint64_t result;
	/* while in flight */
	struct nvmf_queue *queue;
	uint16_t cid;
	union { /* data of nvmf_io_trim() and nvmf_io_resv_*() */
		struct nvme_dsm_range range;
		struct nvme_resv_register resv_register;
		struct nvme_resv_acquire resv_acquire;
		struct nvme_resv_release resv_release;
	};
	struct iovec own_iov;
};

/* Read, write, compare, write zeroes: nblocks 1..65536; flags NVME_RW_FUA, NVME_RW_DEAC. Data in iov, but for write zeroes. */
void nvmf_io_rw(struct nvmf_io *io, uint8_t opcode, uint32_t nsid, uint64_t lba, uint32_t nblocks,
	uint32_t flags);
void nvmf_io_flush(struct nvmf_io *io, uint32_t nsid);
/* Deallocates one range (dataset management); uses io's iov. */
void nvmf_io_trim(struct nvmf_io *io, uint32_t nsid, uint64_t lba, uint32_t nblocks);

/* Reservations; all use io's iov. Register: old_key is not looked at when a host registers for the first time, new_key not when it
 * unregisters; ptpl: registrations and reservation shall survive a loss of power (otherwise left as it is). Acquire: preempt_key is
 * the key of whom it is taken from. Keys are not 0. */
void nvmf_io_resv_register(struct nvmf_io *io, uint32_t nsid, uint64_t old_key, uint64_t new_key,
	enum nvme_resv_rega action, bool ptpl);
void nvmf_io_resv_acquire(struct nvmf_io *io, uint32_t nsid, uint64_t key, uint64_t preempt_key,
	enum nvme_resv_acqa action, enum nvme_resv_type type);
void nvmf_io_resv_release(struct nvmf_io *io, uint32_t nsid, uint64_t key,
	enum nvme_resv_rela action, enum nvme_resv_type type);

/* -ENOTCONN (not ready), -EAGAIN (queue full), -EINVAL (more pieces or bytes than allowed, data where the command has none). */
int nvmf_submit(struct nvmf_queue *q, struct nvmf_io *io);
/* Sends what has been submitted, now. TCP: nothing to do; it leaves with the shard's next task, and a send from here could end commands inside
 * the caller. */
void nvmf_kick(struct nvmf_queue *q);
/* Asks the target to abort a command in flight, which ends by itself then, in one way or the other. -EBUSY: too many
 * aborts in flight; -ENOTCONN; -EALREADY. */
int nvmf_abort(struct nvmf_io *io);
uint16_t nvmf_in_flight(const struct nvmf_queue *q);

/* 0; the -errno there was; or -EIO for a status other than success. */
int nvmf_io_result(const struct nvmf_io *io);

/* ---- straight down, through shard_wait(), for control work and tools --------------------------------- */
int nvmf_wait_ready(struct nvmf *n, uint32_t timeout_ms); /* 0, -errno of the loss, -ETIMEDOUT */
/* Submits and waits. -errno of submit or of nvmf_io_result(). */
int nvmf_run(struct nvmf_queue *q, struct nvmf_io *io);
/* What waits for commands from here on ends with -ETIMEDOUT by then (shard_now_ns()), however many they are; 0: never. */
void nvmf_run_until(struct nvmf *n, uint64_t until_ns);
/* Orderly shutdown of the controller (CC.SHN), so that nothing is in flight on its side. nvmf_close() follows. */
int nvmf_shutdown(struct nvmf *n);

struct nvmf_ns {
	uint32_t nsid;
	uint32_t block_bytes;
	uint64_t nblocks;
	uint8_t nguid[16];
	bool thin, reads_zeros_after_trim;
};
/* -ENODEV: no such namespace or one with a format we do not take (metadata, block size). */
int nvmf_identify_ns(struct nvmf *n, uint32_t nsid, struct nvmf_ns *out);
/* Ids of active namespaces above `after`, ascending; returns how many (at most max), or -errno. */
int nvmf_list_ns(struct nvmf *n, uint32_t after, uint32_t *nsids, int max);

struct nvmf_resv_status {
	uint32_t generation;
	enum nvme_resv_type type;
	bool held; /* where all registrants hold it: by the first of them */
	uint64_t holder_key;
	uint8_t holder_hostid[16];
	bool we_hold;
	bool registered; /* this host is... */
	uint64_t our_key; /* ...with this key */
	uint32_t nregistrants;
};
/* Who has reserved a namespace. -EBADMSG: the report makes no sense; -E2BIG: it is longer than a command may be. */
int nvmf_resv_report(struct nvmf *n, uint32_t nsid, struct nvmf_resv_status *out);

/* Reads the discovery log of a discovery controller (opened with NVME_DISCOVERY_NQN, nqueues 0). At most
 * max records; *count is how many were stored, *total how many the log has. -EAGAIN: it kept changing meanwhile, records are from its last reading;
 * -EPROTONOSUPPORT: a log of another format. What records hold is the target's word: nothing in them has been checked, no text need end. */
int nvmf_discover(struct nvmf *n, struct nvme_discovery_record *records, uint32_t max,
	uint32_t *count, uint64_t *total);

#endif
