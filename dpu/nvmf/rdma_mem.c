/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/nvmf/rdma_priv.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "common/base/util.h"

#define BOUNCE_MIN 8192u

struct rdma_region {
	struct mem_region mem;
	struct rd_mr *mr; /* NULL: nobody has needed it yet */
	bool refused;
};

struct rdma_dev {
	LIST_ENTRY(rdma_dev) link;
	const struct rd_ops *ops;
	const void *device;
	struct shard *sh;
	struct rd_pd *pd;
	uint32_t users; /* started queues */
	bool windows;
	bool refused_told;
	uint64_t generation; /* that regions is of */
	struct rdma_region *regions; /* in order of their addresses */
	size_t nregions, last;
};

/* Shards find their devices here when queues start and stop; what a device holds is its shard's alone. */
static pthread_mutex_t devs_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool no_windows_told;
static LIST_HEAD(, rdma_dev) devs = LIST_HEAD_INITIALIZER(devs);

/* ---- devices ------------------------------------------------------------------------------------------------ */

static struct rdma_dev *dev_find(const struct rd_ops *ops, const void *device, struct shard *sh)
{
	struct rdma_dev *d;

	pthread_mutex_lock(&devs_lock);
	LIST_FOREACH (d, &devs, link)
		if (d->ops == ops && d->device == device && d->sh == sh)
			break;
	pthread_mutex_unlock(&devs_lock);
	return d;
}

/* What a device says it can is tried once: its user-space driver may not have it. */
static bool windows_work(struct rdma_dev *d, const struct rd_link *l)
{
	struct rd_caps caps;
	struct rd_mw *mw;

	d->ops->caps(l, &caps);
	if (!caps.windows || d->ops->mw_open(d->pd, &mw) < 0)
		return false;
	d->ops->mw_close(mw);
	return true;
}

int rdma_dev_get(const struct rd_ops *ops, struct rd_link *l, struct shard *sh,
	struct rdma_dev **out, struct err *err)
{
	const void *device = ops->device(l);
	struct rdma_dev *d = dev_find(ops, device, sh);
	int rc;

	if (d) {
		d->users++;
		*out = d;
		return 0;
	}
	d = calloc(1, sizeof(*d));
	if (!d)
		return err_set(err, -ENOMEM, NULL, NULL, "out of memory");
	rc = ops->pd_open(l, &d->pd);
	if (rc < 0) {
		free(d);
		return err_set(err, rc, NULL, NULL, "the RDMA device gives no protection domain");
	}
	d->ops = ops;
	d->device = device;
	d->sh = sh;
	d->users = 1;
	d->windows = windows_work(d, l);
	d->generation = UINT64_MAX;
	pthread_mutex_lock(&devs_lock);
	LIST_INSERT_HEAD(&devs, d, link);
	pthread_mutex_unlock(&devs_lock);
	if (!d->windows && !atomic_exchange(&no_windows_told, true))
		log_warn("nvmf: rdma: the device has no memory windows of type 2B: "
			 "targets get keys of whole memory regions");
	*out = d;
	return 0;
}

static void region_release(struct rdma_dev *d, struct rdma_region *r)
{
	if (r->mr)
		d->ops->mr_close(r->mr);
	r->mr = NULL;
}

void rdma_dev_put(struct rdma_dev *d)
{
	if (!d || --d->users)
		return;
	pthread_mutex_lock(&devs_lock);
	LIST_REMOVE(d, link);
	pthread_mutex_unlock(&devs_lock);
	for (size_t i = 0; i < d->nregions; i++)
		region_release(d, &d->regions[i]);
	d->ops->pd_close(d->pd);
	free(d->regions);
	free(d);
}

struct rd_pd *rdma_dev_pd(const struct rdma_dev *d)
{
	return d->pd;
}

bool rdma_dev_windows(const struct rdma_dev *d)
{
	return d->windows;
}

/* ---- regions ------------------------------------------------------------------------------------------------- */

/* Registrations that are still good move over to the new list; the others go. */
static void regions_merge(struct rdma_dev *d, struct rdma_region *list, size_t n)
{
	size_t j = 0;

	for (size_t i = 0; i < d->nregions; i++) {
		struct rdma_region *old = &d->regions[i];

		while (j < n && list[j].mem.base < old->mem.base)
			j++;
		if (j < n && list[j].mem.id == old->mem.id)
			list[j] = *old;
		else
			region_release(d, old);
	}
	free(d->regions);
	d->regions = list;
	d->nregions = n;
	d->last = 0;
}

void rdma_dev_sync(struct rdma_dev *d)
{
	autofree struct mem_region *now = NULL;
	struct rdma_region *list;
	uint64_t generation = mem_generation();
	size_t max, n;

	if (generation == d->generation)
		return;
	max = mem_regions(NULL, 0) + 8; /* another thread may add some meanwhile */
	now = calloc(max, sizeof(now[0]));
	list = calloc(max, sizeof(list[0]));
	if (!now || !list) { /* what is registered stays; tried again with the next command */
		free(list);
		return;
	}
	n = mem_regions(now, max);
	if (n > max) {
		free(list);
		return;
	}
	for (size_t i = 0; i < n; i++)
		list[i].mem = now[i];
	regions_merge(d, list, n);
	d->generation = generation;
}

static bool covers(const struct rdma_region *r, const uint8_t *p, size_t len)
{
	return p >= r->mem.base && len <= r->mem.len_bytes &&
	       (size_t)(p - r->mem.base) <= r->mem.len_bytes - len;
}

