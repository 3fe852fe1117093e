/*
 * The answer to TIME, and how far the server's clock is from ours.
 */
#ifndef BREAKERD_REDIS_SERVER_TIME_H
#define BREAKERD_REDIS_SERVER_TIME_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

/* Sets *ms to the time in the reply, epoch milliseconds. False if it has none, or one beyond the
 * stamps that a circuit can have. */
bool redis_server_time(const redisReply *reply, int64_t *ms);

/*
 * The server's clock minus ours (clock_steady_ms) if the server, asked at asked_ms (clock_ms), has
 * just answered that it was there_ms: we assume halfway. *error_ms is by how much that may be
 * wrong, half a round trip.
 */
int64_t redis_server_clock_offset_ms(int64_t asked_ms, int64_t there_ms, int64_t *error_ms);

#endif
