/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * `nvmf.tcp.*`: the NVMe/TCP initiator against a target that takes data and drops it, on loopback, beside a bare socket that does the same
 * with a header of 16 bytes and an answer of 24 per message; and through the flash back end that stands on the initiator. Both peers are processes of their own on the other core; what counts is
 * the CPU time of this thread, in turns. The target is the card's own NVMe/TCP frontend over a back end that does nothing: commands of more than 8 KiB
 * take the whole way, capsule, R2T, data, response.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/flash/flash.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp.h"
#include "dpu/net/sockets.h"
#include "dpu/nvmf/nvmf.h"
#include "tests/bench/bench.h"
#include "tests/bench/stack.h"

#define NQN          "nqn.2026-11.io.parapet:null"
#define DEPTH        32
#define SLICES       12
#define SLICES_MANY  40 /* where there is a target: the best slice of a busy machine */
#define SLICE_BYTES  (64u << 20)
#define SOURCE_BYTES (64u << 20) /* larger than the caches */
#define NS_BYTES     (1ull << 40)
#define CHUNK        (512u << 10)
#define WAIT_MS      10000

/* ---- the peers ------------------------------------------------------------------------------------------ */

struct peer_proc {
	pid_t pid;
	uint16_t port;
};

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	(void)sched_setaffinity(0, sizeof(set), &set); /* one core: then they share it */
}

static struct peer_proc peer_start(void (*serve_fn)(int out))
{
	struct peer_proc p = {0};
	int fd[2];

	if (pipe(fd) < 0)
		bench_die("pipe", errno);
	p.pid = fork();
	if (p.pid < 0)
		bench_die("fork", errno);
	if (p.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(fd[0]);
		pin(1);
		serve_fn(fd[1]);
		_exit(1);
	}
	close(fd[1]);
	if (read(fd[0], &p.port, sizeof(p.port)) != sizeof(p.port))
		bench_die("the peer did not start", ECHILD);
	close(fd[0]);
	return p;
}

static void peer_stop(struct peer_proc p)
{
	kill(p.pid, SIGKILL);
	waitpid(p.pid, NULL, 0);
}

struct null_target {
	struct shard *sh;
	TAILQ_HEAD(, io_req) queued;
	struct task run;
};

static void null_run(void *arg)
{
	struct null_target *t = arg;
	struct io_req *r;

	while ((r = TAILQ_FIRST(&t->queued))) {
		TAILQ_REMOVE(&t->queued, r, link);
		r->status = IO_OK;
		r->done_fn(r);
	}
}

static int null_submit(void *arg, struct io_req *r)
{
	struct null_target *t = arg;

	TAILQ_INSERT_TAIL(&t->queued, r, link);
	shard_defer(t->sh, &t->run, null_run, t);
	return 0;
}

static void serve_nvme(int out)
{
	struct null_target s = {.queued = TAILQ_HEAD_INITIALIZER(s.queued)};
	struct nvme_tcp_target_cfg tc = {.submit_fn = null_submit, .arg = &s};
	struct nvme_tcp_vm_cfg vc = {.vm = 1, .subnqn = NQN, .serial = "NULL"};
	struct nvme_tcp_ns_cfg nc = {.nsid = 1,
		.vol = (struct volume *)&s,
		.size_bytes = NS_BYTES,
		.block_bytes = 4096,
		.nguid = {0x0b, 1}};
	struct nvme_tcp_target *t;
	struct nvme_tcp_vm *vm;
	struct stream_listener *l;

	if (shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &s.sh) < 0 ||
		nvme_tcp_target_open(s.sh, &tc, &t) < 0 || nvme_tcp_vm_add(t, &vc, &vm, NULL) < 0 ||
		nvme_tcp_ns_add(vm, &nc, NULL) < 0 ||
		sockets_listen(s.sh, &(struct sockets_cfg){.addr = "127.0.0.1"}, &l, NULL) < 0 ||
		nvme_tcp_vm_listen(vm, l) < 0)
		return;
	if (write(out, &stream_listener_addr(l)->port, sizeof(uint16_t)) < 0)
		return;
	shard_run(s.sh);
}

