/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/nvmf_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <uuid/uuid.h>

#include "common/base/log.h"
#include "common/base/util.h"

#define NS_PER_MS          1000000ULL
#define TICK_NS            (100 * NS_PER_MS)
#define CSTS_EVERY_NS      (10 * NS_PER_MS)
#define DEFAULT_CONNECT_MS 10000
#define DEFAULT_IO_MS      30000
#define DEFAULT_DEPTH      128
#define DEFAULT_RETRY_MAX  10000
#define PAGE_SHIFT_MIN     12 /* CAP.MPSMIN 0 */
#define MAX_IO_DEFAULT     (1U << 20) /* where the controller sets no limit, ours */

static const struct nvmf_transport *const transports[] = {&nvmf_tcp, &nvmf_rdma};

static void step_run(struct nvmf *n);

/* ---- losing and trying again ----------------------------------------------------------------------------- */

static void attempt(struct nvmf *n);

static void retry_fire(void *arg)
{
	attempt(arg);
}

/* When to try again: true when it will be tried. */
static bool plan_retry(struct nvmf *n)
{
	uint64_t now = shard_now_ns(n->sh), wait_ns;

	if (!n->cfg.reconnect_min_ms)
		return false;
	if (!n->lost_since_ns)
		n->lost_since_ns = now;
	if (n->cfg.reconnect_for_ms &&
		now - n->lost_since_ns >= n->cfg.reconnect_for_ms * NS_PER_MS)
		return false;
	n->retry_ms = n->retry_ms ? MIN(n->retry_ms * 2, n->cfg.reconnect_max_ms)
				  : n->cfg.reconnect_min_ms;
	/* A quarter of chance keeps many initiators of one target from knocking together. */
	wait_ns = n->retry_ms * NS_PER_MS;
	wait_ns += shard_random(n->sh) % (wait_ns / 4 + 1);
	return timer_arm(n->sh, &n->retry_timer, now + wait_ns, retry_fire, n) == 0;
}

static void stop_all(struct nvmf *n)
{
	timer_disarm(n->sh, &n->step_timer);
	timer_disarm(n->sh, &n->csts_timer);
	timer_disarm(n->sh, &n->tick_timer);
	timer_disarm(n->sh, &n->retry_timer);
	for (uint16_t i = 0; i <= n->cfg.nqueues; i++) {
		struct nvmf_queue *q = &n->queues[i];

		if (q->opened)
			n->transport->stop(q);
		q->opened = q->live = false;
	}
}

/* Only when every connection is down does a command end: its buffers are nobody's any more. */
static void drain_all(struct nvmf *n, int err)
{
	for (uint16_t i = 0; i <= n->cfg.nqueues; i++)
		nvmf_queue_drain(&n->queues[i], err);
	n->keep_alive_busy = n->aer_busy = false;
}

static void lost_run(void *arg)
{
	struct nvmf *n = arg;
	int err = n->lost_err;
	bool retrying;

	nvmf_set_state(n, NVMF_IDLE);
	n->stats.losses++;
	stop_all(n);
	drain_all(n, err);
	n->lost = false;
	retrying = plan_retry(n);
	if (retrying)
		nvmf_set_state(n, NVMF_WAITING);
	if (n->ev && n->ev->lost_fn)
		n->ev->lost_fn(n, n->arg, err, retrying);
}

void nvmf_lost(struct nvmf *n, int err, const char *what)
{
	if (n->lost || n->state == NVMF_IDLE || n->state == NVMF_WAITING)
		return;
	n->lost = true;
	n->lost_err = err;
	err_set(&n->err, err, n->subnqn, NULL, "%s (%s port %u)", what, n->host, n->cfg.port);
	shard_defer(n->sh, &n->lost_task, lost_run, n);
}

void nvmf_queue_lost(struct nvmf_queue *q, int err, const char *what)
{
	nvmf_lost(q->n, err, what);
}

static void attempt_timeout(void *arg)
{
	nvmf_lost(arg, -ETIMEDOUT, "the target did not finish connecting in time");
}

static void tick(void *arg)
{
	struct nvmf *n = arg;

	for (uint16_t i = 0; i <= n->cfg.nqueues && !n->lost; i++)
		if (n->queues[i].opened)
			nvmf_queue_tick(&n->queues[i]);
	(void)timer_arm(n->sh, &n->tick_timer, shard_now_ns(n->sh) + TICK_NS, tick, n);
}

