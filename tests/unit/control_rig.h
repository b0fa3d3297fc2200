/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A whole card in a thread, asked through the client the agent uses: for tests of the control contract. setup() and teardown() are
 * cmocka's; a test has a struct rig.
 *
 *	create_init(&c, 4, 2); create(r, &c); push_init(&p, 0, 1); push(r, &p);
 *	rc = ASK(r, FLASH_FAIL, flash_fail, &msg, &reply); ... rpc_msg_clear(&reply);
 */
#ifndef TESTS_UNIT_CONTROL_RIG_H
#define TESTS_UNIT_CONTROL_RIG_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "common/base/util.h"
#include "common/rpc/client.h"
#include "dpu/control/card_priv.h"
#include "dpu/control/server.h"

#define NFLASH   8
#define CALL_MS  20000
#define PORT_ONE 24601 /* of loopback; tests of one machine may run side by side: see base_port() */

/* ---- a card in a thread ------------------------------------------------------------------------------------------- */

struct rig {
	char dir[64], state[80], socket[80];
	pthread_t thread;
	sem_t up;
	struct shard *sh;
	struct shards *shards;
	struct card *card; /* shard 0's */
	unsigned int nshards; /* of a new pool */
	int rc;
	struct rpc_client *c;
	struct err e;
};

static inline void *rig_main(void *arg)
{
	struct rig *r = arg;
	struct shards_cfg cfg = {
		.card = {.state_dir = r->state, .mode = SHARD_INTERRUPT}, .count = r->nshards};
	struct server *server = NULL;
	struct shards *shards = NULL;

	r->rc = shard_open(&(struct shard_cfg){.mode = SHARD_INTERRUPT}, &r->sh);
	cfg.card.shard = r->sh;
	cfg.card.access[0] = (struct card_access){&access_sockets, r->sh};
	if (r->rc == 0)
		r->rc = shards_open(&cfg, &shards, &r->e);
	r->shards = shards;
	r->card = shards ? shards_card(shards, 0) : NULL;
	if (r->rc == 0)
		r->rc = server_start(shards, r->socket, &server, &r->e);
	if (r->rc == 0)
		r->rc = shards_start(shards, &r->e);
	sem_post(&r->up);
	if (r->rc == 0)
		shard_run(r->sh);
	server_stop(server);
	if (shards)
		shards_close(shards);
	shard_close(r->sh);
	return NULL;
}

static inline void rig_start(struct rig *r)
{
	sem_init(&r->up, 0, 0);
	assert_int_equal(pthread_create(&r->thread, NULL, rig_main, r), 0);
	while (sem_wait(&r->up) < 0)
		;
	if (r->rc < 0)
		fail_msg("%s", err_text(&r->e));
	if (rpc_client_open(r->socket, "test", CALL_MS, NULL, NULL, &r->c, &r->e) < 0)
		fail_msg("%s", err_text(&r->e));
}

static inline void rig_stop(struct rig *r)
{
	rpc_client_close(r->c);
	r->c = NULL;
	shard_stop(r->sh);
	pthread_join(r->thread, NULL);
	sem_destroy(&r->up);
}

static inline int setup_shards(void **state, unsigned int nshards)
{
	struct rig *r = calloc(1, sizeof(*r));
	static int n;

	assert_non_null(r);
	snprintf(r->dir, sizeof(r->dir), "/tmp/parapet-control-test.%d.%d", (int)getpid(), n++);
	snprintf(r->state, sizeof(r->state), "%s.state", r->dir);
	snprintf(r->socket, sizeof(r->socket), "%s.sock", r->dir);
	r->nshards = nshards;
	rig_start(r);
	*state = r;
	return 0;
}

static inline int setup(void **state)
{
	return setup_shards(state, 1);
}

static inline int teardown(void **state)
{
	static const char *const names[] = {"lock", "card", "tables", "pool", "settings", "shards",
		"shard1/lock", "shard1/pool", "shard1/settings", "shard1"};
	struct rig *r = *state;
	char path[128];

	rig_stop(r);
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", r->state, names[i]);
		remove(path);
	}
	for (int i = 0; i < NFLASH; i++) {
		snprintf(path, sizeof(path), "%s.f%d", r->dir, i);
		unlink(path);
	}
	assert_int_equal(rmdir(r->state), 0);
	free(r);
	return 0;
}

/* ---- asking --------------------------------------------------------------------------------------------------------- */

static inline int ask(struct rig *r, Parapet__Request *req, struct rpc_msg *m)
{
	memset(&r->e, 0, sizeof(r->e));
	return rpc_client_call(r->c, req, CALL_MS, m, &r->e);
}

#define ASK(r, op, field, msg, m)                               \
	({                                                      \
		Parapet__Request req_ = PARAPET__REQUEST__INIT; \
		req_.op_case = PARAPET__REQUEST__OP_##op;       \
		req_.field = (msg);                             \
		ask(r, &req_, m);                               \
	})

