/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * file: a regular file or a block device through io_uring, with O_DIRECT where it is to be had. One ring per device; what
 * a round of the loop submits goes to the kernel in one call. A sleeping shard wakes by the ring's descriptor.
 *
 * An I/O in a slot goes through these steps; each completion of the ring moves it on:
 *
 *	read, write      transfer ──▶ (short: transfer the rest) ──▶ done
 *	flush            fdatasync ──▶ done
 *	write zeroes     zero range ──▶ (not supported: punch hole ──▶ (not supported: transfer zeros)) ──▶ done
 *	discard          punch hole ──▶ done, whatever it says: it is a hint
 *
 * The kernel cannot be made to forget an I/O. So what it is given is the device's own: reads land in bounce buffers and are copied out when they end, writes
 * leave from them too, unless their reader can tell them from anything else (flash_io.checked). An I/O that is abandoned leaves
 * its slot behind as a ghost, which keeps the buffers until the kernel is done. A device closed with ghosts is drained by a thread of its own, under the
 * lock of the file; until then it is not opened again.
 *
 * The ring knows its file and the memory that I/O goes through beforehand (file_fixed.h): the bounce buffers, and those of the card's that checked
 * writes lie in. A transfer that is one piece of such memory names it by its index.
 */
#include "dpu/flash/file_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <liburing.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/core/shard.h"
#include "dpu/flash/file_fixed.h"
#include "dpu/flash/smart.h"

#define PAGE_BYTES         (16u << 10) /* of the bounce buffers, */
#define PAGE_COUNT         512u /* which all I/Os together have */
#define DRAIN_LOOK_MS      100
#define ZEROS_BYTES        (64u << 10)
#define FILE_ATOMIC        4096u /* an assumption for regular files: file systems write whole blocks */
#define MEM_ALIGN          512u
#define TRANSFER_BYTES_MAX (1u << 30) /* of one call; the rest goes in another */

enum step { STEP_TRANSFER, STEP_FSYNC, STEP_ZERO_RANGE, STEP_ZERO_PUNCH, STEP_DISCARD };

struct slot {
	struct flash_io *io; /* NULL: free, or a ghost */
	enum step step;
	uint64_t done; /* bytes transferred */
	uint32_t niov; /* of src, pieces that adjoin made one; 0: no memory */
	uint32_t npages; /* all of src is that many of the pool's; 0: none is */
	void *own; /* too long for the pool: allocated for this one */
	struct iovec src[FLASH_IOV_MAX]; /* where the bytes are: ours, or a checked write's */
	struct iovec iov[FLASH_IOV_MAX]; /* what is left of that */
};

struct file_flash {
	struct flash f;
	struct file_hold hold;
	bool direct, no_zero_range, no_punch;
	struct io_uring ring;
	bool ring_open;
	struct file_fixed fixed;
	unsigned int queued; /* not yet told to the kernel */
	struct poller poller;
	struct fd_watch watch;
	struct bufpool *pages;
	struct smart *smart;
	struct slot *slots;
	uint32_t *free_slots;
	uint32_t nfree;
};

static char zeros[ZEROS_BYTES] __attribute__((aligned(4096)));

/* ---- slots --------------------------------------------------------------------------------------- */

static bool is_aligned(const struct flash_io *io, uint32_t block_bytes)
{
	for (int i = 0; i < io->niov; i++)
		if ((uintptr_t)io->iov[i].iov_base & (MEM_ALIGN - 1) ||
			io->iov[i].iov_len & (block_bytes - 1))
			return false;
	return true;
}

/* One piece more, or a longer one. */
static void src_add(struct slot *s, void *base, size_t len)
{
	struct iovec *last = s->niov ? &s->src[s->niov - 1] : NULL;

	if (last && (char *)last->iov_base + last->iov_len == base)
		last->iov_len += len;
	else
		s->src[s->niov++] = (struct iovec){base, len};
}

