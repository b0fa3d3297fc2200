/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A card of two shards on slices of files, for tests: the test's thread carries out changes as the server's does, the shards have theirs. setup() and
 * teardown() are cmocka's; a test has a struct rig, with a card that has no pool yet.
 */
#ifndef TESTS_UNIT_SHARDS_RIG_H
#define TESTS_UNIT_SHARDS_RIG_H

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/control/card_priv.h"
#include "dpu/control/shards.h"

#define NFLASH      5
#define FLASH_BYTES (70u << 20) /* two slices of 32 MiB, and a rest */
#define DEV_BYTES   (4u << 20)
#define WAIT_S      20

struct rig {
	char dir[64], state[80];
	const char *cores;
	pthread_t thread;
	sem_t up;
	struct shard *sh;
	struct shards *s;
	int rc;
	struct err e;
};

/* ---- a card --------------------------------------------------------------------------------------------------------- */

static inline void *rig_main(void *arg)
{
	struct rig *r = arg;
	struct shards_cfg cfg = {.card = {.state_dir = r->state, .mode = SHARD_INTERRUPT},
		.count = 2,
		.cores = r->cores};

	assert_int_equal(shard_open(&(struct shard_cfg){.mode = SHARD_INTERRUPT}, &r->sh), 0);
	cfg.card.shard = r->sh;
	cfg.card.access[0] = (struct card_access){&access_sockets, r->sh};
	r->s = NULL;
	r->rc = shards_open(&cfg, &r->s, &r->e);
	if (r->rc == 0)
		r->rc = shards_start(r->s, &r->e);
	sem_post(&r->up);
	if (r->rc == 0)
		shard_run(r->sh);
	shards_close(r->s);
	return NULL;
}

static inline int rig_try(struct rig *r)
{
	memset(&r->e, 0, sizeof(r->e));
	sem_init(&r->up, 0, 0);
	assert_int_equal(pthread_create(&r->thread, NULL, rig_main, r), 0);
	while (sem_wait(&r->up) < 0)
		;
	return r->rc;
}

static inline void rig_start(struct rig *r)
{
	if (rig_try(r) < 0)
		fail_msg("%s", err_text(&r->e));
	assert_true(shards_are_up(r->s));
}

static inline void rig_stop(struct rig *r)
{
	if (r->rc == 0)
		shard_stop(r->sh);
	pthread_join(r->thread, NULL);
	shard_close(r->sh);
	sem_destroy(&r->up);
}

static inline void file_make(const char *path, off_t bytes)
{
	autoclose int fd = open(path, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, bytes), 0);
}

static inline int setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	static int n;
	char path[128];

	assert_non_null(r);
	snprintf(r->dir, sizeof(r->dir), "/tmp/parapet-shards-test.%d.%d", (int)getpid(), n++);
	assert_int_equal(mkdir(r->dir, 0700), 0);
	snprintf(r->state, sizeof(r->state), "%s/state", r->dir);
	for (int i = 0; i < NFLASH; i++) {
		snprintf(path, sizeof(path), "%s/f%d", r->dir, i);
		file_make(path, FLASH_BYTES);
	}
	rig_start(r);
	*state = r;
	return 0;
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *at)
{
	return remove(path);
}

