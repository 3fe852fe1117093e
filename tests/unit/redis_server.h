/*
 * A real redis-server that a test starts for itself: on 127.0.0.1 and a free port, in its own
 * directory under $TMPDIR, without persistence.
 */
#ifndef TEST_REDIS_SERVER_H
#define TEST_REDIS_SERVER_H

#include <hiredis/hiredis.h>
#include <stdint.h>
#include <sys/types.h>

struct redis_server_process {
	pid_t pid;
	int port;
	char dir[128];  /* "sock" in it is its unix socket */
	int monitors;   /* of a sentinel: its master's port */
	char store[64]; /* "redis://127.0.0.1:port" */
};

/* Starts it with further arguments ("--requirepass", "x", ..., NULL; or just NULL) and waits
 * until it listens; the test fails if it does not. */
void redis_server_start(struct redis_server_process *server, const char *const *arguments);

/* Starts a sentinel for the master on that port, named "mymaster", with a quorum of one and
 * down-after-milliseconds of 500. */
void redis_sentinel_start(struct redis_server_process *server, int master_port);

/* Starts it again after redis_server_kill, in the same directory and on the same port. */
void redis_server_restart(struct redis_server_process *server, const char *const *arguments);

/* Sends SIGKILL and waits for the process to end. */
void redis_server_kill(struct redis_server_process *server);

/* Kills it, if it runs, and removes the directory. */
void redis_server_stop(struct redis_server_process *server);

/* A blocking connection for the test itself; the caller frees it. */
redisContext *redis_server_connect(const struct redis_server_process *server);

/* Commands, written as for redisCommand. The test fails if no reply comes. */

/* The reply, which may be an error; the caller frees it. */
redisReply *redis_reply(redisContext *c, const char *fmt, ...);

/* The reply must not be an error. */
void redis_run(redisContext *c, const char *fmt, ...);

/* The reply must be this integer. */
int64_t redis_integer(redisContext *c, const char *fmt, ...);

/* The server's clock, epoch milliseconds. */
int64_t redis_now_ms(redisContext *c);

#endif
