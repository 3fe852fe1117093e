/*
 * A minimal libmicrohttpd server: every request gets the same snapshot. The cost of breakerd is
 * compared with that of this program.
 *
 * usage: minimal PORT
 */
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

static enum MHD_Result on_request(void *arg, struct MHD_Connection *connection, const char *url,
				  const char *method, const char *version, const char *upload,
				  size_t *upload_len, void **context)
{
	static char body[] = "{\"state\":\"closed\",\"failureCount\":1,\"successCount\":0,"
			     "\"lastFailureTime\":1700000000000,"
			     "\"lastStateChange\":1700000000000}\n";
	struct MHD_Response *response;
	enum MHD_Result result;

	(void)arg;
	(void)url;
	(void)method;
	(void)version;
	(void)upload;
	/* A response that is queued on the first call would end the connection. */
	if (!*context) {
		*context = body;
		return MHD_YES;
	}
	if (*upload_len) {
		*upload_len = 0;
		return MHD_YES;
	}
	/* A new response for each request, because a real server's answers differ. */
	response = MHD_create_response_from_buffer(sizeof(body) - 1, body, MHD_RESPMEM_MUST_COPY);
	if (!response)
		return MHD_NO;
	MHD_add_response_header(response, "Content-Type", "application/json");
	result = MHD_queue_response(connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

int main(int argc, char *argv[])
{
	unsigned short port = argc > 1 ? (unsigned short)strtoul(argv[1], NULL, 10) : 8080;
	struct sockaddr_in address = {.sin_family = AF_INET,
				      .sin_port = htons(port),
				      .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct MHD_Daemon *daemon =
		MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, NULL,
				 MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_CONNECTION_LIMIT,
				 15000u, MHD_OPTION_END);

	if (!daemon) {
		fprintf(stderr, "minimal: cannot listen on port %u\n", port);
		return 1;
	}
	/* One thread, as in breakerd. */
	while (MHD_run_wait(daemon, -1) == MHD_YES)
		;
	return 1;
}
