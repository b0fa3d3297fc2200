/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/nvmf/dev_priv.h"
#include "dpu/nvmf/nvmf_priv.h"

#define TRIES_MAX 5 /* after answers that say it may work later */
#define PATH_TRIES_MAX \
	16 /* after answers that say it may work on another path, or after a change */
#define RETRY_MS   10 /* the first time, then twice as long each time */
#define FULL_MS    1
#define SC_TYPE(s) ((s) >> 8 & 7)
#define SCT_MEDIA  2
#define SCT_PATH   3

/* ---- where an I/O is --------------------------------------------------------------------------------------- */

void dev_push(struct nvmf_dev *d)
{
	shard_defer(d->sh, &d->task, dev_run, d);
}

static void end(struct nvmf_dev_io *io, enum nvmf_dev_result result)
{
	struct nvmf_dev *d = io->dev;

	io->result = result;
	TAILQ_INSERT_TAIL(&d->done, io, link);
	dev_push(d);
}

static void wait_for_path(struct nvmf_dev_io *io)
{
	struct nvmf_dev *d = io->dev;

	if (d->gone) {
		end(io, NVMF_DEV_GONE);
		return;
	}
	TAILQ_INSERT_TAIL(&d->waiting, io, link);
	dev_push(d);
}

static void hold_over(void *arg)
{
	dev_run(arg);
}

/* Without memory for a timer those held are looked at whenever something ends. */
static void hold_timer(struct nvmf_dev *d, uint64_t at_ns)
{
	if (!d->hold_timer.heap_pos || at_ns < d->hold_timer.deadline_ns)
		(void)timer_arm(d->sh, &d->hold_timer, at_ns, hold_over, d);
}

static void hold(struct nvmf_dev_io *io, uint64_t until_ns)
{
	struct nvmf_dev *d = io->dev;

	io->hold_ns = until_ns;
	TAILQ_INSERT_TAIL(&d->held, io, link);
	hold_timer(d, until_ns);
}

static void release_held(struct nvmf_dev *d)
{
	uint64_t now = shard_now_ns(d->sh), next = UINT64_MAX;
	struct nvmf_dev_io *io, *after;

	for (io = TAILQ_FIRST(&d->held); io; io = after) {
		after = TAILQ_NEXT(io, link);
		if (io->hold_ns > now) {
			next = MIN(next, io->hold_ns);
			continue;
		}
		TAILQ_REMOVE(&d->held, io, link);
		TAILQ_INSERT_TAIL(&d->waiting, io, link);
	}
	if (next != UINT64_MAX)
		hold_timer(d, next);
}

void dev_end_waiting(struct nvmf_dev *d, enum nvmf_dev_result result)
{
	struct nvmf_dev_io *io;

	TAILQ_CONCAT(&d->waiting, &d->held, link);
	while ((io = TAILQ_FIRST(&d->waiting))) {
		TAILQ_REMOVE(&d->waiting, io, link);
		end(io, result);
	}
}

void dev_tell(struct nvmf_dev *d)
{
	struct nvmf_dev_io *io;

	while ((io = TAILQ_FIRST(&d->done))) {
		bool last = --d->in_flight == 0;

		TAILQ_REMOVE(&d->done, io, link);
		io->done_fn(io);
		if (last)
			return;
	}
}

/* ---- the target's cache -------------------------------------------------------------------------------------- */

static void note_written(struct nvmf_dev *d)
{
	d->wrote_seq++;
	if (d->info.volatile_cache && !d->dirty_seq)
		d->dirty_seq = d->wrote_seq;
}

static void note_flushed(struct nvmf_dev *d, const struct nvmf_dev_io *io)
{
	if (d->wrote_seq <= io->seq)
		d->dirty_seq = 0;
	else if (d->dirty_seq)
		d->dirty_seq = MAX(d->dirty_seq, io->seq + 1);
}

/* A flush over this path is of the cache that the oldest unflushed write went into: the target has not restarted since (dev.h, Caches). */
static bool covers_cache(const struct nvmf_dev *d, const struct path *p)
{
	return !d->dirty_seq || p->up_seq < d->dirty_seq;
}

