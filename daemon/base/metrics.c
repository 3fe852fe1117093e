/* The text that Prometheus reads: see metrics.h. */
#include "base/metrics.h"

#include "base/clock.h"

#include <dirent.h>
#include <event2/buffer.h>
#include <event2/event.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* A bucket's upper bound in microseconds, and in seconds as the label `le` has it. */
static const struct bucket {
	uint64_t us;
	const char *le;
} buckets[] = {
	{50, "0.00005"},  {100, "0.0001"},  {250, "0.00025"}, {500, "0.0005"},  {1000, "0.001"},
	{2500, "0.0025"}, {5000, "0.005"},  {10000, "0.01"},  {25000, "0.025"}, {50000, "0.05"},
	{100000, "0.1"},  {250000, "0.25"}, {500000, "0.5"},  {1000000, "1"},   {2500000, "2.5"},
	{5000000, "5"},   {10000000, "10"},
};
_Static_assert(ARRAY_SIZE(buckets) == METRICS_BUCKETS - 1, "the last bucket is +Inf");

void metrics_observe(struct metrics_histogram *h, uint64_t duration_ns)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(buckets) && duration_ns > buckets[i].us * 1000)
		i++;
	h->buckets[i]++;
	h->sum_ns += duration_ns;
}

static uint64_t stopwatch_ns(const struct metrics_stopwatch *watch)
{
	return watch->total_ns + (watch->since_ns ? clock_ns() - watch->since_ns : 0);
}

void metrics_run(struct metrics_stopwatch *watch, bool run)
{
	watch->total_ns = stopwatch_ns(watch);
	watch->since_ns = run ? clock_ns() : 0;
}

void metrics_operation(struct metrics *m, unsigned operation, unsigned result, uint64_t duration_ns)
{
	if (operation >= METRICS_OPERATIONS || result >= METRICS_RESULTS)
		return;
	m->operations[operation][result]++;
	metrics_observe(&m->operation_seconds[operation], duration_ns);
}

void metrics_request(struct metrics *m, unsigned route, unsigned method, int status,
		     uint64_t duration_ns)
{
	if (route >= METRICS_ROUTES)
		route = 0;
	if (method >= METRICS_METHODS)
		method = METRICS_METHODS - 1;
	if (status < 100 || status >= METRICS_STATUSES)
		status = 500;
	m->http_requests[route][method][status]++;
	metrics_observe(&m->http_seconds, duration_ns);
}

/* The text being written. A failed write sets `failed`, which is checked once, at the end. */
struct writer {
	struct evbuffer *out;
	bool failed;
};

__attribute__((format(printf, 2, 3))) static void emit(struct writer *w, const char *fmt, ...)
{
	va_list ap;

	if (w->failed)
		return;
	va_start(ap, fmt);
	if (evbuffer_add_vprintf(w->out, fmt, ap) < 0)
		w->failed = true;
	va_end(ap);
}

