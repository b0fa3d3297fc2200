/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * nvme+tcp: and nvme+rdma: a namespace on a peer through dpu/nvmf. What the peer takes at once is less than what a flash_io may be, so each
 * goes as one part or several:
 *
 *	flash_io ─▶ slot: how far it has been cut ──▶ part, part, part ─▶ nvmf_dev
 *	              └── HUNGRY while there are no parts left, or no room: goes on when others end
 *
 * A part is whole blocks of the caller's own memory. Only a block that lies in more pieces than a command may have is copied.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/flash/remote_priv.h"

#define CONNECT_MS    5000u
#define KEEP_ALIVE_MS 2000u
#define RECONNECT_MIN 100u
#define RECONNECT_MAX 2000u
#define TIMEOUT_NEVER 30000u /* of commands, where the device itself is never given up */
#define TIMEOUT_MIN   50u
#define PARTS_PER_IO  2 /* on average */
#define ZEROS_BYTES   (64u << 10)
#define NBOUNCE       8

struct slot {
	struct flash_io *io; /* NULL: free */
	uint64_t at; /* bytes that have been cut off */
	int iov; /* where that is in the caller's memory */
	size_t iov_off;
	uint32_t parts; /* in flight */
	enum flash_status status; /* the worst so far */
	bool hungry, over; /* in one of these lists */
	TAILQ_ENTRY(slot) link;
};
TAILQ_HEAD(slot_list, slot);

struct part {
	struct nvmf_dev_io io;
	struct remote *r;
	struct slot *s;
	struct iovec *iov; /* as many as a command may have */
	void *bounce; /* NULL: the memory is the caller's, or zeros */
	int at_iov; /* bounce: where it belongs */
	size_t at_off;
	SLIST_ENTRY(part) link;
};

struct bounce {
	SLIST_ENTRY(bounce) link;
};

struct remote {
	struct flash f;
	struct remote_use use;
	bool used, giving_up;
	struct nvmf_dev *dev;
	uint32_t unit; /* bytes of a block of the namespace; ours may be larger */
	struct timer quiet; /* given up: until no ghost is left */
	struct slot *slots;
	struct slot **free_slots;
	uint32_t nfree;
	struct part *parts;
	struct iovec *iovs;
	SLIST_HEAD(, part) free_parts;
	void *bounce_mem;
	SLIST_HEAD(, bounce) bounces;
	struct slot_list hungry, over;
	struct task task; /* ends those that are over without a part */
};

static char zeros[ZEROS_BYTES] __attribute__((aligned(4096)));

/* ---- the caller's memory ------------------------------------------------------------------------------------- */

static void advance(const struct flash_io *io, int *iov, size_t *off, uint64_t len)
{
	while (len) {
		size_t rest = io->iov[*iov].iov_len - *off;

		if (rest > len) {
			*off += len;
			return;
		}
		len -= rest;
		++*iov;
		*off = 0;
	}
}

/* Between a bounce buffer and the caller's memory from there on. */
static void bounce_copy(const struct flash_io *io, int iov, size_t off, void *ours, size_t len)
{
	char *at = ours;

	for (; len; iov++, off = 0) {
		size_t n = MIN(len, io->iov[iov].iov_len - off);
		char *theirs = (char *)io->iov[iov].iov_base + off;

		if (io->op == FLASH_READ)
			memcpy(theirs, at, n);
		else
			memcpy(at, theirs, n);
		at += n;
		len -= n;
	}
}

static void part_put(struct part *p)
{
	struct remote *r = p->r;

	if (p->bounce)
		SLIST_INSERT_HEAD(&r->bounces, (struct bounce *)p->bounce, link);
	p->bounce = NULL;
	SLIST_INSERT_HEAD(&r->free_parts, p, link);
}

/* ---- cutting --------------------------------------------------------------------------------------------------- */

/* One block that lies in too many pieces. */
static int cut_bounced(struct part *p, const struct slot *s, uint32_t *bytes)
{
	struct remote *r = p->r;

	p->bounce = SLIST_FIRST(&r->bounces);
	if (!p->bounce)
		return -EAGAIN;
	SLIST_REMOVE_HEAD(&r->bounces, link);
	p->at_iov = s->iov;
	p->at_off = s->iov_off;
	if (s->io->op == FLASH_WRITE)
		bounce_copy(s->io, s->iov, s->iov_off, p->bounce, r->unit);
	p->iov[0] = (struct iovec){p->bounce, r->unit};
	p->io.niov = 1;
	*bytes = r->unit;
	return 0;
}

