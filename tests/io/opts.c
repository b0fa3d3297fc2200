/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/io/opts.h"

#include <errno.h>
#include <getopt.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/base/units.h"
#include "common/base/util.h"
#include "common/nvme/fabrics.h"
#include "common/nvme/tcp.h"
#include "dpu/nvmf/nvmf.h"

static const char help[] =
	"parapet-io COMMAND --addr HOST[:PORT] [--nqn NQN] [options]\n"
	"Commands over NVMe-oF: write  read  verify  flush  trim  zero  identify  discover\n"
	"\n"
	"  --addr HOST[:PORT]     the target; port 4420 (discover: 8009)\n"
	"  --transport tcp|rdma   (tcp)\n"
	"  --nqn NQN              the subsystem (not for discover)\n"
	"  --hostnqn NQN          our name; made up by default\n"
	"  --nsid N               namespace; the first one by default\n"
	"  --bs SIZE|mixed        bytes per command (4k); mixed: many sizes, unaligned ones too\n"
	"  --offset, --size SIZE  part of the namespace; all of it by default\n"
	"  --random               pieces in random order, each once per pass\n"
	"  --count N              commands (default: every piece once); several passes raise the "
	"generation\n"
	"  --time-limit S         stop after S seconds (or --count), going round again meanwhile\n"
	"  --seed S               of data and order (1)\n"
	"  --generation A[..B]    write: first generation; verify: those that are right (1)\n"
	"  --depth N, --queues N  commands in flight per queue (32), I/O queues (1)\n"
	"  --verify               write: read everything written back and check it\n"
	"  --mix                  write: with checked reads of what was acknowledged, write zeroes "
	"and Flush\n"
	"                         among the writes\n"
	"  --flush                write, trim, zero: Flush at the end\n"
	"  --zeros                verify: everything must read as zeros\n"
	"  --fua                  write: Force Unit Access\n"
	"  --digests hdr,data     NVMe/TCP digests\n"
	"  --no-sqflow            no submission queue flow control\n"
	"  --reconnect S          outlive a target that is away for up to S seconds; what was "
	"acknowledged\n"
	"                         before is checked, what was in flight is sent again\n"
	"  --reconnect-max MS     at most so long between two tries (1000)\n"
	"  --io-timeout S         abort a command after S seconds (30)\n"
	"  --keep-alive MS        (5000; 0: none)\n"
	"  --expect-media-error   succeed if and only if every command ends with a media error\n"
	"  --expect-status N      the same for any NVMe status (0x81: Capacity Exceeded)\n"
	"  --json                 one JSON object on stdout\n"
	"Exit: 0 ok, 1 usage, 2 cannot connect, 3 I/O error, 4 wrong data\n";

enum {
	OPT_ADDR = 256,
	OPT_TRANSPORT,
	OPT_NQN,
	OPT_HOSTNQN,
	OPT_NSID,
	OPT_BS,
	OPT_SIZE,
	OPT_OFFSET,
	OPT_RANDOM,
	OPT_COUNT,
	OPT_TIME,
	OPT_SEED,
	OPT_GENERATION,
	OPT_DEPTH,
	OPT_QUEUES,
	OPT_VERIFY,
	OPT_FLUSH,
	OPT_ZEROS,
	OPT_FUA,
	OPT_DIGESTS,
	OPT_NO_SQFLOW,
	OPT_RECONNECT,
	OPT_RECONNECT_MAX,
	OPT_MIX,
	OPT_IO_TIMEOUT,
	OPT_KEEP_ALIVE,
	OPT_MEDIA,
	OPT_STATUS,
	OPT_JSON,
};

static const struct option longopts[] = {
	{"addr", required_argument, NULL, OPT_ADDR},
	{"transport", required_argument, NULL, OPT_TRANSPORT},
	{"nqn", required_argument, NULL, OPT_NQN},
	{"hostnqn", required_argument, NULL, OPT_HOSTNQN},
	{"nsid", required_argument, NULL, OPT_NSID},
	{"bs", required_argument, NULL, OPT_BS},
	{"size", required_argument, NULL, OPT_SIZE},
	{"offset", required_argument, NULL, OPT_OFFSET},
	{"random", no_argument, NULL, OPT_RANDOM},
	{"count", required_argument, NULL, OPT_COUNT},
	{"time-limit", required_argument, NULL, OPT_TIME},
	{"seed", required_argument, NULL, OPT_SEED},
	{"generation", required_argument, NULL, OPT_GENERATION},
	{"depth", required_argument, NULL, OPT_DEPTH},
	{"queues", required_argument, NULL, OPT_QUEUES},
	{"verify", no_argument, NULL, OPT_VERIFY},
	{"flush", no_argument, NULL, OPT_FLUSH},
	{"zeros", no_argument, NULL, OPT_ZEROS},
	{"fua", no_argument, NULL, OPT_FUA},
	{"digests", required_argument, NULL, OPT_DIGESTS},
	{"no-sqflow", no_argument, NULL, OPT_NO_SQFLOW},
	{"reconnect", required_argument, NULL, OPT_RECONNECT},
	{"reconnect-max", required_argument, NULL, OPT_RECONNECT_MAX},
	{"mix", no_argument, NULL, OPT_MIX},
	{"io-timeout", required_argument, NULL, OPT_IO_TIMEOUT},
	{"keep-alive", required_argument, NULL, OPT_KEEP_ALIVE},
	{"expect-media-error", no_argument, NULL, OPT_MEDIA},
	{"expect-status", required_argument, NULL, OPT_STATUS},
	{"json", no_argument, NULL, OPT_JSON},
	{"help", no_argument, NULL, 'h'},
	{NULL, 0, NULL, 0},
};

