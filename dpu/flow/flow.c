/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/flow/flow.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"
#include "dpu/flow/flow_priv.h"

static int software_create(struct flow *f, struct flow_rule *r, char *why, size_t why_len)
{
	return 0;
}

static const struct flow_provider flow_software = {
	.name = "software",
	.create = software_create,
};

/* In order of preference. */
static const struct flow_provider *const providers[] = {
	&flow_rte_transfer,
	&flow_rte_queue,
	&flow_software,
};

/* ---- the port's filter: the classifier, counting ---------------------------------------------------- */

static enum port_verdict judge_from_vf(void *arg, const uint8_t *frame, size_t len_bytes)
{
	struct flow *f = arg;
	enum classify_rule kind = classify_from_vf(&f->card, frame, len_bytes);
	struct flow_rule *r = &f->rule[kind];

	r->packets++;
	r->bytes += len_bytes;
	switch (kind) {
	case CLASSIFY_ARP:
	case CLASSIFY_NVME:
	case CLASSIFY_DISCOVERY:
		return PORT_CARD;
	case CLASSIFY_REST:
		return PORT_FORWARD;
	default:
		return PORT_DROP;
	}
}

static bool judge_to_vf(void *arg, const uint8_t *frame, size_t len_bytes)
{
	const struct flow *f = arg;

	return classify_to_vf(&f->card, frame, len_bytes);
}

static const struct port_filter filter = {
	.from_vf_fn = judge_from_vf,
	.to_vf_fn = judge_to_vf,
};

/* ---- rules ---------------------------------------------------------------------------------------------- */

/* What is dropped is always dropped in software: hardware that took it would hide it from the counters. */
static bool hardware_may(const struct flow *f, enum classify_rule kind)
{
	return !f->cfg.software_only && kind != CLASSIFY_UNSERVED;
}

static void rule_create(struct flow *f, enum classify_rule kind)
{
	struct flow_rule *r = &f->rule[kind];

	r->kind = kind;
	if (!hardware_may(f, kind))
		snprintf(r->why, sizeof(r->why), "%s",
			f->cfg.software_only ? "hardware is switched off"
					     : "always judged in software");
	for (size_t i = 0; i < ARRAY_LEN(providers) && !r->provider; i++) {
		char why[sizeof(r->why)] = "";

		if (providers[i] != &flow_software && !hardware_may(f, kind))
			continue;
		if (providers[i]->create(f, r, why, sizeof(why)) == 0)
			r->provider = providers[i];
		else if (why[0])
			memcpy(r->why, why, sizeof(why));
	}
	if (r->provider != &flow_software)
		r->why[0] = '\0';
}

static void rule_destroy(struct flow_rule *r)
{
	if (r->provider && r->provider->destroy)
		r->provider->destroy(r);
	r->provider = NULL;
}

void flow_card_mac(const char *vf_name, uint32_t card_ip, uint8_t mac[6])
{
	uint64_t h = 0xcbf29ce484222325ULL ^ card_ip; /* FNV-1a */

	for (const char *p = vf_name; *p; p++)
		h = (h ^ (uint8_t)*p) * 0x100000001b3ULL;
	h ^= h >> 32;
	mac[0] = 0x02; /* locally administered, unicast */
	mac[1] = 0x50;
	for (int i = 2; i < 6; i++, h >>= 8)
		mac[i] = (uint8_t)h;
}

static bool mac_is_zero(const uint8_t mac[6])
{
	static const uint8_t zero[6];

	return memcmp(mac, zero, sizeof(zero)) == 0;
}

int flow_open(const struct flow_cfg *cfg, struct flow **out, struct err *e)
{
	struct flow *f;

	if (!cfg->port || !cfg->vm)
		return err_set(e, -EINVAL, "flow", NULL, "needs a port and a VM");
	if (cfg->card_mac[0] & 1)
		return err_set(e, -EINVAL, cfg->vm, "card_mac", "is a group address");
	f = calloc(1, sizeof(*f));
	if (!f)
		return err_set(e, -ENOMEM, cfg->vm, NULL, "out of memory");
	f->cfg = *cfg;
	snprintf(f->vm, sizeof(f->vm), "%s", cfg->vm);
	f->cfg.vm = f->vm;
	port_info(cfg->port, &f->port);
	if (cfg->uplink)
		port_info(cfg->uplink, &f->uplink);
	f->card.ip = cfg->card_ip;
	memcpy(f->card.mac, cfg->card_mac, sizeof(f->card.mac));
	if (mac_is_zero(f->card.mac))
		flow_card_mac(f->port.name, cfg->card_ip, f->card.mac);

	/* Software first: whatever comes up while hardware is being set up is judged already. */
	port_filter_set(cfg->port, &filter, f);
	for (int k = 0; k < CLASSIFY_RULES; k++)
		rule_create(f, (enum classify_rule)k);
	*out = f;
	return 0;
}

void flow_close(struct flow *f)
{
	if (!f)
		return;
	/* The widest rule first: what is the card's must not be sent to the uplink meanwhile. */
	for (int k = CLASSIFY_RULES - 1; k >= 0; k--)
		rule_destroy(&f->rule[k]);
	port_filter_set(f->cfg.port, NULL, NULL);
	free(f);
}

/* ---- listing ------------------------------------------------------------------------------------------------- */

static void describe(const struct flow *f, enum classify_rule kind, struct flow_rule_info *info)
{
	struct in_addr a = {.s_addr = htonl(f->card.ip)};
	char ip[INET_ADDRSTRLEN] = "";
	const uint8_t *m = f->card.mac;

	inet_ntop(AF_INET, &a, ip, sizeof(ip));
	switch (kind) {
	case CLASSIFY_ARP:
		snprintf(info->match, sizeof(info->match), "arp for %s", ip);
		break;
	case CLASSIFY_NVME:
	case CLASSIFY_DISCOVERY:
		snprintf(info->match, sizeof(info->match), "tcp to %s port %d", ip,
			kind == CLASSIFY_NVME ? CLASSIFY_PORT_NVME : CLASSIFY_PORT_DISCOVERY);
		break;
	case CLASSIFY_UNSERVED:
		snprintf(info->match, sizeof(info->match),
			"other to %02x:%02x:%02x:%02x:%02x:%02x, malformed", m[0], m[1], m[2], m[3],
			m[4], m[5]);
		break;
	default:
		snprintf(info->match, sizeof(info->match), "everything else");
		break;
	}
	snprintf(info->action, sizeof(info->action), "%s",
		kind == CLASSIFY_UNSERVED ? "drop"
		: kind != CLASSIFY_REST   ? "card"
		: f->uplink.name[0]       ? "uplink"
					  : "drop (no uplink)");
}

int flow_rule_get(struct flow *f, unsigned int i, struct flow_rule_info *info)
{
	struct flow_rule *r;

	if (i >= CLASSIFY_RULES)
		return -ENOENT;
	r = &f->rule[i];
	memset(info, 0, sizeof(*info));
	snprintf(info->vm, sizeof(info->vm), "%s", f->vm);
	snprintf(info->port, sizeof(info->port), "%s", f->port.name);
	describe(f, r->kind, info);
	snprintf(info->provider, sizeof(info->provider), "%s", r->provider->name);
	snprintf(info->reason, sizeof(info->reason), "%s", r->why);
	info->packets = r->packets;
	info->bytes = r->bytes;
	if (r->counted && r->provider->query)
		info->hw_counted = r->provider->query(r, &info->hw_packets, &info->hw_bytes) == 0;
	return 0;
}
