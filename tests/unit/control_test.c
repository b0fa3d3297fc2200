/* SPDX-License-Identifier: BSD-3-Clause */
/* The card behind its control socket: a whole card in a thread, asked through the client the agent uses. */
#include "tests/unit/control_rig.h"

#include "dpu/flash/fault.h"

#include <stdatomic.h>
#include <sys/socket.h>

/* ---- tables ----------------------------------------------------------------------------------------------------------- */

static void tables_are_swapped_by_compare_and_only_forward(void **state)
{
	struct rig *r = *state;
	struct push p;

	push_init(&p, 0, 5);
	assert_int_equal(push(r, &p), 0);
	assert_int_equal(version_of(r), 5);
	push_init(&p, 4, 6); /* made from another version */
	assert_int_equal(push(r, &p), -ESTALE);
	assert_string_equal(r->e.field, "base_version");
	push_init(&p, 5, 5); /* not newer */
	assert_int_equal(push(r, &p), -ESTALE);
	push_init(&p, 5, 9);
	p.t.has_node = true;
	p.t.node = 3; /* of another node */
	assert_int_equal(push(r, &p), -EINVAL);
	assert_string_equal(r->e.field, "node");
	push_init(&p, 5, 9);
	assert_int_equal(push(r, &p), 0);
	assert_int_equal(version_of(r), 9);
}

static void a_refused_table_changes_nothing(void **state)
{
	struct rig *r = *state;
	struct rpc_msg m;
	struct push p;
	Parapet__Queue q = PARAPET__QUEUE__INIT;

	push_init(&p, 0, 1);
	assert_int_equal(push(r, &p), 0);
	push_init(&p, 1, 2);
	p.row.vm = 99;
	assert_int_equal(push(r, &p), -ENOENT);
	assert_string_equal(r->e.field, "vm");
	push_init(&p, 1, 2);
	p.vm.listen = NULL;
	p.vm.port = (char *)"net_memif0";
	p.vm.card_ip = (char *)"10.0.0.1/24";
	assert_int_equal(push(r, &p), -ENODEV);
	assert_string_equal(r->e.field, "port");
	push_init(&p, 1, 2);
	p.vm.vhost = (char *)"/tmp"; /* beside the listen address */
	assert_int_equal(push(r, &p), -ENODEV);
	assert_string_equal(r->e.field, "vhost");
	push_init(&p, 1, 2);
	q.has_age_us = true;
	q.age_us = 2000000;
	p.t.queue = &q;
	assert_int_equal(push(r, &p), -EINVAL);
	push_init(&p, 1, 2);
	p.vm.listen = (char *)"192.0.2.77:4420"; /* not an address of this machine */
	assert_true(push(r, &p) < 0);
	assert_string_equal(r->e.field, "listen");
	/* the VM is where it was, and up */
	assert_int_equal(version_of(r), 1);
	assert_int_equal(status(r, &m)->n_vms, 1);
	assert_null(m.frame->response->status->vms[0]->problem);
	assert_non_null(strstr(m.frame->response->status->vms[0]->access, "127.0.0.1"));
	rpc_msg_clear(&m);
}

static void a_check_tells_what_would_change_and_changes_nothing(void **state)
{
	struct rig *r = *state;
	Parapet__TablesApplied *a;
	struct rpc_msg m;
	struct push p;

	push_init(&p, 0, 1);
	p.msg.has_check_only = p.msg.check_only = true;
	assert_int_equal(ASK(r, TABLES_PUSH, tables_push, &p.msg, &m), 0);
	a = m.frame->response->applied;
	assert_int_equal(a->version, 0);
	assert_int_equal(a->n_changes, 1);
	assert_string_equal(a->changes[0]->path, "/dev/ecpool0");
	assert_false(a->changes[0]->has_before);
	assert_int_equal(a->changes[0]->after, PARAPET__OUTCOME__OUTCOME_PROTECT);
	rpc_msg_clear(&m);
	assert_int_equal(version_of(r), 0);
}