/* ---- sending --------------------------------------------------------------------------------------------------- */

static bool is_better(const struct path *p, const struct path *than, const struct nvmf_dev_io *io)
{
	const struct path *last = io->tries ? &p->d->paths[io->path] : NULL;

	if (!than || p->state != than->state)
		return !than || p->state < than->state;
	if (than == last || p == last)
		return than == last;
	return p->in_flight < than->in_flight;
}

/* -ENOTCONN: there is none; -ESTALE: none that a flush would prove anything on. */
static int pick_path(struct nvmf_dev *d, const struct nvmf_dev_io *io, struct path **out)
{
	int rc = -ENOTCONN;

	*out = NULL;
	for (unsigned int i = 0; i < d->npaths; i++) {
		struct path *p = &d->paths[i];

		if (!path_is_usable(p))
			continue;
		rc = -ESTALE;
		if (io->op == NVMF_DEV_FLUSH && (d->cache_lost || !covers_cache(d, p)))
			continue;
		if (is_better(p, *out, io))
			*out = p;
	}
	return *out ? 0 : rc;
}

static void cmd_done(struct nvmf_io *cmd);

static void cmd_fill(struct nvmf_dev *d, struct nvmf_dev_io *io)
{
	struct nvmf_io *cmd = &io->cmd;

	cmd->iov = NULL;
	cmd->niov = 0;
	switch (io->op) {
	case NVMF_DEV_READ:
	case NVMF_DEV_WRITE:
		nvmf_io_rw(cmd, io->op == NVMF_DEV_READ ? NVME_CMD_READ : NVME_CMD_WRITE, d->nsid,
			io->lba, io->nblocks, 0);
		cmd->iov = io->iov;
		cmd->niov = io->niov;
		break;
	case NVMF_DEV_FLUSH:
		nvmf_io_flush(cmd, d->nsid);
		break;
	case NVMF_DEV_WRITE_ZEROES:
		nvmf_io_rw(cmd, NVME_CMD_WRITE_ZEROES, d->nsid, io->lba, io->nblocks,
			d->deac ? NVME_RW_DEAC : 0);
		break;
	case NVMF_DEV_DISCARD:
		nvmf_io_trim(cmd, d->nsid, io->lba, io->nblocks);
		break;
	}
	cmd->timeout_ms = d->io_timeout_ms;
	cmd->done_fn = cmd_done;
	cmd->arg = io;
}

static int send(struct nvmf_dev *d, struct nvmf_dev_io *io)
{
	struct path *p;
	uint16_t n;
	int rc = pick_path(d, io, &p);

	if (rc < 0)
		return rc;
	cmd_fill(d, io);
	n = nvmf_nqueues(p->n);
	rc = -EAGAIN;
	for (uint16_t i = 0; i < n && rc == -EAGAIN; i++) {
		p->next_queue = (uint16_t)((p->next_queue + 1) % n);
		rc = nvmf_submit(nvmf_queue(p->n, 1 + p->next_queue), &io->cmd);
	}
	if (rc == 0) {
		io->path = (int)(p - d->paths);
		p->in_flight++;
	}
	return rc;
}

static bool is_anything_sent(const struct nvmf_dev *d)
{
	for (unsigned int i = 0; i < d->npaths; i++)
		if (d->paths[i].in_flight)
			return true;
	return false;
}

static void cache_lost(struct nvmf_dev *d)
{
	if (d->cache_lost)
		return;
	d->cache_lost = true;
	log_warn("nvmf: %s: it was away for so long since its last flush that it may have "
		 "restarted: what was in its cache may be gone",
		d->name);
}

/* A submission that failed: true when it can only be tried again. */
static bool send_failed(struct nvmf_dev *d, struct nvmf_dev_io *io, int rc)
{
	if (rc == -ENOTCONN)
		return true;
	if (rc == -EAGAIN) {
		/* Its completions bring us back; but it may be short of something else. */
		if (!is_anything_sent(d))
			hold_timer(d, shard_now_ns(d->sh) + FULL_MS * DEV_NS_PER_MS);
		return true;
	}
	if (rc == -ESTALE)
		cache_lost(d);
	return false;
}

