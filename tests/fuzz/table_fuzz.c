/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tables 203 and 204. Byte 0: 0 a struct policy_spec made of the bytes; else the bytes are a packed "Tables" message, as a
 * push carries and a card's state file holds it.
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>

#include "common/base/util.h"
#include "common/policy/policy.h"
#include "common/rpc/frame.h"
#include "dpu/tables/tables.h"

#define NMAX 12

static const char *const words[] = {NULL, "", "web1", "vm2", "db", "f0", "f1", "f2", "object",
	"block", "filesystem", "/dev/ecpool0", "/dev/ecpool", "/dev/ecpool12", "/dev/normal0",
	"/dev/*", "/dev/ec*0", "/*", "*", "swift", "/dev/ecpool00", "a b", "/", "/dev/\n"};

/* A word, or up to 15 bytes of the input as a string. */
static const char *eat_word(struct eater *e, char buf[160])
{
	uint8_t c = eat8(e);

	if (c < 200)
		return words[c % ARRAY_LEN(words)];
	if (c == 255) { /* longer than every limit */
		memset(buf, 'x', 159);
		buf[159] = 0;
		return buf;
	}
	eat_bytes(e, buf, c % 16);
	buf[c % 16] = 0;
	return buf;
}

static void check_device(const struct policy_table *t, const struct policy_device *d)
{
	struct policy_explanation *x;

	FUZZ_CHECK((unsigned int)policy_decide(d) < POLICY_OUTCOMES);
	FUZZ_CHECK(policy_table_device(t, d->vm->node, d->vm->name, d->path) == d);
	for (int op = POLICY_OP_WRITE; op <= POLICY_OP_READ; op++) {
		FUZZ_CHECK(policy_explain(t, d, (enum policy_op)op, &x) == 0);
		FUZZ_CHECK(x->outcome == policy_decide(d));
		FUZZ_CHECK(x->nsteps <= POLICY_STEPS_MAX && x->nrows <= POLICY_VM_ROWS_MAX);
		FUZZ_CHECK(strnlen(x->result, sizeof(x->result)) < sizeof(x->result));
		free(x);
	}
}

static void check_table(const struct policy_table *t)
{
	uint64_t host;

	for (size_t i = 0; i < t->ndevices; i++) {
		FUZZ_CHECK(t->devices[i].index == i);
		check_device(t, &t->devices[i]);
	}
	for (size_t i = 0; i < t->nvms; i++) {
		const struct policy_vm *v = &t->vms[i];

		FUZZ_CHECK(v->mode != POLICY_MODE_AUTO);
		FUZZ_CHECK(policy_table_vm(t, v->node, v->name) == v);
		if (policy_vm_translate(v, v->guest_addr, 1, &host) == 0)
			FUZZ_CHECK(host == v->host_addr);
		FUZZ_CHECK(policy_vm_translate(v, v->guest_addr, UINT64_MAX, &host) < 0);
	}
	FUZZ_CHECK(policy_diff(NULL, t, NULL, NULL) == t->ndevices);
	FUZZ_CHECK(policy_diff(t, t, NULL, NULL) == 0);
}

struct texts {
	char buf[160];
};

static void from_spec(struct eater *e)
{
	static struct texts text[NMAX * 16];
	struct policy_flash_spec flashes[NMAX] = {{0}};
	struct policy_vm_spec vms[NMAX] = {{0}};
	struct policy_device_spec devices[NMAX] = {{0}};
	struct policy_row_spec rows[NMAX] = {{0}};
	const char *methods[2];
	struct policy_spec s = {.version = eat8(e),
		.flashes = flashes,
		.methods = methods,
		.vms = vms,
		.devices = devices,
		.rows = rows};
	struct policy_table *t = NULL;
	struct err err = {0};
	size_t n = 0;
	int rc;

	s.nflashes = eat8(e) % NMAX;
	s.nmethods = eat8(e) % 3;
	s.nvms = eat8(e) % NMAX;
	s.ndevices = eat8(e) % NMAX;
	s.nrows = eat8(e) % NMAX;
	for (size_t i = 0; i < s.nflashes; i++)
		flashes[i] = (struct policy_flash_spec){eat8(e) % 3, eat_word(e, text[n++].buf)};
	for (size_t i = 0; i < s.nmethods; i++)
		methods[i] = eat_word(e, text[n++].buf);
	for (size_t i = 0; i < s.nvms; i++) {
		vms[i] = (struct policy_vm_spec){
			.node = eat8(e) % 3, .vm = eat8(e), .mode = eat8(e) % 7};
		vms[i].name = eat_word(e, text[n++].buf);
		vms[i].data_flash = eat_word(e, text[n++].buf);
		vms[i].inter_flash = eat_word(e, text[n++].buf);
		vms[i].method = eat_word(e, text[n++].buf);
		if (eat8(e) & 1) {
			vms[i].host_addr = eat64(e);
			vms[i].guest_addr = eat64(e);
			vms[i].mem_bytes = eat64(e);
		}
	}
	for (size_t i = 0; i < s.ndevices; i++) {
		devices[i] = (struct policy_device_spec){.node = eat8(e) % 3, .vm = eat8(e)};
		devices[i].path = eat_word(e, text[n++].buf);
		devices[i].method = eat_word(e, text[n++].buf);
	}
	for (size_t i = 0; i < s.nrows; i++) {
		uint8_t flags = eat8(e);

		rows[i] = (struct policy_row_spec){
			.node = eat8(e) % 3, .vm = eat8(e), .ec = flags & 1};
		rows[i].method = eat_word(e, text[n++].buf);
		rows[i].path = eat_word(e, text[n++].buf);
		rows[i].host_addr = flags & 2 ? eat64(e) : 0;
	}
	rc = policy_table_open(&s, &t, &err);
	FUZZ_CHECK(policy_check(&s, NULL) == rc);
	if (rc == 0) {
		check_table(t);
		policy_table_close(t);
	} else {
		FUZZ_CHECK(err.code == rc && err.reason[0]);
	}
}

static void from_message(struct eater *e)
{
	static const char *const flashes[] = {"f0", "f1", "f2"};
	struct tables_env env = {.flashes = flashes, .nflashes = 3, .no_pool = eat8(e) & 1};
	struct rpc_arena *arena = NULL;
	struct tables_doc *doc = NULL;
	struct err err = {0};
	Parapet__Tables *pb = NULL;
	int rc;

	if (rpc_unpack_tables(e->p, e->left, &pb, &arena) < 0)
		return;
	rc = tables_doc_build(pb, arena, &env, &doc, &err);
	if (rc == 0) {
		check_table(doc->policy);
		tables_doc_put(doc);
	} else {
		FUZZ_CHECK(err.reason[0]);
		rpc_arena_free(arena);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct eater e = {data, size};

	if (eat8(&e) & 1)
		from_message(&e);
	else
		from_spec(&e);
	return 0;
}
