/* The limit on open files: see descriptors.h. */
#include "descriptors.h"

#include "http/http.h"

#include <dirent.h>
#include <sys/resource.h>

/* Descriptors that are opened later: 3 of libmicrohttpd, 2 each of the link to Redis and the
 * channel while they are replaced, 2 for look-ups, 3 for files. Those for sentinels are added. */
#define SPARE 12
/* How many are taken to be open where /proc is missing. */
#define OPEN_GUESS 24

unsigned descriptors_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned n = 0;

	if (!dir)
		return OPEN_GUESS;
	for (struct dirent *e; (e = readdir(dir));)
		n += e->d_name[0] != '.';
	closedir(dir);
	return n - 1; /* without the open directory itself */
}

static rlim_t kept_back(const struct config *config, unsigned others)
{
	/* For connections of metrics_listen, and as many that linger. */
	rlim_t reserved = config->metrics_listen.count ? 2 * HTTP_RESERVED_CONNECTIONS : 0;

	return (rlim_t)others + SPARE + reserved +
	       (config->store_is_redis ? config->redis.host_count : 0);
}

static rlim_t wanted(const struct config *config, unsigned others)
{
	return (rlim_t)config->max_connections + config->max_streams + kept_back(config, others);
}

void descriptors_raise(const struct config *config, unsigned others)
{
	rlim_t want = wanted(config, others);
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want)
		return;
	limit.rlim_cur = limit.rlim_max < want ? limit.rlim_max : want;
	setrlimit(RLIMIT_NOFILE, &limit);
}

bool descriptors_share(const struct config *config, unsigned others, struct log *log,
		       struct descriptor_share *share)
{
	rlim_t want = wanted(config, others), back = kept_back(config, others), left;
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= want) {
		*share = (struct descriptor_share){config->max_connections, config->max_streams};
		return true;
	}
	if (limit.rlim_cur <= back)
		return false;
	left = limit.rlim_cur - back;
	share->max_streams = (unsigned)(left * config->max_streams / (want - back));
	share->max_connections = (unsigned)left - share->max_streams;
	log_warning(log, "few_descriptors",
		    "limit=%llu wanted=%llu max_connections=%u max_streams=%u hint=\"raise the "
		    "limit on open files, or lower max_connections and max_streams\"",
		    (unsigned long long)limit.rlim_cur, (unsigned long long)want,
		    share->max_connections, share->max_streams);
	return true;
}
