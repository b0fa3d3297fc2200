/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A card without storage: ports, bridge, flow rules and lwIP, with an echo service on the storage ports of each VF.
 *
 *	portecho [EAL arguments] -- [uplink=PORT] [interrupts=1] [domain=N] [stats=FILE] PORT=IP/PREFIX...
 *
 * Prints "ready" when it is up. SIGUSR1 writes FILE, one JSON object of all counters; SIGTERM ends it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/flow/flow.h"
#include "dpu/net/lwip.h"
#include "dpu/port/port.h"

#define MAX_VFS   16
#define BUF_BYTES 32768

struct conn {
	struct stream *s;
	struct stream_tx tx;
	struct iovec iov;
	bool borrowed;
	char buf[BUF_BYTES];
};

struct vf {
	char name[PORT_NAME_MAX];
	uint32_t ip;
	unsigned int prefix;
	struct port *port;
	struct flow *flow;
	struct lwipnet_if *nif;
	struct stream_listener *listener[2];
};

static struct app {
	struct shard *sh;
	struct port_set *ps;
	struct lwipnet *net;
	struct fd_watch sig_watch;
	const char *stats_file;
	const char *uplink;
	bool interrupts;
	uint16_t domain;
	struct vf vf[MAX_VFS];
	int nvfs;
} app;

/* ---- echo ---------------------------------------------------------------------------------------------- */

static void conn_end(struct conn *c)
{
	stream_close(c->s);
	free(c);
}

static void echoed(struct stream_tx *tx, int status)
{
	struct conn *c = tx->arg;

	if (status == 0)
		stream_resume(c->s);
}

/* By turns with the copying and with the borrowing call, so that both are used. */
static ssize_t take(struct conn *c)
{
	const void *p;
	ssize_t n;

	c->borrowed = !c->borrowed;
	if (!c->borrowed)
		return stream_recv(
			c->s, &(struct iovec){.iov_base = c->buf, .iov_len = sizeof(c->buf)}, 1);
	n = stream_borrow(c->s, &p);
	if (n <= 0)
		return n;
	n = MIN(n, (ssize_t)sizeof(c->buf));
	memcpy(c->buf, p, (size_t)n);
	stream_consume(c->s, (size_t)n);
	return n;
}

static void readable(struct stream *s, void *arg)
{
	struct conn *c = arg;
	ssize_t n = take(c);

	if (n == 0) {
		conn_end(c);
		return;
	}
	if (n < 0)
		return;
	c->iov = (struct iovec){.iov_base = c->buf, .iov_len = (size_t)n};
	c->tx = (struct stream_tx){.iov = &c->iov, .niov = 1, .done_fn = echoed, .arg = c};
	stream_pause(s);
	if (stream_send(s, &c->tx) < 0)
		conn_end(c);
}

static void closed(struct stream *s, void *arg, int err)
{
	conn_end(arg);
}

static const struct stream_events events = {.readable_fn = readable, .closed_fn = closed};

static int accepted(struct stream_listener *l, void *arg, struct stream *s)
{
	struct conn *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->s = s;
	stream_set_events(s, &events, c);
	return 0;
}

/* ---- counters --------------------------------------------------------------------------------------------- */

static void write_port(FILE *f, struct port *p)
{
	struct port_info in;
	struct port_stats st;

	port_info(p, &in);
	port_stats(p, &st);
	fprintf(f,
		"\"%s\":{\"role\":\"%s\",\"link\":%s,\"interrupts\":%s,\"rx\":%" PRIu64
		",\"tx\":%" PRIu64 ",\"to_card\":%" PRIu64 ",\"forwarded\":%" PRIu64
		",\"flooded\":%" PRIu64 ",\"drop_filter\":%" PRIu64 ",\"drop_bridge\":%" PRIu64
		",\"drop_isolation\":%" PRIu64 ",\"drop_tx_full\":%" PRIu64
		",\"link_downs\":%" PRIu64 ",\"reattached\":%" PRIu64 "}",
		in.name, in.role == PORT_ROLE_UPLINK ? "uplink" : "vf",
		in.link_up ? "true" : "false", in.rx_interrupts ? "true" : "false", st.rx_packets,
		st.tx_packets, st.to_card, st.forwarded, st.flooded, st.drop_filter, st.drop_bridge,
		st.drop_isolation, st.drop_tx_full, st.link_downs, st.reattached);
}

static void write_vf(FILE *f, struct vf *v)
{
	struct flow_rule_info r;
	struct lwipnet_if_stats st;
	uint32_t conns = 0;

	for (size_t i = 0; i < ARRAY_LEN(v->listener); i++)
		conns += stream_listener_nconns(v->listener[i]);
	lwipnet_if_stats(v->nif, &st);
	fprintf(f,
		"\"%s\":{\"conns\":%u,\"rx_frames\":%" PRIu64 ",\"rx_copied\":%" PRIu64
		",\"frames_held\":%u,\"drop_syn\":%" PRIu64 ",\"rerouted\":%" PRIu64 ",\"rules\":[",
		v->name, conns, st.rx_frames, st.rx_copied, st.frames_held, st.drop_syn,
		st.rerouted);
	for (unsigned int i = 0; flow_rule_get(v->flow, i, &r) == 0; i++)
		fprintf(f,
			"%s{\"match\":\"%s\",\"action\":\"%s\",\"provider\":\"%s\",\"reason\":\"%"
			"s\",\"packets\":%" PRIu64 "}",
			i ? "," : "", r.match, r.action, r.provider, r.reason, r.packets);
	fprintf(f, "]}");
}

