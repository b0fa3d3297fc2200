/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/tcp.h"

#include <errno.h>

#include "common/base/util.h"

#define AT(type, field) ((uint32_t)offsetof(struct type, field))
#define DIGEST_BYTES    4

/* What the specification says about each type. */
static const struct pdu_rule {
	const char *name;
	bool known;
	bool to_controller;
	uint8_t hlen;
	uint8_t flags; /* flags that may be set, but for digests as agreed */
	bool digests; /* carries digests once agreed on */
	bool data; /* may carry data */
} rules[] = {
	[NVME_TCP_ICREQ] = {"ICReq", true, true, 128, 0, false, false},
	[NVME_TCP_ICRESP] = {"ICResp", true, false, 128, 0, false, false},
	[NVME_TCP_H2C_TERM] = {"H2CTermReq", true, true, 24, 0, false, true},
	[NVME_TCP_C2H_TERM] = {"C2HTermReq", true, false, 24, 0, false, true},
	[NVME_TCP_CAPSULE_CMD] = {"CapsuleCmd", true, true, 72, 0, true, true},
	[NVME_TCP_CAPSULE_RESP] = {"CapsuleResp", true, false, 24, 0, true, false},
	[NVME_TCP_H2C_DATA] = {"H2CData", true, true, 24, NVME_TCP_F_LAST, true, true},
	[NVME_TCP_C2H_DATA] = {"C2HData", true, false, 24, NVME_TCP_F_LAST | NVME_TCP_F_SUCCESS,
		true, true},
	[NVME_TCP_R2T] = {"R2T", true, false, 24, 0, true, false},
};

const char *nvme_tcp_pdu_name(uint8_t type)
{
	return type < ARRAY_LEN(rules) && rules[type].known ? rules[type].name : "reserved";
}

int nvme_tcp_fault_set(
	struct nvme_tcp_fault *fault, enum nvme_tcp_fes fes, uint32_t fei, const char *what)
{
	fault->fes = fes;
	fault->fei = fei;
	fault->what = what;
	return -EPROTO;
}

static int bad_field(struct nvme_tcp_fault *fault, uint32_t offset, const char *what)
{
	return nvme_tcp_fault_set(fault, NVME_TCP_FES_INVALID_FIELD, offset, what);
}

static bool is_term(uint8_t type)
{
	return type == NVME_TCP_H2C_TERM || type == NVME_TCP_C2H_TERM;
}

static bool is_data(uint8_t type)
{
	return type == NVME_TCP_H2C_DATA || type == NVME_TCP_C2H_DATA;
}

static int check_type(const struct nvme_tcp_link *link, const struct nvme_tcp_hdr *h,
	struct nvme_tcp_fault *fault)
{
	const struct pdu_rule *rule;
	bool opens = h->pdu_type == NVME_TCP_ICREQ || h->pdu_type == NVME_TCP_ICRESP;

	if (h->pdu_type >= ARRAY_LEN(rules) || !rules[h->pdu_type].known)
		return bad_field(fault, AT(nvme_tcp_hdr, pdu_type), "PDU type is reserved");
	rule = &rules[h->pdu_type];
	if (rule->to_controller != link->controller)
		return bad_field(
			fault, AT(nvme_tcp_hdr, pdu_type), "PDU type of the other direction");
	if (opens == link->ready && !is_term(h->pdu_type))
		return nvme_tcp_fault_set(fault, NVME_TCP_FES_SEQUENCE, 0,
			opens ? "second connection initialization"
			      : "PDU before connection initialization");
	return 0;
}

static int check_flags(const struct nvme_tcp_link *link, const struct nvme_tcp_hdr *h,
	bool has_data, struct nvme_tcp_fault *fault)
{
	const struct pdu_rule *rule = &rules[h->pdu_type];
	uint8_t digests = h->flags & (NVME_TCP_F_HDGST | NVME_TCP_F_DDGST), want = 0;

	if (rule->digests && link->hdgst)
		want |= NVME_TCP_F_HDGST;
	if (rule->digests && link->ddgst && has_data)
		want |= NVME_TCP_F_DDGST;
	if (digests != want)
		return bad_field(
			fault, AT(nvme_tcp_hdr, flags), "digest flags are not what was agreed");
	if ((h->flags & ~digests) & ~rule->flags)
		return bad_field(fault, AT(nvme_tcp_hdr, flags), "reserved flag");
	if ((h->flags & NVME_TCP_F_SUCCESS) && !(h->flags & NVME_TCP_F_LAST))
		return bad_field(fault, AT(nvme_tcp_hdr, flags), "SUCCESS without LAST_PDU");
	return 0;
}

