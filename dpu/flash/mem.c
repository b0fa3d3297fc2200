/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mem: flash in memory. Data moves at submission (streaming stores, as nobody reads it back soon); completions are handed
 * out by a task, as a batch. Pages come with their first use. A named one keeps its contents after close, and is shared by its slices; a slice without
 * a name has memory of its own, of its width.
 */
#include "dpu/flash/flash_priv.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "common/base/units.h"
#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/core/shard.h"

#define HUGE_BYTES ((uint64_t)2 << 20)

/* Contents; with a name they are found again, by any thread. Who has them open is under the lock; the bytes are the slices' each. */
struct mem_store {
	char name[64];
	uint8_t *bytes;
	uint64_t size;
	LIST_HEAD(, mem_flash) users;
	LIST_ENTRY(mem_store) link;
};
static pthread_mutex_t stores_lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, mem_store) named_stores = LIST_HEAD_INITIALIZER(named_stores);

struct mem_flash {
	struct flash f;
	struct mem_store *store;
	uint64_t first; /* byte of the device that the memory begins with */
	struct slice slice;
	bool exclusive;
	LIST_ENTRY(mem_flash) link;
	struct flash_io_list done;
	struct task task;
};

static void store_free(struct mem_store *st)
{
	mem_free(st->bytes, st->size);
	free(st);
}

static struct mem_store *store_find(const char *name)
{
	struct mem_store *st;

	LIST_FOREACH (st, &named_stores, link)
		if (strcmp(st->name, name) == 0)
			return st;
	return NULL;
}

void flash_mem_forget(const char *name)
{
	struct mem_store *st, *next;

	pthread_mutex_lock(&stores_lock);
	for (st = LIST_FIRST(&named_stores); st; st = next) {
		next = LIST_NEXT(st, link);
		if (!LIST_EMPTY(&st->users) || (name && strcmp(name, st->name) != 0))
			continue;
		LIST_REMOVE(st, link);
		store_free(st);
	}
	pthread_mutex_unlock(&stores_lock);
}

static struct mem_store *store_new(
	const char *where, uint64_t size, const char *name, struct err *err)
{
	struct mem_store *st = calloc(1, sizeof(*st));

	if (!st) {
		err_set(err, -ENOMEM, where, NULL, "no memory");
		return NULL;
	}
	st->bytes = mem_reserve(size);
	if (!st->bytes) {
		free(st);
		err_set(err, -ENOMEM, where, "size", "no memory for that much");
		return NULL;
	}
	st->size = size;
	snprintf(st->name, sizeof(st->name), "%s", name);
	return st;
}

static bool is_busy(const struct mem_store *st, const struct mem_flash *m)
{
	const struct mem_flash *o;

	LIST_FOREACH (o, &st->users, link)
		if (o->exclusive && m->exclusive && slice_clashes(&o->slice, &m->slice))
			return true;
	return false;
}

/* Under the lock. */
static int named_take(
	struct mem_flash *m, const char *where, uint64_t size, const char *name, struct err *err)
{
	struct mem_store *st = store_find(name);

	if (st && st->size != size)
		return err_set(err, -EINVAL, where, "size",
			"the memory of this name has %llu bytes", (unsigned long long)st->size);
	if (st && is_busy(st, m))
		return err_set(err, -EBUSY, where, NULL, "the memory is in use");
	if (!st) {
		st = store_new(where, size, name, err);
		if (!st)
			return -ENOMEM;
		LIST_INSERT_HEAD(&named_stores, st, link);
	}
	LIST_INSERT_HEAD(&st->users, m, link);
	m->store = st;
	return 0;
}

static int store_take(
	struct mem_flash *m, const char *where, uint64_t size, const char *name, struct err *err)
{
	int rc;

	if (!name[0]) {
		m->first = slice_base(&m->slice);
		m->store = store_new(where, slice_bytes(&m->slice, size), name, err);
		return m->store ? 0 : -ENOMEM;
	}
	pthread_mutex_lock(&stores_lock);
	rc = named_take(m, where, size, name, err);
	pthread_mutex_unlock(&stores_lock);
	return rc;
}

static void mem_close(struct flash *f)
{
	struct mem_flash *m = container_of(f, struct mem_flash, f);

	shard_undefer(f->sh, &m->task);
	if (m->store->name[0]) {
		pthread_mutex_lock(&stores_lock);
		LIST_REMOVE(m, link);
		pthread_mutex_unlock(&stores_lock);
	} else {
		store_free(m->store);
	}
	free(m);
}

static void end_all(struct mem_flash *m, enum flash_status status)
{
	/* What completes now submits more; that is the next batch's. The count, as the last one may close the device. */
	uint32_t n = m->f.in_flight;

	mem_stream_fence();
	while (n--) {
		struct flash_io *io = TAILQ_FIRST(&m->done);

		TAILQ_REMOVE(&m->done, io, link);
		flash_complete(&m->f, io, status);
	}
}

