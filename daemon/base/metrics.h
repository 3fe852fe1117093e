/*
 * What Prometheus sees. The tables here have the name, type and help of each metric without further
 * labels. Modules add to the plain fields; metrics_write makes the text. No label's values grow
 * with keys.
 *
 * Values of labels are numbers here. The module that owns a label says how many values there are
 * and what they are called (struct metrics_label), so that this file includes no such module.
 */
#ifndef BREAKERD_METRICS_H
#define BREAKERD_METRICS_H

#include "proto/circuit.h"

#include <stdbool.h>
#include <stdint.h>

struct evbuffer;

/* field, name (without "breakerd_"), help */
#define METRICS_COUNTERS(X)                                                                        \
	X(corrupt_entries, "corrupt_entries_total",                                                \
	  "Stored values found that were no sound snapshot.")                                      \
	X(evictions, "evictions_total",                                                            \
	  "Closed circuits dropped from the full embedded store to make room.")                    \
	X(expirations, "expirations_total",                                                        \
	  "Circuits of the embedded store whose time to live ended.")                              \
	X(overloaded, "store_overloaded_total",                                                    \
	  "Operations refused because max_in_flight were waiting.")                                \
	X(folds, "folds_total",                                                                    \
	  "Circuits whose operations recorded while Redis was away were folded into it.")          \
	X(folds_lost, "folds_lost_total",                                                          \
	  "Circuits whose operations recorded while Redis was away could not be folded into it.")  \
	X(folded_operations, "folded_operations_total",                                            \
	  "Operations recorded while Redis was away and folded into it.")                          \
	X(folded_operations_lost, "folded_operations_lost_total",                                  \
	  "Operations recorded while Redis was away that could not be folded into it.")            \
	X(operations_in_doubt, "operations_in_doubt_total",                                        \
	  "Operations answered from memory of which it is not known whether Redis did them.")      \
	X(redis_connects, "redis_connects_total", "Times the link to Redis became ready.")         \
	X(redis_disconnects, "redis_disconnects_total", "Times a ready link to Redis was lost.")   \
	X(redis_noscript, "redis_noscript_total",                                                  \
	  "Script calls sent again in full because Redis had forgotten the script.")               \
	X(cached_answers, "cached_answers_total",                                                  \
	  "Operations answered from memory, without asking Redis.")                                \
	X(reports_lost, "reports_lost_total",                                                      \
	  "Reports of success that were held back and did not surely reach Redis.")                \
	X(state_saves, "state_saves_total", "Times state_file was written.")                       \
	X(state_save_errors, "state_save_errors_total", "Times state_file could not be written.")  \
	X(http_connections_accepted, "http_connections_accepted_total", "Connections accepted.")   \
	X(http_connections_displaced, "http_connections_displaced_total",                          \
	  "Connections ended to make room for new ones.")                                          \
	X(log_lines_suppressed, "log_lines_suppressed_total",                                      \
	  "Log lines left out: too many of their kind, or stderr did not take them.")

/* Counters of the seconds in which a condition held. */
#define METRICS_STOPWATCHES(X)                                                                     \
	X(degraded_time, "store_degraded_seconds_total",                                           \
	  "Time in which the embedded store served because Redis was away.")

#define METRICS_GAUGES(X)                                                                          \
	X(store_up, "store_up", "1 if the store can be used, 0 while Redis is away.")              \
	X(store_degraded, "store_degraded",                                                        \
	  "1 while the embedded store serves because Redis is away, else 0.")                      \
	X(store_in_flight, "store_operations_in_flight", "Operations waiting for the store.")      \
	X(store_in_flight_limit, "store_operations_in_flight_limit", "The setting max_in_flight.") \
	X(circuits_limit, "circuits_limit", "The setting max_circuits, of the embedded store.")    \
	X(folds_pending, "folds_pending",                                                          \
	  "Circuits whose operations wait to be folded into Redis.")                               \
	X(reports_pending, "reports_pending",                                                      \
	  "Reports of success that were answered and that Redis does not have yet.")               \
	X(state_last_save, "state_last_save_timestamp_seconds",                                    \
	  "When state_file was last written, in Unix time; 0 if not since the start.")             \
	X(http_connections, "http_connections", "Open HTTP connections.")                          \
	X(http_connections_limit, "http_connections_limit",                                        \
	  "At most so many: max_connections, or fewer where descriptors are too few.")             \
	X(http_requests_in_flight, "http_requests_in_flight", "HTTP requests not yet answered.")   \
	X(event_streams, "event_streams", "Open streams of events (GET /v1/events).")

