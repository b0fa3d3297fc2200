/* SPDX-License-Identifier: BSD-3-Clause */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <uuid/uuid.h>

#include "common/base/util.h"
#include "dpu/nvmf/dev_priv.h"
#include "dpu/nvmf/nvmf_priv.h"

#define DEFAULT_PORT          4420
#define DEFAULT_TIMEOUT_MS    4000
#define DEFAULT_KEEP_ALIVE_MS 2000 /* without one nobody knows when a lost connection is over */
#define RECONNECT_MIN_MS      100
#define RECONNECT_MAX_MS      2000
#define GHOSTS_PER_IO         4
#define DEFAULT_RESTART_MS    8000

/* ---- open, close, abandon ------------------------------------------------------------------------------------ */

static int check(const struct nvmf_dev_cfg *cfg, struct err *err)
{
	if (cfg->npaths < 1 || cfg->npaths > NVMF_PATHS_MAX)
		return err_set(err, -EINVAL, cfg->ctrl.subnqn, "paths", "%u of them: 1 to %d work",
			cfg->npaths, NVMF_PATHS_MAX);
	if (!cfg->nsid || cfg->nsid == NVME_NSID_ALL)
		return err_set(err, -EINVAL, cfg->ctrl.subnqn, "namespace",
			"%u is not the number of one", cfg->nsid);
	return 0;
}

/* hostid: room for one that all paths share, where the caller has none. */
static void take_cfg(
	struct nvmf_dev *d, const struct nvmf_dev_cfg *cfg, struct nvmf_cfg *ctrl, uuid_t hostid)
{
	d->nsid = cfg->nsid;
	d->io_timeout_ms = cfg->io_timeout_ms ? cfg->io_timeout_ms : DEFAULT_TIMEOUT_MS;
	d->restart_min_ns = (cfg->restart_min_ms ? cfg->restart_min_ms : DEFAULT_RESTART_MS) *
			    DEV_NS_PER_MS;
	snprintf(d->name, sizeof(d->name), "%s namespace %u", cfg->ctrl.subnqn, cfg->nsid);
	*ctrl = cfg->ctrl;
	if (!ctrl->hostid && !ctrl->hostnqn) {
		uuid_generate(hostid);
		ctrl->hostid = hostid;
	}
	if (!ctrl->nqueues)
		ctrl->nqueues = 1;
	if (!ctrl->keep_alive_ms)
		ctrl->keep_alive_ms = DEFAULT_KEEP_ALIVE_MS;
	if (!ctrl->reconnect_min_ms) {
		ctrl->reconnect_min_ms = RECONNECT_MIN_MS;
		ctrl->reconnect_max_ms = RECONNECT_MAX_MS;
		ctrl->reconnect_for_ms = 0;
	}
	ctrl->io_timeout_ms = d->io_timeout_ms;
}

static int open_path(struct nvmf_dev *d, const struct nvmf_path_addr *addr, struct nvmf_cfg *ctrl,
	struct err *err)
{
	struct path *p = &d->paths[d->npaths];

	p->d = d;
	p->addr = *addr;
	if (!p->addr.port)
		p->addr.port = DEFAULT_PORT;
	p->page_bytes = NVME_IDENTIFY_SIZE;
	p->page = calloc(1, p->page_bytes);
	if (!p->page)
		return err_set(err, -ENOMEM, d->name, NULL, "out of memory");
	ctrl->host = p->addr.host;
	ctrl->port = p->addr.port;
	d->npaths++;
	return nvmf_open(d->sh, ctrl, &path_events, p, &p->n, err);
}

int nvmf_dev_open(struct shard *sh, const struct nvmf_dev_cfg *cfg,
	const struct nvmf_dev_events *ev, void *arg, struct nvmf_dev **out, struct err *err)
{
	struct nvmf_dev *d;
	struct nvmf_cfg ctrl;
	uuid_t hostid;
	int rc = check(cfg, err);

	if (rc < 0)
		return rc;
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(err, -ENOMEM, cfg->ctrl.subnqn, NULL, "out of memory");
	d->sh = sh;
	d->ev = ev;
	d->arg = arg;
	TAILQ_INIT(&d->waiting);
	TAILQ_INIT(&d->held);
	TAILQ_INIT(&d->done);
	take_cfg(d, cfg, &ctrl, hostid);
	for (d->npaths = 0; rc == 0 && d->npaths < cfg->npaths;)
		rc = open_path(d, &cfg->paths[d->npaths], &ctrl, err);
	if (rc == 0) {
		const struct nvmf *n = d->paths[0].n; /* its defaults are everybody's */

		memcpy(d->hostid, n->hostid, sizeof(d->hostid));
		d->depth = cfg->depth ? cfg->depth : (uint32_t)n->cfg.depth * n->cfg.nqueues;
		d->max_ghosts = d->depth * GHOSTS_PER_IO;
		d->ghosts = calloc(d->max_ghosts, sizeof(d->ghosts[0]));
		if (!d->ghosts)
			rc = err_set(err, -ENOMEM, d->name, NULL, "out of memory");
	}
	if (rc < 0) {
		nvmf_dev_close(d);
		return rc;
	}
	*out = d;
	return 0;
}

