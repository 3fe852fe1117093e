/*
 * The error codes of Redis, and which of them concern the whole link.
 */
#include "redis/faults.h"

#include <string.h>

/*
 * An error with `says`, the reason, concerns the whole link: no operation could write there. An
 * error without it, and each one that is not listed, concerns one operation: Redis is there.
 */
static const struct fault {
	const char *code;
	const char *says;
	const char *label; /* in breakerd_redis_failures_total */
} faults[] = {
	{"READONLY", "the server is a read-only replica", "readonly"},
	{"MASTERDOWN", "the server is a replica that has lost its master", "masterdown"},
	{"LOADING", "the server is still loading its data", "loading"},
	{"NOAUTH", "the server asks for a password", "noauth"},
	{"WRONGPASS", "the server refuses the user or the password", "wrongpass"},
	{"DENIED", "the server is in protected mode and lets in local clients only", "denied"},
	{"ERR max number of clients", "the server is at its limit of clients", "maxclients"},
	{"CLUSTERDOWN", "the cluster is down", "clusterdown"},
	/* All clients get it until that script ends, also for reads and in the handshake. */
	{"BUSY", "the server is busy with somebody's script", "busy"},
	/* With either no write passes, of whatever size. With OOM some may. */
	{"MISCONF", "the server takes no writes because it cannot save its data to disk",
	 "misconf"},
	{"NOREPLICAS", "the server takes no writes because it has too few good replicas",
	 "noreplicas"},

	{"OOM", NULL, NULL},       /* a smaller write, a reset, a read may still pass */
	{"WRONGTYPE", NULL, NULL}, /* that key */
	{"NOPERM", NULL, NULL},    /* that command or that key */
	{"NOSCRIPT", NULL, NULL},  /* the sender tries again with the whole script */
	{"EXECABORT", NULL, NULL},
	{"CROSSSLOT", NULL, NULL},
	{"TRYAGAIN", NULL, NULL},
	{"MOVED", NULL, NULL}, /* that slot is elsewhere; others are here */
	{"ASK", NULL, NULL},
	{"UNKILLABLE", NULL, NULL}, /* the answer to SCRIPT KILL, which we never send */
	{"ERR", NULL, NULL},
};

const char *redis_fault(const redisReply *reply)
{
	if (reply->type != REDIS_REPLY_ERROR)
		return NULL;
	for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
		size_t len = strlen(faults[i].code);

		if (faults[i].says && strncmp(reply->str, faults[i].code, len) == 0 &&
		    (reply->str[len] == ' ' || reply->str[len] == '\0'))
			return faults[i].says;
	}
	return NULL;
}

/* The first labels are those of enum redis_failed_at, the others the table's. */
#define FAILED (REDIS_FAILED_UNANSWERED + 1)

unsigned redis_failure(const char *why, enum redis_failed_at at)
{
	for (unsigned i = 0; FAILED + i < REDIS_FAILURES; i++) {
		if (faults[i].says == why)
			return FAILED + i;
	}
	return at;
}

const char *redis_failure_label(unsigned failure)
{
	static const char *const labels[FAILED] = {
		[REDIS_FAILED_LOOKUP] = "lookup",         [REDIS_FAILED_CONNECT] = "connect",
		[REDIS_FAILED_HANDSHAKE] = "handshake",   [REDIS_FAILED_LOST] = "lost",
		[REDIS_FAILED_UNANSWERED] = "unanswered",
	};

	return failure < FAILED ? labels[failure] : faults[failure - FAILED].label;
}

void redis_fault_words(const char *text, char *out, size_t size)
{
	size_t n = 0;

	for (; size > 0 && *text && n + 1 < size; text++)
		out[n++] = *text >= 0x20 && *text < 0x7f ? *text : '?';
	if (size > 0)
		out[n] = '\0';
}
