/* SPDX-License-Identifier: BSD-3-Clause */
/* Pools in slices of the same devices: two shards on two threads, each with a store of its own; what is mixed up is refused; probing and undoing. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"
#include "dpu/pool/superblock.h"
#include "dpu/volume/volume.h"

#define MIB   (1024ull * 1024)
#define WIDTH (32 * MIB)
#define SIZE  (2 * WIDTH + 8 * MIB)
#define BLOCK 4096u

enum { DEVS = 4, BLOCKS = 512, RUN = 16 };

static const uint8_t uuid[16] = "pool of 2 halves";
static char paths[DEVS + 1][64]; /* one more: a newcomer */
static struct shard *sh;

static int setup(void **state)
{
	for (unsigned int i = 0; i < ARRAY_LEN(paths); i++) {
		int fd;

		snprintf(paths[i], sizeof(paths[i]), "/var/tmp/parapet-halves-XXXXXX");
		fd = mkstemp(paths[i]);
		if (fd < 0 || ftruncate(fd, SIZE) < 0)
			return -1;
		close(fd);
	}
	return shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE, .seed = 5}, &sh);
}

static int teardown(void **state)
{
	shard_close(sh);
	for (unsigned int i = 0; i < ARRAY_LEN(paths); i++)
		unlink(paths[i]);
	return 0;
}

/* ---- a half: what one shard has ----------------------------------------------------------------------- */

struct half {
	pthread_t thread;
	uint32_t slice;
	bool fresh; /* made, not opened */
	struct shard *sh;
	struct store *store;
	struct volume *v;
	uint8_t *buf;
	bool ended;
	enum io_status status;
	char why[256];
};

static struct flash_opts part(uint32_t slice, uint32_t slices)
{
	return (struct flash_opts){
		.depth = 32, .exclusive = true, .slice = slice, .slices = slices};
}

static const char *address_of(unsigned int dev)
{
	static __thread char text[80];

	snprintf(text, sizeof(text), "file:%.70s", paths[dev]);
	return text;
}

static int flash_of(struct shard *on, unsigned int dev, const struct flash_opts *o,
	struct flash **f, struct err *e)
{
	return flash_open(on, address_of(dev), o, f, e);
}

static void members_close(struct pool_member *m)
{
	for (unsigned int i = 0; i < DEVS; i++)
		if (m[i].flash)
			flash_close(m[i].flash);
}

static int members_open(
	struct shard *on, const struct flash_opts *o, struct pool_member *m, struct err *e)
{
	int rc = 0;

	memset(m, 0, DEVS * sizeof(*m));
	for (unsigned int i = 0; i < DEVS && rc == 0; i++) {
		snprintf(m[i].name, sizeof(m[i].name), "f%u", i);
		rc = flash_of(on, i, o, &m[i].flash, e);
	}
	if (rc < 0)
		members_close(m);
	return rc;
}

static struct pool_cfg pool_settings(void)
{
	struct pool_cfg c = {.name = "halves", .scheme = {2, 1}, .segment_bytes = POOL_SEGMENT_MIN};

	memcpy(c.uuid, uuid, sizeof(c.uuid));
	return c;
}

static int pool_up(
	struct shard *on, const struct flash_opts *o, bool fresh, struct pool **p, struct err *e)
{
	struct pool_cfg cfg = pool_settings();
	struct pool_member m[DEVS];
	int rc = members_open(on, o, m, e);

	if (rc < 0)
		return rc;
	rc = fresh ? pool_create(on, &cfg, m, DEVS, false, p, e) : pool_open(on, m, DEVS, p, e);
	if (rc < 0)
		members_close(m);
	return rc;
}

static bool fails(struct half *h, const char *what, int rc)
{
	if (rc)
		snprintf(h->why, sizeof(h->why), "slice %u: %s: %d", h->slice, what, rc);
	return rc;
}