static void caps_are_checked_and_changed_without_touching_the_vm(void **state)
{
	struct rig *r = *state;
	const struct nvme_tcp_vm *target;
	Parapet__TopGet get = PARAPET__TOP_GET__INIT;
	struct rpc_msg m;
	struct push p;

	push_init(&p, 0, 1);
	p.vm.has_qos_mbps = true;
	p.vm.qos_mbps = 150;
	assert_int_equal(push(r, &p), -EINVAL);
	assert_string_equal(r->e.object, "vm web1");
	assert_string_equal(r->e.field, "qos_mbps");
	p.vm.qos_mbps = 100;
	assert_int_equal(push(r, &p), 0);
	target = TAILQ_FIRST(&r->card->vms)->tvm;
	push_init(&p, 1, 2);
	p.vm.has_qos_iops = p.vm.has_qos_weight = true;
	p.vm.qos_iops = 500;
	p.vm.qos_weight = 300;
	assert_int_equal(push(r, &p), 0);
	assert_ptr_equal(TAILQ_FIRST(&r->card->vms)->tvm, target); /* hosts stay connected */
	assert_int_equal(ASK(r, TOP_GET, top_get, &get, &m), 0);
	assert_int_equal(m.frame->response->top->n_vms, 1);
	assert_false(m.frame->response->top->vms[0]->has_qos_mbps);
	assert_int_equal(m.frame->response->top->vms[0]->qos_iops, 500);
	assert_int_equal(m.frame->response->top->vms[0]->qos_weight, 300);
	rpc_msg_clear(&m);
	/* what a refused push would have changed stays as it is, and a restart finds it */
	p.vm.qos_weight = 1001;
	p.msg.base_version = 2;
	p.t.version = 3;
	assert_int_equal(push(r, &p), -EINVAL);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(ASK(r, TOP_GET, top_get, &get, &m), 0);
	assert_int_equal(m.frame->response->top->vms[0]->qos_weight, 300);
	rpc_msg_clear(&m);
}

static void a_restart_without_the_agent_finds_its_tables(void **state)
{
	struct rig *r = *state;
	char nqn[256];
	struct rpc_msg m;
	struct push p;

	push_init(&p, 0, 3);
	assert_int_equal(push(r, &p), 0);
	snprintf(nqn, sizeof(nqn), "%s", status(r, &m)->vms[0]->nqn);
	rpc_msg_clear(&m);
	rig_stop(r);
	rig_start(r);
	assert_int_equal(version_of(r), 3);
	assert_int_equal(status(r, &m)->n_vms, 1);
	assert_null(m.frame->response->status->vms[0]->problem);
	assert_string_equal(m.frame->response->status->vms[0]->nqn, nqn);
	rpc_msg_clear(&m);
}

static void a_vm_whose_address_is_taken_comes_up_later(void **state)
{
	struct rig *r = *state;
	struct rpc_msg m;
	struct push p;
	int i;

	push_init(&p, 0, 1);
	assert_int_equal(push(r, &p), 0);
	rig_stop(r);
	{
		/* Another program has the address while the card starts. */
		autoclose int fd = socket(AF_INET, SOCK_STREAM, 0);
		struct {
			uint16_t family, port;
			uint8_t addr[4];
			uint8_t zero[8];
		} sa = {AF_INET, __builtin_bswap16(base_port()), {127, 0, 0, 1}, {0}};
		int one = 1;

		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
		assert_int_equal(listen(fd, 1), 0);
		rig_start(r);
		assert_non_null(status(r, &m)->vms[0]->problem);
		rpc_msg_clear(&m);
	}
	for (i = 0; i < 200; i++) {
		bool up = status(r, &m)->vms[0]->problem == NULL;

		rpc_msg_clear(&m);
		if (up)
			break;
		poll(NULL, 0, 50);
	}
	assert_true(i < 200);
}

