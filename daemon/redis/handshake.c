/*
 * The handshake: a table of steps, each with its command and a function for its answer.
 */
#include "redis/handshake.h"

#include "base/clock.h"
#include "redis/conn.h"
#include "redis/faults.h"
#include "redis/server_time.h"
#include "redis/target.h"

#include <stdio.h>
#include <string.h>

#define OLDEST_MAJOR 6
#define OLDEST_MINOR 2
#define CLIENT_NAME  "breakerd"

static void end(struct redis_handshake *h, const char *why)
{
	if (h->ended)
		return;
	h->ended = true;
	h->done(h->arg, why);
}

/* Ends it with "what (the server's words)". */
static void end_with_words(struct redis_handshake *h, const char *what, const char *text)
{
	char words[128], why[256];

	redis_fault_words(text, words, sizeof(words));
	snprintf(why, sizeof(why), "%s (%s)", what, words);
	end(h, why);
}

/* An error of AUTH may repeat its arguments ("unknown command 'AUTH', with args beginning with
 * ..."). So only its first word is shown, and only if that looks like an error code. */
static void auth_answer(struct redis_handshake *h, const redisReply *reply)
{
	size_t len = strspn(reply->type == REDIS_REPLY_ERROR ? reply->str : "",
			    "ABCDEFGHIJKLMNOPQRSTUVWXYZ");
	char code[24];

	if (reply->type != REDIS_REPLY_ERROR)
		return;
	if (strstr(reply->str, "without any password configured") ||
	    strstr(reply->str, "no password is set")) {
		end(h, "a password is given, and the server has none");
		return;
	}
	snprintf(code, sizeof(code), "%.*s", (int)len, reply->str);
	if (reply->str[len] != ' ' || strcmp(code, h->target->password) == 0)
		end(h, "the server refuses AUTH");
	else
		end_with_words(h, "the server refuses AUTH", code);
}

static void select_answer(struct redis_handshake *h, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_ERROR)
		end_with_words(h, "the server refuses the database", reply->str);
}

/* The answers to CLIENT SETNAME, CLIENT KILL and PING do not matter, except errors of the whole
 * link. */
static void any_answer(struct redis_handshake *h, const redisReply *reply)
{
	(void)h;
	(void)reply;
}

static const char *text_of(const redisReply *reply, size_t index)
{
	const redisReply *element;

	if (reply->type != REDIS_REPLY_ARRAY || index >= reply->elements)
		return "";
	element = reply->element[index];
	return element && element->type == REDIS_REPLY_STRING ? element->str : "";
}

static void role_answer(struct redis_handshake *h, const redisReply *reply)
{
	char words[64], why[128];
	const char *role;

	/* An ACL may forbid ROLE. A replica is then noticed by READONLY, with the first write. */
	if (reply->type == REDIS_REPLY_ERROR)
		return;
	role = text_of(reply, 0);
	if (strcmp(role, "master") == 0)
		return;
	redis_fault_words(text_of(reply, 1), words, sizeof(words));
	if (strcmp(role, "slave") == 0)
		snprintf(why, sizeof(why), "the server is a replica of %s", words);
	else if (strcmp(role, "sentinel") == 0)
		snprintf(why, sizeof(why), "the server is a sentinel; see redis-sentinel://");
	else
		snprintf(why, sizeof(why), "the server does not say that it is a master");
	end(h, why);
}

/* Copies the value of a line "name:value\r\n" of INFO. */
static bool info_value(const char *info, const char *name, char *out, size_t size)
{
	size_t len = strlen(name);

	out[0] = '\0';
	for (const char *line = info; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, name, len) == 0 && line[len] == ':') {
			size_t n = strcspn(line + len + 1, "\r\n");

			snprintf(out, size, "%.*s", (int)n, line + len + 1);
			redis_fault_words(out, out, size);
			return true;
		}
	}
	return false;
}

static void info_answer(struct redis_handshake *h, const redisReply *reply)
{
	char redis[32], mode[32], why[160];
	int major = 0, minor = 0;

	if (reply->type != REDIS_REPLY_STRING)
		return; /* forbidden, or a proxy that has no INFO */
	info_value(reply->str, "run_id", h->server.session.run_id,
		   sizeof(h->server.session.run_id));
	info_value(reply->str, "redis_version", redis, sizeof(redis));
	info_value(reply->str, "redis_mode", mode, sizeof(mode));
	h->server.cluster = strcmp(mode, "cluster") == 0;
	if (info_value(reply->str, "valkey_version", h->server.version, sizeof(h->server.version)))
		snprintf(h->server.name, sizeof(h->server.name), "valkey");
	else
		snprintf(h->server.version, sizeof(h->server.version), "%s", redis);
	if (sscanf(redis, "%6d.%6d", &major, &minor) != 2)
		return;
	if (major > OLDEST_MAJOR || (major == OLDEST_MAJOR && minor >= OLDEST_MINOR))
		return;
	snprintf(why, sizeof(why), "the server is Redis %s; Redis %d.%d or later is needed", redis,
		 OLDEST_MAJOR, OLDEST_MINOR);
	end(h, why);
}

static void client_answer(struct redis_handshake *h, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_INTEGER)
		snprintf(h->server.session.client, sizeof(h->server.session.client), "%lld",
			 reply->integer);
}

static void script_answer(struct redis_handshake *h, const redisReply *reply)
{
	/* Forbidden, or unknown to a proxy: each call then carries the whole script. */
	if (reply->type == REDIS_REPLY_ERROR)
		return;
	if (reply->type != REDIS_REPLY_STRING || reply->len != sizeof(h->server.sha) - 1)
		end(h, "the server's answer to SCRIPT LOAD is no SHA1");
	else
		memcpy(h->server.sha, reply->str, sizeof(h->server.sha));
}

