/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reservations: this host registers a key and holds a Write Exclusive reservation, so that the target refuses everybody else's writes.
 * Registrations are of hosts, not of connections: one path is enough for all. A path that comes back looks whether the claim is
 * still there (dev_path.c).
 *
 * So the devices of one namespace that a host has in this process share a claim: one after the other is at it, the last one to leave gives it back. And a key
 * that one of them has made again after the target lost it must not look to the others as if it had been there all the time.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/log.h"
#include "dpu/nvmf/dev_priv.h"
#include "dpu/nvmf/nvmf_priv.h"

struct host_claim {
	char name[sizeof(((struct nvmf_dev *)0)->name)]; /* of the namespace */
	uint8_t hostid[16];
	uint64_t key; /* 0: not yet */
	unsigned int users;
	bool busy; /* one of them is at it */
	uint64_t key_losses; /* times it was found that the target has no such key */
	LIST_ENTRY(host_claim) link;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static LIST_HEAD(, host_claim) host_claims = LIST_HEAD_INITIALIZER(host_claims);

/* ---- shared ---------------------------------------------------------------------------------------- */

struct turn {
	struct nvmf_dev *d;
	struct host_claim *fresh; /* in case there is none */
};

static struct host_claim *find(const struct nvmf_dev *d)
{
	struct host_claim *h;

