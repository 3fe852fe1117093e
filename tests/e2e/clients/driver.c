/* What test_clients.py drives docs/clients/breaker.h with; see driver.py. */
#include "breaker.h"

static const char *const names[] = {"closed", "half-open", "open", "unknown"};

int main(int argc, char **argv)
{
	char line[64], permit[16], outcome[16];

	if (argc != 7)
		return 2;
	struct breaker b = {.threshold = atoll(argv[3]), .open_ms = atoll(argv[4])};
	if (breaker_init(&b, argv[1], argv[2]) < 0)
		return 1;
	curl_easy_setopt(b.curl, CURLOPT_TIMEOUT_MS, atol(argv[6]));
	if (*argv[5]) {
		curl_easy_setopt(b.curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
		curl_easy_setopt(b.curl, CURLOPT_XOAUTH2_BEARER, argv[5]);
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		if (sscanf(line, "leave %15s %15s", permit, outcome) != 2) {
			puts(names[breaker_enter(&b)]);
			continue;
		}
		for (int i = 0; i < 4; i++)
			if (strcmp(permit, names[i]) == 0)
				breaker_leave(&b, (enum breaker_permit)i,
					      strcmp(outcome, "ok") == 0);
		puts("done");
	}
	curl_easy_cleanup(b.curl);
	return 0;
}