static void the_card_explains_itself(void **state)
{
	Parapet__Explain ex = PARAPET__EXPLAIN__INIT;
	struct rig *r = *state;
	Parapet__Explanation *x;
	struct rpc_msg m;
	struct push p;

	push_init(&p, 0, 1);
	assert_int_equal(push(r, &p), 0);
	ex.vm = 7;
	ex.path = (char *)"/dev/ecpool0";
	assert_int_equal(ASK(r, EXPLAIN, explain, &ex, &m), 0);
	x = m.frame->response->explanation;
	assert_int_equal(x->outcome, PARAPET__OUTCOME__OUTCOME_PROTECT);
	assert_int_equal(x->n_rows, 1);
	assert_true(x->rows[0]->decisive);
	assert_true(x->n_steps > 0);
	rpc_msg_clear(&m);
	ex.path = (char *)"/dev/unknown";
	assert_int_equal(ASK(r, EXPLAIN, explain, &ex, &m), -ENOENT);
}

/* ---- the connection ------------------------------------------------------------------------------------------------------ */

static struct rpc_conn raw(struct rig *r)
{
	struct rpc_conn c;
	int fd;

	assert_int_equal(rpc_connect(r->socket, &fd, NULL), 0);
	assert_int_equal(rpc_conn_init(&c, fd, RPC_FRAME_MAX, RPC_FRAME_MAX), 0);
	return c;
}

/* The next message, or the end: -ECONNRESET. */
static int raw_next(struct rpc_conn *c, struct rpc_msg *m)
{
	for (;;) {
		struct pollfd p = {.fd = c->fd, .events = POLLIN};
		int rc = rpc_conn_next(c, m);

		if (rc)
			return rc;
		assert_int_equal(poll(&p, 1, CALL_MS), 1);
		rc = rpc_conn_fill(c);
		if (rc < 0 && rc != -EAGAIN)
			return rc;
	}
}

static void raw_send(struct rpc_conn *c, Parapet__Request *req)
{
	Parapet__Frame f = PARAPET__FRAME__INIT;

	f.body_case = PARAPET__FRAME__BODY_REQUEST;
	f.request = req;
	assert_int_equal(rpc_conn_send(c, &f), 0);
	assert_int_equal(rpc_conn_flush(c), 0);
}

static void a_connection_starts_with_hello(void **state)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__StatusGet get = PARAPET__STATUS_GET__INIT;
	Parapet__Hello hello = PARAPET__HELLO__INIT;
	struct rpc_conn c = raw(*state);
	struct rpc_msg m;

	req.id = 42;
	req.op_case = PARAPET__REQUEST__OP_STATUS_GET;
	req.status_get = &get;
	raw_send(&c, &req);
	assert_int_equal(raw_next(&c, &m), 1);
	assert_int_equal(m.frame->response->id, 42);
	assert_int_equal(m.frame->response->error->code, EPROTO);
	rpc_msg_clear(&m);
	assert_int_equal(raw_next(&c, &m), -ECONNRESET);
	rpc_conn_close(&c);
	c = raw(*state);
	hello.major = PARAPET__VERSION__MAJOR + 1;
	req.op_case = PARAPET__REQUEST__OP_HELLO;
	req.hello = &hello;
	raw_send(&c, &req);
	assert_int_equal(raw_next(&c, &m), 1);
	assert_int_equal(m.frame->response->error->code, EPROTO);
	rpc_msg_clear(&m);
	assert_int_equal(raw_next(&c, &m), -ECONNRESET);
	rpc_conn_close(&c);
}

