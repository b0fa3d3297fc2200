/* SPDX-License-Identifier: BSD-3-Clause */
/* parapet-dpu: the firmware process of a card. Options, the order of starting and stopping, signals; nothing else. */
#include "common/base/log.h"
#include "common/base/units.h"
#include "common/base/util.h"
#include "dpu/control/server.h"
#include "dpu/control/shards.h"
#include "dpu/net/lwip.h"
#include "dpu/port/port.h"

#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_MEMORY_MIN (64ull << 20)

struct dpu {
	/* options */
	const char *state_dir, *control;
	enum shard_mode mode;
	enum log_level log;
	uint64_t map_bytes;
	unsigned int nshards; /* of a new pool; 0: nobody said */
	const char *cores;
	cpu_set_t cpus; /* this process may use; EAL pins its first thread */
	const char *uplinks[PORT_UPLINKS_MAX];
	unsigned int nuplinks;
	int eal_argc; /* 0: sockets only, EAL is not started */
	char **eal_argv;
	/* parts */
	struct shard *shard;
	struct access_ports_provider ports;
	struct shards *shards;
	struct server *server;
};

/* ---- the parts, in the order they start; they stop the other way round ------------------------------------------- */

static int eal_start(struct dpu *d, struct err *e)
{
	int rc;

	if (!d->eal_argc)
		return 0;
	rc = port_eal_init(d->eal_argc, d->eal_argv);
	return rc < 0 ? err_set(e, rc, "EAL", NULL, "does not start: %s", strerror(-rc)) : 0;
}

static void eal_stop(struct dpu *d)
{
	if (d->eal_argc)
		port_eal_cleanup();
}

static int shard_start(struct dpu *d, struct err *e)
{
	int rc = shard_open(&(struct shard_cfg){.mode = d->mode}, &d->shard);

	return rc < 0 ? err_set(e, rc, "shard", NULL, "does not start: %s", strerror(-rc)) : 0;
}

static void shard_end(struct dpu *d)
{
	shard_close(d->shard);
}

static int ports_start(struct dpu *d, struct err *e)
{
	struct port_set_cfg cfg = {
		.shard = d->shard, .nuplinks = d->nuplinks, .interrupts = d->mode != SHARD_POLLING};
	int rc;

	if (!d->eal_argc)
		return d->nuplinks ? err_set(e, -EINVAL, "option --uplink", NULL,
					     "there are no ports: give EAL arguments after --")
				   : 0;
	memcpy(cfg.uplinks, d->uplinks, sizeof(cfg.uplinks));
	rc = port_set_open(&cfg, &d->ports.ports, e);
	if (rc == 0) {
		rc = lwipnet_open(d->shard, &d->ports.net, e);
		if (rc < 0)
			port_set_close(d->ports.ports);
	}
	return rc;
}

static void ports_stop(struct dpu *d)
{
	if (!d->eal_argc)
		return;
	lwipnet_close(d->ports.net);
	port_set_close(d->ports.ports);
}

static int shards_begin(struct dpu *d, struct err *e)
{
	struct shards_cfg cfg = {.card = {.shard = d->shard,
					 .state_dir = d->state_dir,
					 .mode = d->mode,
					 .map_bytes = d->map_bytes,
					 .access = {{&access_sockets, d->shard}}},
		.count = d->nshards,
		.cores = d->cores,
		.cpus = &d->cpus};

	if (d->eal_argc) {
		cfg.card.access[1] = (struct card_access){&access_ports, &d->ports};
		cfg.card.vhost = &vhost_lib;
		cfg.thread_begin_fn = port_eal_thread_begin;
		cfg.thread_end_fn = port_eal_thread_end;
	}
	return shards_open(&cfg, &d->shards, e);
}

static void shards_end(struct dpu *d)
{
	shards_close(d->shards);
}

static int pools_start(struct dpu *d, struct err *e)
{
	return shards_start(d->shards, e);
}

static void pools_stop(struct dpu *d)
{
	/* shards_end() takes them down, after the control socket is closed. */
}

static int server_begin(struct dpu *d, struct err *e)
{
	return server_start(d->shards, d->control, &d->server, e);
}

