/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/util.h"
#include "common/nvme/fabrics.h"
#include "common/nvme/identify.h"
#include "common/nvme/rdma.h"
#include "common/nvme/tcp.h"

#include <errno.h>

/* Independent of the shipped digest: one bit at a time. */
static uint32_t crc_bitwise(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t crc = ~0U;

	while (n--) {
		crc ^= *b++;
		for (int i = 0; i < 8; i++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78U : 0);
	}
	return ~crc;
}

static struct nvme_tcp_link controller_link(void)
{
	return (struct nvme_tcp_link){.controller = true,
		.ready = true,
		.max_capsule_data = 8192,
		.max_data = 131072,
		.digest = crc_bitwise};
}

static struct nvme_tcp_link host_link(void)
{
	struct nvme_tcp_link l = controller_link();

	l.controller = false;
	return l;
}

static struct nvme_tcp_fault fault;

static void assert_fault(const struct nvme_tcp_link *l, const void *bytes, size_t n,
	enum nvme_tcp_fes fes, uint32_t fei)
{
	struct nvme_tcp_pdu pdu;

	assert_int_equal(nvme_tcp_pdu_parse(l, bytes, n, &pdu, &fault), -EPROTO);
	assert_int_equal(fault.fes, fes);
	assert_int_equal(fault.fei, fei);
	assert_non_null(fault.what);
}

static void encoders_give_the_specifications_bytes(void **state)
{
	static const uint8_t icreq[16] = {0, 0, 128, 0, 128, 0, 0, 0, 0, 0, 3, 3, 0, 0, 0, 0};
	static const uint8_t icresp[16] = {1, 0, 128, 0, 128, 0, 0, 0, 0, 0, 0, 1, 0, 0, 2, 0};
	static const uint8_t r2t[24] = {
		9, 0, 24, 0, 24, 0, 0, 0, 0x34, 0x12, 0x78, 0x56, 0, 0x10, 0, 0, 0, 0x20};
	static const uint8_t c2h[24] = {
		7, 0x0c, 24, 24, 0x18, 0x02, 0, 0, 7, 0, 0, 0, 0, 4, 0, 0, 0, 2};
	static const uint8_t h2c[24] = {
		6, 0x04, 24, 24, 0x18, 0x10, 0, 0, 7, 0, 9, 0, 0, 0, 1, 0, 0, 0x10};
	static const uint8_t write_capsule[72] = {4, 0, 72, 72, 0x48, 0x10, 0,
		0, /* common header */
		1, 0x40, 0x21, 0x43, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
		0, /* write, cid 4321h, nsid 1 */
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* mptr, SGL address */
		0, 0x10, 0, 0, 0, 0, 0, 1, /* length 4096, in-capsule offset */
		0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, /* slba */
		7, 0, 0, 0x40}; /* 8 blocks, FUA */
	struct nvme_tcp_link h = host_link(), c = controller_link();
	uint8_t b[NVME_TCP_HEAD_MAX];
	struct nvme_sqe sqe;

	assert_int_equal(nvme_tcp_put_icreq(b, 3, NVME_TCP_DGST_HDR | NVME_TCP_DGST_DATA, 0), 128);
	assert_memory_equal(b, icreq, sizeof(icreq));
	assert_int_equal(nvme_tcp_put_icresp(b, 0, NVME_TCP_DGST_HDR, 131072), 128);
	assert_memory_equal(b, icresp, sizeof(icresp));
	assert_int_equal(nvme_tcp_put_r2t(&c, b, 0x1234, 0x5678, 4096, 8192), 24);
	assert_memory_equal(b, r2t, sizeof(r2t));
	assert_int_equal(
		nvme_tcp_put_c2h_data(&c, b, 7, 1024, 512, NVME_TCP_F_LAST | NVME_TCP_F_SUCCESS),
		24);
	assert_memory_equal(b, c2h, sizeof(c2h));
	assert_int_equal(nvme_tcp_put_h2c_data(&h, b, 7, 9, 65536, 4096, NVME_TCP_F_LAST), 24);
	assert_memory_equal(b, h2c, sizeof(h2c));
	nvme_sqe_set_rw(&sqe, NVME_CMD_WRITE, 0x4321, 1, 0x1122334455667788ULL, 8, NVME_RW_FUA);
	sqe.dptr = nvme_sgl_in_capsule(0, 4096);
	assert_int_equal(nvme_tcp_put_cmd(&h, b, &sqe, 4096), 72);
	assert_memory_equal(b, write_capsule, sizeof(write_capsule));
	assert_int_equal(nvme_sqe_slba(&sqe), 0x1122334455667788ULL);
	assert_int_equal(nvme_sqe_nlb(&sqe), 8);
}