static void a_later_minor_is_met_half_way_and_unknown_requests_are_named(void **state)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__Hello hello = PARAPET__HELLO__INIT;
	struct rpc_conn c = raw(*state);
	struct rpc_msg m;

	hello.major = PARAPET__VERSION__MAJOR;
	hello.minor = 77;
	req.id = 1;
	req.op_case = PARAPET__REQUEST__OP_HELLO;
	req.hello = &hello;
	raw_send(&c, &req);
	assert_int_equal(raw_next(&c, &m), 1);
	assert_int_equal(m.frame->response->hello->minor, PARAPET__VERSION__MINOR);
	rpc_msg_clear(&m);
	/* A request of the future: to this card a request without an operation. */
	req.id = 2;
	req.op_case = PARAPET__REQUEST__OP__NOT_SET;
	raw_send(&c, &req);
	assert_int_equal(raw_next(&c, &m), 1);
	assert_int_equal(m.frame->response->id, 2);
	assert_int_equal(m.frame->response->error->code, EOPNOTSUPP);
	rpc_msg_clear(&m);
	rpc_conn_close(&c);
}

static void bad_bytes_cost_their_connection_and_nothing_else(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} bad[] = {
		{"GET / HTTP/1.1\r\n\r\n", 18},
		{"PRPT\x7f\xff\xff\xff", 8}, /* announced too large */
		{"PRPT\0\0\0\0", 8}, /* empty */
		{"PRPT\0\0\0\4\xff\xff\xff\xff", 12}, /* not a message */
		{"PRPT\0\0\0\2\x1a\x00", 10}, /* an event: without its required fields */
		{"PRPT\0\0\0\4\x12\x02\x08\x01", 12}, /* a response */
	};
	struct rig *r = *state;
	struct rpc_msg m;

	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct rpc_conn c = raw(r);

		assert_int_equal(write(c.fd, bad[i].bytes, bad[i].len), bad[i].len);
		assert_int_equal(raw_next(&c, &m), -ECONNRESET);
		rpc_conn_close(&c);
	}
	status(r, &m);
	rpc_msg_clear(&m);
}

static void more_connections_than_places_wait_their_turn(void **state)
{
	struct rpc_conn c[SERVER_CONNS_MAX + 4];
	struct rig *r = *state;
	struct rpc_msg m;

	for (size_t i = 0; i < ARRAY_LEN(c); i++)
		c[i] = raw(r);
	status(r, &m); /* ours is served whatever they do */
	rpc_msg_clear(&m);
	for (size_t i = 0; i < ARRAY_LEN(c); i++)
		rpc_conn_close(&c[i]);
	status(r, &m);
	rpc_msg_clear(&m);
}

/* ---- pool and devices ----------------------------------------------------------------------------------------------------- */

static void a_wrong_pool_is_refused_with_its_field(void **state)
{
	struct rig *r = *state;
	struct create c;
	struct rpc_msg m;

	static const struct {
		uint32_t k, m;
	} codes[] = {{0, 2}, {4, 0}, {25, 2}, {4, 9}, {7, 2}, {UINT32_MAX, 2}};

	for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
		create_init(&c, codes[i].k, codes[i].m);
		assert_int_equal(create(r, &c), -EINVAL);
		assert_string_equal(r->e.field, "ec");
	}
	create_init(&c, 4, 2);
	c.msg.segment_bytes = 3u << 20;
	assert_int_equal(create(r, &c), -EINVAL);
	assert_string_equal(r->e.field, "segment_bytes");
	create_init(&c, 4, 2);
	c.msg.segment_bytes = (1ull << 32) + (1u << 20); /* would be cut to 1 MiB */
	assert_int_equal(create(r, &c), -EINVAL);
	create_init(&c, 4, 2);
	c.msg.has_on_degraded = true;
	c.msg.on_degraded = (Parapet__OnDegraded)7;
	assert_int_equal(create(r, &c), -EINVAL);
	assert_string_equal(r->e.field, "on_degraded");
	create_init(&c, 4, 2);
	c.f[3].name = (char *)"f2";
	assert_int_equal(create(r, &c), -EEXIST);
	create_init(&c, 4, 2);
	c.f[3].name = (char *)"../f3";
	assert_int_equal(create(r, &c), -EINVAL);
	create_init(&c, 4, 2);
	c.f[3].address = (char *)"floppy:0";
	assert_true(create(r, &c) < 0);
	assert_string_equal(r->e.object, "flash f3");
	assert_string_equal(status(r, &m)->pool->state, "none");
	rpc_msg_clear(&m);
	create_init(&c, 4, 2);
	assert_int_equal(create(r, &c), 0);
	assert_int_equal(create(r, &c), -EEXIST);
}

