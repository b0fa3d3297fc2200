/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/crash/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/base/util.h"

#define CHUNK_PAGES 64u

static const uint8_t zeros[IMAGE_PAGE];

int image_open(struct image *im, struct image *below, unsigned int ndevs, uint64_t dev_bytes)
{
	*im = (struct image){.below = below, .npages = (uint32_t)(dev_bytes / IMAGE_PAGE)};
	for (unsigned int d = 0; d < ndevs; d++) {
		im->page[d] = calloc(im->npages, sizeof(*im->page[d]));
		if (!im->page[d]) {
			image_close(im);
			return -ENOMEM;
		}
	}
	return 0;
}

void image_close(struct image *im)
{
	for (unsigned int d = 0; d < IMAGE_DEVS_MAX; d++)
		free(im->page[d]);
	for (size_t i = 0; i < im->nchunks; i++)
		free(im->chunks[i]);
	free(im->chunks);
	free(im->touched);
	*im = (struct image){0};
}

void image_reset(struct image *im, struct image *below)
{
	for (size_t i = 0; i < im->ntouched; i++)
		im->page[im->touched[i].dev][im->touched[i].page] = NULL;
	im->ntouched = im->used_pages = 0;
	im->below = below;
}

static const uint8_t *page_find(const struct image *im, unsigned int dev, uint64_t page)
{
	for (; im; im = im->below)
		if (im->page[dev][page])
			return im->page[dev][page];
	return zeros;
}

void image_read(const struct image *im, unsigned int dev, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *to = buf;

	while (len) {
		uint64_t in = off % IMAGE_PAGE, n = MIN(len, IMAGE_PAGE - in);

		memcpy(to, page_find(im, dev, off / IMAGE_PAGE) + in, n);
		off += n;
		to += n;
		len -= n;
	}
}

static void *must(void *p)
{
	if (p)
		return p;
	fprintf(stderr, "no memory\n");
	exit(1);
}

static uint8_t *page_new(struct image *im)
{
	size_t chunk = im->used_pages / CHUNK_PAGES, at = im->used_pages % CHUNK_PAGES;

	if (chunk == im->nchunks) {
		im->chunks = must(realloc(im->chunks, (chunk + 1) * sizeof(*im->chunks)));
		im->chunks[im->nchunks++] = must(malloc((size_t)CHUNK_PAGES * IMAGE_PAGE));
	}
	im->used_pages++;
	return im->chunks[chunk] + at * IMAGE_PAGE;
}

static void touch(struct image *im, unsigned int dev, uint64_t page)
{
	if (im->ntouched == im->cap_touched) {
		im->cap_touched = im->cap_touched ? im->cap_touched * 2 : 256;
		im->touched = must(realloc(im->touched, im->cap_touched * sizeof(*im->touched)));
	}
	im->touched[im->ntouched].dev = dev;
	im->touched[im->ntouched++].page = (uint32_t)page;
}

void image_write(struct image *im, unsigned int dev, uint64_t off, const uint8_t *src, uint64_t len)
{
	while (len) {
		uint64_t page = off / IMAGE_PAGE, in = off % IMAGE_PAGE,
			 n = MIN(len, IMAGE_PAGE - in);
		const uint8_t *old = im->page[dev][page];
		uint8_t *mine = (uint8_t *)old;

		if (!old)
			touch(im, dev, page);
		if (!src && n == IMAGE_PAGE) {
			im->page[dev][page] = zeros;
		} else {
			if (!old || old == zeros) {
				mine = page_new(im);
				memcpy(mine, page_find(im, dev, page), IMAGE_PAGE);
				im->page[dev][page] = mine;
			}
			if (src)
				memcpy(mine + in, src, n);
			else
				memset(mine + in, 0, n);
		}
		src = src ? src + n : NULL;
		off += n;
		len -= n;
	}
}
