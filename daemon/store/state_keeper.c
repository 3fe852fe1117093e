#include "store/state_keeper.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/timer.h"
#include "store/driver.h"
#include "store/state_file.h"
#include "store/state_path.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A save that fails is tried again after each interval, and logged once a minute. */
#define WARN_EVERY_MS 60000

/* How long a child may take. A million circuits take a second on a disk that works. */
#define CHILD_MS           60000
#define CIRCUITS_A_MS_MORE 10

/* How long the end may take, unless the caller says; and how long of that a killed child is waited
 * for, which does not die while it hangs in the disk. */
#define END_MS      5000
#define DEATH_MS    300
#define END_POLL_US 5000

struct state_keeper {
	struct state_path file;
	struct state_keeper_options options; /* without path: `file` has it */
	struct event_base *base;
	struct circuit_table *table;
	struct store_clock clock;
	struct metrics *metrics;
	struct log *log;
	/* The number of changes: all; those in the last good save; those in the save under way. */
	uint64_t changes, saved, saving;
	struct event *timer; /* the next save is due; with a child: it takes too long */
	bool armed;          /* the timer is set */
	struct event *child_ends;
	pid_t child;      /* 0: none */
	bool child_saves; /* the child is the one for save_done */
	bool killed;      /* the child took too long */
	/* The callback of state_keeper_save; NULL: none waits. */
	void (*save_done)(void *arg);
	void *save_arg;
	int64_t started_ms;
	int64_t warned_ms; /* 0: not since the last good save */
};

static struct state_moment moment_of(const struct state_keeper *k)
{
	int64_t wall = store_now_ms(&k->clock);

	return (struct state_moment){
		.wall_ms = wall,
		.table_ms =
			k->clock.monotonic_ms ? k->clock.monotonic_ms(k->clock.arg) : clock_ms(),
	};
}

/* --- the result of a save */

static void save_failed(struct state_keeper *k, const char *reason)
{
	int64_t now = clock_ms();

	if (k->metrics)
		k->metrics->state_save_errors++;
	if (k->warned_ms && now - k->warned_ms < WARN_EVERY_MS)
		return;
	k->warned_ms = now;
	log_warning(k->log, "state_save_failed", "file=%s reason=%s",
		    log_quote_text(k->file.path).text, log_quote_text(reason).text);
}

static void save_succeeded(struct state_keeper *k)
{
	k->saved = k->saving;
	if (k->metrics) {
		k->metrics->state_saves++;
		k->metrics->state_last_save = store_now_ms(&k->clock) / 1000;
	}
	log_write(k->log, k->warned_ms ? LOG_LEVEL_INFO : LOG_LEVEL_DEBUG, "state_saved",
		  "file=%s took_ms=%lld", log_quote_text(k->file.path).text,
		  (long long)(clock_ms() - k->started_ms));
	k->warned_ms = 0;
}

/* --- the child */

/* Writes the file and ends. First it drops what it has from the parent: signal handlers, which
 * would wake the parent's loop, and sockets, which would stay open. */
static void __attribute__((noreturn))
child_run(const struct state_keeper *k, const struct state_moment *now, pid_t parent)
{
	sigset_t none;

	/* If the parent is gone, another process may keep the file: it must not be replaced. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(ECHILD);
	for (int signo = 1; signo < NSIG; signo++)
		signal(signo, SIG_DFL);
	/* These may be sent to the whole group. The parent decides what becomes of the child. */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	closefrom(STDERR_FILENO + 1);
	_exit(state_file_write(k->file.path, k->table, k->options.queues, now));
}

