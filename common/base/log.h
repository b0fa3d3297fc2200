/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log lines to stderr: "time level component: text". Not for the data path, which counts instead.
 * Thread: any; a line is written with one call.
 */
#ifndef COMMON_BASE_LOG_H
#define COMMON_BASE_LOG_H

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* Sets the component's name (a literal that stays valid) and the most talkative level shown. */
void log_init(const char *component, enum log_level max);
/* Lines of the calling thread say "component/name" from now on (a string that stays valid). */
void log_thread(const char *name);
void log_line(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