static int device_grow(struct rig *r, const char *path, uint64_t size, uint64_t *is)
{
	Parapet__DeviceGrow g = PARAPET__DEVICE_GROW__INIT;
	struct rpc_msg m;
	int rc;

	g.vm = 7;
	g.path = (char *)path;
	g.size_bytes = size;
	rc = ASK(r, DEVICE_GROW, device_grow, &g, &m);
	if (rc == 0) {
		*is = m.frame->response->device->size_bytes;
		rpc_msg_clear(&m);
	}
	return rc;
}

static void a_device_grows_and_never_shrinks(void **state)
{
	struct rig *r = *state;
	uint64_t is = 0;

	device_up(r, "");
	assert_int_equal(device_grow(r, "/dev/none", 16u << 20, &is), -ENOENT);
	assert_int_equal(device_grow(r, "/dev/ecpool0", 4u << 20, &is), -EINVAL);
	assert_string_equal(r->e.object, "device /dev/ecpool0");
	assert_string_equal(r->e.field, "size");
	assert_int_equal(device_grow(r, "/dev/ecpool0", (16u << 20) + 1, &is), -EINVAL);
	assert_string_equal(r->e.field, "size");
	assert_int_equal(device_grow(r, "/dev/ecpool0", 16u << 20, &is), 0);
	assert_int_equal(is, 16u << 20);
	assert_int_equal(device_grow(r, "/dev/ecpool0", 16u << 20, &is), 0); /* once more */
	assert_int_equal(is, 16u << 20);
}

/* Every flash device of the card hangs, or goes on. On the shard. */
static void flash_hang(void *arg)
{
	struct pool *p = store_pool(((struct rig *)arg)->card->store);
	struct fault_rule hang = {
		.op = FLASH_WRITE, .per_million = 1000000, .delay_ns = UINT64_MAX};

	for (unsigned int i = 0; i < pool_ndevs(p); i++)
		assert_true(fault_rule_add(pool_dev(p, i)->flash, &hang) >= 0);
}

static void flash_go_on(void *arg)
{
	struct pool *p = store_pool(((struct rig *)arg)->card->store);

	for (unsigned int i = 0; i < pool_ndevs(p); i++) {
		fault_rules_clear(pool_dev(p, i)->flash);
		fault_release(pool_dev(p, i)->flash);
	}
}

static void *grow_main(void *arg)
{
	struct rig *r = arg;
	uint64_t is;

	r->rc = device_grow(r, "/dev/ecpool0", 16u << 20, &is);
	return NULL;
}