static void send_waiting(struct nvmf_dev *d)
{
	struct nvmf_dev_io *io;

	while ((io = TAILQ_FIRST(&d->waiting))) {
		int rc = send(d, io);

		if (rc < 0 && send_failed(d, io, rc))
			return;
		TAILQ_REMOVE(&d->waiting, io, link);
		/* Others than these: a path that came back takes less at once. Its owner cuts it anew. */
		if (rc < 0)
			end(io, rc == -ESTALE ? NVMF_DEV_GONE : NVMF_DEV_TRANSIENT);
	}
}

void dev_run(void *arg)
{
	struct nvmf_dev *d = arg;

	release_held(d);
	send_waiting(d);
	dev_tell(d);
}

/* ---- when a command has ended ---------------------------------------------------------------------------------- */

static void try_later(struct nvmf_dev_io *io)
{
	struct nvmf_dev *d = io->dev;

	if (++io->tries > TRIES_MAX)
		end(io, NVMF_DEV_TRANSIENT);
	else
		hold(io, shard_now_ns(d->sh) + (RETRY_MS * DEV_NS_PER_MS << (io->tries - 1)));
}

/* Elsewhere at once; the third time and later not before things have had time to change. */
static void try_other_path(struct nvmf_dev_io *io)
{
	struct nvmf_dev *d = io->dev;

	if (++io->tries > PATH_TRIES_MAX)
		end(io, NVMF_DEV_TRANSIENT);
	else if (io->tries > 2)
		hold(io, shard_now_ns(d->sh) + RETRY_MS * DEV_NS_PER_MS * io->tries);
	else
		wait_for_path(io);
}

/* The connection is lost, and the target may still carry the command out. */
static void unanswered(struct nvmf_dev *d, struct path *p, struct nvmf_dev_io *io)
{
	uint64_t until = shard_now_ns(d->sh) + nvmf_quiet_after_loss_ns(p->n);

	if (dev_io_writes(io))
		ghost_add(d, io, until);
	if (d->abandoned)
		end(io, NVMF_DEV_GONE);
	else if (io->op == NVMF_DEV_DISCARD)
		end(io, NVMF_DEV_OK);
	else if (io->op == NVMF_DEV_READ && io->cmd.err == -EBADMSG)
		try_later(io); /* it was answered, but not in full */
	else if (dev_io_writes(io) && !io->repeatable)
		hold(io, until);
	else
		wait_for_path(io);
}

void dev_fenced(struct nvmf_dev *d)
{
	if (d->fenced)
		return;
	d->fenced = true;
	log_warn("nvmf: %s: another host holds the reservation", d->name);
	if (d->ev && d->ev->fenced_fn)
		d->ev->fenced_fn(d, d->arg);
}

static bool is_permanent(uint16_t status)
{
	switch (NVME_SC_CODE(status)) {
	case NVME_SC_LBA_RANGE:
	case NVME_SC_CAP_EXCEEDED:
	case NVME_SC_NS_WRITE_PROTECTED:
		return true;
	default:
		return SC_TYPE(status) == SCT_MEDIA || status & NVME_SC_DNR;
	}
}

static void refused(struct nvmf_dev *d, struct path *p, struct nvmf_dev_io *io)
{
	uint16_t status = io->cmd.status;

	if (NVME_SC_CODE(status) == NVME_SC_RESERVATION_CONFLICT) {
		dev_fenced(d);
		end(io, NVMF_DEV_FENCED);
	} else if (NVME_SC_CODE(status) == NVME_SC_INVALID_NS) {
		path_missing(p);
		try_other_path(io);
	} else if (SC_TYPE(status) == SCT_PATH) {
		path_blocked(p, status);
		try_other_path(io);
	} else if (io->op == NVMF_DEV_DISCARD) {
		end(io, NVMF_DEV_OK);
	} else if (is_permanent(status)) {
		end(io, NVMF_DEV_MEDIA);
	} else {
		try_later(io);
	}
}

