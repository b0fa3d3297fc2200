/* SPDX-License-Identifier: BSD-3-Clause */
/* The scripted peer: what it does instead of serving a command. */
#include "tests/unit/nvmf_peer_priv.h"

void peer_misbehave(struct peer_conn *c, const struct nvme_sqe *sqe, uint32_t len)
{
	static uint8_t junk[65536];
	struct nvme_tcp_fault f = {.fes = NVME_TCP_FES_SEQUENCE};
	uint8_t head[NVME_TCP_TERM_MAX];
	uint16_t cid = from_le16(sqe->cid);
	struct nvme_cqe cqe;
	size_t n;

	memset(junk, 0xee, sizeof(junk));
	nvme_cqe_set(&cqe, cid, 0, 0, 0);
	switch (c->p->cfg.mischief) {
	case PEER_RESP_UNKNOWN:
		peer_respond(c, (uint16_t)(cid + 1024), 0, 0);
		break;
	case PEER_RESP_TWICE:
		peer_respond(c, cid, NVME_SC_INTERNAL, 0);
		peer_respond(c, cid, NVME_SC_INTERNAL, 0);
		break;
	case PEER_DATA_UNKNOWN:
		n = nvme_tcp_put_c2h_data(
			&c->link, head, (uint16_t)(cid + 1), 0, 512, NVME_TCP_F_LAST);
		peer_send_bytes(c, head, n, junk, 512);
		break;
	case PEER_DATA_FOR_WRITE:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 0, 512, NVME_TCP_F_LAST);
		peer_send_bytes(c, head, n, junk, 512);
		break;
	case PEER_DATA_BEYOND:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 0, len + 512, NVME_TCP_F_LAST);
		peer_send_bytes(c, head, n, junk, len + 512);
		break;
	case PEER_DATA_GAP:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 512, 512, NVME_TCP_F_LAST);
		peer_send_bytes(c, head, n, junk, 512);
		break;
	case PEER_DATA_LENGTH:
		n = nvme_tcp_put_c2h_data(&c->link, head, cid, 0, 512, NVME_TCP_F_LAST);
		((struct nvme_tcp_data *)head)->datal = to_le32(0x7fffff00);
		peer_send_bytes(c, head, n, junk, 512);
		break;
	case PEER_R2T_BEYOND:
		peer_send_r2t(c, cid, 0, len + 4);
		break;
	case PEER_R2T_FOR_READ:
		peer_send_r2t(c, cid, 0, len);
		break;
	case PEER_R2T_TWICE:
		peer_send_r2t(c, cid, 0, len / 2);
		peer_send_r2t(c, cid, len / 2, len / 4);
		peer_send_r2t(c, cid, len / 2 + len / 4, len / 4);
		break;
	case PEER_R2T_GAP:
		peer_send_r2t(c, cid, len / 2, len / 2);
		break;
	case PEER_SHORT_READ:
		peer_respond(c, cid, 0, 0);
		break;
	case PEER_BAD_HDGST:
		n = nvme_tcp_put_resp(&c->link, head, &cqe);
		head[9] ^= 0x40;
		peer_send_bytes(c, head, n, NULL, 0);
		break;
	case PEER_TERM:
		peer_send_bytes(c, head, nvme_tcp_put_term(&c->link, head, &f, junk, 24), NULL, 0);
		break;
	case PEER_CLOSE:
		stream_shutdown(c->stream);
		break;
	case PEER_GARBAGE:
		peer_send_bytes(c, junk, 4096, NULL, 0);
		break;
	case PEER_WRONG_DIRECTION:
		peer_send_bytes(c, head, nvme_tcp_put_cmd(&c->link, head, sqe, 0), NULL, 0);
		break;
	case PEER_MEDIA_ERROR:
		peer_respond(c, cid, NVME_SC_READ_ERROR | NVME_SC_DNR, 0);
		break;
	default: /* PEER_NO_ANSWER, PEER_SLOW */
		break;
	}
}

bool peer_wants_mischief(const struct peer *p, const struct nvme_sqe *sqe)
{
	enum peer_mischief m = p->cfg.mischief;

	if (p->done_mischief || m < PEER_RESP_UNKNOWN || m == PEER_MUTATE || m == PEER_BAD_DDGST)
		return false;
	switch (m) {
	case PEER_DATA_FOR_WRITE:
	case PEER_R2T_BEYOND:
	case PEER_R2T_TWICE:
	case PEER_R2T_GAP:
		return sqe->opcode == NVME_CMD_WRITE;
	case PEER_DATA_BEYOND:
	case PEER_DATA_GAP:
	case PEER_DATA_LENGTH:
	case PEER_R2T_FOR_READ:
	case PEER_SHORT_READ:
		return sqe->opcode == NVME_CMD_READ;
	default:
		return sqe->opcode == NVME_CMD_READ || sqe->opcode == NVME_CMD_WRITE;
	}
}
