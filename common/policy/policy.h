/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tables 203 (data management) and 204 (EC usage) as plain data, and the decision they imply for
 * every request: plain, intermediate or protect. The card decides with it, the agent checks and
 * explains with it, so both always say the same.
 *
 * A struct policy_table is built in one go from a struct policy_spec, is checked as a whole and is
 * immutable afterwards; it copies every string. The outcome of a (VM, device) pair cannot change
 * within one table, so it is computed at build time: the data path reads one field
 * (policy_decide()), without I/O, lock or allocation.
 *
 * Thread: building, explaining and comparing on any thread; a finished table may be read by all.
 * Ownership: pointers returned from a table live as long as the table.
 * Errors: -EINVAL (a value is not allowed), -EEXIST (duplicate or contradictory rows), -ENOENT
 * (a name that is not known), -E2BIG (a bound is exceeded), -ENOMEM; struct err names the table, the
 * row (1 = the first as given), the field and what is allowed.
 *
 *	struct policy_spec spec = {.version = 7, .vms = vms, .nvms = 2, ...};
 *	struct policy_table *t;
 *	rc = policy_table_open(&spec, &t, &err);
 *	const struct policy_device *d = policy_table_device(t, node, "web1", "/dev/ecpool0");
 *	switch (policy_decide(d)) { ... }
 *	policy_table_close(t);
 */
#ifndef COMMON_POLICY_POLICY_H
#define COMMON_POLICY_POLICY_H

#include "common/base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bounds; sizes of strings include the final NUL. */
#define POLICY_NAME_SIZE      64 /* VM and flash names */
#define POLICY_PATH_SIZE      128 /* data paths */
#define POLICY_METHOD_SIZE    32 /* access methods */
#define POLICY_VMS_MAX        1024
#define POLICY_DEVICES_MAX    16384
#define POLICY_ROWS_MAX       16384 /* rows of table 204 */
#define POLICY_VM_DEVICES_MAX 256
#define POLICY_VM_ROWS_MAX    256

/* The access method of a VM that names none. */
#define POLICY_METHOD_DEFAULT "block"

enum policy_outcome {
	POLICY_PLAIN, /* data area only */
	POLICY_INTERMEDIATE, /* intermediate area, on another flash than the data area */
	POLICY_PROTECT, /* data area and EC */
	POLICY_OUTCOMES
};

enum policy_mode {
	POLICY_MODE_AUTO, /* follows from the columns the VM's rows use */
	POLICY_MODE_FLAG, /* figure 8 */
	POLICY_MODE_METHOD, /* figure 10 */
	POLICY_MODE_PATH, /* figure 11 */
	POLICY_MODE_BOTH, /* figure 12: method + path */
	POLICY_MODES
};

/* How a row's path fits a device, the better the larger. */
enum policy_match {
	POLICY_MATCH_NONE, /* does not fit */
	POLICY_MATCH_PATTERN, /* by a pattern with '*' */
	POLICY_MATCH_DIGITS, /* the row's path followed by digits */
	POLICY_MATCH_EXACT
};

/* ---- what a table is built from; NULL and "" both mean "absent" ---------------------------- */

struct policy_flash_spec {
	uint32_t node;
	const char *name;
};

/* A row of table 203 with the VM's policy settings. */
struct policy_vm_spec {
	uint32_t node; /* Node# */
	uint32_t vm; /* VM#, unique within its node */
	const char *name; /* unique within its node */
	uint64_t host_addr; /* HostMemoryAddress: where the node sees the VM's memory */
	uint64_t guest_addr; /* GuestMemoryAddress: where the guest sees it */
	uint64_t mem_bytes; /* length of that memory, 0: not known */
	const char *data_flash; /* DataStoredArea; needed once the VM has a device */
	const char *inter_flash; /* holds the intermediate area; not the data flash */
	const char *method; /* access method; absent: POLICY_METHOD_DEFAULT */
	enum policy_mode mode;
};

struct policy_device_spec {
	uint32_t node, vm;
	const char *path; /* DataPath, the name the user gave; unique within the VM */
	const char *method; /* absent: the VM's */
};

/* A row of table 204. */
struct policy_row_spec {
	uint32_t node, vm;
	uint64_t host_addr; /* 0, or the same as in table 203 */
	const char *method; /* DataAccessMethod, may be absent */
	const char *path; /* DataPath, may be absent */
	bool ec; /* EC Flag */
};

struct policy_spec {
	uint64_t version;
	const struct policy_flash_spec *flashes;
	size_t nflashes;
	const char *const *methods; /* access methods beyond object, block, filesystem */
	size_t nmethods;
	const struct policy_vm_spec *vms;
	size_t nvms;
	const struct policy_device_spec *devices;
	size_t ndevices;
	const struct policy_row_spec *rows;
	size_t nrows;
};

/* ---- the table --------------------------------------------------------------------------------- */

struct policy_row {
	uint32_t number; /* place among the rows given, from 1 */
	bool ec;
	char method[POLICY_METHOD_SIZE]; /* "" = absent */
	char path[POLICY_PATH_SIZE]; /* "" = absent */
};

struct policy_vm;

struct policy_device {
	enum policy_outcome outcome; /* of a write, precomputed */
	uint32_t index; /* 0 .. table->ndevices - 1, for arrays beside the table */
	const struct policy_vm *vm;
	bool method_own; /* the method is the device's, not the VM's */
	char method[POLICY_METHOD_SIZE];
	char path[POLICY_PATH_SIZE];
};

