/* SPDX-License-Identifier: BSD-3-Clause */
#include <errno.h>

#include "dpu/nvmf/dev_priv.h"

int nvmf_dev_claim(struct nvmf_dev *d, uint64_t key, bool preempt, struct err *err)
{
	return err_set(err, -EOPNOTSUPP, d->name, NULL, "the target has no reservations");
}

int nvmf_dev_unclaim(struct nvmf_dev *d, struct err *err)
{
	return 0;
}
