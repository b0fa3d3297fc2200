/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe/TCP PDUs (NVM Express TCP Transport Specification 1.0): structures, one decoder, one encoder per
 * PDU. Pure functions on bytes, used by the target and by the initiator. Nothing is allocated or kept;
 * a decoded PDU points into the caller's bytes. Thread: any.
 *
 * Receiving: feed the decoder what has arrived of one PDU's header.
 *
 *	need = nvme_tcp_pdu_parse(&link, buf, have, &pdu, &fault);
 *	need > 0:  read on until `need` bytes of this PDU are there, then call again
 *	need == 0: pdu is valid; skip pdu.pad_bytes, read pdu.data_bytes of data, then, if pdu.ddgst, a le32
 *	           with the data's CRC32C
 *	need < 0:  the connection is lost: send nvme_tcp_put_term(&link, buf, fault.., ) unless fault.fes is 0
 *
 * Sending: put one PDU's head (header, header digest, padding) into NVME_TCP_HEAD_MAX bytes, send as
 * many bytes as the encoder returned, then the data, then, if link.ddgst and there is data, its digest.
 */
#ifndef COMMON_NVME_TCP_H
#define COMMON_NVME_TCP_H

#include <stdbool.h>

#include "common/nvme/cmd.h"

#define NVME_TCP_PORT           4420
#define NVME_TCP_DISCOVERY_PORT 8009

enum nvme_tcp_pdu_type {
	NVME_TCP_ICREQ = 0x00,
	NVME_TCP_ICRESP = 0x01,
	NVME_TCP_H2C_TERM = 0x02,
	NVME_TCP_C2H_TERM = 0x03,
	NVME_TCP_CAPSULE_CMD = 0x04,
	NVME_TCP_CAPSULE_RESP = 0x05,
	NVME_TCP_H2C_DATA = 0x06,
	NVME_TCP_C2H_DATA = 0x07,
	NVME_TCP_R2T = 0x09,
};

#define NVME_TCP_F_HDGST   0x01 /* a header digest follows the header */
#define NVME_TCP_F_DDGST   0x02 /* a data digest follows the data */
#define NVME_TCP_F_LAST    0x04 /* H2CData, C2HData: last of its transfer */
#define NVME_TCP_F_SUCCESS 0x08 /* C2HData: the command is done, no CapsuleResp follows */

/* Common header:
 * offset size field
 *      0    1 pdu_type
 *      1    1 flags
 *      2    1 hlen    bytes of the header (this one and the PDU's own part), without digest
 *      3    1 pdo     offset of the data from the PDU's begin, 0 where there is none
 *      4    4 plen    bytes of the PDU, digests, padding and data included
 */
struct nvme_tcp_hdr {
	uint8_t pdu_type;
	uint8_t flags;
	uint8_t hlen;
	uint8_t pdo;
	le32 plen;
};
static_assert(sizeof(struct nvme_tcp_hdr) == 8, "common header");

/* ICReq: 8 pfv(2), 10 hpda(1: C2HData's data aligned to (hpda + 1) * 4), 11 dgst(1), 12 maxr2t(4, 0's based) */
struct nvme_tcp_icreq {
	struct nvme_tcp_hdr hdr;
	le16 pfv;
	uint8_t hpda;
	uint8_t dgst;
	le32 maxr2t;
	uint8_t rsvd16[112];
};
static_assert(sizeof(struct nvme_tcp_icreq) == 128, "ICReq");

/* ICResp: 8 pfv(2), 10 cpda(1), 11 dgst(1), 12 maxh2cdata(4, bytes, a multiple of 4, at least 4096) */
struct nvme_tcp_icresp {
	struct nvme_tcp_hdr hdr;
	le16 pfv;
	uint8_t cpda;
	uint8_t dgst;
	le32 maxh2cdata;
	uint8_t rsvd16[112];
};
static_assert(sizeof(struct nvme_tcp_icresp) == 128, "ICResp");

#define NVME_TCP_DGST_HDR       0x01 /* ICReq, ICResp */
#define NVME_TCP_DGST_DATA      0x02
#define NVME_TCP_PDA_MAX        31
#define NVME_TCP_MAXH2CDATA_MIN 4096

