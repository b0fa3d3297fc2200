/* SPDX-License-Identifier: BSD-3-Clause */
/* Virtqueues over plain memory: what a driver may do, what it may not, and what outlives the device's process. */
#include "dpu/frontend/vhost_blk/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SIZE   16u
#define GPA    0x10000ull
#define MEMORY (256u << 10)
#define AREA   8192u

struct bed {
	uint8_t *memory; /* two regions that touch in the guest's eyes, and not here */
	struct vb_mem mem;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	struct vring_packed_desc *pdesc;
	struct vring_packed_desc_event *driver, *device;
	void *area;
	struct vb_split s;
	struct vb_packed p;
	struct vb_chain c;
	struct iovec iov[VB_IOV_MAX];
	uint16_t at; /* packed: the driver's place */
	bool wrap;
};

static int setup(void **state)
{
	struct bed *b = calloc(1, sizeof(*b));

	b->memory = aligned_alloc(4096, MEMORY);
	memset(b->memory, 0, MEMORY);
	b->area = calloc(1, AREA);
	b->mem = (struct vb_mem){.n = 2,
		.r = {{GPA, 65536, b->memory + 65536, 0x7000000},
			{GPA + 65536, 65536, b->memory + 131072 + 4096, 0x8000000}}};
	b->desc = (void *)b->memory;
	b->avail = (void *)(b->memory + 4096);
	b->used = (void *)(b->memory + 8192);
	b->pdesc = (void *)b->memory;
	b->driver = (void *)(b->memory + 4096);
	b->device = (void *)(b->memory + 8192);
	b->c.iov = b->iov;
	b->wrap = true;
	((struct vb_inflight_split *)b->area)->desc_num = SIZE;
	vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, 0, NULL);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	free(b->memory);
	free(b->area);
	free(b);
	return 0;
}

/* ---- split ----------------------------------------------------------------------------------------------------- */

static void put(struct bed *b, uint16_t head)
{
	b->avail->ring[b->avail->idx % SIZE] = head;
	b->avail->idx++;
}

/* header, data, status in 3 * i and what follows. */
static void request(struct bed *b, uint16_t i)
{
	uint16_t d = (uint16_t)(3 * i);

	b->desc[d] = (struct vring_desc){GPA, 16, VRING_DESC_F_NEXT, (uint16_t)(d + 1)};
	b->desc[d + 1] = (struct vring_desc){
		GPA + 4096, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(d + 2)};
	b->desc[d + 2] = (struct vring_desc){GPA + 16, 1, VRING_DESC_F_WRITE, 0};
}

static void split_gives_what_the_driver_made_available(void **state)
{
	struct bed *b = *state;

	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 0);
	request(b, 1);
	put(b, 3);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
	assert_int_equal(b->c.head, 3);
	assert_int_equal(b->c.nout, 1);
	assert_int_equal(b->c.nin, 2);
	assert_int_equal(b->c.out_bytes, 16);
	assert_int_equal(b->c.in_bytes, 513);
	assert_ptr_equal(b->iov[1].iov_base, b->memory + 65536 + 4096);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 0);
	vb_split_put(&b->s, 3, 513);
	assert_int_equal(b->used->idx, 1);
	assert_int_equal(b->used->ring[0].id, 3);
	assert_int_equal(b->used->ring[0].len, 513);
}

static void a_descriptor_across_two_regions_becomes_two_pieces(void **state)
{
	struct bed *b = *state;

	request(b, 0);
	b->desc[1].addr = GPA + 65536 - 100;
	put(b, 0);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
	assert_int_equal(b->c.nin, 3);
	assert_int_equal(b->iov[1].iov_len, 100);
	assert_ptr_equal(b->iov[2].iov_base, b->memory + 131072 + 4096);
	assert_int_equal(b->iov[2].iov_len, 412);
}

