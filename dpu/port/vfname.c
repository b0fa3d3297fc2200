/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/port/vfname.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int vfname_of_representor(
	const struct vfname_range *r, size_t n, uint32_t representor_id, struct vfname *out)
{
	if (n == 0) {
		*out = (struct vfname){.kind = VFNAME_VF, .num = representor_id};
		return 0;
	}
	for (size_t i = 0; i < n; i++) {
		if (representor_id < r[i].id_first || representor_id > r[i].id_last)
			continue;
		*out = (struct vfname){.kind = r[i].kind, .pf = r[i].pf};
		if (r[i].kind != VFNAME_PF)
			out->num = r[i].num_first + (representor_id - r[i].id_first);
		return 0;
	}
	return -ENOENT;
}

const char *vfname_format(const struct vfname *v, char *buf, size_t len)
{
	switch (v->kind) {
	case VFNAME_VF:
	case VFNAME_SF:
		snprintf(buf, len, "pf%u%s%u", v->pf, v->kind == VFNAME_VF ? "vf" : "sf", v->num);
		break;
	case VFNAME_PF:
		snprintf(buf, len, "pf%u", v->pf);
		break;
	case VFNAME_NONE:
		snprintf(buf, len, "%s", "");
		break;
	}
	return buf;
}

/* A tag and a decimal number, as in "vf12"; advances *text. */
static bool tagged_number(const char **text, const char *tag, uint32_t max, uint32_t *value)
{
	const char *p = *text + strlen(tag);
	char *end;
	unsigned long v;

	if (strncmp(*text, tag, strlen(tag)) != 0 || !isdigit((unsigned char)*p))
		return false;
	errno = 0;
	v = strtoul(p, &end, 10);
	if (errno || v > max)
		return false;
	*value = (uint32_t)v;
	*text = end;
	return true;
}

int vfname_parse(const char *text, struct vfname *out, bool *any_pf)
{
	struct vfname v = {.kind = VFNAME_NONE};
	uint32_t pf = 0;

	*any_pf = !tagged_number(&text, "pf", UINT16_MAX, &pf);
	v.pf = (uint16_t)pf;
	if (tagged_number(&text, "vf", UINT32_MAX, &v.num))
		v.kind = VFNAME_VF;
	else if (tagged_number(&text, "sf", UINT32_MAX, &v.num))
		v.kind = VFNAME_SF;
	else if (!*any_pf)
		v.kind = VFNAME_PF;
	if (v.kind == VFNAME_NONE || *text != '\0')
		return -EINVAL;
	*out = v;
	return 0;
}
