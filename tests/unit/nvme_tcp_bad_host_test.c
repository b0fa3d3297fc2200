/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe/TCP target and hosts that break the rules, go away in the middle, or say nothing. After each the bed is closed: it
 * would complain of a connection, a controller or a request that was left over.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/util.h"
#include "tests/unit/nvme_tcp_host.h"

#define AT(type, field) ((uint32_t)offsetof(struct type, field))
#define BOTH            (NVME_TCP_DGST_HDR | NVME_TCP_DGST_DATA)

static int setup(void **state)
{
	*state = bed_open(&(struct bed_cfg){0});
	return 0;
}

static int setup_borrow(void **state)
{
	*state = bed_open(&(struct bed_cfg){.borrow = true});
	return 0;
}

static int teardown(void **state)
{
	bed_close(*state);
	return 0;
}

/* A VM next door works while this one misbehaves. */
static void still_works(struct bed *b)
{
	struct host h = host_open(b, b->port2);

	host_icreq(&h, 0);
	assert_int_equal(host_connect(&h, BED_NQN2, 0, NVME_CNTLID_ANY), NVME_SC_SUCCESS);
	host_close(&h);
	h = host_admin(b, 0);
	host_close(&h);
}

/* ---- PDUs that are wrong whatever came before ------------------------------------------------------------ */
struct bad_pdu {
	const char *what;
	struct nvme_tcp_hdr hdr;
	enum nvme_tcp_fes fes;
	uint32_t fei;
};

static void bad_headers_are_answered_with_the_right_term_request(void **state)
{
	static const struct bad_pdu bad[] = {
		{"reserved type", {0x0c, 0, 8, 0, {{8}}}, NVME_TCP_FES_INVALID_FIELD,
			AT(nvme_tcp_hdr, pdu_type)},
		{"controller's type", {NVME_TCP_R2T, 0, 24, 0, {{24}}}, NVME_TCP_FES_INVALID_FIELD,
			AT(nvme_tcp_hdr, pdu_type)},
		{"hlen", {NVME_TCP_CAPSULE_CMD, 0, 71, 0, {{72}}}, NVME_TCP_FES_INVALID_FIELD,
			AT(nvme_tcp_hdr, hlen)},
		{"plen below hlen", {NVME_TCP_CAPSULE_CMD, 0, 72, 0, {{71}}},
			NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_hdr, plen)},
		{"pdo inside the header", {NVME_TCP_CAPSULE_CMD, 0, 72, 8, {{0x48, 0x10}}},
			NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_hdr, pdo)},
		{"more capsule data than offered",
			{NVME_TCP_CAPSULE_CMD, 0, 72, 72, {{0x48, 0x40}}},
			NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_hdr, plen)},
		{"gigantic plen", {NVME_TCP_CAPSULE_CMD, 0, 72, 72, {{0xff, 0xff, 0xff, 0xff}}},
			NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_hdr, plen)},
		{"more data than MAXH2CDATA", {NVME_TCP_H2C_DATA, 0, 24, 24, {{0, 0, 0, 1}}},
			NVME_TCP_FES_LIMIT, 0},
		{"digest flag without digests",
			{NVME_TCP_CAPSULE_CMD, NVME_TCP_F_HDGST, 72, 0, {{72}}},
			NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_hdr, flags)},
		{"second ICReq", {NVME_TCP_ICREQ, 0, 128, 0, {{128}}}, NVME_TCP_FES_SEQUENCE, 0},
	};
	struct bed *b = *state;
	uint8_t bytes[256];

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct host h = host_admin(b, 0);

		print_message("# %s\n", bad[i].what);
		memset(bytes, 0, sizeof(bytes));
		memcpy(bytes, &bad[i].hdr, sizeof(bad[i].hdr));
		host_send(&h, bytes, sizeof(bytes));
		shutdown(h.fd, SHUT_WR); /* as a host does that has read our TermReq */
		host_expect_term(&h, bad[i].fes, bad[i].fei);
		assert_int_equal(bed_stats(b).pdu_errors, i + 1);
	}
	still_works(b);
}

static void nothing_but_icreq_may_come_first(void **state)
{
	struct bed *b = *state;
	struct host h = host_open(b, b->port);
	uint8_t head[NVME_TCP_HEAD_MAX] = {0};
	struct nvme_sqe sqe;

	nvme_sqe_init(&sqe, NVME_ADMIN_KEEP_ALIVE, 0, 0);
	host_send(&h, head, nvme_tcp_put_cmd(&h.link, head, &sqe, 0));
	shutdown(h.fd, SHUT_WR);
	host_expect_term(&h, NVME_TCP_FES_SEQUENCE, 0);

	h = host_open(b, b->port);
	nvme_tcp_put_icreq(head, 0, 0, 0);
	((struct nvme_tcp_icreq *)head)->pfv = to_le16(1);
	host_send(&h, head, 128);
	shutdown(h.fd, SHUT_WR);
	host_expect_term(&h, NVME_TCP_FES_UNSUPPORTED, AT(nvme_tcp_icreq, pfv));
	still_works(b);
}