static void attempt(struct nvmf *n)
{
	uint64_t now = shard_now_ns(n->sh);

	n->step = NVMF_STEP_ADMIN;
	nvmf_set_state(n, NVMF_CONNECTING);
	n->nqueues = 0;
	n->id.acl = 0;
	n->max_io_bytes = MAX_IO_DEFAULT;
	if (timer_arm(n->sh, &n->step_timer, now + n->cfg.connect_timeout_ms * NS_PER_MS,
		    attempt_timeout, n) < 0 ||
		timer_arm(n->sh, &n->tick_timer, now + TICK_NS, tick, n) < 0)
		nvmf_lost(n, -ENOMEM, "out of memory");
	else
		step_run(n);
}

/* ---- Connect ------------------------------------------------------------------------------------------------ */

static void step_next(struct nvmf *n)
{
	n->step++;
	step_run(n);
}

/* A setup command that did not succeed: its status is the reason. */
static bool setup_ok(struct nvmf *n, const struct nvmf_io *io, const char *what)
{
	char text[160];

	if (io->err) /* the connection is lost; who noticed has said why */
		return false;
	if (!NVME_SC_CODE(io->status))
		return true;
	snprintf(text, sizeof(text), "%s: %s (status %#x)", what, nvme_status_name(io->status),
		NVME_SC_CODE(io->status));
	nvmf_lost(n, io->status & NVME_SC_DNR ? -ECONNREFUSED : -EAGAIN, text);
	return false;
}

static void connect_done(struct nvmf_io *io)
{
	struct nvmf_queue *q = io->arg;
	struct nvmf *n = q->n;

	if (!setup_ok(n, io, "Connect was refused"))
		return;
	q->live = true;
	if (q->qid) {
		if (++n->nlive == n->nqueues)
			step_next(n);
		return;
	}
	if (io->result >> 16 & 0xffff) {
		nvmf_lost(n, -EACCES, "the target asks for authentication");
		return;
	}
	n->cntlid = NVME_CONNECT_RESULT_CNTLID(io->result);
	step_next(n);
}

void nvmf_queue_up(struct nvmf_queue *q)
{
	struct nvmf *n = q->n;
	struct nvmf_io *io = &q->connect_io;
	struct nvme_connect c = {
		.qid = q->qid,
		.sqsize = q->depth,
		.cntlid = q->qid ? n->cntlid : NVME_CNTLID_ANY,
		.kato_ms = q->qid ? 0 : n->cfg.keep_alive_ms,
		.no_sqflow = n->cfg.no_sqflow,
		.hostid = n->hostid,
		.subnqn = n->subnqn,
		.hostnqn = n->hostnqn,
	};
	int rc;

	*io = (struct nvmf_io){
		.done_fn = connect_done, .arg = q, .iov = &q->connect_iov, .niov = 1};
	q->connect_iov = (struct iovec){&q->connect_data, sizeof(q->connect_data)};
	rc = nvme_connect_fill(&io->sqe, &q->connect_data, &c);
	if (rc == 0)
		rc = nvmf_queue_submit(q, io);
	if (rc < 0)
		nvmf_lost(n, rc, "cannot send Connect");
}

static void queue_start(struct nvmf *n, uint16_t qid)
{
	struct err e = {0};
	int rc = n->transport->start(&n->queues[qid], &e);

	if (rc < 0)
		nvmf_lost(n, rc, e.reason);
	else
		n->queues[qid].opened = true;
}

/* ---- the steps ------------------------------------------------------------------------------------------------ */

static void setup_submit(
	struct nvmf *n, void (*done_fn)(struct nvmf_io *io), void *data, size_t len)
{
	int rc;

	n->setup.done_fn = done_fn;
	n->setup.arg = n;
	n->setup_iov = (struct iovec){data, len};
	n->setup.iov = &n->setup_iov;
	n->setup.niov = len ? 1 : 0;
	rc = nvmf_queue_submit(&n->queues[0], &n->setup);
	if (rc < 0)
		nvmf_lost(n, rc, "cannot send a command");
}

static void start_admin(struct nvmf *n)
{
	struct nvmf_queue *q = &n->queues[0];

	q->depth = NVMF_ADMIN_DEPTH - 1;
	q->capsule_bytes = n->transport->admin_capsule_bytes;
	q->capsule_offset = 0;
	queue_start(n, 0);
}

static void property_done(struct nvmf_io *io);

static void start_cap(struct nvmf *n)
{
	nvme_property_get_fill(&n->setup.sqe, 0, NVME_PROP_CAP, 8);
	setup_submit(n, property_done, NULL, 0);
}

