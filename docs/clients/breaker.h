/*
 * A circuit breaker whose state many gateways share through breakerd. C11, libcurl 7.68, in this header.
 *	struct breaker b = {.threshold = 5, .open_ms = 30000};  // one for each thread
 *	if (breaker_init(&b, "http://127.0.0.1:8747", "orders") < 0) ...
 *	enum breaker_permit permit = breaker_enter(&b);
 *	if (permit != BREAKER_OPEN)             // else answer 503
 *		breaker_leave(&b, permit, ask_the_upstream() == 0);
 * When breakerd does not answer, every request is let through. In the end: curl_easy_cleanup(b.curl).
 * With a token_file set CURLOPT_HTTPAUTH to CURLAUTH_BEARER and CURLOPT_XOAUTH2_BEARER on b.curl.
 */
#pragma once
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* All but OPEN mean: go; HALF_OPEN also that it is the probe, UNKNOWN that breakerd did not answer. */
enum breaker_permit { BREAKER_CLOSED, BREAKER_HALF_OPEN, BREAKER_OPEN, BREAKER_UNKNOWN };
struct breaker {
	long long threshold, open_ms;
	CURL *curl;                   /* keeps the connection */
	char url[3200], answer[1024]; /* of the circuit; the last one */
	int length, silent; /* of answer; breakerd does not answer */
};

static size_t breaker_on_data(char *data, size_t size, size_t n, void *arg)
{
	struct breaker *b = arg;
	if (size * n >= sizeof(b->answer) - b->length)
		return 0; /* no answer of breakerd's is so long: the transfer fails */
	b->length += snprintf(b->answer + b->length, size * n + 1, "%.*s", (int)(size * n), data);
	return size * n;
}

/* 0; -1 when memory is short or the key is too long. */
static inline int breaker_init(struct breaker *b, const char *base, const char *key)
{
	char *escaped = curl_easy_escape(b->curl = curl_easy_init(), key, 0);
	int n = escaped ? snprintf(b->url, sizeof(b->url), "%s/v1/circuits/%s", base, escaped) : -1;
	curl_free(escaped);
	curl_easy_setopt(b->curl, CURLOPT_TIMEOUT_MS, 300L); /* for the whole exchange */
	curl_easy_setopt(b->curl, CURLOPT_NOSIGNAL, 1L);     /* threads, and time-outs under a second */
	curl_easy_setopt(b->curl, CURLOPT_PATH_AS_IS, 1L);   /* the key may be ".." */
	curl_easy_setopt(b->curl, CURLOPT_PROXY, "");        /* whatever http_proxy says */
	curl_easy_setopt(b->curl, CURLOPT_WRITEFUNCTION, breaker_on_data);
	curl_easy_setopt(b->curl, CURLOPT_WRITEDATA, b);
	return n > 0 && n < (int)sizeof(b->url) - 16 ? 0 : -1; /* 16: for the verb */
}

/* 1: b->answer is the circuit; 0: it was no longer in the state "from"; -1: no answer. Without a verb it is a GET. */
static inline int breaker_ask(struct breaker *b, const char *verb, const char *from, const char *to)
{
	char body[64] = "", *end = strchr(b->url, '\0');
	long status = b->answer[b->length = 0] = '\0';
	if (from)
		snprintf(body, sizeof(body), "{\"from\":\"%s\",\"to\":\"%s\"}", from, to);
	curl_easy_setopt(b->curl, CURLOPT_URL, strcat(b->url, verb ? verb : ""));
	*end = '\0';
	verb ? curl_easy_setopt(b->curl, CURLOPT_COPYPOSTFIELDS, body) : curl_easy_setopt(b->curl, CURLOPT_HTTPGET, 1L);
	CURLcode code = curl_easy_perform(b->curl);
	curl_easy_getinfo(b->curl, CURLINFO_RESPONSE_CODE, &status);
	int said = b->silent;
	b->silent = code || (status != 200 && status != 409);
	if (b->silent && !said) /* once, not for each request */
		fprintf(stderr, "breakerd: %s: requests are let through\n", code ? curl_easy_strerror(code) : b->answer);
	return b->silent ? -1 : status == 200;
}

static inline long long breaker_number(const struct breaker *b, const char *name)
{
	const char *at = strstr(b->answer, name); /* "name":number */
	return at ? strtoll(at + strlen(name) + 2, NULL, 10) : 0;
}

static inline enum breaker_permit breaker_enter(struct breaker *b)
{
	struct timespec now;
	if (breaker_ask(b, NULL, NULL, NULL) != 1 || strstr(b->answer, "\"closed\""))
		return b->silent ? BREAKER_UNKNOWN : BREAKER_CLOSED;
	clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec * 1000LL + now.tv_nsec / 1000000 - breaker_number(b, "lastStateChange") < b->open_ms)
		return BREAKER_OPEN;
	if (strstr(b->answer, "\"half-open\"")) /* whoever probed never came back */
		return breaker_ask(b, "/transition", "half-open", "open"), BREAKER_OPEN;
	int won = breaker_ask(b, "/transition", "open", "half-open"); /* of all gateways, one */
	return won < 0 ? BREAKER_UNKNOWN : won ? BREAKER_HALF_OPEN : BREAKER_OPEN;
}

/* Says how the request went that breaker_enter() gave the permit for. */
static inline void breaker_leave(struct breaker *b, enum breaker_permit permit, int ok)
{
	int go = permit == BREAKER_CLOSED || permit == BREAKER_HALF_OPEN;
	int done = go ? breaker_ask(b, ok ? "/success" : "/failure", NULL, NULL) : -1;
	if (permit == BREAKER_HALF_OPEN)
		breaker_ask(b, "/transition", "half-open", ok ? "closed" : "open");
	else if (!ok && done == 1 && breaker_number(b, "failureCount") >= b->threshold)
		breaker_ask(b, "/transition", "closed", "open");
}