/* As much of the caller's memory, in whole blocks, as a command may have. */
static int cut_memory(
	struct part *p, const struct slot *s, uint64_t most, uint32_t pieces, uint32_t *bytes)
{
	uint64_t sum = 0, excess;
	size_t off = s->iov_off;
	uint32_t n = 0;

	for (int i = s->iov; i < s->io->niov && n < pieces && sum < most; i++, off = 0) {
		size_t len = MIN(s->io->iov[i].iov_len - off, most - sum);

		if (!len)
			continue;
		p->iov[n++] = (struct iovec){(char *)s->io->iov[i].iov_base + off, len};
		sum += len;
	}
	excess = sum % p->r->unit;
	if (sum == excess)
		return cut_bounced(p, s, bytes);
	sum -= excess;
	while (excess) {
		size_t drop = MIN(excess, p->iov[n - 1].iov_len);

		p->iov[n - 1].iov_len -= drop;
		excess -= drop;
		n -= !p->iov[n - 1].iov_len;
	}
	p->io.niov = (int)n;
	*bytes = (uint32_t)sum;
	return 0;
}

static uint32_t cut_zeros(struct part *p, uint64_t most, uint32_t pieces)
{
	uint64_t len = MIN(most, (uint64_t)pieces * ZEROS_BYTES), left = len;

	for (p->io.niov = 0; left; left -= p->iov[p->io.niov++].iov_len)
		p->iov[p->io.niov] = (struct iovec){zeros, MIN(left, (uint64_t)ZEROS_BYTES)};
	return (uint32_t)len;
}

static void part_done(struct nvmf_dev_io *io);

/* Fills p with the next piece of s. */
static int cut(struct part *p, struct slot *s, uint32_t *bytes)
{
	static const enum nvmf_dev_op ops[] = {
		[FLASH_READ] = NVMF_DEV_READ,
		[FLASH_WRITE] = NVMF_DEV_WRITE,
		[FLASH_FLUSH] = NVMF_DEV_FLUSH,
		[FLASH_WRITE_ZEROES] = NVMF_DEV_WRITE_ZEROES,
		[FLASH_DISCARD] = NVMF_DEV_DISCARD,
	};
	const struct nvmf_dev_info *info = nvmf_dev_info(p->r->dev);
	const struct flash_io *io = s->io;
	uint64_t most = MIN(io->len - s->at, (uint64_t)info->max_blocks * p->r->unit);
	int rc = 0;

	p->s = s;
	p->io.op = ops[io->op];
	p->io.lba = (io->off + s->at) / p->r->unit;
	p->io.iov = p->iov;
	p->io.niov = 0;
	p->io.repeatable = io->op == FLASH_WRITE && io->checked;
	*bytes = (uint32_t)most;
	if (io->op == FLASH_READ || io->op == FLASH_WRITE) {
		rc = cut_memory(p, s, most, info->max_pieces, bytes);
	} else if (io->op == FLASH_WRITE_ZEROES && !info->write_zeroes) {
		p->io.op = NVMF_DEV_WRITE;
		*bytes = cut_zeros(p, most, info->max_pieces);
	} else if (io->op == FLASH_FLUSH) {
		p->io.lba = 0;
		*bytes = 0;
	}
	p->io.nblocks = *bytes / p->r->unit;
	return rc;
}

static bool is_all_cut(const struct slot *s)
{
	return s->io->op == FLASH_FLUSH ? s->parts || s->at : s->at == s->io->len;
}

/* The next part: 0, or -errno of the device and nothing has changed. */
static int issue(struct remote *r, struct slot *s)
{
	struct part *p = SLIST_FIRST(&r->free_parts);
	uint32_t bytes;
	int rc;

	if (!p)
		return -EAGAIN;
	SLIST_REMOVE_HEAD(&r->free_parts, link);
	rc = cut(p, s, &bytes);
	if (rc == 0)
		rc = nvmf_dev_submit(r->dev, &p->io);
	if (rc < 0) {
		part_put(p);
		return rc;
	}
	s->parts++;
	s->at += bytes;
	if (p->io.niov && s->io->niov)
		advance(s->io, &s->iov, &s->iov_off, bytes);
	return 0;
}

