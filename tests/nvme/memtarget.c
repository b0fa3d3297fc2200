/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe/TCP target over plain memory on kernel sockets: no pool, no log. For initiators' tests and for measuring the
 * frontend alone. One VM (number 1), one namespace. Prints "ready PORT" when it serves; ends on SIGTERM.
 *
 *	nvme-memtarget [-a ADDR] [-p PORT] [-s MIB] [-b 512|4096] [-n NQN]
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/log.h"
#include "dpu/core/shard.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp.h"
#include "dpu/net/sockets.h"

struct server {
	struct shard *sh;
	uint8_t *bytes;
	uint64_t size_bytes;
	TAILQ_HEAD(, io_req) queued;
	struct task run;
};

static struct shard *running;

static void on_signal(int sig)
{
	shard_stop(running);
}

static void execute(struct server *s, struct io_req *r)
{
	uint8_t *at = s->bytes + r->off_bytes;

	if (r->off_bytes > s->size_bytes || r->len_bytes > s->size_bytes - r->off_bytes) {
		r->status = IO_ERR_RANGE;
		return;
	}
	r->status = IO_OK;
	if (r->op == IO_TRIM || r->op == IO_WRITE_ZEROES)
		memset(at, 0, r->len_bytes);
	for (int i = 0; i < r->niov && (r->op == IO_READ || r->op == IO_WRITE); i++) {
		if (r->op == IO_READ)
			memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
		else
			memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
	}
}

static void run_queued(void *arg)
{
	struct server *s = arg;
	struct io_req *r;

	while ((r = TAILQ_FIRST(&s->queued))) {
		TAILQ_REMOVE(&s->queued, r, link);
		execute(s, r);
		r->done_fn(r);
	}
}

static int submit(void *arg, struct io_req *r)
{
	struct server *s = arg;

	TAILQ_INSERT_TAIL(&s->queued, r, link);
	shard_defer(s->sh, &s->run, run_queued, s);
	return 0;
}

static int serve(struct server *s, struct sockets_cfg *addr, const char *nqn, uint32_t block_bytes)
{
	struct nvme_tcp_target_cfg tc = {.submit_fn = submit, .arg = s};
	struct nvme_tcp_vm_cfg vc = {.vm = 1, .subnqn = nqn, .serial = "MEMORY"};
	struct nvme_tcp_ns_cfg nc = {.nsid = 1,
		.vol = (struct volume *)s,
		.size_bytes = s->size_bytes,
		.block_bytes = block_bytes,
		.nguid = {0x0a, 1}};
	struct nvme_tcp_target *t;
	struct nvme_tcp_vm *vm;
	struct stream_listener *l;
	struct err err = {0};
	int rc = nvme_tcp_target_open(s->sh, &tc, &t);

	if (rc == 0)
		rc = nvme_tcp_vm_add(t, &vc, &vm, &err);
	if (rc == 0)
		rc = nvme_tcp_ns_add(vm, &nc, &err);
	if (rc == 0)
		rc = sockets_listen(s->sh, addr, &l, &err);
	if (rc == 0)
		rc = nvme_tcp_vm_listen(vm, l);
	if (rc < 0) {
		fprintf(stderr, "nvme-memtarget: %s\n", err.code ? err_text(&err) : strerror(-rc));
		return 1;
	}
	printf("ready %u\n", stream_listener_addr(l)->port);
	fflush(stdout);
	shard_run(s->sh);
	nvme_tcp_vm_del(vm);
	nvme_tcp_target_close(t);
	return 0;
}

int main(int argc, char **argv)
{
	struct sockets_cfg addr = {.addr = "127.0.0.1", .port = 4420};
	struct server s = {.size_bytes = 256u << 20};
	const char *nqn = "nqn.2026-11.io.parapet:memory";
	uint32_t block_bytes = 4096;
	int opt, rc;

	while ((opt = getopt(argc, argv, "a:p:s:b:n:v")) != -1) {
		switch (opt) {
		case 'a':
			addr.addr = optarg;
			break;
		case 'p':
			addr.port = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		case 's':
			s.size_bytes = strtoull(optarg, NULL, 10) << 20;
			break;
		case 'b':
			block_bytes = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'n':
			nqn = optarg;
			break;
		case 'v':
			log_init("nvme-memtarget", LOG_LEVEL_DEBUG);
			break;
		default:
			fprintf(stderr, "usage: nvme-memtarget [-a ADDR] [-p PORT] [-s MIB] [-b "
					"512|4096] [-n NQN] [-v]\n");
			return 2;
		}
	}
	TAILQ_INIT(&s.queued);
	s.bytes = mmap(NULL, s.size_bytes, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s.bytes == MAP_FAILED ||
		shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &s.sh) < 0) {
		perror("nvme-memtarget");
		return 1;
	}
	running = s.sh;
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	rc = serve(&s, &addr, nqn, block_bytes);
	shard_close(s.sh);
	munmap(s.bytes, s.size_bytes);
	return rc;
}
