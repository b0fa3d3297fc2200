/* SPDX-License-Identifier: BSD-3-Clause */
/* A card and its peers: what they offer, whatever they answer; whose their flash is. Peers are scripted ones on a shard and a thread of their own. */
#include "tests/unit/control_rig.h"

#include "common/nvme/fabrics.h"
#include "dpu/nvmf/dev.h"
#include "tests/unit/nvmf_peer.h"

#define PEERS 3

static struct peers {
	pthread_t thread;
	sem_t up;
	struct shard *sh;
	struct peer_cfg cfg;
	struct peer *p[PEERS];
	unsigned int n;
} peers;

static void *peers_main(void *arg)
{
	if (shard_open(&(struct shard_cfg){.mode = SHARD_INTERRUPT}, &peers.sh) < 0)
		abort();
	for (unsigned int i = 0; i < peers.n; i++)
		if (peer_open(peers.sh, &peers.cfg, &peers.p[i]) < 0)
			abort();
	sem_post(&peers.up);
	shard_run(peers.sh);
	for (unsigned int i = 0; i < peers.n; i++)
		peer_close(peers.p[i]);
	shard_close(peers.sh);
	return NULL;
}

static void peers_start(const struct peer_cfg *cfg, unsigned int n)
{
	peers.cfg = *cfg;
	peers.n = n;
	sem_init(&peers.up, 0, 0);
	assert_int_equal(pthread_create(&peers.thread, NULL, peers_main, NULL), 0);
	while (sem_wait(&peers.up) < 0)
		;
}

static void peers_stop(void)
{
	shard_stop(peers.sh);
	pthread_join(peers.thread, NULL);
	sem_destroy(&peers.up);
	peers.n = 0;
}

/* ---- discovery ---------------------------------------------------------------------------------------------------------- */

/* What the log says, and how often it was read. */
static struct script {
	uint64_t numrec;
	uint16_t recfmt;
	bool changes, endless;
	unsigned int reads, n;
	struct nvme_discovery_record r[16];
} script;

static void text_put(char *field, const char *text)
{
	memset(field, ' ', strlen(text) + 8); /* as some targets fill them */
	memcpy(field, text, strlen(text));
}

static struct nvme_discovery_record *add(const char *host, const char *port, const char *nqn)
{
	struct nvme_discovery_record *r = &script.r[script.n++];

	memset(r, 0, sizeof(*r));
	r->trtype = NVME_TRTYPE_TCP;
	r->adrfam = NVME_ADRFAM_IPV4;
	r->subtype = NVME_DISC_SUBTYPE_NVM;
	text_put(r->traddr, host);
	text_put(r->trsvcid, port);
	snprintf(r->subnqn, sizeof(r->subnqn), "%s", nqn);
	script.numrec = script.n;
	return r;
}

static void give_log(void *arg, uint64_t off, uint8_t *buf, uint32_t len)
{
	struct nvme_discovery_header h = {.numrec = to_le64(script.numrec),
		.recfmt = to_le16(script.recfmt),
		.genctr = to_le64(script.changes ? ++script.reads : 1)};

	memset(buf, 0, len);
	if (off == 0)
		memcpy(buf, &h, MIN(len, (uint32_t)sizeof(h)));
	for (uint32_t at = 0; off >= sizeof(h) && at + sizeof(script.r[0]) <= len;
		at += sizeof(script.r[0])) {
		uint64_t i = (off - sizeof(h) + at) / sizeof(script.r[0]);

		if (i < script.n || script.endless)
			memcpy(buf + at, &script.r[i % script.n], sizeof(script.r[0]));
	}
}

static void script_reset(void)
{
	memset(&script, 0, sizeof(script));
}

static char port_text[8];

static void discovery_start(void)
{
	script_reset();
	peers_start(&(struct peer_cfg){.log_fn = give_log}, 1);
	snprintf(port_text, sizeof(port_text), "%u", peers.p[0]->port);
}

