/*
 * Asks breakerd, the circuit-breaker sidecar, before a request to an upstream, and reports the
 * outcome after it. C11 and POSIX, or C++11; libcurl 7.80.
 * `pkg-config --cflags --libs breakerd-client`
 *
 *   struct breaker *breaker = breaker_new(NULL, NULL);  // http://127.0.0.1:8747; for all threads
 *   struct breaker_call call;
 *
 *   if (breaker_begin(breaker, "orders", &call))
 *       breaker_end(&call, ask_the_upstream());         // its status, or BREAKER_FAILURE
 *   else
 *       answer_503(call.decision.retry_after_ms);
 *   breaker_free(breaker);
 *
 * When breakerd does not answer, every request passes. With -std=c11 the compiler also needs
 * -D_POSIX_C_SOURCE=200809L. Make the first breaker before the program starts threads
 * (curl_global_init(3)).
 */
#ifndef BREAKERD_H
#define BREAKERD_H

#include <curl/curl.h>
#include <pthread.h>
#include <regex.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef CLOCK_MONOTONIC
#error "breakerd.h needs POSIX: define _POSIX_C_SOURCE as 200809L before the first #include"
#endif

#define BREAKER_VERSION         "0.2.0"
#define BREAKER_MAX_ANSWER      65536 /* bytes; breakerd's are a few hundred */
#define BREAKER_MAX_IDLE        64    /* kept connections */
#define BREAKER_LOG_INTERVAL_MS 10000 /* between two messages */

#ifdef __cplusplus
extern "C" {
#endif

/* Outcomes. An HTTP status of the upstream (0: no answer came) is an outcome, too. */
enum { BREAKER_SUCCESS = -1, BREAKER_FAILURE = -2, BREAKER_IGNORED = -3 };

/* Zero means the default. */
struct breaker_options {
	const char *base_url;        /* http://HOST[:PORT][/PATH], unix:/PATH, http+unix://%2FPATH;
				      * default http://127.0.0.1:8747 */
	const char *token;           /* a line of breakerd's token_file; default none */
	long timeout_ms;             /* for a whole exchange; default 300 */
	long retry_after_trouble_ms; /* for this long after breakerd did not answer, requests pass
				      * without asking it; default 1000 */
	/* Called at most every 10 s, from any thread; default: writes to stderr. */
	void (*log)(void *log_arg, const char *message);
	void *log_arg;
};

struct breaker_decision {
	bool allowed;
	bool unreachable; /* breakerd did not decide, so the request may pass */
	char permit[65];  /* for the report */
	char state[16];   /* closed, open, half-open; empty if breakerd did not answer */
	char reason[32];  /* closed, probe, open, probing, forced-open, forced-closed, observed;
			   * unreachable */
	long long retry_after_ms; /* 0 if allowed */
};

/* A handle of libcurl with its connection, and the last answer. */
struct breaker_connection {
	CURL *curl;
	int sent; /* how often libcurl has begun to send this request */
	size_t length;
	char answer[BREAKER_MAX_ANSWER + 1];
};

/* A client. Its members are private. */
struct breaker {
	char *url, *socket_path; /* the circuits' URL; NULL: TCP */
	struct curl_slist *headers;
	long timeout_ms, pause_ms;
	void (*log)(void *log_arg, const char *message);
	void *log_arg;
	pthread_mutex_t lock; /* guards the members below */
	long long retry_at;   /* the end of the pause after trouble; 0: no trouble */
	long long log_at;
	int idle_count;
	struct breaker_connection *idle[BREAKER_MAX_IDLE];
};

struct breaker_call {
	struct breaker *breaker;
	const char *key; /* must be valid until breaker_end() */
	struct breaker_decision decision;
	struct timespec began;
};

/* Milliseconds, never 0. */
static inline long long breaker_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000 + 1;
}

static inline void breaker_log_stderr(void *log_arg, const char *message)
{
	(void)log_arg;
	fprintf(stderr, "%s\n", message);
}

/* Whether text matches the extended regular expression. match[1] and on are its groups. */
static inline bool breaker_matches(const char *pattern, const char *text, size_t n,
				   regmatch_t *match)
{
	regex_t regex;

	if (regcomp(&regex, pattern, REG_EXTENDED) != 0)
		return false;
	bool yes = regexec(&regex, text, n, match, 0) == 0;
	regfree(&regex);
	return yes;
}