static bool half_up(struct half *h)
{
	struct flash_opts o = part(h->slice, 2);
	struct store_cfg c = {.queue = QUEUE_CFG_DEFAULT,
		.max_requests = 32,
		.buffer_bytes = 8 << 20,
		.map_bytes = 16 << 20,
		.table_bytes = 32 << 20};
	struct err e = {0};

	if (fails(h, "shard",
		    shard_open(
			    &(struct shard_cfg){
				    .mode = SHARD_ADAPTIVE, .id = h->slice, .seed = 7 + h->slice},
			    &h->sh)))
		return true;
	if (fails(h, "pool", pool_up(h->sh, &o, h->fresh, &c.pool, &e)) ||
		fails(h, "store", store_open(&c, &h->store, &e))) {
		snprintf(h->why + strlen(h->why), sizeof(h->why) - strlen(h->why), " %s",
			err_text(&e));
		return true;
	}
	return fails(h, "slice",
		pool_slice(c.pool) != h->slice || pool_slices(c.pool) != 2 ||
			memcmp(pool_uuid(c.pool), uuid, 16) != 0 ||
			pool_dev(c.pool, 3)->cut_bytes != SIZE);
}

static void half_down(struct half *h)
{
	if (h->store)
		store_close(h->store);
	if (h->sh)
		shard_close(h->sh);
	h->store = NULL;
	h->sh = NULL;
}

static void req_done(struct io_req *r)
{
	struct half *h = r->arg;

	h->ended = true;
	h->status = r->status;
}

static bool req_ended(void *arg)
{
	return ((struct half *)arg)->ended;
}

static bool run(struct half *h, enum io_op op, uint64_t block, unsigned int n)
{
	struct iovec iov = {h->buf, (size_t)n * BLOCK};
	struct io_req r = {.op = op,
		.off_bytes = block * BLOCK,
		.len_bytes = iov.iov_len,
		.iov = &iov,
		.niov = 1,
		.stable = true,
		.outcome = block % (2 * RUN) ? IO_PROTECT : IO_PLAIN,
		.done_fn = req_done,
		.arg = h};
	int rc;

	h->ended = false;
	while ((rc = volume_submit(h->v, &r)) == -EAGAIN)
		shard_run_once(h->sh);
	if (rc == 0)
		rc = shard_wait(h->sh, req_ended, h, 0);
	return fails(h, "submit", rc) || fails(h, "I/O", (int)h->status);
}

/* Says whose block it is, and which. */
static uint8_t stamp(const struct half *h, uint64_t block, size_t at)
{
	return (uint8_t)(block * 31 + at / 8 * 7 + h->slice * 101 + 1);
}

static bool write_all(struct half *h)
{
	struct volume_cfg c = {
		.size_bytes = BLOCKS * BLOCK, .name = "v", .data_dev = 0, .intermediate_dev = 1};
	struct err e = {0};

	if (fails(h, "volume", volume_create(h->store, &c, &h->v, &e)))
		return true;
	for (uint64_t b = 0; b < BLOCKS; b += RUN) {
		for (size_t i = 0; i < RUN * BLOCK; i++)
			h->buf[i] = stamp(h, b + i / BLOCK, i % BLOCK);
		if (run(h, IO_WRITE, b, RUN))
			return true;
	}
	return false;
}

static bool read_all(struct half *h)
{
	struct store_check found = {0};
	struct err e = {0};

	h->v = volume_find(h->store, "v");
	if (fails(h, "volume", !h->v))
		return true;
	for (uint64_t b = 0; b < BLOCKS; b += RUN) {
		if (run(h, IO_READ, b, RUN))
			return true;
		for (size_t i = 0; i < RUN * BLOCK; i++)
			if (h->buf[i] != stamp(h, b + i / BLOCK, i % BLOCK))
				return fails(h, "not what was written", (int)(b + i / BLOCK) + 1);
	}
	return fails(h, "check",
		       store_check(
			       h->store, &(struct store_check_cfg){.deep = true}, &found, &e)) ||
	       fails(h, "problems", (int)found.problems);
}

static void *live(void *arg)
{
	struct half *h = arg;

	h->buf = malloc(RUN * BLOCK);
	(void)(half_up(h) || (h->fresh ? write_all(h) : read_all(h)));
	half_down(h);
	free(h->buf);
	return NULL;
}

static void live_both(bool fresh)
{
	struct half h[2];

	for (uint32_t i = 0; i < 2; i++) {
		h[i] = (struct half){.slice = i, .fresh = fresh};
		assert_int_equal(pthread_create(&h[i].thread, NULL, live, &h[i]), 0);
	}
	for (uint32_t i = 0; i < 2; i++)
		assert_int_equal(pthread_join(h[i].thread, NULL), 0);
	assert_string_equal(h[0].why, "");
	assert_string_equal(h[1].why, "");
}

