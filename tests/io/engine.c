/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/io/engine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/base/util.h"
#include "dpu/core/mem.h"
#include "dpu/core/shard.h"
#include "tests/io/work.h"

#define NS_PER_MS   1000000ULL
#define NS_PER_S    1000000000ULL
#define RECHECK_MAX 1024 /* acknowledged pieces looked at again after a reconnect */
#define RETRY_MS    100 /* after "not now" */
#define NCHECKERS   32 /* slots that only do that: all others may hold a write to be sent again */
/* --mix: of 64 commands so many are not writes; and a Flush every so many commands. */
#define MIX_READS    16
#define MIX_ZEROS    4
#define MIX_FLUSH    64
#define MIX_RECHECK  256 /* pieces after a reconnect: others are read among the writes */
#define BUFFER_ALIGN 4096

struct slot {
	struct engine *e;
	struct nvmf_io io;
	struct iovec iov;
	uint8_t *buf;
	struct piece *piece; /* NULL: idle, or a flush */
	enum io_command command; /* what is in flight or to be sent again */
	uint32_t generation;
	uint64_t start_ns;
	bool busy, again;
	bool recheck; /* reads what was acknowledged, beside the run proper */
	bool mixed; /* ... in the middle of it (--mix) */
};

struct engine {
	const struct opts *o;
	struct report *r;
	struct shard *sh;
	struct nvmf *n;
	struct nvmf_ns ns;
	struct work w;
	struct slot *slots;
	uint32_t nslots, busy; /* behind the nslots of the run lie NCHECKERS more */
	uint8_t *buffers;
	size_t buffer_bytes, buffers_bytes;

	enum io_command command;
	bool written_only; /* read back what was acknowledged */
	uint64_t next, limit; /* commands begun; UINT64_MAX: until the time is over */
	uint64_t rng, mixed; /* --mix: what comes next; commands since the start */
	bool timed, stop, lost, gone;
	struct piece *recent[RECHECK_MAX]; /* ring of acknowledged pieces */
	uint64_t nrecent;
	uint64_t recheck_next, recheck_end; /* of recent[], being looked at */
	uint64_t away_since_ns;
	struct timer time_limit, retry;
	struct task pump_task;
};

static struct engine *interrupted; /* by SIGINT: ends as if the time were over */

static void pump(void *arg);

static void pump_later(struct engine *e)
{
	shard_defer(e->sh, &e->pump_task, pump, e);
}

/* ---- connection --------------------------------------------------------------------------------------------- */

static void on_ready(struct nvmf *n, void *arg)
{
	struct engine *e = arg;

	if (!e->lost || !e->slots)
		return;
	e->lost = false;
	e->r->reconnects++;
	if (e->command == CMD_WRITE) {
		uint64_t back = e->o->mix ? MIX_RECHECK : RECHECK_MAX;

		e->recheck_next = e->nrecent > back ? e->nrecent - back : 0;
		e->recheck_end = e->nrecent;
	}
	pump_later(e);
}

static void on_lost(struct nvmf *n, void *arg, int err, bool retrying)
{
	struct engine *e = arg;

	e->lost = true;
	e->gone = !retrying;
	if (!e->o->json)
		fprintf(stderr, "parapet-io: %s%s\n", err_text(nvmf_error(n)),
			retrying ? "; trying again" : "");
	if (e->slots)
		pump_later(e);
}

static const struct nvmf_events events = {.ready_fn = on_ready, .lost_fn = on_lost};

static int connect_target(struct engine *e, struct err *err)
{
	const struct opts *o = e->o;
	struct nvmf_cfg cfg = {
		.transport = o->transport,
		.host = o->host,
		.port = o->port,
		.subnqn = o->nqn,
		.hostnqn = o->hostnqn,
		.nqueues = o->command == CMD_DISCOVER ? 0 : (uint16_t)o->queues,
		.depth = (uint16_t)o->depth,
		.hdgst = o->hdgst,
		.ddgst = o->ddgst,
		.no_sqflow = o->no_sqflow,
		.keep_alive_ms = o->keep_alive_ms,
		.io_timeout_ms = o->io_timeout_s * 1000,
		.reconnect_min_ms = o->reconnect_s ? MIN(100u, o->reconnect_max_ms) : 0,
		.reconnect_max_ms = o->reconnect_max_ms,
		.reconnect_for_ms = o->reconnect_s * 1000,
	};
	int rc = nvmf_open(e->sh, &cfg, &events, e, &e->n, err);

	if (rc < 0)
		return rc;
	rc = nvmf_wait_ready(e->n, 0);
	if (rc < 0)
		*err = *nvmf_error(e->n);
	return rc;
}

