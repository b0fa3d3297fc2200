/* SPDX-License-Identifier: BSD-3-Clause */
/* A VM moves from shard to shard: begun by a request, ended by upkeep. */
#include "dpu/control/route_priv.h"

#include "dpu/control/shard_move.h"

#include <errno.h>
#include <stdlib.h>

/* ---- the request ------------------------------------------------------------------------------------------------------ */

static int begin(struct shards *s, unsigned int from, struct move_need *n)
{
	int rc = shards_run(s, from, move_look, n);

	if (rc == 0)
		rc = shards_run(s, n->to, move_room, n);
	return rc < 0 ? rc : shards_run(s, from, move_start, n);
}

/* The source's part answers with the task, the others with none. */
static int answer(struct shards *s, struct route_job *job, unsigned int from, uint32_t task)
{
	Parapet__TaskList list = PARAPET__TASK_LIST__INIT;
	Parapet__Request req = PARAPET__REQUEST__INIT;
	int rc = 0;

	req.op_case = PARAPET__REQUEST__OP_TASK_LIST;
	req.task_list = &list;
	list.has_id = true;
	list.id = task;
	for (unsigned int i = 0; i < job->nparts && rc == 0; i++)
		rc = task && i == from ? route_part_ask(s, job, i, call_task_list, &req)
				       : route_part_no_task(job, i);
	return rc;
}

int route_shard_move(struct shards *s, struct route_job *job)
{
	const Parapet__ShardMove *req = job->call.req->shard_move;
	unsigned int from = shards_of_vm(s, req->vm);
	struct move_need *n;
	uint32_t task = 0;
	int rc = 0;

	if (req->shard >= job->nparts)
		return err_set(&job->call.err, -EINVAL, "shard", NULL, "%u: there are %u, from 0",
			req->shard, job->nparts);
	if (from != req->shard) {
		n = calloc(1, sizeof(*n));
		if (!n)
			return -ENOMEM;
		n->vm = req->vm;
		n->to = req->shard;
		rc = begin(s, from, n);
		task = n->task;
		job->call.err = n->err;
		free(n);
	}
	return rc < 0 ? rc : answer(s, job, from, task);
}

/* ---- its end ------------------------------------------------------------------------------------------------------------ */

static int vms_again(struct card *c, void *arg)
{
	card_vms_again(c);
	return 0;
}

/* The VM is nowhere up. True: it is the other shard's. */
static bool change_shard(struct shards *s, unsigned int from, struct move_need *n)
{
	if (shards_put_vm(s, n->vm, n->to, &n->err) < 0) {
		shards_run(s, from, move_not_switched, n);
		return false;
	}
	shards_run(s, from, vms_again, NULL); /* its tables let go of the volumes */
	shards_run(s, n->to, vms_again, NULL);
	shards_run(s, from, move_switched, n);
	return true;
}

/* From the moment it stands still until it goes on, here or there. */
static void end(struct shards *s, unsigned int from, struct move_need *n)
{
	struct card *c = shards_card(s, from);

	if (shards_run(s, from, move_stop, n) < 0)
		return;
	for (;;) {
		if (move_wait(c) == MOVE_RESUME) {
			shards_run(s, from, vms_again, NULL);
			return;
		}
		if (change_shard(s, from, n))
			return;
	}
}

void route_moves(struct shards *s)
{
	for (unsigned int i = 0; i < shards_count(s); i++) {
		struct move_need *n;

		if (!card_move_wants_stop(shards_card(s, i)))
			continue;
		n = calloc(1, sizeof(*n));
		if (!n)
			return; /* again in a second */
		end(s, i, n);
		free(n);
	}
}
