/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/flash/file_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/base/util.h"

#define LOCK_WAIT_MS  1000 /* a killed owner's last I/O holds the lock until it has drained */
#define LOCK_RETRY_MS 10

/* Keeps other processes from a file of which this one has slices open. A forked child has a copy that is not its own. */
struct file_guard {
	dev_t dev;
	ino_t ino;
	pid_t pid;
	int fd;
	unsigned int users;
	LIST_ENTRY(file_guard) link;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, file_guard) guards = LIST_HEAD_INITIALIZER(guards);
static LIST_HEAD(, file_hold) haunted = LIST_HEAD_INITIALIZER(haunted);

/* Again and again, until it says something else than -EAGAIN or the time is up. */
static int retry(
	int (*try_fn)(struct file_hold *h, const char *path), struct file_hold *h, const char *path)
{
	struct timespec pause = {.tv_nsec = LOCK_RETRY_MS * 1000000L};
	int rc;

	for (int waited = 0; (rc = try_fn(h, path)) == -EAGAIN; waited += LOCK_RETRY_MS) {
		if (waited >= LOCK_WAIT_MS)
			break;
		nanosleep(&pause, NULL);
	}
	return rc;
}

static int locked(int rc, const char *path, struct err *err)
{
	if (rc == -EAGAIN)
		return err_set(err, -EBUSY, path, NULL, "in use by another owner");
	if (rc == -EBUSY)
		return err_set(err, rc, path, NULL, "in use by the system");
	return rc ? err_set(err, rc, path, NULL, "cannot be locked: %s", strerror(-rc)) : 0;
}

/* ---- other processes ---------------------------------------------------------------------------------- */

static int flock_try(int fd)
{
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	return errno == EWOULDBLOCK || errno == EINTR ? -EAGAIN : -errno;
}

static int whole_try(struct file_hold *h, const char *path)
{
	return flock_try(h->fd);
}

static struct file_guard *guard_find(const struct file_hold *h)
{
	struct file_guard *g;

	LIST_FOREACH (g, &guards, link)
		if (g->dev == h->dev && g->ino == h->ino && g->pid == getpid())
			return g;
	return NULL;
}

static int guard_new(struct file_hold *h, const char *path)
{
	struct file_guard *g = calloc(1, sizeof(*g));
	struct stat st;
	int rc;

	if (!g)
		return -ENOMEM;
	/* For reading: when a block device that was open for writing is closed the system looks it over. */
	g->fd = open(path, O_RDONLY | O_CLOEXEC | (h->ino ? 0 : O_EXCL));
	rc = g->fd < 0 || fstat(g->fd, &st) < 0 ? -errno : flock_try(g->fd);
	if (rc == 0 && h->ino && (st.st_dev != h->dev || st.st_ino != h->ino))
		rc = -EAGAIN; /* the path has changed hands since */
	if (rc < 0) {
		if (g->fd >= 0)
			close(g->fd);
		free(g);
		return rc;
	}
	g->dev = h->dev;
	g->ino = h->ino;
	g->pid = getpid();
	g->users = 1;
	LIST_INSERT_HEAD(&guards, g, link);
	h->guard = g;
	return 0;
}

static int guard_try(struct file_hold *h, const char *path)
{
	int rc = 0;

	pthread_mutex_lock(&lock);
	h->guard = guard_find(h);
	if (h->guard)
		h->guard->users++;
	else
		rc = guard_new(h, path);
	pthread_mutex_unlock(&lock);
	return rc;
}

static void guard_put(struct file_guard *g)
{
	pthread_mutex_lock(&lock);
	if (!--g->users) {
		LIST_REMOVE(g, link);
		close(g->fd);
		free(g);
	}
	pthread_mutex_unlock(&lock);
}

/* ---- slices ------------------------------------------------------------------------------------------- */

