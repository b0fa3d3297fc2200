/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/nvmf_peer_ns.h"

#include <errno.h>
#include <stdlib.h>

#include "common/base/util.h"

int peer_ns_open(uint32_t nblocks, struct peer_ns **out)
{
	static uint8_t serial;
	struct peer_ns *ns = calloc(1, sizeof(*ns));

	if (!ns)
		return -ENOMEM;
	nblocks = nblocks ? nblocks : PEER_BLOCKS;
	ns->mem = calloc(nblocks, PEER_BLOCK);
	if (!ns->mem) {
		free(ns);
		return -ENOMEM;
	}
	ns->refs = 1;
	ns->nblocks = nblocks;
	memset(ns->nguid, 0x5a, sizeof(ns->nguid));
	ns->nguid[15] = ++serial;
	*out = ns;
	return 0;
}

struct peer_ns *peer_ns_get(struct peer_ns *ns)
{
	ns->refs++;
	return ns;
}

void peer_ns_put(struct peer_ns *ns)
{
	if (!ns || --ns->refs)
		return;
	free(ns->mem);
	free(ns);
}

/* ---- registrants ----------------------------------------------------------------------------------------- */

static struct peer_registrant *find(struct peer_ns *ns, const uint8_t *hostid)
{
	for (int i = 0; i < PEER_REGISTRANTS; i++)
		if (ns->reg[i].key && !memcmp(ns->reg[i].hostid, hostid, 16))
			return &ns->reg[i];
	return NULL;
}

static bool all_hold(const struct peer_ns *ns)
{
	return ns->type == NVME_RESV_WRITE_EXCLUSIVE_AR ||
	       ns->type == NVME_RESV_EXCLUSIVE_ACCESS_AR;
}

static bool holds(const struct peer_ns *ns, const struct peer_registrant *r)
{
	return r && (all_hold(ns) || r->holds);
}

static void release(struct peer_ns *ns)
{
	ns->type = NVME_RESV_NONE;
	for (int i = 0; i < PEER_REGISTRANTS; i++)
		ns->reg[i].holds = false;
}

static void take(struct peer_ns *ns, struct peer_registrant *r, enum nvme_resv_type type)
{
	release(ns);
	ns->type = type;
	r->holds = true;
}

/* Whoever is no registrant any more holds nothing; all registrants hold it until the last is gone. */
static void remove_registrant(struct peer_ns *ns, struct peer_registrant *r)
{
	bool last = true, held = r->holds && !all_hold(ns);

	r->key = 0;
	r->holds = false;
	for (int i = 0; i < PEER_REGISTRANTS; i++)
		last &= !ns->reg[i].key;
	if (held || last)
		release(ns);
}

/* ---- what a reservation forbids ----------------------------------------------------------------------------- */

uint16_t peer_ns_access(struct peer_ns *ns, const uint8_t *hostid, uint8_t opcode)
{
	const struct peer_registrant *r = find(ns, hostid);
	bool write = opcode == NVME_CMD_WRITE || opcode == NVME_CMD_WRITE_ZEROES ||
		     opcode == NVME_CMD_DSM || opcode == NVME_CMD_FLUSH;
	bool ok = true;

	if (!write && opcode != NVME_CMD_READ && opcode != NVME_CMD_COMPARE)
		return NVME_SC_SUCCESS;
	switch (ns->type) {
	case NVME_RESV_NONE:
		break;
	case NVME_RESV_WRITE_EXCLUSIVE:
		ok = !write || holds(ns, r);
		break;
	case NVME_RESV_EXCLUSIVE_ACCESS:
		ok = holds(ns, r);
		break;
	case NVME_RESV_WRITE_EXCLUSIVE_RO:
	case NVME_RESV_WRITE_EXCLUSIVE_AR:
		ok = !write || r;
		break;
	case NVME_RESV_EXCLUSIVE_ACCESS_RO:
	case NVME_RESV_EXCLUSIVE_ACCESS_AR:
		ok = r != NULL;
		break;
	}
	ns->nconflicts += !ok;
	return ok ? NVME_SC_SUCCESS : NVME_SC_RESERVATION_CONFLICT;
}

/* ---- register, acquire, release ------------------------------------------------------------------------------- */

static uint16_t do_register(struct peer_ns *ns, const uint8_t *hostid, uint16_t cntlid,
	uint32_t cdw10, const struct nvme_resv_register *d)
{
	struct peer_registrant *r = find(ns, hostid);
	uint64_t old = from_le64(d->crkey), new = from_le64(d->nrkey);
	bool match = r && (r->key == old || cdw10 & NVME_RESV_IEKEY);

	switch (cdw10 & 7) {
	case NVME_RESV_REGISTER:
		if (r)
			return r->key == new ? NVME_SC_SUCCESS : NVME_SC_RESERVATION_CONFLICT;
		for (int i = 0; i < PEER_REGISTRANTS && !r; i++)
			if (!ns->reg[i].key)
				r = &ns->reg[i];
		if (!r || !new)
			return NVME_SC_INVALID_FIELD;
		*r = (struct peer_registrant){.key = new, .cntlid = cntlid};
		memcpy(r->hostid, hostid, sizeof(r->hostid));
		break;
	case NVME_RESV_UNREGISTER:
		if (!match)
			return NVME_SC_RESERVATION_CONFLICT;
		remove_registrant(ns, r);
		break;
	case NVME_RESV_REPLACE:
		if (!match)
			return NVME_SC_RESERVATION_CONFLICT;
		if (!new)
			return NVME_SC_INVALID_FIELD;
		r->key = new;
		break;
	default:
		return NVME_SC_INVALID_FIELD;
	}
	if (cdw10 >> NVME_RESV_CPTPL_SHIFT == NVME_RESV_CPTPL_PERSIST)
		ns->ptpl = true;
	if (cdw10 >> NVME_RESV_CPTPL_SHIFT == NVME_RESV_CPTPL_CLEAR)
		ns->ptpl = false;
	ns->gen++;
	return NVME_SC_SUCCESS;
}

