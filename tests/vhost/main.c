/* SPDX-License-Identifier: BSD-3-Clause */
/* vhost-io: a vhost-user-blk driver of our own, for tests, faults and measurements; see --help. */
#include "tests/vhost/io.h"

#include "common/base/units.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char usage[] =
	"usage: vhost-io SOCKET COMMAND [options]\n"
	"  write        stamped blocks                   verify  the same, then reads all back and "
	"checks\n"
	"  read         and checks stamps, or (--zero) zeros                bench-write, "
	"bench-read  without looking "
	"at data\n"
	"  flush, discard, zeroes, unmap (zeroes that may free), id, config\n"
	"  grow         waits until the size has changed\n"
	"  hot-add      memory is added while requests run\n"
	"  bad          breaks a rule (--kind NAME, all) and looks what becomes of it\n"
	"  truncate     takes the memory away under its requests (--kind memory, inflight); nobody "
	"must "
	"answer any more\n"
	"  --block SIZE [4096]  --depth N [32]  --queues N [1]  --segments N [1]  --ring N [256]\n"
	"  --offset SIZE --size SIZE [all]  --count N  --seconds N  --random  --seed N\n"
	"  --packed  --indirect  --no-inflight  --irq (sleeps for answers)  --memory SIZE\n"
	"  --reconnect SECONDS (goes on when the card comes back)  --json\n"
	"  --spread (data buffers all over the memory, none of them used twice soon)\n"
	"  --warm N (as many requests before the clock starts)  --cpu-of PID (tells what CPU time "
	"it took)\n";

void io_nap_us(uint32_t us)
{
	struct timespec t = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

	nanosleep(&t, NULL);
}

int io_one(struct vu *v, uint32_t type, uint64_t sector, void *data, uint32_t len, bool to_device)
{
	static struct virtio_blk_outhdr *h;
	static uint8_t *status;
	struct vu_part p[3] = {{0}};
	unsigned int n = 0;
	uint32_t written;

	if (!h) {
		h = vu_alloc(v, sizeof(*h), 64);
		status = vu_alloc(v, 1, 1);
	}
	if (!status)
		return -ENOMEM;
	*h = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	*status = 0xff;
	p[n++] = (struct vu_part){h, sizeof(*h), false};
	if (data)
		p[n++] = (struct vu_part){data, len, !to_device};
	p[n++] = (struct vu_part){status, 1, true};
	vu_put(v, 0, 0, p, n);
	vu_kick(v, 0);
	for (int i = 0; i < 20000; i++) {
		if (vu_get(v, 0, &written) >= 0)
			return *status;
		io_nap_us(i < 100 ? 10 : 1000);
	}
	return -ETIMEDOUT;
}

static int ranges(struct vu *v, const struct io_opts *o, uint32_t type, uint32_t flags)
{
	struct virtio_blk_discard_write_zeroes *r = vu_alloc(v, 4096, 4096);
	uint32_t n = o->segments;
	uint64_t each = o->size / n / o->block * o->block;

	if (!r || n > 4096 / sizeof(*r))
		return -EINVAL;
	for (uint32_t i = 0; i < n; i++)
		r[i] = (struct virtio_blk_discard_write_zeroes){
			(o->offset + i * each) / 512, (uint32_t)(each / 512), flags};
	return io_one(v, type, 0, r, n * (uint32_t)sizeof(*r), true);
}

static int grow(struct vu *v, struct io_result *r)
{
	uint64_t was = v->config.capacity;

	for (int i = 0; i < 600; i++) {
		if (vu_config_changed(v) && vu_get_config(v) == 0 && v->config.capacity != was) {
			snprintf(r->note, sizeof(r->note), "%" PRIu64 " to %" PRIu64 " sectors",
				was, (uint64_t)v->config.capacity);
			return 0;
		}
		io_nap_us(50000);
	}
	return -ETIMEDOUT;
}

static int hot_add(struct vu *v)
{
	void *more;
	int rc = vu_add_memory(v, 8 << 20, &more);

	if (rc == 0)
		rc = io_one(v, VIRTIO_BLK_T_OUT, 0, memset(more, 0x5a, 4096), 4096, true);
	if (rc == 0)
		rc = io_one(v, VIRTIO_BLK_T_IN, 0, (uint8_t *)more + 8192, 4096, false);
	return rc ? rc : memcmp(more, (uint8_t *)more + 8192, 4096) ? -EIO : 0;
}