static int bounce_get(struct file_flash *ff, struct slot *s)
{
	uint64_t left = s->io->len;
	uint32_t n = (uint32_t)MIN(DIV_ROUND_UP(left, PAGE_BYTES), UINT32_MAX);

	if (n > FLASH_IOV_MAX) {
		/* Long: rare enough to pay for it. */
		if (posix_memalign(&s->own, 4096, left))
			return -ENOMEM;
		s->src[0] = (struct iovec){s->own, left};
		s->niov = 1;
		return 0;
	}
	if (bufpool_free_count(ff->pages) < n)
		return -EAGAIN;
	for (uint32_t i = 0; i < n; i++) {
		src_add(s, bufpool_get(ff->pages), MIN(left, PAGE_BYTES));
		left -= MIN(left, PAGE_BYTES);
	}
	s->npages = n;
	return 0;
}

static void bounce_put(struct file_flash *ff, struct slot *s)
{
	/* The last one first: they come out in this order again. */
	for (uint32_t i = s->niov; s->npages;) {
		struct iovec *v = &s->src[--i];

		for (size_t page = DIV_ROUND_UP(v->iov_len, PAGE_BYTES); page--; s->npages--)
			bufpool_put(ff->pages, (char *)v->iov_base + page * PAGE_BYTES);
	}
	free(s->own);
	s->own = NULL;
}

/* Between the caller's memory and the slot's. */
static void bounce_copy(struct slot *s)
{
	const struct flash_io *io = s->io;
	uint32_t i = 0;
	size_t at = 0;

	for (int j = 0; j < io->niov; j++) {
		char *theirs = io->iov[j].iov_base;
		size_t left = io->iov[j].iov_len;

		while (left) {
			size_t n = MIN(left, s->src[i].iov_len - at);
			char *ours = (char *)s->src[i].iov_base + at;

			if (io->op == FLASH_READ)
				memcpy(theirs, ours, n);
			else
				memcpy(ours, theirs, n);
			theirs += n;
			left -= n;
			at += n;
			if (at == s->src[i].iov_len) {
				i++;
				at = 0;
			}
		}
	}
}

/* The memory of a transfer. */
static int slot_memory(struct file_flash *ff, struct slot *s)
{
	const struct flash_io *io = s->io;
	int rc;

	s->niov = 0;
	if (io->op != FLASH_READ && io->op != FLASH_WRITE)
		return 0;
	if (io->op == FLASH_WRITE && io->checked &&
		(!ff->direct || is_aligned(io, ff->f.info.block_bytes))) {
		for (int i = 0; i < io->niov; i++)
			src_add(s, io->iov[i].iov_base, io->iov[i].iov_len);
		return 0;
	}
	rc = bounce_get(ff, s);
	if (rc == 0 && io->op == FLASH_WRITE)
		bounce_copy(s);
	return rc;
}

static void slot_free(struct file_flash *ff, struct slot *s)
{
	bounce_put(ff, s);
	s->io = NULL;
	ff->free_slots[ff->nfree++] = (uint32_t)(s - ff->slots);
}

static void slot_end(struct file_flash *ff, struct slot *s, enum flash_status status)
{
	struct flash_io *io = s->io;

	if (io->op == FLASH_READ && status == FLASH_OK)
		bounce_copy(s);
	slot_free(ff, s);
	flash_complete(&ff->f, io, status);
}

/* ---- towards the kernel ------------------------------------------------------------------------------ */

static void ring_push(struct file_flash *ff)
{
	int n;

	if (!ff->queued)
		return;
	n = io_uring_submit(&ff->ring);
	if (n > 0)
		ff->queued -= MIN((unsigned int)n, ff->queued);
	/* -EAGAIN, -EBUSY: the kernel is short of memory or we of completions read: the next round tries again. */
}