static void start_vs(struct nvmf *n)
{
	nvme_property_get_fill(&n->setup.sqe, 0, NVME_PROP_VS, 4);
	setup_submit(n, property_done, NULL, 0);
}

static void start_enable(struct nvmf *n)
{
	uint32_t cc = NVME_CC_EN | 6U << NVME_CC_IOSQES_SHIFT | 4U << NVME_CC_IOCQES_SHIFT;

	nvme_property_set_fill(&n->setup.sqe, 0, NVME_PROP_CC, 4, cc);
	setup_submit(n, property_done, NULL, 0);
}

static void start_csts(struct nvmf *n)
{
	nvme_property_get_fill(&n->setup.sqe, 0, NVME_PROP_CSTS, 4);
	setup_submit(n, property_done, NULL, 0);
}

static void csts_again(void *arg)
{
	start_csts(arg);
}

static void csts_judge(struct nvmf *n, uint32_t csts)
{
	if (csts & NVME_CSTS_CFS)
		nvmf_lost(n, -EIO, "the controller reports a fatal status");
	else if (csts & NVME_CSTS_RDY)
		step_next(n);
	else if (timer_arm(n->sh, &n->csts_timer, shard_now_ns(n->sh) + CSTS_EVERY_NS, csts_again,
			 n) < 0)
		nvmf_lost(n, -ENOMEM, "out of memory");
}

static void property_done(struct nvmf_io *io)
{
	struct nvmf *n = io->arg;

	if (!setup_ok(n, io, "enabling the controller"))
		return;
	if (n->step == NVMF_STEP_CSTS) {
		csts_judge(n, (uint32_t)io->result);
		return;
	}
	if (n->step == NVMF_STEP_CAP)
		n->cap = io->result;
	if (n->step == NVMF_STEP_VS)
		n->vs = (uint32_t)io->result;
	step_next(n);
}

/* What one command may move, and how much of a write goes with its capsule. */
static bool take_limits(struct nvmf *n)
{
	uint32_t shift = PAGE_SHIFT_MIN + NVME_CAP_MPSMIN(n->cap) + n->id.mdts;
	uint32_t capsule = 0, offset = 0;
	const char *what = n->transport->capsule(&n->id, &capsule, &offset);

	if (what) {
		nvmf_lost(n, -EPROTONOSUPPORT, what);
		return false;
	}
	n->max_io_bytes = n->id.mdts && shift < 20 ? 1U << shift : MAX_IO_DEFAULT;
	for (uint16_t i = 1; i <= n->cfg.nqueues; i++) {
		n->queues[i].capsule_bytes = MIN(capsule, MAX_IO_DEFAULT);
		n->queues[i].capsule_offset = offset;
		n->queues[i].depth = (uint16_t)MIN(n->cfg.depth, MAX(NVME_CAP_MQES(n->cap), 1));
	}
	return true;
}

/* A target rounds the keep-alive timeout up to its granularity, and may take two of them to notice a loss. */
static void take_quiet(struct nvmf *n)
{
	uint64_t kato_ms = n->cfg.keep_alive_ms, unit_ms = from_le16(n->id.kas) * 100ULL;

	if (unit_ms)
		kato_ms = DIV_ROUND_UP(kato_ms, unit_ms) * unit_ms;
	n->quiet_ns = (2 * kato_ms + from_le16(n->id.cqt)) * NS_PER_MS;
}

static void identify_done(struct nvmf_io *io)
{
	struct nvmf *n = io->arg;

	if (!setup_ok(n, io, "Identify"))
		return;
	if (!take_limits(n))
		return;
	take_quiet(n);
	step_next(n);
}

static void start_identify(struct nvmf *n)
{
	nvme_sqe_set_identify(&n->setup.sqe, 0, 0, NVME_CNS_CTRL);
	setup_submit(n, identify_done, &n->id, sizeof(n->id));
}

static void num_queues_done(struct nvmf_io *io)
{
	struct nvmf *n = io->arg;
	uint32_t sq = (uint32_t)(io->result & 0xffff) + 1,
		 cq = (uint32_t)(io->result >> 16 & 0xffff) + 1;

	if (!setup_ok(n, io, "the number of queues"))
		return;
	n->nqueues = (uint16_t)MIN(n->cfg.nqueues, MIN(sq, cq));
	step_next(n);
}

