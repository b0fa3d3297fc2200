/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * parapet-fsck: looks over a pool that no card has open, and changes nothing.
 *
 *	superblocks of every device ─▶ pool ─▶ checkpoint and log, as a card would read them ─▶ does everything agree?
 *
 * Where the devices are cut into slices each slice has the pool of a shard: they are looked over one after the other.
 *
 * What it finds goes into one JSON tree of each pool, which is printed as it is or as text.
 */
#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/units.h"
#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/flash/flash.h"
#include "dpu/pool/checkpoint.h"
#include "dpu/pool/superblock.h"
#include "dpu/stripelog/stripelog.h"
#include "dpu/volume/move.h"
#include "dpu/volume/volume.h"

/* As fsck(8) has them. */
enum fsck_exit { EXIT_CLEAN = 0, EXIT_PROBLEMS = 4, EXIT_FAILED = 8, EXIT_USAGE = 16 };

struct fsck_dev {
	char name[64];
	char address[FLASH_ADDRESS_MAX];
	uint64_t cut_bytes; /* when it was cut into slices; 0: it is whole, or does not say */
	struct flash *flash;
	struct superblock *sb; /* the newer good one, or NULL */
	bool use; /* to be given to the pool */
};

struct fsck {
	bool deep, json;
	uint64_t map_bytes;
	struct fsck_dev dev[POOL_DEVS_MAX];
	unsigned int ndevs;
	struct shard *sh;
	unsigned int slice, slices; /* which pool of how many; 0 of 1: whole devices */
	struct store *store;
	json_t *out, *findings; /* of this pool */
	bool no_memory; /* jansson had none: what is printed is not all */
};

/* ---- saying ---------------------------------------------------------------------------------------------------- */

static void add(struct fsck *f, json_t *array, json_t *item)
{
	if (json_array_append_new(array, item) < 0)
		f->no_memory = true;
}

static json_t *section(struct fsck *f, const char *name, json_t *value)
{
	if (json_object_set_new(f->out, name, value) < 0)
		f->no_memory = true;
	return value;
}

/* "shard 1: ", where there are several. */
static const char *which(const struct fsck *f)
{
	static char text[32];

	text[0] = 0;
	if (f->slices > 1)
		snprintf(text, sizeof(text), "shard %u: ", f->slice);
	return text;
}

