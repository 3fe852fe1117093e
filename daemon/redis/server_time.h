/*
 * The answer to TIME.
 */
#ifndef BREAKERD_REDIS_SERVER_TIME_H
#define BREAKERD_REDIS_SERVER_TIME_H

#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stdint.h>

/* Sets *ms to the time in the reply, epoch milliseconds. False if it has none, or one beyond the
 * stamps that a circuit can have. */
bool redis_server_time(const redisReply *reply, int64_t *ms);

#endif
