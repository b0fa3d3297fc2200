/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reservations: this host registers a key and holds a Write Exclusive reservation, so that the target refuses everybody else's writes.
 * Registrations are of hosts, not of connections: one path is enough for all. A path that comes back looks whether the claim is
 * still there (dev_path.c).
 */
#include <errno.h>
#include <string.h>

#include "common/base/log.h"
#include "dpu/nvmf/dev_priv.h"
#include "dpu/nvmf/nvmf_priv.h"

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

int nvmf_dev_claim(struct nvmf_dev *d, uint64_t key, bool preempt, struct err *err)
{
	struct claim c = {.d = d, .key = key, .err = err};
	int rc;

	if (!key)
		return err_set(err, -EINVAL, d->name, "key", "0 is none");
	rc = begin(&c);
	if (rc == 0)
		rc = report(&c);
	if (rc < 0)
		return rc;
	d->claim_seq = d->wrote_seq; /* the key may have come to the target just now */
	rc = take(&c, preempt);
	if (rc < 0)
		return rc;
	d->claim_key = key;
	d->fenced = false;
	log_info("nvmf: %s: this host is its only writer", d->name);
	return 0;
}

int nvmf_dev_unclaim(struct nvmf_dev *d, struct err *err)
{
	struct claim c = {.d = d, .key = d->claim_key, .err = err};
	int rc;

	if (!d->claim_key)
		return 0;
	d->claim_key = 0;
	rc = begin(&c);
	if (rc == 0)
		rc = report(&c);
	if (rc == 0 && c.st.we_hold)
		rc = release(&c, c.st.type);
	if (rc == 0 && c.st.registered)
		rc = unregister(&c);
	return rc;
}
