/* SPDX-License-Identifier: BSD-3-Clause */
/* Requests of virtio-blk (virtio 1.1, 5.2.6): from a buffer to an io_req, and back to its status byte. */
#include "dpu/frontend/vhost_blk/vhost_blk_priv.h"

#include "common/base/util.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <linux/virtio_blk.h>

static void finish(struct vb_slot *s, uint8_t status)
{
	struct vhost_blk_vm_stats *st = &s->q->disk->vm->stats;

	st->failed += status == VIRTIO_BLK_S_IOERR;
	st->unsupported += status == VIRTIO_BLK_S_UNSUPP;
	*(volatile uint8_t *)s->status = status;
	vb_queue_put(s, status == VIRTIO_BLK_S_OK ? s->written : 1);
}

/* ---- pieces of the buffer -------------------------------------------------------------------------------------- */

/* Takes len bytes off the front; they are there. */
static void take_front(struct iovec *iov, uint16_t *first, uint16_t n, void *to, size_t len)
{
	uint8_t *out = to;

	while (len && *first < n) {
		size_t piece = MIN(len, iov[*first].iov_len);

		memcpy(out, iov[*first].iov_base, piece);
		iov[*first].iov_base = (uint8_t *)iov[*first].iov_base + piece;
		iov[*first].iov_len -= piece;
		if (!iov[*first].iov_len)
			(*first)++;
		out += piece;
		len -= piece;
	}
	/* One read of the VM's memory: what was copied is what is checked and used. */
	__asm__ volatile("" : : : "memory");
}

static void scatter(const struct iovec *iov, uint16_t n, const uint8_t *from, size_t len)
{
	for (uint16_t i = 0; i < n && len; i++) {
		size_t piece = MIN(len, iov[i].iov_len);

		memcpy(iov[i].iov_base, from, piece);
		from += piece;
		len -= piece;
	}
}

/* ---- on their way ------------------------------------------------------------------------------------------------- */

static void done(struct io_req *req);

static void prepare(
	struct vb_slot *s, enum io_op op, uint64_t off_bytes, uint64_t len_bytes, uint32_t flags)
{
	const struct vb_disk *d = s->q->disk;

	s->req = (struct io_req){
		.op = op,
		.flags = flags,
		.vm = d->vm->vm,
		.vol = d->cfg.vol,
		.off_bytes = off_bytes,
		.len_bytes = len_bytes,
		.stable = false, /* the VM may change it at any time */
		.done_fn = done,
		.arg = s,
		.start_ns = shard_now_ns(d->vm->vb->sh),
	};
}

bool vb_request_submit(struct vb_slot *s)
{
	struct vhost_blk *vb = s->q->disk->vm->vb;
	int rc = vb->cfg.submit_fn(vb->cfg.arg, &s->req);

	if (rc == -EAGAIN)
		return false;
	if (rc < 0)
		finish(s, VIRTIO_BLK_S_IOERR);
	return true;
}

static void submit(struct vb_slot *s)
{
	struct vb_queue *q = s->q;

	if (TAILQ_EMPTY(&q->waiting) && vb_request_submit(s))
		return;
	q->disk->vm->stats.backend_waits++;
	TAILQ_INSERT_TAIL(&q->waiting, s, link);
}

static void next_range(struct vb_slot *s)
{
	const struct vb_range *r = &s->ranges[s->range++];

	prepare(s, s->req.op, r->off_bytes, r->len_bytes, r->flags);
	submit(s);
}

