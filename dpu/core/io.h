/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One request of a VM on its way through the floors, and the statuses it may end with.
 *
 * Contract everywhere: a submit function returns 0 and done_fn(req) runs exactly once, later, on the same thread,
 * with req->status set; or it returns -errno and done_fn never runs. It never runs inside submit.
 * Ownership: the submitter owns the io_req and its buffers and keeps both unchanged until done_fn, except that a VM may
 * write to guest memory at any time (stable = false): then the payload is read exactly once.
 */
#ifndef DPU_CORE_IO_H
#define DPU_CORE_IO_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>
#include <sys/uio.h>

#define IO_BLOCK_BYTES 4096u /* the unit of the map */

enum io_op { IO_READ, IO_WRITE, IO_FLUSH, IO_WRITE_ZEROES, IO_TRIM };

enum io_flag {
	IO_FUA = 1 << 0, /* write: durable before it completes */
	IO_DEALLOC = 1 << 1, /* write zeroes: space may be freed */
	IO_BACKGROUND =
		1 << 2, /* not a VM's: does not count as foreground, nor in the volume's numbers */
};

enum io_status {
	IO_OK = 0,
	IO_ERR_INVALID, /* the request itself is wrong */
	IO_ERR_RANGE, /* beyond the end of the volume */
	IO_ERR_NO_SPACE, /* refused before anything was written */
	IO_ERR_MEDIA, /* the data cannot be read back, or was not written: this block, for good */
	IO_ERR_RETRY, /* not now (degraded pool with on-degraded = refuse, shutting down): retry later */
	IO_ERR_ABORTED,
	IO_ERR_INTERNAL,
	IO_STATUS_COUNT
};
const char *io_status_name(enum io_status s); /* "ok", "media-error", ... */
/* For control work that waits: 0, -ENOSPC, -EROFS (may be tried again), else -EIO. */
int io_status_errno(enum io_status s);
const char *io_op_name(enum io_op op);

static inline uint64_t io_iov_bytes(const struct iovec *iov, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		sum += iov[i].iov_len;
	return sum;
}

/* What the EC-usage table says of a write (table 204): values equal those of enum policy_outcome. */
enum io_outcome { IO_PLAIN, IO_INTERMEDIATE, IO_PROTECT };

struct volume;

struct io_req {
	enum io_op op;
	uint32_t flags;
	uint32_t vm; /* from the port or socket it arrived on, never from payload */
	struct volume *vol;
	uint64_t off_bytes; /* multiples of the volume's logical block */
	uint64_t len_bytes; /* 0 for flush */
	const struct iovec *iov; /* read, write: sums to len_bytes. Any alignment */
	int niov;
	bool stable; /* nobody but us can change the bytes until done_fn */
	enum io_outcome outcome; /* write: set by pipeline/analyze before the volume sees it */
	void (*done_fn)(struct io_req *req);
	void *arg;
	enum io_status status;
	uint64_t start_ns;
	TAILQ_ENTRY(io_req) link; /* for whoever holds the request at the moment */
};

#endif
