/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Erasure coding (EC 102): k data fragments and m parity fragments over GF(2^8), any k of which give the
 * data back. ISA-L, and a plain reference twin with the same matrices for tests.
 *
 *	         column 0      ...      column L-1          one column = 4 KiB of every fragment
 *	D1     | block 0     | ...   | block L-1    |
 *	D2     | block L     | ...   | block 2L-1   |       n blocks, L = ceil(n / min(k, n)), k' = ceil(n / L)
 *	Dk'    | block (k'-1)L ...   | block n-1 |          the last fragment may be short: zero-extended for coding only
 *	E1..Em | parity, always L blocks            |
 *
 * Matrix ids (on flash): EC_MATRIX_CAUCHY is Cauchy generated for exactly (k', m) (ISA-L's cauchy1; coefficients depend on
 * k', so k' and m are part of the stripe header); EC_MATRIX_COPY, for k' = 1, makes every parity fragment a copy.
 *
 * Thread: an ec_code is immutable after ec_code_get() and may be used anywhere; ec itself belongs to one shard.
 * Errors: 0 or -errno.
 */
#ifndef DPU_EC_EC_H
#define DPU_EC_EC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EC_K_MAX      24
#define EC_M_MAX      8
#define EC_BLOCK      4096u
#define EC_BLOCKS_MAX 1024u /* data blocks of one stripe */

/* EC_ISAL: ISA-L, and passes by our own kernel where the processor can run it; EC_ISAL_ONLY: without that kernel. */
enum ec_impl { EC_ISAL, EC_REFERENCE, EC_ISAL_ONLY };
enum ec_matrix { EC_MATRIX_COPY = 0, EC_MATRIX_CAUCHY = 1 };

struct ec_scheme {
	uint8_t k; /* 1..EC_K_MAX */
	uint8_t m; /* 1..EC_M_MAX */
};

struct ec_geometry {
	uint32_t nblocks;
	uint8_t k; /* k' of the picture above */
	uint8_t m;
	uint32_t rows; /* L: blocks of a full fragment */
};

/* The shape of n blocks (1..EC_BLOCKS_MAX) under a scheme. -EINVAL outside the limits. */
int ec_geometry_of(struct ec_scheme scheme, uint32_t nblocks, struct ec_geometry *out);
/* Blocks that fragment `frag` (0..k-1 data, k..k+m-1 parity) really holds. */
uint32_t ec_fragment_blocks(const struct ec_geometry *g, unsigned int frag);

struct ec;
struct ec_code; /* matrix and tables of one (k, m) */

int ec_open(enum ec_impl impl, struct ec **out);
void ec_close(struct ec *ec);
/* Built at first use, kept until ec_close. -EINVAL outside the limits, -ENOMEM. */
int ec_code_get(struct ec *ec, unsigned int k, unsigned int m, const struct ec_code **out);
enum ec_matrix ec_code_matrix(const struct ec_code *c);
/* Whether EC_ISAL makes its passes with the kernel for AVX-512 with GFNI here. */
bool ec_pass_is_ours(void);

/*
 * One pass over a batch: CRC32C of every block, parity and its CRCs, and where wanted a streamed copy of the data, in columns of
 * about 1 KiB that stay in the L1 cache. The source is read exactly once.
 */
struct ec_pass {
	struct ec_geometry geo;
	const uint8_t *const *blocks; /* geo.nblocks pointers to 4 KiB each */
	uint8_t *const *copy; /* NULL, or geo.nblocks destinations (an entry may be NULL) */
	uint8_t *const *copy2; /* the same, a second copy */
	bool unstable; /* the source may change under us: everything is made from the copy taken here; copy is needed */
	uint8_t *const *parity; /* geo.m pointers to geo.rows * 4 KiB each, any memory */
	bool stream; /* streaming stores to copies and parity: nobody reads them soon */
	uint32_t *crc; /* geo.nblocks, out */
	uint32_t *parity_crc; /* geo.m * geo.rows, out: [m][rows] */
};
void ec_encode_pass(const struct ec_code *c, const struct ec_pass *p);

/* Plain encode of whole fragments of len_bytes (a multiple of 64). */
void ec_encode(const struct ec_code *c, size_t len_bytes, const uint8_t *const *data,
	uint8_t *const *parity);

/*
 * Rebuilds fragments. have[] are k distinct fragment numbers and src[] their bytes (data fragments zero-extended to len_bytes);
 * want[] are nwant numbers and dst[] where they go. len_bytes is a multiple of 64. -EINVAL: bad numbers; -EIO: matrix not
 * invertible (cannot happen with our matrices).
 */
int ec_decode(const struct ec_code *c, size_t len_bytes, const uint8_t *have,
	const uint8_t *const *src, const uint8_t *want, unsigned int nwant, uint8_t *const *dst);

#endif