/* The ring has room for as many as the device takes; what it lacks the kernel has not been told of yet. */
static struct io_uring_sqe *sqe_get(struct file_flash *ff)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ff->ring);

	if (!sqe) {
		ring_push(ff);
		sqe = io_uring_get_sqe(&ff->ring);
	}
	return sqe;
}

/* What remains of a transfer, as iovecs. *n: how many. */
static const struct iovec *remaining_iov(struct slot *s, unsigned int *n)
{
	uint64_t left = s->io->len - s->done, skip = s->done;

	if (s->io->op == FLASH_WRITE_ZEROES) {
		for (*n = 0; *n < FLASH_IOV_MAX && left; left -= s->iov[(*n)++].iov_len)
			s->iov[*n] = (struct iovec){zeros, MIN(left, (uint64_t)ZEROS_BYTES)};
		return s->iov;
	}
	*n = s->niov;
	if (!s->done)
		return s->src;
	*n = 0;
	for (uint32_t i = 0; i < s->niov; i++) {
		const struct iovec *v = &s->src[i];
		uint64_t over = MIN(skip, (uint64_t)v->iov_len);

		skip -= over;
		if (v->iov_len > over)
			s->iov[(*n)++] = (struct iovec){
				(char *)v->iov_base + over, v->iov_len - over};
	}
	return s->iov;
}

static void prep_transfer(struct file_flash *ff, struct slot *s, struct io_uring_sqe *sqe)
{
	uint64_t off = s->io->off + s->done;
	bool read = s->io->op == FLASH_READ;
	unsigned int n;
	const struct iovec *iov = remaining_iov(s, &n);
	int buf = n == 1 ? file_fixed_find(&ff->fixed, iov->iov_base, iov->iov_len) : -1;
	unsigned int len = (unsigned int)MIN(iov->iov_len, (size_t)TRANSFER_BYTES_MAX);

	ff->f.stats.fixed += buf >= 0;
	if (buf >= 0 && read)
		io_uring_prep_read_fixed(sqe, ff->hold.fd, iov->iov_base, len, off, buf);
	else if (buf >= 0)
		io_uring_prep_write_fixed(sqe, ff->hold.fd, iov->iov_base, len, off, buf);
	else if (read)
		io_uring_prep_readv(sqe, ff->hold.fd, iov, n, off);
	else
		io_uring_prep_writev(sqe, ff->hold.fd, iov, n, off);
}

static int slot_issue(struct file_flash *ff, struct slot *s)
{
	struct io_uring_sqe *sqe = sqe_get(ff);
	const struct flash_io *io = s->io;

	if (!sqe)
		return -EAGAIN;
	switch (s->step) {
	case STEP_TRANSFER:
		prep_transfer(ff, s, sqe);
		break;
	case STEP_FSYNC:
		io_uring_prep_fsync(sqe, ff->hold.fd, IORING_FSYNC_DATASYNC);
		break;
	case STEP_ZERO_RANGE:
		io_uring_prep_fallocate(sqe, ff->hold.fd,
			FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, (off_t)io->off, (off_t)io->len);
		break;
	case STEP_ZERO_PUNCH:
	case STEP_DISCARD:
		io_uring_prep_fallocate(sqe, ff->hold.fd,
			FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)io->off, (off_t)io->len);
		break;
	}
	if (ff->fixed.file) {
		sqe->fd = 0;
		sqe->flags |= IOSQE_FIXED_FILE;
	}
	io_uring_sqe_set_data(sqe, s);
	ff->queued++;
	return 0;
}

static enum step first_step(const struct file_flash *ff, enum flash_op op)
{
	switch (op) {
	case FLASH_FLUSH:
		return STEP_FSYNC;
	case FLASH_WRITE_ZEROES:
		return !ff->no_zero_range ? STEP_ZERO_RANGE
		       : !ff->no_punch    ? STEP_ZERO_PUNCH
					  : STEP_TRANSFER;
	case FLASH_DISCARD:
		return STEP_DISCARD;
	default:
		return STEP_TRANSFER;
	}
}

