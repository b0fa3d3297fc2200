/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Providers of rules. flow.c asks them in order of preference for each rule; the last one, software, takes all.
 * Thread: the shard's. A created handle is its provider's until destroy.
 */
#ifndef DPU_FLOW_FLOW_PRIV_H
#define DPU_FLOW_FLOW_PRIV_H

#include "dpu/flow/classify.h"
#include "dpu/flow/flow.h"

struct flow_rule {
	enum classify_rule kind;
	const struct flow_provider *provider;
	void *handle; /* the provider's */
	uint16_t handle_port; /* where it was created */
	bool counted; /* the device counts it */
	char why[128]; /* why a better provider did not take it */
	uint64_t packets, bytes; /* seen by the classifier */
};

struct flow {
	struct flow_cfg cfg;
	struct classify_card card;
	char vm[64];
	struct port_info port, uplink; /* uplink.name is empty when there is none */
	struct flow_rule rule[CLASSIFY_RULES];
};

struct flow_provider {
	const char *name;
	/* Puts the rule into the device. 0, or -errno with the reason in why. */
	int (*create)(struct flow *f, struct flow_rule *r, char *why, size_t why_len);
	void (*destroy)(struct flow_rule *r); /* optional */
	int (*query)(struct flow_rule *r, uint64_t *packets, uint64_t *bytes); /* optional */
};

extern const struct flow_provider flow_rte_transfer, flow_rte_queue;

#endif
