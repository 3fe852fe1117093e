/* Watching files: see file_watch.h. */
#include "base/file_watch.h"

#include "base/clock.h"
#include "base/timer.h"

#include <errno.h>
#include <event2/event.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

/* How many symbolic links a path may lead through (path_resolution(7)), and watches in all. */
#define LINKS_MAX   40
#define WATCHES_MAX 128
/* How often a check reads from the kernel's queue. The rest waits there; the kernel bounds it. */
#define READS_MAX 16

#define IN_DIRECTORY                                                                               \
	(IN_CLOSE_WRITE | IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |        \
	 IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
/* For a directory that a path leads through. If it is moved or removed, the path leads elsewhere.
 */
#define IN_WAY (IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR)
/* For a file. If it is mounted by itself, a watch of its directory does not tell of its changes. */
#define IN_FILE (IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB)

struct file_watch {
	void (*on_change)(void *);
	void *arg;
	char *paths[FILE_WATCH_MAX];
	struct file_stamp known[FILE_WATCH_MAX]; /* as the caller read them, or was told of */
	struct file_stamp seen[FILE_WATCH_MAX];  /* as they were at the last check */
	size_t count;
	int fd; /* -1: inotify cannot be had */
	int watches[WATCHES_MAX];
	size_t watch_count;
	/* Watches of files that were written to and not closed since (IN_MODIFY, but no
	 * IN_CLOSE_WRITE). */
	int written[FILE_WATCH_MAX];
	size_t written_count;
	int64_t written_ms; /* the last of these writes; monotonic */
	int error;          /* of the last renew_watches, an errno; 0: none */
	struct event *readable, *timer;
	bool differs;       /* the last check found a change that is not told yet */
	int64_t differs_ms; /* when that was found first; monotonic */
};

struct file_stamp file_stamp_of(const struct stat *st)
{
	return (struct file_stamp){
		.dev = st->st_dev,
		.ino = st->st_ino,
		.size = st->st_size,
		.modified = st->st_mtim,
		.changed = st->st_ctim,
	};
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

static bool same_stamp(const struct file_stamp *a, const struct file_stamp *b)
{
	return a->dev == b->dev && a->ino == b->ino && a->size == b->size &&
	       same_time(&a->modified, &b->modified) && same_time(&a->changed, &b->changed);
}

static bool same_stamps(const struct file_watch *w, const struct file_stamp *a,
			const struct file_stamp *b)
{
	for (size_t i = 0; i < w->count; i++)
		if (!same_stamp(&a[i], &b[i]))
			return false;
	return true;
}

/* --- watches */

static bool holds(const int *watches, size_t count, int wd)
{
	for (size_t i = 0; i < count; i++)
		if (watches[i] == wd)
			return true;
	return false;
}

static void add_watch(struct file_watch *w, const char *path, uint32_t events)
{
	/* If the path is watched already, this adds the events to its watch. */
	int wd = inotify_add_watch(w->fd, path, events | IN_MASK_ADD);

	/* A directory that this process may pass but not read cannot be watched. */
	if (wd < 0 && !(events == IN_WAY && errno == EACCES))
		w->error = errno;
	if (wd < 0 || holds(w->watches, w->watch_count, wd))
		return;
	if (w->watch_count == WATCHES_MAX) {
		inotify_rm_watch(w->fd, wd);
		w->error = ENOSPC;
		return;
	}
	w->watches[w->watch_count++] = wd;
}

/* Follows a symbolic link in `dir`: puts its target before the rest of the path. False if the path
 * becomes too long or the link cannot be read. */
static bool follow_link(char dir[PATH_MAX], const char *link, char rest[PATH_MAX])
{
	char target[PATH_MAX];
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	size_t behind = strlen(rest);

	if (n < 0 || (size_t)n + 1 + behind >= PATH_MAX)
		return false;
	memmove(rest + n + 1, rest, behind + 1);
	memcpy(rest, target, (size_t)n);
	rest[n] = '/';
	if (target[0] == '/')
		strcpy(dir, "/");
	return true;
}

/* Moves the first name of `rest` to the end of `dir`, in `to`. False if no name is left. */
static bool next_name(const char *dir, char *rest, char to[PATH_MAX])
{
	size_t skip = strspn(rest, "/"), len = strcspn(rest + skip, "/"), at = strlen(dir);

	if (len == 0 || at + 1 + len >= PATH_MAX)
		return false;
	memcpy(to, dir, at);
	if (at == 0 || to[at - 1] != '/')
		to[at++] = '/';
	memcpy(to + at, rest + skip, len);
	to[at + len] = '\0';
	memmove(rest, rest + skip + len, strlen(rest + skip + len) + 1);
	return true;
}

/* True if `path` is a directory. It is watched as one that the path leads through. */
static bool watch_directory(struct file_watch *w, const char *path, const struct stat *st)
{
	if (!S_ISDIR(st->st_mode))
		return false;
	add_watch(w, path, IN_WAY);
	return true;
}

/*
 * Watches all that can change what the path leads to: each directory that it leads through, and the
 * entries of each directory that holds a symbolic link on the way, the file, or the first name that
 * does not exist. A directory is watched before the name in it is looked up, so that no swap is
 * missed.
 */
static void add_watches(struct file_watch *w, const char *path)
{
	char dir[PATH_MAX], rest[PATH_MAX], name[PATH_MAX];
	unsigned links = 0;
	struct stat st;
	bool there;

	if (strlen(path) >= sizeof(rest))
		return;
	strcpy(rest, path);
	strcpy(dir, *path == '/' ? "/" : ".");
	while (next_name(dir, rest, name)) {
		there = lstat(name, &st) == 0;
		if (!there || !S_ISDIR(st.st_mode)) {
			add_watch(w, dir, IN_DIRECTORY);
			there = lstat(name, &st) == 0;
		}
		if (there && watch_directory(w, name, &st)) {
			strcpy(dir, name);
			continue;
		}
		if (!there || !S_ISLNK(st.st_mode)) {
			if (there)
				add_watch(w, name, IN_FILE);
			return;
		}
		if (++links > LINKS_MAX || !follow_link(dir, name, rest))
			return;
	}
}

/* Watches the paths as they lead now, and removes watches that are no longer needed. */
static void renew_watches(struct file_watch *w)
{
	int had[WATCHES_MAX];
	size_t had_count = w->watch_count;

	if (w->fd < 0)
		return;
	memcpy(had, w->watches, sizeof(had));
	w->watch_count = 0;
	w->error = 0;
	for (size_t i = 0; i < w->count; i++)
		add_watches(w, w->paths[i]);
	for (size_t i = 0; i < had_count; i++)
		if (!holds(w->watches, w->watch_count, had[i]))
			inotify_rm_watch(w->fd, had[i]);
}

/* --- checks */

static void read_stamps(struct file_watch *w, struct file_stamp *stamps)
{
	struct stat st;

	for (size_t i = 0; i < w->count; i++)
		stamps[i] =
			stat(w->paths[i], &st) == 0 ? file_stamp_of(&st) : (struct file_stamp){0};
}

static void forget_writer(struct file_watch *w, int wd)
{
	for (size_t i = 0; i < w->written_count; i++)
		if (w->written[i] == wd)
			w->written[i--] = w->written[--w->written_count];
}

/* Notes whether a file is being written. An event without a name comes from a file's own watch, one
 * with a name from a directory's. */
static void note_writer(struct file_watch *w, const struct inotify_event *e)
{
	if (e->len > 0)
		return;
	if (e->mask & (IN_MODIFY | IN_CLOSE_WRITE | IN_IGNORED))
		forget_writer(w, e->wd);
	if (!(e->mask & IN_MODIFY) || w->written_count == FILE_WATCH_MAX)
		return;
	w->written[w->written_count++] = e->wd;
	w->written_ms = clock_ms();
}

/* Reads the events. But for writers they do not matter, only that there were any. */
static void drain_queue(struct file_watch *w)
{
	_Alignas(struct inotify_event) char events[4096];
	ssize_t n;

	for (int i = 0; w->fd >= 0 && i < READS_MAX; i++) {
		n = read(w->fd, events, sizeof(events));
		if (n <= 0)
			return;
		for (char *at = events; at < events + n;) {
			const struct inotify_event *e = (const void *)at;

			note_writer(w, e);
			at += sizeof(*e) + e->len;
		}
	}
}

/* True while somebody is writing a file that is still watched. */
static bool is_written(const struct file_watch *w, int64_t now_ms)
{
	if (now_ms - w->written_ms >= FILE_WATCH_WRITER_MS)
		return false;
	for (size_t i = 0; i < w->written_count; i++)
		if (holds(w->watches, w->watch_count, w->written[i]))
			return true;
	return false;
}

/* Waits for the next event, or polls if some events cannot come. */
static void wait_for_events(struct file_watch *w)
{
	if (w->error)
		timer_arm(w->timer, FILE_WATCH_POLL_MS);
	if (w->fd >= 0)
		event_add(w->readable, NULL);
}

/* Watches before stamps: a change between the two makes an event. */
static void check_files(struct file_watch *w)
{
	struct file_stamp now[FILE_WATCH_MAX];
	int64_t now_ms = clock_ms();
	bool settled;

	drain_queue(w);
	renew_watches(w);
	read_stamps(w, now);
	if (same_stamps(w, now, w->known)) {
		w->differs = false;
		wait_for_events(w);
		return;
	}
	settled = w->differs && !is_written(w, now_ms) &&
		  (same_stamps(w, now, w->seen) || now_ms - w->differs_ms >= FILE_WATCH_BOUND_MS);
	if (!w->differs)
		w->differs_ms = now_ms;
	w->differs = !settled;
	memcpy(w->seen, now, sizeof(now));
	if (!settled) {
		timer_arm(w->timer, FILE_WATCH_CHECK_MS);
		return;
	}
	memcpy(w->known, now, sizeof(now));
	wait_for_events(w);
	w->on_change(w->arg);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	check_files(arg);
}

/* Further events wait in the queue until the check. */
static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct file_watch *w = arg;

	(void)fd;
	(void)what;
	event_del(w->readable);
	timer_arm(w->timer, FILE_WATCH_CHECK_MS);
}

/* --- the whole */

struct file_watch *file_watch_new(struct event_base *base, void (*on_change)(void *), void *arg)
{
	struct file_watch *w = calloc(1, sizeof(*w));

	if (!w)
		return NULL;
	w->on_change = on_change;
	w->arg = arg;
	w->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	w->error = w->fd < 0 ? errno : 0;
	w->timer = evtimer_new(base, on_timer, w);
	if (w->fd >= 0)
		w->readable = event_new(base, w->fd, EV_READ | EV_PERSIST, on_readable, w);
	if (!w->timer || (w->fd >= 0 && !w->readable)) {
		file_watch_free(w);
		return NULL;
	}
	return w;
}

static void drop_paths(struct file_watch *w)
{
	for (size_t i = 0; i < w->count; i++)
		free(w->paths[i]);
	w->count = 0;
}

int file_watch_set(struct file_watch *w, const char *const paths[],
		   const struct file_stamp stamps[], size_t count)
{
	int error = 0;

	drop_paths(w);
	for (size_t i = 0; i < count; i++) {
		char *path = w->count < FILE_WATCH_MAX ? strdup(paths[i]) : NULL;

		if (!path) {
			error = ENOMEM;
			continue;
		}
		w->known[w->count] = stamps[i];
		w->paths[w->count++] = path;
	}
	w->differs = false;
	renew_watches(w);
	/* Checks at once: a change since the caller read the files makes no event. */
	timer_arm(w->timer, 0);
	return error ? error : w->error;
}

void file_watch_free(struct file_watch *w)
{
	if (!w)
		return;
	drop_paths(w);
	if (w->readable)
		event_free(w->readable);
	if (w->timer)
		event_free(w->timer);
	if (w->fd >= 0)
		close(w->fd);
	free(w);
}