static void digests_and_alignment_are_laid_out_as_specified(void **state)
{
	struct nvme_tcp_link h = host_link(), c = controller_link();
	struct nvme_tcp_pdu pdu;
	struct nvme_sqe sqe;
	uint8_t b[NVME_TCP_HEAD_MAX];
	le32 crc;

	assert_int_equal(crc_bitwise("123456789", 9), 0xe3069283U);
	h.hdgst = h.ddgst = c.hdgst = c.ddgst = true;
	h.tx_pda = c.rx_pda = 31; /* 128 bytes */
	nvme_sqe_set_rw(&sqe, NVME_CMD_WRITE, 1, 1, 0, 1, 0);
	assert_int_equal(nvme_tcp_put_cmd(&h, b, &sqe, 512), 128);
	assert_int_equal(b[1], NVME_TCP_F_HDGST | NVME_TCP_F_DDGST);
	assert_int_equal(b[3], 128);
	memcpy(&crc, b + 72, 4);
	assert_int_equal(from_le32(crc), crc_bitwise(b, 72));
	assert_int_equal(nvme_tcp_pdu_parse(&c, b, 8, &pdu, &fault), 76);
	assert_int_equal(nvme_tcp_pdu_parse(&c, b, 76, &pdu, &fault), 0);
	assert_int_equal(pdu.head_bytes, 76);
	assert_int_equal(pdu.pad_bytes, 52);
	assert_int_equal(pdu.data_bytes, 512);
	assert_int_equal(pdu.plen, 128 + 512 + 4);
	assert_true(pdu.ddgst);
	b[40] ^= 1;
	assert_fault(&c, b, 76, NVME_TCP_FES_HDGST, from_le32(crc));
	b[40] ^= 1;
	b[3] = 124; /* 52 - 4 bytes of padding: not on the boundary asked for */
	assert_fault(&c, b, 8, NVME_TCP_FES_INVALID_FIELD, 3);
	/* without data there is no data digest and no padding */
	assert_int_equal(nvme_tcp_put_cmd(&h, b, &sqe, 0), 76);
	assert_int_equal(b[1], NVME_TCP_F_HDGST);
	assert_int_equal(b[3], 0);
	assert_int_equal(nvme_tcp_pdu_parse(&c, b, 76, &pdu, &fault), 0);
	assert_int_equal(pdu.data_bytes, 0);
	assert_false(pdu.ddgst);
	b[1] = NVME_TCP_F_DDGST;
	assert_fault(&c, b, 8, NVME_TCP_FES_INVALID_FIELD, 1);
	b[1] = 0;
	assert_fault(&c, b, 8, NVME_TCP_FES_INVALID_FIELD, 1);
}

