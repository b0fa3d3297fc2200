/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A VM that means harm, as the vhost-user-blk server sees it: byte 0 chooses the kind of ring (1), an inflight area (2) that is not new (4), and whether
 * requests take a round (8). Then changes {offset(2), length(1), bytes} to the image of a VM with three good requests, made one by one, with a
 * round of polling after each: 0..8191 and 8192..12287 are its two regions (the ring is at 0), 12288..14335 the inflight area.
 * Whatever is in there: what reaches the backend lies in the VM's memory, in the disk, and adds up; nothing hangs; the queue can be stopped and started.
 */
#include "tests/fuzz/fuzz.h"

#include "dpu/frontend/vhost_blk/vhost_blk_priv.h"

#include <linux/virtio_blk.h>

#define SIZE  16u
#define GPA   0x1000ull
#define LOW   8192u
#define HIGH  4096u
#define AREA  2048u
#define DISK  (1u << 20)
#define AVAIL 512u
#define USED  1024u
#define STUFF 2048u

static struct world {
	struct shard *sh;
	struct vhost_blk *vb;
	struct vhost_blk_vm *vm;
	struct vb_disk *d;
	uint8_t *low, *high, *area;
	struct io_req *list[SIZE * 2];
	unsigned int n;
	bool slow;
	uint64_t sum;
} w;

static int twin_open(const struct vhost_lib_cfg *cfg, void **out, struct err *err)
{
	w.d = cfg->disk;
	*out = &w;
	return 0;
}

static int twin_close(void *lib)
{
	return 0;
}

static void twin_set_config(void *lib, const void *config, size_t len)
{
}

static const struct vhost_lib_ops twin = {twin_open, twin_close, twin_set_config};

static bool is_the_vms(const uint8_t *p, size_t n)
{
	return (p >= w.low && p < w.low + LOW && n <= (size_t)(w.low + LOW - p)) ||
	       (p >= w.high && p < w.high + HIGH && n <= (size_t)(w.high + HIGH - p));
}

static void check(const struct io_req *r)
{
	uint64_t sum = 0;

	FUZZ_CHECK(r->op <= IO_TRIM && !r->stable && r->vm == 1);
	FUZZ_CHECK(r->off_bytes <= DISK && r->len_bytes <= DISK - r->off_bytes);
	FUZZ_CHECK((r->off_bytes | r->len_bytes) % 512 == 0);
	if (r->op != IO_READ && r->op != IO_WRITE)
		return;
	FUZZ_CHECK(r->len_bytes && r->niov > 0 && r->niov <= (int)VB_IOV_MAX);
	for (int i = 0; i < r->niov; i++) {
		uint8_t *p = r->iov[i].iov_base;
		size_t n = r->iov[i].iov_len;

		FUZZ_CHECK(n && is_the_vms(p, n));
		sum += n;
		if (r->op == IO_READ)
			memset(p, 0x5a, n); /* also over the ring, if the VM says so */
		else
			w.sum += p[0] + p[n - 1];
	}
	FUZZ_CHECK(sum == r->len_bytes);
}

static int submit(void *arg, struct io_req *r)
{
	FUZZ_CHECK(w.n < SIZE); /* no more than the ring holds */
	w.list[w.n++] = r;
	return 0;
}

static void complete(void)
{
	struct io_req *list[SIZE * 2];
	unsigned int n = w.n;

	memcpy(list, w.list, sizeof(list));
	w.n = 0;
	for (unsigned int i = 0; i < n; i++) {
		check(list[i]);
		list[i]->status = IO_OK;
		list[i]->done_fn(list[i]);
	}
}

static void world_open(void)
{
	struct vhost_blk_cfg cfg = {.submit_fn = submit, .lib = &twin, .queues = 1};
	struct vhost_blk_vm_cfg vc = {.vm = 1, .name = "f", .dir = "/tmp"};
	struct vhost_blk_disk_cfg dc = {.nsid = 1,
		.vol = (struct volume *)(void *)&w, /* not looked at */
		.size_bytes = DISK,
		.block_bytes = 512};

	if (w.sh)
		return;
	FUZZ_CHECK(shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1},
			   &w.sh) == 0);
	FUZZ_CHECK(vhost_blk_open(w.sh, &cfg, &w.vb) == 0);
	FUZZ_CHECK(vhost_blk_vm_add(w.vb, &vc, &w.vm, NULL) == 0);
	FUZZ_CHECK(vhost_blk_disk_add(w.vm, &dc, NULL) == 0);
}

/* ---- the VM --------------------------------------------------------------------------------------------------- */

