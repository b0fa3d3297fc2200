/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "common/nvme/ana.h"
#include "dpu/nvmf/dev_priv.h"
#include "dpu/nvmf/nvmf_priv.h"

#define LOOK_AGAIN_MS  1000 /* while a connected path is of no use */
#define ADMIN_BUSY_MS  50
#define MAX_BLOCKS_CMD 65536u
#define ANA_LOG_MAX    65536u

static void step_go(struct path *p, enum path_step step);

const char *nvmf_path_state_name(enum nvmf_path_state s)
{
	static const char *const names[] = {
		[NVMF_PATH_CONNECTING] = "connecting",
		[NVMF_PATH_LOST] = "lost",
		[NVMF_PATH_OPTIMIZED] = "optimized",
		[NVMF_PATH_NON_OPTIMIZED] = "non-optimized",
		[NVMF_PATH_INACCESSIBLE] = "inaccessible",
	};

	return (unsigned int)s < ARRAY_LEN(names) ? names[s] : "unknown";
}

bool path_is_usable(const struct path *p)
{
	return p->known && p->n && nvmf_is_ready(p->n) &&
	       (p->state == NVMF_PATH_OPTIMIZED || p->state == NVMF_PATH_NON_OPTIMIZED);
}

static void set_state(struct path *p, enum nvmf_path_state state)
{
	struct nvmf_dev *d = p->d;

	if (p->state == state)
		return;
	p->state = state;
	log_info("nvmf: %s: path %s port %u: %s%s%s", d->name, p->addr.host, p->addr.port,
		nvmf_path_state_name(state), p->error[0] ? ": " : "", p->error);
	if (d->ev && d->ev->path_fn)
		d->ev->path_fn(d, d->arg, (unsigned int)(p - d->paths));
}

static void look_fire(void *arg)
{
	path_look(arg, false);
}

static void look_in(struct path *p, uint32_t ms)
{
	(void)timer_arm(
		p->d->sh, &p->look, shard_now_ns(p->d->sh) + ms * DEV_NS_PER_MS, look_fire, p);
}

/* Connected, and of no use: asked again now and then, the peer may be about to come up. */
static void unfit(struct path *p, const char *why)
{
	p->known = false;
	p->unfit = true;
	snprintf(p->error, sizeof(p->error), "%s", why);
	set_state(p, NVMF_PATH_INACCESSIBLE);
	look_in(p, LOOK_AGAIN_MS);
}

/* ---- what the namespace is --------------------------------------------------------------------------------- */

static void copy_text(char *dst, const char *src, size_t len)
{
	while (len && (src[len - 1] == ' ' || !src[len - 1]))
		len--;
	memcpy(dst, src, len);
	dst[len] = 0;
	for (size_t i = 0; i < len; i++)
		if (dst[i] < ' ' || dst[i] > '~')
			dst[i] = '?';
}

/* The largest power of two of bytes that power loss cannot tear, wherever it is aligned to itself. */
static uint32_t atomic_bytes(
	const struct nvme_id_ctrl *ctrl, const struct nvme_id_ns *ns, uint32_t block_bytes)
{
	uint32_t blocks = from_le16(ctrl->awupf) + 1u, unit = 1;

	if (ns->nsfeat & NVME_NSFEAT_NSABP) {
		blocks = from_le16(ns->nawupf) + 1u;
		if (from_le16(ns->nabspf))
			blocks = from_le16(ns->nabo) ? 1 : MIN(blocks, from_le16(ns->nabspf) + 1u);
	}
	while (unit * 2 <= blocks)
		unit *= 2;
	return unit * block_bytes;
}