static void emit_head(struct writer *w, const char *name, const char *type, const char *help)
{
	emit(w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A label's value, escaped as the format asks (backslash, quote, newline) and cut at 255. */
struct label {
	char text[256];
};
static struct label label(const char *value)
{
	struct label l;
	size_t n = 0;

	for (; *value && n < sizeof(l.text) - 2; value++) {
		if (*value == '\\' || *value == '"' || *value == '\n')
			l.text[n++] = '\\';
		l.text[n++] = *value == '\n' ? 'n' : *value;
	}
	l.text[n] = '\0';
	return l;
}

/* `labels` is "" or a list that ends in a comma. */
static void emit_histogram(struct writer *w, const char *name, const char *labels,
			   const struct metrics_histogram *h)
{
	int cut = (int)strlen(labels) - 1;
	uint64_t count = 0;

	for (size_t i = 0; i < ARRAY_SIZE(buckets); i++) {
		count += h->buckets[i];
		emit(w, "%s_bucket{%sle=\"%s\"} %" PRIu64 "\n", name, labels, buckets[i].le, count);
	}
	count += h->buckets[ARRAY_SIZE(buckets)];
	emit(w, "%s_bucket{%sle=\"+Inf\"} %" PRIu64 "\n", name, labels, count);
	if (cut < 0) {
		emit(w, "%s_sum %.9f\n%s_count %" PRIu64 "\n", name, (double)h->sum_ns / 1e9, name,
		     count);
		return;
	}
	emit(w, "%s_sum{%.*s} %.9f\n", name, cut, labels, (double)h->sum_ns / 1e9);
	emit(w, "%s_count{%.*s} %" PRIu64 "\n", name, cut, labels, count);
}

static void emit_store(struct writer *w, const struct metrics *m)
{
	emit_head(w, "breakerd_store_operations_total", "counter",
		  "Store operations, by how they ended.");
	for (unsigned op = 0; op < m->operation_names.count; op++)
		for (unsigned r = 0; r < m->result_names.count; r++)
			emit(w,
			     "breakerd_store_operations_total{operation=\"%s\",result=\"%s\"} "
			     "%" PRIu64 "\n",
			     m->operation_names.name(op), m->result_names.name(r),
			     m->operations[op][r]);

	emit_head(w, "breakerd_store_operation_duration_seconds", "histogram",
		  "How long store operations took.");
	for (unsigned op = 0; op < m->operation_names.count; op++) {
		char labels[64];

		snprintf(labels, sizeof(labels), "operation=\"%s\",", m->operation_names.name(op));
		emit_histogram(w, "breakerd_store_operation_duration_seconds", labels,
			       &m->operation_seconds[op]);
	}
}

static void emit_circuits(struct writer *w, const struct metrics *m)
{
	/* Closed circuits in Redis are not counted. Zero would be wrong, so that series is left
	 * out.
	 */
	bool embedded = m->redis_states.count == 0;
	const int64_t *count = embedded ? m->circuits : m->watched;

	emit_head(w, "breakerd_circuits", "gauge",
		  "Circuits by state; on Redis those that are not closed, of the whole prefix.");
	for (unsigned s = embedded ? CIRCUIT_CLOSED : CIRCUIT_OPEN; s < CIRCUIT_STATES; s++)
		emit(w, "breakerd_circuits{state=\"%s\"} %" PRId64 "\n",
		     circuit_state_name((enum circuit_state)s), count[s]);

	emit_head(w, "breakerd_transitions_total", "counter",
		  "Transitions made through this daemon.");
	for (unsigned from = 0; from < CIRCUIT_STATES; from++)
		for (unsigned to = 0; to < CIRCUIT_STATES; to++)
			emit(w, "breakerd_transitions_total{from=\"%s\",to=\"%s\"} %" PRIu64 "\n",
			     circuit_state_name((enum circuit_state)from),
			     circuit_state_name((enum circuit_state)to), m->transitions[from][to]);
}

static void emit_operator(struct writer *w, const struct metrics *m)
{
	emit_head(w, "breakerd_overrides", "gauge", "Overrides that hold, as far as is known.");
	emit(w, "breakerd_overrides{mode=\"forced-open\"} %" PRId64 "\n", m->overrides[0]);
	emit(w, "breakerd_overrides{mode=\"forced-closed\"} %" PRId64 "\n", m->overrides[1]);
	emit_head(w, "breakerd_events_total", "counter",
		  "Events sent to streams, and streams that were ended for being too far behind.");
	emit(w, "breakerd_events_total{result=\"sent\"} %" PRIu64 "\n", m->events_sent);
	emit(w, "breakerd_events_total{result=\"lost\"} %" PRIu64 "\n", m->events_lost);
}

static void emit_decisions(struct writer *w, const struct metrics *m)
{
	emit_head(w, "breakerd_decisions_total", "counter",
		  "Answers to acquire, by the reason given.");
	for (unsigned r = 0; r < m->decision_reasons.count; r++)
		emit(w, "breakerd_decisions_total{reason=\"%s\"} %" PRIu64 "\n",
		     m->decision_reasons.name(r), m->decisions[r]);

	emit_head(w, "breakerd_reports_total", "counter",
		  "Reports answered, by outcome and what became of them.");
	for (unsigned o = 0; o < m->report_outcomes.count; o++)
		for (unsigned r = 0; r < m->report_results.count; r++)
			emit(w,
			     "breakerd_reports_total{outcome=\"%s\",result=\"%s\"} %" PRIu64 "\n",
			     m->report_outcomes.name(o), m->report_results.name(r),
			     m->reports[o][r]);
}

static void emit_report_lines(struct writer *w, const struct metrics *m)
{
	if (m->report_line_results.count == 0)
		return;
	emit_head(w, "breakerd_report_lines_total", "counter",
		  "Lines of access logs read at report_listen, by what became of them.");
	for (unsigned r = 0; r < m->report_line_results.count; r++)
		emit(w, "breakerd_report_lines_total{result=\"%s\"} %" PRIu64 "\n",
		     m->report_line_results.name(r), m->report_lines[r]);
}

static void emit_http(struct writer *w, const struct metrics *m)
{
	emit_head(w, "breakerd_http_requests_total", "counter", "HTTP requests answered.");
	for (unsigned r = 0; r < m->routes.count; r++)
		for (unsigned v = 0; v < m->methods.count; v++)
			for (unsigned s = 0; s < METRICS_STATUSES; s++) {
				if (!m->http_requests[r][v][s])
					continue;
				emit(w,
				     "breakerd_http_requests_total{route=\"%s\",method=\"%s\","
				     "status=\"%u\"} %" PRIu64 "\n",
				     label(m->routes.name(r)).text, m->methods.name(v), s,
				     m->http_requests[r][v][s]);
			}
}

/* The link's state is a series for each state, 1 for the current one, as usual in Prometheus. */
static void emit_link(struct writer *w, const struct metrics *m)
{
	if (m->redis_states.count == 0)
		return;
	emit_head(w, "breakerd_redis_link_state", "gauge",
		  "1 for the state that the link to Redis is in, 0 for the others.");
	for (unsigned s = 0; s < m->redis_states.count; s++)
		emit(w, "breakerd_redis_link_state{state=\"%s\"} %d\n", m->redis_states.name(s),
		     m->redis_state == s);

	emit_head(w, "breakerd_redis_failures_total", "counter",
		  "Attempts and connections to Redis that failed, by what was wrong.");
	for (unsigned f = 0; f < m->redis_reasons.count; f++)
		emit(w, "breakerd_redis_failures_total{reason=\"%s\"} %" PRIu64 "\n",
		     m->redis_reasons.name(f), m->redis_failures[f]);
}

/* Reads a small file of /proc as a string. False if it cannot be read. */
static bool slurp(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n = -1;

	if (fd < 0)
		return false;
	while (used < size - 1 && (n = read(fd, buf + used, size - 1 - used)) > 0)
		used += (size_t)n;
	close(fd);
	buf[used] = '\0';
	return n >= 0 && used > 0;
}

/* When the machine was started, epoch seconds; 0 if unknown (proc(5), /proc/stat). */
static double boot_time(void)
{
	FILE *f = fopen("/proc/stat", "re");
	char line[256];
	double btime = 0;

	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "btime %lf", &btime) == 1)
			break;
	fclose(f);
	return btime;
}