static void what_one_end_encodes_the_other_decodes(void **state)
{
	for (int variant = 0; variant < 8; variant++) {
		struct nvme_tcp_link h = host_link(), c = controller_link();
		struct nvme_cqe cqe;
		struct nvme_tcp_pdu pdu;
		uint8_t b[NVME_TCP_HEAD_MAX];
		size_t n;

		h.hdgst = c.hdgst = variant & 1;
		h.ddgst = c.ddgst = variant >> 1 & 1;
		h.rx_pda = c.tx_pda = h.tx_pda = c.rx_pda = variant & 4 ? 15 : 0;
		n = nvme_tcp_put_c2h_data(&c, b, 11, 4096, 1234, NVME_TCP_F_LAST);
		assert_int_equal(nvme_tcp_pdu_parse(&h, b, n, &pdu, &fault), 0);
		assert_int_equal(pdu.type, NVME_TCP_C2H_DATA);
		assert_int_equal(pdu.head_bytes + pdu.pad_bytes, n);
		assert_int_equal(n % (variant & 4 ? 64 : 4), 0);
		assert_int_equal(pdu.data_bytes, 1234);
		assert_int_equal(from_le16(pdu.data->cccid), 11);
		assert_int_equal(pdu.ddgst, c.ddgst);
		n = nvme_tcp_put_h2c_data(&h, b, 12, 99, 8, 512, 0);
		assert_int_equal(nvme_tcp_pdu_parse(&c, b, n, &pdu, &fault), 0);
		assert_int_equal(from_le16(pdu.data->ttag), 99);
		assert_int_equal(pdu.flags & NVME_TCP_F_LAST, 0);
		n = nvme_tcp_put_r2t(&c, b, 12, 99, 8, 512);
		assert_int_equal(nvme_tcp_pdu_parse(&h, b, n, &pdu, &fault), 0);
		assert_int_equal(from_le32(pdu.r2t->r2tl), 512);
		nvme_cqe_set(&cqe, 12, NVME_SC_LBA_RANGE | NVME_SC_DNR, 5, 77);
		n = nvme_tcp_put_resp(&c, b, &cqe);
		assert_int_equal(nvme_tcp_pdu_parse(&h, b, n, &pdu, &fault), 0);
		assert_int_equal(nvme_cqe_status(&pdu.resp->cqe), NVME_SC_LBA_RANGE | NVME_SC_DNR);
		assert_int_equal(from_le64(pdu.resp->cqe.result), 5);
	}
}

static void connection_initialization_is_checked(void **state)
{
	struct nvme_tcp_link h = host_link(), c = controller_link();
	struct nvme_tcp_pdu pdu;
	uint8_t b[NVME_TCP_HEAD_MAX];

	h.ready = c.ready = false;
	nvme_tcp_put_icreq(b, 0, 0, 0);
	assert_int_equal(nvme_tcp_pdu_parse(&c, b, 3, &pdu, &fault), 8);
	assert_int_equal(nvme_tcp_pdu_parse(&c, b, 8, &pdu, &fault), 128);
	assert_int_equal(nvme_tcp_pdu_parse(&c, b, 128, &pdu, &fault), 0);
	b[8] = 1;
	assert_fault(&c, b, 128, NVME_TCP_FES_UNSUPPORTED, 8);
	nvme_tcp_put_icreq(b, 32, 0, 0);
	assert_fault(&c, b, 128, NVME_TCP_FES_INVALID_FIELD, 10);
	nvme_tcp_put_icreq(b, 0, 4, 0);
	assert_fault(&c, b, 128, NVME_TCP_FES_INVALID_FIELD, 11);
	nvme_tcp_put_icreq(b, 0, 0, 0);
	c.ready = true; /* a second one */
	assert_fault(&c, b, 128, NVME_TCP_FES_SEQUENCE, 0);

	nvme_tcp_put_icresp(b, 0, NVME_TCP_DGST_HDR, 131072);
	assert_fault(&h, b, 128, NVME_TCP_FES_INVALID_FIELD, 11); /* not asked for */
	h.hdgst = true;
	assert_int_equal(nvme_tcp_pdu_parse(&h, b, 128, &pdu, &fault), 0);
	nvme_tcp_put_icresp(b, 0, 0, 4095);
	assert_fault(&h, b, 128, NVME_TCP_FES_INVALID_FIELD, 12);
	nvme_tcp_put_icresp(b, 0, 0, 4098);
	assert_fault(&h, b, 128, NVME_TCP_FES_INVALID_FIELD, 12);
}