static void indirect_tables_may_lie_anywhere_and_end_a_chain(void **state)
{
	struct bed *b = *state;
	/* Across the border, and at no multiple of 16. */
	uint8_t *lo = b->memory + 65536 + 65536 - 21, *hi = b->memory + 131072 + 4096;
	struct vring_desc t[2] = {{GPA + 4096, 512, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1},
		{GPA + 16, 1, VRING_DESC_F_WRITE, 0}};

	memcpy(lo, t, 21);
	memcpy(hi, (uint8_t *)t + 21, sizeof(t) - 21);
	b->desc[0] = (struct vring_desc){GPA, 16, VRING_DESC_F_NEXT, 5};
	b->desc[5] = (struct vring_desc){GPA + 65536 - 21, sizeof(t), VRING_DESC_F_INDIRECT, 0};
	put(b, 0);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
	assert_int_equal(b->c.nout, 1);
	assert_int_equal(b->c.in_bytes, 513);
}

static void split_indices_wrap_at_65536(void **state)
{
	struct bed *b = *state;

	request(b, 0);
	for (uint32_t i = 0; i < 65536 + 3 * SIZE; i++) {
		put(b, 0);
		assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
		vb_split_put(&b->s, 0, 1);
	}
	assert_int_equal(b->used->idx, (uint16_t)(3 * SIZE));
}

struct bad {
	const char *what;
	enum vb_fault fault;
	struct vring_desc d[4]; /* put at 0..; head is 0 */
	struct vring_desc table[4]; /* at GPA + 8192 */
	uint16_t head, jump;
};
#define N VRING_DESC_F_NEXT
#define W VRING_DESC_F_WRITE
#define I VRING_DESC_F_INDIRECT

static const struct bad bad[] = {
	{"index jump", VB_FAULT_INDEX, {{GPA, 16, 0, 0}}, .jump = SIZE + 1},
	{"head", VB_FAULT_HEAD, {{GPA, 16, 0, 0}}, .head = SIZE},
	{"next", VB_FAULT_NEXT, {{GPA, 16, N, SIZE}}},
	{"loop to itself", VB_FAULT_LOOP, {{GPA, 16, N, 0}}},
	{"loop of two", VB_FAULT_LOOP, {{GPA, 16, N, 1}, {GPA, 16, N, 0}}},
	{"below memory", VB_FAULT_ADDRESS, {{GPA - 1, 16, 0, 0}}},
	{"beyond memory", VB_FAULT_ADDRESS, {{GPA + 131072 - 8, 16, 0, 0}}},
	{"address wraps", VB_FAULT_ADDRESS, {{UINT64_MAX - 4, 16, 0, 0}}},
	{"no length", VB_FAULT_LENGTH, {{GPA, 0, 0, 0}}},
	{"more than 4 GiB", VB_FAULT_LENGTH, {{GPA, UINT32_MAX, 0, 0}}},
	{"readable behind writable", VB_FAULT_ORDER, {{GPA, 16, N | W, 1}, {GPA, 16, 0, 0}}},
	{"indirect and next", VB_FAULT_INDIRECT, {{GPA + 8192, 32, I | N, 1}}},
	{"indirect of no entry", VB_FAULT_INDIRECT, {{GPA + 8192, 0, I, 0}}},
	{"indirect of half an entry", VB_FAULT_INDIRECT, {{GPA + 8192, 24, I, 0}}},
	{"indirect larger than the ring", VB_FAULT_INDIRECT, {{GPA + 8192, 17 * 16, I, 0}}},
	{"indirect in indirect", VB_FAULT_INDIRECT, {{GPA + 8192, 16, I, 0}},
		.table = {{GPA, 16, I, 0}}},
	{"indirect outside of memory", VB_FAULT_ADDRESS, {{GPA + 131072 + 16, 32, I, 0}}},
	{"indirect address wraps", VB_FAULT_ADDRESS, {{UINT64_MAX - 15, 32, I, 0}}},
	{"loop in a table", VB_FAULT_LOOP, {{GPA + 8192, 32, I, 0}},
		.table = {{GPA, 16, N, 1}, {GPA, 16, N, 0}}},
	{"next out of a table", VB_FAULT_NEXT, {{GPA + 8192, 32, I, 0}},
		.table = {{GPA, 16, N, 2}}},
	{"address in a table", VB_FAULT_ADDRESS, {{GPA + 8192, 16, I, 0}},
		.table = {{1, 16, 0, 0}}},
};

