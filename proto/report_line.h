/*
 * A report as a line of a gateway's access log: circuit=KEY status=STATUS, optionally permit=PERMIT
 * and time=SECONDS, in any order and among any other words; or a JSON object with these names.
 * End users can get text into a log. So a line in which one of these names stands twice, each time
 * at the beginning or after a blank, cannot be used.
 */
#ifndef BREAKERD_PROTO_REPORT_LINE_H
#define BREAKERD_PROTO_REPORT_LINE_H

#include "proto/breaker.h"
#include "proto/key.h"

/* The longest line that is read. */
#define REPORT_LINE_MAX 8192

struct report_line {
	char key[KEY_MAX];
	size_t key_len;
	int status;        /* 0, 100 to 599, or REPORT_LINE_NO_STATUS for `-` */
	double time_ms;    /* below 0: none */
	char permit[64];   /* no NUL */
	size_t permit_len; /* 0: none */
};

#define REPORT_LINE_NO_STATUS (-1)

/* NULL, or a static sentence that says why the line cannot be used; *out then means nothing. */
const char *report_line_read(const char *line, size_t len, struct report_line *out);

/* Sets outcome, slow and permit of *call, by call->policy. NULL, or a static sentence that says why
 * the line cannot be used. */
const char *report_line_fill(const struct report_line *line, struct breaker_call *call);

#endif