static int get_id(struct vu *v, struct io_result *r)
{
	char *id = vu_alloc(v, 21, 64);
	int rc = id ? io_one(v, VIRTIO_BLK_T_GET_ID, 0, id, 20, false) : -ENOMEM;

	if (rc == 0)
		snprintf(r->note, sizeof(r->note), "%s", id);
	return rc;
}

static int run(struct vu *v, struct io_opts *o, struct io_result *r)
{
	const char *c = o->command;

	if (!o->size)
		o->size = v->config.capacity * 512 - o->offset;
	if (!strcmp(c, "flush"))
		return io_one(v, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false);
	if (!strcmp(c, "discard"))
		return ranges(v, o, VIRTIO_BLK_T_DISCARD, 0);
	if (!strcmp(c, "zeroes"))
		return ranges(v, o, VIRTIO_BLK_T_WRITE_ZEROES, 0);
	if (!strcmp(c, "unmap"))
		return ranges(v, o, VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	if (!strcmp(c, "id"))
		return get_id(v, r);
	if (!strcmp(c, "config"))
		return 0;
	if (!strcmp(c, "grow"))
		return grow(v, r);
	if (!strcmp(c, "hot-add"))
		return hot_add(v);
	if (!strcmp(c, "bad"))
		return io_bad(v, o, r);
	if (!strcmp(c, "truncate"))
		return io_truncate(v, o, r);
	o->plain = !strncmp(c, "bench-", 6);
	if (!o->plain && strcmp(c, "write") && strcmp(c, "read") && strcmp(c, "verify"))
		return -EINVAL;
	return io_load(v, o, r);
}

static void report(const struct vu *v, const struct io_opts *o, const struct io_result *r, int rc)
{
	json_t *j = json_pack(
		"{s:s, s:b, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:f, s:f, s:s}",
		"command", o->command, "ok", rc == 0 && !r->errors && !r->wrong, "error",
		rc < 0 ? strerror(-rc)
		: rc   ? "status"
		       : "",
		"status", (json_int_t)(rc > 0 ? rc : 0), "requests", (json_int_t)r->requests,
		"bytes", (json_int_t)r->bytes, "errors", (json_int_t)r->errors, "wrong_sectors",
		(json_int_t)r->wrong, "reconnects", (json_int_t)r->reconnects, "kicks",
		(json_int_t)r->kicks, "cpu_ns", (json_int_t)r->cpu_ns, "seconds", r->seconds,
		"iops", r->seconds > 0 ? (double)r->requests / r->seconds : 0, "mb_per_s",
		r->seconds > 0 ? (double)r->bytes / r->seconds / 1e6 : 0, "note", r->note);

	if (v)
		json_object_update_new(
			j, json_pack("{s:I, s:I, s:I, s:I, s:I}", "capacity",
				   (json_int_t)v->config.capacity * 512, "block",
				   (json_int_t)v->config.blk_size, "queues", (json_int_t)v->nqueues,
				   "seg_max", (json_int_t)v->config.seg_max, "features",
				   (json_int_t)v->features));
	if (o->json)
		json_dumpf(j, stdout, JSON_INDENT(1));
	else
		printf("%s: %s %s %" PRIu64 " requests, %.0f/s, %.1f MB/s, %" PRIu64
		       " errors, %" PRIu64 " wrong, %" PRIu64 " reconnects",
			o->command,
			rc < 0 ? strerror(-rc)
			: rc   ? "failed"
			       : "ok",
			r->note, r->requests, r->seconds > 0 ? (double)r->requests / r->seconds : 0,
			r->seconds > 0 ? (double)r->bytes / r->seconds / 1e6 : 0, r->errors,
			r->wrong, r->reconnects);
	putchar('\n');
	json_decref(j);
}

static const struct option options[] = {{"block", 1, 0, 'b'}, {"depth", 1, 0, 'd'},
	{"queues", 1, 0, 'q'}, {"segments", 1, 0, 's'}, {"ring", 1, 0, 'r'}, {"offset", 1, 0, 'o'},
	{"size", 1, 0, 'z'}, {"count", 1, 0, 'c'}, {"seconds", 1, 0, 't'}, {"seed", 1, 0, 'e'},
	{"memory", 1, 0, 'm'}, {"reconnect", 1, 0, 'R'}, {"kind", 1, 0, 'k'}, {"random", 0, 0, 'x'},
	{"packed", 0, 0, 'p'}, {"indirect", 0, 0, 'i'}, {"no-inflight", 0, 0, 'n'},
	{"irq", 0, 0, 'I'}, {"zero", 0, 0, 'Z'}, {"json", 0, 0, 'j'}, {"spread", 0, 0, 'S'},
	{"warm", 1, 0, 'w'}, {"cpu-of", 1, 0, 'C'}, {0}};

static uint64_t size_of(const char *text)
{
	uint64_t v;

	if (units_parse_bytes(text, &v) < 0) {
		fprintf(stderr, "vhost-io: '%s' is no size\n", text);
		exit(2);
	}
	return v;
}

static uint64_t number_of(const char *text, uint64_t max)
{
	char *end;
	unsigned long long v;

	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno || *end || end == text || *text == '-' || v > max) {
		fprintf(stderr, "vhost-io: '%s' is no number up to %" PRIu64 "\n", text, max);
		exit(2);
	}
	return v;
}

