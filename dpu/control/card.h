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

	/* One of several shards (dpu/control/shards.h). A card alone leaves the rest zero. */
	unsigned int index; /* which; ports are 0's */
	struct card *
		first; /* that of shard 0; events, identity and tables are had from it. NULL: this is it */
	const struct card_peers_ops *peers; /* NULL: it is alone */
	void *peers_arg;
};

/* What a card asks and tells whoever runs several of them; called on the card's thread. */
struct card_peers_ops {
	bool (*owns_vm)(void *arg, unsigned int index, uint32_t vm);
	int (*shard_of_vm)(void *arg, uint32_t vm); /* -ENOENT: nobody said */
	/* This card's pool declared a device failed: the others', on their own slices of it, are to do the same (card_fail_flash()). */
	void (*flash_failed)(
		void *arg, unsigned int index, const char *name, enum pool_cause cause);
};

extern const struct access_ops access_sockets; /* provider: the shard */
extern const struct access_ops access_ports; /* provider: struct access_ports_provider */

struct port_set;
struct lwipnet;
struct access_ports_provider {
	struct port_set *ports;
	struct lwipnet *net;
};

/* -EBUSY: another process has the state directory. Nothing is served yet, but the card can be asked how it is. cfg->first does not change meanwhile. */
int card_open(const struct card_cfg *cfg, struct card **out, struct err *e);
/* Brings up what the state directory remembers; opening a pool can take a while. A pool or a VM that does not come up is no error:
 * the card runs, and says so. */
int card_start(struct card *c, struct err *e);
/* Its two halves, for cards of several shards: between them is said which VM is whose. */
void card_start_pool(struct card *c);
int card_start_vms(struct card *c, struct err *e);
bool card_is_up(const struct card *c); /* card_start() has ended; any thread */
/* Disconnects all, waits for what is in flight, closes the pool. */
void card_close(struct card *c);

struct events *card_events(struct card *c);
struct shard *card_shard(struct card *c);
const char *card_boot_id(const struct card *c); /* any thread */
bool card_wants_upkeep(
	const struct card *c); /* call_flash_upkeep() has something to do; any thread */
uint64_t card_tables_version(const struct card *c); /* any thread */
bool card_has_pool(const struct card *c); /* it is open; any thread */

/* ---- one of several (dpu/control/shards.h) ----------------------------------------------------------------------------- */

unsigned int card_index(const struct card *c);
unsigned int card_count(const struct card *c);
/* How many there are, and the UUID (16 bytes) of a pool that they create: the same for all. Without a pool only. */
void card_set_count(struct card *c, unsigned int count, const uint8_t *uuid);
bool card_owns(const struct card *c, uint32_t vm);
/* Shard 0: was there a pool when it ran last? */
bool card_remembers_pool(const struct card *c);
/* Of how many shards is the pool that the card remembers, or that req (NULL: none) names? Asks its flash devices; the first that knows. Waits. -ENOENT: none does. */
int card_pool_shards(
	struct card *c, const Parapet__PoolOpen *req, unsigned int *count, struct err *e);
/* The end of a pool that has just been created, or opened, on this shard when it failed on another: it is closed and forgotten; undo wipes it as well. Waits. */
void card_pool_undo(struct card *c);
void card_pool_close(struct card *c);
/* The same for a flash device that has just been added. */
int card_flash_undo_add(struct card *c, const char *name, struct err *e);
/* A device of the pool failed on another shard. No effect where it is down, or not a member. */
void card_fail_flash(struct card *c, const char *name, enum pool_cause cause);
/* Takes the ways in of VMs down that are no longer its own, and brings those up that are now. Waits. */
void card_vms_again(struct card *c);
/* The first half of it: only those go down. */
void card_vms_let_go(struct card *c);
/* It is not needed for now (it has no pool): VMs go down, its loop sleeps; and it is needed again, or for the first time. */
void card_sleep(struct card *c);
int card_wake(struct card *c, struct tables_doc *doc, struct err *e);
/* VMs that have devices in its pool: *vms is for free(). */
int card_vms_of_devices(const struct card *c, uint32_t **vms, size_t *n);

/* The tables in force; tables_doc_put(). */
struct tables_doc *card_tables(struct card *c);
/* Puts doc in force without asking for versions, after a push that failed on another shard. VMs that do not come up are tried again. Waits. */
int card_put_tables(struct card *c, struct tables_doc *doc, struct err *e);

struct state_dir *card_state(struct card *c); /* its own; its thread, or who changes things */

#define CARD_VERSION "0.2"

#endif
