/* SPDX-License-Identifier: BSD-3-Clause */
/* The vhost-user-blk server over a twin of librte_vhost: its upcalls are made by hand, the ring is ordinary memory. */
#include "dpu/core/mem_guard.h"
#include "dpu/frontend/vhost_blk/vhost_blk_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/virtio_blk.h>

#define SIZE   16u
#define GPA    0x100000ull
#define MEMORY (1u << 20)
#define DISK   (1u << 20)
#define RINGS  0u /* in the memory */
#define HEADER 0x3000u
#define STATUS 0x3800u
#define DATA   0x4000u
#define AREA   0x2000u

/* ---- twins -------------------------------------------------------------------------------------------------- */

struct bed {
	struct shard *sh;
	struct vhost_blk *vb;
	struct vhost_blk_vm *vm;
	struct vb_disk *d;
	uint8_t *memory, *disk, *area;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	int kick, call;
	struct io_req *held[SIZE]; /* by a backend that is slow */
	unsigned int nheld, submitted, refuse;
	bool hold;
	enum io_status status;
	struct virtio_blk_config config;
	uint64_t features;
	unsigned int opened, closed, told;
	enum vhost_blk_event last_event;
	char last_text[320];
	struct io_req last;
	struct io_req *queue[64];
	unsigned int nqueue;
	struct task task;
	bool stopped;
	uint16_t base;
};

static struct bed *bed; /* of the twin library, which has no argument of its own */

static int twin_open(const struct vhost_lib_cfg *cfg, void **out, struct err *err)
{
	bed->d = cfg->disk;
	bed->features = cfg->features;
	memcpy(&bed->config, cfg->config, cfg->config_bytes);
	bed->opened++;
	*out = bed;
	return 0;
}

static int twin_close(void *lib)
{
	bed->closed++;
	return 0;
}

static void twin_set_config(void *lib, const void *config, size_t len)
{
	memcpy(&bed->config, config, len);
	bed->told++;
}

static const struct vhost_lib_ops twin = {twin_open, twin_close, twin_set_config};

