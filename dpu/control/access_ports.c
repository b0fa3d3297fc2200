/* SPDX-License-Identifier: BSD-3-Clause */
/* Ways in over DPDK ports: a VF's storage frames are steered to an lwIP interface of its own, with the card's address. */
#include "dpu/control/card.h"
#include "dpu/flow/flow.h"
#include "dpu/net/lwip.h"
#include "dpu/port/port.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct port_way {
	struct flow *flow;
	struct lwipnet_if *nif;
};

static const uint16_t tcp_ports[] = {4420, 8009};

static int uplink_of(const struct access_ports_provider *pr, const Parapet__Tables *tables,
	struct port **out, struct err *e)
{
	struct port_info info;
	struct port *p;

	*out = port_uplink(pr->ports);
	if (!tables->uplink || !tables->uplink[0])
		return 0;
	p = port_find(pr->ports, tables->uplink);
	if (p)
		port_info(p, &info);
	if (!p || info.role != PORT_ROLE_UPLINK)
		return err_set(e, -ENOENT, "tables", "uplink", "%s is no uplink of this card",
			tables->uplink);
	*out = p;
	return 0;
}

static int ports_check(void *provider, const Parapet__Tables *tables, const Parapet__Vm *vm,
	const struct tables_access *a, struct err *e)
{
	const struct access_ports_provider *pr = provider;
	struct port *p = port_find_late(pr->ports, a->port), *uplink;
	struct port_info info;
	char object[96], list[200] = "";
	size_t n = 0;

	snprintf(object, sizeof(object), "vm %.64s", vm->name);
	if (p) {
		port_info(p, &info);
		if (info.role == PORT_ROLE_UPLINK)
			return err_set(e, -EINVAL, object, "port", "%s is an uplink", info.name);
		return uplink_of(pr, tables, &uplink, e);
	}
	for (unsigned int i = 0; i < port_count(pr->ports) && n < sizeof(list); i++) {
		port_info(port_at(pr->ports, i), &info);
		if (info.role == PORT_ROLE_VF)
			n += (size_t)snprintf(
				list + n, sizeof(list) - n, "%s%s", n ? ", " : "", info.name);
	}
	return err_set(e, -ENOENT, object, "port", "no port '%s'; there are: %s", a->port,
		n ? list : "none");
}

static void ports_close(void *provider, void *way)
{
	struct port_way *w = way;

	if (w->nif)
		lwipnet_if_del(w->nif);
	flow_close(w->flow);
	free(w);
}

static int listen_all(
	struct port_way *w, struct nvme_tcp_vm *tvm, const char *object, struct err *e)
{
	for (size_t i = 0; i < sizeof(tcp_ports) / sizeof(tcp_ports[0]); i++) {
		struct lwipnet_listen_cfg cfg = {.port = tcp_ports[i]};
		struct stream_listener *l;
		int rc = lwipnet_listen(w->nif, &cfg, &l, e);

		if (rc == 0) {
			rc = nvme_tcp_vm_listen(tvm, l);
			if (rc < 0)
				err_set(e, rc, object, "port", "port %u: %s", tcp_ports[i],
					strerror(-rc));
		}
		if (rc < 0)
			return rc;
	}
	return 0;
}

static int ports_open(void *provider, const Parapet__Tables *tables, const Parapet__Vm *vm,
	const struct tables_access *a, struct nvme_tcp_vm *tvm, void **way, struct err *e)
{
	const struct access_ports_provider *pr = provider;
	struct port *p = port_find_late(pr->ports, a->port), *uplink = NULL;
	struct port_way *w = calloc(1, sizeof(*w));
	struct flow_cfg fc = {.port = p, .vm = vm->name, .card_ip = a->card_ip};
	struct lwipnet_if_cfg ic = {
		.port = p, .ip = a->card_ip, .prefix_len = a->prefix_len, .mac = fc.card_mac};
	struct port_info info;
	char object[96];
	int rc;

	snprintf(object, sizeof(object), "vm %.64s", vm->name);
	if (!w)
		return err_set(e, -ENOMEM, object, NULL, "out of memory");
	rc = uplink_of(pr, tables, &uplink, e);
	fc.uplink = uplink;
	port_info(p, &info);
	if (a->mac_set)
		memcpy(fc.card_mac, a->card_mac, sizeof(fc.card_mac));
	else
		flow_card_mac(info.vf_name[0] ? info.vf_name : info.name, a->card_ip, fc.card_mac);
	if (rc == 0)
		rc = lwipnet_if_add(pr->net, &ic, &w->nif, e);
	if (rc == 0)
		rc = listen_all(w, tvm, object, e);
	/* Frames come once all that takes them is there. */
	if (rc == 0)
		rc = flow_open(&fc, &w->flow, e);
	*way = w; /* also on error: listeners may be the target's already, vm_down() ends them first */
	return rc;
}

static int ports_rule(void *provider, void *way, unsigned int i, struct flow_rule_info *out)
{
	return flow_rule_get(((struct port_way *)way)->flow, i, out);
}

static void ports_stats(void *provider,
	void (*stat_fn)(void *arg, const char *object, const char *name, uint64_t value), void *arg)
{
	const struct access_ports_provider *pr = provider;

	for (unsigned int i = 0; i < port_count(pr->ports); i++) {
		struct port *p = port_at(pr->ports, i);
		struct port_stats st;
		struct port_info info;
		char object[PORT_NAME_MAX + 8];

		port_info(p, &info);
		port_stats(p, &st);
		snprintf(object, sizeof(object), "port %s", info.name);
		stat_fn(arg, object, "rx_packets", st.rx_packets);
		stat_fn(arg, object, "rx_bytes", st.rx_bytes);
		stat_fn(arg, object, "tx_packets", st.tx_packets);
		stat_fn(arg, object, "tx_bytes", st.tx_bytes);
		stat_fn(arg, object, "rx_card_queue", st.rx_card_queue);
		stat_fn(arg, object, "to_card", st.to_card);
		stat_fn(arg, object, "forwarded", st.forwarded);
		stat_fn(arg, object, "flooded", st.flooded);
		stat_fn(arg, object, "drop_filter", st.drop_filter);
		stat_fn(arg, object, "drop_bridge", st.drop_bridge);
		stat_fn(arg, object, "drop_isolation", st.drop_isolation);
		stat_fn(arg, object, "drop_tx_full", st.drop_tx_full);
		stat_fn(arg, object, "drop_device", st.drop_device);
		stat_fn(arg, object, "link_downs", st.link_downs);
		stat_fn(arg, object, "reattached", st.reattached);
	}
}

const struct access_ops access_ports = {
	.kind = TABLES_ACCESS_PORT,
	.name = "port",
	.check = ports_check,
	.open = ports_open,
	.close = ports_close,
	.rule = ports_rule,
	.stats = ports_stats,
};