/* As many parts as can be had. */
static int issue_all(struct remote *r, struct slot *s)
{
	int rc = 0;

	while (rc == 0 && !is_all_cut(s))
		rc = issue(r, s);
	return rc;
}

/* ---- ending ------------------------------------------------------------------------------------------------------- */

/* The device may be closed by this. */
static void slot_end(struct remote *r, struct slot *s)
{
	struct flash_io *io = s->io;

	s->io = NULL;
	r->free_slots[r->nfree++] = s;
	flash_complete(&r->f, io, s->status);
}

static void hungry_set(struct remote *r, struct slot *s, bool hungry)
{
	if (s->hungry == hungry)
		return;
	s->hungry = hungry;
	if (hungry)
		TAILQ_INSERT_TAIL(&r->hungry, s, link);
	else
		TAILQ_REMOVE(&r->hungry, s, link);
}

static void over_add(struct remote *r, struct slot *s)
{
	s->over = true;
	TAILQ_INSERT_TAIL(&r->over, s, link);
}

static void end_over(void *arg)
{
	struct remote *r = arg;
	struct slot *s;

	while ((s = TAILQ_FIRST(&r->over))) {
		bool last = r->f.in_flight == 1;

		TAILQ_REMOVE(&r->over, s, link);
		slot_end(r, s);
		if (last)
			return;
	}
}

/* No more parts of it. The last one in flight ends it; without any a task does. */
static void slot_fail(struct remote *r, struct slot *s, int rc)
{
	/* Out of range: the namespace has become shorter than it was. */
	s->status = MAX(s->status, rc == -EINVAL   ? FLASH_ERR_MEDIA
				   : rc == -ENODEV ? FLASH_ERR_GONE
						   : FLASH_ERR_TRANSIENT);
	hungry_set(r, s, false);
	if (s->parts)
		return;
	over_add(r, s);
	shard_defer(r->f.sh, &r->task, end_over, r);
}

static void feed(struct remote *r)
{
	struct slot *s;

	while ((s = TAILQ_FIRST(&r->hungry))) {
		int rc = issue_all(r, s);

		if (rc == -EAGAIN)
			return;
		hungry_set(r, s, false);
		if (rc < 0)
			slot_fail(r, s, rc);
	}
}

static enum flash_status status_of(enum nvmf_dev_result result)
{
	switch (result) {
	case NVMF_DEV_OK:
		return FLASH_OK;
	case NVMF_DEV_TRANSIENT:
		return FLASH_ERR_TRANSIENT;
	case NVMF_DEV_MEDIA:
		return FLASH_ERR_MEDIA;
	case NVMF_DEV_GONE:
		return FLASH_ERR_GONE;
	case NVMF_DEV_FENCED:
		return FLASH_ERR_FENCED;
	}
	return FLASH_ERR_MEDIA;
}

static void part_done(struct nvmf_dev_io *io)
{
	struct part *p = container_of(io, struct part, io);
	struct remote *r = p->r;
	struct slot *s = p->s;

	if (p->bounce && s->io->op == FLASH_READ && io->result == NVMF_DEV_OK)
		bounce_copy(s->io, p->at_iov, p->at_off, p->bounce, r->unit);
	s->status = MAX(s->status, status_of(io->result));
	if (io->result == NVMF_DEV_GONE)
		flash_abandon(&r->f); /* it has to be opened anew */
	s->parts--;
	part_put(p);
	if (s->status != FLASH_OK)
		hungry_set(r, s, false);
	if (!r->f.abandoned)
		feed(r);
	if (s->parts || s->hungry || s->over)
		return;
	if (r->giving_up) /* all of them are told when it has been */
		over_add(r, s);
	else
		slot_end(r, s);
}

/* ---- the device ------------------------------------------------------------------------------------------------------ */

static int remote_submit(struct flash *f, struct flash_io *io)
{
	struct remote *r = container_of(f, struct remote, f);
	struct slot *s = r->free_slots[r->nfree - 1];
	int rc = -EAGAIN;

	*s = (struct slot){.io = io};
	if (TAILQ_EMPTY(&r->hungry))
		rc = issue_all(r, s);
	if (rc == -ENODEV && !s->parts) {
		s->io = NULL;
		return rc;
	}
	r->nfree--;
	if (rc == -EAGAIN)
		hungry_set(r, s, true);
	else if (rc < 0)
		slot_fail(r, s, rc);
	return 0;
}