static void bad_common_headers_name_the_field(void **state)
{
	static const struct {
		bool controller, ready;
		uint8_t hdr[8];
		enum nvme_tcp_fes fes;
		uint32_t fei;
	} bad[] = {
		{true, true, {8, 0, 24, 0, 24}, NVME_TCP_FES_INVALID_FIELD, 0}, /* reserved type */
		{true, true, {200, 0, 24, 0, 24}, NVME_TCP_FES_INVALID_FIELD, 0},
		{true, true, {5, 0, 24, 0, 24}, NVME_TCP_FES_INVALID_FIELD, 0}, /* response to us */
		{false, true, {4, 0, 72, 0, 72}, NVME_TCP_FES_INVALID_FIELD, 0},
		{true, false, {4, 0, 72, 0, 72}, NVME_TCP_FES_SEQUENCE, 0}, /* before ICReq */
		{true, true, {4, 0, 71, 0, 72}, NVME_TCP_FES_INVALID_FIELD, 2}, /* hlen */
		{true, true, {4, 0, 72, 0, 71}, NVME_TCP_FES_INVALID_FIELD, 4}, /* plen */
		{true, true, {4, 0, 72, 0, 7}, NVME_TCP_FES_INVALID_FIELD, 4},
		{false, true, {5, 0, 24, 0, 28}, NVME_TCP_FES_INVALID_FIELD,
			4}, /* no data allowed */
		{true, true, {4, 0, 72, 73, 0, 16}, NVME_TCP_FES_INVALID_FIELD, 3}, /* unaligned */
		{true, true, {4, 0, 72, 68, 0, 16}, NVME_TCP_FES_INVALID_FIELD,
			3}, /* in the header */
		{true, true, {4, 0, 72, 0, 0, 16}, NVME_TCP_FES_INVALID_FIELD, 3},
		{true, true, {4, 0, 72, 80, 80}, NVME_TCP_FES_INVALID_FIELD,
			3}, /* behind the end */
		{true, true, {4, 0, 72, 72, 73, 32}, NVME_TCP_FES_INVALID_FIELD,
			4}, /* 8193 bytes */
		{true, true, {4, 0, 72, 72, 0xff, 0xff, 0xff, 0xff}, NVME_TCP_FES_INVALID_FIELD, 4},
		{true, true, {6, 0, 24, 0, 24}, NVME_TCP_FES_INVALID_FIELD, 4}, /* no data */
		{true, true, {6, 0, 24, 24, 0xff, 0xff, 0xff, 0xff}, NVME_TCP_FES_LIMIT, 0},
		{false, true, {7, 0, 24, 24, 0xff, 0xff, 0xff, 0xff}, NVME_TCP_FES_DATA_RANGE, 0},
		{true, true, {4, 0x10, 72, 0, 72}, NVME_TCP_FES_INVALID_FIELD,
			1}, /* reserved flag */
		{true, true, {4, 0x04, 72, 0, 72}, NVME_TCP_FES_INVALID_FIELD, 1},
		{true, true, {4, 0x01, 72, 0, 72}, NVME_TCP_FES_INVALID_FIELD, 1}, /* not agreed */
		{false, true, {7, 0x08, 24, 24, 28}, NVME_TCP_FES_INVALID_FIELD, 1}, /* not last */
		{true, true, {2, 0, 24, 0, 153}, NVME_TCP_FES_NONE, 4}, /* TermReq */
		{true, true, {2, 0, 23, 0, 24}, NVME_TCP_FES_NONE, 2},
	};

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct nvme_tcp_link l = bad[i].controller ? controller_link() : host_link();

		l.ready = bad[i].ready;
		assert_fault(&l, bad[i].hdr, sizeof(bad[i].hdr), bad[i].fes, bad[i].fei);
	}
}