static void take_features(struct nvmf_dev *d, const struct nvme_id_ctrl *ctrl,
	const struct nvme_id_ns *id, const struct nvmf_ns *ns)
{
	struct nvmf_dev_info *info = &d->info;
	uint16_t oncs = from_le16(ctrl->oncs);

	info->block_bytes = ns->block_bytes;
	info->atomic_bytes = atomic_bytes(ctrl, id, ns->block_bytes);
	info->volatile_cache = ctrl->vwc & NVME_VWC_PRESENT;
	info->write_zeroes = oncs & NVME_ONCS_WRITE_ZEROES;
	info->discard = oncs & NVME_ONCS_DSM;
	info->reservations = oncs & NVME_ONCS_RESERVATIONS &&
			     id->rescap & NVME_RESCAP_TYPE(NVME_RESV_WRITE_EXCLUSIVE);
	d->ptpl = id->rescap & NVME_RESCAP_PTPL;
	memcpy(info->nguid, ns->nguid, sizeof(info->nguid));
	copy_text(info->serial, ctrl->sn, sizeof(ctrl->sn));
	copy_text(info->model, ctrl->mn, sizeof(ctrl->mn));
	d->deac = ns->reads_zeros_after_trim && id->dlfeat & NVME_DLFEAT_WZ_DEAC;
}

/* A path that takes less at once than the others sets the limit for what comes. */
static void take_limits(struct nvmf_dev *d, const struct nvmf *n)
{
	struct nvmf_dev_info *info = &d->info;
	uint32_t blocks = nvmf_max_io_bytes(n) / info->block_bytes, pieces = nvmf_max_pieces(n);

	blocks = MAX(MIN(blocks, MAX_BLOCKS_CMD), 1u);
	info->max_blocks = info->max_blocks ? MIN(info->max_blocks, blocks) : blocks;
	info->max_pieces = info->max_pieces ? MIN(info->max_pieces, pieces) : pieces;
}

static void take_size(struct nvmf_dev *d, uint64_t nblocks)
{
	bool resized = d->info.nblocks && d->info.nblocks != nblocks;

	d->info.nblocks = nblocks;
	if (!resized)
		return;
	log_info("nvmf: %s: its size is %llu blocks now", d->name, (unsigned long long)nblocks);
	if (d->ev && d->ev->resized_fn)
		d->ev->resized_fn(d, d->arg);
}

/* NULL, or why it is not the namespace we use. */
static const char *adopt(struct path *p, const struct nvme_id_ns *id)
{
	struct nvmf_dev *d = p->d;
	struct nvmf_ns ns = {.nsid = d->nsid};

	if (!from_le64(id->nsze))
		return "no such namespace";
	if (nvmf_take_ns(id, &ns) < 0)
		return "the namespace has a format that is not supported (metadata, or blocks "
		       "that are too small or too large)";
	if (!d->info.nblocks)
		take_features(d, nvmf_id(p->n), id, &ns);
	else if (ns.block_bytes != d->info.block_bytes)
		return "the namespace has other blocks than before";
	else if (memcmp(ns.nguid, d->info.nguid, sizeof(ns.nguid)) != 0)
		return "another namespace than before (NGUID) is there";
	take_limits(d, p->n);
	take_size(d, ns.nblocks);
	return NULL;
}

/* ---- steps ---------------------------------------------------------------------------------------------------- */

/* A namespace that goes while we are connected was taken away; one that is not there after the peer has come back may come yet. */
static void judge_gone(struct path *p)
{
	struct nvmf_dev *d = p->d;

	if (!p->was_known || nvmf_dev_is_ready(d))
		return;
	d->gone = true;
	dev_end_waiting(d, NVMF_DEV_GONE);
}

static void steps_end(struct path *p)
{
	bool again = p->again, changed = p->changed;

	p->step = PATH_IDLE;
	p->again = p->changed = false;
	if (again)
		path_look(p, changed);
}

static void usable(struct path *p)
{
	p->error[0] = 0;
	p->d->gone = false;
	set_state(p, p->ana);
	dev_push(p->d);
	steps_end(p);
}

