/* SPDX-License-Identifier: BSD-3-Clause */
#include "common/base/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *component = "parapet";
static __thread const char *thread; /* NULL: it has no name */
static enum log_level max_level = LOG_LEVEL_INFO;

void log_init(const char *name, enum log_level max)
{
	component = name;
	max_level = max;
}

void log_thread(const char *name)
{
	thread = name;
}

void log_line(enum log_level level, const char *fmt, ...)
{
	static const char *const names[] = {"error", "warn", "info", "debug"};
	char line[1024];
	struct timespec ts;
	struct tm tm;
	va_list ap;
	size_t n;
	int len;

	if (level > max_level)
		return;
	clock_gettime(CLOCK_REALTIME, &ts);
	gmtime_r(&ts.tv_sec, &tm);
	n = strftime(line, sizeof(line), "%FT%T", &tm);
	n += snprintf(line + n, sizeof(line) - n, ".%03ldZ %s %s%s%s: ", ts.tv_nsec / 1000000,
		names[level], component, thread ? "/" : "", thread ? thread : "");
	va_start(ap, fmt);
	len = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
	va_end(ap);
	if (len > 0)
		n += (size_t)len < sizeof(line) - n - 1 ? (size_t)len : sizeof(line) - n - 2;
	line[n++] = '\n';
	if (write(STDERR_FILENO, line, n) < 0)
		return; /* nowhere left to complain */
}