/* ---- the tests ------------------------------------------------------------------------------------------ */

static void two_shards_have_pools_on_the_same_devices(void **state)
{
	live_both(true);
	for (int i = 0; i < 3; i++)
		live_both(false);
}

static void make(uint32_t slice, uint32_t slices)
{
	struct flash_opts o = part(slice, slices);
	struct err e = {0};
	struct pool *p;

	if (pool_up(sh, &o, true, &p, &e) < 0)
		fail_msg("%s", err_text(&e));
	pool_close(p);
}

static void a_slice_is_opened_as_what_it_is_or_not_at_all(void **state)
{
	static const struct {
		struct flash_opts o;
		int rc;
	} bad[] = {
		{{.slices = 0}, -EXDEV},
		{{.slice = 0, .slices = 1}, -EXDEV},
		/* begins at the same place */
		{{.slice = 1, .slices = 2, .cut_bytes = SIZE - 4 * MIB}, -EUCLEAN},
		{{.slice = 0, .slices = 2, .cut_bytes = SIZE - 1}, -EUCLEAN},
	};
	struct pool_left left[DEVS];
	unsigned int nleft;
	struct flash_opts o = part(1, 2);
	struct pool_member m[DEVS];
	struct err e = {0};
	struct pool *p;

	make(0, 2);
	make(1, 2);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		e = (struct err){0};
		assert_int_equal(pool_up(sh, &bad[i].o, false, &p, &e), bad[i].rc);
		assert_string_equal(e.field, "slice");
		assert_string_equal(e.object, "f0");
	}
	/* One member of the other slice among them: refused, or left out as one that is missing. */
	assert_int_equal(members_open(sh, &o, m, &e), 0);
	flash_close(m[2].flash);
	o.slice = 0;
	assert_int_equal(flash_of(sh, 2, &o, &m[2].flash, &e), 0);
	assert_int_equal(pool_open(sh, m, DEVS, &p, &e), -EXDEV);
	assert_string_equal(e.object, "f2");
	assert_int_equal(pool_open_degraded(sh, m, DEVS, left, &nleft, &p, &e), 0);
	assert_int_equal(nleft, 1);
	assert_int_equal(left[0].member, 2);
	assert_int_equal(pool_dev(p, 2)->state, POOL_DEV_MISSING);
	assert_int_equal(pool_dev(p, 2)->cut_bytes, SIZE);
	/* Nor does it come back as that. */
	assert_int_equal(pool_epoch_begin(p, &e), 0);
	assert_int_equal(pool_dev_return(p, 2, m[2].flash, &e), -EXDEV);
	flash_close(m[2].flash);
	o.slice = 1;
	assert_int_equal(flash_of(sh, 2, &o, &m[2].flash, &e), 0);
	assert_int_equal(pool_dev_return(p, 2, m[2].flash, &e), 0);
	pool_close(p);
}

/* The bytes of another slice where its own should be: as after a wrong copy. */
static void a_slice_with_the_superblock_of_another_is_refused(void **state)
{
	struct flash_opts o = part(1, 2);
	uint8_t *buf = NULL;
	struct flash *f;
	struct err e = {0};
	struct pool *p;

	assert_int_equal(posix_memalign((void **)&buf, 4096, 2 * SB_SLOT_STRIDE), 0);
	make(0, 2);
	make(1, 2);
	assert_int_equal(flash_of(sh, 3, &(struct flash_opts){0}, &f, &e), 0);
	assert_int_equal(flash_rw_sync(f, FLASH_READ, 0, buf, 2 * SB_SLOT_STRIDE), 0);
	assert_int_equal(flash_rw_sync(f, FLASH_WRITE, WIDTH, buf, 2 * SB_SLOT_STRIDE), 0);
	flash_close(f);
	assert_int_equal(pool_up(sh, &o, false, &p, &e), -EXDEV);
	assert_string_equal(e.object, "f3");
	assert_non_null(strstr(e.reason, "slice 0 of 2"));
	assert_non_null(strstr(e.reason, "slice 1 of 2"));
	free(buf);
}

