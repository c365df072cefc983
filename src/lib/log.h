/*
 * The one log. Every line goes to standard error as "PROGRAM: text"; when the
 * terminal is in raw mode the line ends in CR LF. Thread-safe.
 *
 * Rule: log once, at the place that knows what the user asked for.
 */
#pragma once

#include <stdbool.h>

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

void log_init(const char *program);
void log_set_level(enum log_level level);
/* The terminal is (not) in raw mode: end lines in CR LF. */
void log_set_raw(bool raw);

__attribute__((format(printf, 2, 3))) void log_at(
    enum log_level level, const char *fmt, ...);

#define log_error(...) log_at(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_at(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