static void start_num_queues(struct nvmf *n)
{
	uint32_t want = n->cfg.nqueues - 1U;

	if (!n->cfg.nqueues) {
		step_next(n);
		return;
	}
	nvme_sqe_init(&n->setup.sqe, NVME_ADMIN_SET_FEATURES, 0, 0);
	n->setup.sqe.cdw10 = to_le32(NVME_FEAT_NUM_QUEUES);
	n->setup.sqe.cdw11 = to_le32(want << 16 | want);
	setup_submit(n, num_queues_done, NULL, 0);
}

static void async_config_done(struct nvmf_io *io)
{
	if (!io->err) /* a target without the feature just sends no such events */
		step_next(io->arg);
}

static void start_async_config(struct nvmf *n)
{
	uint32_t want = from_le32(n->id.oaes) &
			(NVME_OAES_NS_ATTR | NVME_OAES_ANA_CHANGE | NVME_OAES_DISC_CHANGE);

	if (!want) {
		step_next(n);
		return;
	}
	nvme_sqe_init(&n->setup.sqe, NVME_ADMIN_SET_FEATURES, 0, 0);
	n->setup.sqe.cdw10 = to_le32(NVME_FEAT_ASYNC_EVENT);
	n->setup.sqe.cdw11 = to_le32(want);
	setup_submit(n, async_config_done, NULL, 0);
}

static void start_io_queues(struct nvmf *n)
{
	n->nlive = 0;
	if (!n->nqueues) {
		step_next(n);
		return;
	}
	for (uint16_t i = 1; i <= n->nqueues && !n->lost; i++)
		queue_start(n, i);
}

static const struct {
	const char *name;
	void (*start_fn)(struct nvmf *n);
} steps[NVMF_NSTEPS] = {
	[NVMF_STEP_ADMIN] = {"connecting", start_admin},
	[NVMF_STEP_CAP] = {"reading capabilities", start_cap},
	[NVMF_STEP_VS] = {"reading the version", start_vs},
	[NVMF_STEP_ENABLE] = {"enabling", start_enable},
	[NVMF_STEP_CSTS] = {"waiting for the controller", start_csts},
	[NVMF_STEP_IDENTIFY] = {"identifying", start_identify},
	[NVMF_STEP_NUM_QUEUES] = {"asking for queues", start_num_queues},
	[NVMF_STEP_ASYNC_CONFIG] = {"configuring events", start_async_config},
	[NVMF_STEP_IO_QUEUES] = {"connecting I/O queues", start_io_queues},
};

/* ---- ready: keep-alive and asynchronous events -------------------------------------------------------------------- */

static void keep_alive_done(struct nvmf_io *io)
{
	struct nvmf *n = io->arg;

	n->keep_alive_busy = false;
	if (!io->err && NVME_SC_CODE(io->status))
		nvmf_lost(n, -ENOTCONN, "the target refuses Keep Alive");
}

/* Twice per period: an unanswered one is found by the next. */
static void keep_alive_fire(void *arg)
{
	struct nvmf *n = arg;
	int rc = -EAGAIN;

	if (n->keep_alive_busy) {
		nvmf_lost(n, -ETIMEDOUT, "no answer to Keep Alive");
		return;
	}
	n->keep_alive = (struct nvmf_io){
		.done_fn = keep_alive_done, .arg = n, .timeout_ms = n->cfg.keep_alive_ms};
	nvme_sqe_init(&n->keep_alive.sqe, NVME_ADMIN_KEEP_ALIVE, 0, 0);
	rc = nvmf_queue_submit(&n->queues[0], &n->keep_alive);
	n->keep_alive_busy = rc == 0;
	if (rc < 0 && rc != -EAGAIN) {
		nvmf_lost(n, rc, "cannot send Keep Alive");
		return;
	}
	(void)timer_arm(n->sh, &n->step_timer,
		shard_now_ns(n->sh) + n->cfg.keep_alive_ms * NS_PER_MS / 2, keep_alive_fire, n);
}

static void aer_submit(struct nvmf *n);

static void aer_done(struct nvmf_io *io)
{
	struct nvmf *n = io->arg;
	uint32_t result = (uint32_t)io->result; /* io is sent again */

	n->aer_busy = false;
	if (io->err || NVME_SC_CODE(io->status) || n->lost)
		return;
	aer_submit(n);
	if (n->ev && n->ev->async_fn)
		n->ev->async_fn(n, n->arg, result);
}