static void server_end(struct dpu *d)
{
	server_stop(d->server);
}

static const struct {
	const char *name;
	int (*start)(struct dpu *d, struct err *e);
	void (*stop)(struct dpu *d);
} parts[] = {
	{"eal", eal_start, eal_stop}, {"shard", shard_start, shard_end},
	{"ports", ports_start, ports_stop}, {"card", shards_begin, shards_end},
	{"control", server_begin, server_end},
	{"pool", pools_start,
		pools_stop}, /* may take long: the control socket says how far it is */
};

/* ---- signals ---------------------------------------------------------------------------------------------------------- */

static struct shard *signalled;

static void on_signal(int sig)
{
	shard_stop(signalled);
}

static void signals_set(struct shard *sh)
{
	struct sigaction end = {.sa_handler = on_signal}, none = {.sa_handler = SIG_IGN};

	signalled = sh;
	sigaction(SIGTERM, &end, NULL);
	sigaction(SIGINT, &end, NULL);
	sigaction(SIGPIPE, &none, NULL);
}

static void signals_ignore(void)
{
	struct sigaction none = {.sa_handler = SIG_IGN};

	sigaction(SIGTERM, &none, NULL);
	sigaction(SIGINT, &none, NULL);
}

/* ---- options ----------------------------------------------------------------------------------------------------------- */

static const char usage[] =
	"usage: parapet-dpu [options] [-- EAL arguments]\n"
	"\n"
	"The firmware process of a card. Without EAL arguments it serves VMs over sockets only and "
	"DPDK is not started; \"-- --no-pci\" starts it for vhost-user sockets alone.\n"
	"\n"
	"  --state DIR       what survives a restart; default /var/lib/parapet/dpu\n"
	"  --control SOCKET  where the host agent connects; default /run/parapet/dpu.sock\n"
	"  --mode MODE       adaptive (default), polling or interrupt; the tables may say "
	"otherwise\n"
	"  --shards N        how many shards a new pool gets where nobody says: 1 (default) to 16, "
	"each with a\n"
	"                    thread of its own and a slice of every flash\n"
	"  --cores LIST      CPUs the shards are pinned to, in turn, for example 2,3 or 2-5; "
	"default: "
	"none\n"
	"  --uplink PORT     a port to the network, not to a VM; may be given several times\n"
	"  --map-memory SIZE memory for what says where blocks are (16 bytes per 4 KiB written), "
	"for example 4G;\n"
	"                    default: a quarter of the machine's\n"
	"  --log LEVEL       error, warn, info (default) or debug\n"
	"  --version, --help\n"
	"\n"
	"example: parapet-dpu --uplink net_memif9 -- --no-pci --in-memory --vdev "
	"net_memif0,role=client,socket=/run/vf0\n";

static int choice(const char *text, const char *const *names, int *out)
{
	for (int i = 0; names[i]; i++)
		if (!strcmp(text, names[i])) {
			*out = i;
			return 0;
		}
	return -EINVAL;
}

static uint64_t machine_bytes(void)
{
	long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);

	return pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 0;
}

/* A quarter, but not less than 1 GiB, but then not more than half. */
static uint64_t map_memory_default(void)
{
	uint64_t all = machine_bytes();

	return all ? MIN(MAX(all / 4, 1ull << 30), all / 2) : 1ull << 30;
}

static int map_memory(const char *text, uint64_t *bytes)
{
	uint64_t half = machine_bytes() / 2;

	if (units_parse_bytes(text, bytes) == 0 && *bytes >= MAP_MEMORY_MIN &&
		(!half || *bytes <= half))
		return 0;
	fprintf(stderr,
		"parapet-dpu: --map-memory %s: a size from %lluM to half of the machine's memory "
		"(%lluM), for example 4G\n",
		text, MAP_MEMORY_MIN >> 20, (unsigned long long)half >> 20);
	return -EINVAL;
}

static int shards_number(const char *text, unsigned int *n)
{
	char *end;
	unsigned long v = strtoul(text, &end, 10);

	if (*text >= '0' && *text <= '9' && !*end && v >= 1 && v <= SHARDS_MAX) {
		*n = (unsigned int)v;
		return 0;
	}
	fprintf(stderr, "parapet-dpu: --shards %s: allowed: 1 to %u\n", text, SHARDS_MAX);
	return -EINVAL;
}

