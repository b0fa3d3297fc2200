/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What peers offer: asks a discovery controller, then each subsystem it names for its namespaces. Whoever answers is not trusted: what is read, listed and
 * waited for has limits, and what makes no sense is left out with a remark.
 *
 *	host ─▶ log ─▶ subsystems ─▶ namespaces
 *	          └──▶ referrals (one level, REFERRALS_MAX) ─▶ log ─▶ ...
 */
#include "dpu/control/card_priv.h"

#include "common/base/util.h"
#include "common/nvme/address.h"
#include "common/nvme/tcp.h"
#include "dpu/nvmf/nvmf.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_MS      1000000ull
#define HOST_MS        5000u /* for one controller, all told */
#define ALL_MS         20000u
#define RECORDS_MAX    256u /* of one log */
#define REFERRALS_MAX  8u
#define SUBSYSTEMS_MAX 256u
#define FOUND_MAX      1024u /* namespaces listed */
#define NS_CHUNK       256
#define REMARKS_MAX    32u

struct where {
	bool rdma;
	char host[64];
	uint16_t port;
	char nqn[224];
};

struct search {
	struct card *card;
	struct call *c;
	Parapet__Discovery *out;
	uint64_t until_ns;
	struct where subs[SUBSYSTEMS_MAX];
	unsigned int nsubs;
	struct where referrals[REFERRALS_MAX];
	unsigned int nreferrals;
	struct nvme_discovery_record records[RECORDS_MAX];
};

