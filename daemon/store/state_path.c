#include "store/state_path.h"

#include "base/clock.h"
#include "store/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_MS      5000
#define LOCK_POLL_US 20000

#define LINKS_MAX 40 /* as the kernel has it (path_resolution(7)) */

/* At most this many damaged files are kept: path.damaged, path.damaged.2 to path.damaged.9. */
#define DAMAGED_MAX  9
#define DAMAGED_ROOM sizeof(".embedded.9")

int state_path_complain(const struct state_path *p, const char *reason, char *why, size_t size)
{
	snprintf(why, size, "state_file %s: %s", p->path, reason);
	return -1;
}

/*
 * Puts the file that path leads to through symbolic links into out, also if it does not exist yet,
 * so that it will be written where the link points. 0, or -1 with errno.
 */
static int follow_links(const char *path, char out[PATH_MAX])
{
	char target[PATH_MAX], joined[2 * PATH_MAX];

	snprintf(joined, sizeof(joined), "%s", path);
	for (int links = 0; links <= LINKS_MAX; links++) {
		const char *slash = strrchr(joined, '/');
		ssize_t len;

		if (strlen(joined) >= PATH_MAX)
			break;
		strcpy(out, joined);
		len = readlink(out, target, sizeof(target) - 1);
		if (len < 0) /* no link, or no such file */
			return 0;
		target[len] = '\0';
		snprintf(joined, sizeof(joined), "%.*s%s",
			 target[0] == '/' || !slash ? 0 : (int)(slash + 1 - joined), out, target);
	}
	errno = strlen(joined) >= PATH_MAX ? ENAMETOOLONG : ELOOP;
	return -1;
}

static int find(struct state_path *p, const char *path, char *why, size_t why_size)
{
	snprintf(p->path, sizeof(p->path), "%s", path);
	if (strlen(path) < sizeof(p->path) && follow_links(path, p->path) != 0)
		return state_path_complain(p, strerror(errno), why, why_size);
	if (strlen(path) >= sizeof(p->path) || strlen(p->path) + DAMAGED_ROOM >= sizeof(p->path) ||
	    !state_file_tmp(p->tmp, sizeof(p->tmp), p->path))
		return state_path_complain(p, "the name is too long", why, why_size);
	return 0;
}

static void lock_name(const struct state_path *p, char name[PATH_MAX])
{
	snprintf(name, PATH_MAX, "%.*s.lock", (int)(PATH_MAX - 6), p->path);
}

/* errno says why the lock file cannot be opened. A lock file is never removed, and only the user
 * who made it can open it. */
static int complain_of_lock(const char *name, char *why, size_t size)
{
	int error = errno;
	struct stat st;

	if (error == EACCES && lstat(name, &st) == 0)
		snprintf(why, size,
			 "state_file: cannot write %s: %s; it belongs to user %u, as whom breakerd "
			 "was once run: remove it",
			 name, strerror(error), st.st_uid);
	else
		snprintf(why, size, "state_file: cannot write %s: %s", name, strerror(error));
	return -1;
}

/* Waits for the lock: on a restart the daemon before may still be saving. */
static int take_lock(struct state_path *p, unsigned lock_ms, char *why, size_t why_size)
{
	int64_t stop = clock_ms() + (lock_ms ? lock_ms : LOCK_MS);
	char name[PATH_MAX];

	lock_name(p, name);
	p->lock = open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (p->lock < 0)
		return complain_of_lock(name, why, why_size);
	/* On a file system without locks this goes on without one. */
	while (flock(p->lock, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
		if (clock_ms() >= stop)
			return state_path_complain(p, "another process keeps its state there", why,
						   why_size);
		usleep(LOCK_POLL_US);
	}
	return 0;
}

/* Checks that the file can be written, so that the first save does not find it out. */
static int try_directory(const struct state_path *p, char *why, size_t why_size)
{
	int fd;

	unlink(p->tmp);
	fd = open(p->tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0) {
		snprintf(why, why_size, "state_file: cannot write %s: %s", p->tmp, strerror(errno));
		return -1;
	}
	close(fd);
	unlink(p->tmp);
	return 0;
}

int state_path_take(struct state_path *p, const char *path, unsigned lock_ms, char *why,
		    size_t why_size)
{
	p->lock = -1;
	if (find(p, path, why, why_size) != 0 || take_lock(p, lock_ms, why, why_size) != 0)
		return -1;
	return try_directory(p, why, why_size);
}

void state_path_release(struct state_path *p)
{
	if (p->lock >= 0)
		close(p->lock);
	p->lock = -1;
}

/* 0 if the file may be read, or does not exist; else an errno. */
static int try_file(const char *path, bool *regular)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	struct stat st;

	*regular = true;
	if (fd < 0)
		return errno == ENOENT ? 0 : errno;
	*regular = fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
	close(fd);
	return 0;
}

/* The lock file is not made here, and not locked: the daemon may be running. */
static int try_lock_file(const struct state_path *p, char *why, size_t why_size)
{
	char name[PATH_MAX];
	int fd;

	lock_name(p, name);
	fd = open(name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : complain_of_lock(name, why, why_size);
	close(fd);
	return 0;
}

int state_path_check(const char *path, char *why, size_t why_size)
{
	struct state_path p = {.lock = -1};
	const char *slash;
	char directory[PATH_MAX];
	bool regular;
	int error;

	if (find(&p, path, why, why_size) != 0)
		return -1;
	error = try_file(p.path, &regular);
	if (error)
		return state_path_complain(&p, strerror(error), why, why_size);
	if (!regular)
		return state_path_complain(&p, "not a regular file", why, why_size);
	slash = strrchr(p.path, '/');
	snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash + 1 - p.path) : 1,
		 slash ? p.path : ".");
	if (faccessat(AT_FDCWD, directory, W_OK | X_OK, AT_EACCESS) == 0)
		return try_lock_file(&p, why, why_size);
	snprintf(why, why_size, "state_file: cannot write %s: %s", p.tmp, strerror(errno));
	return -1;
}

void state_path_spare(const struct state_path *p, const char *suffix, char out[PATH_MAX])
{
	struct stat st;

	snprintf(out, PATH_MAX, "%.*s.%s", (int)(PATH_MAX - DAMAGED_ROOM - 1), p->path, suffix);
	for (int n = 2; n <= DAMAGED_MAX && lstat(out, &st) == 0; n++)
		snprintf(out, PATH_MAX, "%.*s.%s.%c", (int)(PATH_MAX - DAMAGED_ROOM - 1), p->path,
			 suffix, '0' + n);
}