static void time_answer(struct redis_handshake *h, const redisReply *reply)
{
	int64_t there_ms;

	if (!redis_server_time(reply, &there_ms))
		return;
	h->server.has_clock = true;
	h->server.clock_offset_ms = redis_server_clock_offset_ms(h->clock_asked_ms, there_ms,
								 &h->server.clock_error_ms);
}

static int send_words(struct redis_handshake *h, int argc, const char **argv);

static int auth_send(struct redis_handshake *h)
{
	const struct redis_target *t = h->target;
	const char *both[] = {"AUTH", t->user, t->password};
	const char *one[] = {"AUTH", t->password};

	return t->user[0] ? send_words(h, 3, both) : send_words(h, 2, one);
}

static int select_send(struct redis_handshake *h)
{
	char db[16];
	const char *argv[] = {"SELECT", db};

	snprintf(db, sizeof(db), "%u", h->target->db);
	return send_words(h, 2, argv);
}

static int kill_send(struct redis_handshake *h)
{
	const char *argv[] = {"CLIENT", "KILL", "ID", h->before->client};

	return send_words(h, 4, argv);
}

static int script_send(struct redis_handshake *h)
{
	const char *argv[] = {"SCRIPT", "LOAD", h->script};

	return send_words(h, 3, argv);
}

/*
 * An error of the whole link (redis_fault) ends the handshake before the step's `answer` is called.
 * PING is there because it is the only one of these commands that is refused with MISCONF.
 */
static const struct step {
	int (*send)(struct redis_handshake *h); /* NULL: `words` are sent */
	const char *words[3];
	void (*answer)(struct redis_handshake *h, const redisReply *reply);
} steps[] = {
	{auth_send, {NULL}, auth_answer},
	{select_send, {NULL}, select_answer},
	{NULL, {"CLIENT", "SETNAME", CLIENT_NAME}, any_answer},
	{NULL, {"CLIENT", "ID"}, client_answer},
	{NULL, {"ROLE"}, role_answer},
	{NULL, {"INFO", "server"}, info_answer},
	{NULL, {"PING"}, any_answer},
	{script_send, {NULL}, script_answer},
	{NULL, {"TIME"}, time_answer},
	{kill_send, {NULL}, any_answer},
};
#define STEPS (sizeof(steps) / sizeof(steps[0]))
/* Sent after all answers to the steps before, which would lengthen the round trip of TIME. */
#define CLOCK_STEP (STEPS - 2)
/* Sent together with TIME, because the answer to INFO tells whether it is needed. */
#define KILL_STEP (STEPS - 1)

static bool step_needed(const struct redis_handshake *h, const struct step *step)
{
	if (step->send == auth_send)
		return h->target->user[0] || h->target->password[0];
	if (step->send == select_send)
		return h->target->db != 0;
	if (step->send == kill_send)
		return h->before && h->before->client[0] && h->before->run_id[0] &&
		       strcmp(h->before->run_id, h->server.session.run_id) == 0;
	return step->send != script_send || h->script;
}

static void begin_second_round(struct redis_handshake *h);

static void on_answer(void *arg, enum redis_outcome outcome, const redisReply *reply,
		      const char *why)
{
	struct redis_handshake *h = arg;
	const char *fault;
	size_t n = 0;

	(void)why;
	if (outcome != REDIS_REPLY || h->ended)
		return;
	while (!(h->asked & 1u << n))
		n++;
	h->asked &= ~(1u << n);
	fault = redis_fault(reply);
	if (fault)
		end(h, fault);
	else
		steps[n].answer(h, reply);
	if (h->asked || h->ended)
		return;
	if (n >= CLOCK_STEP)
		end(h, NULL);
	else
		begin_second_round(h);
}

static int send_words(struct redis_handshake *h, int argc, const char **argv)
{
	size_t lens[4];

	for (int i = 0; i < argc; i++)
		lens[i] = strlen(argv[i]);
	return redis_conn_send(h->conn, on_answer, h, argc, argv, lens) ? 0 : -1;
}

static int step_send(struct redis_handshake *h, const struct step *step)
{
	const char *argv[3];
	int argc = 0;

	if (step->send)
		return step->send(h);
	for (; argc < 3 && step->words[argc]; argc++)
		argv[argc] = step->words[argc];
	return send_words(h, argc, argv);
}

static void begin_second_round(struct redis_handshake *h)
{
	h->clock_asked_ms = clock_ms();
	for (size_t n = CLOCK_STEP; n <= KILL_STEP; n++) {
		if (!step_needed(h, &steps[n]))
			continue;
		if (step_send(h, &steps[n]) < 0) {
			end(h, "out of memory");
			return;
		}
		h->asked |= 1u << n;
	}
}

int redis_handshake_begin(struct redis_handshake *handshake, struct redis_conn *conn,
			  const struct redis_target *target, const char *script,
			  const struct redis_session *before, redis_handshake_fn *done, void *arg)
{
	*handshake = (struct redis_handshake){.conn = conn,
					      .target = target,
					      .script = script,
					      .before = before,
					      .done = done,
					      .arg = arg,
					      .server = {.name = "redis"}};
	for (size_t n = 0; n < CLOCK_STEP; n++) {
		if (!step_needed(handshake, &steps[n]))
			continue;
		if (step_send(handshake, &steps[n]) < 0)
			return -1;
		handshake->asked |= 1u << n;
	}
	return 0;
}
