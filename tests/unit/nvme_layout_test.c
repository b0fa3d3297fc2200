/* SPDX-License-Identifier: BSD-3-Clause */
/* Our NVMe structures against those of libnvme, which others wrote from the same specification. */
#include "tests/unit/nvme_layout.h"

#include "common/base/util.h"
#include "common/nvme/ana.h"
#include "common/nvme/fabrics.h"
#include "common/nvme/identify.h"
#include "common/nvme/resv.h"

static const struct layout_fact ours[] = {LAYOUT_FACTS};

static void structures_and_codes_are_those_of_libnvme(void **state)
{
	assert_int_equal(layout_of_libnvme_count, ARRAY_LEN(ours));
	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (ours[i].value != layout_of_libnvme[i].value)
			fail_msg("%s is %zu here, %zu in libnvme", layout_of_libnvme[i].what,
				ours[i].value, layout_of_libnvme[i].value);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(structures_and_codes_are_those_of_libnvme),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
