/*
 * What the files of the process's life share: app.c starts and ends it, reload.c reads its settings
 * again, stop.c stops it. Nobody else includes this.
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

/* Descriptors for all but connections, before it is known how many they are. */
#define OTHER_DESCRIPTORS 64

struct app {
	struct config_input input;
	struct log log;
	struct config *config;
	struct config *started; /* the configuration of the start, to find what needs a restart */
	struct event_base *base;
	struct metrics *metrics;
	struct loop_lag *lag;
	struct store *store;
	struct api *api;
	struct report_lines *report_lines; /* NULL: no report_listen */
	struct http *http;
	struct systemd *systemd;
	struct sockets sockets;
	unsigned other_descriptors;    /* that were open before the first connection */
	struct descriptor_share share; /* of connections, as far as descriptors go */
	struct {
		struct event *hangup;
		struct event *timer;      /* pending for a while after each reload */
		bool signalled, changed;  /* asked for since the last reload */
		struct file_watch *files; /* NULL: reload_on_change = no */
	} reload;
	struct {
		struct event *signals[2];
		struct event *drain;
		struct event *settle;
		bool begun;
		int64_t end_ms; /* when it must be over; monotonic */
		bool aborted;
	} stop;
};

#endif