static void a_wrong_header_digest_ends_the_connection(void **state)
{
	struct bed *b = *state;
	struct host h = host_admin(b, BOTH);
	uint8_t head[NVME_TCP_HEAD_MAX];
	struct nvme_sqe sqe;
	size_t n;
	le32 sent;

	nvme_sqe_init(&sqe, NVME_ADMIN_KEEP_ALIVE, 1, 0);
	n = nvme_tcp_put_cmd(&h.link, head, &sqe, 0);
	head[n - 1] ^= 1;
	memcpy(&sent, head + n - 4, sizeof(sent));
	host_send(&h, head, n);
	shutdown(h.fd, SHUT_WR);
	host_expect_term(&h, NVME_TCP_FES_HDGST, from_le32(sent));
	assert_int_equal(bed_stats(b).hdgst_errors, 1);
	still_works(b);
}

static void a_wrong_data_digest_fails_its_command_and_nothing_else(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, BOTH);
	struct host h = host_io(b, &admin, 1, BOTH);
	uint8_t head[NVME_TCP_HEAD_MAX], data[8192];
	le32 wrong = to_le32(0x12345678);
	struct nvme_sqe sqe;
	uint16_t ttag;

	pattern(data, sizeof(data), 1);
	/* In the capsule. */
	host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 1, 0);
	sqe.dptr = nvme_sgl_in_capsule(0, 4096);
	sqe.cid = to_le16(h.cid++);
	host_send(&h, head, nvme_tcp_put_cmd(&h.link, head, &sqe, 4096));
	host_send(&h, data, 4096);
	host_send(&h, &wrong, 4);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_TRANSIENT_TRANSPORT);
	/* In the first of two H2CData. */
	host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 2, 0);
	host_cmd(&h, &sqe, NULL, 0);
	ttag = host_r2t(&h, &sqe, 8192);
	host_send(&h, head,
		nvme_tcp_put_h2c_data(&h.link, head, from_le16(sqe.cid), ttag, 0, 4096, 0));
	host_send(&h, data, 4096);
	host_send(&h, &wrong, 4);
	host_h2c(&h, from_le16(sqe.cid), ttag, 4096, data, 4096, NVME_TCP_F_LAST);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_TRANSIENT_TRANSPORT);
	assert_int_equal(bed_stats(b).ddgst_errors, 2);
	assert_int_equal(b->nsubmitted, 0);
	/* The same connection goes on. */
	assert_int_equal(host_write(&h, 0, data, sizeof(data)), NVME_SC_SUCCESS);
	assert_memory_equal(b->vol.bytes, data, sizeof(data));
	host_close(&h);
	host_close(&admin);
}

/* ---- data that was not asked for --------------------------------------------------------------------------- */
struct data_case {
	const char *what;
	int cid_delta;
	uint16_t ttag_xor;
	uint32_t off, len;
	uint8_t flags;
	enum nvme_tcp_fes fes;
	uint32_t fei;
};

static void data_outside_of_the_r2t_ends_the_connection(void **state)
{
	static const struct data_case cases[] = {
		{"unknown tag", 0, 0x4000, 0, 8192, NVME_TCP_F_LAST, NVME_TCP_FES_INVALID_FIELD,
			AT(nvme_tcp_data, ttag)},
		{"tag of a free slot", 0, 0x0001, 0, 8192, NVME_TCP_F_LAST,
			NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_data, ttag)},
		{"another command", 1, 0, 0, 8192, NVME_TCP_F_LAST, NVME_TCP_FES_INVALID_FIELD,
			AT(nvme_tcp_data, cccid)},
		{"offset in front", 0, 0, 4096, 4096, NVME_TCP_F_LAST, NVME_TCP_FES_DATA_RANGE, 0},
		{"offset behind", 0, 0, 8192, 4096, NVME_TCP_F_LAST, NVME_TCP_FES_DATA_RANGE, 0},
		{"too much", 0, 0, 0, 12288, NVME_TCP_F_LAST, NVME_TCP_FES_DATA_RANGE, 0},
		{"wrapping offset", 0, 0, 0xfffff000, 4096, NVME_TCP_F_LAST,
			NVME_TCP_FES_DATA_RANGE, 0},
		{"last too early", 0, 0, 0, 4096, NVME_TCP_F_LAST, NVME_TCP_FES_INVALID_FIELD,
			AT(nvme_tcp_hdr, flags)},
		{"never last", 0, 0, 0, 8192, 0, NVME_TCP_FES_INVALID_FIELD,
			AT(nvme_tcp_hdr, flags)},
	};
	struct bed *b = *state;
	static uint8_t data[12288];

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct data_case *c = &cases[i];
		struct host admin = host_admin(b, 0);
		struct host h = host_io(b, &admin, 1, 0);
		struct nvme_sqe sqe;
		uint16_t ttag;

		print_message("# %s\n", c->what);
		host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 2, 0);
		host_cmd(&h, &sqe, NULL, 0);
		ttag = host_r2t(&h, &sqe, 8192);
		host_h2c(&h, (uint16_t)(from_le16(sqe.cid) + c->cid_delta), ttag ^ c->ttag_xor,
			c->off, data, c->len, c->flags);
		shutdown(h.fd, SHUT_WR);
		host_expect_term(&h, c->fes, c->fei);
		host_close(&admin);
	}
	assert_int_equal(b->nsubmitted, 0);
	still_works(b);
}