/* Connected, but not this way now. It is asked again even where a notice should come. */
static void blocked(struct path *p, const char *what)
{
	p->ana = NVMF_PATH_INACCESSIBLE;
	snprintf(p->error, sizeof(p->error), "the target says: %s", what);
	set_state(p, NVMF_PATH_INACCESSIBLE);
	look_in(p, LOOK_AGAIN_MS);
}

/* A change takes ANATT seconds at most, then something is wrong with this controller. */
static bool change_is_over_time(struct path *p)
{
	uint64_t now = shard_now_ns(p->d->sh);
	uint8_t anatt = nvmf_id(p->n)->anatt;

	if (!p->change_ns)
		p->change_ns = now;
	return anatt && now - p->change_ns > anatt * 1000 * DEV_NS_PER_MS;
}

static void take_ana(struct path *p, uint16_t status, size_t got)
{
	enum nvme_ana_state s = NVME_ANA_CHANGE;
	int rc = NVME_SC_CODE(status)
			 ? -EIO
			 : nvme_ana_log_find(p->page, got, p->d->nsid, p->anagrpid, &s);

	if (rc < 0) {
		blocked(p, rc == -EIO      ? "no ANA log"
			   : rc == -ENOENT ? "an ANA log without this namespace"
					   : "an ANA log that makes no sense");
		return;
	}
	if (s != NVME_ANA_CHANGE) {
		p->change_ns = 0;
	} else if (change_is_over_time(p)) {
		p->change_ns = 0;
		nvmf_lost(p->n, -ETIMEDOUT, "the state of the namespace (ANA) does not settle");
	}
	if (nvme_ana_usable(s))
		p->ana = s == NVME_ANA_OPTIMIZED ? NVMF_PATH_OPTIMIZED : NVMF_PATH_NON_OPTIMIZED;
	else
		blocked(p, nvme_ana_state_name(s));
}

static void go_on_to_claim(struct path *p)
{
	if (p->ana == NVMF_PATH_INACCESSIBLE)
		steps_end(p);
	else if (p->d->claim_key && !p->d->fenced && !p->checked)
		step_go(p, PATH_RESV_REPORT);
	else
		usable(p);
}

static void identified(struct path *p, uint16_t status)
{
	const struct nvme_id_ns *id = p->page;
	const char *why;

	if (NVME_SC_CODE(status) == NVME_SC_INVALID_NS)
		why = "no such namespace";
	else if (NVME_SC_CODE(status))
		why = "Identify Namespace was refused";
	else
		why = adopt(p, id);
	if (why) {
		unfit(p, why);
		if (!NVME_SC_CODE(status) || NVME_SC_CODE(status) == NVME_SC_INVALID_NS)
			judge_gone(p);
		steps_end(p);
		return;
	}
	p->known = p->was_known = true;
	p->unfit = false;
	p->anagrpid = from_le32(id->anagrpid);
	if (nvmf_id(p->n)->cmic & NVME_CMIC_ANA) {
		step_go(p, PATH_ANA);
		return;
	}
	p->ana = NVMF_PATH_OPTIMIZED;
	go_on_to_claim(p);
}

/*
 * Whoever registers the key after this sends it on a connection that lives now. So the target has not restarted since the last time it was
 * seen without, if it has the key: unless the key survives that.
 */
static void key_reported(
	struct path *p, const struct nvmf_resv_status *st, const struct nvme_resv_report *r)
{
	struct nvmf_dev *d = p->d;

	if (!st->registered || st->our_key != d->claim_key) {
		claim_key_lost(d);
		return;
	}
	claim_key_seen(d);
	if (!d->ptpl && !r->ptpl)
		p->up_seq = MIN(p->up_seq, d->claim_seq);
}