struct head {
	uint32_t in_bytes, out_bytes; /* of data behind it, and of data wanted back */
	uint64_t tag;
};
#define ANSWER_BYTES 24

static bool send_all(int fd, const void *p, size_t n)
{
	for (ssize_t w; n; p = (const char *)p + w, n -= (size_t)w) {
		w = send(fd, p, n, MSG_NOSIGNAL);
		if (w <= 0)
			return false;
	}
	return true;
}

/* Takes messages off the bytes in buf; keeps what is left of data to drop in *skip. Returns bytes used. */
static size_t sink_take(const char *buf, size_t n, size_t *skip, uint32_t *answers, uint32_t *back)
{
	size_t at = 0;

	*answers = 0;
	for (;;) {
		size_t drop = MIN(*skip, n - at);
		struct head h;

		at += drop;
		*skip -= drop;
		if (*skip || n - at < sizeof(h))
			return at;
		memcpy(&h, buf + at, sizeof(h));
		at += sizeof(h);
		*skip = h.in_bytes;
		*back = h.out_bytes;
		++*answers;
	}
}

static void sink_conn(int fd)
{
	static char buf[CHUNK], zeros[DEPTH * (ANSWER_BYTES + 65536)];
	size_t have = 0, skip = 0;
	ssize_t n;

	while ((n = read(fd, buf + have, sizeof(buf) - have)) > 0) {
		uint32_t answers, back = 0;
		size_t used = sink_take(buf, have + (size_t)n, &skip, &answers, &back);

		have = have + (size_t)n - used;
		memmove(buf, buf + used, have);
		if (answers && !send_all(fd, zeros, answers * (size_t)(ANSWER_BYTES + back)))
			return;
	}
}