/* H2CTermReq, C2HTermReq: 8 fes(2), 10 fei(4), then up to 128 bytes of the header complained about */
struct nvme_tcp_term {
	struct nvme_tcp_hdr hdr;
	le16 fes;
	le32 fei;
	uint8_t rsvd14[10];
};
static_assert(sizeof(struct nvme_tcp_term) == 24, "TermReq");
static_assert(offsetof(struct nvme_tcp_term, fei) == 10, "TermReq");

/* CapsuleCmd: the submission entry at 8; in-capsule data at pdo. */
struct nvme_tcp_cmd {
	struct nvme_tcp_hdr hdr;
	struct nvme_sqe sqe;
};
static_assert(sizeof(struct nvme_tcp_cmd) == 72, "CapsuleCmd");

/* CapsuleResp: the completion entry at 8. */
struct nvme_tcp_resp {
	struct nvme_tcp_hdr hdr;
	struct nvme_cqe cqe;
};
static_assert(sizeof(struct nvme_tcp_resp) == 24, "CapsuleResp");

/* H2CData, C2HData: 8 cccid(2), 10 ttag(2, H2CData only), 12 datao(4), 16 datal(4) */
struct nvme_tcp_data {
	struct nvme_tcp_hdr hdr;
	le16 cccid;
	le16 ttag;
	le32 datao;
	le32 datal;
	uint8_t rsvd20[4];
};
static_assert(sizeof(struct nvme_tcp_data) == 24, "data PDU");
static_assert(offsetof(struct nvme_tcp_data, datal) == 16, "data PDU");

/* R2T: 8 cccid(2), 10 ttag(2), 12 r2to(4), 16 r2tl(4) */
struct nvme_tcp_r2t {
	struct nvme_tcp_hdr hdr;
	le16 cccid;
	le16 ttag;
	le32 r2to;
	le32 r2tl;
	uint8_t rsvd20[4];
};
static_assert(sizeof(struct nvme_tcp_r2t) == 24, "R2T");

/* Fatal error status of a TermReq, and what its FEI holds. */
enum nvme_tcp_fes {
	NVME_TCP_FES_NONE = 0x00, /* ours: close without a TermReq */
	NVME_TCP_FES_INVALID_FIELD = 0x01, /* offset of the field in the header */
	NVME_TCP_FES_SEQUENCE = 0x02, /* 0 */
	NVME_TCP_FES_HDGST = 0x03, /* the header digest received */
	NVME_TCP_FES_DATA_RANGE = 0x04, /* 0: data transfer out of range */
	NVME_TCP_FES_LIMIT = 0x05, /* 0: C2H: data transfer limit, H2C: R2T limit exceeded */
	NVME_TCP_FES_UNSUPPORTED = 0x06, /* offset of the parameter in the header */
};

#define NVME_TCP_HDR_MAX  128 /* longest header (ICReq) */
#define NVME_TCP_HEAD_MAX 128 /* longest header + digest + padding */
#define NVME_TCP_TERM_MAX 152 /* longest TermReq */

/* Standard CRC32C of len bytes ("123456789" gives E3069283h). */
typedef uint32_t (*nvme_tcp_digest_fn)(const void *p, size_t len_bytes);

/* What both ends have agreed on, seen from one of them. */
struct nvme_tcp_link {
	bool controller; /* we are the controller; else the host */
	bool ready; /* ICReq and ICResp have been exchanged */
	bool hdgst, ddgst; /* digests in use */
	uint8_t rx_pda,
		tx_pda; /* alignment of received data we asked for; the peer asked for: 0..31 */
	uint32_t max_capsule_data; /* controller: most bytes of in-capsule data */
	uint32_t max_data; /* most data bytes of a received H2CData / C2HData */
	nvme_tcp_digest_fn digest; /* needed where hdgst is set */
};