/* 0: go on; 1: done, with 0; -EINVAL: said why. */
static int options_read(int argc, char **argv, struct dpu *d)
{
	static const struct option options[] = {
		{"state", required_argument, NULL, 's'},
		{"control", required_argument, NULL, 'c'},
		{"mode", required_argument, NULL, 'm'},
		{"uplink", required_argument, NULL, 'u'},
		{"map-memory", required_argument, NULL, 'M'},
		{"shards", required_argument, NULL, 'S'},
		{"cores", required_argument, NULL, 'C'},
		{"log", required_argument, NULL, 'l'},
		{"version", no_argument, NULL, 'V'},
		{"help", no_argument, NULL, 'h'},
		{0},
	};
	static const char *const modes[] = {"polling", "adaptive", "interrupt", NULL};
	static const char *const levels[] = {"error", "warn", "info", "debug", NULL};
	int opt, v;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			d->state_dir = optarg;
			break;
		case 'c':
			d->control = optarg;
			break;
		case 'm':
			if (choice(optarg, modes, &v) < 0)
				goto bad;
			d->mode = (enum shard_mode)v;
			break;
		case 'l':
			if (choice(optarg, levels, &v) < 0)
				goto bad;
			d->log = (enum log_level)v;
			break;
		case 'M':
			if (map_memory(optarg, &d->map_bytes) < 0)
				return -EINVAL;
			break;
		case 'S':
			if (shards_number(optarg, &d->nshards) < 0)
				return -EINVAL;
			break;
		case 'C':
			d->cores = optarg;
			break;
		case 'u':
			if (d->nuplinks == PORT_UPLINKS_MAX)
				goto bad;
			d->uplinks[d->nuplinks++] = optarg;
			break;
		case 'V':
			printf("parapet-dpu %s\n", CARD_VERSION);
			return 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		default:
			goto bad;
		}
	}
	if (optind < argc && strcmp(argv[optind - 1], "--"))
		goto bad;
	if (optind < argc) {
		/* EAL sees the program's name and what stands behind "--". */
		argv[optind - 1] = argv[0];
		d->eal_argc = argc - optind + 1;
		d->eal_argv = argv + optind - 1;
	}
	return 0;
bad:
	fputs(usage, stderr);
	return -EINVAL;
}

/* The directories of the defaults do not exist on a fresh machine. */
static void make_parents(const char *path)
{
	char dir[256];

	if (snprintf(dir, sizeof(dir), "%s", path) >= (int)sizeof(dir))
		return;
	for (char *p = strchr(dir + 1, '/'); p; p = strchr(p + 1, '/')) {
		*p = 0;
		if (mkdir(dir, 0700) < 0 && errno != EEXIST)
			return; /* whoever needs it will say so */
		*p = '/';
	}
}

int main(int argc, char **argv)
{
	struct dpu d = {.state_dir = "/var/lib/parapet/dpu",
		.control = "/run/parapet/dpu.sock",
		.mode = SHARD_ADAPTIVE,
		.log = LOG_LEVEL_INFO,
		.map_bytes = map_memory_default()};
	struct err e = {0};
	size_t up = 0;
	int rc = options_read(argc, argv, &d);

	if (rc)
		return rc < 0 ? 2 : 0;
	log_init("dpu", d.log);
	if (sched_getaffinity(0, sizeof(d.cpus), &d.cpus) < 0) {
		log_error("which CPUs there are: %s", strerror(errno));
		return 1;
	}
	make_parents(d.state_dir);
	make_parents(d.control);
	for (; rc == 0 && up < ARRAY_LEN(parts); up++) {
		rc = parts[up].start(&d, &e);
		if (rc < 0) {
			log_error("%s: %s", parts[up].name, err_text(&e));
			break;
		}
	}
	if (rc == 0) {
		signals_set(d.shard);
		log_info("ready, control socket %s", d.control);
		shard_run(d.shard);
		log_info("stopping");
		signals_ignore();
	}
	while (up > 0)
		parts[--up].stop(&d);
	return rc < 0 ? 1 : 0;
}