static void done(struct io_req *req)
{
	struct vb_slot *s = req->arg;
	struct vhost_blk_vm_stats *st = &s->q->disk->vm->stats;

	if (req->status != IO_OK) {
		finish(s, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (s->range < s->nranges) {
		next_range(s);
		return;
	}
	switch (req->op) {
	case IO_READ:
		st->reads++;
		st->read_bytes += req->len_bytes;
		break;
	case IO_WRITE:
		st->writes++;
		st->write_bytes += req->len_bytes;
		break;
	case IO_FLUSH:
		st->flushes++;
		break;
	case IO_WRITE_ZEROES:
		st->write_zeroes++;
		break;
	case IO_TRIM:
		st->discards++;
		break;
	}
	finish(s, VIRTIO_BLK_S_OK);
}

/* ---- kinds of requests ------------------------------------------------------------------------------------------------ */

/* sector and length as a byte range of the disk, in whole blocks. */
static bool byte_range(const struct vb_disk *d, uint64_t sector, uint64_t len, uint64_t *off)
{
	uint64_t sectors = d->cfg.size_bytes / VB_SECTOR;

	if (sector > sectors || len / VB_SECTOR > sectors - sector)
		return false;
	*off = sector * VB_SECTOR;
	return ((*off | len) & (d->cfg.block_bytes - 1)) == 0;
}

static void read_write(struct vb_slot *s, enum io_op op, uint64_t sector, struct iovec *iov,
	uint16_t niov, uint64_t len)
{
	const struct vb_disk *d = s->q->disk;
	uint64_t off;

	if (!len || len > VB_DATA_BYTES_MAX || !byte_range(d, sector, len, &off) ||
		(op == IO_WRITE && d->cfg.read_only)) {
		finish(s, VIRTIO_BLK_S_IOERR);
		return;
	}
	prepare(s, op, off, len, 0);
	s->req.iov = iov;
	s->req.niov = niov;
	s->written = op == IO_READ ? (uint32_t)len + 1 : 1;
	submit(s);
}

static uint8_t take_range(struct vb_slot *s, bool zeroes, struct iovec *iov, uint16_t *first,
	uint16_t n, struct vb_range *out)
{
	struct virtio_blk_discard_write_zeroes r;
	const struct vb_disk *d = s->q->disk;
	uint32_t sectors, flags;

	take_front(iov, first, n, &r, sizeof(r));
	sectors = le32toh(r.num_sectors);
	flags = le32toh(r.flags);
	if (flags & ~(zeroes ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0u))
		return VIRTIO_BLK_S_UNSUPP;
	out->len_bytes = (uint64_t)sectors * VB_SECTOR;
	out->flags = flags ? IO_DEALLOC : 0;
	if (sectors > VB_RANGE_SECTORS_MAX ||
		!byte_range(d, le64toh(r.sector), out->len_bytes, &out->off_bytes))
		return VIRTIO_BLK_S_IOERR;
	return VIRTIO_BLK_S_OK;
}

/* Discard and write zeroes: all ranges are checked before the first is begun. */
static void ranges(struct vb_slot *s, enum io_op op, struct iovec *iov, uint16_t n, uint64_t len)
{
	uint64_t count = len / sizeof(struct virtio_blk_discard_write_zeroes);
	uint16_t first = 0;

	if (!count || count > VB_RANGES_MAX ||
		len % sizeof(struct virtio_blk_discard_write_zeroes) || s->q->disk->cfg.read_only) {
		finish(s, VIRTIO_BLK_S_IOERR);
		return;
	}
	for (uint64_t i = 0; i < count; i++) {
		struct vb_range *r = &s->ranges[s->nranges];
		uint8_t st = take_range(s, op == IO_WRITE_ZEROES, iov, &first, n, r);

		if (st != VIRTIO_BLK_S_OK) {
			finish(s, st);
			return;
		}
		s->nranges += r->len_bytes != 0;
	}
	if (!s->nranges) {
		finish(s, VIRTIO_BLK_S_OK);
		return;
	}
	s->req.op = op;
	next_range(s);
}

static void get_id(struct vb_slot *s, const struct iovec *iov, uint16_t n, uint64_t len)
{
	struct vb_disk *d = s->q->disk;
	uint32_t bytes = (uint32_t)MIN(len, (uint64_t)VHOST_BLK_ID_BYTES);

	scatter(iov, n, (const uint8_t *)d->cfg.id, bytes);
	d->vm->stats.ids++;
	s->written = bytes + 1;
	finish(s, VIRTIO_BLK_S_OK);
}

enum vb_fault vb_request_begin(struct vb_slot *s, const struct vb_chain *c)
{
	struct iovec *in = c->iov + c->nout;
	uint16_t out_first = 0, nin = c->nin;
	struct virtio_blk_outhdr h;
	uint64_t sector;

	if (c->out_bytes < sizeof(h) || !c->in_bytes)
		return VB_FAULT_HEADER;
	s->written = 1;
	s->range = s->nranges = 0;
	take_front(c->iov, &out_first, c->nout, &h, sizeof(h));
	s->status = (uint8_t *)in[nin - 1].iov_base + in[nin - 1].iov_len - 1;
	if (--in[nin - 1].iov_len == 0)
		nin--;
	sector = le64toh(h.sector);
	s->q->disk->requests++;
	switch (le32toh(h.type)) {
	case VIRTIO_BLK_T_IN:
		read_write(s, IO_READ, sector, in, nin, c->in_bytes - 1);
		break;
	case VIRTIO_BLK_T_OUT:
		read_write(s, IO_WRITE, sector, c->iov + out_first, (uint16_t)(c->nout - out_first),
			c->out_bytes - sizeof(h));
		break;
	case VIRTIO_BLK_T_FLUSH:
		prepare(s, IO_FLUSH, 0, 0, 0);
		submit(s);
		break;
	case VIRTIO_BLK_T_DISCARD:
		ranges(s, IO_TRIM, c->iov + out_first, (uint16_t)(c->nout - out_first),
			c->out_bytes - sizeof(h));
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		ranges(s, IO_WRITE_ZEROES, c->iov + out_first, (uint16_t)(c->nout - out_first),
			c->out_bytes - sizeof(h));
		break;
	case VIRTIO_BLK_T_GET_ID:
		get_id(s, in, nin, c->in_bytes - 1);
		break;
	default:
		finish(s, VIRTIO_BLK_S_UNSUPP);
		break;
	}
	return VB_FAULT_NONE;
}
