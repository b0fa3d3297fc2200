/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of a card, shared by the files of dpu/control. */
#ifndef DPU_CONTROL_CARD_PRIV_H
#define DPU_CONTROL_CARD_PRIV_H

#include "dpu/control/call.h"
#include "dpu/control/card.h"
#include "dpu/flash/flash.h"
#include "dpu/mover/mover.h"
#include "dpu/stripelog/stripelog.h"

#include <stdatomic.h>

/* A VM the tables name, as far as it is up. */
struct card_vm {
	uint32_t vm;
	char name[POLICY_NAME_SIZE];
	char signature[512]; /* what its way in was made from: a change means a new one */
	char access_text[160]; /* "socket 127.0.0.1:4420" */
	char nqn[224];
	const struct card_access *access; /* NULL: none */
	void *way;
	struct nvme_tcp_vm *tvm; /* NULL: it did not come up, see problem */
	struct vhost_blk_vm *vvm; /* NULL: it has no virtio-blk functions */
	char problem[680];
	TAILQ_ENTRY(card_vm) link;
};

/* A member of the pool as the card remembers it. */
struct card_flash {
	char name[64], address[FLASH_ADDRESS_MAX], domain[64];
	uint32_t atomic_bytes, block_bytes;
	uint64_t cut_bytes; /* its size when it was cut into slices; 0: not known, or whole */
	bool leaving; /* out of the pool once nothing lies on it */
};

/* A failure domain whose flash is all on a peer. */
struct card_node {
	char name[64];
	bool lost;
};

/* The way back of a device on a peer (comeback.c). */
struct card_comeback {
	uint64_t warm_ns; /* when it is connected to again */
	uint64_t next_ns; /* not returned before */
	uint64_t back_ns; /* when it came back last */
	uint32_t warm_wait_ms, wait_ms; /* how long after that; both grow */
	bool wanted; /* it can be opened: upkeep has to return it */
};

struct card {
	struct card_cfg cfg;
	unsigned int count; /* shards the card has */
	uint8_t new_uuid[16]; /* of a pool they create; zero: any */
	uint64_t
		told; /* bit per device that failed because another shard's did: it need not be told */
	struct state_dir *state;
	struct events *events;
	struct tables *tables;
	struct tables_doc *doc; /* the one in force */
	struct pipeline *pipeline;
	struct nvme_tcp_target *target;
	struct vhost_blk *vhost; /* NULL: this card cannot */
	TAILQ_HEAD(, card_vm) vms;
	struct timer retry_timer; /* ways in that did not come up */
	struct store *store; /* NULL: no pool */
	struct mover *mover; /* beside the store */
	struct card_move *move; /* shard_move.c; NULL: none was begun */
	atomic_bool move_wants_stop;
	struct card_flash flashes[POOL_DEVS_MAX];
	unsigned int nflashes;
	char pool_problem[680]; /* why there is none although it is remembered */
	char tables_problem[680]; /* why the remembered tables are not in force */
	uint8_t id[16]; /* of this card, for ever */
	char boot_id[40];
	uint64_t started_ns;
	atomic_bool up;
	atomic_bool has_pool; /* store is there, for other threads */
	_Atomic uint64_t tables_version; /* of doc, for other threads */
	bool opening; /* the pool is being opened */
	struct log_progress progress; /* ... and so far it is */
	Parapet__PoolSettings settings; /* those the card keeps; numbers only */
	struct timer look_timer;
	atomic_bool wants_upkeep;
	unsigned int looks;
	uint64_t claimed; /* bit per device whose reservation we hold */
	struct card_node nodes[POOL_DEVS_MAX]; /* as nodes_look() saw them last */
	unsigned int nnodes;
	struct card_comeback comebacks[POOL_DEVS_MAX]; /* by device */
};

/* A name for messages, "vm web1"; the buffer is the caller's. */
const char *object_name(char *buf, size_t len, const char *noun, const char *name);