/* Joins the first a_length bytes of a, and b. The caller frees the string. NULL: out of memory. */
static inline char *breaker_concat(const char *a, int a_length, const char *b)
{
	size_t size = (size_t)a_length + strlen(b) + 1;
	char *whole = (char *)malloc(size);

	if (whole)
		snprintf(whole, size, "%.*s%s", a_length, a, b);
	return whole;
}

/* Splits base into b->socket_path and b->url. Returns NULL, or what is wrong. */
static inline const char *breaker_parse_base(struct breaker *b, const char *base)
{
#define BREAKER_TEXT "([A-Za-z0-9_.~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define BREAKER_PATH "((/" BREAKER_TEXT "*)*)$"
	static const char wrong[] =
		"base_url must be http://HOST[:PORT][/PATH], unix:/PATH or http+unix://%2FPATH "
		"(https is not spoken: breakerd has no TLS)";
	regmatch_t match[8];
	const char *path = "";
	int host = 0;

	if (breaker_matches(
		    "^http://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+])(:([0-9]{1,5}))?" BREAKER_PATH,
		    base, 8, match)) {
		long port = match[3].rm_so < 0 ? 80 : strtol(base + match[3].rm_so, NULL, 10);
		if (port < 1 || port > 65535)
			return wrong;
		host = (int)match[4].rm_so;
		path = base + host;
	} else if (breaker_matches("^http\\+unix://(%2[Ff]" BREAKER_TEXT "+)" BREAKER_PATH, base, 8,
				   match)) {
		int length;
		char *socket_path =
			curl_easy_unescape(NULL, base + match[1].rm_so,
					   (int)(match[1].rm_eo - match[1].rm_so), &length);
		if (socket_path && strlen(socket_path) == (size_t)length)
			b->socket_path = breaker_concat(socket_path, length, "");
		curl_free(socket_path);
		path = base + match[3].rm_so;
	} else if (strncmp(base, "unix:/", 6) == 0) {
		b->socket_path = breaker_concat(base + 5, (int)strlen(base + 5), "");
	}
	if (!host && (!b->socket_path || breaker_matches("[[:cntrl:]]", b->socket_path, 0, NULL) ||
		      strlen(b->socket_path) < 2 || strlen(b->socket_path) > 107))
		return wrong;
	int slashes = (int)strlen(path);
	while (slashes > 0 && path[slashes - 1] == '/')
		slashes--;
	char *prefix = breaker_concat(host ? base : "http://localhost", host ? host : 16, "");
	char *whole = breaker_concat(path, slashes, "/v1/circuits/");
	if (prefix && whole)
		b->url = breaker_concat(prefix, (int)strlen(prefix), whole);
	free(prefix);
	free(whole);
	return b->url ? NULL : "memory is short";
#undef BREAKER_PATH
#undef BREAKER_TEXT
}

/* Adds a header to all requests; false: out of memory. */
static inline bool breaker_header(struct breaker *b, const char *name, const char *value)
{
	char *line = breaker_concat(name, (int)strlen(name), value);
	struct curl_slist *longer = line ? curl_slist_append(b->headers, line) : NULL;

	free(line);
	if (longer)
		b->headers = longer;
	return longer != NULL;
}

static inline void breaker_close(struct breaker_connection *c)
{
	curl_easy_cleanup(c->curl);
	free(c);
}

static inline void breaker_free(struct breaker *b)
{
	if (!b)
		return;
	while (b->idle_count > 0)
		breaker_close(b->idle[--b->idle_count]);
	pthread_mutex_destroy(&b->lock);
	curl_slist_free_all(b->headers);
	free(b->socket_path);
	free(b->url);
	free(b);
}

/* Makes a client, to be freed with breaker_free(). options may be NULL. Returns NULL if an option
 * is invalid or memory is short; *error, unless error is NULL, then says why. */
