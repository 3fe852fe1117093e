#include "http/listen.h"
#include "suite.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[64], address[128];
#define PATH (address + strlen("unix:"))
static struct listen_error error;

static void setup(void)
{
	snprintf(dir, sizeof(dir), "/tmp/check_listen.XXXXXX");
	ck_assert_ptr_nonnull(mkdtemp(dir));
	snprintf(address, sizeof(address), "unix:%s/socket", dir);
	memset(&error, 0, sizeof(error));
}

static void teardown(void)
{
	unlink(PATH);
	rmdir(dir);
}

static int open_one(const char *where)
{
	int fd = -1, n = listen_open(where, 0660, &fd, 1, &error);

	ck_assert_msg(n == 1, "%s", error.text);
	return fd;
}

static bool can_connect(int listener)
{
	struct sockaddr_storage ss = {0};
	socklen_t len = sizeof(ss);
	int fd, rc;

	ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&ss, &len), 0);
	fd = socket(ss.ss_family, SOCK_STREAM, 0);
	rc = connect(fd, (struct sockaddr *)&ss, len);
	close(fd);
	return rc == 0;
}

START_TEST(addresses_are_parsed)
{
	static const struct {
		const char *address;
		bool local;
	} good[] = {
		{"127.0.0.1:8747", true},
		{"127.1.2.3:1", true},
		{"localhost:8747", true},
		{"LocalHost:80", true},
		{"[::1]:8747", true},
		{"[::ffff:127.0.0.1]:80", true},
		{"unix:/run/b.sock", true},
		{"0.0.0.0:8747", false},
		{"[::]:8747", false},
		{"10.0.0.1:0", false},
		{"gateway-1:65535", false},
		{"[::ffff:10.0.0.1]:80", false},
		{"localhost.example:80", false},
		{"128.0.0.1:80", false},
		{"[fe80::1%eth0]:80", false},
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		bool local = !good[i].local;

		ck_assert_msg(listen_parse(good[i].address, &local, &error), "%s", error.text);
		ck_assert_msg(local == good[i].local, "%s", good[i].address);
	}
}
END_TEST

START_TEST(bad_addresses_are_refused_with_their_name)
{
	static const char *const bad[] = {
		"",           "8747",          "localhost",   ":8747",
		"127.0.0.1:", "a:65536",       "a:-1",        "a:http",
		"a: 80",      "a:+80",         "::1:8747",    "[::1]",
		"[::1]8747",  "[::1:8747",     "[]:80",       "[10.0.0.1]:80",
		"unix:",      "unix:relative", "http://h:80", "a b:80",
		"-h:80",      "[::1]]:80",     "h/80:80",     "[fe80::zz]:80",
		"a:080000",
	};
	bool local;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		error.text[0] = '\0';
		ck_assert_msg(!listen_parse(bad[i], &local, &error), "accepted: %s", bad[i]);
		ck_assert_msg(strncmp(error.text, bad[i], strlen(bad[i])) == 0, "%s", error.text);
	}
}
END_TEST

START_TEST(unix_path_is_bounded)
{
	char path[256] = "unix:/";
	bool local;

	memset(path + 6, 'a', 106);
	ck_assert(listen_parse(path, &local, &error));
	memset(path + 6, 'a', 107);
	ck_assert(!listen_parse(path, &local, &error));
	ck_assert_ptr_nonnull(strstr(error.text, "107"));
}
END_TEST

