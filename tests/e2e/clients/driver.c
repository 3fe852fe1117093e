/* The program through which test_clients.py drives the C client, as C and as C++; see driver.py. */
#include <breakerd.h>

static struct breaker *breaker;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int messages;
static char last[1024];

static void on_log(void *arg, const char *message)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	messages++;
	snprintf(last, sizeof(last), "%s", message);
	pthread_mutex_unlock(&lock);
}

static const char *empty(const char *word)
{
	return strcmp(word, "-") == 0 ? NULL : word;
}

static const char *dash(const char *word)
{
	return *word ? word : "-";
}

static int outcome_of(const char *word)
{
	static const char *const words[] = {"success", "failure", "ignored"};

	for (int i = 0; i < 3; i++)
		if (strcmp(word, words[i]) == 0)
			return -1 - i;
	return atoi(word);
}

/* The C client takes 0 for the default. `zero` stands for the tests' 0: a value out of range, or the least one. */
static long ms(const char *word, long zero)
{
	return strcmp(word, "0") == 0 ? zero : atol(word);
}

static void make(char **words)
{
	struct breaker_options options;
	const char *error = NULL;

	memset(&options, 0, sizeof(options));
	options.base_url = empty(words[1]);
	options.token = empty(words[2]);
	options.timeout_ms = ms(words[3], -1);
	options.retry_after_trouble_ms = ms(words[4], 1);
	options.log = on_log;
	messages = 0;
	breaker_free(breaker);
	breaker = breaker_new(&options, &error);
	if (breaker)
		puts("made");
	else
		printf("refused: %s\n", error);
}

static void acquire(const char *key)
{
	struct breaker_decision d = breaker_acquire(breaker, key);

	printf("%s %s %s %s %lld %s\n", d.allowed ? "allowed" : "refused", dash(d.permit),
	       dash(d.state), dash(d.reason), d.retry_after_ms,
	       d.unreachable ? "unreachable" : "answered");
}

/* Returns whether the call was allowed. */
static bool run(const char *key, const char *what, struct breaker_call *call)
{
	if (!breaker_begin(breaker, key, call))
		return false;
	if (strcmp(what, "ok") == 0)
		breaker_end(call, BREAKER_SUCCESS);
	else if (strcmp(what, "fail") == 0)
		breaker_end(call, BREAKER_FAILURE);
	else
		breaker_end(call, outcome_of(what));
	return true;
}

struct some {
	pthread_t thread;
	const char *key;
	int n, passed, waited;
};

static void *run_some(void *arg)
{
	struct some *some = (struct some *)arg;
	struct breaker_call call;

	for (int i = 0; i < some->n; i++) {
		long long began = breaker_now_ms();
		some->passed += run(some->key, "ok", &call);
		some->waited += breaker_now_ms() - began >= 250;
	}
	return NULL;
}

static void many(int n, const char *key, int threads)
{
	struct some some[64];
	int passed = 0, waited = 0;

	for (int i = 0; i < threads; i++) {
		some[i].key = key;
		some[i].n = n / threads;
		some[i].passed = some[i].waited = 0;
		if (pthread_create(&some[i].thread, NULL, run_some, &some[i]) != 0)
			abort();
	}
	for (int i = 0; i < threads; i++) {
		pthread_join(some[i].thread, NULL);
		passed += some[i].passed;
		waited += some[i].waited;
	}
	printf("%d passed (%d waited)\n", passed, waited);
}

static void command(char **words)
{
	struct breaker_call call;

	if (strcmp(words[0], "new") == 0) {
		make(words);
	} else if (strcmp(words[0], "acquire") == 0) {
		acquire(words[1]);
	} else if (strcmp(words[0], "report") == 0) {
		double duration = empty(words[4]) ? strtod(words[4], NULL) : -1;
		puts(breaker_report(breaker, words[1], empty(words[2]), outcome_of(words[3]),
				    duration)
			     ? "counted"
			     : "not counted");
	} else if (strcmp(words[0], "run") == 0) {
		if (!run(words[1], words[2], &call))
			printf("refused %s %lld\n", call.decision.reason,
			       call.decision.retry_after_ms);
		else
			puts(strcmp(words[2], "fail") == 0 ? "failed" : "passed");
	} else if (strcmp(words[0], "many") == 0) {
		many(atoi(words[1]), words[2], atoi(words[3]));
	} else {
		printf("%d %s\n", messages, messages ? last : "");
	}
}

int main(void)
{
	static char line[16384];

	setvbuf(stdout, NULL, _IOLBF, 0);
	while (fgets(line, sizeof(line), stdin)) {
		char *words[8] = {NULL}, *at = line;
		line[strcspn(line, "\n")] = '\0';
		for (int i = 0; i < 7 && at; i++) {
			words[i] = at;
			at = strchr(at, '\t');
			if (at)
				*at++ = '\0';
		}
		command(words);
	}
	breaker_free(breaker);
	return 0;
}
