/* SPDX-License-Identifier: BSD-3-Clause */
/* The discovery log of a VM: its own subsystem, at the address the host has come to. Nothing of other VMs. */
#include <stdio.h>
#include <string.h>

#include "common/base/util.h"
#include "dpu/frontend/nvme_tcp/nvme_tcp_priv.h"

struct discovery_log {
	struct nvme_discovery_header header;
	struct nvme_discovery_record record[1];
};

bool tgt_host_allowed(const struct nvme_tcp_vm *vm, const char *hostnqn)
{
	for (int i = 0; i < vm->nhosts; i++)
		if (strcmp(vm->hosts[i], hostnqn) == 0)
			return true;
	return vm->nhosts == 0;
}

static uint16_t io_port(const struct nvme_tcp_vm *vm)
{
	const struct tgt_listener *l;

	TAILQ_FOREACH (l, &vm->listeners, entry)
		if (stream_listener_addr(l->l)->port != NVME_TCP_DISCOVERY_PORT)
			return stream_listener_addr(l->l)->port;
	return NVME_TCP_DISCOVERY_PORT; /* I/O is served there too */
}

static void fill_record(const struct tgt_conn *c, struct nvme_discovery_record *r)
{
	const struct stream_addr *local = stream_local(c->st);
	char port[8];

	snprintf(port, sizeof(port), "%u", io_port(c->vm));
	r->trtype = NVME_TRTYPE_TCP;
	r->adrfam = strchr(local->addr, ':') ? NVME_ADRFAM_IPV6 : NVME_ADRFAM_IPV4;
	r->subtype = NVME_DISC_SUBTYPE_NVM;
	r->treq = NVME_DISC_TREQ_NO_SECURE | NVME_DISC_TREQ_NO_SQFLOW;
	r->portid = to_le16(1);
	r->cntlid = to_le16(NVME_CNTLID_ANY);
	r->asqsz = to_le16((uint16_t)MIN(c->vm->t->cfg.max_queue_entries, 32u));
	nvme_ascii_fill(r->trsvcid, sizeof(r->trsvcid), port);
	nvme_ascii_fill(r->traddr, sizeof(r->traddr), local->addr);
	memcpy(r->subnqn, c->vm->subnqn, sizeof(r->subnqn));
}

void tgt_discovery_log(struct tgt_cmd *cmd, uint64_t off, uint32_t len_bytes)
{
	const struct tgt_conn *c = cmd->conn;
	struct discovery_log log = {0};
	bool shown = tgt_host_allowed(c->vm, c->ctrl->hostnqn);
	uint32_t size = sizeof(log.header) + (shown ? sizeof(log.record) : 0);

	log.header.genctr = to_le64(c->vm->discovery_genctr);
	log.header.numrec = to_le64(shown);
	if (shown)
		fill_record(c, &log.record[0]);
	if (off < size)
		tgt_buf_write(&cmd->buf, 0, (const uint8_t *)&log + off,
			MIN(len_bytes, size - (uint32_t)off));
}