static void data_and_r2t_ranges_cannot_wrap(void **state)
{
	struct nvme_tcp_link h = host_link(), c = controller_link();
	struct nvme_tcp_data *d;
	struct nvme_tcp_r2t *r;
	uint8_t b[NVME_TCP_HEAD_MAX];

	d = (struct nvme_tcp_data *)b;
	nvme_tcp_put_h2c_data(&h, b, 1, 1, 0, 512, 0);
	d->datal = to_le32(508);
	assert_fault(&c, b, 24, NVME_TCP_FES_INVALID_FIELD, 16);
	nvme_tcp_put_h2c_data(&h, b, 1, 1, 2, 512, 0);
	assert_fault(&c, b, 24, NVME_TCP_FES_INVALID_FIELD, 12);
	nvme_tcp_put_h2c_data(&h, b, 1, 1, 0, 511, 0);
	assert_fault(&c, b, 24, NVME_TCP_FES_INVALID_FIELD, 16);
	nvme_tcp_put_h2c_data(&h, b, 1, 1, 0xfffffffc, 512, 0);
	assert_fault(&c, b, 24, NVME_TCP_FES_DATA_RANGE, 0);
	r = (struct nvme_tcp_r2t *)b;
	nvme_tcp_put_r2t(&c, b, 1, 1, 0, 0);
	assert_fault(&h, b, 24, NVME_TCP_FES_INVALID_FIELD, 16);
	r->r2tl = to_le32(8);
	r->r2to = to_le32(0xfffffffc);
	assert_fault(&h, b, 24, NVME_TCP_FES_DATA_RANGE, 0);
	r->r2to = to_le32(3);
	assert_fault(&h, b, 24, NVME_TCP_FES_INVALID_FIELD, 12);
}

static void a_term_request_carries_the_header_complained_about(void **state)
{
	struct nvme_tcp_link h = host_link(), c = controller_link();
	struct nvme_tcp_pdu pdu;
	uint8_t bad[200], b[NVME_TCP_TERM_MAX];

	memset(bad, 0xab, sizeof(bad));
	nvme_tcp_fault_set(&fault, NVME_TCP_FES_HDGST, 0x04030201, "test");
	assert_int_equal(nvme_tcp_put_term(&c, b, &fault, bad, sizeof(bad)), 152);
	assert_int_equal(b[0], NVME_TCP_C2H_TERM);
	assert_memory_equal(b + 8, "\x03\x00\x01\x02\x03\x04\x00\x00", 8);
	assert_memory_equal(b + 24, bad, 128);
	assert_int_equal(nvme_tcp_pdu_parse(&h, b, 24, &pdu, &fault), 0);
	assert_int_equal(pdu.data_bytes, 128);
	h.ready = false; /* also before the connection is ready */
	assert_int_equal(nvme_tcp_pdu_parse(&h, b, 24, &pdu, &fault), 0);
	assert_int_equal(nvme_tcp_put_term(&h, b, &fault, NULL, 0), 24);
	assert_int_equal(b[0], NVME_TCP_H2C_TERM);
	assert_int_equal(nvme_tcp_pdu_parse(&c, b, 24, &pdu, &fault), 0);
}