static inline void tree_remove(const char *path)
{
	assert_int_equal(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline void nap_ms(unsigned int ms)
{
	nanosleep(&(struct timespec){.tv_nsec = (long)ms * 1000000}, NULL);
}

static inline int teardown(void **state)
{
	struct rig *r = *state;

	rig_stop(r);
	tree_remove(r->dir);
	free(r);
	return 0;
}

/* ---- asking ---------------------------------------------------------------------------------------------------------- */

struct ask {
	call_fn fn;
	struct call call;
};

static inline int ask_run(struct card *c, void *arg)
{
	struct ask *a = arg;

	return a->fn(c, &a->call);
}

/* The answer is in a->call until call_clear(). */
static inline int ask(
	struct rig *r, unsigned int shard, struct ask *a, call_fn fn, const Parapet__Request *req)
{
	a->fn = fn;
	call_init(&a->call, req);
	return shards_run(r->s, shard, ask_run, a);
}

/* The same where only the result counts. */
static inline int ask_rc(struct rig *r, unsigned int shard, call_fn fn, const Parapet__Request *req)
{
	struct ask a;
	int rc = ask(r, shard, &a, fn, req);

	r->e = a.call.err;
	call_clear(&a.call);
	return rc;
}

struct create {
	Parapet__PoolCreate msg;
	Parapet__Flash f[NFLASH], *list[NFLASH];
	char name[NFLASH][8], address[NFLASH][96];
};

static inline void create_init(struct rig *r, struct create *c)
{
	parapet__pool_create__init(&c->msg);
	for (int i = 0; i < NFLASH; i++) {
		parapet__flash__init(&c->f[i]);
		snprintf(c->name[i], sizeof(c->name[i]), "f%d", i);
		snprintf(c->address[i], sizeof(c->address[i]), "file:%s/f%d", r->dir, i);
		c->f[i].name = c->name[i];
		c->f[i].address = c->address[i];
		c->list[i] = &c->f[i];
	}
	c->msg.flashes = c->list;
	c->msg.n_flashes = NFLASH;
	c->msg.k = 2;
	c->msg.m = 1;
	c->msg.has_segment_bytes = true;
	c->msg.segment_bytes = 1u << 20;
}

static inline int create_on(struct rig *r, unsigned int shard, struct create *c)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;

	req.op_case = PARAPET__REQUEST__OP_POOL_CREATE;
	req.pool_create = &c->msg;
	return ask_rc(r, shard, call_pool_create, &req);
}

/* Shard 0 comes last. */
static inline void create_all(struct rig *r)
{
	struct create c;

	create_init(r, &c);
	if (shards_resize(r->s, 2, &r->e) < 0)
		fail_msg("%s", err_text(&r->e));
	for (int i = 1; i >= 0; i--)
		if (create_on(r, (unsigned int)i, &c) < 0)
			fail_msg("shard %d: %s", i, err_text(&r->e));
	assert_int_equal(shards_place_vms(r->s, NULL, &r->e), 0);
	shards_vms_again(r->s);
}

/* VMs 1 to 4, each with a device that is protected. */
#define NVMS 4
struct push {
	Parapet__TablesPush msg;
	Parapet__Tables t;
	Parapet__Vm vm[NVMS], *vms[NVMS];
	Parapet__TableDevice dev[NVMS], *devs[NVMS];
	Parapet__Row row[NVMS], *rows[NVMS];
	char name[NVMS][8], listen[NVMS][32];
};

static inline void push_init(struct push *p, uint64_t base)
{
	parapet__tables_push__init(&p->msg);
	parapet__tables__init(&p->t);
	for (uint32_t i = 0; i < NVMS; i++) {
		parapet__vm__init(&p->vm[i]);
		parapet__table_device__init(&p->dev[i]);
		parapet__row__init(&p->row[i]);
		snprintf(p->name[i], sizeof(p->name[i]), "vm%u", i + 1);
		snprintf(p->listen[i], sizeof(p->listen[i]), "127.0.0.1:%u",
			(unsigned int)(21000 + getpid() % 2000 * 4) + i);
		p->vm[i].vm = p->dev[i].vm = p->row[i].vm = i + 1;
		p->vm[i].name = p->name[i];
		p->vm[i].data_flash = (char *)"f0";
		p->vm[i].listen = p->listen[i];
		p->dev[i].path = (char *)"/dev/ecpool0";
		p->row[i].ec = true;
		p->vms[i] = &p->vm[i];
		p->devs[i] = &p->dev[i];
		p->rows[i] = &p->row[i];
	}
	p->t.version = base + 1;
	p->t.vms = p->vms;
	p->t.devices = p->devs;
	p->t.rows = p->rows;
	p->t.n_vms = p->t.n_devices = p->t.n_rows = NVMS;
	p->msg.base_version = base;
	p->msg.tables = &p->t;
}

static inline int push_on(struct rig *r, unsigned int shard, struct push *p)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;

	req.op_case = PARAPET__REQUEST__OP_TABLES_PUSH;
	req.tables_push = &p->msg;
	return ask_rc(r, shard, call_tables_push, &req);
}

static inline void push_all(struct rig *r, struct push *p)
{
	assert_int_equal(shards_place_vms(r->s, &p->t, &r->e), 0);
	for (unsigned int i = shards_count(r->s); i-- > 0;)
		if (push_on(r, i, p) < 0)
			fail_msg("shard %u: %s", i, err_text(&r->e));
}

static inline int device_add(struct rig *r, uint32_t vm)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__DeviceAdd d = PARAPET__DEVICE_ADD__INIT;

	d.vm = vm;
	d.path = (char *)"/dev/ecpool0";
	d.size_bytes = DEV_BYTES;
	req.op_case = PARAPET__REQUEST__OP_DEVICE_ADD;
	req.device_add = &d;
	return ask_rc(r, shards_of_vm(r->s, vm), call_device_add, &req);
}

/* Pool, tables, VMs, a device for each. */
static inline void all_up(struct rig *r)
{
	struct push p;

	create_all(r);
	push_init(&p, 0);
	push_all(r, &p);
	for (uint32_t vm = 1; vm <= NVMS; vm++)
		if (device_add(r, vm) < 0)
			fail_msg("vm %u: %s", vm, err_text(&r->e));
}

