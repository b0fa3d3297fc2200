/* SPDX-License-Identifier: BSD-3-Clause */
/* The rules of tables 203 and 204, one by one. */
#include "common/base/util.h"
#include "common/policy/policy.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define P POLICY_PROTECT
#define N POLICY_PLAIN
#define I POLICY_INTERMEDIATE

static const struct policy_flash_spec flashes[] = {{1, "f0"}, {1, "f1"}, {2, "g0"}};

/* One VM "vm" (node 1, number 1) with up to four devices and eight rows. */
struct world {
	struct policy_vm_spec vm[2];
	struct policy_device_spec devices[4];
	struct policy_row_spec rows[8];
	struct policy_spec spec;
	struct err e;
};

static struct world *world_of(struct world *w, enum policy_mode mode)
{
	*w = (struct world){
		.vm = {{.node = 1,
			       .vm = 1,
			       .name = "vm",
			       .host_addr = 0x7000,
			       .guest_addr = 0x1000,
			       .mem_bytes = 0x2000,
			       .data_flash = "f0",
			       .inter_flash = "f1",
			       .mode = mode},
			{.node = 2, .vm = 1, .name = "vm", .data_flash = "g0"}},
	};
	w->spec = (struct policy_spec){
		.version = 3,
		.flashes = flashes,
		.nflashes = ARRAY_LEN(flashes),
		.vms = w->vm,
		.nvms = 2,
		.devices = w->devices,
		.rows = w->rows,
	};
	return w;
}

static void device(struct world *w, const char *path, const char *method)
{
	w->devices[w->spec.ndevices++] = (struct policy_device_spec){
		.node = 1, .vm = 1, .path = path, .method = method};
}

static void row(struct world *w, const char *method, const char *path, bool ec)
{
	w->rows[w->spec.nrows++] = (struct policy_row_spec){
		.node = 1, .vm = 1, .method = method, .path = path, .ec = ec};
}

static enum policy_outcome outcome_of(struct world *w, const char *path)
{
	struct policy_table *t = NULL;
	const struct policy_device *d;
	enum policy_outcome o;
	int rc = policy_table_open(&w->spec, &t, &w->e);

	if (rc < 0)
		fail_msg("%s", err_text(&w->e));
	d = policy_table_device(t, 1, "vm", path);
	assert_non_null(d);
	o = policy_decide(d);
	policy_table_close(t);
	return o;
}

static void refused(struct world *w, int code, const char *object, const char *field)
{
	struct policy_table *t = NULL;

	assert_int_equal(policy_table_open(&w->spec, &t, &w->e), code);
	assert_null(t);
	assert_int_equal(policy_check(&w->spec, NULL), code);
	assert_int_equal(w->e.code, code);
	assert_string_equal(w->e.object, object);
	assert_string_equal(w->e.field, field);
	assert_true(w->e.reason[0]);
}

static void a_vm_without_rows_is_plain_in_every_mode(void **state)
{
	struct world w;

	for (int m = 0; m < POLICY_MODES; m++) {
		device(world_of(&w, m), "/dev/a", NULL);
		assert_int_equal(outcome_of(&w, "/dev/a"), N);
	}
}

static void flag_mode_lets_the_most_specific_row_decide(void **state)
{
	/* every subset of {vm, method, path, pair} rows with every assignment of flags */
	for (int present = 0; present < 16; present++) {
		for (int flags = 0; flags < 16; flags++) {
			struct world w;
			int decisive = present & 8   ? 8
				       : present & 4 ? 4
				       : present & 2 ? 2
						     : present & 1;

			device(world_of(&w, POLICY_MODE_FLAG), "/dev/a0", "object");
			if (present & 1)
				row(&w, NULL, NULL, flags & 1);
			if (present & 2)
				row(&w, "object", "", flags & 2);
			if (present & 4)
				row(&w, "", "/dev/a", flags & 4);
			if (present & 8)
				row(&w, "object", "/dev/a", flags & 8);
			assert_int_equal(outcome_of(&w, "/dev/a0"), flags & decisive ? P : N);
		}
	}
}