static int discover(struct rig *r, uint32_t port, struct rpc_msg *m)
{
	Parapet__FlashDiscover fd = PARAPET__FLASH_DISCOVER__INIT;

	fd.host = (char *)"127.0.0.1";
	fd.has_port = true;
	fd.port = port;
	return ASK(r, FLASH_DISCOVER, flash_discover, &fd, m);
}

static const Parapet__Discovery *found(struct rig *r, struct rpc_msg *m)
{
	if (discover(r, peers.p[0]->port, m) < 0)
		fail_msg("%s", err_text(&r->e));
	assert_int_equal(m->frame->response->result_case, PARAPET__RESPONSE__RESULT_DISCOVERY);
	return m->frame->response->discovery;
}

static bool remarked(const Parapet__Discovery *d, const char *text)
{
	for (size_t i = 0; i < d->n_remarks; i++)
		if (strstr(d->remarks[i], text))
			return true;
	return false;
}

static void namespaces_of_a_peer_are_listed_with_their_addresses(void **state)
{
	const Parapet__Discovery *d;
	struct rig *r = *state;
	struct rpc_msg m;
	char want[128];

	discovery_start();
	add("127.0.0.1", port_text, PEER_NQN);
	add("127.0.0.1", port_text, PEER_NQN); /* once is enough */
	add("0.0.0.0", port_text, PEER_NQN)->portid = to_le16(2); /* and there it listens, too */
	d = found(r, &m);
	assert_int_equal(d->n_found, 1);
	assert_int_equal(d->n_remarks, 0);
	assert_false(d->truncated);
	assert_string_equal(d->found[0]->subnqn, PEER_NQN);
	assert_int_equal(d->found[0]->nsid, 1);
	assert_int_equal(d->found[0]->block_bytes, PEER_BLOCK);
	assert_int_equal(d->found[0]->size_bytes, (uint64_t)PEER_BLOCKS * PEER_BLOCK);
	assert_int_equal(d->found[0]->nguid.len, 16);
	snprintf(want, sizeof(want), "nvme+tcp://127.0.0.1:%s/%s#1", port_text, PEER_NQN);
	assert_string_equal(d->found[0]->flash_address, want);
	assert_null(d->found[0]->member);
	rpc_msg_clear(&m);
	peers_stop();
}

static void a_log_of_2_to_the_60_records_is_cut(void **state)
{
	const Parapet__Discovery *d;
	struct rpc_msg m;

	discovery_start();
	add("127.0.0.1", port_text, PEER_NQN);
	script.numrec = 1ull << 60;
	script.endless = true;
	d = found(*state, &m);
	assert_int_equal(d->n_found, 1);
	assert_true(d->truncated);
	assert_true(remarked(d, "more records"));
	rpc_msg_clear(&m);
	peers_stop();
}

static void a_log_that_keeps_changing_is_used_as_it_was_read_last(void **state)
{
	const Parapet__Discovery *d;
	struct rpc_msg m;

	discovery_start();
	add("127.0.0.1", port_text, PEER_NQN);
	script.changes = true;
	d = found(*state, &m);
	assert_int_equal(d->n_found, 1);
	assert_true(d->truncated);
	assert_true(remarked(d, "changes"));
	rpc_msg_clear(&m);
	peers_stop();
}