static inline Parapet__Status *status(struct rig *r, struct rpc_msg *m)
{
	Parapet__StatusGet get = PARAPET__STATUS_GET__INIT;

	if (ASK(r, STATUS_GET, status_get, &get, m) < 0)
		fail_msg("%s", err_text(&r->e));
	assert_int_equal(m->frame->response->result_case, PARAPET__RESPONSE__RESULT_STATUS);
	return m->frame->response->status;
}

static inline uint16_t base_port(void)
{
	return (uint16_t)(PORT_ONE + getpid() % 2000 * 4);
}

/* One VM with one device; EC for the VM as a whole. */
struct push {
	Parapet__TablesPush msg;
	Parapet__Tables t;
	Parapet__Vm vm, *vms[1];
	Parapet__TableDevice dev, *devs[1];
	Parapet__Row row, *rows[1];
	char listen[32];
};

static inline void push_init(struct push *p, uint64_t base, uint64_t version)
{
	parapet__tables_push__init(&p->msg);
	parapet__tables__init(&p->t);
	parapet__vm__init(&p->vm);
	parapet__table_device__init(&p->dev);
	parapet__row__init(&p->row);
	snprintf(p->listen, sizeof(p->listen), "127.0.0.1:%u", base_port());
	p->vm.vm = p->dev.vm = p->row.vm = 7;
	p->vm.name = (char *)"web1";
	p->vm.data_flash = (char *)"f0";
	p->vm.inter_flash = (char *)"f1";
	p->vm.listen = p->listen;
	p->dev.path = (char *)"/dev/ecpool0";
	p->row.ec = true;
	p->vms[0] = &p->vm;
	p->devs[0] = &p->dev;
	p->rows[0] = &p->row;
	p->t.version = version;
	p->t.vms = p->vms;
	p->t.devices = p->devs;
	p->t.rows = p->rows;
	p->t.n_vms = p->t.n_devices = p->t.n_rows = 1;
	p->msg.base_version = base;
	p->msg.tables = &p->t;
}

static inline int push(struct rig *r, struct push *p)
{
	struct rpc_msg m;
	int rc = ASK(r, TABLES_PUSH, tables_push, &p->msg, &m);

	if (rc == 0) {
		assert_int_equal(m.frame->response->result_case, PARAPET__RESPONSE__RESULT_APPLIED);
		rpc_msg_clear(&m);
	}
	return rc;
}

static inline uint64_t version_of(struct rig *r)
{
	Parapet__TablesGet get = PARAPET__TABLES_GET__INIT;
	struct rpc_msg m;
	uint64_t v;

	assert_int_equal(ASK(r, TABLES_GET, tables_get, &get, &m), 0);
	v = m.frame->response->tables->version;
	rpc_msg_clear(&m);
	return v;
}

/* ---- pool and devices ---------------------------------------------------------------------------------------------------- */

struct create {
	Parapet__PoolCreate msg;
	Parapet__Flash f[NFLASH], *list[NFLASH];
	char name[NFLASH][8];
};

static inline void create_init(struct create *c, uint32_t k, uint32_t m)
{
	parapet__pool_create__init(&c->msg);
	for (int i = 0; i < NFLASH; i++) {
		parapet__flash__init(&c->f[i]);
		snprintf(c->name[i], sizeof(c->name[i]), "f%d", i);
		c->f[i].name = c->name[i];
		c->f[i].address = (char *)"mem:32M";
		c->list[i] = &c->f[i];
	}
	c->msg.flashes = c->list;
	c->msg.n_flashes = NFLASH;
	c->msg.k = k;
	c->msg.m = m;
	c->msg.has_segment_bytes = true;
	c->msg.segment_bytes = 1u << 20;
}

static inline int create(struct rig *r, struct create *c)
{
	struct rpc_msg m;
	int rc = ASK(r, POOL_CREATE, pool_create, &c->msg, &m);

	if (rc == 0)
		rpc_msg_clear(&m);
	return rc;
}

static inline Parapet__DeviceAdd device(const char *path, uint64_t size)
{
	Parapet__DeviceAdd d = PARAPET__DEVICE_ADD__INIT;

	d.vm = 7;
	d.path = (char *)path;
	d.size_bytes = size;
	return d;
}

static inline int device_add(struct rig *r, Parapet__DeviceAdd *d)
{
	struct rpc_msg m;
	int rc = ASK(r, DEVICE_ADD, device_add, d, &m);

	if (rc == 0)
		rpc_msg_clear(&m);
	return rc;
}

/* A pool, a VM and a device of 8 MiB. */
static inline void device_up(struct rig *r, const char *kind)
{
	Parapet__DeviceAdd d = device("/dev/ecpool0", 8u << 20);
	char address[NFLASH][32];
	struct create c;
	struct push p;

	create_init(&c, 2, 1);
	for (int i = 0; i < NFLASH; i++) { /* sizes differ: no two are the same device */
		snprintf(address[i], sizeof(address[i]), "%smem:%dM", kind, 32 + i);
		c.f[i].address = address[i];
	}
	assert_int_equal(create(r, &c), 0);
	push_init(&p, 0, 1);
	assert_int_equal(push(r, &p), 0);
	assert_int_equal(device_add(r, &d), 0);
}

#endif
