/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A VM on its way to another shard, as seen by the card that it leaves. One at a time per shard.
 *
 * Thread: the card's, except card_move_wants_stop() (any) and move_wait() (the one that carries out changes).
 */
#ifndef DPU_CONTROL_SHARD_MOVE_H
#define DPU_CONTROL_SHARD_MOVE_H

#include "dpu/control/call.h"
#include "dpu/control/card.h"
#include "dpu/mover/mover.h"

/* What a move takes, from card to card. */
struct move_need {
	uint32_t vm;
	unsigned int to;
	uint64_t log_bytes;
	struct {
		char name[64];
		uint64_t bytes;
	} flash[POOL_DEVS_MAX];
	struct mover *to_mover;
	uint32_t task; /* its number, outside */
	struct err err;
};

/* For shards_run(); arg is a struct move_need with vm and to, and they leave what is wrong in its err. */
int move_look(
	struct card *c, void *arg); /* where it is: may it move, and what does it need there? */
int move_room(struct card *c, void *arg); /* where it goes: is that there? */
int move_start(struct card *c, void *arg); /* where it is */

/* The end of a move waits for somebody who can stop the VM: move_stop() (sets vm and to). When it returns 0, move_wait() says what is wanted next. */
enum move_wants { MOVE_NOTHING, MOVE_STOP, MOVE_SWITCH, MOVE_RESUME };
bool card_move_wants_stop(const struct card *c);
int move_stop(struct card *c, void *arg);
enum move_wants move_wait(struct card *c);
int move_switched(struct card *c, void *arg);
int move_not_switched(struct card *c, void *arg); /* because of err */

/* Leaves it as it is (the next start puts it right), before any card closes. */
int move_leave(struct card *c, void *arg);

/* 0, or -EBUSY: the VM is on its way, and can have no new devices. */
int move_refuses(const struct card *c, uint32_t vm, const char *object, struct err *e);

/* The move as a task: the one under way, or the last one. */
bool move_is_task(const struct card *c, uint32_t id);
bool move_is_open_task(const struct card *c);
void move_fill(const struct card *c, struct call *call, Parapet__Task *t);
int move_control(struct card *c, Parapet__TaskAction action, struct err *e);

/* After the pool was opened, before VMs are up: what a crash has left. */
void moves_settle(struct card *c);

#endif
