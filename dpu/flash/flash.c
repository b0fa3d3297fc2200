/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/flash/flash_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/shard.h"

/* Every back end, in order of preference. */
static const struct flash_backend *const backends[] = {
	&flash_backend_file,
	&flash_backend_tcp,
	&flash_backend_rdma,
	&flash_backend_mem,
	&flash_backend_fault,
};

const char *flash_status_name(enum flash_status s)
{
	static const char *const names[FLASH_STATUS_COUNT] = {
		[FLASH_OK] = "ok",
		[FLASH_ERR_TRANSIENT] = "transient",
		[FLASH_ERR_MEDIA] = "media",
		[FLASH_ERR_GONE] = "gone",
		[FLASH_ERR_FENCED] = "fenced",
	};

	return (unsigned int)s < FLASH_STATUS_COUNT ? names[s] : "unknown";
}

static const struct flash_backend *backend_find(const char *address, const char **where)
{
	for (size_t i = 0; i < ARRAY_LEN(backends); i++) {
		size_t n = strlen(backends[i]->scheme);

		if (strncmp(address, backends[i]->scheme, n) == 0 && address[n] == ':') {
			*where = address + n + 1;
			return backends[i];
		}
	}
	return NULL;
}

static int opts_check(const char *address, const struct flash_opts *o, struct err *err)
{
	if (o->depth > FLASH_DEPTH_MAX)
		return err_set(err, -EINVAL, address, "depth", "%u is over the limit of %u",
			o->depth, FLASH_DEPTH_MAX);
	if (o->block_bytes && o->block_bytes != 512 && o->block_bytes != 4096)
		return err_set(err, -EINVAL, address, "block size", "%u is neither 512 nor 4096",
			o->block_bytes);
	if (o->atomic_bytes & (o->atomic_bytes - 1) ||
		(o->atomic_bytes && o->atomic_bytes < MAX(512u, o->block_bytes)))
		return err_set(err, -EINVAL, address, "atomic write size",
			"%u is not a power of two of at least one block", o->atomic_bytes);
	if (o->slices > FLASH_SLICES_MAX)
		return err_set(err, -EINVAL, address, "slices", "%u is over the limit of %u",
			o->slices, FLASH_SLICES_MAX);
	if (o->slice >= MAX(o->slices, 1u))
		return err_set(err, -EINVAL, address, "slice", "%u of %u: they count from 0",
			o->slice, MAX(o->slices, 1u));
	if (o->cut_bytes && o->slices < 2)
		return err_set(err, -EINVAL, address, "slices",
			"it is opened whole: no size it was cut at");
	return 0;
}

/* From the whole device to the slice of it that was asked for. */
static int cut(struct flash *f, const char *address, const struct flash_opts *o, struct err *err)
{
	struct slice s = slice_of(o);
	int rc = slice_settle(&s, address, f->info.size_bytes, err);

	if (rc < 0)
		return rc;
	f->base = slice_base(&s);
	f->info.size_bytes = slice_bytes(&s, f->info.size_bytes);
	f->info.slice = s.index;
	f->info.slices = s.count;
	f->info.cut_bytes = s.count > 1 ? s.cut_bytes : 0;
	return 0;
}

int flash_open(struct shard *sh, const char *address, const struct flash_opts *opts,
	struct flash **out, struct err *err)
{
	struct flash_opts o = opts ? *opts : (struct flash_opts){.exclusive = true};
	const struct flash_backend *be;
	const char *where;
	struct flash *f;
	int rc;

	be = backend_find(address, &where);
	if (!be)
		return err_set(err, -EINVAL, address, "address",
			"not one of file:PATH, nvme+tcp://HOST[:PORT]/SUBNQN#NSID, "
			"nvme+rdma://HOST[:PORT]/SUBNQN#NSID, mem:SIZE[,name=NAME], "
			"fault:[volatile:]ADDRESS");
	if (strlen(address) >= sizeof(f->info.address))
		return err_set(err, -EINVAL, "flash", "address", "longer than %zu bytes",
			sizeof(f->info.address) - 1);
	rc = opts_check(address, &o, err);
	if (rc < 0)
		return rc;
	if (!o.depth)
		o.depth = FLASH_DEPTH_DEFAULT;
	rc = be->open(sh, where, &o, &f, err);
	if (rc < 0)
		return rc;
	rc = be->stacked ? 0 : cut(f, address, &o, err);
	if (rc < 0) {
		flash_close(f);
		return rc;
	}
	snprintf(f->info.address, sizeof(f->info.address), "%s", address);
	*out = f;
	return 0;
}

void flash_warm(struct shard *sh, const char *address, const struct flash_opts *opts)
{
	struct flash_opts o = opts ? *opts : (struct flash_opts){.exclusive = true};
	const char *where;
	const struct flash_backend *be = backend_find(address, &where);

	if (!be || !be->warm || opts_check(address, &o, NULL) < 0)
		return;
	if (!o.depth)
		o.depth = FLASH_DEPTH_DEFAULT;
	be->warm(sh, where, &o);
}

bool flash_is_warm(struct shard *sh, const char *address)
{
	const char *where;
	const struct flash_backend *be = backend_find(address, &where);

	return be && (!be->is_warm || be->is_warm(sh, where));
}

void flash_cool(struct shard *sh)
{
	for (size_t i = 0; i < ARRAY_LEN(backends); i++)
		if (backends[i]->cool)
			backends[i]->cool(sh);
}

void flash_close(struct flash *f)
{
	if (!f)
		return;
	assert(!f->in_flight);
	age_close(f);
	f->ops->close(f);
}