static void emit_gauge(struct writer *w, const char *name, const char *type, const char *help,
		       double value)
{
	emit_head(w, name, type, help);
	emit(w, "%s %.17g\n", name, value);
}

/* CPU, memory and start time, from proc(5), /proc/self/stat. */
static void emit_process_stat(struct writer *w)
{
	char text[1024];
	const char *p;
	unsigned long utime, stime, vsize;
	unsigned long long start;
	long rss;
	double ticks = (double)sysconf(_SC_CLK_TCK), boot = boot_time();

	/* The second field is the name of the program in parentheses, and may hold any character.
	 */
	if (!slurp("/proc/self/stat", text, sizeof(text)) || !(p = strrchr(text, ')')))
		return;
	if (sscanf(p + 1,
		   " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu %*d %*d %*d %*d %*d %*d "
		   "%llu %lu %ld",
		   &utime, &stime, &start, &vsize, &rss) != 5)
		return;
	emit_gauge(w, "process_cpu_seconds_total", "counter",
		   "Total user and system CPU time spent in seconds.",
		   (double)(utime + stime) / ticks);
	emit_gauge(w, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.",
		   (double)rss * (double)sysconf(_SC_PAGESIZE));
	emit_gauge(w, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.",
		   (double)vsize);
	if (boot > 0)
		emit_gauge(w, "process_start_time_seconds", "gauge",
			   "Start time of the process since unix epoch in seconds.",
			   boot + (double)start / ticks);
}