static void records_of_rubbish_are_left_out_with_a_remark(void **state)
{
	const Parapet__Discovery *d;
	struct nvme_discovery_record *r;
	struct rpc_msg m;

	discovery_start();
	add("127.0.0.1", port_text, PEER_NQN)->trtype = 2; /* Fibre Channel */
	r = add("127.0.0.1", port_text, PEER_NQN);
	memset(r->traddr, 'A', sizeof(r->traddr)); /* does not end */
	add("127.0.0.1", "99999", PEER_NQN);
	add("127.0.0.1", "", PEER_NQN);
	add("evil.example", port_text, PEER_NQN);
	r = add("127.0.0.1", port_text, PEER_NQN);
	memset(r->subnqn, 'n', sizeof(r->subnqn));
	add("127.0.0.1", port_text, "nqn.2026-01.a\x1b[2Jb");
	add("127.0.0.1", port_text, "nqn.2026-01.a#b?c");
	r = add("127.0.0.1", port_text, PEER_NQN);
	memset(r, 0xff, sizeof(*r));
	add("127.0.0.1", port_text, PEER_NQN);
	d = found(*state, &m);
	assert_int_equal(d->n_found, 1);
	assert_true(remarked(d, "record 0 is left out: its transport"));
	for (unsigned int i = 1; i < 5; i++) {
		char text[64];

		snprintf(text, sizeof(text), "record %u is left out: its address", i);
		assert_true(remarked(d, text));
	}
	assert_true(remarked(d, "record 5 is left out: its subsystem name"));
	assert_true(remarked(d, "record 6 is left out: its subsystem name"));
	assert_true(remarked(d, "record 7 is left out: its subsystem name"));
	for (size_t i = 0; i < d->n_remarks; i++)
		assert_null(strchr(d->remarks[i], 0x1b));
	rpc_msg_clear(&m);
	peers_stop();
}

static void referrals_are_followed_once_and_never_in_circles(void **state)
{
	const Parapet__Discovery *d;
	struct rig *r = *state;
	struct rpc_msg m;
	char other[8];

	script_reset();
	peers_start(&(struct peer_cfg){.log_fn = give_log}, 2);
	snprintf(port_text, sizeof(port_text), "%u", peers.p[0]->port);
	snprintf(other, sizeof(other), "%u", peers.p[1]->port);
	/* Both give the same log: it refers to both of them, and to nobody. */
	add("127.0.0.1", port_text, NVME_DISCOVERY_NQN)->subtype = NVME_DISC_SUBTYPE_REFERRAL;
	add("127.0.0.1", other, NVME_DISCOVERY_NQN)->subtype = NVME_DISC_SUBTYPE_REFERRAL;
	add("127.0.0.1", "1", NVME_DISCOVERY_NQN)->subtype = NVME_DISC_SUBTYPE_REFERRAL;
	add("127.0.0.1", other, PEER_NQN);
	d = found(r, &m);
	assert_int_equal(d->n_found, 1);
	assert_int_equal(d->n_remarks, 1);
	assert_true(remarked(d, "referral 127.0.0.1:1:"));
	rpc_msg_clear(&m);
	/* More of them than anybody follows. */
	script_reset();
	for (unsigned int i = 0; i < 12; i++) {
		char port[8];

		snprintf(port, sizeof(port), "%u", i + 1);
		add("127.0.0.1", port, NVME_DISCOVERY_NQN)->subtype = NVME_DISC_SUBTYPE_REFERRAL;
	}
	d = found(r, &m);
	assert_true(d->truncated);
	assert_true(remarked(d, "more referrals"));
	rpc_msg_clear(&m);
	peers_stop();
}

static void a_log_of_another_format_is_told_as_the_peers_fault(void **state)
{
	struct rig *r = *state;
	struct rpc_msg m;

	discovery_start();
	add("127.0.0.1", port_text, PEER_NQN);
	script.recfmt = 7;
	assert_int_equal(discover(r, peers.p[0]->port, &m), -EHOSTUNREACH);
	assert_string_equal(r->e.object, "host 127.0.0.1");
	assert_non_null(strstr(r->e.reason, "discovery log"));
	peers_stop();
}

static void many_namespaces(void *arg, uint32_t after, le32 *list)
{
	for (uint32_t i = 0; i < 1024; i++)
		list[i] = to_le32(after + i + 1);
}

static void namespaces_in_circles(void *arg, uint32_t after, le32 *list)
{
	for (uint32_t i = 0; i < 1024; i++)
		list[i] = to_le32(1);
}