static void flag_mode_without_a_match_is_plain(void **state)
{
	struct world w;

	device(world_of(&w, POLICY_MODE_FLAG), "/dev/a", "block");
	row(&w, "object", NULL, true);
	row(&w, NULL, "/dev/b", true);
	row(&w, "block", "/dev/b", true);
	row(&w, "object", "/dev/a", true);
	assert_int_equal(outcome_of(&w, "/dev/a"), N);
}

static void method_mode_protects_ec_methods_and_sends_the_rest_to_the_intermediate_area(
	void **state)
{
	struct world w;

	world_of(&w, POLICY_MODE_AUTO);
	device(&w, "/dev/o", "object");
	device(&w, "/dev/b", NULL); /* the VM's: block */
	device(&w, "/dev/f", "filesystem");
	row(&w, "object", NULL, true);
	row(&w, "block", NULL, false);
	assert_int_equal(outcome_of(&w, "/dev/o"), P);
	assert_int_equal(outcome_of(&w, "/dev/b"), I);
	assert_int_equal(outcome_of(&w, "/dev/f"), I);
	w.vm[0].method = "object";
	assert_int_equal(outcome_of(&w, "/dev/b"), P);
}

static void method_mode_ignores_rows_that_name_a_path(void **state)
{
	struct world w;

	device(world_of(&w, POLICY_MODE_METHOD), "/dev/b", NULL);
	row(&w, "block", "/dev/b", true);
	row(&w, NULL, "/dev/b", true);
	assert_int_equal(outcome_of(&w, "/dev/b"), I);
}

static void path_mode_protects_ec_paths_and_sends_the_rest_to_the_intermediate_area(void **state)
{
	struct world w;

	world_of(&w, POLICY_MODE_AUTO);
	device(&w, "/dev/ecpool0", NULL);
	device(&w, "/dev/ecpool1", NULL);
	device(&w, "/dev/normal0", NULL);
	row(&w, NULL, "/dev/ecpool", true);
	row(&w, NULL, "/dev/ecpool1", false);
	assert_int_equal(outcome_of(&w, "/dev/ecpool0"), P);
	assert_int_equal(outcome_of(&w, "/dev/ecpool1"), I);
	assert_int_equal(outcome_of(&w, "/dev/normal0"), I);
}

static void method_and_path_mode_follows_figure_12(void **state)
{
	/* method: EC, non-EC, unlisted; path: EC, non-EC, unlisted */
	static const enum policy_outcome want[3][3] = {{P, N, P}, {P, I, I}, {P, I, I}};

	for (int m = 0; m < 3; m++) {
		for (int p = 0; p < 3; p++) {
			struct world w;

			device(world_of(&w, POLICY_MODE_BOTH), "/dev/a", "block");
			row(&w, "object", NULL, true); /* beside the point */
			if (m < 2)
				row(&w, "block", NULL, m == 0);
			if (p < 2)
				row(&w, NULL, "/dev/a", p == 0);
			assert_int_equal(outcome_of(&w, "/dev/a"), want[m][p]);
			/* a row with both decides first */
			row(&w, "block", "/dev/a", true);
			assert_int_equal(outcome_of(&w, "/dev/a"), P);
			w.rows[w.spec.nrows - 1].ec = false;
			assert_int_equal(outcome_of(&w, "/dev/a"), N);
		}
	}
}

static void the_mode_follows_from_the_columns_the_rows_use(void **state)
{
	static const struct {
		const char *m1, *p1, *m2, *p2;
		enum policy_mode mode;
	} c[] = {
		{NULL, NULL, "-", NULL, POLICY_MODE_FLAG},
		{"block", NULL, "object", NULL, POLICY_MODE_METHOD},
		{NULL, "/dev/a", NULL, "/dev/b", POLICY_MODE_PATH},
		{"block", NULL, NULL, "/dev/b", POLICY_MODE_BOTH},
		{"block", "/dev/a", "-", NULL, POLICY_MODE_BOTH},
		{"block", "/dev/a", "block", NULL, POLICY_MODE_BOTH},
	};

	for (size_t i = 0; i < ARRAY_LEN(c); i++) {
		struct policy_table *t;
		struct world w;

		world_of(&w, POLICY_MODE_AUTO);
		row(&w, c[i].m1, c[i].p1, true);
		if (!c[i].m2 || strcmp(c[i].m2, "-"))
			row(&w, c[i].m2, c[i].p2, true);
		assert_int_equal(policy_table_open(&w.spec, &t, NULL), 0);
		assert_int_equal(policy_table_vm(t, 1, "vm")->mode, c[i].mode);
		assert_false(policy_table_vm(t, 1, "vm")->mode_set);
		policy_table_close(t);
	}
}