static void members_of_a_new_pool_and_newcomers_are_of_one_slice(void **state)
{
	struct flash_opts o = part(1, 2), other = part(0, 2), whole = {.exclusive = true};
	struct pool_cfg cfg = pool_settings();
	struct pool_member m[DEVS], newcomer = {.name = "new"};
	struct err e = {0};
	unsigned int dev;
	struct pool *p;

	assert_int_equal(members_open(sh, &o, m, &e), 0);
	flash_close(m[1].flash);
	assert_int_equal(flash_of(sh, 1, &other, &m[1].flash, &e), 0);
	assert_int_equal(pool_create(sh, &cfg, m, DEVS, false, &p, &e), -EINVAL);
	assert_string_equal(e.object, "f1");
	assert_string_equal(e.field, "slice");
	members_close(m);
	make(1, 2);
	assert_int_equal(pool_up(sh, &o, false, &p, &e), 0);
	assert_int_equal(pool_epoch_begin(p, &e), 0);
	for (unsigned int i = 0; i < 2; i++) {
		assert_int_equal(flash_of(sh, DEVS, i ? &whole : &other, &newcomer.flash, &e), 0);
		assert_int_equal(pool_dev_add(p, &newcomer, false, false, &dev, &e), -EXDEV);
		assert_string_equal(e.field, "slice");
		flash_close(newcomer.flash);
	}
	assert_int_equal(flash_of(sh, DEVS, &o, &newcomer.flash, &e), 0);
	assert_int_equal(pool_dev_add(p, &newcomer, false, false, &dev, &e), 0);
	assert_int_equal(pool_dev(p, dev)->cut_bytes, SIZE);
	assert_int_equal(pool_dev_remove(p, 0, &e), 0); /* an empty slot in the superblocks */
	pool_close(p);
}

static void a_probe_says_what_is_there_beside_the_owner(void **state)
{
	struct flash_opts o = part(0, 2);
	struct pool_probe found;
	const char *address;
	struct err e = {0};
	struct pool *p;
	struct flash *f;
	uint8_t junk[BLOCK];

	address = address_of(0);
	assert_int_equal(pool_probe(sh, address, NULL, &found, &e), -ENODATA);
	assert_true(e.reason[0]);
	assert_int_equal(pool_probe(sh, "file:/nowhere/at/all", NULL, &found, &e), -ENOENT);
	make(1, 2);
	assert_int_equal(
		pool_probe(sh, address, NULL, &found, &e), -ENODATA); /* the second alone */
	make(0, 2);
	assert_int_equal(pool_up(sh, &o, false, &p, &e), 0);
	assert_int_equal(pool_epoch_begin(p, &e), 0);
	assert_int_equal(pool_probe(sh, address, &o, &found, &e), 0);
	assert_memory_equal(found.uuid, uuid, 16);
	assert_string_equal(found.name, "halves");
	assert_int_equal(found.slices, 2);
	assert_int_equal(found.cut_bytes, SIZE);
	assert_int_equal(found.epoch, 2);
	pool_close(p);
	memset(junk, 0xa5, sizeof(junk));
	assert_int_equal(flash_of(sh, 0, &(struct flash_opts){0}, &f, &e), 0);
	for (unsigned int slot = 0; slot < 2; slot++)
		assert_int_equal(
			flash_rw_sync(f, FLASH_WRITE, slot * SB_SLOT_STRIDE + BLOCK, junk, BLOCK),
			0);
	flash_close(f);
	assert_int_equal(pool_probe(sh, address, NULL, &found, &e), -EUCLEAN);
}