static void data_for_no_command_at_all_ends_the_connection(void **state)
{
	struct bed *b = *state;
	uint8_t data[4096] = {0};

	/* Before Connect, on an admin queue, on an I/O queue: no command waits for any. */
	for (int i = 0; i < 3; i++) {
		struct host admin = host_admin(b, 0);
		struct host h = i == 2 ? host_io(b, &admin, 1, 0) : host_open(b, b->port);

		if (i < 2)
			host_icreq(&h, 0);
		if (i == 1)
			assert_int_equal(
				host_connect(&h, BED_NQN, 0, NVME_CNTLID_ANY), NVME_SC_SUCCESS);
		host_h2c(&h, 0, 0, 0, data, sizeof(data), NVME_TCP_F_LAST);
		shutdown(h.fd, SHUT_WR);
		host_expect_term(&h, NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_data, ttag));
		host_close(&admin);
	}
	still_works(b);
}

static void data_again_after_the_transfer_ended_ends_the_connection(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, 0);
	struct host h = host_io(b, &admin, 1, 0);
	uint8_t data[8192] = {0};
	struct nvme_sqe sqe;
	uint16_t ttag;

	b->hold = true; /* the write is in the backend, its buffers with it */
	host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 2, 0);
	host_cmd(&h, &sqe, NULL, 0);
	ttag = host_r2t(&h, &sqe, 8192);
	host_h2c(&h, from_le16(sqe.cid), ttag, 0, data, 8192, NVME_TCP_F_LAST);
	bed_until(b, &b->nqueued, 1);
	host_h2c(&h, from_le16(sqe.cid), ttag, 0, data, 8192, NVME_TCP_F_LAST);
	shutdown(h.fd, SHUT_WR);
	host_expect_term(&h, NVME_TCP_FES_INVALID_FIELD, AT(nvme_tcp_data, ttag));
	b->hold = false;
	bed_rounds(b, 20);
	host_close(&admin);
	still_works(b);
}

static void more_commands_than_the_queue_holds_end_the_connection(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, 0);
	struct host h = host_io(b, &admin, 1, 0);
	struct nvme_sqe sqe;

	b->hold = true;
	for (int i = 0; i < 130; i++) { /* 128 and the slot that Connect had */
		host_rw(&h, &sqe, NVME_CMD_READ, 0, 1, 0);
		host_cmd(&h, &sqe, NULL, 0);
	}
	shutdown(h.fd, SHUT_WR);
	host_expect_term(&h, NVME_TCP_FES_SEQUENCE, 0);
	b->hold = false;
	host_close(&admin);
	still_works(b);
}

