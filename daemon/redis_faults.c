#include "redis_faults.h"

#include <string.h>

/*
 * The link's: nobody could write here, whatever the operation; `says` is the reason. What
 * has no `says`, and each code that is not listed, is the operation's: Redis is there.
 */
static const struct fault {
	const char *code;
	const char *says;
} faults[] = {
	{"READONLY", "the server is a read-only replica"},
	{"MASTERDOWN", "the server is a replica that has lost its master"},
	{"LOADING", "the server is still loading its data"},
	{"NOAUTH", "the server asks for a password"},
	{"WRONGPASS", "the server refuses the user or the password"},
	{"DENIED", "the server is in protected mode and lets in local clients only"},
	{"ERR max number of clients", "the server is at its limit of clients"},
	{"CLUSTERDOWN", "the cluster is down"},
	/* Everybody gets it until that script ends, reads and the handshake too. */
	{"BUSY", "the server is busy with somebody's script"},
	/* Both end all writes at once, and are no matter of this operation's size, as OOM is. */
	{"MISCONF", "the server takes no writes because it cannot save its data to disk"},
	{"NOREPLICAS", "the server takes no writes because it has too few good replicas"},

	{"OOM", NULL},       /* a smaller write, a reset, a read may still pass */
	{"WRONGTYPE", NULL}, /* that key */
	{"NOPERM", NULL},    /* that command or that key */
	{"NOSCRIPT", NULL},  /* the sender tries again with the whole script */
	{"EXECABORT", NULL},
	{"CROSSSLOT", NULL},
	{"TRYAGAIN", NULL},
	{"MOVED", NULL}, /* that slot is elsewhere; others are here */
	{"ASK", NULL},
	{"UNKILLABLE", NULL}, /* the answer to SCRIPT KILL, which we never send */
	{"ERR", NULL},
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

void redis_fault_words(const char *text, char *out, size_t size)
{
	size_t n = 0;

	for (; size > 0 && *text && n + 1 < size; text++)
		out[n++] = *text >= 0x20 && *text < 0x7f ? *text : '?';
	if (size > 0)
		out[n] = '\0';
}