static void namespaces_without_end_are_cut(void **state)
{
	const Parapet__Discovery *d;
	struct rpc_msg m;

	script_reset();
	peers_start(&(struct peer_cfg){.log_fn = give_log, .list_fn = many_namespaces}, 1);
	snprintf(port_text, sizeof(port_text), "%u", peers.p[0]->port);
	add("127.0.0.1", port_text, PEER_NQN);
	d = found(*state, &m);
	assert_true(d->n_found > 0 && d->n_found <= 1024);
	assert_true(d->truncated);
	rpc_msg_clear(&m);
	peers_stop();
	script_reset();
	peers_start(&(struct peer_cfg){.log_fn = give_log, .list_fn = namespaces_in_circles}, 1);
	snprintf(port_text, sizeof(port_text), "%u", peers.p[0]->port);
	add("127.0.0.1", port_text, PEER_NQN);
	d = found(*state, &m);
	assert_int_equal(d->n_found, 0);
	assert_true(remarked(d, "makes no sense"));
	rpc_msg_clear(&m);
	peers_stop();
}

static void requests_that_make_no_sense_name_their_field(void **state)
{
	static const struct {
		const char *host, *transport, *field;
		uint32_t port;
	} bad[] = {
		{"peer.example", NULL, "host", 0},
		{"10.0.0.2:8009", NULL, "host", 0},
		{"", NULL, "host", 0},
		{"[::1", NULL, "host", 0},
		{"10.0.0.2", "fc", "transport", 0},
		{"10.0.0.2", NULL, "port", 65536},
	};
	struct rig *r = *state;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		Parapet__FlashDiscover fd = PARAPET__FLASH_DISCOVER__INIT;
		struct rpc_msg m;

		fd.host = (char *)bad[i].host;
		fd.transport = (char *)bad[i].transport;
		fd.has_port = bad[i].port;
		fd.port = bad[i].port;
		assert_int_equal(ASK(r, FLASH_DISCOVER, flash_discover, &fd, &m), -EINVAL);
		assert_string_equal(r->e.field, bad[i].field);
		assert_int_equal(strncmp(r->e.object, "host ", 5), 0);
	}
}

/* ---- whose flash it is ----------------------------------------------------------------------------------------------------- */

static char addresses[PEERS][128];

static void peer_flashes(struct create *c)
{
	create_init(c, 2, 1);
	for (int i = 0; i < PEERS; i++) {
		snprintf(addresses[i], sizeof(addresses[i]),
			"nvme+tcp://127.0.0.1:%u/%s:%d#1?queues=1", peers.p[i]->port, PEER_NQN, i);
		c->f[i].address = addresses[i];
	}
	c->msg.n_flashes = PEERS;
}

static int import(struct rig *r, struct create *c, bool take_over)
{
	Parapet__PoolOpen po = PARAPET__POOL_OPEN__INIT;
	struct rpc_msg m;
	int rc;

	po.flashes = c->list;
	po.n_flashes = PEERS;
	po.has_take_over = po.take_over = take_over;
	rc = ASK(r, POOL_OPEN, pool_open, &po, &m);
	if (rc == 0)
		rpc_msg_clear(&m);
	return rc;
}

static size_t count_claimed(struct rig *r)
{
	struct rpc_msg m;
	Parapet__Status *s = status(r, &m);
	size_t n = 0;

	for (size_t i = 0; i < s->pool->n_flashes; i++)
		n += s->pool->flashes[i]->claimed;
	rpc_msg_clear(&m);
	return n;
}

static bool pool_state_is(struct rig *r, const char *state)
{
	struct rpc_msg m;
	bool is = !strcmp(status(r, &m)->pool->state, state);

	rpc_msg_clear(&m);
	return is;
}

