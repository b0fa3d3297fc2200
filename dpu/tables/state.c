/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/tables/state.h"

#include "common/base/endian.h"
#include "common/base/util.h"
#include "dpu/core/crc32c.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define FORMAT_VERSION 1
#define NAME_MAX_BYTES 64

struct header {
	uint8_t magic[8];
	le32 version;
	le32 reserved;
	le64 body_bytes;
	le32 body_crc;
	le32 header_crc;
};
_Static_assert(sizeof(struct header) == 32, "state header");
static const uint8_t magic[8] = {'P', 'R', 'P', 'T', 'S', 'T', 'A', 'T'};

struct state_dir {
	int dir_fd, lock_fd;
	char path[256];
};

static int fail(const struct state_dir *s, struct err *e, const char *name, const char *what)
{
	int rc = -errno;
	char object[96];

	snprintf(object, sizeof(object), "state %.80s", name);
	return err_set(e, rc, object, NULL, "%s in %s: %s", what, s->path, strerror(-rc));
}

int state_open(const char *path, struct state_dir **out, struct err *e)
{
	struct state_dir *s = calloc(1, sizeof(*s));
	int rc;

	if (!s)
		return err_set(e, -ENOMEM, "state directory", NULL, "out of memory");
	s->dir_fd = s->lock_fd = -1;
	if (snprintf(s->path, sizeof(s->path), "%s", path) >= (int)sizeof(s->path)) {
		rc = err_set(e, -ENAMETOOLONG, "state directory", "path", "at most %zu bytes",
			sizeof(s->path) - 1);
		goto out;
	}
	if (mkdir(path, 0700) < 0 && errno != EEXIST) {
		rc = fail(s, e, "directory", "mkdir");
		goto out;
	}
	s->dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir_fd < 0) {
		rc = fail(s, e, "directory", "open");
		goto out;
	}
	s->lock_fd = openat(s->dir_fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock_fd < 0) {
		rc = fail(s, e, "lock", "open");
		goto out;
	}
	if (flock(s->lock_fd, LOCK_EX | LOCK_NB) < 0) {
		rc = errno == EWOULDBLOCK ? err_set(e, -EBUSY, "state directory", "path",
						    "%s is in use by another parapet-dpu", path)
					  : fail(s, e, "lock", "flock");
		goto out;
	}
	*out = s;
	return 0;
out:
	state_close(s);
	return rc;
}

void state_close(struct state_dir *s)
{
	if (!s)
		return;
	if (s->lock_fd >= 0)
		close(s->lock_fd);
	if (s->dir_fd >= 0)
		close(s->dir_fd);
	free(s);
}

static int write_all(int fd, const void *p, size_t n)
{
	while (n) {
		ssize_t w = write(fd, p, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0)
			return -1;
		p = (const uint8_t *)p + w;
		n -= (size_t)w;
	}
	return 0;
}

int state_save(
	struct state_dir *s, const char *name, const void *body, size_t len_bytes, struct err *e)
{
	struct header h = {.version = to_le32(FORMAT_VERSION)};
	char temp[NAME_MAX_BYTES + 8];
	int fd, rc = 0;

	if (len_bytes > STATE_BODY_MAX || strlen(name) >= NAME_MAX_BYTES) {
		errno = EMSGSIZE;
		return fail(s, e, name, "save");
	}
	memcpy(h.magic, magic, sizeof(magic));
	h.body_bytes = to_le64(len_bytes);
	h.body_crc = to_le32(crc32c(body, len_bytes));
	h.header_crc = to_le32(crc32c(&h, offsetof(struct header, header_crc)));
	snprintf(temp, sizeof(temp), "%s.new", name);
	fd = openat(s->dir_fd, temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return fail(s, e, name, "create");
	if (write_all(fd, &h, sizeof(h)) < 0 || write_all(fd, body, len_bytes) < 0 || fsync(fd) < 0)
		rc = fail(s, e, name, "write");
	if (close(fd) < 0 && rc == 0)
		rc = fail(s, e, name, "close");
	if (rc == 0 && renameat(s->dir_fd, temp, s->dir_fd, name) < 0)
		rc = fail(s, e, name, "rename");
	if (rc < 0) {
		unlinkat(s->dir_fd, temp, 0);
		return rc;
	}
	return fsync(s->dir_fd) < 0 ? fail(s, e, name, "flush the directory") : 0;
}

static int read_all(int fd, void *p, size_t n)
{
	while (n) {
		ssize_t r = read(fd, p, n);

		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0) {
			errno = r == 0 ? EUCLEAN : errno;
			return -1;
		}
		p = (uint8_t *)p + r;
		n -= (size_t)r;
	}
	return 0;
}

/* 0, -EUCLEAN (not what was written), -EPROTONOSUPPORT. */
static int check_header(const struct header *h, off_t file_bytes)
{
	if (memcmp(h->magic, magic, sizeof(magic)) ||
		from_le32(h->header_crc) != crc32c(h, offsetof(struct header, header_crc)))
		return -EUCLEAN;
	if (from_le32(h->version) > FORMAT_VERSION)
		return -EPROTONOSUPPORT;
	if (from_le32(h->version) != FORMAT_VERSION || from_le32(h->reserved) != 0 ||
		from_le64(h->body_bytes) > STATE_BODY_MAX ||
		from_le64(h->body_bytes) + sizeof(*h) != (uint64_t)file_bytes)
		return -EUCLEAN;
	return 0;
}

static int load_body(int fd, void **body, size_t *len_bytes)
{
	struct header h;
	struct stat st;
	uint8_t *p;
	int rc;

	if (fstat(fd, &st) < 0 || read_all(fd, &h, sizeof(h)) < 0)
		return -errno;
	rc = check_header(&h, st.st_size);
	if (rc < 0)
		return rc;
	*len_bytes = from_le64(h.body_bytes);
	p = malloc(*len_bytes + 1);
	if (!p)
		return -ENOMEM;
	if (read_all(fd, p, *len_bytes) < 0)
		rc = -errno;
	else if (crc32c(p, *len_bytes) != from_le32(h.body_crc))
		rc = -EUCLEAN;
	if (rc < 0) {
		free(p);
		return rc;
	}
	*body = p;
	return 0;
}

int state_load(struct state_dir *s, const char *name, void **body, size_t *len_bytes, struct err *e)
{
	char aside[NAME_MAX_BYTES + 16];
	autoclose int fd = openat(s->dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	int rc;

	if (fd < 0)
		return fail(s, e, name, "open");
	rc = load_body(fd, body, len_bytes);
	if (rc == -EUCLEAN) {
		snprintf(aside, sizeof(aside), "%.*s.damaged", NAME_MAX_BYTES, name);
		renameat(s->dir_fd, name, s->dir_fd, aside);
		return err_set(e, rc, "state", name, "damaged; set aside as %s/%s", s->path, aside);
	}
	if (rc == -EPROTONOSUPPORT)
		return err_set(e, rc, "state", name, "%s/%s was written by a newer version",
			s->path, name);
	errno = -rc;
	return rc < 0 ? fail(s, e, name, "read") : 0;
}

int state_remove(struct state_dir *s, const char *name, struct err *e)
{
	if (unlinkat(s->dir_fd, name, 0) < 0 && errno != ENOENT)
		return fail(s, e, name, "remove");
	return fsync(s->dir_fd) < 0 ? fail(s, e, name, "flush the directory") : 0;
}