	LIST_FOREACH (h, &host_claims, link)
		if (!strcmp(h->name, d->name) && !memcmp(h->hostid, d->hostid, sizeof(h->hostid)))
			return h;
	return NULL;
}

/* Under the lock. */
static void join(struct nvmf_dev *d, struct host_claim *h)
{
	h->busy = true;
	if (d->claim)
		return;
	h->users++;
	d->claim = h;
}

static bool turn_try(void *arg)
{
	struct turn *t = arg;
	struct host_claim *h;
	bool ours;

	pthread_mutex_lock(&lock);
	h = find(t->d);
	if (!h) {
		h = t->fresh;
		t->fresh = NULL;
		LIST_INSERT_HEAD(&host_claims, h, link);
	}
	ours = !h->busy;
	if (ours)
		join(t->d, h);
	pthread_mutex_unlock(&lock);
	return ours;
}

/* Until turn_end() no other device of this host claims or unclaims the namespace. */
static int turn_begin(struct nvmf_dev *d, struct err *err)
{
	struct turn t = {.d = d, .fresh = calloc(1, sizeof(*t.fresh))};
	int rc = 0;

	if (!t.fresh)
		return err_set(err, -ENOMEM, d->name, NULL, "out of memory");
	memcpy(t.fresh->name, d->name, sizeof(t.fresh->name));
	memcpy(t.fresh->hostid, d->hostid, sizeof(t.fresh->hostid));
	if (!turn_try(&t))
		rc = shard_wait(d->sh, turn_try, &t, 0);
	free(t.fresh);
	return rc ? err_set(err, rc, d->name, NULL, "%s", strerror(-rc)) : 0;
}

/* Under the lock. */
static void leave(struct nvmf_dev *d)
{
	struct host_claim *h = d->claim;

	d->claim = NULL;
	d->claim_key = 0;
	if (--h->users)
		return;
	LIST_REMOVE(h, link);
	free(h);
}

static void turn_end(struct nvmf_dev *d, bool stays)
{
	pthread_mutex_lock(&lock);
	d->claim->busy = false;
	if (!stays)
		leave(d);
	pthread_mutex_unlock(&lock);
}

void claim_leave(struct nvmf_dev *d)
{
	if (!d->claim)
		return;
	pthread_mutex_lock(&lock);
	leave(d);
	pthread_mutex_unlock(&lock);
}

static bool is_shared(const struct nvmf_dev *d)
{
	bool shared;

	pthread_mutex_lock(&lock);
	shared = d->claim->users > 1;
	pthread_mutex_unlock(&lock);
	return shared;
}

/* More than claim_seq covers. */
static void catch_up(struct nvmf_dev *d, bool lost)
{
	uint64_t losses;

	if (!d->claim) /* given back meanwhile */
		return;
	pthread_mutex_lock(&lock);
	d->claim->key_losses += lost;
	losses = d->claim->key_losses;
	pthread_mutex_unlock(&lock);
	if (losses != d->key_losses)
		d->claim_seq = d->wrote_seq;
	d->key_losses = losses;
}

void claim_key_lost(struct nvmf_dev *d)
{
	catch_up(d, true);
}

void claim_key_seen(struct nvmf_dev *d)
{
	catch_up(d, false);
}

/* ---- with the target --------------------------------------------------------------------------------- */

struct claim {
	struct nvmf_dev *d;
	uint64_t key;
	struct path *p;
	struct nvmf_resv_status st;
	struct err *err;
};

static int begin(struct claim *c)
{
	struct nvmf_dev *d = c->d;

	if (d->abandoned)
		return err_set(c->err, -ENODEV, d->name, NULL, "it was given up");
	for (unsigned int i = 0; i < d->npaths; i++)
		if (path_is_usable(&d->paths[i]) && (!c->p || d->paths[i].state < c->p->state))
			c->p = &d->paths[i];
	if (!c->p)
		return err_set(c->err, -EIO, d->name, NULL, "no path to it is usable");
	if (!d->info.reservations)
		return err_set(c->err, -EOPNOTSUPP, d->name, NULL,
			"the target has no reservations: nothing keeps another host from writing "
			"to it");
	return 0;
}

static int failed(struct claim *c, const char *what, int rc, const struct nvmf_io *io)
{
	if (io && !io->err && NVME_SC_CODE(io->status))
		return err_set(c->err, -EIO, c->d->name, "reservation", "%s: %s (status %#x)", what,
			nvme_status_name(io->status), NVME_SC_CODE(io->status));
	return err_set(c->err, -EIO, c->d->name, "reservation", "%s: %s", what, strerror(-rc));
}

/* Runs one command. The path may be lost, and the device given up, while it waits. */
static int run(struct claim *c, struct nvmf_io *io)
{
	return c->p->n ? nvmf_run(nvmf_queue(c->p->n, 1), io) : -ENODEV;
}

static int report(struct claim *c)
{
	int rc = c->p->n ? nvmf_resv_report(c->p->n, c->d->nsid, &c->st) : -ENODEV;

	return rc < 0 ? failed(c, "who holds it cannot be read", rc, NULL) : 0;
}

static int register_key(struct claim *c)
{
	struct nvmf_dev *d = c->d;
	struct nvmf_io io = {0};
	int rc;

	if (c->st.registered && c->st.our_key == c->key)
		return 0;
	claim_key_lost(d);
	nvmf_io_resv_register(&io, d->nsid, c->st.registered ? c->st.our_key : 0, c->key,
		c->st.registered ? NVME_RESV_REPLACE : NVME_RESV_REGISTER, d->ptpl);
	rc = run(c, &io);
	return rc < 0 ? failed(c, "the key cannot be registered", rc, &io) : 0;
}

static int unregister(struct claim *c)
{
	struct nvmf_io io = {0};
	int rc;

	nvmf_io_resv_register(&io, c->d->nsid, c->key, 0, NVME_RESV_UNREGISTER, false);
	rc = run(c, &io);
	return rc < 0 ? failed(c, "the key cannot be taken back", rc, &io) : 0;
}

static int release(struct claim *c, enum nvme_resv_type type)
{
	struct nvmf_io io = {0};
	int rc;

	nvmf_io_resv_release(&io, c->d->nsid, c->key, NVME_RESV_RELEASE, type);
	rc = run(c, &io);
	return rc < 0 ? failed(c, "it cannot be released", rc, &io) : 0;
}

static int acquire(struct claim *c, enum nvme_resv_acqa action, uint64_t from)
{
	struct nvmf_io io = {0};
	int rc;

	nvmf_io_resv_acquire(&io, c->d->nsid, c->key, from, action, NVME_RESV_WRITE_EXCLUSIVE);
	rc = run(c, &io);
	if (rc == 0)
		return 0;
	if (!io.err && NVME_SC_CODE(io.status) == NVME_SC_RESERVATION_CONFLICT)
		return err_set(
			c->err, -EBUSY, c->d->name, "reservation", "another host was faster");
	return failed(c, "it cannot be acquired", rc, &io);
}

/* With their commands that are under way, where the target can. */
static int preempt_holder(struct claim *c)
{
	int rc = acquire(c, NVME_RESV_PREEMPT_ABORT, c->st.holder_key);

	return rc < 0 && rc != -EBUSY ? acquire(c, NVME_RESV_PREEMPT, c->st.holder_key) : rc;
}

static int take(struct claim *c, bool preempt)
{
	bool was_registered = c->st.registered;
	int rc = register_key(c);

	if (rc == 0)
		rc = report(c);
	if (rc < 0)
		return rc;
	if (!c->st.held)
		return acquire(c, NVME_RESV_ACQUIRE, 0);
	if (c->st.we_hold && c->st.type == NVME_RESV_WRITE_EXCLUSIVE)
		return 0;
	if (c->st.we_hold) {
		rc = release(c, c->st.type);
		return rc < 0 ? rc : acquire(c, NVME_RESV_ACQUIRE, 0);
	}
	if (preempt)
		return preempt_holder(c);
	if (!was_registered)
		(void)unregister(c);
	return err_set(c->err, -EBUSY, c->d->name, "reservation",
		"another host holds it (key %#llx)", (unsigned long long)c->st.holder_key);
}

static int claim(struct nvmf_dev *d, uint64_t key, bool preempt, struct err *err)
{
	struct claim c = {.d = d, .key = key, .err = err};
	int rc;

	if (is_shared(d) && d->claim->key != key)
		return err_set(err, -EBUSY, d->name, "reservation",
			"this host has claimed it with another key");
	rc = begin(&c);
	if (rc == 0)
		rc = report(&c);
	if (rc < 0)
		return rc;
	catch_up(d, false);
	d->claim_seq = d->wrote_seq; /* the key may have come to the target just now */
	rc = take(&c, preempt);
	if (rc < 0)
		return rc;
	d->claim->key = d->claim_key = key;
	d->fenced = false;
	return 0;
}

int nvmf_dev_claim(struct nvmf_dev *d, uint64_t key, bool preempt, struct err *err)
{
	int rc;

	if (!key)
		return err_set(err, -EINVAL, d->name, "key", "0 is none");
	rc = turn_begin(d, err);
	if (rc < 0)
		return rc;
	rc = claim(d, key, preempt, err);
	if (rc == 0)
		log_info("nvmf: %s: this host is its only writer", d->name);
	turn_end(d, d->claim_key); /* what it had before it keeps */
	return rc;
}

static int give_back(struct nvmf_dev *d, uint64_t key, struct err *err)
{
	struct claim c = {.d = d, .key = key, .err = err};
	int rc = begin(&c);

	if (rc == 0)
		rc = report(&c);
	if (rc == 0 && c.st.we_hold)
		rc = release(&c, c.st.type);
	if (rc == 0 && c.st.registered)
		rc = unregister(&c);
	return rc;
}

int nvmf_dev_unclaim(struct nvmf_dev *d, struct err *err)
{
	uint64_t key = d->claim_key;
	int rc;

	if (!key)
		return 0;
	rc = turn_begin(d, err);
	if (rc < 0)
		return rc;
	d->claim_key = 0; /* a path that comes back does not make it again */
	if (!is_shared(d))
		rc = give_back(d, key, err);
	turn_end(d, false);
	return rc;
}
