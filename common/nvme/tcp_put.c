/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/tcp.h"

#include "common/base/util.h"

#define DIGEST_BYTES 4

/* Completes the common header at head: flags, offsets and lengths for data_bytes of data, then the
 * header digest and the padding. hlen bytes of header are there already. */
static size_t finish(const struct nvme_tcp_link *link, void *head, uint8_t hlen, uint8_t flags,
	uint32_t data_bytes)
{
	struct nvme_tcp_hdr *h = head;
	size_t n = hlen + (link->hdgst ? DIGEST_BYTES : 0), begin = n;
	uint32_t align = (link->tx_pda + 1U) * 4, tail = 0;

	if (link->hdgst)
		flags |= NVME_TCP_F_HDGST;
	if (data_bytes) {
		begin = ROUND_UP(n, align);
		h->pdo = (uint8_t)begin;
		if (link->ddgst) {
			flags |= NVME_TCP_F_DDGST;
			tail = DIGEST_BYTES;
		}
	}
	h->flags = flags;
	h->hlen = hlen;
	h->plen = to_le32((uint32_t)begin + data_bytes + tail);
	if (link->hdgst) {
		le32 digest = to_le32(link->digest(head, hlen));

		memcpy((uint8_t *)head + hlen, &digest, sizeof(digest));
	}
	memset((uint8_t *)head + n, 0, begin - n);
	return begin;
}

size_t nvme_tcp_put_icreq(void *head, uint8_t hpda, uint8_t dgst, uint32_t maxr2t)
{
	struct nvme_tcp_icreq *p = head;

	memset(p, 0, sizeof(*p));
	p->hdr = (struct nvme_tcp_hdr){
		.pdu_type = NVME_TCP_ICREQ, .hlen = sizeof(*p), .plen = to_le32(sizeof(*p))};
	p->hpda = hpda;
	p->dgst = dgst;
	p->maxr2t = to_le32(maxr2t);
	return sizeof(*p);
}

size_t nvme_tcp_put_icresp(void *head, uint8_t cpda, uint8_t dgst, uint32_t maxh2cdata)
{
	struct nvme_tcp_icresp *p = head;

	memset(p, 0, sizeof(*p));
	p->hdr = (struct nvme_tcp_hdr){
		.pdu_type = NVME_TCP_ICRESP, .hlen = sizeof(*p), .plen = to_le32(sizeof(*p))};
	p->cpda = cpda;
	p->dgst = dgst;
	p->maxh2cdata = to_le32(maxh2cdata);
	return sizeof(*p);
}

size_t nvme_tcp_put_term(const struct nvme_tcp_link *link, void *head,
	const struct nvme_tcp_fault *fault, const void *bad, size_t bad_bytes)
{
	struct nvme_tcp_term *p = head;
	size_t n = bad ? MIN(bad_bytes, NVME_TCP_TERM_MAX - sizeof(*p)) : 0;

	memset(p, 0, sizeof(*p));
	p->hdr = (struct nvme_tcp_hdr){
		.pdu_type = link->controller ? NVME_TCP_C2H_TERM : NVME_TCP_H2C_TERM,
		.hlen = sizeof(*p),
		.plen = to_le32((uint32_t)(sizeof(*p) + n)),
	};
	p->fes = to_le16((uint16_t)fault->fes);
	p->fei = to_le32(fault->fei);
	if (n)
		memcpy(p + 1, bad, n);
	return sizeof(*p) + n;
}

size_t nvme_tcp_put_cmd(const struct nvme_tcp_link *link, void *head, const struct nvme_sqe *sqe,
	uint32_t data_bytes)
{
	struct nvme_tcp_cmd *p = head;

	p->hdr = (struct nvme_tcp_hdr){.pdu_type = NVME_TCP_CAPSULE_CMD};
	p->sqe = *sqe;
	return finish(link, head, sizeof(*p), 0, data_bytes);
}

size_t nvme_tcp_put_resp(const struct nvme_tcp_link *link, void *head, const struct nvme_cqe *cqe)
{
	struct nvme_tcp_resp *p = head;

	p->hdr = (struct nvme_tcp_hdr){.pdu_type = NVME_TCP_CAPSULE_RESP};
	p->cqe = *cqe;
	return finish(link, head, sizeof(*p), 0, 0);
}

static size_t put_data(const struct nvme_tcp_link *link, void *head, uint8_t type, uint16_t cccid,
	uint16_t ttag, uint32_t datao, uint32_t data_bytes, uint8_t flags)
{
	struct nvme_tcp_data *p = head;

	*p = (struct nvme_tcp_data){
		.hdr = {.pdu_type = type},
		.cccid = to_le16(cccid),
		.ttag = to_le16(ttag),
		.datao = to_le32(datao),
		.datal = to_le32(data_bytes),
	};
	return finish(link, head, sizeof(*p), flags, data_bytes);
}

size_t nvme_tcp_put_h2c_data(const struct nvme_tcp_link *link, void *head, uint16_t cccid,
	uint16_t ttag, uint32_t datao, uint32_t data_bytes, uint8_t flags)
{
	return put_data(link, head, NVME_TCP_H2C_DATA, cccid, ttag, datao, data_bytes, flags);
}

size_t nvme_tcp_put_c2h_data(const struct nvme_tcp_link *link, void *head, uint16_t cccid,
	uint32_t datao, uint32_t data_bytes, uint8_t flags)
{
	return put_data(link, head, NVME_TCP_C2H_DATA, cccid, 0, datao, data_bytes, flags);
}

size_t nvme_tcp_put_r2t(const struct nvme_tcp_link *link, void *head, uint16_t cccid, uint16_t ttag,
	uint32_t r2to, uint32_t r2tl)
{
	struct nvme_tcp_r2t *p = head;

	*p = (struct nvme_tcp_r2t){
		.hdr = {.pdu_type = NVME_TCP_R2T},
		.cccid = to_le16(cccid),
		.ttag = to_le16(ttag),
		.r2to = to_le32(r2to),
		.r2tl = to_le32(r2tl),
	};
	return finish(link, head, sizeof(*p), 0, 0);
}