static void options_read(int argc, char **argv, struct io_opts *o)
{
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1)
		switch (c) {
		case 'b':
			o->block = (uint32_t)size_of(optarg);
			break;
		case 'd':
			o->depth = (uint32_t)number_of(optarg, 65536);
			break;
		case 'q':
			o->vu.queues = (uint32_t)number_of(optarg, 65536);
			break;
		case 's':
			o->segments = (uint32_t)number_of(optarg, 65536);
			break;
		case 'r':
			o->vu.queue_size = (uint16_t)number_of(optarg, 1024);
			break;
		case 'o':
			o->offset = size_of(optarg);
			break;
		case 'z':
			o->size = size_of(optarg);
			break;
		case 'c':
			o->count = number_of(optarg, UINT64_MAX);
			break;
		case 't':
			o->seconds = (unsigned int)number_of(optarg, 86400);
			break;
		case 'e':
			o->seed = number_of(optarg, UINT64_MAX);
			break;
		case 'm':
			o->vu.mem_bytes = size_of(optarg);
			break;
		case 'R':
			o->reconnect_s = (unsigned int)number_of(optarg, 86400);
			break;
		case 'k':
			o->kind = optarg;
			break;
		case 'x':
			o->random = true;
			break;
		case 'p':
			o->vu.packed = true;
			break;
		case 'i':
			o->vu.indirect = true;
			break;
		case 'n':
			o->vu.no_inflight = true;
			break;
		case 'I':
			o->irq = true;
			break;
		case 'Z':
			o->zero = true;
			break;
		case 'w':
			o->warm = number_of(optarg, UINT64_MAX);
			break;
		case 'C':
			o->cpu_of = (pid_t)number_of(optarg, INT32_MAX);
			break;
		case 'S':
			o->spread = true;
			break;
		case 'j':
			o->json = true;
			break;
		default:
			fputs(usage, stderr);
			exit(2);
		}
}

int main(int argc, char **argv)
{
	struct io_opts o = {.block = 4096,
		.depth = 32,
		.segments = 1,
		.seed = 1,
		.vu = {.queues = 1, .queue_size = 256, .mem_bytes = 64 << 20}};
	struct io_result r = {0};
	struct vu *v = NULL;
	uint64_t parts;
	int rc;

	if (argc < 3) {
		fputs(usage, argc == 2 && !strcmp(argv[1], "--help") ? stdout : stderr);
		return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
	}
	o.vu.socket = argv[1];
	o.command = argv[2];
	options_read(argc - 2, argv + 2, &o);
	parts = o.vu.indirect ? 1 : o.segments + 2;
	if (!o.depth || !o.segments || o.segments + 2 > VU_PARTS_MAX || !o.block || o.block % 512 ||
		o.depth * parts > o.vu.queue_size || o.vu.queues > VU_QUEUES_MAX || !o.vu.queues) {
		fprintf(stderr,
			"vhost-io: depth x parts of a request must fit the ring (%u), blocks are "
			"multiples of 512, queues 1 to %u\n",
			o.vu.queue_size, VU_QUEUES_MAX);
		return 2;
	}
	rc = vu_open(&o.vu, &v);
	if (rc == 0)
		rc = run(v, &o, &r);
	report(v, &o, &r, rc);
	if (v)
		vu_close(v);
	return rc == 0 && !r.errors && !r.wrong ? 0 : !strcmp(o.command, "bad") && rc == 0 ? 0 : 1;
}