/* Devices the shard lists; *missing: of the tables, but not there. */
static inline size_t devices_on(struct rig *r, unsigned int shard, size_t *missing)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__DeviceList l = PARAPET__DEVICE_LIST__INIT;
	struct ask a;
	size_t n;

	req.op_case = PARAPET__REQUEST__OP_DEVICE_LIST;
	req.device_list = &l;
	assert_int_equal(ask(r, shard, &a, call_device_list, &req), 0);
	n = a.call.resp.devices->n_devices;
	*missing = a.call.resp.devices->n_missing;
	for (size_t i = 0; i < n; i++)
		assert_int_equal(shards_of_vm(r->s, a.call.resp.devices->devices[i]->vm), shard);
	call_clear(&a.call);
	return n;
}

/* VMs that are up on the shard. */
static inline size_t vms_on(struct rig *r, unsigned int shard)
{
	Parapet__Request req = PARAPET__REQUEST__INIT;
	Parapet__StatusGet g = PARAPET__STATUS_GET__INIT;
	struct ask a;
	size_t n;

	req.op_case = PARAPET__REQUEST__OP_STATUS_GET;
	req.status_get = &g;
	assert_int_equal(ask(r, shard, &a, call_status, &req), 0);
	n = a.call.resp.status->n_vms;
	for (size_t i = 0; i < n; i++)
		if (a.call.resp.status->vms[i]->problem)
			fail_msg("%s: %s", a.call.resp.status->vms[i]->name,
				a.call.resp.status->vms[i]->problem);
	call_clear(&a.call);
	return n;
}

/* ---- what VMs write ---------------------------------------------------------------------------------------------------- */

struct io {
	uint32_t vm;
	enum io_op op;
	uint8_t *buf;
	bool done;
	struct io_req req;
};

static inline void io_done(struct io_req *req)
{
	((struct io *)req->arg)->done = true;
}

static inline bool io_is_done(void *arg)
{
	return ((struct io *)arg)->done;
}

static inline int io_run(struct card *c, void *arg)
{
	struct io *io = arg;
	struct iovec iov = {io->buf, DEV_BYTES / 2};
	int rc;

	io->req = (struct io_req){.op = io->op,
		.vm = io->vm,
		.vol = device_find(c, io->vm, "/dev/ecpool0"),
		.len_bytes = iov.iov_len,
		.iov = &iov,
		.niov = 1,
		.stable = true,
		.flags = io->op == IO_WRITE ? IO_FUA : 0,
		.done_fn = io_done,
		.arg = io};
	if (!io->req.vol)
		return -ENOENT;
	rc = pipeline_submit(c->pipeline, &io->req);
	if (rc == 0)
		rc = shard_wait(c->cfg.shard, io_is_done, io, WAIT_S * 1000000000ull);
	return rc < 0 ? rc : io_status_errno(io->req.status);
}

static inline void fill(uint8_t *buf, uint32_t vm)
{
	for (size_t i = 0; i < DEV_BYTES / 2; i++)
		buf[i] = (uint8_t)(i * 7 + i / 4096 + vm * 31);
}

/* What one shard's VMs do, one after another. */
struct ios {
	struct rig *r;
	unsigned int shard;
	bool write;
	int rc;
};

static inline int ios_run(struct card *c, void *arg)
{
	struct ios *is = arg;
	uint8_t *buf = malloc(DEV_BYTES / 2), *want = malloc(DEV_BYTES / 2);

	for (uint32_t vm = 1; buf && want && is->rc == 0 && vm <= NVMS; vm++) {
		struct io io = {.vm = vm, .op = is->write ? IO_WRITE : IO_READ, .buf = buf};

		if (shards_of_vm(is->r->s, vm) != is->shard)
			continue;
		fill(want, vm);
		memset(buf, 0, DEV_BYTES / 2);
		if (is->write)
			fill(buf, vm);
		is->rc = io_run(c, &io);
		if (is->rc == 0 && memcmp(buf, want, DEV_BYTES / 2))
			is->rc = -EILSEQ;
	}
	free(buf);
	free(want);
	return is->rc;
}

/* All shards at once. */
static inline int vms_io(struct rig *r, bool write)
{
	struct ios is[SHARDS_MAX];
	void *args[SHARDS_MAX];

	for (unsigned int i = 0; i < SHARDS_MAX; i++) {
		is[i] = (struct ios){.r = r, .shard = i, .write = write};
		args[i] = &is[i];
	}
	return shards_run_all(r->s, ios_run, args);
}

static inline void vms_write(struct rig *r)
{
	assert_int_equal(vms_io(r, true), 0);
}

static inline void vms_check_data(struct rig *r)
{
	assert_int_equal(vms_io(r, false), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
