/* A line of the log as a JSON object (RFC 8259), for log_format = json. */
#ifndef BREAKERD_LOG_JSON_H
#define BREAKERD_LOG_JSON_H

#include <stddef.h>

/* The longest object. With a prefix for the journal and a newline it is within PIPE_BUF. */
#define LOG_JSON_MAX 4088

/*
 * Writes an object with time, level and event to out, with a NUL. After these three members come
 * the pairs of `words`, which is "token key=value key="quoted text" ..." as in log.h: an unquoted
 * number as a number, all else as a string. Words that belong to no key become the member "text". A
 * key that is one of the three gets a '_' at its end. What does not fit is cut, and then the last
 * member is "cut":true. The object is always whole, and valid UTF-8: other bytes become U+FFFD.
 * Returns the length, at most LOG_JSON_MAX.
 */
size_t log_json(char out[LOG_JSON_MAX + 1], const char *time, const char *level, const char *words);

#endif