static void questions_are_answered_while_a_change_waits_for_flash(void **state)
{
	struct rig *r = *state, look = {.sh = r->sh};
	Parapet__TablesGet get = PARAPET__TABLES_GET__INIT;
	Parapet__DeviceList all = PARAPET__DEVICE_LIST__INIT;
	struct rpc_msg m;
	pthread_t t;

	device_up(r, "fault:");
	assert_int_equal(
		rpc_client_open(r->socket, "test", CALL_MS, NULL, NULL, &look.c, &look.e), 0);
	assert_int_equal(shard_call(r->sh, flash_hang, r), 0);
	assert_int_equal(pthread_create(&t, NULL, grow_main, r), 0);
	for (int i = 0; i < 3; i++) {
		assert_string_equal(status(&look, &m)->pool->state, "online");
		rpc_msg_clear(&m);
		assert_int_equal(ASK(&look, TABLES_GET, tables_get, &get, &m), 0);
		assert_int_equal(m.frame->response->tables->version, 1);
		rpc_msg_clear(&m);
		assert_int_equal(ASK(&look, DEVICE_LIST, device_list, &all, &m), 0);
		assert_int_equal(m.frame->response->devices->devices[0]->size_bytes, 8u << 20);
		rpc_msg_clear(&m);
		poll(NULL, 0, 20); /* so that the change is likely to be where it waits */
	}
	assert_int_equal(shard_call(r->sh, flash_go_on, r), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(r->rc, 0);
	assert_int_equal(ASK(&look, DEVICE_LIST, device_list, &all, &m), 0);
	assert_int_equal(m.frame->response->devices->devices[0]->size_bytes, 16u << 20);
	rpc_msg_clear(&m);
	rpc_client_close(look.c);
}

static void who_asks_for_a_change_and_leaves_does_not_stop_it(void **state)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__Hello hello = PARAPET__HELLO__INIT;
	Parapet__DeviceGrow g = PARAPET__DEVICE_GROW__INIT;
	struct rig *r = *state;
	struct rpc_conn c;
	struct rpc_msg m;
	uint64_t is = 0;

	device_up(r, "fault:");
	assert_int_equal(shard_call(r->sh, flash_hang, r), 0);
	c = raw(r);
	hello.major = PARAPET__VERSION__MAJOR;
	req.id = 1;
	req.op_case = PARAPET__REQUEST__OP_HELLO;
	req.hello = &hello;
	raw_send(&c, &req);
	assert_int_equal(raw_next(&c, &m), 1);
	rpc_msg_clear(&m);
	g.vm = 7;
	g.path = (char *)"/dev/ecpool0";
	g.size_bytes = 16u << 20;
	req.id = 2;
	req.op_case = PARAPET__REQUEST__OP_DEVICE_GROW;
	req.device_grow = &g;
	raw_send(&c, &req);
	rpc_conn_close(&c);
	status(r, &m);
	rpc_msg_clear(&m);
	assert_int_equal(shard_call(r->sh, flash_go_on, r), 0);
	/* The next change stands in line behind it: 12 MiB would shrink it by then. */
	assert_int_equal(device_grow(r, "/dev/ecpool0", 12u << 20, &is), -EINVAL);
}

static void devices_are_made_once_and_wrong_ones_not_at_all(void **state)
{
	static const char too_long[] =
		"/dev/a-name-that-is-much-longer-than-a-volume-of-the-pool-can-have";
	Parapet__DeviceAdd d = device("/dev/ecpool0", 8u << 20);
	Parapet__DeviceList all = PARAPET__DEVICE_LIST__INIT;
	Parapet__DeviceDel del = PARAPET__DEVICE_DEL__INIT;
	struct rig *r = *state;
	struct rpc_msg m;
	struct create c;
	struct push p;

	assert_int_equal(device_add(r, &d), -ENODEV); /* no pool */
	create_init(&c, 2, 1);
	assert_int_equal(create(r, &c), 0);
	assert_int_equal(device_add(r, &d), -ENOENT); /* no such VM */
	assert_string_equal(r->e.field, "vm");
	push_init(&p, 0, 1);
	assert_int_equal(push(r, &p), 0);
	assert_int_equal(device_add(r, &d), 0);
	assert_int_equal(device_add(r, &d), 0); /* once more: the same */
	d.size_bytes *= 2;
	assert_int_equal(device_add(r, &d), -EEXIST);
	assert_string_equal(r->e.field, "size");
	d = device("/dev/b", 0);
	assert_true(device_add(r, &d) < 0);
	d = device("/dev/b", 4097);
	assert_true(device_add(r, &d) < 0);
	d = device("/dev/b", 8u << 20);
	d.has_block_bytes = true;
	d.block_bytes = 777;
	assert_true(device_add(r, &d) < 0);
	d = device("no/slash", 8u << 20);
	assert_int_equal(device_add(r, &d), -EINVAL);
	d = device(too_long, 8u << 20);
	assert_int_equal(device_add(r, &d), -ENAMETOOLONG);
	d = device("/dev/b", 8u << 20);
	d.has_layout = true;
	d.layout = (Parapet__Layout)5;
	assert_int_equal(device_add(r, &d), -EINVAL);
	assert_string_equal(r->e.field, "layout");

	/* a VM that has a device stays */
	push_init(&p, 1, 2);
	p.t.n_vms = p.t.n_devices = p.t.n_rows = 0;
	assert_int_equal(push(r, &p), -EBUSY);
	assert_int_equal(ASK(r, DEVICE_LIST, device_list, &all, &m), 0);
	assert_int_equal(m.frame->response->devices->n_devices, 1);
	assert_int_equal(m.frame->response->devices->devices[0]->nsid, 1);
	assert_int_equal(
		m.frame->response->devices->devices[0]->outcome, PARAPET__OUTCOME__OUTCOME_PROTECT);
	rpc_msg_clear(&m);
	del.vm = 7;
	del.path = (char *)"/dev/b";
	assert_int_equal(ASK(r, DEVICE_DEL, device_del, &del, &m), -ENOENT);
	del.path = (char *)"/dev/ecpool0";
	assert_int_equal(ASK(r, DEVICE_DEL, device_del, &del, &m), 0);
	rpc_msg_clear(&m);
	assert_int_equal(push(r, &p), 0);
}

