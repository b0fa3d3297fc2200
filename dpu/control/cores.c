/* SPDX-License-Identifier: BSD-3-Clause */
/* Which CPU a shard runs on. */
#include "dpu/control/shards_priv.h"

#include "common/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int refuse(const char *cores, const char *why, struct err *e)
{
	return err_set(e, -EINVAL, "option --cores", NULL,
		"%.64s: %s; allowed: CPUs this process may use, for example 2,3 or 2-5", cores,
		why);
}

/* A number at *p, which moves behind it; -1: none. */
static int take_cpu(const char **p)
{
	char *end;
	unsigned long v;

	if (**p < '0' || **p > '9')
		return -1;
	v = strtoul(*p, &end, 10);
	*p = end;
	return v < CPU_SETSIZE ? (int)v : CPU_SETSIZE;
}

/* "2" or "2-5" at *p. */
static int take_range(struct shards *s, const char **p, struct err *e)
{
	int first = take_cpu(p), last = first;

	if (first >= 0 && **p == '-') {
		++*p;
		last = take_cpu(p);
	}
	if (first < 0 || last < first)
		return refuse(s->cfg.cores, "not a list of CPUs", e);
	for (int cpu = first; cpu <= last; cpu++) {
		if (cpu == CPU_SETSIZE || !CPU_ISSET(cpu, &s->cpus))
			return refuse(s->cfg.cores, "there is no such CPU for it", e);
		for (unsigned int i = 0; i < s->ncores; i++)
			if (s->cores[i] == cpu)
				return refuse(s->cfg.cores, "a CPU is named twice", e);
		s->cores[s->ncores++] = cpu;
	}
	return 0;
}

int cores_take(struct shards *s, struct err *e)
{
	const char *p = s->cfg.cores;
	int rc;

	if (s->cfg.cpus)
		s->cpus = *s->cfg.cpus;
	else if (sched_getaffinity(0, sizeof(s->cpus), &s->cpus) < 0)
		return err_set(
			e, -errno, "shard", NULL, "which CPUs there are: %s", strerror(errno));
	while (p) {
		rc = take_range(s, &p, e);
		if (rc < 0)
			return rc;
		if (!*p)
			break;
		if (*p++ != ',')
			return refuse(s->cfg.cores, "not a list of CPUs", e);
	}
	return 0;
}

int cores_pin(struct member *m, struct err *e)
{
	struct shards *s = m->s;
	cpu_set_t one;
	int rc;

	m->cpu = s->ncores ? s->cores[m->index % s->ncores] : -1;
	if (m->cpu < 0 && m->index == 0)
		return 0; /* as it came */
	CPU_ZERO(&one);
	if (m->cpu >= 0)
		CPU_SET(m->cpu, &one);
	rc = pthread_setaffinity_np(pthread_self(), sizeof(one), m->cpu >= 0 ? &one : &s->cpus);
	return rc ? err_set(e, -rc, "shard", NULL, "CPU %d: %s", m->cpu, strerror(rc)) : 0;
}

int shards_cpu(const struct shards *s, unsigned int shard)
{
	return s->members[shard].cpu;
}

void shards_leave_cores(const struct shards *s)
{
	cpu_set_t left = s->cpus;
	int rc;

	for (unsigned int i = 0; i < s->ncores; i++)
		CPU_CLR(s->cores[i], &left);
	if (!CPU_COUNT(&left)) /* they have all: it takes turns with them */
		left = s->cpus;
	rc = pthread_setaffinity_np(pthread_self(), sizeof(left), &left);
	if (rc)
		log_warn("a thread stays where the shards are: %s", strerror(rc));
}
