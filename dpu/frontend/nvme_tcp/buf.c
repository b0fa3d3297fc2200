/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/core/crc32c.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

/* Of a VM's in-capsule writes; and one per connection. */
#define CAPSULES_IN_BACKEND 128
/* Of vm_buffer_bytes, this part goes to small chunks. */
#define SMALL_PART 4

int tgt_bufs_open(struct nvme_tcp_vm *vm)
{
	const struct nvme_tcp_target_cfg *cfg = &vm->t->cfg;
	uint64_t small = MAX(
		cfg->vm_buffer_bytes / SMALL_PART / TGT_SMALL_BYTES, (uint64_t)TGT_SMALL_CHUNKS);
	uint64_t large = MAX(cfg->vm_buffer_bytes / SMALL_PART * (SMALL_PART - 1) / TGT_LARGE_BYTES,
		(uint64_t)TGT_CHUNKS_MAX);
	int rc;

	if (small > UINT32_MAX || large > UINT32_MAX)
		return -EINVAL;
	rc = bufpool_open(TGT_CAPSULE_BYTES, cfg->max_conns + CAPSULES_IN_BACKEND, &vm->capsule);
	if (rc == 0)
		rc = bufpool_open(TGT_SMALL_BYTES, (uint32_t)small, &vm->small);
	if (rc == 0)
		rc = bufpool_open(TGT_LARGE_BYTES, (uint32_t)large, &vm->large);
	if (rc < 0)
		tgt_bufs_close(vm);
	return rc;
}

void tgt_bufs_close(struct nvme_tcp_vm *vm)
{
	shard_undefer(vm->t->sh, &vm->resume_task);
	if (vm->capsule)
		bufpool_close(vm->capsule);
	if (vm->small)
		bufpool_close(vm->small);
	if (vm->large)
		bufpool_close(vm->large);
	vm->capsule = vm->small = vm->large = NULL;
}

bool tgt_buf_get_capsule(struct tgt_conn *c, struct tgt_buf *b, uint32_t len_bytes)
{
	struct nvme_tcp_vm *vm = c->vm;
	void *p;

	/* I/O leaves one per connection alone: however slow the backend is, hosts can still connect and administer. */
	if (c->ctrl && c->qid && bufpool_free_count(vm->capsule) <= vm->t->cfg.max_conns)
		return false;
	p = bufpool_get(vm->capsule);
	if (!p)
		return false;
	b->kind = TGT_BUF_CAPSULE;
	b->n = 1;
	b->iov[0] = (struct iovec){p, len_bytes};
	return true;
}

/* All or nothing. */
static bool take(struct bufpool *pool, enum tgt_buf_kind kind, uint32_t chunk_bytes,
	struct tgt_buf *b, uint32_t len)
{
	uint32_t n = DIV_ROUND_UP(len, chunk_bytes);

	if (n > TGT_CHUNKS_MAX || bufpool_free_count(pool) < n)
		return false;
	b->kind = kind;
	b->n = (int)n;
	for (uint32_t i = 0; i < n; i++) {
		b->iov[i] = (struct iovec){bufpool_get(pool), MIN(len, chunk_bytes)};
		len -= MIN(len, chunk_bytes);
	}
	return true;
}

static bool is_small(const struct tgt_cmd *cmd)
{
	return cmd->xfer_bytes <= TGT_SMALL_CHUNKS * TGT_SMALL_BYTES;
}

static bool try_get(struct nvme_tcp_vm *vm, struct tgt_cmd *cmd)
{
	uint32_t len = cmd->xfer_bytes;

	if (is_small(cmd) && take(vm->small, TGT_BUF_SMALL, TGT_SMALL_BYTES, &cmd->buf, len))
		return true;
	/* A small transfer may use a large chunk that nobody waits for. */
	if (is_small(cmd) && !TAILQ_EMPTY(&vm->wait_large))
		return false;
	return take(vm->large, TGT_BUF_LARGE, TGT_LARGE_BYTES, &cmd->buf, len);
}