static inline struct breaker *breaker_new(const struct breaker_options *options, const char **error)
{
	struct breaker_options none;
	const char *dummy, **why = error ? error : &dummy;
	struct breaker *b = (struct breaker *)calloc(1, sizeof(*b));

	memset(&none, 0, sizeof(none));
	if (!options)
		options = &none;
	*why = "memory is short";
	if (!b)
		return NULL;
	pthread_mutex_init(&b->lock, NULL);
	b->timeout_ms = options->timeout_ms ? options->timeout_ms : 300;
	b->pause_ms = options->retry_after_trouble_ms ? options->retry_after_trouble_ms : 1000;
	b->log = options->log ? options->log : breaker_log_stderr;
	b->log_arg = options->log_arg;
	*why = breaker_parse_base(b,
				  options->base_url ? options->base_url : "http://127.0.0.1:8747");
	if (!*why && options->token && breaker_matches("[^!-~]", options->token, 0, NULL))
		*why = "token must be printable ASCII without spaces";
	if (!*why && (b->timeout_ms < 0 || b->pause_ms < 0))
		*why = "timeout_ms and retry_after_trouble_ms must not be below 0";
	if (!*why && (!breaker_header(b, "Content-Type: ", "application/json") ||
		      (options->token && options->token[0] &&
		       !breaker_header(b, "Authorization: Bearer ", options->token))))
		*why = "memory is short";
	if (!*why)
		return b;
	breaker_free(b);
	return NULL;
}

static inline size_t breaker_on_data(char *data, size_t size, size_t n, void *arg)
{
	struct breaker_connection *c = (struct breaker_connection *)arg;

	if (size * n > BREAKER_MAX_ANSWER - c->length)
		return 0; /* the transfer fails */
	memcpy(c->answer + c->length, data, size * n);
	c->length += size * n;
	return size * n;
}

/* Stops libcurl from sending a request again that got no answer on a kept connection: a report
 * might count twice. */
static inline int breaker_on_send(void *arg, char *ip, char *local_ip, int port, int local_port)
{
	struct breaker_connection *c = (struct breaker_connection *)arg;

	(void)ip, (void)local_ip, (void)port, (void)local_port;
	return c->sent++ ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* Takes a kept connection, or makes one; NULL: out of memory. */
static inline struct breaker_connection *breaker_take(struct breaker *b)
{
	struct breaker_connection *c = NULL;

	pthread_mutex_lock(&b->lock);
	if (b->idle_count > 0)
		c = b->idle[--b->idle_count];
	pthread_mutex_unlock(&b->lock);
	if (c)
		return c;
	c = (struct breaker_connection *)calloc(1, sizeof(*c));
	CURL *curl = c ? c->curl = curl_easy_init() : NULL;
	if (!curl) {
		free(c);
		return NULL;
	}
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, b->timeout_ms); /* for the whole exchange */
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);   /* for threads and time-outs under 1 s */
	curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L); /* the key may be ".." */
	curl_easy_setopt(curl, CURLOPT_PROXY, "");      /* http_proxy is ignored */
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, b->headers);
	if (b->socket_path)
		curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, b->socket_path);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, breaker_on_data);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, c);
	curl_easy_setopt(curl, CURLOPT_PREREQFUNCTION, breaker_on_send);
	curl_easy_setopt(curl, CURLOPT_PREREQDATA, c);
	return c;
}

static inline void breaker_keep(struct breaker *b, struct breaker_connection *c)
{
	bool kept = false;

	pthread_mutex_lock(&b->lock);
	if (b->idle_count < BREAKER_MAX_IDLE) {
		b->idle[b->idle_count++] = c;
		kept = true;
	}
	pthread_mutex_unlock(&b->lock);
	if (!kept)
		breaker_close(c);
}

/* The place after the JSON value at p; NULL if the value does not end. */
static inline const char *breaker_skip_value(const char *p)
{
	int depth = 0;

	do {
		if (*p == '"') {
			for (p++; *p != '"'; p++) {
				if (*p == '\\')
					p++;
				if (!*p)
					return NULL;
			}
			p++;
		} else if (*p == '{' || *p == '[') {
			depth++, p++;
		} else if (*p == '}' || *p == ']') {
			if (--depth < 0)
				return NULL;
			p++;
		} else if (depth > 0 && *p && strchr(" \t\r\n,:", *p)) {
			p++;
		} else {
			size_t n = strcspn(p, " \t\r\n,:\"{}[]");
			if (n == 0)
				return NULL;
			p += n;
		}
	} while (depth > 0);
	return p;
}

