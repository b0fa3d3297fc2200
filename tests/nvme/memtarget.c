/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe/TCP target over plain memory on kernel sockets: no pool, no log. For initiators' tests, for measuring the
 * frontend alone, and as the flash of a peer. One VM (number 1). Prints "ready PORT" when it serves; ends on SIGTERM.
 *
 *	nvme-memtarget [-a ADDR] [-p PORT] [-s MIB] [-b 512|4096] [-n NQN] [-c] [-f FILE]...
 *
 * -f FILE, several times: a namespace each (1, 2, ...), which is the file, made as large as -s says if it is smaller: contents outlive
 * the process, also when it is killed. Without: one namespace of memory. -c: says that it has a volatile write cache, so that hosts flush.
 */
#include <errno.h>
#include <fcntl.h>
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

#define NAMESPACES_MAX 16

/* Stands for a volume: the target passes it through. */
struct disk {
	const char *file; /* NULL: memory */
	uint8_t *bytes;
	uint64_t size_bytes;
};

struct server {
	struct shard *sh;
	struct disk disks[NAMESPACES_MAX];
	unsigned int ndisks;
	bool write_cache;
	TAILQ_HEAD(, io_req) queued;
	struct task run;
};

static struct shard *running;

static void on_signal(int sig)
{
	shard_stop(running);
}

static void execute(struct io_req *r)
{
	const struct disk *d = (const struct disk *)r->vol;
	uint8_t *at;

	r->status = IO_OK;
	if (r->op == IO_FLUSH)
		return;
	if (r->off_bytes > d->size_bytes || r->len_bytes > d->size_bytes - r->off_bytes) {
		r->status = IO_ERR_RANGE;
		return;
	}
	at = d->bytes + r->off_bytes;
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
		execute(r);
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

static int disk_open(struct disk *d, uint64_t size_bytes)
{
	off_t now;
	int fd = -1;

	if (d->file) {
		fd = open(d->file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
		now = lseek(fd, 0, SEEK_END);
		if (now >= 0 && (uint64_t)now >= size_bytes)
			size_bytes = (uint64_t)now & ~4095ULL;
		else if (now < 0 || ftruncate(fd, (off_t)size_bytes) < 0) {
			close(fd);
			return -errno;
		}
	}
	d->size_bytes = size_bytes;
	d->bytes = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE,
		(d->file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS) | MAP_NORESERVE, fd, 0);
	if (fd >= 0)
		close(fd);
	return d->bytes == MAP_FAILED ? -errno : 0;
}

/* The same after every start; other subsystems' namespaces have others. */
static void disk_nguid(const char *nqn, unsigned int nsid, uint8_t nguid[16])
{
	uint64_t hash = 0xcbf29ce484222325ULL;

	for (; *nqn; nqn++)
		hash = (hash ^ (uint8_t)*nqn) * 0x100000001b3ULL;
	memcpy(nguid, &hash, sizeof(hash));
	nguid[15] = (uint8_t)nsid;
}

static int disks_add(struct server *s, struct nvme_tcp_vm *vm, const char *nqn,
	uint32_t block_bytes, struct err *err)
{
	int rc = 0;

	for (unsigned int i = 0; rc == 0 && i < s->ndisks; i++) {
		struct nvme_tcp_ns_cfg nc = {.nsid = i + 1,
			.vol = (struct volume *)&s->disks[i],
			.size_bytes = s->disks[i].size_bytes,
			.block_bytes = block_bytes};

		disk_nguid(nqn, i + 1, nc.nguid);
		rc = nvme_tcp_ns_add(vm, &nc, err);
	}
	return rc;
}

static int serve(struct server *s, struct sockets_cfg *addr, const char *nqn, uint32_t block_bytes)
{
	struct nvme_tcp_target_cfg tc = {.submit_fn = submit, .arg = s};
	struct nvme_tcp_vm_cfg vc = {
		.vm = 1, .subnqn = nqn, .serial = "MEMORY", .no_write_cache = !s->write_cache};
	struct nvme_tcp_target *t;
	struct nvme_tcp_vm *vm;
	struct stream_listener *l;
	struct err err = {0};
	int rc = nvme_tcp_target_open(s->sh, &tc, &t);

	if (rc == 0)
		rc = nvme_tcp_vm_add(t, &vc, &vm, &err);
	if (rc == 0)
		rc = disks_add(s, vm, nqn, block_bytes, &err);
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

static int usage(void)
{
	fprintf(stderr, "usage: nvme-memtarget [-a ADDR] [-p PORT] [-s MIB] [-b 512|4096] [-n NQN] "
			"[-c] [-f FILE]... [-v]\n");
	return 2;
}

int main(int argc, char **argv)
{
	struct sockets_cfg addr = {.addr = "127.0.0.1", .port = 4420};
	struct server s = {.ndisks = 0};
	const char *nqn = "nqn.2026-11.io.parapet:memory";
	uint64_t size_bytes = 256u << 20;
	uint32_t block_bytes = 4096;
	int opt, rc = 0;

	while ((opt = getopt(argc, argv, "a:p:s:b:n:cf:v")) != -1) {
		switch (opt) {
		case 'a':
			addr.addr = optarg;
			break;
		case 'p':
			addr.port = (uint16_t)strtoul(optarg, NULL, 10);
			break;
		case 's':
			size_bytes = strtoull(optarg, NULL, 10) << 20;
			break;
		case 'b':
			block_bytes = (uint32_t)strtoul(optarg, NULL, 10);
			break;
		case 'n':
			nqn = optarg;
			break;
		case 'c':
			s.write_cache = true;
			break;
		case 'f':
			if (s.ndisks == NAMESPACES_MAX)
				return usage();
			s.disks[s.ndisks++].file = optarg;
			break;
		case 'v':
			log_init("nvme-memtarget", LOG_LEVEL_DEBUG);
			break;
		default:
			return usage();
		}
	}
	TAILQ_INIT(&s.queued);
	s.ndisks = s.ndisks ? s.ndisks : 1;
	for (unsigned int i = 0; rc == 0 && i < s.ndisks; i++)
		rc = disk_open(&s.disks[i], size_bytes);
	if (rc == 0)
		rc = shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &s.sh);
	if (rc < 0) {
		fprintf(stderr, "nvme-memtarget: %s\n", strerror(-rc));
		return 1;
	}
	running = s.sh;
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	rc = serve(&s, &addr, nqn, block_bytes);
	shard_close(s.sh);
	return rc;
}