static void finding(struct fsck *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void finding(struct fsck *f, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	add(f, f->findings, json_string(text));
}

/* ---- superblocks --------------------------------------------------------------------------------------------------- */

static const char *slot_state(int rc)
{
	switch (rc) {
	case 0:
		return "good";
	case -ENODATA:
		return "empty";
	case -EPROTONOSUPPORT:
		return "newer version";
	case -EUCLEAN:
		return "damaged";
	default:
		return "unreadable";
	}
}

static int slot_read(struct fsck_dev *d, unsigned int slot, struct superblock *out)
{
	static uint8_t buf[SB_BYTES] __attribute__((aligned(4096)));
	int rc = -ENODATA;

	if (flash_info(d->flash)->size_bytes >= 2 * SB_SLOT_STRIDE)
		rc = flash_rw_sync(d->flash, FLASH_READ, slot * SB_SLOT_STRIDE, buf, SB_BYTES);
	return rc ? rc : superblock_parse(buf, sizeof(buf), out);
}

static int superblocks_of(struct fsck *f, struct fsck_dev *d, json_t *list)
{
	struct superblock *sb[2] = {calloc(1, sizeof(*sb[0])), calloc(1, sizeof(*sb[1]))};
	int rc[2];

	if (!sb[0] || !sb[1]) {
		free(sb[0]);
		free(sb[1]);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < 2; i++)
		rc[i] = slot_read(d, i, sb[i]);
	d->sb = rc[0] == 0 && (rc[1] || sb[0]->generation > sb[1]->generation) ? sb[0]
		: rc[1] == 0                                                   ? sb[1]
									       : NULL;
	for (unsigned int i = 0; i < 2; i++)
		if (sb[i] != d->sb)
			free(sb[i]);
	add(f, list,
		json_pack("{s:s, s:s, s:I, s:[ss]}", "name", d->name, "address", d->address,
			"bytes", (json_int_t)flash_info(d->flash)->size_bytes, "slots",
			slot_state(rc[0]), slot_state(rc[1])));
	if (!d->sb) {
		finding(f, "%s: no superblock to go by (slots: %s, %s)", d->name, slot_state(rc[0]),
			slot_state(rc[1]));
		return 0;
	}
	json_t *o = json_array_get(list, json_array_size(list) - 1);

	if (!o || json_object_set_new(o, "pool", json_string(d->sb->cfg.name)) < 0 ||
		json_object_set_new(o, "epoch", json_integer((json_int_t)d->sb->epoch)) < 0 ||
		json_object_set_new(o, "generation", json_integer((json_int_t)d->sb->generation)) <
			0)
		f->no_memory = true;
	return 0;
}

/* Which of them belong together: those of the pool that most of them name, the first of equals. */
static const struct superblock *pool_of(const struct fsck *f)
{
	const struct superblock *best = NULL;
	unsigned int most = 0;

	for (unsigned int i = 0; i < f->ndevs; i++) {
		unsigned int n = 0;

		for (unsigned int k = 0; f->dev[i].sb && k < f->ndevs; k++)
			n += f->dev[k].sb &&
			     !memcmp(f->dev[k].sb->pool_uuid, f->dev[i].sb->pool_uuid, 16);
		if (n > most) {
			most = n;
			best = f->dev[i].sb;
		}
	}
	return best;
}

static void choose(struct fsck *f, const struct superblock *pool)
{
	for (unsigned int i = 0; i < f->ndevs; i++) {
		struct fsck_dev *d = &f->dev[i];
		const struct superblock *sb = d->sb;

		if (!sb)
			continue;
		d->use = false;
		if (memcmp(sb->pool_uuid, pool->pool_uuid, 16) != 0)
			finding(f, "%s: belongs to pool \"%s\", most of the others to \"%s\"",
				d->name, sb->cfg.name, pool->cfg.name);
		else if (sb->slice != pool->slice || sb->slices != pool->slices)
			finding(f, "%s: has slice %u of %u here, most of the others %u of %u",
				d->name, sb->slice, MAX(sb->slices, 1u), pool->slice,
				MAX(pool->slices, 1u));
		else if (flash_info(d->flash)->size_bytes < sb->members[sb->dev].size_bytes)
			finding(f, "%s: has shrunk: %llu bytes, it had %llu", d->name,
				(unsigned long long)flash_info(d->flash)->size_bytes,
				(unsigned long long)sb->members[sb->dev].size_bytes);
		else
			d->use = true;
	}
}

/* ---- the pool ------------------------------------------------------------------------------------------------------ */

static void say_pool(struct fsck *f, struct pool *p)
{
	const struct pool_cfg *c = pool_cfg(p);
	json_t *devs;

	section(f, "pool",
		json_pack("{s:s, s:I, s:i, s:i, s:i}", "name", c->name, "epoch",
			(json_int_t)pool_epoch(p), "k", c->scheme.k, "m", c->scheme.m,
			"segment_bytes", (int)c->segment_bytes));
	devs = section(f, "devices", json_array());
	for (unsigned int i = 0; i < pool_ndevs(p); i++) {
		const struct pool_dev *d = pool_dev(p, i);

		if (d->state == POOL_DEV_REMOVED)
			continue;
		add(f, devs,
			json_pack("{s:s, s:s, s:s, s:i, s:i}", "name", d->name, "domain", d->domain,
				"state", pool_dev_state_name(d->state), "segments",
				(int)d->nsegments, "free_segments", (int)d->free_segments));
		if (d->state == POOL_DEV_MISSING)
			finding(f, "%s: is not here", d->name);
		else if (d->state == POOL_DEV_FAILED)
			finding(f, "%s: has failed", d->name);
	}
}

static void say_checkpoint(struct fsck *f, struct pool *p)
{
	struct ckpt_info ci;

	ckpt_info(p, &ci);
	if (!ci.exists) {
		section(f, "checkpoint", json_null());
		return;
	}
	section(f, "checkpoint",
		json_pack("{s:I, s:I, s:i, s:i, s:I, s:I}", "id", (json_int_t)ci.id, "epoch",
			(json_int_t)ci.epoch, "parts", (int)ci.parts, "copies", (int)ci.copies,
			"bytes", (json_int_t)ci.bytes, "base_bytes", (json_int_t)ci.base_bytes));
}

static void say_log(struct fsck *f)
{
	struct log_space sp;
	struct store_stats st;

	stripelog_space(store_log(f->store), &sp);
	store_stats(f->store, &st);
	section(f, "log",
		json_pack("{s:i, s:i, s:i, s:I, s:I, s:I, s:I, s:I}", "groups", (int)sp.groups,
			"groups_open", (int)sp.groups_open, "groups_limbo", (int)sp.groups_limbo,
			"stripes", (json_int_t)st.log.table_entries, "used_bytes",
			(json_int_t)sp.used_bytes, "live_bytes", (json_int_t)sp.live_bytes,
			"limbo_bytes", (json_int_t)sp.limbo_bytes, "free_bytes",
			(json_int_t)sp.free_bytes));
	if (st.recovery_lost)
		finding(f, "%llu blocks have lost more devices than they can do without",
			(unsigned long long)st.recovery_lost);
	if (st.recovery_away)
		finding(f,
			"%llu members that were in use are not here: what was written last may be "
			"on "
			"them alone",
			(unsigned long long)st.recovery_away);
}

static void say_volumes(struct fsck *f)
{
	json_t *list = section(f, "volumes", json_array());

	for (struct volume *v = volume_first(f->store); v; v = volume_next(v)) {
		const struct volume_cfg *c = volume_cfg(v);
		struct volume_stats st;
		json_t *blocks = json_object();

		volume_stats(v, &st);
		for (unsigned int s = BLOCK_ZERO; s < BLOCK_STATES; s++)
			if (json_object_set_new(blocks, block_state_name((enum block_state)s),
				    json_integer((json_int_t)st.blocks[s])) < 0)
				f->no_memory = true;
		add(f, list,
			json_pack("{s:s, s:i, s:I, s:i, s:i, s:i, s:s, s:o}", "name", c->name, "id",
				(int)volume_id(v), "bytes", (json_int_t)c->size_bytes,
				"block_bytes", (int)c->block_bytes, "k", c->scheme.k, "m",
				c->scheme.m, "layout",
				c->layout == VOLUME_COPY ? "copy" : "fragments", "blocks", blocks));
	}
}

static void report(void *arg, const char *text)
{
	finding(arg, "%s", text);
}

static int check(struct fsck *f, struct err *e)
{
	struct store_check_cfg cfg = {.deep = f->deep, .report_fn = report, .arg = f};
	struct store_check r;
	int rc = store_check(f->store, &cfg, &r, e);

	if (rc < 0)
		return rc;
	section(f, "checked",
		json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "blocks",
			(json_int_t)r.blocks, "stripes", (json_int_t)r.stripes, "groups",
			(json_int_t)r.groups, "pieces", (json_int_t)r.pieces, "segments",
			(json_int_t)r.segments, "degraded_stripes", (json_int_t)r.degraded_stripes,
			"blocks_read", (json_int_t)r.read_blocks, "unreadable_blocks",
			(json_int_t)r.unreadable_blocks, "problems", (json_int_t)r.problems));
	if (r.problems && !json_array_size(f->findings))
		finding(f, "%llu problems", (unsigned long long)r.problems);
	if (r.degraded_stripes)
		finding(f, "%llu stripes lack a device they lie on",
			(unsigned long long)r.degraded_stripes);
	if (r.unreadable_blocks)
		finding(f, "%llu blocks cannot be read", (unsigned long long)r.unreadable_blocks);
	return 0;
}