static void commands_that_make_no_sense_fail_and_harm_nothing(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, 0);
	struct host h = host_io(b, &admin, 1, 0);
	static const struct {
		uint8_t opcode;
		uint32_t nsid;
		uint64_t slba;
		uint32_t nlb, sgl_bytes;
		uint16_t status;
	} cases[] = {
		{NVME_CMD_READ, 1, BED_BYTES / 4096, 1, 4096, NVME_SC_LBA_RANGE},
		{NVME_CMD_READ, 1, BED_BYTES / 4096 - 1, 2, 8192, NVME_SC_LBA_RANGE},
		{NVME_CMD_WRITE, 1, UINT64_MAX, 1, 4096, NVME_SC_LBA_RANGE},
		{NVME_CMD_WRITE, 1, UINT64_MAX >> 12, 16, 65536, NVME_SC_LBA_RANGE},
		{NVME_CMD_WRITE_ZEROES, 1, BED_BYTES / 4096 - 5, 65536, 0, NVME_SC_LBA_RANGE},
		{NVME_CMD_READ, 2, 0, 1, 4096, NVME_SC_INVALID_NS},
		{NVME_CMD_READ, 0, 0, 1, 4096, NVME_SC_INVALID_NS},
		{NVME_CMD_READ, NVME_NSID_ALL, 0, 1, 4096, NVME_SC_INVALID_NS},
		{NVME_CMD_FLUSH, NVME_NSID_ALL, 0, 1, 0, NVME_SC_INVALID_NS},
		{NVME_CMD_READ, 1, 0, 129, 129 * 4096, NVME_SC_INVALID_FIELD},
		{NVME_CMD_WRITE, 1, 0, 200, 200 * 4096, NVME_SC_INVALID_FIELD},
		{NVME_CMD_READ, 1, 0, 2, 4096, NVME_SC_SGL_INVALID_DATA},
		{NVME_CMD_WRITE, 1, 0, 2, 12288, NVME_SC_SGL_INVALID_DATA},
		{NVME_CMD_COMPARE, 1, 0, 1, 4096, NVME_SC_INVALID_OPCODE},
		{0xff, 1, 0, 1, 4096, NVME_SC_INVALID_OPCODE},
		{NVME_ADMIN_IDENTIFY + 0x80, 1, 0, 1, 4096, NVME_SC_INVALID_OPCODE},
	};
	uint8_t data[4096];
	struct nvme_sqe sqe;

	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		nvme_sqe_set_rw(
			&sqe, cases[i].opcode, 0, cases[i].nsid, cases[i].slba, cases[i].nlb, 0);
		sqe.dptr = nvme_sgl_transport(cases[i].sgl_bytes);
		host_cmd(&h, &sqe, NULL, 0);
		assert_int_equal(host_resp(&h, &sqe, NULL), cases[i].status | NVME_SC_DNR);
	}
	assert_int_equal(b->nsubmitted, 0);
	/* Descriptors: of another kind, outside of the capsule, in the capsule of a read. */
	host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 1, 0);
	sqe.dptr.id = NVME_SGL_ID_KEYED;
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR);
	host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 1, 0);
	sqe.dptr = nvme_sgl_in_capsule(1, 4096);
	host_cmd(&h, &sqe, data, sizeof(data));
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_SGL_INVALID_DATA | NVME_SC_DNR);
	sqe.dptr = nvme_sgl_in_capsule(UINT64_MAX, 4096);
	host_cmd(&h, &sqe, data, sizeof(data));
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_SGL_INVALID_OFFSET | NVME_SC_DNR);
	host_rw(&h, &sqe, NVME_CMD_READ, 0, 1, 0);
	sqe.dptr = nvme_sgl_in_capsule(0, 4096);
	host_cmd(&h, &sqe, data, sizeof(data));
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_SGL_INVALID_TYPE | NVME_SC_DNR);
	host_rw(&h, &sqe, NVME_CMD_READ, 0, 1, 0);
	sqe.flags |= 1; /* fused */
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_INVALID_FIELD | NVME_SC_DNR);
	assert_int_equal(b->nsubmitted, 0);
	/* And data in the capsule that the descriptor does not point to is not used. */
	host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 1, 0);
	pattern(data, sizeof(data), 8);
	host_cmd(&h, &sqe, (uint8_t[4096]){1}, 4096);
	host_h2c(&h, from_le16(sqe.cid), host_r2t(&h, &sqe, 4096), 0, data, 4096, NVME_TCP_F_LAST);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_SUCCESS);
	assert_memory_equal(b->vol.bytes, data, 4096);
	host_close(&h);
	host_close(&admin);
}

/* ---- who may connect to what --------------------------------------------------------------------------------- */
static void another_vms_subsystem_cannot_be_reached(void **state)
{
	struct bed *b = *state;
	struct host h = host_open(b, b->port2);
	uint64_t result;

	host_icreq(&h, 0);
	assert_int_equal(
		host_connect_full(&h,
			(struct nvme_connect){.subnqn = BED_NQN, .cntlid = NVME_CNTLID_ANY},
			&result),
		NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR);
	assert_int_equal(result, NVME_CONNECT_INVALID_DATA(256));
	/* Nothing works on the connection but another Connect. */
	assert_int_equal(host_connect(&h, BED_NQN2, 0, NVME_CNTLID_ANY), NVME_SC_SUCCESS);
	host_close(&h);
}

static void an_io_queue_joins_only_its_own_vms_controller(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, 0);
	struct host h = host_open(b, b->port2);
	uint64_t result;

	host_icreq(&h, 0);
	assert_int_equal(
		host_connect_full(&h,
			(struct nvme_connect){.subnqn = BED_NQN2, .qid = 1, .cntlid = admin.cntlid},
			&result),
		NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR);
	assert_int_equal(result, NVME_CONNECT_INVALID_DATA(16));
	host_close(&h);
	host_close(&admin);
}