static void write_stats(void)
{
	char tmp[512];
	FILE *f;

	if (!app.stats_file)
		return;
	snprintf(tmp, sizeof(tmp), "%s.new", app.stats_file);
	f = fopen(tmp, "w");
	if (!f) {
		log_error("%s: %s", tmp, strerror(errno));
		return;
	}
	fprintf(f, "{\"ports\":{");
	for (unsigned int i = 0; i < port_count(app.ps); i++) {
		fprintf(f, "%s", i ? "," : "");
		write_port(f, port_at(app.ps, i));
	}
	fprintf(f, "},\"vfs\":{");
	for (int i = 0; i < app.nvfs; i++) {
		fprintf(f, "%s", i ? "," : "");
		write_vf(f, &app.vf[i]);
	}
	fprintf(f, "}}\n");
	if (fclose(f) != 0 || rename(tmp, app.stats_file) < 0)
		log_error("%s: %s", app.stats_file, strerror(errno));
}

static void on_signal(void *arg, uint32_t ev)
{
	struct signalfd_siginfo si;

	while (read(app.sig_watch.fd, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
		if (si.ssi_signo == SIGUSR1)
			write_stats();
		else
			shard_stop(app.sh);
	}
}

/* ---- set-up -------------------------------------------------------------------------------------------------- */

static int vf_start(struct vf *v, struct err *e)
{
	static const uint16_t ports[] = {4420, 8009};
	uint8_t mac[6];
	int rc = 0;

	v->port = port_find(app.ps, v->name);
	if (!v->port)
		return err_set(e, -ENODEV, v->name, NULL, "no such port");
	port_domain_set(v->port, app.domain);
	flow_card_mac(v->name, v->ip, mac);
	rc = flow_open(&(struct flow_cfg){.port = v->port,
			       .uplink = port_uplink(app.ps),
			       .vm = v->name,
			       .card_ip = v->ip},
		&v->flow, e);
	if (rc == 0)
		rc = lwipnet_if_add(app.net,
			&(struct lwipnet_if_cfg){.port = v->port,
				.ip = v->ip,
				.prefix_len = (uint8_t)v->prefix,
				.mac = mac},
			&v->nif, e);
	for (size_t i = 0; rc == 0 && i < ARRAY_LEN(ports); i++) {
		struct lwipnet_listen_cfg lc = {
			.port = ports[i], .max_conns = 8, .max_half_open = 4};

		rc = lwipnet_listen(v->nif, &lc, &v->listener[i], e);
		if (rc == 0)
			rc = stream_listener_start(v->listener[i], accepted, v);
	}
	return rc;
}

static void vf_stop(struct vf *v)
{
	for (size_t i = 0; i < ARRAY_LEN(v->listener); i++)
		if (v->listener[i])
			stream_listener_close(v->listener[i]);
	lwipnet_if_del(v->nif);
	flow_close(v->flow);
}

static int parse(int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		char *eq = strchr(argv[i], '='), *slash = strchr(argv[i], '/');
		struct vf *v = &app.vf[app.nvfs];
		struct in_addr a;

		if (!eq)
			return -EINVAL;
		*eq++ = '\0';
		if (strcmp(argv[i], "uplink") == 0) {
			app.uplink = eq;
		} else if (strcmp(argv[i], "stats") == 0) {
			app.stats_file = eq;
		} else if (strcmp(argv[i], "interrupts") == 0) {
			app.interrupts = eq[0] == '1';
		} else if (strcmp(argv[i], "domain") == 0) {
			app.domain = (uint16_t)strtoul(eq, NULL, 10);
		} else {
			if (!slash || app.nvfs == MAX_VFS)
				return -EINVAL;
			*slash++ = '\0';
			if (inet_pton(AF_INET, eq, &a) != 1)
				return -EINVAL;
			snprintf(v->name, sizeof(v->name), "%s", argv[i]);
			v->ip = ntohl(a.s_addr);
			v->prefix = (unsigned int)strtoul(slash, NULL, 10);
			app.nvfs++;
		}
	}
	return 0;
}

static int start(struct err *e)
{
	struct port_set_cfg pc = {.shard = app.sh, .interrupts = app.interrupts};
	int rc;

	if (app.uplink)
		pc.uplinks[pc.nuplinks++] = app.uplink;
	rc = port_set_open(&pc, &app.ps, e);
	if (rc == 0)
		rc = lwipnet_open(app.sh, &app.net, e);
	for (int i = 0; rc == 0 && i < app.nvfs; i++)
		rc = vf_start(&app.vf[i], e);
	return rc;
}

int main(int argc, char **argv)
{
	struct err e = {0};
	sigset_t set;
	int n, rc, fd;

	log_init("portecho", LOG_LEVEL_INFO);
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	n = port_eal_init(argc, argv);
	if (n < 0)
		return 1;
	if (parse(argc - n, argv + n) < 0) {
		fprintf(stderr,
			"usage: portecho [EAL arguments] -- [uplink=PORT] PORT=IP/PREFIX...\n");
		return 2;
	}
	fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	rc = shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &app.sh);
	if (rc < 0 || fd < 0)
		return 1;
	rc = start(&e);
	if (rc == 0)
		rc = fd_watch_add(app.sh, &app.sig_watch, fd, EPOLLIN, on_signal, NULL);
	if (rc < 0) {
		log_error("%s", err_text(&e));
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	shard_run(app.sh);
	fd_watch_del(app.sh, &app.sig_watch);
	for (int i = 0; i < app.nvfs; i++)
		vf_stop(&app.vf[i]);
	lwipnet_close(app.net);
	port_set_close(app.ps);
	/* Streams left behind by closed interfaces end in a last round. */
	while (shard_run_once(app.sh))
		;
	shard_close(app.sh);
	port_eal_cleanup();
	return 0;
}