/* ---- one command --------------------------------------------------------------------------------------------------- */

static uint64_t sector_of(const struct engine *e, const struct piece *p)
{
	return p->block * (e->ns.block_bytes / STAMP_SECTOR);
}

static size_t bytes_of(const struct engine *e, const struct piece *p)
{
	return (size_t)p->nblocks * e->ns.block_bytes;
}

static void check_data(struct engine *e, struct slot *s)
{
	struct piece *p = s->piece;
	uint64_t sector = sector_of(e, p), gen_min = e->o->gen_min, gen_max = e->o->gen_max;
	struct stamp_finding f;

	if (s->recheck || e->written_only) {
		gen_min = p->acked;
		gen_max = p->sent;
	}
	for (size_t at = 0; at < s->iov.iov_len; at += STAMP_SECTOR, sector++) {
		enum stamp_verdict v = p->zero || (e->o->zeros && !e->written_only)
					       ? stamp_check_zero(s->buf + at, sector, &f)
					       : stamp_check(s->buf + at, e->o->seed, sector,
							 gen_min, gen_max, &f);

		e->r->checked_sectors++;
		if (v != STAMP_OK)
			report_finding(e->r, &f);
	}
	if (s->mixed)
		e->r->reads++;
	else
		e->r->rechecked += s->recheck;
}

/* "Not now": worth another try where the user wants to outlive trouble. */
static bool is_retryable(const struct nvmf_io *io)
{
	switch (NVME_SC_CODE(io->status)) {
	case NVME_SC_NS_NOT_READY:
	case NVME_SC_CMD_INTERRUPTED:
	case NVME_SC_TRANSIENT_TRANSPORT:
	case NVME_SC_ABORT_REQ:
		return !(io->status & NVME_SC_DNR);
	default:
		return false;
	}
}

static void pump_fire(void *arg)
{
	pump_later(arg);
}

/* True when the command will be sent again. */
static bool send_again(struct engine *e, struct slot *s)
{
	uint64_t now = shard_now_ns(e->sh);

	if (!e->o->reconnect_s || e->gone)
		return false;
	if (!s->io.err) {
		if (!is_retryable(&s->io))
			return false;
		if (!e->away_since_ns)
			e->away_since_ns = now;
		if (now - e->away_since_ns > e->o->reconnect_s * NS_PER_S)
			return false;
		if (timer_arm(e->sh, &e->retry, now + RETRY_MS * NS_PER_MS, pump_fire, e) < 0)
			return false;
	}
	e->r->retries++;
	s->again = true;
	return true;
}

static void acknowledged(struct engine *e, struct slot *s)
{
	struct piece *p = s->piece;

	if (p && e->command == CMD_WRITE && s->command != CMD_VERIFY) {
		p->acked = s->generation;
		p->zero = s->command == CMD_ZERO;
		e->r->zeroed += p->zero;
		e->recent[e->nrecent++ % RECHECK_MAX] = p;
		if (!e->r->gen_min || s->generation < e->r->gen_min)
			e->r->gen_min = s->generation;
		e->r->gen_max = MAX(e->r->gen_max, (uint64_t)s->generation);
	}
	if (s->command == CMD_VERIFY)
		check_data(e, s);
	if (s->command == CMD_FLUSH)
		e->r->flushes++;
	e->away_since_ns = 0;
}