static void paths_match_exactly_by_digits_or_by_pattern(void **state)
{
	static const struct {
		const char *row, *dev;
		enum policy_match m;
	} c[] = {
		{"/dev/ecpool0", "/dev/ecpool0", POLICY_MATCH_EXACT},
		{"/dev/ecpool", "/dev/ecpool0", POLICY_MATCH_DIGITS},
		{"/dev/ecpool", "/dev/ecpool12", POLICY_MATCH_DIGITS},
		{"/dev/ecpool1", "/dev/ecpool12", POLICY_MATCH_DIGITS},
		{"/dev/ecpool", "/dev/ecpoolx", POLICY_MATCH_NONE},
		{"/dev/ecpool", "/dev/ecpool1x", POLICY_MATCH_NONE},
		{"/dev/ecpool0", "/dev/ecpool", POLICY_MATCH_NONE},
		{"/dev/ecpool", "/dev/ecpoo", POLICY_MATCH_NONE},
		{"*", "/dev/x", POLICY_MATCH_PATTERN},
		{"/dev/*", "/dev/x", POLICY_MATCH_PATTERN},
		{"/dev/*", "/dev/", POLICY_MATCH_PATTERN},
		{"/dev/*x", "/dev/xyx", POLICY_MATCH_PATTERN},
		{"/dev/*x", "/dev/xy", POLICY_MATCH_NONE},
		{"/d*/*a*b", "/dev/aab", POLICY_MATCH_PATTERN},
		{"/dev/ec*", "/dev/ec", POLICY_MATCH_PATTERN},
		{"/dev/ec*0", "/dev/ec1", POLICY_MATCH_NONE},
		{"/dev/ec*", "/dev/e", POLICY_MATCH_NONE},
	};

	for (size_t i = 0; i < ARRAY_LEN(c); i++)
		assert_int_equal(policy_path_match(c[i].row, c[i].dev), c[i].m);
}

static void exact_beats_digits_beats_pattern_then_the_longest_wins(void **state)
{
	/* in rising order of fit to /dev/ecpool12; flags alternate so that each step is seen */
	static const char *const paths[] = {
		"*", "/dev/*", "/dev/ecpool1*", "/dev/ecpool", "/dev/ecpool1", "/dev/ecpool12"};

	for (size_t n = 1; n <= ARRAY_LEN(paths); n++) {
		struct world w;

		device(world_of(&w, POLICY_MODE_FLAG), "/dev/ecpool12", NULL);
		for (size_t i = n; i-- > 0;)
			row(&w, NULL, paths[i], i % 2 == 0);
		assert_int_equal(outcome_of(&w, "/dev/ecpool12"), n % 2 ? P : N);
	}
}

static void equally_good_patterns_protect_whatever_their_order(void **state)
{
	for (int order = 0; order < 2; order++) {
		struct world w;

		device(world_of(&w, POLICY_MODE_FLAG), "/dev/aa", NULL);
		row(&w, NULL, "/dev/a*", order == 0);
		row(&w, NULL, "/dev/*a", order == 1);
		assert_int_equal(outcome_of(&w, "/dev/aa"), P);
	}
}