/* Takes the chosen devices over where it succeeds. */
static int pool_up(struct fsck *f, struct pool **out, struct err *e)
{
	struct pool_member mem[POOL_DEVS_MAX] = {0};
	unsigned int n = 0;
	int rc;

	for (unsigned int i = 0; i < f->ndevs; i++) {
		if (!f->dev[i].use)
			continue;
		memcpy(mem[n].name, f->dev[i].name, sizeof(mem[n].name));
		mem[n++].flash = f->dev[i].flash;
	}
	rc = pool_open(f->sh, mem, n, out, e);
	for (unsigned int i = 0; rc == 0 && i < f->ndevs; i++)
		if (f->dev[i].use)
			f->dev[i].flash = NULL;
	return rc;
}

/* What does not open for what is on the devices is a finding; that a card would refuse it, too. */
static enum fsck_exit refused(struct fsck *f, int rc, const struct err *e)
{
	if (rc == -ENOMEM || rc == -ENOSPC || rc == -EIO) {
		fprintf(stderr, "parapet-fsck: %s%s\n", which(f), err_text(e));
		return EXIT_FAILED;
	}
	finding(f, "%s", err_text(e));
	return EXIT_PROBLEMS;
}

static enum fsck_exit look(struct fsck *f)
{
	struct store_cfg sc = {.ec = EC_ISAL,
		.max_requests = 8,
		.buffer_bytes = 4 << 20,
		.map_bytes = f->map_bytes,
		.force = true,
		.read_only = true};
	struct err e = {0};
	int rc = pool_up(f, &sc.pool, &e);

