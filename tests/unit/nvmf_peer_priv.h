/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside the scripted peer. */
#ifndef TESTS_UNIT_NVMF_PEER_PRIV_H
#define TESTS_UNIT_NVMF_PEER_PRIV_H

#include "tests/unit/nvmf_peer.h"

/* ---- nvmf_peer.c ---- */
void peer_cmd_end(struct peer_cmd *cmd);
void peer_send_bytes(
	struct peer_conn *c, const void *head, size_t hlen, const void *data, size_t len);
void peer_respond(struct peer_conn *c, uint16_t cid, uint16_t status, uint64_t result);
void peer_send_data(struct peer_conn *c, uint16_t cid, const uint8_t *data, uint32_t len);
void peer_send_r2t(struct peer_conn *c, uint16_t cid, uint32_t offset, uint32_t len);

/* ---- nvmf_peer_mischief.c ---- */
bool peer_wants_mischief(const struct peer *p, const struct nvme_sqe *sqe);
void peer_misbehave(struct peer_conn *c, const struct nvme_sqe *sqe, uint32_t len);

/* ---- nvmf_peer_io.c ---- */
void peer_on_io(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data);
void peer_on_h2c(struct peer_conn *c, const struct nvme_tcp_pdu *pdu, const uint8_t *data);
void peer_held_free(struct peer *p, struct peer_held *h);

#endif