bool tgt_buf_get(struct tgt_cmd *cmd)
{
	struct nvme_tcp_vm *vm = cmd->conn->vm;
	struct tgt_cmd_list *line = is_small(cmd) ? &vm->wait_small : &vm->wait_large;

	if (TAILQ_EMPTY(line) && try_get(vm, cmd))
		return true;
	vm->stats.buffer_waits++;
	tgt_cmd_set_state(cmd, TGT_CMD_WAIT_BUFFER);
	TAILQ_INSERT_TAIL(line, cmd, link);
	return false;
}

void tgt_buf_unwait(struct tgt_cmd *cmd)
{
	struct nvme_tcp_vm *vm = cmd->conn->vm;

	TAILQ_REMOVE(is_small(cmd) ? &vm->wait_small : &vm->wait_large, cmd, link);
}

static void serve_line(struct nvme_tcp_vm *vm, struct tgt_cmd_list *line)
{
	struct tgt_cmd *cmd;

	while ((cmd = TAILQ_FIRST(line)) && try_get(vm, cmd)) {
		TAILQ_REMOVE(line, cmd, link);
		tgt_cmd_buffers_ready(cmd);
	}
}

static void resume(void *arg)
{
	struct nvme_tcp_vm *vm = arg;
	struct tgt_conn *c;

	serve_line(vm, &vm->wait_large);
	serve_line(vm, &vm->wait_small);
	/* Each that waits gets one try; who finds nothing lines up again. */
	for (uint32_t n = vm->nstalled; n && (c = TAILQ_FIRST(&vm->stalled)); n--)
		tgt_rx_unstall(c);
}

void tgt_buf_put(struct nvme_tcp_vm *vm, struct tgt_buf *b)
{
	struct bufpool *pool = b->kind == TGT_BUF_CAPSULE ? vm->capsule
			       : b->kind == TGT_BUF_SMALL ? vm->small
							  : vm->large;

	if (b->kind == TGT_BUF_NONE)
		return;
	for (int i = 0; i < b->n; i++)
		bufpool_put(pool, b->iov[i].iov_base);
	b->kind = TGT_BUF_NONE;
	b->n = 0;
	if (!TAILQ_EMPTY(&vm->wait_large) || !TAILQ_EMPTY(&vm->wait_small) ||
		!TAILQ_EMPTY(&vm->stalled))
		shard_defer(vm->t->sh, &vm->resume_task, resume, vm);
}

/* The contiguous bytes at off, at most len of them; 0 behind the end. */
static uint32_t piece_at(const struct tgt_buf *b, uint32_t off, uint32_t len, uint8_t **piece)
{
	for (int i = 0; i < b->n; i++) {
		uint32_t have = (uint32_t)b->iov[i].iov_len;

		if (off < have) {
			*piece = (uint8_t *)b->iov[i].iov_base + off;
			return MIN(have - off, len);
		}
		off -= have;
	}
	return 0;
}

void tgt_buf_write(struct tgt_buf *b, uint32_t off, const void *p, uint32_t len_bytes)
{
	uint32_t n;
	uint8_t *piece;

	for (uint32_t done = 0; done < len_bytes; done += n) {
		n = piece_at(b, off + done, len_bytes - done, &piece);
		if (!n)
			return;
		memcpy(piece, (const uint8_t *)p + done, n);
	}
}

void tgt_buf_read(const struct tgt_buf *b, uint32_t off, void *p, uint32_t len_bytes)
{
	uint32_t n;
	uint8_t *piece;

	for (uint32_t done = 0; done < len_bytes; done += n) {
		n = piece_at(b, off + done, len_bytes - done, &piece);
		if (!n)
			return;
		memcpy((uint8_t *)p + done, piece, n);
	}
}

uint32_t tgt_buf_crc(const struct tgt_buf *b, uint32_t len_bytes)
{
	uint32_t crc = CRC32C_INIT, n;
	uint8_t *piece;

	for (uint32_t done = 0; done < len_bytes; done += n) {
		n = piece_at(b, done, len_bytes - done, &piece);
		if (!n)
			break;
		crc = crc32c_add(crc, piece, n);
	}
	return crc32c_end(crc);
}