static void tables_that_name_flash_the_pool_has_not_are_refused(void **state)
{
	struct rig *r = *state;
	struct create c;
	struct push p;

	create_init(&c, 2, 1);
	assert_int_equal(create(r, &c), 0);
	push_init(&p, 0, 1);
	p.vm.data_flash = (char *)"f99";
	assert_int_equal(push(r, &p), -ENOENT);
	assert_string_equal(r->e.field, "data_flash");
	assert_non_null(strstr(r->e.reason, "f0"));
	push_init(&p, 0, 1);
	assert_int_equal(push(r, &p), 0);
}

static void a_failed_flash_degrades_the_pool_and_says_so(void **state)
{
	Parapet__FlashFail ff = PARAPET__FLASH_FAIL__INIT;
	struct rig *r = *state;
	Parapet__PoolStatus *ps;
	struct rpc_msg m;
	struct create c;

	ff.name = (char *)"f3";
	assert_int_equal(ASK(r, FLASH_FAIL, flash_fail, &ff, &m), -ENODEV);
	create_init(&c, 4, 2);
	assert_int_equal(create(r, &c), 0);
	assert_int_equal(status(r, &m)->pool->survives, 2);
	rpc_msg_clear(&m);
	assert_int_equal(ASK(r, FLASH_FAIL, flash_fail, &ff, &m), 0);
	ps = m.frame->response->status->pool;
	assert_string_equal(ps->state, "degraded");
	assert_int_equal(ps->survives, 2); /* nothing lay on it, and seven are enough for 4+2 */
	assert_string_equal(ps->flashes[3]->state, "failed");
	assert_true(ps->n_degraded >= 1);
	rpc_msg_clear(&m);
	ff.name = (char *)"f77";
	assert_int_equal(ASK(r, FLASH_FAIL, flash_fail, &ff, &m), -ENOENT);
}

/* ---- events --------------------------------------------------------------------------------------------------------------- */

struct seen {
	uint64_t last, n;
	bool gap;
};

static void see(void *arg, const Parapet__Event *ev)
{
	struct seen *s = arg;

	s->gap |= s->last && ev->seq != s->last + 1;
	s->last = ev->seq;
	s->n++;
}

static void subscribe(struct rpc_client *c, uint64_t after, const char *boot, uint64_t *newest)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__Subscribe sub = PARAPET__SUBSCRIBE__INIT;
	struct rpc_msg m;
	struct err e = {0};

	sub.has_after_seq = true;
	sub.after_seq = after;
	sub.boot_id = (char *)boot;
	req.op_case = PARAPET__REQUEST__OP_SUBSCRIBE;
	req.subscribe = &sub;
	if (rpc_client_call(c, &req, CALL_MS, &m, &e) < 0)
		fail_msg("%s", err_text(&e));
	*newest = m.frame->response->subscribed->newest_seq;
	rpc_msg_clear(&m);
}