static void duplicate_and_contradictory_rows_are_refused(void **state)
{
	struct world w;

	world_of(&w, POLICY_MODE_AUTO);
	row(&w, "block", "/dev/a", true);
	row(&w, "object", "/dev/a", false);
	row(&w, "block", "/dev/a", false);
	refused(&w, -EEXIST, "table 204 row 3 (vm vm)", "ec");
	assert_non_null(strstr(w.e.reason, "contradicts row 1"));
	w.rows[2].ec = true;
	refused(&w, -EEXIST, "table 204 row 3 (vm vm)", "ec");
	assert_non_null(strstr(w.e.reason, "duplicate of row 1"));
	w.rows[2].vm = 9;
	refused(&w, -ENOENT, "table 204 row 3", "vm");
	w.rows[2].node = 2; /* another node's VM 1 may say what it likes */
	w.rows[2].vm = 1;
	assert_int_equal(policy_check(&w.spec, NULL), 0);
}

static void rows_for_the_whole_vm_are_refused_outside_flag_mode(void **state)
{
	struct world w;

	world_of(&w, POLICY_MODE_AUTO);
	row(&w, "block", NULL, true);
	row(&w, NULL, NULL, true);
	refused(&w, -EINVAL, "table 204 row 2 (vm vm)", "method, path");
	w.vm[0].mode = POLICY_MODE_FLAG;
	assert_int_equal(policy_check(&w.spec, NULL), 0);
	w.vm[0].mode = POLICY_MODE_PATH;
	refused(&w, -EINVAL, "table 204 row 2 (vm vm)", "method, path");
}

static void unknown_names_are_refused_with_what_is_allowed(void **state)
{
	struct world w;

	world_of(&w, POLICY_MODE_AUTO)->vm[0].data_flash = "f9";
	refused(&w, -ENOENT, "table 203 row 1 (vm vm)", "data_flash");
	assert_non_null(strstr(w.e.reason, "f0, f1"));
	world_of(&w, POLICY_MODE_AUTO)->vm[1].inter_flash = "f1"; /* another node's */
	refused(&w, -ENOENT, "table 203 row 2 (vm vm)", "intermediate_flash");
	row(world_of(&w, POLICY_MODE_AUTO), "tape", NULL, true);
	refused(&w, -ENOENT, "table 204 row 1 (vm vm)", "method");
	assert_non_null(strstr(w.e.reason, "object, block, filesystem"));
	w.spec.methods = (const char *const[]){"tape"};
	w.spec.nmethods = 1;
	assert_int_equal(policy_check(&w.spec, NULL), 0);
	device(world_of(&w, POLICY_MODE_AUTO), "/dev/a", NULL);
	w.devices[0].vm = 7;
	refused(&w, -ENOENT, "device row 1", "vm");
}

static void vms_and_devices_must_be_unique(void **state)
{
	struct world w;

	world_of(&w, POLICY_MODE_AUTO)->vm[1] = w.vm[0];
	refused(&w, -EEXIST, "table 203 row 2 (vm vm)", "name");
	w.vm[1].name = "other";
	refused(&w, -EEXIST, "table 203 row 2 (vm other)", "vm");
	world_of(&w, POLICY_MODE_AUTO);
	device(&w, "/dev/a", NULL);
	device(&w, "/dev/a", "object");
	refused(&w, -EEXIST, "device row 2", "path");
}

