/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Contents of a pool's devices, sparse and in layers: what a layer has not, the one below it has; the lowest has zeros. So that
 * thousands of states of the same devices, and what a recovery writes to each of them, cost their differences only.
 *
 * Thread: one. Ownership: a layer does not own the one below, which must not change while there is one on it.
 */
#ifndef TESTS_CRASH_IMAGE_H
#define TESTS_CRASH_IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_PAGE     4096u
#define IMAGE_DEVS_MAX 16u

struct image {
	struct image *below;
	uint32_t npages; /* of each device */
	const uint8_t **page[IMAGE_DEVS_MAX];
	struct {
		uint32_t dev, page;
	} * touched;
	size_t ntouched, cap_touched;
	uint8_t **chunks; /* memory of pages, kept over image_reset() */
	size_t nchunks, used_pages;
};

/* 0 or -ENOMEM. */
int image_open(struct image *im, struct image *below, unsigned int ndevs, uint64_t dev_bytes);
void image_close(struct image *im);
/* Empty again, on another layer. */
void image_reset(struct image *im, struct image *below);

void image_read(const struct image *im, unsigned int dev, uint64_t off, void *buf, uint64_t len);
/* src NULL: zeros. Ends the program where there is no memory. */
void image_write(
	struct image *im, unsigned int dev, uint64_t off, const uint8_t *src, uint64_t len);

#endif