static void connects_with_wrong_parameters_are_refused(void **state)
{
	static const uint8_t other_host[16] = {9};
	struct bed *b = *state;
	struct host admin = host_admin(b, 0), io = host_io(b, &admin, 1, 0);
	const struct {
		struct nvme_connect c;
		uint16_t status;
		uint64_t result;
	} cases[] = {
		{{.subnqn = "nqn.2026-01.test:nobody", .cntlid = NVME_CNTLID_ANY},
			NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_DATA(256)},
		{{.subnqn = BED_NQN, .cntlid = 5}, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(16)},
		{{.subnqn = BED_NQN, .cntlid = NVME_CNTLID_ANY, .sqsize = 128},
			NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_SQE(44)},
		{{.subnqn = BED_NQN, .cntlid = 0x7777, .qid = 2}, NVME_SC_CONNECT_INVALID_PARAM,
			NVME_CONNECT_INVALID_DATA(16)},
		{{.subnqn = BED_NQN, .cntlid = admin.cntlid, .qid = 17},
			NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_SQE(42)},
		{{.subnqn = BED_NQN, .cntlid = admin.cntlid, .qid = 0xffff},
			NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_SQE(42)},
		{{.subnqn = BED_NQN,
			 .cntlid = admin.cntlid,
			 .qid = 2,
			 .hostnqn = "nqn.2026-01.test:other"},
			NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_DATA(512)},
		{{.subnqn = BED_NQN, .cntlid = admin.cntlid, .qid = 2, .hostid = other_host},
			NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_DATA(0)},
		{{.subnqn = BED_NQN, .cntlid = admin.cntlid, .qid = 1}, NVME_SC_CMD_SEQ_ERROR, 0},
		{{.subnqn = NVME_DISCOVERY_NQN, .cntlid = admin.cntlid, .qid = 2},
			NVME_SC_CONNECT_INVALID_PARAM, NVME_CONNECT_INVALID_DATA(256)},
	};
	struct host h = host_open(b, b->port);
	uint64_t result;

	host_icreq(&h, 0);
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		assert_int_equal(
			host_connect_full(&h, cases[i].c, &result), cases[i].status | NVME_SC_DNR);
		assert_int_equal(result, cases[i].result);
	}
	assert_int_equal(bed_stats(b).refused_connects, ARRAY_LEN(cases));
	host_close(&h);
	host_close(&io);
	host_close(&admin);
}

static void only_named_hosts_may_connect_where_hosts_are_named(void **state)
{
	static const char *const hosts[] = {BED_HOST};
	struct bed *b = bed_open(&(struct bed_cfg){.hosts = hosts, .nhosts = 1});
	struct host h = host_open(b, b->port);
	struct nvme_discovery_header log;
	struct nvme_sqe sqe;

	host_icreq(&h, 0);
	assert_int_equal(host_connect_full(&h,
				 (struct nvme_connect){.subnqn = BED_NQN,
					 .cntlid = NVME_CNTLID_ANY,
					 .hostnqn = "nqn.2026-01.test:x"},
				 NULL),
		NVME_SC_CONNECT_INVALID_HOST | NVME_SC_DNR);
	/* It may ask, and sees nothing. */
	assert_int_equal(host_connect_full(&h,
				 (struct nvme_connect){.subnqn = NVME_DISCOVERY_NQN,
					 .cntlid = NVME_CNTLID_ANY,
					 .hostnqn = "nqn.2026-01.test:x"},
				 NULL),
		NVME_SC_SUCCESS);
	host_property_set(&h, NVME_PROP_CC, NVME_CC_EN);
	nvme_sqe_set_get_log(&sqe, 0, NVME_LOG_DISCOVERY, 0, sizeof(log));
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp_data(&h, &sqe, &log, sizeof(log)), 0);
	assert_int_equal(from_le64(log.numrec), 0);
	host_close(&h);
	h = host_admin(b, 0);
	host_close(&h);
	bed_close(b);
	(void)state;
}

static void commands_before_their_time_are_refused(void **state)
{
	struct bed *b = *state;
	struct host h = host_open(b, b->port), io = host_open(b, b->port);
	struct nvme_sqe sqe;

	host_icreq(&h, 0);
	host_icreq(&io, 0);
	nvme_sqe_set_identify(&sqe, 0, 0, NVME_CNS_CTRL); /* before Connect */
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	nvme_property_get_fill(&sqe, 0, NVME_PROP_CAP, 8);
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	assert_int_equal(host_connect(&h, BED_NQN, 0, NVME_CNTLID_ANY), NVME_SC_SUCCESS);
	nvme_sqe_set_identify(&sqe, 0, 0, NVME_CNS_CTRL); /* before CC.EN */
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	assert_int_equal(
		host_connect(&io, BED_NQN, 1, h.cntlid), NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	assert_int_equal(
		host_connect(&h, BED_NQN, 0, NVME_CNTLID_ANY), NVME_SC_CMD_SEQ_ERROR | NVME_SC_DNR);
	/* A configuration we cannot run. */
	host_property_set(
		&h, NVME_PROP_CC, NVME_CC_EN | 1u << NVME_CC_MPS_SHIFT | 6u << 16 | 4u << 20);
	assert_int_equal(host_property_get(&h, NVME_PROP_CSTS, 4), NVME_CSTS_CFS);
	/* Properties that are not, or of another size. */
	nvme_property_get_fill(&sqe, 0, NVME_PROP_CAP, 4);
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_INVALID_FIELD | NVME_SC_DNR);
	nvme_property_set_fill(&sqe, 0, NVME_PROP_CAP, 4, 0);
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_INVALID_FIELD | NVME_SC_DNR);
	host_close(&io);
	host_close(&h);
}