static int file_submit(struct flash *f, struct flash_io *io)
{
	struct file_flash *ff = container_of(f, struct file_flash, f);
	struct slot *s = &ff->slots[ff->free_slots[ff->nfree - 1]];
	int rc;

	s->io = io;
	s->done = 0;
	s->step = first_step(ff, io->op);
	rc = slot_memory(ff, s);
	if (rc == 0)
		rc = slot_issue(ff, s);
	if (rc < 0) {
		bounce_put(ff, s);
		s->io = NULL;
		return rc;
	}
	ff->nfree--;
	return 0;
}

/* ---- back from the kernel ------------------------------------------------------------------------ */

static enum flash_status status_of(int error)
{
	switch (error) {
	case EAGAIN:
	case EINTR:
	case ENOMEM:
	case EBUSY:
	case ETIMEDOUT:
		return FLASH_ERR_TRANSIENT;
	case ENODEV:
	case ENXIO:
	case ENOLINK:
	case ESHUTDOWN:
	case EBADF:
		return FLASH_ERR_GONE;
	default: /* EIO, EILSEQ, ENODATA, ENOSPC on a sparse file: these blocks */
		return FLASH_ERR_MEDIA;
	}
}

static bool is_unsupported(int res)
{
	return res == -EOPNOTSUPP || res == -ENOSYS || res == -EINVAL;
}

/* Moves on to another step of the same I/O. True when it goes on. */
static bool slot_again(struct file_flash *ff, struct slot *s, enum step step)
{
	s->step = step;
	return slot_issue(ff, s) == 0;
}

static void transfer_done(struct file_flash *ff, struct slot *s, int res)
{
	if (res <= 0) {
		/* Nothing at all: the file has become shorter than it was. */
		slot_end(ff, s, res ? status_of(-res) : FLASH_ERR_MEDIA);
		return;
	}
	s->done += (unsigned int)res;
	if (s->done >= s->io->len)
		slot_end(ff, s, FLASH_OK);
	else if (!slot_again(ff, s, STEP_TRANSFER))
		slot_end(ff, s, FLASH_ERR_TRANSIENT);
}

static void slot_done(struct file_flash *ff, struct slot *s, int res)
{
	if (!s->io) { /* a ghost: nobody waits for it */
		slot_free(ff, s);
		ff->f.ghosts--;
		return;
	}
	switch (s->step) {
	case STEP_TRANSFER:
		transfer_done(ff, s, res);
		return;
	case STEP_ZERO_RANGE:
		if (is_unsupported(res)) {
			ff->no_zero_range = true;
			if (slot_again(ff, s, STEP_ZERO_PUNCH))
				return;
			res = -EAGAIN;
		}
		break;
	case STEP_ZERO_PUNCH:
		if (is_unsupported(res)) {
			ff->no_punch = true;
			if (slot_again(ff, s, STEP_TRANSFER))
				return;
			res = -EAGAIN;
		}
		break;
	case STEP_DISCARD:
		res = 0;
		break;
	case STEP_FSYNC:
		break;
	}
	slot_end(ff, s, res < 0 ? status_of(-res) : FLASH_OK);
}

static int reap(struct file_flash *ff)
{
	uint32_t budget = ff->f.in_flight + ff->f.ghosts; /* the last one may close the device */
	struct io_uring_cqe *cqe;
	int n = 0;

	while (budget-- && io_uring_peek_cqe(&ff->ring, &cqe) == 0) {
		struct slot *s = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&ff->ring, cqe);
		n++;
		slot_done(ff, s, res);
	}
	return n;
}