static void values_out_of_range_are_refused(void **state)
{
	static const char *const bad_paths[] = {
		"", "dev", "/", "/a b", "/a*", "/\"", "/\x7f", "/\xc3"};
	char longest[POLICY_PATH_SIZE + 1];
	struct world w;

	for (size_t i = 0; i < ARRAY_LEN(bad_paths); i++) {
		device(world_of(&w, POLICY_MODE_AUTO), bad_paths[i], NULL);
		refused(&w, -EINVAL, "device row 1", "path");
		for (const char *c = w.e.reason; *c; c++)
			assert_in_range(*c, ' ', '~');
	}
	memset(longest, 'x', sizeof(longest));
	longest[0] = '/';
	longest[sizeof(longest) - 1] = '\0';
	device(world_of(&w, POLICY_MODE_AUTO), longest, NULL);
	refused(&w, -EINVAL, "device row 1", "path");
	row(world_of(&w, POLICY_MODE_AUTO), NULL, longest, true);
	refused(&w, -EINVAL, "table 204 row 1 (vm vm)", "path");
	longest[POLICY_PATH_SIZE - 1] = '\0';
	device(world_of(&w, POLICY_MODE_AUTO), longest, NULL);
	row(&w, NULL, longest, true);
	assert_int_equal(outcome_of(&w, longest), P);

	row(world_of(&w, POLICY_MODE_AUTO), NULL, "dev", true);
	refused(&w, -EINVAL, "table 204 row 1 (vm vm)", "path");
	world_of(&w, POLICY_MODE_AUTO)->vm[0].name = "-x";
	refused(&w, -EINVAL, "table 203 row 1", "name");
	world_of(&w, 17);
	refused(&w, -EINVAL, "table 203 row 1 (vm vm)", "mode");
	world_of(&w, POLICY_MODE_AUTO)->vm[0].inter_flash = "f0";
	refused(&w, -EINVAL, "table 203 row 1 (vm vm)", "intermediate_flash");
	world_of(&w, POLICY_MODE_AUTO)->vm[0].guest_addr = UINT64_MAX - 5;
	refused(&w, -EINVAL, "table 203 row 1 (vm vm)", "mem_bytes");
	row(world_of(&w, POLICY_MODE_AUTO), NULL, NULL, true);
	w.rows[0].host_addr = 0x7000;
	assert_int_equal(policy_check(&w.spec, NULL), 0);
	w.rows[0].host_addr = 0x7001;
	refused(&w, -EINVAL, "table 204 row 1 (vm vm)", "host_addr");
}

static void areas_that_the_outcome_needs_must_be_there(void **state)
{
	struct world w;

	device(world_of(&w, POLICY_MODE_AUTO), "/dev/a", NULL);
	w.vm[0].data_flash = NULL;
	refused(&w, -EINVAL, "table 203 row 1 (vm vm)", "data_flash");
	device(world_of(&w, POLICY_MODE_AUTO), "/dev/a", NULL);
	w.vm[0].inter_flash = "";
	row(&w, "block", NULL, true);
	assert_int_equal(policy_check(&w.spec, NULL), 0);
	w.rows[0].ec = false;
	refused(&w, -EINVAL, "table 203 row 1 (vm vm)", "intermediate_flash");
}

static void too_much_is_refused_before_anything_is_read(void **state)
{
	struct world w;

	world_of(&w, POLICY_MODE_AUTO)->spec.nvms = POLICY_VMS_MAX + 1;
	refused(&w, -E2BIG, "table 203", "");
	world_of(&w, POLICY_MODE_AUTO)->spec.nrows = SIZE_MAX;
	refused(&w, -E2BIG, "table 204", "");
	world_of(&w, POLICY_MODE_AUTO)->spec.ndevices = SIZE_MAX;
	refused(&w, -E2BIG, "devices", "");
}

static void one_vm_has_a_bounded_number_of_devices_and_rows(void **state)
{
	static struct policy_device_spec devices[POLICY_VM_DEVICES_MAX + 1];
	static struct policy_row_spec rows[POLICY_VM_ROWS_MAX + 1];
	static char names[POLICY_VM_DEVICES_MAX + 1][16];
	struct world w;

	for (int i = 0; i <= POLICY_VM_DEVICES_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "/d%dx", i);
		devices[i] = (struct policy_device_spec){.node = 1, .vm = 1, .path = names[i]};
		rows[i] = (struct policy_row_spec){
			.node = 1, .vm = 1, .path = names[i], .ec = true};
	}
	world_of(&w, POLICY_MODE_AUTO)->spec.devices = devices;
	w.spec.rows = rows;
	w.spec.ndevices = POLICY_VM_DEVICES_MAX;
	w.spec.nrows = POLICY_VM_ROWS_MAX;
	assert_int_equal(outcome_of(&w, "/d255x"), P);
	w.spec.ndevices++;
	refused(&w, -E2BIG, "device row 257", "vm");
	w.spec.ndevices--;
	w.spec.nrows++;
	refused(&w, -E2BIG, "table 204 row 257 (vm vm)", "vm");
}