static void remote_kick(struct flash *f)
{
	nvmf_dev_kick(container_of(f, struct remote, f)->dev);
}

static void quiet(void *arg)
{
	struct remote *r = arg;

	r->f.ghosts = 0;
}

/* What was sent may still be carried out. */
static void ghosts_begin(struct remote *r, uint32_t n)
{
	uint64_t until = nvmf_dev_quiet_ns(r->dev);

	if (until && timer_arm(r->f.sh, &r->quiet, until, quiet, r) == 0)
		r->f.ghosts = n;
}

static void remote_abandon(struct flash *f)
{
	struct remote *r = container_of(f, struct remote, f);
	uint32_t n = f->in_flight;
	struct slot *s, *next;

	shard_undefer(f->sh, &r->task);
	for (s = TAILQ_FIRST(&r->hungry); s; s = next) {
		next = TAILQ_NEXT(s, link);
		hungry_set(r, s, false);
		s->status = FLASH_ERR_GONE;
		if (!s->parts)
			over_add(r, s);
	}
	r->giving_up = true;
	nvmf_dev_abandon(r->dev);
	r->giving_up = false;
	ghosts_begin(r, n);
	end_over(r);
}

static void remote_timeouts(struct flash *f, uint32_t gone_ms)
{
	struct remote *r = container_of(f, struct remote, f);

	nvmf_dev_set_timeout(r->dev, gone_ms ? MAX(gone_ms / 2, TIMEOUT_MIN) : TIMEOUT_NEVER);
}

static void remote_smart(struct flash *f, struct flash_smart *out)
{
	snprintf(out->why_not, sizeof(out->why_not), "on a peer, which is to be asked itself");
}

static void remote_paths(const struct flash *f, struct flash_health *out)
{
	const struct remote *r = container_of(f, struct remote, f);

	out->npaths = nvmf_dev_npaths(r->dev);
	for (unsigned int i = 0; i < out->npaths; i++) {
		struct flash_path *p = &out->paths[i];
		struct nvmf_path_status st;

		nvmf_dev_path(r->dev, i, &st);
		*p = (struct flash_path){.state = nvmf_path_state_name(st.state),
			.usable = st.state == NVMF_PATH_OPTIMIZED ||
				  st.state == NVMF_PATH_NON_OPTIMIZED,
			.in_flight = st.in_flight,
			.losses = st.stats.losses,
			.timeouts = st.stats.timeouts,
			.commands = st.stats.commands,
			.wire = {.kicks = st.stats.kicks,
				.posts = st.stats.posts,
				.completions = st.stats.completions,
				.copied_bytes = st.stats.copied_bytes,
				.zero_copy_bytes = st.stats.zero_copy_bytes,
				.inline_bytes = st.stats.inline_bytes,
				.binds = st.stats.binds,
				.remote_invalidates = st.stats.remote_invalidates}};
		snprintf(p->address, sizeof(p->address),
			strchr(st.addr.host, ':') ? "[%s]:%u" : "%s:%u", st.addr.host,
			st.addr.port);
		memcpy(p->error, st.error, sizeof(p->error));
	}
}

static int remote_claim(struct flash *f, uint64_t key, bool preempt, struct err *err)
{
	return nvmf_dev_claim(container_of(f, struct remote, f)->dev, key, preempt, err);
}

static int remote_unclaim(struct flash *f, struct err *err)
{
	return nvmf_dev_unclaim(container_of(f, struct remote, f)->dev, err);
}

static void remote_close(struct flash *f)
{
	struct remote *r = container_of(f, struct remote, f);
	uint64_t quiet = r->dev ? nvmf_dev_quiet_ns(r->dev) : 0;

	shard_undefer(f->sh, &r->task);
	timer_disarm(f->sh, &r->quiet);
	if (r->dev)
		nvmf_dev_close(r->dev);
	if (r->used)
		remote_use_end(&r->use, quiet ? quiet - shard_now_ns(f->sh) : 0);
	free(r->slots);
	free(r->free_slots);
	free(r->parts);
	free(r->iovs);
	free(r->bounce_mem);
	free(r);
}

