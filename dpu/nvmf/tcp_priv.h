/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe/TCP under the initiator: one stream per queue. Sending is one stream_tx per slot, a PDU at a time; receiving goes
 * through one buffer per connection, except that read data is taken straight into the command's own pieces.
 */
#ifndef DPU_NVMF_TCP_PRIV_H
#define DPU_NVMF_TCP_PRIV_H

#include "common/nvme/tcp.h"
#include "dpu/net/stream.h"
#include "dpu/nvmf/nvmf_priv.h"

#define TCP_RX_BYTES 32768

/* Part of a transfer that an R2T asked for. */
struct tcp_grant {
	uint16_t ttag;
	uint32_t offset;
	uint32_t left; /* 0: none */
};

/* Lies beside the nvmf_slot of the same index. */
struct tcp_slot {
	struct stream_tx tx;
	bool tx_busy; /* the stream holds head, iov and the command's buffers */
	bool in_capsule;
	bool answered; /* the response is here and waits for tx */
	bool bad_digest; /* data that did not match its digest */
	uint16_t status;
	uint64_t result;
	int at_iov; /* the transfer's place in the command's pieces... */
	size_t at_off;
	uint32_t moved; /* ...and in bytes: received, or handed to the stream */
	uint32_t granted; /* end of what R2Ts have asked for */
	struct tcp_grant now, next;
	uint32_t digest; /* of the data PDU being received */
	le32 ddgst;
	uint8_t head[NVME_TCP_HEAD_MAX];
	struct iovec iov[NVMF_IOV_MAX + 2];
};

enum tcp_rx {
	TCP_RX_HEAD, /* header of the next PDU */
	TCP_RX_PAD,
	TCP_RX_DATA, /* into rx_slot's pieces */
	TCP_RX_DIGEST,
};

struct tcp_conn {
	struct nvmf_queue *q;
	struct stream *stream; /* NULL: not started */
	struct nvme_tcp_link link;
	struct stream_counters sent, told; /* told: what the controller's counters have of it */
	uint32_t maxh2cdata;
	bool dead; /* reported as lost: nothing is believed or sent any more */
	struct stream_tx tx; /* ICReq, TermReq */
	bool tx_busy;
	struct iovec tx_iov;
	uint8_t head[NVME_TCP_TERM_MAX];

	enum tcp_rx rx;
	struct nvmf_slot *rx_slot;
	bool rx_digest, rx_success;
	uint32_t rx_left; /* bytes of the present part */
	uint32_t rx_data; /* data bytes that follow the padding */
	uint32_t at, end; /* unread bytes of buf */
	uint8_t buf[TCP_RX_BYTES];

	struct tcp_slot slots[];
};

static inline struct tcp_slot *tcp_slot_of(struct tcp_conn *c, const struct nvmf_slot *s)
{
	return &c->slots[nvmf_slot_index(c->q, s)];
}

/* ---- tcp.c ---- */
/* The connection is lost: sends a TermReq where fes asks for one. Always returns -EPROTO. */
int tcp_fault(
	struct tcp_conn *c, const struct nvme_tcp_fault *fault, const void *bad, size_t bad_bytes);
/* Takes what the stream has counted over into the controller's counters. */
void tcp_count(struct tcp_conn *c);
/* An R2T or a response has arrived for s. */
void tcp_send_granted(struct tcp_conn *c, struct nvmf_slot *s);
void tcp_finish(struct tcp_conn *c, struct nvmf_slot *s);
/* At most max pieces of the next len bytes at the slot's place; returns how many. */
int tcp_pieces(const struct nvmf_slot *s, const struct tcp_slot *t, size_t len, struct iovec *iov,
	int max);
void tcp_moved(const struct nvmf_slot *s, struct tcp_slot *t, size_t len);

/* ---- tcp_rx.c ---- */
void tcp_readable(struct stream *st, void *arg);

#endif