	if (rc < 0)
		return refused(f, rc, &e);
	say_pool(f, sc.pool);
	rc = store_open(&sc, &f->store, &e);
	if (rc < 0) {
		pool_close(sc.pool);
		return refused(f, rc, &e);
	}
	say_checkpoint(f, sc.pool);
	say_log(f);
	say_volumes(f);
	rc = check(f, &e);
	store_close(f->store);
	if (rc < 0)
		return refused(f, rc, &e);
	return json_array_size(f->findings) ? EXIT_PROBLEMS : EXIT_CLEAN;
}

/* ---- text ----------------------------------------------------------------------------------------------------------- */

/* "a 1, b 2": an object's members on one line; nested ones in brackets. */
static void print_members(json_t *o, const char *but)
{
	const char *key, *sep = "";
	json_t *v;

	json_object_foreach(o, key, v)
	{
		if (but && !strcmp(key, but))
			continue;
		printf("%s%s ", sep, key);
		sep = ", ";
		if (json_is_string(v)) {
			printf("%s", json_string_value(v));
		} else if (json_is_integer(v)) {
			printf("%lld", (long long)json_integer_value(v));
		} else if (json_is_array(v)) {
			for (size_t i = 0; i < json_array_size(v); i++)
				printf("%s%s", i ? "/" : "",
					json_string_value(json_array_get(v, i)));
		} else if (json_is_object(v)) {
			printf("(");
			print_members(v, NULL);
			printf(")");
		}
	}
}

static void print_text(struct fsck *f, enum fsck_exit code)
{
	const char *key;
	json_t *v, *item;
	size_t i;

	if (f->slices > 1)
		printf("%sshard %u of %u\n", f->slice ? "\n" : "", f->slice, f->slices);
	json_object_foreach(f->out, key, v)
	{
		if (json_is_object(v)) {
			printf("%-12s", key);
			print_members(v, NULL);
			printf("\n");
		} else if (json_is_null(v)) {
			printf("%-12snone\n", key);
		} else if (v != f->findings) {
			printf("%s\n", key);
			json_array_foreach(v, i, item)
			{
				printf("  %-10s ",
					json_string_value(json_object_get(item, "name")));
				print_members(item, "name");
				printf("\n");
			}
		}
	}
	json_array_foreach(f->findings, i, item)
		printf("FOUND       %s\n", json_string_value(item));
	if (code == EXIT_CLEAN)
		printf("clean%s\n", f->deep ? "" : " (payloads were not read: --deep does)");
	else if (code == EXIT_PROBLEMS)
		printf("%zu findings; nothing was changed\n", json_array_size(f->findings));
}

/* ---- all of it ---------------------------------------------------------------------------------------------------------- */

static const char usage[] =
	"usage: parapet-fsck [--deep] [--json] [--map-memory SIZE] NAME=ADDRESS...\n"
	"\n"
	"Looks over a pool that no card has open: superblocks, checkpoint, log, volumes, and "
	"whether "
	"they agree.\n"
	"Where a card has several shards the pool of each is looked over in turn.\n"
	"Nothing is written. Every flash device of the pool is named, as in \"flash add\"; one "
	"that is "
	"left out counts\n"
	"as missing. A plain path is a file or block device.\n"
	"\n"
	"  --deep            reads every block and checks its CRC\n"
	"  --json            the result as JSON\n"
	"  --map-memory SIZE for what says where blocks are (16 bytes per 4 KiB written); default "
	"1G\n"
	"  --version, --help\n"
	"\n"
	"exit status: 0 clean; 4 something was found; 8 it could not be looked at (a device is in "
	"use, "
	"or not there);\n"
	"16 usage\n"
	"\n"
	"example: parapet-fsck --deep f0=file:/var/lib/parapet/f0 f1=file:/var/lib/parapet/f1 "
	"f2=file:/var/lib/parapet/f2\n";