static pid_t child_start(struct state_keeper *k)
{
	struct state_moment now = moment_of(k);
	pid_t parent = getpid(), child;
	sigset_t all, before;
	int saved;

	/* Until child_run resets them, the parent's handlers must not run in the child. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	child = fork();
	if (child == 0)
		child_run(k, &now, parent);
	saved = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	errno = saved;
	return child;
}

static void arm(struct state_keeper *k, int64_t wait_ms)
{
	k->armed = timer_arm(k->timer, wait_ms) == 0;
}

static int64_t child_may_take(const struct state_keeper *k)
{
	if (k->options.timeout_ms)
		return k->options.timeout_ms;
	return CHILD_MS + (int64_t)(circuit_table_count(k->table) / CIRCUITS_A_MS_MORE);
}

/* The save that state_keeper_save asked for is over. */
static void finish_save(struct state_keeper *k, bool saved)
{
	void (*done)(void *arg) = k->save_done;

	if (!done)
		return;
	/* The old file must not be taken for the state as it is now. */
	if (!saved)
		unlink(k->file.path);
	k->save_done = NULL;
	k->child_saves = false;
	done(k->save_arg);
}

static void save_start(struct state_keeper *k)
{
	uint64_t before = clock_ns(), after;
	pid_t child;

	k->started_ms = (int64_t)(before / 1000000);
	child = child_start(k);
	after = clock_ns();
	if (child < 0) {
		save_failed(k, strerror(errno));
		arm(k, k->options.interval_ms);
		finish_save(k, false);
		return;
	}
	k->child_saves = k->save_done != NULL;
	log_debug(k->log, "state_saving", "child=%ld fork_us=%lld", (long)child,
		  (long long)((after - before) / 1000));
	k->child = child;
	k->saving = k->changes;
	arm(k, child_may_take(k));
}

static void child_ended(struct state_keeper *k, int status)
{
	char reason[64];

	k->child = 0;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
		save_succeeded(k);
	} else if (WIFEXITED(status)) {
		save_failed(k, strerror(WEXITSTATUS(status)));
	} else {
		unlink(k->file.tmp);
		snprintf(reason, sizeof(reason), "the child that writes it ended by signal %d",
			 WTERMSIG(status));
		if (!k->killed) /* else it was logged already */
			save_failed(k, reason);
	}
	k->killed = false;
	evtimer_del(k->timer);
	k->armed = false;
	if (k->child_saves)
		finish_save(k, WIFEXITED(status) && WEXITSTATUS(status) == 0);
	if (k->save_done && !k->child)
		save_start(k);
	else if (k->changes != k->saved)
		arm(k, k->options.interval_ms);
}

static void on_child_ends(evutil_socket_t fd, short what, void *arg)
{
	struct state_keeper *k = arg;
	int status;

	(void)fd;
	(void)what;
	if (k->child && waitpid(k->child, &status, WNOHANG) == k->child)
		child_ended(k, status);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	struct state_keeper *k = arg;

	(void)fd;
	(void)what;
	k->armed = false;
	if (!k->child) {
		save_start(k);
		return;
	}
	/* The child may hang in the kernel: its end is not waited for here. */
	k->killed = true;
	kill(k->child, SIGKILL);
	save_failed(k, "it took too long");
}

void state_keeper_changed(struct state_keeper *k)
{
	k->changes++;
	if (!k->armed && !k->child)
		arm(k, k->options.interval_ms);
}

void state_keeper_save(struct state_keeper *k, void (*done)(void *arg), void *arg)
{
	k->save_done = done;
	k->save_arg = arg;
	k->child_saves = false;
	k->changes++;
	if (k->child)
		return;
	evtimer_del(k->timer);
	k->armed = false;
	save_start(k);
}

/* --- start */

static int keep_aside(struct state_keeper *k, const char *damage, char *why, size_t why_size)
{
	char name[PATH_MAX];

	state_path_spare(&k->file, "damaged", name);
	if (rename(k->file.path, name) != 0) {
		snprintf(why, why_size, "state_file %s is damaged and cannot be renamed to %s: %s",
			 k->file.path, name, strerror(errno));
		return -1;
	}
	log_warning(k->log, "state_damaged",
		    "file=%s reason=%s kept_as=%s hint=\"starting without circuits\"",
		    log_quote_text(k->file.path).text, log_quote_text(damage).text,
		    log_quote_text(name).text);
	return 0;
}

/* The file has the circuits of an embedded store. They are not put into Redis, nor overwritten. */
static int keep_embedded(struct state_keeper *k, size_t circuits, char *why, size_t why_size)
{
	char name[PATH_MAX];

	state_path_spare(&k->file, "embedded", name);
	if (rename(k->file.path, name) != 0) {
		snprintf(why, why_size,
			 "state_file %s holds the circuits of a memory store and cannot be renamed "
			 "to %s: %s",
			 k->file.path, name, strerror(errno));
		return -1;
	}
	log_warning(k->log, "state_of_memory",
		    "file=%s circuits=%zu kept_as=%s hint=\"they are not taken into Redis\"",
		    log_quote_text(k->file.path).text, circuits, log_quote_text(name).text);
	return 0;
}