static void sgl_descriptors_are_held_against_the_capsule(void **state)
{
	struct nvme_tcp_sgl out;
	struct nvme_sgl sgl = nvme_sgl_in_capsule(512, 512);

	assert_int_equal(nvme_tcp_sgl_parse(&sgl, 1024, &out), 0);
	assert_true(out.in_capsule);
	assert_int_equal(out.offset, 512);
	assert_int_equal(
		nvme_tcp_sgl_parse(&sgl, 1023, &out), NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR);
	assert_int_equal(
		nvme_tcp_sgl_parse(&sgl, 511, &out), NVME_SC_SGL_INVALID_OFFSET | NVME_SC_DNR);
	sgl.addr = to_le64(UINT64_MAX);
	assert_int_equal(
		nvme_tcp_sgl_parse(&sgl, 1024, &out), NVME_SC_SGL_INVALID_OFFSET | NVME_SC_DNR);
	sgl = nvme_sgl_transport(UINT32_MAX);
	assert_int_equal(nvme_tcp_sgl_parse(&sgl, 0, &out), 0);
	assert_false(out.in_capsule);
	assert_int_equal(out.length, UINT32_MAX);
	sgl.id = NVME_SGL_ID_DATA_ADDRESS;
	assert_int_equal(nvme_tcp_sgl_parse(&sgl, 0, &out), NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR);
}

static void connect_and_property_commands_have_the_specified_layout(void **state)
{
	static const uint8_t hostid[16] = {1, 2, 3};
	struct nvme_connect c = {.cid = 1,
		.qid = 2,
		.sqsize = 127,
		.cntlid = 0x0102,
		.kato_ms = 0x11223344,
		.no_sqflow = true,
		.hostid = hostid,
		.subnqn = "nqn.2014-08.com.example:s",
		.hostnqn = "nqn.2014-08.com.example:h"};
	static const uint8_t specific[12] = {0, 0, 2, 0, 127, 0, 4, 0, 0x44, 0x33, 0x22, 0x11};
	struct nvme_connect_data data;
	struct nvme_sqe sqe;
	uint8_t *b = (uint8_t *)&sqe, *d = (uint8_t *)&data;
	char nqn[NVME_NQN_MAX + 2];

	assert_int_equal(nvme_connect_fill(&sqe, &data, &c), 0);
	assert_memory_equal(b, "\x7f\x40\x01\x00\x01", 5);
	assert_memory_equal(b + 40, specific, sizeof(specific));
	assert_int_equal(d[0], 1);
	assert_memory_equal(d + 16, "\x02\x01", 2);
	assert_string_equal((char *)d + 256, c.subnqn);
	assert_string_equal((char *)d + 512, c.hostnqn);
	assert_true(nvme_nqn_field_ok(data.subnqn));
	memset(data.subnqn, 'x', sizeof(data.subnqn));
	assert_false(nvme_nqn_field_ok(data.subnqn));

	memset(nqn, 'x', sizeof(nqn));
	memcpy(nqn, "nqn.", 4);
	nqn[NVME_NQN_MAX + 1] = 0;
	c.subnqn = nqn;
	assert_int_equal(nvme_connect_fill(&sqe, &data, &c), -EINVAL);
	nqn[NVME_NQN_MAX] = 0;
	assert_int_equal(nvme_connect_fill(&sqe, &data, &c), 0);

	nvme_property_set_fill(&sqe, 3, NVME_PROP_CC, 4, 0x00460001);
	assert_memory_equal(b, "\x7f\x40\x03\x00\x00", 5);
	assert_memory_equal(
		b + 40, "\x00\x00\x00\x00\x14\x00\x00\x00\x01\x00\x46\x00\x00\x00\x00\x00", 16);
	nvme_property_get_fill(&sqe, 3, NVME_PROP_CAP, 8);
	assert_int_equal(b[4], 4);
	assert_int_equal(b[40], 1);
}

static void get_log_page_lengths_use_both_halves(void **state)
{
	struct nvme_sqe sqe;

	nvme_sqe_set_get_log(&sqe, 1, NVME_LOG_DISCOVERY, 0x100000004ULL, 0x50000);
	assert_int_equal(nvme_sqe_log_len_bytes(&sqe), 0x50000);
	assert_int_equal(nvme_sqe_log_offset(&sqe), 0x100000004ULL);
	sqe.cdw10 = sqe.cdw11 = to_le32(0xffffffff);
	assert_int_equal(nvme_sqe_log_len_bytes(&sqe), 1ULL << 34);
}