/* A target that takes none simply sends no events. */
static void aer_submit(struct nvmf *n)
{
	n->aer = (struct nvmf_io){.done_fn = aer_done, .arg = n, .timeout_ms = UINT32_MAX};
	nvme_sqe_init(&n->aer.sqe, NVME_ADMIN_ASYNC_EVENT, 0, 0);
	n->aer_busy = nvmf_queue_submit(&n->queues[0], &n->aer) == 0;
}

static void become_ready(struct nvmf *n)
{
	timer_disarm(n->sh, &n->step_timer);
	nvmf_set_state(n, NVMF_READY);
	n->lost_since_ns = 0;
	n->retry_ms = 0;
	aer_submit(n);
	if (n->cfg.keep_alive_ms)
		(void)timer_arm(n->sh, &n->step_timer,
			shard_now_ns(n->sh) + n->cfg.keep_alive_ms * NS_PER_MS / 2, keep_alive_fire,
			n);
	if (n->ev && n->ev->ready_fn)
		n->ev->ready_fn(n, n->arg);
}

static void step_run(struct nvmf *n)
{
	if (n->lost)
		return;
	if (n->step == NVMF_NSTEPS)
		become_ready(n);
	else
		steps[n->step].start_fn(n);
}

/* ---- life ------------------------------------------------------------------------------------------------------------ */

static const struct nvmf_transport *transport_find(const char *name)
{
	for (size_t i = 0; i < ARRAY_LEN(transports); i++)
		if (!strcmp(transports[i]->name, name ? name : "tcp"))
			return transports[i];
	return NULL;
}

/* Whoever gives a host NQN gets the same host identifier each time; without one the host is a new one. */
static int take_identity(struct nvmf *n, const struct nvmf_cfg *cfg, struct err *err)
{
	static const uuid_t space = {
		0x70, 0x61, 0x72, 0x61, 0x70, 0x65, 0x74, 0x2d, 0x6e, 0x76, 0x6d, 0x66, 0, 0, 0, 1};
	char text[37];

	if (!cfg->subnqn || !nvme_nqn_ok(cfg->subnqn))
		return err_set(err, -EINVAL, cfg->subnqn, "subnqn",
			"is not an NVMe qualified name (nqn...., at most %d characters)",
			NVME_NQN_MAX);
	if (cfg->hostnqn && !nvme_nqn_ok(cfg->hostnqn))
		return err_set(
			err, -EINVAL, cfg->hostnqn, "hostnqn", "is not an NVMe qualified name");
	if (cfg->hostid)
		memcpy(n->hostid, cfg->hostid, sizeof(n->hostid));
	else if (cfg->hostnqn)
		uuid_generate_sha1(n->hostid, space, cfg->hostnqn, strlen(cfg->hostnqn));
	else
		uuid_generate(n->hostid);
	uuid_unparse_lower(n->hostid, text);
	if (cfg->hostnqn)
		snprintf(n->hostnqn, sizeof(n->hostnqn), "%s", cfg->hostnqn);
	else
		snprintf(
			n->hostnqn, sizeof(n->hostnqn), "nqn.2014-08.org.nvmexpress:uuid:%s", text);
	snprintf(n->subnqn, sizeof(n->subnqn), "%s", cfg->subnqn);
	return 0;
}

static int take_cfg(struct nvmf *n, const struct nvmf_cfg *cfg, struct err *err)
{
	struct nvmf_cfg *c = &n->cfg;

	*c = *cfg;
	n->transport = transport_find(cfg->transport);
	if (!n->transport)
		return err_set(err, -EINVAL, cfg->transport, "transport",
			"is not known; tcp and rdma are");
	if (!cfg->host || strlen(cfg->host) >= sizeof(n->host))
		return err_set(err, -EINVAL, cfg->host, "host", "is not a numeric address");
	if (cfg->nqueues > NVMF_QUEUES_MAX || cfg->depth >= NVMF_DEPTH_MAX)
		return err_set(err, -EINVAL, cfg->subnqn,
			cfg->nqueues > NVMF_QUEUES_MAX ? "nqueues" : "depth",
			"at most %d queues of depth %d", NVMF_QUEUES_MAX, NVMF_DEPTH_MAX - 1);
	snprintf(n->host, sizeof(n->host), "%s", cfg->host);
	c->host = n->host;
	c->port = cfg->port ? cfg->port : 4420;
	c->depth = cfg->depth ? cfg->depth : DEFAULT_DEPTH;
	c->connect_timeout_ms = cfg->connect_timeout_ms ? cfg->connect_timeout_ms
							: DEFAULT_CONNECT_MS;
	c->io_timeout_ms = cfg->io_timeout_ms ? cfg->io_timeout_ms : DEFAULT_IO_MS;
	c->reconnect_max_ms = MAX(cfg->reconnect_max_ms ? cfg->reconnect_max_ms : DEFAULT_RETRY_MAX,
		cfg->reconnect_min_ms);
	return take_identity(n, cfg, err);
}

