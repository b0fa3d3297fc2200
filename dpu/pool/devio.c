/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/pool/devio.h"

#include <errno.h>

#include "dpu/pool/health.h"
#include "dpu/pool/pool_priv.h"

#define DEVIO_TRIES   4u
#define RETRY_NS      10000000ull /* after a transient error */
#define QUEUE_FULL_NS 100000ull

static void submit(struct devio *d);

static void finish(void *arg)
{
	struct devio *d = arg;

	d->p->ios--;
	d->done_fn(d, d->status);
}

static void submit_again(void *arg)
{
	submit(arg);
}

static void finish_later(struct devio *d, int status)
{
	d->status = status;
	shard_defer(d->p->sh, &d->task, finish, d);
}

static void try_later(struct devio *d, uint64_t ns)
{
	if (timer_arm(d->p->sh, &d->timer, shard_now_ns(d->p->sh) + ns, submit_again, d) < 0)
		finish_later(d, -EIO);
}

static void io_done(struct flash_io *io)
{
	struct devio *d = io->arg;

	switch (io->status) {
	case FLASH_OK:
		d->status = 0;
		break;
	case FLASH_ERR_GONE:
		pool_dev_fail(d->p, d->dev);
		d->status = -ENODEV;
		break;
	case FLASH_ERR_FENCED:
		d->status = -ESTALE;
		break;
	case FLASH_ERR_TRANSIENT:
		if (++d->tries < DEVIO_TRIES) {
			try_later(d, RETRY_NS);
			return;
		}
		/* fallthrough */
	default:
		if (d->io.op == FLASH_WRITE)
			pool_dev_write_failed(d->p, d->dev);
		d->status = -EIO;
		break;
	}
	finish(d);
}

static void submit(struct devio *d)
{
	int rc = -ENODEV;

	/* It may have failed while this waited. */
	if (pool_dev_usable(d->p, d->dev))
		rc = flash_submit(d->p->devs[d->dev].flash, &d->io);
	if (rc == -EAGAIN)
		try_later(d, QUEUE_FULL_NS);
	else if (rc < 0)
		finish_later(d, rc == -ENODEV ? rc : -EIO);
}

void devio_start(struct pool *p, struct devio *d, unsigned int dev, enum flash_op op, uint64_t off,
	void *buf, uint64_t len)
{
	d->p = p;
	d->dev = dev;
	d->tries = 0;
	d->iov = (struct iovec){.iov_base = buf, .iov_len = len};
	d->io.op = op;
	d->io.off = off;
	d->io.len = len;
	d->io.iov = op == FLASH_FLUSH ? NULL : &d->iov;
	d->io.niov = op == FLASH_FLUSH ? 0 : 1;
	d->io.checked = true; /* superblocks, roots and chunks have CRCs */
	d->io.done_fn = io_done;
	d->io.arg = d;
	p->ios++;
	submit(d);
}
