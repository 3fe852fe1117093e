#include "redis_server.h"

#include <arpa/inet.h>
#include <check.h>
#include <ftw.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define START_TRIES 5
#define UP_MS       10000

static void sleep_ms(long ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

	nanosleep(&t, NULL);
}

static int free_port(void)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(in);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	ck_assert_int_eq(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&in, &len), 0);
	close(fd);
	return ntohs(in.sin_port);
}

static void run(const struct redis_server_process *server, const char *const *arguments)
{
	char port[16], sock[160];
	const char *argv[64] = {"redis-server", "--port",       port,       "--bind",
				"127.0.0.1",    "--unixsocket", sock,       "--dir",
				server->dir,    "--save",       "",         "--appendonly",
				"no",           "--logfile",    "redis.log"};
	size_t argc = 15;

	snprintf(port, sizeof(port), "%d", server->port);
	snprintf(sock, sizeof(sock), "%s/sock", server->dir);
	while (arguments && *arguments && argc < 63)
		argv[argc++] = *arguments++;
	/* The server must end with the test, also when the test crashes. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execvp(argv[0], (char *const *)argv);
	_exit(127);
}

/* A sentinel needs a configuration file that it can rewrite. */
static void run_sentinel(const struct redis_server_process *server)
{
	char path[160];
	FILE *file;

	snprintf(path, sizeof(path), "%s/sentinel.conf", server->dir);
	file = fopen(path, "w");
	if (!file)
		_exit(127);
	fprintf(file,
		"port %d\nbind 127.0.0.1\nunixsocket %s/sock\ndir %s\nlogfile sentinel.log\n"
		"sentinel monitor mymaster 127.0.0.1 %d 1\n"
		"sentinel down-after-milliseconds mymaster 500\n"
		"sentinel failover-timeout mymaster 5000\n",
		server->port, server->dir, server->dir, server->monitors);
	fclose(file);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	execlp("redis-server", "redis-server", path, "--sentinel", (char *)NULL);
	_exit(127);
}

/* True when it answers; false when it has ended, for example because its port was taken. */
static bool comes_up(struct redis_server_process *server)
{
	char sock[160];

	snprintf(sock, sizeof(sock), "%s/sock", server->dir);
	for (int waited = 0; waited < UP_MS; waited += 10) {
		redisContext *c = redisConnectUnix(sock);
		bool up = c && c->err == 0;

		redisFree(c);
		if (up)
			return true;
		if (waitpid(server->pid, NULL, WNOHANG) == server->pid) {
			server->pid = 0;
			return false;
		}
		sleep_ms(10);
	}
	return false;
}

static bool start(struct redis_server_process *server, const char *const *arguments)
{
	server->pid = fork();
	ck_assert_int_ge(server->pid, 0);
	if (server->pid == 0 && server->monitors)
		run_sentinel(server);
	if (server->pid == 0)
		run(server, arguments);
	return comes_up(server);
}

static void start_anew(struct redis_server_process *server, const char *const *arguments)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(server->dir, sizeof(server->dir), "%s/breakerd-test-XXXXXX", tmp ? tmp : "/tmp");
	ck_assert_ptr_nonnull(mkdtemp(server->dir));
	for (int n = 0; n < START_TRIES; n++) {
		server->port = free_port();
		snprintf(server->store, sizeof(server->store), "redis://127.0.0.1:%d",
			 server->port);
		if (start(server, arguments))
			return;
	}
	ck_abort_msg("redis-server does not start; is it installed?");
}

void redis_server_start(struct redis_server_process *server, const char *const *arguments)
{
	memset(server, 0, sizeof(*server));
	start_anew(server, arguments);
}

void redis_sentinel_start(struct redis_server_process *server, int master_port)
{
	memset(server, 0, sizeof(*server));
	server->monitors = master_port;
	start_anew(server, NULL);
}

void redis_server_restart(struct redis_server_process *server, const char *const *arguments)
{
	ck_assert_int_eq(server->pid, 0);
	ck_assert_msg(start(server, arguments), "redis-server does not start again");
}

void redis_server_kill(struct redis_server_process *server)
{
	if (server->pid <= 0)
		return;
	kill(server->pid, SIGKILL);
	waitpid(server->pid, NULL, 0);
	server->pid = 0;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st;
	(void)flag;
	(void)ftw;
	return remove(path);
}

void redis_server_stop(struct redis_server_process *server)
{
	redis_server_kill(server);
	if (server->dir[0])
		nftw(server->dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	server->dir[0] = '\0';
}

redisContext *redis_server_connect(const struct redis_server_process *server)
{
	redisContext *c = redisConnect("127.0.0.1", server->port);

	ck_assert_ptr_nonnull(c);
	ck_assert_msg(c->err == 0, "%s", c->errstr);
	return c;
}

static redisReply *reply_to(redisContext *c, const char *fmt, va_list ap)
{
	redisReply *reply = redisvCommand(c, fmt, ap);

	ck_assert_msg(reply != NULL, "%s: %s", fmt, c->errstr);
	return reply;
}

redisReply *redis_reply(redisContext *c, const char *fmt, ...)
{
	redisReply *reply;
	va_list ap;

	va_start(ap, fmt);
	reply = reply_to(c, fmt, ap);
	va_end(ap);
	return reply;
}

void redis_run(redisContext *c, const char *fmt, ...)
{
	redisReply *reply;
	va_list ap;

	va_start(ap, fmt);
	reply = reply_to(c, fmt, ap);
	va_end(ap);
	ck_assert_msg(reply->type != REDIS_REPLY_ERROR, "%s: %s", fmt, reply->str);
	freeReplyObject(reply);
}

int64_t redis_integer(redisContext *c, const char *fmt, ...)
{
	redisReply *reply;
	int64_t n;
	va_list ap;

	va_start(ap, fmt);
	reply = reply_to(c, fmt, ap);
	va_end(ap);
	ck_assert_msg(reply->type == REDIS_REPLY_INTEGER, "%s: type %d", fmt, reply->type);
	n = reply->integer;
	freeReplyObject(reply);
	return n;
}

int64_t redis_now_ms(redisContext *c)
{
	redisReply *reply = redis_reply(c, "TIME");
	int64_t now;

	ck_assert_uint_eq(reply->elements, 2);
	now = strtoll(reply->element[0]->str, NULL, 10) * 1000 +
	      strtoll(reply->element[1]->str, NULL, 10) / 1000;
	freeReplyObject(reply);
	return now;
}
