/* SPDX-License-Identifier: BSD-3-Clause */
/* Queues kept full. A write that was acknowledged, or is being made, is known for each block, so that a read can be judged. */
#include "tests/vhost/io.h"

#include "tests/io/stamp.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define NO_BLOCK UINT64_MAX

struct slot {
	struct virtio_blk_outhdr *h;
	uint8_t *status, *data;
	struct vu_part parts[VU_PARTS_MAX];
	unsigned int nparts;
	uint64_t block;
};

struct load {
	struct vu *v;
	const struct io_opts *o;
	struct io_result *r;
	struct slot *slots; /* depth per queue */
	uint64_t nblocks, next, left; /* next block, requests to begin */
	uint32_t *sent, *done; /* generation of each block; NULL in plain mode */
	uint8_t *busy;
	uint32_t in_flight;
	uint64_t random;
	uint8_t *
		pool; /* with spread: where data buffers come from in turn, so that no cache holds them */
	uint64_t places, turn;
	double end;
	bool write;
};

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static uint64_t draw(struct load *l)
{
	l->random ^= l->random << 13;
	l->random ^= l->random >> 7;
	l->random ^= l->random << 17;
	return l->random;
}

static int slots_open(struct load *l)
{
	const struct io_opts *o = l->o;
	uint32_t n = o->depth * o->vu.queues, piece = o->block / o->segments;

	l->slots = calloc(n, sizeof(*l->slots));
	if (!l->slots)
		return -ENOMEM;
	for (uint32_t i = 0; i < n; i++) {
		struct slot *s = &l->slots[i];

		s->h = vu_alloc(l->v, sizeof(*s->h), 64);
		s->status = vu_alloc(l->v, 1, 1);
		s->data = vu_alloc(l->v, o->block, 4096);
		if (!s->data)
			return -ENOMEM;
		s->block = NO_BLOCK;
		s->parts[s->nparts++] = (struct vu_part){s->h, sizeof(*s->h), false};
		for (uint32_t k = 0; k < o->segments; k++)
			s->parts[s->nparts++] = (struct vu_part){s->data + k * piece,
				k + 1 == o->segments ? o->block - k * piece : piece, !l->write};
		s->parts[s->nparts++] = (struct vu_part){s->status, 1, true};
		memset(s->data, (int)(i + 1), o->block);
	}
	return 0;
}

/* The rest of the memory is buffers, each as large as a block. */
static int spread_open(struct load *l)
{
	uint64_t each = (uint64_t)l->o->block + (4096 - l->o->block % 4096) % 4096;

	l->places = (l->v->cfg.mem_bytes - l->v->used - 4096) / each;
	l->pool = l->places >= l->o->depth * l->o->vu.queues
			  ? vu_alloc(l->v, l->places * each, 4096)
			  : NULL;
	if (!l->pool)
		return -ENOMEM;
	memset(l->pool, 0x5a, l->places * each);
	return 0;
}

static void spread(struct load *l, struct slot *s)
{
	uint32_t each = (l->o->block + 4095) / 4096 * 4096;
	/* Scattered: an odd prime step, so that neighbours in time are none in memory. */
	uint8_t *at = l->pool + l->turn++ * 40507 % l->places * each;

	for (unsigned int k = 1; k + 1 < s->nparts; k++)
		s->parts[k].at = at + ((uint8_t *)s->parts[k].at - s->data);
	s->data = at;
}

static uint64_t pick_block(struct load *l)
{
	for (int tries = 0; tries < 64; tries++) {
		uint64_t b = l->o->random ? draw(l) % l->nblocks : l->next++ % l->nblocks;

		if (!l->busy || !l->busy[b])
			return b;
	}
	return NO_BLOCK;
}

static void begin(struct load *l, uint32_t q, uint16_t i)
{
	const struct io_opts *o = l->o;
	struct slot *s = &l->slots[q * o->depth + i];
	uint64_t b = pick_block(l), sector;

	if (b == NO_BLOCK)
		return;
	sector = (o->offset + b * o->block) / 512;
	s->block = b;
	s->h->type = l->write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	s->h->sector = sector;
	*s->status = 0xff;
	if (l->pool)
		spread(l, s);
	if (l->busy) {
		l->busy[b] = 1;
		if (l->write)
			stamp_fill(s->data, o->block, o->seed, sector, ++l->sent[b]);
	}
	vu_put(l->v, q, i, s->parts, s->nparts);
	l->in_flight++;
	l->left--;
}

static void judge(struct load *l, const struct slot *s)
{
	const struct io_opts *o = l->o;
	uint64_t first = (o->offset + s->block * o->block) / 512;

	if (l->sent && !l->sent[s->block])
		return; /* not ours: whatever is there */
	for (uint32_t i = 0; i < o->block / 512; i++) {
		struct stamp_finding f = {0};
		enum stamp_verdict v;

		if (o->zero)
			v = stamp_check_zero(s->data + i * 512, first + i, &f);
		else
			v = stamp_check(s->data + i * 512, o->seed, first + i,
				l->done ? l->done[s->block] : 1,
				l->sent ? l->sent[s->block] : UINT32_MAX, &f);
		if (v != STAMP_OK && l->r->wrong++ == 0)
			snprintf(l->r->note, sizeof(l->r->note), "sector %llu: %s",
				(unsigned long long)(first + i), stamp_verdict_name(v));
	}
}