static void guest_addresses_are_translated_within_the_vms_memory_only(void **state)
{
	struct policy_table *t;
	const struct policy_vm *vm;
	struct world w;
	uint64_t a;

	assert_int_equal(policy_table_open(&world_of(&w, 0)->spec, &t, NULL), 0);
	vm = policy_table_vm_by_number(t, 1, 1);
	assert_int_equal(policy_vm_translate(vm, 0x1000, 0x2000, &a), 0);
	assert_int_equal(a, 0x7000);
	assert_int_equal(policy_vm_translate(vm, 0x2fff, 1, &a), 0);
	assert_int_equal(a, 0x8fff);
	assert_int_equal(policy_vm_translate(vm, 0x2fff, 2, &a), -EFAULT);
	assert_int_equal(policy_vm_translate(vm, 0xfff, 1, &a), -EFAULT);
	assert_int_equal(policy_vm_translate(vm, 0x1001, UINT64_MAX, &a), -EFAULT);
	assert_null(policy_table_vm(t, 1, "no"));
	assert_null(policy_table_device(t, 1, "vm", "/no"));
	policy_table_close(t);
}

static struct policy_explanation *explain(
	struct world *w, struct policy_table **t, const char *path, enum policy_op op)
{
	struct policy_explanation *x;

	assert_int_equal(policy_table_open(&w->spec, t, &w->e), 0);
	assert_int_equal(policy_explain(*t, policy_table_device(*t, 1, "vm", path), op, &x), 0);
	return x;
}

static void an_explanation_names_mode_rows_steps_and_outcome(void **state)
{
	struct policy_explanation *x;
	struct policy_table *t;
	struct world w;

	device(world_of(&w, POLICY_MODE_AUTO), "/dev/normal0", "object");
	row(&w, "object", NULL, true);
	row(&w, "block", NULL, false);
	row(&w, NULL, "/dev/norm*", true);
	row(&w, NULL, "/dev/normal", false);
	x = explain(&w, &t, "/dev/normal0", POLICY_OP_WRITE);
	assert_int_equal(x->version, 3);
	assert_int_equal(x->outcome, POLICY_PLAIN);
	assert_int_equal(x->vm->mode, POLICY_MODE_BOTH);
	assert_string_equal(x->mode_why, "default: the rows of vm vm name methods and paths");
	assert_string_equal(x->method_why, "own method of device /dev/normal0");
	assert_int_equal(x->nrows, 4);
	assert_true(x->rows[0].matched && !x->rows[0].decisive);
	assert_false(x->rows[1].matched);
	assert_string_equal(x->rows[1].why, "method block is not object");
	assert_false(x->rows[2].matched);
	assert_string_equal(x->rows[2].why, "path matches (pattern), but row 4 fits better");
	assert_true(x->rows[3].decisive);
	assert_string_equal(x->rows[3].why, "path matches: name followed by digits");
	assert_int_equal(x->nsteps, 4);
	assert_int_equal(x->steps[0].figure, 0);
	assert_int_equal(x->steps[3].figure, 12);
	assert_string_equal(x->steps[3].text, "/dev/normal0 is a non-EC path (row 4): plain");
	assert_string_equal(x->result, "plain: data area on flash f0, no EC");
	free(x);
	policy_table_close(t);

	x = explain(&w, &t, "/dev/normal0", POLICY_OP_READ);
	assert_int_equal(x->nrows, 0);
	assert_non_null(strstr(x->result, "newest data from: data area on flash f0"));
	free(x);
	policy_table_close(t);
}

struct seen {
	char text[256];
};

static void note_change(void *arg, const struct policy_change *c)
{
	struct seen *s = arg;
	size_t n = strlen(s->text);

	snprintf(s->text + n, sizeof(s->text) - n, "%u %s %s %s>%s;", c->node, c->vm, c->path,
		c->before ? policy_outcome_name(c->before->outcome) : "-",
		c->after ? policy_outcome_name(c->after->outcome) : "-");
}