static void split_refuses_what_breaks_the_rules(void **state)
{
	struct bed *b = *state;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		memset(b->memory, 0, MEMORY);
		vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, 0, NULL);
		memcpy(b->desc, bad[i].d, sizeof(bad[i].d));
		memcpy(b->memory + 65536 + 8192, bad[i].table, sizeof(bad[i].table));
		put(b, bad[i].head);
		b->avail->idx = (uint16_t)(b->avail->idx + bad[i].jump);
		if (vb_split_get(&b->s, &b->mem, &b->c) != -EINVAL || b->s.fault != bad[i].fault)
			fail_msg("%s: %s", bad[i].what, vb_fault_name(b->s.fault));
		/* And stays refused. */
		assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), -EINVAL);
	}
}

static void more_segments_than_a_request_may_have_are_refused(void **state)
{
	struct bed *b = *state;
	static uint8_t ring[6 + 8 * VB_QUEUE_SIZE_MAX], avail[6 + 2 * VB_QUEUE_SIZE_MAX];
	static struct vring_desc desc[VB_QUEUE_SIZE_MAX];

	for (uint16_t i = 0; i < VB_QUEUE_SIZE_MAX; i++)
		desc[i] = (struct vring_desc){GPA, 1, N, (uint16_t)(i + 1)};
	desc[VB_QUEUE_SIZE_MAX - 1].flags = 0;
	vb_split_start(&b->s, VB_QUEUE_SIZE_MAX, desc, avail, ring, 0, NULL);
	((struct vring_avail *)(void *)avail)->idx = 1;
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), -EINVAL);
	assert_int_equal(b->s.fault, VB_FAULT_SEGMENTS);
}

static void split_goes_on_after_a_death_with_what_was_in_flight(void **state)
{
	struct bed *b = *state;
	struct vb_inflight_split *in = b->area;
	uint16_t heads[SIZE];

	vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, 0, in);
	assert_int_equal(vb_split_recover(&b->s, heads), 0);
	for (uint16_t i = 0; i < 4; i++) {
		request(b, i);
		put(b, (uint16_t)(3 * i));
		assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
	}
	vb_split_put(&b->s, 6, 1); /* out of order */
	/* Another process: it knows the ring, the area and nothing else. */
	vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, b->used->idx, in);
	assert_int_equal(vb_split_recover(&b->s, heads), 3);
	assert_int_equal(heads[0], 0);
	assert_int_equal(heads[1], 3);
	assert_int_equal(heads[2], 9);
	assert_int_equal(vb_split_chain(&b->s, &b->mem, heads[1], &b->c), 1);
	assert_int_equal(b->c.in_bytes, 513);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 0);
	for (int i = 0; i < 3; i++)
		vb_split_put(&b->s, heads[i], 1);
	put(b, 0);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
	vb_split_put(&b->s, 0, 1);
	assert_int_equal(b->used->idx, 5);
}

static void a_split_buffer_given_back_but_not_struck_out_is_not_done_again(void **state)
{
	struct bed *b = *state;
	struct vb_inflight_split *in = b->area;
	uint16_t heads[SIZE];

	vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, 0, in);
	request(b, 0);
	put(b, 0);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
	/* As if the process had died right after the used index was out. */
	vb_split_put(&b->s, 0, 1);
	in->desc[0].inflight = 1;
	in->used_idx = 0;
	vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, 1, in);
	assert_int_equal(vb_split_recover(&b->s, heads), 0);
}

static void a_head_that_is_in_flight_is_refused(void **state)
{
	struct bed *b = *state;

	vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, 0, b->area);
	request(b, 0);
	put(b, 0);
	put(b, 0);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), 1);
	assert_int_equal(vb_split_get(&b->s, &b->mem, &b->c), -EINVAL);
	assert_int_equal(b->s.fault, VB_FAULT_BUSY);
}