static void end(struct load *l, uint32_t q, int id)
{
	const struct io_opts *o = l->o;
	uint32_t per = o->vu.packed || o->vu.indirect ? 1 : l->slots[0].nparts;
	struct slot *s = &l->slots[q * o->depth + (uint32_t)id / per];

	l->in_flight--;
	l->r->requests++;
	l->r->bytes += o->block;
	if (*s->status != VIRTIO_BLK_S_OK)
		l->r->errors++;
	else if (l->busy && l->write)
		l->done[s->block] = l->sent[s->block];
	else if (l->busy)
		judge(l, s);
	if (l->busy)
		l->busy[s->block] = 0;
	s->block = NO_BLOCK;
}

static int come_back(struct load *l)
{
	double t = now_s();

	for (int i = 0; i < (int)l->o->reconnect_s * 20; i++) {
		io_nap_us(50000);
		if (vu_reconnect(l->v) == 0) {
			l->r->reconnects++;
			l->r->resumed_wait_ms += (uint64_t)((now_s() - t) * 1000);
			return 0;
		}
	}
	return -ECONNRESET;
}

static bool more(const struct load *l)
{
	return l->left && (!l->o->seconds || now_s() < l->end);
}

static unsigned int round_of(struct load *l, uint32_t q, bool fill)
{
	unsigned int n = 0;
	uint32_t len;
	int id;

	while ((id = vu_get(l->v, q, &len)) >= 0) {
		end(l, q, id);
		n++;
	}
	for (uint16_t i = 0; fill && l->left && i < l->o->depth; i++)
		if (l->slots[q * l->o->depth + i].block == NO_BLOCK)
			begin(l, q, i);
	vu_kick(l->v, q);
	return n;
}

static int drive(struct load *l)
{
	unsigned int idle = 0;
	double quiet_since = now_s();
	bool fill = more(l);
	int rc = 0;

	while (fill || l->in_flight) {
		unsigned int n = 0;

		for (uint32_t q = 0; q < l->o->vu.queues; q++)
			n += round_of(l, q, fill);
		if (n) {
			idle = 0;
			if (l->o->seconds)
				fill = more(l);
			fill = fill && l->left;
			quiet_since = 0;
			continue;
		}
		fill = fill && more(l);
		if (l->o->irq && l->in_flight)
			vu_wait_call(l->v, 0, 100);
		if (++idle % 20000 && !l->o->irq)
			continue;
		/* Rarely: it costs a system call. */
		if (vu_is_gone(l->v)) {
			rc = l->o->reconnect_s ? come_back(l) : -ECONNRESET;
			if (rc < 0)
				return rc;
		}
		if (!quiet_since)
			quiet_since = now_s();
		else if (now_s() - quiet_since > 60)
			return -ETIMEDOUT;
	}
	return rc;
}

static int pass(struct load *l, bool write, uint64_t count)
{
	l->write = write;
	l->next = 0;
	l->left = count;
	l->end = now_s() + l->o->seconds;
	for (uint32_t i = 0; i < l->o->depth * l->o->vu.queues; i++)
		for (unsigned int k = 1; k + 1 < l->slots[i].nparts; k++)
			l->slots[i].parts[k].write = !write;
	return drive(l);
}

/* CPU time of another process: what the card spends on a run. */
static uint64_t cpu_ns(pid_t pid)
{
	clockid_t clock;
	struct timespec t;

	if (!pid || clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) < 0)
		return 0;
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

int io_load(struct vu *v, const struct io_opts *o, struct io_result *r)
{
	struct load l = {
		.v = v, .o = o, .r = r, .random = o->seed * 2654435761u + 88172645463325252ull};
	bool reads = strstr(o->command, "read") != NULL;
	struct io_opts back = *o;
	uint64_t cpu;
	double t;
	int rc;

	l.nblocks = o->size / o->block;
	rc = slots_open(&l);
	if (rc == 0 && o->spread)
		rc = spread_open(&l);
	if (rc == 0 && !o->plain) {
		l.busy = calloc(l.nblocks, 1);
		if (!reads) {
			l.sent = calloc(l.nblocks, sizeof(*l.sent));
			l.done = calloc(l.nblocks, sizeof(*l.done));
		}
		if (!l.busy || (!reads && (!l.sent || !l.done)))
			rc = -ENOMEM;
	}
	for (uint32_t q = 0; q < o->vu.queues; q++)
		vu_want_calls(v, q, o->irq);
	if (rc == 0 && o->warm)
		rc = pass(&l, !reads, o->warm);
	memset(r, 0, sizeof(*r));
	t = now_s();
	cpu = cpu_ns(o->cpu_of);
	if (rc == 0)
		rc = pass(&l, !reads, o->count ? o->count : o->seconds ? UINT64_MAX : l.nblocks);
	r->seconds = now_s() - t;
	r->cpu_ns = cpu_ns(o->cpu_of) - cpu;
	/* Everything that was written, and what was not, is read back. */
	if (rc == 0 && !strcmp(o->command, "verify")) {
		struct io_result first = *r;

		back.random = false;
		back.seconds = 0;
		l.o = &back;
		rc = pass(&l, false, l.nblocks);
		first.errors = r->errors;
		first.wrong = r->wrong;
		first.reconnects = r->reconnects;
		memcpy(first.note, r->note, sizeof(first.note));
		*r = first;
	}
	for (uint32_t q = 0; q < o->vu.queues; q++)
		r->kicks += v->q[q].kicks;
	free(l.slots);
	free(l.sent);
	free(l.done);
	free(l.busy);
	return rc;
}
