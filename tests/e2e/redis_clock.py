"""The clock of a redis-server, which a test sets, also while the server runs."""

import struct

from preload import preload

SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
static const volatile long long *ahead;
__attribute__((constructor)) static void begin(void)
{
	ahead = mmap(NULL, sizeof(*ahead), PROT_READ, MAP_SHARED, open(getenv("CLOCK_AHEAD"), O_RDONLY), 0);
}
int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
	static int (*real)(struct timeval *, void *);
	if (!real)
		real = dlsym(RTLD_NEXT, "gettimeofday");
	int r = real(tv, tz);
	if (ahead)
		tv->tv_sec += *ahead;
	return r;
}
int clock_gettime(clockid_t id, struct timespec *ts)
{
	static int (*real)(clockid_t, struct timespec *);
	if (!real)
		real = dlsym(RTLD_NEXT, "clock_gettime");
	int r = real(id, ts);
	if (ahead && id == CLOCK_REALTIME)
		ts->tv_sec += *ahead;
	return r;
}
"""


class RedisClock:
    """`env` is for the redis-server. Its clock is `ahead` seconds ahead of ours."""

    def __init__(self, directory, ahead=0):
        self.file = f"{directory}/clock"
        self.set(ahead)
        self.env = {**preload(directory, SOURCE), "CLOCK_AHEAD": self.file}

    def set(self, ahead):
        try:
            file = open(self.file, "r+b")  # pylint: disable=consider-using-with
        except FileNotFoundError:
            file = open(self.file, "w+b")  # pylint: disable=consider-using-with
        with file:
            file.write(struct.pack("q", ahead))
