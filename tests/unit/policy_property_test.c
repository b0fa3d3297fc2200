/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random tables against an oracle written from the rules alone: it scores every row with one number per
 * request, matches paths with regular expressions and answers from the highest scores. PARAPET_SEED
 * repeats a run; every seed is printed.
 */
#include "common/base/util.h"
#include "common/policy/policy.h"

#include <errno.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define TABLES 20000

static const char *const methods[] = {"object", "block", "filesystem"};
static const char *const row_paths[] = {"/dev/ec", "/dev/ec1", "/dev/ec12", "/dev/e*", "/dev/*c1",
	"*", "/dev/n", "/dev/n0", "/*/n*", "/dev/ec*2", "/d*/e*1*", "/dev/*"};
static const char *const device_paths[] = {
	"/dev/ec", "/dev/ec1", "/dev/ec12", "/dev/ec7x", "/dev/n0", "/dev/n1", "/srv/n"};

/* ---- the oracle ------------------------------------------------------------------------------------ */

static regex_t exact_re[ARRAY_LEN(row_paths)], digits_re[ARRAY_LEN(row_paths)];

static int oracle_setup(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(row_paths); i++) {
		char any[128] = "", re[160];
		bool star = strchr(row_paths[i], '*');
		size_t n = 0;

		for (const char *c = row_paths[i]; *c; c++)
			n += (size_t)snprintf(
				any + n, sizeof(any) - n, *c == '*' ? ".*" : "%c", *c);
		snprintf(re, sizeof(re), "^%s$", any);
		assert_int_equal(regcomp(&exact_re[i], re, REG_EXTENDED), 0);
		snprintf(re, sizeof(re), "^%s[0-9]+$", star ? "$" : any);
		assert_int_equal(regcomp(&digits_re[i], re, REG_EXTENDED), 0);
	}
	return 0;
}

static int oracle_teardown(void **state)
{
	for (size_t i = 0; i < ARRAY_LEN(row_paths); i++) {
		regfree(&exact_re[i]);
		regfree(&digits_re[i]);
	}
	return 0;
}

/* 0: no match; else larger = better. Thousands: the class of match, then the length, then the flag. */
static int path_score(const struct policy_row_spec *r, const char *dev)
{
	int len = (int)strlen(r->path) * 2 + r->ec;
	size_t i = 0;

	while (strcmp(row_paths[i], r->path) != 0)
		i++;
	if (regexec(&digits_re[i], dev, 0, NULL, 0) == 0)
		return 2000 + len;
	if (regexec(&exact_re[i], dev, 0, NULL, 0) == 0)
		return (strchr(r->path, '*') ? 1000 : 3000) + len;
	return 0;
}

enum { NOT_LISTED = -1 };

/* The flag of the best row that has a method / a path or not as asked. */
static int flag_of(const struct policy_spec *s, bool with_method, bool with_path,
	const char *method, const char *path)
{
	int best = 0, flag = NOT_LISTED;

	for (size_t i = 0; i < s->nrows; i++) {
		const struct policy_row_spec *r = &s->rows[i];
		int score = 1;

		if (!r->method == with_method || !r->path == with_path)
			continue;
		if (with_method && strcmp(r->method, method))
			continue;
		if (with_path)
			score = path_score(r, path);
		if (score > best) {
			best = score;
			flag = r->ec;
		}
	}
	return flag;
}

static enum policy_outcome oracle(const struct policy_spec *s, const char *method, const char *path)
{
	int pair = flag_of(s, true, true, method, path);
	int by_path = flag_of(s, false, true, method, path);
	int by_method = flag_of(s, true, false, method, path);
	int by_vm = flag_of(s, false, false, method, path);
	bool methods_used = false, paths_used = false;
	enum policy_mode mode = s->vms[0].mode;

	if (s->nrows == 0)
		return POLICY_PLAIN;
	for (size_t i = 0; i < s->nrows; i++) {
		methods_used = methods_used || s->rows[i].method;
		paths_used = paths_used || s->rows[i].path;
	}
	if (mode == POLICY_MODE_AUTO)
		mode = (enum policy_mode[2][2]){{POLICY_MODE_FLAG, POLICY_MODE_PATH},
			{POLICY_MODE_METHOD, POLICY_MODE_BOTH}}[methods_used][paths_used];
	if (mode == POLICY_MODE_METHOD)
		return by_method == 1 ? POLICY_PROTECT : POLICY_INTERMEDIATE;
	if (mode == POLICY_MODE_PATH)
		return by_path == 1 ? POLICY_PROTECT : POLICY_INTERMEDIATE;
	if (mode == POLICY_MODE_FLAG) {
		int order[] = {pair, by_path, by_method, by_vm};

		for (int i = 0; i < 4; i++)
			if (order[i] != NOT_LISTED)
				return order[i] ? POLICY_PROTECT : POLICY_PLAIN;
		return POLICY_PLAIN;
	}
	if (pair != NOT_LISTED)
		return pair ? POLICY_PROTECT : POLICY_PLAIN;
	if (by_method == 1)
		return by_path == 0 ? POLICY_PLAIN : POLICY_PROTECT;
	return by_path == 1 ? POLICY_PROTECT : POLICY_INTERMEDIATE;
}

/* Why such a table has to be refused: -EEXIST, -EINVAL, or 0. Duplicates are looked for first. */
static int oracle_refusal(const struct policy_spec *s)
{
	bool vm_wide = false, columns = false;

	for (size_t i = 0; i < s->nrows; i++) {
		const struct policy_row_spec *a = &s->rows[i];

		for (size_t j = i + 1; j < s->nrows; j++)
			if (a->method == s->rows[j].method && a->path == s->rows[j].path)
				return -EEXIST;
		vm_wide = vm_wide || (!a->method && !a->path);
		columns = columns || a->method || a->path;
	}
	if (!vm_wide || s->vms[0].mode == POLICY_MODE_FLAG)
		return 0;
	return s->vms[0].mode != POLICY_MODE_AUTO || columns ? -EINVAL : 0;
}