static void an_area_for_a_smaller_ring_is_refused(void **state)
{
	struct bed *b = *state;
	struct vb_inflight_split *in = b->area;
	uint16_t heads[SIZE];

	in->desc_num = SIZE - 1;
	vb_split_start(&b->s, SIZE, b->desc, b->avail, b->used, 0, in);
	assert_int_equal(vb_split_recover(&b->s, heads), -EINVAL);
	assert_int_equal(b->s.fault, VB_FAULT_INFLIGHT);
}

/* ---- packed --------------------------------------------------------------------------------------------------------- */

static uint16_t avail_flags(const struct bed *b)
{
	return b->wrap ? 1u << VRING_PACKED_DESC_F_AVAIL : 1u << VRING_PACKED_DESC_F_USED;
}

static void pput(struct bed *b, uint64_t gpa, uint32_t len, uint16_t flags, uint16_t id)
{
	b->pdesc[b->at] = (struct vring_packed_desc){
		gpa, len, id, (uint16_t)(flags | avail_flags(b))};
	if (++b->at == SIZE) {
		b->at = 0;
		b->wrap = !b->wrap;
	}
}

static void prequest(struct bed *b, uint16_t id)
{
	pput(b, GPA, 16, N, id);
	pput(b, GPA + 4096, 512, N | W, id);
	pput(b, GPA + 16, 1, W, id);
}

static void packed_start(struct bed *b, void *area, bool fresh)
{
	vb_packed_start(&b->p, SIZE, b->pdesc, b->driver, b->device, 0x8000, area, fresh);
}

static void packed_gives_and_takes_over_many_laps(void **state)
{
	struct bed *b = *state;
	uint16_t at = 0;
	bool wrap = true;

	packed_start(b, NULL, false);
	for (uint16_t i = 0; i < 1000; i++) {
		uint16_t flags;

		prequest(b, i % SIZE);
		assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 1);
		assert_int_equal(b->c.head, i % SIZE);
		assert_int_equal(b->c.ndesc, 3);
		assert_int_equal(b->c.in_bytes, 513);
		assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 0);
		vb_packed_put(&b->p, i % SIZE, 3, 0, 513);
		flags = b->pdesc[at].flags;
		assert_int_equal(flags >> VRING_PACKED_DESC_F_USED & 1, wrap);
		assert_int_equal(flags >> VRING_PACKED_DESC_F_AVAIL & 1, wrap);
		assert_int_equal(b->pdesc[at].id, i % SIZE);
		at = (uint16_t)(at + 3);
		if (at >= SIZE) {
			at -= SIZE;
			wrap = !wrap;
		}
	}
}

static void packed_refuses_what_breaks_the_rules(void **state)
{
	struct bed *b = *state;
	static const struct {
		const char *what;
		enum vb_fault fault;
		struct vring_packed_desc d[3];
		struct vring_packed_desc table;
	} list[] = {
		{"id", VB_FAULT_HEAD, {{GPA, 16, SIZE, 0}}},
		{"address", VB_FAULT_ADDRESS, {{1, 16, 0, 0}}},
		{"no length", VB_FAULT_LENGTH, {{GPA, 0, 0, 0}}},
		{"order", VB_FAULT_ORDER, {{GPA, 16, 0, N | W}, {GPA, 16, 0, 0}}},
		{"indirect and next", VB_FAULT_INDIRECT,
			{{GPA + 8192, 16, 0, I | N}, {GPA, 1, 0, 0}}},
		{"indirect in a chain", VB_FAULT_INDIRECT,
			{{GPA, 16, 0, N}, {GPA + 8192, 16, 0, I}}},
		{"indirect of half an entry", VB_FAULT_INDIRECT, {{GPA + 8192, 8, 0, I}}},
		{"indirect larger than the ring", VB_FAULT_INDIRECT, {{GPA + 8192, 17 * 16, 0, I}}},
		{"indirect in indirect", VB_FAULT_INDIRECT, {{GPA + 8192, 16, 0, I}},
			{GPA, 1, 0, I}},
	};

	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		memset(b->memory, 0, MEMORY);
		b->at = 0;
		b->wrap = true;
		packed_start(b, NULL, false);
		for (int k = 0; k < 3; k++)
			if (list[i].d[k].addr)
				pput(b, list[i].d[k].addr, list[i].d[k].len, list[i].d[k].flags,
					list[i].d[k].id);
		memcpy(b->memory + 65536 + 8192, &list[i].table, sizeof(list[i].table));
		if (vb_packed_get(&b->p, &b->mem, &b->c) != -EINVAL || b->p.fault != list[i].fault)
			fail_msg("%s: %s", list[i].what, vb_fault_name(b->p.fault));
	}
}