static const struct flash_ops remote_ops = {
	.close = remote_close,
	.submit = remote_submit,
	.kick = remote_kick,
	.abandon = remote_abandon,
	.timeouts = remote_timeouts,
	.smart = remote_smart,
	.paths = remote_paths,
	.claim = remote_claim,
	.unclaim = remote_unclaim,
};

/* ---- open --------------------------------------------------------------------------------------------------------------- */

static_assert(NVME_ADDRESS_PATHS == NVMF_PATHS_MAX, "as many paths as an address can name");
static_assert(NVME_ADDRESS_QUEUES_MAX == NVMF_QUEUES_MAX, "as many queues");
static_assert(NVME_ADDRESS_DEPTH_MAX == NVMF_DEPTH_MAX - 1, "as many commands");

int remote_connect(struct shard *sh, const char *transport, const struct nvme_address *a,
	const struct flash_opts *opts, struct nvmf_dev **out, struct err *err)
{
	uint32_t depth = opts->depth ? opts->depth : FLASH_DEPTH_DEFAULT;
	struct nvmf_dev_cfg cfg = {
		.ctrl = {.transport = transport,
			.subnqn = a->subnqn,
			.hostid = opts->host_id,
			.nqueues = a->queues ? (uint16_t)a->queues : 1,
			.depth = (uint16_t)MIN(
				a->depth ? a->depth : depth, (uint32_t)NVME_ADDRESS_DEPTH_MAX),
			.hdgst = a->hdgst,
			.ddgst = a->ddgst,
			.zero_copy = a->zero_copy,
			.keep_alive_ms = a->keep_alive_ms ? a->keep_alive_ms : KEEP_ALIVE_MS,
			.reconnect_min_ms = RECONNECT_MIN,
			.reconnect_max_ms = RECONNECT_MAX},
		.npaths = a->npaths,
		.nsid = a->nsid,
		.depth = depth * PARTS_PER_IO,
		.io_timeout_ms = FLASH_GONE_MS / 2,
		.restart_min_ms = a->restart_min_ms,
	};

	for (unsigned int i = 0; i < a->npaths; i++) {
		memcpy(cfg.paths[i].host, a->paths[i].host, sizeof(cfg.paths[i].host));
		cfg.paths[i].port = a->paths[i].port;
	}
	return nvmf_dev_open(sh, &cfg, NULL, NULL, out, err);
}

static int take_info(
	struct remote *r, const char *where, const struct flash_opts *opts, struct err *err)
{
	const struct nvmf_dev_info *dev = nvmf_dev_info(r->dev);
	struct flash_info *info = &r->f.info;

	r->unit = dev->block_bytes;
	info->block_bytes = opts->block_bytes ? opts->block_bytes : dev->block_bytes;
	if (dev->block_bytes > 4096 || info->block_bytes < dev->block_bytes)
		return err_set(err, -EINVAL, where, "block size",
			"%u is %s the namespace's blocks of %u", info->block_bytes,
			dev->block_bytes > 4096 ? "what is asked for; not supported are"
						: "less than",
			dev->block_bytes);
	info->size_bytes = dev->nblocks * dev->block_bytes;
	info->size_bytes -= info->size_bytes % info->block_bytes;
	if (!info->size_bytes)
		return err_set(err, -EINVAL, where, "size", "it is less than a block");
	info->atomic_bytes = opts->atomic_bytes ? opts->atomic_bytes
						: MAX(dev->atomic_bytes, info->block_bytes);
	info->volatile_cache = dev->volatile_cache;
	info->depth = opts->depth;
	return 0;
}

static int alloc(struct remote *r)
{
	uint32_t depth = r->f.info.depth, nparts = depth * PARTS_PER_IO,
		 pieces = nvmf_dev_info(r->dev)->max_pieces;

	r->slots = calloc(depth, sizeof(r->slots[0]));
	r->free_slots = calloc(depth, sizeof(r->free_slots[0]));
	r->parts = calloc(nparts, sizeof(r->parts[0]));
	r->iovs = calloc((size_t)nparts * pieces, sizeof(r->iovs[0]));
	if (!r->slots || !r->free_slots || !r->parts || !r->iovs ||
		posix_memalign(&r->bounce_mem, 4096, (size_t)NBOUNCE * r->unit))
		return -ENOMEM;
	for (uint32_t i = depth; i-- > 0;)
		r->free_slots[r->nfree++] = &r->slots[i];
	for (uint32_t i = nparts; i-- > 0;) {
		struct part *p = &r->parts[i];

		p->r = r;
		p->iov = &r->iovs[(size_t)i * pieces];
		p->io.done_fn = part_done;
		SLIST_INSERT_HEAD(&r->free_parts, p, link);
	}
	for (uint32_t i = 0; i < NBOUNCE; i++)
		SLIST_INSERT_HEAD(&r->bounces,
			(struct bounce *)((char *)r->bounce_mem + (size_t)i * r->unit), link);
	return 0;
}

