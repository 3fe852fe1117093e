/*
 * Tells when files have changed: their content, or what a path leads to. It uses inotify(7) on all
 * directories that the paths lead through, those of symbolic links included, so it also notices
 * files and directories that are replaced, and the links that Kubernetes swaps.
 *
 * A change is told once nothing has changed for FILE_WATCH_CHECK_MS, but FILE_WATCH_BOUND_MS after
 * it was seen at the latest. Where inotify works, a file that is written in place is waited for:
 * until it is closed, or nothing was written to it for FILE_WATCH_WRITER_MS. However much happens
 * in these directories, the files are checked once in FILE_WATCH_CHECK_MS.
 */
#ifndef BREAKERD_FILE_WATCH_H
#define BREAKERD_FILE_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#define FILE_WATCH_CHECK_MS  100
#define FILE_WATCH_BOUND_MS  1000
#define FILE_WATCH_WRITER_MS 10000
/* How often the files are checked where inotify cannot be had. */
#define FILE_WATCH_POLL_MS 1000
/* How many files one watch can have. */
#define FILE_WATCH_MAX 8

/* Tells one content of a file from another. All zeros: there is no file. */
struct file_stamp {
	dev_t dev;
	ino_t ino;
	off_t size;
	struct timespec modified, changed;
};

struct file_stamp file_stamp_of(const struct stat *st);

struct event_base;
struct file_watch;

/* `on_change` is called from the loop, and may call file_watch_set. NULL when out of memory. */
struct file_watch *file_watch_new(struct event_base *base, void (*on_change)(void *), void *arg);

/*
 * Sets the files to watch; `paths` are copied. stamps[i] is paths[i] as the caller has read it; if
 * the file differs from that by now, this is a change. Returns 0; or an errno if inotify does not
 * work for all of them, and then they are checked each FILE_WATCH_POLL_MS.
 */
int file_watch_set(struct file_watch *watch, const char *const paths[],
		   const struct file_stamp stamps[], size_t count);

/* NULL is allowed. */
void file_watch_free(struct file_watch *watch);

#endif
