/* SPDX-License-Identifier: BSD-3-Clause */
/* I/O to the members: waits for room in a full queue, tries once more after a transient error. */
#include <errno.h>

#include "dpu/stripelog/log_priv.h"

#define RETRIES 3u

static void try_submit(struct logio *lio);

static void flash_done(struct flash_io *io)
{
	struct logio *lio = io->arg;

	if (io->status == FLASH_ERR_TRANSIENT && lio->retries) {
		lio->retries--;
		try_submit(lio);
		return;
	}
	lio->done_fn(lio);
}

/* Where submission itself fails the completion still has to come later: through the poller. */
static void queue_up(struct logio *lio)
{
	TAILQ_INSERT_TAIL(&lio->log->devs[lio->dev].full, lio, link);
}

static int submit_now(struct logio *lio)
{
	const struct pool_dev *d = pool_dev(lio->log->pool, lio->dev);

	if (!d || !d->flash)
		return -ENODEV;
	return flash_submit(d->flash, &lio->io);
}

static void try_submit(struct logio *lio)
{
	if (!TAILQ_EMPTY(&lio->log->devs[lio->dev].full) || submit_now(lio) < 0)
		queue_up(lio);
}

void logio_submit(struct stripelog *log, unsigned int dev, struct logio *lio)
{
	lio->log = log;
	lio->dev = (uint8_t)dev;
	lio->retries = RETRIES;
	lio->io.done_fn = flash_done;
	lio->io.arg = lio;
	try_submit(lio);
}

int logio_poll(struct stripelog *log)
{
	int did = 0;

	for (unsigned int i = 0; i < log->ndevs; i++) {
		struct logio_list *l = &log->devs[i].full;

		while (!TAILQ_EMPTY(l)) {
			struct logio *lio = TAILQ_FIRST(l);
			int rc = submit_now(lio);

			if (rc == -EAGAIN)
				break;
			TAILQ_REMOVE(l, lio, link);
			did++;
			if (rc < 0) {
				lio->io.status = FLASH_ERR_GONE;
				lio->done_fn(lio);
			}
		}
	}
	return did;
}