/* ---- hosts that go away, or stay and say nothing ------------------------------------------------------------- */
static void a_disconnect_anywhere_in_a_write_leaves_nothing_behind(void **state)
{
	struct bed *b = *state;
	uint8_t head[NVME_TCP_HEAD_MAX], data[65536];
	struct host_pdu p = {0};
	struct nvme_sqe sqe;

	pattern(data, sizeof(data), 2);
	for (int stage = 0; stage < 7; stage++) {
		struct host admin = host_admin(b, 0);
		struct host h = host_io(b, &admin, 1, 0);
		uint16_t ttag = 0;

		b->hold = stage >= 5;
		host_rw(&h, &sqe, NVME_CMD_WRITE, 0, 16, 0);
		sqe.cid = to_le16(7);
		nvme_tcp_put_cmd(&h.link, head, &sqe, 0);
		host_send(&h, head,
			stage == 0   ? 5
			: stage == 1 ? 40
				     : 72); /* header torn in two places */
		if (stage >= 2) {
			assert_true(host_recv(&h, &p));
			ttag = from_le16(p.pdu.r2t->ttag);
		}
		if (stage >= 3) {
			host_send(&h, head,
				nvme_tcp_put_h2c_data(
					&h.link, head, 7, ttag, 0, 65536, NVME_TCP_F_LAST));
			host_send(&h, data, stage == 3 ? 0 : stage == 4 ? 30000 : 65536);
		}
		if (stage >= 5)
			bed_until(b, &b->nqueued, 1);
		if (stage == 6) { /* the whole controller goes, I/O in flight */
			host_close(&admin);
			bed_rounds(b, 200);
		}
		host_close(&h);
		bed_rounds(b, 200);
		b->hold = false;
		bed_rounds(b, 50);
		host_close(&admin);
		bed_rounds(b, 200);
		assert_int_equal(bed_stats(b).conns, 0);
		assert_int_equal(bed_stats(b).commands, 0);
		assert_int_equal(nvme_tcp_ns_del(b->vm, 1) == -EBUSY, 0);
		assert_int_equal(nvme_tcp_ns_add(b->vm,
					 &(struct nvme_tcp_ns_cfg){.nsid = 1,
						 .vol = (struct volume *)&b->vol,
						 .size_bytes = BED_BYTES,
						 .block_bytes = 4096,
						 .nguid = {1}},
					 NULL),
			0);
	}
	host_pdu_free(&p);
	still_works(b);
}

static void a_host_that_does_not_read_its_answers_stops_only_itself(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, 0);
	struct host h = host_io(b, &admin, 1, 0);
	struct nvme_sqe sqe;
	uint8_t data[4096];
	struct nvme_tcp_vm_stats s;

	/* 120 reads of 512 KiB each: 60 MiB that the host does not take, through 4 MiB of buffers. */
	for (int i = 0; i < 120; i++) {
		host_rw(&h, &sqe, NVME_CMD_READ, 0, 128, 0);
		host_cmd(&h, &sqe, NULL, 0);
	}
	for (int i = 0; i < 10000 && bed_stats(b).buffer_waits <= 50; i++)
		bed_rounds(b, 10);
	s = bed_stats(b);
	assert_true(s.commands > 50);
	assert_true(s.buffer_waits > 50);
	/* The other VM has buffers of its own. */
	still_works(b);
	host_close(&h);
	bed_rounds(b, 200);
	h = host_io(b, &admin, 1, 0);
	assert_int_equal(host_write(&h, 5, data, sizeof(data)), NVME_SC_SUCCESS);
	host_close(&h);
	host_close(&admin);
}

static void deleting_a_vm_waits_for_what_is_in_the_backend(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, 0);
	struct host h = host_io(b, &admin, 1, 0);
	struct nvme_sqe sqe;

	b->hold = true;
	for (int i = 0; i < 10; i++) {
		host_rw(&h, &sqe, NVME_CMD_READ, 0, 1, 0);
		host_cmd(&h, &sqe, NULL, 0);
	}
	bed_until(b, &b->nqueued, 10);
	assert_int_equal(nvme_tcp_ns_del(b->vm, 1), -EBUSY);
	nvme_tcp_vm_disconnect(b->vm);
	assert_true(host_closed(&h));
	assert_int_equal(bed_stats(b).conns, 0);
	assert_int_equal(
		bed_stats(b).commands, 10); /* still there: their buffers are being written to */
	assert_int_equal(nvme_tcp_ns_del(b->vm, 1), -EBUSY);
	host_close(&h);
	host_close(&admin);
}