static void carry_out(struct bed *b, struct io_req *r)
{
	uint64_t at = r->off_bytes;

	r->status = b->status;
	for (int i = 0; r->status == IO_OK && i < r->niov; i++) {
		if (r->op == IO_WRITE)
			memcpy(b->disk + at, r->iov[i].iov_base, r->iov[i].iov_len);
		else
			memcpy(r->iov[i].iov_base, b->disk + at, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
	}
	if (r->op == IO_TRIM || r->op == IO_WRITE_ZEROES)
		memset(b->disk + r->off_bytes, 0, r->len_bytes);
	r->done_fn(r);
}

static void run_queue(void *arg)
{
	struct bed *b = arg;
	unsigned int n = b->nqueue;
	struct io_req *list[64];

	memcpy(list, b->queue, n * sizeof(list[0]));
	b->nqueue = 0;
	for (unsigned int i = 0; i < n; i++)
		carry_out(b, list[i]);
}

static int submit(void *arg, struct io_req *r)
{
	struct bed *b = arg;

	if (b->refuse) {
		b->refuse--;
		return -EAGAIN;
	}
	b->submitted++;
	b->last = *r;
	if (b->hold) {
		b->held[b->nheld++] = r;
		return 0;
	}
	b->queue[b->nqueue++] = r;
	shard_defer(b->sh, &b->task, run_queue, b);
	return 0;
}

static void release(struct bed *b)
{
	unsigned int n = b->nheld;

	b->nheld = 0;
	for (unsigned int i = 0; i < n; i++)
		carry_out(b, b->held[i]);
}

static void happened(
	void *arg, enum vhost_blk_event ev, uint32_t vm, uint32_t nsid, const char *text)
{
	struct bed *b = arg;

	b->last_event = ev;
	snprintf(b->last_text, sizeof(b->last_text), "%s", text);
}

/* ---- the driver ------------------------------------------------------------------------------------------------ */

static void rounds(struct bed *b)
{
	for (int i = 0; i < 8; i++)
		shard_run_once(b->sh);
}

static int start(struct bed *b)
{
	struct vb_ring_setup s = {.size = SIZE,
		.desc = b->desc,
		.avail = b->avail,
		.used = b->used,
		.base = b->used->idx,
		.inflight = b->area,
		.kick_fd = dup(b->kick),
		.call_fd = dup(b->call)};

	((struct vb_inflight_split *)(void *)b->area)->desc_num = SIZE;
	return vb_queue_start(b->d, 0, &s);
}

static void stopped(void *arg, uint16_t base)
{
	struct bed *b = arg;

	b->stopped = true;
	b->base = base;
}

static struct vb_mem map_of(struct bed *b)
{
	return (struct vb_mem){.n = 1, .r = {{GPA, MEMORY, b->memory, 0x7f0000000000}}};
}

static int setup(void **state)
{
	struct bed *b = bed = calloc(1, sizeof(*b));
	struct vhost_blk_cfg cfg = {.submit_fn = submit,
		.arg = b,
		.event_fn = happened,
		.event_arg = b,
		.lib = &twin,
		.queues = 2};
	struct vhost_blk_vm_cfg vc = {.vm = 7, .name = "web", .dir = "/tmp"};
	struct vhost_blk_disk_cfg dc = {.nsid = 3,
		.vol = (struct volume *)(void *)b, /* not looked at */
		.size_bytes = DISK,
		.block_bytes = 512,
		.id = "0123456789abcdefghij"};
	struct vb_mem mem;

	b->memory = aligned_alloc(4096, MEMORY);
	memset(b->memory, 0, MEMORY);
	b->disk = calloc(1, DISK);
	b->area = calloc(1, AREA);
	b->desc = (void *)(b->memory + RINGS);
	b->avail = (void *)(b->memory + RINGS + 0x1000);
	b->used = (void *)(b->memory + RINGS + 0x2000);
	b->kick = eventfd(0, EFD_NONBLOCK);
	b->call = eventfd(0, EFD_NONBLOCK);
	assert_int_equal(
		shard_open(&(struct shard_cfg){.clock = SHARD_CLOCK_VIRTUAL, .seed = 1}, &b->sh),
		0);
	assert_int_equal(vhost_blk_open(b->sh, &cfg, &b->vb), 0);
	assert_int_equal(vhost_blk_vm_add(b->vb, &vc, &b->vm, NULL), 0);
	assert_int_equal(vhost_blk_disk_add(b->vm, &dc, NULL), 0);
	mem = map_of(b);
	vb_disk_connected(b->d);
	assert_int_equal(vb_disk_set_memory(b->d, &mem), 0);
	assert_int_equal(start(b), 0);
	rounds(b);
	*state = b;
	return 0;
}

static int teardown(void **state)
{
	struct bed *b = *state;

	if (b->vm)
		assert_int_equal(vhost_blk_vm_del(b->vm), 0);
	assert_int_equal(vhost_blk_close(b->vb), 0);
	shard_close(b->sh);
	close(b->kick);
	close(b->call);
	free(b->memory);
	free(b->disk);
	free(b->area);
	free(b);
	return 0;
}

static void kick(struct bed *b)
{
	uint64_t one = 1;

	assert_int_equal(write(b->kick, &one, sizeof(one)), sizeof(one));
	rounds(b);
}

/* A request in descriptors 3 * i and what follows, with its own header, status and 4 KiB. */
static void put(struct bed *b, uint16_t i, uint32_t type, uint64_t sector, uint32_t len)
{
	struct virtio_blk_outhdr *h = (void *)(b->memory + HEADER + 16 * i);
	uint16_t d = (uint16_t)(3 * i), in = type == VIRTIO_BLK_T_IN || type == VIRTIO_BLK_T_GET_ID
						     ? VRING_DESC_F_WRITE
						     : 0;

	*h = (struct virtio_blk_outhdr){.type = type, .sector = sector};
	b->memory[STATUS + i] = 0xff;
	b->desc[d] = (struct vring_desc){
		GPA + HEADER + 16 * i, 16, VRING_DESC_F_NEXT, (uint16_t)(len ? d + 1 : d + 2)};
	b->desc[d + 1] = (struct vring_desc){
		GPA + DATA + 4096 * i, len, in | VRING_DESC_F_NEXT, (uint16_t)(d + 2)};
	b->desc[d + 2] = (struct vring_desc){GPA + STATUS + i, 1, VRING_DESC_F_WRITE, 0};
	b->avail->ring[b->avail->idx % SIZE] = d;
	b->avail->idx++;
}

static uint8_t ask(struct bed *b, uint32_t type, uint64_t sector, uint32_t len)
{
	put(b, 0, type, sector, len);
	kick(b);
	return b->memory[STATUS];
}

static uint32_t last_len(const struct bed *b)
{
	return b->used->ring[(uint16_t)(b->used->idx - 1) % SIZE].len;
}

/* ---- tests -------------------------------------------------------------------------------------------------------- */

static void config_space_says_what_the_disk_can(void **state)
{
	struct bed *b = *state;

	assert_int_equal(b->config.capacity, DISK / 512);
	assert_int_equal(b->config.blk_size, 512);
	assert_int_equal(b->config.num_queues, 2);
	assert_int_equal(b->config.seg_max, VB_SEGS_MAX);
	assert_int_equal(b->config.max_discard_seg, VB_RANGES_MAX);
	assert_true(b->features >> VIRTIO_BLK_F_DISCARD & 1);
	assert_false(b->features >> VIRTIO_BLK_F_RO & 1);
	assert_false(b->features >> VIRTIO_RING_F_EVENT_IDX & 1);
}

static void writes_and_reads_reach_the_volume(void **state)
{
	struct bed *b = *state;

	memset(b->memory + DATA, 0x5a, 4096);
	assert_int_equal(ask(b, VIRTIO_BLK_T_OUT, 8, 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(last_len(b), 1);
	assert_int_equal(b->last.off_bytes, 4096);
	assert_int_equal(b->last.vm, 7);
	assert_false(b->last.stable);
	assert_memory_equal(b->disk + 4096, b->memory + DATA, 4096);
	memset(b->memory + DATA, 0, 4096);
	assert_int_equal(ask(b, VIRTIO_BLK_T_IN, 8, 4096), VIRTIO_BLK_S_OK);
	assert_int_equal(last_len(b), 4097);
	assert_int_equal(b->memory[DATA + 4095], 0x5a);
	assert_int_equal(ask(b, VIRTIO_BLK_T_FLUSH, 0, 0), VIRTIO_BLK_S_OK);
	assert_int_equal(b->last.op, IO_FLUSH);
	assert_int_equal(ask(b, VIRTIO_BLK_T_GET_ID, 0, 20), VIRTIO_BLK_S_OK);
	assert_memory_equal(b->memory + DATA, "0123456789abcdefghij", 20);
	assert_int_equal(last_len(b), 21);
}

static void wrong_requests_get_a_status_and_the_ring_lives(void **state)
{
	struct bed *b = *state;
	unsigned int before = b->submitted;

	assert_int_equal(ask(b, VIRTIO_BLK_T_IN, DISK / 512, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(b, VIRTIO_BLK_T_IN, DISK / 512 - 1, 1024), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(b, VIRTIO_BLK_T_IN, UINT64_MAX, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(b, VIRTIO_BLK_T_IN, UINT64_MAX / 512, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(b, VIRTIO_BLK_T_OUT, 0, 100), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(b, VIRTIO_BLK_T_OUT, 0, 0), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(b, 99, 0, 512), VIRTIO_BLK_S_UNSUPP);
	assert_int_equal(b->submitted, before);
	b->status = IO_ERR_MEDIA;
	assert_int_equal(ask(b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_IOERR);
	assert_int_equal(last_len(b), 1);
}

static void discard_and_write_zeroes_take_several_ranges(void **state)
{
	struct bed *b = *state;
	struct virtio_blk_discard_write_zeroes *r = (void *)(b->memory + DATA);

	memset(b->disk, 1, DISK);
	r[0] = (struct virtio_blk_discard_write_zeroes){0, 8, 0};
	r[1] = (struct virtio_blk_discard_write_zeroes){16, 0, 0};
	r[2] = (struct virtio_blk_discard_write_zeroes){32, 8, 0};
	assert_int_equal(ask(b, VIRTIO_BLK_T_DISCARD, 0, 48), VIRTIO_BLK_S_OK);
	assert_int_equal(b->submitted, 2);
	assert_int_equal(b->disk[4095], 0);
	assert_int_equal(b->disk[4096], 1);
	assert_int_equal(b->disk[32 * 512], 0);
	r[0] = (struct virtio_blk_discard_write_zeroes){8, 8, 1};
	assert_int_equal(ask(b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_OK);
	assert_int_equal(b->last.flags, IO_DEALLOC);
	assert_int_equal(ask(b, VIRTIO_BLK_T_DISCARD, 0, 16), VIRTIO_BLK_S_UNSUPP);
	r[0].flags = 2;
	assert_int_equal(ask(b, VIRTIO_BLK_T_WRITE_ZEROES, 0, 16), VIRTIO_BLK_S_UNSUPP);
	/* One bad range, and nothing is done. */
	r[0] = (struct virtio_blk_discard_write_zeroes){64, 8, 0};
	r[1] = (struct virtio_blk_discard_write_zeroes){DISK / 512, 1, 0};
	assert_int_equal(ask(b, VIRTIO_BLK_T_DISCARD, 0, 32), VIRTIO_BLK_S_IOERR);
	assert_int_equal(b->disk[64 * 512], 1);
	assert_int_equal(ask(b, VIRTIO_BLK_T_DISCARD, 0, 15), VIRTIO_BLK_S_IOERR);
	assert_int_equal(ask(b, VIRTIO_BLK_T_DISCARD, 0, 33 * 16), VIRTIO_BLK_S_IOERR);
}

static void an_idle_queue_asks_for_kicks_and_a_busy_one_does_not(void **state)
{
	struct bed *b = *state;

	assert_int_equal(b->used->flags, VRING_USED_F_NO_NOTIFY);
	b->d->queues[0].last_work_ns = 0; /* a hot queue keeps the clock from jumping: long ago */
	rounds(b);
	assert_int_equal(b->used->flags, 0);
	put(b, 0, VIRTIO_BLK_T_OUT, 0, 512);
	rounds(b);
	assert_int_equal(b->used->idx, 0); /* nobody has kicked */
	kick(b);
	assert_int_equal(b->used->idx, 1);
	assert_int_equal(b->used->flags, VRING_USED_F_NO_NOTIFY);
}

static void a_broken_ring_stops_its_disk_until_it_is_reset(void **state)
{
	struct bed *b = *state;
	struct vhost_blk_disk_info info;

	put(b, 0, VIRTIO_BLK_T_IN, 0, 512);
	b->desc[1].addr = 1;
	kick(b);
	assert_int_equal(b->used->idx, 0);
	assert_int_equal(b->last_event, VHOST_BLK_RING_BROKEN);
	assert_non_null(strstr(b->last_text, "address"));
	vhost_blk_disk_info(b->vm, 3, &info);
	assert_string_equal(info.fault, "address");
	b->desc[1].addr = GPA + DATA;
	kick(b);
	assert_int_equal(b->used->idx, 0);
	vb_queue_stop(b->d, 0, true, stopped, b);
	assert_true(b->stopped);
	memset(b->memory, 0, HEADER);
	memset(b->area, 0, AREA);
	assert_int_equal(start(b), 0);
	assert_int_equal(ask(b, VIRTIO_BLK_T_IN, 0, 512), VIRTIO_BLK_S_OK);
	vhost_blk_disk_info(b->vm, 3, &info);
	assert_null(info.fault);
	assert_int_equal(info.faults, 1);
}

static void a_request_without_header_or_status_breaks_the_ring(void **state)
{
	struct bed *b = *state;

	put(b, 0, VIRTIO_BLK_T_IN, 0, 512);
	b->desc[0].len = 15;
	kick(b);
	assert_non_null(strstr(b->last_text, "header"));
}

static void a_stop_waits_for_what_is_in_flight(void **state)
{
	struct bed *b = *state;

	b->hold = true;
	put(b, 0, VIRTIO_BLK_T_OUT, 0, 512);
	put(b, 1, VIRTIO_BLK_T_OUT, 8, 512);
	kick(b);
	assert_int_equal(b->nheld, 2);
	vb_queue_stop(b->d, 0, false, stopped, b);
	put(b, 2, VIRTIO_BLK_T_OUT, 16, 512); /* not taken any more */
	rounds(b);
	assert_false(b->stopped);
	release(b);
	rounds(b);
	assert_true(b->stopped);
	assert_int_equal(b->base, 2);
	assert_int_equal(b->used->idx, 2);
	b->hold = false;
	assert_int_equal(start(b), 0);
	rounds(b);
	assert_int_equal(b->used->idx, 3);
}

static void another_process_works_on_what_was_in_flight(void **state)
{
	struct bed *b = *state;
	struct vhost_blk_vm_stats st;
	uint8_t area[AREA], memory[HEADER];

	b->hold = true;
	put(b, 0, VIRTIO_BLK_T_OUT, 0, 512);
	put(b, 1, VIRTIO_BLK_T_OUT, 8, 512);
	kick(b);
	/* The image of a process that was killed now. */
	memcpy(area, b->area, AREA);
	memcpy(memory, b->memory, HEADER);
	vb_queue_stop(b->d, 0, true, stopped, b);
	release(b);
	rounds(b);
	assert_true(b->stopped);
	memcpy(b->area, area, AREA);
	memcpy(b->memory, memory, HEADER);
	b->hold = false;
	b->submitted = 0;
	assert_int_equal(start(b), 0);
	rounds(b);
	assert_int_equal(b->submitted, 2);
	assert_int_equal(b->used->idx, 2);
	assert_int_equal(b->last_event, VHOST_BLK_RESUMED);
	vhost_blk_vm_stats(b->vm, &st);
	assert_int_equal(st.resumed, 2);
}

static void a_backend_that_takes_nothing_is_asked_again(void **state)
{
	struct bed *b = *state;

	b->refuse = 3;
	put(b, 0, VIRTIO_BLK_T_OUT, 0, 512);
	put(b, 1, VIRTIO_BLK_T_OUT, 8, 512);
	kick(b);
	for (int i = 0; i < 4; i++)
		rounds(b);
	assert_int_equal(b->used->idx, 2);
	assert_int_equal(b->memory[STATUS], VIRTIO_BLK_S_OK);
}

static void interrupts_go_out_once_a_round_and_only_when_wanted(void **state)
{
	struct bed *b = *state;
	struct vhost_blk_vm_stats st;
	uint64_t n, before;

	assert_int_equal(read(b->call, &n, sizeof(n)), sizeof(n)); /* of the start */
	vhost_blk_vm_stats(b->vm, &st);
	before = st.interrupts;
	for (uint16_t i = 0; i < 4; i++)
		put(b, i, VIRTIO_BLK_T_OUT, 8 * i, 512);
	kick(b);
	vhost_blk_vm_stats(b->vm, &st);
	assert_int_equal(st.interrupts, before + 1);
	b->avail->flags = VRING_AVAIL_F_NO_INTERRUPT;
	assert_int_equal(ask(b, VIRTIO_BLK_T_OUT, 0, 512), VIRTIO_BLK_S_OK);
	vhost_blk_vm_stats(b->vm, &st);
	assert_int_equal(st.interrupts, before + 1);
	assert_int_equal(st.interrupts_saved, 1);
}

static void a_memory_map_that_contradicts_table_203_is_refused(void **state)
{
	struct bed *b = *state;
	struct vb_mem mem = map_of(b);
	struct vhost_blk_disk_info info;
	static const struct {
		struct vhost_blk_row row;
		const char *why;
	} list[] = {
		{{.mem_bytes = MEMORY - 1}, "mem_bytes"},
		{{.host_addr = 0x7f0000000000, .guest_addr = GPA + MEMORY}, "guest_addr"},
		{{.host_addr = 0x7f0000000001, .guest_addr = GPA}, "host_addr"},
	};

	vb_queue_stop(b->d, 0, false, stopped, b);
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		b->d->told_ns = 0;
		vhost_blk_vm_set_row(b->vm, &list[i].row);
		assert_int_equal(vb_disk_set_memory(b->d, &mem), -EPERM);
		assert_int_equal(b->last_event, VHOST_BLK_MEMORY_REFUSED);
		assert_non_null(strstr(b->last_text, list[i].why));
	}
	vhost_blk_vm_set_row(b->vm, &(struct vhost_blk_row){.host_addr = 0x7f0000001000,
					    .guest_addr = GPA + 0x1000,
					    .mem_bytes = MEMORY});
	assert_int_equal(vb_disk_set_memory(b->d, &mem), 0);
	vhost_blk_disk_info(b->vm, 3, &info);
	assert_int_equal(info.memory.host_addr, 0x7f0000000000);
	assert_int_equal(info.memory.guest_addr, GPA);
	assert_int_equal(info.memory.mem_bytes, MEMORY);
	assert_int_equal(info.refused_maps, 3);
}

static void memory_that_goes_away_stops_its_disk_until_the_driver_is_new(void **state)
{
	struct bed *b = *state;
	int fd = memfd_create("guest", MFD_CLOEXEC);
	struct vb_mem mem = map_of(b);
	struct vhost_blk_disk_info info;
	uint8_t *more;

	assert_int_equal(ftruncate(fd, 8192), 0);
	more = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_int_equal(mem_guard_add(more, 8192), 0);
	mem.r[mem.n++] = (struct vb_region){2 * GPA, 8192, more, 0x7f1000000000};
	vb_queue_stop(b->d, 0, false, stopped, b);
	assert_int_equal(vb_disk_set_memory(b->d, &mem), 0);
	assert_int_equal(start(b), 0);
	put(b, 0, VIRTIO_BLK_T_OUT, 0, 4096);
	b->desc[1].addr = 2 * GPA + 4096;
	assert_int_equal(ftruncate(fd, 4096), 0);
	kick(b);
	assert_int_equal(b->last_event, VHOST_BLK_RING_BROKEN);
	assert_non_null(strstr(b->last_text, "memory is gone"));
	vhost_blk_disk_info(b->vm, 3, &info);
	assert_string_equal(info.fault, "memory");
	assert_int_equal(info.in_flight, 0);
	vb_queue_stop(b->d, 0, true, stopped, b);
	vhost_blk_disk_info(b->vm, 3, &info);
	assert_string_equal(info.fault, "memory");
	assert_int_equal(start(b), 0);
	b->submitted = 0;
	put(b, 1, VIRTIO_BLK_T_IN, 0, 512);
	kick(b);
	assert_int_equal(b->submitted, 0);
	vb_queue_stop(b->d, 0, true, stopped, b);
	assert_true(mem_guard_del(more));
	munmap(more, 8192);
	close(fd);
	vb_disk_disconnected(b->d);
	vb_disk_connected(b->d);
	mem.n = 1;
	assert_int_equal(vb_disk_set_memory(b->d, &mem), 0);
	assert_int_equal(start(b), 0);
	vhost_blk_disk_info(b->vm, 3, &info);
	assert_null(info.fault);
	kick(b);
	assert_int_equal(b->submitted, 1);
}

static void a_disk_in_use_is_not_deleted_unless_forced(void **state)
{
	struct bed *b = *state;

	assert_int_equal(vhost_blk_disk_del(b->vm, 3, false), -EBUSY);
	assert_int_equal(vhost_blk_disk_del(b->vm, 4, false), -ENOENT);
	assert_int_equal(vhost_blk_disk_users(b->vm, 3), 1);
	assert_int_equal(vhost_blk_disk_del(b->vm, 3, true), 0);
	assert_int_equal(b->closed, 1);
	assert_int_equal(vhost_blk_disk_users(b->vm, 3), 0);
}

static void a_larger_size_is_told(void **state)
{
	struct bed *b = *state;

	assert_int_equal(vhost_blk_disk_resize(b->vm, 3, 2 * DISK), 0);
	assert_int_equal(b->told, 1);
	assert_int_equal(b->config.capacity, 2 * DISK / 512);
	assert_int_equal(vhost_blk_disk_resize(b->vm, 3, 100), -EINVAL);
}

static void bad_settings_are_refused_with_a_reason(void **state)
{
	struct bed *b = *state;
	struct vhost_blk_disk_cfg dc = {.nsid = 3,
		.vol = (struct volume *)(void *)b,
		.size_bytes = 4096,
		.block_bytes = 512};
	struct err e = {0};

	assert_int_equal(vhost_blk_disk_add(b->vm, &dc, &e), -EEXIST);
	dc.nsid = 257;
	assert_int_equal(vhost_blk_disk_add(b->vm, &dc, &e), -ERANGE);
	dc.nsid = 4;
	dc.block_bytes = 1024;
	assert_int_equal(vhost_blk_disk_add(b->vm, &dc, &e), -EINVAL);
	assert_string_equal(e.field, "block size");
	assert_int_equal(vhost_blk_dir_check("run", "web", &e), -EINVAL);
	assert_int_equal(vhost_blk_dir_check("/nowhere/at/all", "web", &e), -ENOENT);
	assert_int_equal(vhost_blk_dir_check("/dev/null", "web", &e), -ENOTDIR);
	assert_string_equal(e.object, "vm web");
	assert_string_equal(e.field, "vhost");
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(config_space_says_what_the_disk_can),
		T(writes_and_reads_reach_the_volume),
		T(wrong_requests_get_a_status_and_the_ring_lives),
		T(discard_and_write_zeroes_take_several_ranges),
		T(an_idle_queue_asks_for_kicks_and_a_busy_one_does_not),
		T(a_broken_ring_stops_its_disk_until_it_is_reset),
		T(a_request_without_header_or_status_breaks_the_ring),
		T(a_stop_waits_for_what_is_in_flight),
		T(another_process_works_on_what_was_in_flight),
		T(a_backend_that_takes_nothing_is_asked_again),
		T(interrupts_go_out_once_a_round_and_only_when_wanted),
		T(a_memory_map_that_contradicts_table_203_is_refused),
		T(memory_that_goes_away_stops_its_disk_until_the_driver_is_new),
		T(a_disk_in_use_is_not_deleted_unless_forced),
		T(a_larger_size_is_told),
		T(bad_settings_are_refused_with_a_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