static void a_diff_lists_every_device_whose_outcome_changes(void **state)
{
	struct policy_table *a, *b;
	struct seen s = {""};
	struct world w;

	world_of(&w, POLICY_MODE_AUTO);
	device(&w, "/dev/a", NULL);
	device(&w, "/dev/b", NULL);
	device(&w, "/dev/c", NULL);
	row(&w, NULL, "/dev/a", true);
	assert_int_equal(policy_table_open(&w.spec, &a, NULL), 0);
	w.devices[2].path = "/dev/d";
	w.rows[0].path = "/dev/b";
	assert_int_equal(policy_table_open(&w.spec, &b, NULL), 0);
	assert_int_equal(policy_diff(a, b, note_change, &s), 4);
	assert_string_equal(s.text,
		"1 vm /dev/a protect>intermediate;1 vm /dev/b intermediate>protect;"
		"1 vm /dev/c intermediate>-;1 vm /dev/d ->intermediate;");
	assert_int_equal(policy_diff(a, a, NULL, NULL), 0);
	assert_int_equal(policy_diff(NULL, a, NULL, NULL), 3);
	policy_table_close(a);
	policy_table_close(b);
}

static void names_of_modes_are_read_back(void **state)
{
	enum policy_mode m;

	for (int i = 0; i < POLICY_MODES; i++) {
		assert_int_equal(policy_mode_parse(policy_mode_name(i), &m), 0);
		assert_int_equal(m, i);
	}
	assert_int_equal(policy_mode_parse("both", &m), 0);
	assert_int_equal(m, POLICY_MODE_BOTH);
	assert_int_equal(policy_mode_parse("", &m), -EINVAL);
	assert_string_equal(policy_outcome_name(99), "unknown");
}

static void a_row_tells_how_many_devices_it_covers(void **state)
{
	struct policy_table *t;
	struct world w;

	world_of(&w, POLICY_MODE_FLAG);
	device(&w, "/dev/a0", "object");
	device(&w, "/dev/a1", NULL);
	row(&w, NULL, "/dev/a", true);
	row(&w, "object", "/dev/a", true);
	row(&w, NULL, "/dev/zz", true);
	row(&w, NULL, NULL, true);
	assert_int_equal(policy_table_open(&w.spec, &t, NULL), 0);
	for (size_t i = 0; i < t->nrows; i++)
		assert_int_equal(policy_row_covers(&t->vms[0], &t->vms[0].rows[i]),
			((size_t[]){2, 1, 0, 2})[i]);
	policy_table_close(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_vm_without_rows_is_plain_in_every_mode),
		cmocka_unit_test(flag_mode_lets_the_most_specific_row_decide),
		cmocka_unit_test(flag_mode_without_a_match_is_plain),
		cmocka_unit_test(
			method_mode_protects_ec_methods_and_sends_the_rest_to_the_intermediate_area),
		cmocka_unit_test(method_mode_ignores_rows_that_name_a_path),
		cmocka_unit_test(
			path_mode_protects_ec_paths_and_sends_the_rest_to_the_intermediate_area),
		cmocka_unit_test(method_and_path_mode_follows_figure_12),
		cmocka_unit_test(the_mode_follows_from_the_columns_the_rows_use),
		cmocka_unit_test(paths_match_exactly_by_digits_or_by_pattern),
		cmocka_unit_test(exact_beats_digits_beats_pattern_then_the_longest_wins),
		cmocka_unit_test(equally_good_patterns_protect_whatever_their_order),
		cmocka_unit_test(duplicate_and_contradictory_rows_are_refused),
		cmocka_unit_test(rows_for_the_whole_vm_are_refused_outside_flag_mode),
		cmocka_unit_test(unknown_names_are_refused_with_what_is_allowed),
		cmocka_unit_test(vms_and_devices_must_be_unique),
		cmocka_unit_test(values_out_of_range_are_refused),
		cmocka_unit_test(areas_that_the_outcome_needs_must_be_there),
		cmocka_unit_test(too_much_is_refused_before_anything_is_read),
		cmocka_unit_test(one_vm_has_a_bounded_number_of_devices_and_rows),
		cmocka_unit_test(guest_addresses_are_translated_within_the_vms_memory_only),
		cmocka_unit_test(an_explanation_names_mode_rows_steps_and_outcome),
		cmocka_unit_test(a_diff_lists_every_device_whose_outcome_changes),
		cmocka_unit_test(names_of_modes_are_read_back),
		cmocka_unit_test(a_row_tells_how_many_devices_it_covers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