static void count_result(struct engine *e, struct slot *s)
{
	int want = s->recheck ? -1 : e->o->expect_status;
	bool ok = nvmf_io_result(&s->io) == 0;

	if (!s->recheck) {
		e->r->ops++;
		report_latency(e->r, shard_now_ns(e->sh) - s->start_ns);
	}
	if (want >= 0 && !s->io.err && NVME_SC_CODE(s->io.status) == (unsigned int)want) {
		e->r->expected++;
		return;
	}
	if (!ok || want >= 0) {
		e->r->errors++;
		report_status(e->r, s->io.err, s->io.status, s->piece ? s->piece->block : 0);
	}
	if (ok) {
		e->r->bytes += s->piece && !s->recheck ? bytes_of(e, s->piece) : 0;
		acknowledged(e, s);
	}
}

static void done(struct nvmf_io *io)
{
	struct slot *s = io->arg;
	struct engine *e = s->e;

	if (nvmf_io_result(io) < 0 && send_again(e, s))
		return;
	count_result(e, s);
	if (s->piece)
		s->piece->busy = false;
	s->busy = s->recheck = s->mixed = false;
	e->busy--;
	/* The first error ends a run that expects none: what comes after it is noise. */
	if (e->r->errors && e->o->expect_status < 0)
		e->stop = true;
	pump_later(e);
}

static void fill_io(struct engine *e, struct slot *s)
{
	static const uint8_t opcodes[] = {[CMD_WRITE] = NVME_CMD_WRITE,
		[CMD_READ] = NVME_CMD_READ,
		[CMD_VERIFY] = NVME_CMD_READ,
		[CMD_ZERO] = NVME_CMD_WRITE_ZEROES};
	struct piece *p = s->piece;

	s->io.niov = 0;
	if (s->command == CMD_FLUSH) {
		nvmf_io_flush(&s->io, e->ns.nsid);
	} else if (s->command == CMD_TRIM) {
		nvmf_io_trim(&s->io, e->ns.nsid, p->block, p->nblocks);
	} else {
		nvmf_io_rw(&s->io, opcodes[s->command], e->ns.nsid, p->block, p->nblocks,
			s->command == CMD_WRITE && e->o->fua ? NVME_RW_FUA
			: s->command == CMD_ZERO             ? NVME_RW_DEAC
							     : 0);
		if (s->command != CMD_ZERO) {
			s->iov = (struct iovec){s->buf, bytes_of(e, p)};
			s->io.iov = &s->iov;
			s->io.niov = 1;
		}
	}
}

/* Sends what the slot holds; false when it has to wait (queue full, connection away). */
static bool slot_send(struct engine *e, struct slot *s)
{
	uint16_t nq = nvmf_nqueues(e->n);
	struct nvmf_queue *q = nq ? nvmf_queue(e->n, (uint16_t)(1 + (s - e->slots) % nq)) : NULL;
	int rc;

	fill_io(e, s);
	rc = nvmf_submit(q, &s->io);
	if (rc == 0)
		return true;
	if (rc != -EAGAIN && rc != -ENOTCONN) {
		s->io.err = rc;
		e->r->errors++;
		report_status(e->r, rc, 0, s->piece ? s->piece->block : 0);
		e->stop = true;
	}
	return false;
}

/* ---- what comes next --------------------------------------------------------------------------------------------------- */

/* An acknowledged piece to look at again after a reconnect, or NULL. */
static struct piece *next_recheck(struct engine *e)
{
	while (e->recheck_next < e->recheck_end) {
		struct piece *p = e->recent[e->recheck_next++ % RECHECK_MAX];

		if (!p->busy)
			return p;
	}
	return NULL;
}

/* The next piece of the run: false when there is none now (its turn is still in flight) or none at all. */
static bool next_piece(struct engine *e, struct slot *s)
{
	struct piece *p = NULL;

	if (e->stop || e->next >= e->limit)
		return false;
	if (e->command != CMD_FLUSH) {
		p = &e->w.pieces[e->next % e->w.npieces];
		while (e->written_only && !p->acked) {
			if (++e->next >= e->limit)
				return false;
			p = &e->w.pieces[e->next % e->w.npieces];
		}
		if (p->busy)
			return false;
	}
	s->piece = p;
	s->command = e->command;
	s->generation = (uint32_t)(e->o->gen_min + (e->w.npieces ? e->next / e->w.npieces : 0));
	e->next++;
	return true;
}