static int dev_add(struct fsck *f, char *arg)
{
	struct fsck_dev *d = &f->dev[f->ndevs];
	char *eq = strchr(arg, '=');
	size_t len = eq ? (size_t)(eq - arg) : 0;

	if (!eq || !len || len >= sizeof(d->name) || !eq[1] ||
		strlen(eq) + sizeof("file:") > sizeof(d->address)) {
		fprintf(stderr,
			"parapet-fsck: %s: NAME=ADDRESS, with a name of 1 to 63 characters\n", arg);
		return -EINVAL;
	}
	if (f->ndevs == POOL_DEVS_MAX) {
		fprintf(stderr, "parapet-fsck: at most %u devices\n", POOL_DEVS_MAX);
		return -EINVAL;
	}
	memcpy(d->name, arg, len);
	snprintf(d->address, sizeof(d->address), "%s%s", eq[1] == '/' ? "file:" : "", eq + 1);
	f->ndevs++;
	return 0;
}

/* 0: go on; 1: done; -EINVAL: said why. */
static int options_read(int argc, char **argv, struct fsck *f)
{
	static const struct option options[] = {{"deep", no_argument, NULL, 'd'},
		{"json", no_argument, NULL, 'j'}, {"map-memory", required_argument, NULL, 'M'},
		{"version", no_argument, NULL, 'V'}, {"help", no_argument, NULL, 'h'}, {0}};
	int opt, rc = 0;

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'd':
			f->deep = true;
			break;
		case 'j':
			f->json = true;
			break;
		case 'M':
			if (units_parse_bytes(optarg, &f->map_bytes) < 0) {
				fprintf(stderr, "parapet-fsck: --map-memory %s: a size, as 4G\n",
					optarg);
				return -EINVAL;
			}
			break;
		case 'V':
			puts("parapet-fsck 1.0");
			return 1;
		case 'h':
			fputs(usage, stdout);
			return 1;
		default:
			fputs("try parapet-fsck --help\n", stderr);
			return -EINVAL;
		}
	}
	for (; rc == 0 && optind < argc; optind++)
		rc = dev_add(f, argv[optind]);
	if (rc == 0 && !f->ndevs) {
		fputs(usage, stderr);
		rc = -EINVAL;
	}
	return rc;
}

/* ---- slices ------------------------------------------------------------------------------------------------------------ */

/* How many slices there are: as most devices say. One whose first superblocks are gone is taken to be as the others, cut at the size it has now. */
static void slices_find(struct fsck *f)
{
	unsigned int say[FLASH_SLICES_MAX + 1] = {0};
	struct pool_probe found[POOL_DEVS_MAX] = {0};

	for (unsigned int i = 0; i < f->ndevs; i++) {
		/* What cannot be opened is told of when it should be. */
		if (pool_probe(f->sh, f->dev[i].address, NULL, &found[i], NULL) == 0)
			say[found[i].slices]++;
	}
	f->slices = 1;
	for (unsigned int n = 2; n <= FLASH_SLICES_MAX; n++) {
		if (say[n] > say[f->slices])
			f->slices = n;
	}
	for (unsigned int i = 0; i < f->ndevs; i++)
		f->dev[i].cut_bytes = found[i].slices == f->slices ? found[i].cut_bytes : 0;
}

/* The device has no such slice: it has shrunk. */
static bool is_no_slice(int rc, const struct err *e)
{
	return rc == -EUCLEAN || (rc == -EINVAL && !strcmp(e->field, "slices"));
}

static int dev_open(struct fsck *f, struct fsck_dev *d, json_t *list)
{
	struct flash_opts o = {.exclusive = true,
		.slice = f->slice,
		.slices = f->slices,
		.cut_bytes = d->cut_bytes};
	struct err e = {0};
	int rc = flash_open(f->sh, d->address, &o, &d->flash, &e);

	if (is_no_slice(rc, &e)) {
		finding(f, "%s: %s", d->name, e.reason);
		return 0;
	}
	if (rc == -EBUSY)
		err_set(&e, rc, d->name, NULL, "in use: %s has to be closed first", d->address);
	if (rc == 0 && superblocks_of(f, d, list) < 0)
		rc = err_set(&e, -ENOMEM, d->name, NULL, "no memory");
	if (rc < 0)
		fprintf(stderr, "parapet-fsck: %s%s: %s\n", which(f), d->name, err_text(&e));
	return rc;
}