/* Somebody else, with an identity of its own, on a shard of its own. */
static struct stranger {
	struct shard *sh;
	struct nvmf_dev *d[PEERS];
} stranger;

static void stranger_open(void)
{
	static const uint8_t id[16] = {0x77};

	assert_int_equal(shard_open(&(struct shard_cfg){.mode = SHARD_INTERRUPT}, &stranger.sh), 0);
	for (int i = 0; i < PEERS; i++) {
		struct nvmf_dev_cfg cfg = {.ctrl = {.transport = "tcp", .hostid = id, .nqueues = 1},
			.npaths = 1,
			.nsid = 1};
		char nqn[64];

		snprintf(nqn, sizeof(nqn), "%s:%d", PEER_NQN, i);
		cfg.ctrl.subnqn = nqn;
		snprintf(cfg.paths[0].host, sizeof(cfg.paths[0].host), "127.0.0.1");
		cfg.paths[0].port = peers.p[i]->port;
		assert_int_equal(
			nvmf_dev_open(stranger.sh, &cfg, NULL, NULL, &stranger.d[i], NULL), 0);
		assert_int_equal(nvmf_dev_wait(stranger.d[i], 10000, NULL), 0);
	}
}

static int stranger_claims(bool preempt)
{
	int rc = 0;

	for (int i = 0; rc == 0 && i < PEERS; i++)
		rc = nvmf_dev_claim(stranger.d[i], 4711, preempt, NULL);
	return rc;
}

static void stranger_close(bool give_back)
{
	for (int i = 0; i < PEERS; i++) {
		if (give_back)
			nvmf_dev_unclaim(stranger.d[i], NULL);
		nvmf_dev_close(stranger.d[i]);
	}
	shard_close(stranger.sh);
}

static void members_on_peers_are_claimed_and_a_card_that_loses_them_is_fenced(void **state)
{
	Parapet__Checkpoint cp = PARAPET__CHECKPOINT__INIT;
	struct rig *r = *state;
	struct create c;
	struct rpc_msg m;

	peers_start(&(struct peer_cfg){.reservations = true, .nblocks = 32768}, PEERS);
	peer_flashes(&c);
	if (create(r, &c) < 0)
		fail_msg("%s", err_text(&r->e));
	assert_int_equal(count_claimed(r), PEERS);
	/* Every device is of the node that its address names. */
	assert_string_equal(status(r, &m)->pool->flashes[0]->flash->domain, "127.0.0.1");
	assert_true(m.frame->response->status->pool->flashes[0]->remote);
	assert_int_equal(m.frame->response->status->pool->flashes[0]->n_paths, 1);
	assert_int_equal(m.frame->response->status->pool->n_nodes, 1);
	assert_string_equal(m.frame->response->status->pool->nodes[0]->state, "up");
	assert_int_equal(m.frame->response->status->pool->survives, 1);
	assert_int_equal(m.frame->response->status->pool->survives_nodes, 0);
	rpc_msg_clear(&m);
	stranger_open();
	assert_int_equal(stranger_claims(false), -EBUSY);
	assert_true(pool_state_is(r, "online"));
	assert_int_equal(stranger_claims(true), 0);
	/* Its own flash tells the former owner, which fails none of it. */
	assert_true(ASK(r, CHECKPOINT, checkpoint, &cp, &m) < 0);
	for (int i = 0; !pool_state_is(r, "failed"); i++) {
		assert_true(i < 200);
		poll(NULL, 0, 50);
	}
	assert_non_null(strstr(status(r, &m)->pool->fenced, "another host holds its reservation"));
	for (size_t i = 0; i < PEERS; i++) {
		const char *is = m.frame->response->status->pool->flashes[i]->state;

		if (strcmp(is, "suspect")) /* machines are slow */
			assert_string_equal(is, "healthy");
	}
	rpc_msg_clear(&m);
	stranger_close(true);
	rig_stop(r);
	peers_stop();
	rig_start(r);
}