static inline const char *breaker_skip_space(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

/* The value of a member of the object, as it is written; nested members are not searched. NULL if
 * there is none, or if the text is no JSON object. */
static inline const char *breaker_member(const char *json, const char *name, size_t *length)
{
	const char *p = breaker_skip_space(json), *found = NULL;

	if (*p != '{')
		return NULL;
	p = breaker_skip_space(p + 1);
	while (*p == '"') {
		const char *this_name = p + 1, *name_end = breaker_skip_value(p);
		p = name_end ? breaker_skip_space(name_end) : "";
		if (*p != ':')
			return NULL;
		const char *value = breaker_skip_space(p + 1);
		p = breaker_skip_value(value);
		if (!p)
			return NULL;
		if ((size_t)(name_end - 1 - this_name) == strlen(name) &&
		    strncmp(this_name, name, strlen(name)) == 0) {
			found = value;
			*length = (size_t)(p - value);
		}
		p = breaker_skip_space(p);
		if (*p != ',')
			break;
		p = breaker_skip_space(p + 1);
	}
	return *p == '}' && !*breaker_skip_space(p + 1) ? found : NULL;
}

/* Copies the string in a member; empty if there is none, or if it does not fit. */
static inline void breaker_text(const char *json, const char *name, char *to, size_t size)
{
	size_t length = 0;
	const char *value = breaker_member(json, name, &length);

	to[0] = '\0';
	if (value && length >= 2 && value[0] == '"' && length - 2 < size)
		snprintf(to, size, "%.*s", (int)(length - 2), value + 1);
}

/* 1 if the member is true, 0 if it is false, else -1. */
static inline int breaker_truth(const char *json, const char *name)
{
	size_t length = 0;
	const char *value = breaker_member(json, name, &length);

	if (value && length == 4 && strncmp(value, "true", 4) == 0)
		return 1;
	return value && length == 5 && strncmp(value, "false", 5) == 0 ? 0 : -1;
}

/* False in the pause after trouble. After the pause one request may ask, and the others pass until
 * it has its answer. */
static inline bool breaker_may_ask(struct breaker *b)
{
	long long now = breaker_now_ms();
	bool yes = true;

	pthread_mutex_lock(&b->lock);
	if (b->retry_at && now < b->retry_at)
		yes = false;
	else if (b->retry_at)
		b->retry_at = now + (b->pause_ms > b->timeout_ms ? b->pause_ms : b->timeout_ms);
	pthread_mutex_unlock(&b->lock);
	return yes;
}

/* Notes that breakerd answered (message is NULL), or logs the message. pause: requests pass for a
 * while without asking. */
static inline void breaker_settle(struct breaker *b, const char *message, bool pause)
{
	char text[640];
	long long now = breaker_now_ms();
	bool tell = false;

	pthread_mutex_lock(&b->lock);
	b->retry_at = pause ? now + b->pause_ms : 0;
	if (message && now >= b->log_at) {
		b->log_at = now + BREAKER_LOG_INTERVAL_MS;
		tell = true;
	}
	pthread_mutex_unlock(&b->lock);
	if (!tell)
		return;
	snprintf(text, sizeof(text), "breakerd: %s: requests pass", message);
	b->log(b->log_arg, text);
}

/* Checks an exchange: true if c->answer has the member `must`, as true or false. */
static inline bool breaker_check(struct breaker *b, struct breaker_connection *c, CURLcode code,
				 const char *must)
{
	long status = 0;
	char message[560], detail[512];

	curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
	c->answer[c->length] = '\0';
	if (code != CURLE_OK) {
		breaker_settle(b,
			       code == CURLE_WRITE_ERROR ? "the answer is too long"
							 : curl_easy_strerror(code),
			       true);
		return false;
	}
	if (status != 200) {
		/* A 504 took the whole store_timeout, and the next would too: pause. Other errors
		 * come at once or concern one circuit. */
		breaker_text(c->answer, "detail", detail, sizeof(detail));
		snprintf(message, sizeof(message), "%ld %s", status, detail);
		breaker_settle(b, message, status == 504);
		return false;
	}
	bool sound = strlen(c->answer) == c->length && breaker_truth(c->answer, must) >= 0;
	breaker_settle(b, sound ? NULL : "this was answered by something that is not breakerd",
		       !sound);
	return sound;
}

/* Makes one exchange. Returns the connection with the answer, for breaker_keep(); NULL without an
 * answer. */
static inline struct breaker_connection *breaker_ask(struct breaker *b, const char *key,
						     const char *verb, const char *body,
						     const char *must)
{
	struct breaker_connection *c = breaker_may_ask(b) ? breaker_take(b) : NULL;
	/* With a length of 0 curl uses strlen(). */
	char *escaped = c ? curl_easy_escape(c->curl, key, 0) : NULL;
	size_t size = strlen(b->url) + (escaped ? strlen(escaped) : 0) + 16;
	char *url = escaped ? (char *)malloc(size) : NULL;
	bool answered = false;

	if (url) {
		snprintf(url, size, "%s%s/%s", b->url, escaped, verb);
		c->length = 0;
		c->sent = 0;
		curl_easy_setopt(c->curl, CURLOPT_URL, url);
		curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
		answered = breaker_check(b, c, curl_easy_perform(c->curl), must);
	}
	free(url);
	curl_free(escaped);
	if (answered || !c)
		return c;
	breaker_keep(b, c);
	return NULL;
}

/* Asks whether a request may go to the upstream. */
static inline struct breaker_decision breaker_acquire(struct breaker *b, const char *key)
{
	struct breaker_decision d;
	struct breaker_connection *c = breaker_ask(b, key, "acquire", "", "allowed");
	size_t length;

	memset(&d, 0, sizeof(d));
	if (!c) {
		d.allowed = d.unreachable = true;
		snprintf(d.reason, sizeof(d.reason), "unreachable");
		return d;
	}
	d.allowed = breaker_truth(c->answer, "allowed") == 1;
	breaker_text(c->answer, "permit", d.permit, sizeof(d.permit));
	breaker_text(c->answer, "state", d.state, sizeof(d.state));
	breaker_text(c->answer, "reason", d.reason, sizeof(d.reason));
	const char *after = breaker_member(c->answer, "retryAfterMs", &length);
	d.retry_after_ms = after ? strtoll(after, NULL, 10) : 0;
	breaker_keep(b, c);
	return d;
}

/* Reports the outcome of a request. permit may be NULL; a duration below 0 is left out. Returns
 * whether breakerd counted the report. */
static inline bool breaker_report(struct breaker *b, const char *key, const char *permit,
				  int outcome, double duration_ms)
{
	static const char *const words[] = {"success", "failure", "ignored"};
	char body[192], how[64], duration[48] = "";
	long long us = (long long)(duration_ms * 1000 + 0.5);

	if (outcome >= 0)
		snprintf(how, sizeof(how), "\"status\":%d", outcome);
	else
		snprintf(how, sizeof(how), "\"outcome\":\"%s\"",
			 words[outcome >= -3 ? -1 - outcome : 1]);
	/* Written as integers, because printf's decimal point depends on the locale. */
	if (duration_ms >= 0)
		snprintf(duration, sizeof(duration), ",\"durationMs\":%lld.%03lld", us / 1000,
			 us % 1000);
	if (permit && permit[0])
		snprintf(body, sizeof(body), "{\"permit\":\"%.64s\",%s%s}", permit, how, duration);
	else
		snprintf(body, sizeof(body), "{%s%s}", how, duration);
	struct breaker_connection *c = breaker_ask(b, key, "report", body, "counted");
	bool counted = c && breaker_truth(c->answer, "counted") == 1;
	if (c)
		breaker_keep(b, c);
	return counted;
}

/* Before a request: true if it may go; then breaker_end() must follow. */
static inline bool breaker_begin(struct breaker *b, const char *key, struct breaker_call *call)
{
	call->breaker = b;
	call->key = key;
	call->decision = breaker_acquire(b, key);
	clock_gettime(CLOCK_MONOTONIC, &call->began);
	return call->decision.allowed;
}

/* After the request: BREAKER_SUCCESS, BREAKER_FAILURE, BREAKER_IGNORED, or the upstream's status.
 */
static inline void breaker_end(struct breaker_call *call, int outcome)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	if (!call->decision.unreachable)
		breaker_report(call->breaker, call->key, call->decision.permit, outcome,
			       (double)(now.tv_sec - call->began.tv_sec) * 1e3 +
				       (double)(now.tv_nsec - call->began.tv_nsec) / 1e6);
}

#ifdef __cplusplus
}
#endif
#endif