static void a_whole_pool_says_so_and_has_the_format_it_had(void **state)
{
	static uint8_t raw[SB_BYTES] __attribute__((aligned(4096)));
	const struct sb_disk *d = (const void *)raw;
	struct pool_probe found;
	const char *address;
	struct flash *f;
	struct err e = {0};
	bool seen = false;

	make(0, 1);
	address = address_of(2);
	assert_int_equal(pool_probe(sh, address, NULL, &found, &e), 0);
	assert_int_equal(found.slices, 1);
	assert_int_equal(found.cut_bytes, 0);
	assert_memory_equal(found.uuid, uuid, 16);
	assert_int_equal(flash_of(sh, 2, &(struct flash_opts){0}, &f, &e), 0);
	for (unsigned int slot = 0; slot < 2; slot++) {
		assert_int_equal(
			flash_rw_sync(f, FLASH_READ, slot * SB_SLOT_STRIDE, raw, SB_BYTES), 0);
		if (from_le64(d->magic) != SB_MAGIC)
			continue;
		seen = true;
		assert_int_equal(from_le16(d->major), 1);
		assert_int_equal(from_le16(d->minor), 1);
		for (size_t i = 440; i < 508; i++) /* reserved in 1.1 */
			assert_int_equal(raw[i], 0);
		for (size_t i = 158; i < 192; i++)
			assert_int_equal(raw[512 + 2 * 192 + i], 0);
	}
	assert_true(seen);
	flash_close(f);
}

static void a_creation_that_is_undone_leaves_nothing(void **state)
{
	struct flash_opts o = part(0, 2);
	struct pool_probe found;
	const char *address;
	struct err e = {0};
	struct pool *p;

	make(1, 2);
	assert_int_equal(pool_up(sh, &o, true, &p, &e), 0);
	assert_int_equal(pool_epoch_begin(p, &e), 0); /* both slots are written */
	assert_int_equal(pool_wipe(p, &e), 0);
	for (unsigned int i = 0; i < DEVS; i++) {
		address = address_of(i);
		assert_int_equal(pool_probe(sh, address, NULL, &found, &e), -ENODATA);
	}
	make(0, 2); /* without force */
	o.slice = 1;
	assert_int_equal(pool_up(sh, &o, false, &p, &e), 0); /* the other one is whole */
	pool_close(p);
}

static void what_cannot_be_wiped_is_named(void **state)
{
	struct flash_opts o = part(0, 2);
	struct err e = {0};
	struct pool *p;

	assert_int_equal(pool_up(sh, &o, true, &p, &e), 0);
	pool_dev_fail(p, 2);
	assert_int_equal(pool_wipe(p, &e), -EIO);
	assert_string_equal(e.object, "f2");
	/* The others are wiped, and free. */
	assert_int_equal(pool_up(sh, &o, false, &p, &e), -ENODATA);
	assert_string_equal(e.object, "f0");
}

/* ---- parapet-fsck ------------------------------------------------------------------------------------------ */

static char said[1 << 16];

