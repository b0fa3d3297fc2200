/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A TCP echo over kernel sockets and nothing else: what a path gives before anything is built on it.
 *
 *	parapet-bench --echo-server ADDR                      prints "ready PORT", serves one connection after another
 *	parapet-bench --echo-client ADDR PORT BYTES DEPTH S   prints {"mb_s":..,"iops":..,"bytes":..}: messages of BYTES, DEPTH of them in
 *	                                                      flight, for S seconds
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"
#include "tests/bench/bench.h"
#include "tests/bench/stack.h"

#define CHUNK (256u << 10)

static int tcp_socket(const char *addr, uint16_t port, struct sockaddr_in *sa)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*sa = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(port)};
	if (fd < 0 || inet_pton(AF_INET, addr, &sa->sin_addr) != 1)
		bench_die("socket", errno ? errno : EINVAL);
	return fd;
}

static void no_delay(int fd)
{
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

static bool write_all(int fd, const char *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);

		if (w <= 0)
			return false;
		p += w;
		n -= (size_t)w;
	}
	return true;
}

void bench_echo_server(const char *addr)
{
	static char buf[CHUNK];
	struct sockaddr_in sa;
	socklen_t len = sizeof(sa);
	int l = tcp_socket(addr, 0, &sa);

	if (bind(l, (struct sockaddr *)&sa, sizeof(sa)) < 0 || listen(l, 4) < 0 ||
		getsockname(l, (struct sockaddr *)&sa, &len) < 0)
		bench_die("listen", errno);
	printf("ready %u\n", ntohs(sa.sin_port));
	fflush(stdout);
	signal(SIGPIPE, SIG_IGN); /* a client may leave with answers on their way */
	for (;;) {
		int fd = accept(l, NULL, NULL);
		ssize_t n;

		if (fd < 0)
			bench_die("accept", errno);
		no_delay(fd);
		while ((n = read(fd, buf, sizeof(buf))) > 0 && write_all(fd, buf, (size_t)n))
			;
		close(fd);
	}
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* One turn: sends what the window allows, takes what is there. */
static void turn(int fd, char *buf, uint64_t window, uint64_t *sent, uint64_t *back)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	ssize_t n;

	if (*sent - *back < window)
		p.events |= POLLOUT;
	if (poll(&p, 1, 1000) <= 0)
		bench_die("the echo is silent", ETIMEDOUT);
	if (p.revents & POLLOUT) {
		n = write(fd, buf, MIN(window - (*sent - *back), (uint64_t)CHUNK));
		if (n > 0)
			*sent += (uint64_t)n;
	}
	if (p.revents & POLLIN) {
		n = read(fd, buf, CHUNK);
		if (n <= 0)
			bench_die("the echo has ended", n ? errno : ECONNRESET);
		*back += (uint64_t)n;
	}
}

void bench_echo_client(char **args)
{
	static char buf[CHUNK];
	uint64_t bytes = strtoull(args[2], NULL, 10), depth = strtoull(args[3], NULL, 10);
	double seconds = strtod(args[4], NULL), start, took;
	uint64_t sent = 0, back = 0;
	struct sockaddr_in sa;
	int fd = tcp_socket(args[0], (uint16_t)strtoul(args[1], NULL, 10), &sa);

	if (!bytes || !depth || seconds <= 0)
		bench_die("echo client", EINVAL);
	if (connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0)
		bench_die("connect", errno);
	no_delay(fd);
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
	start = now_s();
	do {
		turn(fd, buf, bytes * depth, &sent, &back);
		took = now_s() - start;
	} while (took < seconds);
	printf("{\"mb_s\":%.1f,\"iops\":%.0f,\"bytes\":%" PRIu64 "}\n", (double)back / took / 1e6,
		(double)back / took / (double)bytes, back);
	close(fd);
}
