/*
 * report_listen: reports that come as lines of access logs, one a datagram (proto/report_line.h).
 * They are not answered. A turn of the loop reads a bounded number. While a quarter of
 * max_in_flight reports wait for the store none is read, and what the sockets cannot hold is lost.
 */
#ifndef BREAKERD_REPORT_LINES_H
#define BREAKERD_REPORT_LINES_H

#include <stdbool.h>

struct api;
struct event_base;
struct report_lines;

/* NULL when out of memory. The api must outlive it. */
struct report_lines *report_lines_new(struct event_base *base, struct api *api);

/* Reads from fd, a datagram socket. 0: the socket is now the callee's; -1 when out of memory. */
int report_lines_listen(struct report_lines *lines, int fd);

/* For a stop: reads what the sockets hold, and closes them. */
void report_lines_finish(struct report_lines *lines);

/* True while reports wait for the store. */
bool report_lines_busy(const struct report_lines *lines);

/* Cancels reports that wait. NULL is allowed. */
void report_lines_free(struct report_lines *lines);

#endif
