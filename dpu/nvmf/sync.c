/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/nvmf_priv.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"

#define NS_PER_MS     1000000ULL
#define SHUTDOWN_MS   5000
#define SHUTDOWN_POLL 10
#define LOG_CHUNK     4096
#define REPORT_BYTES  4096U /* first try */
#define LOG_RETRIES   4 /* a discovery log that keeps changing under us */

static bool is_settled(void *arg)
{
	const struct nvmf *n = arg;

	return (n->state == NVMF_READY || n->state == NVMF_IDLE) && !n->lost;
}

int nvmf_wait_ready(struct nvmf *n, uint32_t timeout_ms)
{
	int rc = shard_wait(n->sh, is_settled, n, timeout_ms * NS_PER_MS);

	if (rc < 0)
		return rc;
	return n->state == NVMF_READY ? 0 : n->err.code ? n->err.code : -ENOTCONN;
}

static void run_done(struct nvmf_io *io)
{
	*(bool *)io->arg = true;
}

static bool is_true(void *arg)
{
	return *(bool *)arg;
}

static int run(struct nvmf_queue *q, struct nvmf_io *io,
	int (*submit_fn)(struct nvmf_queue *, struct nvmf_io *))
{
	uint64_t now = shard_now_ns(q->n->sh), until = q->n->sync_until_ns, left;
	bool done = false;
	int rc;

	/* An abort of it may take as long again. */
	if (until) {
		left = until > now ? (until - now) / 2 / NS_PER_MS : 0;
		if (!left)
			return -ETIMEDOUT;
		io->timeout_ms = (uint32_t)MIN(left,
			(uint64_t)(io->timeout_ms ? io->timeout_ms : q->n->cfg.io_timeout_ms));
	}
	io->done_fn = run_done;
	io->arg = &done;
	rc = submit_fn(q, io);
	if (rc < 0)
		return rc;
	/* Without a limit: every command ends, by its own timeout at the latest. */
	rc = shard_wait(q->n->sh, is_true, &done, 0);
	return rc < 0 ? rc : nvmf_io_result(io);
}

void nvmf_run_until(struct nvmf *n, uint64_t until_ns)
{
	n->sync_until_ns = until_ns;
}

int nvmf_run(struct nvmf_queue *q, struct nvmf_io *io)
{
	return run(q, io, nvmf_submit);
}

static int admin_read(struct nvmf *n, struct nvmf_io *io, void *data, size_t len)
{
	struct iovec iov = {data, len};

	io->iov = &iov;
	io->niov = 1;
	return nvmf_run(nvmf_queue(n, 0), io);
}

/* ---- shutdown ------------------------------------------------------------------------------------------ */

static bool never(void *arg)
{
	return false;
}

int nvmf_shutdown(struct nvmf *n)
{
	uint32_t cc = NVME_CC_EN | 6U << NVME_CC_IOSQES_SHIFT | 4U << NVME_CC_IOCQES_SHIFT;
	struct nvmf_io io = {0};
	int rc;

	if (!nvmf_is_ready(n))
		return -ENOTCONN;
	nvmf_set_state(n, NVMF_SHUTTING);
	nvme_property_set_fill(&io.sqe, 0, NVME_PROP_CC, 4, cc | NVME_CC_SHN_NORMAL);
	rc = run(&n->queues[0], &io, nvmf_queue_submit);
	for (int ms = 0; rc == 0 && ms < SHUTDOWN_MS; ms += SHUTDOWN_POLL) {
		nvme_property_get_fill(&io.sqe, 0, NVME_PROP_CSTS, 4);
		rc = run(&n->queues[0], &io, nvmf_queue_submit);
		if (rc < 0 || (io.result & NVME_CSTS_SHST_MASK) == NVME_CSTS_SHST_DONE)
			return rc;
		(void)shard_wait(n->sh, never, NULL, SHUTDOWN_POLL * NS_PER_MS);
	}
	return rc < 0 ? rc : -ETIMEDOUT;
}

/* ---- namespaces ------------------------------------------------------------------------------------------ */

int nvmf_take_ns(const struct nvme_id_ns *id, struct nvmf_ns *out)
{
	const struct nvme_lbaf *f = &id->lbaf[NVME_FLBAS_INDEX(id->flbas)];

	/* Metadata and protection information would need more than blocks. */
	if (from_le64(id->nsze) == 0 || from_le16(f->ms) || f->ds < 9 || f->ds > 16)
		return -ENODEV;
	if (from_le64(id->nsze) > UINT64_MAX >> f->ds)
		return -ENODEV;
	out->block_bytes = 1U << f->ds;
	out->nblocks = from_le64(id->nsze);
	memcpy(out->nguid, id->nguid, sizeof(out->nguid));
	out->thin = id->nsfeat & NVME_NSFEAT_THIN;
	out->reads_zeros_after_trim = (id->dlfeat & 7) == NVME_DLFEAT_ZERO;
	return 0;
}