void nvmf_dev_close(struct nvmf_dev *d)
{
	if (!d)
		return;
	assert(!d->in_flight);
	for (unsigned int i = 0; i < d->npaths; i++) {
		path_close(&d->paths[i]);
		free(d->paths[i].page);
	}
	claim_leave(d);
	timer_disarm(d->sh, &d->hold_timer);
	shard_undefer(d->sh, &d->task);
	free(d->ghosts);
	free(d);
}

void nvmf_dev_abandon(struct nvmf_dev *d)
{
	if (d->abandoned)
		return;
	d->abandoned = true;
	for (unsigned int i = 0; i < d->npaths; i++) {
		struct path *p = &d->paths[i];

		p->stats = *nvmf_stats(p->n);
		path_close(p);
	}
	dev_end_waiting(d, NVMF_DEV_GONE);
	timer_disarm(d->sh, &d->hold_timer);
	dev_tell(d);
}

/* ---- what it says of itself ------------------------------------------------------------------------------------ */

bool nvmf_dev_is_ready(const struct nvmf_dev *d)
{
	for (unsigned int i = 0; i < d->npaths; i++)
		if (path_is_usable(&d->paths[i]))
			return true;
	return false;
}

const struct nvmf_dev_info *nvmf_dev_info(const struct nvmf_dev *d)
{
	return &d->info;
}

unsigned int nvmf_dev_npaths(const struct nvmf_dev *d)
{
	return d->npaths;
}

void nvmf_dev_path(const struct nvmf_dev *d, unsigned int path, struct nvmf_path_status *out)
{
	const struct path *p = &d->paths[path];

	*out = (struct nvmf_path_status){.addr = p->addr,
		.state = p->state,
		.in_flight = p->in_flight,
		.stats = p->n ? *nvmf_stats(p->n) : p->stats};
	memcpy(out->error, p->error, sizeof(out->error));
}

uint64_t nvmf_dev_quiet_ns(const struct nvmf_dev *d)
{
	return d->quiet_ns > shard_now_ns(d->sh) ? d->quiet_ns : 0;
}

void nvmf_dev_set_timeout(struct nvmf_dev *d, uint32_t io_timeout_ms)
{
	d->io_timeout_ms = io_timeout_ms ? io_timeout_ms : DEFAULT_TIMEOUT_MS;
	for (unsigned int i = 0; i < d->npaths; i++)
		if (d->paths[i].n)
			nvmf_set_io_timeout(d->paths[i].n, d->io_timeout_ms);
}

/* ---- waiting ------------------------------------------------------------------------------------------------------ */

/* Every path has said that it will not do. */
static bool is_unfit(const struct nvmf_dev *d)
{
	for (unsigned int i = 0; i < d->npaths; i++)
		if (!d->paths[i].unfit)
			return false;
	return true;
}

static bool is_settled(void *arg)
{
	const struct nvmf_dev *d = arg;

	return d->abandoned || nvmf_dev_is_ready(d) || is_unfit(d);
}

int nvmf_dev_wait(struct nvmf_dev *d, uint32_t timeout_ms, struct err *err)
{
	int rc = shard_wait(d->sh, is_settled, d, timeout_ms * DEV_NS_PER_MS);
	const struct path *p = &d->paths[0];

	if (nvmf_dev_is_ready(d))
		return 0;
	if (d->abandoned)
		return err_set(err, -ENODEV, d->name, NULL, "it was given up");
	for (unsigned int i = 0; i < d->npaths; i++)
		if (d->paths[i].error[0])
			p = &d->paths[i];
	if (p->unfit)
		rc = -ENODEV;
	else if (p->error[0] && nvmf_error(p->n)->code)
		rc = nvmf_error(p->n)->code;
	else if (rc == 0)
		rc = -ETIMEDOUT;
	if (p->error[0] && !p->unfit) /* says where */
		return err_set(err, rc, d->name, NULL, "%s", p->error);
	return err_set(err, rc, d->name, NULL, "%s (%s port %u)", p->unfit ? p->error : "no answer",
		p->addr.host, p->addr.port);
}