static int file_poll(void *arg)
{
	struct file_flash *ff = arg;
	struct io_uring_cqe *cqe;
	int n;

	if (!ff->f.in_flight && !ff->f.ghosts)
		return 0;
	ring_push(ff);
	/* The kernel takes real time, which virtual time must not overtake. */
	if (shard_is_virtual(ff->f.sh) && !ff->queued && ff->f.in_flight)
		io_uring_wait_cqe(&ff->ring, &cqe);
	n = ff->queued ? 1 : 0;
	return n + reap(ff);
}

static void ring_ready(void *arg, uint32_t events)
{
	file_poll(arg);
}

static void file_kick(struct flash *f)
{
	ring_push(container_of(f, struct file_flash, f));
}

/* ---- ghosts ---------------------------------------------------------------------------------------- */

/* From here on the slots in use are the kernel's and ours alone. */
static void file_abandon(struct flash *f)
{
	struct file_flash *ff = container_of(f, struct file_flash, f);
	uint32_t n = f->in_flight;

	ring_push(ff);
	for (uint32_t i = 0; n; i++) {
		struct flash_io *io = ff->slots[i].io;

		if (!io)
			continue;
		n--;
		ff->slots[i].io = NULL;
		f->ghosts++;
		flash_complete(f, io, FLASH_ERR_GONE); /* the last one may close the device */
	}
}

static void file_free(struct file_flash *ff)
{
	if (ff->ring_open) {
		file_fixed_close(&ff->fixed);
		io_uring_queue_exit(&ff->ring);
	}
	file_hold_close(&ff->hold);
	bufpool_close(ff->pages);
	smart_close(ff->smart);
	free(ff->slots);
	free(ff->free_slots);
	free(ff);
}

static void *drain(void *arg)
{
	struct file_flash *ff = arg;
	struct __kernel_timespec pause = {.tv_nsec = DRAIN_LOOK_MS * 1000000L};
	struct io_uring_cqe *cqe;

	while (ff->f.ghosts) {
		ring_push(ff);
		io_uring_wait_cqe_timeout(&ff->ring, &cqe, &pause);
		reap(ff);
	}
	file_free(ff);
	return NULL;
}

static void drain_begin(struct file_flash *ff)
{
	pthread_t thread;

	log_warn("flash: %s: %u I/Os hang in the kernel; the device stays locked until they end",
		ff->f.info.address, ff->f.ghosts);
	file_hold_haunt(&ff->hold);
	if (pthread_create(&thread, NULL, drain, ff) == 0)
		pthread_detach(thread);
	else /* it stays as it is while the process lives: nothing of it may be freed */
		log_warn("flash: %s: no thread to wait for them", ff->f.info.address);
}

/* ---- open and close ------------------------------------------------------------------------------ */

static void file_close(struct flash *f)
{
	struct file_flash *ff = container_of(f, struct file_flash, f);

	poller_del(f->sh, &ff->poller);
	fd_watch_del(f->sh, &ff->watch);
	if (f->ghosts)
		drain_begin(ff);
	else
		file_free(ff);
}

static void file_smart(struct flash *f, struct flash_smart *out)
{
	smart_get(container_of(f, struct file_flash, f)->smart, out);
}

static const struct flash_ops file_ops = {
	.close = file_close,
	.submit = file_submit,
	.kick = file_kick,
	.abandon = file_abandon,
	.smart = file_smart,
};

/* Whether O_DIRECT really works in units of `block` (a file system may refuse it at open or only at the first I/O). */
static bool direct_works(int fd, uint32_t block)
{
	autofree void *buf = NULL;

	if (posix_memalign(&buf, MEM_ALIGN, 2 * (size_t)block))
		return false;
	/* Memory at an odd multiple of the alignment, the second block: the least favourable case. */
	return pread(fd, (char *)buf + (block > MEM_ALIGN ? MEM_ALIGN : 0), block, block) >= 0;
}

/* Size, logical block and atomic write size. */
static int measure(
	struct file_flash *ff, const char *path, const struct flash_opts *opts, struct err *err)
{
	struct flash_info *info = &ff->f.info;
	unsigned int physical = FILE_ATOMIC, logical;
	int rc = file_geometry(ff->hold.fd, &info->size_bytes, &logical, &physical);