/* ---- random tables ---------------------------------------------------------------------------------- */

static uint64_t rng;

static unsigned int pick(unsigned int n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (unsigned int)((rng >> 20) % n);
}

struct table_in {
	struct policy_vm_spec vm;
	struct policy_device_spec devices[ARRAY_LEN(device_paths)];
	struct policy_row_spec rows[12];
	struct policy_spec spec;
};

static void random_table(struct table_in *t)
{
	static const struct policy_flash_spec flashes[] = {{1, "f0"}, {1, "f1"}};
	unsigned int vm_wide = pick(4), kinds = 1 + pick(7);

	*t = (struct table_in){
		.vm = {.node = 1, .vm = 5, .name = "v", .data_flash = "f0", .inter_flash = "f1"}};
	t->vm.mode = pick(2) ? POLICY_MODE_AUTO : (enum policy_mode)pick(POLICY_MODES);
	t->vm.method = pick(3) ? methods[pick(3)] : NULL;
	t->spec = (struct policy_spec){.version = 1,
		.flashes = flashes,
		.nflashes = 2,
		.vms = &t->vm,
		.nvms = 1,
		.devices = t->devices,
		.ndevices = ARRAY_LEN(device_paths),
		.rows = t->rows,
		.nrows = pick(ARRAY_LEN(t->rows) + 1)};
	for (size_t i = 0; i < t->spec.ndevices; i++)
		t->devices[i] = (struct policy_device_spec){.node = 1,
			.vm = 5,
			.path = device_paths[i],
			.method = pick(2) ? methods[pick(3)] : NULL};
	for (size_t i = 0; i < t->spec.nrows; i++) {
		struct policy_row_spec *r = &t->rows[i];
		unsigned int kind;

		do
			kind = pick(3);
		while (!(kinds >> kind & 1));
		*r = (struct policy_row_spec){.node = 1, .vm = 5, .ec = pick(2)};
		if (kind != 1)
			r->method = methods[pick(3)];
		if (kind != 0)
			r->path = row_paths[pick(ARRAY_LEN(row_paths))];
		if (vm_wide == 0 && pick(8) == 0)
			r->method = r->path = NULL;
	}
}

static void check_explanation(
	const struct policy_table *t, const struct policy_device *d, enum policy_outcome want)
{
	struct policy_explanation *x;
	unsigned int decisive = 0;

	assert_int_equal(policy_explain(t, d, POLICY_OP_WRITE, &x), 0);
	assert_int_equal(x->outcome, want);
	assert_int_equal(
		strncmp(x->result, policy_outcome_name(want), strlen(policy_outcome_name(want))),
		0);
	for (size_t i = 0; i < x->nrows; i++) {
		assert_true(x->rows[i].why[0]);
		decisive += x->rows[i].decisive;
		if (x->rows[i].decisive) {
			assert_true(x->rows[i].matched);
			assert_int_equal(x->rows[i].row->ec, want == POLICY_PROTECT);
		}
	}
	assert_true(decisive <= 1);
	assert_true(decisive == 1 || want != POLICY_PROTECT);
	free(x);
}

static void decisions_agree_with_the_oracle(void **state)
{
	const char *env = getenv("PARAPET_SEED");
	uint64_t base = env ? strtoull(env, NULL, 0) : (uint64_t)time(NULL) * 1000003;
	unsigned int built = 0, refused[2] = {0}, outcomes[POLICY_OUTCOMES] = {0};

	print_message("# seed %llu (PARAPET_SEED), %d tables\n", (unsigned long long)base, TABLES);
	for (int n = 0; n < TABLES; n++) {
		struct table_in in;
		struct policy_table *t = NULL;
		struct err e = {0};
		int want;

		rng = (base + n) * 0x9e3779b97f4a7c15ull | 1;
		random_table(&in);
		want = oracle_refusal(&in.spec);
		if (policy_table_open(&in.spec, &t, &e) != want)
			fail_msg("table %d: got %d (%s), wanted %d", n, e.code, err_text(&e), want);
		if (want) {
			refused[want == -EINVAL]++;
			continue;
		}
		built++;
		for (size_t i = 0; i < in.spec.ndevices; i++) {
			const struct policy_device_spec *s = &in.devices[i];
			const struct policy_device *d = policy_table_device(t, 1, "v", s->path);
			const char *m = s->method      ? s->method
					: in.vm.method ? in.vm.method
						       : "block";
			enum policy_outcome o = oracle(&in.spec, m, s->path);

			if (policy_decide(d) != o)
				fail_msg("table %d, %s %s: got %s, wanted %s", n, m, s->path,
					policy_outcome_name(policy_decide(d)),
					policy_outcome_name(o));
			outcomes[o]++;
			if (n % 8 == 0)
				check_explanation(t, d, o);
		}
		policy_table_close(t);
	}
	print_message("# built %u, refused %u + %u; plain %u, intermediate %u, protect %u\n", built,
		refused[0], refused[1], outcomes[0], outcomes[1], outcomes[2]);
	/* a generator that no longer reaches a case must not go unseen */
	assert_true(built > TABLES / 4 && refused[0] > 100 && refused[1] > 20);
	for (int o = 0; o < POLICY_OUTCOMES; o++)
		assert_true(outcomes[o] > TABLES / 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			decisions_agree_with_the_oracle, oracle_setup, oracle_teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