static int range_try(struct file_hold *h, const char *path)
{
	struct flock range = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (h->slice.count > 1) { /* a whole one: to the end, wherever that comes to be */
		range.l_start = (off_t)slice_base(&h->slice);
		range.l_len = (off_t)slice_bytes(&h->slice, 0);
	}
	if (fcntl(h->fd, F_OFD_SETLK, &range) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES || errno == EINTR ? -EAGAIN : -errno;
}

static int haunted_try(struct file_hold *h, const char *path)
{
	const struct file_hold *o;
	int rc = 0;

	pthread_mutex_lock(&lock);
	LIST_FOREACH (o, &haunted, link)
		if (o->dev == h->dev && o->ino == h->ino && slice_clashes(&o->slice, &h->slice))
			rc = -EAGAIN;
	pthread_mutex_unlock(&lock);
	return rc;
}

/* ---- opening ------------------------------------------------------------------------------------------ */

/* The caller has checked the type; a block device has no inode number here. */
static void identify(struct file_hold *h, const struct stat *st)
{
	h->dev = S_ISBLK(st->st_mode) ? st->st_rdev : st->st_dev;
	h->ino = S_ISBLK(st->st_mode) ? 0 : st->st_ino;
}

int file_geometry(int fd, uint64_t *size_bytes, unsigned int *logical, unsigned int *physical)
{
	struct stat st;
	int block = 512;

	if (fstat(fd, &st) < 0)
		return -errno;
	*size_bytes = (uint64_t)st.st_size;
	if (S_ISBLK(st.st_mode) &&
		(ioctl(fd, BLKGETSIZE64, size_bytes) < 0 || ioctl(fd, BLKSSZGET, &block) < 0 ||
			ioctl(fd, BLKPBSZGET, physical) < 0))
		return -errno;
	*logical = (unsigned int)block;
	return 0;
}

static int settle(struct file_hold *h, const char *path, struct err *err)
{
	unsigned int logical, physical;
	uint64_t size;
	int rc = file_geometry(h->fd, &size, &logical, &physical);

	return rc < 0 ? err_set(err, rc, path, NULL, "%s", strerror(-rc))
		      : slice_settle(&h->slice, path, size, err);
}

static int hold(
	struct file_hold *h, const char *path, const struct flash_opts *opts, struct err *err)
{
	bool whole = h->slice.count == 1;
	int rc = 0, flags = O_RDWR | O_CLOEXEC;

	if (opts->exclusive && !whole)
		rc = locked(retry(guard_try, h, path), path, err);
	if (rc < 0)
		return rc;
	if (opts->exclusive && whole && !h->ino)
		flags |= O_EXCL; /* nor may the system have it mounted */
	h->fd = open(path, flags);
	if (h->fd < 0)
		return err_set(err, -errno, path, NULL, "%s",
			errno == EBUSY ? "in use by the system" : strerror(errno));
	rc = settle(h, path, err);
	if (rc == 0 && opts->exclusive && whole)
		rc = locked(retry(whole_try, h, path), path, err);
	if (rc == 0 && opts->exclusive)
		rc = locked(retry(range_try, h, path), path, err);
	return rc;
}

int file_hold_open(
	const char *path, const struct flash_opts *opts, struct file_hold *h, struct err *err)
{
	struct stat st;
	int rc;

	*h = (struct file_hold){.fd = -1, .slice = slice_of(opts)};
	if (stat(path, &st) < 0)
		return err_set(err, -errno, path, NULL, "%s", strerror(errno));
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return err_set(
			err, -EINVAL, path, NULL, "neither a regular file nor a block device");
	identify(h, &st);
	if (retry(haunted_try, h, path) < 0)
		return err_set(err, -EBUSY, path, NULL,
			"hung when it was last used, and I/O of that time has not ended yet: "
			"try again when the device answers, or has been taken off the system");
	rc = hold(h, path, opts, err);
	if (rc < 0)
		file_hold_close(h);
	return rc;
}

void file_hold_haunt(struct file_hold *h)
{
	pthread_mutex_lock(&lock);
	h->closed = true;
	LIST_INSERT_HEAD(&haunted, h, link);
	pthread_mutex_unlock(&lock);
}

void file_hold_close(struct file_hold *h)
{
	if (h->closed) {
		pthread_mutex_lock(&lock);
		LIST_REMOVE(h, link);
		pthread_mutex_unlock(&lock);
	}
	if (h->fd >= 0)
		close(h->fd);
	if (h->guard)
		guard_put(h->guard);
	*h = (struct file_hold){.fd = -1};
}