static void give_back(void *arg)
{
	end_all(arg, FLASH_OK);
}

static void mem_abandon(struct flash *f)
{
	struct mem_flash *m = container_of(f, struct mem_flash, f);

	shard_undefer(f->sh, &m->task);
	end_all(m, FLASH_ERR_GONE);
}

static void copy_in(const struct flash_io *io, uint8_t *dst)
{
	for (int i = 0; i < io->niov; i++) {
		mem_copy_stream(dst, io->iov[i].iov_base, io->iov[i].iov_len);
		dst += io->iov[i].iov_len;
	}
}

/* Whole huge pages go back to the system (and read as zeros); their rest is left as it is. */
static void drop_pages(uint8_t *at, uint64_t len, bool zero)
{
	uint8_t *from = (uint8_t *)ROUND_UP((uintptr_t)at, HUGE_BYTES);
	uint8_t *to = (uint8_t *)((uintptr_t)(at + len) & ~(uintptr_t)(HUGE_BYTES - 1));

	if (from < to && madvise(from, (size_t)(to - from), MADV_DONTNEED) == 0) {
		if (zero) {
			mem_zero_stream(at, (size_t)(from - at));
			mem_zero_stream(to, (size_t)(at + len - to));
		}
	} else if (zero) {
		mem_zero_stream(at, len);
	}
}

static int mem_submit(struct flash *f, struct flash_io *io)
{
	struct mem_flash *m = container_of(f, struct mem_flash, f);
	uint8_t *at = m->store->bytes + (io->off - m->first);

	switch (io->op) {
	case FLASH_READ:
		flash_scatter(io, at);
		break;
	case FLASH_WRITE:
		copy_in(io, at);
		break;
	case FLASH_WRITE_ZEROES:
	case FLASH_DISCARD:
		drop_pages(at, io->len, io->op == FLASH_WRITE_ZEROES);
		break;
	case FLASH_FLUSH:
		break;
	}
	TAILQ_INSERT_TAIL(&m->done, io, link);
	shard_defer(f->sh, &m->task, give_back, m);
	return 0;
}

static void *mem_window(struct flash *f, uint64_t off)
{
	const struct mem_flash *m = container_of(f, struct mem_flash, f);

	return m->store->bytes + (off - m->first);
}

static const struct flash_ops mem_ops = {
	.close = mem_close,
	.submit = mem_submit,
	.window = mem_window,
	.abandon = mem_abandon,
};

/* "64M" or "64M,name=f0". */
static int parse_where(const char *where, uint64_t *size, char *name, size_t name_len)
{
	const char *comma = strchr(where, ',');
	char text[32];
	int n;

	n = snprintf(text, sizeof(text), "%.*s",
		(int)(comma ? comma - where : (ptrdiff_t)strlen(where)), where);
	if (n < 0 || (size_t)n >= sizeof(text) || units_parse_bytes(text, size) < 0)
		return -EINVAL;
	name[0] = 0;
	if (!comma)
		return 0;
	if (strncmp(comma, ",name=", 6) != 0 || !comma[6])
		return -EINVAL;
	n = snprintf(name, name_len, "%s", comma + 6);
	return n > 0 && (size_t)n < name_len ? 0 : -EINVAL;
}

static int mem_open(struct shard *sh, const char *where, const struct flash_opts *opts,
	struct flash **out, struct err *err)
{
	uint32_t block = opts->block_bytes ? opts->block_bytes : 4096;
	struct mem_flash *m;
	char name[64];
	uint64_t size;
	int rc;

	if (parse_where(where, &size, name, sizeof(name)) < 0)
		return err_set(err, -EINVAL, where, "address", "not SIZE or SIZE,name=NAME");
	if (!size || size % 4096)
		return err_set(err, -EINVAL, where, "size", "not a multiple of 4096 bytes");
	m = calloc(1, sizeof(*m));
	if (!m)
		return err_set(err, -ENOMEM, where, NULL, "no memory");
	m->f = (struct flash){.ops = &mem_ops, .sh = sh};
	m->slice = slice_of(opts);
	m->exclusive = opts->exclusive;
	rc = slice_settle(&m->slice, where, size, err);
	if (rc == 0)
		rc = store_take(m, where, size, name, err);
	if (rc < 0) {
		free(m);
		return rc;
	}
	m->f.info.size_bytes = size;
	m->f.info.block_bytes = block;
	m->f.info.atomic_bytes = opts->atomic_bytes ? opts->atomic_bytes : 4096;
	m->f.info.depth = opts->depth;
	m->f.info.reads_once = true;
	TAILQ_INIT(&m->done);
	*out = &m->f;
	return 0;
}

const struct flash_backend flash_backend_mem = {.scheme = "mem", .open = mem_open};
