/*
 * Turns the messages of the channel (channel.h) into the store's events and changes.
 */
#ifndef BREAKERD_REDIS_EVENTS_H
#define BREAKERD_REDIS_EVENTS_H

#include "redis/channel.h"

/* For a channel; `arg` is the struct redis_store. */
extern const struct redis_channel_events redis_store_channel_events;

#endif
