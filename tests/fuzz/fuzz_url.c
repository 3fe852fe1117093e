/*
 * The store's URL: daemon/redis/target.c.
 */
#include "fuzz.h"
#include "redis/target.h"

#include <string.h>

static bool bounded(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static void check_target(const struct redis_target *t)
{
	FUZZ_CHECK(bounded(t->path, sizeof(t->path)) && bounded(t->master, sizeof(t->master)));
	FUZZ_CHECK(bounded(t->user, sizeof(t->user)) && bounded(t->password, sizeof(t->password)));
	switch (t->kind) {
	case REDIS_TCP:
		FUZZ_CHECK(t->host_count == 1);
		break;
	case REDIS_UNIX:
		FUZZ_CHECK(t->host_count == 0 && t->path[0] == '/');
		break;
	case REDIS_SENTINEL:
		FUZZ_CHECK(t->host_count >= 1 && t->host_count <= REDIS_HOSTS_MAX && t->master[0]);
		break;
	}
	for (size_t i = 0; i < t->host_count; i++) {
		FUZZ_CHECK(bounded(t->hosts[i].host, sizeof(t->hosts[i].host)));
		FUZZ_CHECK(t->hosts[i].host[0] && t->hosts[i].port > 0);
	}
}

/* Checks that the text printed for logs is a URL of the same target, without the password. */
static void check_printed(const struct redis_target *t)
{
	char *printed = malloc(1 << 16), why[256];
	struct redis_target again;

	FUZZ_CHECK(printed);
	redis_target_print(t, printed, 1 << 16);
	FUZZ_CHECK(redis_target_parse(printed, &again, why, sizeof(why)));
	FUZZ_CHECK(again.kind == t->kind && again.db == t->db);
	FUZZ_CHECK(strcmp(again.path, t->path) == 0 && strcmp(again.master, t->master) == 0);
	FUZZ_CHECK(strcmp(again.user, t->user) == 0);
	FUZZ_CHECK(again.password[0] == '\0');
	FUZZ_CHECK(again.host_count == t->host_count);
	for (size_t i = 0; i < t->host_count; i++)
		FUZZ_CHECK(strcmp(again.hosts[i].host, t->hosts[i].host) == 0 &&
			   again.hosts[i].port == t->hosts[i].port);
	for (size_t size = 0; size < 24; size++) {
		char *little = malloc(size ? size : 1);

		FUZZ_CHECK(little);
		redis_target_print(t, little, size);
		FUZZ_CHECK(size == 0 || bounded(little, size));
		free(little);
	}
	free(printed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_text text = {(const char *)data, size};
	char *url = fuzz_string(text);
	struct redis_target target;
	char why[256], little[12];

	memset(&target, 0x55, sizeof(target));
	if (redis_target_parse(url, &target, why, sizeof(why))) {
		check_target(&target);
		check_printed(&target);
	} else {
		fuzz_check_sentence(why, sizeof(why));
		FUZZ_CHECK(!redis_target_parse(url, &target, little, sizeof(little)));
		FUZZ_CHECK(bounded(little, sizeof(little)));
	}
	free(url);
	return 0;
}