static uint64_t rnd(struct engine *e)
{
	e->rng ^= e->rng << 13;
	e->rng ^= e->rng >> 7;
	e->rng ^= e->rng << 17;
	return e->rng;
}

/* --mix: makes the slot a Flush, or a checked read of something acknowledged lately; false: a write's turn. */
static bool mixed_in(struct engine *e, struct slot *s)
{
	uint64_t recent = MIN(e->nrecent, (uint64_t)RECHECK_MAX);
	struct piece *p = NULL;

	if (!e->o->mix || e->command != CMD_WRITE || e->stop || e->next >= e->limit)
		return false;
	if (++e->mixed % MIX_FLUSH == 0) {
		s->command = CMD_FLUSH;
	} else {
		if (rnd(e) % 64 < MIX_READS && recent)
			p = e->recent[rnd(e) % recent];
		if (!p || p->busy)
			return false;
		s->command = CMD_VERIFY;
		s->recheck = s->mixed = true;
	}
	s->piece = p;
	return true;
}

static void slot_begin(struct engine *e, struct slot *s)
{
	if (s->piece)
		s->piece->busy = true;
	s->start_ns = shard_now_ns(e->sh);
	s->busy = true;
	e->busy++;
	if (!slot_send(e, s))
		s->again = true; /* when there is room, or the connection is back */
}

static bool slot_next(struct engine *e, struct slot *s)
{
	if (mixed_in(e, s)) {
		slot_begin(e, s);
		return true;
	}
	if (!next_piece(e, s))
		return false;
	if (s->command == CMD_WRITE && e->o->mix && rnd(e) % 64 < MIX_ZEROS)
		s->command = CMD_ZERO;
	if (e->command == CMD_WRITE)
		s->piece->sent = s->generation;
	if (s->command == CMD_WRITE) {
		stamp_fill(s->buf, bytes_of(e, s->piece), e->o->seed, sector_of(e, s->piece),
			s->generation);
	}
	slot_begin(e, s);
	return true;
}

/* After a reconnect: looks at acknowledged pieces again. True while that goes on; writes wait for it. */
static bool recheck(struct engine *e)
{
	bool going_on = false;

	for (uint32_t i = e->nslots; i < e->nslots + NCHECKERS; i++) {
		struct slot *s = &e->slots[i];

		if (s->again) {
			s->again = !slot_send(e, s);
		} else if (!s->busy && (s->piece = next_recheck(e))) {
			s->command = CMD_VERIFY;
			s->recheck = true;
			slot_begin(e, s);
		}
		going_on |= s->busy;
	}
	return going_on;
}

/* Gives up what waits to be sent again: the target will not come back. */
static void drop_waiting(struct engine *e)
{
	e->recheck_next = e->recheck_end;
	for (uint32_t i = 0; i < e->nslots + NCHECKERS; i++) {
		struct slot *s = &e->slots[i];

		if (!s->busy || !s->again)
			continue;
		s->again = s->busy = s->recheck = s->mixed = false;
		if (s->piece)
			s->piece->busy = false;
		e->busy--;
		e->r->errors++;
		report_status(
			e->r, s->io.err ? s->io.err : -ENOTCONN, 0, s->piece ? s->piece->block : 0);
	}
}

static void pump(void *arg)
{
	struct engine *e = arg;
	bool more = true, checking;

	if (e->gone || (e->stop && e->lost && !e->o->reconnect_s)) {
		e->stop = true;
		drop_waiting(e);
		return;
	}
	if (e->lost)
		return;
	checking = recheck(e);
	for (uint32_t i = 0; !checking && i < e->nslots; i++) {
		struct slot *s = &e->slots[i];

		if (s->again)
			s->again = !slot_send(e, s);
		else if (!s->busy && more)
			more = slot_next(e, s);
	}
	if (e->stop && e->r->errors)
		drop_waiting(e);
}

static bool finished(void *arg)
{
	struct engine *e = arg;

	return !e->busy && (e->stop || e->gone || e->next >= e->limit) &&
	       e->recheck_next >= e->recheck_end;
}