struct policy_vm {
	uint32_t node, vm;
	uint64_t host_addr, guest_addr, mem_bytes;
	enum policy_mode mode; /* in effect, never AUTO */
	bool mode_set; /* false: it followed from the rows */
	char name[POLICY_NAME_SIZE];
	char data_flash[POLICY_NAME_SIZE];
	char inter_flash[POLICY_NAME_SIZE];
	char method[POLICY_METHOD_SIZE];
	const struct policy_device *devices; /* sorted by path */
	size_t ndevices;
	const struct policy_row *rows; /* in the order given */
	size_t nrows;
};

struct policy_table {
	uint64_t version;
	const struct policy_vm *vms; /* sorted by node, then name */
	size_t nvms;
	const struct policy_device *devices; /* by VM, then path; devices[i].index == i */
	size_t ndevices;
	const struct policy_row *rows; /* by VM, then as given */
	size_t nrows;
};

/* Checks the whole spec without building anything that stays. 0 or an error as above. */
int policy_check(const struct policy_spec *spec, struct err *e);

/* Checks spec and builds *out; close frees it (NULL is fine). Nothing of spec is kept. */
int policy_table_open(const struct policy_spec *spec, struct policy_table **out, struct err *e);
void policy_table_close(struct policy_table *t);

/* Look-ups; NULL where there is none. */
const struct policy_vm *policy_table_vm(
	const struct policy_table *t, uint32_t node, const char *name);
const struct policy_vm *policy_table_vm_by_number(
	const struct policy_table *t, uint32_t node, uint32_t vm);
const struct policy_device *policy_vm_device(const struct policy_vm *vm, const char *path);
const struct policy_device *policy_table_device(
	const struct policy_table *t, uint32_t node, const char *vm, const char *path);

/* The outcome of a write to dev. Data path: one load. */
static inline enum policy_outcome policy_decide(const struct policy_device *dev)
{
	return dev->outcome;
}

/* Translates [guest_addr, +len) of the VM's memory into the node's view. 0, or -EFAULT where the
 * range is not wholly inside what table 203 says. */
int policy_vm_translate(
	const struct policy_vm *vm, uint64_t guest_addr, uint64_t len_bytes, uint64_t *host_addr);

/* How a row's path fits a device's: exact, followed by digits, '*' pattern, or not at all. */
enum policy_match policy_path_match(const char *row_path, const char *device_path);

/* How many devices of its VM a row applies to by method and path: 0 is worth a remark. */
size_t policy_row_covers(const struct policy_vm *vm, const struct policy_row *row);

/* ---- names ------------------------------------------------------------------------------------- */

const char *policy_outcome_name(enum policy_outcome outcome); /* "plain", ... */
const char *policy_mode_name(enum policy_mode mode); /* "auto", "flag", ..., "method+path" */
const char *policy_match_name(enum policy_match match);
/* 0 or -EINVAL; "method+path" is also accepted as "both". */
int policy_mode_parse(const char *text, enum policy_mode *mode);

/* Spelling checks, shared by all who take names from people: 0 or -EINVAL with e filled. object
 * and field go into e. Names: letters, digits, "._-", starting with a letter or digit. Device paths:
 * start with '/', printable ASCII without space, quotes, backslash and '*'. */
int policy_check_name(const char *name, const char *object, const char *field, struct err *e);
int policy_check_path(const char *path, const char *object, const char *field, struct err *e);

/* ---- explanation ------------------------------------------------------------------------------- */

#define POLICY_STEPS_MAX 6

enum policy_op { POLICY_OP_WRITE, POLICY_OP_READ };

struct policy_explain_row {
	const struct policy_row *row;
	bool matched; /* fits the request and counts in this mode */
	bool decisive; /* the outcome was taken from it */
	enum policy_match match;
	char why[192]; /* how it matched, or why it did not */
};

struct policy_explain_step {
	unsigned int figure; /* of the patent: 8, 10, 11, 12; 0: before or beside the figures */
	char text[224];
};

struct policy_explanation {
	uint64_t version;
	const struct policy_vm *vm;
	const struct policy_device *device;
	enum policy_op op;
	char mode_why[160]; /* how the mode was chosen */
	char method_why[160]; /* where the access method comes from */
	enum policy_outcome outcome; /* of a write, also where op is a read */
	char result[320]; /* where the bytes go, or where they come from, in a sentence */
	size_t nsteps;
	struct policy_explain_step steps[POLICY_STEPS_MAX];
	size_t nrows;
	struct policy_explain_row rows[POLICY_VM_ROWS_MAX];
};

/* Why a write to dev has its outcome, or where a read of it is served from. *out is freed with
 * free(); it points into t, which must outlive it. 0, -EINVAL or -ENOMEM. */
int policy_explain(const struct policy_table *t, const struct policy_device *dev, enum policy_op op,
	struct policy_explanation **out);

/* ---- comparison -------------------------------------------------------------------------------- */

/* A device whose writes are treated differently; one of before / after is NULL where the device
 * exists in one table only. Devices are the same when node, VM name and path are. */
struct policy_change {
	uint32_t node;
	const char *vm;
	const char *path;
	const struct policy_device *before;
	const struct policy_device *after;
};

typedef void (*policy_change_fn)(void *arg, const struct policy_change *change);

/* Calls fn (may be NULL) for every device whose outcome changes, appears or disappears, in order of
 * node, VM and path; returns how many. before may be NULL: the empty table. */
size_t policy_diff(const struct policy_table *before, const struct policy_table *after,
	policy_change_fn fn, void *arg);

#endif