int nvmf_open(struct shard *sh, const struct nvmf_cfg *cfg, const struct nvmf_events *ev, void *arg,
	struct nvmf **out, struct err *err)
{
	struct nvmf *n = calloc(1, sizeof(*n));
	int rc;

	if (!n)
		return err_set(err, -ENOMEM, cfg->subnqn, NULL, "out of memory");
	n->sh = sh;
	n->ev = ev;
	n->arg = arg;
	rc = take_cfg(n, cfg, err);
	if (rc < 0)
		goto fail;
	rc = -ENOMEM;
	n->queues = calloc(1U + n->cfg.nqueues, sizeof(n->queues[0]));
	if (!n->queues)
		goto nomem;
	for (uint16_t i = 0; i <= n->cfg.nqueues; i++) {
		n->queues[i].n = n;
		rc = nvmf_queue_init(n, i, i ? n->cfg.depth : NVMF_ADMIN_DEPTH);
		if (rc < 0)
			goto nomem;
	}
	attempt(n);
	*out = n;
	return 0;
nomem:
	err_set(err, rc, n->subnqn, NULL, "out of memory");
fail:
	nvmf_close(n);
	return rc;
}

static const char *state_name(const struct nvmf *n)
{
	switch (n->state) {
	case NVMF_IDLE:
		return "not connected";
	case NVMF_WAITING:
		return "waiting to connect again";
	case NVMF_CONNECTING:
		return n->step < NVMF_NSTEPS ? steps[n->step].name : "connecting";
	case NVMF_READY:
		return "ready";
	case NVMF_SHUTTING:
		return "shutting down";
	}
	return "?";
}

void nvmf_set_state(struct nvmf *n, enum nvmf_state state)
{
	const char *was = state_name(n);

	n->state = state;
	log_debug("nvmf: %s: %s -> %s", n->subnqn, was, state_name(n));
}

void nvmf_close(struct nvmf *n)
{
	if (!n)
		return;
	nvmf_set_state(n, NVMF_IDLE);
	shard_undefer(n->sh, &n->lost_task);
	if (n->queues) {
		stop_all(n);
		drain_all(n, -ECANCELED);
		for (uint16_t i = 0; i <= n->cfg.nqueues; i++)
			nvmf_queue_fini(&n->queues[i]);
	}
	free(n->queues);
	free(n);
}

void nvmf_set_io_timeout(struct nvmf *n, uint32_t ms)
{
	n->cfg.io_timeout_ms = ms;
}

bool nvmf_is_ready(const struct nvmf *n)
{
	return n->state == NVMF_READY && !n->lost;
}

const struct err *nvmf_error(const struct nvmf *n)
{
	return &n->err;
}

const struct nvmf_stats *nvmf_stats(const struct nvmf *n)
{
	return &n->stats;
}

uint64_t nvmf_heard_ns(const struct nvmf *n)
{
	return n->heard_ns;
}

const struct nvme_id_ctrl *nvmf_id(const struct nvmf *n)
{
	return &n->id;
}

uint16_t nvmf_nqueues(const struct nvmf *n)
{
	return n->nqueues;
}

uint16_t nvmf_depth(const struct nvmf *n)
{
	return n->nqueues ? n->queues[1].depth : 0;
}

uint32_t nvmf_max_io_bytes(const struct nvmf *n)
{
	return n->max_io_bytes;
}

uint32_t nvmf_max_pieces(const struct nvmf *n)
{
	uint32_t max = NVMF_IOV_MAX;

	if (n->nqueues && n->transport->max_pieces)
		max = n->transport->max_pieces(&n->queues[1]);
	return MAX(MIN(max, (uint32_t)NVMF_IOV_MAX), 1u);
}

uint64_t nvmf_quiet_after_loss_ns(const struct nvmf *n)
{
	return n->quiet_ns;
}

struct nvmf_queue *nvmf_queue(struct nvmf *n, uint16_t qid)
{
	return qid <= n->nqueues ? &n->queues[qid] : NULL;
}
