/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/unit/nvme_memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dpu/frontend/nvme_tcp/nvme_tcp.h"
#include "dpu/net/sockets.h"

static void execute(struct nvme_memory *m, struct io_req *r)
{
	uint8_t *at = m->bytes + r->off_bytes;

	r->status = IO_OK;
	if (r->op == IO_TRIM || r->op == IO_WRITE_ZEROES)
		memset(at, 0, r->len_bytes);
	for (int i = 0; i < r->niov && (r->op == IO_READ || r->op == IO_WRITE); i++) {
		if (r->op == IO_READ)
			memcpy(r->iov[i].iov_base, at, r->iov[i].iov_len);
		else
			memcpy(at, r->iov[i].iov_base, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
	}
}

static void run_queued(void *arg)
{
	struct nvme_memory *m = arg;
	struct io_req *r;

	while ((r = TAILQ_FIRST(&m->queued))) {
		TAILQ_REMOVE(&m->queued, r, link);
		if (r->off_bytes > m->size_bytes || r->len_bytes > m->size_bytes - r->off_bytes)
			r->status = IO_ERR_RANGE;
		else
			execute(m, r);
		r->done_fn(r);
	}
}

static int submit(void *arg, struct io_req *r)
{
	struct nvme_memory *m = arg;

	TAILQ_INSERT_TAIL(&m->queued, r, link);
	shard_defer(m->sh, &m->run, run_queued, m);
	return 0;
}

static int serve(struct nvme_memory *m, uint32_t block_bytes)
{
	struct nvme_tcp_ns_cfg nc = {.nsid = 1,
		.vol = (struct volume *)m,
		.size_bytes = m->size_bytes,
		.block_bytes = block_bytes,
		.nguid = {0x0a, 1}};
	struct stream_listener *l;
	int rc = nvme_tcp_target_open(
		m->sh, &(struct nvme_tcp_target_cfg){.submit_fn = submit, .arg = m}, &m->target);

	if (rc == 0)
		rc = nvme_tcp_vm_add(m->target,
			&(struct nvme_tcp_vm_cfg){
				.vm = 1, .subnqn = NVME_MEMORY_NQN, .serial = "MEMORY"},
			&m->vm, NULL);
	if (rc == 0)
		rc = nvme_tcp_ns_add(m->vm, &nc, NULL);
	if (rc == 0)
		rc = sockets_listen(m->sh, &(struct sockets_cfg){.addr = "127.0.0.1"}, &l, NULL);
	if (rc < 0)
		return rc;
	m->port = stream_listener_addr(l)->port;
	return nvme_tcp_vm_listen(m->vm, l);
}

int nvme_memory_open(
	struct shard *sh, uint64_t size_bytes, uint32_t block_bytes, struct nvme_memory **out)
{
	struct nvme_memory *m = calloc(1, sizeof(*m));
	int rc = -ENOMEM;

	if (!m)
		return -ENOMEM;
	m->sh = sh;
	m->size_bytes = size_bytes;
	TAILQ_INIT(&m->queued);
	m->bytes = calloc(1, size_bytes);
	if (m->bytes)
		rc = serve(m, block_bytes);
	if (rc < 0) {
		nvme_memory_close(m);
		return rc;
	}
	*out = m;
	return 0;
}

void nvme_memory_close(struct nvme_memory *m)
{
	if (m->vm)
		(void)nvme_tcp_vm_del(m->vm);
	if (m->target)
		(void)nvme_tcp_target_close(m->target);
	shard_undefer(m->sh, &m->run);
	free(m->bytes);
	free(m);
}