/* ---- pool.c ------------------------------------------------------------------------------------------------ */
/* Checks a member as the contract names it. */
int card_flash_take(const Parapet__Flash *f, struct card_flash *out, struct err *e);
bool card_flash_same(const struct card_flash *a, const struct card_flash *b); /* the same device */
int pool_remember(struct card *c, struct err *e); /* card->flashes, for the next start */
void pool_recall(struct card *c); /* into card->flashes; what is wrong goes to pool_problem */
struct flash_opts pool_flash_opts(const struct card *c, const struct card_flash *f);
void pool_in_use(struct card *c); /* brings the VMs up anew */
/* -ENODEV, with the reason, where no pool is open. */
int pool_need(const struct card *c, struct err *e);
/* What the store calls `object` as people know it: "device /dev/x of vm web1", "flash f3", "pool". */
const char *user_object(const struct card *c, const char *object, char *buf, size_t len);
/* Opens the recalled pool; what is wrong goes to pool_problem. */
void pool_bring_up(struct card *c);
void pool_take_down(struct card *c);

/* ---- devices.c --------------------------------------------------------------------------------------------- */
/* A device's volume is named after its VM, its namespace and its path: "VM.NSID/dev/path". */
struct device_id {
	uint32_t vm, nsid;
	const char *path;
};
#define DEVICE_PATH_MAX 48
int device_parse(const struct volume *vol, struct device_id *id); /* -EINVAL: not a device's */
struct volume *device_find(const struct card *c, uint32_t vm, const char *path);
unsigned int devices_of_vm(const struct card *c, uint32_t vm);
/* Blocks whose loss with their flash nothing makes up for. */
bool device_has_unprotected(const struct volume *vol);
/* Lets the VM use the volume. */
int device_attach(struct card *c, struct card_vm *v, struct volume *vol, struct err *e);
/* Makes doc current with the volumes of the pool. */
int devices_publish(struct card *c, struct tables_doc *doc, struct err *e);

/* ---- vhost.c ------------------------------------------------------------------------------------------------- */
/* The virtio-blk functions of VMs that have a directory for them. All are without effect where there are none. */
int vhost_up(struct card *c, struct err *e); /* the server */
void vhost_down(struct card *c);
int vhost_check(struct card *c, const Parapet__Vm *vm, struct err *e); /* what can be told before */
int vhost_vm_up(struct card *c, struct card_vm *v, const Parapet__Vm *vm, struct err *e);
int vhost_vm_down(struct card *c, struct card_vm *v); /* waits */
void vhost_vm_row(struct card_vm *v, const Parapet__Vm *vm); /* table 203 says something else now */
int vhost_attach(struct card_vm *v, const struct volume *vol, struct err *e);
/* -EBUSY: a driver is connected. Waits. */
int vhost_detach(struct card *c, uint32_t vm, uint32_t nsid);
void vhost_resize(struct card_vm *v, uint32_t nsid, uint64_t size_bytes);
uint32_t vhost_users(const struct card_vm *v, uint32_t nsid);
int vhost_fill(
	struct call *call, const struct card *c, const struct card_vm *v, Parapet__VmStatus *s);
void vhost_numbers(const struct card_vm *v,
	void (*stat_fn)(void *arg, const char *object, const char *name, uint64_t value), void *arg,
	const char *object);

/* ---- vms.c --------------------------------------------------------------------------------------------------- */
/* What can be told before anything is touched. */
int vms_check(struct card *c, const struct tables_doc *doc, struct err *e);
/* Makes the ways in those of doc. strict: fails at the first that does not come up (call again with the former document to
 * go back); else those get a problem and are tried again by timer. */
int vms_reconcile(struct card *c, const struct tables_doc *doc, bool strict, struct err *e);
void vms_take_down(struct card *c);
/* The VM's hosts are disconnected, it is not up any more. Waits. -ETIMEDOUT: its requests do not end; card_vms_again() tries to bring it up anew. */
int vm_stop(struct card *c, uint32_t vm);
struct card_vm *vm_by_number(const struct card *c, uint32_t vm);

