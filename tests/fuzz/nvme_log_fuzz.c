/* SPDX-License-Identifier: BSD-3-Clause */
/* What targets send to be taken apart: byte 0 chooses the ANA log or a reservation report; ids to look for; then its bytes, in memory that ends with them. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "common/nvme/ana.h"
#include "common/nvme/resv.h"

static void ana(const uint8_t *p, size_t n, uint32_t nsid, uint32_t group)
{
	enum nvme_ana_state s, again;
	int rc = nvme_ana_log_find(p, n, nsid, group, &s);

	FUZZ_CHECK(rc == 0 || rc == -ENOENT || rc == -EBADMSG);
	if (rc == 0) {
		FUZZ_CHECK(strcmp(nvme_ana_state_name(s), "?") != 0);
		/* bytes behind the log change nothing; one missing at its end is noticed, or was behind it */
		if (nvme_ana_log_find(p, n - 1, nsid, group, &again) == 0)
			FUZZ_CHECK(again == s);
	}
}

static void resv(const uint8_t *p, size_t n)
{
	struct nvme_resv_report r;
	int rc = nvme_resv_report_parse(p, n, &r);
	uint64_t sum = 0;

	FUZZ_CHECK(rc == 0 || rc == -ENOBUFS || rc == -EBADMSG);
	if (rc == -ENOBUFS)
		FUZZ_CHECK(nvme_resv_report_bytes(r.nregistrants) > n && !r.registrants);
	if (rc == 0) {
		FUZZ_CHECK(r.type <= NVME_RESV_EXCLUSIVE_ACCESS_AR);
		for (uint32_t i = 0; i < r.nregistrants; i++)
			sum += from_le64(r.registrants[i].rkey) + r.registrants[i].rsvd32[31];
		FUZZ_CHECK(r.nregistrants || sum == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	uint8_t which = eat8(&e);
	uint32_t nsid = eat16(&e), group = eat16(&e);
	size_t n = e.left;
	uint8_t *p = malloc(n ? n : 1);

	if (!p)
		return 0;
	eat_bytes(&e, p, n);
	if (which & 1)
		resv(p, n);
	else
		ana(p, n, nsid, group);
	free(p);
	return 0;
}