static void devs_close(struct fsck *f)
{
	for (unsigned int i = 0; i < f->ndevs; i++) {
		struct fsck_dev *d = &f->dev[i];

		free(d->sb);
		if (d->flash)
			flash_close(d->flash);
		d->sb = NULL;
		d->flash = NULL;
		d->use = false;
	}
}

static enum fsck_exit look_at_pool(struct fsck *f)
{
	json_t *list = section(f, "superblocks", json_array());
	const struct superblock *pool;

	for (unsigned int i = 0; i < f->ndevs; i++) {
		if (dev_open(f, &f->dev[i], list) < 0)
			return EXIT_FAILED;
	}
	pool = pool_of(f);
	if (!pool) {
		fprintf(stderr, "parapet-fsck: %snone of the devices belongs to a pool\n",
			which(f));
		return EXIT_FAILED;
	}
	choose(f, pool);
	return look(f);
}

/* The pool of one slice, said as text at once, or added to `shards`. */
static enum fsck_exit slice_run(struct fsck *f, json_t *shards)
{
	enum fsck_exit code = EXIT_FAILED;

	f->out = json_object();
	f->findings = json_array();
	if (!f->out || !f->findings) {
		json_decref(f->out);
		json_decref(f->findings);
		f->no_memory = true;
		return code;
	}
	if (f->json && f->slices > 1)
		section(f, "shard", json_integer(f->slice));
	code = look_at_pool(f);
	section(f, "findings", f->findings);
	devs_close(f);
	if (!f->json && code != EXIT_FAILED && !f->no_memory)
		print_text(f, code);
	add(f, shards, f->out);
	return code;
}

/* What is known of all of them in one place. */
static void findings_merge(struct fsck *f, json_t *shards, json_t *all)
{
	json_t *shard, *item;
	size_t i, j;

	json_array_foreach(shards, i, shard)
	{
		json_array_foreach(json_object_get(shard, "findings"), j, item)
			add(f, all, json_sprintf("shard %zu: %s", i, json_string_value(item)));
	}
}

static void print_json(struct fsck *f, json_t *shards)
{
	json_t *all = f->slices > 1 ? json_array() : NULL, *top;

	if (all)
		findings_merge(f, shards, all);
	top = all ? json_pack("{s:i, s:O, s:o}", "slices", (int)f->slices, "shards", shards,
			    "findings", all)
		  : json_incref(json_array_get(shards, 0));
	if (!top) {
		f->no_memory = true;
		return;
	}
	json_dumpf(top, stdout, JSON_INDENT(2));
	printf("\n");
	json_decref(top);
}

static enum fsck_exit run(struct fsck *f)
{
	json_t *shards = json_array();
	enum fsck_exit code = EXIT_CLEAN;

	if (!shards)
		f->no_memory = true;
	slices_find(f);
	for (f->slice = 0; f->slice < f->slices && !f->no_memory; f->slice++) {
		enum fsck_exit one = slice_run(f, shards);

		code = MAX(code, one);
	}
	if (f->json && code != EXIT_FAILED && !f->no_memory)
		print_json(f, shards);
	json_decref(shards);
	if (f->no_memory) {
		fprintf(stderr, "parapet-fsck: no memory\n");
		code = EXIT_FAILED;
	}
	return code;
}

int main(int argc, char **argv)
{
	static struct fsck f;
	enum fsck_exit code;
	int rc = options_read(argc, argv, &f);

	if (rc)
		return rc < 0 ? EXIT_USAGE : EXIT_CLEAN;
	log_init("parapet-fsck", LOG_LEVEL_ERROR);
	if (shard_open(&(struct shard_cfg){0}, &f.sh) < 0) {
		fprintf(stderr, "parapet-fsck: cannot start\n");
		return EXIT_FAILED;
	}
	code = run(&f);
	shard_close(f.sh);
	return code;
}