START_TEST(tcp_listens_and_tells_its_port)
{
	char name[64];
	unsigned port;
	int fd = open_one("127.0.0.1:0");

	listen_name(fd, name, sizeof(name));
	ck_assert_int_eq(sscanf(name, "127.0.0.1:%u", &port), 1);
	ck_assert_uint_gt(port, 0);
	ck_assert(can_connect(fd));
	ck_assert(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}
END_TEST

START_TEST(ipv6_listens_and_leaves_ipv4_alone)
{
	char name[64];
	int fds[1], on = 0;
	socklen_t len = sizeof(on);

	if (listen_open("[::1]:0", 0, fds, 1, &error) != 1)
		return; /* a machine without IPv6 */
	listen_name(fds[0], name, sizeof(name));
	ck_assert_int_eq(strncmp(name, "[::1]:", 6), 0);
	ck_assert(can_connect(fds[0]));
	ck_assert_int_eq(getsockopt(fds[0], IPPROTO_IPV6, IPV6_V6ONLY, &on, &len), 0);
	ck_assert_int_eq(on, 1);
	close(fds[0]);
}
END_TEST

START_TEST(localhost_opens_each_of_its_addresses)
{
	int fds[LISTEN_MAX], n = listen_open("localhost:0", 0, fds, LISTEN_MAX, &error);
	char name[64];

	ck_assert_msg(n >= 1, "%s", error.text);
	for (int i = 0; i < n; i++) {
		bool local = false;

		listen_name(fds[i], name, sizeof(name));
		ck_assert(listen_parse(name, &local, &error) && local);
		ck_assert(can_connect(fds[i]));
		close(fds[i]);
	}
}
END_TEST

START_TEST(port_in_use_is_explained)
{
	char name[64];
	int fd = open_one("127.0.0.1:0"), other;

	listen_name(fd, name, sizeof(name));
	ck_assert_int_eq(listen_open(name, 0, &other, 1, &error), -1);
	ck_assert_int_eq(strncmp(error.text, name, strlen(name)), 0);
	ck_assert_ptr_nonnull(strstr(error.text, "Address already in use"));
	ck_assert_ptr_nonnull(strstr(error.text, "--listen"));
	close(fd);
}
END_TEST

START_TEST(address_of_another_machine_is_explained)
{
	int fd;

	ck_assert_int_eq(listen_open("192.0.2.1:0", 0, &fd, 1, &error), -1);
	ck_assert_int_eq(strncmp(error.text, "192.0.2.1:0: ", 13), 0);
}
END_TEST

START_TEST(unix_socket_has_its_mode)
{
	mode_t before = umask(0);
	struct stat st;
	char name[128];
	int fd = open_one(address);

	ck_assert_uint_eq(umask(before), 0);
	ck_assert_int_eq(stat(PATH, &st), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0660);
	listen_name(fd, name, sizeof(name));
	ck_assert_str_eq(name, address);
	ck_assert(can_connect(fd));
	close(fd);
}
END_TEST

START_TEST(stale_unix_socket_is_replaced)
{
	int fd = open_one(address);

	close(fd);
	ck_assert_int_eq(access(PATH, F_OK), 0);
	fd = open_one(address);
	ck_assert(can_connect(fd));
	close(fd);
}
END_TEST

/* Runs a process that listens on `address` until its standard input, *hold, is closed. */
static pid_t other_process(int *hold)
{
	int up[2], down[2], fd;
	char c = 0;
	pid_t pid;

	ck_assert_int_eq(pipe(up), 0);
	ck_assert_int_eq(pipe(down), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		close(down[1]);
		if (listen_open(address, 0600, &fd, 1, &error) != 1 || write(up[1], "x", 1) != 1)
			_exit(1);
		_exit(read(down[0], &c, 1) != 0);
	}
	close(up[1]);
	close(down[0]);
	ck_assert_int_eq(read(up[0], &c, 1), 1);
	close(up[0]);
	*hold = down[1];
	return pid;
}

START_TEST(live_unix_socket_is_left_alone)
{
	int hold, fd, status;
	pid_t pid = other_process(&hold);

	ck_assert_int_eq(listen_open(address, 0660, &fd, 1, &error), -1);
	ck_assert_ptr_nonnull(strstr(error.text, address));
	ck_assert_ptr_nonnull(strstr(error.text, "in use by another process"));
	listen_unlink(address);
	ck_assert_int_eq(access(PATH, F_OK), 0);
	close(hold);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, 0);
}
END_TEST

START_TEST(same_unix_socket_twice_is_an_error)
{
	int fd = open_one(address), other;

	ck_assert_int_eq(listen_open(address, 0660, &other, 1, &error), -1);
	ck_assert(can_connect(fd));
	close(fd);
}
END_TEST

START_TEST(regular_file_is_never_removed)
{
	int fd = open(PATH, O_CREAT | O_WRONLY, 0600);

	ck_assert_int_ge(fd, 0);
	close(fd);
	ck_assert_int_eq(listen_open(address, 0660, &fd, 1, &error), -1);
	ck_assert_ptr_nonnull(strstr(error.text, "no socket"));
	listen_unlink(address);
	ck_assert_int_eq(access(PATH, F_OK), 0);
}
END_TEST

START_TEST(missing_directory_is_explained)
{
	int fd;

	ck_assert_int_eq(listen_open("unix:/nonexistent/x", 0660, &fd, 1, &error), -1);
	ck_assert_ptr_nonnull(strstr(error.text, "directory"));
}
END_TEST