static void emit_process_fds(struct writer *w)
{
	DIR *dir = opendir("/proc/self/fd");
	struct rlimit limit;
	unsigned n = 0;

	if (dir) {
		for (struct dirent *e; (e = readdir(dir));)
			n += e->d_name[0] != '.';
		closedir(dir);
		/* Not counted: the open directory itself. */
		emit_gauge(w, "process_open_fds", "gauge", "Number of open file descriptors.",
			   n ? n - 1 : 0);
	}
	if (!getrlimit(RLIMIT_NOFILE, &limit))
		emit_gauge(w, "process_max_fds", "gauge",
			   "Maximum number of open file descriptors.", (double)limit.rlim_cur);
}

static void emit_build_info(struct writer *w, const struct metrics *m)
{
	emit_head(w, "breakerd_build_info", "gauge",
		  "Always 1; the labels say what this is and runs on.");
	emit(w,
	     "breakerd_build_info{version=\"%s\",libevent=\"%s\",libmicrohttpd=\"%s\","
	     "hiredis=\"%s\"} 1\n",
	     label(BREAKERD_VERSION).text, label(event_get_version()).text,
	     label(m->microhttpd_version ? m->microhttpd_version : "").text,
	     label(m->hiredis_version ? m->hiredis_version : "").text);
}

int metrics_write(const struct metrics *m, struct evbuffer *out)
{
	struct writer w = {.out = out};

	emit_build_info(&w, m);
#define X(field, name, help)                                                                       \
	emit_head(&w, "breakerd_" name, "counter", help);                                          \
	emit(&w, "breakerd_" name " %" PRIu64 "\n", m->field);
	METRICS_COUNTERS(X)
#undef X
#define X(field, name, help)                                                                       \
	emit_head(&w, "breakerd_" name, "gauge", help);                                            \
	emit(&w, "breakerd_" name " %" PRId64 "\n", m->field);
	METRICS_GAUGES(X)
#undef X
#define X(field, name, help)                                                                       \
	emit_head(&w, "breakerd_" name, "counter", help);                                          \
	emit(&w, "breakerd_" name " %.3f\n", (double)stopwatch_ns(&m->field) / 1e9);
	METRICS_STOPWATCHES(X)
#undef X
#define X(field, name, help)                                                                       \
	emit_head(&w, "breakerd_" name, "histogram", help);                                        \
	emit_histogram(&w, "breakerd_" name, "", &m->field);
	METRICS_HISTOGRAMS(X)
#undef X
	emit_link(&w, m);
	emit_circuits(&w, m);
	emit_operator(&w, m);
	emit_decisions(&w, m);
	emit_report_lines(&w, m);
	emit_store(&w, m);
	emit_http(&w, m);
	emit_process_stat(&w);
	emit_process_fds(&w);
	return w.failed ? -1 : 0;
}