int nvmf_identify_ns(struct nvmf *n, uint32_t nsid, struct nvmf_ns *out)
{
	autofree struct nvme_id_ns *id = calloc(1, sizeof(*id));
	struct nvmf_io io = {0};
	int rc;

	if (!id)
		return -ENOMEM;
	memset(out, 0, sizeof(*out));
	out->nsid = nsid;
	nvme_sqe_set_identify(&io.sqe, 0, nsid, NVME_CNS_NS);
	rc = admin_read(n, &io, id, sizeof(*id));
	if (rc == -EIO && !io.err && NVME_SC_CODE(io.status) == NVME_SC_INVALID_NS)
		return -ENODEV;
	return rc < 0 ? rc : nvmf_take_ns(id, out);
}

int nvmf_list_ns(struct nvmf *n, uint32_t after, uint32_t *nsids, int max)
{
	autofree le32 *list = calloc(1, NVME_IDENTIFY_SIZE);
	struct nvmf_io io = {0};
	int rc, count = 0;

	if (!list)
		return -ENOMEM;
	nvme_sqe_set_identify(&io.sqe, 0, after, NVME_CNS_NS_ACTIVE_LIST);
	rc = admin_read(n, &io, list, NVME_IDENTIFY_SIZE);
	if (rc < 0)
		return rc;
	while (count < max && count < NVME_IDENTIFY_SIZE / 4 && from_le32(list[count])) {
		nsids[count] = from_le32(list[count]);
		count++;
	}
	return count;
}

/* ---- reservations ---------------------------------------------------------------------------------------- */

void nvmf_take_resv(
	const struct nvmf *n, const struct nvme_resv_report *r, struct nvmf_resv_status *out)
{
	*out = (struct nvmf_resv_status){
		.generation = r->gen, .type = r->type, .nregistrants = r->nregistrants};
	for (uint32_t i = 0; i < r->nregistrants; i++) {
		const struct nvme_registered_ctrl_ext *c = &r->registrants[i];
		bool holds = r->type != NVME_RESV_NONE && c->rcsts & NVME_RCSTS_HOLDER;
		bool ours = !memcmp(c->hostid, n->hostid, sizeof(n->hostid));

		if (holds && !out->held) {
			out->held = true;
			out->holder_key = from_le64(c->rkey);
			memcpy(out->holder_hostid, c->hostid, sizeof(out->holder_hostid));
		}
		if (ours) {
			out->registered = true;
			out->our_key = from_le64(c->rkey);
			out->we_hold |= holds;
		}
	}
}

int nvmf_resv_report(struct nvmf *n, uint32_t nsid, struct nvmf_resv_status *out)
{
	size_t len = MIN(REPORT_BYTES, n->max_io_bytes);

	/* Registrants may come between two reads. */
	for (int i = 0; i < LOG_RETRIES; i++) {
		autofree void *buf = calloc(1, len);
		struct iovec iov = {buf, len};
		struct nvmf_io io = {.iov = &iov, .niov = 1};
		struct nvme_resv_report r;
		int rc;

		if (!buf)
			return -ENOMEM;
		nvme_sqe_set_resv_report(&io.sqe, 0, nsid, (uint32_t)len);
		rc = nvmf_run(nvmf_queue(n, 1), &io);
		if (rc == 0)
			rc = nvme_resv_report_parse(buf, len, &r);
		if (rc == 0)
			nvmf_take_resv(n, &r, out);
		if (rc != -ENOBUFS)
			return rc;
		len = nvme_resv_report_bytes(r.nregistrants);
		if (len > n->max_io_bytes)
			return -E2BIG;
	}
	return -EAGAIN;
}

/* ---- discovery ------------------------------------------------------------------------------------------- */

static int read_log(struct nvmf *n, uint64_t offset, void *buf, uint32_t len)
{
	struct nvmf_io io = {0};

	nvme_sqe_set_get_log(&io.sqe, 0, NVME_LOG_DISCOVERY, offset, len);
	return admin_read(n, &io, buf, len);
}

static int read_records(struct nvmf *n, struct nvme_discovery_record *records, uint32_t count)
{
	const uint32_t per = LOG_CHUNK / sizeof(records[0]);

	for (uint32_t i = 0; i < count; i += per) {
		uint32_t now = MIN(per, count - i);
		int rc = read_log(n, (1ULL + i) * sizeof(records[0]), &records[i],
			now * (uint32_t)sizeof(records[0]));

		if (rc < 0)
			return rc;
	}
	return 0;
}

int nvmf_discover(struct nvmf *n, struct nvme_discovery_record *records, uint32_t max,
	uint32_t *count, uint64_t *total)
{
	struct nvme_discovery_header h, again;
	int rc;

	for (int i = 0; i < LOG_RETRIES; i++) {
		rc = read_log(n, 0, &h, sizeof(h));
		if (rc < 0)
			return rc;
		if (from_le16(h.recfmt) != 0)
			return -EPROTONOSUPPORT;
		*total = from_le64(h.numrec);
		*count = (uint32_t)MIN(*total, (uint64_t)max);
		rc = read_records(n, records, *count);
		if (rc < 0)
			return rc;
		rc = read_log(n, 0, &again, sizeof(again));
		if (rc < 0)
			return rc;
		if (from_le64(h.genctr) == from_le64(again.genctr))
			return 0;
	}
	return -EAGAIN;
}