	if (rc < 0)
		return err_set(err, rc, path, NULL, "no geometry: %s", strerror(-rc));
	info->block_bytes = opts->block_bytes ? opts->block_bytes : ff->hold.ino ? 4096 : logical;
	if (info->block_bytes < logical || logical > 4096)
		return err_set(err, -EINVAL, path, "block size",
			"%u is less than the device's logical block of %u", info->block_bytes,
			logical);
	info->size_bytes -= info->size_bytes % info->block_bytes;
	if (!info->size_bytes)
		return err_set(err, -EINVAL, path, "size", "it is empty");
	info->atomic_bytes = opts->atomic_bytes ? opts->atomic_bytes
						: MAX(physical, info->block_bytes);
	info->volatile_cache = true; /* fdatasync() says when it is durable */
	info->depth = opts->depth;
	return 0;
}

static void choose_direct(struct file_flash *ff, const char *path)
{
	int flags = fcntl(ff->hold.fd, F_GETFL);

	ff->direct = fcntl(ff->hold.fd, F_SETFL, flags | O_DIRECT) == 0 &&
		     direct_works(ff->hold.fd, ff->f.info.block_bytes);
	if (ff->direct)
		return;
	fcntl(ff->hold.fd, F_SETFL, flags & ~O_DIRECT);
	log_warn("flash: %s: no O_DIRECT here; I/O goes through the page cache", path);
}

static int alloc_slots(struct file_flash *ff)
{
	uint32_t depth = ff->f.info.depth;

	ff->slots = calloc(depth, sizeof(ff->slots[0]));
	ff->free_slots = calloc(depth, sizeof(ff->free_slots[0]));
	if (!ff->slots || !ff->free_slots)
		return -ENOMEM;
	while (ff->nfree < depth) {
		ff->free_slots[ff->nfree] = depth - 1 - ff->nfree;
		ff->nfree++;
	}
	return bufpool_open(PAGE_BYTES, PAGE_COUNT, &ff->pages);
}

static int attach(struct file_flash *ff)
{
	int rc = io_uring_queue_init(ff->f.info.depth, &ff->ring, 0);

	if (rc < 0)
		return rc;
	ff->ring_open = true;
	rc = io_uring_ring_dontfork(&ff->ring);
	if (rc < 0)
		return rc;
	file_fixed_open(&ff->fixed, &ff->ring, ff->hold.fd);
	poller_add(ff->f.sh, &ff->poller, file_poll, ff, POLLER_SLEEPS);
	return fd_watch_add(ff->f.sh, &ff->watch, ff->ring.ring_fd, EPOLLIN, ring_ready, ff);
}

static int file_open(struct shard *sh, const char *where, const struct flash_opts *opts,
	struct flash **out, struct err *err)
{
	struct file_flash *ff = calloc(1, sizeof(*ff));
	int rc;

	if (!ff)
		return err_set(err, -ENOMEM, where, NULL, "no memory");
	ff->f.ops = &file_ops;
	ff->f.sh = sh;
	rc = file_hold_open(where, opts, &ff->hold, err);
	if (rc == 0)
		rc = measure(ff, where, opts, err);
	if (rc < 0)
		goto fail;
	choose_direct(ff, where);
	rc = alloc_slots(ff);
	if (rc < 0) {
		err_set(err, rc, where, NULL, "no memory");
		goto fail;
	}
	rc = attach(ff);
	if (rc < 0) {
		err_set(err, rc, where, NULL, "io_uring: %s", strerror(-rc));
		goto fail;
	}
	ff->smart = smart_open(ff->hold.fd);
	*out = &ff->f;
	return 0;
fail:
	file_close(&ff->f);
	return rc;
}

const struct flash_backend flash_backend_file = {.scheme = "file", .open = file_open};