/* How many data bytes the receiver takes in one PDU of this type. */
static uint32_t data_limit(const struct nvme_tcp_link *link, uint8_t type)
{
	if (is_term(type))
		return NVME_TCP_TERM_MAX - sizeof(struct nvme_tcp_term);
	return type == NVME_TCP_CAPSULE_CMD ? link->max_capsule_data : link->max_data;
}

/* plen and pdo: fills head, pad and data lengths. */
static int check_lengths(const struct nvme_tcp_link *link, const struct nvme_tcp_hdr *h,
	struct nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault)
{
	const struct pdu_rule *rule = &rules[h->pdu_type];
	uint32_t head = h->hlen + (rule->digests && link->hdgst ? DIGEST_BYTES : 0);
	uint32_t tail = link->ddgst && rule->digests ? DIGEST_BYTES : 0;
	uint32_t plen = from_le32(h->plen), begin = h->pdo, align = (link->rx_pda + 1U) * 4;

	pdu->head_bytes = (uint16_t)head;
	pdu->plen = plen;
	if (plen < head || (plen > head && !rule->data))
		return bad_field(fault, AT(nvme_tcp_hdr, plen), "PDU length does not fit the type");
	if (plen == head) {
		if (is_data(h->pdu_type))
			return bad_field(fault, AT(nvme_tcp_hdr, plen), "data PDU without data");
		return 0;
	}
	if (is_term(h->pdu_type)) /* its data follows the header, pdo is reserved */
		begin = head;
	else if (begin < head || begin % align)
		return bad_field(
			fault, AT(nvme_tcp_hdr, pdo), "data offset inside the header or unaligned");
	if (plen < tail || begin >= plen - tail)
		return bad_field(fault, AT(nvme_tcp_hdr, pdo), "data offset behind the data");
	pdu->pad_bytes = (uint8_t)(begin - head);
	pdu->data_bytes = plen - tail - begin;
	if (pdu->data_bytes > data_limit(link, h->pdu_type))
		return h->pdu_type == NVME_TCP_CAPSULE_CMD || is_term(h->pdu_type)
			       ? bad_field(fault, AT(nvme_tcp_hdr, plen), "more data than agreed")
			       : nvme_tcp_fault_set(fault,
					 link->controller ? NVME_TCP_FES_LIMIT
							  : NVME_TCP_FES_DATA_RANGE,
					 0, "more data than agreed");
	return 0;
}

static int check_common(const struct nvme_tcp_link *link, const struct nvme_tcp_hdr *h,
	struct nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault)
{
	int rc = check_type(link, h, fault);

	if (rc < 0)
		return rc;
	if (h->hlen != rules[h->pdu_type].hlen)
		return bad_field(
			fault, AT(nvme_tcp_hdr, hlen), "header length does not fit the type");
	rc = check_lengths(link, h, pdu, fault);
	if (rc < 0)
		return rc;
	rc = check_flags(link, h, pdu->data_bytes > 0, fault);
	if (rc < 0)
		return rc;
	pdu->type = h->pdu_type;
	pdu->flags = h->flags;
	pdu->ddgst = h->flags & NVME_TCP_F_DDGST;
	return 0;
}

static int check_header_digest(const struct nvme_tcp_link *link, const uint8_t *bytes,
	const struct nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault)
{
	uint32_t hlen = pdu->head_bytes - DIGEST_BYTES;
	le32 got;

	memcpy(&got, bytes + hlen, sizeof(got));
	if (link->digest(bytes, hlen) != from_le32(got))
		return nvme_tcp_fault_set(
			fault, NVME_TCP_FES_HDGST, from_le32(got), "header digest does not match");
	return 0;
}

static int check_icreq(const struct nvme_tcp_icreq *p, struct nvme_tcp_fault *fault)
{
	if (from_le16(p->pfv) != 0)
		return nvme_tcp_fault_set(fault, NVME_TCP_FES_UNSUPPORTED, AT(nvme_tcp_icreq, pfv),
			"PDU format version is not supported");
	if (p->hpda > NVME_TCP_PDA_MAX)
		return bad_field(fault, AT(nvme_tcp_icreq, hpda), "data alignment out of range");
	if (p->dgst & ~(NVME_TCP_DGST_HDR | NVME_TCP_DGST_DATA))
		return bad_field(fault, AT(nvme_tcp_icreq, dgst), "unknown digest");
	return 0;
}

static int check_icresp(const struct nvme_tcp_link *link, const struct nvme_tcp_icresp *p,
	struct nvme_tcp_fault *fault)
{
	uint32_t max = from_le32(p->maxh2cdata);