static int restore(struct state_keeper *k, char *why, size_t why_size)
{
	int64_t began = clock_ms();
	struct state_moment now = moment_of(k);
	struct state_file_report report;

	switch (state_file_read(k->file.path, k->table, k->options.queues, k->options.ttl_ms, &now,
				&report)) {
	case STATE_FILE_NONE:
		return 0;
	case STATE_FILE_DAMAGED:
		return keep_aside(k, report.why, why, why_size);
	case STATE_FILE_FAILED:
		return state_path_complain(&k->file, report.why, why, why_size);
	case STATE_FILE_READ:
		break;
	}
	if (report.foreign && keep_embedded(k, report.foreign, why, why_size) != 0)
		return -1;
	log_write(k->log, report.dropped ? LOG_LEVEL_WARNING : LOG_LEVEL_INFO, "state_restored",
		  "file=%s circuits=%zu expired=%zu dropped=%zu took_ms=%lld",
		  log_quote_text(k->file.path).text, report.restored, report.expired,
		  report.dropped, (long long)(clock_ms() - began));
	if (report.steps && !k->options.queues)
		log_warning(k->log, "steps_dropped",
			    "circuits=%zu reason=\"they wait for Redis, and store is memory\"",
			    report.steps);
	return 0;
}

struct state_keeper *state_keeper_new(const struct state_keeper_options *options,
				      struct event_base *base, struct circuit_table *table,
				      struct store_clock clock, struct metrics *metrics,
				      struct log *log, char *why, size_t why_size)
{
	struct state_keeper *k = calloc(1, sizeof(*k));

	snprintf(why, why_size, "out of memory");
	if (!k)
		return NULL;
	k->options = *options;
	if (!k->options.interval_ms)
		k->options.interval_ms = STATE_KEEPER_INTERVAL_MS;
	k->base = base;
	k->table = table;
	k->clock = clock;
	k->metrics = metrics;
	k->log = log;
	k->file.lock = -1;
	k->timer = evtimer_new(base, on_timer, k);
	k->child_ends = evsignal_new(base, SIGCHLD, on_child_ends, k);
	if (!k->timer || !k->child_ends || event_add(k->child_ends, NULL) != 0)
		goto fail;
	if (state_path_take(&k->file, options->path, options->lock_ms, why, why_size) != 0 ||
	    restore(k, why, why_size) != 0)
		goto fail;
	return k;
fail:
	state_keeper_free(k, 0);
	return NULL;
}

/* --- end */

/* Waits for the child; false if it has not ended by then. */
static bool child_wait(struct state_keeper *k, int64_t until_ms, int *status)
{
	while (waitpid(k->child, status, WNOHANG) != k->child) {
		if (clock_ms() >= until_ms)
			return false;
		usleep(END_POLL_US); /* SIGCHLD interrupts it */
	}
	k->child = 0;
	return true;
}

/* Ends a child that is still writing: the last save is newer. */
static void child_end_now(struct state_keeper *k, int64_t end_ms)
{
	int64_t patience = clock_ms() + DEATH_MS;
	int status;

	if (!k->child)
		return;
	kill(k->child, SIGKILL);
	if (child_wait(k, patience < end_ms ? patience : end_ms, &status))
		unlink(k->file.tmp);
	else
		k->child = 0; /* it hangs in the disk, and cannot be waited for */
}

/* 0, or an errno. A child writes, as always, so that a disk that hangs does not hold up the end. */
static int write_last(struct state_keeper *k, int64_t end_ms)
{
	struct state_moment now = moment_of(k);
	pid_t child = child_start(k);
	int status;

	if (child < 0)
		return state_file_write(k->file.path, k->table, k->options.queues, &now);
	k->child = child;
	if (!child_wait(k, end_ms, &status)) {
		kill(k->child, SIGKILL);
		return ETIMEDOUT;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static void save_now(struct state_keeper *k, int64_t end_ms)
{
	int rc;

	k->started_ms = clock_ms();
	k->saving = k->changes;
	rc = write_last(k, end_ms);
	if (rc == 0) {
		save_succeeded(k);
		return;
	}
	k->warned_ms = 0; /* a failure of the last save is always logged */
	save_failed(k, strerror(rc));
}

bool state_keeper_free(struct state_keeper *k, int64_t end_ms)
{
	bool saved;

	if (!k)
		return true;
	if (!end_ms)
		end_ms = clock_ms() + END_MS;
	child_end_now(k, end_ms);
	if (k->changes != k->saved)
		save_now(k, end_ms);
	saved = k->changes == k->saved;
	if (k->timer)
		event_free(k->timer);
	if (k->child_ends)
		event_free(k->child_ends);
	state_path_release(&k->file);
	free(k);
	return saved;
}
