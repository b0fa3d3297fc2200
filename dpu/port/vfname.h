/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which virtual function a representor port stands for. A driver numbers representors as it likes and publishes ranges of its
 * numbers; drivers without ranges use the VF's number. Pure functions, free of DPDK. Thread: any.
 */
#ifndef DPU_PORT_VFNAME_H
#define DPU_PORT_VFNAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum vfname_kind { VFNAME_NONE, VFNAME_VF, VFNAME_SF, VFNAME_PF };

struct vfname {
	enum vfname_kind kind;
	uint16_t pf;
	uint32_t num; /* of the VF or SF on its PF; 0 for a PF */
};

struct vfname_range {
	enum vfname_kind kind;
	uint16_t pf;
	uint32_t id_first, id_last; /* representor numbers, inclusive */
	uint32_t num_first; /* what id_first stands for */
};

/* n = 0: the representor's number is the VF's, on PF 0. -ENOENT: in no range. */
int vfname_of_representor(
	const struct vfname_range *r, size_t n, uint32_t representor_id, struct vfname *out);

/* "pf0vf3", "pf0sf88", "pf1", or "" for none, as the kernel names representors. */
const char *vfname_format(const struct vfname *v, char *buf, size_t len);

/* "pf0vf3", "vf3" (any PF: *any_pf), "sf3", "pf1". 0 or -EINVAL. */
int vfname_parse(const char *text, struct vfname *out, bool *any_pf);

#endif