static void a_packed_chain_never_reaches_into_what_is_in_flight(void **state)
{
	struct bed *b = *state;

	packed_start(b, NULL, false);
	for (uint16_t i = 0; i < SIZE; i++)
		pput(b, GPA, 1, N, 0);
	assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), -EINVAL);
	assert_int_equal(b->p.fault, VB_FAULT_LOOP);
	/* The same with a part of the ring taken. */
	memset(b->pdesc, 0, SIZE * sizeof(*b->pdesc));
	b->at = 0;
	b->wrap = true;
	packed_start(b, NULL, false);
	for (uint16_t i = 0; i < 5; i++)
		prequest(b, i);
	for (uint16_t i = 0; i < 5; i++)
		assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 1);
	prequest(b, 6); /* one place is left */
	assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), -EINVAL);
	assert_int_equal(b->p.fault, VB_FAULT_LOOP);
}

static void packed_goes_on_after_a_death_with_what_was_in_flight(void **state)
{
	struct bed *b = *state;
	struct vb_inflight_packed *in = b->area;
	uint16_t list[SIZE], entry[SIZE];

	packed_start(b, in, true);
	assert_int_equal(vb_packed_recover(&b->p, list), 0);
	/* Some laps, so that the area is in no order. */
	for (uint16_t i = 0; i < 40; i++) {
		prequest(b, i % 5);
		assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 1);
		entry[i % 5] = b->c.entry;
		if (i < 3)
			continue;
		/* The one before the last one but one: never the oldest first. */
		vb_packed_put(&b->p, (i - 1) % 5, 3, entry[(i - 1) % 5], 1);
		prequest(b, (i - 1) % 5);
		assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 1);
		entry[(i - 1) % 5] = b->c.entry;
		vb_packed_put(&b->p, i % 5, 3, entry[i % 5], 1);
	}
	/* Another process; base is what somebody else believes. */
	vb_packed_start(&b->p, SIZE, b->pdesc, b->driver, b->device, 3, in, false);
	assert_int_equal(vb_packed_recover(&b->p, list), 3);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(vb_packed_entry(&b->p, &b->mem, list[i], &b->c), 1);
		assert_int_equal(b->c.in_bytes, 513);
		assert_int_equal(b->c.ndesc, 3);
		vb_packed_put(&b->p, b->c.head, 3, list[i], 1);
	}
	assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 0);
	assert_int_equal(b->p.avail_idx, b->p.used_idx);
	for (uint16_t i = 0; i < 100; i++) {
		prequest(b, i % 5);
		assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 1);
		vb_packed_put(&b->p, b->c.head, 3, b->c.entry, 1);
	}
	assert_int_equal(b->p.fault, VB_FAULT_NONE);
}

