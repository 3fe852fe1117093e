/*
 * Who may ask: see access.h.
 */
#include "api/access.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

/* Takes the host out of "host", "host:port", "[v6]" or "[v6]:port" (RFC 9110, section 7.2).
 * False if it is none of these. */
static bool split_host(const char *value, char *host, size_t size)
{
	const char *begin = value, *end, *port;
	size_t len;

	if (*value == '[') {
		begin = value + 1;
		end = strchr(begin, ']');
		if (!end || !memchr(begin, ':', (size_t)(end - begin)))
			return false; /* only an IPv6 address stands in brackets */
		port = end + 1;
	} else {
		end = begin + strcspn(begin, ":");
		port = end;
	}
	if (*port == ':')
		port += 1 + strspn(port + 1, "0123456789");
	len = (size_t)(end - begin);
	if (*port != '\0' || len == 0 || len >= size)
		return false;
	memcpy(host, begin, len);
	host[len] = '\0';
	return true;
}

/* Writes an IPv6 address as inet_ntop(3) does, like those that are allowed. */
static void respell(char *host, size_t size)
{
	struct in6_addr address;

	if (inet_pton(AF_INET6, host, &address) == 1)
		inet_ntop(AF_INET6, &address, host, (socklen_t)size);
}

static bool is_address(const char *host)
{
	unsigned char address[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static bool host_is_ours(const struct api_access *access, const char *value)
{
	char host[256];

	if (!split_host(value, host, sizeof(host)))
		return false;
	if (*value == '[')
		respell(host, sizeof(host));
	for (size_t i = 0; i < access->allowed_host_count; i++) {
		if (strcasecmp(access->allowed_hosts[i], host) == 0)
			return true;
	}
	/* DNS rebinding needs a name. An address in Host is the one that the browser connected to.
	 */
	return access->any_address && is_address(host);
}

/* An Origin (RFC 6454) is ours if its host is the Host header's. The scheme does not matter, for a
 * proxy in front may speak TLS. */
static bool origin_is_ours(const char *origin, const char *host)
{
	if (strncmp(origin, "http://", 7) == 0)
		origin += 7;
	else if (strncmp(origin, "https://", 8) == 0)
		origin += 8;
	else
		return false;
	return host && strcasecmp(origin, host) == 0;
}

/* Takes a time that depends on the length of what was sent alone. */
static bool token_equal(const char *given, size_t given_len, const char *token, size_t token_len)
{
	unsigned char differ = given_len != token_len;

	for (size_t i = 0; i < given_len; i++)
		differ |= (unsigned char)(given[i] ^ token[token_len ? i % token_len : 0]);
	return differ == 0;
}

/* True if the request has "Bearer", spaces and one of the tokens (RFC 6750, section 2.1). Compares
 * with all tokens, so that the time does not tell which one it is. */
static bool token_given(const struct http_request *rq, const char *tokens)
{
	unsigned count;
	const char *value = http_request_header(rq, HTTP_FIELD_AUTHORIZATION, &count);
	size_t value_len, len;
	bool equal = false;

	if (count != 1 || strncasecmp(value, "Bearer ", 7) != 0)
		return false;
	value += 7;
	value += strspn(value, " ");
	value_len = strlen(value);
	for (; *tokens; tokens += len + (tokens[len] == '\n')) {
		len = strcspn(tokens, "\n");
		equal |= token_equal(value, value_len, tokens, len);
	}
	return equal;
}

#define AUTHORITY_MAX 256

/* True for the probes, which say nothing of circuits, and for all that metrics_listen answers. */
static bool is_for_anybody(const struct http_request *rq, enum api_route route)
{
	return route == ROUTE_HEALTHZ || route == ROUTE_READYZ ||
	       http_request_purpose(rq) == ACCESS_METRICS;
}

/*
 * Returns the host that was asked for if it is none of ours, else NULL. Protects from DNS
 * rebinding: a web page whose name was made to resolve to our address sends that name. Any host
 * passes on a unix socket, which no browser reaches, and from probes, which may use any address.
 */
static const char *foreign_host(const struct api_access *access, const struct http_request *rq,
				enum api_route route, char authority[AUTHORITY_MAX])
{
	unsigned count;
	const char *host = http_request_header(rq, HTTP_FIELD_HOST, &count);

	if (is_for_anybody(rq, route) || http_request_is_unix(rq))
		return NULL;
	/* The host of a target in absolute form replaces Host (RFC 9112, section 3.2.2). Both must
	 * be ours. */
	if (http_request_authority(rq, authority, AUTHORITY_MAX) &&
	    !host_is_ours(access, authority))
		return authority;
	/* HTTP/1.0 need not send a Host, and no browser leaves it out. */
	return count > 1 || (host && !host_is_ours(access, host)) ? host : NULL;
}

/* True for a gateway's sub-request: it has the headers of the end user's browser, and one that only
 * the gateway can have added. */
static bool any_origin_may(const struct http_request *rq, enum api_route route)
{
	return api_route_is_check(route) && http_request_header(rq, HTTP_FIELD_GATEWAY, NULL);
}

bool access_is_browser(const struct http_request *rq)
{
	static const char html[] = "text/html";
	const char *accept = http_request_header(rq, HTTP_FIELD_ACCEPT, NULL);

	return accept && strncasecmp(accept, html, sizeof(html) - 1) == 0 &&
	       strchr(",; \t", accept[sizeof(html) - 1]);
}

/* The page needs none: it has no data, and a browser cannot send a token before it has the page. */
static bool needs_token(const struct http_request *rq, enum api_route route)
{
	enum http_method method = http_request_method(rq);

	if (route == ROUTE_INDEX)
		return (method != HTTP_GET && method != HTTP_HEAD) || !access_is_browser(rq);
	return !is_for_anybody(rq, route) && route != ROUTE_PAGE;
}

bool access_check(const struct api_access *access, const struct http_request *rq,
		  enum api_route route, struct access_verdict *verdict)
{
	unsigned origins, sites;
	const char *origin = http_request_header(rq, HTTP_FIELD_ORIGIN, &origins);
	const char *site = http_request_header(rq, HTTP_FIELD_SEC_FETCH_SITE, &sites);
	char authority[AUTHORITY_MAX];
	const char *foreign = foreign_host(access, rq, route, authority);

	if (foreign) {
		verdict->problem = PROBLEM_MISDIRECTED_REQUEST;
		snprintf(
			verdict->detail, sizeof(verdict->detail),
			"The Host \"%.100s\" is none of ours: ask for the address that is listened "
			"on, or add the name to allowed_hosts.",
			foreign);
		return false;
	}
	if (any_origin_may(rq, route)) {
		sites = origins = 0;
		site = origin = NULL;
	}
	if (sites > 1 || (site && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0)) {
		verdict->problem = PROBLEM_FORBIDDEN_ORIGIN;
		snprintf(
			verdict->detail, sizeof(verdict->detail),
			"A web page of another origin asked (Sec-Fetch-Site: %.60s): only programs "
			"and pages of this daemon's own origin may.",
			site);
		return false;
	}
	if (origins > 1 ||
	    (origin && !origin_is_ours(origin, http_request_header(rq, HTTP_FIELD_HOST, NULL)))) {
		verdict->problem = PROBLEM_FORBIDDEN_ORIGIN;
		snprintf(verdict->detail, sizeof(verdict->detail),
			 "A web page of another origin asked (Origin: %.100s): only programs and "
			 "pages of this daemon's own origin may.",
			 origin);
		return false;
	}
	if (access->token && needs_token(rq, route) && !token_given(rq, access->token)) {
		verdict->problem = PROBLEM_UNAUTHORIZED;
		snprintf(verdict->detail, sizeof(verdict->detail),
			 "Send the token of token_file: Authorization: Bearer TOKEN.");
		return false;
	}
	return true;
}