static void connections_that_never_connect_are_dropped(void **state)
{
	struct bed *b = bed_open(&(struct bed_cfg){.target = {.handshake_ms = 30}});
	struct host a = host_open(b, b->port), c = host_open(b, b->port);

	host_icreq(&c, 0);
	assert_true(host_closed(&a));
	assert_true(host_closed(&c));
	assert_int_equal(bed_stats(b).handshake_timeouts, 2);
	host_close(&a);
	host_close(&c);
	bed_close(b);
	(void)state;
}

static void a_host_that_does_not_close_after_a_term_request_is_cut_off(void **state)
{
	struct bed *b = bed_open(&(struct bed_cfg){.target = {.linger_ms = 30}});
	struct host h = host_admin(b, 0);
	uint8_t junk[64] = {0x55};

	host_send(&h, junk, sizeof(junk));
	host_expect_term(&h, NVME_TCP_FES_INVALID_FIELD, 0);
	bed_close(b);
	(void)state;
}

static void a_silent_host_loses_its_controller_and_a_living_one_does_not(void **state)
{
	struct bed *b = *state;
	struct host h = host_open(b, b->port), io;
	struct nvme_sqe sqe;
	uint64_t result;

	host_icreq(&h, 0);
	assert_int_equal(
		host_connect_full(&h,
			(struct nvme_connect){
				.subnqn = BED_NQN, .cntlid = NVME_CNTLID_ANY, .kato_ms = 100},
			&result),
		NVME_SC_SUCCESS);
	h.cntlid = (uint16_t)result;
	host_property_set(&h, NVME_PROP_CC, NVME_CC_EN | 6u << 16 | 4u << 20);
	io = host_io(b, &h, 1, 0);
	nvme_sqe_init(&sqe, NVME_ADMIN_KEEP_ALIVE, 0, 0);
	host_cmd(&h, &sqe, NULL, 0);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_SUCCESS);
	assert_true(host_closed(&io));
	assert_true(host_closed(&h));
	assert_int_equal(bed_stats(b).keep_alive_timeouts, 1);
	host_close(&io);
	host_close(&h);
	still_works(b);
}

static void connections_are_capped_per_vm(void **state)
{
	struct bed *b = bed_open(&(struct bed_cfg){.target = {.max_conns = 3}});
	struct host h[4];

	for (int i = 0; i < 3; i++) {
		h[i] = host_open(b, b->port);
		host_icreq(&h[i], 0);
	}
	h[3] = host_open(b, b->port);
	assert_true(host_closed(&h[3]));
	assert_int_equal(bed_stats(b).refused_conns, 1);
	host_close(&h[0]);
	bed_rounds(b, 100);
	host_close(&h[3]);
	h[3] = host_open(b, b->port);
	host_icreq(&h[3], 0);
	for (int i = 1; i < 4; i++)
		host_close(&h[i]);
	bed_close(b);
	(void)state;
}

static void a_hosts_term_request_closes_the_connection(void **state)
{
	struct bed *b = *state;
	struct host h = host_admin(b, BOTH);
	struct nvme_tcp_fault f = {.fes = NVME_TCP_FES_SEQUENCE};
	uint8_t head[NVME_TCP_TERM_MAX], bad[128] = {1, 2, 3};

	host_send(&h, head, nvme_tcp_put_term(&h.link, head, &f, bad, sizeof(bad)));
	assert_true(host_closed(&h));
	assert_int_equal(bed_stats(b).host_terms, 1);
	assert_int_equal(bed_stats(b).pdu_errors, 0);
	host_close(&h);
}

/* ---- bytes one at a time, and bytes at random ------------------------------------------------------------------ */
static void bytes_may_come_one_at_a_time(void **state)
{
	struct bed *b = *state;
	struct host admin = host_admin(b, BOTH);
	struct host h = host_io(b, &admin, 1, BOTH);
	uint8_t buf[NVME_TCP_HEAD_MAX + 4096 + 4], data[4096];
	struct nvme_sqe sqe;
	le32 digest;
	size_t n;

	pattern(data, sizeof(data), 12);
	digest = to_le32(crc32c(data, sizeof(data)));
	host_rw(&h, &sqe, NVME_CMD_WRITE, 4, 1, 0);
	sqe.dptr = nvme_sgl_in_capsule(0, 4096);
	n = nvme_tcp_put_cmd(&h.link, buf, &sqe, 4096);
	memcpy(buf + n, data, 4096);
	memcpy(buf + n + 4096, &digest, 4);
	n += 4100;
	for (size_t i = 0; i < n; i++)
		host_send(&h, buf + i, 1);
	assert_int_equal(host_resp(&h, &sqe, NULL), NVME_SC_SUCCESS);
	assert_memory_equal(b->vol.bytes + 4 * 4096, data, 4096);
	host_close(&h);
	host_close(&admin);
}

