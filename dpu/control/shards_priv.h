/* SPDX-License-Identifier: BSD-3-Clause */
/* The inside of shards: shards.c (threads) and shards_vms.c (which VM is where). */
#ifndef DPU_CONTROL_SHARDS_PRIV_H
#define DPU_CONTROL_SHARDS_PRIV_H

#include "dpu/control/assign.h"
#include "dpu/control/shards.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

_Static_assert(SHARDS_MAX == ASSIGN_SHARDS_MAX, "shards");

/* One of them. Written before it is counted, then constant. */
struct member {
	struct shards *s;
	unsigned int index;
	char name[16]; /* of its thread */
	pthread_t thread;
	struct shard *sh;
	struct card *card; /* NULL: it has never been needed */
	struct timespec since;
	int cpu; /* -1: none of its own */
	/* its start */
	sem_t up;
	int rc;
	struct err e;
	atomic_bool ended;
};

struct shards {
	struct shards_cfg cfg;
	char state_dir[256];
	cpu_set_t cpus; /* where whoever is not pinned may run */
	int cores[CPU_SETSIZE]; /* as --cores says */
	unsigned int ncores;
	struct member members[SHARDS_MAX];
	atomic_uint count;
	uint8_t uuid[16]; /* of the next pool */
	pthread_mutex_t lock; /* assign; closing */
	struct assign assign;
	bool closing;
};

/* ---- cores.c ----------------------------------------------------------------------------------------------------- */
/* Reads cfg.cores and cfg.cpus. */
int cores_take(struct shards *s, struct err *e);
/* Pins the calling thread, which is m's. */
int cores_pin(struct member *m, struct err *e);

/* ---- shards_vms.c --------------------------------------------------------------------------------------------------- */
/* What the state directory says, at start: fills assign, with a count of 1 where there is no pool. */
int assign_recall(struct shards *s, struct err *e);
/* Another number of shards; VMs of those that are no longer there are nowhere. Durable. */
int assign_resize(struct shards *s, unsigned int count, struct err *e);
bool assign_owns(void *arg, unsigned int index, uint32_t vm);

#endif
