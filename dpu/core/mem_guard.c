/* SPDX-License-Identifier: BSD-3-Clause */
#include "dpu/core/mem_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/base/util.h"

/* Read by the signal's handler, which takes no lock: seq is odd while a slot changes. */
struct guard {
	_Atomic uint32_t seq;
	_Atomic uintptr_t base; /* 0: free */
	_Atomic size_t len;
	_Atomic bool broken;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of whoever changes slots */
static struct guard guards[MEM_GUARDS_MAX];
static _Atomic uint32_t nguards; /* slots that were ever used */
static _Atomic uint64_t hits;
static struct sigaction others; /* what was there before */
static __thread volatile sig_atomic_t thread_on, thread_hit;

/* ---- the signal ------------------------------------------------------------------------------------------------ */

/* The slot that holds `at`, and what it covers. */
static struct guard *guard_of(uintptr_t at, uintptr_t *base, size_t *len)
{
	uint32_t n = atomic_load(&nguards);

	for (uint32_t i = 0; i < n; i++) {
		struct guard *g = &guards[i];
		uint32_t seq = atomic_load(&g->seq);

		*base = atomic_load(&g->base);
		*len = atomic_load(&g->len);
		if (seq & 1 || atomic_load(&g->seq) != seq)
			continue; /* its memory is in nobody's hands: not this one */
		if (*base && at >= *base && at - *base < *len)
			return g;
	}
	return NULL;
}

/* MAP_NORESERVE: a VM's whole memory is not ours to set aside; what is touched of it is. */
static bool replace(uintptr_t base, size_t len)
{
	return mmap((void *)base, len, PROT_READ | PROT_WRITE,
		       MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1,
		       0) != MAP_FAILED;
}

/* The page at this address, of whatever size. */
static bool replace_page(uintptr_t at)
{
	const size_t sizes[] = {4096, 16384, 65536, 2u << 20, 32u << 20, 512u << 20, 1u << 30};

	for (size_t i = 0; i < ARRAY_LEN(sizes); i++)
		if (replace(at - at % sizes[i], sizes[i]))
			return true;
	return false;
}

static bool meet(uintptr_t at)
{
	uintptr_t base;
	size_t len;
	struct guard *g = guard_of(at, &base, &len);

	if (!g) {
		if (!thread_on || !replace_page(at))
			return false;
		thread_hit = 1;
		return true;
	}
	/* Another thread is at it: the access is tried again until it is done. */
	if (atomic_exchange(&g->broken, true))
		return true;
	if (!replace(base, len))
		return false;
	atomic_fetch_add(&hits, 1);
	return true;
}

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	/* Sent by somebody, or none of ours: others have it, here or at the access that is tried again. */
	if (info->si_code <= 0 || !meet((uintptr_t)info->si_addr)) {
		sigaction(sig, &others, NULL);
		if (info->si_code <= 0)
			raise(sig);
	}
	errno = saved;
}

static int install(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_RESTART}, now;

	/* A library may have had it in between. */
	if (sigaction(SIGBUS, &sa, &now) < 0)
		return -errno;
	if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != on_sigbus)
		others = now;
	return 0;
}

/* ---- guards ------------------------------------------------------------------------------------------------------ */

static void set(struct guard *g, uintptr_t base, size_t len)
{
	atomic_fetch_add(&g->seq, 1);
	atomic_store(&g->base, base);
	atomic_store(&g->len, len);
	atomic_store(&g->broken, false);
	atomic_fetch_add(&g->seq, 1);
}

/* The slot that begins there (0: a free one), under the lock. */
static struct guard *slot_at(uintptr_t base)
{
	uint32_t n = atomic_load(&nguards);

	for (uint32_t i = 0; i < n; i++)
		if (atomic_load(&guards[i].base) == base)
			return &guards[i];
	if (base || n == MEM_GUARDS_MAX)
		return NULL;
	atomic_store(&nguards, n + 1);
	return &guards[n];
}

int mem_guard_add(void *base, size_t len_bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct guard *g;
	int rc;

	if (!base || !len_bytes || (uintptr_t)base % page || len_bytes % page)
		return -EINVAL;
	pthread_mutex_lock(&lock);
	rc = install();
	if (rc == 0) {
		g = slot_at(0);
		if (g)
			set(g, (uintptr_t)base, len_bytes);
		else
			rc = -ENOSPC;
	}
	pthread_mutex_unlock(&lock);
	return rc;
}

bool mem_guard_del(void *base)
{
	bool broken = false;
	struct guard *g;

	pthread_mutex_lock(&lock);
	g = base ? slot_at((uintptr_t)base) : NULL;
	if (g) {
		broken = atomic_load(&g->broken);
		set(g, 0, 0);
	}
	pthread_mutex_unlock(&lock);
	return broken;
}

bool mem_guard_is_broken(const void *at)
{
	uintptr_t base;
	size_t len;
	struct guard *g = guard_of((uintptr_t)at, &base, &len);

	return g && atomic_load(&g->broken);
}

uint64_t mem_guard_hits(void)
{
	return atomic_load_explicit(&hits, memory_order_relaxed);
}

void mem_guard_thread_begin(void)
{
	pthread_mutex_lock(&lock);
	install();
	pthread_mutex_unlock(&lock);
	thread_hit = 0;
	thread_on = 1;
}

bool mem_guard_thread_end(void)
{
	thread_on = 0;
	return thread_hit;
}

/* Writes back what is there, in one step: it may be somebody's. */
static void touch(uintptr_t at)
{
	__atomic_fetch_or((uint8_t *)at, 0, __ATOMIC_RELAXED);
}

bool mem_guard_settle(const struct iovec *iov, size_t niov)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	bool broken = false;

	for (size_t i = 0; i < niov; i++) {
		uintptr_t at = (uintptr_t)iov[i].iov_base, end = at + iov[i].iov_len, base;
		size_t len;
		struct guard *g = iov[i].iov_len ? guard_of(at, &base, &len) : NULL;

		if (!g)
			continue;
		for (; at < end; at = at - at % page + page)
			touch(at);
		broken |= atomic_load(&g->broken);
	}
	return broken;
}