const struct flash_info *flash_info(const struct flash *f)
{
	return &f->info;
}

uint32_t flash_in_flight(const struct flash *f)
{
	return f->in_flight;
}

void flash_stats(const struct flash *f, struct flash_stats *out)
{
	*out = f->stats;
}

static bool range_is_good(const struct flash *f, uint64_t off, uint64_t len)
{
	uint64_t mask = f->info.block_bytes - 1;

	return len && !((off | len) & mask) && off <= f->info.size_bytes &&
	       len <= f->info.size_bytes - off;
}

static bool iov_is_good(const struct flash_io *io)
{
	uint64_t left = io->len;

	if (io->niov < 1 || io->niov > FLASH_IOV_MAX)
		return false;
	for (int i = 0; i < io->niov; i++) {
		if (io->iov[i].iov_len > left)
			return false;
		left -= io->iov[i].iov_len;
	}
	return left == 0;
}

static bool io_is_good(const struct flash *f, const struct flash_io *io)
{
	switch (io->op) {
	case FLASH_READ:
	case FLASH_WRITE:
		return range_is_good(f, io->off, io->len) && iov_is_good(io);
	case FLASH_WRITE_ZEROES:
	case FLASH_DISCARD:
		return range_is_good(f, io->off, io->len);
	case FLASH_FLUSH:
		return true;
	}
	return false;
}

int flash_submit(struct flash *f, struct flash_io *io)
{
	int rc;

	if (!io_is_good(f, io))
		return -EINVAL;
	if (f->abandoned)
		return -ENODEV;
	if (f->in_flight == f->info.depth)
		return -EAGAIN;
	io->off += f->base;
	rc = f->ops->submit(f, io);
	if (rc == 0)
		age_begin(f, io);
	else
		io->off -= f->base;
	return rc;
}

void flash_complete(struct flash *f, struct flash_io *io, enum flash_status status)
{
	struct flash_stats *st = &f->stats;

	age_end(f, io);
	io->off -= f->base;
	io->status = status;
	if (status != FLASH_OK) {
		st->errors[status]++;
		if (f->notice_fn)
			f->notice_fn(f->notice_arg, FLASH_NOTICE_ERROR, io->op, status);
	} else if (io->op == FLASH_READ) {
		st->reads++;
		st->read_bytes += io->len;
	} else if (io->op == FLASH_WRITE) {
		st->writes++;
		st->write_bytes += io->len;
	} else if (io->op == FLASH_FLUSH) {
		st->flushes++;
	} else if (io->op == FLASH_WRITE_ZEROES) {
		st->zero_bytes += io->len;
	}
	io->done_fn(io);
}

void flash_kick(struct flash *f)
{
	if (f->ops->kick)
		f->ops->kick(f);
}

void *flash_window(struct flash *f, uint64_t off, uint64_t len)
{
	return f->ops->window && !f->abandoned && range_is_good(f, off, len)
		       ? f->ops->window(f, f->base + off)
		       : NULL;
}

void flash_gather(const struct flash_io *io, void *dst)
{
	char *d = dst;

	for (int i = 0; i < io->niov; i++) {
		memcpy(d, io->iov[i].iov_base, io->iov[i].iov_len);
		d += io->iov[i].iov_len;
	}
}

void flash_scatter(const struct flash_io *io, const void *src)
{
	const char *s = src;

	for (int i = 0; i < io->niov; i++) {
		memcpy(io->iov[i].iov_base, s, io->iov[i].iov_len);
		s += io->iov[i].iov_len;
	}
}

/* ---- keeping others out ---------------------------------------------------------------------- */

int flash_claim(struct flash *f, uint64_t key, bool preempt, struct err *err)
{
	if (f->abandoned)
		return err_set(err, -ENODEV, f->info.address, NULL, "it was given up");
	if (!f->ops->claim)
		return err_set(err, -EOPNOTSUPP, f->info.address, NULL,
			"it has no reservations: nothing keeps another host from writing to it");
	return f->ops->claim(f, key, preempt, err);
}

int flash_unclaim(struct flash *f, struct err *err)
{
	if (f->abandoned || !f->ops->unclaim)
		return 0;
	return f->ops->unclaim(f, err);
}

/* ---- straight-down I/O ----------------------------------------------------------------------- */

static void sync_done(struct flash_io *io)
{
	*(bool *)io->arg = true;
}

static bool is_true(void *arg)
{
	return *(bool *)arg;
}

static bool has_room(void *arg)
{
	const struct flash *f = arg;

	return f->in_flight < f->info.depth;
}

int flash_rw_sync(struct flash *f, enum flash_op op, uint64_t off, void *buf, uint64_t len)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	bool done = false;
	struct flash_io io = {.op = op,
		.off = off,
		.len = len,
		.iov = &iov,
		.niov = 1,
		.done_fn = sync_done,
		.arg = &done};
	int rc;

	while ((rc = flash_submit(f, &io)) == -EAGAIN) {
		/* Full; or short of something else, which a round of the loop may give back. */
		shard_run_once(f->sh);
		rc = shard_wait(f->sh, has_room, f, 0);
		if (rc < 0)
			return rc;
	}
	if (rc < 0)
		return rc;
	flash_kick(f);
	rc = shard_wait(f->sh, is_true, &done, 0);
	if (rc < 0)
		return rc;
	return io.status == FLASH_OK ? 0 : io.status == FLASH_ERR_GONE ? -ENODEV : -EIO;
}
