/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The card as a whole: its pool, its tables, its VMs and their ways in, and the state directory that remembers them.
 *
 * Truth: volumes are in the pool; tables and VMs in the state directory; the agent is their author. Where they disagree the
 * card says so (card_warnings()) and merges nothing.
 *
 * Thread: the shard's; calls that change something wait through shard_wait(): control context. Requests come through
 * dpu/control/server.h. Errors: 0 or -errno with struct err.
 *
 *	card_open(&cfg, &card, &err);
 *	server_start(card, "/run/parapet/dpu.sock", &server, &err);
 *	card_start(card, &err);		brings up what the state directory remembers
 *	shard_run(cfg.shard);
 *	server_stop(server); card_close(card);
 */
#ifndef DPU_CONTROL_CARD_H
#define DPU_CONTROL_CARD_H

#include "common/base/err.h"
#include "dpu/control/events.h"
#include "dpu/core/shard.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp.h"
#include "dpu/frontend/vhost_blk/vhost_blk.h"
#include "dpu/pipeline/pipeline.h"
#include "dpu/tables/state.h"
#include "dpu/tables/tables.h"
#include "dpu/volume/volume.h"

struct card;
struct flow_rule_info;

/* A kind of way in for VMs: listen addresses (access_sockets) or ports (access_ports). */
struct access_ops {
	enum tables_access_kind kind;
	const char *name;
	/* Checks what can be checked without bringing anything up (the port exists). Optional. */
	int (*check)(void *provider, const Parapet__Tables *tables, const Parapet__Vm *vm,
		const struct tables_access *a, struct err *e);
	/* Lets the VM's hosts reach tvm. *way is for close and the rest. */
	int (*open)(void *provider, const Parapet__Tables *tables, const Parapet__Vm *vm,
		const struct tables_access *a, struct nvme_tcp_vm *tvm, void **way, struct err *e);
	/* After nvme_tcp_vm_del(). */
	void (*close)(void *provider, void *way);
	/* Rule i that steers the VM's frames; -ENOENT beyond the last. Optional. */
	int (*rule)(void *provider, void *way, unsigned int i, struct flow_rule_info *out);
	/* Counters of the provider. Optional. */
	void (*stats)(void *provider,
		void (*stat_fn)(void *arg, const char *object, const char *name, uint64_t value),
		void *arg);
};

struct card_access {
	const struct access_ops *ops;
	void *provider;
};
#define CARD_ACCESS_MAX 4

struct card_cfg {
	struct shard *shard;
	const char *state_dir;
	enum shard_mode mode; /* where the tables do not name one */
	uint64_t map_bytes; /* memory for location maps and stripe table; 0: the store's defaults */
	struct card_access access[CARD_ACCESS_MAX]; /* ends with ops NULL */
	const struct vhost_lib_ops *vhost; /* NULL: EAL was not started; no VM may have vhost */
};

extern const struct access_ops access_sockets; /* provider: the shard */
extern const struct access_ops access_ports; /* provider: struct access_ports_provider */

struct port_set;
struct lwipnet;
struct access_ports_provider {
	struct port_set *ports;
	struct lwipnet *net;
};

/* -EBUSY: another process has the state directory. Nothing is served yet, but the card can be asked how it is. */
int card_open(const struct card_cfg *cfg, struct card **out, struct err *e);
/* Brings up what the state directory remembers; opening a pool can take a while. A pool or a VM that does not come up is no error:
 * the card runs, and says so. */
int card_start(struct card *c, struct err *e);
bool card_is_up(const struct card *c); /* card_start() has ended; any thread */
/* Disconnects all, waits for what is in flight, closes the pool. */
void card_close(struct card *c);

struct events *card_events(struct card *c);
struct shard *card_shard(struct card *c);
const char *card_boot_id(const struct card *c); /* any thread */
bool card_wants_upkeep(
	const struct card *c); /* call_flash_upkeep() has something to do; any thread */
uint64_t card_tables_version(const struct card *c); /* any thread */

#define CARD_VERSION "0.2"

#endif