static void time_over(void *arg)
{
	struct engine *e = arg;

	e->stop = true;
	pump_later(e);
}

static void on_signal(int sig)
{
	if (interrupted)
		interrupted->stop = true;
}

/* ---- a run ----------------------------------------------------------------------------------------------------------------- */

static enum io_exit verdict(const struct engine *e)
{
	const struct report *r = e->r;

	if (r->mismatches)
		return EXIT_MISMATCH;
	if (r->errors || (e->o->expect_status >= 0 && !r->expected))
		return EXIT_IO;
	return EXIT_OK;
}

static int run_loop(struct engine *e)
{
	uint64_t start = shard_now_ns(e->sh);
	int rc;

	interrupted = e;
	e->stop = false;
	e->next = e->recheck_next = e->recheck_end = 0;
	shard_run_once(e->sh); /* the clock is as old as the last round */
	start = shard_now_ns(e->sh);
	if (e->timed && timer_arm(e->sh, &e->time_limit, start + e->o->time_limit_s * NS_PER_S,
				time_over, e) < 0)
		return -ENOMEM;
	pump_later(e);
	rc = shard_wait(e->sh, finished, e, 0);
	timer_disarm(e->sh, &e->time_limit);
	timer_disarm(e->sh, &e->retry);
	e->r->elapsed_ns = shard_now_ns(e->sh) - start;
	interrupted = NULL;
	return rc;
}

enum io_exit engine_run(struct engine *e, enum io_command command)
{
	uint64_t once = command == CMD_FLUSH ? 1 : e->w.npieces;
	int rc;

	e->command = command;
	e->timed = e->o->time_limit_s;
	e->limit = e->o->count ? e->o->count : e->timed ? UINT64_MAX : once;
	rc = run_loop(e);
	e->timed = false;
	return rc < 0 ? EXIT_IO : verdict(e);
}

/* Beside the run proper: the report's figures stay those of the writes. */
static enum io_exit run_beside(struct engine *e, enum io_command command, uint64_t limit)
{
	uint64_t elapsed_ns = e->r->elapsed_ns, ops = e->r->ops, bytes = e->r->bytes;
	int rc;

	e->command = command;
	e->limit = limit;
	rc = run_loop(e);
	e->r->elapsed_ns = elapsed_ns;
	e->r->ops = ops;
	e->r->bytes = bytes;
	return rc < 0 ? EXIT_IO : verdict(e);
}

enum io_exit engine_flush(struct engine *e)
{
	return run_beside(e, CMD_FLUSH, 1);
}

enum io_exit engine_check_written(struct engine *e)
{
	enum io_exit code;

	e->written_only = true;
	code = run_beside(e, CMD_VERIFY, e->w.npieces);
	e->written_only = false;
	return code;
}

/* ---- life --------------------------------------------------------------------------------------------------------------------- */

static int find_ns(struct engine *e, struct err *err)
{
	uint32_t nsid = e->o->nsid;
	int rc;

	if (!nsid) {
		rc = nvmf_list_ns(e->n, 0, &nsid, 1);
		if (rc <= 0)
			return err_set(err, rc < 0 ? rc : -ENODEV, e->o->nqn, "nsid",
				"there is no namespace");
	}
	rc = nvmf_identify_ns(e->n, nsid, &e->ns);
	if (rc < 0)
		return err_set(err, rc, e->o->nqn, "nsid", "namespace %u cannot be used: %s", nsid,
			strerror(-rc));
	e->r->block_bytes = e->ns.block_bytes;
	return 0;
}

