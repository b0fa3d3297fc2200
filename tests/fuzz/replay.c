/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Stands in for libFuzzer: runs a target on files, and on N seeded mutations of each.
 *	NAME [--mutate N] [--seed S] FILE-OR-FOLDER...
 */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

#define INPUT_MAX (1u << 20)

static uint64_t state = 1;
static unsigned long mutations, inputs, mutants;
static uint8_t original[INPUT_MAX], mutant[INPUT_MAX];

static uint64_t rnd(void)
{
	uint64_t z = (state += 0x9e3779b97f4a7c15ULL);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static size_t mutate_once(uint8_t *p, size_t n)
{
	static const uint8_t odd[] = {0, 1, 0x7f, 0x80, 0xff, 0x40, 0x10};
	size_t at = n ? rnd() % n : 0, len;

	switch (n ? rnd() % 6 : 5) {
	case 0:
		p[at] ^= (uint8_t)(1u << rnd() % 8);
		return n;
	case 1:
		p[at] = odd[rnd() % sizeof(odd)];
		return n;
	case 2:
		p[at] = (uint8_t)rnd();
		return n;
	case 3: /* cut */
		return rnd() % 4 ? n : at;
	case 4: /* repeat a piece */
		len = rnd() % (n - at) + 1;
		if (n + len > INPUT_MAX)
			return n;
		memmove(p + at + len, p + at, n - at);
		return n + len;
	default: /* grow */
		for (len = rnd() % 16; len && n < INPUT_MAX; len--)
			p[n++] = (uint8_t)rnd();
		return n;
	}
}

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	size_t n;

	if (!f) {
		fprintf(stderr, "%s: %s\n", path, strerror(errno));
		return -errno;
	}
	n = fread(original, 1, sizeof(original), f);
	fclose(f);
	LLVMFuzzerTestOneInput(original, n);
	inputs++;
	for (unsigned long i = 0; i < mutations; i++) {
		size_t m = n;

		memcpy(mutant, original, n);
		for (uint64_t k = 1 + rnd() % 8; k; k--)
			m = mutate_once(mutant, m);
		LLVMFuzzerTestOneInput(mutant, m);
		mutants++;
	}
	return 0;
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int run_path(const char *path)
{
	struct dirent **list;
	struct stat st;
	char sub[PATH_MAX];
	int n, rc = 0;

	if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode))
		return run_file(path);
	n = scandir(path, &list, NULL, by_name);
	if (n < 0)
		return -errno;
	for (int i = 0; i < n; i++) {
		if (list[i]->d_name[0] != '.' && rc == 0) {
			snprintf(sub, sizeof(sub), "%s/%s", path, list[i]->d_name);
			rc = run_path(sub);
		}
		free(list[i]);
	}
	free(list);
	return rc;
}

int main(int argc, char **argv)
{
	const char *name = strrchr(argv[0], '/');

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--mutate") && i + 1 < argc)
			mutations = strtoul(argv[++i], NULL, 10);
		else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
			state = strtoull(argv[++i], NULL, 10);
		else if (run_path(argv[i]) < 0)
			return 1;
	}
	printf("%s: %lu inputs and %lu mutations of them\n", name ? name + 1 : argv[0], inputs,
		mutants);
	return inputs ? 0 : 1;
}
