/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/nvme/fabrics.h"

#include <errno.h>

#include "common/base/util.h"

static void fabrics_init(struct nvme_sqe *sqe, uint16_t cid, uint8_t fctype)
{
	nvme_sqe_init(sqe, NVME_OPC_FABRICS, cid, fctype); /* fctype lies where nsid does */
}

bool nvme_nqn_ok(const char *text)
{
	size_t n = strnlen(text, NVME_NQN_MAX + 1);

	return n > 4 && n <= NVME_NQN_MAX && memcmp(text, "nqn.", 4) == 0;
}

bool nvme_nqn_field_ok(const char *field)
{
	return memchr(field, 0, NVME_NQN_FIELD) && nvme_nqn_ok(field);
}

int nvme_connect_fill(
	struct nvme_sqe *sqe, struct nvme_connect_data *data, const struct nvme_connect *c)
{
	struct nvme_connect_sqe *cmd = (struct nvme_connect_sqe *)sqe;

	if (!nvme_nqn_ok(c->subnqn) || !nvme_nqn_ok(c->hostnqn))
		return -EINVAL;
	fabrics_init(sqe, c->cid, NVME_FCTYPE_CONNECT);
	cmd->dptr = nvme_sgl_in_capsule(0, sizeof(*data));
	cmd->qid = to_le16(c->qid);
	cmd->sqsize = to_le16(c->sqsize);
	cmd->cattr = c->no_sqflow ? NVME_CONNECT_DISABLE_SQFLOW : 0;
	cmd->kato = to_le32(c->kato_ms);

	memset(data, 0, sizeof(*data));
	memcpy(data->hostid, c->hostid, sizeof(data->hostid));
	data->cntlid = to_le16(c->cntlid);
	memcpy(data->subnqn, c->subnqn, strlen(c->subnqn));
	memcpy(data->hostnqn, c->hostnqn, strlen(c->hostnqn));
	return 0;
}

void nvme_property_get_fill(struct nvme_sqe *sqe, uint16_t cid, uint32_t offset, int size_bytes)
{
	struct nvme_property_sqe *cmd = (struct nvme_property_sqe *)sqe;

	fabrics_init(sqe, cid, NVME_FCTYPE_PROPERTY_GET);
	cmd->attrib = size_bytes == 8 ? NVME_PROP_8B : NVME_PROP_4B;
	cmd->ofst = to_le32(offset);
}

void nvme_property_set_fill(
	struct nvme_sqe *sqe, uint16_t cid, uint32_t offset, int size_bytes, uint64_t value)
{
	struct nvme_property_sqe *cmd = (struct nvme_property_sqe *)sqe;

	fabrics_init(sqe, cid, NVME_FCTYPE_PROPERTY_SET);
	cmd->attrib = size_bytes == 8 ? NVME_PROP_8B : NVME_PROP_4B;
	cmd->ofst = to_le32(offset);
	cmd->value = to_le64(value);
}

void nvme_ascii_fill(char *field, size_t n, const char *text)
{
	size_t len = strnlen(text, n);

	memset(field, ' ', n);
	memcpy(field, text, len);
}

char *nvme_ascii_text(const char *field, size_t n, char *out)
{
	size_t len = strnlen(field, n);

	while (len && field[len - 1] == ' ')
		len--;
	for (size_t i = 0; i < len; i++)
		out[i] = field[i] >= 0x20 && field[i] < 0x7f ? field[i] : '?';
	out[len] = 0;
	return out;
}