static struct rdma_region *region_find(struct rdma_dev *d, const uint8_t *p, size_t len)
{
	size_t lo = 0, hi = d->nregions;

	if (d->last < d->nregions && covers(&d->regions[d->last], p, len))
		return &d->regions[d->last];
	while (lo < hi) { /* the first that begins above p */
		size_t mid = lo + (hi - lo) / 2;

		if (d->regions[mid].mem.base <= p)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (!lo || !covers(&d->regions[lo - 1], p, len))
		return NULL;
	d->last = lo - 1;
	return &d->regions[lo - 1];
}

struct rd_mr *rdma_dev_mr(struct rdma_dev *d, const void *p, size_t len)
{
	struct rdma_region *r;
	int rc;

	rdma_dev_sync(d);
	r = region_find(d, p, len);
	if (!r || r->mr || r->refused)
		return r ? r->mr : NULL;
	rc = d->ops->mr_open(
		d->pd, r->mem.base, r->mem.len_bytes, d->windows ? RD_WINDOWS : RD_REMOTE, &r->mr);
	if (rc < 0) {
		r->refused = true;
		r->mr = NULL;
		if (!d->refused_told)
			log_warn("nvmf: rdma: cannot register %zu bytes of memory: %s; their "
				 "data will be copied (limit of locked memory?)",
				r->mem.len_bytes, strerror(-rc));
		d->refused_told = true;
	}
	return r->mr;
}

/* ---- a command's data ------------------------------------------------------------------------------------------ */

/* The next piece of memory: iovecs that lie behind one another are one. False at the end. */
static bool next_piece(const struct nvmf_io *io, int *i, uint8_t **base, size_t *len)
{
	*len = 0;
	for (; *i < io->niov; ++*i) {
		const struct iovec *v = &io->iov[*i];

		if (!v->iov_len)
			continue;
		if (*len && (uint8_t *)v->iov_base != *base + *len)
			break;
		if (!*len)
			*base = v->iov_base;
		*len += v->iov_len;
	}
	return *len > 0;
}

static int bounce_need(struct rdma_slot *r, uint32_t bytes)
{
	uint32_t want = BOUNCE_MIN;
	uint8_t *p;

	if (r->bounce_bytes >= bytes)
		return 0;
	while (want < bytes)
		want *= 2;
	p = mem_alloc(want);
	if (!p)
		return -ENOMEM;
	mem_free(r->bounce, r->bounce_bytes);
	r->bounce = p;
	r->bounce_bytes = want;
	return 0;
}

static void copy_all(const struct nvmf_io *io, uint8_t *flat, bool out)
{
	for (int i = 0; i < io->niov; i++) {
		const struct iovec *v = &io->iov[i];

		if (!v->iov_len)
			continue;
		if (out)
			memcpy(flat, v->iov_base, v->iov_len);
		else
			memcpy(v->iov_base, flat, v->iov_len);
		flat += v->iov_len;
	}
}

/* Not Connect's data and Identify's pages: they are few, and say nothing about I/O. */
static bool is_payload(const struct rdma_conn *c)
{
	return c->q->qid && c->q->live;
}

static int bounce_take(struct rdma_conn *c, struct nvmf_slot *s, struct rdma_range *out)
{
	struct rdma_slot *r = rdma_slot_of(c, s);
	int rc = bounce_need(r, s->data_bytes);

	if (rc < 0)
		return rc;
	out->base = r->bounce;
	out->mr = rdma_dev_mr(c->dev, r->bounce, s->data_bytes);
	if (!out->mr)
		return -ENOMEM;
	r->bounced = true;
	if (s->out)
		copy_all(s->io, r->bounce, true);
	if (is_payload(c))
		c->q->n->stats.copied_bytes += s->data_bytes;
	return 0;
}

int rdma_data_range(struct rdma_conn *c, struct nvmf_slot *s, struct rdma_range *out)
{
	size_t len;
	int i = 0;

	if (next_piece(s->io, &i, &out->base, &len) && len == s->data_bytes) {
		out->mr = rdma_dev_mr(c->dev, out->base, len);
		if (out->mr) {
			if (is_payload(c))
				c->q->n->stats.zero_copy_bytes += len;
			return 0;
		}
	}
	return bounce_take(c, s, out);
}

int rdma_data_pieces(struct rdma_conn *c, struct nvmf_slot *s, struct rd_sge *sge, int max)
{
	struct rdma_range all;
	uint8_t *base;
	size_t len;
	int n = 0, rc;

	for (int i = 0; next_piece(s->io, &i, &base, &len); n++) {
		struct rd_mr *mr = n < max ? rdma_dev_mr(c->dev, base, len) : NULL;

		if (!mr)
			goto gather;
		sge[n] = (struct rd_sge){(uintptr_t)base, (uint32_t)len, mr->lkey};
	}
	if (is_payload(c))
		c->q->n->stats.zero_copy_bytes += s->data_bytes;
	return n;
gather:
	rc = bounce_take(c, s, &all);
	if (rc < 0)
		return rc;
	sge[0] = (struct rd_sge){(uintptr_t)all.base, s->data_bytes, all.mr->lkey};
	return 1;
}

void rdma_data_scatter(struct rdma_conn *c, struct nvmf_slot *s)
{
	struct rdma_slot *r = rdma_slot_of(c, s);

	if (r->bounced && !s->out)
		copy_all(s->io, r->bounce, false);
}
