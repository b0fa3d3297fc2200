/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/bench/stack.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "tests/bench/bench.h"

#define VM     1u
#define DEVICE "/dev/bench0"

void bench_die(const char *what, int rc)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(rc < 0 ? -rc : rc));
	exit(1);
}

static void check(int rc, const char *what)
{
	if (rc < 0)
		bench_die(what, rc);
}

static void check_err(int rc, const struct err *e)
{
	if (rc < 0)
		bench_die(err_text(e), rc);
}

/* ---- set-up ------------------------------------------------------------------------------------------ */

static void touch(struct flash *f, uint64_t bytes)
{
	uint8_t *mem = flash_window(f, 0, bytes);

	for (uint64_t at = 0; at < bytes; at += 4096)
		mem[at] = 0;
}

static struct flash *open_dev(struct stack *s, unsigned int i)
{
	struct flash_opts opts = {.block_bytes = s->cfg.dev_block,
		.depth = 1024,
		.slice = s->cfg.slice,
		.slices = s->cfg.slices};
	uint64_t bytes = s->cfg.slices
				 ? ROUND_UP(s->cfg.dev_bytes, FLASH_SLICE_ALIGN) * s->cfg.slices
				 : s->cfg.dev_bytes;
	struct flash *f = NULL;
	struct err e = {0};
	char address[64];

	if (s->cfg.null) {
		if (!s->contents[i])
			check(nullflash_create(s->cfg.dev_bytes, &s->contents[i]), "flash");
		check(nullflash_open(s->sh, s->contents[i], &opts, &f), "flash");
		return f;
	}
	/* Under a name the memory stays for the next stack of this size. */
	snprintf(address, sizeof(address), "%smem:%llu,name=bench%u", s->cfg.faulty ? "fault:" : "",
		(unsigned long long)bytes, i);
	check_err(flash_open(s->sh, address, &opts, &f, &e), &e);
	if (s->cfg.protect || i == 0) /* else all is in the data area, on the first one */
		touch(f, MIN(s->cfg.touched_bytes, s->cfg.dev_bytes));
	return f;
}

static void open_pool(struct stack *s, bool create)
{
	struct pool_cfg cfg = {
		.name = "bench", .scheme = {4, 2}, .segment_bytes = s->cfg.segment_bytes};
	struct pool_member members[STACK_DEVS];
	struct err e = {0};

	memset(members, 0, sizeof(members));
	for (unsigned int i = 0; i < STACK_DEVS; i++) {
		snprintf(members[i].name, sizeof(members[i].name), "f%u", i);
		snprintf(members[i].domain, sizeof(members[i].domain), "n%u", i);
		members[i].flash = open_dev(s, i);
	}
	check_err(create ? pool_create(s->sh, &cfg, members, STACK_DEVS, true, &s->pool, &e)
			 : pool_open(s->sh, members, STACK_DEVS, &s->pool, &e),
		&e);
}

static void open_store(struct stack *s)
{
	struct store_cfg cfg = {.pool = s->pool,
		.queue = QUEUE_CFG_DEFAULT,
		.map_bytes = s->cfg.map_bytes,
		.manual_checkpoints = s->cfg.manual_checkpoints};
	struct err e = {0};

	cfg.queue.per_request = s->cfg.per_request;
	check_err(store_open(&cfg, &s->store, &e), &e);
}

static void create_volume(struct stack *s)
{
	struct volume_cfg vol = {.name = DEVICE,
		.size_bytes = s->cfg.volume_bytes,
		.layout = s->cfg.layout,
		.data_dev = 0,
		.intermediate_dev = POOL_DEV_NONE};
	struct err e = {0};

	check_err(volume_create(s->store, &vol, &s->vol, &e), &e);
}

/* One VM, one row of table 204: the flag. */
static void open_pipeline(struct stack *s)
{
	Parapet__Tables pb = PARAPET__TABLES__INIT;
	Parapet__Vm vm = PARAPET__VM__INIT, *vms[] = {&vm};
	Parapet__TableDevice dev = PARAPET__TABLE_DEVICE__INIT, *devs[] = {&dev};
	Parapet__Row row = PARAPET__ROW__INIT, *rows[] = {&row};
	struct tables_volume volume = {volume_id(s->vol), VM, DEVICE};
	struct tables_doc *doc;
	struct err e = {0};

	pb.version = 1;
	vm.vm = dev.vm = row.vm = VM;
	vm.name = (char *)(uintptr_t) "bench";
	vm.data_flash = (char *)(uintptr_t) "f0";
	dev.path = (char *)(uintptr_t)DEVICE;
	row.ec = s->cfg.protect;
	pb.vms = vms;
	pb.devices = devs;
	pb.rows = rows;
	pb.n_vms = pb.n_devices = pb.n_rows = 1;
	check(tables_open(s->sh, &s->tables), "tables");
	check_err(tables_doc_build(&pb, NULL, &(struct tables_env){.no_pool = true}, &doc, &e), &e);
	check(tables_publish(s->tables, doc, &volume, 1), "tables");
	tables_doc_put(doc);
	check(pipeline_open(&(struct pipeline_cfg){.shard = s->sh,
				    .tables = s->tables,
				    .vm_requests = MAX(s->cfg.depth, 64u)},
		      &s->pipeline),
		"pipeline");
	check(pipeline_vm_add(s->pipeline, VM), "vm");
	check(pipeline_volume_add(s->pipeline, VM, s->vol), "volume");
}