static void an_agent_that_comes_back_misses_no_event(void **state)
{
	struct rig *r = *state;
	struct rpc_client *c;
	struct seen seen = {0};
	char boot[64];
	uint64_t newest;
	struct push p;

	assert_int_equal(rpc_client_open(r->socket, "a", CALL_MS, see, &seen, &c, &r->e), 0);
	snprintf(boot, sizeof(boot), "%s", rpc_client_hello(c)->boot_id);
	subscribe(c, 0, NULL, &newest);
	while (seen.last < newest)
		assert_true(rpc_client_wait(c, CALL_MS, &r->e) > 0);
	push_init(&p, 0, 1);
	assert_int_equal(push(r, &p), 0);
	while (seen.last <= newest)
		assert_true(rpc_client_wait(c, CALL_MS, &r->e) > 0);
	rpc_client_close(c);
	/* gone for a while */
	for (uint64_t v = 1; v < 4; v++) {
		push_init(&p, v, v + 1);
		assert_int_equal(push(r, &p), 0);
	}
	assert_int_equal(rpc_client_open(r->socket, "a", CALL_MS, see, &seen, &c, &r->e), 0);
	subscribe(c, seen.last, boot, &newest);
	assert_true(newest >= seen.last + 3);
	while (seen.last < newest)
		assert_true(rpc_client_wait(c, CALL_MS, &r->e) > 0);
	assert_false(seen.gap);
	rpc_client_close(c);
}

static void a_reader_of_old_events_is_told_what_is_gone(void **state)
{
	struct events *ev;
	struct event e;
	uint64_t oldest, newest;

	assert_int_equal(events_open(&ev), 0);
	events_range(ev, &oldest, &newest);
	assert_int_equal(oldest, 1);
	assert_int_equal(newest, 0);
	assert_int_equal(events_next(ev, 0, &e), -ENOENT);
	for (unsigned int i = 1; i <= EVENTS_KEPT + 10; i++)
		event_post(ev, EVENT_INFO, "test", "thing", "%u", i);
	events_range(ev, &oldest, &newest);
	assert_int_equal(newest, EVENTS_KEPT + 10);
	assert_int_equal(oldest, 11);
	assert_int_equal(events_next(ev, 3, &e), 0);
	assert_int_equal(e.seq, 11);
	assert_string_equal(e.text, "11");
	assert_int_equal(events_next(ev, newest, &e), -ENOENT);
	events_close(ev);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(tables_are_swapped_by_compare_and_only_forward),
		T(a_refused_table_changes_nothing),
		T(a_check_tells_what_would_change_and_changes_nothing),
		T(caps_are_checked_and_changed_without_touching_the_vm),
		T(a_restart_without_the_agent_finds_its_tables),
		T(a_vm_whose_address_is_taken_comes_up_later),
		T(the_card_explains_itself),
		T(a_connection_starts_with_hello),
		T(a_later_minor_is_met_half_way_and_unknown_requests_are_named),
		T(bad_bytes_cost_their_connection_and_nothing_else),
		T(more_connections_than_places_wait_their_turn),
		T(a_wrong_pool_is_refused_with_its_field),
		T(a_device_grows_and_never_shrinks),
		T(questions_are_answered_while_a_change_waits_for_flash),
		T(who_asks_for_a_change_and_leaves_does_not_stop_it),
		T(devices_are_made_once_and_wrong_ones_not_at_all),
		T(tables_that_name_flash_the_pool_has_not_are_refused),
		T(a_failed_flash_degrades_the_pool_and_says_so),
		T(an_agent_that_comes_back_misses_no_event),
		cmocka_unit_test(a_reader_of_old_events_is_told_what_is_gone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
