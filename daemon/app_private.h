/*
 * What app.c (start and end), reload.c (settings read again) and stop.c (the way to the end) share.
 * Nobody else includes this.
 */
#ifndef BREAKERD_APP_PRIVATE_H
#define BREAKERD_APP_PRIVATE_H

#include "base/file_watch.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/systemd.h"
#include "config/config.h"
#include "descriptors.h"
#include "sockets.h"

#include <event2/event.h>

/* A guess at the descriptors for all but connections, before these are open and can be counted. */
#define OTHER_DESCRIPTORS 64

struct app {
	struct config_input input;
	struct log log;
	struct config *config;
	struct config *started; /* of the start, to tell which settings need a restart */
	struct event_base *base;
	struct metrics *metrics;
	struct loop_lag *lag;
	struct store *store;
	struct api *api;
	struct report_lines *report_lines; /* NULL: no report_listen */
	struct http *http;
	struct systemd *systemd;
	struct sockets sockets;
	unsigned other_descriptors;    /* how many were open before the first connection */
	struct descriptor_share share; /* how many connections the descriptors allow */
	struct {
		struct event *hangup;
		struct event *timer;      /* pending during the pause after a reload */
		bool signalled, changed;  /* SIGHUP came, files changed, since the last reload */
		struct file_watch *files; /* NULL: reload_on_change = no */
	} reload;
	struct {
		struct event *signals[2];
		struct event *drain;
		struct event *settle;
		bool begun;
		int64_t end_ms; /* when the stop must be over; monotonic */
		bool aborted;
	} stop;
};

#endif