START_TEST(unlink_removes_ours_open_or_closed)
{
	int fd = open_one(address);

	listen_unlink(address);
	ck_assert_int_eq(access(PATH, F_OK), -1);
	close(fd);
	fd = open_one(address);
	close(fd);
	listen_unlink(address);
	ck_assert_int_eq(access(PATH, F_OK), -1);
	listen_unlink("127.0.0.1:1");
}
END_TEST

START_TEST(no_room_is_an_error)
{
	int fd;

	ck_assert_int_eq(listen_open("127.0.0.1:0", 0, &fd, 0, &error), -1);
	ck_assert_int_eq(listen_open(address, 0, &fd, 0, &error), -1);
	ck_assert_int_eq(access(PATH, F_OK), -1);
}
END_TEST

START_TEST(nothing_to_inherit)
{
	int fds[LISTEN_MAX];

	unsetenv("LISTEN_PID");
	unsetenv("LISTEN_FDS");
	ck_assert_int_eq(listen_inherit(fds, LISTEN_MAX, &error), 0);
}
END_TEST

#ifdef HAVE_LIBSYSTEMD
/*
 * Hands fd over as systemd does, in a child, because Check uses descriptor 3 itself. Returns the
 * result of listen_inherit in the low four bits (15: refused), and 16 if the descriptor and the
 * error are then as they must be.
 */
static int inherit_in_child(int fd)
{
	int fds[LISTEN_MAX], n, status;
	char text[32];
	pid_t pid = fork();

	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		snprintf(text, sizeof(text), "%ld", (long)getpid());
		setenv("LISTEN_PID", text, 1);
		setenv("LISTEN_FDS", "1", 1);
		dup2(fd, 3);
		n = listen_inherit(fds, LISTEN_MAX, &error);
		if (n == 1)
			_exit(1 + 16 * (fds[0] == 3 && fcntl(3, F_GETFD) == FD_CLOEXEC &&
					!getenv("LISTEN_FDS")));
		_exit((n & 15) +
		      16 * (fcntl(3, F_GETFD) == -1 && strstr(error.text, "ListenStream")));
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert(WIFEXITED(status));
	close(fd);
	return WEXITSTATUS(status);
}

START_TEST(listening_sockets_are_inherited)
{
	ck_assert_int_eq(inherit_in_child(open_one("127.0.0.1:0")), 16 + 1);
	ck_assert_int_eq(inherit_in_child(open_one(address)), 16 + 1);
}
END_TEST

START_TEST(other_descriptors_are_refused)
{
	ck_assert_int_eq(inherit_in_child(socket(AF_INET, SOCK_STREAM, 0)), 16 + 15);
	ck_assert_int_eq(inherit_in_child(socket(AF_INET, SOCK_DGRAM, 0)), 16 + 15);
	ck_assert_int_eq(inherit_in_child(open("/dev/null", O_RDONLY)), 16 + 15);
}
END_TEST
#endif

int main(void)
{
	Suite *s = suite_create("listen");
	TCase *tc = tcase_create("listen");

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, addresses_are_parsed);
	tcase_add_test(tc, bad_addresses_are_refused_with_their_name);
	tcase_add_test(tc, unix_path_is_bounded);
	tcase_add_test(tc, tcp_listens_and_tells_its_port);
	tcase_add_test(tc, ipv6_listens_and_leaves_ipv4_alone);
	tcase_add_test(tc, localhost_opens_each_of_its_addresses);
	tcase_add_test(tc, port_in_use_is_explained);
	tcase_add_test(tc, address_of_another_machine_is_explained);
	tcase_add_test(tc, unix_socket_has_its_mode);
	tcase_add_test(tc, stale_unix_socket_is_replaced);
	tcase_add_test(tc, live_unix_socket_is_left_alone);
	tcase_add_test(tc, same_unix_socket_twice_is_an_error);
	tcase_add_test(tc, regular_file_is_never_removed);
	tcase_add_test(tc, missing_directory_is_explained);
	tcase_add_test(tc, unlink_removes_ours_open_or_closed);
	tcase_add_test(tc, no_room_is_an_error);
	tcase_add_test(tc, nothing_to_inherit);
#ifdef HAVE_LIBSYSTEMD
	tcase_add_test(tc, listening_sockets_are_inherited);
	tcase_add_test(tc, other_descriptors_are_refused);
#endif
	suite_add_tcase(s, tc);
	return suite_run(s);
}