static uint32_t rng_state;

static uint32_t rnd(void)
{
	rng_state = rng_state * 1664525u + 1013904223u;
	return rng_state >> 8;
}

/* Valid PDUs with a few bytes changed, then whatever the target answers. */
static void mutated_traffic_does_no_harm(void **state)
{
	struct bed *b = *state;
	uint32_t seed = getenv("SEED") ? (uint32_t)strtoul(getenv("SEED"), NULL, 0) : 20261122;
	uint8_t buf[NVME_TCP_HEAD_MAX + 8192], sink[4096];

	print_message("# seed %u\n", seed);
	rng_state = seed;
	for (int round = 0; round < 300; round++) {
		uint8_t digests = round % 4 == 3 ? BOTH : 0;
		struct host admin = host_admin(b, digests);
		struct host h = host_io(b, &admin, 1, digests);
		struct nvme_sqe sqe;

		for (int i = 0; i < 8; i++) {
			uint32_t len = rnd() % 3 ? 0 : 4096;
			size_t n;

			host_rw(&h, &sqe, rnd() % 4 ? (uint8_t)(rnd() % 10) : (uint8_t)rnd(),
				rnd() % 3000, 1, 0);
			sqe.cid = to_le16((uint16_t)rnd());
			if (len)
				sqe.dptr = nvme_sgl_in_capsule(0, len);
			if (rnd() % 4 == 0)
				n = nvme_tcp_put_h2c_data(&h.link, buf, (uint16_t)(rnd() % 4),
					(uint16_t)(rnd() % 4), 0, 4096, NVME_TCP_F_LAST);
			else
				n = nvme_tcp_put_cmd(&h.link, buf, &sqe, len);
			pattern(buf + n, 8192, rnd());
			for (uint32_t m = rnd() % 3; m > 0; m--)
				buf[rnd() % n] = (uint8_t)rnd();
			host_send(&h, buf, n + len);
			bed_rounds(b, (int)(rnd() % 8));
			while (recv(h.fd, sink, sizeof(sink), MSG_DONTWAIT) > 0)
				;
		}
		host_close(&h);
		host_close(&admin);
		bed_rounds(b, 60);
	}
	for (int i = 0; i < 1000 && bed_stats(b).conns; i++)
		bed_rounds(b, 10);
	assert_int_equal(bed_stats(b).conns, 0);
	assert_int_equal(bed_stats(b).commands, 0);
	still_works(b);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
/* The same over streams that lend received bytes in odd pieces. */
#define B(name)                                                       \
	{                                                             \
#name "_borrowed", name, setup_borrow, teardown, NULL \
	}
int main(void)
{
	const struct CMUnitTest tests[] = {
		T(bad_headers_are_answered_with_the_right_term_request),
		T(nothing_but_icreq_may_come_first),
		T(a_wrong_header_digest_ends_the_connection),
		T(a_wrong_data_digest_fails_its_command_and_nothing_else),
		T(data_outside_of_the_r2t_ends_the_connection),
		T(data_for_no_command_at_all_ends_the_connection),
		T(data_again_after_the_transfer_ended_ends_the_connection),
		T(more_commands_than_the_queue_holds_end_the_connection),
		T(commands_that_make_no_sense_fail_and_harm_nothing),
		T(another_vms_subsystem_cannot_be_reached),
		T(an_io_queue_joins_only_its_own_vms_controller),
		T(connects_with_wrong_parameters_are_refused),
		cmocka_unit_test(only_named_hosts_may_connect_where_hosts_are_named),
		T(commands_before_their_time_are_refused),
		T(a_disconnect_anywhere_in_a_write_leaves_nothing_behind),
		T(a_host_that_does_not_read_its_answers_stops_only_itself),
		T(deleting_a_vm_waits_for_what_is_in_the_backend),
		cmocka_unit_test(connections_that_never_connect_are_dropped),
		cmocka_unit_test(a_host_that_does_not_close_after_a_term_request_is_cut_off),
		T(a_silent_host_loses_its_controller_and_a_living_one_does_not),
		cmocka_unit_test(connections_are_capped_per_vm),
		T(a_hosts_term_request_closes_the_connection),
		T(bytes_may_come_one_at_a_time),
		T(mutated_traffic_does_no_harm),
		B(bad_headers_are_answered_with_the_right_term_request),
		B(a_wrong_data_digest_fails_its_command_and_nothing_else),
		B(data_outside_of_the_r2t_ends_the_connection),
		B(a_disconnect_anywhere_in_a_write_leaves_nothing_behind),
		B(a_host_that_does_not_read_its_answers_stops_only_itself),
		B(deleting_a_vm_waits_for_what_is_in_the_backend),
		B(mutated_traffic_does_no_harm),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