/* Connected: with what was warmed, for what is left of its time. */
static int reach(struct remote *r, const char *transport, const char *where,
	const struct nvme_address *a, const struct flash_opts *opts, struct err *err)
{
	uint64_t now = shard_now_ns(r->f.sh), since = now,
		 limit = opts->connect_ms ? opts->connect_ms : CONNECT_MS;
	uint64_t gone_ms;
	int rc = 0;

	r->dev = remote_warm_take(r->f.sh, transport, where, &since);
	if (!r->dev)
		rc = remote_connect(r->f.sh, transport, a, opts, &r->dev, err);
	if (rc < 0)
		return rc;
	gone_ms = (now - since) / 1000000;
	return nvmf_dev_wait(r->dev, (uint32_t)(gone_ms < limit ? limit - gone_ms : 1), err);
}

static int open_transport(struct shard *sh, const char *transport, const char *where,
	const struct flash_opts *opts, struct flash **out, struct err *err)
{
	struct nvme_address a;
	struct remote *r;
	int rc = nvme_address_parse_rest(!strcmp(transport, "rdma"), where, &a, where, NULL, err);

	if (rc < 0)
		return rc;
	r = calloc(1, sizeof(*r));
	if (!r)
		return err_set(err, -ENOMEM, where, NULL, "no memory");
	r->f.ops = &remote_ops;
	r->f.sh = sh;
	TAILQ_INIT(&r->hungry);
	TAILQ_INIT(&r->over);
	snprintf(r->use.subnqn, sizeof(r->use.subnqn), "%s", a.subnqn);
	r->use.nsid = a.nsid;
	r->use.exclusive = opts->exclusive;
	r->use.slice = slice_of(opts);
	rc = remote_use_begin(sh, &r->use, where, err);
	r->used = rc == 0;
	if (rc == 0)
		rc = reach(r, transport, where, &a, opts, err);
	if (rc == 0)
		rc = take_info(r, where, opts, err);
	if (rc == 0)
		rc = remote_use_settle(&r->use, where, r->f.info.size_bytes, err);
	if (rc == 0 && (rc = alloc(r)) < 0)
		err_set(err, rc, where, NULL, "no memory");
	if (rc < 0) {
		remote_close(&r->f);
		return rc;
	}
	*out = &r->f;
	return 0;
}

static int open_tcp(struct shard *sh, const char *where, const struct flash_opts *opts,
	struct flash **out, struct err *err)
{
	return open_transport(sh, "tcp", where, opts, out, err);
}

static int open_rdma(struct shard *sh, const char *where, const struct flash_opts *opts,
	struct flash **out, struct err *err)
{
	return open_transport(sh, "rdma", where, opts, out, err);
}

static void warm_tcp(struct shard *sh, const char *where, const struct flash_opts *opts)
{
	remote_warm(sh, "tcp", where, opts);
}

static void warm_rdma(struct shard *sh, const char *where, const struct flash_opts *opts)
{
	remote_warm(sh, "rdma", where, opts);
}

static bool is_warm_tcp(struct shard *sh, const char *where)
{
	return remote_is_warm(sh, "tcp", where);
}

static bool is_warm_rdma(struct shard *sh, const char *where)
{
	return remote_is_warm(sh, "rdma", where);
}

const struct flash_backend flash_backend_tcp = {.scheme = "nvme+tcp",
	.open = open_tcp,
	.warm = warm_tcp,
	.is_warm = is_warm_tcp,
	.cool = remote_cool};
const struct flash_backend flash_backend_rdma = {
	.scheme = "nvme+rdma", .open = open_rdma, .warm = warm_rdma, .is_warm = is_warm_rdma};