/* ---- apply.c ------------------------------------------------------------------------------------------------- */
/* Puts the remembered tables in force; shard 0's, where it is another. */
void tables_bring_up(struct card *c);
struct queue_cfg queue_cfg_of(const struct tables_doc *doc);

/* ---- tasks.c ------------------------------------------------------------------------------------------------- */
int tasks_up(struct card *c, struct err *e); /* the store is open */
void tasks_down(struct card *c); /* waits; before the store closes */
bool task_has_ended(const struct mover_task *t);
void task_fill(
	const struct card *c, struct call *call, const struct mover_task *t, Parapet__Task *m);
/* Brings what is on flash of a volume to its scheme and layout; the task, NULL where there is none. */
int tasks_relay(struct card *c, struct call *call, struct volume *vol, Parapet__Task **out);
int tasks_fill_open(const struct card *c, struct call *call, Parapet__Status *r);
/* Starts what brings data on flash to the policy of `after`; out gets the tasks. */
int tasks_migrate(struct card *c, struct call *call, const struct tables_doc *before,
	const struct tables_doc *after, Parapet__TablesApplied *out);

/* ---- flash.c ------------------------------------------------------------------------------------------------- */
bool flash_is_leaving(const struct card *c, const char *name);
bool flash_try_remove(struct card *c, const char *name); /* true: it is out of the pool */
bool flash_forget(struct card *c, const char *name);
/* The store says that it has failed. */
void flash_tell_failed(struct card *c, const char *name);
int flash_come_back(struct card *c, const char *name, struct err *e); /* what 'flash return' does */
void flash_look_arm(struct card *c);
void flash_look_disarm(struct card *c);

/* ---- settings.c ------------------------------------------------------------------------------------------------ */
void settings_recall(struct card *c);
void settings_in_pool(
	struct card *c); /* puts them in force in the pool that has just been opened */
int settings_set(struct card *c, const Parapet__PoolSettings *s, struct err *e);
int settings_fill(const struct card *c, struct call *call, Parapet__PoolStatus *s);
uint32_t space_used_percent(const struct card *c); /* of what may be live in the log */
void health_look(struct card *c); /* what hosts are told of the storage's health */

/* ---- pool_status.c ------------------------------------------------------------------------------------------------ */
bool survives_nothing(const struct card *c); /* the next loss of a device may lose protected data */
int pool_status_fill(
	struct card *card, struct call *c, const struct store_stats *st, Parapet__PoolStatus *s);
void add_named(struct call *c, Parapet__Named **list, size_t *n, const char *name, uint64_t v);

/* ---- flash_status.c ------------------------------------------------------------------------------------------------- */
int flash_health_fill(
	const struct pool *p, unsigned int dev, struct call *c, Parapet__FlashStatus *s);

/* ---- nodes.c ---------------------------------------------------------------------------------------------------------- */
void nodes_look(struct card *c); /* tells of nodes that are lost, and back */
int nodes_fill(const struct card *card, struct call *c, Parapet__PoolStatus *s);

/* ---- comeback.c -------------------------------------------------------------------------------------------------------- */
/* Warms members on peers that are away because they could not be reached. True: one of them can be returned. */
bool comeback_look(struct card *c);
void comeback_upkeep(struct card *c); /* returns those; a change */
void comeback_forget(struct card *c); /* another pool */

/* ---- claim.c ------------------------------------------------------------------------------------------------------------ */
/* Makes this card the only writer of every usable member that can be claimed, before the pool's epoch begins. take_over: also from another host, which the
 * operator says is off. -EBUSY: another host holds one of them; -EOWNERDEAD: the pool's last owner is another card. */
int claim_pool(struct card *c, struct pool *p, bool imported, bool take_over, struct err *e);
/* The same for one flash that is not a member yet, or comes back. */
int claim_flash(struct card *c, struct flash *f, const char *name, bool take_over, bool *claimed,
	struct err *e);

const char *flash_address_of(const struct card *card, const struct pool_dev *d);

/* ---- status.c -------------------------------------------------------------------------------------------------- */
int status_fill(struct card *card, struct call *c); /* the response becomes a Status */

#endif