struct nvme_tcp_pdu {
	uint8_t type; /* enum nvme_tcp_pdu_type */
	uint8_t flags; /* NVME_TCP_F_* */
	bool ddgst; /* 4 bytes of data digest follow the data */
	uint8_t pad_bytes;
	uint16_t head_bytes; /* header and header digest: what the decoder has looked at */
	uint32_t data_bytes;
	uint32_t plen;
	union { /* points into the decoder's input */
		const struct nvme_tcp_hdr *hdr;
		const struct nvme_tcp_icreq *icreq;
		const struct nvme_tcp_icresp *icresp;
		const struct nvme_tcp_term *term;
		const struct nvme_tcp_cmd *cmd;
		const struct nvme_tcp_resp *resp;
		const struct nvme_tcp_data *data;
		const struct nvme_tcp_r2t *r2t;
	};
};

struct nvme_tcp_fault {
	enum nvme_tcp_fes fes;
	uint32_t fei;
	const char *what; /* for people; a literal */
};

/* Decodes the header of one PDU that begins at bytes, of which len_bytes are there. Every field is
 * checked against the specification and *link: type and direction, sequence (nothing but ICReq/ICResp
 * before, and none after `ready`), flags, hlen, pdo, plen, header digest, data length and offset.
 * Returns 0; or the number of bytes needed (> len_bytes, <= NVME_TCP_HDR_MAX); or -EPROTO with *fault.
 * Not checked, as it needs the command: cccid, ttag, and ranges within a transfer. */
int nvme_tcp_pdu_parse(const struct nvme_tcp_link *link, const void *bytes, size_t len_bytes,
	struct nvme_tcp_pdu *pdu, struct nvme_tcp_fault *fault);

/* A fault found outside the decoder, in the same words. Always returns -EPROTO. */
int nvme_tcp_fault_set(
	struct nvme_tcp_fault *fault, enum nvme_tcp_fes fes, uint32_t fei, const char *what);

/* Where data is and how long it is, from a command's SGL descriptor, on TCP. */
struct nvme_tcp_sgl {
	bool in_capsule;
	uint32_t offset; /* in-capsule: into the capsule's data */
	uint32_t length;
};

/* Decodes *sgl for a command that came with capsule_bytes of in-capsule data. 0, or the NVMe status the
 * command fails with (SGL type, offset or length invalid). */
uint16_t nvme_tcp_sgl_parse(
	const struct nvme_sgl *sgl, uint32_t capsule_bytes, struct nvme_tcp_sgl *out);

/* Encoders. head has room for NVME_TCP_HEAD_MAX bytes (term: NVME_TCP_TERM_MAX); each returns how many
 * bytes to send before the data. ICReq and ICResp take their parameters as the link will have them. */
size_t nvme_tcp_put_icreq(void *head, uint8_t hpda, uint8_t dgst, uint32_t maxr2t);
size_t nvme_tcp_put_icresp(void *head, uint8_t cpda, uint8_t dgst, uint32_t maxh2cdata);
/* bad is the header complained about (bad_bytes, cut to 128), or NULL. */
size_t nvme_tcp_put_term(const struct nvme_tcp_link *link, void *head,
	const struct nvme_tcp_fault *fault, const void *bad, size_t bad_bytes);
size_t nvme_tcp_put_cmd(const struct nvme_tcp_link *link, void *head, const struct nvme_sqe *sqe,
	uint32_t data_bytes);
size_t nvme_tcp_put_resp(const struct nvme_tcp_link *link, void *head, const struct nvme_cqe *cqe);
/* flags: NVME_TCP_F_LAST; data_bytes is not 0. */
size_t nvme_tcp_put_h2c_data(const struct nvme_tcp_link *link, void *head, uint16_t cccid,
	uint16_t ttag, uint32_t datao, uint32_t data_bytes, uint8_t flags);
/* flags: NVME_TCP_F_LAST, NVME_TCP_F_SUCCESS; data_bytes is not 0. */
size_t nvme_tcp_put_c2h_data(const struct nvme_tcp_link *link, void *head, uint16_t cccid,
	uint32_t datao, uint32_t data_bytes, uint8_t flags);
size_t nvme_tcp_put_r2t(const struct nvme_tcp_link *link, void *head, uint16_t cccid, uint16_t ttag,
	uint32_t r2to, uint32_t r2tl);

/* "ICReq", "CapsuleCmd"...; "reserved" for types the specification does not define. */
const char *nvme_tcp_pdu_name(uint8_t type);

#endif