/* The target may have lost it with its power, or another host may have taken it. */
static void claim_reported(struct path *p, uint16_t status)
{
	struct nvmf_resv_status st;
	struct nvme_resv_report r;

	if (NVME_SC_CODE(status) || !p->d->claim_key /* given back meanwhile */ ||
		nvme_resv_report_parse(p->page, p->page_bytes, &r) < 0) {
		usable(p); /* the target judges every write by itself */
		return;
	}
	nvmf_take_resv(p->n, &r, &st);
	key_reported(p, &st, &r);
	p->checked = true;
	if (st.held && !st.we_hold) {
		dev_fenced(p->d);
		usable(p);
	} else if (st.we_hold) {
		usable(p);
	} else {
		step_go(p, st.registered ? PATH_RESV_ACQUIRE : PATH_RESV_REGISTER);
	}
}

static void claim_again(struct path *p, uint16_t status)
{
	if (NVME_SC_CODE(status) == NVME_SC_RESERVATION_CONFLICT)
		dev_fenced(p->d);
	if (!NVME_SC_CODE(status) && p->step == PATH_RESV_REGISTER)
		step_go(p, PATH_RESV_ACQUIRE);
	else
		usable(p);
}

static void step_done(struct nvmf_io *io)
{
	struct path *p = io->arg;

	if (io->err) { /* lost, most likely; otherwise it is tried again */
		p->step = PATH_IDLE;
		if (nvmf_is_ready(p->n))
			look_in(p, LOOK_AGAIN_MS);
		return;
	}
	switch (p->step) {
	case PATH_IDLE:
		break;
	case PATH_CHANGED_NS: /* it is read to be read; a target without it is asked all the same */
		step_go(p, PATH_IDENTIFY);
		break;
	case PATH_IDENTIFY:
		identified(p, io->status);
		break;
	case PATH_ANA:
		take_ana(p, io->status, p->iov.iov_len);
		go_on_to_claim(p);
		break;
	case PATH_RESV_REPORT:
		claim_reported(p, io->status);
		break;
	case PATH_RESV_REGISTER:
	case PATH_RESV_ACQUIRE:
		claim_again(p, io->status);
		break;
	}
}

/* Group descriptors only; as many as the target says there are. */
static uint32_t ana_log_bytes(struct path *p)
{
	uint64_t want = sizeof(struct nvme_ana_log) +
			(uint64_t)from_le32(nvmf_id(p->n)->nanagrpid) *
				sizeof(struct nvme_ana_group_desc);
	void *page;

	want = MIN(want, (uint64_t)MIN(ANA_LOG_MAX, nvmf_max_io_bytes(p->n)));
	if (want > p->page_bytes && (page = realloc(p->page, want))) {
		p->page = page;
		p->page_bytes = want;
	}
	return (uint32_t)MIN(want, p->page_bytes);
}

static void step_fill(struct path *p, enum path_step step, struct nvme_sqe *sqe, uint32_t *len)
{
	struct nvmf_dev *d = p->d;

	*len = NVME_IDENTIFY_SIZE;
	switch (step) {
	case PATH_CHANGED_NS:
		nvme_sqe_set_get_log(sqe, 0, NVME_LOG_CHANGED_NS, 0, *len);
		break;
	case PATH_ANA:
		*len = ana_log_bytes(p);
		nvme_sqe_set_get_log(sqe, 0, NVME_LOG_ANA, 0, *len);
		sqe->cdw10 = to_le32(from_le32(sqe->cdw10) | NVME_LOG_ANA_RGO);
		break;
	case PATH_RESV_REPORT:
		nvme_sqe_set_resv_report(sqe, 0, d->nsid, *len);
		break;
	default:
		nvme_sqe_set_identify(sqe, 0, d->nsid, NVME_CNS_NS);
		break;
	}
}