static void good_requests(uint8_t *image, bool packed)
{
	static const uint32_t types[] = {VIRTIO_BLK_T_OUT, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_DISCARD};
	struct vring_avail *a = (void *)(image + AVAIL);

	for (uint16_t i = 0; i < 3; i++) {
		uint64_t at = STUFF + 1024u * i;
		bool in = types[i] == VIRTIO_BLK_T_IN;
		uint32_t len = types[i] == VIRTIO_BLK_T_DISCARD ? 16 : 512;
		struct vring_desc d[3] = {{GPA + at, 16, VRING_DESC_F_NEXT, (uint16_t)(3 * i + 1)},
			{GPA + at + 256, len,
				(uint16_t)(VRING_DESC_F_NEXT | (in ? VRING_DESC_F_WRITE : 0)),
				(uint16_t)(3 * i + 2)},
			{GPA + at + 16, 1, VRING_DESC_F_WRITE, 0}};
		struct virtio_blk_outhdr h = {.type = types[i], .sector = 8 * i};

		memcpy(image + at, &h, sizeof(h));
		for (uint16_t k = 0; k < 3; k++) {
			struct vring_packed_desc p = {d[k].addr, d[k].len, i,
				(uint16_t)(d[k].flags | 1u << VRING_PACKED_DESC_F_AVAIL)};

			if (packed)
				memcpy(image + 16 * (3 * i + k), &p, sizeof(p));
			else
				memcpy(image + 16 * (3 * i + k), &d[k], sizeof(d[k]));
		}
		if (!packed)
			a->ring[i] = (uint16_t)(3 * i);
	}
	if (!packed)
		a->idx = 3;
}

static void put_image(const uint8_t *image)
{
	memcpy(w.low, image, LOW);
	memcpy(w.high, image + LOW, HIGH);
	memcpy(w.area, image + LOW + HIGH, AREA);
}

/* One change, straight into memory. False: none is left. */
static bool change(struct eater *e)
{
	size_t at, n;

	if (e->left <= 3)
		return false;
	at = eat16(e) % (LOW + HIGH + AREA);
	n = eat8(e);
	for (; n && e->left; n--, at = (at + 1) % (LOW + HIGH + AREA))
		*(at < LOW                ? w.low + at
			: at < LOW + HIGH ? w.high + at - LOW
					  : w.area + at - LOW - HIGH) = eat8(e);
	return true;
}

static void stopped(void *arg, uint16_t base)
{
	*(uint16_t *)arg = base;
}

static void start(uint8_t how, uint16_t base)
{
	struct vb_ring_setup s = {.packed = how & 1,
		.size = SIZE,
		.desc = w.low,
		.avail = w.low + AVAIL,
		.used = w.low + USED,
		.base = base,
		.inflight = how & 2 ? w.area : NULL,
		.inflight_fresh = !(how & 4),
		.kick_fd = -1,
		.call_fd = -1};

	FUZZ_CHECK(vb_queue_start(w.d, 0, &s) == 0);
}

static void stop(uint16_t *base)
{
	vb_queue_stop(w.d, 0, true, stopped, base);
	complete();
	for (int i = 0; i < 64 && w.d->queues[0].state != VB_QUEUE_STOPPED; i++) {
		shard_run_once(w.sh);
		complete();
	}
	FUZZ_CHECK(w.d->queues[0].state == VB_QUEUE_STOPPED && w.d->in_flight == 0 && !w.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};
	uint8_t how = eat8(&e);
	uint8_t *image = calloc(1, LOW + HIGH + AREA);
	uint16_t base = how & 1 ? 0x8000 : 0;
	struct vb_mem mem = {.n = 2};

	world_open();
	w.low = aligned_alloc(16, LOW);
	w.high = malloc(HIGH);
	w.area = aligned_alloc(16, AREA);
	if (image && w.low && w.high && w.area) {
		good_requests(image, how & 1);
		((struct vb_inflight_split *)(void *)(image + LOW + HIGH))->desc_num = SIZE;
		put_image(image);
		mem.r[0] = (struct vb_region){GPA, LOW, w.low, 0};
		mem.r[1] = (struct vb_region){GPA + LOW, HIGH, w.high, 0};
		FUZZ_CHECK(vb_disk_set_memory(w.d, &mem) == 0);
		/* The first change is there before the queue starts. */
		change(&e);
		start(how, base);
		do {
			shard_run_once(w.sh);
			if (!(how & 8))
				complete();
		} while (change(&e));
		stop(&base);
		start(how | 4, base);
		shard_run_once(w.sh);
		stop(&base);
	}
	free(image);
	free(w.low);
	free(w.high);
	free(w.area);
	return 0;
}