static void what_another_host_holds_is_not_opened_unless_it_is_taken_over(void **state)
{
	struct rig *r = *state;
	struct create c;

	peers_start(&(struct peer_cfg){.reservations = true, .nblocks = 32768}, PEERS);
	peer_flashes(&c);
	assert_int_equal(create(r, &c), 0);
	rig_stop(r);
	stranger_open();
	assert_int_equal(stranger_claims(false), 0); /* an orderly end has given them back */
	rig_start(r);
	assert_true(pool_state_is(r, "failed"));
	assert_non_null(strstr(r->card->pool_problem, "held by another host"));
	assert_int_equal(import(r, &c, false), -EBUSY);
	assert_string_equal(r->e.field, "reservation");
	assert_non_null(strstr(r->e.reason, "--take-over"));
	if (import(r, &c, true) < 0)
		fail_msg("%s", err_text(&r->e));
	assert_int_equal(count_claimed(r), PEERS);
	assert_int_equal(stranger_claims(false), -EBUSY);
	stranger_close(false);
	rig_stop(r);
	peers_stop();
	rig_start(r);
}

static void a_pool_of_another_card_is_taken_over_only_when_that_is_said_to_be_off(void **state)
{
	struct rig *r = *state, *other;
	void *second = NULL;
	struct create c;

	peers_start(&(struct peer_cfg){.reservations = false, .nblocks = 32768}, PEERS);
	peer_flashes(&c);
	assert_int_equal(create(r, &c), 0);
	assert_int_equal(count_claimed(r), 0);
	rig_stop(r);
	setup(&second);
	other = second;
	assert_int_equal(import(other, &c, false), -EOWNERDEAD);
	assert_string_equal(other->e.field, "owner");
	assert_non_null(strstr(other->e.reason, "--take-over"));
	assert_true(pool_state_is(other, "none"));
	if (import(other, &c, true) < 0)
		fail_msg("%s", err_text(&other->e));
	rig_stop(other);
	/* The former owner remembers it, and does not take it back by itself. */
	rig_start(r);
	assert_true(pool_state_is(r, "failed"));
	assert_non_null(strstr(r->card->pool_problem, "its last owner is card"));
	rig_start(other);
	assert_true(pool_state_is(other, "online")); /* its own it opens */
	teardown(&second);
	rig_stop(r);
	peers_stop();
	rig_start(r);
}

static void an_orderly_end_gives_the_reservations_back(void **state)
{
	struct rig *r = *state;
	struct create c;

	peers_start(&(struct peer_cfg){.reservations = true, .nblocks = 32768}, PEERS);
	peer_flashes(&c);
	assert_int_equal(create(r, &c), 0);
	assert_int_equal(count_claimed(r), PEERS);
	rig_stop(r);
	for (unsigned int i = 0; i < PEERS; i++)
		assert_int_equal(peers.p[i]->ns->type, 0);
	rig_start(r); /* the remembered pool is opened, and claimed */
	assert_int_equal(count_claimed(r), PEERS);
	rig_stop(r);
	peers_stop();
	rig_start(r);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(namespaces_of_a_peer_are_listed_with_their_addresses),
		T(a_log_of_2_to_the_60_records_is_cut),
		T(a_log_that_keeps_changing_is_used_as_it_was_read_last),
		T(records_of_rubbish_are_left_out_with_a_remark),
		T(referrals_are_followed_once_and_never_in_circles),
		T(a_log_of_another_format_is_told_as_the_peers_fault),
		T(namespaces_without_end_are_cut),
		T(requests_that_make_no_sense_name_their_field),
		T(members_on_peers_are_claimed_and_a_card_that_loses_them_is_fenced),
		T(what_another_host_holds_is_not_opened_unless_it_is_taken_over),
		T(a_pool_of_another_card_is_taken_over_only_when_that_is_said_to_be_off),
		T(an_orderly_end_gives_the_reservations_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