static void text_fields_are_padded_and_made_printable(void **state)
{
	char field[8], out[9];

	nvme_ascii_fill(field, sizeof(field), "ab");
	assert_memory_equal(field, "ab      ", 8);
	assert_string_equal(nvme_ascii_text(field, sizeof(field), out), "ab");
	assert_string_equal(nvme_ascii_text("a\x01\x1b[2J\xff.", sizeof(field), out), "a??[2J?.");
	assert_string_equal(nvme_status_name(NVME_SC_LBA_RANGE | NVME_SC_DNR), "LBA Out of Range");
}

static void a_keyed_descriptor_has_its_fields_where_the_specification_puts_them(void **state)
{
	static const uint8_t want[16] = {
		8, 7, 6, 5, 4, 3, 2, 1, 0xcc, 0xbb, 0xaa, 0x44, 0x33, 0x22, 0x11, 0x4f};
	struct nvme_sgl sgl = nvme_sgl_keyed(0x0102030405060708, 0xaabbcc, 0x11223344, true);
	struct nvme_keyed_sgl k;

	assert_memory_equal(&sgl, want, sizeof(want));
	memcpy(&k, &sgl, sizeof(k));
	assert_int_equal(nvme_keyed_length(&k), 0xaabbcc);
	assert_int_equal(nvme_keyed_key(&k), 0x11223344);
	assert_int_equal(nvme_sgl_keyed(1, 2, 3, false).id, NVME_SGL_ID_KEYED);
}

static void what_an_rdma_controller_says_at_connect_is_checked(void **state)
{
	uint8_t data[196] = {0, 0, 0x21, 0x01};
	uint16_t crqsize;

	assert_int_equal(nvme_rdma_accept_parse(data, sizeof(data), &crqsize), 0);
	assert_int_equal(crqsize, 0x121);
	assert_int_equal(nvme_rdma_reject_parse(data, sizeof(data)), 0x121);
	assert_int_equal(nvme_rdma_reject_parse(data, 4), 0x121);
	assert_int_equal(nvme_rdma_accept_parse(data, 31, &crqsize), -EPROTO);
	assert_int_equal(nvme_rdma_accept_parse(NULL, 0, &crqsize), -EPROTO);
	assert_int_equal(nvme_rdma_reject_parse(data, 3), 0);
	assert_int_equal(nvme_rdma_reject_parse(NULL, 0), 0);
	data[1] = 1; /* record format */
	assert_int_equal(nvme_rdma_accept_parse(data, sizeof(data), &crqsize), -EPROTO);
	assert_int_equal(crqsize, 0);
	assert_int_equal(nvme_rdma_reject_parse(data, sizeof(data)), 0);
	for (uint16_t sts = 0; sts < 20; sts++)
		assert_non_null(nvme_rdma_sts_name(sts));
	assert_string_equal(nvme_rdma_sts_name(0xffff), "unknown reason");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_keyed_descriptor_has_its_fields_where_the_specification_puts_them),
		cmocka_unit_test(what_an_rdma_controller_says_at_connect_is_checked),
		cmocka_unit_test(encoders_give_the_specifications_bytes),
		cmocka_unit_test(digests_and_alignment_are_laid_out_as_specified),
		cmocka_unit_test(what_one_end_encodes_the_other_decodes),
		cmocka_unit_test(connection_initialization_is_checked),
		cmocka_unit_test(bad_common_headers_name_the_field),
		cmocka_unit_test(data_and_r2t_ranges_cannot_wrap),
		cmocka_unit_test(a_term_request_carries_the_header_complained_about),
		cmocka_unit_test(sgl_descriptors_are_held_against_the_capsule),
		cmocka_unit_test(connect_and_property_commands_have_the_specified_layout),
		cmocka_unit_test(get_log_page_lengths_use_both_halves),
		cmocka_unit_test(text_fields_are_padded_and_made_printable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