/* The area as it was before the last steps of vb_packed_put(): the process died in between. */
static void a_packed_buffer_is_given_back_once_wherever_the_process_dies(void **state)
{
	struct bed *b = *state;
	struct vb_inflight_packed *in = b->area;
	uint8_t before[AREA], after[AREA];
	uint16_t list[SIZE];

	packed_start(b, in, true);
	prequest(b, 0);
	prequest(b, 1);
	assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 1);
	assert_int_equal(vb_packed_get(&b->p, &b->mem, &b->c), 1);
	memcpy(before, in, AREA);
	vb_packed_put(&b->p, 1, 3, b->c.entry, 1);
	memcpy(after, in, AREA);
	/* The used descriptor is out; the entry is not struck out, nor the indices. */
	in->desc[b->c.entry].inflight = 1;
	in->old_used_idx = 0;
	in->old_used_wrap = 1;
	packed_start(b, in, false);
	assert_int_equal(vb_packed_recover(&b->p, list), 1);
	assert_int_equal(list[0], 0);
	assert_int_equal(b->p.used_idx, 3);
	/* The driver has used the place again meanwhile. */
	memcpy(in, after, AREA);
	in->desc[b->c.entry].inflight = 1;
	in->old_used_idx = 0;
	in->old_used_wrap = 1;
	b->pdesc[0].flags = 1u << VRING_PACKED_DESC_F_USED; /* available in the next lap */
	packed_start(b, in, false);
	assert_int_equal(vb_packed_recover(&b->p, list), 1);
	/* Neither is out: both are to be done. */
	memcpy(in, before, AREA);
	in->used_idx = 3;
	in->free_head = b->c.entry;
	b->pdesc[0].flags = N | 1u << VRING_PACKED_DESC_F_AVAIL;
	packed_start(b, in, false);
	assert_int_equal(vb_packed_recover(&b->p, list), 2);
	assert_int_equal(b->p.used_idx, 0);
}

static void an_area_that_contradicts_itself_is_refused(void **state)
{
	struct bed *b = *state;
	struct vb_inflight_packed *in = b->area;
	uint16_t list[SIZE];

	packed_start(b, in, true);
	in->desc[0].inflight = in->desc[1].inflight = 1;
	in->desc[0].num = in->desc[1].num = 2; /* both have entry 1 */
	packed_start(b, in, false);
	assert_int_equal(vb_packed_recover(&b->p, list), -EINVAL);
	assert_int_equal(b->p.fault, VB_FAULT_INFLIGHT);
	packed_start(b, in, true);
	in->old_used_idx = SIZE;
	packed_start(b, in, false);
	assert_int_equal(b->p.fault, VB_FAULT_INFLIGHT);
}

static void notifications_are_the_drivers_and_the_devices_wish(void **state)
{
	struct bed *b = *state;

	vb_split_notify(&b->s, false);
	assert_int_equal(b->used->flags, VRING_USED_F_NO_NOTIFY);
	vb_split_notify(&b->s, true);
	assert_int_equal(b->used->flags, 0);
	assert_true(vb_split_wants_call(&b->s));
	b->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	assert_false(vb_split_wants_call(&b->s));
	packed_start(b, NULL, false);
	vb_packed_notify(&b->p, false);
	assert_int_equal(b->device->flags, VRING_PACKED_EVENT_FLAG_DISABLE);
	b->driver->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
	assert_false(vb_packed_wants_call(&b->p));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(split_gives_what_the_driver_made_available),
		T(a_descriptor_across_two_regions_becomes_two_pieces),
		T(indirect_tables_may_lie_anywhere_and_end_a_chain),
		T(split_indices_wrap_at_65536),
		T(split_refuses_what_breaks_the_rules),
		T(more_segments_than_a_request_may_have_are_refused),
		T(split_goes_on_after_a_death_with_what_was_in_flight),
		T(a_split_buffer_given_back_but_not_struck_out_is_not_done_again),
		T(a_head_that_is_in_flight_is_refused),
		T(an_area_for_a_smaller_ring_is_refused),
		T(packed_gives_and_takes_over_many_laps),
		T(packed_refuses_what_breaks_the_rules),
		T(a_packed_chain_never_reaches_into_what_is_in_flight),
		T(packed_goes_on_after_a_death_with_what_was_in_flight),
		T(a_packed_buffer_is_given_back_once_wherever_the_process_dies),
		T(an_area_that_contradicts_itself_is_refused),
		T(notifications_are_the_drivers_and_the_devices_wish),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