static void step_go(struct path *p, enum path_step step)
{
	struct nvmf_dev *d = p->d;
	struct nvmf_io *io = &p->io;
	uint16_t qid = step >= PATH_RESV_REPORT ? 1 : 0;
	uint32_t len;

	*io = (struct nvmf_io){.done_fn = step_done, .arg = p};
	if (step == PATH_RESV_REGISTER) {
		nvmf_io_resv_register(io, d->nsid, 0, d->claim_key, NVME_RESV_REGISTER, d->ptpl);
	} else if (step == PATH_RESV_ACQUIRE) {
		nvmf_io_resv_acquire(
			io, d->nsid, d->claim_key, 0, NVME_RESV_ACQUIRE, NVME_RESV_WRITE_EXCLUSIVE);
	} else {
		step_fill(p, step, &io->sqe, &len);
		memset(p->page, 0, p->page_bytes);
		p->iov = (struct iovec){p->page, len};
		io->iov = &p->iov;
		io->niov = 1;
	}
	p->step = step;
	if (nvmf_submit(nvmf_queue(p->n, qid), io) == 0)
		return;
	p->step = PATH_IDLE;
	look_in(p, ADMIN_BUSY_MS);
}

void path_look(struct path *p, bool changed)
{
	timer_disarm(p->d->sh, &p->look);
	if (!p->n || !nvmf_is_ready(p->n))
		return;
	if (p->step != PATH_IDLE) {
		p->again = true;
		p->changed |= changed;
		return;
	}
	step_go(p, changed ? PATH_CHANGED_NS : PATH_IDENTIFY);
}

void path_missing(struct path *p)
{
	if (!p->known)
		return;
	p->known = false;
	path_look(p, false);
}

void path_blocked(struct path *p, uint16_t status)
{
	switch (NVME_SC_CODE(status)) {
	case NVME_SC_ANA_PERSISTENT_LOSS:
	case NVME_SC_ANA_INACCESSIBLE:
	case NVME_SC_ANA_TRANSITION:
		if (p->state == NVMF_PATH_INACCESSIBLE)
			return;
		blocked(p, nvme_status_name(NVME_SC_CODE(status)));
		path_look(p, false);
		break;
	default: /* of this command alone */
		break;
	}
}

/* ---- what the controller tells ---------------------------------------------------------------------------------- */

/* Too short an outage for the target to have restarted. */
static bool was_short(const struct path *p)
{
	return p->heard_ns && shard_now_ns(p->d->sh) - p->heard_ns < p->d->restart_min_ns;
}

static void path_ready(struct nvmf *n, void *arg)
{
	struct path *p = arg;

	if (!was_short(p))
		p->up_seq = p->d->wrote_seq;
	p->up = true;
	p->known = p->was_known = p->unfit = p->checked = false;
	p->change_ns = 0;
	path_look(p, false);
}

static void path_lost(struct nvmf *n, void *arg, int err, bool retrying)
{
	struct path *p = arg;

	timer_disarm(p->d->sh, &p->look);
	if (p->up)
		p->heard_ns = nvmf_heard_ns(n);
	p->up = false;
	p->known = p->was_known = p->unfit = p->again = p->changed = false;
	p->step = PATH_IDLE;
	snprintf(p->error, sizeof(p->error), "%.*s", (int)sizeof(p->error) - 1,
		nvmf_error(n)->reason);
	set_state(p, NVMF_PATH_LOST);
	dev_push(p->d); /* what was on it has other paths, perhaps */
}

static void path_async(struct nvmf *n, void *arg, uint32_t result)
{
	if (NVME_AER_TYPE(result) != NVME_AER_TYPE_NOTICE)
		return;
	if (NVME_AER_INFO(result) == NVME_AER_NOTICE_NS_ATTR)
		path_look(arg, true);
	else if (NVME_AER_INFO(result) == NVME_AER_NOTICE_ANA)
		path_look(arg, false);
}

const struct nvmf_events path_events = {
	.ready_fn = path_ready, .lost_fn = path_lost, .async_fn = path_async};

void path_close(struct path *p)
{
	timer_disarm(p->d->sh, &p->look);
	if (!p->n)
		return;
	nvmf_close(p->n);
	p->n = NULL;
	p->known = false;
	p->step = PATH_IDLE;
	p->state = NVMF_PATH_LOST;
}
