/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * For tests of the NVMe/TCP target: a target on a loopback socket over a memory backend that can hold, fail and refuse
 * requests, and a scripted host that sends whatever bytes a test wants. All on one thread: waiting for the target runs its shard.
 */
#ifndef TESTS_UNIT_NVME_TCP_HOST_H
#define TESTS_UNIT_NVME_TCP_HOST_H

#include "common/nvme/fabrics.h"
#include "common/nvme/identify.h"
#include "common/nvme/tcp.h"
#include "dpu/core/crc32c.h"
#include "dpu/core/shard.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp.h"

#define BED_NQN   "nqn.2026-01.test:vm1"
#define BED_NQN2  "nqn.2026-01.test:vm2"
#define BED_HOST  "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555"
#define BED_BYTES (8u << 20)

/* ---- the target's side -------------------------------------------------------------------------- */
struct mem_vol { /* what the target takes for a struct volume */
	uint8_t *bytes;
	uint64_t size;
};

struct bed {
	struct shard *sh;
	struct nvme_tcp_target *t;
	struct nvme_tcp_vm *vm, *vm2;
	uint16_t port, port2;
	struct mem_vol vol, vol2;
	/* the backend */
	TAILQ_HEAD(, io_req) queued;
	struct poller poller;
	bool hold; /* keeps what is submitted */
	uint32_t refuse; /* this many submissions get -EAGAIN */
	uint32_t refuse_vm; /* ... of this VM only; 0: of any */
	enum io_status fail; /* what everything ends with */
	uint32_t nqueued, nsubmitted, last_flags, last_vm, nrefused;
	uint64_t ntrimmed;
	bool borrow;
};

struct bed_cfg {
	struct nvme_tcp_target_cfg target;
	const char *const *hosts;
	int nhosts;
	uint32_t block_bytes; /* 0: 4096 */
	bool borrow; /* streams that lend what they received (stream_shim.h) */
};

struct bed *bed_open(const struct bed_cfg *cfg);
void bed_close(struct bed *b);
void bed_rounds(struct bed *b, int n);
/* Runs the shard until *v >= n; fails the test when it does not come. */
void bed_until(struct bed *b, const uint32_t *v, uint32_t n);
struct nvme_tcp_vm_stats bed_stats(struct bed *b);

/* ---- the host's side -------------------------------------------------------------------------------- */
struct host {
	struct bed *b;
	int fd;
	struct nvme_tcp_link link; /* as the host sees it */
	uint16_t cid, cntlid;
};

/* One PDU from the target, digests verified. */
struct host_pdu {
	uint8_t head[NVME_TCP_HDR_MAX + 4];
	struct nvme_tcp_pdu pdu;
	uint8_t *
		data; /* of pdu.data_bytes; freed by the next host_recv() on this struct, and by host_pdu_free() */
};

struct host host_open(struct bed *b, uint16_t port);
void host_close(struct host *h);
void host_send(struct host *h, const void *p, size_t n);
/* Exactly n bytes; false: the target closed before. */
bool host_read(struct host *h, void *p, size_t n);
/* False: closed. */
bool host_recv(struct host *h, struct host_pdu *p);
void host_pdu_free(struct host_pdu *p);
bool host_closed(struct host *h); /* the target closes, and sends nothing before */
/* Expects a C2HTermReq with this status and information, then the end. */
void host_expect_term(struct host *h, enum nvme_tcp_fes fes, uint32_t fei);

void host_icreq(struct host *h, uint8_t digests); /* and takes the ICResp */
/* A command with len bytes of in-capsule data (0: none). */
void host_cmd(struct host *h, struct nvme_sqe *sqe, const void *data, uint32_t len);
void host_h2c(struct host *h, uint16_t cid, uint16_t ttag, uint32_t off, const void *data,
	uint32_t len, uint8_t flags);
/* Takes the CapsuleResp of the command; returns its status. */
uint16_t host_resp(struct host *h, const struct nvme_sqe *sqe, uint64_t *result);
/* Takes the C2HData (if the command succeeds) and the CapsuleResp. */
uint16_t host_resp_data(struct host *h, const struct nvme_sqe *sqe, void *data, uint32_t len);
/* Takes the R2T of the command; returns the tag. */
uint16_t host_r2t(struct host *h, const struct nvme_sqe *sqe, uint32_t len);

uint16_t host_connect_full(struct host *h, struct nvme_connect c, uint64_t *result);
uint16_t host_connect(struct host *h, const char *subnqn, uint16_t qid, uint16_t cntlid);
uint64_t host_property_get(struct host *h, uint32_t off, int size);
void host_property_set(struct host *h, uint32_t off, uint32_t v);
/* An enabled controller's admin queue, and an I/O queue of it. */
struct host host_admin(struct bed *b, uint8_t digests);
struct host host_io(struct bed *b, const struct host *admin, uint16_t qid, uint8_t digests);

void host_rw(struct host *h, struct nvme_sqe *sqe, uint8_t opcode, uint64_t slba, uint32_t nlb,
	uint32_t flags);
/* Whole commands, by R2T and C2HData; len in bytes of 4096-byte blocks. Return the status. */
uint16_t host_write(struct host *h, uint64_t slba, const void *data, uint32_t len);
uint16_t host_read_blocks(struct host *h, uint64_t slba, void *data, uint32_t len);
uint16_t host_identify(struct host *h, uint32_t nsid, uint8_t cns, void *page);

void pattern(void *p, size_t n, uint32_t seed);

#endif