static int cut_pieces(struct engine *e, struct err *err)
{
	const struct opts *o = e->o;
	uint64_t end = e->ns.nblocks * e->ns.block_bytes;
	struct work_cfg cfg = {
		.offset = o->offset,
		.size = o->size           ? o->size
			: o->offset < end ? end - o->offset
					  : 0,
		.bs = o->bs,
		.block_bytes = e->ns.block_bytes,
		.max_bytes = MIN(nvmf_max_io_bytes(e->n), 65536 * e->ns.block_bytes),
		.seed = o->seed,
		.random = o->random,
	};
	int rc;

	if (cfg.offset % cfg.block_bytes || cfg.size % cfg.block_bytes || !cfg.size)
		return err_set(err, -EINVAL, o->nqn, "size",
			"offset and size must be multiples of the block size, %u", cfg.block_bytes);
	/* Beyond the end is for the target to refuse where that is what is expected. */
	if (o->expect_status < 0 && (cfg.offset > end || cfg.size > end - cfg.offset))
		return err_set(err, -ERANGE, o->nqn, "size", "the namespace has %llu bytes",
			(unsigned long long)end);
	rc = work_open(&cfg, &e->w);
	if (rc == -EINVAL)
		return err_set(err, rc, o->nqn, "bs", "a multiple of %u, at most %u",
			cfg.block_bytes, cfg.max_bytes);
	if (rc < 0)
		return err_set(err, rc, o->nqn, NULL, "out of memory");
	e->r->pieces = e->w.npieces;
	e->buffer_bytes = o->bs ? (size_t)o->bs
				: MAX(131072u + 8u * cfg.block_bytes,
					  4096u * 33u + 8u * cfg.block_bytes);
	return 0;
}

static int make_slots(struct engine *e)
{
	uint32_t n;

	e->nslots = nvmf_nqueues(e->n) * (uint32_t)nvmf_depth(e->n);
	n = e->nslots + NCHECKERS;
	e->buffer_bytes = ROUND_UP(e->buffer_bytes, (size_t)BUFFER_ALIGN);
	e->slots = calloc(n, sizeof(e->slots[0]));
	e->buffers_bytes = n * e->buffer_bytes;
	/* Known to devices that want to know memory before they move it; and zero. */
	e->buffers = mem_alloc(e->buffers_bytes);
	if (!e->slots || !e->buffers)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct slot *s = &e->slots[i];

		s->e = e;
		s->buf = e->buffers + i * e->buffer_bytes;
		s->io.done_fn = done;
		s->io.arg = s;
	}
	return 0;
}

enum io_exit engine_open(
	const struct opts *o, struct report *r, struct engine **out, struct err *err)
{
	/* The first signal ends the run in order, the second one at once. */
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND};
	struct engine *e = calloc(1, sizeof(*e));
	int rc;

	*out = e;
	if (!e) {
		err_set(err, -ENOMEM, o->nqn, NULL, "out of memory");
		return EXIT_IO;
	}
	e->o = o;
	e->r = r;
	e->rng = (o->seed + 1) * 0x9e3779b97f4a7c15ULL | 1;
	rc = shard_open(&(struct shard_cfg){.mode = SHARD_ADAPTIVE}, &e->sh);
	if (rc < 0) {
		err_set(err, rc, o->nqn, NULL, "%s", strerror(-rc));
		return EXIT_CONNECT;
	}
	rc = connect_target(e, err);
	if (rc < 0)
		return rc == -EINVAL ? EXIT_USAGE : EXIT_CONNECT;
	if (o->command == CMD_DISCOVER || o->command == CMD_IDENTIFY)
		return EXIT_OK;
	rc = find_ns(e, err);
	if (rc < 0)
		return EXIT_CONNECT;
	rc = cut_pieces(e, err);
	if (rc < 0)
		return EXIT_USAGE;
	rc = make_slots(e);
	if (rc < 0) {
		err_set(err, rc, o->nqn, NULL, "out of memory");
		return EXIT_IO;
	}
	e->lost = false;
	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
	return EXIT_OK;
}

struct nvmf *engine_nvmf(struct engine *e)
{
	return e->n;
}

void engine_close(struct engine *e)
{
	if (!e)
		return;
	e->stop = true;
	if (e->n && nvmf_is_ready(e->n) && !e->busy)
		(void)nvmf_shutdown(e->n);
	nvmf_close(e->n);
	if (e->sh) {
		shard_undefer(e->sh, &e->pump_task);
		timer_disarm(e->sh, &e->retry);
		timer_disarm(e->sh, &e->time_limit);
		shard_close(e->sh);
	}
	work_close(&e->w);
	free(e->slots);
	mem_free(e->buffers, e->buffers_bytes);
	free(e);
}