static void cmd_done(struct nvmf_io *cmd)
{
	struct nvmf_dev_io *io = cmd->arg;
	struct nvmf_dev *d = io->dev;
	struct path *p = &d->paths[io->path];

	p->in_flight--;
	if (cmd->err) {
		unanswered(d, p, io);
	} else if (NVME_SC_CODE(cmd->status)) {
		refused(d, p, io);
	} else {
		if (io->op == NVMF_DEV_WRITE || io->op == NVMF_DEV_WRITE_ZEROES)
			note_written(d);
		else if (io->op == NVMF_DEV_FLUSH)
			note_flushed(d, io);
		end(io, NVMF_DEV_OK);
	}
}

/* ---- submission -------------------------------------------------------------------------------------------------- */

static bool memory_is_good(const struct nvmf_dev *d, const struct nvmf_dev_io *io)
{
	uint64_t left = (uint64_t)io->nblocks * d->info.block_bytes;

	if (io->niov < 1 || (uint32_t)io->niov > d->info.max_pieces)
		return false;
	for (int i = 0; i < io->niov; i++) {
		if (io->iov[i].iov_len > left)
			return false;
		left -= io->iov[i].iov_len;
	}
	return left == 0;
}

static bool io_is_good(const struct nvmf_dev *d, const struct nvmf_dev_io *io)
{
	if (!io->done_fn || !d->info.nblocks)
		return false;
	if (io->op == NVMF_DEV_FLUSH)
		return !io->nblocks && !io->niov;
	if (!io->nblocks || io->nblocks > d->info.max_blocks || io->lba > d->info.nblocks ||
		io->nblocks > d->info.nblocks - io->lba)
		return false;
	switch (io->op) {
	case NVMF_DEV_READ:
	case NVMF_DEV_WRITE:
		return memory_is_good(d, io);
	case NVMF_DEV_WRITE_ZEROES:
		return d->info.write_zeroes && !io->niov;
	case NVMF_DEV_DISCARD:
		return !io->niov;
	default:
		return false;
	}
}

/* It is in flight now: sent, or in one of the lists. Returns -errno where it is neither. */
static int begin(struct nvmf_dev *d, struct nvmf_dev_io *io)
{
	uint64_t until = ghost_until(d, io);
	int rc;

	if (d->gone) {
		end(io, NVMF_DEV_GONE);
		return 0;
	}
	if (io->op == NVMF_DEV_DISCARD && !d->info.discard) {
		end(io, NVMF_DEV_OK);
		return 0;
	}
	if (until) {
		hold(io, until);
		return 0;
	}
	if (!TAILQ_EMPTY(&d->waiting)) {
		TAILQ_INSERT_TAIL(&d->waiting, io, link);
		return 0;
	}
	rc = send(d, io);
	if (rc == 0)
		return 0;
	if (send_failed(d, io, rc)) {
		TAILQ_INSERT_TAIL(&d->waiting, io, link);
		return 0;
	}
	if (rc == -ESTALE) {
		end(io, NVMF_DEV_GONE);
		return 0;
	}
	return rc;
}

int nvmf_dev_submit(struct nvmf_dev *d, struct nvmf_dev_io *io)
{
	int rc;

	if (d->abandoned)
		return -ENODEV;
	if (!io_is_good(d, io))
		return -EINVAL;
	if (d->in_flight == d->depth)
		return -EAGAIN;
	io->dev = d;
	io->path = 0;
	io->tries = 0;
	io->hold_ns = 0;
	io->seq = d->wrote_seq;
	d->in_flight++;
	rc = begin(d, io);
	if (rc < 0)
		d->in_flight--;
	return rc;
}

void nvmf_dev_kick(struct nvmf_dev *d)
{
	for (unsigned int i = 0; i < d->npaths; i++) {
		struct path *p = &d->paths[i];

		for (uint16_t q = 1; p->in_flight && q <= nvmf_nqueues(p->n); q++)
			nvmf_kick(nvmf_queue(p->n, q));
	}
}