/* What it says, errors too, is in said[]. */
static int fsck(bool json)
{
	char self[256] = {0}, program[300], args[DEVS][100], out[] = "/var/tmp/parapet-fsck-XXXXXX";
	char deep[] = "--deep", as_json[] = "--json";
	char *argv[DEVS + 4] = {program, deep, json ? as_json : deep};
	int fd = mkstemp(out), status;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	pid_t pid;

	assert_true(n > 0 && fd >= 0);
	for (int i = 0; i < 2; i++) /* .../bin/unit/TEST: .../bin */
		*strrchr(self, '/') = 0;
	snprintf(program, sizeof(program), "%s/parapet-fsck", self);
	for (unsigned int i = 0; i < DEVS; i++) {
		snprintf(args[i], sizeof(args[i]), "f%u=%.70s", i, paths[i]);
		argv[3 + i] = args[i];
	}
	unlink(out);
	pid = fork();
	if (!pid) {
		dup2(fd, STDOUT_FILENO);
		dup2(fd, STDERR_FILENO);
		execv(program, argv);
		_exit(127);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	n = pread(fd, said, sizeof(said) - 1, 0);
	assert_true(n >= 0 && WIFEXITED(status));
	said[n] = 0;
	close(fd);
	if (WEXITSTATUS(status) == 127)
		skip(); /* only the tests were built */
	return WEXITSTATUS(status);
}

static bool says(const char *text)
{
	if (!strstr(said, text))
		print_message("# not there: %s\n%s\n", text, said);
	return strstr(said, text);
}

/* How often. */
static unsigned int times(const char *text)
{
	unsigned int n = 0;

	for (const char *at = said; (at = strstr(at, text)); at++)
		n++;
	return n;
}

static void flip(unsigned int dev, uint64_t off)
{
	uint8_t junk[BLOCK] __attribute__((aligned(4096)));
	struct flash *f;
	struct err e = {0};

	memset(junk, 0x96, sizeof(junk));
	assert_int_equal(flash_of(sh, dev, &(struct flash_opts){0}, &f, &e), 0);
	for (unsigned int slot = 0; slot < 2; slot++)
		assert_int_equal(
			flash_rw_sync(f, FLASH_WRITE, off + slot * SB_SLOT_STRIDE, junk, BLOCK), 0);
	flash_close(f);
}

static void fsck_looks_over_the_pool_of_every_slice(void **state)
{
	struct flash_opts o = part(1, 2);
	struct flash *f;
	struct err e = {0};

	live_both(true);
	assert_int_equal(fsck(false), 0);
	assert_true(says("shard 0 of 2") && says("shard 1 of 2"));
	assert_int_equal(times("clean\n"), 2);
	assert_int_equal(fsck(true), 0);
	assert_true(says("\"slices\": 2") && says("\"shard\": 1"));
	assert_int_equal(times("\"problems\": 0"), 2);
	assert_int_equal(times("\"blocks_read\": 512"), 2);
	assert_int_equal(flash_of(sh, 3, &o, &f, &e), 0);
	assert_int_equal(fsck(false), 8);
	assert_true(says("shard 0: f3") && says("in use"));
	flash_close(f);
}

static void fsck_tells_what_is_wrong_in_which_shard(void **state)
{
	live_both(true);
	flip(2, WIDTH);
	assert_int_equal(fsck(true), 4);
	assert_true(says("shard 1: f2: no superblock"));
	assert_int_equal(times("shard 0: "), 0);
	flip(1, 0); /* which says how it is cut */
	assert_int_equal(fsck(true), 4);
	assert_true(says("shard 0: f1: no superblock"));
	assert_int_equal(times("shard 1: f1"), 0);
	flip(2, 0);
	flip(3, 0);
	assert_int_equal(fsck(false), 4); /* the last that knows of slices */
	assert_true(says("shard 1 of 2"));
	flip(0, 0);
	assert_int_equal(fsck(false), 8);
	assert_true(says("none of the devices belongs to a pool"));
}

static void fsck_finds_devices_that_have_shrunk_or_are_cut_otherwise(void **state)
{
	struct pool_cfg cfg = {
		.name = "whole", .scheme = {1, 1}, .segment_bytes = POOL_SEGMENT_MIN};
	struct pool_member m[2] = {{.name = "a"}, {.name = "b"}};
	struct err e = {0};
	struct pool *p;

	live_both(true);
	assert_int_equal(truncate(paths[3], SIZE - BLOCK), 0);
	assert_int_equal(fsck(true), 4);
	assert_true(says("shard 0: f3: it has shrunk") && says("shard 1: f3: it has shrunk"));
	assert_int_equal(truncate(paths[3], BLOCK), 0);
	assert_int_equal(fsck(true), 4);
	assert_true(says("shard 0: f3: 4 KiB is too small"));
	assert_int_equal(truncate(paths[3], SIZE), 0);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(flash_of(sh, 3 + i, &(struct flash_opts){0}, &m[i].flash, &e), 0);
	assert_int_equal(pool_create(sh, &cfg, m, 2, true, &p, &e), 0);
	pool_close(p);
	assert_int_equal(fsck(true), 4);
	assert_true(says("shard 0: f3: belongs to pool"));
	assert_true(says("shard 1: f3: no superblock"));
}

#define T(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(two_shards_have_pools_on_the_same_devices),
		T(a_slice_is_opened_as_what_it_is_or_not_at_all),
		T(a_slice_with_the_superblock_of_another_is_refused),
		T(members_of_a_new_pool_and_newcomers_are_of_one_slice),
		T(a_probe_says_what_is_there_beside_the_owner),
		T(a_whole_pool_says_so_and_has_the_format_it_had),
		T(a_creation_that_is_undone_leaves_nothing),
		T(what_cannot_be_wiped_is_named),
		T(fsck_looks_over_the_pool_of_every_slice),
		T(fsck_tells_what_is_wrong_in_which_shard),
		T(fsck_finds_devices_that_have_shrunk_or_are_cut_otherwise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