static void serve_bare(int out)
{
	struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(sa);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	uint16_t port;

	if (l < 0 || bind(l, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(l, 4) < 0 ||
		getsockname(l, (struct sockaddr *)&sa, &len) < 0)
		return;
	port = ntohs(sa.sin_port);
	if (write(out, &port, sizeof(port)) < 0)
		return;
	for (;;) {
		int fd = accept(l, NULL, NULL);

		if (fd < 0)
			return;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
		sink_conn(fd);
		close(fd);
	}
}

/* ---- the bare side ------------------------------------------------------------------------------------------ */

struct bare {
	int fd;
	uint8_t *mem;
	uint32_t bytes; /* of a message */
	bool reads;
	size_t at; /* in mem */
	uint64_t nsent, nback; /* messages */
	size_t part_out; /* bytes of the message at nsent that are sent */
	size_t part_in; /* bytes of the answer at nback */
	uint64_t ncalls, nmessages; /* sends that took something, of so many messages */
	struct head heads[DEPTH];
};

static void bare_connect(struct bare *b, uint16_t port)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	b->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (b->fd < 0 || connect(b->fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		bench_die("connect", errno);
	setsockopt(b->fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

static uint8_t *bare_place(struct bare *b, uint64_t i)
{
	return b->mem + i * b->bytes % SOURCE_BYTES;
}

/* All that the window allows with one call. False: the socket takes none. */
static bool bare_send(struct bare *b, uint64_t end)
{
	struct iovec iov[2 * DEPTH];
	struct msghdr m = {.msg_iov = iov};
	size_t skip = b->part_out, whole = sizeof(struct head) + (b->reads ? 0 : b->bytes);
	ssize_t n;

	for (uint64_t i = b->nsent; i < end && i < b->nback + DEPTH; i++) {
		struct head *h = &b->heads[i % DEPTH];
		size_t head_skip = MIN(skip, sizeof(*h)), data_skip = skip - head_skip;

		*h = (struct head){b->reads ? 0 : b->bytes, b->reads ? b->bytes : 0, i};
		iov[m.msg_iovlen++] = (struct iovec){(char *)h + head_skip, sizeof(*h) - head_skip};
		if (!b->reads)
			iov[m.msg_iovlen++] = (struct iovec){
				bare_place(b, i) + data_skip, b->bytes - data_skip};
		skip = 0;
	}
	n = m.msg_iovlen ? sendmsg(b->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) : -1;
	if (n <= 0)
		return false;
	b->ncalls++;
	b->part_out += (size_t)n;
	b->nsent += b->part_out / whole;
	b->part_out %= whole;
	return true;
}

/* Answers: a head each, then the data of reads into its place; all that are due with one call. */
static bool bare_recv(struct bare *b)
{
	static uint8_t scratch[ANSWER_BYTES];
	size_t skip = b->part_in, whole = ANSWER_BYTES + (b->reads ? b->bytes : 0);
	struct iovec iov[2 * DEPTH];
	struct msghdr m = {.msg_iov = iov};
	ssize_t n;

	for (uint64_t i = b->nback; i < b->nsent; i++) {
		size_t head_skip = MIN(skip, sizeof(scratch)), data_skip = skip - head_skip;

		iov[m.msg_iovlen++] = (struct iovec){
			scratch + head_skip, sizeof(scratch) - head_skip};
		if (b->reads)
			iov[m.msg_iovlen++] = (struct iovec){
				bare_place(b, i) + data_skip, b->bytes - data_skip};
		skip = 0;
	}
	n = m.msg_iovlen ? recvmsg(b->fd, &m, MSG_DONTWAIT) : -1;
	if (n <= 0)
		return false;
	b->part_in += (size_t)n;
	b->nback += b->part_in / whole;
	b->part_in %= whole;
	return true;
}

/* Takes all answers there are before it sends, as the shard's loop does: calls are gathered on both sides. */
static uint64_t bare_run(void *arg)
{
	struct bare *b = arg;
	uint64_t count = SLICE_BYTES / b->bytes;

	b->nsent = b->nback = 0;
	while (b->nback < count) {
		bool got = bare_recv(b), sent = bare_send(b, count);
		bool more = b->nsent < count && b->nsent < b->nback + DEPTH;
		struct pollfd p = {b->fd, (short)(POLLIN | (more ? POLLOUT : 0)), 0};

		if (!sent && !got && poll(&p, 1, WAIT_MS) <= 0)
			bench_die("the bare peer is silent", ETIMEDOUT);
	}
	b->nmessages += count;
	return SLICE_BYTES;
}

/* ---- the initiator's side --------------------------------------------------------------------------------------- */

struct init {
	struct shard *sh;
	struct nvmf *n;
	uint8_t *mem;
	uint32_t bytes;
	uint8_t opcode;
	uint64_t nsent, nback, count;
	double wall_best; /* bytes a second */
	struct init_io {
		struct nvmf_io io;
		struct iovec iov;
	} ios[DEPTH];
	struct flash *flash; /* the same through the back end, on a connection of its own */
	struct back_io {
		struct flash_io io;
		struct iovec iov;
	} back_ios[DEPTH];
};

static void init_send(struct init *x, struct init_io *io);

static void init_done(struct nvmf_io *io)
{
	struct init *x = io->arg;

	if (nvmf_io_result(io) < 0)
		bench_die("a command failed", io->err ? -io->err : EIO);
	x->nback++;
	if (x->nsent < x->count)
		init_send(x, container_of(io, struct init_io, io));
}

static struct iovec init_place(const struct init *x)
{
	return (struct iovec){x->mem + x->nsent * x->bytes % SOURCE_BYTES, x->bytes};
}

static void init_send(struct init *x, struct init_io *io)
{
	int rc;

	io->iov = init_place(x);
	nvmf_io_rw(&io->io, x->opcode, 1, x->nsent * (x->bytes / 4096), x->bytes / 4096, 0);
	io->io.iov = &io->iov;
	io->io.niov = 1;
	io->io.done_fn = init_done;
	io->io.arg = x;
	x->nsent++;
	rc = nvmf_submit(nvmf_queue(x->n, 1), &io->io);
	if (rc < 0)
		bench_die("submit", -rc);
}

static bool init_finished(void *arg)
{
	const struct init *x = arg;

	return x->nback == x->count;
}

static uint64_t wall_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ull + (uint64_t)ts.tv_nsec;
}

/* Ticks of the processor's reference clock (x86: its nominal frequency) per nanosecond; 0: there is none. */
static double clock_ghz(void)
{
#ifdef __x86_64__
	uint64_t start = wall_ns(), ticks = __builtin_ia32_rdtsc();

	while (wall_ns() - start < 20000000)
		;
	return (double)(__builtin_ia32_rdtsc() - ticks) / (double)(wall_ns() - start);
#else
	return 0;
#endif
}

static uint64_t init_run(void *arg)
{
	struct init *x = arg;
	uint64_t start = wall_ns();
	double rate;

	x->nsent = x->nback = 0;
	x->count = SLICE_BYTES / x->bytes;
	for (int i = 0; i < DEPTH; i++)
		init_send(x, &x->ios[i]);
	if (shard_wait(x->sh, init_finished, x, WAIT_MS * 1000000ull) < 0)
		bench_die("the target is silent", ETIMEDOUT);
	rate = (double)SLICE_BYTES * 1e9 / (double)(wall_ns() - start);
	x->wall_best = MAX(x->wall_best, rate);
	return SLICE_BYTES;
}

static void back_send(struct init *x, struct back_io *b);

static void back_done(struct flash_io *io)
{
	struct init *x = io->arg;

	if (io->status != FLASH_OK)
		bench_die(flash_status_name(io->status), EIO);
	x->nback++;
	if (x->nsent < x->count)
		back_send(x, container_of(io, struct back_io, io));
}

static void back_send(struct init *x, struct back_io *b)
{
	int rc;

	b->iov = init_place(x);
	b->io = (struct flash_io){.op = x->opcode == NVME_CMD_READ ? FLASH_READ : FLASH_WRITE,
		.off = x->nsent * x->bytes,
		.len = x->bytes,
		.iov = &b->iov,
		.niov = 1,
		.done_fn = back_done,
		.arg = x,
		.checked = true};
	x->nsent++;
	rc = flash_submit(x->flash, &b->io);
	if (rc < 0)
		bench_die("flash_submit", -rc);
}

static uint64_t back_run(void *arg)
{
	struct init *x = arg;

	x->nsent = x->nback = 0;
	x->count = SLICE_BYTES / x->bytes;
	for (int i = 0; i < DEPTH; i++)
		back_send(x, &x->back_ios[i]);
	if (shard_wait(x->sh, init_finished, x, WAIT_MS * 1000000ull) < 0)
		bench_die("the target is silent", ETIMEDOUT);
	return SLICE_BYTES;
}

static void back_open(struct init *x, uint16_t port)
{
	struct flash_opts opts = {.depth = DEPTH};
	struct err e = {0};
	char address[128];

	snprintf(address, sizeof(address), "nvme+tcp://127.0.0.1:%u/%s#1?queues=1&depth=%d", port,
		NQN, DEPTH);
	if (flash_open(x->sh, address, &opts, &x->flash, &e) < 0)
		bench_die(err_text(&e), ENODEV);
}

static void init_connect(struct init *x, uint16_t port, bool digests, bool zero_copy)
{
	struct nvmf_cfg cfg = {.host = "127.0.0.1",
		.port = port,
		.subnqn = NQN,
		.nqueues = 1,
		.depth = DEPTH,
		.no_sqflow = true,
		.hdgst = digests,
		.ddgst = digests,
		.zero_copy = zero_copy};
	struct err e = {0};

	if (nvmf_open(x->sh, &cfg, NULL, NULL, &x->n, &e) < 0 || nvmf_wait_ready(x->n, WAIT_MS) < 0)
		bench_die("cannot connect to the null target", ECONNREFUSED);
}

/* ---- rows ------------------------------------------------------------------------------------------------------------ */

static void row(const char *name, const char *what, double value, const char *unit,
	enum bench_want want, double target)
{
	char text[96];

	snprintf(text, sizeof(text), "%s.%s", name, what);
	bench_result(text, value, unit, want, target);
}

static void compare(const char *name, struct init *x, struct bare *b, uint8_t opcode,
	uint32_t bytes, enum bench_want want)
{
	struct bench_side sides[] = {{.name = name, .run_fn = init_run, .arg = x},
		{.name = "bare socket", .run_fn = bare_run, .arg = b},
		{.name = "flash nvme+tcp", .run_fn = back_run, .arg = x}};
	struct nvmf_stats before = *nvmf_stats(x->n), after;

	if (!bench_wanted(name))
		return;
	x->opcode = opcode;
	x->bytes = b->bytes = bytes;
	b->reads = opcode == NVME_CMD_READ;
	x->wall_best = 0;
	b->ncalls = b->nmessages = 0;
	bench_compare(sides, ARRAY_LEN(sides), want == BENCH_REPORT ? SLICES : SLICES_MANY);
	after = *nvmf_stats(x->n);
	row(name, "bare_ratio", sides[0].best / sides[1].best, "", want, 0.8);
	row(name, "flash.bare_ratio", sides[2].best / sides[1].best, "", want, 0.8);
	row(name, "flash.ns", bytes * 1e9 / sides[2].best, "ns", BENCH_REPORT, 0);
	row(name, "cpu_rate", sides[0].best / 1e6, "MB/s", BENCH_REPORT, 0);
	row(name, "bare.cpu_rate", sides[1].best / 1e6, "MB/s", BENCH_REPORT, 0);
	row(name, "rate", x->wall_best / 1e6, "MB/s", BENCH_REPORT, 0);
	row(name, "ns", bytes * 1e9 / sides[0].best, "ns", BENCH_REPORT, 0);
	if (clock_ghz() > 0)
		row(name, "cycles", bytes * 1e9 / sides[0].best * clock_ghz(), "", BENCH_REPORT, 0);
	row(name, "sends",
		(double)(after.kicks - before.kicks) / (double)(after.commands - before.commands),
		"", BENCH_REPORT, 0);
	row(name, "bare.sends", (double)b->ncalls / (double)b->nmessages, "", BENCH_REPORT, 0);
}

static void alone(const char *name, struct init *x, uint16_t port, bool digests, bool zero_copy)
{
	struct bench_side side = {.name = name, .run_fn = init_run, .arg = x};

	if (!bench_wanted(name))
		return;
	nvmf_close(x->n);
	init_connect(x, port, digests, zero_copy);
	x->opcode = NVME_CMD_WRITE;
	x->bytes = 65536;
	bench_compare(&side, 1, SLICES);
	row(name, "cpu_rate", side.best / 1e6, "MB/s", BENCH_REPORT, 0);
}

void bench_nvmf_tcp(void)
{
	static struct init x;
	static struct bare b;
	struct peer_proc nvme, bare;
	cpu_set_t all;

	fprintf(stderr, "NVMe/TCP initiator and a null target\n");
	(void)sched_getaffinity(0, sizeof(all), &all);
	nvme = peer_start(serve_nvme);
	bare = peer_start(serve_bare);
	pin(0);
	x.mem = b.mem = mmap(NULL, SOURCE_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (x.mem == MAP_FAILED ||
		shard_open(&(struct shard_cfg){.mode = SHARD_INTERRUPT}, &x.sh) < 0)
		bench_die("memory", ENOMEM);
	memset(x.mem, 0x5c, SOURCE_BYTES);
	init_connect(&x, nvme.port, false, false);
	back_open(&x, nvme.port);
	bare_connect(&b, bare.port);
	compare("nvmf.tcp.write.64k", &x, &b, NVME_CMD_WRITE, 65536, BENCH_AT_LEAST);
	compare("nvmf.tcp.write.4k", &x, &b, NVME_CMD_WRITE, 4096, BENCH_REPORT);
	compare("nvmf.tcp.read.64k", &x, &b, NVME_CMD_READ, 65536, BENCH_REPORT);
	compare("nvmf.tcp.read.4k", &x, &b, NVME_CMD_READ, 4096, BENCH_REPORT);
	alone("nvmf.tcp.write.64k.digests", &x, nvme.port, true, false);
	alone("nvmf.tcp.write.64k.zero_copy", &x, nvme.port, false, true);
	nvmf_close(x.n);
	flash_close(x.flash);
	flash_cool(x.sh);
	close(b.fd);
	peer_stop(nvme);
	peer_stop(bare);
	shard_close(x.sh);
	munmap(x.mem, SOURCE_BYTES);
	(void)sched_setaffinity(0, sizeof(all), &all);
}
