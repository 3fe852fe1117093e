/*
 * The server's clock: see server_time.h.
 */
#include "redis/server_time.h"

#include "base/clock.h"

/* Of the seconds: with the milliseconds behind them they stay below CIRCUIT_INT_MAX. */
#define SECONDS_DIGITS      12
#define MICROSECONDS_DIGITS 6

static bool take_digits(const redisReply *reply, size_t most, int64_t *number)
{
	if (reply->type != REDIS_REPLY_STRING || reply->len == 0 || (size_t)reply->len > most)
		return false;
	*number = 0;
	for (size_t i = 0; i < (size_t)reply->len; i++) {
		if (reply->str[i] < '0' || reply->str[i] > '9')
			return false;
		*number = *number * 10 + (reply->str[i] - '0');
	}
	return true;
}

bool redis_server_time(const redisReply *reply, int64_t *ms)
{
	int64_t seconds, microseconds;

	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
	    !take_digits(reply->element[0], SECONDS_DIGITS, &seconds) ||
	    !take_digits(reply->element[1], MICROSECONDS_DIGITS, &microseconds))
		return false;
	*ms = seconds * 1000 + microseconds / 1000;
	return true;
}

int64_t redis_server_clock_offset_ms(int64_t asked_ms, int64_t there_ms, int64_t *error_ms)
{
	int64_t round_trip_ms = clock_ms() - asked_ms;

	*error_ms = round_trip_ms / 2 + 1;
	return there_ms - (clock_steady_ms() - round_trip_ms / 2);
}