	if (from_le16(p->pfv) != 0)
		return nvme_tcp_fault_set(fault, NVME_TCP_FES_UNSUPPORTED, AT(nvme_tcp_icresp, pfv),
			"PDU format version is not supported");
	if (p->cpda > NVME_TCP_PDA_MAX)
		return bad_field(fault, AT(nvme_tcp_icresp, cpda), "data alignment out of range");
	if (p->dgst & ~(NVME_TCP_DGST_HDR | NVME_TCP_DGST_DATA))
		return bad_field(fault, AT(nvme_tcp_icresp, dgst), "unknown digest");
	if (((p->dgst & NVME_TCP_DGST_HDR) && !link->hdgst) ||
		((p->dgst & NVME_TCP_DGST_DATA) && !link->ddgst))
		return bad_field(fault, AT(nvme_tcp_icresp, dgst), "digest we did not ask for");
	if (max < NVME_TCP_MAXH2CDATA_MIN || max % 4)
		return bad_field(fault, AT(nvme_tcp_icresp, maxh2cdata), "MAXH2CDATA out of range");
	return 0;
}

static int check_data(const struct nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault)
{
	uint32_t datao = from_le32(pdu->data->datao), datal = from_le32(pdu->data->datal);

	if (datal != pdu->data_bytes)
		return bad_field(
			fault, AT(nvme_tcp_data, datal), "DATAL is not the PDU's data length");
	if (datao % 4)
		return bad_field(fault, AT(nvme_tcp_data, datao), "DATAO is not a multiple of 4");
	if (datal % 4 && !(pdu->flags & NVME_TCP_F_LAST))
		return bad_field(fault, AT(nvme_tcp_data, datal), "DATAL is not a multiple of 4");
	if (datal > UINT32_MAX - datao)
		return nvme_tcp_fault_set(
			fault, NVME_TCP_FES_DATA_RANGE, 0, "data ends beyond every transfer");
	return 0;
}

static int check_r2t(const struct nvme_tcp_r2t *p, struct nvme_tcp_fault *fault)
{
	uint32_t r2to = from_le32(p->r2to), r2tl = from_le32(p->r2tl);

	if (r2to % 4)
		return bad_field(fault, AT(nvme_tcp_r2t, r2to), "R2TO is not a multiple of 4");
	if (r2tl == 0)
		return bad_field(fault, AT(nvme_tcp_r2t, r2tl), "R2T for no data");
	if (r2tl > UINT32_MAX - r2to)
		return nvme_tcp_fault_set(
			fault, NVME_TCP_FES_DATA_RANGE, 0, "data ends beyond every transfer");
	return 0;
}

static int check_specific(const struct nvme_tcp_link *link, const struct nvme_tcp_pdu *pdu,
	struct nvme_tcp_fault *fault)
{
	switch (pdu->type) {
	case NVME_TCP_ICREQ:
		return check_icreq(pdu->icreq, fault);
	case NVME_TCP_ICRESP:
		return check_icresp(link, pdu->icresp, fault);
	case NVME_TCP_H2C_DATA:
	case NVME_TCP_C2H_DATA:
		return check_data(pdu, fault);
	case NVME_TCP_R2T:
		return check_r2t(pdu->r2t, fault);
	default: /* the entry in a capsule is judged by its command's handler */
		return 0;
	}
}

int nvme_tcp_pdu_parse(const struct nvme_tcp_link *link, const void *bytes, size_t len_bytes,
	struct nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault)
{
	const struct nvme_tcp_hdr *h = bytes;
	int rc;

	memset(pdu, 0, sizeof(*pdu));
	memset(fault, 0, sizeof(*fault));
	if (len_bytes < sizeof(*h))
		return sizeof(*h);
	pdu->hdr = h;
	rc = check_common(link, h, pdu, fault);
	if (rc == 0 && len_bytes < pdu->head_bytes)
		return pdu->head_bytes;
	if (rc == 0 && (pdu->flags & NVME_TCP_F_HDGST))
		rc = check_header_digest(link, bytes, pdu, fault);
	if (rc == 0)
		rc = check_specific(link, pdu, fault);
	/* A TermReq is never answered with one. */
	if (rc < 0 && is_term(h->pdu_type))
		fault->fes = NVME_TCP_FES_NONE;
	return rc;
}

uint16_t nvme_tcp_sgl_parse(
	const struct nvme_sgl *sgl, uint32_t capsule_bytes, struct nvme_tcp_sgl *out)
{
	uint64_t addr = from_le64(sgl->addr);

	*out = (struct nvme_tcp_sgl){.length = from_le32(sgl->length)};
	switch (sgl->id) {
	case NVME_SGL_ID_DATA_OFFSET:
		if (addr > capsule_bytes)
			return NVME_SC_SGL_INVALID_OFFSET | NVME_SC_DNR;
		if (out->length > capsule_bytes - addr)
			return NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR;
		out->in_capsule = true;
		out->offset = (uint32_t)addr;
		return NVME_SC_SUCCESS;
	case NVME_SGL_ID_TRANSPORT:
		return NVME_SC_SUCCESS;
	default:
		return NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR;
	}
}
