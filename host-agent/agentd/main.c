/* SPDX-License-Identifier: BSD-3-Clause */
/* parapet-agent: start order, signals, shutdown. */
#include "common/base/log.h"
#include "common/base/util.h"
#include "host-agent/agentd/api.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define EVENTS_KEPT 4096

static const char usage[] =
	"Usage: parapet-agent [--api SOCKET] [--store FILE] [--debug]\n"
	"\n"
	"The host daemon: keeps the configuration and the tables, sends them to the cards and "
	"serves\n"
	"the CLI (parapet).\n"
	"\n"
	"  --api SOCKET   Unix socket to serve, mode 0600 [/run/parapet/agent.sock]\n"
	"  --store FILE   SQLite store, made when missing [/var/lib/parapet/agent.db]\n"
	"  --debug        more in the log (stderr)\n"
	"  --help         this text\n"
	"\n"
	"Ends with 0 on SIGTERM or SIGINT, 1 when it cannot start, 2 on wrong usage.\n";

struct config {
	char api[108];
	char store[512];
	enum log_level level;
};

/* 0: go on; else the exit code + 1. */
static int parse(int argc, char **argv, struct config *cfg)
{
	static const struct option options[] = {
		{"api", required_argument, NULL, 'a'},
		{"store", required_argument, NULL, 's'},
		{"debug", no_argument, NULL, 'd'},
		{"help", no_argument, NULL, 'h'},
		{NULL},
	};
	int c;

	while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		if (c == 'h') {
			fputs(usage, stdout);
			return 1;
		}
		if (c == 'a' && strlen(optarg) < sizeof(cfg->api))
			snprintf(cfg->api, sizeof(cfg->api), "%s", optarg);
		else if (c == 's' && strlen(optarg) < sizeof(cfg->store))
			snprintf(cfg->store, sizeof(cfg->store), "%s", optarg);
		else if (c == 'd')
			cfg->level = LOG_LEVEL_DEBUG;
		else {
			fprintf(stderr, "parapet-agent: see --help\n");
			return 3;
		}
	}
	if (optind == argc)
		return 0;
	fprintf(stderr, "parapet-agent: unexpected argument '%s'; see --help\n", argv[optind]);
	return 3;
}

/* The folder of a path, one level, private. */
static void make_parent(const char *path)
{
	char dir[512];
	char *slash;

	snprintf(dir, sizeof(dir), "%s", path);
	slash = strrchr(dir, '/');
	if (!slash || slash == dir)
		return;
	*slash = '\0';
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		log_warn("%s: %m", dir);
}

/* One agent per store; the lock ends with the process. Returns the descriptor or -errno. */
static int lock_store(const char *store, struct err *e)
{
	char path[520];
	int fd, rc;

	snprintf(path, sizeof(path), "%s.lock", store);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_set(e, -errno, "store", "", "%s: %s", path, strerror(errno));
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	rc = errno == EWOULDBLOCK
		     ? err_set(e, -EBUSY, "store", "", "%s is used by another agent", store)
		     : err_set(e, -errno, "store", "", "%s: %s", path, strerror(errno));
	close(fd);
	return rc;
}

static int agent_init(struct agent *a, const struct config *cfg)
{
	*a = (struct agent){.db_path = cfg->store};
	pthread_mutex_init(&a->change, NULL);
	pthread_mutex_init(&a->reload, NULL);
	pthread_mutex_init(&a->nodes_lock, NULL);
	pthread_cond_init(&a->nodes_idle, NULL);
	return events_open(EVENTS_KEPT, &a->events);
}

static int serve(const struct config *cfg, const sigset_t *signals)
{
	struct api *api = NULL;
	struct err e = {0};
	struct agent a;
	int rc, sig, lock;

	lock = lock_store(cfg->store, &e);
	if (lock < 0) {
		log_error("%s", err_text(&e));
		return lock;
	}
	rc = agent_init(&a, cfg);
	if (rc < 0) {
		log_error("start: %s", strerror(-rc));
		close(lock);
		return rc;
	}
	rc = api_start(&a, cfg->api, &api, &e);
	if (!rc)
		rc = nodes_reload(&a, &e);
	if (rc < 0) {
		log_error("%s", err_text(&e));
	} else {
		log_info("serving %s, store %s", cfg->api, cfg->store);
		sigwait(signals, &sig);
		log_info("stopping (signal %d)", sig);
	}
	events_stop(a.events);
	api_stop(api);
	nodes_close(&a);
	events_close(a.events);
	close(lock);
	return rc;
}

int main(int argc, char **argv)
{
	struct config cfg = {
		"/run/parapet/agent.sock", "/var/lib/parapet/agent.db", LOG_LEVEL_INFO};
	sigset_t signals;
	int rc;

	rc = parse(argc, argv, &cfg);
	if (rc)
		return rc - 1;
	log_init("parapet-agent", cfg.level);
	json_object_seed(0);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &signals, NULL);
	make_parent(cfg.api);
	make_parent(cfg.store);
	return serve(&cfg, &signals) < 0 ? 1 : 0;
}
