/* SPDX-License-Identifier: BSD-3-Clause */
/* Frames of the control protocol. Byte 0: raw bytes, or a message that gets a fitting header. */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "common/rpc/frame.h"

static void check_again(const struct rpc_msg *m)
{
	struct rpc_msg again;
	size_t len, used;
	uint8_t *buf;

	if (rpc_frame_size(m->frame, &len) < 0)
		return;
	buf = malloc(len);
	FUZZ_CHECK(buf);
	rpc_frame_encode(m->frame, buf);
	/* Packing may be larger than what came (defaults are written out), so memory may run out; but it is a frame. */
	if (rpc_frame_decode(buf, len, RPC_FRAME_MAX, &used, &again) == 0) {
		FUZZ_CHECK(used == len);
		FUZZ_CHECK(again.frame->body_case == m->frame->body_case);
		rpc_msg_clear(&again);
	}
	free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	uint8_t how = eat8(&e), *buf = malloc(RPC_HEADER_BYTES + e.left);
	size_t n = 0, used = 0;
	struct rpc_msg m;
	int rc;

	FUZZ_CHECK(buf);
	if (how & 1) {
		uint32_t len = (uint32_t)e.left;
		uint8_t head[8] = {'P', 'R', 'P', 'T', (uint8_t)(len >> 24), (uint8_t)(len >> 16),
			(uint8_t)(len >> 8), (uint8_t)len};

		memcpy(buf, head, sizeof(head));
		n = sizeof(head);
	}
	if (e.left)
		memcpy(buf + n, e.p, e.left);
	n += e.left;
	rc = rpc_frame_decode(buf, n, RPC_FRAME_MAX, &used, &m);
	if (rc == 0) {
		FUZZ_CHECK(used > RPC_HEADER_BYTES && used <= n);
		check_again(&m);
		rpc_msg_clear(&m);
	} else {
		FUZZ_CHECK(rc == -EAGAIN || rc == -EPROTO || rc == -EMSGSIZE);
	}
	free(buf);
	return 0;
}