static int bad(const char *option, const char *value, const char *allowed)
{
	fprintf(stderr, "parapet-io: --%s %s: %s\n", option, value, allowed);
	return -EINVAL;
}

static int parse_number(
	const char *text, uint64_t min, uint64_t max, const char *end_at, uint64_t *out)
{
	char *end;
	unsigned long long v;

	if (*text < '0' || *text > '9')
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 0);
	if (errno || strcmp(end, end_at) || v < min || v > max)
		return -EINVAL;
	*out = v;
	return 0;
}

static int number(const char *option, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	char allowed[96];

	if (parse_number(text, min, max, "", out) == 0)
		return 0;
	snprintf(allowed, sizeof(allowed), "a number from %llu to %llu", (unsigned long long)min,
		(unsigned long long)max);
	return bad(option, text, allowed);
}

static int number32(const char *option, const char *text, uint64_t min, uint64_t max, uint32_t *out)
{
	uint64_t v;
	int rc = number(option, text, min, max, &v);

	if (rc == 0)
		*out = (uint32_t)v;
	return rc;
}

static int size(const char *option, const char *text, uint64_t *out)
{
	if (units_parse_bytes(text, out) < 0)
		return bad(option, text, "a size such as 4096, 64k, 10G");
	return 0;
}

static int block_size(const char *text, uint64_t *out)
{
	if (!strcmp(text, "mixed")) {
		*out = 0;
		return 0;
	}
	if (units_parse_bytes(text, out) < 0 || *out == 0 || *out % 512)
		return bad("bs", text, "a multiple of 512 such as 4k, or mixed");
	return 0;
}

static int generation(const char *text, struct opts *o)
{
	const char *dots = strstr(text, "..");
	uint64_t max = UINT32_MAX - 1;

	if (parse_number(text, 1, max, dots ? dots : "", &o->gen_min) < 0)
		return bad("generation", text, "A or A..B, from 1");
	o->gen_max = o->gen_min;
	if (dots && parse_number(dots + 2, o->gen_min, max, "", &o->gen_max) < 0)
		return bad("generation", text, "A or A..B, from 1");
	return 0;
}

static int digests(const char *text, struct opts *o)
{
	char copy[32], *save, *word;

	snprintf(copy, sizeof(copy), "%s", text);
	for (word = strtok_r(copy, ",", &save); word; word = strtok_r(NULL, ",", &save)) {
		if (!strcmp(word, "hdr"))
			o->hdgst = true;
		else if (!strcmp(word, "data"))
			o->ddgst = true;
		else if (strcmp(word, "none"))
			return bad("digests", text, "hdr, data, hdr,data or none");
	}
	return 0;
}

/* HOST, HOST:PORT, [V6], [V6]:PORT; names are resolved. */
static int address(const char *text, struct opts *o)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *ai;
	char host[256];
	const char *port = NULL, *end;
	uint64_t v;
	int rc;

	end = *text == '[' ? strchr(text, ']') : strchr(text, ':');
	if (*text == '[' && !end)
		return bad("addr", text, "HOST:PORT or [IPV6]:PORT");
	if (*text == '[' && end[1] == ':')
		port = end + 2;
	if (*text != '[' && end)
		port = end + 1;
	if (*text == '[')
		text++;
	snprintf(host, sizeof(host), "%.*s", end ? (int)(end - text) : (int)strlen(text), text);
	if (port && number("addr", port, 1, 65535, &v) < 0)
		return -EINVAL;
	if (port)
		o->port = (uint16_t)v;
	rc = getaddrinfo(host, NULL, &hints, &ai);
	if (rc != 0)
		return bad("addr", text, gai_strerror(rc));
	rc = getnameinfo(
		ai->ai_addr, ai->ai_addrlen, o->host, sizeof(o->host), NULL, 0, NI_NUMERICHOST);
	freeaddrinfo(ai);
	return rc ? bad("addr", text, gai_strerror(rc)) : 0;
}

static int flag(bool *f)
{
	*f = true;
	return 0;
}