void stack_open(struct stack *s, const struct stack_cfg *cfg)
{
	memset(s, 0, sizeof(*s));
	s->cfg = *cfg;
	TAILQ_INIT(&s->idle);
	check(shard_open(&(struct shard_cfg){.mode = SHARD_POLLING, .seed = 1}, &s->sh), "shard");
	open_pool(s, true);
	open_store(s);
	create_volume(s);
	open_pipeline(s);
	s->source = mem_alloc(cfg->source_bytes);
	s->reqs = calloc(cfg->depth, sizeof(*s->reqs));
	if (!s->source || !s->reqs)
		bench_die("buffers", ENOMEM);
	s->rng = 0x2545f4914f6cdd1dull;
	for (uint64_t at = 0; at < cfg->source_bytes && !cfg->null; at += 8)
		memcpy(s->source + at, &(uint64_t){at * 0x9e3779b97f4a7c15ull}, 8);
	for (unsigned int i = 0; i < STACK_DEVS && cfg->null; i++)
		nullflash_set_zeros(s->contents[i], s->source, cfg->source_bytes);
	for (uint32_t i = 0; i < cfg->depth; i++) {
		s->reqs[i].stack = s;
		TAILQ_INSERT_TAIL(&s->idle, &s->reqs[i], link);
	}
}

static void close_services(struct stack *s)
{
	check(pipeline_drain(s->pipeline, 0), "drain");
	check(pipeline_volume_del(s->pipeline, VM, s->vol), "volume");
	check(pipeline_vm_del(s->pipeline, VM), "vm");
	pipeline_close(s->pipeline);
	store_close(s->store);
	tables_close(s->tables);
}

void stack_kill_and_reopen(struct stack *s)
{
	for (unsigned int i = 0; i < STACK_DEVS; i++)
		nullflash_set_dead(s->contents[i], true);
	close_services(s);
	for (unsigned int i = 0; i < STACK_DEVS; i++)
		nullflash_set_dead(s->contents[i], false);
	s->open_cpu_ns = bench_cpu_ns();
	open_pool(s, false);
	open_store(s);
	s->open_cpu_ns = bench_cpu_ns() - s->open_cpu_ns;
	s->vol = volume_find(s->store, DEVICE);
	if (!s->vol)
		bench_die("the volume is gone", ENOENT);
	open_pipeline(s);
}

void stack_close(struct stack *s)
{
	close_services(s);
	while (shard_run_once(s->sh))
		;
	shard_close(s->sh);
	if (!s->cfg.touched_bytes)
		flash_mem_forget(NULL);
	mem_free(s->source, s->cfg.source_bytes);
	free(s->reqs);
	for (unsigned int i = 0; i < STACK_DEVS; i++)
		nullflash_destroy(s->contents[i]);
}

/* ---- the generator -------------------------------------------------------------------------------------- */

static void wrote(struct io_req *io)
{
	struct stack_req *r = io->arg;
	struct stack *s = r->stack;

	s->in_flight--;
	s->errors += io->status != IO_OK;
	TAILQ_INSERT_TAIL(&s->idle, r, link);
}

/* Scattered, but each place once before any comes again: the factor is prime, and greater than 2 to no power. */
static uint64_t place(uint64_t n, uint64_t places, bool in_order)
{
	return in_order ? n % places : n % places * 2654435761u % places;
}

static uint64_t drawn(struct stack *s)
{
	s->rng ^= s->rng << 13;
	s->rng ^= s->rng >> 7;
	s->rng ^= s->rng << 17;
	return s->rng >> 11;
}

static void prepare(struct stack *s, struct stack_req *r)
{
	uint64_t n = s->next++, bytes = s->cfg.io_bytes, places = s->cfg.volume_bytes / bytes;
	bool random = s->cfg.random && !s->in_order;

	r->iov = (struct iovec){
		s->source + place(n, s->cfg.source_bytes / bytes, s->in_order) * bytes, bytes};
	r->io = (struct io_req){.op = s->op,
		.vm = VM,
		.vol = s->vol,
		.off_bytes = (random ? drawn(s) % places : place(n, places, s->in_order)) * bytes,
		.len_bytes = bytes,
		.iov = &r->iov,
		.niov = 1,
		.stable = true,
		.done_fn = wrote,
		.arg = r};
}

static void submit_all(struct stack *s)
{
	struct stack_req *r;
	int rc;

	while (s->todo && (r = TAILQ_FIRST(&s->idle))) {
		TAILQ_REMOVE(&s->idle, r, link);
		prepare(s, r);
		rc = pipeline_submit(s->pipeline, &r->io);
		if (rc < 0)
			bench_die("submit", rc);
		s->todo--;
		s->in_flight++;
	}
}

static void run(struct stack *s, enum io_op op, uint64_t count)
{
	s->op = op;
	s->todo = count;
	while (s->todo || s->in_flight) {
		submit_all(s);
		shard_run_once(s->sh);
	}
	if (s->errors)
		bench_die(op == IO_READ ? "reads failed" : "writes failed", EIO);
}

void stack_write(struct stack *s, uint64_t count)
{
	run(s, IO_WRITE, count);
}

void stack_read(struct stack *s, uint64_t count)
{
	run(s, IO_READ, count);
}