static void __attribute__((format(printf, 2, 3))) remark(struct search *s, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	if (s->out->n_remarks == REMARKS_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	for (char *p = text; *p; p++)
		if (!isprint((unsigned char)*p))
			*p = '?';
	s->out->remarks[s->out->n_remarks++] = call_str(s->c, text);
}

static void truncated(struct search *s, const char *what)
{
	s->out->has_truncated = s->out->truncated = true;
	remark(s, "truncated: %s", what);
}

static bool is_late(const struct search *s)
{
	return shard_now_ns(s->card->cfg.shard) >= s->until_ns;
}

static const char *at_text(const struct where *w, char *buf, size_t size)
{
	return nvme_host_text(w->host, w->port, buf, size);
}

/* ---- controllers ------------------------------------------------------------------------------------------------------ */

static const struct nvmf_events no_events;

/* Its admin queue alone. */
static int controller_open(struct search *s, const struct where *w, struct nvmf **n, struct err *e)
{
	struct shard *sh = s->card->cfg.shard;
	uint64_t now = shard_now_ns(sh), until = MIN(now + HOST_MS * NS_PER_MS, s->until_ns);
	uint32_t ms = (uint32_t)((until > now ? until - now : 0) / NS_PER_MS);
	struct nvmf_cfg cfg = {.transport = w->rdma ? "rdma" : "tcp",
		.host = w->host,
		.port = w->port,
		.subnqn = w->nqn,
		.hostid = s->card->id,
		.connect_timeout_ms = MAX(ms, 1u),
		.io_timeout_ms = HOST_MS / 2};
	int rc = ms ? nvmf_open(sh, &cfg, &no_events, NULL, n, e) : -ETIMEDOUT;

	if (rc < 0)
		return rc;
	rc = nvmf_wait_ready(*n, ms);
	if (rc < 0) {
		if (e)
			*e = *nvmf_error(*n);
		nvmf_close(*n);
		return rc;
	}
	nvmf_run_until(*n, until);
	return 0;
}

static const char *why(const struct err *e, int rc)
{
	return e->reason[0] ? e->reason : strerror(-rc);
}

/* ---- namespaces ------------------------------------------------------------------------------------------------------- */

/* The flash of the pool that is this namespace, by its address. */
static const char *member_of(const struct card *c, const struct where *w, uint32_t nsid)
{
	for (unsigned int i = 0; i < c->nflashes; i++) {
		struct nvme_address a;

		if (nvme_address_parse(c->flashes[i].address, &a, NULL, NULL, NULL) < 0 ||
			a.nsid != nsid || strcmp(a.subnqn, w->nqn) != 0)
			continue;
		for (unsigned int p = 0; p < a.npaths; p++)
			if (!strcmp(a.paths[p].host, w->host) && a.paths[p].port == w->port)
				return c->flashes[i].name;
	}
	return NULL;
}

static int found(struct search *s, const struct where *w, const struct nvmf_ns *ns)
{
	Parapet__Discovered *m = call_message(s->c, Parapet__Discovered, parapet__discovered__init);
	const char *member = member_of(s->card, w, ns->nsid);
	char at[80];

	if (!m)
		return -ENOMEM;
	m->subnqn = call_str(s->c, w->nqn);
	m->transport = call_str(s->c, w->rdma ? "rdma" : "tcp");
	m->address = call_str(s->c, at_text(w, at, sizeof(at)));
	m->has_nsid = m->has_size_bytes = m->has_block_bytes = m->has_nguid = true;
	m->nsid = ns->nsid;
	m->size_bytes = ns->nblocks * ns->block_bytes;
	m->block_bytes = ns->block_bytes;
	m->nguid.data = call_alloc(s->c, sizeof(ns->nguid));
	if (!m->nguid.data)
		return -ENOMEM;
	m->nguid.len = sizeof(ns->nguid);
	memcpy(m->nguid.data, ns->nguid, sizeof(ns->nguid));
	m->member = member ? call_str(s->c, member) : NULL;
	m->flash_address = call_fmt(s->c, "nvme+%s://%s/%s#%u", m->transport, at, w->nqn, ns->nsid);
	s->out->found[s->out->n_found++] = m;
	return 0;
}

/* 1: no more of this subsystem. */
static int take_ids(
	struct search *s, const struct where *w, struct nvmf *n, const uint32_t *ids, int count)
{
	char at[80];
	int rc;

	for (int i = 0; i < count; i++) {
		struct nvmf_ns ns;

		if (s->out->n_found == FOUND_MAX) {
			truncated(s, "more namespaces than are listed");
			return 1;
		}
		rc = nvmf_identify_ns(n, ids[i], &ns);
		if (rc == -ENODEV) {
			remark(s, "%s %s: namespace %u has a format that is not taken",
				at_text(w, at, sizeof(at)), w->nqn, ids[i]);
			continue;
		}
		if (rc < 0) {
			remark(s, "%s %s: namespace %u: %s", at_text(w, at, sizeof(at)), w->nqn,
				ids[i], strerror(-rc));
			if (nvmf_is_ready(n) && rc != -ETIMEDOUT)
				continue;
			s->out->has_truncated = s->out->truncated = true;
			return 1;
		}
		rc = found(s, w, &ns);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int namespaces(struct search *s, const struct where *w, struct nvmf *n)
{
	uint32_t ids[NS_CHUNK], last = 0;
	char at[80];
	int rc = 0;

	while (rc == 0) {
		int count = nvmf_list_ns(n, last, ids, NS_CHUNK);

		if (count < 0) {
			remark(s, "%s %s: its namespaces: %s", at_text(w, at, sizeof(at)), w->nqn,
				strerror(-count));
			return 0;
		}
		for (int i = 0; i < count; i++) {
			if (ids[i] <= last) {
				remark(s, "%s %s: its list of namespaces makes no sense",
					at_text(w, at, sizeof(at)), w->nqn);
				return 0;
			}
			last = ids[i];
		}
		rc = take_ids(s, w, n, ids, count);
		if (count < NS_CHUNK)
			break;
	}
	return rc < 0 ? rc : 0;
}

static int subsystem(struct search *s, const struct where *w)
{
	struct err e = {0};
	struct nvmf *n;
	char at[80];
	int rc = controller_open(s, w, &n, &e);

	if (rc < 0) {
		remark(s, "%s %s: %s", at_text(w, at, sizeof(at)), w->nqn, why(&e, rc));
		return 0;
	}
	rc = namespaces(s, w, n);
	nvmf_close(n);
	return rc;
}

/* ---- records ---------------------------------------------------------------------------------------------------------- */

/* A text of a record ends at its field's end, a zero, or the spaces that fill it. -EINVAL: too long, or not printable. */
static int text_of(const char *field, size_t size, char *out, size_t room)
{
	size_t n = strnlen(field, size);

	while (n && field[n - 1] == ' ')
		n--;
	if (!n || n >= room)
		return -EINVAL;
	for (size_t i = 0; i < n; i++)
		if (field[i] <= ' ' || field[i] > '~')
			return -EINVAL;
	memcpy(out, field, n);
	out[n] = 0;
	return 0;
}

static bool is_any(const char *host)
{
	return !strcmp(host, "0.0.0.0") || !strcmp(host, "::");
}

/* 0; -EINVAL: *bad says which field. */
static int where_of(const struct nvme_discovery_record *r, const struct where *asked,
	struct where *w, const char **bad)
{
	char host[80], port[16], both[100];
	struct nvme_address a;
	bool v6 = r->adrfam == NVME_ADRFAM_IPV6;

	memset(w, 0, sizeof(*w));
	w->rdma = r->trtype == NVME_TRTYPE_RDMA;
	*bad = "transport";
	if (!w->rdma && r->trtype != NVME_TRTYPE_TCP)
		return -EINVAL;
	*bad = "address";
	if (text_of(r->traddr, sizeof(r->traddr), host, sizeof(host)) < 0 ||
		text_of(r->trsvcid, sizeof(r->trsvcid), port, sizeof(port)) < 0)
		return -EINVAL;
	/* It listens on all of its addresses: the one we know leads there. */
	snprintf(both, sizeof(both), v6 && !is_any(host) ? "[%s]:%s" : "%s:%s", host, port);
	if (is_any(host) && strchr(host, ':'))
		snprintf(both, sizeof(both), "0.0.0.0:%s", port);
	if (nvme_host_parse(both, strlen(both), w->host, &w->port) < 0)
		return -EINVAL;
	if (is_any(host))
		memcpy(w->host, asked->host, sizeof(w->host));
	*bad = "subsystem name";
	if (text_of(r->subnqn, sizeof(r->subnqn), w->nqn, sizeof(w->nqn)) < 0)
		return -EINVAL;
	/* It has to be one that an address can name. */
	snprintf(both, sizeof(both), "nvme+tcp://127.0.0.1/");
	if (r->subtype == NVME_DISC_SUBTYPE_NVM) {
		char whole[320];

		snprintf(whole, sizeof(whole), "%s%s#1", both, w->nqn);
		if (nvme_address_parse(whole, &a, NULL, NULL, NULL) < 0 ||
			strcmp(a.subnqn, w->nqn) != 0)
			return -EINVAL;
	}
	return 0;
}

static bool same(const struct where *a, const struct where *b)
{
	return a->rdma == b->rdma && a->port == b->port && !strcmp(a->host, b->host) &&
	       !strcmp(a->nqn, b->nqn);
}

/* Adds w to a list unless it is there. false: the list is full. */
static bool note(struct where *list, unsigned int *n, unsigned int max, const struct where *w)
{
	for (unsigned int i = 0; i < *n; i++)
		if (same(&list[i], w))
			return true;
	if (*n == max)
		return false;
	list[(*n)++] = *w;
	return true;
}

static void record(struct search *s, const struct where *asked, unsigned int i, bool follow)
{
	const struct nvme_discovery_record *r = &s->records[i];
	const char *bad;
	struct where w;
	char at[80];

	if (r->subtype != NVME_DISC_SUBTYPE_NVM && r->subtype != NVME_DISC_SUBTYPE_REFERRAL)
		return;
	if (where_of(r, asked, &w, &bad) < 0) {
		remark(s, "%s: record %u is left out: its %s cannot be used",
			at_text(asked, at, sizeof(at)), i, bad);
		return;
	}
	if (r->subtype == NVME_DISC_SUBTYPE_NVM) {
		if (!note(s->subs, &s->nsubs, SUBSYSTEMS_MAX, &w))
			truncated(s, "more subsystems than are looked at");
		return;
	}
	snprintf(w.nqn, sizeof(w.nqn), "%s", NVME_DISCOVERY_NQN);
	if (!same(&w, asked) && follow && !note(s->referrals, &s->nreferrals, REFERRALS_MAX, &w))
		truncated(s, "more referrals than are followed");
}

/* ---- a discovery controller --------------------------------------------------------------------------------------------- */

/* follow: take its referrals. */
static int ask_log(struct search *s, const struct where *w, bool follow, struct err *e)
{
	uint32_t count = 0;
	uint64_t total = 0;
	struct nvmf *n;
	char at[80];
	int rc = controller_open(s, w, &n, e);

	if (rc < 0)
		return rc;
	rc = nvmf_discover(n, s->records, RECORDS_MAX, &count, &total);
	nvmf_close(n);
	if (rc == -EAGAIN) {
		s->out->has_truncated = s->out->truncated = true;
		remark(s, "%s: its discovery log changes while it is read: some may be missing",
			at_text(w, at, sizeof(at)));
	} else if (rc < 0) {
		return err_set(e, rc, NULL, NULL, "its discovery log: %s", strerror(-rc));
	}
	if (total > count)
		truncated(s, "its discovery log has more records than are read");
	for (uint32_t i = 0; i < count; i++)
		record(s, w, i, follow);
	return 0;
}

static int ask_host(struct search *s, struct where *w, bool has_port, const char *object)
{
	static const uint16_t ports[] = {NVME_TCP_DISCOVERY_PORT, 4420};
	struct err e = {0};
	char at[80];
	int rc = -EINVAL;

	for (size_t i = 0; rc < 0 && i < (has_port ? 1 : ARRAY_LEN(ports)); i++) {
		w->port = has_port ? w->port : ports[i];
		memset(&e, 0, sizeof(e));
		rc = ask_log(s, w, true, &e);
	}
	/* What the peer does is no error of the request's: it is named as what it is. */
	if (rc < 0)
		return err_set(&s->c->err, rc == -EINVAL || rc == -ENOMEM ? rc : -EHOSTUNREACH,
			object, "host", "%s: no discovery controller%s: %.300s",
			at_text(w, at, sizeof(at)), has_port ? "" : " (nor on port 8009)",
			why(&e, rc));
	return 0;
}

static int ask_all(struct search *s)
{
	unsigned int i;
	char at[80];
	int rc = 0;

	for (i = 0; i < s->nreferrals && !is_late(s); i++) {
		struct err e = {0};
		int no = ask_log(s, &s->referrals[i], false, &e);

		if (no < 0)
			remark(s, "referral %s: %s", at_text(&s->referrals[i], at, sizeof(at)),
				why(&e, no));
	}
	if (i < s->nreferrals)
		truncated(s, "the time is up, and some referrals were not followed");
	for (i = 0; rc == 0 && i < s->nsubs && !is_late(s); i++)
		rc = subsystem(s, &s->subs[i]);
	if (rc == 0 && i < s->nsubs)
		truncated(s, "the time is up, and some subsystems were not looked at");
	return rc;
}

/* ---- the request -------------------------------------------------------------------------------------------------------- */

static int take_request(const Parapet__FlashDiscover *req, struct where *w, char *object,
	size_t size, struct err *e)
{
	const char *transport = req->transport ? req->transport : "tcp";
	char both[100];

	memset(w, 0, sizeof(*w));
	snprintf(object, size, "host %.80s", req->host);
	w->rdma = !strcmp(transport, "rdma");
	if (!w->rdma && strcmp(transport, "tcp") != 0)
		return err_set(e, -EINVAL, object, "transport",
			"'%.40s' is not known; allowed: tcp, rdma", transport);
	if (req->has_port && (req->port < 1 || req->port > UINT16_MAX))
		return err_set(e, -EINVAL, object, "port", "%u: 1 to 65535", req->port);
	snprintf(both, sizeof(both), strchr(req->host, ':') && req->host[0] != '[' ? "[%s]" : "%s",
		req->host);
	if (strlen(req->host) >= sizeof(w->host) ||
		nvme_host_parse(both, strlen(both), w->host, &w->port) < 0 || w->port)
		return err_set(e, -EINVAL, object, "host",
			"'%.80s' is no host; allowed: a numeric IPv4 or IPv6 address", req->host);
	w->port = (uint16_t)req->port;
	snprintf(w->nqn, sizeof(w->nqn), "%s", NVME_DISCOVERY_NQN);
	return 0;
}

int call_flash_discover(struct card *card, struct call *c)
{
	const Parapet__FlashDiscover *req = c->req->flash_discover;
	struct search *s;
	struct where w;
	char object[96];
	int rc = take_request(req, &w, object, sizeof(object), &c->err);

	if (rc < 0)
		return rc;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	s->card = card;
	s->c = c;
	s->until_ns = shard_now_ns(card->cfg.shard) + ALL_MS * NS_PER_MS;
	s->out = call_message(c, Parapet__Discovery, parapet__discovery__init);
	if (s->out) {
		s->out->found = call_alloc(c, FOUND_MAX * sizeof(s->out->found[0]));
		s->out->remarks = call_alloc(c, REMARKS_MAX * sizeof(s->out->remarks[0]));
	}
	rc = s->out && s->out->found && s->out->remarks ? ask_host(s, &w, req->has_port, object)
							: -ENOMEM;
	if (rc == 0)
		rc = ask_all(s);
	c->resp.result_case = PARAPET__RESPONSE__RESULT_DISCOVERY;
	c->resp.discovery = s->out;
	free(s);
	return rc;
}