static uint16_t do_preempt(struct peer_ns *ns, struct peer_registrant *r, uint64_t key,
	enum nvme_resv_type type, uint8_t *preempted, bool *did)
{
	bool holder_goes = false, any = false;

	for (int i = 0; i < PEER_REGISTRANTS; i++) {
		const struct peer_registrant *v = &ns->reg[i];

		if (v->key && (v->key == key || (all_hold(ns) && !key))) {
			holder_goes |= holds(ns, v);
			any = true;
		}
	}
	if (!any)
		return NVME_SC_RESERVATION_CONFLICT;
	for (int i = 0; i < PEER_REGISTRANTS; i++) {
		struct peer_registrant *v = &ns->reg[i];

		if (v == r || !v->key || (v->key != key && !(all_hold(ns) && !key)))
			continue;
		memcpy(preempted, v->hostid, sizeof(v->hostid));
		*did = true;
		*v = (struct peer_registrant){0};
	}
	if (holder_goes)
		take(ns, r, type);
	ns->gen++;
	return NVME_SC_SUCCESS;
}

static uint16_t do_acquire(struct peer_ns *ns, const uint8_t *hostid, uint32_t cdw10,
	const struct nvme_resv_acquire *d, uint8_t *preempted, bool *did)
{
	struct peer_registrant *r = find(ns, hostid);
	enum nvme_resv_type type = cdw10 >> NVME_RESV_RTYPE_SHIFT & 0xff;
	uint16_t status;

	if (type == NVME_RESV_NONE || type > NVME_RESV_EXCLUSIVE_ACCESS_AR)
		return NVME_SC_INVALID_FIELD;
	if (!r || r->key != from_le64(d->crkey))
		return NVME_SC_RESERVATION_CONFLICT;
	switch (cdw10 & 7) {
	case NVME_RESV_ACQUIRE:
		if (ns->type != NVME_RESV_NONE && (!holds(ns, r) || ns->type != type))
			return NVME_SC_RESERVATION_CONFLICT;
		take(ns, r, type);
		return NVME_SC_SUCCESS;
	case NVME_RESV_PREEMPT:
	case NVME_RESV_PREEMPT_ABORT:
		status = do_preempt(ns, r, from_le64(d->prkey), type, preempted, did);
		*did &= (cdw10 & 7) == NVME_RESV_PREEMPT_ABORT;
		return status;
	}
	return NVME_SC_INVALID_FIELD;
}

static uint16_t do_release(struct peer_ns *ns, const uint8_t *hostid, uint32_t cdw10,
	const struct nvme_resv_release *d)
{
	struct peer_registrant *r = find(ns, hostid);

	if (!r || r->key != from_le64(d->crkey))
		return NVME_SC_RESERVATION_CONFLICT;
	switch (cdw10 & 7) {
	case NVME_RESV_RELEASE:
		if (!holds(ns, r))
			return NVME_SC_SUCCESS;
		if (ns->type != (cdw10 >> NVME_RESV_RTYPE_SHIFT & 0xff))
			return NVME_SC_INVALID_FIELD;
		release(ns);
		return NVME_SC_SUCCESS;
	case NVME_RESV_CLEAR:
		release(ns);
		memset(ns->reg, 0, sizeof(ns->reg));
		ns->gen++;
		return NVME_SC_SUCCESS;
	}
	return NVME_SC_INVALID_FIELD;
}

uint16_t peer_ns_reserve(struct peer_ns *ns, const uint8_t *hostid, uint16_t cntlid,
	const struct nvme_sqe *sqe, const void *data, uint8_t *preempted, bool *did)
{
	uint32_t cdw10 = from_le32(sqe->cdw10);
	uint16_t status = NVME_SC_INVALID_OPCODE;

	*did = false;
	if (sqe->opcode == NVME_CMD_RESV_REGISTER)
		status = do_register(ns, hostid, cntlid, cdw10, data);
	if (sqe->opcode == NVME_CMD_RESV_ACQUIRE)
		status = do_acquire(ns, hostid, cdw10, data, preempted, did);
	if (sqe->opcode == NVME_CMD_RESV_RELEASE)
		status = do_release(ns, hostid, cdw10, data);
	ns->nconflicts += status == NVME_SC_RESERVATION_CONFLICT;
	return status;
}

size_t peer_ns_report(const struct peer_ns *ns, void *buf, size_t max_bytes)
{
	struct nvme_resv_status h = {
		.gen = to_le32(ns->gen), .rtype = (uint8_t)ns->type, .ptpls = ns->ptpl};
	uint32_t n = 0;

	memset(buf, 0, max_bytes);
	for (int i = 0; i < PEER_REGISTRANTS; i++) {
		const struct peer_registrant *r = &ns->reg[i];
		struct nvme_registered_ctrl_ext c = {.cntlid = to_le16(r->cntlid),
			.rcsts = holds(ns, r) ? NVME_RCSTS_HOLDER : 0,
			.rkey = to_le64(r->key)};

		if (!r->key)
			continue;
		memcpy(c.hostid, r->hostid, sizeof(c.hostid));
		if (nvme_resv_report_bytes(++n) <= max_bytes)
			memcpy((uint8_t *)buf + nvme_resv_report_bytes(n - 1), &c, sizeof(c));
	}
	h.regctl = to_le16((uint16_t)n);
	memcpy(buf, &h, MIN(sizeof(h), max_bytes));
	return nvme_resv_report_bytes(n);
}