/* The values of a label: 0 to count - 1. Names are static. count is 0 until the owner has set it.
 */
struct metrics_label {
	const char *(*name)(unsigned value);
	unsigned count;
};

/* Bounds of the tables below. What is counted beyond them counts as the last value. */
#define METRICS_ROUTES         32
#define METRICS_METHODS        8
#define METRICS_STATUSES       600
#define METRICS_OPERATIONS     16
#define METRICS_RESULTS        8
#define METRICS_REDIS_FAILURES 16
#define METRICS_DECISIONS      8
#define METRICS_OUTCOMES       4
#define METRICS_REPORTS        8
#define METRICS_LINES          4

/* Upper bounds in microseconds stand in metrics.c; the last bucket is +Inf. */
#define METRICS_BUCKETS 18
struct metrics_histogram {
	uint64_t buckets[METRICS_BUCKETS]; /* not cumulative */
	uint64_t sum_ns;
};

/* field, name, help: histograms of durations without further labels */
#define METRICS_HISTOGRAMS(X)                                                                      \
	X(http_seconds, "http_request_duration_seconds",                                           \
	  "From the arrival of a whole HTTP request to its answer.")                               \
	X(loop_lag, "event_loop_lag_seconds",                                                      \
	  "How late the event loop came to a timer; measured only while there are requests.")

struct metrics_stopwatch {
	uint64_t total_ns;
	uint64_t since_ns; /* monotonic; 0: stopped */
};

/* The struct is large: it is allocated, zeroed. */
struct metrics {
#define X(field, name, help) uint64_t field;
	METRICS_COUNTERS(X)
#undef X
#define X(field, name, help) int64_t field;
	METRICS_GAUGES(X)
#undef X
#define X(field, name, help) struct metrics_stopwatch field;
	METRICS_STOPWATCHES(X)
#undef X
#define X(field, name, help) struct metrics_histogram field;
	METRICS_HISTOGRAMS(X)
#undef X
	/* Versions of the libraries that this program was built with or runs on; or NULL. */
	const char *microhttpd_version;
	const char *hiredis_version;

	struct metrics_label redis_states; /* set by the link to Redis: without one, count is 0 */
	unsigned redis_state;
	struct metrics_label redis_reasons;
	uint64_t redis_failures[METRICS_REDIS_FAILURES];

	int64_t watched[CIRCUIT_STATES]; /* circuits that are not closed or have an override */
	int64_t overrides[2];            /* forced open, forced closed */
	uint64_t events_sent, events_lost;
	int64_t circuits[CIRCUIT_STATES];                     /* of the embedded store */
	uint64_t transitions[CIRCUIT_STATES][CIRCUIT_STATES]; /* from, to */

	struct metrics_label operation_names; /* of the store */
	struct metrics_label result_names;
	uint64_t operations[METRICS_OPERATIONS][METRICS_RESULTS];
	struct metrics_histogram operation_seconds[METRICS_OPERATIONS];

	struct metrics_label decision_reasons; /* of acquire */
	uint64_t decisions[METRICS_DECISIONS];
	struct metrics_label report_outcomes;
	struct metrics_label report_results;
	uint64_t reports[METRICS_OUTCOMES][METRICS_REPORTS];
	struct metrics_label report_line_results; /* count 0: no report_listen */
	uint64_t report_lines[METRICS_LINES];

	struct metrics_label routes;  /* value 0: a path that is no route */
	struct metrics_label methods; /* the last value: any other method */
	uint64_t http_requests[METRICS_ROUTES][METRICS_METHODS][METRICS_STATUSES];
};

/* Adds a duration to the histogram. */
void metrics_observe(struct metrics_histogram *h, uint64_t duration_ns);

/* Starts or stops the stopwatch. */
void metrics_run(struct metrics_stopwatch *watch, bool run);

/* Counts an operation of the store by its result. */
void metrics_operation(struct metrics *m, unsigned operation, unsigned result,
		       uint64_t duration_ns);

/* Counts an answered request; a status out of 100 to 599 counts as 500. */
void metrics_request(struct metrics *m, unsigned route, unsigned method, int status,
		     uint64_t duration_ns);

/* Writes the text exposition format, version 0.0.4. 0, or -1 when out of memory. */
int metrics_write(const struct metrics *m, struct evbuffer *out);

#endif
