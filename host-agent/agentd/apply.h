/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One document for the whole configuration, as edits of one change. What the document names is made or set, what it does
 * not name stays, except that a VM's list "ec" replaces all of its rows of table 204. Applying it twice changes nothing the
 * second time. Nothing is ever deleted but such rows.
 *
 *	nodes:
 *	  - name: n1
 *	    address: unix:/run/parapet/dpu.sock
 *	    flashes: [{name: f0, address: "file:/srv/f0", domain: a}, ...]
 *	    pool: {ec: 4+2, on_degraded: refuse}
 *	    queue: {bytes: 512K, count: 64, age_us: 500}
 *	    vms:
 *	      - name: web1
 *	        data_flash: f0
 *	        intermediate_flash: f1
 *	        listen: 127.0.0.1:4420
 *	        devices: [{path: /dev/ecpool0, size: 1G, layout: copy}]
 *	        ec: [{path: /dev/ecpool, ec: 1}]
 *
 * Thread: as change.h; a change_fn. Errors: -EINVAL with the object and field.
 */
#ifndef HOST_AGENT_AGENTD_APPLY_H
#define HOST_AGENT_AGENTD_APPLY_H

#include "host-agent/agentd/change.h"

/* change_fn; arg: the document (json_t *). */
int apply_document(struct change *c, void *arg, struct err *e);

/* The whole of it: nodes that are new are made known first, so that their cards are there to say what they think of the rest. *result
 * as change.h says. */
int apply_run(struct agent *a, const struct change_options *o, json_t *doc, json_t **result,
	struct err *e);

#endif