static int limits_option(int c, const char *v, struct opts *o)
{
	uint32_t status;
	int rc;

	switch (c) {
	case OPT_NSID:
		return number32("nsid", v, 1, UINT32_MAX - 1, &o->nsid);
	case OPT_COUNT:
		return number("count", v, 1, UINT64_MAX / 2, &o->count);
	case OPT_TIME:
		return number32("time-limit", v, 1, 1u << 30, &o->time_limit_s);
	case OPT_SEED:
		return number("seed", v, 0, UINT64_MAX, &o->seed);
	case OPT_DEPTH:
		return number32("depth", v, 1, NVMF_DEPTH_MAX - 1, &o->depth);
	case OPT_QUEUES:
		return number32("queues", v, 1, NVMF_QUEUES_MAX, &o->queues);
	case OPT_RECONNECT:
		return number32("reconnect", v, 1, 1u << 20, &o->reconnect_s);
	case OPT_RECONNECT_MAX:
		return number32("reconnect-max", v, 10, 1u << 20, &o->reconnect_max_ms);
	case OPT_IO_TIMEOUT:
		return number32("io-timeout", v, 1, 1u << 20, &o->io_timeout_s);
	case OPT_KEEP_ALIVE:
		return number32("keep-alive", v, 0, 1u << 30, &o->keep_alive_ms);
	case OPT_MEDIA: /* a write's is known by its command */
		o->expect_status = NVME_SC_READ_ERROR;
		return 0;
	case OPT_STATUS:
		rc = number32("expect-status", v, 0, 0x7ff, &status);
		o->expect_status = (int)status;
		return rc;
	default:
		return -EINVAL;
	}
}

static int option(int c, const char *v, struct opts *o)
{
	switch (c) {
	case OPT_ADDR:
		return address(v, o);
	case OPT_TRANSPORT:
		if (strcmp(v, "tcp") && strcmp(v, "rdma"))
			return bad("transport", v, "tcp or rdma");
		o->transport = v;
		return 0;
	case OPT_NQN:
		o->nqn = v;
		return 0;
	case OPT_HOSTNQN:
		o->hostnqn = v;
		return 0;
	case OPT_BS:
		return block_size(v, &o->bs);
	case OPT_SIZE:
		return size("size", v, &o->size);
	case OPT_OFFSET:
		return size("offset", v, &o->offset);
	case OPT_GENERATION:
		return generation(v, o);
	case OPT_DIGESTS:
		return digests(v, o);
	case OPT_RANDOM:
		return flag(&o->random);
	case OPT_VERIFY:
		return flag(&o->verify);
	case OPT_FLUSH:
		return flag(&o->flush);
	case OPT_ZEROS:
		return flag(&o->zeros);
	case OPT_MIX:
		return flag(&o->mix);
	case OPT_FUA:
		return flag(&o->fua);
	case OPT_NO_SQFLOW:
		return flag(&o->no_sqflow);
	case OPT_JSON:
		return flag(&o->json);
	default:
		return limits_option(c, v, o);
	}
}

static int command(const char *name, struct opts *o)
{
	static const char *const names[] = {[CMD_WRITE] = "write",
		[CMD_READ] = "read",
		[CMD_VERIFY] = "verify",
		[CMD_FLUSH] = "flush",
		[CMD_TRIM] = "trim",
		[CMD_ZERO] = "zero",
		[CMD_IDENTIFY] = "identify",
		[CMD_DISCOVER] = "discover"};

	for (int i = 0; i < CMD_NONE; i++) {
		if (strcmp(names[i], name))
			continue;
		o->command = (enum io_command)i;
		o->command_name = names[i];
		return 0;
	}
	fprintf(stderr, "parapet-io: no such command: %s (--help lists them)\n", name);
	return -EINVAL;
}

static int check(struct opts *o)
{
	if (!*o->host) {
		fprintf(stderr, "parapet-io: --addr HOST:PORT is missing\n");
		return -EINVAL;
	}
	if (o->command == CMD_DISCOVER) {
		o->nqn = o->nqn ? o->nqn : NVME_DISCOVERY_NQN;
		o->port = o->port ? o->port : NVME_TCP_DISCOVERY_PORT;
	}
	if (!o->nqn) {
		fprintf(stderr, "parapet-io: --nqn NQN is missing\n");
		return -EINVAL;
	}
	o->port = o->port ? o->port : NVME_TCP_PORT;
	if (o->expect_status == NVME_SC_READ_ERROR && o->command != CMD_READ &&
		o->command != CMD_VERIFY)
		o->expect_status = NVME_SC_WRITE_FAULT;
	return 0;
}

int opts_parse(int argc, char **argv, struct opts *o)
{
	int c, rc;

	*o = (struct opts){.command = CMD_NONE,
		.transport = "tcp",
		.bs = 4096,
		.seed = 1,
		.gen_min = 1,
		.gen_max = 1,
		.depth = 32,
		.queues = 1,
		.io_timeout_s = 30,
		.reconnect_max_ms = 1000,
		.keep_alive_ms = 5000,
		.expect_status = -1};
	while ((c = getopt_long(argc, argv, "h", longopts, NULL)) != -1) {
		if (c == 'h') {
			fputs(help, stdout);
			return 1;
		}
		rc = c == '?' ? -EINVAL : option(c, optarg, o);
		if (rc < 0)
			return rc;
	}
	if (optind + 1 != argc) {
		fputs(help, stderr);
		return -EINVAL;
	}
	rc = command(argv[optind], o);
	return rc < 0 ? rc : check(o);
}
